//! Orders that touch shared objects, under `kill -9` of any authority at any moment, beside plain payments: the same
//! outcome at every authority, no two of them signed different sessions, and every audit comes to zero. One authority
//! runs in two processes, of which only one has the log. `FLORIN_KILLS=N` makes the run longer.

#![allow(clippy::unwrap_used)]

mod common;
mod net;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Local, Plan, SIZE, signers, until};
use florin_client::network::Network;
use florin_core::envelope::Order;
use florin_core::ordered::modules::contracts::contract_id;
use florin_core::ordered::session::header_hash;
use florin_core::testing::{Signer, to};
use florin_core::wire::{self, input, order_status::State as S, output};
use florin_sim::rng::Rng;
use net::PATIENCE;
use rustix::process::Signal;
use tokio::task::JoinSet;

const SHARDS: u32 = 2;
const START: u64 = 1_000_000;
/// sha256 of "secret".
const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
/// The authority in two processes.
const SPLIT: usize = 3;

fn bytes(of: &Signer) -> Bytes {
    Bytes::copy_from_slice(of.address.as_bytes())
}

/// Two accounts: one funds contracts, the other claims them, and pays a little back.
struct Pair {
    network: Network,
    payer: Signer,
    payee: Signer,
    /// Their CALLs so far.
    calls: Vec<(Signer, u32)>,
}

impl Pair {
    async fn submit(&self, signer: &Signer, order: Bytes) {
        let shard = signer.address.shard(SHARDS);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let submission = self.network.submit(shard, vec![order.clone()], |_| ()).await.unwrap();
            match submission.outcomes.into_iter().next().unwrap() {
                Ok(_) => return,
                Err(e) => assert!(Instant::now() < deadline, "actor {}, {}: {e}", signer.actor(), signer.seqnum),
            }
        }
    }

    /// Waits until f + 1 authorities say that a signer's newest order is ordered.
    async fn ordered(&self, signer: &Signer) {
        until(&format!("order {} of {} to be ordered", signer.seqnum, signer.actor()), || async {
            let found = statuses(&self.network, signer, signer.seqnum).await;
            assert!(found.iter().flatten().all(|s| s.state() != S::Failed), "{found:?}");
            found.iter().flatten().filter(|s| s.state() == S::Ordered).count() >= 2
        })
        .await;
    }

    async fn run(mut self, stop: Arc<AtomicBool>, rounds: Arc<AtomicU64>) -> Pair {
        while !stop.load(Ordering::Relaxed) {
            let fund = output::Kind::ContractFund(wire::ContractFund {
                amount: 10,
                hash: hex::decode(HASH).unwrap().into(),
                expiry_ms: u64::MAX,
                receiver: bytes(&self.payee),
                sender: bytes(&self.payer),
            });
            let order = self.payer.call(vec![], vec![fund]);
            let contract = contract_id(&Order::decode(order.clone()).unwrap().id, 0);
            self.submit(&self.payer, order).await;
            self.ordered(&self.payer).await;
            let (contract, preimage) = (Bytes::copy_from_slice(&contract), Bytes::from_static(b"secret"));
            let claim = input::Kind::ContractClaim(wire::ContractClaim { contract, preimage });
            let credit = output::Kind::Credit(wire::Credit { address: bytes(&self.payee), amount: 10 });
            let order = self.payee.call(vec![wire::Input { amount: 10, kind: Some(claim) }], vec![credit]);
            self.submit(&self.payee, order).await;
            self.ordered(&self.payee).await;
            self.calls.push((self.payer.clone(), self.payer.seqnum));
            self.calls.push((self.payee.clone(), self.payee.seqnum));
            let order = self.payee.pay(&[to(self.payer.address, 3)], "");
            self.submit(&self.payee, order).await;
            rounds.fetch_add(1, Ordering::Relaxed);
        }
        self
    }
}

async fn statuses(network: &Network, signer: &Signer, seqnum: u32) -> Vec<Option<wire::OrderStatus>> {
    let (network_id, actor) = (signer.network_id, signer.actor());
    let request = wire::OrderStatusRequest { network_id, actor, seqnum, ..Default::default() };
    let mut all = Vec::new();
    for authority in 0..SIZE {
        let mut client = network.authority(authority, signer.address.shard(SHARDS));
        all.push(client.order_status(request.clone()).await.ok().map(tonic::Response::into_inner));
    }
    all
}

