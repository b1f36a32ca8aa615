//! Steps of the log at one shard: what it freezes, settles, voids and hands back, exactly.

use super::settle::blind;
use super::*;
use crate::authority::input::Input;
use crate::authority::recover_notes::held_note;
use crate::authority::state::{LOG, Link, Write, get_u64, link_key, need_record};
use crate::bearer::build;
use crate::cash::testing::Note;
use crate::content::credit_output;
use crate::envelope::Order;
use wire::log_step::Kind;

/// The next delivery of the log to a shard.
pub(super) fn tell(node: &mut Node, steps: Vec<Kind>) -> Result<()> {
    let applied = get_u64(&node.state, Table::Links, &link_key(Link::Applied, LOG))?.unwrap_or(0);
    let steps = steps.into_iter().map(|kind| wire::LogStep { kind: Some(kind) }).collect();
    let (to_shard, sequence) = (node.authority.shard(), applied + 1);
    let delivery = wire::Delivery { from_shard: LOG, to_shard, sequence, steps, ..Default::default() };
    node.step(Input::Deliver(delivery)).map(|_| ())
}

fn body(order: &Bytes) -> Bytes {
    Order::decode(order.clone()).unwrap().body
}

fn id(order: &Bytes) -> Bytes {
    Bytes::copy_from_slice(&Order::decode(order.clone()).unwrap().id)
}

fn settle(orders: &[&Bytes]) -> Kind {
    Kind::Settle(wire::LogSettle { bodies: orders.iter().map(|order| body(order)).collect() })
}

fn freeze(signer: &Signer, seqnum: u32) -> Kind {
    Kind::Freeze(wire::LogFreeze { network_id: NETWORK_ID, actor: signer.actor(), seqnum })
}

fn void(signer: &Signer, seqnum: u32) -> Kind {
    let (network_id, actor) = (NETWORK_ID, signer.actor());
    Kind::Resolve(wire::LogResolve { network_id, actor, seqnum, void: true, prev_hash: 99, ..Default::default() })
}

fn calls(cluster: &Cluster) -> Vec<wire::LogCall> {
    log_calls(&cluster.nodes[0][0])
}

fn of(signer: &Signer, seqnum: u32) -> wire::LogCall {
    wire::LogCall { network_id: NETWORK_ID, actor: signer.actor(), seqnum, ..Default::default() }
}

/// Settles at authority 0 what nobody has voted for.
fn settle_blindly(cluster: &mut Cluster, orders: &[Bytes]) -> wire::SettleReply {
    let certificate = blind(cluster, orders, &[0, 1, 2], ((1_u32 << orders.len()) - 1) as u8);
    cluster.node(0, 0).settle(&certificate, orders).unwrap()
}

/// Three accounts with money.
fn three() -> (Cluster, [Signer; 3]) {
    let (mut cluster, alice) = funded(100);
    let (bob, carol) = (Signer::new(2), Signer::new(3));
    cluster.fund(bob.address, 100);
    cluster.fund(carol.address, 100);
    (cluster, [alice, bob, carol])
}

#[test]
fn what_the_log_settles_is_settled_where_it_is_kept() {
    let (mut cluster, [mut alice, mut bob, mut carol]) = three();
    let pay = |signer: &mut Signer| signer.pay(&[to(cluster.issuer.address, 1)], "");
    let orders = [pay(&mut alice), pay(&mut bob)];
    let elsewhere = pay(&mut carol);
    let node = cluster.node(0, 0);
    node.vote(&orders).unwrap();
    let batches = count(node, Table::Batches);
    // Bob's is kept at 1 of the batch; a body that is not kept gets a batch of its own, once.
    tell(node, vec![settle(&[&orders[1], &elsewhere, &elsewhere]), settle(&[&orders[1], &elsewhere])]).unwrap();
    assert_eq!(count(node, Table::Batches), batches + 1);
    for (signer, seqnum) in [(&alice, 0), (&bob, 1), (&carol, 1)] {
        assert_eq!(node.account(signer.actor()).seqnum, seqnum);
    }
    let request = wire::OrderRequest { network_id: NETWORK_ID, actor: bob.actor(), seqnum: 1, ..Default::default() };
    let receipt = node.authority.order(&node.state, &request).unwrap().receipt.unwrap();
    assert_eq!((receipt.index, receipt.count, receipt.transaction), (1, 2, orders[1].clone()));
    let end = node.authority.totals(&node.state).unwrap().next.1;
    let entries = node.authority.follow(&node.state, end - 2, end).unwrap().entries;
    let said: Vec<_> = entries.iter().map(|e| (e.by_log, e.undone, e.count, e.bitmap[0])).collect();
    assert_eq!(said, [(true, false, 2, 0b10), (true, false, 1, 1)]);
    // What it has settled itself is in no log yet, what the log has said is.
    assert_eq!(calls(&cluster), []);
}

