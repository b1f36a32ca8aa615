//! Wallets, and workers that batch several wallets' orders and keep each until it is final; admins of networks are
//! wallets too.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use florin_core::content::Credit;
use florin_core::keys::SecretKey;

use crate::calls;
use crate::client::{Client, Purse, Wish, new_key, payee, wake};
use crate::driver::{Driver, Outcome, Tally};
use crate::message::{Addr, Envelope};
use crate::pbtx::admin::Admin;
use crate::profile::Part;
use crate::world::{MS, World};

/// Tag of the timer that makes new payments; others are numbers of jobs.
const TICK: u64 = 0;
/// Orders that a wallet may have on their way.
const CHAIN_MAX: usize = 6;

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
    admin: Option<Admin>,
}

/// One program with one wallet (a wallet) or with several (a worker).
pub struct Worker {
    addr: Addr,
    wallets: Vec<Wallet>,
    driver: Driver,
    tally: Tally,
}

impl Worker {
    /// A program with these accounts and what each may spend.
    pub fn new(addr: Addr, purses: Vec<(Purse, i128)>, tally: Tally) -> Self {
        let wallet = |(purse, available)| Wallet { purse, available, chain: VecDeque::new(), admin: None };
        let wallets = purses.into_iter().map(wallet).collect();
        Worker { addr, wallets, driver: Driver::new(addr, tally.clone()), tally }
    }

    /// A program of those who administer networks, and do nothing else.
    pub fn of_admins(addr: Addr, admins: Vec<(Purse, Admin)>, tally: Tally) -> Self {
        let wallet = |(purse, admin)| Wallet { purse, available: 0, chain: VecDeque::new(), admin: Some(admin) };
        let wallets = admins.into_iter().map(wallet).collect();
        Worker { addr, wallets, driver: Driver::new(addr, tally.clone()), tally }
    }

    fn make_payments(&mut self, world: &mut World) {
        for at in 0..self.wallets.len() {
            if self.wallets[at].admin.is_some() {
                self.administer(world, at);
                continue;
            }
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

    /// The next command of an admin, once the last one is final.
    fn administer(&mut self, world: &mut World, at: usize) {
        let wallet = &mut self.wallets[at];
        if wallet.chain.is_empty()
            && let Some(admin) = &mut wallet.admin
            && let Some(commands) = admin.next(world)
        {
            self.sign(world, at, Wish::Call(Vec::new(), commands));
        }
    }

    /// Contracts that nobody claimed go back to their senders, so that nothing is open in the end.
    fn take_back(&mut self, world: &mut World) {
        for at in 0..self.wallets.len() {
            if self.wallets[at].admin.is_some() {
                self.administer(world, at);
                continue;
            }
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
        if world.rng.chance(220) && world.has(Part::Calls) {
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
            Wish::Call(..) | Wish::Recover | Wish::Withdraw(_) | Wish::Bls(_) => (Vec::new(), None),
        };
        wallet.chain.push_back(Pending {
            raw: order.raw,
            id: order.id,
            credits,
            rekey,
            in_job: false,
            is_final: false,
        });
        self.tally.add(|c| c.signed += 1);
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
            let mut orders = Vec::new();
            for (at, place) in places {
                let pending = &mut self.wallets[at].chain[place];
                pending.in_job = true;
                orders.push((pending.raw.clone(), pending.id));
            }
            self.driver.submit(world, shard, orders);
        }
    }

    /// Takes the outcomes of a batch; what is not final goes into another one.
    fn take(&mut self, world: &mut World, outcomes: Vec<Outcome>) {
        for (id, is_final) in outcomes {
            let mut all = self.wallets.iter_mut().flat_map(|w| &mut w.chain);
            if let Some(pending) = all.find(|p| p.id == id) {
                (pending.in_job, pending.is_final) = (false, pending.is_final || is_final);
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
                self.tally.add(|c| c.finals += 1);
            }
        }
    }
}

impl Client for Worker {
    fn start(&mut self, world: &mut World) {
        wake(world, self.addr, 20 * MS, 200 * MS, TICK);
    }

    fn on_message(&mut self, world: &mut World, envelope: Envelope) {
        let outcomes = self.driver.on_message(world, envelope);
        self.take(world, outcomes);
    }

    fn on_timer(&mut self, world: &mut World, tag: u64) {
        if tag != TICK {
            let outcomes = self.driver.on_timer(world, tag);
            return self.take(world, outcomes);
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
