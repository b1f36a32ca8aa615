//! Keys and signatures of orders: three curves of one shape (34-byte keys, 66-byte signatures), and BLS (97 and 97).
//!
//! The first byte of a key or signature names its curve, as in PBTX; 2 stays reserved (WebAuthn). An ed25519 key
//! signs a tagged digest, so nothing else that it signs can be taken for an order.

mod recover;

use std::fmt;
use std::str::FromStr;

use ecdsa::hazmat::sign_prehashed_rfc6979;
use k256::ecdsa as k1;
use p256::ecdsa as r1;
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::bls;
use crate::error::{Code, Error, Result};
use crate::memo;

/// Bytes of a public key: curve, then the compressed point (ed25519: a zero byte, then the key).
pub const PUBLIC_KEY_BYTES: usize = 34;
/// Bytes of a signature: curve, header, r, s (ed25519: curve, a zero byte, R, s).
pub const SIGNATURE_BYTES: usize = 66;
/// Bytes of a BLS key: curve, x, y.
pub const BLS_KEY_BYTES: usize = 1 + bls::POINT_BYTES;
/// Bytes of a BLS signature: curve, compressed point.
pub const BLS_SIGNATURE_BYTES: usize = 1 + bls::SIGNATURE_BYTES;
/// What an ed25519 key signs starts with this; sha256(body) follows.
pub const ORDER_TAG: &[u8; 10] = b"PBTX-TX-v1";

/// Header of a K1 or R1 signature with recovery id 0; 3 is the largest id.
const HEADER_MIN: u8 = 31;
const HEADER_MAX: u8 = 34;

/// Half the order of secp256k1, rounded down: the largest low s.
const K1_LOW_S_MAX: [u8; 32] = *b"\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\
    \x5d\x57\x6e\x73\x57\xa4\x50\x1d\xdf\xe9\x2f\x46\x68\x1b\x20\xa0";
/// Half the order of secp256r1, rounded down.
const R1_LOW_S_MAX: [u8; 32] = *b"\x7f\xff\xff\xff\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff\
    \xde\x73\x7d\x56\xd3\x8b\xcf\x42\x79\xdc\xe5\x61\x7e\x31\x92\xa8";

/// The curve of a key or signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    /// secp256k1, ECDSA. Byte 0.
    K1,
    /// secp256r1 (P-256), ECDSA. Byte 1.
    R1,
    /// ed25519 by the rules of ZIP-215. Byte 0x10, then a zero byte.
    Ed25519,
    /// BLS over BLS12-381, keys in G1. Byte 0x20.
    Bls,
}

impl Curve {
    /// The first byte of keys and signatures of this curve.
    pub const fn byte(self) -> u8 {
        match self {
            Curve::K1 => 0,
            Curve::R1 => 1,
            Curve::Ed25519 => 0x10,
            Curve::Bls => 0x20,
        }
    }

    /// Bytes of a key of this curve.
    pub const fn key_bytes(self) -> usize {
        match self {
            Curve::K1 | Curve::R1 | Curve::Ed25519 => PUBLIC_KEY_BYTES,
            Curve::Bls => BLS_KEY_BYTES,
        }
    }

    /// Bytes of a signature of this curve.
    pub const fn signature_bytes(self) -> usize {
        match self {
            Curve::K1 | Curve::R1 | Curve::Ed25519 => SIGNATURE_BYTES,
            Curve::Bls => BLS_SIGNATURE_BYTES,
        }
    }

    /// The curve with this byte.
    pub const fn from_byte(byte: u8) -> Option<Curve> {
        match byte {
            0 => Some(Curve::K1),
            1 => Some(Curve::R1),
            0x10 => Some(Curve::Ed25519),
            0x20 => Some(Curve::Bls),
            _ => None,
        }
    }
}

/// A checked public key: a known curve and a point on it. Zeros after its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; BLS_KEY_BYTES]);

/// `bytes`, and zeros after them; None if there are too many.
fn padded<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    out.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(out)
}

