//! `florin bench transfers`: a committee of real processes under load, storage synced.

use std::time::{Duration, Instant};

use bytes::Bytes;
use florin_client::network::{Network, Patience};
use florin_core::limits::{BLS_VERIFICATION_COST, VERIFICATIONS_PER_BATCH};
use florin_core::testing::NETWORK_ID;
use florin_core::{Code, Error, Result};
use serde_json::json;

use super::cpu::{Cpu, batch_verification_us, median, percentile};
use super::load::{Accounts, Batch, batches, drive, drive_batches, plan};
use super::progress::Progress;
use crate::local::LocalCommittee;
use crate::output::Output;

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// Authorities of the committee
    #[arg(long, default_value_t = 4)]
    authorities: usize,
    /// Shards of each
    #[arg(long, default_value_t = 1)]
    shards: u32,
    /// Orders in a batch
    #[arg(long, default_value_t = 1_000)]
    batch: usize,
    /// Accounts that pay, on each shard
    #[arg(long, default_value_t = 10_000)]
    accounts: usize,
    /// Measured rounds; every account pays once in each
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Batches of a shard under way at a time
    #[arg(long, default_value_t = 3)]
    in_flight: usize,
    /// Single payments whose latency is measured, one after the other, with nothing else going on
    #[arg(long, default_value_t = 200)]
    singles: usize,
    /// Senders sign the roots of their batches together, with BLS keys
    #[arg(long)]
    distilled: bool,
    /// Where the committee keeps its data; a temporary folder if not given
    #[arg(long)]
    dir: Option<std::path::PathBuf>,
}

/// Accounts with BLS keys that a batch can open.
const PROOFS_PER_BATCH: usize = VERIFICATIONS_PER_BATCH / BLS_VERIFICATION_COST;

/// What one round of load came to.
struct Round {
    seconds: f64,
    cpu: Cpu,
}

/// Runs it.
pub fn run(args: Args, out: Output) -> Result<()> {
    if args.batch == 0 || args.batch > 4_096 || args.accounts == 0 || args.rounds == 0 || args.in_flight == 0 {
        return Err(Error::new(
            Code::Usage,
            "expected --batch from 1 to 4096 and --accounts, --rounds, --in-flight from 1",
        ));
    }
    let temporary;
    let dir = match &args.dir {
        Some(dir) => dir.as_path(),
        None => {
            temporary = tempfile::tempdir().map_err(|e| Error::new(Code::Io, format!("a temporary folder: {e}")))?;
            temporary.path()
        }
    };
    let runtime = tokio::runtime::Runtime::new().map_err(|e| Error::new(Code::Io, e.to_string()))?;
    runtime.block_on(measure(&args, dir, out))
}

async fn measure(args: &Args, dir: &std::path::Path, out: Output) -> Result<()> {
    let mut progress = Progress::new(2 + args.rounds, out);
    progress.step(format_args!(
        "signing {} payments ahead of time",
        args.accounts * args.shards as usize * (args.rounds + 1)
    ));
    let make = if args.distilled { Accounts::distilled } else { Accounts::make };
    let mut accounts = make(args.accounts, args.shards, NETWORK_ID);
    let genesis = accounts.genesis("flr", 2);
    let warm_up = accounts.round(0);
    let rounds: Vec<_> = (1..=args.rounds).map(|i| accounts.round(i)).collect();

    let mut local = LocalCommittee::create(dir, &plan(args.authorities, args.shards, &genesis))?;
    let rounds = seal(args, rounds, &accounts, &local, out)?;
    local.start_all()?;
    let patience = Patience { total: Duration::from_secs(60), request: Duration::from_secs(60), ..Patience::default() };
    let network = Network::new(local.committee.clone(), patience);
    accounts.wait_funded(&network, Duration::from_secs(120)).await?;

    let before_us = batch_verification_us(1_000, 5)?;
    progress.step("warming up: every account opens with its first payment");
    // A proof of possession costs a pairing, of which a batch may take so many.
    let opening = if args.distilled { args.batch.min(PROOFS_PER_BATCH) } else { args.batch };
    drive(&network, warm_up, opening, args.in_flight).await?;
    let mut measured = Vec::new();
    for (i, round) in rounds.into_iter().enumerate() {
        progress.step(format_args!("round {} of {}", i + 1, args.rounds));
        let before = cpu_of_all(&local)?;
        let start = Instant::now();
        drive_batches(&network, round, args.in_flight).await?;
        let seconds = start.elapsed().as_secs_f64();
        let cpu = cpu_of_all(&local)?.since(&before);
        measured.push(Round { seconds, cpu });
    }
    let after_us = batch_verification_us(1_000, 5)?;
    let mut latencies = singles(args, &network, &mut accounts).await?;
    latencies.sort_by(f64::total_cmp);
    drop(progress);
    report(args, &measured, (before_us + after_us) / 2.0, &latencies, out);
    Ok(())
}

