//! Deterministic simulation of whole committees: the real core and quorum driver, one thread, virtual time.
//!
//! A run is decided by its [`Options`]: the same ones give the same events, and the same hash of them.
//! Faults and attackers break what they may (`world`, `disk`, `attackers`); checkers derive after every step
//! what has to hold (`checkers`). Recovery stays possible: at most f authorities lie, and a disk keeps what it
//! has synced.

pub mod attackers;
mod calls;
pub mod cash;
pub mod channels;
pub mod checkers;
pub mod client;
pub mod disk;
pub mod disturb;
mod driver;
mod frames;
pub mod hubs;
pub mod log;
pub mod marks;
pub mod message;
pub mod node;
pub mod pbtx;
pub mod profile;
pub mod recoverer;
pub mod rng;
pub mod roots;
mod run;
pub mod saved;
pub mod sequencer;
pub mod shrink;
pub mod survey;
pub mod wallet;
pub mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

pub use profile::{Part, Profile};
pub use run::{run, run_until, run_without_memory};

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where all chance comes from.
    pub seed: u64,
    /// Authorities, 4 to 128; usually 4, 7 or 10.
    pub authorities: u32,
    /// Shards of each, 1 to 1,024; usually 1 to 4.
    pub shards: u32,
    /// Seconds of virtual time with payments and faults. Up to 30 more follow without.
    pub seconds: u64,
    /// Honest wallets, at least 1.
    pub wallets: u32,
    /// How many times slower than usual clients and liars come up with something to do, 1 or more. Faults come as ever.
    pub pace: u64,
    /// Whether f authorities lie and some clients cheat.
    pub attackers: bool,
    /// Liars beyond f, for tests: then nothing is safe, and the checkers have to say so.
    #[serde(default)]
    pub liars_beyond: u32,
    /// How the authorities' shells work.
    #[serde(default)]
    pub shell: Shell,
    /// Which faults there are.
    #[serde(default)]
    pub profile: Profile,
    /// What it is without.
    #[serde(default)]
    pub off: BTreeSet<Part>,
    /// The run ends after so many events, whatever is open then.
    #[serde(default)]
    pub events_max: Option<u64>,
}

impl Options {
    /// The usual run of a seed: 4 authorities of 2 shards, 10 seconds, 9 wallets, attackers.
    pub fn new(seed: u64) -> Self {
        Options {
            seed,
            authorities: 4,
            shards: 2,
            seconds: 10,
            wallets: 9,
            pace: 1,
            attackers: true,
            liars_beyond: 0,
            shell: Shell::Sound,
            profile: Profile::Mixed,
            off: BTreeSet::new(),
            events_max: None,
        }
    }
}

/// How the shell around the core works; all but the first are wrong, each in one way, for tests of the checkers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shell {
    /// As it has to be.
    #[default]
    Sound,
    /// Replies leave before what they promise is durable.
    RepliesBeforeSync,
    /// Credits go to other shards before their debit is durable.
    DeliversBeforeSync,
    /// Peers see settled orders that are not durable.
    ShowsUnsyncedStream,
    /// A vote does not see the steps before it that are not synced.
    ReadsMissUnsynced,
    /// The log tells its shards what it has taken before that is durable.
    LogRepliesBeforeSync,
    /// The log delivers before what it delivers is durable.
    LogDeliversBeforeSync,
    /// One log gets its units in another order.
    ForkedOrder,
    /// One log pays each refund twice.
    RefundsTwice,
    /// Reports of a frozen account count that no honest authority has made, and nobody shows what it holds.
    ForgedReports,
    /// 2f + 1 clocks are a day off.
    ClocksBeyond,
    /// Locks of notes are not written.
    ForgetsNotes,
    /// Sides of channels let each other take out more than is left for them.
    CarelessSides,
    /// One log forgets how far the lanes of channels were redeemed.
    ForgetsLanes,
    /// Shards never fetch the batches that the log has ordered, nor follow their peers.
    NeverFetches,
}

