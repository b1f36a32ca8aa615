//! Lives of hubs: payments over hubs with some 20 channels, in one thread and virtual time, on the log of core.
//!
//! Everything of core is the real one: hub, manager, journal records, the ordered log with its certificates, clocks, delays and
//! redemptions. What is simulated is what lies between: disks that keep what was synced, connections that break, messages that are lost or
//! come late, users who are away, restore old backups or lie, and time. A life is decided by its seed and the number of channels and steps.
//!
//! What may happen, so that those who keep the rules stay safe: a hub and a watchful user look at the log every few seconds
//! of log time, the log has what they send within 20 s, and they are never away for longer than a hub's grace. Liars are users, never hubs.
//!
//! | file | what |
//! |---|---|
//! | `ledger` | the log, and accounts |
//! | `template` | what every life begins with |
//! | `node` | a party: hub, manager, journal |
//! | `world` | connections, effects, time |
//! | `life`, `liars` | what happens |
//! | `facts`, `checks` | what has to hold |

mod checks;
mod facts;
mod ledger;
mod liars;
mod life;
mod node;
mod template;
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use florin_core::error::Code;
use serde::Serialize;

use self::life::Life;
use self::template::Template;

/// How often rare things have happened.
pub type Marks = BTreeMap<&'static str, u64>;

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Of the first life; the others follow.
    pub seed: u64,
    /// Lives.
    pub schedules: u64,
    /// Channels of the hub, 4 to 200.
    pub channels: usize,
    /// Things that happen in a life, before it is ended.
    pub steps: u64,
    /// How the shells around the hubs work.
    pub shell: Shell,
}

impl Options {
    /// So many lives with 20 channels and 200 steps.
    pub fn new(seed: u64, schedules: u64) -> Options {
        Options { seed, schedules, channels: 20, steps: 200, shell: Shell::Sound }
    }
}

/// How the shells around the hubs work; all but the first are wrong, each in one way, for tests of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Shell {
    /// As it has to be.
    #[default]
    Sound,
    /// What follows from a group is done before the group is durable.
    SendsBeforeDurable,
    /// A crash may take the last group that was durable.
    LosesGroups,
    /// Hubs forward with half a minute between the two locks.
    SmallMargin,
    /// Greetings are taken as if they said nothing.
    BlindToHello,
    /// Hubs never learn a secret, neither from a message nor from the log.
    DropsSecrets,
    /// Hubs are away for longer than their grace.
    SleepsTooLong,
    /// Orders under way are signed once more after a restart.
    SignsOrdersAnew,
    /// Hubs take a clock that is 45 minutes ahead for log time.
    ClockAhead,
}

/// What a life came to.
pub struct Found {
    /// What happened in it.
    pub marks: Marks,
    /// Rules broken.
    pub violations: Vec<String>,
}

/// A life that broke a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Its seed.
    pub seed: u64,
    /// What broke.
    pub violations: Vec<String>,
}

/// What lives came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Of the first.
    pub seed: u64,
    /// Lives.
    pub schedules: u64,
    /// Channels of the hub.
    pub channels: usize,
    /// Steps of a life.
    pub steps: u64,
    /// How often rare things have happened.
    pub marks: BTreeMap<String, u64>,
    /// Of those that are looked for, the ones that never did.
    pub never: Vec<String>,
    /// Lives that broke a rule.
    pub broken: Vec<Broken>,
    /// Real seconds that it took, if the caller measured them.
    pub wall_seconds: Option<f64>,
}

/// What every long run has to reach.
pub const SOMETIMES: [&str; 50] = [
    "HUB_CAPS",
    "HUB_FEE",
    "HUB_MARGIN",
    "HUB_OFFLINE",
    "away for hours",
    "away for minutes",
    "cancelled by the payee",
    "cancelled lock redeemed all the same",
    "channel opened in between",
    "collected in between",
    "connection broken",
    "crash",
    "crash between a group and what follows it",
    "crash that lost groups",
    "deposit that the account can't pay",
    "failed back upstream",
    "false greeting",
    "forged voucher",
    "forwarded and paid",
    "given back",
    "lock claimed in its last millisecond",
    "lock claimed in the log",
    "lock kept for a forgotten way",
    "lock redeemed by a liar",
    "message lost",
    "message of a liar once more",
    "message of an old connection",
    "message that a liar kept to itself",
    "not paid",
    "old backup restored",
    "order of a channel failed",
    "own lock expired",
    "paid",
    "payment",
    "payment over two hubs",
    "redeemed too late, and refused",
    "refused",
    "reservation that tops up",
    "restored backup noticed",
    "restored backup seen in the log",
    "secret learned",
    "secret learned from the log",
    "secret shown",
    "secret shown late in the log",
    "settled by a liar",
    "settled in between",
    "settled with locks in flight",
    "up-front fee taken",
    "voucher by hand",
    "withdrawal with a permit",
];

/// Lives them. `progress` is told of each that is over, and of what broke in it.
pub fn run(options: &Options, mut progress: impl FnMut(u64, &[String])) -> Report {
    let template = Template::new(options.channels);
    let mut marks = Marks::new();
    let mut broken = Vec::new();
    for seed in (options.seed..).take(usize::try_from(options.schedules).unwrap_or(usize::MAX)) {
        let found = catch_unwind(AssertUnwindSafe(|| Life::new(seed, options, &template).live()));
        let found = found.unwrap_or_else(|panic| Found { marks: Marks::new(), violations: vec![said(&*panic)] });
        for (mark, count) in found.marks {
            *marks.entry(mark).or_default() += count;
        }
        progress(seed, &found.violations);
        if !found.violations.is_empty() {
            broken.push(Broken { seed, violations: found.violations });
        }
    }
    let never = SOMETIMES.iter().filter(|mark| !marks.contains_key(**mark)).map(|mark| (*mark).to_owned()).collect();
    Report {
        seed: options.seed,
        schedules: options.schedules,
        channels: options.channels,
        steps: options.steps,
        marks: marks.into_iter().map(|(mark, count)| (mark.to_owned(), count)).collect(),
        never,
        broken,
        wall_seconds: None,
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("an invariant of core does not hold: {}", text.unwrap_or("a panic"))
}

/// The mark of a message that is refused.
fn refusal_mark(code: Code) -> &'static str {
    code.name()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.seed + self.schedules.max(1) - 1;
        write!(f, "{} lives of a hub with {} channels, seeds {} to {last}", self.schedules, self.channels, self.seed)?;
        match self.wall_seconds {
            Some(wall) => writeln!(f, ": {wall:.1} s, {:.0} a second", self.schedules as f64 / wall)?,
            None => writeln!(f)?,
        }
        let marks: Vec<String> = self.marks.iter().map(|(mark, count)| format!("{count} {mark}")).collect();
        writeln!(f, "happened: {}", marks.join(", "))?;
        writeln!(f, "never: {}", if self.never.is_empty() { "none".into() } else { self.never.join(", ") })?;
        if self.broken.is_empty() {
            return write!(f, "violations: none");
        }
        write!(f, "violations in {} lives:", self.broken.len())?;
        for one in &self.broken {
            one.violations.iter().try_for_each(|what| write!(f, "\n  seed {}: {what}", one.seed))?;
            write!(
                f,
                "\n  again: florin sim hubs --seed {} --schedules 1 --channels {} --steps {}",
                one.seed, self.channels, self.steps
            )?;
        }
        Ok(())
    }
}
