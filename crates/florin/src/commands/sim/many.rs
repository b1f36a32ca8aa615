//! Many runs: until the time is over, or so many.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use florin_core::{Code, Error, Result};
use florin_node::meter::thread_cpu_ns;
use florin_sim::saved::{Saved, run_caught};
use florin_sim::survey::{Sparse, Survey};
use florin_sim::{Options, Profile, Report};
use serde_json::json;

use super::{check_ranges, files, named};
use crate::commands::support::{fail_with_report, make_folder};
use crate::commands::wallet::duration;
use crate::output::Output;

/// Between two lines that say how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// Options of `sim soak`.
#[derive(clap::Args)]
pub struct SoakArgs {
    /// How long: as 30s or 10m
    #[arg(long = "for", value_name = "DURATION", default_value = "10m", value_parser = duration)]
    time: Duration,
    /// The first seed; the others follow
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this mix of faults
    #[arg(long, value_name = "NAME", value_parser = named::<Profile>)]
    profile: Option<Profile>,
    /// Stop at the first run that breaks a rule
    #[arg(long)]
    stop: bool,
    /// Write a file into this folder for each run that breaks a rule
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Options of `sim report`.
#[derive(clap::Args)]
pub struct ReportArgs {
    /// The first seed; the others follow
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// Only this mix of faults
    #[arg(long, value_name = "NAME", value_parser = named::<Profile>)]
    profile: Option<Profile>,
    /// Run the first so many twice, and compare
    #[arg(long, value_name = "SEEDS", default_value_t = 10)]
    twice: u64,
    /// Run so many seeds for 1,000 s with few payments as well, to say how fast that is
    #[arg(long, value_name = "SEEDS", default_value_t = 3)]
    sparse: u64,
}

fn options(seed: u64, profile: Option<Profile>) -> Options {
    let varied = Options::varied(seed);
    Options { profile: profile.unwrap_or(varied.profile), ..varied }
}

/// Runs one, and says how many CPU seconds it took.
fn measured(options: &Options) -> (Report, f64) {
    let before = thread_cpu_ns();
    let mut report = run_caught(options, None);
    // What it took is no part of what it came to.
    report.wall_seconds = None;
    (report, (thread_cpu_ns() - before) as f64 / 1e9)
}

/// Says how far it is, now and then.
struct Progress(Instant, Output);

impl Progress {
    fn says(&mut self, survey: &Survey) {
        if self.0.elapsed() >= PROGRESS {
            self.0 = Instant::now();
            let (hours, found) = (survey.simulated_hours, survey.violations.len());
            self.1.note(format_args!("{} seeds, {hours:.2} simulated hours, {found} violations", survey.seeds));
        }
    }
}

/// Runs seeds until the time is over.
pub fn soak(args: &SoakArgs, out: Output) -> Result<()> {
    if let Some(folder) = &args.out {
        make_folder(folder)?;
    }
    let (started, mut survey, mut progress) = (Instant::now(), Survey::default(), Progress(Instant::now(), out));
    let mut bad = Vec::new();
    for seed in args.seed.. {
        let options = options(seed, args.profile);
        let (report, cpu) = measured(&options);
        survey.add(&report, cpu);
        progress.says(&survey);
        if let Some(first) = report.violations.first() {
            bad.push(seed);
            let profile = args.profile.map_or(String::new(), |p| format!(" --profile {}", p.name()));
            let replay = match &args.out {
                Some(folder) => {
                    let path = folder.join(format!("seed-{seed}.json"));
                    files::write(&path, &Saved::new(options, &report))?;
                    format!("florin sim replay {}", path.display())
                }
                None => format!("florin sim soak --seed {seed} --for 0s{profile} --out FOLDER"),
            };
            out.note(format_args!("seed {seed}: {first}\n  again: {replay}"));
        }
        if started.elapsed() >= args.time || args.stop && !bad.is_empty() {
            break;
        }
    }
    let text = format!(
        "{} seeds from {}, {:.2} simulated hours, {:.0} times real time by CPU; {} with violations{}",
        survey.seeds,
        args.seed,
        survey.simulated_hours,
        survey.speed_up,
        bad.len(),
        bad.iter().map(|seed| format!("\n  seed {seed}")).collect::<String>()
    );
    finish(out, &text, &survey, bad.len())
}

/// Prints the table of many runs.
pub fn report(args: &ReportArgs, out: Output) -> Result<()> {
    check_ranges([("--seeds", args.seeds, 1, 1_000_000)])?;
    let (mut survey, mut progress) = (Survey::default(), Progress(Instant::now(), out));
    for seed in args.seed..args.seed.saturating_add(args.seeds) {
        let options = options(seed, args.profile);
        let (report, cpu) = measured(&options);
        survey.add(&report, cpu);
        if seed - args.seed < args.twice {
            survey.again(&report, &measured(&options).0);
        }
        progress.says(&survey);
    }
    for seed in args.seed..args.seed.saturating_add(args.sparse) {
        let (report, cpu) = measured(&Sparse::options(seed));
        survey.add_sparse(&report, cpu);
    }
    let bad = survey.violations.len() + survey.unequal.len();
    finish(out, &survey.to_string(), &survey, bad)
}

fn finish(out: Output, text: &str, survey: &Survey, bad: usize) -> Result<()> {
    let value = json!({"survey": survey});
    if bad == 0 {
        out.data(text, &value);
        return Ok(());
    }
    let e = Error::new(Code::AuditFailed, format!("{bad} of {} runs broke promises or differed", survey.seeds));
    fail_with_report(out, text, value, &e)
}
