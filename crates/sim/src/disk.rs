//! A shard's disk: what is synced, and what a crash may lose.
//!
//! It may lose any suffix of the steps that are not synced, never a part of a step: an engine writes a
//! step atomically ([`crate::frames`]). It never loses, tears or flips what is synced; there is no recovery from that by design.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use florin_core::Result;
use florin_core::authority::state::{State, Table, Write};

use crate::rng::Rng;

/// Tables as they are at one moment, by number of the table.
#[derive(Clone)]
pub struct Image([BTreeMap<Bytes, Bytes>; Table::ALL.len()]);

impl Default for Image {
    fn default() -> Self {
        Image(std::array::from_fn(|_| BTreeMap::new()))
    }
}

/// One change, in buffers that both images share.
pub(crate) struct Change {
    pub(crate) table: Table,
    pub(crate) key: Bytes,
    pub(crate) value: Option<Bytes>,
}

impl Image {
    /// The value of a key.
    pub fn value(&self, table: Table, key: &[u8]) -> Option<&Bytes> {
        self.0[table as usize].get(key)
    }

    /// All entries of a table, by key.
    pub fn table(&self, table: Table) -> impl Iterator<Item = (&[u8], &Bytes)> {
        self.0[table as usize].iter().map(|(key, value)| (&key[..], value))
    }

    /// Makes changes that nobody waits to be durable.
    pub fn apply(&mut self, writes: &[Write]) {
        for w in writes {
            self.set(w.table, Bytes::copy_from_slice(&w.key), w.value.as_deref().map(Bytes::copy_from_slice));
        }
    }

    fn set(&mut self, table: Table, key: Bytes, value: Option<Bytes>) {
        match value {
            Some(value) => self.0[table as usize].insert(key, value),
            None => self.0[table as usize].remove(&key),
        };
    }
}

impl State for Image {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.value(table, key).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let entries = self.0[table as usize].range::<[u8], _>((Bound::Included(from), Bound::Unbounded)).take(limit);
        Ok(entries.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

/// The disk of one shard. Steps are numbered from 1.
#[derive(Default)]
pub struct Disk {
    synced: Image,
    current: Image,
    unsynced: VecDeque<Vec<Change>>,
    durable: u64,
}

impl Disk {
    /// What the running process reads: everything written.
    pub fn current(&self) -> &Image {
        &self.current
    }

    /// What a crash can't take away.
    pub fn synced(&self) -> &Image {
        &self.synced
    }

    /// The newest step written.
    pub fn last_step(&self) -> u64 {
        self.durable + self.unsynced.len() as u64
    }

    /// The newest step that is synced.
    pub fn durable_step(&self) -> u64 {
        self.durable
    }

    /// Writes one step.
    pub fn write(&mut self, writes: &[Write]) {
        let change = |w: &Write| Change {
            table: w.table,
            key: Bytes::copy_from_slice(&w.key),
            value: w.value.as_deref().map(Bytes::copy_from_slice),
        };
        let changes: Vec<Change> = writes.iter().map(change).collect();
        changes.iter().for_each(|c| self.current.set(c.table, c.key.clone(), c.value.clone()));
        self.unsynced.push_back(changes);
    }

    /// Makes all steps up to this one durable.
    pub fn sync(&mut self, upto: u64) {
        while self.durable < upto
            && let Some(changes) = self.unsynced.pop_front()
        {
            changes.into_iter().for_each(|c| self.synced.set(c.table, c.key, c.value));
            self.durable += 1;
        }
    }

    /// Power off: of the unsynced steps a random prefix is kept. Returns how many are lost.
    pub fn crash(&mut self, rng: &mut Rng) -> u64 {
        let kept = rng.below(self.unsynced.len() as u64 + 1);
        self.keep(kept)
    }

    /// Steps that are not synced, oldest first.
    pub(crate) fn unsynced(&self) -> impl Iterator<Item = &Vec<Change>> {
        self.unsynced.iter()
    }

    /// Power off: so many of the unsynced steps are kept. Returns how many are lost.
    pub fn keep(&mut self, kept: u64) -> u64 {
        self.sync(self.durable + kept);
        let lost = self.unsynced.len() as u64;
        for change in self.unsynced.drain(..).flatten() {
            let before = self.synced.value(change.table, &change.key).cloned();
            self.current.set(change.table, change.key, before);
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_what_is_synced_and_a_prefix_of_the_rest() {
        for seed in 0..50 {
            let mut rng = Rng::new(seed);
            let mut disk = Disk::default();
            for step in 0..6u8 {
                disk.write(&[Write::put(Table::Meta, [step], [step]), Write::put(Table::Meta, *b"last", [step])]);
            }
            disk.sync(2);
            assert_eq!(disk.current().table(Table::Meta).count(), 7, "reads see unsynced steps");
            let lost = disk.crash(&mut rng);
            let kept = 6 - lost;
            assert!((2..=6).contains(&kept));
            assert_eq!(disk.last_step(), kept);
            assert_eq!(disk.current().table(Table::Meta).count() as u64, kept + 1);
            assert_eq!(disk.current().value(Table::Meta, b"last").unwrap()[0] as u64, kept - 1);
        }
    }
}
