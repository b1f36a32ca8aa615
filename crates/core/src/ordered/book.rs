//! The log's one record of totals: where it is in the sequence, its time, and the sums of its postings.

use bytes::Bytes;

use crate::authority::state::{State, Table, get_record, i128_bytes, i128_of};
use crate::error::Result;
use crate::wire;

/// Key of the record in the meta table.
pub const BOOK_KEY: &[u8] = b"log";

/// The record, in memory. Every step keeps [`Book::sum`] at zero.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Book {
    /// Session that is open.
    pub session: u64,
    /// Units with data of it, applied.
    pub units: u32,
    /// Bytes of their data.
    pub bytes: u64,
    /// Hash of the header of the session before; empty in session 0.
    pub previous: Bytes,
    /// Log time, ms since 1970.
    pub time_ms: u64,
    /// The newest clock vote of each authority, ms since 1970; 0 before its first.
    pub clocks: Vec<u64>,
    /// Of all that is in the objects table and in this record.
    pub state_hash: Bytes,
    /// Debited from accounts by orders that the log has applied, minor units.
    pub received: i128,
    /// Credited to accounts.
    pub sent: i128,
    /// Held by open contracts.
    pub contracts: i128,
    /// Held by channels.
    pub channels: i128,
    /// On the embedded primary.
    pub primary: i128,
    /// Deposits of the primary that are credited: all with an index below this.
    pub deposits: u64,
    /// Entries of the redeem log.
    pub redeems: u64,
    /// Hash of its last entry; empty if there is none.
    pub last_redeem: Bytes,
    /// Orders applied.
    pub orders: u64,
    /// Open recoveries.
    pub open_recoveries: u64,
}

impl Book {
    /// Reads it. `authorities` is the committee's size.
    pub fn load(state: &dyn State, authorities: usize) -> Result<Book> {
        let r: wire::LogRecord = get_record(state, Table::Meta, BOOK_KEY)?.unwrap_or_default();
        let mut clocks = r.clocks;
        clocks.resize(authorities, 0);
        Ok(Book {
            session: r.session,
            units: r.units,
            bytes: r.bytes,
            previous: r.previous,
            time_ms: r.time_ms,
            clocks,
            state_hash: r.state_hash,
            received: i128_of(&r.received)?,
            sent: i128_of(&r.sent)?,
            contracts: i128_of(&r.contracts)?,
            channels: match r.channels.is_empty() {
                true => 0,
                false => i128_of(&r.channels)?,
            },
            primary: i128_of(&r.primary)?,
            deposits: r.deposits,
            redeems: r.redeems,
            last_redeem: r.last_redeem,
            orders: r.orders,
            open_recoveries: r.open_recoveries,
        })
    }

    /// Its record.
    pub fn encode(&self) -> wire::LogRecord {
        wire::LogRecord {
            session: self.session,
            units: self.units,
            bytes: self.bytes,
            previous: self.previous.clone(),
            time_ms: self.time_ms,
            clocks: self.clocks.clone(),
            state_hash: self.state_hash.clone(),
            received: i128_bytes(self.received),
            sent: i128_bytes(self.sent),
            contracts: i128_bytes(self.contracts),
            channels: i128_bytes(self.channels),
            primary: i128_bytes(self.primary),
            deposits: self.deposits,
            redeems: self.redeems,
            last_redeem: self.last_redeem.clone(),
            orders: self.orders,
            open_recoveries: self.open_recoveries,
        }
    }

    /// Zero, always: what came from accounts is with accounts again, or held by a module.
    pub fn sum(&self) -> i128 {
        self.sent + self.contracts + self.channels + self.primary - self.received
    }
}
