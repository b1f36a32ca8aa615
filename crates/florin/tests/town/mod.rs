//! Alice and Bob, each with a channel with one hub: real processes, for the tests of payments and of virtual channels.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Stdio};
use std::sync::Arc;

use florin_client::channel::{Channels, Running, of_wallet, policy};
use florin_client::network::{Network, Patience};
use florin_client::wallet::Wallet;
use florin_node::config::read_committee;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::net::{Net, Process, Said, wait};

pub fn channel(net: &Net, line: &str, wallet: &str) -> Said {
    net.run(&format!("channel {line} --wallet {wallet} --json"))
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

/// A command that goes on, and says a JSON value a line.
pub struct Talking {
    pub process: Process,
    pub lines: BufReader<ChildStdout>,
}

impl Talking {
    pub fn start(net: &Net, line: &str) -> Talking {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(net.path("servers.log")).unwrap();
        let mut command = net.command(&format!("{line} --json"), &[]);
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Talking { process: Process::new(child), lines }
    }

    /// The next line; null at the end.
    pub fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or(Value::Null)
    }

    /// Lines up to one with this event.
    pub fn until(&mut self, event: &str) -> Value {
        loop {
            let value = self.next();
            assert!(!value.is_null(), "it has ended without {event}");
            if value["event"] == event {
                return value;
            }
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.process.0)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub fn status(mut self) -> i32 {
        self.process.0.wait().unwrap().code().unwrap_or(-1)
    }
}

/// Alice and Bob, both with a channel with one hub.
pub struct Town {
    pub net: Net,
    /// Alice's channel with the hub, the hub's with Bob.
    pub ids: [String; 2],
    /// Bob's address.
    pub payee: String,
    pub hub: Option<Talking>,
    pub address: String,
}

impl Town {
    pub fn start() -> Town {
        let net = Net::start(1);
        net.funded("alice", "100.00");
        let hub = net.funded("hub", "100.00");
        let bob = net.wallet("bob");
        net.wallet("nobody");
        let open = |from: &str, to: &str| {
            text(&channel(&net, &format!("open 50 --to {to} --two-way"), from).ok().json()["channel"])
        };
        let ids = [open("alice", &hub), open("hub", &bob)];
        let mut town = Town { net, ids, payee: bob, hub: None, address: "127.0.0.1:0".into() };
        town.up();
        town
    }

    /// Starts the hub, where it was before.
    pub fn up(&mut self) {
        let mut hub = Talking::start(&self.net, &format!("hub run --wallet hub --listen {}", self.address));
        let ready = hub.next();
        assert!(ready["ready"].is_string(), "{ready} {}", self.net.read("servers.log"));
        self.address = text(&ready["ready"]);
        self.hub = Some(hub);
    }

    pub fn kill(&mut self) {
        self.hub.take().unwrap().process.kill();
    }

    pub fn stop(&mut self) {
        let hub = self.hub.take().unwrap();
        hub.signal(Signal::TERM);
        assert_eq!(hub.status(), 0, "{}", self.net.read("servers.log"));
    }

    /// Somebody waits to be paid; and the invoice.
    pub fn request(&self, amount: &str, wallet: &str) -> (Talking, Value) {
        let mut asking =
            Talking::start(&self.net, &format!("channel request {amount} --hub {} --wallet {wallet}", self.address));
        let invoice = asking.next();
        assert!(invoice["invoice"].is_string(), "{invoice} {}", self.net.read("servers.log"));
        (asking, invoice)
    }

    pub fn send(&self, invoice: &Value, options: &str, wallet: &str) -> Said {
        let line = format!("channel send --wallet {wallet} --json {options}");
        self.net.run_with(&line, &[invoice["invoice"].as_str().unwrap()])
    }

    pub fn status(&self, channel_of: usize, wallet: &str) -> Value {
        channel(&self.net, &format!("status {} --offline", self.ids[channel_of]), wallet).ok().json()
    }

    pub fn hub_status(&self) -> Value {
        self.net.run("hub status --wallet hub --json").ok().json()
    }

    /// Until it is too late for an invoice: log time stands still while the log does.
    pub fn pass_time(&self, invoice: &Value) {
        let expires = invoice["expires_ms"].as_u64().unwrap();
        let address = self.net.address("nobody");
        wait("log time", || {
            self.net.run(&format!("channel open 0 --to {address} --wallet issuer.wallet")).ok();
            let said = self.net.run("log status --json").ok().json();
            said["authorities"].as_array().unwrap().iter().all(|one| one["time_ms"].as_u64().unwrap() > expires)
        });
    }

    /// Redeems all, and compares what the four sides have in their channels: Alice, hub; hub, Bob.
    pub fn redeemed(&mut self, expected: [&str; 4]) {
        if self.hub.is_some() {
            self.stop();
        }
        let sides = [(0, "alice"), (0, "hub"), (1, "hub"), (1, "bob")];
        for (of, wallet) in sides {
            channel(&self.net, &format!("submit {}", self.ids[of]), wallet).ok();
        }
        let found = sides.map(|(of, wallet)| {
            let status = channel(&self.net, &format!("status {}", self.ids[of]), wallet).ok().json();
            assert_eq!(
                (&status["locked"], &status["received"]),
                (&"0.00".into(), &"0.00".into()),
                "{wallet}: {status}"
            );
            text(&status["available"])
        });
        assert_eq!(found, expected);
    }
}

/// A wallet's channels in this process.
pub fn open(net: &Net, wallet: &str) -> (Channels, Running) {
    let committee = Arc::new(read_committee(&net.path("committee.toml")).unwrap());
    let opened = Wallet::open(&net.path(wallet), committee.clone()).unwrap();
    let seed = opened.keystore().unlock("correct horse").unwrap();
    of_wallet(opened, seed, Network::new(committee, Patience::default()), policy()).unwrap()
}
