//! PBTX networks whose commands and orders applied though they must not have.

use super::*;
use crate::authority::state::Table;
use crate::keys::Curve;
use crate::network_flags::{HISTORY, ORDERED};
use crate::ordered::modules::registry::network_key;
use crate::ordered::step::{Object, actor_key};
use crate::registration::sign_registration;
use wire::network_command::Kind as N;

const ADMIN: &str = "expected the admin of network 500";
const ID: u64 = 500;

fn command(kind: N) -> output::Kind {
    output::Kind::Network(wire::NetworkCommand { network_id: ID, kind: Some(kind) })
}

fn register(flags: u32, open: bool, listeners: Vec<Bytes>) -> N {
    N::Register(wire::NetworkRegister { flags, open, listeners, ..Default::default() })
}

/// A network of Alice's, to whom Bob listens.
fn network(flags: u32, open: bool) -> (Broken, [Signer; 3]) {
    let [mut alice, bob, carol] = [1, 2, 3].map(Signer::new);
    let mut broken = Broken::new();
    broken.applied(&alice.call(vec![], vec![command(register(flags, open, vec![bytes(&bob)]))]));
    assert_eq!(broken.says(ADMIN), 0);
    (broken, [alice, bob, carol])
}

fn actor() -> Actor {
    Actor::new(ID, 7, Curve::K1)
}

fn registration(actor: &Actor) -> N {
    let permission = actor.permission.encode();
    let signature = Bytes::copy_from_slice(sign_registration(&permission, &actor.keys[0]).as_bytes());
    N::Open(wire::ActorOpen { permission, signature })
}

#[test]
fn commands_by_those_who_may_not() {
    let precheck = || N::Precheck(wire::Precheck { actors: vec![1], ..Default::default() });
    // Who may: the admin, a listener, anybody.
    type Say = fn() -> N;
    let cases: [(Say, [bool; 3]); 10] = [
        (|| N::Metadata(wire::NetworkMetadata { metadata: Bytes::from_static(b"text") }), [true, false, false]),
        (|| N::Update(wire::NetworkUpdate::default()), [true, false, false]),
        (|| N::Offer(wire::NetworkOffer { admin: bytes(&Signer::new(3)) }), [true, false, false]),
        (|| N::Prune(wire::HistoryPrune { max_rows: 1, ..Default::default() }), [true, false, false]),
        (|| N::Actor(actor().permission.encode()), [true, false, false]),
        (|| N::RemoveActor(7), [true, false, false]),
        (|| N::FreezeActor(wire::ActorFreeze { actor: 7, frozen: true }), [true, false, false]),
        (|| N::Remove(wire::NetworkRemove {}), [true, false, false]),
        (|| register(0, false, vec![]), [false, false, false]),
        (|| N::Accept(wire::NetworkAccept {}), [false, false, false]),
    ];
    for (case, (kind, may)) in cases.into_iter().enumerate() {
        for (who, may) in may.into_iter().enumerate() {
            let (mut broken, mut signers) = network(0, false);
            broken.applied(&signers[who].call(vec![], vec![command(kind())]));
            assert_eq!(broken.says(ADMIN), usize::from(!may), "case {case}, by {who}");
        }
    }
    for (who, may) in [true, true, false].into_iter().enumerate() {
        let (mut broken, mut signers) = network(0, false);
        broken.applied(&signers[who].call(vec![], vec![command(precheck())]));
        assert_eq!(broken.says(ADMIN), usize::from(!may), "a precheck by {who}");
    }
    for open in [true, false] {
        for (who, may) in [true, open, open].into_iter().enumerate() {
            let (mut broken, mut signers) = network(0, open);
            broken.applied(&signers[who].call(vec![], vec![command(registration(&actor()))]));
            assert_eq!(broken.says(ADMIN), usize::from(!may), "open {open}, by {who}");
        }
    }
}

#[test]
fn networks_that_are_not_there_or_no_more_take_no_command() {
    type Say = fn() -> N;
    let all: [Say; 4] = [
        || N::Metadata(wire::NetworkMetadata::default()),
        || N::Accept(wire::NetworkAccept {}),
        || registration(&actor()),
        || N::Precheck(wire::Precheck::default()),
    ];
    for (case, kind) in all.into_iter().enumerate() {
        let mut broken = Broken::new();
        broken.applied(&Signer::new(1).call(vec![], vec![command(kind())]));
        assert_eq!(broken.says(ADMIN), 1, "case {case}");
        let (mut broken, [mut alice, ..]) = network(0, true);
        broken.applied(&alice.call(vec![], vec![command(N::Remove(wire::NetworkRemove {}))]));
        assert_eq!(broken.says(ADMIN), 0);
        broken.applied(&alice.call(vec![], vec![command(kind())]));
        assert_eq!(broken.says(ADMIN), 1, "case {case}, removed");
    }
    // An id is given once.
    let (mut broken, [mut alice, ..]) = network(0, false);
    broken.applied(&alice.call(vec![], vec![command(N::Remove(wire::NetworkRemove {}))]));
    broken.applied(&alice.call(vec![], vec![command(register(1, false, vec![]))]));
    assert_eq!(broken.says(ADMIN), 1);
}

