//! Deliveries of things that the log never said.

use super::super::bearer::{spend, with_notes};
use super::*;
use crate::authority::state::{LOG, Link, link_key, outbox_key};
use crate::content::credit_output;
use crate::keys::Curve;
use crate::ordered::bearers::note_key;
use crate::ordered::modules::registry::network_key;
use crate::ordered::step::{Object, actor_key};
use wire::log_step::Kind as K;

const STEP: &str = "expected a step that the log has taken";

impl Broken {
    /// Whether the audit takes a step in the outbox for a shard to be the log's.
    fn takes(&self, to_shard: u32, kind: Option<K>) -> bool {
        let steps = vec![wire::LogStep { kind }];
        let mut broken = Broken {
            log: OrderedLog::new(self.log.committee().clone(), 0, TestCommittee::new(4, 2).build().1.remove(0)),
            state: self.state.clone(),
            place: self.place,
        };
        broken.deliver(wire::Delivery { from_shard: LOG, to_shard, sequence: 1, steps, ..Default::default() });
        broken.says(STEP) == 0
    }

    fn deliver(&mut self, delivery: wire::Delivery) {
        let key = outbox_key(delivery.to_shard, delivery.sequence);
        self.state.apply(&[Write::put(Table::Outbox, key, delivery.encode_to_vec())]);
    }

    fn link(&mut self, link: Link, shard: u32, sequence: u64) {
        self.state.apply(&[Write::put(Table::Links, link_key(link, shard), sequence.to_be_bytes())]);
    }

    fn caller(&mut self, id: (u64, u64), recovered: u32) {
        let record = wire::CallerRecord { recovered, ..Default::default() };
        self.put(actor_key(Object::Caller, id.0, id.1), &record);
    }
}

fn body(order: &Bytes) -> Bytes {
    Order::decode(order.clone()).unwrap().body
}

fn settle(orders: &[&Bytes]) -> Option<K> {
    Some(K::Settle(wire::LogSettle { bodies: orders.iter().map(|order| body(order)).collect() }))
}

/// Of network 77, at the shard of its actor.
fn shard(signer: &Signer) -> u32 {
    signer.address.shard(2)
}

#[test]
fn orders_to_settle_that_the_log_has_not_settled() {
    let (mut alice, mut bob) = (Signer::on_shard(0, 2, 1), Signer::on_shard(0, 2, 100));
    let far = Signer::on_shard(1, 2, 1);
    let [first, second] = [1, 2].map(|amount| alice.call(vec![], vec![credit(&bob, amount)]));
    let (theirs, twin) = (bob.clone().call(vec![], vec![credit(&alice, 3)]), bob.call(vec![], vec![credit(&alice, 4)]));
    let lost = far.clone().pay(&[to(alice.address, 1)], "");
    let mut broken = Broken::new();
    broken.applied(&first);
    broken.applied(&theirs);
    assert!(broken.takes(0, settle(&[&first])) && broken.takes(0, settle(&[&first, &theirs])));
    assert!(!broken.takes(1, settle(&[&first])), "another shard's");
    assert!(!broken.takes(0, settle(&[&second])) && !broken.takes(0, settle(&[&first, &second])), "not applied");
    assert!(!broken.takes(0, settle(&[&twin])), "another order has its number");
    assert!(!broken.takes(0, settle(&[])) && !broken.takes(0, None));
    let garbage = wire::LogSettle { bodies: vec![Bytes::from_static(b"x")] };
    assert!(!broken.takes(0, Some(K::Settle(garbage))));
    // What a recovery has found has no outcome here, unless it is a CALL.
    assert!(!broken.takes(1, settle(&[&lost])));
    broken.caller((NETWORK_ID, far.actor()), 1);
    assert!(broken.takes(1, settle(&[&lost])));
    let mut later = Signer { seqnum: 1, ..far.clone() };
    assert!(!broken.takes(1, settle(&[&later.pay(&[to(alice.address, 1)], "")])), "after the one it has found");
    broken.caller((NETWORK_ID, far.actor()), 2);
    assert!(broken.takes(1, settle(&[&lost])));
    // Orders of a network are told to the shard of the network.
    let actor = &mut Actor::new(501, 7, Curve::K1);
    let order = actor.order(0x4000, b"text", &[]);
    let of = broken.log.committee().shard_of(501, 7);
    assert!(!broken.takes(of, settle(&[&order])));
    broken.applied(&order);
    assert!(broken.takes(of, settle(&[&order])) && !broken.takes(1 - of, settle(&[&order])));
}

