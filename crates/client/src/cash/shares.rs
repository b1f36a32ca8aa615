//! From the authorities' signature shares to notes.
//!
//! A share counts for nothing until the signature that it makes is verified against the tier's key, and a share that is
//! false is found and its authority named. For every note the first threshold of shares is tried; what others have sent is
//! looked at only if that fails.
//!
//! All of it is work on each note alone, but for the pairings of a batch, and is done on all cores. What comes out does not
//! depend on how many threads there are: a note has one true signature, and each share is true or false by itself.

use std::collections::BTreeSet;

use bytes::Bytes;
use florin_core::bearer::lock_nonce;
use florin_core::cash::blind::{BlindedNonce, Nonce, NoteSignature, SignatureShare};
use florin_core::cash::combine::{Combined, Request, combine_all};
use florin_core::cash::derive::NoteSecrets;
use florin_core::cash::mint_keys::MintKeys;
use florin_core::{Code, Error, Result};

use super::cores::{each, in_parts};
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

    /// Of all notes that an order asks for, in their order, on so many threads at most.
    pub fn all(threads: usize, secrets: &Secrets, made: &[Made]) -> Vec<Blind> {
        each(threads, made, |made| Blind::new(secrets, made.counter, made.tier, made.lock.as_ref()))
    }

    /// The same of own notes of these numbers and tiers.
    pub fn own(threads: usize, secrets: &Secrets, notes: &[(u64, u32)]) -> Vec<Blind> {
        each(threads, notes, |(counter, tier)| Blind::new(secrets, *counter, *tier, None))
    }

    /// The nonce of the note, if it is not locked.
    pub fn nonce(&self) -> Nonce {
        self.secrets.nonce()
    }

    /// What authorities get to sign.
    pub fn bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.blinded.to_bytes())
    }

    /// The note's secrets.
    pub fn into_secrets(self) -> NoteSecrets {
        self.secrets
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

/// By note, of so many: who gave which share, of what each authority gave for all of them.
pub fn by_note(shares: &[(usize, Vec<Bytes>)], notes: usize) -> Vec<Vec<(usize, Bytes)>> {
    let of_note = |i: usize| shares.iter().filter_map(move |(a, s)| Some((*a, s.get(i)?.clone())));
    (0..notes).map(|i| of_note(i).collect()).collect()
}

/// Makes notes of shares, on so many threads at most: for each note, what authorities gave. Errors: `BAD_KEY` for a tier without a
/// key; `UNKNOWN_AUTHORITY`, `DUPLICATE_SIGNER`.
pub fn unblind(threads: usize, keys: &MintKeys, asked: &[Blind], shares: &[Vec<(usize, Bytes)>]) -> Result<Unblinded> {
    let mut made = Unblinded { signatures: vec![None; asked.len()], ..Unblinded::default() };
    for all in [false, true] {
        let missing: Vec<usize> = (0..asked.len()).filter(|i| made.signatures[*i].is_none()).collect();
        if missing.is_empty() {
            break;
        }
        let parse = |i: &usize| parse(keys, &asked[*i], shares.get(*i).map_or(&[], Vec::as_slice), all);
        let mut requests = Vec::with_capacity(missing.len());
        for (i, parsed) in missing.iter().zip(each(threads, &missing, parse)) {
            let (request, liars) = parsed?;
            made.liars.extend(liars);
            requests.push((*i, request));
        }
        requests.iter().try_for_each(|(_, request)| request.check())?;
        for (i, combined, signature) in combine(threads, asked, requests)? {
            made.liars.extend(combined.liars.iter().map(|index| *index as usize - 1));
            made.signatures[i] = signature;
        }
    }
    Ok(made)
}

/// The shares of one note, either all or as many as are enough, and who gave what is no point of the group.
fn parse<'a>(
    keys: &'a MintKeys,
    asked: &Blind,
    shares: &[(usize, Bytes)],
    all: bool,
) -> Result<(Request<'a>, Vec<usize>)> {
    let keys = keys.shared(asked.tier).ok_or_else(|| no_tier(asked.tier))?;
    let enough = if all { usize::MAX } else { keys.threshold() as usize };
    let (mut parsed, mut liars) = (Vec::new(), Vec::new());
    for (authority, share) in shares.iter().take(enough) {
        match SignatureShare::parse(share) {
            Ok(share) => parsed.push((*authority as u32 + 1, share)),
            Err(_) => liars.push(*authority),
        }
    }
    Ok((Request { keys, blinded: asked.blinded, shares: parsed }, liars))
}

/// Combines the shares of these notes, in some order of the notes.
fn combine(
    threads: usize,
    asked: &[Blind],
    mut requests: Vec<(usize, Request<'_>)>,
) -> Result<Vec<(usize, Combined, Option<NoteSignature>)>> {
    // Each part has a batch of its own, and a batch a pairing for each tier: so the notes of a tier stay together.
    requests.sort_by_key(|(i, _)| asked[*i].tier);
    let (places, requests): (Vec<usize>, Vec<Request<'_>>) = requests.into_iter().unzip();
    let parts = in_parts(threads, requests.len(), |part| {
        let combined = combine_all(&requests[part.clone()])?;
        let unblind = |(i, combined): (&usize, Combined)| {
            let signature = combined.signature.map(|s| asked[*i].secrets.blinding().unblind(&s));
            (*i, combined, signature)
        };
        Ok(places[part].iter().zip(combined).map(unblind).collect::<Vec<_>>())
    });
    Ok(parts.into_iter().collect::<Result<Vec<_>>>()?.concat())
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
