//! Sessions: what an authority signs when one ends, and what a quorum of such signatures proves.
//!
//! A session ends before the first unit, in the engine's order, whose round is `SESSION_ROUNDS` or that would
//! take its data past `SESSION_BYTES_MAX`: the same unit at every honest authority. Its header names the header
//! before, a Merkle root over its units, and the state that they led to. A quorum's signatures contain those of
//! f + 1 honest authorities, so nobody can show another sequence, and whoever was away applies the units of
//! signed sessions without an engine.

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use super::book::Book;
use crate::authority::state::{State, Table, Write, corrupt, get_u64, need_record};
use crate::committee::Committee;
use crate::error::{Code, Error, Result};
use crate::merkle::{self, Hash};
use crate::planted::{self, Bug};
use crate::signatures::{AuthorityKey, verify_all};
use crate::wire;

/// Units read at a time.
const PAGE: usize = 256;
/// Key in the meta table: sessions from 0 on that a quorum has signed.
pub(super) const SIGNED_KEY: &[u8] = b"signed";

/// Key of a unit: session, position.
pub fn unit_key(session: u64, position: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&session.to_be_bytes());
    key[8..].copy_from_slice(&position.to_be_bytes());
    key
}

/// Hash of a unit: tag, creator, data.
pub fn unit_hash(unit: &wire::OrderedUnit) -> Hash {
    let h = Sha256::new().chain_update(b"florin-unit-v1").chain_update(unit.creator.to_be_bytes());
    h.chain_update(&unit.data).finalize().into()
}

/// Hash of a header: sha256 of its encoding.
pub fn header_hash(header: &wire::SessionHeader) -> Hash {
    Sha256::digest(header.encode_to_vec()).into()
}

/// The signed bytes: tag, committee id, epoch, session (big-endian), hash of the header.
pub fn signed_bytes(committee: &Committee, header: &wire::SessionHeader) -> Vec<u8> {
    let mut out = Vec::with_capacity(100);
    out.extend_from_slice(b"florin-session-v1");
    out.extend_from_slice(committee.id());
    out.extend_from_slice(&committee.epoch.to_be_bytes());
    out.extend_from_slice(&header.session.to_be_bytes());
    out.extend_from_slice(&header_hash(header));
    out
}

/// Signs a header.
pub fn sign(committee: &Committee, index: u32, key: &AuthorityKey, header: &wire::SessionHeader) -> wire::Signed {
    let signature = key.sign(&signed_bytes(committee, header));
    wire::Signed { authority: index, bitmap: Bytes::new(), signature: Bytes::copy_from_slice(&signature) }
}

/// Checks signatures of a header, however many: known and distinct signers, each verifies.
/// Errors: `UNKNOWN_AUTHORITY`, `DUPLICATE_SIGNER`, `BAD_BITMAP`, `BAD_SESSION`.
pub fn check_signatures(
    committee: &Committee,
    header: &wire::SessionHeader,
    signatures: &[wire::Signed],
) -> Result<()> {
    let message = signed_bytes(committee, header);
    let mut seen = vec![false; committee.size()];
    let mut jobs = Vec::with_capacity(signatures.len());
    for s in signatures {
        let index = s.authority as usize;
        let Some(authority) = committee.authorities.get(index) else {
            let expected = format!("below {}", committee.size());
            return Err(Error::expected(Code::UnknownAuthority, "signer", expected, index));
        };
        if std::mem::replace(&mut seen[index], true) && !planted::is(Bug::SessionSignerTwice) {
            let message = format!("{} (authority {index}) signed twice", authority.name);
            return Err(Error::new(Code::DuplicateSigner, message));
        }
        if !s.bitmap.is_empty() {
            return Err(Error::expected(Code::BadBitmap, "bitmap of a session's signature", "none", s.bitmap.len()));
        }
        let signature = <[u8; 64]>::try_from(s.signature.as_ref())
            .map_err(|_| Error::expected(Code::BadSession, "bytes of a signature", 64, s.signature.len()))?;
        jobs.push((authority.key, &message[..], signature));
    }
    verify_all(&jobs, committee.points()).map_err(|bad| {
        let name = &committee.authorities[signatures[bad].authority as usize].name;
        let what = format!("the signature of {name} on session {} does not verify", header.session);
        Error::new(Code::BadSession, what)
    })
}

