//! Notes as text that people hand around: letters and digits that no shell or messenger changes, that a QR code
//! packs well in upper case, and that a checksum protects.
//!
//! `flrcash1...`: the currency, `cash` or `key` for what it is, `1`, then the bytes and 6 bytes of their checksum in base 32, with the
//! alphabet of addresses. All lower or all upper case. The bytes are a protobuf message in its one encoding, so one text has one meaning
//! and the other way round. docs/wire.md has the format.
//!
//! For QR codes that are too small a text is cut into frames, `FLRCASH/2/5/1F0A3C59/...`: number, count, the beginning of
//! the whole one's sha256, a part. In any order, as often as a camera sees them ([`Frames`]).

use std::collections::BTreeMap;

use bytes::Bytes;
use data_encoding::{Encoding, Specification};
use florin_core::cash::blind::NoteSignature;
use florin_core::committee::Committee;
use florin_core::limits::MEMO_BYTES_MAX;
use florin_core::{Code, Error, Result, wire};
use prost::Message;
use sha2::{Digest, Sha256};

use super::amounts::TIERS;

/// Notes of one text.
pub const TEXT_NOTES_MAX: usize = 256;
/// Characters of one text.
pub const TEXT_CHARS_MAX: usize = 128 * 1024;
/// Frames of one text.
pub const FRAMES_MAX: usize = 999;

const ALPHABET: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const SUM_TAG: &[u8] = b"florin-cash-text-v1";
const SUM_BYTES: usize = 6;
const FRAME_TAG: &str = "FLRCASH";

/// What a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Notes: `CashNotes`.
    Notes,
    /// A key that notes can be locked to: network (8 bytes, big-endian), ed25519 key.
    Key,
    /// A voucher of a payment channel: `Redemption`.
    Voucher,
    /// That the other side of a channel may take money out: `SignedPermit`.
    Permit,
    /// What somebody is to be paid over hubs: `HubInvoiceText`.
    Invoice,
    /// A payment over a virtual channel: `SignedPermit`.
    Virtual,
}

impl Kind {
    fn prefix(self, currency: &str) -> String {
        let kind = match self {
            Kind::Notes => "cash",
            Kind::Key => "key",
            Kind::Voucher => "voucher",
            Kind::Permit => "permit",
            Kind::Invoice => "invoice",
            Kind::Virtual => "virtual",
        };
        format!("{}{kind}1", currency.to_ascii_lowercase())
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Notes => "note string",
            Kind::Key => "key",
            Kind::Voucher => "voucher",
            Kind::Permit => "permit",
            Kind::Invoice => "invoice",
            Kind::Virtual => "payment over a virtual channel",
        }
    }
}

fn base32() -> Encoding {
    let mut specification = Specification::new();
    specification.symbols.push_str(ALPHABET);
    specification.encoding().expect("32 different letters and digits")
}

fn sum(prefix: &str, bytes: &[u8]) -> [u8; SUM_BYTES] {
    let digest = Sha256::new().chain_update(SUM_TAG).chain_update(prefix).chain_update(bytes).finalize();
    let mut sum = [0; SUM_BYTES];
    sum.copy_from_slice(&digest[..SUM_BYTES]);
    sum
}

fn bad(kind: Kind, problem: impl std::fmt::Display) -> Error {
    Error::new(Code::Decode, format!("the {}: {problem}", kind.name()))
}

/// Bytes as text.
pub fn encode(kind: Kind, currency: &str, bytes: &[u8]) -> String {
    let prefix = kind.prefix(currency);
    let sum = sum(&prefix, bytes);
    format!("{prefix}{}", base32().encode(&[bytes, &sum].concat()))
}

/// The bytes of a text; white space counts for nothing. Errors: `DECODE`.
pub fn decode(kind: Kind, currency: &str, text: &str) -> Result<Vec<u8>> {
    if text.len() > TEXT_CHARS_MAX {
        return Err(bad(kind, format!("expected at most {TEXT_CHARS_MAX} characters, found {}", text.len())));
    }
    let text: String = text.split_ascii_whitespace().collect();
    if text.bytes().any(|b| b.is_ascii_lowercase()) && text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(bad(kind, "expected all lower or all upper case, found both"));
    }
    let text = text.to_ascii_lowercase();
    let prefix = kind.prefix(currency);
    let Some(data) = text.strip_prefix(&prefix) else {
        let found: String = text.chars().take(prefix.len()).collect();
        return Err(bad(kind, format!("expected it to begin with {prefix}, found {found:?}")));
    };
    let damaged = || bad(kind, "it was mistyped or cut: its checksum does not match");
    let bytes = base32().decode(data.as_bytes()).map_err(|_| damaged())?;
    let (bytes, found) = bytes.split_last_chunk::<SUM_BYTES>().ok_or_else(damaged)?;
    if sum(&prefix, bytes) != *found {
        return Err(damaged());
    }
    Ok(bytes.to_vec())
}

/// Notes as text.
pub fn encode_notes(notes: &wire::CashNotes, committee: &Committee) -> String {
    encode(Kind::Notes, &committee.network.currency, &notes.encode_to_vec())
}

