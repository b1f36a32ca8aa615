//! Records that no unit led to.

use super::*;
use crate::authority::state::Table;
use crate::bitmap::Bitmap;
use crate::ordered::bearers::note_key;
use crate::ordered::modules::contracts::{contract_key, expiry_key};
use crate::ordered::modules::primary::{balance_key, deposit_key};
use crate::ordered::step::{Object, actor_key, object_key};
use wire::contract_reply::State as C;

fn id() -> (u64, u64) {
    (NETWORK_ID, Signer::new(1).actor())
}

/// A log with one CALL of Alice, her first order.
fn called() -> Broken {
    let mut broken = Broken::new();
    broken.applied(&Signer::new(1).call(vec![], vec![credit(&Signer::new(2), 1)]));
    broken
}

#[test]
fn voided_numbers_are_above_the_last_call_recovered_and_in_order() {
    const VOIDED: &str = "expected voided seqnums after its last CALL, each recovered";
    for (i, (calls, voided, recovered, found)) in [
        (true, &[][..], 0, 0),
        (true, &[2, 3], 3, 0),
        (true, &[2], 5, 0),
        (true, &[3, 2], 3, 1),
        (true, &[2, 2], 3, 1),
        (true, &[1], 3, 1),
        (true, &[1, 2], 3, 1),
        (true, &[2, 4], 3, 1),
        (true, &[2], 1, 1),
        (false, &[], 4, 0),
        (false, &[1], 1, 0),
        (false, &[], 0, 1),
    ]
    .into_iter()
    .enumerate()
    {
        let mut broken = if calls { called() } else { Broken::new() };
        let record = wire::CallerRecord { last_call: u32::from(calls), voided: voided.to_vec(), recovered };
        broken.put(actor_key(Object::Caller, id().0, id().1), &record);
        assert_eq!(broken.says(VOIDED), found, "case {i}");
        assert_eq!(broken.says(": last CALL: "), 0, "case {i}");
        let caller = broken.audit().callers.remove(&id()).unwrap();
        assert_eq!((&caller.voided[..], caller.recovered), (voided, recovered));
    }
    for last_call in [0, 2] {
        let mut broken = called();
        let record = wire::CallerRecord { last_call, recovered: 9, ..Default::default() };
        broken.put(actor_key(Object::Caller, id().0, id().1), &record);
        assert_eq!(broken.says(&format!(": last CALL: expected 1, found {last_call}")), 1);
    }
    assert_eq!(called().says("accounts with a record: expected 1, found 0"), 1);
}

#[test]
fn an_open_recovery_names_the_next_number_its_account_and_who_has_reported() {
    let alice = Signer::new(1);
    let good = wire::RecoveryRecord {
        seqnum: 4,
        due_ms: 9_000,
        account: bytes(&alice),
        reports: Bitmap::empty(4).to_bytes(),
        ..Default::default()
    };
    let first = wire::RecoveryRecord { seqnum: 1, open: alice.permission.encode(), ..good.clone() };
    let says = |caller: Option<u32>, record: &wire::RecoveryRecord| {
        let mut broken = if caller.is_some() { called() } else { Broken::new() };
        if let Some(recovered) = caller {
            let record = wire::CallerRecord { last_call: 1, recovered, ..Default::default() };
            broken.put(actor_key(Object::Caller, id().0, id().1), &record);
        }
        broken.put(actor_key(Object::Recovery, id().0, id().1), record);
        assert_eq!(broken.audit().recoveries.get(&id()), Some(&record.seqnum));
        [": expected a seqnum after ", ": expected a bit for each authority's report", ": expected its account, found"]
            .map(|text| broken.says(text))
    };
    assert_eq!(says(Some(3), &good), [0, 0, 0]);
    assert_eq!(says(Some(4), &good), [1, 0, 0]);
    assert_eq!(says(Some(5), &good), [1, 0, 0]);
    assert_eq!(says(None, &first), [0, 0, 0]);
    assert_eq!(says(Some(0), &wire::RecoveryRecord { seqnum: 2, ..good.clone() }), [0, 0, 0]);
    assert_eq!(says(Some(0), &first), [1, 0, 0]);
    let reports = Bitmap::empty(9).to_bytes();
    assert_eq!(says(Some(3), &wire::RecoveryRecord { reports, ..good.clone() }), [0, 1, 0]);
    for wrong in [
        wire::RecoveryRecord { open: alice.permission.encode(), ..good.clone() },
        wire::RecoveryRecord { account: Bytes::from_static(b"x"), ..good.clone() },
    ] {
        assert_eq!(says(Some(3), &wrong), [0, 0, 1]);
    }
    for wrong in [
        wire::RecoveryRecord { open: Bytes::new(), ..first.clone() },
        wire::RecoveryRecord { open: Signer::new(2).permission.encode(), ..first.clone() },
        wire::RecoveryRecord { account: bytes(&Signer::new(2)), ..first.clone() },
    ] {
        assert_eq!(says(None, &wrong), [0, 0, 1]);
    }
}

