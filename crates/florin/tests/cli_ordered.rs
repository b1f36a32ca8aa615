//! Contracts, the primary, the registry, the log and recovery, as their users meet them: commands and real authorities.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use florin_client::network::{Network, Patience};
use florin_client::time::now_ms;
use florin_client::wallet::{Operation, Request, Wallet};
use florin_core::address::Address;
use florin_core::wire::{self, input, output};
use florin_node::config::read_committee;
use net::{Net, PATIENCE, Process, Said, wait};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The contract that a `contract fund --json` made.
fn contract(said: Said) -> String {
    let value = said.ok().json();
    assert_eq!(value["status"], "ordered", "{value}");
    value["contracts"][0].as_str().unwrap().to_owned()
}

/// Waits until the log's time is that of the clocks. A contract that stays open keeps it going: `wallet` pays 1.00 for it.
fn start_clock(net: &Net, wallet: &str) {
    let own = net.address(wallet);
    let fund =
        format!("contract fund 1 --wallet {wallet} --to {own} --hash {} --expires-in 1440m --json", lock(b"clock"));
    let id = contract(net.run(&fund));
    wait("the log's clock", || {
        let time = net.run(&format!("contract show {id} --json")).ok().json()["time_ms"].as_u64().unwrap();
        time + 30_000 > now_ms()
    });
}

fn lock(preimage: &[u8]) -> String {
    hex::encode(Sha256::digest(preimage))
}

fn state(net: &Net, id: &str) -> String {
    net.run(&format!("contract show {id} --json")).ok().json()["state"].as_str().unwrap().to_owned()
}

fn status(net: &Net, which: &str, wallet: &str) -> Value {
    net.run(&format!("wallet status {which} --wallet {wallet} --json")).ok().json()
}

