//! What a run gives: public keys, the same at all, and each receiver's shares.

use std::fmt;

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::cash::curve::{G2, G2_BYTES, SCALAR_BYTES, Scalar};
use crate::error::Result;
use crate::limits::COMMITTEE_MAX;

use super::dealing::{points, scalars};
use super::wire::{CashKeys, CashTierKeys, canonical};
use super::{TIERS_MAX, refused};

/// Public keys of all tiers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicKeys {
    /// Shares that make a signature.
    pub threshold: usize,
    /// By tier: that of notes of 2^i minor units.
    pub tiers: Vec<TierKeys>,
}

/// Public keys of one tier.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TierKeys {
    /// The key of its notes.
    pub key: G2,
    /// By receiver: the public key of its share. Receiver i holds the polynomial at i + 1.
    pub shares: Vec<G2>,
}

impl PublicKeys {
    /// Their one encoding.
    pub fn encode(&self) -> Bytes {
        let tiers = self.tiers.iter().map(|tier| CashTierKeys {
            key: Bytes::copy_from_slice(&tier.key.to_bytes()),
            shares: tier.shares.iter().flat_map(|s| s.to_bytes()).collect::<Vec<u8>>().into(),
        });
        CashKeys { threshold: self.threshold as u32, tiers: tiers.collect() }.encode_to_vec().into()
    }

    /// From their encoding. Errors: `DECODE`, `NON_CANONICAL`, `BAD_CONTENT`.
    pub fn decode(bytes: &[u8]) -> Result<PublicKeys> {
        let keys: CashKeys = canonical(bytes)?;
        let holders = keys.tiers.first().map_or(0, |t| t.shares.len() / G2_BYTES);
        let threshold = keys.threshold as usize;
        let fits = (1..=TIERS_MAX).contains(&keys.tiers.len()) && (1..=holders).contains(&threshold);
        if !fits || holders > COMMITTEE_MAX {
            return Err(refused(format!("{} tiers, threshold {threshold} of {holders}", keys.tiers.len())));
        }
        let tiers = keys.tiers.iter().map(|tier| {
            let key = points("key of a tier", &tier.key, 1)?[0];
            Ok(TierKeys { key, shares: points("public shares", &tier.shares, holders)? })
        });
        Ok(PublicKeys { threshold, tiers: tiers.collect::<Result<_>>()? })
    }

    /// sha256 of the encoding, with a tag.
    pub fn hash(&self) -> [u8; 32] {
        let mut h = Sha256::new();
        h.update(b"florin-cash-keys-v1");
        h.update(self.encode());
        h.finalize().into()
    }
}

/// One receiver's secret shares.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyShares {
    /// Its index: the polynomials are at `index + 1`.
    pub index: u32,
    /// By tier.
    pub tiers: Vec<Scalar>,
}

impl KeyShares {
    /// To store: the index, 4 bytes big-endian, then 32 bytes for each tier.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(4 + self.tiers.len() * SCALAR_BYTES));
        bytes.extend(self.index.to_be_bytes());
        self.tiers.iter().for_each(|share| bytes.extend(*share.to_bytes()));
        bytes
    }

    /// From what is stored. Errors: `DECODE`, `BAD_CONTENT`.
    pub fn decode(bytes: &[u8]) -> Result<KeyShares> {
        let found = || refused(format!("shares: expected an index and 1 to {TIERS_MAX} scalars, found another length"));
        let (index, rest) = bytes.split_first_chunk().ok_or_else(found)?;
        let count = rest.len() / SCALAR_BYTES;
        if !(1..=TIERS_MAX).contains(&count) {
            return Err(found());
        }
        Ok(KeyShares { index: u32::from_be_bytes(*index), tiers: scalars("shares", rest, count)? })
    }
}

impl fmt::Debug for KeyShares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyShares of {}", self.index)
    }
}

/// Where a holder's share is on the polynomials.
pub(super) fn position(index: u32) -> u64 {
    u64::from(index) + 1
}

/// The factors of the values at these distinct positions in the value at `at`.
pub(super) fn weights(positions: &[u64], at: u64) -> Vec<Scalar> {
    let at = Scalar::from_u64(at);
    let xs: Vec<Scalar> = positions.iter().map(|x| Scalar::from_u64(*x)).collect();
    let weight = |(i, xi): (usize, &Scalar)| {
        let others = || xs.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, xj)| xj);
        let above = others().fold(Scalar::one(), |p, xj| p.mul(&at.sub(xj)));
        let below = others().fold(Scalar::one(), |p, xj| p.mul(&xi.sub(xj)));
        above.mul(&below.inverse().expect("positions are distinct"))
    };
    xs.iter().enumerate().map(weight).collect()
}

/// The value at `x` of the polynomial with these coefficients.
pub(super) fn evaluate(coefficients: &[Scalar], x: u64) -> Scalar {
    let x = Scalar::from_u64(x);
    coefficients.iter().rev().fold(Scalar::zero(), |sum, c| sum.mul(&x).add(c))
}

/// The same in the exponent.
pub(super) fn evaluate_points(coefficients: &[G2], x: u64) -> G2 {
    coefficients.iter().rev().fold(G2::identity(), |sum, c| times(&sum, x).add(c))
}

/// A small multiple: cheaper than a product.
fn times(point: &G2, by: u64) -> G2 {
    if by < 8 {
        return G2::sum(std::iter::repeat_n(point, by as usize));
    }
    let half = times(point, by / 2);
    if by.is_multiple_of(2) { half.add(&half) } else { G2::sum([&half, &half, point]) }
}
