//! The signed envelope of an account order: a PBTX `Transaction`, byte for byte.
//!
//! One order has one encoding: fields in order, once, without defaults and unknown fields. So the decoder below takes
//! exactly the canonical bytes, in one pass and without copying; only for bytes that it refuses does a general
//! decoder find out what is wrong with them. Tests hold it against "decode, encode again, compare".

use std::ops::Range;

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::canonical::{Reader, put_bytes, put_fixed64, put_uint32, put_varint};
use crate::error::{Code, Error, Result};
use crate::keys::Signature;
use crate::limits::{
    AUTHORITIES_MAX, BODY_BYTES_MAX, CONTENT_BYTES_MAX, COSIGNORS_MAX, ID_MAX, SIG_BYTES_MAX, SIGS_PER_AUTHORITY_MAX,
};
use crate::pbtx;

/// A decoded order in its canonical form. All bytes are slices of `raw`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The encoded `pbtx.Transaction`.
    pub raw: Bytes,
    /// The encoded `pbtx.TransactionBody`: what is signed, never re-encoded.
    pub body: Bytes,
    /// sha256 of the body: the order's id.
    pub id: [u8; 32],
    /// The network, below 2^63.
    pub network_id: u64,
    /// The account that acts, below 2^63.
    pub actor: u64,
    /// Further accounts that agree, at most 4, each below 2^63.
    pub cosignors: Vec<u64>,
    /// Number in the actor's chain, from 1.
    pub seqnum: u32,
    /// [`Order::next_hash`] of the order before; 0 for the first.
    pub prev_hash: u64,
    /// What the content is.
    pub transaction_type: u32,
    /// The content, at most 16,384 bytes.
    pub content: Bytes,
    /// Key type and signatures, the actor's first, then one entry for each cosignor.
    pub authorities: Vec<Authority>,
}

/// The signatures of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authority {
    /// 0; anything else is an error when signatures are checked.
    pub key_type: i32,
    /// Signatures as sent, at most 16 of at most 128 bytes.
    pub sigs: Vec<Bytes>,
}

/// The fields of a body, for those who make one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// The network, below 2^63.
    pub network_id: u64,
    /// The account that acts, below 2^63.
    pub actor: u64,
    /// Further accounts that agree, at most 4.
    pub cosignors: Vec<u64>,
    /// Number in the actor's chain, from 1.
    pub seqnum: u32,
    /// [`Order::next_hash`] of the order before; 0 for the first.
    pub prev_hash: u64,
    /// What the content is.
    pub transaction_type: u32,
    /// The content, at most 16,384 bytes.
    pub content: Bytes,
}

impl Authority {
    /// An authority with these signatures.
    pub fn of(sigs: &[Signature]) -> Authority {
        let sigs = sigs.iter().map(|sig| Bytes::copy_from_slice(sig.as_bytes())).collect();
        Authority { key_type: 0, sigs }
    }
}

impl Order {
    /// Decodes an envelope. In this order: `DECODE`, `LIMIT`, `EMPTY_BODY`, `NON_CANONICAL` for the envelope; `DECODE`,
    /// `LIMIT`, `NON_CANONICAL` for the body; `INT63`.
    pub fn decode(raw: Bytes) -> Result<Order> {
        let (body, authorities) = read_envelope(&raw).ok_or_else(|| explain_envelope(&raw))?;
        let mut order = read_body(&body).ok_or_else(|| explain_body(&body))?;
        order.check_ids()?;
        order.id = order_id(&body);
        order.raw = raw;
        order.body = body;
        order.authorities = authorities;
        Ok(order)
    }

    /// Decodes a body alone, as a certificate proves it: `raw` and `authorities` are empty.
    /// Errors: those of [`Order::decode`] for the body.
    pub fn decode_body(body: Bytes) -> Result<Order> {
        let mut order = read_body(&body).ok_or_else(|| explain_body(&body))?;
        order.check_ids()?;
        order.id = order_id(&body);
        order.body = body;
        Ok(order)
    }

    fn check_ids(&self) -> Result<()> {
        let ids = [("network_id", self.network_id), ("actor", self.actor)];
        for (what, id) in ids.into_iter().chain(self.cosignors.iter().map(|id| ("cosignor", *id))) {
            if id > ID_MAX {
                return Err(Error::expected(Code::Int63, what, "at most 2^63 - 1", id));
            }
        }
        Ok(())
    }

