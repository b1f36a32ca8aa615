//! An authority that reports in every recovery at once, shows nothing that it holds, and reports of recoveries that
//! there are none of.

use std::collections::BTreeSet;

use florin_core::ordered::engine::Ordering as _;
use florin_core::wire;
use prost::Message as _;

use super::{LogLiar, LogLie};
use crate::checkers::orders::Place;
use crate::message::Envelope;
use crate::world::World;

/// It knows what is frozen, as all do who read the log.
#[derive(Default)]
pub struct LiesInRecovery {
    reported: BTreeSet<Place>,
}

/// A unit with a report.
pub fn report(place: Place) -> bytes::Bytes {
    let (network_id, actor, seqnum) = (place.network, place.actor, place.seqnum);
    let report = wire::RecoveryReport { network_id, actor, seqnum, ..Default::default() };
    let item = wire::Item { kind: Some(wire::item::Kind::Report(report)) }.encode_to_vec().into();
    wire::UnitData { clock_ms: 0, items: vec![item] }.encode_to_vec().into()
}

impl LogLie for LiesInRecovery {
    fn act(&mut self, world: &mut World, me: &mut LogLiar) {
        for place in world.checks.log.open_recoveries() {
            if self.reported.insert(place) || world.rng.chance(200) {
                world.fault("false reports");
                let _ = me.ring.submit(report(place));
            }
        }
        if world.rng.chance(200) {
            let seqnum = world.rng.below(9) as u32;
            let place = match world.pbtx.networks.first() {
                // Nobody recovers there.
                Some(network) if world.rng.chance(300) => Place::new(network.id, 1, seqnum),
                _ => {
                    let actor = world.rng.index(world.directory.len());
                    Place::new(world.committee.network.id, world.directory[actor].actor(), seqnum)
                }
            };
            let _ = me.ring.submit(report(place));
        }
    }

    fn on_message(&mut self, _: &mut World, _: &mut LogLiar, _: &Envelope) {}
}
