//! From shares to a signature: Lagrange interpolation at 0, checked once; liars are looked for only if that fails.
//!
//! [`SharedKey`] can't be made unless all public shares lie on one polynomial of the threshold's degree through the
//! tier's key. So any threshold of shares that are true by their public shares combine to the one true signature.

use std::collections::BTreeMap;

use sha2::{Digest, Sha512};

use super::batch::{Claim, verify_claims};
use super::blind::{BlindSignature, BlindedNonce, PublicShare, SignatureShare, TierKey};
use super::curve::{G1, G2, Scalar};
use crate::error::{Code, Error, Result};
use crate::limits::COMMITTEE_MAX;
use crate::planted::{self, Bug};

/// One tier's key and the public side of its shares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SharedKey {
    threshold: u32,
    key: TierKey,
    shares: Vec<PublicShare>,
}

impl SharedKey {
    /// The key of a tier and each authority's share of it, in the order of the committee; `threshold` shares make a signature.
    /// `BAD_KEY` unless they belong together.
    pub fn new(threshold: u32, key: TierKey, shares: Vec<PublicShare>) -> Result<SharedKey> {
        let n = shares.len();
        if n > COMMITTEE_MAX {
            return Err(Error::expected(Code::BadKey, "key shares", format!("at most {COMMITTEE_MAX}"), n));
        }
        if threshold == 0 || threshold as usize > n {
            return Err(Error::expected(Code::BadKey, "threshold of key shares", format!("1 to {n}"), threshold));
        }
        let keys = SharedKey { threshold, key, shares };
        if !keys.on_one_polynomial() {
            return Err(Error::new(Code::BadKey, "the key shares of a tier are not shares of its key"));
        }
        Ok(keys)
    }

    /// Shares that make a signature.
    pub fn threshold(&self) -> u32 {
        self.threshold
    }

    /// The tier's key, which verifies notes.
    pub fn key(&self) -> &TierKey {
        &self.key
    }

    /// By authority: what its shares are verified against. Share i + 1 is authority i's.
    pub fn shares(&self) -> &[PublicShare] {
        &self.shares
    }

    fn share(&self, index: u32) -> Option<&PublicShare> {
        self.shares.get((index as usize).checked_sub(1)?)
    }

    /// Whether key and shares are values at 0, 1, ..., n of a polynomial of degree below the threshold. All vectors of
    /// such values are orthogonal to `v_i·f(i)`, with `v_i = 1 / Π (i - j)` and f any polynomial of degree at most n - threshold, and no
    /// other vector is orthogonal to all of these; f with uniform coefficients, from a hash of the keys, misses one
    /// with the chance of one in the group's order (SCRAPE, Cascudo and David, 2017).
    fn on_one_polynomial(&self) -> bool {
        let points: Vec<G2> = [self.key.0].into_iter().chain(self.shares.iter().map(|share| share.0)).collect();
        let mut transcript = Sha512::new_with_prefix(b"florin-cash-shares-v1");
        transcript.update(self.threshold.to_be_bytes());
        points.iter().for_each(|point| transcript.update(point.to_bytes()));
        let coefficients: Vec<Scalar> = (0..=self.shares.len() as u32 - self.threshold)
            .map(|k| Scalar::from_wide(&transcript.clone().chain_update(k.to_be_bytes()).finalize().into()))
            .collect();
        let at = |i: usize| {
            let x = Scalar::from_u64(i as u64);
            let f = coefficients.iter().fold(Scalar::zero(), |sum, c| sum.mul(&x).add(c));
            let others = (0..points.len()).filter(|j| *j != i);
            let product = others.fold(Scalar::one(), |all, j| all.mul(&difference(i as u64, j as u64)));
            f.mul(&product.inverse().expect("the points are distinct"))
        };
        G2::msm(&points, &(0..points.len()).map(at).collect::<Vec<_>>()).is_identity()
    }
}

fn difference(a: u64, b: u64) -> Scalar {
    Scalar::from_u64(a).sub(&Scalar::from_u64(b))
}

