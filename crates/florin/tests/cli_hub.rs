//! Payments over a hub as users meet them: commands, real processes that are killed, stopped and come back from old copies; and
//! strangers at the hub's port.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net;
mod town;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use florin_client::channel::{LOOK, terms};
use florin_core::Code;
use florin_core::channel::hub::introduction::{Meeting, sign};
use florin_core::channel::hub::{self, Ask, Pay, PaymentState, Step, plan, read_invoice};
use florin_core::channel::manager::EndId;
use florin_core::keys::{Curve, SecretKey};
use florin_core::wire::{
    HubBegin, HubFrame, HubMessage, HubProof, HubTermsReply, HubTermsRequest, VirtualPeer, hub_frame,
};
use florin_node::config::read_committee;
use florin_rpc::client::{self, Limits};
use florin_rpc::errors::from_status;
use florin_rpc::services::hub_service_client::HubServiceClient;
use florin_rpc::services::hub_service_server::{HubService, HubServiceServer};
use florin_rpc::{server, tls};
use net::wait;
use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use town::{Talking, Town, channel, open, text};

#[test]
fn a_payment_goes_over_a_hub_which_earns_its_fee() {
    let mut town = Town::start();
    let (mut bob, invoice) = town.request("10 --memo tea", "bob");
    assert!(text(&invoice["invoice"]).starts_with("flrinvoice1"), "{invoice}");
    // 0.01 and a thousandth.
    let dear = town.send(&invoice, "--max-fee 0.01", "alice").fails(3, "HUB_FEE");
    assert!(dear.stderr.contains("found 0.02 flr"), "{dear:?}");
    let paid = town.send(&invoice, "--max-fee 0.02", "alice").ok().json();
    assert_eq!((&paid["paid"], &paid["fee"], &paid["memo"]), (&"10.00".into(), &"0.02".into(), &"tea".into()));
    let receipt = hex::decode(text(&paid["receipt"])).unwrap();
    let hash = <sha2::Sha256 as sha2::Digest>::digest(receipt);
    assert_eq!(hex::encode(hash), text(&invoice["secret_hash"]));
    assert_eq!(bob.next()["paid"], "10.00");
    assert_eq!(bob.status(), 0);
    let passed_on = town.hub.as_mut().unwrap().until("passed on");
    assert_eq!(passed_on["fee"], "0.02");
    // While it runs.
    let status = town.hub_status();
    assert_eq!((&status["earned"]["payments"], &status["earned"]["fees"]), (&1.into(), &"0.02".into()));
    let locks = |status: &Value| -> usize {
        let all = status["channels"].as_array().unwrap().iter();
        all.map(|one| one["locks"].as_array().unwrap().len()).sum()
    };
    assert_eq!(locks(&status), 0, "{status}");
    // The same again gives the same receipt and pays nothing.
    assert_eq!(town.send(&invoice, "", "alice").ok().json()["receipt"], paid["receipt"]);

    // And back: Bob has 10, of which 4 and a fee of 0.02 go to Alice, by an invoice that names the hub.
    let (mut alice, invoice) = town.request("4", "alice");
    assert_eq!(town.send(&invoice, "", "bob").ok().json()["fee"], "0.02");
    assert_eq!(alice.next()["paid"], "4.00");
    let short = town.request("20", "alice");
    town.send(&short.1, "", "bob").fails(3, "HUB_FUNDS");
    drop(short);
    town.net.run("channel send flrinvoice1qqqq --wallet alice").fails(3, "DECODE");
    // Alice: 50 - 10.02 + 4; the hub has earned 0.04.
    town.redeemed(["43.98", "6.02", "44.02", "5.98"]);
    let permit = channel(&town.net, &format!("permit {} 5.98", town.ids[1]), "hub").ok().json();
    let line = format!("channel withdraw {} 5.98 --wallet bob --json --permit", town.ids[1]);
    town.net.run_with(&line, &[permit["permit"].as_str().unwrap()]).ok();
    town.net.wait_for_balance("bob", "5.98");
}

