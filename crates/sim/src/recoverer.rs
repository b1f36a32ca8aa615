//! A wallet that locks its accounts by signing two orders for one seqnum, and frees them again by the log.
//!
//! Three ways: votes split over both orders; a certificate that one authority alone settles before it is cut off; an
//! order that becomes final while the certified RECOVER is already on its way. It shows old certificates again
//! when all is decided. Each time the account has to go on, with a payment that becomes final.

use std::collections::BTreeMap;

use bytes::Bytes;
use florin_core::batch::decode_batch;
use florin_core::content::Credit;
use florin_core::wire;

use crate::checkers::orders::Place;
use crate::client::{Client, Purse, SignedOrder, Wish, payee, wake};
use crate::message::{Addr, Body, Envelope};
use crate::world::{MS, Micros, SECOND, World};

/// Orders that it holds at a time: both of one seqnum, the RECOVER, and what comes after.
const KINDS: usize = 4;
const A: usize = 0;
const B: usize = 1;
const RECOVER: usize = 2;
const NEXT: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plan {
    Split,
    Alone,
    Final,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Idle,
    Locking,
    Recovering,
    GoingOn,
}

/// An order, and what authorities said of it.
struct Held {
    order: SignedOrder,
    votes: BTreeMap<u32, wire::Signed>,
    settled: BTreeMap<u32, ()>,
}

/// It has several accounts, one at a time in trouble.
pub struct Recoverer {
    addr: Addr,
    purses: Vec<Purse>,
    at: usize,
    phase: Phase,
    plan: Plan,
    round: u64,
    since: Micros,
    alone: u32,
    held: [Option<Held>; KINDS],
    /// What it has signed to go on with at other states. A crash can take the account back to one of them, and another order
    /// for the same place would lock it once more.
    left: BTreeMap<(u32, u64), Held>,
}

impl Recoverer {
    /// With these accounts, which have some money.
    pub fn new(addr: Addr, purses: Vec<Purse>) -> Self {
        let held = [const { None }; KINDS];
        Recoverer {
            addr,
            purses,
            at: 0,
            phase: Phase::Idle,
            plan: Plan::Split,
            round: 0,
            since: 0,
            alone: 0,
            held,
            left: BTreeMap::new(),
        }
    }

    fn purse(&self) -> &Purse {
        &self.purses[self.at]
    }

    fn hold(&mut self, kind: usize, order: SignedOrder) {
        self.held[kind] = Some(Held { order, votes: BTreeMap::new(), settled: BTreeMap::new() });
    }

    /// Where the account is, as f + 1 authorities say.
    fn refresh(&mut self, world: &World) -> bool {
        let purse = &mut self.purses[self.at];
        match world.checks.account_of(purse.network_id, purse.address.actor()) {
            Some((seqnum, prev_hash, last_call)) => {
                (purse.seqnum, purse.prev_hash, purse.last_call) = (seqnum, prev_hash, last_call);
                true
            }
            None => false,
        }
    }

    fn pay(&self, world: &mut World) -> SignedOrder {
        let amount = world.rng.between(1, 20);
        let address = payee(world);
        // In some rounds it asks for what others have asked for, and takes it back.
        if self.round.is_multiple_of(2)
            && let Some((tier, blinded)) = world.cash.requests.last().cloned()
        {
            world.fault("notes of others asked for and taken back");
            return self.purse().draft(&Wish::Withdraw(vec![wire::NoteRequest { tier, blinded }]));
        }
        self.purse().draft(&Wish::Pay(vec![Credit { address, amount }]))
    }

