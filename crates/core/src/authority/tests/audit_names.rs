//! What the audit of a shard says of each thing that is not as the orders say: that thing, and nothing else.

use prost::Message;

use super::log_steps::tell;
use super::settle::blind;
use super::*;
use crate::address::Address;
use crate::authority::audit::{ShardAudit, audit_shard};
use crate::authority::state::{
    Account, LOG, Link, Write, account_key, get_u64, holding_key, link_key, need_record, order_id_key, order_key,
    outbox_key, stream_key,
};
use crate::bearer::build;
use crate::cash::testing::Note;
use crate::content::credit_output;
use crate::envelope::Order;
use crate::keys::Curve;
use crate::network_flags::{HISTORY, ORDERED, SKIP_SEQ_AND_PREVHASH};
use crate::permission::Permission;
use wire::log_step::Kind;

const KEPT: u64 = 500;
const IN_ORDER: u64 = 501;
const SKIPS: u64 = 502;

/// A shard with something of every kind in it.
struct World {
    cluster: Cluster,
    alice: Signer,
    bob: Signer,
    carol: Signer,
    dave: Signer,
    /// Another address of Alice's actor.
    other: Address,
    /// Spent, locked, frozen with an order that waits, freed, spent with an output for the log.
    notes: Vec<Note>,
    /// Orders that spend the first and the last of them, and one that asks to free one.
    bearers: [Bytes; 3],
    /// Of the network without sequence numbers.
    by_id: Bytes,
}

impl World {
    fn settle(&mut self, orders: &[Bytes]) {
        let certificate = blind(&self.cluster, orders, &[0, 1, 2], ((1_u32 << orders.len()) - 1) as u8);
        self.cluster.node(0, 0).settle(&certificate, orders).unwrap();
    }

    fn tell(&mut self, steps: Vec<Kind>) {
        tell(self.cluster.node(0, 0), steps).unwrap();
    }

    fn state(&self) -> &MemState {
        &self.cluster.nodes[0][0].state
    }

    fn audit(&self, state: &MemState) -> Result<ShardAudit> {
        audit_shard(&self.cluster.nodes[0][0].authority, state, false)
    }
}

fn nonce(note: &Note) -> [u8; 32] {
    note.secrets.nonce().0
}

fn id(order: &Bytes) -> [u8; 32] {
    Order::decode(order.clone()).unwrap().id
}

fn bearer(note: &Note, outputs: Vec<wire::Output>, refund: Option<&Address>) -> Bytes {
    build(NETWORK_ID, &[note.spend()], outputs, "", refund)
}

