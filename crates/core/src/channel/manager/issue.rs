//! Vouchers that the own side signs: to pay, to pay under conditions, and to give a lock back.
//!
//! Safety: a voucher is signed only for money that is available or reserved for its lane, with a nonce that no other
//! voucher of the lane has, and leaves only after its record is durable. Signing is deterministic, so after a crash that lost
//! the record nothing else was spoken, and the same request gives the same voucher.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::effect::{Effects, Event, Reply};
use super::end::{End, Kept, Lock, OutLane, whole};
use super::funds::not_open;
use super::input::{Conditions, EndId, Issue, Now, Signer};
use super::query::EndState;
use super::{Manager, corrupt};
use crate::channel::rules;
use crate::channel::voucher::Voucher;
use crate::error::{Code, Error, Result};
use crate::limits::{AMOUNT_MAX, LANES_MAX, PREIMAGE_BYTES_MAX, VOUCHER_NONCE_MAX};
use crate::merkle::Hash;
use crate::ordered::modules::channels::UNDECIDED;
use crate::wire;
use crate::wire::manager_record::Kind as Record;

impl Manager {
    pub(super) fn allocate_lane(&mut self, id: EndId, fx: &mut Effects) -> Result<()> {
        let end = self.end(&id)?;
        if !end.pays() {
            return Err(one_way());
        }
        if !matches!(end.state(), EndState::Opening | EndState::Open) {
            return Err(not_open(end.state()));
        }
        let lane = end.next_lane;
        if lane >= LANES_MAX {
            let expected = format!("fewer than {LANES_MAX}");
            return Err(Error::expected(Code::LanesUsedUp, "lanes given out", expected, lane));
        }
        let channel = Bytes::copy_from_slice(&id.channel);
        self.commit(Record::Lane(wire::ManagerLane { channel, side: id.side, lane }), fx);
        fx.reply = Reply::Lane(lane);
        Ok(())
    }

    pub(super) fn apply_lane(&mut self, record: &wire::ManagerLane) -> Result<()> {
        let end = self.end_mut(&super::end_id(&record.channel, record.side)?)?;
        end.next_lane = end.next_lane.max(record.lane.saturating_add(1));
        Ok(())
    }

    /// Signs a voucher, or says what is missing for it.
    pub(super) fn voucher_create(
        &mut self,
        now: Now,
        issue: Issue,
        signer: &dyn Signer,
        fx: &mut Effects,
    ) -> Result<()> {
        let end = self.end(&issue.end)?;
        end.check_signs()?;
        if issue.lane >= LANES_MAX {
            return Err(Error::expected(Code::VoucherLane, "lane", format!("below {LANES_MAX}"), issue.lane));
        }
        if issue.amount > AMOUNT_MAX {
            return Err(Error::expected(
                Code::VoucherAmount,
                "amount of the voucher",
                "at most 2^63 - 1",
                issue.amount,
            ));
        }
        let none = OutLane::default();
        let lane = end.out.get(&issue.lane).unwrap_or(&none);
        if lane.lock.is_some() {
            let message = format!("lane {} has a lock in flight: use another lane", issue.lane);
            return Err(Error::new(Code::LaneLocked, message));
        }
        if lane.exposed.is_some() {
            let message = format!("lane {} is one of virtual channels: use another lane", issue.lane);
            return Err(Error::new(Code::LaneLocked, message));
        }
        if issue.amount <= lane.amount {
            let expected = format!("above {}", lane.amount);
            return Err(Error::expected(Code::VoucherNotAbove, "amount of the voucher", expected, issue.amount));
        }
        let delta = issue.amount - lane.amount;
        if issue.conditions != Conditions::default() {
            self.check_lock(now, end, &issue.conditions, delta)?;
        }
        let has = i128::from(end.available()) + i128::from(lane.reserved);
        if i128::from(delta) > has {
            fx.reply = Reply::Issued { voucher: None, shortfall: whole(i128::from(delta) - has) };
            return Ok(());
        }
        let terms = terms(&issue, end.side, next_nonce(lane.nonce)?);
        let voucher = signer.voucher(&end.account, terms, end.side)?;
        self.issue(issue.end, voucher, fx)
    }

