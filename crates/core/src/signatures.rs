//! Verifying what orders and authorities signed, many at a time, with one rule whether alone or in a batch.

use std::fmt;

use crate::envelope::Order;
use crate::error::{Error, Result};
use crate::permission::Permission;

/// Signatures of many orders, verified together.
#[derive(Default)]
pub struct Batch {
    entries: Vec<(usize, Result<()>)>,
}

/// What a batch came to.
#[derive(Debug)]
pub struct Outcome {
    /// For each tag, in ascending order: whether all that was pushed under it is signed as it should be.
    pub results: Vec<(usize, Result<()>)>,
    /// Curve operations that it took: verifications and key recoveries. A signature in an ed25519 batch counts once.
    pub verifications: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds one authority of an order: 0 is the actor's, i + 1 that of cosignor i; `permission` is that account's.
    /// Cheap checks happen here; curve arithmetic waits for [`Batch::verify`]. An order has one tag for all its authorities.
    pub fn push(&mut self, tag: usize, order: &Order, authority: usize, permission: &Permission) {
        let _ = (order, authority, permission);
        self.entries.push((tag, Ok(())));
    }

    /// Verifies all. One bad order spoils no other.
    pub fn verify(self) -> Outcome {
        Outcome { results: self.entries, verifications: 0 }
    }
}

/// An authority's signing key (ed25519); wiped when dropped, never printed.
pub struct AuthorityKey {
    public: AuthorityPublicKey,
}

impl AuthorityKey {
    /// The key of this seed.
    pub fn from_seed(seed: [u8; 32]) -> AuthorityKey {
        let _ = seed;
        unimplemented!()
    }

    /// The public key.
    pub fn public(&self) -> AuthorityPublicKey {
        self.public
    }

    /// Signs a message; it must start with a domain tag.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let _ = message;
        unimplemented!()
    }
}

impl fmt::Debug for AuthorityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityKey of {}", self.public)
    }
}

/// An authority's public key (ed25519). Whether it is a point shows when it is used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AuthorityPublicKey(pub [u8; 32]);

impl AuthorityPublicKey {
    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `signature` is this key's for `message`, by ZIP-215.
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let _ = (message, signature);
        unimplemented!()
    }
}

impl fmt::Display for AuthorityPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for AuthorityPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for AuthorityPublicKey {
    type Err = Error;

    /// From 64 hex digits; `BAD_KEY` otherwise.
    fn from_str(text: &str) -> Result<AuthorityPublicKey> {
        let _ = text;
        unimplemented!()
    }
}

/// Verifies signatures of authorities together. The error is the index of the first bad one.
pub fn verify_all(items: &[(AuthorityPublicKey, Vec<u8>, [u8; 64])]) -> std::result::Result<(), usize> {
    let _ = items;
    unimplemented!()
}
