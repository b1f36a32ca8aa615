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
//! | `world`, `virtual_world`, `time` | connections, effects; the log, time, crashes |
//! | `life`, `deeds`, `virtual_deeds`, `liars` | what happens |
//! | `facts`, `sets`, `checks`, `virtual_checks` | what has to hold |

mod checks;
mod deeds;
mod facts;
mod ledger;
mod liars;
mod life;
mod node;
mod sets;
mod template;
mod time;
mod virtual_checks;
mod virtual_deeds;
mod virtual_world;
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
    /// A crash at a chosen place, beside those by chance.
    pub crash: Option<Crash>,
}

/// A crash when a party is about to append an entry to its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// Which; 0 and 1 are hubs.
    pub party: usize,
    /// Which of the entries of its life, from 1.
    pub entry: usize,
    /// Whether the entry is durable; nothing of what it asks for is done.
    pub kept: bool,
}

impl Options {
    /// So many lives with 20 channels and 200 steps.
    pub fn new(seed: u64, schedules: u64) -> Options {
        Options { seed, schedules, channels: 20, steps: 200, shell: Shell::Sound, crash: None }
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
    /// Virtual channels of hubs never hear that the log has changed, or that time has passed.
    NeverLooks,
}

/// What a life came to.
pub struct Found {
    /// What happened in it.
    pub marks: Marks,
    /// Rules broken.
    pub violations: Vec<String>,
    /// Entries of each party's journal.
    pub entries: Vec<usize>,
}

/// A life that broke a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Its seed.
    pub seed: u64,
    /// Where it had a crash that was chosen.
    pub crash: Option<String>,
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
    /// Further lives of them, with a crash at a chosen place.
    pub points: u64,
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
pub const SOMETIMES: [&str; 73] = [
    "HUB_CAPS",
    "HUB_FEE",
    "HUB_MARGIN",
    "HUB_OFFLINE",
    "away for hours",
    "away for minutes",
    "cancelled by the payee",
    "cancelled lock redeemed all the same",
    "channel opened in between",
    "collected channel forgotten",
    "collected in between",
    "connection broken",
    "crash",
    "crash between a group and what follows it",
    "crash that lost groups",
    "deposit that the account can't pay",
    "failed back upstream",
    "false greeting",
    "forged voucher",
    "forgotten payment asked for again",
    "forwarded and paid",
    "given back",
    "invoice forgotten",
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
    "payment asked for twice",
    "payment forgotten",
    "payment over two hubs",
    "redeemed too late, and refused",
    "LOCK_OVER",
    "reservation that tops up",
    "restored backup noticed",
    "restored backup noticed by virtual channels",
    "restored backup seen in the log",
    "secret learned",
    "secret learned from the log",
    "secret shown",
    "secret shown late in the log",
    "settled by a liar",
    "settled in between",
    "set of a liar refused",
    "set redeemed by a liar",
    "set that was given up claimed all the same",
    "settled with locks in flight",
    "up-front fee taken",
    "virtual channel claimed in the log",
    "virtual channel closed",
    "virtual channel forgotten",
    "virtual channel opened",
    "virtual channel open up to the payee",
    "virtual channel over by time",
    "virtual channel over on the side that pays",
    "virtual channel over two hubs",
    "virtual channel passed on",
    "virtual channel refused",
    "virtual channel that never opened",
    "virtual payment",
    "virtual payment acknowledged",
    "virtual payment lost",
    "voucher by hand",
    "withdrawal with a permit",
];

/// Lives them. `progress` is told of each that is over, and of what broke in it.
pub fn run(options: &Options, mut progress: impl FnMut(u64, &[String])) -> Report {
    let template = Template::new(options.channels);
    let mut report = Report::new(options);
    for seed in (options.seed..).take(usize::try_from(options.schedules).unwrap_or(usize::MAX)) {
        let found = live(seed, options, &template);
        progress(seed, &found.violations);
        report.add(seed, options.crash, found);
    }
    report.finish()
}

/// Lives each life once more for every entry of its hub's journal and of one user's: with a crash that loses the entry, and with one
/// between the entry and what follows it.
pub fn run_every_point(options: &Options, mut progress: impl FnMut(u64, &[String])) -> Report {
    let template = Template::new(options.channels);
    let mut report = Report::new(options);
    for seed in (options.seed..).take(usize::try_from(options.schedules).unwrap_or(usize::MAX)) {
        let sound = live(seed, options, &template);
        let user = 2 + (seed as usize) % (template.journals.len() - 2);
        let mut crashes = Vec::new();
        for party in [0, user].into_iter().filter(|_| sound.violations.is_empty()) {
            let entries = sound.entries[party].saturating_sub(template.journals[party].len());
            crashes.extend((1..=entries).flat_map(|entry| [false, true].map(|kept| Crash { party, entry, kept })));
        }
        progress(seed, &sound.violations);
        report.add(seed, None, sound);
        for crash in crashes {
            let found = live(seed, &Options { crash: Some(crash), ..options.clone() }, &template);
            progress(seed, &found.violations);
            report.points += 1;
            report.add(seed, Some(crash), found);
        }
    }
    report.finish()
}

fn live(seed: u64, options: &Options, template: &Template) -> Found {
    let found = catch_unwind(AssertUnwindSafe(|| Life::new(seed, options, template).live()));
    let panicked = |panic: Box<dyn std::any::Any + Send>| {
        let entries = template.journals.iter().map(Vec::len).collect();
        Found { marks: Marks::new(), violations: vec![said(&*panic)], entries }
    };
    found.unwrap_or_else(panicked)
}

impl Report {
    fn new(options: &Options) -> Report {
        Report {
            seed: options.seed,
            schedules: options.schedules,
            points: 0,
            channels: options.channels,
            steps: options.steps,
            marks: BTreeMap::new(),
            never: Vec::new(),
            broken: Vec::new(),
            wall_seconds: None,
        }
    }

