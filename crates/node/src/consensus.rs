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
use florin_core::ordered::engine::{Ordering, Unit};
use florin_core::ordered::input::Input;
use florin_core::ordered::item::pack;
use florin_core::ordered::session;
use florin_core::wire::{LogStatusRequest, OrderFrame, SessionsRequest, Signed, SignedSession, UnitsRequest};
use florin_core::{Code, Error, Result};
use florin_rpc::errors::from_status;
use florin_rpc::services::authority_service_client::AuthorityServiceClient;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tracing::{debug, error, info, warn};

use crate::log::LogShell;
use crate::ordering::Aleph;
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
const JOIN_MARGIN: u64 = 3;
/// Sessions fetched at a time.
const SESSIONS: u32 = 32;
/// Frames of peers that may wait.
const FRAMES: usize = 8_192;
/// Batches of items that may wait.
const ITEMS: usize = 256;

/// What others give to the task, and may ask of it.
#[derive(Clone)]
pub struct Consensus {
    frames: mpsc::Sender<(u32, OrderFrame)>,
    items: mpsc::Sender<Vec<Bytes>>,
    heard: Arc<Vec<AtomicU64>>,
    fault: Arc<Mutex<Option<Error>>>,
}

/// The other ends of its queues.
pub struct Queues {
    frames: mpsc::Receiver<(u32, OrderFrame)>,
    items: mpsc::Receiver<Vec<Bytes>>,
}

impl Consensus {
    /// The handle of a task to be, for a committee of this size.
    pub fn new(authorities: usize) -> (Consensus, Queues) {
        let (frames, frames_end) = mpsc::channel(FRAMES);
        let (items, items_end) = mpsc::channel(ITEMS);
        let heard = Arc::new((0..authorities).map(|_| AtomicU64::new(0)).collect());
        let handle = Consensus { frames, items, heard, fault: Arc::default() };
        (handle, Queues { frames: frames_end, items: items_end })
    }

    /// A peer's frame, its sender proved by its connection.
    pub async fn receive(&self, from: u32, frame: OrderFrame) -> Result<()> {
        self.heard[from as usize].fetch_max(frame.session, Atomic::Relaxed);
        self.frames.send((from, frame)).await.map_err(|_| Error::new(Code::Busy, "the log is stopping"))
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
    /// Units with data, by session, as the engine gives them.
    positions: BTreeMap<u64, u32>,
    /// Since when peers are heard in later sessions.
    ahead: Option<Instant>,
    clock: Instant,
    resent: Instant,
    /// False signatures, by session and peer: each costs a check.
    bad: HashMap<(u64, u32), u32>,
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
        while self.queues.frames.recv().await.is_some() {}
    }

