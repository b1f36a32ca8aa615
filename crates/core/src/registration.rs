//! An actor that registers itself proves that it holds one of the keys of its permission (PBTX's `RegisterAccount`).
//!
//! What is signed is the encoded permission, as a body would be. No permission reads as a body: its second field, the
//! threshold, is a varint where a body has eight bytes.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::envelope::{Authority, Order};
use crate::error::Result;
use crate::keys::{SecretKey, Signature};
use crate::permission::Permission;
use crate::signatures::check_authority;

/// The permission, if one of its keys has signed it. Errors: those of [`Permission::decode_actor`], `SIG_FORMAT`,
/// `SIG_NOT_CANONICAL`, `KEY_MISMATCH`.
pub fn check_registration(permission: &[u8], signature: &[u8]) -> Result<Permission> {
    let decoded = Permission::decode_actor(permission)?;
    let order = Order {
        raw: Bytes::new(),
        body: Bytes::new(),
        id: Sha256::digest(permission).into(),
        network_id: 0,
        actor: decoded.actor,
        cosignors: Vec::new(),
        seqnum: 0,
        prev_hash: 0,
        transaction_type: 0,
        content: Bytes::new(),
        authorities: vec![Authority { key_type: 0, sigs: vec![Bytes::copy_from_slice(signature)] }],
    };
    let any_one = Permission { threshold: 1, ..decoded.clone() };
    check_authority(&order, 0, &any_one, decoded.actor)?.verify()?;
    Ok(decoded)
}

/// What a key of the permission signs to register it.
pub fn sign_registration(permission: &[u8], key: &SecretKey) -> Signature {
    key.sign_body(permission)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::keys::Curve;

    #[test]
    fn any_key_of_the_permission_registers_it_and_no_other() {
        for curve in [Curve::K1, Curve::R1, Curve::Ed25519] {
            let keys: Vec<SecretKey> = (1..=3).map(|n| SecretKey::from_seed(curve, [n; 32]).unwrap()).collect();
            let permission =
                Permission { threshold: 5, keys: keys[..2].iter().map(|k| (k.public(), 3)).collect(), actor: 77 };
            let bytes = permission.encode();
            for key in &keys[..2] {
                let signature = sign_registration(&bytes, key);
                assert_eq!(check_registration(&bytes, signature.as_bytes()).unwrap(), permission);
            }
            let foreign = sign_registration(&bytes, &keys[2]);
            assert_eq!(check_registration(&bytes, foreign.as_bytes()).unwrap_err().code, Code::KeyMismatch);
            assert_eq!(check_registration(&bytes, b"short").unwrap_err().code, Code::SigFormat);
            assert!(Order::decode_body(bytes).is_err(), "a permission is no body");
        }
    }
}
