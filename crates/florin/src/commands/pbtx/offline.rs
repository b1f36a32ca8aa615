//! A chain of transactions that is signed without a network: a small file with the actor's sequence, and beside it the
//! envelopes, one hex line each, to push later.
//!
//! An envelope is on disk before the sequence moves, and one that the sequence does not know yet is found again by the
//! next command. So whatever crashes, no two transactions are signed for one seqnum and none is left out. The envelopes'
//! file is locked meanwhile; once they are pushed it may be removed, the sequence goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use florin_core::envelope::Order;
use florin_core::{Code, Error, Result};
use serde::{Deserialize, Serialize};

use crate::commands::support::{io, read_text};
use crate::output::Output;

/// More than a line: content, five authorities with all signatures, twice for hex.
const TAIL_BYTES: u64 = 256 * 1024;

/// The file, as JSON. Numbers of 64 bits are decimal strings, as everywhere in PBTX.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    network_id: String,
    actor: String,
    /// Of the last transaction; 0 before the first.
    seqnum: u32,
    /// What follows the last transaction.
    prev_hash: String,
}

/// An open chain; others wait until it is dropped.
pub struct Chain {
    state: PathBuf,
    envelopes: PathBuf,
    file: File,
    network_id: u64,
    actor: u64,
    seqnum: u32,
    prev_hash: u64,
}

impl Chain {
    /// Opens the chain, or begins it with `seqnum` and `prev_hash` of its first transaction (1 and 0). What is given must
    /// fit what is there. Errors: `USAGE`, `BAD_FILE`, `IO`.
    pub fn open(
        state: PathBuf,
        network_id: Option<u64>,
        actor: Option<u64>,
        seqnum: Option<u32>,
        prev_hash: Option<u64>,
        out: Output,
    ) -> Result<Chain> {
        let mut envelopes = state.clone().into_os_string();
        envelopes.push(".envelopes");
        let envelopes = PathBuf::from(envelopes);
        let is_new = !state.exists();
        if is_new && (network_id.is_none() || actor.is_none()) {
            let message = format!("{} is not there yet: give --network and --actor", state.display());
            return Err(Error::new(Code::Usage, message));
        }
        let open = OpenOptions::new().read(true).append(true).create(true).open(&envelopes);
        let file = open.and_then(|file| file.lock().map(|()| file)).map_err(|e| io("open", &envelopes, &e))?;
        let mut chain = Chain { state, envelopes, file, network_id: 0, actor: 0, seqnum: 0, prev_hash: 0 };
        // Another process may have begun it while this one waited for the lock.
        if chain.state.exists() {
            if seqnum.is_some() || prev_hash.is_some() {
                let message = format!("{} says what comes next: leave out --seqnum and --prev", chain.state.display());
                return Err(Error::new(Code::Usage, message));
            }
            chain.load(network_id, actor)?;
        } else {
            (chain.network_id, chain.actor) = (network_id.unwrap_or_default(), actor.unwrap_or_default());
            chain.seqnum = seqnum
                .unwrap_or(1)
                .checked_sub(1)
                .ok_or_else(|| Error::expected(Code::Usage, "--seqnum", "1 or more: the first transaction has 1", 0))?;
            chain.prev_hash = prev_hash.unwrap_or(0);
            chain.save()?;
        }
        chain.recover(out)?;
        Ok(chain)
    }

    fn load(&mut self, network_id: Option<u64>, actor: Option<u64>) -> Result<()> {
        let bad = |what: String| Error::new(Code::BadFile, format!("{}: {what}", self.state.display()));
        let saved: Saved = serde_json::from_str(&read_text(&self.state)?).map_err(|e| bad(e.to_string()))?;
        let number = |what: &str, text: &str| text.parse::<u64>().map_err(|_| bad(format!("{what}: not a number")));
        let found = (number("network_id", &saved.network_id)?, number("actor", &saved.actor)?);
        for (what, given, found) in [("--network", network_id, found.0), ("--actor", actor, found.1)] {
            if let Some(given) = given.filter(|given| *given != found) {
                return Err(Error::expected(Code::Usage, what, format!("{found}, whose chain this is"), given));
            }
        }
        let prev_hash = number("prev_hash", &saved.prev_hash)?;
        (self.network_id, self.actor) = found;
        (self.seqnum, self.prev_hash) = (saved.seqnum, prev_hash);
        Ok(())
    }

