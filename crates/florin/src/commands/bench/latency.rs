//! `florin bench latency`: how long one payment takes with nothing else going on, beside a sync of the same disk, and with
//! authorities far away.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use florin_client::network::{Network, Patience};
use florin_core::testing::{NETWORK_ID, to};
use florin_core::{Code, Error, Result};
use serde_json::json;
use tokio::runtime::Handle;

use super::cpu::percentile;
use super::far::{BEHIND, Link, Relays};
use super::load::{Accounts, plan};
use super::progress::Progress;
use crate::commands::support::table;
use crate::local::{LocalCommittee, Plan};
use crate::output::Output;

/// Accounts that pay in turn.
const ACCOUNTS: usize = 20;
/// Payments before those that count: connections are made, accounts opened.
const WARM_UP: usize = 2 * ACCOUNTS;
/// What an authority appends for a payment, about: an order, its account, a vote.
const SYNCED_BYTES: usize = 1_024;
/// What a payment may take beside its syncs, ms.
const BESIDE_MS: f64 = 1.5;
/// How long a payment, or the keys of e-cash, may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// Sizes of committees
    #[arg(long, value_delimiter = ',', default_values_t = [4, 10])]
    authorities: Vec<usize>,
    /// Between any two processes and one way, ms
    #[arg(long, value_delimiter = ',', default_values_t = [0, 20])]
    delay: Vec<u64>,
    /// Payments that count, one after the other
    #[arg(long, default_value_t = 300)]
    payments: usize,
    /// Where committees keep their data; a temporary folder if not given
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// What one committee came to; milliseconds, ascending.
struct Row {
    authorities: usize,
    delay: u64,
    payments: Vec<f64>,
    syncs: Vec<f64>,
    /// Until a quorum of as many files as authorities, written at once on the one disk that they have here, is synced.
    quorums: Vec<f64>,
}

/// Runs it.
pub fn run(args: Args, out: Output) -> Result<()> {
    if args.payments == 0
        || args.authorities.is_empty()
        || args.delay.is_empty()
        || args.delay.iter().any(|d| *d > 1_000)
    {
        let message = "expected --authorities, --payments from 1 and --delay up to 1000";
        return Err(Error::new(Code::Usage, message));
    }
    // One thread for who pays, as a wallet has; what stands for the distance has its own.
    let failed = |e: std::io::Error| Error::new(Code::Io, format!("cannot start the runtime: {e}"));
    let wallet = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let between = tokio::runtime::Runtime::new().map_err(failed)?;
    let mut rows = Vec::new();
    let mut progress = Progress::new(args.authorities.len() * args.delay.len(), out);
    for authorities in &args.authorities {
        for delay in &args.delay {
            let made = match &args.dir {
                Some(dir) => tempfile::tempdir_in(dir),
                None => tempfile::tempdir(),
            };
            let dir = made.map_err(|e| Error::new(Code::Io, format!("a temporary folder: {e}")))?;
            progress.step(format_args!("{authorities} authorities, {delay} ms away"));
            let measured = measure(*authorities, *delay, args.payments, dir.path(), between.handle());
            rows.push(wallet.block_on(measured)?);
        }
    }
    drop(progress);
    report(rows, out);
    Ok(())
}