fn world() -> World {
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
fn change<M: Message + Default>(state: &mut MemState, table: Table, key: &[u8], change: impl FnOnce(&mut M)) {
    let mut record: M = need_record(state, table, key).unwrap();
    change(&mut record);
    state.apply(&[Write::put(table, key, record.encode_to_vec())]);
}

type Change<'a> = Box<dyn Fn(&mut MemState) + 'a>;

/// Each change gives exactly as many findings as there are texts, each with its text, in this order.
fn check(world: &World, cases: Vec<(&str, Change<'_>, &[&str])>) {
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

#[test]
fn accounts_and_what_they_promise() {
    let world = world();
    let of = |signer: &Signer| account_key(NETWORK_ID, signer.actor());
    let account = |key: [u8; 16], f: fn(&mut wire::AccountRecord)| -> Change<'_> {
        Box::new(move |s| change(s, Table::Accounts, &key, f))
    };
    let (alice, bob, dave) = (of(&world.alice), of(&world.bob), of(&world.dave));
    let carol = of(&world.carol);
    let two = account_key(KEPT, 2);
    let further = holding_key(NETWORK_ID, &world.other);
    let further_record =
        |f: fn(&mut wire::AccountRecord)| -> Change<'_> { Box::new(move |s| change(s, Table::Accounts, &further, f)) };
    let promised: &[&str] = &["pending order, debit, change of keys, CALL, opening: expected"];
    let cases: Vec<(&str, Change<'_>, &[&str])> = vec![
        (
            "a payer frozen by an admin",
            account(bob, |a| a.barred = true),
            &["whether it is frozen by an admin: expected false, found true"],
        ),
        ("an actor frozen by an admin", account(two, |a| a.barred = true), &[]),
        ("a last CALL", account(alice, |a| a.last_call = 1), &["last CALL: expected 3, found 1"]),
        ("a RECOVER", account(bob, |a| a.recovering = 1), &["last RECOVER: expected 0, found 1"]),
        ("a RECOVER that was", account(carol, |a| a.recovering = 0), &["last RECOVER: expected 1, found 0"]),
        ("what a voided seqnum is followed by", account(carol, |a| a.prev_hash = 1), &[]),
        ("a change of keys", account(two, |a| a.rotating = 1), &["last change of keys: expected 0, found 1"]),
        ("what the log decided of it", account(two, |a| a.rotated = 1), &[]),
        ("what is promised", account(alice, |a| a.pending[0].amount += 1), promised),
        ("a promise of keys", account(alice, |a| a.pending[0].set_permission = true), promised),
        ("a promise of a CALL", account(alice, |a| a.pending[0].call = true), promised),
        ("a promise of an opening", account(alice, |a| a.pending[0].open = Bytes::from_static(b"x")), promised),
        ("another promise", account(alice, |a| a.pending[0].order_id = vec![1; 32].into()), promised),
        (
            "a promise that is nowhere",
            account(alice, |a| a.pending[0].index = 9),
            &["expected its pending order at 9 of batch"],
        ),
        (
            "a promise at another seqnum",
            account(alice, |a| a.pending.insert(0, a.pending[0].clone())),
            &["seqnum 5: expected its pending order"],
        ),
        (
            "an actor's promise of keys",
            account(two, |a| a.pending[0].set_permission = true),
            &["pending order, change of keys: expected"],
        ),
        (
            "an actor's promise of none",
            account(two, |a| a.pending[1].set_permission = false),
            &["pending order, change of keys: expected"],
        ),
        (
            "what waits at another seqnum",
            account(alice, |a| a.early[0].seqnum += 1),
            &["expected its waiting order at"],
        ),
        (
            "what waits and is another's",
            account(dave, |a| a.early[0].batch = 0),
            &["expected its waiting order at 0 of batch 0, found another or none"],
        ),
        ("nothing that waits", account(dave, |a| a.early.clear()), &["totals: waiting orders: expected 1, found 2"]),
        ("a further address with a seqnum", further_record(|a| a.seqnum = 1), &[": record: expected"]),
        (
            "a further address with two holdings",
            further_record(|a| a.holdings.push(a.holdings[0].clone())),
            &["not one holding"],
        ),
        (
            "a further address under another",
            further_record(|a| a.holdings[0].address = vec![7; 32].into()),
            &["not the key of its address"],
        ),
        (
            "money at a further address",
            further_record(|a| a.holdings[0].credits += 1),
            &["credits: expected 2, found 3"],
        ),
        ("a holding twice", account(bob, |a| a.holdings.push(a.holdings[0].clone())), &["expected one holding of"]),
        (
            "an actor without its record",
            Box::new(|s| s.apply(&[Write::delete(Table::Accounts, two)])),
            &["actor 2: expected an account record, found none"],
        ),
        (
            "a RECOVER without an account",
            Box::new(|s| s.apply(&[Write::delete(Table::Accounts, carol)])),
            &["expected an account record, found none", "order records", "voided seqnums"],
        ),
        (
            "a further address alone",
            Box::new(|s| {
                let key = holding_key(NETWORK_ID + 1, &world.other);
                let record = s.get(Table::Accounts, &further).unwrap().unwrap().to_vec();
                s.apply(&[Write::put(Table::Accounts, key, record)]);
            }),
            &["expected a record of its actor before it"],
        ),
        (
            "a stranger's account",
            Box::new(|s| {
                s.apply(&[Write::put(Table::Accounts, account_key(NETWORK_ID, 6), Account::default().encode())])
            }),
            &[],
        ),
    ];
    check(&world, cases);
}

#[test]
fn networks_and_their_streams() {
    let world = world();
    let order = |network_id, seqnum, f: fn(&mut wire::OrderRecord)| -> Change<'_> {
        Box::new(move |s| change(s, Table::Orders, &order_key(network_id, 1, seqnum), f))
    };
    let entry = |network_id, position, f: fn(&mut wire::StreamRecord)| -> Change<'_> {
        Box::new(move |s| change(s, Table::Stream, &stream_key(network_id, position), f))
    };
    let gone = |network_id, position| -> Change<'_> {
        Box::new(move |s| s.apply(&[Write::delete(Table::Stream, stream_key(network_id, position))]))
    };
    let network = |network_id: u64, f: fn(&mut wire::NetworkShardRecord)| -> Change<'_> {
        Box::new(move |s| change(s, Table::Networks, &network_id.to_be_bytes(), f))
    };
    let by_id = order_id_key(SKIPS, 1, &id(&world.by_id));
    let record: &[&str] = &["order record: expected"];
    // Two actors are registered, then there are three orders.
    let cases: Vec<(&str, Change<'_>, &[&str])> = vec![
        ("an order for the log", order(KEPT, 1, |r| r.call = true), record),
        ("a change of keys that the log needs not", order(KEPT, 2, |r| r.call = false), &["order record: expected"]),
        ("an order that the log needs not", order(IN_ORDER, 1, |r| r.call = false), record),
        ("another place", order(KEPT, 1, |r| r.index += 1), record),
        (
            "an order by its id",
            Box::new(|s| change(s, Table::Orders, &by_id, |r: &mut wire::OrderRecord| r.call = true)),
            record,
        ),
        (
            "an entry in between",
            gone(KEPT, 4),
            &[
                "network 500: next position: expected 4, found 5",
                "network 500: orders in its stream: expected 3, found 2",
            ],
        ),
        (
            "the last entry",
            gone(KEPT, 5),
            &[
                "network 500: first and last entry of its stream: expected (1, 5), found (1, 4)",
                "orders in its stream: expected 3, found 2",
            ],
        ),
        ("the first entry", gone(KEPT, 1), &["first and last entry of its stream: expected (1, 5), found (2, 5)"]),
        (
            "the only entry",
            gone(SKIPS, 1),
            &[
                "first and last entry of its stream: expected (1, 1), found (1, 0)",
                "orders in its stream: expected 1, found 0",
            ],
        ),
        (
            "an entry of the log",
            gone(IN_ORDER, 1),
            &["network 501: first and last entry of its stream: expected (1, 1), found (1, 0)"],
        ),
        (
            "an entry with another id",
            entry(KEPT, 3, |e| e.trx_id = vec![1; 32].into()),
            &["network 500, position 3: order: expected"],
        ),
        (
            "an entry with another order",
            entry(KEPT, 3, |e| e.index += 1),
            &["network 500, position 3: order: expected"],
        ),
        ("an entry with another batch", entry(KEPT, 3, |e| e.batch = 0), &["network 500, position 3: order: expected"]),
        (
            "an entry that is no order",
            entry(KEPT, 3, |e| e.event = wire::history_row::Event::Regactor as i32),
            &["orders in its stream: expected 3, found 2"],
        ),
        (
            "an end",
            network(KEPT, |n| n.entries += 1),
            &["first and last entry of its stream: expected (1, 6), found (1, 5)"],
        ),
        (
            "a beginning",
            network(KEPT, |n| n.pruned += 1),
            &["first and last entry of its stream: expected (2, 5), found (1, 5)"],
        ),
        (
            "a network",
            Box::new(|s| s.apply(&[Write::delete(Table::Networks, SKIPS.to_be_bytes())])),
            &[
                "expected network 502 to be known, found it is not",
                "network 502: expected a record of it, found a stream alone",
            ],
        ),
        ("a network's key", Box::new(|s| s.apply(&[Write::put(Table::Networks, [1; 7], [0; 0])])), &["not 8 bytes"]),
        ("a stream's key", Box::new(|s| s.apply(&[Write::put(Table::Stream, [1; 7], [0; 0])])), &["not 16 bytes"]),
        (
            "an order of the stream settled again",
            Box::new(|s| {
                let order: wire::OrderRecord = need_record(s, Table::Orders, &order_key(KEPT, 1, 1)).unwrap();
                let progress: wire::ProgressRecord =
                    need_record(s, Table::Progress, &order.batch.to_be_bytes()).unwrap();
                let position = s.iter(Table::Settled).count() as u64;
                let (root, count, bitmap) = (progress.root, progress.count, Bytes::from_static(&[1]));
                let entry = wire::SettledEntry { position, root, count, bitmap, ..Default::default() };
                s.apply(&[Write::put(Table::Settled, position.to_be_bytes(), entry.encode_to_vec())]);
            }),
            &[
                "expected one settled order at its seqnum, found it settled twice",
                "orders in its stream: expected 4, found 3",
                "totals: settled entries",
                "totals: orders",
                "totals: order records",
            ],
        ),
    ];
    check(&world, cases);
}

