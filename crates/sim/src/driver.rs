//! Batches on their way through the simulated network, each driven by the client's own quorum driver.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use florin_client::quorum::{Quorum, Send};
use florin_core::distilled::round::Sealed;
use florin_core::{Code, Result, receipt, wire};

use crate::checkers::Rule;
use crate::client::wake;
use crate::message::{Addr, Body, Envelope};
use crate::world::{MS, Micros, SECOND, World};

/// Whoever drives waits this long for more votes once some order has enough.
const LINGER: Micros = 150 * MS;
/// It gives a batch up after this, and its orders go into others.
const PATIENCE: Micros = 2 * SECOND;

/// What became of orders.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Orders signed.
    pub signed: u64,
    /// Orders with a certificate.
    pub certified: u64,
    /// Orders acknowledged by a quorum.
    pub finals: u64,
    /// Times that a batch ended with an order refused.
    pub refused: u64,
}

/// Counts that several clients share.
#[derive(Clone, Default)]
pub struct Tally(Rc<Cell<Counts>>);

impl Tally {
    /// Where it is.
    pub fn get(&self) -> Counts {
        self.0.get()
    }

    /// Counts something.
    pub fn add(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.0.get();
        change(&mut counts);
        self.0.set(counts);
    }
}

/// The id of an order, and whether it is final. What is not is to be tried again.
pub type Outcome = ([u8; 32], bool);

struct Job {
    quorum: Quorum,
    shard: u32,
    started: Micros,
    ids: Vec<[u8; 32]>,
}

/// One client's batches. Their numbers are ids of its messages and tags of its timers; both begin at 1.
pub struct Driver {
    addr: Addr,
    jobs: BTreeMap<u64, Job>,
    next_job: u64,
    certified: BTreeSet<[u8; 32]>,
    refused: BTreeMap<[u8; 32], Code>,
    tally: Tally,
}

impl Driver {
    /// Without a batch.
    pub fn new(addr: Addr, tally: Tally) -> Self {
        Driver { addr, jobs: BTreeMap::new(), next_job: 1, certified: BTreeSet::new(), refused: BTreeMap::new(), tally }
    }

    /// Its process has died: what was under way is forgotten, and answers to it are nobody's.
    pub fn crashed(&mut self) {
        self.jobs.clear();
        self.certified.clear();
        self.refused.clear();
    }

    /// The orders of a batch that is under way.
    pub fn ids(&self, number: u64) -> &[[u8; 32]] {
        self.jobs.get(&number).map_or(&[], |job| &job.ids)
    }

    /// Whether it has had a certificate for an order.
    pub fn has_certified(&self, id: &[u8; 32]) -> bool {
        self.certified.contains(id)
    }

    /// Why an order was refused last.
    pub fn refusal(&self, id: &[u8; 32]) -> Option<Code> {
        self.refused.get(id).copied()
    }

    /// Begins with a batch for one shard: envelopes and their ids.
    pub fn submit(&mut self, world: &mut World, shard: u32, orders: Vec<(Bytes, [u8; 32])>) {
        let (orders, ids) = orders.into_iter().unzip();
        let quorum = Quorum::new(world.committee.clone(), orders);
        self.begin(world, shard, quorum, ids);
    }

    /// Begins with a batch whose senders have signed its root.
    pub fn submit_sealed(&mut self, world: &mut World, shard: u32, sealed: Sealed) {
        let ids = sealed.own_orders().iter().map(|order| order.id).collect();
        let quorum = Quorum::distilled(world.committee.clone(), sealed);
        self.begin(world, shard, quorum, ids);
    }

    fn begin(&mut self, world: &mut World, shard: u32, quorum: Result<Quorum>, ids: Vec<[u8; 32]>) {
        let quorum = match quorum {
            Ok(quorum) => quorum,
            Err(e) => return world.violation(Rule::FalseBelief, format!("the quorum driver refuses a batch: {e}")),
        };
        let number = self.next_job;
        self.next_job += 1;
        self.jobs.insert(number, Job { quorum, shard, started: world.now, ids });
        self.ask(world, number);
        wake(world, self.addr, 30 * MS, 90 * MS, number);
    }

