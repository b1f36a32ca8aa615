//! What the audit of a shard says of each thing that is not as the orders say: that thing, and nothing else.

use prost::Message;

use super::log_steps::tell;
use super::settle::blind;
use super::*;
use crate::address::Address;
use crate::authority::audit::{ShardAudit, audit_shard};
use crate::authority::state::{LOG, Link, Write, link_key, need_record, order_key, outbox_key};
use crate::bearer::build;
use crate::cash::testing::Note;
use crate::content::credit_output;
use crate::envelope::Order;
use crate::keys::Curve;
use crate::network_flags::{HISTORY, ORDERED, SKIP_SEQ_AND_PREVHASH};
use crate::permission::Permission;
use wire::log_step::Kind;

pub(super) const KEPT: u64 = 500;
pub(super) const IN_ORDER: u64 = 501;
pub(super) const SKIPS: u64 = 502;

/// A shard with something of every kind in it.
pub(super) struct World {
    cluster: Cluster,
    pub alice: Signer,
    pub bob: Signer,
    pub carol: Signer,
    pub dave: Signer,
    /// Another address of Alice's actor.
    pub other: Address,
    /// Spent, locked, frozen with an order that waits, freed, spent with an output for the log.
    pub notes: Vec<Note>,
    /// Orders that spend the first and the last of them, and one that asks to free one.
    pub bearers: [Bytes; 3],
    /// Of the network without sequence numbers.
    pub by_id: Bytes,
}

impl World {
    fn settle(&mut self, orders: &[Bytes]) {
        let certificate = blind(&self.cluster, orders, &[0, 1, 2], ((1_u32 << orders.len()) - 1) as u8);
        self.cluster.node(0, 0).settle(&certificate, orders).unwrap();
    }

    fn tell(&mut self, steps: Vec<Kind>) {
        tell(self.cluster.node(0, 0), steps).unwrap();
    }

    pub fn state(&self) -> &MemState {
        &self.cluster.nodes[0][0].state
    }

    fn audit(&self, state: &MemState) -> Result<ShardAudit> {
        audit_shard(&self.cluster.nodes[0][0].authority, state, false)
    }
}

pub(super) fn nonce(note: &Note) -> [u8; 32] {
    note.secrets.nonce().0
}

pub(super) fn id(order: &Bytes) -> [u8; 32] {
    Order::decode(order.clone()).unwrap().id
}

fn bearer(note: &Note, outputs: Vec<wire::Output>, refund: Option<&Address>) -> Bytes {
    build(NETWORK_ID, &[note.spend()], outputs, "", refund)
}

