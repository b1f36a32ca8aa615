//! What an authority's shards hand to its log: items that fit, reports that are true, and turns that all agree on.

use prost::Message;

use super::*;
use crate::authority::input::Input;
use crate::batch::decode_batch;
use crate::bitmap::Bitmap;
use crate::certificate::{Promise, sign};
use crate::limits::UNIT_BYTES_MAX;
use crate::ordered::item::{Offer, pack};
use crate::wire::LogCall;

/// Accounts with money at authority 0 of a cluster with one shard.
fn rich(accounts: u64) -> (Cluster, Vec<Signer>) {
    let committee = TestCommittee { genesis_hash: [1; 32], issuer_limit: 1 << 40, ..TestCommittee::new(4, 1) };
    let mut cluster = Cluster::new(&committee);
    let signers: Vec<Signer> = (1..=accounts).map(Signer::new).collect();
    let lines: Vec<_> = signers.iter().map(|s| (s.address, 1 << 20)).collect();
    for node in cluster.nodes.iter_mut().flatten() {
        node.step(Input::Genesis { first_line: 0, lines: lines.clone(), last: true }).unwrap();
    }
    (cluster, signers)
}

/// Settles a batch at authority 0 alone, and returns what it offers to the log for it.
fn offers(cluster: &mut Cluster, orders: &[Bytes]) -> Vec<Offer> {
    let id = decode_batch(orders).unwrap().id;
    let all = Bitmap::full(orders.len());
    let votes = (0..).zip(&cluster.keys).map(|(i, key)| sign(Promise::Vote, &cluster.committee, i, key, &id, &all));
    let certificate = cluster.certificate(orders, votes.collect());
    let node = &mut cluster.nodes[0][0];
    let before = log_calls(node).len();
    node.settle(&certificate, orders).unwrap();
    let calls = &log_calls(node)[before..];
    let offers = node.authority.log_items(&node.state, calls).unwrap();
    let mut served: Vec<usize> = offers.iter().flat_map(|o| o.calls.clone()).collect();
    served.sort_unstable();
    assert_eq!(served, (0..calls.len()).collect::<Vec<_>>(), "each call once");
    let kept: usize = pack(1, offers.iter().map(|o| o.item.clone()).collect())
        .into_iter()
        .map(|unit| wire::UnitData::decode(unit).unwrap().items.len())
        .sum();
    assert_eq!(kept, offers.len(), "each fits into a unit");
    offers
}

/// Large orders of a batch share an item until no other one fits, with the proof that they are of their batch.
#[test]
fn an_item_is_as_full_as_a_unit_allows_and_no_fuller() {
    const CALLS: usize = 10;
    let (mut cluster, mut signers) = rich(4 * CALLS as u64);
    let payee = Signer::new(99);
    let mut items = |last: usize| {
        let mut orders = Vec::new();
        for (i, signer) in signers.iter_mut().enumerate() {
            let outputs = if i == 4 * (CALLS - 1) { last } else { 202 };
            orders.push(match i % 4 {
                0 => signer.call(vec![], vec![credit(&payee, 1); outputs]),
                _ => signer.pay(&[to(payee.address, 1)], ""),
            });
        }
        offers(&mut cluster, &orders)
    };
    let (mut one, mut two) = (1, 202);
    assert_eq!((items(one).len(), items(two).len()), (1, 2));
    while two - one > 1 {
        let middle = (one + two) / 2;
        match items(middle).len() {
            1 => one = middle,
            _ => two = middle,
        }
    }
    let full = items(one)[0].item.len();
    assert!((UNIT_BYTES_MAX - 320..=UNIT_BYTES_MAX - 64).contains(&full), "{full} bytes");
}

/// Orders that lie scattered in their batch need a proof each, which takes room as well.
#[test]
fn scattered_orders_of_a_batch_leave_room_for_their_proof() {
    let (mut cluster, mut signers) = rich(1_024);
    let payee = Signer::new(9_999);
    let order = |(i, signer): (usize, &mut Signer)| match i % 8 {
        0 => signer.call(vec![], vec![credit(&payee, 1); 11]),
        _ => signer.pay(&[to(payee.address, 1)], ""),
    };
    let orders: Vec<Bytes> = signers.iter_mut().enumerate().map(order).collect();
    let offers = offers(&mut cluster, &orders);
    let (bytes, calls) = (offers.iter().map(|o| o.item.len()).sum::<usize>(), offers.iter().map(|o| o.calls.len()));
    assert!(bytes > UNIT_BYTES_MAX && calls.sum::<usize>() == 128, "{bytes}");
    assert_eq!(offers.len(), 2);
}

/// All authorities get the same number from a batch, so that one of them hands all of it in.
#[test]
fn authorities_take_turns_by_batch_and_for_reports_by_account() {
    let (mut cluster, mut alice, mut bob) = setup(1);
    let orders: Vec<Bytes> = vec![alice.call(vec![], vec![credit(&bob, 7)]), bob.call(vec![], vec![credit(&alice, 1)])];
    cluster.run(&orders);
    let second = alice.pay(&[to(bob.address, 1)], "");
    cluster.run(&[second]);
    let third = alice.call(vec![], vec![credit(&bob, 1)]);
    cluster.run(&[third]);
    let turns = |authority: usize| -> Vec<u64> {
        let node = &cluster.nodes[authority][0];
        log_calls(node).iter().map(|call| node.authority.log_turn(&node.state, call).unwrap()).collect()
    };
    let first = turns(0);
    let root = decode_batch(&orders).unwrap().id.root;
    assert_eq!(first[..2], [u64::from_be_bytes(root[..8].try_into().unwrap()); 2]);
    assert!(first.len() == 3 && first[2] != first[0]);
    (1..4).for_each(|authority| assert_eq!(turns(authority), first));
    let node = &cluster.nodes[0][0];
    let report = LogCall { report: true, actor: 1_234, batch: u64::MAX, ..Default::default() };
    assert_eq!(node.authority.log_turn(&node.state, &report).unwrap(), 1_234);
}

