//! What all know of a run: `handle(creator, item) -> effects`, deterministic, the same at every authority.
//!
//! An item counts whole or not at all. One that comes too early, too late or twice changes nothing and is no fault:
//! honest authorities hand in theirs until they see them applied. One that no honest authority could have made is the
//! last of its creator that is looked at: otherwise false proofs could keep all others busy.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::cash::curve::{G2, Scalar};
use crate::error::{Code, Error, Result};

use super::dealing::{Dealt, check_announce, scalars};
use super::keys::{PublicKeys, TierKeys, evaluate_points, position, weights};
use super::proofs::hash_scalar;
use super::wire::{Announce, CeremonyRecord, Complaint, Deal, DealerRecord, DkgItem, Kind, Reveal, Verdict, canonical};
use super::{Member, Params, false_proof, refused};

/// Where a run is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
pub enum Phase {
    /// Receivers announce their encryption keys.
    Announce = 0,
    /// Dealers deal.
    Deal = 1,
    /// Receivers say who lied to them.
    Verdict = 2,
    /// The keys are decided; a quorum has yet to confirm that it holds its shares.
    Closed = 3,
    /// The keys may be used.
    Active = 4,
    /// More than f are faulty: nothing came of it, a run with another number may.
    Failed = 5,
}

/// A larger record of a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Blob {
    /// A part of a dealing: `Deal`.
    Deal {
        /// Who dealt.
        dealer: u32,
        /// Which part.
        chunk: u32,
    },
    /// What a receiver has shown of a caught dealer's secrets: `Reveal`.
    Reveal {
        /// Whose secrets.
        dealer: u32,
        /// Who showed its shares.
        receiver: u32,
    },
}

/// The larger records, as the effects before have written them.
pub trait Blobs {
    /// One record.
    fn blob(&self, key: Blob) -> Result<Option<Bytes>>;
}

/// What an item does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Effects {
    /// Whether it changed anything: then the record is to be written.
    pub changed: bool,
    /// A record to write.
    pub blob: Option<(Blob, Bytes)>,
    /// The keys, in the step that closes the run.
    pub keys: Option<PublicKeys>,
    /// What shows that the creator is faulty. Of the item nothing counts.
    pub fault: Option<Error>,
}

/// The public state of a run.
#[derive(Clone, Debug)]
pub struct Ceremony {
    pub(super) params: Arc<Params>,
    pub(super) record: CeremonyRecord,
}

impl Ceremony {
    /// A run that has not begun.
    pub fn new(params: Arc<Params>) -> Ceremony {
        let receivers = params.receivers;
        let dealer = DealerRecord { chunks: 0, caught: false, reveals: vec![false; receivers] };
        let record = CeremonyRecord {
            phase: Phase::Announce as u32,
            announced: vec![Bytes::new(); receivers],
            dealers: vec![dealer; params.dealers],
            dealt: Vec::new(),
            verdicts: vec![false; receivers],
            go_on: vec![false; receivers],
            counted: Vec::new(),
            keys_hash: Bytes::new(),
            confirmed: vec![false; receivers],
            faulty: vec![false; params.members.len()],
            shift: Bytes::new(),
        };
        Ceremony { params, record }
    }

    /// From its record. Errors: `STORAGE_CORRUPT`.
    pub fn load(params: Arc<Params>, record: &[u8]) -> Result<Ceremony> {
        let corrupt = |what: String| Error::new(Code::StorageCorrupt, format!("record of key generation: {what}"));
        let record = CeremonyRecord::decode(record).map_err(|e| corrupt(e.to_string()))?;
        let n = params.receivers;
        let lengths = [record.announced.len(), record.verdicts.len(), record.go_on.len(), record.confirmed.len()];
        let whole = lengths.iter().all(|l| *l == n)
            && record.dealers.len() == params.dealers
            && record.dealers.iter().all(|d| d.reveals.len() == n)
            && record.dealt.iter().chain(&record.counted).all(|d| (*d as usize) < params.dealers)
            && record.faulty.len() == params.members.len()
            && record.phase <= Phase::Failed as u32;
        if !whole {
            return Err(corrupt(format!("not of {} dealers and {n} receivers", params.dealers)));
        }
        Ok(Ceremony { params, record })
    }

