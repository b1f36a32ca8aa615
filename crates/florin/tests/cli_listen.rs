//! `florin listen` with real authorities: to the terminal, a file, a command, a web service.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use florin_client::network::{Network, Patience};
use florin_core::envelope::{Order, encode_body, encode_envelope};
use florin_core::keys::Curve;
use florin_core::receipt::verify;
use florin_core::testing::Actor;
use florin_core::wire::*;
use florin_core::{Code, Error};
use florin_node::config::{read_committee, secret};
use florin_rpc::errors::to_status;
use florin_rpc::server::{self, serve};
use florin_rpc::services::authority_service_server::{AuthorityService, AuthorityServiceServer};
use florin_rpc::tls;
use net::{Net, PATIENCE, Process, wait};
use ring::hmac;
use serde_json::Value;
use tonic::codegen::tokio_stream;
use tonic::{Request, Response, Status};

/// A committee, and a network with actors 1, 2, 3 whose keys the test has.
struct World {
    net: Net,
    id: u64,
    actors: Vec<Actor>,
    runtime: tokio::runtime::Runtime,
    network: Network,
}

impl World {
    fn new(id: u64, flags: &str) -> World {
        let net = Net::start(2);
        net.wallet("alice");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let committee = Arc::new(read_committee(&net.path("committee.toml")).unwrap());
        let patience = Patience { total: PATIENCE, ..Patience::default() };
        let network = runtime.block_on(async { Network::new(committee, patience) });
        let mut world = World { net, id, actors: Vec::new(), runtime, network };
        world.register(id, flags);
        world
    }

    /// Registers a network with the same three actors.
    fn register(&mut self, id: u64, flags: &str) {
        self.id = id;
        self.net.run(&format!("network register {id} --wallet alice {flags}")).ok();
        let curves = [(1, Curve::K1), (2, Curve::R1), (3, Curve::Ed25519)];
        self.actors = curves.map(|(actor, curve)| Actor::new(id, actor, curve)).into();
        for actor in &self.actors {
            let permission = hex::encode(actor.permission.encode());
            self.net.run(&format!("actor register {id} --wallet alice --permission {permission}")).ok();
        }
    }

