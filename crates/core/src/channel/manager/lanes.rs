//! What a hub has to know of the lanes.

use super::Manager;
use super::end::{Kept, Lock, whole};
use super::input::EndId;
use crate::address::Address;
use crate::channel::{OPENER, rules};
use crate::error::Result;
use crate::merkle::Hash;
use crate::permission::Permission;
use crate::wire::SignedVoucher;

/// A lock in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockView {
    /// Of its voucher.
    pub nonce: u64,
    /// What it locks, minor units.
    pub amount: u64,
    /// What takes it, if it takes a secret.
    pub secret_hash: Option<Hash>,
    /// Log time up to which, ms.
    pub not_after_ms: u64,
    /// Whether its secret is known.
    pub is_known: bool,
}

/// A lane of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneView {
    /// The highest that was used, by either side; 0 = never used.
    pub nonce: u64,
    /// Paid for good, minor units.
    pub paid: u64,
    /// The lock in flight.
    pub lock: Option<LockView>,
    /// The newest voucher of its payer.
    pub newest: Option<SignedVoucher>,
}

impl Manager {
    /// A lane that the own side pays on. `UNKNOWN_CHANNEL`.
    pub fn out_lane(&self, id: &EndId, lane: u32) -> Result<LaneView> {
        let Some(lane) = self.end(id)?.out.get(&lane) else { return Ok(LaneView::default()) };
        Ok(LaneView {
            nonce: lane.nonce,
            paid: lane.amount,
            lock: lane.lock.as_ref().map(|lock| view(lock, lane.locked())),
            newest: lane.last.as_ref().map(|kept| kept.voucher.clone()),
        })
    }

    /// A lane that the other side pays on. `UNKNOWN_CHANNEL`.
    pub fn paid_lane(&self, id: &EndId, lane: u32) -> Result<LaneView> {
        let Some(lane) = self.end(id)?.paid.get(&lane) else { return Ok(LaneView::default()) };
        let newest = lane.lock.as_ref().map(|lock| &lock.kept).or(lane.firm.as_ref());
        Ok(LaneView {
            nonce: lane.nonce,
            paid: lane.value(),
            lock: lane.lock.as_ref().map(|lock| view(lock, lane.locked())),
            newest: newest.map(|kept| kept.voucher.clone()),
        })
    }

    /// The newest vouchers of the other side, as (payer, lane, nonce). `UNKNOWN_CHANNEL`.
    pub fn held_nonces(&self, id: &EndId) -> Result<Vec<(u32, u32, u64)>> {
        let end = self.end(id)?;
        // Also one that is over, or redeemed in the log: its nonce is used for ever.
        let paid = end.paid.iter().filter_map(|(number, lane)| {
            let over = lane.history.iter().rfind(|kept| kept.voucher.signer != end.side);
            let all: [Option<&Kept>; 3] = [lane.firm.as_ref(), lane.lock.as_ref().map(|lock| &lock.kept), over];
            let kept = all.into_iter().flatten().map(|kept| kept.nonce);
            Some((end.other(), *number, kept.chain(lane.chain.map(|(nonce, _)| nonce)).max()?))
        });
        let cancels =
            end.out.iter().filter_map(|(number, lane)| Some((end.side, *number, lane.cancel.as_ref()?.kept.nonce)));
        Ok(paid.chain(cancels).collect())
    }

    /// The voucher with this nonce, if it is kept. `UNKNOWN_CHANNEL`.
    pub fn kept_voucher(&self, id: &EndId, payer: u32, lane: u32, nonce: u64) -> Result<Option<SignedVoucher>> {
        let end = self.end(id)?;
        let found = match payer == end.side {
            true => end.out.get(&lane).and_then(|lane| lane.find(nonce)),
            false => end.paid.get(&lane).and_then(|lane| lane.find(nonce)),
        };
        Ok(found.map(|kept| kept.voucher.clone()))
    }

    /// Keys that sign for a side. Errors: `UNKNOWN_CHANNEL`, `CHANNEL_KEYS` if it has said none.
    pub fn keys_of(&self, id: &EndId, side: u32) -> Result<(Permission, Address)> {
        rules::keys(&self.end(id)?.record, side)
    }

    /// What a side has put in, minor units, by the log. `UNKNOWN_CHANNEL`.
    pub fn deposited(&self, id: &EndId, side: u32) -> Result<u64> {
        Ok(rules::side(&self.end(id)?.record, side).deposited)
    }

    /// What the other side can still pay, minor units, as far as known here. `UNKNOWN_CHANNEL`.
    pub fn receivable(&self, id: &EndId) -> Result<u64> {
        let end = self.end(id)?;
        if !end.record.two_way && end.side == OPENER || end.record.collected {
            return Ok(0);
        }
        let paid: i128 = end.paid.values().map(|lane| i128::from(lane.value())).sum();
        Ok(whole(end.others_funds(end.seen_ms) - paid - end.money.locked_in))
    }

    /// Log time between settle and collect of a channel, ms. `UNKNOWN_CHANNEL`.
    pub fn delay_ms(&self, id: &EndId) -> Result<u64> {
        Ok(self.end(id)?.record.delay_ms)
    }
}

fn view(lock: &Lock, amount: u64) -> LockView {
    LockView {
        nonce: lock.kept.nonce,
        amount,
        secret_hash: lock.secret_hash,
        not_after_ms: lock.not_after_ms,
        is_known: !lock.secret.is_empty(),
    }
}
