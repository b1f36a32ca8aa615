//! All that a hub is told or asked.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::channel::manager::{self, EndId};
use crate::limits::{HUB_FINAL_MS, HUB_GRACE_MS, HUB_LOCKS_MAX, HUB_MARGIN_MS};
use crate::merkle::Hash;
use crate::wire;

/// What a hub has to know beside its journal.
#[derive(Clone, Debug)]
pub struct Config {
    /// The network that invoices name.
    pub network_id: u64,
    /// Of the manager: its times are those of the log's ways.
    pub channels: manager::Policy,
    /// Its own.
    pub policy: Policy,
}

/// What a hub asks for and allows. Amounts are minor units, times ms of log time.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Whether it passes on at all.
    pub forwards: bool,
    /// What it publishes. Its margin is at least grace + the manager's `submit_ms` and `margin_ms`; a smaller one counts as that.
    pub terms: wire::HubTerms,
    /// Until it has seen what the log redeemed, at worst.
    pub grace_ms: u64,
    /// Incoming locks on a channel at once.
    pub locks_max: usize,
    /// Money in them.
    pub in_flight_max: u64,
    /// How long the last lock of an own payment lives.
    pub final_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        let terms = wire::HubTerms {
            fee_base: 1,
            fee_ppm: 1_000,
            margin_ms: HUB_MARGIN_MS,
            upfront: 0,
            lock_min: 1,
            lock_max_ms: 24 * 3_600_000,
        };
        Policy {
            forwards: true,
            terms,
            grace_ms: HUB_GRACE_MS,
            locks_max: HUB_LOCKS_MAX,
            in_flight_max: u64::MAX,
            final_ms: HUB_FINAL_MS,
        }
    }
}

impl Config {
    /// The least time between now and the end of a lock that can still be redeemed for sure.
    pub(super) fn claim_ms(&self) -> u64 {
        self.channels.submit_ms.saturating_add(self.channels.margin_ms)
    }

    /// The time that an incoming lock lives longer.
    pub(super) fn margin_ms(&self) -> u64 {
        self.policy.terms.margin_ms.max(self.policy.grace_ms.saturating_add(self.claim_ms()))
    }

    /// What it publishes.
    pub fn terms(&self) -> wire::HubTerms {
        wire::HubTerms { margin_ms: self.margin_ms(), ..self.policy.terms }
    }
}

/// A new invoice.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Own end of the channel with the hub.
    pub end: EndId,
    /// Minor units, at least 1.
    pub amount: u64,
    /// What nobody else knows: 32 random bytes, never used before.
    pub secret: Hash,
    /// Log time up to which it can be paid, ms.
    pub expires_ms: u64,
    /// For the payer, UTF-8.
    pub memo: String,
}

/// The way of a payment, see [`super::plan`].
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Own end of the channel with the first hub, or with the payee.
    pub end: EndId,
    /// Of the first lock, minor units.
    pub amount: u64,
    /// Its time limit, log time in ms.
    pub not_after_ms: u64,
    /// Paid with it, whatever becomes of it.
    pub upfront: u64,
    /// What each hub is to pass on.
    pub hops: Vec<wire::HubHop>,
}

/// A payment to make.
#[derive(Clone, Debug)]
pub struct Pay {
    /// Idempotency key, 1 to 64 bytes: the same again gives the same payment.
    pub key: Bytes,
    /// Encoded `HubInvoice`.
    pub invoice: Bytes,
    /// Over which hubs.
    pub route: Route,
}

/// An input.
#[derive(Clone, Debug)]
pub enum Input {
    /// For the manager: all that it is told goes through the hub. Reply: `Channel`.
    Channel(Box<manager::Input>),
    /// Makes an invoice. Reply: `Invoice`.
    Ask(Ask),
    /// Pays an invoice. Reply: `Payment`.
    Pay(Pay),
    /// The other side of a channel is there: a connection that has proved to be its, and its number, which is none of an
    /// earlier one. Reply: `Done`.
    Connected(EndId, u64),
    /// It is gone.
    Disconnected(EndId),
    /// It says something. An error has changed nothing.
    Message {
        /// Own end of the channel.
        end: EndId,
        /// What.
        message: Box<wire::HubMessage>,
    },
}

/// Lanes and locks that a hub has in hand are not the shell's.
pub(super) fn lane_of(input: &manager::Input) -> Option<(EndId, u32)> {
    match input {
        manager::Input::LockPaid { end, lane, .. }
        | manager::Input::LockCancel { end, lane }
        | manager::Input::Secret { end, lane, .. } => Some((*end, *lane)),
        _ => None,
    }
}

/// The end on which an input signs something for the other side.
pub(super) fn signs_on(input: &manager::Input) -> Option<EndId> {
    match input {
        manager::Input::VoucherCreate(issue) => Some(issue.end),
        manager::Input::LockPaid { end, .. }
        | manager::Input::LockCancel { end, .. }
        | manager::Input::Permit { end, .. } => Some(*end),
        _ => None,
    }
}

/// Ends in which a voucher may have changed a lock.
pub(super) fn ends_of(input: &manager::Input) -> BTreeSet<EndId> {
    match input {
        manager::Input::VoucherAdd(one) => BTreeSet::from([one.end]),
        manager::Input::VoucherSubmit { voucher } => BTreeSet::from([voucher.end]),
        manager::Input::VoucherAddMany(many) => many.iter().map(|one| one.end).collect(),
        _ => BTreeSet::new(),
    }
}
