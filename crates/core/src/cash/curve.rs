//! BLS12-381 by blst: scalars, the groups G1 and G2, pairings. The arithmetic under e-cash, and nothing about e-cash.
//!
//! A [`G1`] or [`G2`] is always a point of the subgroup of prime order: decoding checks that (and refuses the identity),
//! hashing and arithmetic stay inside. Encodings are the usual compressed ones, 48 and 96 bytes, one for each point.
//!
//! Scalars may be secret: they are wiped when dropped, never printed, and [`Scalar`]'s own arithmetic and `mul` take
//! the same time for every value, as far as blst gives it. `msm`, `batch`, hashing and pairings are for public values.
//!
//! All unsafe code of e-cash is here. blst has safe bindings for sums of products and for pairings; single products,
//! scalars and encodings are C functions. Each of them reads and writes through the pointers of one call only, keeps none, and
//! takes any bytes of the right length; every pointer below is to a live value of the type that the function names.

use std::fmt;

use blst::{
    BLST_ERROR, MultiPoint, blst_bendian_from_scalar, blst_fp12, blst_hash_to_g1, blst_p1, blst_p1_add_or_double,
    blst_p1_add_or_double_affine, blst_p1_affine, blst_p1_affine_compress, blst_p1_affine_generator,
    blst_p1_affine_in_g1, blst_p1_affine_is_inf, blst_p1_cneg, blst_p1_double, blst_p1_from_affine, blst_p1_mult,
    blst_p1_to_affine, blst_p1_uncompress, blst_p2, blst_p2_add_or_double, blst_p2_add_or_double_affine,
    blst_p2_affine, blst_p2_affine_compress, blst_p2_affine_generator, blst_p2_affine_in_g2, blst_p2_affine_is_inf,
    blst_p2_cneg, blst_p2_double, blst_p2_from_affine, blst_p2_mult, blst_p2_to_affine, blst_p2_uncompress,
    blst_scalar, blst_scalar_fr_check, blst_scalar_from_be_bytes, blst_scalar_from_bendian, blst_scalar_from_uint64,
    blst_sk_add_n_check, blst_sk_inverse, blst_sk_mul_n_check, blst_sk_sub_n_check, p1_affines,
};
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::memo;

/// Bytes of an encoded scalar.
pub const SCALAR_BYTES: usize = 32;
/// Bytes of an encoded point of G1.
pub const G1_BYTES: usize = 48;
/// Bytes of an encoded point of G2.
pub const G2_BYTES: usize = 96;

/// Bits of a scalar.
const SCALAR_BITS: usize = 255;
/// The bit of an encoding's first byte that says that it is the identity.
const IDENTITY_FLAG: u8 = 0x40;

/// A number modulo the order of the groups. Wiped when dropped, never printed; every operation takes constant time.
#[derive(Clone)]
pub struct Scalar(blst_scalar);

impl Scalar {
    /// 0.
    pub fn zero() -> Scalar {
        Scalar(blst_scalar::default())
    }

    /// 1.
    pub fn one() -> Scalar {
        Scalar::from_u64(1)
    }

    /// A small number.
    pub fn from_u64(number: u64) -> Scalar {
        let mut out = Scalar::zero();
        let limbs = Zeroizing::new([number, 0, 0, 0]);
        // SAFETY: four limbs are read.
        unsafe { blst_scalar_from_uint64(&mut out.0, limbs.as_ptr()) };
        out
    }

    /// From 32 bytes, big-endian; `DECODE` unless they are below the order. 0 is one.
    pub fn from_bytes(bytes: &[u8; SCALAR_BYTES]) -> Result<Scalar> {
        let mut out = Scalar::zero();
        // SAFETY: 32 bytes are read; the check reads the scalar just written.
        let in_range = unsafe {
            blst_scalar_from_bendian(&mut out.0, bytes.as_ptr());
            blst_scalar_fr_check(&out.0)
        };
        if in_range {
            Ok(out)
        } else {
            Err(Error::expected(Code::Decode, "scalar", "a number below the group's order", "a larger one"))
        }
    }

