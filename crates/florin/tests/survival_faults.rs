//! One authority of four in every bad state, two of them at once, and wallets that sign two orders for one seqnum.

#![allow(clippy::unwrap_used)]

mod common;
mod net;

use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::{CURRENCY, Local, OFFLINE, Plan, SIZE, authority_key, authority_seed, blocking_turn, signers, turn};
use florin_core::address::Address;
use florin_core::batch::decode_batch;
use florin_core::bitmap::Bitmap;
use florin_core::certificate::{BatchId, Promise, sign};
use florin_core::committee::Committee;
use florin_core::envelope::Order;
use florin_core::testing::{Signer, to};
use florin_core::wire::*;
use florin_core::{Code, Error};
use florin_rpc::errors::to_status;
use florin_rpc::server::{self, serve};
use florin_rpc::services::authority_service_server::{AuthorityService, AuthorityServiceServer};
use florin_rpc::tls;
use florin_sim::rng::Rng;
use net::{Folder, Said, wait};
use rustix::process::Signal;
use tonic::{Request, Response, Status};

/// The one that is in a bad state.
const BAD: usize = 3;

/// A committee, alice with 1,000.00 and bob with nothing.
fn alice_and_bob() -> (Local, String) {
    let folder = Folder::new();
    let address = |name: &str| {
        folder.run(&format!("wallet new --wallet {name} {OFFLINE}")).ok();
        folder.run(&format!("wallet address --wallet {name}")).ok().line()
    };
    let (alice, bob) = (address("alice"), address("bob"));
    let genesis = vec![(Address::from_text(&alice, CURRENCY).unwrap(), 100_000)];
    let mut local = Local::create(folder, Plan { genesis, ..Plan::default() });
    local.up_all();
    wait("the genesis file", || balance(&local, "alice").as_deref() == Some("1000.00"));
    (local, bob)
}

fn balance(local: &Local, wallet: &str) -> Option<String> {
    let said = local.run(&format!("wallet balance --json --wallet {wallet}"));
    let value: serde_json::Value = serde_json::from_str(&said.stdout).ok()?;
    Some(value["balance"].as_str()?.to_owned())
}

/// Pays 1.00; everything that was heard of any authority is on stderr.
fn pay(local: &Local, to: &str) -> Said {
    local.run(&format!("wallet pay --verbose --wallet alice {to} 1")).ok()
}

/// A line of stderr that says something bad of an authority.
#[track_caller]
fn blames(said: &Said, authority: usize, words: &str) {
    let name = format!("authority-{}", authority + 1);
    let blamed = said.stderr.lines().any(|line| line.starts_with(&format!("{name} ")) && line.contains(words));
    assert!(blamed, "expected {words:?} of {name} in {}", said.stderr);
}

#[test]
fn payments_go_on_whatever_one_authority_does() {
    let _turn = blocking_turn();
    let (mut local, bob) = alice_and_bob();
    let address = local.committee.authorities[BAD].addresses[0].clone();

    local.kill((BAD, 0));
    blames(&pay(&local, &bob), BAD, "");
    // Something listens in its place and never says a word.
    let silent = TcpListener::bind(&address).unwrap();
    blames(&pay(&local, &bob), BAD, "");
    drop(silent);
    garbage(&local, &address, &bob);
    // Stopped: the kernel still accepts connections for it.
    local.up((BAD, 0));
    local.signal((BAD, 0), Signal::STOP);
    blames(&pay(&local, &bob), BAD, "");
    // Slow: it runs a little now and then.
    slow(&local, &bob);
    wait("bob to have all", || balance(&local, "bob").as_deref() == Some("7.00"));
    // It is level without any help.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let expected = [(Address::from_text(&bob, CURRENCY).unwrap(), 700, 0)];
    runtime.block_on(async { local.wait_level(&local.network(), &expected).await });
    local.assert_alive();
    local.audit_all();
}

/// A server that answers everything with bytes that are no TLS.
fn garbage(local: &Local, address: &str, bob: &str) {
    let listener = TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((mut socket, _)) => drop(socket.write_all(&[0x5a; 4_096])),
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        // Stopped here, so that a failed assertion ends the scope too.
        let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pay(local, bob)));
        stop.store(true, Ordering::Relaxed);
        blames(&said.unwrap(), BAD, "");
    });
}

