//! Authorities far away, behind links that take little or lose, repeat and reorder packets, and one that stands still until
//! all have given up on it: payments and shared orders go on, and in the end all are level. Long and narrow links are
//! relays (`florin bench latency` has the same). `FLORIN_SEED=N` loses other packets.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "../src/commands/bench/far.rs"]
mod far;
mod net;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::lan::{Lan, Place};
use common::load::{Expected, Load, START, log_status, wait_level, wait_same};
use common::packets::{Faults, Packets};
use common::sites::Sites;
use common::{Local, Plan, SIZE, signers, until};
use far::{BEHIND, Link, Relays};
use florin_client::network::Network;
use florin_core::testing::{Signer, to};
use rustix::process::Signal;

const SHARDS: u32 = 2;
/// The one that stands still, or is far off alone.
const AWAY: usize = 3;
/// Payments made while it is.
const PAYMENTS: usize = 12;
const EVERYONE: [usize; SIZE] = [0, 1, 2, 3];

/// A committee whose authorities are all behind links, and what makes them.
async fn behind(between: impl Fn(usize) -> Link, plan: Plan) -> (Local, Vec<Relays>) {
    let mut local = Local::create_behind_relays(plan, BEHIND);
    let mut relays = Vec::new();
    for (i, authority) in local.committee.authorities.iter().enumerate() {
        relays.push(Relays::start(&authority.addresses, between(i)).await.unwrap());
    }
    tokio::task::block_in_place(|| local.up_all());
    (local, relays)
}

fn plan(accounts: &[Signer]) -> Plan {
    Plan { shards: SHARDS, genesis: accounts.iter().map(|s| (s.address, START)).collect(), split: None }
}

/// Ends the load; all are level.
async fn is_level(network: &Network, load: Load) {
    let slowest = load.slowest_ms();
    let pairs = load.stop().await;
    let (called, failed, sessions) = wait_same(network, &EVERYONE, &pairs).await;
    println!("{called} calls, {failed} failed, the slowest took {slowest} ms; {sessions} signed sessions");
}

/// As [`is_level`], and every audit comes to zero.
async fn is_well(mut local: Local, load: Load) {
    is_level(&local.network(), load).await;
    local.assert_alive();
    tokio::task::spawn_blocking(move || local.audit_all()).await.unwrap();
}

/// Makes payments that do not wait for the authority that is away: most are final without its signature. Returns what
/// the payer is to have then.
async fn pay_without_it(network: &Network, payer: &mut Signer, payee: &Signer) -> Expected {
    let (mut waited, mut times) = (0, Vec::new());
    for _ in 0..PAYMENTS {
        let order = payer.pay(&[to(payee.address, 1)], "");
        let began = Instant::now();
        let submission = network.submit(payer.address.shard(SHARDS), vec![order], |_| ()).await.unwrap();
        times.push(began.elapsed().as_millis());
        let receipt = submission.outcomes.into_iter().next().unwrap().unwrap();
        let signers = receipt.votes.iter().chain(&receipt.acknowledgements).map(|s| s.authority as usize);
        waited += usize::from(signers.collect::<BTreeSet<_>>().contains(&AWAY));
    }
    println!("{PAYMENTS} payments took {times:?} ms; {waited} of them have a signature of the one that is away");
    // The three others answer long before, unless the machine stands still.
    assert!(waited < PAYMENTS / 2, "payments wait for the one that is away");
    (payer.address, i128::from(START) - PAYMENTS as i128, PAYMENTS as u32)
}

/// 100 ms one way between any two, and 64 kB a second on each connection.
#[tokio::test(flavor = "multi_thread")]
async fn all_goes_on_over_long_and_narrow_links() {
    let _turn = common::turn().await;
    let all = signers(SHARDS, 2);
    let link = Link { delay: Duration::from_millis(100), rate: Some(64_000) };
    let (local, _relays) = behind(|_| link, plan(&all)).await;
    let mut load = Load::start(&all, || local.network());
    load.goes_on("over long links").await;
    is_well(local, load).await;
}

/// One of four is a second away. No payment waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn one_far_off_slows_nobody() {
    let _turn = common::turn().await;
    let all = signers(SHARDS, 3);
    let link = |i| Link { delay: Duration::from_millis(if i == AWAY { 1_000 } else { 0 }), rate: None };
    let (local, _relays) = behind(link, plan(&all)).await;
    let mut load = Load::start(&all[..2], || local.network());
    load.goes_on("with one far off").await;
    let network = local.network();
    let level = pay_without_it(&network, &mut all[4].clone(), &all[5]).await;
    local.wait_level(&network, &[level]).await;
    is_well(local, load).await;
}

