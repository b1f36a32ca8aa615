//! Tests of the manager: wallets with a journal that loses what is not synced, and a log that applies their messages.

mod chain;
mod crashes;
mod edges;
mod funding;
mod history;
mod limits;
mod locks;
mod money;
mod queries;
mod random;
mod restarts;
mod seen;
mod settling;
mod towers;
mod virtual_lanes;
mod vouchers;
mod watching;
mod world;
