//! What one authority does in a run, from its seed and what is on the log: which items to hand in, and its shares.
//!
//! The seed is all that must be durable before the first item leaves: everything secret follows from it, so whatever is
//! made twice is the same. It must be random, of one run only, and is as secret as the shares.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use zeroize::Zeroizing;

use crate::cash::curve::{G1, Scalar};
use crate::error::{Code, Error, Result};

use super::ceremony::{Blob, Blobs, Ceremony, Phase, shift_of};
use super::dealing::{announce, deal, encryption_secret, scalars};
use super::keys::{KeyShares, position, weights};
use super::wire::{Complaint, DkgItem, Kind, Reveal, Verdict};
use super::{Member, Params};

/// One authority's part in a run.
pub struct Participant {
    params: Arc<Params>,
    member: Member,
    seed: Zeroizing<[u8; 32]>,
    old: Option<KeyShares>,
}

impl fmt::Debug for Participant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Participant {:?}", self.member)
    }
}

/// All shares of one dealer's secrets, or a part of its dealing that is wrong.
enum Opened {
    Right(Vec<Scalar>),
    Wrong(u32),
}

impl Participant {
    /// The authority that the log names `creator`. `old` are its shares of the keys that are to be shared again, if it
    /// has them; one without deals nothing. Errors: `UNKNOWN_AUTHORITY`, `BAD_CONFIG` for shares that do not fit.
    pub fn new(params: Arc<Params>, creator: u32, seed: [u8; 32], old: Option<KeyShares>) -> Result<Participant> {
        let member = params.member(creator)?;
        if let Some(old) = &old
            && (member.dealer != Some(old.index) || old.tiers.len() != params.tiers)
        {
            let expected = format!("{} of {:?}", params.tiers, member.dealer);
            let found = format!("{} of {}", old.tiers.len(), old.index);
            return Err(Error::expected(Code::BadConfig, "shares to share again", expected, found));
        }
        Ok(Participant { params, member, seed: Zeroizing::new(seed), old })
    }

    /// Items to hand in now, in this order; again, until the log has them. It may take a second for a large
    /// committee: ask only after the run's record has changed.
    pub fn items(&self, ceremony: &Ceremony, blobs: &dyn Blobs) -> Result<Vec<Bytes>> {
        let kinds = match ceremony.phase() {
            Phase::Announce => self.announce(ceremony),
            Phase::Deal => self.deal(ceremony)?,
            Phase::Verdict => self.verdict(ceremony, blobs)?,
            Phase::Closed | Phase::Active => self.after_close(ceremony, blobs)?,
            Phase::Failed => Vec::new(),
        };
        Ok(kinds.into_iter().map(|kind| self.item(kind)).collect())
    }

    /// The item that says not to wait for more in this phase. Hand it in once the slow have had their time:
    /// none while enough are not in, or this authority's own part is not.
    pub fn go_on(&self, ceremony: &Ceremony) -> Option<Bytes> {
        let receiver = self.member.receiver?;
        let ready = ceremony.has_enough()
            && ceremony.has_done(receiver, ceremony.phase())
            && !ceremony.record.go_on[receiver as usize];
        ready.then(|| self.item(Kind::GoOn(ceremony.phase() as u32)))
    }

    /// Its shares, once the keys are decided. None before; none if it announced no key in time (the next sharing of
    /// these keys gives it some); none while others have yet to show what a caught dealer withheld.
    pub fn shares(&self, ceremony: &Ceremony, blobs: &dyn Blobs) -> Result<Option<KeyShares>> {
        let Some(index) = self.receiver(ceremony).filter(|_| ceremony.keys_hash().is_some()) else { return Ok(None) };
        let mut factors = ceremony.factors(&ceremony.record.counted).map(Vec::into_iter);
        let mut tiers = vec![Scalar::zero(); self.params.tiers];
        for dealer in &ceremony.record.counted {
            let shares = match self.open(ceremony, *dealer, index, blobs)? {
                Opened::Right(shares) => shares,
                Opened::Wrong(_) => match self.shown(ceremony, *dealer, index, blobs)? {
                    Some(shares) => shares,
                    None => return Ok(None),
                },
            };
            let factor = factors.as_mut().and_then(Iterator::next).unwrap_or_else(Scalar::one);
            tiers.iter_mut().zip(&shares).for_each(|(sum, share)| *sum = sum.add(&share.mul(&factor)));
        }
        let at = Scalar::from_u64(position(index));
        for (tier, share) in tiers.iter_mut().enumerate() {
            *share = share.add(&at.mul(&shift_of(&ceremony.record.shift, tier)));
        }
        Ok(Some(KeyShares { index, tiers }))
    }

    fn item(&self, kind: Kind) -> Bytes {
        DkgItem { run_id: Bytes::copy_from_slice(&self.params.id), kind: Some(kind) }.encode_to_vec().into()
    }

    fn encryption_secret(&self) -> Scalar {
        encryption_secret(&self.params, &self.seed)
    }

    /// Its index as a receiver, if the announced key is this seed's.
    fn receiver(&self, ceremony: &Ceremony) -> Option<u32> {
        let receiver = self.member.receiver?;
        let own = G1::generator().mul(&self.encryption_secret()).to_bytes();
        (ceremony.record.announced[receiver as usize] == own[..]).then_some(receiver)
    }