/// Timers find what is due: each recovery has one until its time has come; after that it may wait for a report.
#[test]
fn recoveries_and_their_timers_are_the_same() {
    let nonce = [5; 32];
    for (i, (due_ms, timer, found)) in [
        (Some(9_000), Some(9_000), 0),
        (Some(9_000), None, 1),
        (Some(9_000), Some(9_001), 1),
        (Some(1_001), None, 1),
        (Some(1_000), None, 0),
        (Some(999), None, 0),
        (Some(1_000), Some(1_000), 0),
        (Some(999), Some(999), 0),
        (Some(999), Some(998), 1),
        (None, Some(9_000), 1),
    ]
    .into_iter()
    .enumerate()
    {
        let mut broken = Broken::new();
        if let Some(due_ms) = due_ms {
            let record = wire::RecoveryRecord { seqnum: 4, due_ms, ..Default::default() };
            broken.put(actor_key(Object::Recovery, id().0, id().1), &record);
            broken.put(note_key(&nonce), &wire::NoteRecoveryRecord { due_ms, ..Default::default() });
        }
        if let Some(at) = timer {
            let (at, network, actor) = (u64::to_be_bytes(at), id().0.to_be_bytes(), id().1.to_be_bytes());
            let keys =
                [object_key(Object::Timer, &[&at, &network, &actor]), object_key(Object::NoteTimer, &[&at, &nonce])];
            keys.into_iter().for_each(|key| broken.state.apply(&[Write::put(Table::Objects, key, vec![])]));
        }
        assert_eq!(broken.says("log: recoveries by the time that they are due"), found, "case {i}");
        assert_eq!(broken.says("log: recoveries of notes by the time that they are due"), found, "case {i}");
    }
}

#[test]
fn a_note_is_being_recovered_or_was_freed_or_is_spent_and_as_often_as_orders_ask() {
    use super::super::bearer::{spend, with_notes};
    use crate::cash::testing::Note;
    let (cluster, _, _, _, notes) = with_notes(2, &[4]);
    let nonce = notes[0].secrets.nonce().0;
    let (none, bits, by) = (Bytes::new(), Bitmap::empty(4).to_bytes(), Bytes::from_static(&[1; 32]));
    let record = |recoveries, due_ms, reports: &Bytes, spent_by: &Bytes| {
        let (reports, spent_by) = (reports.clone(), spent_by.clone());
        wire::NoteRecoveryRecord { recoveries, due_ms, reports, spent_by }
    };
    // An order asks for the first recovery, and another for the second.
    for (i, (asked, record, found)) in [
        (1, record(0, 9_000, &bits, &none), [0, 0]),
        (0, record(0, 9_000, &bits, &none), [1, 0]),
        (1, record(1, 9_000, &bits, &none), [1, 0]),
        (2, record(1, 9_000, &bits, &none), [0, 0]),
        (2, record(0, 9_000, &bits, &none), [0, 0]),
        (1, record(1, 0, &none, &none), [0, 0]),
        (1, record(2, 0, &none, &none), [1, 0]),
        (2, record(2, 0, &none, &none), [0, 0]),
        (1, record(0, 0, &none, &none), [0, 1]),
        (1, record(0, 0, &none, &by), [0, 0]),
        (0, record(0, 0, &none, &by), [0, 0]),
        (1, record(1, 0, &none, &by), [0, 0]),
        (1, record(1, 0, &none, &Bytes::from_static(b"x")), [0, 1]),
        (1, record(0, 0, &none, &Bytes::from_static(b"x")), [0, 1]),
        (1, record(1, 0, &bits, &none), [0, 1]),
        (1, record(0, 0, &bits, &by), [0, 1]),
        (1, record(0, 9_000, &Bytes::from_static(b"xxx"), &none), [0, 1]),
        (1, record(0, 9_000, &bits, &by), [0, 1]),
    ]
    .into_iter()
    .enumerate()
    {
        let mut broken = Broken::of(&cluster);
        for recoveries in 0..asked {
            let notes: Vec<Note> = vec![Note { recoveries, ..notes[0].clone() }];
            broken.applied(&spend(&notes, vec![], None));
        }
        broken.put(note_key(&nonce), &record);
        let says = ["recoveries as orders ask, found", ": expected an open recovery, or what one came to, found"];
        assert_eq!(says.map(|text| broken.says(text)), found, "case {i}: {:?}", broken.audit().findings);
        let audit = broken.audit();
        let freed = (record.recoveries > 0).then_some(record.recoveries);
        assert_eq!(audit.freed_notes.get(&nonce[..]).copied(), freed, "case {i}");
        assert_eq!(audit.note_recoveries.contains(&nonce[..]), record.due_ms != 0, "case {i}");
        let spent = broken.says("notes that settled orders have spent");
        assert_eq!(spent, usize::from(!record.spent_by.is_empty()), "case {i}");
    }
}

