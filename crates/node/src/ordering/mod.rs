//! The engine behind the ordered log: AlephBFT, one instance a session.
//!
//! It gets bytes from a [`Source`], exchanges frames with peers through a [`Transport`], and puts out all units in one
//! order, the same on every authority. `docs/decisions/0007-ordering-engine.md` says why this engine.
//!
//! What makes it safe, given that at most f authorities lie:
//! 1. An authority creates one unit a round, for ever: a unit is in the backup, and the backup synced, before any message
//!    that AlephBFT handed over after writing it leaves (`link::send_loop`). A restart goes on after the newest one.
//! 2. After a failed write or sync nothing is sent any more. A damaged backup refuses to start.
//! 3. A peer that shows a unit of ours that the backup lacks stops the engine: we forgot, and must not create.
//!    This is a last resort. *The caller's rule:* an authority whose folder is new or old does not start an engine in a
//!    session that it may have been in; it joins with one that begins later.
//! 4. Nothing of a peer reaches AlephBFT unchecked (`wire::Gate`); what it may send is bounded (`frames::Incoming`).
//!
//! What makes it live: lost messages are asked for again within tenths of a second, sessions end by rounds, and an idle
//! authority wakes as soon as anyone has something to order.

mod aleph;
mod backup;
mod bare;
mod built;
mod frames;
#[doc(hidden)]
pub mod inspect;
mod keys;
mod link;
mod shared;
mod wire;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aleph_bft::{LocalIO, NodeCount, NodeIndex, SpawnHandle as _, TaskHandle, Terminator, create_config, run_session};
use bytes::Bytes;
use florin_core::committee::Committee;
use florin_core::error::{Code, Error, Result};
use florin_core::limits::SESSION_ROUNDS;
use florin_core::signatures::AuthorityKey;
use futures::channel::oneshot;
use parity_scale_codec::Decode;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};

pub use aleph::{Aleph, Frames};
pub use backup::{has_backup, remove_backups_below};
pub use bare::{BareReport, measure_bare};

use backup::{Backup, Disk, Owner, RealDisk, sync_loop};
use frames::Incoming;
use keys::{Keys, random_token};
use link::{Data, Feed, Link, Spawner, Taker, delays, send_loop};
use shared::Shared;
use wire::{Checked, Gate, Message, Refused, message_bytes_max};

/// Bytes of data in a unit, at most. At 20 ms that is 4 MB/s an authority, and a session of [`ROUNDS_MAX`] full units
/// of one authority is 82 MB, which is what an alert about it takes.
pub use florin_core::limits::UNIT_BYTES_MAX;
/// Bytes of a frame, at most: a quarter of what a gRPC message may have, so that others get their turn. Holds every
/// single unit; longer messages go in several frames.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// No units are created or taken from this round on; the rounds after [`SESSION_ROUNDS`], where the log cuts the
/// session, are there to decide it. The graph of a session stays in memory until its engine stops.
pub const ROUNDS_MAX: u16 = 1_000;
/// Rounds before the end of a session in which the engine of the next one starts, and in which this one is never idle:
/// at 20 ms half a second, for files and for what the first rounds take.
pub const LEAD_ROUNDS: u32 = 25;
/// From so many rounds before the end on data goes to the next session: a unit that others get a round late might be
/// behind the cut already.
const HANDOVER_ROUNDS: u32 = 1;
/// Messages on their way between the engine's tasks; more are lost, and asked for again.
const QUEUE: usize = 8_192;
/// How long a stop may take before tasks are cut off.
const STOP: Duration = Duration::from_secs(5);

const _: () = assert!(wire::unit_bytes_max(florin_core::limits::COMMITTEE_MAX) < FRAME_BYTES_MAX);
const _: () = assert!((ROUNDS_MAX as u32) > SESSION_ROUNDS + 100);
const _: () = assert!(message_bytes_max(florin_core::limits::COMMITTEE_MAX) < u32::MAX as usize);

/// How often units are created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Between two units while there is something to order.
    pub busy: Duration,
    /// Between two units of one of four authorities while there isn't. Urgent data, own or a peer's, ends it at once.
    pub idle: Duration,
}

/// The longest that an idle unit takes in a large committee: log time is no older than a few of them.
const IDLE_MAX: Duration = Duration::from_secs(1);

