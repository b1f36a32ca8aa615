//! How far a benchmark is: a bar on a terminal, lines elsewhere; always on stderr.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;

/// What the bar shows.
const BAR: &str = "{bar:24} {pos:>3}/{len} {elapsed_precise} {msg}";

/// The steps of one benchmark.
pub struct Progress {
    bar: ProgressBar,
    out: Output,
    begun: bool,
}

impl Progress {
    /// Nothing done of so many steps.
    pub fn new(steps: usize, out: Output) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            bar.set_style(style);
        }
        Progress { bar, out, begun: false }
    }

    /// The next step begins; the one before is done.
    pub fn step(&mut self, what: impl std::fmt::Display) {
        if std::mem::replace(&mut self.begun, true) {
            self.bar.inc(1);
        }
        match self.bar.is_hidden() {
            true => self.out.note(what),
            false => self.bar.set_message(what.to_string()),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