fn slow(local: &Local, bob: &str) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                local.signal((BAD, 0), Signal::CONT);
                std::thread::sleep(Duration::from_millis(2));
                local.signal((BAD, 0), Signal::STOP);
                std::thread::sleep(Duration::from_millis(60));
            }
            local.signal((BAD, 0), Signal::CONT);
        });
        let paid = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..3 {
                let said = pay(local, bob);
                assert!(said.stderr.contains(&format!("authority-{}", BAD + 1)), "{}", said.stderr);
            }
        }));
        stop.store(true, Ordering::Relaxed);
        paid.unwrap();
    });
}

#[test]
fn two_silent_authorities_are_named_and_nothing_is_lost() {
    let _turn = blocking_turn();
    let (mut local, bob) = alice_and_bob();
    for authority in [2, 3] {
        local.signal((authority, 0), Signal::STOP);
    }
    let pay = format!("wallet pay --wallet alice --timeout 2s {bob} 10");
    let said = local.run(&pay).fails(4, "QUORUM_UNREACHABLE");
    let error = said.stderr.lines().find(|line| line.starts_with("error ")).unwrap();
    for (name, missing) in
        [("authority-1", false), ("authority-2", false), ("authority-3", true), ("authority-4", true)]
    {
        assert_eq!(error.contains(name), missing, "{error}");
    }
    local.run("wallet resume --wallet alice --timeout 2s").fails(4, "QUORUM_UNREACHABLE");
    local.signal((2, 0), Signal::CONT);
    let resumed = local.run("wallet resume --wallet alice --json").ok().json();
    assert_eq!(resumed["finished"][0]["seqnum"], 1);
    wait("bob to have it", || balance(&local, "bob").as_deref() == Some("10.00"));
    assert_eq!(balance(&local, "alice").as_deref(), Some("990.00"));
    local.signal((3, 0), Signal::CONT);
    local.assert_alive();
    local.audit_all();
}

/// What the authority with the real key lies about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lie {
    /// A vote with a signature that does not verify.
    Signature,
    /// A vote in another's name.
    Name,
    /// Acknowledgement bytes as a vote.
    Tag,
    /// Neither yes nor no.
    Nothing,
    /// A bitmap of another length.
    LongBitmap,
    /// Bits beyond the batch.
    WideBitmap,
    /// It refuses what is right.
    Refusal,
    /// It has a code that nobody knows, and a number of an order that is not there.
    Nonsense,
    /// It votes for what all others refuse, and settles it.
    Yes,
    /// It votes as it should, and acknowledges with a false signature.
    Acknowledgement,
    /// It votes as it should, and says for ever that it lacks the batch.
    Missing,
    /// A gRPC error with a code of Florin's.
    Status,
}

#[derive(Clone)]
struct Liar {
    committee: Arc<Committee>,
    lie: Arc<Mutex<Lie>>,
    asked: Arc<AtomicUsize>,
    settles: Arc<AtomicUsize>,
}

type Reply<T> = Result<Response<T>, Status>;

impl Liar {
    fn signed(&self, promise: Promise, id: &BatchId) -> Signed {
        sign(promise, &self.committee, BAD as u32, &authority_key(BAD), id, &Bitmap::full(id.count))
    }

    fn vote_on(&self, id: &BatchId) -> Result<VoteReply, Error> {
        let mut vote = self.signed(Promise::Vote, id);
        let mut errors = Vec::new();
        let refusal = |index, code| OrderError { index, code, message: "no".into(), pending_order: Bytes::new() };
        match *self.lie.lock().unwrap() {
            Lie::Signature => vote.signature = vec![7; 64].into(),
            Lie::Name => vote.authority = 0,
            Lie::Tag => vote = self.signed(Promise::Settled, id),
            Lie::Nothing => return Ok(VoteReply::default()),
            Lie::LongBitmap => vote.bitmap = vec![1; 600].into(),
            Lie::WideBitmap => vote.bitmap = vec![0xff].into(),
            Lie::Refusal => {
                let errors = vec![refusal(0, Code::KeyMismatch as u32)];
                return Ok(VoteReply { vote: None, errors });
            }
            Lie::Nonsense => errors = vec![refusal(77, 31_337), refusal(u32::MAX, Code::BadAmount as u32)],
            Lie::Status => return Err(Error::new(Code::ConflictingCertificate, "all is lost")),
            Lie::Yes | Lie::Acknowledgement | Lie::Missing => {}
        }
        Ok(VoteReply { vote: Some(vote), errors })
    }
}

#[tonic::async_trait]
impl AuthorityService for Liar {
    async fn info(&self, _: Request<InfoRequest>) -> Reply<InfoReply> {
        Ok(Response::new(InfoReply { authority: 99, ..Default::default() }))
    }

