//! A committee of real processes whose keys the tests know, and raw ways to talk to it.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod clocks;
pub mod lan;
pub mod liar;
pub mod load;
pub mod packets;
pub mod sites;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use florin_client::network::{Network, Patience};
use florin_core::address::Address;
use florin_core::amount::format_amount;
use florin_core::committee::{AuthorityInfo, Committee, Network as Money};
use florin_core::signatures::AuthorityKey;
use florin_core::testing::{NETWORK_ID, Signer, TestCommittee, seed};
use florin_core::wire;
use florin_core::{Code, Error};
use florin_node::config::AuthorityFile;
use florin_rpc::client::{Limits, connect_lazy};
use florin_rpc::errors::from_status;
use rustix::process::{Pid, Signal, kill_process};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

use self::clocks::Clocks;
use crate::net::{Folder, PATIENCE, Process, Said, wait};

/// Authorities of every committee here.
pub const SIZE: usize = 4;
/// Two decimals, as the wallets show.
pub const CURRENCY: &str = "flr";
/// Options of `wallet new` before there is a committee file.
pub const OFFLINE: &str = "--network-id 77 --currency flr --decimals 2";

static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Tests with many processes take turns: CI has two cores.
pub async fn turn() -> tokio::sync::MutexGuard<'static, ()> {
    TURN.lock().await
}

/// As [`turn`], outside of a runtime.
pub fn blocking_turn() -> tokio::sync::MutexGuard<'static, ()> {
    TURN.blocking_lock()
}

/// What a committee is to be like.
#[derive(Clone, Default)]
pub struct Plan {
    /// Shards; 0 stands for 1.
    pub shards: u32,
    /// Who has what at the start, minor units.
    pub genesis: Vec<(Address, u64)>,
    /// An authority whose shards run in two processes: the even ones and the odd ones.
    pub split: Option<usize>,
}

/// Which process: authority, and 0 or 1 if it is split.
pub type Part = (usize, usize);

/// Authorities as processes, and all that is on their disks.
pub struct Local {
    pub folder: Folder,
    pub committee: Arc<Committee>,
    plan: Plan,
    /// Clocks of its own for each authority, from its next start on.
    pub clocks: Option<Clocks>,
    http: BTreeMap<Part, String>,
    running: BTreeMap<Part, Process>,
}

impl std::ops::Deref for Local {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.folder
    }
}

/// A port of this machine that no outgoing connection is given, so that a process that was killed finds it free again.
fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FROM: u16 = 10_000;
    const SPAN: u16 = 22_000;
    // Other test binaries and their tests start elsewhere.
    let start = (std::process::id() as u16).wrapping_mul(97) % SPAN;
    for _ in 0..SPAN {
        let port = FROM + (start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))) % SPAN;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

fn address() -> String {
    format!("127.0.0.1:{}", port())
}

/// The transport and signing key of an authority.
pub fn authority_seed(authority: usize) -> [u8; 32] {
    seed("authority", authority as u64)
}

pub fn authority_key(authority: usize) -> AuthorityKey {
    AuthorityKey::from_seed(authority_seed(authority))
}

impl Local {
    /// Files and ports; nothing runs yet. `folder` may hold wallets already.
    pub fn create(folder: Folder, plan: Plan) -> Local {
        Local::create_at(folder, plan, None)
    }

    /// As [`Local::create`]; authorities listen on this host, and relays are to pass on what comes to their addresses.
    pub fn create_behind_relays(plan: Plan, host: &str) -> Local {
        Local::create_at(Folder::new(), plan, Some(host.to_owned()))
    }

