//! A batch says of each note what the note alone would, whatever is wrong with the others.

use proptest::prelude::*;

use super::*;
use crate::cash::blind::BlindingFactor;
use crate::cash::combine::combine;
use crate::cash::testing::{deal, scalar};

type Note = (TierKey, Nonce, NoteSignature);

/// True notes, one tier after the other.
fn notes(count: usize, tiers: usize) -> Vec<Note> {
    let tiers: Vec<_> = (0..tiers).map(|tier| deal(1, 1, &format!("tier {tier}"))).collect();
    let factor = BlindingFactor::new(scalar("factor")).unwrap();
    (0..count)
        .map(|i| {
            let (keys, shares) = &tiers[i % tiers.len()];
            let mut nonce = Nonce([0; 32]);
            nonce.0[..8].copy_from_slice(&(i as u64).to_be_bytes());
            let blinded = nonce.blind(&factor);
            let combined = combine(keys, &blinded, &[(1, shares[0].sign(&blinded))]).unwrap();
            (*keys.key(), nonce, factor.unblind(&combined.signature.unwrap()))
        })
        .collect()
}

/// What is no note any more, by a change of some kind.
fn spoil(note: &Note, kind: usize, others: &[Note]) -> Note {
    let (key, nonce, signature) = *note;
    let point = signature.0;
    let other = others[(kind * 31 + 7) % others.len()];
    let (other_key, other) = (others.iter().find(|o| o.0 != key).unwrap().0, other.2.0);
    let signature = |point: G1| NoteSignature::new(point).unwrap();
    match kind % 7 {
        0 => (key, nonce, signature(point.neg())),
        1 => (key, nonce, signature(point.add(&G1::generator()))),
        2 => (key, nonce, signature(point.add(&point))),
        3 => (key, nonce, signature(point.add(&other))),
        4 => (other_key, nonce, signature(point)),
        5 => (key, nonce, signature(nonce.hash())),
        _ => {
            let mut changed = nonce;
            changed.0[kind % 32] ^= 1 << (kind % 8);
            (key, changed, signature(point))
        }
    }
}

#[test]
fn all_true_notes_pass() {
    assert!(verify_notes(&[]).is_empty());
    for (count, tiers) in [(1, 1), (2, 1), (3, 2), (40, 16), (70, 1)] {
        assert_eq!(verify_notes(&notes(count, tiers)), vec![true; count], "{count} of {tiers}");
    }
    // The same note twice is a double spend, and not the signature's business.
    let twice = [notes(1, 1), notes(1, 1)].concat();
    assert_eq!(verify_notes(&twice), [true, true]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_batch_judges_like_one_by_one(
        count in 2usize..60,
        tiers in 2usize..5,
        bad in prop::collection::vec((any::<prop::sample::Index>(), 0usize..7_000), 0..6),
    ) {
        let mut batch = notes(count, tiers);
        let good = batch.clone();
        for (at, kind) in bad {
            let at = at.index(count);
            batch[at] = spoil(&good[at], kind, &good);
        }
        let alone: Vec<bool> = batch.iter().map(|(key, nonce, signature)| key.verifies(nonce, signature)).collect();
        prop_assert_eq!(verify_notes(&batch), alone);
    }
}

/// Errors that would cancel in a plain sum, over two notes and over three, and those of another tier.
#[test]
fn errors_do_not_cancel() {
    let good = notes(20, 2);
    let shifted = |note: &Note, by: &G1| (note.0, note.1, NoteSignature::new(note.2.0.add(by)).unwrap());
    let x = G1::generator();
    let mut batch = good.clone();
    batch[2] = shifted(&good[2], &x);
    batch[4] = shifted(&good[4], &x.neg());
    let mut expected = vec![true; 20];
    (expected[2], expected[4]) = (false, false);
    assert_eq!(verify_notes(&batch), expected);
    batch[4] = shifted(&good[4], &x);
    batch[7] = shifted(&good[7], &x.add(&x).neg());
    expected[7] = false;
    assert_eq!(verify_notes(&batch), expected);
    // Two notes of one tier that have each other's signature.
    let mut batch = good.clone();
    (batch[0].2, batch[2].2) = (good[2].2, good[0].2);
    let mut expected = vec![true; 20];
    (expected[0], expected[2]) = (false, false);
    assert_eq!(verify_notes(&batch), expected);
}

/// Thousands of false notes among true ones; every one is found and no true one with it.
#[test]
fn no_false_note_passes() {
    let good = notes(250, 4);
    let mut found = 0;
    for round in 0..8 {
        let batch: Vec<Note> = good
            .iter()
            .enumerate()
            .map(|(i, note)| if i % 50 == round { *note } else { spoil(note, round * 250 + i, &good) })
            .collect();
        for (i, holds) in verify_notes(&batch).into_iter().enumerate() {
            assert_eq!(holds, i % 50 == round, "round {round}, note {i}");
            found += usize::from(!holds);
        }
    }
    assert_eq!(found, 8 * 245);
}

/// A million, by hand: `cargo test --release -p florin-core no_note_of_a_million -- --ignored`. About 20 minutes.
#[test]
#[ignore = "20 minutes"]
fn no_note_of_a_million() {
    let good = notes(1_000, 8);
    for round in 0..1_000 {
        let batch: Vec<Note> = good.iter().enumerate().map(|(i, note)| spoil(note, round * 1_000 + i, &good)).collect();
        assert!(verify_notes(&batch).iter().all(|holds| !holds), "round {round}");
    }
}
