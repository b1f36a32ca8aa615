//! E-cash: notes that the committee signs blindly.
//!
//! - [`curve`]: arithmetic of BLS12-381, the one place that calls the library
//! - [`blind`]: threshold blind signatures: nonces, blinding, shares, notes
//! - [`lately`]: blinded nonces that need not be checked again
//! - [`combine`]: from shares to a signature, and who lied
//! - [`batch`]: many notes verified together
//! - [`derive`]: a wallet's secrets from its seed
//! - [`dkg`]: the keys, made by the authorities together
//! - [`mint_keys`]: the keys, ready for use

pub mod batch;
pub mod blind;
pub mod combine;
#[allow(unsafe_code)]
pub mod curve;
pub mod derive;
pub mod dkg;
pub mod lately;
pub mod mint_keys;
#[doc(hidden)]
pub mod testing;
