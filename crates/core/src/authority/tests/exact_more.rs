//! What repeated, rival and half-settled orders leave behind: nothing more than they should.

use prost::Message;

use super::log_steps::tell;
use super::settle::blind;
use super::*;
use crate::authority::input::Input;
use crate::authority::state::{LOG, Link, Write, account_key, link_key, order_key, outbox_key};
use crate::bearer::build;
use crate::cash::testing::{Note, Purse};
use crate::content::credit_output;
use crate::envelope::Order;
use wire::log_step::Kind;

fn settle_blindly(cluster: &mut Cluster, orders: &[Bytes]) -> wire::SettleReply {
    let certificate = blind(cluster, orders, &[0, 1, 2], ((1_u32 << orders.len()) - 1) as u8);
    cluster.node(0, 0).settle(&certificate, orders).unwrap()
}

/// A committee with keys of e-cash of 4 tiers, and Alice with notes.
fn notes(tiers: &[u32]) -> (Cluster, Signer, Purse, Vec<Note>) {
    let (mut cluster, mut alice) = funded(1_000);
    let mut purse = cluster.make_cash(4);
    let notes = cluster.withdraw(&mut alice, &mut purse, tiers);
    (cluster, alice, purse, notes)
}

fn deposit(note: &Note, signer: &Signer) -> Bytes {
    build(NETWORK_ID, &[note.spend()], vec![credit_output(&to(signer.address, 1 << note.tier))], "", None)
}

#[test]
fn repeating_what_locks_nothing_new_costs_no_disk() {
    let (mut cluster, mut alice, _, notes) = notes(&[0, 1]);
    let orders = [deposit(&notes[0], &alice), deposit(&notes[1], &alice), alice.pay(&[to(alice.address, 1)], "")];
    let node = cluster.node(0, 0);
    for order in &orders {
        assert_eq!(accepted(&node.vote(std::slice::from_ref(order)).unwrap()), 1);
    }
    let before = node.state.clone();
    let other = [orders[1].clone(), orders[2].clone(), orders[0].clone()];
    assert_eq!(accepted(&node.vote(&other).unwrap()), 0b111);
    assert_eq!(node.state, before);
}

#[test]
fn a_bad_signature_beside_it_leaves_a_bearer_order_kept_with_its_batch() {
    let (mut cluster, mut alice, _, notes) = notes(&[0]);
    let order = deposit(&notes[0], &alice);
    let rival = deposit(&notes[0], &Signer::new(5));
    let bad = spoil(&alice.pay(&[to(Signer::new(9).address, 1)], ""));
    let node = cluster.node(0, 0);
    let batches = count(node, Table::Batches);
    let reply = node.vote(&[order.clone(), bad]).unwrap();
    assert_eq!((accepted(&reply), refused(&reply)), (0b01, vec![(1, Code::KeyMismatch)]));
    assert_eq!(count(node, Table::Batches), batches + 1);
    // So that whoever is refused for it sees what has its note.
    let reply = node.vote(&[rival]).unwrap();
    assert_eq!(refused(&reply), [(0, Code::NoteLocked)]);
    assert_eq!(reply.errors[0].pending_order, Order::decode(order).unwrap().body);
}

#[test]
fn who_never_voted_for_a_note_votes_for_what_has_settled_it_and_who_voted_for_another_does_not() {
    let (mut cluster, alice, _, notes) = notes(&[0, 1]);
    let orders: Vec<Bytes> = notes.iter().map(|note| deposit(note, &alice)).collect();
    let lost = deposit(&notes[1], &Signer::new(5));
    assert_eq!(accepted(&cluster.node(0, 0).vote(&[lost]).unwrap()), 1);
    settle_blindly(&mut cluster, &orders);
    let reply = cluster.node(0, 0).vote(&orders).unwrap();
    assert_eq!((accepted(&reply), refused(&reply)), (0b01, vec![(1, Code::NoteLocked)]));
}

