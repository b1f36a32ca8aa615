//! `florin wallet` as its users meet it: commands and real authorities.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net;

use std::process::Stdio;

use florin_core::wire::*;
use florin_node::config::{read_committee, secret};
use florin_rpc::server::{self, serve};
use florin_rpc::services::authority_service_server::{AuthorityService, AuthorityServiceServer};
use florin_rpc::tls;
use net::{Folder, Net, Process, exists, modules, wait};
use qrcode::{Color, EcLevel, QrCode};
use tonic::{Request, Response, Status};

const OFFLINE: &str = "--network-id 7 --currency flr --decimals 2";

#[test]
fn seed_words_restore_the_wallet() {
    let folder = Folder::new();
    let made = folder.run(&format!("wallet new --wallet a --words 24 --count 3 {OFFLINE}")).ok();
    let words = made.line();
    assert_eq!(words.split(' ').count(), 24);
    assert!(made.stdout.lines().nth(1).unwrap().starts_with("flr1"));
    assert!(made.stderr.contains("Write the seed words down"));
    assert_eq!(folder.run("wallet backup --wallet a").ok().line(), words);
    for name in ["a", "a.journal"] {
        assert!(!folder.read(name).contains(words.split(' ').next_back().unwrap()), "{name} holds a word in the clear");
    }

    std::fs::write(folder.path("words"), format!("  {}\n", words.to_uppercase().replace(' ', "\n "))).unwrap();
    let restored = folder.run(&format!("wallet import --wallet b --words-file words --count 3 {OFFLINE}")).ok();
    assert!(restored.stderr.contains("The committee was not asked"), "{restored:?}");
    assert_eq!(folder.run("--json wallet backup --wallet b").ok().json()["words"], words);
    let accounts = |wallet| folder.run(&format!("wallet accounts --wallet {wallet}")).ok().stdout;
    assert_eq!(accounts("a"), accounts("b"));

    let stdin = folder.run_reading(
        &format!("wallet import --wallet c --words-file - --passphrase-file - {OFFLINE}"),
        &format!("{words}\nsecret\n"),
    );
    assert_eq!(stdin.ok().line(), folder.run("wallet address --wallet a").ok().line());
    assert_eq!(folder.run_reading("wallet backup --wallet c --passphrase-file -", "secret\n").ok().line(), words);
}

#[test]
fn each_kind_of_key_has_its_own_addresses() {
    let folder = Folder::new();
    let words = folder.run(&format!("wallet new --wallet ed {OFFLINE}")).ok().line();
    std::fs::write(folder.path("words"), words).unwrap();
    let import = |curve| {
        folder.run(&format!("wallet import --wallet {curve} --words-file words --curve {curve} {OFFLINE}")).ok().line()
    };
    let addresses = [import("ed25519"), import("k1"), import("r1")];
    assert_eq!(addresses[0], folder.run("wallet address --wallet ed").ok().line());
    assert!(addresses[0] != addresses[1] && addresses[1] != addresses[2] && addresses[0] != addresses[2]);
}