#[test]
fn kill_9_of_the_hub_in_the_middle_of_payments_loses_nobodys_money() {
    let mut town = Town::start();
    let mut whole = Duration::from_secs(2);
    const ROUNDS: u32 = 6;
    for round in 0..ROUNDS {
        let (mut bob, invoice) = town.request("1", "bob");
        let line = format!("channel send {} --wait 50s --wallet alice", text(&invoice["invoice"]));
        let began = Instant::now();
        let mut alice = Talking::start(&town.net, &line);
        if round > 0 {
            // From before the offer until after the last word.
            let deadline = began + whole * round / (ROUNDS - 1);
            while Instant::now() < deadline && alice.process.0.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            town.kill();
            town.up();
        }
        // Both sides connect again by themselves. Before anything was sent the command may say that nothing was: then it is sent again.
        let said = alice.next();
        if said["paid"].is_null() {
            let name = said["error"]["name"].as_str().unwrap_or_default();
            assert!(["HUB_OFFLINE", "UNREACHABLE"].contains(&name), "{said} {}", town.net.read("servers.log"));
            wait("the payment after the hub is back", || town.send(&invoice, "", "alice").status == 0);
        }
        assert_eq!(bob.next()["paid"], "1.00", "{}", town.net.read("servers.log"));
        assert_eq!(bob.status(), 0);
        if round == 0 {
            whole = began.elapsed();
        }
    }
    // Fee: 0.01 + 0.01 each, whatever was killed.
    assert_eq!(town.status(1, "bob")["received"], "6.00");
    town.redeemed(["43.88", "6.12", "44.00", "6.00"]);
}

#[test]
fn kill_9_of_payer_and_payee_in_the_middle_of_payments_pays_each_invoice_once() {
    let mut town = Town::start();
    const ROUNDS: u32 = 8;
    let mut whole = Duration::ZERO;
    for round in 0..=ROUNDS {
        let (bob, invoice) = town.request("1", "bob");
        let mut bob = Some(bob);
        let began = Instant::now();
        let mut alice =
            Talking::start(&town.net, &format!("channel send {} --wallet alice", text(&invoice["invoice"])));
        if round == 0 {
            assert_eq!(alice.next()["paid"], "1.00");
            whole = began.elapsed();
            continue;
        }
        let deadline = began + whole * round / ROUNDS;
        while Instant::now() < deadline && alice.process.0.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let mut watch = None;
        if round.is_multiple_of(2) {
            alice.process.kill();
        } else {
            bob.take().unwrap().process.kill();
            // His invoice can be paid as long as he is there.
            let line = format!("channel watch --wallet bob --dial {}@{}", town.ids[1], town.address);
            watch = Some(town.net.serve(&line).0);
            let _ = alice.status();
        }
        wait("the payment", || town.send(&invoice, "", "alice").status == 0);
        if let Some(watch) = watch {
            assert_eq!(watch.stop(), 0);
        }
        if let Some(mut bob) = bob {
            assert_eq!(bob.next()["paid"], "1.00");
        }
    }
    assert_eq!(town.status(1, "bob")["received"], "9.00");
    town.redeemed(["40.82", "9.18", "41.00", "9.00"]);
}

