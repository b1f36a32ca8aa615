//! The folder of a shard: whose it is, who holds it, how far its log is in the trees.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use florin_core::authority::state::Table;
use florin_core::error::{Code, Error, Result};
use xxhash_rust::xxh3::xxh3_64;

/// Version of everything in the folder. A newer one is refused, whatever changed.
pub const FORMAT: u32 = 3;
const IDENTITY: &str = "florin-shard.toml";
const CHECKPOINT: &str = "checkpoint";
const LOCK: &str = "lock";

/// Whose folder it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Id of the committee.
    pub committee_id: [u8; 32],
    /// Index of the authority in the committee file.
    pub authority: u32,
    /// Shard of the authority.
    pub shard: u32,
}

/// An I/O error with what was tried.
pub(crate) fn io_error(what: &str, path: &Path, error: io::Error) -> Error {
    use io::ErrorKind::{FileTooLarge, InvalidData, QuotaExceeded, StorageFull, UnexpectedEof};
    let code = match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => Code::StorageFull,
        UnexpectedEof | InvalidData => Code::StorageCorrupt,
        _ => Code::StorageFailed,
    };
    Error::new(code, format!("{what} {}: {error}", path.display()))
}

/// Makes names in a folder durable.
pub(super) fn sync_folder(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|f| f.sync_all()).map_err(|e| io_error("sync folder", dir, e))
}

/// Writes a file so that after a crash it is there with this content or not at all.
pub(crate) fn write_atomic(dir: &Path, name: &str, content: &[u8]) -> Result<()> {
    write_mode(dir, name, content, 0o666)
}

/// The same, for the owner's eyes only.
pub(crate) fn write_secret(dir: &Path, name: &str, content: &[u8]) -> Result<()> {
    write_mode(dir, name, content, 0o600)
}

fn write_mode(dir: &Path, name: &str, content: &[u8], mode: u32) -> Result<()> {
    let (path, new) = (dir.join(name), dir.join(format!("{name}.new")));
    let write = || {
        // What a crash has left may have another mode.
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, &path)
    };
    write().map_err(|e| io_error("write", &path, e))?;
    sync_folder(dir)
}

/// Overwrites a secret and removes it. Its name goes first: a crash leaves the whole secret under its name or none, and
/// what it leaves under the other one is for [`finish_erase`].
pub(crate) fn erase(dir: &Path, name: &str) -> Result<()> {
    let path = dir.join(name);
    match fs::rename(&path, erased(dir, name)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error("erase", &path, e)),
        _ => sync_folder(dir)?,
    }
    finish_erase(dir, name)
}

/// Ends an [`erase`] that a crash has cut short, if there was one.
pub(crate) fn finish_erase(dir: &Path, name: &str) -> Result<()> {
    let path = erased(dir, name);
    let write = || {
        let mut file = OpenOptions::new().write(true).open(&path)?;
        let length = file.metadata()?.len();
        file.write_all(&vec![0; length as usize])?;
        file.sync_all()?;
        fs::remove_file(&path)
    };
    match write() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io_error("erase", &path, e)),
        Ok(()) => sync_folder(dir),
    }
}

fn erased(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.erased"))
}

/// Reads a file; `None` if there is none.
fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_error("read", path, e)),
    }
}

/// Takes the folder for this process until the file is dropped; the system lets go of it after a crash.
pub(super) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = open.map_err(|e| io_error("open", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Error::new(Code::StorageBusy, format!("{} is in use by another process", dir.display())))
        }
        Err(TryLockError::Error(e)) => Err(io_error("lock", &path, e)),
    }
}

/// Writes down whose folder it is.
pub(super) fn write_identity(dir: &Path, identity: &Identity) -> Result<()> {
    let tables: Vec<_> = Table::ALL.iter().map(|t| format!("\"{}\"", t.name())).collect();
    let text = format!(
        "# A shard of a Florin authority. Written once; don't edit.\n\
         format = {FORMAT}\ncommittee = \"{}\"\nauthority = {}\nshard = {}\ntables = [{}]\n",
        hex::encode(identity.committee_id),
        identity.authority,
        identity.shard,
        tables.join(", "),
    );
    write_atomic(dir, IDENTITY, text.as_bytes())?;
    // Its name and those of folders made for it; one that can't be opened was there before.
    let whole = dir.canonicalize().map_err(|e| io_error("find", dir, e))?;
    whole.ancestors().skip(1).for_each(|above| drop(sync_folder(above)));
    Ok(())
}