    /// The conditions of a lock of our own. It ends before a settle of this moment would be over, and before the other side may
    /// take money out: there is always time to answer a lock that was cancelled and is redeemed all the same.
    fn check_lock(&self, now: Now, end: &End, conditions: &Conditions, delta: u64) -> Result<()> {
        let policy = self.policy();
        let until = conditions.not_after_ms;
        let leaving_ms = match rules::side(&end.record, end.other()).leaving_at_ms {
            0 => UNDECIDED,
            at => at,
        };
        let over = end.earliest(UNDECIDED, now).min(end.earliest(leaving_ms, now));
        let over = over.saturating_sub(policy.submit_ms.saturating_add(policy.margin_ms));
        let last = over.min(now.log_ms.saturating_add(policy.lock_max_ms));
        if until <= now.log_ms || until > last || conditions.not_before_ms > until {
            let expected = format!("a time limit after {} and up to {last} ms", now.log_ms);
            return Err(Error::expected(Code::LockTerms, "end of the lock", expected, until));
        }
        if delta < policy.lock_min {
            let expected = format!("at least {}", policy.lock_min);
            return Err(Error::expected(Code::LockTerms, "amount of the lock", expected, delta));
        }
        let locks = end.out.values().filter(|lane| lane.lock.is_some()).count();
        if locks >= policy.locks_max {
            let expected = format!("fewer than {}", policy.locks_max);
            return Err(Error::expected(Code::LockTerms, "locks in flight", expected, locks));
        }
        Ok(())
    }

    fn issue(&mut self, id: EndId, voucher: Voucher, fx: &mut Effects) -> Result<()> {
        let signed = voucher.signed();
        self.apply_issued(&id, &voucher)?;
        fx.records.push(super::record(Record::Issued(signed.clone())));
        fx.reply = Reply::Issued { voucher: Some(signed), shortfall: 0 };
        Ok(())
    }

    /// Pays a lock for good, for its secret is known.
    pub(super) fn lock_paid(
        &mut self,
        id: EndId,
        lane: u32,
        secret: &Bytes,
        signer: &dyn Signer,
        fx: &mut Effects,
    ) -> Result<()> {
        let end = self.end(&id)?;
        let of = end.out.get(&lane).ok_or_else(|| no_lock(lane))?;
        let lock = of.lock.as_ref().ok_or_else(|| no_lock(lane))?;
        check_secret(lock, secret)?;
        let conditions = Conditions::default();
        let issue = Issue { end: id, lane, amount: lock.kept.amount, conditions };
        let terms = terms(&issue, end.side, next_nonce(of.nonce)?);
        let voucher = signer.voucher(&end.account, terms, end.side)?;
        self.secret_learned(id, lane, secret, fx);
        self.issue(id, voucher, fx)
    }

    pub(super) fn secret_learned(&mut self, id: EndId, lane: u32, secret: &Bytes, fx: &mut Effects) {
        let (channel, secret) = (Bytes::copy_from_slice(&id.channel), secret.clone());
        self.commit(Record::Secret(wire::ManagerSecret { channel, side: id.side, lane, secret }), fx);
    }

    pub(super) fn apply_issued(&mut self, id: &EndId, voucher: &Voucher) -> Result<()> {
        let kept = self.policy().superseded_max;
        let end = self.end_mut(id)?;
        match voucher.terms.payer == end.side {
            true => end.apply_issued(voucher, kept),
            false => end.apply_own_cancel(voucher, kept),
        }
        self.touch(id);
        Ok(())
    }

