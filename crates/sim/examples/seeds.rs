//! Many seeds, one after another, with what went wrong and how fast they ran.

use std::time::Instant;

use florin_sim::{Options, run};

fn main() {
    let number = |at: usize, default: u64| std::env::args().nth(at).map_or(default, |a| a.parse().expect("a number"));
    let (from, count) = (number(1, 1), number(2, 10));
    let authorities = number(3, 4) as u32;
    let seconds = number(4, 10);
    let shards = number(5, 2) as u32;
    let mut marks = std::collections::BTreeMap::<String, u64>::new();
    let (mut simulated, mut wall, mut bad, mut events) = (0.0, 0.0, 0, 0);
    for seed in from..from + count {
        let begin = Instant::now();
        let mut report = run(Options { authorities, shards, seconds, ..Options::new(seed) });
        let took = begin.elapsed().as_secs_f64();
        simulated += report.simulated_seconds;
        wall += took;
        events += report.events;
        report.wall_seconds = Some(took);
        if count == 1 || !report.violations.is_empty() {
            println!("{report}");
        }
        let of_modules = ["NOTE", "note", "cash", "channel", "voucher", "withdrawal"];
        let rare = |kind: &String| of_modules.iter().any(|word| kind.contains(word));
        let seen = report.faults.iter().chain(&report.replies).filter(|(kind, _)| rare(kind));
        report.marks.iter().chain(seen).for_each(|(mark, n)| *marks.entry(mark.clone()).or_default() += n);
        bad += u64::from(!report.violations.is_empty());
    }
    println!(
        "{count} seeds, {bad} with violations; {simulated:.0} simulated seconds in {wall:.1} s: {:.1} times real time, {:.0} events/s",
        simulated / wall,
        events as f64 / wall
    );
    println!("marks: {marks:?}");
}