#[test]
fn a_body_that_waits_for_another_is_kept_once_however_often_it_comes() {
    let (mut cluster, [mut alice, mut bob, _]) = three();
    let mut twin = alice.clone();
    let first = alice.pay(&[to(bob.address, 1)], "");
    let other = twin.pay(&[to(bob.address, 2)], "");
    let second = alice.pay(&[to(bob.address, 3)], "");
    let bobs = bob.pay(&[to(alice.address, 50)], "");
    let node = cluster.node(0, 0);
    let batches = count(node, Table::Batches);
    tell(node, vec![settle(&[&second, &second])]).unwrap();
    tell(node, vec![settle(&[&second])]).unwrap();
    assert_eq!((count(node, Table::Batches), node.account(alice.actor()).early.len()), (batches + 1, 1));
    assert_eq!(node.authority.totals(&node.state).unwrap().waiting, 1);
    // Two certified orders for one seqnum: the second is evidence against others, and holds nothing up. It is kept once, too.
    tell(node, vec![settle(&[&first, &other, &other, &bobs])]).unwrap();
    tell(node, vec![settle(&[&other])]).unwrap();
    assert_eq!((node.account(alice.actor()).seqnum, node.account(bob.actor()).seqnum), (2, 1));
    assert_eq!(count(node, Table::Batches), batches + 4);
    assert_eq!(cluster.balance(0, &bob.address), 54);
    assert_eq!(cluster.balance(0, &alice.address), 146);
}

#[test]
fn what_waits_already_is_known_where_it_is_kept() {
    let (mut cluster, [mut alice, mut bob, _]) = three();
    alice.pay(&[to(bob.address, 1)], "missing here");
    let rival = [alice.clone().pay(&[to(bob.address, 2)], "rival")];
    let orders = [bob.pay(&[to(alice.address, 1)], ""), alice.pay(&[to(bob.address, 3)], "")];
    settle_blindly(&mut cluster, &rival);
    settle_blindly(&mut cluster, &orders);
    let node = cluster.node(0, 0);
    let before = (count(node, Table::Batches), node.account(alice.actor()).early);
    assert_eq!(before.1.iter().map(|e| e.index).collect::<Vec<_>>(), [0, 1]);
    tell(node, vec![settle(&[&orders[1]])]).unwrap();
    assert_eq!((count(node, Table::Batches), node.account(alice.actor()).early), before);
}