#[test]
fn notes_of_tiers_that_there_are_and_of_the_first_that_there_is_not() {
    let (mut cluster, mut alice, mut purse, notes) = notes(&[3]);
    let asked = purse.ask(&[3, 4]);
    let node = cluster.node(0, 0);
    let order = alice.clone().withdraw(&asked[1..]);
    assert_eq!(refused(&node.vote(&[order]).unwrap()), [(0, Code::BadContent)]);
    let order = alice.withdraw(&asked[..1]);
    assert_eq!(accepted(&node.vote(&[order]).unwrap()), 1);
    let mut spend = notes[0].spend();
    spend.input.tier = 4;
    let order = build(NETWORK_ID, &[spend], vec![credit_output(&to(alice.address, 16))], "", None);
    let reply = node.vote(&[order]).unwrap();
    assert_eq!(refused(&reply), [(0, Code::BadContent)]);
    assert!(reply.errors[0].message.contains("below 4"), "{}", reply.errors[0].message);
}

#[test]
fn a_reply_has_what_is_settled_beside_what_waits() {
    let (mut cluster, mut alice) = funded(100);
    let mut bob = Signer::new(2);
    cluster.fund(bob.address, 100);
    alice.pay(&[to(bob.address, 1)], "missing here");
    let orders = [alice.pay(&[to(bob.address, 2)], ""), bob.pay(&[to(bob.address, 3)], "")];
    let reply = settle_blindly(&mut cluster, &orders);
    assert_eq!(reply.acknowledgement.unwrap().bitmap[0], 0b10);
    assert_eq!(reply.waiting, [wire::Waiting { index: 0, next_seqnum: 1 }]);
}

#[test]
fn a_request_to_recover_goes_to_the_log_once() {
    let (mut cluster, mut alice) = funded(100);
    let mut bob = Signer::new(2);
    cluster.fund(bob.address, 100);
    let recover = alice.recover();
    let recovers = |cluster: &Cluster| log_calls(&cluster.nodes[0][0]).iter().filter(|call| call.recover).count();
    settle_blindly(&mut cluster, std::slice::from_ref(&recover));
    assert_eq!(recovers(&cluster), 1);
    let again = [recover, bob.pay(&[to(alice.address, 1)], "")];
    assert_eq!(settle_blindly(&mut cluster, &again).acknowledgement.unwrap().bitmap[0], 0b11);
    assert_eq!(recovers(&cluster), 1);
    // The next seqnum is another one.
    let order = alice.pay(&[to(bob.address, 1)], "");
    settle_blindly(&mut cluster, &[order]);
    settle_blindly(&mut cluster, &[alice.recover()]);
    assert_eq!(recovers(&cluster), 2);
}

#[test]
fn who_has_no_money_asks_for_no_recovery_of_an_account_that_is_not_open() {
    let (mut cluster, mut alice) = funded(100);
    let all = alice.pay(&[to(cluster.issuer.address, 100)], "");
    cluster.run(&[all]);
    let node = cluster.node(0, 0);
    assert_eq!(
        accepted(&node.vote(&[alice.recover()]).unwrap()),
        1,
        "hers was open, and may be locked with nothing left"
    );
    assert_eq!(refused(&node.vote(&[Signer::new(9).recover()]).unwrap()), [(0, Code::InsufficientFunds)]);
    cluster.fund(Signer::new(9).address, 1);
    assert_eq!(accepted(&cluster.node(0, 0).vote(&[Signer::new(9).recover()]).unwrap()), 1);
}

#[test]
fn what_is_settled_already_stays_settled_by_its_certificate_when_the_log_says_so_too() {
    let (mut cluster, mut alice, _, notes) = notes(&[0]);
    let orders = [alice.pay(&[to(alice.address, 1)], ""), deposit(&notes[0], &alice)];
    settle_blindly(&mut cluster, &orders);
    let node = cluster.node(0, 0);
    let tables = |node: &Node| {
        [Table::Progress, Table::Settled, Table::Orders, Table::Batches]
            .map(|table| node.state.iter(table).map(|(key, value)| (key.to_vec(), value.clone())).collect::<Vec<_>>())
    };
    let before = tables(node);
    let bodies = orders.iter().map(|order| Order::decode(order.clone()).unwrap().body).collect();
    tell(node, vec![Kind::Settle(wire::LogSettle { bodies })]).unwrap();
    assert_eq!(tables(node), before);
}