    /// An answer for one of the batches. Returns what became of its orders, if that ends it.
    pub fn on_message(&mut self, world: &mut World, envelope: Envelope) -> Vec<Outcome> {
        let Addr::Shard(authority, _) = envelope.from else { return Vec::new() };
        let Some(job) = self.jobs.get_mut(&envelope.id) else { return Vec::new() };
        match envelope.body {
            Body::Voted(reply) => job.quorum.on_vote(authority as usize, reply),
            Body::Settled(reply) => job.quorum.on_settle(authority as usize, reply),
            _ => return Vec::new(),
        }
        let culprits: Vec<u32> = job.quorum.culprits().iter().map(|(a, _)| *a as u32).collect();
        if let Some(honest) = culprits.iter().find(|a| !world.byzantine.contains(a)) {
            world.violation(Rule::FalseBelief, format!("the quorum driver blames honest authority {honest}"));
        }
        self.drive(world, envelope.id)
    }

    /// The timer of a batch.
    pub fn on_timer(&mut self, world: &mut World, number: u64) -> Vec<Outcome> {
        let outcomes = self.drive(world, number);
        self.ask(world, number);
        if self.jobs.contains_key(&number) {
            wake(world, self.addr, 60 * MS, 200 * MS, number);
        }
        outcomes
    }

    /// Sends each authority what the driver wants it to get.
    fn ask(&mut self, world: &mut World, number: u64) {
        let Some(job) = self.jobs.get(&number) else { return };
        for authority in 0..world.committee.size() {
            let body = match job.quorum.wanted(authority) {
                None => continue,
                Some(Send::Vote { .. }) => Body::Vote(job.quorum.orders_for(authority)),
                Some(Send::Settle { with_orders, .. }) => {
                    let Some(certificate) = job.quorum.certificate() else { continue };
                    let orders = if with_orders { job.quorum.orders().to_vec() } else { Vec::new() };
                    Body::Settle(certificate.clone(), orders)
                }
            };
            world.send(self.addr, Addr::Shard(authority as u32, job.shard), number, body);
        }
    }

    /// Moves a batch on, if it can be.
    fn drive(&mut self, world: &mut World, number: u64) -> Vec<Outcome> {
        let Some(job) = self.jobs.get_mut(&number) else { return Vec::new() };
        let age = world.now - job.started;
        if job.quorum.certificate().is_none() {
            let enough = job.quorum.decided() || age > LINGER && job.quorum.certifiable();
            if enough && job.quorum.certify() {
                self.note_certified(world, number);
                self.ask(world, number);
            } else if enough || age > PATIENCE {
                return self.finish(world, number);
            }
        } else if job.quorum.is_final() || age > 3 * PATIENCE {
            // A liar's vote can certify an order and not the one before it, which then has to go into another batch.
            return self.finish(world, number);
        }
        Vec::new()
    }

    fn note_certified(&mut self, world: &mut World, number: u64) {
        let Some(job) = self.jobs.get(&number) else { return };
        let certified: Vec<[u8; 32]> = (job.quorum.outcomes().iter().zip(&job.ids))
            .filter(|(outcome, _)| outcome.as_ref().is_err_and(|e| e.code == Code::NotFinal))
            .map(|(_, id)| *id)
            .collect();
        if certified.len() < job.ids.len() {
            world.mark("certificate for a part of a batch");
        }
        for id in certified {
            world.checks.believed_certified(id);
            if world.checks.honest_voters(&id) < world.committee.quorum() {
                world.mark("certificate that needed a liar's vote");
            }
            if self.certified.insert(id) {
                self.tally.add(|c| c.certified += 1);
            }
        }
    }

    /// Takes the outcomes of a batch; what is not final goes into another one.
    fn finish(&mut self, world: &mut World, number: u64) -> Vec<Outcome> {
        let Some(job) = self.jobs.remove(&number) else { return Vec::new() };
        if job.quorum.took_root() > 0 && job.quorum.any_final() {
            world.mark("orders final by a signed root");
            if job.quorum.took_root() < job.quorum.votes() {
                world.mark("signed root taken by some alone");
            }
        }
        let outcomes = job.quorum.outcomes().into_iter().zip(job.ids);
        outcomes.map(|(outcome, id)| (id, self.is_final(world, id, outcome))).collect()
    }

    fn is_final(&mut self, world: &mut World, id: [u8; 32], outcome: Result<wire::Receipt>) -> bool {
        match outcome {
            Ok(proof) => {
                if let Err(e) = receipt::verify(&world.committee, &proof) {
                    world.violation(Rule::FalseBelief, format!("a final order has a bad receipt: {e}"));
                }
                world.checks.believed_final(id);
                return true;
            }
            Err(e) if matches!(e.code, Code::NotFinal | Code::QuorumUnreachable) => {}
            Err(e) => {
                self.refused.insert(id, e.code);
                self.tally.add(|c| c.refused += 1);
            }
        }
        false
    }
}