impl Pace {
    /// The pace of a committee of this size: an idle authority gets as many units a second as one of four does.
    fn of(self, authorities: usize) -> Pace {
        let peers = u32::try_from(authorities.saturating_sub(1)).unwrap_or(u32::MAX);
        Pace { idle: self.idle.max((self.idle * peers / 3).min(IDLE_MAX)), ..self }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Pace { busy: Duration::from_millis(20), idle: Duration::from_millis(200) }
    }
}

/// Whose engine, and where its backups are.
#[derive(Clone)]
pub struct EngineConfig {
    /// The committee.
    pub committee: Arc<Committee>,
    /// The authority's index in it.
    pub index: u32,
    /// The authority's key.
    pub key: Arc<AuthorityKey>,
    /// Folder of the backups, of this authority only; made if there is none.
    pub folder: PathBuf,
    /// How often units are created.
    pub pace: Pace,
}

/// Who gets a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recipient {
    /// All other authorities.
    Everyone,
    /// The authority with this index.
    One(u32),
}

/// The way to peers.
pub trait Transport: Send + Sync + 'static {
    /// Sends a frame of at most [`FRAME_BYTES_MAX`] bytes, or loses it; must not block. Frames to one peer must arrive in
    /// order, and be handed to [`Engine::receive`] with the index of the peer as its connection proves it.
    fn send(&self, to: Recipient, frame: Bytes);
}

/// Where data to order comes from.
pub trait Source: Send + Sync + 'static {
    /// Data for the unit of this round that is being created, 1 to [`UNIT_BYTES_MAX`] bytes, if there is any. It is asked
    /// once a unit and must not block. Data taken is ordered unless the authority crashes, or the session is cut, before.
    fn next(&self, round: u32) -> Option<Bytes>;

    /// Whether this data, own or a peer's, is to be ordered at the busy pace. Data of peers may be anything.
    fn is_urgent(&self, _data: &[u8]) -> bool {
        true
    }
}

/// A unit in its place of the order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OrderedUnit {
    /// The session.
    pub session: u64,
    /// Index of the authority that made it.
    pub creator: u32,
    /// Its round: a creator that doesn't lie has one unit a round.
    pub round: u32,
    /// Its data, empty if none. Nobody but its creator has looked at it.
    pub data: Bytes,
}

/// What the engine lost or refused, since its start.
#[derive(Default, Debug)]
pub struct Counters {
    /// Frames or messages of peers that were malformed, false, too long or too many.
    pub refused: AtomicU64,
    /// Messages of peers lost because AlephBFT was behind.
    pub unread: AtomicU64,
    /// Own messages lost because too many waited for the disk.
    pub unsent: AtomicU64,
}

/// Makes the backup of a session if there is none: before its name is written down as one that was joined.
/// Errors: `STORAGE_*`.
pub fn prepare_backup(config: &EngineConfig, session: u64) -> Result<()> {
    let EngineConfig { committee, index, folder, .. } = config;
    let owner = Owner { committee_id: *committee.id(), epoch: committee.epoch, authority: *index, session };
    Backup::open(folder, &owner).map(drop)
}

/// One instance of AlephBFT. Dropping it cuts its tasks off, as a crash would; [`Engine::stop`] ends them in order.
pub struct Engine {
    shared: Arc<Shared>,
    gate: Gate,
    source: Arc<dyn Source>,
    peers: Vec<Mutex<Peer>>,
    inbox: mpsc::Sender<Data>,
    backup: Arc<std::fs::File>,
    exit: Mutex<Option<oneshot::Sender<()>>>,
    runner: Mutex<Option<TaskHandle>>,
    tasks: Arc<Mutex<Vec<AbortHandle>>>,
}

/// A peer's side.
struct Peer {
    incoming: Incoming,
    /// Hashes of its alerts, own and passed on.
    alerts: std::collections::HashSet<keys::Hash>,
}

