//! What proves that more than f authorities lie: a certificate that contradicts what is settled here, beside the
//! certificate of that.

use bytes::Bytes;

use super::Authority;
use super::settle::{claimed, read_order};
use super::state::{State, Table, get_record, get_u64, order_key};
use crate::batch::{decode_batch, leaf_id};
use crate::certificate::check_shape;
use crate::content::{Action, Content};
use crate::envelope::Order;
use crate::error::Result;
use crate::merkle::Tree;
use crate::wire::order_reply::State as S;
use crate::{evidence, receipt, wire};

/// Pairs that one certificate gives, at most: one is enough.
const PAIRS_MAX: usize = 16;

impl Authority {
    /// Pairs of receipts that prove who is guilty, of a certificate that was refused with `CONFLICTING_CERTIFICATE`; `raw` is its
    /// batch, or empty if that is stored. None if what is settled came on the log's word, without its certificate.
    /// Errors: those of the storage, of [`check_shape`] and of [`decode_batch`].
    pub fn evidence(
        &self,
        state: &dyn State,
        certificate: &wire::Certificate,
        raw: &[Bytes],
    ) -> Result<Vec<[wire::Receipt; 2]>> {
        let id = check_shape(&self.committee, certificate)?;
        let stored = match get_u64(state, Table::Roots, &id.root)? {
            Some(number) => super::settle::stored_orders(state, number)?,
            None => raw.to_vec(),
        };
        let batch = decode_batch(&stored)?;
        let ids: Vec<_> = stored.iter().zip(&batch.orders).map(|(raw, order)| leaf_id(raw, order)).collect();
        let tree = Tree::new(&ids);
        let mut pairs = Vec::new();
        for i in claimed(certificate, id.count, self.committee.quorum())?.iter() {
            let Some(Ok(order)) = batch.orders.get(i) else { continue };
            for other in self.excluded_by(state, order)? {
                let (transaction, place) = (stored[i].clone(), (i, id.count));
                let votes = certificate.votes.clone();
                let new = receipt::assemble(&self.committee, transaction, &tree, place, votes, Vec::new());
                if evidence::check(&self.committee, [&other, &new]).is_ok() {
                    pairs.push([other, new]);
                }
                if pairs.len() == PAIRS_MAX {
                    return Ok(pairs);
                }
            }
        }
        Ok(pairs)
    }

    /// Receipts of what is settled at an order's seqnum, or has spent its notes.
    fn excluded_by(&self, state: &dyn State, order: &Order) -> Result<Vec<wire::Receipt>> {
        if order.network_id != self.committee.network.id {
            return Ok(Vec::new());
        }
        let mut places = Vec::new();
        match Content::decode(order).map(|content| content.action) {
            Ok(Action::Bearer(bearer)) => {
                for note in &bearer.notes {
                    let record: Option<wire::NoteRecord> = get_record(state, Table::Notes, &note.nonce.0)?;
                    places.extend(record.filter(|record| record.spent).map(|record| (record.batch, record.index)));
                }
                places.sort_unstable();
                places.dedup();
            }
            _ => {
                let key = order_key(order.network_id, order.actor, order.seqnum);
                let record: Option<wire::OrderRecord> = get_record(state, Table::Orders, &key)?;
                places.extend(record.filter(|r| !r.order_id.is_empty()).map(|record| (record.batch, record.index)));
            }
        }
        let mut receipts = Vec::new();
        for (batch, index) in places {
            if read_order(state, batch, index)?.is_some_and(|other| other.id != order.id) {
                let receipt = self.proof(state, batch, index, S::Settled)?.receipt;
                // Without the own acknowledgement: it proves nothing here, and what is settled may not be durable yet.
                receipts.extend(receipt.map(|receipt| wire::Receipt { acknowledgements: Vec::new(), ..receipt }));
            }
        }
        Ok(receipts)
    }
}
