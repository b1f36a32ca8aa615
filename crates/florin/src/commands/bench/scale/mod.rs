//! `florin bench scale`: what a settled transfer costs an authority as one thing grows and the others stay.
//!
//! One authority is measured, in a process of its own for each point: its real shards, each with its threads, its storage on
//! disk and synced, its deliveries to the other shards. The load makes everything that others would send, ahead of time: signed
//! orders, and the votes of a quorum. So a committee of a hundred is measured on two cores; what is left out is what the network
//! costs: gRPC, TLS, and following the settled streams of the others. Committees of real processes say what that is.

mod accounts;
mod dimensions;
mod point;
mod usage;
mod words;

use std::path::PathBuf;

use florin_core::{Code, Error, Result};
use serde_json::{Value, json};

use self::dimensions::{Dimension, Plan};
use self::point::{Measured, Point};
use super::child;
use super::progress::Progress;
use crate::commands::support::table;
use crate::output::Output;

/// What the measured authority is spared, for people and programs.
const LEFT_OUT: &str = "one authority in a process of its own; left out: gRPC, TLS, following the other authorities";

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// Dimensions to measure; all if not given
    #[arg(long, value_delimiter = ',')]
    only: Vec<Dimension>,
    /// Few and small points, to try it
    #[arg(long)]
    quick: bool,
    /// Most accounts of one shard
    #[arg(long, default_value_t = 10_000_000)]
    max_accounts: u64,
    /// Most shards
    #[arg(long, default_value_t = 8)]
    max_shards: u32,
    /// Most authorities
    #[arg(long, default_value_t = 100)]
    max_committee: usize,
    /// Most orders of a batch
    #[arg(long, default_value_t = 4_096)]
    max_batch: usize,
    /// Most transfers settled before
    #[arg(long, default_value_t = 3_000_000)]
    max_history: u64,
    /// Sizes of committees of real processes that are measured beside, with `committee`; none if 0
    #[arg(long, value_delimiter = ',', default_values_t = [4, 10, 20])]
    processes: Vec<usize>,
    /// Payments of a round
    #[arg(long, default_value_t = 100_000)]
    payments: usize,
    /// Rounds of a point; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where shards keep their data; a temporary folder if not given
    #[arg(long)]
    dir: Option<PathBuf>,
    /// One point, of which the result is printed: what a measurement runs as its children
    #[arg(long, hide = true)]
    point: Option<String>,
}

impl Args {
    /// What `--quick` stands for.
    fn limited(mut self) -> Args {
        if self.quick {
            self.max_accounts = self.max_accounts.min(100_000);
            self.max_shards = self.max_shards.min(4);
            self.max_committee = self.max_committee.min(20);
            self.payments = self.payments.min(10_000);
            self.max_history = self.max_history.min(60_000);
            self.rounds = self.rounds.min(3);
            self.processes = vec![0];
        }
        self
    }

    /// The point that all dimensions share.
    fn base(&self) -> Point {
        Point {
            authorities: 4,
            shards: 1,
            accounts: 100_000.min(self.max_accounts),
            active: u64::MAX,
            cross_percent: None,
            batch: 1_000.min(self.max_batch),
            payments: self.payments,
            rounds: self.rounds,
            windows: 1,
        }
    }

    fn check(&self) -> Result<()> {
        let rules = [
            ("--max-accounts", self.max_accounts >= 10_000, "at least 10000"),
            ("--max-shards", (1..=8).contains(&self.max_shards), "1 to 8"),
            ("--max-committee", (4..=128).contains(&self.max_committee), "4 to 128"),
            ("--max-batch", (1..=4_096).contains(&self.max_batch), "1 to 4096"),
            ("--payments", self.payments >= 5_000, "at least 5000"),
            ("--rounds", self.rounds >= 1, "at least 1"),
        ];
        match rules.into_iter().find(|(_, holds, _)| !holds) {
            Some((name, _, expected)) => Err(Error::new(Code::Usage, format!("expected {name}: {expected}"))),
            None => Ok(()),
        }
    }
}

/// A point with its result.
struct Row {
    /// Place on the axis, in words.
    at: String,
    x: f64,
    /// By the base, each in signatures verified in the same run.
    ratio: f64,
    measured: Measured,
}

/// Runs it.
pub fn run(args: Args, out: Output) -> Result<()> {
    if let Some(point) = &args.point {
        let point: Point = serde_json::from_str(point).map_err(|e| Error::new(Code::Usage, format!("--point: {e}")))?;
        let made = match &args.dir {
            Some(dir) => tempfile::tempdir_in(dir),
            None => tempfile::tempdir(),
        };
        let dir = made.map_err(|e| Error::new(Code::Io, format!("a temporary folder: {e}")))?;
        let measured = point::measure(&point, dir.path())?;
        out.data("", &json!(measured));
        return Ok(());
    }
    args.check()?;
    let args = args.limited();
    let all = Dimension::ALL.into_iter().filter(|d| args.only.is_empty() || args.only.contains(d));
    let plans: Vec<(Dimension, Plan)> = all.map(|dimension| (dimension, dimension.plan(&args))).collect();
    let committees: Vec<usize> = match plans.iter().any(|(dimension, _)| *dimension == Dimension::Committee) {
        true => args.processes.iter().copied().filter(|n| *n > 0).collect(),
        false => Vec::new(),
    };
    let steps = plans.iter().map(|(_, plan)| plan.points.len()).sum::<usize>() + committees.len();
    let mut progress = Progress::new(steps, out);
    let (mut texts, mut values) = (Vec::new(), Vec::new());
    for (dimension, plan) in &plans {
        let rows = measure(*dimension, plan, &args, &mut progress)?;
        let said = words::words(&rows, plan.base, plan.bar);
        texts.push(format!("{}\n\n{}\n\n{said}", dimension.axis(), text(*dimension, &rows)));
        values.push(json!({
            "dimension": dimension.name(), "axis": dimension.axis(), "logarithmic": dimension.is_logarithmic(),
            "base": rows[plan.base].x, "bar": plan.bar.map(|(at, most)| json!({"at": rows[at].x, "ratio": most})),
            "words": said, "points": rows.iter().map(value).collect::<Vec<_>>(),
        }));
    }
    let real = real(&committees, &mut progress);
    drop(progress);
    if !real.is_empty() {
        texts.push(text_of_real(&real));
    }
    texts.push(LEFT_OUT.to_owned());
    let base = json!(args.base());
    let value = json!({
        "name": "scale", "unit": "us of CPU of an authority for a settled transfer", "quick": args.quick, "base": base,
        "left_out": LEFT_OUT, "dimensions": values, "committees": real,
    });
    out.data(texts.join("\n\n\n"), &value);
    Ok(())
}

