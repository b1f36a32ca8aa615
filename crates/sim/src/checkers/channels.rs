//! Channels, derived again: what the log must have of each, and what sides must have of it. What a side has sent is the sum
//! of its lanes, and whose signature is true is known from those who signed ([`Vouchers`]).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use florin_core::Code;
use florin_core::authority::state::{Table, Write};
use florin_core::wire::{self, ChannelRecord, input, output};
use prost::Message as _;
use sha2::{Digest, Sha256};

use super::channel_orders::{Done, Event};
use super::orders::Id;
use super::rules::{Facts, Rule};
pub use super::vouchers::{Paper, Vouchers};

/// The end of a delay that has not begun.
pub(super) const UNDECIDED: u64 = u64::MAX;
/// What waits besides the withdrawals of sides 0 and 1.
pub(super) const SETTLE: usize = 2;

/// One side, minor units.
#[derive(Clone, Default)]
pub struct Side {
    pub(super) address: Bytes,
    /// The encoded permission that signs for it; empty if it has said none.
    pub permission: Bytes,
    /// Put in, in all.
    pub deposited: i128,
    /// Taken out, in all.
    pub withdrawn: i128,
    /// Announced, and from when on it can be taken.
    pub leaving: Option<(u64, u64)>,
}

/// A lane of which something was redeemed.
#[derive(Clone)]
pub(super) struct Lane {
    pub(super) nonce: u64,
    pub(super) amount: u64,
    pub(super) secret: Bytes,
}

/// A channel as the log must have it.
#[derive(Clone, Default)]
pub struct Channel {
    /// The opener, and the other.
    pub sides: [Side; 2],
    pub(super) delay_ms: u64,
    pub(super) two_way: bool,
    /// When the delay after a settle is over; at the end of all time as long as it has not begun.
    pub end_ms: Option<u64>,
    /// Whether it was paid out.
    pub collected: bool,
    pub(super) lanes: BTreeMap<(u32, u32), Lane>,
    /// By side, when it was collected.
    pub(super) sent_in_the_end: [i128; 2],
    pub(super) changes: u64,
}

impl Channel {
    /// What a lane has moved, and its nonce.
    pub fn lane(&self, payer: u32, lane: u32) -> Option<(u64, u64)> {
        self.lanes.get(&(payer, lane)).map(|l| (l.amount, l.nonce))
    }

    /// What it holds, minor units.
    pub fn held(&self) -> i128 {
        self.sides.iter().map(|s| s.deposited - s.withdrawn).sum()
    }

    pub(super) fn sent(&self, side: u32) -> i128 {
        let own = self.lanes.range((side, 0)..=(side, u32::MAX));
        own.map(|(_, lane)| i128::from(lane.amount)).sum::<i128>() + self.sent_in_the_end[side as usize]
    }

    pub(super) fn balance(&self, side: u32) -> i128 {
        let own = &self.sides[side as usize];
        own.deposited - own.withdrawn - self.sent(side) + self.sent(1 - side)
    }

    /// What a side has of it as far as vouchers are redeemed, minor units.
    pub fn share(&self, side: u32) -> i128 {
        self.balance(side).max(0).min(self.held())
    }

    pub(super) fn is_over(&self, now: u64) -> bool {
        self.end_ms.is_some_and(|end| now >= end)
    }

    /// The side that an account is; the opener if it is both.
    pub(super) fn side_of(&self, account: &[u8]) -> Option<u32> {
        self.sides.iter().position(|s| s.address[..] == *account).map(|side| side as u32)
    }

    fn matches(&self, record: &ChannelRecord) -> bool {
        let lanes = self.lanes.iter().map(|((payer, lane), l)| wire::ChannelLane {
            payer: *payer,
            lane: *lane,
            nonce: l.nonce,
            redeemed: l.amount,
            secret: l.secret.clone(),
            ..Default::default()
        });
        let side = |side: u32| {
            let s = &self.sides[side as usize];
            let (leaving, leaving_at_ms) = s.leaving.unwrap_or_default();
            Some(wire::ChannelSide {
                address: s.address.clone(),
                permission: s.permission.clone(),
                deposited: u64::try_from(s.deposited).ok()?,
                withdrawn: u64::try_from(s.withdrawn).ok()?,
                sent: u64::try_from(self.sent(side)).ok()?,
                leaving,
                leaving_at_ms,
            })
        };
        let expected = ChannelRecord {
            opener: side(0),
            other: side(1),
            delay_ms: self.delay_ms,
            two_way: self.two_way,
            settling_at_ms: self.end_ms.unwrap_or(0),
            collected: self.collected,
            lanes: lanes.collect(),
            revision: self.changes,
        };
        expected == *record
    }
}

