//! Virtual time and the network between everyone.
//!
//! Faults that the network may inject: loss, duplication, delay (and so reordering), and one authority
//! cut off from the others for a while. It never forges a sender or changes a message; that is for attackers,
//! who send their own. Messages inside an authority, between its shards, get lost like any others.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use florin_core::Code;
use florin_core::address::Address;
use florin_core::committee::Committee;
use sha2::{Digest, Sha256};

use crate::Options;
use crate::cash::Cash;
use crate::channels::Channels;
use crate::checkers::{Checkers, Rule};
use crate::disturb::{Disturbance, Disturbances};
use crate::message::{Addr, Body, Envelope, decimal};
use crate::pbtx::Plan;
use crate::profile::Part;
use crate::rng::Rng;
use crate::roots::Place;
use crate::sequencer::Sequencer;

/// Microseconds of virtual time.
pub type Micros = u64;
/// Microseconds of a millisecond.
pub const MS: Micros = 1_000;
/// Microseconds of a second.
pub const SECOND: Micros = 1_000_000;

/// Milliseconds of log time in one of the network's: so a recovery takes three seconds.
pub const LOG_RATE: u64 = 200;
/// Log time at the start, ms since 1970.
const EPOCH_MS: u64 = 1_800_000_000_000;
/// How far the wrong clocks are off: a day.
const DAY_MS: i64 = 86_400_000;

/// Requests that attackers may look at.
const RECORDED_MAX: usize = 64;

/// What wakes somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// A shard's sync begins.
    SyncBegin,
    /// It is through, up to this step.
    SyncEnd(u64),
    /// Deliver what is in the outbox.
    Pump,
    /// Look at this peer's settled stream.
    Poll(u32),
    /// Load the next lines of the genesis file.
    Genesis,
    /// The process starts again.
    Restart,
    /// The process loses its power.
    Crash,
    /// Look at what the engine has ordered.
    Units,
    /// Offer items and a clock vote to the engine.
    Propose,
    /// A client's own.
    Client(u64),
}

impl Timer {
    /// Adds its name to a text, as `Debug` writes it.
    fn name(&self, out: &mut Vec<u8>) {
        let (name, number) = match *self {
            Timer::SyncBegin => ("SyncBegin", None),
            Timer::SyncEnd(step) => ("SyncEnd", Some(step)),
            Timer::Pump => ("Pump", None),
            Timer::Poll(peer) => ("Poll", Some(u64::from(peer))),
            Timer::Genesis => ("Genesis", None),
            Timer::Restart => ("Restart", None),
            Timer::Crash => ("Crash", None),
            Timer::Units => ("Units", None),
            Timer::Propose => ("Propose", None),
            Timer::Client(tag) => ("Client", Some(tag)),
        };
        out.extend_from_slice(name.as_bytes());
        if let Some(number) = number {
            out.push(b'(');
            decimal(number, out);
            out.push(b')');
        }
    }
}

/// What happens at some time.
pub enum Event {
    /// A message arrives.
    Message(Envelope),
    /// A timer fires, unless its owner has restarted since.
    Timer {
        /// Whose.
        to: Addr,
        /// Life of the owner that set it.
        life: u32,
        /// Which.
        timer: Timer,
    },
    /// The next crash is due.
    Crash,
    /// An authority is cut off, or back.
    Cut(Option<u32>),
    /// One that was cut off for a purpose is back.
    Rejoin(u32),
    /// The ordering engine moves on.
    Order,
    /// A fault of those that only some profiles have.
    Disturb(Disturbance),
}

