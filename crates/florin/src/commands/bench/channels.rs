//! `florin bench channels`: what a voucher costs to make and to take, with its journal on disk, beside the plain signature
//! operations of the same run; payments over a hub; the speed of a paid download; and what channels cost to keep.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::channel::manager::{
    Conditions, Config, EndId, Incoming, Input, Issue, Manager, Now, Policy, Reply, Signer,
};
use florin_core::channel::voucher::{Voucher, sign_watch, sign_withdraw};
use florin_core::channel::{OPENER, OTHER};
use florin_core::committee::Committee;
use florin_core::keys::{Curve, SecretKey};
use florin_core::merkle::Hash;
use florin_core::permission::Permission;
use florin_core::signatures::Batch;
use florin_core::wire::{self, ChannelRecord, ChannelSide};
use florin_core::{Code, Error, Result};
use florin_node::meter::thread_cpu_ns;
use serde_json::json;

use super::download::{self, Speeds};
use super::hub::{self, Cost, Node};
use super::progress::Progress;
use crate::commands::support::table;
use crate::output::Output;

/// Log time of the measurement, ms.
pub(super) const TIME_MS: u64 = 1_700_000_000_000;
pub(super) const NETWORK: u64 = 1;

/// What is known of it: payer's and payee's node, one hop, CPU of both.
const LDK: &str = "LDK: both nodes of a payment of one hop";
const LDK_RATE: f64 = 270.0;

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// Vouchers of one run
    #[arg(long, default_value_t = 20_000)]
    vouchers: usize,
    /// Vouchers that share a sync of the journal
    #[arg(long, default_value_t = 256)]
    group: usize,
    /// Measured runs; the medians count
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Channels whose state is counted
    #[arg(long, default_value_t = 100_000)]
    channels: usize,
    /// Payments over a hub, for each run
    #[arg(long, default_value_t = 4_000)]
    payments: usize,
    /// Size of the download, MB; 0 leaves it out
    #[arg(long, default_value_t = 400)]
    download: u64,
    /// Where the journals are; a temporary folder if not given
    #[arg(long)]
    dir: Option<std::path::PathBuf>,
}

/// Runs it.
pub fn run(args: Args, out: Output) -> Result<()> {
    if args.vouchers == 0 || args.group == 0 || args.group > 1_024 || args.runs == 0 {
        return Err(Error::new(Code::Usage, "expected --vouchers and --runs from 1, --group 1 to 1,024"));
    }
    let temporary = tempfile::tempdir().map_err(|e| Error::new(Code::Io, format!("a temporary folder: {e}")))?;
    let dir = args.dir.as_deref().unwrap_or(temporary.path());
    let mut runs = Vec::new();
    let mut progress = Progress::new(args.runs + 1, out);
    // One run more, to warm up, is not counted.
    for run in 0..=args.runs {
        progress.step(format_args!("run {run} of {}: {} vouchers", args.runs, args.vouchers));
        let measured = measure(&args, dir, run)?;
        if run > 0 {
            runs.push(measured);
        }
    }
    drop(progress);
    let median = |of: fn(&Run) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let state = state(args.channels)?;
    let download = match args.download {
        0 => None,
        megabytes => download::measure(megabytes, args.runs, out)?,
    };
    report(&args, median, &state, download.as_ref(), out);
    Ok(())
}

/// Microseconds a voucher: CPU of the thread that does it, and by the clock.
#[derive(Clone, Copy)]
struct Run {
    plain_sign: f64,
    plain_verify: f64,
    plain_batch: f64,
    create: f64,
    create_wall: f64,
    add_one: f64,
    add: f64,
    add_wall: f64,
    journal_bytes: f64,
    hub: f64,
    payment: f64,
}