impl PublicKey {
    /// The key in these bytes. `BAD_PERMISSION` unless they are 34 (BLS: 97), of a known curve and a point on it.
    pub fn parse(bytes: &[u8]) -> Result<PublicKey> {
        let bad =
            |what: &str, expected: &str, found: String| Error::expected(Code::BadPermission, what, expected, found);
        let curve = bytes.first().and_then(|byte| Curve::from_byte(*byte));
        let expected = curve.map_or(PUBLIC_KEY_BYTES, Curve::key_bytes);
        if bytes.len() != expected {
            return Err(bad("bytes of a key", &expected.to_string(), bytes.len().to_string()));
        }
        let Some(curve) = curve else {
            return Err(bad("curve of a key", "0 (K1), 1 (R1), 16 (ed25519) or 32 (BLS)", bytes[0].to_string()));
        };
        let on_curve = memo::of(
            |m| &mut m.keys,
            &[bytes],
            || match curve {
                // The libraries also read other forms of a point (compact, x only); here there is one.
                Curve::K1 => is_compressed(bytes) && secp256k1::PublicKey::from_slice(&bytes[1..]).is_ok(),
                Curve::R1 => is_compressed(bytes) && r1::VerifyingKey::from_sec1_bytes(&bytes[1..]).is_ok(),
                Curve::Ed25519 => bytes[1] == 0 && ed25519_zebra::VerificationKey::try_from(&bytes[2..]).is_ok(),
                Curve::Bls => bls::is_point(&tail(bytes)),
            },
        );
        let key = padded(bytes).filter(|_| on_curve).map(PublicKey);
        key.ok_or_else(|| bad("key", "a point on its curve", hex::encode(bytes)))
    }

    /// A key that [`PublicKey::parse`] took before; finding its point again would cost as much as a third of a
    /// verification. `None` if the bytes can't be one.
    pub(crate) fn kept(bytes: &[u8]) -> Option<PublicKey> {
        let curve = Curve::from_byte(*bytes.first()?)?;
        padded(bytes).filter(|_| bytes.len() == curve.key_bytes()).map(PublicKey)
    }

    /// The 34 bytes, or 97.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0[..self.curve().key_bytes()]
    }

    /// The key's curve.
    pub fn curve(&self) -> Curve {
        Curve::from_byte(self.0[0]).expect("parse checked the curve")
    }

    /// The 32 bytes that ed25519 libraries take, if it is such a key.
    pub fn ed25519_bytes(&self) -> Option<[u8; 32]> {
        (self.curve() == Curve::Ed25519).then(|| tail(self.as_bytes()))
    }

    /// Its point, if it is a BLS key.
    pub fn bls(&self) -> Option<bls::Key> {
        (self.curve() == Curve::Bls).then(|| tail(self.as_bytes()))
    }
}

fn is_compressed(bytes: &[u8]) -> bool {
    matches!(bytes[1], 2 | 3)
}

/// The last `N` bytes, of which there are as many at least.
fn tail<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes.last_chunk().expect("keys and signatures have the bytes of their curve")
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = Error;

    /// From 68 hex digits, or 194. `BAD_KEY` if they are not hex, else as [`PublicKey::parse`].
    fn from_str(text: &str) -> Result<PublicKey> {
        let bytes = hex::decode(text)
            .map_err(|e| Error::new(Code::BadKey, format!("a key is 68 hex digits, or 194 if BLS: {e}")))?;
        PublicKey::parse(&bytes)
    }
}

/// A signature of the right form; whether it is true depends on key and order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature([u8; BLS_SIGNATURE_BYTES]);

impl Signature {
    /// The signature in these bytes. `SIG_FORMAT` unless they are 66 (BLS: 97) with a known curve and header,
    /// `SIG_NOT_CANONICAL` for an ECDSA signature in another than its one accepted form.
    pub fn parse(bytes: &[u8]) -> Result<Signature> {
        let curve = bytes.first().and_then(|byte| Curve::from_byte(*byte));
        let expected = curve.map_or(SIGNATURE_BYTES, Curve::signature_bytes);
        if bytes.len() != expected {
            return Err(Error::expected(Code::SigFormat, "bytes of a signature", expected, bytes.len()));
        }
        let Some(curve) = curve else {
            let expected = "0 (K1), 1 (R1), 16 (ed25519) or 32 (BLS)";
            return Err(Error::expected(Code::SigFormat, "curve of a signature", expected, bytes[0]));
        };
        let signature = Signature(padded(bytes).expect("no curve has more"));
        let (header_ok, expected) = match curve {
            // Whether the point is one is found out when it is verified.
            Curve::Bls => return Ok(signature),
            Curve::Ed25519 => (bytes[1] == 0, "0"),
            Curve::K1 | Curve::R1 => ((HEADER_MIN..=HEADER_MAX).contains(&bytes[1]), "31 to 34"),
        };
        if !header_ok {
            return Err(Error::expected(Code::SigFormat, "header of a signature", expected, bytes[1]));
        }
        let (r, s) = (&bytes[2..34], &bytes[34..]);
        let canonical = match curve {
            Curve::K1 => is_k1_canonical(r) && is_k1_canonical(s) && s <= &K1_LOW_S_MAX[..],
            Curve::R1 => s <= &R1_LOW_S_MAX[..],
            Curve::Ed25519 | Curve::Bls => true,
        };
        if !canonical {
            let found = hex::encode(&bytes[2..]);
            return Err(Error::expected(Code::SigNotCanonical, "signature", "the canonical r and low s", found));
        }
        Ok(signature)
    }

