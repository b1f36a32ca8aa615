//! An authority whose clock is a day ahead or behind, or anywhere.

use florin_core::ordered::engine::Ordering as _;
use florin_core::ordered::item;

use super::{LogLiar, LogLie};
use crate::message::Envelope;
use crate::world::World;

/// It votes often, too.
pub struct WrongClock;

impl LogLie for WrongClock {
    fn act(&mut self, world: &mut World, me: &mut LogLiar) {
        let clock_ms = match world.rng.below(8) {
            0 => 1,
            1 => u64::MAX,
            2 => 0,
            _ => world.clock_ms(me.authority),
        };
        world.fault("wrong clocks voted");
        for data in item::pack(clock_ms, Vec::new()) {
            let _ = me.ring.submit(data);
        }
    }

    fn on_message(&mut self, _: &mut World, _: &mut LogLiar, _: &Envelope) {}
}
