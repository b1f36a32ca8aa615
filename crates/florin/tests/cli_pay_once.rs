//! `florin wallet pay --id`: repeated until it says final, it has paid once, whatever was killed in between.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use florin_client::network::{Network, Patience};
use florin_client::receipt_file;
use florin_core::receipt::verify;
use florin_node::config::read_committee;
use net::{Net, PATIENCE, Process, Said};
use serde_json::Value;

/// When a payment is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// At once.
    Start,
    /// When the order is in the journal, and so much later.
    Signed(Duration),
    /// When it says this.
    Says(&'static str),
}

/// Starts a payment and kills it (SIGKILL) at a moment, if it lives that long. Says whether it was killed.
fn kill_at(net: &Net, pay: &str, id: &str, moment: Moment) -> bool {
    let mut child = net.command(pay, &["--id", id]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (heard, lines) = mpsc::channel();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let reader = std::thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|l| drop(heard.send(l))));
    let deadline = Instant::now() + PATIENCE;
    let mut signed = None;
    let ended = loop {
        if child.try_wait().unwrap().is_some() {
            break true;
        }
        if signed.is_none() && net.read("alice.journal").contains(&format!("\"id\":\"{id}\"")) {
            signed = Some(Instant::now());
        }
        let come = match moment {
            Moment::Start => true,
            Moment::Signed(later) => signed.is_some_and(|at| at.elapsed() >= later),
            Moment::Says(word) => lines.try_iter().any(|line| line.starts_with(word)),
        };
        if come {
            break false;
        }
        assert!(Instant::now() < deadline, "{moment:?} never came");
    };
    Process::new(child).kill();
    reader.join().unwrap();
    !ended
}

/// Repeats a payment until it reports final, and gives what it said.
fn until_final(net: &Net, pay: &str, id: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = net.run_with(pay, &["--id", id]);
        if said.status == 0 {
            return said.json();
        }
        // Only what says that it may work later.
        assert_eq!(said.status, 4, "{said:?}");
        assert!(Instant::now() < deadline, "never final: {said:?}");
    }
}

fn order(value: &Value) -> String {
    assert_eq!(value["status"], "final", "{value}");
    value["order_id"].as_str().unwrap().to_owned()
}

const MOMENTS: [Moment; 9] = [
    Moment::Start,
    Moment::Signed(Duration::ZERO),
    Moment::Signed(Duration::from_millis(1)),
    Moment::Signed(Duration::from_millis(4)),
    Moment::Signed(Duration::from_millis(10)),
    Moment::Says("vote"),
    Moment::Says("certified"),
    Moment::Says("settled"),
    Moment::Says("final"),
];

/// Every moment has an id of its own; the payments are equal otherwise.
fn kill_at_every_moment(net: &Net, pay: &str) {
    let mut orders = BTreeSet::new();
    let mut killed = 0;
    for (i, moment) in MOMENTS.into_iter().enumerate() {
        killed += u32::from(kill_at(net, pay, &format!("order {i}"), moment));
        orders.insert(order(&until_final(net, pay, &format!("order {i}"))));
    }
    assert!(killed > 0, "every payment was faster than its killer");
    // One payment that is killed again and again, each time a little later.
    let mut later = Duration::ZERO;
    while kill_at(net, pay, "again", Moment::Signed(later)) {
        later = later * 3 / 2 + Duration::from_millis(1);
        assert!(later < PATIENCE);
    }
    orders.insert(order(&until_final(net, pay, "again")));
    assert_eq!(orders.len(), MOMENTS.len() + 1, "each id has its own order");
    // Nothing is pending that could still pay, and no repetition pays.
    assert_eq!(net.run("wallet resume --wallet alice").ok().line(), "nothing is pending");
    for i in 0..MOMENTS.len() {
        assert!(orders.contains(&order(&until_final(net, pay, &format!("order {i}")))));
    }
    net.wait_for_balance("bob", "10.00");
    net.wait_for_balance("alice", "90.00");
    assert_eq!(net.run("wallet history --wallet alice --limit 256 --json").ok().json()["payments"][0]["seqnum"], 10);
}

#[test]
fn killed_at_any_moment_it_pays_once() {
    let net = Net::start(1);
    net.funded("alice", "100.00");
    let bob = net.wallet("bob");
    kill_at_every_moment(&net, &format!("wallet pay --wallet alice --json {bob} 1"));
}