/// What an authority's report on a number of an account names; nothing if it makes none.
fn reported(cluster: &Cluster, authority: usize, signer: &Signer, seqnum: u32) -> Option<Bytes> {
    let node = &cluster.nodes[authority][0];
    let call = LogCall { network_id: NETWORK_ID, actor: signer.actor(), seqnum, report: true, ..LogCall::default() };
    let offers = node.authority.log_items(&node.state, &[call]).unwrap();
    let [offer] = &offers[..] else { return None };
    assert_eq!(offer.calls, vec![0]);
    match wire::Item::decode(offer.item.clone()).unwrap().kind {
        Some(wire::item::Kind::Report(report)) => {
            let id = (report.network_id, report.actor, report.seqnum);
            assert_eq!(id, (NETWORK_ID, signer.actor(), seqnum));
            Some(report.order_id)
        }
        other => panic!("a report, not {other:?}"),
    }
}

#[test]
fn a_report_names_what_is_held_and_is_not_made_before_that_can_be_said() {
    let (mut cluster, mut alice, bob) = setup(1);
    let before = alice.clone();
    let (nothing, none) = (Some(Bytes::new()), None);
    assert_eq!([1, 2, 3].map(|n| reported(&cluster, 0, &alice, n)), [nothing.clone(), none.clone(), none.clone()]);
    let [first, second] = [1, 2].map(|amount| alice.pay(&[to(bob.address, amount)], ""));
    let id = |order: &Bytes| Some(Bytes::copy_from_slice(&id_of(order)));
    let of_first = cluster.certify(0, std::slice::from_ref(&first));
    for i in 1..4 {
        cluster.node(i, 0).settle(&of_first, std::slice::from_ref(&first)).unwrap();
    }
    let votes: Vec<_> =
        (1..4).filter_map(|i| cluster.node(i, 0).vote(std::slice::from_ref(&second)).unwrap().vote).collect();
    let of_second = cluster.certificate(std::slice::from_ref(&second), votes);
    assert_eq!([1, 2, 3].map(|n| reported(&cluster, 1, &alice, n)), [id(&first), nothing.clone(), none.clone()]);
    // The second waits at authority 0 for the first: it can't know that it is the one.
    cluster.node(0, 0).settle(&of_second, std::slice::from_ref(&second)).unwrap();
    assert_eq!([1, 2, 3].map(|n| reported(&cluster, 0, &alice, n)), [nothing.clone(), none.clone(), none.clone()]);
    // The log freezes the account there for a recovery: the first waits as well, and is what it holds.
    let recover = [before.recover()];
    let id_of_batch = decode_batch(&recover).unwrap().id;
    let votes = (0..)
        .zip(&cluster.keys)
        .map(|(i, key)| sign(Promise::Vote, &cluster.committee, i, key, &id_of_batch, &Bitmap::full(1)));
    let certificate = cluster.certificate(&recover, votes.collect());
    cluster.node(0, 0).settle(&certificate, &recover).unwrap();
    let items = cluster.log_items(0);
    cluster.order_items(0, 0, items);
    deliver_log(&mut cluster.logs[0], &mut cluster.nodes[0]);
    assert_eq!([1, 2].map(|n| reported(&cluster, 0, &alice, n)), [nothing, none.clone()]);
    cluster.node(0, 0).settle(&of_first, std::slice::from_ref(&first)).unwrap();
    assert_eq!([1, 2, 3].map(|n| reported(&cluster, 0, &alice, n)), [id(&first), none.clone(), none]);
}

/// A certified order that rests on one which never settled is not what is held for its number.
#[test]
fn a_report_does_not_name_an_order_of_another_chain() {
    let (mut cluster, alice, bob) = setup(1);
    let [mut one, mut other] = [alice.clone(), alice.clone()];
    let (_, lost) = (one.pay(&[to(bob.address, 1)], ""), one.pay(&[to(bob.address, 2)], ""));
    let twin = other.pay(&[to(bob.address, 3)], "");
    for order in [lost, twin] {
        let id = decode_batch(std::slice::from_ref(&order)).unwrap().id;
        let sign = |(i, key)| sign(Promise::Vote, &cluster.committee, i, key, &id, &Bitmap::full(1));
        let votes = (0..).zip(cluster.keys.iter().map(|key| &**key)).map(sign).collect();
        let certificate = cluster.certificate(std::slice::from_ref(&order), votes);
        cluster.node(0, 0).settle(&certificate, std::slice::from_ref(&order)).unwrap();
    }
    assert_eq!(cluster.nodes[0][0].account(alice.actor()).seqnum, 1);
    assert_eq!(reported(&cluster, 0, &alice, 2), Some(Bytes::new()));
}
