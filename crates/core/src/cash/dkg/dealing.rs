//! One part of a dealing: made by the dealer, checked by all, opened by each receiver or by its complaint.
//!
//! A share is encrypted with a pad: a hash of the Diffie-Hellman secret of dealer and receiver, in G1. It needs no
//! authentication: what it decrypts to fits the commitments or is a ground for complaint. The dealer proves that it
//! knows the logarithm of its point: else it could send another dealer's again, and receivers would open that one's
//! shares in their complaints.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::cash::curve::{G1, G1_BYTES, G2, G2_BYTES, SCALAR_BYTES, Scalar};
use crate::error::Result;

use super::keys::{evaluate, evaluate_points, position};
use super::proofs::{Equal, check_equal, check_secrets, hash_scalar, prove_equal, prove_key, prove_secrets};
use super::wire::{Announce, Complaint, Deal};
use super::{Params, proofs, refused};

/// One point of G1.
pub(super) fn point(what: &str, bytes: &[u8]) -> Result<G1> {
    let bytes: &[u8; G1_BYTES] =
        bytes.try_into().map_err(|_| refused(format!("{what}: expected 48 bytes, found {}", bytes.len())))?;
    G1::from_bytes(bytes)
}

/// As many points of G2.
pub(super) fn points(what: &str, bytes: &[u8], count: usize) -> Result<Vec<G2>> {
    let (points, rest) = bytes.as_chunks::<G2_BYTES>();
    if points.len() != count || !rest.is_empty() {
        return Err(refused(format!("{what}: expected {} bytes, found {}", count * G2_BYTES, bytes.len())));
    }
    points.iter().map(G2::from_bytes).collect()
}

/// As many scalars.
pub(super) fn scalars(what: &str, bytes: &[u8], count: usize) -> Result<Vec<Scalar>> {
    let (scalars, rest) = bytes.as_chunks::<SCALAR_BYTES>();
    if scalars.len() != count || !rest.is_empty() {
        return Err(refused(format!("{what}: expected {} bytes, found {}", count * SCALAR_BYTES, bytes.len())));
    }
    scalars.iter().map(Scalar::from_bytes).collect()
}

/// What a proof or a pad is for.
fn context(params: &Params, what: &str, numbers: &[u32]) -> Vec<u8> {
    let mut context = params.id.to_vec();
    context.extend_from_slice(what.as_bytes());
    numbers.iter().for_each(|n| context.extend_from_slice(&n.to_be_bytes()));
    context
}

/// A receiver's secret for decryption.
pub(super) fn encryption_secret(params: &Params, seed: &[u8; 32]) -> Scalar {
    hash_scalar("florin-dkg-encryption-v1", &[seed, &params.id])
}

pub(super) fn announce(params: &Params, seed: &[u8; 32], receiver: u32) -> Announce {
    let secret = encryption_secret(params, seed);
    let key = G1::generator().mul(&secret);
    let proof = prove_key(seed, &context(params, "announce", &[receiver]), &secret, &key);
    Announce { key: Bytes::copy_from_slice(&key.to_bytes()), proof }
}

pub(super) fn check_announce(params: &Params, receiver: u32, announce: &Announce) -> Result<()> {
    let key = point("encryption key", &announce.key)?;
    proofs::check_key(&context(params, "announce", &[receiver]), &key, &announce.proof)
}

/// The announced keys, with their receivers.
pub(super) fn receivers(announced: &[Bytes]) -> impl Iterator<Item = (u32, &Bytes)> {
    announced.iter().enumerate().filter(|(_, key)| !key.is_empty()).map(|(i, key)| (i as u32, key))
}

/// Coefficients of a dealer's polynomial for a tier; the first is `secret`, if it is given.
fn polynomial(params: &Params, seed: &[u8; 32], tier: usize, secret: Option<&Scalar>) -> Vec<Scalar> {
    let coefficient = |k: usize| {
        let (tier, k) = ((tier as u64).to_be_bytes(), (k as u64).to_be_bytes());
        hash_scalar("florin-dkg-coefficient-v1", &[seed, &params.id, &tier, &k])
    };
    let mut all: Vec<Scalar> = (0..params.threshold()).map(coefficient).collect();
    if let Some(secret) = secret {
        all[0] = secret.clone();
    }
    all
}