    /// 64 uniform bytes, big-endian, modulo the order: uniform but for a bias of 2^-257.
    pub fn from_wide(bytes: &[u8; 64]) -> Scalar {
        let mut out = Scalar::zero();
        // SAFETY: as many bytes are read as there are. (The result says whether it is not 0.)
        unsafe { blst_scalar_from_be_bytes(&mut out.0, bytes.as_ptr(), bytes.len()) };
        out
    }

    /// The 32 bytes, big-endian.
    pub fn to_bytes(&self) -> Zeroizing<[u8; SCALAR_BYTES]> {
        let mut out = Zeroizing::new([0; SCALAR_BYTES]);
        // SAFETY: 32 bytes are written.
        unsafe { blst_bendian_from_scalar(out.as_mut_ptr(), &self.0) };
        out
    }

    /// The sum.
    pub fn add(&self, other: &Scalar) -> Scalar {
        let mut out = Scalar::zero();
        // SAFETY: three scalars. (The result says whether the sum is not 0.)
        unsafe { blst_sk_add_n_check(&mut out.0, &self.0, &other.0) };
        out
    }

    /// The difference.
    pub fn sub(&self, other: &Scalar) -> Scalar {
        let mut out = Scalar::zero();
        // SAFETY: three scalars. (The result says whether the difference is not 0.)
        unsafe { blst_sk_sub_n_check(&mut out.0, &self.0, &other.0) };
        out
    }

    /// The product.
    pub fn mul(&self, other: &Scalar) -> Scalar {
        let mut out = Scalar::zero();
        // SAFETY: three scalars. (The result says whether the product is not 0.)
        unsafe { blst_sk_mul_n_check(&mut out.0, &self.0, &other.0) };
        out
    }

    /// The number whose product with this one is 1; None for 0.
    pub fn inverse(&self) -> Option<Scalar> {
        let mut out = Scalar::zero();
        // SAFETY: two scalars. Of 0 it makes 0.
        unsafe { blst_sk_inverse(&mut out.0, &self.0) };
        (!self.is_zero()).then_some(out)
    }

    /// Whether it is 0.
    pub fn is_zero(&self) -> bool {
        self.0.b.iter().fold(0, |all, byte| all | byte) == 0
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Scalar) -> bool {
        self.sub(other).is_zero()
    }
}

impl Eq for Scalar {}

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scalar")
    }
}

