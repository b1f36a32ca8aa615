//! An authority that does all it should, seconds late, to whom it likes; others wait for nothing.

use super::ShardLiar;
use super::copies::{Copy, Identity, Program};
use crate::message::{Addr, Envelope};
use crate::world::{Event, MS, SECOND, World};

/// One shard of it.
pub struct Slow {
    me: Identity,
    program: Program,
    now: Copy,
}

impl Slow {
    /// A shard of the authority with this identity.
    pub fn new(me: Identity) -> Self {
        let (program, now) = Program::new(&me);
        Slow { me, program, now }
    }
}

impl ShardLiar for Slow {
    fn on_message(&mut self, world: &mut World, envelope: Envelope) {
        let Some(body) = self.program.answer(world, &mut self.now, &envelope) else { return };
        // It has promised, and nobody hears of it.
        let is_victim = matches!(envelope.from, Addr::Client(client) if client % 3 == 0);
        if is_victim {
            return world.fault("withheld by an attacker");
        }
        world.fault("late answers of an attacker");
        let delay = world.rng.between(200 * MS, 8 * SECOND);
        let late = Envelope { from: self.me.addr(), to: envelope.from, id: envelope.id, body };
        world.after(delay, Event::Message(late));
    }
}
