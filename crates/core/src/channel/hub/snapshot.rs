//! The state as one record, so that the journal can be written anew: what is over takes no more room in it.

use bytes::Bytes;
use prost::Message as _;

use super::state::{In, Invoice, Out, Payment, PaymentState, Purpose, Source, end, hash, id, key, parts};
use super::{Hub, LockKey, corrupt};
use crate::channel::manager::Manager;
use crate::error::Result;
use crate::wire::hub_record::Kind as Record;
use crate::wire::{self, HubLock, hub_entry};

impl Hub {
    /// A journal of this one group gives the same hub and manager.
    pub fn snapshot(&self, manager: &Manager) -> wire::HubGroup {
        let of_manager = manager.snapshot().into_iter().map(hub_entry::Kind::Channel);
        let own = hub_entry::Kind::Hub(wire::HubRecord { kind: Some(Record::State(self.state())) });
        let entries = of_manager.chain([own]).map(|kind| wire::HubEntry { kind: Some(kind) });
        wire::HubGroup { entries: entries.collect() }
    }

    fn state(&self) -> wire::HubState {
        let lane = |key: &LockKey| id(key).unwrap_or_default();
        let credit = |(end, amount): (&super::EndId, &u64)| {
            let channel = Bytes::copy_from_slice(&end.channel);
            wire::HubCredit { channel, side: end.side, amount: *amount }
        };
        let rest = |(key, until): (&LockKey, &u64)| wire::HubRest { id: id(key), until_ms: *until };
        wire::HubState {
            own_locks: self.outs.iter().map(|(key, out)| own_lock(key, out)).collect(),
            other_locks: self.ins.iter().map(|(key, one)| other_lock(key, one)).collect(),
            lanes: self.lanes.iter().map(rest).collect(),
            fee_lanes: self.fee_lanes.iter().map(|(end, number)| lane(&(*end, *number))).collect(),
            credits: self.credit.iter().map(credit).collect(),
            invoices: self.invoices.values().map(kept_invoice).collect(),
            payments: self.payments.iter().map(|(number, payment)| kept_payment(*number, payment)).collect(),
            diverged: self.diverged.iter().map(|end| lane(&(*end, 0))).collect(),
            earned: Some(self.earned),
            last_payment: self.last_payment,
        }
    }

    pub(super) fn apply_state(&mut self, state: &wire::HubState) -> Result<()> {
        for own in &state.own_locks {
            let (key, lock) = parts(own.lock.as_ref())?;
            self.outs.insert(key, read_own(own, lock)?);
        }
        for other in &state.other_locks {
            let (key, lock) = parts(other.lock.as_ref())?;
            self.ins.insert(key, read_other(other, lock)?);
        }
        for rest in &state.lanes {
            self.lanes.insert(key(rest.id.as_ref())?, rest.until_ms);
        }
        for lane in &state.fee_lanes {
            let (end, lane) = key(Some(lane))?;
            self.fee_lanes.insert(end, lane);
        }
        for credit in &state.credits {
            self.credit.insert(end(&credit.channel, credit.side)?, credit.amount);
        }
        for kept in &state.invoices {
            let made = kept.made.as_ref().ok_or_else(|| corrupt("an invoice without its terms"))?;
            let hash = self.apply_invoice(made)?;
            if let Some(invoice) = self.invoices.get_mut(&hash) {
                (invoice.taken, invoice.paid, invoice.over_ms) = (kept.taken, kept.paid, kept.over_ms);
            }
        }
        for kept in &state.payments {
            self.read_payment(kept)?;
        }
        for lane in &state.diverged {
            self.diverged.insert(key(Some(lane))?.0);
        }
        self.earned = state.earned.unwrap_or_default();
        self.last_payment = self.last_payment.max(state.last_payment);
        Ok(())
    }

    fn read_payment(&mut self, kept: &wire::HubKeptPayment) -> Result<()> {
        let state = match kept.code {
            0 if kept.secret.is_empty() => PaymentState::InFlight,
            0 => PaymentState::Paid(kept.secret.clone()),
            code => PaymentState::Failed { code, message: kept.message.clone() },
        };
        self.add_payment(kept.payment, kept.key.clone(), kept.invoice.clone(), state, kept.over_ms)
    }
}

