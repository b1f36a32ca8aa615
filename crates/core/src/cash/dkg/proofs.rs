//! Proofs of knowledge by Schnorr, made non-interactive by hashing (Fiat and Shamir): 64 bytes, challenge and response.
//! Each is bound to a context that names the run, the prover and what it is for, so none can be used again elsewhere.

use bytes::Bytes;
use sha2::{Digest, Sha512};

use crate::cash::curve::{G1, G2, SCALAR_BYTES, Scalar};
use crate::error::Result;

use super::false_proof;

/// A scalar from a hash; secret if an input is.
pub(super) fn hash_scalar(domain: &str, parts: &[&[u8]]) -> Scalar {
    let mut h = Sha512::new();
    for part in [domain.as_bytes()].iter().chain(parts) {
        h.update((part.len() as u64).to_be_bytes());
        h.update(part);
    }
    let mut wide: [u8; 64] = h.finalize().into();
    let scalar = Scalar::from_wide(&wide);
    zeroize::Zeroize::zeroize(&mut wide);
    scalar
}

/// What hides a secret in a proof, different for each statement: made from the prover's seed and the statement.
fn nonce(seed: &[u8; 32], statement: &[&[u8]]) -> Scalar {
    let mut parts: Vec<&[u8]> = vec![seed];
    parts.extend(statement);
    hash_scalar("florin-dkg-nonce-v1", &parts)
}

fn join(challenge: &Scalar, response: &Scalar) -> Bytes {
    [*challenge.to_bytes(), *response.to_bytes()].concat().into()
}

fn split(proof: &[u8]) -> Result<(Scalar, Scalar)> {
    let proof: &[u8; 2 * SCALAR_BYTES] =
        proof.try_into().map_err(|_| false_proof(format!("proof: expected 64 bytes, found {}", proof.len())))?;
    let half = |at: usize| {
        let mut bytes = [0; SCALAR_BYTES];
        bytes.copy_from_slice(&proof[at..at + SCALAR_BYTES]);
        Scalar::from_bytes(&bytes)
    };
    Ok((half(0)?, half(SCALAR_BYTES)?))
}

/// Proves that `secret` is the logarithm of `point` = `secret` times the generator of G1.
pub(super) fn prove_key(seed: &[u8; 32], context: &[u8], secret: &Scalar, point: &G1) -> Bytes {
    let statement: [&[u8]; 2] = [context, &point.to_bytes()];
    let k = nonce(seed, &statement);
    let c = key_challenge(&statement, &G1::generator().mul(&k));
    join(&c, &k.add(&c.mul(secret)))
}

pub(super) fn check_key(context: &[u8], point: &G1, proof: &[u8]) -> Result<()> {
    let (c, z) = split(proof)?;
    let commitment = G1::msm(&[G1::generator(), point.neg()], &[z, c.clone()]);
    match key_challenge(&[context, &point.to_bytes()], &commitment) == c {
        true => Ok(()),
        false => Err(false_proof("the proof for the encryption key is false")),
    }
}

fn key_challenge(statement: &[&[u8]; 2], commitment: &G1) -> Scalar {
    hash_scalar("florin-dkg-key-v1", &[statement[0], statement[1], &commitment.to_bytes()])
}

/// Proves that one `secret` is the logarithm of `key` to the generator of G1 and of `product` to `base`.
pub(super) fn prove_equal(seed: &[u8; 32], context: &[u8], secret: &Scalar, points: &Equal) -> Bytes {
    let statement = points.statement();
    let k = nonce(seed, &[context, &statement]);
    let c = equal_challenge(context, &statement, &G1::generator().mul(&k), &points.base.mul(&k));
    join(&c, &k.add(&c.mul(secret)))
}

pub(super) fn check_equal(context: &[u8], points: &Equal, proof: &[u8]) -> Result<()> {
    let (c, z) = split(proof)?;
    let scalars = [z, c.clone()];
    let first = G1::msm(&[G1::generator(), points.key.neg()], &scalars);
    let second = G1::msm(&[points.base, points.product.neg()], &scalars);
    match equal_challenge(context, &points.statement(), &first, &second) == c {
        true => Ok(()),
        false => Err(false_proof("the proof for a shared secret is false")),
    }
}

/// `key` is to the generator what `product` is to `base`.
pub(super) struct Equal {
    pub key: G1,
    pub base: G1,
    pub product: G1,
}

impl Equal {
    fn statement(&self) -> Vec<u8> {
        [self.key.to_bytes(), self.base.to_bytes(), self.product.to_bytes()].concat()
    }
}

fn equal_challenge(context: &[u8], statement: &[u8], first: &G1, second: &G1) -> Scalar {
    hash_scalar("florin-dkg-equal-v1", &[context, statement, &first.to_bytes(), &second.to_bytes()])
}

/// Proves that the prover knows the logarithms of all `points` of G2, at the price of one (batched Schnorr: the
/// response is the nonce plus the sum of the secrets times powers of the challenge).
pub(super) fn prove_secrets(seed: &[u8; 32], context: &[u8], secrets: &[Scalar], points: &[G2]) -> Bytes {
    let statement = secrets_statement(points);
    let k = nonce(seed, &[context, &statement]);
    let c = secrets_challenge(context, &statement, &G2::generator().mul(&k));
    let response = powers(&c, secrets.len()).iter().zip(secrets).fold(k, |sum, (p, s)| sum.add(&p.mul(s)));
    join(&c, &response)
}

pub(super) fn check_secrets(context: &[u8], points: &[G2], proof: &[u8]) -> Result<()> {
    let (c, z) = split(proof)?;
    let sum = G2::msm(points, &powers(&c, points.len()));
    let commitment = G2::generator().mul(&z).add(&sum.neg());
    match secrets_challenge(context, &secrets_statement(points), &commitment) == c {
        true => Ok(()),
        false => Err(false_proof("the proof for the dealt secrets is false")),
    }
}

fn secrets_statement(points: &[G2]) -> Vec<u8> {
    points.iter().flat_map(|p| p.to_bytes()).collect()
}

fn secrets_challenge(context: &[u8], statement: &[u8], commitment: &G2) -> Scalar {
    hash_scalar("florin-dkg-secrets-v1", &[context, statement, &commitment.to_bytes()])
}

/// c, c^2, ...
fn powers(c: &Scalar, count: usize) -> Vec<Scalar> {
    std::iter::successors(Some(c.clone()), |p| Some(p.mul(c))).take(count).collect()
}
