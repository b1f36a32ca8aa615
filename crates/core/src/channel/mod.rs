//! Payment channels: money of two sides, in the ordered log, that signed vouchers move between them outside of it.
//!
//! [`rules`] says what a voucher does to a channel; the log's module, the manager of payments and the watcher all go
//! by it. Amounts are minor units. `docs/channels.md` tells the whole story.

pub mod hub;
pub mod manager;
pub mod rules;
pub mod virtuals;
pub mod voucher;

use sha2::{Digest, Sha256};

use crate::error::{Code, Error, Result};
use crate::merkle::Hash;

/// The side that opened a channel.
pub const OPENER: u32 = 0;
/// The other one.
pub const OTHER: u32 = 1;

/// Id of the channel that an output of an order opens. It names the ledger (the committee's id), so a voucher does.
pub fn channel_id(committee_id: &Hash, order_id: &Hash, output: u32) -> Hash {
    let h = Sha256::new().chain_update(b"florin-channel-v1").chain_update(committee_id).chain_update(order_id);
    h.chain_update(output.to_be_bytes()).finalize().into()
}

/// A side's number. Errors: `BAD_CONTENT`.
pub fn check_side(what: &str, side: u32) -> Result<u32> {
    match side {
        OPENER | OTHER => Ok(side),
        _ => Err(Error::expected(Code::BadContent, what, "0 (the opener) or 1 (the other)", side)),
    }
}
