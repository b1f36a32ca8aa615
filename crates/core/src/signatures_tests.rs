use proptest::prelude::*;

use super::*;
use crate::envelope::{Authority, Body, encode_body, encode_envelope};
use crate::keys::SecretKey;
use crate::limits::ORDERS_PER_BATCH_MAX;

const ACTOR: u64 = 55;
const COSIGNOR: u64 = 66;

fn secret(curve: Curve, n: u8) -> SecretKey {
    SecretKey::from_seed(curve, [n; 32]).unwrap()
}

fn body(n: u32, cosignors: &[u64]) -> Bytes {
    let cosignors = cosignors.to_vec();
    encode_body(&Body { network_id: 1, actor: ACTOR, cosignors, seqnum: n, ..Body::default() })
}

fn order_with(body: &[u8], authorities: &[Authority]) -> Order {
    Order::decode(encode_envelope(body, authorities)).unwrap()
}

fn permission(threshold: u32, keys: &[(&SecretKey, u32)]) -> Permission {
    let keys = keys.iter().map(|(secret, weight)| (secret.public(), *weight)).collect();
    Permission { threshold, keys, actor: 0 }
}

/// What a batch says of one order without cosignors, and what it cost.
fn check(permission: &Permission, sigs: &[Signature]) -> (std::result::Result<(), Code>, usize) {
    let order = order_with(&body(1, &[]), &[Authority::of(sigs)]);
    let mut batch = Batch::new();
    batch.push(7, &order, 0, permission);
    let outcome = batch.verify();
    let alone = check_authority(&order, 0, permission, ACTOR).and_then(|job| job.verify());
    let [(7, result)] = &outcome.results[..] else { panic!("one tag, one result: {outcome:?}") };
    assert_eq!(&alone, result, "alone as in a batch");
    (result.clone().map_err(|e| e.code), outcome.verifications)
}

fn sign(keys: &[&SecretKey]) -> Vec<Signature> {
    keys.iter().map(|key| key.sign_body(&body(1, &[]))).collect()
}

#[test]
fn each_curve_signs_for_its_account() {
    for curve in [Curve::K1, Curve::R1, Curve::Ed25519] {
        let (key, other) = (secret(curve, 1), secret(curve, 2));
        let permission = Permission::single(key.public());
        assert_eq!(check(&permission, &sign(&[&key])), (Ok(()), 1));
        assert_eq!(check(&permission, &sign(&[&other])), (Err(Code::KeyMismatch), 1));
        assert_eq!(check(&permission, &[key.sign_body(b"another body")]).0, Err(Code::KeyMismatch));
    }
}

#[test]
fn weights_of_distinct_keys_add_up() {
    for curve in [Curve::K1, Curve::R1, Curve::Ed25519] {
        let keys = [1, 2, 3].map(|n| secret(curve, n));
        let [a, b, c] = &keys;
        let stranger = secret(curve, 9);
        let two_of_three = permission(2, &[(a, 1), (b, 1), (c, 1)]);
        assert_eq!(check(&two_of_three, &sign(&[a, b])), (Ok(()), 2));
        assert_eq!(check(&two_of_three, &sign(&[c, a])).0, Ok(()));
        assert_eq!(check(&two_of_three, &sign(&[a, b, c])).0, Ok(()));
        assert_eq!(check(&two_of_three, &sign(&[b])).0, Err(Code::InsufficientWeight));
        assert_eq!(check(&two_of_three, &[]), (Err(Code::InsufficientWeight), 0));
        // One stray signature is fatal, even above the threshold and at the end.
        assert_eq!(check(&two_of_three, &sign(&[a, b, &stranger])).0, Err(Code::KeyMismatch));
        assert_eq!(check(&two_of_three, &sign(&[&stranger, a, b])).0, Err(Code::KeyMismatch));
    }
}

#[test]
fn one_key_repeated_never_passes_a_threshold() {
    for curve in [Curve::K1, Curve::R1, Curve::Ed25519] {
        let (a, b) = (secret(curve, 1), secret(curve, 2));
        let both = permission(2, &[(&a, 1), (&b, 1)]);
        assert_eq!(check(&both, &sign(&[&a, &a])).0, Err(Code::DuplicateSig));
        assert_eq!(check(&both, &sign(&[&a, &b, &a])).0, Err(Code::DuplicateSig));
        let alone = Permission::single(a.public());
        assert_eq!(check(&alone, &sign(&[&a, &a])).0, Err(Code::DuplicateSig));
        assert_eq!(check(&permission(2, &[(&a, 1), (&b, 1)]), &sign(&[&a])).0, Err(Code::InsufficientWeight));
    }
}

