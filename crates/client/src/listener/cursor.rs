//! How far a listener is, as keys and values: what a delivery changes of them is stored with its effect.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use florin_core::committee::Committee;
use florin_core::merkle::Hash;
use florin_core::{Code, Error, Result};
use serde::{Deserialize, Serialize};

use super::merge::Mode;
use crate::journal::Journal;

/// Of the layout of keys and values.
const VERSION: u8 = 1;
const HEAD: u8 = b'v';
const POSITION: u8 = b'p';
const ACTOR: u8 = b'a';
const ID: u8 = b'i';
const PLACE: u8 = b'o';
/// Keys that begin with this are the application's own.
pub const APPLICATION: u8 = b'x';
/// Values of an id: it is delivered; and all authorities have shown it.
const DELIVERED: u8 = 1;
const COMPLETE: u8 = 2;
/// Bytes that a cursor file grows by, at least, before it is written anew.
const GROWTH_MIN: u64 = 1 << 20;

/// One entry of a cursor: a key, at most 41 bytes, and its new value, at most 100; an empty value takes the key away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Opaque.
    pub key: Vec<u8>,
    /// Opaque.
    pub value: Vec<u8>,
}

impl Change {
    fn new(tag: u8, key: &[u8], value: Vec<u8>) -> Change {
        Change { key: [&[tag], key].concat(), value }
    }

    pub(super) fn position(authority: usize, next: u64) -> Change {
        Change::new(POSITION, &(authority as u32).to_be_bytes(), next.to_be_bytes().to_vec())
    }

    /// That every authority has shown a delivered order.
    pub(super) fn complete(id: &Hash) -> Change {
        Change::new(ID, id, vec![COMPLETE])
    }

    pub(super) fn forget(id: &Hash) -> Change {
        Change::new(ID, id, Vec::new())
    }
}

/// What a listener is for, and how it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) committee: [u8; 32],
    pub(crate) network_id: u64,
    pub(crate) mode: Mode,
    /// How often a gap was allowed: 0 if every actor is to begin with its first order.
    pub(crate) epoch: u32,
    /// What settled before is left out, us since 1970.
    pub(crate) since_us: u64,
}

impl Head {
    pub(crate) fn change(&self) -> Change {
        let mut value = vec![VERSION, self.mode as u8];
        value.extend_from_slice(&self.committee);
        value.extend_from_slice(&self.network_id.to_be_bytes());
        value.extend_from_slice(&self.epoch.to_be_bytes());
        value.extend_from_slice(&self.since_us.to_be_bytes());
        Change::new(HEAD, &[], value)
    }

    fn decode(value: &[u8]) -> Option<Head> {
        let rest = value.strip_prefix(&[VERSION])?;
        let (mode, rest) = rest.split_first()?;
        let mode = [Mode::BySeqnum, Mode::ById, Mode::Total].into_iter().find(|m| *m as u8 == *mode)?;
        let (committee, rest) = rest.split_first_chunk::<32>()?;
        let (network_id, rest) = rest.split_first_chunk::<8>()?;
        let (epoch, since_us) = rest.split_first_chunk::<4>()?;
        Some(Head {
            committee: *committee,
            network_id: u64::from_be_bytes(*network_id),
            mode,
            epoch: u32::from_be_bytes(*epoch),
            since_us: u64::from_be_bytes(since_us.try_into().ok()?),
        })
    }

    /// That an order is delivered.
    pub(crate) fn done(&self, actor: u64, seqnum: u32, id: &Hash, position: Option<u64>) -> Change {
        match self.mode {
            Mode::ById => Change::new(ID, id, vec![DELIVERED]),
            Mode::Total => Change::new(PLACE, &[], (position.unwrap_or(0) + 1).to_be_bytes().to_vec()),
            Mode::BySeqnum => {
                let value = [seqnum.to_be_bytes(), self.epoch.to_be_bytes()].concat();
                Change::new(ACTOR, &actor.to_be_bytes(), value)
            }
        }
    }
}

/// What was stored.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) head: Option<Head>,
    pub(crate) positions: Vec<(usize, u64)>,
    /// Seqnum of the last order, and epoch.
    pub(crate) actors: Vec<(u64, (u32, u32))>,
    /// Delivered, without sequence numbers.
    pub(crate) ids: HashSet<Hash>,
    /// Those of `ids` that all authorities have shown.
    pub(crate) complete: HashSet<Hash>,
    /// Of networks with the flag ORDERED: the next position.
    pub(crate) place: u64,
}

