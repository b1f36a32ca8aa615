//! The consensus task: one session of the ordering engine after another, and catching up when peers are ahead.
//!
//! Units go from the engine to the log in their order. When the log says that a session has ended, its own signature
//! goes to the peers and the next session starts; the engine of the old one goes on, for peers that are behind, until a
//! quorum has signed. An authority that hears of later sessions takes the signed ones from its peers instead.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering as Atomic};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use florin_core::limits::{SESSION_BYTES_MAX, SESSION_ROUNDS};
use florin_core::ordered::engine::{Ordering, Unit};
use florin_core::ordered::input::Input;
use florin_core::ordered::item::pack;
use florin_core::ordered::session;
use florin_core::wire::{LogStatusRequest, OrderFrame, Signed};
use florin_core::{Code, Error, Result};
use florin_rpc::services::authority_service_client::AuthorityServiceClient;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tracing::{debug, error, info, warn};

use crate::catch_up::{CatchUp, remote};
use crate::inbox::{Frames, Inbox, inbox};
use crate::log::LogShell;
use crate::ordering::{Aleph, LEAD_ROUNDS};
use crate::participation::Participation;
use crate::peers::Peers;

/// How often the state of sessions is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How often an own signature is sent again while a quorum lacks.
const RESEND: Duration = Duration::from_secs(1);
/// Own signatures that are sent again at a time.
const RESEND_MAX: u64 = 8;
/// How long a later session of peers may be heard before signed ones are fetched: mostly the own engine gets there.
const GRACE: Duration = Duration::from_secs(2);
/// Between clock votes while time locks are open, and while none are.
const CLOCK_OPEN: Duration = Duration::from_secs(1);
const CLOCK_IDLE: Duration = Duration::from_secs(60);
/// Sessions that a rebuilt authority leaves out beyond the newest that is known.
const JOIN_MARGIN: u64 = 4;
/// Unsigned sessions whose engines start again, at most.
const UNSIGNED_MAX: u64 = 4;
/// Bytes of one peer's frames that may wait for the next session to open here.
const EARLY_BYTES: usize = 1 << 20;
/// What each of them counts for at least.
const EARLY_COST_MIN: usize = 4 << 10;
/// A session of which so many bytes are left is about to end.
const LEAD_BYTES: u64 = 2 << 20;
/// Batches of items that may wait.
const ITEMS: usize = 256;

/// What others give to the task, and may ask of it.
#[derive(Clone)]
pub struct Consensus {
    inbox: Inbox,
    items: mpsc::Sender<Vec<Bytes>>,
    heard: Arc<Vec<AtomicU64>>,
    fault: Arc<Mutex<Option<Error>>>,
}

/// The other ends of its queues.
pub struct Queues {
    frames: Frames,
    items: mpsc::Receiver<Vec<Bytes>>,
}

impl Consensus {
    /// The handle of a task to be, for a committee of this size.
    pub fn new(authorities: usize) -> (Consensus, Queues) {
        let (inbox, frames) = inbox(authorities);
        let (items, items_end) = mpsc::channel(ITEMS);
        let heard = Arc::new((0..authorities).map(|_| AtomicU64::new(0)).collect());
        let handle = Consensus { inbox, items, heard, fault: Arc::default() };
        (handle, Queues { frames, items: items_end })
    }

    /// A peer's frame, its sender proved by its connection; waits while too many of it wait. Errors: `LIMIT` if it is
    /// too large.
    pub async fn receive(&self, from: u32, frame: OrderFrame) -> Result<()> {
        self.heard[from as usize].fetch_max(frame.session, Atomic::Relaxed);
        self.inbox.put(from, frame).await
    }

    /// Items to be ordered. Errors: `BUSY`.
    pub fn offer(&self, items: Vec<Bytes>) -> Result<()> {
        let full = |_| Error::new(Code::Busy, "too much waits to be ordered");
        self.items.try_send(items).map_err(full)
    }

    /// By authority: the session that it was last heard in.
    pub fn heard(&self) -> Vec<u64> {
        self.heard.iter().map(|s| s.load(Atomic::Relaxed)).collect()
    }

    /// Why nothing is ordered, if so.
    pub fn fault(&self) -> Option<Error> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_fault(&self, e: Option<Error>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = e;
    }
}