#[test]
fn contracts_have_a_state_and_a_preimage_only_when_it_was_claimed() {
    for (state, preimage, found) in [
        (C::Open as i32, "", 0),
        (C::Claimed as i32, "", 0),
        (C::Claimed as i32, "secret", 0),
        (C::Refunded as i32, "", 0),
        (C::Open as i32, "secret", 1),
        (C::Refunded as i32, "secret", 1),
        (C::Unknown as i32, "", 1),
        (C::Unknown as i32, "secret", 1),
        (77, "", 1),
    ] {
        let mut broken = Broken::new();
        let preimage = Bytes::copy_from_slice(preimage.as_bytes());
        broken.put(contract_key(&[3; 32]), &wire::ContractRecord { state, preimage, ..Default::default() });
        assert_eq!(broken.says(": expected a state, found"), found, "state {state}");
    }
}

#[test]
fn an_expiry_is_that_of_an_open_contract() {
    let (id, fund) = ([3; 32], wire::ContractFund { expiry_ms: 5_000, ..Default::default() });
    for (state, expiry_ms, found) in [
        (Some(C::Open), 5_000, 0),
        (Some(C::Open), 5_001, 1),
        (Some(C::Claimed), 5_000, 1),
        (Some(C::Refunded), 5_000, 1),
        (None, 5_000, 1),
    ] {
        let mut broken = Broken::new();
        if let Some(state) = state {
            let record = wire::ContractRecord { fund: Some(fund.clone()), state: state as i32, ..Default::default() };
            broken.put(contract_key(&id), &record);
        }
        broken.state.apply(&[Write::put(Table::Objects, expiry_key(expiry_ms, &id), vec![])]);
        assert_eq!(broken.says(": expiry of an open one"), found, "{state:?}, {expiry_ms}");
    }
}

/// Keys that only say that something is there hold nothing, and other keys are of nobody.
#[test]
fn what_cannot_be_an_object_is_corrupt() {
    let zeros = |n: usize| vec![0; n];
    for (object, rest) in [(Object::ChannelOf, 64), (Object::Expiry, 40), (Object::NoteTimer, 40), (Object::Timer, 24)]
    {
        let mut broken = Broken::new();
        let key = object_key(object, &[&zeros(rest)]);
        broken.state.apply(&[Write::put(Table::Objects, key.clone(), vec![])]);
        assert!(!broken.audit().is_clean(), "{object:?}");
        broken.state.apply(&[Write::put(Table::Objects, key, b"x".to_vec())]);
        assert_eq!(code(audit_log(&broken.log, &broken.state, false)), Code::StorageCorrupt, "{object:?}");
    }
    for object in Object::ALL {
        if matches!(object, Object::CashKeys | Object::Ceremony | Object::CeremonyBlob) {
            continue;
        }
        let mut broken = Broken::new();
        let key = object_key(object, &[&zeros(7)]);
        broken.state.apply(&[Write::put(Table::Objects, key, vec![])]);
        assert_eq!(code(audit_log(&broken.log, &broken.state, false)), Code::StorageCorrupt, "{object:?}");
    }
    let mut broken = Broken::new();
    broken.state.apply(&[Write::put(Table::Objects, b"?".to_vec(), vec![])]);
    assert_eq!(code(audit_log(&broken.log, &broken.state, false)), Code::StorageCorrupt);
}