#[test]
fn a_contract_pays_whoever_knows_the_preimage() {
    let net = Net::start(2);
    net.funded("alice", "20.00");
    let bob = net.wallet("bob");
    let fund = format!("contract fund 5 --wallet alice --to {bob} --new-preimage secret --expires-in 10m --json");
    let id = contract(net.run(&fund));
    assert_eq!(net.path("secret").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    net.run(&fund).fails(2, "ALREADY_EXISTS");
    net.wait_for_balance("alice", "15.00");
    let shown = net.run(&format!("contract show {id}")).ok();
    assert!(shown.stdout.contains("open") && shown.stdout.contains(&bob) && shown.stdout.contains("5.00"), "{shown:?}");

    // What can't succeed is refused before anything is signed.
    net.run(&format!("contract claim {id} --wallet alice --preimage-file secret")).fails(3, "NOT_A_PARTY");
    net.run(&format!("contract claim {id} --wallet bob --preimage 00")).fails(3, "WRONG_PREIMAGE");
    net.run(&format!("contract claim {id} --wallet bob --preimage xx")).fails(2, "USAGE");
    net.run(&format!("contract refund {id} --wallet alice")).fails(3, "CONTRACT_OPEN");
    let nothing = lock(b"no contract");
    net.run(&format!("contract claim {nothing} --wallet bob --preimage 00")).fails(3, "UNKNOWN_CONTRACT");
    net.run(&format!("contract show {nothing}")).fails(3, "UNKNOWN_CONTRACT");

    let claim = format!("contract claim {id} --wallet bob --preimage-file secret --receipt claim.json --json");
    let claimed = net.run_with(&claim, &["--id", "claim"]).ok().json();
    assert_eq!((&claimed["status"], &claimed["seqnum"]), (&"ordered".into(), &1.into()));
    net.wait_for_balance("bob", "5.00");
    assert_eq!(state(&net, &id), "claimed");
    let preimage = net.read("secret").trim().to_owned();
    assert!(net.run(&format!("contract show {id}")).ok().stdout.contains(&preimage), "everybody sees it now");
    // Once is once, with the id and without.
    assert_eq!(net.run_with(&claim.replace("--receipt claim.json", ""), &["--id", "claim"]).ok().json()["seqnum"], 1);
    net.run(&format!("contract claim {id} --wallet bob --preimage-file secret")).fails(3, "CONTRACT_CLOSED");

    // The receipt says what it proves.
    let receipt = net.run("receipt verify claim.json").ok().stdout;
    assert!(receipt.contains("claims 5.00") && receipt.contains("does not say what the log made of it"), "{receipt}");
    // The order as its own wallet knows it, and as the network does.
    let own = status(&net, "1", "bob");
    let asked = net.run(&format!("wallet status 1 --wallet alice --from {bob} --json")).ok().json();
    for field in ["state", "order_id", "session", "unit"] {
        assert_eq!(own[field], asked[field], "{field}");
    }
    assert_eq!((&asked["state"], &asked["decided"]), (&"ordered".into(), &true.into()));
    let by_id = status(&net, own["order_id"].as_str().unwrap(), "bob");
    assert_eq!(by_id["seqnum"], 1);
    net.run("wallet status zz --wallet bob").fails(2, "USAGE");
    assert_eq!(status(&net, "7", "bob")["state"], "unknown");
    // A payment has no shared side.
    net.run(&format!("wallet pay --wallet bob {} 1", net.address("alice"))).ok();
    wait("the payment to settle", || status(&net, "2", "bob")["decided"] == true);
    assert_eq!(status(&net, "2", "bob")["state"], "settled");
}

#[test]
fn an_expired_contract_goes_back() {
    let net = Net::start(1);
    net.funded("alice", "20.00");
    let bob = net.wallet("bob");
    let hash = lock(b"x");
    let id =
        contract(net.run(&format!("contract fund 5 --wallet alice --to {bob} --hash {hash} --expires-in 3s --json")));
    net.run(&format!("contract refund {id} --wallet alice")).fails(3, "CONTRACT_OPEN");
    wait("the expiry", || net.run(&format!("contract show {id} --json")).ok().json()["expired"] == true);
    net.run(&format!("contract claim {id} --wallet bob --preimage {}", hex::encode("x"))).fails(3, "CONTRACT_EXPIRED");
    let refunded = net.run(&format!("contract refund {id} --wallet alice --no-wait --json")).ok().json();
    assert_eq!(refunded["status"], "final");
    let watched = net.run(&format!("wallet status {} --wallet alice --watch --json", refunded["seqnum"])).ok().json();
    assert_eq!(watched["state"], "ordered");
    net.wait_for_balance("alice", "20.00");
    assert_eq!(state(&net, &id), "refunded");
}

/// Signs an operation without asking whether it can succeed, and sends it.
fn call_without_looking(net: &Net, name: &str, operation: Operation) -> u32 {
    let committee = Arc::new(read_committee(&net.path("committee.toml")).unwrap());
    let mut wallet = Wallet::open(&net.path(name), committee.clone()).unwrap();
    let seed = wallet.keystore().unlock("correct horse").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let network = Network::new(committee, Patience::default());
        wallet.catch_up(&network, 0).await.unwrap();
        assert!(wallet.sign_once(&network, &seed, &Request::Call(operation)).await.unwrap());
        let submission = wallet.finish(&network, 0, |_| ()).await.unwrap().unwrap();
        assert!(submission.outcomes[0].is_ok(), "{:?}", submission.outcomes[0].as_ref().err());
    });
    wallet.account(0).seqnum
}

