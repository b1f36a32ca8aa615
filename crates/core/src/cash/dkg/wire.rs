//! Messages of key generation, by hand until they are in `proto/florin.proto`. Each has one encoding.

use bytes::Bytes;
use prost::Message;

use crate::error::{Code, Error, Result};

/// An item of a run.
#[derive(Clone, PartialEq, Message)]
pub struct DkgItem {
    /// The run's id, 32 bytes: committee, epoch, number, sizes, and the keys to share again.
    #[prost(bytes = "bytes", tag = "1")]
    pub run_id: Bytes,
    /// What it says.
    #[prost(oneof = "Kind", tags = "2, 3, 4, 5, 6, 7, 8")]
    pub kind: Option<Kind>,
}

/// What an item says.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    /// A receiver's encryption key.
    #[prost(message, tag = "2")]
    Announce(Announce),
    /// A part of a dealing.
    #[prost(message, tag = "3")]
    Deal(Deal),
    /// A receiver's complaints.
    #[prost(message, tag = "4")]
    Verdict(Verdict),
    /// "I have waited long enough for the others in this phase" (`Phase`'s number).
    #[prost(uint32, tag = "5")]
    GoOn(u32),
    /// The complaint, after the close, of a receiver without a verdict.
    #[prost(message, tag = "6")]
    Late(Complaint),
    /// A receiver's shares of the secrets of a dealer that was caught after the close.
    #[prost(message, tag = "7")]
    Reveal(Reveal),
    /// "I hold my shares of the keys with this hash", 32 bytes.
    #[prost(bytes = "bytes", tag = "8")]
    Confirm(Bytes),
}

/// A receiver's encryption key, fresh for the run.
#[derive(Clone, PartialEq, Message)]
pub struct Announce {
    /// Point of G1, 48 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// That the receiver knows its logarithm, 64 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub proof: Bytes,
}

/// A dealing's part: consecutive tiers, as many as fit.
#[derive(Clone, PartialEq, Message)]
pub struct Deal {
    /// Which part, from 0.
    #[prost(uint32, tag = "1")]
    pub chunk: u32,
    /// Point of G1 that the shared secrets of this part are made with, 48 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub ephemeral: Bytes,
    /// That the dealer knows its logarithm, 64 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub ephemeral_proof: Bytes,
    /// For each tier n - f points of G2, 96 bytes each: the coefficients of its polynomial, the secret's first.
    #[prost(bytes = "bytes", tag = "4")]
    pub commitments: Bytes,
    /// That the dealer knows the secrets, 64 bytes.
    #[prost(bytes = "bytes", tag = "5")]
    pub secrets_proof: Bytes,
    /// For each receiver that has announced a key, in their order, for each tier: the encrypted share, 32 bytes.
    #[prost(bytes = "bytes", tag = "6")]
    pub shares: Bytes,
}

/// What a receiver found: those dealers that lied to it.
#[derive(Clone, PartialEq, Message)]
pub struct Verdict {
    /// At most one a dealer, ascending.
    #[prost(message, repeated, tag = "1")]
    pub complaints: Vec<Complaint>,
}

/// Opens what a dealer sent to the one who complains.
#[derive(Clone, PartialEq, Message)]
pub struct Complaint {
    /// The dealer's index.
    #[prost(uint32, tag = "1")]
    pub dealer: u32,
    /// The part with a wrong share.
    #[prost(uint32, tag = "2")]
    pub chunk: u32,
    /// The shared secret of the two for that part: a point of G1, 48 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub secret: Bytes,
    /// That it is the receiver's announced key's, 64 bytes.
    #[prost(bytes = "bytes", tag = "4")]
    pub proof: Bytes,
}

/// Shares of one dealer's secrets.
#[derive(Clone, PartialEq, Message)]
pub struct Reveal {
    /// The dealer's index.
    #[prost(uint32, tag = "1")]
    pub dealer: u32,
    /// For each tier, 32 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub shares: Bytes,
}

/// What a run has come to: stored, the same at all.
#[derive(Clone, PartialEq, Message)]
pub struct CeremonyRecord {
    /// `Phase`.
    #[prost(uint32, tag = "1")]
    pub phase: u32,
    /// By receiver: its key, or nothing.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub announced: Vec<Bytes>,
    /// By dealer.
    #[prost(message, repeated, tag = "3")]
    pub dealers: Vec<DealerRecord>,
    /// Dealers whose dealing is whole, in the order that they were.
    #[prost(uint32, repeated, tag = "4")]
    pub dealt: Vec<u32>,
    /// By receiver: whether its verdict is in.
    #[prost(bool, repeated, tag = "5")]
    pub verdicts: Vec<bool>,
    /// By receiver: whether it wants to go on from this phase.
    #[prost(bool, repeated, tag = "6")]
    pub go_on: Vec<bool>,
    /// Dealers that count, once closed.
    #[prost(uint32, repeated, tag = "7")]
    pub counted: Vec<u32>,
    /// Hash of the public keys, once closed.
    #[prost(bytes = "bytes", tag = "8")]
    pub keys_hash: Bytes,
    /// By receiver: whether it has confirmed.
    #[prost(bool, repeated, tag = "9")]
    pub confirmed: Vec<bool>,
    /// By creator: whether it was found out; nothing of it is looked at any more.
    #[prost(bool, repeated, tag = "10")]
    pub faulty: Vec<bool>,
    /// What all shares are shifted by follows from this, once closed: 32 bytes.
    #[prost(bytes = "bytes", tag = "11")]
    pub shift: Bytes,
}

/// One dealer.
#[derive(Clone, PartialEq, Message)]
pub struct DealerRecord {
    /// Parts of its dealing that are in.
    #[prost(uint32, tag = "1")]
    pub chunks: u32,
    /// Whether it was caught.
    #[prost(bool, tag = "2")]
    pub caught: bool,
    /// By receiver: whether it has shown its shares, after the close.
    #[prost(bool, repeated, tag = "3")]
    pub reveals: Vec<bool>,
}

/// Public keys, stored.
#[derive(Clone, PartialEq, Message)]
pub struct CashKeys {
    /// Shares that make a signature.
    #[prost(uint32, tag = "1")]
    pub threshold: u32,
    /// By tier.
    #[prost(message, repeated, tag = "2")]
    pub tiers: Vec<CashTierKeys>,
}

/// Public keys of a tier.
#[derive(Clone, PartialEq, Message)]
pub struct CashTierKeys {
    /// Of its notes: a point of G2, 96 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Of the holders' shares, 96 bytes each.
    #[prost(bytes = "bytes", tag = "2")]
    pub shares: Bytes,
}

/// Decodes what has one encoding. Errors: `DECODE`, `NON_CANONICAL`.
pub fn canonical<M: Message + Default>(bytes: &[u8]) -> Result<M> {
    let message = M::decode(bytes).map_err(|e| Error::new(Code::Decode, format!("key generation: {e}")))?;
    if message.encode_to_vec() != bytes {
        return Err(Error::new(Code::NonCanonical, "key generation: not in its one canonical encoding"));
    }
    Ok(message)
}