fn own_lock(key: &LockKey, out: &Out) -> wire::HubOwnLock {
    let (payment, from, from_nonce) = match &out.source {
        Source::Payment(payment) => (*payment, None, 0),
        Source::Forward(from, nonce) => (0, id(from), *nonce),
    };
    let lock = HubLock {
        id: id(key),
        nonce: out.nonce,
        amount: out.amount,
        secret_hash: Bytes::copy_from_slice(&out.secret_hash),
        not_after_ms: out.not_after_ms,
        hops: out.hops.clone(),
        upfront: 0,
        paid_before: 0,
    };
    wire::HubOwnLock {
        lock: Some(lock),
        payment,
        from,
        from_nonce,
        in_until_ms: out.in_until_ms,
        fee: out.fee,
        secret: out.secret.clone(),
        upgraded: out.upgraded,
        covered: out.covered,
    }
}

fn read_own(own: &wire::HubOwnLock, lock: &HubLock) -> Result<Out> {
    let source = match &own.from {
        None => Source::Payment(own.payment),
        Some(from) => Source::Forward(key(Some(from))?, own.from_nonce),
    };
    Ok(Out {
        nonce: lock.nonce,
        amount: lock.amount,
        secret_hash: hash(lock)?,
        not_after_ms: lock.not_after_ms,
        hops: lock.hops.clone(),
        source,
        in_until_ms: own.in_until_ms,
        fee: own.fee,
        secret: own.secret.clone(),
        upgraded: own.upgraded,
        covered: own.covered,
    })
}

fn other_lock(key: &LockKey, one: &In) -> wire::HubOtherLock {
    let (kept, to, to_nonce) = match &one.purpose {
        Purpose::Invoice => (false, None, 0),
        Purpose::Forward(to, nonce) => (false, id(to), *nonce),
        Purpose::Kept => (true, None, 0),
    };
    let lock = HubLock {
        id: id(key),
        nonce: one.nonce,
        amount: one.amount,
        secret_hash: Bytes::copy_from_slice(&one.secret_hash),
        not_after_ms: one.not_after_ms,
        hops: Vec::new(),
        upfront: 0,
        paid_before: one.paid_before,
    };
    let failing = one.failing.as_ref().map(|(code, message)| wire::HubFailing {
        id: None,
        code: *code,
        message: message.clone(),
    });
    wire::HubOtherLock { lock: Some(lock), kept, to, to_nonce, secret: one.secret.clone(), failing }
}

fn read_other(other: &wire::HubOtherLock, lock: &HubLock) -> Result<In> {
    let purpose = match &other.to {
        Some(to) => Purpose::Forward(key(Some(to))?, other.to_nonce),
        None if other.kept => Purpose::Kept,
        None => Purpose::Invoice,
    };
    Ok(In {
        nonce: lock.nonce,
        amount: lock.amount,
        paid_before: lock.paid_before,
        secret_hash: hash(lock)?,
        not_after_ms: lock.not_after_ms,
        purpose,
        secret: other.secret.clone(),
        failing: other.failing.as_ref().map(|failing| (failing.code, failing.message.clone())),
    })
}

fn kept_invoice(invoice: &Invoice) -> wire::HubKeptInvoice {
    let bytes = Bytes::from(invoice.terms.encode_to_vec());
    let made = wire::HubSecretInvoice { invoice: bytes, secret: invoice.secret.clone(), side: invoice.end.side };
    wire::HubKeptInvoice { made: Some(made), taken: invoice.taken, paid: invoice.paid, over_ms: invoice.over_ms }
}

fn kept_payment(number: u64, payment: &Payment) -> wire::HubKeptPayment {
    let (secret, code, message) = match &payment.state {
        PaymentState::InFlight => (Bytes::new(), 0, String::new()),
        PaymentState::Paid(secret) => (secret.clone(), 0, String::new()),
        PaymentState::Failed { code, message } => (Bytes::new(), *code, message.clone()),
    };
    let (key, invoice) = (payment.key.clone(), payment.invoice.clone());
    wire::HubKeptPayment { payment: number, key, invoice, secret, code, message, over_ms: payment.over_ms }
}
