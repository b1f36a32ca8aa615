//! `florin pbtx`: PBTX's transactions, permissions and keys, without a network.

mod describe;
mod input;
mod keys;
mod offline;
mod permission;
mod sign;
mod signatures;
mod verify;

use std::path::PathBuf;

use clap::Subcommand;
use florin_core::Result;

use crate::output::Output;

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Judge transactions and permissions by the checks of an authority
    ///
    /// docs/pbtx.md describes the cases and the verdicts.
    Verify {
        /// JSON array of cases; - reads stdin
        #[arg(value_name = "CASES.json")]
        file: PathBuf,
    },
    /// Make a permission; show one
    #[command(subcommand)]
    Permission(permission::Command),
    /// Make keys; convert them between EOSIO's texts and PBTX's bytes
    #[command(subcommand)]
    Key(keys::Command),
    /// Sign a transaction; add signatures to one; sign a chain of them offline
    Sign(Box<sign::Args>),
    /// Sign other data with PBTX keys, as a registration or a login asks for
    Mksig(signatures::MakeArgs),
    /// Check a signature of other data
    Checksig(signatures::CheckArgs),
    /// Show an envelope, a body or a permission, and what follows it
    Show(describe::Args),
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    match command {
        Command::Verify { file } => verify::run(&file, out),
        Command::Permission(command) => permission::run(command, out),
        Command::Key(command) => keys::run(command, out),
        Command::Sign(args) => sign::run(&args, out),
        Command::Mksig(args) => signatures::make(&args, out),
        Command::Checksig(args) => signatures::check(&args, out),
        Command::Show(args) => describe::run(&args, out),
    }
}