    /// Gives a lock back.
    pub(super) fn lock_cancel(&mut self, id: EndId, lane: u32, signer: &dyn Signer, fx: &mut Effects) -> Result<()> {
        let end = self.end(&id)?;
        end.check_signs_at_all()?;
        let of = end.paid.get(&lane).ok_or_else(|| no_lock(lane))?;
        let Some(lock) = of.lock.as_ref() else {
            // Given back before: the same voucher again.
            let given =
                of.find(of.nonce).filter(|kept| kept.voucher.signer == end.side).ok_or_else(|| no_lock(lane))?;
            fx.reply = Reply::Issued { voucher: Some(given.voucher.clone()), shortfall: 0 };
            return Ok(());
        };
        if !lock.secret.is_empty() {
            let message =
                format!("the secret of the lock on lane {lane} is known: redeem it instead of giving it back");
            return Err(Error::new(Code::LockTerms, message));
        }
        if of.submitted.is_some_and(|(nonce, _)| nonce >= lock.kept.nonce) {
            return Err(Error::new(
                Code::VoucherSubmitted,
                format!("the lock on lane {lane} is on its way to the log"),
            ));
        }
        let issue = Issue { end: id, lane, amount: of.value(), conditions: Conditions::default() };
        let terms = terms(&issue, end.other(), next_nonce(of.nonce)?);
        let voucher = signer.voucher(&end.account, terms, end.side)?;
        self.issue(id, voucher, fx)
    }

    /// Notes what a lock of the own side has become.
    pub(super) fn lock_over(&mut self, id: EndId, lane: u32, amount: u64) {
        self.events.push(Event::LockFreed { end: id, lane, amount });
    }
}

impl End {
    /// Whether the own side may sign vouchers that pay.
    pub fn check_signs(&self) -> Result<()> {
        if !self.pays() {
            return Err(one_way());
        }
        if !matches!(self.state(), EndState::Opening | EndState::Open) {
            return Err(not_open(self.state()));
        }
        self.check_signs_at_all()
    }

    /// Whether the own side may sign anything.
    pub fn check_signs_at_all(&self) -> Result<()> {
        if self.diverged {
            let message = "the log has vouchers of this side that the journal does not know, so it signs no more";
            return Err(Error::new(Code::ChannelDiverged, message));
        }
        if self.keys[self.side as usize].is_none() {
            let message = format!("side {} of the channel has said no keys, so nothing is signed by it", self.side);
            return Err(Error::new(Code::ChannelKeys, message));
        }
        Ok(())
    }

    fn apply_issued(&mut self, voucher: &Voucher, superseded_max: usize) {
        let terms = &voucher.terms;
        let lane = self.out.entry(terms.lane).or_default();
        self.next_lane = self.next_lane.max(terms.lane.saturating_add(1));
        if terms.nonce <= lane.nonce {
            return;
        }
        let kept = kept(voucher);
        let was_locked = lane.locked();
        let lock = lane.lock.take();
        lane.nonce = terms.nonce;
        if let Some(last) = lane.last.replace(kept.clone()) {
            push(&mut lane.history, last, superseded_max);
        }
        let before = lane.amount;
        match conditions(voucher) {
            Some(conditions) => lane.lock = Some(new_lock(kept, conditions, Bytes::new())),
            None => lane.amount = before.max(terms.amount),
        }
        let (paid, locked) = (lane.amount - before, lane.locked());
        if let (Some(lock), Some(cancel)) = (lock, &mut lane.cancel) {
            cancel.until_ms = cancel.until_ms.max(lock.not_after_ms);
        }
        self.money.locked += i128::from(locked) - i128::from(was_locked);
        self.money.committed += i128::from(paid);
        // What was locked before is not taken again.
        self.consume(terms.lane, (paid + locked).saturating_sub(was_locked));
    }

    fn apply_own_cancel(&mut self, voucher: &Voucher, superseded_max: usize) {
        let lane = self.paid.entry(voucher.terms.lane).or_default();
        let was_locked = lane.locked();
        lane.nonce = lane.nonce.max(voucher.terms.nonce);
        if let Some(lock) = lane.lock.take() {
            push(&mut lane.history, lock.kept, superseded_max);
        }
        push(&mut lane.history, kept(voucher), superseded_max.max(1));
        self.money.locked_in -= i128::from(was_locked);
    }
}

