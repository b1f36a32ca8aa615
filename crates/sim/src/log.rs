//! The log of one honest authority: the shell around the ordered log, as the real node has to be.
//!
//! The same rules as a shard's ([`crate::node`]): a step's writes are atomic, a sync covers what was written when
//! it began, and only what is durable leaves: answers to shards, deliveries, the signature of a session, and what
//! peers may read. It takes part in the engine's session that is open on its disk, and gets those that are over
//! from its peers, as a quorum has signed them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use florin_core::authority::state::Write;
use florin_core::committee::Committee;
use florin_core::ordered::OrderedLog;
use florin_core::ordered::audit::{LogAudit, audit_log};
use florin_core::ordered::engine::Ordering;
use florin_core::ordered::input::Input;
use florin_core::ordered::{item, session};
use florin_core::signatures::AuthorityKey;
use florin_core::{Code, Result, wire};

use crate::Shell;
use crate::checkers::Rule;
use crate::disk::{Disk, Image};
use crate::disturb::Point;
use crate::message::{Addr, Body, Envelope};
use crate::profile::Part;
use crate::sequencer::Ring;
use crate::world::{MS, Micros, Timer, World};

/// Deliveries under way to one shard.
const DELIVERIES_MAX: u64 = 8;
/// Items that wait for the engine.
const QUEUE_MAX: usize = 256;
/// The engine is believed stuck for this authority after so long.
const IDLE: Micros = 250 * MS;
/// Between clock votes while something waits for a time, and while nothing does.
const CLOCK_OPEN: Micros = 150 * MS;
const CLOCK_IDLE: Micros = 2_000 * MS;

/// What waits for the disk.
enum Effect {
    Reply(Addr, u64, Vec<wire::LogCall>, Vec<bool>),
    Sent(u32, u64),
    Closed(u64, wire::Signed),
}

/// A session that is fetched from a peer.
struct Fetch {
    signed: wire::SignedSession,
    peer: u32,
    units: Vec<wire::OrderedUnit>,
    since: Micros,
}

/// The log of an honest authority.
pub struct LogNode {
    authority: u32,
    core: OrderedLog,
    ring: Ring,
    disk: Disk,
    shell: Shell,
    life: u32,
    up: bool,
    syncing: bool,
    waiting: VecDeque<(u64, Effect)>,
    durable_sent: BTreeMap<u32, u64>,
    /// By session: units with data that the engine has given since the start.
    given: BTreeMap<u64, u32>,
    queue: VecDeque<Bytes>,
    fetch: Option<Fetch>,
    last_unit: Micros,
    opened: u64,
    left: u64,
    voted: Micros,
}

impl LogNode {
    /// A log with an empty disk, not started yet.
    pub fn new(committee: Arc<Committee>, key: Arc<AuthorityKey>, authority: u32, ring: Ring, shell: Shell) -> Self {
        LogNode {
            authority,
            core: OrderedLog::new(committee, authority, key),
            ring,
            disk: Disk::default(),
            shell,
            life: 0,
            up: false,
            syncing: false,
            waiting: VecDeque::new(),
            durable_sent: BTreeMap::new(),
            given: BTreeMap::new(),
            queue: VecDeque::new(),
            fetch: None,
            last_unit: 0,
            opened: 0,
            left: 0,
            voted: 0,
        }
    }

    /// Its disk, for checkers.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Its authority.
    pub fn authority(&self) -> u32 {
        self.authority
    }

    /// Whether a crash now would lose something.
    pub fn has_unsynced(&self) -> bool {
        self.disk.last_step() > self.disk.durable_step()
    }

    /// The operator's audit of what is on disk.
    pub fn audit(&self) -> Result<LogAudit> {
        audit_log(&self.core, self.disk.synced(), true)
    }

    fn addr(&self) -> Addr {
        Addr::Log(self.authority)
    }

    fn view(&self) -> &Image {
        self.disk.current()
    }

