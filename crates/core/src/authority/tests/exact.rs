//! Limits of voting and settling, each at it and one over, and what is kept of what is not settled.

use prost::Message;

use super::settle::blind;
use super::*;
use crate::authority::changes::Changes;
use crate::authority::effect::Reply;
use crate::authority::hot::{Hot, Written};
use crate::authority::input::Input;
use crate::authority::state::{Account, Link, Write, link_key, outbox_key};
use crate::cash::testing::Purse;
use crate::limits::{NOTES_PER_BATCH_MAX, PENDING_WINDOW};
use crate::permission::Permission;

fn settle_blindly(cluster: &mut Cluster, orders: &[Bytes]) -> wire::SettleReply {
    let certificate = blind(cluster, orders, &[0, 1, 2], ((1_u32 << orders.len()) - 1) as u8);
    cluster.node(0, 0).settle(&certificate, orders).unwrap()
}

#[test]
fn an_order_twice_in_a_new_batch_settles_once_and_of_two_for_one_seqnum_the_first() {
    let (mut cluster, mut alice) = funded(100);
    let mut bob = Signer::new(2);
    cluster.fund(bob.address, 100);
    let mut twin = alice.clone();
    let order = alice.pay(&[to(bob.address, 10)], "");
    let other = bob.pay(&[to(alice.address, 1)], "");
    let reply = settle_blindly(&mut cluster, &[order.clone(), other, order]);
    assert_eq!((reply.acknowledgement.unwrap().bitmap[0], reply.waiting), (0b111, vec![]));
    assert_eq!((cluster.balance(0, &alice.address), cluster.balance(0, &bob.address)), (91, 109));
    let second = alice.pay(&[to(bob.address, 20)], "");
    twin.pay(&[to(bob.address, 10)], "");
    let rival = twin.pay(&[to(bob.address, 30)], "");
    let reply = settle_blindly(&mut cluster, &[second, rival]);
    assert_eq!((reply.acknowledgement.unwrap().bitmap[0], reply.waiting), (0b01, vec![]));
    assert_eq!(cluster.balance(0, &bob.address), 129);
}

#[test]
fn what_comes_early_is_kept_up_to_a_distance_and_a_number() {
    let window = 2 * PENDING_WINDOW as u32;
    let (mut cluster, mut alice) = funded(100);
    let first = alice.pay(&[to(alice.address, 1)], "");
    settle_blindly(&mut cluster, &[first]);
    let settled = alice.clone();
    let at = |seqnum: u32, prev_hash| {
        [Signer { seqnum: seqnum - 1, prev_hash, ..settled.clone() }.pay(&[to(settled.address, 1)], "")]
    };
    let early = |cluster: &mut Cluster, orders: &[Bytes]| {
        let reply = settle_blindly(cluster, orders);
        assert_eq!(reply.waiting, [wire::Waiting { index: 0, next_seqnum: 2 }]);
        let node = cluster.node(0, 0);
        let early = node.account(settled.actor()).early.len();
        assert_eq!(node.authority.totals(&node.state).unwrap().waiting, early as u64);
        early
    };
    assert_eq!(early(&mut cluster, &at(1 + window, 5)), 1);
    assert_eq!(early(&mut cluster, &at(2 + window, 5)), 1, "too far ahead");
    // Also one that names the last settled order, and leaves a seqnum out.
    for (prev_hash, expected) in [(settled.prev_hash, 2), (2, 3), (3, 4), (4, 5), (4, 5), (6, 5)] {
        assert_eq!(early(&mut cluster, &at(3, prev_hash)), expected, "four at one seqnum");
    }
    // One that does not follow what is settled may follow what a recovery puts there.
    assert_eq!(early(&mut cluster, &at(2, 5)), 6);
}

#[test]
fn a_batch_of_orders_that_have_all_settled_elsewhere_is_acknowledged_and_not_kept() {
    let (mut cluster, mut alice) = funded(1_000);
    let mut purse = cluster.make_cash(4);
    let notes = cluster.withdraw(&mut alice, &mut purse, &[0, 1]);
    let deposit = |i: usize| {
        let outputs = vec![crate::content::credit_output(&to(alice.address, 1 << i))];
        crate::bearer::build(NETWORK_ID, &[notes[i].spend()], outputs, "", None)
    };
    let (of_note, other_note) = (deposit(0), deposit(1));
    let pay = alice.pay(&[to(cluster.issuer.address, 1)], "");
    let recover = alice.recover();
    let next = alice.pay(&[to(cluster.issuer.address, 1)], "");
    cluster.run(&[of_note.clone(), pay.clone()]);
    let kept = count(cluster.node(0, 0), Table::Batches);
    let reply = settle_blindly(&mut cluster, &[pay.clone(), of_note.clone()]);
    assert_eq!(reply.acknowledgement.unwrap().bitmap[0], 0b11);
    assert_eq!(count(cluster.node(0, 0), Table::Batches), kept);
    // With anything new in it, it is kept.
    for (new, n) in [(&next, 1), (&other_note, 2), (&recover, 3)] {
        let reply = settle_blindly(&mut cluster, &[pay.clone(), new.clone()]);
        assert_eq!(reply.acknowledgement.unwrap().bitmap[0], 0b11);
        assert_eq!(count(cluster.node(0, 0), Table::Batches), kept + n);
    }
    let reply = settle_blindly(&mut cluster, &[recover, pay, next, other_note]);
    assert_eq!(reply.acknowledgement.unwrap().bitmap[0], 0b1111);
    assert_eq!(count(cluster.node(0, 0), Table::Batches), kept + 3);
}

