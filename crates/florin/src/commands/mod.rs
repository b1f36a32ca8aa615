//! One file a noun.

pub mod actor;
pub mod audit;
pub mod authority;
pub mod bench;
pub mod call;
pub mod cash;
pub mod channel;
pub mod committee;
pub mod config;
pub mod contract;
pub mod demo;
pub mod devnet;
pub mod evidence;
pub mod hub;
pub mod inspect;
pub mod listen;
pub mod log;
pub mod network;
pub mod pbtx;
pub mod primary;
pub mod receipt;
pub mod sim;
pub mod support;
pub mod wallet;
pub mod worker;