#[test]
fn what_another_shard_has_applied_leaves_the_outbox_and_nothing_else_does() {
    let mut cluster = Cluster::new(&TestCommittee::new(4, 2));
    let node = cluster.node(0, 0);
    node.state.apply(&[Write::put(Table::Links, link_key(Link::Sent, 1), 5_u64.to_be_bytes())]);
    let acknowledged = |applied: u64| Write::put(Table::Links, link_key(Link::Acknowledged, 1), applied.to_be_bytes());
    let gone = |sequence| Write::delete(Table::Outbox, outbox_key(1, sequence));
    let mut writes = |applied| node.step(Input::Delivered { to_shard: 1, applied }).unwrap().writes;
    assert_eq!(writes(0), []);
    assert_eq!(writes(2), [gone(1), gone(2), acknowledged(2)]);
    assert_eq!(writes(2), []);
    assert_eq!(writes(1), []);
    assert_eq!(writes(5), [gone(3), gone(4), gone(5), acknowledged(5)]);
}

#[test]
fn a_delivery_out_of_order_is_told_which_is_next() {
    let mut cluster = Cluster::new(&TestCommittee::new(4, 2));
    let node = cluster.node(0, 0);
    let deliver = |node: &mut Node, sequence| {
        node.step(Input::Deliver(wire::Delivery { from_shard: 1, sequence, ..Default::default() })).map(|_| ())
    };
    deliver(node, 1).unwrap();
    let error = deliver(node, 3).unwrap_err();
    assert_eq!(error.message, "sequence of the delivery from shard 1: expected 2, found 3");
    let steps = vec![wire::LogStep { kind: Some(Kind::Freeze(wire::LogFreeze::default())) }];
    let step = wire::Delivery { from_shard: 1, sequence: 2, steps, ..Default::default() };
    assert_eq!(code(node.step(Input::Deliver(step)).map(|_| ())), Code::WrongShard, "only the log has steps");
    let calls = vec![wire::LogCall::default()];
    let call = wire::Delivery { from_shard: 1, sequence: 2, calls, ..Default::default() };
    assert_eq!(code(node.step(Input::Deliver(call)).map(|_| ())), Code::WrongShard, "calls are for the log");
    let unknown = wire::Delivery { from_shard: 2, sequence: 1, ..Default::default() };
    assert_eq!(code(node.step(Input::Deliver(unknown)).map(|_| ())), Code::WrongShard);
    deliver(node, 2).unwrap();
    node.step(Input::Deliver(wire::Delivery { from_shard: LOG, sequence: 1, ..Default::default() })).unwrap();
}

#[test]
fn a_shard_answers_for_its_own_accounts_alone() {
    let cluster = Cluster::new(&TestCommittee::new(4, 2));
    let node = &cluster.nodes[0][0];
    let (here, there) = (Signer::on_shard(0, 2, 1), Signer::on_shard(1, 2, 1));
    let ask = |signer: &Signer, network_id| {
        let (address, actor) = (Bytes::copy_from_slice(signer.address.as_bytes()), signer.actor());
        let account = wire::AccountRequest { network_id, address: address.clone() };
        let order = wire::OrderRequest { network_id, actor, seqnum: 1, ..Default::default() };
        let status = wire::OrderStatusRequest { network_id, actor, seqnum: 1, ..Default::default() };
        let credits = wire::CreditsRequest { network_id, address, ..Default::default() };
        [
            node.authority.account(&node.state, &account).err(),
            node.authority.credits(&node.state, &credits).err(),
            node.authority.order(&node.state, &order).err(),
            node.authority.order_status(&node.state, &status).err(),
        ]
        .map(|e| e.map(|e| e.code))
    };
    assert_eq!(ask(&here, NETWORK_ID), [None; 4]);
    assert_eq!(ask(&there, NETWORK_ID), [Some(Code::WrongShard); 4]);
    assert_eq!(ask(&here, NETWORK_ID + 1)[..2], [Some(Code::UnknownNetwork); 2]);
}

