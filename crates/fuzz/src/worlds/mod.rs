//! What targets with signatures and state begin with: made once a process, of public keys from fixed seeds.

pub mod chain;
pub mod ledger;
pub mod proofs;
pub mod shard;