#[test]
fn bearer_orders_to_settle_that_are_void_or_not_known() {
    let (cluster, alice, bob, _, notes) = with_notes(2, &[4]);
    let redeem = wire::PrimaryRedeem { amount: 16, address: bytes(&bob) };
    let shared = wire::Output { kind: Some(output::Kind::PrimaryRedeem(redeem)) };
    let order = spend(&notes, vec![shared], Some(&alice));
    let other = spend(&notes, vec![credit_output(&to(alice.address, 16))], None);
    let mut broken = Broken::of(&cluster);
    for shard in [0, 1] {
        assert!(!broken.takes(shard, settle(&[&order])) && !broken.takes(shard, settle(&[&other])));
    }
    broken.applied(&order);
    assert!(broken.takes(0, settle(&[&order])));
    assert!(!broken.takes(1, settle(&[&order])), "notes are of shard 0");
    assert!(!broken.takes(0, settle(&[&other])));
    broken.outcome(&order, Code::ContractExpired as u32, "late");
    assert!(broken.takes(0, settle(&[&order])), "what it refunds is spent as well");
    broken.outcome(&order, Code::NoteFreed as u32, "freed");
    assert!(!broken.takes(0, settle(&[&order])));
}

#[test]
fn recoveries_that_the_log_has_not_opened_or_decided_so() {
    let alice = Signer::on_shard(1, 2, 1);
    let (network_id, actor) = (NETWORK_ID, alice.actor());
    let open = wire::RecoveryRecord { seqnum: 6, account: bytes(&alice), due_ms: 9_000, ..Default::default() };
    let mut broken = Broken::new();
    let freeze = |seqnum| Some(K::Freeze(wire::LogFreeze { network_id, actor, seqnum }));
    assert!(!broken.takes(1, freeze(1)));
    broken.caller((network_id, actor), 3);
    assert_eq!([2, 3, 4, 5, 6, 7].map(|s| broken.takes(1, freeze(s))), [true, true, false, false, false, false]);
    broken.put(actor_key(Object::Recovery, network_id, actor), &open);
    assert_eq!([2, 3, 4, 5, 6, 7].map(|s| broken.takes(1, freeze(s))), [true, true, false, false, true, false]);
    assert!(!broken.takes(0, freeze(3)) && !broken.takes(0, freeze(6)));
    let resolve = |seqnum, void, prev_hash, open: &Bytes, account: &Bytes| {
        let (account, open) = (account.clone(), open.clone());
        Some(K::Resolve(wire::LogResolve { network_id, actor, seqnum, void, prev_hash, account, open }))
    };
    let (none, own, permission) = (Bytes::new(), bytes(&alice), alice.permission.encode());
    for (i, (seqnum, void, prev_hash, open, account, takes)) in [
        (3, true, 9, &none, &own, true),
        (3, false, 0, &none, &own, true),
        (3, true, 0, &none, &own, false),
        (3, false, 9, &none, &own, false),
        (4, true, 9, &none, &own, false),
        (6, true, 9, &none, &own, false),
        (3, true, 9, &permission, &own, true),
        (3, true, 9, &permission, &none, false),
        (3, true, 9, &Signer::new(900).permission.encode(), &own, false),
        (4, true, 9, &permission, &own, false),
        (3, true, 0, &permission, &own, false),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(broken.takes(1, resolve(seqnum, void, prev_hash, open, account)), takes, "case {i}");
        assert!(!broken.takes(0, resolve(seqnum, void, prev_hash, open, account)), "case {i}: another shard's");
    }
}

