//! The ordered log on a network that breaks: authorities on hosts of their own, some cut off in both directions or one,
//! unplugged or killed, halves that don't hear each other; payments and shared orders go on as far as a quorum is
//! left, and nobody ever says two things. `FLORIN_CUTS=N` makes the run longer, `FLORIN_SEED=N` another.

#![allow(clippy::unwrap_used)]

mod common;
mod net;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::lan::{Lan, Place};
use common::liar::Liar;
use common::load::{Load, START, is_decided, log_status, statuses, submit, wait_same};
use common::sites::Sites;
use common::{Local, Plan, authority_seed, signers, until};
use florin_client::network::{Network, Patience};
use florin_core::testing::{Signer, to};
use florin_core::wire::{self, order_status::State as S, output};
use florin_sim::rng::Rng;

const SHARDS: u32 = 2;

/// What happens to an authority.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Trouble {
    /// Packets to it and from it are lost.
    CutOff,
    /// Packets from it are lost; it hears everything.
    Mute,
    /// Packets to it are lost.
    Deaf,
    /// Its link is down.
    Unplugged,
    /// `kill -9`.
    Killed,
}

const TROUBLES: [Trouble; 5] = [Trouble::CutOff, Trouble::Killed, Trouble::Mute, Trouble::Unplugged, Trouble::Deaf];

fn strike(sites: &mut Sites, victim: usize, trouble: Trouble) {
    let (own, all) = (Place::Host(victim), sites.lan.places());
    let others = all.into_iter().filter(|place| *place != own);
    match trouble {
        Trouble::CutOff => sites.lan.cut(others.flat_map(|other| [(own, other), (other, own)])),
        Trouble::Mute => sites.lan.cut(others.map(|other| (own, other))),
        Trouble::Deaf => sites.lan.cut(others.map(|other| (other, own))),
        Trouble::Unplugged => sites.lan.unplug(victim),
        Trouble::Killed => sites.kill(victim),
    }
}

fn mend(sites: &mut Sites, victim: usize, trouble: Trouble) {
    match trouble {
        Trouble::CutOff | Trouble::Mute | Trouble::Deaf => sites.lan.heal(Place::Host(victim)),
        Trouble::Unplugged => sites.lan.plug(victim),
        Trouble::Killed => sites.up(victim),
    }
}

/// Where an authority is in the log.
async fn position(network: &Network, authority: usize) -> Option<(u64, u32)> {
    log_status(network, authority).await.map(|s| (s.session, s.units))
}

/// f at a time get into trouble; the others go on without them; then they come back and get level.
async fn break_some(sites: &mut Sites, load: &mut Load, rounds: usize, rng: &mut Rng) {
    // So four and seven see different ones in a short run.
    let mut troubles = TROUBLES.into_iter().cycle().skip(if sites.committee.size() == 4 { 0 } else { 2 });
    let (size, network) = (sites.committee.size(), sites.network());
    for _ in 0..rounds {
        let mut victims: Vec<(usize, Trouble)> = Vec::new();
        while victims.len() < sites.committee.faults() {
            let victim = rng.index(size);
            if victims.iter().all(|(other, _)| *other != victim) {
                victims.push((victim, troubles.next().unwrap()));
            }
        }
        victims.iter().for_each(|(victim, trouble)| strike(sites, *victim, *trouble));
        let began = Instant::now();
        let said = format!("{victims:?}");
        load.goes_on(&format!("with {said}")).await;
        let went_on = began.elapsed();
        victims.iter().for_each(|(victim, trouble)| mend(sites, *victim, *trouble));
        let healthy = (0..size).find(|i| victims.iter().all(|(victim, _)| victim != i)).unwrap();
        let there = position(&network, healthy).await.unwrap();
        for (victim, trouble) in victims {
            until(&format!("{victim}, {trouble:?} before, to be level"), || async {
                position(&network, victim).await.is_some_and(|here| here >= there)
            })
            .await;
        }
        println!("{said}: went on after {went_on:.1?}, level after {:.1?}", began.elapsed());
    }
}

fn gift(to: &Signer) -> output::Kind {
    output::Kind::Credit(wire::Credit { address: bytes::Bytes::copy_from_slice(to.address.as_bytes()), amount: 1 })
}

/// Whether any of these authorities has settled or ordered a signer's newest order, once so many have answered.
async fn is_settled(network: &Network, signer: &Signer, answers: usize) -> bool {
    let found = statuses(network, signer, signer.seqnum, answers, |_| true).await;
    assert_eq!(found.len(), answers);
    found.iter().any(|s| matches!(s.state(), S::Certified | S::Settled) || is_decided(s))
}

