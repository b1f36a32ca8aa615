//! A worker: takes orders of many wallets, batches them by shard, drives the quorum, answers each with its
//! receipt or its error. It holds no key that matters and is believed by nobody: receipts prove themselves.
//!
//! An order is in the worker's journal, synced, before it goes to an authority, and stays there until it is
//! final or refused. One sync serves a whole batch. What is undecided is tried again later, also after a
//! restart, so that an order whose batch was cut off half-way does not stay locked. Tries are bounded where
//! the committee answers: an order that waits for another one which nobody hands in must not stay for ever.
//!
//! Senders who stay sign the root of their batch together; what they hand in has a lane of its own ([`distil`]).

mod accounts;
mod distil;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use florin_core::committee::Committee;
use florin_core::distilled::round::Sealed;
use florin_core::envelope::Order;
use florin_core::limits::{MESSAGE_BYTES_MAX, ORDERS_PER_BATCH_MAX};
use florin_core::wire::{DistilReply, DistilRequest, OrderError, Outcome, Receipt, SubmitReply, SubmitRequest};
use florin_core::{Code, Error, Result};
use florin_rpc::errors::to_status;
use florin_rpc::services::worker_service_server::WorkerService;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use accounts::Accounts;

use crate::journal::Journal;
use crate::network::Network;
use crate::quorum::may_be_lag;

/// Orders that may wait for a batch, for each shard; more are refused as `BUSY`.
const QUEUE: usize = 16_384;
/// Batches of one shard on their way at a time.
const IN_FLIGHT: usize = 4;
/// How long to wait before an order without a decision is tried again; doubles each time.
const RETRY: Duration = Duration::from_secs(1);
/// The longest wait.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Tries of an order with a quorum there, but no decision; about 15 minutes.
const TRIES: u32 = 20;
/// Orders in the journal, waiting for a decision; more are refused as `BUSY`.
const UNFINISHED_MAX: usize = 65_536;
/// Bytes of orders without a decision, in queues and in the journal; more are refused as `BUSY`.
const BYTES_MAX: usize = 64 << 20;
/// Bytes of an error's message in a reply.
const MESSAGE_MAX: usize = 512;
/// Bytes at which the journal is written anew.
const COMPACT_BYTES: u64 = 64 << 20;

/// How a worker batches.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Orders in a batch, at most 4,096.
    pub orders: usize,
    /// How long the first order of a batch waits for others.
    pub linger: Duration,
    /// How long a batch whose senders stay waits for their signatures of its root; 0 asks nobody.
    pub sign: Duration,
}

