//! A wallet, or an actor of a PBTX network, that signs two orders for one seqnum, shows each to a part of the committee, and tries to make
//! certificates of both: with the votes it got, with those of Byzantine authorities, and with too few.

use bytes::Bytes;
use florin_core::batch::decode_batch;
use florin_core::envelope::{Order, next_hash};
use florin_core::merkle::Tree;
use florin_core::{evidence, receipt, wire};

use crate::checkers::Rule;
use crate::client::{Client, SignedOrder, Signer, wake};
use crate::message::{Addr, Body, Envelope};
use crate::world::{MS, World};

struct Side {
    first: SignedOrder,
    orders: Vec<Bytes>,
    root: [u8; 32],
    votes: Vec<wire::Signed>,
    /// From authorities that have settled it.
    acknowledgements: Vec<wire::Signed>,
}

/// It has several accounts, for each may lock itself for ever.
pub struct SignsTwice {
    addr: Addr,
    signers: Vec<Box<dyn Signer>>,
    at: usize,
    round: u64,
    sides: Vec<Side>,
    /// The round before, whose acknowledgements come late.
    last: Vec<Side>,
}

impl SignsTwice {
    /// With these accounts, which have some money, or these actors.
    pub fn new(addr: Addr, signers: Vec<Box<dyn Signer>>) -> Self {
        SignsTwice { addr, signers, at: 0, round: 0, sides: Vec::new(), last: Vec::new() }
    }

    fn sign(&self, world: &mut World) -> Side {
        let signer = &self.signers[self.at];
        let (seqnum, prev_hash) = signer.chain();
        let first = signer.draft_after(world, seqnum, prev_hash);
        let mut orders = vec![first.raw.clone()];
        if world.rng.chance(400) {
            // A second one, chained to the first: where the other side wins, it hangs in the air.
            orders.push(signer.draft_after(world, first.seqnum, next_hash(&first.id)).raw);
        }
        let root = decode_batch(&orders).map(|b| b.id.root).unwrap_or_default();
        Side { first, orders, root, votes: Vec::new(), acknowledgements: Vec::new() }
    }

    fn begin(&mut self, world: &mut World) {
        world.fault("orders signed twice");
        self.round += 1;
        self.sides = vec![self.sign(world), self.sign(world)];
        let shard = self.signers[self.at].shard(world.committee.shards);
        let everywhere = world.rng.chance(300);
        for authority in 0..world.committee.size() as u32 {
            let mine = world.rng.index(2);
            for side in 0..2 {
                if side == mine || everywhere || world.byzantine.contains(&authority) {
                    let body = Body::Vote(self.sides[side].orders.clone());
                    world.send(self.addr, Addr::Shard(authority, shard), self.round * 2 + side as u64, body);
                }
            }
        }
    }

    /// Whoever has voted for both sides is named, and is a liar. Votes that are garbage prove nothing.
    fn accuse(&self, world: &mut World) {
        let mut guilty = Vec::new();
        for authority in 0..world.committee.size() as u32 {
            let vote = |side: &Side| side.votes.iter().find(|vote| vote.authority == authority).cloned();
            if let [Some(a), Some(b)] = [0, 1].map(|side| Some((vote(&self.sides[side])?, &self.sides[side]))) {
                let receipts = [a, b].map(|(vote, side)| receipt(world, side, vec![vote], Vec::new()));
                guilty.extend(named(world, &receipts));
            }
        }
        match guilty.iter().find(|i| !world.byzantine.contains(i)) {
            Some(honest) => world.violation(Rule::FalseEvidence, format!("authority {honest} is accused")),
            None if guilty.is_empty() => {}
            None => world.fault("liars named by their votes"),
        }
    }

    /// Who has voted for one side and settled the other has done no wrong, whatever its acknowledgement is shown as.
    fn accuse_wrongly(&self, world: &mut World, side: usize, acknowledgement: &wire::Signed) {
        let [settled, other] = [&self.last[side], &self.last[1 - side]];
        let Some(vote) = other.votes.iter().find(|vote| vote.authority == acknowledgement.authority) else { return };
        let voted = receipt(world, other, vec![vote.clone()], Vec::new());
        let shown = [
            receipt(world, settled, Vec::new(), vec![acknowledgement.clone()]),
            receipt(world, settled, vec![acknowledgement.clone()], Vec::new()),
        ];
        for receipt in shown {
            let guilty = named(world, &[voted.clone(), receipt]);
            if let Some(honest) = guilty.iter().find(|i| !world.byzantine.contains(i)) {
                world.violation(Rule::FalseEvidence, format!("authority {honest} is accused of what it has settled"));
            }
        }
    }

