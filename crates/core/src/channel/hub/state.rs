//! What the records make of the state.

use bytes::Bytes;

use super::{Hub, PaymentId, corrupt, route};
use crate::channel::check_side;
use crate::channel::manager::EndId;
use crate::error::{Code, Result};
use crate::limits::HUB_REST_MS;
use crate::merkle::Hash;
use crate::wire::hub_record::Kind as Record;
use crate::wire::{self, HubHop, HubLock, HubLockId};

/// A lane of an end; one lock at a time is in flight on it, in each direction.
pub type LockKey = (EndId, u32);

/// An own lock.
#[derive(Clone, Debug)]
pub struct Out {
    pub nonce: u64,
    /// Minor units.
    pub amount: u64,
    pub secret_hash: Hash,
    /// Log time, ms.
    pub not_after_ms: u64,
    /// What the next party gets with it.
    pub hops: Vec<HubHop>,
    pub source: Source,
    /// Time limit of the incoming lock, ms; 0 for an own payment.
    pub in_until_ms: u64,
    /// What the incoming lock has more, minor units.
    pub fee: u64,
    /// Empty: not known.
    pub secret: Bytes,
    /// Paid for good.
    pub upgraded: bool,
    /// The incoming lock was paid.
    pub covered: bool,
}

/// Why a lock was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// An own payment.
    Payment(PaymentId),
    /// A lock that came in, and its nonce.
    Forward(LockKey, u64),
}

/// A lock that came in.
#[derive(Clone, Debug)]
pub struct In {
    pub nonce: u64,
    /// Minor units.
    pub amount: u64,
    /// Of its lane, before it.
    pub paid_before: u64,
    pub secret_hash: Hash,
    /// Log time, ms.
    pub not_after_ms: u64,
    pub purpose: Purpose,
    /// Empty: not known.
    pub secret: Bytes,
    /// It is to be given back, and why.
    pub failing: Option<(u32, String)>,
}

/// What a lock is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// An own invoice.
    Invoice,
    /// Passed on as an own lock with this nonce.
    Forward(LockKey, u64),
    /// It was to go to a channel whose other side holds vouchers that the journal has forgotten. Perhaps it was passed on before: it is
    /// neither passed on nor given back, and claimed if the log shows its secret.
    Kept,
}

/// An own invoice.
#[derive(Debug)]
pub struct Invoice {
    pub terms: wire::HubInvoice,
    pub end: EndId,
    pub secret: Bytes,
    /// A lock was taken for it.
    pub taken: bool,
    /// And it was paid.
    pub paid: bool,
    /// Log time at which that lock was over, ms; 0 before.
    pub over_ms: u64,
}

/// An own payment.
#[derive(Debug)]
pub struct Payment {
    /// Idempotency key.
    pub key: Bytes,
    pub invoice: Bytes,
    pub state: PaymentState,
    /// Its invoice can be paid up to then, log time in ms.
    pub expires_ms: u64,
    /// Log time at which its lock was over, ms; 0 before.
    pub over_ms: u64,
}

/// How a payment is doing.
#[derive(Clone, Debug, PartialEq)]
pub enum PaymentState {
    /// Its money is locked.
    InFlight,
    /// Made; the secret is the receipt.
    Paid(Bytes),
    /// Over, and nothing was paid.
    Failed {
        /// Number of the code.
        code: u32,
        /// Why.
        message: String,
    },
}

impl Out {
    /// Whether something is to be done for it without an event.
    pub fn is_due(&self) -> bool {
        !self.secret.is_empty() && !self.upgraded
    }
}

pub fn id(key: &LockKey) -> Option<HubLockId> {
    Some(HubLockId { channel: Bytes::copy_from_slice(&key.0.channel), side: key.0.side, lane: key.1 })
}

pub fn end(channel: &[u8], side: u32) -> Result<EndId> {
    let channel = Hash::try_from(channel).map_err(|_| corrupt("an id that is not 32 bytes long"))?;
    Ok(EndId { channel, side: check_side("side of the record", side)? })
}

pub fn key(id: Option<&HubLockId>) -> Result<LockKey> {
    let id = id.ok_or_else(|| corrupt("a record without its lane"))?;
    Ok((end(&id.channel, id.side)?, id.lane))
}

