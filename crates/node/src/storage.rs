//! The disk of one shard: tables of bytes, written atomically, read at once, durable after a sync.
//!
//! A write is one frame of the log and is then visible in memory. Now and then the memory is frozen and
//! flushed into the trees in the background, and the log before it removed. `docs/decisions/0002-storage.md`
//! says why it is built so. In front of the trees lies a memory of accounts, for reads only.
//!
//! What holds safety rule 1 (a promise is on disk before it leaves) and must stay true:
//! 1. [`Store::sync`] returns Ok only if every frame appended before the call is durable.
//! 2. A segment of the log is removed only after the trees durably hold all of it and the checkpoint says so.
//! 3. After a failed write, sync or flush nothing is written any more: what the kernel dropped then
//!    can't be told from what it kept. Reads go on.
//! 4. Opening forgets no frame that was acknowledged, or refuses the folder.

mod accounts;
mod folder;
mod log;
mod memory;
mod trees;

use std::fs::{self, File};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, RwLock};
use std::thread::JoinHandle;

use bytes::Bytes;
use florin_core::authority::state::{State, Table, Write};
use florin_core::error::{Code, Error, Result};

use accounts::Accounts;
pub use accounts::AccountsMemory;
pub use folder::{FORMAT, Identity};
pub(crate) use folder::{erase, finish_erase, io_error, write_atomic, write_secret};
use log::{Log, MAX_WRITE};
use memory::{Key, Layers, Memory};
use trees::Trees;

/// Bytes of log that are flushed at once. More means fewer merges, and longer starts after a crash.
const FLUSH: usize = if cfg!(test) { 64 << 10 } else { 128 << 20 };
/// Bytes of log at which writers wait for the flush before.
const FULL: usize = 4 * FLUSH;
/// Values smaller than this are copied out: a slice would keep a whole frame or block in memory.
const COPY: usize = 4_096;
/// Bytes of accounts kept in memory, unless [`Store::keep_accounts`] says otherwise: ten million, about.
pub const ACCOUNTS_BYTES: usize = 1_280 << 20;
/// Entries that [`Store::iterate`] reads at once.
const PAGE: usize = 1_024;
const LOG: &str = "log";
const TREES: &str = "tables";

/// A shard's storage. Clones share it; the last one dropped syncs and closes it.
#[derive(Clone)]
pub struct Store(Arc<Owner>);

/// Joins the background threads, which hold the rest.
struct Owner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    dir: PathBuf,
    identity: Identity,
    trees: Trees,
    accounts: Accounts,
    layers: RwLock<Layers>,
    /// `None` if read-only or closed. Locks are taken in the order of these fields.
    writer: Mutex<Option<Writer>>,
    /// Number of the newest durable frame; held while syncing.
    durable: Mutex<u64>,
    /// File of the newest frame, and its number.
    tail: Mutex<(Arc<File>, u64)>,
    /// As `durable`, for the frames to tell.
    durable_hint: AtomicU64,
    failed: OnceLock<Error>,
    flushing: Mutex<()>,
    flushed: Condvar,
    stop: AtomicBool,
    /// Last, so that it is let go of last.
    _lock: File,
}

struct Writer {
    log: Log,
    flusher: Sender<(Arc<Memory>, u64)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic under this lock")
}

