//! `florin bench ordered`: orders that touch shared objects, through the log of a committee of real processes, beside
//! the bare engine ordering the same bytes in one process, and beside payments that need no log.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use florin_client::network::{Event, Network, Patience};
use florin_core::envelope::Order;
use florin_core::testing::{NETWORK_ID, Signer, to};
use florin_core::wire::{self, order_status::State as S, output};
use florin_core::{Code, Error, Result};
use florin_node::ordering::{BareReport, Pace, measure_bare};
use florin_rpc::errors::from_status;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::cpu::percentile;
use super::load::{Accounts, plan};
use super::progress::Progress;
use crate::commands::support::table;
use crate::local::LocalCommittee;
use crate::output::Output;

/// Between two batches.
const TICK: Duration = Duration::from_millis(50);
/// Orders of a batch whose way through the log is watched.
const WATCHED: usize = 2;
/// Between two plain payments under load: they are a probe, not a load of their own.
const PROBE: Duration = Duration::from_millis(50);
/// How long anything may take to be ordered.
const DEADLINE: Duration = Duration::from_secs(60);
/// Payments whose latency is measured with nothing else going on.
const IDLE_PAYMENTS: usize = 50;

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// Sizes of committees
    #[arg(long, value_delimiter = ',', default_values_t = [4, 7, 10])]
    authorities: Vec<usize>,
    /// Orders offered a second
    #[arg(long, default_value_t = 200)]
    rate: usize,
    /// Seconds of load for each committee
    #[arg(long, default_value_t = 10)]
    seconds: usize,
}

/// What one committee came to.
struct Row {
    authorities: usize,
    rate: f64,
    ordered: Vec<f64>,
    idle: Vec<f64>,
    loaded: Vec<f64>,
    bytes: usize,
    bare: BareReport,
}

/// Runs it.
pub fn run(args: Args, out: Output) -> Result<()> {
    if args.rate < 20 || args.seconds == 0 || args.authorities.is_empty() {
        return Err(Error::new(Code::Usage, "expected --rate from 20, --seconds from 1 and --authorities"));
    }
    let runtime = tokio::runtime::Runtime::new().map_err(|e| Error::new(Code::Io, e.to_string()))?;
    let mut rows = Vec::new();
    let mut progress = Progress::new(3 * args.authorities.len(), out);
    for authorities in &args.authorities {
        let dir = tempfile::tempdir().map_err(|e| Error::new(Code::Io, format!("a temporary folder: {e}")))?;
        rows.push(runtime.block_on(measure(&args, *authorities, dir.path(), &mut progress))?);
    }
    drop(progress);
    report(&args, rows, out);
    Ok(())
}