/// Notes of a text, well formed; whether the committee has signed them is another question.
/// Errors: `DECODE`, `NON_CANONICAL`, `LIMIT`, `WRONG_COMMITTEE`.
pub fn decode_notes(text: &str, committee: &Committee) -> Result<wire::CashNotes> {
    let bytes = decode(Kind::Notes, &committee.network.currency, text)?;
    let notes = wire::CashNotes::decode(Bytes::from(bytes.clone())).map_err(|e| bad(Kind::Notes, e))?;
    if notes.encode_to_vec() != bytes {
        return Err(Error::new(Code::NonCanonical, "the note string is not in its one encoding"));
    }
    let of = |id: &[u8]| hex::encode(id);
    if notes.committee_id[..] != committee.id()[..] || notes.network_id != committee.network.id {
        let found = of(&notes.committee_id);
        return Err(Error::expected(Code::WrongCommittee, "committee of the notes", of(committee.id()), found));
    }
    if notes.notes.is_empty() || notes.notes.len() > TEXT_NOTES_MAX {
        return Err(Error::expected(Code::Limit, "notes", format!("1 to {TEXT_NOTES_MAX}"), notes.notes.len()));
    }
    if notes.memo.len() > MEMO_BYTES_MAX {
        return Err(Error::expected(Code::Limit, "bytes of the memo", MEMO_BYTES_MAX, notes.memo.len()));
    }
    for (i, note) in notes.notes.iter().enumerate() {
        check_note(note).map_err(|e| Error { message: format!("note {}: {}", i + 1, e.message), ..e })?;
    }
    Ok(notes)
}

fn check_note(note: &wire::CashNote) -> Result<()> {
    let found = |what: &str, expected: &str, found: String| Err(Error::expected(Code::Decode, what, expected, found));
    if note.tier as usize >= TIERS {
        return found("tier", "0 to 31", note.tier.to_string());
    }
    NoteSignature::parse(&note.signature)?;
    match &note.lock {
        None if note.secret.len() == 32 => Ok(()),
        None => found("bytes of the secret", "32", note.secret.len().to_string()),
        Some(_) if !note.secret.is_empty() => found("secret of a locked note", "none", "one".into()),
        Some(lock) if lock.receiver.len() == 32 && lock.sender.len() == 32 => Ok(()),
        Some(_) => found("bytes of a lock's keys", "32", "others".into()),
    }
}

/// A key to lock notes to, as text.
pub fn encode_key(key: &[u8; 32], committee: &Committee) -> String {
    let bytes = [&committee.network.id.to_be_bytes()[..], key].concat();
    encode(Kind::Key, &committee.network.currency, &bytes)
}

/// The key of a text. Errors: `DECODE`, `UNKNOWN_NETWORK`.
pub fn decode_key(text: &str, committee: &Committee) -> Result<[u8; 32]> {
    let bytes = decode(Kind::Key, &committee.network.currency, text)?;
    let parts = bytes.split_first_chunk::<8>().and_then(|(id, key)| Some((id, <[u8; 32]>::try_from(key).ok()?)));
    let (id, key) = parts.ok_or_else(|| bad(Kind::Key, format!("expected 40 bytes, found {}", bytes.len())))?;
    let (expected, found) = (committee.network.id, u64::from_be_bytes(*id));
    if expected != found {
        return Err(Error::expected(Code::UnknownNetwork, "network of the key", expected, found));
    }
    Ok(key)
}

/// A text in parts of at most `chars` characters, for QR codes; one part alone is the text itself.
pub fn frames(text: &str, chars: usize) -> Vec<String> {
    let text = text.to_ascii_uppercase();
    let parts: Vec<&[u8]> = text.as_bytes().chunks(chars.max(1)).collect();
    if parts.len() == 1 {
        return vec![text];
    }
    let id = frame_id(&text);
    let part = |(i, part): (usize, &&[u8])| {
        format!("{FRAME_TAG}/{}/{}/{id}/{}", i + 1, parts.len(), String::from_utf8_lossy(part))
    };
    parts.iter().enumerate().map(part).collect()
}

fn frame_id(text: &str) -> String {
    hex::encode_upper(&Sha256::digest(text)[..4])
}

/// What has been seen of the frames of one text.
#[derive(Default, Debug)]
pub struct Frames {
    /// Count and id, as the first one says.
    of: Option<(usize, String)>,
    parts: BTreeMap<usize, String>,
}

impl Frames {
    /// Takes a line: a frame, or a whole text. Gives the text when it is whole. What a scanner says around it, as `QR-Code:`, is left
    /// out. Errors: `DECODE` for something else, and for a frame of another text.
    pub fn take(&mut self, line: &str) -> Result<Option<String>> {
        let line = line.trim();
        let line = line.strip_prefix("QR-Code:").unwrap_or(line);
        let Some(frame) = line.strip_prefix(FRAME_TAG).and_then(|rest| rest.strip_prefix('/')) else {
            return Ok(Some(line.to_owned()));
        };
        let wrong = || bad(Kind::Notes, "a frame that is none: expected FLRCASH/number/count/id/part");
        let fields: Vec<&str> = frame.split('/').collect();
        let [number, count, id, part] = fields[..] else { return Err(wrong()) };
        let (number, count): (usize, usize) =
            (number.parse().map_err(|_| wrong())?, count.parse().map_err(|_| wrong())?);
        if !(2..=FRAMES_MAX).contains(&count) || !(1..=count).contains(&number) {
            return Err(wrong());
        }
        let of = self.of.get_or_insert_with(|| (count, id.to_owned()));
        if *of != (count, id.to_owned()) {
            return Err(bad(Kind::Notes, "a frame of another note string"));
        }
        self.parts.insert(number, part.to_owned());
        if self.parts.len() < count {
            return Ok(None);
        }
        let text: String = self.parts.values().map(String::as_str).collect();
        if frame_id(&text) != of.1 {
            *self = Frames::default();
            return Err(bad(Kind::Notes, "its frames do not belong together: scan them again"));
        }
        Ok(Some(text))
    }

    /// Frames seen, and how many there are.
    pub fn progress(&self) -> (usize, usize) {
        (self.parts.len(), self.of.as_ref().map_or(0, |(count, _)| *count))
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
