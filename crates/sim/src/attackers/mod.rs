//! Those who break the rules, one to a file.

pub mod replays;
pub mod signs_twice;
pub mod votes_for_everything;