async fn measure(args: &Args, authorities: usize, dir: &Path, progress: &mut Progress) -> Result<Row> {
    let orders = args.rate * args.seconds;
    progress.step(format_args!("{authorities} authorities: signing {orders} orders ahead of time"));
    // One more batch warms up, and some accounts make plain payments.
    let batch = args.rate * TICK.as_millis() as usize / 1_000;
    let mut accounts = Accounts::make(orders + batch + 2, 1, NETWORK_ID);
    let genesis = accounts.genesis("flr", 2);
    let mut local = LocalCommittee::create(dir, &plan(authorities, 1, &genesis))?;
    local.start_all()?;
    let patience = Patience { total: DEADLINE, request: DEADLINE, ..Patience::default() };
    let network = Network::new(local.committee.clone(), patience);
    accounts.wait_funded(&network, Duration::from_secs(120)).await?;

    let mut signers = std::mem::take(&mut accounts.by_shard[0]);
    let payer = signers.pop().ok_or_else(|| Error::new(Code::Usage, "no accounts"))?;
    let signed: Vec<Bytes> = signers.iter_mut().map(fund).collect();
    let (warm_up, load) = signed.split_at(batch);
    one_batch(&network, 0, warm_up.to_vec()).await?;
    let payments = Arc::new(tokio::sync::Mutex::new(payer));
    let idle = pay(&network, &payments, Some(IDLE_PAYMENTS), &tokio::sync::watch::channel(false).1).await?;

    progress.step(format_args!("{authorities} authorities: {} orders/s for {} s", args.rate, args.seconds));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let paying = {
        let (network, payments) = (network.clone(), payments.clone());
        tokio::spawn(async move { pay(&network, &payments, None, &stopped).await })
    };
    let before = units_bytes(&network).await?;
    let mut running = JoinSet::new();
    let mut tick = tokio::time::interval(TICK);
    for (i, orders) in load.chunks(batch).enumerate() {
        tick.tick().await;
        let (network, orders) = (network.clone(), orders.to_vec());
        running.spawn(async move { one_batch(&network, i, orders).await });
    }
    let mut done: Vec<(Instant, usize, f64)> = Vec::new();
    while let Some(batch) = running.join_next().await {
        done.extend(batch.map_err(|e| Error::new(Code::Io, format!("load generator: {e}")))??);
    }
    stop.send_replace(true);
    let mut loaded = paying.await.map_err(|e| Error::new(Code::Io, format!("load generator: {e}")))??;
    let bytes = (units_bytes(&network).await? - before) / load.len();
    done.sort_by_key(|(at, ..)| *at);
    let span = done.last().zip(done.first()).map_or(0.0, |(last, first)| (last.0 - first.0).as_secs_f64());
    let later: usize = done.iter().skip(WATCHED).map(|(_, orders, _)| orders).sum::<usize>() / WATCHED;
    let mut ordered: Vec<f64> = done.iter().map(|(_, _, ms)| *ms).collect();
    drop(network);
    drop(local);

    progress.step(format_args!("{authorities} authorities: the bare engine, {bytes} bytes an order"));
    let duration = Duration::from_secs(args.seconds as u64);
    let bare = measure_bare(authorities, Pace::default(), args.rate as u64, bytes, duration).await?;
    let mut idle = idle;
    [&mut ordered, &mut idle, &mut loaded].into_iter().for_each(|all| all.sort_by(f64::total_cmp));
    Ok(Row { authorities, rate: later as f64 / span, ordered, idle, loaded, bytes, bare })
}

/// An account's first order: it opens itself and funds a contract.
fn fund(signer: &mut Signer) -> Bytes {
    let own = Bytes::copy_from_slice(signer.address.as_bytes());
    let fund =
        wire::ContractFund { amount: 1, hash: own.clone(), expiry_ms: u64::MAX, receiver: own.clone(), sender: own };
    signer.call(Vec::new(), vec![output::Kind::ContractFund(fund)])
}

/// Certifies a batch and waits until the log has it. For some of its orders: when, of how many orders, and
/// milliseconds from its certificate to its being applied and durable at one authority.
async fn one_batch(network: &Network, number: usize, orders: Vec<Bytes>) -> Result<Vec<(Instant, usize, f64)>> {
    let watched: Vec<Order> =
        orders.iter().step_by(orders.len().div_ceil(WATCHED)).cloned().map(Order::decode).collect::<Result<_>>()?;
    let count = orders.len();
    let mut certified = None;
    let submission = network.submit(0, orders, |event| {
        if matches!(event, Event::Certified) {
            certified = Some(Instant::now());
        }
    });
    let watch = async {
        let mut all = JoinSet::new();
        for (i, order) in watched.into_iter().enumerate() {
            let mut client = network.authority((number + i) % network.committee().size(), 0);
            all.spawn(async move {
                let request = wire::OrderStatusRequest {
                    network_id: order.network_id,
                    actor: order.actor,
                    seqnum: order.seqnum,
                    ..Default::default()
                };
                let mut stream = client.watch_order(request).await.map_err(from_status)?.into_inner();
                while let Some(status) = stream.message().await.map_err(from_status)? {
                    match status.state() {
                        S::Ordered => return Ok(Instant::now()),
                        S::Failed | S::Void => return Err(Error::new(Code::BadContent, status.message)),
                        _ => {}
                    }
                }
                Err(Error::new(Code::Timeout, "an authority stopped telling of an order"))
            });
        }
        let mut times = Vec::new();
        while let Some(time) = all.join_next().await {
            times.push(time.map_err(|e| Error::new(Code::Io, format!("load generator: {e}")))??);
        }
        Ok::<_, Error>(times)
    };
    let (submission, times) = tokio::join!(submission, tokio::time::timeout(DEADLINE, watch));
    submission?.outcomes.into_iter().find_map(Result::err).map_or(Ok(()), Err)?;
    let times = times.map_err(|_| Error::new(Code::Timeout, "an order is not ordered"))??;
    let certified = certified.ok_or_else(|| Error::new(Code::NoQuorum, "a batch was never certified"))?;
    Ok(times.into_iter().map(|t| (t, count, t.saturating_duration_since(certified).as_secs_f64() * 1e3)).collect())
}

