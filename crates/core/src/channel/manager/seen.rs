//! What the log says about a channel, folded into its ends. An older record, or the same again, changes nothing.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::effect::{Effects, Event};
use super::end::{End, Money};
use super::input::EndId;
use super::issue::push;
use super::query::EndState;
use super::{Manager, corrupt, hash};
use crate::channel::{OPENER, OTHER, check_side, rules};
use crate::content::check_address;
use crate::error::{Code, Error, Result};
use crate::limits::{AMOUNT_MAX, LANES_MAX};
use crate::merkle::Hash;
use crate::permission::Permission;
use crate::wire::manager_record::Kind as Record;
use crate::wire::{self, ChannelLane, ChannelRecord};

impl Manager {
    /// The ends of a channel that the manager has.
    pub(super) fn ends_of(&self, channel: &Hash) -> Vec<EndId> {
        let both = [OPENER, OTHER].map(|side| EndId { channel: *channel, side });
        both.into_iter().filter(|id| self.ends.contains_key(id)).collect()
    }

    pub(super) fn seen(&mut self, channel: Hash, record: ChannelRecord, time_ms: u64, fx: &mut Effects) -> Result<()> {
        let ends = self.ends_of(&channel);
        // Looking at both sides' keys is curve arithmetic; of a record that is known, only its time counts.
        if !ends.iter().filter_map(|id| self.ends.get(id)).any(|end| end.record.revision == record.revision) {
            check_record(&record)?;
        }
        let owned = [OPENER, OTHER].into_iter().filter(|side| self.own(&record, *side).is_some()).count();
        let news = ends.iter().filter_map(|id| self.ends.get(id)).any(|end| end.record.revision < record.revision);
        let old = ends.iter().filter_map(|id| self.ends.get(id)).any(|end| end.record.revision > record.revision);
        let channel = Bytes::copy_from_slice(&channel);
        if old || owned == 0 && ends.is_empty() {
            return Ok(());
        }
        if news || ends.len() < owned {
            self.commit(Record::Seen(wire::ManagerSeen { channel, time_ms, record: Some(record) }), fx);
        } else if ends.iter().filter_map(|id| self.ends.get(id)).any(|end| end.is_due(time_ms)) {
            self.commit(Record::Seen(wire::ManagerSeen { channel, time_ms, record: None }), fx);
        }
        Ok(())
    }

    /// Own account of a side.
    fn own(&self, record: &ChannelRecord, side: u32) -> Option<crate::address::Address> {
        let address = crate::address::Address::from_slice(&rules::side(record, side).address).ok()?;
        self.config.accounts.contains_key(&address).then_some(address)
    }

    pub(super) fn apply_seen(&mut self, seen: &wire::ManagerSeen) -> Result<()> {
        let channel = hash(&seen.channel)?;
        if let Some(record) = &seen.record {
            for side in [OPENER, OTHER] {
                let id = EndId { channel, side };
                if let Some(account) = self.own(record, side) {
                    let unopened = ChannelRecord { revision: 0, ..record.clone() };
                    self.ends.entry(id).or_insert_with(|| End::new(account, side, emptied(unopened)));
                }
            }
        }
        let ends = self.ends_of(&channel);
        if ends.is_empty() {
            return Err(corrupt("a record of a channel without an end"));
        }
        for id in ends {
            if let Some(record) = &seen.record {
                self.apply_record(&id, record)?;
            }
            self.apply_time(&id, seen.time_ms)?;
            self.after_chain(&id);
        }
        Ok(())
    }

    fn apply_record(&mut self, id: &EndId, record: &ChannelRecord) -> Result<()> {
        let end = self.end_mut(id)?;
        if record.revision <= end.record.revision {
            return Ok(());
        }
        let before = std::mem::replace(&mut end.record, record.clone());
        end.failed = false;
        end.learn_keys();
        self.later.news(id);
        if before.settling_at_ms == 0 && record.settling_at_ms != 0 {
            self.close_queue(id);
        }
        let end = self.ends.get_mut(id).ok_or_else(|| corrupt("an end is gone"))?;
        end.fold_lanes(&before);
        let events = events(*id, &before, record);
        self.events.extend(events);
        if record.settling_at_ms != 0 {
            end.prune();
        }
        if record.collected {
            self.collected(id);
        }
        Ok(())
    }

