//! Many runs in one table: what they did, what they met, and what they never did.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::marks::{ATTACKERS, FAULTS, MARKS, count};
use crate::{Operations, Options, Report};

/// Virtual seconds of a sparse run.
const SPARSE_SECONDS: u64 = 1_000;
/// How much more slowly clients and liars come up with something in it: about one settled order a second is left.
const SPARSE_PACE: u64 = 70;

/// Runs of 4 authorities with about one payment a second, all else as ever. How many times faster than real time a run
/// is says little without its load.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sparse {
    /// Runs.
    pub seeds: u64,
    /// Virtual seconds.
    pub simulated_seconds: f64,
    /// CPU seconds of the thread.
    pub cpu_seconds: f64,
    /// Virtual seconds by CPU second.
    pub speed_up: f64,
    /// Orders settled by virtual second.
    pub settled_by_second: f64,
    #[serde(skip)]
    settled: u64,
}

impl Sparse {
    /// The sparse run of a seed.
    pub fn options(seed: u64) -> Options {
        Options { seconds: SPARSE_SECONDS, pace: SPARSE_PACE, ..Options::new(seed) }
    }
}

/// What many runs came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Survey {
    /// Runs.
    pub seeds: u64,
    /// By profile.
    pub profiles: BTreeMap<&'static str, u64>,
    /// By number of authorities.
    pub committees: BTreeMap<u32, u64>,
    /// Virtual hours.
    pub simulated_hours: f64,
    /// CPU seconds of the one thread that ran them.
    pub cpu_seconds: f64,
    /// Virtual seconds by CPU second.
    pub speed_up: f64,
    /// The same of runs with 4 authorities; `None` without such.
    pub speed_up_of_four: Option<f64>,
    /// Of runs that are long and have few payments; `None` without such.
    pub sparse: Option<Sparse>,
    /// Events.
    pub events: u64,
    /// What was done, by kind.
    pub operations: BTreeMap<&'static str, u64>,
    /// Faults by kind, 0 for those never met.
    pub faults: BTreeMap<&'static str, u64>,
    /// Attackers, by how often each did something.
    pub attackers: BTreeMap<&'static str, u64>,
    /// Rare branches, by the runs that hit each.
    pub marks: BTreeMap<&'static str, u64>,
    /// Marks that no run hit.
    pub never: Vec<&'static str>,
    /// Violations, each with its seed.
    pub violations: Vec<String>,
    /// Seeds that were run twice.
    pub twice: u64,
    /// Of them, those with another trace hash the second time.
    pub unequal: Vec<u64>,
    #[serde(skip)]
    of_four: (f64, f64),
}

impl Survey {
    /// Adds a run that took so many CPU seconds.
    pub fn add(&mut self, report: &Report, cpu_seconds: f64) {
        self.seeds += 1;
        *self.profiles.entry(report.profile.name()).or_default() += 1;
        *self.committees.entry(report.authorities).or_default() += 1;
        self.simulated_hours += report.simulated_seconds / 3_600.0;
        self.cpu_seconds += cpu_seconds;
        self.speed_up = self.simulated_hours * 3_600.0 / self.cpu_seconds.max(1e-9);
        if report.authorities == 4 {
            self.of_four = (self.of_four.0 + report.simulated_seconds, self.of_four.1 + cpu_seconds);
            self.speed_up_of_four = Some(self.of_four.0 / self.of_four.1.max(1e-9));
        }
        self.events += report.events;
        for (what, n) in operations(&report.operations) {
            *self.operations.entry(what).or_default() += n;
        }
        for name in FAULTS {
            *self.faults.entry(name).or_default() += count(report, name);
        }
        for (who, kinds) in ATTACKERS {
            *self.attackers.entry(who).or_default() += kinds.iter().map(|kind| count(report, kind)).sum::<u64>();
        }
        for name in MARKS {
            *self.marks.entry(name).or_default() += u64::from(count(report, name) > 0);
        }
        self.never = MARKS.iter().copied().filter(|name| self.marks[name] == 0).collect();
        self.violations.extend(report.violations.iter().map(|v| format!("seed {}: {v}", report.seed)));
    }