#[test]
fn many_payments_at_once_go_over_one_hub() {
    const PAYMENTS: usize = 300;
    const AT_ONCE: usize = 50;
    let mut town = Town::start();
    // Its keys are said by the first request.
    let (bob, _) = town.request("1", "bob");
    bob.process.kill();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let all_of_it = async {
        let ((alice, of_alice), (bob, of_bob)) = (open(&town.net, "alice"), open(&town.net, "bob"));
        let ends: Vec<EndId> = (town.ids.iter().zip([0, 1]))
            .map(|(id, side)| EndId { channel: hex::decode(id).unwrap().try_into().unwrap(), side })
            .collect();
        for one in [&alice, &bob] {
            one.refresh().await.unwrap();
        }
        let dialed = [alice.dial(ends[0], &town.address), bob.dial(ends[1], &town.address)];
        dialed[0].ready(&alice, net::PATIENCE).await.unwrap();
        dialed[1].ready(&bob, net::PATIENCE).await.unwrap();
        let committee = read_committee(&town.net.path("committee.toml")).unwrap();
        let (terms, ready) = terms(&town.address, committee.id(), &ends[1].channel).await.unwrap();
        assert!(ready);
        let began = Instant::now();
        let slots = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..PAYMENTS {
            let (alice, bob, ends, slots) = (alice.clone(), bob.clone(), ends.clone(), slots.clone());
            let step = Step { channel: ends[1].channel, terms };
            tasks.spawn(async move {
                let _slot = slots.acquire().await.unwrap();
                let secret = <sha2::Sha256 as sha2::Digest>::digest(number.to_be_bytes()).into();
                let ask = Ask { end: ends[1], amount: 5, secret, expires_ms: u64::MAX, memo: String::new() };
                let hub::Reply::Invoice(invoice, hash) = bob.hub(hub::Input::Ask(ask)).await.unwrap() else { panic!() };
                let now = alice.read_hub(|_, _, now| now.log_ms).await.unwrap();
                let asked = read_invoice(&invoice).unwrap();
                let route = plan(alice.config(), now, &asked, ends[0], &[step]).unwrap();
                let key = Bytes::copy_from_slice(&hash);
                let pay = hub::Input::Pay(Pay { key, invoice, route });
                let hub::Reply::Payment(payment) = alice.hub(pay).await.unwrap() else { panic!() };
                loop {
                    match alice.read_hub(move |hub, _, _| hub.payment(payment).cloned()).await.unwrap().unwrap() {
                        PaymentState::InFlight => tokio::time::sleep(LOOK).await,
                        PaymentState::Paid(shown) => return assert_eq!(shown[..], secret),
                        failed => panic!("{failed:?}"),
                    }
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let took = began.elapsed();
        eprintln!("{PAYMENTS} payments, {AT_ONCE} at once: {:.0} a second", PAYMENTS as f64 / took.as_secs_f64());
        // The last words.
        let end = ends[1];
        while bob.read_hub(|hub, _, _| hub.in_flight()).await.unwrap() != (0, 0)
            || alice.read_hub(|hub, _, _| hub.in_flight()).await.unwrap() != (0, 0)
        {
            assert!(began.elapsed() < 2 * net::PATIENCE);
            tokio::time::sleep(LOOK).await;
        }
        let received = bob.read(move |manager| manager.status(&end)).await.unwrap().unwrap().received;
        assert_eq!(received, 5 * PAYMENTS as u64);
        for one in dialed {
            one.finish().await;
        }
        drop((alice, bob));
        (of_alice, of_bob)
    };
    let (of_alice, of_bob) = runtime.block_on(all_of_it);
    of_alice.join().unwrap();
    of_bob.join().unwrap();
    drop(runtime);
    // 0.05 and 0.02 each: 0.01, and a thousandth of 0.05 is rounded up.
    let earned = town.hub_status()["earned"].clone();
    assert_eq!((&earned["payments"], &earned["fees"]), (&PAYMENTS.into(), &"6.00".into()));
    town.redeemed(["29.00", "21.00", "35.00", "15.00"]);
}

#[test]
fn a_payee_that_is_away_costs_the_payer_nothing() {
    let mut town = Town::start();
    let before = town.status(0, "alice")["available"].clone();
    let (bob, invoice) = town.request("5", "bob");
    bob.process.kill();
    // The hub knows that he is away before anything is locked.
    wait("the hub to see it", || town.send(&invoice, "", "alice").stderr.contains("HUB_OFFLINE"));
    assert_eq!(town.status(0, "alice")["available"], before);

    // He is there and does not answer: the money is locked.
    let (bob, invoice) = town.request("5 --expires 10s", "bob");
    bob.signal(Signal::STOP);
    town.send(&invoice, "--wait 3s", "alice").fails(4, "TIMEOUT");
    let status = town.status(0, "alice");
    assert_eq!((&status["locked"], &status["available"]), (&"5.02".into(), &"44.98".into()));
    assert_eq!(
        town.hub_status()["channels"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["locks"][0]["amount"].is_string())
            .count(),
        2
    );
    bob.process.kill();
    town.pass_time(&invoice);
    // When he is back the invoice is over: he gives the lock back, and so does the hub.
    let (watch, _) = town.net.serve(&format!("channel watch --wallet bob --dial {}@{}", town.ids[1], town.address));
    let over = town.send(&invoice, "", "alice");
    // What the payee has said is lost if the payer was not connected then.
    let said = ["INVOICE_OVER", "LOCK_OVER"].iter().any(|code| over.stderr.contains(code));
    assert!(over.status == 3 && said, "{over:?}");
    let status = town.status(0, "alice");
    assert_eq!((&status["locked"], &status["available"]), (&"0.00".into(), &before));
    assert_eq!(watch.stop(), 0);
    // Nobody pays, and it ends by itself.
    let (mut bob, invoice) = town.request("5 --expires 1s", "bob");
    town.pass_time(&invoice);
    assert_eq!(bob.next()["error"]["name"], "INVOICE_OVER");
    assert_eq!(bob.status(), 3);
    town.redeemed(["50.00", "0.00", "50.00", "0.00"]);
}

#[test]
fn an_old_copy_of_a_journal_is_refused_when_vouchers_are_compared() {
    let mut town = Town::start();
    let pay = |town: &Town| {
        let (mut bob, invoice) = town.request("1", "bob");
        town.send(&invoice, "", "alice").ok();
        assert_eq!(bob.next()["paid"], "1.00");
    };
    pay(&town);
    town.stop();
    for wallet in ["hub", "alice"] {
        std::fs::copy(town.net.path(&format!("{wallet}.channels")), town.net.path(&format!("{wallet}.old"))).unwrap();
    }
    town.up();
    pay(&town);
    // The payer's.
    let newest = std::fs::read(town.net.path("alice.channels")).unwrap();
    std::fs::copy(town.net.path("alice.old"), town.net.path("alice.channels")).unwrap();
    let (bob, invoice) = town.request("1", "bob");
    town.send(&invoice, "", "alice").fails(3, "HUB_DIVERGED");
    channel(&town.net, &format!("pay {} 1", town.ids[0]), "alice").fails(3, "HUB_DIVERGED");
    bob.process.kill();
    std::fs::write(town.net.path("alice.channels"), newest).unwrap();
    // The hub's.
    town.stop();
    std::fs::copy(town.net.path("hub.old"), town.net.path("hub.channels")).unwrap();
    town.up();
    let (watch, _) = town.net.serve(&format!("channel watch --wallet bob --dial {}@{}", town.ids[1], town.address));
    let diverged = town.hub.as_mut().unwrap().until("diverged");
    assert_eq!(diverged["channel"], town.ids[1].as_str());
    let all = town.hub_status();
    let of_bob = all["channels"].as_array().unwrap().iter().find(|one| one["channel"] == town.ids[1].as_str());
    assert_eq!(of_bob.unwrap()["diverged"], true);
    assert_eq!(watch.stop(), 0);
    // Nothing is sent to Bob over it, and he has all that he was paid.
    town.send(&invoice, "", "alice").fails(3, "HUB_OFFLINE");
    channel(&town.net, &format!("submit {}", town.ids[1]), "bob").ok();
    assert_eq!(channel(&town.net, &format!("status {}", town.ids[1]), "bob").ok().json()["confirmed"], "2.00");
}

fn frame(kind: hub_frame::Kind) -> HubFrame {
    HubFrame { kind: Some(kind) }
}

async fn connect(address: &str) -> (HubServiceClient<tonic::transport::Channel>, [u8; 32]) {
    let key = client::server_key(address, Limits::default()).await.unwrap();
    (HubServiceClient::new(client::connect_lazy(address, key, None, Limits::default())), key)
}

/// Says these frames, the last one made of the hub's proof, and gives the error that ends it.
async fn refused(address: &str, first: HubFrame, last: impl FnOnce([u8; 32], HubProof) -> HubFrame) -> Code {
    let (mut hub, key) = connect(address).await;
    let (out, frames) = mpsc::channel(4);
    out.send(first).await.unwrap();
    let mut said = match hub.link(ReceiverStream::new(frames)).await {
        Ok(said) => said.into_inner(),
        Err(status) => return from_status(status).code,
    };
    match said.message().await {
        Ok(Some(HubFrame { kind: Some(hub_frame::Kind::Proof(proof)) })) => {
            out.send(last(key, proof)).await.unwrap();
            match said.message().await {
                Err(status) => from_status(status).code,
                Ok(more) => panic!("{more:?}"),
            }
        }
        Ok(other) => panic!("{other:?}"),
        Err(status) => from_status(status).code,
    }
}

#[test]
fn strangers_at_the_port_of_a_hub_get_nothing_and_disturb_nobody() {
    let mut town = Town::start();
    let (mut bob, invoice) = town.request("1", "bob");
    // Garbage, of no protocol.
    let mut garbage: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(&town.address).unwrap()).collect();
    for (i, socket) in garbage.iter_mut().enumerate() {
        let _ = socket.write_all(&vec![i as u8 ^ 0x5a; 3_000]);
    }
    let id: Bytes = hex::decode(&town.ids[0]).unwrap().into();
    let begin = |channel: &Bytes, side| {
        let nonce = Bytes::from_static(&[7; 32]);
        frame(hub_frame::Kind::Begin(HubBegin { channel: channel.clone(), side, nonce }))
    };
    let meeting = |key, proof: &HubProof| Meeting {
        channel: id[..].try_into().unwrap(),
        client_side: 0,
        server_key: key,
        client_nonce: [7; 32],
        server_nonce: proof.nonce[..].try_into().unwrap(),
    };
    let signed = |signatures| frame(hub_frame::Kind::Proof(HubProof { nonce: Bytes::new(), signatures }));
    let message = frame(hub_frame::Kind::Message(HubMessage { channel: id.clone(), kind: None }));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let at = &town.address;
        let never = |_: [u8; 32], _: HubProof| panic!("it has introduced itself");
        assert_eq!(refused(at, begin(&Bytes::from_static(&[9; 32]), 0), never).await, Code::UnknownChannel);
        assert_eq!(refused(at, begin(&id, 7), never).await, Code::BadContent);
        assert_eq!(refused(at, begin(&Bytes::from_static(b"short"), 0), never).await, Code::BadContent);
        assert_eq!(refused(at, message.clone(), never).await, Code::BadContent);
        assert_eq!(refused(at, begin(&Bytes::from(vec![0; 100_000]), 0), never).await, Code::Limit);
        // The hub is not on the other side of its own end.
        assert_eq!(refused(at, begin(&id, 1), never).await, Code::UnknownChannel);
        // Messages without a proof, a stranger's signature, none, and the hub's own, back.
        assert_eq!(refused(at, begin(&id, 0), |_, _| message.clone()).await, Code::BadContent);
        let stranger = SecretKey::from_seed(Curve::Ed25519, [3; 32]).unwrap();
        let by_stranger = |key, proof: HubProof| signed(sign(&meeting(key, &proof).introduction(true), &[&stranger]));
        assert_eq!(refused(at, begin(&id, 0), by_stranger).await, Code::HubProof);
        assert_eq!(refused(at, begin(&id, 0), |_, _| signed(Vec::new())).await, Code::HubProof);
        assert_eq!(refused(at, begin(&id, 0), |_, proof| signed(proof.signatures)).await, Code::HubProof);
    });
    // Somebody in between, who passes on all that both sides say.
    let (between, stop) = runtime.block_on(Between::start(&town.address));
    let caught = town.send(&invoice, &format!("--hub {between}"), "alice").fails(3, "HUB_PROOF");
    assert!(caught.stderr.contains("has not proved to be side 1"), "{caught:?}");
    drop(stop);
    // Nobody was disturbed.
    town.send(&invoice, "", "alice").ok();
    assert_eq!(bob.next()["paid"], "1.00");
    for socket in &mut garbage {
        socket.set_read_timeout(Some(net::PATIENCE)).unwrap();
        // Closed at once or after the time that a handshake has.
        let _ = socket.read_to_end(&mut Vec::new());
    }
    town.redeemed(["48.98", "1.02", "49.00", "1.00"]);
}

/// A hub that asks the real one.
struct Between(String);

type Reply<T> = Result<Response<T>, Status>;

impl Between {
    async fn start(hub: &str) -> (String, tokio::sync::oneshot::Sender<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let routes = tonic::service::Routes::new(HubServiceServer::new(Between(hub.to_owned())));
        let tls = Some(tls::server_config(&[8; 32]).unwrap());
        let limits = server::Limits::default();
        tokio::spawn(server::serve(listener, tls, routes, limits, async {
            let _ = stopped.await;
        }));
        (address, stop)
    }
}

#[tonic::async_trait]
impl HubService for Between {
    async fn terms(&self, request: Request<HubTermsRequest>) -> Reply<HubTermsReply> {
        connect(&self.0).await.0.terms(request.into_inner()).await
    }

    async fn peer(&self, request: Request<VirtualPeer>) -> Reply<VirtualPeer> {
        connect(&self.0).await.0.peer(request.into_inner()).await
    }

    type LinkStream = ReceiverStream<Result<HubFrame, Status>>;

    async fn link(&self, request: Request<Streaming<HubFrame>>) -> Reply<Self::LinkStream> {
        let (mut hub, _) = connect(&self.0).await;
        let pass = |mut from: Streaming<HubFrame>| {
            let (to, passed) = mpsc::channel(16);
            tokio::spawn(async move {
                while let Ok(Some(frame)) = from.message().await {
                    let _ = to.send(frame).await;
                }
            });
            ReceiverStream::new(passed)
        };
        let said = hub.link(pass(request.into_inner())).await?.into_inner();
        let back = tokio_stream::StreamExt::map(pass(said), Ok);
        let (to, passed) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut back = Box::pin(back);
            while let Some(frame) = tokio_stream::StreamExt::next(&mut back).await {
                let _ = to.send(frame).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(passed)))
    }
}

