//! Every state of the model is looked at. The larger committee has its own command, as it takes minutes:
//! `cargo test --release -p florin-model -- --ignored --nocapture`.

use std::collections::BTreeSet;

use florin_model::{Broadcast, Fault};
use stateright::{Checker as _, Expectation, Model as _};

/// Conflicts and chains without the log; a recovery of the first seqnum; one of the second. What rare things happen.
const WINDOW: (&[&str], Option<u8>) = (&["A", "B", "A1", "A2", "B1", "A11"], None);
const FIRST: (&[&str], Option<u8>) = (&["A", "B", "C", "A1", "A2", "B1", "V1", "V2"], Some(1));
const SECOND: (&[&str], Option<u8>) = (&["A", "A1", "A2", "A11", "W1"], Some(2));

const RECOVERS: [&str; 3] =
    ["a shown certificate settles", "it goes on after a void", "one takes back what it alone had settled"];

/// Names of the properties that are broken, and of the rare things that happen.
fn look((orders, recovers): (&[&str], Option<u8>), faults: usize, fault: Fault) -> [BTreeSet<&'static str>; 2] {
    let model = Broadcast { fault, ..Broadcast::new(faults, orders, recovers) };
    let checker = model.checker().threads(2).spawn_bfs().join();
    let (mut broken, mut met) = (BTreeSet::new(), BTreeSet::new());
    let found = checker.discoveries();
    for property in model.properties() {
        if let Some(path) = found.get(property.name) {
            match property.expectation {
                Expectation::Sometimes => met.insert(property.name),
                _ => broken.insert(property.name),
            };
            if property.expectation != Expectation::Sometimes && fault == Fault::None {
                let steps: Vec<String> = path.clone().into_actions().iter().map(ToString::to_string).collect();
                eprintln!("{}: {}", property.name, steps.join(", "));
            }
        }
    }
    println!("f = {faults}, {orders:?}, {fault:?}: {} states; broken: {broken:?}", checker.unique_state_count());
    [broken, met]
}

fn holds(scene: (&[&str], Option<u8>), faults: usize, rare: &[&str]) {
    let [broken, met] = look(scene, faults, Fault::None);
    assert_eq!(broken, BTreeSet::new());
    assert!(rare.iter().all(|name| met.contains(name)), "only {met:?}");
}

#[test]
fn four_authorities_of_whom_one_lies_keep_every_promise() {
    holds(WINDOW, 1, &["a chain of three is final"]);
    holds(FIRST, 1, &[&RECOVERS[..], &["no certificate can be made"]].concat());
    holds(SECOND, 1, &[&RECOVERS[..], &["a chain of three is final"]].concat());
}

#[test]
fn without_recovery_split_votes_hold_an_account_for_ever() {
    let [broken, _] = look((&["A", "B", "C"], None), 1, Fault::None);
    assert_eq!(broken, BTreeSet::from(["nothing is stuck in the end"]));
}

/// Each is found, by the promise that it breaks.
#[test]
fn what_is_wrong_is_found() {
    const CONFLICT: (&[&str], Option<u8>) = (&["A", "B"], None);
    const RECOVERY: (&[&str], Option<u8>) = (&["A", "B", "C", "V1"], Some(1));
    for (scene, fault, breaks) in [
        (CONFLICT, Fault::SmallQuorum, "one certificate"),
        (CONFLICT, Fault::ForgottenVotes, "one certificate"),
        (RECOVERY, Fault::BlindReports, "what is final stays"),
        (RECOVERY, Fault::FewReports, "what is final stays"),
        (RECOVERY, Fault::NoFreeze, "what is final stays"),
        (RECOVERY, Fault::StaleVoid, "one final order a seqnum"),
    ] {
        let [broken, _] = look(scene, 1, fault);
        assert!(broken.contains(breaks), "{fault:?} breaks only {broken:?}");
    }
}

#[test]
#[ignore = "takes minutes and gigabytes"]
fn seven_authorities_of_whom_two_lie_keep_every_promise() {
    holds(WINDOW, 2, &["a chain of three is final"]);
    holds((&["A", "B", "C", "A1", "V1"], Some(1)), 2, &RECOVERS);
    holds((&["A", "A1", "A2", "W1"], Some(2)), 2, &RECOVERS);
}
