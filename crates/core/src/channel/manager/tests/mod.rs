//! Tests of the manager: wallets with a journal that loses what is not synced, and a log that applies their messages.

mod chain;
mod crashes;
mod edges;
mod funding;
mod limits;
mod locks;
mod random;
mod restarts;
mod seen;
mod settling;
mod towers;
mod vouchers;
mod world;