    /// Starts the process: everything it knows comes from the disk.
    pub fn start(&mut self, world: &mut World) {
        self.up = true;
        self.life += 1;
        self.syncing = false;
        self.given.clear();
        world.log_is(self.authority, true);
        world.sequencer.borrow_mut().restarted(self.authority);
        self.durable_sent.clear();
        for to in 0..world.committee.shards {
            let (_, sent) = self.core.outbox_range(self.view(), to).unwrap_or((1, 0));
            self.durable_sent.insert(to, sent);
        }
        let signed = session::signed_sessions(self.view()).unwrap_or(0);
        let open = self.open_session();
        (self.left, self.opened) = (signed, open);
        for session in signed..=open {
            self.take_part(world, session);
        }
        self.after(world, 5 * MS, 100 * MS, Timer::Propose);
        self.after(world, 5 * MS, 400 * MS, Timer::Poll(0));
        self.after(world, MS, 100 * MS, Timer::Pump);
    }

    fn open_session(&self) -> u64 {
        self.core.book(self.view()).map_or(0, |b| b.session)
    }

    fn take_part(&mut self, world: &mut World, session: u64) {
        self.given.insert(session, 0);
        if let Err(e) = self.ring.open(session) {
            world.violation(Rule::Impossible, format!("log {}: {e}", self.authority));
        }
    }

    /// Power off. The process comes back after a while.
    pub fn crash(&mut self, world: &mut World) {
        if !self.up {
            return;
        }
        self.up = false;
        self.life += 1;
        self.waiting.clear();
        self.queue.clear();
        self.fetch = None;
        world.log_is(self.authority, false);
        world.sequencer.borrow_mut().restarted(self.authority);
        world.fault("crashes of logs");
        if world.power_off(&mut self.disk) > 0 {
            world.fault("crashes of logs that lost steps");
        }
        world.checks.log_crashed(self.authority, &self.disk);
        self.after(world, 10 * MS, 1_500 * MS, Timer::Restart);
    }

    fn after(&self, world: &mut World, low: Micros, high: Micros, timer: Timer) {
        let delay = world.rng.between(low, high);
        world.timer(self.addr(), self.life, delay, timer);
    }

    /// A timer fires. Those of the engine are for every life.
    pub fn on_timer(&mut self, world: &mut World, life: u32, timer: Timer) {
        if life != self.life && timer != Timer::Units || !self.up && timer != Timer::Restart {
            return;
        }
        match timer {
            Timer::SyncBegin => {
                if world.crashes_at(Point::SyncBegins) {
                    return self.crash(world);
                }
                let stalls = !world.calm && world.rng.chance(50) && world.has(Part::SlowSyncs);
                let longest = if stalls { 250 * MS } else { 6 * MS };
                self.after(world, MS / 2, longest, Timer::SyncEnd(self.disk.last_step()));
            }
            Timer::SyncEnd(_) if world.crashes_at(Point::Syncing) => self.crash(world),
            // The authority's other processes see that it is gone, and it starts again.
            Timer::SyncEnd(_) if world.sync_fails(self.addr()) => self.crash(world),
            Timer::SyncEnd(upto) => self.synced(world, upto),
            Timer::Crash => self.crash(world),
            Timer::Pump => {
                (0..world.committee.shards).for_each(|to| self.pump(world, to, 0));
                self.after(world, 60 * MS, 120 * MS, Timer::Pump);
            }
            Timer::Units => self.units(world),
            Timer::Propose => {
                self.propose(world);
                self.after(world, 30 * MS, 90 * MS, Timer::Propose);
            }
            Timer::Poll(_) => {
                self.poll_peers(world);
                self.after(world, 100 * MS, 300 * MS, Timer::Poll(0));
            }
            Timer::Restart => self.start(world),
            Timer::Genesis | Timer::Client(_) => {}
        }
    }

