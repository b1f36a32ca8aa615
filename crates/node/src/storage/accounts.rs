//! Accounts in memory, as the trees hold them: a look at a tree of ten million costs ten microseconds, one here less than one.
//!
//! It lies between the log's memory and the trees. Only a flush writes to it, once the trees durably hold what was flushed and
//! before the log's memory lets go of it. So what is here is what the trees hold, or what the log's memory still covers; an
//! account that is not here is looked for in the trees, and nothing rests on which ones are. It begins empty, fills with what
//! is written, and forgets when it is full.
//!
//! Ten million accounts are to fit beside the rest into 2 GiB, so none has an allocation of its own: records lie in slots of
//! pages, an index has four bytes and one of tag for each, and of a record only that is kept which can't be made again
//! ([`pack`]). `docs/decisions/0023-accounts-in-memory.md` says what it brings.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use florin_core::authority::state::Table;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::memory::{AHEAD, Memory};

/// Parts with a lock, an index and pages of their own: an index that grows holds up few readers, and for a short time.
const PARTS: usize = 64;
/// Bytes of a page, which has slots of one size.
const PAGE: usize = 16 << 10;
/// Slots come in multiples of this, bytes.
const STEP: usize = 16;
/// Bytes of the largest slot; an account that needs more is unusual, and stays in the trees.
const SLOT_MAX: usize = 256;
/// Room that a new record gets to grow, bytes: the number of the newest credit grows, and moving leaves a hole.
const SLACK: usize = 8;
/// Bits of a place that say which slot of a page.
const SLOT_BITS: u32 = 10;
/// Pages that are compared when one must go; the emptiest goes.
const COMPARED: usize = 8;
/// Networks of a part that are one byte each; further ones are eight more.
const NETWORKS: usize = 255;
/// Bytes of a record that an unpacked one has at most.
const RECORD_MAX: usize = SLOT_MAX + 64;

/// The memory.
pub(super) struct Accounts {
    parts: Vec<Mutex<Part>>,
    /// Hashed with a seed of this process: whoever chooses keys can't choose where they go.
    seed: RandomState,
    /// Bytes of all parts, about.
    bytes_max: AtomicUsize,
}

/// Numbers for operators.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct AccountsMemory {
    /// Accounts in it.
    pub accounts: u64,
    /// Bytes that it takes.
    pub bytes: u64,
    /// Looks that found their account here so far.
    pub found: u64,
    /// Looks that had to go on to the trees so far.
    pub missed: u64,
}

#[derive(Default)]
struct Part {
    /// Places of records: page and slot.
    index: HashTable<u32>,
    pages: Vec<Page>,
    /// Free slots, by class.
    free: [Vec<u32>; SLOT_MAX / STEP],
    /// Page that is looked at next when one must go.
    turn: usize,
    networks: Vec<[u8; 8]>,
    found: u64,
    missed: u64,
}

struct Page {
    /// Its slots have `STEP * (class + 1)` bytes.
    class: usize,
    used: usize,
    bytes: Box<[u8]>,
}

/// Where a record lies.
fn place(page: usize, slot: usize) -> u32 {
    (page << SLOT_BITS | slot) as u32
}

fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().expect("no panic under this lock")
}

impl Accounts {
    pub(super) fn new(bytes_max: usize) -> Accounts {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Accounts { parts, seed: RandomState::default(), bytes_max: AtomicUsize::new(bytes_max) }
    }

