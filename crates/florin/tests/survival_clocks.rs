//! Clocks of real processes that step by hours and days, forwards and backwards, while they run and while they don't:
//! log time follows no clock that is alone, nothing expires early, payments and shared orders go on.

#![allow(clippy::unwrap_used)]

mod common;
mod net;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use common::clocks::Clocks;
use common::load::{self, Load, START, is_decided, log_status, statuses, submit, wait_same};
use common::{Local, Plan, SIZE, signers, until};
use florin_client::network::Network;
use florin_core::envelope::Order;
use florin_core::ordered::modules::contracts::contract_id;
use florin_core::testing::{Signer, to};
use florin_core::wire::{self, input, order_status::State as S, output};
use net::Folder;

const SHARDS: u32 = 2;
const NONE: Duration = Duration::ZERO;
const HOUR: Duration = Duration::from_secs(3_600);
/// Soon enough to be waited for with clocks that are voted on every second, ms.
const SOON: u64 = 300_000;
const DAY: Duration = Duration::from_secs(24 * 3_600);

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Log time, as the newest authority has it.
async fn log_time(network: &Network) -> u64 {
    let mut newest = 0;
    for authority in 0..SIZE {
        newest = newest.max(log_status(network, authority).await.map_or(0, |s| s.time_ms));
    }
    newest
}

/// An account with contracts that only time gives back to it.
struct Sender {
    network: Network,
    signer: Signer,
    other: Signer,
}

impl Sender {
    async fn decided(&self, order: Bytes) -> S {
        submit(&self.network, &self.signer, order).await;
        let (signer, seqnum) = (&self.signer, self.signer.seqnum);
        until(&format!("order {seqnum} to be decided"), || async {
            statuses(&self.network, signer, seqnum, 2, is_decided).await.len() == 2
        })
        .await;
        // What is decided stays so.
        let found = statuses(&self.network, signer, seqnum, 2, is_decided).await;
        assert!(found.iter().all(|s| *s == found[0]), "{found:#?}");
        found[0].state()
    }

    /// Puts 10 into a contract that the sender gets back after `expiry_ms`.
    async fn fund(&mut self, expiry_ms: u64) -> Bytes {
        let fund = output::Kind::ContractFund(wire::ContractFund {
            amount: 10,
            hash: vec![7; 32].into(),
            expiry_ms,
            receiver: load::bytes(&self.other),
            sender: load::bytes(&self.signer),
        });
        let order = self.signer.call(vec![], vec![fund]);
        let contract = contract_id(&Order::decode(order.clone()).unwrap().id, 0);
        assert_eq!(self.decided(order).await, S::Ordered);
        Bytes::copy_from_slice(&contract)
    }

    /// Asks for it; whether the log has given it back.
    async fn refund(&mut self, contract: &Bytes) -> bool {
        let refund = input::Kind::ContractRefund(wire::ContractRefund { contract: contract.clone() });
        let credit = output::Kind::Credit(wire::Credit { address: load::bytes(&self.signer), amount: 10 });
        let order = self.signer.call(vec![wire::Input { amount: 10, kind: Some(refund) }], vec![credit]);
        self.decided(order).await == S::Ordered
    }

    async fn pay(&mut self) {
        let order = self.signer.pay(&[to(self.other.address, 1)], "");
        submit(&self.network, &self.signer, order).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_step_move_nothing_but_themselves() {
    let _turn = common::turn().await;
    let all = signers(SHARDS, 2);
    let genesis = all.iter().map(|s| (s.address, START)).collect();
    let mut local = Local::create(Folder::new(), Plan { shards: SHARDS, genesis, split: None });
    let clocks = Clocks::new(local.folder.0.path(), SIZE);
    local.clocks = Some(clocks.clone());
    tokio::task::block_in_place(|| local.up_all());
    let network = local.network();
    let mut sender = Sender { network: network.clone(), signer: all[2].clone(), other: all[3].clone() };
    // Contracts of two seconds come and go in it, so log time goes on as long as it does.
    let mut load = Load::start(&all[..2], || local.network());
    load.goes_on("with true clocks").await;

    // One at a time, forwards and backwards, running or starting.
    let far = now_ms() + 2 * HOUR.as_millis() as u64;
    let contract = sender.fund(far).await;
    let mut time = log_time(&network).await;
    let steps = [(DAY, NONE), (NONE, 6 * HOUR), (400 * DAY, NONE), (NONE, 20 * 365 * DAY)];
    for (i, (ahead, behind)) in steps.into_iter().enumerate() {
        let victim = i % SIZE;
        clocks.set(victim, ahead, behind);
        if i >= 2 {
            tokio::task::block_in_place(|| {
                local.kill((victim, 0));
                local.up((victim, 0));
            });
        }
        load.goes_on(&format!("with a clock {ahead:?} ahead or {behind:?} behind")).await;
        sender.pay().await;
        assert!(!sender.refund(&contract).await, "it expired early");
        // Three clocks are true: log time is between two of them.
        let (before, newest) = (time, log_time(&network).await);
        time = newest;
        assert!(before <= time && time <= now_ms(), "log time {before}, then {time}, at {}", now_ms());
        clocks.set(victim, NONE, NONE);
    }
    let pairs = load.stop().await;
    let (called, failed, _) = wait_same(&network, &[0, 1, 2, 3], &pairs).await;
    println!("{called} calls, {failed} failed, while clocks stepped");

    // All of them go a day ahead: log time follows, and what was to expire in it does. This is also what shows that the
    // clocks are those that the authorities go by. With a contract that ends within minutes they say every second what
    // their clocks are; with none, once a minute.
    let soon = sender.fund(log_time(&network).await + SOON).await;
    (0..SIZE).for_each(|i| clocks.set(i, DAY, NONE));
    until("log time to follow", || async { log_time(&network).await > far }).await;
    assert!(sender.refund(&contract).await, "its time has come");
    assert!(sender.refund(&soon).await, "and that of the other");
    // And two hours back: log time stands still until they are there again, nothing else does.
    let mut stood = log_time(&network).await;
    let contract = sender.fund(stood + SOON).await;
    (0..SIZE).for_each(|i| clocks.set(i, DAY - 2 * HOUR, NONE));
    tokio::task::block_in_place(|| {
        local.kill((1, 0));
        local.up((1, 0));
    });
    for _ in 0..3 {
        sender.pay().await;
        assert!(!sender.refund(&contract).await, "log time has not come so far");
        let now = log_time(&network).await;
        assert!(now >= stood, "log time went back from {stood} to {now}");
        stood = now;
    }
    (0..SIZE).for_each(|i| clocks.set(i, DAY + 2 * HOUR, NONE));
    until("log time to go on", || async { log_time(&network).await > stood + SOON }).await;
    assert!(sender.refund(&contract).await, "its time has come");
    // A payment at each step, and three.
    let paid = i128::from(START) - 7;
    let level = [(sender.signer.address, paid, sender.signer.seqnum), (sender.other.address, paid + 14, 0)];
    local.wait_level(&network, &level).await;
    local.assert_alive();
    tokio::task::spawn_blocking(move || {
        local.clocks = None;
        local.audit_all();
    })
    .await
    .unwrap();
}