    /// One step of the core, its writes, and a sync to come.
    fn step(&mut self, world: &mut World, input: Input) -> Result<()> {
        let mut effects = self.core.handle(input, self.disk.current())?;
        if self.shell == Shell::RefundsTwice {
            effects.writes.iter_mut().for_each(refund_twice);
        }
        if self.shell == Shell::ForgetsLanes {
            effects.writes.iter_mut().for_each(forget_lanes);
        }
        if !effects.writes.is_empty() {
            effects.writes.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
            for w in &effects.writes {
                world.trace(&w.key);
                world.trace(w.value.as_deref().unwrap_or_default());
            }
            self.disk.write(&effects.writes);
            world.checks.log_wrote(self.authority, &self.disk, &effects.writes);
            if world.crashes_at(Point::Written) {
                world.timer(self.addr(), self.life, 0, Timer::Crash);
            }
            for (address, amount) in world.checks.log.take_credits() {
                *world.income.entry(address).or_default() += i128::from(amount);
            }
            if !self.syncing {
                self.syncing = true;
                self.after(world, 100, 4 * MS, Timer::SyncBegin);
            }
        }
        let step = self.disk.last_step();
        for (to, sequence) in effects.outbox {
            self.waiting.push_back((step, Effect::Sent(to, sequence)));
            if self.shell == Shell::LogDeliversBeforeSync {
                self.durable_sent.insert(to, sequence);
                self.pump(world, to, sequence);
            }
        }
        self.waiting.extend(effects.closed.map(|(session, signature)| (step, Effect::Closed(session, signature))));
        Ok(())
    }

    fn synced(&mut self, world: &mut World, upto: u64) {
        self.syncing = false;
        self.disk.sync(upto);
        if world.crashes_at(Point::Synced) {
            return self.crash(world);
        }
        while self.waiting.front().is_some_and(|(step, _)| *step <= upto) {
            match self.waiting.pop_front() {
                Some((_, Effect::Reply(to, id, calls, done))) => self.leave(world, to, id, &calls, done),
                Some((_, Effect::Sent(to, sequence))) => {
                    self.durable_sent.insert(to, sequence);
                    self.pump(world, to, sequence);
                }
                Some((_, Effect::Closed(session, signature))) => {
                    for peer in (0..world.committee.size() as u32).filter(|p| *p != self.authority) {
                        world.send(self.addr(), Addr::Log(peer), 0, Body::Signature(session, signature.clone()));
                    }
                    self.opened = session + 1;
                    self.take_part(world, session + 1);
                }
                None => {}
            }
            if world.crashes_at(Point::Leaving) {
                return self.crash(world);
            }
        }
        // Sessions that a quorum has signed need nobody's part any more.
        let signed = session::signed_sessions(self.disk.synced()).unwrap_or(0);
        while self.left < signed.min(self.opened) {
            self.ring.close(self.left);
            self.given.remove(&self.left);
            self.left += 1;
        }
        if self.disk.last_step() > upto {
            self.syncing = true;
            self.after(world, 100, 4 * MS, Timer::SyncBegin);
        }
    }

    fn leave(&self, world: &mut World, to: Addr, id: u64, calls: &[wire::LogCall], done: Vec<bool>) {
        world.checks.handed(self.authority, &self.disk, calls, &done);
        world.send(self.addr(), to, id, Body::Handed(done));
    }

    /// Takes what the engine has ordered.
    fn units(&mut self, world: &mut World) {
        let most = world.rng.between(1, 12);
        for _ in 0..most {
            let Poll::Ready(next) = self.ring.poll(&mut Context::from_waker(Waker::noop())) else { return };
            let Ok(unit) = next else { return };
            self.last_unit = world.now;
            let position = *self.given.entry(unit.session).or_insert(0);
            let open = self.open_session();
            if !unit.data.is_empty() {
                self.given.insert(unit.session, position + 1);
            }
            if unit.session != open {
                continue;
            }
            let input = Input::Unit {
                session: unit.session,
                position,
                creator: unit.creator,
                round: unit.round,
                data: unit.data,
            };
            match self.step(world, input) {
                Ok(()) => {}
                Err(e) => world.violation(Rule::Impossible, format!("log {}: a unit is refused: {e}", self.authority)),
            }
        }
    }

    /// Offers what shards have handed in, with this authority's clock.
    fn propose(&mut self, world: &mut World) {
        // As in an authority, the log's clock never stops, or what ends in a long time would never end.
        let every = if self.core.needs_time(self.view()).unwrap_or(false) { CLOCK_OPEN } else { CLOCK_IDLE };
        if self.queue.is_empty() && world.now < self.voted + every {
            return;
        }
        self.voted = world.now;
        let items: Vec<Bytes> = self.queue.drain(..).collect();
        for data in item::pack(world.clock_ms(self.authority), items) {
            // What is too much now is handed in again.
            if self.ring.submit(data).is_err() {
                world.fault("busy engines");
            }
        }
    }

