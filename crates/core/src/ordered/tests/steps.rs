//! What one step of the log has as effects, how much fits into what it makes, and what a disk that fails does to it.

use prost::Message;

use super::bearer::{spend, with_notes};
use super::*;
use crate::authority::state::outbox_key;
use crate::bitmap::Bitmap;
use crate::keys::Curve;
use crate::limits::{SESSION_BYTES_MAX, SESSION_ROUNDS, UNIT_BYTES_MAX};
use crate::ordered::bearers::{bearer_key, note_key};
use crate::ordered::book::{BOOK_KEY, Book};
use crate::ordered::effect::Effects;
use crate::ordered::input::Input;
use crate::ordered::item::pack;
use crate::ordered::modules::MODULES;
use crate::ordered::modules::channels::channel_key;
use crate::ordered::modules::contracts::contract_key;
use crate::ordered::modules::primary::balance_key;
use crate::ordered::orders::outcome_key;
use crate::ordered::session::{unit_key, verify};
use crate::ordered::step::{Object, Step, actor_key, object_key};
use wire::log_step::Kind as K;
use wire::network_command::Kind as N;

/// An item of one order, under its own certificate.
fn item(certificate: &wire::Certificate, order: &Bytes) -> Bytes {
    let body = crate::envelope::Order::decode(order.clone()).unwrap().body;
    let (certificate, indices, bodies) = (Some(certificate.clone()), vec![0], vec![body]);
    let orders = wire::CertifiedOrders { certificate, indices, bodies, proof: vec![] };
    wire::Item { kind: Some(wire::item::Kind::Orders(orders)) }.encode_to_vec().into()
}

/// Certified by all, and settled nowhere.
fn certified(cluster: &mut Cluster, order: &Bytes) -> Bytes {
    let decoded = crate::envelope::Order::decode(order.clone()).unwrap();
    let shard = cluster.committee.shard_of(decoded.network_id, decoded.actor);
    let certificate = cluster.certify(shard, std::slice::from_ref(order));
    item(&certificate, order)
}

fn object<M: Message + Default>(cluster: &Cluster, key: &[u8]) -> Option<M> {
    crate::ordered::step::get_object(&cluster.logs[0].state, key).unwrap()
}

fn apply(cluster: &mut Cluster, items: Vec<Bytes>) -> Effects {
    let data = pack(0, items).remove(0);
    let effects = cluster.logs[0].unit(2, &data).unwrap();
    cluster.logs[1..].iter_mut().for_each(|log| drop(log.unit(2, &data).unwrap()));
    effects
}

#[test]
fn a_unit_says_what_it_decided_where_the_log_is_and_which_outboxes_have_something_new() {
    let (mut cluster, mut alice, bob, _, notes) = with_notes(2, &[4]);
    let redeem = wire::PrimaryRedeem { amount: 16, address: bytes(&bob) };
    let bearer = spend(&notes, vec![wire::Output { kind: Some(output::Kind::PrimaryRedeem(redeem)) }], Some(&alice));
    let call = alice.call(vec![], vec![credit(&bob, 1)]);
    let items = [certified(&mut cluster, &bearer), certified(&mut cluster, &call)];
    let (units, sent) = {
        let log = &cluster.logs[0];
        let sent = |shard| log.log.outbox_range(&log.state, shard).unwrap().1;
        (log.log.book(&log.state).unwrap().units, [sent(0), sent(1)])
    };
    let effects = apply(&mut cluster, vec![items[0].clone()]);
    assert_eq!((effects.units, effects.closed.is_some()), (Some((0, units + 1)), false));
    assert_eq!((effects.decided, effects.decided_bearers), (vec![], vec![id_of(&bearer)]));
    assert_eq!(effects.outbox, vec![(0, sent[0] + 1)]);
    let effects = apply(&mut cluster, vec![items[1].clone()]);
    assert_eq!(effects.units, Some((0, units + 2)));
    assert_eq!((effects.decided, effects.decided_bearers), (vec![(NETWORK_ID, alice.actor(), 2)], vec![]));
    let (own, theirs) = (alice.address.shard(2), bob.address.shard(2));
    let mut after = [sent[0] + 1, sent[1]];
    let mut told = vec![own, theirs];
    told.sort_unstable();
    told.dedup();
    told.iter().for_each(|shard| after[*shard as usize] += 1);
    assert_eq!(effects.outbox, told.iter().map(|shard| (*shard, after[*shard as usize])).collect::<Vec<_>>());
    // The same again decides nothing.
    let effects = apply(&mut cluster, items.to_vec());
    assert_eq!((effects.units, effects.outbox), (Some((0, units + 3)), vec![]));
    assert!(effects.decided.is_empty() && effects.decided_bearers.is_empty());
    assert!(effects.writes.iter().all(|w| matches!(w.table, Table::Meta | Table::Units)));
}

