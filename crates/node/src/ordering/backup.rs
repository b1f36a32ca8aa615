//! The file of a session's units, which a restart needs so as never to create two units for one round.
//!
//! A header, then frames: magic, length, how far the file was known durable when the frame was written, checksum, unit.
//! Frames are written one by one but synced together: [`sync_loop`] syncs when a message waits for it. What a crash may
//! do to the file, and what damage is, is as for the storage's log: frames after the last sync may be missing or torn,
//! were never spoken of and are cut off; if a later frame says that a bad one was durable, the file is refused.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher as _, RandomState};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use florin_core::error::{Code, Error, Result};
use futures::AsyncWrite;
use parity_scale_codec::Decode;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use super::shared::Shared;
use super::wire::SignedUnit;

const MAGIC: [u8; 8] = *b"FLORINUN";
/// Magic, session, authority, epoch, committee id, salt, checksum.
const HEADER: usize = 80;
const FRAME_MAGIC: [u8; 4] = *b"UNIT";
/// Magic, length, durable length of the file, checksum.
const FRAME_HEADER: usize = 24;
const ALIGN: usize = 8;

/// Makes what was written to a file durable. A trait, so that tests can hold or fail it.
pub(super) trait Disk: Send + Sync + 'static {
    fn sync(&self, file: &File) -> io::Result<()>;
}

/// The real one.
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// Whose units, and of which session.
#[derive(Clone, Copy)]
pub(super) struct Owner {
    pub(super) committee_id: [u8; 32],
    pub(super) epoch: u64,
    pub(super) authority: u32,
    pub(super) session: u64,
}

impl Owner {
    fn header(&self, salt: u64) -> [u8; HEADER] {
        let mut header = Vec::with_capacity(HEADER);
        header.extend(MAGIC);
        for field in [self.session, u64::from(self.authority), self.epoch] {
            header.extend(field.to_le_bytes());
        }
        header.extend(self.committee_id);
        header.extend(salt.to_le_bytes());
        header.extend(xxh3_64_with_seed(&header, salt).to_le_bytes());
        header.try_into().expect("the fields' lengths add up")
    }
}

/// An open backup, and what was in it.
pub(super) struct Backup {
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
    salt: u64,
    /// Bytes of the file, all durable.
    pub(super) length: u64,
    /// The units' bytes one after another, as AlephBFT wants them.
    pub(super) units: Vec<u8>,
    /// Hashes of each, for AlephBFT hands loaded units out to be saved again.
    loaded: HashSet<u128>,
    /// The newest round of the authority's own units.
    pub(super) own_round: Option<u16>,
}

fn io_error(what: &str, path: &Path, error: io::Error) -> Error {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let code = match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => Code::StorageFull,
        _ => Code::StorageFailed,
    };
    Error::new(code, format!("{what} {}: {error}", path.display()))
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| io_error("sync folder", folder, e))
}

fn file_name(session: u64) -> String {
    format!("session-{session}.units")
}

/// Whether there is a backup of a session: without it an engine would begin the session anew.
pub fn has_backup(folder: &Path, session: u64) -> bool {
    folder.join(file_name(session)).is_file()
}

/// Removes the backups of sessions before `session`: closed ones, whose outcome is stored. Errors: `STORAGE_FAILED`.
pub fn remove_backups_below(folder: &Path, session: u64) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|e| io_error("read folder", folder, e))?,
    };
    for entry in entries {
        let entry = entry.map_err(|e| io_error("read folder", folder, e))?;
        let number = entry.file_name().to_str().and_then(|name| {
            let name = name.strip_suffix(".new").unwrap_or(name);
            name.strip_prefix("session-")?.strip_suffix(".units")?.parse::<u64>().ok()
        });
        if number.is_some_and(|number| number < session) {
            fs::remove_file(entry.path()).map_err(|e| io_error("remove", &entry.path(), e))?;
        }
    }
    sync_folder(folder)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

