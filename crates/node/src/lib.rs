//! florin-node
