//! Keys and signatures as the tools of EOSIO write them, so that PBTX's users keep theirs.
//!
//! | Text | base58 of | Checksum: 4 bytes of |
//! |---|---|---|
//! | `5...` | 0x80, K1 secret (32) | sha256 twice, of all before |
//! | `EOS...` | compressed K1 point (33) | ripemd160, of the point |
//! | `PVT_K1_`, `PVT_R1_` | secret (32) | ripemd160, of all before and the letters `K1` or `R1` |
//! | `PUB_K1_`, `PUB_R1_` | compressed point (33) | the same |
//! | `SIG_K1_`, `SIG_R1_` | header, r, s (65) | the same |
//!
//! EOSIO has no ed25519. The same forms with `ED` are Florin's: the seed (32), what follows the curve byte in PBTX's key (33)
//! and signature (65). No error repeats a text, which may be a secret.

use std::fmt;

use ripemd::Ripemd160;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::keys::{Curve, PUBLIC_KEY_BYTES, PublicKey, SIGNATURE_BYTES, SecretKey, Signature};

const SECRET_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 4;
/// Longest text that can be anything: base58 takes less than 1.4 characters a byte.
const DIGITS_MAX: usize = (SIGNATURE_BYTES + CHECKSUM_BYTES) * 14 / 10;
/// First byte of a `5...` key.
const WIF_VERSION: u8 = 0x80;

/// What a text can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `EOS...`, `PUB_...`.
    Public,
    /// `5...`, `PVT_...`.
    Private,
    /// `SIG_...`.
    Signature,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Public, Kind::Private, Kind::Signature];

    /// What the text looks like by its beginning, if it looks like one of these.
    pub fn of(text: &str) -> Option<Kind> {
        match Kind::ALL.into_iter().find(|kind| text.starts_with(kind.prefix())) {
            None if text.starts_with("EOS") => Some(Kind::Public),
            None if text.starts_with('5') && text.len() == 51 => Some(Kind::Private),
            found => found,
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Kind::Public => "PUB_",
            Kind::Private => "PVT_",
            Kind::Signature => "SIG_",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Public => "public key",
            Kind::Private => "private key",
            Kind::Signature => "signature",
        }
    }

    /// Bytes without curve and checksum.
    fn bytes(self) -> usize {
        match self {
            Kind::Public => PUBLIC_KEY_BYTES - 1,
            Kind::Private => SECRET_BYTES,
            Kind::Signature => SIGNATURE_BYTES - 1,
        }
    }
}

/// A private key; wiped when dropped, never printed.
pub struct PrivateKey {
    curve: Curve,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
    public: PublicKey,
}

impl PrivateKey {
    /// The key with this secret. `BAD_KEY` as [`SecretKey::from_seed`].
    pub fn new(curve: Curve, secret: Zeroizing<[u8; SECRET_BYTES]>) -> Result<PrivateKey> {
        let public = SecretKey::from_seed(curve, *secret)?.public();
        Ok(PrivateKey { curve, secret, public })
    }

    /// Reads `5...`, `PVT_K1_...`, `PVT_R1_...` or `PVT_ED_...`. `BAD_KEY` says which part is wrong.
    pub fn from_text(text: &str) -> Result<PrivateKey> {
        if text.starts_with('5') {
            return PrivateKey::from_wif(text);
        }
        let (curve, bytes) = read(text, Kind::Private)?;
        PrivateKey::new(curve, secret_of(&bytes))
    }

    fn from_wif(text: &str) -> Result<PrivateKey> {
        let bytes = decode(text, 1 + SECRET_BYTES, |data| Sha256::digest(Sha256::digest(data)).to_vec())?;
        if bytes[0] != WIF_VERSION {
            return Err(Error::expected(Code::BadKey, "first byte of the private key", WIF_VERSION, bytes[0]));
        }
        PrivateKey::new(Curve::K1, secret_of(&bytes[1..]))
    }

    /// `PVT_...`.
    pub fn to_text(&self) -> Zeroizing<String> {
        write(Kind::Private, self.curve, &self.secret[..])
    }

    /// `5...`, which only K1 has.
    pub fn to_wif(&self) -> Option<Zeroizing<String>> {
        let mut bytes = Zeroizing::new(vec![WIF_VERSION]);
        bytes.extend_from_slice(&self.secret[..]);
        let checksum = Sha256::digest(Sha256::digest(&bytes[..]));
        (self.curve == Curve::K1).then(|| encode(&bytes, &checksum))
    }

    /// The public key.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The key to sign with.
    pub fn signer(&self) -> SecretKey {
        SecretKey::from_seed(self.curve, *self.secret).expect("new took it")
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey of {}", self.public)
    }
}

/// Reads `EOS...`, `PUB_K1_...`, `PUB_R1_...` or `PUB_ED_...`. `BAD_KEY` says which part is wrong.
pub fn public_from_text(text: &str) -> Result<PublicKey> {
    let (curve, point) = match text.strip_prefix("EOS") {
        Some(digits) => (Curve::K1, decode(digits, Kind::Public.bytes(), |data| Ripemd160::digest(data).to_vec())?),
        None => read(text, Kind::Public)?,
    };
    let bytes = [&[curve.byte()], &point[..]].concat();
    PublicKey::parse(&bytes).map_err(|e| Error::new(Code::BadKey, e.message))
}

