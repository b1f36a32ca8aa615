//! PBTX networks as their admins, actors and phones meet them: commands and real authorities.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net;

use florin_core::pbtx::TransactionHistoryEntry;
use net::{Net, Said, wait};
use prost::Message;
use serde_json::Value;

/// Keys in files k1, k2, ...; their public texts.
fn keys(net: &Net, names: &[(&str, &str)]) -> Vec<String> {
    let make = |(name, curve): &(&str, &str)| {
        let said = net.run(&format!("pbtx key new --curve {curve} --out {name} --json")).ok().json();
        said["public"].as_str().unwrap().to_owned()
    };
    names.iter().map(make).collect()
}

/// Refused before the command runs.
fn unparsed(said: Said) {
    assert_eq!(said.status, 2, "{said:?}");
    assert!(said.stderr.contains("error: ") && !said.stderr.contains("next: "), "{said:?}");
}

fn json(said: Said) -> Value {
    said.ok().json()
}

fn actor(net: &Net, network: u64, actor: u64) -> Value {
    json(net.run(&format!("actor show {network} {actor} --json")))
}

/// What a push says in its JSON, with its exit status.
fn push(net: &Net, line: &str) -> (Value, i32) {
    let said = net.run(&format!("pbtx push {line} --json"));
    (said.json(), said.status)
}

fn counts(value: &Value) -> [u64; 3] {
    ["settled", "refused", "waiting"].map(|name| value[name].as_u64().unwrap())
}