/// The weights with which the values of a polynomial at these places, of a degree below their number, add up to its value at 0.
/// `BAD_KEY` unless the places are distinct and not 0.
pub fn lagrange_at_zero(indices: &[u32]) -> Result<Vec<Scalar>> {
    let bad = |found| Err(Error::expected(Code::BadKey, "indices of shares", "distinct ones from 1", found));
    let mut weights = Vec::with_capacity(indices.len());
    for (at, &i) in indices.iter().enumerate() {
        if i == 0 || indices[..at].contains(&i) {
            return bad(format!("{indices:?}"));
        }
        let (mut above, mut below) = (Scalar::one(), Scalar::one());
        for &j in indices.iter().filter(|j| **j != i) {
            above = above.mul(&Scalar::from_u64(j.into()));
            below = below.mul(&difference(j.into(), i.into()));
        }
        let Some(inverse) = below.inverse() else {
            return bad(format!("{indices:?}"));
        };
        weights.push(above.mul(&inverse));
    }
    Ok(weights)
}

/// One blinded nonce and the shares of it that authorities have answered.
pub struct Request<'a> {
    /// The tier's keys.
    pub keys: &'a SharedKey,
    /// What was signed.
    pub blinded: BlindedNonce,
    /// By index, which is the authority's place in the committee plus 1.
    pub shares: Vec<(u32, SignatureShare)>,
}

impl Request<'_> {
    /// Whether each share is of another authority of the committee; says nothing of the shares. `UNKNOWN_AUTHORITY` for an index
    /// outside of it, `DUPLICATE_SIGNER` for one that comes twice.
    pub fn check(&self) -> Result<()> {
        let mut seen = [false; COMMITTEE_MAX];
        for (index, _) in &self.shares {
            if self.keys.share(*index).is_none() {
                let expected = format!("1 to {}", self.keys.shares.len());
                return Err(Error::expected(Code::UnknownAuthority, "index of a signature share", expected, index));
            }
            if std::mem::replace(&mut seen[*index as usize - 1], true) {
                return Err(Error::new(Code::DuplicateSigner, format!("two signature shares of index {index}")));
            }
        }
        Ok(())
    }
}

/// What shares gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Combined {
    /// The signature; None if fewer shares than the threshold are true: ask more authorities.
    pub signature: Option<BlindSignature>,
    /// Indices whose shares are false, ascending. Empty if all was well with the first threshold of shares: nobody has
    /// looked at the others then.
    pub liars: Vec<u32>,
}

/// Combines the shares of one request; see [`combine_all`].
pub fn combine(keys: &SharedKey, blinded: &BlindedNonce, shares: &[(u32, SignatureShare)]) -> Result<Combined> {
    let request = Request { keys, blinded: *blinded, shares: shares.to_vec() };
    Ok(combine_all(&[request])?.pop().expect("one for one"))
}

/// Combines the shares of many requests and verifies all results together. Of those that fail, every share is verified,
/// and the true ones are combined. Errors: those of [`Request::check`], the first.
pub fn combine_all(requests: &[Request<'_>]) -> Result<Vec<Combined>> {
    requests.iter().try_for_each(Request::check)?;
    let mut weights = Weights::default();
    let mut results: Vec<Combined> = Vec::with_capacity(requests.len());
    let (mut claims, mut claimed) = (Vec::new(), Vec::new());
    for (at, request) in requests.iter().enumerate() {
        let sum = weights.sum(request.keys, &request.shares);
        if let Some(signature) = sum {
            claims.push(Claim { key: request.keys.key.0, base: request.blinded.0, signature });
            claimed.push(at);
        }
        results.push(Combined { signature: None, liars: Vec::new() });
    }
    let holds = verify_claims(&claims);
    let mut failed = Vec::new();
    for ((at, claim), holds) in claimed.into_iter().zip(claims).zip(holds) {
        if holds || planted::is(Bug::BadShareTaken) {
            results[at].signature = Some(BlindSignature(claim.signature));
        } else {
            failed.push(at);
        }
    }
    for (at, combined) in failed.iter().zip(without_liars(failed.iter().map(|at| &requests[*at]), &mut weights)) {
        results[*at] = combined;
    }
    Ok(results)
}

/// Verifies all shares of all these requests together, and combines the true ones.
fn without_liars<'a>(requests: impl Iterator<Item = &'a Request<'a>>, weights: &mut Weights) -> Vec<Combined> {
    let requests: Vec<_> = requests.collect();
    let mut claims = Vec::new();
    for request in &requests {
        for (index, share) in &request.shares {
            let key = request.keys.share(*index).expect("indices are checked").0;
            claims.push(Claim { key, base: request.blinded.0, signature: share.0 });
        }
    }
    let mut holds = verify_claims(&claims).into_iter();
    let mut results = Vec::with_capacity(requests.len());
    for request in requests {
        let (mut good, mut liars) = (Vec::new(), Vec::new());
        for (index, share) in &request.shares {
            if holds.next().expect("one for each share") {
                good.push((*index, *share));
            } else {
                liars.push(*index);
            }
        }
        liars.sort_unstable();
        let signature = weights.sum(request.keys, &good).map(BlindSignature);
        results.push(Combined { signature, liars });
    }
    results
}