    /// Until each is final.
    fn submit(&self, orders: Vec<Bytes>) {
        let shard = self.network.committee().shard_of(self.id, 0);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let submission = self.runtime.block_on(self.network.submit(shard, orders.clone(), |_| ())).unwrap();
            let open: Vec<_> = submission.outcomes.iter().filter_map(|o| o.as_ref().err()).collect();
            if open.is_empty() {
                for receipt in submission.outcomes.into_iter().flatten() {
                    verify(self.network.committee(), &receipt).unwrap();
                }
                return;
            }
            assert!(Instant::now() < deadline, "{open:?}");
        }
    }

    /// So many transactions of each actor.
    fn load(&mut self, rounds: usize) {
        for _ in 0..rounds {
            let orders = self.actors.iter_mut().map(|a| a.order(7, b"content", &[])).collect();
            self.submit(orders);
        }
    }

    /// What a listener that stops when it has all gives as JSON.
    fn listen(&self, options: &str) -> Vec<Value> {
        let said = self.net.run(&format!("listen {} --until-level --json {options}", self.id)).ok();
        said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn lines(&self, file: &str) -> Vec<Value> {
        self.net.read(file).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn spawn(&self, options: &str, more: &[&str]) -> Process {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.net.path("listener.log")).unwrap();
        let mut command = self.net.command(&format!("listen {} {options}", self.id), more);
        Process::new(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }
}

/// (actor, seqnum) of each.
fn keys(lines: &[Value]) -> Vec<(u64, u64)> {
    let key = |line: &Value| (line["actor"].as_str().unwrap().parse().unwrap(), line["seqnum"].as_u64().unwrap());
    lines.iter().map(key).collect()
}

/// Each actor's transactions are there once, from 1 on, in their order.
#[track_caller]
fn assert_whole(lines: &[Value], each: u64) {
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for (actor, seqnum) in keys(lines) {
        let next = next.entry(actor).or_insert(1);
        assert_eq!(seqnum, *next, "of actor {actor}");
        *next += 1;
    }
    assert_eq!(next, (1..=3).map(|actor| (actor, each + 1)).collect());
}

#[test]
fn each_once_in_a_file_whatever_was_cut_off() {
    let mut world = World::new(9, "--flag raw-notify");
    world.load(3);
    let cosigned = {
        let [first, second, third] = &mut world.actors[..] else { unreachable!() };
        first.order(8, b"", &[second, third])
    };
    world.submit(vec![cosigned.clone()]);
    let printed = world.listen("--cursor terminal");
    assert_eq!(printed.len(), 10);
    let line = printed.iter().find(|line| line["transaction_type"] == 8).unwrap();
    assert_eq!((&line["network_id"], &line["actor"], &line["seqnum"]), (&"9".into(), &"1".into(), &4.into()));
    assert_eq!((&line["cosignors"], &line["content"]), (&serde_json::json!(["2", "3"]), &"".into()));
    let order = Order::decode(cosigned).unwrap();
    assert_eq!(line["order_id"], hex::encode(order.id));
    assert_eq!(line["proved_by"], "certificate");
    let transaction = Order::decode(hex::decode(line["transaction"].as_str().unwrap()).unwrap().into()).unwrap();
    assert_eq!(transaction.body, order.body);
    assert_eq!(world.listen("--cursor terminal"), [] as [Value; 0], "once");
    let people = world.net.run("listen 9 --cursor people --until-level").ok().stdout;
    assert!(people.contains("actor 1  4  type 8  with 2, 3") && people.contains(&hex::encode("content")), "{people}");

    // A file, the same way.
    assert_eq!(world.listen("--cursor cursor --out lines"), [] as [Value; 0]);
    assert_eq!(world.lines("lines").len(), 10);
    let before = std::fs::read(world.net.path("cursor")).unwrap();
    world.load(2);
    world.listen("--cursor cursor --out lines");
    let whole = world.net.read("lines");
    // As if it had crashed after the lines, and before the cursor.
    std::fs::write(world.net.path("cursor"), &before).unwrap();
    world.listen("--cursor cursor --out lines");
    assert_eq!(world.net.read("lines"), whole);
    // Or in the middle of a line; or with blocks that never reached the disk.
    for torn in [&whole[whole.len() - 90..whole.len() - 7], "\0\0\0\0\n{}\n"] {
        std::fs::write(world.net.path("cursor"), &before).unwrap();
        let kept = whole.lines().take(12).map(|line| format!("{line}\n")).collect::<String>();
        std::fs::write(world.net.path("lines"), format!("{kept}{torn}")).unwrap();
        world.listen("--cursor cursor --out lines");
        assert_eq!(world.lines("lines").len(), 16, "{torn:?}");
        let [some, all] = [world.net.read("lines"), whole.clone()].map(|text| {
            keys(&text.lines().map(|l| serde_json::from_str(l).unwrap()).collect::<Vec<_>>())
                .into_iter()
                .collect::<BTreeSet<_>>()
        });
        assert_eq!(some, all);
    }

    // What does not belong together is not mixed.
    world.net.run("listen 9 --cursor new --out lines").fails(2, "BAD_FILE");
    world.net.run("listen 9 --cursor terminal --out other").fails(2, "BAD_FILE");
    std::fs::write(world.net.path("lines"), "").unwrap();
    world.net.run("listen 9 --cursor cursor --out lines").fails(2, "BAD_FILE");
    world.net.run("listen 10 --cursor terminal").fails(3, "UNKNOWN_NETWORK");
    world.net.run("listen 10 --cursor unknown").fails(3, "UNKNOWN_NETWORK");
    world.net.run("listen 9 --cursor few --follow 1").fails(2, "USAGE");
    // From now on is what comes from now on.
    assert_eq!(world.listen("--cursor now --from now"), [] as [Value; 0]);
    world.load(1);
    let now = world.listen("--cursor now --from now");
    assert!(!now.is_empty() && now.iter().all(|line| line["transaction_type"] == 7), "{now:?}");
    assert!(keys(&now).iter().all(|(_, seqnum)| *seqnum >= 6), "{now:?}");
}

#[test]
fn one_order_for_all_and_no_numbers_at_all() {
    let mut world = World::new(9, "--flag ordered");
    world.load(4);
    let all: Vec<Value> = (2..=4)
        .map(|follow| {
            let file = format!("lines-{follow}");
            world.listen(&format!("--cursor cursor-{follow} --out {file} --follow {follow}"));
            // What is in the log may still be on its way to an authority.
            wait("all of them", || {
                world.listen(&format!("--cursor cursor-{follow} --out {file} --follow {follow}"));
                world.lines(&file).len() == 12
            });
            assert_whole(&world.lines(&file), 4);
            let place = |line: &Value| (line["position"].clone(), line["order_id"].clone());
            world.lines(&file).iter().map(|line| serde_json::json!(place(line))).collect()
        })
        .collect();
    assert!(all.iter().all(|list| *list == all[0]), "{all:#?}");

    world.register(11, "--flag skip-seq");
    // Numbers are free here, so the same content needs something to tell it apart.
    let orders: Vec<Bytes> = (0..30_u32)
        .map(|i| {
            let actor = &world.actors[i as usize % 3];
            let body = encode_body(&florin_core::envelope::Body {
                network_id: 11,
                actor: actor.permission.actor,
                content: Bytes::copy_from_slice(&i.to_be_bytes()),
                ..Default::default()
            });
            let signature = actor.keys[0].sign_body(&body);
            encode_envelope(&body, &[florin_core::envelope::Authority::of(&[signature])])
        })
        .collect();
    for some in orders.chunks(7) {
        world.submit(some.to_vec());
        world.listen("--cursor skip --out skip.lines");
    }
    wait("all of them", || {
        world.listen("--cursor skip --out skip.lines");
        world.lines("skip.lines").len() >= 30
    });
    world.submit(orders);
    world.listen("--cursor skip --out skip.lines");
    let lines = world.lines("skip.lines");
    let ids: BTreeSet<&str> = lines.iter().map(|line| line["order_id"].as_str().unwrap()).collect();
    assert_eq!((lines.len(), ids.len()), (30, 30));
}

#[test]
fn a_command_is_run_until_it_succeeds_and_never_skipped() {
    let mut world = World::new(9, "");
    world.load(1);
    // Fails twice for each, and says what it was given.
    let script = "read line; echo \"$FLORIN_ACTOR $FLORIN_SEQNUM $FLORIN_IDEMPOTENCY_KEY $line\" >> tries; \
                  test $(grep -c \"$FLORIN_IDEMPOTENCY_KEY\" tries) -ge 3";
    let listener = world.spawn("--cursor cursor --exec", &[script]);
    wait("nine tries", || world.net.read("tries").lines().count() == 9);
    assert_eq!(listener.stop(), 0);
    let said = world.net.read("listener.log");
    assert!(said.contains("was not taken: the command ended with exit status: 1; again in 200 ms"), "{said}");
    for (i, line) in world.net.read("tries").lines().enumerate() {
        let [actor, seqnum, key, json] = line.splitn(4, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let json: Value = serde_json::from_str(json).unwrap();
        assert_eq!((&json["actor"], json["seqnum"].to_string()), (&actor.into(), seqnum.to_owned()));
        assert_eq!(json["order_id"], key);
        let first = world.net.read("tries").lines().nth(i / 3 * 3).unwrap().to_owned();
        assert_eq!(line, first, "the same until it succeeds");
    }
    // Killed while a command runs: the same transaction again, with the same key. Stopped: nothing is lost.
    world.load(1);
    let slow = "echo $FLORIN_IDEMPOTENCY_KEY >> slow; test -e go || sleep 60";
    let listener = world.spawn("--cursor cursor --exec", &[slow]);
    wait("a first run", || world.net.read("slow").lines().count() == 1);
    listener.kill();
    let listener = world.spawn("--cursor cursor --exec", &[slow]);
    wait("a second run", || world.net.read("slow").lines().count() == 2);
    std::fs::write(world.net.path("go"), "").unwrap();
    listener.kill();
    let listener = world.spawn("--cursor cursor --exec", &[slow]);
    wait("all", || world.net.read("slow").lines().count() == 5);
    assert_eq!(listener.stop(), 0);
    let runs = world.net.read("slow");
    let runs: Vec<&str> = runs.lines().collect();
    assert!(runs[0] == runs[1] && runs[1] == runs[2], "{runs:?}");
    assert_eq!(runs.iter().collect::<BTreeSet<_>>().len(), 3);
}

/// What came over HTTP: connection, head, body.
type Post = (usize, String, String);

/// Answers each request with what `status` says, and remembers it.
fn web(status: impl Fn(usize) -> u16 + Send + 'static) -> (String, std::sync::mpsc::Receiver<Post>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook?a=b", listener.local_addr().unwrap());
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut count = 0;
        for (connection, socket) in listener.incoming().enumerate() {
            let mut socket = BufReader::new(socket.unwrap());
            loop {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && socket.read_line(&mut head).unwrap_or(0) > 0 {}
                let lower = head.to_lowercase();
                let Some(length) = lower.lines().find_map(|l| l.strip_prefix("content-length: ")) else { break };
                let mut body = vec![0; length.parse().unwrap()];
                socket.read_exact(&mut body).unwrap();
                let (status, close) = (status(count), count == 3);
                count += 1;
                let extra = if close { "connection: close\r\n" } else { "" };
                write!(socket.get_mut(), "HTTP/1.1 {status} X\r\ncontent-length: 2\r\n{extra}\r\nok").unwrap();
                if sender.send((connection, lower, String::from_utf8(body).unwrap())).is_err() {
                    return;
                }
                if close {
                    break;
                }
            }
        }
    });
    (url, receiver)
}

