//! Protobuf in its one canonical form, read and written by hand where that is done thousands of times a batch: fields
//! in ascending order, once, without defaults. Fields have numbers below 16, so that a tag is one byte.
//!
//! What these readers refuse may still be a message: a general decoder has the last word.

use std::ops::Range;

/// A fixed64, absent if it is 0.
pub(crate) fn put_fixed64(out: &mut Vec<u8>, tag: u8, value: u64) {
    if value != 0 {
        out.push(tag);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// A uint32, absent if it is 0.
pub(crate) fn put_uint32(out: &mut Vec<u8>, tag: u8, value: u32) {
    if value != 0 {
        out.push(tag);
        put_varint(out, u64::from(value));
    }
}

/// Bytes, there even if there are none.
pub(crate) fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A varint without a tag.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A uint64, absent if it is 0.
pub(crate) fn put_uint64(out: &mut Vec<u8>, tag: u8, value: u64) {
    if value != 0 {
        out.push(tag);
        put_varint(out, value);
    }
}

/// Bytes, absent if there are none.
pub(crate) fn put_some(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_bytes(out, tag, bytes);
    }
}

/// A message that `fill` writes in place.
pub(crate) fn put_message(out: &mut Vec<u8>, tag: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let start = out.len() + 1;
    out.push(0);
    fill(out);
    let length = out.len() - start;
    match length < 0x80 {
        true => out[start - 1] = length as u8,
        // Longer than most: its length takes more than the one byte left for it.
        false => {
            let mut prefix = Vec::with_capacity(10);
            put_varint(&mut prefix, length as u64);
            out.splice(start - 1..start, prefix);
        }
    }
}

/// The tag of a varint field.
pub(crate) const fn varint(field: u8) -> u8 {
    field << 3
}

/// The tag of a fixed64 field.
pub(crate) const fn fixed64(field: u8) -> u8 {
    field << 3 | 1
}

/// The tag of a field of bytes, or of a message.
pub(crate) const fn bytes(field: u8) -> u8 {
    field << 3 | 2
}
/// Reads canonical fields in ascending order. None: not canonical here. A field that is absent has its default;
/// whatever stands out of order is left over at the end.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads all of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// Reads a part of `bytes`; ranges that it finds are still places in all of them.
    pub(crate) fn within(bytes: &'a [u8], part: Range<usize>) -> Self {
        Reader { bytes: &bytes[..part.end], at: part.start }
    }

    /// Whether nothing is left over.
    pub(crate) fn is_done(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Whether this tag comes next; goes past it.
    pub(crate) fn take_tag(&mut self, tag: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&tag);
        self.at += usize::from(found);
        found
    }

    /// A varint in its shortest form.
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return (byte != 0 || shift == 0).then_some(value);
            }
        }
        None
    }

    /// A fixed64, 0 if it is absent.
    pub(crate) fn fixed64_field(&mut self, tag: u8) -> Option<u64> {
        if !self.take_tag(tag) {
            return Some(0);
        }
        let value = u64::from_le_bytes(*self.bytes[self.at..].first_chunk()?);
        self.at += 8;
        (value != 0).then_some(value)
    }

    /// A uint32, 0 if it is absent.
    pub(crate) fn uint32_field(&mut self, tag: u8) -> Option<u32> {
        if !self.take_tag(tag) {
            return Some(0);
        }
        let value = u32::try_from(self.varint()?).ok()?;
        (value != 0).then_some(value)
    }

    /// A uint64, 0 if it is absent.
    pub(crate) fn uint64_field(&mut self, tag: u8) -> Option<u64> {
        if !self.take_tag(tag) {
            return Some(0);
        }
        let value = self.varint()?;
        (value != 0).then_some(value)
    }

    /// A bool, false if it is absent.
    pub(crate) fn flag(&mut self, tag: u8) -> Option<bool> {
        match self.uint32_field(tag)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// The bytes of a field that is there and has exactly so many.
    pub(crate) fn array<const N: usize>(&mut self, tag: u8) -> Option<[u8; N]> {
        let range = self.bytes_field(tag, N)??;
        self.bytes[range].try_into().ok()
    }

    /// The bytes of a field; none if it is absent.
    pub(crate) fn slice(&mut self, tag: u8) -> Option<&'a [u8]> {
        let bytes = self.bytes;
        match self.bytes_field(tag, usize::MAX)? {
            Some(range) if range.is_empty() => None,
            Some(range) => Some(&bytes[range]),
            None => Some(&[]),
        }
    }

    /// Where the bytes of a length-delimited field are, if it comes next.
    pub(crate) fn bytes_field(&mut self, tag: u8, max: usize) -> Option<Option<Range<usize>>> {
        if !self.take_tag(tag) {
            return Some(None);
        }
        let length = usize::try_from(self.varint()?).ok()?;
        if length > max || length > self.bytes.len() - self.at {
            return None;
        }
        let start = self.at;
        self.at += length;
        Some(Some(start..self.at))
    }
}

#[cfg(test)]
#[path = "canonical_tests.rs"]
mod tests;
