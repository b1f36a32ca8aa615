//! Orders that applied though they must not have, contracts and the primary.

use super::super::bearer::{spend, with_notes};
use super::*;
use crate::authority::audit::Flow;
use crate::content::credit_output;
use crate::ordered::bearers::note_key;
use crate::ordered::modules::contracts::contract_key;
use wire::contract_reply::State as C;

const CLOSED: &str = "expected its party, in time, with its preimage";

/// A contract of 10 of Alice for Bob, until 5,000 ms, which is closed at a time by an order with this input.
fn closed(by: &mut Signer, at_ms: u64, amount: u64, preimage: Option<&[u8]>) -> Broken {
    let (mut alice, bob) = (Signer::new(1), Signer::new(2));
    let mut broken = Broken::new();
    let order = alice.call(vec![], vec![fund(10, 5_000, &alice.clone(), &bob)]);
    let id = contract_id(&id_of(&order), 0);
    broken.applied(&order);
    if by.address == alice.address {
        *by = alice.clone();
    }
    broken.time(at_ms);
    let (input, state) = match preimage {
        Some(preimage) => (claim(id, amount, preimage), C::Claimed),
        None => (refund(id, amount), C::Refunded),
    };
    let output::Kind::ContractFund(fund) = fund(10, 5_000, &alice, &bob) else { panic!("a contract") };
    let preimage = preimage.map(Bytes::copy_from_slice).unwrap_or_default();
    broken.put(contract_key(&id), &wire::ContractRecord { fund: Some(fund), state: state as i32, preimage });
    let own = by.clone();
    broken.applied(&by.call(vec![input], vec![credit(&own, amount)]));
    broken
}

#[test]
fn contracts_closed_by_the_wrong_one_at_the_wrong_time_or_with_a_guess() {
    let (alice, bob, carol) = (|| Signer::new(1), || Signer::new(2), || Signer::new(3));
    let right = Some(&b"secret"[..]);
    let cases = [
        (bob(), 4_999, right, 0),
        (bob(), 5_000, right, 1),
        (bob(), 4_999, Some(b"guess"), 1),
        (bob(), 5_000, Some(b"guess"), 1),
        (alice(), 4_999, right, 1),
        (carol(), 4_999, right, 1),
        (alice(), 5_000, None, 0),
        (alice(), 4_999, None, 1),
        (alice(), 9_000, None, 0),
        (bob(), 5_000, None, 1),
    ];
    for (i, (mut by, at_ms, preimage, found)) in cases.into_iter().enumerate() {
        let broken = closed(&mut by, at_ms, 10, preimage);
        assert_eq!(broken.says(CLOSED), found, "case {i}: {:?}", broken.audit().findings);
        assert_eq!(broken.says(": state: ") + broken.says(": preimage: ") + broken.says(": amount: "), 0, "case {i}");
    }
    let more = closed(&mut bob(), 2_000, 11, right);
    assert_eq!((more.says(": amount: expected 10, found 11"), more.says(CLOSED)), (1, 0));
}

#[test]
fn a_contract_whose_record_is_of_another_end() {
    for (by, preimage, state, says) in [
        (Signer::new(2), Some(&b"secret"[..]), C::Refunded, ": state: expected Claimed, found Refunded"),
        (Signer::new(1), None, C::Claimed, ": state: expected Refunded, found Claimed"),
        (Signer::new(2), Some(b"secret"), C::Open, ": state: expected Claimed, found Open"),
    ] {
        let mut broken = closed(&mut by.clone(), if preimage.is_some() { 2_000 } else { 6_000 }, 10, preimage);
        let key = broken.state.iter(Table::Objects).find(|(key, _)| key[0] == b'c').unwrap().0.to_vec();
        broken.change(Table::Objects, &key, |r: &mut wire::ContractRecord| r.set_state(state));
        assert_eq!(broken.says(says), 1, "{:?}", broken.audit().findings);
    }
}

#[test]
fn contracts_that_were_over_when_they_were_made() {
    for (expiry_ms, found) in [(1_001, 0), (1_000, 1), (999, 1)] {
        let mut alice = Signer::new(1);
        let mut broken = Broken::new();
        let order = alice.call(vec![], vec![fund(10, expiry_ms, &alice.clone(), &Signer::new(2))]);
        broken.applied(&order);
        assert_eq!(broken.says("expected contracts that expire later"), found, "until {expiry_ms}");
        assert_eq!(broken.says("contract of output 0"), 1, "there is no record of it");
    }
}

