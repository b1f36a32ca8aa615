//! `florin bench siege`: what honest payments feel while a stranger does his worst at every authority, and what it costs
//! the authorities in memory.

mod attacks;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use florin_client::network::{Network, Patience};
use florin_core::testing::{NETWORK_ID, to};
use florin_core::{Code, Error, Result};
use serde_json::json;

use self::attacks::{ATTACKS, Besieged, Kind};
use super::cpu::percentile;
use super::load::{Accounts, plan};
use crate::commands::support::table;
use crate::local::LocalCommittee;
use crate::output::Output;

/// Accounts that pay in turn.
const ACCOUNTS: usize = 20;
/// Payments before those that count.
const WARM_UP: usize = 2 * ACCOUNTS;
/// How long a payment, or the keys of e-cash, may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// Authorities
    #[arg(long, default_value_t = 4)]
    authorities: usize,
    /// Honest payments in each row, one after the other
    #[arg(long, default_value_t = 300)]
    payments: usize,
    /// Connections of the attacker at each authority, where it is connections that attack
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// How many of the authorities are attacked; all if not given
    #[arg(long)]
    attacked: Option<usize>,
    /// Only these attacks; all if not given
    #[arg(long, value_enum, value_delimiter = ',')]
    attacks: Vec<Kind>,
    /// Where the committee keeps its data; a temporary folder if not given
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// What one attack came to.
struct Row {
    name: &'static str,
    what: &'static str,
    /// Milliseconds, ascending.
    payments: Vec<f64>,
    /// Bytes of the authority that has most: before, and at most during it.
    memory: (u64, u64),
    /// What the attacker did: connections made, or requests answered.
    deeds: u64,
}

/// Runs it.
pub fn run(args: Args, out: Output) -> Result<()> {
    let attacked = args.attacked.unwrap_or(args.authorities);
    if args.payments == 0 || args.connections == 0 || attacked > args.authorities {
        let message = "expected --payments and --connections from 1, --attacked up to --authorities";
        return Err(Error::new(Code::Usage, message));
    }
    let runtime = tokio::runtime::Runtime::new().map_err(|e| Error::new(Code::Io, e.to_string()))?;
    let made = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let dir = made.map_err(|e| Error::new(Code::Io, format!("a temporary folder: {e}")))?;
    let rows = runtime.block_on(measure(&args, attacked, dir.path(), out))?;
    report(&args, attacked, &rows, out);
    Ok(())
}

async fn measure(args: &Args, attacked: usize, dir: &std::path::Path, out: Output) -> Result<Vec<Row>> {
    let mut accounts = Accounts::make(ACCOUNTS + attacks::BATCH, 1, NETWORK_ID);
    let genesis = accounts.genesis("flr", 2);
    let mut local = LocalCommittee::create(dir, &plan(args.authorities, 1, &genesis))?;
    local.start_all()?;
    let patience = Patience { total: DEADLINE, request: DEADLINE, ..Patience::default() };
    let network = Network::new(local.committee.clone(), patience);
    accounts.wait_funded(&network, DEADLINE).await?;
    let besieged =
        Besieged::new(local.committee.clone(), attacked, args.connections, &accounts.by_shard[0][ACCOUNTS..]);
    let pids: Vec<u32> = (0..args.authorities).filter_map(|i| local.pid(i)).collect();
    accounts.by_shard[0].truncate(ACCOUNTS);
    pay(&network, &mut accounts, WARM_UP).await?;

    let mut rows = Vec::new();
    let chosen = |kind: &Kind| args.attacks.is_empty() || args.attacks.contains(kind) || *kind == Kind::None;
    for (kind, name, what) in ATTACKS.iter().filter(|(kind, ..)| chosen(kind)) {
        out.note(format_args!("{name}: {what}"));
        let before = pids.iter().map(|pid| memory(*pid, "VmRSS:")).collect::<Result<Vec<_>>>()?;
        pids.iter().try_for_each(|pid| forget_peak(*pid))?;
        let attack = besieged.attack(*kind).await?;
        let payments = pay(&network, &mut accounts, args.payments).await?;
        let deeds = attack.deeds();
        drop(attack);
        let peaks = pids.iter().map(|pid| memory(*pid, "VmHWM:")).collect::<Result<Vec<_>>>()?;
        let worst = before.into_iter().zip(peaks).max_by_key(|(_, peak)| *peak).unwrap_or_default();
        rows.push(Row { name, what, payments, memory: worst, deeds });
        // What is still under way of one attack is not the next one's.
        pay(&network, &mut accounts, WARM_UP).await?;
    }
    Ok(rows)
}

/// Milliseconds of each payment, ascending.
async fn pay(network: &Network, accounts: &mut Accounts, count: usize) -> Result<Vec<f64>> {
    let payee = accounts.by_shard[0][0].address;
    let mut times = Vec::with_capacity(count);
    for i in 0..count {
        let order = accounts.by_shard[0][i % ACCOUNTS].pay(&[to(payee, 1)], "");
        let start = Instant::now();
        network.submit(0, vec![order], |_| ()).await?.outcomes.remove(0)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// Bytes that the kernel says a process has under this name.
fn memory(pid: u32, name: &str) -> Result<u64> {
    let failed = |why: String| Error::new(Code::Io, format!("memory of process {pid}: {why}"));
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|e| failed(e.to_string()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| failed(format!("no {name}")))
}

/// The peak begins anew.
fn forget_peak(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    std::fs::write(&path, "5").map_err(|e| Error::new(Code::Io, format!("{path}: {e}")))
}

fn report(args: &Args, attacked: usize, rows: &[Row], out: Output) {
    let head = ["attack", "p50 ms", "p99", "p50 by idle", "p99 by idle", "MB before", "MB at most", "deeds"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let mut values = Vec::new();
    let idle = rows.first().map_or((1.0, 1.0), |r| (percentile(&r.payments, 50.0), percentile(&r.payments, 99.0)));
    for row in rows {
        let (p50, p99) = (percentile(&row.payments, 50.0), percentile(&row.payments, 99.0));
        let mut line = vec![row.name.to_owned()];
        line.extend([p50, p99].map(|ms| format!("{ms:.1}")));
        line.extend([p50 / idle.0, p99 / idle.1].map(|ratio| format!("{ratio:.2}")));
        line.extend([row.memory.0, row.memory.1].map(|bytes| (bytes >> 20).to_string()));
        line.push(row.deeds.to_string());
        lines.push(line);
        values.push(json!({
            "attack": row.name, "what": row.what, "p50_ms": p50, "p99_ms": p99, "p50_by_idle": p50 / idle.0,
            "p99_by_idle": p99 / idle.1, "memory_before": row.memory.0, "memory_peak": row.memory.1, "deeds": row.deeds,
        }));
    }
    let what: Vec<String> = rows.iter().map(|r| format!("{}: {}", r.name, r.what)).collect();
    let text = format!(
        "one payment at a time, {} in each row; {attacked} of {} authorities are attacked, and all of it runs on this machine\n\n\
         {}\n\n{}\nMB: of the authority that has most. deeds: connections made, or requests sent",
        args.payments,
        args.authorities,
        table(&lines),
        what.join("\n"),
    );
    out.data(text, &json!({"name": "siege", "authorities": args.authorities, "attacked": attacked, "rows": values}));
}
