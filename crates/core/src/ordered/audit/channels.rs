//! What the units say that channels must be: each side's counters from what was paid in, redeemed and paid out, without
//! the rules' own arithmetic. What a side has sent is the sum of its lanes, for a merged lane's amount is in another's.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use super::Audit;
use super::books::Applied;
use crate::address::Address;
use crate::channel::channel_id;
use crate::error::Result;
use crate::ordered::modules::channels::{DELAYS_PER_STEP, UNDECIDED, leaving_id};
use crate::wire::{self, ChannelLane, ChannelRecord, ChannelSide, credit_entry::Kind, output};

const MAX_DECIDED: u64 = UNDECIDED - 1;

#[derive(Default)]
pub(super) struct Channels {
    all: BTreeMap<Vec<u8>, Channel>,
    /// By id and side, or 2 for the settle.
    waiting: BTreeMap<(Vec<u8>, u32), Waiting>,
    /// Held by them, minor units.
    pub held: i128,
}

#[derive(Default)]
struct Waiting {
    /// When it was asked for; none if it waits no more.
    clocks: Option<Vec<u64>>,
    /// It was there before this unit.
    before: bool,
}

#[derive(Default)]
struct Channel {
    record: ChannelRecord,
    /// By payer and lane.
    lanes: BTreeMap<(u32, u32), ChannelLane>,
}

impl Channel {
    fn side(&mut self, side: u32) -> &mut ChannelSide {
        let of = if side == 0 { &mut self.record.opener } else { &mut self.record.other };
        of.get_or_insert_with(Default::default)
    }

    fn number(&mut self, address: &Address) -> Option<u32> {
        (0..2).find(|side| self.side(*side).address == address.as_bytes()[..])
    }

    fn sent(&self, payer: u32) -> i128 {
        self.lanes.values().filter(|lane| lane.payer == payer).map(|lane| i128::from(lane.redeemed)).sum()
    }

    /// Of side 0 and side 1.
    fn shares(&mut self) -> [i128; 2] {
        let left = |s: &mut ChannelSide| i128::from(s.deposited) - i128::from(s.withdrawn);
        let (a, b) = (left(self.side(0)), left(self.side(1)));
        let moved = self.sent(0) - self.sent(1);
        let b_gets = (b + moved).max(0).min(a + b);
        [a + b - b_gets, b_gets]
    }

    /// The record that it must have.
    fn expected(mut self) -> ChannelRecord {
        for side in 0..2 {
            let sent = self.sent(side);
            self.side(side).sent = u64::try_from(sent).unwrap_or(u64::MAX);
        }
        if !self.record.collected {
            self.record.lanes = self.lanes.into_values().collect();
        }
        self.record
    }

    /// What its records of times must be.
    fn times(&mut self, id: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut times = Vec::new();
        if !matches!(self.record.settling_at_ms, 0 | UNDECIDED) && !self.record.collected {
            times.push((self.record.settling_at_ms, id.to_vec()));
        }
        for side in 0..2 {
            let at = self.side(side).leaving_at_ms;
            if let (1..=MAX_DECIDED, Ok(id)) = (at, id.try_into()) {
                times.push((at, leaving_id(&id, side).to_vec()));
            }
        }
        times
    }
}

impl Channels {
    /// Something waits for clocks, or no more.
    fn wait(&mut self, id: &[u8], what: u32, clocks: Option<Vec<u64>>) {
        self.waiting.entry((id.to_vec(), what)).or_default().clocks = clocks;
    }

    /// A clock was voted: delays begin for which a quorum has done so since, of the first of those before this unit.
    pub fn begin(&mut self, quorum: usize, clocks: &[u64], now: u64) {
        for ((id, what), waiting) in self.waiting.iter_mut().filter(|(_, w)| w.before).take(DELAYS_PER_STEP) {
            let Some(before) = &waiting.clocks else { continue };
            let since = clocks.iter().zip(before).filter(|(now, before)| now > before).count();
            let Some(channel) = self.all.get_mut(id).filter(|_| since >= quorum) else { continue };
            waiting.clocks = None;
            let at = now + channel.record.delay_ms;
            channel.record.revision += 1;
            match *what {
                2 => channel.record.settling_at_ms = at,
                side => channel.side(side).leaving_at_ms = at,
            }
        }
    }

    /// The unit ends.
    pub fn unit_ends(&mut self) {
        self.waiting.retain(|_, waiting| waiting.clocks.is_some());
        self.waiting.values_mut().for_each(|waiting| waiting.before = true);
    }

