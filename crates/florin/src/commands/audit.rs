//! `florin audit`.

use florin_core::{Code, Error, Result};

use crate::output::Output;

/// Options.
#[derive(clap::Args)]
pub struct Args {}

/// Runs it.
pub fn run(_: Args, _: Output) -> Result<()> {
    Err(Error::new(Code::Usage, "this command is not there yet"))
}
