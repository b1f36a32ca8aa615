//! ed25519 signatures verified together, by ZIP-215: what is true in a batch is true alone.
//!
//! The equation is the one of ed25519-zebra's batches (and of RFC 8032, 8.2, multiplied by the cofactor),
//! `8 (-sum(z s) B + sum(z R) + sum(z k A)) = 0`; what is added is a memory of decompressed keys. Of what a signature costs in a
//! batch nearly a third is the square root for its key, and most senders have sent before.
//!
//! A crate of its own, so that debug builds of the rest have it optimised. The tests are in `florin-core`, against ed25519-zebra: odd
//! points, damaged bytes, single and in batches.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{IsIdentity, VartimeMultiscalarMul};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256, Sha512};

/// Keys that are remembered at most; some 20 MB.
pub const KNOWN_KEYS_MAX: usize = 65_536;

/// When a batch fails, its parts of this size are tried as batches, then the failing parts one by one. That bounds what
/// a batch full of bad signatures costs to about twice verifying each alone.
const FALLBACK_CHUNK: usize = 64;

/// Points of keys that were seen lately, of two generations: the older is dropped when the younger is full.
///
/// A memory of what a function of the bytes alone gave: it decides nothing.
#[derive(Default)]
pub struct KnownKeys(Mutex<[HashMap<[u8; 32], EdwardsPoint>; 2]>);

impl KnownKeys {
    /// The points of keys, in their order; `None` for bytes that are none.
    fn points<'a>(&self, keys: impl Iterator<Item = &'a [u8; 32]>) -> Vec<Option<EdwardsPoint>> {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut point = |key: &[u8; 32]| {
            let [young, old] = &mut *generations;
            if let Some(point) = young.get(key) {
                return Some(*point);
            }
            let point = old.get(key).copied().or_else(|| CompressedEdwardsY(*key).decompress())?;
            if young.len() >= KNOWN_KEYS_MAX / 2 {
                std::mem::swap(young, old);
                young.clear();
            }
            young.insert(*key, point);
            Some(point)
        };
        keys.map(&mut point).collect()
    }

    /// Fills the younger generation with other keys, for tests.
    pub fn fill(&self) {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for n in 0..(KNOWN_KEYS_MAX / 2) as u64 {
            let mut key = [0xff; 32];
            key[..8].copy_from_slice(&n.to_be_bytes());
            generations[0].insert(key, ED25519_BASEPOINT_POINT);
        }
    }
}

/// One signature: its key, R, s, and the hash of both with the message.
struct Item {
    key: [u8; 32],
    r: [u8; 32],
    s: [u8; 32],
    k: Scalar,
}

/// Signatures to verify together.
#[derive(Default)]
pub struct Batch {
    items: Vec<Item>,
    transcript: Sha256,
}

impl Batch {
    /// Adds one.
    pub fn push(&mut self, key: &[u8; 32], sig: &[u8; 64], message: &[u8]) {
        let length = message.len() as u64;
        for part in [&key[..], &sig[..], &length.to_be_bytes(), message] {
            self.transcript.update(part);
        }
        let (mut r, mut s) = ([0; 32], [0; 32]);
        r.copy_from_slice(&sig[..32]);
        s.copy_from_slice(&sig[32..]);
        let hash = Sha512::new().chain_update(r).chain_update(key).chain_update(message).finalize();
        self.items.push(Item { key: *key, r, s, k: Scalar::from_bytes_mod_order_wide(&hash.into()) });
    }

    /// For each signature, in the order pushed, whether it is true. Counts what it took.
    pub fn verify(self, known: &KnownKeys, verifications: &mut usize) -> Vec<bool> {
        let Batch { items, transcript } = self;
        let seed: [u8; 32] = transcript.finalize().into();
        let keys = known.points(items.iter().map(|item| &item.key));
        let items: Vec<(Item, Option<EdwardsPoint>)> = items.into_iter().zip(keys).collect();
        // Every try has a stream of its own: 0 for the whole, then the chunks.
        let mut together = |items: &[(Item, Option<EdwardsPoint>)], stream: usize| {
            *verifications += items.len();
            let mut rng = ChaCha20Rng::from_seed(seed);
            rng.set_stream(stream as u64);
            are_true(items, rng).unwrap_or(false)
        };
        if items.is_empty() || together(&items, 0) {
            return vec![true; items.len()];
        }
        let mut results = Vec::with_capacity(items.len());
        for (i, chunk) in items.chunks(FALLBACK_CHUNK).enumerate() {
            // A batch of one chunk has just failed.
            let is_true = items.len() > FALLBACK_CHUNK && together(chunk, i + 1);
            match chunk {
                _ if is_true => results.extend(chunk.iter().map(|_| true)),
                [_] => results.push(false),
                _ => results.extend(chunk.iter().map(|item| together(std::slice::from_ref(item), 0))),
            }
        }
        results
    }
}

/// Whether all are true; `None` if one has bytes that are no point or no scalar. One alone is judged exactly.
fn are_true(items: &[(Item, Option<EdwardsPoint>)], mut rng: ChaCha20Rng) -> Option<bool> {
    let size = 2 * items.len() + 1;
    let (mut scalars, mut points) = (Vec::with_capacity(size), Vec::with_capacity(size));
    scalars.push(Scalar::ZERO);
    points.push(ED25519_BASEPOINT_POINT);
    // Many signatures of one key, as a chain of an account's orders has, need its point once.
    let mut places: HashMap<&[u8; 32], usize> = HashMap::with_capacity(items.len());
    let mut base = Scalar::ZERO;
    for (item, key) in items {
        let key = (*key)?;
        let r = CompressedEdwardsY(item.r).decompress()?;
        let s = Option::<Scalar>::from(Scalar::from_canonical_bytes(item.s))?;
        let z = match items.len() {
            1 => Scalar::ONE,
            _ => {
                let mut z = [0; 16];
                rng.fill_bytes(&mut z);
                Scalar::from(u128::from_le_bytes(z))
            }
        };
        base -= z * s;
        let place = *places.entry(&item.key).or_insert_with(|| {
            scalars.push(Scalar::ZERO);
            points.push(key);
            scalars.len() - 1
        });
        scalars[place] += z * item.k;
        scalars.push(z);
        points.push(r);
    }
    scalars[0] = base;
    Some(EdwardsPoint::vartime_multiscalar_mul(&scalars, &points).mul_by_cofactor().is_identity())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_keys_are_known_than_the_limit() {
        let (known, mut point) = (KnownKeys::default(), ED25519_BASEPOINT_POINT);
        let mut most = 0;
        // Twice as many, and half as many again, in small parts.
        for _ in 0..40 {
            let mut keys = Vec::with_capacity(KNOWN_KEYS_MAX / 16);
            for _ in 0..KNOWN_KEYS_MAX / 16 {
                keys.push(point.compress().to_bytes());
                point += ED25519_BASEPOINT_POINT;
            }
            assert!(known.points(keys.iter()).iter().all(Option::is_some));
            let generations = known.0.lock().unwrap_or_else(PoisonError::into_inner);
            most = most.max(generations[0].len() + generations[1].len());
        }
        assert_eq!(most, KNOWN_KEYS_MAX);
    }
}