pub(super) fn world() -> World {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let [mut alice, mut bob, carol, mut dave] = [1, 2, 3, 4].map(Signer::new);
    [alice.address, bob.address, carol.address, dave.address].iter().for_each(|address| cluster.fund(*address, 1_000));
    let mut last = *alice.address.as_bytes();
    last[31] ^= 1;
    let other = Address::new(last);
    cluster.fund(other, 7);
    let mut purse = cluster.make_cash(4);
    let notes = cluster.withdraw(&mut alice, &mut purse, &[0, 1, 2, 3, 2]);
    let redeem = wire::PrimaryRedeem { amount: 4, address: Bytes::copy_from_slice(bob.address.as_bytes()) };
    let shared = wire::Output { kind: Some(wire::output::Kind::PrimaryRedeem(redeem)) };
    let to_bob = |amount| vec![credit_output(&to(bob.address, amount))];
    let bearers = [
        bearer(&notes[0], to_bob(1), None),
        bearer(&notes[4], vec![shared], Some(&bob.address)),
        bearer(&notes[1], vec![], None),
    ];
    let (locked, early) = (bearer(&notes[1], to_bob(2), None), bearer(&notes[2], to_bob(4), None));

    let actor = |network_id, id| Actor::new(network_id, id, Curve::Ed25519);
    let [mut one, mut two, mut ordered, mut skips] =
        [actor(KEPT, 1), actor(KEPT, 2), actor(IN_ORDER, 1), actor(SKIPS, 1)];
    let of_network = |network_id, flags| {
        let network = Some(wire::NetworkRecord { flags, ..Default::default() });
        Kind::Network(wire::LogNetwork { network_id, network, metadata: false })
    };
    let of_actor = |actor: &Actor| {
        let (network_id, permission) = (actor.network_id, actor.permission.encode());
        Kind::Actor(wire::LogActor {
            network_id,
            actor: actor.permission.actor,
            permission,
            generation: 1,
            ..Default::default()
        })
    };
    let steps = vec![
        of_network(KEPT, HISTORY),
        of_network(IN_ORDER, ORDERED),
        of_network(SKIPS, SKIP_SEQ_AND_PREVHASH),
        of_actor(&one),
        of_actor(&two),
        of_actor(&ordered),
        of_actor(&skips),
    ];
    let by_id = skips.order(1, b"x", &[]);
    let in_order = ordered.order(1, b"x", &[]);
    let pbtx = [one.order(1, b"x", &[]), one.rotate(vec![secret(Curve::R1, 70)]), two.order(1, b"x", &[])];
    let two_pending = [two.order(1, b"y", &[]), two.rotate(vec![secret(Curve::R1, 71)])];

    let credit = wire::Credit { address: Bytes::copy_from_slice(bob.address.as_bytes()), amount: 5 };
    let alices = [
        alice.pay(&[to(bob.address, 10), to(other, 1)], "memo"),
        alice.call(vec![], vec![wire::output::Kind::Credit(credit)]),
    ];
    let key = secret(Curve::R1, 7);
    let bobs = bob.set_permission(&Permission::single(key.public()), vec![key]);
    let daves = dave.pay(&[to(bob.address, 1)], "");
    let frozen = dave.pay(&[to(bob.address, 2)], "");
    let pending = alice.pay(&[to(bob.address, 20)], "");
    alice.pay(&[to(bob.address, 1)], "");
    let waiting = alice.pay(&[to(bob.address, 2)], "");
    let recover = carol.recover();

    let mut world =
        World { cluster, alice, bob, carol, dave, other, notes, bearers: bearers.clone(), by_id: by_id.clone() };
    world.tell(steps);
    world.settle(&[alices[0].clone(), bobs, daves]);
    world.settle(&alices[1..]);
    world.settle(&[bearers[0].clone(), bearers[1].clone()]);
    world.settle(&[bearers[2].clone()]);
    world.settle(&pbtx);
    world.settle(&[in_order.clone(), by_id]);
    let order_id = Bytes::copy_from_slice(&id(&in_order));
    let stream = wire::LogStream { network_id: IN_ORDER, actor: 1, seqnum: 1, order_id };
    let (network_id, dave) = (NETWORK_ID, world.dave.actor());
    let freeze_note = |note: &Note| Kind::FreezeNote(wire::LogFreezeNote { nonce: nonce(note).to_vec().into() });
    let free = wire::LogResolveNote { nonce: nonce(&world.notes[3]).to_vec().into(), void: true, recoveries: 1 };
    let steps = vec![
        Kind::Stream(stream),
        Kind::Freeze(wire::LogFreeze { network_id, actor: dave, seqnum: 2 }),
        freeze_note(&world.notes[2]),
        freeze_note(&world.notes[3]),
        Kind::ResolveNote(free),
    ];
    world.tell(steps);
    world.settle(&[frozen]);
    world.settle(&[early]);
    world.settle(&[recover]);
    let carol = &world.carol;
    let void = wire::LogResolve {
        network_id,
        actor: carol.actor(),
        seqnum: 1,
        void: true,
        prev_hash: 9,
        account: Bytes::copy_from_slice(carol.address.as_bytes()),
        open: carol.permission.encode(),
    };
    let freeze = wire::LogFreeze { network_id, actor: carol.actor(), seqnum: 1 };
    // Of Erin's recovery this shard has only heard.
    let erin = Signer::new(5);
    let heard = wire::LogResolve {
        actor: erin.actor(),
        account: Bytes::copy_from_slice(erin.address.as_bytes()),
        open: erin.permission.encode(),
        ..void.clone()
    };
    world.tell(vec![Kind::Freeze(freeze), Kind::Resolve(void), Kind::Resolve(heard)]);
    world.settle(&[waiting]);
    let node = world.cluster.node(0, 0);
    let reply = node.vote(&[pending, locked, two_pending[0].clone(), two_pending[1].clone()]).unwrap();
    assert_eq!((accepted(&reply), refused(&reply)), (0b1111, vec![]));
    world
}