    fn create_at(folder: Folder, plan: Plan, bind: Option<String>) -> Local {
        let plan = Plan { shards: plan.shards.max(1), ..plan };
        let mut text = String::new();
        for (address, amount) in &plan.genesis {
            writeln!(text, "{} {}", address.to_text(CURRENCY), format_amount(i128::from(*amount), 2)).unwrap();
        }
        let genesis = folder.path("genesis.txt");
        let has_genesis = !text.is_empty();
        std::fs::write(&genesis, text).unwrap();
        let member = |i: usize| AuthorityInfo {
            name: format!("authority-{}", i + 1),
            key: authority_key(i).public(),
            addresses: (0..plan.shards).map(|_| address()).collect(),
        };
        let network = Money {
            id: NETWORK_ID,
            currency: CURRENCY.into(),
            decimals: 2,
            issuer: TestCommittee::issuer().permission.encode(),
            issuer_limit: 1_000_000_000_000,
            genesis_hash: florin_node::genesis::hash(has_genesis.then_some(genesis.as_path())).unwrap(),
        };
        let committee = Committee::new(1, plan.shards, network, (0..SIZE).map(member).collect()).unwrap();
        std::fs::write(folder.path("committee.toml"), committee.to_toml()).unwrap();
        let mut local = Local {
            folder,
            committee: Arc::new(committee),
            plan,
            clocks: None,
            http: BTreeMap::new(),
            running: BTreeMap::new(),
        };
        for authority in 0..SIZE {
            for part in local.parts_of(authority) {
                local.http.insert(part, address());
                let file = AuthorityFile {
                    committee: "committee.toml".into(),
                    key: hex::encode(authority_seed(authority)),
                    data: format!("data-{}", authority + 1).into(),
                    genesis: has_genesis.then(|| "genesis.txt".into()),
                    http: Some(local.http[&part].clone()),
                    bind: bind.clone(),
                    accounts_memory_mib: None,
                };
                std::fs::write(local.path(&config(part)), toml::to_string(&file).unwrap()).unwrap();
            }
        }
        local
    }

    /// A committee that runs.
    pub fn start(plan: Plan) -> Local {
        let mut local = Local::create(Folder::new(), plan);
        local.up_all();
        local
    }

    /// The processes of an authority.
    pub fn parts_of(&self, authority: usize) -> Vec<Part> {
        (0..1 + usize::from(self.plan.split == Some(authority))).map(|part| (authority, part)).collect()
    }

    /// All processes.
    pub fn parts(&self) -> Vec<Part> {
        (0..SIZE).flat_map(|authority| self.parts_of(authority)).collect()
    }

    /// Shards of a process.
    pub fn shards_of(&self, part: Part) -> Vec<u32> {
        let split = self.plan.split == Some(part.0);
        (0..self.plan.shards).filter(|s| !split || *s as usize % 2 == part.1).collect()
    }

    pub fn data(&self, authority: usize) -> PathBuf {
        self.path(&format!("data-{}", authority + 1))
    }

    /// Starts the processes that don't run and waits until they accept requests.
    pub fn up_all(&mut self) {
        let down: Vec<Part> = self.parts().into_iter().filter(|part| !self.running.contains_key(part)).collect();
        let waiting: Vec<_> = down.iter().map(|part| self.spawn(*part)).collect();
        down.iter().zip(waiting).for_each(|(part, ready)| self.wait_ready(*part, &ready));
    }

    /// Starts a process and waits until it accepts requests.
    pub fn up(&mut self, part: Part) {
        let ready = self.spawn(part);
        self.wait_ready(part, &ready);
    }

    fn run_line(&self, part: Part) -> String {
        let shards: Vec<String> = self.shards_of(part).iter().map(u32::to_string).collect();
        format!("authority run --create --config {} --shards {}", config(part), shards.join(","))
    }

    /// Starts a process; its first line on stdout comes over the channel.
    pub fn spawn(&mut self, part: Part) -> mpsc::Receiver<String> {
        let command = self.command(&self.run_line(part), &[]);
        self.spawn_as(part, command)
    }

