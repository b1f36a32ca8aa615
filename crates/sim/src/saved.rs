//! Runs in files: what was run and what it came to, to run it again.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};

use crate::checkers::Rule;
use crate::{Options, Report, run_until};

/// Of the files.
pub const FORMAT: u32 = 1;
/// What a broken invariant of the core counts as, beside the names of [`Rule`].
pub const PANIC: &str = "Panic";

/// A run and what it came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// [`FORMAT`].
    pub format: u32,
    /// What was run.
    pub options: Options,
    /// sha256 over all events, hex; empty if the run panicked.
    pub trace: String,
    /// Events.
    pub events: u64,
    /// Rules broken.
    pub violations: Vec<String>,
}

impl Saved {
    /// A run and its report.
    pub fn new(options: Options, report: &Report) -> Self {
        Saved {
            format: FORMAT,
            options,
            trace: report.trace.clone(),
            events: report.events,
            violations: report.violations.clone(),
        }
    }

    /// The kind of violation that came first: the name of a rule, or [`PANIC`].
    pub fn first_kind(&self) -> Option<&str> {
        self.violations.first().map(|v| kind(v))
    }
}

/// The kind of a violation.
pub fn kind(violation: &str) -> &str {
    violation.split([' ', ':']).next().unwrap_or_default()
}

/// Runs until one of these rules is broken or to the end; a panic is a violation of the kind [`PANIC`].
pub fn run_caught(options: &Options, stop_at: impl IntoIterator<Item = Rule>) -> Report {
    let caught = catch_unwind(AssertUnwindSafe(|| run_until(options.clone(), stop_at)));
    caught.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Report {
            seed: options.seed,
            authorities: options.authorities,
            shards: options.shards,
            profile: options.profile,
            violations: vec![format!("{PANIC}: {}", text.unwrap_or("without a text"))],
            broken: [(PANIC.to_owned(), 0)].into(),
            ..Report::default()
        }
    })
}