#[test]
fn a_freeze_shows_what_is_certified_at_the_seqnum_and_nothing_else() {
    let (mut cluster, [mut alice, mut bob, _]) = three();
    let batch_of = |cluster: &Cluster, order: &Bytes| {
        let root = crate::merkle::root(&[id(order).as_ref().try_into().unwrap()]);
        get_u64(&cluster.nodes[0][0].state, Table::Roots, &root).unwrap()
    };
    let orders = [bob.pay(&[to(alice.address, 1)], ""), alice.pay(&[to(bob.address, 1)], "")];
    settle_blindly(&mut cluster, &orders);
    let batch = cluster.nodes[0][0].authority.totals(&cluster.nodes[0][0].state).unwrap().next.0 - 1;
    let shown = |cluster: &mut Cluster, signer: &Signer, seqnum| {
        let before = calls(cluster).len();
        tell(cluster.node(0, 0), vec![freeze(signer, seqnum)]).unwrap();
        calls(cluster).split_off(before)
    };
    // Settled, at 1 of its batch.
    let report = |signer: &Signer, seqnum| wire::LogCall { report: true, ..of(signer, seqnum) };
    let place = |batch, index, call: wire::LogCall| wire::LogCall { batch, index, shown: true, ..call };
    assert_eq!(shown(&mut cluster, &alice, 1), [place(batch, 1, of(&alice, 1)), report(&alice, 1)]);
    // Not settled yet.
    assert_eq!(shown(&mut cluster, &bob, 2), [report(&bob, 2)]);
    // What comes now waits; at the seqnum itself it is shown, once.
    let next = bob.pay(&[to(alice.address, 2)], "");
    let after = bob.pay(&[to(alice.address, 3)], "");
    for (order, expected) in [(&after, None), (&next, Some(2)), (&next, None)] {
        let before = calls(&cluster).len();
        let reply = settle_blindly(&mut cluster, std::slice::from_ref(order));
        assert_eq!((reply.acknowledgement, reply.waiting.len()), (None, 1));
        let number = batch_of(&cluster, order).unwrap();
        let expected: Vec<_> = expected.map(|seqnum| place(number, 0, of(&bob, seqnum))).into_iter().collect();
        assert_eq!(calls(&cluster).split_off(before), expected);
    }
    // Those that wait already are shown by the freeze: one at the seqnum, not the one above it.
    let number = batch_of(&cluster, &next).unwrap();
    assert_eq!(shown(&mut cluster, &bob, 2), [place(number, 0, of(&bob, 2)), report(&bob, 2)]);
    // Settled as well, if the freeze is below.
    let resolve = wire::LogResolve { network_id: NETWORK_ID, actor: bob.actor(), seqnum: 2, ..Default::default() };
    tell(cluster.node(0, 0), vec![Kind::Resolve(resolve)]).unwrap();
    assert_eq!(cluster.node(0, 0).account(bob.actor()).seqnum, 3);
    let node = cluster.node(0, 0);
    assert_eq!(node.authority.totals(&node.state).unwrap().waiting, 0);
    assert_eq!(shown(&mut cluster, &bob, 3).len(), 2);
    assert_eq!(shown(&mut cluster, &bob, 4), [report(&bob, 4)]);
}

#[test]
fn what_is_voided_is_taken_back_to_the_unit_and_followers_see_it() {
    let (mut cluster, [mut alice, bob, _]) = three();
    let credit = |amount| wire::Credit { address: Bytes::copy_from_slice(bob.address.as_bytes()), amount };
    let mut call = |amount| alice.call(vec![], vec![wire::output::Kind::Credit(credit(amount))]);
    let (first, second) = (call(5), call(30));
    settle_blindly(&mut cluster, std::slice::from_ref(&first));
    let before = cluster.node(0, 0).account(alice.actor());
    let node = cluster.node(0, 0);
    assert_eq!((node.authority.totals(&node.state).unwrap().sent, before.last_call), (5, 1));
    let key = secret(crate::keys::Curve::R1, 7);
    let old = before.permission.clone();
    let third = alice.set_permission(&crate::permission::Permission::single(key.public()), vec![key]);
    settle_blindly(&mut cluster, &[second.clone(), third]);
    let node = cluster.node(0, 0);
    let account = node.account(alice.actor());
    assert_eq!((account.seqnum, account.last_call), (3, 2));
    assert_ne!(account.permission, old);
    assert_eq!(node.authority.totals(&node.state).unwrap().sent, 35);
    // A hole is refused: seqnum 4 follows 3, 5 does not.
    assert_eq!(code(tell(node, vec![freeze(&alice, 5), void(&alice, 5)])), Code::OutOfOrder);
    tell(node, vec![freeze(&alice, 2), void(&alice, 2)]).unwrap();
    let after = node.account(alice.actor());
    assert_eq!((after.seqnum, after.last_call, after.voided, after.frozen, after.prev_hash), (2, 1, 2, 0, 99));
    assert_eq!(after.permission, old);
    let totals = node.authority.totals(&node.state).unwrap();
    assert_eq!((totals.sent, totals.voided, totals.sum()), (5, 1, 0));
    // Peers that follow have nothing to fetch of it.
    let end = totals.next.1;
    let entries = node.authority.follow(&node.state, 0, end).unwrap().entries;
    let taken: Vec<_> = entries.iter().rev().take(4).map(|e| (e.undone, e.bitmap[0])).collect();
    assert_eq!(taken, [(true, 0), (true, 0), (false, 0), (false, 1)], "two taken back, their batch, the first CALL");
    for entry in &entries {
        assert!(!node.authority.missing(&node.state, entry).unwrap());
    }
    assert_eq!(cluster.balance(0, &alice.address), 95);
    // The next seqnum that may be voided is the next one.
    let node = cluster.node(0, 0);
    tell(node, vec![freeze(&alice, 3), void(&alice, 3)]).unwrap();
    assert_eq!(node.account(alice.actor()).voided, 3);
}

