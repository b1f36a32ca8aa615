//! A committee of child processes on this machine, for the demo and the benchmarks. The processes are
//! ordinary authorities, run by this same binary; dropping the value ends them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use florin_core::committee::{AuthorityInfo, Committee, Network};
use florin_core::signatures::AuthorityKey;
use florin_core::{Code, Error, Result};
use florin_node::config::AuthorityFile;

use crate::commands::committee::make::write_authority_file;
use crate::commands::support::{PUBLIC, host_port, ports, write_new};

/// Where everything listens.
const HOST: &str = "127.0.0.1";
/// How long an authority may take to be ready, or to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to make.
pub struct Plan<'a> {
    /// Authorities.
    pub authorities: usize,
    /// Shards of each.
    pub shards: u32,
    /// The payment network, but for its genesis hash.
    pub network_id: u64,
    /// Currency code.
    pub currency: &'a str,
    /// Decimals.
    pub decimals: u8,
    /// The issuer's permission.
    pub issuer: Bytes,
    /// How far the issuer may go below zero, minor units.
    pub issuer_limit: u64,
    /// Text of the genesis file, empty for none.
    pub genesis: &'a str,
    /// Host to bind instead of the public one.
    pub bind: Option<&'a str>,
}

/// The committee and its processes.
pub struct LocalCommittee {
    dir: PathBuf,
    /// What everyone knows.
    pub committee: Arc<Committee>,
    /// `host:port` of each authority's metrics.
    pub http: Vec<String>,
    children: Vec<Option<Child>>,
}

impl LocalCommittee {
    /// Writes keys and files into `dir`, with ports that are free now. Nothing runs yet.
    pub fn create(dir: &Path, plan: &Plan<'_>) -> Result<LocalCommittee> {
        let genesis = dir.join("genesis.txt");
        let has_genesis = !plan.genesis.is_empty();
        if has_genesis {
            write_new(&genesis, plan.genesis.as_bytes(), PUBLIC)?;
        }
        let mut seeds = Vec::with_capacity(plan.authorities);
        let mut authorities = Vec::with_capacity(plan.authorities);
        let mut http = Vec::with_capacity(plan.authorities);
        let mut next = ports(HOST, 0, plan.authorities as u32 * (plan.shards + 1))?;
        let mut free_address = || {
            let address = host_port(HOST, next);
            next += 1;
            address
        };
        for i in 0..plan.authorities {
            let seed = florin_client::keystore::new_entropy::<32>()?;
            let addresses = (0..plan.shards).map(|_| free_address()).collect();
            let key = AuthorityKey::from_seed(*seed).public();
            authorities.push(AuthorityInfo { name: format!("authority-{}", i + 1), key, addresses });
            http.push(free_address());
            seeds.push(seed);
        }
        let network = Network {
            id: plan.network_id,
            currency: plan.currency.to_owned(),
            decimals: plan.decimals,
            issuer: plan.issuer.clone(),
            issuer_limit: plan.issuer_limit,
            genesis_hash: florin_node::genesis::hash(has_genesis.then_some(genesis.as_path()))?,
        };
        let committee = Committee::new(0, plan.shards, network, authorities)?;
        write_new(&dir.join("committee.toml"), committee.to_toml().as_bytes(), PUBLIC)?;
        for (i, seed) in seeds.iter().enumerate() {
            let file = AuthorityFile {
                committee: "committee.toml".into(),
                key: hex::encode(seed),
                data: format!("authority-{}", i + 1).into(),
                genesis: has_genesis.then(|| "genesis.txt".into()),
                http: Some(http[i].clone()),
                bind: plan.bind.map(str::to_owned),
                accounts_memory_mib: None,
            };
            write_authority_file(&dir.join(format!("authority-{}.toml", i + 1)), &file)?;
        }
        let children = seeds.iter().map(|_| None).collect();
        Ok(LocalCommittee { dir: dir.to_owned(), committee: Arc::new(committee), http, children })
    }

    /// Starts one authority and waits until it accepts requests.
    pub fn start(&mut self, authority: usize) -> Result<()> {
        let mut waiting = vec![self.spawn(authority)?];
        self.wait_ready(&mut waiting)
    }

    /// Starts all of them, side by side.
    pub fn start_all(&mut self) -> Result<()> {
        let mut waiting = (0..self.children.len()).map(|i| self.spawn(i)).collect::<Result<Vec<_>>>()?;
        self.wait_ready(&mut waiting)
    }

    fn spawn(&mut self, authority: usize) -> Result<(usize, mpsc::Receiver<String>)> {
        let failed = |e: std::io::Error| Error::new(Code::Io, format!("starting authority {}: {e}", authority + 1));
        let log = std::fs::File::create(self.dir.join(format!("authority-{}.log", authority + 1))).map_err(failed)?;
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .args(["authority", "run", "--config"])
            .arg(self.dir.join(format!("authority-{}.toml", authority + 1)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let (sender, receiver) = mpsc::channel();
        let stdout = child.stdout.take();
        self.children[authority] = Some(child);
        std::thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|s| BufReader::new(s).lines()).map_while(std::io::Result::ok) {
                let _ = sender.send(line);
            }
        });
        Ok((authority, receiver))
    }

    fn wait_ready(&mut self, waiting: &mut [(usize, mpsc::Receiver<String>)]) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for (authority, lines) in waiting {
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.recv_timeout(left).is_err() {
                let log = self.dir.join(format!("authority-{}.log", *authority + 1));
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let last = said.lines().last().unwrap_or("nothing").to_owned();
                let message =
                    format!("authority {} is not ready; its log {} ends with: {last}", *authority + 1, log.display());
                return Err(Error::new(Code::Unreachable, message));
            }
        }
        Ok(())
    }

    /// Process id of a running authority.
    pub fn pid(&self, authority: usize) -> Option<u32> {
        self.children[authority].as_ref().map(Child::id)
    }

    /// Kills an authority without warning, as `kill -9` does.
    pub fn kill(&mut self, authority: usize) {
        if let Some(mut child) = self.children[authority].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops an authority in order and waits until it has ended well.
    pub fn stop(&mut self, authority: usize) -> Result<()> {
        let Some(mut child) = self.children[authority].take() else { return Ok(()) };
        let failed = |what: String| Error::new(Code::Io, format!("stopping authority {}: {what}", authority + 1));
        if let Some(pid) = rustix::process::Pid::from_raw(child.id() as i32) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).map_err(|e| failed(e.to_string()))?;
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match child.try_wait().map_err(|e| failed(e.to_string()))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(failed(status.to_string())),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        Err(failed(format!("it did not end within {} s", PATIENCE.as_secs())))
    }

    /// Runs a command of this binary and returns the JSON that it prints.
    pub fn command<'a>(&self, args: impl IntoIterator<Item = &'a std::ffi::OsStr>) -> Result<serde_json::Value> {
        let failed = |what: String| Error::new(Code::AuditFailed, what);
        let exe = std::env::current_exe().map_err(|e| failed(e.to_string()))?;
        let output = Command::new(exe).args(args).stdin(Stdio::null()).output().map_err(|e| failed(e.to_string()))?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        serde_json::from_slice(&output.stdout).map_err(|e| failed(format!("the audit did not print JSON: {e}")))
    }

    /// Lets go of the processes: they outlive this value.
    pub fn leave_running(mut self) {
        self.children.iter_mut().for_each(|child| drop(child.take()));
    }
}

impl Drop for LocalCommittee {
    fn drop(&mut self) {
        (0..self.children.len()).for_each(|i| self.kill(i));
    }
}
