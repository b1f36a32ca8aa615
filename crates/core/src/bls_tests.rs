use super::*;
use crate::testing::seed;

fn key(number: u64) -> SecretKey {
    SecretKey::from_seed(&seed("bls", number))
}

fn hex<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}

/// Vectors that the clients of Ethereum share; they use this ciphersuite.
#[test]
fn signatures_are_those_of_the_ciphersuite() {
    let secret: [u8; 32] = hex("263dbd792f5b1be47ed85f8938c0f29586af0d3ac7b977f21c278fe1462040e3");
    let secret = Secret::deserialize(&secret).unwrap();
    let point = secret.sk_to_pk();
    let compressed = "a491d1b0ecd9bb917989f0e74f0dea0422eac4a873e5e2644f368dffb9a6e20fd6e10c1b77654d067c0618f6e5a7f79a";
    assert_eq!(hex::encode(point.compress()), compressed);
    let key = SecretKey { secret, public: point.serialize() };
    let expected: SignatureBytes = hex(concat!(
        "b6ed936746e01f8ecf281f020953fbf1f01debd5657c4a383940b020b26507f6076334f91e2366c96e9ab279fb515809",
        "0352ea1c5b0c9274504f4f0e7053af24802e51e4568d164fe986834f41e55c8e850ce1f98458c0cfc9ab380b55285a55"
    ));
    assert_eq!(key.sign(&[0; 32]), expected);
    assert!(verifies(key.public(), &[0; 32], &expected));
    assert!(!verifies(key.public(), &[0; 31], &expected));
}

#[test]
fn only_the_one_encoding_of_a_point_is_a_key() {
    let good = *key(1).public();
    assert!(is_point(&good));
    let mut other = good;
    other[95] ^= 1;
    assert!(!is_point(&other), "off the curve");
    for flag in [0x20, 0x40, 0x80] {
        let mut other = good;
        other[0] |= flag;
        assert!(!is_point(&other), "flag {flag:#x}");
    }
    assert!(!is_point(&[0; POINT_BYTES]));
    // x + p names the same number.
    let p: [u8; 48] =
        hex("1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab");
    let mut x_and_p = good;
    let mut carry = 0;
    for i in (0..48).rev() {
        let sum = u16::from(good[i]) + u16::from(p[i]) + carry;
        (x_and_p[i], carry) = (sum as u8, sum >> 8);
    }
    assert!(!is_point(&x_and_p));
}

#[test]
fn a_proof_of_possession_is_of_one_key_and_one_account() {
    let (one, two) = (key(1), key(2));
    let proof = one.prove(77, 5);
    assert!(possesses(one.public(), 77, 5, &proof));
    assert!(!possesses(one.public(), 77, 6, &proof), "another account");
    assert!(!possesses(one.public(), 78, 5, &proof), "another network");
    assert!(!possesses(two.public(), 77, 5, &proof), "another key");
    assert!(!verifies(one.public(), &possession_message(one.public(), 77, 5), &proof), "it is no signature");
    let signed = one.sign(&possession_message(one.public(), 77, 5));
    assert!(!possesses(one.public(), 77, 5, &signed), "and a signature is no proof");
}

#[test]
fn a_key_outside_of_the_subgroup_has_no_proof() {
    // On the curve, at x = 4.
    let mut outside = [0; POINT_BYTES];
    outside[47] = 4;
    outside[48..].copy_from_slice(&hex::<48>(
        "0a989badd40d6212b33cffc3f3763e9bc760f988c9926b26da9dd85e928483446346b8ed00e1de5d5ea93e354abe706c",
    ));
    assert!(is_point(&outside));
    assert_eq!(point(&outside).unwrap().validate(), Err(BLST_ERROR::BLST_POINT_NOT_IN_GROUP));
    for number in 0..4 {
        let proof = key(number).sign_with(&possession_message(&outside, 77, 5), POSSESSION_TAG);
        assert!(!possesses(&outside, 77, 5, &proof));
    }
}

