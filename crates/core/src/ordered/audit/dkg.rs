//! Key generation: every run again, from its items in the units.

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::Audit;
use crate::cash::dkg::{Blob, Blobs, Ceremony, Phase, PublicKeys};
use crate::cash::mint_keys::MintKeys;
use crate::error::Result;
use crate::limits::CASH_TIERS;
use crate::ordered::dkg::{blob_key, ceremony_key, keys_key, newest_key, params};

/// The newest run, and the objects that the runs have come to.
#[derive(Default)]
pub(super) struct Runs {
    ceremony: Option<Ceremony>,
    blobs: Kept,
    objects: BTreeMap<Vec<u8>, Bytes>,
}

#[derive(Default)]
struct Kept(BTreeMap<Blob, Bytes>);

impl Blobs for Kept {
    fn blob(&self, key: Blob) -> Result<Option<Bytes>> {
        Ok(self.0.get(&key).cloned())
    }
}

impl Audit<'_> {
    pub(super) fn dkg_item(&mut self, creator: u32, item: &[u8], place: (u64, u32)) -> Result<()> {
        let runs = &mut self.books.runs;
        let mut ceremony = match runs.ceremony.take() {
            Some(run) if run.phase() == Phase::Failed => {
                runs.blobs.0.clear();
                Ceremony::new(params(self.log.committee(), run.params().run() + 1)?)
            }
            Some(run) => run,
            None => Ceremony::new(params(self.log.committee(), 1)?),
        };
        let run = ceremony.params().run();
        let handled = ceremony.handle(creator, item, &runs.blobs);
        match handled {
            Ok(effects) if effects.changed => {
                runs.objects.insert(newest_key(), Bytes::copy_from_slice(&run.to_be_bytes()));
                runs.objects.insert(ceremony_key(run), ceremony.encode());
                if let Some((blob, bytes)) = effects.blob {
                    runs.objects.insert(blob_key(run, blob), bytes.clone());
                    runs.blobs.0.insert(blob, bytes);
                }
                if let Some(keys) = effects.keys {
                    runs.objects.insert(keys_key(Some(run)), keys.encode());
                }
                if ceremony.phase() == Phase::Active
                    && let Some(keys) = runs.objects.remove(&keys_key(Some(run)))
                {
                    runs.objects.insert(keys_key(None), keys);
                }
            }
            Ok(_) => self.out.find(format!("unit {place:?}: key generation: expected what changes it, found nothing")),
            Err(e) => self.out.find(format!("unit {place:?}: key generation: {e}")),
        }
        self.books.runs.ceremony = Some(ceremony);
        Ok(())
    }

    /// An object of the key generation.
    pub(super) fn dkg_object(&mut self, key: &[u8], found: &Bytes) {
        let expected = self.books.runs.objects.remove(key).unwrap_or_default();
        let said = |bytes: &Bytes| format!("{} bytes with sha256 {}", bytes.len(), hex::encode(Sha256::digest(bytes)));
        self.out.expect(format!("key generation, object {}", hex::encode(key)), said(&expected), said(found));
        if key == keys_key(None) {
            self.keys(found);
        }
    }

    /// The keys in use: a quorum's shares of every tier make its key.
    fn keys(&mut self, keys: &[u8]) {
        let keys = PublicKeys::decode(keys).and_then(|keys| MintKeys::new(keys, None));
        let committee = self.log.committee().clone();
        match keys {
            Err(e) => self.out.find(format!("keys of e-cash: {e}")),
            Ok(keys) => {
                let of = |keys: &PublicKeys| (keys.threshold, keys.tiers.len(), keys.tiers[0].shares.len());
                let expected = (committee.quorum(), CASH_TIERS, committee.size());
                self.out.expect("keys of e-cash: threshold, tiers, holders", expected, of(keys.public()));
                let ceremony = self.books.runs.ceremony.as_ref();
                let hash = ceremony.and_then(Ceremony::keys_hash).map(hex::encode).unwrap_or_default();
                self.out.expect("keys of e-cash: hash", hash, hex::encode(keys.public().hash()));
            }
        }
    }

    /// What the runs have come to and no object says.
    pub(super) fn dkg_missing(&mut self) {
        let missing: Vec<String> = self.books.runs.objects.keys().take(1).map(hex::encode).collect();
        self.out.expect("key generation: objects that are missing", vec![], missing);
    }
}