#[test]
fn a_clean_shard_is_counted_exactly() {
    let world = world();
    let audit = audit_shard(&world.cluster.nodes[0][0].authority, world.state(), true).unwrap();
    assert_eq!(audit.findings, [] as [String; 0]);
    let state = world.state();
    let entries = |table| state.iter(table).count() as u64;
    assert_eq!((audit.batches, audit.accounts), (entries(Table::Batches), entries(Table::Accounts)));
    // Five funded, one with notes; two certificates of nobody's are of batches that were only voted on.
    assert_eq!(audit.certificates, audit.batches - 1);
    assert_eq!(audit.orders, 6 + 3 + 1 + 2 + 1 + 3 + 2 + 1);
    assert_eq!(audit.credits, 5 + 2 + 1 + 1);
    // Funds, notes, payments, and what is on its way to the log.
    assert_eq!((audit.balances, audit.debited), (-(19 - 1 - 4) - (5 + 4), 4 * 1_000 + 7 + 19 + 11 + 5 + 1 + 1 + 4));
    assert_eq!((audit.genesis, audit.issued), (0, 0));
    assert_eq!(audit.notes, [(1, 1), (1, 0), (2, 1), (1, 0)]);
    assert_eq!(audit.frozen_notes.into_iter().collect::<Vec<_>>(), [nonce(&world.notes[2]).to_vec()]);
    assert_eq!(audit.freed_notes.into_iter().collect::<Vec<_>>(), [(nonce(&world.notes[3]).to_vec(), 1)]);
    let of = |signer: &Signer| (NETWORK_ID, signer.actor());
    assert_eq!(audit.frozen.into_iter().collect::<Vec<_>>(), [(of(&world.dave), 2)]);
    let mut voided = [(of(&world.carol), vec![1]), (of(&Signer::new(5)), vec![1])];
    voided.sort_unstable();
    assert_eq!(audit.voided.into_iter().collect::<Vec<_>>(), voided);
    let sent = audit.sent[&LOG];
    assert_eq!((sent.count, sent.amount), (2, 9));
    assert_eq!((audit.bearers.count, audit.bearers.amount, audit.bearers_kept), (1, 4, audit.bearers));
    let calls = audit.calls[&of(&world.alice)];
    assert_eq!((audit.calls.len(), calls.last, calls.settled.count, calls.settled.amount), (1, 3, 1, 5));
    assert_eq!(audit.calls_kept.into_iter().collect::<Vec<_>>(), [((of(&world.alice), 3), calls.settled)]);
    assert_eq!(audit.pbtx_calls.into_iter().collect::<Vec<_>>(), [((KEPT, 1), (2, false)), ((IN_ORDER, 1), (1, true))]);
    assert_eq!(audit.pbtx_kept.into_iter().collect::<Vec<_>>(), [((KEPT, 1), 2), ((IN_ORDER, 1), 1)]);
    assert_eq!(audit.registry.count, 3 + 4);
    let (sent, last) = (audit.links[&LOG], audit.outbox.keys().last().copied());
    assert_eq!((sent.0, Some((LOG, sent.1)), audit.outbox.len() as u64), (0, last, sent.1));
    assert_eq!(audit.applied[&LOG], 3);
    // Without signatures the same is counted.
    let quick = world.audit(state).unwrap();
    assert_eq!((quick.certificates, quick.findings), (audit.certificates, vec![]));
}