    fn announce(&self, ceremony: &Ceremony) -> Vec<Kind> {
        let receiver = self.member.receiver.filter(|r| !ceremony.has_done(*r, Phase::Announce));
        receiver.map(|r| Kind::Announce(announce(&self.params, &self.seed, r))).into_iter().collect()
    }

    fn deal(&self, ceremony: &Ceremony) -> Result<Vec<Kind>> {
        let Some(dealer) = self.member.dealer else { return Ok(Vec::new()) };
        if self.params.old.is_some() && self.old.is_none() {
            return Ok(Vec::new());
        }
        let old = self.old.as_ref().map(|old| &old.tiers[..]);
        let missing = ceremony.record.dealers[dealer as usize].chunks..self.params.chunks() as u32;
        let part = |chunk| deal(&self.params, &self.seed, dealer, chunk, &ceremony.record.announced, old);
        missing.map(|chunk| part(chunk).map(Kind::Deal)).collect()
    }

    fn verdict(&self, ceremony: &Ceremony, blobs: &dyn Blobs) -> Result<Vec<Kind>> {
        let receiver = self.receiver(ceremony).filter(|r| !ceremony.has_done(*r, Phase::Verdict));
        let Some(receiver) = receiver else { return Ok(Vec::new()) };
        let mut dealers = ceremony.record.dealt.clone();
        dealers.sort_unstable();
        let mut complaints = Vec::new();
        for dealer in dealers.into_iter().filter(|d| !ceremony.record.dealers[*d as usize].caught) {
            if let Opened::Wrong(chunk) = self.open(ceremony, dealer, receiver, blobs)? {
                complaints.push(self.complaint(ceremony, dealer, chunk, receiver, blobs)?);
            }
        }
        Ok(vec![Kind::Verdict(Verdict { complaints })])
    }

    fn after_close(&self, ceremony: &Ceremony, blobs: &dyn Blobs) -> Result<Vec<Kind>> {
        let Some(receiver) = self.receiver(ceremony) else { return Ok(Vec::new()) };
        let mut kinds = Vec::new();
        let late = !ceremony.has_done(receiver, Phase::Verdict) && !ceremony.record.confirmed[receiver as usize];
        for dealer in &ceremony.record.counted {
            let caught = ceremony.record.dealers[*dealer as usize].caught;
            if !(late && !caught || ceremony.wants_reveal(*dealer, receiver)) {
                continue;
            }
            match self.open(ceremony, *dealer, receiver, blobs)? {
                Opened::Wrong(chunk) if late && !caught => {
                    kinds.push(Kind::Late(self.complaint(ceremony, *dealer, chunk, receiver, blobs)?));
                }
                Opened::Right(shares) if caught => {
                    let shares = shares.iter().flat_map(|s| *s.to_bytes()).collect::<Vec<u8>>().into();
                    kinds.push(Kind::Reveal(Reveal { dealer: *dealer, shares }));
                }
                _ => {}
            }
        }
        if !ceremony.record.confirmed[receiver as usize] && self.shares(ceremony, blobs)?.is_some() {
            kinds.push(Kind::Confirm(ceremony.record.keys_hash.clone()));
        }
        Ok(kinds)
    }

    fn complaint(
        &self,
        ceremony: &Ceremony,
        dealer: u32,
        chunk: u32,
        receiver: u32,
        blobs: &dyn Blobs,
    ) -> Result<Complaint> {
        Ok(ceremony.dealt(dealer, chunk, blobs)?.complain(&self.params, &self.seed, receiver))
    }

    fn open(&self, ceremony: &Ceremony, dealer: u32, receiver: u32, blobs: &dyn Blobs) -> Result<Opened> {
        let secret = self.encryption_secret();
        let mut all = Vec::with_capacity(self.params.tiers);
        for chunk in 0..self.params.chunks() as u32 {
            let dealt = ceremony.dealt(dealer, chunk, blobs)?;
            match dealt.open(&self.params, &ceremony.record.announced, receiver, &secret) {
                Some(shares) => all.extend(shares),
                None => return Ok(Opened::Wrong(chunk)),
            }
        }
        Ok(Opened::Right(all))
    }

    /// What others show of a caught dealer's secrets gives this receiver's shares.
    fn shown(&self, ceremony: &Ceremony, dealer: u32, receiver: u32, blobs: &dyn Blobs) -> Result<Option<Vec<Scalar>>> {
        let reveals = &ceremony.record.dealers[dealer as usize].reveals;
        let holders: Vec<u32> = (0..reveals.len() as u32).filter(|r| reveals[*r as usize]).collect();
        if holders.len() < self.params.threshold() {
            return Ok(None);
        }
        let positions: Vec<u64> = holders.iter().map(|h| position(*h)).collect();
        let weights = weights(&positions, position(receiver));
        let mut tiers = vec![Scalar::zero(); self.params.tiers];
        for (holder, weight) in holders.into_iter().zip(&weights) {
            let lost = || Error::new(Code::StorageCorrupt, format!("what {holder} showed of dealer {dealer} is lost"));
            let blob = blobs.blob(Blob::Reveal { dealer, receiver: holder })?.ok_or_else(lost)?;
            let reveal = Reveal::decode(blob).map_err(|_| lost())?;
            let shares = scalars("shares", &reveal.shares, self.params.tiers)?;
            tiers.iter_mut().zip(&shares).for_each(|(sum, share)| *sum = sum.add(&share.mul(weight)));
        }
        Ok(Some(tiers))
    }
}
