use std::time::Instant;
use florin_core::planted::{self, Bug};
use florin_sim::checkers::Rule;
use florin_sim::saved::run_caught;
use florin_sim::Options;

#[test]
fn discover() {
    std::panic::set_hook(Box::new(|_| {}));
    let max: u64 = std::env::var("MAX").ok().and_then(|s| s.parse().ok()).unwrap_or(1000);
    let budget: f64 = std::env::var("BUDGET").ok().and_then(|s| s.parse().ok()).unwrap_or(20.0);
    let only = std::env::var("ONLY").unwrap_or_default();
    let secs: u64 = std::env::var("SECS").ok().and_then(|s| s.parse().ok()).unwrap_or(10);
    let varied = std::env::var("VARIED").is_ok();
    for bug in Bug::ALL {
        let name = format!("{bug:?}");
        if !only.is_empty() && !only.split(',').any(|o| o == name) {
            continue;
        }
        let start = Instant::now();
        let mut found = None;
        let mut seed = 0;
        while seed < max && start.elapsed().as_secs_f64() < budget {
            seed += 1;
            planted::set(if std::env::var("SOUND").is_ok() { None } else { Some(*bug) });
            let base = if varied { Options::varied(seed) } else { Options::new(seed) };
            let report = run_caught(&Options { seconds: secs, ..base }, Rule::ALL);
            planted::set(None);
            if let Some(v) = report.violations.first() {
                found = Some(v.clone());
                break;
            }
        }
        let s = start.elapsed().as_secs_f64();
        println!("{name:24} seeds {seed:4} {s:6.1} s  {}", found.unwrap_or("-- not found".into()).chars().take(230).collect::<String>());
    }
}
