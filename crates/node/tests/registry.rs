//! Many networks and actors. It only measures, so it runs when asked, with as many as asked for:
//! `FLORIN_NETWORKS=2000000 FLORIN_ACTORS=10000000 cargo test --release -p florin-node --test registry -- --ignored --nocapture`

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use florin_core::authority::Authority;
use florin_core::authority::effect::Reply;
use florin_core::authority::input::Input;
use florin_core::authority::state::{LOG, Write};
use florin_core::committee::Committee;
use florin_core::keys::Curve;
use florin_core::ordered::OrderedLog;
use florin_core::ordered::modules::registry::network_key;
use florin_core::ordered::step::{Object, actor_key};
use florin_core::permission::Permission;
use florin_core::testing::{Actor, TestCommittee, secret};
use florin_core::wire::{self, log_step::Kind};
use florin_node::log::{LogShell, LogThreads};
use florin_node::shard::Shard;
use florin_node::storage::Store;
use prost::Message;

/// Writes of one step while the folders are filled.
const STEP: usize = 4_096;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find(|l| l.starts_with("VmRSS")).unwrap().to_owned()
}

struct Folders<'a> {
    dir: &'a Path,
    committee: Arc<Committee>,
    key: Arc<florin_core::signatures::AuthorityKey>,
}

impl Folders<'_> {
    fn open(&self, shard: u32, create: bool) -> Store {
        let name = if shard == LOG { "log" } else { "shard-0" };
        Store::open(&self.dir.join(name), shard, *self.committee.id(), 0, create).unwrap()
    }

    fn shard(&self) -> Authority {
        Authority::new(self.committee.clone(), 0, 0, self.key.clone())
    }

    /// Opens both as a node does, and votes for an actor's transaction.
    async fn start(&self, what: &str, last: &Actor) {
        let now = Instant::now();
        let log = OrderedLog::new(self.committee.clone(), 0, self.key.clone());
        let (log, log_threads) = LogShell::start(log, self.open(LOG, false)).unwrap();
        let (shard, threads) = Shard::start(self.shard(), self.open(0, false), Default::default()).unwrap();
        let opened = now.elapsed();
        let orders = vec![last.clone().order(1, b"x", &[])];
        let reply = shard.handle(Input::vote(orders)).await.unwrap();
        let voted = matches!(&reply, Reply::Vote(reply) if reply.vote.is_some());
        println!(
            "{what}: open in {:.0} ms, first vote ({voted}) after {:.0} ms, {}",
            opened.as_secs_f64() * 1e3,
            now.elapsed().as_secs_f64() * 1e3,
            resident()
        );
        drop((log, shard));
        LogThreads::join(log_threads.split().0);
        threads.join();
    }
}

/// What the registry has of them at the log, and what it has told their shard.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes, and measures only"]
async fn start_with_many_networks_and_actors() {
    let (networks, actors) = (number("FLORIN_NETWORKS", 20_000), number("FLORIN_ACTORS", 100_000));
    let dir = tempfile::TempDir::new().unwrap();
    let (committee, keys) = TestCommittee { shards: 1, ..TestCommittee::default() }.build();
    let folders = Folders { dir: dir.path(), committee, key: keys[0].clone() };
    let (log, shard) = (folders.open(LOG, true), folders.open(0, true));
    let (machine, now) = (folders.shard(), Instant::now());
    let permission = Permission::single(secret(Curve::K1, 1).public());
    let per_network = actors.div_ceil(networks);
    let mut sequence = 0;
    let mut steps: Vec<wire::LogStep> = Vec::new();
    let mut objects: Vec<Write> = Vec::new();
    let mut flush = |steps: &mut Vec<wire::LogStep>, objects: &mut Vec<Write>| {
        sequence += 1;
        let delivery = wire::Delivery { from_shard: LOG, sequence, steps: std::mem::take(steps), ..Default::default() };
        let effects =
            machine.handle(0, Input::Deliver(delivery), &shard, &mut florin_core::authority::NoMeter).unwrap();
        shard.write(&effects.writes).unwrap();
        log.write(&std::mem::take(objects)).unwrap();
        if sequence % 64 == 0 {
            shard.sync().unwrap();
            log.sync().unwrap();
        }
    };
    let mut left = actors;
    for network_id in 1_000..1_000 + networks {
        let network = wire::NetworkRecord { metadata: Bytes::from_static(b"a network"), ..Default::default() };
        let record = wire::NetworkRecord { admin: vec![7; 32].into(), actors: per_network, ..network.clone() };
        objects.push(Write::put(
            florin_core::authority::state::Table::Objects,
            network_key(network_id),
            record.encode_to_vec(),
        ));
        let step = wire::LogNetwork { network_id, network: Some(network), metadata: false };
        steps.push(wire::LogStep { kind: Some(Kind::Network(step)) });
        for actor in 1..=per_network.min(left) {
            let permission = Permission { actor, ..permission.clone() }.encode();
            let record = wire::ActorRecord { permission: permission.clone(), ..Default::default() };
            let key = actor_key(Object::Actor, network_id, actor);
            objects.push(Write::put(florin_core::authority::state::Table::Objects, key, record.encode_to_vec()));
            let step = wire::LogActor { network_id, actor, permission, ..Default::default() };
            steps.push(wire::LogStep { kind: Some(Kind::Actor(step)) });
            if steps.len() >= STEP {
                flush(&mut steps, &mut objects);
            }
        }
        left -= per_network.min(left);
    }
    flush(&mut steps, &mut objects);
    shard.sync().unwrap();
    log.sync().unwrap();
    drop((log, shard));
    println!("{networks} networks and {actors} actors written in {:.0} s", now.elapsed().as_secs_f64());
    let mut last = Actor::new(1_000 + networks / 2, 1, Curve::K1);
    last.permission = Permission { actor: 1, ..permission };
    last.keys = vec![secret(Curve::K1, 1)].into();
    folders.start("right after", &last).await;
    folders.start("again", &last).await;
}