#[test]
fn the_admin_is_whom_the_last_one_offered_it() {
    let offer = |to: &Signer| command(N::Offer(wire::NetworkOffer { admin: bytes(to) }));
    let accept = || command(N::Accept(wire::NetworkAccept {}));
    let (mut broken, [mut alice, mut bob, mut carol]) = network(0, false);
    broken.applied(&alice.call(vec![], vec![offer(&carol)]));
    broken.applied(&carol.call(vec![], vec![accept()]));
    assert_eq!(broken.says(ADMIN), 0);
    broken.applied(&carol.call(vec![], vec![accept()]));
    assert_eq!(broken.says(ADMIN), 1, "twice");
    broken.applied(&alice.call(vec![], vec![offer(&alice.clone())]));
    assert_eq!(broken.says(ADMIN), 2, "it was she");
    broken.applied(&bob.call(vec![], vec![accept()]));
    assert_eq!(broken.says(ADMIN), 3, "it was not offered to Bob");
}

#[test]
fn what_a_network_must_be_after_its_commands() {
    let (mut broken, [mut alice, mut bob, _]) = network(HISTORY, false);
    let precheck = |actor| wire::Precheck { actors: vec![actor], ..Default::default() };
    let by = |signer: &Signer, actor| wire::NetworkPrecheck { by: bytes(signer), precheck: Some(precheck(actor)) };
    let mut record = wire::NetworkRecord {
        admin: bytes(&alice),
        flags: HISTORY,
        listeners: vec![bytes(&bob)],
        ..Default::default()
    };
    let is = |broken: &mut Broken, record: &wire::NetworkRecord| {
        broken.put(network_key(ID), record);
        assert_eq!(broken.says("log: networks: "), 0, "{:?}", broken.audit().findings);
    };
    is(&mut broken, &record);
    for (i, (signer, actor)) in [(0, 3), (1, 4), (0, 5), (1, 4)].into_iter().enumerate() {
        let signer = if signer == 0 { &mut alice } else { &mut bob };
        broken.applied(&signer.call(vec![], vec![command(N::Precheck(precheck(actor)))]));
        record.prechecks.retain(|p| p.by != bytes(signer));
        record.prechecks.push(by(signer, actor));
        record.prechecks.sort_by_key(|p| p.by.clone());
        is(&mut broken, &record);
        assert_eq!(record.prechecks.len(), if i == 0 { 1 } else { 2 });
    }
    // Nothing to check for is no precheck.
    broken.applied(&alice.call(vec![], vec![command(N::Precheck(wire::Precheck::default()))]));
    record.prechecks.retain(|p| p.by == bytes(&bob));
    is(&mut broken, &record);
    broken.applied(&alice.call(vec![], vec![command(N::Precheck(precheck(6)))]));
    // Who listens no more says no more what is taken.
    let update = wire::NetworkUpdate { flags: HISTORY, listeners: vec![], open: true };
    broken.applied(&alice.call(vec![], vec![command(N::Update(update))]));
    (record.listeners, record.open, record.prechecks) = (vec![], true, vec![by(&alice, 6)]);
    is(&mut broken, &record);
    let offer = wire::NetworkOffer { admin: bytes(&bob) };
    broken.applied(&alice.call(vec![], vec![command(N::Offer(offer))]));
    record.offered = bytes(&bob);
    is(&mut broken, &record);
    broken.applied(&bob.call(vec![], vec![command(N::Accept(wire::NetworkAccept {}))]));
    (record.admin, record.offered, record.prechecks) = (bytes(&bob), Bytes::new(), vec![]);
    is(&mut broken, &record);
    broken.applied(&bob.call(vec![], vec![command(N::Remove(wire::NetworkRemove {}))]));
    let record = wire::NetworkRecord { removed: true, flags: HISTORY, ..Default::default() };
    is(&mut broken, &record);
    for other in [
        wire::NetworkRecord { flags: 0, ..record.clone() },
        wire::NetworkRecord { removed: false, ..record.clone() },
        wire::NetworkRecord { actors: 1, ..record.clone() },
    ] {
        broken.put(network_key(ID), &other);
        assert_eq!(broken.says("log: networks: "), 1);
    }
}

