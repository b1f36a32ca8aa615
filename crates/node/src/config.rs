//! The authority file: private, one per operator. It names the committee file, the key, the folder, and
//! what to listen on.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use florin_core::authority::state::LOG;
use florin_core::committee::Committee;
use florin_core::signatures::AuthorityKey;
use florin_core::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::ordering::Pace;
use crate::storage::{ACCOUNTS_BYTES, Store, write_atomic};

/// MiB of accounts that a process keeps in memory unless its file says otherwise: about ten million.
pub const ACCOUNTS_MEMORY_MIB: u64 = (ACCOUNTS_BYTES >> 20) as u64;

/// The file as it is written.
#[derive(Serialize, Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct AuthorityFile {
    /// The committee file, relative to this one.
    pub committee: PathBuf,
    /// The 32-byte secret in hex, or `env:NAME`, or `file:PATH`.
    pub key: String,
    /// Data folder, relative to this file; one folder a shard is made in it.
    pub data: PathBuf,
    /// The genesis file, relative to this one, if the committee has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub genesis: Option<PathBuf>,
    /// `host:port` of `/metrics` and `/health`; none are served if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Host to bind instead of the one in the committee file (as `0.0.0.0` behind a NAT).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind: Option<String>,
    /// MiB of accounts kept in memory, over all shards of the process; [`ACCOUNTS_MEMORY_MIB`] if absent, none if 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounts_memory_mib: Option<u64>,
}

impl AuthorityFile {
    /// From the file's text. Errors: `BAD_CONFIG`.
    pub fn from_toml(text: &str) -> Result<AuthorityFile> {
        toml::from_str(text).map_err(|e| Error::new(Code::BadConfig, e.to_string()))
    }

    /// As text, for a file.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("plain fields serialize")
    }
}

impl std::fmt::Debug for AuthorityFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AuthorityFile of {}", self.data.display())
    }
}

/// A checked configuration.
pub struct Config {
    /// Its committee.
    pub committee: Arc<Committee>,
    /// Index in the committee.
    pub index: u32,
    /// Seed of the key.
    pub seed: Zeroizing<[u8; 32]>,
    /// Data folder.
    pub data: PathBuf,
    /// Genesis file.
    pub genesis: Option<PathBuf>,
    /// `host:port` for HTTP.
    pub http: Option<String>,
    /// Host to bind.
    pub bind: Option<String>,
    /// Bytes of accounts kept in memory, over all shards of the process.
    pub accounts_bytes: usize,
    /// How often the ordering engine creates units.
    pub pace: Pace,
}

impl Config {
    /// Reads and checks an authority file and the committee file it names.
    /// Errors: `BAD_FILE` if one can't be read, `BAD_CONFIG` with what is wrong in it.
    pub fn read(path: &Path) -> Result<Config> {
        let text = read(path)?;
        let file = AuthorityFile::from_toml(&text)
            .map_err(|e| Error::new(e.code, format!("{}: {}", path.display(), e.message)))?;
        let base = path.parent().unwrap_or(Path::new("."));
        let committee = read_committee(&base.join(&file.committee))?;
        let seed = secret(&file.key, base)?;
        let public = AuthorityKey::from_seed(*seed).public();
        let index = committee.index_of(&public).ok_or_else(|| {
            Error::expected(Code::BadConfig, "public key of this authority", "one of the committee file", public)
        })?;
        let mib = file.accounts_memory_mib.unwrap_or(ACCOUNTS_MEMORY_MIB);
        let accounts_bytes =
            mib.checked_mul(1 << 20).and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(|| {
                Error::expected(Code::BadConfig, "accounts_memory_mib", "MiB that a machine can have", mib)
            })?;
        Ok(Config {
            committee: Arc::new(committee),
            index,
            seed,
            data: base.join(&file.data),
            genesis: file.genesis.map(|g| base.join(g)),
            http: file.http,
            bind: file.bind,
            accounts_bytes,
            pace: Pace::default(),
        })
    }

    /// The signing key.
    pub fn key(&self) -> AuthorityKey {
        AuthorityKey::from_seed(*self.seed)
    }

    /// The authority's name.
    pub fn name(&self) -> &str {
        &self.committee.authorities[self.index as usize].name
    }

