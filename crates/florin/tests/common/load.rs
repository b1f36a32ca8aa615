//! Load for committees in trouble: pairs of accounts that pay each other and fund, claim and refund contracts; and what
//! must be so in the end, whatever happened to some of the authorities.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use florin_client::network::Network;
use florin_core::address::Address;
use florin_core::envelope::Order;
use florin_core::ordered::modules::contracts::contract_id;
use florin_core::ordered::session::header_hash;
use florin_core::testing::{Signer, to};
use florin_core::wire::{self, input, order_status::State as S, output};
use tokio::task::JoinSet;

use super::until;
use crate::net::PATIENCE;

/// What each account has at the start, minor units.
pub const START: u64 = 1_000_000;
/// sha256 of "secret".
const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
/// Between two questions for what became of an order.
const POLL: Duration = Duration::from_millis(100);
/// How long contracts run that are to be refunded.
const SHORT: Duration = Duration::from_secs(2);

/// A CALL, and what became of it.
pub struct Call {
    pub signer: Signer,
    pub seqnum: u32,
    pub state: S,
}

/// What all pairs share.
#[derive(Default)]
pub struct Shared {
    stop: AtomicBool,
    rounds: AtomicU64,
    slowest_ms: AtomicU64,
}

/// Two accounts: one funds contracts, the other claims them, or lets them expire, and pays a little back.
pub struct Pair {
    pub network: Network,
    pub payer: Signer,
    pub payee: Signer,
    pub calls: Vec<Call>,
    pub claims: i128,
    pub payments: i128,
    shared: Arc<Shared>,
}

/// Many of them at once.
pub struct Load {
    shared: Arc<Shared>,
    running: JoinSet<Pair>,
    pairs: u64,
}

pub fn bytes(of: &Signer) -> Bytes {
    Bytes::copy_from_slice(of.address.as_bytes())
}

/// Submits an order until it is final.
pub async fn submit(network: &Network, signer: &Signer, order: Bytes) {
    let shard = signer.address.shard(network.committee().shards);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let submission = network.submit(shard, vec![order.clone()], |_| ()).await.unwrap();
        match submission.outcomes.into_iter().next().unwrap() {
            Ok(_) => return,
            Err(e) => assert!(Instant::now() < deadline, "actor {}, {}: {e}", signer.actor(), signer.seqnum),
        }
    }
}

/// What the authorities say of an order, of those that answer; the first `enough` answers that `is_wanted`.
pub async fn statuses(
    network: &Network,
    signer: &Signer,
    seqnum: u32,
    enough: usize,
    is_wanted: impl Fn(&wire::OrderStatus) -> bool,
) -> Vec<wire::OrderStatus> {
    let (network_id, actor) = (signer.network_id, signer.actor());
    let request = wire::OrderStatusRequest { network_id, actor, seqnum, ..Default::default() };
    let mut running = JoinSet::new();
    for authority in 0..network.committee().size() {
        let mut client = network.authority(authority, signer.address.shard(network.committee().shards));
        let request = request.clone();
        running.spawn(async move { client.order_status(request).await });
    }
    let mut found = Vec::new();
    while let Some(status) = running.join_next().await {
        found.extend(status.unwrap().ok().map(tonic::Response::into_inner).filter(&is_wanted));
        if found.len() == enough {
            break;
        }
    }
    found
}

/// What became of a signer's newest order, by the first `enough` authorities that know it; however long that takes.
async fn decided(network: &Network, signer: &Signer, enough: usize) -> Vec<wire::OrderStatus> {
    let (network_id, actor) = (signer.network_id, signer.actor());
    let request = wire::OrderStatusRequest { network_id, actor, seqnum: signer.seqnum, ..Default::default() };
    let mut running = JoinSet::new();
    for authority in 0..network.committee().size() {
        let mut client = network.authority(authority, signer.address.shard(network.committee().shards));
        let request = request.clone();
        running.spawn(async move {
            loop {
                match client.order_status(request.clone()).await {
                    Ok(status) if is_decided(status.get_ref()) => return status.into_inner(),
                    _ => tokio::time::sleep(POLL).await,
                }
            }
        });
    }
    let mut found = Vec::new();
    while found.len() < enough {
        found.extend(running.join_next().await.transpose().unwrap());
    }
    found
}

pub fn is_decided(status: &wire::OrderStatus) -> bool {
    matches!(status.state(), S::Ordered | S::Failed)
}

