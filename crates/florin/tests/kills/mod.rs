//! The load under the kills: drivers that pay and keep what authorities promise, and readers.

pub mod bank;
mod bank_tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bank::{Bank, Read, Said};
use bytes::Bytes;
use florin_client::network::Network;
use florin_core::address::Address;
use florin_core::batch::decode_batch;
use florin_core::bitmap::Bitmap;
use florin_core::certificate::{BatchId, Promise, check_signed};
use florin_core::committee::Committee;
use florin_core::envelope::Order;
use florin_core::testing::{Signer, to};
use florin_core::wire;
use florin_sim::rng::Rng;
use tokio::task::JoinSet;

use crate::common::{Local, SIZE};
use crate::net::PATIENCE;

/// Drivers on each shard: one keeps votes and acknowledgements itself, one goes through the library.
pub const DRIVERS: usize = 2;
/// Clients that read accounts, and how long each rests between two.
const READERS: usize = 2;
/// A driver's rest after a batch: the machine's time is for those that start, too.
const PACE: Duration = Duration::from_millis(40);
const READ_PAUSE: Duration = Duration::from_millis(30);

/// An order that was signed, and one that must never take its place.
#[derive(Clone)]
pub struct Pair {
    pub order: Bytes,
    pub other: Bytes,
}

/// What an authority has put its signature under.
#[derive(Clone)]
pub struct Promised {
    pub actor: u64,
    pub seqnum: u32,
    pub pair: Pair,
    pub settled: bool,
}

/// All promises, by authority and shard, in the order in which they came.
pub type Book = Arc<Mutex<BTreeMap<(usize, u32), Vec<Promised>>>>;

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
pub struct Driver {
    pub number: usize,
    pub network: Network,
    pub shard: u32,
    pub accounts: Vec<Signer>,
    pub payees: Vec<Signer>,
    pub rng: Rng,
    pub book: Book,
    pub bank: Arc<Bank>,
}

impl Driver {
    fn sign(&mut self) -> Batch {
        let mut pairs = Vec::new();
        for account in &mut self.accounts {
            let payee = self.payees[self.rng.index(self.payees.len())].address;
            let amount = self.rng.between(1, 1_000);
            let other = account.clone().pay(&[to(payee, amount + 1)], "another");
            let order = account.pay(&[to(payee, amount)], "");
            self.bank.signed(account.address, account.seqnum, payee, amount);
            pairs.push(Pair { order, other });
        }
        Batch::new(self.shard, pairs)
    }

    /// Until told to stop; the last batch is driven to its end.
    async fn run(mut self, direct: bool, stop: Arc<AtomicBool>, batches: Arc<AtomicU64>) -> Driver {
        while !stop.load(Ordering::Relaxed) {
            let batch = Arc::new(self.sign());
            if direct {
                self.drive(&batch).await;
            } else {
                self.submit(&batch).await;
            }
            self.accounts.iter().for_each(|a| self.bank.is_final(a.address, a.seqnum));
            batches.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PACE).await;
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

/// Reads accounts in turn until told to stop.
async fn read(network: Network, client: usize, accounts: Vec<Address>, bank: Arc<Bank>, stop: Arc<AtomicBool>) {
    for account in accounts.into_iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let asked = bank.asks();
        let replies = network.account(&account).await;
        let said = replies.into_iter().enumerate().filter_map(|(i, reply)| Some((i, said(&reply.ok()?)))).collect();
        bank.read(Read { client, account, asked, said });
        tokio::time::sleep(READ_PAUSE).await;
    }
}

pub fn said(reply: &wire::AccountReply) -> Said {
    Said { balance: reply.balance.parse().unwrap(), seqnum: reply.seqnum }
}

/// Drivers and readers at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    batches: Arc<AtomicU64>,
    drivers: JoinSet<Driver>,
    readers: JoinSet<()>,
}

impl Load {
    pub fn start(local: &Local, drivers: Vec<Driver>, accounts: &[Signer], bank: &Arc<Bank>) -> Load {
        let mut load =
            Load { stop: Arc::default(), batches: Arc::default(), drivers: JoinSet::new(), readers: JoinSet::new() };
        for (i, mut driver) in drivers.into_iter().enumerate() {
            driver.bank = bank.clone();
            load.drivers.spawn(driver.run(i % DRIVERS == 0, load.stop.clone(), load.batches.clone()));
        }
        for client in 0..READERS {
            let accounts = accounts.iter().map(|s| s.address).collect();
            load.readers.spawn(read(local.network(), client, accounts, bank.clone(), load.stop.clone()));
        }
        load
    }

    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Waits until a batch more is final than at `before`.
    pub async fn goes_on(&mut self, before: u64, killed: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.batches() == before {
            // If a driver has given up, its panic is better than a timeout here.
            if let Some(ended) = self.drivers.try_join_next() {
                ended.unwrap();
            }
            assert!(Instant::now() < deadline, "the load stands still after {killed} kills");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// After the batches that are under way.
    pub async fn stop(mut self) -> Vec<Driver> {
        self.stop.store(true, Ordering::Relaxed);
        let mut drivers = Vec::new();
        while let Some(driver) = self.drivers.join_next().await {
            drivers.push(driver.unwrap());
        }
        while let Some(reader) = self.readers.join_next().await {
            reader.unwrap();
        }
        // As they were: which of them drives by hand goes by the place.
        drivers.sort_by_key(|d| d.number);
        drivers
    }
}
