//! What an authority's stream says, checked against the committee. Nothing here asks anyone.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use florin_core::bitmap::Bitmap;
use florin_core::certificate::{BatchId, check_certificate, check_shape};
use florin_core::committee::Committee;
use florin_core::envelope::Order;
use florin_core::merkle::{Hash, root_from_parts};
use florin_core::wire;
use florin_core::{Code, Error, Result};

use super::Proof;
use super::merge::{Page, Shown};

/// Batches whose certificates are remembered.
const CACHE: usize = 4_096;

/// What certificates have proved lately, by batch: several authorities show the same.
#[derive(Default)]
pub(super) struct Certified {
    batches: HashMap<BatchId, Bitmap>,
    order: VecDeque<BatchId>,
    /// Certificates whose signatures were verified.
    pub(super) verified: u64,
}

impl Certified {
    fn covers(&self, batch: &BatchId, indices: &[(usize, Hash)]) -> bool {
        self.batches.get(batch).is_some_and(|certified| indices.iter().all(|(i, _)| certified.get(*i)))
    }

    fn add(&mut self, batch: BatchId, certified: Bitmap) {
        self.verified += 1;
        match self.batches.get_mut(&batch) {
            Some(known) => known.union(&certified),
            None => {
                self.batches.insert(batch, certified);
                self.order.push_back(batch);
                if self.order.len() > CACHE
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.batches.remove(&oldest);
                }
            }
        }
    }
}

/// What pages are checked against.
pub(super) struct Checks {
    pub(super) committee: Arc<Committee>,
    pub(super) network_id: u64,
    pub(super) certified: Mutex<Certified>,
}

fn wrong(what: &str, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Error {
    Error::expected(Code::BadProof, what, expected, found)
}

impl Checks {
    /// The entries of a reply to a request from a position on. Errors: `BAD_PROOF`, and those of orders and certificates.
    pub(super) fn page(&self, from: u64, reply: wire::ListenReply) -> Result<Page> {
        let mut entries = Vec::new();
        let mut at = from;
        for batch in reply.batches {
            self.batch(&mut at, batch, &mut entries)?;
        }
        if reply.next < at || reply.next > reply.end {
            let expected = format!("{at} to {}", reply.end);
            return Err(wrong("position after a page", expected, reply.next));
        }
        Ok(Page { entries, next: reply.next, level: reply.next == reply.end })
    }

    fn batch(&self, at: &mut u64, batch: wire::StreamBatch, entries: &mut Vec<Shown>) -> Result<()> {
        let orders = batch.orders.unwrap_or_default();
        let count = batch.positions.len();
        let lengths = [orders.indices.len(), orders.bodies.len(), batch.times_us.len()];
        if lengths.iter().any(|n| *n != count) || !(batch.transactions.is_empty() || batch.transactions.len() == count)
        {
            let found = format!("{lengths:?} and {}", batch.transactions.len());
            return Err(wrong("parts of a run of orders", format!("{count} each"), found));
        }
        let mut decoded = Vec::with_capacity(count);
        for body in &orders.bodies {
            let order = Order::decode_body(body.clone())?;
            if order.network_id != self.network_id {
                return Err(wrong("network of an order", self.network_id, order.network_id));
            }
            decoded.push(order);
        }
        let proof = match &orders.certificate {
            Some(certificate) => {
                self.prove(certificate, &orders, &decoded)?;
                Some(Proof::Certificate(Arc::new(orders)))
            }
            None => None,
        };
        for (i, order) in decoded.into_iter().enumerate() {
            let position = batch.positions[i];
            if position < *at || position == u64::MAX {
                return Err(wrong("position of an order", format!("{at} or more"), position));
            }
            *at = position + 1;
            let transaction = batch.transactions.get(i).cloned();
            if let Some(raw) = &transaction {
                let whole = Order::decode(raw.clone())?;
                whole.screen_counts()?;
                if whole.id != order.id {
                    return Err(wrong("order of a transaction", hex::encode(order.id), hex::encode(whole.id)));
                }
            }
            entries.push(Shown { position, time_us: batch.times_us[i], order, transaction, proof: proof.clone() });
        }
        Ok(())
    }

    /// Checks that the certificate is for these orders: by Merkle proof, then, unless it was done before, by signatures.
    fn prove(&self, certificate: &wire::Certificate, orders: &wire::CertifiedOrders, decoded: &[Order]) -> Result<()> {
        let batch = check_shape(&self.committee, certificate)?;
        let indices = orders.indices.iter().map(|i| *i as usize);
        let mut placed: Vec<(usize, Hash)> = indices.zip(decoded.iter().map(|order| order.id)).collect();
        placed.sort_unstable();
        let proof: Option<Vec<Hash>> = orders.proof.iter().map(|h| h.as_ref().try_into().ok()).collect();
        let root = proof.and_then(|proof| root_from_parts(&placed, batch.count, &proof));
        if root != Some(batch.root) {
            let found = root.map_or("a proof that does not fit".to_owned(), hex::encode);
            return Err(wrong("root of a run of orders", hex::encode(batch.root), found));
        }
        if self.certified().covers(&batch, &placed) {
            return Ok(());
        }
        let (_, certified) = check_certificate(&self.committee, certificate)?;
        if let Some((index, _)) = placed.iter().find(|(i, _)| !certified.get(*i)) {
            let expected = format!("at least {}", self.committee.quorum());
            return Err(Error::expected(Code::NoQuorum, &format!("votes for order {index}"), expected, "fewer"));
        }
        self.certified().add(batch, certified);
        Ok(())
    }

    pub(super) fn certified(&self) -> std::sync::MutexGuard<'_, Certified> {
        self.certified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
