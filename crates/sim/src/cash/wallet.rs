//! A wallet with notes: it withdraws, reissues, pays with change, gives notes away and takes some, and crashes whenever it
//! likes. What it goes on with is what it had written down before it sent anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use florin_core::cash::blind::SignatureShare;
use florin_core::cash::combine::{Request, combine_all};
use florin_core::cash::derive::{CashSeed, NoteSecrets};
use florin_core::cash::mint_keys::MintKeys;
use florin_core::content::Credit;
use florin_core::{Code, wire};

use super::{Asked, Coin, Gift, Lock, bearer, tiers_of};
use crate::checkers::Rule;
use crate::checkers::cash::Held;
use crate::client::{Client, Purse, Wish, payee, wake};
use crate::driver::{Driver, Tally};
use crate::message::{Addr, Body, Envelope};
use crate::world::{LOG_RATE, MS, SECOND, World};

/// Tag of the timer with which it does something; others are numbers of jobs.
const TICK: u64 = 0;
/// Orders that it may have on their way.
const ORDERS_MAX: usize = 4;
/// Of its seed: the key to which others lock notes.
const RECEIVER: u64 = 1 << 40;

type Id = [u8; 32];

/// An order that is written down.
struct Order {
    raw: Bytes,
    id: Id,
    shard: u32,
    asked: Vec<Asked>,
    spends: Vec<Coin>,
    credits: Vec<Credit>,
}

/// What a crash leaves.
struct Journal {
    purse: Purse,
    /// What its account has, as far as it knows, minor units.
    available: i128,
    /// The next note of its seed.
    next: u64,
    orders: Vec<Order>,
    coins: Vec<Coin>,
    /// Locked notes that it has given away, and can take back.
    given: Vec<Coin>,
    /// Notes locked to it that it has not spent yet: nobody else can before their date.
    kept: Vec<Coin>,
}

/// What a crash takes.
#[derive(Default)]
struct Memory {
    in_job: BTreeSet<Id>,
    finals: BTreeSet<Id>,
    /// By blinded nonce and tier: shares by authority.
    shares: BTreeMap<(Bytes, u32), BTreeMap<u32, Bytes>>,
    /// Who has given a share that was none.
    liars: BTreeSet<u32>,
    /// What was asked for with `Notes`, of whom.
    questions: BTreeMap<u64, (u32, Vec<(Bytes, u32)>)>,
}

/// One wallet.
pub struct CashWallet {
    addr: Addr,
    seed: CashSeed,
    keys: Arc<MintKeys>,
    receiver: Arc<NoteSecrets>,
    disk: Journal,
    memory: Memory,
    driver: Driver,
    tally: Tally,
    /// Orders that were final here when it crashed, without their notes.
    unlucky: BTreeSet<Id>,
    down_until: u64,
    questions: u64,
}

impl CashWallet {
    /// A wallet with an account that has so much.
    pub fn new(world: &mut World, addr: Addr, purse: Purse, available: i128, tally: Tally) -> CashWallet {
        let seed = CashSeed::new(&world.rng.bytes(), purse.network_id);
        let receiver = Arc::new(seed.note(RECEIVER));
        world.cash.receivers.push((addr, receiver.clone()));
        let disk = Journal {
            purse,
            available,
            next: 1,
            orders: Vec::new(),
            coins: Vec::new(),
            given: Vec::new(),
            kept: Vec::new(),
        };
        let driver = Driver::new(addr, Tally::default());
        let (memory, unlucky) = (Memory::default(), BTreeSet::new());
        let keys = world.cash.keys[0].clone();
        CashWallet { addr, seed, keys, receiver, disk, memory, driver, tally, unlucky, down_until: 0, questions: 0 }
    }

    fn crash(&mut self, world: &mut World) {
        world.fault("crashes of cash wallets");
        self.unlucky.extend(self.memory.finals.iter().copied());
        self.memory = Memory::default();
        self.driver.crashed();
        self.down_until = world.now + world.rng.between(50 * MS, 800 * MS);
    }

    fn ask(&mut self, world: &mut World, tiers: &[u32], lock: Option<&(wire::NoteLock, Addr)>) -> Vec<Asked> {
        world.cash.asked += tiers.len() as u64;
        let mut make = |tier: &u32| {
            let secrets = Arc::new(self.seed.note(self.disk.next));
            self.disk.next += 1;
            let lock = lock.map(|(lock, to)| {
                let sender = Bytes::copy_from_slice(&secrets.nonce().0);
                (wire::NoteLock { sender, ..lock.clone() }, *to)
            });
            let asked = Asked::new(*tier, secrets, lock);
            world.checks.cash.made(asked.bytes(), asked.nonce().0);
            world.cash.requests.push((asked.tier, asked.bytes()));
            asked
        };
        tiers.iter().map(&mut make).collect()
    }