    /// Its record.
    pub fn encode(&self) -> Bytes {
        self.record.encode_to_vec().into()
    }

    /// The run.
    pub fn params(&self) -> &Arc<Params> {
        &self.params
    }

    /// Where it is.
    pub fn phase(&self) -> Phase {
        const PHASES: [Phase; 6] =
            [Phase::Announce, Phase::Deal, Phase::Verdict, Phase::Closed, Phase::Active, Phase::Failed];
        PHASES[self.record.phase as usize]
    }

    /// Hash of the public keys, once they are decided.
    pub fn keys_hash(&self) -> Option<&[u8]> {
        Some(&self.record.keys_hash[..]).filter(|hash| !hash.is_empty())
    }

    /// Dealers that were caught lying.
    pub fn caught(&self) -> Vec<u32> {
        (0..self.params.dealers as u32).filter(|d| self.record.dealers[*d as usize].caught).collect()
    }

    /// Receivers that have yet to do their part of this phase, or, later, had not given a verdict at the close.
    pub fn missing(&self) -> Vec<u32> {
        let part = if self.phase() < Phase::Verdict { Phase::Announce } else { Phase::Verdict };
        (0..self.params.receivers as u32).filter(|r| !self.has_done(*r, part)).collect()
    }

    /// Creators of items that a phase waits for; once the keys are decided, those that have yet to confirm their shares.
    pub fn waits_for(&self) -> Vec<u32> {
        let waits = |member: &Member| match (self.phase(), member.receiver, member.dealer) {
            (Phase::Announce, Some(receiver), _) => !self.has_done(receiver, Phase::Announce),
            (Phase::Deal, _, Some(dealer)) => !self.record.dealt.contains(&dealer),
            (Phase::Verdict, Some(receiver), _) => self.awaits_verdict(receiver),
            (Phase::Closed | Phase::Active, Some(receiver), _) => !self.record.confirmed[receiver as usize],
            _ => false,
        };
        let members = (0..).zip(&self.params.members).filter(|(_, member)| waits(member));
        members.map(|(creator, _)| creator).filter(|creator| !self.record.faulty[*creator as usize]).collect()
    }

    /// Creators of items that were found out: dealers who lied, and whoever handed in what no honest one could have.
    pub fn found_out(&self) -> Vec<u32> {
        let caught = |member: &Member| member.dealer.is_some_and(|d| self.record.dealers[d as usize].caught);
        let members = (0..).zip(&self.params.members).zip(&self.record.faulty);
        members.filter(|((_, member), faulty)| **faulty || caught(member)).map(|((creator, _), _)| creator).collect()
    }

    /// One item of the log, from the creator that the log names. Errors leave all as it was: `DECODE` and
    /// `NON_CANONICAL` for what is no item, `UNKNOWN_AUTHORITY`, and failures of the authority's own storage
    /// ([`Error::is_own_fault`]).
    pub fn handle(&mut self, creator: u32, item: &[u8], blobs: &dyn Blobs) -> Result<Effects> {
        let DkgItem { run_id, kind } = canonical(item)?;
        let member = self.params.member(creator)?;
        if run_id != self.params.id[..] || self.record.faulty[creator as usize] {
            return Ok(Effects::default());
        }
        match self.apply(member, kind, blobs) {
            Err(e) if !e.is_own_fault() => {
                self.record.faulty[creator as usize] = true;
                self.advance(blobs).map(|effects| Effects { fault: Some(e), ..effects }).inspect_err(|_| {
                    self.record.faulty[creator as usize] = false;
                })
            }
            other => other,
        }
    }

