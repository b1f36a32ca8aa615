//! Payment channels: the shell around [`florin_core::channel::manager`], [`florin_core::channel::hub`] and
//! [`florin_core::channel::virtuals`], which decide everything.
//!
//! One thread owns them and their one journal. It takes what has been asked meanwhile as one group: handles each, writes all
//! their records with one sync, and only then answers and sends. So vouchers by the thousand a second cost some
//! syncs a second, and nothing leaves before it is durable. What has to do with the chain, and with the other sides of
//! channels, goes on in the background.
//!
//! | file | what |
//! |---|---|
//! | `desk`, `store` | the thread; its journal |
//! | `shell`, `chain`, `ledger` | what goes on in the background; the ledger that channels are on |
//! | `link`, `serve`, `dial` | connections with other sides: served, made |
//! | `text`, `tower` | vouchers and invoices as text; watchtowers |

mod chain;
mod desk;
mod dial;
mod ledger;
mod link;
mod serve;
mod shell;
mod store;
pub mod text;
pub mod tower;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use florin_core::address::Address;
use florin_core::channel::hub::{self, Hub};
use florin_core::channel::manager::{
    Config, EndId, Event, Input, Manager, Now, OpId, OpState, OpStatus, Policy, Reply,
};
use florin_core::channel::virtuals::{self, VirtualSigner, Virtuals};
use florin_core::{Code, Error, Result, wire};
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::network::Network;
use crate::seed::Seed;
use crate::wallet::Wallet;
pub use chain::{Answer, Chain, Signed};
pub use desk::Machines;
use desk::{Command, Desk};
pub use dial::{Dialed, HubSays, Payee, ask, terms};
pub use ledger::{Keys, Ledger};
use link::{Line, Links};
pub use serve::serve;
use shell::Shell;
pub use store::{GROUP_MAX, Store, path_of};

/// Between two looks whether something is over.
pub const LOOK: Duration = Duration::from_millis(10);
/// Events that wait for a slow listener before it misses some.
const EVENTS: usize = 1_024;

/// The channels of a wallet, for any number of tasks.
#[derive(Clone)]
pub struct Channels {
    to: mpsc::UnboundedSender<Command>,
    events: broadcast::Sender<Event>,
    payments: broadcast::Sender<hub::Event>,
    virtuals: broadcast::Sender<virtuals::Event>,
    chain: Arc<dyn Chain>,
    accounts: Arc<Vec<Address>>,
    signer: Arc<dyn VirtualSigner + Send + Sync>,
    links: Links,
    config: Arc<hub::Config>,
    virtual_config: Arc<virtuals::Config>,
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

/// The manager's policy for Florin's own log, whose time stands still for a minute while nothing is ordered, and of which nothing may be
/// heard for two: what has to be in it by a limit is sent that much earlier.
pub fn policy() -> Policy {
    Policy { submit_ms: 150_000, ..Policy::default() }
}

/// Begins to run the machines with their journal, on a chain. Inside a tokio runtime. `accounts`: own addresses, whose
/// channels that others have opened are found in the log.
pub fn start(
    machines: Machines,
    (config, virtual_config): (hub::Config, virtuals::Config),
    store: Store,
    signer: Arc<dyn VirtualSigner + Send + Sync>,
    chain: Arc<dyn Chain>,
    accounts: Vec<Address>,
) -> Result<(Channels, Running)> {
    let (to, from) = mpsc::unbounded_channel();
    let (events, payments, virtuals) =
        (broadcast::channel(EVENTS).0, broadcast::channel(EVENTS).0, broadcast::channel(EVENTS).0);
    let (accounts, links) = (Arc::new(accounts), Links::default());
    let channels = Channels {
        to: to.clone(),
        events: events.clone(),
        payments: payments.clone(),
        virtuals: virtuals.clone(),
        chain: chain.clone(),
        accounts: accounts.clone(),
        signer: signer.clone(),
        links: links.clone(),
        config: Arc::new(config),
        virtual_config: Arc::new(virtual_config),
    };
    let weak = to.downgrade();
    let shell =
        Shell { chain: chain.clone(), to: weak.clone(), events, payments, virtuals, links, runtime: Handle::current() };
    let desk = Desk {
        machines,
        store,
        signer,
        shell,
        log_ms: 0,
        heard: None,
        began: Instant::now(),
        clock: Box::new(Instant::now),
    };
    let thread = std::thread::Builder::new()
        .name("channels".into())
        .spawn(move || desk.run(from))
        .map_err(|e| Error::new(Code::Io, format!("cannot start a thread: {e}")))?;
    tokio::spawn(shell::poll(chain, weak, accounts));
    Ok((channels, Running { thread }))
}

/// Begins to run the channels of a wallet that passes nothing on, with their journal beside it ([`path_of`]), on Florin's
/// ledger. Inside a tokio runtime. Errors: as of [`Store::open`]; `STORAGE_CORRUPT` for a journal that nobody here wrote.
pub fn of_wallet(wallet: Wallet, seed: Seed, network: Network, policy: Policy) -> Result<(Channels, Running)> {
    let hubs = hub::Policy { forwards: false, ..hub::Policy::default() };
    of_hub(wallet, seed, network, policy, (hubs, virtuals::Policy { forwards: false, ..virtuals::Policy::default() }))
}

/// As [`of_wallet`], for a wallet that may be a hub.
pub fn of_hub(
    wallet: Wallet,
    seed: Seed,
    network: Network,
    policy: Policy,
    (hubs, virtuals): (hub::Policy, virtuals::Policy),
) -> Result<(Channels, Running)> {
    let committee = network.committee().clone();
    let (store, groups) = Store::open(&path_of(wallet.keystore().path()), &committee)?;
    let mut accounts = BTreeMap::new();
    for account in 0..wallet.keystore().accounts() {
        accounts.insert(wallet.address(account)?, wallet.permission(account)?.encode());
    }
    let own = accounts.keys().copied().collect();
    let config = hub::Config { network_id: committee.network.id, channels: policy.clone(), policy: hubs };
    let of_virtuals = virtuals::Config { channels: policy.clone(), policy: virtuals };
    let of_manager = Config { committee_id: *committee.id(), accounts, policy };
    let (hub, manager) = Hub::load(config.clone(), of_manager, &groups)?;
    let virtuals = Virtuals::load(of_virtuals.clone(), &groups)?;
    let loaded = Machines { hub, virtuals, manager };
    let keys = Keys::of(&wallet, &seed)?;
    let ledger = Ledger::new(network, wallet, seed, store.id())?;
    start(loaded, (config, of_virtuals), store, Arc::new(keys), Arc::new(ledger), own)
}

impl Channels {
    /// Asks the manager. Errors: its own; `IO` once its journal has failed.
    pub async fn ask(&self, input: Input) -> Result<Reply> {
        match self.hub(hub::Input::Channel(Box::new(input))).await? {
            hub::Reply::Channel(reply) => Ok(reply),
            other => Err(Error::new(Code::Decode, format!("the manager of channels answered {other:?}"))),
        }
    }