#[test]
fn curves_mix_in_one_permission() {
    let (k1, r1, ed25519) = (secret(Curve::K1, 1), secret(Curve::R1, 1), secret(Curve::Ed25519, 1));
    let mixed = permission(3, &[(&k1, 1), (&r1, 1), (&ed25519, 2)]);
    assert_eq!(check(&mixed, &sign(&[&ed25519, &k1])), (Ok(()), 2));
    assert_eq!(check(&mixed, &sign(&[&r1, &ed25519, &k1])), (Ok(()), 3));
    assert_eq!(check(&mixed, &sign(&[&k1, &r1])).0, Err(Code::InsufficientWeight));
    assert_eq!(check(&mixed, &sign(&[&ed25519])).0, Err(Code::InsufficientWeight));
    let any = permission(1, &[(&k1, 1), (&r1, 1), (&ed25519, 1)]);
    for key in [&k1, &r1, &ed25519] {
        assert_eq!(check(&any, &sign(&[key])), (Ok(()), 1));
    }
    // The weights sum to 2^32 + 1: more than u32 holds, and enough.
    let heavy = permission(u32::MAX, &[(&k1, u32::MAX), (&r1, 2)]);
    assert_eq!(check(&heavy, &sign(&[&k1, &r1])).0, Ok(()));
    assert_eq!(check(&heavy, &sign(&[&r1])).0, Err(Code::InsufficientWeight));
}

#[test]
fn a_flipped_recovery_id_is_a_mismatch() {
    for curve in [Curve::K1, Curve::R1] {
        let key = secret(curve, 1);
        let right = sign(&[&key])[0].as_bytes().to_vec();
        for header in (31..=34).filter(|header| *header != right[1]) {
            let mut flipped = right.clone();
            flipped[1] = header;
            let flipped = Signature::parse(&flipped).unwrap();
            assert_eq!(check(&Permission::single(key.public()), &[flipped]).0, Err(Code::KeyMismatch));
        }
    }
}

/// -Q differs from Q in one bit, and so do the points it signs with: its signatures are its own.
#[test]
fn the_mirrored_key_is_another_key() {
    let seed = [7; 32];
    let k1 = k256::SecretKey::from_slice(&seed).unwrap().to_nonzero_scalar();
    let r1 = p256::SecretKey::from_slice(&seed).unwrap().to_nonzero_scalar();
    let mirrored: [(Curve, [u8; 32]); 2] =
        [(Curve::K1, (-*k1).to_bytes().into()), (Curve::R1, (-*r1).to_bytes().into())];
    for (curve, mirrored) in mirrored {
        let (key, mirrored) =
            (SecretKey::from_seed(curve, seed).unwrap(), SecretKey::from_seed(curve, mirrored).unwrap());
        let (q, minus_q) = (key.public(), mirrored.public());
        assert_eq!((&q.as_bytes()[2..], q.as_bytes()[1] ^ 1), (&minus_q.as_bytes()[2..], minus_q.as_bytes()[1]));
        assert_eq!(check(&Permission::single(q), &sign(&[&mirrored])).0, Err(Code::KeyMismatch));
        // Both in one permission: two keys, each with its own signature.
        let both = permission(2, &[(&key, 1), (&mirrored, 1)]);
        assert_eq!(check(&both, &sign(&[&mirrored, &key])), (Ok(()), 2));
        assert_eq!(check(&both, &sign(&[&key, &key])).0, Err(Code::DuplicateSig));
    }
}