#[test]
fn notes_and_what_holds_them() {
    let world = world();
    let note = |at: usize, f: fn(&mut wire::NoteRecord)| -> Change<'_> {
        let key = nonce(&world.notes[at]);
        Box::new(move |s| change(s, Table::Notes, &key, f))
    };
    let record = |order: &Bytes, f: fn(&mut wire::OrderRecord)| -> Change<'_> {
        let key = order_id_key(NETWORK_ID, 0, &id(order));
        Box::new(move |s| change(s, Table::Orders, &key, f))
    };
    let batch = get_u64(world.state(), Table::Roots, &crate::merkle::root(&[id(&world.bearers[2])])).unwrap();
    assert!(batch.is_some(), "it has a batch of its own");
    let holds: &[&str] = &["expected the order that holds it at"];
    let waits: &[&str] = &["expected the order that waits for it at"];
    let spent: &[&str] = &[": note "];
    let cases: Vec<(&str, Change<'_>, &[&str])> = vec![
        ("spent by another", note(0, |n| n.order_id = vec![1; 32].into()), spent),
        ("spent elsewhere", note(0, |n| n.index += 1), spent),
        ("spent in another batch", note(0, |n| n.batch += 1), spent),
        (
            "spent after a recovery",
            note(0, |n| n.recoveries = 1),
            &[": note ", "voided seqnums and freed notes: expected 4, found 3"],
        ),
        ("not spent", note(0, |n| n.spent = false), &[": note ", "notes that are spent: expected 2, found 1"]),
        ("spent by nobody", note(1, |n| n.spent = true), &["notes that are spent: expected 2, found 3"]),
        ("held by another", note(1, |n| n.order_id = vec![1; 32].into()), holds),
        ("held elsewhere", note(1, |n| n.index += 1), holds),
        ("held by one that does not name it", note(1, |n| n.index = 0), holds),
        (
            "held after a recovery",
            note(1, |n| n.recoveries = 1),
            &["expected the order that holds it at", "voided seqnums and freed notes: expected 4, found 3"],
        ),
        ("waiting for another recovery", note(2, |n| n.early[0].seqnum = 1), waits),
        ("waiting elsewhere", note(2, |n| n.early[0].index = 1), waits),
        ("waiting in another batch", note(2, |n| n.early[0].batch = 0), waits),
        ("freed once more", note(3, |n| n.recoveries += 1), &["voided seqnums and freed notes: expected 4, found 3"]),
        ("an order elsewhere", record(&world.bearers[0], |r| r.index += 1), &["order record: expected"]),
        ("an order for the log", record(&world.bearers[0], |r| r.call = true), &["order record: expected"]),
        ("an order not for the log", record(&world.bearers[1], |r| r.call = false), &["order record: expected"]),
        ("a recovery not for the log", record(&world.bearers[2], |r| r.call = false), &["order record: expected"]),
        (
            "a note's key",
            Box::new(|s| s.apply(&[Write::put(Table::Notes, [1; 31], [0; 0])])),
            &["no note is kept there"],
        ),
        (
            "a blinded nonce's key",
            Box::new(|s| s.apply(&[Write::put(Table::Issued, [1; 47], 1_u64.to_be_bytes())])),
            &["no blinded nonce"],
        ),
        (
            "one more asked for",
            Box::new(|s| s.apply(&[Write::put(Table::Issued, [1; 48], 3_u64.to_be_bytes())])),
            &["blinded nonces that are asked for: expected 5, found 7"],
        ),
    ];
    check(&world, cases);
}

