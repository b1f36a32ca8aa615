//! Vouchers that come in.
//!
//! Safety: a voucher is taken only if the log would pay it, whatever the other side does from now on: its nonce and amount are
//! above all that the lane has, everything the other side has signed fits into what it can pay with, announced and permitted
//! withdrawals counted as gone, and its time limits end before a settle of this moment would be over.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::effect::{Added, Effects, Reply};
use super::end::{Cancel, End, Kept, PaidLane};
use super::input::{EndId, Incoming, Now};
use super::issue::{check_secret, check_secret_hash, conditions, kept, new_lock, no_lock, push};
use super::policy::Policy;
use super::query::{EndState, Validity};
use super::{Manager, corrupt, hash};
use crate::channel::OTHER;
use crate::channel::voucher::Voucher;
use crate::error::{Code, Error, Result};
use crate::limits::{AMOUNT_MAX, LANES_MAX, VOUCHER_NONCE_MAX};
use crate::ordered::modules::channels::UNDECIDED;
use crate::signatures::Batch;
use crate::wire;
use crate::wire::manager_record::Kind as Record;

/// What a voucher would do.
pub(super) enum Verdict {
    /// Nothing; with a lock whose secret is new, that is kept.
    Known { secret_is_new: bool },
    /// It pays this end, or will.
    Pays(Added),
    /// The payee gives back a lock of this end.
    Cancels,
    /// An own voucher that this journal has forgotten.
    Forgotten,
}

impl Manager {
    pub(super) fn voucher_add(&mut self, now: Now, incoming: Incoming, fx: &mut Effects) -> Result<()> {
        let voucher = decode(&incoming)?;
        let added = self.add(now, &incoming, voucher, None, fx)?;
        fx.reply = Reply::Added(added);
        Ok(())
    }

    /// Many at once: their signatures are verified together, then each counts by itself.
    pub(super) fn voucher_add_many(&mut self, now: Now, many: Vec<Incoming>, fx: &mut Effects) {
        let mut batch = Batch::new();
        let vouchers: Vec<Result<Voucher>> = many.iter().map(decode).collect();
        for (tag, (incoming, voucher)) in many.iter().zip(&vouchers).enumerate() {
            if let Ok(voucher) = voucher {
                match self.ends.get(&incoming.end) {
                    Some(end) if end.knows(voucher) => {}
                    Some(end) => batch.push_job(tag, end.job(voucher)),
                    None => {}
                }
            }
        }
        let mut refused: BTreeMap<usize, Error> =
            batch.verify().results.into_iter().filter_map(|(tag, result)| Some((tag, result.err()?))).collect();
        let mut replies = Vec::with_capacity(many.len());
        for (tag, (incoming, voucher)) in many.iter().zip(vouchers).enumerate() {
            let signed = Some(refused.remove(&tag).map_or(Ok(()), Err));
            replies.push(voucher.and_then(|voucher| self.add(now, incoming, voucher, signed, fx)));
        }
        fx.reply = Reply::AddedMany(replies);
    }

    /// With what came of its signatures, if they are verified already.
    pub(super) fn add(
        &mut self,
        now: Now,
        incoming: &Incoming,
        voucher: Voucher,
        signed: Option<Result<()>>,
        fx: &mut Effects,
    ) -> Result<Added> {
        let end = self.end(&incoming.end)?;
        let verdict = end.judge(&voucher, incoming, now, self.policy())?;
        let nothing = Added { delta: 0, locked: false };
        if !matches!(verdict, Verdict::Known { .. }) {
            signed.unwrap_or_else(|| end.job(&voucher)?.verify())?;
        }
        let signed = voucher.signed();
        match verdict {
            Verdict::Known { secret_is_new } => {
                if secret_is_new {
                    self.secret_learned(incoming.end, voucher.terms.lane, &incoming.secret, fx);
                }
                Ok(nothing)
            }
            Verdict::Forgotten => {
                self.apply_issued(&incoming.end, &voucher)?;
                fx.records.push(super::record(Record::Issued(signed)));
                self.after_chain(&incoming.end);
                Ok(nothing)
            }
            Verdict::Cancels => {
                self.received(&incoming.end, &voucher, &Bytes::new())?;
                fx.records.push(super::record(received(signed, Bytes::new())));
                Ok(nothing)
            }
            Verdict::Pays(added) => {
                if added.delta < incoming.min_delta {
                    let expected = format!("at least {}", incoming.min_delta);
                    return Err(Error::expected(Code::VoucherDelta, "increase of the lane", expected, added.delta));
                }
                self.received(&incoming.end, &voucher, &incoming.secret)?;
                fx.records.push(super::record(received(signed, incoming.secret.clone())));
                Ok(added)
            }
        }
    }

