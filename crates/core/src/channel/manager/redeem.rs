//! Vouchers on their way into the log, and the end of a channel.
//!
//! When the other side settles or announces a withdrawal, the best voucher of each lane goes to the log by itself, as few
//! messages as they fit in; so does a lock whose secret is known before it expires. If the log refuses several together, they go
//! one by one; what it refuses alone is tried again, later and later, until the channel is over.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use super::effect::{Effects, Reply};
use super::end::End;
use super::input::{EndId, Incoming, Now, OpId};
use super::issue::{check_secret, check_secret_hash, conditions};
use super::ops::Work;
use super::policy::Policy;
use super::query::EndState;
use super::{Manager, corrupt};
use crate::channel::voucher;
use crate::channel::{OPENER, rules};
use crate::error::{Code, Error, Result};
use crate::limits::{CALL_BYTES_MAX, REDEMPTIONS_MAX};
use crate::ordered::modules::channels::UNDECIDED;
use crate::wire::{self, ChannelRedeem, Redemption};

/// Bytes of a CALL that are left for redemptions.
const REDEEM_BYTES_MAX: usize = CALL_BYTES_MAX - 512;

/// What is tried again later; not kept over a restart, after which it is tried at once.
#[derive(Debug, Default)]
pub struct Later {
    redeem: BTreeMap<EndId, Retry>,
    deposit: BTreeMap<EndId, Retry>,
}

#[derive(Clone, Copy, Debug)]
struct Retry {
    /// Own clock, ms.
    at_ms: u64,
    tries: u32,
}

impl Retry {
    /// Twice as long each time, up to 64 times as long or `most_ms`.
    fn next(old: Option<&Retry>, now_ms: u64, step_ms: u64, most_ms: u64) -> Retry {
        let tries = old.map_or(0, |old| old.tries) + 1;
        let wait = step_ms.saturating_mul(1 << (tries - 1).min(6)).min(most_ms);
        Retry { at_ms: now_ms.saturating_add(wait), tries }
    }
}

impl Later {
    /// `delay_ms` is the channel's: many tries are to fit into it.
    pub fn redeem_failed(&mut self, id: EndId, vouchers: usize, now_ms: u64, step_ms: u64, delay_ms: u64) {
        // Of several, the others are not to wait for the one that was refused.
        let retry = match vouchers {
            0 | 1 => Retry::next(self.redeem.get(&id), now_ms, step_ms, delay_ms / 16),
            _ => Retry { at_ms: now_ms, tries: 0 },
        };
        self.redeem.insert(id, retry);
    }

    pub fn deposit_failed(&mut self, id: EndId, now_ms: u64, step_ms: u64) {
        let retry = Retry::next(self.deposit.get(&id), now_ms, step_ms, u64::MAX);
        self.deposit.insert(id, retry);
    }

    /// The channel has changed: what was refused before may be taken now.
    pub fn news(&mut self, id: &EndId) {
        self.redeem.remove(id);
    }

    pub fn deposit_waits(&self, id: &EndId, now_ms: u64) -> bool {
        self.deposit.get(id).is_some_and(|retry| retry.at_ms > now_ms)
    }

    /// Those whose time has come.
    fn due(&self, now_ms: u64) -> Vec<EndId> {
        let all = self.redeem.iter().chain(&self.deposit);
        all.filter(|(_, retry)| retry.at_ms <= now_ms).map(|(id, _)| *id).collect()
    }
}

impl Manager {
    /// Redeems one voucher and with it all earlier ones of its lane.
    pub(super) fn voucher_submit(&mut self, now: Now, incoming: Incoming, fx: &mut Effects) -> Result<()> {
        let id = incoming.end;
        let decoded = voucher::Voucher::decode(&incoming.voucher)?;
        let end = self.end(&id)?;
        if !end.knows(&decoded) || !incoming.secret.is_empty() {
            // Storing comes before redeeming, and a refusal stores nothing.
            end.check_submit(&decoded, &incoming, now, self.policy())?;
            self.add(now, &incoming, decoded.clone(), None, fx)?;
        } else if !incoming.proof.is_empty() {
            return Err(Error::expected(Code::ProofRefused, "bytes of the proof", 0, incoming.proof.len()));
        }
        let end = self.end(&id)?;
        let terms = &decoded.terms;
        let (none, payer) = (super::end::PaidLane::default(), terms.payer);
        let lane = end.paid.get(&terms.lane).filter(|_| payer != end.side).unwrap_or(&none);
        let taken = |kept: &super::end::Kept| kept.voucher.voucher == decoded.bytes;
        let lock = lane.lock.as_ref().filter(|lock| taken(&lock.kept));
        if decoded.signer != 1 - end.side || lane.find(terms.nonce).is_none_or(|kept| !taken(kept)) {
            return Err(not_redeemed());
        }
        if lane.submitted.is_some_and(|(nonce, _)| nonce >= terms.nonce) {
            return Err(Error::new(Code::VoucherSubmitted, "the voucher is on its way to the log already"));
        }
        if lane.chain.is_some_and(|(nonce, _)| nonce >= terms.nonce) {
            return Err(Error::new(
                Code::VoucherSubmitted,
                "the log has redeemed the voucher, or a later one of its lane",
            ));
        }
        let secret = match lock {
            None if !terms.secret_hash.is_empty() => {
                let message = format!("lane {} has no such lock in flight any more", terms.lane);
                return Err(Error::new(Code::NoLock, message));
            }
            None => Bytes::new(),
            Some(lock) if lock.secret_hash.is_some() => {
                check_secret(lock, &lock.secret)?;
                lock.secret.clone()
            }
            Some(_) => Bytes::new(),
        };
        let redemptions = vec![Redemption { voucher: Some(incoming.voucher), secret, watch: None }];
        let account = end.account;
        let op = self.start(
            account,
            Some(id),
            Bytes::new(),
            Work::Redeem(ChannelRedeem { redemptions, claims: Vec::new() }),
            fx,
        );
        fx.reply = Reply::Op(op);
        Ok(())
    }

