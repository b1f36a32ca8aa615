//! `florin inspect`.

use clap::Subcommand;
use florin_core::{Code, Error, Result};

use crate::output::Output;

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Not there yet
    Nothing,
}

/// Runs one.
pub fn run(_: Command, _: Output) -> Result<()> {
    Err(Error::new(Code::Usage, "this command is not there yet"))
}