pub fn hash(lock: &HubLock) -> Result<Hash> {
    Hash::try_from(&lock.secret_hash[..]).map_err(|_| corrupt("a lock without a hash"))
}

pub fn parts(lock: Option<&HubLock>) -> Result<(LockKey, &HubLock)> {
    let lock = lock.ok_or_else(|| corrupt("a record without its lock"))?;
    Ok((key(lock.id.as_ref())?, lock))
}

impl Hub {
    pub(super) fn apply(&mut self, record: &wire::HubRecord) -> Result<()> {
        match record.kind.as_ref().ok_or_else(|| corrupt("an empty record"))? {
            Record::Invoice(made) => {
                self.apply_invoice(made)?;
            }
            Record::Forward(forward) => {
                let (from, incoming) = parts(forward.incoming.as_ref())?;
                let (to, outgoing) = parts(forward.outgoing.as_ref())?;
                self.add_in(from, incoming, Purpose::Forward(to, outgoing.nonce), Bytes::new())?;
                self.add_out(to, outgoing, Source::Forward(from, incoming.nonce), incoming)?;
            }
            Record::Held(lock) if !lock.hops.is_empty() => {
                self.add_in(key(lock.id.as_ref())?, lock, Purpose::Kept, Bytes::new())?;
            }
            Record::Held(lock) => {
                let hash = hash(lock)?;
                let invoice = self.invoices.get_mut(&hash).ok_or_else(|| corrupt("a lock for no invoice"))?;
                invoice.taken = true;
                let secret = invoice.secret.clone();
                self.add_in(key(lock.id.as_ref())?, lock, Purpose::Invoice, secret)?;
            }
            Record::Payment(made) => self.apply_payment(made)?,
            Record::Learned(learned) => self.apply_learned(learned)?,
            Record::Upgraded(lane) => {
                let out = self.outs.get_mut(&key(Some(lane))?).ok_or_else(|| corrupt("a paid lock that is none"))?;
                out.upgraded = true;
            }
            Record::Failing(failing) => {
                let found = self.ins.get_mut(&key(failing.id.as_ref())?);
                let one = found.ok_or_else(|| corrupt("a lock to give back that is none"))?;
                one.failing = Some((failing.code, failing.message.clone()));
            }
            Record::Over(over) => self.apply_over(over)?,
            Record::Credit(credit) => {
                let before = self.credit.insert(end(&credit.channel, credit.side)?, credit.amount);
                let more = credit.amount.saturating_sub(before.unwrap_or(0));
                self.earned.upfront = self.earned.upfront.saturating_add(more);
            }
            Record::FeeLane(lane) => {
                let (end, lane) = key(Some(lane))?;
                self.fee_lanes.insert(end, lane);
            }
            Record::Diverged(lane) => {
                self.diverged.insert(key(Some(lane))?.0);
            }
            Record::State(state) => self.apply_state(state)?,
            Record::Forgotten(all) => self.apply_forgotten(all)?,
        }
        Ok(())
    }

    pub(super) fn apply_invoice(&mut self, made: &wire::HubSecretInvoice) -> Result<Hash> {
        let terms = route::read_invoice(&made.invoice).map_err(|e| corrupt(&format!("an invoice: {e}")))?;
        let hash = Hash::try_from(&terms.secret_hash[..]).map_err(|_| corrupt("an invoice without a hash"))?;
        let end = end(&terms.channel, made.side)?;
        let invoice = Invoice { terms, end, secret: made.secret.clone(), taken: false, paid: false, over_ms: 0 };
        self.invoices.insert(hash, invoice);
        Ok(hash)
    }

    fn add_in(&mut self, key: LockKey, lock: &HubLock, purpose: Purpose, secret: Bytes) -> Result<()> {
        let credit = self.credit.entry(key.0).or_default();
        *credit = credit.saturating_sub(lock.upfront);
        let one = In {
            nonce: lock.nonce,
            amount: lock.amount,
            paid_before: lock.paid_before,
            secret_hash: hash(lock)?,
            not_after_ms: lock.not_after_ms,
            purpose,
            secret,
            failing: None,
        };
        self.ins.insert(key, one);
        Ok(())
    }

