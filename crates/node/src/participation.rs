//! Which sessions of the ordering engine this authority may take part in, and whether it may vote.
//!
//! An authority must never make two units for one round, so the engine may start in a session only with the backup of
//! all units it made there. Two small files in the data folder see to it that a lost backup, or a lost folder, is not
//! taken for one that never was: `joined-session`, the newest session that the engine was started in, and
//! `join-session`, the first that a rebuilt authority may take part in.

use std::path::{Path, PathBuf};

use florin_core::{Code, Error, Result};

use crate::config::Config;
use crate::ordering::has_backup;
use crate::storage::write_atomic;

const JOINED: &str = "joined-session";
const FROM: &str = "join-session";

/// What the files say.
pub struct Participation {
    data: PathBuf,
    ordering: PathBuf,
    joined: Option<u64>,
    from: Option<u64>,
    rebuilt: bool,
}

impl Participation {
    /// Reads them. Errors: `IO`, `BAD_CONFIG` if one holds no number.
    pub fn read(config: &Config) -> Result<Participation> {
        Ok(Participation {
            joined: number(&config.data.join(JOINED))?,
            from: number(&config.data.join(FROM))?,
            rebuilt: config.is_rebuilt(),
            data: config.data.clone(),
            ordering: config.ordering_dir(),
        })
    }

    /// Whether the first session is still to be found out: peers must say how far the old machine can have been.
    pub fn is_unknown(&self) -> bool {
        self.rebuilt && self.from.is_none()
    }

    /// From this session on it takes part.
    pub fn start_from(&mut self, session: u64) -> Result<()> {
        self.write(FROM, session)?;
        self.from = Some(session);
        Ok(())
    }

    /// Whether it may take part in a session.
    pub fn may_join(&self, session: u64) -> bool {
        let known = !self.is_unknown() && self.from.is_none_or(|from| session >= from);
        known && (self.joined.is_none_or(|joined| session > joined) || has_backup(&self.ordering, session))
    }

    /// It is about to take part: durable before its first unit.
    pub fn join(&mut self, session: u64) -> Result<()> {
        if self.joined.is_none_or(|joined| session > joined) {
            self.write(JOINED, session)?;
            self.joined = Some(session);
        }
        Ok(())
    }

    fn write(&self, name: &str, session: u64) -> Result<()> {
        write_atomic(&self.data, name, format!("{session}\n").as_bytes())
    }
}

fn number(file: &Path) -> Result<Option<u64>> {
    let failed = |what: String| Error::new(Code::BadConfig, format!("{}: {what}", file.display()));
    match std::fs::read_to_string(file) {
        Ok(text) => match text.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(failed(format!("expected the number of a session, found {text:?}"))),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::new(Code::Io, format!("{}: {e}", file.display()))),
    }
}

#[cfg(test)]
mod tests {
    use florin_core::testing::TestCommittee;
    use zeroize::Zeroizing;

    use super::*;
    use crate::config::{make_data, rebuild_data};

    fn config(dir: &Path) -> Config {
        let (committee, _) = TestCommittee::default().build();
        let data = dir.join("data");
        Config {
            committee,
            index: 0,
            seed: Zeroizing::new([0; 32]),
            data,
            genesis: None,
            http: None,
            bind: None,
            accounts_bytes: 0,
            pace: crate::ordering::Pace::default(),
        }
    }

    #[test]
    fn a_session_whose_backup_is_lost_goes_on_without_us() {
        let dir = tempfile::TempDir::new().unwrap();
        let config = config(dir.path());
        make_data(&config.data).unwrap();
        let mut new = Participation::read(&config).unwrap();
        assert!(new.may_join(0));
        new.join(3).unwrap();
        let again = Participation::read(&config).unwrap();
        assert!(!again.may_join(2) && !again.may_join(3) && again.may_join(4));
        std::fs::create_dir(config.ordering_dir()).unwrap();
        std::fs::write(config.ordering_dir().join("session-3.units"), "").unwrap();
        assert!(again.may_join(3));
        std::fs::write(config.data.join(JOINED), "three").unwrap();
        assert_eq!(Participation::read(&config).err().map(|e| e.code), Some(Code::BadConfig));
    }

    #[test]
    fn a_rebuilt_authority_waits_until_its_peers_have_spoken() {
        let dir = tempfile::TempDir::new().unwrap();
        let config = config(dir.path());
        rebuild_data(&config.data).unwrap();
        let mut rebuilt = Participation::read(&config).unwrap();
        assert!(rebuilt.is_unknown() && !rebuilt.may_join(1_000));
        rebuilt.start_from(7).unwrap();
        let again = Participation::read(&config).unwrap();
        assert!(!again.is_unknown() && !again.may_join(6) && again.may_join(7));
        // A folder that holds votes is never rebuilt over.
        assert_eq!(rebuild_data(&config.data).unwrap_err().code, Code::AlreadyExists);
    }
}
