//! Senders who sign the roots of their batches together, and the worker that asks them: the core's own round, with answers that come late,
//! not at all, or are false. Wallets and worker are one program; what they say to each other takes time and does not get lost.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::bls;
use florin_core::content::Credit;
use florin_core::distilled::round::{Config, Effect, Input, Round};
use florin_core::distilled::{Proposal, check_proposal};
use florin_core::keys::SecretKey;

use crate::attackers::lies_about_roots;
use crate::attackers::makes_up_keys::MakesUpKeys;
use crate::checkers::Rule;
use crate::client::{Client, Purse, Wish, new_bls_key, payee, wake};
use crate::driver::{Driver, Outcome, Tally};
use crate::message::{Addr, Envelope};
use crate::profile::Part;
use crate::rng::Rng;
use crate::world::{MS, World};
use crate::{Options, client};

/// What each sender starts with, minor units.
pub const FUNDS: u64 = 5_000;
/// Accounts that sign roots, the one that makes up keys not counted.
const SENDERS: usize = 10;
/// Tag of the timer that makes new payments; small ones are numbers of jobs.
const TICK: u64 = 0;
/// Tags of the rounds' timers: this and the shard.
const ROUND: u64 = 1 << 40;
/// Tags of answers: this and a number.
const ANSWER: u64 = 1 << 41;

/// Whether a seed has them. Each seed with and without notes, channels, and any number of authorities is among them.
pub fn has_roots(seed: u64) -> bool {
    seed % 7 == 5
}

/// The accounts, of a run that has them; the last is whose who makes up keys.
pub fn purses(options: &Options, network_id: u64) -> Vec<Purse> {
    // With chance of its own: nothing else of the seed moves.
    let mut rng = Rng::new(options.seed ^ 0x0020_0021_0022);
    let any = has_roots(options.seed) && options.has(Part::Roots);
    (0..if any { SENDERS + 1 } else { 0 }).map(|_| Purse::of_sender(network_id, &mut rng)).collect()
}

/// Puts them into the world.
pub fn add(world: &mut World, clients: &mut Vec<Box<dyn Client>>, mut purses: Vec<Purse>, tally: &Tally) {
    let Some(cheat) = purses.pop() else { return };
    let addr = Addr::Client(clients.len() as u32);
    clients.push(Box::new(Senders::new(world, addr, purses, tally.clone())));
    if world.options.attackers {
        let addr = Addr::Client(clients.len() as u32);
        clients.push(Box::new(MakesUpKeys::new(addr, cheat)));
    }
}

/// What anybody can know of an account that signs roots.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its BLS key.
    pub key: bls::Key,
    /// Seqnum of its last final order.
    pub seqnum: u32,
    /// prev_hash of the next one.
    pub prev_hash: u64,
}

struct Pending {
    raw: Bytes,
    id: [u8; 32],
    credits: Vec<Credit>,
    bls: Option<Rc<SecretKey>>,
    /// In a round or in a batch.
    under_way: bool,
}

struct Sender {
    purse: Purse,
    /// What it may spend as far as it knows, minor units.
    available: i128,
    pending: Option<Pending>,
}

/// The program.
pub struct Senders {
    addr: Addr,
    senders: Vec<Sender>,
    /// By shard.
    rounds: Vec<Round>,
    /// What senders say, when their time has come: to which shard's round.
    answers: BTreeMap<u64, (u32, Input)>,
    next_answer: u64,
    driver: Driver,
    tally: Tally,
}

impl Senders {
    fn new(world: &World, addr: Addr, purses: Vec<Purse>, tally: Tally) -> Self {
        let config = Config { orders_max: 6, collect_ms: 40, sign_ms: 120, orders_held_max: 64 };
        let rounds = (0..world.committee.shards).map(|_| Round::new(world.committee.clone(), config)).collect();
        let sender = |purse| Sender { purse, available: i128::from(FUNDS), pending: None };
        let senders = purses.into_iter().map(sender).collect();
        let driver = Driver::new(addr, tally.clone());
        Senders { addr, senders, rounds, answers: BTreeMap::new(), next_answer: ANSWER, driver, tally }
    }