#[test]
fn batches_and_the_stream_of_what_is_settled() {
    let world = world();
    let of_alice: wire::OrderRecord =
        need_record(world.state(), Table::Orders, &order_key(NETWORK_ID, world.alice.actor(), 2)).unwrap();
    let key = of_alice.batch.to_be_bytes();
    let progress =
        |f: fn(&mut wire::ProgressRecord)| -> Change<'_> { Box::new(move |s| change(s, Table::Progress, &key, f)) };
    // The batch that was only voted on is the last one.
    let last = (world.state().iter(Table::Batches).count() as u64 - 1).to_be_bytes();
    let pending = move |f: fn(&mut wire::ProgressRecord)| -> Change<'_> {
        Box::new(move |s| change(s, Table::Progress, &last, f))
    };
    let by_log: &[&str] = &["expected settled orders as settled by the log, found others"];
    let cases: Vec<(&str, Change<'_>, &[&str])> = vec![
        ("settled by the log and not settled", pending(|p| p.by_log = Bytes::from_static(&[1])), by_log),
        ("none settled by the log", progress(|p| p.by_log = Bytes::from_static(&[0])), by_log),
        ("settled by the log in another batch", progress(|p| p.by_log = Bytes::from_static(&[1, 0])), by_log),
        ("settled by the log and by a certificate", progress(|p| p.by_log = Bytes::from_static(&[1])), &[]),
        (
            "settled by nobody",
            progress(|p| p.certificates.clear()),
            &[
                "order 0: settled, expected a certificate, found none that holds",
                "order 1: settled",
                "order 2: settled",
            ],
        ),
        (
            "settled by the log, in part",
            progress(|p| {
                p.certificates.clear();
                p.by_log = Bytes::from_static(&[0b101]);
            }),
            &["order 1: settled, expected a certificate, found none that holds"],
        ),
        (
            "by the votes of too few",
            progress(|p| p.certificates[0].votes.truncate(2)),
            &["order 0: settled", "order 1: settled", "order 2: settled"],
        ),
        (
            "taken back without having been settled",
            Box::new(move |s| {
                let progress: wire::ProgressRecord = need_record(s, Table::Progress, &last).unwrap();
                let position = s.iter(Table::Settled).count() as u64;
                let (root, count, bitmap) = (progress.root, progress.count, Bytes::from_static(&[1]));
                let entry = wire::SettledEntry { position, root, count, bitmap, undone: true, ..Default::default() };
                s.apply(&[Write::put(Table::Settled, position.to_be_bytes(), entry.encode_to_vec())]);
            }),
            &[
                "taken back, expected it settled before, found it was not",
                "credits of this shard's own orders",
                "totals: settled entries",
                "totals: orders",
                "totals: order records",
            ],
        ),
        (
            "totals that are gone",
            Box::new(|s| s.apply(&[Write::delete(Table::Meta, crate::authority::state::TOTALS_KEY)])),
            &[
                "totals: sent to other shards: expected 9, found 0",
                "totals: waiting orders: expected 2, found 0",
                "totals: notes issued and spent, by tier",
                "totals: expected a record, found none",
                "totals: batches",
                "totals: settled entries",
                "totals: credit records",
                "totals: orders",
                "totals: voided seqnums and freed notes",
                "totals: balances: expected -23, found 0",
            ],
        ),
    ];
    check(&world, cases);
}
