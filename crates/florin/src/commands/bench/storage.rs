//! `florin bench storage`: a shard's storage by itself: groups that are durable before anything is said, a table of many
//! accounts, and starting again; each beside plain appends of the same bytes to one file on the same disk.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use florin_core::authority::state::{Table, Write};
use florin_core::{Code, Error, Result};
use florin_node::storage::Store;
use serde_json::json;

use super::cpu::percentile;
use super::progress::Progress;
use crate::commands::support::table;
use crate::output::Output;

/// Records of a group.
const GROUPS: [usize; 4] = [1, 10, 100, 1_000];
/// Durable groups of each size that are measured.
const TIMES: usize = 300;
/// Groups before those, to warm up.
const WARM_UP: usize = 10;
/// Of an account: its key, and about what its record has.
const KEY_BYTES: usize = 16;
const VALUE_BYTES: usize = 160;
/// Records read one by one.
const READS: usize = 100_000;
/// Who the store belongs to.
const COMMITTEE: [u8; 32] = [7; 32];

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// Records of the large table
    #[arg(long, default_value_t = 2_000_000)]
    records: u64,
    /// Where files are made; a temporary folder if not given
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Durable groups of one size; milliseconds of each, ascending.
struct Groups {
    records: usize,
    ours: Vec<f64>,
    plain: Vec<f64>,
}

/// The large table.
struct Large {
    write_s: f64,
    plain_s: f64,
    disk_bytes: u64,
    open_s: f64,
    read_us: f64,
}

/// Runs it.
pub fn run(args: Args, out: Output) -> Result<()> {
    if args.records < 1_000 {
        return Err(Error::expected(Code::Usage, "--records", "at least 1000", args.records));
    }
    let made = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let dir = made.map_err(|e| Error::new(Code::Io, format!("a temporary folder: {e}")))?;
    let mut groups = Vec::new();
    let mut progress = Progress::new(GROUPS.len() + 1, out);
    for records in GROUPS {
        progress.step(format_args!("{TIMES} groups of {records} records"));
        groups.push(durable(dir.path(), records)?);
    }
    progress.step(format_args!("a table of {} records", args.records));
    let large = large(dir.path(), args.records)?;
    drop(progress);
    report(&args, &groups, &large, out);
    Ok(())
}

/// Keys are as far from each other as hashes: record `number`'s.
fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

fn record(number: u64, version: u8) -> Write {
    let mut value = vec![version; VALUE_BYTES];
    value[..8].copy_from_slice(&number.to_be_bytes());
    Write::put(Table::Accounts, key(number), value)
}

fn plain_file(path: &Path) -> Result<File> {
    OpenOptions::new().create_new(true).append(true).open(path).map_err(|e| failed(path, e))
}

fn failed(path: &Path, e: std::io::Error) -> Error {
    Error::new(Code::Io, format!("{}: {e}", path.display()))
}

/// Groups that are written and synced, ours and plain ones in turn: both meet the same moments of the disk.
fn durable(dir: &Path, records: usize) -> Result<Groups> {
    let store = Store::open(&dir.join(format!("groups-{records}")), 0, COMMITTEE, 0, true)?;
    let path = dir.join(format!("plain-{records}"));
    let mut file = plain_file(&path)?;
    let bytes = vec![7; records * (KEY_BYTES + VALUE_BYTES)];
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for time in 0..WARM_UP + TIMES {
        let first = (time * records) as u64;
        let writes: Vec<Write> = (first..first + records as u64).map(|number| record(number, 0)).collect();
        let start = Instant::now();
        store.write(&writes)?;
        store.sync()?;
        ours.push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        file.write_all(&bytes).and_then(|()| file.sync_data()).map_err(|e| failed(&path, e))?;
        plain.push(start.elapsed().as_secs_f64() * 1e3);
    }
    [&mut ours, &mut plain].into_iter().for_each(|all| {
        all.drain(..WARM_UP);
        all.sort_by(f64::total_cmp);
    });
    Ok(Groups { records, ours, plain })
}