#[test]
fn mistakes_with_secrets_and_files_are_named() {
    let folder = Folder::new();
    folder.run(&format!("wallet new --wallet a {OFFLINE}")).ok();
    std::fs::write(folder.path("wrong"), "incorrect horse\n").unwrap();
    folder.run("wallet backup --wallet a --passphrase-file wrong").fails(2, "WRONG_PASSPHRASE");
    folder.run("wallet backup --wallet a --passphrase-file nothing").fails(2, "BAD_FILE");
    folder.run("wallet address --wallet nothing").fails(2, "there is no wallet");
    folder.run("wallet address --wallet a --account 1").fails(2, "USAGE");
    folder.run(&format!("wallet new --wallet a {OFFLINE}")).fails(2, "ALREADY_EXISTS");
    assert_eq!(folder.run("wallet new --wallet b --network-id 7").status, 2);
    folder.run("wallet new --wallet b").fails(2, "before there is a committee");
    assert_eq!(folder.run(&format!("wallet new --wallet b --count 1001 {OFFLINE}")).status, 2);
    // A journal that stayed behind is another wallet's.
    std::fs::remove_file(folder.path("a")).unwrap();
    folder.run(&format!("wallet new --wallet a {OFFLINE}")).fails(2, "a.journal exists");
    let no_terminal =
        folder.command(&format!("wallet new --wallet b {OFFLINE}"), &[]).env_remove("FLORIN_PASSPHRASE_FILE").output();
    let said = String::from_utf8(no_terminal.unwrap().stderr).unwrap();
    assert!(said.contains("USAGE") && said.contains("--passphrase-file"), "{said}");
    assert!(!exists(&folder.path("b")));

    let good = "abandon ".repeat(11) + "about";
    for (words, why) in [
        (good.replace("about", "abuot"), "word 12 is not in"),
        (good.replace("about", "zoo"), "checksum"),
        ("abandon ".repeat(11), "expected 12 or 24, found 11"),
        (String::new(), "expected 12 or 24, found 0"),
    ] {
        std::fs::write(folder.path("words"), &words).unwrap();
        let said = folder.run(&format!("wallet import --wallet c --words-file words {OFFLINE}")).fails(2, "BAD_WORDS");
        assert!(said.stderr.contains(why), "{said:?}");
        assert!(!said.stderr.contains("aban") && !said.stderr.contains("abuot"), "words end up in logs: {said:?}");
        assert!(!exists(&folder.path("c")));
    }
}

#[test]
fn genesis_lines_are_all_of_stdout() {
    let folder = Folder::new();
    let made = folder.run(&format!("wallet new --wallet a --count 1000 --genesis-amount 2.5 {OFFLINE}")).ok();
    let lines: Vec<&str> = made.stdout.lines().collect();
    assert_eq!(lines.len(), 1_000);
    assert!(lines.iter().all(|line| line.starts_with("flr1") && line.ends_with(" 2.50")));
    assert!(made.stderr.contains(&folder.run("wallet backup --wallet a").ok().line()));
    let last = folder.run("wallet address --wallet a --account 999").ok().line();
    assert_eq!(lines[999], format!("{last} 2.50"));
}

#[test]
fn an_address_as_a_qr_code() {
    let folder = Folder::new();
    folder.run(&format!("wallet new --wallet a {OFFLINE}")).ok();
    let shown = folder.run("wallet address --wallet a --qr").ok().stdout;
    let (code, address) = shown.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(address, folder.run("wallet address --wallet a").ok().line());
    let expected = QrCode::with_error_correction_level(address.to_uppercase(), EcLevel::M).unwrap();
    let dark: Vec<bool> = expected.to_colors().iter().map(|c| *c == Color::Dark).collect();
    assert_eq!(modules(code, expected.width()), dark);
}

#[test]
fn accounts_are_added_and_labelled() {
    let net = Net::start(2);
    net.funded("a", "3.00");
    net.run("wallet accounts --wallet a --add 2").ok();
    net.run_with("wallet label --wallet a --account 1", &["rent & food"]).ok();
    let accounts = net.run("wallet accounts --wallet a --balances --json").ok().json();
    let accounts = accounts["accounts"].as_array().unwrap();
    assert_eq!(accounts.len(), 3);
    assert_eq!((&accounts[0]["balance"], &accounts[1]["balance"]), (&"3.00".into(), &"0.00".into()));
    assert_eq!(accounts[1]["label"], "rent & food");
    net.run("wallet accounts --wallet a --add 1000").fails(2, "USAGE");
    // From an account that was added later, to one of the same wallet.
    let second = accounts[1]["address"].as_str().unwrap();
    net.run(&format!("wallet pay --wallet a {second} 1")).ok();
    let first = net.address("a");
    net.run(&format!("wallet pay --wallet a --account 1 {first} 0.25")).ok();
    wait("the sum", || net.run("wallet balance --wallet a --all --json").ok().json()["total"] == "3.00");
}

