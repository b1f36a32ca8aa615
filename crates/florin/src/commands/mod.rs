//! One file a noun.

pub mod audit;
pub mod authority;
pub mod bench;
pub mod committee;
pub mod config;
pub mod demo;
pub mod devnet;
pub mod inspect;
pub mod receipt;
pub mod sim;
pub mod support;
pub mod wallet;
pub mod worker;
