//! Faults beyond those of [`crate::world`]: what the profiles besides `mixed` add.
//!
//! They draw from a generator of their own, so that a run that has none of them is not changed by them.
//! Everything heals: links and clocks after a while, disks when there is room again, and all when faults end.

use std::collections::BTreeMap;

use crate::disk::Disk;
use crate::message::Addr;
use crate::profile::Part;
use crate::rng::Rng;
use crate::world::{Event, MS, Micros, SECOND, World};
use crate::{Options, frames};

/// Log ms that a good clock may be off after a jump.
const JUMP_MS: u64 = 60_000;
/// And a wrong one.
const WILD_MS: u64 = 300_000_000;
/// Chances per mille.
const SYNC_FAILS: u64 = 6;
const DISK_FILLS: u64 = 2;
const CRASHES_HERE: u64 = 3;

/// What happens next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disturbance {
    /// Directions are blocked, or free again.
    Links,
    /// A clock jumps.
    Clock,
}

/// How long messages take, drawn for each run.
#[derive(Clone, Copy)]
enum Pace {
    /// Evenly from nothing to this.
    Even(Micros),
    /// Twice as long half as often.
    LongTail,
    /// By the distance of sender and receiver, which never changes.
    Distance,
}

/// Where in its work a process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// It has written a step.
    Written,
    /// Its sync begins.
    SyncBegins,
    /// It is in the middle of a sync.
    Syncing,
    /// The sync is through, and nothing that waited for it has left.
    Synced,
    /// Some has left.
    Leaving,
}

impl Point {
    fn name(self) -> &'static str {
        match self {
            Point::Written => "crash after a write",
            Point::SyncBegins => "crash as a sync begins",
            Point::Syncing => "crash in a sync",
            Point::Synced => "crash between a sync and its replies",
            Point::Leaving => "crash between two replies",
        }
    }
}

/// State of these faults.
pub struct Disturbances {
    rng: Rng,
    pace: Option<Pace>,
    /// Directions between authorities in which nothing gets through; `None` is everybody else.
    blocked: Vec<(Option<u32>, Option<u32>)>,
    /// By authority: what jumps have added to its clock, log ms.
    jumps: BTreeMap<u32, i64>,
    /// Disks without room, and until when.
    full: BTreeMap<Addr, Micros>,
}

impl Disturbances {
    /// Those of a run.
    pub fn new(options: &Options) -> Self {
        let mut rng = Rng::new(options.seed ^ 0x6469_7374_7572_6273);
        let pace = match rng.below(3) {
            0 => Pace::Even(rng.between(30, 200) * MS),
            1 => Pace::LongTail,
            _ => Pace::Distance,
        };
        let pace = options.has(Part::Disorder).then_some(pace);
        Disturbances { rng, pace, blocked: Vec::new(), jumps: BTreeMap::new(), full: BTreeMap::new() }
    }

    /// Chances of loss and duplication, per mille, if they are those of this run.
    pub fn heavy(&mut self, options: &Options) -> Option<(u64, u64)> {
        let drawn = (self.rng.between(200, 300), self.rng.between(300, 500));
        options.has(Part::HeavyLoss).then_some(drawn)
    }

    /// How long a message takes, if this run has its own way.
    pub fn delay(&mut self, from: Addr, to: Addr) -> Option<Micros> {
        let at = |addr| match addr {
            Addr::Shard(authority, _) | Addr::Log(authority) => u64::from(authority),
            Addr::Client(number) => 1_000 + u64::from(number),
        };
        Some(match self.pace? {
            Pace::Even(most) => self.rng.between(200, most),
            Pace::LongTail => {
                let octave = self.rng.below(1 << 10).leading_zeros() - 54;
                self.rng.between(500, MS << octave)
            }
            Pace::Distance if at(from) == at(to) => self.rng.between(200, MS),
            Pace::Distance => {
                let far = (at(from) * 37 + at(to) * 37) % 120 * MS;
                far + self.rng.between(200, 5 * MS)
            }
        })
    }

    /// Whether nothing gets from one authority, or client, to another.
    pub fn blocks(&self, from: Option<u32>, to: Option<u32>) -> bool {
        from != to && self.blocked.iter().any(|(f, t)| (f.is_none() || *f == from) && (t.is_none() || *t == to))
    }

    /// What is to be added to an authority's clock, log ms.
    pub fn clock(&self, authority: u32) -> i64 {
        self.jumps.get(&authority).copied().unwrap_or(0)
    }

    /// Faults end. Clocks stay where they are.
    pub fn calm_down(&mut self) {
        self.blocked.clear();
        self.full.clear();
        self.pace = None;
    }
}