impl Engine {
    /// Starts a session, or goes on with it where its backup ends: the order comes out from its beginning again, new
    /// units come after the newest own one. Must be called on a tokio runtime. See the rule for new folders above.
    ///
    /// Errors: `BAD_CONFIG` if index and key don't match; `STORAGE_BUSY`, `STORAGE_CORRUPT` (the authority may have
    /// forgotten units and must not take part in this session), `STORAGE_FULL`, `STORAGE_FAILED`.
    pub fn start(
        config: EngineConfig,
        session: u64,
        transport: Arc<dyn Transport>,
        source: Arc<dyn Source>,
        out: mpsc::Sender<OrderedUnit>,
    ) -> Result<Engine> {
        Engine::start_on(config, session, transport, source, out, Arc::new(RealDisk))
    }

    fn start_on(
        config: EngineConfig,
        session: u64,
        transport: Arc<dyn Transport>,
        source: Arc<dyn Source>,
        out: mpsc::Sender<OrderedUnit>,
        disk: Arc<dyn Disk>,
    ) -> Result<Engine> {
        let EngineConfig { committee, index, key, folder, pace } = config;
        let found = committee.index_of(&key.public());
        if found != Some(index) {
            let found = found.map_or("none".into(), |i| i.to_string());
            return Err(Error::expected(Code::BadConfig, "index of the authority's key", index, found));
        }
        let authorities = committee.size();
        let pace = pace.of(authorities);
        let owner = Owner { committee_id: *committee.id(), epoch: committee.epoch, authority: index, session };
        let mut backup = Backup::open(&folder, &owner)?;
        let shared = Shared::new((index, authorities, session), pace, backup.length, backup.own_round);
        let members = committee.authorities.iter().map(|a| a.key).collect();
        let keys = Keys::new(members, (committee.id(), committee.epoch, session), index, key, random_token());

        let (inbox, from_peers) = mpsc::channel(QUEUE);
        let (outbox, to_peers) = mpsc::channel(QUEUE);
        let (ordered, in_order) = mpsc::unbounded_channel();
        let held = Arc::new(AtomicUsize::new(0));
        let tasks = Arc::new(Mutex::new(Vec::new()));
        let spawn = |task: JoinHandle<()>| lock(&tasks).push(task.abort_handle());
        spawn(tokio::spawn(sync_loop(shared.clone(), backup.file.clone(), backup.path.clone(), disk)));
        spawn(tokio::spawn(send_loop(shared.clone(), to_peers, held.clone(), transport)));
        spawn(tokio::spawn(forward(in_order, out)));

        let link = Link {
            shared: shared.clone(),
            keys: keys.clone(),
            inbox: from_peers,
            local: inbox.clone(),
            outbox,
            held,
            held_max: 2 * message_bytes_max(authorities),
        };
        let (exit, on_exit) = oneshot::channel();
        let units = futures::io::Cursor::new(std::mem::take(&mut backup.units));
        let io = LocalIO::new_with_unit_finalization_handler(
            Feed { shared: shared.clone(), source: source.clone() },
            Taker { shared: shared.clone(), session, out: ordered },
            backup.saver(shared.clone()),
            units,
        );
        let failing = shared.clone();
        let spawner = Spawner { on_panic: Arc::new(move |e| failing.fail(e)), tasks: tasks.clone() };
        let (node, count) = (NodeIndex(index as usize), NodeCount(authorities));
        let delays = delays(pace, authorities);
        let config = create_config(count, node, session, ROUNDS_MAX, delays, Duration::ZERO)
            .map_err(|_| Error::new(Code::BadConfig, "AlephBFT refused its configuration"))?;
        let terminator = Terminator::create_root(on_exit, "florin-ordering");
        let gate = Gate::new(keys.clone(), session);
        let ending = shared.clone();
        let tasks_of_session = spawner.clone();
        let runner = spawner.spawn_essential("session", async move {
            run_session(config, io, link, keys, tasks_of_session, terminator).await;
            // Nothing happens if it was asked to.
            ending.fail(Error::new(Code::StorageFailed, "AlephBFT ended its session early"));
        });
        let peers = (0..authorities).map(|_| {
            let incoming = Incoming::new(message_bytes_max(authorities));
            Mutex::new(Peer { incoming, alerts: Default::default() })
        });
        Ok(Engine {
            peers: peers.collect(),
            shared,
            gate,
            source,
            inbox,
            backup: backup.file,
            exit: Mutex::new(Some(exit)),
            runner: Mutex::new(Some(runner)),
            tasks,
        })
    }

