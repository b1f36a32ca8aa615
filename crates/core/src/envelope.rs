//! The signed envelope of an account order: a PBTX `Transaction`, byte for byte.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::error::Result;

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

impl Order {
    /// Decodes an envelope. In this order: `DECODE`, `LIMIT`, `EMPTY_BODY`, `NON_CANONICAL` for the envelope; `DECODE`,
    /// `LIMIT`, `NON_CANONICAL` for the body; `INT63`.
    pub fn decode(raw: Bytes) -> Result<Order> {
        let _ = raw;
        unimplemented!()
    }

    /// Cosignors are distinct and not the actor (`DUPLICATE_COSIGNOR`), and each account has its authority
    /// (`AUTHORITY_COUNT`).
    pub fn screen_counts(&self) -> Result<()> {
        unimplemented!()
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

/// The canonical bytes of a body.
pub fn encode_body(body: &Body) -> Bytes {
    let _ = body;
    unimplemented!()
}

/// The canonical bytes of an envelope.
pub fn encode_envelope(body: &[u8], authorities: &[Authority]) -> Bytes {
    let _ = (body, authorities);
    unimplemented!()
}