impl Store {
    /// Opens the folder of a shard, or makes it if it isn't one yet and `create` is set.
    ///
    /// Errors: `STORAGE_BUSY` if a process has it open, `STORAGE_VERSION` if a newer Florin wrote it,
    /// `STORAGE_CORRUPT` if it is damaged or belongs to another committee, authority or shard,
    /// `STORAGE_FULL`, `STORAGE_FAILED`; `BAD_FILE` if it is no shard's and `create` isn't set.
    pub fn open(dir: &Path, shard: u32, committee_id: [u8; 32], authority: u32, create: bool) -> Result<Store> {
        let expected = Identity { committee_id, authority, shard };
        if create {
            fs::create_dir_all(dir.join(LOG)).map_err(|e| folder::io_error("make folder", dir, e))?;
        }
        if !dir.join(LOG).is_dir() {
            return Err(not_a_shard(dir));
        }
        let held = folder::lock(dir)?;
        match folder::read_identity(dir)? {
            Some(found) => folder::check_identity(dir, &expected, &found)?,
            None if create && log::segments(&dir.join(LOG))?.is_empty() => folder::write_identity(dir, &expected)?,
            None => return Err(not_a_shard(dir)),
        }
        let checkpoint = folder::read_checkpoint(dir)?;
        let trees = Trees::open(&dir.join(TREES), checkpoint.is_none())?;
        let log_dir = dir.join(LOG);
        if checkpoint.is_none() {
            if log::segments(&log_dir)?.is_empty() {
                Log::create(&log_dir)?;
            }
            folder::sync_folder(&dir.join(TREES))?;
            folder::write_checkpoint(dir, 0)?;
        }
        let flushed = checkpoint.unwrap_or(0);
        let mut layers = Layers::default();
        let log = Log::recover(&log_dir, flushed, false, &mut layers.active)?.expect("opened for writing");
        Log::remove_to(&log_dir, flushed)?;
        Store::new(dir, expected, trees, layers, Some(log), held)
    }

    /// Opens a folder that no process uses, to look at it. Errors: as [`Store::open`].
    pub fn open_read_only(dir: &Path) -> Result<Store> {
        let Some(identity) = folder::read_identity(dir)? else { return Err(not_a_shard(dir)) };
        let held = folder::lock(dir)?;
        let Some(flushed) = folder::read_checkpoint(dir)? else { return Err(not_a_shard(dir)) };
        let trees = Trees::open(&dir.join(TREES), false)?;
        let mut layers = Layers::default();
        Log::recover(&dir.join(LOG), flushed, true, &mut layers.active)?;
        Store::new(dir, identity, trees, layers, None, held)
    }

    fn new(
        dir: &Path,
        identity: Identity,
        trees: Trees,
        layers: Layers,
        log: Option<Log>,
        held: File,
    ) -> Result<Store> {
        let tail = match &log {
            Some(log) => log.handle(),
            None => (Arc::new(held.try_clone().map_err(|e| folder::io_error("open", dir, e))?), 0),
        };
        let (to_flusher, from_writer) = channel();
        let (to_merger, from_flusher) = sync_channel(1);
        let writes = log.is_some();
        let shared = Arc::new(Shared {
            dir: dir.into(),
            identity,
            trees,
            accounts: Accounts::new(ACCOUNTS_BYTES),
            layers: RwLock::new(layers),
            writer: Mutex::new(log.map(|log| Writer { log, flusher: to_flusher })),
            durable: Mutex::new(tail.1),
            durable_hint: AtomicU64::new(tail.1),
            tail: Mutex::new(tail),
            failed: OnceLock::new(),
            flushing: Mutex::new(()),
            flushed: Condvar::new(),
            stop: AtomicBool::new(false),
            _lock: held,
        });
        let mut threads = Vec::new();
        if writes {
            threads.push(spawn("flush", &shared, move |shared| flush_loop(shared, &from_writer, &to_merger))?);
            threads.push(spawn("merge", &shared, move |shared| merge_loop(shared, &from_flusher))?);
        }
        Ok(Store(Arc::new(Owner { shared, threads: Mutex::new(threads) })))
    }

    /// Whose folder it is.
    pub fn identity(&self) -> Identity {
        self.0.shared.identity
    }

