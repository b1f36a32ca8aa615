//! The journal of a channel manager: its records, in their order, each group of them kept or lost together.

use std::path::{Path, PathBuf};

use florin_core::committee::Committee;
use florin_core::{Code, Error, Result, wire};
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::journal::Journal;
use crate::keystore::new_entropy;

/// Inputs whose groups are written together at most; one line of the journal.
pub const GROUP_MAX: usize = 1_024;

/// Bytes below which a journal is not written anew.
const COMPACT_MIN: u64 = 4 << 20;

/// A line's entries.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Entry {
    /// The first: whose it is.
    Head {
        /// Names this journal in the ids of the wallet's orders: 16 hex digits.
        id: String,
        committee: String,
    },
    /// An encoded `HubGroup`, in hex: all that one input has changed.
    Group(String),
}

/// An open journal. One process at a time.
pub struct Store {
    journal: Journal<Entry>,
    id: String,
    committee: String,
    /// Bytes from which on it is written anew.
    compact_at: u64,
}

/// Where the journal of a wallet's channels is: beside the wallet.
pub fn path_of(wallet: &Path) -> PathBuf {
    let mut name = wallet.as_os_str().to_owned();
    name.push(".channels");
    PathBuf::from(name)
}

impl Store {
    /// Opens the journal, made if it is missing, and gives its groups.
    /// Errors: `BUSY` if another process has it open, `BAD_FILE`, `WRONG_COMMITTEE`, `IO`.
    pub fn open(path: &Path, committee: &Committee) -> Result<(Store, Vec<wire::HubGroup>)> {
        let (mut journal, entries) = Journal::<Entry>::open(path).map_err(|e| match e.code {
            Code::Busy => Error::new(Code::Busy, format!("another process uses the channels {}", path.display())),
            _ => e,
        })?;
        let own = hex::encode(committee.id());
        let mut entries = entries.into_iter();
        let id = match entries.next() {
            None => {
                let id = hex::encode(&new_entropy::<8>()?[..]);
                journal.append(&[Entry::Head { id: id.clone(), committee: own.clone() }])?;
                id
            }
            Some(Entry::Head { id, committee }) if committee == own => id,
            Some(Entry::Head { committee, .. }) => {
                return Err(Error::expected(Code::WrongCommittee, "committee of the channels", own, committee));
            }
            Some(Entry::Group(_)) => return Err(bad(path, "it does not say whose it is")),
        };
        let groups = entries.map(|entry| group(path, entry)).collect::<Result<_>>()?;
        Ok((Store { journal, id, committee: own, compact_at: COMPACT_MIN }, groups))
    }

    /// The groups of a journal that another process may have open. Errors: as [`Store::open`].
    pub fn peek(path: &Path, committee: &Committee) -> Result<Vec<wire::HubGroup>> {
        let mut entries = Journal::<Entry>::peek(path)?.into_iter();
        match entries.next() {
            None => Ok(Vec::new()),
            Some(Entry::Head { committee: found, .. }) => {
                let own = hex::encode(committee.id());
                if found != own {
                    return Err(Error::expected(Code::WrongCommittee, "committee of the channels", own, found));
                }
                entries.map(|entry| group(path, entry)).collect()
            }
            Some(Entry::Group(_)) => Err(bad(path, "it does not say whose it is")),
        }
    }

    /// Names this journal, and no other.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether what it holds is mostly outdated.
    pub fn is_long(&self) -> bool {
        self.journal.length() > self.compact_at
    }

    /// From now on whatever it holds is too long.
    #[cfg(test)]
    pub fn make_long(&mut self) {
        self.compact_at = 0;
    }

    /// Writes the journal anew, with this group alone: all or nothing. Errors: `IO`; then nothing more can be appended.
    pub fn rewrite(&mut self, group: &wire::HubGroup) -> Result<()> {
        let head = Entry::Head { id: self.id.clone(), committee: self.committee.clone() };
        self.journal.compact(&[head, entry(group)])?;
        self.compact_at = COMPACT_MIN.max(2 * self.journal.length());
        Ok(())
    }

    /// Appends groups, each whole; when it returns they are durable. Errors: `IO`; then nothing more can be appended.
    pub fn append(&mut self, groups: &[wire::HubGroup]) -> Result<()> {
        let entries: Vec<Entry> = groups.iter().filter(|group| !group.entries.is_empty()).map(entry).collect();
        if entries.is_empty() {
            return Ok(());
        }
        self.journal.append(&entries)
    }
}

fn entry(group: &wire::HubGroup) -> Entry {
    Entry::Group(hex::encode(group.encode_to_vec()))
}

fn group(path: &Path, entry: Entry) -> Result<wire::HubGroup> {
    let Entry::Group(text) = entry else { return Err(bad(path, "it says twice whose it is")) };
    let bytes = hex::decode(text).map_err(|e| bad(path, &e.to_string()))?;
    wire::HubGroup::decode(&bytes[..]).map_err(|e| bad(path, &e.to_string()))
}

fn bad(path: &Path, problem: &str) -> Error {
    Error::new(Code::BadFile, format!("the journal of channels {}: {problem}", path.display()))
}

#[cfg(test)]
mod tests {
    use florin_core::testing::TestCommittee;

    use super::*;

    fn record(op: u64) -> wire::HubGroup {
        let record = wire::ManagerRecord { kind: Some(wire::manager_record::Kind::Cancel(op)) };
        let entry = wire::HubEntry { kind: Some(wire::hub_entry::Kind::Channel(record)) };
        wire::HubGroup { entries: vec![entry] }
    }

    #[test]
    fn a_journal_is_written_anew_and_keeps_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("channels");
        let (committee, _) = TestCommittee::new(4, 1).build();
        let (mut store, records) = Store::open(&path, &committee).unwrap();
        assert_eq!(records, []);
        let id = store.id().to_owned();
        let all: Vec<_> = (0..100_000).map(record).collect();
        all.chunks(GROUP_MAX).for_each(|group| store.append(group).unwrap());
        assert_eq!(Store::open(&path, &committee).err().unwrap().code, Code::Busy);
        drop(store);
        let (mut store, records) = Store::open(&path, &committee).unwrap();
        assert_eq!((records, store.id()), (all, &id[..]));
        store.rewrite(&record(7)).unwrap();
        store.append(&[record(8)]).unwrap();
        drop(store);
        let (store, records) = Store::open(&path, &committee).unwrap();
        assert_eq!((records, store.id()), (vec![record(7), record(8)], &id[..]));
        assert!(!store.is_long());
        // Also while it is open elsewhere.
        assert_eq!(Store::peek(&path, &committee).unwrap(), [record(7), record(8)]);
        drop(store);
        let (other, _) = TestCommittee::new(7, 1).build();
        assert_eq!(Store::open(&path, &other).err().unwrap().code, Code::WrongCommittee);
    }
    #[test]
    fn a_journal_of_an_earlier_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("channels");
        let (committee, _) = TestCommittee::new(4, 1).build();
        drop(Store::open(&path, &committee).unwrap());
        let (mut journal, _) = Journal::<serde_json::Value>::open(&path).unwrap();
        journal.append(&[serde_json::json!({"record": "00"})]).unwrap();
        drop(journal);
        let e = Store::open(&path, &committee).err().unwrap();
        assert!(e.code == Code::BadFile && e.message.contains("unknown to this version"), "{e}");
    }
}
