//! `florin pbtx push`: hands in transactions that were signed before.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use florin_client::network::Network;
use florin_client::pbtx::{Pushed, push, push_through, read_envelopes};
use florin_client::receipt_file;
use florin_core::committee::Committee;
use florin_core::envelope::Order;
use florin_core::{Code, Error, Result};
use serde_json::{Value, json};

use super::offline::Queue;
use crate::commands::support::{fail_with_report, make_folder, table};
use crate::commands::wallet::{Question, Way, block_on};
use crate::output::Output;

/// Options of `pbtx push`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    question: Question,
    #[command(flatten)]
    way: Way,
    /// Files of envelopes, one in hex digits a line; - is stdin
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Save the receipt of each transaction in this folder, as NETWORK-ACTOR-SEQNUM.json; `florin receipt verify` checks them
    #[arg(long, value_name = "FOLDER")]
    receipts: Option<PathBuf>,
    /// Empty each file of which all is settled
    #[arg(long)]
    drain: bool,
}

/// `pbtx push`.
pub fn run(args: &Args, out: Output) -> Result<()> {
    let committee = args.question.committee()?;
    // Locked until the end: nothing is signed into a file that is about to be emptied.
    let mut queues = Vec::new();
    let mut orders: Vec<Order> = Vec::new();
    for file in &args.files {
        let place = |e: Error| Error::new(e.code, format!("{}: {}", file.display(), e.message));
        let is_stdin = file == Path::new("-");
        if is_stdin && args.drain {
            return Err(Error::new(Code::Usage, "--drain empties files, and stdin is none"));
        }
        let (text, queue) = if is_stdin { (stdin()?, None) } else { Queue::read(file, args.drain, out)? };
        let start = orders.len();
        orders.extend(read_envelopes(&text).map_err(place)?);
        queues.extend(queue.map(|queue| (start..orders.len(), queue)));
    }
    // The same transaction in two files, or twice in one, is one.
    let mut seen = std::collections::BTreeSet::new();
    let once: Vec<Order> = orders.iter().filter(|o| seen.insert(o.id)).cloned().collect();
    if once.is_empty() {
        out.data("nothing to push", &report(&[], &[]));
        return Ok(());
    }
    let outcomes = block_on(async {
        let network = args.question.network(&committee);
        pushed(&network, &args.way, args.question.timeout(), &once).await
    })?;
    if let Some(folder) = &args.receipts {
        save(folder, &committee, &once, &outcomes)?;
    }
    let settled: std::collections::BTreeSet<[u8; 32]> =
        once.iter().zip(&outcomes).filter(|(_, o)| o.error().is_none()).map(|(o, _)| o.id).collect();
    for (range, queue) in queues {
        if orders[range].iter().all(|o| settled.contains(&o.id)) {
            queue.drain()?;
        }
    }
    exit(&once, &outcomes, out);
    Ok(())
}

fn stdin() -> Result<String> {
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map_err(|e| Error::new(Code::BadFile, format!("stdin: {e}")))?;
    Ok(text)
}

/// Hands orders in, through a worker if one is given.
pub async fn pushed(
    network: &Network,
    way: &Way,
    timeout: std::time::Duration,
    orders: &[Order],
) -> Result<Vec<Pushed>> {
    match way.client(timeout)? {
        Some(worker) => push_through(&worker, network, orders).await,
        None => push(network, orders, |_| ()).await,
    }
}

fn save(folder: &Path, committee: &Committee, orders: &[Order], outcomes: &[Pushed]) -> Result<()> {
    make_folder(folder)?;
    for (order, outcome) in orders.iter().zip(outcomes) {
        if let Pushed::Settled(receipt) = outcome {
            // Where transactions have no numbers, their hash tells them apart.
            let name = format!("{}-{}-{}", order.network_id, order.actor, order.seqnum);
            let path = folder.join(format!("{name}.json"));
            let saved = receipt_file::save(&path, receipt, committee);
            match saved {
                Err(e) if e.code == Code::AlreadyExists => {
                    let named = folder.join(format!("{name}-{}.json", hex::encode(&order.id[..8])));
                    receipt_file::save(&named, receipt, committee)?;
                }
                saved => saved?,
            }
        }
    }
    Ok(())
}

fn report(orders: &[Order], outcomes: &[Pushed]) -> Value {
    let mut counts = [0_u32; 3];
    let mut values = Vec::new();
    for (order, outcome) in orders.iter().zip(outcomes) {
        let state = state(outcome);
        counts[state.0] += 1;
        let mut value = json!({"network_id": order.network_id.to_string(), "actor": order.actor.to_string(),
            "seqnum": order.seqnum, "sha256": hex::encode(order.id), "state": state.1});
        if let Some(e) = outcome.error() {
            value["error"] = json!({"code": e.code as u32, "name": e.code.name(), "message": e.message});
        }
        values.push(value);
    }
    json!({"transactions": values, "settled": counts[0], "refused": counts[1], "waiting": counts[2]})
}

fn state(outcome: &Pushed) -> (usize, &'static str) {
    match outcome {
        Pushed::Settled(_) => (0, "settled"),
        Pushed::Refused(_) => (1, "refused"),
        Pushed::Waiting(_) => (2, "waiting"),
    }
}

/// Prints what became of transactions; ends the process with the error of the first that was refused, or else waits.
pub fn exit(orders: &[Order], outcomes: &[Pushed], out: Output) {
    let mut rows = vec![["network", "actor", "seqnum", "", ""].map(str::to_owned).to_vec()];
    for (order, outcome) in orders.iter().zip(outcomes) {
        let why = outcome.error().map(|e| format!("{}: {}", e.code.name(), e.message)).unwrap_or_default();
        let (network, actor) = (order.network_id.to_string(), order.actor.to_string());
        rows.push(vec![network, actor, order.seqnum.to_string(), state(outcome).1.to_owned(), why]);
    }
    let value = report(orders, outcomes);
    let count = |name: &str| value[name].to_string();
    let counted = format!("{} settled, {} refused, {} waiting", count("settled"), count("refused"), count("waiting"));
    let text = format!("{}\n\n{counted}", table(&rows));
    let refused = outcomes.iter().find(|o| matches!(o, Pushed::Refused(_))).and_then(Pushed::error).cloned();
    let waiting = outcomes.iter().find_map(Pushed::error).map(|e| {
        let message = format!("{}; push again", e.message);
        Error { code: if e.code == Code::BadSeq { Code::Undecided } else { e.code }, message, ..e.clone() }
    });
    match refused.or(waiting) {
        Some(e) => fail_with_report(out, &text, value, &e),
        None => out.data(text, &value),
    }
}
