//! The trees: one LSM tree a table, filled only by whole flushes, so that the engine's memory tables and
//! any log of its own stay unused. What is in them is durable.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use florin_core::authority::state::Table;
use florin_core::error::{Code, Error, Result};
use lsm_tree::compaction::Leveled;
use lsm_tree::config::RestartIntervalPolicy;
use lsm_tree::{AbstractTree, AnyTree, Cache, Config, DescriptorTable, Guard, SeqNo, SequenceNumberCounter};

use super::folder::io_error;
use super::memory::{AHEAD, Memory};

/// Bytes of blocks kept in memory, over all tables.
const CACHE: u64 = 256 << 20;
/// Open files of all tables.
const FILES: usize = 256;
/// Flushes of a table before they are merged. More merge less often and cost reads more.
const RUNS: u8 = 8;
/// The same of accounts, of which most are read from memory.
const ACCOUNT_RUNS: u8 = if cfg!(test) { RUNS } else { 32 };
/// Bytes of one file of a merged run.
const FILE: u64 = 64 << 20;
/// The engine's last level, where a table's large run is.
pub(super) const LAST: usize = 6;
/// Steps of merging after a flush; what is left is done after the next one.
const STEPS: usize = 16;
/// Readers always want the newest.
const NEWEST: SeqNo = SeqNo::MAX;

/// All tables of a shard.
pub(super) struct Trees {
    tables: Vec<(AnyTree, SequenceNumberCounter)>,
    reads: AtomicU64,
}

/// The engine's error as ours.
fn tree_error(what: &str, path: &Path, error: lsm_tree::Error) -> Error {
    let code = match error {
        lsm_tree::Error::Io(e) => return io_error(what, path, e),
        lsm_tree::Error::InvalidVersion(_) => Code::StorageVersion,
        _ => Code::StorageCorrupt,
    };
    Error::new(code, format!("{what} {}: {error}", path.display()))
}

impl Trees {
    /// Opens them all; makes missing ones only if `create`, as the engine would take one that lost its
    /// root file for new.
    pub(super) fn open(dir: &Path, create: bool) -> Result<Trees> {
        let cache = Arc::new(Cache::with_capacity_bytes(CACHE));
        let files = Arc::new(DescriptorTable::new(FILES));
        let open = |table: &Table| {
            let path = dir.join(table.name());
            if !create && !path.join("current").is_file() {
                return Err(Error::new(Code::StorageCorrupt, format!("{}: missing or incomplete", path.display())));
            }
            let (next, visible) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
            let tree = Config::new(&path, next.clone(), visible.clone())
                .use_cache(cache.clone())
                .use_descriptor_table(Some(files.clone()))
                .data_block_restart_interval_policy(RestartIntervalPolicy::all(16))
                .open()
                .map_err(|e| tree_error("open", &path, e))?;
            // The engine forgets its counter; a flush must outrank all before it.
            let after = tree.get_highest_persisted_seqno().map_or(0, |s| s + 1);
            next.fetch_max(after);
            visible.fetch_max(after);
            Ok((tree, visible))
        };
        let tables = Table::ALL.iter().map(open).collect::<Result<_>>()?;
        Ok(Trees { tables, reads: AtomicU64::new(0) })
    }

    fn error(&self, what: &str, table: usize, error: lsm_tree::Error) -> Error {
        tree_error(what, &self.tables[table].0.tree_config().path, error)
    }

    pub(super) fn get(&self, table: usize, key: &[u8]) -> Result<Option<Bytes>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let value = self.tables[table].0.get(key, NEWEST).map_err(|e| self.error("read", table, e))?;
        Ok(value.map(Bytes::from))
    }

    /// Keys asked for with [`Trees::get`] so far.
    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Entries from a key on, ascending.
    pub(super) fn range(&self, table: usize, from: Bound<&[u8]>) -> impl Iterator<Item = Result<(Bytes, Bytes)>> {
        self.tables[table].0.range::<&[u8], _>((from, Bound::Unbounded), NEWEST, None).map(move |entry| {
            let (key, value) = entry.into_inner().map_err(|e| self.error("read", table, e))?;
            Ok((key.into(), value.into()))
        })
    }

    /// Takes in a stretch of the log, table by table; all is durable on return. Repeating it does no harm.
    pub(super) fn flush(&self, memory: &Memory) -> Result<()> {
        for (table, (tree, _)) in self.tables.iter().enumerate() {
            let fail = |e| self.error("flush", table, e);
            let entries = memory.ascending(table);
            if entries.is_empty() {
                continue;
            }
            let mut ingestion = tree.ingestion().map_err(fail)?;
            for places in entries.chunks(AHEAD) {
                memory.touch(places.iter());
                for place in places {
                    match memory.value(place) {
                        Some(value) => ingestion.write(memory.key(place), value).map_err(fail)?,
                        None => ingestion.write_tombstone(memory.key(place)).map_err(fail)?,
                    }
                }
            }
            ingestion.finish().map_err(fail)?;
        }
        Ok(())
    }

    /// Merges what flushes left.
    pub(super) fn compact(&self, stop: &AtomicBool) -> Result<()> {
        let others = Arc::new(Leveled::default().with_l0_threshold(RUNS));
        for (table, (tree, visible)) in self.tables.iter().enumerate() {
            if table == Table::Accounts as usize {
                if tree.l0_run_count() >= usize::from(ACCOUNT_RUNS) && !stop.load(Ordering::Relaxed) {
                    self.merge_accounts()?;
                }
                continue;
            }
            let shape = || (tree.l0_run_count(), tree.table_count(), tree.disk_space());
            for _ in 0..STEPS {
                let before = shape();
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                tree.compact(others.clone(), visible.get()).map_err(|e| self.error("merge", table, e))?;
                if shape() == before {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Merges accounts that have changed into a run of their own, and that into the large one only once it
    /// is three quarters as large: where few of many accounts pay, the others are left alone.
    fn merge_accounts(&self) -> Result<()> {
        let table = Table::Accounts as usize;
        let (tree, visible) = &self.tables[table];
        let large = tree.current_version().level(LAST).map_or(0, |level| level.size());
        let changed = tree.disk_space().saturating_sub(large);
        let enough = large / 4 * 3;
        if changed >= enough {
            return self.merge_whole(table);
        }
        // The engine starts a level above the large run as soon as that is larger than the level's share,
        // a file a run of flushes, and moves from there only what is over it: `changed` never is.
        let file = enough / u64::from(ACCOUNT_RUNS) + 1;
        let leveled = Leveled::default().with_l0_threshold(ACCOUNT_RUNS).with_table_target_size(file);
        tree.compact(Arc::new(leveled), visible.get()).map_err(|e| self.error("merge", table, e))?;
        Ok(())
    }

    /// Merges all that a table has on disk into one run.
    pub(super) fn merge_whole(&self, table: usize) -> Result<()> {
        let (tree, visible) = &self.tables[table];
        tree.major_compact(FILE, visible.get()).map_err(|e| self.error("merge", table, e))
    }

    /// Files of a table's level, by number.
    #[cfg(test)]
    pub(super) fn files(&self, table: usize, level: usize) -> Vec<u64> {
        let version = self.tables[table].0.current_version();
        let mut files: Vec<u64> = version.level(level).into_iter().flat_map(|level| level.list_ids()).collect();
        files.sort_unstable();
        files
    }
}