    async fn vote(&self, request: Request<VoteRequest>) -> Reply<VoteReply> {
        let id = decode_batch(&request.into_inner().orders).unwrap().id;
        let reply = self.vote_on(&id);
        self.asked.fetch_add(1, Ordering::SeqCst);
        reply.map(Response::new).map_err(to_status)
    }

    async fn settle(&self, request: Request<SettleRequest>) -> Reply<SettleReply> {
        let certificate = request.into_inner().certificate.unwrap();
        let root = certificate.root[..].try_into().unwrap();
        let mut signed = self.signed(Promise::Settled, &BatchId { root, count: certificate.count as usize });
        let lie = *self.lie.lock().unwrap();
        if lie == Lie::Acknowledgement {
            signed.signature = vec![7; 64].into();
        }
        self.settles.fetch_add(1, Ordering::SeqCst);
        let missing = lie == Lie::Missing;
        let acknowledgement = (!missing).then_some(signed);
        Ok(Response::new(SettleReply {
            acknowledgement,
            batch_missing: missing,
            waiting: Vec::new(),
            shares: Vec::new(),
        }))
    }

    async fn account(&self, _: Request<AccountRequest>) -> Reply<AccountReply> {
        Ok(Response::new(AccountReply { balance: "999999999999".into(), seqnum: 77, credits: 9, ..Default::default() }))
    }

    async fn order(&self, _: Request<OrderRequest>) -> Reply<OrderReply> {
        Ok(Response::new(OrderReply { state: 3, receipt: Some(Receipt::default()) }))
    }

    async fn credits(&self, _: Request<CreditsRequest>) -> Reply<CreditsReply> {
        Ok(Response::new(CreditsReply { credits: vec![CreditEntry::default(); 1_000], next: u64::MAX }))
    }

    async fn order_status(&self, _: Request<OrderStatusRequest>) -> Reply<OrderStatus> {
        Ok(Response::new(OrderStatus { state: 4, session: 99, calls: true, ..Default::default() }))
    }

    async fn networks(&self, _: Request<NetworksRequest>) -> Reply<NetworksReply> {
        Err(tonic::Status::unimplemented("no"))
    }

    async fn actor(&self, _: Request<ActorRequest>) -> Reply<ActorReply> {
        Err(tonic::Status::unimplemented("no"))
    }

    type ListenStream = tonic::codegen::BoxStream<ListenReply>;

    async fn listen(&self, _: Request<ListenRequest>) -> Reply<Self::ListenStream> {
        Err(tonic::Status::unimplemented("no"))
    }

    async fn notes(&self, _: Request<NotesRequest>) -> Reply<NotesReply> {
        Err(tonic::Status::unimplemented("no"))
    }
    async fn cash_keys(&self, _: Request<CashKeysRequest>) -> Reply<CashKeysReply> {
        Err(tonic::Status::unimplemented("no"))
    }

    async fn history(&self, _: Request<HistoryRequest>) -> Reply<HistoryReply> {
        Err(tonic::Status::unimplemented("no"))
    }

    type WatchOrderStream = tonic::codegen::BoxStream<OrderStatus>;

    async fn watch_order(&self, _: Request<OrderStatusRequest>) -> Reply<Self::WatchOrderStream> {
        Err(tonic::Status::unimplemented("no"))
    }

    async fn log(&self, _: Request<LogStatusRequest>) -> Reply<LogStatus> {
        Ok(Response::new(LogStatus { signed_sessions: u64::MAX, time_ms: u64::MAX, ..Default::default() }))
    }

    async fn sessions(&self, _: Request<SessionsRequest>) -> Reply<SessionsReply> {
        Ok(Response::new(SessionsReply { sessions: vec![SignedSession::default(); 9] }))
    }

    async fn units(&self, _: Request<UnitsRequest>) -> Reply<UnitsReply> {
        Ok(Response::new(UnitsReply { units: vec![OrderedUnit::default(); 9] }))
    }

    async fn channel(&self, _: Request<ChannelRequest>) -> Reply<ChannelReply> {
        Ok(Response::new(ChannelReply::default()))
    }

    async fn channels(&self, _: Request<ChannelsRequest>) -> Reply<ChannelsReply> {
        Ok(Response::new(ChannelsReply::default()))
    }

    async fn contract(&self, _: Request<ContractRequest>) -> Reply<ContractReply> {
        Ok(Response::new(ContractReply { state: 2, ..Default::default() }))
    }

    async fn primary(&self, _: Request<PrimaryRequest>) -> Reply<PrimaryReply> {
        Ok(Response::new(PrimaryReply { balance: u64::MAX, redeems: 9, ..Default::default() }))
    }