    /// Writes an order down that spends notes; it goes out with the next batch.
    fn spend(&mut self, world: &mut World, coins: Vec<Coin>, credits: Vec<Credit>, asked: Vec<Asked>) {
        let (raw, id) = bearer(world, &coins, &credits, &asked);
        world.checks.cash.owned(id);
        self.disk.orders.push(Order { raw, id, shard: 0, asked, spends: coins, credits });
        self.tally.add(|c| c.signed += 1);
    }

    fn withdraw(&mut self, world: &mut World) {
        let amount = world.rng.between(3, 21);
        let tiers = tiers_of(amount);
        let busy = self.disk.orders.iter().any(|o| o.spends.is_empty());
        if busy || self.disk.available < i128::from(amount) || !world.cash.allows(tiers.len()) {
            return;
        }
        let asked = self.ask(world, &tiers, None);
        let order = self.disk.purse.draft(&Wish::Withdraw(asked.iter().map(Asked::request).collect()));
        self.disk.purse.advance(&order);
        self.disk.available -= i128::from(amount);
        let shard = self.disk.purse.shard(world.committee.shards);
        let (spends, credits) = (Vec::new(), Vec::new());
        world.checks.cash.owned(order.id);
        self.disk.orders.push(Order { raw: order.raw, id: order.id, shard, asked, spends, credits });
        self.tally.add(|c| c.signed += 1);
    }

    /// Some of its notes, and what they are worth.
    fn some(&mut self, world: &mut World, most: usize) -> Option<(Vec<Coin>, u64)> {
        let count = world.rng.index(most.min(self.disk.coins.len()) + 1);
        if count == 0 {
            return None;
        }
        let at = world.rng.index(self.disk.coins.len() - count + 1);
        let coins: Vec<Coin> = self.disk.coins.drain(at..at + count).collect();
        let worth = coins.iter().map(Coin::worth).sum();
        Some((coins, worth))
    }

    fn other(&self, world: &mut World) -> Option<(Addr, Arc<NoteSecrets>)> {
        let at = world.rng.index(world.cash.receivers.len());
        Some(world.cash.receivers[at].clone()).filter(|(addr, _)| *addr != self.addr)
    }

    /// Pays somebody's account, and has the rest back as notes.
    fn pay(&mut self, world: &mut World) {
        let Some((coins, worth)) = self.some(world, 4) else { return };
        let amount = if world.rng.chance(300) { worth } else { world.rng.between(1, worth) };
        let tiers = tiers_of(worth - amount);
        if !world.cash.allows(tiers.len()) {
            return self.disk.coins.extend(coins);
        }
        let change = self.ask(world, &tiers, None);
        let credit = Credit { address: payee(world), amount };
        self.spend(world, coins, vec![credit], change);
    }

    /// Gives notes to another wallet: as they are, or new ones that are locked to it.
    fn send(&mut self, world: &mut World) {
        let Some((to, receiver)) = self.other(world) else { return };
        let Some((coins, worth)) = self.some(world, 2) else { return };
        if world.rng.chance(350) {
            let tiers = tiers_of(worth);
            if !world.cash.allows(tiers.len()) {
                return self.disk.coins.extend(coins);
            }
            let after_ms = world.true_ms() + world.rng.between(200, 4_000) * LOG_RATE;
            let receiver = Bytes::copy_from_slice(&receiver.nonce().0);
            let lock = (wire::NoteLock { receiver, sender: Bytes::new(), after_ms }, to);
            let asked = self.ask(world, &tiers, Some(&lock));
            return self.spend(world, coins, Vec::new(), asked);
        }
        let contest = |world: &mut World| coins.iter().for_each(|c| world.checks.cash.contest(c.nonce().0));
        match (world.rng.below(10), world.cash.cheat) {
            // Everybody gets the same ones.
            (0, _) => {
                world.fault("notes thrown into the crowd");
                contest(world);
                let all: Vec<Addr> = world.cash.receivers.iter().map(|(addr, _)| *addr).collect();
                all.into_iter().for_each(|to| world.cash.give(to, coins.clone()));
            }
            (1..5, Some(cheat)) => {
                contest(world);
                world.cash.give(cheat, coins);
            }
            _ => world.cash.give(to, coins),
        }
    }