    /// The 66 bytes, or 97.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0[..self.curve().signature_bytes()]
    }

    /// The signature's curve.
    pub fn curve(&self) -> Curve {
        Curve::from_byte(self.0[0]).expect("parse checked the curve")
    }

    /// R and s, as ed25519 libraries take them, if it is such a signature.
    pub fn ed25519_bytes(&self) -> Option<[u8; 64]> {
        (self.curve() == Curve::Ed25519).then(|| tail(self.as_bytes()))
    }

    /// The point, if it is a BLS signature.
    pub fn bls(&self) -> Option<bls::SignatureBytes> {
        (self.curve() == Curve::Bls).then(|| tail(self.as_bytes()))
    }

    /// The K1 or R1 key that made this signature of a body with hash `body_hash`. None if no key could have (or for
    /// ed25519 and BLS, which name no key). Recovering, not verifying, makes a flipped recovery id another key.
    pub fn recover(&self, body_hash: &[u8; 32]) -> Option<PublicKey> {
        memo::of(|m| &mut m.signers, &[&self.0[..], body_hash], || self.signer(body_hash))
    }

    fn signer(&self, body_hash: &[u8; 32]) -> Option<PublicKey> {
        let recovery_id = self.0[1].checked_sub(HEADER_MIN)?;
        let compact: [u8; 64] = tail(self.as_bytes());
        let mut key = [0; BLS_KEY_BYTES];
        key[0] = self.0[0];
        let point = &mut key[1..PUBLIC_KEY_BYTES];
        match self.curve() {
            Curve::K1 => {
                let id = RecoveryId::try_from(i32::from(recovery_id)).ok()?;
                let sig = RecoverableSignature::from_compact(&compact, id).ok()?;
                let signer = sig.recover_ecdsa(secp256k1::Message::from_digest(*body_hash)).ok()?;
                point.copy_from_slice(&signer.serialize());
            }
            Curve::R1 => {
                point.copy_from_slice(&recover::r1(body_hash, &compact, recovery_id)?);
            }
            Curve::Ed25519 | Curve::Bls => return None,
        }
        Some(PublicKey(key))
    }
}

/// The rule of EOSIO for r and s: neither negative nor padded as a DER integer of 32 bytes.
fn is_k1_canonical(number: &[u8]) -> bool {
    number[0] & 0x80 == 0 && !(number[0] == 0 && number[1] & 0x80 == 0)
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.as_bytes()))
    }
}

/// First byte of a proof of possession: 97 bytes beside the signatures of an order that sets a BLS key ([`bls::possesses`]).
pub const POSSESSION_BYTE: u8 = 0x21;
/// First byte of what stands for a signature where the account has signed the root of its batch ([`crate::distilled`]).
pub const ROOT_BYTE: u8 = 0x22;

/// The signature in 97 bytes that start with `first`.
pub fn tagged_point(first: u8, bytes: &[u8]) -> Option<bls::SignatureBytes> {
    let point = bytes.strip_prefix(&[first])?;
    point.try_into().ok()
}

/// What an ed25519 or BLS key signs for the body with this hash.
pub fn order_message(body_hash: &[u8; 32]) -> [u8; 42] {
    let mut message = [0; 42];
    message[..10].copy_from_slice(ORDER_TAG);
    message[10..].copy_from_slice(body_hash);
    message
}

/// A secret key; wiped when dropped, never printed.
pub struct SecretKey {
    inner: Inner,
    public: PublicKey,
}

enum Inner {
    K1(Box<k1::SigningKey>),
    R1(Box<r1::SigningKey>),
    Ed25519(Box<Zeroizing<ed25519_zebra::SigningKey>>),
    Bls(Box<bls::SecretKey>),
}