    fn add(&mut self, seed: u64, crash: Option<Crash>, found: Found) {
        for (mark, count) in found.marks {
            match self.marks.get_mut(mark) {
                Some(all) => *all += count,
                None => drop(self.marks.insert(mark.to_owned(), count)),
            }
        }
        if !found.violations.is_empty() {
            let crash = crash.map(|c| format!("party {}, entry {}, kept: {}", c.party, c.entry, c.kept));
            self.broken.push(Broken { seed, crash, violations: found.violations });
        }
    }

    fn finish(mut self) -> Report {
        let never = SOMETIMES.iter().filter(|mark| !self.marks.contains_key(**mark));
        self.never = never.map(|mark| (*mark).to_owned()).collect();
        self
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
        let last = self.seed.saturating_add(self.schedules.max(1) - 1);
        write!(f, "{} lives of a hub with {} channels, seeds {} to {last}", self.schedules, self.channels, self.seed)?;
        if self.points > 0 {
            write!(f, "; {} more with a crash at each entry of a journal", self.points)?;
        }
        match self.wall_seconds {
            Some(wall) => writeln!(f, ": {wall:.1} s, {:.0} a second", (self.schedules + self.points) as f64 / wall)?,
            None => writeln!(f)?,
        }
        let marks: Vec<String> = self.marks.iter().map(|(mark, count)| format!("{count} {mark}")).collect();
        writeln!(f, "happened: {}", marks.join(", "))?;
        writeln!(f, "never: {}", if self.never.is_empty() { "none".into() } else { self.never.join(", ") })?;
        if self.broken.is_empty() {
            return write!(f, "violations: none");
        }
        write!(f, "violations in {} lives:", self.broken.len())?;
        let mut said = None;
        for one in &self.broken {
            let crash = one.crash.as_ref().map_or(String::new(), |crash| format!(", crash of {crash}"));
            one.violations.iter().try_for_each(|what| write!(f, "\n  seed {}{crash}: {what}", one.seed))?;
            let again =
                format!("--seed {} --schedules 1 --channels {} --steps {}", one.seed, self.channels, self.steps);
            let again = if one.crash.is_some() { format!("{again} --every-point") } else { again };
            if said.as_ref() != Some(&again) {
                write!(f, "\n  again: florin sim hubs {again}")?;
                said = Some(again);
            }
        }
        Ok(())
    }
}