    fn reissue(&mut self, world: &mut World) {
        let Some((coins, worth)) = self.some(world, 3) else { return };
        self.exchange(world, coins, worth);
    }

    /// New notes for old ones, or money where no more notes may be made.
    fn exchange(&mut self, world: &mut World, coins: Vec<Coin>, worth: u64) {
        let tiers = tiers_of(worth);
        if !world.cash.allows(tiers.len()) || world.rng.chance(200) {
            let credit = Credit { address: self.disk.purse.address, amount: worth };
            return self.spend(world, coins, vec![credit], Vec::new());
        }
        let asked = self.ask(world, &tiers, None);
        self.spend(world, coins, Vec::new(), asked);
    }

    /// Takes what others have given: what is no note is not taken, the rest is made its own at once.
    fn receive(&mut self, world: &mut World) {
        for Gift { coins } in world.cash.mail.remove(&self.addr).unwrap_or_default() {
            let own = |coin: &Coin| match &coin.lock {
                Some(lock) => lock.lock.receiver[..] == self.receiver.nonce().0,
                None => true,
            };
            if !coins.iter().all(|coin| own(coin) && coin.is_true(&self.keys)) {
                world.fault("gifts refused that are no notes");
                continue;
            }
            let (locked, free): (Vec<Coin>, Vec<Coin>) = coins.into_iter().partition(|coin| coin.lock.is_some());
            self.disk.kept.extend(locked);
            // One by one, so that none of them holds up the others.
            for coin in free {
                let worth = coin.worth();
                self.exchange(world, vec![coin], worth);
            }
        }
    }

    /// Spends what is locked to it, sooner or later; or takes back what it has locked to others.
    fn locked(&mut self, world: &mut World) {
        let now = world.true_ms();
        if !self.disk.kept.is_empty() && world.rng.chance(if world.calm { 600 } else { 200 }) {
            let coin = self.disk.kept.remove(0);
            let worth = coin.worth();
            self.exchange(world, vec![coin], worth);
        }
        let due = |c: &Coin| c.lock.as_ref().is_some_and(|l| now + 900 * LOG_RATE >= l.lock.after_ms);
        if let Some(at) = self.disk.given.iter().position(due)
            && world.rng.chance(120)
        {
            // Its receiver may be faster, or as fast.
            let coin = self.disk.given.remove(at);
            world.fault("locked notes taken back");
            world.checks.cash.contest(coin.nonce().0);
            let worth = coin.worth();
            self.exchange(world, vec![coin], worth);
        }
    }

    fn act(&mut self, world: &mut World) {
        if self.disk.orders.len() >= ORDERS_MAX {
            return;
        }
        match world.rng.below(10) {
            0..3 => self.withdraw(world),
            3..5 => self.pay(world),
            5 | 6 => self.reissue(world),
            _ => self.send(world),
        }
    }

    /// Puts orders that are in no batch into one, by shard; some alone.
    fn make_jobs(&mut self, world: &mut World) {
        let mut batches: BTreeMap<(u32, usize), Vec<(Bytes, Id)>> = BTreeMap::new();
        for (i, order) in self.disk.orders.iter().enumerate() {
            if !self.memory.finals.contains(&order.id) && self.memory.in_job.insert(order.id) {
                // One that holds another up must not do so for ever.
                let part = if world.rng.chance(600) { 1 + i } else { 0 };
                batches.entry((order.shard, part)).or_default().push((order.raw.clone(), order.id));
            }
        }
        for ((shard, _), orders) in batches {
            self.driver.submit(world, shard, orders);
        }
    }

    /// Orders that can't end any more: somebody else has the notes.
    fn give_up(&mut self, world: &mut World) {
        let late = world.cash.calm_since.is_some_and(|since| world.now > since + 8 * SECOND);
        let mut at = 0;
        while at < self.disk.orders.len() {
            let order = &self.disk.orders[at];
            let contested = order.spends.iter().any(|c| world.checks.cash.is_contested(&c.nonce().0));
            let busy = self.memory.in_job.contains(&order.id) || self.memory.finals.contains(&order.id);
            let beaten = self.driver.refusal(&order.id) == Some(Code::NoteSpent);
            if !contested || busy || self.driver.has_certified(&order.id) || !(beaten || late) {
                at += 1;
                continue;
            }
            world.checks.cash.mark(if beaten { "note spent by another wallet" } else { "note held up by two orders" });
            if world.checks.has_settled(&order.id) {
                let what =
                    format!("{:?} is told that notes are spent by another order than the one that settled", self.addr);
                world.violation(Rule::FalseBelief, what);
            }
            self.disk.orders.remove(at);
        }
    }

