//! Who may sign for an actor: weighted keys and a threshold.

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::address::Address;
use crate::bls;
use crate::canonical::{self as tag, Reader};
use crate::error::{Code, Error, Result};
use crate::keys::{BLS_KEY_BYTES, Curve, PublicKey};
use crate::limits::{ID_MAX, KEYS_MAX};
use crate::pbtx;

/// Bytes of a key that the decoder takes at all; a valid one has 34, or 97 if it is a BLS key.
const KEY_BYTES_MAX: usize = 97;
const _: () = assert!(KEY_BYTES_MAX >= BLS_KEY_BYTES);
/// The domain tag of an account's address.
pub const ACCOUNT_TAG: &[u8] = b"florin-account-v1";

/// A permission: an order needs signatures of keys whose weights reach the threshold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Permission {
    /// Weight that is needed, at least 1.
    pub threshold: u32,
    /// 1 to 16 distinct keys with their weights, each at least 1.
    pub keys: Vec<(PublicKey, u32)>,
    /// The actor's id; 0 in payment networks, where the id follows from the permission.
    pub actor: u64,
}

impl Permission {
    /// One key that signs alone, for a payment network.
    pub fn single(key: PublicKey) -> Permission {
        Permission { threshold: 1, keys: vec![(key, 1)], actor: 0 }
    }

    /// A permission of a payment network: actor 0. Errors as [`Permission::decode`], and `BAD_PERMISSION` for an actor.
    pub fn decode_account(bytes: &[u8]) -> Result<Permission> {
        let permission = Permission::decode(bytes)?;
        if permission.actor != 0 {
            return Err(Error::expected(Code::BadPermission, "actor in an account's permission", 0, permission.actor));
        }
        Ok(permission)
    }

    /// A permission of a network whose admin names the actors: 1 to 2^63 - 1. Errors as [`Permission::decode`], and
    /// `BAD_PERMISSION` for actor 0 and for BLS keys, which nobody proves the possession of there.
    pub fn decode_actor(bytes: &[u8]) -> Result<Permission> {
        let permission = Permission::decode(bytes)?;
        if permission.actor == 0 {
            return Err(Error::new(Code::BadPermission, "actor: expected 1 to 2^63 - 1, found 0"));
        }
        if permission.bls_key().is_some() {
            return Err(Error::new(Code::BadPermission, "a BLS key: only accounts of payment networks have them"));
        }
        Ok(permission)
    }