/// The rounds' batches; with `--distilled` their roots are signed.
fn seal(
    args: &Args,
    rounds: Vec<Vec<Vec<Bytes>>>,
    accounts: &Accounts,
    local: &LocalCommittee,
    out: Output,
) -> Result<Vec<Vec<Vec<Batch>>>> {
    if !args.distilled {
        return Ok(rounds.into_iter().map(|round| batches(round, args.batch)).collect());
    }
    out.note("signing the roots of their batches");
    let seal = |round| {
        let shards = accounts.distil(round, args.batch, &local.committee)?.into_iter();
        Ok(shards.map(|sealed| sealed.into_iter().map(Batch::Distilled).collect()).collect())
    };
    rounds.into_iter().map(seal).collect()
}

pub(super) fn cpu_of_all(local: &LocalCommittee) -> Result<Cpu> {
    let mut sum = Cpu::default();
    for (i, http) in local.http.iter().enumerate() {
        let pid =
            local.pid(i).ok_or_else(|| Error::new(Code::Unreachable, format!("authority {} is not running", i + 1)))?;
        sum.add(&Cpu::read(pid, http)?);
    }
    Ok(sum)
}

/// Milliseconds from handing in a payment to its being final.
async fn singles(args: &Args, network: &Network, accounts: &mut Accounts) -> Result<Vec<f64>> {
    let mut latencies = Vec::with_capacity(args.singles);
    let recipient = accounts.by_shard[0][0].address;
    for i in 0..args.singles.max(1) {
        let count = accounts.by_shard[0].len();
        let order = accounts.by_shard[0][i % count].pay(&[florin_core::testing::to(recipient, 1)], "");
        let start = Instant::now();
        network.submit(0, vec![order], |_| ()).await?.outcomes.remove(0)?;
        latencies.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(latencies)
}

fn report(args: &Args, rounds: &[Round], ceiling_us: f64, latencies: &[f64], out: Output) {
    let transfers = (args.accounts * args.shards as usize) as f64;
    let per = |seconds: f64| seconds * 1e6 / transfers / args.authorities as f64;
    let rate = median(&mut rounds.iter().map(|r| transfers / r.seconds).collect::<Vec<_>>());
    let cpu_us = median(&mut rounds.iter().map(|r| per(r.cpu.total)).collect::<Vec<_>>());
    let mut split = serde_json::Map::new();
    let mut lines = String::new();
    let mut counted = 0.0;
    for kind in florin_node::meter::KINDS {
        let us = median(&mut rounds.iter().map(|r| per(*r.cpu.kinds.get(kind).unwrap_or(&0.0))).collect::<Vec<_>>());
        counted += us;
        split.insert(kind.into(), json!(round2(us)));
        lines += &format!("  {kind:<12}{us:>8.2} us\n");
    }
    // Threads that no phase counts: gRPC, TLS, timers, and the storage engine's own background work.
    let rest = (cpu_us - counted).max(0.0);
    split.insert("network".into(), json!(round2(rest)));
    lines += &format!("  {:<12}{rest:>8.2} us\n", "network");
    let p = |percent| percentile(latencies, percent);
    let ratio = cpu_us / ceiling_us;
    let value = json!({
        "name": "transfers", "rate": rate.round(), "unit": "transfers/s", "ratio": round2(ratio), "cpu_us": round2(cpu_us),
        "ceiling_us": round2(ceiling_us), "p50_ms": round2(p(50.0)), "p90_ms": round2(p(90.0)), "p99_ms": round2(p(99.0)),
        "split_us": split, "authorities": args.authorities, "shards": args.shards, "batch": args.batch, "distilled": args.distilled,
        "accounts": transfers as u64, "rounds": args.rounds,
    });
    let text = format!(
        "settled durable transfers       {rate:>8.0} /s  ({} authorities of {} shards and the load on this machine)\n\
         CPU per transfer per authority  {cpu_us:>8.2} us\n{lines}\
         plain batch verification        {ceiling_us:>8.2} us a signature\n\
         ratio                           {ratio:>8.2}\n\
         single payment, idle            p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms",
        args.authorities,
        args.shards,
        p(50.0),
        p(90.0),
        p(99.0),
    );
    out.data(text, &value);
}

fn round2(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
