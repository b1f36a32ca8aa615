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
