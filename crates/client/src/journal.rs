//! The wallet's journal: what it promised and may not forget, in the order it happened.
//!
//! One line of JSON for each append, `{"sum":"...","records":[...]}`; what was appended together is kept or lost
//! together. The checksum covers the line's records and the checksum of the line before, so a line that
//! was changed, removed or moved is noticed.
//!
//! Why a crash loses nothing that was promised: `append` returns only after its line is durable, and writes
//! nowhere but behind the durable lines. So a crash can tear the last line alone, and only one whose `append` had not
//! returned; `open` cuts it off. A torn line lacks its newline, or its missing blocks read as
//! zero bytes, which JSON never contains. Any other damage is not a crash's, and an error: cutting it off
//! could forget a signed order, and the wallet would sign another one for its sequence number.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use florin_core::{Code, Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::files::{self, Lock};

/// Starts the chain of checksums; another format gets another tag.
const TAG: &[u8] = b"florin-journal-v1";
const LINE_START: &[u8] = b"{\"sum\":\"";
const LINE_MIDDLE: &[u8] = b"\",\"records\":";
const LINE_END: &[u8] = b"}";

/// First half of a sha256.
type Sum = [u8; 16];

/// An open journal of records `R`. One process at a time.
#[derive(Debug)]
pub struct Journal<R> {
    path: PathBuf,
    file: File,
    /// Bytes that are durable: where the next line goes.
    length: u64,
    /// Checksum of the last durable line.
    sum: Sum,
    /// It is unknown what is on disk; only opening again tells.
    broken: bool,
    _lock: Lock,
    _records: PhantomData<fn(R)>,
}

impl<R: Serialize + DeserializeOwned> Journal<R> {
    /// Opens the journal, created empty (mode 0600) if missing, and gives the records it holds. `BUSY` if another
    /// process has it open; `BAD_FILE` names a damaged line, and nothing is changed then.
    pub fn open(path: &Path) -> Result<(Journal<R>, Vec<R>)> {
        let path = files::resolve(path)?;
        let lock = Lock::take(&path)?;
        let mut file = open_file(&path)?;
        files::sync_folder(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| files::io("read", &path, &e))?;
        let content: Content<R> = read(&bytes).map_err(|(line, problem)| {
            Error::new(Code::BadFile, format!("{}, line {line}: {problem}", path.display()))
        })?;
        let mut journal = Journal {
            path,
            file,
            length: content.length as u64,
            sum: content.sum,
            broken: false,
            _lock: lock,
            _records: PhantomData,
        };
        journal.repair(bytes.len() as u64, content.newline_missing)?;
        Ok((journal, content.records))
    }

    /// The records of a journal that another process may be writing, none if there is no file; nothing is changed. Errors: as
    /// [`Journal::open`].
    pub fn peek(path: &Path) -> Result<Vec<R>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(files::io("read", path, &e)),
        };
        let found: std::result::Result<Content<R>, _> = read(&bytes);
        found
            .map(|content| content.records)
            .map_err(|(line, problem)| Error::new(Code::BadFile, format!("{}, line {line}: {problem}", path.display())))
    }

    /// Cuts off a torn line, and ends a line of which only the newline is missing.
    fn repair(&mut self, found: u64, newline_missing: bool) -> Result<()> {
        if newline_missing {
            self.file.write_all(b"\n").map_err(|e| files::io("write", &self.path, &e))?;
            self.length += 1;
        } else if found > self.length {
            self.file.set_len(self.length).map_err(|e| files::io("cut", &self.path, &e))?;
        }
        // Also when nothing changed: lines that a killed process wrote may not be durable yet.
        self.file.sync_all().map_err(|e| files::io("sync", &self.path, &e))
    }

    /// Appends records: when it returns they are durable, all of them; after an error, none counts (after a failed
    /// sync, opening again may show them all). No records, no write. `IO` if the disk fails or is full.
    pub fn append(&mut self, records: &[R]) -> Result<()> {
        self.check_usable()?;
        if records.is_empty() {
            return Ok(());
        }
        let (line, sum) = line(&self.sum, records)?;
        if let Err(e) = self.file.write_all(&line) {
            // Part of a line may be there; the next one must not follow it.
            self.broken = self.file.set_len(self.length).is_err();
            return Err(files::io("write", &self.path, &e));
        }
        if let Err(e) = self.file.sync_data() {
            // The system may have dropped what it could not write, and would not say so again.
            self.broken = true;
            return Err(files::io("sync", &self.path, &e));
        }
        self.length += line.len() as u64;
        self.sum = sum;
        Ok(())
    }

    /// Replaces the whole content: after a crash the file has the old records or the new ones.
    pub fn compact(&mut self, records: &[R]) -> Result<()> {
        self.check_usable()?;
        let (bytes, sum) = write_lines(records)?;
        let staged = files::stage(&self.path, &bytes)?;
        self.broken = true;
        files::publish(&staged, &self.path)?;
        self.file = open_file(&self.path)?;
        (self.length, self.sum, self.broken) = (bytes.len() as u64, sum, false);
        Ok(())
    }

    /// Bytes of the file: when there are many, it is time to [`Journal::compact`].
    pub fn length(&self) -> u64 {
        self.length
    }

    fn check_usable(&self) -> Result<()> {
        if self.broken {
            let message = format!("{}: an earlier write failed; open the wallet again", self.path.display());
            return Err(Error::new(Code::Io, message));
        }
        Ok(())
    }
}

