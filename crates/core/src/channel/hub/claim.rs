//! How locks end: by a secret, by giving back, by time.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::state::{Purpose, Source, id};
use super::{Event, Hub, LockKey, Todo, Turn, whole};
use crate::channel::manager::{self, EndId, Event as ChannelEvent, LaneView, Reply as ChannelReply};
use crate::channel::voucher::Voucher;
use crate::error::{Code, Error, Result};
use crate::merkle::Hash;
use crate::wire::hub_message::Kind;
use crate::wire::hub_record::Kind as Record;
use crate::wire::{self, HubLane, HubOver};

impl Hub {
    /// Something that the manager has seen.
    pub(super) fn seen(&mut self, event: ChannelEvent, turn: &mut Turn) {
        match event {
            ChannelEvent::LockFreed { end, lane, .. } => self.freed((end, lane), turn),
            ChannelEvent::Redeemed { end, payer, lane, secret, .. } if payer == end.side => {
                self.learn((end, lane), &secret, turn);
                self.claim_kept(&secret, turn);
            }
            ChannelEvent::Redeemed { end, lane, .. } => self.step_in((end, lane), turn),
            ChannelEvent::Collected(end) => self.collected(end, turn),
            _ => {}
        }
    }

    /// An own lock is over without having been paid.
    fn freed(&mut self, key: LockKey, turn: &mut Turn) {
        let Some(out) = self.outs.get(&key).cloned() else { return };
        let held = turn.manager.out_lane(&key.0, key.1).is_ok_and(|lane| holds(&lane, out.nonce));
        if held || out.upgraded {
            return;
        }
        let unpaid = || (Code::LockOver as u32, "the lock's time is over and nobody has shown its secret".to_owned());
        let (code, message) = turn.reason.clone().unwrap_or_else(unpaid);
        let agreed = turn.now.log_ms <= out.not_after_ms;
        self.over(&key, true, false, agreed, (code, message.clone()), turn);
        match out.source {
            _ if !out.secret.is_empty() => {}
            Source::Payment(payment) => turn.event(Event::NotPaid { payment, code, message }),
            Source::Forward(from, nonce) => {
                if self.ins.get(&from).is_some_and(|one| one.nonce == nonce) {
                    self.commit(Record::Failing(wire::HubFailing { id: id(&from), code, message }), turn);
                    turn.todo.push_back(Todo::In(from));
                }
            }
        }
    }

    /// The secret of an own lock is known. First the incoming lock is claimed, then this one is paid.
    pub(super) fn learn(&mut self, key: LockKey, secret: &Bytes, turn: &mut Turn) {
        let Some(out) = self.outs.get(&key) else { return };
        let found: Hash = Sha256::digest(secret).into();
        if found != out.secret_hash {
            return;
        }
        let (source, new) = (out.source, out.secret.is_empty());
        if new {
            self.commit(Record::Learned(wire::HubLearned { id: id(&key), secret: secret.clone() }), turn);
            match source {
                Source::Payment(payment) => turn.event(Event::Paid { payment, secret: secret.clone() }),
                Source::Forward(from, _) => self.step_in(from, turn),
            }
        }
        self.step_out(key, turn);
    }

    /// The log shows a secret: perhaps of a lock whose way on was forgotten.
    fn claim_kept(&mut self, secret: &Bytes, turn: &mut Turn) {
        let hash: Hash = Sha256::digest(secret).into();
        let kept = self.ins.iter().filter(|(_, one)| one.purpose == Purpose::Kept && one.secret_hash == hash);
        for (key, nonce) in kept.map(|(key, one)| (*key, one.nonce)).collect::<Vec<_>>() {
            let (end, lane) = key;
            if turn.call(manager::Input::Secret { end, lane, secret: secret.clone() }).is_ok() {
                let lock = HubLane { payer: 1 - end.side, lane, nonce };
                let secret = secret.clone();
                self.send(end, Kind::Secret(wire::HubSecret { lock: Some(lock), secret }), turn);
            }
        }
    }

    /// Pays an own lock for good if that is due and safe.
    pub(super) fn step_out(&mut self, key: LockKey, turn: &mut Turn) {
        let Some(out) = self.outs.get(&key).filter(|out| out.is_due()).cloned() else { return };
        let (end, lane) = key;
        let Ok(view) = turn.manager.out_lane(&end, lane) else { return };
        if !holds(&view, out.nonce) {
            // The log has paid it, or its time is over.
            self.over(&key, true, true, false, (0, String::new()), turn);
            return self.forwarded(&key, &out.source, out.fee, turn);
        }
        if !self.is_ready(&end) || !self.may_pay(&out.source, out.covered, turn) {
            return;
        }
        let input = manager::Input::LockPaid { end, lane, secret: out.secret.clone() };
        if let Ok(ChannelReply::Issued { voucher: Some(voucher), .. }) = turn.call(input) {
            self.commit(Record::Upgraded(id(&key).unwrap_or_default()), turn);
            self.send(end, Kind::Paid(voucher), turn);
        }
    }

