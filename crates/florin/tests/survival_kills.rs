//! `kill -9` of any process at any moment under load, also while it starts: no promise is forgotten, and what clients see
//! is what a bank shows.
//!
//! The load remembers every bit that an authority signed. After each restart the one that was killed is asked about
//! what it had promised: the same order again, and another order for the same sequence number. Readers ask for accounts
//! all the while; every [`PERIOD`] kills the load stops, and the history is checked (`kills/bank.rs`).
//! `FLORIN_KILLS=N` makes the run longer or shorter, `FLORIN_SEED=N` another.

#![allow(clippy::unwrap_used)]

mod common;
mod kills;
mod net;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Local, Part, Plan, SIZE, signers};
use florin_client::network::Network;
use florin_core::Code;
use florin_core::address::Address;
use florin_core::envelope::Order;
use florin_core::testing::{NETWORK_ID, Signer};
use florin_core::wire;
use florin_core::wire::order_reply::State;
use florin_sim::rng::Rng;
use kills::bank::{Bank, Said};
use kills::{Book, DRIVERS, Driver, Load, Promised, said};
use net::PATIENCE;

const SHARDS: u32 = 2;
/// Accounts that one driver signs for, all on one shard.
const PER_DRIVER: usize = 8;
const START: u64 = 1_000_000_000;
/// The authority in two processes.
const SPLIT: usize = 3;
/// Kills between two checks of everything.
const PERIOD: usize = 50;
/// Promises asked about after each restart, of the newest.
const ASKED: usize = 60;
/// Promises of each authority and shard asked about at the end of a period, of all that are known; these are kept.
const ASKED_LAST: usize = 500;
/// Of these, those that were acknowledged and are asked about one by one, after a restart.
const ASKED_SETTLED: usize = 12;
/// Within which a process is killed that is starting, ms: alone on a machine it is up after half of it.
const STARTING_MS: u64 = 200;