    /// Asks the hub. Errors: its own; `HUB_OFFLINE` for payments while log time is not known; `IO` once the journal has failed.
    pub async fn hub(&self, input: hub::Input) -> Result<hub::Reply> {
        let (reply, answer) = oneshot::channel();
        self.to.send(Command::Ask(Box::new(input), reply)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// Asks the machine of virtual channels. Errors: its own; `HUB_OFFLINE` while log time is not known; `IO` once the journal has failed.
    pub async fn virtuals(&self, input: virtuals::Input) -> Result<virtuals::Reply> {
        let (reply, answer) = oneshot::channel();
        self.to.send(Command::Virtual(Box::new(input), Some(reply), None)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// Looks something up, after all that was asked before is durable. Errors: `IO` once the journal has failed.
    pub async fn read<T: Send + 'static>(&self, look: impl FnOnce(&Manager) -> T + Send + 'static) -> Result<T> {
        self.read_hub(|_, manager, _| look(manager)).await
    }

    /// As [`Channels::read`], of the hub as well.
    pub async fn read_hub<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Hub, &Manager, Now) -> T + Send + 'static,
    ) -> Result<T> {
        self.look(move |all, now| look(&all.hub, &all.manager, now)).await
    }

    /// As [`Channels::read`], of all.
    pub async fn look<T: Send + 'static>(&self, look: impl FnOnce(&Machines, Now) -> T + Send + 'static) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let look: desk::Read = Box::new(move |all, now| drop(reply.send(look(all, now))));
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
        let watched = move |all: &Machines, _| {
            let mut watched = all.manager.watch(&end, &watcher, &*signer)?;
            watched.claims = all.virtuals.watch(&end, &watcher, &all.manager, &*signer)?;
            Ok(watched)
        };
        self.look(watched).await?
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// What happens to payments from now on.
    pub fn payment_events(&self) -> broadcast::Receiver<hub::Event> {
        self.payments.subscribe()
    }

    /// What happens to virtual channels from now on.
    pub fn virtual_events(&self) -> broadcast::Receiver<virtuals::Event> {
        self.virtuals.subscribe()
    }

    /// What it asks for opening virtual channels for others; none if it opens none.
    pub fn virtual_terms(&self) -> Option<wire::VirtualTerms> {
        let policy = &self.virtual_config.policy;
        (policy.forwards && policy.backs_max > 0).then(|| self.virtual_config.terms())
    }

    /// What it goes by, with the terms that it publishes.
    pub fn config(&self) -> &hub::Config {
        &self.config
    }

    /// Connects to the other side of a channel at an address (host:port), again and again until it is dropped.
    pub fn dial(&self, end: EndId, address: &str) -> Dialed {
        Dialed::start(self.line(), end, address)
    }

    fn line(&self) -> Line {
        Line { to: self.to.downgrade(), links: self.links.clone(), signer: self.signer.clone() }
    }
}

fn ended() -> Error {
    Error::new(Code::Io, "the channels have stopped: their journal could not be written")
}
