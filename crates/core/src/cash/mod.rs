//! E-cash: notes that the committee signs blindly.
//!
//! - [`curve`]: arithmetic of BLS12-381, the one place that calls the library
//! - [`blind`]: threshold blind signatures: what wallets and authorities compute

pub mod blind;
#[allow(unsafe_code)]
pub mod curve;