#[test]
fn what_is_no_address_or_amount_is_refused_before_anything_is_signed() {
    let folder = Folder::new();
    folder.run("committee new --dir . --port 0 --passphrase-file pw").ok();
    let to = folder.run("wallet address --wallet issuer.wallet").ok().line();
    let other_currency = folder.run("wallet new --wallet x --network-id 7 --currency eur --decimals 2").ok();
    let euro = other_currency.stdout.lines().nth(1).unwrap();
    let mistyped = to.replace(&to[20..21], if &to[20..21] == "q" { "p" } else { "q" });
    let long = "m".repeat(257);
    let pay = "wallet pay --wallet issuer.wallet";
    for (arguments, status, code) in [
        ([&to, "0"].as_slice(), 3, "BAD_AMOUNT"),
        (&[&to, "-1"], 3, "BAD_AMOUNT"),
        (&[&to, "1.234"], 3, "BAD_AMOUNT"),
        (&[&to, "1e3"], 3, "BAD_AMOUNT"),
        (&[&to, "92233720368547758.08"], 3, "BAD_AMOUNT"),
        (&[&mistyped, "1"], 2, "BAD_ADDRESS"),
        (&[&to[..30], "1"], 2, "BAD_ADDRESS"),
        (&[euro, "1"], 2, "BAD_ADDRESS"),
        (&["", "1"], 2, "BAD_ADDRESS"),
        (&[&to, "1", "--to", &to], 2, "USAGE"),
        (&[&to, "1", "--account", "1"], 2, "USAGE"),
        (&[&to, "1", "--receipt", "committee.toml"], 2, "ALREADY_EXISTS"),
        (&[&to, "1", "--worker", "ftp://nowhere"], 2, "BAD_CONFIG"),
        (&[&to, "1", "--worker", "http://192.0.2.1:80"], 2, "BAD_CONFIG"),
    ] {
        let said = folder.run_with(pay, arguments).fails(status, code);
        assert!(said.stdout.is_empty(), "{said:?}");
    }
    folder.run(&format!("wallet pay --wallet x {to} 1")).fails(3, "WRONG_COMMITTEE");
    let said = folder.run_with(&format!("--json {pay}"), &[&to, "1.234"]);
    assert_eq!(said.json()["error"]["name"], "BAD_AMOUNT");
    // Nobody answers, and this wallet does not know its past: nothing is signed before it does.
    folder.run(&format!("{pay} --timeout 1s {to} 1")).fails(4, "QUORUM_UNREACHABLE");
    assert!(!folder.read("issuer.wallet.journal").contains("signed"));
    // With a known past, limits of the order itself are found before it is signed.
    folder.run("wallet new --wallet y").ok();
    let said = folder.run_with("wallet pay --wallet y", &[&to, "1", "--memo", &long]).fails(3, "LIMIT");
    assert!(said.stderr.contains("bytes of the memo: expected at most 256, found 257"));
    let sum = ["92233720368547758.07", "--to", &format!("{to} 0.01")];
    folder.run_with(&format!("wallet pay --wallet y {to}"), &sum).fails(3, "BAD_AMOUNT");
    let one = format!("{to} 1");
    let many = ["--to", one.as_str()].repeat(256);
    assert_eq!(folder.run_with(&format!("wallet pay --wallet y {to} 1"), &many).status, 3);
    assert!(!folder.read("y.journal").contains("signed"));
}