fn report(args: &Args, median: impl Fn(fn(&Run) -> f64) -> f64, state: &State, download: Option<&Speeds>, out: Output) {
    let rows: [(&str, f64, f64, f64); 3] = [
        ("create, journaled", median(|r| r.create), median(|r| r.plain_sign), median(|r| r.create_wall)),
        ("take one, journaled", median(|r| r.add_one), median(|r| r.plain_verify), f64::NAN),
        ("take many, journaled", median(|r| r.add), median(|r| r.plain_batch), median(|r| r.add_wall)),
    ];
    let mut lines = vec![
        ["us a voucher, ed25519", "CPU", "plain signature", "ratio", "a second a core", "a second with disk"]
            .map(String::from)
            .to_vec(),
    ];
    let mut values = Vec::new();
    for (name, cpu, plain, wall) in rows {
        let disk = if wall.is_nan() { String::new() } else { format!("{:.0}", 1e6 / wall) };
        let cells = [format!("{cpu:.1}"), format!("{plain:.1}"), format!("{:.2}", cpu / plain)];
        let rates = [format!("{:.0}", 1e6 / cpu), disk];
        lines.push(std::iter::once(name.to_owned()).chain(cells).chain(rates).collect());
        values.push(json!({"name": name, "cpu_us": round(cpu), "plain_us": round(plain), "ratio": round(cpu / plain),
            "wall_us": if wall.is_nan() { serde_json::Value::Null } else { round(wall) }}));
    }
    let journal = median(|r| r.journal_bytes);
    let (hub, payment) = (median(|r| r.hub), median(|r| r.payment));
    let downloaded = download.map_or(String::new(), |Speeds { free, paid }| {
        let ratio = paid / free;
        format!("\n\n{} MB downloaded: {free:.0} MB/s for nothing, {paid:.0} MB/s paid: {ratio:.2}", args.download)
    });
    let text = format!(
        "{}\n\n{} vouchers, {} to a sync; {journal:.0} bytes of journal each, on both sides\n\n\
         payment over a hub: {hub:.0} us of CPU at the hub, {:.0} a second a core; {payment:.0} us with payer and payee, \
         {:.0} a second a core ({LDK}, measured elsewhere, {LDK_RATE:.0})\n\n\
         {} channels: {:.0} bytes each in the log with what finds them, {:.0} bytes each in a manager's memory{downloaded}",
        table(&lines),
        args.vouchers,
        args.group,
        1e6 / hub,
        1e6 / payment,
        args.channels,
        state.log_bytes,
        state.memory_bytes,
    );
    let value = json!({"name": "channels", "vouchers": args.vouchers, "group": args.group, "runs": args.runs,
        "operations": values, "hub_us": round(hub), "payment_us": round(payment),
        "download": download.map(|d| json!({"mb": args.download, "free_mb_s": round(d.free), "paid_mb_s": round(d.paid),
            "ratio": round(d.paid / d.free)})), "journal_bytes": round(journal), "channels": args.channels,
        "log_bytes_per_channel": round(state.log_bytes), "memory_bytes_per_channel": round(state.memory_bytes)});
    out.data(text, &value);
}

fn round(value: f64) -> serde_json::Value {
    json!((value * 100.0).round() / 100.0)
}

/// One account with its key.
pub(super) struct Party {
    key: SecretKey,
    permission: Permission,
    address: Address,
}

impl Party {
    pub(super) fn new(number: u8) -> Result<Party> {
        let key = SecretKey::from_seed(Curve::Ed25519, [number; 32])?;
        let permission = Permission::single(key.public());
        let address = permission.address(NETWORK);
        Ok(Party { key, permission, address })
    }

    pub(super) fn manager(&self) -> Result<Manager> {
        let accounts = BTreeMap::from([(self.address, self.permission.encode())]);
        Manager::load(Config { committee_id: [1; 32], accounts, policy: Policy::default() }, [])
    }
}

impl Signer for Party {
    fn voucher(&self, _: &Address, terms: wire::Voucher, side: u32) -> Result<Voucher> {
        Ok(Voucher::sign(terms, side, &[&self.key]))
    }

    fn withdraw(&self, _: &Address, permit: &wire::WithdrawPermit) -> Result<wire::SignedPermit> {
        Ok(sign_withdraw(permit, &[&self.key]))
    }

    fn watch(&self, _: &Address, permit: &wire::WatchPermit) -> Result<wire::SignedPermit> {
        Ok(sign_watch(permit, &[&self.key]))
    }
}

pub(super) fn record(payer: &Party, payee: &Party) -> ChannelRecord {
    let side = |party: &Party, deposited| {
        let address = Bytes::copy_from_slice(party.address.as_bytes());
        Some(ChannelSide { address, permission: party.permission.encode(), deposited, ..Default::default() })
    };
    ChannelRecord {
        opener: side(payer, 1 << 40),
        other: side(payee, 0),
        delay_ms: 86_400_000,
        revision: 1,
        ..Default::default()
    }
}

pub(super) fn now() -> Now {
    Now { log_ms: TIME_MS, clock_ms: 0 }
}

fn see(
    manager: &mut Manager,
    party: &Party,
    channel: Hash,
    record: &ChannelRecord,
) -> Result<Vec<wire::ManagerRecord>> {
    let seen = Input::Seen { channel, record: Box::new(record.clone()), time_ms: TIME_MS };
    Ok(manager.handle(now(), seen, party)?.records)
}

/// CPU and clock of something, us for each of `count`.
fn timed<T>(count: usize, work: impl FnOnce() -> Result<T>) -> Result<(T, f64, f64)> {
    let (cpu, clock) = (thread_cpu_ns(), Instant::now());
    let done = work()?;
    let each = 1e-3 / count as f64;
    Ok((done, (thread_cpu_ns() - cpu) as f64 * each, clock.elapsed().as_nanos() as f64 * each))
}