    /// Redeems the best of every lane.
    pub(super) fn submit_all(&mut self, now: Now, id: EndId, fx: &mut Effects) -> Result<()> {
        let end = self.end(&id)?;
        if !matches!(end.state(), EndState::Open | EndState::SettlePending | EndState::Settling) {
            return Err(super::funds::not_open(end.state()));
        }
        let due = end.due(now.log_ms, |_| true);
        fx.reply = Reply::Ops(self.redeem(&id, due, usize::MAX, fx));
        Ok(())
    }

    /// Sends redemptions, as many in a message as fit, and at most `each`.
    fn redeem(&mut self, id: &EndId, due: Vec<Redemption>, each: usize, fx: &mut Effects) -> Vec<OpId> {
        let Some(account) = self.ends.get(id).map(|end| end.account) else { return Vec::new() };
        let mut ops = Vec::new();
        for redemptions in fit(due, each) {
            let work = Work::Redeem(ChannelRedeem { redemptions, claims: Vec::new() });
            ops.push(self.start(account, Some(*id), Bytes::new(), work, fx));
        }
        ops
    }

    /// What the log has to be told by now, without anyone asking.
    pub(super) fn drive_redeem(&mut self, id: &EndId, now: Now, fx: &mut Effects) {
        let Some(end) = self.ends.get(id) else { return };
        if !matches!(end.state(), EndState::Open | EndState::SettlePending | EndState::Settling) {
            return;
        }
        let retry = self.later.redeem.get(id).copied();
        if retry.is_some_and(|retry| retry.at_ms > now.clock_ms) || rules::is_over(&end.record, now.log_ms) {
            return;
        }
        let mut due = end.answers();
        let urgent = end.is_urgent();
        if urgent || self.scan && end.money.locked_in > 0 {
            due.extend(end.due(now.log_ms, |lane| urgent || lane.expires(now, &self.config.policy)));
        }
        if !due.is_empty() {
            let each = if retry.is_some() { 1 } else { usize::MAX };
            self.redeem(id, due, each, fx);
        } else if retry.is_some() && !end.is_redeeming() {
            self.later.redeem.remove(id);
        }
    }

    /// What time alone makes due.
    pub(super) fn tick(&mut self, now: Now) {
        let locks = self.ends.iter().filter(|(_, end)| end.money.locked_in > 0 || end.is_urgent());
        let low = self.config.policy.low_water > 0;
        let ends = locks.map(|(id, _)| *id).chain(self.later.due(now.clock_ms));
        let ends: Vec<EndId> = ends.chain(self.ends.keys().copied().filter(|_| low)).collect();
        ends.iter().for_each(|id| self.touch(id));
    }

    pub(super) fn settle(&mut self, id: EndId, fx: &mut Effects) -> Result<()> {
        let end = self.end(&id)?;
        let op = match (end.state(), end.busy.settle) {
            (EndState::SettlePending, Some(op)) => op,
            (EndState::Open, _) => self.start(end.account, Some(id), Bytes::new(), Work::Settle(true), fx),
            (state, _) => return Err(super::funds::not_open(state)),
        };
        fx.reply = Reply::Op(op);
        Ok(())
    }

    pub(super) fn collect(&mut self, now: Now, id: EndId, fx: &mut Effects) -> Result<()> {
        let end = self.end(&id)?;
        let at = end.earliest(end.record.settling_at_ms, now);
        fx.reply = match (end.state(), end.busy.collect) {
            (EndState::Settling, _) if now.log_ms < at => Reply::NotYet(at),
            (EndState::Settling, Some(op)) => Reply::Op(op),
            (EndState::Settling, None) => {
                let account = end.account;
                Reply::Op(self.start(account, Some(id), Bytes::new(), Work::Collect(true), fx))
            }
            (EndState::Open | EndState::SettlePending, _) => {
                return Err(Error::new(Code::ChannelNotDue, "the channel is not settling: settle it first"));
            }
            (state, _) => return Err(super::funds::not_open(state)),
        };
        Ok(())
    }
}

