//! `kill -9` of listeners and authorities in turn, under load: each settled transaction is in the listener's file once,
//! each actor's in order. Three networks at once: plain, ordered, without sequence numbers.
//! `FLORIN_KILLS=N` makes the run longer.

#![allow(clippy::unwrap_used)]

mod common;
mod net;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::load::submit;
use common::{Local, Plan, SIZE, until};
use florin_client::network::Network;
use florin_core::envelope::Order;
use florin_core::keys::Curve;
use florin_core::network_flags::{ORDERED, SKIP_SEQ_AND_PREVHASH};
use florin_core::testing::{Actor, Signer};
use florin_core::wire::{self, network_command::Kind, output};
use florin_sim::rng::Rng;
use net::{PATIENCE, Process};
use serde_json::Value;
use tokio::task::JoinSet;

/// Network and flags.
const NETWORKS: [(u64, u32); 3] = [(500, 0), (501, ORDERED), (502, SKIP_SEQ_AND_PREVHASH)];
const ACTORS: u64 = 4;
const SHARDS: u32 = 2;

/// Registers the networks with their actors.
async fn register(network: &Network, admin: &mut Signer) -> Vec<Actor> {
    let mut actors = Vec::new();
    for (network_id, flags) in NETWORKS {
        let kind = Some(Kind::Register(wire::NetworkRegister { flags, ..Default::default() }));
        let command = output::Kind::Network(wire::NetworkCommand { network_id, kind });
        let new: Vec<Actor> = (1..=ACTORS).map(|a| Actor::new(network_id, a, Curve::Ed25519)).collect();
        let outputs = std::iter::once(command).chain(new.iter().map(Actor::registration)).collect();
        let order = admin.call(vec![], outputs);
        submit(network, admin, order).await;
        actors.extend(new);
    }
    let request = |actor: &Actor| wire::ActorRequest { network_id: actor.network_id, actor: actor.permission.actor };
    for actor in &actors {
        until("the actors", || async {
            let shard = network.committee().shard_of(actor.network_id, 0);
            let request = request(actor);
            let replies = network.ask_all(shard, move |mut client| async move { client.actor(request).await }).await;
            replies.iter().flatten().filter(|reply| reply.known).count() == SIZE
        })
        .await;
    }
    actors
}

/// Transactions of one actor, one after the other, until told to stop: their ids.
async fn transact(
    network: Network,
    mut actor: Actor,
    stop: Arc<AtomicBool>,
    settled: Arc<AtomicUsize>,
) -> (Actor, Vec<String>) {
    let shard = network.committee().shard_of(actor.network_id, 0);
    let mut ids = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let order: Bytes = actor.order(7, b"torture", &[]);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let submission = network.submit(shard, vec![order.clone()], |_| ()).await.unwrap();
            match &submission.outcomes[0] {
                Ok(_) => break,
                Err(e) => assert!(Instant::now() < deadline, "actor {}: {e}", actor.permission.actor),
            }
        }
        ids.push(hex::encode(Order::decode(order).unwrap().id));
        settled.fetch_add(1, Ordering::Relaxed);
    }
    (actor, ids)
}

