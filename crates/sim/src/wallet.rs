//! Wallets, and workers that batch several wallets' orders: they drive the quorum driver through the
//! simulated network, and keep every order until it is final.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use florin_client::quorum::{Quorum, Send};
use florin_core::content::Credit;
use florin_core::keys::SecretKey;
use florin_core::{Code, receipt};

use crate::calls;
use crate::checkers::Rule;
use crate::client::{Client, Purse, Wish, new_key, payee, wake};
use crate::message::{Addr, Body, Envelope};
use crate::world::{MS, Micros, SECOND, World};

/// Tag of the timer that makes new payments; others are numbers of jobs.
const TICK: u64 = 0;
/// Orders that a wallet may have on their way.
const CHAIN_MAX: usize = 6;
/// A worker waits this long for more votes once some order has enough.
const LINGER: Micros = 150 * MS;
/// It gives a batch up after this, and its orders go into others.
const PATIENCE: Micros = 2 * SECOND;

/// What became of payments.
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

struct Pending {
    raw: Bytes,
    id: [u8; 32],
    credits: Vec<Credit>,
    rekey: Option<SecretKey>,
    in_job: bool,
    is_final: bool,
}

struct Wallet {
    purse: Purse,
    /// What it may spend as far as it knows, minor units.
    available: i128,
    chain: VecDeque<Pending>,
}

struct Job {
    quorum: Quorum,
    shard: u32,
    started: Micros,
    /// Wallet of each order.
    owners: Vec<usize>,
    ids: Vec<[u8; 32]>,
}

/// One program with one wallet (a wallet) or with several (a worker).
pub struct Worker {
    addr: Addr,
    wallets: Vec<Wallet>,
    jobs: BTreeMap<u64, Job>,
    next_job: u64,
    certified: BTreeSet<[u8; 32]>,
    counts: std::rc::Rc<std::cell::Cell<Counts>>,
}

