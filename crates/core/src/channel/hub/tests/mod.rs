//! Tests of hubs: wallets whose messages get lost, repeated and mixed up, and whose journals lose what is not synced.

mod asks;
mod edges;
mod ends;
mod forget;
mod limits;
mod payments;
mod random;
mod said;
mod trouble;
mod world;
