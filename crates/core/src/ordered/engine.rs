//! The ordering engine, as the log sees it: items go in, one sequence of units comes out, the same everywhere.

use std::task::{Context, Poll};

use bytes::Bytes;

use crate::error::Result;

/// One unit, in the total order of its session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unit {
    /// The session.
    pub session: u64,
    /// Authority that made it.
    pub creator: u32,
    /// Its round in the engine.
    pub round: u32,
    /// What it carries; empty if nothing.
    pub data: Bytes,
}

/// An ordering engine: AlephBFT between real authorities, a deterministic sequencer in the simulator.
///
/// It may lose what is submitted (a session ends, a process restarts), and may order it twice: whoever submits does
/// so again until the log has applied it, and the log applies it once.
pub trait Ordering {
    /// Takes part in a session, from where this authority left it. Units come from its beginning.
    /// Errors: `STORAGE_*` if what was promised in it can't be read.
    fn open(&mut self, session: u64) -> Result<()>;
    /// Leaves a session that a quorum has signed.
    fn close(&mut self, session: u64);
    /// Offers the data of one unit. Errors: `BUSY` if too much waits already.
    fn submit(&mut self, data: Bytes) -> Result<()>;
    /// The next unit of any open session. Errors: why it orders no more.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Unit>>;
}
