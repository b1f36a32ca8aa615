//! Disks that are full or can't be written, authorities that were away, and a large genesis file.
//!
//! Where the test may not mount, a limit on the size of files stands for a full disk, and what needs a disk of its own
//! says that it was passed over.

#![allow(clippy::unwrap_used)]

mod common;
mod net;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Local, Plan, SIZE, blocking_turn, signers, turn, until};
use florin_client::network::Network;
use florin_core::Code;
use florin_core::address::Address;
use florin_core::authority::state::Totals;
use florin_core::bitmap::Bitmap;
use florin_core::testing::{Signer, to};
use florin_core::wire;
use florin_node::storage::Store;
use florin_rpc::errors::from_status;
use net::{Folder, PATIENCE, wait};
use rustix::process::Signal;

/// Whose disk it is.
const BAD: usize = 3;
const START: u64 = 100_000;

/// A disk of its own on a folder; gone when dropped.
struct Disk(PathBuf);

impl Disk {
    /// None if this process may not mount.
    fn mount(at: &Path, size: &str) -> Option<Disk> {
        fs::create_dir_all(at).unwrap();
        let disk = Disk(at.to_owned());
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], at).then_some(disk)
    }

    fn remount(&self, option: &str) {
        assert!(mount(&["-o", &format!("remount,{option}")], &self.0), "{option}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).stderr(Stdio::null()).status();
    }
}