    /// Drops a line that a crash cut off, and takes the last one for signed if the sequence does not know it.
    fn recover(&mut self, out: Output) -> Result<()> {
        let failed = |e: std::io::Error| io("read", &self.envelopes, &e);
        let length = self.file.metadata().map_err(failed)?.len();
        let mut tail = Vec::new();
        self.file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).map_err(failed)?;
        self.file.read_to_end(&mut tail).map_err(failed)?;
        let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < tail.len() {
            if whole == 0 && length > TAIL_BYTES {
                return Err(Error::new(Code::BadFile, format!("{}: no envelopes", self.envelopes.display())));
            }
            out.note(format_args!("dropping a transaction that was being written when something crashed"));
            let cut = length - (tail.len() - whole) as u64;
            self.file.set_len(cut).and_then(|()| self.file.sync_all()).map_err(failed)?;
        }
        let Some(last) = tail[..whole].split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()) else {
            return Ok(());
        };
        let order = hex::decode(last).ok().and_then(|bytes| Order::decode(bytes.into()).ok());
        let Some(order) = order.filter(|o| (o.network_id, o.actor) == (self.network_id, self.actor)) else {
            let message = format!("{}: its last line is no transaction of this chain", self.envelopes.display());
            return Err(Error::new(Code::BadFile, message));
        };
        let here = (self.seqnum, self.prev_hash);
        if (order.seqnum, order.next_hash()) == here {
            return Ok(());
        }
        if (order.seqnum.checked_sub(1), order.prev_hash) != (Some(here.0), here.1) {
            let message = format!(
                "{} ends with seqnum {}, {} with seqnum {}: they do not belong together",
                self.envelopes.display(),
                order.seqnum,
                self.state.display(),
                here.0
            );
            return Err(Error::new(Code::BadFile, message));
        }
        self.advance(&order)
    }

    /// Network and actor.
    pub fn account(&self) -> (u64, u64) {
        (self.network_id, self.actor)
    }

    /// seqnum and prev_hash of the next transaction. Errors: `SEQ_EXHAUSTED`.
    pub fn next(&self) -> Result<(u32, u64)> {
        let exhausted = || Error::new(Code::SeqExhausted, "the chain's last transaction had the last seqnum");
        Ok((self.seqnum.checked_add(1).ok_or_else(exhausted)?, self.prev_hash))
    }

    /// Where the envelopes are.
    pub fn queue(&self) -> &Path {
        &self.envelopes
    }

    /// Keeps a signed transaction, durably, and moves on.
    pub fn append(&mut self, order: &Order) -> Result<()> {
        let line = format!("{}\n", hex::encode(&order.raw));
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_all());
        written.map_err(|e| io("write", &self.envelopes, &e))?;
        self.advance(order)
    }

    fn advance(&mut self, order: &Order) -> Result<()> {
        (self.seqnum, self.prev_hash) = (order.seqnum, order.next_hash());
        self.save()
    }

    /// Replaces the file as a whole; both files' names are durable afterwards.
    fn save(&self) -> Result<()> {
        let saved = Saved {
            network_id: self.network_id.to_string(),
            actor: self.actor.to_string(),
            seqnum: self.seqnum,
            prev_hash: self.prev_hash.to_string(),
        };
        let text = serde_json::to_string_pretty(&saved).expect("strings and numbers") + "\n";
        let folder = match self.state.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let replace = || {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&self.state).map_err(|e| e.error)?;
            fs::File::open(folder)?.sync_all()
        };
        replace().map_err(|e| io("write", &self.state, &e))
    }
}

/// A file of envelopes that is being pushed. The lock lasts as long as this.
pub struct Queue {
    path: PathBuf,
    file: File,
}

impl Queue {
    /// Reads a file of envelopes under its lock. One that belongs to a chain and is to be emptied is read when the chain
    /// knows its last line: otherwise that number would be signed again. Errors: `BAD_FILE`, `IO`.
    pub fn read(path: &Path, drains: bool, out: Output) -> Result<(String, Option<Queue>)> {
        if !drains {
            // Another command may be writing the last line.
            let file = File::open(path).map_err(|e| Error::new(Code::BadFile, format!("{}: {e}", path.display())))?;
            file.lock_shared().map_err(|e| io("lock", path, &e))?;
            return Ok((read_text(path)?, None));
        }
        let state = path.to_str().and_then(|name| name.strip_suffix(".envelopes")).map(PathBuf::from);
        let file = match state.filter(|state| state.exists()) {
            Some(state) => Chain::open(state, None, None, None, None, out)?.file,
            None => {
                let open = OpenOptions::new().read(true).append(true).open(path);
                let file = open.map_err(|e| Error::new(Code::BadFile, format!("{}: {e}", path.display())))?;
                file.lock().map_err(|e| io("lock", path, &e))?;
                file
            }
        };
        Ok((read_text(path)?, Some(Queue { path: path.to_owned(), file })))
    }

    /// Empties it. Errors: `IO`.
    pub fn drain(self) -> Result<()> {
        self.file.set_len(0).and_then(|()| self.file.sync_all()).map_err(|e| io("empty", &self.path, &e))
    }
}