#[test]
fn deposits_of_more_than_there_is_on_the_primary() {
    for (amount, found) in [(39, 0), (40, 0), (41, 1)] {
        let (mut alice, mut bob) = (Signer::new(1), Signer::new(2));
        let mut broken = Broken::new();
        let redeem = wire::PrimaryRedeem { amount: 40, address: bytes(&bob) };
        broken.applied(&alice.call(vec![], vec![output::Kind::PrimaryRedeem(redeem)]));
        let deposit = wire::PrimaryDeposit { amount, address: bytes(&alice) };
        broken.applied(&bob.call(vec![], vec![output::Kind::PrimaryDeposit(deposit)]));
        assert_eq!(broken.says("to deposit what it has on the primary"), found, "{amount}");
        let sent: i128 = broken.audit().sent.values().map(|flow| flow.amount).sum();
        assert_eq!(sent, i128::from(amount));
    }
}

#[test]
fn outcomes_have_a_code_that_is_known_with_a_message_or_neither() {
    let known = Code::NotAParty as u32;
    for (code, message, found) in
        [(0, "", 0), (0, "text", 1), (known, "", 1), (known, "text", 0), (9_999, "text", 1), (9_999, "", 1)]
    {
        let mut alice = Signer::new(1);
        let order = alice.call(vec![], vec![credit(&Signer::new(2), 1)]);
        let mut broken = Broken::new();
        broken.orders(&[&order]);
        broken.outcome(&order, code, message);
        assert_eq!(broken.says("expected a code with a message or neither"), found, "{code} {message}");
    }
}

#[test]
fn what_failed_is_refunded_once_and_nothing_is_refunded_for_nothing() {
    for amount in [0, 1, 30] {
        let mut alice = Signer::new(1);
        let free = output::Kind::ChannelSettle(wire::ChannelSettle { channel: Bytes::from_static(&[9; 32]) });
        let output = if amount > 0 { credit(&Signer::new(2), amount) } else { free };
        let order = alice.call(vec![], vec![output]);
        let mut broken = Broken::new();
        broken.orders(&[&order]);
        broken.outcome(&order, Code::NotAParty as u32, "text");
        let audit = broken.audit();
        let shard = alice.address.shard(2);
        let sent = audit.sent.get(&shard).map(|flow| (flow.count, flow.amount));
        assert_eq!(sent, (amount > 0).then_some((1, i128::from(amount))));
        assert_eq!((audit.received, audit.orders), (i128::from(amount), 1));
    }
}

/// An order may stand in several units: it counts where its outcome says.
#[test]
fn an_order_counts_once_and_where_its_outcome_says() {
    let mut alice = Signer::new(1);
    let order = alice.call(vec![], vec![fund(10, 5_000, &alice.clone(), &Signer::new(2))]);
    let mut broken = Broken::new();
    broken.orders(&[&order]);
    broken.time(5_000);
    broken.orders(&[&order]);
    broken.outcome(&order, 0, "");
    broken.orders(&[&order]);
    assert_eq!((broken.says("expected contracts that expire later"), broken.audit().orders), (1, 1));
    // Another order of the same number is not that one.
    let other = Signer::new(1).call(vec![], vec![credit(&Signer::new(2), 3)]);
    broken.orders(&[&other]);
    broken.change(Table::Objects, &outcome_key(NETWORK_ID, alice.actor(), 1), |o: &mut wire::OutcomeRecord| {
        o.index += 2;
    });
    assert_eq!((broken.audit().orders, broken.audit().received), (0, 0));
}

#[test]
fn the_newest_sixty_four_calls_of_an_account_are_known_one_by_one() {
    let mut alice = Signer::new(1);
    let mut broken = Broken::new();
    let id = (NETWORK_ID, alice.actor());
    let mut total = Flow::default();
    for number in 1..=66_u32 {
        let order = alice.call(vec![], vec![credit(&Signer::new(2), u64::from(number))]);
        broken.applied(&order);
        total.merge(&Flow::call(NETWORK_ID, alice.actor(), number, &id_of(&order), u64::from(number)));
        if number < 63 {
            continue;
        }
        let caller = broken.audit().callers.remove(&id).unwrap();
        let first = number.saturating_sub(63).max(1);
        assert!(caller.newest.iter().map(|(seqnum, _)| *seqnum).eq(first..=number), "{number}");
        assert!(caller.newest.iter().all(|(seqnum, flow)| flow.amount == i128::from(*seqnum)));
        assert_eq!((caller.calls.last, caller.calls.settled), (number, total));
    }
}