/// Whose folder it is; `None` if it is no shard's. Errors: `STORAGE_VERSION`, `STORAGE_CORRUPT`.
pub(super) fn read_identity(dir: &Path) -> Result<Option<Identity>> {
    let path = dir.join(IDENTITY);
    let Some(text) = read(&path)? else { return Ok(None) };
    let corrupt = |what: &str| Error::new(Code::StorageCorrupt, format!("{}: {what}", path.display()));
    let file: toml::Table = text.parse().map_err(|_| corrupt("not TOML"))?;
    let number = |name: &str| {
        let value = file.get(name).and_then(|v| v.as_integer()).and_then(|v| u32::try_from(v).ok());
        value.ok_or_else(|| corrupt(&format!("no valid `{name}`")))
    };
    // First, as a newer format may lack all the rest.
    let format = number("format")?;
    if format != FORMAT {
        return Err(Error::expected(Code::StorageVersion, "format of the folder", FORMAT, format));
    }
    let names: Vec<_> = file.get("tables").and_then(|v| v.as_array()).into_iter().flatten().collect();
    if !names.iter().map(|n| n.as_str()).eq(Table::ALL.iter().map(|t| Some(t.name()))) {
        return Err(corrupt("other tables than this format has"));
    }
    let mut committee_id = [0; 32];
    let committee = file.get("committee").and_then(|v| v.as_str()).unwrap_or_default();
    hex::decode_to_slice(committee, &mut committee_id).map_err(|_| corrupt("no valid `committee`"))?;
    Ok(Some(Identity { committee_id, authority: number("authority")?, shard: number("shard")? }))
}

/// Refuses a folder that is another's.
pub(super) fn check_identity(dir: &Path, expected: &Identity, found: &Identity) -> Result<()> {
    let differ = |what: &str, expected: String, found: String| {
        if expected == found {
            return Ok(());
        }
        let what = format!("{} belongs to another {what}", dir.display());
        Err(Error::expected(Code::StorageCorrupt, &what, expected, found))
    };
    differ("committee", hex::encode(expected.committee_id), hex::encode(found.committee_id))?;
    differ("authority", expected.authority.to_string(), found.authority.to_string())?;
    differ("shard", expected.shard.to_string(), found.shard.to_string())
}

/// Notes that the trees hold all of the log up to this segment.
pub(super) fn write_checkpoint(dir: &Path, segment: u64) -> Result<()> {
    let text = format!("flushed {segment}");
    write_atomic(dir, CHECKPOINT, format!("{text} {:016x}\n", xxh3_64(text.as_bytes())).as_bytes())
}

/// The last segment that the trees hold; `None` if the folder was never completely made.
pub(super) fn read_checkpoint(dir: &Path) -> Result<Option<u64>> {
    let path = dir.join(CHECKPOINT);
    let Some(text) = read(&path)? else { return Ok(None) };
    let parsed = text.trim_end().rsplit_once(' ').and_then(|(text, sum)| {
        let intact = sum == format!("{:016x}", xxh3_64(text.as_bytes()));
        text.strip_prefix("flushed ").filter(|_| intact)?.parse().ok()
    });
    match parsed {
        Some(segment) => Ok(Some(segment)),
        None => Err(Error::new(Code::StorageCorrupt, format!("{}: damaged", path.display()))),
    }
}

/// Bytes that a folder and all in it take on disk.
pub(super) fn disk_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(m) if m.is_dir() => disk_bytes(&entry.path()),
        Ok(m) => m.len(),
        Err(_) => 0, // Deleted meanwhile.
    };
    entries.flatten().map(size).sum()
}
