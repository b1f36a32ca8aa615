use super::*;
use crate::keys::{Curve, SecretKey};

/// The published 2-of-3 permission of actor 3.
const PUBLISHED: &str = "09030000000000000010021a280a2412220003a1a62f15551e5a4989abec133b404caa6a40d783b8f47e26be95f4dc48ecfc0d10011a280a24122201020b849e7b995aec840911fc25a7769c54a4e8d9e5adfd37bf0c81c79c037ab89610011a280a241222010271e79e42adaee0001bbafbd2366d84b1972fff3bbe9082bfe3ccd7517e5b87811001";

fn key(n: u8) -> PublicKey {
    SecretKey::from_seed(Curve::Ed25519, [n; 32]).unwrap().public()
}

fn permission(threshold: u32, keys: &[(u8, u32)]) -> Permission {
    Permission { threshold, keys: keys.iter().map(|(n, weight)| (key(*n), *weight)).collect(), actor: 0 }
}

fn code_of(bytes: &[u8]) -> Code {
    Permission::decode(bytes).unwrap_err().code
}

/// The message of `permission`, changed.
fn changed(change: impl FnOnce(&mut pbtx::Permission)) -> Vec<u8> {
    let mut message = pbtx::Permission::decode(permission(2, &[(1, 1), (2, 1)]).encode()).unwrap();
    change(&mut message);
    message.encode_to_vec()
}

#[test]
fn the_published_permission_decodes_and_encodes() {
    let bytes = hex::decode(PUBLISHED).unwrap();
    let permission = Permission::decode_actor(&bytes).unwrap();
    assert_eq!((permission.actor, permission.threshold), (3, 2));
    let curves: Vec<_> = permission.keys.iter().map(|(key, weight)| (key.curve(), *weight)).collect();
    assert_eq!(curves, [(Curve::K1, 1), (Curve::R1, 1), (Curve::R1, 1)]);
    assert_eq!(permission.encode(), bytes);
    assert_eq!(Permission::decode_account(&bytes).unwrap_err().code, Code::BadPermission);
}

#[test]
fn who_may_name_an_actor() {
    let account = Permission::single(key(1));
    assert_eq!(Permission::decode_account(&account.encode()).unwrap(), account);
    assert_eq!(Permission::decode_actor(&account.encode()).unwrap_err().code, Code::BadPermission);
    for (actor, ok) in [(1, true), (ID_MAX, true), (ID_MAX + 1, false), (u64::MAX, false)] {
        let bytes = Permission { actor, ..account.clone() }.encode();
        let result = Permission::decode_actor(&bytes);
        assert_eq!(result.is_ok(), ok);
        if let Err(error) = result {
            assert_eq!(error.code, Code::Int63);
        }
    }
}

