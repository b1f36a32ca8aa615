//! Florin for people and programs: the wallet and what it keeps on disk.

pub mod cash;
pub mod channel;
mod files;
pub mod journal;
pub mod keystore;
pub mod listener;
pub mod log;
pub mod network;
pub mod pbtx;
pub mod pbtx_http;
pub mod quorum;
pub mod receipt_file;
pub mod seed;
pub mod time;
pub mod wallet;
pub mod worker;
pub mod worker_client;
