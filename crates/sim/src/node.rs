//! One shard of one honest authority: the shell around the core, as the real node has to be.
//!
//! Writes of a step are one atomic unit. A sync covers all steps written when it began. Only what is
//! durable leaves: replies, deliveries, the end of the settled stream. A crash loses everything in memory
//! and a suffix of the unsynced steps. [`Shell`] breaks these rules one at a time, to see the checkers bite.

mod follow;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::authority::audit::{ShardAudit, audit_shard};
use florin_core::authority::effect::Reply;
use florin_core::authority::hot::Hot;
use florin_core::authority::input::Input;
use florin_core::authority::state::{LOG, Table};
use florin_core::authority::{Authority, NoMeter};
use florin_core::bitmap::Bitmap;
use florin_core::cash::mint_keys::MintKeys;
use florin_core::certificate::BatchId;
use florin_core::committee::Committee;
use florin_core::signatures::AuthorityKey;
use florin_core::{Code, Error, Result, evidence, wire};
use prost::Message as _;

use crate::checkers::{Promise, Rule};
use crate::disk::{Disk, Image};
use crate::disturb::Point;
use crate::message::{Addr, Body, Envelope};
use crate::profile::Part;
use crate::world::{MS, Timer, World};
use crate::{Shell, world::Micros};

/// Deliveries under way to one shard.
const DELIVERIES_MAX: u64 = 8;
/// Calls to the log that are looked at together.
const CALLS_MAX: u64 = 32;
/// The next authority in the line hands in what the log has not taken by then.
const TURN: Micros = 500 * MS;
/// What was handed in and has not come is handed in again.
const AGAIN: Micros = 1_200 * MS;
/// Lines of the genesis file in one step.
const GENESIS_LINES: usize = 3;

/// A reply that waits for the disk.
struct Held {
    step: u64,
    to: Addr,
    id: u64,
    body: Body,
    promise: Option<Promise>,
    /// Notes whose shares it has.
    shares: Vec<(Bytes, u32)>,
}

/// A shard of an honest authority.
pub struct Node {
    authority: u32,
    shard: u32,
    core: Authority,
    /// In memory, as in a real shard: a crash takes it.
    hot: Hot,
    disk: Disk,
    genesis: Arc<Vec<(Address, u64)>>,
    shell: Shell,
    life: u32,
    up: bool,
    /// A sync has failed in this life.
    failed: bool,
    syncing: bool,
    held: VecDeque<Held>,
    /// Steps with their end of the settled stream.
    ends: VecDeque<(u64, u64)>,
    durable_end: u64,
    /// Steps with the last sequence that they put into the outbox for a shard.
    sent: VecDeque<(u64, u32, u64)>,
    durable_sent: BTreeMap<u32, u64>,
    /// By peer and position of its stream: since when the batch is known to be missing.
    missing: BTreeMap<(u32, u64), Micros>,
    /// Calls in the outbox for the log: since when, and when they were handed in last.
    handed: BTreeMap<u64, (Micros, Option<Micros>)>,
    /// By root: answers to fetched batches whose orders had settled in other ones.
    elsewhere: BTreeMap<Bytes, wire::SettleReply>,
}

impl Node {
    /// A shard with an empty disk, not started yet.
    pub fn new(
        committee: Arc<Committee>,
        key: Arc<AuthorityKey>,
        (authority, shard): (u32, u32),
        genesis: Arc<Vec<(Address, u64)>>,
        shell: Shell,
    ) -> Self {
        Node {
            authority,
            shard,
            core: Authority::new(committee, authority, shard, key),
            hot: Hot::default(),
            disk: Disk::default(),
            genesis,
            shell,
            life: 0,
            up: false,
            failed: false,
            syncing: false,
            held: VecDeque::new(),
            ends: VecDeque::new(),
            durable_end: 0,
            sent: VecDeque::new(),
            durable_sent: BTreeMap::new(),
            missing: BTreeMap::new(),
            handed: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
        }
    }

    /// Gives it the keys of e-cash.
    pub fn set_mint(&self, keys: Arc<MintKeys>) {
        self.core.set_mint(keys);
    }

    /// Its disk, for checkers.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Whether a crash now would lose something.
    pub fn has_unsynced(&self) -> bool {
        self.disk.last_step() > self.disk.durable_step()
    }