#[test]
fn the_life_of_a_network() {
    let net = Net::start(2);
    let alice = net.wallet("alice");
    let bob = net.wallet("bob");
    let public = keys(&net, &[("k1", "k1"), ("k2", "r1"), ("k3", "ed")]);
    net.run("network show 9").fails(3, "UNKNOWN_NETWORK");
    net.run("actor show 9 1").fails(3, "UNKNOWN_NETWORK");
    net.run("network list").ok();

    // Registered with named flags; shown, listed.
    let register =
        format!("network register 9 --wallet alice --flag history --flag raw-notify --app-flags 0xa5 --listener {bob}");
    net.run_with(&register, &["--metadata", "key values"]).ok();
    let shown = json(net.run("network show 9 --json"));
    assert_eq!((&shown["admin"], &shown["flags"]), (&alice.as_str().into(), &0x00a5_0003_u32.into()));
    assert_eq!(shown["flag_names"], serde_json::json!(["RAW_NOTIFY", "HISTORY", "application 0x00a5"]));
    assert_eq!((&shown["listeners"][0], &shown["actors"]), (&bob.as_str().into(), &0.into()));
    assert!(net.run("network show 9").ok().stdout.contains("0xa50003 (RAW_NOTIFY, HISTORY, application 0x00a5)"));
    net.run("network register 9 --wallet bob").fails(3, "NETWORK_EXISTS");
    net.run("network register 10 --wallet bob --flag ordered --flag skip-seq").fails(3, "BAD_CONTENT");
    unparsed(net.run("network register 10 --wallet bob --flag nonsense"));
    let listed = json(net.run("network list --json"));
    assert_eq!(listed["networks"][0]["network_id"], "9");
    assert_eq!(listed["next"], Value::Null);

    // Actors: by keys, by permission, cosigning.
    net.run(&format!("actor register 9 55 --wallet alice --key {}", public[0])).ok();
    net.run(&format!("actor register 9 55 --wallet alice --key {}", public[1])).fails(3, "ACTOR_EXISTS");
    net.run(&format!("actor register 9 56 --wallet bob --key {}", public[1])).fails(3, "NOT_ADMIN");
    let permission =
        net.run(&format!("pbtx permission make --actor 56 --key {} --key {}:2 --threshold 2", public[1], public[2]));
    net.run(&format!("actor register 9 --wallet alice --permission {}", permission.ok().line())).ok();
    assert_eq!(actor(&net, 9, 56)["keys"][1]["weight"], 2);
    net.run("actor show 9 57").fails(3, "UNKNOWN_ACTOR");
    assert_eq!(json(net.run("network show 9 --json"))["actors"], 2);

    // A transaction signed online, with a cosignor.
    let sign = "pbtx sign --network 9 --actor 55 --autoseq --type 7 --content 0102 --cosignor 56 --keys k1";
    let envelope = net.run(sign).ok().line();
    let both = net.run(&format!("pbtx sign --envelope {envelope} --as 56 --keys k3")).ok().line();
    std::fs::write(net.path("one.hex"), format!("{both}\n")).unwrap();
    let (said, status) = push(&net, "one.hex --receipts receipts");
    assert_eq!((counts(&said), status), ([1, 0, 0], 0), "{said}");
    let receipt = net.run("receipt verify receipts/9-55-1.json").ok().stdout;
    assert!(receipt.contains("network 9") && receipt.contains("final"), "{receipt}");
    let status = json(net.run("pbtx status 9 55 1 --json"));
    assert_eq!((&status["state"], &status["decided"]), (&"settled".into(), &true.into()));
    assert_eq!(json(net.run("pbtx status 9 55 --json"))["seqnum"], 1);
    assert_eq!(actor(&net, 9, 56)["seqnum"], 0, "a cosignor's own sequence does not move");

    // Frozen, and free again.
    net.run("actor freeze 9 55 --wallet bob").fails(3, "NOT_ADMIN");
    net.run("actor freeze 9 55 --wallet alice").ok();
    assert_eq!(actor(&net, 9, 55)["state"], "frozen");
    let next = net.run("pbtx sign --network 9 --actor 55 --autoseq --keys k1").ok().line();
    std::fs::write(net.path("two.hex"), next).unwrap();
    net.run("pbtx push two.hex").fails(3, "ACTOR_FROZEN");
    net.run("actor unfreeze 9 55 --wallet alice").ok();
    net.run("pbtx push two.hex").ok();

    // The actor changes its keys itself, without anybody's wallet.
    let own = format!("actor set-permission 9 55 --own-keys k1 --key {} --key {} --threshold 2", public[1], public[2]);
    net.run(&own).ok();
    assert_eq!(actor(&net, 9, 55)["threshold"], 2);
    net.run(&own).fails(3, "KEY_MISMATCH");
    // The admin's change; then by the first key again.
    net.run(&format!("actor set-permission 9 55 --wallet alice --key {}", public[0])).ok();
    net.run(&format!("actor set-permission 9 99 --wallet alice --key {}", public[0])).fails(3, "UNKNOWN_ACTOR");
    unparsed(net.run(&format!("actor set-permission 9 55 --key {}", public[0])));

    // Removed: a tombstone, whose sequence goes on.
    net.run("network remove 9 --wallet alice").fails(3, "NETWORK_IN_USE");
    net.run("actor remove 9 55 56 --wallet alice").ok();
    let gone = actor(&net, 9, 55);
    assert_eq!((&gone["state"], &gone["seqnum"]), (&"removed".into(), &3.into()));
    net.run("pbtx sign --network 9 --actor 55 --autoseq --keys k1").fails(3, "UNKNOWN_ACTOR");
    net.run("actor remove 9 55 --wallet alice").fails(3, "UNKNOWN_ACTOR");
    net.run(&format!("actor register 9 55 --wallet alice --key {}", public[0])).ok();
    // What it sent before is not new: pushed again it changes nothing.
    let (said, _) = push(&net, "one.hex two.hex");
    assert_eq!(counts(&said), [2, 0, 0], "{said}");
    assert_eq!(actor(&net, 9, 55)["seqnum"], 3);

    // Two admins: one offers, the other takes; both are needed.
    net.run("network transfer 9 --accept --wallet bob").fails(3, "NOT_ADMIN");
    net.run(&format!("network transfer 9 --to {bob} --wallet alice")).ok();
    net.run("network transfer 9 --withdraw --wallet alice").ok();
    net.run("network transfer 9 --accept --wallet bob").fails(3, "NOT_ADMIN");
    net.run(&format!("network transfer 9 --to {bob} --wallet alice")).ok();
    assert_eq!(json(net.run("network show 9 --json"))["offered"], bob.as_str());
    net.run("network transfer 9 --accept --wallet bob").ok();
    net.run("network metadata 9 mine --wallet alice").fails(3, "NOT_ADMIN");
    net.run("network metadata 9 mine --wallet bob").ok();
    assert_eq!(json(net.run("network show 9 --json"))["metadata"], "mine");
    net.run("actor remove 9 55 --wallet bob").ok();
    net.run("network remove 9 --wallet bob").ok();
    assert_eq!(json(net.run("network show 9 --json"))["state"], "removed");
    assert_eq!(json(net.run("network list --json"))["networks"], serde_json::json!([]));
    net.run("network register 9 --wallet alice").fails(3, "NETWORK_EXISTS");
}

