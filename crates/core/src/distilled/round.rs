//! A worker's side of distilled batches, pure: `handle(now, input) -> effects`.
//!
//! Orders come with their own signatures, so that nothing is lost with a sender who goes away: a batch never waits longer
//! than `sign_ms`, and who has not signed its root by then rides along with the signature that came first. A sender's
//! second order waits for the next batch. False signatures of the root are found by halving, and cost only their senders.
//!
//! What it holds is bounded, in all and for an account, and an order costs the same whatever waits: it is put at the end of
//! one line, taken from its front, and put into another line at most once.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{Proposal, mark_of, marked, root_message};
use crate::batch::decode_batch;
use crate::bls;
use crate::certificate::BatchId;
use crate::committee::Committee;
use crate::envelope::Order;
use crate::error::{Code, Error, Result};
use crate::limits::{MESSAGE_BYTES_MAX, ORDERS_PER_BATCH_MAX, PENDING_WINDOW};
use crate::merkle::{Hash, Tree};

/// When a worker closes a batch, and how long it waits for signatures of its root.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Orders of a batch, 1 to 4,096.
    pub orders_max: usize,
    /// From a batch's first order until it is closed, ms.
    pub collect_ms: u64,
    /// From then on until it goes without those who have not signed, ms.
    pub sign_ms: u64,
    /// Orders that it holds at once, those whose batch is being signed included.
    pub orders_held_max: usize,
}

/// What happens to a worker.
#[derive(Clone, Debug)]
pub enum Input {
    /// A sender hands in an order with its own signature. Not one that is held already: two batches of the same orders have one
    /// root, and a signature of it would count for the first.
    Submit {
        /// The envelope.
        order: Bytes,
        /// The account's BLS key, if the sender stays to sign the root. The worker must have it from authorities: with another one
        /// the batch is refused, and has to be sent without aggregate.
        key: Option<bls::Key>,
    },
    /// A sender's answer to a proposal.
    Share {
        /// The sender.
        actor: u64,
        /// What it has signed.
        root: Hash,
        /// Its signature.
        signature: bls::SignatureBytes,
    },
    /// Time has passed.
    Tick,
}

/// What a worker is to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Show the sender its place in a batch, and ask for its signature of the root.
    Propose {
        /// The sender.
        actor: u64,
        /// Its order that is there.
        order_id: Hash,
        /// The place.
        proposal: Proposal,
    },
    /// The order can't be in a batch.
    Refused {
        /// As it came.
        order: Bytes,
        /// `DECODE` and what else [`Order::decode`] finds, `UNKNOWN_NETWORK`, `AUTHORITY_COUNT`, `SIG_FORMAT`; `BUSY` if
        /// too many wait, in all or of its account.
        error: Error,
    },
    /// A sender's signature of the root was false: its order goes with its own.
    Liar {
        /// The sender.
        actor: u64,
    },
    /// A batch is ready for the authorities.
    Finished(Sealed),
}

/// An order that waits for a batch.
struct Candidate {
    order: Order,
    key: Option<bls::Key>,
}

/// A closed batch whose root is being signed.
struct Signing {
    batch: BatchId,
    candidates: Vec<Candidate>,
    /// By place; not verified.
    shares: Vec<Option<bls::SignatureBytes>>,
    until_ms: u64,
}

/// A worker of one shard.
pub struct Round {
    committee: std::sync::Arc<Committee>,
    config: Config,
    /// The next batch, by actor.
    collecting: BTreeMap<u64, Candidate>,
    bytes: usize,
    close_ms: u64,
    /// Orders that do not fit into it, each of another account; none of an account in `collecting`.
    later: VecDeque<Candidate>,
    /// By actor, what comes after its order in `collecting` or `later`: there is one for each key.
    behind: BTreeMap<u64, VecDeque<Candidate>>,
    signing: Vec<Signing>,
    /// Orders in all of these.
    held: usize,
}

impl Round {
    /// A worker that has nothing.
    ///
    /// # Panics
    /// If a batch could have no orders or too many.
    pub fn new(committee: std::sync::Arc<Committee>, config: Config) -> Round {
        assert!((1..=ORDERS_PER_BATCH_MAX).contains(&config.orders_max), "1 to {ORDERS_PER_BATCH_MAX} orders a batch");
        let (collecting, later, behind, signing) = (BTreeMap::new(), VecDeque::new(), BTreeMap::new(), Vec::new());
        Round { committee, config, collecting, bytes: 0, close_ms: 0, later, behind, signing, held: 0 }
    }

    /// When it wants a [`Input::Tick`] at the latest.
    pub fn deadline_ms(&self) -> Option<u64> {
        let closes = (!self.collecting.is_empty()).then_some(self.close_ms);
        self.signing.iter().map(|s| s.until_ms).chain(closes).min()
    }

