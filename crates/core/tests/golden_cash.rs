//! The bytes of e-cash that are signed, sent or stored, pinned as those in `golden.rs` are.

#[path = "pinned/mod.rs"]
mod pinned;

use bytes::Bytes;
use florin_core::authority::issued::Issued;
use florin_core::bearer::{build, lock_nonce, order_message};
use florin_core::cash::testing::{Note, mint};
use florin_core::content::{TYPE_PAY, credit_output, encode_withdraw};
use florin_core::testing::{Cluster, NETWORK_ID, Signer, TestCommittee, to};
use florin_core::wire;
use pinned::golden;
use prost::Message;

fn bytes32(byte: u8) -> Bytes {
    Bytes::copy_from_slice(&[byte; 32])
}

#[test]
fn a_note_from_withdrawal_to_deposit() {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let mut alice = Signer::new(1);
    cluster.fund(alice.address, 100);
    let mut purse = cluster.make_cash(4);
    let asked = purse.ask(&[0, 3]);
    let request = asked.iter().filter_map(|a| match a.output().kind {
        Some(wire::output::Kind::Note(note)) => Some(note),
        _ => None,
    });
    let content = encode_withdraw(&[to(alice.address, 5)], &request.collect::<Vec<_>>(), "m", alice.open());
    golden("cash_withdraw_content", &content);
    let order = alice.order(TYPE_PAY, content);
    let shares = cluster.run_cash(&order);
    golden("cash_share", &shares[2].1[1]);
    let notes: Vec<Note> = purse.take(&asked, &shares).into_iter().map(Option::unwrap).collect();
    golden("cash_nonce", notes[1].secrets.nonce().0);
    golden("cash_note_signature", notes[1].signature.to_bytes());
    golden("cash_tier_key", mint(4, 4)[0].tier_key(3).unwrap().to_bytes());
    let asked = purse.ask(&[1]);
    let spends: Vec<_> = notes.iter().map(Note::spend).collect();
    let outputs = vec![credit_output(&to(alice.address, 7)), asked[0].output()];
    golden("cash_bearer_envelope", build(NETWORK_ID, &spends, outputs, "thanks", None));
    golden("cash_recover_notes_envelope", build(NETWORK_ID, &spends[..1], Vec::new(), "", None));
    golden("cash_order_message", order_message(&[7; 32]));
}

#[test]
fn locks_bundles_and_records() {
    let lock = wire::NoteLock { receiver: bytes32(1), sender: bytes32(2), after_ms: 1_800_000_000_000 };
    golden("cash_lock_nonce", lock_nonce(&lock).0);
    let input =
        wire::NoteInput { tier: 31, lock: Some(lock.clone()), returned: true, recoveries: 2, ..Default::default() };
    golden("cash_locked_input", input.encode_to_vec());
    let note = |lock: Option<wire::NoteLock>| wire::CashNote {
        tier: 5,
        secret: if lock.is_some() { Bytes::new() } else { bytes32(3) },
        signature: Bytes::from_static(&[4; 48]),
        lock,
    };
    let bundle = wire::CashNotes {
        network_id: NETWORK_ID,
        committee_id: bytes32(5),
        notes: vec![note(None), note(Some(lock))],
        memo: "for bread".into(),
    };
    golden("cash_bundle", bundle.encode_to_vec());
    let record = wire::NoteRecord {
        order_id: bytes32(6),
        batch: 300,
        index: 7,
        spent: true,
        frozen: true,
        recoveries: 1,
        early: vec![wire::EarlyRecord { seqnum: 2, batch: 301, index: 4, ..Default::default() }],
    };
    golden("record_note", record.encode_to_vec());
    let mut issued = Issued::default();
    [4, 0, 4, 63, 4].into_iter().for_each(|tier| issued.add(tier));
    golden("record_issued", issued.encode().expect("it is asked for"));
    let recovery =
        wire::NoteRecoveryRecord { recoveries: 1, due_ms: 9, reports: Bytes::from_static(&[3]), spent_by: bytes32(8) };
    golden("record_note_recovery", recovery.encode_to_vec());
    let report = wire::NoteReport { nonce: bytes32(1), order_id: bytes32(2), recoveries: 3 };
    let item = wire::Item { kind: Some(wire::item::Kind::NoteReport(report)) };
    golden("item_note_report", item.encode_to_vec());
    for (name, kind) in [
        ("freeze", wire::log_step::Kind::FreezeNote(wire::LogFreezeNote { nonce: bytes32(1) })),
        (
            "resolve",
            wire::log_step::Kind::ResolveNote(wire::LogResolveNote { nonce: bytes32(1), void: true, recoveries: 2 }),
        ),
    ] {
        golden(&format!("step_{name}_note"), wire::LogStep { kind: Some(kind) }.encode_to_vec());
    }
}
