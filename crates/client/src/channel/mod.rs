//! Payment channels: the shell around [`florin_core::channel::manager`], which decides everything.
//!
//! One thread owns the manager and its journal. It takes what has been asked meanwhile as one group: handles each, writes all
//! their records with one sync, and only then answers and sends. So vouchers by the thousand a second cost some
//! syncs a second, and nothing leaves before it is durable. What has to do with the chain goes on in the background.

mod chain;
mod ledger;
mod store;
pub mod text;
pub mod tower;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use florin_core::address::Address;
use florin_core::channel::manager::{
    Config, Effect, Effects, EndId, Event, Incoming, Input, Manager, Now, OpId, OpState, OpStatus, Outcome, Policy,
    Reply, Signer,
};
use florin_core::merkle::Hash;
use florin_core::{Code, Error, Result, wire};
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, oneshot};
use tracing::{debug, warn};

use crate::network::Network;
use crate::seed::Seed;
use crate::wallet::Wallet;
pub use chain::{Answer, Chain, Signed};
pub use ledger::{Keys, Ledger};
pub use store::{GROUP_MAX, Store, path_of};

/// Between two looks at the channels in the log.
const POLL: Duration = Duration::from_secs(1);
/// Between two looks whether an operation is over.
const LOOK: Duration = Duration::from_millis(10);
/// Before a chain message is tried again: the first time, and the longest.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Events that wait for a slow listener before it misses some.
const EVENTS: usize = 1_024;

type Read = Box<dyn FnOnce(&Manager) + Send>;

enum Command {
    Ask(Box<Input>, oneshot::Sender<Result<Reply>>),
    /// From the background: nobody waits for an answer.
    Tell(Box<Input>),
    Read(Read),
    /// Log time as an authority has said it.
    Time(u64),
}

/// The channels of a wallet, for any number of tasks.
#[derive(Clone)]
pub struct Channels {
    to: mpsc::UnboundedSender<Command>,
    events: broadcast::Sender<Event>,
    chain: Arc<dyn Chain>,
    accounts: Arc<Vec<Address>>,
    signer: Arc<dyn Signer + Send + Sync>,
}

/// What runs behind [`Channels`]; it ends when the last of them is gone.
pub struct Running {
    thread: std::thread::JoinHandle<Result<()>>,
}

impl Running {
    /// Waits for the end. Errors: those of the journal, after which nothing was promised any more.
    pub fn join(self) -> Result<()> {
        self.thread.join().unwrap_or_else(|_| Err(Error::new(Code::Io, "the thread of the channels has panicked")))
    }
}

/// Begins to run a manager with its journal, on a chain. Inside a tokio runtime. `accounts`: own addresses, whose
/// channels that others have opened are found in the log.
pub fn start(
    manager: Manager,
    store: Store,
    signer: Arc<dyn Signer + Send + Sync>,
    chain: Arc<dyn Chain>,
    accounts: Vec<Address>,
) -> Result<(Channels, Running)> {
    let (to, from) = mpsc::unbounded_channel();
    let events = broadcast::channel(EVENTS).0;
    let accounts = Arc::new(accounts);
    let channels = Channels {
        to: to.clone(),
        events: events.clone(),
        chain: chain.clone(),
        accounts: accounts.clone(),
        signer: signer.clone(),
    };
    let weak = to.downgrade();
    let desk = Desk {
        manager,
        store,
        signer,
        shell: Shell { chain: chain.clone(), to: weak.clone(), events, runtime: Handle::current() },
        log_ms: 0,
        began: Instant::now(),
    };
    let thread = std::thread::Builder::new()
        .name("channels".into())
        .spawn(move || desk.run(from))
        .map_err(|e| Error::new(Code::Io, format!("cannot start a thread: {e}")))?;
    tokio::spawn(poll(chain, weak, accounts));
    Ok((channels, Running { thread }))
}

