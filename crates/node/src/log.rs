//! The shell around the ordered log, as [`crate::shard`] is around a shard: a *step* thread that runs the state
//! machine and writes, and a *sync* thread that makes what was written durable and only then lets it be known.

use std::sync::Arc;
use std::thread::JoinHandle;

use florin_core::authority::state::LOG;
use florin_core::ordered::OrderedLog;
use florin_core::ordered::effect::Effects;
use florin_core::ordered::input::Input;
use florin_core::wire::Signed;
use florin_core::{Code, Error, Result};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{error, info};

use crate::storage::Store;

/// Inputs that may wait for the step thread.
const QUEUE: usize = 512;
/// Decided orders that a slow reader may miss.
const DECIDED: usize = 4_096;

/// (network, actor, seqnum) of orders that the log has decided.
pub type Decided = Arc<Vec<(u64, u64, u32)>>;

struct Command {
    input: Option<Input>,
    respond: Option<oneshot::Sender<Result<Effects>>>,
}

/// A running log.
pub struct LogShell {
    log: Arc<OrderedLog>,
    store: Store,
    queue: mpsc::Sender<Command>,
    outbox: watch::Receiver<u64>,
    applied: watch::Receiver<u64>,
    decided: broadcast::Sender<Decided>,
    fault: Arc<watch::Sender<Option<Error>>>,
}

/// The threads of the log, and what they tell its consensus task.
pub struct LogThreads {
    threads: Vec<JoinHandle<()>>,
    /// Sessions that ended, with the own signature, in order.
    pub closed: mpsc::UnboundedReceiver<(u64, Signed)>,
}

impl LogThreads {
    /// Waits for the threads, which end when the last [`LogShell`] is dropped.
    pub fn join(threads: Vec<JoinHandle<()>>) {
        for thread in threads {
            if thread.join().is_err() {
                error!("a thread of the log panicked");
            }
        }
    }

    /// The threads, to be joined, and the sessions that end.
    pub fn split(self) -> (Vec<JoinHandle<()>>, mpsc::UnboundedReceiver<(u64, Signed)>) {
        (self.threads, self.closed)
    }
}

impl LogShell {
    /// Starts the threads over an open store.
    pub fn start(log: OrderedLog, store: Store) -> Result<(Arc<LogShell>, LogThreads)> {
        // As for a shard: what is visible must be durable before anything rests on it.
        store.sync()?;
        let log = Arc::new(log);
        let book = log.book(&store)?;
        let (queue, commands) = mpsc::channel(QUEUE);
        let (release, releases) = std::sync::mpsc::channel();
        let (outbox_sender, outbox) = watch::channel(0);
        let (applied_sender, applied) = watch::channel(0);
        let (closed_sender, closed) = mpsc::unbounded_channel();
        let decided = broadcast::Sender::new(DECIDED);
        let fault = Arc::new(watch::Sender::new(None));
        let step = Step { log: log.clone(), store: store.clone(), release, fault: fault.clone() };
        let sync = Sync {
            store: store.clone(),
            outbox: outbox_sender,
            applied: applied_sender,
            closed: closed_sender,
            decided: decided.clone(),
            fault: fault.clone(),
        };
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let watch = Watch(fault.clone());
            let run = move || {
                let _watch = watch;
                run();
            };
            let thread = std::thread::Builder::new().name(name.into()).spawn(run);
            thread.map_err(|e| Error::new(Code::Io, format!("starting a thread: {e}")))
        };
        let threads = vec![
            spawn("log-step", Box::new(move || step.run(commands)))?,
            spawn("log-sync", Box::new(move || sync.run(releases)))?,
        ];
        info!(session = book.session, units = book.units, orders = book.orders, "log open");
        let shell = LogShell { log, store, queue, outbox, applied, decided, fault };
        Ok((Arc::new(shell), LogThreads { threads, closed }))
    }

    /// The state machine, for reads.
    pub fn log(&self) -> &OrderedLog {
        &self.log
    }

    /// Its store, for reads.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Changes when something new and durable is in the outbox.
    pub fn outbox_changes(&self) -> watch::Receiver<u64> {
        self.outbox.clone()
    }

    /// Changes when units were applied, durably.
    pub fn applied_changes(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// What is decided from now on, once it is durable.
    pub fn decided(&self) -> broadcast::Receiver<Decided> {
        self.decided.subscribe()
    }

    /// Why it goes on no more, if so.
    pub fn fault(&self) -> Option<Error> {
        self.fault.borrow().clone()
    }

    /// Stops it for good: what it would apply next can't be right.
    pub fn poison(&self, e: Error) {
        self.fault.send_if_modified(|fault| fault.is_none().then(|| *fault = Some(e)).is_some());
    }

    /// One step, answered when it is durable.
    pub async fn handle(&self, input: Input) -> Result<Effects> {
        let (respond, response) = oneshot::channel();
        self.send(Command { input: Some(input), respond: Some(respond) }).await?;
        response.await.map_err(|_| stopped())?
    }

    /// One step whose errors are faults of this authority, and that nobody waits for.
    pub async fn feed(&self, input: Input) -> Result<()> {
        self.send(Command { input: Some(input), respond: None }).await
    }

    /// Waits until all that is visible now is durable.
    pub async fn barrier(&self) -> Result<()> {
        let (respond, response) = oneshot::channel();
        self.send(Command { input: None, respond: Some(respond) }).await?;
        response.await.map_err(|_| stopped())?.map(drop)
    }

    async fn send(&self, command: Command) -> Result<()> {
        self.queue.send(command).await.map_err(|_| stopped())
    }
}