/// What became of payments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Operations {
    /// Orders signed by honest wallets.
    pub signed: u64,
    /// Of them, with a certificate.
    pub certified: u64,
    /// Of them, acknowledged by a quorum.
    pub finals: u64,
    /// Times that the driver reported an order of theirs refused (they try again).
    pub refused: u64,
    /// Orders that honest authorities settled, those of attackers included.
    pub settled: u64,
    /// Operations on shared objects that the log has decided.
    pub ordered: u64,
    /// Of them, failed and refunded.
    pub failed: u64,
    /// Contracts claimed.
    pub claimed: u64,
    /// Contracts refunded.
    pub refunded: u64,
    /// Sessions of the log.
    pub sessions: u64,
    /// Recoveries that voided a seqnum.
    pub voided: u64,
    /// Recoveries after which a certified order settled.
    pub kept: u64,
    /// Transactions of honest actors in PBTX networks.
    pub transactions: u64,
    /// Of them, acknowledged by a quorum.
    pub transacted: u64,
    /// Orders with notes that honest wallets have signed.
    pub cash_orders: u64,
    /// Of them, ended with their notes in hand.
    pub cash_finals: u64,
    /// Channels opened.
    pub channels: u64,
    /// Of them, collected.
    pub collected: u64,
    /// Orders of their parties.
    pub channel_orders: u64,
    /// Of them, decided by the log.
    pub channel_finals: u64,
    /// Vouchers signed.
    pub vouchers: u64,
    /// Redeemed.
    pub redeemed: u64,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Of the options.
    pub seed: u64,
    /// Of the options.
    pub authorities: u32,
    /// Of the options.
    pub shards: u32,
    /// Of the options.
    pub profile: Profile,
    /// Virtual seconds, until everything was finished.
    pub simulated_seconds: f64,
    /// Of them, with payments and faults.
    pub load_seconds: u64,
    /// Events processed.
    pub events: u64,
    /// Payments.
    pub operations: Operations,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// What honest authorities answered besides "done", by kind or error code: what the run has reached.
    pub replies: BTreeMap<String, u64>,
    /// Rare things that happened, by kind.
    pub marks: BTreeMap<String, u64>,
    /// Rules broken; empty is good.
    pub violations: Vec<String>,
    /// By broken rule: number of the event at which it was first.
    pub broken: BTreeMap<String, u64>,
    /// sha256 over all events, hex.
    pub trace: String,
    /// Real seconds that it took, if the caller measured them.
    pub wall_seconds: Option<f64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let o = &self.operations;
        let profile = self.profile.name();
        writeln!(f, "seed {}: {} authorities, {} shards, {profile}", self.seed, self.authorities, self.shards)?;
        write!(f, "time: {:.1} simulated seconds, {} events", self.simulated_seconds, self.events)?;
        match self.wall_seconds {
            Some(wall) => writeln!(
                f,
                ", {wall:.2} s ({:.0} times real time, {:.0} times of the {} s with load; {:.0} events/s)",
                self.simulated_seconds / wall,
                self.load_seconds as f64 / wall,
                self.load_seconds,
                self.events as f64 / wall
            )?,
            None => writeln!(f)?,
        }
        writeln!(
            f,
            "orders: {} signed, {} certified, {} final, {} refusals, {} settled in all",
            o.signed, o.certified, o.finals, o.refused, o.settled
        )?;
        writeln!(
            f,
            "log: {} sessions, {} operations, {} of them refunded; contracts: {} claimed, {} refunded; recoveries: {} void, {} kept",
            o.sessions, o.ordered, o.failed, o.claimed, o.refunded, o.voided, o.kept
        )?;
        writeln!(f, "pbtx: {} transactions of honest actors, {} final", o.transactions, o.transacted)?;
        writeln!(f, "cash: {} orders of honest wallets, {} ended", o.cash_orders, o.cash_finals)?;
        writeln!(
            f,
            "channels: {} opened, {} collected; {} orders of their parties, {} decided; {} vouchers, {} redeemed",
            o.channels, o.collected, o.channel_orders, o.channel_finals, o.vouchers, o.redeemed
        )?;
        for (what, counts) in [("faults", &self.faults), ("replies", &self.replies), ("marks", &self.marks)] {
            let all: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            writeln!(f, "{what}: {}", if all.is_empty() { "none".into() } else { all.join(", ") })?;
        }
        writeln!(f, "trace: {}", self.trace)?;
        if self.violations.is_empty() {
            return write!(f, "violations: none");
        }
        write!(f, "violations:")?;
        self.violations.iter().try_for_each(|v| write!(f, "\n  {v}"))
    }
}
