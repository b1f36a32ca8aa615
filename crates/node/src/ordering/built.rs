//! What the authority's own units are built upon, for AlephBFT 0.45 may forget it.
//!
//! A unit names its parents by creator and round, and has one hash over theirs. AlephBFT builds upon the first variant
//! of a parent that it has *saved*. To read the unit back, its own as well, it takes the first variants that it has
//! *received*, and asks peers for the list if the hash says otherwise. Of a forker's unit these may be two; and peers
//! can't know the parents of a unit that nobody has sent yet. The engine would make no units any more, and with f such
//! authorities the committee would order nothing until the session's end, which never came.
//!
//! So that question is answered here: AlephBFT takes saved units in the order of saving, so the own unit rests on what
//! some number of them, in that order, come to. Which number it was shows by the unit's hash.

use std::collections::HashSet;
use std::sync::Mutex;

use parity_scale_codec::Encode;

use super::keys::{Hash, Item, Sha};
use super::wire::{SignedUnit, Unit};

/// What the newest own unit may be built upon.
pub(super) struct Built {
    own: u64,
    authorities: usize,
    session: u64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The first variant of each unit, in the order of saving; without those that are older than a parent may be.
    saved: Vec<(Hash, SignedUnit)>,
    places: HashSet<(u64, u16)>,
    /// Round and data of the unit that is being made.
    making: Option<(u16, Option<Item>)>,
}

impl Built {
    pub(super) fn new(own: u32, authorities: usize, session: u64) -> Built {
        Built { own: u64::from(own), authorities, session, inner: Mutex::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic under this lock")
    }

    /// AlephBFT has saved a unit; it builds upon it from now on.
    pub(super) fn note_saved(&self, signed: SignedUnit) {
        let mut inner = self.lock();
        let (creator, round) = (signed.unit.creator, signed.unit.round);
        if !inner.places.insert((creator, round)) {
            return;
        }
        inner.saved.push((signed.unit.hash(), signed));
        if creator == self.own {
            inner.forget_before(round, self.authorities);
        }
    }

    /// Data for the unit of this round, which has its parents already.
    pub(super) fn note_making(&self, round: u32, data: Option<Item>) {
        self.lock().making = u16::try_from(round).ok().map(|round| (round, data));
    }

    /// The parents of the unit that is being made, if this is its hash.
    pub(super) fn parents_of(&self, hash: &Hash) -> Option<Vec<SignedUnit>> {
        let inner = self.lock();
        let (round, data) = inner.making.as_ref()?;
        let before = round.checked_sub(1)?;
        let mut parents: Vec<Option<usize>> = vec![None; self.authorities];
        let round_of = |at: usize| inner.saved[at].1.unit.round;
        for (at, (_, signed)) in inner.saved.iter().enumerate() {
            let parent = parents.get_mut(signed.unit.creator as usize)?;
            if signed.unit.round > before || parent.is_some_and(|known| round_of(known) >= signed.unit.round) {
                continue;
            }
            *parent = Some(at);
            if parents[self.own as usize].is_none_or(|own| round_of(own) != before) {
                continue;
            }
            let hashes: Vec<Option<(Hash, u16)>> =
                parents.iter().map(|parent| parent.map(|at| (inner.saved[at].0, round_of(at)))).collect();
            let unit = Unit {
                round: *round,
                creator: self.own,
                parents: hashes.iter().map(|parent| parent.map(|(_, round)| round)).collect(),
                parents_hash: hashes.using_encoded(<Sha as aleph_bft::Hasher>::hash),
                data: data.clone(),
                session: self.session,
            };
            if unit.hash() == *hash {
                return Some(parents.iter().flatten().map(|at| inner.saved[*at].1.clone()).collect());
            }
        }
        None
    }
}

impl Inner {
    /// The next own unit has the one of this round as a parent, and of others none that is older than their newest
    /// before it.
    fn forget_before(&mut self, round: u16, authorities: usize) {
        let mut oldest = vec![0; authorities];
        for (_, SignedUnit { unit, .. }) in &self.saved {
            if let Some(oldest) = oldest.get_mut(unit.creator as usize)
                && unit.round <= round
            {
                *oldest = unit.round.max(*oldest);
            }
        }
        self.saved
            .retain(|(_, signed)| oldest.get(signed.unit.creator as usize).is_some_and(|o| signed.unit.round >= *o));
    }
}