/// A network for what will not work.
fn hasty(sites: &Sites) -> Network {
    let second = Duration::from_secs(1);
    Network::new(sites.committee.clone(), Patience { request: second, total: second, ..Patience::default() })
}

/// Submits without success.
async fn submit_in_vain(network: &Network, signer: &Signer, order: &bytes::Bytes) {
    let submission = network.submit(signer.address.shard(SHARDS), vec![order.clone()], |_| ()).await.unwrap();
    submission.outcomes[0].as_ref().unwrap_err();
}

/// Two halves without a quorum: payments go on while wallets reach both, and nothing does when they don't.
async fn split(sites: &mut Sites, mut honest: Signer, mut twice: Signer, other: &Signer) {
    let size = sites.committee.size();
    let hosts: Vec<Place> = (0..size).map(Place::Host).collect();
    let (one, two) = hosts.split_at(size / 2);
    sites.lan.part(one, two);
    let network = sites.network();
    let order = honest.call(vec![], vec![gift(other)]);
    submit(&network, &honest, order).await;
    let waiting = honest.clone();
    for _ in 0..10 {
        let order = honest.pay(&[to(other.address, 1)], "");
        submit(&network, &honest, order).await;
        assert!(statuses(&network, &waiting, waiting.seqnum, 1, is_decided).await.is_empty());
    }

    // One half votes for one order, the other half for another with the same number; a third reaches no quorum.
    let (mut again, payment) = (twice.clone(), honest.pay(&[to(other.address, 1)], ""));
    let orders = [twice.pay(&[to(other.address, 1)], ""), again.pay(&[to(other.address, 2)], "")];
    let halves: [Vec<usize>; 2] = [(0..size / 2).collect(), (size / 2..size).collect()];
    for ((hidden, half), order) in [two, one].into_iter().zip(halves).zip(&orders) {
        sites.lan.part(&[Place::Main], hidden);
        let (network, hasty) = (sites.network(), hasty(sites));
        let shard = twice.address.shard(SHARDS);
        for authority in &half {
            let request = wire::VoteRequest { shard, orders: vec![order.clone()] };
            let reply = network.authority(*authority, shard).vote(request).await.unwrap().into_inner();
            assert!(reply.vote.is_some() && reply.errors.is_empty(), "{:?}", reply.errors);
        }
        submit_in_vain(&hasty, &honest, &payment).await;
        for signer in [&twice, &honest] {
            assert!(!is_settled(&network, signer, half.len()).await);
        }
        sites.lan.heal(Place::Main);
    }
    sites.lan.heal_all();
    let hasty = hasty(sites);
    tokio::join!(submit_in_vain(&hasty, &twice, &orders[0]), submit_in_vain(&hasty, &twice, &orders[1]));
    submit(&network, &honest, payment).await;
    until("the order of the split to be ordered everywhere", || async {
        let found = statuses(&network, &waiting, waiting.seqnum, size, is_decided).await;
        assert!(found.iter().all(|s| *s == found[0] && s.state() == S::Ordered), "{found:#?}");
        found.len() == size
    })
    .await;
    assert!(!is_settled(&network, &twice, size).await, "an account that signed twice is locked");
}

