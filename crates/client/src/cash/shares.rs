//! From the authorities' signature shares to notes.
//!
//! A share counts for nothing until the signature that it makes is verified against the tier's key, and a share that is
//! false is found and its authority named. For every note the first threshold of shares is tried; what others have sent is
//! looked at only if that fails.

use std::collections::BTreeSet;

use bytes::Bytes;
use florin_core::bearer::lock_nonce;
use florin_core::cash::blind::{BlindedNonce, Nonce, NoteSignature, SignatureShare};
use florin_core::cash::combine::{Request, combine_all};
use florin_core::cash::derive::NoteSecrets;
use florin_core::cash::mint_keys::MintKeys;
use florin_core::{Code, Error, Result};

use super::records::{Hex32, Lock, Made};
use super::store::Secrets;

/// A note that was asked for, with what takes the blinding out again.
pub struct Blind {
    /// Its tier.
    pub tier: u32,
    /// What the authorities sign.
    pub blinded: BlindedNonce,
    secrets: NoteSecrets,
}

impl Blind {
    /// The secrets of note `counter`, whose nonce is that of `lock` if there is one.
    pub fn new(secrets: &Secrets, counter: u64, tier: u32, lock: Option<&Lock>) -> Blind {
        let secrets = secrets.notes.note(counter);
        let blinded = match lock {
            Some(lock) => lock_nonce(&lock.wire()).blind(secrets.blinding()),
            None => secrets.blinded(),
        };
        Blind { tier, blinded, secrets }
    }

    /// Of a note that an order asks for.
    pub fn of(secrets: &Secrets, made: &Made) -> Blind {
        Blind::new(secrets, made.counter, made.tier, made.lock.as_ref())
    }

    /// The nonce of the note, if it is not locked.
    pub fn nonce(&self) -> Nonce {
        self.secrets.nonce()
    }

    /// What authorities get to sign.
    pub fn bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.blinded.to_bytes())
    }
}

/// What shares gave.
#[derive(Debug, Default)]
pub struct Unblinded {
    /// For each note its signature; `None` where too few true shares came.
    pub signatures: Vec<Option<NoteSignature>>,
    /// Authorities that gave false shares.
    pub liars: BTreeSet<usize>,
}

/// Makes notes of shares: for each note, what authorities gave. Errors: `BAD_KEY` for a tier without a key.
pub fn unblind(keys: &MintKeys, asked: &[Blind], shares: &[Vec<(usize, Bytes)>]) -> Result<Unblinded> {
    let mut made = Unblinded { signatures: vec![None; asked.len()], ..Unblinded::default() };
    for all in [false, true] {
        let missing: Vec<usize> = (0..asked.len()).filter(|i| made.signatures[*i].is_none()).collect();
        if missing.is_empty() {
            break;
        }
        let mut requests = Vec::with_capacity(missing.len());
        for i in &missing {
            let keys = keys.shared(asked[*i].tier).ok_or_else(|| no_tier(asked[*i].tier))?;
            let enough = if all { usize::MAX } else { keys.threshold() as usize };
            let mut parsed = Vec::new();
            for (authority, share) in shares.get(*i).into_iter().flatten().take(enough) {
                match SignatureShare::parse(share) {
                    Ok(share) => parsed.push((*authority as u32 + 1, share)),
                    Err(_) => drop(made.liars.insert(*authority)),
                }
            }
            requests.push(Request { keys, blinded: asked[*i].blinded, shares: parsed });
        }
        for (i, combined) in missing.iter().zip(combine_all(&requests)?) {
            made.liars.extend(combined.liars.iter().map(|index| *index as usize - 1));
            made.signatures[*i] = combined.signature.map(|s| asked[*i].secrets.blinding().unblind(&s));
        }
    }
    Ok(made)
}

fn no_tier(tier: u32) -> Error {
    Error::new(Code::BadKey, format!("the committee has no key for notes of tier {tier}"))
}

/// The nonce that a made note has. (In the journal it is kept, so that looking needs no seed.)
pub fn nonce_of(blind: &Blind, lock: Option<&Lock>) -> Hex32 {
    match lock {
        Some(lock) => lock_nonce(&lock.wire()).into(),
        None => blind.nonce().into(),
    }
}

#[cfg(test)]
#[path = "shares_tests.rs"]
pub(super) mod tests;