#[test]
fn killed_at_any_moment_it_pays_once_through_a_worker() {
    let net = Net::start(1);
    net.funded("alice", "100.00");
    let bob = net.wallet("bob");
    let run = "worker run --listen 127.0.0.1:0 --journal worker.journal";
    let (worker, ready) = net.serve(run);
    let pay = |ready: &str| format!("wallet pay --wallet alice --json --worker {} {bob} 1", &ready["ready ".len()..]);
    kill_at_every_moment(&net, &pay(&ready));
    // The worker dies with the payment; another one finishes both what it kept and what the wallet kept.
    kill_at(&net, &pay(&ready), "last", Moment::Signed(Duration::ZERO));
    worker.kill();
    net.run_with(&pay(&ready), &["--id", "last"]).fails(4, "UNREACHABLE");
    let (_worker, ready) = net.serve(run);
    until_final(&net, &pay(&ready), "last");
    net.wait_for_balance("bob", "11.00");
    net.wait_for_balance("alice", "89.00");
}

/// What an id is bound to: everything that makes another payment of it is refused.
fn refuses_all_others(net: &Net, to: &str, id: &str) {
    let journal = net.read("alice.journal");
    let other = net.address("alice");
    for (line, why) in [
        (format!("{to} 2"), "expected 1.00 flr to flr1"),
        (format!("{other} 1"), "expected 1.00 flr to flr1"),
        (format!("{to} 1 --memo gift"), "memo of the payment"),
        (format!("{to} 1 --account 1"), "expected 0, found 1"),
    ] {
        let said = net.run_with(&format!("wallet pay --wallet alice {line}"), &["--id", id]).fails(2, "USAGE");
        assert!(said.stderr.contains(why) && said.stderr.contains("found") && said.stdout.is_empty(), "{said:?}");
    }
    let more = net.run_with(&format!("wallet pay --wallet alice {to} 1"), &["--id", id, "--to", &format!("{to} 1")]);
    assert!(more.fails(2, "USAGE").stderr.contains("expected 1, found 2"));
    assert_eq!(net.read("alice.journal"), journal, "nothing was signed or finished");
}

#[test]
fn a_final_payment_is_shown_again_and_an_id_is_one_payment() {
    let mut net = Net::start(1);
    net.funded("alice", "10.00");
    net.run("wallet accounts --wallet alice --add 1").ok();
    let bob = net.wallet("bob");
    let pay = format!("wallet pay --wallet alice --json --timeout 1s {bob} 1");
    let paying =
        |net: &Net, more: &[&str]| -> Said { net.run_with(&pay, &[&["--id", "Rechnung 17/ä"], more].concat()) };
    // It is bound from the moment when it is signed.
    net.down(1);
    net.down(2);
    paying(&net, &[]).fails(4, "QUORUM_UNREACHABLE");
    refuses_all_others(&net, &bob, "Rechnung 17/ä");
    net.up(1);
    net.up(2);
    let first = paying(&net, &["--receipt", "r.json"]).ok().json();
    assert_eq!((&first["id"], &first["seqnum"]), (&"Rechnung 17/ä".into(), &1.into()));
    net.wait_for_balance("bob", "1.00");
    // Another id, or none, is another payment.
    let second = net.run_with(&pay, &["--id", "Rechnung 18/ä"]).ok().json();
    let third = net.run(&pay).ok().json();
    assert_eq!((&second["seqnum"], &third["seqnum"], &third["id"]), (&2.into(), &3.into(), &Value::Null));
    net.wait_for_balance("bob", "3.00");

    // Nobody needs to be asked any more, not even for the passphrase. A receipt is saved as often as asked for.
    (1..=4).for_each(|i| net.down(i));
    std::fs::remove_file(net.path("pw")).unwrap();
    for receipt in ["r.json", "r2.json"] {
        let again = paying(&net, &["--receipt", receipt]).ok();
        assert!(again.stderr.contains("not made a second time"), "{again:?}");
        let again = again.json();
        for field in ["status", "order_id", "seqnum", "amount", "outputs", "memo", "account", "id"] {
            assert_eq!(again[field], first[field], "{field}");
        }
        net.run(&format!("receipt verify {receipt} --committee committee.toml")).ok();
        let committee = read_committee(&net.path("committee.toml")).unwrap();
        let proved = verify(&committee, &receipt_file::load(&net.path(receipt)).unwrap()).unwrap();
        assert_eq!(hex::encode(proved.id), order(&first));
    }
    paying(&net, &["--receipt", "committee.toml"]).fails(2, "ALREADY_EXISTS");
    net.run_with(&pay, &["--id", "Rechnung 18/ä", "--receipt", "r.json"]).fails(2, "ALREADY_EXISTS");
    refuses_all_others(&net, &bob, "Rechnung 17/ä");
    for id in ["", "a\nb", "\u{1b}[31m", "\u{202e}", &"x".repeat(65)] {
        net.run_with(&pay, &["--id", id]).fails(2, "1 to 64 printable characters");
    }
}

