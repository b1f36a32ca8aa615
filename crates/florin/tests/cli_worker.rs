//! `florin worker` between wallets and real authorities, and workers that lie.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use florin_client::network::{Network, Patience};
use florin_client::receipt_file;
use florin_client::wallet::Wallet;
use florin_client::worker_client::WorkerClient;
use florin_core::Code;
use florin_core::address::Address;
use florin_core::content::Credit;
use florin_core::wire::{
    DistilReply, DistilRequest, OrderError, Outcome, Receipt, SubmitReply, SubmitRequest, VoteRequest,
};
use florin_node::config::read_committee;
use florin_rpc::server::{self, serve};
use florin_rpc::services::worker_service_server::{WorkerService, WorkerServiceServer};
use net::{Net, PATIENCE};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

const RUN: &str = "worker run --listen 127.0.0.1:0 --journal worker.journal";

fn url(ready: &str) -> String {
    ready.strip_prefix("ready ").unwrap().to_owned()
}

#[test]
fn payments_of_two_wallets_share_a_batch() {
    let net = Net::start(1);
    net.funded("alice", "5.00");
    net.funded("bob", "5.00");
    let to = net.wallet("carol");
    // The batch is full with two, and would wait for longer than the test otherwise.
    let (worker, ready) = net.serve(&format!("{RUN} --batch 2 --linger 10m"));
    let url = url(&ready);
    assert!(url.starts_with("http://127.0.0.1:"));
    std::thread::scope(|scope| {
        for wallet in ["alice", "bob"] {
            let command = format!("wallet pay --wallet {wallet} --receipt {wallet}.json --worker {url} --json {to} 1");
            let net = &net;
            scope.spawn(move || assert_eq!(net.run(&command).ok().json()["status"], "final"));
        }
    });
    let receipts = ["alice.json", "bob.json"].map(|name| receipt_file::load(&net.path(name)).unwrap());
    assert_eq!(receipts.each_ref().map(|r| r.count), [2, 2]);
    assert_eq!(receipts.each_ref().map(|r| r.index).into_iter().collect::<BTreeSet<_>>(), [0, 1].into());
    assert_eq!(receipts[0].votes, receipts[1].votes);
    net.wait_for_balance("carol", "2.00");
    assert_eq!(worker.stop(), 0);
}

#[test]
fn a_worker_killed_with_unfinished_orders_finishes_them_later() {
    let mut net = Net::start(1);
    net.funded("alice", "5.00");
    let to = net.wallet("carol");
    let (worker, ready) = net.serve(RUN);
    net.down(1);
    net.down(2);
    let pay = format!("wallet pay --wallet alice --timeout 30s --worker {} {to} 1", url(&ready));
    let said = net.run(&pay).fails(4, "QUORUM_UNREACHABLE");
    assert!(said.stderr.contains("authority-1") && said.stderr.contains("authority-2"), "{said:?}");
    worker.kill();
    // Without the worker the order is where it was.
    net.run(&format!("wallet resume --wallet alice --worker {}", url(&ready))).fails(4, "UNREACHABLE");
    net.up(1);
    net.up(2);
    let (worker, ready) = net.serve(RUN);
    // The wallet does nothing, and its payment arrives.
    net.wait_for_balance("carol", "1.00");
    // It gets its receipt whenever it asks, also from the worker.
    let done = net.run(&format!("wallet resume --wallet alice --json --worker {}", url(&ready))).ok().json();
    assert_eq!(done["finished"][0]["seqnum"], 1);
    assert_eq!(net.balance("carol"), "1.00");
    assert_eq!(worker.stop(), 0);
    assert!(net.read("servers.log").contains("stopped unfinished=0"), "{}", net.read("servers.log"));
}

#[test]
fn a_refusal_of_the_worker_is_checked_with_the_committee() {
    let net = Net::start(1);
    net.funded("alice", "5.00");
    let to = net.wallet("carol");
    let (_worker, ready) = net.serve(RUN);
    net.sign_without_looking("alice", &to, 600);
    let resume = format!("wallet resume --wallet alice --worker {}", url(&ready));
    let said = net.run(&resume).fails(3, "INSUFFICIENT_FUNDS");
    assert!(said.stderr.contains("asking the committee itself"), "{said:?}");
    assert!(said.stderr.contains("kept: it goes through when the money is there"), "{said:?}");
    let alice = net.address("alice");
    net.run(&format!("wallet pay --wallet issuer.wallet {alice} 1")).ok();
    net.wait_for_balance("alice", "6.00");
    net.run(&resume).ok();
    net.wait_for_balance("carol", "6.00");
}

#[test]
fn a_worker_with_a_key_is_known_by_it() {
    let net = Net::start(1);
    net.funded("alice", "5.00");
    let to = net.wallet("carol");
    std::fs::write(net.path("worker.key"), "11".repeat(32)).unwrap();
    let (_worker, ready) = net.serve(&format!("{RUN} --key file:worker.key"));
    let url = url(&ready);
    let key = url.strip_prefix("https://").and_then(|rest| rest.split_once('@')).unwrap().0;
    let wrong = url.replace(key, &"22".repeat(32));
    net.run(&format!("wallet pay --wallet alice --worker {wrong} {to} 1")).fails(4, "UNREACHABLE");
    let said = net.run(&format!("wallet pay --wallet alice --worker {url} {to} 1")).ok();
    assert!(said.stderr.contains("not made a second time"), "{said:?}");
    net.wait_for_balance("carol", "1.00");
    net.run("worker run --listen 0.0.0.0:0").fails(2, "BAD_CONFIG");
    net.run("worker run --listen 127.0.0.1:0 --journal other --batch 0").fails(2, "USAGE");
    net.run(RUN).fails(4, "BUSY");
}