    fn apply(&mut self, member: Member, kind: Option<Kind>, blobs: &dyn Blobs) -> Result<Effects> {
        let dealer = || member.dealer.ok_or_else(|| refused("a dealing of one who is no dealer"));
        let receiver = || member.receiver.ok_or_else(|| refused("the word of one who is no receiver"));
        match kind.ok_or_else(|| refused("an item that says nothing"))? {
            Kind::Announce(announce) => self.announce(receiver()?, announce, blobs),
            Kind::Deal(deal) => self.deal(dealer()?, deal, blobs),
            Kind::Verdict(verdict) => self.verdict(receiver()?, &verdict, blobs),
            Kind::GoOn(phase) => self.go_on(receiver()?, phase, blobs),
            Kind::Late(complaint) => self.late(receiver()?, &complaint, blobs),
            Kind::Reveal(reveal) => self.reveal(receiver()?, reveal, blobs),
            Kind::Confirm(hash) => self.confirm(receiver()?, &hash),
        }
    }

    fn announce(&mut self, receiver: u32, announce: Announce, blobs: &dyn Blobs) -> Result<Effects> {
        if self.phase() != Phase::Announce || self.has_done(receiver, Phase::Announce) {
            return Ok(Effects::default());
        }
        check_announce(&self.params, receiver, &announce)?;
        self.record.announced[receiver as usize] = announce.key;
        self.advance(blobs)
    }

    /// Parts come in order. What is wrong for all to see is not taken; the dealer never deals then.
    fn deal(&mut self, dealer: u32, deal: Deal, blobs: &dyn Blobs) -> Result<Effects> {
        let chunk = deal.chunk;
        if self.phase() != Phase::Deal || self.record.dealers[dealer as usize].chunks != chunk {
            return Ok(Effects::default());
        }
        Dealt::check(&self.params, dealer, &deal, &self.record.announced)?;
        let record = &mut self.record.dealers[dealer as usize];
        record.chunks += 1;
        if record.chunks as usize == self.params.chunks() {
            self.record.dealt.push(dealer);
        }
        let blob = Some((Blob::Deal { dealer, chunk }, deal.encode_to_vec().into()));
        Ok(Effects { blob, ..self.advance(blobs)? })
    }

    fn verdict(&mut self, receiver: u32, verdict: &Verdict, blobs: &dyn Blobs) -> Result<Effects> {
        if self.phase() != Phase::Verdict || self.has_done(receiver, Phase::Verdict) {
            return Ok(Effects::default());
        }
        self.check_announced(receiver)?;
        if !verdict.complaints.is_sorted_by(|a, b| a.dealer < b.dealer) {
            return Err(refused("complaints: expected one a dealer, ascending"));
        }
        for complaint in &verdict.complaints {
            if !self.record.dealt.contains(&complaint.dealer) {
                return Err(refused(format!("a complaint about dealer {}, who has not dealt", complaint.dealer)));
            }
            self.check_complaint(receiver, complaint, blobs)?;
        }
        let caught: Vec<usize> = verdict.complaints.iter().map(|c| c.dealer as usize).collect();
        let fresh: Vec<usize> = caught.into_iter().filter(|d| !self.record.dealers[*d].caught).collect();
        fresh.iter().for_each(|d| self.record.dealers[*d].caught = true);
        self.record.verdicts[receiver as usize] = true;
        self.advance(blobs).inspect_err(|_| {
            fresh.iter().for_each(|d| self.record.dealers[*d].caught = false);
            self.record.verdicts[receiver as usize] = false;
        })
    }

    /// About a dealer that was caught before, anything may be said.
    fn check_complaint(&self, receiver: u32, complaint: &Complaint, blobs: &dyn Blobs) -> Result<()> {
        let Complaint { dealer, chunk, .. } = *complaint;
        if chunk as usize >= self.params.chunks() {
            return Err(refused(format!("a complaint about part {chunk} of {}", self.params.chunks())));
        }
        if self.record.dealers[dealer as usize].caught {
            return Ok(());
        }
        let dealt = self.dealt(dealer, chunk, blobs)?;
        match dealt.check_complaint(&self.params, &self.record.announced, receiver, complaint)? {
            true => Ok(()),
            false => Err(false_proof(format!("receiver {receiver} complains about right shares of dealer {dealer}"))),
        }
    }