/// An order waits that another one has excluded: evidence against others, for whoever shows it. What the log says must
/// not wait for it; what is wrong with the disk must be said all the same.
#[test]
fn an_order_that_waited_and_was_excluded_stops_certificates_and_not_the_log() {
    let (mut cluster, mut alice) = funded(100);
    let first = alice.pay(&[to(cluster.issuer.address, 1)], "");
    settle_blindly(&mut cluster, &[first]);
    let mut twin = alice.clone();
    alice.pay(&[to(alice.address, 1)], "missing here");
    twin.pay(&[to(alice.address, 1)], "missing here");
    let (second, rival) = (alice.pay(&[to(alice.address, 1)], "second"), twin.pay(&[to(alice.address, 1)], "rival"));
    let (second_hash, third) = (alice.prev_hash, [alice.pay(&[to(alice.address, 1)], "third")]);
    for order in [&second, &rival] {
        assert_eq!(settle_blindly(&mut cluster, std::slice::from_ref(order)).waiting.len(), 1);
    }
    let node = cluster.node(0, 0);
    assert_eq!(node.account(alice.actor()).early.len(), 2);
    // As if the second had settled.
    let mut account = node.account(alice.actor());
    let batch = account.early[0].batch;
    (account.seqnum, account.prev_hash) = (3, second_hash);
    let id = Bytes::copy_from_slice(&Order::decode(second).unwrap().id);
    let record = wire::OrderRecord { order_id: id, batch, ..Default::default() };
    let key = order_key(NETWORK_ID, alice.actor(), 3);
    node.state.apply(&[
        Write::put(Table::Accounts, account_key(NETWORK_ID, alice.actor()), account.encode()),
        Write::put(Table::Orders, key, record.encode_to_vec()),
    ]);
    let before = node.state.clone();
    let certificate = blind(&cluster, &third, &[0, 1, 2], 1);
    let node = cluster.node(0, 0);
    assert_eq!(code(node.settle(&certificate, &third)), Code::ConflictingCertificate);
    assert_eq!(node.state, before);
    let body = Order::decode(third[0].clone()).unwrap().body;
    let settle = || vec![Kind::Settle(wire::LogSettle { bodies: vec![body.clone()] })];
    tell(node, settle()).unwrap();
    let account = node.account(alice.actor());
    assert_eq!((account.seqnum, account.early.len()), (4, 0));
    node.state = before;
    node.state.apply(&[Write::put(Table::Orders, key, [0xff])]);
    assert_eq!(code(tell(node, settle())), Code::StorageCorrupt);
}

#[test]
fn an_order_for_the_log_says_so_to_whoever_asks_by_its_id() {
    let (mut cluster, alice, _, notes) = notes(&[0, 1]);
    let recover = build(NETWORK_ID, &[notes[1].spend()], vec![], "", None);
    let orders = [deposit(&notes[0], &alice), recover];
    settle_blindly(&mut cluster, &orders);
    let node = cluster.node(0, 0);
    for (order, calls) in orders.iter().zip([false, true]) {
        let order_id = Bytes::copy_from_slice(&Order::decode(order.clone()).unwrap().id);
        let request = wire::OrderStatusRequest { network_id: NETWORK_ID, order_id, ..Default::default() };
        let status = node.authority.order_status(&node.state, &request).unwrap();
        assert_eq!((status.state(), status.calls), (wire::order_status::State::Settled, calls));
        let request = wire::OrderRequest { network_id: NETWORK_ID, order_id: request.order_id, ..Default::default() };
        let receipt = node.authority.order(&node.state, &request).unwrap().receipt.unwrap();
        assert_eq!((receipt.index, &receipt.transaction), (u32::from(calls), order));
    }
}