fn terms(issue: &Issue, payer: u32, nonce: u64) -> wire::Voucher {
    wire::Voucher {
        channel: Bytes::copy_from_slice(&issue.end.channel),
        payer,
        lane: issue.lane,
        nonce,
        amount: issue.amount,
        not_before_ms: issue.conditions.not_before_ms,
        not_after_ms: issue.conditions.not_after_ms,
        secret_hash: issue.conditions.secret_hash.map_or(Bytes::new(), |hash| Bytes::copy_from_slice(&hash)),
        merges: Vec::new(),
        virtuals: None,
    }
}

pub(super) fn next_nonce(nonce: u64) -> Result<u64> {
    match nonce {
        0..VOUCHER_NONCE_MAX => Ok(nonce + 1),
        _ => Err(Error::expected(Code::VoucherNonce, "nonce of the lane", "below 2^63 - 1", nonce)),
    }
}

/// The conditions of a voucher; none if it is money at once and for ever.
pub(super) fn conditions(voucher: &Voucher) -> Option<Conditions> {
    let terms = &voucher.terms;
    let secret_hash = Hash::try_from(&terms.secret_hash[..]).ok();
    let conditions = Conditions { secret_hash, not_before_ms: terms.not_before_ms, not_after_ms: terms.not_after_ms };
    (conditions != Conditions::default()).then_some(conditions)
}

pub(super) fn new_lock(kept: Kept, conditions: Conditions, secret: Bytes) -> Lock {
    let Conditions { secret_hash, not_before_ms, not_after_ms } = conditions;
    Lock { kept, secret_hash, not_before_ms, not_after_ms, secret }
}

pub(super) fn kept(voucher: &Voucher) -> Kept {
    Kept { nonce: voucher.terms.nonce, amount: voucher.terms.amount, voucher: voucher.signed() }
}

/// Keeps a superseded voucher, and of these the newest.
pub(super) fn push(history: &mut std::collections::VecDeque<Kept>, kept: Kept, max: usize) {
    let at = history.partition_point(|old| old.nonce < kept.nonce);
    history.insert(at, kept);
    while history.len() > max {
        history.pop_front();
    }
}

/// That a secret is the lock's. Errors: `VOUCHER_SECRET_LONG`, `VOUCHER_SECRET`.
pub(super) fn check_secret(lock: &Lock, secret: &[u8]) -> Result<()> {
    check_secret_hash(lock.secret_hash.as_ref(), secret)
}

pub(super) fn check_secret_hash(wanted: Option<&Hash>, secret: &[u8]) -> Result<()> {
    if secret.len() > PREIMAGE_BYTES_MAX {
        let expected = format!("at most {PREIMAGE_BYTES_MAX}");
        return Err(Error::expected(Code::VoucherSecretLong, "bytes of the secret", expected, secret.len()));
    }
    let found: Hash = Sha256::digest(secret).into();
    match wanted {
        Some(wanted) if *wanted != found => {
            let (expected, found) = (hex::encode(wanted), hex::encode(found));
            Err(Error::expected(Code::VoucherSecret, "sha256 of the secret", expected, found))
        }
        Some(_) => Ok(()),
        None => Err(Error::new(Code::VoucherSecret, "the voucher takes no secret")),
    }
}

pub(super) fn no_lock(lane: u32) -> Error {
    Error::new(Code::NoLock, format!("lane {lane} has no lock in flight"))
}

pub(super) fn one_way() -> Error {
    Error::new(Code::ChannelOneWay, "the channel is one-way, and this side of it pays nothing")
}

/// Reads a voucher of the journal.
pub(super) fn read(signed: &wire::SignedVoucher) -> Result<Voucher> {
    Voucher::decode(signed).map_err(|e| corrupt(&format!("a voucher: {e}")))
}