    /// `host:port` to listen on for a shard.
    pub fn listen_address(&self, shard: u32) -> Result<String> {
        let public = &self.committee.authorities[self.index as usize].addresses[shard as usize];
        let (host, port) = public
            .rsplit_once(':')
            .ok_or_else(|| Error::expected(Code::BadConfig, "address of a shard", "host:port", public))?;
        Ok(format!("{}:{port}", self.bind.as_deref().unwrap_or(host)))
    }

    /// Folder of a shard, or of the log.
    pub fn shard_dir(&self, shard: u32) -> PathBuf {
        self.data.join(folder_name(shard))
    }

    /// Whether the folder was made for an authority that had voted before and lost its old one.
    pub fn is_rebuilt(&self) -> bool {
        self.data.join(REBUILT_MARK).exists()
    }

    /// Folder of the ordering engine's backups.
    pub fn ordering_dir(&self) -> PathBuf {
        self.data.join("ordering")
    }
}

fn folder_name(shard: u32) -> String {
    if shard == LOG { "log".into() } else { format!("shard-{shard}") }
}

/// File in a data folder that says: this is where this authority's votes are kept.
const DATA_MARK: &str = "florin-data";

/// Makes a data folder for an authority that has never voted.
pub fn make_data(dir: &Path) -> Result<()> {
    let failed = |e: std::io::Error| Error::new(Code::Io, format!("data folder {}: {e}", dir.display()));
    std::fs::create_dir_all(dir).map_err(failed)?;
    std::fs::write(
        dir.join(DATA_MARK),
        "An authority's votes. Never replace this folder by an older or an empty one.\n",
    )
    .map_err(failed)
}

/// File in the data folder of an authority that lost its old one.
const REBUILT_MARK: &str = "rebuilt";

/// Makes a data folder for an authority that has voted before, and whose votes are lost: it takes everything from its
/// peers, settles, acknowledges and orders, but votes no more, as it could contradict a vote that it forgot.
/// Errors: `ALREADY_EXISTS` if there is a folder; `IO`.
pub fn rebuild_data(dir: &Path) -> Result<()> {
    if dir.join(DATA_MARK).exists() {
        let message = format!("data folder {} holds an authority; nothing is rebuilt over it", dir.display());
        return Err(Error::new(Code::AlreadyExists, message));
    }
    let failed = |e: std::io::Error| Error::new(Code::Io, format!("data folder {}: {e}", dir.display()));
    std::fs::create_dir_all(dir).map_err(failed)?;
    let text = "The votes of this authority before it was rebuilt are lost, so it votes for nothing in this epoch.\n";
    // Before the mark of the folder: without this file it would be one that has never voted.
    write_atomic(dir, REBUILT_MARK, text.as_bytes())?;
    make_data(dir)
}

/// Refuses a folder that nobody made for this: a disk that is not mounted must not look like an authority
/// that has never voted. Errors: `BAD_CONFIG`.
pub fn check_data(dir: &Path) -> Result<()> {
    if dir.join(DATA_MARK).is_file() {
        return Ok(());
    }
    let message = format!(
        "data folder {}: expected the file {DATA_MARK} in it, found none. Is its disk mounted? \
         An authority that has never voted starts with --create",
        dir.display()
    );
    Err(Error::new(Code::BadConfig, message))
}

