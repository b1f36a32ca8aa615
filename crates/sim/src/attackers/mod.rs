//! Those who break the rules, one to a file.

pub mod copies;
pub mod false_sessions;
pub mod floods_the_log;
pub mod forges_notes;
pub mod forgets;
pub mod garbage;
pub mod lies_about_roots;
pub mod lies_in_recovery;
pub mod makes_up_keys;
pub mod old_chains;
pub mod replays;
pub mod robs_channels;
pub mod signs_twice;
pub mod slow;
pub mod spends_twice;
pub mod stale_reads;
pub mod twins;
pub mod votes_for_everything;
pub mod wrong_clock;

use std::sync::Arc;

use florin_core::signatures::AuthorityKey;

use crate::message::{Addr, Envelope};
use crate::sequencer::Ring;
use crate::world::{MS, Timer, World};
use copies::Identity;

/// What a lying authority has where others have a shard.
pub trait ShardLiar {
    /// A message arrives.
    fn on_message(&mut self, world: &mut World, envelope: Envelope);
}

/// A liar of the kind with this number.
pub fn shard_liar(kind: u64, me: Identity) -> Box<dyn ShardLiar> {
    match kind {
        0 => Box::new(forgets::Forgets::new(me)),
        1 => Box::new(twins::Twins::new(me)),
        2 => Box::new(stale_reads::StaleReads::new(me)),
        3 => Box::new(slow::Slow::new(me)),
        4 => Box::new(garbage::Garbage::new(me)),
        _ => Box::new(votes_for_everything::VotesForEverything::new(me)),
    }
}

/// How many kinds there are to draw from: as many as the others together vote for everything.
pub const SHARD_LIARS: u64 = 10;

/// What a lying authority has where others have their log.
pub struct LogLiar {
    /// Which one.
    pub authority: u32,
    /// Its part in the engine.
    pub ring: Ring,
    /// Its key: its signatures are valid unless it prefers otherwise.
    pub key: Arc<AuthorityKey>,
    lies: Vec<Box<dyn LogLie>>,
}

/// One way to lie in the log.
pub trait LogLie {
    /// Its turn.
    fn act(&mut self, world: &mut World, me: &mut LogLiar);
    /// A message for this authority's log.
    fn on_message(&mut self, world: &mut World, me: &mut LogLiar, envelope: &Envelope);
}

impl LogLiar {
    /// One that lies in all ways.
    pub fn new(authority: u32, ring: Ring, key: Arc<AuthorityKey>) -> Self {
        let lies: Vec<Box<dyn LogLie>> = vec![
            Box::new(floods_the_log::FloodsTheLog),
            Box::<lies_in_recovery::LiesInRecovery>::default(),
            Box::new(wrong_clock::WrongClock),
            Box::<false_sessions::FalseSessions>::default(),
        ];
        LogLiar { authority, ring, key, lies }
    }

    /// Its address.
    pub fn addr(&self) -> Addr {
        Addr::Log(self.authority)
    }

    /// Before anything happens.
    pub fn start(&mut self, world: &mut World) {
        world.timer(self.addr(), 0, 50 * MS, Timer::Propose);
    }

    /// Its timer.
    pub fn on_timer(&mut self, world: &mut World, timer: Timer) {
        if timer == Timer::Propose && !world.calm {
            let mut lies = std::mem::take(&mut self.lies);
            let at = world.rng.index(lies.len());
            lies[at].act(world, self);
            self.lies = lies;
            let pause = world.options.pace * world.rng.between(20 * MS, 150 * MS);
            world.timer(self.addr(), 0, pause, Timer::Propose);
        }
    }

    /// A message arrives.
    pub fn on_message(&mut self, world: &mut World, envelope: &Envelope) {
        let mut lies = std::mem::take(&mut self.lies);
        lies.iter_mut().for_each(|lie| lie.on_message(world, self, envelope));
        self.lies = lies;
    }
}
