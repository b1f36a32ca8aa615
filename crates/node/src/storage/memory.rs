//! What the log holds and the trees don't yet: the newest value of every key written since the last flush.
//!
//! Nothing is copied out of the log's frames: an entry points to its key and value in them.
//!
//! Tables that are asked for one key at a time, and hold most of the keys, are hashed: a look at one costs a cache miss or two
//! instead of one a level. Only flushes, audits and `inspect` want their order, and sort for it.

use std::collections::{BTreeMap, HashMap, btree_map};
use std::hash::{Hash, Hasher};
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use florin_core::authority::state::Table;
use foldhash::fast::RandomState;

/// A key in the order of its bytes. The first 16 bytes compare as one number, which for account keys
/// saves the cache miss that a pointer would cost; keys of orders fit without one, too.
#[derive(Clone, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    head: u128,
    middle: u64,
    rest: Box<[u8]>,
    /// Of head and middle: tells "a" from "a\0". Compared last, as the shorter key has the smaller rest.
    len: u8,
}

/// Entries that are worth touching before they are looked at, see [`Memory::touch`].
pub(super) const AHEAD: usize = 32;
/// Bytes of an entry that are touched at most.
const TOUCHED: usize = 256;
const CACHE_LINE: usize = 64;

/// Bytes of a key before its rest.
const INLINE: usize = 24;

impl Key {
    pub(super) fn new(bytes: &[u8]) -> Key {
        let len = bytes.len().min(INLINE);
        let mut inline = [0; INLINE];
        inline[..len].copy_from_slice(&bytes[..len]);
        let (mut head, mut middle) = ([0; 16], [0; 8]);
        head.copy_from_slice(&inline[..16]);
        middle.copy_from_slice(&inline[16..]);
        Key {
            head: u128::from_be_bytes(head),
            middle: u64::from_be_bytes(middle),
            rest: bytes[len..].into(),
            len: len as u8,
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        let same = self.head == other.head && self.middle == other.middle && self.len == other.len;
        // Most have no rest, and comparing two that are empty is a call.
        same && (usize::from(self.len) < INLINE || self.rest == other.rest)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.head);
        state.write_u64(self.middle);
        if !self.rest.is_empty() {
            state.write(&self.rest);
        }
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

impl Layers {
    /// Shows the records of accounts that the log has, and says which of them it knows nothing of.
    pub(super) fn look_accounts(&self, keys: &[[u8; 16]], look: &mut dyn FnMut(usize, &[u8])) -> Vec<usize> {
        let table = Table::Accounts as usize;
        let mut unknown = Vec::new();
        for (from, keys) in keys.chunks(AHEAD).enumerate() {
            let mut found = Vec::with_capacity(AHEAD);
            for (i, key) in (from * AHEAD..).zip(keys) {
                let key = Key::new(key);
                let in_memory = |memory: &'_ Memory| memory.tables[table].get(&key).copied();
                let in_frozen = || self.frozen.as_deref().and_then(|m| in_memory(m).map(|place| (i, m, place)));
                match in_memory(&self.active).map(|place| (i, &self.active, place)).or_else(in_frozen) {
                    Some(place) => found.push(place),
                    None => unknown.push(i),
                }
            }
            found.iter().for_each(|(_, memory, place)| memory.touch(std::iter::once(place)));
            for (i, memory, place) in found {
                if let Some(record) = memory.value_slice(&place) {
                    look(i, record);
                }
            }
        }
        unknown
    }
}

/// Whether a table is asked for single keys only, but for flushes and audits.
fn is_hashed(table: Table) -> bool {
    matches!(table, Table::Accounts | Table::Orders | Table::Roots | Table::Notes | Table::Issued)
}

/// Hashed with a seed of this process: whoever chooses keys can't choose where they go.
type Places = HashMap<Key, Place, RandomState>;

/// Keys of one table.
enum Index {
    Sorted(BTreeMap<Key, Place>),
    Hashed {
        places: Places,
        /// All keys, ascending, once somebody has asked; forgotten with the next new one.
        order: OnceLock<Vec<Key>>,
    },
}

impl Index {
    fn of(table: Table) -> Index {
        match is_hashed(table) {
            true => Index::Hashed { places: Places::default(), order: OnceLock::new() },
            false => Index::Sorted(BTreeMap::new()),
        }
    }

    fn get(&self, key: &Key) -> Option<&Place> {
        match self {
            Index::Sorted(places) => places.get(key),
            Index::Hashed { places, .. } => places.get(key),
        }
    }

    /// Reads what will be read again when the key is looked for or inserted.
    fn touch(&self, key: &Key) {
        if let Index::Hashed { places, .. } = self {
            std::hint::black_box(places.contains_key(key));
        }
    }

    fn insert(&mut self, key: Key, place: Place) {
        match self {
            Index::Sorted(places) => drop(places.insert(key, place)),
            Index::Hashed { places, order } => {
                if places.insert(key, place).is_none() {
                    order.take();
                }
            }
        }
    }

    fn range(&self, from: Bound<Key>) -> Entries<'_> {
        match self {
            Index::Sorted(places) => Entries::Sorted(places.range((from, Bound::Unbounded))),
            Index::Hashed { places, order } => {
                let order = order.get_or_init(|| {
                    let mut keys: Vec<Key> = places.keys().cloned().collect();
                    keys.sort_unstable();
                    keys
                });
                let first = order.partition_point(|key| match &from {
                    Bound::Included(from) => key < from,
                    Bound::Excluded(from) => key <= from,
                    Bound::Unbounded => false,
                });
                Entries::Hashed(order[first..].iter(), places)
            }
        }
    }
}

/// Entries of an index, ascending.
enum Entries<'a> {
    Sorted(btree_map::Range<'a, Key, Place>),
    Hashed(std::slice::Iter<'a, Key>, &'a Places),
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a Key, &'a Place);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Entries::Sorted(range) => range.next(),
            Entries::Hashed(keys, places) => keys.next().map(|key| (key, &places[key])),
        }
    }
}

