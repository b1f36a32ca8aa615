//! The arithmetic against published vectors, itself, and what no encoding may be.

use proptest::prelude::*;

use super::*;

/// The prime of the field, big-endian.
const P: &str = "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab";
/// The order of the groups, big-endian.
const R: &str = "73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001";

fn unhex<const N: usize>(text: &str) -> [u8; N] {
    let mut out = [0; N];
    hex::decode_to_slice(text, &mut out).unwrap();
    out
}

fn scalar(n: u64) -> Scalar {
    Scalar::from_u64(n)
}

/// Any scalar: of 64 bytes.
fn scalars() -> impl Strategy<Value = Scalar> {
    (any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(|(a, b)| {
        let mut wide = [0; 64];
        wide[..32].copy_from_slice(&a);
        wide[32..].copy_from_slice(&b);
        Scalar::from_wide(&wide)
    })
}

#[test]
fn hashing_follows_rfc_9380() {
    let tag = b"QUUX-V01-CS02-with-BLS12381G1_XMD:SHA-256_SSWU_RO_";
    // Appendix J.9.1: x, and the parity of y by the flag of the encoding.
    let vectors = [
        (
            "",
            "052926add2207b76ca4fa57a8734416c8dc95e24501772c814278700eed6d1e4e8cf62d9c09db0fac349612b759e79a1",
            "08ba738453bfed09cb546dbb0783dbb3a5f1f566ed67bb6be0e8c67e2e81a4cc68ee29813bb7994998f3eae0c9c6a265",
        ),
        (
            "abc",
            "03567bc5ef9c690c2ab2ecdf6a96ef1c139cc0b2f284dca0a9a7943388a49a3aee664ba5379a7655d3c68900be2f6903",
            "0b9c15f3fe6e5cf4211f346271d7b01c8f3b28be689c8429c85b67af215533311f0b8dfaaa154fa6b88176c229f2885d",
        ),
        (
            "abcdef0123456789",
            "11e0b079dea29a68f0383ee94fed1b940995272407e3bb916bbf268c263ddd57a6a27200a784cbc248e84f357ce82d98",
            "03a87ae2caf14e8ee52e51fa2ed8eefe80f02457004ba4d486d6aa1f517c0889501dc7413753f9599b099ebcbbd2d709",
        ),
    ];
    for (message, x, y) in vectors {
        let point = G1::hash(message.as_bytes(), tag);
        let mut affine = [0; 96];
        // SAFETY: writes 96 bytes.
        unsafe { blst::blst_p1_affine_serialize(affine.as_mut_ptr(), &point.0) };
        assert_eq!((hex::encode(&affine[..48]), hex::encode(&affine[48..])), (x.into(), y.into()), "{message}");
    }
    let messages: Vec<&[u8]> = vec![b"", b"abc", b"abcdef0123456789"];
    let together = G1::hash_all(messages.iter().copied(), tag);
    assert_eq!(together, messages.iter().map(|m| G1::hash(m, tag)).collect::<Vec<_>>());
    assert!(G1::hash_all([], tag).is_empty());
}

#[test]
fn generators_are_the_usual_ones() {
    assert_eq!(
        hex::encode(G1::generator().to_bytes()),
        "97f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb"
    );
    assert_eq!(
        hex::encode(G2::generator().to_bytes()),
        "93e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e\
         024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"
    );
}

#[test]
fn scalars_have_one_encoding() {
    let order: [u8; 32] = unhex(R);
    assert_eq!(Scalar::from_bytes(&order).unwrap_err().code, Code::Decode);
    assert_eq!(Scalar::from_bytes(&[0xff; 32]).unwrap_err().code, Code::Decode);
    let mut largest = order;
    largest[31] -= 1;
    let minus_one = Scalar::from_bytes(&largest).unwrap();
    assert_eq!(*minus_one.to_bytes(), largest);
    assert!(minus_one.add(&Scalar::one()).is_zero());
    assert!(Scalar::from_bytes(&[0; 32]).unwrap().is_zero());
    let mut wide = [0; 64];
    wide[32..].copy_from_slice(&order);
    assert!(Scalar::from_wide(&wide).is_zero(), "wide bytes are taken modulo the order");
    wide[63] += 5;
    assert_eq!(Scalar::from_wide(&wide), scalar(5));
    assert!(Scalar::zero().inverse().is_none());
    assert_eq!(format!("{minus_one:?}"), "Scalar");
}

#[test]
fn points_have_one_encoding() {
    let good = G1::generator().to_bytes();
    assert_eq!(G1::from_bytes(&good).unwrap(), G1::generator());
    let refused = |bytes: [u8; 48], what: &str| {
        let error = G1::from_bytes(&bytes).unwrap_err();
        assert_eq!(error.code, Code::Decode, "{what}");
    };
    let flags = |set: u8| {
        let mut bytes = good;
        bytes[0] = (bytes[0] & 0x1f) | set;
        bytes
    };
    for set in [0x00, 0x20, 0x40, 0x60, 0xc0, 0xe0] {
        refused(flags(set), "flags other than compressed and the sign");
    }
    assert_eq!(G1::from_bytes(&flags(0xa0)).unwrap(), G1::generator().neg(), "the sign is the other point");

    // The identity, as it is usually written, and with bits that it may not have.
    let mut identity = [0; 48];
    identity[0] = 0xc0;
    assert_eq!(G1::identity().to_bytes(), identity);
    refused(identity, "identity");
    for at in 0..48 {
        let mut bytes = identity;
        bytes[at] |= 1;
        refused(bytes, "identity with another bit");
    }
    identity[0] = 0xe0;
    refused(identity, "identity with a sign");
    refused([0; 48], "zeros");
    refused([0xff; 48], "ones");

    // x + p is the same x for who reduces it.
    let p: [u8; 48] = unhex(P);
    let mut found = 0;
    for n in 1..2_000u64 {
        let bytes = G1::generator().mul(&scalar(n)).to_bytes();
        let Some(mut above) = plus(bytes, &p) else { continue };
        above[0] |= bytes[0] & 0xe0;
        refused(above, "x of p or more");
        found += 1;
    }
    assert!(found > 100, "{found}");
}

/// x of an encoding, plus p, if that fits into the 381 bits that an encoding has room for.
fn plus(mut bytes: [u8; 48], p: &[u8; 48]) -> Option<[u8; 48]> {
    bytes[0] &= 0x1f;
    let mut carry = 0;
    for (byte, add) in bytes.iter_mut().zip(p).rev() {
        let sum = u16::from(*byte) + u16::from(*add) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    (bytes[0] < 0x20).then_some(bytes)
}

/// The curves have points outside of the subgroup: nearly all, in fact. x = 0 is one of order 3 in G1.
#[test]
fn points_outside_of_the_subgroup_are_refused() {
    let (mut on_curve, mut x) = (0, [0; 48]);
    for n in 0..=255u8 {
        x[47] = n;
        x[0] = 0x80;
        let mut point = blst_p1_affine::default();
        // SAFETY: reads 48 bytes.
        let result = unsafe { blst_p1_uncompress(&mut point, x.as_ptr()) };
        on_curve += usize::from(result != BLST_ERROR::BLST_POINT_NOT_ON_CURVE);
        assert!(G1::from_bytes(&x).is_err(), "{n}");
    }
    assert!(on_curve > 100, "{on_curve}");
    // The point of order 3: (0, 2).
    let error = G1::from_bytes(&{
        let mut x = [0; 48];
        x[0] = 0x80;
        x
    });
    assert!(error.unwrap_err().message.contains("subgroup"));

    let (mut on_curve, mut x) = (0, [0; 96]);
    for n in 0..=255u8 {
        x[95] = n;
        x[0] = 0x80;
        let mut point = blst_p2_affine::default();
        // SAFETY: reads 96 bytes.
        let result = unsafe { blst_p2_uncompress(&mut point, x.as_ptr()) };
        on_curve += usize::from(result == BLST_ERROR::BLST_SUCCESS);
        assert!(G2::from_bytes(&x).is_err(), "{n}");
    }
    assert!(on_curve > 100, "{on_curve}");
}

#[test]
fn pairings_take_the_identity() {
    let (g1, g2) = (G1::generator(), G2::generator());
    assert!(pairings_cancel(&[]));
    assert!(!pairings_cancel(&[(g1, g2)]));
    assert!(pairings_cancel(&[(G1::identity(), g2)]));
    assert!(pairings_cancel(&[(g1, g2), (G1::identity(), g2), (g1, G2::identity()), (g1.neg(), g2)]));
    assert!(!pairings_cancel(&[(g1, g2), (G1::identity(), g2)]));
    assert!(!pairings_equal(&g1, &g2, &G1::identity(), &g2));
}

#[test]
fn many_pairings_cancel_only_if_their_sum_does() {
    // More pairs than the library takes in one go.
    let pairs = |shift: u64| -> Vec<(G1, G2)> {
        let mut pairs: Vec<(G1, G2)> =
            (1..=40).map(|n| (G1::generator().mul(&scalar(n)), G2::generator().mul(&scalar(n + 1)))).collect();
        let sum: u64 = (1..=40u64).map(|n| n * (n + 1)).sum();
        pairs.push((G1::generator().mul(&scalar(sum + shift)).neg(), G2::generator()));
        pairs
    };
    assert!(pairings_cancel(&pairs(0)));
    assert!(!pairings_cancel(&pairs(1)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn scalars_are_a_field(a in scalars(), b in scalars(), c in scalars()) {
        prop_assert_eq!(a.add(&b), b.add(&a));
        prop_assert_eq!(a.mul(&b), b.mul(&a));
        prop_assert_eq!(a.add(&b).mul(&c), a.mul(&c).add(&b.mul(&c)));
        prop_assert_eq!(a.sub(&b).add(&b), a.clone());
        prop_assert_eq!(Scalar::from_bytes(&a.to_bytes()).unwrap(), a.clone());
        if let Some(inverse) = a.inverse() {
            prop_assert_eq!(a.mul(&inverse), Scalar::one());
        }
    }

    #[test]
    fn groups_follow_scalars(a in scalars(), b in scalars()) {
        let (g1, g2) = (G1::generator(), G2::generator());
        prop_assert_eq!(g1.mul(&a).add(&g1.mul(&b)), g1.mul(&a.add(&b)));
        prop_assert_eq!(g2.mul(&a).add(&g2.mul(&b)), g2.mul(&a.add(&b)));
        prop_assert_eq!(g1.mul(&a).mul(&b), g1.mul(&a.mul(&b)));
        prop_assert!(pairings_equal(&g1.mul(&a), &g2.mul(&b), &g1.mul(&b), &g2.mul(&a)));
        prop_assert!(!pairings_equal(&g1.mul(&a), &g2.mul(&b), &g1.mul(&a), &g2.mul(&a)) || a == b);
        if !a.is_zero() {
            prop_assert_eq!(G1::from_bytes(&g1.mul(&a).to_bytes()).unwrap(), g1.mul(&a));
            prop_assert_eq!(G2::from_bytes(&g2.mul(&a).to_bytes()).unwrap(), g2.mul(&a));
        }
    }

    /// Equal, opposite and neutral points among the terms, and numbers of terms on both sides of the library's switch.
    #[test]
    fn sums_of_products(terms in prop::collection::vec((0u64..6, scalars(), any::<u128>()), 0..70)) {
        let points: Vec<G1> = terms
            .iter()
            .map(|(n, ..)| if n % 2 == 0 { G1::generator().mul(&scalar(*n)) } else { G1::generator().mul(&scalar(*n)).neg() })
            .collect();
        let full: Vec<Scalar> = terms.iter().map(|(_, s, _)| s.clone()).collect();
        let products: Vec<G1> = points.iter().zip(&full).map(|(p, s)| p.mul(s)).collect();
        prop_assert_eq!(G1::msm(&points, &full), G1::sum(&products));
        let halves: Vec<u128> = terms.iter().map(|(.., s)| *s).collect();
        let products: Vec<G1> = points.iter().zip(&halves).map(|(p, s)| {
            let mut bytes = [0; 32];
            bytes[16..].copy_from_slice(&s.to_be_bytes());
            p.mul(&Scalar::from_bytes(&bytes).unwrap())
        }).collect();
        prop_assert_eq!(G1::msm_128(&points, &halves), G1::sum(&products));
        let small: Vec<i32> = terms.iter().map(|(n, _, s)| if *n == 1 { i32::MIN } else { *s as i32 >> ((s >> 32) as u32 % 32) }).collect();
        let products: Vec<G1> = points.iter().zip(&small).map(|(p, s)| {
            let product = p.mul(&scalar(u64::from(s.unsigned_abs())));
            if *s < 0 { product.neg() } else { product }
        }).collect();
        prop_assert_eq!(G1::msm_small(&points, &small), G1::sum(&products));
    }
}