#[test]
fn what_an_actor_must_be_after_its_commands_and_changes_of_keys() {
    let (mut broken, [mut alice, ..]) = network(0, false);
    let mut actor = actor();
    let other = Actor { permission: Actor::new(ID, 7, Curve::R1).permission, ..actor.clone() };
    let first = actor.permission.encode();
    let is = |broken: &mut Broken, permission: &Bytes, removed, frozen, generation, actors| {
        let record = wire::ActorRecord { permission: permission.clone(), removed, frozen, generation };
        broken.put(actor_key(Object::Actor, ID, 7), &record);
        let audit = broken.audit();
        assert!(!audit.findings.iter().any(|f| f.contains("actor 7 of network 500")), "{:?}", audit.findings);
        let networks = audit.findings.iter().find(|f| f.contains("log: networks: ")).expect("there is no record");
        assert!(networks.contains(&format!("actors: {actors}, ")), "{networks}");
    };
    let mut does = |broken: &mut Broken, kind: N| broken.applied(&alice.call(vec![], vec![command(kind)]));
    does(&mut broken, N::Actor(first.clone()));
    assert_eq!(broken.says("actors without a record"), 1);
    is(&mut broken, &first, false, false, 1, 1);
    does(&mut broken, N::Actor(first.clone()));
    is(&mut broken, &first, false, false, 1, 1);
    does(&mut broken, N::FreezeActor(wire::ActorFreeze { actor: 7, frozen: true }));
    is(&mut broken, &first, false, true, 1, 1);
    does(&mut broken, N::Actor(other.permission.encode()));
    is(&mut broken, &other.permission.encode(), false, true, 2, 1);
    // A change of keys that names a permission that is replaced does nothing.
    let keys = || vec![secret(Curve::Ed25519, 70)];
    broken.applied(&actor.rotate(keys()));
    is(&mut broken, &other.permission.encode(), false, true, 2, 1);
    for generation in [2, 3] {
        actor.generation = generation;
        broken.applied(&actor.rotate(vec![secret(Curve::Ed25519, 70 + u64::from(generation))]));
        is(&mut broken, &actor.permission.encode(), false, true, generation + 1, 1);
    }
    does(&mut broken, N::RemoveActor(7));
    is(&mut broken, &Bytes::new(), true, false, 5, 0);
    // One that is removed changes nothing, whatever it names.
    actor.generation = 5;
    broken.applied(&actor.rotate(keys()));
    is(&mut broken, &Bytes::new(), true, false, 5, 0);
    does(&mut broken, N::Actor(first.clone()));
    is(&mut broken, &first, false, false, 6, 1);
    // An order that is no change of keys has no place here.
    assert_eq!(broken.says("change of keys in a network without ORDERED"), 0);
    broken.applied(&actor.order(0x4000, b"text", &[]));
    assert_eq!(broken.says("change of keys in a network without ORDERED"), 1);
    is(&mut broken, &first, false, false, 6, 1);
}

#[test]
fn the_stream_of_a_network_with_ordered_has_no_gap() {
    let (mut broken, _) = network(ORDERED, false);
    let mut actor = actor();
    let gap = "seqnum in a network with ORDERED";
    for seqnum in 1..=3 {
        broken.applied(&actor.order(0x4000, b"text", &[]));
        let audit = broken.audit();
        assert_eq!((broken.says(gap), audit.orders), (0, 1 + seqnum));
        assert_eq!(audit.callers[&(ID, 7)].calls.last, seqnum as u32);
    }
    actor.order(0x4000, b"lost", &[]);
    let order = actor.order(0x4000, b"text", &[]);
    broken.orders(&[&order]);
    // In a unit before that of its outcome it does not count.
    broken.applied(&order);
    assert_eq!((broken.says(gap), broken.audit().orders), (1, 5));
    assert_eq!(broken.says("expected 4, found 5"), 1);
    broken.orders(&[&order]);
    assert_eq!((broken.says(gap), broken.audit().orders), (1, 5));
    for (code, message, found) in [(Code::NotAParty as u32, "text", 1), (0, "text", 1), (1, "", 1), (0, "", 0)] {
        let key = outcome_key(ID, 7, 1);
        broken.change(Table::Objects, &key, |o: &mut wire::OutcomeRecord| {
            (o.code, o.message) = (code, message.to_owned());
        });
        assert_eq!(broken.says(": outcome: "), found, "{code} {message:?}");
    }
    // Of two orders for one number that one counts which the outcome names.
    let other = Actor::new(ID, 7, Curve::K1).order(0x4000, b"other", &[]);
    let (mut broken, _) = network(ORDERED, false);
    let order = Actor::new(ID, 7, Curve::K1).order(0x4000, b"text", &[]);
    broken.orders(&[&other, &order]);
    broken.outcome(&order, 0, "");
    assert_eq!((broken.audit().orders, broken.says(gap)), (2, 0));
    broken.change(Table::Objects, &outcome_key(ID, 7, 1), |o: &mut wire::OutcomeRecord| o.index += 1);
    assert_eq!(broken.audit().orders, 1, "it stands elsewhere");
}
