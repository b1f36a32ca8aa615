//! A dealer of keys, for tests and benchmarks: it knows all secrets. Real keys are made without one.

use sha2::{Digest, Sha512};

use super::blind::{KeyShare, TierKey};
use super::combine::SharedKey;
use super::curve::{G2, Scalar};

/// A tier's key and its shares, by a polynomial whose coefficients come from `label`.
pub fn deal(threshold: u32, n: u32, label: &str) -> (SharedKey, Vec<KeyShare>) {
    let coefficients: Vec<Scalar> = (0..threshold).map(|k| scalar(&format!("{label}/{k}"))).collect();
    let at = |x: u64| {
        let x = Scalar::from_u64(x);
        coefficients.iter().rev().fold(Scalar::zero(), |sum, c| sum.mul(&x).add(c))
    };
    let shares: Vec<KeyShare> =
        (1..=n).map(|i| KeyShare::new(i, at(i.into())).expect("a hash is not of 0 there")).collect();
    let key = TierKey::new(G2::generator().mul(&at(0))).expect("a hash is not 0");
    let public = shares.iter().map(KeyShare::public).collect();
    (SharedKey::new(threshold, key, public).expect("shares of one polynomial"), shares)
}

/// The scalar of a text.
pub fn scalar(text: &str) -> Scalar {
    Scalar::from_wide(&Sha512::digest(text).into())
}