/// All channels after the newest unit that anybody has applied.
#[derive(Default)]
pub struct Channels {
    /// What sides have signed.
    pub vouchers: Vouchers,
    /// Rare things that have happened.
    pub marks: BTreeMap<&'static str, u64>,
    committee: Id,
    pub(super) network: u64,
    all: BTreeMap<Id, Channel>,
    /// Newest votes of clocks, by authority.
    clocks: BTreeMap<u32, u64>,
    quorum: usize,
    /// Delays that have not begun: of a side's withdrawal or of the settle, with the clocks when they were asked for.
    waiting: BTreeMap<(Id, usize), BTreeMap<u32, u64>>,
    /// Those that this unit has changed.
    changed: BTreeSet<Id>,
    broken: Vec<String>,
}

impl Channels {
    pub(super) fn new(facts: &Facts) -> Channels {
        let quorum = facts.authorities as usize - facts.faults();
        Channels { committee: facts.committee_id, network: facts.network_id, quorum, ..Default::default() }
    }

    /// A channel.
    pub fn get(&self, id: &Id) -> Option<&Channel> {
        self.all.get(id)
    }

    /// The id of what an output of an order opens.
    pub fn id_of(&self, order: &Id, output: u32) -> Id {
        let hash = Sha256::new().chain_update(b"florin-channel-v1").chain_update(self.committee);
        hash.chain_update(order).chain_update(output.to_be_bytes()).finalize().into()
    }

    /// Opened, and collected.
    pub fn counts(&self) -> [u64; 2] {
        [self.all.len() as u64, self.all.values().filter(|c| c.collected).count() as u64]
    }

    /// What a side might still claim, minor units ([`Vouchers::claims`]).
    pub fn claims(&self, id: &Id, side: u32) -> i128 {
        let Some(own) = self.all.get(id).map(|c| &c.sides[side as usize]) else { return 0 };
        self.vouchers.claims(id, side, own.deposited, own.withdrawn)
    }

    pub(super) fn held(&self) -> i128 {
        self.all.values().map(Channel::held).sum()
    }

    pub(super) fn mark(&mut self, what: &'static str) {
        *self.marks.entry(what).or_default() += 1;
    }

    /// An order has succeeded with this draft of its channels.
    pub(super) fn commit(&mut self, order: &Id, done: Done) {
        let many = done.events.iter().filter(|e| matches!(e, Event::Redeemed(..))).count();
        let over: BTreeSet<&Id> =
            done.events.iter().filter_map(|e| if let Event::Redeemed(id, _) = e { Some(id) } else { None }).collect();
        for (holds, what) in
            [(many >= 6, "six vouchers in one order"), (over.len() > 1, "one order over several channels")]
        {
            if holds {
                self.mark(what);
            }
        }
        for event in &done.events {
            match event {
                Event::Redeemed(id, terms) if self.vouchers.note_redeemed(id, terms) => {
                    self.mark("lock redeemed that was given back");
                }
                Event::Redeemed(..) => {}
                Event::Left(id, side) if self.vouchers.note_left(id, *side) => self.mark("robbed while away"),
                Event::Left(..) => {}
                Event::Mark(what) => self.mark(what),
                Event::Waits(id, what) => drop(self.waiting.insert((*id, *what), self.clocks.clone())),
            }
        }
        let ids: Vec<Id> = done.changed.keys().copied().collect();
        self.all.extend(done.changed);
        if self.vouchers.note_applied(order) > 0 {
            self.mark("side stood up for itself");
        }
        ids.iter().for_each(|id| self.check(id));
        self.changed.extend(ids);
    }