#[test]
fn two_people_pay_each_other() {
    let mut net = Net::start(2);
    let alice = net.funded("alice", "100.00");
    // Bob has told nobody of himself.
    net.run("wallet new --wallet bob --curve r1").ok();
    net.run("wallet new --wallet carol --curve k1 --words 24").ok();
    let (bob, carol) = (net.address("bob"), net.address("carol"));
    let paid = net.run_with(
        "wallet pay --wallet alice --receipt r.json --json",
        &[&bob, "12.50", "--to", &format!("{alice} 1"), "--to", &format!("{bob} 0.01"), "--memo", "lunch \u{1b}[31m"],
    );
    let paid = paid.ok();
    assert!(
        paid.stderr.contains("vote authority-") && paid.stderr.contains("certified") && paid.stderr.contains("final")
    );
    let value = paid.json();
    assert_eq!(
        (&value["status"], &value["seqnum"], &value["amount_minor"]),
        (&"final".into(), &1.into(), &"1351".into())
    );
    assert_eq!(value["outputs"].as_array().unwrap().len(), 3);
    assert!(value["final_ms"].as_f64().unwrap() >= value["certified_ms"].as_f64().unwrap());
    net.wait_for_balance("bob", "12.51");
    net.wait_for_balance("alice", "87.49");

    // The same command again is another payment, as the first one is final.
    net.run(&format!("wallet pay --wallet bob {alice} 0.5")).ok();
    net.run(&format!("wallet pay --wallet bob {alice} 0.5")).ok();
    net.wait_for_balance("bob", "11.51");
    let poor = net.run(&format!("wallet pay --wallet bob {alice} 11.52")).fails(3, "INSUFFICIENT_FUNDS");
    assert!(poor.stderr.contains("has 11.51 flr, this takes 11.52 flr"), "{poor:?}");
    assert_eq!(net.run("wallet resume --wallet bob").ok().line(), "nothing is pending");
    // Its sequence number is free.
    let value = net.run(&format!("wallet pay --json --wallet bob {carol} 11.51")).ok().json();
    assert_eq!(value["seqnum"], 3);
    net.run(&format!("wallet pay --wallet carol {alice} 11.51")).ok();
    net.wait_for_balance("alice", "100.00");

    let history = net.run("wallet history --wallet bob --json").ok().json();
    let lines: Vec<(&str, &str, &str)> = (history["payments"].as_array().unwrap().iter())
        .map(|p| (p["direction"].as_str().unwrap(), p["amount"].as_str().unwrap(), p["memo"].as_str().unwrap()))
        .collect();
    assert_eq!(lines[..3], [("sent", "11.51", ""), ("sent", "0.50", ""), ("sent", "0.50", "")]);
    assert_eq!(lines[3..].iter().map(|l| l.1).collect::<std::collections::BTreeSet<_>>(), ["0.01", "12.50"].into());
    assert_eq!(lines[4].2, "lunch \u{1b}[31m");
    let shown = net.run("wallet history --wallet bob").ok().stdout;
    assert!(!shown.contains('\u{1b}') && shown.contains("lunch"), "a memo reaches no terminal raw: {shown:?}");
    // Bob gets the receipt of what he received, by the payer's number from the history or her address.
    let payer = history["payments"][4]["with"][0].as_str().unwrap();
    net.run(&format!("wallet receipt --wallet bob 1 --from {payer} --out r2.json")).ok();
    net.run(&format!("wallet receipt --wallet bob 1 --from {alice} --out r3.json")).ok();
    let order = history["payments"][1]["order_id"].as_str().unwrap();
    net.run(&format!("wallet receipt --wallet bob {order} --out r4.json")).ok();
    net.run("wallet receipt --wallet bob 9 --out r5.json").fails(3, "no authority knows");
    net.run("wallet receipt --wallet bob 1 --out r4.json").fails(2, "ALREADY_EXISTS");
    (1..=4).for_each(|i| net.down(i));
    for receipt in ["r.json", "r2.json", "r3.json", "r4.json"] {
        net.run(&format!("receipt verify {receipt} --committee committee.toml")).ok();
    }
}