/// What is known of a bearer order costs no look at its signatures: a false one would end the unit.
#[test]
fn a_bearer_order_that_is_known_costs_no_signature_check() {
    let (mut cluster, mut alice, bob, _, notes) = with_notes(2, &[4]);
    let redeem = wire::PrimaryRedeem { amount: 16, address: bytes(&bob) };
    let bearer = spend(&notes, vec![wire::Output { kind: Some(output::Kind::PrimaryRedeem(redeem)) }], Some(&alice));
    let call = alice.call(vec![], vec![credit(&bob, 1)]);
    let mut certificate = cluster.certify(0, std::slice::from_ref(&bearer));
    let fresh = certified(&mut cluster, &call);
    let good = item(&certificate, &bearer);
    certificate.votes[0].signature = Bytes::from_static(&[5; 64]);
    let worthless = item(&certificate, &bearer);
    apply(&mut cluster, vec![worthless.clone(), good.clone()]);
    assert_eq!(cluster.logs[0].log.book(&cluster.logs[0].state).unwrap().orders, 0, "a false signature");
    apply(&mut cluster, vec![good]);
    apply(&mut cluster, vec![worthless, fresh]);
    assert_eq!(cluster.logs[0].log.book(&cluster.logs[0].state).unwrap().orders, 2);
}

/// A disk that fails is this authority's own fault: it stops, where others apply the item.
#[test]
fn a_record_that_does_not_decode_stops_the_log_and_refuses_nothing() {
    let (mut cluster, mut alice, bob) = setup(1);
    let order = alice.call(vec![], vec![credit(&bob, 1)]);
    let data = pack(0, vec![certified(&mut cluster, &order)]).remove(0);
    let key = actor_key(Object::Caller, NETWORK_ID, alice.actor());
    let log = &mut cluster.logs[0];
    log.state.apply(&[Write::put(Table::Objects, key, b"x".to_vec())]);
    let before = log.state.clone();
    assert_eq!(code(log.unit(0, &data)), Code::StorageCorrupt);
    assert_eq!(log.state, before);
    // The same where it shows only when the order is carried out: that is no reason for a refund.
    let (mut cluster, mut alice, mut bob) = setup(1);
    let order = alice.call(vec![], vec![fund(10, 5_000, &alice.clone(), &bob)]);
    let id = contract_id(&id_of(&order), 0);
    cluster.run_ordered(&[order]);
    let own = bob.clone();
    let order = bob.call(vec![claim(id, 10, b"secret")], vec![credit(&own, 10)]);
    let data = pack(0, vec![certified(&mut cluster, &order)]).remove(0);
    let log = &mut cluster.logs[0];
    log.state.apply(&[Write::put(Table::Objects, contract_key(&id), b"x".to_vec())]);
    let before = log.state.clone();
    assert_eq!(code(log.unit(0, &data)), Code::StorageCorrupt);
    assert_eq!(log.state, before);
}