    /// Makes notes of what authorities have signed for final orders, and asks for what is missing.
    fn collect(&mut self, world: &mut World, asks: bool) {
        let mut at = 0;
        while at < self.disk.orders.len() {
            let order = &self.disk.orders[at];
            if !self.memory.finals.contains(&order.id) {
                at += 1;
                continue;
            }
            match self.combine(world, at) {
                Some(coins) => self.done(world, at, coins),
                None => {
                    if asks {
                        self.ask_again(world, at);
                    }
                    at += 1;
                }
            }
        }
    }

    fn combine(&mut self, world: &mut World, at: usize) -> Option<Vec<[u8; 48]>> {
        let order = &self.disk.orders[at];
        let mut requests = Vec::new();
        let mut liars = BTreeSet::new();
        for asked in &order.asked {
            let mut shares = Vec::new();
            for (authority, share) in self.memory.shares.get(&(asked.bytes(), asked.tier)).into_iter().flatten() {
                match SignatureShare::parse(share) {
                    Ok(share) => shares.push((authority + 1, share)),
                    Err(_) => drop(liars.insert(*authority)),
                }
            }
            requests.push(Request { keys: self.keys.shared(asked.tier)?, blinded: asked.blinded, shares });
        }
        let mut signatures = Vec::new();
        // Without enough of them there is nothing to compute.
        if requests.iter().all(|r| r.shares.len() >= r.keys.threshold() as usize) {
            for (asked, combined) in order.asked.iter().zip(combine_all(&requests).ok()?) {
                liars.extend(combined.liars.iter().map(|index| index - 1));
                signatures.extend(combined.signature.map(|s| asked.secrets.blinding().unblind(&s).to_bytes()));
            }
        }
        let count = order.asked.len();
        for liar in liars {
            world.checks.cash.mark("bad share found and named");
            if !world.byzantine.contains(&liar) {
                world.violation(
                    Rule::FalseBelief,
                    format!("{:?} blames honest authority {liar} for a share", self.addr),
                );
            }
            self.memory.shares.values_mut().for_each(|by| drop(by.remove(&liar)));
            self.memory.liars.insert(liar);
        }
        (signatures.len() == count).then_some(signatures)
    }

    /// An order has ended: what it made is in hand, or goes on to whom it is for.
    fn done(&mut self, world: &mut World, at: usize, signatures: Vec<[u8; 48]>) {
        let order = self.disk.orders.remove(at);
        if self.unlucky.remove(&order.id) && !order.asked.is_empty() {
            world.checks.cash.mark("wallet resumed between settle and shares");
        }
        self.memory.finals.remove(&order.id);
        for credit in &order.credits {
            *world.income.entry(credit.address).or_default() += i128::from(credit.amount);
        }
        for (asked, signature) in order.asked.into_iter().zip(signatures) {
            let coin = Coin { tier: asked.tier, key: asked.secrets, lock: None, signature };
            let Some((lock, to)) = asked.lock else {
                self.disk.coins.push(coin);
                continue;
            };
            let of = |returned| Some(Lock { lock: lock.clone(), returned });
            let receiver = world.cash.receivers.iter().find(|(addr, _)| *addr == to).map(|(_, key)| key.clone());
            if let Some(key) = receiver {
                world.cash.give(to, vec![Coin { key, lock: of(false), ..coin.clone() }]);
            }
            self.disk.given.push(Coin { lock: of(true), ..coin });
        }
        self.tally.add(|c| c.finals += 1);
    }

    /// Asks all whose shares are missing, but for those that have lied.
    fn ask_again(&mut self, world: &mut World, at: usize) {
        let order = &self.disk.orders[at];
        for authority in (0..world.committee.size() as u32).filter(|a| !self.memory.liars.contains(a)) {
            let has =
                |a: &&Asked| self.memory.shares.get(&(a.bytes(), a.tier)).is_some_and(|by| by.contains_key(&authority));
            let missing: Vec<(Bytes, u32)> =
                order.asked.iter().filter(|a| !has(a)).map(|a| (a.bytes(), a.tier)).collect();
            if !missing.is_empty() {
                let blinded = missing.iter().map(|(blinded, _)| blinded.clone()).collect();
                let body = Body::Notes(wire::NotesRequest { shard: order.shard, blinded, nonces: Vec::new() });
                self.questions += 1;
                self.memory.questions.insert(self.questions, (authority, missing));
                world.send(self.addr, Addr::Shard(authority, order.shard), self.questions, body);
            }
        }
    }