    /// (authority, shard).
    pub fn id(&self) -> (u32, u32) {
        (self.authority, self.shard)
    }

    /// The operator's audit of what is on disk.
    pub fn audit(&self) -> Result<ShardAudit> {
        audit_shard(&self.core, self.disk.synced(), false)
    }

    fn addr(&self) -> Addr {
        Addr::Shard(self.authority, self.shard)
    }

    fn view(&self) -> &Image {
        self.disk.current()
    }

    /// Starts the process: everything it knows comes from the disk.
    pub fn start(&mut self, world: &mut World) {
        self.up = true;
        self.life += 1;
        self.syncing = false;
        self.durable_end = self.core.totals(self.disk.current()).map_or(0, |t| t.next.1);
        self.durable_sent.clear();
        for to in (0..world.committee.shards).filter(|to| *to != self.shard).chain([LOG]) {
            let (_, sent) = self.core.outbox_range(self.disk.current(), to).unwrap_or((1, 0));
            self.durable_sent.insert(to, sent);
        }
        world.checks.restarted(self.id(), &self.disk, self.durable_end);
        for peer in (0..world.committee.size() as u32).filter(|p| *p != self.authority) {
            self.after(world, 5 * MS, 400 * MS, Timer::Poll(peer));
        }
        self.after(world, MS, 2 * MS, Timer::Genesis);
        self.after(world, MS, 100 * MS, Timer::Pump);
    }

    /// A sync has failed: it promises nothing more, until it starts again with what the disk has kept.
    fn fail(&mut self, world: &mut World) {
        self.failed = true;
        self.life += 1;
        self.after(world, 50 * MS, 800 * MS, Timer::Crash);
    }

    /// Power off. The process comes back after a while.
    pub fn crash(&mut self, world: &mut World) {
        if !self.up {
            return;
        }
        self.up = false;
        self.failed = false;
        self.life += 1;
        if !self.held.is_empty() {
            world.mark("crash before a promise left");
        }
        self.hot = Hot::default();
        self.held.clear();
        self.ends.clear();
        self.sent.clear();
        self.missing.clear();
        self.elsewhere.clear();
        self.handed.clear();
        world.fault("crashes");
        if world.power_off(&mut self.disk) > 0 {
            world.fault("crashes that lost steps");
        }
        world.checks.crashed(self.id(), self.disk.last_step());
        self.after(world, 10 * MS, 1_500 * MS, Timer::Restart);
    }

    fn after(&self, world: &mut World, low: Micros, high: Micros, timer: Timer) {
        let delay = world.rng.between(low, high);
        world.timer(self.addr(), self.life, delay, timer);
    }

    /// A timer of this node fires.
    pub fn on_timer(&mut self, world: &mut World, life: u32, timer: Timer) {
        if life != self.life {
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
            Timer::SyncEnd(_) if world.sync_fails(self.addr()) => self.fail(world),
            Timer::SyncEnd(upto) => self.synced(world, upto),
            Timer::Crash => self.crash(world),
            Timer::Pump => {
                let shards: Vec<u32> = self.durable_sent.keys().copied().collect();
                shards.into_iter().for_each(|to| self.pump(world, to, 0));
                self.after(world, 60 * MS, 120 * MS, Timer::Pump);
            }
            Timer::Poll(peer) => {
                let from = self.core.cursor(self.view(), peer).unwrap_or(0);
                world.send(self.addr(), Addr::Shard(peer, self.shard), 0, Body::Follow(from));
                self.after(world, 150 * MS, 400 * MS, Timer::Poll(peer));
            }
            Timer::Genesis => self.load_genesis(world),
            Timer::Restart => self.start(world),
            Timer::Units | Timer::Propose | Timer::Client(_) => {}
        }
    }

    fn load_genesis(&mut self, world: &mut World) {
        let Ok(totals) = self.core.totals(self.view()) else { return };
        if totals.genesis_done {
            return;
        }
        let at = totals.genesis_lines as usize;
        let end = (at + GENESIS_LINES).min(self.genesis.len());
        let lines = self.genesis[at..end].to_vec();
        let input = Input::Genesis { first_line: at as u64, lines, last: end == self.genesis.len() };
        if let Err(e) = self.step(world, input) {
            world.violation(Rule::Impossible, format!("{:?} can't load the genesis file: {e}", self.id()));
        }
        self.after(world, MS / 10, MS, Timer::Genesis);
    }