/// What a module holds is the sum of all its records, however many.
#[test]
fn what_modules_hold_is_summed_over_any_number_of_records() {
    let held = |log: &LogNode| MODULES.map(|module| module.held(&log.state).unwrap());
    for count in [0, 1, 255, 256, 257, 512, 600_u32] {
        let mut log = Cluster::new(&TestCommittee::new(4, 1)).logs.remove(0);
        let mut put = |key: Vec<u8>, value: Vec<u8>| log.state.apply(&[Write::put(Table::Objects, key, value)]);
        for number in 0..count {
            let id = [&[0; 28][..], &number.to_be_bytes()].concat();
            let fund = Some(wire::ContractFund { amount: 3, ..Default::default() });
            let state = if number % 5 == 4 { 2 } else { 1 };
            put(contract_key(&id), wire::ContractRecord { fund, state, ..Default::default() }.encode_to_vec());
            let side = |deposited, withdrawn| Some(wire::ChannelSide { deposited, withdrawn, ..Default::default() });
            let channel = wire::ChannelRecord { opener: side(9, 2), other: side(1, 1), ..Default::default() };
            put(channel_key(&id), channel.encode_to_vec());
            put(balance_key(&id), wire::PrimaryBalance { amount: 11 }.encode_to_vec());
        }
        put(balance_key(&[]), wire::PrimaryRecord { deposits: 77, paid: 88 }.encode_to_vec());
        put(object_key(Object::Deposit, &[&[0; 8]]), b"of another kind".to_vec());
        let count = i128::from(count);
        assert_eq!(held(&log), [0, 3 * (count - count / 5), 11 * count, 0, 7 * count], "{count} of each");
    }
    let book = Book { contracts: 1, primary: 2, channels: 3, ..Book::default() };
    assert_eq!(MODULES.map(|module| module.booked(&book)), [0, 1, 2, 0, 3]);
    assert_eq!(MODULES.map(|module| module.name()), ["accounts", "contracts", "bridge", "registry", "channels"]);
}

#[test]
fn items_fill_units_to_the_last_byte() {
    let sizes = |sizes: &[usize]| -> Vec<usize> {
        let items = sizes.iter().map(|size| vec![1; *size].into()).collect();
        let units = pack(5, items);
        assert!(units.iter().all(|unit| unit.len() <= UNIT_BYTES_MAX));
        units
            .into_iter()
            .map(|unit| wire::UnitData::decode(unit).unwrap())
            .map(|data| {
                assert_eq!(data.clock_ms, 5);
                data.items.len()
            })
            .collect()
    };
    const ROOM: usize = UNIT_BYTES_MAX - 64;
    assert_eq!(sizes(&[]), [0]);
    assert_eq!(sizes(&[ROOM - 8]), [1]);
    assert_eq!(sizes(&[ROOM - 7]), [0, 1]);
    assert_eq!(sizes(&[ROOM]), [0, 1]);
    assert_eq!(sizes(&[ROOM + 1]), [0], "larger than a unit");
    assert_eq!(sizes(&[9, ROOM + 1, 9]), [2]);
    let half = ROOM / 2 - 8;
    assert_eq!(sizes(&[half, half]), [2]);
    assert_eq!(sizes(&[half, half + 1]), [1, 1]);
    assert_eq!(sizes(&[half, half, half, half, half]), [2, 2, 1]);
    assert_eq!(sizes(&[0; 3]), [3]);
    let small = 100;
    assert_eq!(sizes(&vec![small; ROOM / 108]), [ROOM / 108]);
    assert_eq!(sizes(&vec![small; ROOM / 108 + 1]), [ROOM / 108, 1]);
}

/// Deliveries of one step, by what it said and credited: sizes of steps, then of credits.
fn deliveries(steps: &[usize], credits: &[usize]) -> Vec<(usize, usize)> {
    let cluster = Cluster::new(&TestCommittee::new(4, 1));
    let mut step = Step::new(&cluster.committee, &cluster.logs[0].state).unwrap();
    let exactly = |size: usize, len: &dyn Fn(usize) -> usize| {
        (size.saturating_sub(99)..=size).rev().find(|n| len(*n) == size).expect("a size that can be")
    };
    for size in steps {
        let of = |n: usize| wire::LogNetwork {
            network_id: 500,
            network: Some(wire::NetworkRecord { metadata: vec![1; n].into(), ..Default::default() }),
            metadata: true,
        };
        // As a delivery with nothing else in it.
        let len = |n: usize| {
            let steps = vec![wire::LogStep { kind: Some(K::Network(of(n))) }];
            wire::Delivery { steps, ..Default::default() }.encoded_len()
        };
        step.tell((500, 0), K::Network(of(exactly(*size, &len))));
    }
    let address = Signer::new(1).address;
    for size in credits {
        let of = |n: usize| wire::CreditEntry { memo: "m".repeat(n), ..Default::default() };
        let len = |n: usize| {
            let address = Bytes::copy_from_slice(address.as_bytes());
            wire::DeliveredCredit { address, amount: 1, source: Some(of(n)) }.encoded_len()
        };
        step.book.received += 1;
        step.credit(&address, 1, of(exactly(*size, &len)));
    }
    let effects = step.finish().unwrap();
    let mut all = Vec::new();
    for sequence in 1.. {
        let key = outbox_key(0, sequence);
        let Some(write) = effects.writes.iter().find(|w| w.table == Table::Outbox && w.key == key) else { break };
        let delivery = wire::Delivery::decode(&write.value.as_ref().unwrap()[..]).unwrap();
        assert_eq!((delivery.sequence, delivery.to_shard), (sequence, 0));
        all.push((delivery.steps.len(), delivery.credits.len()));
    }
    let expected = (!all.is_empty()).then_some((0, all.len() as u64));
    assert_eq!(effects.outbox, expected.into_iter().collect::<Vec<_>>());
    all
}