#[test]
fn a_route_over_two_hubs() {
    let mut town = Town::start();
    // The first hub pays into a channel with a second one, which pays Carol.
    town.stop();
    let second = town.net.funded("second", "60.00");
    let carol = town.net.wallet("carol");
    let between = text(&channel(&town.net, &format!("open 20 --to {second} --two-way"), "hub").ok().json()["channel"]);
    channel(&town.net, &format!("open 20 --to {carol} --two-way"), "second").ok();
    let mut other = Talking::start(&town.net, "hub run --wallet second --listen 127.0.0.1:0 --upfront 0.03");
    let at = text(&other.next()["ready"]);
    let line = format!("hub run --wallet hub --listen {} --dial {between}@{at}", town.address);
    let mut hub = Talking::start(&town.net, &line);
    assert!(hub.next()["ready"].is_string());
    let mut asking = Talking::start(&town.net, &format!("channel request 10 --hub {at} --wallet carol"));
    let invoice = asking.next();
    let options = format!("--hub {} --then {between}@{at}", town.address);
    wait("the hubs to be connected", || {
        let said = town.send(&invoice, &options, "alice");
        assert!(said.status == 0 || said.stderr.contains("HUB_OFFLINE"), "{said:?}");
        said.status == 0
    });
    assert_eq!(asking.next()["paid"], "10.00");
    let of = |wallet: &str| town.net.run(&format!("hub status --wallet {wallet} --json")).ok().json()["earned"].clone();
    wait("both hubs to have earned", || of("hub")["payments"] == 1 && of("second")["payments"] == 1);
    // The second: 0.01 + a thousandth of 10, and 0.03 up-front; the first a thousandth of 10.02, rounded up.
    assert_eq!((of("second")["fees"].clone(), of("second")["upfront"].clone()), ("0.02".into(), "0.03".into()));
    assert_eq!(of("hub")["fees"], "0.03");
    assert_eq!(town.status(0, "alice")["available"], "39.92");
    for one in [hub, other] {
        one.signal(Signal::TERM);
        assert_eq!(one.status(), 0);
    }
}