struct Scheduled {
    at: Micros,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// How often the network fails, per mille of messages; drawn anew for each run.
struct Weather {
    lose: u64,
    duplicate: u64,
    delay: u64,
}

/// What everyone shares.
pub struct World {
    /// Virtual time.
    pub now: Micros,
    /// Chance.
    pub rng: Rng,
    /// The committee.
    pub committee: Arc<Committee>,
    /// Authorities that are not honest.
    pub byzantine: BTreeSet<u32>,
    /// What is run.
    pub options: Options,
    /// The truth, derived again.
    pub checks: Checkers,
    /// Addresses that may be paid.
    pub directory: Vec<Address>,
    /// Final payments that their payees have not noticed yet, minor units.
    pub income: BTreeMap<Address, i128>,
    /// The last requests, for attackers who listen.
    pub recorded: VecDeque<Envelope>,
    /// Faults are over: what is under way is to come to its end.
    pub calm: bool,
    /// Answers of honest authorities, by kind.
    pub replies: BTreeMap<String, u64>,
    /// Rare things that went as they have to.
    pub marks: BTreeMap<&'static str, u64>,
    /// Faults that only some profiles have.
    pub disturbances: Disturbances,
    /// Events processed.
    pub events: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    trace: Sha256,
    /// For `trace`.
    buffer: Vec<u8>,
    faults: BTreeMap<String, u64>,
    weather: Weather,
    cut_off: BTreeSet<u32>,
    /// Cut off for a purpose, by whoever wants to see what happens.
    isolated: BTreeSet<u32>,
    logs_down: BTreeSet<u32>,
    /// The ordering engine.
    pub sequencer: Rc<RefCell<Sequencer>>,
    /// By authority: its clock's error in log ms, and its drift in parts of a thousand.
    clocks: Vec<(i64, i64)>,
    /// Clocks that were spoiled, which nobody knows of.
    spoiled: BTreeSet<u32>,
    /// PBTX networks.
    pub pbtx: Plan,
    /// Contracts that wallets have made, for both of their parties.
    pub deals: Vec<Deal>,
    /// Preimages by hash.
    pub secrets: BTreeMap<bytes::Bytes, [u8; 32]>,
    /// E-cash: keys, and what goes from hand to hand.
    pub cash: Cash,
    /// Channels, as their sides know them.
    pub channels: Channels,
    /// Accounts that sign roots, as anybody can know them.
    pub senders: BTreeMap<Address, Place>,
}

/// A contract, as its two parties know it.
#[derive(Clone, Debug)]
pub struct Deal {
    /// Its id.
    pub id: [u8; 32],
    /// Minor units.
    pub amount: u64,
    /// Log time, ms.
    pub expiry_ms: u64,
    /// What the receiver has to show.
    pub preimage: [u8; 32],
    /// Who funded it.
    pub sender: Address,
    /// Who may claim it.
    pub receiver: Address,
}

impl World {
    /// An empty world of this committee.
    pub fn new(
        options: Options,
        mut rng: Rng,
        committee: Arc<Committee>,
        byzantine: BTreeSet<u32>,
        checks: Checkers,
    ) -> Self {
        let size = committee.size() as u32;
        let honest = (0..size).map(|a| byzantine.contains(&a));
        let sequencer = Sequencer::new(rng.bytes(), honest, committee.quorum());
        let mut clocks = clocks(&mut rng, &byzantine, size, committee.faults());
        if !options.has(Part::WrongClocks) {
            clocks.fill((0, 0));
        }
        let mut checks = checks;
        checks.log.good_clocks = (0..size).filter(|a| clocks[*a as usize].0.abs() < DAY_MS).collect();
        let mut weather = Weather { lose: rng.below(120), duplicate: rng.below(80), delay: rng.below(120) };
        let mut disturbances = Disturbances::new(&options);
        if let Some((lose, duplicate)) = disturbances.heavy(&options) {
            weather = Weather { lose, duplicate, ..weather };
        }
        for (part, rate) in [
            (Part::Loss, &mut weather.lose),
            (Part::Duplicates, &mut weather.duplicate),
            (Part::Delays, &mut weather.delay),
        ] {
            if !options.has(part) {
                *rate = 0;
            }
        }
        World {
            now: 0,
            rng,
            committee,
            byzantine,
            options,
            checks,
            directory: Vec::new(),
            income: BTreeMap::new(),
            recorded: VecDeque::new(),
            calm: false,
            replies: BTreeMap::new(),
            marks: BTreeMap::new(),
            disturbances,
            events: 0,
            queue: BinaryHeap::new(),
            scheduled: 0,
            trace: Sha256::new(),
            buffer: Vec::new(),
            faults: BTreeMap::new(),
            weather,
            cut_off: BTreeSet::new(),
            isolated: BTreeSet::new(),
            logs_down: BTreeSet::new(),
            sequencer: Rc::new(RefCell::new(sequencer)),
            clocks,
            spoiled: BTreeSet::new(),
            pbtx: Plan::default(),
            deals: Vec::new(),
            secrets: BTreeMap::new(),
            cash: Cash::default(),
            channels: Channels::default(),
            senders: BTreeMap::new(),
        }
    }

