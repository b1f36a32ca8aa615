//! Whatever a crash leaves of the journal of cash, nothing is lost: what is open can be finished, and gives the same.

use std::collections::BTreeSet;

use super::super::records::{Made, NoteRecord, Origin, Purpose, State};
use super::*;
use crate::keystore::Meta;
use florin_core::keys::Curve;

fn wallet(dir: &Path, entropy: u8) -> (Keystore, Secrets) {
    let meta = Meta { network_id: 7, currency: "flr".into(), decimals: 2, curve: Curve::Ed25519 };
    let path = dir.join(format!("{entropy}.wallet"));
    let keystore = Keystore::create(&path, &[entropy; 16], "p", meta).unwrap();
    let secrets = Secrets::new(Seed::from_entropy(&[entropy; 16]).unwrap(), 7);
    (keystore, secrets)
}

fn made(secrets: &Secrets, counter: u64, tier: u32, send: bool) -> Made {
    Made { counter, tier, nonce: secrets.notes.note(counter).nonce().into(), send, lock: None }
}

fn settled(number: u64, notes: usize) -> Record {
    Record::Settled { number, signatures: vec!["ab".into(); notes] }
}

/// A wallet's life: (what happens, what the wallet is worth from then on).
fn life(secrets: &Secrets) -> Vec<(Record, u128)> {
    let own = |counter| Hex32::from(secrets.notes.note(counter).nonce());
    let given = |n: u8, tier| NoteRecord {
        nonce: Hex32([n; 32]),
        tier,
        signature: "cd".into(),
        recoveries: 0,
        origin: Origin::Given { sealed: secrets.seal(&Hex32([n; 32]), &[n + 50; 32]).unwrap() },
    };
    let prepared = |number, purpose, inputs, outputs| Record::Prepared {
        number,
        purpose,
        id: None,
        inputs,
        outputs,
        envelope: "00".into(),
        time: 1,
    };
    let made = |counter, tier, send| made(secrets, counter, tier, send);
    let withdraw = Purpose::Withdraw { account: 0, payment: "cash 0".into() };
    let send = Purpose::Send { notes: vec![own(1)], memo: "m".into() };
    let deposit = Purpose::Deposit { address: Hex32([1; 32]), amount: 3 };
    let received = vec![given(100, 4), given(101, 0)];
    vec![
        (Record::Found { next: 0, notes: vec![] }, 0),
        // 16 + 1 come from the account.
        (prepared(0, withdraw, vec![], vec![made(0, 4, false), made(1, 0, false)]), 17),
        (settled(0, 2), 17),
        // 5 go out: the note of 1, and 4 of the 16; 8 and 4 come back.
        (prepared(1, send, vec![own(0)], vec![made(2, 2, true), made(3, 3, false), made(4, 2, false)]), 17),
        (settled(1, 3), 17),
        // 17 come in, and are exchanged.
        (Record::Received { number: 2, notes: received, memo: "r".into(), time: 2 }, 34),
        (
            prepared(
                3,
                Purpose::Receive { received: 2 },
                vec![Hex32([100; 32]), Hex32([101; 32])],
                vec![made(5, 4, false), made(6, 0, false)],
            ),
            34,
        ),
        (settled(3, 2), 34),
        // Of what was sent, the 4 are claimed; the note of 1 is taken back.
        (Record::Spent { notes: vec![own(2)], by: "ef".into() }, 30),
        (prepared(4, Purpose::Cancel { sent: 1 }, vec![own(1)], vec![made(7, 0, false)]), 30),
        (settled(4, 1), 30),
        // 3 go to the account: from when on that can't be undone, they are not the wallet's.
        (prepared(5, deposit, vec![own(4)], vec![made(8, 0, false)]), 27),
        (settled(5, 1), 27),
    ]
}

fn worth(book: &Book) -> u128 {
    book.notes.values().map(|n| 1u128 << n.note.tier).sum()
}

