//! Encodings that a forger might try in place of a point. What the core can't even represent is made with the library's safe
//! calls, which do not check the subgroup.

use blst::min_sig::{AggregateSignature, Signature};
use blst::{BLST_ERROR, MultiPoint, blst_p1_affine, p1_affines};
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

/// An encoded point, or what pretends to be one.
pub type Encoded = [u8; 48];

/// The prime of the field, big-endian.
const P: &str = "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab";
/// The order of the subgroup, big-endian.
const R: &str = "73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001";
/// Points of the curve are R times this many: 3, 11^2, 10177^2, 859267^2, 52437899^2.
const COFACTOR: u128 = 0x396c_8c00_5555_e156_8c00_aaab_0000_aaab;

/// Below `n`.
pub fn below(rng: &mut ChaCha20Rng, n: usize) -> usize {
    (rng.next_u64() % n as u64) as usize
}

/// Points of small order, and how to add them to others.
pub struct Torsion {
    points: Vec<blst_p1_affine>,
}

impl Torsion {
    /// A few of the orders 3, 11 and 10,177.
    pub fn new() -> Torsion {
        let mut order = [0; 32];
        hex::decode_to_slice(R, &mut order).unwrap();
        order.reverse();
        let mut points = Vec::new();
        for n in 1..40u8 {
            let mut x = [0; 48];
            (x[0], x[47]) = (0x80, n);
            let Ok(point) = Signature::uncompress(&x) else { continue };
            let outside = product(&point.into(), &order, 255);
            for (prime, power) in [(3, 3), (11, 121), (10_177, 10_177 * 10_177)] {
                let small = product(&outside, &(COFACTOR / power).to_le_bytes(), 128);
                // One more than the order leaves the point as it is, and nothing less does: the order is prime.
                if small != blst_p1_affine::default() && product(&small, &(prime + 1u128).to_le_bytes(), 128) == small {
                    points.push(small);
                }
            }
        }
        assert!(points.len() >= 9, "points of small order: {}", points.len());
        Torsion { points }
    }

    /// One of them.
    pub fn one(&self, rng: &mut ChaCha20Rng) -> Encoded {
        Signature::from(self.points[below(rng, self.points.len())]).compress()
    }

    /// A point with one of them added. Its pairings are those of the point itself.
    pub fn added(&self, to: &Encoded, rng: &mut ChaCha20Rng) -> Encoded {
        let mut sum = AggregateSignature::from_signature(&Signature::uncompress(to).unwrap());
        let small = Signature::from(self.points[below(rng, self.points.len())]);
        sum.add_signature(&small, false).unwrap();
        sum.to_signature().compress()
    }
}

/// A product on the whole curve; the scalar is little-endian.
fn product(point: &blst_p1_affine, scalar: &[u8], bits: usize) -> blst_p1_affine {
    p1_affines::from(&[[*point][..].mult(scalar, bits)]).as_slice()[0]
}

/// One bit flipped.
pub fn flipped(of: &Encoded, rng: &mut ChaCha20Rng) -> Encoded {
    let (mut out, bit) = (*of, below(rng, 384));
    out[bit / 8] ^= 1 << (bit % 8);
    out
}

/// Each byte from one of the two.
pub fn mixed(a: &Encoded, b: &Encoded, rng: &mut ChaCha20Rng) -> Encoded {
    let mut out = *a;
    for (to, from) in out.iter_mut().zip(b) {
        if rng.next_u32().is_multiple_of(2) {
            *to = *from;
        }
    }
    out
}

/// The other point with the same x.
pub fn negated(of: &Encoded) -> Encoded {
    let mut out = *of;
    out[0] ^= 0x20;
    out
}

/// The identity as it is written, or nearly so; or a point with the flags of something else.
pub fn identity(of: &Encoded, rng: &mut ChaCha20Rng) -> Encoded {
    let mut out = [0; 48];
    match below(rng, 5) {
        0 => out[0] = 0xc0,
        1 => out[0] = [0x00, 0x40, 0x60, 0xe0][below(rng, 4)],
        2 => (out[0], out[1 + below(rng, 47)]) = (0xc0, 1 << below(rng, 8)),
        3 => (out, out[0]) = (*of, of[0] | 0x40),
        _ => (out, out[0]) = (*of, of[0] & 0x7f),
    }
    out
}

/// x + p: the same point for who reduces x. Not every x leaves room for it.
pub fn above_p(of: &Encoded) -> Option<Encoded> {
    let mut p = [0; 48];
    hex::decode_to_slice(P, &mut p).unwrap();
    let (mut out, mut carry) = (*of, 0);
    out[0] &= 0x1f;
    for (byte, add) in out.iter_mut().zip(p).rev() {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    (out[0] < 0x20).then(|| {
        out[0] |= of[0] & 0xe0;
        out
    })
}

/// Any x: half of them are of no point, the others of points outside of the subgroup.
pub fn random(rng: &mut ChaCha20Rng) -> Encoded {
    let mut out = [0; 48];
    rng.fill_bytes(&mut out);
    out[0] = 0x80 | (out[0] & 0x20) | ((out[0] & 0x1f) % 0x1a);
    out
}

#[test]
fn the_points_are_what_they_are_meant_to_be() {
    let mut rng = <ChaCha20Rng as rand_core::SeedableRng>::seed_from_u64(1);
    let torsion = Torsion::new();
    let generator = florin_core::cash::curve::G1::generator().to_bytes();
    assert!(torsion.points.iter().any(|p| Signature::from(*p).compress()[1..] == [0; 47]), "(0, 2) has the order 3");
    let (mut on_curve, mut off) = (0, 0);
    for _ in 0..200 {
        for encoded in [torsion.one(&mut rng), torsion.added(&generator, &mut rng)] {
            assert_eq!(Signature::sig_validate(&encoded, true).unwrap_err(), BLST_ERROR::BLST_POINT_NOT_IN_GROUP);
        }
        match Signature::sig_validate(&random(&mut rng), true).unwrap_err() {
            BLST_ERROR::BLST_POINT_NOT_IN_GROUP => on_curve += 1,
            BLST_ERROR::BLST_POINT_NOT_ON_CURVE => off += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(on_curve > 50 && off > 50, "{on_curve} on the curve, {off} not");
}
