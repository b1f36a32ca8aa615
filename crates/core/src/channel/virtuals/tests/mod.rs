//! Virtual channels of wallets and hubs, in a world with a log that goes by the rules.

mod attacks;
mod crashes;
mod limits;
mod lives;
mod random;
mod rate;
mod world;