#[test]
fn what_a_step_has_for_a_shard_is_split_into_deliveries_of_a_megabyte() {
    const FULL: usize = 1 << 20;
    assert_eq!(deliveries(&[], &[]), []);
    assert_eq!(deliveries(&[FULL, 100], &[]), [(2, 0)]);
    assert_eq!(deliveries(&[FULL + 1, 100], &[]), [(1, 0), (1, 0)]);
    assert_eq!(deliveries(&[FULL / 2, FULL / 2, 100, 100], &[]), [(3, 0), (1, 0)].map(|d| d), "over with the third");
    assert_eq!(deliveries(&[], &[FULL - 8, 100, 100]), [(0, 2), (0, 1)]);
    assert_eq!(deliveries(&[], &[FULL - 7, 100, 100]), [(0, 1), (0, 2)]);
    assert_eq!(deliveries(&[], &[FULL / 2 - 8, FULL / 2 - 8, 100, 100]), [(0, 3), (0, 1)]);
    // Credits come after the last of the steps, with room of their own.
    assert_eq!(deliveries(&[FULL + 1, 100], &[FULL - 7, 100]), [(1, 0), (1, 1), (0, 1)]);
    assert_eq!(deliveries(&[FULL + 1], &[100]), [(1, 1)]);
}

/// Units are read by pages when a session ends.
#[test]
fn a_session_of_any_number_of_units_has_their_root() {
    for count in [0, 1, 255, 256, 257, 512, 600] {
        let mut cluster = Cluster::new(&TestCommittee::new(4, 1));
        let mut signatures = Vec::new();
        for log in &mut cluster.logs {
            for number in 0..count {
                log.unit(number % 4, &pack(u64::from(number) + 1, vec![]).remove(0)).unwrap();
            }
            let end = Input::Unit {
                session: 0,
                position: count,
                creator: 0,
                round: SESSION_ROUNDS,
                data: Bytes::from_static(b"x"),
            };
            signatures.push(log.step(end).unwrap().closed.unwrap().1);
        }
        let log = &mut cluster.logs[0];
        // As many as a quorum.
        for signature in signatures.into_iter().skip(1).take(2) {
            log.step(Input::Signature { session: 0, signature }).unwrap();
        }
        let sessions = log.log.sessions(&log.state, &wire::SessionsRequest { from: 0, limit: 1 }).unwrap().sessions;
        let units = log.log.units(&log.state, &wire::UnitsRequest { session: 0, from: 0 }).unwrap().units;
        assert_eq!(units.len(), count as usize);
        let header = verify(&cluster.committee, &sessions[0], &units).unwrap();
        assert_eq!((header.units, header.units_root.len()), (count, if count == 0 { 0 } else { 32 }));
        assert_eq!(audit_log(&log.log, &log.state, true).unwrap().findings, Vec::<String>::new());
    }
}

