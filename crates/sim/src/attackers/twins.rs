//! Two machines with one key: each is honest, and neither knows of the other. Who asks, and mostly what is asked for, decides
//! which of them answers.

use super::ShardLiar;
use super::copies::{Copy, Identity, Program};
use crate::message::{Addr, Envelope};
use crate::world::World;

/// One shard of both.
pub struct Twins {
    me: Identity,
    program: Program,
    twins: [Copy; 2],
}

impl Twins {
    /// A shard of the authority with this identity.
    pub fn new(me: Identity) -> Self {
        let (program, one) = Program::new(&me);
        Twins { me, program, twins: [one.clone(), one] }
    }
}

impl ShardLiar for Twins {
    fn on_message(&mut self, world: &mut World, envelope: Envelope) {
        let usual = match envelope.from {
            Addr::Shard(authority, _) | Addr::Log(authority) => authority,
            Addr::Client(client) => client,
        };
        let twin = if world.rng.chance(800) { usual as usize % 2 } else { world.rng.index(2) };
        if twin == 1 {
            world.fault("answers of a second machine");
        }
        if let Some(body) = self.program.answer(world, &mut self.twins[twin], &envelope) {
            world.send(self.me.addr(), envelope.from, envelope.id, body);
        }
    }
}
