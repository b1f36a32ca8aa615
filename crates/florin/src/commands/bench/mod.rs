//! `florin bench`: what it costs, beside what it can't cost less than, measured in the same run.

pub mod burst;
mod cash;
mod cash_crypto;
mod channels;
mod child;
mod cpu;
mod download;
mod envelopes;
mod far;
mod hub;
mod latency;
mod load;
mod ordered;
mod progress;
mod report;
mod scale;
mod siege;
mod storage;
mod transfers;

use clap::Subcommand;
use florin_core::Result;

use crate::output::Output;

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Settled durable transfers per second, CPU per transfer, latency of single payments
    Transfers(transfers::Args),
    /// Latency of single payments beside disk syncs of the same run, also with authorities far away
    Latency(latency::Args),
    /// Orders through the log a second and their latency, beside the bare ordering engine and plain payments
    Ordered(ordered::Args),
    /// CPU of checking one signed envelope by kind of key, beside the plain library call
    Envelopes(envelopes::Args),
    /// CPU that a note of e-cash costs an authority, beside the plain library calls; latency of reissues; recovery
    Cash(cash::Args),
    /// CPU of a voucher made and taken, journaled, beside the plain signature operations; payments over a hub; bytes of a
    /// channel; a paid download beside an unpaid one
    Channels(channels::Args),
    /// Latency of single payments and memory of the authorities while a stranger attacks them in several ways, beside none
    Siege(siege::Args),
    /// A shard's storage: durable groups, a large table, opening it again, beside plain appends to a file
    Storage(storage::Args),
    /// CPU per transfer as accounts, shards, the committee, batches or history grow, and where it bends
    Scale(scale::Args),
    /// Runs them all and writes one HTML page with tables and plots
    Report(report::Args),
    /// CPU of each operation of e-cash's cryptography, beside the plain library calls
    CashCrypto(cash_crypto::Args),
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    match command {
        Command::Transfers(args) => transfers::run(args, out),
        Command::Latency(args) => latency::run(args, out),
        Command::Ordered(args) => ordered::run(args, out),
        Command::Envelopes(args) => envelopes::run(args, out),
        Command::Cash(args) => cash::run(args, out),
        Command::Channels(args) => channels::run(args, out),
        Command::Siege(args) => siege::run(args, out),
        Command::Storage(args) => storage::run(args, out),
        Command::Scale(args) => scale::run(args, out),
        Command::Report(args) => report::run(args, out),
        Command::CashCrypto(args) => cash_crypto::run(args, out),
    }
}
