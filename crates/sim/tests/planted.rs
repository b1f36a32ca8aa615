//! Bugs planted in the core, each a line: the checkers find every one of them within [`SEEDS_MAX`] seeds, and nothing where it is
//! not planted.
//!
//! A run of the tests looks at some of them. `FLORIN_PLANTED_TURN` says at which (any number); without it, today does. All:
//! `cargo test --release -p florin-sim --features planted --test planted -- --ignored --nocapture`.

use std::collections::BTreeSet;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use florin_core::planted::{self, Bug};
use florin_sim::checkers::Rule;
use florin_sim::saved::{kind, run_caught};
use florin_sim::{Options, Part, Report};

/// Seeds within which a bug is found.
const SEEDS_MAX: u64 = 1_000;
/// In so many turns all have had theirs.
const TURNS: usize = 15;

/// Where to look for a bug.
#[derive(Clone, Copy)]
enum Among {
    /// Payments, and networks of PBTX.
    Orders,
    /// The same, and operations of the log.
    Log,
    /// The same, and accounts that are locked and recovered, for longer.
    Recoveries,
    /// E-cash.
    Notes,
    /// Channels.
    Channels,
    /// Senders who sign roots of batches together.
    Roots,
}

impl Among {
    fn options(self, seed: u64) -> Options {
        use Part::{Calls, Cash, Channels, Pbtx, Recoveries, Roots};
        let (seconds, off): (u64, &[Part]) = match self {
            Among::Orders => (5, &[Calls, Cash, Channels, Recoveries, Roots]),
            Among::Log => (6, &[Cash, Channels, Recoveries, Roots]),
            Among::Recoveries => (8, &[Cash, Channels, Pbtx, Roots]),
            Among::Notes => (6, &[Calls, Channels, Pbtx, Recoveries, Roots]),
            Among::Channels => (8, &[Calls, Cash, Pbtx, Recoveries, Roots]),
            Among::Roots => (6, &[Calls, Cash, Channels, Pbtx, Recoveries]),
        };
        // Two seeds of three have notes, one of four has no channels, and one of seven has senders who sign roots.
        let seed = match self {
            Among::Notes => seed + (seed - 1) / 2,
            Among::Roots => 7 * seed - 2,
            _ => seed,
        };
        Options { seconds, off: off.iter().copied().collect(), ..Options::new(seed) }
    }
}

/// Where a bug is looked for, and the kinds of violations of which one has to be found.
fn trial(bug: Bug) -> (Among, &'static [&'static str]) {
    use Among::*;
    match bug {
        Bug::QuorumTwoF => (Orders, &["FalseBelief", "SettledAlike"]),
        Bug::CertifiedByFew | Bug::SignerTwice | Bug::VotesUnverified => (Orders, &["Audit", "SettledAlike"]),
        Bug::RootUnchecked => (Orders, &["Audit", "SettledAlike"]),
        Bug::EpochUnchecked => (Orders, &["Impossible"]),
        Bug::OneTag | Bug::EvidenceMixesPromises => (Orders, &["FalseEvidence"]),
        Bug::SignsBoth | Bug::PrevHashUnchecked | Bug::RekeyIgnored => (Orders, &["FalsePromise"]),
        Bug::OldKeyKept => (Orders, &["FalsePromise", "Unfinished"]),
        Bug::ForgetsSuccessors => (Orders, &["PromiseForgotten"]),
        Bug::PendingUnreserved | Bug::BalanceOffByOne => (Orders, &["NegativeBalance"]),
        Bug::WeightOffByOne | Bug::CosignorsUnsigned | Bug::FrozenActs | Bug::PrechecksSkipped => {
            (Orders, &["Registry"])
        }
        Bug::SettlesUnchained => (Recoveries, &["PromiseForgotten", "SettledAlike", "Unfinished"]),
        Bug::CreditUnposted => (Orders, &["Panic"]),
        Bug::ReversalCredits => (Recoveries, &["Panic", "SumZero"]),
        Bug::DeliveredTwice => (Log, &["Stream", "SumZero", "Unfinished"]),
        Bug::DeliverySkipped | Bug::OutboxEmptied => (Log, &["Registry", "Stream", "Unfinished"]),
        Bug::StreamedTwice | Bug::StreamedEarly => (Orders, &["Stream"]),
        Bug::TimeByMax => (Log, &["Audit", "LogTime"]),
        Bug::TimeGoesBack => (Log, &["LogTime"]),
        Bug::SessionSignerTwice => (Log, &["LogFork"]),
        Bug::ItemUnproved => (Log, &["Audit", "LogOutcome"]),
        Bug::CallTwice | Bug::ClaimsLate | Bug::RefundsEarly => (Log, &["LogOutcome"]),
        Bug::ContractTwice | Bug::PreimageUnchecked => (Log, &["LogOutcome"]),
        Bug::RefundMissing => (Log, &["LogMoney"]),
        Bug::DepositTwice => (Log, &["Audit", "LogMoney", "LogOutcome"]),
        Bug::RedeemTwice => (Log, &["Audit", "LogOutcome"]),
        Bug::GenerationIgnored => (Orders, &["Registry"]),
        Bug::FewReports | Bug::NoWait => (Recoveries, &["Recovery"]),
        Bug::FreezeIgnored => (Recoveries, &["FinalVoided"]),
        Bug::NoteUnmarked | Bug::NoteLockIgnored => (Notes, &["Notes"]),
        Bug::BearerUnbalanced | Bug::NonceTwice | Bug::OwnerUnchecked => (Notes, &["FalsePromise"]),
        Bug::NoteUnverified | Bug::ReturnedEarly => (Notes, &["FalsePromise"]),
        Bug::SharesUnsettled => (Notes, &["Impossible", "NotDurable"]),
        Bug::BadShareTaken => (Notes, &["FalseBelief", "Unfinished"]),
        Bug::DelayIgnored | Bug::DelayByOneClock | Bug::LaneTwice | Bug::MergedLaneKept => (Channels, &["Channels"]),
        Bug::OldVoucher | Bug::VoucherUnverified | Bug::PermitTwice => (Channels, &["LogOutcome"]),
        Bug::PossessionUnchecked | Bug::OrdersUnsorted => (Roots, &["FalsePromise"]),
        Bug::FinalByFew => (Orders, &["FalseBelief"]),
    }
}