#[test]
fn a_session_whose_units_are_not_all_there_does_not_end() {
    for gone in [0, 100, 256, 299] {
        let mut log = Cluster::new(&TestCommittee::new(4, 1)).logs.remove(0);
        for number in 0..300 {
            log.unit(0, &pack(number + 1, vec![]).remove(0)).unwrap();
        }
        log.state.apply(&[Write::delete(Table::Units, unit_key(0, gone))]);
        let data = Bytes::from_static(b"x");
        let end = Input::Unit { session: 0, position: 300, creator: 0, round: SESSION_ROUNDS, data };
        assert_eq!(code(log.step(end)), Code::StorageCorrupt, "unit {gone}");
    }
}

#[test]
fn a_session_ends_before_the_unit_that_would_make_it_too_large() {
    let data = pack(2_000, vec![]).remove(0);
    for (left, closes) in [(data.len() as u64, false), (data.len() as u64 - 1, true), (0, true)] {
        let mut log = Cluster::new(&TestCommittee::new(4, 1)).logs.remove(0);
        let book = wire::LogRecord { bytes: SESSION_BYTES_MAX - left, ..log.log.book(&log.state).unwrap().encode() };
        log.state.apply(&[Write::put(Table::Meta, BOOK_KEY, book.encode_to_vec())]);
        let effects = log.unit(0, &data).unwrap();
        assert_eq!((effects.closed.is_some(), effects.units.is_some()), (closes, !closes), "{left} left");
        assert_eq!(log.log.book(&log.state).unwrap().session, u64::from(closes));
    }
}

/// A RECOVER that was certified and held back until its number was used does nothing.
#[test]
fn a_recovery_of_a_number_that_is_used_or_decided_opens_nothing() {
    let (mut cluster, mut alice, bob) = setup(1);
    let before = alice.clone();
    let call = alice.call(vec![], vec![credit(&bob, 1)]);
    let (call, recover) = (certified(&mut cluster, &call), certified(&mut cluster, &before.recover()));
    let open = |cluster: &Cluster| cluster.logs[0].log.book(&cluster.logs[0].state).unwrap().open_recoveries;
    let mut late = Cluster::new(&TestCommittee::new(4, 1));
    late.set_time(1_000);
    apply(&mut late, vec![recover.clone()]);
    assert_eq!(open(&late), 1, "where it comes first");
    apply(&mut cluster, vec![call]);
    apply(&mut cluster, vec![recover]);
    assert_eq!(open(&cluster), 0);
    assert!(
        object::<wire::RecoveryRecord>(&cluster, &actor_key(Object::Recovery, NETWORK_ID, alice.actor())).is_none()
    );
    // And one that comes again when it is decided.
    let (mut cluster, alice, _) = setup(1);
    let recover = certified(&mut cluster, &alice.recover());
    apply(&mut cluster, vec![recover.clone()]);
    cluster.order_all();
    cluster.set_time(1_000 + RECOVERY_WAIT_MS);
    cluster.order_all();
    let caller: wire::CallerRecord = object(&cluster, &actor_key(Object::Caller, NETWORK_ID, alice.actor())).unwrap();
    assert_eq!((caller.recovered, caller.voided, open(&cluster)), (1, vec![1], 0));
    apply(&mut cluster, vec![recover.clone()]);
    assert_eq!(open(&cluster), 0);
    // While one is open, another does not begin.
    let mut next = alice.clone();
    next.resume(&cluster.nodes[0][0].account(alice.actor()));
    let second = certified(&mut cluster, &next.recover());
    apply(&mut cluster, vec![second.clone(), second, recover]);
    assert_eq!(open(&cluster), 1);
}

/// Numbers that are void stay known until a CALL after them is applied.
#[test]
fn a_call_drops_the_voided_numbers_before_it_and_keeps_those_after() {
    let (mut cluster, mut alice, bob) = setup(1);
    for _ in 0..3 {
        let pay = alice.pay(&[to(bob.address, 1)], "");
        cluster.run(&[pay]);
    }
    let key = actor_key(Object::Caller, NETWORK_ID, alice.actor());
    let record = wire::CallerRecord { last_call: 0, voided: vec![2, 3, 5, 6], recovered: 6 };
    let write = Write::put(Table::Objects, key.clone(), record.encode_to_vec());
    cluster.logs.iter_mut().for_each(|log| log.state.apply(std::slice::from_ref(&write)));
    let call = alice.call(vec![], vec![credit(&bob, 1)]);
    let call = certified(&mut cluster, &call);
    apply(&mut cluster, vec![call]);
    let after: wire::CallerRecord = object(&cluster, &key).unwrap();
    assert_eq!(after, wire::CallerRecord { last_call: 4, voided: vec![5, 6], recovered: 6 });
}

