//! A Florin authority as a server: the shell that runs `florin-core`'s effects in order, storage, gRPC,
//! delivery between shards, catching up with peers, metrics.

pub mod calls;
pub mod cash;
mod catch_up;
pub mod config;
pub mod consensus;
mod door;
mod evidence;
pub mod follow;
pub mod genesis;
mod http;
mod inbox;
pub mod log;
pub mod meter;
mod metrics;
pub mod node;
pub mod ordering;
pub mod outbox;
pub mod participation;
pub mod peers;
pub mod service;
pub mod shard;
pub mod steps;
pub mod storage;
