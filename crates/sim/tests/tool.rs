//! Profiles, parts that are left out, saved runs, and shrinking; shown on shells that are wrong on purpose.

use std::collections::BTreeSet;

use florin_sim::marks::{ATTACKERS, FAULTS, MARKS, count};
use florin_sim::saved::{Saved, kind, run_caught};
use florin_sim::shrink::shrink;
use florin_sim::survey::{Sparse, Survey};
use florin_sim::{Options, Part, Profile, Report, Shell, run};

fn clean(options: Options) -> Report {
    let report = run(options);
    assert!(report.violations.is_empty(), "{report}");
    assert!(report.operations.finals > 5 && report.operations.finals == report.operations.signed, "{report}");
    report
}

/// Some run of a broken shell that breaks a rule of this kind.
fn broken(shell: Shell, rule: &str) -> (Options, Report) {
    let runs = (1..=12).map(|seed| Options { shell, seconds: 4, ..Options::new(seed) });
    let found = runs.map(|o| (o.clone(), run_caught(&o, None))).find(|(_, report)| report.broken.contains_key(rule));
    found.expect("a seed that breaks the rule")
}

#[test]
fn a_file_is_replayed_to_the_same_violation() {
    let (options, report) = broken(Shell::RepliesBeforeSync, "NotDurable");
    let text = serde_json::to_string(&Saved::new(options, &report)).unwrap();
    let saved: Saved = serde_json::from_str(&text).unwrap();
    let again = run_caught(&saved.options, None);
    assert_eq!((&again.trace, &again.violations), (&saved.trace, &saved.violations));
    // The same file once the bug is fixed.
    let sound = run_caught(&Options { shell: Shell::Sound, ..saved.options.clone() }, None);
    assert!(sound.violations.is_empty() && sound.trace != saved.trace, "{sound}");
    // Options of another program are not guessed at.
    let odd = text.replacen("\"wallets\"", "\"wallet\"", 1);
    assert!(odd != text && serde_json::from_str::<Saved>(&odd).is_err());
}

#[test]
fn a_smaller_run_breaks_the_same_rule() {
    let (options, report) = broken(Shell::RepliesBeforeSync, "NotDurable");
    let small = shrink(&options, "NotDurable", 60, |_, _, _| {}).expect("it breaks the rule");
    let (o, events) = (&small.options, small.report.events);
    assert!(!o.attackers && o.wallets < options.wallets && o.profile == Profile::Calm, "{o:?}");
    assert!(events * 20 < report.events, "{events} of {}", report.events);
    let again = run(small.options.clone());
    assert!(again.violations.iter().any(|v| kind(v) == "NotDurable"), "{again}");
    assert_eq!((again.events, Some(again.events)), (events, o.events_max));
    // One event less and nothing is broken: it ends where it breaks.
    let before = run(Options { events_max: Some(events - 1), ..small.options });
    assert!(before.violations.is_empty(), "{before}");
}

#[test]
fn what_is_not_broken_is_not_shrunk() {
    let sound = Options { seconds: 2, ..Options::new(1) };
    assert!(shrink(&sound, "NotDurable", 10, |_, _, _| panic!("nothing is smaller")).is_none());
    assert!(shrink(&sound, "NoSuchRule", 10, |_, _, _| {}).is_none());
}

#[test]
fn every_profile_has_its_faults() {
    let own: [(Profile, &[&str]); 5] = [
        (Profile::Lossy, &["lost", "duplicated"]),
        (
            Profile::Partitions,
            &["authorities that do not hear", "authorities that are not heard", "pairs that can't talk"],
        ),
        (Profile::Disks, &["failed syncs", "full disks", "torn writes", "flipped bits"]),
        (Profile::Clocks, &["clocks that jump ahead", "clocks that jump back"]),
        (Profile::Crashes, &["crash after a write", "crash in a sync", "crash between a sync and its replies"]),
    ];
    let mixed = clean(Options { seconds: 4, ..Options::new(5) });
    for (profile, kinds) in own {
        let reports: Vec<Report> =
            (5..=7).map(|seed| clean(Options { profile, seconds: 4, ..Options::new(seed) })).collect();
        for kind in kinds {
            assert!(reports.iter().any(|r| count(r, kind) > 0), "{profile:?} without {kind}: {}", reports[0]);
            assert!(profile == Profile::Lossy || count(&mixed, kind) == 0, "mixed has {kind}: {mixed}");
        }
        if profile == Profile::Lossy {
            let share = |r: &Report| count(r, "lost") as f64 / r.events as f64;
            assert!(reports.iter().all(|r| share(r) > 2.0 * share(&mixed)), "{}", reports[0]);
        }
    }
}