/// An order that names notes, said to be void since one of them was freed.
#[test]
fn a_bearer_order_is_void_only_with_shared_outputs_and_a_note_that_is_freed_or_spent_otherwise() {
    const VOID: &str = "expected shared outputs, and a note that is freed";
    let (cluster, alice, bob, _, notes) = with_notes(2, &[4, 4]);
    let redeem = wire::PrimaryRedeem { amount: 32, address: bytes(&bob) };
    let shared = wire::Output { kind: Some(output::Kind::PrimaryRedeem(redeem)) };
    let order = spend(&notes, vec![shared], Some(&alice));
    let plain = spend(&notes, vec![credit_output(&to(alice.address, 32))], None);
    let id = Bytes::copy_from_slice(&id_of(&order));
    let other = Bytes::from_static(&[7; 32]);
    let nonces = [0, 1].map(|i| notes[i].secrets.nonce().0);
    let record = |recoveries, spent_by: &Bytes| wire::NoteRecoveryRecord {
        recoveries,
        spent_by: spent_by.clone(),
        ..Default::default()
    };
    let none = Bytes::new();
    for (i, (order, records, found)) in [
        (&order, [None, None], 1),
        (&order, [Some(record(0, &none)), None], 1),
        (&order, [Some(record(1, &none)), None], 0),
        (&order, [None, Some(record(1, &none))], 0),
        (&order, [Some(record(2, &none)), Some(record(1, &none))], 0),
        (&order, [Some(record(0, &other)), None], 0),
        (&order, [Some(record(0, &id)), None], 1),
        (&order, [Some(record(1, &id)), None], 0),
        (&plain, [Some(record(1, &none)), None], 1),
        (&plain, [None, None], 1),
    ]
    .into_iter()
    .enumerate()
    {
        let mut broken = Broken::of(&cluster);
        for (nonce, record) in nonces.iter().zip(records) {
            record.into_iter().for_each(|record| broken.put(note_key(nonce), &record));
        }
        broken.orders(&[order]);
        broken.outcome(order, Code::NoteFreed as u32, "freed");
        assert_eq!(broken.says(VOID), found, "case {i}");
        let audit = broken.audit();
        assert_eq!((audit.orders, audit.received, audit.bearers), (0, 0, Flow::default()), "case {i}");
    }
    // One that settles counts, with what its shared outputs are worth.
    for (order, worth) in [(&order, 32), (&plain, 0)] {
        let mut broken = Broken::of(&cluster);
        broken.orders(&[order, order]);
        broken.outcome(order, 0, "");
        broken.orders(&[order]);
        let audit = broken.audit();
        assert_eq!((audit.orders, audit.received, audit.bearers.amount), (1, worth, worth));
        assert_eq!(broken.says(VOID), 0);
        broken.change(Table::Objects, &bearer_key(&id_of(order)), |o: &mut wire::OutcomeRecord| {
            o.order_id = other.clone();
        });
        assert_eq!(broken.says("order of its outcome"), 1);
    }
    // Freeing notes never fails.
    let recover = spend(&notes, vec![], None);
    for code in [0, Code::NoteFreed as u32] {
        let mut broken = Broken::of(&cluster);
        broken.orders(&[&recover]);
        broken.outcome(&recover, code, if code == 0 { "" } else { "freed" });
        assert_eq!((broken.says(": code: expected 0"), broken.audit().orders), (usize::from(code != 0), 0));
    }
}

/// What accounts were debited is somewhere, by the records: credited, or held by a module.
#[test]
fn money_that_is_nowhere_is_named() {
    let mut alice = Signer::new(1);
    let bob = Signer::new(2);
    let kind = fund(10, 5_000, &alice, &bob);
    let mut broken = Broken::new();
    let order = alice.call(vec![], vec![kind.clone(), credit(&bob, 3)]);
    broken.applied(&order);
    assert_eq!(broken.says("log: postings: expected 0, found -10"), 1);
    let output::Kind::ContractFund(fund) = kind else { panic!("a contract") };
    let record = |amount| wire::ContractRecord {
        fund: Some(wire::ContractFund { amount, ..fund.clone() }),
        state: C::Open as i32,
        preimage: Bytes::new(),
    };
    let key = contract_key(&contract_id(&id_of(&order), 0));
    broken.put(key.clone(), &record(12));
    assert_eq!(broken.says("log: postings: expected 0, found 2"), 1);
    broken.put(key, &record(10));
    assert_eq!(broken.says("log: postings: "), 0);
    assert_eq!(
        broken.audit().held,
        [("accounts", 0), ("contracts", 10), ("bridge", 0), ("registry", 0), ("channels", 0)]
    );
}

