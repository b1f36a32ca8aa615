//! Somebody who keeps what actors of PBTX networks have sent: it hands in old chains after their actors were removed,
//! certificates at shards that have no business with them, and makes new batches of old transactions, to have them
//! settled twice where there are no sequence numbers.

use std::collections::BTreeMap;

use bytes::Bytes;
use florin_core::batch::decode_batch;
use florin_core::envelope::Order;
use florin_core::wire;

use crate::client::{Client, Signer, wake};
use crate::message::{Addr, Body, Envelope};
use crate::pbtx::Cheat;
use crate::world::{MS, World};

/// Envelopes that it keeps, and certificates.
const KEPT_MAX: usize = 96;

struct Batch {
    orders: Vec<Bytes>,
    shard: u32,
    votes: BTreeMap<u32, wire::Signed>,
}

/// It keeps what it hears.
pub struct OldChains {
    addr: Addr,
    kept: Vec<(u32, Bytes)>,
    /// Its own actor where nobody counts: with a new transaction of it, old ones come in a batch that settles something.
    own: Option<Cheat>,
    certificates: Vec<(u32, wire::Certificate, Vec<Bytes>)>,
    round: u64,
    batch: Option<Batch>,
}

impl OldChains {
    /// At this address, with an actor in a network without sequence numbers, if there is one.
    pub fn new(addr: Addr, own: Option<Cheat>) -> Self {
        OldChains { addr, kept: Vec::new(), own, certificates: Vec::new(), round: 0, batch: None }
    }

    /// Keeps some of what went over the network lately.
    fn listen(&mut self, world: &mut World) {
        let own = world.committee.network.id;
        let foreign = |raw: &Bytes| Order::decode(raw.clone()).is_ok_and(|o| o.network_id != own);
        let Some(last) = world.recorded.back().cloned() else { return };
        let (orders, certificate) = match last.body {
            Body::Vote(orders) => (orders, None),
            Body::Settle(certificate, orders) => (orders, Some(certificate)),
            _ => return,
        };
        let (Addr::Shard(_, shard), true) = (last.to, orders.iter().any(foreign)) else { return };
        for raw in orders.iter().filter(|raw| foreign(raw)) {
            let at = if self.kept.len() < KEPT_MAX { self.kept.len() } else { world.rng.index(KEPT_MAX) };
            self.kept.splice(at..(at + 1).min(self.kept.len()), [(shard, raw.clone())]);
        }
        if let Some(certificate) = certificate {
            let at = if self.certificates.len() < KEPT_MAX { KEPT_MAX } else { world.rng.index(KEPT_MAX) };
            let end = self.certificates.len();
            self.certificates.splice(at.min(end)..(at + 1).min(end), [(shard, certificate, orders)]);
        }
    }

    /// Asks for votes for some old transactions in a batch that never was.
    fn ask(&mut self, world: &mut World) {
        if self.kept.is_empty() {
            return;
        }
        let any = self.kept[world.rng.index(self.kept.len())].clone();
        let (shard, first) = match &self.own {
            Some(own) if world.rng.chance(700) => {
                let seqnum = world.rng.below(9) as u32;
                (own.shard(world.committee.shards), own.draft_after(world, seqnum, 0).raw)
            }
            _ => any,
        };
        let mut orders = vec![first];
        for _ in 0..world.rng.below(6) {
            let (other, raw) = &self.kept[world.rng.index(self.kept.len())];
            if *other == shard {
                orders.push(raw.clone());
            }
        }
        world.fault("old transactions in new batches");
        self.round += 1;
        for authority in 0..world.committee.size() as u32 {
            world.send(self.addr, Addr::Shard(authority, shard), self.round, Body::Vote(orders.clone()));
        }
        self.batch = Some(Batch { orders, shard, votes: BTreeMap::new() });
    }

    /// Settles that batch, if there are votes, at a part of the committee.
    fn settle(&mut self, world: &mut World) {
        let Some(batch) = self.batch.take() else { return };
        let Ok(decoded) = decode_batch(&batch.orders) else { return };
        if batch.votes.len() < world.committee.quorum() {
            return;
        }
        world.fault("old transactions certified again");
        let (root, count) = (Bytes::copy_from_slice(&decoded.id.root), batch.orders.len() as u32);
        let votes = batch.votes.into_values().collect();
        let certificate = wire::Certificate { epoch: world.committee.epoch, root, count, votes };
        for authority in 0..world.committee.size() as u32 {
            if world.rng.chance(600) {
                let body = Body::Settle(certificate.clone(), batch.orders.clone());
                world.send(self.addr, Addr::Shard(authority, batch.shard), 0, body);
            }
        }
    }

    /// A certificate at a shard that it is not for, or late at its own.
    fn misplace(&self, world: &mut World) {
        if self.certificates.is_empty() {
            return;
        }
        let (shard, certificate, orders) = self.certificates[world.rng.index(self.certificates.len())].clone();
        let to = world.rng.below(u64::from(world.committee.shards)) as u32;
        world.fault(if to == shard { "old certificates" } else { "certificates at wrong shards" });
        let authority = world.rng.below(world.committee.size() as u64) as u32;
        world.send(self.addr, Addr::Shard(authority, to), 0, Body::Settle(certificate, orders));
    }
}

impl Client for OldChains {
    fn start(&mut self, world: &mut World) {
        wake(world, self.addr, 50 * MS, 200 * MS, 0);
    }

    fn on_message(&mut self, _: &mut World, envelope: Envelope) {
        if let (Body::Voted(Ok(wire::VoteReply { vote: Some(vote), .. })), Addr::Shard(from, _)) =
            (envelope.body, envelope.from)
            && envelope.id == self.round
            && vote.authority == from
            && let Some(batch) = &mut self.batch
        {
            batch.votes.insert(from, vote);
        }
    }

    fn on_timer(&mut self, world: &mut World, _: u64) {
        if world.calm {
            return;
        }
        self.listen(world);
        match (&self.batch, world.rng.below(4)) {
            (_, 0) => self.misplace(world),
            (Some(_), 1 | 2) => self.settle(world),
            (None, _) => self.ask(world),
            _ => {}
        }
        wake(world, self.addr, 20 * MS, 120 * MS, 0);
    }

    fn unfinished(&self) -> Option<String> {
        None
    }
}