/// A part of a dealing, the same each time that it is made. `old` are the dealer's shares to share again.
pub(super) fn deal(
    params: &Params,
    seed: &[u8; 32],
    dealer: u32,
    chunk: u32,
    announced: &[Bytes],
    old: Option<&[Scalar]>,
) -> Result<Deal> {
    let tiers = params.tiers_of(chunk as usize);
    let polynomials: Vec<Vec<Scalar>> =
        tiers.map(|tier| polynomial(params, seed, tier, old.map(|old| &old[tier]))).collect();
    let commitments: Vec<G2> = polynomials.iter().flatten().map(|c| G2::generator().mul(c)).collect();
    let secrets: Vec<Scalar> = polynomials.iter().map(|p| p[0].clone()).collect();
    let secret_points: Vec<G2> = commitments.iter().step_by(params.threshold()).copied().collect();
    let r = hash_scalar("florin-dkg-ephemeral-v1", &[seed, &params.id, &chunk.to_be_bytes()]);
    let ephemeral = G1::generator().mul(&r);
    let mut shares = Vec::new();
    for (receiver, key) in receivers(announced) {
        let shared = point("encryption key", key)?.mul(&r);
        let pads = Pads::new(params, [dealer, chunk, receiver], &ephemeral, key, &shared);
        for (i, polynomial) in polynomials.iter().enumerate() {
            shares.extend(pads.apply(i, &evaluate(polynomial, position(receiver)).to_bytes()));
        }
    }
    let numbers = [dealer, chunk];
    Ok(Deal {
        chunk,
        ephemeral: Bytes::copy_from_slice(&ephemeral.to_bytes()),
        ephemeral_proof: prove_key(seed, &context(params, "ephemeral", &numbers), &r, &ephemeral),
        commitments: commitments.iter().flat_map(|p| p.to_bytes()).collect::<Vec<u8>>().into(),
        secrets_proof: prove_secrets(seed, &context(params, "secrets", &numbers), &secrets, &secret_points),
        shares: shares.into(),
    })
}

/// A part that is on the log.
pub(super) struct Dealt {
    dealer: u32,
    chunk: u32,
    ephemeral: G1,
    /// By tier of the part, then by coefficient.
    pub commitments: Vec<Vec<G2>>,
    shares: Bytes,
    hash: [u8; 32],
}

impl Dealt {
    /// Its points and lengths; not its proofs.
    pub fn read(params: &Params, dealer: u32, deal: &Deal, announced: &[Bytes]) -> Result<Dealt> {
        if deal.chunk as usize >= params.chunks() {
            return Err(refused(format!("part {} of {}", deal.chunk, params.chunks())));
        }
        let tiers = params.tiers_of(deal.chunk as usize).len();
        let expected = tiers * SCALAR_BYTES * receivers(announced).count();
        if deal.shares.len() != expected {
            return Err(refused(format!("shares: expected {expected} bytes, found {}", deal.shares.len())));
        }
        let all = points("commitments", &deal.commitments, tiers * params.threshold())?;
        let mut h = Sha256::new();
        h.update(context(params, "dealt", &[dealer, deal.chunk]));
        [&deal.ephemeral, &deal.commitments, &deal.shares].iter().for_each(|part| h.update(part));
        Ok(Dealt {
            dealer,
            chunk: deal.chunk,
            ephemeral: point("ephemeral key", &deal.ephemeral)?,
            commitments: all.chunks(params.threshold()).map(<[G2]>::to_vec).collect(),
            shares: deal.shares.clone(),
            hash: h.finalize().into(),
        })
    }

    /// All that can be checked without a receiver's key.
    pub fn check(params: &Params, dealer: u32, deal: &Deal, announced: &[Bytes]) -> Result<()> {
        let dealt = Dealt::read(params, dealer, deal, announced)?;
        let numbers = [dealer, deal.chunk];
        proofs::check_key(&context(params, "ephemeral", &numbers), &dealt.ephemeral, &deal.ephemeral_proof)?;
        let secrets: Vec<G2> = dealt.commitments.iter().map(|c| c[0]).collect();
        if let Some(old) = &params.old {
            let held = |tier: usize| old.tiers[tier].shares[dealer as usize];
            if params.tiers_of(deal.chunk as usize).map(held).ne(secrets.iter().copied()) {
                return Err(refused(format!("dealer {dealer} deals another secret than its share")));
            }
        }
        check_secrets(&context(params, "secrets", &numbers), &secrets, &deal.secrets_proof)
    }

    /// The shares of a receiver that holds `secret`; none if they are wrong.
    pub fn open(&self, params: &Params, announced: &[Bytes], receiver: u32, secret: &Scalar) -> Option<Vec<Scalar>> {
        self.open_shared(params, announced, receiver, &self.ephemeral.mul(secret))
    }

