use p256::ProjectivePoint;
use p256::ecdsa::{SigningKey, VerifyingKey};
use p256::elliptic_curve::Field;
use p256::elliptic_curve::point::AffineCoordinates;
use p256::elliptic_curve::sec1::FromSec1Point;
use proptest::prelude::*;

use super::*;

/// The recovery of the p256 crate alone.
fn reference(hash: &[u8; 32], compact: &[u8; 64], id: u8) -> Option<[u8; 33]> {
    let id = RecoveryId::from_byte(id)?;
    let sig = Signature::from_slice(compact).ok()?;
    let key = VerifyingKey::recover_from_prehash(hash, &sig, id).ok()?;
    key.to_sec1_point(true).as_bytes().try_into().ok()
}

/// The rule itself, from the key's side: z/s·G + r/s·Q is the point that r and the recovery id name.
fn is_signed(key: &[u8; 33], hash: &[u8; 32], compact: &[u8; 64], id: u8) -> bool {
    let Ok(sig) = Signature::from_slice(compact) else { return false };
    let (r, s) = sig.split_scalars();
    let z = <Scalar as Reduce<U256>>::reduce(&U256::from_be_slice(hash));
    let w = s.invert().unwrap();
    let encoded = p256::Sec1Point::from_bytes(key).unwrap();
    let q = ProjectivePoint::from(AffinePoint::from_sec1_point(&encoded).unwrap());
    let sum = ProjectivePoint::GENERATOR * (z * w) + q * (*r * w);
    if sum == ProjectivePoint::IDENTITY {
        return false;
    }
    let point = sum.to_affine();
    let x = U256::from_be_slice(&point.x());
    let x_mod_n = <Scalar as Reduce<U256>>::reduce(&x);
    let expected_id = u8::from(bool::from(point.y_is_odd())) | u8::from(x >= *NistP256::ORDER) << 1;
    x_mod_n == *r && expected_id == id
}

/// What AWS-LC and p256 alone both say, which must be the same.
fn both(hash: &[u8; 32], compact: &[u8; 64], id: u8) -> Option<[u8; 33]> {
    let found = r1(hash, compact, id);
    assert_eq!(found, reference(hash, compact, id), "hash {hash:02x?} r, s {compact:02x?} id {id}");
    found
}

fn number(scalar: &Scalar) -> [u8; 32] {
    scalar.to_repr().into()
}

fn pair(r: &[u8; 32], s: &[u8; 32]) -> [u8; 64] {
    [&r[..], &s[..]].concat().try_into().unwrap()
}

/// n + `delta`.
fn near_n(delta: i64) -> [u8; 32] {
    let shift = U256::from_u64(delta.unsigned_abs());
    let n = *NistP256::ORDER;
    let sum = if delta < 0 { n.wrapping_sub(&shift) } else { n.wrapping_add(&shift) };
    uint_to_bytes::<NistP256>(&sum).into()
}

fn compressed(key: &SigningKey) -> [u8; 33] {
    key.verifying_key().to_sec1_point(true).as_bytes().try_into().unwrap()
}

#[derive(Clone, Debug)]
enum Damage {
    None,
    Flip(usize, u8),
    HighS,
    R([u8; 32]),
    S([u8; 32]),
    BothRandom([u8; 32], [u8; 32]),
    MirroredKey,
}

