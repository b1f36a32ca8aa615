//! Opening, and what is taken of others. Checks in the order in which they stand; by log time.

use bytes::Bytes;

use super::input::Open;
use super::state::{LaneKey, Stage, id_of};
use super::{Todo, Turn, VirtualId, Virtuals};
use crate::address::Address;
use crate::channel::manager::{self, EndId, EndState, Reply as ManagerReply};
use crate::channel::{OPENER, OTHER};
use crate::content::check_address;
use crate::error::{Code, Error, Result};
use crate::limits::{AMOUNT_MAX, HUB_HOPS_MAX, VIRTUALS_MAX};
use crate::merkle::Hash;
use crate::permission::Permission;
use crate::wire::virtual_record::Kind as Record;
use crate::wire::{self, VirtualCap, VirtualHop, VirtualOpen};

/// What is left for a virtual channel by those before it in the same message, which are not open yet.
pub(super) struct Ahead {
    /// Minor units that the other side can still pay with.
    pub room: u64,
    /// How many of them are taken.
    pub taken: usize,
    /// Caps of those that are passed on, minor units.
    pub backed: u64,
}

impl Virtuals {
    /// Opens one as its payer.
    pub(super) fn open(&mut self, open: Open, turn: &mut Turn) -> Result<()> {
        let cap = VirtualCap {
            id: Bytes::copy_from_slice(&open.id),
            permission: open.permission,
            cap: open.cap,
            not_after_ms: open.not_after_ms,
        };
        if let Some(known) = self.channels.get(&open.id) {
            let same = |out: &super::state::Out| out.cap == cap && out.key.0 == open.end && out.hops == open.hops;
            return match known.out.as_ref().is_some_and(same) && known.inc.is_none() {
                true => Ok(()),
                false => Err(Error::new(Code::VirtualChannel, "the id was used for another virtual channel")),
            };
        }
        check_form(&cap, &open.hops)?;
        self.check_out(&open.end, &cap, open.fee, turn)?;
        let wanted = VirtualOpen { cap: Some(cap), hops: open.hops, fee: open.fee };
        self.put_in(open.end, wanted, turn)
    }

    /// Whether a leaf may be put into a lane of an end.
    fn check_out(&self, end: &EndId, cap: &VirtualCap, fee: u64, turn: &Turn) -> Result<()> {
        let status = turn.manager.status(end)?;
        if self.diverged.contains(end) || status.diverged {
            return Err(Error::new(Code::HubDiverged, "the journal has forgotten vouchers of this channel"));
        }
        if !self.is_ready(end) || self.links.get(end).is_none_or(|link| link.connection.number.is_none()) {
            let message = "the next party is not connected, or vouchers are not compared yet";
            return Err(Error::new(Code::HubOffline, message));
        }
        if status.state != EndState::Open || status.leaving_at_ms != 0 {
            let found = format!("{:?}, {} announced", status.state, status.leaving);
            return Err(Error::expected(Code::ChannelNotOpen, "state of the channel", "open", found));
        }
        check_window(turn.manager.limits(turn.now, end)?, cap)?;
        let needs = self.wanted(end).saturating_add(u128::from(cap.cap)).saturating_add(u128::from(fee));
        if needs > u128::from(status.available) {
            let expected = format!("at most {}", status.available);
            return Err(Error::expected(Code::HubFunds, "what virtual channels take", expected, needs));
        }
        Ok(())
    }

    /// What is to be put into lanes of an end, and takes no money yet.
    fn wanted(&self, end: &EndId) -> u128 {
        let lanes = self.outs.range((*end, 0)..=(*end, u32::MAX));
        let members = lanes.flat_map(|(_, set)| &set.members).filter_map(|id| self.channels.get(id)?.out.as_ref());
        let wanted = members.filter(|out| out.stage == Stage::Wanted);
        wanted.map(|out| u128::from(out.cap.cap) + u128::from(out.fee)).sum()
    }

    /// Into a lane with a free place.
    fn put_in(&mut self, end: EndId, open: VirtualOpen, turn: &mut Turn) -> Result<()> {
        let mut lanes = self.outs.range((end, 0)..=(end, u32::MAX));
        let free = lanes.find(|(_, set)| set.members.len() < VIRTUALS_MAX as usize).map(|(key, _)| *key);
        let key = match free {
            Some(key) => key,
            None => self.new_lane(end, turn)?,
        };
        self.commit(Record::Opening(wire::VirtualOpening { lane: id_of(&key), open: Some(open) }), turn);
        turn.todo.push_back(Todo::Lane(key));
        Ok(())
    }

    fn new_lane(&mut self, end: EndId, turn: &mut Turn) -> Result<LaneKey> {
        match turn.call(manager::Input::AllocateLane(end))? {
            ManagerReply::Lane(lane) => {
                let key = (end, lane);
                self.commit(Record::Lane(id_of(&key).unwrap_or_default()), turn);
                Ok(key)
            }
            other => Err(Error::new(Code::LanesUsedUp, format!("expected a lane, found {other:?}"))),
        }
    }

