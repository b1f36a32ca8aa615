//! Handing in transactions of others: any number, of any actors, each as often as one likes.
//!
//! Orders of one actor go in the order of their numbers, at most [`PENDING_WINDOW`] at a time. What is settled already
//! gets its receipt again and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use florin_core::committee::Committee;
use florin_core::envelope::Order;
use florin_core::limits::{MESSAGE_BYTES_MAX, ORDERS_PER_BATCH_MAX, PENDING_WINDOW};
use florin_core::receipt::verify;
use florin_core::wire::Receipt;
use florin_core::{Code, Error, Result};

use crate::network::{Event, Network};
use crate::quorum::may_be_lag;
use crate::worker_client::WorkerClient;

/// How often orders are offered again that a quorum refuses as one would that has not yet heard what the log has decided, and the pause
/// between.
const TRIES: usize = 8;
const PAUSE: Duration = Duration::from_millis(100);
/// Orders in one request to a worker: their receipts fit its answer for a committee of any size.
const WORKER_ORDERS: usize = 64;

/// What became of a transaction.
#[derive(Clone, Debug)]
pub enum Pushed {
    /// Final; the receipt is checked.
    Settled(Box<Receipt>),
    /// The committee refuses it.
    Refused(Error),
    /// It may still settle: handed in again, it goes on.
    Waiting(Error),
}

impl Pushed {
    fn of(outcome: Result<Receipt>) -> Pushed {
        match outcome {
            Ok(receipt) => Pushed::Settled(Box::new(receipt)),
            Err(e) if may_come(e.code) => Pushed::Waiting(e),
            Err(e) => Pushed::Refused(e),
        }
    }

    /// Why it is not final.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Pushed::Settled(_) => None,
            Pushed::Refused(e) | Pushed::Waiting(e) => Some(e),
        }
    }
}

/// Whether the order may still become final by itself.
fn may_come(code: Code) -> bool {
    matches!(
        code,
        Code::NotFinal | Code::QuorumUnreachable | Code::Unreachable | Code::Timeout | Code::Undecided | Code::Busy
    )
}

