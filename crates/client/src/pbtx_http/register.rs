//! Registrations of actors: those that wait are packed into one CALL of the configured wallet.
//!
//! What is posted is each actor's own signed permission, also by the admin's wallet where the network is not open: that
//! never replaces anybody, and the log decides who was first. One that fails takes its CALL with it, so nothing is posted
//! for an actor that a quorum knows, and this remembers what was posted and may be on its way. Nothing is answered before
//! a quorum knows the actor.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use florin_core::content::{Action, Content};
use florin_core::envelope::Order;
use florin_core::limits::OUTPUTS_MAX;
use florin_core::permission::Permission;
use florin_core::wire::{self, network_command::Kind, output};
use florin_core::{Code, Error, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::actors::{Registration, Seen};
use crate::network::Network;
use crate::pbtx::{command, pack};
use crate::seed::Seed;
use crate::wallet::Wallet;

/// Registrations that may wait; more are refused as `BUSY`.
const QUEUE: usize = 4_096;
/// How long the first registration of a CALL waits for others.
const LINGER: Duration = Duration::from_millis(20);
/// After that long without work, commands may use the wallet.
const IDLE: Duration = Duration::from_secs(1);
/// How long to wait for a wallet that a command uses.
const WALLET_WAIT: Duration = Duration::from_secs(5);
/// How long to wait for the log, and then for a quorum to know.
const LOG_WAIT: Duration = Duration::from_secs(30);
/// How long authorities that are not level are asked again.
const LEVEL_WAIT: Duration = Duration::from_secs(5);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);
/// What was posted is remembered that long once the wallet has nothing under way.
const POSTED: Duration = Duration::from_secs(60);
/// The wallet's account that registers.
const ACCOUNT: u32 = 0;

/// The wallet that registers: the admin's, or of an open network any.
pub struct Registering {
    /// Its file.
    pub wallet: PathBuf,
    /// Its keys.
    pub seed: Seed,
}

/// A running queue of registrations.
#[derive(Clone)]
pub struct Registrar {
    queue: mpsc::Sender<Job>,
}

struct Job {
    actor: u64,
    wanted: Wanted,
    answer: oneshot::Sender<Result<()>>,
}

/// What is to be registered.
#[derive(Clone, PartialEq)]
struct Wanted {
    permission: Bytes,
    signature: Bytes,
}

impl Registrar {
    /// Starts it. Errors: those of opening the wallet; `NETWORK_CLOSED` if it may not register, `UNKNOWN_NETWORK`, those
    /// of reading the registry. Needs a tokio runtime.
    pub async fn start(network: Network, network_id: u64, registering: Registering) -> Result<Registrar> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let mut task = Task { network, network_id, registering, wallet: None, posted: HashMap::new() };
        task.open().await?;
        task.may_register().await?;
        tokio::spawn(task.run(jobs));
        Ok(Registrar { queue })
    }

    /// Registers an actor, whose permission and signature were checked, and waits until a quorum knows it. Errors:
    /// `ACTOR_EXISTS` if it is, or was, registered with another permission; `BUSY`; whatever keeps the CALL from being ordered:
    /// then it may come later.
    pub async fn register(&self, actor: u64, permission: Bytes, signature: Bytes) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        let job = Job { actor, wanted: Wanted { permission, signature }, answer };
        self.queue.try_send(job).map_err(|_| Error::new(Code::Busy, format!("{QUEUE} registrations wait")))?;
        answered.await.unwrap_or_else(|_| Err(Error::new(Code::Undecided, "the worker is stopping")))
    }
}

struct Task {
    network: Network,
    network_id: u64,
    registering: Registering,
    wallet: Option<Wallet>,
    /// Permissions of actors in CALLs of which not all is known yet, and since when.
    posted: HashMap<u64, (Bytes, Instant)>,
}

/// Who waits for an actor.
type Waiting = BTreeMap<u64, (Wanted, Vec<oneshot::Sender<Result<()>>>)>;

