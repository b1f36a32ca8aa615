//! Distilled batches: what stands in an envelope instead of a signature when its account has signed the root of the batch
//! together with others ([decision 22](../../../docs/decisions/0022-distilled-batches.md)).
//!
//! Safety. Who signs a root has seen that its own order is a leaf under it ([`check_proposal`]), and so agrees to that order.
//! Nothing else under the root can be taken for what it agreed to, because
//!
//! 1. the signature is over the root of these very orders, for this committee and epoch, under a tag of its own;
//! 2. in a batch with marks no account has two orders: they ascend by account, or no mark counts ([`Marks::read`]). Were
//!    there two, a worker could show one to its sender and mark the other;
//! 3. a key is of one account: its proof of possession names it, and is checked when the key is set ([`crate::bls`]). It
//!    also keeps keys apart: none is made from those of others;
//! 4. the sum of the signers' keys is what is verified, each taken from the authority's own records where it is
//!    sure which key the order's place in its account's chain has. The key of an order with a mark is never taken from the order.

pub mod round;

use bytes::Bytes;

use crate::batch::DecodedBatch;
use crate::bls;
use crate::certificate::BatchId;
use crate::committee::Committee;
use crate::envelope::{Authority, Order, encode_envelope};
use crate::error::{Code, Error, Result};
use crate::keys::{ROOT_BYTE, tagged_point};
use crate::limits::ORDERS_PER_BATCH_MAX;
use crate::merkle::{Hash, root_from_path};
use crate::planted::{self, Bug};
use crate::wire;

/// The domain tag of what the senders of a batch sign together.
pub const ROOT_TAG: &[u8] = b"florin-distilled-v1";

/// What the senders of a batch sign together: tag, committee id, epoch, root, count (big-endian).
pub fn root_message(committee: &Committee, batch: &BatchId) -> Vec<u8> {
    let (epoch, count) = (committee.epoch.to_be_bytes(), (batch.count as u32).to_be_bytes());
    [ROOT_TAG, &committee.id()[..], &epoch, &batch.root, &count].concat()
}

/// A worker's word that an order is in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The batch.
    pub batch: BatchId,
    /// The order's place in it.
    pub index: usize,
    /// Merkle siblings, from leaf to root.
    pub path: Vec<Hash>,
}

impl Proposal {
    /// As it travels.
    pub fn to_wire(&self, committee: &Committee) -> wire::RootProposal {
        wire::RootProposal {
            committee_id: Bytes::copy_from_slice(committee.id()),
            epoch: committee.epoch,
            root: Bytes::copy_from_slice(&self.batch.root),
            count: self.batch.count as u32,
            index: self.index as u32,
            path: self.path.iter().map(|hash| Bytes::copy_from_slice(hash)).collect(),
        }
    }

    /// One that came. Errors: `WRONG_COMMITTEE`, `WRONG_EPOCH`; `BAD_PROOF` for hashes that are none.
    pub fn from_wire(committee: &Committee, proposal: &wire::RootProposal) -> Result<Proposal> {
        if proposal.committee_id != committee.id()[..] {
            let (expected, found) = (hex::encode(committee.id()), hex::encode(&proposal.committee_id));
            return Err(Error::expected(Code::WrongCommittee, "committee of the proposal", expected, found));
        }
        if proposal.epoch != committee.epoch {
            return Err(Error::expected(Code::WrongEpoch, "epoch of the proposal", committee.epoch, proposal.epoch));
        }
        let hash = |bytes: &Bytes| {
            let expected = || Error::expected(Code::BadProof, "bytes of a hash in the proposal", 32, bytes.len());
            <Hash>::try_from(&bytes[..]).map_err(|_| expected())
        };
        let path = proposal.path.iter().map(hash).collect::<Result<Vec<Hash>>>()?;
        let batch = BatchId { root: hash(&proposal.root)?, count: proposal.count as usize };
        Ok(Proposal { batch, index: proposal.index as usize, path })
    }
}

