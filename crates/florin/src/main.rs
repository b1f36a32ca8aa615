//! The one binary: every command of Florin.

mod commands;
mod local;
mod output;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use florin_core::Result;

use commands::*;
use output::{Output, exit_status};

/// Orders are decoded on one thread and freed on another, which the system's allocator does slowly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A payment network that a committee of operators runs together, none of them trusted alone.
#[derive(Parser)]
#[command(name = "florin", version, propagate_version = true)]
struct Cli {
    /// Print one JSON value on stdout
    #[arg(long, global = true)]
    json: bool,
    /// Say more on stderr: each authority's answers, who misbehaves
    #[arg(long, short, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a committee, pay, lose an authority, pay again: the whole of it in a minute
    Demo(demo::Args),
    /// Make a committee, alone or with others
    #[command(subcommand)]
    Committee(committee::Command),
    /// Make an authority's key; run an authority
    #[command(subcommand)]
    Authority(authority::Command),
    /// A whole committee on this machine
    #[command(subcommand)]
    Devnet(devnet::Command),
    /// Keys, balances, payments
    #[command(subcommand)]
    Wallet(wallet::Command),
    /// Private money: notes that nobody can link to who had them
    #[command(subcommand)]
    Cash(cash::Command),
    /// Payment channels: any number of payments between two, of which the log sees the sum
    #[command(subcommand)]
    Channel(channel::Command),
    /// Pass payments on between channels, for a fee
    #[command(subcommand)]
    Hub(hub::Command),
    /// Lock money for whoever knows a secret; claim it; take it back
    #[command(subcommand)]
    Contract(contract::Command),
    /// Money out to the primary chain and back
    #[command(subcommand)]
    Primary(primary::Command),
    /// The registry of networks
    #[command(subcommand)]
    Network(network::Command),
    /// The actors of a PBTX network
    #[command(subcommand)]
    Actor(actor::Command),
    /// PBTX's transactions, permissions and keys
    #[command(subcommand)]
    Pbtx(pbtx::Command),
    /// Follow the settled transactions of a PBTX network, each once
    ///
    /// They are checked against the committee: no authority is believed alone. With --out each is in the file exactly once,
    /// whatever crashes. With --exec, --webhook or on stdout each comes at least once, with an idempotency key. Stops at
    /// SIGTERM or SIGINT.
    Listen(listen::Args),
    /// The ordered log
    #[command(subcommand)]
    Log(log::Command),
    /// Check receipts
    #[command(subcommand)]
    Receipt(receipt::Command),
    /// Prove who of a committee has lied
    #[command(subcommand)]
    Evidence(evidence::Command),
    /// Batch and drive other people's orders
    #[command(subcommand)]
    Worker(worker::Command),
    /// Look into files and data folders
    #[command(subcommand)]
    Inspect(inspect::Command),
    /// Recompute every balance of a data folder and compare
    Audit(audit::Args),
    /// Check configuration files
    #[command(subcommand)]
    Config(config::Command),
    /// Measure
    #[command(subcommand)]
    Bench(bench::Command),
    /// Simulate whole committees
    #[command(subcommand)]
    Sim(sim::Command),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let out = Output { json: cli.json, verbose: cli.verbose };
    match run(cli.command, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            out.error(&e);
            ExitCode::from(exit_status(e.code))
        }
    }
}

fn run(command: Command, out: Output) -> Result<()> {
    match command {
        Command::Demo(args) => demo::run(args, out),
        Command::Committee(command) => committee::run(command, out),
        Command::Authority(command) => authority::run(command, out),
        Command::Devnet(command) => devnet::run(command, out),
        Command::Wallet(command) => wallet::run(command, out),
        Command::Cash(command) => cash::run(command, out),
        Command::Channel(command) => channel::run(command, out),
        Command::Hub(command) => hub::run(command, out),
        Command::Contract(command) => contract::run(command, out),
        Command::Primary(command) => primary::run(command, out),
        Command::Network(command) => network::run(command, out),
        Command::Actor(command) => actor::run(command, out),
        Command::Pbtx(command) => pbtx::run(command, out),
        Command::Listen(args) => listen::run(args, out),
        Command::Log(command) => log::run(command, out),
        Command::Receipt(command) => receipt::run(command, out),
        Command::Evidence(command) => evidence::run(command, out),
        Command::Worker(command) => worker::run(command, out),
        Command::Inspect(command) => inspect::run(command, out),
        Command::Audit(args) => audit::run(args, out),
        Command::Config(command) => config::run(command, out),
        Command::Bench(command) => bench::run(command, out),
        Command::Sim(command) => sim::run(command, out),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "florin", &mut script);
            out.data(String::from_utf8_lossy(&script).trim_end(), &serde_json::Value::Null);
            Ok(())
        }
    }
}