#[test]
fn what_the_log_refuses_is_refunded() {
    let net = Net::start(2);
    net.funded("alice", "21.00");
    let (alice, bob) = (net.address("alice"), net.wallet("bob"));
    start_clock(&net, "alice");
    let past = "2020-01-01T00:00:00Z";
    let fund = format!("contract fund 5 --wallet alice --to {bob} --hash {} --expires {past}", lock(b"x"));
    let said = net.run(&fund).fails(3, "CONTRACT_EXPIRED");
    assert!(said.stdout.contains("FAILED at session ") && said.stderr.contains("5.00 flr that it took are refunded"));
    net.wait_for_balance("alice", "20.00");
    let failed = status(&net, "2", "alice");
    assert_eq!((&failed["state"], &failed["name"]), (&"failed".into(), &"CONTRACT_EXPIRED".into()));
    let history = net.run("wallet history --wallet alice --json").ok().json();
    let lines = history["payments"].as_array().unwrap();
    assert_eq!((&lines[0]["kind"], &lines[0]["outcome"]), (&"call".into(), &"failed".into()));
    assert!(lines.iter().any(|l| l["kind"] == "refund" && l["amount"] == "5.00"), "{history}");

    // A claim that nobody looked at before it was sent, and that also takes of its own account.
    let id = contract(
        net.run(&format!("contract fund 5 --wallet alice --to {bob} --hash {} --expires-in 10m --json", lock(b"x"))),
    );
    let own = bytes::Bytes::copy_from_slice(Address::from_text(&alice, "flr").unwrap().as_bytes());
    let claim = wire::ContractClaim { contract: hex::decode(&id).unwrap().into(), preimage: "wrong".into() };
    let operation = Operation {
        id: None,
        account: 0,
        inputs: vec![wire::Input { amount: 500, kind: Some(input::Kind::ContractClaim(claim)) }],
        outputs: vec![output::Kind::Credit(wire::Credit { address: own, amount: 700 })],
        memo: String::new(),
        expires_in: false,
    };
    let seqnum = call_without_looking(&net, "alice", operation);
    let said = net.run("wallet resume --wallet alice --json").ok().json();
    assert_eq!((&said["ordered"][0]["seqnum"], &said["ordered"][0]["status"]), (&seqnum.into(), &"failed".into()));
    net.wait_for_balance("alice", "15.00");
    assert_eq!(state(&net, &id), "open");
    assert_eq!(net.run("wallet resume --wallet alice").ok().line(), "nothing is pending");
}

#[test]
fn money_goes_to_the_primary_and_back() {
    let net = Net::start(2);
    net.funded("alice", "20.00");
    let bob = net.wallet("bob");
    let of = |wallet: &str| net.run(&format!("primary status --wallet {wallet} --json")).ok().json();
    net.run("primary redeem 7.50 --wallet alice").ok();
    net.run(&format!("primary redeem 1 --wallet alice --address {bob}")).ok();
    net.wait_for_balance("alice", "11.50");
    wait("the redeems", || of("alice")["redeems"] == 2);
    assert_eq!((&of("alice")["balance"], &of("bob")["balance"]), (&"7.50".into(), &"1.00".into()));
    assert_eq!(of("alice")["total_funds"], "8.50");

    net.run("primary deposit 2 --wallet alice").ok();
    net.run("primary deposit 1 --wallet bob").ok();
    net.run(&format!("primary deposit 0.50 --wallet alice --to {bob}")).ok();
    net.wait_for_balance("alice", "13.50");
    net.wait_for_balance("bob", "1.50");
    let too_much = net.run("primary deposit 5.01 --wallet alice").fails(3, "PRIMARY_FUNDS");
    assert!(too_much.stderr.contains("it had taken nothing"), "{too_much:?}");
    net.run("primary redeem 100 --wallet alice").fails(3, "INSUFFICIENT_FUNDS");
    wait("the deposits", || of("alice")["deposits"] == 3);
    assert_eq!((&of("alice")["balance"], &of("bob")["balance"]), (&"5.00".into(), &"0.00".into()));
    let history = net.run("wallet history --wallet bob --json").ok().json();
    let kinds: Vec<&Value> = history["payments"].as_array().unwrap().iter().map(|l| &l["kind"]).collect();
    assert_eq!(kinds, ["call", "deposit", "deposit"], "{history}");
}