#[test]
fn a_web_service_gets_signed_posts_until_it_takes_them() {
    let mut world = World::new(9, "");
    world.load(3);
    std::fs::write(world.net.path("secret"), "a secret of some length\n").unwrap();
    let (url, posts) = web(|count| if count == 1 { 503 } else { 202 });
    world.net.run(&format!("listen 9 --cursor c --webhook {url} --webhook-secret env:NOT_SET")).fails(2, "USAGE");
    let plain = url.replace("127.0.0.1", "192.0.2.1");
    let said = world.net.run(&format!("listen 9 --cursor c --webhook {plain} --webhook-secret file:secret --out x"));
    assert_eq!(said.status, 2, "one place only: {said:?}");
    let listener = world.spawn(&format!("--cursor cursor --webhook {url} --webhook-secret file:secret"), &[]);
    let posts: Vec<Post> = (0..10).map(|_| posts.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(listener.stop(), 0);
    assert_eq!(posts[1].2, posts[2].2, "again what was not taken");
    let mut lines = Vec::new();
    for (i, (_, head, body)) in posts.iter().enumerate() {
        let header = |name: &str| {
            let found = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            found.unwrap_or_else(|| panic!("no {name}: {head}")).to_owned()
        };
        assert!(head.starts_with("post /hook?a=b http/1.1"), "{head}");
        assert_eq!(header("content-type"), "application/json");
        let value: Value = serde_json::from_str(body).unwrap();
        assert_eq!(header("idempotency-key"), value["order_id"].as_str().unwrap());
        let signature = header("florin-signature");
        let (seconds, tag) = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"a secret of some length");
        hmac::verify(&key, format!("{seconds}.{body}").as_bytes(), &hex::decode(tag).unwrap()).unwrap();
        if i != 1 {
            lines.push(value);
        }
    }
    assert_whole(&lines, 3);
    // One connection, but where the other side closed it.
    assert_eq!(posts.iter().map(|p| p.0).collect::<BTreeSet<_>>().len(), 2);
    // Nothing more is posted the next time.
    let listener = world.spawn(&format!("--cursor cursor --webhook {url} --webhook-secret file:secret"), &[]);
    world.load(1);
    drop(listener);
}