/// Each kind of order that the log applies needs its certificate, among others in an item as well.
#[test]
fn orders_that_applied_without_their_certificate() {
    const PROVED: &str = "orders of it applied, expected their certificate, found ";
    let says = |broken: &Broken| {
        let findings = audit_log(&broken.log, &broken.state, true).unwrap().findings;
        findings.into_iter().filter_map(|f| f.split_once(PROVED).map(|(_, why)| why.to_owned())).collect::<Vec<_>>()
    };
    let (cluster, alice, bob, _, notes) = with_notes(2, &[4]);
    let call = bob.clone().call(vec![], vec![credit(&alice, 1)]);
    let redeem = wire::PrimaryRedeem { amount: 16, address: bytes(&bob) };
    let shared = wire::Output { kind: Some(output::Kind::PrimaryRedeem(redeem)) };
    let bearer = spend(&notes, vec![shared], Some(&alice));
    let change = Actor::new(500, 7, crate::keys::Curve::K1).rotate(vec![secret(crate::keys::Curve::K1, 70)]);
    let other = Signer::new(50).call(vec![], vec![credit(&alice, 1)]);
    for order in [&call, &bearer, &change] {
        let mut broken = Broken::of(&cluster);
        broken.orders(&[order, &other]);
        assert_eq!(says(&broken), Vec::<String>::new(), "nothing of it applied");
        broken.outcome(order, 0, "");
        assert_eq!(says(&broken).len(), 1);
        assert_eq!(broken.says(PROVED), 0, "nobody asked for signatures");
    }
}

/// One of two orders of a batch, as its item stands in the log, with something changed.
#[test]
fn a_certificate_of_other_orders_proves_nothing() {
    let (mut cluster, mut alice, mut bob) = setup(1);
    let orders = [alice.call(vec![], vec![credit(&bob, 7)]), bob.pay(&[to(alice.address, 2)], "")];
    cluster.run(&orders);
    let items = cluster.log_items(0);
    cluster.order_items(0, 0, items);
    let key = unit_key(0, Broken::of(&cluster).place.1 - 1);
    let with = |change: fn(&mut wire::CertifiedOrders)| {
        let mut broken = Broken::of(&cluster);
        broken.change(Table::Units, &key, |unit: &mut wire::OrderedUnit| {
            let mut data = wire::UnitData::decode(unit.data.clone()).unwrap();
            let Some(wire::item::Kind::Orders(mut orders)) = wire::Item::decode(data.items[0].clone()).unwrap().kind
            else {
                panic!("orders");
            };
            change(&mut orders);
            let item = wire::Item { kind: Some(wire::item::Kind::Orders(orders)) };
            data.items[0] = item.encode_to_vec().into();
            unit.data = data.encode_to_vec().into();
        });
        let findings = audit_log(&broken.log, &broken.state, true).unwrap().findings;
        findings.into_iter().filter(|f| f.contains("expected their certificate")).collect::<Vec<_>>()
    };
    assert_eq!(with(|_| ()), Vec::<String>::new());
    type Change = fn(&mut wire::CertifiedOrders);
    let cases: [(Change, &str); 7] = [
        (|o| o.proof[0] = Bytes::from_static(&[1; 32]), "BAD_ROOT"),
        (|o| o.proof.push(Bytes::from_static(&[1; 31])), "BAD_ROOT"),
        (|o| o.proof.push(Bytes::from_static(&[1; 32])), "BAD_ROOT"),
        (|o| o.indices[0] = 1, "BAD_ROOT"),
        (|o| o.certificate.as_mut().unwrap().votes.truncate(2), "NO_QUORUM"),
        (|o| o.certificate.as_mut().unwrap().votes[0].signature = Bytes::from_static(&[1; 64]), "unit (0, "),
        (|o| o.certificate = None, "unit (0, "),
    ];
    for (i, (change, says)) in cases.into_iter().enumerate() {
        let found = with(change);
        assert!(found.len() == 1 && found[0].contains(says), "case {i}: {found:?}");
    }
}
