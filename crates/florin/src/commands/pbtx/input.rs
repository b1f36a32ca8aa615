//! What the commands take: bytes, keys and signatures in the forms that PBTX's users have them in.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use florin_core::eosio::{self, Kind, PrivateKey};
use florin_core::keys::{PublicKey, Signature};
use florin_core::limits::MESSAGE_BYTES_MAX;
use florin_core::{Code, Error, Result};
use zeroize::Zeroizing;

use crate::commands::support::read_text;

/// Hex digits, or a file (`-` is stdin) with hex digits or the bytes themselves. Errors: `BAD_FILE`. The text itself is not repeated:
/// it may be a key that was given in the wrong place.
pub fn bytes(what: &str, text: &str) -> Result<Bytes> {
    if let Ok(bytes) = hex::decode(text) {
        return Ok(bytes.into());
    }
    let bad = |e: std::io::Error| Error::new(Code::BadFile, format!("{what}: neither hex digits nor a file: {e}"));
    let read = || {
        let mut content = Vec::new();
        let from: Box<dyn Read> = if text == "-" { Box::new(std::io::stdin()) } else { Box::new(File::open(text)?) };
        from.take(MESSAGE_BYTES_MAX as u64).read_to_end(&mut content)?;
        Ok(content)
    };
    let content = read().map_err(bad)?;
    let as_text = std::str::from_utf8(&content).ok().and_then(|text| hex::decode(text.trim()).ok());
    Ok(as_text.unwrap_or(content).into())
}

/// A public key: `EOS...`, `PUB_...`, or PBTX's 34 bytes in hex. Errors: `BAD_KEY`.
pub fn public_key(text: &str) -> Result<PublicKey> {
    match (Kind::of(text), hex::decode(text)) {
        (None, Ok(bytes)) => PublicKey::parse(&bytes).map_err(|e| Error::new(Code::BadKey, e.message)),
        _ => eosio::public_from_text(text),
    }
}

/// A signature: `SIG_...`, or PBTX's 66 bytes in hex. Errors: `BAD_KEY`, `SIG_FORMAT`, `SIG_NOT_CANONICAL`.
pub fn signature(text: &str) -> Result<Signature> {
    match hex::decode(text) {
        Ok(bytes) => Signature::parse(&bytes),
        Err(_) => eosio::signature_from_text(text),
    }
}

/// The private keys in a file, one a line; empty lines and those that start with # are skipped. Errors: `BAD_FILE`;
/// `BAD_KEY` with the number of the line.
pub fn private_keys(file: &Path) -> Result<Vec<PrivateKey>> {
    let text = Zeroizing::new(read_text(file)?);
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(number, line)| {
        let place = |e: Error| Error::new(e.code, format!("{} line {number}: {}", file.display(), e.message));
        PrivateKey::from_text(line).map_err(place)
    });
    let keys = keys.collect::<Result<Vec<_>>>()?;
    if keys.is_empty() {
        return Err(Error::new(Code::BadFile, format!("{}: expected private keys, found none", file.display())));
    }
    Ok(keys)
}