#[test]
fn a_chain_signed_offline_is_pushed_in_one_batch_and_again() {
    let net = Net::start(2);
    net.wallet("alice");
    let public = keys(&net, &[("k1", "k1")]);
    net.run("network register 20 --wallet alice --flag history").ok();
    net.run(&format!("actor register 20 1 --wallet alice --key {}", public[0])).ok();
    net.run("pbtx sign --offline chain --network 20 --actor 1 --content 00 --keys k1").ok();
    for content in 1..64 {
        net.run(&format!("pbtx sign --offline chain --content {content:02x} --keys k1")).ok();
    }
    let (said, status) = push(&net, "chain.envelopes --receipts receipts");
    assert_eq!((counts(&said), status), ([64, 0, 0], 0), "{said}");
    // One batch: all receipts have its votes.
    let receipts =
        [1, 64].map(|n| florin_client::receipt_file::load(&net.path(&format!("receipts/20-1-{n}.json"))).unwrap());
    assert_eq!(receipts.each_ref().map(|r| r.count), [64, 64]);
    assert_eq!(receipts[0].votes, receipts[1].votes);
    let before = actor(&net, 20, 1);
    assert_eq!(before["seqnum"], 64);
    let (said, status) = push(&net, "chain.envelopes --receipts receipts");
    assert_eq!((counts(&said), status), ([64, 0, 0], 0), "{said}");
    let after = actor(&net, 20, 1);
    for field in ["seqnum", "prev_hash", "pending", "permission"] {
        assert_eq!(after[field], before[field], "it changes nothing");
    }

    // Through a worker, emptied when all is settled; the chain goes on.
    let (worker, ready) = net.serve("worker run --listen 127.0.0.1:0 --journal worker.journal");
    let url = ready.strip_prefix("ready ").unwrap().split_whitespace().next().unwrap().to_owned();
    net.run("pbtx sign --offline chain --content ff --keys k1").ok();
    let (said, status) = push(&net, &format!("chain.envelopes --worker {url} --drain"));
    assert_eq!((counts(&said), status), ([65, 0, 0], 0), "{said}");
    assert_eq!(net.read("chain.envelopes"), "");
    assert_eq!(json(net.run("pbtx sign --offline chain --content ff --keys k1 --json"))["seqnum"], 66);
    drop(worker);

    // Partial results: what is bad, what waits behind it, what is good.
    let strange = keys(&net, &[("k2", "k1")]);
    net.run(&format!("actor register 20 2 --wallet alice --key {}", strange[0])).ok();
    net.run("pbtx sign --offline other --network 20 --actor 2 --content 01 --keys k1").ok();
    net.run("pbtx sign --offline other --content 02 --keys k2").ok();
    let (said, status) = push(&net, "chain.envelopes other.envelopes --drain");
    assert_eq!((counts(&said), status), ([1, 1, 1], 3), "{said}");
    let states: Vec<&str> =
        said["transactions"].as_array().unwrap().iter().map(|t| t["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["settled", "refused", "waiting"]);
    assert_eq!(
        (&said["error"]["name"], &said["transactions"][1]["error"]["name"]),
        (&"KEY_MISMATCH".into(), &"KEY_MISMATCH".into())
    );
    assert_eq!(net.read("chain.envelopes"), "", "all of it is settled");
    assert_eq!(net.read("other.envelopes").lines().count(), 2, "nothing of it is");
    net.run("pbtx push nothing.hex").fails(2, "BAD_FILE");
    std::fs::write(net.path("bad.hex"), "zz\n").unwrap();
    net.run("pbtx push bad.hex").fails(2, "line 1");
    net.run("pbtx sign --network 21 --actor 2 --autoseq --keys k1").fails(3, "UNKNOWN_NETWORK");
}

#[test]
fn history_has_median_times_and_forgets_what_is_old() {
    let net = Net::start(1);
    net.wallet("alice");
    let public = keys(&net, &[("k1", "k1")]);
    net.run("network register 30 --wallet alice --flag history --metadata first").ok();
    net.run("network register 31 --wallet alice").ok();
    net.run(&format!("actor register 30 1 --wallet alice --key {}", public[0])).ok();
    net.run("pbtx sign --offline chain --network 30 --actor 1 --content 00 --keys k1").ok();
    net.run("pbtx sign --offline chain --content 01 --keys k1").ok();
    net.run("pbtx push chain.envelopes").ok();
    net.run("actor remove 30 1 --wallet alice").ok();
    let mut history = Value::Null;
    wait("all rows", || {
        history = json(net.run("network history 30 --json"));
        history["rows"].as_array().unwrap().len() == 5
    });
    let rows = history["rows"].as_array().unwrap();
    let events: Vec<&str> = rows.iter().map(|r| r["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["NETMETADATA", "REGACTOR", "EXECTRX", "EXECTRX", "UNREGACTOR"]);
    let times: Vec<u64> = rows.iter().map(|r| r["backend_timestamp"].as_str().unwrap().parse().unwrap()).collect();
    let now = florin_client::time::now_ms() * 1_000;
    assert!(times.windows(2).all(|w| w[0] <= w[1]) && times[0] + 600_000_000 > now && times[4] < now + 60_000_000);
    assert!(rows.iter().all(|r| r["agreeing"].as_u64().unwrap() >= 3), "{rows:?}");
    assert_eq!((&rows[2]["seqnum"], &rows[3]["transaction_content"]), (&1.into(), &"01".into()));
    // A page after the other gives the same.
    let first = json(net.run("network history 30 --limit 2 --json"));
    let (next, of) = (first["next"].as_str().unwrap(), first["authority"].as_str().unwrap());
    let second = json(net.run(&format!("network history 30 --from {next} --authority {of} --json")));
    assert_eq!((&second["rows"][0]["trx_id"], second["next"].is_null()), (&rows[2]["trx_id"], true));
    // Exported as PBTX's own entries.
    net.run("network history 30 --export entries.bin").ok();
    net.run("network history 30 --export entries.bin").fails(2, "ALREADY_EXISTS");
    let bytes = std::fs::read(net.path("entries.bin")).unwrap();
    let mut rest = &bytes[..];
    let mut entries = Vec::new();
    while !rest.is_empty() {
        entries.push(TransactionHistoryEntry::decode_length_delimited(&mut rest).unwrap());
    }
    assert_eq!(entries.len(), 2);
    assert_eq!(hex::encode(&entries[0].backend_trxid), rows[2]["trx_id"].as_str().unwrap());
    assert_eq!(entries[1].backend_timestamp, times[3]);
    net.run("network history 31").fails(3, "BAD_CONTENT");
    net.run("network history 32").fails(3, "UNKNOWN_NETWORK");
    // The young is not forgotten.
    net.run("network prune-history 30 --older-than 9m --wallet alice").fails(2, "USAGE");
    net.run("network prune-history 30 --older-than 10m --wallet alice").ok();
    assert_eq!(json(net.run("network history 30 --json"))["rows"].as_array().unwrap().len(), 5);
}

#[test]
fn open_networks_prechecks_and_many_actors() {
    let mut net = Net::start(2);
    net.wallet("alice");
    let bob = net.wallet("bob");
    let public = keys(&net, &[("k1", "r1"), ("k2", "ed")]);
    // Who is not the admin registers itself where that is open, once.
    net.run("network register 40 --wallet alice").ok();
    let open = format!("actor open 40 7 --wallet bob --key {} --sign-with", public[0]);
    net.run(&format!("{open} k1")).fails(3, "NETWORK_CLOSED");
    net.run(&format!("network update 40 --wallet alice --open true --listener {bob} --flag history")).ok();
    net.run(&format!("{open} k2")).fails(3, "KEY_MISMATCH");
    net.run(&format!("{open} k1")).ok();
    net.run(&format!("{open} k1")).ok();
    net.run(&format!("actor open 40 7 --wallet bob --key {} --sign-with k2", public[1])).fails(3, "ACTOR_EXISTS");
    let shown = json(net.run("network show 40 --json"));
    assert_eq!((&shown["open"], &shown["flags"], &shown["actors"]), (&true.into(), &2.into(), &1.into()));
    net.run("network update 40 --wallet alice").fails(2, "USAGE");
    net.run("network update 40 --wallet alice --flags 8").fails(3, "BAD_CONTENT");

    // A listener says what it takes.
    net.run("network precheck set 40 --wallet bob --types 10-19 --types 30 --content-max 4").ok();
    net.run("network precheck set 40 --wallet bob").fails(2, "USAGE");
    assert!(net.run("network show 40").ok().stdout.contains("types 10-19 30, content of at most 4 bytes"));
    // What the log says of the network is known to the shards when what it says after that is.
    net.run(&format!("actor register 40 8 --wallet alice --key {}", public[1])).ok();
    let push_type = |name: &str, line: &str| {
        let envelope = net.run(&format!("pbtx sign --network 40 --actor 7 --autoseq --keys k1 {line}")).ok().line();
        std::fs::write(net.path(name), envelope).unwrap();
        net.run(&format!("pbtx push {name}"))
    };
    push_type("a", "--type 20").fails(3, "PRECHECK");
    push_type("b", "--type 30 --content 0102030405").fails(3, "PRECHECK");
    push_type("c", "--type 19 --content 01020304").ok();
    net.run("network precheck clear 40 --wallet bob").ok();
    net.run("actor freeze 40 8 --wallet alice").ok();
    push_type("d", "--type 20").ok();

    // Many actors of a file, in as few operations as take them.
    let line = |n: u64| net.run(&format!("pbtx permission make --actor {n} --key {}", public[1])).ok().line();
    let (one, two) = (line(1), line(2));
    let many: String = (100..350_u64)
        .map(|n| {
            let mut bytes = hex::decode(&one).unwrap();
            bytes[1..9].copy_from_slice(&n.to_le_bytes());
            hex::encode(bytes) + "\n"
        })
        .collect();
    assert_eq!(one.len(), two.len());
    std::fs::write(net.path("many"), format!("# keys\n{many}")).unwrap();
    let said = json(net.run("actor register 40 --from many --wallet alice --json"));
    assert_eq!(said["operations"].as_array().unwrap().len(), 3, "{said}");
    assert_eq!(actor(&net, 40, 349)["state"], "registered");
    assert_eq!(json(net.run("network show 40 --json"))["actors"], 252);
    // Again: nothing changes.
    net.run("actor register 40 --from many --wallet alice").ok();
    assert_eq!(json(net.run("network show 40 --json"))["actors"], 252);

    // Without a quorum nothing settles, and nothing is lost.
    let envelope = net.run("pbtx sign --network 40 --actor 7 --autoseq --keys k1").ok().line();
    std::fs::write(net.path("e"), envelope).unwrap();
    net.down(1);
    net.down(2);
    let said = net.run("pbtx push e --timeout 2s").fails(4, "QUORUM_UNREACHABLE");
    assert!(said.stderr.contains("push again") && said.stdout.contains("waiting"), "{said:?}");
    assert_eq!(actor(&net, 40, 7)["seqnum"], 2, "f + 1 suffice to read");
    net.down(3);
    net.run("actor show 40 7 --timeout 2s").fails(4, "QUORUM_UNREACHABLE");
    net.run("network list --timeout 2s").fails(4, "QUORUM_UNREACHABLE");
    net.run("network history 40 --timeout 2s").fails(4, "QUORUM_UNREACHABLE");
    (1..=3).for_each(|i| net.up(i));
    net.run("pbtx push e").ok();
    assert_eq!(actor(&net, 40, 7)["seqnum"], 3);
}
