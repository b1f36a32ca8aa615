//! Somebody who spends the notes that others give him more than once: two orders for one note, each to a part of the
//! committee, with other notes beside it; he tries to make certificates of both, and gives the same note away as well.

use std::sync::Arc;

use bytes::Bytes;
use florin_core::batch::decode_batch;
use florin_core::bearer::{Spend, build};
use florin_core::cash::derive::CashSeed;
use florin_core::content::{Credit, credit_output};
use florin_core::wire;

use crate::cash::{Asked, Coin, bearer, tiers_of};
use crate::client::{Client, payee, wake};
use crate::message::{Addr, Body, Envelope};
use crate::world::{MS, World};

/// Orders for one note.
const SIDES_MAX: usize = 8;

struct Side {
    raw: Bytes,
    root: [u8; 32],
    votes: Vec<wire::Signed>,
}

/// It lives on what it is given.
pub struct SpendsTwice {
    addr: Addr,
    seed: CashSeed,
    next: u64,
    coins: Vec<Coin>,
    round: u64,
    sides: Vec<Side>,
}

impl SpendsTwice {
    /// At this address, which is told to those who give notes away.
    pub fn new(world: &mut World, addr: Addr) -> SpendsTwice {
        world.cash.cheat = Some(addr);
        let seed = CashSeed::new(&world.rng.bytes(), world.committee.network.id);
        SpendsTwice { addr, seed, next: 1, coins: Vec::new(), round: 0, sides: Vec::new() }
    }

    fn order(&mut self, world: &mut World, coins: &[Coin]) -> Side {
        let worth: u64 = coins.iter().map(Coin::worth).sum();
        let tiers = tiers_of(worth);
        let (raw, _) = if world.rng.chance(300) && world.cash.allows(tiers.len()) {
            world.cash.asked += tiers.len() as u64;
            let mut asked = Vec::new();
            for tier in tiers {
                let one = Asked::new(tier, Arc::new(self.seed.note(self.next)), None);
                self.next += 1;
                world.checks.cash.made(one.bytes(), one.nonce().0);
                asked.push(one);
            }
            bearer(world, coins, &[], &asked)
        } else {
            let credit = Credit { address: payee(world), amount: worth };
            bearer(world, coins, &[credit], &[])
        };
        let root = decode_batch(std::slice::from_ref(&raw)).map(|b| b.id.root).unwrap_or_default();
        Side { raw, root, votes: Vec::new() }
    }

    /// Asks for votes that nobody gives: for an order that is worth more than its note, has the note twice, or is not signed
    /// by its owner.
    fn try_oddly(&self, world: &mut World, coin: &Coin, way: u32) {
        let pay = |world: &mut World, amount| Credit { address: payee(world), amount };
        let (raw, _) = match way {
            0 => {
                let credit = pay(world, coin.worth() + 1);
                bearer(world, std::slice::from_ref(coin), &[credit], &[])
            }
            1 => {
                let credit = pay(world, 2 * coin.worth());
                bearer(world, &[coin.clone(), coin.clone()], &[credit], &[])
            }
            _ => {
                let other = self.seed.note(0);
                let spend = Spend { sign: Box::new(move |message| other.sign(message)), ..coin.spend() };
                let credit = credit_output(&pay(world, coin.worth()));
                (build(world.committee.network.id, &[spend], vec![credit], "", None), Default::default())
            }
        };
        world.fault("notes spent wrongly");
        for authority in 0..world.committee.size() as u32 {
            world.send(self.addr, Addr::Shard(authority, 0), 0, Body::Vote(vec![raw.clone()]));
        }
    }

    fn begin(&mut self, world: &mut World) {
        let Some(coin) = self.coins.pop() else { return };
        world.fault("notes spent twice");
        self.round += 1;
        // Others beside it are held up with it, or go free.
        let beside: Vec<Coin> = self.coins.pop().into_iter().collect();
        (0..3).for_each(|way| self.try_oddly(world, &coin, way));
        let (mut both, mut turned) = (beside.clone(), beside.clone());
        both.push(coin.clone());
        turned.insert(0, coin.clone());
        self.sides = vec![self.order(world, &both), self.order(world, std::slice::from_ref(&coin))];
        for _ in 0..world.rng.index(SIDES_MAX - 1) {
            let side = self.order(world, &turned);
            self.sides.push(side);
        }
        if world.rng.chance(400) && !world.cash.receivers.is_empty() {
            world.fault("notes given away after they were spent");
            let at = world.rng.index(world.cash.receivers.len());
            let to = world.cash.receivers[at].0;
            let mut coin = coin;
            if world.rng.chance(300) {
                // Or what was never one.
                coin.signature = beside.first().map_or([1; 48], |other| other.signature);
            }
            world.cash.give(to, vec![coin]);
        }
        let everywhere = world.rng.chance(200);
        for authority in 0..world.committee.size() as u32 {
            let mine = world.rng.index(self.sides.len());
            for side in 0..self.sides.len() {
                if side == mine || everywhere || world.byzantine.contains(&authority) {
                    let body = Body::Vote(vec![self.sides[side].raw.clone()]);
                    world.send(self.addr, Addr::Shard(authority, 0), self.round * SIDES_MAX as u64 + side as u64, body);
                }
            }
        }
    }

    fn end(&mut self, world: &mut World) {
        let quorum = world.committee.quorum();
        for (i, side) in self.sides.iter().enumerate() {
            let mut votes = side.votes.clone();
            let enough = votes.len() >= quorum;
            if let Some(last) = votes.last().cloned()
                && !enough
            {
                match world.rng.below(3) {
                    0 => votes.resize(quorum, last),
                    1 => votes.extend(self.sides[(i + 1) % self.sides.len()].votes.iter().cloned()),
                    _ => {}
                }
            }
            let root = Bytes::copy_from_slice(&side.root);
            let certificate = wire::Certificate { epoch: world.committee.epoch, root, count: 1, votes };
            for authority in 0..world.committee.size() as u32 {
                if !enough || world.rng.chance(400) {
                    let body = Body::Settle(certificate.clone(), vec![side.raw.clone()]);
                    world.send(self.addr, Addr::Shard(authority, 0), 0, body);
                }
            }
        }
        self.sides.clear();
    }
}

impl Client for SpendsTwice {
    fn start(&mut self, world: &mut World) {
        wake(world, self.addr, 100 * MS, 500 * MS, 0);
    }

    fn on_message(&mut self, _: &mut World, envelope: Envelope) {
        if let Body::Voted(Ok(wire::VoteReply { vote: Some(vote), .. })) = envelope.body
            && envelope.id / SIDES_MAX as u64 == self.round
            && let Some(side) = self.sides.get_mut(envelope.id as usize % SIDES_MAX)
            && side.votes.iter().all(|v| v.authority != vote.authority)
        {
            side.votes.push(vote);
        }
    }

    fn on_timer(&mut self, world: &mut World, _: u64) {
        self.coins.extend(world.cash.mail.remove(&self.addr).unwrap_or_default().into_iter().flat_map(|g| g.coins));
        if !self.sides.is_empty() {
            self.end(world);
        } else if !world.calm {
            self.begin(world);
        } else {
            return;
        }
        wake(world, self.addr, 30 * MS, 300 * MS, 0);
    }

    fn unfinished(&self) -> Option<String> {
        None
    }
}