#[test]
fn authorities_that_are_away_are_told_and_replaced() {
    let mut world = World::new(9, "");
    world.load(2);
    let listener = world.spawn("--cursor cursor --out lines", &[]);
    wait("what there was", || world.lines("lines").len() == 6);
    // Whoever is away, the other three go on.
    for authority in 1..=4 {
        world.net.down(authority);
        world.load(2);
        wait("what came", || world.net.read("lines").lines().count() == 6 + 6 * authority);
        world.net.up(authority);
    }
    assert_eq!(listener.stop(), 0);
    assert_whole(&world.lines("lines"), 10);
    let said = world.net.read("listener.log");
    assert!(said.contains("can't be followed: UNREACHABLE") && said.contains("can be followed again"), "{said}");
    assert!(!said.contains("misbehaves") && !said.contains("withholds"), "{said}");
    // Without a committee it waits; what it knows is kept.
    (1..=4).for_each(|authority| world.net.down(authority));
    let listener = world.spawn("--cursor cursor --out lines", &[]);
    let new = world.spawn("--cursor other", &[]);
    wait("the listener to wait", || world.net.read("listener.log").contains("waiting for the committee"));
    (1..=4).for_each(|authority| world.net.up(authority));
    world.load(1);
    wait("what came", || world.net.read("lines").lines().count() == 33);
    assert_eq!((listener.stop(), new.stop()), (0, 0));
    assert_whole(&world.lines("lines"), 11);
}