/// Interpolation weights by who signed: mostly the same for all notes of a request.
#[derive(Default)]
struct Weights(BTreeMap<Vec<u32>, Interpolation>);

impl Weights {
    /// The first threshold of shares, combined; None if there are fewer.
    fn sum(&mut self, keys: &SharedKey, shares: &[(u32, SignatureShare)]) -> Option<G1> {
        let shares = shares.get(..keys.threshold as usize)?;
        let indices: Vec<u32> = shares.iter().map(|(index, _)| *index).collect();
        let points: Vec<G1> = shares.iter().map(|(_, share)| share.0).collect();
        Some(self.0.entry(indices).or_insert_with_key(|indices| Interpolation::of(indices)).sum(&points))
    }
}

/// What takes values at some places to the value at 0.
enum Interpolation {
    /// Weights over a common divisor, whose inverse it is, unless that is 1. In a committee of some ten they have a few bits, and
    /// the sum costs a tenth of one with scalars of 255.
    Small(Vec<i32>, Option<Scalar>),
    Large(Vec<Scalar>),
}

impl Interpolation {
    fn of(indices: &[u32]) -> Interpolation {
        match small_weights(indices) {
            Some((weights, 1)) => Interpolation::Small(weights, None),
            Some((weights, divisor)) => Interpolation::Small(weights, Scalar::from_u64(divisor.into()).inverse()),
            None => Interpolation::Large(lagrange_at_zero(indices).expect("indices are checked")),
        }
    }

    fn sum(&self, points: &[G1]) -> G1 {
        match self {
            Interpolation::Small(weights, None) => G1::msm_small(points, weights),
            Interpolation::Small(weights, Some(inverse)) => G1::msm_small(points, weights).mul(inverse),
            Interpolation::Large(weights) => G1::msm(points, weights),
        }
    }
}

/// The weights of [`lagrange_at_zero`] as whole numbers, and what all of them are to be divided by; None if one has more than 31 bits.
/// The places are distinct and not 0.
fn small_weights(indices: &[u32]) -> Option<(Vec<i32>, u32)> {
    let mut fractions = Vec::with_capacity(indices.len());
    for i in indices {
        let (mut above, mut below) = (1i64, 1i64);
        for j in indices.iter().filter(|j| *j != i) {
            above = product(above, i64::from(*j))?;
            below = product(below, i64::from(*j) - i64::from(*i))?;
            let common = common_divisor(above, below);
            (above, below) = (above / common, below / common);
        }
        fractions.push((above, below));
    }
    let multiple = |a: i64, b: i64| product(a / common_divisor(a, b), b.abs());
    let divisor = fractions.iter().try_fold(1, |all, (_, below)| multiple(all, *below))?;
    let whole = |(above, below): (i64, i64)| i32::try_from(product(above, divisor / below)?).ok();
    Some((fractions.into_iter().map(whole).collect::<Option<_>>()?, divisor.try_into().ok()?))
}

/// None if it is too large to be negated.
fn product(a: i64, b: i64) -> Option<i64> {
    a.checked_mul(b).filter(|product| *product != i64::MIN)
}

/// The greatest common divisor of a number above 0 and one that is not 0.
fn common_divisor(a: i64, b: i64) -> i64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.abs()
}

#[cfg(test)]
#[path = "combine_tests.rs"]
mod tests;