/// The task.
pub struct Task {
    /// The log.
    pub shell: Arc<LogShell>,
    /// The engine.
    pub aleph: Aleph,
    /// Streams to peers.
    pub peers: Arc<Peers>,
    /// Peers to fetch signed sessions from; none for this authority itself.
    pub clients: Vec<Option<AuthorityServiceClient<Channel>>>,
    /// Its handle.
    pub handle: Consensus,
    /// Queues of the handle.
    pub queues: Queues,
    /// Sessions that ended.
    pub closed: mpsc::UnboundedReceiver<(u64, Signed)>,
    /// Which sessions it may take part in.
    pub participation: Participation,
}

/// What it remembers.
struct Progress {
    /// Session that is open in the log.
    open: u64,
    /// Units with data and their bytes, by session, as the engine gives them.
    positions: BTreeMap<u64, (u32, u64)>,
    /// Units of the next session: the log takes them when the open one is closed.
    ahead: Vec<Unit>,
    /// Since when something is to be had from peers: later sessions, or signatures of closed ones.
    behind: Option<Instant>,
    /// Catching up, and the end of it.
    catching: Option<JoinHandle<Result<()>>>,
    clock: Instant,
    resent: Instant,
    /// Frames of the next session, by peer: some have closed the open one a moment earlier. Asking again for what was
    /// lost takes the engine tenths of a second, in which nothing is ordered.
    early: BTreeMap<u32, Early>,
    /// False signatures, by session and peer: each costs a check.
    bad: HashMap<(u64, u32), u32>,
}

#[derive(Default)]
struct Early {
    frames: Vec<Bytes>,
    bytes: usize,
}

impl Task {
    /// Runs until its queues or the log end. Errors are those that the authority should stop for.
    pub async fn run(mut self) {
        if let Err(e) = self.orders().await {
            error!("ordering stops: {e}");
            self.handle.set_fault(Some(e));
        }
        self.aleph.stop().await;
        // Payments go on without the log; the frames and items of others are dropped.
        while self.queues.frames.next().await.is_some() {}
    }