    /// What waits, by the keys of its records.
    pub fn waiting(&self) -> BTreeMap<Vec<u8>, wire::DelayRecord> {
        let key = |(id, what): &(Vec<u8>, u32)| [&id[..], &[*what as u8]].concat();
        let record = |w: &Waiting| wire::DelayRecord { clocks: w.clocks.clone().unwrap_or_default() };
        self.waiting.iter().map(|(k, waiting)| (key(k), record(waiting))).collect()
    }

    /// All records of times, in the order of their keys.
    pub fn times(&mut self) -> Vec<(u64, Vec<u8>)> {
        let mut times: Vec<_> = self.all.iter_mut().flat_map(|(id, channel)| channel.times(id)).collect();
        times.sort();
        times
    }

    /// All records.
    pub fn records(&mut self) -> BTreeMap<Vec<u8>, ChannelRecord> {
        std::mem::take(&mut self.all).into_iter().map(|(id, channel)| (id, channel.expected())).collect()
    }
}

impl Audit<'_> {
    fn channel(&mut self, id: &[u8], applied: &Applied) -> &mut Channel {
        if !self.books.channels.all.contains_key(id) {
            self.out.find(format!("{}: expected a known channel, found {}", applied.at, hex::encode(id)));
        }
        let channel = self.books.channels.all.entry(id.to_vec()).or_default();
        channel.record.revision += 1;
        channel
    }

    /// A channel, and which side of it the caller is.
    fn party(&mut self, id: &[u8], applied: &Applied) -> (&mut Channel, u32) {
        let number = self.books.channels.all.get_mut(id).and_then(|channel| channel.number(&applied.account));
        if number.is_none() {
            self.out.find(format!("{}: expected a side of channel {}, found another", applied.at, hex::encode(id)));
        }
        (self.channel(id, applied), number.unwrap_or(0))
    }

    pub(super) fn channel_output(&mut self, kind: &output::Kind, output: u32, applied: &Applied) -> Result<()> {
        let clocks = self.books.clocks.clone();
        match kind {
            output::Kind::ChannelOpen(open) => {
                let id = channel_id(self.log.committee().id(), &applied.order.id, output);
                let record = ChannelRecord {
                    delay_ms: open.delay_ms,
                    two_way: open.two_way,
                    revision: 1,
                    ..ChannelRecord::default()
                };
                let channel = self.books.channels.all.entry(id.to_vec()).or_default();
                channel.record = record;
                *channel.side(0) = ChannelSide {
                    address: open.opener.clone(),
                    permission: open.opener_permission.clone(),
                    deposited: open.amount,
                    ..ChannelSide::default()
                };
                *channel.side(1) = ChannelSide {
                    address: open.other.clone(),
                    permission: open.other_permission.clone(),
                    ..ChannelSide::default()
                };
                self.books.channels.held += i128::from(open.amount);
            }
            output::Kind::ChannelDeposit(deposit) => {
                self.channel(&deposit.channel, applied).side(deposit.side).deposited += deposit.amount;
                self.books.channels.held += i128::from(deposit.amount);
            }
            output::Kind::ChannelKeys(keys) => {
                let (channel, side) = self.party(&keys.channel, applied);
                channel.side(side).permission = keys.permission.clone();
            }
            output::Kind::ChannelRedeem(all) => {
                self.redeemed(&all.redemptions, applied);
                all.claims.iter().for_each(|claim| self.claimed(claim, applied));
            }
            output::Kind::ChannelLeave(leave) => {
                let (channel, side) = self.party(&leave.channel, applied);
                let at = if leave.amount == 0 { 0 } else { UNDECIDED };
                (channel.side(side).leaving, channel.side(side).leaving_at_ms) = (leave.amount, at);
                self.books.channels.wait(&leave.channel, side, (at == UNDECIDED).then_some(clocks));
            }
            output::Kind::ChannelSettle(settle) => {
                let (channel, _) = self.party(&settle.channel, applied);
                channel.record.settling_at_ms = UNDECIDED;
                for side in 0..2 {
                    (channel.side(side).leaving, channel.side(side).leaving_at_ms) = (0, 0);
                }
                for what in 0..3 {
                    self.books.channels.wait(&settle.channel, what, (what == 2).then(|| clocks.clone()));
                }
            }
            output::Kind::ChannelCollect(collect) => return self.collected(&collect.channel, output, applied),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn channel_withdraw(&mut self, withdraw: &wire::ChannelWithdraw, amount: u64, applied: &Applied) {
        self.redeemed(&withdraw.redemptions, applied);
        let now = self.books.time_ms;
        let (channel, side) = self.party(&withdraw.channel, applied);
        let due = channel.side(side).leaving_at_ms;
        let in_time = withdraw.permit.is_some() || due != 0 && due <= now && amount <= channel.side(side).leaving;
        let has = channel.shares()[side as usize];
        channel.side(side).withdrawn += amount;
        if withdraw.permit.is_none() {
            (channel.side(side).leaving, channel.side(side).leaving_at_ms) = (0, 0);
        }
        // One that is undecided is not due, so nothing waits.
        if !in_time || i128::from(amount) > has {
            self.out.find(format!("{}: expected at most {has} to be taken out, in time, found {amount}", applied.at));
        }
        self.books.channels.held -= i128::from(amount);
    }

    fn redeemed(&mut self, all: &[wire::Redemption], applied: &Applied) {
        for one in all {
            let signed = one.voucher.clone().unwrap_or_default();
            let Ok(terms) = wire::Voucher::decode(signed.voucher) else { continue };
            let now = self.books.time_ms;
            let channel = self.channel(&terms.channel, applied);
            let closes = channel.record.settling_at_ms;
            let in_time = !channel.record.collected && (closes == 0 || now < closes);
            for merge in &terms.merges {
                if let Some(merged) = channel.lanes.get_mut(&(terms.payer, merge.lane)) {
                    *merged = ChannelLane {
                        payer: terms.payer,
                        lane: merge.lane,
                        nonce: merge.nonce,
                        secret: merged.secret.clone(),
                        ..ChannelLane::default()
                    };
                }
            }
            let secret = if terms.secret_hash.is_empty() { Bytes::new() } else { one.secret.clone() };
            let lane = ChannelLane {
                payer: terms.payer,
                lane: terms.lane,
                nonce: terms.nonce,
                redeemed: terms.amount,
                secret,
                virtuals: terms.virtuals.clone(),
                claimed: Vec::new(),
            };
            let before = channel.lanes.insert((terms.payer, terms.lane), lane);
            if !in_time || before.is_some_and(|before| before.nonce >= terms.nonce) {
                self.out.find(format!("{}: expected a newer voucher, in time, found {terms:?}", applied.at));
            }
        }
    }

    fn claimed(&mut self, claim: &wire::VirtualClaim, applied: &Applied) {
        let cap = claim.cap.clone().unwrap_or_default();
        let signed = claim.amount.clone().unwrap_or_default();
        let shown = wire::VirtualAmount::decode(signed.permit.clone()).unwrap_or_default();
        let now = self.books.time_ms;
        let channel = self.channel(&claim.channel, applied);
        let lane = channel.lanes.entry((claim.payer, claim.lane)).or_default();
        let open = lane.virtuals.as_ref().is_some_and(|set| claim.index < set.count);
        let first = lane.claimed.iter().all(|c| c.index != claim.index);
        lane.redeemed += shown.amount;
        lane.claimed.push(wire::ClaimedVirtual { index: claim.index, amount: Some(signed) });
        lane.claimed.sort_by_key(|c| c.index);
        if !open || !first || now > cap.not_after_ms || shown.amount > cap.cap || shown.id != cap.id {
            self.out.find(format!("{}: expected a virtual channel to be claimed once, in time", applied.at));
        }
    }

    fn collected(&mut self, id: &[u8], output: u32, applied: &Applied) -> Result<()> {
        let now = self.books.time_ms;
        let channel = self.channel(id, applied);
        let due = channel.record.settling_at_ms != 0 && channel.record.settling_at_ms <= now;
        let once = !std::mem::replace(&mut channel.record.collected, true);
        let shares = channel.shares();
        let mut paid = Vec::new();
        for (side, share) in (0..2).zip(shares) {
            let amount = u64::try_from(share).unwrap_or(0);
            channel.side(side).withdrawn += amount;
            paid.push((channel.side(side).address.clone(), amount));
        }
        if !due || !once {
            self.out.find(format!("{}: expected a channel to be collected once, after its delay", applied.at));
        }
        for (address, amount) in paid.into_iter().filter(|(_, amount)| *amount > 0) {
            self.books.channels.held -= i128::from(amount);
            self.credit(&Address::from_slice(&address)?, applied.credit(output, amount, Kind::Call));
        }
        Ok(())
    }
}
