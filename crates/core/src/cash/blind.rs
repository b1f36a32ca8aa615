//! Threshold blind signatures over BLS12-381: signatures in G1, keys in G2, after Boldyreva (2003).
//!
//! A note is a nonce N and the committee's signature `sk·H(N)` by the key of its tier. The wallet asks for it blindly:
//! it sends `B = r·H(N)`, authority i answers the share `sk_i·B`, any threshold of shares combine to `sk·B`
//! ([`super::combine`]), and dividing by r leaves `sk·H(N)`. The tier is bound by its key alone: H is the same for all.
//!
//! Nobody can link: for every B and every nonce there is exactly one r that takes one to the other, and r is uniform, so
//! B tells nothing about N, whatever the authorities compute. Nobody can forge: more notes than were signed would
//! break the one-more Diffie-Hellman assumption in G1. So whoever holds a key of cash must multiply nothing
//! else in G1 with it, and every point is checked to be of the subgroup before a secret touches it.
//!
//! The types of this module can't hold an unchecked point: other encodings, points outside of the subgroup and the
//! identity fail to parse, with `DECODE`. Operations on secrets (blinding factors, key shares) take constant time.

use std::fmt;

use zeroize::Zeroizing;

use super::curve::{G1, G1_BYTES, G2, G2_BYTES, Scalar, pairings_equal};
use crate::error::{Code, Error, Result};
use crate::limits::COMMITTEE_MAX;
use crate::memo;

/// Domain separation of H, in the form that RFC 9380 asks for.
pub const NONCE_TAG: &[u8] = b"FLORIN-V1-CASH-BLS12381G1_XMD:SHA-256_SSWU_RO_";

/// What makes a note unique and is marked spent: as a rule the ed25519 key that spends it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub [u8; 32]);

impl Nonce {
    /// H(N).
    pub fn hash(&self) -> G1 {
        G1::hash(&self.0, NONCE_TAG)
    }

