//! `florin bench report`: runs the benchmarks, each as a process of its own, and writes one page with all of them.

mod page;
mod svg;

use std::path::{Path, PathBuf};
use std::time::Instant;

use florin_core::{Code, Error, Result};
use serde_json::{Map, Value, json};

use super::child;
use super::progress::Progress;
use crate::commands::support::{io, make_folder, read_text};
use crate::output::Output;

/// Results as JSON, beside the page.
const RESULTS: &str = "results.json";
const PAGE: &str = "index.html";

/// A benchmark: its name in the report, its command, what `--quick` adds to it.
struct Bench {
    name: &'static str,
    command: &'static str,
    quick: &'static str,
}

const BENCHES: [Bench; 10] = [
    Bench { name: "transfers", command: "transfers", quick: "--accounts 2000 --rounds 2 --singles 20" },
    Bench { name: "latency", command: "latency", quick: "--authorities 4 --payments 30" },
    Bench { name: "envelopes", command: "envelopes", quick: "--envelopes 200 --runs 3" },
    Bench { name: "ordered", command: "ordered", quick: "--authorities 4 --seconds 3" },
    Bench { name: "cash", command: "cash", quick: "--runs 3 --recovered 500 --singles 5" },
    Bench { name: "cash-crypto", command: "cash-crypto", quick: "--runs 3" },
    Bench {
        name: "channels",
        command: "channels",
        quick: "--vouchers 2000 --runs 1 --channels 1000 --payments 500 --download 20",
    },
    Bench { name: "storage", command: "storage", quick: "--records 100000" },
    Bench { name: "siege", command: "siege", quick: "--payments 20 --connections 50" },
    Bench { name: "scale", command: "scale", quick: "--quick" },
];

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// Folder for the page and its results
    #[arg(long)]
    out: PathBuf,
    /// Small runs of all, to try it
    #[arg(long)]
    quick: bool,
    /// Benchmarks to run; all if not given. Results of others that are in the folder stay
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Runs nothing: writes the page anew from results of an earlier run
    #[arg(long, conflicts_with_all = ["quick", "only"])]
    from: Option<PathBuf>,
}

/// Runs it.
pub fn run(args: Args, out: Output) -> Result<()> {
    if let Some(unknown) = args.only.iter().find(|name| BENCHES.iter().all(|bench| bench.name != *name)) {
        let names = BENCHES.map(|bench| bench.name).join(", ");
        return Err(Error::expected(Code::Usage, "--only", format!("some of {names}"), unknown));
    }
    make_folder(&args.out)?;
    let results = match &args.from {
        Some(from) => read(from)?,
        None => measure(&args, out)?,
    };
    let page = args.out.join(PAGE);
    write(&page, &page::page(&results))?;
    let failed: Vec<String> =
        entries(&results).filter(|(_, v)| v["error"].is_string()).map(|(n, _)| n.clone()).collect();
    let text = format!("{}", page.display());
    out.data(text, &json!({"name": "report", "page": page, "results": args.out.join(RESULTS), "failed": failed}));
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Error::new(Code::Io, format!("these benchmarks failed: {}", failed.join(", ")))),
    }
}

/// Runs what is asked for; results are on disk after each, so that an interrupted run is not lost.
fn measure(args: &Args, out: Output) -> Result<Value> {
    let path = args.out.join(RESULTS);
    let mut benches = match (args.only.is_empty(), path.is_file()) {
        (false, true) => read(&path)?["benches"].as_object().cloned().unwrap_or_default(),
        _ => Map::new(),
    };
    let chosen = |bench: &&Bench| args.only.is_empty() || args.only.iter().any(|name| name == bench.name);
    let mut progress = Progress::new(BENCHES.iter().filter(chosen).count(), out);
    let mut results = json!(null);
    for bench in BENCHES.iter().filter(chosen) {
        let quick = if args.quick { bench.quick } else { "" };
        let command: Vec<&str> = ["bench", bench.command].into_iter().chain(quick.split_whitespace()).collect();
        progress.step(format_args!("florin {}", command.join(" ")));
        let start = Instant::now();
        let mut entry = match child::run(&command) {
            Ok(result) => json!({"result": result}),
            Err(e) => json!({"error": e.to_string()}),
        };
        entry["command"] = json!(format!("florin {}", command.join(" ")));
        entry["seconds"] = json!(start.elapsed().as_secs());
        benches.insert(bench.name.to_owned(), entry);
        results = json!({"name": "report", "machine": machine(), "benches": benches});
        write(&path, &format!("{results:#}\n"))?;
    }
    Ok(results)
}

/// All benchmarks of a report.
fn entries(results: &Value) -> impl Iterator<Item = (&String, &Value)> {
    results["benches"].as_object().into_iter().flatten()
}

fn read(path: &Path) -> Result<Value> {
    let results: Value = serde_json::from_str(&read_text(path)?)
        .map_err(|e| Error::new(Code::BadFile, format!("{}: {e}", path.display())))?;
    match results["benches"].is_object() {
        true => Ok(results),
        false => Err(Error::new(Code::BadFile, format!("{}: expected results of a report", path.display()))),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|e| io("write", path, &e))
}

/// What it ran on.
fn machine() -> Value {
    let line = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let found = text.lines().find_map(|line| line.strip_prefix(name));
        found.map_or(String::new(), |rest| rest.trim_start_matches([':', ' ', '\t']).trim().to_owned())
    };
    json!({
        "cores": std::thread::available_parallelism().map_or(1, |n| n.get()),
        "cpu": line("/proc/cpuinfo", "model name"),
        "memory": line("/proc/meminfo", "MemTotal"),
        "system": line("/proc/version", "Linux version").split(' ').next().unwrap_or_default(),
        "florin": env!("CARGO_PKG_VERSION"),
    })
}