#[test]
fn a_calm_run_has_no_faults_and_what_is_left_out_is_not_there() {
    let calm = clean(Options { profile: Profile::Calm, seconds: 3, ..Options::new(5) });
    // Sessions end without anybody's fault, and wallets with notes are killed by whoever tries them.
    let usual = ["sessions cut", "crashes of cash wallets"];
    for kind in FAULTS.iter().filter(|kind| !usual.contains(kind)) {
        assert_eq!(count(&calm, kind), 0, "{kind}: {calm}");
    }
    let off: BTreeSet<Part> = Part::ALL.into_iter().collect();
    let bare = clean(Options { profile: Profile::All, off, seconds: 3, ..Options::new(5) });
    for (who, kinds) in ATTACKERS {
        assert!(kinds.iter().all(|kind| count(&bare, kind) == 0), "{who}: {bare}");
    }
    let o = &bare.operations;
    assert_eq!((o.ordered, o.cash_orders, o.channels, o.transactions, o.voided + o.kept), (0, 0, 0, 0, 0), "{bare}");
}

#[test]
fn a_recovery_on_the_reports_of_a_quorum_is_right_also_where_all_clocks_are_good() {
    let voids =
        |seed| count(&clean(Options { profile: Profile::Calm, seconds: 4, ..Options::new(seed) }), "recovery voids");
    assert!((1..=40).any(|seed| voids(seed) > 0), "no recovery voids anything");
}

#[test]
fn what_runs_hit_is_in_the_lists() {
    let mut survey = Survey::default();
    for seed in [2, 9] {
        let options = Options { seconds: 4, ..Options::varied(seed) };
        let report = run(options.clone());
        // Codes of what channels refuse are counted, too; not each is a mark.
        let code = |name: &str| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        let known = |name: &str| MARKS.contains(&name) || code(name);
        let strange: Vec<&String> = report.marks.keys().filter(|name| !known(name)).collect();
        assert!(strange.is_empty(), "marks that are in no list: {strange:?}");
        survey.add(&report, 1.0);
        survey.again(&report, &run(options));
    }
    assert_eq!((survey.twice, &survey.unequal), (2, &Vec::new()), "a seed decides everything, in every profile");
    for mark in ["crash between write and sync", "certificate for a part of a batch", "PENDING_CONFLICT"] {
        assert!(survey.marks[mark] > 0 && !survey.never.contains(&mark), "{mark}: {survey}");
    }
    assert!(survey.violations.is_empty() && !survey.never.is_empty(), "{survey}");
    // Few payments and much time: the table names both, and whatever such a run breaks.
    let sparse = run(Options { seconds: 60, ..Sparse::options(1) });
    survey.add_sparse(&sparse, 0.5);
    let found = survey.sparse.as_ref().unwrap();
    assert!(found.settled_by_second > 0.0 && found.settled_by_second < 5.0, "{found:?}");
    assert!(survey.to_string().contains(&format!("{:.0} times real time with 4", found.speed_up)), "{survey}");
    assert!(survey.violations.is_empty(), "{survey}");
    survey.add_sparse(&florin_sim::Report { violations: vec!["a rule".into()], ..sparse }, 0.5);
    assert_eq!(survey.violations, ["sparse seed 1: a rule"]);
    // A run that comes to something else is noticed.
    let [one, other] = [1, 2].map(|seed| run(Options { seconds: 1, ..Options::new(seed) }));
    survey.again(&one, &other);
    assert_eq!(survey.unequal, [1]);
}
