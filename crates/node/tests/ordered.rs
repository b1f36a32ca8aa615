//! A committee of four whole authorities in one process: orders that touch shared objects, from the first vote to the
//! credit, and restarts in between.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use florin_core::batch::decode_batch;
use florin_core::committee::{AuthorityInfo, Committee};
use florin_core::envelope::Order;
use florin_core::ordered::modules::contracts::contract_id;
use florin_core::testing::{Signer, TestCommittee, seed, to};
use florin_core::wire::{self, order_status::State as S, output};
use florin_node::config::{Config, make_data, rebuild_data};
use florin_node::node;
use florin_node::ordering::Pace;
use florin_rpc::client::{Limits, connect_lazy};
use florin_rpc::services::authority_service_client::AuthorityServiceClient;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use zeroize::Zeroizing;

const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// sha256 of "secret".
const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

type Running = (oneshot::Sender<()>, JoinHandle<florin_core::Result<()>>);

struct Net {
    committee: Arc<Committee>,
    folder: tempfile::TempDir,
    pace: Pace,
    running: Vec<Option<Running>>,
    clients: Vec<AuthorityServiceClient<Channel>>,
}

/// A free port below those that outgoing connections take: it must still be free when an authority starts again.
fn port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id() * 64;
        let port = 12_000 + (next % 16_000) as u16;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Net {
    async fn start(shards: u32, pace: Pace) -> Net {
        let (base, keys) = TestCommittee::new(4, shards).build();
        let mut authorities = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            let addresses = vec![format!("127.0.0.1:{}", port()); shards as usize];
            authorities.push(AuthorityInfo { name: format!("authority-{i}"), key: key.public(), addresses });
        }
        let committee = Arc::new(Committee::new(base.epoch, shards, base.network.clone(), authorities).unwrap());
        let connect = |a: &AuthorityInfo| connect_lazy(&a.addresses[0], *a.key.as_bytes(), None, Limits::default());
        let clients = committee.authorities.iter().map(|a| AuthorityServiceClient::new(connect(a))).collect();
        let folder = tempfile::TempDir::new().unwrap();
        let mut net = Net { committee, folder, pace, running: Vec::new(), clients };
        for i in 0..4 {
            make_data(&net.data(i)).unwrap();
            net.running.push(None);
            net.run(i).await;
        }
        net
    }

    fn data(&self, i: usize) -> PathBuf {
        Path::join(self.folder.path(), format!("authority-{i}"))
    }

    fn config(&self, i: usize) -> Config {
        Config {
            committee: self.committee.clone(),
            index: i as u32,
            seed: Zeroizing::new(seed("authority", i as u64)),
            data: self.data(i),
            genesis: None,
            http: None,
            bind: None,
            accounts_bytes: 64 << 20,
            pace: self.pace,
        }
    }

    async fn run(&mut self, i: usize) {
        let config = self.config(i);
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = oneshot::channel();
        let stopped = async { stopped.await.unwrap_or(()) };
        let task = tokio::spawn(async move { node::run(config, &[], || ready.send(()).unwrap(), stopped).await });
        if is_ready.await.is_err() {
            panic!("authority {i} does not start: {:?}", task.await);
        }
        self.running[i] = Some((stop, task));
    }

    async fn stop(&mut self, i: usize) {
        if let Some((stop, task)) = self.running[i].take() {
            stop.send(()).unwrap();
            task.await.unwrap().unwrap();
        }
    }

    fn up(&self) -> Vec<usize> {
        (0..4).filter(|i| self.running[*i].is_some()).collect()
    }

    /// Votes, certifies and settles orders of one shard at all authorities that run.
    async fn settle(&mut self, shard: u32, orders: &[Bytes]) {
        let mut votes = Vec::new();
        let deadline = Instant::now() + DEADLINE;
        for i in self.up() {
            loop {
                let request = wire::VoteRequest { shard, orders: orders.to_vec() };
                let reply = self.clients[i].vote(request).await.unwrap().into_inner();
                if reply.errors.is_empty() {
                    votes.extend(reply.vote);
                    break;
                }
                assert!(Instant::now() < deadline, "{:?}", reply.errors);
                tokio::time::sleep(POLL).await;
            }
        }
        let id = decode_batch(orders).unwrap().id;
        let (epoch, root) = (self.committee.epoch, Bytes::copy_from_slice(&id.root));
        let certificate = wire::Certificate { epoch, root, count: id.count as u32, votes };
        for i in self.up() {
            let request = wire::SettleRequest {
                shard,
                certificate: Some(certificate.clone()),
                orders: orders.to_vec(),
                shares: false,
            };
            self.clients[i].settle(request).await.unwrap();
        }
    }

    /// Runs a signer's newest order; what became of it, by authority that runs.
    async fn run_order(&mut self, signer: &Signer, order: Bytes) -> Vec<wire::OrderStatus> {
        self.settle(signer.address.shard(self.committee.shards), &[order]).await;
        let mut statuses = Vec::new();
        for i in self.up() {
            statuses.push(self.decided(i, signer).await);
        }
        statuses
    }

    /// Waits until an authority says what became of a signer's newest order.
    async fn decided(&mut self, i: usize, signer: &Signer) -> wire::OrderStatus {
        let (network_id, actor) = (signer.network_id, signer.actor());
        let request = wire::OrderStatusRequest { network_id, actor, seqnum: signer.seqnum, ..Default::default() };
        let mut stream = self.clients[i].watch_order(request.clone()).await.unwrap().into_inner();
        let last = async {
            let mut last = None;
            while let Some(status) = stream.message().await.unwrap() {
                last = Some(status);
            }
            last.unwrap()
        };
        match tokio::time::timeout(DEADLINE, last).await {
            Ok(status) => status,
            Err(_) => {
                let status = self.clients[i].order_status(request.clone()).await;
                let log = self.clients[i].log(wire::LogStatusRequest {}).await;
                panic!("authority {i} does not decide: {status:?} {log:?}")
            }
        }
    }

    async fn balance(&mut self, i: usize, signer: &Signer, expected: i128) {
        let address = bytes(signer);
        let request = wire::AccountRequest { network_id: signer.network_id, address };
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found = self.clients[i].account(request.clone()).await.unwrap().into_inner().balance;
            if found == expected.to_string() {
                return;
            }
            assert!(Instant::now() < deadline, "authority {i}: expected {expected}, found {found}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until all logs are equal, and nothing waits for them.
    async fn level(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut logs = Vec::new();
            for i in self.up() {
                let log = self.clients[i].log(wire::LogStatusRequest {}).await.unwrap().into_inner();
                // Only a rebuilt one may stand aside for some sessions.
                assert!(log.fault.is_empty() || log.fault.contains("goes on without"), "{}", log.fault);
                logs.push((log.session, log.units, log.state_hash, log.queued));
            }
            if logs.iter().all(|l| *l == logs[0] && l.3 == 0) {
                return;
            }
            assert!(Instant::now() < deadline, "{logs:?}");
            tokio::time::sleep(POLL).await;
        }
    }
}

