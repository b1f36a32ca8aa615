//! The shell around one shard: two threads and a queue.
//!
//! The *step* thread takes inputs one by one, runs the state machine and writes what it returns, without
//! waiting for the disk. The *sync* thread makes everything written so far durable and only then lets the
//! replies go. While it waits for the disk the step thread goes on, so one sync covers all requests that
//! came in meanwhile: group commit without a timer. If nothing else waits the step thread syncs itself:
//! a single payment is spared the waking of another thread.
//!
//! After a write or sync has failed nothing is promised any more: every request gets the same error, and
//! what was promised before stays on disk.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use florin_core::authority::Authority;
use florin_core::authority::effect::{Effects, Reply};
use florin_core::authority::hot::Hot;
use florin_core::authority::input::Input;
use florin_core::authority::mint::NoteChecks;
use florin_core::authority::query::settled_by;
use florin_core::bearer;
use florin_core::certificate::batch_id;
use florin_core::wire;
use florin_core::{Code, Error, Result};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tracing::{error, info};

use crate::evidence;
use crate::meter::{CpuTimes, ThreadMeter, thread_cpu_ns};
use crate::storage::Store;

/// Requests that may wait for the step thread; more are refused as `BUSY`.
const QUEUE: usize = 512;

/// Long reads at a time.
const LONG_READS: usize = 2;

enum Command {
    Input(Input, oneshot::Sender<Result<Reply>>),
    /// A position to note; nobody waits for it, and the next sync covers it.
    Followed {
        authority: u32,
        position: u64,
    },
    /// Answered when all that was written before it is durable.
    Barrier(oneshot::Sender<Result<()>>),
}

/// Something to let go once all that was written before it is durable.
struct Release {
    written: bool,
    outbox: Vec<(u32, u64)>,
    settled_end: Option<u64>,
    send: Option<Box<dyn FnOnce(Result<()>) + Send>>,
}

/// Counters of a shard, for metrics.
#[derive(Default, Debug)]
pub struct Counters {
    /// Batches voted on.
    pub vote_requests: AtomicU64,
    /// Certificates handled.
    pub settle_requests: AtomicU64,
    /// Orders of batches voted on.
    pub orders_seen: AtomicU64,
    /// Orders refused.
    pub orders_refused: AtomicU64,
    /// Disk syncs.
    pub syncs: AtomicU64,
    /// CPU time by kind.
    pub cpu: Arc<CpuTimes>,
}

/// A running shard.
pub struct Shard {
    authority: Arc<Authority>,
    store: Store,
    queue: mpsc::Sender<Command>,
    settled_end: watch::Receiver<u64>,
    outbox: watch::Receiver<u64>,
    fault: watch::Receiver<Option<Error>>,
    counters: Arc<Counters>,
    long_reads: Arc<Semaphore>,
    note_work: NoteWork,
    /// Where evidence goes, once it is said.
    data: OnceLock<PathBuf>,
}

/// Places for the curve arithmetic of notes, which is done beside the threads of the shard.
#[derive(Clone)]
pub struct NoteWork {
    /// At work: one a core.
    cores: Arc<Semaphore>,
    /// At work or waiting.
    places: Arc<Semaphore>,
}

impl NoteWork {
    /// As many places as the machine has cores, for all shards of a process.
    pub fn new() -> NoteWork {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        NoteWork { cores: Arc::new(Semaphore::new(cores)), places: Arc::new(Semaphore::new(QUEUE)) }
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let Ok(_place) = self.places.try_acquire() else {
            return Err(Error::new(Code::Busy, format!("{QUEUE} requests with notes wait")));
        };
        let core = self.cores.clone().acquire_owned().await.map_err(|_| stopped())?;
        let done = tokio::task::spawn_blocking(move || {
            let _core = core;
            work()
        });
        done.await.map_err(|_| stopped())?
    }
}

impl Default for NoteWork {
    fn default() -> NoteWork {
        NoteWork::new()
    }
}

/// The threads of a shard; joining them waits until the last reply has gone.
pub struct ShardThreads(Vec<JoinHandle<()>>);

impl ShardThreads {
    /// Waits for the threads, which end when the last [`Shard`] is dropped.
    pub fn join(self) {
        for thread in self.0 {
            if thread.join().is_err() {
                error!("a shard's thread panicked");
            }
        }
    }
}

