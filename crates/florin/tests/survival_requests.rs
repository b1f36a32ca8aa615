//! Requests that are wrong, early, repeated, forged, damaged or no requests at all: each gets its stable code, changes
//! nothing, and the process lives.

#![allow(clippy::unwrap_used)]

mod common;
mod net;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{Local, Plan, SIZE, authority_key, authority_seed, raw, signers, turn, until};
use florin_client::network::Network;
use florin_core::Code;
use florin_core::address::Address;
use florin_core::batch::decode_batch;
use florin_core::bitmap::Bitmap;
use florin_core::certificate::{BatchId, Promise, sign};
use florin_core::committee::Committee;
use florin_core::envelope::Order;
use florin_core::limits::{CERTIFICATES_BYTES_MAX, MESSAGE_BYTES_MAX, ORDERS_PER_BATCH_MAX};
use florin_core::testing::{Signer, spoil, to};
use florin_core::wire::*;
use florin_rpc::errors::from_status;
use florin_rpc::services::authority_service_client::AuthorityServiceClient;
use florin_rpc::services::peer_service_client::PeerServiceClient;
use florin_rpc::tls;
use florin_sim::rng::Rng;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::Channel;

const START: u64 = 1_000;
const SHARDS: u32 = 2;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A committee whose accounts have money, by shard.
struct Bench {
    local: Local,
    network: Network,
    accounts: Vec<Vec<Signer>>,
}

/// What must not change.
#[derive(PartialEq, Debug)]
struct Snapshot {
    accounts: Vec<Vec<AccountReply>>,
    settled: BTreeMap<common::Part, Vec<String>>,
}

impl Bench {
    async fn start() -> Bench {
        let all = signers(SHARDS, 12);
        let genesis = all.iter().map(|s| (s.address, START)).collect();
        let plan = Plan { shards: SHARDS, genesis, split: Some(3) };
        let local = tokio::task::block_in_place(|| Local::start(plan));
        let network = local.network();
        let first: Vec<_> = all.iter().map(|a| (a.address, i128::from(START), 0)).collect();
        local.wait_level(&network, &first).await;
        let on = |shard| all.iter().filter(|s| s.address.shard(SHARDS) == shard).cloned().collect();
        Bench { accounts: (0..SHARDS).map(on).collect(), local, network }
    }

    fn take(&mut self, shard: u32) -> Signer {
        self.accounts[shard as usize].pop().unwrap()
    }

    async fn snapshot(&self) -> Snapshot {
        let mut accounts = Vec::new();
        for signer in signers(SHARDS, 12) {
            accounts.push(self.local.accounts(&self.network, &signer.address).await.unwrap());
        }
        let settled = self.local.parts().into_iter().map(|p| (p, self.local.metric(p, "florin_orders_settled_total")));
        Snapshot { accounts, settled: settled.collect() }
    }

    #[track_caller]
    fn assert_same(&self, before: &Snapshot, after: &Snapshot) {
        for (i, (before, after)) in before.accounts.iter().zip(&after.accounts).enumerate() {
            assert_eq!(before, after, "account {i}");
        }
        assert_eq!(before.settled, after.settled);
    }

    async fn vote(&self, authority: usize, shard: u32, orders: &[Bytes]) -> Result<VoteReply, florin_core::Error> {
        let request = VoteRequest { shard, orders: orders.to_vec() };
        let reply = self.network.authority(authority, shard).vote(request).await;
        reply.map(tonic::Response::into_inner).map_err(from_status)
    }

    async fn settle(
        &self,
        authority: usize,
        certificate: Option<Certificate>,
        orders: &[Bytes],
    ) -> Result<SettleReply, florin_core::Error> {
        let request = SettleRequest { shard: 0, certificate, orders: orders.to_vec(), shares: false };
        let reply = self.network.authority(authority, 0).settle(request).await;
        reply.map(tonic::Response::into_inner).map_err(from_status)
    }
}

