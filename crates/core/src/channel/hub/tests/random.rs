//! Random lives of a hub with 20 channels: payments through it, refusals, silence, messages that come late, twice or never,
//! settles, payees that redeem locks which they gave back, restarts that lose what was not synced, and parties that are away; until all is over and the log pays out.
//!
//! What is asserted: [`Hub::check`](crate::channel::hub::Hub::check) after every step; and at the end, from the log alone, that the
//! hub has got no less than it put in, that no payer paid more than its payments that succeeded, with their fees, and
//! that every payee has all that it was told it was paid.

use super::world::*;
use crate::channel::hub::{Event, Input, Pay, PaymentState, Policy};
use crate::channel::manager::{self, EndId};
use crate::wire::HubTerms;
use crate::wire::hub_message::Kind;

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// The hub is wallet 0; wallet i has one channel with it.
const HUB: usize = 0;
const CHANNELS: usize = 20;
const IN: u64 = 10_000;

/// What happened, to see that the schedules reach it.
#[derive(Default, Debug)]
struct Seen {
    made: usize,
    paid: usize,
    failed: usize,
    in_log: usize,
    restarts: usize,
    settles: usize,
    lost: usize,
    refused: usize,
    grabs: usize,
}

struct Life {
    world: World,
    dice: Dice,
    /// By wallet: the hub's end and its own.
    ends: Vec<(EndId, EndId)>,
    /// Payer, number, and the most that it costs.
    payments: Vec<(usize, u64, u64, u64)>,
    /// Log time at which the hub is back.
    hub_back: u64,
    seen: Seen,
}

impl Life {
    fn new(seed: u64) -> Life {
        let mut dice = Dice(seed);
        let terms = HubTerms { upfront: if dice.one_in(2) { 2 } else { 0 }, ..Policy::default().terms };
        let policy = Policy { terms, locks_max: 6, ..Policy::default() };
        let mut world = World::with(CHANNELS as u64 + 1, policy);
        for node in &mut world.nodes {
            node.compacts = dice.one_in(2);
        }
        let mut ends = vec![];
        for wallet in 1..=CHANNELS {
            let two_way = !wallet.is_multiple_of(4);
            let (own, other) = match wallet % 4 {
                // One-way: only to the hub, or only from it.
                0 if wallet % 8 == 0 => (wallet, HUB),
                _ => (HUB, wallet),
            };
            let amounts = if two_way { [IN, IN] } else { [IN, 0] };
            let (first, second) = world.open(own, other, amounts, two_way);
            ends.push(if own == HUB { (first, second) } else { (second, first) });
        }
        Life { world, dice, ends, payments: Vec::new(), hub_back: 0, seen: Seen::default() }
    }

    fn wallet(&mut self) -> usize {
        1 + self.dice.below(CHANNELS)
    }

    fn start(&mut self) {
        let (payer, payee) = (self.wallet(), self.wallet());
        if payer == payee || self.world.nodes[payer].down || self.world.nodes[payee].down {
            return;
        }
        let amount = 1 + self.dice.below(3_000) as u64;
        let (hubs, own) = self.ends[payee - 1];
        let (invoice, _) = self.world.invoice(payee, own, amount);
        let end = self.ends[payer - 1].1;
        let mut pay = self.world.payment(payer, end, &[(HUB, hubs)], &invoice);
        self.bend(&mut pay);
        let cost = pay.route.amount;
        let upfront = pay.route.upfront;
        if let Ok(crate::channel::hub::Reply::Payment(number)) = self.world.ask(payer, Input::Pay(pay)) {
            self.payments.push((payer, number, cost, upfront));
            self.seen.made += 1;
        }
    }

    /// Some payers try to get it cheaper.
    fn bend(&mut self, pay: &mut Pay) {
        let hop = &mut pay.route.hops[0];
        match self.dice.below(12) {
            0 => pay.route.amount = hop.amount,
            1 => pay.route.not_after_ms -= 1 + self.dice.next() % (20 * MINUTE),
            2 => hop.not_after_ms += 30 * MINUTE,
            3 => pay.route.upfront = 0,
            _ => {}
        }
    }

