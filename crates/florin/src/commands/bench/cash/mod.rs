//! `florin bench cash`: what a note of e-cash costs an authority, a wallet, and who waits for it.

mod authority;
mod latency;
mod plain;
mod wallet;

use florin_core::limits::NOTES_PER_BATCH_MAX;
use florin_core::{Code, Error, Result};
use serde_json::{Value, json};

use crate::commands::support::table;
use crate::output::Output;

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// Orders in a batch
    #[arg(long, default_value_t = 16)]
    orders: usize,
    /// Notes that each order spends, and as many that it asks for
    #[arg(long, default_value_t = 16)]
    notes: usize,
    /// Measured runs; the medians count
    #[arg(long, default_value_t = 9)]
    runs: usize,
    /// Notes that a wallet recovers from its words
    #[arg(long, default_value_t = 10_000)]
    recovered: usize,
    /// Orders of each size whose latency is measured, one after the other; 0 starts no committee
    #[arg(long, default_value_t = 100)]
    singles: usize,
    /// Where the committee keeps its data; a temporary folder if not given
    #[arg(long)]
    dir: Option<std::path::PathBuf>,
}

/// Runs it.
pub fn run(args: Args, out: Output) -> Result<()> {
    let batch = args.orders.saturating_mul(args.notes).saturating_mul(2);
    if batch == 0 || batch > NOTES_PER_BATCH_MAX || args.notes > 128 || args.runs == 0 || args.recovered == 0 {
        let text = format!(
            "expected --orders, --notes, --runs, --recovered from 1, --notes up to 128, twice --orders times --notes up to \
             {NOTES_PER_BATCH_MAX}"
        );
        return Err(Error::new(Code::Usage, text));
    }
    let cost = authority::measure(args.orders, args.notes, args.runs, out)?;
    let recovery = wallet::recovery(args.recovered)?;
    let latency = match args.singles {
        0 => None,
        _ => Some(latency::run(&args, &cost, out)?),
    };
    report(&args, &cost, &recovery, latency.as_ref(), out);
    Ok(())
}

fn report(
    args: &Args,
    cost: &authority::Cost,
    recovery: &wallet::Recovery,
    latency: Option<&latency::Measured>,
    out: Output,
) {
    let mut parts = vec![cost.text(), recovery.text()];
    let mut value = json!({
        "name": "cash", "unit": "us of CPU of an authority for one note", "orders": args.orders, "notes": args.notes,
        "runs": args.runs, "authority": cost.value(), "recovery": recovery.value(),
    });
    if let Some(latency) = latency {
        parts.push(latency.text());
        value["committee"] = latency.value();
    }
    out.data(parts.join("\n\n"), &value);
}

/// A table of numbers, in text.
fn rows(head: &[&str], rows: impl IntoIterator<Item = (String, Vec<String>)>) -> String {
    let mut lines = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows.into_iter().map(|(name, cells)| std::iter::once(name).chain(cells).collect()));
    table(&lines)
}

fn round2(value: f64) -> Value {
    json!((value * 100.0).round() / 100.0)
}