macro_rules! group {
    (
        $(#[$doc:meta])* $name:ident, $text:literal, $bytes:ident, $affine:ident, $point:ident,
        $generator:ident, $is_inf:ident, $in_group:ident, $uncompress:ident, $compress:ident, $from_affine:ident,
        $to_affine:ident, $mult:ident, $add:ident, $cneg:ident, $add_points:ident, $double:ident, $memory:ident
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name($affine);

        impl $name {
            /// The neutral element.
            pub fn identity() -> $name {
                $name($affine::default())
            }

            /// The usual generator.
            pub fn generator() -> $name {
                // SAFETY: a pointer to a constant of the library.
                $name(unsafe { *$generator() })
            }

            /// Whether it is the neutral element.
            pub fn is_identity(&self) -> bool {
                // SAFETY: reads one point.
                unsafe { $is_inf(&self.0) }
            }

            /// From the one encoding of a point; `DECODE` for anything else, for points outside of the subgroup and
            /// for the identity.
            pub fn from_bytes(bytes: &[u8; $bytes]) -> Result<$name> {
                memo::of(|m| &mut m.$memory, &[bytes], || $name::decode(bytes))
            }

            fn decode(bytes: &[u8; $bytes]) -> Result<$name> {
                let bad = |found| Err(Error::expected(Code::Decode, "point", concat!("one of ", $text), found));
                if bytes[0] & IDENTITY_FLAG != 0 {
                    return bad("an encoding of the identity");
                }
                let mut point = $affine::default();
                // SAFETY: reads as many bytes as an encoding has.
                match unsafe { $uncompress(&mut point, bytes.as_ptr()) } {
                    BLST_ERROR::BLST_SUCCESS => {}
                    BLST_ERROR::BLST_POINT_NOT_ON_CURVE => return bad("an x that is of no point"),
                    BLST_ERROR::BLST_POINT_NOT_IN_GROUP => return bad("a point outside of the subgroup"),
                    _ => return bad("no encoding of a point"),
                }
                // SAFETY: reads one point.
                if !unsafe { $in_group(&point) } {
                    return bad("a point outside of the subgroup");
                }
                Ok($name(point))
            }

            /// The encoding.
            pub fn to_bytes(&self) -> [u8; $bytes] {
                let mut out = [0; $bytes];
                // SAFETY: writes as many bytes as an encoding has.
                unsafe { $compress(out.as_mut_ptr(), &self.0) };
                out
            }

            /// The product with a scalar, in constant time.
            pub fn mul(&self, scalar: &Scalar) -> $name {
                let mut out = $point::default();
                // SAFETY: two points; the scalar has 32 bytes, of which 255 bits are read.
                unsafe { $mult(&mut out, &self.projective(), scalar.0.b.as_ptr(), SCALAR_BITS) };
                $name::from_projective(&out)
            }

            /// The sum.
            pub fn add(&self, other: &$name) -> $name {
                $name::sum([self, other])
            }

            /// The sum of many; the identity for none.
            pub fn sum<'a>(points: impl IntoIterator<Item = &'a $name>) -> $name {
                let mut sum = $point::default();
                let to = &raw mut sum;
                for point in points {
                    // SAFETY: two points; result and operand may be the same, and equal ones are doubled.
                    unsafe { $add(to, to, &point.0) };
                }
                $name::from_projective(&sum)
            }

            /// The negative.
            pub fn neg(&self) -> $name {
                let mut point = self.projective();
                // SAFETY: one point.
                unsafe { $cneg(&mut point, true) };
                $name::from_projective(&point)
            }

            /// The sum of `points[i]` times `scalars[i]`. Not in constant time: for public scalars. Panics unless there
            /// are as many scalars as points.
            pub fn msm(points: &[$name], scalars: &[Scalar]) -> $name {
                assert_eq!(points.len(), scalars.len(), "one scalar for each point");
                let bytes = scalars.iter().map(|scalar| &scalar.0.b[..]);
                $name::products(points.iter().zip(bytes), SCALAR_BITS)
            }

            /// `msm` with scalars of 128 bits.
            pub fn msm_128(points: &[$name], scalars: &[u128]) -> $name {
                assert_eq!(points.len(), scalars.len(), "one scalar for each point");
                let bytes = scalars.iter().map(|scalar| scalar.to_le_bytes());
                $name::products(points.iter().zip(bytes), 128)
            }

            /// `msm` with small scalars of either sign: as many doublings as the largest has bits.
            pub fn msm_small(points: &[$name], scalars: &[i32]) -> $name {
                assert_eq!(points.len(), scalars.len(), "one scalar for each point");
                let terms = points.iter().zip(scalars).map(|(point, scalar)| {
                    let mut point = point.projective();
                    // SAFETY: one point.
                    unsafe { $cneg(&mut point, *scalar < 0) };
                    (point, scalar.unsigned_abs())
                });
                let terms: Vec<($point, u32)> = terms.collect();
                let bits = terms.iter().map(|(_, scalar)| u32::BITS - scalar.leading_zeros()).max().unwrap_or(0);
                let mut sum = $point::default();
                let to = &raw mut sum;
                for bit in (0..bits).rev() {
                    // SAFETY: result and operand may be the same point.
                    unsafe { $double(to, to) };
                    for (point, _) in terms.iter().filter(|(_, scalar)| scalar >> bit & 1 == 1) {
                        // SAFETY: two points; result and operand may be the same, and equal ones are doubled.
                        unsafe { $add_points(to, to, point) };
                    }
                }
                $name::from_projective(&sum)
            }

            /// Scalars are little-endian.
            fn products<'a>(terms: impl Iterator<Item = (&'a $name, impl AsRef<[u8]>)>, bits: usize) -> $name {
                let (mut points, mut scalars) = (Vec::new(), Vec::new());
                // Identities add nothing; the library is better not asked about them.
                for (point, scalar) in terms.filter(|(point, _)| !point.is_identity()) {
                    points.push(point.0);
                    scalars.extend_from_slice(scalar.as_ref());
                }
                if points.is_empty() {
                    return $name::identity();
                }
                $name::from_projective(&points.mult(&scalars, bits))
            }

            fn projective(&self) -> $point {
                let mut point = $point::default();
                // SAFETY: two points.
                unsafe { $from_affine(&mut point, &self.0) };
                point
            }

            fn from_projective(point: &$point) -> $name {
                let mut affine = $affine::default();
                // SAFETY: two points.
                unsafe { $to_affine(&mut affine, point) };
                $name(affine)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.to_bytes()))
            }
        }
    };
}