    /// H of each, a little faster than one by one.
    pub fn hash_all<'a>(nonces: impl IntoIterator<Item = &'a Nonce>) -> Vec<G1> {
        G1::hash_all(nonces.into_iter().map(|nonce| &nonce.0[..]), NONCE_TAG)
    }

    /// `factor·H(N)`, which authorities sign.
    pub fn blind(&self, factor: &BlindingFactor) -> BlindedNonce {
        BlindedNonce(self.hash().mul(&factor.0))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

macro_rules! checked_points {
    ($($(#[$doc:meta])* $name:ident: $group:ident, $bytes:ident, $text:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub(super) $group);

        impl $name {
            /// This point; `DECODE` for the identity.
            pub fn new(point: $group) -> Result<$name> {
                if point.is_identity() {
                    return Err(Error::expected(Code::Decode, $text, "a point", "the identity"));
                }
                Ok($name(point))
            }

            /// From its one encoding; `DECODE` for anything else.
            pub fn parse(bytes: &[u8]) -> Result<$name> {
                let Ok(bytes) = <&[u8; $bytes]>::try_from(bytes) else {
                    return Err(Error::expected(Code::Decode, concat!("bytes of a ", $text), $bytes, bytes.len()));
                };
                let named = |e: Error| Error::new(e.code, format!("{}: {}", $text, e.message));
                $group::from_bytes(bytes).map($name).map_err(named)
            }

            /// The encoding.
            pub fn to_bytes(&self) -> [u8; $bytes] {
                self.0.to_bytes()
            }

            /// The point.
            pub fn point(&self) -> &$group {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.to_bytes()))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

checked_points! {
    /// `r·H(N)`, as a wallet sends it.
    BlindedNonce: G1, G1_BYTES, "blinded nonce";
    /// `sk_i·B`, authority i's answer.
    SignatureShare: G1, G1_BYTES, "signature share";
    /// `sk·B`, of a threshold of shares.
    BlindSignature: G1, G1_BYTES, "blind signature";
    /// `sk·H(N)`: with its nonce and tier, a note.
    NoteSignature: G1, G1_BYTES, "note's signature";
    /// `sk·g2`, the committee's public key of one tier.
    TierKey: G2, G2_BYTES, "key of a tier";
    /// `sk_i·g2`, the public key of authority i's share of one tier's key.
    PublicShare: G2, G2_BYTES, "public key share";
}

/// What hides a nonce from who signs it, and is taken out of the signature again. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct BlindingFactor(Scalar);

impl BlindingFactor {
    /// This scalar, which must be uniform; `BAD_KEY` for 0.
    pub fn new(scalar: Scalar) -> Result<BlindingFactor> {
        not_zero(scalar, "blinding factor").map(BlindingFactor)
    }

    /// `S / factor`: the note's signature, true if `signature` is.
    pub fn unblind(&self, signature: &BlindSignature) -> NoteSignature {
        let inverse = self.0.inverse().expect("a blinding factor is not 0");
        NoteSignature(signature.0.mul(&inverse))
    }
}

impl fmt::Debug for BlindingFactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlindingFactor")
    }
}

/// One authority's share of one tier's secret key. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct KeyShare {
    index: u32,
    secret: Scalar,
}

impl KeyShare {
    /// Share `index`, which is the authority's place in the committee plus 1. `BAD_KEY` for a secret of 0 or an index that no
    /// committee has.
    pub fn new(index: u32, secret: Scalar) -> Result<KeyShare> {
        if index == 0 || index as usize > COMMITTEE_MAX {
            return Err(Error::expected(Code::BadKey, "index of a key share", format!("1 to {COMMITTEE_MAX}"), index));
        }
        Ok(KeyShare { index, secret: not_zero(secret, "key share")? })
    }

    /// The authority's place in the committee plus 1.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The secret, 32 bytes, big-endian, for the authority's own disk.
    pub fn secret(&self) -> Zeroizing<[u8; 32]> {
        self.secret.to_bytes()
    }

    /// What others verify its shares against.
    pub fn public(&self) -> PublicShare {
        PublicShare(G2::generator().mul(&self.secret))
    }

    /// `sk_i·B`. The caller makes its promise durable first.
    pub fn sign(&self, blinded: &BlindedNonce) -> SignatureShare {
        SignatureShare(blinded.0.mul(&self.secret))
    }
}

impl fmt::Debug for KeyShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyShare {}", self.index)
    }
}

fn not_zero(scalar: Scalar, what: &str) -> Result<Scalar> {
    if scalar.is_zero() {
        return Err(Error::expected(Code::BadKey, what, "a number from 1 to the group's order", 0));
    }
    Ok(scalar)
}

impl PublicShare {
    /// Whether `share` is this authority's for `blinded`.
    pub fn verifies(&self, blinded: &BlindedNonce, share: &SignatureShare) -> bool {
        signed_by(&self.0, &blinded.0, &share.0)
    }
}

impl TierKey {
    /// Whether `signature` makes `nonce` a note of this tier. The rule for notes, whether alone or in a batch
    /// ([`super::batch::verify_notes`]).
    pub fn verifies(&self, nonce: &Nonce, signature: &NoteSignature) -> bool {
        signed_by(&self.0, &nonce.hash(), &signature.0)
    }

    /// Whether `signature` is this key's for `blinded`.
    pub fn verifies_blind(&self, blinded: &BlindedNonce, signature: &BlindSignature) -> bool {
        signed_by(&self.0, &blinded.0, &signature.0)
    }
}

/// Whether `signature` is `base` times the secret of `key`: e(signature, g2) = e(base, key).
pub(super) fn signed_by(key: &G2, base: &G1, signature: &G1) -> bool {
    let compute = || pairings_equal(signature, &G2::generator(), base, key);
    if !memo::is_on() {
        return compute();
    }
    memo::of(|m| &mut m.claims, &[&key.to_bytes(), &base.to_bytes(), &signature.to_bytes()], compute)
}

#[cfg(test)]
#[path = "blind_tests.rs"]
mod tests;
