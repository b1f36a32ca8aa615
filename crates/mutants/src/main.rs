//! Every mutant that cargo-mutants lists, in one build: which of them do a crate's own tests find?
//!
//! cargo-mutants builds and tests one at a time. Here each is a branch behind a switch that the environment sets, so that all are compiled
//! once (mutant schemata: Untch, Offutt and Harrold, 1993); and of the tests only those run that come by the mutant, the quickest
//! first, until one fails. What cannot be switched (constants, `const fn`, what returns `impl Trait`) is named and left out.

mod compile;
mod instrument;
mod list;
mod run;
// Compiled here only so that it is checked; what is used is its text.
#[allow(dead_code)]
mod switch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

use compile::Tree;
use instrument::Id;
use list::Mutant;
use run::Verdict;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Which mutants of a crate do its own tests find?
#[derive(Parser)]
struct Args {
    /// The package
    #[arg(long, default_value = "florin-core")]
    package: String,
    /// Only so many, by chance
    #[arg(long)]
    sample: Option<usize>,
    /// Which ones those are
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only those with this in their name (a file, a function)
    #[arg(long)]
    only: Option<String>,
    /// Only those that this file names: `survivors.txt` of a run before
    #[arg(long)]
    again: Option<PathBuf>,
    /// Tests that take longer are left out, seconds
    #[arg(long, default_value_t = 1.0)]
    slow: f64,
    /// Tests at a time
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// Where all of it goes
    #[arg(long, default_value = "target/mutants")]
    out: PathBuf,
    /// The workspace
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// What `cargo mutants --list --json` said, in a file
    #[arg(long)]
    list: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("florin-mutants: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let root = args.root.canonicalize()?;
    let mutants = match &args.list {
        Some(path) => serde_json::from_slice(&fs::read(path)?)?,
        None => list::list(&root, &args.package)?,
    };
    let first = mutants.first().ok_or("cargo-mutants finds nothing to change")?;
    let (folder, _) = first.file.split_once("/src/").ok_or_else(|| format!("{}: not below src", first.file))?;
    fs::create_dir_all(&args.out)?;
    let out = args.out.canonicalize()?;
    let tree = Tree {
        root,
        copy: out.join("tree"),
        target: out.join("build"),
        package: args.package.clone(),
        folder: folder.into(),
    };
    tree.refresh()?;
    let built = tree.mutate(&mutants)?;
    println!(
        "{} mutants: {} do not compile, {} are in constants or where nothing can be switched",
        mutants.len(),
        built.failed.len(),
        built.unplaced.len()
    );
    let programs = tree.tests()?;
    let bar = bar(None, "tests alone");
    let tests = run::survey(&programs, &tree.folder(), &out.join("reached"), args.jobs, &|| bar.inc(1))?;
    bar.finish_and_clear();
    let slow = Duration::from_secs_f64(args.slow);
    let took: Duration = tests.iter().map(|t| t.took).sum();
    let left_out = tests.iter().filter(|t| t.took > slow).count();
    println!(
        "{} tests, {:.0} s; {left_out} that take more than {} s are left out",
        tests.len(),
        took.as_secs_f64(),
        args.slow
    );

    let chosen = choose(args, &mutants, &built.placed)?;
    let started = Instant::now();
    let report = judge(args, &mutants, &tests, &chosen, &tree.folder(), &out, slow)?;
    println!("{report}{:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Those that are asked for, in an order by chance.
fn choose(args: &Args, mutants: &[Mutant], placed: &BTreeSet<Id>) -> Result<Vec<Id>> {
    let again = args.again.as_ref().map(fs::read_to_string).transpose()?;
    let again: Option<BTreeSet<&str>> = again.as_ref().map(|text| text.lines().filter_map(name_in).collect());
    let name = |id: Id| mutants[id as usize - 1].name.as_str();
    let mut chosen: Vec<Id> = placed
        .iter()
        .copied()
        .filter(|id| again.as_ref().is_none_or(|names| names.contains(name(*id))))
        .filter(|id| args.only.as_ref().is_none_or(|part| name(*id).contains(part)))
        .collect();
    let mut rng = ChaCha8Rng::seed_from_u64(args.seed);
    for i in (1..chosen.len()).rev() {
        chosen.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
    }
    chosen.truncate(args.sample.unwrap_or(usize::MAX));
    Ok(chosen)
}

/// A line of `survivors.txt` is `unreached NAME` or `survived NAME`.
fn name_in(line: &str) -> Option<&str> {
    line.split_once(' ').map(|(_, name)| name)
}

fn judge(
    args: &Args,
    mutants: &[Mutant],
    tests: &[run::Test],
    chosen: &[Id],
    folder: &Path,
    out: &Path,
    slow: Duration,
) -> Result<String> {
    let bar = bar(Some(chosen.len()), "mutants");
    let survivors = Mutex::new(Vec::new());
    let survivors_path = out.join("survivors.txt");
    // Told as it goes: all of them take an hour.
    let verdicts = run::judge(tests, chosen, folder, slow, args.jobs, &|id, verdict| {
        let mutant = &mutants[id as usize - 1];
        let word = match verdict {
            Verdict::Killed(_) => None,
            Verdict::Survived => Some("survived"),
            Verdict::Unreached => Some("unreached"),
        };
        if let Some(word) = word {
            let mut survivors = survivors.lock().unwrap_or_else(PoisonError::into_inner);
            survivors.push(format!("{word} {}", mutant.name));
            bar.set_message(format!("mutants, {} survive", survivors.len()));
            if let Err(e) = fs::write(&survivors_path, survivors.join("\n") + "\n") {
                bar.println(format!("{}: {e}", survivors_path.display()));
            }
        }
        bar.inc(1);
    });
    bar.finish_and_clear();
    let mut survivors = survivors.into_inner().unwrap_or_else(PoisonError::into_inner);
    survivors.sort();
    fs::write(&survivors_path, survivors.iter().map(|s| format!("{s}\n")).collect::<String>())?;
    let mut by_file: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (id, verdict) in &verdicts {
        let of_file = by_file.entry(&mutants[*id as usize - 1].file).or_default();
        of_file.0 += 1;
        of_file.1 += usize::from(!matches!(verdict, Verdict::Killed(_)));
    }
    let mut report = String::from("survive   of  file\n");
    for (file, (all, survive)) in &by_file {
        report += &format!("{survive:>7} {all:>4}  {file}\n");
    }
    let killed = verdicts.len() - survivors.len();
    let percent = 100.0 * killed as f64 / verdicts.len().max(1) as f64;
    report +=
        &format!("killed {killed} of {} ({percent:.1} %); the others: {}; ", verdicts.len(), survivors_path.display());
    Ok(report)
}

fn bar(of: Option<usize>, what: &str) -> ProgressBar {
    let bar = of.map_or_else(ProgressBar::new_spinner, |of| ProgressBar::new(of as u64));
    let template = if of.is_some() { "{wide_bar} {pos}/{len} {msg} {eta}" } else { "{spinner} {pos} {msg}" };
    bar.set_style(ProgressStyle::with_template(template).expect("the template is sound"));
    bar.set_message(what.to_owned());
    bar
}