    fn turn(&mut self) {
        match self.dice.below(100) {
            0..20 => self.start(),
            20..45 => {
                let node = self.dice.below(CHANNELS + 1);
                self.world.step(node);
            }
            45..85 => self.mail(),
            85..88 => {
                let wallet = self.wallet();
                let end = self.ends[wallet - 1].0;
                if !self.world.nodes[HUB].down {
                    self.world.connect(HUB, end);
                }
            }
            88..91 => {
                let node = if self.dice.one_in(2) { HUB } else { self.wallet() };
                if !self.world.nodes[node].down {
                    self.restart(node);
                }
            }
            91 => {
                let wallet = self.wallet();
                let node = &mut self.world.nodes[wallet];
                node.mute = !node.mute;
            }
            92 => {
                let wallet = self.wallet();
                let node = &mut self.world.nodes[wallet];
                node.down = !node.down;
            }
            93 if self.dice.one_in(4) => self.settle(),
            94 => {
                let node = self.dice.below(CHANNELS + 1);
                self.world.look(node);
            }
            95 if self.dice.one_in(4) => self.hub_away(),
            96 => self.grab(),
            _ => self.time(),
        }
        self.check();
    }

    fn mail(&mut self) {
        if self.world.mail.is_empty() {
            let node = self.dice.below(CHANNELS + 1);
            while self.world.step(node) {}
            return;
        }
        // Mostly the oldest; now and then another one.
        let at = if self.dice.one_in(4) { self.dice.below(self.world.mail.len()) } else { 0 };
        match self.dice.below(20) {
            0 => {
                self.world.mail.remove(at);
                self.seen.lost += 1;
            }
            1 => {
                let again = self.world.mail[at].clone();
                self.world.mail.push(again);
            }
            _ => {
                let refused = matches!(self.world.mail[at].2.kind, Some(Kind::Refused(_)));
                self.seen.refused += usize::from(refused);
                self.world.deliver(at);
            }
        }
    }

    /// Of its two ends the hub's connections are new, too.
    fn restart(&mut self, node: usize) {
        self.world.restart(node, 0);
        self.seen.restarts += 1;
        if !self.dice.one_in(4) {
            let ends = if node == HUB { (0..CHANNELS).collect() } else { vec![node - 1] };
            for wallet in ends {
                let end = self.ends[wallet].0;
                if !self.world.nodes[HUB].down {
                    self.world.connect(HUB, end);
                }
            }
        }
    }

    fn settle(&mut self) {
        let wallet = self.wallet();
        let (hubs, own) = self.ends[wallet - 1];
        let (node, end) = if self.dice.one_in(3) { (HUB, hubs) } else { (wallet, own) };
        if !self.world.nodes[node].down && self.world.channel(node, manager::Input::Settle(end)).is_ok() {
            self.seen.settles += 1;
        }
    }

    /// A payee redeems a lock in the log, also one that it has given back.
    fn grab(&mut self) {
        let offers = self.world.offers.len();
        let at = self.dice.below(offers.max(1));
        if at < offers && self.world.offers[at].0 != HUB && self.world.grab(at) {
            self.seen.grabs += 1;
        }
    }

    /// Never longer than its grace.
    fn hub_away(&mut self) {
        if self.hub_back == 0 {
            self.hub_back = self.world.log.now + self.world.nodes[HUB].config.policy.grace_ms;
            self.world.nodes[HUB].down = true;
        }
    }

    fn hub_returns(&mut self) {
        if self.hub_back > 0 && self.world.log.now + 30_000 >= self.hub_back {
            self.hub_back = 0;
            self.world.nodes[HUB].down = false;
            self.restart(HUB);
            self.hub_looks();
        }
    }

    /// The hub carries out what it has to do, and looks: as often as it promises.
    fn hub_looks(&mut self) {
        if self.world.nodes[HUB].down {
            return;
        }
        for _ in 0..2 {
            self.world.look(HUB);
            while self.world.step(HUB) {}
        }
    }

    /// Time passes: a little, or up to where something ends. The hub looks often enough.
    fn time(&mut self) {
        let now = self.world.log.now;
        let far = self.dice.one_in(6);
        let limits = self.world.nodes[HUB].hub.outs.values().map(|out| out.not_after_ms);
        let limits = limits.chain(self.world.nodes[HUB].hub.ins.values().map(|one| one.not_after_ms));
        let next = limits.flat_map(|limit| [limit - 40_000, limit, limit + 1]).filter(|at| *at > now).min();
        let mut to = now + 1 + self.dice.next() % 20_000;
        if far {
            to = next.unwrap_or(to);
        }
        to = to.min(next.unwrap_or(to));
        if self.hub_back > 0 {
            to = to.min(self.hub_back - 1);
        }
        self.world.log.now = to;
        self.hub_returns();
        // What the others do meanwhile reaches the log before or after the hub looks.
        let wallet = self.wallet();
        self.world.look(wallet);
        while self.world.step(wallet) {}
        self.hub_looks();
    }