    /// The newest value of a key. Errors: `STORAGE_CORRUPT`, `STORAGE_FAILED`.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.shared.find(table, key)?.map(copy_small))
    }

    /// Entries with `from <= key < to`, ascending, at most `limit`; without `to`, up to the last key.
    /// All are of one moment. Errors: `STORAGE_CORRUPT`, `STORAGE_FAILED`.
    pub fn range(&self, table: Table, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        self.0.shared.range(table as usize, Bound::Included(from), to, limit)
    }

    /// All entries of a table, ascending, read page by page: writes in between may show or not.
    pub fn iterate(&self, table: Table) -> impl Iterator<Item = Result<(Bytes, Bytes)>> + '_ {
        let (mut page, mut last, mut done) = (Vec::new().into_iter(), None::<Bytes>, false);
        std::iter::from_fn(move || {
            if let Some(entry) = page.next() {
                return Some(Ok(entry));
            }
            if done {
                return None;
            }
            let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let read = match self.0.shared.range(table as usize, from, None, PAGE) {
                Ok(read) => read,
                Err(e) => {
                    done = true;
                    return Some(Err(e));
                }
            };
            done = read.len() < PAGE;
            last = read.last().map(|entry| entry.0.clone());
            page = read.into_iter();
            page.next().map(Ok)
        })
    }

    /// Writes all or nothing, visible at once, durable after the next [`Store::sync`]. With one key twice, the last counts.
    /// Keys have 1 to 65,535 bytes, a call up to 256 MiB.
    ///
    /// Errors: `LIMIT` for those limits, with nothing done; else those of the disk, and then all later
    /// writes and syncs fail the same way: open the folder anew.
    pub fn write(&self, writes: &[Write]) -> Result<()> {
        let size: usize = writes.iter().map(|w| w.key.len() + w.value.as_ref().map_or(0, Vec::len)).sum();
        if size > MAX_WRITE {
            return Err(Error::expected(Code::Limit, "bytes of a write", format!("up to {MAX_WRITE}"), size));
        }
        if let Some(write) = writes.iter().find(|w| w.key.is_empty() || w.key.len() > u16::MAX as usize) {
            return Err(Error::expected(Code::Limit, "bytes of a key", "1 to 65535", write.key.len()));
        }
        let shared = &*self.0.shared;
        let mut writer = lock(&shared.writer);
        let Some(writer) = writer.as_mut() else {
            return Err(Error::new(Code::StorageFailed, format!("{} is open for reading only", shared.dir.display())));
        };
        shared.check()?;
        if writes.is_empty() {
            return Ok(());
        }
        let durable = shared.durable_hint.load(Ordering::Relaxed);
        writer.log.append(writes, durable, &shared.layers).map_err(|e| shared.fail(e))?;
        *lock(&shared.tail) = writer.log.handle();
        shared.freeze_if_due(writer)
    }

    /// Makes all that was written before the call durable. Calls at the same time share one sync of the
    /// disk, and writes go on meanwhile. Errors: as [`Store::write`].
    pub fn sync(&self) -> Result<()> {
        let shared = &*self.0.shared;
        let wanted = lock(&shared.tail).1;
        let mut durable = lock(&shared.durable);
        shared.check()?;
        if *durable >= wanted {
            return Ok(());
        }
        let (file, number) = lock(&shared.tail).clone();
        file.sync_data().map_err(|e| shared.fail(folder::io_error("sync", &shared.dir, e)))?;
        shared.note_durable(&mut durable, number);
        Ok(())
    }

    /// Single keys looked for in the trees so far, as they were not in memory.
    pub fn tree_reads(&self) -> u64 {
        self.0.shared.trees.reads()
    }

    /// Sets how many bytes of accounts are kept in memory, about; 0 for none.
    pub fn keep_accounts(&self, bytes: usize) {
        self.0.shared.accounts.limit(bytes);
    }

    /// What the memory of accounts holds, and how often it was of use.
    pub fn accounts_memory(&self) -> AccountsMemory {
        self.0.shared.accounts.numbers()
    }

    /// Merges accounts that were flushed into one run, as long use leaves them. For benchmarks: the store merges by itself.
    /// Errors: as [`Store::write`].
    pub fn merge_accounts(&self) -> Result<()> {
        // Refused where nothing may be written.
        self.write(&[])?;
        self.0.shared.trees.merge_whole(Table::Accounts as usize)
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        folder::disk_bytes(&self.0.shared.dir)
    }
}