    /// Sets how many bytes it may take. With fewer than it has, it grows no more.
    pub(super) fn limit(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// The part that has a key's account, and the key's hash in it.
    fn part(&self, key: &[u8; 16]) -> (usize, u64) {
        let hash = self.seed.hash_one(key);
        // Bits that neither the tags of an index nor its first places are taken from.
        ((hash >> 40) as usize % PARTS, hash)
    }

    /// Shows the record of an account; `None` if it is not here.
    pub(super) fn look<T>(&self, key: &[u8], look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let key: &[u8; 16] = key.try_into().ok()?;
        let (part, hash) = self.part(key);
        let mut record = [0; RECORD_MAX];
        let mut part = lock(&self.parts[part]);
        let found = part.find(key, hash).map(|place| unpack(part.packed(place), &mut record));
        match found {
            Some(_) => part.found += 1,
            None => part.missed += 1,
        }
        drop(part);
        found.map(|len| look(&record[..len]))
    }

    /// Shows the records of some of these accounts, and says which of these are not here. Part by part, and [`AHEAD`] at a
    /// time, so that their cache misses overlap.
    pub(super) fn look_all(
        &self,
        keys: &[[u8; 16]],
        wanted: Vec<usize>,
        look: &mut dyn FnMut(usize, &[u8]),
    ) -> Vec<usize> {
        let mut missed = Vec::new();
        if wanted.is_empty() {
            return missed;
        }
        let mut parts = vec![Vec::new(); PARTS];
        for i in wanted {
            let (part, hash) = self.part(&keys[i]);
            parts[part].push((i, hash));
        }
        let mut record = [0; RECORD_MAX];
        for (part, entries) in self.parts.iter().zip(parts) {
            for entries in entries.chunks(AHEAD) {
                let mut part = lock(part);
                let places: Vec<Option<u32>> = entries.iter().map(|(i, hash)| part.find(&keys[*i], *hash)).collect();
                for ((i, _), place) in entries.iter().zip(places) {
                    match place {
                        Some(place) => {
                            part.found += 1;
                            let len = unpack(part.packed(place), &mut record);
                            look(*i, &record[..len]);
                        }
                        None => {
                            part.missed += 1;
                            missed.push(*i);
                        }
                    }
                }
            }
        }
        missed
    }

    /// Takes in what has been flushed, and so is what the trees now hold. Part by part, as an index then stays in the cache.
    pub(super) fn take_in(&self, memory: &Memory) {
        let mut parts = vec![Vec::new(); PARTS];
        for (key, place) in memory.short_keys(Table::Accounts) {
            let (part, hash) = self.part(&key);
            parts[part].push((key, hash, place));
        }
        for (part, entries) in self.parts.iter().zip(parts) {
            for entries in entries.chunks(AHEAD) {
                memory.touch(entries.iter().map(|(_, _, place)| place));
                let mut part = lock(part);
                for (key, hash, _) in entries {
                    std::hint::black_box(part.find(key, *hash));
                }
                for (key, hash, place) in entries {
                    self.put_into(&mut part, key, *hash, memory.value_slice(place));
                }
            }
        }
    }

    /// Takes in what the trees now hold for a key; `None`: nothing.
    fn put_into(&self, part: &mut Part, key: &[u8; 16], hash: u64, record: Option<&[u8]>) {
        let bytes_max = self.bytes_max.load(Ordering::Relaxed) / PARTS;
        let mut slot = [0; SLOT_MAX];
        // With no room for a page nothing is kept; what was kept before may be outdated.
        let record = record.filter(|_| bytes_max >= PAGE);
        let packed = record.and_then(|record| part.pack(key, record, &mut slot));
        match (part.find(key, hash), packed) {
            (Some(place), Some(len)) if len <= part.slot(place).len() => {
                part.slot_mut(place)[..len].copy_from_slice(&slot[..len]);
            }
            (found, packed) => {
                if let Some(place) = found {
                    part.remove(place, hash);
                }
                if let Some(len) = packed {
                    part.insert(&slot[..len], hash, bytes_max, &self.seed);
                }
            }
        }
    }

    /// What an operator wants to know.
    pub(super) fn numbers(&self) -> AccountsMemory {
        self.parts.iter().map(lock).fold(AccountsMemory::default(), |sum, part| AccountsMemory {
            accounts: sum.accounts + part.index.len() as u64,
            bytes: sum.bytes + part.bytes() as u64,
            found: sum.found + part.found,
            missed: sum.missed + part.missed,
        })
    }
}

impl Part {
    fn bytes(&self) -> usize {
        self.pages.len() * PAGE + self.index.allocation_size()
    }

    /// A whole slot: the length of what is packed in it, and that.
    fn slot(&self, place: u32) -> &[u8] {
        let (page, slot) = (&self.pages[(place >> SLOT_BITS) as usize], place as usize % (1 << SLOT_BITS));
        let size = STEP * (page.class + 1);
        &page.bytes[slot * size..(slot + 1) * size]
    }

