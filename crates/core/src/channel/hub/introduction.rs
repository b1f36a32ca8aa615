//! How the two sides of a connection prove who they are.
//!
//! Each signs, with the channel's keys, which side it is, whether it has connected or was connected to, the fresh nonces of both, and
//! the TLS key of the one that was connected to. Whoever stands between the two shows a TLS key of its own to the one that connects,
//! so what that one signs is of no use towards the other, and the other's signature names a key that the first one does not see. All
//! that follows goes over that TLS connection alone. A signature of another connection has other nonces, one of the other side
//! another side, and no signature of a voucher, permit or order begins with this tag.

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest, Sha256};

use crate::address::Address;
use crate::error::{Code, Error, Result};
use crate::keys::SecretKey;
use crate::limits::SIGS_PER_AUTHORITY_MAX;
use crate::merkle::Hash;
use crate::permission::Permission;
use crate::signatures;
use crate::wire::HubIntroduction;

const TAG: &[u8] = b"florin-hub-link-v1";

/// A connection, as both ends of it see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meeting {
    /// The channel.
    pub channel: Hash,
    /// The side that has connected; the other was connected to.
    pub client_side: u32,
    /// The TLS key of the one that was connected to.
    pub server_key: [u8; 32],
    /// Fresh, of the one that has connected.
    pub client_nonce: Hash,
    /// Fresh, of the other.
    pub server_nonce: Hash,
}

impl Meeting {
    /// What one of the two signs.
    pub fn introduction(&self, connects: bool) -> HubIntroduction {
        HubIntroduction {
            channel: Bytes::copy_from_slice(&self.channel),
            side: if connects { self.client_side } else { 1 - self.client_side },
            connects,
            server_key: Bytes::copy_from_slice(&self.server_key),
            client_nonce: Bytes::copy_from_slice(&self.client_nonce),
            server_nonce: Bytes::copy_from_slice(&self.server_nonce),
        }
    }
}

/// Signs.
pub fn sign(introduction: &HubIntroduction, keys: &[&SecretKey]) -> Vec<Bytes> {
    let digest = digest(introduction);
    keys.iter().map(|key| Bytes::copy_from_slice(key.sign_body_hash(&digest).as_bytes())).collect()
}

/// Verifies what a side has signed, by its keys in the channel. Errors: `LIMIT`, those of [`signatures::check_signed`].
pub fn verify(
    introduction: &HubIntroduction,
    signatures: &[Bytes],
    permission: &Permission,
    address: &Address,
) -> Result<()> {
    if signatures.len() > SIGS_PER_AUTHORITY_MAX {
        let expected = format!("at most {SIGS_PER_AUTHORITY_MAX}");
        return Err(Error::expected(Code::Limit, "signatures", expected, signatures.len()));
    }
    signatures::check_signed(&digest(introduction), signatures, permission, address.actor())?.verify()
}

fn digest(introduction: &HubIntroduction) -> Hash {
    Sha256::new().chain_update(TAG).chain_update(introduction.encode_to_vec()).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Curve;
    use crate::testing::{NETWORK_ID, secret};

    fn meeting() -> Meeting {
        let [channel, server_key, client_nonce, server_nonce] = [1, 2, 3, 4].map(|byte| [byte; 32]);
        Meeting { channel, client_side: 1, server_key, client_nonce, server_nonce }
    }

    #[test]
    fn what_is_signed_stays_as_it_is() {
        let digests = [true, false].map(|connects| hex::encode(digest(&meeting().introduction(connects))));
        let expected = [
            "79e1aed06c0d3c97bf42f8c84a1ae83ec900a0f1a866108431b3bc209bc6c0de",
            "3869da6b9f119c1deb76c34d01489f219f7730c544ed8bef6a947e7ce11d1c70",
        ];
        assert_eq!(digests, expected);
    }

    #[test]
    fn a_proof_is_good_for_one_side_of_one_connection_alone() {
        let key = secret(Curve::Ed25519, 1);
        let permission = Permission::single(key.public());
        let address = permission.address(NETWORK_ID);
        let good = meeting();
        let signed = sign(&good.introduction(true), &[&key]);
        let check = |introduction: &HubIntroduction, signatures: &[Bytes]| {
            verify(introduction, signatures, &permission, &address).map_err(|e| e.code)
        };
        assert_eq!(check(&good.introduction(true), &signed), Ok(()));
        let others = [
            // Played back to the one that has signed it.
            good.introduction(false),
            Meeting { client_side: 0, ..good }.introduction(true),
            Meeting { client_side: 0, ..good }.introduction(false),
            Meeting { channel: [9; 32], ..good }.introduction(true),
            // Somebody in between, with a TLS key of its own.
            Meeting { server_key: [9; 32], ..good }.introduction(true),
            // An earlier connection.
            Meeting { client_nonce: [9; 32], ..good }.introduction(true),
            Meeting { server_nonce: [9; 32], ..good }.introduction(true),
        ];
        for other in others {
            assert_eq!(check(&other, &signed), Err(Code::KeyMismatch), "{other:?}");
        }
        // Another key, none, too many, and a signature of the same bytes for something else.
        let stranger = sign(&good.introduction(true), &[&secret(Curve::Ed25519, 2)]);
        assert_eq!(check(&good.introduction(true), &stranger), Err(Code::KeyMismatch));
        assert_eq!(check(&good.introduction(true), &[]), Err(Code::InsufficientWeight));
        let many = vec![signed[0].clone(); SIGS_PER_AUTHORITY_MAX + 1];
        assert_eq!(check(&good.introduction(true), &many), Err(Code::Limit));
        assert_ne!(check(&good.introduction(true), &many[1..]), Err(Code::Limit));
        let plain: Hash = Sha256::digest(good.introduction(true).encode_to_vec()).into();
        let plain = Bytes::copy_from_slice(key.sign_body_hash(&plain).as_bytes());
        assert_eq!(check(&good.introduction(true), &[plain]), Err(Code::KeyMismatch));
        assert_eq!(check(&good.introduction(true), &[Bytes::from_static(b"junk")]), Err(Code::SigFormat));
    }
}
