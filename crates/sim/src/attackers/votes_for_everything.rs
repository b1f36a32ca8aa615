//! An authority that votes for whatever it is shown, acknowledges whatever it is told, and serves garbage
//! to its peers. It has its real key, so its signatures are valid unless it prefers otherwise.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use florin_core::batch::decode_batch;
use florin_core::bitmap::Bitmap;
use florin_core::cash::blind::BlindedNonce;
use florin_core::cash::mint_keys::MintKeys;
use florin_core::certificate::{BatchId, Promise, sign};
use florin_core::committee::Committee;
use florin_core::signatures::AuthorityKey;
use florin_core::{Code, Error, wire};

use super::ShardLiar;
use super::copies::Identity;
use crate::message::{Addr, Body, Envelope};
use crate::world::World;

/// Batches that it remembers.
const REMEMBERED: usize = 32;

/// One shard of it.
pub struct VotesForEverything {
    committee: Arc<Committee>,
    key: Arc<AuthorityKey>,
    authority: u32,
    shard: u32,
    batches: VecDeque<(BatchId, Vec<Bytes>)>,
    keys: Option<Arc<MintKeys>>,
}

impl VotesForEverything {
    /// A shard of the authority with this identity. With keys of e-cash it signs whatever it is shown, or something else.
    pub fn new(me: Identity) -> Self {
        let Identity { committee, key, place: (authority, shard), mint: keys, .. } = me;
        VotesForEverything { committee, key, authority, shard, batches: VecDeque::new(), keys }
    }

    fn signed(&self, world: &mut World, promise: Promise, batch: &BatchId) -> wire::Signed {
        let mut bitmap = Bitmap::full(batch.count);
        if world.rng.chance(100) {
            bitmap = Bitmap::empty(batch.count);
            bitmap.set(world.rng.index(batch.count));
        }
        let mut signed = sign(promise, &self.committee, self.authority, &self.key, batch, &bitmap);
        match world.rng.below(20) {
            0 => signed.authority = world.rng.below(self.committee.size() as u64 + 1) as u32,
            1 => signed.signature = flip(world, &signed.signature),
            2 => signed.bitmap = Bytes::from(vec![0xff; batch.count.div_ceil(8) + 1]),
            _ => {}
        }
        signed
    }

    fn vote(&mut self, world: &mut World, orders: &[Bytes]) -> Body {
        let Ok(batch) = decode_batch(orders) else {
            return Body::Voted(Err(Error::new(Code::Busy, "no")));
        };
        self.batches.push_back((batch.id, orders.to_vec()));
        if self.batches.len() > REMEMBERED {
            self.batches.pop_front();
        }
        if world.rng.chance(80) {
            let refuse = |i| wire::OrderError { index: i, code: Code::KeyMismatch as u32, ..Default::default() };
            let errors = (0..batch.id.count as u32 + 3).map(refuse).collect();
            return Body::Voted(Ok(wire::VoteReply { vote: None, errors }));
        }
        let vote = Some(self.signed(world, Promise::Vote, &batch.id));
        Body::Voted(Ok(wire::VoteReply { vote, errors: Vec::new() }))
    }

    fn settle(&self, world: &mut World, certificate: &wire::Certificate) -> Body {
        let root = <[u8; 32]>::try_from(certificate.root.as_ref());
        let (Ok(root), 1..=4_096) = (root, certificate.count) else {
            return Body::Settled(Err(Error::new(Code::Busy, "no")));
        };
        let batch = BatchId { root, count: certificate.count as usize };
        let acknowledgement = Some(self.signed(world, Promise::Settled, &batch));
        let batch_missing = world.rng.chance(100);
        let known = self.batches.iter().find(|(id, _)| id.root == root).map(|(_, orders)| orders.clone());
        let mut shares = Vec::new();
        for (index, raw) in known.iter().flatten().enumerate() {
            let asked = world.checks.asked_by(raw);
            let signed: Vec<Bytes> = asked.iter().filter_map(|(b, tier)| self.share(world, *tier, b)).collect();
            if !signed.is_empty() {
                shares.push(wire::NoteShares { index: index as u32, shares: signed });
            }
        }
        Body::Settled(Ok(wire::SettleReply { acknowledgement, batch_missing, shares, ..Default::default() }))
    }