    fn begin(&mut self, world: &mut World) {
        self.at = (self.at + 1) % self.purses.len();
        if !self.refresh(world) {
            return;
        }
        world.fault("accounts locked by their wallet");
        self.round += 1;
        self.held = [const { None }; KINDS];
        self.left.clear();
        self.plan = match world.rng.below(3) {
            0 => Plan::Split,
            1 => Plan::Alone,
            _ => Plan::Final,
        };
        for kind in [A, B] {
            let order = self.pay(world);
            self.hold(kind, order);
        }
        let recover = self.purse().draft(&Wish::Recover);
        self.hold(RECOVER, recover);
        let honest: Vec<u32> = (0..world.committee.size() as u32).filter(|a| !world.byzantine.contains(a)).collect();
        self.alone = honest[world.rng.index(honest.len())];
        (self.phase, self.since) = (Phase::Locking, world.now);
        for authority in 0..world.committee.size() as u32 {
            let split = self.plan == Plan::Split;
            let kind = if split && world.rng.chance(500) { B } else { A };
            self.ask(world, kind, authority);
            if self.plan == Plan::Final {
                self.ask(world, RECOVER, authority);
            }
        }
    }

    fn to(&self, world: &World, authority: u32) -> Addr {
        Addr::Shard(authority, self.purse().shard(world.committee.shards))
    }

    fn ask(&self, world: &mut World, kind: usize, authority: u32) {
        if let Some(held) = &self.held[kind]
            && !held.votes.contains_key(&authority)
        {
            let to = self.to(world, authority);
            world.send(self.addr, to, self.round * 8 + kind as u64, Body::Vote(vec![held.order.raw.clone()]));
        }
    }

    fn ask_all(&self, world: &mut World, kind: usize) {
        (0..world.committee.size() as u32).for_each(|authority| self.ask(world, kind, authority));
    }

    fn certificate(&self, world: &World, kind: usize) -> Option<(wire::Certificate, Bytes)> {
        let held = self.held[kind].as_ref().filter(|h| h.votes.len() >= world.committee.quorum())?;
        let root = decode_batch(std::slice::from_ref(&held.order.raw)).ok()?.id.root;
        let votes = held.votes.values().cloned().collect();
        let root = Bytes::copy_from_slice(&root);
        Some((wire::Certificate { epoch: world.committee.epoch, root, count: 1, votes }, held.order.raw.clone()))
    }

    /// Hands a certificate in, where it is not known to be settled. False if there is none yet.
    fn settle(&self, world: &mut World, kind: usize, only: Option<u32>) -> bool {
        let Some((certificate, raw)) = self.certificate(world, kind) else { return false };
        for authority in 0..world.committee.size() as u32 {
            let known = self.held[kind].as_ref().is_some_and(|h| h.settled.contains_key(&authority));
            if only.is_none_or(|o| o == authority) && !known {
                let to = self.to(world, authority);
                let body = Body::Settle(certificate.clone(), vec![raw.clone()]);
                world.send(self.addr, to, self.round * 8 + kind as u64, body);
            }
        }
        true
    }

    fn acknowledged(&self, kind: usize) -> usize {
        self.held[kind].as_ref().map_or(0, |h| h.settled.len())
    }

    fn locking(&mut self, world: &mut World) {
        let late = world.now > self.since + 900 * MS;
        let ready = match self.plan {
            Plan::Split => world.now > self.since + 150 * MS,
            Plan::Alone => {
                self.ask_all(world, A);
                let certified = self.settle(world, A, Some(self.alone));
                let alone = self.held[A].as_ref().is_some_and(|h| h.settled.contains_key(&self.alone));
                if alone {
                    let length = world.rng.between(3_500 * MS, 6 * SECOND);
                    world.isolate(self.alone, length);
                }
                alone || late && !certified
            }
            Plan::Final => {
                [A, RECOVER].into_iter().for_each(|kind| self.ask_all(world, kind));
                if self.certificate(world, RECOVER).is_some() || late {
                    self.settle(world, A, None);
                }
                // The RECOVER goes in when the order is final, or about to be.
                let enough = world.rng.between(1, world.committee.quorum() as u64) as usize;
                self.acknowledged(A) >= enough || late
            }
        };
        if ready || world.now > self.since + 4 * SECOND {
            (self.phase, self.since) = (Phase::Recovering, world.now);
        }
    }