impl State for Store {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        Store::get(self, table, key)
    }

    fn look(&self, table: Table, key: &[u8], look: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let shared = &*self.0.shared;
        if let Some(value) = shared.in_log(table, key) {
            return Ok(value.map(|value| look(&value)).is_some());
        }
        if table == Table::Accounts && shared.accounts.look(key, &mut *look).is_some() {
            return Ok(true);
        }
        Ok(shared.trees.get(table as usize, key)?.map(|value| look(&value)).is_some())
    }

    fn look_accounts(&self, keys: &[[u8; 16]], look: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        let shared = &*self.0.shared;
        let not_in_log = {
            let layers = shared.layers.read().expect("no panic under this lock");
            layers.look_accounts(keys, look)
        };
        for i in shared.accounts.look_all(keys, not_in_log, look) {
            if let Some(record) = shared.trees.get(Table::Accounts as usize, &keys[i])? {
                look(i, &record);
            }
        }
        Ok(())
    }

    fn scan(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        self.range(table, from, None, limit)
    }
}

impl Shared {
    fn check(&self) -> Result<()> {
        self.failed.get().map_or(Ok(()), |e| Err(e.clone()))
    }

    /// The newest value of a key, as a part of whatever it lies in.
    fn find(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        if let Some(value) = self.in_log(table, key) {
            return Ok(value);
        }
        if table == Table::Accounts
            && let Some(value) = self.accounts.look(key, Bytes::copy_from_slice)
        {
            return Ok(Some(value));
        }
        self.trees.get(table as usize, key)
    }

    /// What the log's memory knows of a key: its value, or that it is deleted.
    fn in_log(&self, table: Table, key: &[u8]) -> Option<Option<Bytes>> {
        let layers = self.layers.read().expect("no panic under this lock");
        let frozen = || layers.frozen.as_ref().and_then(|m| m.get(table as usize, key));
        layers.active.get(table as usize, key).or_else(frozen)
    }

    /// Stops all writing. The first error is the one that everybody gets.
    fn fail(&self, error: Error) -> Error {
        let error = self.failed.get_or_init(|| error).clone();
        let _waiting = lock(&self.flushing);
        self.flushed.notify_all();
        error
    }

    fn note_durable(&self, durable: &mut u64, number: u64) {
        *durable = number;
        self.durable_hint.store(number, Ordering::Relaxed);
    }

    /// Hands the active memory to the flusher once it is large, if the one before is through.
    fn freeze_if_due(&self, writer: &mut Writer) -> Result<()> {
        let state = || {
            let layers = self.layers.read().expect("no panic under this lock");
            (layers.active.bytes(), layers.frozen.is_some())
        };
        let (bytes, busy) = state();
        if bytes < FLUSH || (busy && bytes < FULL) {
            return Ok(());
        }
        let mut flushing = lock(&self.flushing);
        while state().1 {
            self.check()?;
            flushing = self.flushed.wait(flushing).expect("no panic under this lock");
        }
        drop(flushing);
        let segment = writer.log.segment();
        {
            // Under the lock of syncs: the kernel reports a failed sync once, and both must hear of it.
            let mut durable = lock(&self.durable);
            self.check()?;
            writer.log.rotate().map_err(|e| self.fail(e))?;
            let tail = writer.log.handle();
            self.note_durable(&mut durable, tail.1);
            *lock(&self.tail) = tail;
        }
        let mut layers = self.layers.write().expect("no panic under this lock");
        let next = layers.active.next();
        let frozen = Arc::new(std::mem::replace(&mut layers.active, next));
        layers.frozen = Some(frozen.clone());
        drop(layers);
        // Fails only if the flusher died, which it reported.
        writer.flusher.send((frozen, segment)).or_else(|_| self.check())
    }

    fn flush(&self, memory: &Memory, segment: u64) -> Result<()> {
        self.trees.flush(memory)?;
        folder::write_checkpoint(&self.dir, segment)?;
        // Before the log's memory lets go of them: from then on what is here must be what the trees hold.
        self.accounts.take_in(memory);
        let flushing = lock(&self.flushing);
        self.layers.write().expect("no panic under this lock").frozen = None;
        self.flushed.notify_all();
        drop(flushing);
        Log::remove_to(&self.dir.join(LOG), segment)
    }