    /// What an authority's clock shows, ms since 1970. Log time runs faster than the network's.
    pub fn clock_ms(&self, authority: u32) -> u64 {
        let (error, drift) = self.clocks[authority as usize];
        let passed = (self.now / 1_000 * LOG_RATE) as i64;
        (self.true_ms() as i64 + error + passed * drift / 1_000 + self.disturbances.clock(authority)).max(1) as u64
    }

    /// What a good clock shows.
    pub fn true_ms(&self) -> u64 {
        EPOCH_MS + self.now / 1_000 * LOG_RATE
    }

    /// Moves an honest authority's clock a day, for a test of the checkers.
    pub fn spoil_clock(&mut self, authority: u32) {
        self.clocks[authority as usize].0 += DAY_MS;
        self.spoiled.insert(authority);
    }

    /// Cuts one authority off, from everybody, for this long.
    pub fn isolate(&mut self, authority: u32, length: Micros) {
        if !self.calm && self.isolated.is_empty() && self.has(Part::Isolation) {
            self.fault("isolated authorities");
            self.isolated.insert(authority);
            self.reach();
            self.after(length, Event::Rejoin(authority));
        }
    }

    /// It is back.
    pub fn rejoin(&mut self, authority: u32) {
        self.isolated.remove(&authority);
        self.reach();
    }

    /// Whether the network reaches an authority.
    pub fn is_reached(&self, authority: u32) -> bool {
        !self.cut_off.contains(&authority) && !self.isolated.contains(&authority)
    }

    fn reach(&mut self) {
        for authority in 0..self.committee.size() as u32 {
            let up = self.is_reached(authority) && !self.logs_down.contains(&authority);
            self.sequencer.borrow_mut().set_reachable(authority, up);
        }
    }

    /// A log's process is up or down.
    pub fn log_is(&mut self, authority: u32, up: bool) {
        match up {
            true => self.logs_down.remove(&authority),
            false => self.logs_down.insert(authority),
        };
        self.reach();
    }

    /// The engine moves on, and everybody looks at what it has, sooner or later.
    pub fn order(&mut self) {
        let (now, calm) = (self.now, self.calm || !self.has(Part::EngineStalls));
        let did = self.sequencer.borrow_mut().tick(now, calm);
        did.into_iter().for_each(|d| self.fault(d));
        for authority in 0..self.committee.size() as u32 {
            let late = !calm && self.rng.chance(40);
            let delay = if late { self.rng.between(50 * MS, 900 * MS) } else { self.rng.between(MS, 15 * MS) };
            self.after(delay, Event::Timer { to: Addr::Log(authority), life: 0, timer: Timer::Units });
        }
        let pause = self.rng.between(10 * MS, 60 * MS);
        self.after(pause, Event::Order);
    }

    /// Counts a fault.
    pub fn fault(&mut self, kind: &str) {
        count(&mut self.faults, kind);
    }