    /// Cosignors are distinct and not the actor (`DUPLICATE_COSIGNOR`), and each account has its authority
    /// (`AUTHORITY_COUNT`).
    pub fn screen_counts(&self) -> Result<()> {
        for (i, cosignor) in self.cosignors.iter().enumerate() {
            if *cosignor == self.actor || self.cosignors[..i].contains(cosignor) {
                let message =
                    format!("cosignor #{i}: expected another than the actor and those before, found {cosignor}");
                return Err(Error::new(Code::DuplicateCosignor, message));
            }
        }
        let expected = 1 + self.cosignors.len();
        if self.authorities.len() != expected {
            return Err(Error::expected(Code::AuthorityCount, "authorities", expected, self.authorities.len()));
        }
        Ok(())
    }

    /// The prev_hash of the actor's next order: the first 8 bytes of the id, big-endian.
    pub fn next_hash(&self) -> u64 {
        next_hash(&self.id)
    }
}

/// The prev_hash that follows the order with this id.
pub fn next_hash(id: &[u8; 32]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&id[..8]);
    u64::from_be_bytes(first)
}

/// The id of the order with this body.
pub fn order_id(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

// Tags of the fields: number << 3 | wire type.
const NETWORK_ID: u8 = 1 << 3 | 1;
const ACTOR: u8 = 2 << 3 | 1;
const COSIGNORS: u8 = 3 << 3 | 2;
const SEQNUM: u8 = 4 << 3;
const PREV_HASH: u8 = 5 << 3 | 1;
const TRANSACTION_TYPE: u8 = 6 << 3;
const CONTENT: u8 = 7 << 3 | 2;
const BODY: u8 = 1 << 3 | 2;
const AUTHORITIES: u8 = 2 << 3 | 2;
const KEY_TYPE: u8 = 1 << 3;
const SIGS: u8 = 2 << 3 | 2;

/// The canonical bytes of a body.
pub fn encode_body(body: &Body) -> Bytes {
    let mut out = Vec::with_capacity(64 + 8 * body.cosignors.len() + body.content.len());
    put_fixed64(&mut out, NETWORK_ID, body.network_id);
    put_fixed64(&mut out, ACTOR, body.actor);
    if !body.cosignors.is_empty() {
        out.push(COSIGNORS);
        put_varint(&mut out, 8 * body.cosignors.len() as u64);
        body.cosignors.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
    }
    put_uint32(&mut out, SEQNUM, body.seqnum);
    put_fixed64(&mut out, PREV_HASH, body.prev_hash);
    put_uint32(&mut out, TRANSACTION_TYPE, body.transaction_type);
    if !body.content.is_empty() {
        put_bytes(&mut out, CONTENT, &body.content);
    }
    out.into()
}

/// The canonical bytes of an envelope.
pub fn encode_envelope(body: &[u8], authorities: &[Authority]) -> Bytes {
    let mut out = Vec::with_capacity(body.len() + 8 + authorities.len() * 80);
    if !body.is_empty() {
        put_bytes(&mut out, BODY, body);
    }
    let mut inner = Vec::new();
    for authority in authorities {
        inner.clear();
        if authority.key_type != 0 {
            inner.push(KEY_TYPE);
            put_varint(&mut inner, sign_extended(authority.key_type));
        }
        authority.sigs.iter().for_each(|sig| put_bytes(&mut inner, SIGS, sig));
        put_bytes(&mut out, AUTHORITIES, &inner);
    }
    out.into()
}

/// An enum on the wire: negative numbers take all 64 bits.
fn sign_extended(number: i32) -> u64 {
    i64::from(number) as u64
}

/// Body and authorities of canonical bytes within the limits; None for any others.
fn read_envelope(raw: &Bytes) -> Option<(Bytes, Vec<Authority>)> {
    let mut reader = Reader::new(raw);
    let body = reader.bytes_field(BODY, BODY_BYTES_MAX)?.filter(|range| !range.is_empty())?;
    let mut authorities = Vec::with_capacity(1);
    while let Some(range) = reader.bytes_field(AUTHORITIES, usize::MAX)? {
        if authorities.len() == AUTHORITIES_MAX {
            return None;
        }
        authorities.push(read_authority(raw, range)?);
    }
    reader.is_done().then(|| (raw.slice(body), authorities))
}

fn read_authority(raw: &Bytes, range: Range<usize>) -> Option<Authority> {
    let mut reader = Reader::within(raw, range);
    let mut authority = Authority::default();
    if reader.take_tag(KEY_TYPE) {
        let value = reader.varint()?;
        authority.key_type = value as i32;
        if authority.key_type == 0 || sign_extended(authority.key_type) != value {
            return None;
        }
    }
    authority.sigs.reserve_exact(1);
    while let Some(range) = reader.bytes_field(SIGS, SIG_BYTES_MAX)? {
        if authority.sigs.len() == SIGS_PER_AUTHORITY_MAX {
            return None;
        }
        authority.sigs.push(raw.slice(range));
    }
    reader.is_done().then_some(authority)
}

/// The fields of a canonical body within the limits; None for any others.
fn read_body(body: &Bytes) -> Option<Order> {
    let mut reader = Reader::new(body);
    let network_id = reader.fixed64_field(NETWORK_ID)?;
    let actor = reader.fixed64_field(ACTOR)?;
    let mut cosignors = Vec::new();
    if let Some(range) = reader.bytes_field(COSIGNORS, 8 * COSIGNORS_MAX)? {
        let (ids, rest) = body[range].as_chunks::<8>();
        if ids.is_empty() || !rest.is_empty() {
            return None;
        }
        cosignors.extend(ids.iter().map(|id| u64::from_le_bytes(*id)));
    }
    let seqnum = reader.uint32_field(SEQNUM)?;
    let prev_hash = reader.fixed64_field(PREV_HASH)?;
    let transaction_type = reader.uint32_field(TRANSACTION_TYPE)?;
    let content = match reader.bytes_field(CONTENT, CONTENT_BYTES_MAX)? {
        Some(range) if range.is_empty() => return None,
        Some(range) => body.slice(range),
        None => Bytes::new(),
    };
    reader.is_done().then(|| Order {
        raw: Bytes::new(),
        body: Bytes::new(),
        id: [0; 32],
        network_id,
        actor,
        cosignors,
        seqnum,
        prev_hash,
        transaction_type,
        content,
        authorities: Vec::new(),
    })
}

/// What is wrong with an envelope that is not canonical within the limits.
fn explain_envelope(raw: &Bytes) -> Error {
    let envelope = match pbtx::Transaction::decode(raw.clone()) {
        Ok(envelope) => envelope,
        Err(e) => return Error::new(Code::Decode, format!("envelope: {e}")),
    };
    let sigs = || envelope.authorities.iter().map(|a| a.sigs.len()).max().unwrap_or(0);
    let sig_bytes = || envelope.authorities.iter().flat_map(|a| &a.sigs).map(Bytes::len).max().unwrap_or(0);
    let over = over_limit("bytes of the body", envelope.body.len(), BODY_BYTES_MAX)
        .or_else(|| over_limit("authorities", envelope.authorities.len(), AUTHORITIES_MAX))
        .or_else(|| over_limit("signatures of an authority", sigs(), SIGS_PER_AUTHORITY_MAX))
        .or_else(|| over_limit("bytes of a signature", sig_bytes(), SIG_BYTES_MAX));
    match over {
        Some(error) => error,
        None if envelope.body.is_empty() => Error::new(Code::EmptyBody, "envelope: expected a body, found none"),
        None => Error::new(Code::NonCanonical, "envelope: its fields encode to other bytes"),
    }
}

/// What is wrong with a body that is not canonical within the limits.
fn explain_body(body: &Bytes) -> Error {
    let body = match pbtx::TransactionBody::decode(body.clone()) {
        Ok(body) => body,
        Err(e) => return Error::new(Code::Decode, format!("body: {e}")),
    };
    over_limit("cosignors", body.cosignors.len(), COSIGNORS_MAX)
        .or_else(|| over_limit("bytes of the content", body.transaction_content.len(), CONTENT_BYTES_MAX))
        .unwrap_or_else(|| Error::new(Code::NonCanonical, "body: its fields encode to other bytes"))
}

fn over_limit(what: &str, found: usize, max: usize) -> Option<Error> {
    (found > max).then(|| Error::expected(Code::Limit, what, format!("at most {max}"), found))
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
