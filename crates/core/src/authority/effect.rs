//! Everything that a shard asks of the world around it.
//!
//! The shell runs effects in this order: all `writes` atomically, then one sync that may cover many
//! steps, and only then the reply. That order is what makes a vote a promise.

use super::hot::Written;
use super::state::Write;
use crate::wire;

/// What [`super::Authority::handle`] returns.
#[derive(Clone, Debug)]
pub struct Effects {
    /// To be written atomically. If empty, nothing changed.
    pub writes: Vec<Write>,
    /// To be sent after the writes are durable, also when there are none: what it says may rest on
    /// an earlier step that is not synced yet.
    pub reply: Reply,
    /// Shards whose outbox has something new, with the last sequence in it. Only what is durable may be
    /// delivered: a delivery that is forgotten and made again differently would lose money.
    pub outbox: Vec<(u32, u64)>,
    /// New end of the settled stream. Peers may see only what is durable, or their cursors would skip
    /// what replaces a forgotten entry.
    pub settled_end: Option<u64>,
    /// For [`super::hot::Hot::written`], after the writes.
    pub accounts: Written,
}

/// The answer to an input.
#[derive(Clone, Debug)]
pub enum Reply {
    /// To `Vote`.
    Vote(wire::VoteReply),
    /// To `Settle`.
    Settle(wire::SettleReply),
    /// To `Deliver`.
    Deliver(wire::DeliveryReply),
    /// To the others.
    Done,
}