/// Plain payments, one after the other: so many at once, or some each second until it stops; milliseconds of each.
async fn pay(
    network: &Network,
    payer: &tokio::sync::Mutex<Signer>,
    count: Option<usize>,
    stop: &tokio::sync::watch::Receiver<bool>,
) -> Result<Vec<f64>> {
    let mut payer = payer.lock().await;
    let mut latencies = Vec::new();
    while !*stop.borrow() && count.is_none_or(|count| latencies.len() < count) {
        let address = payer.address;
        let order = payer.pay(&[to(address, 1)], "");
        let start = Instant::now();
        network.submit(0, vec![order], |_| ()).await?.outcomes.remove(0)?;
        latencies.push(start.elapsed().as_secs_f64() * 1e3);
        if count.is_none() {
            tokio::time::sleep(PROBE.saturating_sub(start.elapsed())).await;
        }
    }
    Ok(latencies)
}

/// Bytes of all units that the first authority has applied.
async fn units_bytes(network: &Network) -> Result<usize> {
    let mut client = network.authority(0, 0);
    let open = client.log(wire::LogStatusRequest {}).await.map_err(from_status)?.into_inner().session;
    let mut bytes = 0;
    for session in 0..=open {
        let mut from = 0;
        loop {
            let request = wire::UnitsRequest { session, from };
            let units = client.units(request).await.map_err(from_status)?.into_inner().units;
            if units.is_empty() {
                break;
            }
            from += units.len() as u32;
            bytes += units.iter().map(|u| u.data.len()).sum::<usize>();
        }
    }
    Ok(bytes)
}

fn report(args: &Args, rows: Vec<Row>, out: Output) {
    let head = ["", "ordered/s", "p50 ms", "p99 ms", "bare/s", "p50", "p99", "rate", "p50", "p99", "pay p50", "p99"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let mut values = Vec::new();
    for row in rows {
        let (p50, p99) = (percentile(&row.ordered, 50.0), percentile(&row.ordered, 99.0));
        let ratios = [row.rate / row.bare.ordered_per_s, p50 / row.bare.p50_ms, p99 / row.bare.p99_ms];
        let whole = |value: f64| format!("{value:.0}");
        let mut line = vec![format!("n = {}", row.authorities)];
        line.extend([row.rate, p50, p99, row.bare.ordered_per_s, row.bare.p50_ms, row.bare.p99_ms].map(whole));
        line.extend(ratios.map(|ratio| format!("{ratio:.2}")));
        let paid = |all: &[f64], percent| format!("{:.1}", percentile(all, percent));
        line.extend([50.0, 99.0].map(|p| format!("{} ({})", paid(&row.loaded, p), paid(&row.idle, p))));
        lines.push(line);
        let payments = |all: &[f64]| json!({"p50_ms": percentile(all, 50.0), "p99_ms": percentile(all, 99.0)});
        values.push(json!({
            "authorities": row.authorities, "rate": row.rate, "p50_ms": p50, "p99_ms": p99, "bytes": row.bytes,
            "bare": {"rate": row.bare.ordered_per_s, "p50_ms": row.bare.p50_ms, "p99_ms": row.bare.p99_ms},
            "ratio_rate": ratios[0], "ratio_p50": ratios[1], "ratio_p99": ratios[2],
            "payments_idle": payments(&row.idle), "payments_loaded": payments(&row.loaded),
        }));
    }
    let text = format!(
        "{} orders/s offered for {} s; latency from a certificate to its being applied and durable\n\n{}\n\n\
         rate, p50, p99: ours by the bare engine's. pay: plain payments meanwhile (and idle), ms",
        args.rate,
        args.seconds,
        table(&lines)
    );
    let value: Value = json!({"name": "ordered", "offered": args.rate, "seconds": args.seconds, "committees": values});
    out.data(text, &value);
}