    /// Whether what the other side has put into its set is wanted, after those `ahead` of it in the same message.
    pub(super) fn judge_open(&self, end: &EndId, open: &VirtualOpen, ahead: &Ahead, turn: &Turn) -> Result<()> {
        let room = ahead.room;
        let cap = open.cap.clone().unwrap_or_default();
        check_form(&cap, &open.hops)?;
        let id = VirtualId::try_from(&cap.id[..]).unwrap_or_default();
        if self.channels.contains_key(&id) {
            return Err(Error::new(Code::VirtualChannel, "the id was used for another virtual channel"));
        }
        check_window(turn.manager.limits(turn.now, end)?, &cap)?;
        let policy = &self.config.policy;
        if cap.cap < policy.cap_min || cap.cap > room {
            let expected = format!("{} to {room}", policy.cap_min);
            return Err(Error::expected(Code::VirtualTerms, "cap of the virtual channel", expected, cap.cap));
        }
        let ends = self.channels.values().filter_map(|one| one.inc.as_ref());
        let open_now = ahead.taken + ends.filter(|inc| inc.key.0 == *end && inc.over.is_none()).count();
        if open_now >= policy.channels_max {
            let expected = format!("fewer than {}", policy.channels_max);
            return Err(Error::expected(Code::VirtualTerms, "virtual channels at once", expected, open_now));
        }
        let Some(hop) = open.hops.first() else {
            return match policy.accepts {
                true => Ok(()),
                false => Err(Error::new(Code::HubRoute, "this wallet takes no virtual channels")),
            };
        };
        if !policy.forwards {
            return Err(Error::new(Code::HubRoute, "this wallet passes nothing on"));
        }
        let backed = self.backed().amount.saturating_add(ahead.backed).saturating_add(cap.cap);
        if backed > policy.backs_max {
            let what = "caps of virtual channels that are passed on";
            return Err(Error::expected(Code::VirtualTerms, what, format!("at most {}", policy.backs_max), backed));
        }
        let to = next(end, hop, turn)?;
        let asked = self.config.fee(cap.cap).saturating_add(hop.fee);
        if open.fee < asked {
            return Err(Error::expected(Code::HubFee, "fee", format!("at least {asked}"), open.fee));
        }
        let last = cap.not_after_ms.saturating_sub(self.config.margin_ms());
        if hop.not_after_ms > last {
            let expected = format!("at most {last} ms");
            return Err(Error::expected(Code::HubMargin, "time limit of the next leaf", expected, hop.not_after_ms));
        }
        self.check_out(&to, &VirtualCap { not_after_ms: hop.not_after_ms, ..cap }, hop.fee, turn)
    }

    /// Passes one on that was taken.
    pub(super) fn pass_on(&mut self, end: &EndId, open: &VirtualOpen, turn: &mut Turn) -> Result<()> {
        let Some((hop, rest)) = open.hops.split_first() else { return Ok(()) };
        let to = next(end, hop, turn)?;
        let cap = VirtualCap { not_after_ms: hop.not_after_ms, ..open.cap.clone().unwrap_or_default() };
        self.put_in(to, VirtualOpen { cap: Some(cap), hops: rest.to_vec(), fee: hop.fee }, turn)
    }
}

/// The end in which it is opened next.
fn next(from: &EndId, hop: &VirtualHop, turn: &Turn) -> Result<EndId> {
    let found = if hop.channel.is_empty() {
        let own = turn.manager.status(from)?.control;
        Address::from_slice(&hop.party).ok().and_then(|party| turn.manager.lookup(&own, &party))
    } else {
        let channel = Hash::try_from(&hop.channel[..]).unwrap_or_default();
        let both = [OPENER, OTHER].map(|side| EndId { channel, side });
        both.into_iter().find(|end| turn.manager.status(end).is_ok())
    };
    let unknown = || Error::new(Code::HubRoute, "the next party has no channel here that is not the same");
    found.filter(|end| end.channel != from.channel).ok_or_else(unknown)
}

fn check_form(cap: &VirtualCap, hops: &[VirtualHop]) -> Result<()> {
    check_address("virtual channel's id", &cap.id)?;
    Permission::decode_account(&cap.permission)?;
    if !(1..=AMOUNT_MAX).contains(&cap.cap) {
        return Err(Error::expected(Code::BadAmount, "cap of the virtual channel", "1 to 2^63 - 1", cap.cap));
    }
    if hops.len() > HUB_HOPS_MAX {
        let expected = format!("at most {HUB_HOPS_MAX}");
        return Err(Error::expected(Code::HubRoute, "hubs on the way", expected, hops.len()));
    }
    Ok(())
}

fn check_window((first, last): (u64, u64), cap: &VirtualCap) -> Result<()> {
    if !(first..=last).contains(&cap.not_after_ms) {
        let (what, expected) = ("time limit of the virtual channel", format!("{first} to {last} ms"));
        return Err(Error::expected(Code::VirtualTerms, what, expected, cap.not_after_ms));
    }
    Ok(())
}
