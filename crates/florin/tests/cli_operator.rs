//! What operators type, run as they run it: the real binary, real processes, real files.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use florin_client::receipt_file;
use florin_core::authority::state::{Table, Write};
use florin_core::batch::decode_batch;
use florin_core::bitmap::Bitmap;
use florin_core::certificate::{Promise, sign};
use florin_core::testing::{Cluster, Signer, TestCommittee, to};
use florin_core::wire;
use florin_node::config::read_committee;
use florin_node::storage::Store;
use prost::Message;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn florin() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_florin"));
    command.stdin(Stdio::null()).env_remove("RUST_LOG").env_remove("FLORIN_COMMITTEE");
    command
}

struct Ran {
    status: i32,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e} in {:?}, stderr {}", self.out, self.err))
    }
}

fn run(args: &[&str]) -> Ran {
    let output = florin().args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { status: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs a command that works.
fn good(args: &[&str]) -> Ran {
    let ran = run(args);
    assert_eq!(ran.status, 0, "{args:?}: {}{}", ran.out, ran.err);
    ran
}

/// Runs a command that fails, and checks the code, the exit status and a part of the message.
fn bad(args: &[&str], code: &str, status: i32, part: &str) {
    let mut with_json = vec!["--json"];
    with_json.extend(args);
    let ran = run(&with_json);
    let json = ran.json();
    assert_eq!((json["error"]["name"].as_str(), ran.status), (Some(code), status), "{args:?}: {}", ran.err);
    assert!(ran.out.contains(part), "{args:?}: expected {part:?} in {}", ran.out);
    assert!(ran.err.contains("next: "), "{}", ran.err);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

/// A file with a passphrase in it.
fn passphrase(dir: &Path) -> PathBuf {
    let path = dir.join("passphrase");
    fs::write(&path, "correct horse\n").unwrap();
    path
}

/// A committee of 4 in `dir`/c.
fn committee(dir: &Path, shards: &str) -> PathBuf {
    let (at, pass) = (dir.join("c"), passphrase(dir));
    good(&[
        "committee",
        "new",
        "--port",
        "0",
        "--shards",
        shards,
        "--dir",
        text(&at),
        "--passphrase-file",
        text(&pass),
    ]);
    at
}

/// An authority that runs; killed when dropped.
struct Authority {
    child: Child,
    ready: String,
}

impl Authority {
    fn start(config: &Path, more: &[&str]) -> Authority {
        let mut command = florin();
        command.args(["authority", "run", "--config", text(config)]).args(more);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        Authority { child, ready }
    }

    fn stop(mut self, signal: Signal) -> i32 {
        kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), signal).unwrap();
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_new_committee_keeps_its_secrets_private_and_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let at = committee(dir.path(), "2");
    for i in 1..=4 {
        assert_eq!(mode(&at.join(format!("authority-{i}.toml"))), 0o600);
        assert_eq!(mode(&at.join(format!("authority-{i}.key"))), 0o600);
    }
    assert_eq!(mode(&at.join("issuer.wallet")), 0o600);
    assert_eq!(mode(&at.join("committee.toml")) & 0o400, 0o400);
    let file = at.join("committee.toml");
    let made = read_committee(&file).unwrap();
    let first: u16 = made.authorities[0].addresses[0].rsplit_once(':').unwrap().1.parse().unwrap();
    assert_eq!(made.authorities[3].addresses[1], format!("127.0.0.1:{}", first + 7));

    let before = fs::read(&file).unwrap();
    let pass = passphrase(dir.path());
    let again = ["committee", "new", "--port", "0", "--dir", text(&at), "--passphrase-file", text(&pass)];
    bad(&again, "ALREADY_EXISTS", 2, "nothing is overwritten");
    assert_eq!(fs::read(&file).unwrap(), before);

    let checked = good(&["config", "check", text(&at.join("authority-4.toml"))]);
    assert!(checked.out.contains("authority-4, authority 3 of 4"), "{}", checked.out);
    let shown = good(&["--json", "inspect", "committee", text(&file)]).json();
    let wallet = good(&["--json", "inspect", "wallet", text(&at.join("issuer.wallet"))]).json();
    assert_eq!(shown["issuer_address"], wallet["accounts"][0]["address"]);
    assert_eq!((&shown["quorum"], &shown["faults"]), (&3.into(), &1.into()));
}

#[test]
fn numbers_that_make_no_committee_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (at, pass) = (dir.path().join("c"), passphrase(dir.path()));
    let base = ["committee", "new", "--dir", text(&at), "--passphrase-file", text(&pass)];
    let genesis = dir.path().join("genesis");
    let address = Signer::new(5).address.to_text("flr");
    fs::write(&genesis, format!("# first\n{address} 10.00\n\n{address} 0.01\n")).unwrap();
    let broken = dir.path().join("broken");
    fs::write(&broken, format!("{address} 10.00\n{address} ten\n")).unwrap();
    for (more, code, status, part) in [
        (&["--authorities", "3"][..], "BAD_CONFIG", 2, "4 to 128"),
        (&["--shards", "0"], "BAD_CONFIG", 2, "1 to 1024"),
        (&["--currency", "FLR"], "BAD_CONFIG", 2, "a-z"),
        (&["--decimals", "19"], "BAD_CONFIG", 2, "at most 18"),
        (&["--network-id", "9223372036854775808"], "BAD_CONFIG", 2, "2^63 - 1"),
        (&["--issuer-limit=-5"], "BAD_AMOUNT", 3, "--issuer-limit"),
        (&["--port", "65535"], "USAGE", 2, "at most 65535"),
        (&["--genesis", "/nowhere"], "BAD_FILE", 2, "/nowhere"),
        (&["--genesis", text(&broken)], "BAD_FILE", 2, "line 2"),
        (&["--genesis", text(&genesis), "--issuer-limit", "10"], "ISSUER_LIMIT", 3, "at most 1000, found 1001"),
    ] {
        let args: Vec<&str> = base.iter().chain(more).copied().collect();
        bad(&args, code, status, part);
        assert!(!at.exists(), "{more:?}");
    }
    bad(&["committee", "new", "--dir", text(&at)], "USAGE", 2, "--passphrase-file");
    bad(&["committee", "new", "--dir", text(&at), "--issuer", "00"], "DECODE", 3, "issuer");
    good(&[
        "committee",
        "new",
        "--port",
        "0",
        "--dir",
        text(&at),
        "--passphrase-file",
        text(&pass),
        "--genesis",
        text(&genesis),
    ]);
    assert_eq!(fs::read(at.join("genesis.txt")).unwrap(), fs::read(&genesis).unwrap());
}

#[test]
fn independent_operators_join_their_parts() {
    let dir = tempfile::tempdir().unwrap();
    let d = |name: &str| dir.path().join(name);
    let genesis = d("genesis.txt");
    fs::write(&genesis, format!("{} 5\n", Signer::new(5).address.to_text("eur"))).unwrap();
    let mut parts = Vec::new();
    for name in ["ann", "ben", "cem", "dia"] {
        let at = d(name);
        let keygen = ["authority", "keygen", "--name", name, "--host", "127.0.0.1", "--port", "0", "--dir", text(&at)];
        good(&keygen);
        bad(&keygen, "ALREADY_EXISTS", 2, "nothing is overwritten");
        assert_eq!(mode(&at.join(format!("{name}.key"))), 0o600);
        parts.push(at.join(format!("{name}.public.toml")));
    }
    let key = florin_core::testing::secret(florin_core::keys::Curve::Ed25519, 0).public().to_string();
    let file = d("committee.toml");
    let mut args = vec!["committee", "assemble", "--issuer", &key, "--currency", "eur", "--out", text(&file)];
    args.extend(["--network-id", "77", "--genesis", text(&genesis)]);
    bad(&[&args[..], &["--part", text(&parts[0])]].concat(), "BAD_CONFIG", 2, "4 to 128");
    parts.iter().for_each(|part| args.extend(["--part", text(part)]));
    bad(&[&args[..], &["--part", text(&parts[0])]].concat(), "BAD_CONFIG", 2, "ann twice");
    good(&args);
    bad(&args, "ALREADY_EXISTS", 2, "committee.toml");
    let committee = read_committee(&file).unwrap();
    let names: Vec<&str> = committee.authorities.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names, ["ann", "ben", "cem", "dia"]);

    let at = d("cem");
    let key = at.join("cem.key");
    let init = ["authority", "init", "--committee", text(&file), "--key", text(&key), "--dir", text(&at)];
    bad(&init, "BAD_CONFIG", 2, "--genesis");
    let other = d("other");
    fs::write(&other, "").unwrap();
    bad(&[&init[..], &["--genesis", text(&other)]].concat(), "BAD_CONFIG", 2, "sha256 of the genesis file");
    good(&[&init[..], &["--genesis", text(&genesis)]].concat());
    let config = at.join("authority.toml");
    assert_eq!(mode(&config), 0o600);
    good(&["config", "check", text(&config), text(&parts[1])]);
    let authority = Authority::start(&config, &["--json"]);
    let ready: Value = serde_json::from_str(&authority.ready).unwrap();
    assert_eq!(ready["ready"], "cem");
    assert_eq!(ready["addresses"][0], committee.authorities[2].addresses[0]);
    assert_eq!(authority.stop(Signal::TERM), 0);
}

