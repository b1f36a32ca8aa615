//! Everything that the log asks of the world around it: writes first, then a sync, and only then the rest.

use crate::authority::state::Write;
use crate::merkle::Hash;
use crate::wire;

/// What [`super::OrderedLog::handle`] returns.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// To be written atomically. If empty, nothing changed.
    pub writes: Vec<Write>,
    /// Shards whose outbox has something new, with the last sequence in it.
    pub outbox: Vec<(u32, u64)>,
    /// The session that is open, and units applied of it.
    pub units: Option<(u64, u32)>,
    /// A session that ended, and the own signature of its header, for the peers.
    pub closed: Option<(u64, wire::Signed)>,
    /// Orders whose outcome is decided now: (network, actor, seqnum).
    pub decided: Vec<(u64, u64, u32)>,
    /// The same of bearer orders, by their ids.
    pub decided_bearers: Vec<Hash>,
}