fn run_with(bug: Option<Bug>, options: &Options) -> Report {
    planted::set(bug);
    let report = run_caught(options, Rule::ALL);
    planted::set(None);
    report
}

/// A row of the table: what has found the bug, after how many seeds and seconds; or what is wrong with that.
fn find(bug: Bug) -> Result<String, String> {
    let (among, rules) = trial(bug);
    let start = Instant::now();
    let met = (1..=SEEDS_MAX).find_map(|seed| {
        let options = among.options(seed);
        let report = run_with(Some(bug), &options);
        Some((seed, options, report.violations.first()?.clone()))
    });
    let seconds = start.elapsed().as_secs_f64();
    let Some((seeds, options, violation)) = met else {
        return Err(format!("{bug:?}: {SEEDS_MAX} seeds have not found it"));
    };
    let found = kind(&violation);
    if !rules.contains(&found) {
        return Err(format!("{bug:?}: expected one of {rules:?}, found {violation}"));
    }
    let sound = run_with(None, &options);
    if !sound.violations.is_empty() {
        return Err(format!("{bug:?}: without it: {sound}"));
    }
    Ok(format!("| `{bug:?}` | {found} | {seeds} | {seconds:.1} |"))
}

fn find_all(bugs: impl Iterator<Item = Bug>) {
    // Invariants that stop an authority are of those that find bugs; their backtraces are of no interest.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    println!("| bug | found by | seeds | s |\n|---|---|---|---|");
    for bug in bugs {
        match find(bug) {
            Ok(row) => println!("{row}"),
            Err(what) => {
                println!("{what}");
                missed.push(what);
            }
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn those_whose_turn_it_is_are_found() {
    let today = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
    let turn = std::env::var("FLORIN_PLANTED_TURN").map(|turn| turn.parse().expect("FLORIN_PLANTED_TURN is a number"));
    let turn: u64 = turn.unwrap_or_else(|_| today());
    println!("turn {turn}");
    find_all(Bug::ALL.iter().copied().skip((turn % TURNS as u64) as usize).step_by(TURNS));
}

#[test]
#[ignore = "takes minutes"]
fn all_are_found() {
    find_all(Bug::ALL.iter().copied());
}

#[test]
fn there_are_enough_of_them_and_of_all_kinds() {
    assert!(Bug::ALL.len() >= 25);
    let kinds: BTreeSet<&str> = Bug::ALL.iter().flat_map(|bug| trial(*bug).1).copied().collect();
    let rules: BTreeSet<String> = Rule::ALL.iter().map(|rule| format!("{rule:?}")).collect();
    let unknown: Vec<&&str> = kinds.iter().filter(|kind| **kind != "Panic" && !rules.contains(**kind)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are no rules");
    assert!(kinds.len() > 15, "{kinds:?}");
}