#[test]
fn the_shards_of_an_authority_run_in_two_processes() {
    let dir = tempfile::tempdir().unwrap();
    let config = committee(dir.path(), "3").join("authority-2.toml");
    let one = Authority::start(&config, &["--shards", "2,0"]);
    assert!(one.ready.starts_with("ready authority-2 shards 0,2 at 127.0.0.1:"), "{:?}", one.ready);
    let two = Authority::start(&config, &["--shards", "1", "--log-format", "json"]);
    assert!(two.ready.starts_with("ready authority-2 shards 1 at "), "{:?}", two.ready);
    let data = config.parent().unwrap().join("authority-2-data");
    bad(&["authority", "run", "--config", text(&config), "--shards", "1"], "STORAGE_BUSY", 5, "shard-1");
    bad(&["audit", "--config", text(&config)], "STORAGE_BUSY", 5, "in use");
    bad(&["inspect", "outbox", text(&data)], "STORAGE_BUSY", 5, "in use");
    bad(&["authority", "run", "--config", text(&config), "--shards", "3"], "USAGE", 2, "below 3");
    assert_eq!((one.stop(Signal::INT), two.stop(Signal::TERM)), (0, 0));
    assert!(good(&["audit", "--config", text(&config)]).out.contains("sum 0"));
    assert!(good(&["inspect", "outbox", text(&data)]).out.contains("nothing is on its way"));
}

