//! Files that are damaged anywhere, and options that make no sense: an exit status and a code, never a panic.

#![allow(clippy::unwrap_used)]

mod common;
mod net;

use common::{CURRENCY, Local, OFFLINE, Plan};
use florin_core::address::Address;
use florin_sim::rng::Rng;
use net::{Folder, Said, wait};

/// An authority stopped in order, wallets, and a receipt: all files that there are.
fn files() -> Local {
    let folder = Folder::new();
    let address = |name: &str| {
        folder.run(&format!("wallet new --wallet {name} {OFFLINE}")).ok();
        folder.run(&format!("wallet address --wallet {name}")).ok().line()
    };
    let (alice, bob) = (address("alice"), address("bob"));
    let genesis = vec![(Address::from_text(&alice, CURRENCY).unwrap(), 100_000)];
    let mut local = Local::create(folder, Plan { genesis, ..Plan::default() });
    local.up_all();
    wait("the genesis file", || local.run("wallet balance --wallet alice").stdout.starts_with("1000.00"));
    local.run(&format!("wallet pay --wallet alice --receipt receipt.json {bob} 1")).ok();
    for part in local.parts() {
        assert_eq!(local.stop(part), 0);
    }
    local
}

#[track_caller]
fn behaves(said: &Said, what: &str) {
    assert!([0, 2, 3, 4, 5, 6].contains(&said.status), "{what}: {said:?}");
    assert!(!said.stderr.contains("panicked"), "{what}: {said:?}");
    assert!(said.status == 0 || said.stderr.contains("next: "), "{what}: {said:?}");
}

#[test]
fn damage_anywhere_in_a_file_is_an_error_with_a_code() {
    let local = files();
    let mut rng = Rng::new(8);
    // The file, what reads it, and whether damage may pass: what people may write is not sealed.
    let cases = [
        ("committee.toml", "wallet balance --wallet alice --timeout 200ms", true),
        ("committee.toml", "receipt verify receipt.json", true),
        ("authority-1-0.toml", "config check authority-1-0.toml", true),
        ("receipt.json", "receipt verify receipt.json", true),
        ("alice", "wallet backup --wallet alice", true),
        ("alice.journal", "wallet resume --wallet alice --timeout 300ms", true),
        ("genesis.txt", "config check authority-1-0.toml", false),
        ("data-1/shard-0/florin-shard.toml", "audit --config authority-1-0.toml", true),
        ("data-1/shard-0/checkpoint", "audit --config authority-1-0.toml", false),
        ("data-1/shard-0/log/000000000001.log", "audit --config authority-1-0.toml", true),
    ];
    for (file, command, may_pass) in cases {
        let path = local.path(file);
        let whole = std::fs::read(&path).unwrap();
        local.run(command);
        for round in 0..10 {
            let mut bytes = whole.clone();
            let at = rng.index(bytes.len());
            match round % 5 {
                0 => bytes.truncate(at),
                1 => drop(bytes.splice(at..at, rng.bytes())),
                2 => bytes[at] = 0xff,
                _ => bytes[at] ^= 1 << rng.below(8),
            }
            std::fs::write(&path, &bytes).unwrap();
            let said = local.run(command);
            behaves(&said, &format!("{command}, {file} damaged at {at} ({round})"));
            assert!(may_pass || said.status != 0, "{command}, {file} damaged at {at} ({round}): {said:?}");
        }
        for bytes in [&b""[..], &[0; 4_096], &[0xff; 100]] {
            std::fs::write(&path, bytes).unwrap();
            let said = local.run(command);
            behaves(&said, &format!("{command}, {file} of {} bytes", bytes.len()));
            // A journal that got lost is no more than that; the wallet then asks the network first.
            assert!(
                said.status != 0 || file.ends_with(".journal"),
                "{command}, {file} of {} bytes: {said:?}",
                bytes.len()
            );
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let said = local.run(command);
        behaves(&said, &format!("{command}, {file} is a folder"));
        assert_ne!(said.status, 0, "{command}, {file} is a folder");
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, &whole).unwrap();
    }
    local.run("receipt verify receipt.json").ok();
    local.run("audit --config authority-1-0.toml").ok();
}

#[test]
fn an_authority_with_another_genesis_file_votes_for_nothing_and_says_so() {
    let mut local = {
        let genesis = vec![(florin_core::testing::Signer::new(1).address, 5_000)];
        Local::create(Folder::new(), Plan { genesis, ..Plan::default() })
    };
    std::fs::write(local.path("genesis.txt"), "another\n").unwrap();
    // Whether it refuses to start or starts and refuses to vote, a load balancer and a person must see it.
    let ready = local.spawn((0, 0));
    if ready.recv_timeout(net::PATIENCE).is_ok() {
        let (status, page) = local.http((0, 0), "/health");
        assert_eq!(status, 503, "{page}");
    }
    wait("a word about it", || local.log((0, 0)).contains("BAD_CONFIG"));
    assert!(!local.log((0, 0)).contains("panicked"));
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let folder = Folder::new();
    for line in [
        "nonsense",
        "--json",
        "wallet",
        "wallet pay",
        "wallet pay --wallet a x 1 --timeout 5",
        "wallet pay --wallet a x 1 --timeout -5s",
        "wallet pay --wallet a x 1 --timeout 99999999999999999999s",
        "wallet pay --wallet a x 1 --account -1",
        "wallet pay --wallet a x 1 --account 99999999999",
        "wallet new --wallet a --words 13",
        "wallet new --wallet a --curve rsa",
        "wallet new --wallet a --network-id -1 --currency flr --decimals 2",
        "wallet new --wallet a --network-id 7 --currency flr --decimals 256",
        "authority run",
        "authority run --config x --shards a",
        "authority run --config x --shards -1",
        "authority run --config x --log-format xml",
        "authority keygen --name ../a --host h --port 1 --dir d",
        "authority keygen --name a --host h --port 99999 --dir d",
        "authority keygen --name a --host h --port 65535 --shards 2 --dir d",
        "committee new --dir c --authorities 99999999999",
        "committee new --dir c --shards 1025",
        "committee new --dir c --decimals -1",
        "worker run --listen nowhere",
        "worker run --listen 127.0.0.1:99999",
        "receipt verify",
        "audit",
        "audit --dir x",
        "inspect order x --actor 1",
        "sim run --seed -1",
        "sim run --authorities 1000000",
        "bench transfers --accounts 0",
        "completions nonsense",
        "devnet up --dir d --authorities 3",
    ] {
        let said = folder.run(line);
        assert_eq!(said.status, 2, "{line}: {said:?}");
        assert!(!said.stderr.contains("panicked") && !said.stderr.is_empty(), "{line}: {said:?}");
    }
    // Nothing was made for any of them.
    let left: Vec<_> = std::fs::read_dir(folder.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["pw"]);
}