    /// One step at `now_ms`.
    pub fn handle(&mut self, now_ms: u64, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Submit { order, key } => match self.check(&order) {
                Ok(decoded) => self.queue(Candidate { order: decoded, key }),
                Err(error) => effects.push(Effect::Refused { order, error }),
            },
            Input::Share { actor, root, signature } => self.share(actor, &root, signature),
            Input::Tick => {}
        }
        loop {
            let more = self.fill(now_ms);
            let full = self.collecting.len() == self.config.orders_max || more;
            if self.collecting.is_empty() || !(full || now_ms >= self.close_ms) {
                break;
            }
            self.close(now_ms, &mut effects);
        }
        let ready = |s: &Signing| now_ms >= s.until_ms || s.is_complete();
        let (done, rest) = std::mem::take(&mut self.signing).into_iter().partition(ready);
        self.signing = rest;
        let done: Vec<Signing> = done;
        for signing in done {
            self.held -= signing.candidates.len();
            signing.finish(&self.committee, &mut effects);
        }
        effects
    }

    fn check(&self, raw: &Bytes) -> Result<Order> {
        if self.held >= self.config.orders_held_max {
            let message = format!("{} orders wait for their batch or its signatures", self.held);
            return Err(Error::new(Code::Busy, message));
        }
        let order = Order::decode(raw.clone())?;
        if order.network_id != self.committee.network.id || order.actor == 0 {
            let expected = format!("an account of network {}", self.committee.network.id);
            let found = format!("actor {} of {}", order.actor, order.network_id);
            return Err(Error::expected(Code::UnknownNetwork, "sender", expected, found));
        }
        order.screen_counts()?;
        if mark_of(&order).is_some() {
            return Err(Error::new(
                Code::SigFormat,
                "the order has a mark of another batch, and no signature of its own",
            ));
        }
        if self.behind.get(&order.actor).is_some_and(|line| line.len() + 1 >= PENDING_WINDOW) {
            let message = format!("{PENDING_WINDOW} orders of actor {} wait for a batch", order.actor);
            return Err(Error::new(Code::Busy, message));
        }
        Ok(order)
    }

    /// Puts an order where it waits: at the end, or behind the one of its account.
    fn queue(&mut self, candidate: Candidate) {
        self.held += 1;
        match self.behind.get_mut(&candidate.order.actor) {
            Some(line) => line.push_back(candidate),
            None => {
                self.behind.insert(candidate.order.actor, VecDeque::new());
                self.later.push_back(candidate);
            }
        }
    }

    /// Takes what waits into the next batch, in order. Whether one is left that does not fit in bytes.
    fn fill(&mut self, now_ms: u64) -> bool {
        while self.collecting.len() < self.config.orders_max {
            let Some(candidate) = self.later.pop_front() else { break };
            let bytes = self.bytes + candidate.order.raw.len() + bls::SIGNATURE_BYTES;
            if bytes > MESSAGE_BYTES_MAX && !self.collecting.is_empty() {
                self.later.push_front(candidate);
                return true;
            }
            if self.collecting.is_empty() {
                self.close_ms = now_ms + self.config.collect_ms;
            }
            self.bytes = bytes;
            self.collecting.insert(candidate.order.actor, candidate);
        }
        false
    }

    fn close(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.bytes = 0;
        let candidates: Vec<Candidate> = std::mem::take(&mut self.collecting).into_values().collect();
        for candidate in &candidates {
            // The account's next one may go with the next batch.
            let actor = candidate.order.actor;
            match self.behind.get_mut(&actor).and_then(VecDeque::pop_front) {
                Some(next) => self.later.push_back(next),
                None => drop(self.behind.remove(&actor)),
            }
        }
        let ids: Vec<Hash> = candidates.iter().map(|c| c.order.id).collect();
        let tree = Tree::new(&ids);
        let batch = BatchId { root: tree.root(), count: ids.len() };
        for (index, candidate) in candidates.iter().enumerate().filter(|(_, c)| c.key.is_some()) {
            let proposal = Proposal { batch, index, path: tree.path(index) };
            let (actor, order_id) = (candidate.order.actor, candidate.order.id);
            effects.push(Effect::Propose { actor, order_id, proposal });
        }
        let shares = vec![None; candidates.len()];
        self.signing.push(Signing { batch, candidates, shares, until_ms: now_ms + self.config.sign_ms });
    }

    fn share(&mut self, actor: u64, root: &Hash, signature: bls::SignatureBytes) {
        let Some(signing) = self.signing.iter_mut().find(|s| s.batch.root == *root) else { return };
        let Ok(at) = signing.candidates.binary_search_by_key(&actor, |c| c.order.actor) else { return };
        let Some(key) = signing.candidates[at].key else { return };
        let slot = &mut signing.shares[at];
        // Anyone may say that it is this sender: of two that differ the true one counts.
        let message = || root_message(&self.committee, &signing.batch);
        match slot {
            Some(first) if *first == signature || bls::verifies(&key, &message(), first) => {}
            _ => *slot = Some(signature),
        }
    }
}

impl Signing {
    fn is_complete(&self) -> bool {
        self.candidates.iter().zip(&self.shares).all(|(c, share)| c.key.is_none() || share.is_some())
    }