/// Alice's notes, which are of a committee that has keys of e-cash.
fn notes(tiers: &[u32]) -> (Cluster, Signer, Vec<Note>) {
    let (mut cluster, mut alice) = funded(1_000);
    let mut purse = cluster.make_cash(4);
    let notes = cluster.withdraw(&mut alice, &mut purse, tiers);
    (cluster, alice, notes)
}

fn deposit(notes: &[Note], signer: &Signer, memo: &str) -> Bytes {
    let amount = notes.iter().map(|n| 1 << n.tier).sum();
    let spends: Vec<_> = notes.iter().map(Note::spend).collect();
    build(NETWORK_ID, &spends, vec![credit_output(&to(signer.address, amount))], memo, None)
}

fn nonce(note: &Note) -> Bytes {
    Bytes::copy_from_slice(&note.secrets.nonce().0)
}

fn record(cluster: &Cluster, note: &Note) -> wire::NoteRecord {
    need_record(&cluster.nodes[0][0].state, Table::Notes, &nonce(note)).unwrap_or_default()
}

fn naming(note: &Note, recoveries: u32) -> Note {
    Note { recoveries, ..note.clone() }
}

fn free(note: &Note, recoveries: u32) -> Kind {
    Kind::ResolveNote(wire::LogResolveNote { nonce: nonce(note), recoveries, void: true })
}

fn freeze_note(note: &Note) -> Kind {
    Kind::FreezeNote(wire::LogFreezeNote { nonce: nonce(note) })
}