#[test]
fn config_check_says_all_that_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let at = committee(dir.path(), "1");
    let (file, config) = (at.join("committee.toml"), at.join("authority-1.toml"));
    let (whole, whole_config) = (fs::read_to_string(&file).unwrap(), fs::read_to_string(&config).unwrap());
    let known = read_committee(&file).unwrap();
    let (id, key) = (hex::encode(known.id()), known.authorities[1].key.to_string());
    let address = known.authorities[1].addresses[0].clone();
    let cases = [
        (&file, id.as_str(), "00", "id of the committee file: expected"),
        (&file, address.as_str(), "example.org", "address of shard 0: expected host:port, found"),
        (&file, &address, "::1:7000", "IPv6 host in brackets"),
        (&file, &address, "h:0", "a port from 1 to 65535"),
        (&file, &address, &known.authorities[0].addresses[0], "expected another than authority 0 has"),
        (&file, &key, "abcd", "authority 1 (authority-2): authority key: expected 64 hex digits"),
        (&file, "shards = 1", "shards = 2", "expected one for each of 2 shards, found 1"),
        (&file, "shards = 1", "shards = 'x'", "invalid type"),
        (&file, "\"flr\"", "\"FLR\"", "currency: expected 2 to 12 letters"),
        (&file, "\nepoch", "\nepoch_", "unknown field"),
        (&file, "[network]", "[network", "expected TOML"),
        (&config, "committee.toml", "elsewhere.toml", "expected a readable text file"),
        (&config, "file:authority-1.key", "file:nothing.key", "nothing.key"),
        (&config, "file:authority-1.key", "env:FLORIN_NO_SUCH", "FLORIN_NO_SUCH"),
        (&config, "file:authority-1.key", "1234", "expected 64 hex digits"),
        (&config, "file:authority-1.key", &"ab".repeat(32), "expected one of the committee file"),
        (&config, "data =", "http = 'nowhere'\ndata =", "http: expected host:port"),
        (&config, "data =", "bind = '0.0.0.0:7'\ndata =", "bind: expected a host without a port"),
        (&config, "data =", "dota =", "unknown field `dota`"),
    ];
    for (path, from, to, part) in cases {
        let text_before = fs::read_to_string(path).unwrap();
        assert!(text_before.contains(from), "{from}");
        fs::write(path, text_before.replacen(from, to, 1)).unwrap();
        let code = if part.contains("readable") || part.contains("nothing.key") { "BAD_FILE" } else { "BAD_CONFIG" };
        bad(&["config", "check", text(&config)], code, 2, part);
        fs::write(path, text_before).unwrap();
    }
    // Several at once, each named.
    fs::write(&file, whole.replacen(&address, "x", 1).replacen("\"flr\"", "\"f\"", 1)).unwrap();
    bad(&["config", "check", text(&file)], "BAD_CONFIG", 2, "2 problems found");
    fs::write(&file, &whole).unwrap();
    // What works, but should not be so.
    let key = at.join("authority-1.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let warned = good(&["config", "check", text(&config)]);
    assert!(warned.out.contains("warn") && warned.out.contains("expected 600, found 644"), "{}", warned.out);
    // A folder of another authority.
    Authority::start(&at.join("authority-2.toml"), &[]).stop(Signal::TERM);
    fs::write(&config, whole_config.replace("authority-1-data", "authority-2-data")).unwrap();
    bad(&["config", "check", text(&config)], "STORAGE_CORRUPT", 5, "authority of the folder: expected 0, found 1");
    bad(&["config", "check", text(&key)], "BAD_CONFIG", 2, "expected TOML");
    bad(&["config", "check", "/nowhere"], "BAD_FILE", 2, "/nowhere");
}

