//! A committee whose authorities are processes on hosts of their own, set up by their operators as
//! `docs/operations.md` says.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use florin_client::network::{Network, Patience};
use florin_core::address::Address;
use florin_core::amount::format_amount;
use florin_core::committee::Committee;
use florin_core::testing::NETWORK_ID;
use florin_node::config::read_committee;

use super::CURRENCY;
use super::lan::{Lan, Place};
use crate::net::{Folder, PATIENCE, Process};

const PORT: u16 = 7_100;

/// The hosts, with what is on their disks.
pub struct Sites {
    // Processes end before their network does.
    running: Vec<Option<Process>>,
    pub lan: Lan,
    pub folder: Folder,
    pub committee: Arc<Committee>,
}

impl Sites {
    /// A committee that runs.
    pub fn start(lan: Lan, size: usize, shards: u32, genesis: &[(Address, u64)]) -> Sites {
        let folder = Folder::new();
        let mut text = String::new();
        for (address, amount) in genesis {
            writeln!(text, "{} {}", address.to_text(CURRENCY), format_amount(i128::from(*amount), 2)).unwrap();
        }
        std::fs::write(folder.path("genesis.txt"), text).unwrap();
        let mut parts = String::new();
        for i in 0..size {
            let (name, host) = (name(i), lan.address(Place::Host(i)));
            let line =
                format!("authority keygen --name {name} --host {host} --port {PORT} --shards {shards} --dir {name}");
            folder.run(&line).ok();
            parts += &format!(" --part {name}/{name}.public.toml");
        }
        let money = format!("--currency {CURRENCY} --decimals 2 --network-id {NETWORK_ID} --issuer-limit 10000000");
        let issuer = "--genesis genesis.txt --issuer-wallet issuer.wallet --passphrase-file pw";
        folder.run(&format!("committee assemble{parts} {money} {issuer} --out committee.toml")).ok();
        for i in 0..size {
            let name = name(i);
            let files = format!("--committee committee.toml --genesis genesis.txt --key {name}/{name}.key");
            folder.run(&format!("authority init {files} --dir {name} --http 127.0.0.1:9100")).ok();
        }
        let committee = Arc::new(read_committee(&folder.path("committee.toml")).unwrap());
        let mut sites = Sites { running: (0..size).map(|_| None).collect(), lan, folder, committee };
        let waiting: Vec<_> = (0..size).map(|i| sites.spawn(i)).collect();
        waiting.iter().enumerate().for_each(|(i, ready)| sites.wait_ready(i, ready));
        sites
    }

    fn spawn(&mut self, i: usize) -> mpsc::Receiver<String> {
        let run = self.folder.command(&format!("authority run --config {}/authority.toml", name(i)), &[]);
        let mut command = self.lan.command(i);
        command.arg(run.get_program()).args(run.get_args()).current_dir(self.folder.0.path());
        let path = self.folder.path(&log(i));
        let log = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).env_remove("RUST_LOG");
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        assert!(self.running[i].replace(Process::new(child)).is_none(), "{i} runs already");
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        receiver
    }

    fn wait_ready(&self, i: usize, lines: &mpsc::Receiver<String>) {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => assert!(line.starts_with("ready "), "{i}: {line}"),
            Err(e) => panic!("{i} is not ready: {e}\n{}", self.log(i)),
        }
    }

    /// As `kill -9`.
    pub fn kill(&mut self, i: usize) {
        self.running[i].take().unwrap().kill();
    }

    /// Starts it again and waits until it accepts requests.
    pub fn up(&mut self, i: usize) {
        let ready = self.spawn(i);
        self.wait_ready(i, &ready);
    }

    /// Must be called in a runtime.
    pub fn network(&self) -> Network {
        let patience = Patience { total: PATIENCE, request: Duration::from_secs(5), ..Patience::default() };
        Network::new(self.committee.clone(), patience)
    }

    pub fn log(&self, i: usize) -> String {
        self.folder.read(&log(i))
    }

    /// Stops all in order; every balance, computed again from every disk, comes to zero with all others.
    pub fn audit_all(&mut self) {
        for i in 0..self.running.len() {
            assert_eq!(self.running[i].take().unwrap().stop(), 0, "{}", self.log(i));
            assert!(!self.log(i).contains("panicked"), "{}", self.log(i));
            let said = self.folder.run(&format!("audit --json --config {}/authority.toml", name(i))).ok();
            assert_eq!((&said.json()["sum"], &said.json()["findings"]), (&"0".into(), &0.into()), "{said:?}");
        }
    }
}

fn name(i: usize) -> String {
    format!("authority-{}", i + 1)
}

fn log(i: usize) -> String {
    format!("authority-{}.log", i + 1)
}