fn measure(dimension: Dimension, plan: &Plan, args: &Args, progress: &mut Progress) -> Result<Vec<Row>> {
    let mut measured: Vec<(f64, Measured)> = Vec::new();
    for (x, point) in &plan.points {
        progress.step(format_args!("{}: {}", dimension.axis(), short(*x)));
        let point = json!(point).to_string();
        let mut command = vec!["bench", "scale", "--point", &point];
        let dir = args.dir.as_ref().map(|dir| dir.display().to_string());
        if let Some(dir) = &dir {
            command.extend(["--dir", dir]);
        }
        let windows: Vec<Measured> = serde_json::from_value(child::run(&command)?)
            .map_err(|e| Error::new(Code::Io, format!("what a point printed: {e}")))?;
        let is_history = dimension == Dimension::History;
        measured.extend(windows.into_iter().map(|m| (if is_history { m.history as f64 } else { *x }, m)));
    }
    let signatures = |m: &Measured| m.cpu_us / m.ceiling_us;
    let base = signatures(&measured[plan.base].1);
    let row = |(x, measured): (f64, Measured)| Row { at: short(x), x, ratio: signatures(&measured) / base, measured };
    Ok(measured.into_iter().map(row).collect())
}

/// Committees of real processes, which spare nothing, by what `florin bench transfers` says of them. One that
/// does not come about on this machine says so, and takes nothing of the rest with it.
fn real(sizes: &[usize], progress: &mut Progress) -> Vec<Value> {
    let measure = |size: &usize| {
        progress.step(format_args!("{size} authorities, each a process"));
        let number = size.to_string();
        let load = ["--accounts", "10000", "--rounds", "5", "--singles", "1"];
        let command = [&["bench", "transfers", "--authorities", &number][..], &load].concat();
        child::run(&command).unwrap_or_else(|e| json!({"authorities": size, "error": e.to_string()}))
    };
    sizes.iter().map(measure).collect()
}

/// A round number as people say it.
fn short(x: f64) -> String {
    match x {
        x if x >= 1e6 => format!("{} M", (x / 1e4).round() / 100.0),
        x if x >= 1e4 => format!("{} k", (x / 10.0).round() / 100.0),
        x => format!("{x:.0}"),
    }
}

fn text(dimension: Dimension, rows: &[Row]) -> String {
    let head = [
        dimension.axis(),
        "CPU us",
        "plain us",
        "by plain",
        "by base",
        "resident MB",
        "whole merge s",
        "syncs",
        "tree reads",
    ];
    let kinds = rows.first().map(|row| row.measured.split_us.iter().map(|(kind, _)| kind.clone()));
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    lines[0].extend(kinds.into_iter().flatten());
    for row in rows {
        let m = &row.measured;
        let mut line = vec![row.at.clone(), format!("{:.2}", m.cpu_us), format!("{:.2}", m.plain_us)];
        line.extend([m.cpu_us / m.plain_us, row.ratio].map(|ratio| format!("{ratio:.2}")));
        line.extend([format!("{:.0}", m.resident_bytes as f64 / 1e6), format!("{:.2}", m.whole_merge_s)]);
        line.extend([format!("{:.4}", m.syncs), format!("{:.2}", m.tree_reads)]);
        line.extend(m.split_us.iter().map(|(_, us)| format!("{us:.2}")));
        lines.push(line);
    }
    table(&lines)
}

fn value(row: &Row) -> Value {
    let mut value = json!(row.measured);
    let split: serde_json::Map<String, Value> =
        row.measured.split_us.iter().map(|(kind, us)| (kind.clone(), json!(us))).collect();
    value["split_us"] = Value::Object(split);
    value["at"] = json!(row.x);
    value["ratio"] = json!(row.ratio);
    value
}

fn text_of_real(real: &[Value]) -> String {
    let head = ["authorities, each a process", "CPU us", "plain us", "by plain", "by the first"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let number = |value: &Value, name: &str| value[name].as_f64().unwrap_or(f64::NAN);
    let by_plain = |value: &Value| number(value, "cpu_us") / number(value, "ceiling_us");
    for value in real {
        if let Some(error) = value["error"].as_str() {
            lines.push(vec![value["authorities"].to_string(), error.to_owned()]);
            continue;
        }
        let figures = [number(value, "cpu_us"), number(value, "ceiling_us"), by_plain(value)];
        let mut line = vec![value["authorities"].to_string()];
        line.extend(figures.map(|figure| format!("{figure:.2}")));
        line.push(format!("{:.2}", by_plain(value) / by_plain(&real[0])));
        lines.push(line);
    }
    table(&lines)
}
