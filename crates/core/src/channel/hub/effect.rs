//! All that a hub asks its shell to do.

use bytes::Bytes;

use crate::channel::manager::{self, EndId};
use crate::error::Error;
use crate::merkle::Hash;
use crate::wire;

/// Number of an own payment; durable, never used twice.
pub type PaymentId = u64;

/// What follows from an input. The group comes first: it is one entry of the journal, and nothing else counts before it is
/// durable; groups of several inputs may share one sync.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// To append to the journal as one entry, if it is not empty.
    pub group: wire::HubGroup,
    /// To whoever asked.
    pub reply: Reply,
    /// To carry out, one after the other.
    pub effects: Vec<Effect>,
}

/// The answer to an input.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Reply {
    /// It is done.
    #[default]
    Done,
    /// The manager's.
    Channel(manager::Reply),
    /// Encoded `HubInvoice`, and the hash of its secret.
    Invoice(Bytes, Hash),
    /// It goes on under this number.
    Payment(PaymentId),
    /// It was not done, but what it needed before has changed something.
    Failed(Error),
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// The manager's.
    Channel(manager::Effect),
    /// Tell the other side of a channel over this connection, and never over a newer one: who hears there what was said
    /// before it came back takes old news for the answer to its greeting. What gets lost is said again after the next connect.
    Send {
        /// Own end of the channel.
        end: EndId,
        /// Which connection, as `Connected` has named it.
        connection: u64,
        /// What.
        message: Box<wire::HubMessage>,
    },
    /// Tell whoever listens. After a crash an event may be missing: the state is what counts.
    Event(Event),
}

/// Something that users want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An own payment is made; the secret is its receipt.
    Paid {
        /// Which.
        payment: PaymentId,
        /// Receipt.
        secret: Bytes,
    },
    /// An own payment is over and has moved nothing.
    NotPaid {
        /// Which.
        payment: PaymentId,
        /// Number of the code.
        code: u32,
        /// Why.
        message: String,
    },
    /// An own invoice is paid.
    InvoicePaid {
        /// Its secret's hash.
        secret_hash: Hash,
        /// Minor units.
        amount: u64,
    },
    /// A payment was passed on and is paid.
    Forwarded {
        /// Where it came from.
        from: EndId,
        /// Where it went.
        to: EndId,
        /// What it brought, minor units.
        fee: u64,
    },
    /// The other side has refused a lock without giving it back: it stays until its time is over.
    Stuck {
        /// Where.
        end: EndId,
        /// Its lane.
        lane: u32,
        /// Number of the code.
        code: u32,
    },
    /// The other side holds a voucher of the own side that the journal does not know. Nothing is signed on the end any more.
    Diverged(EndId),
}
