//! Whether the keys of an account have signed an order: by the bytes of both, and another library than the core's.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use ed25519_zebra::{Signature, VerificationKey};
use florin_core::pbtx;
use prost::Message as _;

use super::NodeId;
use super::orders::Id;

/// Of an ed25519 key or signature: its first bytes.
const ED25519: [u8; 2] = [0x10, 0];
/// Before the id of an order in what an ed25519 key signs.
const TAG: &[u8] = b"PBTX-TX-v1";

/// The first byte of what stands for the signature of who has signed the root.
const MARK: u8 = 0x22;

/// What was asked before: many authorities are shown the same.
#[derive(Default)]
pub(super) struct Signatures {
    known: HashMap<(Bytes, Bytes), bool>,
    /// Who has given a vote for which order.
    pub(super) voted: BTreeSet<(NodeId, Id)>,
    /// Roots that senders have signed, and for which order each did.
    pub(super) roots: BTreeSet<(Id, Id)>,
}

impl Signatures {
    /// Whether there is a mark in place of a signature, and the order's sender has signed this root for it.
    pub(super) fn is_signed_by_root(&self, envelope: &Bytes, root: &Id, id: &Id) -> bool {
        let transaction = pbtx::Transaction::decode(envelope.clone()).ok();
        let mark = transaction.as_ref().and_then(|t| t.authorities.first()?.sigs.first()?.first());
        mark == Some(&MARK) && self.roots.contains(&(*root, *id))
    }

    /// Whether keys of a permission have signed an order of one account, and weigh enough. What wallets here sign alone, they sign
    /// with ed25519 keys.
    pub(super) fn is_signed(&mut self, envelope: &Bytes, id: &Id, permission: &Bytes) -> bool {
        let asked = (envelope.clone(), permission.clone());
        *self.known.entry(asked).or_insert_with(|| is_signed(envelope, id, permission).unwrap_or(false))
    }
}

fn is_signed(envelope: &Bytes, id: &Id, permission: &Bytes) -> Option<bool> {
    let transaction = pbtx::Transaction::decode(envelope.clone()).ok()?;
    let permission = pbtx::Permission::decode(permission.clone()).ok()?;
    let message = [TAG, id].concat();
    let signatures = &transaction.authorities.first()?.sigs;
    let signed = |key: &pbtx::KeyWeight| {
        let key = key.key.as_ref()?.key_bytes.strip_prefix(&ED25519)?;
        let key = VerificationKey::try_from(key).ok()?;
        let of = |sig: &Bytes| Some(Signature::from(<[u8; 64]>::try_from(sig.strip_prefix(&ED25519)?).ok()?));
        Some(signatures.iter().filter_map(of).any(|sig| key.verify(&sig, &message).is_ok()))
    };
    let weight: u64 = permission.keys.iter().filter(|k| signed(k) == Some(true)).map(|k| u64::from(k.weight)).sum();
    Some(weight >= u64::from(permission.threshold))
}
