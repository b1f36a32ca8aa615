//! The devnet's processes, and the file that remembers them. A process id is used again by others one day, so
//! each is kept with the time its process started, and signalled only if that is still the same.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};

use florin_core::{Code, Error, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::config_file;
use crate::commands::support::{PRIVATE, io, make_folder, write_new};

const FILE: &str = "devnet.json";

/// A process that runs an authority.
#[derive(Serialize, Deserialize, Clone)]
pub struct Member {
    /// Number, from 1.
    pub authority: usize,
    /// Process id.
    pub pid: u32,
    /// When it started, as the system tells it.
    started: String,
}

#[derive(Serialize, Deserialize)]
struct Form {
    florin_devnet: u32,
    authorities: Vec<Member>,
}

impl Member {
    /// Whether this very process runs.
    pub fn is_running(&self) -> bool {
        start_time(self.pid).is_some_and(|started| started == self.started)
    }

    /// Asks it to stop.
    pub fn stop(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        if self.is_running()
            && let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw)
        {
            // It may have ended just now, which is as well.
            let _ = kill_process(pid, signal);
        }
    }
}

/// Starts an authority, its log in `logs`. It lives on after this process.
pub fn start(dir: &Path, number: usize) -> Result<Member> {
    let logs = dir.join("logs");
    make_folder(&logs)?;
    let path = logs.join(format!("authority-{number}.log"));
    let log = OpenOptions::new().create(true).append(true).open(&path).map_err(|e| io("open", &path, &e))?;
    let failed = |e: std::io::Error| Error::new(Code::Io, format!("starting authority {number}: {e}"));
    let child = Command::new(std::env::current_exe().map_err(failed)?)
        .args(["authority", "run", "--own-session", "--config"])
        .arg(config_file(dir, number))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    let pid = child.id();
    // Not reaped, so its id can't be another's yet.
    let started = start_time(pid).unwrap_or_default();
    Ok(Member { authority: number, pid, started })
}

/// When a process started; `None` if it doesn't run (any more).
fn start_time(pid: u32) -> Option<String> {
    let stat = Path::new("/proc/self/stat");
    if stat.exists() {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything; after it come the state and 18 more before the time.
        let mut fields = text.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        return (state != "Z" && state != "X").then(|| fields.nth(18).map(str::to_owned)).flatten();
    }
    let output = Command::new("ps").args(["-o", "stat=,lstart=", "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let (state, started) = text.split_once(char::is_whitespace)?;
    (!state.starts_with('Z')).then(|| started.trim().to_owned())
}

/// The processes that were started last. Errors: `BAD_FILE`.
pub fn read(dir: &Path) -> Result<Vec<Member>> {
    let path = dir.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io("read", &path, &e)),
    };
    let bad = |e: &dyn std::fmt::Display| Error::new(Code::BadFile, format!("{}: {e}", path.display()));
    let form: Form = serde_json::from_str(&text).map_err(|e| bad(&e))?;
    match form.florin_devnet {
        1 => Ok(form.authorities),
        other => Err(bad(&format!("version: expected 1, found {other}"))),
    }
}

/// Remembers them.
pub fn write(dir: &Path, members: &[Member]) -> Result<()> {
    let form = Form { florin_devnet: 1, authorities: members.to_vec() };
    let text = serde_json::to_string_pretty(&form).expect("numbers and texts are always JSON");
    let (path, new) = (dir.join(FILE), dir.join(format!("{FILE}.new")));
    // Left by a crash.
    let _ = fs::remove_file(&new);
    write_new(&new, text.as_bytes(), PRIVATE)?;
    fs::rename(&new, &path).map_err(|e| io("replace", &path, &e))
}

/// Forgets them all.
pub fn forget(dir: &Path) -> Result<()> {
    let path = dir.join(FILE);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("remove", &path, &e)),
        _ => Ok(()),
    }
}
