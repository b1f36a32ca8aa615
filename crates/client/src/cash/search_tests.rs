//! Notes found again: from what authorities say, some of them lying, and how long many take.

use std::time::Instant;

use super::super::shares::tests::{Mint, secrets};
use super::*;
use florin_core::wire::IssuedNote;

fn free() -> NoteState {
    NoteState { state: Seen::Free, order_id: Bytes::new(), recoveries: 0 }
}

/// What four authorities reply of numbers from 0 on, of which notes of these tiers were made.
fn replies(mint: &Mint, secrets: &Secrets, tiers: &[u32]) -> Vec<Result<wire::NotesReply>> {
    let issued = |authority: usize| {
        let note = |(counter, tier): (u64, &u32)| IssuedNote {
            tiers: vec![*tier],
            shares: vec![mint.share(authority, &Blind::new(secrets, counter, *tier, None))],
        };
        wire::NotesReply { issued: (0..).zip(tiers).map(note).collect(), states: vec![] }
    };
    (0..4).map(|authority| Ok(issued(authority))).collect()
}

fn candidates(secrets: &Secrets, replies: &[Vec<Result<wire::NotesReply>>], count: usize) -> Vec<Candidate> {
    let candidate = |i: usize| {
        let nonce = Blind::new(secrets, i as u64, 0, None).nonce().into();
        Candidate { counter: i as u64, nonce, made: made(replies, i, 2) }
    };
    (0..count).map(candidate).filter(|c| !c.made.is_empty()).collect()
}

#[test]
fn liars_hide_nothing_and_make_nothing_up() {
    let (mint, secrets) = (Mint::new(3), secrets(1));
    let mut said = replies(&mint, &secrets, &[0, 1, 2, 0]);
    // One says that nothing was made of number 0, gives a false share of 1, and makes up a note of number 3 in another tier.
    let Ok(liar) = &mut said[1] else { unreachable!() };
    liar.issued[0] = IssuedNote::default();
    liar.issued[1].shares[0] = liar.issued[2].shares[0].clone();
    liar.issued[3] = IssuedNote { tiers: vec![2, 2, 31], shares: vec![liar.issued[1].shares[0].clone(); 3] };
    liar.issued.push(liar.issued[2].clone());
    let candidates = candidates(&secrets, &[said], 5);
    assert_eq!(candidates.iter().map(|c| c.counter).collect::<Vec<_>>(), [0, 1, 2, 3], "and no number 4");
    let unspent: Vec<_> = candidates.iter().map(|c| (c, free())).collect();
    let assembled = assemble(&mint.keys, &secrets, 3, &unspent).unwrap();
    assert_eq!(assembled.notes.iter().map(|n| n.tier).collect::<Vec<_>>(), [0, 1, 2, 0]);
    assert_eq!((assembled.liars.into_iter().collect::<Vec<_>>(), assembled.unsettled), (vec![1], 0));
    assembled.notes.iter().for_each(|note| mint.check(note));
}

#[test]
fn what_too_few_have_settled_waits() {
    let (mint, secrets) = (Mint::new(1), secrets(1));
    let mut said = replies(&mint, &secrets, &[0, 0]);
    for lagging in [0, 3] {
        let Ok(reply) = &mut said[lagging] else { unreachable!() };
        reply.issued[0] = IssuedNote::default();
    }
    let candidates = candidates(&secrets, &[said], 2);
    let unspent: Vec<_> = candidates.iter().map(|c| (c, free())).collect();
    let assembled = assemble(&mint.keys, &secrets, 3, &unspent).unwrap();
    assert_eq!((assembled.notes.len(), assembled.unsettled), (1, 1));
}

/// `cargo test --release -p florin-client --lib cash::search -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn ten_thousand_notes() {
    let (mint, secrets) = (Mint::new(4), secrets(1));
    let tiers: Vec<u32> = (0..10_000).map(|i| i % 4).collect();
    let said = [replies(&mint, &secrets, &tiers)];
    let began = Instant::now();
    let candidates = candidates(&secrets, &said, tiers.len() + GAP as usize);
    let found = began.elapsed();
    let unspent: Vec<_> = candidates.iter().map(|c| (c, free())).collect();
    let assembled = assemble(&mint.keys, &secrets, 3, &unspent).unwrap();
    assert_eq!(assembled.notes.len(), tiers.len());
    println!("10,000 notes: {found:?} to blind {} numbers, {:?} in all", tiers.len() + GAP as usize, began.elapsed());
}
