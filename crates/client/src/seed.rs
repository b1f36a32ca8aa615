//! Seed words and the keys they give: BIP-39 words, SLIP-0010 keys.
//!
//! The words restore everything, on any machine, with any wallet that knows these two standards. Every
//! step of the path is hardened: a leaked account key gives away no other account's.

use std::fmt;

use bip39::{Language, Mnemonic};
use florin_core::keys::{Curve, SecretKey};
use florin_core::{Code, Error, Result};
use hmac::{Hmac, KeyInit, Mac};
use p256::elliptic_curve::PrimeField;
use sha2::Sha512;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of entropy behind 12 words.
pub const ENTROPY_BYTES: usize = 16;
/// Bytes of entropy behind 24 words.
pub const ENTROPY_BYTES_LONG: usize = 32;
/// Largest index of an account's key: hardened indices have 31 bits.
pub const INDEX_MAX: u32 = HARDENED - 1;

const HARDENED: u32 = 1 << 31;
/// m/44'/7777'/0'/0', and the account's index below it.
const ACCOUNTS_PATH: [u32; 4] = [44, 7777, 0, 0];
/// m/44'/7777'/1'/0', of the ed25519 tree whatever the accounts' curve is: the secret of all e-cash.
const CASH_PATH: [u32; 4] = [44, 7777, 1, 0];

/// What a wallet's keys come from; wiped when dropped, never printed.
pub struct Seed {
    words: Mnemonic,
    /// BIP-39 seed with an empty passphrase.
    bytes: Zeroizing<[u8; 64]>,
}

impl Seed {
    /// The seed of 16 random bytes (12 words) or 32 (24 words). `BAD_WORDS` for another number.
    pub fn from_entropy(entropy: &[u8]) -> Result<Seed> {
        if entropy.len() != ENTROPY_BYTES && entropy.len() != ENTROPY_BYTES_LONG {
            let expected = format!("{ENTROPY_BYTES} or {ENTROPY_BYTES_LONG}");
            return Err(Error::expected(Code::BadWords, "bytes of entropy", expected, entropy.len()));
        }
        let words = Mnemonic::from_entropy_in(Language::English, entropy).expect("the number of bytes was checked");
        Ok(Seed::new(words))
    }

    /// Reads 12 or 24 English words, in any case and spacing. `BAD_WORDS` gives the place of an unknown
    /// word, and never repeats the words: errors end up in logs.
    pub fn from_words(text: &str) -> Result<Seed> {
        let text = Zeroizing::new(text.to_lowercase());
        let count = text.split_whitespace().count();
        if count != 12 && count != 24 {
            return Err(Error::expected(Code::BadWords, "number of words", "12 or 24", count));
        }
        let words = Mnemonic::parse_in_normalized(Language::English, &text).map_err(|e| {
            let message = match e {
                bip39::Error::UnknownWord(i) => format!("word {} is not in the BIP-39 list of English words", i + 1),
                bip39::Error::InvalidChecksum => {
                    "every word is in the list, but their checksum fails: one is wrong or in the wrong place".into()
                }
                other => other.to_string(),
            };
            Error::new(Code::BadWords, message)
        })?;
        Ok(Seed::new(words))
    }

    fn new(words: Mnemonic) -> Seed {
        let bytes = Zeroizing::new(words.to_seed_normalized(""));
        Seed { words, bytes }
    }

    /// The words, with single spaces.
    pub fn words(&self) -> Zeroizing<String> {
        Zeroizing::new(self.words.to_string())
    }

    /// The entropy behind the words: 16 or 32 bytes.
    pub fn entropy(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.words.to_entropy())
    }

    /// The secret key of account `index` (at most [`INDEX_MAX`]; `LIMIT` above).
    pub fn key(&self, curve: Curve, index: u32) -> Result<SecretKey> {
        SecretKey::from_seed(curve, *self.derive(curve, index)?)
    }

    /// The 32 secret bytes at m/44'/7777'/0'/0'/index'. `LIMIT` above [`INDEX_MAX`].
    pub fn derive(&self, curve: Curve, index: u32) -> Result<Zeroizing<[u8; 32]>> {
        if index > INDEX_MAX {
            return Err(Error::expected(Code::Limit, "index of a key", format!("at most {INDEX_MAX}"), index));
        }
        let mut node = Node::master(curve, &self.bytes[..]);
        for step in ACCOUNTS_PATH.into_iter().chain([index]) {
            node = node.hardened(step);
        }
        Ok(Zeroizing::new(node.key))
    }
}