/// Writes a table twice over, in groups of a thousand, each durable; opens it again as after a kill; and reads from it.
fn large(dir: &Path, records: u64) -> Result<Large> {
    let folder = dir.join("large");
    let path = dir.join("plain-large");
    let store = Store::open(&folder, 0, COMMITTEE, 0, true)?;
    let numbers: Vec<u64> = (0..records).collect();
    let start = Instant::now();
    for version in 0..2 {
        for group in numbers.chunks(1_000) {
            store.write(&group.iter().map(|number| record(*number, version)).collect::<Vec<_>>())?;
            store.sync()?;
        }
    }
    let write_s = start.elapsed().as_secs_f64();
    let mut file = plain_file(&path)?;
    let bytes = vec![7; 1_000 * (KEY_BYTES + VALUE_BYTES)];
    let start = Instant::now();
    for _ in 0..2 * records.div_ceil(1_000) {
        file.write_all(&bytes).and_then(|()| file.sync_data()).map_err(|e| failed(&path, e))?;
    }
    let plain_s = start.elapsed().as_secs_f64();
    drop(store);
    let start = Instant::now();
    let store = Store::open(&folder, 0, COMMITTEE, 0, false)?;
    let open_s = start.elapsed().as_secs_f64();
    let start = Instant::now();
    for read in 0..READS as u64 {
        let number = read.wrapping_mul(0x9e37_79b9_7f4a_7c15) % records;
        let value = store.get(Table::Accounts, &key(number))?;
        if value.is_none_or(|value| value[..8] != number.to_be_bytes() || value[8] != 1) {
            return Err(Error::new(Code::StorageCorrupt, format!("record {number} is not as it was written")));
        }
    }
    let read_us = start.elapsed().as_secs_f64() * 1e6 / READS as f64;
    Ok(Large { write_s, plain_s, disk_bytes: store.disk_bytes(), open_s, read_us })
}

fn report(args: &Args, groups: &[Groups], large: &Large, out: Output) {
    let head = ["records", "p50 ms", "p99", "plain p50", "p99", "p50 by plain", "records/s"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let mut values = Vec::new();
    for group in groups {
        let [p50, p99] = [50.0, 99.0].map(|percent| percentile(&group.ours, percent));
        let [plain50, plain99] = [50.0, 99.0].map(|percent| percentile(&group.plain, percent));
        let rate = group.records as f64 * 1e3 * group.ours.len() as f64 / group.ours.iter().sum::<f64>();
        let mut line = vec![group.records.to_string()];
        line.extend([p50, p99, plain50, plain99, p50 / plain50].map(|value| format!("{value:.2}")));
        line.push(format!("{rate:.0}"));
        lines.push(line);
        values.push(json!({
            "records": group.records, "p50_ms": p50, "p99_ms": p99, "plain_p50_ms": plain50, "plain_p99_ms": plain99,
            "ratio": p50 / plain50, "rate": rate,
        }));
    }
    let written = 2.0 * args.records as f64;
    let ratio = large.write_s / large.plain_s;
    let each = large.disk_bytes as f64 / args.records as f64;
    let text = format!(
        "groups of records, written and synced\n\n{}\n\n\
         table of {} records, each written twice, {} bytes with its key\n\
         written durably     {:>9.0} /s   {ratio:.2} times as long as plain appends, synced as often\n\
         on disk             {each:>9.0} bytes a record\n\
         opened again        {:>9.2} s\n\
         read one by one     {:>9.2} us",
        table(&lines),
        args.records,
        KEY_BYTES + VALUE_BYTES,
        written / large.write_s,
        large.open_s,
        large.read_us,
    );
    let large = json!({
        "records": args.records, "rate": written / large.write_s, "ratio": ratio, "disk_bytes": each,
        "open_s": large.open_s, "read_us": large.read_us,
    });
    out.data(text, &json!({"name": "storage", "groups": values, "table": large}));
}