    fn slot_mut(&mut self, place: u32) -> &mut [u8] {
        let (page, slot) = (&mut self.pages[(place >> SLOT_BITS) as usize], place as usize % (1 << SLOT_BITS));
        let size = STEP * (page.class + 1);
        &mut page.bytes[slot * size..(slot + 1) * size]
    }

    fn packed(&self, place: u32) -> Packed<'_> {
        Packed::of(self.slot(place))
    }

    fn find(&self, key: &[u8; 16], hash: u64) -> Option<u32> {
        self.index.find(hash, |place| self.packed(*place).is_of(key, &self.networks)).copied()
    }

    fn remove(&mut self, place: u32, hash: u64) {
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == place) {
            entry.remove();
        }
        let page = &mut self.pages[(place >> SLOT_BITS) as usize];
        page.used -= 1;
        self.free[page.class].push(place);
    }

    fn insert(&mut self, slot: &[u8], hash: u64, bytes_max: usize, seed: &RandomState) {
        let class = (slot.len() + SLACK).min(SLOT_MAX).div_ceil(STEP) - 1;
        let place = match self.free[class].pop() {
            Some(place) => place,
            None => self.new_page(class, bytes_max, seed),
        };
        self.pages[(place >> SLOT_BITS) as usize].used += 1;
        self.slot_mut(place)[..slot.len()].copy_from_slice(slot);
        let (pages, networks) = (&self.pages, &self.networks);
        self.index.insert_unique(hash, place, |place| {
            let (page, slot) = (&pages[(place >> SLOT_BITS) as usize], *place as usize % (1 << SLOT_BITS));
            let at = slot * STEP * (page.class + 1);
            seed.hash_one(Packed::of(&page.bytes[at..]).key(networks))
        });
    }

    /// Slots of a new page, or of one whose accounts are forgotten for it; one of them is taken.
    fn new_page(&mut self, class: usize, bytes_max: usize, seed: &RandomState) -> u32 {
        let page = match self.bytes() + PAGE > bytes_max && !self.pages.is_empty() {
            true => self.empty_one(seed),
            false => {
                self.pages.push(Page { class, used: 0, bytes: vec![0; PAGE].into() });
                self.pages.len() - 1
            }
        };
        self.pages[page].class = class;
        let slots = PAGE / (STEP * (class + 1));
        self.free[class].extend((1..slots).rev().map(|slot| place(page, slot)));
        place(page, 0)
    }

    /// Forgets the accounts of one page: of the next few the emptiest, so that holes don't last.
    fn empty_one(&mut self, seed: &RandomState) -> usize {
        let next = (0..COMPARED).map(|i| (self.turn + i) % self.pages.len());
        let page = next.min_by_key(|page| self.pages[*page].used).expect("some are compared");
        self.turn = (page + 1) % self.pages.len();
        let class = self.pages[page].class;
        self.free[class].retain(|place| (place >> SLOT_BITS) as usize != page);
        for slot in 0..PAGE / (STEP * (class + 1)) {
            let place = place(page, slot);
            let bytes = self.slot(place);
            // What a free slot last held may be elsewhere now: only this very place is forgotten.
            if bytes[0] != 0 {
                let hash = seed.hash_one(Packed::of(bytes).key(&self.networks));
                if let Ok(entry) = self.index.find_entry(hash, |other| *other == place) {
                    entry.remove();
                }
            }
        }
        let page_of = &mut self.pages[page];
        page_of.used = 0;
        page_of.bytes.fill(0);
        page
    }

    /// Number of a network; [`NETWORKS`] if it has none.
    fn network(&mut self, id: &[u8]) -> u8 {
        let found = self.networks.iter().position(|known| known[..] == *id);
        let number = found.unwrap_or_else(|| {
            if self.networks.len() < NETWORKS {
                self.networks.push(id.try_into().expect("8 bytes"));
                return self.networks.len() - 1;
            }
            NETWORKS
        });
        number as u8
    }

    /// Puts into a slot what the record of an account needs to be made again; how many bytes that is, `None` if it is an
    /// unusual one.
    ///
    /// A usual record begins with a holding, `0a L 0a 20 ADDRESS 12 10 BALANCE ...`, and goes on with the address that the
    /// account is bound to, `12 20 ADDRESS`, mostly the same one. The address begins with the actor, as the key ends. Balances
    /// are small numbers in 16 bytes. So the slot has:
    ///
    /// `length, network, L, what follows, ADDRESS, the balance without its zeros, all after BALANCE but the second ADDRESS`
    fn pack(&mut self, key: &[u8; 16], record: &[u8], slot: &mut [u8; SLOT_MAX]) -> Option<usize> {
        let (head, rest) = record.split_at_checked(BALANCE_END)?;
        let holding_end = 2 + usize::from(head[1]);
        let is_usual = head[0] == 0x0a
            && head[1] < 0x80
            && (BALANCE_END..=record.len()).contains(&holding_end)
            && head[2..4] == [0x0a, 0x20]
            && head[36..38] == [0x12, 0x10];
        let address = &head[4..36];
        if !is_usual || address[0] & 0x7f != key[8] || address[1..8] != key[9..] {
            return None;
        }
        let (holding, after) = rest.split_at(holding_end - BALANCE_END);
        let bound = after.strip_prefix(&[0x12, 0x20]).and_then(|after| after.strip_prefix(address));
        let balance = &head[38..BALANCE_END];
        let balance = &balance[..balance.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)];
        let network = self.network(&key[..8]);
        let long: &[u8] = if usize::from(network) == NETWORKS { &key[..8] } else { &[] };
        let flags = balance.len() as u8 | if bound.is_some() { BOUND } else { 0 };
        let parts = [&[network, head[1], flags], address, long, balance, holding, bound.unwrap_or(after)];
        let len = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
        if len > SLOT_MAX - 1 {
            return None;
        }
        slot[0] = len as u8;
        let mut at = 1;
        for part in parts {
            slot[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Some(len)
    }
}

