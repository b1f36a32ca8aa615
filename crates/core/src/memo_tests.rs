use super::*;
use crate::cash::batch::verify_notes;
use crate::cash::blind::Nonce;
use crate::cash::testing::deal;
use crate::keys::{Curve, SecretKey};
use crate::signatures::{AuthorityKey, AuthorityPublicKey, verify_all};

type Signed = (AuthorityPublicKey, Vec<u8>, [u8; 64]);

fn signed(seed: u8, message: &[u8]) -> Signed {
    let key = AuthorityKey::from_seed([seed; 32]);
    (key.public(), message.to_vec(), key.sign(message))
}

/// It and everything that differs from it in one bit of a byte.
fn all_near(good: &Signed) -> Vec<Signed> {
    let flip = |bytes: &mut [u8], i: usize| bytes[i] ^= 1;
    let mut all = vec![good.clone()];
    for i in 0..32 {
        let mut near = good.clone();
        flip(&mut near.0.0, i);
        all.push(near);
    }
    for i in 0..good.1.len() {
        let mut near = good.clone();
        flip(&mut near.1, i);
        all.push(near);
    }
    for i in 0..64 {
        let mut near = good.clone();
        flip(&mut near.2, i);
        all.push(near);
    }
    all
}

#[test]
fn verdicts_are_those_without_memory_however_asked() {
    let all = all_near(&signed(1, b"florin-test-message"));
    let alone = |all: &[Signed]| all.iter().map(|(key, m, sig)| key.verifies(m, sig)).collect::<Vec<_>>();
    let expected = alone(&all);
    assert_eq!(expected.iter().filter(|is_true| **is_true).count(), 1, "the first and no other");
    let _on = remember();
    for _ in 0..2 {
        assert_eq!(alone(&all), expected);
        // Among others, some of them known and some not.
        for (i, one) in all.iter().enumerate() {
            let other = signed(2, &[i as u8]);
            let batch = [other.clone(), one.clone(), other];
            assert_eq!(verify_all(&batch, &KnownKeys::default()), if expected[i] { Ok(()) } else { Err(1) });
        }
    }
}

#[test]
fn who_signs_gets_no_verdict_for_it() {
    let _on = remember();
    let (key, message, sig) = signed(1, b"message");
    let question = [&key.0[..], &sig, &message].concat();
    assert_eq!(recall(|m| &mut m.ed25519, &question), None);
    assert!(key.verifies(&message, &sig));
    assert_eq!(recall(|m| &mut m.ed25519, &question), Some(true));
    assert_eq!(AuthorityKey::from_seed([1; 32]).sign(&message), sig, "and the same signature again");
}

#[test]
fn ecdsa_signers_and_keys_are_those_without_memory() {
    for curve in [Curve::K1, Curve::R1, Curve::Ed25519] {
        let secret = SecretKey::from_seed(curve, [7; 32]).unwrap();
        let (mut hash, mut key) = ([3; 32], secret.public().as_bytes().to_vec());
        let signature = secret.sign_body_hash(&hash);
        let ask = |hash: &[u8; 32], key: &[u8]| (signature.recover(hash), PublicKey::parse(key).is_ok());
        let right = ask(&hash, &key);
        hash[0] ^= 1;
        key[1] ^= 0x40;
        let wrong = ask(&hash, &key);
        let _on = remember();
        for _ in 0..2 {
            assert_eq!((ask(&[3; 32], secret.public().as_bytes()), ask(&hash, &key)), (right, wrong));
            assert_eq!(secret.sign_body_hash(&[3; 32]), signature);
            assert_ne!(secret.sign_body_hash(&hash), signature);
        }
    }
}

#[test]
fn notes_are_those_without_memory() {
    let (keys, shares) = deal(1, 4, "memo");
    let note = |n: u8| {
        let nonce = Nonce([n; 32]);
        let factor = crate::cash::blind::BlindingFactor::new(crate::cash::testing::scalar("factor")).unwrap();
        let request = crate::cash::combine::Request {
            keys: &keys,
            blinded: nonce.blind(&factor),
            shares: vec![(1, shares[0].sign(&nonce.blind(&factor)))],
        };
        let combined = crate::cash::combine::combine_all(&[request]).unwrap().remove(0);
        (*keys.key(), nonce, factor.unblind(&combined.signature.unwrap()))
    };
    let mut notes: Vec<_> = (0..4).map(note).collect();
    notes[2].2 = notes[1].2;
    let expected = [true, true, false, true];
    assert_eq!(verify_notes(&notes), expected);
    let _on = remember();
    for part in [0..2, 1..3, 0..4, 0..4] {
        assert_eq!(verify_notes(&notes[part.clone()]), expected[part.clone()]);
        let alone: Vec<bool> = notes[part.clone()].iter().map(|(key, nonce, s)| key.verifies(nonce, s)).collect();
        assert_eq!(alone, expected[part]);
    }
    let not_a_point = [0x80; 48];
    for _ in 0..2 {
        assert!(G1::from_bytes(&not_a_point).is_err());
        assert_eq!(G1::from_bytes(&notes[0].2.to_bytes()).unwrap(), *notes[0].2.point());
    }
    assert!(notes.iter().all(|(_, nonce, _)| nonce.hash() == Nonce::hash_all([nonce])[0]));
}

#[test]
fn it_is_bounded_and_ends() {
    let questions = |table: &Table<bool>| table.0.iter().map(HashMap::len).sum::<usize>();
    let on = remember();
    for n in 0..3 * GENERATION as u64 {
        of(|m| &mut m.keys, &[&n.to_be_bytes()], || true);
    }
    assert_eq!(MEMORY.with_borrow(|m| questions(&m.keys)), 2 * GENERATION);
    let newest = 3 * GENERATION as u64 - 1;
    assert!(of(|m| &mut m.keys, &[&newest.to_be_bytes()], || unreachable!("it is remembered")));
    std::thread::spawn(|| assert!(!is_on(), "nor in another thread")).join().unwrap();
    drop(on);
    assert!(!is_on());
    assert!(!of(|m| &mut m.keys, &[&newest.to_be_bytes()], || false), "all is forgotten, and nothing is kept");
    assert_eq!(MEMORY.with_borrow(|m| questions(&m.keys)), 0);
}

#[test]
fn what_is_remembered_is_counted_as_if_it_were_computed() {
    use crate::signatures::Batch;
    let mut signer = crate::testing::Signer::new(1);
    let order = crate::envelope::Order::decode(signer.pay(&[crate::testing::to(signer.address, 1)], "")).unwrap();
    let count = || {
        let mut batch = Batch::new();
        (0..3).for_each(|tag| batch.push(tag, &order, 0, &signer.permission));
        batch.verify().verifications
    };
    let expected = count();
    let _on = remember();
    assert_eq!([count(), count()], [expected; 2]);
}
