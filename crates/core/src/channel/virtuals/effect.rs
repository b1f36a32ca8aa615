//! All that the machine of virtual channels asks its shell to do.

use super::VirtualId;
use crate::channel::manager::{self, EndId};
use crate::error::{Error, Result};
use crate::wire;

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
    /// What was signed; it was sent to the payee, too.
    Signed(wire::SignedPermit),
    /// For each payment, what it has brought more, minor units.
    Received(Vec<Result<u64>>),
    /// It was not done, but what it needed before has changed something.
    Failed(Error),
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// The manager's.
    Channel(manager::Effect),
    /// Tell the other side of a channel over this connection, and never over a newer one, as a hub does. What gets lost is said
    /// again after the next connect.
    Send {
        /// Own end of the channel.
        end: EndId,
        /// Which connection, as `Connected` has named it.
        connection: u64,
        /// What.
        message: Box<wire::VirtualMessage>,
    },
    /// Tell the other party of a virtual channel, if there is a way to it. What gets lost is covered by what is said later.
    Tell(Box<wire::VirtualPeer>),
    /// Tell whoever listens. After a crash an event may be missing: the state is what counts.
    Event(Event),
}

/// Something that users want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An own virtual channel is open up to the payee.
    Opened(VirtualId),
    /// One that ends here is open.
    Accepted(VirtualId),
    /// The payee keeps payments up to this amount.
    Acknowledged {
        /// Which.
        id: VirtualId,
        /// In all, minor units.
        amount: u64,
    },
    /// One end of a virtual channel is over.
    Over {
        /// Which.
        id: VirtualId,
        /// Whether the own side has paid on this end.
        outgoing: bool,
        /// In all, minor units.
        paid: u64,
        /// Number of the code, if it never opened; else 0.
        code: u32,
    },
    /// The other side holds a voucher of the own side that the journal does not know. No set is signed on the end any more.
    Diverged(EndId),
}
