//! Makes a run with a violation smaller: fewer faults, attackers and clients, less time, and an end at the event.

use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error, StrDeserializer};

use crate::checkers::Rule;
use crate::profile::{Part, Profile};
use crate::saved::{PANIC, run_caught};
use crate::{Options, Report};

/// Seeds that are tried with smaller options: what is left out changes all that chance does after it.
const SEEDS: u64 = 3;
/// From one to the next: those that are so far apart have cash and channels alike.
const STEP: u64 = 12;

/// A smaller run with the same kind of violation.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What to run.
    pub options: Options,
    /// What it came to.
    pub report: Report,
    /// Runs that it took to find out.
    pub runs: u64,
}

/// Shrinks a run that has a violation of this kind ([`crate::saved::kind`]), with about so many runs at most.
/// `progress` hears of every step. `None` if the run does not have it, or nobody knows that kind.
pub fn shrink(
    options: &Options,
    kind: &str,
    runs_max: u64,
    progress: impl FnMut(u64, &Options, &Report),
) -> Option<Shrunk> {
    let rule = match kind {
        PANIC => None,
        name => {
            let name: StrDeserializer<'_, Error> = name.into_deserializer();
            Some(Rule::deserialize(name).ok()?)
        }
    };
    let mut search = Search { kind, rule, runs: 0, runs_max, progress };
    let report = search.run(options)?;
    let mut best = (options.clone(), report);
    loop {
        let before = best.0.clone();
        for cut in CUTS.iter().copied().chain(Part::ALL.into_iter().map(Cut::Without)) {
            while search.runs < search.runs_max && search.try_cut(&mut best, cut) && cut.again() {}
        }
        if best.0 == before || search.runs >= search.runs_max {
            break;
        }
    }
    // Nothing after the event counts; unless the rule is about the end.
    let at = best.1.broken.get(kind).copied().filter(|at| *at > 0);
    let ended = Options { events_max: at, ..best.0.clone() };
    if at.is_some() && search.run(&ended).is_some() {
        best.0 = ended;
    }
    let report = run_caught(&best.0, None);
    Some(Shrunk { options: best.0, report, runs: search.runs + 1 })
}

/// A way to make it smaller.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    Faultless,
    UsualFaults,
    Honest,
    AsLong,
    HalfAsLong,
    FourAuthorities,
    OneShard,
    HalfTheWallets,
    FewerLiars,
    Without(Part),
}

const CUTS: [Cut; 9] = [
    Cut::Faultless,
    Cut::UsualFaults,
    Cut::Honest,
    Cut::AsLong,
    Cut::HalfAsLong,
    Cut::FourAuthorities,
    Cut::OneShard,
    Cut::HalfTheWallets,
    Cut::FewerLiars,
];

impl Cut {
    /// Whether it may be done more than once in a row.
    fn again(self) -> bool {
        matches!(self, Cut::HalfAsLong | Cut::HalfTheWallets | Cut::FewerLiars)
    }

    /// The smaller options, if they are.
    fn of(self, options: &Options, report: &Report) -> Option<Options> {
        use Part::*;
        let mut small = options.clone();
        match self {
            Cut::Faultless => small.profile = Profile::Calm,
            Cut::UsualFaults if options.profile != Profile::Calm => small.profile = Profile::Mixed,
            Cut::UsualFaults => {}
            Cut::Honest => small.attackers = false,
            Cut::AsLong => small.seconds = small.seconds.min(report.simulated_seconds.ceil() as u64),
            Cut::HalfAsLong => small.seconds = small.seconds.div_ceil(2),
            Cut::FourAuthorities => small.authorities = 4,
            Cut::OneShard => small.shards = 1,
            Cut::HalfTheWallets => small.wallets = small.wallets.div_ceil(2),
            Cut::FewerLiars => small.liars_beyond = small.liars_beyond.saturating_sub(1),
            Cut::Without(Liars | DoubleSigners | Replays | OldChains | NoteThieves | NoteForgers)
                if !options.attackers => {}
            Cut::Without(part) if options.has(part) => drop(small.off.insert(part)),
            Cut::Without(_) => {}
        }
        (small != *options).then_some(small)
    }
}

struct Search<'a, P> {
    kind: &'a str,
    rule: Option<Rule>,
    runs: u64,
    runs_max: u64,
    progress: P,
}

impl<P: FnMut(u64, &Options, &Report)> Search<'_, P> {
    fn run(&mut self, options: &Options) -> Option<Report> {
        self.runs += 1;
        Some(run_caught(options, self.rule)).filter(|report| report.broken.contains_key(self.kind))
    }

    fn try_cut(&mut self, best: &mut (Options, Report), cut: Cut) -> bool {
        let Some(small) = cut.of(&best.0, &best.1) else { return false };
        for turn in 0..SEEDS {
            let options = Options { seed: small.seed.wrapping_add(turn * STEP), ..small.clone() };
            if let Some(report) = self.run(&options) {
                (self.progress)(self.runs, &options, &report);
                *best = (options, report);
                return true;
            }
        }
        false
    }
}
