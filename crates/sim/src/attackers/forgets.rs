//! An authority that forgets its promises: time and again its state is what it was before, as if an old backup had been put
//! back. It votes for the other order then, in all honesty.

use super::ShardLiar;
use super::copies::{Copy, Identity, Program};
use crate::message::Envelope;
use crate::world::World;

/// One shard of it.
pub struct Forgets {
    me: Identity,
    program: Program,
    now: Copy,
    backup: Copy,
}

impl Forgets {
    /// A shard of the authority with this identity.
    pub fn new(me: Identity) -> Self {
        let (program, now) = Program::new(&me);
        Forgets { me, program, backup: now.clone(), now }
    }
}

impl ShardLiar for Forgets {
    fn on_message(&mut self, world: &mut World, envelope: Envelope) {
        if world.rng.chance(20) {
            self.backup = self.now.clone();
        }
        if world.rng.chance(30) {
            world.fault("states forgotten by an attacker");
            self.now = self.backup.clone();
        }
        if let Some(body) = self.program.answer(world, &mut self.now, &envelope) {
            world.send(self.me.addr(), envelope.from, envelope.id, body);
        }
    }
}
