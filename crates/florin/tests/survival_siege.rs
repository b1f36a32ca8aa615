//! A stranger does his worst at one authority, as in `florin bench siege`: payments go on, and the authority takes no more
//! memory than docs/operations.md says.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "the benchmark has more of it")]
#[path = "../src/commands/bench/siege/attacks.rs"]
mod attacks;
mod common;
mod net;

use std::time::Instant;

use attacks::{Besieged, Kind};
use common::{Local, Plan, signers};
use florin_core::limits::REQUESTS_BYTES_MAX;
use florin_core::testing::to;
use net::PATIENCE;

const CONNECTIONS: usize = 1_000;
const START: u64 = 1_000_000;
const PAYMENTS: usize = 10;
/// Bytes that a connection takes, its TLS and HTTP/2 included, as docs/operations.md says.
const CONNECTION_BYTES: u64 = 128 << 10;
/// Bytes of a connection that came and have not been looked at, as the transport has it.
const WINDOW: u64 = 1 << 20;
/// What payments take beside that, and what the allocator does not give back.
const BESIDE: u64 = 64 << 20;

/// Bytes of a process, by the name that the kernel has for them.
fn memory(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_fills_no_memory_and_stops_nobody() {
    let _turn = common::turn().await;
    let all = signers(1, 1 + attacks::BATCH);
    let genesis = all.iter().map(|s| (s.address, START)).collect();
    let mut local = tokio::task::block_in_place(|| Local::start(Plan { genesis, ..Plan::default() }));
    let (mut payer, network) = (all[0].clone(), local.network());
    local.wait_level(&network, &[(all[attacks::BATCH].address, i128::from(START), 0)]).await;
    let besieged = Besieged::new(local.committee.clone(), 1, CONNECTIONS, &all[1..]);
    let pid = local.pid((0, 0));
    let share = REQUESTS_BYTES_MAX as u64 / 4;
    let at_once = |connections: usize| connections as u64 * (CONNECTION_BYTES + WINDOW) + share;
    let held = CONNECTIONS as u64 * CONNECTION_BYTES;
    let half = attacks::HALF_CONNECTIONS * attacks::HALF_REQUESTS;
    // More deeds than are under way at once: some have been answered.
    let bounds = [
        (Kind::Silent, CONNECTIONS, held),
        (Kind::HalfTls, CONNECTIONS, held),
        (Kind::Idle, CONNECTIONS, held),
        (Kind::HalfRequests, half + 1, at_once(attacks::HALF_CONNECTIONS)),
        (Kind::HugeBatches, attacks::IN_FLIGHT + 1, at_once(1)),
        (Kind::BadSignatures, attacks::IN_FLIGHT + 1, at_once(1)),
        (Kind::BadSingles, attacks::SINGLES + 1, at_once(1)),
    ];
    for (kind, enough, bound) in bounds {
        let before = memory(pid, "VmRSS:");
        // The kernel's peak begins anew.
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        let attack = besieged.attack(kind).await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        for paid in 1.. {
            let order = payer.pay(&[to(all[1].address, 1)], "");
            network.submit(0, vec![order], |_| ()).await.unwrap().outcomes.remove(0).unwrap();
            if paid >= PAYMENTS && attack.deeds() >= enough as u64 {
                break;
            }
            assert!(Instant::now() < deadline, "{kind:?} gets no answers");
        }
        let deeds = attack.deeds();
        drop(attack);
        let took = memory(pid, "VmHWM:").saturating_sub(before);
        println!(
            "{kind:?}: {deeds} deeds, {} MB before, {} MB more at most; the bound is {} MB",
            before >> 20,
            took >> 20,
            bound >> 20
        );
        assert!(took < bound + BESIDE, "{kind:?} takes {} MB", took >> 20);
    }
    let paid = i128::from(payer.seqnum);
    local.wait_level(&network, &[(payer.address, i128::from(START) - paid, payer.seqnum)]).await;
    local.assert_alive();
    tokio::task::spawn_blocking(move || local.audit_all()).await.unwrap();
}
