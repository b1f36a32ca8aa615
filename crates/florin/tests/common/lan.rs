//! Hosts on a network of their own: a network namespace each, all behind a router (one more namespace) that loses
//! packets between any two of them, in one direction or both, silently. Needs root and `ip`; no firewall.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

/// Namespaces are named after the process that made them.
const PREFIX: &str = "florin-test-";
/// Networks of 32 addresses in 198.18.0.0/15, which is there for tests.
const SLOTS: u32 = 4_096;
const ROUTER: u32 = 1;
const MAIN: u32 = 2;
const FIRST: u32 = 3;

/// Who may be cut off.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// A host, from 0 on.
    Host(usize),
    /// This process and all else outside.
    Main,
}

/// The network. Dropping it removes everything; stop what runs in it before.
pub struct Lan {
    name: String,
    device: String,
    base: u32,
    hosts: usize,
    cuts: BTreeSet<(Place, Place)>,
}

fn ip_with(line: &str, input: &str) -> Result<String, String> {
    let mut command = Command::new("ip");
    command.args(line.split(' ')).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("ip: {e}"))?;
    child.stdin.take().unwrap().write_all(input.as_bytes()).map_err(|e| format!("ip: {e}"))?;
    let output = child.wait_with_output().map_err(|e| format!("ip: {e}"))?;
    let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("ip {line}: {}", text(&output.stderr))),
    }
}

#[track_caller]
fn ip(line: &str) -> String {
    ip_with(line, "").unwrap()
}

/// Removes what tests left behind that were killed.
fn remove_stale() {
    for line in ip("netns list").lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let inside = ip_with(&format!("netns pids {name}"), "").unwrap_or_default();
            for pid in inside.lines().filter_map(|pid| pid.parse().ok()).filter_map(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
            // Another test may be quicker.
            let _ = ip_with(&format!("netns del {name}"), "");
        }
    }
}

