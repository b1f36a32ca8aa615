//! What every file of a wallet needs: private, never half written, one process at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use florin_core::{Code, Error, Result};

/// Held while a process uses a file; the operating system frees it when the process ends, however it ends.
/// It is a file of its own beside the locked one, which an atomic rewrite replaces. It is never removed:
/// another process may have opened it and be about to lock it.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone is not enough while a child that was just started still shares the file.
        let _ = self.0.unlock();
    }
}

impl Lock {
    /// Locks `<path>.lock`. `BUSY` if another process, or another place in this one, holds it.
    pub(crate) fn take(path: &Path) -> Result<Lock> {
        let path = beside(path, "lock");
        let file = private(OpenOptions::new().write(true).create(true).truncate(false))
            .open(&path)
            .map_err(|e| io("open", &path, &e))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(file)),
            Err(TryLockError::WouldBlock) => {
                Err(Error::new(Code::Busy, format!("another command uses this wallet ({} is locked)", path.display())))
            }
            Err(TryLockError::Error(e)) => Err(io("lock", &path, &e)),
        }
    }
}

/// `<path>.<extension>`: the file beside `path`.
pub(crate) fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".");
    name.push(extension);
    name.into()
}

/// The file that `path` leads to, which may not exist yet. A rename would replace a symbolic link, and two
/// paths to one file would have two locks. `BAD_FILE` if the folder does not exist.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let Some(name) = path.file_name() else {
                return Err(Error::expected(Code::BadFile, "path", "the name of a file", path.display()));
            };
            let folder = folder(path);
            match fs::canonicalize(folder) {
                Ok(folder) => Ok(folder.join(name)),
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    Err(Error::new(Code::BadFile, format!("there is no folder {}", folder.display())))
                }
                Err(e) => Err(io("find", folder, &e)),
            }
        }
        other => other.map_err(|e| io("find", path, &e)),
    }
}

/// Writes `bytes` to a new file beside `path` and makes them durable there. Only whoever holds the lock may.
pub(crate) fn stage(path: &Path, bytes: &[u8]) -> Result<PathBuf> {
    let staged = beside(path, "new");
    // Left by a crash, or planted: either way not to be written through.
    match fs::remove_file(&staged) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(io("remove", &staged, &e)),
        _ => {}
    }
    let written = private(OpenOptions::new().write(true).create_new(true))
        .open(&staged)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    if let Err(e) = written {
        // Without it, a full disk would stay full of our leavings.
        let _ = fs::remove_file(&staged);
        return Err(io("write", &staged, &e));
    }
    Ok(staged)
}

/// Puts a staged file in the place of `path`, durably.
pub(crate) fn publish(staged: &Path, path: &Path) -> Result<()> {
    fs::rename(staged, path).map_err(|e| io("replace", path, &e))?;
    sync_folder(path)
}

/// Makes the entry of `path` in its folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    let folder = folder(path);
    if cfg!(unix) {
        File::open(folder).and_then(|f| f.sync_all()).map_err(|e| io("sync", folder, &e))?;
    }
    Ok(())
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Only the owner may read or write a file created so.
pub(crate) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// `IO`, naming what was done to which file.
pub(crate) fn io(what: &str, path: &Path, cause: &std::io::Error) -> Error {
    Error::new(Code::Io, format!("cannot {what} {}: {cause}", path.display()))
}