/// A committee file and a final receipt of its issuer's payment of 12.50 to number 7.
fn final_receipt(dir: &Path) -> (PathBuf, PathBuf, wire::Receipt) {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let order = vec![cluster.issuer.pay(&[to(Signer::new(7).address, 1_250)], "rent")];
    let certificate = cluster.certify(0, &order);
    let id = decode_batch(&order).unwrap().id;
    let all = Bitmap::full(1);
    let keys = cluster.keys.iter().enumerate();
    let committee = &cluster.committee;
    let acknowledgements =
        keys.take(3).map(|(i, key)| sign(Promise::Settled, committee, i as u32, key, &id, &all)).collect();
    let receipt = wire::Receipt {
        committee_id: Bytes::copy_from_slice(committee.id()),
        epoch: committee.epoch,
        transaction: order[0].clone(),
        index: 0,
        count: 1,
        path: Vec::new(),
        votes: certificate.votes,
        acknowledgements,
    };
    let (file, path) = (dir.join("committee.toml"), dir.join("receipt.json"));
    fs::write(&file, committee.to_toml()).unwrap();
    receipt_file::save(&path, &receipt, committee).unwrap();
    (file, path, receipt)
}

#[test]
fn a_receipt_is_verified_offline() {
    let dir = tempfile::tempdir().unwrap();
    let (file, path, receipt) = final_receipt(dir.path());
    let verify = ["receipt", "verify", text(&path), "--committee", text(&file)];
    let shown = good(&verify).out;
    let payee = Signer::new(7).address.to_text("flr");
    for part in [&format!("12.50 flr to {payee}"), "\"rent\"", "4 of 4", "3 of 4 (needs 3)", "final"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert_eq!(good(&[&["--json"], &verify[..]].concat()).json()["final"], true);
    assert!(good(&["inspect", "receipt", text(&path)]).out.contains("not verified"));
    let envelope = hex::encode(&receipt.transaction);
    let inspected = good(&["inspect", "envelope", &envelope, "--committee", text(&file)]).out;
    assert!(inspected.contains(&payee) && inspected.contains("12.50 flr"), "{inspected}");

    type Spoil = fn(&mut wire::Receipt);
    let cases: [(Spoil, &str, i32); 6] = [
        (|r| r.acknowledgements.truncate(2), "NOT_FINAL", 4),
        (|r| r.votes.truncate(2), "NO_QUORUM", 3),
        (|r| r.votes[1] = r.votes[0].clone(), "DUPLICATE_SIGNER", 3),
        (|r| r.votes[0].signature = vec![7; 64].into(), "BAD_VOTE", 3),
        (|r| r.committee_id = vec![1; 32].into(), "WRONG_COMMITTEE", 3),
        (|r| r.transaction = vec![1, 2, 3].into(), "DECODE", 3),
    ];
    for (spoil, code, status) in cases {
        let mut spoiled = receipt.clone();
        spoil(&mut spoiled);
        let text = format!("{{\"florin_receipt\":1,\"receipt\":\"{}\"}}", hex::encode(spoiled.encode_to_vec()));
        fs::write(&path, text).unwrap();
        bad(&verify, code, status, "");
    }
    for garbage in [&b""[..], b"\xff\xfe", b"{}", b"{\"florin_receipt\":1,\"receipt\":\"zz\"}"] {
        fs::write(&path, garbage).unwrap();
        bad(&verify, "BAD_FILE", 2, "receipt");
    }
    fs::remove_file(&path).unwrap();
    bad(&verify, "BAD_FILE", 2, "receipt.json");
    bad(&["inspect", "envelope", "0a0b"], "DECODE", 3, "envelope");
    bad(&["inspect", "envelope", "no/such"], "BAD_FILE", 2, "neither hex digits nor a file");
}

/// Takes a devnet down, whatever happens to the test.
struct Down<'a>(&'a str);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        run(&["devnet", "down", "--dir", self.0]);
    }
}

