//! `florin sim`.

mod files;
mod many;

use std::path::PathBuf;
use std::time::Instant;

use clap::Subcommand;
use florin_core::limits::{COMMITTEE_MAX, COMMITTEE_MIN, SHARDS_MAX};
use florin_core::{Code, Error, Result};
use florin_sim::saved::Saved;
use florin_sim::{Options, Part, Profile, Report, hubs};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::support::fail_with_report;
use crate::output::Output;

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Run a committee, wallets, faults and attackers in virtual time, and check its promises after every step
    ///
    /// The same options give the same run, event for event.
    Run(RunArgs),
    /// Run seeds one after another until the time is over: all profiles, committees of 4, 7 and 10
    Soak(many::SoakArgs),
    /// Run a file of `sim run --out` or `sim soak --out` again, and say whether it comes to the same
    ///
    /// The exit status says whether a rule is broken now, whatever the file says.
    Replay(files::ReplayArgs),
    /// Find a smaller run with the same kind of violation as a file's: fewer faults, attackers and clients, less time
    Shrink(files::ShrinkArgs),
    /// Run many seeds and print one table: operations, faults, attackers, rare branches, violations, speed
    Report(many::ReportArgs),
    /// Run lives of a hub with many channels: payments, crashes, expiries, old backups, liars; and check everybody's money
    ///
    /// A life is decided by its seed, --channels and --steps.
    Hubs(HubsArgs),
}

/// Options of `sim hubs`.
#[derive(clap::Args)]
pub struct HubsArgs {
    /// Of the first life; the others follow
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Lives
    #[arg(long, default_value_t = 1_000)]
    schedules: u64,
    /// Channels of the hub, 4 to 200
    #[arg(long, default_value_t = 20)]
    channels: usize,
    /// Things that happen in a life before all is settled
    #[arg(long, default_value_t = 200)]
    steps: u64,
    /// Live each life again for every entry of its hub's journal and of a user's, with a crash before and after it
    #[arg(long)]
    every_point: bool,
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
    /// How many times slower than usual clients and liars come up with something to do; faults come as ever
    #[arg(long, default_value_t = 1)]
    pace: u64,
    /// Let all authorities and clients be honest
    #[arg(long)]
    no_attackers: bool,
    /// The mix of faults: mixed, calm, lossy, partitions, disks, clocks, crashes, all
    #[arg(long, value_name = "NAME", default_value = "mixed", value_parser = named::<Profile>)]
    profile: Profile,
    /// Leave out a kind of fault, attacker or work, as loss or channels; may be repeated
    #[arg(long, value_name = "PART", value_parser = named::<Part>)]
    without: Vec<Part>,
    /// Write the options and what they came to, for `sim replay`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Something by its name in files.
fn named<T: DeserializeOwned>(text: &str) -> std::result::Result<T, String> {
    serde_json::from_value(Value::String(text.to_owned())).map_err(|e| e.to_string())
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    let args = match command {
        Command::Run(args) => args,
        Command::Soak(args) => return many::soak(&args, out),
        Command::Replay(args) => return files::replay(&args, out),
        Command::Shrink(args) => return files::shrink(&args, out),
        Command::Report(args) => return many::report(&args, out),
        Command::Hubs(args) => return run_hubs(&args, out),
    };
    check(&args)?;
    let mut reports: Vec<Report> = Vec::new();
    for seed in args.seed..=args.seed.saturating_add(args.seeds - 1) {
        let started = Instant::now();
        let options = Options {
            authorities: args.authorities,
            shards: args.shards,
            seconds: args.seconds,
            wallets: args.wallets,
            pace: args.pace,
            attackers: !args.no_attackers,
            profile: args.profile,
            off: args.without.iter().copied().collect(),
            ..Options::new(seed)
        };
        check_options(&options)?;
        let mut report = florin_sim::run(options.clone());
        report.wall_seconds = Some(started.elapsed().as_secs_f64());
        if let Some(path) = &args.out {
            files::write(path, &Saved::new(options, &report))?;
        }
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

fn run_hubs(args: &HubsArgs, out: Output) -> Result<()> {
    check_ranges([
        ("--schedules", args.schedules, 1, 1_000_000_000),
        ("--channels", args.channels as u64, 4, 200),
        ("--steps", args.steps, 1, 1_000_000),
    ])?;
    let (started, mut lives) = (Instant::now(), 0);
    let options =
        hubs::Options { channels: args.channels, steps: args.steps, ..hubs::Options::new(args.seed, args.schedules) };
    let progress = |seed: u64, violations: &[String]| {
        lives += 1;
        for what in violations {
            out.note(format_args!("seed {seed}: {what}"));
        }
        if lives % 10_000 == 0 {
            out.note(format_args!("{lives} lives"));
        }
    };
    let mut report = match args.every_point {
        true => hubs::run_every_point(&options, progress),
        false => hubs::run(&options, progress),
    };
    report.wall_seconds = Some(started.elapsed().as_secs_f64());
    let (text, value) = (report.to_string(), json!({"hubs": report}));
    if report.broken.is_empty() {
        out.data(text, &value);
        return Ok(());
    }
    let e = Error::new(Code::AuditFailed, format!("promises broken in {} lives", report.broken.len()));
    fail_with_report(out, &text, value, &e)
}

fn check(args: &RunArgs) -> Result<()> {
    let most = if args.out.is_some() { 1 } else { 1_000_000 };
    check_ranges([("--seeds", args.seeds, 1, most)])
}

/// Whether a run is possible.
fn check_options(options: &Options) -> Result<()> {
    check_ranges([
        ("--authorities", u64::from(options.authorities), COMMITTEE_MIN as u64, COMMITTEE_MAX as u64),
        ("--shards", options.shards.into(), 1, SHARDS_MAX.into()),
        ("--wallets", options.wallets.into(), 1, 10_000),
        ("--pace", options.pace, 1, 10_000),
        ("--seconds", options.seconds, 1, 1_000_000),
        ("liars_beyond", options.liars_beyond.into(), 0, u64::from(options.authorities / 2)),
    ])
}

fn check_ranges<const N: usize>(ranges: [(&str, u64, u64, u64); N]) -> Result<()> {
    match ranges.into_iter().find(|(_, found, from, to)| !(from..=to).contains(&found)) {
        Some((name, found, from, to)) => Err(Error::expected(Code::Usage, name, format!("{from} to {to}"), found)),
        None => Ok(()),
    }
}