/// Opens the folder of a shard, or of the log, and makes it the first time only. The data folder keeps a file `shard-N.made` from then on,
/// so that a lost folder (a disk of its own, an `rm`) is not taken for a shard that has never voted.
///
/// Errors: `BAD_CONFIG` if the folder was made and is gone; [`Store::open`]'s; `IO`.
pub fn open_shard(config: &Config, shard: u32) -> Result<Store> {
    let name = folder_name(shard);
    let (dir, mark) = (config.shard_dir(shard), config.data.join(format!("{name}.made")));
    let failed = |e: std::io::Error| Error::new(Code::Io, format!("{}: {e}", mark.display()));
    let open = |create| Store::open(&dir, shard, *config.committee.id(), config.index, create);
    let gone = || {
        let message = format!(
            "the folder {name} is gone or not complete ({}): an authority that forgot its votes must not \
             vote. Is its disk mounted? See docs/operations.md",
            dir.display()
        );
        Error::new(Code::BadConfig, message)
    };
    if mark.try_exists().map_err(failed)? {
        // Without it the store would begin anew, whatever else is there.
        if !dir.join("checkpoint").try_exists().map_err(failed)? {
            return Err(gone());
        }
        return open(false).map_err(|e| if e.code == Code::BadFile { gone() } else { e });
    }
    let store = open(true)?;
    store.sync()?;
    // Before the first vote can be asked for.
    let write = || {
        let mut file = File::create(&mark)?;
        file.write_all(b"The folder of this shard was made. Never remove this file.\n")?;
        file.sync_all()?;
        File::open(&config.data)?.sync_all()
    };
    write().map_err(failed)?;
    Ok(store)
}

/// Reads a committee file.
pub fn read_committee(path: &Path) -> Result<Committee> {
    Committee::from_toml(&read(path)?).map_err(|e| Error::new(e.code, format!("{}: {}", path.display(), e.message)))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::new(Code::BadFile, format!("{}: {e}", path.display())))
}

/// A secret given as hex, `env:NAME` or `file:PATH` (relative to `base`).
pub fn secret(text: &str, base: &Path) -> Result<Zeroizing<[u8; 32]>> {
    let found = if let Some(name) = text.strip_prefix("env:") {
        std::env::var(name).map_err(|_| Error::new(Code::BadConfig, format!("key: the environment has no {name}")))?
    } else if let Some(path) = text.strip_prefix("file:") {
        read(&base.join(path))?
    } else {
        text.to_owned()
    };
    let found = Zeroizing::new(found);
    let mut seed = Zeroizing::new([0; 32]);
    hex::decode_to_slice(found.trim(), &mut seed[..]).map_err(|e| {
        Error::new(
            Code::BadConfig,
            format!("key: expected 64 hex digits, or env: or file:, found something else ({e})"),
        )
    })?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use florin_core::testing::TestCommittee;

    use super::*;

    /// Whatever is lost of a shard's folder, the authority does not start as one that has never voted.
    #[test]
    fn a_lost_shard_is_never_made_again() {
        let dir = tempfile::TempDir::new().unwrap();
        let (committee, _) = TestCommittee::default().build();
        let config = Config {
            committee,
            index: 0,
            seed: Zeroizing::new([0; 32]),
            data: dir.path().join("data"),
            genesis: None,
            http: None,
            bind: None,
            accounts_bytes: ACCOUNTS_BYTES,
            pace: Pace::default(),
        };
        assert_eq!(check_data(&config.data).unwrap_err().code, Code::BadConfig);
        make_data(&config.data).unwrap();
        let id = open_shard(&config, 0).unwrap().identity();
        assert_eq!(open_shard(&config, 0).unwrap().identity(), id);
        let folder = config.shard_dir(0);

        // One made before there were such files, or by a start that a crash cut off, is taken as it is.
        std::fs::remove_file(config.data.join("shard-0.made")).unwrap();
        drop(open_shard(&config, 0).unwrap());

        let refused = |what: &str| {
            make_data(&config.data).unwrap();
            let error = open_shard(&config, 0).map(drop).unwrap_err();
            assert_eq!(error.code, Code::BadConfig, "{what}: {error}");
            assert!(error.message.contains("docs/operations.md"), "{what}: {error}");
        };
        std::fs::rename(folder.join("checkpoint"), dir.path().join("checkpoint")).unwrap();
        refused("no checkpoint");
        std::fs::rename(dir.path().join("checkpoint"), folder.join("checkpoint")).unwrap();
        drop(open_shard(&config, 0).unwrap());
        std::fs::rename(&folder, dir.path().join("elsewhere")).unwrap();
        refused("no folder");
        std::fs::create_dir(&folder).unwrap();
        refused("an empty folder");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        std::fs::remove_dir(&folder).unwrap();
        std::fs::rename(dir.path().join("elsewhere"), &folder).unwrap();
        drop(open_shard(&config, 0).unwrap());
        // Another shard is made when it is first run.
        drop(open_shard(&config, 1).unwrap());
    }
}