/// The header of a session that a quorum has signed.
/// Errors: those of [`check_signatures`], `WRONG_EPOCH`, `NO_QUORUM`, `BAD_SESSION` for a missing header.
pub fn check(committee: &Committee, signed: &wire::SignedSession) -> Result<wire::SessionHeader> {
    let header = signed.header.clone().ok_or_else(|| Error::new(Code::BadSession, "the session has no header"))?;
    if header.epoch != committee.epoch {
        return Err(Error::expected(Code::WrongEpoch, "epoch of the session", committee.epoch, header.epoch));
    }
    let found = signed.signatures.len();
    if found < committee.quorum() {
        let expected = format!("at least {}", committee.quorum());
        return Err(Error::expected(Code::NoQuorum, "signatures of the session", expected, found));
    }
    check_signatures(committee, &header, &signed.signatures)?;
    Ok(header)
}

/// Checks a signed session together with its units: what may be applied without an engine.
/// Errors: those of [`check`], `BAD_SESSION` if the units are not those of the header.
pub fn verify(
    committee: &Committee,
    signed: &wire::SignedSession,
    units: &[wire::OrderedUnit],
) -> Result<wire::SessionHeader> {
    let header = check(committee, signed)?;
    if !units_are(&header, units) {
        let found = format!("{} others", units.len());
        return Err(Error::expected(Code::BadSession, "units of the session", header.units, found));
    }
    Ok(header)
}

/// Whether these are the units of a header.
pub fn units_are(header: &wire::SessionHeader, units: &[wire::OrderedUnit]) -> bool {
    header.units as usize == units.len() && header.units_root == units_root(units.iter().map(unit_hash).collect())
}

fn units_root(hashes: Vec<Hash>) -> Bytes {
    match hashes.is_empty() {
        true => Bytes::new(),
        false => Bytes::copy_from_slice(&merkle::root(&hashes)),
    }
}

/// The header of the open session, as if it ended now.
pub(super) fn header(committee: &Committee, book: &Book, state: &dyn State) -> Result<wire::SessionHeader> {
    let mut hashes = Vec::with_capacity(book.units as usize);
    while hashes.len() < book.units as usize {
        let from = unit_key(book.session, hashes.len() as u32);
        let page = state.scan(Table::Units, &from, PAGE.min(book.units as usize - hashes.len()))?;
        for (key, value) in page {
            if key[..] != unit_key(book.session, hashes.len() as u32) {
                return Err(corrupt(Table::Units, &key, "expected the next unit of the session"));
            }
            let unit = wire::OrderedUnit::decode(value).map_err(|e| corrupt(Table::Units, &key, &e.to_string()))?;
            hashes.push(unit_hash(&unit));
        }
        if from == unit_key(book.session, hashes.len() as u32) {
            return Err(corrupt(Table::Units, &from, "missing"));
        }
    }
    Ok(wire::SessionHeader {
        epoch: committee.epoch,
        session: book.session,
        previous: book.previous.clone(),
        units_root: units_root(hashes),
        units: book.units,
        time_ms: book.time_ms,
        state_hash: book.state_hash.clone(),
        shard_hashes: Vec::new(),
        next_committee: Bytes::new(),
        redeems: book.redeems,
        last_redeem: book.last_redeem.clone(),
    })
}

/// The stored session.
pub(super) fn load(state: &dyn State, session: u64) -> Result<wire::SignedSession> {
    match crate::authority::state::get_record::<wire::SessionRecord>(state, Table::Sessions, &session.to_be_bytes())? {
        Some(record) => Ok(record.session.unwrap_or_default()),
        None => Err(Error::new(Code::OutOfOrder, format!("session {session} is not closed here"))),
    }
}

pub(super) fn record(session: u64, signed: wire::SignedSession) -> Write {
    let record = wire::SessionRecord { session: Some(signed) };
    Write::put(Table::Sessions, session.to_be_bytes(), record.encode_to_vec())
}

/// Sessions from 0 on that a quorum has signed, without a gap.
pub fn signed_sessions(state: &dyn State) -> Result<u64> {
    Ok(get_u64(state, Table::Meta, SIGNED_KEY)?.unwrap_or(0))
}

pub(super) fn signed_write(sessions: u64) -> Write {
    Write::put(Table::Meta, SIGNED_KEY, sessions.to_be_bytes())
}

/// A unit of a closed session or the open one.
pub(super) fn load_unit(state: &dyn State, session: u64, position: u32) -> Result<wire::OrderedUnit> {
    need_record(state, Table::Units, &unit_key(session, position))
}