    /// Counts an answer of an honest authority.
    pub fn replied(&mut self, body: &Body) {
        let mut codes = Vec::new();
        let mut note = |kind: &str| count(&mut self.replies, kind);
        match body {
            Body::Voted(Ok(reply)) => codes.extend(reply.errors.iter().filter_map(|e| Code::from_number(e.code))),
            Body::Settled(Ok(reply)) if reply.batch_missing => note("batch missing"),
            Body::Settled(Ok(reply)) if !reply.waiting.is_empty() => note("order waits for an earlier one"),
            Body::Voted(Err(e)) | Body::Settled(Err(e)) | Body::Delivered(Err(e)) => codes.push(e.code),
            _ => {}
        }
        codes.into_iter().for_each(|code| note(code.name()));
    }

    /// Faults so far, by kind.
    pub fn faults(&self) -> &BTreeMap<String, u64> {
        &self.faults
    }

    /// Something breaks a rule.
    pub fn violation(&mut self, rule: Rule, what: impl AsRef<str>) {
        self.checks.violation(rule, what);
    }

    /// Schedules an event.
    pub fn after(&mut self, delay: Micros, event: Event) {
        self.scheduled += 1;
        self.queue.push(Reverse(Scheduled { at: self.now + delay, order: self.scheduled, event }));
    }

    /// Sets a timer.
    pub fn timer(&mut self, to: Addr, life: u32, delay: Micros, timer: Timer) {
        self.after(delay, Event::Timer { to, life, timer });
    }

    /// Whether the run ends before its time.
    pub fn is_stopped(&self) -> bool {
        self.options.events_max.is_some_and(|max| self.events >= max) || self.checks.is_stopped()
    }

    /// The next event before `end`; time moves to it.
    pub fn next(&mut self, end: Micros) -> Option<Event> {
        if self.is_stopped() {
            return None;
        }
        if self.queue.peek().is_none_or(|s| s.0.at >= end) {
            self.now = end;
            return None;
        }
        let Reverse(next) = self.queue.pop()?;
        assert!(next.at >= self.now, "time never goes back");
        self.now = next.at;
        self.checks.now = next.at;
        if let Event::Timer { to: Addr::Log(_), timer: Timer::Units, .. } = &next.event {
            let good = (0..self.clocks.len() as u32)
                .filter(|a| self.checks.log.good_clocks.contains(a) && !self.spoiled.contains(a));
            // A clock that has jumped back since may have been heard.
            let newest = good.map(|a| self.clock_ms(a)).max().unwrap_or(0);
            self.checks.log.clock_max = newest.max(self.checks.log.clock_max);
        }
        self.events += 1;
        self.checks.events = self.events;
        self.trace.update(next.at.to_be_bytes());
        match &next.event {
            Event::Message(envelope) => envelope.trace(&mut self.trace, &mut self.buffer),
            Event::Timer { to, life, timer } => {
                self.buffer.clear();
                to.name(&mut self.buffer);
                self.buffer.push(b' ');
                decimal(u64::from(*life), &mut self.buffer);
                self.buffer.push(b' ');
                timer.name(&mut self.buffer);
                self.trace.update(&self.buffer);
            }
            Event::Crash => self.trace.update(b"crash"),
            Event::Cut(who) => self.trace.update(format!("cut {who:?}")),
            Event::Rejoin(who) => self.trace.update(format!("rejoin {who}")),
            Event::Order => self.trace.update(b"order"),
            Event::Disturb(what) => self.trace.update(format!("disturb {what:?}")),
        }
        Some(next.event)
    }

    /// Adds to the hash of the run.
    pub fn trace(&mut self, bytes: &[u8]) {
        self.trace.update((bytes.len() as u64).to_be_bytes());
        self.trace.update(bytes);
    }

    /// sha256 over everything that has happened.
    pub fn trace_hash(&self) -> String {
        hex::encode(self.trace.clone().finalize())
    }

