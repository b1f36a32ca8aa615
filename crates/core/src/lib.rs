//! The pure core of Florin: what every byte means, who may sign what, and what an authority does.
//!
//! Nothing here is async, reads a clock, draws randomness, or touches a disk or a network.

pub mod address;
pub mod amount;
pub mod authority;
pub mod batch;
pub mod bearer;
pub mod bitmap;
pub mod bls;
mod canonical;
pub mod cash;
pub mod certificate;
pub mod channel;
pub mod committee;
pub mod content;
pub mod distilled;
pub mod envelope;
pub mod eosio;
pub mod error;
pub mod evidence;
pub mod keys;
pub mod limits;
#[doc(hidden)]
pub mod memo;
pub mod merkle;
pub mod network_flags;
pub mod ordered;
pub mod permission;
pub mod planted;
pub mod receipt;
pub mod registration;
pub mod signatures;
#[doc(hidden)]
pub mod testing;
pub mod verdict;

/// Messages of `proto/florin.proto`, generated.
#[allow(missing_docs, clippy::all)]
pub mod wire {
    include!("generated/florin.v1.rs");
}
/// Messages of `proto/pbtx.proto`, generated.
#[allow(missing_docs, clippy::all)]
pub mod pbtx {
    include!("generated/pbtx.rs");
}
/// Messages of `proto/pbtxrpc.proto`, generated.
#[allow(missing_docs, clippy::all)]
pub mod pbtxrpc {
    include!("generated/pbtxrpc.rs");
}

pub use error::{Code, Error, Result};
