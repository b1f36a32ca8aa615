//! The speed of a download that is paid by the chunk through a channel, beside the same one for nothing: the example
//! `paid-download` as its users run it, with a committee of real processes.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use florin_core::{Code, Error, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::commands::support::io;
use crate::output::Output;

/// The example's program.
const PROGRAM: &str = "paid-download";
/// Of 256 KiB.
const PRICE: &str = "0.01";
/// Minor units of it.
const PRICE_MINOR: u64 = 1;
const CHUNK: u64 = 256 << 10;

/// MB a second, medians.
pub struct Speeds {
    pub free: f64,
    pub paid: f64,
}

/// Measures it; nothing if the example is not built.
pub fn measure(megabytes: u64, runs: usize, out: Output) -> Result<Option<Speeds>> {
    let florin = std::env::current_exe().map_err(|e| Error::new(Code::Io, format!("this program's path: {e}")))?;
    let program = florin.with_file_name(PROGRAM);
    if !program.exists() {
        out.note(format_args!(
            "no download: {} is missing, cargo build --release --workspace makes it",
            program.display()
        ));
        return Ok(None);
    }
    let folder = tempfile::tempdir().map_err(|e| Error::new(Code::Io, format!("a temporary folder: {e}")))?;
    let bench = Bench { florin, program, dir: folder.path().to_owned() };
    let bytes = megabytes * 1_000_000;
    make_file(&bench.dir.join("files/film"), bytes)?;
    let dir = bench.dir.join("devnet");
    bench.florin(&["devnet", "up", "--dir", text(&dir)?])?;
    let measured = bench.runs(bytes, runs, out);
    bench.florin(&["devnet", "down", "--dir", text(&dir)?])?;
    measured.map(Some)
}

struct Bench {
    florin: PathBuf,
    program: PathBuf,
    dir: PathBuf,
}

impl Bench {
    fn runs(&self, bytes: u64, runs: usize, out: Output) -> Result<Speeds> {
        let bob = self.florin(&["wallet", "address", "--json", "--wallet", text(&self.wallet("bob"))?])?;
        let bob = bob["address"].as_str().ok_or_else(|| failed("wallet address", "it names no address"))?;
        // The money is there before, so what is measured is paying, and not waiting for the log.
        let minor = bytes.div_ceil(CHUNK) * PRICE_MINOR * runs as u64;
        let amount = format!("{}.{:02}", minor / 100, minor % 100);
        let alice = self.wallet("alice");
        self.florin(&["channel", "open", &amount, "--to", bob, "--json", "--wallet", text(&alice)?])?;
        let (mut free, mut paid) = (Vec::new(), Vec::new());
        for run in 0..runs {
            out.note(format_args!("download {} of {runs}: {} MB for nothing, and paid", run + 1, bytes / 1_000_000));
            free.push(self.download("0", bytes)?);
            paid.push(self.download(PRICE, bytes)?);
        }
        let median = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Ok(Speeds { free: median(free), paid: median(paid) })
    }

    fn wallet(&self, owner: &str) -> PathBuf {
        self.dir.join(format!("devnet/{owner}.wallet"))
    }

    /// One download from a server of its own, MB a second.
    fn download(&self, price: &str, bytes: u64) -> Result<f64> {
        let (server, url) = self.serve(price)?;
        let file = self.dir.join("film");
        let output = self
            .command(&self.program, "alice")
            .args(["get", &format!("{url}/film"), "--budget", "100000", "--out"])
            .arg(&file)
            .output()
            .map_err(|e| io("run", &self.program, &e))?;
        drop(server);
        let said = String::from_utf8_lossy(&output.stdout);
        let seconds = said.trim().strip_suffix(" s").and_then(|s| s.rsplit(' ').next()?.parse::<f64>().ok());
        let length = std::fs::metadata(&file).map_or(0, |m| m.len());
        match seconds {
            Some(seconds) if output.status.success() && length == bytes => {
                std::fs::remove_file(&file).map_err(|e| io("remove", &file, &e))?;
                Ok(bytes as f64 / 1e6 / seconds)
            }
            _ => Err(failed(PROGRAM, &format!("{said}{}", String::from_utf8_lossy(&output.stderr)))),
        }
    }

    fn serve(&self, price: &str) -> Result<(Server, String)> {
        let child = self
            .command(&self.program, "bob")
            .args(["serve", "--listen", "127.0.0.1:0", "--price", price])
            .arg(self.dir.join("files"))
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| io("run", &self.program, &e))?;
        let mut server = Server(child);
        let mut line = String::new();
        if let Some(stdout) = server.0.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(|e| io("read from", &self.program, &e))?;
        }
        match line.trim().rsplit_once(" on ") {
            Some((_, url)) => Ok((server, url.to_owned())),
            None => Err(failed(PROGRAM, &format!("expected where it serves, found {line:?}"))),
        }
    }

    fn command(&self, program: &Path, owner: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("FLORIN_COMMITTEE", self.dir.join("devnet/committee.toml"))
            .env("FLORIN_PASSPHRASE_FILE", self.dir.join("devnet/passphrase"))
            .env("FLORIN_WALLET", self.wallet(owner))
            .stdin(Stdio::null());
        command
    }

    fn florin(&self, args: &[&str]) -> Result<serde_json::Value> {
        let output =
            self.command(&self.florin, "alice").args(args).output().map_err(|e| io("run", &self.florin, &e))?;
        if !output.status.success() {
            return Err(failed(&args.join(" "), &String::from_utf8_lossy(&output.stderr)));
        }
        Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
    }
}

/// Stopped when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.0.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

fn make_file(path: &Path, bytes: u64) -> Result<()> {
    let made = || -> std::io::Result<()> {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        let mut file = File::create(path)?;
        std::io::copy(&mut File::open("/dev/urandom")?.take(bytes), &mut file)?;
        file.flush()
    };
    made().map_err(|e| io("make", path, &e))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::new(Code::Usage, format!("{} is no text", path.display())))
}

fn failed(what: &str, said: &str) -> Error {
    Error::new(Code::Io, format!("{what} failed: {}", said.trim()))
}
