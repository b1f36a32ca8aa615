//! BLS signatures over BLS12-381: the ciphersuite `BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_` of the IETF's draft, with public
//! keys in G1, so that a key is added for a fraction of what verifying a signature costs, and signatures in G2.
//!
//! What many keys have signed together is one signature, the sum of theirs, verified against the sum of the keys
//! ([`crate::distilled`]). That is sound only for keys whose holders have proved that they know the secret: another's key
//! less one's own would otherwise be a key that signs for both. The proof ([`possesses`]) names the account that the key is for.
//!
//! Keys are kept as points, not compressed: reading one takes no square root.

use blst::min_pk::{
    AggregatePublicKey as AggregatePoint, AggregateSignature, PublicKey as Point, SecretKey as Secret,
    Signature as SignaturePoint,
};
use blst::{BLST_ERROR, MultiPoint, blst_p1_affine};

use crate::error::{Code, Error, Result};
use crate::memo;

/// Bytes of a key: x and y, big-endian.
pub const POINT_BYTES: usize = 96;
/// Bytes of a signature: a compressed point of G2.
pub const SIGNATURE_BYTES: usize = 96;

/// The tag of everything that is signed.
const SIGN_TAG: &[u8] = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_";
/// The tag of proofs of possession.
const POSSESSION_TAG: &[u8] = b"BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_";

/// A key: a point of the curve. That it is in the right subgroup is part of [`possesses`].
pub type Key = [u8; POINT_BYTES];
/// Bytes of a signature, which may be none.
pub type SignatureBytes = [u8; SIGNATURE_BYTES];

/// Whether these are the one encoding of a point of the curve other than the identity.
pub fn is_point(bytes: &Key) -> bool {
    // The first three bits are flags; without any it is an uncompressed point.
    bytes[0] & 0xe0 == 0 && point(bytes).is_some_and(|point| point.serialize() == *bytes)
}

fn point(bytes: &Key) -> Option<Point> {
    Point::deserialize(bytes).ok()
}

/// The message of a proof of possession: the key, and the one account that it is for.
fn possession_message(key: &Key, network_id: u64, actor: u64) -> Vec<u8> {
    [&key[..], &network_id.to_be_bytes(), &actor.to_be_bytes()].concat()
}

/// Whether the holder of the key's secret has made this proof, for this account. Keys outside of the subgroup have none.
pub fn possesses(key: &Key, network_id: u64, actor: u64, proof: &SignatureBytes) -> bool {
    let in_group = point(key).is_some_and(|point| point.validate().is_ok());
    in_group && verify(key, &possession_message(key, network_id, actor), proof, POSSESSION_TAG)
}

/// Whether a key has signed a message. The key must have been proved by [`possesses`].
pub fn verifies(key: &Key, message: &[u8], signature: &SignatureBytes) -> bool {
    verify(key, message, signature, SIGN_TAG)
}

fn verify(key: &Key, message: &[u8], signature: &SignatureBytes, tag: &[u8]) -> bool {
    let check = || {
        let Some(point) = point(key) else { return false };
        let Ok(signature) = SignaturePoint::uncompress(signature) else { return false };
        signature.verify(true, message, tag, &[], &point, false) == BLST_ERROR::BLST_SUCCESS
    };
    memo::of(|m| &mut m.bls, &[key, signature, tag, message], check)
}

/// Keys, to be added up.
#[derive(Default)]
pub struct Sum {
    points: Vec<blst_p1_affine>,
    /// Whether one of them was no point.
    broken: bool,
}

impl Sum {
    /// An empty one, with room for so many.
    pub fn with_capacity(keys: usize) -> Sum {
        Sum { points: Vec::with_capacity(keys), broken: false }
    }

    /// Adds a key. With bytes that are no point nothing is signed by all.
    pub fn add(&mut self, key: &Key) {
        match point(key) {
            Some(point) => self.points.push(point.into()),
            None => self.broken = true,
        }
    }

    /// The sum; None if there are no keys, or they cancel.
    pub fn key(&self) -> Option<Key> {
        if self.broken || self.points.is_empty() {
            return None;
        }
        // Many at a time share one inversion: some six products of the field a key.
        let sum = AggregatePoint::from(self.points.add()).to_public_key();
        (sum.validate() != Err(BLST_ERROR::BLST_PK_IS_INFINITY)).then(|| sum.serialize())
    }

    /// Whether all of them have signed the message together.
    pub fn verifies(&self, message: &[u8], signature: &SignatureBytes) -> bool {
        self.key().is_some_and(|key| verifies(&key, message, signature))
    }
}

/// The sum of signatures: what all have signed together, if each is true. `SIG_FORMAT` if there are none, or one is no point.
pub fn sum_signatures<'a>(signatures: impl IntoIterator<Item = &'a SignatureBytes>) -> Result<SignatureBytes> {
    let none = || Error::new(Code::SigFormat, "expected signatures that are points, found others or none");
    let points: std::result::Result<Vec<_>, _> =
        signatures.into_iter().map(|bytes| SignaturePoint::uncompress(bytes)).collect();
    let points = points.map_err(|_| none())?;
    let points: Vec<&SignaturePoint> = points.iter().collect();
    let sum = AggregateSignature::aggregate(&points, false).map_err(|_| none())?;
    Ok(sum.to_signature().compress())
}

/// A secret key; wiped when dropped, never printed.
pub struct SecretKey {
    secret: Secret,
    public: Key,
}

impl SecretKey {
    /// The key that the draft's KeyGen makes of 32 bytes of a seed.
    pub fn from_seed(seed: &[u8; 32]) -> SecretKey {
        let secret = Secret::key_gen(seed, &[]).expect("32 bytes are enough");
        let public = secret.sk_to_pk().serialize();
        SecretKey { secret, public }
    }

    /// The public key.
    pub fn public(&self) -> &Key {
        &self.public
    }

    /// Signs a message, which must start with a domain tag.
    pub fn sign(&self, message: &[u8]) -> SignatureBytes {
        self.sign_with(message, SIGN_TAG)
    }

    /// Proves that the key is known here, for one account.
    pub fn prove(&self, network_id: u64, actor: u64) -> SignatureBytes {
        self.sign_with(&possession_message(&self.public, network_id, actor), POSSESSION_TAG)
    }

    fn sign_with(&self, message: &[u8], tag: &[u8]) -> SignatureBytes {
        let sign = || self.secret.sign(message, tag, &[]).compress();
        memo::of(|m| &mut m.bls_signed, &[&self.public, tag, message], sign)
    }
}

#[cfg(test)]
#[path = "bls_tests.rs"]
mod tests;
