//! Reads structured input from any bytes; what is missing at the end reads as zeros.

use bytes::Bytes;
use florin_core::limits::AMOUNT_MAX;

/// What is left of an input.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// At the beginning of an input.
    pub fn new(rest: &'a [u8]) -> Cursor<'a> {
        Cursor { rest }
    }

    /// Whether all is read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// At most so many bytes.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Whether the next byte is odd.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `end`, which is at least 1.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    /// Eight bytes, little-endian.
    pub fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let taken = self.take(8);
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }

    /// One of these.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'b, T>(&mut self, of: &'b [T]) -> &'b T {
        &of[self.below(of.len())]
    }

    /// Up to 255 bytes after their length.
    pub fn short(&mut self) -> &'a [u8] {
        let count = self.byte();
        self.take(usize::from(count))
    }

    /// Up to 65,535 bytes after their length.
    pub fn long(&mut self) -> Bytes {
        let (low, high) = (self.byte(), self.byte());
        Bytes::copy_from_slice(self.take(usize::from(u16::from_le_bytes([low, high]))))
    }

    /// An amount: mostly small, sometimes at the edges.
    pub fn amount(&mut self) -> u64 {
        match self.byte() {
            0xff => self.number(),
            0xfe => u64::MAX,
            0xfd => AMOUNT_MAX + 1,
            0xfc => AMOUNT_MAX,
            0xfb => AMOUNT_MAX - 1,
            small => u64::from(small),
        }
    }

    /// A time near `now`, ms; sometimes 0 or the last there is.
    pub fn time(&mut self, now: u64) -> u64 {
        match self.byte() {
            0 => 0,
            0xff => u64::MAX,
            0xfe => u64::MAX - 1,
            at @ 0x80.. => now.saturating_add(u64::from(at - 0x80) * 60_000),
            at => now.saturating_sub(64).saturating_add(u64::from(at)),
        }
    }
}