async fn survives(size: usize, rounds: usize) {
    let _turn = common::turn().await;
    let lan = match Lan::new(size) {
        Ok(lan) => lan,
        Err(e) => return println!("skipped: this needs root, `ip` and network namespaces: {e}"),
    };
    let rounds = std::env::var("FLORIN_CUTS").ok().map_or(rounds, |n| n.parse().unwrap());
    let mut rng = Rng::new(std::env::var("FLORIN_SEED").ok().map_or(1, |n| n.parse().unwrap()));
    let all = signers(SHARDS, 4);
    let genesis: Vec<_> = all.iter().map(|s| (s.address, START)).collect();
    let mut sites = Sites::start(lan, size, SHARDS, &genesis);
    let mut load = Load::start(&all[..4], || sites.network());
    load.goes_on("at the start").await;
    break_some(&mut sites, &mut load, rounds, &mut rng).await;
    split(&mut sites, all[4].clone(), all[5].clone(), &all[6]).await;
    load.goes_on("after the split").await;
    let network = sites.network();
    until("a session to be signed", || async { log_status(&network, 0).await.is_some_and(|s| s.signed_sessions > 0) })
        .await;
    let slowest = load.slowest_ms();
    let pairs = load.stop().await;
    let authorities: Vec<usize> = (0..size).collect();
    let (called, failed, sessions) = wait_same(&network, &authorities, &pairs).await;
    println!("{size}: {called} calls, {failed} failed, the slowest took {slowest} ms; {sessions} signed sessions");
    tokio::task::spawn_blocking(move || sites.audit_all()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn four_on_a_network_that_breaks() {
    survives(4, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seven_on_a_network_that_breaks() {
    survives(7, 1).await;
}

/// Bytes that a process may take, at any time, beyond what it had when the liar began. By design, while two sessions
/// are open, a liar of four can make it keep in each: units of 1,000 rounds, and the longest message in parts, 66 MB each.
const MEMORY_MAX: u64 = 384 << 20;

/// Bytes of a process: now, and at most so far.
fn memory(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = |name| {
        let line = status.lines().find_map(|line: &str| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    (kib("VmRSS:") << 10, kib("VmHWM:") << 10)
}

/// One of four takes part in every session with its true key. Its units are full of garbage, true items again and again,
/// huge numbers of items; it forks; and each honest authority gets all the frames that it takes, most of them nonsense.
#[tokio::test(flavor = "multi_thread")]
async fn a_liar_in_the_engine_stops_nobody_and_fills_no_memory() {
    const LIAR: usize = 3;
    let _turn = common::turn().await;
    let rounds: u64 = std::env::var("FLORIN_CUTS").ok().map_or(1, |n| n.parse().unwrap());
    let all = signers(SHARDS, 2);
    let genesis = all.iter().map(|s| (s.address, START)).collect();
    let mut local = Local::create(net::Folder::new(), Plan { shards: SHARDS, genesis, split: None });
    let honest: Vec<usize> = (0..LIAR).collect();
    honest.iter().for_each(|i| local.up((*i, 0)));
    let mut load = Load::start(&all, || local.network());
    load.goes_on("without the liar").await;
    let before: BTreeMap<usize, u64> = honest.iter().map(|i| (*i, memory(local.pid((*i, 0))).0)).collect();

    let mut lies = tokio::task::JoinSet::new();
    let liar = Liar::start(local.committee.clone(), LIAR as u32, authority_seed(LIAR), &mut lies).await;
    let network = local.network();
    let began = log_status(&network, 0).await.unwrap().signed_sessions;
    for round in 0..rounds {
        // Full units first, as fast as the engine takes them; then floods too.
        if round == 0 {
            load.goes_on("beside units full of garbage").await;
            honest.iter().for_each(|i| liar.flood(*i, 2, &mut lies));
        }
        load.goes_on("under floods of frames").await;
        // It forks in every second one. A session is some 500 rounds, which takes a slow machine a while.
        let wanted = began + 2 * (round + 1);
        for turn in 0.. {
            if log_status(&network, 0).await.is_some_and(|s| s.signed_sessions >= wanted) {
                break;
            }
            assert!(turn < 100, "no session with the liar comes to its end");
            load.goes_on("until sessions with the liar are signed").await;
        }
        until("a fork", || async { liar.deeds.twins.load(Ordering::Relaxed) > round }).await;
        load.goes_on("beside forks").await;
    }
    let deeds = &liar.deeds;
    println!(
        "hostile units {:?}, ordered {:?}, twins {:?}, flood {:?} frames, {:?} bytes; the slowest call took {} ms",
        deeds.hostile_units,
        deeds.ordered,
        deeds.twins,
        deeds.flood_frames,
        deeds.flood_bytes,
        load.slowest_ms(),
    );
    for i in &honest {
        let (now, most) = memory(local.pid((*i, 0)));
        println!("authority {i}: {} MB before, {} MB now, {} MB at most", before[i] >> 20, now >> 20, most >> 20);
        assert!(most < before[i] + MEMORY_MAX, "authority {i} took {} MB", most >> 20);
    }
    assert!(deeds.ordered.load(Ordering::Relaxed) > 0, "its units were in the order");
    drop(lies);
    let pairs = load.stop().await;
    let (called, failed, sessions) = wait_same(&network, &honest, &pairs).await;
    println!("{called} calls, {failed} failed, {sessions} signed sessions");
    local.assert_alive();
    tokio::task::spawn_blocking(move || {
        for i in 0..LIAR {
            assert_eq!(local.stop((i, 0)), 0, "{}", local.log((i, 0)));
            let said = local.audit(i).ok();
            assert_eq!((&said.json()["sum"], &said.json()["findings"]), (&"0".into(), &0.into()), "{said:?}");
        }
    })
    .await
    .unwrap();
}