#[test]
fn a_devnet_comes_up_funded_and_goes_down() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("net");
    let (d, file) = (text(&at), at.join("committee.toml"));
    bad(&["devnet", "status", "--dir", d], "BAD_FILE", 2, "devnet up");
    let _down = Down(d);
    let up = good(&["--json", "devnet", "up", "--dir", d]).json();
    assert_eq!(up["made"], true);
    assert_eq!(mode(&at.join("passphrase")), 0o600);
    let statuses = |expected: usize| {
        let status = good(&["--json", "devnet", "status", "--dir", d]).json();
        let members = status["authorities"].as_array().unwrap().clone();
        assert_eq!(members.iter().filter(|m| m["pid"].is_u64() && m["error"].is_null()).count(), expected, "{status}");
        assert!(members.iter().filter(|m| m["pid"].is_u64()).all(|m| m["shards"].as_array().unwrap().len() == 2));
    };
    statuses(4);
    // One dies: seen, and started again by the next `up`, which leaves the others alone.
    let pids: Vec<i64> = up["pids"].as_array().unwrap().iter().map(|p| p.as_i64().unwrap()).collect();
    kill_process(Pid::from_raw(pids[1] as i32).unwrap(), Signal::KILL).unwrap();
    while good(&["devnet", "status", "--dir", d]).out.contains(&format!("pid {} ", pids[1])) {}
    statuses(3);
    let again = good(&["--json", "devnet", "up", "--dir", d]).json();
    assert_eq!((&again["made"], &again["pids"][0]), (&false.into(), &pids[0].into()));
    statuses(4);
    let (alice, bob) = (up["funded"][0].as_str().unwrap(), up["funded"][1].as_str().unwrap());
    let (wallet, pass, receipt) = (at.join("alice.wallet"), at.join("passphrase"), at.join("receipt.json"));
    let mut pay = vec!["wallet", "pay", "--wallet", text(&wallet), "--committee", text(&file), bob, "12.50"];
    pay.extend(["--passphrase-file", text(&pass), "--receipt", text(&receipt)]);
    good(&pay);
    let verified = good(&["--json", "receipt", "verify", text(&receipt), "--committee", text(&file)]).json();
    assert!(good(&["devnet", "down", "--dir", d]).out.contains("stopped 4"));
    assert!(good(&["devnet", "down", "--dir", d]).out.contains("nothing was running"));

    // An authority that the payment is known to have reached.
    let stored: Value = good(&["--json", "inspect", "receipt", text(&receipt)]).json();
    let number = stored["acknowledgements"][0].as_u64().unwrap() + 1;
    let (data, config) = (at.join(format!("authority-{number}-data")), at.join(format!("authority-{number}.toml")));
    let id = verified["order_id"].as_str().unwrap();
    let by_id = good(&["--json", "inspect", "order", text(&data), "--id", id]).json();
    let actor = verified["payer"].as_str().unwrap();
    let by_number = ["--json", "inspect", "order", text(&data), "--actor", actor, "--seqnum", "1"];
    assert_eq!(by_id, good(&by_number).json());
    assert_eq!((&by_id["state"], &by_id["content"]["total_minor"]), (&"settled".into(), &"1250".into()));
    let account = ["inspect", "account", text(&data), "--address", alice, "--committee", text(&file)];
    assert!(good(&account).out.contains("987.50 flr"));
    let issued = good(&["--json", "audit", "--config", text(&config)]).json();
    assert_eq!((&issued["sum"], &issued["findings"]), (&"0".into(), &0.into()));
    let orders = issued["shards"].as_array().unwrap().iter().map(|s| s["orders"].as_u64().unwrap());
    assert_eq!(orders.sum::<u64>(), 1);
    let nobody = Signer::new(1).address.to_text("flr");
    bad(&["inspect", "account", text(&data), "--address", &nobody], "UNKNOWN_ACTOR", 3, "nothing is known");
    bad(&["inspect", "order", text(&data), "--actor", "1", "--seqnum", "1"], "BAD_FILE", 2, "no such order");
    bad(&["inspect", "order", text(&data), "--id", "77"], "USAGE", 2, "64 hex digits");
    money_out_of_nothing(&data, number as u32 - 1, &file);
    bad(&["audit", "--config", text(&config)], "AUDIT_FAILED", 6, "balance: expected");
    bad(&["audit", "--committee", text(&file), "--dir", text(&data)], "AUDIT_FAILED", 6, "findings");
}