#[test]
fn bearer_orders_settle_where_they_are_kept() {
    let (mut cluster, alice, notes) = notes(&[0, 1, 2]);
    let orders: Vec<Bytes> = notes.iter().map(|n| deposit(std::slice::from_ref(n), &alice, "")).collect();
    let node = cluster.node(0, 0);
    node.vote(&orders[..2]).unwrap();
    let batches = count(node, Table::Batches);
    tell(node, vec![settle(&[&orders[1]])]).unwrap();
    assert_eq!(count(node, Table::Batches), batches, "at 1 of the batch that was voted on");
    tell(node, vec![settle(&[&orders[2], &orders[2]])]).unwrap();
    assert_eq!(count(node, Table::Batches), batches + 1);
    let request = |order| wire::OrderRequest { network_id: NETWORK_ID, order_id: id(order), ..Default::default() };
    for (order, place) in [(&orders[1], (1, 2)), (&orders[2], (0, 1))] {
        let receipt = node.authority.order(&node.state, &request(order)).unwrap().receipt.unwrap();
        assert_eq!(((receipt.index, receipt.count), body(&receipt.transaction)), (place, body(order)));
    }
    let none = node.authority.order(&node.state, &request(&orders[0])).unwrap();
    assert_eq!(none, wire::OrderReply::default());
    let short = wire::OrderRequest { order_id: id(&orders[0]).slice(1..), ..request(&orders[0]) };
    assert_eq!(code(node.authority.order(&node.state, &short)), Code::Decode);
    // What it becomes of, for whoever asks by its id.
    let status = |order| {
        let request = wire::OrderStatusRequest { network_id: NETWORK_ID, order_id: id(order), ..Default::default() };
        let status = node.authority.order_status(&node.state, &request).unwrap();
        (status.state(), status.order_id, status.calls)
    };
    use wire::order_status::State as S;
    assert_eq!(status(&orders[1]), (S::Settled, id(&orders[1]), false));
    assert_eq!(status(&orders[0]), (S::Unknown, Bytes::new(), false));
    let request =
        wire::OrderStatusRequest { network_id: NETWORK_ID, order_id: Bytes::from_static(b"x"), ..Default::default() };
    assert_eq!(code(node.authority.order_status(&node.state, &request)), Code::Decode);
    // The one that is not settled waits when its note is frozen, and settles from there on the log's word.
    tell(node, vec![freeze_note(&notes[0])]).unwrap();
    let reply = settle_blindly(&mut cluster, &orders[..1]);
    assert_eq!(reply.acknowledgement, None);
    let early = record(&cluster, &notes[0]).early;
    let batches = count(cluster.node(0, 0), Table::Batches);
    assert_eq!(early, [wire::EarlyRecord { batch: batches as u64 - 1, ..Default::default() }]);
    let node = cluster.node(0, 0);
    // As it is kept where its note says, not where the authority had voted for it.
    tell(node, vec![settle(&[&orders[0]])]).unwrap();
    assert_eq!(count(node, Table::Batches), batches);
    let receipt = node.authority.order(&node.state, &request_of(&orders[0])).unwrap().receipt.unwrap();
    assert_eq!((receipt.index, receipt.count), (0, 1));
    assert!(record(&cluster, &notes[0]).spent && record(&cluster, &notes[0]).early.is_empty());
}

fn request_of(order: &Bytes) -> wire::OrderRequest {
    wire::OrderRequest { network_id: NETWORK_ID, order_id: id(order), ..Default::default() }
}

#[test]
fn a_frozen_note_shows_its_certified_order() {
    let (mut cluster, alice, notes) = notes(&[0, 1, 2]);
    let report = |note: &Note, recoveries| wire::LogCall {
        network_id: NETWORK_ID,
        seqnum: recoveries,
        nonce: nonce(note),
        report: true,
        ..Default::default()
    };
    let shown = |note: &Note, order: &Bytes, batch, index| wire::LogCall {
        network_id: NETWORK_ID,
        order_id: id(order),
        nonce: nonce(note),
        shown: true,
        batch,
        index,
        ..Default::default()
    };
    let news = |cluster: &mut Cluster, step: Kind| {
        let before = calls(cluster).len();
        tell(cluster.node(0, 0), vec![step]).unwrap();
        calls(cluster).split_off(before)
    };
    let orders = [deposit(&notes[..1], &alice, ""), deposit(&notes[1..2], &alice, "")];
    settle_blindly(&mut cluster, &orders);
    let batch = count(cluster.node(0, 0), Table::Batches) as u64 - 1;
    let step = freeze_note(&notes[1]);
    assert_eq!(news(&mut cluster, step), [shown(&notes[1], &orders[1], batch, 1), report(&notes[1], 0)]);
    let step = freeze_note(&notes[2]);
    assert_eq!(news(&mut cluster, step), [report(&notes[2], 0)]);
    // One that comes later is shown when it comes, once.
    let beside = alice.clone().pay(&[to(alice.address, 1)], "");
    let late = [beside, deposit(&notes[2..], &alice, "")];
    for expected in [vec![shown(&notes[2], &late[1], batch + 1, 1)], vec![]] {
        let before = calls(&cluster).len();
        assert_eq!(settle_blindly(&mut cluster, &late).acknowledgement.unwrap().bitmap[0], 0b01);
        assert_eq!(calls(&cluster).split_off(before), expected);
    }
    let step = freeze_note(&notes[2]);
    assert_eq!(news(&mut cluster, step), [shown(&notes[2], &late[1], batch + 1, 1), report(&notes[2], 0)]);
    // A recovery that finds it settles it.
    let settled = Kind::ResolveNote(wire::LogResolveNote { nonce: nonce(&notes[2]), ..Default::default() });
    assert_eq!(news(&mut cluster, settled), []);
    let note = record(&cluster, &notes[2]);
    assert_eq!((note.spent, note.frozen, note.early, note.order_id), (true, false, vec![], id(&late[1])));
    assert_eq!(cluster.balance(0, &alice.address), 1_000);
    let wrong = Kind::FreezeNote(wire::LogFreezeNote { nonce: Bytes::from_static(&[1; 31]) });
    assert_eq!(code(tell(cluster.node(0, 0), vec![wrong])), Code::Decode);
}

