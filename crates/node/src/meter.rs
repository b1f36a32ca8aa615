//! CPU time of one thread, split by what it was spent on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use florin_core::authority::{Meter, Phase};
use rustix::time::{ClockId, clock_gettime};

/// What CPU time is counted under.
pub const KINDS: [&str; 5] = ["decode", "signatures", "votes", "state", "storage"];
const STORAGE: usize = 4;

/// Nanoseconds of CPU by kind, shared with whoever reports them.
#[derive(Default, Debug)]
pub struct CpuTimes([AtomicU64; KINDS.len()]);

impl CpuTimes {
    /// (kind, CPU time so far).
    pub fn read(&self) -> impl Iterator<Item = (&'static str, Duration)> + '_ {
        KINDS.iter().zip(&self.0).map(|(kind, ns)| (*kind, Duration::from_nanos(ns.load(Ordering::Relaxed))))
    }

    /// Counts storage work of another thread.
    pub fn add_storage(&self, ns: u64) {
        self.0[STORAGE].fetch_add(ns, Ordering::Relaxed);
    }
}

/// CPU nanoseconds that the calling thread has used.
pub fn thread_cpu_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// CPU nanoseconds that all threads of this process have used.
pub fn process_cpu_ns() -> u64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Splits the calling thread's CPU time over the phases of a step.
pub struct ThreadMeter {
    times: Arc<CpuTimes>,
    kind: usize,
    since: u64,
}

impl ThreadMeter {
    /// Starts under "state".
    pub fn start(times: Arc<CpuTimes>) -> Self {
        ThreadMeter { times, kind: 3, since: thread_cpu_ns() }
    }

    /// From here on it is storage.
    pub fn begin_storage(&mut self) {
        self.switch(STORAGE);
    }

    fn switch(&mut self, kind: usize) {
        // Asking the clock is a system call.
        if kind != self.kind {
            self.count();
            self.kind = kind;
        }
    }

    fn count(&mut self) {
        let now = thread_cpu_ns();
        self.times.0[self.kind].fetch_add(now - self.since, Ordering::Relaxed);
        self.since = now;
    }
}

impl Meter for ThreadMeter {
    fn begin(&mut self, phase: Phase) {
        self.switch(match phase {
            Phase::Decode => 0,
            Phase::Signatures => 1,
            Phase::Votes => 2,
            Phase::State => 3,
        });
    }
}

impl Drop for ThreadMeter {
    fn drop(&mut self) {
        self.count();
    }
}