#[test]
fn cheap_errors_cost_no_verification() {
    let (key, k1) = (secret(Curve::Ed25519, 1), secret(Curve::K1, 1));
    let permission = permission(1, &[(&key, 1), (&k1, 1)]);
    let body = body(1, &[]);
    let good = Bytes::copy_from_slice(key.sign_body(&body).as_bytes());
    let short = good.slice(..65);
    let mut high_s = k1.sign_body(&body).as_bytes().to_vec();
    high_s[34] = 0x7f;
    high_s[35..].fill(0xff);
    let high_s = Bytes::copy_from_slice(&high_s);
    let r1 = Bytes::copy_from_slice(secret(Curve::R1, 1).sign_body(&body).as_bytes());
    let judge = |key_type, sigs| {
        let mut batch = Batch::new();
        batch.push(0, &order_with(&body, &[Authority { key_type, sigs }]), 0, &permission);
        let outcome = batch.verify();
        (outcome.results[0].1.clone().map_err(|e| e.code), outcome.verifications)
    };
    for (code, key_type, sigs) in [
        (Code::KeyType, 1, vec![good.clone()]),
        (Code::KeyType, -1, vec![short.clone()]),
        (Code::SigFormat, 0, vec![short.clone()]),
        (Code::SigFormat, 0, vec![short.clone(), good.clone()]),
        (Code::SigNotCanonical, 0, vec![high_s.clone(), good.clone()]),
        (Code::KeyMismatch, 0, vec![r1.clone(), good.clone()]),
        (Code::InsufficientWeight, 0, vec![]),
    ] {
        assert_eq!(judge(key_type, sigs), (Err(code), 0), "{code:?}");
    }
    // A later signature is judged when those before it are: those cost what they cost, and their faults come first.
    let stranger = Bytes::copy_from_slice(secret(Curve::K1, 2).sign_body(&body).as_bytes());
    for (code, bad) in [(Code::SigFormat, short), (Code::SigNotCanonical, high_s), (Code::KeyMismatch, r1)] {
        assert_eq!(judge(0, vec![good.clone(), bad.clone()]), (Err(code), 1), "{code:?}");
        assert_eq!(judge(0, vec![stranger.clone(), bad.clone(), good.clone()]), (Err(Code::KeyMismatch), 1));
        let twice = vec![good.clone(), good.clone(), bad];
        assert_eq!(judge(0, twice).0, Err(Code::DuplicateSig));
    }
    let mut batch = Batch::new();
    batch.push(0, &order_with(&body, &[]), 0, &permission);
    assert_eq!(batch.verify().results[0].1.as_ref().unwrap_err().code, Code::AuthorityCount);
}

#[test]
fn cosignors_sign_too() {
    let (actor, cosignor) = (secret(Curve::Ed25519, 1), secret(Curve::K1, 2));
    let (p1, p2) = (Permission::single(actor.public()), Permission::single(cosignor.public()));
    let body = body(1, &[COSIGNOR]);
    let outcome = |first: &SecretKey, second: &SecretKey| {
        let authorities = [first, second].map(|key| Authority::of(&[key.sign_body(&body)]));
        let order = order_with(&body, &authorities);
        let mut batch = Batch::new();
        batch.push(0, &order, 0, &p1);
        batch.push(0, &order, 1, &p2);
        batch.verify()
    };
    let good = outcome(&actor, &cosignor);
    assert_eq!((good.results, good.verifications), (vec![(0, Ok(()))], 2));
    let bad = outcome(&actor, &secret(Curve::K1, 3));
    let error = bad.results[0].1.as_ref().unwrap_err();
    assert_eq!(error.code, Code::KeyMismatch);
    assert!(error.message.contains("actor #66"), "{error}");
    // The actor's fault comes first, and the cosignor's curve work is saved.
    let bad = outcome(&secret(Curve::Ed25519, 9), &secret(Curve::K1, 3));
    assert!(bad.results[0].1.as_ref().unwrap_err().message.contains("actor #55"));
    assert_eq!(bad.verifications, 1);
    // What fails cheaply costs nothing, whichever authority it is.
    let swapped = outcome(&cosignor, &actor);
    assert_eq!(swapped.verifications, 0);
    assert_eq!(swapped.results[0].1.as_ref().unwrap_err().code, Code::KeyMismatch);
}