/// Asks one shard of an authority about what it promised.
async fn keeps(network: &Network, authority: usize, shard: u32, promises: &[Promised], settled: usize) {
    for part in promises.chunks(1_000) {
        let ask = async |orders: Vec<Bytes>| {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let request = wire::VoteRequest { shard, orders: orders.clone() };
                match network.authority(authority, shard).vote(request).await {
                    Ok(reply) => return reply.into_inner(),
                    Err(e) => assert!(Instant::now() < deadline, "authority {authority}: {e}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let same: Vec<Bytes> = part.iter().map(|p| p.pair.order.clone()).collect();
        let reply = ask(same).await;
        assert!(reply.errors.is_empty(), "authority {authority} takes back a vote: {:?}", reply.errors);
        let other = ask(part.iter().map(|p| p.pair.other.clone()).collect()).await;
        assert!(other.vote.is_none(), "authority {authority} votes twice for one seqnum");
        for error in &other.errors {
            let code = Code::from_number(error.code).unwrap();
            assert!(matches!(code, Code::PendingConflict | Code::BadSeq), "authority {authority}: {error:?}");
            let held = code == Code::PendingConflict;
            let body = Order::decode(part[error.index as usize].pair.order.clone()).unwrap().body;
            assert!(!held || error.pending_order == body, "another order is pending than the one voted for");
        }
        assert_eq!(other.errors.len(), part.len());
    }
    let mut client = network.authority(authority, shard);
    for promise in promises.iter().rev().filter(|p| p.settled).take(settled) {
        let request = wire::OrderRequest {
            network_id: NETWORK_ID,
            actor: promise.actor,
            seqnum: promise.seqnum,
            ..Default::default()
        };
        let reply = client.order(request).await.unwrap().into_inner();
        assert_eq!(reply.state, State::Settled as i32, "authority {authority} takes back an acknowledgement");
        let found = Order::decode(reply.receipt.unwrap().transaction).unwrap().id;
        assert_eq!(found, Order::decode(promise.pair.order.clone()).unwrap().id);
    }
}

/// Asks a process about the newest of its promises, or about some of all that are known.
async fn check(local: &Local, network: &Network, book: &Book, part: Part, newest: bool) {
    for shard in local.shards_of(part) {
        let promises: Vec<Promised> = {
            let mut book = book.lock().unwrap();
            let all = book.entry((part.0, shard)).or_default();
            if !newest {
                // A long run would fill the memory.
                let step = all.len() / ASKED_LAST + 1;
                *all = all.drain(..).step_by(step).collect();
            }
            all[all.len().saturating_sub(if newest { ASKED } else { all.len() })..].to_vec()
        };
        keeps(network, part.0, shard, &promises, if newest { ASKED_SETTLED } else { usize::MAX }).await;
    }
}

/// Who kills, and how often it has.
struct Killer {
    rng: Rng,
    killed: usize,
    /// Of these, processes that had not come up yet.
    starting: usize,
}

impl Killer {
    /// Kills one or two processes at once under load. Each is started again, now and then to be killed again on its way
    /// up; once it is up it is asked about its promises.
    async fn strike(&mut self, local: &mut Local, load: &mut Load, network: &Network, book: &Book) {
        let before = load.batches();
        let parts = local.parts();
        tokio::time::sleep(Duration::from_millis(self.rng.below(200))).await;
        let mut victims = vec![parts[self.rng.index(parts.len())]];
        if self.rng.chance(250) {
            let second = parts[self.rng.index(parts.len())];
            victims.extend((second != victims[0]).then_some(second));
        }
        for victim in &victims {
            tokio::task::block_in_place(|| local.kill(*victim));
            self.killed += 1;
        }
        tokio::time::sleep(Duration::from_millis(self.rng.below(100))).await;
        while self.rng.chance(400) {
            let victim = victims[self.rng.index(victims.len())];
            tokio::task::block_in_place(|| local.spawn(victim));
            tokio::time::sleep(Duration::from_millis(self.rng.below(STARTING_MS))).await;
            tokio::task::block_in_place(|| local.kill(victim));
            self.killed += 1;
            self.starting += 1;
        }
        tokio::task::block_in_place(|| local.up_all());
        for victim in victims {
            check(local, network, book, victim, true).await;
        }
        load.goes_on(before, self.killed).await;
    }
}

/// Everything that all authorities have is what clients made of it and saw, and what was promised is kept.
async fn check_all(local: &Local, network: &Network, bank: &Bank, book: &Book) {
    let expected = bank.expected();
    let level: Vec<_> = expected.iter().map(|(a, s)| (*a, s.balance, s.seqnum)).collect();
    local.wait_level(network, &level).await;
    let mut everyone: Vec<HashMap<Address, Said>> = vec![HashMap::new(); SIZE];
    for address in expected.keys() {
        let replies = local.accounts(network, address).await.unwrap();
        for (all, reply) in everyone.iter_mut().zip(&replies) {
            all.insert(*address, said(reply));
        }
    }
    for (authority, all) in everyone.iter().enumerate() {
        assert_eq!(bank.check_level(authority, all), []);
    }
    assert_eq!(bank.check(), []);
    for part in local.parts() {
        check(local, network, book, part, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_survive_kills_at_any_moment() {
    let _turn = common::turn().await;
    let kills: usize = std::env::var("FLORIN_KILLS").ok().map_or(200, |n| n.parse().unwrap());
    let rng = Rng::new(std::env::var("FLORIN_SEED").ok().map_or(1, |n| n.parse().unwrap()));
    let all = signers(SHARDS, PER_DRIVER * DRIVERS);
    let genesis = all.iter().map(|s| (s.address, START)).collect();
    let plan = Plan { shards: SHARDS, genesis, split: Some(SPLIT) };
    let mut local = tokio::task::block_in_place(|| Local::start(plan));
    let book = Book::default();
    let mut opened: HashMap<Address, Said> =
        all.iter().map(|s| (s.address, Said { balance: i128::from(START), seqnum: 0 })).collect();
    let mut drivers = Vec::new();
    for shard in 0..SHARDS {
        let mut here: Vec<Signer> = all.iter().filter(|s| s.address.shard(SHARDS) == shard).cloned().collect();
        for _ in 0..DRIVERS {
            let number = drivers.len();
            let rng = Rng::new(1_000 + number as u64);
            let accounts = here.drain(..PER_DRIVER).collect();
            let (network, book, payees) = (local.network(), book.clone(), all.clone());
            let bank = Arc::new(Bank::open(SIZE, []));
            drivers.push(Driver { number, network, shard, accounts, payees, rng, book, bank });
        }
    }

    let network = local.network();
    let (mut killer, mut batches, mut finals, mut reads) = (Killer { rng, killed: 0, starting: 0 }, 0, 0, 0);
    while killer.killed < kills {
        let period = kills.min(killer.killed + PERIOD);
        let bank = Arc::new(Bank::open(SIZE, opened));
        let mut load = Load::start(&local, drivers, &all, &bank);
        while killer.killed < period {
            killer.strike(&mut local, &mut load, &network, &book).await;
        }
        batches += load.batches();
        drivers = load.stop().await;
        check_all(&local, &network, &bank, &book).await;
        finals += bank.counts().0;
        reads += bank.counts().1;
        opened = bank.expected();
    }
    println!(
        "{} kills, {} of them while starting; {batches} batches, {finals} final payments, {reads} reads of accounts",
        killer.killed, killer.starting
    );
    assert!(finals > 0 && reads > 0);
    local.assert_alive();
    tokio::task::spawn_blocking(move || local.audit_all()).await.unwrap();
}
