//! florin-node

pub mod storage;