/// Nobody can make one request hold up a shard by signatures that need many tries.
#[test]
fn orders_of_several_keys_share_a_budget() {
    let keys: Vec<SecretKey> = (1..=16).map(|n| secret(Curve::Ed25519, n)).collect();
    let all = permission(16, &keys.iter().map(|key| (key, 1)).collect::<Vec<_>>());
    let reversed: Vec<&SecretKey> = keys.iter().rev().collect();
    // 16 + 15 + ... + 1 tries; in the order of the keys, 16.
    assert_eq!(check(&all, &sign(&reversed)), (Ok(()), 136));
    assert_eq!(check(&all, &sign(&keys.iter().collect::<Vec<_>>())), (Ok(()), 16));

    let worst = order_with(&body(1, &[]), &[Authority::of(&sign(&reversed))]);
    let single = order_with(&body(1, &[]), &[Authority::of(&sign(&[&keys[0]]))]);
    let two_curves = permission(1, &[(&secret(Curve::K1, 1), 1), (&keys[0], 1)]);
    let batch = |worsts: usize| {
        let mut batch = Batch::new();
        (0..worsts).for_each(|tag| batch.push(tag, &worst, 0, &all));
        // One ed25519 key that is enough alone costs nothing of it, wherever it stands.
        batch.push(worsts, &single, 0, &two_curves);
        batch
    };
    let codes = |outcome: &Outcome| -> Vec<_> {
        outcome.results.iter().map(|(_, result)| result.as_ref().copied().map_err(|e| e.code)).collect()
    };
    let mut budget = 2 * 136 + 1;
    let outcome = batch(5).verify_within(&mut budget, &KnownKeys::default());
    let busy = Err(Code::Busy);
    assert_eq!(codes(&outcome), [Ok(()), Ok(()), Ok(()), busy, busy, Ok(())]);
    assert_eq!((outcome.verifications, budget), (3 * 136 + 1, 0));
    let outcome = batch(1).verify_within(&mut budget, &KnownKeys::default());
    assert_eq!((codes(&outcome), outcome.verifications), (vec![busy, Ok(())], 1));

    let fit = VERIFICATIONS_PER_BATCH.div_ceil(136);
    // Far over it: all that a batch holds.
    for more in [1, ORDERS_PER_BATCH_MAX - fit - 1] {
        let outcome = batch(fit + more).verify();
        assert_eq!(codes(&outcome).iter().filter(|code| **code == busy).count(), more);
        assert_eq!(outcome.verifications, fit * 136 + 1);
    }
}

/// At the limit, one over and far over it; a proof of possession costs what a signature does.
#[test]
fn bls_signatures_and_proofs_cost_more_of_the_budget() {
    let key = secret(Curve::Bls, 1);
    let point = key.public().bls().unwrap();
    let permission = Permission::single(key.public());
    let body = body(1, &[]);
    let mut order = order_with(&body, &[Authority::of(&[key.sign_body(&body)])]);
    assert_eq!(check(&permission, &[key.sign_body(&body)]), (Ok(()), BLS_VERIFICATION_COST));
    let proof = key.bls().unwrap().prove(order.network_id, order.actor);
    order.authorities[0].sigs.push([&[POSSESSION_BYTE], &proof[..]].concat().into());
    for (budget, expected) in
        [(0, Err(Code::Busy)), (BLS_VERIFICATION_COST, Err(Code::Busy)), (2 * BLS_VERIFICATION_COST, Ok(()))]
    {
        let mut batch = Batch::new();
        batch.push_setting(0, &order, &permission, &[point]);
        let outcome = batch.verify_within(&mut { budget }, &KnownKeys::default());
        assert_eq!(outcome.results[0].1.as_ref().map_err(|e| e.code).copied(), expected, "of {budget}");
    }
    // All that a batch holds, of a budget for three: the memory of verdicts makes it quick.
    let _remembering = crate::memo::remember();
    let mut batch = Batch::new();
    order.authorities[0].sigs.pop();
    (0..ORDERS_PER_BATCH_MAX).for_each(|tag| batch.push(tag, &order, 0, &permission));
    let outcome = batch.verify();
    let fit = VERIFICATIONS_PER_BATCH / BLS_VERIFICATION_COST;
    assert_eq!(outcome.results.iter().filter(|(_, result)| result.is_ok()).count(), fit);
    assert_eq!(outcome.verifications, fit * BLS_VERIFICATION_COST);
}

