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
use crate::ordered::modules::channels::leaving_id;
use crate::wire::{self, ChannelLane, ChannelRecord, ChannelSide, credit_entry::Kind, output};

#[derive(Default)]
pub(super) struct Channels {
    all: BTreeMap<Vec<u8>, Channel>,
    /// Held by them, minor units.
    pub held: i128,
}

#[derive(Default)]
struct Channel {
    record: ChannelRecord,
    /// (payer, lane) -> nonce, amount, secret.
    lanes: BTreeMap<(u32, u32), (u64, u64, Bytes)>,
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
        self.lanes.iter().filter(|((of, _), _)| *of == payer).map(|(_, (_, amount, _))| i128::from(*amount)).sum()
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
            self.record.lanes = self
                .lanes
                .iter()
                .map(|((payer, lane), (nonce, redeemed, secret))| ChannelLane {
                    payer: *payer,
                    lane: *lane,
                    nonce: *nonce,
                    redeemed: *redeemed,
                    secret: secret.clone(),
                })
                .collect();
        }
        self.record
    }

    /// What its records of times must be.
    fn times(&mut self, id: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut times = Vec::new();
        if self.record.settling_at_ms != 0 && !self.record.collected {
            times.push((self.record.settling_at_ms, id.to_vec()));
        }
        for side in 0..2 {
            let at = self.side(side).leaving_at_ms;
            if let (1.., Ok(id)) = (at, id.try_into()) {
                times.push((at, leaving_id(&id, side).to_vec()));
            }
        }
        times
    }
}

impl Channels {
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
        let now = self.books.time_ms;
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
            output::Kind::ChannelRedeem(all) => self.redeemed(&all.redemptions, applied),
            output::Kind::ChannelLeave(leave) => {
                let (channel, side) = self.party(&leave.channel, applied);
                let at = if leave.amount == 0 { 0 } else { now + channel.record.delay_ms };
                (channel.side(side).leaving, channel.side(side).leaving_at_ms) = (leave.amount, at);
            }
            output::Kind::ChannelSettle(settle) => {
                let (channel, _) = self.party(&settle.channel, applied);
                channel.record.settling_at_ms = now + channel.record.delay_ms;
                for side in 0..2 {
                    (channel.side(side).leaving, channel.side(side).leaving_at_ms) = (0, 0);
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
                    (merged.0, merged.1) = (merge.nonce, 0);
                }
            }
            let secret = if terms.secret_hash.is_empty() { Bytes::new() } else { one.secret.clone() };
            let before = channel.lanes.insert((terms.payer, terms.lane), (terms.nonce, terms.amount, secret));
            if !in_time || before.is_some_and(|before| before.0 >= terms.nonce) {
                self.out.find(format!("{}: expected a newer voucher, in time, found {terms:?}", applied.at));
            }
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