    /// Any permission, with whatever actor. In this order: `DECODE`, `LIMIT`, `NON_CANONICAL`, `INT63`, `KEY_TYPE`,
    /// `BAD_PERMISSION`.
    pub fn decode(bytes: &[u8]) -> Result<Permission> {
        let message =
            pbtx::Permission::decode(bytes).map_err(|e| Error::new(Code::Decode, format!("permission: {e}")))?;
        check_limits(&message)?;
        if message.encode_to_vec() != bytes {
            return Err(Error::new(Code::NonCanonical, "permission: its fields encode to other bytes"));
        }
        if message.actor > ID_MAX {
            return Err(Error::expected(Code::Int63, "actor", "at most 2^63 - 1", message.actor));
        }
        let key_types = message.keys.iter().filter_map(|k| k.key.as_ref()).map(|key| key.r#type);
        for (i, key_type) in key_types.enumerate() {
            if key_type != 0 {
                return Err(Error::expected(Code::KeyType, &format!("type of key #{i}"), 0, key_type));
            }
        }
        let mut keys = Vec::with_capacity(message.keys.len());
        for key in &message.keys {
            let key_bytes = key.key.as_ref().map_or(&[][..], |k| &k.key_bytes);
            keys.push((PublicKey::parse(key_bytes)?, key.weight));
        }
        let permission = Permission { threshold: message.threshold, keys, actor: message.actor };
        permission.check()?;
        Ok(permission)
    }

    /// A permission from this authority's own records, which was checked before it was kept. `STORAGE_CORRUPT`.
    pub(crate) fn decode_kept(bytes: &Bytes) -> Result<Permission> {
        if let Some(permission) = read_kept(bytes) {
            return Ok(permission);
        }
        let corrupt = || Error::new(Code::StorageCorrupt, "a permission that does not decode");
        let message = pbtx::Permission::decode(bytes.clone()).map_err(|_| corrupt())?;
        let mut keys = Vec::with_capacity(message.keys.len());
        for key in &message.keys {
            let bytes = key.key.as_ref().map_or(&[][..], |k| &k.key_bytes);
            keys.push((PublicKey::kept(bytes).ok_or_else(corrupt)?, key.weight));
        }
        Ok(Permission { threshold: message.threshold, keys, actor: message.actor })
    }

    /// The rules for threshold, weights and distinct keys: `BAD_PERMISSION`. For a permission that was put together
    /// by hand; a decoded one keeps them.
    pub fn check(&self) -> Result<()> {
        let bad = |message: String| Err(Error::new(Code::BadPermission, message));
        if self.threshold == 0 {
            return bad("threshold: expected at least 1, found 0".into());
        }
        if self.keys.len() > KEYS_MAX {
            return bad(format!("keys: expected at most {KEYS_MAX}, found {}", self.keys.len()));
        }
        for (i, (key, weight)) in self.keys.iter().enumerate() {
            if *weight == 0 {
                return bad(format!("weight of key #{i}: expected at least 1, found 0"));
            }
            if self.keys[..i].iter().any(|(earlier, _)| earlier == key) {
                return bad(format!("key #{i} is there twice: {key}"));
            }
        }
        if self.keys.iter().filter(|(key, _)| key.curve() == Curve::Bls).count() > 1 {
            return bad("keys: expected at most one BLS key, found more".into());
        }
        let sum: u64 = self.keys.iter().map(|(_, weight)| u64::from(*weight)).sum();
        if u64::from(self.threshold) > sum {
            return bad(format!("threshold: expected at most the sum of weights {sum}, found {}", self.threshold));
        }
        Ok(())
    }

    /// Its BLS key, if it has one.
    pub fn bls_key(&self) -> Option<bls::Key> {
        self.keys.iter().find_map(|(key, _)| key.bls())
    }

    /// The key that signs roots of batches for the account: its BLS key, if its weight alone is enough.
    pub fn distils(&self) -> Option<bls::Key> {
        self.keys.iter().find_map(|(key, weight)| key.bls().filter(|_| *weight >= self.threshold))
    }

    /// The one encoding.
    pub fn encode(&self) -> Bytes {
        let keys = self.keys.iter().map(|(key, weight)| pbtx::KeyWeight {
            key: Some(pbtx::PublicKey { r#type: 0, key_bytes: Bytes::copy_from_slice(key.as_bytes()) }),
            weight: *weight,
        });
        let message = pbtx::Permission { actor: self.actor, threshold: self.threshold, keys: keys.collect() };
        message.encode_to_vec().into()
    }

    /// The address of the account that this permission opens in a network: a hash of the permission with actor 0.
    pub fn address(&self, network_id: u64) -> Address {
        let account = Permission { actor: 0, ..self.clone() };
        Permission::address_of(network_id, &account.encode())
    }

    /// [`Permission::address`] of an encoded permission with actor 0.
    pub fn address_of(network_id: u64, encoded: &[u8]) -> Address {
        let hash = Sha256::new().chain_update(ACCOUNT_TAG).chain_update(network_id.to_be_bytes());
        Address::new(hash.chain_update(encoded).finalize().into())
    }
}

/// A canonical permission of a payment network; `None` for any other.
fn read_kept(bytes: &[u8]) -> Option<Permission> {
    let mut reader = Reader::new(bytes);
    let threshold = reader.uint32_field(tag::varint(2))?;
    let mut keys = Vec::with_capacity(1);
    while let Some(part) = reader.bytes_field(tag::bytes(3), bytes.len())? {
        let mut weighted = Reader::within(bytes, part);
        let key = weighted.bytes_field(tag::bytes(1), bytes.len())??;
        let weight = weighted.uint32_field(tag::varint(2))?;
        let mut key = Reader::within(bytes, key);
        let public = PublicKey::kept(key.slice(tag::bytes(2))?)?;
        if keys.len() == KEYS_MAX || !key.is_done() || !weighted.is_done() {
            return None;
        }
        keys.push((public, weight));
    }
    reader.is_done().then_some(Permission { threshold, keys, actor: 0 })
}

fn check_limits(message: &pbtx::Permission) -> Result<()> {
    if message.keys.len() > KEYS_MAX {
        return Err(Error::expected(
            Code::Limit,
            "keys of a permission",
            format!("at most {KEYS_MAX}"),
            message.keys.len(),
        ));
    }
    for key in message.keys.iter().filter_map(|k| k.key.as_ref()) {
        if key.key_bytes.len() > KEY_BYTES_MAX {
            let expected = format!("at most {KEY_BYTES_MAX}");
            return Err(Error::expected(Code::Limit, "bytes of a key", expected, key.key_bytes.len()));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "permission_tests.rs"]
mod tests;