impl SecretKey {
    /// The key with this secret: the seed of ed25519 or BLS, or the big-endian scalar of K1 and R1, where `BAD_KEY` says that
    /// it is 0 or not below the curve's order.
    pub fn from_seed(curve: Curve, seed: [u8; 32]) -> Result<SecretKey> {
        let seed = Zeroizing::new(seed);
        let out_of_range =
            || Error::expected(Code::BadKey, "secret key", "a number from 1 to the curve's order", "another");
        let mut public = [0; BLS_KEY_BYTES];
        public[0] = curve.byte();
        let inner = match curve {
            Curve::K1 => {
                let secret = k1::SigningKey::from_slice(&seed[..]).map_err(|_| out_of_range())?;
                public[1..PUBLIC_KEY_BYTES].copy_from_slice(secret.verifying_key().to_sec1_point(true).as_bytes());
                Inner::K1(Box::new(secret))
            }
            Curve::R1 => {
                let secret = r1::SigningKey::from_slice(&seed[..]).map_err(|_| out_of_range())?;
                public[1..PUBLIC_KEY_BYTES].copy_from_slice(secret.verifying_key().to_sec1_point(true).as_bytes());
                Inner::R1(Box::new(secret))
            }
            Curve::Ed25519 => {
                let secret = Box::new(Zeroizing::new(ed25519_zebra::SigningKey::from(*seed)));
                public[2..PUBLIC_KEY_BYTES].copy_from_slice(ed25519_zebra::VerificationKey::from(&**secret).as_ref());
                Inner::Ed25519(secret)
            }
            Curve::Bls => {
                let secret = bls::SecretKey::from_seed(&seed);
                public[1..].copy_from_slice(secret.public());
                Inner::Bls(Box::new(secret))
            }
        };
        Ok(SecretKey { inner, public: PublicKey(public) })
    }

    /// The public key.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Signs an order's body.
    pub fn sign_body(&self, body: &[u8]) -> Signature {
        self.sign_body_hash(&Sha256::digest(body).into())
    }

    /// The secret that signs with others, if it is a BLS key.
    pub fn bls(&self) -> Option<&bls::SecretKey> {
        match &self.inner {
            Inner::Bls(secret) => Some(secret),
            Inner::K1(_) | Inner::R1(_) | Inner::Ed25519(_) => None,
        }
    }

    /// Signs the body with this sha256: bare with K1 and R1 (RFC 6979), tagged with ed25519 and BLS.
    pub fn sign_body_hash(&self, body_hash: &[u8; 32]) -> Signature {
        memo::of(|m| &mut m.bodies, &[&self.public.0[..], body_hash], || self.sign(body_hash))
    }

    fn sign(&self, body_hash: &[u8; 32]) -> Signature {
        match &self.inner {
            Inner::K1(secret) => sign_k1(secret, body_hash),
            Inner::R1(secret) => sign_r1(secret, body_hash),
            Inner::Ed25519(secret) => {
                let mut bytes = [0; BLS_SIGNATURE_BYTES];
                bytes[0] = Curve::Ed25519.byte();
                bytes[2..SIGNATURE_BYTES].copy_from_slice(&secret.sign(&order_message(body_hash)).to_bytes());
                Signature(bytes)
            }
            Inner::Bls(secret) => {
                let mut bytes = [0; BLS_SIGNATURE_BYTES];
                bytes[0] = Curve::Bls.byte();
                bytes[1..].copy_from_slice(&secret.sign(&order_message(body_hash)));
                Signature(bytes)
            }
        }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey of {}", self.public)
    }
}

/// RFC 6979 as EOSIO's clients do it: about one signature in two is canonical, so the number of the try, one byte,
/// goes into the nonce until one is. (libsecp256k1 takes no such byte; it is faster at verifying, which counts.)
fn sign_k1(secret: &k1::SigningKey, digest: &[u8; 32]) -> Signature {
    let scalar = secret.as_nonzero_scalar();
    (1..=u8::MAX)
        .find_map(|one_try| {
            let (signed, id) =
                sign_prehashed_rfc6979::<k256::Secp256k1, k256::sha2::Sha256>(scalar, digest, &[one_try]);
            Signature::parse(&ecdsa_bytes(Curve::K1, id.to_byte(), &signed.to_bytes())).ok()
        })
        .expect("255 independent tries do not all fail")
}

/// RFC 6979. The mirrored, low s belongs to the point with the other y, so the recovery id flips with it.
fn sign_r1(secret: &r1::SigningKey, digest: &[u8; 32]) -> Signature {
    let (signed, id) = secret.sign_prehash_recoverable(digest);
    let low = signed.normalize_s();
    let id = if low == signed { id.to_byte() } else { id.to_byte() ^ 1 };
    Signature(padded(&ecdsa_bytes(Curve::R1, id, &low.to_bytes())).expect("no curve has more"))
}

fn ecdsa_bytes(curve: Curve, recovery_id: u8, compact: &[u8]) -> [u8; SIGNATURE_BYTES] {
    let mut bytes = [0; SIGNATURE_BYTES];
    bytes[0] = curve.byte();
    bytes[1] = HEADER_MIN + recovery_id;
    bytes[2..].copy_from_slice(compact);
    bytes
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