    /// One step of the core, its writes, and a sync to come.
    fn step(&mut self, world: &mut World, input: Input) -> Result<Reply> {
        let stale = self.shell == Shell::ReadsMissUnsynced && matches!(input, Input::Vote { .. });
        let view = if stale { self.disk.synced() } else { self.disk.current() };
        if stale {
            self.hot = Hot::default();
        }
        let now_us = world.clock_ms(self.authority) * 1_000;
        let mut effects = self.core.handle_hot(now_us, input, view, &mut self.hot, &mut NoMeter)?;
        if self.shell == Shell::ForgetsNotes && matches!(effects.reply, Reply::Vote(_)) {
            effects.writes.retain(|w| w.table != Table::Notes);
        }
        if !effects.writes.is_empty() {
            // Their order within the step means nothing; the core leaves it open.
            effects.writes.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
            for w in &effects.writes {
                world.trace(&w.key);
                world.trace(w.value.as_deref().unwrap_or_default());
            }
            self.disk.write(&effects.writes);
            self.hot.written(std::mem::take(&mut effects.accounts));
            world.checks.wrote(self.id(), &self.disk, &effects.writes);
            if world.crashes_at(Point::Written) {
                world.timer(self.addr(), self.life, 0, Timer::Crash);
            }
            if !self.syncing {
                self.syncing = true;
                self.after(world, 100, 4 * MS, Timer::SyncBegin);
            }
        }
        let step = self.disk.last_step();
        self.ends.extend(effects.settled_end.map(|end| (step, end)));
        for (to, sequence) in effects.outbox {
            self.sent.push_back((step, to, sequence));
            if self.shell == Shell::DeliversBeforeSync {
                self.durable_sent.insert(to, sequence);
                self.pump(world, to, sequence);
            }
        }
        Ok(effects.reply)
    }

    fn synced(&mut self, world: &mut World, upto: u64) {
        self.syncing = false;
        self.disk.sync(upto);
        world.checks.synced(self.id(), upto);
        if world.crashes_at(Point::Synced) {
            return self.crash(world);
        }
        while self.ends.front().is_some_and(|(step, _)| *step <= upto) {
            self.durable_end = self.ends.pop_front().map_or(0, |(_, end)| end);
        }
        while self.sent.front().is_some_and(|(step, _, _)| *step <= upto) {
            if let Some((_, to, sequence)) = self.sent.pop_front() {
                self.durable_sent.insert(to, sequence);
                self.pump(world, to, sequence);
            }
        }
        while self.held.front().is_some_and(|h| h.step <= upto) {
            if let Some(held) = self.held.pop_front() {
                self.leave(world, held);
                if world.crashes_at(Point::Leaving) {
                    return self.crash(world);
                }
            }
        }
        if self.disk.last_step() > upto {
            self.syncing = true;
            self.after(world, 100, 4 * MS, Timer::SyncBegin);
        }
    }

    fn reply(&mut self, world: &mut World, request: &Envelope, body: Body, promise: Option<Promise>) {
        world.replied(&body);
        self.reply_with(world, request, body, promise, Vec::new());
    }

    fn reply_with(
        &mut self,
        world: &mut World,
        request: &Envelope,
        body: Body,
        promise: Option<Promise>,
        shares: Vec<(Bytes, u32)>,
    ) {
        let held = Held { step: self.disk.last_step(), to: request.from, id: request.id, body, promise, shares };
        if self.shell == Shell::RepliesBeforeSync || held.step <= self.disk.durable_step() {
            self.leave(world, held);
        } else {
            self.held.push_back(held);
        }
    }

    fn leave(&mut self, world: &mut World, held: Held) {
        if let Some(promise) = held.promise {
            world.checks.left(self.id(), &self.disk, promise);
        }
        if !held.shares.is_empty() {
            world.checks.shares_left(self.id(), &self.disk, &held.shares);
        }
        world.send(self.addr(), held.to, held.id, held.body);
    }

