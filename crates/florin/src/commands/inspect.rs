//! `florin inspect`: files and data folders for people, or with `--json` for programs.

mod files;
mod order;
pub mod store;

use std::path::PathBuf;

use clap::Subcommand;
use florin_core::Result;

use crate::output::Output;

/// Subcommands. Data folders are looked at while no authority uses them.
#[derive(Subcommand)]
pub enum Command {
    /// A committee file
    Committee {
        /// The file
        file: PathBuf,
    },
    /// A wallet file: accounts and addresses; needs no passphrase
    Wallet {
        /// The file
        file: PathBuf,
    },
    /// A receipt file; `florin receipt verify` says whether it proves anything
    Receipt {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        with: WithCommittee,
    },
    /// A signed order: a PBTX envelope
    Envelope {
        /// Hex digits, or a file with hex digits or the bytes themselves
        envelope: String,
        #[command(flatten)]
        with: WithCommittee,
    },
    /// An account in a data folder
    Account {
        /// An authority's data folder, or one shard's
        dir: PathBuf,
        /// The account's address
        #[arg(long)]
        address: String,
        #[command(flatten)]
        with: WithCommittee,
    },
    /// An order in a data folder
    Order(store::OrderArgs),
    /// Credits that are on their way from one shard to another
    Outbox {
        /// An authority's data folder, or one shard's
        dir: PathBuf,
        #[command(flatten)]
        with: WithCommittee,
    },
}

/// For amounts and addresses as people write them.
#[derive(clap::Args)]
pub struct WithCommittee {
    /// Committee file, to show amounts with their decimals and addresses with their currency
    #[arg(long, env = "FLORIN_COMMITTEE", value_name = "FILE")]
    committee: Option<PathBuf>,
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    match command {
        Command::Committee { file } => files::committee(&file, out),
        Command::Wallet { file } => files::wallet(&file, out),
        Command::Receipt { file, with } => files::receipt(&file, &with.money()?, out),
        Command::Envelope { envelope, with } => files::envelope(&envelope, &with.money()?, out),
        Command::Account { dir, address, with } => store::account(&dir, &address, &with.money()?, out),
        Command::Order(args) => store::order(args, out),
        Command::Outbox { dir, with } => store::outbox(&dir, &with.money()?, out),
    }
}

impl WithCommittee {
    fn money(&self) -> Result<order::Money> {
        Ok(order::Money(match &self.committee {
            Some(file) => Some(florin_node::config::read_committee(file)?.network),
            None => None,
        }))
    }
}