/// Hands orders to the authorities and tells what became of each. Errors: `LIMIT` for an order that is too large for any batch.
pub async fn push(network: &Network, orders: &[Order], mut on_event: impl FnMut(Event)) -> Result<Vec<Pushed>> {
    let mut run = Run::new(orders);
    while let Some((shard, batch)) = run.next_batch(|order| network.committee().shard_of(order.network_id, order.actor))
    {
        for attempt in 1.. {
            let raw: Vec<Bytes> = batch.iter().map(|i| orders[*i].raw.clone()).collect();
            let submission = network.submit(shard, raw, &mut on_event).await?;
            let lags = |e: &Error| may_be_lag(e.code) && !matches!(e.code, Code::BadSeq | Code::BadPrevHash);
            let again = submission.outcomes.iter().any(|o| o.as_ref().is_err_and(lags)) && attempt < TRIES;
            if !again {
                run.note(&batch, submission.outcomes);
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(run.outcomes())
}

/// Hands orders to a worker, and to the authorities what it refuses: a worker is not believed when it says no. Its receipts are
/// checked. Errors: as of [`push`]; what the worker does not answer is waiting.
pub async fn push_through(worker: &WorkerClient, network: &Network, orders: &[Order]) -> Result<Vec<Pushed>> {
    let mut run = Run::new(orders);
    let mut refused = BTreeSet::new();
    while let Some((_, mut batch)) = run.next_batch(|_| 0) {
        let rest = batch.split_off(batch.len().min(WORKER_ORDERS));
        run.put_back(rest);
        let raw = batch.iter().map(|i| orders[*i].raw.clone()).collect();
        let outcomes = match worker.submit(raw).await {
            Ok(outcomes) => outcomes,
            Err(e) => vec![Err(e); batch.len()],
        };
        let checked = batch.iter().zip(outcomes).map(|(i, outcome)| {
            let receipt = outcome?;
            check_receipt(network.committee(), &orders[*i], &receipt)?;
            Ok(receipt)
        });
        let checked: Vec<Result<Receipt>> = checked.collect();
        for (i, outcome) in batch.iter().zip(&checked) {
            if outcome.as_ref().is_err_and(|e| !may_come(e.code)) {
                refused.insert(*i);
            }
        }
        run.note(&batch, checked);
    }
    let mut outcomes = run.outcomes();
    let again: Vec<usize> = (0..orders.len()).filter(|i| run_again(&outcomes, &refused, *i)).collect();
    let of_them: Vec<Order> = again.iter().map(|i| orders[*i].clone()).collect();
    if !refused.is_empty() {
        for (i, outcome) in again.iter().zip(push(network, &of_them, |_| ()).await?) {
            outcomes[*i] = outcome;
        }
    }
    Ok(outcomes)
}

/// Refused by the worker, or behind one that was.
fn run_again(outcomes: &[Pushed], refused: &BTreeSet<usize>, i: usize) -> bool {
    refused.contains(&i)
        || (!refused.is_empty() && matches!(&outcomes[i], Pushed::Waiting(e) if e.code == Code::BadSeq))
}

/// Whether a receipt proves this very order final. Errors: those of [`verify`], `BAD_PROOF`.
pub fn check_receipt(committee: &Committee, order: &Order, receipt: &Receipt) -> Result<()> {
    let found = verify(committee, receipt)?;
    match found.id == order.id {
        true => Ok(()),
        false => {
            let (expected, found) = (hex::encode(order.id), hex::encode(found.id));
            Err(Error::expected(Code::BadProof, "order of the receipt", expected, found))
        }
    }
}

/// Orders on their way, by actor.
struct Run<'a> {
    orders: &'a [Order],
    /// Indices of what was not sent yet, by actor, in sequence.
    queues: BTreeMap<(u64, u64), Vec<usize>>,
    outcomes: Vec<Option<Pushed>>,
    /// The first seqnum of an actor that is not settled.
    failed: BTreeMap<(u64, u64), u32>,
    /// Why nothing more is sent.
    halted: Option<Error>,
}

impl<'a> Run<'a> {
    fn new(orders: &'a [Order]) -> Run<'a> {
        let mut queues: BTreeMap<(u64, u64), Vec<usize>> = BTreeMap::new();
        for (i, order) in orders.iter().enumerate() {
            queues.entry((order.network_id, order.actor)).or_default().push(i);
        }
        // Stable: where there are no sequence numbers the order of the file stays.
        queues.values_mut().for_each(|queue| queue.sort_by_key(|i| orders[*i].seqnum));
        Run { orders, queues, outcomes: vec![None; orders.len()], failed: BTreeMap::new(), halted: None }
    }

    /// The next orders of one shard, as many as a batch takes.
    fn next_batch(&mut self, shard_of: impl Fn(&Order) -> u32) -> Option<(u32, Vec<usize>)> {
        let orders = self.orders;
        let first = self.queues.values().find_map(|queue| queue.first())?;
        let shard = shard_of(&orders[*first]);
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for queue in self.queues.values_mut() {
            let here = queue.first().is_some_and(|i| shard_of(&orders[*i]) == shard);
            let room = if here { PENDING_WINDOW.min(ORDERS_PER_BATCH_MAX - batch.len()) } else { 0 };
            let fits = |i: &&usize| {
                bytes += orders[**i].raw.len();
                bytes <= MESSAGE_BYTES_MAX / 2
            };
            let count = queue.iter().take(room).take_while(fits).count();
            batch.extend(queue.drain(..count));
        }
        if batch.is_empty() {
            batch.push(self.queues.values_mut().find(|queue| !queue.is_empty())?.remove(0));
        }
        self.queues.retain(|_, queue| !queue.is_empty());
        Some((shard, batch))
    }

    fn put_back(&mut self, indices: Vec<usize>) {
        for i in indices.into_iter().rev() {
            let order = &self.orders[i];
            self.queues.entry((order.network_id, order.actor)).or_default().insert(0, i);
        }
    }

    /// Notes what became of a batch.
    fn note(&mut self, batch: &[usize], outcomes: Vec<Result<Receipt>>) {
        if !outcomes.is_empty() && outcomes.iter().all(|o| o.as_ref().is_err_and(|e| may_come(e.code))) {
            // Nobody is there: the rest would only wait as long again.
            self.queues.clear();
            self.halted = outcomes.iter().find_map(|o| o.as_ref().err()).cloned();
        }
        for (i, outcome) in batch.iter().zip(outcomes) {
            let order = &self.orders[*i];
            let actor = (order.network_id, order.actor);
            let out_of_turn = |e: &Error| matches!(e.code, Code::BadSeq | Code::BadPrevHash);
            let outcome = match (Pushed::of(outcome), self.failed.get(&actor)) {
                (Pushed::Refused(e), Some(before)) if out_of_turn(&e) && *before < order.seqnum => {
                    let message = format!("waits for the transaction with seqnum {before}");
                    Pushed::Waiting(Error::new(Code::BadSeq, message))
                }
                (outcome, _) => outcome,
            };
            // Where numbers are out of turn for another reason, what follows is refused for that as well.
            if outcome.error().is_some_and(|e| !out_of_turn(e)) {
                self.failed.entry(actor).or_insert(order.seqnum);
            }
            self.outcomes[*i] = Some(outcome);
        }
    }

    fn outcomes(self) -> Vec<Pushed> {
        let halted = self.halted.unwrap_or_else(|| Error::new(Code::Undecided, "it was not sent"));
        self.outcomes.into_iter().map(|o| o.unwrap_or_else(|| Pushed::Waiting(halted.clone()))).collect()
    }
}

#[cfg(test)]
#[path = "push_tests.rs"]
mod tests;