impl Task {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        loop {
            let first = match timeout(IDLE, jobs.recv()).await {
                Ok(first) => first,
                Err(_) => {
                    self.wallet = None;
                    jobs.recv().await
                }
            };
            let Some(first) = first else { return };
            sleep(LINGER).await;
            let mut group = vec![first];
            while let (true, Ok(job)) = (group.len() < OUTPUTS_MAX, jobs.try_recv()) {
                group.push(job);
            }
            let mut waiting = Waiting::new();
            for job in group {
                let entry = waiting.entry(job.actor).or_insert_with(|| (job.wanted.clone(), Vec::new()));
                match entry.0.permission == job.wanted.permission {
                    true => entry.1.push(job.answer),
                    false => drop(job.answer.send(Err(exists(job.actor)))),
                }
            }
            if let Err(e) = self.group(&mut waiting).await {
                warn!("registrations: {e}");
                waiting.into_values().flat_map(|(_, answers)| answers).for_each(|a| drop(a.send(Err(e.clone()))));
            }
        }
    }

    /// Registers what is free, and answers all whose fate is known.
    async fn group(&mut self, waiting: &mut Waiting) -> Result<()> {
        self.finish_earlier().await?;
        let wanted: Vec<u64> = self.screen(waiting).await;
        if wanted.is_empty() {
            return Ok(());
        }
        self.may_register().await?;
        let of = |actor: &u64| self.command(&waiting[actor].0);
        let commands: Vec<wire::NetworkCommand> = wanted.iter().map(of).collect();
        let mut rest: Vec<(u64, wire::NetworkCommand)> = wanted.into_iter().zip(commands.clone()).collect();
        let sizes = pack(commands, "").into_iter().map(|call| call.len());
        let mut calls: VecDeque<Vec<(u64, wire::NetworkCommand)>> =
            sizes.map(|size| rest.drain(..size.min(rest.len())).collect()).collect();
        while let Some(commands) = calls.pop_front() {
            let actors: Vec<u64> = commands.iter().map(|(actor, _)| *actor).collect();
            for actor in &actors {
                self.posted.insert(*actor, (waiting[actor].0.permission.clone(), Instant::now()));
            }
            let result = self.call(commands.iter().map(|(_, command)| command.clone()).collect()).await;
            if result.is_err() && self.nothing_under_way() {
                // It will not come. One command that fails takes all others of its CALL with it.
                actors.iter().for_each(|actor| drop(self.posted.remove(actor)));
                if commands.len() > 1 {
                    let (some, others) = commands.split_at(commands.len() / 2);
                    calls.push_front(others.to_vec());
                    calls.push_front(some.to_vec());
                    continue;
                }
            }
            match result {
                Ok(()) => {
                    info!(actors = actors.len(), "registered");
                    let known = self.known(&actors, waiting).await;
                    for (actor, result) in actors.into_iter().zip(known) {
                        self.answer(waiting, actor, result);
                    }
                }
                Err(e) => actors.into_iter().for_each(|actor| self.answer(waiting, actor, Err(e.clone()))),
            }
        }
        Ok(())
    }

    fn answer(&mut self, waiting: &mut Waiting, actor: u64, result: Result<()>) {
        if result.is_ok() {
            self.posted.remove(&actor);
        }
        let Some((_, answers)) = waiting.remove(&actor) else { return };
        answers.into_iter().for_each(|answer| drop(answer.send(result.clone())));
    }

    /// Answers all that need no CALL. Returns the others.
    async fn screen(&mut self, waiting: &mut Waiting) -> Vec<u64> {
        let mut asking = JoinSet::new();
        for (actor, (wanted, _)) in waiting.iter() {
            let (network, network_id, actor) = (self.network.clone(), self.network_id, *actor);
            let posted = self.posted.get(&actor).map(|(permission, _)| *permission == wanted.permission);
            let permission = wanted.permission.clone();
            asking.spawn(async move {
                let said = match posted {
                    Some(true) => await_known(&network, network_id, actor, &permission).await.map(|()| true),
                    Some(false) => Err(exists(actor)),
                    None => is_registered(&network, network_id, actor, &permission).await,
                };
                (actor, said)
            });
        }
        let mut free = Vec::new();
        while let Some(joined) = asking.join_next().await {
            match joined {
                Ok((actor, Ok(true))) => self.answer(waiting, actor, Ok(())),
                Ok((actor, Ok(false))) => free.push(actor),
                Ok((actor, Err(e))) => self.answer(waiting, actor, Err(e)),
                Err(e) => warn!("registrations: {e}"),
            }
        }
        free
    }

    /// Waits until a quorum knows these actors.
    async fn known(&self, actors: &[u64], waiting: &Waiting) -> Vec<Result<()>> {
        let mut asking = JoinSet::new();
        for (i, actor) in actors.iter().copied().enumerate() {
            let (network, network_id) = (self.network.clone(), self.network_id);
            let permission = waiting[&actor].0.permission.clone();
            asking.spawn(async move { (i, await_known(&network, network_id, actor, &permission).await) });
        }
        let lost = || Err(Error::new(Code::Undecided, "the worker is stopping"));
        let mut results: Vec<Result<()>> = actors.iter().map(|_| lost()).collect();
        while let Some(joined) = asking.join_next().await {
            if let Ok((i, result)) = joined {
                results[i] = result;
            }
        }
        results
    }

    /// By the actor's own signature, also where the wallet is the admin's: that never replaces anybody, whoever else
    /// registers at the same time.
    fn command(&self, wanted: &Wanted) -> wire::NetworkCommand {
        let Wanted { permission, signature } = wanted.clone();
        let kind = Some(Kind::Open(wire::ActorOpen { permission, signature }));
        wire::NetworkCommand { network_id: self.network_id, kind }
    }

    /// Whether the wallet may register actors. Errors: `NETWORK_CLOSED` if it is not the admin's in a network that is not
    /// open, `UNKNOWN_NETWORK`, those of reading the registry.
    async fn may_register(&mut self) -> Result<()> {
        let record = self.network.registered(self.network_id).await?.0.filter(|record| !record.removed);
        let Some(record) = record else {
            return Err(Error::new(Code::UnknownNetwork, format!("network {} is not registered", self.network_id)));
        };
        if record.open || record.admin[..] == self.open().await?.address(ACCOUNT)?.as_bytes()[..] {
            return Ok(());
        }
        let message = format!("network {} is not open, and the wallet is not its admin's", self.network_id);
        Err(Error::new(Code::NetworkClosed, message))
    }

    /// The wallet. It is another command's for a moment at most.
    async fn open(&mut self) -> Result<&mut Wallet> {
        if self.wallet.is_none() {
            let (path, committee) = (&self.registering.wallet, self.network.committee());
            let wallet = patiently(|| Wallet::open(path, Arc::clone(committee))).await?;
            self.wallet = Some(wallet);
        }
        self.wallet.as_mut().ok_or_else(not_open)
    }

    /// Finishes what an earlier CALL, or another run, has left.
    async fn finish_earlier(&mut self) -> Result<()> {
        self.open().await?;
        let (network, network_id) = (self.network.clone(), self.network_id);
        let Some(wallet) = &mut self.wallet else { return Ok(()) };
        if !wallet.account(ACCOUNT).known {
            wallet.catch_up(&network, ACCOUNT).await?;
        }
        let now = Instant::now();
        for pending in &wallet.account(ACCOUNT).pending {
            self.posted.extend(registers(network_id, &pending.envelope).into_iter().map(|(a, p)| (a, (p, now))));
        }
        if !wallet.account(ACCOUNT).pending.is_empty() {
            wallet.finish(&network, ACCOUNT, |_| ()).await?;
        }
        if let Some(open) = wallet.account(ACCOUNT).pending.first() {
            let message = format!("an earlier order of the wallet, seqnum {}, is not final", open.seqnum);
            return Err(Error::new(Code::Undecided, message));
        }
        for seqnum in wallet.account(ACCOUNT).unordered.clone() {
            let sent = wallet.account(ACCOUNT).sent.iter().rev().find(|s| s.seqnum == seqnum);
            let registers = sent.map(|s| registers(network_id, &s.receipt.transaction)).unwrap_or_default();
            let ordered = wallet.wait_ordered(&network, ACCOUNT, seqnum, LOG_WAIT, |_| ()).await?;
            for (actor, permission) in registers {
                match ordered.failed {
                    None => drop(self.posted.insert(actor, (permission, now))),
                    Some(_) => drop(self.posted.remove(&actor)),
                }
            }
        }
        self.posted.retain(|_, (_, since)| since.elapsed() < POSTED);
        Ok(())
    }

    /// Has commands ordered in one CALL. Errors: as of [`command`]; the journal has it if it may come later.
    async fn call(&mut self, commands: Vec<wire::NetworkCommand>) -> Result<()> {
        let network = self.network.clone();
        self.open().await?;
        let (Some(wallet), seed) = (&mut self.wallet, &self.registering.seed) else { return Err(not_open()) };
        command(wallet, seed, &network, ACCOUNT, commands, LOG_WAIT).await.map(drop)
    }

    /// Whether every order of the wallet has come to its end.
    fn nothing_under_way(&self) -> bool {
        let account = self.wallet.as_ref().map(|wallet| wallet.account(ACCOUNT));
        account.is_some_and(|account| account.pending.is_empty() && account.unordered.is_empty())
    }
}

