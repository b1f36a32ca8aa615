//! Somebody on the network who sends again what others have sent: as it was, elsewhere, or changed.

use bytes::Bytes;
use florin_core::wire;

use super::votes_for_everything::flip;
use crate::client::{Client, wake};
use crate::message::{Addr, Body, Envelope};
use crate::world::{MS, World};

/// It has no account and no key.
pub struct Replays {
    addr: Addr,
}

impl Replays {
    /// At this address.
    pub fn new(addr: Addr) -> Self {
        Replays { addr }
    }

    fn again(&self, world: &mut World) {
        let at = world.rng.index(world.recorded.len());
        let old = world.recorded[at].clone();
        let mut to = old.to;
        if let Addr::Shard(_, shard) = to
            && world.rng.chance(700)
        {
            to = Addr::Shard(world.rng.below(world.committee.size() as u64) as u32, shard);
        }
        let body = match old.body {
            Body::Settle(certificate, orders) => {
                let orders = if world.rng.chance(200) { Vec::new() } else { self.bent(world, orders) };
                Body::Settle(self.forged(world, certificate), orders)
            }
            Body::Vote(orders) => Body::Vote(self.bent(world, orders)),
            other => other,
        };
        world.fault("replayed");
        world.send(self.addr, to, 0, body);
    }

    /// One order changed by a bit, dropped, or repeated; mostly none.
    fn bent(&self, world: &mut World, mut orders: Vec<Bytes>) -> Vec<Bytes> {
        if orders.is_empty() {
            return orders;
        }
        let at = world.rng.index(orders.len());
        match world.rng.below(8) {
            0 => orders[at] = flip(world, &orders[at]),
            1 => orders.push(orders[at].clone()),
            2 => orders.reverse(),
            3 => orders.truncate(at),
            _ => {}
        }
        orders
    }

    fn forged(&self, world: &mut World, mut certificate: wire::Certificate) -> wire::Certificate {
        if certificate.votes.is_empty() {
            return certificate;
        }
        let at = world.rng.index(certificate.votes.len());
        match world.rng.below(9) {
            0 => certificate.epoch += 1,
            1 => certificate.votes.truncate(world.committee.quorum() - 1),
            2 => certificate.votes[at] = certificate.votes[0].clone(),
            3 => certificate.votes[at].authority = world.rng.below(world.committee.size() as u64 + 1) as u32,
            4 => certificate.votes[at].bitmap = flip(world, &certificate.votes[at].bitmap),
            5 => certificate.votes[at].signature = flip(world, &certificate.votes[at].signature),
            6 => certificate.root = flip(world, &certificate.root),
            7 => certificate.count = world.rng.below(5_000) as u32,
            _ => {}
        }
        certificate
    }
}

impl Client for Replays {
    fn start(&mut self, world: &mut World) {
        wake(world, self.addr, 50 * MS, 200 * MS, 0);
    }

    fn on_message(&mut self, _: &mut World, _: Envelope) {}

    fn on_timer(&mut self, world: &mut World, _: u64) {
        if world.calm {
            return;
        }
        if !world.recorded.is_empty() {
            self.again(world);
        }
        wake(world, self.addr, 10 * MS, 150 * MS, 0);
    }

    fn unfinished(&self) -> Option<String> {
        None
    }
}