/// Changes a balance on disk.
fn money_out_of_nothing(data: &Path, authority: u32, file: &Path) {
    let id = *read_committee(file).unwrap().id();
    let open = |shard: u32| Store::open(&data.join(format!("shard-{shard}")), shard, id, authority, false).unwrap();
    let has_accounts = |store: &Store| !store.range(Table::Accounts, &[], None, 1).unwrap().is_empty();
    let store = (0..2).map(open).find(has_accounts).unwrap();
    let (key, value) = store.range(Table::Accounts, &[], None, 1).unwrap().remove(0);
    let mut record = wire::AccountRecord::decode(value).unwrap();
    record.holdings[0].balance = Bytes::copy_from_slice(&123_456_789i128.to_le_bytes());
    store.write(&[Write::put(Table::Accounts, key.to_vec(), record.encode_to_vec())]).unwrap();
    store.sync().unwrap();
}

#[test]
fn a_simulation_is_run() {
    let args = ["--json", "sim", "run", "--seconds", "1", "--wallets", "2", "--seed", "3"];
    let (one, two) = (good(&args).json(), good(&args).json());
    assert_eq!(one["runs"][0]["trace"], two["runs"][0]["trace"]);
    bad(&["sim", "run", "--authorities", "3"], "USAGE", 2, "4 to 128");
}