fn not_open() -> Error {
    Error::new(Code::Undecided, "the wallet is not open")
}

/// Opens a file of a wallet; another command has it for a moment at most. Errors: those of `open`.
pub async fn patiently<T>(open: impl Fn() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + WALLET_WAIT;
    loop {
        match open() {
            Err(e) if e.code == Code::Busy && Instant::now() < deadline => sleep(PAUSE).await,
            other => return other,
        }
    }
}

fn exists(actor: u64) -> Error {
    Error::new(Code::ActorExists, format!("actor {actor} is, or was, registered with another permission"))
}

/// Whether the actor is registered with this permission; false if it is free. Errors: `ACTOR_EXISTS`; `UNDECIDED` while
/// authorities are not level; those of asking.
pub(super) async fn is_registered(network: &Network, network_id: u64, actor: u64, permission: &[u8]) -> Result<bool> {
    let deadline = Instant::now() + LEVEL_WAIT;
    loop {
        match Seen::ask(network, network_id, actor).await?.registration() {
            Registration::Known(known) if known == permission => return Ok(true),
            Registration::Known(_) | Registration::Removed => return Err(exists(actor)),
            Registration::Free => return Ok(false),
            Registration::Unsure if Instant::now() < deadline => sleep(PAUSE).await,
            Registration::Unsure => {
                let message = format!("actor {actor}: no quorum agrees on its registration");
                return Err(Error::new(Code::Undecided, message));
            }
        }
    }
}

