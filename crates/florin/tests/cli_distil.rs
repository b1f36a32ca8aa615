//! Roots of batches that senders sign together: a committee of real authorities, a worker and wallets with BLS keys; and workers and
//! senders that lie.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use florin_client::network::{Network, Patience};
use florin_client::receipt_file;
use florin_client::wallet::Wallet;
use florin_client::worker_client::WorkerClient;
use florin_core::address::Address;
use florin_core::certificate::BatchId;
use florin_core::committee::Committee;
use florin_core::content::{Content, Credit, encode_pay};
use florin_core::distilled::{Proposal, check_proposal, mark_of, marked};
use florin_core::envelope::{Body, Order, encode_body, encode_envelope};
use florin_core::keys::{Curve, SecretKey};
use florin_core::merkle::{Hash, Tree};
use florin_core::wire::distil_reply::Kind as Says;
use florin_core::wire::distil_request::Kind as Said;
use florin_core::wire::{DistilReply, DistilRequest, RootProposal, RootShare, SubmitReply, SubmitRequest, VoteRequest};
use florin_core::{Code, Error, Result};
use florin_node::config::read_committee;
use florin_rpc::server::{self, serve};
use florin_rpc::services::worker_service_server::{WorkerService, WorkerServiceServer};
use net::{Net, PATIENCE};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

const RUN: &str = "worker run --listen 127.0.0.1:0 --journal worker.journal";

fn url(ready: &str) -> String {
    ready.strip_prefix("ready ").unwrap().to_owned()
}

fn committee(net: &Net) -> Arc<Committee> {
    Arc::new(read_committee(&net.path("committee.toml")).unwrap())
}

/// A wallet with money and a BLS key, and a payment of it that nobody has seen.
struct Sender {
    key: SecretKey,
    address: Address,
    envelope: Bytes,
    order: Order,
}

impl Sender {
    /// Wallets with a payment of 1.00 signed.
    fn all(net: &Net, names: &[&str], to: &str) -> Vec<Sender> {
        names.iter().map(|name| Sender::new(net, name, to)).collect()
    }

    fn new(net: &Net, name: &str, to: &str) -> Sender {
        net.funded(name, "5.00");
        net.run(&format!("wallet distil --wallet {name}")).ok();
        let mut wallet = Wallet::open(&net.path(name), committee(net)).unwrap();
        let seed = wallet.keystore().unlock("correct horse").unwrap();
        let credit = Credit { address: Address::from_text(to, "flr").unwrap(), amount: 100 };
        let envelope = wallet.sign_pay(&seed, 0, &[credit], "").unwrap();
        let (key, address) = (seed.key(Curve::Bls, 0).unwrap(), wallet.address(0).unwrap());
        let order = Order::decode(envelope.clone()).unwrap();
        Sender { key, address, envelope, order }
    }

    /// An honest answer.
    fn share(&self, committee: &Committee, proposal: &RootProposal) -> Result<RootShare> {
        let message = check_proposal(committee, &self.order.id, &Proposal::from_wire(committee, proposal)?)?;
        Ok(self.signs(&message, proposal))
    }

    fn signs(&self, message: &[u8], proposal: &RootProposal) -> RootShare {
        let signature = Bytes::copy_from_slice(&self.key.bls().unwrap().sign(message));
        RootShare { root: proposal.root.clone(), signature }
    }
}

/// The order as each authority that has it stores it.
fn stored(runtime: &tokio::runtime::Runtime, net: &Net, order: &Order) -> Vec<Order> {
    let _guard = runtime.enter();
    let network = Network::new(committee(net), Patience::default());
    let said = runtime.block_on(network.order(order.actor, order.seqnum));
    let transaction = |reply: florin_core::wire::OrderReply| reply.receipt.map(|receipt| receipt.transaction);
    said.into_iter().flatten().filter_map(transaction).map(|raw| Order::decode(raw).unwrap()).collect()
}

fn are_marked(orders: &[Order]) -> Vec<bool> {
    orders.iter().map(|order| mark_of(order).is_some()).collect()
}

