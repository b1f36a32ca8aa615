//! What the log holds and the trees don't yet: the newest value of every key written since the last flush.
//!
//! Nothing is copied out of the log's frames: an entry points to its key and value in them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use florin_core::authority::state::Table;

/// A key in the order of its bytes. The first 16 bytes compare as one number, which for account keys
/// saves the cache miss that a pointer would cost.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    head: u128,
    rest: Box<[u8]>,
    /// Of the head: tells "a" from "a\0". Compared last, as the shorter key has the smaller rest.
    len: u8,
}

impl Key {
    pub(super) fn new(bytes: &[u8]) -> Key {
        let len = bytes.len().min(16);
        let mut head = [0; 16];
        head[..len].copy_from_slice(&bytes[..len]);
        Key { head: u128::from_be_bytes(head), rest: bytes[len..].into(), len: len as u8 }
    }
}

/// Where a key and its value lie.
#[derive(Clone, Copy)]
pub(super) struct Place {
    frame: u32,
    at: u32,
    key_len: u16,
    /// [`DELETED`] for a deletion.
    value_len: u32,
}

/// What covers the trees, newest first.
#[derive(Default)]
pub(super) struct Layers {
    /// Takes the writes.
    pub(super) active: Memory,
    /// On its way into the trees.
    pub(super) frozen: Option<Arc<Memory>>,
}

/// Length of the value of a deletion.
pub(super) const DELETED: u32 = u32::MAX;

/// The newest values of one stretch of the log.
#[derive(Default)]
pub(super) struct Memory {
    frames: Vec<Bytes>,
    tables: [BTreeMap<Key, Place>; Table::ALL.len()],
    bytes: usize,
}

impl Memory {
    /// Bytes of log that it stands for.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in a frame, or a whole segment with many; places are then relative to it.
    pub(super) fn add_frame(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push(frame);
    }

    /// Points a key to its newest value in the last frame; the value follows the key there.
    pub(super) fn put(&mut self, table: usize, at: usize, key_len: usize, value_len: u32) {
        let frame = self.frames.len() - 1;
        let key = Key::new(&self.frames[frame][at..at + key_len]);
        let place = Place { frame: frame as u32, at: at as u32, key_len: key_len as u16, value_len };
        self.tables[table].insert(key, place);
    }

    /// `None`: knows nothing of the key; `Some(None)`: deleted.
    pub(super) fn get(&self, table: usize, key: &[u8]) -> Option<Option<Bytes>> {
        self.tables[table].get(&Key::new(key)).map(|place| self.value(place))
    }

    /// Entries of a table from a key on, ascending.
    pub(super) fn range(&self, table: usize, from: Bound<Key>) -> impl Iterator<Item = (&Key, &Place)> {
        self.tables[table].range((from, Bound::Unbounded))
    }

    /// The bytes of an entry's key.
    pub(super) fn key(&self, place: &Place) -> Bytes {
        let at = place.at as usize;
        self.frames[place.frame as usize].slice(at..at + place.key_len as usize)
    }

    /// The bytes of an entry's value; `None` for a deletion.
    pub(super) fn value(&self, place: &Place) -> Option<Bytes> {
        if place.value_len == DELETED {
            return None;
        }
        let at = place.at as usize + place.key_len as usize;
        Some(self.frames[place.frame as usize].slice(at..at + place.value_len as usize))
    }
}