    /// Sends what is durable in the outbox for a shard, from a sequence on.
    fn pump(&mut self, world: &mut World, to: u32, from: u64) {
        let Ok((first, _)) = self.core.outbox_range(self.view(), to) else { return };
        let durable = self.durable_sent.get(&to).copied().unwrap_or(0);
        for sequence in first.max(from)..=durable.min(first + DELIVERIES_MAX) {
            if let Ok(delivery) = self.core.outbox(self.view(), to, sequence) {
                world.checks.delivered((self.authority, u32::MAX), &self.disk, &delivery);
                world.send(self.addr(), Addr::Shard(self.authority, to), sequence, Body::Deliver(delivery));
            }
        }
    }

    /// Asks a peer for sessions that a quorum has signed, and tells it the own signatures.
    fn poll_peers(&mut self, world: &mut World) {
        let peer = world.rng.below(world.committee.size() as u64) as u32;
        if peer == self.authority {
            return;
        }
        let signed = session::signed_sessions(self.view()).unwrap_or(0);
        world.send(self.addr(), Addr::Log(peer), 0, Body::Sessions(signed));
        for session in signed..self.opened.min(signed + 3) {
            if let Ok(Some(signature)) = self.core.own_signature(self.disk.synced(), session) {
                world.send(self.addr(), Addr::Log(peer), 0, Body::Signature(session, signature));
            }
        }
        if self.fetch.as_ref().is_some_and(|f| world.now > f.since + 2_000 * MS) {
            self.fetch = None;
        }
    }

    /// A message arrives.
    pub fn on_message(&mut self, world: &mut World, envelope: Envelope) {
        if !self.up {
            return world.fault("sent to a crashed log");
        }
        match envelope.body {
            Body::Hand(calls, items) => {
                if let Addr::Shard(authority, _) = envelope.from
                    && authority == self.authority
                {
                    self.on_hand(world, envelope.from, envelope.id, calls, items);
                }
            }
            Body::Delivered(Ok(reply)) => {
                if let Addr::Shard(authority, shard) = envelope.from
                    && authority == self.authority
                    && let Err(e) = self.step(world, Input::Delivered { to_shard: shard, applied: reply.applied })
                {
                    let what = format!("log {}: shard {shard} acknowledges too much: {e}", self.authority);
                    world.violation(Rule::Impossible, what);
                }
            }
            Body::Signature(session, signature) if session < self.open_session() => {
                let taken = self.step(world, Input::Signature { session, signature });
                taken.unwrap_or_else(|_| world.fault("refused signatures of sessions"));
            }
            Body::Sessions(from) => {
                let request = wire::SessionsRequest { from, limit: 8 };
                if let Ok(reply) = self.core.sessions(self.disk.synced(), &request) {
                    world.send(self.addr(), envelope.from, envelope.id, Body::SessionsAre(reply));
                }
            }
            Body::Units(session, from) => {
                let request = wire::UnitsRequest { session, from };
                if let Ok(reply) = self.core.units(self.disk.synced(), &request) {
                    world.send(self.addr(), envelope.from, envelope.id, Body::UnitsAre(session, from, reply));
                }
            }
            Body::SessionsAre(reply) => {
                if let Addr::Log(peer) = envelope.from {
                    self.on_sessions(world, peer, reply);
                }
            }
            Body::UnitsAre(session, from, reply) => {
                if let Addr::Log(peer) = envelope.from {
                    self.on_units(world, peer, session, from, reply);
                }
            }
            _ => {}
        }
    }

    fn on_hand(&mut self, world: &mut World, from: Addr, id: u64, calls: Vec<wire::LogCall>, items: Vec<Bytes>) {
        let done = calls.iter().map(|c| self.core.is_done(self.view(), c)).collect::<Result<Vec<bool>>>();
        let Ok(done) = done else {
            return world.violation(Rule::Impossible, format!("log {} can't read its records", self.authority));
        };
        for item in items {
            if self.queue.len() < QUEUE_MAX && !self.queue.contains(&item) {
                self.queue.push_back(item);
            }
        }
        let step = self.disk.last_step();
        if self.shell == Shell::LogRepliesBeforeSync || step <= self.disk.durable_step() {
            self.leave(world, from, id, &calls, done);
        } else {
            self.waiting.push_back((step, Effect::Reply(from, id, calls, done)));
        }
    }