/// Connections of this machine to a port that are established, by their own port.
fn connections(port: &str) -> BTreeSet<String> {
    let to = format!(":{:04X}", port.parse::<u16>().unwrap());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let columns = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Local and remote address, state.
    columns.filter(|c| c[2].ends_with(&to) && c[3] == "01").map(|c| c[1].to_owned()).collect()
}

/// SIGSTOP: its kernel still takes what is sent to it. First for a moment, then until all have closed the connections that
/// they had to it.
#[tokio::test(flavor = "multi_thread")]
async fn one_stands_still_until_all_give_up_on_it() {
    let _turn = common::turn().await;
    let all = signers(SHARDS, 2);
    let mut local = Local::create(net::Folder::new(), plan(&all));
    tokio::task::block_in_place(|| local.up_all());
    let mut load = Load::start(&all, || local.network());
    load.goes_on("at the start").await;
    local.signal((AWAY, 0), Signal::STOP);
    load.goes_on("with one stopped").await;
    local.signal((AWAY, 0), Signal::CONT);
    load.goes_on("with it again").await;
    let port = local.committee.authorities[AWAY].addresses[0].rsplit_once(':').unwrap().1.to_owned();
    let before = connections(&port);
    assert!(!before.is_empty());
    local.signal((AWAY, 0), Signal::STOP);
    let began = Instant::now();
    until("its connections to be given up", || async { connections(&port).is_disjoint(&before) }).await;
    println!("{} connections were given up after {:.1?}", before.len(), began.elapsed());
    load.goes_on("with it gone").await;
    local.signal((AWAY, 0), Signal::CONT);
    is_well(local, load).await;
}

/// Where an authority is in the log.
async fn position(network: &Network, authority: usize) -> Option<(u64, u32)> {
    log_status(network, authority).await.map(|s| (s.session, s.units))
}

/// Of all packets some are lost, some come twice, and many are overtaken. Then half of those to one authority and from it
/// are lost: the others go on without it, and it is level again once that ends.
#[tokio::test(flavor = "multi_thread")]
async fn all_goes_on_while_packets_are_lost_repeated_and_overtaken() {
    const FAULTS: Faults = Faults { loss: 30, duplicate: 20, delay_ms: 5..=30 };
    const HALF: u64 = 500;
    let _turn = common::turn().await;
    let seed = std::env::var("FLORIN_SEED").ok().map_or(1, |n| n.parse().unwrap());
    let started = Lan::new(SIZE).and_then(|lan| Packets::start(&lan, FAULTS, seed).map(|packets| (lan, packets)));
    let (lan, packets) = match started {
        Ok(started) => started,
        Err(e) => return println!("skipped: this needs root, `ip`, network namespaces and packet sockets: {e}"),
    };
    let all = signers(SHARDS, 3);
    let genesis: Vec<_> = all.iter().map(|s| (s.address, START)).collect();
    let began = Instant::now();
    let mut sites = Sites::start(lan, SIZE, SHARDS, &genesis);
    let mut load = Load::start(&all[..4], || sites.network());
    load.goes_on("while packets are lost").await;
    println!("went on after {:.1?}", began.elapsed());

    let before = packets.counts_of(Place::Host(AWAY));
    packets.set_loss(Place::Host(AWAY), HALF);
    load.goes_on("while half of one's packets are lost").await;
    let level = pay_without_it(&sites.network(), &mut all[4].clone(), &all[5]).await;
    let after = packets.counts_of(Place::Host(AWAY));
    println!("went on without it after {:.1?}", began.elapsed());
    let (lost, sent) = (after.lost - before.lost, after.packets - before.packets);
    println!("{lost} of {sent} packets to it and from it were lost");
    assert!(lost * 3 > sent, "half of its packets are lost");
    packets.set_loss(Place::Host(AWAY), FAULTS.loss);
    let network = sites.network();
    let there = position(&network, 0).await.unwrap();
    println!("others are at {there:?} of the log, it is at {:?}", position(&network, AWAY).await);
    until("it to be level", || async { position(&network, AWAY).await.is_some_and(|here| here >= there) }).await;
    println!("level after {:.1?}", began.elapsed());
    load.goes_on("with it again").await;
    is_level(&network, load).await;
    wait_level(&network, &EVERYONE, &[level]).await;

    for ((from, to), c) in packets.links() {
        println!("{from:?} to {to:?}: {c:?}");
        assert!(c.lost > 0 && c.duplicated > 0 && c.reordered > 0, "{from:?} to {to:?}: {c:?}");
    }
    assert_eq!(packets.links().len(), SIZE * (SIZE + 1), "each sends to each, and wallets to each and back");
    println!("all after {:.1?}: {:?}", began.elapsed(), packets.counts());
    tokio::task::spawn_blocking(move || sites.audit_all()).await.unwrap();
}