/// Begins to run the channels of a wallet, with their journal beside it ([`path_of`]), on Florin's ledger. Inside a tokio
/// runtime. Errors: as of [`Store::open`]; `STORAGE_CORRUPT` for a journal that no manager wrote.
pub fn of_wallet(wallet: Wallet, seed: Seed, network: Network, policy: Policy) -> Result<(Channels, Running)> {
    let committee = network.committee().clone();
    let (store, records) = Store::open(&path_of(wallet.keystore().path()), &committee)?;
    let mut accounts = BTreeMap::new();
    for account in 0..wallet.keystore().accounts() {
        accounts.insert(wallet.address(account)?, wallet.permission(account)?.encode());
    }
    let own = accounts.keys().copied().collect();
    let manager = Manager::load(Config { committee_id: *committee.id(), accounts, policy }, &records)?;
    let keys = Keys::of(&wallet, &seed)?;
    let ledger = Ledger::new(network, wallet, seed, store.id())?;
    start(manager, store, Arc::new(keys), Arc::new(ledger), own)
}

impl Channels {
    /// Asks the manager. Errors: its own; `IO` once its journal has failed.
    pub async fn ask(&self, input: Input) -> Result<Reply> {
        let (reply, answer) = oneshot::channel();
        self.to.send(Command::Ask(Box::new(input), reply)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// Looks something up, after all that was asked before is durable. Errors: `IO` once the journal has failed.
    pub async fn read<T: Send + 'static>(&self, look: impl FnOnce(&Manager) -> T + Send + 'static) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let look: Read = Box::new(move |manager| drop(reply.send(look(manager))));
        self.to.send(Command::Read(look)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())
    }

    /// Looks at all channels in the log now, and waits until the manager has seen them. Errors: those of the chain, and
    /// `IO` once the journal has failed.
    pub async fn refresh(&self) -> Result<()> {
        let mut ids = BTreeSet::new();
        for address in self.accounts.iter() {
            ids.extend(self.chain.channels(address).await?);
        }
        for id in ids {
            if let (Some(record), time_ms) = self.chain.channel(&id).await? {
                self.to.send(Command::Time(time_ms)).map_err(|_| ended())?;
                self.ask(Input::Seen { channel: id, record: Box::new(record), time_ms }).await?;
            }
        }
        self.ask(Input::Tick).await.map(drop)
    }