/// Envelopes that a journal says were signed for an id.
fn envelopes(net: &Net, id: &str) -> Vec<bytes::Bytes> {
    let journal = net.read("alice.journal");
    let lines = journal.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let records = lines.flat_map(|line| line["records"].as_array().unwrap().clone());
    let signed = records.filter(|r| r["id"] == id).map(|r| r["envelope"].as_str().unwrap().to_owned());
    signed.map(|envelope| hex::decode(envelope).unwrap().into()).collect()
}

#[test]
fn a_dropped_payment_is_tried_again_and_never_made_twice() {
    let mut net = Net::start(1);
    net.funded("alice", "100.00");
    let bob = net.wallet("bob");
    let pay = format!("wallet pay --wallet alice --json --timeout 2s {bob} 7");
    let drop = "wallet drop --wallet alice --account 0";
    // Three payments that nobody can tell apart but by their ids; each would take the same number.
    net.down(3);
    net.down(4);
    for id in ["one", "two", "three"] {
        net.run_with(&pay, &["--id", id]).fails(4, "QUORUM_UNREACHABLE");
        net.run(drop).ok();
    }
    net.run_with(&format!("wallet pay --wallet alice {bob} 6"), &["--id", "one"]).fails(2, "USAGE");
    let alice = net.address("alice");
    net.up(3);
    net.up(4);
    let with = |id: &str| net.run_with(&pay, &["--id", id]);
    let (two, one) = (with("two").ok().json(), with("one").ok().json());
    assert_eq!((&two["seqnum"], &one["seqnum"]), (&1.into(), &2.into()));
    assert_eq!((order(&with("one").ok().json()), order(&with("two").ok().json())), (order(&one), order(&two)));
    net.wait_for_balance("bob", "14.00");

    // A dropped order that somebody kept and offers again.
    net.run(&format!("wallet pay --wallet issuer.wallet {alice} 14")).ok();
    net.wait_for_balance("alice", "100.00");
    let dear = format!("wallet pay --wallet alice --json --timeout 2s {bob} 90");
    net.down(3);
    net.down(4);
    net.run_with(&dear, &["--id", "dear"]).fails(4, "QUORUM_UNREACHABLE");
    net.run(drop).ok();
    net.up(3);
    net.up(4);
    let kept = envelopes(&net, "dear").pop().unwrap();
    let committee = Arc::new(read_committee(&net.path("committee.toml")).unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let offered = runtime.block_on(async {
        Network::new(committee, Patience::default()).submit(0, vec![kept], |_| ()).await.unwrap().outcomes.remove(0)
    });
    let taken = florin_core::envelope::Order::decode(offered.unwrap().transaction).unwrap();
    // The wallet goes on behind it, and then is asked for it again.
    let other = net.run(&format!("wallet pay --wallet alice --json {bob} 1")).ok().json();
    assert_eq!(other["seqnum"], taken.seqnum + 1);
    let said = net.run_with(&dear, &["--id", "dear", "--receipt", "dear.json"]).ok();
    assert!(said.stderr.contains("turned out to be final"), "{said:?}");
    assert_eq!(order(&said.json()), hex::encode(taken.id));
    net.run("receipt verify dear.json --committee committee.toml").ok();
    assert_eq!(order(&net.run_with(&dear, &["--id", "dear"]).ok().json()), hex::encode(taken.id));
    net.wait_for_balance("bob", "105.00");
    net.wait_for_balance("alice", "9.00");
}