#[test]
fn networks_actors_and_streams_that_the_log_does_not_know() {
    let mut broken = Broken::new();
    let of = broken.log.committee().shard_of(500, 0);
    let network_id = 500;
    let all = |network_id, actor, removed, permission: &'static [u8]| {
        let permission = Bytes::from_static(permission);
        [
            Some(K::Network(wire::LogNetwork { network_id, ..Default::default() })),
            Some(K::Prune(wire::LogPrune { network_id, ..Default::default() })),
            Some(K::Actor(wire::LogActor { network_id, actor, removed, permission, ..Default::default() })),
        ]
    };
    let takes = |broken: &Broken, shard, all: [Option<K>; 3]| all.map(|kind| broken.takes(shard, kind));
    assert_eq!(takes(&broken, of, all(network_id, 7, false, b"keys")), [false; 3]);
    broken.put(network_key(network_id), &wire::NetworkRecord { flags: 1, ..Default::default() });
    assert_eq!(takes(&broken, of, all(network_id, 7, false, b"keys")), [true, true, false]);
    assert_eq!(takes(&broken, of, all(network_id + 2, 7, false, b"keys")), [false; 3]);
    broken.put(actor_key(Object::Actor, network_id, 7), &wire::ActorRecord { generation: 1, ..Default::default() });
    assert_eq!(takes(&broken, of, all(network_id, 7, false, b"keys")), [true; 3]);
    assert_eq!(takes(&broken, 1 - of, all(network_id, 7, false, b"keys")), [false; 3]);
    assert_eq!(takes(&broken, of, all(network_id, 8, false, b"keys")), [true, true, false]);
    assert_eq!(takes(&broken, of, all(network_id, 7, false, b"")), [true, true, false]);
    assert_eq!(takes(&broken, of, all(network_id, 7, true, b"keys")), [true, true, false]);
    assert_eq!(takes(&broken, of, all(network_id, 7, true, b"")), [true; 3]);
    let order = Actor::new(network_id, 7, Curve::K1).order(0x4000, b"text", &[]);
    let stream = |actor, seqnum, order_id: &[u8]| {
        let order_id = Bytes::copy_from_slice(order_id);
        Some(K::Stream(wire::LogStream { network_id, actor, seqnum, order_id }))
    };
    let id = id_of(&order);
    assert!(!broken.takes(of, stream(7, 1, &id)));
    broken.applied(&order);
    assert!(broken.takes(of, stream(7, 1, &id)));
    assert!(!broken.takes(of, stream(7, 2, &id)) && !broken.takes(of, stream(8, 1, &id)));
    assert!(!broken.takes(of, stream(7, 1, &[1; 32])) && !broken.takes(1 - of, stream(7, 1, &id)));
}

#[test]
fn notes_that_the_log_has_not_frozen_or_freed() {
    let broken = Broken::new();
    let nonce = Bytes::from_static(&[5; 32]);
    let freeze = || Some(K::FreezeNote(wire::LogFreezeNote { nonce: nonce.clone() }));
    let resolve =
        |void, recoveries| Some(K::ResolveNote(wire::LogResolveNote { nonce: nonce.clone(), void, recoveries }));
    let with = |recoveries, spent_by: &'static [u8]| {
        let spent_by = Bytes::from_static(spent_by);
        let record = wire::NoteRecoveryRecord { recoveries, spent_by, ..Default::default() };
        let mut broken = Broken::new();
        broken.put(note_key(&nonce), &record);
        broken
    };
    assert!(!broken.takes(0, freeze()) && !broken.takes(0, resolve(true, 0)) && !broken.takes(0, resolve(false, 0)));
    let broken = with(2, b"");
    assert!(broken.takes(0, freeze()) && !broken.takes(1, freeze()), "notes are of shard 0");
    assert_eq!([0, 1, 2, 3].map(|n| broken.takes(0, resolve(true, n))), [false, true, true, false]);
    assert_eq!([0, 1, 2, 3].map(|n| broken.takes(0, resolve(false, n))), [false; 4]);
    let broken = with(2, &[1; 32]);
    assert_eq!([0, 1, 2, 3].map(|n| broken.takes(0, resolve(true, n))), [false, true, true, false]);
    assert_eq!([0, 1, 2, 3].map(|n| broken.takes(0, resolve(false, n))), [false, false, true, false]);
}