    /// What log time ends.
    fn apply_time(&mut self, id: &EndId, time_ms: u64) -> Result<()> {
        let superseded_max = self.config.policy.superseded_max;
        let end = self.end_mut(id)?;
        if time_ms <= end.seen_ms {
            return Ok(());
        }
        end.seen_ms = time_ms;
        let mut freed = Vec::new();
        for (number, lane) in &mut end.out {
            if let Some(lock) = lane.lock.take_if(|lock| lock.not_after_ms < time_ms) {
                freed.push((*number, lock.kept.amount.saturating_sub(lane.amount)));
            }
            let redeemed = |kept: &super::end::Kept| {
                lane.chain.is_some_and(|(nonce, amount)| nonce < kept.nonce && amount > kept.amount)
            };
            lane.cancel.take_if(|cancel| cancel.until_ms < time_ms && !redeemed(&cancel.kept));
        }
        for lane in end.paid.values_mut() {
            if let Some(lock) = lane.lock.take_if(|lock| lock.not_after_ms < time_ms) {
                push(&mut lane.history, lock.kept, superseded_max);
            }
        }
        for (lane, amount) in freed {
            self.lock_over(*id, lane, amount);
        }
        Ok(())
    }

    /// After anything that the log or an older self has brought: sums, and whether they make sense.
    pub(super) fn after_chain(&mut self, id: &EndId) {
        let Some(end) = self.ends.get_mut(id) else { return };
        end.money = end.count();
        let short = end.raw_available().min(end.money.confirmed) < 0 && end.state() != EndState::Collected;
        let ahead = end.out.values().any(|lane| {
            lane.chain.is_some_and(|(nonce, amount)| nonce > lane.nonce || lane.last.is_none() && amount > 0)
        });
        if (short || ahead) && !end.diverged {
            end.diverged = true;
            self.events.push(Event::Diverged(*id));
        }
        for lane in end.out.values_mut() {
            lane.nonce = lane.nonce.max(lane.chain.map_or(0, |(nonce, _)| nonce));
        }
        end.find_cheats();
        self.refill(id);
        self.touch(id);
    }

    /// Everything is paid out: nothing is reserved, locked or to be redeemed any more.
    fn collected(&mut self, id: &EndId) {
        let Some(end) = self.ends.get_mut(id) else { return };
        end.reservations.clear();
        end.waiting.clear();
        end.pool = 0;
        end.out.clear();
        end.paid.clear();
        end.cheated.clear();
        end.money = Money::default();
    }
}

/// A record without money or lanes: what an end knows before it has folded the first one.
fn emptied(mut record: ChannelRecord) -> ChannelRecord {
    for side in [&mut record.opener, &mut record.other].into_iter().flatten() {
        *side = wire::ChannelSide { address: side.address.clone(), ..Default::default() };
    }
    record.lanes.clear();
    (record.settling_at_ms, record.collected) = (0, false);
    record
}

/// That a record is one that the log could have: authorities are asked, and one may lie.
pub(super) fn check_record(record: &ChannelRecord) -> Result<()> {
    if record.revision == 0 {
        return Err(Error::expected(Code::BadContent, "revision of the channel", "at least 1", 0));
    }
    for side in [&record.opener, &record.other] {
        let missing = || Error::new(Code::BadContent, "a channel without a side");
        let side = side.as_ref().ok_or_else(missing)?;
        check_address("address of a channel's side", &side.address)?;
        if !side.permission.is_empty() {
            Permission::decode_account(&side.permission)?;
        }
        let largest = [side.deposited, side.withdrawn, side.sent, side.leaving].into_iter().max().unwrap_or(0);
        if largest > AMOUNT_MAX {
            return Err(Error::expected(Code::BadAmount, "amount of a channel's side", "at most 2^63 - 1", largest));
        }
    }
    for lane in &record.lanes {
        check_side("payer of a channel's lane", lane.payer)?;
        if lane.lane >= LANES_MAX {
            return Err(Error::expected(Code::VoucherLane, "lane", format!("below {LANES_MAX}"), lane.lane));
        }
    }
    Ok(())
}

