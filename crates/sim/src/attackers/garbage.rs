//! An authority that answers with what is no answer: of another kind, with bytes changed, to another question, to nobody's.

use bytes::Bytes;
use florin_core::{Code, Error, wire};

use super::ShardLiar;
use super::copies::{Copy, Identity, Program};
use super::votes_for_everything::flip;
use crate::message::{Addr, Body, Envelope};
use crate::world::World;

/// One shard of it.
pub struct Garbage {
    me: Identity,
    program: Program,
    now: Copy,
    last: Option<Body>,
}

impl Garbage {
    /// A shard of the authority with this identity.
    pub fn new(me: Identity) -> Self {
        let (program, now) = Program::new(&me);
        Garbage { me, program, now, last: None }
    }

    /// Something in place of an answer.
    fn spoil(&mut self, world: &mut World, body: Body) -> Body {
        let noise = |world: &mut World| Bytes::copy_from_slice(&world.rng.bytes()[..]);
        match (world.rng.below(6), body) {
            (0, _) => Body::Followed(wire::FollowReply { entries: Vec::new(), end: world.rng.below(u64::MAX) }),
            (1, _) => Body::Voted(Err(Error::new(Code::StorageFailed, "garbage"))),
            (2, body) => self.last.replace(body.clone()).unwrap_or(body),
            (_, Body::Voted(Ok(mut reply))) => {
                if let Some(vote) = &mut reply.vote {
                    match world.rng.below(3) {
                        0 => vote.signature = flip(world, &vote.signature),
                        1 => vote.bitmap = noise(world),
                        _ => vote.authority = world.rng.below(1 << 32) as u32,
                    }
                }
                reply.errors.push(wire::OrderError { index: u32::MAX, code: 9_999, ..Default::default() });
                Body::Voted(Ok(reply))
            }
            (_, Body::Settled(Ok(mut reply))) => {
                let signed = wire::Signed { authority: 0, bitmap: noise(world), signature: noise(world) };
                reply.acknowledgement = Some(signed);
                reply.waiting.push(wire::Waiting { index: u32::MAX, next_seqnum: u32::MAX });
                reply.shares.push(wire::NoteShares { index: u32::MAX, shares: vec![noise(world); 3] });
                Body::Settled(Ok(reply))
            }
            (_, Body::Followed(mut reply)) => {
                for entry in &mut reply.entries {
                    entry.root = noise(world);
                    entry.count = world.rng.below(1 << 32) as u32;
                }
                Body::Followed(reply)
            }
            (_, Body::Batches(mut reply)) => {
                reply.orders = reply.orders.iter().map(|order| flip(world, order)).collect();
                reply.certificates.truncate(1);
                Body::Batches(reply)
            }
            (_, Body::NotesAre(_)) => {
                let note = wire::IssuedNote { tiers: vec![u32::MAX, 0], shares: vec![noise(world)] };
                let states = vec![Default::default(); 3];
                Body::NotesAre(Ok(wire::NotesReply { issued: vec![note], states }))
            }
            (_, body) => body,
        }
    }
}

impl ShardLiar for Garbage {
    fn on_message(&mut self, world: &mut World, envelope: Envelope) {
        let Some(body) = self.program.answer(world, &mut self.now, &envelope) else { return };
        let spoiled = world.rng.chance(600);
        let body = if spoiled { self.spoil(world, body) } else { body };
        if spoiled {
            world.fault("garbage of an attacker");
        }
        let to = match world.rng.below(20) {
            0 => Addr::Shard(world.rng.below(u64::from(world.options.authorities)) as u32, self.me.place.1),
            _ => envelope.from,
        };
        world.send(self.me.addr(), to, envelope.id, body);
    }
}