#[test]
fn a_freed_note_forgets_what_it_was_freed_from_and_keeps_what_names_the_recovery() {
    let (mut cluster, alice, notes) = notes(&[0, 1]);
    let both = |recoveries| {
        let named: Vec<Note> = notes.iter().map(|note| naming(note, recoveries)).collect();
        [deposit(&named, &alice, "both")]
    };
    let one = |recoveries| [deposit(&[naming(&notes[0], recoveries)], &alice, "one")];
    let early = |cluster: &Cluster| {
        [0, 1].map(|i| record(cluster, &notes[i]).early.iter().map(|e| e.seqnum).collect::<Vec<_>>())
    };
    tell(cluster.node(0, 0), vec![freeze_note(&notes[0])]).unwrap();
    // Each of these waits: for the freeze to end, or for recoveries that are not known here yet. At most 4 for a note, and one
    // for each number.
    for orders in [both(0), one(0), one(1), one(2), one(2), both(3), one(4)] {
        let reply = settle_blindly(&mut cluster, &orders);
        assert_eq!((reply.acknowledgement, reply.waiting.len()), (None, 1));
    }
    assert_eq!(early(&cluster), [vec![0, 1, 2, 3], vec![0, 3]]);
    // Recoveries are counted one by one.
    for wrong in [0, 2] {
        assert_eq!(code(tell(cluster.node(0, 0), vec![free(&notes[0], wrong)])), Code::OutOfOrder);
    }
    // What names the one that is over now settles, what was before it is forgotten by all of its notes, and the others wait on.
    tell(cluster.node(0, 0), vec![free(&notes[0], 1)]).unwrap();
    assert_eq!(early(&cluster), [vec![2, 3], vec![3]]);
    let first = record(&cluster, &notes[0]);
    assert_eq!((first.recoveries, first.spent, first.frozen), (1, true, false));
    assert_eq!(first.order_id, id(&one(1)[0]));
    assert_eq!(record(&cluster, &notes[1]).order_id, Bytes::new());
    assert_eq!(cluster.balance(0, &alice.address), 998);
    let node = cluster.node(0, 0);
    let totals = node.authority.totals(&node.state).unwrap();
    assert_eq!((totals.voided, totals.outstanding()), (1, 2));
    // One that was settled is taken back by the next, and the one that names that one settles.
    tell(cluster.node(0, 0), vec![freeze_note(&notes[0]), free(&notes[0], 2)]).unwrap();
    assert_eq!(early(&cluster), [vec![3], vec![3]]);
    let first = record(&cluster, &notes[0]);
    assert_eq!((first.recoveries, first.spent, first.order_id), (2, true, id(&one(2)[0])));
    assert_eq!(cluster.balance(0, &alice.address), 998);
    // What was freed never settles.
    let reply = settle_blindly(&mut cluster, &both(0));
    assert_eq!((reply.acknowledgement, reply.waiting), (None, vec![]));
}

#[test]
fn an_order_of_the_log_that_names_a_recovery_which_is_not_over_is_evidence_and_nothing_more() {
    let (mut cluster, alice, notes) = notes(&[0]);
    let before = record(&cluster, &notes[0]);
    let order = deposit(&[naming(&notes[0], 1)], &alice, "");
    tell(cluster.node(0, 0), vec![settle(&[&order])]).unwrap();
    assert_eq!(record(&cluster, &notes[0]), before);
    assert_eq!(cluster.balance(0, &alice.address), 999);
}