/// What has happened between two records.
fn events(end: EndId, before: &ChannelRecord, after: &ChannelRecord) -> Vec<Event> {
    let mut events = Vec::new();
    if before.revision == 0 {
        events.push(Event::Opened(end));
    }
    let (own, own_before) = (rules::side(after, end.side), rules::side(before, end.side));
    if own.deposited > own_before.deposited {
        events.push(Event::Deposited { end, amount: own.deposited - own_before.deposited });
    }
    let known: BTreeMap<(u32, u32), u64> = before.lanes.iter().map(|l| ((l.payer, l.lane), l.nonce)).collect();
    for ChannelLane { payer, lane, nonce, redeemed, secret, .. } in &after.lanes {
        if known.get(&(*payer, *lane)).is_none_or(|before| before < nonce) {
            let secret = secret.clone();
            events.push(Event::Redeemed { end, payer: *payer, lane: *lane, amount: *redeemed, secret });
        }
    }
    let (other, other_before) = (rules::side(after, 1 - end.side), rules::side(before, 1 - end.side));
    if other.leaving_at_ms != 0 && other.leaving_at_ms != other_before.leaving_at_ms {
        events.push(Event::WithdrawalAnnounced { end, amount: other.leaving, at_ms: other.leaving_at_ms });
    }
    if after.settling_at_ms != before.settling_at_ms {
        events.push(Event::Settling { end, at_ms: after.settling_at_ms });
    }
    if after.collected && !before.collected {
        events.push(Event::Collected(end));
    }
    events
}

impl End {
    /// Decodes the sides' keys, once each.
    pub fn learn_keys(&mut self) {
        for side in [OPENER, OTHER] {
            if self.keys[side as usize].is_none() {
                self.keys[side as usize] = rules::keys(&self.record, side).ok();
            }
        }
    }

    /// Notes the lanes whose cancelled lock was redeemed all the same.
    pub fn find_cheats(&mut self) {
        let cheated = self.out.iter().filter(|(_, lane)| {
            let (Some((nonce, amount)), Some(cancel)) = (lane.chain, &lane.cancel) else { return false };
            nonce < cancel.kept.nonce && amount > cancel.kept.amount
        });
        self.cheated = cheated.map(|(number, _)| *number).collect();
    }

    /// Whether something of this end ends with log time.
    fn is_due(&self, time_ms: u64) -> bool {
        let out = self.out.values().filter_map(|lane| lane.lock.as_ref());
        let paid = self.paid.values().filter_map(|lane| lane.lock.as_ref());
        let cancels = self.out.values().filter_map(|lane| lane.cancel.as_ref());
        let exposed = self.out.values().map(|lane| lane.exposed).chain(self.paid.values().map(|lane| lane.exposed));
        let mut limits = exposed.flatten().map(|exposed| exposed.next_ms).filter(|next| *next != 0);
        time_ms > self.seen_ms
            && (limits.any(|next| self.seen_ms <= next && next < time_ms)
                || out.chain(paid).any(|lock| lock.not_after_ms < time_ms)
                || cancels.into_iter().any(|cancel| cancel.until_ms < time_ms))
    }

    /// Takes over what the log has of the lanes.
    fn fold_lanes(&mut self, before: &ChannelRecord) {
        let lanes = std::mem::take(&mut self.record.lanes);
        let changed = lanes.iter().filter(|lane| {
            let old = before.lanes.binary_search_by_key(&(lane.payer, lane.lane), |old| (old.payer, old.lane));
            old.ok().map(|at| &before.lanes[at]) != Some(*lane)
        });
        for lane in changed {
            match lane.payer == self.side {
                true => self.fold_out(lane),
                false => self.fold_paid(lane),
            }
        }
        self.record.lanes = lanes;
    }

    fn fold_out(&mut self, seen: &ChannelLane) {
        self.next_lane = self.next_lane.max(seen.lane + 1);
        let lane = self.out.entry(seen.lane).or_default();
        lane.chain = Some((seen.nonce, seen.redeemed));
        let taken = |cancel: &super::end::Cancel| cancel.kept.nonce > seen.nonce && seen.redeemed > cancel.kept.amount;
        if lane.cancel.as_ref().is_some_and(taken) {
            // A cancelled lock, redeemed all the same: the cancel takes it back.
            return;
        }
        // A lock that was redeemed is paid; so is what a newer self has signed.
        lane.lock.take_if(|lock| lock.kept.nonce <= seen.nonce);
        // What is claimed on an older set can come to nothing again, when a newer voucher takes its place.
        let signed = lane.last.as_ref().filter(|_| lane.exposed.is_some()).map(|last| last.amount);
        lane.amount = signed.unwrap_or(lane.amount).max(seen.redeemed);
    }

    fn fold_paid(&mut self, seen: &ChannelLane) {
        let lane = self.paid.entry(seen.lane).or_default();
        lane.chain = Some((seen.nonce, seen.redeemed));
        lane.nonce = lane.nonce.max(seen.nonce);
        lane.lock.take_if(|lock| lock.kept.nonce <= seen.nonce);
    }

    /// Forgets superseded vouchers.
    fn prune(&mut self) {
        self.out.values_mut().for_each(|lane| lane.history.clear());
        self.paid.values_mut().for_each(|lane| lane.history.clear());
    }
}