#[test]
fn proofs_of_possession_come_after_the_signatures_one_for_each_key() {
    let (key, other) = (secret(Curve::Bls, 1), secret(Curve::Bls, 2));
    let ed = secret(Curve::Ed25519, 1);
    let permission = permission(1, &[(&ed, 1), (&key, 1)]);
    let body = body(1, &[]);
    let plain = order_with(&body, &[Authority::of(&[ed.sign_body(&body)])]);
    let sig = plain.authorities[0].sigs[0].clone();
    let prove = |key: &SecretKey| -> Bytes {
        let proof = key.bls().unwrap().prove(plain.network_id, plain.actor);
        [&[POSSESSION_BYTE], &proof[..]].concat().into()
    };
    let (one, two) = (prove(&key), prove(&other));
    let point = |key: &SecretKey| key.public().bls().unwrap();
    let judge = |sigs: &[&Bytes], keys: &[bls::Key]| {
        let mut order = plain.clone();
        order.authorities[0].sigs = sigs.iter().map(|sig| (*sig).clone()).collect();
        let mut batch = Batch::new();
        batch.push_setting(0, &order, &permission, keys);
        batch.verify().results.remove(0).1.map_err(|e| e.code)
    };
    let both = [point(&key), point(&other)];
    assert_eq!(judge(&[&sig, &one], &both[..1]), Ok(()));
    assert_eq!(judge(&[&sig, &one, &two], &both), Ok(()));
    assert_eq!(judge(&[&sig, &two, &one], &both), Err(Code::Possession));
    assert_eq!(judge(&[&sig, &one], &both), Err(Code::Possession));
    assert_eq!(judge(&[&one, &sig], &both[..1]), Err(Code::Possession));
    assert_eq!(judge(&[&sig], &both[..1]), Err(Code::Possession));
    assert_eq!(judge(&[&sig, &two], &both[..1]), Err(Code::Possession));
    assert_eq!(judge(&[&one], &both[..1]), Err(Code::InsufficientWeight));
    assert_eq!(judge(&[&sig, &one, &one], &both[..1]), Err(Code::SigFormat), "one too many");
    assert_eq!(judge(&[&sig, &one], &[]), Err(Code::SigFormat), "for no key");
}

#[test]
fn bls_keys_sign_no_vouchers() {
    let key = secret(Curve::Bls, 1);
    let sig = Bytes::copy_from_slice(key.sign_body_hash(&[3; 32]).as_bytes());
    let error = check_signed(&[3; 32], &[sig], &Permission::single(key.public()), 5).unwrap_err();
    assert_eq!(error.code, Code::SigFormat);
}

/// A batch of single-key orders in which those of `bad` are signed by another's key.
fn outcome_with_bad(count: u32, bad: &[u32]) -> Outcome {
    let mut batch = Batch::new();
    for n in 0..count {
        let key = secret(Curve::Ed25519, 1 + (n % 50) as u8);
        let signer =
            if bad.contains(&n) { secret(Curve::Ed25519, 99) } else { secret(Curve::Ed25519, 1 + (n % 50) as u8) };
        let body = body(n, &[]);
        let order = order_with(&body, &[Authority::of(&[signer.sign_body(&body)])]);
        batch.push(n as usize, &order, 0, &Permission::single(key.public()));
    }
    batch.verify()
}

#[test]
fn one_bad_order_spoils_no_other() {
    let good = outcome_with_bad(100, &[]);
    assert_eq!(good.verifications, 100);
    assert!(good.results.iter().all(|(_, result)| result.is_ok()));
    for bad in [&[37][..], &[0], &[99], &[3, 63, 64, 98], &(0..100).collect::<Vec<u32>>()] {
        let outcome = outcome_with_bad(100, bad);
        assert_eq!(outcome.results.len(), 100);
        for (tag, result) in outcome.results {
            let expected = if bad.contains(&(tag as u32)) { Err(Code::KeyMismatch) } else { Ok(()) };
            assert_eq!(result.map_err(|e| e.code), expected, "order {tag}");
        }
        assert!(outcome.verifications <= 3 * 100);
    }
    let last_chunk_of_one = outcome_with_bad(65, &[64]);
    assert!(last_chunk_of_one.results.iter().all(|(tag, result)| result.is_err() == (*tag == 64)));
}