    /// Whether what an own lock passes on is in hand, or claimed in the log in time whatever the other side does.
    fn may_pay(&self, source: &Source, covered: bool, turn: &Turn) -> bool {
        let Source::Forward(from, nonce) = source else { return true };
        let one = self.ins.get(from).filter(|one| one.nonce == *nonce && one.failing.is_none());
        covered
            || one.is_some_and(|one| {
                let lane = turn.manager.paid_lane(&from.0, from.1);
                let held = lane.is_ok_and(|lane| lane.lock.is_some_and(|lock| lock.nonce == *nonce && lock.is_known));
                held && turn.now.log_ms.saturating_add(self.config.claim_ms()) <= one.not_after_ms
            })
    }

    fn forwarded(&self, key: &LockKey, source: &Source, fee: u64, turn: &mut Turn) {
        if let Source::Forward(from, _) = source {
            turn.event(Event::Forwarded { from: from.0, to: key.0, fee });
        }
    }

    /// What is due for a lock that came in.
    pub(super) fn step_in(&mut self, key: LockKey, turn: &mut Turn) {
        let Some(one) = self.ins.get(&key).cloned() else { return };
        let (end, lane) = key;
        let Ok(view) = turn.manager.paid_lane(&end, lane) else { return };
        if !holds(&view, one.nonce) {
            let paid = view.paid >= one.paid_before.saturating_add(one.amount);
            self.over(&key, false, paid, false, (0, String::new()), turn);
            match one.purpose {
                Purpose::Forward(to, _) => turn.todo.push_back(Todo::Out(to)),
                Purpose::Invoice if paid => {
                    turn.event(Event::InvoicePaid { secret_hash: one.secret_hash, amount: one.amount });
                }
                Purpose::Invoice | Purpose::Kept => {}
            }
            return;
        }
        let known = view.lock.is_some_and(|lock| lock.is_known);
        if !known && !one.secret.is_empty() {
            if turn.call(manager::Input::Secret { end, lane, secret: one.secret.clone() }).is_ok() {
                self.say_secret(&key, turn);
                self.claim_early(end, one.not_after_ms, view.newest, turn);
            }
        } else if known {
            self.claim_early(end, one.not_after_ms, view.newest, turn);
        } else if let Some((code, message)) = one.failing {
            self.give_back(&key, one.nonce, Error { message, ..error(code) }, turn);
        }
    }

    /// Redeems a lock whose secret is known while it may still be away for its grace and come back in time: the manager alone, which knows
    /// no grace, would wait until the last moment, and who has passed the lock on has paid for it already.
    fn claim_early(&self, end: EndId, not_after_ms: u64, lock: Option<wire::SignedVoucher>, turn: &mut Turn) {
        let back = turn.now.log_ms.saturating_add(self.config.policy.grace_ms).saturating_add(self.config.claim_ms());
        if let Some(lock) = lock.filter(|_| back >= not_after_ms && turn.now.log_ms <= not_after_ms) {
            // Refused if it is on its way already; what fails is tried again with the next tick.
            drop(turn.call(manager::Input::VoucherSubmit { voucher: incoming(end, lock) }));
        }
    }

    pub(super) fn say_secret(&self, key: &LockKey, turn: &mut Turn) {
        if let Some(one) = self.ins.get(key) {
            let lock = HubLane { payer: 1 - key.0.side, lane: key.1, nonce: one.nonce };
            self.send(key.0, Kind::Secret(wire::HubSecret { lock: Some(lock), secret: one.secret.clone() }), turn);
        }
    }

    /// Signs a lock back, if nothing speaks against it.
    pub(super) fn give_back(&mut self, key: &LockKey, nonce: u64, why: Error, turn: &mut Turn) {
        if !self.is_ready(&key.0) {
            return;
        }
        let input = manager::Input::LockCancel { end: key.0, lane: key.1 };
        let Ok(ChannelReply::Issued { voucher, .. }) = turn.call(input) else { return };
        if self.ins.contains_key(key) {
            self.over(key, false, false, true, (why.code as u32, why.message.clone()), turn);
        }
        self.refuse(key, nonce, why, voucher, turn);
    }

    pub(super) fn refuse(
        &self,
        key: &LockKey,
        nonce: u64,
        why: Error,
        voucher: Option<wire::SignedVoucher>,
        turn: &mut Turn,
    ) {
        let lock = Some(HubLane { payer: 1 - key.0.side, lane: key.1, nonce });
        let refused = wire::HubRefused { lock, code: why.code as u32, message: why.message, voucher };
        self.send(key.0, Kind::Refused(refused), turn);
    }

    fn over(&mut self, key: &LockKey, outgoing: bool, paid: bool, agreed: bool, why: (u32, String), turn: &mut Turn) {
        let (code, message) = why;
        let at_ms = turn.now.log_ms;
        self.commit(Record::Over(HubOver { id: id(key), outgoing, paid, agreed, code, message, at_ms }), turn);
    }

