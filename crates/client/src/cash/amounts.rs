//! Which notes to make, and which to give: pure arithmetic on how many of each tier there are.
//!
//! A note of tier t is worth 2^t minor units, so every tier divides the next. That is why taking the largest first finds
//! notes of an exact sum if there are any, and the fewest of them, and why the least that is too much is one note above what
//! is missing ([`plan_spend`]). Whatever a wallet has it can pay: in the worst case one note is changed first.
//!
//! A wallet keeps [`SPREAD`] notes of each tier where it can, so that most payments need no change.

use std::ops::{Index, IndexMut};

use florin_core::limits::{CASH_TIERS, NOTES_IN_MAX, NOTES_PER_ORDER_MAX, OUTPUTS_MAX};
use florin_core::{Code, Error, Result};

/// Tiers at most: 0 to 31.
pub const TIERS: usize = CASH_TIERS;
/// Notes of a tier that a wallet likes to have.
pub const SPREAD: u32 = 3;
/// Notes that one order spends at most.
pub const NOTES_PER_ORDER: u64 = NOTES_IN_MAX as u64;
/// Notes in an order, inputs and outputs together.
pub const NOTES_IN_ORDER: u64 = NOTES_PER_ORDER_MAX as u64;
/// Notes that a string is made of, if fewer tiers can't help: more are changed into fewer first.
pub const NOTES_PER_STRING: u64 = 32;

/// How many notes of each tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub [u32; TIERS]);

impl Counts {
    /// Of single notes.
    pub fn of(tiers: impl IntoIterator<Item = u32>) -> Counts {
        let mut counts = Counts::default();
        tiers.into_iter().for_each(|tier| counts[tier] += 1);
        counts
    }

    /// What they are worth, minor units.
    pub fn total(&self) -> u128 {
        self.0.iter().enumerate().map(|(tier, n)| u128::from(*n) << tier).sum()
    }

    /// How many notes.
    pub fn notes(&self) -> u64 {
        self.0.iter().map(|n| u64::from(*n)).sum()
    }

    /// Each note's tier, ascending.
    pub fn tiers(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().enumerate().flat_map(|(tier, n)| std::iter::repeat_n(tier as u32, *n as usize))
    }

    /// What is left without those of `other`, all of which are here.
    pub fn without(&self, other: &Counts) -> Counts {
        Counts(std::array::from_fn(|tier| self.0[tier].saturating_sub(other.0[tier])))
    }

    /// Both together.
    pub fn with(&self, other: &Counts) -> Counts {
        Counts(std::array::from_fn(|tier| self.0[tier].saturating_add(other.0[tier])))
    }
}

impl Index<u32> for Counts {
    type Output = u32;
    fn index(&self, tier: u32) -> &u32 {
        &self.0[tier as usize]
    }
}

impl IndexMut<u32> for Counts {
    fn index_mut(&mut self, tier: u32) -> &mut u32 {
        &mut self.0[tier as usize]
    }
}

/// What a note of a tier is worth.
pub fn value(tier: u32) -> u64 {
    1 << tier
}

/// The fewest notes of an amount, of tiers below `tiers` (1 to 32).
pub fn fewest(amount: u64, tiers: usize) -> Result<Counts> {
    let top = tiers as u32 - 1;
    let tops = u32::try_from(amount >> top).ok().filter(|n| u64::from(*n) <= NOTES_IN_ORDER);
    let Some(tops) = tops else {
        let expected = format!("at most {}", NOTES_IN_ORDER << top);
        return Err(Error::expected(Code::Limit, "minor units in notes of one order", expected, amount));
    };
    let mut counts = Counts::default();
    (0..top).for_each(|tier| counts[tier] = (amount >> tier & 1) as u32);
    counts[top] = tops;
    Ok(counts)
}

