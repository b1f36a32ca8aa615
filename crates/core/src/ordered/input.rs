//! Everything that can happen to the log. Nothing else changes its state.

use bytes::Bytes;

use crate::wire;

/// An input of [`super::OrderedLog::handle`].
#[derive(Clone, Debug)]
pub enum Input {
    /// The next unit: from the engine, or of a session that a quorum signed and [`super::session::verify`] has
    /// checked. A unit that is applied already changes nothing.
    Unit {
        /// Session that it is of.
        session: u64,
        /// Units with data before it in the session.
        position: u32,
        /// Authority that made it.
        creator: u32,
        /// Its round in the engine; 0 when the session is signed, and thus known to end later.
        round: u32,
        /// Encoded `UnitData`; empty if it carries nothing.
        data: Bytes,
    },
    /// A peer's signature of a session that is closed here.
    Signature {
        /// The session.
        session: u64,
        /// Over its header.
        signature: wire::Signed,
    },
    /// A session with signatures of a quorum, after all its units.
    Close(wire::SignedSession),
    /// A shard of this authority has applied all deliveries up to this one, durably.
    Delivered {
        /// The shard that answered.
        to_shard: u32,
        /// Highest sequence it has applied.
        applied: u64,
    },
}