#[test]
fn a_reply_shows_as_many_conflicting_orders_as_fit() {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let pay = |n: u64, amount| {
        let mut signer = Signer::new(n);
        let address = signer.address;
        signer.pay(&[to(address, amount)], "")
    };
    let outputs: Vec<_> = (1..=66).map(|n| to(Signer::new(n).address, 10)).collect();
    let fund = cluster.issuer.pay(&outputs, "");
    cluster.run(&[fund]);
    let held: Vec<Bytes> = (1..=66).map(|n| pay(n, 1)).collect();
    let others: Vec<Bytes> = (1..=66).map(|n| pay(n, 2)).collect();
    let node = cluster.node(0, 0);
    node.vote(&held).unwrap();
    let reply = node.vote(&others).unwrap();
    assert!(reply.errors.iter().all(|e| e.code == Code::PendingConflict as u32));
    let shown: Vec<bool> = reply.errors.iter().map(|e| !e.pending_order.is_empty()).collect();
    assert_eq!(shown, [vec![true; 64], vec![false; 2]].concat());
}

#[test]
fn an_account_below_zero_pays_nothing_and_may_change_its_keys() {
    let (mut cluster, mut alice) = funded(100);
    let open = alice.pay(&[to(alice.address, 1)], "");
    cluster.run(&[open]);
    // This authority has not heard of what she was paid, and settles what she pays with it.
    let node = cluster.node(0, 0);
    let mut account = node.account(alice.actor());
    account.holding_mut(&alice.address).balance = -1;
    let key = crate::authority::state::account_key(NETWORK_ID, alice.actor());
    node.state.apply(&[Write::put(Table::Accounts, key, account.encode())]);
    let pay = alice.clone().pay(&[to(alice.address, 1)], "");
    assert_eq!(refused(&node.vote(&[pay]).unwrap()), [(0, Code::InsufficientFunds)]);
    let key = secret(crate::keys::Curve::R1, 7);
    let change = alice.set_permission(&Permission::single(key.public()), vec![key]);
    assert_eq!(accepted(&node.vote(&[change]).unwrap()), 1);
}

#[test]
fn what_a_check_beforehand_has_not_looked_at_gets_no_vote() {
    let (mut cluster, mut alice) = funded(100);
    let mut purse = cluster.make_cash(4);
    let notes = cluster.withdraw(&mut alice, &mut purse, &[0, 1]);
    let orders: Vec<Bytes> = (0..2)
        .map(|i| {
            let outputs = vec![crate::content::credit_output(&to(alice.address, 1 << i))];
            crate::bearer::build(NETWORK_ID, &[notes[i].spend()], outputs, "", None)
        })
        .collect();
    let node = cluster.node(0, 0);
    let checks = node.authority.check_notes(NOW_US, &orders[..1], &node.state).unwrap();
    let Reply::Vote(reply) = node.step(Input::Vote { orders: orders.clone(), checks }).unwrap().reply else {
        panic!("a vote")
    };
    assert_eq!((accepted(&reply), refused(&reply)), (0b01, vec![(1, Code::Busy)]), "nobody has looked at the second");
    assert_eq!(accepted(&node.vote(&orders).unwrap()), 0b11);
    // Where no order spends notes there is nothing to check.
    let pay = [alice.pay(&[to(alice.address, 1)], "")];
    let checks = node.authority.check_notes(NOW_US, &pay, &node.state).unwrap();
    assert!(matches!(node.step(Input::Vote { orders: pay.to_vec(), checks }).unwrap().reply,
        Reply::Vote(reply) if accepted(&reply) == 1));
}