/// `PUB_...`.
pub fn public_to_text(key: &PublicKey) -> String {
    write(Kind::Public, key.curve(), &key.as_bytes()[1..]).to_string()
}

/// `EOS...`, which only K1 has.
pub fn public_to_legacy_text(key: &PublicKey) -> Option<String> {
    let point = &key.as_bytes()[1..];
    (key.curve() == Curve::K1).then(|| format!("EOS{}", *encode(point, &Ripemd160::digest(point))))
}

/// Reads `SIG_K1_...`, `SIG_R1_...` or `SIG_ED_...`. `BAD_KEY` says which part is wrong; else as [`Signature::parse`].
pub fn signature_from_text(text: &str) -> Result<Signature> {
    let (curve, rest) = read(text, Kind::Signature)?;
    Signature::parse(&[&[curve.byte()], &rest[..]].concat())
}

/// `SIG_...`.
pub fn signature_to_text(signature: &Signature) -> String {
    write(Kind::Signature, signature.curve(), &signature.as_bytes()[1..]).to_string()
}

/// The two letters of a curve.
pub fn curve_name(curve: Curve) -> &'static str {
    match curve {
        Curve::K1 => "K1",
        Curve::R1 => "R1",
        Curve::Ed25519 => "ED",
        // Only shown: no tool of EOSIO has them.
        Curve::Bls => "BLS",
    }
}

/// The curve and the bytes of `<kind>_<curve>_<base58>`.
fn read(text: &str, kind: Kind) -> Result<(Curve, Zeroizing<Vec<u8>>)> {
    let Some((letters, digits)) = text.strip_prefix(kind.prefix()).and_then(|rest| rest.split_once('_')) else {
        let found = Kind::of(text).filter(|found| *found != kind).map_or("another text", Kind::name);
        let (what, start) = (kind.name(), kind.prefix());
        return Err(Error::expected(Code::BadKey, what, format!("{start}, then K1, R1 or ED and _"), found));
    };
    let Some(curve) = [Curve::K1, Curve::R1, Curve::Ed25519].into_iter().find(|c| curve_name(*c) == letters) else {
        let found = if letters == "WA" { "WA (WebAuthn)" } else { "another" };
        return Err(Error::expected(Code::BadKey, &format!("curve of the {}", kind.name()), "K1, R1 or ED", found));
    };
    let bytes = decode(digits, kind.bytes(), |data| checksum(data, curve).to_vec())?;
    Ok((curve, bytes))
}

fn write(kind: Kind, curve: Curve, data: &[u8]) -> Zeroizing<String> {
    let digits = encode(data, &checksum(data, curve));
    Zeroizing::new(format!("{}{}_{}", kind.prefix(), curve_name(curve), *digits))
}

fn checksum(data: &[u8], curve: Curve) -> [u8; 20] {
    Ripemd160::new().chain_update(data).chain_update(curve_name(curve)).finalize().into()
}

fn encode(data: &[u8], checksum: &[u8]) -> Zeroizing<String> {
    let all = Zeroizing::new([data, &checksum[..CHECKSUM_BYTES]].concat());
    Zeroizing::new(bs58::encode(&all[..]).into_string())
}

/// `length` bytes in base58, followed by the first four of their `checksum`.
fn decode(digits: &str, length: usize, checksum: impl Fn(&[u8]) -> Vec<u8>) -> Result<Zeroizing<Vec<u8>>> {
    let expected = format!("{length} and a checksum of {CHECKSUM_BYTES}");
    if digits.len() > DIGITS_MAX {
        let found = format!("{} characters, which are more", digits.len());
        return Err(Error::expected(Code::BadKey, "bytes in the text", expected, found));
    }
    let mut bytes = Zeroizing::new(vec![0; DIGITS_MAX]);
    let decoded = bs58::decode(digits).onto(&mut bytes[..]).map_err(|e| {
        let place = match e {
            bs58::decode::Error::InvalidCharacter { index, .. } => format!("another at {}", index + 1),
            bs58::decode::Error::NonAsciiCharacter { index } => format!("another at {}", index + 1),
            _ => "others".to_owned(),
        };
        Error::expected(Code::BadKey, "characters after the prefix", "base58 (no 0, O, I, l)", place)
    })?;
    bytes.truncate(decoded);
    if decoded != length + CHECKSUM_BYTES {
        return Err(Error::expected(Code::BadKey, "bytes in the text", expected, decoded));
    }
    if bytes[length..] != checksum(&bytes[..length])[..CHECKSUM_BYTES] {
        let message = "checksum: the text was mistyped or cut, or is of another curve";
        return Err(Error::new(Code::BadKey, message));
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn secret_of(bytes: &[u8]) -> Zeroizing<[u8; SECRET_BYTES]> {
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    secret.copy_from_slice(bytes);
    secret
}

#[cfg(test)]
#[path = "eosio_tests.rs"]
mod tests;
