//! The same words give the same notes, and nothing else gives them.

use std::collections::BTreeSet;

use super::*;
use crate::signatures::AuthorityPublicKey;

#[test]
fn secrets_follow_from_seed_network_and_counter() {
    let mut nonces = BTreeSet::new();
    let mut blinded = BTreeSet::new();
    for secret in [[1; 32], [2; 32]] {
        for network in [1, 2, 1 << 32] {
            for counter in [0, 1, 2, 1 << 32, u64::MAX] {
                let note = CashSeed::new(&secret, network).note(counter);
                let again = CashSeed::new(&secret, network).note(counter);
                assert_eq!((note.nonce(), note.blinded()), (again.nonce(), again.blinded()));
                nonces.insert(note.nonce());
                blinded.insert(note.blinded().to_bytes());
            }
        }
    }
    assert_eq!((nonces.len(), blinded.len()), (30, 30));
}

#[test]
fn the_nonce_is_the_key_that_spends() {
    let note = CashSeed::new(&[1; 32], 1).note(0);
    let signature = note.sign(b"florin-test-v1 spend");
    assert!(AuthorityPublicKey(note.nonce().0).verifies(b"florin-test-v1 spend", &signature));
    assert!(!AuthorityPublicKey(note.nonce().0).verifies(b"florin-test-v1 other", &signature));
}

#[test]
fn keys_that_are_handed_over_are_those_that_spend() {
    let seed = CashSeed::new(&[1; 32], 1);
    let note = seed.note(7);
    let handed = ed25519_zebra::SigningKey::from(*note.secret());
    assert_eq!(VerificationKeyBytes::from(&handed).as_ref(), note.nonce().0);
    // One-time keys are of another kind than notes with the same number.
    let keys: BTreeSet<[u8; 32]> = (0..8).flat_map(|i| [*seed.receiver(i), *seed.note(i).secret()]).collect();
    assert_eq!(keys.len(), 16);
}
