//! Keys of e-cash without a dealer: one threshold BLS key for each tier, made by the authorities together over the
//! ordered log. Decision 16 argues the choices.
//!
//! The log is the broadcast channel: all see the same items in one order, from the creators that it names. A run goes
//! 1. *Announce*: each receiver's fresh encryption key.
//! 2. *Deal*: each dealer shares a secret for each tier: commitments in G2 for all, a share encrypted to each receiver.
//! 3. *Verdict*: each receiver's complaints about shares that do not fit the commitments, each with a proof.
//! 4. *Closed*: the keys are the sums over the dealers that nobody caught. Receivers confirm that they hold shares.
//! 5. *Active*: a quorum has confirmed: the keys may be used.
//!
//! [`Ceremony`] is what all know, [`Participant`] what one authority knows: a seed of 32 bytes, from which (with the
//! log) all its secrets follow. Nothing here reads a clock: waiting for the slow is the shell's, which says *go on*.
//!
//! Why it is safe, with at most f of n faulty, and threshold t = n - f (2f + 1 of 3f + 1):
//!
//! - *Secrecy.* At least f + 1 dealers count and one of them is honest: up to t - 1 receivers know no more of its
//!   secret than its public part. Dealers prove that they know the secrets that they deal, so nobody can choose its
//!   own as "this key less all others". An honest receiver shows what a dealer sent only if that was wrong.
//! - *Agreement.* Everything that decides is on the log and checked by all: points, proofs, complaints.
//! - *An honest dealer is never caught*: a complaint shows the pair's shared secret with a proof of equal logarithms,
//!   so it opens just what the dealer encrypted, and that fits.
//! - *Everyone gets a share*: a receiver that comes late reads it from the log. If a dealer that counts had lied to it,
//!   it complains then; the others show their shares of that one dealer's secret, and any t give the missing one.

mod ceremony;
mod dealing;
mod keys;
mod participant;
mod proofs;
pub mod wire;

use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use ceremony::{Blob, Blobs, Ceremony, Effects, Phase};
pub use keys::{KeyShares, PublicKeys, TierKeys};
pub use participant::Participant;

use crate::cash::curve::{G2_BYTES, SCALAR_BYTES};
use crate::committee::Committee;
use crate::error::{Code, Error, Result};
use crate::limits::{COMMITTEE_MAX, COMMITTEE_MIN, UNIT_BYTES_MAX};

/// Largest number of tiers.
pub const TIERS_MAX: usize = 64;
/// Bytes of commitments and shares in one item: with the rest of it, it fits into a unit of the log.
const CHUNK_BYTES_MAX: usize = UNIT_BYTES_MAX - 1_024;

// A tier of the largest committee fits.
const _: () = assert!(COMMITTEE_MAX * (G2_BYTES + SCALAR_BYTES) <= CHUNK_BYTES_MAX);

/// What an authority that creates items of the log is in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Index among those who deal.
    pub dealer: Option<u32>,
    /// Index among those who get shares.
    pub receiver: Option<u32>,
}

/// One run: who takes part, for which tiers. All authorities must have the same.
#[derive(Clone, Debug)]
pub struct Params {
    id: [u8; 32],
    run: u64,
    tiers: usize,
    members: Vec<Member>,
    dealers: usize,
    receivers: usize,
    old: Option<Arc<PublicKeys>>,
    /// Always the constant, but in tests.
    chunk_bytes: usize,
}

impl Params {
    /// New keys, 1 to 64 tiers, by and for a committee. `run` counts its runs: each has its own seeds.
    pub fn fresh(committee: &Committee, run: u64, tiers: usize) -> Result<Params> {
        Params::new(*committee.id(), committee.epoch, run, tiers, everyone(committee), None)
    }

    /// New shares of the same keys for the same committee, also for who has none. Old and new ones do not mix; the old
    /// ones still make signatures until enough holders have erased theirs.
    pub fn refresh(committee: &Committee, run: u64, keys: Arc<PublicKeys>) -> Result<Params> {
        let tiers = keys.tiers.len();
        Params::new(*committee.id(), committee.epoch, run, tiers, everyone(committee), Some(keys))
    }