/// What an authority says of a stream that is not so.
#[derive(Clone, Copy, PartialEq)]
enum Lie {
    /// There is nothing.
    Withhold,
    /// Another content in a certified order.
    Change,
    /// An order of actor 1 that it has no certificate of.
    Invent,
    /// What was is gone.
    Prune,
}

struct Liar {
    honest: Network,
    lie: Arc<Mutex<Lie>>,
}

fn no<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("no"))
}

#[tonic::async_trait]
impl AuthorityService for Liar {
    type ListenStream = tonic::codegen::BoxStream<ListenReply>;
    type WatchOrderStream = tonic::codegen::BoxStream<OrderStatus>;

    async fn notes(&self, _: Request<NotesRequest>) -> Result<Response<NotesReply>, Status> {
        Err(Status::unimplemented("no"))
    }

    async fn cash_keys(&self, _: Request<CashKeysRequest>) -> Result<Response<CashKeysReply>, Status> {
        Err(Status::unimplemented("no"))
    }

    async fn listen(&self, request: Request<ListenRequest>) -> Result<Response<Self::ListenStream>, Status> {
        let request = request.into_inner();
        let lie = *self.lie.lock().unwrap();
        let mut page = ListenReply { next: request.from.max(1), end: request.from.max(1), ..Default::default() };
        if lie == Lie::Prune && request.from <= 5 {
            return Err(to_status(Error::new(Code::Pruned, "gone")));
        }
        if lie == Lie::Change {
            let shard = self.honest.committee().shard_of(request.network_id, 0);
            let mut stream = self.honest.authority(0, shard).listen(request).await?.into_inner();
            page = stream.message().await?.unwrap();
            if let Some(orders) = page.batches.first_mut().and_then(|batch| batch.orders.as_mut()) {
                let mut body = orders.bodies[0].to_vec();
                *body.last_mut().unwrap() ^= 1;
                orders.bodies[0] = body.into();
            }
        }
        if lie == Lie::Invent && request.from <= 1 {
            let order = Actor::new(request.network_id, 1, Curve::K1).order(7, b"invented", &[]);
            let orders = CertifiedOrders {
                indices: vec![0],
                bodies: vec![Order::decode(order).unwrap().body],
                ..Default::default()
            };
            let batch =
                StreamBatch { positions: vec![1], times_us: vec![1], orders: Some(orders), ..Default::default() };
            page = ListenReply { batches: vec![batch], next: 2, end: 2, flags: 0 };
        }
        let stream = tokio_stream::StreamExt::chain(tokio_stream::iter([Ok(page)]), tokio_stream::pending());
        Ok(Response::new(Box::pin(stream)))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoReply>, Status> {
        no()
    }
    async fn vote(&self, _: Request<VoteRequest>) -> Result<Response<VoteReply>, Status> {
        no()
    }
    async fn settle(&self, _: Request<SettleRequest>) -> Result<Response<SettleReply>, Status> {
        no()
    }
    async fn account(&self, _: Request<AccountRequest>) -> Result<Response<AccountReply>, Status> {
        no()
    }
    async fn order(&self, _: Request<OrderRequest>) -> Result<Response<OrderReply>, Status> {
        no()
    }
    async fn credits(&self, _: Request<CreditsRequest>) -> Result<Response<CreditsReply>, Status> {
        no()
    }
    async fn order_status(&self, _: Request<OrderStatusRequest>) -> Result<Response<OrderStatus>, Status> {
        no()
    }
    async fn watch_order(&self, _: Request<OrderStatusRequest>) -> Result<Response<Self::WatchOrderStream>, Status> {
        no()
    }
    async fn log(&self, _: Request<LogStatusRequest>) -> Result<Response<LogStatus>, Status> {
        no()
    }
    async fn sessions(&self, _: Request<SessionsRequest>) -> Result<Response<SessionsReply>, Status> {
        no()
    }
    async fn units(&self, _: Request<UnitsRequest>) -> Result<Response<UnitsReply>, Status> {
        no()
    }
    async fn channel(&self, _: Request<ChannelRequest>) -> Result<Response<ChannelReply>, Status> {
        no()
    }

    async fn channels(&self, _: Request<ChannelsRequest>) -> Result<Response<ChannelsReply>, Status> {
        no()
    }

    async fn contract(&self, _: Request<ContractRequest>) -> Result<Response<ContractReply>, Status> {
        no()
    }
    async fn primary(&self, _: Request<PrimaryRequest>) -> Result<Response<PrimaryReply>, Status> {
        no()
    }
    async fn network(&self, _: Request<NetworkRequest>) -> Result<Response<NetworkReply>, Status> {
        no()
    }
    async fn networks(&self, _: Request<NetworksRequest>) -> Result<Response<NetworksReply>, Status> {
        no()
    }
    async fn actor(&self, _: Request<ActorRequest>) -> Result<Response<ActorReply>, Status> {
        no()
    }
    async fn history(&self, _: Request<HistoryRequest>) -> Result<Response<HistoryReply>, Status> {
        no()
    }
}

impl World {
    /// Takes an authority down and puts a liar with its key in its place.
    fn replace(&mut self, authority: usize) -> Arc<Mutex<Lie>> {
        self.net.down(authority);
        let key = secret(&format!("file:authority-{authority}.key"), &self.net.path("")).unwrap();
        let shard = self.network.committee().shard_of(self.id, 0) as usize;
        let address = &self.network.committee().authorities[authority - 1].addresses[shard];
        let lie = Arc::new(Mutex::new(Lie::Withhold));
        let liar = Liar { honest: self.network.clone(), lie: lie.clone() };
        let routes = tonic::service::Routes::new(AuthorityServiceServer::new(liar));
        let tls = Some(tls::server_config(&key).unwrap());
        let listener = self.runtime.block_on(tokio::net::TcpListener::bind(address)).unwrap();
        self.runtime.spawn(serve(listener, tls, routes, server::Limits::default(), std::future::pending()));
        lie
    }
}

#[test]
fn an_authority_that_hides_or_invents_is_named_and_changes_nothing() {
    // The first to be followed is authority 4, then authority 1.
    let mut world = World::new(11, "");
    world.load(2);
    let lie = world.replace(4);
    for (which, words) in [
        (Lie::Withhold, "authority-4 withholds or is cut off: it has not shown"),
        (Lie::Change, "authority-4 misbehaves: BAD_PROOF"),
        (Lie::Invent, "authority-4 "),
    ] {
        *lie.lock().unwrap() = which;
        let name = format!("{}", which as u32);
        let _ = std::fs::remove_file(world.net.path("listener.log"));
        let listener = world.spawn(&format!("--cursor {name} --out {name}.lines --grace 1s"), &[]);
        wait("what there is", || world.lines(&format!("{name}.lines")).len() == 6);
        wait(words, || world.net.read("listener.log").contains(words));
        world.load(1);
        wait("what comes", || world.lines(&format!("{name}.lines")).len() == 9);
        assert_eq!(listener.stop(), 0);
        assert_whole(&world.lines(&format!("{name}.lines")), 3);
        assert!(!world.net.read(&format!("{name}.lines")).contains(&hex::encode("invented")));
        // For the next lie as many again.
        world.register(world.id + 4, "");
        world.load(2);
    }
    // If f + 1 say that what comes next is pruned, one of them is honest.
    *lie.lock().unwrap() = Lie::Prune;
    let listen = format!("listen {} --until-level --cursor pruned", world.id);
    let printed = world.net.run(&format!("{listen}-1")).ok().stdout;
    assert_eq!(printed.lines().count(), 6, "one alone is not believed: {printed}");
    *world.replace(3).lock().unwrap() = Lie::Prune;
    world.net.run(&listen).fails(5, "PRUNED");
    world.net.run(&format!("{listen} --from oldest --grace 1s")).ok();
}