fn mount(options: &[&str], at: &Path) -> bool {
    let status = Command::new("mount").args(options).arg(at).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn committee(accounts: &[Signer]) -> Local {
    let genesis = accounts.iter().map(|a| (a.address, START)).collect();
    Local::create(Folder::new(), Plan { genesis, ..Plan::default() })
}

/// One payment of each account, final.
async fn pay_all(network: &Network, accounts: &mut [Signer], payee: &Address) {
    let orders: Vec<Bytes> = accounts.iter_mut().map(|a| a.pay(&[to(*payee, 1)], "x".repeat(200).as_str())).collect();
    let submission = network.submit(0, orders, |_| ()).await.unwrap();
    for outcome in submission.outcomes {
        outcome.unwrap();
    }
}

async fn vote(network: &Network, orders: &[Bytes]) -> Result<wire::VoteReply, florin_core::Error> {
    let request = wire::VoteRequest { shard: 0, orders: orders.to_vec() };
    network.authority(BAD, 0).vote(request).await.map(tonic::Response::into_inner).map_err(from_status)
}

/// The authority promises nothing for this reason, lives, and answers questions; the others go on.
async fn is_faulty(local: &mut Local, network: &Network, accounts: &mut [Signer], payee: &Address, code: Code) {
    let fresh = Signer::new(123_456).pay(&[to(*payee, 1)], "");
    assert_eq!(vote(network, &[fresh]).await.unwrap_err().code, code);
    let (status, page) = tokio::task::block_in_place(|| local.http((BAD, 0), "/health"));
    assert_eq!(status, 503, "{page}");
    assert!(page.contains(code.name()), "{page}");
    let metric = tokio::task::block_in_place(|| local.metric((BAD, 0), "florin_faulty"));
    assert!(metric.iter().all(|line| line.ends_with(" 1.0")), "{metric:?}");
    let info = network.authority(BAD, 0).info(wire::InfoRequest {}).await.unwrap().into_inner();
    assert!(info.status[0].fault.contains(code.name()), "{info:?}");
    assert!(local.accounts(network, &accounts[0].address).await.is_some());
    for _ in 0..3 {
        pay_all(network, accounts, payee).await;
    }
    local.assert_alive();
}

fn balances(accounts: &[Signer], payee: Address) -> Vec<(Address, i128, u32)> {
    let left = |a: &Signer| (a.address, i128::from(START) - i128::from(a.seqnum), a.seqnum);
    let paid = accounts.iter().map(|a| i128::from(a.seqnum)).sum();
    accounts.iter().map(left).chain([(payee, paid, 0)]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_breaks_no_promise() {
    let _turn = turn().await;
    let mut accounts = signers(1, 32);
    let payee = Signer::new(900_000).address;
    let mut local = committee(&accounts);
    let data = local.data(BAD);
    let disk = Disk::mount(&data, "64m");
    let ballast = data.join("ballast");
    tokio::task::block_in_place(|| {
        match &disk {
            Some(_) => local.up_all(),
            None => {
                (0..SIZE).filter(|a| *a != BAD).for_each(|a| local.up((a, 0)));
                // Ignored, the signal becomes an error of the write.
                let ready = local.spawn_after((BAD, 0), "trap '' XFSZ; ulimit -f 512");
                local.wait_ready((BAD, 0), &ready);
            }
        }
    });
    let network = local.network();
    let first: Vec<_> = accounts.iter().map(|a| (a.address, i128::from(START), 0)).collect();
    local.wait_level(&network, &first).await;
    if disk.is_some() {
        // All but 300 kB is taken by something else.
        let free = 300_000;
        let mut size = 64 << 20;
        fs::write(&ballast, vec![7; size - free]).unwrap_or_else(|_| size = 0);
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&ballast).unwrap();
        if size == 0 {
            // It is full now; give back a little.
            let length = file.metadata().unwrap().len();
            file.set_len(length - free as u64).unwrap();
        }
        std::io::Write::flush(&mut file).unwrap();
    }
    // Locked at this authority before it was full.
    let mut promises: Vec<(Bytes, Bytes)> = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    let funded = &mut accounts[0];
    loop {
        let other = funded.clone().pay(&[to(payee, 7)], "another");
        let order = funded.pay(&[to(payee, 1)], "");
        match vote(&network, std::slice::from_ref(&order)).await {
            Ok(reply) => {
                assert!(reply.vote.is_some(), "{reply:?}");
                promises.push((order.clone(), other));
            }
            Err(e) => assert_eq!(e.code, Code::StorageFull, "{e}"),
        }
        let submission = network.submit(0, vec![order], |_| ()).await.unwrap();
        submission.outcomes.into_iter().for_each(|o| drop(o.unwrap()));
        let info = network.authority(BAD, 0).info(wire::InfoRequest {}).await.unwrap().into_inner();
        if !info.status[0].fault.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "the disk does not get full");
    }
    assert!(!promises.is_empty());
    is_faulty(&mut local, &network, &mut accounts, &payee, Code::StorageFull).await;

    // Space again.
    tokio::task::block_in_place(|| {
        local.kill((BAD, 0));
        let _ = fs::remove_file(&ballast);
        local.up((BAD, 0));
    });
    for (order, other) in &promises {
        until("the authority to answer", || async { vote(&network, std::slice::from_ref(order)).await.is_ok() }).await;
        let kept = vote(&network, &[order.clone(), other.clone()]).await.unwrap();
        let bits = Bitmap::parse(&kept.vote.unwrap().bitmap, 2).unwrap();
        assert!(bits.get(0) && !bits.get(1), "{:?}", kept.errors);
    }
    local.wait_level(&network, &balances(&accounts, payee)).await;
    local.assert_alive();
    tokio::task::block_in_place(|| local.audit_all());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_read_only_disk_an_authority_does_not_start_and_the_others_go_on() {
    let _turn = turn().await;
    let mut accounts = signers(1, 8);
    let payee = Signer::new(900_000).address;
    let mut local = committee(&accounts);
    let Some(disk) = Disk::mount(&local.data(BAD), "64m") else {
        return println!("passed over: this process may not mount");
    };
    tokio::task::block_in_place(|| local.up_all());
    let network = local.network();
    let first: Vec<_> = accounts.iter().map(|a| (a.address, i128::from(START), 0)).collect();
    local.wait_level(&network, &first).await;
    pay_all(&network, &mut accounts, &payee).await;
    local.wait_level(&network, &balances(&accounts, payee)).await;
    tokio::task::block_in_place(|| {
        local.kill((BAD, 0));
        disk.remount("ro");
        // It can't promise anything, so it does not start.
        let run = "authority run --config authority-4-0.toml";
        let said = local.run(run);
        assert_eq!(said.status, 5, "{said:?}");
        assert!(said.stderr.contains("STORAGE_FAILED"), "{said:?}");
        assert!(said.stderr.contains("next: "), "{said:?}");
        assert!(!said.stderr.contains("panicked"), "{said:?}");
    });
    for _ in 0..3 {
        pay_all(&network, &mut accounts, &payee).await;
    }
    tokio::task::block_in_place(|| {
        disk.remount("rw");
        local.up((BAD, 0));
    });
    local.wait_level(&network, &balances(&accounts, payee)).await;
    tokio::task::block_in_place(|| local.audit_all());
}

/// Payments of all accounts, round by round.
async fn rounds(network: &Network, accounts: &mut [Signer], payee: &Address, shards: u32, rounds: usize) {
    for _ in 0..rounds {
        let mut by_shard: Vec<Vec<Bytes>> = vec![Vec::new(); shards as usize];
        for account in accounts.iter_mut() {
            by_shard[account.address.shard(shards) as usize].push(account.pay(&[to(*payee, 1)], ""));
        }
        for (shard, orders) in by_shard.into_iter().enumerate() {
            let submission = network.submit(shard as u32, orders, |_| ()).await.unwrap();
            submission.outcomes.into_iter().for_each(|o| drop(o.unwrap()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_was_away_comes_level_by_itself() {
    let _turn = turn().await;
    let shards = 2;
    let mut accounts = signers(shards, 60);
    let payee = Signer::new(900_000).address;
    let genesis = accounts.iter().map(|a| (a.address, START)).collect();
    let plan = Plan { shards, genesis, split: Some(BAD) };
    let mut local = tokio::task::block_in_place(|| Local::start(plan));
    let network = local.network();
    let first: Vec<_> = accounts.iter().map(|a| (a.address, i128::from(START), 0)).collect();
    local.wait_level(&network, &first).await;
    rounds(&network, &mut accounts, &payee, shards, 1).await;
    local.wait_level(&network, &balances(&accounts, payee)).await;
    let at = accounts.iter().position(|a| a.address.shard(shards) == 0).unwrap();
    let mut quiet = accounts.remove(at);
    tokio::task::block_in_place(|| {
        local.parts_of(BAD).into_iter().for_each(|part| local.kill(part));
        // One of its shards loses all it had, as one that a new process serves.
        fs::remove_dir_all(local.data(BAD).join("shard-1")).unwrap();
        fs::remove_file(local.data(BAD).join("shard-1.made")).unwrap();
    });
    rounds(&network, &mut accounts, &payee, shards, 20).await;

    // It is back and can't hear the others: it votes for the account that it knows, and not for one that went on.
    let others = || (0..SIZE).filter(|a| *a != BAD);
    others().for_each(|a| local.signal((a, 0), Signal::STOP));
    tokio::task::block_in_place(|| local.up_all());
    let busy = accounts.iter().find(|a| a.address.shard(shards) == 0).unwrap();
    let next = busy.clone().pay(&[to(payee, 1)], "never certified");
    let (order, request) = (quiet.pay(&[to(payee, 1)], ""), [next]);
    assert!(vote(&network, std::slice::from_ref(&order)).await.unwrap().vote.is_some());
    let refused = vote(&network, &request).await.unwrap();
    assert_eq!((refused.vote, refused.errors[0].code), (None, Code::BadSeq as u32));
    others().for_each(|a| local.signal((a, 0), Signal::CONT));

    // No client does anything.
    local.wait_level(&network, &balances(&accounts, payee)[..accounts.len()]).await;
    until("no lag", || async {
        let mut lags = Vec::new();
        for shard in 0..shards {
            let info = network.authority(BAD, shard).info(wire::InfoRequest {}).await.unwrap().into_inner();
            lags.extend(info.status.into_iter().flat_map(|s| s.lag));
        }
        lags.iter().all(|lag| *lag == 0)
    })
    .await;
    assert!(vote(&network, &request).await.unwrap().vote.is_some());
    let last = network.submit(0, vec![order], |_| ()).await.unwrap().outcomes.remove(0);
    last.unwrap();
    accounts.push(quiet);
    let (levelled, of_all) = (accounts.len() - 1, balances(&accounts, payee));
    local.wait_level(&network, &of_all[levelled..]).await;
    local.assert_alive();
    tokio::task::block_in_place(|| local.audit_all());
}

/// Lines of the genesis file that shard 0 of an authority has looked at, and whether that was all; None if its folder
/// was not made completely.
fn loaded(local: &Local, authority: usize) -> Option<(u64, bool)> {
    let store = Store::open_read_only(&local.data(authority).join("shard-0")).ok()?;
    let totals = Totals::load(&store).unwrap();
    Some((totals.genesis_lines, totals.genesis_done))
}

#[test]
fn a_large_genesis_file_is_loaded_in_spite_of_kills() {
    let _turn = blocking_turn();
    const LINES: u64 = 50_000;
    let address = |i: u64| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1).to_be_bytes());
        bytes[24..].copy_from_slice(&i.to_be_bytes());
        Address::from_slice(&bytes).unwrap()
    };
    let genesis: Vec<_> = (0..LINES).map(|i| (address(i), 1 + i % 1_000)).collect();
    let sum: u64 = genesis.iter().map(|(_, amount)| amount).sum();
    let mut local = Local::create(Folder::new(), Plan { shards: 2, genesis: genesis.clone(), split: None });
    // Killed before it writes anything, and then twice as soon as a part of the file is written.
    drop(local.spawn((0, 0)));
    local.kill((0, 0));
    let log = local.data(0).join("shard-0/log/000000000001.log");
    let size = || fs::metadata(&log).map_or(0, |m| m.len());
    let mut came = Vec::new();
    for _ in 0..2 {
        let (before, deadline) = (size(), Instant::now() + PATIENCE);
        drop(local.spawn((0, 0)));
        while size() <= before + 1_000 {
            assert!(Instant::now() < deadline, "{}", local.log((0, 0)));
            std::thread::sleep(Duration::from_millis(1));
        }
        local.kill((0, 0));
        came.push(loaded(&local, 0).unwrap());
    }
    assert!(came[0].0 < LINES && !came[0].1 && came[0] <= came[1], "{came:?}");
    local.up_all();
    for authority in 0..SIZE {
        wait("the genesis file", || local.http((authority, 0), "/health").0 == 200);
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let network = local.network();
        let some: Vec<_> = genesis.iter().step_by(5_000).map(|(a, m)| (*a, i128::from(*m), 0)).collect();
        local.wait_level(&network, &some).await;
        let issuer = local.committee.network.issuer_address();
        local.wait_level(&network, &[(issuer, -i128::from(sum), 0)]).await;
    });
    local.assert_alive();
    for authority in 0..SIZE {
        assert_eq!(local.stop((authority, 0)), 0);
        // Each audit takes a while; that all have loaded the same is known from the sums.
        if authority < 2 {
            let audited = local.audit(authority).ok().json();
            let shards = audited["shards"].as_array().unwrap();
            let credits: u64 = shards.iter().map(|s| s["credits"].as_u64().unwrap()).sum();
            assert_eq!((credits, &audited["sum"]), (LINES, &"0".into()), "{audited}");
        }
    }
}
