//! Lives of hubs, and checks that notice a broken shell.

use florin_sim::hubs::{Options, Report, Shell, run, run_every_point};

fn lives(options: &Options) -> Report {
    run(options, |_, _| {})
}

#[test]
fn a_hub_and_whoever_keeps_the_rules_lose_nothing() {
    let report = lives(&Options::new(1_001, 100));
    assert!(report.broken.is_empty(), "{report}");
    for mark in [
        "forwarded and paid",
        "payment over two hubs",
        "cancelled by the payee",
        "own lock expired",
        "secret learned from the log",
        "settled with locks in flight",
        "crash between a group and what follows it",
        "old backup restored",
        "cancelled lock redeemed all the same",
        "payment forgotten",
        "payment asked for twice",
        "collected channel forgotten",
        "virtual channel over two hubs",
        "virtual channel closed",
        "virtual channel claimed in the log",
        "virtual channel over by time",
        "virtual payment acknowledged",
        "set redeemed by a liar",
    ] {
        assert!(report.marks.contains_key(mark), "no life has seen: {mark}: {report}");
    }
}

/// Each broke a promise once: of the simulator, who let a diligent party leave an order lying for hours; and of the hub, whose
/// greeting for a connection that was gone went over the next one.
#[test]
fn seeds_that_found_something_are_sound() {
    for seed in [2_009_061, 6_013_312] {
        let report = lives(&Options::new(seed, 1));
        assert!(report.broken.is_empty(), "{report}");
    }
}

/// A hub with `FLORIN_HUB_CHANNELS` channels; which lives `FLORIN_HUB_SEED` and `FLORIN_HUB_COUNT` say, and whether with a crash at each
/// entry of a journal, `FLORIN_HUB_POINTS=1`.
#[test]
#[ignore = "long: run it in release"]
fn many_lives_break_nothing_and_reach_everything() {
    let number = |name: &str, usual| std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(usual);
    let options = Options::new(number("FLORIN_HUB_SEED", 1), number("FLORIN_HUB_COUNT", 3_000));
    let options = Options { channels: number("FLORIN_HUB_CHANNELS", 20) as usize, ..options };
    let points = number("FLORIN_HUB_POINTS", 0) > 0;
    let report = if points { run_every_point(&options, |_, _| {}) } else { lives(&options) };
    eprintln!("{report}");
    assert!(report.broken.is_empty() && (points || report.never.is_empty()));
}

#[test]
fn a_seed_decides_a_life() {
    let options = Options { channels: 8, steps: 120, ..Options::new(7, 3) };
    let first = lives(&options);
    assert_eq!(first, lives(&options));
    assert_ne!(first.marks, lives(&Options { seed: 8, ..options }).marks);
}

#[test]
fn a_crash_at_any_entry_of_a_journal_loses_nothing() {
    let options = Options { channels: 6, steps: 60, ..Options::new(3, 3) };
    let report = run_every_point(&options, |_, _| {});
    assert!(report.broken.is_empty(), "{report}");
    assert!(report.points > 50, "{report}");
    // Each of them but those after which nothing was to come.
    assert!(report.marks["crash at a chosen entry"] > report.points / 2, "{report}");
}

/// Some life breaks a rule, and says so in these words.
fn caught(shell: Shell, schedules: u64, words: &str) {
    caught_with(20, shell, schedules, words);
}

fn caught_with(channels: usize, shell: Shell, schedules: u64, words: &str) {
    let mut said = Vec::new();
    for seed in 1..=schedules {
        let report = lives(&Options { shell, channels, ..Options::new(seed, 1) });
        said.extend(report.broken.into_iter().flat_map(|one| one.violations));
        if said.iter().any(|what| what.contains(words)) {
            return;
        }
    }
    panic!("{shell:?} is not caught in {schedules} lives: no violation says {words:?}: {said:?}");
}

#[test]
fn what_is_sent_before_it_is_durable_is_caught() {
    caught(Shell::SendsBeforeDurable, 10, "before it is durable");
}

#[test]
fn a_lost_group_is_caught() {
    caught(Shell::LosesGroups, 30, "said and forgotten");
}

#[test]
fn too_small_a_margin_is_caught() {
    caught(Shell::SmallMargin, 10, "passes on a lock with");
}

#[test]
fn who_does_not_listen_to_greetings_signs_twice_and_is_caught() {
    caught_with(8, Shell::BlindToHello, 30, "the other side holds another voucher");
}

#[test]
fn a_dropped_secret_is_caught() {
    caught(Shell::DropsSecrets, 30, "and not");
}

#[test]
fn too_long_a_sleep_is_caught() {
    caught(Shell::SleepsTooLong, 100, "and not");
}

#[test]
fn an_order_that_is_signed_twice_is_caught() {
    caught(Shell::SignsOrdersAnew, 100, "was put in");
}

#[test]
fn a_clock_that_is_taken_for_log_time_is_caught() {
    caught(Shell::ClockAhead, 20, "is owed");
}

#[test]
fn too_small_a_margin_of_a_virtual_channel_is_caught() {
    caught(Shell::SmallMargin, 40, "passes on a virtual channel with");
}

#[test]
fn virtual_channels_that_hear_nothing_of_the_log_are_caught() {
    caught(Shell::NeverLooks, 60, "virtual channels are not over in the end");
    caught(Shell::NeverLooks, 200, "and not");
}