    fn range(&self, table: usize, from: Bound<&[u8]>, to: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let layers = self.layers.read().expect("no panic under this lock");
        let mut active = layers.active.range(table, from.map(Key::new)).peekable();
        let mut frozen = layers.frozen.iter().flat_map(|m| m.range(table, from.map(Key::new))).peekable();
        let mut tree = self.trees.range(table, from);
        let mut next_in_tree = || tree.next().transpose().map(|e| e.map(|(k, v)| (Key::new(&k), k, v)));
        let mut on_disk = next_in_tree()?;
        let end = to.map(Key::new);
        let mut found = Vec::new();
        while found.len() < limit {
            let heads = [active.peek().map(|e| e.0), frozen.peek().map(|e| e.0), on_disk.as_ref().map(|e| &e.0)];
            let Some(key) = heads.into_iter().flatten().min().cloned() else { break };
            if end.as_ref().is_some_and(|end| key >= *end) {
                break;
            }
            // Take the key from every layer; the newest that has it counts.
            let mut entry = None;
            if on_disk.as_ref().is_some_and(|e| e.0 == key) {
                entry = on_disk.take().map(|(_, key, value)| (key, Some(value)));
                on_disk = next_in_tree()?;
            }
            if let Some((_, place)) = frozen.next_if(|e| *e.0 == key) {
                entry = layers.frozen.as_ref().map(|m| (m.key(place), m.value(place)));
            }
            if let Some((_, place)) = active.next_if(|e| *e.0 == key) {
                entry = Some((layers.active.key(place), layers.active.value(place)));
            }
            if let Some((key, Some(value))) = entry {
                found.push((copy_small(key), copy_small(value)));
            }
        }
        Ok(found)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let shared = &*self.shared;
        shared.stop.store(true, Ordering::Relaxed);
        // Dropping the writer ends the flusher, and that the merger.
        if let Some(writer) = shared.writer.lock().ok().and_then(|mut w| w.take())
            && shared.failed.get().is_none()
        {
            // No one was promised these; kept all the same if that is possible.
            let _ = writer.log.handle().0.sync_data();
        }
        let threads = self.threads.get_mut().map(std::mem::take).unwrap_or_default();
        for thread in threads {
            let _ = thread.join();
        }
    }
}

fn not_a_shard(dir: &Path) -> Error {
    Error::new(Code::BadFile, format!("{} is not a completely made folder of a shard", dir.display()))
}

fn copy_small(bytes: Bytes) -> Bytes {
    if bytes.len() < COPY { Bytes::copy_from_slice(&bytes) } else { bytes }
}

/// Starts a background thread; if it panics, the store stops writing.
fn spawn(name: &str, shared: &Arc<Shared>, run: impl FnOnce(&Shared) + Send + 'static) -> Result<JoinHandle<()>> {
    struct Watch(Arc<Shared>);
    impl Drop for Watch {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.fail(Error::new(Code::StorageFailed, "a background thread of the storage panicked"));
            }
        }
    }
    let watch = Watch(shared.clone());
    let thread = std::thread::Builder::new().name(format!("store-{name}"));
    let spawned = thread.spawn(move || run(&watch.0));
    spawned.map_err(|e| folder::io_error("start a thread for", &shared.dir, e))
}

fn flush_loop(shared: &Shared, frozen: &Receiver<(Arc<Memory>, u64)>, merger: &SyncSender<()>) {
    for (memory, segment) in frozen {
        if shared.failed.get().is_some() {
            return;
        }
        if let Err(e) = shared.flush(&memory, segment) {
            shared.fail(e);
            return;
        }
        // Full means that it will look again anyway.
        let _ = merger.try_send(());
    }
}

fn merge_loop(shared: &Shared, due: &Receiver<()>) {
    for () in due {
        if let Err(e) = shared.trees.compact(&shared.stop) {
            shared.fail(e);
            return;
        }
    }
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;