group!(
    /// A point of G1, where signatures are.
    G1, "G1", G1_BYTES, blst_p1_affine, blst_p1, blst_p1_affine_generator, blst_p1_affine_is_inf,
    blst_p1_affine_in_g1, blst_p1_uncompress, blst_p1_affine_compress, blst_p1_from_affine, blst_p1_to_affine,
    blst_p1_mult, blst_p1_add_or_double_affine, blst_p1_cneg, blst_p1_add_or_double, blst_p1_double, g1
);
group!(
    /// A point of G2, where public keys are.
    G2, "G2", G2_BYTES, blst_p2_affine, blst_p2, blst_p2_affine_generator, blst_p2_affine_is_inf,
    blst_p2_affine_in_g2, blst_p2_uncompress, blst_p2_affine_compress, blst_p2_from_affine, blst_p2_to_affine,
    blst_p2_mult, blst_p2_add_or_double_affine, blst_p2_cneg, blst_p2_add_or_double, blst_p2_double, g2
);

impl G1 {
    /// hash_to_curve of RFC 9380 for the suite BLS12381G1_XMD:SHA-256_SSWU_RO_ and this domain separation tag.
    pub fn hash(message: &[u8], tag: &[u8]) -> G1 {
        let length = (tag.len() as u64).to_be_bytes();
        memo::of(|m| &mut m.hashes, &[&length, tag, message], || G1::from_projective(&hash_to_g1(message, tag)))
    }

    /// `hash` of each message, a little faster than one by one.
    pub fn hash_all<'a>(messages: impl IntoIterator<Item = &'a [u8]>, tag: &[u8]) -> Vec<G1> {
        if memo::is_on() {
            return messages.into_iter().map(|message| G1::hash(message, tag)).collect();
        }
        let points: Vec<_> = messages.into_iter().map(|message| hash_to_g1(message, tag)).collect();
        if points.is_empty() {
            return Vec::new();
        }
        p1_affines::from(&points).as_slice().iter().map(|point| G1(*point)).collect()
    }
}

fn hash_to_g1(message: &[u8], tag: &[u8]) -> blst_p1 {
    let mut point = blst_p1::default();
    let (no_prefix, length) = (std::ptr::null(), 0);
    let (m, t) = (message.as_ptr(), tag.as_ptr());
    // SAFETY: one point; message and tag are read for their lengths, the prefix not at all.
    unsafe { blst_hash_to_g1(&mut point, m, message.len(), t, tag.len(), no_prefix, length) };
    point
}

/// Whether e(a, x) = e(b, y).
pub fn pairings_equal(a: &G1, x: &G2, b: &G1, y: &G2) -> bool {
    pairings_cancel(&[(*a, *x), (b.neg(), *y)])
}

/// Whether the product of the pairings of all pairs is 1; it is for none.
pub fn pairings_cancel(pairs: &[(G1, G2)]) -> bool {
    // The library computes wrong with an identity among several pairs; its pairing is 1.
    let pairs = pairs.iter().filter(|(p, q)| !p.is_identity() && !q.is_identity());
    let (p, q): (Vec<_>, Vec<_>) = pairs.map(|(p, q)| (p.0, q.0)).unzip();
    p.is_empty() || blst_fp12::miller_loop_n(&q, &p).final_exp() == blst_fp12::default()
}

#[cfg(test)]
#[path = "curve_tests.rs"]
mod tests;