    fn check(&self) {
        let now = self.world.now();
        let hub = &self.world.nodes[HUB];
        hub.hub.check(now, &hub.manager);
    }

    fn end(mut self) -> Seen {
        for node in 1..=CHANNELS {
            // Who is away stays away: the hub must not depend on it.
            if self.world.nodes[node].down && self.dice.one_in(2) {
                continue;
            }
            (self.world.nodes[node].down, self.world.nodes[node].mute) = (false, false);
        }
        self.world.nodes[HUB].down = false;
        self.hub_looks();
        self.world.connect_all();
        self.world.pass_all();
        let in_log = self.world.log.channels.values().flat_map(|record| &record.lanes);
        self.seen.in_log = in_log.filter(|lane| !lane.secret.is_empty()).count();
        let put_in: Vec<u64> = (0..=CHANNELS).map(|node| self.put_in(node)).collect();
        let got = self.world.wind_up();
        assert_eq!(got.iter().sum::<u64>(), put_in.iter().sum::<u64>());
        assert!(got[HUB] >= put_in[HUB], "the hub put in {} and got {}", put_in[HUB], got[HUB]);
        let mut costs = [0; CHANNELS + 1];
        for (payer, number, amount, upfront) in &self.payments {
            costs[*payer] += upfront;
            match self.world.nodes[*payer].hub.payment(*number) {
                Ok(PaymentState::Failed { .. }) => self.seen.failed += 1,
                Ok(PaymentState::Paid(_)) => {
                    self.seen.paid += 1;
                    costs[*payer] += amount;
                }
                // In flight when the channel was collected, or not durable when the wallet crashed.
                _ => costs[*payer] += amount,
            }
        }
        for node in 1..=CHANNELS {
            let told = self.world.nodes[node].events.iter().map(|event| match event {
                Event::InvoicePaid { amount, .. } => *amount,
                _ => 0,
            });
            let least = (put_in[node] + told.sum::<u64>()).saturating_sub(costs[node]);
            assert!(got[node] >= least, "wallet {node} got {} and not at least {least}", got[node]);
        }
        self.seen
    }

    fn put_in(&self, node: usize) -> u64 {
        let of = self.world.nodes[node].ends.iter().map(|end| {
            let record = &self.world.log.channels[&end.channel];
            crate::channel::rules::side(record, end.side).deposited
        });
        of.sum()
    }
}

fn live(seed: u64, turns: usize) -> Seen {
    let mut life = Life::new(seed);
    for _ in 0..turns {
        life.turn();
    }
    life.end()
}

fn live_all(seeds: std::ops::Range<u64>, turns: usize) {
    let mut all = Seen::default();
    for seed in seeds {
        let seen = std::panic::catch_unwind(|| live(seed, turns));
        let seen = seen.unwrap_or_else(|e| {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(e)
        });
        all.made += seen.made;
        all.paid += seen.paid;
        all.failed += seen.failed;
        all.in_log += seen.in_log;
        all.restarts += seen.restarts;
        all.settles += seen.settles;
        all.lost += seen.lost;
        all.refused += seen.refused;
        all.grabs += seen.grabs;
    }
    eprintln!("{all:?}");
    let counts =
        [all.made, all.paid, all.failed, all.in_log, all.restarts, all.settles, all.lost, all.refused, all.grabs];
    assert!(counts.iter().all(|count| *count > 0), "something never happens: {all:?}");
}

#[test]
fn the_hub_never_pays_out_more_than_it_can_claim() {
    live_all(0..100, 300);
}

#[test]
#[ignore = "long: run it in release"]
fn the_hub_never_pays_out_more_than_it_can_claim_in_100_000_schedules() {
    let from = std::env::var("FLORIN_HUB_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let count = std::env::var("FLORIN_HUB_COUNT").ok().and_then(|count| count.parse().ok()).unwrap_or(100_000);
    live_all(from..from + count, 150);
}
