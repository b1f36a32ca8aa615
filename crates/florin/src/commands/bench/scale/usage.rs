//! What this process has used so far.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use florin_core::{Code, Error, Result};
use florin_node::meter::process_cpu_ns;

/// Threads of the storage that work beside what is asked of it.
const BACKGROUND: [&str; 2] = ["store-flush", "store-merge"];
/// How often background work is looked at, and how long it may take to come to rest.
const LOOK: Duration = Duration::from_millis(50);
const REST_MAX: Duration = Duration::from_secs(300);
/// Looks in a row that find nothing done.
const QUIET: usize = 6;

/// Seconds and bytes.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// CPU of all threads.
    pub cpu: f64,
    /// CPU of the threads that flush, and of those that merge.
    pub flush: f64,
    pub merge: f64,
    /// Handed to the disk.
    pub written: u64,
}

impl Usage {
    /// Now.
    pub fn read() -> Result<Usage> {
        let background = threads()?;
        let of = |i: usize| background.get(BACKGROUND[i]).copied().unwrap_or(0.0);
        Ok(Usage {
            cpu: process_cpu_ns() as f64 / 1e9,
            flush: of(0),
            merge: of(1),
            written: field("io", "write_bytes:"),
        })
    }

    /// Since then.
    pub fn since(&self, before: &Usage) -> Usage {
        Usage {
            cpu: self.cpu - before.cpu,
            flush: self.flush - before.flush,
            merge: self.merge - before.merge,
            written: self.written - before.written,
        }
    }
}

/// CPU seconds of threads by name.
fn threads() -> Result<BTreeMap<String, f64>> {
    let failed = |e: std::io::Error| Error::new(Code::Io, format!("CPU time of threads: {e}"));
    let mut seconds = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").map_err(failed)? {
        let path = task.map_err(failed)?.path();
        let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap_or_default();
        let ns = read("schedstat").split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0);
        *seconds.entry(read("comm").trim().to_owned()).or_insert(0.0) += ns / 1e9;
    }
    Ok(seconds)
}

/// Waits until nothing is flushed or merged any more.
pub fn rest() -> Result<()> {
    let deadline = Instant::now() + REST_MAX;
    let (mut before, mut quiet) = (Usage::read()?, 0);
    while quiet < QUIET && Instant::now() < deadline {
        std::thread::sleep(LOOK);
        let now = Usage::read()?;
        quiet = if (now.flush, now.merge) == (before.flush, before.merge) { quiet + 1 } else { 0 };
        before = now;
    }
    Ok(())
}

/// Resident bytes.
pub fn resident() -> u64 {
    field("status", "VmRSS:") * 1_024
}

/// A number of this process's files in /proc.
fn field(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