/// Whoever kept a refused order can offer it when the money is there. Another one for its number would split the votes.
#[test]
fn a_payment_refused_for_want_of_money_is_kept_until_it_is_dropped() {
    let net = Net::start(1);
    let alice = net.funded("alice", "5.00");
    let bob = net.wallet("bob");
    let (pay, resume) = (format!("wallet pay --wallet alice --json {bob}"), "wallet resume --wallet alice --json");
    // The wallet itself looks at the balance, and signs nothing.
    net.run(&format!("{pay} 6")).fails(3, "INSUFFICIENT_FUNDS");
    assert!(!net.read("alice.journal").contains("signed"));
    // Signed all the same: it stays, and the next payment waits for it.
    net.sign_without_looking("alice", &bob, 600);
    for command in [resume, &format!("{pay} 1")] {
        let said = net.run(command).fails(3, "INSUFFICIENT_FUNDS");
        let next = "`florin wallet drop --account 0` gives it up";
        assert!(said.stderr.contains("kept: it goes through") && said.stderr.contains(next), "{said:?}");
    }
    net.run(&format!("wallet pay --wallet issuer.wallet {alice} 1")).ok();
    net.wait_for_balance("alice", "6.00");
    assert_eq!(net.run(resume).ok().json()["finished"][0]["seqnum"], 1);
    net.wait_for_balance("bob", "6.00");

    net.run(&format!("wallet pay --wallet issuer.wallet {alice} 5")).ok();
    net.wait_for_balance("alice", "5.00");
    net.sign_without_looking("alice", &bob, 5_000);
    net.run(resume).fails(3, "INSUFFICIENT_FUNDS");
    let dropped = net.run("wallet drop --wallet alice --account 0 --json").ok();
    assert!(dropped.stderr.contains("can still hand it in"), "{dropped:?}");
    assert_eq!(dropped.json()["dropped"], serde_json::json!([2]));
    assert_eq!(net.run("wallet drop --wallet alice --account 0").ok().line(), "nothing is pending");
    assert_eq!(net.run(&format!("{pay} 1")).ok().json()["seqnum"], 2);
    // By now the journal knows what there is: it says no, and yes, where it must.
    assert_eq!(net.run(&format!("{pay} 4")).ok().json()["seqnum"], 3);
    net.run(&format!("{pay} 0.01")).fails(3, "INSUFFICIENT_FUNDS");
}

