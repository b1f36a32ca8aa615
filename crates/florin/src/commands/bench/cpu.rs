//! CPU time: of other processes, by what they spend it on, and of plain signature verification.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ed25519_zebra::{Signature, SigningKey, VerificationKeyBytes, batch};
use florin_core::{Code, Error, Result};
use florin_node::meter::thread_cpu_ns;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

/// CPU seconds of a process: in all, and by the kinds that its `/metrics` names.
#[derive(Clone, Default, Debug)]
pub struct Cpu {
    /// User and system time.
    pub total: f64,
    /// By kind.
    pub kinds: BTreeMap<String, f64>,
}

impl Cpu {
    /// Of a running authority.
    pub fn read(pid: u32, http: &str) -> Result<Cpu> {
        Ok(Cpu { total: process_seconds(pid)?, kinds: kinds(&metrics(http)?) })
    }

    /// What was used since `before`.
    pub fn since(&self, before: &Cpu) -> Cpu {
        let kinds = self.kinds.iter().map(|(k, v)| (k.clone(), v - before.kinds.get(k).unwrap_or(&0.0)));
        Cpu { total: self.total - before.total, kinds: kinds.collect() }
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Cpu) {
        self.total += other.total;
        for (kind, seconds) in &other.kinds {
            *self.kinds.entry(kind.clone()).or_default() += seconds;
        }
    }
}

/// The scheduler's count of nanoseconds on a CPU, over all threads of a process.
fn process_seconds(pid: u32) -> Result<f64> {
    let failed = |e: std::io::Error| Error::new(Code::Io, format!("CPU time of process {pid}: {e}"));
    let mut ns = 0.0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).map_err(failed)? {
        let path = task.map_err(failed)?.path().join("schedstat");
        // A thread may end while we look.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        ns += text.split_whitespace().next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
    }
    Ok(ns / 1e9)
}

fn metrics(http: &str) -> Result<String> {
    let get = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(http)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: {http}\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    get().map_err(|e| Error::new(Code::Unreachable, format!("metrics at {http}: {e}")))
}

fn kinds(page: &str) -> BTreeMap<String, f64> {
    let mut out = BTreeMap::new();
    for line in page.lines().filter(|l| l.starts_with("florin_cpu_seconds_total{")) {
        let kind = line.split("kind=\"").nth(1).and_then(|rest| rest.split('"').next());
        let value = line.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok());
        if let (Some(kind), Some(value)) = (kind, value) {
            *out.entry(kind.to_owned()).or_insert(0.0) += value;
        }
    }
    out
}

/// CPU microseconds for one of `n` ed25519 signatures verified in one batch by the library, each by another key over a
/// message as long as an order's. Median of `runs`.
pub fn batch_verification_us(n: u64, runs: usize) -> Result<f64> {
    let mut jobs: Vec<(VerificationKeyBytes, Signature, Vec<u8>)> = Vec::new();
    for i in 0..n {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&i.to_be_bytes());
        let key = SigningKey::from(seed);
        let message = [&b"PBTX-TX-v1"[..], &seed[..]].concat();
        jobs.push((VerificationKeyBytes::from(&key), key.sign(&message), message));
    }
    let mut times = Vec::with_capacity(runs);
    for run in 0..runs {
        let start = thread_cpu_ns();
        let mut batch = batch::Verifier::new();
        jobs.iter().for_each(|(key, signature, message)| batch.queue((*key, *signature, message)));
        batch
            .verify(ChaCha20Rng::seed_from_u64(run as u64))
            .map_err(|_| Error::new(Code::BadVote, "a signature of the benchmark does not verify"))?;
        times.push((thread_cpu_ns() - start) as f64 / 1e3 / n as f64);
    }
    Ok(median(&mut times))
}

/// The middle one.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The value that `percent` of the sorted values do not exceed.
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}
