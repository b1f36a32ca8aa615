//! What a user or an attacker of an authority would notice.

use super::state::{State, Table};
use crate::error::{Code, Result};
use crate::testing::*;
use crate::wire;
use bytes::Bytes;

mod answers;
mod attacks;
mod audit;
mod audit_names;
mod audit_names_more;
mod audit_whole;
mod distilled;
mod evidence;
mod exact;
mod exact_more;
mod hot;
mod log_steps;
mod mint;
mod model;
mod networks;
mod query;
mod receipt;
mod settle;
mod vote;

/// Codes of the orders that were refused, with their index.
fn refused(reply: &wire::VoteReply) -> Vec<(u32, Code)> {
    reply.errors.iter().map(|e| (e.index, Code::from_number(e.code).expect("a known code"))).collect()
}

/// First byte of the accepted bits, 0 without a vote.
fn accepted(reply: &wire::VoteReply) -> u8 {
    reply.vote.as_ref().map_or(0, |v| v.bitmap[0])
}

/// The code of an error.
fn code<T: std::fmt::Debug>(result: Result<T>) -> Code {
    result.expect_err("an error").code
}

/// A cluster and a signer with money.
fn funded(amount: u64) -> (Cluster, Signer) {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let alice = Signer::new(1);
    cluster.fund(alice.address, amount);
    (cluster, alice)
}

/// Entries of a table at a node.
fn count(node: &Node, table: Table) -> usize {
    node.state.scan(table, &[], usize::MAX).expect("memory").len()
}

/// Orders as a batch.
fn batch(orders: &[&Bytes]) -> Vec<Bytes> {
    orders.iter().map(|o| (*o).clone()).collect()
}
