//! AlephBFT as the log's [`Ordering`]: an engine a session, one queue of what waits to be ordered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use florin_core::limits::SESSION_ROUNDS;
use florin_core::ordered::engine::{Ordering, Unit};
use florin_core::ordered::item::is_only_clock;
use florin_core::{Code, Error, Result};
use tokio::sync::mpsc;
use tracing::warn;

use super::{
    Engine, EngineConfig, HANDOVER_ROUNDS, OrderedUnit, Recipient, Source, Transport, UNIT_BYTES_MAX, prepare_backup,
    remove_backups_below,
};

/// Bytes that may wait to be put into units.
const QUEUE_BYTES: usize = 8 << 20;
/// Units that may wait to be applied.
const UNITS: usize = 1_024;

/// The way to peers, for all sessions.
pub trait Frames: Send + Sync + 'static {
    /// Sends a frame of a session, or loses it; must not block. See [`Transport::send`].
    fn send(&self, session: u64, to: Recipient, frame: Bytes);
}

/// What waits to be ordered.
#[derive(Default)]
struct Queue {
    items: VecDeque<Bytes>,
    bytes: usize,
    /// Data of own units that did not come out yet, and the session of each: one that is cut may leave them out, and
    /// the next one gets them then.
    taken: VecDeque<(u64, Bytes)>,
    /// The session that gets data: the open one, or the next when it is at its end.
    session: u64,
    /// Wakes the engine of the next session, which is idle until it gets data.
    wake_next: Option<Box<dyn Fn() + Send>>,
}

impl Queue {
    /// A session opens, as those before it were cut: it gets what they have left out, first.
    fn open(&mut self, session: u64) {
        self.session = self.session.max(session);
        for (of, unit) in std::mem::take(&mut self.taken).into_iter().rev() {
            if of >= session {
                self.taken.push_front((of, unit));
            } else {
                self.bytes += unit.len();
                self.items.push_front(unit);
            }
        }
    }
}

/// The queue, as the engine of one session sees it.
struct OfSession {
    session: u64,
    queue: Arc<Mutex<Queue>>,
}

impl Source for OfSession {
    /// As much as a unit holds. The encodings of `UnitData`, one after another, are the encoding of one with all their
    /// items and the last one's clock: protobuf is made so.
    fn next(&self, round: u32) -> Option<Bytes> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.session == self.session && round + HANDOVER_ROUNDS >= SESSION_ROUNDS {
            queue.session += 1;
            if !queue.items.is_empty() {
                queue.wake_next.iter().for_each(|wake| wake());
            }
        }
        if queue.session != self.session {
            return None;
        }
        let mut unit = BytesMut::new();
        while let Some(next) = queue.items.front()
            && unit.len() + next.len() <= UNIT_BYTES_MAX
        {
            unit.extend_from_slice(next);
            queue.bytes -= next.len();
            queue.items.pop_front();
        }
        if unit.is_empty() {
            return None;
        }
        let unit = unit.freeze();
        queue.taken.push_back((self.session, unit.clone()));
        Some(unit)
    }

    /// Clocks are voted on also where nothing happens. With twenty authorities that is every three seconds, and each would
    /// keep all of them busy for one.
    fn is_urgent(&self, data: &[u8]) -> bool {
        !is_only_clock(data)
    }
}

/// The engines of the sessions that are open.
pub struct Aleph {
    config: EngineConfig,
    frames: Arc<dyn Frames>,
    queue: Arc<Mutex<Queue>>,
    engines: BTreeMap<u64, Engine>,
    /// The newest session that was opened; what is later was started ahead.
    open: u64,
    sender: mpsc::Sender<OrderedUnit>,
    units: mpsc::Receiver<OrderedUnit>,
}

impl Aleph {
    /// Without any session. Must be used on a tokio runtime.
    pub fn new(config: EngineConfig, frames: Arc<dyn Frames>) -> Aleph {
        let (sender, units) = mpsc::channel(UNITS);
        Aleph { config, frames, queue: Arc::default(), engines: BTreeMap::new(), open: 0, sender, units }
    }

    /// Makes the backup of a session, before it is joined for the first time.
    pub fn prepare(&self, session: u64) -> Result<()> {
        prepare_backup(&self.config, session)
    }

    /// A peer's frame; false if its session has no engine here.
    pub fn receive(&self, session: u64, from: u32, frame: Bytes) -> bool {
        self.engines.get(&session).inspect(|engine| engine.receive(from, frame)).is_some()
    }