impl Backup {
    /// Opens the session's file, or makes it, durably, if there is none. Errors: `STORAGE_BUSY` if another engine has it
    /// open, `STORAGE_CORRUPT` if it is damaged or another's, `STORAGE_FULL`, `STORAGE_FAILED`.
    pub(super) fn open(folder: &Path, owner: &Owner) -> Result<Backup> {
        fs::create_dir_all(folder).map_err(|e| io_error("make folder", folder, e))?;
        let path = folder.join(file_name(owner.session));
        if !path.try_exists().map_err(|e| io_error("find", &path, e))? {
            let new = folder.join(format!("{}.new", file_name(owner.session)));
            // Random, so that no peer can craft data that passes for a frame.
            let salt = RandomState::new().build_hasher().finish();
            let make = || {
                let mut file = File::create(&new)?;
                file.write_all(&owner.header(salt))?;
                file.sync_all()?;
                fs::rename(&new, &path)
            };
            make().map_err(|e| io_error("make", &path, e))?;
            sync_folder(folder)?;
        }
        let open = OpenOptions::new().read(true).append(true).open(&path);
        let mut file = open.map_err(|e| io_error("open", &path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(Code::StorageBusy, format!("{} is in use by another engine", path.display())));
            }
            Err(TryLockError::Error(e)) => return Err(io_error("lock", &path, e)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| io_error("read", &path, e))?;
        let mut backup = Backup {
            path,
            file: Arc::new(file),
            salt: 0,
            length: 0,
            units: Vec::new(),
            loaded: HashSet::new(),
            own_round: None,
        };
        backup.load(&bytes, owner)?;
        let settle = || {
            backup.file.set_len(backup.length)?;
            backup.file.sync_all()
        };
        settle().map_err(|e| io_error("cut", &backup.path, e))?;
        Ok(backup)
    }

    fn corrupt(&self, what: String) -> Error {
        Error::new(Code::StorageCorrupt, format!("{}: {what}", self.path.display()))
    }

    fn load(&mut self, bytes: &[u8], owner: &Owner) -> Result<()> {
        if bytes.len() < HEADER || bytes[..8] != MAGIC {
            return Err(self.corrupt("expected a file of units, found something else".into()));
        }
        self.salt = u64_at(bytes, 64);
        if u64_at(bytes, 72) != xxh3_64_with_seed(&bytes[..72], self.salt) {
            return Err(self.corrupt("the header is damaged".into()));
        }
        if bytes[..HEADER] != owner.header(self.salt) {
            let what = format!("expected units of authority {} in session {}", owner.authority, owner.session);
            return Err(self.corrupt(format!("{what}, found another's, or of another committee or epoch")));
        }
        let (mut at, mut own_rounds) = (HEADER, HashSet::new());
        while let Some((_, unit, end)) = self.frame(bytes, at) {
            let Ok(SignedUnit { unit: read, .. }) = SignedUnit::decode(&mut &*unit) else {
                return Err(self.corrupt(format!("the unit at byte {at} can't be read")));
            };
            if read.creator == u64::from(owner.authority) {
                if !own_rounds.insert(read.round) {
                    return Err(self.corrupt(format!("two own units of round {}", read.round)));
                }
                self.own_round = self.own_round.max(Some(read.round));
            }
            self.loaded.insert(xxh3_128(unit));
            self.units.extend_from_slice(unit);
            at = end;
        }
        let rest = (at..bytes.len()).step_by(ALIGN);
        let was_durable = rest.filter_map(|later| self.frame(bytes, later)).any(|(durable, ..)| durable > at as u64);
        if was_durable {
            return Err(self.corrupt(format!("the unit at byte {at} is damaged, and was durable")));
        }
        self.length = at as u64;
        Ok(())
    }