    fn add_out(&mut self, key: LockKey, lock: &HubLock, source: Source, incoming: &HubLock) -> Result<()> {
        let out = Out {
            nonce: lock.nonce,
            amount: lock.amount,
            secret_hash: hash(lock)?,
            not_after_ms: lock.not_after_ms,
            hops: lock.hops.clone(),
            source,
            in_until_ms: incoming.not_after_ms,
            fee: incoming.amount.saturating_sub(lock.amount),
            secret: Bytes::new(),
            upgraded: false,
            covered: false,
        };
        self.outs.insert(key, out);
        self.lanes.insert(key, 0);
        Ok(())
    }

    fn apply_payment(&mut self, made: &wire::HubPayment) -> Result<()> {
        let (key, lock) = parts(made.lock.as_ref())?;
        self.add_out(key, lock, Source::Payment(made.payment), &HubLock::default())?;
        self.add_payment(made.payment, made.key.clone(), made.invoice.clone(), PaymentState::InFlight, 0)
    }

    pub(super) fn add_payment(
        &mut self,
        payment: PaymentId,
        key: Bytes,
        invoice: Bytes,
        state: PaymentState,
        over_ms: u64,
    ) -> Result<()> {
        let terms = route::read_invoice(&invoice).map_err(|e| corrupt(&format!("an invoice: {e}")))?;
        let hash = Hash::try_from(&terms.secret_hash[..]).map_err(|_| corrupt("an invoice without a hash"))?;
        self.by_hash.insert(hash, payment);
        self.keys.insert(key.clone(), payment);
        self.last_payment = self.last_payment.max(payment);
        let expires_ms = terms.expires_ms;
        self.payments.insert(payment, Payment { key, invoice, state, expires_ms, over_ms });
        Ok(())
    }

    fn apply_learned(&mut self, learned: &wire::HubLearned) -> Result<()> {
        let out = self.outs.get_mut(&key(learned.id.as_ref())?);
        let out = out.ok_or_else(|| corrupt("a secret of no lock"))?;
        out.secret = learned.secret.clone();
        match out.source {
            Source::Payment(payment) => {
                if let Some(payment) = self.payments.get_mut(&payment) {
                    payment.state = PaymentState::Paid(learned.secret.clone());
                }
            }
            Source::Forward(from, nonce) => {
                if let Some(one) = self.ins.get_mut(&from).filter(|one| one.nonce == nonce) {
                    one.secret = learned.secret.clone();
                }
            }
        }
        Ok(())
    }

    fn apply_over(&mut self, over: &wire::HubOver) -> Result<()> {
        let key = key(over.id.as_ref())?;
        if !over.outgoing {
            let one = self.ins.remove(&key).ok_or_else(|| corrupt("the end of a lock that is none"))?;
            if let Purpose::Forward(to, nonce) = one.purpose
                && let Some(out) = self.outs.get_mut(&to).filter(|out| over.paid && out.nonce == nonce)
            {
                out.covered = true;
            }
            if let Some(invoice) = self.invoices.get_mut(&one.secret_hash).filter(|_| one.purpose == Purpose::Invoice) {
                (invoice.paid, invoice.over_ms) = (over.paid, over.at_ms);
            }
            return Ok(());
        }
        let out = self.outs.remove(&key).ok_or_else(|| corrupt("the end of an own lock that is none"))?;
        let rest = if over.agreed { 0 } else { out.not_after_ms.saturating_add(HUB_REST_MS) };
        self.lanes.insert(key, rest);
        if over.paid && matches!(out.source, Source::Forward(..)) {
            self.earned.payments = self.earned.payments.saturating_add(1);
            self.earned.fees = self.earned.fees.saturating_add(out.fee);
        }
        if let Source::Payment(payment) = out.source
            && let Some(payment) = self.payments.get_mut(&payment)
        {
            payment.over_ms = over.at_ms;
            if payment.state == PaymentState::InFlight {
                let code = if over.code == 0 { Code::LockOver as u32 } else { over.code };
                payment.state = PaymentState::Failed { code, message: over.message.clone() };
            }
        }
        Ok(())
    }
}
