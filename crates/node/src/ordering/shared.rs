//! What the tasks of one engine share: how far the file is durable, the first fault, the pace, counters.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use florin_core::error::{Error, Result};
use florin_core::limits::SESSION_ROUNDS;
use tokio::sync::{Notify, watch};

use super::built::Built;
use super::wire::{SignedUnit, Unit};
use super::{Counters, LEAD_ROUNDS, Pace};

/// The pace stays busy for this long after the last unit with urgent data was seen.
const BUSY: Duration = Duration::from_secs(1);
/// And for at most this long while one that was seen is not ordered: on a slow machine its rounds take more than [`BUSY`].
/// One that a liar has made may never be.
const BUSY_UNORDERED: Duration = Duration::from_secs(30);

/// Units with urgent data, by creator and round. A session has few enough.
#[derive(Default)]
struct Urgent {
    waiting: HashSet<(u64, u16)>,
    ordered: HashSet<(u64, u16)>,
}

pub(super) struct Shared {
    pub(super) own: u32,
    pub(super) pace: Pace,
    /// Bytes in the file; more than are durable while `unsynced`.
    pub(super) written: AtomicU64,
    /// Somebody waits for what is not durable.
    pub(super) unsynced: Notify,
    /// Held while writing; nothing is written any more once it is true, as another engine may have the file.
    pub(super) is_closed: Mutex<bool>,
    synced: watch::Sender<u64>,
    ended: watch::Sender<Option<Result<()>>>,
    pub(super) counters: Counters,
    began: Instant,
    /// Milliseconds after `began` until which there is something to order.
    busy_until: AtomicU64,
    hurry: Notify,
    urgent: Mutex<Urgent>,
    /// By authority, the newest round seen; -1 for none.
    rounds: Vec<AtomicI32>,
    /// What own units are built upon.
    pub(super) built: Built,
}

impl Shared {
    pub(super) fn new(
        (own, authorities, session): (u32, usize, u64),
        pace: Pace,
        length: u64,
        own_round: Option<u16>,
    ) -> Arc<Shared> {
        let shared = Shared {
            own,
            pace,
            written: AtomicU64::new(length),
            unsynced: Notify::new(),
            is_closed: Mutex::new(false),
            synced: watch::Sender::new(length),
            ended: watch::Sender::new(None),
            counters: Counters::default(),
            began: Instant::now(),
            busy_until: AtomicU64::new(0),
            hurry: Notify::new(),
            urgent: Mutex::default(),
            rounds: (0..authorities).map(|_| AtomicI32::new(-1)).collect(),
            built: Built::new(own, authorities, session),
        };
        if let Some(round) = own_round {
            shared.rounds[own as usize].store(i32::from(round), Ordering::SeqCst);
        }
        Arc::new(shared)
    }

    /// Bytes of the file that are durable.
    pub(super) fn synced(&self) -> u64 {
        *self.synced.borrow()
    }

    pub(super) fn note_synced(&self, length: u64) {
        self.synced.send_replace(length);
    }

    /// Waits until so much is durable, or the engine has failed or been stopped; says whether it may speak.
    pub(super) async fn durable(&self, length: u64) -> bool {
        let mut synced = self.synced.subscribe();
        if *synced.borrow() < length {
            self.unsynced.notify_one();
        }
        let mut ended = self.ended.subscribe();
        tokio::select! {
            biased;
            _ = ended.wait_for(|end| end.is_some()) => false,
            waited = synced.wait_for(|synced| *synced >= length) => waited.is_ok(),
        }
    }

    /// Notes the first fault of an engine that hasn't been stopped: nothing more is sent.
    pub(super) fn fail(&self, error: Error) {
        if self.end(Err(error.clone())) {
            tracing::error!(%error, "the ordering engine stops");
        }
    }

    /// Whether this was the first reason to end.
    pub(super) fn end(&self, how: Result<()>) -> bool {
        self.ended.send_if_modified(|end| {
            let is_first = end.is_none();
            if is_first {
                *end = Some(how);
            }
            is_first
        })
    }

    pub(super) fn fault(&self) -> Option<Error> {
        self.ended.borrow().as_ref().and_then(|end| end.as_ref().err().cloned())
    }

    pub(super) fn ended(&self) -> watch::Receiver<Option<Result<()>>> {
        self.ended.subscribe()
    }

    /// A unit is in the file; AlephBFT builds upon it.
    pub(super) fn note_saved(&self, signed: SignedUnit) {
        self.note_round(&signed.unit);
        self.built.note_saved(signed);
    }

    fn note_round(&self, unit: &Unit) {
        if let Some(round) = self.rounds.get(unit.creator as usize) {
            round.fetch_max(i32::from(unit.round), Ordering::SeqCst);
        }
    }

    /// The newest of the authority's own rounds in the file; -1 for none.
    pub(super) fn own_round(&self) -> i32 {
        self.rounds[self.own as usize].load(Ordering::SeqCst)
    }

    /// A peer sent a unit that is signed and valid.
    pub(super) fn note_seen(&self, unit: &Unit, urgent: bool) {
        if urgent {
            self.note_urgent(unit.creator, unit.round);
        }
        let before = self.is_behind();
        if unit.creator != u64::from(self.own) {
            self.note_round(unit);
        }
        if !before && self.is_behind() {
            self.hurry.notify_one();
        }
    }

    /// Whether more than f others are beyond the round after the own newest.
    fn is_behind(&self) -> bool {
        let next = self.own_round() + 1;
        let ahead = self.rounds.iter().filter(|round| round.load(Ordering::Relaxed) > next).count();
        ahead > (self.rounds.len() - 1) / 3
    }

    /// Whether the session is about to be cut. What the next one orders waits for that.
    fn is_ending(&self) -> bool {
        self.own_round().abs_diff(SESSION_ROUNDS as i32) <= LEAD_ROUNDS
    }

    /// A unit, own or a peer's, has data that is to be ordered at the busy pace.
    pub(super) fn note_urgent(&self, creator: u64, round: u16) {
        let mut urgent = self.urgent();
        if !urgent.ordered.contains(&(creator, round)) {
            urgent.waiting.insert((creator, round));
        }
        drop(urgent);
        self.wake();
    }

    /// A unit with data is in the order.
    pub(super) fn note_ordered(&self, creator: u64, round: u16) {
        let mut urgent = self.urgent();
        urgent.waiting.remove(&(creator, round));
        urgent.ordered.insert((creator, round));
    }

    fn urgent(&self) -> MutexGuard<'_, Urgent> {
        self.urgent.lock().expect("no panic under this lock")
    }

    fn is_busy(&self) -> bool {
        let (now, until) = (self.began.elapsed(), Duration::from_millis(self.busy_until.load(Ordering::Relaxed)));
        now < until || now < until + (BUSY_UNORDERED - BUSY) && !self.urgent().waiting.is_empty()
    }

    /// There is something to order: the pace is busy for a while.
    pub(super) fn wake(&self) {
        let until = self.began.elapsed() + BUSY;
        self.busy_until.fetch_max(until.as_millis() as u64, Ordering::Relaxed);
        self.hurry.notify_one();
    }

    /// Waits out what an idle unit takes longer than a busy one, or until there is a reason to hurry.
    pub(super) async fn rest(&self) {
        let until = tokio::time::Instant::now() + self.pace.idle.saturating_sub(self.pace.busy);
        loop {
            if self.is_busy() || self.is_behind() || self.is_ending() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = self.hurry.notified() => {}
            }
        }
    }
}
