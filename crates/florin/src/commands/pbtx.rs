//! `florin pbtx`: PBTX's transactions, permissions and keys, without a network and with one.

mod describe;
mod input;
mod keys;
mod offline;
mod permission;
mod push;
mod sign;
mod signatures;
mod status;
mod verify;

use std::path::PathBuf;

use clap::Subcommand;
use florin_core::Result;

use crate::output::Output;

pub use describe::permission as describe_permission;
pub use input::{bytes, private_keys};
pub use permission::from_keys;
pub use push::{exit, pushed};
pub use status::{actor_rows, actor_value, unknown as unknown_actor};

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
    /// Hand in transactions: all of some files, in one batch where that is possible
    ///
    /// A file has one envelope in hex digits a line, as `florin pbtx sign` prints and appends them. What is settled already changes
    /// nothing, so whatever goes wrong, push again.
    Push(push::Args),
    /// An actor's sequence; what became of one of its transactions
    Status(status::Args),
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
        Command::Push(args) => push::run(&args, out),
        Command::Status(args) => status::run(&args, out),
        Command::Mksig(args) => signatures::make(&args, out),
        Command::Checksig(args) => signatures::check(&args, out),
        Command::Show(args) => describe::run(&args, out),
    }
}