/// Waits until a quorum knows the actor with this permission. Errors: `ACTOR_EXISTS`, `UNDECIDED`, those of asking.
async fn await_known(network: &Network, network_id: u64, actor: u64, permission: &[u8]) -> Result<()> {
    let deadline = Instant::now() + LOG_WAIT;
    while Instant::now() < deadline {
        if is_registered(network, network_id, actor, permission).await? {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    Err(Error::new(Code::Undecided, format!("actor {actor} is registered, and a quorum does not know it yet")))
}

/// Actors of the network that an order registers, with their permissions.
fn registers(network_id: u64, envelope: &Bytes) -> Vec<(u64, Bytes)> {
    let order = Order::decode(envelope.clone());
    let content = order.and_then(|order| Content::decode(&order));
    let Ok(Content { action: Action::Call { call, .. }, .. }) = content else { return Vec::new() };
    let permission = |output: wire::Output| match output.kind? {
        output::Kind::Network(command) if command.network_id == network_id => match command.kind? {
            Kind::Actor(permission) => Some(permission),
            Kind::Open(open) => Some(open.permission),
            _ => None,
        },
        _ => None,
    };
    let permissions = call.outputs.into_iter().filter_map(permission);
    permissions.filter_map(|bytes| Some((Permission::decode_actor(&bytes).ok()?.actor, bytes))).collect()
}