/// Hashes of the sessions that an authority has signed with a quorum, by number.
async fn sessions(network: &Network, authority: usize) -> BTreeMap<u64, [u8; 32]> {
    let mut client = network.authority(authority, 0);
    let mut all = BTreeMap::new();
    loop {
        let request = wire::SessionsRequest { from: all.len() as u64, limit: 256 };
        let page = client.sessions(request).await.unwrap().into_inner().sessions;
        if page.is_empty() {
            return all;
        }
        for header in page.into_iter().filter_map(|s| s.header) {
            all.insert(header.session, header_hash(&header));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_orders_have_one_outcome_everywhere_through_kills() {
    let _turn = common::turn().await;
    let kills: usize = std::env::var("FLORIN_KILLS").ok().map_or(8, |n| n.parse().unwrap());
    let all = signers(SHARDS, 4);
    let genesis = all.iter().map(|s| (s.address, START)).collect();
    let mut local = Local::start(Plan { shards: SHARDS, genesis, split: Some(SPLIT) });
    let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = JoinSet::new();
    for pair in all.chunks(2) {
        let (payer, payee) = (pair[0].clone(), pair[1].clone());
        let pair = Pair { network: local.network(), payer, payee, calls: Vec::new() };
        load.spawn(pair.run(stop.clone(), rounds.clone()));
    }
    let mut rng = Rng::new(std::env::var("FLORIN_SEED").ok().map_or(1, |n| n.parse().unwrap()));
    let parts = local.parts();
    for killed in 0..kills {
        let before = rounds.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(rng.below(800))).await;
        let victim = parts[rng.index(parts.len())];
        // One time in three it is only cut off: it says nothing, and its connections stay.
        let cut_off = killed % 3 == 2;
        match cut_off {
            true => local.signal(victim, Signal::STOP),
            false => local.kill(victim),
        }
        // Every other time the rest must go on without it.
        let deadline = Instant::now() + PATIENCE;
        while killed % 2 == 1 && rounds.load(Ordering::Relaxed) < before + 2 {
            if let Some(ended) = load.try_join_next() {
                ended.unwrap();
            }
            assert!(Instant::now() < deadline, "the log stands still without {victim:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        match cut_off {
            true => local.signal(victim, Signal::CONT),
            false => local.up(victim),
        }
    }
    stop.store(true, Ordering::Relaxed);
    let network = local.network();
    let mut expected = Vec::new();
    let mut called = 0;
    while let Some(pair) = load.join_next().await {
        let pair = pair.unwrap();
        for (signer, seqnum) in &pair.calls {
            called += 1;
            until(&format!("order {seqnum} of {} to be the same everywhere", signer.actor()), || async {
                let found = statuses(&network, signer, *seqnum).await;
                let first = found[0].clone();
                first.as_ref().is_some_and(|s| s.state() == S::Ordered) && found.iter().all(|s| *s == first)
            })
            .await;
        }
        let moved = i128::from(pair.payer.seqnum);
        expected.push((pair.payer.address, i128::from(START) - 7 * moved, pair.payer.seqnum));
        expected.push((pair.payee.address, i128::from(START) + 7 * moved, pair.payee.seqnum));
    }
    local.wait_level(&network, &expected).await;
    let first = sessions(&network, 0).await;
    for authority in 1..SIZE {
        let other = sessions(&network, authority).await;
        assert!(first.iter().zip(&other).all(|(a, b)| a == b), "authority {authority} signed another session");
    }
    println!("{kills} kills, {called} calls, {} signed sessions", first.len());
    assert!(called > 0);
    local.assert_alive();
    tokio::task::spawn_blocking(move || local.audit_all()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_do_not_feel_a_log_that_has_stopped() {
    let _turn = common::turn().await;
    let all = signers(SHARDS, 1);
    let genesis = all.iter().map(|s| (s.address, START)).collect();
    let mut local = Local::start(Plan { shards: SHARDS, genesis, split: None });
    let (mut alice, bob) = (all[0].clone(), all[1].clone());
    let credit = output::Kind::Credit(wire::Credit { address: bytes(&bob), amount: 1 });
    let pair = Pair { network: local.network(), payer: alice.clone(), payee: bob.clone(), calls: Vec::new() };
    let order = alice.call(vec![], vec![credit.clone()]);
    pair.submit(&alice, order).await;
    pair.ordered(&alice).await;

    // Two of four lose what they made in the open session: they take no part in it any more.
    for authority in [0, 1] {
        local.kill((authority, 0));
        std::fs::remove_dir_all(local.data(authority).join("ordering")).unwrap();
        local.up((authority, 0));
    }
    let order = alice.call(vec![], vec![credit]);
    pair.submit(&alice, order).await;
    let waiting = alice.clone();
    for i in 0..20 {
        let order = alice.pay(&[to(bob.address, 1)], "");
        pair.submit(&alice, order).await;
        let found = statuses(&pair.network, &waiting, waiting.seqnum).await;
        assert!(found.iter().flatten().all(|s| s.state() != S::Ordered), "payment {i}: {found:?}");
    }
    for authority in [0, 1] {
        let status = pair.network.authority(authority, 0).log(wire::LogStatusRequest {}).await.unwrap().into_inner();
        assert!(status.fault.contains("goes on without this authority"), "{}", status.fault);
    }
    local.assert_alive();
    tokio::task::spawn_blocking(move || local.audit_all()).await.unwrap();
}