impl Default for Batching {
    fn default() -> Self {
        Batching { orders: 1_000, linger: Duration::from_millis(5), sign: Duration::from_millis(250) }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
enum Record {
    Accepted { envelope: String },
    Done { id: String },
}

type Answer = oneshot::Sender<Result<Receipt>>;

struct Job {
    order: Order,
    answer: Option<Answer>,
    /// Undecided so far, this often.
    tries: u32,
    /// Whether it is in the journal.
    kept: bool,
    held: Held,
}

/// Bytes of an order that count until this is dropped.
struct Held(Arc<AtomicUsize>, usize);

impl Held {
    /// Counts without a limit.
    fn new(all: &Arc<AtomicUsize>, bytes: usize) -> Held {
        all.fetch_add(bytes, Ordering::Relaxed);
        Held(all.clone(), bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// A running worker.
#[derive(Clone)]
pub struct Worker {
    shared: Arc<Shared>,
    queues: Arc<Vec<mpsc::Sender<Job>>>,
    lanes: Arc<Vec<mpsc::Sender<distil::Message>>>,
}

struct Shared {
    network: Network,
    batching: Batching,
    journal: Mutex<Kept>,
    /// Orders in `journal`, for whoever must not wait while it syncs.
    unfinished: AtomicUsize,
    /// Bytes of all orders without a decision.
    bytes: Arc<AtomicUsize>,
    /// Of those who sign roots.
    accounts: Accounts,
    /// Orders that an authority has taken because their senders had signed the root.
    distilled: AtomicUsize,
}

struct Kept {
    journal: Journal<Record>,
    /// Not finished: id -> envelope.
    open: BTreeMap<[u8; 32], Bytes>,
}

impl Kept {
    fn append(&mut self, records: &[Record]) -> Result<()> {
        self.journal.append(records)?;
        if self.journal.length() > COMPACT_BYTES {
            let rest: Vec<Record> = self.open.values().map(|e| Record::Accepted { envelope: hex::encode(e) }).collect();
            self.journal.compact(&rest)?;
        }
        Ok(())
    }
}

impl Shared {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker {
    /// Opens the journal and starts; what an earlier run left is driven at once. Needs a tokio runtime.
    pub fn start(network: Network, journal: &Path, batching: Batching) -> Result<Worker> {
        if batching.orders == 0 || batching.orders > ORDERS_PER_BATCH_MAX {
            return Err(Error::expected(
                Code::Usage,
                "orders in a batch",
                format!("1 to {ORDERS_PER_BATCH_MAX}"),
                batching.orders,
            ));
        }
        let (journal, records) = Journal::open(journal)?;
        let mut open = BTreeMap::new();
        for record in records {
            match record {
                Record::Accepted { envelope } => {
                    let raw = Bytes::from(
                        hex::decode(&envelope)
                            .map_err(|e| Error::new(Code::BadFile, format!("worker's journal: {e}")))?,
                    );
                    let order = Order::decode(raw.clone())?;
                    open.insert(order.id, raw);
                }
                Record::Done { id } => {
                    let mut key = [0; 32];
                    hex::decode_to_slice(&id, &mut key)
                        .map_err(|e| Error::new(Code::BadFile, format!("worker's journal: {e}")))?;
                    open.remove(&key);
                }
            }
        }
        let left: Vec<Bytes> = open.values().cloned().collect();
        let shards = network.committee().shards;
        let shared = Arc::new(Shared {
            network,
            batching,
            unfinished: AtomicUsize::new(open.len()),
            bytes: Arc::default(),
            accounts: Accounts::new(),
            distilled: AtomicUsize::new(0),
            journal: Mutex::new(Kept { journal, open }),
        });
        let (mut queues, mut lanes) = (Vec::new(), Vec::new());
        for shard in 0..shards {
            let (sender, receiver) = mpsc::channel(QUEUE);
            tokio::spawn(batcher(shared.clone(), shard, receiver, sender.downgrade()));
            let (lane, told) = mpsc::channel(QUEUE);
            tokio::spawn(distil::lane(shared.clone(), shard, told, sender.downgrade()));
            queues.push(sender);
            lanes.push(lane);
        }
        let worker = Worker { shared, queues: Arc::new(queues), lanes: Arc::new(lanes) };
        if !left.is_empty() {
            info!(orders = left.len(), "driving what an earlier run left");
            let (queues, bytes) = (worker.queues.clone(), worker.shared.bytes.clone());
            let committee = worker.shared.network.committee().clone();
            tokio::spawn(async move {
                for raw in left {
                    if let Ok(order) = Order::decode(raw) {
                        let queue = &queues[committee.shard_of(order.network_id, order.actor) as usize];
                        let held = Held::new(&bytes, order.raw.len());
                        let _ = queue.send(Job { order, answer: None, tries: 0, kept: true, held }).await;
                    }
                }
            });
        }
        Ok(worker)
    }

    /// Orders that are not finished.
    pub fn unfinished(&self) -> usize {
        self.shared.unfinished.load(Ordering::Relaxed)
    }

    /// Orders so far that an authority has taken because their senders had signed the root of the batch.
    pub fn distilled(&self) -> usize {
        self.shared.distilled.load(Ordering::Relaxed)
    }

    /// Takes one order, of any network, and waits for its receipt. Who gives up waiting takes nothing back: the order is in
    /// the journal. Errors: why it can't be final, or is not yet.
    pub async fn submit_one(&self, raw: Bytes) -> Result<Receipt> {
        self.enqueue(raw)?.await.unwrap_or_else(|_| Err(stopping()))
    }

    fn enqueue(&self, raw: Bytes) -> Result<oneshot::Receiver<Result<Receipt>>> {
        let (job, receiver) = self.admit(&raw)?;
        self.send(job)?;
        Ok(receiver)
    }

    /// An order that there is room for, and what its sender waits for.
    fn admit(&self, raw: &[u8]) -> Result<(Job, oneshot::Receiver<Result<Receipt>>)> {
        // A copy: a slice would keep the whole request.
        let order = Order::decode(Bytes::copy_from_slice(raw))?;
        if self.unfinished() >= UNFINISHED_MAX {
            return Err(Error::new(Code::Busy, format!("{UNFINISHED_MAX} orders wait for a decision")));
        }
        let held = Held::new(&self.shared.bytes, raw.len());
        if self.shared.bytes.load(Ordering::Relaxed) > BYTES_MAX {
            return Err(Error::new(Code::Busy, format!("orders of {BYTES_MAX} bytes wait for a decision")));
        }
        let (answer, receiver) = oneshot::channel();
        Ok((Job { order, answer: Some(answer), tries: 0, kept: false, held }, receiver))
    }

    fn send(&self, job: Job) -> Result<()> {
        let shard = self.shared.network.committee().shard_of(job.order.network_id, job.order.actor);
        let sent = self.queues[shard as usize].try_send(job);
        sent.map_err(|_| Error::new(Code::Busy, format!("{QUEUE} orders wait for this shard")))
    }
}

#[tonic::async_trait]
impl WorkerService for Worker {
    async fn submit(&self, request: Request<SubmitRequest>) -> std::result::Result<Response<SubmitReply>, Status> {
        let orders = request.into_inner().orders;
        if orders.is_empty() || orders.len() > ORDERS_PER_BATCH_MAX {
            let e = Error::expected(Code::Limit, "orders", format!("1 to {ORDERS_PER_BATCH_MAX}"), orders.len());
            return Err(to_status(e));
        }
        let receipt = receipt_bytes_max(self.shared.network.committee(), self.shared.batching.orders);
        let sizes: Vec<usize> = orders.iter().map(|raw| raw.len() + receipt).collect();
        let reply: usize = sizes.iter().sum();
        if reply > MESSAGE_BYTES_MAX {
            let what = format!("bytes that the receipts of {} orders may take in one reply", orders.len());
            return Err(to_status(Error::expected(Code::Limit, &what, format!("at most {MESSAGE_BYTES_MAX}"), reply)));
        }
        let waiting: Vec<_> = orders.into_iter().map(|raw| self.enqueue(raw)).collect();
        let mut outcomes = Vec::with_capacity(waiting.len());
        for (index, waiting) in waiting.into_iter().enumerate() {
            let result = match waiting {
                Ok(receiver) => receiver.await.unwrap_or_else(|_| Err(stopping())),
                Err(e) => Err(e),
            };
            outcomes.push(outcome_of(result, index, sizes[index]));
        }
        Ok(Response::new(SubmitReply { outcomes }))
    }

    type DistilStream = ReceiverStream<std::result::Result<DistilReply, Status>>;

    async fn distil(
        &self,
        request: Request<Streaming<DistilRequest>>,
    ) -> std::result::Result<Response<Self::DistilStream>, Status> {
        // A proposal and an outcome.
        let (replies, receiver) = mpsc::channel(2);
        self.accompany(request.into_inner(), replies).await?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// What became of the order at `index`, in at most `bytes` bytes.
fn outcome_of(result: Result<Receipt>, index: usize, bytes: usize) -> Outcome {
    let mut e = match result {
        Ok(receipt) => return Outcome { receipt: Some(receipt), error: None },
        Err(e) => e,
    };
    let end = (0..=MESSAGE_MAX).rev().find(|i| e.message.is_char_boundary(*i)).unwrap_or(0);
    e.message.truncate(end);
    // It comes from authorities, and may be larger than a receipt.
    let fits = MESSAGE_MAX + e.pending_order.len() < bytes;
    let error = OrderError {
        index: index as u32,
        code: e.code as u32,
        message: e.message,
        pending_order: if fits { e.pending_order } else { Bytes::new() },
    };
    Outcome { receipt: None, error: Some(error) }
}

fn stopping() -> Error {
    Error::new(Code::Undecided, "the worker is stopping; it keeps the order")
}

/// Bytes that a receipt takes at most, without its order, in a reply.
fn receipt_bytes_max(committee: &Committee, orders: usize) -> usize {
    const SIGNATURE: usize = 64;
    /// Tags, lengths and small numbers of one message or field.
    const FRAME: usize = 32;
    let path = 34 * ORDERS_PER_BATCH_MAX.ilog2() as usize;
    let signed = orders.div_ceil(8) + SIGNATURE + FRAME;
    (committee.size() + committee.quorum()) * signed + path + 32 + MESSAGE_MAX + 4 * FRAME
}

/// Gathers batches of one shard and drives a few of them at a time.
async fn batcher(shared: Arc<Shared>, shard: u32, mut queue: mpsc::Receiver<Job>, again: mpsc::WeakSender<Job>) {
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    while let Some(first) = queue.recv().await {
        let deadline = Instant::now() + shared.batching.linger;
        let mut jobs = vec![first];
        let mut bytes = jobs[0].order.raw.len();
        while jobs.len() < shared.batching.orders && bytes < MESSAGE_BYTES_MAX / 2 {
            match timeout_at(deadline, queue.recv()).await {
                Ok(Some(job)) => {
                    bytes += job.order.raw.len();
                    jobs.push(job);
                }
                _ => break,
            }
        }
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (shared, again) = (shared.clone(), again.clone());
        tokio::spawn(async move {
            let undecided = drive(&shared, shard, jobs, None).await;
            drop(slot);
            retry(undecided, again).await;
        });
    }
}

/// The orders of a batch, each once, and who waits for them.
#[derive(Default)]
struct Driven {
    orders: Vec<Order>,
    answers: HashMap<[u8; 32], Vec<Answer>>,
    tries: HashMap<[u8; 32], u32>,
    kept: HashSet<[u8; 32]>,
    held: HashMap<[u8; 32], Held>,
}

impl Driven {
    fn new(jobs: Vec<Job>) -> Driven {
        let mut driven = Driven::default();
        for job in jobs {
            // The same order may have been handed in twice.
            let waiting = driven.answers.entry(job.order.id).or_insert_with(|| {
                driven.orders.push(job.order.clone());
                Vec::new()
            });
            waiting.extend(job.answer);
            let tries = driven.tries.entry(job.order.id).or_default();
            *tries = job.tries.max(*tries);
            if job.kept {
                driven.kept.insert(job.order.id);
            }
            driven.held.entry(job.order.id).or_insert(job.held);
        }
        // Orders of one account go in sequence.
        driven.orders.sort_by_key(|o| o.seqnum);
        driven
    }

    fn answer(&mut self, id: &[u8; 32], outcome: &Result<Receipt>) {
        for answer in self.answers.remove(id).unwrap_or_default() {
            let _ = answer.send(outcome.clone());
        }
    }

    /// An order to be tried again, which is in the journal.
    fn again(&mut self, order: Order, tries: u32) -> Option<Job> {
        let held = self.held.remove(&order.id)?;
        Some(Job { order, answer: None, tries, kept: true, held })
    }

    fn answer_all(&mut self, e: &Error) {
        self.answers.drain().flat_map(|(_, answers)| answers).for_each(|a| drop(a.send(Err(e.clone()))));
    }
}

/// Drives one batch, answers, and returns the orders without a decision. `sealed`: the same orders, with what their senders
/// have signed together.
async fn drive(shared: &Arc<Shared>, shard: u32, jobs: Vec<Job>, sealed: Option<Sealed>) -> Vec<Job> {
    let mut driven = Driven::new(jobs);
    if let Some(sealed) = &sealed {
        driven.orders = sealed.own_orders().to_vec();
    }
    if let Err(e) = keep(shared, &driven.orders).await {
        warn!("journal: {e}");
        driven.answer_all(&e);
        // What was in it before still is.
        let orders = std::mem::take(&mut driven.orders);
        let earlier = orders.into_iter().filter(|o| driven.kept.contains(&o.id)).collect::<Vec<_>>();
        return earlier
            .into_iter()
            .filter_map(|o| {
                let tries = driven.tries[&o.id];
                driven.again(o, tries)
            })
            .collect();
    }
    let signers = sealed.as_ref().map_or(0, |sealed| sealed.signers().len());
    let submitted = match sealed {
        Some(sealed) => shared.network.submit_distilled(shard, sealed, |_| ()).await,
        None => {
            let raw = driven.orders.iter().map(|o| o.raw.clone()).collect();
            shared.network.submit(shard, raw, |_| ()).await
        }
    };
    let submission = match submitted {
        Ok(submission) => submission,
        Err(e) => {
            warn!("batch: {e}");
            driven.answer_all(&e);
            return try_again_or_finish(shared, driven).await;
        }
    };
    for (authority, e) in &submission.culprits {
        warn!(authority = shared.network.committee().authorities[*authority].name, "misbehaves: {e}");
    }
    if signers > 0 {
        let authorities = submission.took_root;
        shared.distilled.fetch_add(if authorities > 0 { signers } else { 0 }, Ordering::Relaxed);
        info!(orders = driven.orders.len(), signers, authorities, "the senders of a batch have signed its root");
    }
    let (mut open, mut done) = (Vec::new(), Vec::new());
    let orders = std::mem::take(&mut driven.orders);
    for ((order, outcome), refused) in orders.into_iter().zip(submission.outcomes).zip(submission.refused) {
        if outcome.is_ok() {
            shared.accounts.settled(&order);
        }
        driven.answer(&order.id, &outcome);
        let tries = driven.tries[&order.id];
        match outcome {
            // What some authorities refuse, and others may have locked, is not to be forgotten half-way.
            Err(e) if !refused && (may_come(e.code) || may_be_lag(e.code)) && tries < TRIES => {
                let counts = u32::from(e.code != Code::QuorumUnreachable);
                open.extend(driven.again(order, tries + counts));
            }
            _ => done.push(order.id),
        }
    }
    finish(shared, done).await;
    open
}

/// A batch that could not be sent: its orders are tried again, or leave the journal.
async fn try_again_or_finish(shared: &Arc<Shared>, mut driven: Driven) -> Vec<Job> {
    let (mut open, mut done) = (Vec::new(), Vec::new());
    for order in std::mem::take(&mut driven.orders) {
        match driven.tries[&order.id] {
            tries if tries < TRIES => open.extend(driven.again(order, tries + 1)),
            _ => done.push(order.id),
        }
    }
    finish(shared, done).await;
    open
}

/// Hands orders in again, after a while.
async fn retry(undecided: Vec<Job>, again: mpsc::WeakSender<Job>) {
    let Some(tries) = undecided.iter().map(|j| j.tries).min() else { return };
    tokio::time::sleep((RETRY * 2u32.saturating_pow(tries)).min(RETRY_MAX)).await;
    let Some(queue) = again.upgrade() else { return };
    for job in undecided {
        let _ = queue.send(job).await;
    }
}

/// Whether an order without a receipt may still get one.
fn may_come(code: Code) -> bool {
    matches!(code, Code::NotFinal | Code::QuorumUnreachable | Code::Unreachable | Code::Timeout | Code::Undecided)
}

async fn keep(shared: &Arc<Shared>, orders: &[Order]) -> Result<()> {
    let shared = shared.clone();
    let new: Vec<([u8; 32], Bytes)> = orders.iter().map(|o| (o.id, o.raw.clone())).collect();
    blocking(move || {
        let mut kept = shared.kept();
        let (mut records, mut new_ids) = (Vec::new(), Vec::new());
        for (id, raw) in new {
            if kept.open.insert(id, raw.clone()).is_none() {
                new_ids.push(id);
                records.push(Record::Accepted { envelope: hex::encode(raw) });
            }
        }
        let result = kept.append(&records);
        if result.is_err() {
            new_ids.iter().for_each(|id| drop(kept.open.remove(id)));
        }
        shared.unfinished.store(kept.open.len(), Ordering::Relaxed);
        result
    })
    .await
}

async fn finish(shared: &Arc<Shared>, done: Vec<[u8; 32]>) {
    let shared = shared.clone();
    let result = blocking(move || {
        let mut kept = shared.kept();
        let records: Vec<Record> = done.iter().map(|id| Record::Done { id: hex::encode(id) }).collect();
        done.iter().for_each(|id| drop(kept.open.remove(id)));
        shared.unfinished.store(kept.open.len(), Ordering::Relaxed);
        kept.append(&records)
    });
    // Driving a finished order again does no harm.
    if let Err(e) = result.await {
        warn!("journal: {e}");
    }
}

async fn blocking(work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::new(Code::Io, format!("journal: {e}")))?
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
