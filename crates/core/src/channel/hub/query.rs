//! What users of hubs ask. The shell answers after the records before are durable.

use super::state::{Purpose, Source};
use super::{Hub, PaymentId, PaymentState, whole};
use crate::channel::manager::EndId;
use crate::error::{Code, Error, Result};
use crate::merkle::Hash;
use crate::wire;

/// How an own invoice is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InvoiceState {
    /// Nobody has locked money for it.
    Open,
    /// Money is locked for it.
    Locked,
    /// Paid.
    Paid,
    /// The lock for it was not paid, and it takes no other.
    Over,
}

/// The connection with the other side of a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkState {
    /// It is not there.
    Away,
    /// It is, and has not said yet which vouchers it holds.
    Comparing,
    /// Payments go over it.
    Ready,
    /// The other side holds vouchers that the journal does not know: nothing is signed any more.
    Diverged,
}

/// A lock in flight.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockInfo {
    /// The own side has signed it.
    pub outgoing: bool,
    /// Its lane.
    pub lane: u32,
    /// Minor units.
    pub amount: u64,
    /// Log time up to which it can be taken, ms.
    pub not_after_ms: u64,
    /// Of what takes it.
    pub secret_hash: Hash,
    /// Whether that is known here.
    pub is_known: bool,
    /// What it is for: `payment`, `invoice`, `forward`, `kept`.
    pub purpose: &'static str,
}

impl Hub {
    /// How an own payment is doing. `UNKNOWN_PAYMENT`.
    pub fn payment(&self, payment: PaymentId) -> Result<&PaymentState> {
        let unknown = || Error::new(Code::UnknownPayment, format!("there is no payment {payment}"));
        self.payments.get(&payment).map(|found| &found.state).ok_or_else(unknown)
    }

    /// The newest own payment for a secret's hash.
    pub fn payment_for(&self, secret_hash: &Hash) -> Option<(PaymentId, &PaymentState)> {
        let payment = self.by_hash.get(secret_hash)?;
        self.payments.get(payment).map(|found| (*payment, &found.state))
    }

    /// How an own invoice is doing. `INVOICE_UNKNOWN`.
    pub fn invoice(&self, secret_hash: &Hash) -> Result<InvoiceState> {
        let unknown = || Error::new(Code::InvoiceUnknown, "there is no such invoice");
        let invoice = self.invoices.get(secret_hash).ok_or_else(unknown)?;
        let is_for = |one: &super::In| one.purpose == Purpose::Invoice && one.secret_hash == *secret_hash;
        Ok(match invoice.taken {
            false => InvoiceState::Open,
            true if invoice.paid => InvoiceState::Paid,
            true if self.ins.range(whole(invoice.end)).any(|(_, one)| is_for(one)) => InvoiceState::Locked,
            true => InvoiceState::Over,
        })
    }

    /// The connection of an end.
    pub fn link(&self, end: &EndId) -> LinkState {
        let link = self.links.get(end);
        match link {
            _ if self.diverged.contains(end) => LinkState::Diverged,
            Some(link) if link.connection.number.is_some() && link.connection.compared => LinkState::Ready,
            Some(link) if link.connection.number.is_some() => LinkState::Comparing,
            _ => LinkState::Away,
        }
    }

    /// What passing on has brought so far.
    pub fn earned(&self) -> wire::HubEarned {
        self.earned
    }

    /// Locks in flight: own ones and those of others.
    pub fn in_flight(&self) -> (usize, usize) {
        (self.outs.len(), self.ins.len())
    }

    /// Locks in flight on an end.
    pub fn locks(&self, end: &EndId) -> Vec<LockInfo> {
        let outs = self.outs.range(whole(*end)).map(|((_, lane), out)| LockInfo {
            outgoing: true,
            lane: *lane,
            amount: out.amount,
            not_after_ms: out.not_after_ms,
            secret_hash: out.secret_hash,
            is_known: !out.secret.is_empty(),
            purpose: if matches!(out.source, Source::Payment(_)) { "payment" } else { "forward" },
        });
        let ins = self.ins.range(whole(*end)).map(|((_, lane), one)| LockInfo {
            outgoing: false,
            lane: *lane,
            amount: one.amount,
            not_after_ms: one.not_after_ms,
            secret_hash: one.secret_hash,
            is_known: !one.secret.is_empty(),
            purpose: match one.purpose {
                Purpose::Invoice => "invoice",
                Purpose::Forward(..) => "forward",
                Purpose::Kept => "kept",
            },
        });
        outs.chain(ins).collect()
    }
}