#[test]
fn networks_are_registered_once_and_change_hands() {
    let net = Net::start(1);
    net.funded("alice", "1.00");
    net.funded("bob", "1.00");
    let (alice, bob) = (net.address("alice"), net.address("bob"));
    let show = || net.run("network show 9 --json").ok().json();
    net.run("network show 9").fails(3, "UNKNOWN_NETWORK");
    net.run("network register 9 --wallet alice --flags 3 --metadata hello").ok();
    wait("the network", || net.run("network show 9").status == 0);
    assert_eq!(
        (&show()["admin"], &show()["flags"], &show()["metadata"]),
        (&alice.as_str().into(), &3.into(), &"hello".into())
    );
    net.run("network register 9 --wallet bob").fails(3, "NETWORK_EXISTS");
    net.run("network metadata 9 mine --wallet bob").fails(3, "NOT_ADMIN");
    net.run(&format!("network offer 9 --to {bob} --wallet alice")).ok();
    net.run("network accept 9 --wallet bob").ok();
    wait("the new admin", || show()["admin"] == bob.as_str());
    net.run("network remove 9 --wallet alice").fails(3, "NOT_ADMIN");
    net.run("network remove 9 --wallet bob").ok();
    wait("its end", || show()["state"] == "removed");
    net.run("network register 9 --wallet alice").fails(3, "NETWORK_EXISTS");
}