/// Orders of a network without ORDERED have nothing to do in the log, whoever hands them in.
#[test]
fn the_log_takes_no_order_of_a_network_that_does_not_ask_for_it() {
    for (flags, takes) in [(crate::network_flags::HISTORY, false), (crate::network_flags::ORDERED, true)] {
        let (mut cluster, mut alice, _) = setup(2);
        let mut actor = Actor::new(500, 7, Curve::K1);
        let register = N::Register(wire::NetworkRegister { flags, ..Default::default() });
        let register = output::Kind::Network(wire::NetworkCommand { network_id: 500, kind: Some(register) });
        let order = alice.call(vec![], vec![register, actor.registration()]);
        cluster.run_ordered(&[order]);
        let order = actor.order(0x4000, b"text", &[]);
        let item = certified(&mut cluster, &order);
        let effects = apply(&mut cluster, vec![item]);
        assert_eq!(effects.decided, if takes { vec![(500, 7, 1)] } else { vec![] });
        assert_eq!(object::<wire::OutcomeRecord>(&cluster, &outcome_key(500, 7, 1)).is_some(), takes);
        assert_eq!(cluster.logs[0].log.book(&cluster.logs[0].state).unwrap().orders, 1 + u64::from(takes));
    }
}

/// Of the notes that an order asks to free, those are that nobody has freed since, has asked for or has spent.
#[test]
fn a_recovery_opens_only_for_notes_that_are_as_it_says() {
    let (_, _, _, _, notes) = with_notes(1, &[4]);
    let nonce = notes[0].secrets.nonce().0;
    let reports = Bitmap::empty(4).to_bytes();
    let by = Bytes::from_static(&[1; 32]);
    let order = spend(&notes, vec![], None);
    for (record, opens) in [
        (None, true),
        (Some(wire::NoteRecoveryRecord { recoveries: 1, ..Default::default() }), false),
        (Some(wire::NoteRecoveryRecord { due_ms: 9_000, reports, ..Default::default() }), false),
        (Some(wire::NoteRecoveryRecord { spent_by: by.clone(), ..Default::default() }), false),
    ] {
        let mut cluster = with_notes(1, &[4]).0;
        let item = certified(&mut cluster, &order);
        if let Some(record) = &record {
            let write = Write::put(Table::Objects, note_key(&nonce), record.encode_to_vec());
            cluster.logs.iter_mut().for_each(|log| log.state.apply(std::slice::from_ref(&write)));
        }
        apply(&mut cluster, vec![item]);
        assert!(object::<wire::OutcomeRecord>(&cluster, &bearer_key(&id_of(&order))).is_some_and(|o| o.code == 0));
        let after: Option<wire::NoteRecoveryRecord> = object(&cluster, &note_key(&nonce));
        let book = cluster.logs[0].log.book(&cluster.logs[0].state).unwrap();
        assert_eq!(book.open_recoveries, u64::from(opens));
        if opens {
            assert_eq!(after.unwrap().due_ms, 1_000 + RECOVERY_WAIT_MS);
        } else {
            assert_eq!(after, record);
        }
    }
}

#[test]
fn a_note_that_was_freed_and_then_spent_is_known_with_both() {
    let (mut cluster, alice, bob, _, notes) = with_notes(1, &[4]);
    cluster.run_ordered(&[spend(&notes, vec![], None)]);
    cluster.set_time(1_000 + RECOVERY_WAIT_MS);
    cluster.order_all();
    let freed = crate::cash::testing::Note { recoveries: 1, ..notes[0].clone() };
    let redeem = wire::PrimaryRedeem { amount: 16, address: bytes(&bob) };
    let output = wire::Output { kind: Some(output::Kind::PrimaryRedeem(redeem)) };
    let order = spend(std::slice::from_ref(&freed), vec![output], Some(&alice));
    cluster.run_ordered(std::slice::from_ref(&order));
    let record: wire::NoteRecoveryRecord = object(&cluster, &note_key(&freed.secrets.nonce().0)).unwrap();
    let spent_by = Bytes::copy_from_slice(&id_of(&order));
    assert_eq!(record, wire::NoteRecoveryRecord { recoveries: 1, spent_by, ..Default::default() });
    check(&cluster, &[(&alice, 984), (&bob, 1_000)]);
}