/// The newest values of one stretch of the log.
pub(super) struct Memory {
    frames: Vec<Bytes>,
    tables: [Index; Table::ALL.len()],
    bytes: usize,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory { frames: Vec::new(), tables: Table::ALL.map(Index::of), bytes: 0 }
    }
}

impl Memory {
    /// An empty one, with room for as many keys: growing means hashing all of them again.
    pub(super) fn next(&self) -> Memory {
        let mut next = Memory::default();
        for (index, before) in next.tables.iter_mut().zip(&self.tables) {
            if let (Index::Hashed { places, .. }, Index::Hashed { places: before, .. }) = (index, before) {
                places.reserve(before.len());
            }
        }
        next
    }

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
        let (key, place) = self.newest(at, key_len, value_len);
        self.tables[table].insert(key, place);
    }

    /// As [`Memory::put`], for at most [`AHEAD`] entries: the cache misses of all come first, so that they overlap.
    pub(super) fn put_all(&mut self, entries: impl Iterator<Item = (usize, usize, usize, u32)>) {
        let mut found = Vec::with_capacity(AHEAD);
        for (table, at, key_len, value_len) in entries {
            let (key, place) = self.newest(at, key_len, value_len);
            self.tables[table].touch(&key);
            found.push((table, key, place));
        }
        found.into_iter().for_each(|(table, key, place)| self.tables[table].insert(key, place));
    }

    fn newest(&self, at: usize, key_len: usize, value_len: u32) -> (Key, Place) {
        let frame = self.frames.len() - 1;
        let key = Key::new(&self.frames[frame][at..at + key_len]);
        (key, Place { frame: frame as u32, at: at as u32, key_len: key_len as u16, value_len })
    }

    /// `None`: knows nothing of the key; `Some(None)`: deleted.
    pub(super) fn get(&self, table: usize, key: &[u8]) -> Option<Option<Bytes>> {
        self.tables[table].get(&Key::new(key)).map(|place| self.value(place))
    }

    /// Entries of a table from a key on, ascending.
    pub(super) fn range(&self, table: usize, from: Bound<Key>) -> impl Iterator<Item = (&Key, &Place)> {
        self.tables[table].range(from)
    }

    /// Places of a table's entries in the order of their keys, to be gone through once: those of a hashed table are sorted
    /// with their keys, so that none is looked up again.
    pub(super) fn ascending(&self, table: usize) -> Vec<Place> {
        let mut entries: Vec<(u128, &Key, Place)> = match &self.tables[table] {
            Index::Sorted(places) => return places.values().copied().collect(),
            Index::Hashed { places, .. } => places.iter().map(|(key, place)| (key.head, key, *place)).collect(),
        };
        // Keys lie all over the memory: most are told apart without a look at them.
        entries.sort_unstable_by(|(a, one, _), (b, other, _)| a.cmp(b).then_with(|| one.cmp(other)));
        entries.into_iter().map(|(_, _, place)| place).collect()
    }

    /// Entries of a hashed table whose keys have 16 bytes, in any order.
    pub(super) fn short_keys(&self, table: Table) -> impl Iterator<Item = ([u8; 16], Place)> {
        let places = match &self.tables[table as usize] {
            Index::Sorted(_) => None,
            Index::Hashed { places, .. } => Some(places),
        };
        let entries = places.into_iter().flatten().filter(|(key, _)| key.len == 16);
        entries.map(|(key, place)| (key.head.to_be_bytes(), *place))
    }

    /// Reads a byte of each cache line of small entries that are looked at next: so their misses are waited for together,
    /// and not one after the other.
    pub(super) fn touch<'a>(&self, places: impl Iterator<Item = &'a Place>) {
        let mut sum = 0u8;
        for place in places {
            let (frame, at) = (&self.frames[place.frame as usize], place.at as usize);
            let value_len = if place.value_len == DELETED { 0 } else { place.value_len as usize };
            let end = at + (place.key_len as usize + value_len).min(TOUCHED);
            frame[at..end].iter().step_by(CACHE_LINE).for_each(|byte| sum = sum.wrapping_add(*byte));
        }
        std::hint::black_box(sum);
    }

    /// The bytes of an entry's key.
    pub(super) fn key(&self, place: &Place) -> Bytes {
        let at = place.at as usize;
        self.frames[place.frame as usize].slice(at..at + place.key_len as usize)
    }

    /// As [`Memory::value`], where it lies.
    pub(super) fn value_slice(&self, place: &Place) -> Option<&[u8]> {
        let at = place.at as usize + place.key_len as usize;
        let frame = &self.frames[place.frame as usize];
        (place.value_len != DELETED).then(|| &frame[at..at + place.value_len as usize])
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