    /// Shares that came with an answer to `Notes`.
    fn take_notes(&mut self, authority: u32, question: u64, reply: &wire::NotesReply) {
        let Some((asked, missing)) = self.memory.questions.remove(&question) else { return };
        if asked != authority || missing.len() != reply.issued.len() {
            return;
        }
        for (key, issued) in missing.into_iter().zip(&reply.issued) {
            let at = issued.tiers.iter().position(|tier| *tier == key.1);
            if let Some(share) = at.and_then(|at| issued.shares.get(at)) {
                self.take_share(authority, key, share);
            }
        }
    }

    fn take_share(&mut self, authority: u32, key: (Bytes, u32), share: &Bytes) {
        if !self.memory.liars.contains(&authority) {
            self.memory.shares.entry(key).or_default().insert(authority, share.clone());
        }
    }

    /// Shares that came with what has settled.
    fn take_shares(&mut self, authority: u32, job: u64, reply: &wire::SettleReply) {
        for given in &reply.shares {
            let id = self.driver.ids(job).get(given.index as usize);
            let Some(order) = self.disk.orders.iter().find(|o| Some(&o.id) == id) else { continue };
            let keys: Vec<(Bytes, u32)> = order.asked.iter().map(|a| (a.bytes(), a.tier)).collect();
            keys.into_iter().zip(&given.shares).for_each(|(key, share)| self.take_share(authority, key, share));
        }
    }

    fn take(&mut self, world: &mut World, outcomes: Vec<(Id, bool)>) {
        for (id, is_final) in outcomes {
            self.memory.in_job.remove(&id);
            if is_final {
                self.memory.finals.insert(id);
            }
        }
        self.collect(world, false);
    }
}

impl Client for CashWallet {
    fn start(&mut self, world: &mut World) {
        wake(world, self.addr, 20 * MS, 400 * MS, TICK);
    }

    fn on_message(&mut self, world: &mut World, envelope: Envelope) {
        let Addr::Shard(authority, _) = envelope.from else { return };
        if world.now < self.down_until {
            return;
        }
        match &envelope.body {
            Body::NotesAre(Ok(reply)) => {
                self.take_notes(authority, envelope.id, reply);
                self.collect(world, false);
            }
            Body::NotesAre(Err(_)) => {}
            Body::Settled(Ok(reply)) => {
                self.take_shares(authority, envelope.id, reply);
                // Now and then the power goes before it has looked at them.
                let outcomes = self.driver.on_message(world, envelope);
                let ends = outcomes.iter().any(|(_, is_final)| *is_final);
                if ends && !world.calm && world.rng.chance(150) {
                    self.memory.finals.extend(outcomes.iter().filter(|(_, is_final)| *is_final).map(|(id, _)| *id));
                    return self.crash(world);
                }
                self.take(world, outcomes);
            }
            _ => {
                let outcomes = self.driver.on_message(world, envelope);
                self.take(world, outcomes);
            }
        }
    }

    fn on_timer(&mut self, world: &mut World, tag: u64) {
        let down = world.now < self.down_until;
        if tag != TICK {
            if !down {
                let outcomes = self.driver.on_timer(world, tag);
                self.take(world, outcomes);
            }
            return;
        }
        wake(world, self.addr, 80 * MS, 500 * MS, TICK);
        if down {
            return;
        }
        if world.calm && world.cash.calm_since.is_none() {
            world.cash.calm_since = Some(world.now);
        }
        self.disk.available += world.income.remove(&self.disk.purse.address).unwrap_or(0);
        self.receive(world);
        self.locked(world);
        if !world.calm {
            self.act(world);
            // The power may go when all is written and nothing is sent.
            if world.rng.chance(60) {
                return self.crash(world);
            }
        }
        self.give_up(world);
        self.collect(world, true);
        self.make_jobs(world);
    }

    fn unfinished(&self) -> Option<String> {
        let (open, kept) = (self.disk.orders.len(), self.disk.kept.len());
        (open + kept > 0)
            .then(|| format!("{:?} waits for {open} orders with notes, and has to spend {kept}", self.addr))
    }

    fn notes(&self) -> Vec<Held> {
        self.disk.coins.iter().map(|coin| coin.held(&self.keys)).collect()
    }
}