impl Shard {
    /// Starts the threads over an open store.
    pub fn start(authority: Authority, store: Store, note_work: NoteWork) -> Result<(Arc<Shard>, ShardThreads)> {
        let authority = Arc::new(authority);
        // What an earlier process wrote and did not sync may be visible here; make it durable before
        // anything that rests on it is said.
        store.sync()?;
        let totals = authority.totals(&store)?;
        let (queue, commands) = mpsc::channel(QUEUE);
        let (release, releases) = std::sync::mpsc::channel();
        let (settled_sender, settled_end) = watch::channel(totals.next.1);
        let (outbox_sender, outbox) = watch::channel(0);
        let (fault_sender, fault) = watch::channel(None);
        let fault_sender = Arc::new(fault_sender);
        let counters = Arc::new(Counters::default());

        let name = |what: &str| format!("{what}-{}", authority.shard());
        let spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
            let watch = Watch(fault_sender.clone());
            let run = move || {
                let _watch = watch;
                run();
            };
            std::thread::Builder::new()
                .name(name)
                .spawn(run)
                .map_err(|e| Error::new(Code::Io, format!("starting a thread: {e}")))
        };
        let sync = Arc::new(Sync {
            store: store.clone(),
            settled_end: settled_sender,
            outbox: outbox_sender,
            fault: fault_sender.clone(),
            counters: counters.clone(),
            waiting: AtomicU64::new(0),
        });
        let step = Step {
            authority: authority.clone(),
            store: store.clone(),
            hot: Hot::default(),
            release,
            sync: sync.clone(),
            fault: fault_sender.clone(),
            counters: counters.clone(),
        };
        let threads = vec![
            spawn(name("step"), Box::new(move || step.run(commands)))?,
            spawn(name("sync"), Box::new(move || sync.run(&releases)))?,
        ];
        info!(shard = authority.shard(), orders = totals.orders, "shard open");
        let long_reads = Arc::new(Semaphore::new(LONG_READS));
        let shard = Shard {
            authority,
            store,
            queue,
            settled_end,
            outbox,
            fault,
            counters,
            long_reads,
            note_work,
            data: OnceLock::new(),
        };
        Ok((Arc::new(shard), ShardThreads(threads)))
    }

    /// The state machine, for reads.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Its store, for reads.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Its counters.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// End of what is durable in the settled stream; changes wake its followers.
    pub fn settled_end(&self) -> watch::Receiver<u64> {
        self.settled_end.clone()
    }

    /// Changes when something new and durable is in the outbox.
    pub fn outbox_changes(&self) -> watch::Receiver<u64> {
        self.outbox.clone()
    }

    /// Why it promises nothing any more, if so.
    pub fn fault(&self) -> Option<Error> {
        self.fault.borrow().clone()
    }

    /// Why it votes for nothing, if so: a fault, or a genesis file that is not loaded.
    pub fn why_silent(&self) -> Option<Error> {
        self.fault().or_else(|| self.authority.ready(&self.store).err())
    }

    /// One step, answered when it is durable. Errors: those of the step, `BUSY`, `STORAGE_*`.
    pub async fn handle(&self, input: Input) -> Result<Reply> {
        let (respond, response) = oneshot::channel();
        self.enqueue(Command::Input(input, respond))?;
        response.await.map_err(|_| stopped())?
    }

    /// As [`Shard::handle`], waiting for room in the queue: for this authority's own work.
    pub async fn handle_own(&self, input: Input) -> Result<Reply> {
        let (respond, response) = oneshot::channel();
        self.queue.send(Command::Input(input, respond)).await.map_err(|_| stopped())?;
        response.await.map_err(|_| stopped())?
    }

    /// What is known of an order. Its acknowledgement is a promise, so it waits for the disk as well. Proving it
    /// hashes the whole batch: that is not the step thread's work, or whoever asks could keep others from voting.
    pub async fn order(&self, request: wire::OrderRequest) -> Result<wire::OrderReply> {
        let (authority, store) = (self.authority.clone(), self.store.clone());
        let reply = tokio::task::spawn_blocking(move || authority.order(&store, &request)).await;
        let reply = reply.map_err(|_| stopped())??;
        let (respond, response) = oneshot::channel();
        self.enqueue(Command::Barrier(respond))?;
        response.await.map_err(|_| stopped())?.map(|()| reply)
    }

    /// A read that may look at many batches: off the threads that serve requests, a few at a time. What it says is
    /// durable. Errors: those of the read; `BUSY`.
    pub async fn long_read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Authority, &Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = self.long_reads.clone().acquire_owned().await.map_err(|_| stopped())?;
        let (authority, store) = (self.authority.clone(), self.store.clone());
        let found = tokio::task::spawn_blocking(move || {
            let _place = place;
            read(&authority, &store)
        });
        let found = found.await.map_err(|_| stopped())??;
        self.barrier().await?;
        Ok(found)
    }

    /// Votes on orders. Signatures of notes are checked first, on another thread.
    pub async fn vote(&self, orders: Vec<Bytes>) -> Result<Reply> {
        let checks = match orders.iter().any(|order| bearer::may_be(order)) {
            true => {
                let (authority, store, orders) = (self.authority.clone(), self.store.clone(), orders.clone());
                self.note_work.run(move || authority.check_notes(now_us(), &orders, &store)).await?
            }
            false => NoteChecks::default(),
        };
        self.handle(Input::Vote { orders, checks }).await
    }

    /// Settles, and signs what the settled orders ask for: after it is durable.
    pub async fn settle(&self, certificate: wire::Certificate, orders: Vec<Bytes>, shares: bool) -> Result<Reply> {
        let batch = batch_id(&certificate.root, certificate.count)?;
        // For shares, and for evidence.
        let kept = orders.clone();
        let settled = self.handle(Input::Settle { certificate: certificate.clone(), orders }).await;
        let mut reply = self.watched(settled, certificate, &kept).await?;
        if let (true, Reply::Settle(settled)) = (shares, &mut reply)
            && settled.acknowledgement.is_some()
        {
            let bits = settled_by(settled, batch.count);
            let (authority, store) = (self.authority.clone(), self.store.clone());
            let sign = move || authority.settled_shares(&store, &batch, &kept, &bits);
            settled.shares = self.note_work.run(sign).await?;
        }
        Ok(reply)
    }

    /// Settles what was fetched from a peer, waiting for room in the queue.
    pub async fn fetched(&self, certificate: wire::Certificate, orders: Vec<Bytes>) -> Result<Reply> {
        let settled =
            self.handle_own(Input::Fetched { certificate: certificate.clone(), orders: orders.clone() }).await;
        self.watched(settled, certificate, &orders).await
    }

    /// Keeps in this folder what proves that others lie.
    pub fn keep_evidence_in(&self, data: &Path) {
        let _ = self.data.set(data.to_owned());
    }

    /// Writes down what a certificate proves that can't be.
    async fn watched(&self, reply: Result<Reply>, certificate: wire::Certificate, orders: &[Bytes]) -> Result<Reply> {
        if let (Err(e), Some(data)) = (&reply, self.data.get())
            && e.code == Code::ConflictingCertificate
        {
            let (data, orders) = (data.clone(), orders.to_vec());
            let kept = self.long_read(move |authority, store| {
                let pairs = authority.evidence(store, &certificate, &orders)?;
                evidence::keep(&data, authority.committee(), &pairs)
            });
            if let Err(e) = kept.await {
                error!("evidence is not kept: {e}");
            }
        }
        reply
    }

    /// What is known of notes, with signature shares. It is durable.
    pub async fn notes(&self, request: wire::NotesRequest) -> Result<wire::NotesReply> {
        let (authority, store) = (self.authority.clone(), self.store.clone());
        let reply = self.note_work.run(move || authority.notes(&store, &request)).await?;
        self.barrier().await?;
        Ok(reply)
    }

    /// Notes how far a peer's settled stream has been looked at.
    pub async fn followed(&self, authority: u32, position: u64) -> Result<()> {
        self.queue.send(Command::Followed { authority, position }).await.map_err(|_| stopped())
    }

    /// Waits until all that is visible now is durable.
    pub async fn barrier(&self) -> Result<()> {
        let (respond, response) = oneshot::channel();
        self.queue.send(Command::Barrier(respond)).await.map_err(|_| stopped())?;
        response.await.map_err(|_| stopped())?
    }

    fn enqueue(&self, command: Command) -> Result<()> {
        self.queue.try_send(command).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => {
                Error::new(Code::Busy, format!("{QUEUE} requests wait for shard {}", self.authority.shard()))
            }
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })
    }
}