fn measure(args: &Args, dir: &Path, run: usize) -> Result<Run> {
    let (alice, bob) = (Party::new(1)?, Party::new(2)?);
    let channel: Hash = [7; 32];
    let record = record(&alice, &bob);
    let committee = committee()?;
    let open = |number: u8, name: &str| -> Result<Node> {
        let mut node = Node::new(number, &dir.join(format!("{name}-{run}")), &committee)?;
        node.see(channel, &record)?;
        node.sync()?;
        Ok(node)
    };
    let (mut payer, mut payee) = (open(1, "payer")?, open(2, "payee")?);
    let (from, to) = (EndId { channel, side: OPENER }, EndId { channel, side: OTHER });
    let count = args.vouchers;
    let (vouchers, create, create_wall) = timed(count, || {
        let mut vouchers = Vec::with_capacity(count);
        for amount in 1..=count as u64 {
            let issue = Issue { end: from, lane: 0, amount, conditions: Conditions::default() };
            let done = payer.channel(Input::VoucherCreate(issue))?;
            let Reply::Issued { voucher: Some(voucher), .. } = done else { return Err(no_voucher()) };
            vouchers.push(voucher);
            if payer.waiting() >= args.group {
                payer.sync()?;
            }
        }
        payer.sync()?;
        Ok(vouchers)
    })?;
    let digests: Vec<Hash> = vouchers.iter().map(|v| Voucher::decode(v).map(|v| v.digest())).collect::<Result<_>>()?;
    let ((), plain_sign, _) = timed(count, || {
        for digest in &digests {
            black_box(alice.key.sign_body_hash(digest));
        }
        Ok(())
    })?;
    let decoded: Vec<Voucher> = vouchers.iter().map(Voucher::decode).collect::<Result<_>>()?;
    let jobs = || decoded.iter().map(|v| v.job(&alice.permission, &alice.address)).collect::<Vec<_>>();
    let ones = jobs();
    let ((), plain_verify, _) = timed(count, || ones.into_iter().try_for_each(|job| job?.verify()))?;
    let mut batches = Vec::new();
    for (tag, job) in jobs().into_iter().enumerate() {
        if tag % args.group == 0 {
            batches.push(Batch::new());
        }
        if let Some(last) = batches.last_mut() {
            last.push_job(tag, job);
        }
    }
    let ((), plain_batch, _) = timed(count, || {
        batches.into_iter().flat_map(|batch| batch.verify().results).try_for_each(|(_, result)| result)
    })?;
    let incoming = |voucher: &wire::SignedVoucher| Incoming {
        end: to,
        voucher: voucher.clone(),
        secret: Bytes::new(),
        proof: Bytes::new(),
        min_delta: 1,
    };
    let half = count / 2;
    let ((), add_one, _) = timed(half.max(1), || {
        for voucher in &vouchers[..half] {
            payee.channel(Input::VoucherAdd(incoming(voucher)))?;
            if payee.waiting() >= args.group {
                payee.sync()?;
            }
        }
        payee.sync()
    })?;
    let ((), add, add_wall) = timed(count - half, || {
        for group in vouchers[half..].chunks(args.group) {
            let many = group.iter().map(incoming).collect();
            let done = payee.channel(Input::VoucherAddMany(many))?;
            payee.sync()?;
            let Reply::AddedMany(all) = done else { return Err(no_voucher()) };
            all.into_iter().try_for_each(|one| one.map(drop))?;
        }
        Ok(())
    })?;
    let length = |name: &str| std::fs::metadata(dir.join(format!("{name}-{run}"))).map_or(0, |m| m.len());
    let journal_bytes = (length("payer") + length("payee")) as f64 / 2.0 / count as f64;
    let Cost { hub, all: payment } =
        hub::measure(args.payments, args.group, |wallet| dir.join(format!("{wallet}-{run}")), &committee)?;
    Ok(Run {
        plain_sign,
        plain_verify,
        plain_batch,
        create,
        create_wall,
        add_one,
        add,
        add_wall,
        journal_bytes,
        hub,
        payment,
    })
}

fn no_voucher() -> Error {
    Error::new(Code::ChannelFunds, "the measured channel gave no voucher")
}

fn committee() -> Result<std::sync::Arc<Committee>> {
    Ok(florin_core::testing::TestCommittee::new(4, 1).build().0)
}

/// Bytes of a channel.
struct State {
    log_bytes: f64,
    memory_bytes: f64,
}

/// As the log keeps it, and as a manager does.
fn state(channels: usize) -> Result<State> {
    let (alice, bob) = (Party::new(1)?, Party::new(2)?);
    let record = record(&alice, &bob);
    // Key and value, and an entry for each side that finds it.
    let log_bytes = (1 + 32 + prost::Message::encoded_len(&record) + 2 * (1 + 32 + 32)) as f64;
    let mut manager = alice.manager()?;
    let before = resident();
    for number in 0..channels as u64 {
        let mut channel = [0; 32];
        channel[..8].copy_from_slice(&number.to_be_bytes());
        see(&mut manager, &alice, channel, &record)?;
    }
    let memory_bytes = resident().saturating_sub(before) as f64 / channels.max(1) as f64;
    black_box(&manager);
    Ok(State { log_bytes, memory_bytes })
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4_096
}
