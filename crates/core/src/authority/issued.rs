//! What the index of issued notes keeps of one blinded nonce: the tiers in which settled orders ask for it, and how many do.
//!
//! Anybody may ask for what another has asked for, and an order may be voided when it has settled: so a bit a tier is not enough
//! to take one of two requests back.

use std::collections::BTreeMap;

use super::state::{State, Table, corrupt};
use crate::error::{Error, Result};

/// Bytes of tiers: a bit each.
const TIERS_BYTES: usize = 8;
/// Bytes of a further count: tier and count.
const MORE_BYTES: usize = 5;

/// How many settled orders ask for a blinded nonce, by tier.
///
/// Bytes: a bit for each tier (u64), then for each tier that more than one order asks for: tier (u8) and how many
/// further ones (u32), ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Issued {
    tiers: u64,
    more: BTreeMap<u8, u32>,
}

impl Issued {
    /// What is known of a blinded nonce; nothing if nobody asks for it.
    ///
    /// # Errors
    /// `STORAGE_CORRUPT`.
    pub fn load(state: &dyn State, blinded: &[u8]) -> Result<Issued> {
        match state.get(Table::Issued, blinded)? {
            Some(value) => Issued::decode(blinded, &value),
            None => Ok(Issued::default()),
        }
    }

    /// Decodes the value of a blinded nonce.
    ///
    /// # Errors
    /// `STORAGE_CORRUPT` for another encoding than [`Issued::encode`]'s, and for no tier at all.
    pub fn decode(blinded: &[u8], value: &[u8]) -> Result<Issued> {
        let wrong = || -> Error { corrupt(Table::Issued, blinded, "no tiers with further counts") };
        let (tiers, rest) = value.split_first_chunk::<TIERS_BYTES>().ok_or_else(wrong)?;
        let mut issued = Issued { tiers: u64::from_be_bytes(*tiers), more: BTreeMap::new() };
        for entry in rest.chunks(MORE_BYTES) {
            let (&[tier], count) = entry.split_first_chunk().ok_or_else(wrong)?;
            let count = <[u8; 4]>::try_from(count).map(u32::from_be_bytes).map_err(|_| wrong())?;
            let ascends = issued.more.last_key_value().is_none_or(|(last, _)| *last < tier);
            if !ascends || count == 0 || !issued.has(tier.into()) {
                return Err(wrong());
            }
            issued.more.insert(tier, count);
        }
        if issued.tiers == 0 { Err(wrong()) } else { Ok(issued) }
    }

    /// The value in the table; `None` if nobody asks.
    pub fn encode(&self) -> Option<Vec<u8>> {
        if self.tiers == 0 {
            return None;
        }
        let mut value = self.tiers.to_be_bytes().to_vec();
        for (tier, count) in &self.more {
            value.push(*tier);
            value.extend(count.to_be_bytes());
        }
        Some(value)
    }

    /// Whether some order asks for that tier.
    pub fn has(&self, tier: u32) -> bool {
        tier < u64::BITS && self.tiers >> tier & 1 == 1
    }

    /// Tiers that are asked for, ascending.
    pub fn tiers(&self) -> impl Iterator<Item = u32> {
        (0..u64::BITS).filter(|tier| self.has(*tier))
    }

    /// How many orders ask for it, in whichever tier.
    pub fn count(&self) -> u64 {
        u64::from(self.tiers.count_ones()) + self.more.values().map(|n| u64::from(*n)).sum::<u64>()
    }

    /// An order asks for that tier, 0 to 63.
    pub fn add(&mut self, tier: u32) {
        if self.has(tier) {
            *self.more.entry(tier as u8).or_default() += 1;
        } else {
            self.tiers |= 1 << tier;
        }
    }

    /// An order that asks for that tier is void.
    pub fn remove(&mut self, tier: u32) {
        let key = tier as u8;
        match self.more.get_mut(&key) {
            Some(1) => {
                self.more.remove(&key);
            }
            Some(count) => *count -= 1,
            None => self.tiers &= !(1 << tier),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_several_is_taken_back() {
        let mut issued = Issued::default();
        assert_eq!((issued.encode(), issued.count()), (None, 0));
        for tier in [3, 63, 3, 0, 3] {
            issued.add(tier);
        }
        assert_eq!(issued.tiers().collect::<Vec<_>>(), [0, 3, 63]);
        assert_eq!(issued.count(), 5);
        for (tier, left) in [(3, true), (3, true), (3, false), (0, false)] {
            issued.remove(tier);
            assert_eq!(issued.has(tier), left);
            assert_eq!(Issued::decode(&[], &issued.encode().unwrap()), Ok(issued.clone()));
        }
        issued.remove(63);
        assert_eq!(issued, Issued::default());
        assert!(!issued.has(64));
    }

    #[test]
    fn only_its_own_bytes_are_read() {
        let mut issued = Issued::default();
        [5, 5, 9, 9, 9].into_iter().for_each(|tier| issued.add(tier));
        let value = issued.encode().unwrap();
        assert_eq!(hex::encode(&value), "00000000000002200500000001 0900000002".replace(' ', ""));
        assert_eq!(Issued::decode(&[], &value), Ok(issued));
        let plain = hex::decode("0000000000000220").unwrap();
        assert_eq!(Issued::decode(&[], &plain).unwrap().count(), 2);
        for (what, bytes) in [
            ("nothing", ""),
            ("no tier", "0000000000000000"),
            ("short", "00000000000002"),
            ("cut", "00000000000002200500000001090000"),
            ("a tier alone", "000000000000022005"),
            ("descending", "000000000000022009000000020500000001"),
            ("twice", "000000000000022005000000010500000001"),
            ("no count", "00000000000002200500000000"),
            ("another tier", "00000000000002200600000001"),
            ("no such tier", "00000000000002204500000001"),
        ] {
            let error = Issued::decode(&[], &hex::decode(bytes).unwrap()).expect_err(what);
            assert_eq!(error.code, crate::error::Code::StorageCorrupt, "{what}");
        }
    }
}
