//! A wallet's notes from its seed: everything about a note comes from a secret and a counter, so the words restore all.
//!
//! HKDF-SHA512 with a tag for each use. One counter serves all tiers of a network; a number is used for one note,
//! ever: two notes with one nonce could be spent only once.

use std::fmt;

use ed25519_zebra::{SigningKey, VerificationKeyBytes};
use hkdf::Hkdf;
use sha2::Sha512;
use zeroize::Zeroizing;

use super::blind::{BlindedNonce, BlindingFactor, Nonce};
use super::curve::Scalar;

const SALT: &[u8] = b"florin-cash-v1";
const KEY_TAG: &[u8] = b"florin-cash-note-key-v1";
const RECEIVER_TAG: &[u8] = b"florin-cash-receiver-key-v1";
const BLINDING_TAG: &[u8] = b"florin-cash-blinding-v1";

/// What all notes of a wallet in one network come from. Wiped when dropped, never printed.
pub struct CashSeed {
    key: Zeroizing<[u8; 64]>,
    network_id: u64,
}

impl CashSeed {
    /// From 32 secret bytes that the wallet derives from its words for cash and nothing else.
    pub fn new(secret: &[u8; 32], network_id: u64) -> CashSeed {
        let (key, _) = Hkdf::<Sha512>::extract(Some(SALT), secret);
        CashSeed { key: Zeroizing::new(key.into()), network_id }
    }

    /// The secrets of note `counter`.
    pub fn note(&self, counter: u64) -> NoteSecrets {
        let mut seed = Zeroizing::new([0; 32]);
        self.expand(KEY_TAG, counter, &mut seed[..]);
        let mut wide = Zeroizing::new([0; 64]);
        self.expand(BLINDING_TAG, counter, &mut wide[..]);
        let blinding =
            BlindingFactor::new(Scalar::from_wide(&wide)).expect("64 bytes of HKDF are no multiple of the order");
        NoteSecrets { key: Box::new(Zeroizing::new(SigningKey::from(*seed))), blinding }
    }

    /// The seed of one-time key `index`, to which others can lock notes.
    pub fn receiver(&self, index: u64) -> Zeroizing<[u8; 32]> {
        let mut seed = Zeroizing::new([0; 32]);
        self.expand(RECEIVER_TAG, index, &mut seed[..]);
        seed
    }

    fn expand(&self, tag: &[u8], counter: u64, out: &mut [u8]) {
        let hkdf = Hkdf::<Sha512>::from_prk(&self.key[..]).expect("a key as long as the hash");
        let info = [tag, &self.network_id.to_be_bytes(), &counter.to_be_bytes()];
        hkdf.expand_multi_info(&info, out).expect("at most 64 bytes");
    }
}

impl fmt::Debug for CashSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CashSeed")
    }
}

/// The secrets of one note. Wiped when dropped, never printed.
pub struct NoteSecrets {
    key: Box<Zeroizing<SigningKey>>,
    blinding: BlindingFactor,
}

impl NoteSecrets {
    /// The note's nonce: the ed25519 key that spends it.
    pub fn nonce(&self) -> Nonce {
        Nonce(VerificationKeyBytes::from(&**self.key).into())
    }

    /// What its nonce is blinded with.
    pub fn blinding(&self) -> &BlindingFactor {
        &self.blinding
    }

    /// The nonce, blinded: what authorities get to sign.
    pub fn blinded(&self) -> BlindedNonce {
        self.nonce().blind(&self.blinding)
    }

    /// The seed of the key that spends the note: what is handed over with it.
    pub fn secret(&self) -> Zeroizing<[u8; 32]> {
        let mut seed = Zeroizing::new([0; 32]);
        seed.copy_from_slice((**self.key).as_ref());
        seed
    }

    /// Signs a message, which must start with a domain tag, with the key that spends the note.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

impl fmt::Debug for NoteSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoteSecrets of {:?}", self.nonce())
    }
}

#[cfg(test)]
#[path = "derive_tests.rs"]
mod tests;