/// What is known of keys changes no verdict, also when there are more of them than are kept.
#[test]
fn known_keys_are_judged_as_unknown_ones() {
    let known = KnownKeys::default();
    let verdicts = |n: u32, signer: u8| {
        let (key, signer) = (secret(Curve::Ed25519, n as u8), secret(Curve::Ed25519, signer));
        let mut batch = Batch::new();
        for i in 0..3 {
            let body = body(i, &[]);
            let order = order_with(&body, &[Authority::of(&[signer.sign_body(&body)])]);
            batch.push(i as usize, &order, 0, &Permission::single(key.public()));
        }
        batch.verify_knowing(&known).results.into_iter().all(|(_, result)| result.is_ok())
    };
    for round in 0..3 {
        for n in 1..20 {
            assert!(verdicts(n, n as u8), "round {round}");
            assert!(!verdicts(n, 99), "round {round}");
        }
        known.fill();
    }
}

#[test]
fn an_empty_batch_is_fine() {
    let outcome = Batch::new().verify();
    assert!(outcome.results.is_empty());
    assert_eq!(verify_all::<Vec<u8>>(&[], &KnownKeys::default()), Ok(()));
}

/// Encodings of points of small order, canonical or not, of points whose encoding is not canonical, and of no point.
fn odd_points() -> Vec<[u8; 32]> {
    let known = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "0200000000000000000000000000000000000000000000000000000000000000",
    ];
    let mut points: Vec<[u8; 32]> = known.iter().map(|text| hex::decode(text).unwrap().try_into().unwrap()).collect();
    for low in 0xed..=0xffu8 {
        for high in [0x7f, 0xff] {
            let mut point = [0xff; 32];
            (point[0], point[31]) = (low, high);
            points.push(point);
        }
    }
    points
}

#[test]
fn odd_points_are_judged_alike_alone_and_in_a_batch() {
    let mut accepted = 0;
    let good = AuthorityKey::from_seed([1; 32]);
    let good_item = (good.public(), b"good".to_vec(), good.sign(b"good"));
    // s = 0 is true for every R and A of small order; s = 1 for none; s = the group's order is not canonical.
    let order: [u8; 32] =
        hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap().try_into().unwrap();
    let mut one = [0; 32];
    one[0] = 1;
    for key in odd_points() {
        for r in odd_points() {
            for s in [[0; 32], one, order] {
                let mut sig = [0; 64];
                sig[..32].copy_from_slice(&r);
                sig[32..].copy_from_slice(&s);
                let item = (AuthorityPublicKey(key), b"Zcash".to_vec(), sig);
                let alone = item.0.verifies(&item.1, &item.2);
                let batch = verify_all(&[good_item.clone(), item], &KnownKeys::default());
                assert_eq!(batch, if alone { Ok(()) } else { Err(1) }, "key {key:?} R {r:?} s {s:?}");
                accepted += usize::from(alone);
                assert!(!alone || s == [0; 32]);
            }
        }
    }
    // ZIP-215 takes all 14 encodings of the points of small order, 8 canonical and 6 others, as R and as A.
    assert_eq!(accepted, 14 * 14);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any bytes in any place of a batch: it says of each what verifying it alone says.
    #[test]
    fn batch_and_single_agree(
        damage in prop::collection::vec((any::<bool>(), 0..96usize, 1..=255u8), 1..90),
    ) {
        let mut items = Vec::new();
        for (i, (damaged, at, xor)) in damage.into_iter().enumerate() {
            let key = AuthorityKey::from_seed([i as u8 % 5; 32]);
            let message = vec![i as u8; i];
            let (mut public, mut sig) = (key.public(), key.sign(&message));
            if damaged && i % 7 == 0 {
                if at < 64 { sig[at] ^= xor } else { public.0[at - 64] ^= xor }
            }
            items.push((public, message, sig));
        }
        let first_bad = items.iter().position(|(key, message, sig)| !key.verifies(message, sig));
        prop_assert_eq!(verify_all(&items, &KnownKeys::default()), first_bad.map_or(Ok(()), Err));
    }
}

#[test]
fn authority_keys_sign_and_hide_their_secret() {
    let key = AuthorityKey::from_seed([0x5a; 32]);
    let signature = key.sign(b"florin-vote-v1...");
    assert!(key.public().verifies(b"florin-vote-v1...", &signature));
    assert!(!key.public().verifies(b"florin-vote-v1..", &signature));
    assert!(!AuthorityKey::from_seed([1; 32]).public().verifies(b"florin-vote-v1...", &signature));
    assert!(!format!("{key:?}").contains("5a5a5a5a"));
    assert_eq!(key.public().to_string().parse::<AuthorityPublicKey>().unwrap(), key.public());
    for text in ["", "00", "zz", "0200000000000000000000000000000000000000000000000000000000000000"] {
        assert_eq!(text.parse::<AuthorityPublicKey>().unwrap_err().code, Code::BadKey);
    }
}