    /// As [`Local::spawn`], by a shell that first runs `prelude`.
    pub fn spawn_after(&mut self, part: Part, prelude: &str) -> mpsc::Receiver<String> {
        let run = self.command(&self.run_line(part), &[]);
        let mut command = self.shell(&format!("{prelude}\nexec \"$0\" \"$@\""));
        command.arg(run.get_program()).args(run.get_args());
        self.spawn_as(part, command)
    }

    fn shell(&self, script: &str) -> std::process::Command {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]).current_dir(self.folder.0.path()).stdin(Stdio::null()).env_remove("RUST_LOG");
        command
    }

    fn spawn_as(&mut self, part: Part, mut command: std::process::Command) -> mpsc::Receiver<String> {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.path(&log(part))).unwrap();
        if let Some(clocks) = &self.clocks {
            clocks.give(part.0, &mut command);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        assert!(self.running.insert(part, Process::new(child)).is_none(), "{part:?} runs already");
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        receiver
    }

    pub fn wait_ready(&self, part: Part, lines: &mpsc::Receiver<String>) {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => assert!(line.starts_with("ready "), "{part:?}: {line}"),
            Err(e) => panic!("{part:?} is not ready: {e}\n{}", self.read(&log(part))),
        }
    }

    /// As `kill -9`. Nothing happens to a process that does not run.
    pub fn kill(&mut self, part: Part) {
        if let Some(process) = self.running.remove(&part) {
            process.kill();
        }
    }

    /// SIGTERM, and its exit status.
    pub fn stop(&mut self, part: Part) -> i32 {
        self.running.remove(&part).unwrap().stop()
    }

    pub fn pid(&self, part: Part) -> u32 {
        self.running[&part].0.id()
    }

    pub fn signal(&self, part: Part, signal: Signal) {
        kill_process(Pid::from_child(&self.running[&part].0), signal).unwrap();
    }

    /// Fails the test if a process has ended by itself.
    #[track_caller]
    pub fn assert_alive(&mut self) {
        for (part, process) in &mut self.running {
            let ended = process.0.try_wait().unwrap();
            assert!(ended.is_none(), "{part:?} has ended with {ended:?}");
        }
        for part in self.parts() {
            let said = self.read(&log(part));
            assert!(!said.contains("panicked"), "{part:?}: {said}");
        }
    }

    pub fn log(&self, part: Part) -> String {
        self.read(&log(part))
    }

    pub fn patience(&self) -> Patience {
        Patience { total: PATIENCE, request: Duration::from_secs(5), ..Patience::default() }
    }

    /// Must be called in a runtime.
    pub fn network(&self) -> Network {
        Network::new(self.committee.clone(), self.patience())
    }

    /// A connection of its own to a process, as the holder of `own` or as nobody.
    pub fn channel(&self, authority: usize, shard: u32, own: Option<&[u8; 32]>) -> Channel {
        let info = &self.committee.authorities[authority];
        connect_lazy(&info.addresses[shard as usize], *info.key.as_bytes(), own, Limits::default())
    }

    /// A page over HTTP: status and text.
    pub fn http(&self, part: Part, path: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(&self.http[&part]).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(socket, "GET {path} HTTP/1.0\r\nHost: florin\r\n\r\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        (status, text)
    }

    /// Lines of a metric of a process.
    pub fn metric(&self, part: Part, name: &str) -> Vec<String> {
        let (_, text) = self.http(part, "/metrics");
        let mut lines: Vec<String> = text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// The account of an address as each authority has it; `None` if one does not answer.
    pub async fn accounts(&self, network: &Network, address: &Address) -> Option<Vec<wire::AccountReply>> {
        let request =
            wire::AccountRequest { network_id: NETWORK_ID, address: Bytes::copy_from_slice(address.as_bytes()) };
        let mut replies = Vec::new();
        for authority in 0..SIZE {
            let mut client = network.authority(authority, address.shard(self.plan.shards));
            replies.push(client.account(request.clone()).await.ok()?.into_inner());
        }
        Some(replies)
    }

    /// Waits until all authorities say of each address that it has this much and has signed this many orders, and
    /// that nothing is pending, on its way or waiting.
    pub async fn wait_level(&self, network: &Network, expected: &[(Address, i128, u32)]) {
        let deadline = Instant::now() + PATIENCE;
        for (address, balance, seqnum) in expected {
            loop {
                let replies = self.accounts(network, address).await;
                let wanted = |r: &wire::AccountReply| {
                    r.balance == balance.to_string() && r.seqnum == *seqnum && r.pending.is_empty()
                };
                if replies.as_ref().is_some_and(|replies| replies.iter().all(wanted)) {
                    break;
                }
                assert!(Instant::now() < deadline, "expected {balance} after {seqnum} orders, found {replies:#?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        for (authority, shard) in (0..SIZE).flat_map(|a| (0..self.plan.shards).map(move |s| (a, s))) {
            loop {
                let reply = network.authority(authority, shard).info(wire::InfoRequest {}).await.unwrap().into_inner();
                if reply.status.iter().all(|s| s.outbox == 0 && s.waiting == 0 && s.fault.is_empty()) {
                    break;
                }
                assert!(Instant::now() < deadline, "authority {authority}: {:?}", reply.status);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Stops everything in order, then recomputes every balance from every disk.
    pub fn audit_all(&mut self) {
        for part in self.parts() {
            if self.running.contains_key(&part) {
                assert_eq!(self.stop(part), 0, "{}", self.log(part));
            }
        }
        for authority in 0..SIZE {
            let said = self.audit(authority).ok();
            assert_eq!((&said.json()["sum"], &said.json()["findings"]), (&"0".into(), &0.into()), "{said:?}");
        }
    }

    /// The authority must not run.
    pub fn audit(&self, authority: usize) -> Said {
        self.run(&format!("audit --json --config {}", config((authority, 0))))
    }
}

fn config((authority, part): Part) -> String {
    format!("authority-{}-{part}.toml", authority + 1)
}

fn log((authority, part): Part) -> String {
    format!("authority-{}-{part}.log", authority + 1)
}

/// Accounts with numbers from 1 on, `per_shard` on each shard.
pub fn signers(shards: u32, per_shard: usize) -> Vec<Signer> {
    let mut found = vec![0; shards as usize];
    let mut signers = Vec::new();
    for signer in (1..).map(Signer::new) {
        let count = &mut found[signer.address.shard(shards) as usize];
        if *count < per_shard {
            *count += 1;
            signers.push(signer);
        }
        if signers.len() == per_shard * shards as usize {
            return signers;
        }
    }
    unreachable!("numbers don't end")
}

/// Waits in a runtime until something is so.
pub async fn until<F: Future<Output = bool>>(what: &str, mut so: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !so().await {
        assert!(Instant::now() < deadline, "still waiting for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a process of another says something.
pub fn wait_for_log(local: &Local, part: Part, words: &str) {
    wait(&format!("{part:?} to say {words}"), || local.log(part).contains(words));
}

/// Sends any bytes as the message of a request.
pub async fn raw(channel: &Channel, method: &str, message: Bytes) -> Result<Bytes, Error> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.map_err(|e| Error::new(Code::Unreachable, e.to_string()))?;
    let path = PathAndQuery::try_from(format!("/florin.v1.{method}")).unwrap();
    let reply = grpc.unary(tonic::Request::new(message), path, AsItIs).await;
    reply.map(tonic::Response::into_inner).map_err(from_status)
}

#[derive(Clone, Copy, Default)]
struct AsItIs;

impl Codec for AsItIs {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = AsItIs;
    type Decoder = AsItIs;

    fn encoder(&mut self) -> AsItIs {
        AsItIs
    }

    fn decoder(&mut self) -> AsItIs {
        AsItIs
    }
}

impl Encoder for AsItIs {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        to.reserve(item.len());
        to.put(item);
        Ok(())
    }
}

impl Decoder for AsItIs {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
