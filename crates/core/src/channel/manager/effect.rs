//! All that a channel manager asks its shell to do.

use bytes::Bytes;

use super::input::{EndId, OpId, ReservationId};
use crate::address::Address;
use crate::error::Error;
use crate::wire;

/// What follows from an input. The records come first: nothing else counts before they are durable, in this order;
/// records of several inputs may share one sync. Reads of the manager are answered after them as well.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// To append to the journal.
    pub records: Vec<wire::ManagerRecord>,
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
    /// It goes on in the background under this number.
    Op(OpId),
    /// It goes on under these.
    Ops(Vec<OpId>),
    /// What was asked for can be done from this log time on, ms, or later if the log has yet to say when; nothing was sent.
    NotYet(u64),
    /// Money is set aside.
    Reserved {
        /// Its number; 0 for a reservation of nothing.
        reservation: ReservationId,
        /// Whether all of it is there.
        active: bool,
        /// The deposit under way that it waits for, if it is short and there is one.
        op: Option<OpId>,
    },
    /// Minor units that are no longer set aside.
    Released(u64),
    /// A lane that nobody else was given.
    Lane(u32),
    /// A voucher, or what is missing for it.
    Issued {
        /// Absent if the money is short.
        voucher: Option<wire::SignedVoucher>,
        /// Minor units that the channel would need besides; 0 with a voucher.
        shortfall: u64,
    },
    /// A voucher is stored.
    Added(Added),
    /// One for each voucher that came in, in their order.
    AddedMany(Vec<Result<Added, Error>>),
    /// The permit.
    Permitted(wire::SignedPermit),
}

/// What a stored voucher is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Added {
    /// What its lane has more than before, minor units; 0 for one that was there already.
    pub delta: u64,
    /// Whether that is subject to a secret or to time limits.
    pub locked: bool,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make and sign an order with this message, keep it from being sent, answer with `Prepared`.
    Prepare {
        /// Which.
        op: OpId,
        /// What it says.
        message: Message,
    },
    /// Send these bytes until they are ordered or can never be, and say how it ended with `Outcome`. After a restart
    /// the same bytes come again.
    Broadcast {
        /// Which.
        op: OpId,
        /// The signed order.
        order: Bytes,
    },
    /// Tell whoever listens. After a crash an event may be missing: the state is what counts.
    Event(Event),
}

/// What a CALL says.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The own account that says it.
    pub account: Address,
    /// Inputs, with their amounts.
    pub inputs: Vec<wire::Input>,
    /// Outputs; what they cost beyond the inputs the account pays.
    pub outputs: Vec<wire::output::Kind>,
}

/// Something that users of channels want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The log has the channel.
    Opened(EndId),
    /// The side's deposits have grown.
    Deposited {
        /// Where.
        end: EndId,
        /// By how much, minor units.
        amount: u64,
    },
    /// The log has redeemed a voucher, of either direction.
    Redeemed {
        /// Where.
        end: EndId,
        /// The side that paid.
        payer: u32,
        /// The lane.
        lane: u32,
        /// What it has moved so far, minor units.
        amount: u64,
        /// The secret that it took; empty if none.
        secret: Bytes,
    },
    /// A side has settled; a second time when the log's clocks have said until when.
    Settling {
        /// Where.
        end: EndId,
        /// Log time from which it can be collected, ms; 2^64 - 1 = undecided.
        at_ms: u64,
    },
    /// Both sides are paid out.
    Collected(EndId),
    /// The other side wants to take money out; a second time when the log's clocks have said when.
    WithdrawalAnnounced {
        /// Where.
        end: EndId,
        /// Minor units.
        amount: u64,
        /// Log time from which it may, ms; 2^64 - 1 = undecided.
        at_ms: u64,
    },
    /// A lock of the own side is over without having been paid: its money is available again.
    LockFreed {
        /// Where.
        end: EndId,
        /// The lane.
        lane: u32,
        /// Minor units.
        amount: u64,
    },
    /// A pending reservation has all its money.
    ReservationActive {
        /// Where.
        end: EndId,
        /// Which.
        reservation: ReservationId,
    },
    /// A pending reservation is released, for its deposit has failed or the channel ends.
    ReservationFailed {
        /// Where.
        end: EndId,
        /// Which.
        reservation: ReservationId,
    },
    /// A chain message has failed for good.
    OpFailed {
        /// Which.
        op: OpId,
        /// Number of the code.
        code: u32,
        /// Why.
        message: String,
    },
    /// The log has a voucher of the own side that this journal does not know: it is an old one, or the keys are used elsewhere.
    /// Nothing is signed on the end any more.
    Diverged(EndId),
}