    async fn network(&self, _: Request<NetworkRequest>) -> Reply<NetworkReply> {
        Ok(Response::new(NetworkReply { network: Some(NetworkRecord::default()) }))
    }
}

#[test]
fn an_authority_that_lies_with_its_real_key_is_named() {
    let _turn = blocking_turn();
    let (mut local, bob) = alice_and_bob();
    local.kill((BAD, 0));
    let liar = Liar {
        committee: local.committee.clone(),
        lie: Arc::new(Mutex::new(Lie::Signature)),
        asked: Arc::default(),
        settles: Arc::default(),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind(&local.committee.authorities[BAD].addresses[0]));
    let routes = tonic::service::Routes::new(AuthorityServiceServer::new(liar.clone()));
    let config = tls::server_config(&authority_seed(BAD)).unwrap();
    let limits = server::Limits::default();
    runtime.spawn(serve(listener.unwrap(), Some(config), routes, limits, std::future::pending()));

    let mut paid = 0;
    for (lie, blamed) in [
        (Lie::Signature, "BAD_VOTE"),
        (Lie::Name, "BAD_VOTE"),
        (Lie::Tag, "BAD_VOTE"),
        (Lie::Nothing, "BAD_VOTE"),
        (Lie::LongBitmap, "BAD_BITMAP"),
        (Lie::WideBitmap, "BAD_BITMAP"),
        (Lie::Refusal, "KEY_MISMATCH"),
        (Lie::Nonsense, ""),
        (Lie::Acknowledgement, "BAD_VOTE"),
        (Lie::Missing, ""),
        (Lie::Status, "CONFLICTING_CERTIFICATE"),
    ] {
        *liar.lie.lock().unwrap() = lie;
        let late = matches!(lie, Lie::Acknowledgement | Lie::Missing);
        let (votes, settles) = (liar.asked.load(Ordering::SeqCst), liar.settles.load(Ordering::SeqCst));
        // One honest authority waits until the lie is told, so that the liar is heard before the payment is final. To
        // hear a false acknowledgement, the liar's vote is needed first.
        local.signal((0, 0), Signal::STOP);
        let said = std::thread::scope(|scope| {
            let paying = scope.spawn(|| pay(&local, &bob));
            wait("the liar to be asked", || match late {
                true => liar.settles.load(Ordering::SeqCst) > settles,
                false => liar.asked.load(Ordering::SeqCst) > votes,
            });
            local.signal((0, 0), Signal::CONT);
            paying.join().unwrap()
        });
        paid += 1;
        if !blamed.is_empty() {
            blames(&said, BAD, blamed);
        }
        wait("bob to have it", || balance(&local, "bob") == Some(format!("{paid}.00")));
    }
    // Its yes to what the others refuse makes nothing of it.
    *liar.lie.lock().unwrap() = Lie::Yes;
    local.run(&format!("wallet pay --wallet alice {bob} 5000")).fails(3, "INSUFFICIENT_FUNDS");
    // Nor is it believed when it is asked.
    let said = local.run("wallet balance --verbose --wallet alice").ok();
    assert!(said.stdout.starts_with(&format!("{}.00", 1_000 - paid)), "{said:?}");
    assert!(said.stderr.contains("authority-4 does not agree"), "{said:?}");
    local.run("wallet history --wallet bob").ok();
    local.assert_alive();
    drop(runtime);
    local.up((BAD, 0));
    local.audit_all();
}