fn listen(local: &Local, network_id: u64, name: &str, more: &str) -> Process {
    let log = std::fs::OpenOptions::new().append(true).create(true).open(local.path("listener.log")).unwrap();
    let line = format!("listen {network_id} --cursor {name}.cursor --out {name}.lines --grace 3s {more}");
    let mut command = local.command(&line, &[]);
    Process::new(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
}

fn lines(local: &Local, name: &str) -> Vec<Value> {
    local.read(&format!("{name}.lines")).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What of the file is of one actor.
fn of_actor(lines: &[Value], actor: u64) -> Vec<String> {
    let actor = Value::from(actor.to_string());
    let its = lines.iter().filter(|line| line["actor"] == actor);
    its.map(|line| line["order_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transaction_is_delivered_once_and_in_order() {
    let kills: usize = std::env::var("FLORIN_KILLS").ok().map_or(6, |n| n.parse().unwrap());
    let mut rng = Rng::new(std::env::var("FLORIN_SEED").ok().map_or(1, |n| n.parse().unwrap()));
    let mut admin = Signer::new(1);
    let mut local = Local::start(Plan { shards: SHARDS, genesis: vec![(admin.address, 1_000)], split: None });
    let network = local.network();
    let actors = register(&network, &mut admin).await;
    let (stop, settled) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = JoinSet::new();
    for actor in actors {
        load.spawn(transact(local.network(), actor, stop.clone(), settled.clone()));
    }
    let name = |network_id: u64| network_id.to_string();
    let mut listeners: Vec<Option<Process>> =
        NETWORKS.iter().map(|(id, _)| Some(listen(&local, *id, &name(*id), ""))).collect();
    for kill in 0..kills {
        let before = settled.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(rng.below(600))).await;
        if kill % 2 == 0 {
            let which = kill / 2 % NETWORKS.len();
            listeners[which].take().unwrap().kill();
            tokio::time::sleep(Duration::from_millis(rng.below(100))).await;
            listeners[which] = Some(listen(&local, NETWORKS[which].0, &name(NETWORKS[which].0), ""));
        } else {
            let part = (rng.index(SIZE), 0);
            local.kill(part);
            tokio::time::sleep(Duration::from_millis(rng.below(300))).await;
            local.up(part);
        }
        let deadline = Instant::now() + PATIENCE;
        while settled.load(Ordering::Relaxed) == before {
            if let Some(ended) = load.try_join_next() {
                ended.unwrap();
            }
            assert!(Instant::now() < deadline, "the load stands still after {} kills", kill + 1);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut expected: BTreeMap<u64, BTreeMap<u64, Vec<String>>> = BTreeMap::new();
    while let Some(done) = load.join_next().await {
        let (actor, ids) = done.unwrap();
        expected.entry(actor.network_id).or_default().insert(actor.permission.actor, ids);
    }
    for (which, (network_id, flags)) in NETWORKS.into_iter().enumerate() {
        let expected = &expected[&network_id];
        let count: usize = expected.values().map(Vec::len).sum();
        let file = format!("{network_id}.lines");
        until(&format!("{count} lines of network {network_id}"), || async {
            local.read(&file).lines().count() >= count
        })
        .await;
        assert_eq!(listeners[which].take().unwrap().stop(), 0, "{}", local.read("listener.log"));
        let found = lines(&local, &name(network_id));
        assert_eq!(found.len(), count);
        for (actor, ids) in expected {
            let its = of_actor(&found, *actor);
            match flags & SKIP_SEQ_AND_PREVHASH == 0 {
                true => assert_eq!(&its, ids, "actor {actor} of {network_id}"),
                false => assert_eq!(its.iter().collect::<BTreeSet<_>>(), ids.iter().collect(), "actor {actor}"),
            }
        }
        if flags & ORDERED != 0 {
            // The same for whoever listens to all, without a crash.
            let all = listen(&local, network_id, "all", "--follow 4 --until-level");
            let status = tokio::task::spawn_blocking(move || {
                let mut all = all;
                all.0.wait().unwrap()
            })
            .await
            .unwrap();
            assert!(status.success(), "{}", local.read("listener.log"));
            let order = |lines: &[Value]| -> Vec<(u64, String)> {
                let of = |l: &Value| (l["position"].as_u64().unwrap(), l["order_id"].as_str().unwrap().to_owned());
                lines.iter().map(of).collect()
            };
            assert_eq!(order(&found), order(&lines(&local, "all")));
        }
    }
    let said = local.read("listener.log");
    assert!(!said.contains("misbehaves") && !said.contains("panicked"), "{said}");
    println!("{kills} kills, {} transactions delivered once", settled.load(Ordering::Relaxed));
    local.assert_alive();
    tokio::task::spawn_blocking(move || local.audit_all()).await.unwrap();
}
