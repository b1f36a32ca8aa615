//! Actors of PBTX networks, through one worker: chained transactions with cosignors, and changes of their keys. What
//! is refused while an actor is frozen or removed, or a precheck is set, is signed again and comes through in the end.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use florin_core::content::TYPE_ROTATE;
use florin_core::envelope::{Body, encode_body, next_hash, order_id};

use super::{Net, rotation, sign};
use crate::client::{Client, wake};
use crate::driver::{Driver, Outcome, Tally};
use crate::message::{Addr, Envelope};
use crate::world::{MS, World};

/// Tag of the timer that makes transactions; others are numbers of batches.
const TICK: u64 = 0;
/// Transactions that an actor may have on their way.
const CHAIN_MAX: usize = 4;

struct Transaction {
    body: Bytes,
    id: [u8; 32],
    /// The actor, and its cosignors.
    signers: Vec<u64>,
    rotates: bool,
    in_job: bool,
    is_final: bool,
}

struct Sender {
    net: Net,
    actor: u64,
    seqnum: u32,
    prev_hash: u64,
    chain: VecDeque<Transaction>,
}

/// All honest actors.
pub struct Actors {
    addr: Addr,
    senders: Vec<Sender>,
    driver: Driver,
    tally: Tally,
}

/// Transactions of one batch, with their ids.
type Batch = Vec<(Bytes, [u8; 32])>;

impl Actors {
    /// The honest actors of these networks.
    pub fn new(addr: Addr, networks: &[Net], tally: Tally) -> Self {
        let sender =
            |net: &Net, actor| Sender { net: net.clone(), actor, seqnum: 0, prev_hash: 0, chain: VecDeque::new() };
        let senders = networks.iter().flat_map(|net| net.actors.iter().map(|actor| sender(net, *actor))).collect();
        Actors { addr, senders, driver: Driver::new(addr, tally.clone()), tally }
    }

    fn make_transactions(&mut self, world: &mut World) {
        for sender in &mut self.senders {
            // Some can't wait for their network.
            let known = world.checks.log.registry().networks.get(sender.net.id).is_some();
            for _ in 0..if known || world.rng.chance(50) { world.rng.below(3) } else { 0 } {
                let full = sender.chain.len() >= CHAIN_MAX || sender.chain.iter().any(|t| t.rotates);
                if !full {
                    sender.next(world);
                    self.tally.add(|c| c.signed += 1);
                }
            }
        }
    }

    /// Puts every transaction that is in no batch into one, by shard.
    fn make_jobs(&mut self, world: &mut World) {
        let mut batches: BTreeMap<(u32, usize), Batch> = BTreeMap::new();
        for (at, sender) in self.senders.iter_mut().enumerate() {
            let network = sender.net.id;
            let shard = (network % u64::from(world.committee.shards)) as u32;
            // Who knows that it is refused now does not ask all the time.
            let actor = world.checks.log.registry().networks.actor(network, sender.actor);
            if actor.is_none_or(|a| a.frozen) && world.rng.chance(800) {
                continue;
            }
            let part = if world.rng.chance(200) { 1 + at } else { 0 };
            for t in sender.chain.iter_mut().filter(|t| !t.in_job && !t.is_final) {
                t.in_job = true;
                let raw = sign(world, network, &t.body, &t.signers);
                batches.entry((shard, part)).or_default().push((raw, t.id));
            }
        }
        for ((shard, _), orders) in batches {
            self.driver.submit(world, shard, orders);
        }
    }

    fn take(&mut self, outcomes: Vec<Outcome>) {
        for (id, is_final) in outcomes {
            let mut all = self.senders.iter_mut().flat_map(|s| &mut s.chain);
            if let Some(t) = all.find(|t| t.id == id) {
                (t.in_job, t.is_final) = (false, t.is_final || is_final);
            }
        }
        for sender in &mut self.senders {
            while sender.chain.front().is_some_and(|t| t.is_final) {
                sender.chain.pop_front();
                self.tally.add(|c| c.finals += 1);
            }
        }
    }
}

impl Sender {
    /// Signs nothing yet, but fixes what it will say.
    fn next(&mut self, world: &mut World) {
        let rotates = self.net.counts() && world.rng.chance(60);
        let (transaction_type, content) = if rotates {
            (TYPE_ROTATE, rotation(world, self.net.id, self.actor))
        } else {
            let length = world.rng.index(20);
            // Types of the payment network mean nothing here.
            (world.rng.below(9) as u32, Bytes::copy_from_slice(&world.rng.bytes()[..length]))
        };
        let cosignors: Vec<u64> = self.net.actors.iter().copied().filter(|a| *a != self.actor).collect();
        let count = if world.rng.chance(250) { world.rng.index(cosignors.len() + 1) } else { 0 };
        let cosignors = cosignors[..count].to_vec();
        self.seqnum += 1;
        let counts = self.net.counts();
        let body = encode_body(&Body {
            network_id: self.net.id,
            actor: self.actor,
            cosignors: cosignors.clone(),
            // Where nobody counts, numbers and links are what they like.
            seqnum: if counts { self.seqnum } else { world.rng.below(3) as u32 },
            prev_hash: if counts { self.prev_hash } else { world.rng.below(9) },
            transaction_type,
            content,
        });
        let id = order_id(&body);
        self.prev_hash = next_hash(&id);
        // The same words twice are one order where nobody counts.
        if self.chain.iter().all(|t| t.id != id) {
            let signers = std::iter::once(self.actor).chain(cosignors).collect();
            self.chain.push_back(Transaction { body, id, signers, rotates, in_job: false, is_final: false });
        }
    }
}

impl Client for Actors {
    fn start(&mut self, world: &mut World) {
        wake(world, self.addr, 20 * MS, 200 * MS, TICK);
    }

    fn on_message(&mut self, world: &mut World, envelope: Envelope) {
        let outcomes = self.driver.on_message(world, envelope);
        self.take(outcomes);
    }

    fn on_timer(&mut self, world: &mut World, tag: u64) {
        if tag != TICK {
            let outcomes = self.driver.on_timer(world, tag);
            return self.take(outcomes);
        }
        if !world.calm {
            self.make_transactions(world);
        }
        self.make_jobs(world);
        for sender in &self.senders {
            // Their admins hear of what gets no votes any more.
            let of = (sender.net.id, sender.actor);
            match (sender.chain.front().map(|t| t.id), world.pbtx.fronts.get(&of)) {
                (Some(id), Some((known, _))) if *known == id => {}
                (Some(id), _) => drop(world.pbtx.fronts.insert(of, (id, world.now))),
                (None, _) => drop(world.pbtx.fronts.remove(&of)),
            }
        }
        wake(world, self.addr, 150 * MS, 700 * MS, TICK);
    }

    fn unfinished(&self) -> Option<String> {
        let open: usize = self.senders.iter().map(|s| s.chain.len()).sum();
        (open > 0).then(|| format!("{:?} waits for {open} transactions", self.addr))
    }
}
