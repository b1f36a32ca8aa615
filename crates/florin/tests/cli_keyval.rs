//! The example listener, `examples/keyval`, against a real committee.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net;
mod pbtx_rpc;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use florin_core::keys::Curve;
use florin_core::pbtxrpc::request_response::StatusCode;
use florin_core::testing::Actor;
use net::{Net, PATIENCE, Process};
use pbtx_rpc::{NETWORK, register, send, start, worker};

/// The program, which `cargo test` builds too; here for a test that is run alone.
fn program() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_florin")).with_file_name("examples/keyval");
    if !path.exists() {
        let build = ["build", "-q", "-p", "florin", "--example", "keyval"];
        assert!(Command::new(env!("CARGO")).args(build).status().unwrap().success());
    }
    path
}

fn keyval(args: &[&str]) -> (bool, String) {
    let output = Command::new(program()).args(args).output().unwrap();
    let text = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(text).unwrap().trim().to_owned())
}

fn content(args: &[&str]) -> Vec<u8> {
    let (ok, text) = keyval(&[&["content"], args].concat());
    assert!(ok, "{text}");
    hex::decode(text).unwrap()
}

/// Starts the listener; its lines come over the channel.
fn listen(net: &Net) -> (Process, Receiver<String>) {
    let mut command = Command::new(program());
    command.args(["run", "committee.toml", &NETWORK.to_string(), "keyval.data"]).current_dir(net.0.path());
    let log = std::fs::OpenOptions::new().append(true).create(true).open(net.path("servers.log")).unwrap();
    let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let (sender, receiver) = channel();
    std::thread::spawn(move || lines.for_each(|line| drop(sender.send(line))));
    (Process::new(child), receiver)
}

/// The line of a transaction, and all that came before it.
fn until(net: &Net, lines: &Receiver<String>, start: &str) -> Vec<String> {
    let mut said = Vec::new();
    while said.last().is_none_or(|line: &String| !line.starts_with(start)) {
        let line = lines.recv_timeout(PATIENCE);
        said.push(line.unwrap_or_else(|e| panic!("{start}: {e}; {said:?}\n{}", net.read("servers.log"))));
    }
    said
}

#[test]
fn contents_are_the_published_ones() {
    assert_eq!(hex::encode(content(&["set", "19", "blahblah"])), "0813120a0a08626c6168626c6168");
    assert_eq!(hex::encode(content(&["del", "19"])), "08131a00");
    assert!(!keyval(&["content", "set", "19", &"x".repeat(1_025)]).0);
    assert!(!keyval(&["content", "set", "-1", "x"]).0);
    assert!(keyval(&[]).1.contains("usage:"));
}

#[test]
fn pairs_are_set_and_deleted_each_once() {
    let net = start("");
    let (_worker, address) = worker(&net, "worker", "--pbtx-wallet admin");
    let mut actors = [Curve::K1, Curve::R1].map(|curve| Actor::new(NETWORK, 55 + curve as u64, curve));
    for actor in &actors {
        assert_eq!(register(&address, actor), StatusCode::Success);
    }
    let mut act = |i: usize, content: &[u8]| {
        assert_eq!(send(&address, &actors[i].order(0, content, &[])), StatusCode::Success);
        format!("{} {}: ", actors[i].permission.actor, actors[i].seqnum)
    };
    let (mut process, mut lines) = listen(&net);
    let key = act(0, &content(&["set", "19", "blahblah"]));
    assert_eq!(until(&net, &lines, &key), ["ready".to_owned(), format!("{key}set 19 \"blahblah\"")]);
    // What is wrong changes nothing, and what follows is delivered.
    for (wrong, error) in [
        (content(&["del", "20"]), "Entry does not exist"),
        (Vec::new(), "empty transaction_content"),
        (vec![8, 19], "Invalid command: 0"),
        (vec![0xff], "error: "),
    ] {
        let key = act(1, &wrong);
        let said = until(&net, &lines, &key);
        assert!(said[0].contains(error), "{said:?}");
    }

    // Killed again and again while both actors set and delete: a deletion that counted twice, or without what it
    // deletes, would be an error.
    let (mut said, mut last) = (Vec::new(), [String::new(), String::new()]);
    for round in 0..6u32 {
        for (i, last) in last.iter_mut().enumerate() {
            let key = (100 + i as u32).to_string();
            act(i, &content(&["set", &key, &format!("round {round}")]));
            act(i, &content(&["del", &key]));
            *last = act(i, &content(&["set", &(200 + i as u32).to_string(), &round.to_string()]));
        }
        process.kill();
        said.extend(lines.try_iter());
        (process, lines) = listen(&net);
    }
    // What comes last proves that all is there.
    let end = [act(0, &content(&["del", "19"])), act(1, &content(&["set", "7", "end"]))];
    let mut left: BTreeSet<&String> = end.iter().collect();
    while !left.is_empty() {
        let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("{e}\n{}", net.read("servers.log")));
        left.retain(|start| !line.starts_with(*start));
        said.push(line);
    }
    process.kill();
    said.retain(|line| line != "ready");
    assert!(!said.iter().any(|line| line.contains("error")), "{said:?}");
    assert_eq!(said.iter().collect::<BTreeSet<_>>().len(), said.len(), "once: {said:?}");
    let (ok, shown) = keyval(&["show", net.path("keyval.data").to_str().unwrap()]);
    assert!(ok, "{shown}");
    assert_eq!(shown, "7 \"end\"\n200 \"5\"\n201 \"5\"");
}