/// Where the balance of a usual record ends.
const BALANCE_END: usize = 54;
/// Of the flags: the account is bound to the address of its holding.
const BOUND: u8 = 0x80;

/// What a slot holds.
#[derive(Clone, Copy)]
struct Packed<'a> {
    network: u8,
    /// Length of the holding.
    holding: u8,
    /// Bytes of the balance, and [`BOUND`].
    flags: u8,
    address: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Packed<'a> {
    fn of(slot: &'a [u8]) -> Packed<'a> {
        let bytes = &slot[..usize::from(slot[0])];
        let (address, rest) = bytes[4..].split_at(32);
        Packed { network: bytes[1], holding: bytes[2], flags: bytes[3], address, rest }
    }

    fn network(&self, networks: &[[u8; 8]]) -> [u8; 8] {
        match usize::from(self.network) {
            NETWORKS => self.rest[..8].try_into().expect("8 bytes"),
            number => networks[number],
        }
    }

    fn key(&self, networks: &[[u8; 8]]) -> [u8; 16] {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.network(networks));
        key[8..].copy_from_slice(&self.address[..8]);
        key[8] &= 0x7f;
        key
    }

    fn is_of(&self, key: &[u8; 16], networks: &[[u8; 8]]) -> bool {
        self.key(networks) == *key
    }
}

/// Makes the record again; returns its length.
fn unpack(packed: Packed<'_>, record: &mut [u8; RECORD_MAX]) -> usize {
    let long = if usize::from(packed.network) == NETWORKS { 8 } else { 0 };
    let (balance, rest) = packed.rest[long..].split_at(usize::from(packed.flags & !BOUND));
    let (holding, after) = rest.split_at(2 + usize::from(packed.holding) - BALANCE_END);
    let mut at = 0;
    let mut put = |part: &[u8]| {
        record[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    };
    put(&[0x0a, packed.holding, 0x0a, 0x20]);
    put(packed.address);
    put(&[0x12, 0x10]);
    put(balance);
    put(&[0; 16][balance.len()..]);
    put(holding);
    if packed.flags & BOUND != 0 {
        put(&[0x12, 0x20]);
        put(packed.address);
    }
    put(after);
    at
}

#[cfg(test)]
#[path = "accounts_tests.rs"]
mod tests;
