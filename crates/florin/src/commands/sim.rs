//! `florin sim`.

use std::time::Instant;

use clap::Subcommand;
use florin_core::limits::{COMMITTEE_MAX, COMMITTEE_MIN, SHARDS_MAX};
use florin_core::{Code, Error, Result};
use florin_sim::{Options, Report};
use serde_json::json;

use super::support::fail_with_report;
use crate::output::Output;

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Run a committee, wallets, faults and attackers in virtual time, and check its promises after every step
    ///
    /// The same options give the same run, event for event.
    Run(RunArgs),
}

/// Options of `sim run`.
#[derive(clap::Args)]
pub struct RunArgs {
    /// Where all chance comes from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run this many seeds, from --seed on
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Authorities, 4 to 128
    #[arg(long, default_value_t = 4)]
    authorities: u32,
    /// Shards of each, 1 to 1024
    #[arg(long, default_value_t = 2)]
    shards: u32,
    /// Virtual seconds with payments and faults
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Honest wallets
    #[arg(long, default_value_t = 9)]
    wallets: u32,
    /// Let all authorities and clients be honest
    #[arg(long)]
    no_attackers: bool,
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    let Command::Run(args) = command;
    check(&args)?;
    let mut reports: Vec<Report> = Vec::new();
    for seed in args.seed..=args.seed.saturating_add(args.seeds - 1) {
        let started = Instant::now();
        let mut report = florin_sim::run(Options {
            authorities: args.authorities,
            shards: args.shards,
            seconds: args.seconds,
            wallets: args.wallets,
            attackers: !args.no_attackers,
            ..Options::new(seed)
        });
        report.wall_seconds = Some(started.elapsed().as_secs_f64());
        if args.seeds > 1 {
            let found = report.violations.len();
            out.note(format_args!("seed {seed}: {} events, {found} violations", report.events));
        }
        reports.push(report);
    }
    let violations: usize = reports.iter().map(|r| r.violations.len()).sum();
    let shown = reports.iter().filter(|r| args.seeds == 1 || !r.violations.is_empty());
    let mut text: Vec<String> = shown.map(Report::to_string).collect();
    if args.seeds > 1 {
        text.push(format!("{} runs, {violations} violations", reports.len()));
    }
    let (text, value) = (text.join("\n\n"), json!({"runs": reports, "violations": violations}));
    if violations == 0 {
        out.data(text, &value);
        return Ok(());
    }
    let e = Error::new(Code::AuditFailed, format!("{violations} promises broken in {} runs", reports.len()));
    fail_with_report(out, &text, value, &e)
}

fn check(args: &RunArgs) -> Result<()> {
    let ranges = [
        ("--authorities", u64::from(args.authorities), COMMITTEE_MIN as u64, COMMITTEE_MAX as u64),
        ("--shards", args.shards.into(), 1, SHARDS_MAX.into()),
        ("--wallets", args.wallets.into(), 1, 10_000),
        ("--seconds", args.seconds, 1, 1_000_000),
        ("--seeds", args.seeds, 1, 1_000_000),
    ];
    match ranges.into_iter().find(|(_, found, from, to)| !(from..=to).contains(&found)) {
        Some((name, found, from, to)) => Err(Error::expected(Code::Usage, name, format!("{from} to {to}"), found)),
        None => Ok(()),
    }
}
