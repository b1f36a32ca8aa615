//! A whole batch of CALLs is split into items that fit into units, and all of it applies.

use super::*;
use crate::authority::input::Input;
use crate::batch::decode_batch;
use crate::bitmap::Bitmap;
use crate::certificate::{Promise, sign};
use crate::limits::{CALL_BYTES_MAX, COMMITTEE_MAX, ORDERS_PER_BATCH_MAX, OUTPUTS_MAX, UNIT_BYTES_MAX};
use crate::ordered::item::pack;

/// Accounts with 256 minor units each, at the first `authorities` of a cluster, from a genesis file.
fn many(authorities: usize) -> (Cluster, Vec<Signer>) {
    let committee =
        TestCommittee { genesis_hash: [1; 32], issuer_limit: 2_000_000, ..TestCommittee::new(authorities, 1) };
    let mut cluster = Cluster::new(&committee);
    cluster.nodes.truncate(4);
    cluster.logs.truncate(4);
    let signers: Vec<Signer> = (1..=ORDERS_PER_BATCH_MAX as u64).map(Signer::new).collect();
    let lines: Vec<_> = signers.iter().map(|s| (s.address, 256)).collect();
    for node in cluster.nodes.iter_mut().flatten() {
        node.step(Input::Genesis { first_line: 0, lines: lines.clone(), last: true }).unwrap();
    }
    (cluster, signers)
}

/// Settles a batch by votes of the whole committee at one authority, hands it to the log, and applies it there.
fn run(mut cluster: Cluster, orders: &[Bytes]) -> Cluster {
    let id = decode_batch(orders).unwrap().id;
    let all = Bitmap::full(orders.len());
    let votes = (0..).zip(&cluster.keys).map(|(i, key)| sign(Promise::Vote, &cluster.committee, i, key, &id, &all));
    let certificate = cluster.certificate(orders, votes.collect());
    cluster.node(0, 0).settle(&certificate, orders).unwrap();
    let calls = log_calls(&cluster.nodes[0][0]);
    assert_eq!(calls.len(), orders.len());
    let node = &cluster.nodes[0][0];
    let offers = node.authority.log_items(&node.state, &calls).unwrap();
    let mut served: Vec<usize> = offers.iter().flat_map(|o| o.calls.clone()).collect();
    served.sort_unstable();
    assert_eq!(served, (0..orders.len()).collect::<Vec<_>>(), "each call once");
    let units = pack(5_000, offers.into_iter().map(|o| o.item).collect());
    assert!(units.iter().all(|u| u.len() <= UNIT_BYTES_MAX));
    assert!(units.len() > 1 || orders.len() == 1);
    let clock = &pack(5_000, Vec::new())[0];
    for authority in 0..cluster.committee.size() as u32 {
        cluster.logs[0].unit(authority, clock).unwrap();
    }
    for unit in &units {
        cluster.logs[0].unit(0, unit).unwrap();
    }
    deliver_log(&mut cluster.logs[0], &mut cluster.nodes[0]);
    acknowledge_calls(&cluster.logs[0], &mut cluster.nodes[0]);
    assert!(log_calls(&cluster.nodes[0][0]).is_empty());
    let book = cluster.logs[0].log.book(&cluster.logs[0].state).unwrap();
    assert_eq!(book.orders, orders.len() as u64);
    cluster
}

#[test]
fn a_full_batch_of_calls_is_split_and_applies() {
    let (cluster, mut signers) = many(4);
    let payee = signers[0].address;
    let orders: Vec<Bytes> = signers.iter_mut().map(|s| s.call(vec![], vec![credit(&Signer::new(1), 2)])).collect();
    let cluster = run(cluster, &orders);
    assert_eq!(cluster.balance(0, &payee), 256 + 2 * 4_095);
    clean(&cluster, 0);
}

/// 86 votes with 512 bytes of bitmap each leave little room, and every item has all of them.
#[test]
fn a_full_batch_fits_with_the_certificates_of_the_largest_committee() {
    let (cluster, mut signers) = many(COMMITTEE_MAX);
    let bob = Signer::new(2);
    let large = (0..OUTPUTS_MAX).map(|i| credit(&Signer::new(i as u64), 1)).take(202).collect::<Vec<_>>();
    let orders: Vec<Bytes> = signers
        .iter_mut()
        .enumerate()
        .map(|(i, s)| s.call(vec![], if i % 1_024 == 7 { large.clone() } else { vec![credit(&bob, 1)] }))
        .collect();
    let content = crate::envelope::Order::decode(orders[7].clone()).unwrap().content;
    assert!((CALL_BYTES_MAX - 64..=CALL_BYTES_MAX).contains(&content.len()), "{} bytes", content.len());
    let cluster = run(cluster, &orders);
    let log = audit_log(&cluster.logs[0].log, &cluster.logs[0].state, false).unwrap();
    assert_eq!(log.findings, Vec::<String>::new());
}

#[test]
fn certificates_for_parts_of_a_batch_make_items_of_their_own() {
    let (mut cluster, mut alice, mut bob) = setup(1);
    let orders = [alice.call(vec![], vec![credit(&bob, 7)]), bob.call(vec![], vec![credit(&alice, 3)])];
    let id = decode_batch(&orders).unwrap().id;
    cluster.vote(0, &orders);
    for i in 0..2 {
        let mut bits = Bitmap::empty(2);
        bits.set(i);
        let votes = (0..3).map(|a| sign(Promise::Vote, &cluster.committee, a, &cluster.keys[a as usize], &id, &bits));
        let certificate = cluster.certificate(&orders, votes.collect());
        cluster.settle(0, &certificate, &orders).into_iter().for_each(|r| assert!(r.is_ok()));
    }
    assert_eq!(cluster.log_items(0).len(), 2);
    cluster.order_all();
    check(&cluster, &[(&alice, 996), (&bob, 1_004)]);
}