    /// Any run: `members` by the index that the log names as an item's creator. With `old` the holders of those keys'
    /// shares deal them on to the receivers, and the keys stay. Errors: `BAD_CONFIG`.
    pub fn new(
        committee_id: [u8; 32],
        epoch: u64,
        run: u64,
        tiers: usize,
        members: Vec<Member>,
        old: Option<Arc<PublicKeys>>,
    ) -> Result<Params> {
        let bad = |what, expected: String, found: String| Err(Error::expected(Code::BadConfig, what, expected, found));
        if tiers == 0 || tiers > TIERS_MAX {
            return bad("tiers", format!("1 to {TIERS_MAX}"), tiers.to_string());
        }
        let (dealers, receivers) = (count(&members, |m| m.dealer)?, count(&members, |m| m.receiver)?);
        for (what, n) in [("dealers", dealers), ("receivers", receivers)] {
            if !(COMMITTEE_MIN..=COMMITTEE_MAX).contains(&n) {
                return bad(what, format!("{COMMITTEE_MIN} to {COMMITTEE_MAX}"), n.to_string());
            }
        }
        let mut h = Sha256::new();
        h.update(b"florin-dkg-v1");
        h.update(committee_id);
        [epoch, run, tiers as u64, dealers as u64, receivers as u64].iter().for_each(|n| h.update(n.to_be_bytes()));
        if let Some(old) = &old {
            if old.tiers.len() != tiers || old.tiers.iter().any(|t| t.shares.len() != dealers) {
                let expected = format!("those of {tiers} tiers and {dealers} holders");
                return bad("keys to share again", expected, format!("{} tiers", old.tiers.len()));
            }
            h.update(old.hash());
        }
        let chunk_bytes = CHUNK_BYTES_MAX;
        Ok(Params { id: h.finalize().into(), run, tiers, members, dealers, receivers, old, chunk_bytes })
    }

    /// Number of the run.
    pub fn run(&self) -> u64 {
        self.run
    }

    /// Tiers that get keys.
    pub fn tiers(&self) -> usize {
        self.tiers
    }

    /// Shares that make a signature: a quorum of receivers, n - f.
    pub fn threshold(&self) -> usize {
        self.quorum()
    }

    /// Receivers that are enough to go on: n - f.
    fn quorum(&self) -> usize {
        self.receivers - faults(self.receivers)
    }

    /// Dealers that are enough to go on: n - f. With keys to share again, the holders that it takes.
    fn dealers_enough(&self) -> usize {
        let quorum = self.dealers - faults(self.dealers);
        self.old.as_ref().map_or(quorum, |old| quorum.max(old.threshold))
    }

    /// Dealers that must count at the end.
    fn dealers_needed(&self) -> usize {
        self.old.as_ref().map_or(faults(self.dealers) + 1, |old| old.threshold)
    }

    fn member(&self, creator: u32) -> Result<Member> {
        let member = self.members.get(creator as usize).copied();
        member.ok_or_else(|| Error::expected(Code::UnknownAuthority, "creator", self.members.len(), creator))
    }

    /// Tiers in one item of a dealing.
    fn chunk_tiers(&self) -> usize {
        (self.chunk_bytes / (self.threshold() * G2_BYTES + self.receivers * SCALAR_BYTES)).min(self.tiers)
    }

    /// Items of a dealing.
    pub fn chunks(&self) -> usize {
        self.tiers.div_ceil(self.chunk_tiers())
    }

    /// Tiers of a chunk.
    fn tiers_of(&self, chunk: usize) -> std::ops::Range<usize> {
        let size = self.chunk_tiers();
        chunk * size..((chunk + 1) * size).min(self.tiers)
    }
}

fn everyone(committee: &Committee) -> Vec<Member> {
    (0..committee.size() as u32).map(|i| Member { dealer: Some(i), receiver: Some(i) }).collect()
}

/// Members in a role, whose indices must be all from 0.
fn count(members: &[Member], role: impl Fn(&Member) -> Option<u32>) -> Result<usize> {
    let mut indices: Vec<u32> = members.iter().filter_map(role).collect();
    indices.sort_unstable();
    if indices.iter().enumerate().any(|(i, index)| i as u32 != *index) {
        return Err(Error::expected(Code::BadConfig, "indices of members", "each from 0 once", "others"));
    }
    Ok(indices.len())
}

fn faults(n: usize) -> usize {
    (n - 1) / 3
}

fn refused(what: impl Into<String>) -> Error {
    Error::new(Code::BadContent, what)
}

fn false_proof(what: impl Into<String>) -> Error {
    Error::new(Code::BadProof, what)
}

#[cfg(test)]
#[path = "dkg_tests.rs"]
mod tests;