    /// New orders go into the rounds, those of earlier batches to the committee with their own signatures.
    fn work(&mut self, world: &mut World) {
        let shards = world.committee.shards;
        let mut again: BTreeMap<u32, Vec<(Bytes, [u8; 32])>> = BTreeMap::new();
        for at in 0..self.senders.len() {
            let sender = &mut self.senders[at];
            let shard = sender.purse.shard(shards);
            sender.available += world.income.remove(&sender.purse.address).unwrap_or(0);
            if let Some(pending) = sender.pending.as_mut().filter(|p| !p.under_way) {
                pending.under_way = true;
                again.entry(shard).or_default().push((pending.raw.clone(), pending.id));
            } else if sender.pending.is_none() && !world.calm && world.rng.chance(800) {
                self.sign(world, at);
            }
        }
        again.into_iter().for_each(|(shard, orders)| self.driver.submit(world, shard, orders));
    }

    fn sign(&mut self, world: &mut World, at: usize) {
        let shards = world.committee.shards;
        let sender = &mut self.senders[at];
        let (mut wish, mut credits, mut bls) = (None, Vec::new(), None);
        if sender.purse.seqnum > 0 && world.rng.chance(60) {
            bls = Some(Rc::new(new_bls_key(&mut world.rng)));
            wish = bls.clone().map(Wish::Bls);
        } else {
            let most = u64::try_from(sender.available).unwrap_or(0).min(200);
            let amount = world.rng.below(most + 1);
            if amount > 0 {
                sender.available -= i128::from(amount);
                credits.push(Credit { address: payee(world), amount });
                wish = Some(Wish::Pay(credits.clone()));
            }
        }
        let Some(wish) = wish else { return };
        let order = sender.purse.draft(&wish);
        // A worker asks whom authorities are sure of: it is open, and its keys stay as they are.
        let own = sender.purse.bls.as_ref().and_then(|key| key.public().bls());
        let key = own.filter(|_| order.seqnum > 1 && bls.is_none());
        if key.is_some() && world.options.attackers && world.rng.chance(150) {
            lies_about_roots::show(world, self.addr, &sender.purse, &order);
        }
        sender.purse.advance(&order);
        sender.pending = Some(Pending { raw: order.raw.clone(), id: order.id, credits, bls, under_way: true });
        self.tally.add(|c| c.signed += 1);
        let shard = sender.purse.shard(shards);
        self.handle(world, shard, Input::Submit { order: order.raw, key });
    }

    /// A step of a shard's round.
    fn handle(&mut self, world: &mut World, shard: u32, input: Input) {
        let now_ms = world.now / MS;
        let effects = self.rounds[shard as usize].handle(now_ms, input);
        for effect in effects {
            match effect {
                Effect::Propose { actor, order_id, proposal } => {
                    self.answer(world, shard, actor, &order_id, &proposal);
                }
                Effect::Liar { .. } => world.mark("false signature of a root found"),
                Effect::Refused { error, .. } => {
                    world.violation(Rule::FalseBelief, format!("a round refuses an honest order: {error}"));
                }
                Effect::Finished(sealed) => self.driver.submit_sealed(world, shard, sealed),
            }
        }
        if let Some(deadline_ms) = self.rounds[shard as usize].deadline_ms() {
            let delay = (deadline_ms * MS).saturating_sub(world.now);
            wake(world, self.addr, delay, delay, ROUND + u64::from(shard));
        }
    }

