//! Accounts that their own wallets have locked, and how the log frees them.

use super::*;
use crate::batch::decode_batch;
use crate::bitmap::Bitmap;
use crate::certificate::{Promise, sign};

/// Alice signs two orders for one seqnum, and each gets the votes of two authorities.
fn lock(cluster: &mut Cluster, alice: &mut Signer, bob: &Signer) -> (Bytes, Bytes) {
    let mut twin = alice.clone();
    let a = alice.pay(&[to(bob.address, 10)], "");
    let b = twin.pay(&[to(bob.address, 20)], "");
    let shard = alice.address.shard(cluster.committee.shards);
    for i in 0..4 {
        let order = if i < 2 { &a } else { &b };
        cluster.node(i, shard).vote(std::slice::from_ref(order)).unwrap();
    }
    (a, b)
}

#[test]
fn a_locked_account_is_freed_and_pays_again() {
    for first in [true, false] {
        let (mut cluster, mut alice, bob) = setup(2);
        if !first {
            let order = alice.pay(&[to(bob.address, 5)], "");
            cluster.run(&[order]);
        }
        let before = alice.clone();
        let (a, _) = lock(&mut cluster, &mut alice, &bob);
        let shard = alice.address.shard(2);
        cluster.run_ordered(&[before.recover()]);
        // Frozen: neither votes nor settles.
        let refused = cluster.node(0, shard).vote(std::slice::from_ref(&a)).unwrap();
        assert_eq!(refused.errors[0].code, Code::Recovering as u32);
        cluster.set_time(1_000 + RECOVERY_WAIT_MS - 1);
        cluster.order_all();
        assert_ne!(cluster.status(0, &alice, before.seqnum + 1).state(), S::Void);
        cluster.set_time(1_000 + RECOVERY_WAIT_MS);
        cluster.order_all();
        for i in 0..4 {
            assert_eq!(cluster.status(i, &alice, before.seqnum + 1).state(), S::Void);
        }
        let account = cluster.node(0, shard).account(alice.actor());
        assert_eq!(account.seqnum, before.seqnum + 1);
        let mut after = before.clone();
        after.resume(&account);
        let order = after.pay(&[to(bob.address, 100)], "");
        cluster.run(&[order]);
        let paid = if first { 100 } else { 105 };
        check(&cluster, &[(&alice, 1_000 - paid), (&bob, 1_000 + paid)]);
    }
}

#[test]
fn what_one_authority_settled_alone_is_taken_back_and_what_a_quorum_could_have_settles() {
    for shown in [false, true] {
        let (mut cluster, mut alice, bob) = setup(2);
        let open = alice.pay(&[to(bob.address, 1)], "");
        cluster.run(&[open]);
        let before = alice.clone();
        let order = alice.pay(&[to(bob.address, 10)], "");
        let shard = alice.address.shard(2);
        let recover = before.recover();
        let recovery = cluster.certify(shard, std::slice::from_ref(&recover));
        let certificate = cluster.certify(shard, std::slice::from_ref(&order));
        // One authority alone has the certificate, and settles before it hears of the recovery.
        cluster.node(3, shard).settle(&certificate, std::slice::from_ref(&order)).unwrap();
        cluster.deliver_all();
        assert_eq!(cluster.balance(3, &bob.address), 1_011);
        cluster.settle(shard, &recovery, std::slice::from_ref(&recover));
        // It is cut off from the log until the others have decided, or is not.
        let order_items = |cluster: &mut Cluster, authority: usize| {
            let items = cluster.log_items(authority);
            if !items.is_empty() {
                cluster.order_items(authority as u32, 0, items);
            }
        };
        let who = if shown { 0..4 } else { 0..3 };
        for _ in 0..3 {
            for i in who.clone() {
                order_items(&mut cluster, i);
                deliver_log(&mut cluster.logs[i], &mut cluster.nodes[i]);
                acknowledge_calls(&cluster.logs[i], &mut cluster.nodes[i]);
            }
        }
        cluster.set_time(1_000 + RECOVERY_WAIT_MS);
        // Where the recovery settles it, shards that lack the batch get it from a peer.
        if shown {
            for i in 0..3 {
                cluster.node(i, shard).settle(&certificate, std::slice::from_ref(&order)).unwrap();
            }
        }
        cluster.order_all();
        if shown {
            check(&cluster, &[(&alice, 989), (&bob, 1_011)]);
            continue;
        }
        check(&cluster, &[(&alice, 999), (&bob, 1_001)]);
        // The old certificate is worth nothing any more.
        for i in 0..4 {
            let reply = cluster.node(i, shard).settle(&certificate, std::slice::from_ref(&order)).unwrap();
            assert!(reply.acknowledgement.is_none(), "authority {i}");
        }
        cluster.order_all();
        check(&cluster, &[(&alice, 999), (&bob, 1_001)]);
        let account = cluster.node(3, shard).account(alice.actor());
        assert_eq!(account, cluster.node(0, shard).account(alice.actor()));
        assert_ne!(account.prev_hash, short_hash(&id_of(&order)));
        let mut after = before.clone();
        after.resume(&account);
        let next = after.pay(&[to(bob.address, 9)], "");
        cluster.run(&[next]);
        check(&cluster, &[(&alice, 990), (&bob, 1_010)]);
    }
}

