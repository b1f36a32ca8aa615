//! Receipts: one order, proved final to anyone who has the committee file, without a network.

use bytes::Bytes;

use crate::certificate::{BatchId, Promise, check_signed};
use crate::committee::Committee;
use crate::envelope::Order;
use crate::error::{Code, Error, Result};
use crate::limits::ORDERS_PER_BATCH_MAX;
use crate::merkle::{self, Hash};
use crate::wire;

/// A receipt of order `index` of a batch whose ids are the leaves of `tree`.
pub fn assemble(
    committee: &Committee,
    transaction: Bytes,
    tree: &merkle::Tree,
    (index, count): (usize, usize),
    votes: Vec<wire::Signed>,
    acknowledgements: Vec<wire::Signed>,
) -> wire::Receipt {
    wire::Receipt {
        committee_id: Bytes::copy_from_slice(committee.id()),
        epoch: committee.epoch,
        transaction,
        index: index as u32,
        count: count as u32,
        path: tree.path(index).iter().map(|h| Bytes::copy_from_slice(h)).collect(),
        votes,
        acknowledgements,
    }
}

/// The receipt's batch and order, after everything but the signatures has been checked.
pub(crate) fn check_proof(committee: &Committee, receipt: &wire::Receipt) -> Result<(BatchId, Order)> {
    if receipt.committee_id.as_ref() != committee.id() {
        return Err(Error::expected(
            Code::WrongCommittee,
            "committee of the receipt",
            hex::encode(committee.id()),
            hex::encode(&receipt.committee_id),
        ));
    }
    if receipt.epoch != committee.epoch {
        return Err(Error::expected(Code::WrongEpoch, "epoch of the receipt", committee.epoch, receipt.epoch));
    }
    let order = Order::decode(receipt.transaction.clone())?;
    let count = receipt.count as usize;
    if count == 0 || count > ORDERS_PER_BATCH_MAX {
        return Err(Error::expected(Code::Limit, "orders in the batch", format!("1 to {ORDERS_PER_BATCH_MAX}"), count));
    }
    let path: Option<Vec<Hash>> = receipt.path.iter().map(|h| Hash::try_from(h.as_ref()).ok()).collect();
    let root =
        path.and_then(|path| merkle::root_from_path(&order.id, receipt.index as usize, count, &path)).ok_or_else(
            || Error::new(Code::BadProof, format!("no path for order {} of {count} has this length", receipt.index)),
        )?;
    Ok((BatchId { root, count }, order))
}

/// Checks that the order is certified. Errors: as [`verify`].
pub fn verify_certified(committee: &Committee, receipt: &wire::Receipt) -> Result<Order> {
    let (batch, order) = check_proof(committee, receipt)?;
    require(committee, receipt, Promise::Vote, &batch, &receipt.votes, Code::NoQuorum)?;
    Ok(order)
}

/// Checks the whole receipt and returns its order: certified by a quorum's votes, and final by a
/// quorum's acknowledgements. Errors: `WRONG_COMMITTEE`, `WRONG_EPOCH`, those of decoding, `LIMIT`,
/// `BAD_PROOF` (the path's length), `BAD_VOTE` (also when the path leads to another root, since the
/// votes sign the root), `NO_QUORUM`, `NOT_FINAL`.
pub fn verify(committee: &Committee, receipt: &wire::Receipt) -> Result<Order> {
    let (batch, order) = check_proof(committee, receipt)?;
    require(committee, receipt, Promise::Vote, &batch, &receipt.votes, Code::NoQuorum)?;
    require(committee, receipt, Promise::Settled, &batch, &receipt.acknowledgements, Code::NotFinal)?;
    Ok(order)
}

fn require(
    committee: &Committee,
    receipt: &wire::Receipt,
    promise: Promise,
    batch: &BatchId,
    signed: &[wire::Signed],
    lacking: Code,
) -> Result<()> {
    let bitmaps = check_signed(promise, committee, batch, signed)?;
    let found = bitmaps.iter().filter(|b| b.get(receipt.index as usize)).count();
    if found < committee.quorum() {
        let what = if promise == Promise::Vote { "votes for the order" } else { "acknowledgements of the order" };
        return Err(Error::expected(lacking, what, format!("at least {}", committee.quorum()), found));
    }
    Ok(())
}