    pub(super) fn apply_received(&mut self, record: &wire::ManagerReceived) -> Result<()> {
        let signed = record.voucher.as_ref().ok_or_else(|| corrupt("a received voucher without itself"))?;
        let voucher = super::issue::read(signed)?;
        let id = EndId { channel: hash(&voucher.terms.channel)?, side: 1 - voucher.signer };
        self.received(&id, &voucher, &record.secret)
    }

    fn received(&mut self, id: &EndId, voucher: &Voucher, secret: &Bytes) -> Result<()> {
        let superseded_max = self.policy().superseded_max;
        let end = self.end_mut(id)?;
        if voucher.terms.payer == end.side {
            if let Some(freed) = end.apply_cancelled(voucher) {
                self.lock_over(*id, voucher.terms.lane, freed);
            }
        } else {
            end.apply_paid(voucher, secret, superseded_max);
        }
        self.refill(id);
        self.touch(id);
        Ok(())
    }

    /// The secret of a lock that pays this end.
    pub(super) fn secret(&mut self, id: EndId, lane: u32, secret: &Bytes, fx: &mut Effects) -> Result<()> {
        let end = self.end(&id)?;
        let lock = end.paid.get(&lane).and_then(|lane| lane.lock.as_ref()).ok_or_else(|| no_lock(lane))?;
        check_secret(lock, secret)?;
        if lock.secret.is_empty() {
            self.secret_learned(id, lane, secret, fx);
        }
        Ok(())
    }

    pub(super) fn apply_secret(&mut self, record: &wire::ManagerSecret) -> Result<()> {
        let id = super::end_id(&record.channel, record.side)?;
        let end = self.end_mut(&id)?;
        let (out, paid) = (end.out.get_mut(&record.lane), end.paid.get_mut(&record.lane));
        let locks = [out.and_then(|lane| lane.lock.as_mut()), paid.and_then(|lane| lane.lock.as_mut())];
        for lock in locks.into_iter().flatten().filter(|lock| check_secret(lock, &record.secret).is_ok()) {
            lock.secret = record.secret.clone();
        }
        self.dirty.push(id);
        Ok(())
    }

    /// Whether a voucher could be added, and what it would be worth; reads only. Errors: those of adding it.
    pub fn voucher_check_valid(&self, now: Now, id: EndId, signed: &wire::SignedVoucher) -> Result<Validity> {
        let incoming =
            Incoming { end: id, voucher: signed.clone(), secret: Bytes::new(), proof: Bytes::new(), min_delta: 0 };
        let voucher = decode(&incoming)?;
        let end = self.end(&id)?;
        let verdict = end.judge(&voucher, &incoming, now, self.policy())?;
        if !matches!(verdict, Verdict::Known { .. }) {
            end.job(&voucher)?.verify()?;
        }
        Ok(match verdict {
            Verdict::Known { .. } | Verdict::Forgotten => Validity::AlreadyKnown,
            Verdict::Cancels => Validity::New(0),
            Verdict::Pays(added) => Validity::New(added.delta),
        })
    }
}

fn received(signed: wire::SignedVoucher, secret: Bytes) -> Record {
    Record::Received(wire::ManagerReceived { voucher: Some(signed), secret })
}

fn decode(incoming: &Incoming) -> Result<Voucher> {
    if !incoming.proof.is_empty() {
        return Err(Error::expected(Code::ProofRefused, "bytes of the proof", 0, incoming.proof.len()));
    }
    Voucher::decode(&incoming.voucher)
}

