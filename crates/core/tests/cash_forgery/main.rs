//! Forgery: changed notes, blinded nonces, signature shares and certificates, by the thousand in every run of the tests and by the
//! million with `cargo test --release -p florin-core --test cash_forgery -- --ignored --nocapture`. None is ever accepted.
//!
//! The forger has everything but a quorum of keys: true notes and their keys, other tiers, blind signatures, the shares of too few
//! authorities. Notes go to an authority as a request to vote, hundreds at a time with true ones among them; it must accept the true
//! ones and nothing else, and say of each other one what is wrong with it. Shares go to the wallet's side, certificates to an
//! authority that has the batch. All is drawn from a fixed seed.

#![allow(clippy::unwrap_used)]

mod certificates;
mod liars;
mod notes;
mod points;
mod shares;

use std::collections::BTreeMap;
use std::time::Instant;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

/// How many were refused, by kind of forgery.
#[derive(Default)]
pub struct Tally(BTreeMap<&'static str, usize>);

impl Tally {
    fn refused(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }

    fn total(&self) -> usize {
        self.0.values().sum()
    }
}

/// One kind of forgery, and how often it is drawn: those that get as far as the pairings are dear.
struct Kind<T> {
    name: &'static str,
    weight: u64,
    make: T,
}

/// One of the kinds, by weight.
fn draw<'a, T>(kinds: &'a [Kind<T>], rng: &mut ChaCha20Rng) -> &'a Kind<T> {
    let mut at = rng.next_u64() % kinds.iter().map(|kind| kind.weight).sum::<u64>();
    kinds.iter().find(|kind| kind.weight > at || (at -= kind.weight, false).1).expect("below the sum")
}

/// So many of each; panics if one is accepted. Returns how many were refused.
fn forge(notes: usize, shares: usize, certificates: usize) -> usize {
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let start = Instant::now();
    let mut total = 0;
    let mut report = |what: &str, tally: Tally, from: Instant| {
        println!("{what}: {} refused, 0 accepted, {:.0} s", tally.total(), from.elapsed().as_secs_f64());
        tally.0.iter().for_each(|(kind, count)| println!("  {count:>7}  {kind}"));
        total += tally.total();
    };
    let mut world = notes::World::new();
    report("notes", notes::forge(&mut world, notes, &mut rng), start);
    let from = Instant::now();
    report("shares", shares::forge(&world, shares, &mut rng), from);
    let from = Instant::now();
    report("certificates", certificates::forge(&mut world, certificates, &mut rng), from);
    println!("{total} forgeries refused, 0 accepted, {:.0} s", start.elapsed().as_secs_f64());
    total
}

#[test]
fn no_forgery_is_accepted() {
    assert!(forge(2_000, 700, 3_000) >= 5_700);
}

#[test]
#[ignore = "minutes in release"]
fn none_of_a_million_forgeries_is_accepted() {
    assert!(forge(500_000, 200_000, 300_000) >= 1_000_000);
}