#[test]
fn every_rule_has_its_code() {
    assert_eq!(code_of(&[0xff]), Code::Decode);
    assert_eq!(code_of(&[]), Code::BadPermission);
    let cases: [(Code, Vec<u8>); 12] = [
        (Code::Limit, changed(|p| p.keys = vec![p.keys[0].clone(); 17])),
        (Code::Limit, changed(|p| p.keys[1].key.as_mut().unwrap().key_bytes = vec![0; 98].into())),
        (Code::KeyType, changed(|p| p.keys[1].key.as_mut().unwrap().r#type = 1)),
        (Code::BadPermission, changed(|p| p.keys[1].key.as_mut().unwrap().key_bytes = vec![0; 33].into())),
        (Code::BadPermission, changed(|p| p.keys[1].key = None)),
        (Code::BadPermission, changed(|p| p.threshold = 0)),
        (Code::BadPermission, changed(|p| p.threshold = 3)),
        (Code::BadPermission, changed(|p| p.keys[0].weight = 0)),
        (Code::BadPermission, changed(|p| p.keys[1] = p.keys[0].clone())),
        (Code::BadPermission, changed(|p| p.keys.clear())),
        (Code::NonCanonical, [changed(|_| ()), vec![0x48, 1]].concat()),
        (Code::NonCanonical, [vec![0x10, 1], changed(|_| ())].concat()),
    ];
    for (i, (code, bytes)) in cases.iter().enumerate() {
        assert_eq!(code_of(bytes), *code, "case {i}");
    }
}

#[test]
fn weights_are_summed_without_wrapping() {
    // In 32 bits these weights sum to 1.
    let wrapping = permission(u32::MAX, &[(1, u32::MAX), (2, 2)]);
    assert_eq!(Permission::decode(&wrapping.encode()).unwrap(), wrapping);
    let short = permission(3, &[(1, 1), (2, 1)]);
    assert_eq!(short.check().unwrap_err().code, Code::BadPermission);
}

#[test]
fn an_address_binds_network_and_permission_but_not_the_actor() {
    let first = permission(1, &[(1, 1), (2, 1)]);
    let network_id = 0x0102_0304_0506_0708;
    let expected =
        Sha256::digest([&b"florin-account-v1\x01\x02\x03\x04\x05\x06\x07\x08"[..], &first.encode()].concat());
    assert_eq!(first.address(network_id).as_bytes()[..], expected[..]);
    assert_ne!(first.address(network_id), first.address(network_id + 1));
    assert_ne!(first.address(network_id), permission(2, &[(1, 1), (2, 1)]).address(network_id));
    let named = Permission { actor: first.address(network_id).actor(), ..first.clone() };
    assert_eq!(named.address(network_id), first.address(network_id));
}

proptest::proptest! {
    #[test]
    fn a_kept_permission_is_read_as_the_generated_code_would(
        threshold in 0..3u32,
        weights in proptest::collection::vec(0..300u32, 0..4),
        at in proptest::arbitrary::any::<proptest::sample::Index>(),
        byte in proptest::option::of(proptest::arbitrary::any::<u8>()),
    ) {
        let keys: Vec<(u8, u32)> = weights.iter().zip(1..).map(|(weight, n)| (n, *weight)).collect();
        let mut bytes = permission(threshold, &keys).encode().to_vec();
        if let (Some(byte), false) = (byte, bytes.is_empty()) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(read) = read_kept(&bytes) {
            let message = pbtx::Permission::decode(&bytes[..]).unwrap();
            let keys = message.keys.iter().map(|k| (&k.key.as_ref().unwrap().key_bytes[..], k.weight));
            let read_keys = read.keys.iter().map(|(key, weight)| (key.as_bytes(), *weight));
            proptest::prop_assert!(keys.eq(read_keys));
            proptest::prop_assert_eq!((message.threshold, message.actor), (read.threshold, read.actor));
        }
    }
}

#[test]
fn what_is_kept_is_read_by_hand_if_it_is_canonical_and_by_the_general_decoder_if_not() {
    let good = permission(2, &[(1, 1), (2, 1)]);
    assert_eq!(read_kept(&good.encode()), Some(good.clone()));
    // A field that nobody knows: in a key, beside it, and at the end; a weight of 0; 17 keys.
    let field = |of: &[u8]| [of, &[0x78, 1]].concat();
    let key = field(&pbtx::PublicKey { r#type: 0, key_bytes: key(1).as_bytes().to_vec().into() }.encode_to_vec());
    let weighted = |key: &[u8], rest: &[u8]| {
        let inner = [&[0x0a, key.len() as u8][..], key, &[0x10, 1], rest].concat();
        [&[0x10, 1, 0x1a, inner.len() as u8][..], &inner].concat()
    };
    let plain = &key[..key.len() - 2];
    assert!(read_kept(&weighted(plain, &[])).is_some());
    for (what, bytes) in [
        ("in the key", weighted(&key, &[])),
        ("beside the key", weighted(plain, &[0x78, 1])),
        ("at the end", field(&weighted(plain, &[]))),
    ] {
        assert_eq!(read_kept(&bytes), None, "{what}");
        assert_eq!(Permission::decode_kept(&bytes.into()).unwrap(), permission(1, &[(1, 1)]), "{what}");
    }
    let many: Vec<(u8, u32)> = (1..=16).map(|n| (n, 1)).collect();
    let most = permission(1, &many);
    assert_eq!(read_kept(&most.encode()), Some(most.clone()));
    let more = permission(1, &[&many[..], &[(17, 1)]].concat());
    assert_eq!(read_kept(&more.encode()), None);
    assert_eq!(Permission::decode_kept(&Bytes::from_static(&[0xff])).unwrap_err().code, Code::StorageCorrupt);
}