    /// Adds a sparse run that took so many CPU seconds.
    pub fn add_sparse(&mut self, report: &Report, cpu_seconds: f64) {
        let sparse = self.sparse.get_or_insert_default();
        sparse.seeds += 1;
        sparse.simulated_seconds += report.simulated_seconds;
        sparse.cpu_seconds += cpu_seconds;
        sparse.speed_up = sparse.simulated_seconds / sparse.cpu_seconds.max(1e-9);
        sparse.settled += report.operations.settled;
        sparse.settled_by_second = sparse.settled as f64 / sparse.simulated_seconds.max(1e-9);
        self.violations.extend(report.violations.iter().map(|v| format!("sparse seed {}: {v}", report.seed)));
    }

    /// Adds that a seed was run again.
    pub fn again(&mut self, first: &Report, second: &Report) {
        self.twice += 1;
        if first != second {
            self.unequal.push(first.seed);
        }
    }
}

/// What was done, in words.
fn operations(o: &Operations) -> [(&'static str, u64); 13] {
    [
        ("orders settled", o.settled),
        ("payments and operations final", o.finals),
        ("operations of the log", o.ordered),
        ("contracts claimed", o.claimed),
        ("contracts refunded", o.refunded),
        ("sessions of the log", o.sessions),
        ("recoveries", o.voided + o.kept),
        ("PBTX transactions", o.transacted),
        ("orders with notes", o.cash_finals),
        ("channels collected", o.collected),
        ("channel orders", o.channel_finals),
        ("vouchers signed", o.vouchers),
        ("vouchers redeemed", o.redeemed),
    ]
}

impl fmt::Display for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |of: Vec<String>| if of.is_empty() { "none".to_owned() } else { of.join(", ") };
        let sizes = self.committees.iter().map(|(n, runs)| format!("{runs} of {n} authorities"));
        let profiles = self.profiles.iter().map(|(name, runs)| format!("{runs} {name}"));
        writeln!(f, "{:<20}{} ({}; {})", "seeds", self.seeds, list(sizes.collect()), list(profiles.collect()))?;
        writeln!(f, "{:<20}{:.2} simulated hours, {} events", "time", self.simulated_hours, self.events)?;
        write!(f, "{:<20}{:.0} times real time, by CPU of one thread", "speed-up", self.speed_up)?;
        match self.speed_up_of_four {
            Some(speed) => writeln!(f, " ({speed:.0} with 4 authorities)")?,
            None => writeln!(f)?,
        }
        if let Some(Sparse { seeds, speed_up, settled_by_second, .. }) = &self.sparse {
            writeln!(
                f,
                "{:<20}{speed_up:.0} times real time with 4 authorities and {settled_by_second:.1} settled orders a second ({seeds} seeds of {SPARSE_SECONDS} s, pace {SPARSE_PACE})",
                ""
            )?;
        }
        for (title, counts) in
            [("operations", &self.operations), ("faults", &self.faults), ("attackers", &self.attackers)]
        {
            writeln!(f, "{title}")?;
            counts.iter().try_for_each(|(what, n)| writeln!(f, "{n:>14}  {what}"))?;
        }
        writeln!(f, "{:<20}{} of {} hit; runs that hit each:", "marks", MARKS.len() - self.never.len(), MARKS.len())?;
        let hit = self.marks.iter().filter(|(_, n)| **n > 0);
        hit.into_iter().try_for_each(|(what, n)| writeln!(f, "{n:>14}  {what}"))?;
        writeln!(f, "{:<20}{}", "never hit", list(self.never.iter().map(|s| (*s).to_owned()).collect()))?;
        let equal = self.twice - self.unequal.len() as u64;
        writeln!(f, "{:<20}{equal} of {} seeds run twice came to the same", "deterministic", self.twice)?;
        write!(f, "{:<20}{}", "violations", self.violations.len())?;
        self.violations.iter().try_for_each(|v| write!(f, "\n  {v}"))
    }
}
