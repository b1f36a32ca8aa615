//! A committee of real processes, and the commands that a user types.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use florin_client::wallet::Wallet;
use florin_core::address::Address;
use florin_core::content::Credit;
use florin_node::config::read_committee;
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// Its one JSON value.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    #[track_caller]
    pub fn ok(self) -> Said {
        assert_eq!(self.status, 0, "{self:?}");
        self
    }

    #[track_caller]
    pub fn fails(self, status: i32, code: &str) -> Said {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.stderr.contains(code), "expected {code}: {self:?}");
        assert!(self.stderr.contains("next: "), "{self:?}");
        self
    }

    /// The first line of stdout.
    pub fn line(&self) -> String {
        self.stdout.lines().next().unwrap_or_default().to_owned()
    }
}

/// A folder, and commands run in it.
pub struct Folder(pub TempDir);

/// What failed can be looked at.
impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.disable_cleanup(true);
            eprintln!("kept: {}", self.0.path().display());
        }
    }
}

impl Folder {
    pub fn new() -> Folder {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("pw"), "correct horse\n").unwrap();
        Folder(dir)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn command(&self, line: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_florin"));
        command.args(line.split_whitespace()).args(more).current_dir(self.0.path()).stdin(Stdio::null());
        command
            .env("FLORIN_COMMITTEE", "committee.toml")
            .env("FLORIN_PASSPHRASE_FILE", "pw")
            .env_remove("FLORIN_WALLET");
        match std::env::var("FLORIN_TEST_LOG") {
            Ok(level) => command.env("RUST_LOG", level),
            Err(_) => command.env_remove("RUST_LOG"),
        };
        command
    }

    /// Runs a command to its end. Words of `line` are split at spaces, `more` are whole arguments.
    pub fn run_with(&self, line: &str, more: &[&str]) -> Said {
        let output = self.command(line, more).output().unwrap();
        Said {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub fn run(&self, line: &str) -> Said {
        self.run_with(line, &[])
    }

    /// Runs a command that reads `input`.
    pub fn run_reading(&self, line: &str, input: &str) -> Said {
        let mut child = self
            .command(line, &[])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        Said {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Starts a server and returns it with the first line that it prints.
    pub fn serve(&self, line: &str) -> (Process, String) {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.path("servers.log")).unwrap();
        let mut child = self.command(line, &[]).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        assert!(first.starts_with("ready "), "{line}: {first:?}\n{}", self.read("servers.log"));
        (Process(child, Some(stdout)), first.trim().to_owned())
    }
}

/// A process that ends with the test.
pub struct Process(pub Child, #[allow(dead_code)] Option<BufReader<std::process::ChildStdout>>);

impl Process {
    pub fn new(child: Child) -> Process {
        Process(child, None)
    }

    /// As `kill -9`.
    pub fn kill(mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// SIGTERM, and its exit status.
    pub fn stop(mut self) -> i32 {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Four authorities of one shard, each a process, and their folder with an issuer's wallet.
pub struct Net {
    pub folder: Folder,
    authorities: Vec<Option<Process>>,
}

impl std::ops::Deref for Net {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.folder
    }
}

impl Net {
    pub fn start(shards: u32) -> Net {
        let folder = Folder::new();
        folder.run(&format!("committee new --dir . --port 0 --shards {shards} --passphrase-file pw")).ok();
        let mut net = Net { folder, authorities: (0..4).map(|_| None).collect() };
        (1..=4).for_each(|i| net.up(i));
        net
    }

    /// Starts an authority, 1 to 4.
    pub fn up(&mut self, authority: usize) {
        let (process, _) = self.folder.serve(&format!("authority run --config authority-{authority}.toml"));
        self.authorities[authority - 1] = Some(process);
    }

    /// Kills an authority.
    pub fn down(&mut self, authority: usize) {
        self.authorities[authority - 1].take().unwrap().kill();
    }

    /// A new wallet's address.
    pub fn wallet(&self, name: &str) -> String {
        self.run(&format!("wallet new --wallet {name}")).ok();
        self.address(name)
    }

    pub fn address(&self, wallet: &str) -> String {
        self.run(&format!("wallet address --wallet {wallet}")).ok().line()
    }

    /// A new wallet that the issuer has paid.
    pub fn funded(&self, name: &str, amount: &str) -> String {
        let address = self.wallet(name);
        self.run(&format!("wallet pay --wallet issuer.wallet {address} {amount}")).ok();
        self.wait_for_balance(name, amount);
        address
    }

    pub fn balance(&self, wallet: &str) -> String {
        self.run(&format!("wallet balance --json --wallet {wallet}")).ok().json()["balance"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Signs a payment of account 0, in minor units, without asking what the account has.
    pub fn sign_without_looking(&self, wallet: &str, to: &str, amount: u64) {
        let committee = Arc::new(read_committee(&self.path("committee.toml")).unwrap());
        let mut wallet = Wallet::open(&self.path(wallet), committee).unwrap();
        let seed = wallet.keystore().unlock("correct horse").unwrap();
        let credit = Credit { address: Address::from_text(to, "flr").unwrap(), amount };
        wallet.sign_pay(&seed, 0, &[credit], "").unwrap();
    }

    /// Waits until the committee says so: credits arrive a moment after a payment is final.
    #[track_caller]
    pub fn wait_for_balance(&self, wallet: &str, amount: &str) {
        wait(&format!("{wallet} to have {amount}"), || self.balance(wallet) == amount);
    }
}

/// Waits until something is so.
#[track_caller]
pub fn wait(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "still waiting for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Modules of the QR code that a terminal shows as half blocks, quiet zone cut off; true is dark.
pub fn modules(text: &str, width: usize) -> Vec<bool> {
    let rows: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
    let light = |x: usize, y: usize| match rows[y / 2][x] {
        '█' => true,
        '▀' => y.is_multiple_of(2),
        '▄' => !y.is_multiple_of(2),
        _ => false,
    };
    let quiet = (rows[0].len() - width) / 2;
    (0..width * width).map(|i| !light(quiet + i % width, quiet + i / width)).collect()
}

/// Whether a path exists.
pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