    /// The whole frame at a place, if there is one: durable length, unit, end.
    fn frame<'a>(&self, bytes: &'a [u8], at: usize) -> Option<(u64, &'a [u8], usize)> {
        let header = bytes.get(at..at + FRAME_HEADER).filter(|h| h[..4] == FRAME_MAGIC)?;
        let length = u32::from_le_bytes(header[4..8].try_into().expect("4 bytes")) as usize;
        let from = at + FRAME_HEADER;
        let end = (from + length).next_multiple_of(ALIGN);
        let unit = bytes.get(from..from + length).filter(|_| end <= bytes.len())?;
        (checksum(&header[..16], unit, self.salt) == u64_at(header, 16)).then(|| (u64_at(header, 8), unit, end))
    }

    /// The rest of the backup for writing on.
    pub(super) fn saver(&mut self, shared: Arc<Shared>) -> Saver {
        let loaded = std::mem::take(&mut self.loaded);
        let (file, path) = (self.file.clone(), self.path.clone());
        Saver { file, path, salt: self.salt, loaded, unit: Vec::new(), shared }
    }
}

fn checksum(header: &[u8], unit: &[u8], salt: u64) -> u64 {
    xxh3_64_with_seed(unit, xxh3_64_with_seed(header, salt))
}

/// AlephBFT writes each unit here and flushes; only then does it use or send it.
pub(super) struct Saver {
    file: Arc<File>,
    path: PathBuf,
    salt: u64,
    loaded: HashSet<u128>,
    unit: Vec<u8>,
    shared: Arc<Shared>,
}

impl Saver {
    fn save(&mut self) -> Result<()> {
        let unit = std::mem::take(&mut self.unit);
        if unit.is_empty() {
            return Ok(());
        }
        let signed = SignedUnit::decode(&mut &*unit);
        let signed =
            signed.map_err(|e| Error::new(Code::StorageFailed, format!("AlephBFT saves something else: {e}")))?;
        if self.loaded.remove(&xxh3_128(&unit)) {
            self.shared.note_saved(signed);
            return Ok(());
        }
        let mut frame = Vec::with_capacity(FRAME_HEADER + unit.len() + ALIGN);
        frame.extend(FRAME_MAGIC);
        frame.extend((unit.len() as u32).to_le_bytes());
        frame.extend(self.shared.synced().to_le_bytes());
        let sum = checksum(&frame, &unit, self.salt);
        frame.extend(sum.to_le_bytes());
        frame.extend(&unit);
        frame.resize(frame.len().next_multiple_of(ALIGN), 0);
        let is_closed = self.shared.is_closed.lock().expect("no panic under this lock");
        if *is_closed {
            return Err(Error::new(Code::StorageFailed, "the engine has been stopped"));
        }
        (&*self.file).write_all(&frame).map_err(|e| io_error("write", &self.path, e))?;
        drop(is_closed);
        self.shared.note_saved(signed);
        // After the unit is noted: what is handed over from here on waits for it.
        self.shared.written.fetch_add(frame.len() as u64, Ordering::SeqCst);
        Ok(())
    }
}

impl AsyncWrite for Saver {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.unit.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.save().map_err(|e| {
            self.shared.fail(e.clone());
            io::Error::other(e)
        }))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Syncs when a message waits for what isn't, which is once a round or so; all that was written meanwhile shares the next
/// sync. Ends with the first error.
pub(super) async fn sync_loop(shared: Arc<Shared>, file: Arc<File>, path: PathBuf, disk: Arc<dyn Disk>) {
    loop {
        shared.unsynced.notified().await;
        let written = shared.written.load(Ordering::SeqCst);
        if written == shared.synced() {
            continue;
        }
        let (file, disk) = (file.clone(), disk.clone());
        match tokio::task::spawn_blocking(move || disk.sync(&file)).await {
            Ok(Ok(())) => shared.note_synced(written),
            Ok(Err(e)) => return shared.fail(io_error("sync", &path, e)),
            Err(e) => return shared.fail(Error::new(Code::StorageFailed, format!("sync {}: {e}", path.display()))),
        }
    }
}