impl Pair {
    /// Submits the newest CALL of the payer or the payee, and waits until f + 1 authorities say what became of it.
    async fn call(&mut self, signer: Signer, order: Bytes) -> S {
        let began = Instant::now();
        submit(&self.network, &signer, order).await;
        let enough = self.network.committee().faults() + 1;
        let what = format!("order {} of {} is not decided", signer.seqnum, signer.actor());
        let decided = decided(&self.network, &signer, enough);
        let Ok(found) = tokio::time::timeout(PATIENCE, decided).await else {
            let said = statuses(&self.network, &signer, signer.seqnum, usize::MAX, |_| true).await;
            panic!("{what}: {said:#?}");
        };
        assert!(found.iter().all(|s| *s == found[0]), "{found:#?}");
        let state = found[0].state();
        self.shared.slowest_ms.fetch_max(began.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.calls.push(Call { seqnum: signer.seqnum, signer, state });
        state
    }

    async fn fund(&mut self, expiry_ms: u64) -> Option<Bytes> {
        let fund = output::Kind::ContractFund(wire::ContractFund {
            amount: 10,
            hash: hex::decode(HASH).unwrap().into(),
            expiry_ms,
            receiver: bytes(&self.payee),
            sender: bytes(&self.payer),
        });
        let order = self.payer.call(vec![], vec![fund]);
        let contract = contract_id(&Order::decode(order.clone()).unwrap().id, 0);
        let state = self.call(self.payer.clone(), order).await;
        (state == S::Ordered).then(|| Bytes::copy_from_slice(&contract))
    }

    async fn claim(&mut self, contract: Bytes) {
        let claim =
            input::Kind::ContractClaim(wire::ContractClaim { contract, preimage: Bytes::from_static(b"secret") });
        let credit = output::Kind::Credit(wire::Credit { address: bytes(&self.payee), amount: 10 });
        let order = self.payee.call(vec![wire::Input { amount: 10, kind: Some(claim) }], vec![credit]);
        assert_eq!(self.call(self.payee.clone(), order).await, S::Ordered);
        self.claims += 1;
    }

    /// Asks until the log's time is beyond the expiry.
    async fn refund(&mut self, contract: Bytes) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let refund = input::Kind::ContractRefund(wire::ContractRefund { contract: contract.clone() });
            let credit = output::Kind::Credit(wire::Credit { address: bytes(&self.payer), amount: 10 });
            let order = self.payer.call(vec![wire::Input { amount: 10, kind: Some(refund) }], vec![credit]);
            if self.call(self.payer.clone(), order).await == S::Ordered {
                return;
            }
            assert!(Instant::now() < deadline, "the log's time stands still");
            tokio::time::sleep(SHORT / 4).await;
        }
    }

    async fn run(mut self) -> Pair {
        for round in 0.. {
            if self.shared.stop.load(Ordering::Relaxed) {
                break;
            }
            if round % 3 == 1 {
                // If it is ordered too late, it fails, and what was debited comes back.
                let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + SHORT;
                if let Some(contract) = self.fund(soon.as_millis() as u64).await {
                    self.refund(contract).await;
                }
            } else {
                let contract = self.fund(u64::MAX).await.expect("it does not expire");
                self.claim(contract).await;
            }
            let order = self.payee.pay(&[to(self.payer.address, 3)], "");
            submit(&self.network, &self.payee, order).await;
            self.payments += 1;
            self.shared.rounds.fetch_add(1, Ordering::Relaxed);
        }
        self
    }
}

impl Load {
    /// Signers in twos, each pair with connections of its own.
    pub fn start(signers: &[Signer], mut network: impl FnMut() -> Network) -> Load {
        let shared = Arc::<Shared>::default();
        let mut running = JoinSet::new();
        for pair in signers.chunks(2) {
            let (payer, payee) = (pair[0].clone(), pair[1].clone());
            let (network, shared) = (network(), shared.clone());
            running.spawn(Pair { network, payer, payee, calls: Vec::new(), claims: 0, payments: 0, shared }.run());
        }
        Load { shared, running, pairs: signers.len() as u64 / 2 }
    }

    pub fn rounds(&self) -> u64 {
        self.shared.rounds.load(Ordering::Relaxed)
    }

    /// How long the slowest shared order took.
    pub fn slowest_ms(&self) -> u64 {
        self.shared.slowest_ms.load(Ordering::Relaxed)
    }

