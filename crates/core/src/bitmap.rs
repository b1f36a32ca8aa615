//! The set of orders of a batch that a vote accepts, a certificate certifies, or an authority settled.
//! Bit `i` is order `i`, little-endian within bytes; exactly `ceil(count / 8)` bytes, spare bits zero.

use bytes::Bytes;

use crate::error::{Code, Error, Result};

/// A set of orders of one batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bitmap {
    count: usize,
    bytes: Vec<u8>,
}

impl Bitmap {
    /// No order.
    pub fn empty(count: usize) -> Self {
        Bitmap { count, bytes: vec![0; count.div_ceil(8)] }
    }

    /// Every order.
    pub fn full(count: usize) -> Self {
        let mut all = Bitmap::empty(count);
        (0..count).for_each(|i| all.set(i));
        all
    }

    /// From the wire. Errors: `BAD_BITMAP`.
    pub fn parse(bytes: &[u8], count: usize) -> Result<Self> {
        if bytes.len() != count.div_ceil(8) {
            return Err(Error::expected(Code::BadBitmap, "bytes of a bitmap", count.div_ceil(8), bytes.len()));
        }
        if !count.is_multiple_of(8) && bytes.last().is_some_and(|last| last >> (count % 8) != 0) {
            return Err(Error::new(Code::BadBitmap, format!("bits beyond the {count} orders are set")));
        }
        Ok(Bitmap { count, bytes: bytes.to_vec() })
    }

    /// Orders in the batch.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The bytes on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A copy for a message.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.bytes)
    }

    /// Adds order `i`.
    pub fn set(&mut self, i: usize) {
        assert!(i < self.count, "order {i} of {}", self.count);
        self.bytes[i / 8] |= 1 << (i % 8);
    }

    /// Takes order `i` out.
    pub fn clear(&mut self, i: usize) {
        assert!(i < self.count, "order {i} of {}", self.count);
        self.bytes[i / 8] &= !(1 << (i % 8));
    }

    /// Whether order `i` is in it.
    pub fn get(&self, i: usize) -> bool {
        i < self.count && self.bytes[i / 8] >> (i % 8) & 1 == 1
    }

    /// Orders in it.
    pub fn ones(&self) -> usize {
        self.bytes.iter().map(|b| b.count_ones() as usize).sum()
    }

    /// Whether it has no order.
    pub fn is_empty(&self) -> bool {
        self.bytes.iter().all(|b| *b == 0)
    }

    /// Whether every order of `other` is in it.
    pub fn contains(&self, other: &Bitmap) -> bool {
        self.count == other.count && self.bytes.iter().zip(&other.bytes).all(|(a, b)| b & !a == 0)
    }

    /// Adds the orders of `other`, a set of the same batch.
    pub fn union(&mut self, other: &Bitmap) {
        assert_eq!(self.count, other.count, "sets of one batch");
        self.bytes.iter_mut().zip(&other.bytes).for_each(|(a, b)| *a |= b);
    }

    /// Its orders that are not in `other`, a set of the same batch.
    pub fn without(&self, other: &Bitmap) -> Bitmap {
        assert_eq!(self.count, other.count, "sets of one batch");
        Bitmap { count: self.count, bytes: self.bytes.iter().zip(&other.bytes).map(|(a, b)| a & !b).collect() }
    }

    /// Its orders, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.count).filter(|i| self.get(*i))
    }

    /// Orders that are in at least `threshold` of `sets`, all of one batch.
    pub fn at_least(sets: &[Bitmap], threshold: usize, count: usize) -> Bitmap {
        let Some(first) = sets.first() else { return Bitmap::empty(count) };
        if sets.len() >= threshold && sets.iter().all(|s| s == first) {
            return first.clone();
        }
        let mut out = Bitmap::empty(count);
        for i in 0..count {
            if sets.iter().filter(|s| s.get(i)).count() >= threshold {
                out.set(i);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_form_parses() {
        assert!(Bitmap::parse(&[0xff, 0x01], 9).is_ok());
        assert_eq!(Bitmap::parse(&[0xff, 0x02], 9).unwrap_err().code, Code::BadBitmap);
        assert_eq!(Bitmap::parse(&[0xff], 9).unwrap_err().code, Code::BadBitmap);
        assert_eq!(Bitmap::parse(&[0xff, 0, 0], 9).unwrap_err().code, Code::BadBitmap);
        assert_eq!(Bitmap::full(9).as_bytes(), [0xff, 0x01]);
    }

    #[test]
    fn nothing_is_in_it_beyond_its_count() {
        for count in [1, 7, 8, 9, 16] {
            let mut all = Bitmap::full(count);
            assert_eq!((all.count(), all.ones(), all.get(count - 1), all.get(count)), (count, count, true, false));
            assert!(all.iter().eq(0..count) && !all.is_empty());
            all.clear(count - 1);
            assert_eq!((all.ones(), all.get(count - 1)), (count - 1, false));
        }
    }

    #[test]
    fn threshold_counts_sets_not_bits() {
        let mut a = Bitmap::empty(10);
        a.set(1);
        a.set(9);
        let mut b = Bitmap::empty(10);
        b.set(9);
        let both = Bitmap::at_least(&[a.clone(), b.clone(), a.clone()], 3, 10);
        assert_eq!(both.iter().collect::<Vec<_>>(), [9]);
        assert_eq!(Bitmap::at_least(&[a.clone(), b], 3, 10).ones(), 0);
        assert_eq!(Bitmap::at_least(&[a.clone(), a], 3, 10).ones(), 0);
    }
}
