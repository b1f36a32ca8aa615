//! Every limit of `limits.rs` is tested: at it input is taken, one over and far over it is refused with the documented
//! code and changes nothing. Where the core meets the limit, the test is here; otherwise `elsewhere` names it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod channels;
mod elsewhere;
mod log;
mod notes;
mod orders;
mod shard;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use florin_core::authority::effect::Reply;
use florin_core::authority::input::Input;
use florin_core::testing::{Cluster, Node, Signer, TestCommittee};
use florin_core::{Code, Error, Result};

/// A limit that input is refused for.
struct Case {
    limit: &'static str,
    accepted: Vec<u64>,
    refused: Vec<u64>,
    code: Code,
    /// What becomes of an input with that much of it. It asserts itself that a refused one has changed nothing.
    run: fn(u64) -> Result<()>,
}

impl Case {
    /// At most so much: one more is refused, 64 times as much, and with each of `far`.
    fn at_most((limit, max): (&'static str, u64), far: &[u64], code: Code, run: fn(u64) -> Result<()>) -> Case {
        let mut refused = vec![max + 1];
        refused.extend_from_slice(far);
        Case { limit, accepted: vec![max], refused, code, run }
    }

    /// At least so much, too.
    fn at_least(mut self, min: u64) -> Case {
        self.accepted.push(min);
        self.refused.push(min - 1);
        self
    }
}

/// A limit on what is kept, answered or done at once, which refuses nothing: its test.
type Bound = (&'static str, fn());

/// The name of a limit, and the limit.
macro_rules! limit {
    ($name:ident) => {
        (stringify!($name), florin_core::limits::$name as u64)
    };
}
use limit;

fn check(cases: Vec<Case>, bounds: Vec<Bound>) {
    for (limit, run) in bounds {
        println!("{limit}");
        run();
    }
    for case in cases {
        for n in case.accepted {
            (case.run)(n).unwrap_or_else(|e| panic!("{}: {n} is within it: {e}", case.limit));
        }
        let max = case.refused[0] - 1;
        for n in case.refused {
            let Err(e) = (case.run)(n) else { panic!("{}: {n} is over it, and accepted", case.limit) };
            assert_eq!(e.code, case.code, "{}: {n}: {e}", case.limit);
            // One over: for this limit, not for another that is met first.
            let named = [max.to_string(), "2^63".into()].iter().any(|text| e.message.contains(text));
            assert!(n != max + 1 || named, "{}: {n}: {e}", case.limit);
        }
    }
}

#[test]
fn orders_are_refused_above_their_limits() {
    check(orders::cases(), vec![]);
}

#[test]
fn shards_keep_their_limits() {
    check(shard::cases(), shard::bounds());
}

#[test]
fn e_cash_keeps_its_limits() {
    check(notes::cases(), vec![]);
}

#[test]
fn the_log_keeps_its_limits() {
    check(log::cases(), log::bounds());
}

#[test]
fn channels_keep_their_limits() {
    check(channels::cases(), channels::bounds());
}

#[test]
fn every_limit_has_a_test() {
    let text = read("crates/core/src/limits.rs");
    let constants = text.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    let constants: BTreeSet<&str> = constants.collect();
    assert!(constants.len() > 60, "{constants:?}");
    let cases = [orders::cases(), shard::cases(), notes::cases(), log::cases(), channels::cases()];
    let bounds = [shard::bounds(), log::bounds(), channels::bounds()];
    let mut tested: BTreeSet<&str> = cases.iter().flatten().map(|case| case.limit).collect();
    tested.extend(bounds.iter().flatten().map(|(limit, _)| *limit));
    tested.extend(elsewhere::TESTS.iter().map(|(limit, ..)| *limit));
    assert_eq!(constants, tested);
}

#[test]
fn the_tests_elsewhere_are_there() {
    for (limit, file, test) in elsewhere::TESTS {
        let text = read(file);
        let found = text.split_once(&format!("fn {test}()")).unwrap_or_else(|| panic!("{limit}: no {test} in {file}"));
        let above: Vec<&str> = found.0.lines().rev().take(4).collect();
        assert!(
            above.iter().any(|line| ["#[test]", "::test]", "::test("].iter().any(|mark| line.contains(mark))),
            "{limit}: {test} in {file} is no test"
        );
    }
}

fn read(path: &str) -> String {
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A committee of four, and an account with money.
fn funded(amount: u64) -> (Cluster, Signer) {
    let limit = amount.max(1_000_000);
    let mut cluster = Cluster::new(&TestCommittee { issuer_limit: limit, ..TestCommittee::default() });
    let alice = Signer::new(1);
    cluster.fund(alice.address, amount);
    cluster.set_time(1_000);
    (cluster, alice)
}

/// What the first authority says to these orders: the first error, if any. Nothing is written if all are refused.
fn judged(node: &mut Node, orders: &[Bytes]) -> Result<()> {
    let before = node.state.clone();
    let result = node.step(Input::vote(orders.to_vec()));
    let reply = match result {
        Ok(effects) => match effects.reply {
            Reply::Vote(reply) => reply,
            other => panic!("a vote is answered with {other:?}"),
        },
        Err(e) => {
            assert_eq!(node.state, before, "{e}");
            return Err(e);
        }
    };
    if reply.vote.is_none() {
        assert_eq!(node.state, before, "{:?}", reply.errors.first());
    }
    match reply.errors.first() {
        None => Ok(()),
        Some(e) => Err(Error::new(Code::from_number(e.code).expect("a known code"), e.message.clone())),
    }
}

/// One order of an account with money, before the first authority.
fn judged_one(order: impl FnOnce(&mut Signer) -> Bytes) -> Result<()> {
    let (mut cluster, mut alice) = funded(100_000);
    let order = order(&mut alice);
    judged(cluster.node(0, 0), &[order])
}

/// So many bytes of text.
fn text(bytes: u64) -> String {
    "m".repeat(bytes as usize)
}