impl Seed {
    /// The 32 secret bytes that all notes of the wallet come from ([`florin_core::cash::derive::CashSeed`]).
    pub fn cash_secret(&self) -> Zeroizing<[u8; 32]> {
        let master = Node::master(Curve::Ed25519, &self.bytes[..]);
        Zeroizing::new(CASH_PATH.into_iter().fold(master, |node, step| node.hardened(step)).key)
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// A node of the SLIP-0010 tree.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Node {
    #[zeroize(skip)]
    curve: Curve,
    key: [u8; 32],
    chain_code: [u8; 32],
}

impl Node {
    fn master(curve: Curve, seed: &[u8]) -> Node {
        let tag: &[u8] = match curve {
            Curve::K1 => b"Bitcoin seed",
            Curve::R1 => b"Nist256p1 seed",
            Curve::Ed25519 => b"ed25519 seed",
            // SLIP-0010 knows no such curve: what it gives is the seed of BLS's own KeyGen.
            Curve::Bls => b"Florin BLS seed",
        };
        let mut digest = hmac_sha512(tag, &[seed]);
        loop {
            let (key, chain_code) = halves(&digest);
            // Zero is no key either, and that is what adding to a zero parent leaves of it.
            if let Some(key) = add(curve, &key, &[0; 32]) {
                return Node { curve, key, chain_code };
            }
            digest = hmac_sha512(tag, &[&digest[..]]);
        }
    }

    fn hardened(&self, index: u32) -> Node {
        let mut head = Zeroizing::new([0; 33]);
        head[1..].copy_from_slice(&self.key);
        self.child(&head, index | HARDENED)
    }

    /// A child; `head` is 0 and the key for a hardened index, else the public key.
    fn child(&self, head: &[u8; 33], index: u32) -> Node {
        let index = index.to_be_bytes();
        let mut digest = hmac_sha512(&self.chain_code, &[head, &index]);
        loop {
            let (left, chain_code) = halves(&digest);
            if let Some(key) = add(self.curve, &left, &self.key) {
                return Node { curve: self.curve, key, chain_code };
            }
            digest = hmac_sha512(&self.chain_code, &[&[1], &chain_code, &index]);
        }
    }
}

/// The sum modulo the curve's order; None if `left` is not below the order or the sum is 0. An ed25519
/// child does not depend on its parent's key that way: it is `left`, whatever that is.
fn add(curve: Curve, left: &[u8; 32], parent: &[u8; 32]) -> Option<[u8; 32]> {
    match curve {
        Curve::Ed25519 | Curve::Bls => Some(*left),
        Curve::K1 => {
            let Ok(mut left_key) = secp256k1::SecretKey::from_secret_bytes(*left) else {
                // 0, where the sum is the parent, or not below the order.
                return (*left == [0; 32] && *parent != [0; 32]).then_some(*parent);
            };
            if *parent == [0; 32] {
                left_key.non_secure_erase();
                return Some(*left);
            }
            let tweak = secp256k1::Scalar::from_be_bytes(*parent).expect("a key is below the order");
            let sum = left_key.add_tweak(&tweak);
            left_key.non_secure_erase();
            let mut sum = sum.ok()?;
            let bytes = sum.to_secret_bytes();
            sum.non_secure_erase();
            Some(bytes)
        }
        Curve::R1 => {
            let scalar = |bytes: &[u8; 32]| p256::Scalar::from_repr((*bytes).into()).into_option().map(Zeroizing::new);
            let sum = Zeroizing::new(*scalar(left)? + *scalar(parent).expect("a key is below the order"));
            (*sum != p256::Scalar::ZERO).then(|| sum.to_repr().into())
        }
    }
}

fn halves(digest: &[u8; 64]) -> ([u8; 32], [u8; 32]) {
    let (mut left, mut right) = ([0; 32], [0; 32]);
    left.copy_from_slice(&digest[..32]);
    right.copy_from_slice(&digest[32..]);
    (left, right)
}

fn hmac_sha512(key: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; 64]> {
    let mut mac = Hmac::<Sha512>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

#[cfg(test)]
#[path = "seed_tests.rs"]
mod tests;