    fn finish(mut self, committee: &Committee, effects: &mut Vec<Effect>) {
        let message = root_message(committee, &self.batch);
        let places: Vec<usize> = (0..self.shares.len()).filter(|i| self.shares[*i].is_some()).collect();
        for liar in self.find_false(&places, &message) {
            self.shares[liar] = None;
            effects.push(Effect::Liar { actor: self.candidates[liar].order.actor });
        }
        let orders = self.candidates.into_iter().map(|c| c.order).collect();
        effects.push(Effect::Finished(Sealed::of(self.batch, orders, self.shares)));
    }

    /// Those of these shares that are false: together they verify, or each half is asked the same.
    fn find_false(&self, places: &[usize], message: &[u8]) -> Vec<usize> {
        if places.is_empty() || self.all_true(places, message) {
            return Vec::new();
        }
        if let [one] = places {
            return vec![*one];
        }
        let (left, right) = places.split_at(places.len() / 2);
        let mut found = self.find_false(left, message);
        found.extend(self.find_false(right, message));
        found
    }

    fn all_true(&self, places: &[usize], message: &[u8]) -> bool {
        let mut sum = bls::Sum::with_capacity(places.len());
        places.iter().filter_map(|i| self.candidates[*i].key.as_ref()).for_each(|key| sum.add(key));
        let signatures = bls::sum_signatures(places.iter().filter_map(|i| self.shares[*i].as_ref()));
        signatures.is_ok_and(|signature| sum.verifies(message, &signature))
    }
}

/// A batch as a worker has it: each order with its own signature, and with a share of what signs the root, if its sender has
/// given one. The root is the same whichever of the two an order goes with.
#[derive(Clone, Debug)]
pub struct Sealed {
    batch: BatchId,
    orders: Vec<Order>,
    shares: Vec<Option<bls::SignatureBytes>>,
    /// The sum of all shares, if there are any.
    aggregate: Option<bls::SignatureBytes>,
}

impl Sealed {
    /// A batch of orders in ascending order of their accounts, with true shares. Errors: those of [`decode_batch`], and of the
    /// first order that does not decode.
    pub fn new(raw: &[Bytes], shares: Vec<Option<bls::SignatureBytes>>) -> Result<Sealed> {
        assert_eq!(raw.len(), shares.len(), "a share or none for each order");
        let decoded = decode_batch(raw)?;
        let orders: Result<Vec<Order>> = decoded.orders.into_iter().collect();
        Ok(Sealed::of(decoded.id, orders?, shares))
    }

    fn of(batch: BatchId, orders: Vec<Order>, shares: Vec<Option<bls::SignatureBytes>>) -> Sealed {
        let aggregate = bls::sum_signatures(shares.iter().flatten()).ok();
        Sealed { batch, orders, shares, aggregate }
    }

    /// Root and count.
    pub fn batch(&self) -> &BatchId {
        &self.batch
    }

    /// Places of those who have signed the root.
    pub fn signers(&self) -> Vec<usize> {
        (0..self.shares.len()).filter(|i| self.shares[*i].is_some()).collect()
    }

    /// The orders, each with its own signature.
    pub fn own_orders(&self) -> &[Order] {
        &self.orders
    }

    /// The order at a place, with its own signature.
    pub fn own(&self, index: usize) -> Bytes {
        self.orders[index].raw.clone()
    }

    /// Every order with its own signature.
    pub fn plain(&self) -> Vec<Bytes> {
        self.orders.iter().map(|order| order.raw.clone()).collect()
    }

    /// The batch for the authorities: those of `signers` who have given a share are marked, the first with the aggregate of
    /// them all; the others go with their own signatures.
    pub fn orders(&self, signers: &[usize]) -> Vec<Bytes> {
        let share = |i: &usize| self.shares.get(*i).and_then(Option::as_ref);
        let marked_places: Vec<usize> = signers.iter().copied().filter(|i| share(i).is_some()).collect();
        let mut orders = self.plain();
        let aggregate = match self.aggregate {
            Some(all) if marked_places.len() == self.shares.iter().flatten().count() => Some(all),
            _ => bls::sum_signatures(marked_places.iter().filter_map(share)).ok(),
        };
        let Some(aggregate) = aggregate else { return orders };
        for (n, i) in marked_places.iter().enumerate() {
            orders[*i] = marked(&self.orders[*i], (n == 0).then_some(&aggregate));
        }
        orders
    }

    /// Whom to ask an authority to take the aggregate of, after it has refused some with these errors, by place: those of
    /// `signers` whose key it did not name as unsure and that it has not accepted all the same. Nobody, if that is
    /// no other question than before.
    pub fn again(&self, signers: &[usize], errors: &[(usize, Code)]) -> Vec<usize> {
        let refused = |i: &usize| errors.contains(&(*i, Code::BadAggregate));
        let again: Vec<usize> = signers.iter().copied().filter(refused).collect();
        if again.len() < signers.len() { again } else { Vec::new() }
    }
}

#[cfg(test)]
#[path = "round_tests.rs"]
mod tests;
