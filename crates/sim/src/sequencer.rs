//! The ordering engine of the simulated authorities: one total order of units per session, drawn by chance.
//!
//! It may delay what is submitted, lose it (a session ends, a process restarts), order it twice, order units of
//! authorities that are down, and stall. It gives everybody the same units, to each in its own time and from the
//! session's beginning again after a restart; and it goes on only while a quorum takes part. Sessions are short here.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use florin_core::limits::{SESSION_ROUNDS, UNIT_BYTES_MAX};
use florin_core::ordered::engine::{Ordering, Unit};
use florin_core::{Code, Error, Result};

use crate::rng::Rng;
use crate::world::{MS, Micros};

/// Units of one authority that wait at most.
const WAITING_MAX: usize = 64;
/// Units of a session, about.
const SESSION_UNITS: u64 = 20;

#[derive(Default)]
struct Member {
    /// Takes part in everything, whatever it says.
    byzantine: bool,
    reachable: bool,
    /// Sessions that it takes part in, and the next unit of each that it gets.
    open: BTreeMap<u64, usize>,
    waiting: VecDeque<Bytes>,
}

struct Session {
    units: Vec<Unit>,
    /// Length at which it is cut.
    end: usize,
    ended: bool,
}

/// What all authorities order together.
pub struct Sequencer {
    rng: Rng,
    members: Vec<Member>,
    sessions: BTreeMap<u64, Session>,
    stalled_until: Micros,
    quorum: usize,
    /// Gives one authority another order than the others: for a test of the checkers.
    pub fork: Option<u32>,
}

impl Sequencer {
    /// An engine that has ordered nothing.
    pub fn new(seed: [u8; 32], byzantine: impl Iterator<Item = bool>, quorum: usize) -> Self {
        let seed = seed[..8].iter().fold(0, |n, b| n << 8 | u64::from(*b));
        let members = byzantine.map(|byzantine| Member { byzantine, reachable: true, ..Default::default() }).collect();
        Sequencer { rng: Rng::new(seed), members, sessions: BTreeMap::new(), stalled_until: 0, quorum, fork: None }
    }

    /// An authority is down or cut off, or back.
    pub fn set_reachable(&mut self, authority: u32, reachable: bool) {
        self.members[authority as usize].reachable = reachable;
    }

    /// Its process has restarted: it takes part in nothing until it says so.
    pub fn restarted(&mut self, authority: u32) {
        let lose = self.rng.chance(500);
        let member = &mut self.members[authority as usize];
        member.open.clear();
        if lose {
            member.waiting.clear();
        }
    }

    fn alive(&self, session: u64) -> bool {
        let part = |m: &&Member| m.byzantine || m.reachable && m.open.contains_key(&session);
        self.members.iter().filter(part).count() >= self.quorum
    }

    /// Orders some of what waits. Returns what it did that is worth counting.
    pub fn tick(&mut self, now: Micros, calm: bool) -> Option<&'static str> {
        if now < self.stalled_until {
            return None;
        }
        if !calm && self.rng.chance(8) {
            self.stalled_until = now + self.rng.between(100 * MS, 1_500 * MS);
            return Some("stalls of the engine");
        }
        let newest = self.members.iter().filter_map(|m| m.open.keys().next_back()).max().copied()?;
        let busy = self.members.iter().any(|m| !m.waiting.is_empty());
        if !busy || !self.alive(newest) {
            return None;
        }
        if !self.sessions.contains_key(&newest) {
            let end = self.rng.between(1, 2 * SESSION_UNITS) as usize;
            self.sessions.insert(newest, Session { units: Vec::new(), end, ended: false });
        }
        for _ in 0..self.rng.between(1, 6) {
            let creator = self.rng.index(self.members.len());
            let data = self.members[creator].waiting.pop_front();
            let Some(data) = data.or_else(|| self.rng.chance(50).then(Bytes::new)) else { continue };
            let (again, lost) = (self.rng.chance(30), self.rng.chance(500));
            let jitter = self.rng.below(3) as u32;
            let session = self.sessions.get_mut(&newest).filter(|s| !s.ended)?;
            session.ended = session.units.len() >= session.end;
            // Rounds run so fast that the session is over soon.
            let left = (session.end - session.units.len().min(session.end)) as u32;
            let round = SESSION_ROUNDS - left.max(1) + u32::from(session.ended) * (1 + jitter);
            if again && !calm {
                self.members[creator].waiting.push_back(data.clone());
            }
            session.units.push(Unit { session: newest, creator: creator as u32, round, data });
            if session.ended {
                if lost {
                    self.members.iter_mut().for_each(|m| m.waiting.clear());
                }
                return Some("sessions cut");
            }
        }
        None
    }
}

/// One authority's part in it.
#[derive(Clone)]
pub struct Ring {
    shared: Rc<RefCell<Sequencer>>,
    authority: u32,
}

impl Ring {
    /// The part of this authority.
    pub fn new(shared: Rc<RefCell<Sequencer>>, authority: u32) -> Self {
        Ring { shared, authority }
    }
}

impl Ordering for Ring {
    fn open(&mut self, session: u64) -> Result<()> {
        self.shared.borrow_mut().members[self.authority as usize].open.entry(session).or_insert(0);
        Ok(())
    }

    fn close(&mut self, session: u64) {
        self.shared.borrow_mut().members[self.authority as usize].open.remove(&session);
    }

    fn submit(&mut self, data: Bytes) -> Result<()> {
        // An honest engine passes no larger unit on, whoever made it.
        if data.len() > UNIT_BYTES_MAX {
            return Err(Error::expected(Code::Limit, "bytes of a unit", UNIT_BYTES_MAX, data.len()));
        }
        let waiting = &mut self.shared.borrow_mut().members[self.authority as usize].waiting;
        if waiting.len() >= WAITING_MAX {
            return Err(Error::new(Code::Busy, format!("{WAITING_MAX} units wait")));
        }
        waiting.push_back(data);
        Ok(())
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<Result<Unit>> {
        let mut all = self.shared.borrow_mut();
        let all = &mut *all;
        let member = &all.members[self.authority as usize];
        if !member.reachable {
            return Poll::Pending;
        }
        let ready = |(session, next): &(&u64, &usize)| {
            all.sessions.get(session).is_some_and(|s| **next < s.units.len()) && all.alive(**session)
        };
        let Some((session, next)) = member.open.iter().find(ready).map(|(s, n)| (*s, *n)) else { return Poll::Pending };
        let units = &all.sessions[&session].units;
        let at = match all.fork == Some(self.authority) && next + 1 < units.len() && !all.sessions[&session].ended {
            true => (next ^ 1).min(units.len() - 1),
            false => next,
        };
        let unit = units[at].clone();
        all.members[self.authority as usize].open.insert(session, next + 1);
        Poll::Ready(Ok(unit))
    }
}
