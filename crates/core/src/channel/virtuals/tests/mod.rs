//! Virtual channels of wallets and hubs, in a world with a log that goes by the rules.

mod attacks;
mod claims;
mod crashes;
mod edges;
mod limits;
mod lives;
mod random;
mod rate;
mod sets;
mod world;
