//! The wallet's side: notes of what authorities answer, and all of them again from the seed.

use std::hint::black_box;

use bytes::Bytes;
use florin_core::Result;
use florin_core::cash::blind::{BlindedNonce, SignatureShare};
use florin_core::cash::combine::{Request, combine_all};
use florin_core::cash::derive::{CashSeed, NoteSecrets};
use florin_core::cash::mint_keys::MintKeys;
use florin_core::cash::testing::{Asked, Note, deal};
use florin_core::limits::NOTES_PER_QUERY_MAX;
use florin_node::meter::thread_cpu_ns;
use serde_json::{Value, json};

use super::super::cash_crypto::wrong;
use super::round2;

/// What a wallet sends to have notes signed: hashing and a product for each.
pub fn blind(asked: &[Asked]) -> Vec<BlindedNonce> {
    asked.iter().map(|one| one.secrets.blinded()).collect()
}

/// An order's notes, by the answers of a threshold of authorities; the first ones are enough if they are true.
pub fn make(
    keys: &MintKeys,
    asked: &[Asked],
    blinded: &[BlindedNonce],
    answers: &[(u32, Vec<Bytes>)],
) -> Result<Vec<Note>> {
    let mut requests = Vec::with_capacity(asked.len());
    for (place, (one, blinded)) in asked.iter().zip(blinded).enumerate() {
        let shared = keys.shared(one.tier).ok_or_else(wrong)?;
        let mut shares = Vec::with_capacity(answers.len());
        for (authority, given) in answers.iter().take(shared.threshold() as usize) {
            shares.push((authority + 1, SignatureShare::parse(given.get(place).ok_or_else(wrong)?)?));
        }
        requests.push(Request { keys: shared, blinded: *blinded, shares });
    }
    let of = |(one, signature): (&Asked, Option<_>)| {
        let signature = one.secrets.blinding().unblind(&signature.ok_or_else(wrong)?);
        Ok(Note { tier: one.tier, secrets: one.secrets.clone(), signature, recoveries: 0 })
    };
    asked.iter().zip(combine_all(&requests)?.into_iter().map(|c| c.signature)).map(of).collect()
}

/// What it takes a wallet to find its notes again, once it has the answers. Seconds of one core.
pub struct Recovery {
    notes: usize,
    derive: f64,
    decode: f64,
    combine: f64,
    unblind: f64,
}

/// Recovers so many notes, as many as one query has at a time, with the shares of three of four authorities.
pub fn recovery(notes: usize) -> Result<Recovery> {
    let (keys, shares) = deal(3, 4, "bench recovery");
    let seed = CashSeed::new(&[8; 32], 1);
    let mut all = Recovery { notes, derive: 0.0, decode: 0.0, combine: 0.0, unblind: 0.0 };
    let mut next = 0;
    while next < notes {
        let chunk = (notes - next).min(NOTES_PER_QUERY_MAX);
        let start = thread_cpu_ns();
        let secrets: Vec<NoteSecrets> = (next..next + chunk).map(|i| seed.note(i as u64)).collect();
        let blinded: Vec<_> = secrets.iter().map(NoteSecrets::blinded).collect();
        let derived = thread_cpu_ns();
        let answers: Vec<Vec<(u32, [u8; 48])>> = blinded
            .iter()
            .map(|b| shares[..3].iter().map(|share| (share.index(), share.sign(b).to_bytes())).collect())
            .collect();
        let asked = thread_cpu_ns();
        let mut requests = Vec::with_capacity(chunk);
        for (blinded, answers) in blinded.into_iter().zip(&answers) {
            let shares =
                answers.iter().map(|(i, bytes)| Ok((*i, SignatureShare::parse(bytes)?))).collect::<Result<_>>()?;
            requests.push(Request { keys: &keys, blinded, shares });
        }
        let decoded = thread_cpu_ns();
        // This verifies each signature; unblinding keeps it true.
        let combined = combine_all(&requests)?;
        let verified = thread_cpu_ns();
        for (secrets, combined) in secrets.iter().zip(combined) {
            black_box(secrets.blinding().unblind(&combined.signature.ok_or_else(wrong)?));
        }
        let end = thread_cpu_ns();
        for (sum, from, to) in [
            (&mut all.derive, start, derived),
            (&mut all.decode, asked, decoded),
            (&mut all.combine, decoded, verified),
            (&mut all.unblind, verified, end),
        ] {
            *sum += (to - from) as f64 / 1e9;
        }
        next += chunk;
    }
    Ok(all)
}

impl Recovery {
    fn seconds(&self) -> f64 {
        self.derive + self.decode + self.combine + self.unblind
    }

    /// For people.
    pub fn text(&self) -> String {
        format!(
            "recovery of {} notes from words     {:.1} s of one core: derive, hash and blind {:.1}, decode shares {:.1}, \
             combine and verify {:.1}, unblind {:.1}",
            self.notes,
            self.seconds(),
            self.derive,
            self.decode,
            self.combine,
            self.unblind,
        )
    }

    /// For programs.
    pub fn value(&self) -> Value {
        json!({
            "notes": self.notes, "cpu_s": round2(self.seconds()), "derive_s": round2(self.derive),
            "decode_s": round2(self.decode), "combine_s": round2(self.combine), "unblind_s": round2(self.unblind),
        })
    }
}
