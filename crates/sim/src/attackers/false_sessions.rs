//! An authority that signs headers of sessions as nobody else came to them, and serves false sessions and units to
//! whoever catches up.

use bytes::Bytes;
use florin_core::ordered::session;
use florin_core::wire;

use super::votes_for_everything::flip;
use super::{LogLiar, LogLie};
use crate::message::{Addr, Body, Envelope};
use crate::world::World;

/// It remembers the last true sessions that it was told of, to change them.
#[derive(Default)]
pub struct FalseSessions {
    known: Vec<wire::SignedSession>,
}

impl FalseSessions {
    fn lie(&self, world: &mut World, me: &LogLiar, number: u64) -> wire::SignedSession {
        let known = self.known.iter().find(|s| s.header.as_ref().is_some_and(|h| h.session == number));
        let mut signed = known.cloned().unwrap_or_default();
        let header = signed.header.get_or_insert_with(wire::SessionHeader::default);
        (header.session, header.epoch) = (number, world.committee.epoch);
        match world.rng.below(5) {
            0 => header.state_hash = Bytes::copy_from_slice(&world.rng.bytes()),
            1 => header.units += 1,
            2 => header.units_root = flip(world, &header.units_root.clone()),
            3 => header.time_ms += 1,
            // The true header, if it knows it, and units that are not those.
            _ => {}
        }
        let own = session::sign(&world.committee, me.authority, &me.key, header);
        signed.signatures.retain(|s| s.authority != me.authority);
        signed.signatures.push(own.clone());
        while signed.signatures.len() < world.committee.quorum() {
            signed.signatures.push(own.clone());
        }
        signed
    }
}

impl LogLie for FalseSessions {
    fn act(&mut self, world: &mut World, me: &mut LogLiar) {
        let number = world.checks.log.newest_session().saturating_sub(world.rng.below(3));
        // Sometimes the truth: then the others leave the session before the last honest one is through.
        if let Some(header) = world.checks.log.header(number)
            && world.rng.chance(500)
        {
            let own = session::sign(&world.committee, me.authority, &me.key, &header);
            for peer in 0..world.committee.size() as u32 {
                world.send(me.addr(), Addr::Log(peer), 0, Body::Signature(number, own.clone()));
            }
            return;
        }
        let Some(own) = self.lie(world, me, number).signatures.into_iter().find(|s| s.authority == me.authority) else {
            return;
        };
        world.fault("false signatures of sessions");
        let peer = world.rng.below(world.committee.size() as u64) as u32;
        world.send(me.addr(), Addr::Log(peer), 0, Body::Signature(number, own));
    }

    fn on_message(&mut self, world: &mut World, me: &mut LogLiar, envelope: &Envelope) {
        let body = match &envelope.body {
            Body::Sessions(from) => {
                world.send(me.addr(), envelope.from, 0, Body::Sessions(from.saturating_sub(1)));
                let sessions = (*from..*from + 3).map(|number| self.lie(world, me, number)).collect();
                Body::SessionsAre(wire::SessionsReply { sessions })
            }
            Body::Units(session, from) => {
                let data = Bytes::copy_from_slice(&world.rng.bytes());
                let count = world.rng.between(0, 70) as usize;
                let units = vec![wire::OrderedUnit { creator: me.authority, data }; count];
                Body::UnitsAre(*session, *from, wire::UnitsReply { units })
            }
            Body::SessionsAre(reply) => {
                self.known = reply.sessions.clone();
                return;
            }
            _ => return,
        };
        world.fault("false sessions");
        world.send(me.addr(), envelope.from, envelope.id, body);
    }
}
