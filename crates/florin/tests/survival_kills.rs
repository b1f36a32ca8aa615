//! `kill -9` of any process at any moment under load: no promise is forgotten.
//!
//! The load remembers every bit that an authority signed. After each restart the one that was killed is asked about
//! what it had promised: the same order again, and another order for the same sequence number.
//! `FLORIN_KILLS=N` makes the run longer.

#![allow(clippy::unwrap_used)]

mod common;
mod net;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Local, Part, Plan, SIZE, signers};
use florin_client::network::Network;
use florin_core::Code;
use florin_core::batch::decode_batch;
use florin_core::bitmap::Bitmap;
use florin_core::certificate::{BatchId, Promise, check_signed};
use florin_core::committee::Committee;
use florin_core::envelope::Order;
use florin_core::testing::{NETWORK_ID, Signer, to};
use florin_core::wire;
use florin_core::wire::order_reply::State;
use florin_sim::rng::Rng;
use net::PATIENCE;
use tokio::task::JoinSet;

const SHARDS: u32 = 2;
/// Accounts that one driver signs for, all on one shard.
const PER_DRIVER: usize = 8;
/// Drivers on each shard: one keeps votes and acknowledgements itself, one goes through the library.
const DRIVERS: usize = 2;
const START: u64 = 1_000_000_000;
/// The authority in two processes.
const SPLIT: usize = 3;
/// Promises asked about after each restart, of the newest.
const ASKED: usize = 60;
/// Promises of each shard asked about at the end, from the whole run.
const ASKED_LAST: usize = 1_500;

/// An order that was signed, and one that must never take its place.
#[derive(Clone)]
struct Pair {
    order: Bytes,
    other: Bytes,
}

/// What an authority has put its signature under.
#[derive(Clone)]
struct Promised {
    actor: u64,
    seqnum: u32,
    pair: Pair,
    settled: bool,
}

/// All promises, by authority and shard, in the order in which they came.
type Book = Arc<Mutex<BTreeMap<(usize, u32), Vec<Promised>>>>;

struct Batch {
    shard: u32,
    pairs: Vec<Pair>,
    orders: Vec<Bytes>,
    id: BatchId,
}

impl Batch {
    fn new(shard: u32, pairs: Vec<Pair>) -> Batch {
        let orders: Vec<Bytes> = pairs.iter().map(|p| p.order.clone()).collect();
        let id = decode_batch(&orders).unwrap().id;
        Batch { shard, pairs, orders, id }
    }

    /// Notes what an authority signed, after checking that it did.
    fn note(&self, book: &Book, committee: &Committee, promise: Promise, signed: &wire::Signed) -> Bitmap {
        let bits = check_signed(promise, committee, &self.id, std::slice::from_ref(signed)).unwrap().remove(0);
        let mut book = book.lock().unwrap();
        let promises = book.entry((signed.authority as usize, self.shard)).or_default();
        for i in bits.iter() {
            let order = Order::decode(self.orders[i].clone()).unwrap();
            promises.push(Promised {
                actor: order.actor,
                seqnum: order.seqnum,
                pair: self.pairs[i].clone(),
                settled: promise == Promise::Settled,
            });
        }
        bits
    }
}

/// Accounts that pay others, and what that makes of everyone's balance.
struct Driver {
    network: Network,
    shard: u32,
    accounts: Vec<Signer>,
    payees: Vec<Signer>,
    rng: Rng,
    book: Book,
    paid: HashMap<[u8; 32], i128>,
}

impl Driver {
    fn sign(&mut self) -> Batch {
        let mut pairs = Vec::new();
        for account in &mut self.accounts {
            let payee = self.payees[self.rng.index(self.payees.len())].address;
            let amount = self.rng.between(1, 1_000);
            let other = account.clone().pay(&[to(payee, amount + 1)], "another");
            let order = account.pay(&[to(payee, amount)], "");
            *self.paid.entry(*account.address.as_bytes()).or_default() -= i128::from(amount);
            *self.paid.entry(*payee.as_bytes()).or_default() += i128::from(amount);
            pairs.push(Pair { order, other });
        }
        Batch::new(self.shard, pairs)
    }