fn damage() -> impl Strategy<Value = Damage> {
    let special = || {
        prop_oneof![
            Just([0; 32]),
            Just([0xff; 32]),
            (-3..4i64).prop_map(near_n),
            // With the recovery ids 2 and 3 these name points whose x is above n.
            (0..400u64).prop_map(|small| number(&Scalar::from(small))),
        ]
    };
    prop_oneof![
        2 => Just(Damage::None),
        2 => (0..64usize, 1..=255u8).prop_map(|(at, xor)| Damage::Flip(at, xor)),
        1 => Just(Damage::HighS),
        2 => special().prop_map(Damage::R),
        1 => special().prop_map(Damage::S),
        1 => (any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(|(r, s)| Damage::BothRandom(r, s)),
        1 => Just(Damage::MirroredKey),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    /// Four recovery ids each: the key that comes out is p256's, and it is the signer's exactly if the rule says so.
    #[test]
    fn agrees_with_p256_on_signatures_good_and_bad(
        seed in any::<[u8; 32]>(), hash in any::<[u8; 32]>(), damage in damage(),
    ) {
        let Ok(secret) = SigningKey::from_slice(&seed) else { return Ok(()) };
        let key = compressed(&secret);
        let signer = match damage {
            Damage::MirroredKey => SigningKey::from(-*secret.as_nonzero_scalar()),
            _ => secret,
        };
        let (sig, right_id) = signer.sign_prehash_recoverable(&hash);
        let mut compact: [u8; 64] = sig.to_bytes().into();
        let (low, high) = (sig.normalize_s(), Signature::from_scalars(sig.r(), -*sig.s()).unwrap());
        match &damage {
            Damage::None | Damage::MirroredKey => {}
            Damage::Flip(at, xor) => compact[*at] ^= xor,
            Damage::HighS => compact = if low == sig { high.to_bytes().into() } else { low.to_bytes().into() },
            Damage::R(r) => compact[..32].copy_from_slice(r),
            Damage::S(s) => compact[32..].copy_from_slice(s),
            Damage::BothRandom(r, s) => compact = pair(r, s),
        }
        for id in 0..4 {
            let found = both(&hash, &compact, id);
            prop_assert_eq!(found == Some(key), is_signed(&key, &hash, &compact, id));
            if let Some(found) = found {
                prop_assert!(is_signed(&found, &hash, &compact, id));
            }
            let other_s = right_id.to_byte() ^ 1;
            match damage {
                Damage::None => prop_assert_eq!(found == Some(key), id == right_id.to_byte()),
                // s and -s are of mirrored points: true for a verification that sees no recovery id.
                Damage::HighS => prop_assert_eq!(found == Some(key), id == other_s),
                Damage::MirroredKey => prop_assert_ne!(found, Some(key)),
                _ => {}
            }
        }
        prop_assert_eq!(r1(&hash, &compact, 4), None);
    }

    /// Any numbers at all, small and large ones more often than chance has them.
    #[test]
    fn sums_agree_with_p256(
        a in any::<[u8; 32]>(), b in any::<[u8; 32]>(), k in any::<[u8; 32]>(), special in 0..16u8,
    ) {
        let scalar = |bytes: &[u8; 32]| <Scalar as Reduce<U256>>::reduce(&U256::from_be_slice(bytes));
        let (mut a, mut b, k) = (scalar(&a), scalar(&b), scalar(&k));
        prop_assume!(!bool::from(k.is_zero()));
        match special {
            0 => a = Scalar::ZERO,
            1 => b = Scalar::ZERO,
            2 => (a, b) = (Scalar::ZERO, Scalar::ZERO),
            3 => a = -Scalar::ONE,
            4 => b = -Scalar::ONE,
            5 => b = Scalar::ONE,
            // a·G and b·R are the same point, or opposite ones.
            6 => a = b * k,
            7 => a = -(b * k),
            _ => {}
        }
        let r = (ProjectivePoint::GENERATOR * k).to_affine();
        let found = sum_of_products(&a, &b, &r);
        prop_assert_eq!(found, portable::sum_of_products(&a, &b, &r));
        prop_assert_eq!(found.is_none(), matches!(special, 2 | 7));
    }
}

/// Adding a point to itself, and to its opposite, are other formulas than adding: signatures made to need them.
#[test]
fn equal_and_opposite_points_are_added_right() {
    for n in 1..=100u64 {
        let (k, s) = (Scalar::from(n * 7 + 1), Scalar::from(n * n + 3));
        let point = (ProjectivePoint::GENERATOR * k).to_affine();
        let id = u8::from(bool::from(point.y_is_odd()));
        let compact = pair(&point.x().into(), &number(&s));
        let key = both(&number(&-(s * k)), &compact, id).expect("the double of a point");
        assert!(is_signed(&key, &number(&-(s * k)), &compact, id));
        assert_eq!(both(&number(&(s * k)), &compact, id), None, "infinity is no key");
    }
}

/// Points whose x is n or more: nobody meets one by chance, anybody can name one.
#[test]
fn an_x_above_the_order_has_ids_of_its_own() {
    let hash = [0x5a; 32];
    let mut keys = 0;
    for small in 1..=200u64 {
        let compact = pair(&number(&Scalar::from(small)), &number(&Scalar::from(77u64)));
        for id in 0..4 {
            let Some(key) = both(&hash, &compact, id) else { continue };
            keys += u32::from(id >= 2);
            for other in 0..4 {
                assert_eq!(is_signed(&key, &hash, &compact, other), other == id);
            }
        }
    }
    assert!((150..250).contains(&keys), "about half of all x are on the curve: {keys}");
    // r + n above the field, and above 256 bits.
    for r in [near_n(-1), number(&Scalar::from(1u64 << 60).square().square())] {
        assert_eq!(both(&hash, &pair(&r, &[1; 32]), 2), None);
    }
}

#[test]
fn what_is_no_point_gives_no_sum() {
    let mut point = *b"\x04aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    assert_eq!(aws_lc::sum_of_products(&[1; 32], &[1; 32], &point), None);
    point[0] = 9;
    for bytes in [&point[..], &point[..33], &point[..1], &[0], &[]] {
        assert_eq!(aws_lc::sum_of_products(&[0; 32], &[1; 32], bytes), None);
    }
}