    /// An order has failed with a code.
    pub(super) fn note_failed(&mut self, call: &wire::Call, code: u32) {
        let withdraws = call.inputs.iter().any(|i| matches!(i.kind, Some(input::Kind::ChannelWithdraw(_))));
        let operates = |o: &wire::Output| {
            use output::Kind::*;
            let of_channels = |kind: &output::Kind| {
                matches!(kind, ChannelOpen(_) | ChannelDeposit(_) | ChannelKeys(_) | ChannelRedeem(_))
                    || matches!(kind, ChannelLeave(_) | ChannelSettle(_) | ChannelCollect(_))
            };
            o.kind.as_ref().is_some_and(of_channels)
        };
        if let Some(code) = Code::from_number(code)
            && (withdraws || call.outputs.iter().any(operates))
        {
            self.mark(code.name());
        }
    }

    /// An authority has voted its clock.
    pub(super) fn vote_clock(&mut self, authority: u32, clock_ms: u64) {
        self.clocks.insert(authority, clock_ms);
    }

    /// Delays begin for which a quorum has voted newer clocks since they were asked for.
    pub(super) fn begin_delays(&mut self, now: u64) {
        let newer = |then: &BTreeMap<u32, u64>| {
            self.clocks.iter().filter(|(a, clock)| **clock > then.get(a).copied().unwrap_or(0)).count()
        };
        let due: Vec<(Id, usize)> =
            self.waiting.iter().filter(|(_, then)| newer(then) >= self.quorum).map(|(key, _)| *key).collect();
        for key in due {
            self.waiting.remove(&key);
            let Some(channel) = self.all.get_mut(&key.0) else { continue };
            let from = now + channel.delay_ms;
            match channel.sides.get_mut(key.1).map(|s| &mut s.leaving) {
                None => channel.end_ms = channel.end_ms.filter(|end| *end != UNDECIDED).or(Some(from)),
                Some(Some((_, due))) if *due == UNDECIDED => *due = from,
                // Taken back since.
                Some(_) => continue,
            }
            channel.changes += 1;
            self.changed.insert(key.0);
        }
    }

    /// A side that was there has what it was promised, and nobody has sent more than it has signed.
    fn check(&mut self, id: &Id) {
        let Some(channel) = self.all.get(id) else { return };
        for side in [0, 1] {
            let own = &channel.sides[side as usize];
            let most = self.vouchers.most(id, side);
            if channel.sent(side) > most {
                let what =
                    format!("{}: side {side} has sent {}, it has signed {most}", hex::encode(id), channel.sent(side));
                self.broken.push(what);
            }
            let Some(mut owed) = self.vouchers.owed(id, side, own.deposited) else { continue };
            if self.vouchers.was_robbed(id, side) {
                owed = owed.min(own.withdrawn + channel.held());
            }
            let gets = own.withdrawn + if channel.collected { 0 } else { channel.share(side) };
            if gets < owed {
                let what = format!("{}: side {side} was there and gets {gets} in all, it must {owed}", hex::encode(id));
                self.broken.push(what);
            }
        }
    }

    /// The records that a unit has written must be those that it had to change, as they have to be.
    pub(super) fn wrote(&mut self, writes: &[Write]) -> Vec<(Rule, String)> {
        let mut found: Vec<String> = std::mem::take(&mut self.broken);
        let mut expected = std::mem::take(&mut self.changed);
        for w in writes.iter().filter(|w| w.table == Table::Objects && w.key.first() == Some(&b'l')) {
            let id = Id::try_from(&w.key[1..]).unwrap_or_default();
            let record = w.value.as_deref().and_then(|v| ChannelRecord::decode(v).ok()).unwrap_or_default();
            if !expected.remove(&id) || !self.all.get(&id).is_some_and(|c| c.matches(&record)) {
                found.push(format!("{} is written as {record:?}", hex::encode(id)));
            }
        }
        found.extend(expected.iter().map(|id| format!("{} must change, and does not", hex::encode(id))));
        found.into_iter().map(|what| (Rule::Channels, what.chars().take(1_500).collect())).collect()
    }
}