#[test]
fn nothing_is_lost_wherever_the_journal_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (keystore, secrets) = wallet(dir.path(), 1);
    let path = journal_path(keystore.path());
    let life = life(&secrets);
    let mut store = Store::open(&keystore).unwrap();
    let length = || std::fs::metadata(&path).unwrap().len();
    let mut ends = vec![(length(), 0)];
    for (record, worth) in &life {
        store.record(vec![record.clone()]).unwrap();
        ends.push((length(), *worth));
    }
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    let cuts = ends.windows(2).flat_map(|pair| {
        let ((from, before), (to, after)) = (pair[0], pair[1]);
        [(from, before), (from + 1, before), ((from + to) / 2, before), (to - 2, before), (to - 1, after), (to, after)]
    });
    for (cut, expected) in cuts {
        std::fs::write(&path, &whole[..cut as usize]).unwrap();
        let mut store = Store::open(&keystore).unwrap();
        // What the next command does: it asks again, and the committee answers the same.
        for number in store.book.open.keys().copied().collect::<Vec<_>>() {
            let notes = store.book.open[&number].outputs.len();
            store.record(vec![settled(number, notes)]).unwrap();
        }
        assert_eq!(worth(&store.book), expected, "cut at {cut} of {}", whole.len());
        let counters: Vec<u64> = (store.book.notes.values())
            .filter_map(|n| if let Origin::Own { counter } = n.note.origin { Some(counter) } else { None })
            .collect();
        assert_eq!(counters.len(), counters.iter().collect::<BTreeSet<_>>().len());
        assert!(counters.iter().all(|c| *c < store.book.next_counter()), "a number would make a second note");
        drop(store);
        // And it is on disk then.
        let store = Store::open(&keystore).unwrap();
        assert!(store.book.open.is_empty() && worth(&store.book) == expected);
    }
}

#[test]
fn received_secrets_are_encrypted_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (keystore, secrets) = wallet(dir.path(), 1);
    let mut store = Store::open(&keystore).unwrap();
    life(&secrets).into_iter().for_each(|(record, _)| store.record(vec![record]).unwrap());
    drop(store);
    let text = std::fs::read_to_string(journal_path(keystore.path())).unwrap();
    assert!(!text.contains(&hex::encode([150u8; 32])) && text.contains("sealed"));
    let own = hex::encode(&secrets.notes.note(0).secret()[..]);
    assert!(!text.contains(&own), "nor are secrets of its own notes");

    let (nonce, other) = (Hex32([1; 32]), Hex32([2; 32]));
    let sealed = secrets.seal(&nonce, &[9; 32]).unwrap();
    assert_eq!(*secrets.unseal(&nonce, &sealed).unwrap(), [9; 32]);
    assert_eq!(secrets.unseal(&other, &sealed).unwrap_err().code, Code::BadFile);
    assert_eq!(secrets.unseal(&nonce, &sealed[2..]).unwrap_err().code, Code::BadFile);
    let (_, stranger) = wallet(dir.path(), 2);
    assert_eq!(stranger.unseal(&nonce, &sealed).unwrap_err().code, Code::BadFile);
}

#[test]
fn the_cash_of_another_wallet_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (one, _) = wallet(dir.path(), 1);
    let (two, _) = wallet(dir.path(), 2);
    drop(Store::open(&one).unwrap());
    std::fs::rename(journal_path(one.path()), journal_path(two.path())).unwrap();
    assert_eq!(Store::open(&two).err().map(|e| e.code), Some(Code::BadFile));
}

#[test]
fn a_state_is_what_it_was_after_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let (keystore, secrets) = wallet(dir.path(), 1);
    let mut store = Store::open(&keystore).unwrap();
    life(&secrets).into_iter().take(7).for_each(|(record, _)| store.record(vec![record]).unwrap());
    let spent = Record::Spent { notes: vec![Hex32([100; 32])], by: "aa".into() };
    store.record(vec![Record::Failed { number: 3, code: 417, message: String::new() }, spent]).unwrap();
    let left: Vec<_> = store.book.in_state(|s| s == State::Received(2)).map(|n| n.note.tier).collect();
    assert_eq!(left, [0], "what is left of it can still be exchanged");
}