    /// Waits until an operation is over. Errors: what it failed with; `TIMEOUT`, then it goes on in the background, and
    /// after a restart.
    pub async fn finished(&self, op: OpId, patience: Duration) -> Result<OpStatus> {
        let deadline = Instant::now() + patience;
        loop {
            let status = self.read(move |manager| manager.operation(op)).await??;
            match &status.state {
                OpState::Failed { code, message } => {
                    let code = Code::from_number(*code).unwrap_or(Code::Decode);
                    return Err(Error::new(code, format!("{} failed: {message}", status.kind)));
                }
                state if !state.is_open() => return Ok(status),
                _ if Instant::now() >= deadline => {
                    let message = format!("{} is not done after {patience:?}; it goes on", status.kind);
                    return Err(Error::new(Code::Timeout, message));
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// What a watchtower with this address needs for an end, as it is now. Errors: those of [`Manager::watch`], `IO`.
    pub async fn watched(&self, end: EndId, watcher: Address) -> Result<wire::WatchedChannel> {
        let signer = self.signer.clone();
        self.read(move |manager| manager.watch(&end, &watcher, &*signer)).await?
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}

fn ended() -> Error {
    Error::new(Code::Io, "the channels have stopped: their journal could not be written")
}

/// Answers to those who have asked, and what else follows.
type Said = (Vec<(oneshot::Sender<Result<Reply>>, Result<Reply>)>, Vec<Effect>);

/// The thread that owns the state.
struct Desk {
    manager: Manager,
    store: Store,
    signer: Arc<dyn Signer + Send + Sync>,
    shell: Shell,
    /// The newest log time.
    log_ms: u64,
    began: Instant,
}

impl Desk {
    fn run(mut self, mut from: mpsc::UnboundedReceiver<Command>) -> Result<()> {
        let due = self.manager.resume(self.now());
        self.store.append(&due.records)?;
        self.shell.carry_out(&self.manager, due.effects);
        let mut group = Vec::new();
        while let Some(first) = from.blocking_recv() {
            group.push(first);
            while group.len() < GROUP_MAX
                && let Ok(next) = from.try_recv()
            {
                group.push(next);
            }
            self.group(&mut group)?;
        }
        Ok(())
    }

    /// Handles a group: nothing is said of any before the records of all are durable.
    fn group(&mut self, group: &mut Vec<Command>) -> Result<()> {
        let (mut records, mut said) = (Vec::new(), Vec::new());
        let mut adds: Vec<(Incoming, oneshot::Sender<Result<Reply>>)> = Vec::new();
        for command in group.drain(..) {
            // Signatures of vouchers that came in together are verified together.
            if !matches!(&command, Command::Ask(input, _) if matches!(**input, Input::VoucherAdd(_))) {
                self.add(&mut adds, &mut records, &mut said);
            }
            match command {
                Command::Time(time) => self.log_ms = self.log_ms.max(time),
                // It is to see what is asked before, and none of that may be lost again.
                Command::Read(look) => {
                    self.store.append(&std::mem::take(&mut records))?;
                    look(&self.manager);
                }
                Command::Ask(input, reply) => match *input {
                    Input::VoucherAdd(incoming) => adds.push((incoming, reply)),
                    input => {
                        let (answer, effects) = self.handle(input, &mut records);
                        said.push((vec![(reply, answer)], effects));
                    }
                },
                Command::Tell(input) => {
                    let (answer, effects) = self.handle(*input, &mut records);
                    if let Err(e) = answer {
                        debug!("{e}");
                    }
                    said.push((Vec::new(), effects));
                }
            }
        }
        self.add(&mut adds, &mut records, &mut said);
        self.store.append(&records)?;
        if self.store.is_long() {
            self.store.rewrite(&self.manager.snapshot())?;
        }
        for (replies, effects) in said {
            // Whoever has asked may be gone.
            replies.into_iter().for_each(|(reply, answer)| drop(reply.send(answer)));
            self.shell.carry_out(&self.manager, effects);
        }
        Ok(())
    }

    /// Handles the vouchers that came in one after the other.
    fn add(
        &mut self,
        adds: &mut Vec<(Incoming, oneshot::Sender<Result<Reply>>)>,
        records: &mut Vec<wire::ManagerRecord>,
        said: &mut Vec<Said>,
    ) {
        if adds.is_empty() {
            return;
        }
        let (incoming, replies): (Vec<_>, Vec<_>) = std::mem::take(adds).into_iter().unzip();
        let (answer, effects) = self.handle(Input::VoucherAddMany(incoming), records);
        let answers: Vec<Result<Reply>> = match answer {
            Ok(Reply::AddedMany(all)) => all.into_iter().map(|one| one.map(Reply::Added)).collect(),
            Ok(_) => Vec::new(),
            Err(e) => replies.iter().map(|_| Err(e.clone())).collect(),
        };
        said.push((replies.into_iter().zip(answers).collect(), effects));
    }

    /// Log time as last heard: between two answers it stands still, so it is never ahead.
    fn now(&self) -> Now {
        Now { log_ms: self.log_ms, clock_ms: self.began.elapsed().as_millis() as u64 }
    }

    fn handle(&mut self, input: Input, records: &mut Vec<wire::ManagerRecord>) -> (Result<Reply>, Vec<Effect>) {
        match self.manager.handle(self.now(), input, &*self.signer) {
            Ok(Effects { records: new, reply, effects }) => {
                records.extend(new);
                (Ok(reply), effects)
            }
            Err(e) => (Err(e), Vec::new()),
        }
    }
}

/// Carries out what goes on in the background.
struct Shell {
    chain: Arc<dyn Chain>,
    to: mpsc::WeakUnboundedSender<Command>,
    events: broadcast::Sender<Event>,
    runtime: Handle,
}

impl Shell {
    fn carry_out(&self, manager: &Manager, effects: Vec<Effect>) {
        for effect in effects {
            let (chain, to) = (self.chain.clone(), self.to.clone());
            match effect {
                // Nobody may be listening.
                Effect::Event(event) => drop(self.events.send(event)),
                Effect::Prepare { op, message } => {
                    self.runtime.spawn(async move {
                        let found = until_clear(op, &to, may_pass, || chain.prepare(op, &message)).await;
                        tell(
                            &to,
                            found.map(|s| match s {
                                Ok(signed) => Input::Prepared {
                                    op,
                                    order_id: signed.order_id,
                                    output: signed.output,
                                    order: signed.order,
                                },
                                Err(e) => failed(op, e),
                            }),
                        );
                    });
                }
                Effect::Broadcast { op, order } => {
                    let channel = manager.operation(op).ok().and_then(|status| status.end).map(|end| end.channel);
                    self.runtime.spawn(async move {
                        // It is signed: no error says that it will never settle.
                        let found = until_clear(op, &to, |_| true, || chain.broadcast(op, channel, &order)).await;
                        tell(&to, found.and_then(Result::ok).map(|outcome| Input::Outcome { op, outcome }));
                    });
                }
            }
        }
    }
}

fn failed(op: OpId, e: Error) -> Input {
    Input::Outcome { op, outcome: Outcome::Failed { code: e.code as u32, message: e.message } }
}

fn tell(to: &mpsc::WeakUnboundedSender<Command>, input: Option<Input>) {
    if let (Some(to), Some(input)) = (to.upgrade(), input) {
        let _ = to.send(Command::Tell(Box::new(input)));
    }
}

/// Tries until it is done or the error is one that `again` does not try again after. `None`: nobody needs it any more.
async fn until_clear<'a, T>(
    op: OpId,
    to: &mpsc::WeakUnboundedSender<Command>,
    again: fn(&Error) -> bool,
    attempt: impl Fn() -> Answer<'a, T>,
) -> Option<Result<T>> {
    let mut pause = RETRY;
    loop {
        match attempt().await {
            Err(e) if again(&e) => {
                debug!(op, "a message of a channel is tried again: {e}");
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(RETRY_MAX);
                to.upgrade()?;
            }
            other => return Some(other),
        }
    }
}

/// Whether the same may work later.
fn may_pass(e: &Error) -> bool {
    use Code::{
        Busy, CallWaits, Io, NotFinal, NotVoting, QuorumUnreachable, Recovering, Timeout, Undecided, Unreachable,
    };
    let network =
        [Busy, CallWaits, NotFinal, NotVoting, QuorumUnreachable, Recovering, Timeout, Undecided, Unreachable];
    // After a failed write it is unknown whether an order is signed.
    network.contains(&e.code) || e.code == Io
}

/// Looks at all channels in the log, again and again.
async fn poll(chain: Arc<dyn Chain>, to: mpsc::WeakUnboundedSender<Command>, accounts: Arc<Vec<Address>>) {
    loop {
        let mut ids = BTreeSet::new();
        for address in accounts.iter() {
            match chain.channels(address).await {
                Ok(of) => ids.extend(of),
                Err(e) => debug!("the channels of {address:?}: {e}"),
            }
        }
        for id in ids {
            look(&*chain, &to, &id).await;
        }
        tell(&to, Some(Input::Tick));
        tokio::time::sleep(POLL).await;
        if to.upgrade().is_none() {
            return;
        }
    }
}

async fn look(chain: &dyn Chain, to: &mpsc::WeakUnboundedSender<Command>, id: &Hash) {
    let seen = chain.channel(id).await;
    let Some(to) = to.upgrade() else { return };
    match seen {
        Ok((Some(record), time_ms)) => {
            let _ = to.send(Command::Time(time_ms));
            let seen = Input::Seen { channel: *id, record: Box::new(record), time_ms };
            let _ = to.send(Command::Tell(Box::new(seen)));
        }
        Ok((None, _)) => {}
        Err(e) if may_pass(&e) => debug!("channel {}: {e}", hex::encode(id)),
        Err(e) => warn!("channel {}: {e}", hex::encode(id)),
    }
}
