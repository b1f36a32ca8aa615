//! A dealer of keys, for tests and benchmarks: it knows all secrets. Real keys are made without one.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha512};

use super::blind::{KeyShare, NoteSignature, SignatureShare, TierKey};
use super::combine::{SharedKey, combine};
use super::curve::{G2, Scalar};
use super::derive::{CashSeed, NoteSecrets};
use super::dkg::{KeyShares, PublicKeys, TierKeys};
use super::mint_keys::MintKeys;
use crate::bearer::{NoteAsked, Spend};
use crate::wire;

/// A tier's key and its shares, by a polynomial whose coefficients come from `label`.
pub fn deal(threshold: u32, n: u32, label: &str) -> (SharedKey, Vec<KeyShare>) {
    let coefficients: Vec<Scalar> = (0..threshold).map(|k| scalar(&format!("{label}/{k}"))).collect();
    let at = |x: u64| {
        let x = Scalar::from_u64(x);
        coefficients.iter().rev().fold(Scalar::zero(), |sum, c| sum.mul(&x).add(c))
    };
    let shares: Vec<KeyShare> =
        (1..=n).map(|i| KeyShare::new(i, at(i.into())).expect("a hash is not of 0 there")).collect();
    let key = TierKey::new(G2::generator().mul(&at(0))).expect("a hash is not 0");
    let public = shares.iter().map(KeyShare::public).collect();
    (SharedKey::new(threshold, key, public).expect("shares of one polynomial"), shares)
}

/// The scalar of a text.
pub fn scalar(text: &str) -> Scalar {
    Scalar::from_wide(&Sha512::digest(text).into())
}

/// The keys of a committee of `n`, as each authority has them.
pub fn mint(n: u32, tiers: usize) -> Vec<Arc<MintKeys>> {
    let threshold = n - (n - 1) / 3;
    let all: Vec<_> = (0..tiers).map(|tier| deal(threshold, n, &format!("tier {tier}"))).collect();
    let public = all.iter().map(|(shared, _)| TierKeys {
        key: *shared.key().point(),
        shares: shared.shares().iter().map(|share| *share.point()).collect(),
    });
    let public = PublicKeys { threshold: threshold as usize, tiers: public.collect() };
    let own = |i: usize| {
        let secret = |share: &KeyShare| Scalar::from_bytes(&share.secret()).expect("a scalar's own bytes");
        KeyShares { index: i as u32, tiers: all.iter().map(|(_, shares)| secret(&shares[i])).collect() }
    };
    let keys = |i| MintKeys::new(public.clone(), Some(own(i))).expect("keys that belong together");
    (0..n as usize).map(|i| Arc::new(keys(i))).collect()
}

/// Who has notes.
pub struct Purse {
    seed: CashSeed,
    next: u64,
    keys: Arc<MintKeys>,
}

/// A note that was asked for.
pub struct Asked {
    /// Its tier.
    pub tier: u32,
    /// What is known of it alone here.
    pub secrets: Arc<NoteSecrets>,
}

/// A note.
#[derive(Clone)]
pub struct Note {
    /// Its tier.
    pub tier: u32,
    /// What spends it.
    pub secrets: Arc<NoteSecrets>,
    /// What makes it a note.
    pub signature: NoteSignature,
    /// How often the log has freed it.
    pub recoveries: u32,
}

impl Asked {
    /// As it stands in an order.
    pub fn output(&self) -> wire::Output {
        let request = NoteAsked::request(self.tier, &self.secrets.blinded());
        wire::Output { kind: Some(wire::output::Kind::Note(request)) }
    }
}

impl Note {
    /// As an order spends it.
    pub fn spend(&self) -> Spend {
        let nonce = Bytes::copy_from_slice(&self.secrets.nonce().0);
        let secrets = self.secrets.clone();
        Spend {
            input: wire::NoteInput { tier: self.tier, nonce, recoveries: self.recoveries, ..Default::default() },
            signature: self.signature.to_bytes(),
            sign: Box::new(move |message| secrets.sign(message)),
        }
    }
}

impl Purse {
    /// A purse with a seed from a number.
    pub fn new(number: u64, network_id: u64, keys: Arc<MintKeys>) -> Purse {
        let mut secret = [7; 32];
        secret[..8].copy_from_slice(&number.to_be_bytes());
        Purse { seed: CashSeed::new(&secret, network_id), next: 0, keys }
    }

    /// New notes to ask for.
    pub fn ask(&mut self, tiers: &[u32]) -> Vec<Asked> {
        let mut ask = |tier: &u32| {
            self.next += 1;
            Asked { tier: *tier, secrets: Arc::new(self.seed.note(self.next)) }
        };
        tiers.iter().map(&mut ask).collect()
    }

    /// Notes of what authorities answered, by their index. `None` for those that too few answered rightly.
    pub fn take(&self, asked: &[Asked], shares: &[(u32, Vec<Bytes>)]) -> Vec<Option<Note>> {
        let of = |(place, asked): (usize, &Asked)| {
            let parsed = shares.iter().filter_map(|(authority, shares)| {
                Some((authority + 1, SignatureShare::parse(shares.get(place)?).ok()?))
            });
            let shared = self.keys.shared(asked.tier)?;
            let combined = combine(shared, &asked.secrets.blinded(), &parsed.collect::<Vec<_>>()).ok()?;
            let signature = asked.secrets.blinding().unblind(&combined.signature?);
            Some(Note { tier: asked.tier, secrets: asked.secrets.clone(), signature, recoveries: 0 })
        };
        asked.iter().enumerate().map(of).collect()
    }
}
