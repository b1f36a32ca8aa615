//! A long history of the log. It only measures, so it runs when asked:
//! `cargo test --release -p florin-node --test history -- --ignored --nocapture`

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use florin_core::authority::state::LOG;
use florin_core::limits::SESSION_ROUNDS;
use florin_core::ordered::OrderedLog;
use florin_core::ordered::input::Input;
use florin_core::testing::TestCommittee;
use florin_node::log::{LogShell, LogThreads};
use florin_node::storage::Store;

const SESSIONS: u64 = 100_000;

#[test]
#[ignore = "takes a minute, and measures only"]
fn start_after_a_hundred_thousand_sessions() {
    let dir = tempfile::TempDir::new().unwrap();
    let (committee, keys) = TestCommittee::default().build();
    let open = |create| Store::open(&dir.path().join("log"), LOG, *committee.id(), 0, create).unwrap();
    let log = || OrderedLog::new(Arc::clone(&committee), 0, keys[0].clone());
    let start = |what: &str| {
        let now = Instant::now();
        let (shell, threads) = LogShell::start(log(), open(false)).unwrap();
        let book = shell.log().book(shell.store()).unwrap();
        println!("{what}: open at session {} in {:.1} ms", book.session, now.elapsed().as_secs_f64() * 1e3);
        drop(shell);
        LogThreads::join(threads.split().0);
    };
    drop(open(true));
    start("empty");
    let (machine, store) = (log(), open(false));
    for session in 0..SESSIONS {
        // One unit, and the end.
        for (position, round, data) in
            [(0, 0, Bytes::from_static(&[9, 1, 0, 0, 0, 0, 0, 0, 0])), (1, SESSION_ROUNDS, Bytes::new())]
        {
            let effects = machine.handle(Input::Unit { session, position, creator: 0, round, data }, &store).unwrap();
            store.write(&effects.writes).unwrap();
        }
        if session % 1_000 == 0 {
            store.sync().unwrap();
        }
    }
    store.sync().unwrap();
    drop(store);
    start("full");
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|l| l.starts_with("VmRSS")).unwrap());
}