#[test]
fn wallets_sign_the_root_of_their_batch_together() {
    let net = Net::start(1);
    let to = net.wallet("carol");
    let names = ["alice", "bob", "dave"];
    for name in names {
        net.funded(name, "5.00");
        let said = net.run(&format!("wallet distil --wallet {name} --json")).ok().json();
        assert_eq!((&said["bls"], &said["seqnum"]), (&true.into(), &1.into()));
        let again = net.run(&format!("wallet distil --wallet {name}")).ok();
        assert!(again.stdout.contains("already"), "{again:?}");
    }
    // The batch is full with three, and goes when all have signed; either would take longer than the test otherwise.
    let (worker, ready) = net.serve(&format!("{RUN} --batch 3 --linger 10m --sign 10m"));
    let pay = |name: &str, file: &str| {
        let more = format!("--receipt {name}.{file} --worker {}", url(&ready));
        let said = net.run(&format!("wallet pay --wallet {name} {more} {to} 1")).ok();
        assert!(said.stderr.contains("signed the root of a batch; orders in it: 3"), "{said:?}");
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for file in ["first", "second"] {
        std::thread::scope(|scope| {
            let paying = names.map(|name| scope.spawn(move || pay(name, file)));
            paying.into_iter().for_each(|paid| paid.join().unwrap());
        });
        for name in names {
            let receipt = receipt_file::load(&net.path(&format!("{name}.{file}"))).unwrap();
            assert_eq!(receipt.count, 3);
            let order = Order::decode(receipt.transaction).unwrap();
            // The wallet has its own signature in hand; what authorities keep has a mark instead.
            assert!(mark_of(&order).is_none());
            let marks = are_marked(&stored(&runtime, &net, &order));
            assert!(marks.len() >= 3 && marks.iter().all(|marked| *marked), "{marks:?}");
        }
    }
    net.wait_for_balance("carol", "6.00");
    assert_eq!(worker.stop(), 0);
    let log = net.read("servers.log");
    assert!(log.contains("the senders of a batch have signed its root orders=3 signers=3"), "{log}");
    assert!(log.contains("stopped unfinished=0 distilled=6"), "{log}");

    // The words alone know of it again, and the key can be taken away.
    let words = net.run("wallet backup --wallet alice").ok().line();
    std::fs::write(net.path("words"), words).unwrap();
    net.run("wallet import --wallet again --words-file words").ok();
    let said = net.run("wallet distil --wallet again").ok();
    assert!(said.stdout.contains("already"), "{said:?}");
    let said = net.run("wallet distil --wallet again --off --json").ok().json();
    assert_eq!((&said["bls"], &said["seqnum"]), (&false.into(), &4.into()));
    let history = net.run("wallet history --wallet again --json").ok().json();
    let kinds: Vec<&str> = (0..4).map(|i| history["payments"][i]["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["keys", "payment", "payment", "keys"], "{history}");
}

#[test]
fn who_signs_falsely_or_not_at_all_rides_along_with_its_own_signature() {
    let net = Net::start(1);
    let to = net.wallet("carol");
    let senders = Sender::all(&net, &["alice", "bob", "liar", "silent"], &to);
    let (worker, ready) = net.serve(&format!("{RUN} --batch 4 --linger 10m --sign 3s"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _guard = runtime.enter();
    let client = WorkerClient::new(&url(&ready), PATIENCE).unwrap();
    let committee = committee(&net);
    let distil = |i: usize| {
        let (sender, committee, client) = (&senders[i], &committee, &client);
        let sign = move |proposal: &RootProposal| match i {
            2 => Ok(sender.signs(b"florin-distilled-v1 but of something else", proposal)),
            3 => Err(Error::new(Code::Timeout, "silent")),
            _ => sender.share(committee, proposal),
        };
        client.distil(sender.envelope.clone(), &sender.address, sign)
    };
    let said = runtime.block_on(async { tokio::join!(distil(0), distil(1), distil(2), distil(3)) });
    for said in [said.0, said.1, said.2] {
        assert_eq!(said.unwrap().unwrap().count, 4);
    }
    assert_eq!(said.3.unwrap_err().code, Code::Timeout);
    net.wait_for_balance("carol", "4.00");
    for (i, sender) in senders.iter().enumerate() {
        let stored = stored(&runtime, &net, &sender.order);
        assert!(stored.len() >= 3);
        assert_eq!(are_marked(&stored), vec![i < 2; stored.len()], "sender {i}");
    }
    drop(senders);
    assert_eq!(worker.stop(), 0);
    let log = net.read("servers.log");
    assert!(log.contains("has signed something else than the root"), "{log}");
    assert!(log.contains("orders=4 signers=2"), "{log}");
}

/// Who has no BLS key, or a worker that asks nobody: as ever.
#[test]
fn without_a_proposal_an_order_goes_with_its_own_signature() {
    let net = Net::start(1);
    let to = net.wallet("carol");
    let alice = Sender::new(&net, "alice", &to);
    net.funded("bob", "5.00");
    let bob = net.address("bob");
    net.sign_without_looking("bob", &to, 100);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _guard = runtime.enter();
    let distil = |ready: &str, envelope: &Bytes, address: &Address| {
        let client = WorkerClient::new(&url(ready), PATIENCE).unwrap();
        let sign = |_: &RootProposal| panic!("nobody is asked");
        runtime.block_on(client.distil(envelope.clone(), address, sign)).unwrap().unwrap()
    };
    let (worker, ready) = net.serve(&format!("{RUN} --sign 0ms"));
    distil(&ready, &alice.envelope, &alice.address);
    worker.kill();
    let (_worker, ready) = net.serve(&format!("{RUN} --sign 10m"));
    let pending = Wallet::open(&net.path("bob"), committee(&net)).unwrap().account(0).pending[0].envelope.clone();
    distil(&ready, &pending, &Address::from_text(&bob, "flr").unwrap());
    // The address is not the account's.
    let order = Sender::new(&net, "dave", &to);
    distil(&ready, &order.envelope, &alice.address);
    net.wait_for_balance("carol", "3.00");
    for order in [&alice.order, &Order::decode(pending).unwrap(), &order.order] {
        assert!(are_marked(&stored(&runtime, &net, order)).iter().all(|marked| !marked));
    }
}

type Propose = fn(&Committee, &Order) -> RootProposal;

/// A worker that proposes what it was told to, and keeps what it gets signed.
#[derive(Clone)]
struct Liar {
    committee: Arc<Committee>,
    propose: Arc<Mutex<Propose>>,
    asked: Arc<AtomicUsize>,
    signed: Arc<Mutex<Vec<(Order, RootShare)>>>,
}

#[tonic::async_trait]
impl WorkerService for Liar {
    async fn submit(&self, _: Request<SubmitRequest>) -> std::result::Result<Response<SubmitReply>, Status> {
        Err(Status::unimplemented("only roots"))
    }

    type DistilStream = ReceiverStream<std::result::Result<DistilReply, Status>>;

    async fn distil(
        &self,
        request: Request<Streaming<DistilRequest>>,
    ) -> std::result::Result<Response<Self::DistilStream>, Status> {
        let mut incoming = request.into_inner();
        let Some(Said::Order(said)) = incoming.message().await?.and_then(|said| said.kind) else { panic!("an order") };
        let order = Order::decode(said.order).unwrap();
        let proposal = (self.propose.lock().unwrap())(&self.committee, &order);
        let (replies, receiver) = mpsc::channel(1);
        let liar = self.clone();
        tokio::spawn(async move {
            let _ = replies.send(Ok(DistilReply { kind: Some(Says::Proposal(proposal)) })).await;
            liar.asked.fetch_add(1, Ordering::Relaxed);
            if let Ok(Some(DistilRequest { kind: Some(Said::Share(share)) })) = incoming.message().await {
                liar.signed.lock().unwrap().push((order, share));
            }
            // It has what it wanted; there is no outcome.
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// The proposal of a batch of these ids, for the order at a place.
fn proposal(committee: &Committee, ids: &[Hash], index: usize) -> RootProposal {
    let tree = Tree::new(ids);
    let batch = BatchId { root: tree.root(), count: ids.len() };
    Proposal { batch, index, path: tree.path(index) }.to_wire(committee)
}

/// An order of the same account that its sender has never seen.
fn second(order: &Order) -> Order {
    let content = encode_pay(Content::decode(order).unwrap().credits(), "not seen", None);
    let body = encode_body(&Body {
        network_id: order.network_id,
        actor: order.actor,
        cosignors: Vec::new(),
        seqnum: order.seqnum,
        prev_hash: order.prev_hash,
        transaction_type: order.transaction_type,
        content,
    });
    Order::decode(encode_envelope(&body, &order.authorities)).unwrap()
}

#[test]
fn a_lying_worker_gets_nothing_signed() {
    let net = Net::start(1);
    let to = net.wallet("carol");
    net.funded("alice", "5.00");
    net.run("wallet distil --wallet alice").ok();
    let honest: Propose = |committee, order| proposal(committee, &[[1; 32], order.id], 1);
    let liar = Liar {
        committee: committee(&net),
        propose: Arc::new(Mutex::new(honest)),
        asked: Arc::default(),
        signed: Arc::default(),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = tonic::service::Routes::new(WorkerServiceServer::new(liar.clone()));
    runtime.spawn(serve(listener, None, routes, server::Limits::default(), std::future::pending()));

    let pay = format!("wallet pay --wallet alice --worker {url} {to} 1");
    let lies: [(Propose, &str); 6] = [
        // Another root than that of the path.
        (|c, o| RootProposal { root: vec![9; 32].into(), ..proposal(c, &[[1; 32], o.id], 1) }, "BAD_PROOF"),
        // Another order at its place.
        (|c, o| proposal(c, &[[1; 32], second(o).id], 1), "BAD_PROOF"),
        (|c, o| RootProposal { index: 0, ..proposal(c, &[[1; 32], o.id], 1) }, "BAD_PROOF"),
        (|c, o| RootProposal { count: 4_097, ..proposal(c, &[[1; 32], o.id], 1) }, "LIMIT"),
        (|c, o| RootProposal { committee_id: vec![1; 32].into(), ..proposal(c, &[o.id], 0) }, "WRONG_COMMITTEE"),
        (|c, o| RootProposal { epoch: c.epoch + 1, ..proposal(c, &[o.id], 0) }, "WRONG_EPOCH"),
    ];
    for (n, (lie, code)) in lies.into_iter().enumerate() {
        *liar.propose.lock().unwrap() = lie;
        net.run(&pay).fails(3, code);
        assert_eq!((liar.asked.load(Ordering::Relaxed), liar.signed.lock().unwrap().len()), (n + 1, 0));
        let history = net.run("wallet history --wallet alice --json").ok().json();
        assert_eq!(history["payments"][0]["state"], "pending", "{history}");
    }

    // What a sender can't see: a second order of its account under the root. It signs, and authorities take none of the two.
    *liar.propose.lock().unwrap() = |committee, order| proposal(committee, &[order.id, second(order).id], 0);
    net.run(&pay).fails(4, "the worker ends without an outcome");
    let (order, share) = liar.signed.lock().unwrap().pop().unwrap();
    let signature = share.signature[..].try_into().unwrap();
    let forged = vec![marked(&order, Some(&signature)), marked(&second(&order), None)];
    let _guard = runtime.enter();
    let network = Network::new(committee(&net), Patience::default());
    for authority in 0..4 {
        let request = VoteRequest { shard: 0, orders: forged.clone() };
        let reply = runtime.block_on(network.authority(authority, 0).vote(request)).unwrap().into_inner();
        let codes: Vec<u32> = reply.errors.iter().map(|e| e.code).collect();
        assert_eq!((reply.vote, codes), (None, vec![Code::BadAggregate as u32; 2]));
    }
    // A true root of a worker that goes away moves nothing by itself, and the payment is made once.
    *liar.propose.lock().unwrap() = honest;
    net.run(&pay).fails(4, "UNREACHABLE");
    assert_eq!(liar.signed.lock().unwrap().len(), 1);
    net.run("wallet resume --wallet alice").ok();
    net.wait_for_balance("carol", "1.00");
}
