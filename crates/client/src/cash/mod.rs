//! E-cash for people and programs: a wallet's notes.

pub mod amounts;
pub mod text;