/// Notes to make of an amount, at most `room` of tiers below `tiers`, so that with those there are (`have`) there
/// are [`SPREAD`] of each tier, from the lowest up; fewer of each if there is no room. Errors: `LIMIT`.
pub fn plan_issue(amount: u64, have: &Counts, tiers: usize, room: u64) -> Result<Counts> {
    for spread in (0..=SPREAD).rev() {
        let mut made = Counts::default();
        let mut left = amount;
        for tier in 0..tiers as u32 {
            let missing = spread.saturating_sub(have[tier]);
            let n = u64::from(missing).min(left >> tier);
            made[tier] = n as u32;
            left -= n << tier;
        }
        let made = made.with(&fewest(left, tiers)?);
        if made.notes() <= room.min(OUTPUTS_MAX as u64) {
            return Ok(made);
        }
    }
    Err(Error::expected(Code::Limit, "notes of one order", format!("at most {room}"), fewest(amount, tiers)?.notes()))
}

/// Notes to pay an amount with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What to take: worth the amount and the change.
    pub notes: Counts,
    /// What comes back, minor units: the least that any choice of notes leaves.
    pub change: u64,
    /// If there is change: the tier of the one note of these that must be changed.
    pub split: Option<u32>,
}

/// What to do first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Pay with these.
    Pay(Plan),
    /// Change these into fewer, and plan again: it would take more than one order can spend.
    Merge(Counts),
}

/// How to pay an amount. Without change if any choice of notes allows it, of these the one with the fewest notes; else with the least
/// change. Errors: `BAD_AMOUNT` for 0; `INSUFFICIENT_FUNDS`; `LIMIT` if notes of the highest tier do not do.
pub fn plan_spend(have: &Counts, amount: u64, notes_max: u64) -> Result<Step> {
    if amount == 0 {
        return Err(Error::new(Code::BadAmount, "amount: expected more than zero, found 0"));
    }
    if have.total() < u128::from(amount) {
        let message = format!("the wallet's notes are worth {} minor units, this takes {amount}", have.total());
        return Err(Error::new(Code::InsufficientFunds, message));
    }
    let (notes, rest) = largest_first(have, amount);
    let plan = if rest == 0 { Plan { notes, change: 0, split: None } } else { least_above(have, notes, rest) };
    if plan.notes.notes() <= notes_max {
        return Ok(Step::Pay(plan));
    }
    match smallest(have) {
        Some(merge) => Ok(Step::Merge(merge)),
        None => Err(Error::expected(
            Code::Limit,
            "notes that it takes",
            format!("at most {notes_max}: pay less at a time"),
            plan.notes.notes(),
        )),
    }
}

/// Takes the largest first; what is missing is less than any note that is left.
fn largest_first(have: &Counts, amount: u64) -> (Counts, u64) {
    let (mut notes, mut rest) = (Counts::default(), amount);
    for tier in (0..TIERS as u32).rev() {
        let n = u64::from(have[tier]).min(rest >> tier);
        notes[tier] = n as u32;
        rest -= n << tier;
    }
    (notes, rest)
}

/// One note more than the largest first, the smallest there is; and without those that are not needed then.
fn least_above(have: &Counts, mut notes: Counts, rest: u64) -> Plan {
    let left = have.without(&notes);
    let above = (0..TIERS as u32).find(|tier| left[*tier] > 0).expect("what is left is worth more than the rest");
    let mut change = value(above) - rest;
    for tier in (0..TIERS as u32).rev() {
        let n = u64::from(notes[tier]).min(change >> tier);
        notes[tier] -= n as u32;
        change -= n << tier;
    }
    notes[above] += 1;
    let split = (0..TIERS as u32).find(|tier| notes[*tier] > 0 && value(*tier) > change);
    Plan { notes, change, split }
}

/// The smallest notes, as many as one order spends; `None` if they can't become fewer.
fn smallest(have: &Counts) -> Option<Counts> {
    let mut few = Counts::default();
    let top = TIERS as u32 - 1;
    let mut room = NOTES_PER_ORDER;
    for tier in 0..top {
        let n = u64::from(have[tier]).min(room);
        few[tier] = n as u32;
        room -= n;
    }
    let fewer = fewest(u64::try_from(few.total()).ok()?, TIERS).ok()?;
    (fewer.notes() < few.notes()).then_some(few)
}

#[cfg(test)]
#[path = "amounts_tests.rs"]
mod tests;