impl End {
    /// The curve arithmetic that a voucher needs.
    pub fn job(&self, voucher: &Voucher) -> Result<crate::signatures::Job> {
        let keys = self.keys[voucher.signer as usize].as_ref();
        let (permission, address) = keys.ok_or_else(|| {
            let message =
                format!("side {} of the channel has said no keys, so nothing is signed by it", voucher.signer);
            Error::new(Code::ChannelKeys, message)
        })?;
        voucher.job(permission, address)
    }

    /// Whether exactly this voucher is stored.
    pub fn knows(&self, voucher: &Voucher) -> bool {
        let terms = &voucher.terms;
        if terms.channel.len() != 32 || voucher.payee() == voucher.signer && terms.payer != self.side {
            return false;
        }
        let found = match terms.payer == self.side {
            true => self.out.get(&terms.lane).and_then(|lane| lane.find(terms.nonce)),
            false => self.paid.get(&terms.lane).and_then(|lane| lane.find(terms.nonce)),
        };
        found.is_some_and(|kept| kept.voucher.voucher == voucher.bytes && kept.voucher.signer == voucher.signer)
    }

    /// The checks, in the order of the contract ([`crate::channel::rules`]), but for the signature.
    pub(super) fn judge(&self, voucher: &Voucher, incoming: &Incoming, now: Now, policy: &Policy) -> Result<Verdict> {
        let terms = &voucher.terms;
        match self.state() {
            EndState::Collected | EndState::Failed => return Err(super::funds::not_open(self.state())),
            EndState::Settling if now.log_ms.saturating_add(policy.submit_ms) > self.record.settling_at_ms => {
                let expected = format!("{} ms before {}", policy.submit_ms, self.record.settling_at_ms);
                return Err(Error::expected(Code::ChannelOver, "log time", expected, now.log_ms));
            }
            _ => {}
        }
        if terms.channel != incoming.end.channel[..] {
            let (expected, found) = (hex::encode(incoming.end.channel), hex::encode(&terms.channel));
            return Err(Error::expected(Code::VoucherChannel, "channel of the voucher", expected, found));
        }
        if voucher.signatures.is_empty() {
            return Err(Error::new(Code::VoucherUnsigned, "the voucher has no signature"));
        }
        let hash = conditions(voucher).and_then(|conditions| conditions.secret_hash);
        if !incoming.secret.is_empty() {
            check_secret_hash(hash.as_ref(), &incoming.secret)?;
        }
        if self.knows(voucher) {
            let lock = self.paid.get(&terms.lane).and_then(|lane| lane.lock.as_ref());
            let lock = lock.filter(|lock| lock.kept.nonce == terms.nonce && lock.secret.is_empty());
            return Ok(Verdict::Known { secret_is_new: lock.is_some() && !incoming.secret.is_empty() });
        }
        if terms.payer == OTHER && !self.record.two_way {
            return Err(super::issue::one_way());
        }
        if voucher.signer == self.side {
            return self.judge_own(voucher);
        }
        if terms.amount > AMOUNT_MAX {
            return Err(Error::expected(
                Code::VoucherAmount,
                "amount of the voucher",
                "at most 2^63 - 1",
                terms.amount,
            ));
        }
        if terms.lane >= LANES_MAX {
            return Err(Error::expected(Code::VoucherLane, "lane", format!("below {LANES_MAX}"), terms.lane));
        }
        if terms.nonce > VOUCHER_NONCE_MAX {
            return Err(Error::expected(Code::VoucherNonce, "nonce of the voucher", "at most 2^63 - 1", terms.nonce));
        }
        if terms.virtuals.is_some() {
            let what = "virtual channels over the voucher's lane";
            return Err(Error::expected(Code::VoucherMerges, what, "none", "some"));
        }
        if !terms.merges.is_empty() {
            return Err(Error::expected(Code::VoucherMerges, "lanes that the voucher merges", 0, terms.merges.len()));
        }
        match terms.payer == self.side {
            true => self.judge_cancel(voucher),
            false => self.judge_paid(voucher, now, policy),
        }
    }