#[test]
fn results_are_in_the_order_of_their_tags_whatever_order_they_were_pushed_in() {
    let (key, other) = (secret(Curve::Ed25519, 1), secret(Curve::Ed25519, 2));
    let permission = Permission::single(key.public());
    let signed = |n: u32, by: &SecretKey| {
        let body = body(n, &[]);
        order_with(&body, &[Authority::of(&[by.sign_body(&body)])])
    };
    let mut batch = Batch::new();
    for tag in [5, 2, 9, 2, 7, 5, 0] {
        // Tags 2 and 7 have a bad one: of 2 it is the second.
        let bad = tag == 7 || batch.results.iter().any(|(t, _)| *t == 2) && tag == 2;
        batch.push(tag, &signed(tag as u32, if bad { &other } else { &key }), 0, &permission);
    }
    batch.refuse(3, Error::new(Code::Busy, "asked"));
    batch.refuse(9, Error::new(Code::Limit, "asked"));
    batch.refuse(9, Error::new(Code::Busy, "asked again"));
    let results = batch.verify().results;
    let expected = [
        (0, Ok(())),
        (2, Err(Code::KeyMismatch)),
        (3, Err(Code::Busy)),
        (5, Ok(())),
        (7, Err(Code::KeyMismatch)),
        (9, Err(Code::Limit)),
    ];
    let found: Vec<_> = results.into_iter().map(|(tag, result)| (tag, result.map_err(|e| e.code))).collect();
    assert_eq!(found, expected);
}

#[test]
fn cosignors_of_one_key_share_a_budget_and_those_who_sign_alone_need_none() {
    let (key, cosignor) = (secret(Curve::Ed25519, 1), secret(Curve::Ed25519, 2));
    let [own, others] = [&key, &cosignor].map(|key| Permission::single(key.public()));
    let verify = |budget: usize| {
        let mut batch = Batch::new();
        for tag in 0..3 {
            let body = body(tag, &[COSIGNOR]);
            let order = order_with(&body, &[&key, &cosignor].map(|key| Authority::of(&[key.sign_body(&body)])));
            batch.push(tag as usize, &order, 0, &own);
            batch.push(tag as usize, &order, 1, &others);
        }
        let alone = body(9, &[]);
        batch.push(9, &order_with(&alone, &[Authority::of(&[key.sign_body(&alone)])]), 0, &own);
        let mut left = budget;
        let outcome = batch.verify_within(&mut left, &KnownKeys::default());
        let codes: Vec<_> = outcome.results.into_iter().map(|(_, result)| result.err().map(|e| e.code)).collect();
        (codes, outcome.verifications, left)
    };
    let busy = Some(Code::Busy);
    assert_eq!(verify(0), (vec![busy, busy, busy, None], 4, 0));
    assert_eq!(verify(1), (vec![None, busy, busy, None], 5, 0));
    assert_eq!(verify(2), (vec![None, None, busy, None], 6, 0));
    assert_eq!(verify(5), (vec![None, None, None, None], 7, 2));
}

#[test]
fn a_proof_of_possession_is_counted_beside_its_signature() {
    let (key, bls) = (secret(Curve::Ed25519, 1), secret(Curve::Bls, 1));
    let point = bls.public().bls().unwrap();
    let body = body(1, &[]);
    let mut order = order_with(&body, &[Authority::of(&[key.sign_body(&body)])]);
    let proof = bls.bls().unwrap().prove(order.network_id, order.actor);
    order.authorities[0].sigs.push([&[POSSESSION_BYTE], &proof[..]].concat().into());
    let mut batch = Batch::new();
    batch.push_setting(0, &order, &permission(1, &[(&key, 1), (&bls, 1)]), &[point]);
    let mut budget = 100;
    let outcome = batch.verify_within(&mut budget, &KnownKeys::default());
    assert_eq!(outcome.results, [(0, Ok(()))]);
    assert_eq!((outcome.verifications, budget), (1 + BLS_VERIFICATION_COST, 100 - BLS_VERIFICATION_COST));
}