/// What the sender of the order with this id may sign: that the batch has exactly this order of its account. That it has no
/// other one is for the authorities to see. Errors: `LIMIT`, `BAD_PROOF`.
pub fn check_proposal(committee: &Committee, order_id: &Hash, proposal: &Proposal) -> Result<Vec<u8>> {
    let BatchId { root, count } = proposal.batch;
    if count == 0 || count > ORDERS_PER_BATCH_MAX {
        let expected = format!("1 to {ORDERS_PER_BATCH_MAX}");
        return Err(Error::expected(Code::Limit, "orders in the batch", expected, count));
    }
    if root_from_path(order_id, proposal.index, count, &proposal.path) != Some(root) {
        let what = format!("path of order {} at {} of {count}", hex::encode(order_id), proposal.index);
        return Err(Error::new(Code::BadProof, format!("{what} does not lead to the root")));
    }
    Ok(root_message(committee, &proposal.batch))
}

/// The envelope of an order whose account has signed the root. The first such order of a batch carries what all of
/// them have signed together.
pub fn marked(order: &Order, aggregate: Option<&bls::SignatureBytes>) -> Bytes {
    let mut mark = vec![ROOT_BYTE];
    mark.extend(aggregate.into_iter().flatten());
    encode_envelope(&order.body, &[Authority { key_type: 0, sigs: vec![mark.into()] }])
}

/// What stands for an order's signature, if that is a mark and nothing else.
pub fn mark_of(order: &Order) -> Option<&Bytes> {
    match &order.authorities[..] {
        [Authority { key_type: 0, sigs }] if sigs.len() == 1 => sigs.first().filter(|m| m.first() == Some(&ROOT_BYTE)),
        _ => None,
    }
}

/// The orders of a batch whose accounts have signed its root, or so it says.
#[derive(Debug)]
pub struct Marks {
    /// Their places, ascending; one at least.
    pub signers: Vec<usize>,
    /// What they have signed together, or why it can't be checked at all: `BAD_AGGREGATE`.
    pub aggregate: Result<bls::SignatureBytes>,
}

impl Marks {
    /// The marks on account orders of a network in a batch; None if there are none. Others are no signatures.
    pub fn read(batch: &DecodedBatch, network_id: u64) -> Option<Marks> {
        let orders = || batch.orders.iter().enumerate().filter_map(|(i, order)| Some((i, order.as_ref().ok()?)));
        let is_account = |order: &Order| order.network_id == network_id && order.actor != 0;
        let marks = orders().filter(|(_, order)| is_account(order)).filter_map(|(i, order)| Some((i, mark_of(order)?)));
        let (signers, marks): (Vec<usize>, Vec<&Bytes>) = marks.unzip();
        let (first, rest) = marks.split_first()?;
        let bad = |what: String| Err(Error::new(Code::BadAggregate, what));
        let aggregate = match tagged_point(ROOT_BYTE, first) {
            None => bad(format!("aggregate in order {}: expected 97 bytes, found {}", signers[0], first.len())),
            Some(_) if rest.iter().any(|mark| mark.len() != 1) => {
                bad("marks after the first: expected 1 byte, found more".to_owned())
            }
            Some(aggregate) => Ok(aggregate),
        };
        // An order that does not decode is nobody's.
        let accounts = || orders().map(|(i, order)| (i, (order.network_id, order.actor)));
        let unsorted = accounts().zip(accounts().skip(1)).find(|((_, a), (_, b))| a >= b);
        let aggregate = match unsorted {
            Some((_, (i, (_, actor)))) if !planted::is(Bug::OrdersUnsorted) => {
                bad(format!("accounts: expected in ascending order, found {actor} at {i}"))
            }
            _ => aggregate,
        };
        Some(Marks { signers, aggregate })
    }
}

#[cfg(test)]
#[path = "distilled_tests.rs"]
mod tests;