    /// Sends what is durable in the outbox for a shard, from a sequence on.
    fn pump(&mut self, world: &mut World, to: u32, from: u64) {
        if to == LOG {
            return self.hand(world);
        }
        let Ok((first, _)) = self.core.outbox_range(self.view(), to) else { return };
        let durable = self.durable_sent.get(&to).copied().unwrap_or(0);
        for sequence in first.max(from)..=durable.min(first + DELIVERIES_MAX) {
            if let Ok(delivery) = self.core.outbox(self.view(), to, sequence) {
                world.checks.delivered(self.id(), &self.disk, &delivery);
                world.send(self.addr(), Addr::Shard(self.authority, to), sequence, Body::Deliver(delivery));
            }
        }
    }

    /// Asks the log what it has of the calls in the outbox, and hands in what is due.
    fn hand(&mut self, world: &mut World) {
        let Ok((first, _)) = self.core.outbox_range(self.view(), LOG) else { return };
        let durable = self.durable_sent.get(&LOG).copied().unwrap_or(0);
        let (mut calls, mut due) = (Vec::new(), Vec::new());
        let size = world.committee.size() as u64;
        for sequence in first..=durable.min(first + CALLS_MAX) {
            let Ok(delivery) = self.core.outbox(self.view(), LOG, sequence) else { return };
            world.checks.delivered(self.id(), &self.disk, &delivery);
            let Some(call) = delivery.calls.into_iter().next() else { return };
            let (since, last) = *self.handed.entry(sequence).or_insert((world.now, None));
            let rank = (u64::from(self.authority) + size - call.actor % size) % size;
            // What only this authority knows, it alone can say.
            let own = call.report || call.shown;
            if own && self.shell == Shell::ForgedReports {
                calls.push(call);
                continue;
            }
            if (own || world.now >= since + rank * TURN) && last.is_none_or(|at| world.now >= at + AGAIN) {
                self.handed.insert(sequence, (since, Some(world.now)));
                due.push(call.clone());
            }
            calls.push(call);
        }
        self.handed.retain(|sequence, _| *sequence >= first);
        if calls.is_empty() {
            return;
        }
        let items = match self.core.log_items(self.view(), &due) {
            Ok(offers) => offers.into_iter().map(|offer| offer.item).collect(),
            Err(e) => return world.violation(Rule::Impossible, format!("{:?} can't make items: {e}", self.id())),
        };
        world.send(self.addr(), Addr::Log(self.authority), first, Body::Hand(calls, items));
    }

    fn on_handed(&mut self, world: &mut World, envelope: &Envelope, done: &[bool]) {
        let Ok((first, _)) = self.core.outbox_range(self.view(), LOG) else { return };
        if envelope.from != Addr::Log(self.authority) || envelope.id != first {
            return;
        }
        let taken = done.iter().take_while(|done| **done).count() as u64;
        if taken > 0
            && let Err(e) = self.step(world, Input::Delivered { to_shard: LOG, applied: first - 1 + taken })
        {
            world.violation(Rule::Impossible, format!("{:?}: the log takes too much: {e}", self.id()));
        }
    }

