//! A party of channels: an account with a chain of operations, and what it does off the log.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use super::moves::{self, Move};
use super::{FUNDS, Manner, now, papers, record};
use crate::attackers::robs_channels;
use crate::client::{Client, Purse, Wish, wake};
use crate::driver::{Driver, Outcome, Tally};
use crate::message::{Addr, Envelope};
use crate::world::{MS, World};

/// Tag of the timer with which it does something; others are numbers of jobs.
const TICK: u64 = 0;
/// Orders that it may have on their way.
const ORDERS_MAX: usize = 3;

struct Pending {
    raw: Bytes,
    id: [u8; 32],
    seqnum: u32,
    busy: BTreeSet<usize>,
    stands: Vec<(usize, u32)>,
    in_job: bool,
    is_final: bool,
}

/// One of them.
pub struct Party {
    addr: Addr,
    /// Which.
    number: usize,
    purse: Purse,
    /// What its account has, as far as it knows, minor units.
    available: i128,
    pending: VecDeque<Pending>,
    driver: Driver,
    tally: Tally,
}

impl Party {
    /// The party with this number.
    pub fn new(addr: Addr, number: usize, purse: Purse, tally: Tally) -> Party {
        let driver = Driver::new(addr, tally.clone());
        Party { addr, number, purse, available: i128::from(FUNDS), pending: VecDeque::new(), driver, tally }
    }

    fn busy(&self) -> BTreeSet<usize> {
        self.pending.iter().flat_map(|p| p.busy.iter().copied()).collect()
    }

    /// What is signed outside of the log.
    fn off_the_log(&mut self, world: &mut World) {
        for (at, side) in moves::own(world, self.number) {
            for _ in 0..world.rng.below(4) {
                papers::pay(world, at, side);
            }
            papers::locks(world, at, side);
            if world.rng.chance(120) {
                papers::permit(world, at, side);
            }
            let own = &world.channels.list[at].sides[side as usize];
            let said = record(world, at).is_some_and(|r| !r.sides[side as usize].permission.is_empty());
            if own.manner == Manner::Absent && own.watch.is_none() && said && world.rng.chance(200) {
                papers::name_watcher(world, at, side);
            }
        }
    }

    fn act(&mut self, world: &mut World) {
        if self.pending.len() >= ORDERS_MAX {
            return;
        }
        let busy = self.busy();
        let order = match moves::defend(world, self.number, &busy) {
            Some(order) => Some(order),
            None if world.calm => self.wind_up(world, &busy),
            None => self.wish(world, &busy),
        };
        if let Some(order) = order {
            self.sign(world, order);
        }
    }

    fn wish(&mut self, world: &mut World, busy: &BTreeSet<usize>) -> Option<Move> {
        if !world.rng.chance(500) {
            return None;
        }
        // Much of what comes to its mind can't be done now.
        (0..4).find_map(|_| self.idea(world, busy))
    }

    fn idea(&mut self, world: &mut World, busy: &BTreeSet<usize>) -> Option<Move> {
        let free = |(at, _): &(usize, u32)| !busy.contains(at);
        let mut own: Vec<(usize, u32)> = moves::own(world, self.number).into_iter().filter(free).collect();
        own.retain(|(at, _)| record(world, *at).is_some_and(|r| !r.collected));
        if own.is_empty() || world.rng.chance(150) {
            return match world.rng.below(10) {
                0..6 => moves::open(world, self.number, self.available),
                6 => robs_channels::meddles(world, self.number),
                _ => None,
            };
        }
        let manners: Vec<Manner> =
            world.channels.list.iter().flat_map(|c| [c.sides[0].manner, c.sides[1].manner]).collect();
        let manner = |(at, side): &(usize, u32)| manners[at * 2 + *side as usize];
        // Those who are away do next to nothing; those who rob are busy.
        if own.iter().any(|o| manner(o) == Manner::Cheat) && world.rng.chance(400) {
            own.retain(|o| manner(o) == Manner::Cheat);
        } else if own.iter().any(|o| manner(o) == Manner::Watchful) && world.rng.chance(900) {
            own.retain(|o| manner(o) != Manner::Absent);
        }
        let (at, side) = own[world.rng.index(own.len())];
        if let Some(keys) = moves::keys(world, at, side) {
            return Some(keys);
        }
        let manner = world.channels.list[at].sides[side as usize].manner;
        let leaving = record(world, at).and_then(|r| r.sides[side as usize].leaving);
        if leaving.is_some_and(|(_, due)| due <= now(world)) && world.rng.chance(700) {
            return moves::withdraw(world, at, side);
        }
        match (manner, world.rng.below(14)) {
            (Manner::Absent, 0) => moves::deposit(world, at, self.available),
            (Manner::Absent, _) => None,
            (Manner::Cheat, 0..=9) => robs_channels::robs(world, at, side),
            (_, 0) => moves::deposit(world, at, self.available),
            (_, 1..=3) => moves::redeem(world, at, side),
            (_, 4..=6) => moves::announce(world, at, side),
            (_, 7..=11) => moves::withdraw(world, at, side),
            _ if is_over(world, at) => Some(moves::collect(world, at)),
            _ if record(world, at).is_some_and(|r| r.end_ms.is_none()) && world.rng.chance(300) => {
                Some(moves::settle(world, at))
            }
            _ => None,
        }
    }

