//! Payment channels as their users meet them: commands, real authorities, vouchers from hand to hand, wallets that die
//! or come back from an old copy.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net;

use std::process::Stdio;
use std::time::Instant;

use net::{Net, Said, wait};
use serde_json::Value;

fn channel(net: &Net, line: &str, wallet: &str) -> Said {
    net.run(&format!("channel {line} --wallet {wallet} --json"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

/// Minor units of an amount with two decimals.
fn minor(value: &Value) -> u64 {
    text(value).replace('.', "").parse().unwrap()
}

/// Alice with 200, Bob with an empty account, and a channel between them.
fn start(amount: &str, options: &str) -> (Net, String) {
    let net = Net::start(2);
    net.funded("alice", "200.00");
    net.wallet("bob");
    let bob = net.address("bob");
    let opened = channel(&net, &format!("open {amount} --to {bob} {options}"), "alice").ok().json();
    assert_eq!((&opened["open"], &opened["amount"]), (&true.into(), &amount.into()));
    (net, text(&opened["channel"]))
}

fn status(net: &Net, id: &str, wallet: &str) -> Value {
    channel(net, &format!("status {id}"), wallet).ok().json()
}

fn pay(net: &Net, id: &str, line: &str, wallet: &str) -> String {
    text(&channel(net, &format!("pay {id} {line}"), wallet).ok().json()["voucher"])
}

fn receive(net: &Net, voucher: &str, wallet: &str) -> Said {
    net.run_with(&format!("channel receive --json --wallet {wallet}"), &[voucher])
}

#[test]
fn a_channel_is_opened_paid_by_topped_up_and_closed() {
    let (net, id) = start("50.00", "--delay 15s --id first");
    // The same id again opens nothing else; an empty list says so.
    let bob = net.address("bob");
    let again = channel(&net, &format!("open 50.00 --to {bob} --delay 15s --id first"), "alice").ok().json();
    assert_eq!(again["channel"], id.as_str());
    assert_eq!(net.balance("alice"), "150.00");
    net.run("channel list --wallet issuer.wallet --json").ok();

    let (one, two) = (pay(&net, &id, "1.25", "alice"), pay(&net, &id[..10], "0.75", "alice"));
    assert!(one.starts_with("flrvoucher1"), "{one}");
    assert_eq!(receive(&net, &two, "bob").ok().json()["amount"], "2.00");
    // The older one adds nothing any more, the same one nothing again.
    receive(&net, &one, "bob").fails(3, "VOUCHER_NONCE");
    assert_eq!(receive(&net, &two, "bob").ok().json()["amount"], "0.00");
    let other = pay(&net, &id, "0.40 --lane 7", "alice");
    net.run_with("channel receive --json --min 0.41 --wallet bob", &[&other]).fails(3, "VOUCHER_DELTA");
    assert_eq!(receive(&net, &other, "bob").ok().json()["received"], "2.40");
    receive(&net, &other.replace('q', "p"), "bob").fails(3, "DECODE");
    receive(&net, &other, "alice").fails(3, "UNKNOWN_CHANNEL");

    // Short: it says what is missing. A reservation tops it up.
    let short = channel(&net, &format!("pay {id} 100"), "alice").fails(3, "CHANNEL_FUNDS");
    assert!(short.stderr.contains("52.40 flr more"), "{short:?}");
    channel(&net, &format!("reserve {id} 60 --off-chain"), "alice").fails(3, "RESERVE_SHORT");
    let reserved = channel(&net, &format!("reserve {id} 60"), "alice").ok().json();
    let now = status(&net, &id, "alice");
    assert_eq!(
        (&now["confirmed"], &now["available"], &now["reserved"]),
        (&"62.40".into(), &"0.00".into(), &"60.00".into())
    );
    channel(&net, &format!("release {id} {}", reserved["reservation"]), "alice").ok();
    channel(&net, &format!("fund {id} 10"), "alice").ok();
    assert_eq!(status(&net, &id, "alice")["available"], "70.00");

    // Bob redeems in the open channel; then Alice closes it, and what Bob still holds is redeemed by who watches.
    channel(&net, &format!("submit {id}"), "bob").ok();
    assert_eq!(status(&net, &id, "bob")["confirmed"], "2.40");
    receive(&net, &pay(&net, &id, "5", "alice"), "bob").ok();
    let (watching, _) = net.serve("channel watch --wallet bob");
    channel(&net, &format!("settle {id}"), "alice").ok();
    channel(&net, &format!("pay {id} 1"), "alice").fails(3, "CHANNEL_SETTLING");
    wait("the channel to be collected", || channel(&net, &format!("collect {id}"), "alice").status == 0);
    assert_eq!(watching.stop(), 0);
    net.wait_for_balance("bob", "7.40");
    net.wait_for_balance("alice", "192.60");
    assert_eq!(status(&net, &id, "alice")["state"], "collected");
}

#[test]
fn money_goes_both_ways_and_out_without_closing() {
    let (net, id) = start("10.00", "--two-way --delay 5s");
    receive(&net, &pay(&net, &id, "8", "alice"), "bob").ok();
    // Bob has said no keys yet.
    channel(&net, &format!("pay {id} 3"), "bob").fails(3, "CHANNEL_KEYS");
    channel(&net, &format!("keys {id}"), "bob").ok();
    receive(&net, &pay(&net, &id, "3", "bob"), "alice").ok();
    receive(&net, &pay(&net, &id, "4.50", "alice"), "bob").ok();
    assert_eq!(status(&net, &id, "bob")["available"], "9.50");
    channel(&net, &format!("submit {id}"), "bob").ok();
    channel(&net, &format!("submit {id}"), "alice").ok();
    // Alice lets Bob take 9 out.
    let permit = text(&channel(&net, &format!("permit {id} 9"), "alice").ok().json()["permit"]);
    net.run_with(&format!("channel withdraw {id} 9 --wallet bob --json --permit"), &[&permit]).ok();
    net.wait_for_balance("bob", "9.00");
    net.run_with(&format!("channel withdraw {id} 0.50 --wallet bob --json --permit"), &[&permit])
        .fails(3, "CHANNEL_FUNDS");
    // Without a word of Alice it takes the delay.
    channel(&net, &format!("withdraw {id} 0.50"), "bob").fails(3, "CHANNEL_NOT_DUE");
    channel(&net, &format!("withdraw {id} 0.50 --announce"), "bob").ok();
    wait("the announced withdrawal", || channel(&net, &format!("withdraw {id} 0.50"), "bob").status == 0);
    net.wait_for_balance("bob", "9.50");
    assert_eq!(status(&net, &id, "alice")["available"], "0.50");
}

#[test]
fn kill_9_of_a_payer_signs_nothing_twice_and_loses_no_voucher() {
    let (net, id) = start("50.00", "");
    let line = format!("channel pay {id} 0.05 --wallet alice --json");
    let began = Instant::now();
    let first = net.run(&line).ok().json();
    let whole = began.elapsed();
    let (mut best, mut last) = (text(&first["voucher"]), 5);
    for round in 0..12_u32 {
        let mut command = net.command(&line, &[]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + whole * round / 8;
        while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let _ = child.kill();
        let said = child.wait_with_output().unwrap();
        if let Ok(value) = serde_json::from_slice::<Value>(&said.stdout) {
            // A voucher that got out is worth one payment more than the one before, or than one that did not get out.
            let total = minor(&value["lane_amount"]);
            assert!(total > last && total.is_multiple_of(5), "{value}");
            (best, last) = (text(&value["voucher"]), total);
        }
        receive(&net, &best, "bob").ok();
    }
    let all = channel(&net, &format!("vouchers {id} --all"), "alice").ok().json();
    let nonces: Vec<u64> = all["vouchers"].as_array().unwrap().iter().map(|v| v["nonce"].as_u64().unwrap()).collect();
    assert!(nonces.windows(2).all(|w| w[0] < w[1]), "{nonces:?}");
    let paid = status(&net, &id, "alice");
    assert_eq!(minor(&paid["committed"]), 5 * nonces.len() as u64);
    channel(&net, &format!("submit {id}"), "bob").ok();
    assert_eq!(minor(&status(&net, &id, "bob")["confirmed"]), last);
}

#[test]
fn an_old_copy_of_the_journal_signs_nothing_once_the_log_shows_that_it_is_old() {
    let (net, id) = start("50.00", "");
    receive(&net, &pay(&net, &id, "1", "alice"), "bob").ok();
    std::fs::copy(net.path("alice.channels"), net.path("old")).unwrap();
    receive(&net, &pay(&net, &id, "1", "alice"), "bob").ok();
    channel(&net, &format!("submit {id}"), "bob").ok();
    std::fs::copy(net.path("old"), net.path("alice.channels")).unwrap();
    let now = status(&net, &id, "alice");
    assert_eq!((&now["diverged"], &now["available"]), (&true.into(), &"48.00".into()));
    channel(&net, &format!("pay {id} 1"), "alice").fails(3, "CHANNEL_DIVERGED");
    // A journal of somebody else, and a damaged one.
    std::fs::copy(net.path("bob.channels"), net.path("alice.channels")).unwrap();
    let damaged = net.read("old").replacen("record", "recorb", 1);
    std::fs::write(net.path("alice.channels"), damaged).unwrap();
    channel(&net, "list", "alice").fails(2, "BAD_FILE");
}

#[test]
fn vouchers_go_on_without_a_network_and_the_rest_when_it_is_back() {
    let (mut net, id) = start("50.00", "--delay 5s");
    receive(&net, &pay(&net, &id, "1", "alice"), "bob").ok();
    (1..=4).for_each(|i| net.down(i));
    let voucher = pay(&net, &id, "1", "alice");
    assert_eq!(
        net.run_with("channel receive --json --offline --wallet bob", &[&voucher]).ok().json()["amount"],
        "1.00"
    );
    let funded = channel(&net, &format!("fund {id} 10 --timeout 1s --wait 1s"), "alice");
    assert_eq!(funded.status, 4, "{funded:?}");
    (1..=4).for_each(|i| net.up(i));
    wait("bob's vouchers to be redeemed", || channel(&net, &format!("submit {id}"), "bob").status == 0);
    assert_eq!(status(&net, &id, "bob")["confirmed"], "2.00");
    // Killed while it settles: the next command goes on with the same order.
    let size = || std::fs::metadata(net.path("alice.channels")).unwrap().len();
    let before = size();
    let mut child = net.command(&format!("channel settle {id} --wallet alice"), &[]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait("the settle to be written down", || size() > before);
    let _ = child.kill();
    let _ = child.wait();
    wait("the settle", || {
        let _ = channel(&net, &format!("settle {id}"), "alice");
        ["settling", "collected"].contains(&status(&net, &id, "alice")["state"].as_str().unwrap())
    });
    wait("the collect", || channel(&net, &format!("collect {id}"), "bob").status == 0);
    net.wait_for_balance("bob", "2.00");
    net.wait_for_balance("alice", "198.00");
}

#[test]
fn a_watchtower_redeems_for_who_is_away_and_can_do_nothing_else() {
    let (net, id) = start("50.00", "--delay 15s");
    net.wallet("tower");
    let tower = net.address("tower");
    receive(&net, &pay(&net, &id, "1", "alice"), "bob").ok();
    let delegate = |net: &Net| channel(net, &format!("delegate {id} --to {tower} --out bob.watched"), "bob");
    // It signs that the tower may, so it has to say its keys first.
    delegate(&net).fails(3, "CHANNEL_KEYS");
    channel(&net, &format!("keys {id}"), "bob").ok();
    assert_eq!(delegate(&net).ok().json()["vouchers"], 1);
    net.wallet("mallory");
    std::fs::write(net.path("junk"), "junk").unwrap();
    let (other, _) = net.serve("channel tower bob.watched junk --wallet mallory");
    let (tower, _) = net.serve("channel tower bob.watched --wallet tower");
    receive(&net, &pay(&net, &id, "2.50", "alice"), "bob").ok();
    assert_eq!(delegate(&net).ok().json()["vouchers"], 1);
    // Bob is away from here on.
    channel(&net, &format!("settle {id}"), "alice").ok();
    wait("the collect", || channel(&net, &format!("collect {id}"), "alice").status == 0);
    net.wait_for_balance("bob", "3.50");
    net.wait_for_balance("alice", "196.50");
    assert_eq!((tower.stop(), other.stop()), (0, 0));
    assert!(net.read("servers.log").contains("watcher of the channel"), "a file for another tower is refused");
}