/// The records in a journal's bytes, and how many bytes are whole lines; what follows was torn by a crash. An error is the
/// number of a damaged line (from 1) and what is wrong with it.
#[doc(hidden)]
pub fn inspect<R: DeserializeOwned>(bytes: &[u8]) -> std::result::Result<(Vec<R>, usize), (usize, String)> {
    read(bytes).map(|content| (content.records, content.length))
}

/// The bytes of a journal with these records, each in a line of its own.
#[doc(hidden)]
pub fn write<R: Serialize>(records: &[R]) -> Result<Vec<u8>> {
    Ok(write_lines(records)?.0)
}

fn write_lines<R: Serialize>(records: &[R]) -> Result<(Vec<u8>, Sum)> {
    let (mut bytes, mut sum) = (Vec::new(), start());
    for record in records {
        let (line, next) = line(&sum, std::slice::from_ref(record))?;
        bytes.extend_from_slice(&line);
        sum = next;
    }
    Ok((bytes, sum))
}

fn open_file(path: &Path) -> Result<File> {
    files::private(OpenOptions::new().read(true).append(true).create(true))
        .open(path)
        .map_err(|e| files::io("open", path, &e))
}

fn start() -> Sum {
    chain(TAG, b"")
}

fn chain(before: &[u8], records: &[u8]) -> Sum {
    let digest = Sha256::new().chain_update(before).chain_update(records).finalize();
    let mut sum = Sum::default();
    sum.copy_from_slice(&digest[..size_of::<Sum>()]);
    sum
}

fn line<R: Serialize>(before: &Sum, records: &[R]) -> Result<(Vec<u8>, Sum)> {
    let json = serde_json::to_vec(records)
        .map_err(|e| Error::new(Code::Io, format!("a record cannot be written as JSON: {e}")))?;
    let sum = chain(before, &json);
    let hex = hex::encode(sum);
    Ok(([LINE_START, hex.as_bytes(), LINE_MIDDLE, &json, LINE_END, b"\n"].concat(), sum))
}

/// What the file holds.
struct Content<R> {
    records: Vec<R>,
    /// Bytes of the whole lines; what follows is torn.
    length: usize,
    sum: Sum,
    newline_missing: bool,
}

/// Reads whole lines. An error is the number of a line (from 1) and what is wrong with it.
fn read<R: DeserializeOwned>(bytes: &[u8]) -> std::result::Result<Content<R>, (usize, String)> {
    let mut content = Content { records: Vec::new(), length: 0, sum: start(), newline_missing: false };
    for (number, raw) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        let is_last = content.length + raw.len() == bytes.len();
        let whole = raw.strip_suffix(b"\n");
        let parsed = whole.or(Some(raw)).and_then(|text| parse(&content.sum, text));
        let Some((sum, json)) = parsed else {
            if is_last && (whole.is_none() || raw.contains(&0)) {
                break;
            }
            let problem = "its checksum does not match: the file was changed or the disk damaged it";
            return Err((number + 1, problem.into()));
        };
        let records: Vec<R> = serde_json::from_slice(json)
            .map_err(|e| (number + 1, format!("its records are unknown to this version: {e}")))?;
        content.records.extend(records);
        content.sum = sum;
        content.length += raw.len();
        content.newline_missing = whole.is_none();
    }
    Ok(content)
}

/// The line's checksum and records, if they belong together.
fn parse<'a>(before: &Sum, text: &'a [u8]) -> Option<(Sum, &'a [u8])> {
    let rest = text.strip_prefix(LINE_START)?;
    let (hex, rest) = rest.split_at_checked(2 * size_of::<Sum>())?;
    let json = rest.strip_prefix(LINE_MIDDLE)?.strip_suffix(LINE_END)?;
    let sum = chain(before, json);
    (hex::encode(sum).as_bytes() == hex).then_some((sum, json))
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