    /// One of the own side: known, or forgotten by this journal.
    fn judge_own(&self, voucher: &Voucher) -> Result<Verdict> {
        let terms = &voucher.terms;
        let known = match terms.payer == self.side {
            true => self.out.get(&terms.lane).map_or(0, |lane| lane.nonce),
            false => self.paid.get(&terms.lane).map_or(0, |lane| lane.nonce),
        };
        match terms.nonce <= known {
            true => Ok(Verdict::Known { secret_is_new: false }),
            false
                if !terms.merges.is_empty()
                    || terms.lane >= LANES_MAX
                    || terms.amount > AMOUNT_MAX
                    || terms.nonce > VOUCHER_NONCE_MAX =>
            {
                Err(Error::new(Code::BadContent, "a voucher of the own side that this manager would not sign"))
            }
            false => Ok(Verdict::Forgotten),
        }
    }

    /// The payee gives back a lock of the own side.
    fn judge_cancel(&self, voucher: &Voucher) -> Result<Verdict> {
        let terms = &voucher.terms;
        let lane = self.out.get(&terms.lane).ok_or_else(|| no_lock(terms.lane))?;
        let lock = lane.lock.as_ref().ok_or_else(|| no_lock(terms.lane))?;
        if terms.nonce <= lock.kept.nonce {
            let expected = format!("above {}", lock.kept.nonce);
            return Err(Error::expected(Code::VoucherNonce, "nonce of the voucher", expected, terms.nonce));
        }
        if terms.amount != lane.amount || conditions(voucher).is_some() {
            let expected = format!("{} without conditions, as before the lock", lane.amount);
            return Err(Error::expected(Code::VoucherAmount, "amount of the voucher", expected, terms.amount));
        }
        Ok(Verdict::Cancels)
    }

    fn judge_paid(&self, voucher: &Voucher, now: Now, policy: &Policy) -> Result<Verdict> {
        let terms = &voucher.terms;
        if voucher.signer != terms.payer {
            let expected = format!("side {}, which pays", terms.payer);
            return Err(Error::expected(Code::VoucherSigner, "signer of the voucher", expected, voucher.signer));
        }
        let none = PaidLane::default();
        let lane = self.paid.get(&terms.lane).unwrap_or(&none);
        if terms.nonce <= lane.nonce {
            let expected = format!("above {}", lane.nonce);
            return Err(Error::expected(Code::VoucherNonce, "nonce of the voucher", expected, terms.nonce));
        }
        if lane.exposed.is_some() {
            let message = format!("lane {} is one of virtual channels, which the voucher would end", terms.lane);
            return Err(Error::new(Code::LaneLocked, message));
        }
        let conditions = conditions(voucher);
        let value = lane.value();
        let (floor, exact) = match &lane.lock {
            // What was locked is not given up for less.
            Some(lock) => (lock.kept.amount, true),
            None => (value, false),
        };
        if terms.amount < floor || terms.amount == floor && !exact {
            let expected =
                if exact { format!("at least {floor}, which the lane's lock has") } else { format!("above {floor}") };
            return Err(Error::expected(Code::VoucherNotAbove, "amount of the voucher", expected, terms.amount));
        }
        if let Some(conditions) = &conditions {
            if lane.lock.is_some() {
                let message = format!("lane {} has a lock in flight: use another lane", terms.lane);
                return Err(Error::new(Code::LaneLocked, message));
            }
            self.check_terms(conditions, terms.amount - value, now, policy)?;
        }
        let delta = i128::from(terms.amount) - i128::from(value) - i128::from(lane.locked());
        let (spent, funds) = (self.others_spent() + delta, self.others_funds(now.log_ms));
        if spent > funds {
            let expected = format!("at most {funds}, which it can pay with");
            return Err(Error::expected(Code::ChannelFunds, "signed for by the other side, in all", expected, spent));
        }
        Ok(Verdict::Pays(Added { delta: terms.amount - value, locked: conditions.is_some() }))
    }