fn stopped() -> Error {
    Error::new(Code::Busy, "the log is stopping")
}

/// Says why a log is silent whose thread has panicked.
struct Watch(Arc<watch::Sender<Option<Error>>>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let e = Error::new(Code::StorageFailed, "a thread of the log panicked; it orders nothing more");
            self.0.send_if_modified(|fault| fault.is_none().then(|| *fault = Some(e)).is_some());
        }
    }
}

struct Release {
    written: bool,
    result: Result<Effects>,
    respond: Option<oneshot::Sender<Result<Effects>>>,
}

struct Step {
    log: Arc<OrderedLog>,
    store: Store,
    release: std::sync::mpsc::Sender<Release>,
    fault: Arc<watch::Sender<Option<Error>>>,
}

impl Step {
    fn run(self, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.blocking_recv() {
            let result = match command.input {
                Some(input) => self.step(input),
                None => Ok((Effects::default(), false)),
            };
            if let Err(e) = &result
                && (command.respond.is_none() || e.is_own_fault() || e.code == Code::SessionMismatch)
            {
                self.poison(e);
            }
            let written = result.as_ref().is_ok_and(|(_, written)| *written);
            let release = Release { written, result: result.map(|(effects, _)| effects), respond: command.respond };
            if self.release.send(release).is_err() {
                return;
            }
        }
    }

    fn step(&self, input: Input) -> Result<(Effects, bool)> {
        if let Some(fault) = self.fault.borrow().clone() {
            return Err(fault);
        }
        let mut effects = self.log.handle(input, &self.store)?;
        let writes = std::mem::take(&mut effects.writes);
        if writes.is_empty() {
            return Ok((effects, false));
        }
        // The log must not go on without a unit that it can't write, however large.
        self.store.write(&writes).inspect_err(|e| self.poison(e))?;
        Ok((effects, true))
    }

    fn poison(&self, e: &Error) {
        if self.fault.send_if_modified(|fault| fault.is_none().then(|| *fault = Some(e.clone())).is_some()) {
            error!(shard = LOG, "the log stops: {e}");
        }
    }
}

struct Sync {
    store: Store,
    outbox: watch::Sender<u64>,
    applied: watch::Sender<u64>,
    closed: mpsc::UnboundedSender<(u64, Signed)>,
    decided: broadcast::Sender<Decided>,
    fault: Arc<watch::Sender<Option<Error>>>,
}

impl Sync {
    fn run(self, releases: std::sync::mpsc::Receiver<Release>) {
        while let Ok(first) = releases.recv() {
            let mut group = vec![first];
            group.extend(releases.try_iter());
            let durable = self.make_durable(group.iter().any(|r| r.written));
            let (mut outbox, mut applied, mut decided) = (false, false, Vec::new());
            for Release { result, respond, .. } in group {
                let result = durable.clone().and(result);
                if let Ok(effects) = &result {
                    outbox |= !effects.outbox.is_empty();
                    applied |= effects.units.is_some() || effects.closed.is_some();
                    decided.extend_from_slice(&effects.decided);
                    if let Some(closed) = effects.closed.clone() {
                        // Without a receiver the process is stopping.
                        let _ = self.closed.send(closed);
                    }
                }
                if let Some(respond) = respond {
                    let _ = respond.send(result);
                }
            }
            if !decided.is_empty() {
                // Nobody may be listening.
                let _ = self.decided.send(Arc::new(decided));
            }
            if outbox {
                self.outbox.send_modify(|n| *n += 1);
            }
            if applied {
                self.applied.send_modify(|n| *n += 1);
            }
        }
    }

    fn make_durable(&self, written: bool) -> Result<()> {
        if let Some(fault) = self.fault.borrow().clone() {
            return Err(fault);
        }
        if !written {
            return Ok(());
        }
        self.store.sync().inspect_err(|e| {
            error!("syncing the log: {e}; it orders nothing more");
            self.fault.send_replace(Some(e.clone()));
        })
    }
}
