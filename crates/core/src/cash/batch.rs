//! Verifying many signatures together: one pairing for each key and one more, instead of two for each signature.
//!
//! Each claim says e(S_i, g2) = e(B_i, pk_i). With coefficients c_i, all hold if and only if
//! e(Σ c_i·S_i, g2) = Π over keys e(Σ c_i·B_i, pk), but for a chance of 2^-128: all points are of a group of prime order, so
//! a false claim leaves a factor other than 1 to the power of its c_i, and at most one of the 2^128 values of that
//! c_i cancels what the others leave. (That needs the subgroup checks at decoding: in the small subgroups
//! of the whole curve the chance would be as bad as 1 in 3.)
//!
//! The core draws no randomness: the c_i are a ChaCha20 stream seeded with sha256 over every key, base and signature of the
//! batch, as in the Fiat-Shamir transform. Nothing in it is secret. Who changes anything to fit the c_i changes all of them, so each
//! try at a false batch has the chance 2^-128, for each of the fewer than two subsets per claim that are tried
//! when a batch fails; those keep the coefficients of the whole.

use std::collections::BTreeMap;
use std::ops::Range;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

use super::blind::{Nonce, NoteSignature, TierKey, signed_by};
use super::curve::{G1, G2, pairings_cancel};
use crate::memo;

const TRANSCRIPT_TAG: &[u8] = b"florin-cash-batch-v1";

/// Below this many, each claim of a failed batch is looked at alone. Halving down to here bounds what a batch full of bad
/// signatures costs to one and a half times the pairings of verifying each alone; one bad in 1,024 takes about 12 checks.
const ALONE: usize = 4;

/// That `signature` is `base` times the secret of `key`.
#[derive(Clone, Copy)]
pub(super) struct Claim {
    pub key: G2,
    pub base: G1,
    pub signature: G1,
}

/// For each note, whether it is one: exactly what [`TierKey::verifies`] says of it alone.
pub fn verify_notes(notes: &[(TierKey, Nonce, NoteSignature)]) -> Vec<bool> {
    let bases = Nonce::hash_all(notes.iter().map(|(_, nonce, _)| nonce));
    let claim = |((key, _, signature), base): (&(TierKey, Nonce, NoteSignature), G1)| Claim {
        key: key.0,
        base,
        signature: signature.0,
    };
    verify_claims(&notes.iter().zip(bases).map(claim).collect::<Vec<_>>())
}

/// For each claim, whether it holds.
pub(super) fn verify_claims(claims: &[Claim]) -> Vec<bool> {
    if !memo::is_on() {
        return verify_together(claims);
    }
    let question = |c: &Claim| [&c.key.to_bytes()[..], &c.base.to_bytes(), &c.signature.to_bytes()].concat();
    let questions: Vec<Vec<u8>> = claims.iter().map(question).collect();
    let recalled: Vec<Option<bool>> = questions.iter().map(|q| memo::recall(|m| &mut m.claims, q)).collect();
    let unknown = claims.iter().zip(&recalled).filter(|(_, verdict)| verdict.is_none());
    let mut computed = verify_together(&unknown.map(|(claim, _)| *claim).collect::<Vec<_>>()).into_iter();
    let verdict = |(question, recalled): (Vec<u8>, Option<bool>)| {
        recalled.unwrap_or_else(|| {
            let verdict = computed.next().expect("one for each claim that is not recalled");
            memo::note(|m| &mut m.claims, question.into(), verdict);
            verdict
        })
    };
    questions.into_iter().zip(recalled).map(verdict).collect()
}

fn verify_together(claims: &[Claim]) -> Vec<bool> {
    // The pairing of nothing is a pairing.
    if claims.is_empty() {
        return Vec::new();
    }
    let mut keys: BTreeMap<[u8; 96], usize> = BTreeMap::new();
    let mut transcript = Sha256::new_with_prefix(TRANSCRIPT_TAG);
    transcript.update((claims.len() as u64).to_be_bytes());
    let mut terms = Vec::with_capacity(claims.len());
    for (at, claim) in claims.iter().enumerate() {
        let key = claim.key.to_bytes();
        transcript.update(key);
        transcript.update(claim.base.to_bytes());
        transcript.update(claim.signature.to_bytes());
        let group = *keys.entry(key).or_insert(at);
        terms.push(Term { at, group, coefficient: 0 });
    }
    let mut stream = ChaCha20Rng::from_seed(transcript.finalize().into());
    for term in &mut terms {
        let mut bytes = [0; 16];
        stream.fill_bytes(&mut bytes);
        term.coefficient = u128::from_le_bytes(bytes);
    }
    // Claims of one key side by side, so that parts of the batch have few keys.
    terms.sort_by_key(|term| term.group);
    let mut search = Search { claims, terms, holds: vec![false; claims.len()] };
    search.judge(0..claims.len(), false);
    search.holds
}

struct Term {
    /// Which claim.
    at: usize,
    /// The first claim with the same key.
    group: usize,
    coefficient: u128,
}

struct Search<'a> {
    claims: &'a [Claim],
    terms: Vec<Term>,
    /// By claim.
    holds: Vec<bool>,
}

impl Search<'_> {
    /// Finds which of a range of terms hold; `fails` if it is known that not all of them do.
    fn judge(&mut self, range: Range<usize>, fails: bool) {
        if !fails && self.all_hold(&range) {
            for term in &self.terms[range] {
                self.holds[term.at] = true;
            }
            return;
        }
        match range.len() {
            0 | 1 => {}
            2..=ALONE => range.for_each(|i| self.judge(i..i + 1, false)),
            length => {
                let middle = range.start + length / 2;
                self.judge(range.start..middle, false);
                let left_holds = self.terms[range.start..middle].iter().all(|term| self.holds[term.at]);
                self.judge(middle..range.end, left_holds);
            }
        }
    }

    fn all_hold(&self, range: &Range<usize>) -> bool {
        let terms = &self.terms[range.clone()];
        if let [term] = terms {
            let claim = &self.claims[term.at];
            return signed_by(&claim.key, &claim.base, &claim.signature);
        }
        let sum = |terms: &[Term], point: fn(&Claim) -> G1| {
            let points: Vec<G1> = terms.iter().map(|term| point(&self.claims[term.at])).collect();
            G1::msm_128(&points, &terms.iter().map(|term| term.coefficient).collect::<Vec<_>>())
        };
        let mut pairs: Vec<(G1, G2)> = terms
            .chunk_by(|a, b| a.group == b.group)
            .map(|of_key| (sum(of_key, |claim| claim.base), self.claims[of_key[0].at].key))
            .collect();
        pairs.push((sum(terms, |claim| claim.signature).neg(), G2::generator()));
        pairings_cancel(&pairs)
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