impl Worker {
    /// A program with these accounts and what each may spend.
    pub fn new(addr: Addr, purses: Vec<(Purse, i128)>, counts: std::rc::Rc<std::cell::Cell<Counts>>) -> Self {
        let wallets =
            purses.into_iter().map(|(purse, available)| Wallet { purse, available, chain: VecDeque::new() }).collect();
        Worker { addr, wallets, jobs: BTreeMap::new(), next_job: 1, certified: BTreeSet::new(), counts }
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    fn make_payments(&mut self, world: &mut World) {
        for at in 0..self.wallets.len() {
            let address = self.wallets[at].purse.address;
            self.wallets[at].available += world.income.remove(&address).unwrap_or(0);
            for _ in 0..world.rng.below(4) {
                let wallet = &self.wallets[at];
                let full = wallet.chain.len() >= CHAIN_MAX || wallet.chain.iter().any(|p| p.rekey.is_some());
                if !full && let Some(wish) = self.wish(world, at) {
                    self.sign(world, at, wish);
                }
            }
        }
    }

    /// Contracts that nobody claimed go back to their senders, so that nothing is open in the end.
    fn take_back(&mut self, world: &mut World) {
        for at in 0..self.wallets.len() {
            let wallet = &self.wallets[at];
            if wallet.chain.is_empty()
                && let Some(deal) = calls::expired(world, &wallet.purse.address)
            {
                self.sign(world, at, calls::refund(&deal));
            }
        }
    }

    fn wish(&mut self, world: &mut World, at: usize) -> Option<Wish> {
        if world.rng.chance(40) {
            return Some(Wish::Rekey(new_key(&mut world.rng)));
        }
        if world.rng.chance(220) {
            let wallet = &mut self.wallets[at];
            if let Some((wish, debit)) = calls::wish(world, &wallet.purse, wallet.available) {
                wallet.available -= i128::from(debit);
                return Some(wish);
            }
        }
        let mut credits = Vec::new();
        for _ in 0..world.rng.between(1, 3) {
            let available = u64::try_from(self.wallets[at].available).unwrap_or(0);
            // Now and then everything: then what comes next rests on credits that must have arrived.
            let amount = if world.rng.chance(100) { available } else { world.rng.below(available.min(500) + 1) };
            if amount > 0 {
                credits.push(Credit { address: payee(world), amount });
                self.wallets[at].available -= i128::from(amount);
            }
        }
        (!credits.is_empty()).then_some(Wish::Pay(credits))
    }

    fn sign(&mut self, world: &mut World, at: usize, wish: Wish) {
        let wallet = &mut self.wallets[at];
        let order = wallet.purse.draft(&wish);
        wallet.purse.advance(&order);
        if let Wish::Call(_, outputs) = &wish {
            calls::note_contracts(world, &order.id, outputs);
        }
        let (credits, rekey) = match wish {
            Wish::Pay(credits) => (credits, None),
            Wish::Rekey(key) => (Vec::new(), Some(key)),
            // What a CALL credits is known when the log has decided.
            Wish::Call(..) | Wish::Recover => (Vec::new(), None),
        };
        wallet.chain.push_back(Pending {
            raw: order.raw,
            id: order.id,
            credits,
            rekey,
            in_job: false,
            is_final: false,
        });
        self.count(|c| c.signed += 1);
    }

    /// Puts every order that is in no batch into one, by shard.
    fn make_jobs(&mut self, world: &mut World) {
        let shards = world.committee.shards;
        let mut batches: BTreeMap<(u32, u64), Vec<(usize, usize)>> = BTreeMap::new();
        for (at, wallet) in self.wallets.iter().enumerate() {
            let shard = wallet.purse.shard(shards);
            let split = world.rng.chance(200);
            for (place, _) in wallet.chain.iter().enumerate().filter(|(_, p)| !p.in_job && !p.is_final) {
                let part = if split { 1 + place as u64 + 100 * at as u64 } else { 0 };
                batches.entry((shard, part)).or_default().push((at, place));
            }
        }
        for ((shard, _), places) in batches {
            let mut job_orders = Vec::new();
            let mut owners = Vec::new();
            let mut ids = Vec::new();
            for (at, place) in places {
                let pending = &mut self.wallets[at].chain[place];
                pending.in_job = true;
                job_orders.push(pending.raw.clone());
                owners.push(at);
                ids.push(pending.id);
            }
            let quorum = match Quorum::new(world.committee.clone(), job_orders) {
                Ok(quorum) => quorum,
                Err(e) => return world.violation(Rule::FalseBelief, format!("the quorum driver refuses a batch: {e}")),
            };
            let number = self.next_job;
            self.next_job += 1;
            self.jobs.insert(number, Job { quorum, shard, started: world.now, owners, ids });
            self.ask(world, number);
            wake(world, self.addr, 30 * MS, 90 * MS, number);
        }
    }

    /// Sends each authority what the driver wants it to get.
    fn ask(&mut self, world: &mut World, number: u64) {
        let Some(job) = self.jobs.get(&number) else { return };
        for authority in 0..world.committee.size() {
            let body = match job.quorum.wanted(authority) {
                None => continue,
                Some(Send::Vote { .. }) => Body::Vote(job.quorum.orders().to_vec()),
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
    fn drive(&mut self, world: &mut World, number: u64) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        let age = world.now - job.started;
        if job.quorum.certificate().is_none() {
            let enough = job.quorum.decided() || age > LINGER && job.quorum.certifiable();
            if enough && job.quorum.certify() {
                self.note_certified(world, number);
                self.ask(world, number);
            } else if enough || age > PATIENCE {
                self.finish(world, number);
            }
        } else if job.quorum.is_final() {
            self.finish(world, number);
        }
    }

    fn note_certified(&mut self, world: &mut World, number: u64) {
        let Some(job) = self.jobs.get(&number) else { return };
        let certified: Vec<[u8; 32]> = (job.quorum.outcomes().iter().zip(&job.ids))
            .filter(|(outcome, _)| outcome.as_ref().is_err_and(|e| e.code == Code::NotFinal))
            .map(|(_, id)| *id)
            .collect();
        for id in certified {
            world.checks.believed_certified(id);
            if self.certified.insert(id) {
                self.count(|c| c.certified += 1);
            }
        }
    }

    /// Takes the outcomes of a batch; what is not final goes into another one.
    fn finish(&mut self, world: &mut World, number: u64) {
        let Some(job) = self.jobs.remove(&number) else { return };
        for ((outcome, at), id) in job.quorum.outcomes().into_iter().zip(&job.owners).zip(&job.ids) {
            let wallet = &mut self.wallets[*at];
            let Some(pending) = wallet.chain.iter_mut().find(|p| p.id == *id) else { continue };
            pending.in_job = false;
            match outcome {
                Ok(proof) => {
                    pending.is_final = true;
                    if let Err(e) = receipt::verify(&world.committee, &proof) {
                        world.violation(Rule::FalseBelief, format!("a final order has a bad receipt: {e}"));
                    }
                    world.checks.believed_final(*id);
                }
                Err(e) if matches!(e.code, Code::NotFinal | Code::QuorumUnreachable) => {}
                Err(_) => self.count(|c| c.refused += 1),
            }
        }
        for wallet in &mut self.wallets {
            while wallet.chain.front().is_some_and(|p| p.is_final) {
                let Some(done) = wallet.chain.pop_front() else { break };
                for credit in &done.credits {
                    *world.income.entry(credit.address).or_default() += i128::from(credit.amount);
                }
                if let Some(key) = done.rekey {
                    wallet.purse.key = key;
                }
                let mut counts = self.counts.get();
                counts.finals += 1;
                self.counts.set(counts);
            }
        }
    }
}

impl Client for Worker {
    fn start(&mut self, world: &mut World) {
        wake(world, self.addr, 20 * MS, 200 * MS, TICK);
    }

    fn on_message(&mut self, world: &mut World, envelope: Envelope) {
        let Addr::Shard(authority, _) = envelope.from else { return };
        let Some(job) = self.jobs.get_mut(&envelope.id) else { return };
        match envelope.body {
            Body::Voted(reply) => job.quorum.on_vote(authority as usize, reply),
            Body::Settled(reply) => job.quorum.on_settle(authority as usize, reply),
            _ => return,
        }
        let culprits: Vec<u32> = job.quorum.culprits().iter().map(|(a, _)| *a as u32).collect();
        if let Some(honest) = culprits.iter().find(|a| !world.byzantine.contains(a)) {
            world.violation(Rule::FalseBelief, format!("the quorum driver blames honest authority {honest}"));
        }
        self.drive(world, envelope.id);
    }

    fn on_timer(&mut self, world: &mut World, tag: u64) {
        if tag != TICK {
            self.drive(world, tag);
            self.ask(world, tag);
            if self.jobs.contains_key(&tag) {
                wake(world, self.addr, 60 * MS, 200 * MS, tag);
            }
            return;
        }
        match world.calm {
            false => self.make_payments(world),
            true => self.take_back(world),
        }
        self.make_jobs(world);
        wake(world, self.addr, 50 * MS, 500 * MS, TICK);
    }

    fn unfinished(&self) -> Option<String> {
        let open: usize = self.wallets.iter().map(|w| w.chain.len()).sum();
        (open > 0).then(|| format!("{:?} waits for {open} orders", self.addr))
    }
}