/// Says why a shard is silent whose thread has panicked: an operator must see it.
struct Watch(Arc<watch::Sender<Option<Error>>>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let e = Error::new(Code::StorageFailed, "a thread of the shard panicked; it promises nothing more");
            self.0.send_if_modified(|fault| fault.is_none().then(|| *fault = Some(e)).is_some());
        }
    }
}

fn stopped() -> Error {
    Error::new(Code::Busy, "the shard is stopping")
}

struct Step {
    authority: Arc<Authority>,
    store: Store,
    /// Nobody else writes accounts to the store.
    hot: Hot,
    release: std::sync::mpsc::Sender<Release>,
    sync: Arc<Sync>,
    fault: Arc<watch::Sender<Option<Error>>>,
    counters: Arc<Counters>,
}

impl Step {
    fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.blocking_recv() {
            let release = match command {
                Command::Input(input, respond) => self.input(input, respond),
                Command::Followed { authority, position } => {
                    // A lost position only means that a few entries are looked at again.
                    let effects = self.step(Input::Followed { authority, position });
                    effects.err().inspect(|e| error!("noting a position: {e}"));
                    continue;
                }
                Command::Barrier(respond) => {
                    let send = move |synced: Result<()>| drop(respond.send(synced));
                    Release { written: false, outbox: Vec::new(), settled_end: None, send: Some(Box::new(send)) }
                }
            };
            if commands.is_empty() && self.sync.waiting.load(Ordering::Acquire) == 0 {
                self.sync.release(vec![release]);
                continue;
            }
            self.sync.waiting.fetch_add(1, Ordering::Relaxed);
            if self.release.send(release).is_err() {
                return;
            }
        }
    }

    fn input(&mut self, input: Input, respond: oneshot::Sender<Result<Reply>>) -> Release {
        self.count(&input);
        let mut release = Release { written: false, outbox: Vec::new(), settled_end: None, send: None };
        let reply = self.step(input).map(|(effects, written)| {
            release.written = written;
            release.outbox = effects.outbox;
            release.settled_end = effects.settled_end;
            effects.reply
        });
        if let Ok(Reply::Vote(vote)) = &reply {
            self.counters.orders_refused.fetch_add(vote.errors.len() as u64, Ordering::Relaxed);
        }
        release.send = Some(Box::new(move |synced: Result<()>| drop(respond.send(synced.and(reply)))));
        release
    }

    fn step(&mut self, input: Input) -> Result<(Effects, bool)> {
        if let Some(fault) = self.fault.borrow().clone() {
            return Err(fault);
        }
        let mut meter = ThreadMeter::start(self.counters.cpu.clone());
        let mut effects = self.authority.handle_hot(now_us(), input, &self.store, &mut self.hot, &mut meter)?;
        meter.begin_storage();
        let writes = std::mem::take(&mut effects.writes);
        let written = !writes.is_empty();
        if written && let Err(e) = self.store.write(&writes) {
            // A step too large for one write has done nothing; what comes after it can go on.
            if e.code != Code::Limit {
                error!("writing: {e}; this shard promises nothing more");
                self.fault.send_replace(Some(e.clone()));
            }
            return Err(e);
        }
        self.hot.written(std::mem::take(&mut effects.accounts));
        Ok((effects, written))
    }

    fn count(&self, input: &Input) {
        match input {
            Input::Vote { orders, .. } => {
                self.counters.vote_requests.fetch_add(1, Ordering::Relaxed);
                self.counters.orders_seen.fetch_add(orders.len() as u64, Ordering::Relaxed);
            }
            Input::Settle { .. } => {
                self.counters.settle_requests.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

struct Sync {
    store: Store,
    settled_end: watch::Sender<u64>,
    outbox: watch::Sender<u64>,
    fault: Arc<watch::Sender<Option<Error>>>,
    counters: Arc<Counters>,
    /// Handed to the sync thread and not yet let go: while there are any, nobody else lets go of later ones.
    waiting: AtomicU64,
}

impl Sync {
    fn run(&self, releases: &std::sync::mpsc::Receiver<Release>) {
        while let Ok(first) = releases.recv() {
            let mut group = vec![first];
            group.extend(releases.try_iter());
            let count = group.len() as u64;
            self.release(group);
            self.waiting.fetch_sub(count, Ordering::Release);
        }
    }

    /// Makes what was written durable, and then says what rests on it.
    fn release(&self, group: Vec<Release>) {
        let result = self.make_durable(group.iter().any(|r| r.written));
        let mut outbox = false;
        for release in group {
            if result.is_ok() {
                outbox |= !release.outbox.is_empty();
                if let Some(end) = release.settled_end {
                    self.settled_end.send_replace(end);
                }
            }
            if let Some(send) = release.send {
                send(result.clone());
            }
        }
        if outbox {
            self.outbox.send_modify(|n| *n += 1);
        }
    }

    fn make_durable(&self, written: bool) -> Result<()> {
        if let Some(fault) = self.fault.borrow().clone() {
            return Err(fault);
        }
        if !written {
            return Ok(());
        }
        let start = thread_cpu_ns();
        let result = self.store.sync();
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.counters.cpu.add_storage(thread_cpu_ns() - start);
        result.inspect_err(|e| {
            error!("syncing: {e}; this shard promises nothing more");
            self.fault.send_replace(Some(e.clone()));
        })
    }
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

#[cfg(test)]
#[path = "shard_tests.rs"]
mod tests;
