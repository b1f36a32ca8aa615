//! The log as operators, users and attackers see it.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::audit::{LogAudit, audit_log};
use super::modules::contracts::contract_id;
use crate::authority::audit::{ShardAudit, audit_authority, audit_shard};
use crate::authority::state::{Table, Write, short_hash};
use crate::error::{Code, Result};
use crate::limits::RECOVERY_WAIT_MS;
use crate::testing::*;
use crate::wire::{self, input, order_status::State as S, output};

mod audit;
mod bearer;
mod broken;
mod channels;
mod codes;
mod dkg;
mod forms;
mod handing;
mod items;
mod modules;
mod note_model;
mod note_recovery;
mod pbtx;
mod queries;
mod race;
mod random;
mod recovery;
mod sessions;
mod split;
mod steps;

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
    let claim = wire::ContractClaim { contract: Bytes::copy_from_slice(&contract), preimage: preimage.to_vec().into() };
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

/// The audits of one authority: its shards, its log, and all of them together.
fn audits(cluster: &Cluster, authority: usize) -> (Vec<(u32, ShardAudit)>, LogAudit, Vec<String>) {
    let shards: Vec<_> = (0..)
        .zip(&cluster.nodes[authority])
        .map(|(shard, node)| (shard, audit_shard(&node.authority, &node.state, true).unwrap()))
        .collect();
    let log = &cluster.logs[authority];
    let log = audit_log(&log.log, &log.state, true).unwrap();
    let between = audit_authority(&shards, Some(&log));
    (shards, log, between)
}

/// Nothing is off at an authority.
fn clean(cluster: &Cluster, authority: usize) {
    let (shards, log, between) = audits(cluster, authority);
    for (shard, audit) in &shards {
        assert_eq!(audit.findings, Vec::<String>::new(), "authority {authority}, shard {shard}");
    }
    assert_eq!(log.findings, Vec::<String>::new(), "log of authority {authority}");
    assert_eq!(between, Vec::<String>::new(), "authority {authority}");
}

/// All logs are equal, all money is where it should be, and no audit finds anything.
fn check(cluster: &Cluster, expected: &[(&Signer, i128)]) {
    for (i, log) in cluster.logs.iter().enumerate() {
        let book = log.log.book(&log.state).unwrap();
        assert_eq!(book, cluster.logs[0].log.book(&cluster.logs[0].state).unwrap(), "log of authority {i}");
        for (signer, balance) in expected {
            assert_eq!(cluster.balance(i, &signer.address), *balance, "authority {i}");
        }
        clean(cluster, i);
    }
}

/// The code of an error.
fn code<T: std::fmt::Debug>(result: Result<T>) -> Code {
    result.expect_err("an error").code
}

/// The code of the first order that an authority refuses to vote for.
fn refusal(cluster: &mut Cluster, authority: usize, order: &Bytes) -> Code {
    let actor = crate::envelope::Order::decode(order.clone()).unwrap().actor;
    let shard = (actor % u64::from(cluster.committee.shards)) as u32;
    let reply = cluster.node(authority, shard).vote(std::slice::from_ref(order)).unwrap();
    Code::from_number(reply.errors[0].code).unwrap()
}