#[test]
fn an_order_of_a_freed_note_whose_other_note_is_spent_holds_nothing_up() {
    let (mut cluster, alice, notes) = notes(&[0, 1]);
    settle_blindly(&mut cluster, &[deposit(&notes[1..], &alice, "")]);
    let before = calls(&cluster).len();
    let both = [deposit(&[naming(&notes[0], 1), notes[1].clone()], &alice, "both")];
    assert_eq!(settle_blindly(&mut cluster, &both).waiting.len(), 1);
    assert_eq!(calls(&cluster).len(), before, "no recovery looks for it");
    tell(cluster.node(0, 0), vec![freeze_note(&notes[0]), free(&notes[0], 1)]).unwrap();
    let note = record(&cluster, &notes[0]);
    assert_eq!((note.recoveries, note.spent, note.frozen), (1, false, false));
    assert_eq!(cluster.balance(0, &alice.address), 999);
}

#[test]
fn what_a_report_says_of_a_note() {
    let early = |seqnum, batch| wire::EarlyRecord { seqnum, batch, index: 3, ..Default::default() };
    let frozen = wire::NoteRecord {
        frozen: true,
        recoveries: 2,
        batch: 7,
        index: 1,
        early: vec![early(1, 4), early(2, 5), early(3, 6)],
        ..Default::default()
    };
    assert_eq!(held_note(&frozen, 2), Some(Some((5, 3))));
    assert_eq!(held_note(&wire::NoteRecord { spent: true, ..frozen.clone() }, 2), Some(Some((7, 1))));
    assert_eq!(held_note(&wire::NoteRecord { early: vec![early(1, 4)], ..frozen.clone() }, 2), Some(None));
    assert_eq!(held_note(&frozen, 1), None, "of another recovery");
    assert_eq!(held_note(&wire::NoteRecord { frozen: false, ..frozen }, 2), None, "of one that is over");
}

#[test]
fn a_lost_record_is_named_and_nothing_is_made_up_for_it() {
    let (mut cluster, [mut alice, bob, _]) = three();
    let order = [alice.pay(&[to(bob.address, 1)], "")];
    settle_blindly(&mut cluster, &order);
    let key = crate::authority::state::order_key(NETWORK_ID, alice.actor(), 1);
    cluster.node(0, 0).state.apply(&[Write::delete(Table::Orders, key)]);
    // A request to recover that was settled here, and whose batch has lost how far it had come.
    let recover = alice.recover();
    settle_blindly(&mut cluster, std::slice::from_ref(&recover));
    let node = cluster.node(0, 0);
    let last = count(node, Table::Batches) as u64 - 1;
    node.state.apply(&[Write::delete(Table::Progress, last.to_be_bytes())]);
    for steps in [vec![settle(&[&recover])], vec![freeze(&alice, 1)], vec![freeze(&alice, 2), void(&alice, 1)]] {
        let node = cluster.node(0, 0);
        let before = node.state.clone();
        assert_eq!(code(tell(node, steps)), Code::StorageCorrupt);
        assert_eq!(node.state, before);
    }
}

#[test]
fn a_lost_record_of_what_a_note_waits_for_is_named() {
    let (mut cluster, alice, notes) = notes(&[0]);
    tell(cluster.node(0, 0), vec![freeze_note(&notes[0])]).unwrap();
    settle_blindly(&mut cluster, &[deposit(&notes, &alice, "")]);
    let node = cluster.node(0, 0);
    let last = (count(node, Table::Batches) as u64 - 1).to_be_bytes();
    let found = Kind::ResolveNote(wire::LogResolveNote { nonce: nonce(&notes[0]), ..Default::default() });
    let clean = node.state.clone();
    for table in [Table::Progress, Table::Batches] {
        node.state = clean.clone();
        node.state.apply(&[Write::delete(table, last)]);
        let before = node.state.clone();
        assert_eq!(code(tell(node, vec![found.clone()])), Code::StorageCorrupt, "{}", table.name());
        assert_eq!(node.state, before);
    }
    node.state = clean;
    tell(node, vec![found]).unwrap();
}