#[test]
fn a_payment_that_was_cut_off_is_finished_once() {
    let mut net = Net::start(1);
    net.funded("alice", "100.00");
    let bob = net.wallet("bob");
    let pay = format!("wallet pay --wallet alice {bob} 10");
    net.down(3);
    net.down(4);
    // Killed when its order is out and can't be certified.
    let mut child = net.command(&format!("{pay} --timeout 60s"), &[]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert!(line.starts_with("vote "), "{line}");
    net.run("wallet balance --wallet alice").fails(4, "BUSY");
    Process::new(child).kill();
    assert!(net.read("alice.journal").contains("signed"));

    let said = net.run(&format!("{pay} --timeout 1s")).fails(4, "QUORUM_UNREACHABLE");
    assert!(said.stderr.contains("authority-3") && said.stderr.contains("authority-4"), "{said:?}");
    assert!(said.stderr.contains("finishing 1 pending"), "{said:?}");
    net.run("wallet resume --wallet alice --timeout 1s").fails(4, "QUORUM_UNREACHABLE");
    let history = net.run("wallet history --wallet alice --json").ok().json();
    assert_eq!(
        (&history["payments"][0]["state"], &history["payments"][0]["amount"]),
        (&"pending".into(), &"10.00".into())
    );
    net.up(3);
    // The same command finishes it, and does not pay twice.
    let said = net.run(&pay).ok();
    assert!(said.stderr.contains("not made a second time"), "{said:?}");
    net.wait_for_balance("bob", "10.00");
    net.wait_for_balance("alice", "90.00");

    // Another command finishes it too, and then does its own work.
    net.down(3);
    net.run(&format!("{pay} --timeout 1s")).fails(4, "QUORUM_UNREACHABLE");
    net.up(3);
    let value = net.run(&format!("wallet pay --wallet alice --json {bob} 1")).ok().json();
    assert_eq!(value["seqnum"], 3);
    net.wait_for_balance("bob", "21.00");
    net.down(3);
    net.run(&format!("{pay} --timeout 1s")).fails(4, "QUORUM_UNREACHABLE");
    let lagging = net.run("wallet balance --wallet alice").ok();
    assert!(lagging.stderr.contains("1 of its payments are not final"), "{lagging:?}");
    net.up(4);
    let value = net.run("wallet resume --wallet alice --json").ok().json();
    assert_eq!((&value["finished"][0]["seqnum"], &value["refused"]), (&4.into(), &serde_json::json!([])));
    net.wait_for_balance("bob", "31.00");
}

#[test]
fn a_restored_wallet_goes_on_where_the_first_one_was() {
    let net = Net::start(1);
    net.funded("alice", "100.00");
    let bob = net.wallet("bob");
    net.run(&format!("wallet pay --wallet alice {bob} 1 --memo first")).ok();
    std::fs::write(net.path("words"), net.run("wallet backup --wallet alice").ok().line()).unwrap();
    let restored = net.run("wallet import --wallet elsewhere --words-file words --json").ok().json();
    assert_eq!(restored["orders"], serde_json::json!([1]));
    assert_eq!(net.run(&format!("wallet pay --wallet elsewhere --json {bob} 2")).ok().json()["seqnum"], 2);
    // The first one finds out by itself.
    let said = net.run(&format!("wallet pay --wallet alice --json {bob} 4")).ok();
    assert!(said.stderr.contains("another copy of this wallet has used seqnum 2"), "{said:?}");
    assert_eq!(said.json()["seqnum"], 3);
    net.wait_for_balance("bob", "7.00");
    let history = net.run("wallet history --wallet elsewhere --json").ok().json();
    let sent: Vec<&serde_json::Value> = history["payments"].as_array().unwrap().iter().collect();
    assert_eq!(sent[1]["memo"], "first", "also what only the network remembers: {history}");
    // A journal that got lost is no more than that.
    std::fs::remove_file(net.path("alice.journal")).unwrap();
    assert_eq!(net.run(&format!("wallet pay --wallet alice --json {bob} 8")).ok().json()["seqnum"], 4);
    // Another wallet's journal is refused.
    std::fs::copy(net.path("bob.journal"), net.path("alice.journal")).unwrap();
    net.run(&format!("wallet pay --wallet alice {bob} 8")).fails(2, "journal of another wallet");
}

#[test]
fn the_words_bring_back_a_payment_that_was_under_way() {
    let mut net = Net::start(1);
    net.funded("alice", "100.00");
    let bob = net.wallet("bob");
    std::fs::write(net.path("words"), net.run("wallet backup --wallet alice").ok().line()).unwrap();
    net.down(3);
    net.down(4);
    net.run(&format!("wallet pay --wallet alice --timeout 1s {bob} 1")).fails(4, "QUORUM_UNREACHABLE");
    for name in ["alice", "alice.journal"] {
        std::fs::remove_file(net.path(name)).unwrap();
    }
    // Two authorities have voted for it. Whoever signs another order now locks the account, so nobody may without
    // hearing of it.
    let offline = net.run("wallet import --wallet alice --words-file words").ok();
    assert!(offline.stderr.contains("The committee was not asked"), "{offline:?}");
    net.run(&format!("wallet pay --wallet alice --timeout 1s {bob} 2")).fails(4, "QUORUM_UNREACHABLE");
    net.up(3);
    let said = net.run(&format!("wallet pay --wallet alice --json {bob} 2")).ok();
    assert!(said.stderr.contains("finishing 1 pending"), "{said:?}");
    assert_eq!(said.json()["seqnum"], 2);
    net.wait_for_balance("bob", "3.00");
}

#[test]
fn balances_say_who_agrees() {
    let mut net = Net::start(1);
    net.funded("alice", "5.00");
    let all = net.run("wallet balance --wallet alice").ok();
    assert!(all.stdout.starts_with("5.00 flr"), "{all:?}");
    net.down(2);
    let said = net.run("wallet balance --wallet alice --json").ok();
    let value = said.json();
    assert_eq!(value["balance"], "5.00");
    assert!(value["agreeing"].as_u64() < Some(4));
    assert!(value["others"].as_array().unwrap().iter().any(|o| o["authority"] == "authority-2"), "{value}");
    assert!(said.stderr.contains("authority-2 does not agree: UNREACHABLE"), "{said:?}");
    // With two down, f + 1 = 2 are left: enough to say what is, not enough to change it.
    net.down(4);
    assert_eq!(net.balance("alice"), "5.00");
    let to = net.address("issuer.wallet");
    let said = net.run(&format!("wallet pay --wallet alice --timeout 1s {to} 1")).fails(4, "QUORUM_UNREACHABLE");
    assert!(said.stderr.contains("authority-2") && said.stderr.contains("authority-4"), "{said:?}");
    net.down(1);
    let said = net.run("wallet balance --wallet alice").fails(4, "QUORUM_UNREACHABLE");
    let names = ["authority-1", "authority-2", "authority-4"];
    assert!(names.iter().all(|name| said.stderr.contains(name)) && !said.stderr.contains("authority-3"), "{said:?}");
}

/// An authority whose votes are forged.
struct Forger;

#[tonic::async_trait]
impl AuthorityService for Forger {
    async fn vote(&self, _: Request<VoteRequest>) -> Result<Response<VoteReply>, Status> {
        let vote = Signed { authority: 3, bitmap: vec![1].into(), signature: vec![7; 64].into() };
        Ok(Response::new(VoteReply { vote: Some(vote), errors: Vec::new() }))
    }
    async fn account(&self, _: Request<AccountRequest>) -> Result<Response<AccountReply>, Status> {
        Ok(Response::new(AccountReply { balance: "99999999".into(), seqnum: 9, credits: 9, ..Default::default() }))
    }
    async fn order(&self, _: Request<OrderRequest>) -> Result<Response<OrderReply>, Status> {
        Ok(Response::new(OrderReply { state: 3, receipt: Some(Receipt::default()) }))
    }
    async fn credits(&self, _: Request<CreditsRequest>) -> Result<Response<CreditsReply>, Status> {
        let rich = CreditEntry { amount: 99_999_999, memo: "from a liar".into(), ..Default::default() };
        Ok(Response::new(CreditsReply { credits: vec![rich; 4], next: 0 }))
    }
    async fn settle(&self, _: Request<SettleRequest>) -> Result<Response<SettleReply>, Status> {
        Ok(Response::new(SettleReply::default()))
    }
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoReply>, Status> {
        Err(Status::unimplemented("no"))
    }
    async fn order_status(&self, _: Request<OrderStatusRequest>) -> Result<Response<OrderStatus>, Status> {
        Ok(Response::new(OrderStatus { state: 4, session: 99, calls: true, ..Default::default() }))
    }
    async fn networks(&self, _: Request<NetworksRequest>) -> Result<Response<NetworksReply>, Status> {
        Err(tonic::Status::unimplemented("no"))
    }

    async fn actor(&self, _: Request<ActorRequest>) -> Result<Response<ActorReply>, Status> {
        Err(tonic::Status::unimplemented("no"))
    }

    type ListenStream = tonic::codegen::BoxStream<ListenReply>;

    async fn listen(&self, _: Request<ListenRequest>) -> Result<Response<Self::ListenStream>, Status> {
        Err(tonic::Status::unimplemented("no"))
    }

    async fn notes(&self, _: Request<NotesRequest>) -> Result<Response<NotesReply>, Status> {
        Err(tonic::Status::unimplemented("no"))
    }
    async fn cash_keys(&self, _: Request<CashKeysRequest>) -> Result<Response<CashKeysReply>, Status> {
        Err(tonic::Status::unimplemented("no"))
    }

    async fn history(&self, _: Request<HistoryRequest>) -> Result<Response<HistoryReply>, Status> {
        Err(tonic::Status::unimplemented("no"))
    }

    type WatchOrderStream = tonic::codegen::BoxStream<OrderStatus>;
    async fn watch_order(&self, _: Request<OrderStatusRequest>) -> Result<Response<Self::WatchOrderStream>, Status> {
        Err(Status::unimplemented("no"))
    }
    async fn log(&self, _: Request<LogStatusRequest>) -> Result<Response<LogStatus>, Status> {
        Ok(Response::new(LogStatus { signed_sessions: u64::MAX, time_ms: u64::MAX, ..Default::default() }))
    }
    async fn sessions(&self, _: Request<SessionsRequest>) -> Result<Response<SessionsReply>, Status> {
        Ok(Response::new(SessionsReply { sessions: vec![SignedSession::default(); 9] }))
    }
    async fn units(&self, _: Request<UnitsRequest>) -> Result<Response<UnitsReply>, Status> {
        Ok(Response::new(UnitsReply { units: vec![OrderedUnit::default(); 9] }))
    }
    async fn channel(&self, _: Request<ChannelRequest>) -> Result<Response<ChannelReply>, Status> {
        Ok(Response::new(ChannelReply::default()))
    }

    async fn channels(&self, _: Request<ChannelsRequest>) -> Result<Response<ChannelsReply>, Status> {
        Ok(Response::new(ChannelsReply::default()))
    }

    async fn contract(&self, _: Request<ContractRequest>) -> Result<Response<ContractReply>, Status> {
        Ok(Response::new(ContractReply { state: 2, ..Default::default() }))
    }
    async fn primary(&self, _: Request<PrimaryRequest>) -> Result<Response<PrimaryReply>, Status> {
        Ok(Response::new(PrimaryReply { balance: u64::MAX, redeems: 9, ..Default::default() }))
    }
    async fn network(&self, _: Request<NetworkRequest>) -> Result<Response<NetworkReply>, Status> {
        Ok(Response::new(NetworkReply { network: Some(NetworkRecord::default()) }))
    }
}

#[test]
fn an_authority_that_lies_is_named_and_not_believed() {
    let mut net = Net::start(1);
    net.funded("alice", "5.00");
    let bob = net.wallet("bob");
    net.down(4);
    let committee = read_committee(&net.path("committee.toml")).unwrap();
    let key = secret("file:authority-4.key", &net.path("")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind(&committee.authorities[3].addresses[0])).unwrap();
    let routes = tonic::service::Routes::new(AuthorityServiceServer::new(Forger));
    let tls = Some(tls::server_config(&key).unwrap());
    runtime.spawn(serve(listener, tls, routes, server::Limits::default(), std::future::pending()));

    assert_eq!(net.balance("alice"), "5.00");
    let history = net.run("wallet history --wallet alice --json").ok().json();
    assert_eq!(history["payments"].as_array().unwrap().len(), 1, "{history}");
    // It claims later orders of an account than it can prove.
    std::fs::remove_file(net.path("alice.journal")).unwrap();
    net.down(3);
    let said = net.run(&format!("wallet pay -v --wallet alice --timeout 2s {bob} 1")).fails(4, "QUORUM_UNREACHABLE");
    assert!(said.stderr.contains("authority-4 broke the protocol: BAD_VOTE (607)"), "{said:?}");
    assert!(said.stderr.contains("authority-3 fails"), "{said:?}");
    net.up(3);
    let value = net.run("wallet resume --wallet alice --json").ok().json();
    assert_eq!(value["finished"][0]["seqnum"], 1);
}