/// Changes a record, which must be there.
pub(super) fn change<M: Message + Default>(
    state: &mut MemState,
    table: Table,
    key: &[u8],
    change: impl FnOnce(&mut M),
) {
    let mut record: M = need_record(state, table, key).unwrap();
    change(&mut record);
    state.apply(&[Write::put(table, key, record.encode_to_vec())]);
}

pub(super) type Change<'a> = Box<dyn Fn(&mut MemState) + 'a>;

/// Each change gives exactly as many findings as there are texts, each with its text, in this order.
pub(super) fn check(world: &World, cases: Vec<(&str, Change<'_>, &[&str])>) {
    let mut wrong = Vec::new();
    for (what, change, texts) in cases {
        let mut state = world.state().clone();
        change(&mut state);
        assert_ne!(&state, world.state(), "{what}: nothing is changed");
        let findings = match world.audit(&state) {
            Ok(audit) => audit.findings,
            Err(e) => vec![e.to_string()],
        };
        let fits = findings.len() == texts.len() && findings.iter().zip(texts).all(|(f, text)| f.contains(text));
        if !fits {
            wrong.push(format!("{what}: expected {texts:#?}, found {findings:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The delivery to the log whose call fits.
fn call_of(world: &World, fits: impl Fn(&wire::LogCall) -> bool) -> [u8; 12] {
    let calls = log_calls(&world.cluster.nodes[0][0]);
    let at = calls.iter().position(fits).expect("a call that is kept");
    outbox_key(LOG, 1 + at as u64)
}

#[test]
fn links_and_what_is_kept_for_the_log() {
    let world = world();
    let link =
        |key: Vec<u8>| -> Change<'_> { Box::new(move |s| s.apply(&[Write::put(Table::Links, key.clone(), [0; 8])])) };
    let odd = |first: u8, shard: u32| [&[first][..], &shard.to_be_bytes()].concat();
    let no_link: &[&str] = &["links: expected counters of the committee's shards, found"];
    let mut cases = vec![
        ("a shard too many", link(link_key(Link::Sent, 1).to_vec()), no_link),
        ("another kind of counter", link(odd(b'x', 0)), no_link),
        ("another kind of the log's", link(odd(b'x', LOG)), no_link),
        ("half a key", link(vec![b's', 0]), no_link),
        ("of this shard", link(link_key(Link::Sent, 0).to_vec()), &[][..]),
    ];
    let alice = world.alice.actor();
    let debit = call_of(&world, |c| c.actor == alice);
    let recover = call_of(&world, |c| c.recover && c.actor != 0);
    let report = call_of(&world, |c| c.report && c.actor != 0);
    let note_report = call_of(&world, |c| c.report && c.actor == 0);
    let shown = call_of(&world, |c| c.shown && c.actor != 0);
    let note_shown = call_of(&world, |c| c.shown && c.actor == 0);
    let bearer = call_of(&world, |c| c.order_id[..] == id(&world.bearers[1]));
    let free = call_of(&world, |c| c.order_id[..] == id(&world.bearers[2]));
    let rotation = call_of(&world, |c| c.network_id == KEPT);
    let change = |key: [u8; 12], f: fn(&mut wire::Delivery)| -> Change<'_> {
        Box::new(move |s| change(s, Table::Outbox, &key, f))
    };
    let call = |key: [u8; 12], f: fn(&mut wire::LogCall)| -> Change<'_> {
        Box::new(move |s| self::change(s, Table::Outbox, &key, |d: &mut wire::Delivery| f(&mut d.calls[0])))
    };
    let more: Vec<(&str, Change<'_>, &[&str])> = vec![
        (
            "credits for the log",
            change(debit, |d| d.credits.push(wire::DeliveredCredit::default())),
            &["expected a call, found credits or steps"],
        ),
        (
            "steps for the log",
            change(debit, |d| d.steps.push(wire::LogStep::default())),
            &["expected a call, found credits or steps"],
        ),
        ("no call", change(debit, |d| d.calls.clear()), &["expected one call, found 0"]),
        ("two calls", change(debit, |d| d.calls.push(d.calls[0].clone())), &["expected one call, found 2"]),
        ("another sender", change(debit, |d| d.from_shard = 1), &["sender of a delivery: expected 0, found 1"]),
        ("a call at another seqnum", call(debit, |c| c.seqnum += 1), &["to the log: order: expected"]),
        ("a call of another actor", call(debit, |c| c.actor += 1), &["to the log: order: expected"]),
        (
            "a call that recovers",
            call(debit, |c| c.recover = true),
            &["whether it is a RECOVER: expected false, found true"],
        ),
        (
            "a recovery that does not",
            call(recover, |c| c.recover = false),
            &["whether it is a RECOVER: expected true, found false"],
        ),
        (
            "a recovery that a freeze shows",
            call(recover, |c| c.shown = true),
            &["whether a freeze shows it: expected false, found true"],
        ),
        (
            "an order that is no CALL",
            call(shown, |c| c.shown = false),
            &["type of the order", "settled order", "outbox to shard 4294967295: expected 2 credits of 9"],
        ),
        ("a report with a place", call(report, |c| c.batch = 1), &["report: expected"]),
        ("a report that is shown", call(report, |c| c.shown = true), &["report: expected"]),
        ("a report of another seqnum", call(report, |c| c.seqnum = 9), &[]),
        (
            "a note's report with an order",
            call(note_report, |c| c.order_id = Bytes::from_static(b"x")),
            &["report: expected"],
        ),
        ("an order that is nowhere", call(debit, |c| c.index = 99), &["expected an order at 99 of batch"]),
        (
            "another bearer order",
            call(bearer, |c| c.order_id = Bytes::from_static(&[1; 32])),
            &["bearer order: expected"],
        ),
        ("a bearer order that recovers", call(bearer, |c| c.recover = true), &["bearer order: expected"]),
        (
            "a bearer order that frees and does not say so",
            call(free, |c| c.recover = false),
            &["bearer order: expected"],
        ),
        ("a shown one with another id", call(note_shown, |c| c.order_id = Bytes::new()), &["bearer order: expected"]),
        (
            "a shown one that is not",
            call(note_shown, |c| c.shown = false),
            &["settled order: expected", "expected outputs for the log, found none"],
        ),
        ("a change of keys that recovers", call(rotation, |c| c.recover = true), &["kind of call: expected"]),
        ("a change of keys that is shown", call(rotation, |c| c.shown = true), &["kind of call: expected"]),
    ];
    cases.extend(more);
    let twice: Change<'_> = Box::new(|s| {
        let record: wire::Delivery = need_record(s, Table::Outbox, &debit).unwrap();
        self::change(s, Table::Outbox, &report, |d: &mut wire::Delivery| d.calls.clone_from(&record.calls));
    });
    cases.push((
        "a CALL twice",
        twice,
        &["expected each CALL once, found it again", "outbox to shard 4294967295: expected"],
    ));
    let twice: Change<'_> = Box::new(|s| {
        let record: wire::Delivery = need_record(s, Table::Outbox, &rotation).unwrap();
        self::change(s, Table::Outbox, &report, |d: &mut wire::Delivery| d.calls.clone_from(&record.calls));
    });
    cases.push(("a change of keys twice", twice, &["expected each order once, found it again"]));
    let unneeded: Change<'_> = Box::new(|s| {
        let order = wire::OrderRecord::decode(s.get(Table::Orders, &order_key(KEPT, 1, 1)).unwrap().unwrap()).unwrap();
        self::change(s, Table::Outbox, &rotation, |d: &mut wire::Delivery| {
            (d.calls[0].seqnum, d.calls[0].batch, d.calls[0].index) = (1, order.batch, order.index);
        });
    });
    cases.push((
        "an order that the log does not need",
        unneeded,
        &["whether the log needs the order: expected true, found false"],
    ));
    check(&world, cases);
}
