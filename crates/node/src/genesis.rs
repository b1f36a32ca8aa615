//! The genesis file: lines of `address amount`, amounts in units with the currency's decimals. Empty lines
//! and lines that start with `#` are passed over.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use florin_core::address::Address;
use florin_core::amount::parse_amount;
use florin_core::authority::input::Input;
use florin_core::committee::Network;
use florin_core::{Code, Error, Result};
use sha2::{Digest, Sha256};
use tracing::info;

use crate::shard::Shard;

/// Lines in one step.
const CHUNK: usize = 20_000;

/// sha256 of a genesis file; that of nothing if there is none.
pub fn hash(path: Option<&Path>) -> Result<[u8; 32]> {
    let mut h = Sha256::new();
    if let Some(path) = path {
        let mut file = File::open(path).map_err(|e| unreadable(path, &e))?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = file.read(&mut buffer).map_err(|e| unreadable(path, &e))?;
            if n == 0 {
                break;
            }
            h.update(&buffer[..n]);
        }
    }
    Ok(h.finalize().into())
}

/// Reads a genesis file line by line. Errors: `BAD_FILE` naming the line.
pub fn lines(path: &Path, network: &Network) -> Result<impl Iterator<Item = Result<(Address, u64)>>> {
    let file = File::open(path).map_err(|e| unreadable(path, &e))?;
    Ok(parse(BufReader::new(file), path.display().to_string(), network))
}

/// The lines of a genesis file that count; `name` is for errors, which are those of [`lines`].
pub fn parse(file: impl BufRead, name: String, network: &Network) -> impl Iterator<Item = Result<(Address, u64)>> {
    let network = network.clone();
    let parse = move |(number, line): (usize, std::io::Result<String>)| -> Option<Result<(Address, u64)>> {
        let wrong = |e: &dyn std::fmt::Display| Error::new(Code::BadFile, format!("{name}, line {}: {e}", number + 1));
        let line = match line {
            Ok(line) => line,
            Err(e) => return Some(Err(wrong(&e))),
        };
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            return None;
        }
        let parsed = (|| {
            let (address, amount) =
                text.split_once(char::is_whitespace).ok_or_else(|| wrong(&"expected `address amount`"))?;
            let address = Address::from_text(address, &network.currency).map_err(|e| wrong(&e))?;
            Ok((address, parse_amount(amount.trim(), network.decimals).map_err(|e| wrong(&e))?))
        })();
        Some(parsed)
    };
    file.lines().enumerate().filter_map(parse)
}

fn unreadable(path: &Path, e: &std::io::Error) -> Error {
    Error::new(Code::BadFile, format!("genesis file {}: {e}", path.display()))
}

/// Loads what a shard has not loaded yet. A crash in between resumes where it stopped.
/// Errors: `BAD_CONFIG` if the file is not the one the committee was made with, those of the lines.
pub async fn load(shard: &Shard, path: Option<&Path>) -> Result<()> {
    let network = &shard.authority().committee().network;
    let totals = shard.authority().totals(shard.store())?;
    if totals.genesis_done || network.genesis_hash == <[u8; 32]>::from(Sha256::digest([])) {
        return Ok(());
    }
    let Some(path) = path else {
        return Err(Error::new(
            Code::BadConfig,
            "the committee has a genesis file, and `genesis` of the authority file names none",
        ));
    };
    let found = hash(Some(path))?;
    if found != network.genesis_hash {
        return Err(Error::expected(
            Code::BadConfig,
            "sha256 of the genesis file",
            hex::encode(network.genesis_hash),
            hex::encode(found),
        ));
    }
    let mut rest = lines(path, network)?.skip(totals.genesis_lines as usize).peekable();
    let mut first_line = totals.genesis_lines;
    loop {
        let chunk = rest.by_ref().take(CHUNK).collect::<Result<Vec<_>>>()?;
        let count = chunk.len() as u64;
        let last = rest.peek().is_none();
        shard.handle_own(Input::Genesis { first_line, lines: chunk, last }).await?;
        first_line += count;
        if last {
            info!(shard = shard.authority().shard(), lines = first_line, "genesis loaded");
            return Ok(());
        }
    }
}