#[test]
fn sessions_of_the_log_are_verified() {
    let mut net = Net::start(1);
    net.funded("alice", "5.00");
    start_clock(&net, "alice");
    net.run("primary redeem 1 --wallet alice").ok();
    // A session takes 500 rounds, however slow this machine is.
    let deadline = Instant::now() + 4 * PATIENCE;
    loop {
        let status = net.run("log status --json").ok().json();
        let logs = status["authorities"].as_array().unwrap().clone();
        if logs.iter().all(|l| l["signed_sessions"].as_u64() > Some(0) && l["fault"] == "") {
            break;
        }
        assert!(Instant::now() < deadline, "{status}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let shown = net.run("log show --session 0 --units").ok().stdout;
    assert!(shown.contains("signed by:  3 of 4") || shown.contains("signed by:  4 of 4"), "{shown}");
    assert!(shown.contains("call of actor"), "{shown}");
    net.run("log show --session 1000000").fails(2, "closed and signed by a quorum");
    let verified = net.run("log show --last 256 --json").ok().json();
    assert!(verified["sessions"].as_array().unwrap().iter().all(|s| s["verified"] == true), "{verified}");
    net.down(4);
    let status = net.run("log status").ok().stdout;
    assert!(status.lines().nth(4).unwrap().contains("UNREACHABLE"), "{status}");
    net.run("log show").ok();
}

/// A command that is killed when it says something on stderr, or after a while if it never does.
fn kill_when(net: &Net, line: &str, more: &[&str], word: &str) {
    let mut child = net.command(line, more).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let _ = stderr.lines().map_while(Result::ok).find(|l| l.starts_with(word));
    Process::new(child).kill();
}

#[test]
fn killed_at_any_moment_it_is_done_once() {
    let net = Net::start(1);
    net.funded("alice", "100.00");
    let bob = net.wallet("bob");
    let fund = format!("contract fund 1 --wallet alice --to {bob} --expires-in 10m --json");
    let mut ids = Vec::new();
    for (i, word) in ["hash", "vote", "certified", "settled", "final"].into_iter().enumerate() {
        let (id, file) = (format!("fund {i}"), format!("secret-{i}"));
        let more = ["--id", &id, "--new-preimage", &file];
        kill_when(&net, &fund, &more, word);
        let deadline = Instant::now() + PATIENCE;
        let said = loop {
            let said = net.run_with(&fund, &more);
            if said.status == 0 {
                break said;
            }
            assert!(said.status == 4 && Instant::now() < deadline, "{said:?}");
        };
        ids.push(contract(said));
        assert_eq!(contract(net.run_with(&fund, &more)), *ids.last().unwrap(), "with the same preimage");
    }
    assert_eq!(net.run("wallet resume --wallet alice").ok().line(), "nothing is pending");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5);
    net.wait_for_balance("alice", "95.00");

    // Killed while it waits: whoever comes next hears of it.
    let more = ["--hash", &lock(b"x")];
    kill_when(&net, &fund, &more, "final");
    let said = net.run("wallet resume --wallet alice --json").ok().json();
    let done = said["finished"].as_array().unwrap().len() + said["ordered"].as_array().unwrap().len();
    assert!(done > 0 || net.run("wallet status 6 --wallet alice").ok().stdout.contains("ordered"), "{said}");
    assert_eq!(status(&net, "6", "alice")["state"], "ordered");
    net.run_with(&fund, &["--id", "fund 0", "--hash", &lock(b"x")]).fails(2, "USAGE");
}

/// Two copies of a wallet pay different amounts with one number, each to half of the authorities.
fn lock_account(net: &mut Net, name: &str, to: &str) {
    let copy = |from: &str, to: &str| {
        std::fs::copy(net.path(from), net.path(to)).unwrap();
        std::fs::copy(net.path(&format!("{from}.journal")), net.path(&format!("{to}.journal"))).unwrap();
    };
    copy(name, "twin");
    let pay = |wallet: &str, amount: &str| format!("wallet pay --wallet {wallet} {to} {amount} --timeout 1500ms");
    [3, 4].into_iter().for_each(|i| net.down(i));
    net.run(&pay(name, "1")).fails(4, "QUORUM_UNREACHABLE");
    [1, 2].into_iter().for_each(|i| net.down(i));
    [3, 4].into_iter().for_each(|i| net.up(i));
    net.run(&pay("twin", "2")).fails(4, "QUORUM_UNREACHABLE");
    [1, 2].into_iter().for_each(|i| net.up(i));
}

#[test]
fn a_locked_account_is_frozen_until_the_log_decides() {
    let mut net = Net::start(1);
    net.funded("alice", "21.00");
    let bob = net.wallet("bob");
    start_clock(&net, "alice");
    assert_eq!(net.run("wallet recover --wallet alice").ok().line(), "the account is not locked");
    // What is merely pending is finished, not recovered.
    net.sign_without_looking("alice", &bob, 100);
    assert_eq!(net.run("wallet recover --wallet alice").ok().line(), "the account is not locked");
    net.wait_for_balance("bob", "1.00");

    lock_account(&mut net, "alice", &bob);
    let locked = net.run("wallet status 3 --wallet alice").ok().stdout;
    assert!(locked.contains("different orders hold the number") && locked.contains("wallet recover"), "{locked}");
    net.run(&format!("wallet pay --wallet alice {bob} 1 --timeout 2s")).fails(3, "PENDING_CONFLICT");
    let recover = "wallet recover --wallet alice --wait 0s --json";
    let deadline = Instant::now() + PATIENCE;
    let frozen = loop {
        let said = net.run(recover).fails(4, "TIMEOUT");
        let value = said.json();
        assert_eq!(value["seqnum"], 3, "{value}");
        if value["state"] == "frozen" {
            assert!(said.stderr.contains("the log decides by") && said.stderr.contains("UTC"), "{said:?}");
            break value;
        }
        assert!(Instant::now() < deadline, "{said:?}");
        std::thread::sleep(Duration::from_millis(200));
    };
    // Whoever waits holds nobody up, and is stopped at any moment.
    let mut waiting = net.command("wallet recover --wallet alice", &[]);
    let mut waiting = waiting.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = BufReader::new(waiting.stderr.take().unwrap());
    let waiting = Process::new(waiting);
    assert!(stderr.lines().map_while(Result::ok).any(|l| l.starts_with("frozen from seqnum 3")));
    wait("a wallet that can be used", || net.run("wallet status --wallet alice").status == 0);
    waiting.kill();
    // Until when stays what it was, and the account says so.
    let again = net.run(recover).fails(4, "TIMEOUT").json();
    assert_eq!(again["until_ms"], frozen["until_ms"]);
    let account = net.run("wallet status --wallet alice --json").ok().json();
    assert_eq!((&account["frozen"], &account["until_ms"]), (&3.into(), &frozen["until_ms"]));
    // Nothing else is signed meanwhile; not by a copy that knows nothing of it either.
    net.run(&format!("wallet pay --wallet alice {bob} 1")).fails(3, "RECOVERING");
    net.run(&format!("wallet pay --wallet twin {bob} 2 --timeout 2s")).fails(3, "RECOVERING");
    let said = net.run("wallet recover --wallet twin --wait 0s").fails(4, "TIMEOUT");
    assert!(said.stderr.contains("another copy of this wallet recovers"), "{said:?}");
    assert_eq!(net.balance("alice"), "19.00");
}