/// A cluster whose authority 3 stays where it is while the others go on; then it hears the rest.
fn lag(cluster: &mut Cluster, meanwhile: impl FnOnce(&mut Cluster)) {
    let heard = cluster.units.len();
    let state = |cluster: &Cluster| {
        let shards: Vec<MemState> = cluster.nodes[3].iter().map(|n| n.state.clone()).collect();
        (shards, cluster.logs[3].state.clone())
    };
    let (shards, log) = state(cluster);
    meanwhile(cluster);
    for (node, state) in cluster.nodes[3].iter_mut().zip(shards) {
        node.state = state;
    }
    cluster.logs[3].state = log;
    let units: Vec<_> = cluster.units[heard..].to_vec();
    for (creator, data) in units {
        cluster.logs[3].unit(creator, &data).unwrap();
    }
}

#[test]
fn a_final_order_that_comes_before_the_recovery_it_rests_on_waits_for_it() {
    let (mut cluster, mut alice, bob) = setup(2);
    let before = alice.clone();
    lock(&mut cluster, &mut alice, &bob);
    let shard = alice.address.shard(2);
    cluster.run_ordered(&[before.recover()]);
    let mut after = before.clone();
    let mut next = None;
    lag(&mut cluster, |cluster| {
        cluster.set_time(1_000 + RECOVERY_WAIT_MS);
        cluster.order_all();
        after.resume(&cluster.node(0, shard).account(alice.actor()));
        let order = after.pay(&[to(bob.address, 100)], "");
        let certificate = cluster.certify(shard, std::slice::from_ref(&order));
        cluster.settle(shard, &certificate, std::slice::from_ref(&order));
        cluster.deliver_all();
        next = Some((certificate, order));
    });
    let (certificate, order) = next.unwrap();
    // Its shard has not heard of the decision yet.
    let reply = cluster.node(3, shard).settle(&certificate, std::slice::from_ref(&order)).unwrap();
    assert_eq!(reply.waiting.len(), 1);
    cluster.order_all();
    check(&cluster, &[(&alice, 900), (&bob, 1_100)]);
    for i in 0..4 {
        clean(&cluster, i);
    }
}

/// More than f traitors certify both orders of a locked account, and one authority is shown another one than the others: what it
/// can't settle any more is evidence, and stops nothing.
#[test]
fn two_certificates_for_one_seqnum_do_not_stop_the_log() {
    let (mut cluster, mut alice, mut bob) = setup(2);
    let before = alice.clone();
    let (a, b) = lock(&mut cluster, &mut alice, &bob);
    let shard = alice.address.shard(2);
    cluster.run_ordered(&[before.recover()]);
    for (authority, order) in [(0, &b), (1, &a)] {
        let order = std::slice::from_ref(order);
        let id = decode_batch(order).unwrap().id;
        let bitmap = Bitmap::parse(&[1], 1).unwrap();
        let vote = |i: u32| sign(Promise::Vote, &cluster.committee, i, &cluster.keys[i as usize], &id, &bitmap);
        let certificate = cluster.certificate(order, (0..3).map(vote).collect());
        let reply = cluster.node(authority, shard).settle(&certificate, order).unwrap();
        assert_eq!(reply.waiting.len(), 1, "it is frozen");
    }
    for authority in [1, 0] {
        let items = cluster.log_items(authority);
        cluster.order_items(authority as u32, 0, items);
    }
    cluster.set_time(1_000 + RECOVERY_WAIT_MS);
    cluster.order_all();
    // Their ledgers differ, as ever with so many traitors. But each goes on, with what the log has for others.
    let alices: Vec<i128> = (0..4).map(|i| cluster.balance(i, &alice.address)).collect();
    assert_eq!(alices, [980, 990, 990, 990]);
    let shared = bob.call(vec![], vec![fund(100, 2 * RECOVERY_WAIT_MS, &bob, &alice)]);
    cluster.run_ordered(&[shared]);
    for i in 0..4 {
        assert_eq!(cluster.status(i, &bob, 1).state(), S::Ordered, "authority {i}");
        clean(&cluster, i);
    }
}
