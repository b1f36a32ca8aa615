//! Everything that can happen to a shard. Nothing else changes its state.

use bytes::Bytes;

use super::mint::NoteChecks;
use crate::address::Address;
use crate::wire;

/// An input of [`super::Authority::handle`].
#[derive(Clone, Debug)]
pub enum Input {
    /// A wallet or worker asks for votes on a batch of orders of this shard.
    Vote {
        /// Encoded envelopes, 1 to 4,096.
        orders: Vec<Bytes>,
        /// What [`super::Authority::check_notes`] found before, for some of them or none.
        checks: NoteChecks,
    },
    /// Anyone hands in a certificate.
    Settle {
        /// Votes of a quorum.
        certificate: wire::Certificate,
        /// The batch, empty if this shard is believed to have it.
        orders: Vec<Bytes>,
    },
    /// A certificate that this shard fetched from a peer: as `Settle`, without a limit to how many there are
    /// for one batch, since what one honest authority settled all must be able to settle.
    Fetched {
        /// Votes of a quorum.
        certificate: wire::Certificate,
        /// The batch.
        orders: Vec<Bytes>,
    },
    /// Another shard of the same authority delivers credits. The shell has checked who sends.
    Deliver(wire::Delivery),
    /// Another shard has applied all deliveries up to this one, durably.
    Delivered {
        /// The shard that answered.
        to_shard: u32,
        /// Highest sequence it has applied.
        applied: u64,
    },
    /// Everything before this position of a peer's settled stream is settled here.
    Followed {
        /// The peer's index in the committee.
        authority: u32,
        /// Next position to look at.
        position: u64,
    },
    /// The next lines of the genesis file.
    Genesis {
        /// Lines of the file before these, those of other shards included.
        first_line: u64,
        /// Address and minor units of each line, all shards.
        lines: Vec<(Address, u64)>,
        /// Whether these are the last.
        last: bool,
    },
}

impl Input {
    /// Asks for votes on orders whose notes, if they spend any, are yet to be checked.
    pub fn vote(orders: Vec<Bytes>) -> Input {
        Input::Vote { orders, checks: NoteChecks::default() }
    }
}