/// A worker that answers what it was told to.
#[derive(Clone)]
struct Liar(Arc<Mutex<Option<Outcome>>>);

#[tonic::async_trait]
impl WorkerService for Liar {
    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitReply>, Status> {
        let count = request.into_inner().orders.len();
        let told = self.0.lock().unwrap().clone();
        Ok(Response::new(SubmitReply { outcomes: told.map(|o| vec![o; count]).unwrap_or_default() }))
    }

    type DistilStream = ReceiverStream<Result<DistilReply, Status>>;

    async fn distil(
        &self,
        _request: Request<Streaming<DistilRequest>>,
    ) -> Result<Response<Self::DistilStream>, Status> {
        Err(Status::unimplemented("no wallet here has a BLS key"))
    }
}

#[test]
fn a_lying_worker_is_not_believed() {
    let net = Net::start(1);
    net.funded("alice", "5.00");
    let to = net.wallet("carol");
    net.run(&format!("wallet pay --wallet alice --receipt old.json {to} 1")).ok();
    let old = receipt_file::load(&net.path("old.json")).unwrap();
    let forged = Receipt { transaction: Bytes::from_static(b"nothing"), ..old.clone() };
    let receipt = |receipt| Outcome { receipt: Some(receipt), error: None };
    let error = |code, message: &str| Outcome {
        receipt: None,
        error: Some(OrderError { index: 0, code, message: message.into(), pending_order: Bytes::new() }),
    };

    let liar = Liar(Arc::default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = tonic::service::Routes::new(WorkerServiceServer::new(liar.clone()));
    runtime.spawn(serve(listener, None, routes, server::Limits::default(), std::future::pending()));

    let pay = format!("wallet pay --wallet alice --worker {url} {to} 2");
    for (told, status, code) in [
        // A good receipt, of another payment.
        (Some(receipt(old)), 3, "BAD_PROOF"),
        (Some(receipt(forged)), 3, "DECODE"),
        (None, 3, "expected 1, found 0"),
        (Some(error(802, "nobody is there")), 4, "QUORUM_UNREACHABLE"),
    ] {
        *liar.0.lock().unwrap() = told;
        let said = net.run(&pay).fails(status, code);
        assert!(said.stdout.is_empty(), "{said:?}");
        assert_eq!(net.balance("carol"), "1.00");
        let history = net.run("wallet history --wallet alice --json").ok().json();
        assert_eq!(history["payments"][0]["state"], "pending", "{history}");
        assert_eq!(history["payments"][0]["seqnum"], 2, "{history}");
    }
    // It says nothing, or no, and the committee says yes.
    *liar.0.lock().unwrap() = Some(Outcome::default());
    net.run(&pay).ok();
    net.wait_for_balance("carol", "3.00");
    *liar.0.lock().unwrap() = Some(error(403, "no money"));
    let said = net.run(&pay).ok();
    assert!(said.stderr.contains("asking the committee itself"), "{said:?}");
    net.wait_for_balance("carol", "5.00");
}

/// Hands the committee the first of two orders for its vote and keeps the votes, so that the second one can be
/// certified but not settle.
#[test]
fn an_order_that_cannot_settle_yet_spoils_no_batch_and_is_tried_again() {
    let net = Net::start(1);
    net.funded("alice", "5.00");
    net.funded("bob", "5.00");
    let to = net.wallet("carol");
    let (_worker, ready) = net.serve(&format!("{RUN} --batch 2 --linger 10m"));
    let url = url(&ready);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _guard = runtime.enter();
    let committee = Arc::new(read_committee(&net.path("committee.toml")).unwrap());
    let mut alice = Wallet::open(&net.path("alice"), committee.clone()).unwrap();
    let seed = alice.keystore().unlock("correct horse").unwrap();
    let credit = Credit { address: Address::from_text(&to, "flr").unwrap(), amount: 100 };
    let mut sign = || alice.sign_pay(&seed, 0, &[credit], "").unwrap();
    let (first, second) = (sign(), sign());
    let network = Network::new(committee, Patience::default());
    for authority in 0..4 {
        let request = VoteRequest { shard: 0, orders: vec![first.clone()] };
        let reply = runtime.block_on(network.authority(authority, 0).vote(request)).unwrap().into_inner();
        assert!(reply.vote.is_some(), "{reply:?}");
    }

    let client = WorkerClient::new(&url, PATIENCE).unwrap();
    let waiting = runtime.spawn({
        let client = client.clone();
        async move { client.submit(vec![second]).await }
    });
    net.run(&format!("wallet pay --wallet bob --worker {url} {to} 1")).ok();
    let said = runtime.block_on(waiting).unwrap().unwrap().remove(0).unwrap_err();
    assert_eq!(said.code, Code::NotFinal);
    // The second one is in the queue again; with the first one the batch is full.
    let receipt = runtime.block_on(client.submit(vec![first])).unwrap().remove(0).unwrap();
    assert_eq!(receipt.count, 2);
    net.wait_for_balance("carol", "3.00");
}