impl World {
    /// Whether this run has something.
    pub fn has(&self, part: Part) -> bool {
        self.options.has(part)
    }

    /// Counts something rare that went as it has to ([`crate::marks`]).
    pub fn mark(&mut self, what: &'static str) {
        *self.marks.entry(what).or_default() += 1;
    }

    /// Begins with these faults.
    pub fn begin_disturbances(&mut self) {
        if self.has(Part::OneWayCuts) || self.has(Part::SplitPairs) {
            self.after(200 * MS, Event::Disturb(Disturbance::Links));
        }
        if self.has(Part::ClockJumps) {
            self.after(300 * MS, Event::Disturb(Disturbance::Clock));
        }
    }

    /// The next of them.
    pub fn disturb(&mut self, what: Disturbance) {
        if self.calm {
            return;
        }
        match what {
            Disturbance::Links => self.block(),
            Disturbance::Clock => self.jump(),
        }
    }

    fn block(&mut self) {
        let size = self.committee.size() as u64;
        let free = self.disturbances.blocked.is_empty();
        let rng = &mut self.disturbances.rng;
        let pause = if free { rng.between(100 * MS, 1_500 * MS) } else { rng.between(50 * MS, SECOND) };
        let (one, way) = (rng.below(size), rng.below(3));
        let (one, other) = (one as u32, ((one + 1 + rng.below(size - 1)) % size) as u32);
        self.disturbances.blocked.clear();
        if free {
            match way {
                0 if self.has(Part::OneWayCuts) => {
                    self.fault("authorities that do not hear");
                    self.disturbances.blocked.push((None, Some(one)));
                }
                1 if self.has(Part::OneWayCuts) => {
                    self.fault("authorities that are not heard");
                    self.disturbances.blocked.push((Some(one), None));
                }
                _ if self.has(Part::SplitPairs) => {
                    self.fault("pairs that can't talk");
                    self.disturbances.blocked.extend([(Some(one), Some(other)), (Some(other), Some(one))]);
                }
                _ => {}
            }
        }
        self.after(pause, Event::Disturb(Disturbance::Links));
    }

    fn jump(&mut self) {
        let rng = &mut self.disturbances.rng;
        let who = rng.below(self.committee.size() as u64) as u32;
        let most = if self.checks.log.good_clocks.contains(&who) { JUMP_MS } else { WILD_MS };
        let (to, pause) = (rng.below(2 * most + 1) as i64 - most as i64, rng.between(50 * MS, 800 * MS));
        let from = self.disturbances.jumps.insert(who, to).unwrap_or(0);
        self.fault(if to > from { "clocks that jump ahead" } else { "clocks that jump back" });
        self.after(pause, Event::Disturb(Disturbance::Clock));
    }

    /// A disk loses its power. Returns how many steps are lost.
    pub fn power_off(&mut self, disk: &mut Disk) -> u64 {
        if disk.last_step() > disk.durable_step() {
            self.mark("crash between write and sync");
        }
        if self.calm || !self.has(Part::TornWrites) {
            return disk.crash(&mut self.rng);
        }
        let left = frames::crash(&mut self.disturbances.rng, disk.durable_step() + 1, disk.unsynced());
        for (_, what) in [(left.torn, "torn writes"), (left.flipped, "flipped bits")].iter().filter(|(did, _)| *did) {
            self.fault(what);
        }
        disk.keep(left.kept)
    }

    /// Whether a process loses its power here.
    pub fn crashes_at(&mut self, point: Point) -> bool {
        let dies = !self.calm && self.has(Part::CrashPoints) && self.disturbances.rng.chance(CRASHES_HERE);
        if dies {
            self.mark(point.name());
        }
        dies
    }

    /// Whether a sync fails, and why.
    pub fn sync_fails(&mut self, who: Addr) -> bool {
        if self.calm {
            return false;
        }
        let now = self.now;
        if self.disturbances.full.get(&who).is_some_and(|until| now < *until) {
            self.fault("syncs of full disks");
            return true;
        }
        let rng = &mut self.disturbances.rng;
        let (fails, fills, length) =
            (rng.chance(SYNC_FAILS), rng.chance(DISK_FILLS), rng.between(200 * MS, 2_500 * MS));
        if fills && self.has(Part::FullDisks) {
            self.fault("full disks");
            self.disturbances.full.insert(who, now + length);
            return true;
        }
        let fails = fails && self.has(Part::FailedSyncs);
        if fails {
            self.fault("failed syncs");
        }
        fails
    }
}