#[test]
fn a_sum_of_keys_verifies_what_all_have_signed_and_nothing_else() {
    let keys: Vec<SecretKey> = (0..40).map(key).collect();
    let sum_of = |keys: &[&SecretKey]| {
        let mut sum = Sum::default();
        keys.iter().for_each(|key| sum.add(key.public()));
        sum
    };
    let signed_by = |keys: &[&SecretKey], message: &[u8]| {
        sum_signatures(&keys.iter().map(|key| key.sign(message)).collect::<Vec<_>>()).unwrap()
    };
    for n in [1, 2, 3, 7, 40] {
        let all: Vec<&SecretKey> = keys[..n].iter().collect();
        let signature = signed_by(&all, b"root");
        assert!(sum_of(&all).verifies(b"root", &signature), "{n} keys");
        assert!(!sum_of(&all).verifies(b"another", &signature));
        assert!(!sum_of(&all[1..]).verifies(b"root", &signature), "{n} keys but one");
        let more: Vec<&SecretKey> = all.iter().copied().chain([&keys[0]]).collect();
        assert!(!sum_of(&more).verifies(b"root", &signature), "one of them twice");
        assert!(sum_of(&more).verifies(b"root", &signed_by(&more, b"root")), "unless it has signed twice");
    }
    assert!(!Sum::default().verifies(b"root", &signed_by(&[&keys[0]], b"root")));
    assert!(sum_signatures(&[]).is_err());
    assert!(sum_signatures(&[[0; SIGNATURE_BYTES]]).is_err());
}

/// Sums are checked against one addition after the other, by the library's other function.
#[test]
fn sums_are_right_with_equal_and_opposite_keys() {
    let point = |number| Point::deserialize(key(number).public()).unwrap();
    let negative = |number| {
        let mut key = *key(number).public();
        let p: [u8; 48] =
            hex("1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab");
        let mut borrow = 0;
        for i in (0..48).rev() {
            let less = i16::from(p[i]) - i16::from(key[48 + i]) - borrow;
            (key[48 + i], borrow) = (less.rem_euclid(256) as u8, i16::from(less < 0));
        }
        Point::deserialize(&key).unwrap()
    };
    let cases: [Vec<Point>; 6] = [
        vec![point(1), point(1)],
        vec![point(1), point(1), point(1), point(2)],
        vec![point(1), negative(1)],
        vec![point(1), negative(1), point(3)],
        vec![point(2), point(1), negative(2), negative(1), point(1), point(1), point(4)],
        (0..100).map(|i| point(i % 7)).collect(),
    ];
    for points in cases {
        let mut sum = Sum::with_capacity(points.len());
        points.iter().for_each(|p| sum.add(&p.serialize()));
        let naive = AggregatePoint::aggregate(&points.iter().collect::<Vec<_>>(), false).unwrap().to_public_key();
        let expected = (naive.validate() != Err(BLST_ERROR::BLST_PK_IS_INFINITY)).then(|| naive.serialize());
        assert_eq!(sum.key(), expected, "{} keys", points.len());
    }
}

#[test]
fn a_key_made_of_anothers_verifies_but_has_no_proof() {
    let (victim, own) = (key(1), key(2));
    let mut rogue_and_victim = Sum::default();
    // rogue = own - victim, so that rogue + victim = own.
    let negated = {
        let scalar = |key: &SecretKey| -> crate::cash::curve::Scalar {
            crate::cash::curve::Scalar::from_bytes(&key.secret.serialize()).unwrap()
        };
        crate::cash::curve::G1::generator().mul(&scalar(&own).sub(&scalar(&victim)))
    };
    let rogue = Point::uncompress(&negated.to_bytes()).unwrap().serialize();
    rogue_and_victim.add(&rogue);
    rogue_and_victim.add(victim.public());
    assert!(rogue_and_victim.verifies(b"root", &own.sign(b"root")), "this is what proofs are for");
    assert!(!possesses(&rogue, 77, 5, &own.prove(77, 5)));
}
