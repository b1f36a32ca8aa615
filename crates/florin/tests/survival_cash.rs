//! The keys of e-cash are made once, by all, whoever is killed meanwhile; and the operators have the last word on whom
//! they wait for.

#![allow(clippy::unwrap_used)]

mod common;
mod net;

use bytes::Bytes;
use common::{Local, Plan, SIZE, authority_seed, raw, until, wait_for_log};
use florin_client::network::Network;
use florin_core::Code;
use florin_core::wire::CashKeysReply;
use net::Folder;
use serde_json::Value;

const DKG: &str = "committee dkg --json";

fn file(authority: usize) -> String {
    format!("data-{}/cash-shares", authority + 1)
}

fn has(local: &Local, authority: usize, name: &str) -> bool {
    local.data(authority).join(name).exists()
}

async fn replies(network: &Network) -> Vec<Option<CashKeysReply>> {
    network.cash_keys_status().await.into_iter().map(Result::ok).collect()
}

/// Waits until an authority says that its log is in this phase of the generation, or past it.
async fn phase(network: &Network, authority: usize, phase: u32) {
    until(&format!("phase {phase}"), || async {
        replies(network).await[authority].as_ref().is_some_and(|r| r.run > 0 && r.phase >= phase)
    })
    .await;
}

/// Waits until these hold their shares of keys that are the same everywhere.
async fn all_hold(network: &Network, who: &[usize]) -> Bytes {
    until("all to hold their shares", || async {
        let replies = replies(network).await;
        who.iter().all(|i| replies[*i].as_ref().is_some_and(|r| r.holds_share))
    })
    .await;
    let replies = replies(network).await;
    let keys = replies.iter().flatten().next().unwrap().keys.clone();
    assert!(!keys.is_empty() && replies.iter().flatten().all(|r| r.keys == keys && r.phase == 4));
    keys
}

/// Each is killed where it has promised most: with a seed and nothing in the log, in the middle of dealings, with
/// shares that nobody knows of. What it does then is what it would have done.
#[tokio::test]
async fn keys_come_whoever_is_killed_meanwhile() {
    let _turn = common::turn().await;
    let mut local = Local::create(Folder::new(), Plan { shards: 2, split: Some(3), ..Plan::default() });
    let network = local.network();
    // Without the last one all wait.
    (0..3).for_each(|i| local.up((i, 0)));
    for i in 0..3 {
        phase(&network, (i + 1) % 3, 0).await;
        local.kill((i, 0));
        assert!(has(&local, i, "cash-seed") && !has(&local, i, "cash-shares"));
        local.up((i, 0));
    }
    local.up((3, 1));
    local.up((3, 0));
    for (at, victim) in [(1, 0), (2, 1), (3, 2), (3, 3), (4, 0)] {
        phase(&network, (victim + 1) % SIZE, at).await;
        local.kill((victim, 0));
        local.up((victim, 0));
    }
    let keys = all_hold(&network, &[0, 1, 2, 3]).await;
    wait_for_log(&local, (3, 1), "keys of e-cash are here");
    until("seeds to be erased", || async { (0..SIZE).all(|i| !has(&local, i, "cash-seed")) }).await;

    // Shares are for who holds the authority's key, and so is its word.
    let request = Bytes::new();
    for (own, code) in [(None, Code::PeerRefused), (Some(authority_seed(1)), Code::PeerRefused)] {
        let channel = local.channel(0, 0, own.as_ref());
        for method in ["PeerService/CashShares", "PeerService/CashGoOn"] {
            assert_eq!(raw(&channel, method, request.clone()).await.unwrap_err().code, code, "{method}");
        }
    }
    let own = local.channel(0, 0, Some(&authority_seed(0)));
    assert!(raw(&own, "PeerService/CashShares", request.clone()).await.unwrap().len() > keys.len());

    // They are there from the start, and stay; what a kill has left of erasing a seed goes.
    (0..SIZE).for_each(|i| local.kill((i, 0)));
    std::fs::write(local.data(0).join("cash-seed.erased"), [0; 40]).unwrap();
    (0..SIZE).for_each(|i| local.up((i, 0)));
    assert_eq!(all_hold(&network, &[0, 1, 2, 3]).await, keys);
    assert!(!has(&local, 0, "cash-seed.erased"));
    local.assert_alive();
    tokio::task::spawn_blocking(move || local.audit_all()).await.unwrap();
}

fn dkg(local: &Local, more: &str) -> Value {
    local.run(&format!("{DKG} {more}")).ok().json()
}

#[tokio::test]
async fn operators_go_on_without_one_that_never_comes() {
    let _turn = common::turn().await;
    let mut local = Local::create(Folder::new(), Plan::default());
    let network = local.network();
    local.up((0, 0));
    local.up((1, 0));
    let go_on = |i: usize| format!("--go-on --authority authority-{}-0.toml", i + 1);
    // An authority alone orders nothing, so its own part is not in the log either.
    local.run(&format!("{DKG} {}", go_on(0))).fails(4, "CASH_NOT_READY");
    local.up((2, 0));
    until("three to have announced", || async {
        replies(&network).await.iter().flatten().filter(|r| r.run == 1 && r.missing == [3]).count() == 3
    })
    .await;
    let waiting = dkg(&local, "");
    assert_eq!(
        (waiting["phase"].as_str(), waiting["waits_for"][0].as_str()),
        (Some("announcing"), Some("authority-4"))
    );
    let text = local.run("committee dkg").ok().stdout;
    assert!(text.contains("waits for:  authority-4"), "{text}");
    local.run(&format!("{DKG} --wait 300ms")).fails(4, "CASH_NOT_READY");

    dkg(&local, &go_on(0));
    dkg(&local, &go_on(1));
    assert_eq!(dkg(&local, "")["phase"], "announcing");
    let made = dkg(&local, &format!("{} --wait 60s", go_on(2)));
    assert_eq!((made["phase"].as_str(), made["threshold"].as_u64()), (Some("active"), Some(3)));
    all_hold(&network, &[0, 1, 2]).await;

    // The one that was left out has no shares, says so, and takes part in everything else.
    local.up((3, 0));
    wait_for_log(&local, (3, 0), "has no shares until the keys are shared again");
    phase(&network, 3, 4).await;
    let state = dkg(&local, "");
    assert_eq!((state["holders"].as_array().unwrap().len(), state["waits_for"][0].as_str()), (3, Some("authority-4")));
    assert_eq!(state["fingerprint"], made["fingerprint"]);

    // Shares that are lost, or another's, are no shares; a backup is.
    local.stop((0, 0));
    let backup = std::fs::read(local.path(&file(0))).unwrap();
    std::fs::copy(local.path(&file(1)), local.path(&file(0))).unwrap();
    local.up((0, 0));
    wait_for_log(&local, (0, 0), "CASH_SHARES_LOST (712)");
    local.stop((0, 0));
    std::fs::remove_file(local.path(&file(0))).unwrap();
    local.up((0, 0));
    until("it to be without", || async { replies(&network).await[0].as_ref().is_some_and(|r| !r.holds_share) }).await;
    assert!(!has(&local, 0, "cash-shares"));
    local.stop((0, 0));
    std::fs::write(local.path(&file(0)), backup).unwrap();
    local.up((0, 0));
    all_hold(&network, &[0, 1, 2]).await;
    local.assert_alive();
    tokio::task::spawn_blocking(move || local.audit_all()).await.unwrap();
}