    /// Sends a message into the network.
    pub fn send(&mut self, from: Addr, to: Addr, id: u64, body: Body) {
        let envelope = Envelope { from, to, id, body };
        if self.options.attackers && envelope.body.is_request() && self.rng.chance(300) {
            self.recorded.push_back(envelope.clone());
            if self.recorded.len() > RECORDED_MAX {
                self.recorded.pop_front();
            }
        }
        if self.is_cut(from, to) {
            return self.fault("cut off");
        }
        if !self.calm && self.rng.chance(self.weather.lose) {
            return self.fault("lost");
        }
        if !self.calm && self.rng.chance(self.weather.duplicate) {
            self.fault("duplicated");
            let delay = self.delay(from, to);
            self.after(delay, Event::Message(envelope.clone()));
        }
        let delay = self.delay(from, to);
        self.after(delay, Event::Message(envelope));
    }

    fn delay(&mut self, from: Addr, to: Addr) -> Micros {
        let own = self.disturbances.delay(from, to);
        if !self.calm && self.rng.chance(self.weather.delay) {
            self.fault("delayed");
            return self.rng.between(20 * MS, 700 * MS);
        }
        let usual = self.rng.between(200, 6 * MS);
        own.unwrap_or(usual)
    }

    fn is_cut(&self, from: Addr, to: Addr) -> bool {
        let owner = |addr| match addr {
            Addr::Shard(authority, _) | Addr::Log(authority) => Some(authority),
            Addr::Client(_) => None,
        };
        self.disturbances.blocks(owner(from), owner(to))
            || owner(from) != owner(to) && [from, to].into_iter().filter_map(owner).any(|a| !self.is_reached(a))
    }

    /// Cuts an authority off, or ends all cuts, and plans what comes next.
    pub fn cut(&mut self, who: Option<u32>) {
        self.cut_off.clear();
        self.cut_off.extend(who.filter(|_| !self.calm));
        self.reach();
        if self.calm || !self.has(Part::Cuts) {
            return;
        }
        match who {
            Some(_) => {
                self.fault("cuts");
                let length = self.rng.between(100 * MS, 2 * SECOND);
                self.after(length, Event::Cut(None));
            }
            None => {
                let pause = self.rng.between(200 * MS, 4 * SECOND);
                let next = self.rng.below(self.committee.size() as u64) as u32;
                self.after(pause, Event::Cut(Some(next)));
            }
        }
    }

    /// Ends all faults.
    pub fn calm_down(&mut self) {
        self.calm = true;
        self.cut_off.clear();
        self.isolated.clear();
        self.disturbances.calm_down();
        self.reach();
        if self.options.pace > 1 {
            self.hurry();
        }
    }

    /// Slow clients come back as soon as others would.
    fn hurry(&mut self) {
        let (now, pace) = (self.now, self.options.pace);
        let sooner = |Reverse(mut s): Reverse<Scheduled>| {
            if let Event::Timer { timer: Timer::Client(0), .. } = s.event {
                s.at = now + (s.at - now) / pace;
            }
            Reverse(s)
        };
        self.queue = std::mem::take(&mut self.queue).into_iter().map(sooner).collect();
    }
}

/// f clocks are a day off, those of liars if there are any; the others drift.
fn clocks(rng: &mut Rng, byzantine: &BTreeSet<u32>, size: u32, faults: usize) -> Vec<(i64, i64)> {
    let mut wrong: BTreeSet<u32> = byzantine.iter().take(faults).copied().collect();
    while wrong.len() < faults {
        wrong.insert(rng.below(u64::from(size)) as u32);
    }
    let clock = |authority| {
        let day = if rng.chance(500) { DAY_MS } else { -DAY_MS };
        let error = rng.between(0, 4_000) as i64 - 2_000;
        (error + if wrong.contains(&authority) { 2 * day } else { 0 }, rng.between(0, 20) as i64 - 10)
    };
    (0..size).map(clock).collect()
}

fn count(counts: &mut BTreeMap<String, u64>, kind: &str) {
    match counts.get_mut(kind) {
        Some(count) => *count += 1,
        None => drop(counts.insert(kind.to_owned(), 1)),
    }
}