    async fn orders(&mut self) -> Result<()> {
        let book = self.shell.log().book(self.shell.store())?;
        let now = Instant::now();
        let mut progress = Progress {
            open: book.session,
            positions: BTreeMap::new(),
            ahead: None,
            clock: now,
            resent: now,
            bad: HashMap::new(),
        };
        self.catch_up(&mut progress).await?;
        while self.participation.is_unknown() {
            self.find_first_session(&mut progress).await?;
        }
        self.open(&mut progress)?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                closed = self.closed.recv() => match closed {
                    Some((session, signature)) => self.closed(session, &signature, &mut progress)?,
                    None => return Ok(()),
                },
                frame = self.queues.frames.recv() => match frame {
                    Some((from, frame)) => self.frame(from, frame, &mut progress).await?,
                    None => return Ok(()),
                },
                unit = std::future::poll_fn(|cx| self.aleph.poll(cx)) => self.unit(unit?, &mut progress).await?,
                items = self.queues.items.recv() => match items {
                    Some(items) => self.items(items, &mut progress),
                    None => return Ok(()),
                },
                _ = tick.tick() => self.tick(&mut progress).await?,
            }
        }
    }

    fn open(&mut self, progress: &mut Progress) -> Result<()> {
        progress.positions.retain(|session, _| session + 2 > progress.open);
        let session = progress.open;
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

    /// Finds a session that the machine before this one can't have been in.
    ///
    /// It was in a session only if it had closed the one before, which f + 1 honest peers at least had nearly done
    /// too; signed sessions are known here by now. So later than what f + 1 peers say is open, and than what is
    /// signed, by a margin, is new to it.
    async fn find_first_session(&mut self, progress: &mut Progress) -> Result<()> {
        let committee = self.shell.log().committee().clone();
        let mut open = Vec::new();
        for mut client in self.clients.iter().flatten().cloned().collect::<Vec<_>>() {
            match client.log(LogStatusRequest {}).await.map_err(from_status) {
                Ok(status) => open.push(status.into_inner().session),
                Err(e) => debug!("asking a peer for its session: {e}"),
            }
        }
        if open.len() < committee.quorum().min(committee.size() - 1) {
            info!(answers = open.len(), "rebuilt: waiting for peers to say which session is open");
            tokio::time::sleep(GRACE).await;
            return Ok(());
        }
        self.catch_up(progress).await?;
        open.sort_unstable_by_key(|session| std::cmp::Reverse(*session));
        let said = open.get(committee.faults()).copied().unwrap_or(0);
        let first = said.max(progress.open) + JOIN_MARGIN;
        info!(first, "rebuilt: takes part in ordering from this session on");
        self.participation.start_from(first)
    }

    async fn unit(&mut self, unit: Unit, progress: &mut Progress) -> Result<()> {
        let Unit { session, creator, round, data } = unit;
        let position = progress.positions.entry(session).or_default();
        let at = *position;
        if session < progress.open {
            return Ok(());
        }
        *position += u32::from(!data.is_empty());
        self.shell.feed(Input::Unit { session, position: at, creator, round, data }).await
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

    fn closed(&mut self, session: u64, signature: &Signed, progress: &mut Progress) -> Result<()> {
        self.peers.send_signature(session, signature);
        if session < progress.open {
            return Ok(());
        }
        progress.open = session + 1;
        progress.bad.retain(|(s, _), _| s + RESEND_MAX > session);
        self.open(progress)
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
                    *progress.bad.entry((session, from)).or_default() += 1;
                    warn!(peer = from, session, "a signature of a session: {e}");
                }
            }
        }
        if !frame.frame.is_empty() {
            self.aleph.receive(session, from, frame.frame);
        }
        Ok(())
    }

    async fn tick(&mut self, progress: &mut Progress) -> Result<()> {
        if let Some(e) = self.shell.fault() {
            return Err(e);
        }
        if let Some(e) = self.aleph.fault() {
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
        let ahead = self.handle.heard().iter().any(|s| *s > progress.open);
        match progress.ahead {
            None if ahead => progress.ahead = Some(Instant::now()),
            Some(since) if ahead && since.elapsed() > GRACE => {
                progress.ahead = None;
                self.catch_up(progress).await?;
                self.open(progress)?;
            }
            Some(_) if !ahead => progress.ahead = None,
            _ => {}
        }
        Ok(())
    }

    /// Takes signed sessions from peers until none has a later one.
    async fn catch_up(&mut self, progress: &mut Progress) -> Result<()> {
        let before = progress.open;
        let clients: Vec<_> = self.clients.iter().flatten().cloned().collect();
        for mut client in clients {
            loop {
                match self.fetch(&mut client, progress).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(e) if e.is_own_fault() || e.code == Code::SessionMismatch => return Err(e),
                    Err(e) => {
                        debug!("signed sessions of a peer: {e}");
                        break;
                    }
                }
            }
        }
        if progress.open > before {
            info!(from = before, to = progress.open, "caught up with signed sessions");
            for session in self.aleph.open_sessions().into_iter().filter(|s| *s < progress.open) {
                self.aleph.close(session);
            }
        }
        Ok(())
    }

    /// Applies the next signed sessions of one peer; whether there were any.
    async fn fetch(&mut self, client: &mut AuthorityServiceClient<Channel>, progress: &mut Progress) -> Result<bool> {
        let request = SessionsRequest { from: progress.open, limit: SESSIONS };
        let sessions = client.sessions(request).await.map_err(from_status)?.into_inner().sessions;
        let some = !sessions.is_empty();
        for signed in sessions {
            let number = signed.header.as_ref().map_or(0, |h| h.session);
            if number != progress.open {
                return Err(Error::expected(Code::BadSession, "session", progress.open, number));
            }
            self.apply(client, signed).await?;
            progress.open += 1;
        }
        Ok(some)
    }

    async fn apply(&mut self, client: &mut AuthorityServiceClient<Channel>, signed: SignedSession) -> Result<()> {
        let committee = self.shell.log().committee().clone();
        let header = session::check(&committee, &signed)?;
        let mut units = Vec::new();
        while units.len() < header.units as usize {
            let request = UnitsRequest { session: header.session, from: units.len() as u32 };
            let page = client.units(request).await.map_err(from_status)?.into_inner().units;
            if page.is_empty() {
                return Err(Error::expected(Code::BadSession, "units", header.units, units.len()));
            }
            units.extend(page);
        }
        session::verify(&committee, &signed, &units)?;
        for (position, unit) in units.into_iter().enumerate() {
            let (session, creator, data) = (header.session, unit.creator, unit.data);
            self.shell.feed(Input::Unit { session, position: position as u32, creator, round: 0, data }).await?;
        }
        self.shell.handle(Input::Close(signed)).await.map(drop)
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