    /// The channel is gone; what the log did not say before stays unknown, so nothing is given back for it.
    fn collected(&mut self, end: EndId, turn: &mut Turn) {
        let outs: Vec<LockKey> = self.outs.range(whole(end)).map(|(key, _)| *key).collect();
        for key in outs {
            let paid = self.outs.get(&key).is_some_and(|out| !out.secret.is_empty());
            let why = (Code::ChannelOver as u32, "the channel was collected".to_owned());
            self.over(&key, true, paid, false, why, turn);
        }
        turn.todo.extend(self.ins.range(whole(end)).map(|(key, _)| Todo::In(*key)));
    }

    /// The other side has paid a lock for good.
    pub(super) fn on_paid(&mut self, end: EndId, voucher: wire::SignedVoucher, turn: &mut Turn) -> Result<()> {
        let terms = Voucher::decode(&voucher)?.terms;
        let key = (end, terms.lane);
        let known = turn.manager.paid_lane(&end, terms.lane)?.nonce >= terms.nonce;
        if !known && !self.ins.contains_key(&key) {
            return Err(Error::new(Code::NoLock, format!("lane {} has no lock of a payment in flight", terms.lane)));
        }
        turn.call(manager::Input::VoucherAdd(incoming(end, voucher)))?;
        self.step_in(key, turn);
        let ack = HubLane { payer: terms.payer, lane: terms.lane, nonce: terms.nonce };
        self.send(end, Kind::PaidAck(ack), turn);
        Ok(())
    }

    /// The other side has all of it.
    pub(super) fn on_paid_ack(&mut self, end: EndId, ack: &HubLane, turn: &mut Turn) {
        let key = (end, ack.lane);
        let Some(out) = self.outs.get(&key).filter(|out| out.upgraded && ack.nonce > out.nonce) else { return };
        let (source, fee) = (out.source, out.fee);
        self.over(&key, true, true, true, (0, String::new()), turn);
        self.forwarded(&key, &source, fee, turn);
    }

    /// The other side shows the secret of an own lock.
    pub(super) fn on_secret(&mut self, end: EndId, shown: &wire::HubSecret, turn: &mut Turn) -> Result<()> {
        let lock = shown.lock.ok_or_else(|| Error::new(Code::BadContent, "a secret of no lock"))?;
        let key = (end, lock.lane);
        if let Some(out) = self.outs.get(&key).filter(|out| out.nonce == lock.nonce && !out.upgraded) {
            let found: Hash = Sha256::digest(&shown.secret).into();
            if found != out.secret_hash {
                let (expected, found) = (hex::encode(out.secret_hash), hex::encode(found));
                return Err(Error::expected(Code::VoucherSecret, "sha256 of the secret", expected, found));
            }
            self.learn(key, &shown.secret, turn);
        } else if let Some(paid) = turn.manager.kept_voucher(&end, end.side, lock.lane, lock.nonce.saturating_add(1))?
            && is_payment(&Voucher::decode(&paid)?, end.side)
        {
            // It has not got what was paid.
            self.send(end, Kind::Paid(paid), turn);
        }
        Ok(())
    }

    /// The other side does not want an own lock.
    pub(super) fn on_refused(&mut self, end: EndId, refused: wire::HubRefused, turn: &mut Turn) -> Result<()> {
        let lock = refused.lock.ok_or_else(|| Error::new(Code::BadContent, "a refusal of no lock"))?;
        if self.outs.get(&(end, lock.lane)).is_none_or(|out| out.nonce != lock.nonce) {
            return Ok(());
        }
        match refused.voucher {
            Some(voucher) => {
                turn.reason = Some((refused.code, short(refused.message)));
                turn.call(manager::Input::VoucherAdd(incoming(end, voucher))).map(drop)
            }
            None => {
                turn.event(Event::Stuck { end, lane: lock.lane, code: refused.code });
                Ok(())
            }
        }
    }
}

/// Whether the lock with this nonce is in flight on a lane.
pub fn holds(lane: &LaneView, nonce: u64) -> bool {
    lane.lock.as_ref().is_some_and(|lock| lock.nonce == nonce)
}

/// Whether a voucher pays a lock for good; if the lock's time was over, the next one of its lane is another lock.
fn is_payment(voucher: &Voucher, side: u32) -> bool {
    voucher.signer == side && voucher.terms.secret_hash.is_empty()
}

/// A voucher as it came.
pub fn incoming(end: EndId, voucher: wire::SignedVoucher) -> manager::Incoming {
    manager::Incoming { end, voucher, secret: Bytes::new(), proof: Bytes::new(), min_delta: 0 }
}

/// Another side's code, if there is one.
fn error(code: u32) -> Error {
    Error::new(Code::from_number(code).unwrap_or(Code::LockOver), "")
}

/// A message of another side is shown to users and passed on: not more of it than one reads.
fn short(message: String) -> String {
    message.chars().filter(|c| !c.is_control()).take(200).collect()
}