/// Into messages.
pub(super) fn fit(due: Vec<Redemption>, each: usize) -> Vec<Vec<Redemption>> {
    let mut messages: Vec<Vec<Redemption>> = Vec::new();
    let mut left = 0;
    for one in due {
        // Field tag and length.
        let bytes = one.encoded_len() + 4;
        match messages.last_mut() {
            Some(last) if bytes <= left && last.len() < each.min(REDEMPTIONS_MAX) => {
                left -= bytes;
                last.push(one);
            }
            _ => {
                left = REDEEM_BYTES_MAX.saturating_sub(bytes);
                messages.push(vec![one]);
            }
        }
    }
    messages
}

impl super::end::PaidLane {
    /// Whether a lock that is redeemable has to be redeemed now.
    fn expires(&self, now: Now, policy: &Policy) -> bool {
        let margin = policy.submit_ms.saturating_add(policy.margin_ms);
        let last = now.log_ms.saturating_add(margin);
        self.lock.as_ref().is_some_and(|lock| lock.not_after_ms <= last && lock.is_redeemable(now.log_ms))
    }
}

impl End {
    /// That a voucher would be redeemed if it were stored.
    fn check_submit(&self, voucher: &voucher::Voucher, incoming: &Incoming, now: Now, policy: &Policy) -> Result<()> {
        self.judge(voucher, incoming, now, policy)?;
        if voucher.signer == self.side || voucher.terms.payer == self.side {
            return Err(not_redeemed());
        }
        match conditions(voucher).and_then(|conditions| conditions.secret_hash) {
            Some(hash) => check_secret_hash(Some(&hash), &incoming.secret),
            None => Ok(()),
        }
    }

    /// Whether the other side, or the own one, is about to take money out.
    fn is_urgent(&self) -> bool {
        let other = if self.side == OPENER { &self.record.other } else { &self.record.opener };
        self.record.settling_at_ms != 0 || other.as_ref().is_some_and(|other| other.leaving_at_ms != 0)
    }

    /// The earliest time that the log can mean.
    pub(super) fn earliest(&self, at_ms: u64, now: Now) -> u64 {
        if at_ms == UNDECIDED { now.log_ms.saturating_add(self.record.delay_ms) } else { at_ms }
    }

    fn is_redeeming(&self) -> bool {
        self.paid.values().any(|lane| lane.submitted.is_some())
    }

    /// The best voucher of lanes that it is worth redeeming.
    pub(super) fn due(&self, now_ms: u64, want: impl Fn(&super::end::PaidLane) -> bool) -> Vec<Redemption> {
        let lanes = self.paid.values().filter(|lane| want(lane));
        let due = lanes.filter_map(|lane| lane.due(now_ms));
        due.map(|(kept, secret)| redemption(kept, secret)).collect()
    }

    /// Cancels that answer for locks that were redeemed all the same.
    pub(super) fn answers(&self) -> Vec<Redemption> {
        let cancels = self.cheated.iter().filter_map(|lane| self.out.get(lane)?.cancel.as_ref());
        cancels.filter(|cancel| cancel.answer.is_none()).map(|cancel| redemption(&cancel.kept, Bytes::new())).collect()
    }

    /// Marks the vouchers that a message redeems.
    pub(super) fn mark(&mut self, redeem: &ChannelRedeem, op: OpId) -> Result<()> {
        for one in &redeem.redemptions {
            let signed = one.voucher.as_ref().ok_or_else(|| corrupt("a redemption without a voucher"))?;
            let terms = wire::Voucher::decode(&signed.voucher[..]).map_err(|_| corrupt("a voucher to redeem"))?;
            if terms.payer == self.side {
                if let Some(cancel) = self.out.get_mut(&terms.lane).and_then(|lane| lane.cancel.as_mut()) {
                    cancel.answer = Some(op);
                }
            } else {
                self.paid.entry(terms.lane).or_default().submitted = Some((terms.nonce, op));
            }
        }
        for claim in &redeem.claims {
            self.paid.entry(claim.lane).or_default().claiming = Some(op);
        }
        Ok(())
    }

    /// Takes back the marks of a message that is over: what it has redeemed shows in the log.
    pub(super) fn unmark(&mut self, op: OpId) {
        for lane in self.paid.values_mut() {
            lane.submitted.take_if(|(_, submitted)| *submitted == op);
            lane.claiming.take_if(|claiming| *claiming == op);
        }
        for lane in self.out.values_mut() {
            if let Some(cancel) = &mut lane.cancel {
                cancel.answer.take_if(|answer| *answer == op);
            }
        }
    }
}

fn not_redeemed() -> Error {
    let message = "only vouchers that the other side has signed, to pay this one, are redeemed";
    Error::new(Code::VoucherSigner, message)
}

fn redemption(kept: &super::end::Kept, secret: Bytes) -> Redemption {
    Redemption { voucher: Some(kept.voucher.clone()), secret, watch: None }
}
