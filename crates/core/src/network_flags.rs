//! The flags of a network: PBTX's three, Florin's one, and sixteen that belong to the application.

use crate::error::{Code, Error, Result};

/// Listeners get the whole Transaction instead of its fields (PBTX).
pub const RAW_NOTIFY: u32 = 1;
/// Transactions are kept in the network's history (PBTX).
pub const HISTORY: u32 = 2;
/// seqnum and prev_hash of transactions are neither checked nor kept (PBTX).
pub const SKIP_SEQ_AND_PREVHASH: u32 = 4;
/// Transactions of all actors have one order (Florin).
pub const ORDERED: u32 = 8;
/// What the application may use as it likes.
pub const APPLICATION: u32 = 0xffff_0000;

/// Names of the flags below the application's, in the order of their bits.
pub const NAMES: [(u32, &str); 4] = [
    (RAW_NOTIFY, "RAW_NOTIFY"),
    (HISTORY, "HISTORY"),
    (SKIP_SEQ_AND_PREVHASH, "SKIP_SEQ_AND_PREVHASH"),
    (ORDERED, "ORDERED"),
];

/// No bits are set among the lower 16 but those that mean something: `BAD_CONTENT`.
pub fn check(flags: u32) -> Result<()> {
    let unknown = flags & !(RAW_NOTIFY | HISTORY | SKIP_SEQ_AND_PREVHASH | ORDERED | APPLICATION);
    if unknown != 0 {
        let expected = "of the lower 16 bits only 1, 2, 4 and 8";
        return Err(Error::expected(Code::BadContent, "flags of a network", expected, format!("also {unknown:#x}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_half_is_free_and_the_lower_is_not() {
        for flags in [0, 1, 2, 4, 8, 15, 0xffff_0000, 0xffff_000f] {
            assert_eq!(check(flags), Ok(()), "{flags:#x}");
        }
        for flags in [0x10, 0x8000, 0x1_0010, u32::MAX] {
            assert_eq!(check(flags).unwrap_err().code, Code::BadContent, "{flags:#x}");
        }
    }
}