fn bytes(of: &Signer) -> Bytes {
    Bytes::copy_from_slice(of.address.as_bytes())
}

fn fund(amount: u64, sender: &Signer, receiver: &Signer) -> output::Kind {
    output::Kind::ContractFund(wire::ContractFund {
        amount,
        hash: hex::decode(HASH).unwrap().into(),
        expiry_ms: u64::MAX,
        receiver: bytes(receiver),
        sender: bytes(sender),
    })
}

fn all_ordered(statuses: &[wire::OrderStatus]) {
    assert!(statuses.iter().all(|s| *s == statuses[0] && s.state() == S::Ordered), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_orders_settle_the_same_everywhere_through_restarts() {
    let mut net = Net::start(2, Pace::default()).await;
    let (mut issuer, mut alice, mut bob) = (TestCommittee::issuer(), Signer::new(1), Signer::new(2));
    let order = issuer.pay(&[to(alice.address, 1_000), to(bob.address, 1_000)], "");
    net.settle(issuer.address.shard(2), &[order]).await;
    for i in 0..4 {
        net.balance(i, &alice, 1_000).await;
        net.balance(i, &bob, 1_000).await;
    }
    let order = alice.call(vec![], vec![fund(300, &alice.clone(), &bob)]);
    let contract = contract_id(&Order::decode(order.clone()).unwrap().id, 0);
    all_ordered(&net.run_order(&alice, order).await);

    // One is away while the contract is claimed, and comes back.
    net.stop(3).await;
    let (contract, preimage) = (Bytes::copy_from_slice(&contract), Bytes::from_static(b"secret"));
    let claim = wire::input::Kind::ContractClaim(wire::ContractClaim { contract, preimage });
    let claim = wire::Input { amount: 300, kind: Some(claim) };
    let credit = output::Kind::Credit(wire::Credit { address: bytes(&bob), amount: 300 });
    let order = bob.call(vec![claim], vec![credit]);
    let claimed = net.run_order(&bob, order).await;
    all_ordered(&claimed);
    net.run(3).await;
    assert_eq!(net.decided(3, &bob).await, claimed[0]);
    for i in 0..4 {
        net.balance(i, &alice, 700).await;
        net.balance(i, &bob, 1_300).await;
    }

    // All restart, and go on.
    for i in 0..4 {
        net.stop(i).await;
    }
    for i in 0..4 {
        net.run(i).await;
    }
    let order = alice.call(vec![], vec![fund(100, &alice.clone(), &bob)]);
    all_ordered(&net.run_order(&alice, order).await);
    net.level().await;
    for i in 0..4 {
        net.balance(i, &alice, 600).await;
        net.stop(i).await;
    }
}

/// Sessions that last a second or so.
const QUICK: Pace = Pace { busy: Duration::from_millis(2), idle: Duration::from_millis(2) };

impl Net {
    /// Waits until an authority's log is in a later session than this, with as many signed.
    async fn session_after(&mut self, i: usize, session: u64) -> u64 {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let log = self.clients[i].log(wire::LogStatusRequest {}).await.unwrap().into_inner();
            if log.session > session && log.signed_sessions > session {
                return log.session;
            }
            assert!(Instant::now() < deadline, "authority {i} stays in session {}: {}", log.session, log.fault);
            tokio::time::sleep(POLL).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_was_away_for_sessions_or_lost_its_disk_takes_the_signed_ones() {
    let mut net = Net::start(1, QUICK).await;
    let (mut issuer, mut alice, bob) = (TestCommittee::issuer(), Signer::new(1), Signer::new(2));
    let order = issuer.pay(&[to(alice.address, 1_000)], "");
    net.settle(0, &[order]).await;
    net.balance(0, &alice, 1_000).await;
    net.stop(3).await;
    let mut session = 0;
    for _ in 0..3 {
        let order = alice.call(vec![], vec![fund(10, &alice.clone(), &bob)]);
        all_ordered(&net.run_order(&alice, order).await);
        session = net.session_after(0, session).await;
    }
    // Back after three sessions; then another machine of the same authority, with its key and an empty disk.
    net.run(3).await;
    net.session_after(3, session).await;
    net.level().await;
    net.stop(3).await;
    let removed = net.data(3);
    std::fs::rename(&removed, removed.with_extension("lost")).unwrap();
    rebuild_data(&removed).unwrap();
    net.run(3).await;
    net.level().await;
    net.balance(3, &alice, 970).await;
    let order = alice.pay(&[to(bob.address, 1)], "");
    let request = wire::VoteRequest { shard: 0, orders: vec![order.clone()] };
    let refused = net.clients[3].vote(request).await.unwrap_err();
    assert_eq!(florin_rpc::errors::from_status(refused).code, florin_core::Code::NotVoting);
    // It takes part in ordering again: with another one down the log goes on only if it does.
    let deadline = Instant::now() + DEADLINE;
    while !net.data(3).join("joined-session").exists() {
        assert!(Instant::now() < deadline, "the rebuilt authority joins no session");
        tokio::time::sleep(POLL).await;
    }
    net.stop(0).await;
    let now = net.clients[1].log(wire::LogStatusRequest {}).await.unwrap().into_inner().session;
    net.session_after(3, now + 1).await;
    for i in 1..4 {
        net.stop(i).await;
    }
}
