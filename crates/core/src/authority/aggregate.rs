//! What the senders of a batch have signed together, checked before anything is locked: one addition an order and one product of
//! pairings a batch.
//!
//! A false aggregate refuses the orders that it is for, and no others. It is the worker's fault, who could have verified
//! it. To be sure of that, an authority sums only keys that follow from the order's own place: the order is the account's
//! next here, by seqnum and prev_hash, or pending here; and no change of keys is. Where that is not so, as at an
//! authority that lags, it names the order (`AGGREGATE_KEY`), and the worker sends it with its own signature.

use super::changes::Changes;
use super::{Authority, Meter, Phase};
use crate::batch::DecodedBatch;
use crate::bls;
use crate::distilled::{Marks, root_message};
use crate::envelope::Order;
use crate::error::{Code, Error, Result};
use crate::permission::Permission;

/// By order of a batch: whether its account has signed the root, and with which key. Empty if none says so.
#[derive(Default)]
pub(super) struct Marked(Vec<Option<Result<bls::Key>>>);

impl Marked {
    /// None: the order has no mark, so it needs a signature of its own.
    pub fn key(&self, index: usize) -> Option<&Result<bls::Key>> {
        self.0.get(index)?.as_ref()
    }
}

impl Authority {
    /// The outer error is a fault of the storage.
    pub(super) fn check_marks(
        &self,
        batch: &DecodedBatch,
        changes: &mut Changes<'_>,
        meter: &mut dyn Meter,
    ) -> Result<Marked> {
        let Some(marks) = Marks::read(batch, self.committee.network.id) else { return Ok(Marked::default()) };
        let mut marked = vec![None; batch.orders.len()];
        let mut refuse_all = |e: &Error| {
            marks.signers.iter().for_each(|i| marked[*i] = Some(Err(e.clone())));
        };
        let aggregate = match &marks.aggregate {
            Ok(aggregate) => aggregate,
            Err(e) => {
                refuse_all(e);
                return Ok(Marked(marked));
            }
        };
        let mut keys = Vec::with_capacity(marks.signers.len());
        let mut unsure = Vec::new();
        for i in &marks.signers {
            let Ok(order) = &batch.orders[*i] else { continue };
            match self.sure_key(order, changes)? {
                Some(key) => keys.push((*i, key)),
                None => unsure.push(*i),
            }
        }
        if !unsure.is_empty() {
            let message = format!("the keys of {} of {} signers are not sure here", unsure.len(), marks.signers.len());
            refuse_all(&Error::new(Code::BadAggregate, message));
            for i in unsure {
                let message = "the account's BLS key at this place of its chain is not sure here";
                marked[i] = Some(Err(Error::new(Code::AggregateKey, message)));
            }
            return Ok(Marked(marked));
        }
        meter.begin(Phase::Signatures);
        let mut sum = bls::Sum::with_capacity(keys.len());
        keys.iter().for_each(|(_, key)| sum.add(key));
        if !sum.verifies(&root_message(&self.committee, &batch.id), aggregate) {
            let message = format!("the {} signers have not all signed the root of the batch", keys.len());
            refuse_all(&Error::new(Code::BadAggregate, message));
            return Ok(Marked(marked));
        }
        keys.into_iter().for_each(|(i, key)| marked[i] = Some(Ok(key)));
        Ok(Marked(marked))
    }

    /// The key that must have signed for this order, if it is sure here.
    fn sure_key(&self, order: &Order, changes: &mut Changes<'_>) -> Result<Option<bls::Key>> {
        if self.check_shard(order).is_err() {
            return Ok(None);
        }
        let account = changes.account(order.network_id, order.actor)?;
        // Of an account that is open the proof of possession was checked by a quorum.
        if account.address.is_none() || account.pending.iter().any(|p| p.set_permission || !p.open.is_empty()) {
            return Ok(None);
        }
        let next = order.seqnum as u64 == account.next_seqnum() && order.prev_hash == account.next_prev_hash();
        if !next && !account.pending.iter().any(|p| p.order_id.as_ref() == order.id) {
            return Ok(None);
        }
        Ok(Permission::decode_kept(&account.permission)?.distils())
    }
}