    /// A message arrives.
    pub fn on_message(&mut self, world: &mut World, envelope: Envelope) {
        if !self.up {
            return world.fault("sent to a crashed shard");
        }
        if self.failed {
            let refusal = envelope.body.refusal(Error::new(Code::StorageFailed, "a sync has failed"));
            if let Some(body) = refusal {
                world.replied(&body);
                world.send(self.addr(), envelope.from, envelope.id, body);
            }
            return;
        }
        match &envelope.body {
            Body::Vote(orders) => self.on_vote(world, &envelope, orders.clone()),
            Body::Settle(certificate, orders) => self.on_settle(world, &envelope, certificate.clone(), orders.clone()),
            Body::Deliver(delivery) => self.on_deliver(world, &envelope, delivery.clone()),
            Body::Follow(from) => self.on_follow(world, &envelope, *from),
            Body::Batch(root) => {
                let request = wire::BatchRequest { shard: self.shard, root: root.clone(), bitmap: Bytes::new() };
                let reply = self.core.batch(self.view(), &request).unwrap_or_default();
                world.send(self.addr(), envelope.from, envelope.id, Body::Batches(reply));
            }
            Body::Notes(notes) => {
                let reply = self.core.notes(self.view(), notes);
                let shares = reply.as_ref().map_or(Vec::new(), |reply| {
                    let issued = notes.blinded.iter().zip(&reply.issued);
                    issued.flat_map(|(b, n)| n.tiers.iter().map(|tier| (b.clone(), *tier))).collect()
                });
                self.reply_with(world, &envelope, Body::NotesAre(reply), None, shares);
            }
            Body::Delivered(Ok(reply)) => {
                if let Addr::Shard(authority, shard) = envelope.from
                    && authority == self.authority
                {
                    let input = Input::Delivered { to_shard: shard, applied: reply.applied };
                    if let Err(e) = self.step(world, input) {
                        world.violation(
                            Rule::Impossible,
                            format!("{:?}: shard {shard} acknowledges too much: {e}", self.id()),
                        );
                    }
                }
            }
            Body::Followed(reply) => {
                if let Addr::Shard(peer, shard) = envelope.from
                    && shard == self.shard
                {
                    self.on_followed(world, peer, reply);
                }
            }
            Body::Handed(done) => self.on_handed(world, &envelope, done),
            Body::Batches(reply) => {
                let before = world.checks.cash.bearers(self.id());
                for certificate in reply.certificates.clone() {
                    let root = certificate.root.clone();
                    let input = Input::Fetched { certificate, orders: reply.orders.clone() };
                    match self.settle(world, input, &reply.orders) {
                        Ok(Reply::Settle(reply)) => drop(self.elsewhere.insert(root, reply)),
                        _ => world.fault("refused batches of peers"),
                    }
                }
                if world.checks.cash.bearers(self.id()) > before {
                    world.checks.cash.mark("bearer order settled by catching up");
                }
            }
            _ => {}
        }
    }

    fn on_vote(&mut self, world: &mut World, request: &Envelope, orders: Vec<Bytes>) {
        world.checks.seen(&orders);
        match self.step(world, Input::vote(orders.clone())) {
            Ok(Reply::Vote(reply)) => {
                world.checks.cash.clock_ms = world.clock_ms(self.authority);
                let vote = reply.vote.as_ref();
                let promise = vote.map(|v| world.checks.voted(self.id(), &self.disk, &orders, v));
                self.reply(world, request, Body::Voted(Ok(reply)), promise);
            }
            Ok(_) => world.violation(Rule::Impossible, "a vote is answered with something else"),
            Err(e) => self.reply(world, request, Body::Voted(Err(e)), None),
        }
    }

    fn on_settle(&mut self, world: &mut World, request: &Envelope, certificate: wire::Certificate, orders: Vec<Bytes>) {
        let root = certificate.root.clone();
        let expired = certificate.epoch != world.committee.epoch;
        match self.settle(world, Input::Settle { certificate, orders: orders.clone() }, &orders) {
            Ok(Reply::Settle(mut reply)) => {
                if expired {
                    world.violation(Rule::Impossible, format!("{:?} takes a certificate of another epoch", self.id()));
                }
                let signed = reply.acknowledgement.as_ref();
                let promise = signed.map(|s| world.checks.acknowledged(self.id(), &self.disk, &root, s));
                let shares = self.note_shares(world, &root, orders, &mut reply);
                world.replied(&Body::Settled(Ok(reply.clone())));
                self.reply_with(world, request, Body::Settled(Ok(reply)), promise, shares);
            }
            Ok(_) => world.violation(Rule::Impossible, "a certificate is answered with something else"),
            Err(e) => self.reply(world, request, Body::Settled(Err(e)), None),
        }
    }

    /// Adds the shares for notes that settled orders of a batch ask for.
    fn note_shares(
        &self,
        world: &mut World,
        root: &Bytes,
        given: Vec<Bytes>,
        reply: &mut wire::SettleReply,
    ) -> Vec<(Bytes, u32)> {
        let Ok(root) = <[u8; 32]>::try_from(root.as_ref()) else { return Vec::new() };
        let stored = self.orders_of(&root).unwrap_or_default();
        let orders = if stored.is_empty() { given } else { stored };
        if orders.is_empty() {
            return Vec::new();
        }
        let batch = BatchId { root, count: orders.len() };
        let bitmap = reply.acknowledgement.as_ref().and_then(|a| Bitmap::parse(&a.bitmap, batch.count).ok());
        let Some(settled) = bitmap else { return Vec::new() };
        match self.core.settled_shares(self.view(), &batch, &orders, &settled) {
            Ok(shares) => reply.shares = shares,
            Err(e) => world.violation(Rule::Impossible, format!("{:?} can't sign settled notes: {e}", self.id())),
        }
        reply.shares.iter().flat_map(|s| world.checks.asked_by(&orders[s.index as usize])).collect()
    }

