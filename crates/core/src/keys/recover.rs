//! Which P-256 key made a signature: `p256` for numbers and the point R, AWS-LC for the one slow step, `a·G + b·R`.
//!
//! The key is (s·R - z·G) / r, with R the point that r and the recovery id name. So a flipped recovery id recovers another
//! key, where a plain verification, which sees R's x alone, finds nothing wrong.
//! Nothing here is secret. How fast, and why not another way: docs/decisions/0013-r1.md.

use p256::ecdsa::{RecoveryId, Signature};
use p256::elliptic_curve::bigint::{CheckedAdd, U256};
use p256::elliptic_curve::field::{bytes_to_uint, uint_to_bytes};
use p256::elliptic_curve::ops::Reduce;
use p256::elliptic_curve::point::DecompressPoint;
use p256::elliptic_curve::{Curve, PrimeField};
use p256::{AffinePoint, NistP256, Scalar};

/// The compressed key that signed a message of this hash with (r, s); `compact` is both, big-endian. None if no key
/// could have: r or s not from 1 to n - 1, an id above 3, or no point with such an x.
pub(super) fn r1(hash: &[u8; 32], compact: &[u8; 64], recovery_id: u8) -> Option<[u8; 33]> {
    let id = RecoveryId::from_byte(recovery_id)?;
    let (r, s) = Signature::from_slice(compact).ok()?.split_scalars();
    let mut x = r.to_repr();
    if id.is_x_reduced() {
        // r is R's x less n, for the few points whose x is n or more; U256 holds the sum if it is below the field's prime.
        let sum: Option<U256> = bytes_to_uint::<NistP256>(&x).checked_add(&NistP256::ORDER).into_option();
        x = uint_to_bytes::<NistP256>(&sum?);
    }
    let point = AffinePoint::decompress(&x, u8::from(id.is_y_odd()).into()).into_option()?;
    let z = <Scalar as Reduce<U256>>::reduce(&U256::from_be_slice(hash));
    let r_inverse = r.invert_vartime().into_option()?;
    sum_of_products(&-(z * r_inverse), &(*s * r_inverse), &point)
}

/// `a·G + b·R`, compressed; None if that is the point at infinity.
#[cfg(not(target_arch = "wasm32"))]
fn sum_of_products(a: &Scalar, b: &Scalar, r: &AffinePoint) -> Option<[u8; 33]> {
    use p256::elliptic_curve::sec1::ToSec1Point;
    aws_lc::sum_of_products(&a.to_repr().into(), &b.to_repr().into(), r.to_sec1_point(false).as_bytes())
}

/// The same without C.
#[cfg(target_arch = "wasm32")]
fn sum_of_products(a: &Scalar, b: &Scalar, r: &AffinePoint) -> Option<[u8; 33]> {
    portable::sum_of_products(a, b, r)
}

/// What wasm32 runs, and what tests hold AWS-LC against.
#[cfg(any(test, target_arch = "wasm32"))]
mod portable {
    use p256::elliptic_curve::ops::MulByGeneratorVartime;
    use p256::elliptic_curve::sec1::ToSec1Point;
    use p256::{AffinePoint, ProjectivePoint, Scalar};

    pub(super) fn sum_of_products(a: &Scalar, b: &Scalar, r: &AffinePoint) -> Option<[u8; 33]> {
        let sum = ProjectivePoint::mul_by_generator_and_mul_add_vartime(a, b, &ProjectivePoint::from(*r));
        // Infinity encodes to one byte.
        sum.to_affine().to_sec1_point(true).as_bytes().try_into().ok()
    }
}

/// With `cash/curve.rs` the only unsafe code of this workspace: AWS-LC's arithmetic of points has no safe binding.
///
/// Every object made here is owned by a type that frees it, and given to no one else; every slice is passed with its
/// length; every result is checked before the next call. AWS-LC refuses, by a return value, numbers and points that
/// are not of the curve. It keeps nothing of the inputs; errors go to a queue of the thread that holds the last 16.
#[cfg(not(target_arch = "wasm32"))]
#[allow(unsafe_code)]
mod aws_lc {
    use std::ptr::{NonNull, null_mut};

    use aws_lc_sys::{
        BIGNUM, BN_bin2bn, BN_free, EC_GROUP, EC_POINT, EC_POINT_free, EC_POINT_mul, EC_POINT_new, EC_POINT_oct2point,
        EC_POINT_point2oct, EC_group_p256, point_conversion_form_t,
    };

    /// `a·G + b·R` of big-endian `a` and `b` and of R as SEC1 encodes it, compressed. None for infinity, for an R that
    /// is no point, and when memory is out.
    pub(super) fn sum_of_products(a: &[u8; 32], b: &[u8; 32], r: &[u8]) -> Option<[u8; 33]> {
        // SAFETY: no arguments; returns a static group that is never freed.
        let group = unsafe { EC_group_p256() };
        let (a, b) = (Number::new(a)?, Number::new(b)?);
        let (point, sum) = (Point::new(group)?, Point::new(group)?);
        let mut out = [0; 33];
        // SAFETY: `point` is alive and of `group`; `r` is read for its length. With a null context AWS-LC makes its own.
        let is_point = unsafe { EC_POINT_oct2point(group, point.0.as_ptr(), r.as_ptr(), r.len(), null_mut()) };
        if is_point != 1 {
            return None;
        }
        let (to, from, a, b) = (sum.0.as_ptr(), point.0.as_ptr(), a.0.as_ptr(), b.0.as_ptr());
        // SAFETY: all four are alive, the points of `group` and not the same: `to` is written before `from` is read.
        let is_sum = unsafe { EC_POINT_mul(group, to, a, from, b, null_mut()) };
        if is_sum != 1 {
            return None;
        }
        let form = point_conversion_form_t::POINT_CONVERSION_COMPRESSED;
        // SAFETY: `to` is alive and of `group`; at most `out.len()` bytes are written to `out`.
        let length = unsafe { EC_POINT_point2oct(group, to, form, out.as_mut_ptr(), out.len(), null_mut()) };
        // Infinity takes one byte, a failure none.
        (length == out.len()).then_some(out)
    }

    /// A number of AWS-LC.
    struct Number(NonNull<BIGNUM>);

    impl Number {
        fn new(bytes: &[u8; 32]) -> Option<Number> {
            // SAFETY: `bytes` is read for its length; with a null third argument the result is new and ours to free.
            NonNull::new(unsafe { BN_bin2bn(bytes.as_ptr(), bytes.len(), null_mut()) }).map(Number)
        }
    }

    impl Drop for Number {
        fn drop(&mut self) {
            // SAFETY: made by BN_bin2bn, freed once.
            unsafe { BN_free(self.0.as_ptr()) }
        }
    }

    /// A point of AWS-LC.
    struct Point(NonNull<EC_POINT>);

    impl Point {
        fn new(group: *const EC_GROUP) -> Option<Point> {
            // SAFETY: `group` is the static group of P-256, and null is refused; the result is new and ours to free.
            NonNull::new(unsafe { EC_POINT_new(group) }).map(Point)
        }
    }

    impl Drop for Point {
        fn drop(&mut self) {
            // SAFETY: made by EC_POINT_new, freed once.
            unsafe { EC_POINT_free(self.0.as_ptr()) }
        }
    }
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