#[test]
fn payments_of_a_batch_ask_for_so_many_notes_and_no_more() {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let outputs: Vec<_> = (1..=10).map(|n| to(Signer::new(n).address, 1_000)).collect();
    let fund = cluster.issuer.pay(&outputs, "");
    cluster.run(&[fund]);
    let mut purse: Purse = cluster.make_cash(2);
    let asked = purse.ask(&[0]);
    let request = crate::bearer::NoteAsked::request(0, &asked[0].secrets.blinded());
    // The same blinded nonce in all, which is looked at once.
    let withdraw = |n: u64, notes: usize| {
        let mut signer = Signer::new(n);
        let content = crate::content::encode_withdraw(&[], &vec![request.clone(); notes], "", signer.open());
        signer.order(crate::content::TYPE_PAY, content)
    };
    assert_eq!(NOTES_PER_BATCH_MAX, 8 * 256);
    let mut orders: Vec<Bytes> = (1..=7).map(|n| withdraw(n, 256)).collect();
    orders.push(withdraw(8, 255));
    let fits: Vec<Bytes> = orders.iter().cloned().chain([withdraw(9, 1)]).collect();
    let reply = cluster.node(0, 0).vote(&fits).unwrap();
    assert_eq!(refused(&reply), []);
    let over: Vec<Bytes> = orders.into_iter().chain([withdraw(9, 2), withdraw(10, 1)]).collect();
    let reply = cluster.node(1, 0).vote(&over).unwrap();
    assert_eq!(refused(&reply), [(8, Code::Busy), (9, Code::Busy)]);
}

/// Puts credits for another shard in flight, and returns how many each delivery has.
fn deliveries(state: &mut MemState, credits: usize) -> Vec<(u64, usize)> {
    let memo = "m".repeat(256);
    let mut changes = Changes::new(NOW_US, state).unwrap();
    for output in 0..credits as u32 {
        let entry = wire::CreditEntry { output, amount: 1, memo: memo.clone(), ..Default::default() };
        let address = Bytes::from_static(&[9; 32]);
        changes.send(1, wire::DeliveredCredit { address, amount: 1, source: Some(entry) });
    }
    changes.totals.accounts -= credits as i128;
    let outcome = changes.finish(0).unwrap();
    state.apply(&outcome.writes);
    let sent = crate::authority::state::get_u64(state, Table::Links, &link_key(Link::Sent, 1)).unwrap();
    assert_eq!(outcome.outbox, sent.map(|sent| (1, sent)).into_iter().collect::<Vec<_>>());
    let mut found = Vec::new();
    for (key, value) in state.iter(Table::Outbox) {
        let delivery = wire::Delivery::decode(value.clone()).unwrap();
        assert_eq!((key, delivery.from_shard, delivery.to_shard), (&outbox_key(1, delivery.sequence)[..], 0, 1));
        assert!(delivery.encoded_len() < (1 << 20) + 1_000, "far below the largest message");
        found.push((delivery.sequence, delivery.credits.len()));
    }
    found
}

#[test]
fn what_is_sent_to_another_shard_is_cut_into_messages_that_are_numbered_on() {
    let mut state = MemState::default();
    assert_eq!(deliveries(&mut state, 1), [(1, 1)]);
    let found = deliveries(&mut state, 7_500);
    let [(1, 1), (2, a), (3, b), (4, rest)] = found[..] else { panic!("three parts, from 2 on: {found:?}") };
    assert!(a.abs_diff(b) <= 1 && rest < b && a + b + rest == 7_500, "{found:?}");
    let size = wire::DeliveredCredit {
        address: Bytes::from_static(&[9; 32]),
        amount: 1,
        source: Some(wire::CreditEntry { output: 3_000, amount: 1, memo: "m".repeat(256), ..Default::default() }),
    }
    .encoded_len();
    assert!(((1 << 20) / (size + 8)).abs_diff(a) <= 2, "as many as a mebibyte has: {a}");
    // No empty part comes after one that was just full.
    let mut state = MemState::default();
    assert_eq!(deliveries(&mut state, a), [(1, a)]);
    assert_eq!(deliveries(&mut state, 1), [(1, a), (2, 1)]);
}

#[test]
fn an_account_of_usual_size_stays_in_memory_and_a_larger_one_does_not() {
    let holding = size_of::<crate::authority::state::Holding>();
    let pending = size_of::<wire::PendingRecord>();
    let is_kept = |permission: usize, order_id: usize, open: usize| {
        let record = wire::PendingRecord {
            order_id: vec![1; order_id].into(),
            open: vec![2; open].into(),
            ..Default::default()
        };
        let mut account = Account { permission: vec![0; permission].into(), ..Account::default() };
        account.holding_mut(&Signer::new(1).address);
        account.holding_mut(&Signer::new(2).address);
        account.pending = vec![record; 2];
        let mut written = Written::default();
        written.push((7, 1), Box::new(account));
        let mut hot = Hot::default();
        hot.written(written);
        hot.take((7, 1)).is_some()
    };
    let rest = 1_024 - 2 * holding - 2 * pending;
    assert!(is_kept(rest, 0, 0) && !is_kept(rest + 1, 0, 0));
    assert!(is_kept(rest - 64, 32, 0) && !is_kept(rest - 63, 32, 0));
    assert!(is_kept(rest - 84, 32, 10) && !is_kept(rest - 83, 32, 10));
}
