//! What proves that authorities lie is kept as receipt files in the data folder, for `florin evidence check`.

use std::fs;
use std::path::Path;

use florin_core::committee::Committee;
use florin_core::error::Result;
use florin_core::{evidence, wire};
use prost::Message as _;
use tracing::error;

use crate::storage::{io_error, write_atomic};

/// The folder, in the data folder.
pub const FOLDER: &str = "evidence";
/// Receipts kept, at most: whoever can make one pair can make any number.
const FILES_MAX: usize = 128;

/// Writes pairs of receipts that are not there yet.
pub fn keep(data: &Path, committee: &Committee, pairs: &[[wire::Receipt; 2]]) -> Result<()> {
    let folder = data.join(FOLDER);
    fs::create_dir_all(&folder).map_err(|e| io_error("make", &folder, e))?;
    for pair in pairs {
        let found = evidence::check(committee, [&pair[0], &pair[1]])?;
        let name = found.orders.each_ref().map(|order| hex::encode(&order.id[..8])).join("-");
        let files = ["a", "b"].map(|part| format!("{name}-{part}.json"));
        let kept = fs::read_dir(&folder).map_err(|e| io_error("read", &folder, e))?.count();
        if folder.join(&files[1]).exists() || kept >= FILES_MAX {
            continue;
        }
        for (file, receipt) in files.iter().zip(pair) {
            let text =
                format!("{{\"florin_receipt\": 1, \"receipt\": \"{}\"}}\n", hex::encode(receipt.encode_to_vec()));
            write_atomic(&folder, file, text.as_bytes())?;
        }
        let guilty: Vec<&str> = found.guilty.iter().map(|i| &committee.authorities[*i as usize].name[..]).collect();
        error!("two orders that exclude each other are signed by {guilty:?}: {} and {}", files[0], files[1]);
    }
    Ok(())
}