    fn recovering(&mut self, world: &mut World) {
        let actor = self.purse().address.actor();
        let seqnum = self.held[RECOVER].as_ref().map_or(0, |h| h.order.seqnum);
        let network = self.purse().network_id;
        let decided = world.checks.log.decided(&Place::new(network, actor, seqnum));
        let certified = self.settle(world, RECOVER, None);
        if !certified {
            self.ask_all(world, RECOVER);
            // Where many have settled it, nobody votes for a recovery any more; then it settles everywhere.
            if world.now > self.since + 2 * SECOND {
                self.settle(world, A, None);
                self.settle(world, B, None);
            }
        }
        if self.plan == Plan::Final {
            self.settle(world, A, None);
        }
        let moved = !certified && world.checks.account_of(network, actor).is_some_and(|(s, ..)| s >= seqnum);
        if decided || moved {
            // What was certified before is worth nothing now, or has settled anyway.
            for kind in [A, B] {
                self.settle(world, kind, None);
            }
            (self.phase, self.since) = (Phase::GoingOn, world.now);
        }
    }

    /// The account pays again, which has to become final.
    fn going_on(&mut self, world: &mut World) {
        if self.acknowledged(NEXT) >= world.committee.quorum() {
            world.fault("accounts that went on");
            self.phase = Phase::Idle;
            return;
        }
        let before = (self.purse().seqnum, self.purse().prev_hash);
        let stale = self.held[NEXT].is_none() || {
            // Another state than the order was signed for, and it never got through: it never will.
            let certified = self.certificate(world, NEXT).is_some();
            !certified && self.refresh(world) && before != (self.purse().seqnum, self.purse().prev_hash)
        };
        if stale && self.refresh(world) {
            if let Some(other) = self.held[NEXT].take() {
                self.left.insert(before, other);
            }
            let now = (self.purse().seqnum, self.purse().prev_hash);
            match self.left.remove(&now) {
                Some(signed) => self.held[NEXT] = Some(signed),
                None => {
                    let order = self.pay(world);
                    self.hold(NEXT, order);
                }
            }
        }
        self.ask_all(world, NEXT);
        self.settle(world, NEXT, None);
    }
}

impl Client for Recoverer {
    fn start(&mut self, world: &mut World) {
        wake(world, self.addr, 200 * MS, SECOND, 0);
    }

    fn on_message(&mut self, world: &mut World, envelope: Envelope) {
        let Addr::Shard(authority, _) = envelope.from else { return };
        if envelope.id / 8 != self.round {
            return;
        }
        let Some(Some(held)) = self.held.get_mut((envelope.id % 8) as usize) else { return };
        match envelope.body {
            Body::Voted(Ok(wire::VoteReply { vote: Some(vote), .. })) => {
                let batch = decode_batch(std::slice::from_ref(&held.order.raw));
                let good = batch.is_ok_and(|batch| {
                    let promise = florin_core::certificate::Promise::Vote;
                    florin_core::certificate::check_signed(
                        promise,
                        &world.committee,
                        &batch.id,
                        std::slice::from_ref(&vote),
                    )
                    .is_ok_and(|bits| bits.iter().all(|b| b.get(0)))
                });
                if good && vote.authority == authority {
                    held.votes.insert(authority, vote);
                }
            }
            Body::Settled(Ok(reply)) if reply.acknowledgement.is_some() => drop(held.settled.insert(authority, ())),
            _ => {}
        }
    }

    fn on_timer(&mut self, world: &mut World, _: u64) {
        match self.phase {
            Phase::Idle if world.calm => return,
            Phase::Idle => self.begin(world),
            Phase::Locking => self.locking(world),
            Phase::Recovering => self.recovering(world),
            Phase::GoingOn => self.going_on(world),
        }
        wake(world, self.addr, 60 * MS, 180 * MS, 0);
    }

    fn unfinished(&self) -> Option<String> {
        let actor = self.purse().address.actor();
        (self.phase != Phase::Idle)
            .then(|| format!("account {actor} is not free again: {:?}, {:?}", self.plan, self.phase))
    }
}
