//! Keys, permissions and points: one encoding each.

use florin_core::cash::blind::{BlindSignature, BlindedNonce, NoteSignature, PublicShare, SignatureShare, TierKey};
use florin_core::cash::curve::Scalar;
use florin_core::cash::dkg::wire::{CeremonyRecord, DkgItem, canonical};
use florin_core::cash::dkg::{KeyShares, PublicKeys};
use florin_core::cash::mint_keys::MintKeys;
use florin_core::eosio::{self, Kind, PrivateKey};
use florin_core::keys::{Curve, PublicKey, Signature};
use florin_core::permission::Permission;
use florin_core::registration::check_registration;
use florin_core::signatures::AuthorityPublicKey;
use florin_core::testing::{NETWORK_ID, secret};
use florin_core::{Code, pbtx};
use prost::Message;

use crate::cursor::Cursor;

/// Permissions: what decodes keeps the rules, and has just these bytes.
pub fn permission(bytes: &[u8]) {
    let decoded = Permission::decode(bytes);
    let Ok(permission) = decoded else {
        let code = decoded.expect_err("it is none").code;
        let readable = pbtx::Permission::decode(bytes);
        assert_eq!(code == Code::Decode, readable.is_err(), "{code:?}");
        return;
    };
    assert_eq!(permission.encode(), bytes);
    assert!(permission.check().is_ok() && (1..=16).contains(&permission.keys.len()));
    let weights: u64 = permission.keys.iter().map(|(_, weight)| u64::from(*weight)).sum();
    assert!(u64::from(permission.threshold) <= weights);
    assert_eq!(Permission::decode_account(bytes).is_ok(), permission.actor == 0);
    assert_eq!(Permission::decode_actor(bytes).is_ok(), permission.actor != 0 && permission.bls_key().is_none());
    if permission.actor == 0 {
        assert_eq!(permission.address(NETWORK_ID), Permission::address_of(NETWORK_ID, bytes));
    }
}

/// Keys and signatures, as bytes and as hex.
pub fn key_bytes(bytes: &[u8]) {
    if let Ok(key) = PublicKey::parse(bytes) {
        assert_eq!(key.as_bytes()[..], *bytes);
        assert_eq!(key.to_string().parse::<PublicKey>().as_ref(), Ok(&key));
        // EOSIO has no text for a BLS key.
        let read = eosio::public_from_text(&eosio::public_to_text(&key));
        assert!(read.is_ok_and(|read| read == key) || key.curve() == Curve::Bls);
    }
    if let Ok(signature) = Signature::parse(bytes) {
        assert_eq!(signature.as_bytes()[..], *bytes);
        let text = eosio::signature_to_text(&signature);
        let read = eosio::signature_from_text(&text);
        assert!(read.is_ok_and(|s| s == signature) || signature.curve() == Curve::Bls);
        let found = signature.recover(&[7; 32]);
        assert!(
            found.is_none_or(|key| key.curve() == signature.curve() && PublicKey::parse(key.as_bytes()) == Ok(key))
        );
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(key) = text.parse::<PublicKey>() {
        assert_eq!(key.to_string().to_lowercase(), text.to_lowercase());
    }
    if let Ok(key) = text.parse::<AuthorityPublicKey>() {
        assert_eq!(key.to_string().to_lowercase(), text.to_lowercase());
    }
}

/// Keys as EOSIO's tools write them.
pub fn eosio_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(key) = eosio::public_from_text(text) {
        assert_eq!(Kind::of(text), Some(Kind::Public));
        let legacy = eosio::public_to_legacy_text(&key);
        assert!(eosio::public_to_text(&key) == text || legacy.as_deref() == Some(text), "a key has one text of a kind");
    }
    if let Ok(key) = PrivateKey::from_text(text) {
        assert!(key.to_text().as_str() == text || key.to_wif().is_some_and(|wif| wif.as_str() == text));
        assert_eq!(key.signer().public(), key.public());
    }
    if let Ok(signature) = eosio::signature_from_text(text) {
        assert_eq!(eosio::signature_to_text(&signature), text);
    }
}

/// Actors that register themselves: only with a key of their permission.
pub fn registration(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let signature = cursor.short();
    let permission = cursor.rest();
    if let Ok(found) = check_registration(permission, signature) {
        assert_eq!(found.encode(), permission);
        let parsed = Signature::parse(signature).expect("it was checked");
        let own = [Curve::K1, Curve::R1, Curve::Ed25519].map(|curve| secret(curve, 5));
        let made = own.iter().any(|key| key.sign_body(permission).as_bytes() == parsed.as_bytes());
        assert!(made, "a signature that the key never made");
    }
}

/// Points and scalars of e-cash: in their groups, and encoded in one way.
pub fn points(bytes: &[u8]) {
    macro_rules! points {
        ($($kind:ident),*) => {$(
            if let Ok(point) = $kind::parse(bytes) {
                assert_eq!(point.to_bytes()[..], *bytes);
                assert!(!point.point().is_identity() && $kind::new(*point.point()).is_ok());
            }
        )*};
    }
    points!(BlindedNonce, SignatureShare, BlindSignature, NoteSignature, TierKey, PublicShare);
    if let Some(Ok(scalar)) = bytes.try_into().ok().map(Scalar::from_bytes) {
        assert_eq!(scalar.to_bytes()[..], *bytes);
        let inverse = scalar.inverse();
        assert_eq!(inverse.is_none(), scalar.is_zero());
        assert!(inverse.is_none_or(|inverse| inverse.mul(&scalar).to_bytes() == Scalar::one().to_bytes()));
    }
}

/// Messages of the key generation, and the keys that it makes.
pub fn dkg_wire(bytes: &[u8]) {
    if let Ok(item) = canonical::<DkgItem>(bytes) {
        assert_eq!(item.encode_to_vec(), bytes);
    }
    if let Ok(record) = canonical::<CeremonyRecord>(bytes) {
        assert_eq!(record.encode_to_vec(), bytes);
    }
    if let Ok(shares) = KeyShares::decode(bytes) {
        assert_eq!(shares.encode()[..], *bytes);
    }
    if let Ok(keys) = PublicKeys::decode(bytes) {
        assert_eq!(keys.encode(), bytes);
        let tiers = keys.tiers.len();
        if let Ok(mint) = MintKeys::new(keys, None) {
            assert_eq!(mint.tiers(), tiers);
        }
    }
}
