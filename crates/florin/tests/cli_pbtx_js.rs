//! Existing PBTX clients work unchanged: npm's eosjs and protobufjs against a worker, and what the endpoint bears.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net;
mod pbtx_rpc;

use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use florin_core::keys::Curve;
use florin_core::pbtxrpc::AccountSeqData;
use florin_core::pbtxrpc::request_response::StatusCode;
use florin_core::testing::Actor;
use net::Net;
use pbtx_rpc::{NETWORK, post, raw, register, sequence, start, worker};

/// Node and the program with what it needs. `None` if they are not to be had and need not be.
fn node_program(net: &Net) -> Option<PathBuf> {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/pbtx-js");
    let skip = |why: String| {
        assert!(std::env::var_os("FLORIN_REQUIRE_NODE").is_none(), "FLORIN_REQUIRE_NODE is set: {why}");
        println!("skipped: {why}");
        None
    };
    if Command::new("node").arg("--version").output().is_err() {
        return skip("node is not installed".into());
    }
    // Installed beside a copy, which leaves the working tree as it is; as deep as there, for the path to proto/.
    let place = net.path("js/tests/pbtx-js");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::create_dir_all(net.path("js/proto")).unwrap();
    for name in ["package.json", "package-lock.json", "client.mjs"] {
        std::fs::copy(source.join(name), place.join(name)).unwrap();
    }
    for name in ["pbtx.proto", "pbtxrpc.proto"] {
        std::fs::copy(source.join("../../proto").join(name), net.path("js/proto").join(name)).unwrap();
    }
    let npm = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"];
    match Command::new("npm").args(npm).current_dir(&place).output() {
        Ok(output) if output.status.success() => Some(place),
        Ok(output) => skip(format!("npm ci: {}", String::from_utf8_lossy(&output.stderr))),
        Err(e) => skip(format!("npm: {e}")),
    }
}

#[test]
fn a_client_of_eosjs_and_protobufjs_works_unchanged() {
    let net = start("");
    let Some(program) = node_program(&net) else { return };
    std::fs::write(net.path("credentials"), "# of the first batch\nlet me in\n").unwrap();
    let (first, url) = worker(&net, "first", "--pbtx-wallet admin --pbtx-credentials credentials");
    let (other, other_url) = worker(&net, "other", "");
    let mut node = Command::new("node");
    node.arg("client.mjs").args([&NETWORK.to_string(), "let me in"]).current_dir(program);
    let output = node.args([format!("http://{url}"), format!("http://{other_url}")]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = format!("{said}{}\n{}", String::from_utf8_lossy(&output.stderr), net.read("servers.log"));
    assert!(output.status.success(), "{wrong}");
    assert_eq!(said.trim(), r#"{"actors":12,"transactions":103}"#);
    // Many registrations shared a CALL, and a while after the last one the admin can use the wallet.
    let calls = net.run("wallet history --wallet admin --json").ok().json();
    let count = calls["payments"].as_array().unwrap().len();
    assert!(count < 8, "{count} orders for 12 actors and a network");
    assert_eq!((first.stop(), other.stop()), (0, 0));
}

#[test]
fn in_an_open_network_the_log_decides_who_was_first() {
    let net = start("--open");
    net.wallet("anyone");
    net.wallet("someone");
    let (_first, one) = worker(&net, "first", "--pbtx-wallet anyone");
    let (_second, two) = worker(&net, "second", "--pbtx-wallet someone");
    // Two devices want the same id at two workers.
    let actors = [Curve::K1, Curve::R1].map(|curve| Actor::new(NETWORK, 77, curve));
    let told = thread::scope(|scope| {
        let of = |address, actor| scope.spawn(move || register(address, actor));
        let [a, b] = [of(&one, &actors[0]), of(&two, &actors[1])];
        [a.join().unwrap(), b.join().unwrap()]
    });
    let mut sorted = told;
    sorted.sort();
    assert_eq!(sorted, [StatusCode::Success, StatusCode::DuplicateActor], "{told:?}");
    let winner = told.iter().position(|status| *status == StatusCode::Success).unwrap();
    for address in [&one, &two] {
        assert_eq!(register(address, &actors[winner]), StatusCode::Success);
        assert_eq!(register(address, &actors[1 - winner]), StatusCode::DuplicateActor);
        assert_eq!(sequence(address, 77).0, StatusCode::Success);
    }
    // A wallet that is no admin's registers nobody in a closed network.
    net.run("network register 11 --wallet admin").ok();
    let closed = "worker run --listen 127.0.0.1:0 --journal third --pbtx-http 127.0.0.1:0 --pbtx-network 11";
    net.run(&format!("{closed} --pbtx-wallet anyone")).fails(3, "NETWORK_CLOSED");
    net.run(&format!("{} --pbtx-wallet admin", closed.replace("network 11", "network 12"))).fails(3, "UNKNOWN_NETWORK");
}

#[test]
fn strangers_and_garbage_do_no_harm() {
    let net = start("");
    let (worker, address) = worker(&net, "worker", "--pbtx-wallet admin");
    let get = |request: &str| raw(&address, request.as_bytes()).0;
    assert_eq!(get("GET /get_seq HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 405);
    assert_eq!(get("POST /other HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), 404);
    assert_eq!(get("POST /get_seq HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), 415);
    let head = "POST /get_seq HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/octet-stream\r\n";
    assert_eq!(get(&format!("{head}Content-Length: 99999999999\r\n\r\n")), 413);
    assert_eq!(get(&format!("{head}Content-Length: x\r\n\r\n")), 400);
    assert_eq!(get("\r\n\r\n\0\0\0"), 400);
    let garbage = Arc::new((0..=255u8).cycle().take(3_000).collect::<Vec<u8>>());
    let threads = (0..64).map(|i| {
        let (address, garbage) = (address.clone(), garbage.clone());
        thread::spawn(move || {
            for path in ["/register_account", "/get_seq", "/send_transaction"] {
                let answer = post(&address, path, &garbage[i..garbage.len() - 11 * i]);
                assert_eq!(answer.status(), StatusCode::InvalidContent, "{path} {i}");
            }
            // Half a request, left behind.
            TcpStream::connect(&address).unwrap().write_all(&garbage[..i]).unwrap();
        })
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(sequence(&address, 0).0, StatusCode::InvalidActor);
    assert_eq!(sequence(&address, 1 << 63).0, StatusCode::InvalidActor);
    assert_eq!(post(&address, "/send_transaction", b"").status(), StatusCode::InvalidContent);
    let actor = Actor::new(NETWORK, 5, Curve::K1);
    assert_eq!(register(&address, &actor), StatusCode::Success);
    assert_eq!(
        sequence(&address, 5),
        (StatusCode::Success, AccountSeqData { network_id: NETWORK, actor: 5, ..Default::default() })
    );
    // It comes back after a kill, with the same wallet.
    worker.kill();
    let (worker, address) = pbtx_rpc::worker(&net, "worker", "--pbtx-wallet admin");
    assert_eq!(register(&address, &actor), StatusCode::Success);
    assert_eq!(register(&address, &Actor::new(NETWORK, 5, Curve::R1)), StatusCode::DuplicateActor);
    assert!(!net.read("servers.log").contains("panicked"), "{}", net.read("servers.log"));
    assert_eq!(worker.stop(), 0);
    net.run("worker run --listen 127.0.0.1:0 --pbtx-http 0.0.0.0:0 --pbtx-network 10").fails(2, "BAD_CONFIG");
}