    async fn orders(&mut self) -> Result<()> {
        let book = self.shell.log().book(self.shell.store())?;
        let now = Instant::now();
        let mut progress = Progress {
            open: book.session,
            positions: BTreeMap::new(),
            ahead: Vec::new(),
            behind: None,
            catching: None,
            // The log's time must not be old when something comes that rests on it.
            clock: now.checked_sub(CLOCK_IDLE).unwrap_or(now),
            resent: now,
            early: BTreeMap::new(),
            bad: HashMap::new(),
        };
        while self.participation.is_unknown() {
            self.find_first_session(&mut progress).await?;
        }
        // Sessions that are closed here and not signed: peers that were cut off in them need us.
        let signed = session::signed_sessions(self.shell.store())?;
        for session in signed.max(progress.open.saturating_sub(UNSIGNED_MAX))..progress.open {
            if self.participation.may_join(session)
                && let Err(e) = self.aleph.open(session)
            {
                warn!(session, "a session that is not signed yet: {e}");
            }
        }
        self.open(&mut progress)?;
        self.start_catching(&mut progress);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                closed = self.closed.recv() => match closed {
                    Some((session, signature)) => self.closed(session, &signature, &mut progress).await?,
                    None => return Ok(()),
                },
                frame = self.queues.frames.next() => match frame {
                    Some((from, frame)) => self.frame(from, frame, &mut progress).await?,
                    None => return Ok(()),
                },
                unit = std::future::poll_fn(|cx| self.aleph.poll(cx)) => self.unit(unit?, &mut progress).await?,
                items = self.queues.items.recv() => match items {
                    Some(items) => self.items(items, &mut progress),
                    None => return Ok(()),
                },
                _ = tick.tick() => self.tick(&mut progress).await?,
                end = caught(&mut progress.catching) => {
                    end?;
                    self.open(&mut progress)?;
                }
            }
        }
    }

    fn open(&mut self, progress: &mut Progress) -> Result<()> {
        // What peers have signed needs no engine here.
        if progress.catching.is_some() && self.is_behind(progress) {
            return Ok(());
        }
        progress.positions.retain(|session, _| session + 2 > progress.open);
        let session = progress.open;
        if self.aleph.open_sessions().contains(&session) {
            self.aleph.open(session)?;
            if self.aleph.fault().is_none() {
                self.handle.set_fault(None);
            }
            return Ok(());
        }
        if !self.participation.may_join(session) {
            let message = format!("session {session} goes on without this authority: it may have forgotten its units");
            warn!("{message}");
            self.handle.set_fault(Some(Error::new(Code::StorageCorrupt, message)));
            return Ok(());
        }
        // The backup first: a session that is marked as joined and has none would be left out.
        let opened = self.aleph.prepare(session).and_then(|()| {
            self.participation.join(session)?;
            self.aleph.open(session)
        });
        match opened {
            Err(e) if e.code == Code::StorageCorrupt => {
                // It may have forgotten units of this session, so it must not make others; the next one is new.
                warn!(session, "this session goes on without us: {e}");
                self.handle.set_fault(Some(e));
                Ok(())
            }
            other => other.inspect(|()| self.handle.set_fault(None)),
        }
    }

    /// Starts the engine of the session after the open one, which is about to end: what comes at the end is ordered
    /// there, and must not wait for files and first rounds.
    fn open_ahead(&mut self, progress: &mut Progress) -> Result<()> {
        let session = progress.open + 1;
        let is_known = progress.catching.is_some() && self.is_behind(progress);
        if is_known || self.aleph.open_sessions().contains(&session) || !self.participation.may_join(session) {
            return Ok(());
        }
        let opened = self.aleph.prepare(session).and_then(|()| {
            self.participation.join(session)?;
            self.aleph.open_ahead(session)
        });
        match opened {
            Err(e) if e.code == Code::StorageCorrupt => warn!(session, "the next session goes on without us: {e}"),
            other => other?,
        }
        for (from, early) in std::mem::take(&mut progress.early) {
            for frame in early.frames {
                self.aleph.receive(session, from, frame);
            }
        }
        Ok(())
    }

    /// Finds a session that the machine before this one can't have been in.
    ///
    /// It was in a session only if the one before was about to end and the one before that closed, which f + 1 honest
    /// peers at least had nearly done too; signed sessions are known here by now. So later than what f + 1 peers say is
    /// open, and than what is signed, by a margin, is new to it.
    async fn find_first_session(&mut self, progress: &mut Progress) -> Result<()> {
        let committee = self.shell.log().committee().clone();
        let mut open = Vec::new();
        for mut client in self.clients.iter().flatten().cloned().collect::<Vec<_>>() {
            match remote(client.log(LogStatusRequest {})).await {
                Ok(status) => open.push(status.session),
                Err(e) => debug!("asking a peer for its session: {e}"),
            }
        }
        if open.len() < committee.quorum().min(committee.size() - 1) {
            info!(answers = open.len(), "rebuilt: waiting for peers to say which session is open");
            tokio::time::sleep(GRACE).await;
            return Ok(());
        }
        let clients = self.clients.iter().flatten().cloned().collect();
        CatchUp { shell: self.shell.clone(), clients }.run().await?;
        progress.open = self.shell.log().book(self.shell.store())?.session;
        open.sort_unstable_by_key(|session| std::cmp::Reverse(*session));
        let said = open.get(committee.faults()).copied().unwrap_or(0);
        let first = said.max(progress.open) + JOIN_MARGIN;
        info!(first, "rebuilt: takes part in ordering from this session on");
        self.participation.start_from(first)
    }

    async fn unit(&mut self, unit: Unit, progress: &mut Progress) -> Result<()> {
        if unit.session > progress.open {
            progress.ahead.push(unit);
            return Ok(());
        }
        let Unit { session, creator, round, data } = unit;
        let (position, bytes) = progress.positions.entry(session).or_default();
        let at = *position;
        if session < progress.open {
            return Ok(());
        }
        *position += u32::from(!data.is_empty());
        *bytes += data.len() as u64;
        let is_ending = round + LEAD_ROUNDS >= SESSION_ROUNDS || *bytes + LEAD_BYTES >= SESSION_BYTES_MAX;
        self.shell.feed(Input::Unit { session, position: at, creator, round, data }).await?;
        if is_ending {
            self.open_ahead(progress)?;
        }
        Ok(())
    }

    fn items(&mut self, mut items: Vec<Bytes>, progress: &mut Progress) {
        while let Ok(more) = self.queues.items.try_recv() {
            items.extend(more);
        }
        for unit in pack(now_ms(), items) {
            if let Err(e) = self.aleph.submit(unit) {
                debug!("{e}; it comes again");
            }
        }
        progress.clock = Instant::now();
    }

    async fn closed(&mut self, session: u64, signature: &Signed, progress: &mut Progress) -> Result<()> {
        self.peers.send_signature(session, signature);
        if session < progress.open {
            return Ok(());
        }
        progress.open = session + 1;
        let early = std::mem::take(&mut progress.early);
        progress.bad.retain(|(s, _), _| s + RESEND_MAX > session);
        self.open(progress)?;
        for (from, early) in early {
            for frame in early.frames {
                self.aleph.receive(session + 1, from, frame);
            }
        }
        for unit in std::mem::take(&mut progress.ahead) {
            self.unit(unit, progress).await?;
        }
        Ok(())
    }

    async fn frame(&mut self, from: u32, frame: OrderFrame, progress: &mut Progress) -> Result<()> {
        let session = frame.session;
        if let Some(signature) = frame.signature {
            // Not ours to count yet, or long done: it comes again while it matters.
            let done = session::signed_sessions(self.shell.store())?;
            let bad = progress.bad.get(&(session, from)).copied().unwrap_or(0);
            if session >= progress.open || session < done || signature.authority != from || bad > 2 {
                return Ok(());
            }
            let shell = self.shell.clone();
            match shell.handle(Input::Signature { session, signature }).await {
                Ok(_) => {}
                Err(e) if e.is_own_fault() => return Err(e),
                Err(e) => {
                    warn!(peer = from, session, "a signature of a session: {e}");
                    *progress.bad.entry((session, from)).or_default() += 1;
                    let others = progress.bad.keys().filter(|(s, _)| *s == session).count();
                    if others > shell.log().committee().faults() {
                        let what = format!("session {session}: {others} authorities signed another outcome than here");
                        return Err(Error::new(Code::SessionMismatch, what));
                    }
                }
            }
        }
        let is_early = session == progress.open + 1 && !self.aleph.open_sessions().contains(&session);
        if !frame.frame.is_empty() && is_early {
            let early = progress.early.entry(from).or_default();
            early.bytes += frame.frame.len().max(EARLY_COST_MIN);
            if early.bytes <= EARLY_BYTES {
                early.frames.push(frame.frame);
            }
        } else if !frame.frame.is_empty() {
            self.aleph.receive(session, from, frame.frame);
        }
        Ok(())
    }

    async fn tick(&mut self, progress: &mut Progress) -> Result<()> {
        if let Some(e) = self.shell.fault() {
            return Err(e);
        }
        if let Some((session, e)) = self.aleph.fault() {
            // A peer has shown a unit of ours that is not in the backup.
            if e.code == Code::StorageCorrupt && self.participation.may_join(session) {
                self.participation.start_from(session + 1)?;
            }
            self.handle.set_fault(Some(e));
        }
        let signed = session::signed_sessions(self.shell.store())?;
        for session in self.aleph.open_sessions() {
            if session < signed && session < progress.open {
                self.aleph.close(session);
            }
        }
        if progress.resent.elapsed() >= RESEND {
            progress.resent = Instant::now();
            for session in (signed..progress.open).take(RESEND_MAX as usize) {
                if let Some(signature) = self.shell.log().own_signature(self.shell.store(), session)? {
                    self.peers.send_signature(session, &signature);
                }
            }
        }
        let every = if self.shell.log().needs_time(self.shell.store())? { CLOCK_OPEN } else { CLOCK_IDLE };
        if progress.clock.elapsed() >= every && self.aleph.is_idle() {
            self.items(Vec::new(), progress);
        }
        let behind = self.is_behind(progress) || signed < progress.open;
        match progress.behind {
            None if behind => progress.behind = Some(Instant::now()),
            Some(since) if behind && since.elapsed() > GRACE => {
                progress.behind = None;
                self.start_catching(progress);
            }
            Some(_) if !behind => progress.behind = None,
            _ => {}
        }
        Ok(())
    }

    /// Whether peers, an honest one among them, are in later sessions.
    fn is_behind(&self, progress: &Progress) -> bool {
        let mut heard = self.handle.heard();
        heard.sort_unstable_by_key(|session| std::cmp::Reverse(*session));
        heard[self.shell.log().committee().faults()] > progress.open
    }

    /// Catches up with peers beside the engine, which goes on.
    fn start_catching(&self, progress: &mut Progress) {
        if progress.catching.is_none() {
            let clients = self.clients.iter().flatten().cloned().collect();
            let catching = CatchUp { shell: self.shell.clone(), clients };
            progress.catching = Some(tokio::spawn(catching.run()));
        }
    }
}

/// Waits for the end of catching up, if it is under way.
async fn caught(catching: &mut Option<JoinHandle<Result<()>>>) -> Result<()> {
    match catching {
        Some(handle) => {
            let end = handle.await;
            *catching = None;
            end.map_err(|e| Error::new(Code::Io, format!("catching up: {e}")))?
        }
        None => std::future::pending().await,
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