    fn go_on(&mut self, receiver: u32, phase: u32, blobs: &dyn Blobs) -> Result<Effects> {
        if phase >= Phase::Closed as u32 {
            return Err(refused(format!("phase {phase} waits for nobody")));
        }
        let late = phase != self.record.phase || self.record.go_on[receiver as usize];
        if late || !self.has_done(receiver, self.phase()) {
            return Ok(Effects::default());
        }
        self.record.go_on[receiver as usize] = true;
        self.advance(blobs).inspect_err(|_| self.record.go_on[receiver as usize] = false)
    }

    fn late(&mut self, receiver: u32, complaint: &Complaint, blobs: &dyn Blobs) -> Result<Effects> {
        if self.phase() != Phase::Closed && self.phase() != Phase::Active {
            return Ok(Effects::default());
        }
        self.check_announced(receiver)?;
        if !self.record.counted.contains(&complaint.dealer) || self.has_done(receiver, Phase::Verdict) {
            return Err(refused(format!("a late complaint of receiver {receiver} that has no ground")));
        }
        if self.record.dealers[complaint.dealer as usize].caught {
            return Ok(Effects::default());
        }
        self.check_complaint(receiver, complaint, blobs)?;
        self.record.dealers[complaint.dealer as usize].caught = true;
        Ok(changed())
    }

    fn reveal(&mut self, receiver: u32, reveal: Reveal, blobs: &dyn Blobs) -> Result<Effects> {
        let dealer = reveal.dealer;
        if !self.wants_reveal(dealer, receiver) {
            return Ok(Effects::default());
        }
        let shares = scalars("shares", &reveal.shares, self.params.tiers)?;
        for chunk in 0..self.params.chunks() {
            let of_chunk = &shares[self.params.tiers_of(chunk)];
            if !self.dealt(dealer, chunk as u32, blobs)?.fits(receiver, of_chunk) {
                return Err(false_proof(format!("receiver {receiver} shows wrong shares of dealer {dealer}")));
            }
        }
        self.record.dealers[dealer as usize].reveals[receiver as usize] = true;
        let blob = Some((Blob::Reveal { dealer, receiver }, reveal.encode_to_vec().into()));
        Ok(Effects { blob, ..changed() })
    }

    fn confirm(&mut self, receiver: u32, hash: &[u8]) -> Result<Effects> {
        let known = self.keys_hash().is_some() && !self.record.confirmed[receiver as usize];
        if !known {
            return Ok(Effects::default());
        }
        self.check_announced(receiver)?;
        if self.record.keys_hash != hash {
            let (expected, found) = (hex::encode(&self.record.keys_hash), hex::encode(hash));
            return Err(Error::expected(Code::BadContent, "confirmed keys", expected, found));
        }
        self.record.confirmed[receiver as usize] = true;
        if ones(&self.record.confirmed) >= self.params.quorum() {
            self.record.phase = Phase::Active as u32;
        }
        Ok(changed())
    }

    /// Goes on to the next phase if it is time: enough have done their part, and either all that can have, or a quorum
    /// has waited for the rest long enough. Errors change nothing.
    fn advance(&mut self, blobs: &dyn Blobs) -> Result<Effects> {
        let patient = ones(&self.record.go_on) < self.params.quorum();
        if !self.has_enough() || patient && self.waits_for_more() {
            return Ok(changed());
        }
        let keys = match self.phase() {
            Phase::Announce => self.enter(Phase::Deal),
            Phase::Deal => self.enter(Phase::Verdict),
            _ => self.close(blobs)?,
        };
        Ok(Effects { keys, ..changed() })
    }

    fn enter(&mut self, phase: Phase) -> Option<PublicKeys> {
        self.record.phase = phase as u32;
        self.record.go_on.fill(false);
        None
    }

