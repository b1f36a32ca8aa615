//! The log as operators, users and attackers see it.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::modules::contracts::contract_id;
use crate::authority::state::short_hash;
use crate::error::Code;
use crate::limits::RECOVERY_WAIT_MS;
use crate::testing::{Cluster, Signer, TestCommittee, to};
use crate::wire::{self, input, order_status::State as S, output};

fn hash(preimage: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(preimage))
}

fn bytes(of: &Signer) -> Bytes {
    Bytes::copy_from_slice(of.address.as_bytes())
}

fn fund(amount: u64, expiry_ms: u64, sender: &Signer, receiver: &Signer) -> output::Kind {
    output::Kind::ContractFund(wire::ContractFund {
        amount,
        hash: hash(b"secret"),
        expiry_ms,
        receiver: bytes(receiver),
        sender: bytes(sender),
    })
}

fn credit(to: &Signer, amount: u64) -> output::Kind {
    output::Kind::Credit(wire::Credit { address: bytes(to), amount })
}

fn claim(contract: [u8; 32], amount: u64, preimage: &[u8]) -> wire::Input {
    let claim =
        wire::ContractClaim { contract: Bytes::copy_from_slice(&contract), preimage: preimage.to_vec().into() };
    wire::Input { amount, kind: Some(input::Kind::ContractClaim(claim)) }
}

fn refund(contract: [u8; 32], amount: u64) -> wire::Input {
    let refund = wire::ContractRefund { contract: Bytes::copy_from_slice(&contract) };
    wire::Input { amount, kind: Some(input::Kind::ContractRefund(refund)) }
}

fn id_of(order: &Bytes) -> [u8; 32] {
    crate::envelope::Order::decode(order.clone()).unwrap().id
}

fn setup(shards: u32) -> (Cluster, Signer, Signer) {
    let mut cluster = Cluster::new(&TestCommittee::new(4, shards));
    let (alice, bob) = (Signer::new(1), Signer::new(2));
    cluster.fund(alice.address, 1_000);
    cluster.fund(bob.address, 1_000);
    cluster.set_time(1_000);
    (cluster, alice, bob)
}

/// All logs and all money agree everywhere.
fn check(cluster: &Cluster, expected: &[(&Signer, i128)]) {
    for (i, log) in cluster.logs.iter().enumerate() {
        let book = log.log.book(&log.state).unwrap();
        assert_eq!(book, cluster.logs[0].log.book(&cluster.logs[0].state).unwrap(), "log of authority {i}");
        let audit = super::audit::audit_log(&log.log, &log.state, true).unwrap();
        assert!(audit.findings.is_empty(), "{:?}", audit.findings);
        for (signer, balance) in expected {
            assert_eq!(cluster.balance(i, &signer.address), *balance, "authority {i}");
        }
    }
}

#[test]
fn a_contract_pays_whoever_knows_the_preimage() {
    for shards in [1, 3] {
        let (mut cluster, mut alice, mut bob) = setup(shards);
        let order = alice.call(vec![], vec![fund(300, 5_000, &alice.clone(), &bob)]);
        let contract = contract_id(&id_of(&order), 0);
        cluster.run_ordered(&[order]);
        assert_eq!(cluster.status(0, &alice, 1).state(), S::Ordered);
        check(&cluster, &[(&alice, 700), (&bob, 1_000)]);

        let wrong = bob.call(vec![claim(contract, 300, b"guess")], vec![credit(&bob, 300)]);
        cluster.run_ordered(&[wrong]);
        let status = cluster.status(1, &bob, 1);
        assert_eq!((status.state(), status.code), (S::Failed, Code::WrongPreimage as u32));

        let right = bob.call(vec![claim(contract, 300, b"secret")], vec![credit(&bob, 250), credit(&alice, 50)]);
        cluster.run_ordered(&[right]);
        check(&cluster, &[(&alice, 750), (&bob, 1_250)]);

        let late = alice.call(vec![refund(contract, 300)], vec![credit(&alice, 300)]);
        cluster.set_time(9_000);
        cluster.run_ordered(&[late]);
        assert_eq!(cluster.status(2, &alice, 2).code, Code::ContractClosed as u32);
        check(&cluster, &[(&alice, 750), (&bob, 1_250)]);
    }
}

#[test]
fn a_failed_shared_side_refunds_what_was_debited_once() {
    let (mut cluster, mut alice, bob) = setup(2);
    // The expiry is in the past, so nothing of the order happens, and the 40 come back with the 300.
    let order = alice.call(vec![], vec![credit(&bob, 40), fund(300, 500, &alice.clone(), &bob)]);
    let certificate = {
        let shard = alice.address.shard(2);
        cluster.certify(shard, std::slice::from_ref(&order))
    };
    let shard = alice.address.shard(2);
    cluster.settle(shard, &certificate, std::slice::from_ref(&order));
    check(&cluster, &[(&alice, 660), (&bob, 1_000)]);
    let items = cluster.log_items(3);
    cluster.order_all();
    check(&cluster, &[(&alice, 1_000), (&bob, 1_000)]);
    let status = cluster.status(0, &alice, 1);
    assert_eq!((status.state(), status.code), (S::Failed, Code::ContractExpired as u32));
    // Whoever posts the certificate again, by whatever way, moves nothing.
    for creator in 0..4 {
        cluster.order_items(creator, 0, items.clone());
    }
    cluster.order_all();
    check(&cluster, &[(&alice, 1_000), (&bob, 1_000)]);
}

#[test]
fn money_goes_to_the_primary_and_back() {
    let (mut cluster, mut alice, bob) = setup(2);
    let redeem = output::Kind::PrimaryRedeem(wire::PrimaryRedeem { amount: 400, address: bytes(&alice) });
    let order = alice.call(vec![], vec![redeem]);
    cluster.run_ordered(&[order]);
    check(&cluster, &[(&alice, 600)]);
    let deposit = |amount, to: &Signer| {
        output::Kind::PrimaryDeposit(wire::PrimaryDeposit { amount, address: bytes(to) })
    };
    let order = alice.call(vec![], vec![deposit(150, &bob)]);
    cluster.run_ordered(&[order]);
    check(&cluster, &[(&alice, 600), (&bob, 1_150)]);
    let order = alice.call(vec![], vec![deposit(251, &bob)]);
    cluster.run_ordered(&[order]);
    assert_eq!(cluster.status(0, &alice, 3).code, Code::PrimaryFunds as u32);
    let log = &cluster.logs[0];
    let request = wire::PrimaryRequest { address: bytes(&alice), ..Default::default() };
    let reply = log.log.primary(&log.state, &request).unwrap();
    assert_eq!((reply.total_funds, reply.balance, reply.deposits, reply.redeems), (250, 250, 1, 1));
    check(&cluster, &[(&alice, 600), (&bob, 1_150)]);
}

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
                super::super::testing::deliver_log(&mut cluster.logs[i], &mut cluster.nodes[i]);
                super::super::testing::acknowledge_calls(&cluster.logs[i], &mut cluster.nodes[i]);
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