    fn open_shared(&self, params: &Params, announced: &[Bytes], receiver: u32, shared: &G1) -> Option<Vec<Scalar>> {
        let (at, (_, key)) = receivers(announced).enumerate().find(|(_, (r, _))| *r == receiver)?;
        let pads = Pads::new(params, [self.dealer, self.chunk, receiver], &self.ephemeral, key, shared);
        let size = self.commitments.len() * SCALAR_BYTES;
        let opened: Zeroizing<Vec<u8>> = Zeroizing::new(
            self.shares[at * size..(at + 1) * size]
                .as_chunks::<SCALAR_BYTES>()
                .0
                .iter()
                .enumerate()
                .flat_map(|(i, share)| pads.apply(i, share))
                .collect(),
        );
        let shares = scalars("shares", &opened, self.commitments.len()).ok()?;
        self.fits(receiver, &shares).then_some(shares)
    }

    /// Whether these are the receiver's shares: all tiers at once, by a random combination. Its factors come from a
    /// hash over dealing and shares, so that neither can be fitted to them but with a chance of 2^-128 a try.
    pub fn fits(&self, receiver: u32, shares: &[Scalar]) -> bool {
        if shares.len() != self.commitments.len() {
            return false;
        }
        let mut h = Sha256::new();
        h.update(self.hash);
        h.update(receiver.to_be_bytes());
        shares.iter().for_each(|share| h.update(*share.to_bytes()));
        let seed = Zeroizing::new(<[u8; 32]>::from(h.finalize()));
        let factors: Vec<u128> = (0..shares.len() as u32)
            .map(|i| {
                let hash: [u8; 32] = Sha256::new().chain_update(*seed).chain_update(i.to_be_bytes()).finalize().into();
                u128::from_be_bytes(*hash.first_chunk().expect("16 of 32 bytes"))
            })
            .collect();
        let sum = factors.iter().zip(shares).fold(Scalar::zero(), |sum, (f, s)| sum.add(&scalar_of(*f).mul(s)));
        let degree = self.commitments[0].len();
        let column = |k: usize| self.commitments.iter().map(|c| c[k]).collect::<Vec<G2>>();
        let combined: Vec<G2> = (0..degree).map(|k| G2::msm_128(&column(k), &factors)).collect();
        G2::generator().mul(&sum) == evaluate_points(&combined, position(receiver))
    }

    /// Shows what the dealer sent to this receiver.
    pub fn complain(&self, params: &Params, seed: &[u8; 32], receiver: u32) -> Complaint {
        let secret = encryption_secret(params, seed);
        let points =
            Equal { key: G1::generator().mul(&secret), base: self.ephemeral, product: self.ephemeral.mul(&secret) };
        Complaint {
            dealer: self.dealer,
            chunk: self.chunk,
            secret: Bytes::copy_from_slice(&points.product.to_bytes()),
            proof: prove_equal(seed, &self.complaint_context(params, receiver), &secret, &points),
        }
    }

    /// Whether a receiver's complaint is true. Errors: it proves nothing.
    pub fn check_complaint(
        &self,
        params: &Params,
        announced: &[Bytes],
        receiver: u32,
        complaint: &Complaint,
    ) -> Result<bool> {
        let product = point("shared secret", &complaint.secret)?;
        let key = point("encryption key", &announced[receiver as usize])?;
        let points = Equal { key, base: self.ephemeral, product };
        check_equal(&self.complaint_context(params, receiver), &points, &complaint.proof)?;
        Ok(self.open_shared(params, announced, receiver, &product).is_none())
    }

    fn complaint_context(&self, params: &Params, receiver: u32) -> Vec<u8> {
        context(params, "complaint", &[self.dealer, self.chunk, receiver])
    }
}

fn scalar_of(number: u128) -> Scalar {
    let mut bytes = [0; SCALAR_BYTES];
    bytes[16..].copy_from_slice(&number.to_be_bytes());
    Scalar::from_bytes(&bytes).expect("128 bits are below the order")
}

/// What encrypts the shares of one part for one receiver.
struct Pads(Zeroizing<[u8; 32]>);

impl Pads {
    fn new(params: &Params, numbers: [u32; 3], ephemeral: &G1, key: &[u8], shared: &G1) -> Pads {
        let mut h = Sha256::new();
        h.update(context(params, "pads", &numbers));
        h.update(ephemeral.to_bytes());
        h.update(key);
        h.update(shared.to_bytes());
        Pads(Zeroizing::new(h.finalize().into()))
    }

    /// Encrypts or decrypts the share of one tier of the part.
    fn apply(&self, tier: usize, share: &[u8; SCALAR_BYTES]) -> [u8; SCALAR_BYTES] {
        let pad: [u8; 32] =
            Sha256::new().chain_update(*self.0).chain_update((tier as u32).to_be_bytes()).finalize().into();
        std::array::from_fn(|i| pad[i] ^ share[i])
    }
}