    /// Until told to stop; the last batch is driven to its end.
    async fn run(mut self, direct: bool, stop: Arc<AtomicBool>, batches: Arc<std::sync::atomic::AtomicU64>) -> Driver {
        while !stop.load(Ordering::Relaxed) {
            let batch = Arc::new(self.sign());
            if direct {
                self.drive(&batch).await;
            } else {
                self.submit(&batch).await;
            }
            batches.fetch_add(1, Ordering::Relaxed);
        }
        self
    }

    /// Through the library; receipts carry acknowledgements.
    async fn submit(&self, batch: &Batch) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let submission = self.network.submit(batch.shard, batch.orders.clone(), |_| ()).await.unwrap();
            assert!(submission.culprits.is_empty(), "{:?}", submission.culprits);
            let mut open = Vec::new();
            let mut noted = false;
            for outcome in submission.outcomes {
                match outcome {
                    // They share their signatures.
                    Ok(_) if noted => {}
                    Ok(receipt) => {
                        noted = true;
                        let committee = self.network.committee();
                        florin_core::receipt::verify(committee, &receipt).unwrap();
                        for vote in &receipt.votes {
                            batch.note(&self.book, committee, Promise::Vote, vote);
                        }
                        for acknowledgement in &receipt.acknowledgements {
                            batch.note(&self.book, committee, Promise::Settled, acknowledgement);
                        }
                    }
                    Err(e) => open.push(e),
                }
            }
            if open.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{open:?}");
        }
    }

    /// By hand: every vote and acknowledgement that any authority returns is kept.
    async fn drive(&self, batch: &Arc<Batch>) {
        let count = batch.orders.len();
        let mut votes: Vec<wire::Signed> = Vec::new();
        let mut asked = JoinSet::new();
        for authority in 0..SIZE {
            let (network, batch, book) = (self.network.clone(), batch.clone(), self.book.clone());
            asked.spawn(async move {
                let request = wire::VoteRequest { shard: batch.shard, orders: batch.orders.clone() };
                let deadline = Instant::now() + PATIENCE;
                loop {
                    let mut client = network.authority(authority, batch.shard);
                    let reply = client.vote(request.clone()).await.map(tonic::Response::into_inner);
                    if let Ok(wire::VoteReply { vote: Some(vote), .. }) = &reply
                        && batch.note(&book, network.committee(), Promise::Vote, vote).ones() == count
                    {
                        return vote.clone();
                    }
                    assert!(Instant::now() < deadline, "authority {authority}: {reply:?}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
        while votes.len() < 3 {
            votes.push(asked.join_next().await.unwrap().unwrap());
        }
        asked.detach_all();
        let certificate = wire::Certificate {
            epoch: self.network.committee().epoch,
            root: Bytes::copy_from_slice(&batch.id.root),
            count: count as u32,
            votes,
        };
        let mut settling = JoinSet::new();
        for authority in 0..SIZE {
            let (network, batch, book) = (self.network.clone(), batch.clone(), self.book.clone());
            let request = wire::SettleRequest {
                shard: batch.shard,
                certificate: Some(certificate.clone()),
                orders: batch.orders.clone(),
                shares: false,
            };
            settling.spawn(async move {
                let deadline = Instant::now() + PATIENCE;
                loop {
                    let mut client = network.authority(authority, batch.shard);
                    let reply = client.settle(request.clone()).await.map(tonic::Response::into_inner);
                    if let Ok(wire::SettleReply { acknowledgement: Some(signed), .. }) = &reply
                        && batch.note(&book, network.committee(), Promise::Settled, signed).ones() == count
                    {
                        return;
                    }
                    assert!(Instant::now() < deadline, "authority {authority}: {reply:?}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
        for _ in 0..3 {
            settling.join_next().await.unwrap().unwrap();
        }
        settling.detach_all();
    }
}

/// Asks one shard of an authority about what it promised.
async fn keeps(network: &Network, authority: usize, shard: u32, promises: &[Promised]) {
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
    for promise in promises.iter().filter(|p| p.settled) {
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

/// Asks a process about the newest of its promises, or about some from the whole run.
async fn check(local: &Local, network: &Network, book: &Book, part: Part, newest: bool) {
    for shard in local.shards_of(part) {
        let promises: Vec<Promised> = {
            let book = book.lock().unwrap();
            let all = book.get(&(part.0, shard)).map(Vec::as_slice).unwrap_or_default();
            match newest {
                true => all[all.len().saturating_sub(ASKED)..].to_vec(),
                false => all.iter().step_by(all.len() / ASKED_LAST + 1).cloned().collect(),
            }
        };
        keeps(network, part.0, shard, &promises).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_survive_kills_at_any_moment() {
    let kills: usize = std::env::var("FLORIN_KILLS").ok().map_or(30, |n| n.parse().unwrap());
    let all = signers(SHARDS, PER_DRIVER * DRIVERS);
    let genesis = all.iter().map(|s| (s.address, START)).collect();
    let mut local = Local::start(Plan { shards: SHARDS, genesis, split: Some(SPLIT) });
    let book = Book::default();
    let (stop, batches) = (Arc::new(AtomicBool::new(false)), Arc::new(std::sync::atomic::AtomicU64::new(0)));
    let mut load = JoinSet::new();
    for shard in 0..SHARDS {
        let mut here: Vec<Signer> = all.iter().filter(|s| s.address.shard(SHARDS) == shard).cloned().collect();
        for driver in 0..DRIVERS {
            let rng = Rng::new(1_000 + u64::from(shard) * 10 + driver as u64);
            let accounts = here.drain(..PER_DRIVER).collect();
            let (network, book, payees) = (local.network(), book.clone(), all.clone());
            let driver_ = Driver { network, shard, accounts, payees, rng, book, paid: HashMap::new() };
            load.spawn(driver_.run(driver == 0, stop.clone(), batches.clone()));
        }
    }

    let network = local.network();
    let mut rng = Rng::new(std::env::var("FLORIN_SEED").ok().map_or(1, |n| n.parse().unwrap()));
    let parts = local.parts();
    let mut killed = 0;
    while killed < kills {
        let before = batches.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(rng.below(700))).await;
        let mut victims = vec![parts[rng.index(parts.len())]];
        if rng.chance(250) {
            let second = parts[rng.index(parts.len())];
            victims.extend((second != victims[0]).then_some(second));
        }
        for victim in &victims {
            local.kill(*victim);
            killed += 1;
        }
        tokio::time::sleep(Duration::from_millis(rng.below(300))).await;
        for victim in victims {
            local.up(victim);
            check(&local, &network, &book, victim, true).await;
        }
        // The load goes on. If a driver has given up, its panic is better than a timeout here.
        let deadline = Instant::now() + PATIENCE;
        while batches.load(Ordering::Relaxed) == before {
            if let Some(ended) = load.try_join_next() {
                ended.unwrap();
            }
            assert!(Instant::now() < deadline, "the load stands still after {killed} kills");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut balances: HashMap<[u8; 32], i128> =
        all.iter().map(|s| (*s.address.as_bytes(), i128::from(START))).collect();
    let mut seqnums = HashMap::new();
    while let Some(driver) = load.join_next().await {
        let driver = driver.unwrap();
        driver.paid.iter().for_each(|(address, paid)| *balances.get_mut(address).unwrap() += paid);
        seqnums.extend(driver.accounts.iter().map(|a| (*a.address.as_bytes(), a.seqnum)));
    }
    let expected: Vec<_> =
        all.iter().map(|s| (s.address, balances[s.address.as_bytes()], seqnums[s.address.as_bytes()])).collect();
    local.wait_level(&network, &expected).await;
    for part in local.parts() {
        check(&local, &network, &book, part, false).await;
    }
    local.wait_level(&network, &expected).await;
    let promised: usize = book.lock().unwrap().values().map(Vec::len).sum();
    println!("{killed} kills, {} batches, {promised} promises kept", batches.load(Ordering::Relaxed));
    local.assert_alive();
    tokio::task::spawn_blocking(move || local.audit_all()).await.unwrap();
}