    fn end(&mut self, world: &mut World) {
        self.accuse(world);
        let signer = &self.signers[self.at];
        let shard = signer.shard(world.committee.shards);
        let quorum = world.committee.quorum();
        let mut winner = None;
        for (i, side) in self.sides.iter().enumerate() {
            let mut votes = side.votes.clone();
            let enough = votes.len() >= quorum;
            if enough {
                winner = Some(i);
            } else if let Some(last) = votes.last().cloned()
                && world.rng.chance(700)
            {
                match world.rng.below(3) {
                    0 => votes.resize(quorum, last),
                    1 => votes.extend(self.sides[1 - i].votes.iter().cloned()),
                    _ => {}
                }
            }
            let root = Bytes::copy_from_slice(&side.root);
            let count = side.orders.len() as u32;
            let certificate = wire::Certificate { epoch: world.committee.epoch, root, count, votes };
            for authority in 0..world.committee.size() as u32 {
                if !enough || world.rng.chance(400) {
                    let body = Body::Settle(certificate.clone(), side.orders.clone());
                    world.send(self.addr, Addr::Shard(authority, shard), self.round * 2 + i as u64, body);
                }
            }
        }
        if let Some(winner) = winner {
            self.signers[self.at].advance(&self.sides[winner].first);
        }
        self.at = (self.at + 1) % self.signers.len();
        self.last = std::mem::take(&mut self.sides);
    }
}

/// The receipt of a side's first order, with these signatures; none if an order of the side does not decode.
fn receipt(
    world: &World,
    side: &Side,
    votes: Vec<wire::Signed>,
    acknowledgements: Vec<wire::Signed>,
) -> Option<wire::Receipt> {
    let ids = side.orders.iter().map(|raw| Order::decode(raw.clone()).map(|order| order.id));
    let tree = Tree::new(&ids.collect::<Result<Vec<_>, _>>().ok()?);
    let (first, place) = (side.first.raw.clone(), (0, side.orders.len()));
    Some(receipt::assemble(&world.committee, first, &tree, place, votes, acknowledgements))
}

/// Whom two receipts accuse.
fn named(world: &World, receipts: &[Option<wire::Receipt>; 2]) -> Vec<u32> {
    let [Some(a), Some(b)] = receipts else { return Vec::new() };
    evidence::check(&world.committee, [a, b]).map_or(Vec::new(), |found| found.guilty)
}

impl Client for SignsTwice {
    fn start(&mut self, world: &mut World) {
        wake(world, self.addr, 50 * MS, 400 * MS, 0);
    }

    fn on_message(&mut self, world: &mut World, envelope: Envelope) {
        if let Body::Settled(Ok(wire::SettleReply { acknowledgement: Some(signed), .. })) = &envelope.body
            && envelope.id / 2 == self.round
            && let Some(side) = self.last.get_mut((envelope.id % 2) as usize)
            && side.acknowledgements.iter().all(|a| a.authority != signed.authority)
        {
            side.acknowledgements.push(signed.clone());
            self.accuse_wrongly(world, (envelope.id % 2) as usize, signed);
        }
        if let Body::Voted(Ok(wire::VoteReply { vote: Some(vote), .. })) = envelope.body
            && envelope.id / 2 == self.round
            && let Some(side) = self.sides.get_mut((envelope.id % 2) as usize)
            && side.votes.iter().all(|v| v.authority != vote.authority)
        {
            side.votes.push(vote);
        }
    }

    fn on_timer(&mut self, world: &mut World, _: u64) {
        if !self.sides.is_empty() {
            self.end(world);
        } else if !world.calm {
            self.begin(world);
        } else {
            return;
        }
        wake(world, self.addr, 30 * MS, 250 * MS, 0);
    }

    fn unfinished(&self) -> Option<String> {
        None
    }
}
