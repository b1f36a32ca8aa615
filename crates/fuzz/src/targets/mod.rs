//! The targets by area. Each takes any bytes.

pub mod channels;
pub mod dkg;
pub mod keys;
pub mod log;
pub mod log_decides;
pub mod orders;
pub mod proofs;
pub mod records;
pub mod roots;
pub mod rows;
pub mod shard;
pub mod text;
pub mod vouchers;