    /// A share for a note, whether it is paid or not: a true one, or one of another tier, of other bytes, or none.
    fn share(&self, world: &mut World, tier: u32, blinded: &Bytes) -> Option<Bytes> {
        let keys = self.keys.as_ref()?;
        let tiers = keys.tiers() as u32;
        let (tier, way) = (tier % tiers, world.rng.below(8));
        world.fault("shares of a liar");
        let tier = if way == 0 { (tier + 1) % tiers } else { tier };
        let point = BlindedNonce::parse(blinded).ok()?;
        let share = Bytes::copy_from_slice(&keys.share(tier)?.sign(&point).to_bytes());
        match way {
            1 => None,
            2 => Some(flip(world, &share)),
            // The identity.
            3 => Some([&[0xc0][..], &[0; 47]].concat().into()),
            4 => Some(blinded.clone()),
            5 => Some(share.slice(..40)),
            _ => Some(share),
        }
    }

    fn notes(&self, world: &mut World, request: &wire::NotesRequest) -> Body {
        let mut issued = Vec::new();
        for blinded in &request.blinded {
            let tiers: Vec<u32> = (0..self.keys.as_ref().map_or(0, |k| k.tiers()) as u32).collect();
            let shares = tiers.iter().map(|t| self.share(world, *t, blinded).unwrap_or_default()).collect();
            issued.push(wire::IssuedNote { tiers, shares });
        }
        Body::NotesAre(Ok(wire::NotesReply { issued, states: Vec::new() }))
    }

    /// A stream of things that never were, or not like this.
    fn follow(&self, world: &mut World, from: u64) -> Body {
        let mut entries = Vec::new();
        for i in 0..world.rng.below(4) {
            let known = (!self.batches.is_empty()).then(|| {
                let at = world.rng.index(self.batches.len());
                self.batches[at].0
            });
            let batch =
                known.filter(|_| world.rng.chance(500)).unwrap_or(BatchId { root: world.rng.bytes(), count: 3 });
            let count = if world.rng.chance(100) { u32::MAX } else { batch.count as u32 };
            let bitmap = match world.rng.below(3) {
                0 => vec![0xff; 1],
                _ => Bitmap::full(batch.count).as_bytes().to_vec(),
            };
            let position = if world.rng.chance(200) { u64::MAX } else { from + i };
            let root = Bytes::copy_from_slice(&batch.root);
            entries.push(wire::SettledEntry { position, root, count, bitmap: bitmap.into(), ..Default::default() });
        }
        Body::Followed(wire::FollowReply { entries, end: u64::MAX })
    }

    /// A batch with a certificate that has only its own votes.
    fn batch(&self, world: &mut World, root: &Bytes) -> Body {
        let known = self.batches.iter().find(|(id, _)| id.root[..] == root[..]);
        let (id, orders) = match known {
            Some((id, orders)) => (*id, orders.clone()),
            None => (BatchId { root: world.rng.bytes(), count: 1 }, vec![Bytes::from_static(b"garbage")]),
        };
        let vote = self.signed(world, Promise::Vote, &id);
        let mut votes = vec![vote; self.committee.quorum()];
        if world.rng.chance(500) {
            votes.iter_mut().enumerate().for_each(|(i, v)| v.authority = i as u32);
        }
        let root = Bytes::copy_from_slice(&id.root);
        let certificate = wire::Certificate { epoch: self.committee.epoch, root, count: id.count as u32, votes };
        Body::Batches(wire::BatchReply { certificates: vec![certificate], orders })
    }
}

impl ShardLiar for VotesForEverything {
    fn on_message(&mut self, world: &mut World, envelope: Envelope) {
        if world.rng.chance(150) {
            return world.fault("ignored by an attacker");
        }
        let body = match &envelope.body {
            Body::Vote(orders) => self.vote(world, orders),
            Body::Settle(certificate, _) => self.settle(world, certificate),
            Body::Notes(request) => self.notes(world, request),
            Body::Follow(from) => self.follow(world, *from),
            Body::Batch(root) => self.batch(world, root),
            _ => return,
        };
        world.fault("lies of an authority");
        world.send(Addr::Shard(self.authority, self.shard), envelope.from, envelope.id, body);
    }
}

/// The same bytes with one bit changed.
pub fn flip(world: &mut World, bytes: &Bytes) -> Bytes {
    let mut out = bytes.to_vec();
    if !out.is_empty() {
        let at = world.rng.index(out.len());
        out[at] ^= 1 << world.rng.below(8);
    }
    out.into()
}
