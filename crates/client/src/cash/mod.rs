//! E-cash for people and programs: a wallet's notes.

pub mod amounts;
pub mod records;
pub mod store;
pub mod text;