    /// Whether enough are there for the next phase.
    pub(super) fn has_enough(&self) -> bool {
        let announced = || self.record.announced.iter().filter(|key| !key.is_empty()).count();
        match self.phase() {
            Phase::Announce => announced() >= self.params.quorum(),
            Phase::Deal => self.record.dealt.len() >= self.params.dealers_enough(),
            Phase::Verdict => ones(&self.record.verdicts) >= self.params.quorum(),
            _ => false,
        }
    }

    /// Whether the part of someone is missing who is not known to be faulty. More dealers of new secrets than enough
    /// are of no use; shares of a key are dealt by all, as some of those who do may be caught.
    fn waits_for_more(&self) -> bool {
        let sound = self.params.members.iter().zip(&self.record.faulty).filter(|(_, faulty)| !**faulty);
        let mut sound = sound.map(|(member, _)| member);
        match self.phase() {
            Phase::Announce => sound.filter_map(|m| m.receiver).any(|r| self.record.announced[r as usize].is_empty()),
            Phase::Deal => {
                self.params.old.is_some() && sound.filter_map(|m| m.dealer).any(|d| !self.record.dealt.contains(&d))
            }
            _ => sound.any(|m| m.receiver.is_some_and(|r| self.awaits_verdict(r))),
        }
    }

    fn awaits_verdict(&self, receiver: u32) -> bool {
        self.has_done(receiver, Phase::Announce) && !self.has_done(receiver, Phase::Verdict)
    }

    /// Decides the keys.
    fn close(&mut self, blobs: &dyn Blobs) -> Result<Option<PublicKeys>> {
        let honest = |d: &&u32| !self.record.dealers[**d as usize].caught;
        let most = if self.params.old.is_some() { self.params.dealers_needed() } else { self.params.dealers };
        let counted: Vec<u32> = self.record.dealt.iter().filter(honest).take(most).copied().collect();
        let mut keys = None;
        if counted.len() >= self.params.dealers_needed() {
            let (shift, made) = self.public_keys(&counted, blobs)?;
            // Only by a chance of 2^-255 is a key or a share nothing.
            let sound = |t: &TierKeys| !t.key.is_identity() && t.shares.iter().all(|s| !s.is_identity());
            keys = Some(made).filter(|k| k.tiers.iter().all(sound));
            self.record.shift = Bytes::copy_from_slice(&shift);
        }
        self.enter(if keys.is_some() { Phase::Closed } else { Phase::Failed });
        self.record.counted = counted;
        self.record.keys_hash = keys.as_ref().map(|k| Bytes::copy_from_slice(&k.hash())).unwrap_or_default();
        Ok(keys)
    }

    /// The keys, computed from the dealings that count, and what the shift follows from.
    ///
    /// The last dealer, of one mind with a receiver, could choose a sum of 0 as that receiver's share. So the sum is
    /// shifted by a multiple of x, which leaves the key as it is, by a hash over all that was dealt.
    fn public_keys(&self, counted: &[u32], blobs: &dyn Blobs) -> Result<([u8; 32], PublicKeys)> {
        let mut polynomials = self.combined(counted, blobs)?;
        let mut h = Sha256::new();
        h.update(self.params.id);
        polynomials.iter().flatten().for_each(|point| h.update(point.to_bytes()));
        let shift: [u8; 32] = h.finalize().into();
        let mut tiers = Vec::with_capacity(self.params.tiers);
        for (tier, polynomial) in polynomials.iter_mut().enumerate() {
            polynomial[1] = polynomial[1].add(&G2::generator().mul(&shift_of(&shift, tier)));
            let share = |receiver| evaluate_points(polynomial, position(receiver));
            tiers.push(TierKeys { key: polynomial[0], shares: (0..self.params.receivers as u32).map(share).collect() });
        }
        if let Some(old) = &self.params.old {
            let same = tiers.iter().zip(&old.tiers).all(|(new, old)| new.key == old.key);
            assert!(same, "dealings of the shares of a key give the key");
        }
        Ok((shift, PublicKeys { threshold: self.params.threshold(), tiers }))
    }