impl Kept {
    /// From all that was stored, in the order in which it was stored. Errors: `BAD_FILE`; `WRONG_COMMITTEE` if it is of
    /// another committee; `UNKNOWN_NETWORK` if of another network.
    pub(crate) fn read(stored: &[Change], committee: &Committee, network_id: u64) -> Result<Kept> {
        let mut newest: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
        for change in stored {
            match change.value.is_empty() {
                true => newest.remove(&change.key[..]),
                false => newest.insert(&change.key, &change.value),
            };
        }
        let mut kept = Kept { place: 1, ..Kept::default() };
        for (key, value) in newest {
            let read = kept.entry(key, value);
            read.ok_or_else(|| {
                let message = format!("an entry of the listener's cursor is damaged: key {}", hex::encode(key));
                Error::new(Code::BadFile, message)
            })?;
        }
        match &kept.head {
            Some(head) if head.committee != *committee.id() => {
                let (expected, found) = (hex::encode(committee.id()), hex::encode(head.committee));
                Err(Error::expected(Code::WrongCommittee, "committee of the cursor", expected, found))
            }
            Some(head) if head.network_id != network_id => {
                let (expected, found) = (network_id, head.network_id);
                Err(Error::expected(Code::UnknownNetwork, "network of the cursor", expected, found))
            }
            _ => Ok(kept),
        }
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let (tag, key) = key.split_first()?;
        match *tag {
            HEAD => self.head = Some(Head::decode(value)?),
            POSITION => {
                let authority = u32::from_be_bytes(key.try_into().ok()?);
                self.positions.push((authority as usize, u64::from_be_bytes(value.try_into().ok()?)));
            }
            ACTOR => {
                let (seqnum, epoch) = value.split_first_chunk::<4>()?;
                let known = (u32::from_be_bytes(*seqnum), u32::from_be_bytes(epoch.try_into().ok()?));
                self.actors.push((u64::from_be_bytes(key.try_into().ok()?), known));
            }
            ID => {
                let id = key.try_into().ok()?;
                self.ids.insert(id);
                if value == [COMPLETE] {
                    self.complete.insert(id);
                }
            }
            PLACE => self.place = u64::from_be_bytes(value.try_into().ok()?),
            APPLICATION => {}
            _ => return None,
        }
        Some(())
    }
}

/// Where a listener's cursor is stored: a file ([`FileCursor`]), or a table of the database that the effects go to.
pub trait Cursor {
    /// All entries that were stored and not taken away; the order is free. Errors: those of the storage.
    fn load(&mut self) -> Result<Vec<Change>>;
    /// Stores changes, all or none; when it returns they are durable. Errors: those of the storage.
    fn store(&mut self, changes: &[Change]) -> Result<()>;
}

#[derive(Serialize, Deserialize)]
struct Record(String, String);

/// A cursor in a file: a journal of changes, written anew when most of it is outdated. One process at a time.
pub struct FileCursor {
    journal: Option<Journal<Record>>,
    path: std::path::PathBuf,
    stored: Vec<Change>,
    compact_at: u64,
}

impl FileCursor {
    /// Opens a cursor, made empty if the file is missing. Errors: `BUSY` if another process has it open, `BAD_FILE` if
    /// it is damaged, `IO`.
    pub fn open(path: &Path) -> Result<FileCursor> {
        let (journal, stored) = read(path)?;
        let mut cursor = FileCursor { journal: Some(journal), path: path.to_owned(), stored, compact_at: 0 };
        cursor.rewrite()?;
        Ok(cursor)
    }

    /// Whether nothing was ever stored.
    pub fn is_empty(&self) -> bool {
        self.stored.is_empty()
    }

    fn journal(&mut self) -> Result<&mut Journal<Record>> {
        let broken = || Error::new(Code::Io, format!("{}: an earlier write failed", self.path.display()));
        self.journal.as_mut().ok_or_else(broken)
    }

    /// Writes `stored` alone, if the file holds much more.
    fn rewrite(&mut self) -> Result<()> {
        let newest = newest(std::mem::take(&mut self.stored));
        let bytes: u64 = newest.iter().map(|c| 2 * (c.key.len() + c.value.len()) as u64 + 60).sum();
        let records: Vec<Record> = newest.iter().map(record).collect();
        self.stored = newest;
        let journal = self.journal()?;
        if journal.length() > 2 * bytes + GROWTH_MIN {
            journal.compact(&records)?;
        }
        let length = journal.length();
        self.compact_at = 2 * length + GROWTH_MIN;
        Ok(())
    }
}

impl Cursor for FileCursor {
    fn load(&mut self) -> Result<Vec<Change>> {
        Ok(std::mem::take(&mut self.stored))
    }

    fn store(&mut self, changes: &[Change]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        // As they come: of two for one key the later one counts.
        let records: Vec<Record> = changes.iter().map(record).collect();
        let compact_at = self.compact_at;
        let journal = self.journal()?;
        journal.append(&records)?;
        if journal.length() > compact_at {
            // The file is the only place that has it all.
            self.journal = None;
            let (journal, stored) = read(&self.path)?;
            (self.journal, self.stored) = (Some(journal), stored);
            self.rewrite()?;
            self.stored = Vec::new();
        }
        Ok(())
    }
}

fn record(change: &Change) -> Record {
    Record(hex::encode(&change.key), hex::encode(&change.value))
}

fn read(path: &Path) -> Result<(Journal<Record>, Vec<Change>)> {
    let (journal, records) = Journal::open(path).map_err(|e| match e.code {
        Code::Busy => Error::new(Code::Busy, format!("another process uses the cursor {}", path.display())),
        _ => e,
    })?;
    let bad = |e| Error::new(Code::BadFile, format!("{}: {e}", path.display()));
    let mut changes = Vec::with_capacity(records.len());
    for Record(key, value) in records {
        changes.push(Change { key: hex::decode(key).map_err(bad)?, value: hex::decode(value).map_err(bad)? });
    }
    Ok((journal, newest(changes)))
}

/// The newest value of each key, without those taken away.
fn newest(changes: Vec<Change>) -> Vec<Change> {
    let mut newest: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for change in changes {
        match change.value.is_empty() {
            true => newest.remove(&change.key),
            false => newest.insert(change.key, change.value),
        };
    }
    newest.into_iter().map(|(key, value)| Change { key, value }).collect()
}
