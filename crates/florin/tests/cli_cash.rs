//! E-cash as its users meet it: commands, real authorities, strings from hand to hand, wallets that die.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net;

use std::process::Stdio;
use std::time::Duration;

use florin_client::cash::text::frames;
use net::{Net, Said, exists, wait};
use serde_json::Value;

/// Four authorities that have made the keys of e-cash.
fn start(shards: u32) -> Net {
    let net = Net::start(shards);
    wait("the keys of e-cash", || {
        let said = net.run("committee dkg --json");
        said.status == 0 && said.json()["phase"] == "active"
    });
    net
}

fn cash(net: &Net, line: &str, wallet: &str) -> Said {
    net.run(&format!("cash {line} --wallet {wallet} --json"))
}

/// What a wallet has in cash that it can spend.
fn balance(net: &Net, wallet: &str) -> String {
    text(&cash(net, "balance", wallet).ok().json()["balance"])
}

/// All minor units of a wallet's cash, wherever they are.
fn all(net: &Net, wallet: &str) -> u64 {
    let value = cash(net, "balance --offline", wallet).ok().json();
    ["balance_minor", "received_minor", "sent_minor", "in_orders_minor"]
        .iter()
        .map(|name| text(&value[name]).parse::<u64>().unwrap())
        .sum()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

/// Sends, and gives number and string.
fn send(net: &Net, line: &str, wallet: &str) -> (u64, String) {
    let value = cash(net, &format!("send {line}"), wallet).ok().json();
    (value["number"].as_u64().unwrap(), text(&value["notes"]))
}

fn copy(net: &Net, from: &str, to: &str) {
    for end in ["", ".journal", ".cash"] {
        std::fs::copy(net.path(&format!("{from}{end}")), net.path(&format!("{to}{end}"))).unwrap();
    }
}

#[test]
fn cash_goes_from_hand_to_hand() {
    let net = start(2);
    net.funded("alice", "200.00");
    net.wallet("bob");
    net.wallet("carol");
    let made = cash(&net, "withdraw 100", "alice").ok().json();
    assert_eq!((&made["amount"], &made["status"]), (&"100.00".into(), &"final".into()));
    assert_eq!((balance(&net, "alice"), net.balance("alice")), ("100.00".into(), "100.00".into()));
    let tiers = net.run("cash balance --notes --offline --wallet alice").ok().stdout;
    assert!(tiers.contains("tier  worth") && tiers.contains("0.01"), "{tiers}");

    let (number, string) = send(&net, "12.50 --memo lunch", "alice");
    assert!(string.starts_with("flrcash1"));
    // Shown again, it is the same.
    let again = cash(&net, &format!("sent {number}"), "alice").ok().json();
    assert_eq!(again["notes"], string.as_str());
    let got = net.run_with("cash receive --json --wallet bob", &[&string]).ok().json();
    assert_eq!((&got["received"], &got["memo"]), (&"12.50".into(), &"lunch".into()));
    assert_eq!((balance(&net, "bob"), balance(&net, "alice")), ("12.50".into(), "87.50".into()));
    let listed = net.run("cash sent --wallet alice").ok().stdout;
    assert!(listed.contains("claimed") && listed.contains("lunch"), "{listed}");

    // The same string once more: the wallet that had it knows, another one is told plainly.
    net.run_with("cash receive --wallet bob", &[&string]).fails(2, "USAGE");
    let late = net.run_with("cash receive --json --wallet carol", &[&string]).fails(3, "NOTE_SPENT");
    assert_eq!((&late.json()["received"], &late.json()["error"]["name"]), (&"0.00".into(), &"NOTE_SPENT".into()));
    assert!(late.stderr.contains("12.50 flr") && late.stderr.contains("was faster"), "{late:?}");
    cash(&net, &format!("cancel {number}"), "alice").fails(3, "NOTE_SPENT");

    // What nobody claims comes back.
    let (number, string) = send(&net, "3.33", "alice");
    net.run_with("cash receive --wallet alice", &[&string]).fails(2, "cash cancel");
    assert_eq!(cash(&net, &format!("cancel {number}"), "alice").ok().json()["taken_back"], "3.33");
    net.run_with("cash receive --wallet bob", &[&string]).fails(3, "NOTE_SPENT");
    assert_eq!(balance(&net, "alice"), "87.50");

    // Damaged, false, or not for here.
    let damaged = string.replacen("flrcash1", "flrcash1q", 1);
    net.run_with("cash receive --wallet bob", &[&damaged]).fails(3, "DECODE");
    net.run_with("cash receive --wallet bob", &["flrkey1qqq"]).fails(3, "DECODE");

    // Back to accounts.
    let bob = net.address("bob");
    cash(&net, &format!("deposit 7.50 --to {bob} --memo thanks"), "alice").ok();
    cash(&net, "deposit --all", "bob").ok();
    net.wait_for_balance("bob", "20.00");
    assert_eq!((balance(&net, "alice"), balance(&net, "bob")), ("80.00".into(), "0.00".into()));
    cash(&net, "deposit --all", "bob").fails(3, "INSUFFICIENT_FUNDS");
    cash(&net, "send 80.01", "alice").fails(3, "INSUFFICIENT_FUNDS");
    cash(&net, "send 0", "alice").fails(3, "BAD_AMOUNT");
    cash(&net, "withdraw 100.01", "alice").fails(3, "INSUFFICIENT_FUNDS");
    assert_eq!(cash(&net, "balance", "alice").ok().json()["open_orders"], 0);
    // All that there is can be sent, to the last unit.
    let (_, string) = send(&net, "80", "alice");
    net.run_with("cash receive --wallet carol", &[&string]).ok();
    assert_eq!((balance(&net, "alice"), balance(&net, "carol")), ("0.00".into(), "80.00".into()));
}

#[test]
fn strings_travel_as_files_and_frames() {
    let net = start(1);
    net.funded("alice", "50.00");
    net.wallet("bob");
    cash(&net, "withdraw 40", "alice").ok();
    // With an id the same command gives the same string, and takes nothing twice.
    let first = send(&net, "5.55 --id shop-1", "alice");
    assert_eq!(first, send(&net, "5.55 --id shop-1", "alice"));
    cash(&net, "send 5.56 --id shop-1", "alice").fails(2, "USAGE");
    assert_eq!(balance(&net, "alice"), "34.45");
    std::fs::write(net.path("frames"), frames(&first.1, 120).join("\n")).unwrap();
    let half: String = frames(&first.1, 120).into_iter().skip(1).collect::<Vec<_>>().join("\n");
    std::fs::write(net.path("half"), half).unwrap();
    net.run("cash receive --file half --wallet bob").fails(2, "BAD_FILE");
    net.run("cash receive --file frames --wallet bob").ok();
    assert_eq!(balance(&net, "bob"), "5.55");

    net.run("cash send 1.23 --out note --wallet alice").ok();
    assert!(exists(&net.path("note")));
    net.run("cash send 1.23 --out note --wallet alice").fails(2, "ALREADY_EXISTS");
    net.run_reading("cash receive --file - --wallet bob", &net.read("note")).ok();
    assert_eq!((balance(&net, "bob"), balance(&net, "alice")), ("6.78".into(), "33.22".into()));
    let shown = net.run("cash send 3.33 --qr --wallet alice").ok().stdout;
    assert!(shown.contains("█") && shown.contains("2 of "), "{shown}");
}

#[test]
fn a_receiver_without_a_network_is_told_what_is_proved() {
    let mut net = start(1);
    net.funded("alice", "50.00");
    net.wallet("bob");
    net.wallet("carol");
    cash(&net, "withdraw 40", "alice").ok();
    let (_, plain) = send(&net, "5", "alice");
    // Bob's wallet has never been online.
    net.run_with("cash receive --offline --wallet bob", &[&plain]).fails(4, "CASH_NOT_READY");
    balance(&net, "bob");
    let key = net.run("cash request --wallet bob").ok().line();
    let (number, locked) = send(&net, &format!("6 --to {key} --back-after 1h"), "alice");
    let (early, soon) = send(&net, &format!("7 --to {key} --back-after 1s"), "alice");
    (1..=4).for_each(|i| net.down(i));

    let said = net.run_with("cash receive --offline --wallet bob", &[&plain]).ok();
    assert!(said.stderr.contains("NOT PROVED") && said.stdout.contains("5.00 flr"), "{said:?}");
    let said = net.run_with("cash receive --offline --wallet bob", &[&locked]).ok();
    assert!(!said.stderr.contains("NOT PROVED") && said.stdout.contains("yours alone until"), "{said:?}");
    let value = net.run_with("cash receive --offline --json --wallet bob", &[&locked]).ok().json();
    assert!(value["until_ms"].as_u64().is_some(), "taken once, shown again: {value}");
    // Somebody else can't take what is locked, nor what was made up.
    net.run_with("cash receive --offline --wallet carol", &[&locked]).fails(4, "CASH_NOT_READY");
    assert_eq!(all(&net, "bob"), 1_100);
    let held = cash(&net, "balance --offline", "bob").ok().json();
    assert_eq!((&held["balance"], &held["received_minor"]), (&"0.00".into(), &"1100".into()));

    (1..=4).for_each(|i| net.up(i));
    net.run_with("cash receive --wallet carol", &[&locked]).fails(3, "BAD_NOTE");
    cash(&net, &format!("cancel {number}"), "alice").fails(3, "NOTE_NOT_DUE");
    // The next command with a network makes them its own.
    assert_eq!(balance(&net, "bob"), "11.00");
    // After its date the sender is as good as the receiver: it takes it back.
    assert_eq!(cash(&net, &format!("cancel {early}"), "alice").ok().json()["taken_back"], "7.00");
    net.run_with("cash receive --wallet bob", &[&soon]).fails(3, "NOTE_SPENT");
    assert_eq!(balance(&net, "alice"), "29.00");
    cash(&net, &format!("cancel {number}"), "alice").fails(3, "NOTE_SPENT");
}

#[test]
fn a_double_spend_is_told_and_the_rest_is_kept() {
    let net = start(1);
    net.funded("alice", "50.00");
    net.wallet("bob");
    net.wallet("carol");
    cash(&net, "withdraw 40", "alice").ok();
    copy(&net, "alice", "thief");
    // 7.00 is 5.12 and five smaller notes; the copy has the same 5.12.
    let (_, string) = send(&net, "7", "alice");
    let (_, stolen) = send(&net, "5.12", "thief");
    net.run_with("cash receive --wallet carol", &[&stolen]).ok();
    let said = net.run_with("cash receive --json --wallet bob", &[&string]).fails(3, "NOTE_SPENT");
    let value = said.json();
    assert_eq!((&value["received"], &value["of"]), (&"1.88".into(), &"7.00".into()));
    assert_eq!((&value["spent_before"][0]["tier"], value["spent_before"].as_array().unwrap().len()), (&9.into(), 1));
    assert_eq!((balance(&net, "bob"), balance(&net, "carol")), ("1.88".into(), "5.12".into()));
}

#[test]
fn words_bring_cash_back_and_two_copies_spend_it_once() {
    let net = start(2);
    let address = net.funded("alice", "100.00");
    net.wallet("bob");
    cash(&net, "withdraw 60", "alice").ok();
    let (_, string) = send(&net, "12.34", "alice");
    net.run_with("cash receive --wallet bob", &[&string]).ok();
    cash(&net, "withdraw 1.11", "alice").ok();
    let words = net.run("wallet backup --wallet alice").ok().line();
    std::fs::write(net.path("words"), words).unwrap();
    net.run("wallet import --wallet again --words-file words").ok();
    assert_eq!(balance(&net, "again"), "48.77");
    assert_eq!(cash(&net, "recover", "again").ok().json()["found_notes"], 0);
    // Both go on: what one has made the other finds, what one has spent the other notices.
    cash(&net, "withdraw 2", "again").ok();
    cash(&net, "withdraw 3", "alice").ok();
    wait("alice's order", || net.balance("alice") == "33.89");
    assert_eq!(balance(&net, "alice"), "53.77", "its own, and those of the copy");
    cash(&net, "recover", "again").ok();
    assert_eq!(balance(&net, "again"), "53.77");
    // The very same order would be the same one, and settle once.
    cash(&net, "deposit --all --memo again", "again").ok();
    let late = cash(&net, "deposit --all", "alice");
    late.fails(4, "copy of this wallet");
    assert_eq!(balance(&net, "alice"), "0.00");
    wait("the deposit", || {
        let accounts = net.run("wallet balance --json --wallet alice").ok().json();
        accounts["balance"] == "87.66"
    });
    assert_eq!((balance(&net, "bob"), net.address("again")), ("12.34".into(), address));
}

/// Runs a command of cash and kills it after a while; whether it had ended by then.
fn killed(net: &Net, line: &str, more: &[&str], after: Duration) -> bool {
    let mut child = net.command(line, more).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(after);
    let ended = child.try_wait().unwrap().is_some();
    let _ = child.kill();
    let _ = child.wait();
    ended
}

#[test]
fn kill_9_of_a_wallet_loses_nothing() {
    let net = start(2);
    net.funded("alice", "300.00");
    net.wallet("bob");
    cash(&net, "withdraw 100", "alice").ok();
    balance(&net, "bob");
    // How long the commands take here.
    let began = std::time::Instant::now();
    let (_, string) = send(&net, "0.01", "alice");
    net.run_with("cash receive --wallet bob", &[&string]).ok();
    let whole = began.elapsed() / 2;
    let mut sent = 1;
    for step in 1..=10u32 {
        let after = whole * step / 9;
        killed(&net, "cash withdraw 3.21 --wallet alice", &[], after);
        cash(&net, "balance", "alice").ok();
        let id = format!("step-{step}");
        // Whatever became of it: with the id it is sent once.
        let line = format!("cash send 1.37 --id {id} --wallet alice");
        killed(&net, &line, &[], after);
        let (_, string) = send(&net, &format!("1.37 --id {id}"), "alice");
        sent += 137;
        killed(&net, "cash receive --wallet bob", &[&string], after);
        // Had it not begun, the string is as good as before.
        let again = net.run_with("cash receive --wallet bob", &[&string]);
        assert!(again.status == 0 || again.stderr.contains("came in before"), "{again:?}");
    }
    assert_eq!(balance(&net, "bob"), format!("{}.{:02}", sent / 100, sent % 100));
    cash(&net, "deposit 2.22 --account 0", "bob").ok();
    killed(&net, "cash deposit 3.33 --wallet bob", &[], whole / 2);
    balance(&net, "bob");
    // Not a unit more or less than the issuer has paid.
    wait("all to be where it belongs", || {
        let account = |wallet: &str| net.balance(wallet).replace('.', "").parse::<u64>().unwrap();
        let value = cash(&net, "balance", "alice").ok().json();
        let of_alice = text(&value["balance_minor"]).parse::<u64>().unwrap();
        account("alice") + account("bob") + of_alice + all(&net, "bob") == 30_000
    });
}

#[test]
fn a_dead_authority_keeps_nobody_from_paying() {
    let mut net = start(1);
    net.funded("alice", "50.00");
    net.wallet("bob");
    net.down(3);
    cash(&net, "withdraw 20", "alice").ok();
    let (_, string) = send(&net, "9.99", "alice");
    net.down(2);
    // Two of four are too few: what came in is kept.
    net.run_with("cash receive --timeout 2s --wallet bob", &[&string]).fails(4, "QUORUM_UNREACHABLE");
    net.up(3);
    net.run_with("cash receive --wallet bob", &[&string]).ok();
    assert_eq!(balance(&net, "bob"), "9.99");
}

#[test]
fn notes_that_two_orders_hold_are_frozen_by_the_log() {
    let mut net = start(1);
    net.funded("alice", "50.00");
    cash(&net, "withdraw 10", "alice").ok();
    copy(&net, "alice", "again");
    // Each of two orders for the same notes gets two votes.
    [3, 4].iter().for_each(|i| net.down(*i));
    cash(&net, "deposit --all --memo one --timeout 2s", "alice").fails(4, "QUORUM_UNREACHABLE");
    [3, 4].iter().for_each(|i| net.up(*i));
    [1, 2].iter().for_each(|i| net.down(*i));
    cash(&net, "deposit --all --memo two --timeout 2s", "again").fails(4, "QUORUM_UNREACHABLE");
    [1, 2].iter().for_each(|i| net.up(*i));
    let held = cash(&net, "balance", "alice").ok();
    assert!(held.stderr.contains("still open") && held.json()["in_orders_minor"] == "1000", "{held:?}");
    // The log needs ten minutes to decide; simulations wait for it.
    let waiting = cash(&net, "recover --wait 5s", "alice").fails(4, "TIMEOUT");
    assert!(waiting.stderr.contains("asked to free"), "{waiting:?}");
    wait("the notes to be frozen", || cash(&net, "balance", "again").ok().stderr.contains("RECOVERING"));
    cash(&net, "recover --wait 2s", "again").fails(4, "TIMEOUT");
}