    /// By tier, the sum of the polynomials that count.
    fn combined(&self, counted: &[u32], blobs: &dyn Blobs) -> Result<Vec<Vec<G2>>> {
        let factors = self.factors(counted);
        let mut polynomials = Vec::with_capacity(self.params.tiers);
        for chunk in 0..self.params.chunks() as u32 {
            let parts = counted.iter().map(|d| self.dealt(*d, chunk, blobs));
            let parts: Vec<Dealt> = parts.collect::<Result<_>>()?;
            for at in 0..self.params.tiers_of(chunk as usize).len() {
                let coefficient = |k: usize| {
                    let all: Vec<G2> = parts.iter().map(|part| part.commitments[at][k]).collect();
                    factors.as_ref().map_or_else(|| G2::sum(&all), |factors| G2::msm(&all, factors))
                };
                polynomials.push((0..self.params.threshold()).map(coefficient).collect());
            }
        }
        Ok(polynomials)
    }

    /// What each counted dealer's secret counts: shares of a key as they give the key, new secrets once.
    pub(super) fn factors(&self, counted: &[u32]) -> Option<Vec<Scalar>> {
        self.params.old.as_ref()?;
        let positions: Vec<u64> = counted.iter().map(|d| position(*d)).collect();
        Some(weights(&positions, 0))
    }

    /// A part of a dealing that is in.
    pub(super) fn dealt(&self, dealer: u32, chunk: u32, blobs: &dyn Blobs) -> Result<Dealt> {
        let lost = |what: &str| {
            Error::new(Code::StorageCorrupt, format!("part {chunk} of the dealing of dealer {dealer} is {what}"))
        };
        let bytes = blobs.blob(Blob::Deal { dealer, chunk })?.ok_or_else(|| lost("missing"))?;
        let deal = Deal::decode(bytes).map_err(|_| lost("unreadable"))?;
        Dealt::read(&self.params, dealer, &deal, &self.record.announced).map_err(|_| lost("not what was checked"))
    }

    /// Whether a receiver has done its part of a phase; in `Deal` receivers have none.
    pub(super) fn has_done(&self, receiver: u32, phase: Phase) -> bool {
        let announced = !self.record.announced[receiver as usize].is_empty();
        announced && (phase < Phase::Verdict || self.record.verdicts[receiver as usize])
    }

    /// Whether a receiver's shares of a dealer's secrets are of use to another: until the threshold is there.
    pub(super) fn wants_reveal(&self, dealer: u32, receiver: u32) -> bool {
        let Some(record) = self.record.dealers.get(dealer as usize) else { return false };
        matches!(self.phase(), Phase::Closed | Phase::Active)
            && record.caught
            && self.record.counted.contains(&dealer)
            && !record.reveals[receiver as usize]
            && ones(&record.reveals) < self.params.threshold()
    }

    fn check_announced(&self, receiver: u32) -> Result<()> {
        match self.has_done(receiver, Phase::Announce) {
            true => Ok(()),
            false => Err(refused(format!("receiver {receiver} has announced no key"))),
        }
    }

    /// Whether nobody can need anybody's help any more: then a participant's seed can go, its shares stay.
    pub fn is_settled(&self) -> bool {
        let members = self.params.members.iter().zip(&self.record.faulty);
        let mut sound = members.filter(|(_, faulty)| !**faulty).filter_map(|(member, _)| member.receiver);
        let in_need = |r: u32| self.awaits_verdict(r) && !self.record.confirmed[r as usize];
        self.phase() == Phase::Active && !sound.any(in_need)
    }
}

/// What a tier's shares are shifted by, times their position.
pub(super) fn shift_of(shift: &[u8], tier: usize) -> Scalar {
    hash_scalar("florin-dkg-shift-v1", &[shift, &(tier as u64).to_be_bytes()])
}

fn changed() -> Effects {
    Effects { changed: true, ..Effects::default() }
}

fn ones(bits: &[bool]) -> usize {
    bits.iter().filter(|bit| **bit).count()
}