    /// Faults are over: whoever is a side ends the channel, and collects.
    fn wind_up(&mut self, world: &mut World, busy: &BTreeSet<usize>) -> Option<Move> {
        let own = moves::own(world, self.number);
        let mut open = own.into_iter().map(|(at, _)| at).filter(|at| !busy.contains(at));
        // Both sides come at the same time only now and then.
        if !world.rng.chance(600) {
            return None;
        }
        let at = open.find(|at| {
            let due = |r: &crate::checkers::channels::Channel| r.end_ms.is_none_or(|end| now(world) >= end);
            record(world, *at).is_some_and(|r| !r.collected && due(r))
        })?;
        Some(if is_over(world, at) { moves::collect(world, at) } else { moves::settle(world, at) })
    }

    fn sign(&mut self, world: &mut World, order: Move) {
        let signed = self.purse.draft(&Wish::Call(order.inputs, order.outputs));
        self.purse.advance(&signed);
        self.available -= i128::from(order.debit);
        if let Some(mut channel) = order.opens {
            let channels = world.checks.log.channels_mut();
            channel.id = channels.id_of(&signed.id, 0);
            for side in (0..2_u32).filter(|s| channel.sides[*s as usize].manner != Manner::Cheat) {
                channels.vouchers.is_honest(channel.id, side);
            }
            world.channels.list.push(*channel);
        }
        for (at, side) in &order.stands {
            let id = world.channels.list[*at].id;
            world.checks.log.channels_mut().vouchers.stands(signed.id, id, *side);
        }
        self.pending.push_back(Pending {
            raw: signed.raw,
            id: signed.id,
            seqnum: signed.seqnum,
            busy: order.busy,
            stands: order.stands,
            in_job: false,
            is_final: false,
        });
        self.tally.add(|c| c.signed += 1);
    }

    fn make_jobs(&mut self, world: &mut World) {
        let mut orders = Vec::new();
        for pending in self.pending.iter_mut().filter(|p| !p.in_job && !p.is_final) {
            pending.in_job = true;
            orders.push((pending.raw.clone(), pending.id));
        }
        if !orders.is_empty() {
            let shard = self.purse.shard(world.committee.shards);
            self.driver.submit(world, shard, orders);
        }
    }

    fn take(&mut self, outcomes: Vec<Outcome>) {
        for (id, is_final) in outcomes {
            if let Some(pending) = self.pending.iter_mut().find(|p| p.id == id) {
                (pending.in_job, pending.is_final) = (false, pending.is_final || is_final);
            }
        }
    }

    /// What the log has decided, if it is final, too.
    fn look(&mut self, world: &mut World) {
        let actor = self.purse.address.actor();
        while let Some(done) = self.pending.front().filter(|p| p.is_final) {
            let Some(succeeded) = world.checks.log.has_succeeded(actor, done.seqnum) else { return };
            for (at, side) in &done.stands {
                world.channels.list[*at].sides[*side as usize].picky = !succeeded;
            }
            for at in &done.busy {
                for side in &mut world.channels.list[*at].sides {
                    side.picky &= !succeeded;
                }
            }
            self.pending.pop_front();
            self.tally.add(|c| c.finals += 1);
        }
    }
}

/// Whether it can be collected.
fn is_over(world: &World, at: usize) -> bool {
    record(world, at).is_some_and(|r| !r.collected && r.end_ms.is_some_and(|end| now(world) >= end))
}

impl Client for Party {
    fn start(&mut self, world: &mut World) {
        wake(world, self.addr, 20 * MS, 300 * MS, TICK);
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
        self.available += world.income.remove(&self.purse.address).unwrap_or(0);
        self.look(world);
        if !world.calm {
            self.off_the_log(world);
        }
        self.act(world);
        self.make_jobs(world);
        wake(world, self.addr, 50 * MS, 350 * MS, TICK);
    }

    fn unfinished(&self) -> Option<String> {
        (!self.pending.is_empty())
            .then(|| format!("{:?} waits for {} orders of channels", self.addr, self.pending.len()))
    }
}