impl Lan {
    /// Errors: why this machine can't have one, for people.
    pub fn new(hosts: usize) -> Result<Lan, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let name = format!("{PREFIX}{pid}-{number}");
        ip_with(&format!("netns add {name}"), "")?;
        remove_stale();
        let device = format!("fl{pid}x{number}");
        let mut lan = Lan { name, device, base: 0, hosts, cuts: BTreeSet::new() };
        lan.set_forwarding(true);
        let (router, device) = (&lan.name, &lan.device);
        ip(&format!("link add {device} type veth peer name main netns {router}"));
        ip(&format!("link set {device} up"));
        let free = (0..SLOTS).map(|i| (pid.wrapping_add(i) % SLOTS) * 32 + u32::from(Ipv4Addr::new(198, 18, 0, 0)));
        let slot = free.into_iter().find(|base| {
            let at = |n: u32| Ipv4Addr::from(base + n);
            ip_with(&format!("route add {} dev {device}", at(ROUTER)), "").is_ok()
        });
        lan.base = slot.expect("one of many networks is free");
        let (own, via) = (lan.at(MAIN), lan.at(ROUTER));
        ip(&format!("addr add {own}/32 dev {device}"));
        ip(&format!("route add {}/27 via {via} src {own}", lan.at(0)));
        lan.attach("main", own);
        for host in 0..hosts {
            let namespace = lan.namespace(host);
            ip(&format!("netns add {namespace}"));
            ip(&format!("link add host{host} netns {router} type veth peer name eth0 netns {namespace}"));
            ip(&format!("-n {namespace} link set lo up"));
            lan.plug(host);
        }
        Ok(lan)
    }

    fn at(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + number)
    }

    /// Its address, as everyone sees it.
    pub fn address(&self, place: Place) -> Ipv4Addr {
        match place {
            Place::Host(host) => self.at(FIRST + host as u32),
            Place::Main => self.at(MAIN),
        }
    }

    fn namespace(&self, host: usize) -> String {
        format!("{}-{host}", self.name)
    }

    /// The router's side of a link.
    fn attach(&self, device: &str, address: Ipv4Addr) {
        let (router, own) = (&self.name, self.at(ROUTER));
        ip(&format!("-n {router} link set dev {device} up"));
        ip(&format!("-n {router} addr replace {own}/32 dev {device}"));
        ip(&format!("-n {router} route replace {address}/32 dev {device}"));
    }

    /// Takes the cable out.
    pub fn unplug(&self, host: usize) {
        ip(&format!("-n {} link set dev eth0 down", self.namespace(host)));
    }

    /// Puts the cable in.
    pub fn plug(&self, host: usize) {
        let (namespace, via) = (self.namespace(host), self.at(ROUTER));
        let address = self.address(Place::Host(host));
        ip(&format!("-n {namespace} link set dev eth0 up"));
        ip(&format!("-n {namespace} addr replace {address}/32 dev eth0"));
        self.attach(&format!("host{host}"), address);
        ip(&format!("-n {namespace} route replace {via} dev eth0"));
        ip(&format!("-n {namespace} route replace default via {via} src {address}"));
    }

    /// All hosts, and this one.
    pub fn places(&self) -> Vec<Place> {
        (0..self.hosts).map(Place::Host).chain([Place::Main]).collect()
    }

    /// Loses what goes from the one to the other; nobody is told.
    pub fn cut(&mut self, pairs: impl IntoIterator<Item = (Place, Place)>) {
        let mut lines = String::new();
        for (from, to) in pairs {
            if self.cuts.insert((from, to)) {
                writeln!(lines, "rule add from {} to {} blackhole", self.address(from), self.address(to)).unwrap();
            }
        }
        ip_with(&format!("-n {} -batch -", self.name), &lines).unwrap();
    }

    /// As [`Lan::cut`], in both directions, between any of the one and any of the other.
    pub fn part(&mut self, one: &[Place], other: &[Place]) {
        let pairs: Vec<_> = one.iter().flat_map(|a| other.iter().flat_map(|b| [(*a, *b), (*b, *a)])).collect();
        self.cut(pairs.into_iter().filter(|(a, b)| a != b));
    }

    /// Loses nothing more of what is to a place or from it.
    pub fn heal(&mut self, place: Place) {
        self.mend(|(from, to)| *from == place || *to == place);
    }

    /// Loses nothing more.
    pub fn heal_all(&mut self) {
        self.mend(|_| true);
    }

    fn mend(&mut self, which: impl Fn(&(Place, Place)) -> bool) {
        let mut lines = String::new();
        let (mended, left): (BTreeSet<_>, _) = std::mem::take(&mut self.cuts).into_iter().partition(which);
        self.cuts = left;
        for (from, to) in mended {
            writeln!(lines, "rule del from {} to {} blackhole", self.address(from), self.address(to)).unwrap();
        }
        ip_with(&format!("-n {} -batch -", self.name), &lines).unwrap();
    }

    /// A setting of the namespace.
    fn set_forwarding(&self, on: bool) {
        let forward = format!("echo {} > /proc/sys/net/ipv4/ip_forward", u8::from(on));
        let done = Command::new("ip").args(["netns", "exec", &self.name, "sh", "-c", &forward]).status().unwrap();
        assert!(done.success(), "forwarding can't be set");
    }

    /// The router passes nothing on any more, and who sends much sends it as single packets.
    pub fn stop_forwarding(&self) {
        self.set_forwarding(false);
        ip(&format!("link set dev {} gso_max_segs 1", self.device));
        for host in 0..self.hosts {
            ip(&format!("-n {} link set dev eth0 gso_max_segs 1", self.namespace(host)));
        }
    }

    /// The router's namespace.
    pub fn router(&self) -> PathBuf {
        Path::new("/var/run/netns").join(&self.name)
    }

    /// A command to be run on a host: its program and arguments are to follow. It becomes the program, under its own pid.
    pub fn command(&self, host: usize) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(host)]);
        command
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for name in (0..self.hosts).map(|host| self.namespace(host)).chain([self.name.clone()]) {
            let _ = ip_with(&format!("netns del {name}"), "");
        }
        // It goes with the router's namespace too, a moment later; its name may be wanted at once.
        let _ = ip_with(&format!("link del {}", self.device), "");
    }
}