/// Votes of these authorities, whatever they think of it.
fn certificate(committee: &Committee, orders: &[Bytes], authorities: &[usize]) -> Certificate {
    certificate_of(Promise::Vote, committee, &decode_batch(orders).unwrap().id, authorities)
}

fn certificate_of(promise: Promise, committee: &Committee, id: &BatchId, authorities: &[usize]) -> Certificate {
    let vote = |i: &usize| sign(promise, committee, *i as u32, &authority_key(*i), id, &Bitmap::full(id.count));
    Certificate {
        epoch: committee.epoch,
        root: Bytes::copy_from_slice(&id.root),
        count: id.count as u32,
        votes: authorities.iter().map(vote).collect(),
    }
}

fn nobody() -> Address {
    Signer::new(777_777).address
}

/// Every bit of so many bytes.
fn bits(bytes: usize) -> impl Iterator<Item = (usize, u32)> {
    (0..bytes).flat_map(|at| (0..8).map(move |bit| (at, bit)))
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_get_their_code_and_change_nothing() {
    let _turn = turn().await;
    let mut bench = Bench::start().await;
    let committee = bench.local.committee.clone();

    // The same again.
    let mut ann = bench.take(0);
    let first = [ann.pay(&[to(nobody(), 1)], "")];
    let vote = bench.vote(0, 0, &first).await.unwrap();
    let before = bench.snapshot().await;
    assert_eq!(bench.vote(0, 0, &first).await.unwrap(), vote);
    bench.assert_same(&before, &bench.snapshot().await);

    // Good and bad ones in one batch.
    let (mut good, mut bad) = (bench.take(0), bench.take(0));
    let mut elsewhere = bench.take(1);
    let mut other_network = bench.take(0).in_network(78);
    let mut later = bench.take(0);
    later.pay(&[to(nobody(), 1)], "never sent");
    let mut poor = Signer::on_shard(0, SHARDS, 50_000);
    let batch = [
        spoil(&bad.pay(&[to(nobody(), 1)], "")),
        good.pay(&[to(nobody(), 2)], ""),
        elsewhere.pay(&[to(nobody(), 1)], ""),
        other_network.pay(&[to(nobody(), 1)], ""),
        later.pay(&[to(nobody(), 1)], ""),
        poor.pay(&[to(nobody(), 1)], ""),
        Bytes::from_static(b"no order"),
    ];
    let codes = [
        (0, Code::KeyMismatch),
        (2, Code::WrongShard),
        (3, Code::UnknownNetwork),
        (4, Code::BadSeq),
        (5, Code::InsufficientFunds),
        (6, Code::Decode),
    ];
    for authority in 0..SIZE {
        let reply = bench.vote(authority, 0, &batch).await.unwrap();
        let bits = Bitmap::parse(&reply.vote.unwrap().bitmap, batch.len()).unwrap();
        assert_eq!(bits.iter().collect::<Vec<_>>(), [1]);
        let found: Vec<_> = reply.errors.iter().map(|e| (e.index, Code::from_number(e.code).unwrap())).collect();
        assert_eq!(found, codes, "{:?}", reply.errors);
    }

    forged(&mut bench, &committee).await;

    // A certificate before its predecessor.
    let second = [ann.pay(&[to(nobody(), 1)], "")];
    let (one, two) = (certificate(&committee, &first, &[0, 1, 2]), certificate(&committee, &second, &[1, 2, 3]));
    let early = bench.settle(0, Some(two.clone()), &second).await.unwrap();
    assert_eq!((early.acknowledgement, early.waiting[0].next_seqnum), (None, 1));
    let done = bench.settle(0, Some(one.clone()), &first).await.unwrap();
    assert!(done.acknowledgement.is_some(), "{done:?}");
    let after = bench.local.accounts(&bench.network, &ann.address).await.unwrap();
    assert_eq!((after[0].seqnum, after[0].balance.as_str()), (2, "998"));
    // The others come by themselves.
    bench.local.wait_level(&bench.network, &[(ann.address, 998, 2)]).await;
    let before = bench.snapshot().await;
    assert_eq!(bench.settle(0, Some(one), &first).await.unwrap().acknowledgement, done.acknowledgement);
    assert!(bench.settle(0, Some(two), &[]).await.unwrap().acknowledgement.is_some());
    // More than f have signed a second order for a seqnum: evidence, and no second settlement.
    let mut twin = signers(SHARDS, 12).into_iter().find(|s| s.address == ann.address).unwrap();
    let conflict = [twin.pay(&[to(nobody(), 500)], "again")];
    let evidence = certificate(&committee, &conflict, &[0, 1, 2]);
    let error = bench.settle(0, Some(evidence), &conflict).await.unwrap_err();
    assert_eq!(error.code, Code::ConflictingCertificate, "{error}");
    bench.assert_same(&before, &bench.snapshot().await);
    bench.local.assert_alive();
    tokio::task::block_in_place(|| bench.local.audit_all());
}

/// Certificates that prove nothing.
async fn forged(bench: &mut Bench, committee: &Committee) {
    let mut account = bench.take(0);
    let orders = [account.pay(&[to(nobody(), 10)], "forged")];
    let id = decode_batch(&orders).unwrap().id;
    let good = certificate(committee, &orders, &[0, 1, 2]);
    let mut other = bench.take(0);
    let others = [other.pay(&[to(nobody(), 10)], "other")];
    let misplaced = [bench.take(1).pay(&[to(nobody(), 10)], "misplaced")];
    let mut money = committee.network.clone();
    money.issuer_limit += 1;
    let foreign = Committee::new(1, committee.shards, money, committee.authorities.clone()).unwrap();
    let changed = |change: &dyn Fn(&mut Certificate)| {
        let mut certificate = good.clone();
        change(&mut certificate);
        Some(certificate)
    };
    let two_wide = BatchId { root: id.root, count: 2 };
    let cases: Vec<(&str, Option<Certificate>, &[Bytes], Code)> = vec![
        ("2f votes", changed(&|c| c.votes.truncate(2)), &orders, Code::NoQuorum),
        ("no votes", changed(&|c| c.votes.clear()), &orders, Code::NoQuorum),
        ("a signer twice", changed(&|c| c.votes[2] = c.votes[0].clone()), &orders, Code::DuplicateSigner),
        ("another epoch", changed(&|c| c.epoch = 2), &orders, Code::WrongEpoch),
        ("another committee", Some(certificate(&foreign, &orders, &[0, 1, 2])), &orders, Code::BadVote),
        (
            "acknowledgements as votes",
            Some(certificate_of(Promise::Settled, committee, &id, &[0, 1, 2])),
            &orders,
            Code::BadVote,
        ),
        ("a signature of zeros", changed(&|c| c.votes[1].signature = vec![0; 64].into()), &orders, Code::BadVote),
        ("a short signature", changed(&|c| c.votes[1].signature = vec![0; 63].into()), &orders, Code::BadVote),
        ("another's name", changed(&|c| c.votes[1].authority = 3), &orders, Code::BadVote),
        ("nobody's name", changed(&|c| c.votes[1].authority = 4), &orders, Code::UnknownAuthority),
        ("a long bitmap", changed(&|c| c.votes[1].bitmap = vec![1, 0].into()), &orders, Code::BadBitmap),
        ("bits beyond the batch", changed(&|c| c.votes[1].bitmap = vec![3].into()), &orders, Code::BadBitmap),
        ("a short root", changed(&|c| c.root = vec![1; 31].into()), &orders, Code::Decode),
        ("no orders counted", changed(&|c| c.count = 0), &orders, Code::Limit),
        ("too many counted", changed(&|c| c.count = 4_097), &orders, Code::Limit),
        (
            "more counted than there are",
            Some(certificate_of(Promise::Vote, committee, &two_wide, &[0, 1, 2])),
            &orders,
            Code::BadRoot,
        ),
        ("other orders", Some(good.clone()), &others, Code::BadRoot),
        ("another shard's", Some(certificate(committee, &misplaced, &[0, 1, 2])), &misplaced, Code::WrongShard),
        ("no certificate", None, &orders, Code::Decode),
    ];
    let before = bench.snapshot().await;
    for (what, certificate, orders, code) in cases {
        for authority in [0, 3] {
            let result = bench.settle(authority, certificate.clone(), orders).await;
            let error = result.expect_err(what);
            assert_eq!(error.code, code, "{what}: {error}");
        }
    }
    let unknown = bench.settle(0, Some(good), &[]).await.unwrap();
    assert!(unknown.batch_missing && unknown.acknowledgement.is_none());
    bench.assert_same(&before, &bench.snapshot().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_anywhere_in_a_request_is_noticed() {
    let _turn = turn().await;
    let mut bench = Bench::start().await;
    let committee = bench.local.committee.clone();
    let channel = bench.local.channel(0, 1, None);
    let orders = vec![bench.take(1).pay(&[to(nobody(), 1)], "vote")];
    let request = VoteRequest { shard: 1, orders: orders.clone() }.encode_to_vec();
    let before = bench.snapshot().await;
    for (at, bit) in bits(request.len()) {
        let mut flipped = request.clone();
        flipped[at] ^= 1 << bit;
        match raw(&channel, "AuthorityService/Vote", flipped.into()).await {
            Ok(reply) => {
                let reply = VoteReply::decode(reply).unwrap();
                assert!(reply.vote.is_none(), "bit {bit} of byte {at}: {reply:?}");
                for e in reply.errors {
                    let code = Code::from_number(e.code).unwrap();
                    // A flipped tag may make another kind of order of it: of notes, which this committee has no keys for.
                    let expected = (100..600).contains(&(code as u32)) || code == Code::CashNotReady;
                    assert!(expected, "bit {bit} of byte {at}: {e:?}");
                }
            }
            Err(e) => {
                let expected = matches!(e.code, Code::Decode | Code::Limit | Code::NotServed);
                assert!(expected, "bit {bit} of byte {at}: {e}");
            }
        }
    }
    bench.assert_same(&before, &bench.snapshot().await);

    let orders = vec![bench.take(1).pay(&[to(nobody(), 1)], "settle")];
    let good = certificate(&committee, &orders, &[0, 1, 2]);
    let request =
        SettleRequest { shard: 1, certificate: Some(good), orders: orders.clone(), shares: false }.encode_to_vec();
    // The signature of an order is checked where it is voted for; the votes prove the body alone.
    let body = Order::decode(orders[0].clone()).unwrap().body;
    let end = request.windows(body.len()).position(|w| w == &body[..]).unwrap() + body.len();
    for (at, bit) in bits(end) {
        let mut flipped = request.clone();
        flipped[at] ^= 1 << bit;
        match raw(&channel, "AuthorityService/Settle", flipped.into()).await {
            Ok(reply) => {
                let reply = SettleReply::decode(reply).unwrap();
                let nothing = reply.acknowledgement.is_none() && reply.waiting.is_empty();
                assert!(nothing && reply.batch_missing, "bit {bit} of byte {at}: {reply:?}");
            }
            Err(e) => {
                let number = e.code as u32;
                let expected = number < 700 && e.code != Code::ConflictingCertificate || e.code == Code::NotServed;
                assert!(expected, "bit {bit} of byte {at}: {e}");
            }
        }
    }
    bench.assert_same(&before, &bench.snapshot().await);
    // As it was, it is taken.
    let reply = raw(&channel, "AuthorityService/Settle", request.into()).await.unwrap();
    assert!(SettleReply::decode(reply).unwrap().acknowledgement.is_some());
    bench.local.assert_alive();
    tokio::task::block_in_place(|| bench.local.audit_all());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_disturbs_nobody() {
    let _turn = turn().await;
    let mut bench = Bench::start().await;
    let before = bench.snapshot().await;
    let channel = bench.local.channel(3, 0, None);
    let code = |result: Result<Bytes, florin_core::Error>| result.map_err(|e| e.code);

    // Messages cut off, or of random bytes, to every method.
    let mut rng = Rng::new(5);
    let order = bench.take(0).pay(&[to(nobody(), 1)], "cut");
    let whole = VoteRequest { shard: 0, orders: vec![order] }.encode_to_vec();
    for _ in 0..40 {
        let cut = Bytes::copy_from_slice(&whole[..rng.between(1, whole.len() as u64 - 1) as usize]);
        assert_eq!(code(raw(&channel, "AuthorityService/Vote", cut).await), Err(Code::Decode));
    }
    for service in ["Authority", "Peer"] {
        for method in ["Info", "Vote", "Settle", "Account", "Order", "Credits", "Batch", "Deliver", "Nonsense"] {
            for _ in 0..6 {
                let mut bytes = Vec::new();
                (0..rng.below(4)).for_each(|_| bytes.extend(rng.bytes()));
                let result = raw(&channel, &format!("{service}Service/{method}"), bytes.into()).await;
                if let Err(e) = result {
                    assert!(!matches!(e.code, Code::Unreachable | Code::Timeout), "{service} {method}: {e}");
                }
            }
        }
    }

    // Too large, too many, too few, elsewhere.
    let vote =
        |shard, orders| raw(&channel, "AuthorityService/Vote", VoteRequest { shard, orders }.encode_to_vec().into());
    let large = Bytes::from(vec![0; MESSAGE_BYTES_MAX + CERTIFICATES_BYTES_MAX + 1]);
    assert_eq!(code(vote(0, vec![large]).await), Err(Code::Limit));
    let over = Bytes::from(vec![0; MESSAGE_BYTES_MAX / 2 + 1]);
    assert_eq!(code(vote(0, vec![over.clone(), over]).await), Err(Code::Limit));
    assert_eq!(code(vote(0, vec![Bytes::from_static(b"x"); 5_000]).await), Err(Code::Limit));
    assert_eq!(code(vote(0, Vec::new()).await), Err(Code::Limit));
    assert_eq!(code(vote(1, vec![Bytes::from_static(b"x")]).await), Err(Code::NotServed), "another process has it");
    assert_eq!(code(vote(SHARDS, vec![Bytes::from_static(b"x")]).await), Err(Code::NotServed));
    let many = VoteReply::decode(vote(0, vec![Bytes::from_static(b"x"); ORDERS_PER_BATCH_MAX]).await.unwrap()).unwrap();
    assert_eq!((many.vote, many.errors.len()), (None, ORDERS_PER_BATCH_MAX));

    tokio::task::block_in_place(|| web(&bench.local));
    strangers(&bench.local).await;
    frames(&bench.local, &mut rng).await;
    crowd(&mut bench, before).await;
    bench.local.assert_alive();
    tokio::task::block_in_place(|| bench.local.audit_all());
}

/// The pages for operators.
fn web(local: &Local) {
    for path in ["/", "/metrics/..", "/nothing", "/%00%ff"] {
        assert_eq!(local.http((0, 0), path).0, 404, "{path}");
    }
    assert!([400, 414, 431].contains(&local.http((0, 0), &format!("/{}", "x".repeat(100_000))).0));
    assert_eq!(local.http((0, 0), "/health").0, 200);
}

/// The services for peers, and who may not use them.
async fn strangers(local: &Local) {
    let outsider = [9; 32];
    let delivery = Delivery {
        from_shard: 1,
        to_shard: 0,
        sequence: 1,
        credits: vec![DeliveredCredit {
            address: Bytes::copy_from_slice(nobody().as_bytes()),
            amount: 1_000_000,
            source: Some(CreditEntry::default()),
        }],
        ..Default::default()
    };
    for own in [None, Some(&outsider)] {
        let mut peer = PeerServiceClient::new(local.channel(0, 0, own));
        let follow = peer.follow(FollowRequest { shard: 0, from: 0 }).await.map(drop).map_err(from_status);
        assert_eq!(follow.unwrap_err().code, Code::PeerRefused);
        let batch = peer
            .batch(BatchRequest { shard: 0, root: vec![0; 32].into(), ..Default::default() })
            .await
            .map_err(from_status);
        assert_eq!(batch.unwrap_err().code, Code::PeerRefused);
        let delivered = peer.deliver(delivery.clone()).await.map_err(from_status);
        assert_eq!(delivered.unwrap_err().code, Code::PeerRefused);
    }
    // Another authority may follow, and may not bring money.
    let other = authority_seed(1);
    let mut peer = PeerServiceClient::new(local.channel(0, 0, Some(&other)));
    assert!(peer.batch(BatchRequest { shard: 0, root: vec![0; 32].into(), ..Default::default() }).await.is_ok());
    let delivered = peer.deliver(delivery).await.map_err(from_status).unwrap_err();
    assert_eq!(delivered.code, Code::PeerRefused, "{delivered}");
    // Nor is a page from far beyond the end, or a root of another length, a problem.
    let mut stream = peer.follow(FollowRequest { shard: 0, from: u64::MAX }).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().unwrap().entries.is_empty());
    let _ = peer.batch(BatchRequest { shard: 0, root: vec![0; 3].into(), ..Default::default() }).await;
    let _ = peer.follow(FollowRequest { shard: 1_000, from: 0 }).await.unwrap_err();
}

async fn connect(local: &Local) -> TlsStream<TcpStream> {
    let info = &local.committee.authorities[0];
    let socket = TcpStream::connect(&info.addresses[0]).await.unwrap();
    let connector = TlsConnector::from(tls::client_config(*info.key.as_bytes(), None));
    connector.connect(ServerName::try_from("florin").unwrap(), socket).await.unwrap()
}

/// Random bytes: before TLS, instead of HTTP/2, and as frames of HTTP/2.
async fn frames(local: &Local, rng: &mut Rng) {
    let mut noise = |blocks: u64| (0..blocks).flat_map(|_| rng.bytes()).collect::<Vec<u8>>();
    for round in 0..60_u8 {
        let bytes = noise(1 + u64::from(round) * 4);
        if round % 3 == 0 {
            let mut socket = TcpStream::connect(&local.committee.authorities[0].addresses[0]).await.unwrap();
            let _ = socket.write_all(&bytes).await;
            continue;
        }
        let mut socket = connect(local).await;
        if round % 3 == 1 {
            let _ = socket.write_all(&bytes).await;
            continue;
        }
        let _ = socket.write_all(PREFACE).await;
        // A frame of each type in turn, random inside.
        let length = bytes.len().min(16_000) as u32;
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend([round / 3 % 12, bytes[0], 0, 0, 0, round & 1]);
        frame.extend(&bytes[..length as usize]);
        let _ = socket.write_all(&frame).await;
        let _ = socket.flush().await;
        let mut answer = [0; 64];
        let _ = tokio::time::timeout(std::time::Duration::from_millis(20), socket.read(&mut answer)).await;
    }
}

/// Hundreds of connections that say nothing, and payments beside them.
async fn crowd(bench: &mut Bench, before: Snapshot) {
    let mut open: Vec<TlsStream<TcpStream>> = Vec::new();
    let mut dumb: Vec<TcpStream> = Vec::new();
    let address = bench.local.committee.authorities[0].addresses[0].clone();
    for _ in 0..150 {
        let mut socket = connect(&bench.local).await;
        socket.write_all(PREFACE).await.unwrap();
        open.push(socket);
        dumb.push(TcpStream::connect(&address).await.unwrap());
    }
    bench.assert_same(&before, &bench.snapshot().await);
    let mut account = bench.take(0);
    for _ in 0..5 {
        let order = account.pay(&[to(nobody(), 1)], "");
        let outcome = bench.local.network().submit(0, vec![order], |_| ()).await.unwrap().outcomes.remove(0);
        outcome.unwrap();
    }
    let channel: Channel = bench.local.channel(0, 0, None);
    until("the crowded authority to answer", || async {
        AuthorityServiceClient::new(channel.clone()).info(InfoRequest {}).await.is_ok()
    })
    .await;
    bench.local.wait_level(&bench.network, &[(account.address, i128::from(START) - 5, 5)]).await;
}