#[test]
fn the_primary_has_a_record_from_its_first_redeem_on() {
    const THERE: &str = "whether the primary has a record";
    let mut broken = Broken::new();
    assert_eq!(broken.says(THERE), 0);
    broken.put(balance_key(&[]), &wire::PrimaryRecord::default());
    assert_eq!((broken.says(THERE), broken.says("the primary's counters")), (1, 0));
    let redeem = wire::PrimaryRedeem { amount: 40, address: bytes(&Signer::new(2)) };
    let mut alice = Signer::new(1);
    broken.applied(&alice.call(vec![], vec![output::Kind::PrimaryRedeem(redeem)]));
    assert_eq!((broken.says(THERE), broken.says("the primary's counters")), (0, 1));
    broken.put(balance_key(&[]), &wire::PrimaryRecord { paid: 1, deposits: 0 });
    assert_eq!((broken.says(THERE), broken.says("the primary's counters")), (0, 0));
    for record in [wire::PrimaryRecord { paid: 2, deposits: 0 }, wire::PrimaryRecord { paid: 1, deposits: 1 }] {
        broken.put(balance_key(&[]), &record);
        assert_eq!(broken.says("the primary's counters"), 1);
    }
    broken.state.apply(&[Write::delete(Table::Objects, balance_key(&[]))]);
    assert_eq!((broken.says(THERE), broken.says("the primary's counters")), (1, 0));
    // Balances are held to the orders, but for those that are used up.
    let key = balance_key(&bytes(&Signer::new(2)));
    for (amount, found) in [(40, 0), (41, 1)] {
        broken.put(key.clone(), &wire::PrimaryBalance { amount });
        assert_eq!(broken.says("balances on the primary"), found);
    }
    broken.put(deposit_key(0), &wire::DepositEntry::default());
    assert_eq!(broken.says("log: records: "), 1);
}

#[test]
fn items_of_the_key_generation_that_change_nothing_and_objects_that_are_missing() {
    use crate::ordered::dkg::{ceremony_key, newest_key};
    const NOTHING: &str = "key generation: expected what changes it, found nothing";
    let mut cluster = Cluster::new(&TestCommittee::new(4, 1));
    let first = super::super::dkg::items(&cluster, 0);
    cluster.order_items(0, 0, first.clone());
    assert_eq!(Broken::of(&cluster).audit().findings, Vec::<String>::new());
    let Some(wire::item::Kind::Dkg(item)) = wire::Item::decode(first[0].clone()).unwrap().kind else {
        panic!("an item")
    };
    let mut again = Broken::of(&cluster);
    again.unit(None, vec![wire::item::Kind::Dkg(item)]);
    assert_eq!(again.says(NOTHING), 1);
    let mut garbage = Broken::of(&cluster);
    garbage.unit(None, vec![wire::item::Kind::Dkg(Bytes::from_static(b"no item"))]);
    assert_eq!((garbage.says(NOTHING), garbage.says(": key generation: ")), (0, 1));
    for key in [newest_key(), ceremony_key(1)] {
        let mut broken = Broken::of(&cluster);
        broken.state.apply(&[Write::delete(Table::Objects, key.clone())]);
        assert_eq!(broken.says("key generation: objects that are missing"), 1, "{}", hex::encode(&key));
        broken.state.apply(&[Write::put(Table::Objects, key.clone(), b"other".to_vec())]);
        assert_eq!(broken.says(&format!("key generation, object {}", hex::encode(&key))), 1);
    }
}