    /// The orders of a batch that it keeps.
    fn orders_of(&self, root: &[u8; 32]) -> Option<Vec<Bytes>> {
        let number = self.view().value(Table::Roots, root)?;
        let record = self.view().value(Table::Batches, number)?;
        wire::BatchRecord::decode(record.clone()).ok().map(|record| record.orders)
    }

    fn settle(&mut self, world: &mut World, input: Input, orders: &[Bytes]) -> Result<Reply> {
        world.checks.seen(orders);
        let certificate = match &input {
            Input::Settle { certificate, .. } | Input::Fetched { certificate, .. } => Some(certificate.clone()),
            _ => None,
        };
        let result = self.step(world, input);
        if let (Err(e), Some(certificate)) = (&result, certificate)
            && e.code == Code::ConflictingCertificate
        {
            self.accuse(world, &certificate, orders);
        }
        if let Err(e) = &result
            && matches!(e.code, Code::ConflictingCertificate | Code::StorageCorrupt)
        {
            let what = format!("{:?} gets a certificate that can't be: {e}", self.id());
            world.violation(Rule::Impossible, what);
        }
        if let Ok(Reply::Settle(reply)) = &result {
            let waiting = reply.waiting.iter().filter_map(|w| orders.get(w.index as usize));
            if waiting.into_iter().any(|raw| world.checks.after_an_unknown_void(self.view(), raw)) {
                world.fault("certificates that wait for a recovery");
            }
        }
        result
    }

    /// What a certificate that can't be proves: liars only, and more than f of them.
    fn accuse(&self, world: &mut World, certificate: &wire::Certificate, orders: &[Bytes]) {
        let pairs = match self.core.evidence(self.view(), certificate, orders) {
            Ok(pairs) => pairs,
            Err(e) => return world.violation(Rule::FalseEvidence, format!("{:?} finds no evidence: {e}", self.id())),
        };
        for pair in pairs {
            match evidence::check(&world.committee, [&pair[0], &pair[1]]) {
                Ok(found) if found.guilty.iter().any(|i| !world.byzantine.contains(i)) => {
                    world.violation(Rule::FalseEvidence, format!("{:?} are accused", found.guilty));
                }
                Ok(found) if found.guilty.len() <= world.committee.faults() => {
                    world.violation(Rule::FalseEvidence, format!("only {:?} are accused", found.guilty));
                }
                Ok(_) => world.fault("liars beyond f named by evidence"),
                Err(e) => world.violation(Rule::FalseEvidence, format!("it proves nothing: {e}")),
            }
        }
    }

    fn on_deliver(&mut self, world: &mut World, request: &Envelope, delivery: wire::Delivery) {
        // The transport proves the sender: only shards of the same authority may move its money.
        let sender = match delivery.from_shard {
            LOG => Addr::Log(self.authority),
            shard => Addr::Shard(self.authority, shard),
        };
        let result = if request.from == sender {
            let result = self.step(world, Input::Deliver(delivery.clone()));
            if let Err(e) = &result
                && matches!(e.code, Code::ConflictingCertificate | Code::StorageCorrupt)
            {
                world.violation(Rule::Impossible, format!("{:?} gets a delivery that can't be: {e}", self.id()));
            }
            result
        } else {
            world.fault("refused deliveries of strangers");
            Err(Error::new(Code::PeerRefused, "not a shard of this authority"))
        };
        let body = match result {
            Ok(Reply::Deliver(reply)) => Body::Delivered(Ok(reply)),
            Ok(_) => return world.violation(Rule::Impossible, "a delivery is answered with something else"),
            Err(e) => Body::Delivered(Err(e)),
        };
        self.reply(world, request, body, None);
    }
}
