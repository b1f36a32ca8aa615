//! Key generation of e-cash in the log: items become the state of a run ([`crate::cash::dkg`]), and its keys, once they
//! are in use, stay for good.
//!
//! Runs are numbered from 1. A run begins with its first item; one that failed is followed by the next.

use std::sync::Arc;

use bytes::Bytes;

use super::step::{Object, Step, object_key};
use super::{OrderedLog, Took};
use crate::authority::state::{State, Table, corrupt};
use crate::cash::dkg::{Blob, Blobs, Ceremony, Params, Phase, PublicKeys};
use crate::committee::Committee;
use crate::error::Result;
use crate::limits::CASH_TIERS;
use crate::wire;

/// Key of a run's record.
pub fn ceremony_key(run: u64) -> Vec<u8> {
    object_key(Object::Ceremony, &[&run.to_be_bytes()])
}

/// Key of the number of the newest run.
pub fn newest_key() -> Vec<u8> {
    object_key(Object::Ceremony, &[])
}

/// Key of a larger record: kind, dealer, and part or receiver.
pub fn blob_key(run: u64, blob: Blob) -> Vec<u8> {
    let (kind, dealer, which) = match blob {
        Blob::Deal { dealer, chunk } => (0, dealer, chunk),
        Blob::Reveal { dealer, receiver } => (1, dealer, receiver),
    };
    object_key(Object::CeremonyBlob, &[&run.to_be_bytes(), &[kind], &dealer.to_be_bytes(), &which.to_be_bytes()])
}

/// Key of the keys in use, or of those that a run has come to.
pub fn keys_key(run: Option<u64>) -> Vec<u8> {
    object_key(Object::CashKeys, &[run.map(u64::to_be_bytes).as_ref().map_or(&[][..], |run| run)])
}

/// The larger records of a run, wherever objects are read.
pub struct RunBlobs<R> {
    /// The run.
    pub run: u64,
    /// Reads an object.
    pub read: R,
}

impl<R: Fn(&[u8]) -> Result<Option<Bytes>>> Blobs for RunBlobs<R> {
    fn blob(&self, key: Blob) -> Result<Option<Bytes>> {
        (self.read)(&blob_key(self.run, key))
    }
}

/// A run of a committee, which may be the first of its items.
pub fn params(committee: &Committee, run: u64) -> Result<Arc<Params>> {
    Params::fresh(committee, run, CASH_TIERS).map(Arc::new)
}

/// The newest run, or the first, not begun.
fn newest(committee: &Committee, read: impl Fn(&[u8]) -> Result<Option<Bytes>>) -> Result<Ceremony> {
    let run = match read(&newest_key())? {
        None => return Ok(Ceremony::new(params(committee, 1)?)),
        Some(run) => <[u8; 8]>::try_from(&run[..]).map(u64::from_be_bytes),
    };
    let run = run.map_err(|_| corrupt(Table::Objects, &newest_key(), "not the number of a run"))?;
    let record = read(&ceremony_key(run))?.ok_or_else(|| corrupt(Table::Objects, &ceremony_key(run), "missing"))?;
    Ceremony::load(params(committee, run)?, &record)
}

impl OrderedLog {
    pub(super) fn dkg_item(&self, item: &[u8], creator: u32, step: &mut Step<'_>) -> Result<Took> {
        let read = |key: &[u8]| step.get_bytes(key);
        let mut ceremony = newest(self.committee(), read)?;
        if ceremony.phase() == Phase::Failed {
            ceremony = Ceremony::new(params(self.committee(), ceremony.params().run() + 1)?);
        }
        let (run, before) = (ceremony.params().run(), ceremony.phase());
        let effects = ceremony.handle(creator, item, &RunBlobs { run, read })?;
        if !effects.changed {
            return Ok(Took::Nothing);
        }
        step.put_bytes(newest_key(), Bytes::copy_from_slice(&run.to_be_bytes()));
        step.put_bytes(ceremony_key(run), ceremony.encode());
        if let Some((blob, bytes)) = effects.blob {
            step.put_bytes(blob_key(run, blob), bytes);
        }
        if let Some(keys) = effects.keys {
            step.put_bytes(keys_key(Some(run)), keys.encode());
        }
        if ceremony.phase() == Phase::Active && before != Phase::Active {
            let key = keys_key(Some(run));
            let keys = step.get_bytes(&key)?.ok_or_else(|| corrupt(Table::Objects, &key, "missing"))?;
            step.delete(key);
            step.put_bytes(keys_key(None), keys);
        }
        Ok(if effects.fault.is_some() { Took::Caught } else { Took::Changed })
    }

    /// The newest run of the key generation, or the first, not begun.
    pub fn ceremony(&self, state: &dyn State) -> Result<Ceremony> {
        newest(self.committee(), |key| state.get(Table::Objects, key))
    }

    /// The keys in use.
    pub fn mint_keys(&self, state: &dyn State) -> Result<Option<PublicKeys>> {
        self.keys(state, keys_key(None))
    }

    /// The keys that a run has come to and that are not in use yet.
    pub fn closed_keys(&self, state: &dyn State, run: u64) -> Result<Option<PublicKeys>> {
        self.keys(state, keys_key(Some(run)))
    }

    fn keys(&self, state: &dyn State, key: Vec<u8>) -> Result<Option<PublicKeys>> {
        let keys = state.get(Table::Objects, &key)?.map(|keys| PublicKeys::decode(&keys));
        keys.transpose().map_err(|e| corrupt(Table::Objects, &key, &e.message))
    }

    /// The keys in use, and how far their generation is; all but whether this authority has its shares.
    pub fn cash_keys(&self, state: &dyn State) -> Result<wire::CashKeysReply> {
        let ceremony = self.ceremony(state)?;
        let begun = state.get(Table::Objects, &newest_key())?.is_some();
        Ok(wire::CashKeysReply {
            keys: state.get(Table::Objects, &keys_key(None))?.unwrap_or_default(),
            run: if begun { ceremony.params().run() } else { 0 },
            phase: ceremony.phase() as u32,
            missing: ceremony.waits_for(),
            caught: ceremony.found_out(),
            holds_share: false,
            tiers: ceremony.params().tiers() as u32,
        })
    }
}

/// The larger records of a run on disk.
pub fn blobs(state: &dyn State, run: u64) -> impl Blobs {
    RunBlobs { run, read: move |key: &[u8]| state.get(Table::Objects, key) }
}