/// What orders credited, which the outbox may have in part once something of it is acknowledged.
#[test]
fn credits_in_the_outbox_are_those_of_orders_and_without_a_gap() {
    const FLOW: &str = "as orders say, found";
    let (mut alice, bob) = (Signer::new(1), Signer::new(2));
    let to_shard = bob.address.shard(2);
    let order = alice.call(vec![], vec![credit(&bob, 7), credit(&bob, 5)]);
    let entry = |output, amount| wire::DeliveredCredit {
        address: bytes(&bob),
        amount,
        source: Some(wire::CreditEntry {
            network_id: NETWORK_ID,
            actor: alice.actor(),
            seqnum: 1,
            output,
            order_id: Bytes::copy_from_slice(&id_of(&order)),
            amount,
            kind: wire::credit_entry::Kind::Call as i32,
            ..Default::default()
        }),
    };
    let with = |acknowledged, sent, deliveries: &[(u64, &[(u32, u64)])]| {
        let mut broken = Broken::new();
        broken.applied(&order);
        broken.link(Link::Sent, to_shard, sent);
        broken.link(Link::Acknowledged, to_shard, acknowledged);
        for (sequence, credits) in deliveries {
            let credits = credits.iter().map(|(output, amount)| entry(*output, *amount)).collect();
            let (from_shard, sequence) = (LOG, *sequence);
            broken.deliver(wire::Delivery { from_shard, to_shard, sequence, credits, ..Default::default() });
        }
        let text = format!("outbox to shard {to_shard}: expected deliveries ");
        (broken.says(&text), broken.says(FLOW))
    };
    assert_eq!(with(0, 1, &[(1, &[(0, 7), (1, 5)])]), (0, 0));
    assert_eq!(with(0, 2, &[(1, &[(0, 7)]), (2, &[(1, 5)])]), (0, 0));
    assert_eq!(with(0, 1, &[(1, &[(0, 7)])]), (0, 1), "less");
    assert_eq!(with(0, 1, &[(1, &[(1, 7), (0, 5)])]), (0, 1), "of other outputs");
    assert_eq!(with(0, 0, &[]), (0, 1), "nothing");
    assert_eq!(with(1, 2, &[(2, &[(1, 5)])]), (0, 0), "the rest has arrived");
    assert_eq!(with(1, 2, &[(2, &[(0, 7), (1, 5)])]), (0, 0), "and nothing else was in the first");
    assert_eq!(with(1, 2, &[(2, &[(0, 7), (1, 6)])]), (0, 1), "more than orders say");
    assert_eq!(with(2, 2, &[]), (0, 0));
    assert_eq!(with(0, 2, &[(1, &[(0, 7), (1, 5)])]), (1, 0), "a delivery is missing");
    assert_eq!(with(0, 1, &[(2, &[(0, 7), (1, 5)])]), (1, 0), "another number");
    assert_eq!(with(0, 0, &[(1, &[(0, 7), (1, 5)])]), (1, 0), "more than was sent");
    assert_eq!(with(1, 1, &[(1, &[(0, 7), (1, 5)])]), (1, 0), "it has arrived");
}

#[test]
fn deliveries_that_are_not_the_logs_have_the_wrong_place_or_nothing_in_them() {
    const EMPTY: &str = "expected steps or credits, found calls or nothing";
    let (cluster, alice) = {
        let (mut cluster, mut alice, bob) = setup(2);
        let order = alice.call(vec![], vec![credit(&bob, 7), credit(&alice.clone(), 1)]);
        cluster.run(&[order]);
        let items = cluster.log_items(1);
        cluster.order_items(1, 0, items);
        (cluster, alice)
    };
    let clean = Broken::of(&cluster);
    assert!(clean.audit().is_clean(), "{:?}", clean.audit().findings);
    let of = shard(&alice);
    let key = outbox_key(of, 1);
    type Tamper = fn(&mut wire::Delivery);
    let cases: [(Tamper, &str); 9] = [
        (|d| d.calls.push(wire::LogCall::default()), EMPTY),
        (|d| (d.steps, d.credits) = (vec![], vec![]), EMPTY),
        (|d| d.from_shard = 0, ": sender: expected 4294967295, found 0"),
        (|d| d.sequence = 2, ": key: expected "),
        (|d| d.to_shard ^= 1, ": key: expected "),
        (|d| d.to_shard ^= 1, ": shard of a credit: expected "),
        (|d| d.credits[0].amount += 1, ": amount of a credit: expected "),
        (|d| d.credits[0].address = Bytes::from_static(b"x"), ": shard of a credit: expected "),
        (|d| d.credits[0].address = Bytes::from_static(b"x"), "as orders say, found"),
    ];
    for (i, (tamper, says)) in cases.into_iter().enumerate() {
        let mut broken = Broken::of(&cluster);
        broken.change(Table::Outbox, &key, tamper);
        assert!(broken.says(says) >= 1, "case {i}: {:?}", broken.audit().findings);
    }
    // Steps alone are a delivery, and so are credits.
    for tamper in [(|d| d.steps.clear()) as Tamper, |d| d.credits.clear()] {
        let mut broken = Broken::of(&cluster);
        broken.change(Table::Outbox, &key, tamper);
        assert_eq!(broken.says(EMPTY), 0);
    }
    let mut broken = Broken::of(&cluster);
    broken.link(Link::Sent, 2, 1);
    assert_eq!(broken.says("links: expected counters for shards"), 1);
    let mut broken = Broken::of(&cluster);
    broken.link(Link::Applied, 0, 1);
    assert_eq!(broken.says("links: expected counters for shards"), 1);
}