async fn measure(authorities: usize, delay: u64, payments: usize, dir: &Path, between: &Handle) -> Result<Row> {
    let mut accounts = Accounts::make(ACCOUNTS, 1, NETWORK_ID);
    let genesis = accounts.genesis("flr", 2);
    let mut local =
        LocalCommittee::create(dir, &Plan { bind: (delay > 0).then_some(BEHIND), ..plan(authorities, 1, &genesis) })?;
    let committee = local.committee.clone();
    let addresses: Vec<String> = committee.authorities.iter().flat_map(|a| a.addresses.clone()).collect();
    let link = Link { delay: Duration::from_millis(delay), rate: None };
    let start = async move { Relays::start(&addresses, link).await };
    let _relays = match delay {
        0 => None,
        _ => Some(between.spawn(start).await.map_err(|e| Error::new(Code::Io, format!("the relays: {e}")))??),
    };
    local.start_all()?;
    let patience = Patience { total: DEADLINE, request: DEADLINE, ..Patience::default() };
    let network = Network::new(committee, patience);
    accounts.wait_funded(&network, DEADLINE).await?;

    let mut syncs = syncs(dir, payments)?;
    let mut quorums = quorums(dir, authorities, network.committee().quorum(), payments)?;
    let mut times = Vec::with_capacity(payments);
    let payee = accounts.by_shard[0][0].address;
    for i in 0..WARM_UP + payments {
        let order = accounts.by_shard[0][i % ACCOUNTS].pay(&[to(payee, 1)], "");
        let start = Instant::now();
        network.submit(0, vec![order], |_| ()).await?.outcomes.remove(0)?;
        if i >= WARM_UP {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    syncs.extend(self::syncs(dir, payments)?);
    [&mut times, &mut syncs, &mut quorums].into_iter().for_each(|all| all.sort_by(f64::total_cmp));
    Ok(Row { authorities, delay, payments: times, syncs, quorums })
}

/// Milliseconds of an append and a sync of its data, on the disk of the committee.
fn syncs(dir: &Path, count: usize) -> Result<Vec<f64>> {
    let run = || -> io::Result<Vec<f64>> {
        let mut file = open(dir, 0)?;
        (0..count).map(|_| append(&mut file, Instant::now())).collect()
    };
    run().map_err(|e| sync_failed(dir, &e))
}

/// Milliseconds until `quorum` of `files` files are synced, when each gets an append at the same time.
fn quorums(dir: &Path, files: usize, quorum: usize, count: usize) -> Result<Vec<f64>> {
    let run = || -> io::Result<Vec<f64>> {
        let mut files = (0..files).map(|i| open(dir, i)).collect::<io::Result<Vec<File>>>()?;
        let mut round = || -> io::Result<f64> {
            let start = Barrier::new(files.len());
            let times = std::thread::scope(|scope| {
                let append = |file| {
                    start.wait();
                    append(file, Instant::now())
                };
                let threads: Vec<_> = files.iter_mut().map(|file| scope.spawn(move || append(file))).collect();
                threads
                    .into_iter()
                    .map(|t| t.join().expect("an append does not panic"))
                    .collect::<io::Result<Vec<f64>>>()
            });
            let mut times = times?;
            times.sort_by(f64::total_cmp);
            Ok(times[quorum - 1])
        };
        (0..count).map(|_| round()).collect()
    };
    run().map_err(|e| sync_failed(dir, &e))
}

fn open(dir: &Path, number: usize) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(dir.join(format!("syncs-{number}")))
}

fn append(file: &mut File, start: Instant) -> io::Result<f64> {
    file.write_all(&[7; SYNCED_BYTES])?;
    file.sync_data()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn sync_failed(dir: &Path, e: &io::Error) -> Error {
    Error::new(Code::Io, format!("syncing a file in {}: {e}", dir.display()))
}

fn report(rows: Vec<Row>, out: Output) {
    let head =
        ["authorities", "away", "p50 ms", "p90", "p99", "sync p50", "p99", "quorum", "bar", "p50 by bar", "p99 by p50"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let mut values = Vec::new();
    for row in rows {
        let p = |percent| percentile(&row.payments, percent);
        let sync = |percent| percentile(&row.syncs, percent);
        // A vote and a settlement, each durable; far away two round trips are all that counts.
        let bar = match row.delay {
            0 => 2.0 * sync(50.0) + BESIDE_MS,
            delay => 1.1 * 4.0 * delay as f64,
        };
        let ratios = [p(50.0) / bar, p(99.0) / p(50.0)];
        let mut line = vec![row.authorities.to_string(), format!("{} ms", row.delay)];
        line.extend([p(50.0), p(90.0), p(99.0)].map(|ms| format!("{ms:.1}")));
        let quorum = percentile(&row.quorums, 50.0);
        line.extend([sync(50.0), sync(99.0), quorum, bar, ratios[0], ratios[1]].map(|value| format!("{value:.2}")));
        lines.push(line);
        values.push(json!({
            "authorities": row.authorities, "delay_ms": row.delay, "payments": row.payments.len(),
            "p50_ms": p(50.0), "p90_ms": p(90.0), "p99_ms": p(99.0), "sync_p50_ms": sync(50.0), "sync_p99_ms": sync(99.0),
            "quorum_sync_p50_ms": quorum,
            "bar_ms": bar, "ratio": ratios[0], "p99_by_p50": ratios[1],
        }));
    }
    let text = format!(
        "one payment at a time, from handing it in to its being final; storage synced\n\n{}\n\n\
         sync: an append of {SYNCED_BYTES} bytes to the same disk, ms. quorum: the same for all authorities at once, until a quorum\n\
         of them is synced, p50. bar: two syncs + {BESIDE_MS} ms, or two round trips + 10 %",
        table(&lines)
    );
    out.data(text, &json!({"name": "latency", "committees": values}));
}