    /// That conditions leave the time to redeem, also if the channel is settled this moment.
    fn check_terms(&self, conditions: &super::Conditions, amount: u64, now: Now, policy: &Policy) -> Result<()> {
        let end = match self.record.settling_at_ms {
            // Clocks that are still to say when it begins say no earlier time than this.
            0 | UNDECIDED => now.log_ms.saturating_add(self.record.delay_ms),
            at => at,
        };
        let first = now.log_ms.saturating_add(policy.submit_ms);
        let last = end.saturating_sub(policy.submit_ms.saturating_add(policy.margin_ms));
        let last = last.min(now.log_ms.saturating_add(policy.lock_max_ms));
        let until = conditions.not_after_ms;
        let early = conditions.not_before_ms.saturating_add(policy.submit_ms) > until;
        if !(first..=last).contains(&until) || early {
            let expected = format!("{first} to {last} ms, and {} ms after its beginning", policy.submit_ms);
            return Err(Error::expected(Code::LockTerms, "end of the conditions", expected, until));
        }
        if amount < policy.lock_min {
            let expected = format!("at least {}", policy.lock_min);
            return Err(Error::expected(Code::LockTerms, "amount of the lock", expected, amount));
        }
        let locks = self.paid.values().filter(|lane| lane.lock.is_some()).count();
        if locks >= policy.locks_max {
            let expected = format!("fewer than {}", policy.locks_max);
            return Err(Error::expected(Code::LockTerms, "locks in flight", expected, locks));
        }
        Ok(())
    }

    fn apply_paid(&mut self, voucher: &Voucher, secret: &Bytes, superseded_max: usize) {
        let terms = &voucher.terms;
        let lane = self.paid.entry(terms.lane).or_default();
        let (value, locked) = (lane.value(), lane.locked());
        lane.nonce = lane.nonce.max(terms.nonce);
        let new = kept(voucher);
        if let Some(lock) = lane.lock.take() {
            push(&mut lane.history, lock.kept, superseded_max);
        }
        match conditions(voucher) {
            Some(conditions) => lane.lock = Some(new_lock(new, conditions, secret.clone())),
            None => {
                if let Some(old) = lane.firm.replace(new) {
                    push(&mut lane.history, old, superseded_max);
                }
            }
        }
        self.money.received += i128::from(lane.value()) - i128::from(value);
        self.money.locked_in += i128::from(lane.locked()) - i128::from(locked);
    }

    /// Frees the lock; gives what it held.
    fn apply_cancelled(&mut self, voucher: &Voucher) -> Option<u64> {
        let lane = self.out.get_mut(&voucher.terms.lane)?;
        let freed = lane.locked();
        let lock = lane.lock.take()?;
        lane.nonce = lane.nonce.max(voucher.terms.nonce);
        let until_ms = lane.cancel.as_ref().map_or(0, |cancel| cancel.until_ms).max(lock.not_after_ms);
        lane.cancel = Some(Cancel { kept: kept(voucher), until_ms, answer: None });
        self.money.locked -= i128::from(freed);
        Some(freed)
    }
}

impl PaidLane {
    /// The stored voucher with this nonce.
    pub fn find(&self, nonce: u64) -> Option<&Kept> {
        let newest = [self.lock.as_ref().map(|lock| &lock.kept), self.firm.as_ref()];
        newest.into_iter().flatten().find(|kept| kept.nonce == nonce).or_else(|| find(&self.history, nonce))
    }
}

impl super::end::OutLane {
    /// The stored voucher with this nonce.
    pub fn find(&self, nonce: u64) -> Option<&Kept> {
        let newest = [self.last.as_ref(), self.cancel.as_ref().map(|cancel| &cancel.kept)];
        newest.into_iter().flatten().find(|kept| kept.nonce == nonce).or_else(|| find(&self.history, nonce))
    }
}

fn find(history: &std::collections::VecDeque<Kept>, nonce: u64) -> Option<&Kept> {
    history.binary_search_by_key(&nonce, |kept| kept.nonce).ok().map(|at| &history[at])
}