/// The last line of defence: whatever a module does, money is neither made nor lost in a step that is written.
#[test]
fn a_step_whose_postings_do_not_sum_to_zero_is_never_written() {
    let cluster = Cluster::new(&TestCommittee::new(4, 1));
    type Post = fn(&mut Book);
    let all: [(Post, i128); 5] = [
        (|book| book.received += 5, -5),
        (|book| book.sent += 5, 5),
        (|book| book.contracts += 5, 5),
        (|book| book.channels += 5, 5),
        (|book| book.primary += 5, 5),
    ];
    let finish = |post: &dyn Fn(&mut Book)| {
        let mut step = Step::new(&cluster.committee, &cluster.logs[0].state).unwrap();
        post(&mut step.book);
        let sum = step.book.sum();
        let finished = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| step.finish().is_ok()));
        (sum, finished.is_ok_and(|written| written))
    };
    for (post, sum) in all {
        assert_eq!(finish(&|book| post(book)), (sum, false));
        // With what makes up for it, it is.
        let back: Post = if sum < 0 { |book| book.sent += 5 } else { |book| book.received += 5 };
        let balanced = finish(&|book| {
            post(book);
            back(book);
        });
        assert_eq!(balanced, (0, true));
    }
}

/// Before a quorum's clocks are in there is no time that locks could rest on.
#[test]
fn without_a_time_nothing_is_applied() {
    let mut cluster = Cluster::new(&TestCommittee::new(4, 1));
    let mut alice = Signer::new(1);
    cluster.fund(alice.address, 100);
    let order = alice.call(vec![], vec![credit(&Signer::new(2), 1)]);
    let item = certified(&mut cluster, &order);
    for authority in 0..3 {
        assert_eq!(apply(&mut cluster, vec![item.clone()]).decided, vec![], "{authority} clocks");
        cluster.order_items(authority, 1_000, vec![]);
    }
    assert_eq!(apply(&mut cluster, vec![item]).decided, vec![(NETWORK_ID, alice.actor(), 1)]);
}

/// A report counts once for each authority, for the recovery that is open, and only if it holds nothing.
#[test]
fn a_report_on_a_note_counts_for_its_own_recovery_once() {
    let nonce = [5; 32];
    let by = |bits: &[usize]| {
        let mut reports = Bitmap::empty(4);
        bits.iter().for_each(|i| reports.set(*i));
        reports.to_bytes()
    };
    for (i, (due_ms, before, recoveries, held, after)) in [
        (9_000, &[][..], 1, "", &[2][..]),
        (9_000, &[0], 1, "", &[0, 2]),
        (9_000, &[2], 1, "", &[2]),
        (9_000, &[], 0, "", &[]),
        (9_000, &[], 2, "", &[]),
        (9_000, &[], 1, "order", &[]),
        (9_000, &[2], 1, "order", &[2]),
        (0, &[], 1, "", &[]),
        (0, &[], 0, "", &[]),
    ]
    .into_iter()
    .enumerate()
    {
        let mut cluster = Cluster::new(&TestCommittee::new(4, 1));
        cluster.set_time(1_000);
        let record = |bits| wire::NoteRecoveryRecord { recoveries: 1, due_ms, reports: by(bits), ..Default::default() };
        let write = Write::put(Table::Objects, note_key(&nonce), record(before).encode_to_vec());
        cluster.logs.iter_mut().for_each(|log| log.state.apply(std::slice::from_ref(&write)));
        let report = wire::NoteReport {
            nonce: Bytes::copy_from_slice(&nonce),
            order_id: Bytes::copy_from_slice(held.as_bytes()),
            recoveries,
        };
        let item = wire::Item { kind: Some(wire::item::Kind::NoteReport(report)) }.encode_to_vec().into();
        apply(&mut cluster, vec![item]);
        assert_eq!(object::<wire::NoteRecoveryRecord>(&cluster, &note_key(&nonce)), Some(record(after)), "case {i}");
    }
}