    /// What a sender says to a proposal: mostly the truth, soon.
    fn answer(&mut self, world: &mut World, shard: u32, actor: u64, order_id: &[u8; 32], proposal: &Proposal) {
        let Some(sender) = self.senders.iter().find(|s| s.purse.address.actor() == actor) else { return };
        let Some(key) = sender.purse.bls.as_ref().and_then(|key| key.bls()) else { return };
        let message = match check_proposal(&world.committee, order_id, proposal) {
            Ok(message) => message,
            Err(e) => return world.violation(Rule::FalseBelief, format!("a round's proposal is false: {e}")),
        };
        let signature = match world.rng.below(100) {
            // Nobody is there.
            0..8 => return,
            8..16 => key.sign(b"florin-distilled-v1, but of another root"),
            16 => [7; bls::SIGNATURE_BYTES],
            _ => {
                world.checks.signed_root(proposal.batch.root, *order_id);
                key.sign(&message)
            }
        };
        self.next_answer += 1;
        self.answers.insert(self.next_answer, (shard, Input::Share { actor, root: proposal.batch.root, signature }));
        wake(world, self.addr, MS, 140 * MS, self.next_answer);
    }

    fn take(&mut self, world: &mut World, outcomes: Vec<Outcome>) {
        for (id, is_final) in outcomes {
            let mut all = self.senders.iter_mut();
            let Some(sender) = all.find(|s| s.pending.as_ref().is_some_and(|p| p.id == id)) else { continue };
            let Some(mut pending) = sender.pending.take() else { continue };
            if !is_final {
                pending.under_way = false;
                sender.pending = Some(pending);
                continue;
            }
            for credit in &pending.credits {
                *world.income.entry(credit.address).or_default() += i128::from(credit.amount);
            }
            sender.purse.bls = pending.bls.or(sender.purse.bls.take());
            self.tally.add(|c| c.finals += 1);
            if let Some(key) = sender.purse.bls.as_ref().and_then(|key| key.public().bls()) {
                let (seqnum, prev_hash) = client::Signer::chain(&sender.purse);
                world.senders.insert(sender.purse.address, Place { key, seqnum, prev_hash });
            }
        }
    }
}

impl Client for Senders {
    fn start(&mut self, world: &mut World) {
        wake(world, self.addr, 20 * MS, 200 * MS, TICK);
    }

    fn on_message(&mut self, world: &mut World, envelope: Envelope) {
        let outcomes = self.driver.on_message(world, envelope);
        self.take(world, outcomes);
    }

    fn on_timer(&mut self, world: &mut World, tag: u64) {
        if tag >= ANSWER {
            if let Some((shard, input)) = self.answers.remove(&tag) {
                self.handle(world, shard, input);
            }
            return;
        }
        if tag >= ROUND {
            return self.handle(world, (tag - ROUND) as u32, Input::Tick);
        }
        if tag != TICK {
            let outcomes = self.driver.on_timer(world, tag);
            return self.take(world, outcomes);
        }
        self.work(world);
        wake(world, self.addr, 50 * MS, 300 * MS, TICK);
    }

    fn unfinished(&self) -> Option<String> {
        let open = self.senders.iter().filter(|s| s.pending.is_some()).count();
        (open > 0).then(|| format!("{:?} waits for {open} orders of senders who sign roots", self.addr))
    }
}

/// What the account at a place would be said to order, unsigned: everything to one address.
pub fn forged(network_id: u64, victim: &Address, place: &Place, to: Address) -> florin_core::envelope::Order {
    use florin_core::content::{TYPE_PAY, encode_pay};
    use florin_core::envelope::{Authority, Body, Order, encode_body, encode_envelope};
    let body = encode_body(&Body {
        network_id,
        actor: victim.actor(),
        cosignors: Vec::new(),
        seqnum: place.seqnum + 1,
        prev_hash: place.prev_hash,
        transaction_type: TYPE_PAY,
        content: encode_pay(&[Credit { address: to, amount: 1 }], "stolen", None),
    });
    let nothing = Authority { key_type: 0, sigs: vec![Bytes::new()] };
    Order::decode(encode_envelope(&body, &[nothing])).expect("an order, if unsigned")
}