    fn on_sessions(&mut self, world: &mut World, peer: u32, reply: wire::SessionsReply) {
        for signed in reply.sessions {
            let number = signed.header.as_ref().map_or(u64::MAX, |h| h.session);
            let open = self.open_session();
            if number < open {
                match self.step(world, Input::Close(signed)) {
                    Ok(()) => {}
                    Err(e) if e.code == Code::SessionMismatch => {
                        world.violation(Rule::LogFork, format!("log {}: {e}", self.authority));
                    }
                    Err(_) => world.fault("refused sessions of peers"),
                }
            } else if number == open && self.fetch.is_none() && world.now > self.last_unit + IDLE {
                if session::check(&world.committee, &signed).is_err() {
                    world.fault("refused sessions of peers");
                    continue;
                }
                self.fetch = Some(Fetch { signed, peer, units: Vec::new(), since: world.now });
                self.fetch_more(world, number);
            }
        }
    }

    /// Asks for the next units of the session that is fetched, or applies it if there are all of them.
    fn fetch_more(&mut self, world: &mut World, number: u64) {
        let Some(fetch) = &self.fetch else { return };
        let wanted = fetch.signed.header.as_ref().map_or(0, |h| h.units) as usize;
        if fetch.units.len() < wanted {
            let from = fetch.units.len() as u32;
            return world.send(self.addr(), Addr::Log(fetch.peer), 0, Body::Units(number, from));
        }
        let Some(Fetch { signed, units, .. }) = self.fetch.take() else { return };
        if session::verify(&world.committee, &signed, &units).is_err() {
            return world.fault("refused sessions of peers");
        }
        if self.open_session() != number {
            return;
        }
        world.fault("sessions from peers");
        let inputs = units.into_iter().enumerate().map(|(position, unit)| Input::Unit {
            session: number,
            position: position as u32,
            creator: unit.creator,
            round: 0,
            data: unit.data,
        });
        for input in inputs.chain([Input::Close(signed)]) {
            if let Err(e) = self.step(world, input) {
                return world.violation(Rule::LogFork, format!("log {}: a signed session: {e}", self.authority));
            }
        }
    }

    fn on_units(&mut self, world: &mut World, peer: u32, number: u64, from: u32, reply: wire::UnitsReply) {
        let Some(fetch) = &mut self.fetch else { return };
        let header = fetch.signed.header.clone().unwrap_or_default();
        if fetch.peer != peer || header.session != number || fetch.units.len() != from as usize {
            return;
        }
        if reply.units.is_empty() || fetch.units.len() + reply.units.len() > header.units as usize {
            self.fetch = None;
            return world.fault("refused sessions of peers");
        }
        fetch.units.extend(reply.units);
        self.fetch_more(world, number);
    }
}

/// A delivery in which each refund stands twice.
fn refund_twice(write: &mut Write) {
    use florin_core::authority::state::Table;
    use prost::Message as _;
    let Some(value) = write.value.as_deref().filter(|_| write.table == Table::Outbox) else { return };
    let Ok(mut delivery) = wire::Delivery::decode(value) else { return };
    let is_refund =
        |c: &&wire::DeliveredCredit| c.source.as_ref().is_some_and(|s| s.kind() == wire::credit_entry::Kind::Refund);
    let again: Vec<wire::DeliveredCredit> = delivery.credits.iter().filter(is_refund).cloned().collect();
    delivery.credits.extend(again);
    write.value = Some(delivery.encode_to_vec());
}

/// A channel of which nothing was redeemed.
fn forget_lanes(write: &mut Write) {
    use florin_core::authority::state::Table;
    use prost::Message as _;
    if write.table == Table::Objects
        && write.key.first() == Some(&b'l')
        && let Some(Ok(mut record)) = write.value.as_deref().map(wire::ChannelRecord::decode)
    {
        record.lanes.clear();
        write.value = Some(record.encode_to_vec());
    }
}