    /// Whether nothing waits to be ordered.
    pub fn is_idle(&self) -> bool {
        self.lock().items.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sessions that have an engine.
    pub fn open_sessions(&self) -> Vec<u64> {
        self.engines.keys().copied().collect()
    }

    /// Why the engine of the open session orders no more, or that of the next one, if so; and which.
    pub fn fault(&self) -> Option<(u64, Error)> {
        self.engines.range(self.open..).find_map(|(session, engine)| Some((*session, engine.fault()?)))
    }

    /// Starts the engine of the session after the open one: it is under way when that ends. Errors: as for `open`.
    pub fn open_ahead(&mut self, session: u64) -> Result<()> {
        self.start(session)?;
        let wake = self.engines.get(&session).map(|engine| Box::new(engine.waker()) as Box<_>);
        self.lock().wake_next = wake;
        Ok(())
    }

    fn start(&mut self, session: u64) -> Result<()> {
        if !self.engines.contains_key(&session) {
            let transport = Arc::new(Session { session, frames: self.frames.clone() });
            let source = Arc::new(OfSession { session, queue: self.queue.clone() });
            let engine = Engine::start(self.config.clone(), session, transport, source, self.sender.clone())?;
            self.engines.insert(session, engine);
        }
        Ok(())
    }

    /// Ends all engines in order.
    pub async fn stop(&mut self) {
        for engine in self.engines.values() {
            engine.stop().await;
        }
        self.engines.clear();
    }
}

impl Ordering for Aleph {
    fn open(&mut self, session: u64) -> Result<()> {
        self.start(session)?;
        if session > self.open {
            self.open = session;
            self.lock().wake_next = None;
        }
        self.lock().open(session);
        if !self.is_idle() {
            self.engines.get(&session).into_iter().for_each(Engine::wake);
        }
        Ok(())
    }

    fn close(&mut self, session: u64) {
        if let Some(engine) = self.engines.remove(&session) {
            tokio::spawn(async move { engine.stop().await });
        }
        let oldest = self.engines.keys().next().copied().unwrap_or(session + 1);
        if let Err(e) = remove_backups_below(&self.config.folder, oldest.min(session + 1)) {
            warn!("removing backups of closed sessions: {e}");
        }
    }

    fn submit(&mut self, data: Bytes) -> Result<()> {
        let (mut queue, urgent) = (self.lock(), !is_only_clock(&data));
        if queue.bytes + data.len() > QUEUE_BYTES {
            return Err(Error::new(Code::Busy, format!("{} bytes wait to be ordered", queue.bytes)));
        }
        queue.bytes += data.len();
        queue.items.push_back(data);
        let session = queue.session;
        drop(queue);
        // Those that run ahead may rest, those that were cut as well.
        if urgent {
            self.engines.get(&session).into_iter().for_each(Engine::wake);
        }
        Ok(())
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Unit>> {
        self.units.poll_recv(context).map(|unit| {
            let OrderedUnit { session, creator, round, data } =
                unit.ok_or_else(|| Error::new(Code::Busy, "the engine is stopping"))?;
            // Those of later rounds are out of the session.
            if creator == self.config.index && !data.is_empty() && round < SESSION_ROUNDS {
                let mut queue = self.lock();
                if let Some(at) = queue.taken.iter().position(|(of, unit)| *of == session && *unit == data) {
                    queue.taken.remove(at);
                }
            }
            Ok(Unit { session, creator, round, data })
        })
    }
}

/// The frames of one session.
struct Session {
    session: u64,
    frames: Arc<dyn Frames>,
}

impl Transport for Session {
    fn send(&self, to: Recipient, frame: Bytes) {
        self.frames.send(self.session, to, frame);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering as Atomic};

    use super::*;

    #[test]
    fn what_comes_at_the_end_of_a_session_goes_to_the_next() {
        let queue = Arc::new(Mutex::new(Queue::default()));
        let put = |data: &'static str| {
            let mut queue = queue.lock().unwrap();
            queue.bytes += data.len();
            queue.items.push_back(data.into());
        };
        let ask = |session, round| OfSession { session, queue: queue.clone() }.next(round);
        put("a");
        assert_eq!(ask(1, 0), None);
        assert_eq!(ask(0, SESSION_ROUNDS - HANDOVER_ROUNDS - 1), Some("a".into()));
        put("b");
        let woken = Arc::new(AtomicBool::new(false));
        let wake = woken.clone();
        queue.lock().unwrap().wake_next = Some(Box::new(move || wake.store(true, Atomic::Relaxed)));
        assert_eq!(ask(0, SESSION_ROUNDS - HANDOVER_ROUNDS), None);
        assert!(woken.load(Atomic::Relaxed));
        assert_eq!(ask(1, 3), Some("b".into()));
        put("c");
        // The cut left out the first; the second is under way where it was put.
        queue.lock().unwrap().open(1);
        assert_eq!(ask(0, 0), None);
        assert_eq!(ask(1, 4), Some("ac".into()));
        queue.lock().unwrap().open(2);
        assert_eq!(ask(2, 0), Some("bac".into()));
    }
}