    /// Waits until more rounds have ended than were under way: orders are made, ordered and settled now.
    pub async fn goes_on(&mut self, when: &str) {
        let wanted = self.rounds() + 2 * self.pairs;
        let deadline = Instant::now() + PATIENCE;
        while self.rounds() < wanted {
            if let Some(ended) = self.running.try_join_next() {
                ended.unwrap();
                panic!("a pair has ended by itself");
            }
            assert!(Instant::now() < deadline, "the log stands still {when}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it after what is under way.
    pub async fn stop(mut self) -> Vec<Pair> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut pairs = Vec::new();
        while let Some(pair) = self.running.join_next().await {
            pairs.push(pair.unwrap());
        }
        pairs
    }
}

/// What an address is to have: balance and orders.
pub type Expected = (Address, i128, u32);

/// Waits until these authorities say the same of every CALL, and are level in everything else. Returns how many CALLs
/// there were, how many of them failed, and the sessions that all have signed.
pub async fn wait_same(network: &Network, authorities: &[usize], pairs: &[Pair]) -> (usize, usize, usize) {
    let (mut called, mut failed, mut expected) = (0, 0, Vec::new());
    for pair in pairs {
        for Call { signer, seqnum, state } in &pair.calls {
            called += 1;
            failed += usize::from(*state == S::Failed);
            until(&format!("order {seqnum} of {} to be the same everywhere", signer.actor()), || async {
                let found = statuses(network, signer, *seqnum, authorities.len(), is_decided).await;
                assert!(found.iter().all(|s| *s == found[0] && s.state() == *state), "{state:?}, {found:#?}");
                found.len() == authorities.len()
            })
            .await;
        }
        let start = i128::from(START);
        let moved = 10 * pair.claims - 3 * pair.payments;
        expected.push((pair.payer.address, start - moved, pair.payer.seqnum));
        expected.push((pair.payee.address, start + moved, pair.payee.seqnum));
    }
    wait_level(network, authorities, &expected).await;
    let sessions = wait_sessions(network, authorities).await;
    (called, failed, sessions)
}

/// Waits until these authorities say so of each address, and nothing is pending, on its way or waiting anywhere.
pub async fn wait_level(network: &Network, authorities: &[usize], expected: &[Expected]) {
    let (network_id, shards) = (network.committee().network.id, network.committee().shards);
    for (address, balance, seqnum) in expected {
        for authority in authorities {
            until(&format!("authority {authority} to have {balance} after {seqnum} orders"), || async {
                let request = wire::AccountRequest { network_id, address: Bytes::copy_from_slice(address.as_bytes()) };
                let reply = network.authority(*authority, address.shard(shards)).account(request).await;
                reply
                    .map(tonic::Response::into_inner)
                    .is_ok_and(|r| r.balance == balance.to_string() && r.seqnum == *seqnum && r.pending.is_empty())
            })
            .await;
        }
    }
    for (authority, shard) in authorities.iter().flat_map(|a| (0..shards).map(move |s| (*a, s))) {
        until(&format!("shard {shard} of authority {authority} to be level"), || async {
            let reply = network.authority(authority, shard).info(wire::InfoRequest {}).await;
            let is_level = |s: &wire::ShardStatus| s.outbox == 0 && s.waiting == 0 && s.fault.is_empty();
            reply.is_ok_and(|reply| reply.get_ref().status.iter().all(is_level))
        })
        .await;
    }
    for authority in authorities {
        until(&format!("authority {authority} to order"), || async {
            log_status(network, *authority).await.is_some_and(|s| s.fault.is_empty() && s.queued == 0)
        })
        .await;
    }
}

/// What an authority says of its log, if it answers.
pub async fn log_status(network: &Network, authority: usize) -> Option<wire::LogStatus> {
    network.authority(authority, 0).log(wire::LogStatusRequest {}).await.ok().map(tonic::Response::into_inner)
}

/// Waits until these authorities have all sessions that any of them has signed with a quorum, and compares them.
async fn wait_sessions(network: &Network, authorities: &[usize]) -> usize {
    let mut newest = 0;
    for authority in authorities {
        newest = newest.max(log_status(network, *authority).await.map_or(0, |s| s.signed_sessions) as usize);
    }
    let mut all = Vec::new();
    for authority in authorities {
        until(&format!("authority {authority} to have {newest} signed sessions"), || async {
            log_status(network, *authority).await.is_some_and(|s| s.signed_sessions as usize >= newest)
        })
        .await;
        let mut found = sessions(network, *authority).await;
        found.retain(|number, _| (*number as usize) < newest);
        assert_eq!(found.len(), newest);
        all.push(found);
    }
    assert!(all.iter().all(|other| *other == all[0]), "two authorities signed different sessions: {all:?}");
    newest
}

/// Hashes of the sessions that an authority has signed with a quorum, by number.
pub async fn sessions(network: &Network, authority: usize) -> BTreeMap<u64, [u8; 32]> {
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
