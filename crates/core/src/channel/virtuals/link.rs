//! Connections: what the two sides of a channel say to each other after connecting.
//!
//! A journal that was restored from an old backup has forgotten vouchers, and would sign their nonces again. So after a start
//! nothing is signed on a channel before the other side has said which vouchers it holds, and which it has signed back. One that the
//! journal does not know ends all signing of sets on that channel; claims go on. What gets lost is said again.

use std::collections::BTreeMap;

use super::state::{LaneKey, Stage, id_of};
use super::{Event, Turn, VirtualId, Virtuals};
use crate::channel::hub::shared::{Connection, check_channel, unknown};
use crate::channel::manager::EndId;
use crate::error::{Code, Error, Result};
use crate::wire::virtual_message::Kind;
use crate::wire::virtual_record::Kind as Record;
use crate::wire::{self, HubLane};

/// A connection with the other side of a channel.
#[derive(Debug, Default)]
pub struct Link {
    pub connection: Connection,
    /// When the voucher under way of a lane was said, own clock, ms.
    pub said: BTreeMap<LaneKey, u64>,
}

impl Virtuals {
    /// Whether sets may be signed on an end.
    pub(super) fn is_ready(&self, end: &EndId) -> bool {
        self.links.get(end).is_some_and(|link| link.connection.compared) && !self.diverged.contains(end)
    }

    pub(super) fn connected(&mut self, end: EndId, connection: u64, turn: &mut Turn) -> Result<()> {
        turn.manager.status(&end)?;
        self.links.entry(end).or_default().connection.number = Some(connection);
        // Of all lanes, one for each: also one that a hub or a hand has used would be signed again by an old journal.
        let held = turn.manager.held_nonces(&end)?.into_iter().map(|(payer, lane, nonce)| ((payer, lane), nonce));
        let mut nonces: BTreeMap<(u32, u32), u64> = held.collect();
        for (key, set) in self.outs.range((end, 0)..=(end, u32::MAX)).filter(|(_, set)| set.acked().nonce > 0) {
            let nonce = nonces.entry((end.side, key.1)).or_default();
            *nonce = set.acked().nonce.max(*nonce);
        }
        let lanes = nonces.into_iter().map(|((payer, lane), nonce)| HubLane { payer, lane, nonce });
        let hello = wire::VirtualHello { lanes: lanes.collect() };
        self.send(end, Kind::Hello(hello), turn);
        if self.is_ready(&end) {
            self.say_again(end, turn);
        }
        Ok(())
    }

    pub(super) fn message(&mut self, end: EndId, message: wire::VirtualMessage, turn: &mut Turn) -> Result<()> {
        check_channel(&end, &message.channel)?;
        turn.manager.status(&end)?;
        match message.kind.ok_or_else(|| Error::new(Code::BadContent, "an empty message"))? {
            Kind::Hello(hello) => self.on_hello(end, &hello, turn),
            Kind::Update(update) => self.on_update(end, update, turn),
            Kind::Ack(ack) => self.on_ack(end, ack, turn),
            Kind::Opened(id) => self.on_opened(end, &id, turn),
            Kind::Close(close) => self.on_close(end, close, turn),
        }
    }

    fn on_hello(&mut self, end: EndId, hello: &wire::VirtualHello, turn: &mut Turn) -> Result<()> {
        let known = |lane: &HubLane| match lane.payer == end.side {
            true => turn.manager.out_lane(&end, lane.lane).map(|of| of.nonce),
            false => turn.manager.paid_lane(&end, lane.lane).map(|of| of.nonce),
        };
        if !unknown(&hello.lanes, known)?.is_empty() {
            if !self.diverged.contains(&end) {
                self.commit(Record::Diverged(id_of(&(end, 0)).unwrap_or_default()), turn);
                turn.event(Event::Diverged(end));
            }
            return Ok(());
        }
        self.links.entry(end).or_default().connection.compared = true;
        self.say_again(end, turn);
        Ok(())
    }

    /// What the own side waits for, and what the other has perhaps not got.
    fn say_again(&mut self, end: EndId, turn: &mut Turn) {
        let lanes: Vec<LaneKey> = self.outs.range((end, 0)..=(end, u32::MAX)).map(|(key, _)| *key).collect();
        for key in lanes {
            self.say_update(&key, turn);
            turn.todo.push_back(super::Todo::Lane(key));
        }
        let of_end = |id: &VirtualId| self.channels.get(id)?.inc.as_ref().filter(|inc| inc.key.0 == end);
        let ids: Vec<VirtualId> = self.channels.keys().filter(|id| of_end(id).is_some()).copied().collect();
        for id in ids {
            let Some(one) = self.channels.get(&id) else { continue };
            let Some(inc) = one.inc.as_ref().filter(|inc| inc.over.is_none()) else { continue };
            if inc.closing.is_some() {
                self.say_close(&id, turn);
            } else if one.opened && one.out.as_ref().is_none_or(|out| out.stage == Stage::Live) {
                self.send(end, Kind::Opened(inc.cap.id.clone()), turn);
            }
        }
    }

    /// What was said long ago and not answered.
    pub(super) fn say_late(&mut self, turn: &mut Turn) {
        let retry = self.config.policy.retry_ms;
        let mut late = Vec::new();
        for link in self.links.values_mut().filter(|link| link.connection.number.is_some() && link.connection.compared)
        {
            link.said.retain(|key, _| self.outs.get(key).is_some_and(|set| set.states.len() > 1));
            let due = link.said.iter().filter(|(_, at)| at.saturating_add(retry) <= turn.now.clock_ms);
            late.extend(due.map(|(key, _)| *key));
        }
        late.iter().for_each(|key| self.say_update(key, turn));
    }
}
