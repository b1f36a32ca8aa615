//! An authority that votes as it should, and shows the past to whoever reads: settled streams, batches, notes as they were.

use std::collections::VecDeque;

use super::ShardLiar;
use super::copies::{Copy, Identity, Program};
use crate::message::{Body, Envelope};
use crate::world::World;

/// States of the past that it keeps.
const KEPT: usize = 4;

/// One shard of it.
pub struct StaleReads {
    me: Identity,
    program: Program,
    now: Copy,
    past: VecDeque<Copy>,
}

impl StaleReads {
    /// A shard of the authority with this identity.
    pub fn new(me: Identity) -> Self {
        let (program, now) = Program::new(&me);
        StaleReads { me, program, past: [now.clone()].into(), now }
    }
}

impl ShardLiar for StaleReads {
    fn on_message(&mut self, world: &mut World, envelope: Envelope) {
        if world.rng.chance(15) {
            self.past.push_back(self.now.clone());
            if self.past.len() > KEPT {
                self.past.pop_front();
            }
        }
        let is_read = matches!(envelope.body, Body::Follow(_) | Body::Batch(_) | Body::Notes(_));
        let body = if is_read {
            world.fault("stale answers of an attacker");
            let at = world.rng.index(self.past.len());
            self.program.answer(world, &mut self.past[at], &envelope)
        } else {
            self.program.answer(world, &mut self.now, &envelope)
        };
        if let Some(body) = body {
            world.send(self.me.addr(), envelope.from, envelope.id, body);
        }
    }
}