    /// Takes a frame of a peer. Anything is safe to pass in: what is malformed, false or too much is dropped and counted.
    pub fn receive(&self, from: u32, frame: Bytes) {
        match self.take(from, frame) {
            Ok(Some(data)) => {
                if self.inbox.try_send(data).is_err() {
                    self.shared.counters.unread.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(None) => {}
            Err(why) => {
                self.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(from, why, "refused a frame of the ordering engine");
            }
        }
    }

    fn take(&self, from: u32, frame: Bytes) -> std::result::Result<Option<Data>, Refused> {
        if from == self.shared.own || self.shared.fault().is_some() {
            return Err("not from a peer, or after a fault");
        }
        let peer = self.peers.get(from as usize).ok_or("from no authority")?;
        let mut peer = lock(peer);
        let Some(message) = peer.incoming.frame(frame)? else { return Ok(None) };
        let read = Message::read(&message)?;
        peer.incoming.spend_on(&read)?;
        let Checked { units, alert } = self.gate.check(from, read)?;
        if let Some(alert) = alert {
            // AlephBFT keeps every alert. An honest peer has one about each forker, and passes on those of others.
            let most = (self.peers.len() - 1) / 3 * (self.peers.len() + 1);
            if peer.alerts.len() >= most && !peer.alerts.contains(&alert) {
                return Err("more alerts than there can be");
            }
            peer.alerts.insert(alert);
        }
        drop(peer);
        for unit in &units {
            self.check_own(from, &unit.unit)?;
            let urgent = unit.unit.data.as_ref().is_some_and(|data| self.source.is_urgent(&data.0));
            self.shared.note_seen(&unit.unit, urgent);
        }
        Data::decode(&mut &*message).map(Some).map_err(|_| "not a message")
    }

    /// A unit with our own signature is in our backup, or we forgot it.
    fn check_own(&self, from: u32, unit: &wire::Unit) -> std::result::Result<(), Refused> {
        if unit.creator != u64::from(self.shared.own) || i32::from(unit.round) <= self.shared.own_round() {
            return Ok(());
        }
        let what = format!("authority {from} has our unit of round {}", unit.round);
        let what = format!("{what}, but the newest in our backup is of round {}", self.shared.own_round());
        self.shared.fail(Error::new(Code::StorageCorrupt, what));
        Err("our own unit, which we forgot")
    }

    /// There is something to order: the next unit comes without the wait of an idle pace.
    pub fn wake(&self) {
        self.shared.wake();
    }

    /// The same, for whoever can't hold the engine.
    fn waker(&self) -> impl Fn() + Send + 'static {
        let shared = self.shared.clone();
        move || shared.wake()
    }

    /// Why the engine stopped by itself, if it did. It sends nothing from then on.
    pub fn fault(&self) -> Option<Error> {
        self.shared.fault()
    }

    /// What was lost or refused.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Waits until the engine has ended: Ok after [`Engine::stop`], otherwise the fault.
    pub async fn ended(&self) -> Result<()> {
        let mut ended = self.shared.ended();
        match ended.wait_for(|end| end.is_some()).await.as_deref() {
            Ok(Some(end)) => end.clone(),
            _ => Ok(()),
        }
    }

    /// Ends the session here; what is in the backup stays. Returns when its tasks are done and the backup is closed.
    pub async fn stop(&self) {
        self.shared.end(Ok(()));
        if let Some(exit) = lock(&self.exit).take() {
            let _ = exit.send(());
        }
        let runner = lock(&self.runner).take();
        if let Some(runner) = runner
            && tokio::time::timeout(STOP, runner).await.is_err()
        {
            tracing::warn!("AlephBFT did not stop by itself");
        }
        self.close();
    }

    /// Cuts the tasks off and lets another engine have the backup, even while a task still holds it.
    fn close(&self) {
        lock(&self.tasks).drain(..).for_each(|task| task.abort());
        *lock(&self.shared.is_closed) = true;
        let _ = self.backup.unlock();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.end(Ok(()));
        self.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no panic under this lock")
}

/// Passes the order on as fast as the consumer takes it. What waits is bounded by the session, whose graph is in memory.
async fn forward(mut ordered: mpsc::UnboundedReceiver<OrderedUnit>, out: mpsc::Sender<OrderedUnit>) {
    while let Some(unit) = ordered.recv().await {
        if out.send(unit).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