/// Who accepts an order, and the refusals of the others.
async fn votes(local: &Local, authorities: &[usize], order: &Bytes) -> (Vec<Signed>, Vec<OrderError>) {
    let network = local.network();
    let (mut votes, mut errors) = (Vec::new(), Vec::new());
    for authority in authorities {
        let request = VoteRequest { shard: 0, orders: vec![order.clone()] };
        let reply = network.authority(*authority, 0).vote(request).await.unwrap().into_inner();
        votes.extend(reply.vote);
        errors.extend(reply.errors);
    }
    (votes, errors)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_orders_for_one_seqnum_at_most_one_is_ever_certified() {
    let _turn = turn().await;
    let accounts = signers(1, 24);
    let (mut local, payee) = tokio::task::block_in_place(|| {
        let genesis = accounts.iter().map(|s| (s.address, 1_000)).collect();
        (Local::start(Plan { genesis, ..Plan::default() }), Signer::new(9_999).address)
    });
    let network = local.network();
    let first: Vec<_> = accounts.iter().map(|a| (a.address, 1_000, 0)).collect();
    local.wait_level(&network, &first).await;
    let mut rng = Rng::new(3);
    let mut expected = Vec::new();
    for (number, account) in accounts.iter().enumerate() {
        let (mut left, mut right) = (account.clone(), account.clone());
        let orders = [left.pay(&[to(payee, 10)], "one"), right.pay(&[to(payee, 20)], "other")];
        // Each authority sees one order first: two and two, then any way.
        let side: Vec<usize> = (0..SIZE).map(|a| if number < 4 { a / 2 } else { rng.index(2) }).collect();
        let of = |wanted: usize| (0..SIZE).filter(|a| side[*a] == wanted).collect::<Vec<_>>();
        let mut count = [0, 0];
        for wanted in [0, 1] {
            let (yes, no) = votes(&local, &of(wanted), &orders[wanted]).await;
            assert!(no.is_empty(), "{no:?}");
            count[wanted] = yes.len();
        }
        if number % 6 == 0 {
            // A crash in between gives nobody a second vote.
            let victim = (rng.index(SIZE), 0);
            tokio::task::block_in_place(|| {
                local.kill(victim);
                local.up(victim);
            });
        }
        // Then each of the other order, whose body is shown in the refusal.
        for wanted in [0, 1] {
            let (yes, no) = votes(&local, &of(1 - wanted), &orders[wanted]).await;
            assert!(yes.is_empty(), "a second vote");
            let held = Order::decode(orders[1 - wanted].clone()).unwrap().body;
            for e in no {
                assert_eq!((e.code, &e.pending_order), (Code::PendingConflict as u32, &held), "{e:?}");
            }
        }
        let mut winners = Vec::new();
        for wanted in [0, 1] {
            let mut network = local.network();
            network.patience.total = Duration::from_secs(2);
            let outcome = network.submit(0, vec![orders[wanted].clone()], |_| ()).await.unwrap().outcomes.remove(0);
            match outcome {
                Ok(_) => winners.push(wanted),
                Err(e) => {
                    let settled = !winners.is_empty() && e.code == Code::BadSeq;
                    let held = Order::decode(orders[1 - wanted].clone()).unwrap().body;
                    let shown = e.code == Code::PendingConflict && e.pending_order == held;
                    assert!(settled || shown, "{e:?}");
                }
            }
        }
        let certifiable: Vec<usize> = (0..2).filter(|i| count[*i] >= 3).collect();
        assert_eq!(winners, certifiable, "{count:?}");
        let balance = 1_000 - winners.iter().map(|w| 10 + 10 * *w as i128).sum::<i128>();
        expected.push((account.address, balance, winners.len() as u32));
    }
    // Those that locked themselves keep their money, and everybody says the same.
    for (address, balance, seqnum) in expected {
        common::until("all to say the same", || async {
            let replies = local.accounts(&network, &address).await.unwrap();
            replies.iter().all(|r| r.balance == balance.to_string() && r.seqnum == seqnum)
        })
        .await;
    }
    local.assert_alive();
    tokio::task::block_in_place(|| local.audit_all());
}

#[test]
fn two_copies_of_a_wallet_at_two_halves_of_the_committee_are_shown_the_pending_order() {
    let _turn = blocking_turn();
    let (mut local, bob) = alice_and_bob();
    for name in ["alice", "alice.journal"] {
        std::fs::copy(local.path(name), local.path(&name.replace("alice", "copy"))).unwrap();
    }
    let halves = [[0, 1], [2, 3]];
    for (wallet, amount, away) in [("alice", "1", halves[1]), ("copy", "2", halves[0])] {
        away.iter().for_each(|a| local.signal((*a, 0), Signal::STOP));
        let pay = format!("wallet pay --wallet {wallet} --timeout 1s {bob} {amount}");
        local.run(&pay).fails(4, "QUORUM_UNREACHABLE");
        away.iter().for_each(|a| local.signal((*a, 0), Signal::CONT));
    }
    let said = local.run("--json wallet resume --wallet alice");
    let error = &said.json()["error"];
    assert_eq!((said.status, error["name"].as_str()), (3, Some("PENDING_CONFLICT")), "{said:?}");
    let shown = hex::decode(error["pending_order"].as_str().unwrap()).unwrap();
    assert!(!shown.is_empty(), "{said:?}");
    assert_eq!(balance(&local, "alice").as_deref(), Some("1000.00"));
    assert_eq!(balance(&local, "bob").as_deref(), Some("0.00"));
    local.assert_alive();
    local.audit_all();
}
