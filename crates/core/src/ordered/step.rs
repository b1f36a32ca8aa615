//! One step of the log in memory: reads through to the state, keeps what changed, can take back the part of an
//! order that failed, and turns the rest into writes.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use super::book::{BOOK_KEY, Book};
use super::effect::Effects;
use super::session::header_hash;
use crate::address::Address;
use crate::authority::state::{LOG, Link, State, Table, Write, corrupt, get_u64, link_key, outbox_key};
use crate::committee::Committee;
use crate::error::Result;
use crate::merkle::Hash;
use crate::wire;

/// Bytes of one delivery to a shard, roughly.
const DELIVERY_BYTES: usize = 1 << 20;

/// What a key of the objects table belongs to. The letters are on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Object {
    /// (PBTX network, actor) -> `ActorRecord`.
    Actor = b'k' as isize,
    /// Order id -> `OutcomeRecord` of a bearer order.
    Bearer = b'b' as isize,
    /// (network, actor) -> `CallerRecord`.
    Caller = b'a' as isize,
    /// Nothing -> `CashKeys` in use; run (8) -> those that its run has come to, until they are.
    CashKeys = b'e' as isize,
    /// Run of the key generation (8) -> `CeremonyRecord`; the empty key -> number of the newest run, u64.
    Ceremony = b'g' as isize,
    /// (run, what) -> a larger record of it.
    CeremonyBlob = b'h' as isize,
    /// Channel id -> `ChannelRecord`.
    Channel = b'l' as isize,
    /// (address, channel id) -> nothing: the channels of an address.
    ChannelOf = b'i' as isize,
    /// (channel id, what: 0 and 1 a side's withdrawal, 2 the settle) -> `DelayRecord`.
    Delay = b'w' as isize,
    /// Contract id -> `ContractRecord`.
    Contract = b'c' as isize,
    /// Index -> `DepositEntry`, of the embedded primary.
    Deposit = b'd' as isize,
    /// Network id -> `NetworkRecord`.
    Network = b'n' as isize,
    /// Nonce -> `NoteRecoveryRecord` of a note that the log was asked to free, or has seen spent.
    Note = b'm' as isize,
    /// (due ms, nonce) -> nothing: recoveries of notes by the time they are due.
    NoteTimer = b'u' as isize,
    /// (network, actor, seqnum) -> `OutcomeRecord`.
    Outcome = b'o' as isize,
    /// Address -> balance on the embedded primary, u64; the empty key -> `PrimaryRecord`.
    Primary = b'p' as isize,
    /// (time ms, id) -> nothing: open contracts by the time that they expire, channels by when they can be collected, and
    /// announced withdrawals by when they are due.
    Expiry = b'x' as isize,
    /// Index -> `RedeemEntry`.
    Redeem = b'r' as isize,
    /// (due ms, network, actor) -> nothing: recoveries by the time they are due.
    Timer = b't' as isize,
    /// (network, actor) -> `RecoveryRecord` of an open recovery.
    Recovery = b'v' as isize,
}

impl Object {
    /// Every kind.
    pub const ALL: [Object; 20] = [
        Object::Actor,
        Object::Bearer,
        Object::Caller,
        Object::CashKeys,
        Object::Ceremony,
        Object::CeremonyBlob,
        Object::Channel,
        Object::ChannelOf,
        Object::Contract,
        Object::Delay,
        Object::Deposit,
        Object::Expiry,
        Object::Network,
        Object::Note,
        Object::NoteTimer,
        Object::Outcome,
        Object::Primary,
        Object::Redeem,
        Object::Timer,
        Object::Recovery,
    ];
}

/// A key of the objects table.
pub fn object_key(object: Object, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![object as u8];
    parts.iter().for_each(|p| key.extend_from_slice(p));
    key
}

/// Key of what belongs to one actor.
pub fn actor_key(object: Object, network_id: u64, actor: u64) -> Vec<u8> {
    object_key(object, &[&network_id.to_be_bytes(), &actor.to_be_bytes()])
}

/// A record of the objects table.
pub fn get_object<M: Message + Default>(state: &dyn State, key: &[u8]) -> Result<Option<M>> {
    crate::authority::state::get_record(state, Table::Objects, key)
}

/// The changes of one step.
pub struct Step<'a> {
    state: &'a dyn State,
    committee: &'a Committee,
    /// Totals and place.
    pub book: Book,
    before: Book,
    objects: BTreeMap<Vec<u8>, Option<Bytes>>,
    /// What `objects` held before each change since the last mark.
    undo: Vec<(Vec<u8>, Option<Option<Bytes>>)>,
    credits: Vec<(u32, wire::DeliveredCredit)>,
    steps: Vec<(u32, wire::LogStep)>,
    /// Orders whose outcome is decided.
    pub decided: Vec<(u64, u64, u32)>,
    /// Bearer orders whose outcome is decided.
    pub decided_bearers: Vec<Hash>,
}

/// A point to return to.
pub struct Mark {
    book: Book,
    undo: usize,
    credits: usize,
    steps: usize,
    decided: (usize, usize),
}

impl<'a> Step<'a> {
    /// A step that has changed nothing yet.
    pub fn new(committee: &'a Committee, state: &'a dyn State) -> Result<Self> {
        let book = Book::load(state, committee.size())?;
        Ok(Step {
            state,
            committee,
            before: book.clone(),
            book,
            objects: BTreeMap::new(),
            undo: Vec::new(),
            credits: Vec::new(),
            steps: Vec::new(),
            decided: Vec::new(),
            decided_bearers: Vec::new(),
        })
    }

    /// Log time, ms since 1970.
    pub fn time_ms(&self) -> u64 {
        self.book.time_ms
    }

    /// The bytes at a key.
    pub fn get_bytes(&self, key: &[u8]) -> Result<Option<Bytes>> {
        match self.objects.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.state.get(Table::Objects, key),
        }
    }

    /// The record at a key.
    pub fn get<M: Message + Default>(&self, key: &[u8]) -> Result<Option<M>> {
        match self.get_bytes(key)? {
            None => Ok(None),
            Some(bytes) => M::decode(bytes).map(Some).map_err(|e| corrupt(Table::Objects, key, &e.to_string())),
        }
    }

    /// Entries from a key on, in the state before this step.
    pub fn scan_before(&self, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        self.state.scan(Table::Objects, from, limit)
    }

    /// Sets a key.
    pub fn put_bytes(&mut self, key: Vec<u8>, value: Bytes) {
        self.change(key, Some(value));
    }

    /// Sets a record.
    pub fn put<M: Message>(&mut self, key: Vec<u8>, record: &M) {
        self.change(key, Some(record.encode_to_vec().into()));
    }

    /// Removes a key.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.change(key, None);
    }

    fn change(&mut self, key: Vec<u8>, value: Option<Bytes>) {
        let before = self.objects.insert(key.clone(), value);
        self.undo.push((key, before));
    }

    /// Credits an account, at its shard.
    pub fn credit(&mut self, address: &Address, amount: u64, source: wire::CreditEntry) {
        self.book.sent += amount as i128;
        let credit =
            wire::DeliveredCredit { address: Bytes::copy_from_slice(address.as_bytes()), amount, source: Some(source) };
        self.credits.push((address.shard(self.committee.shards), credit));
    }

    /// Tells the shard of an actor something.
    pub fn tell(&mut self, (network_id, actor): (u64, u64), kind: wire::log_step::Kind) {
        let shard = self.committee.shard_of(network_id, actor);
        self.steps.push((shard, wire::LogStep { kind: Some(kind) }));
    }

    /// Tells the shard of an actor to settle an order on the log's word.
    pub fn tell_settle(&mut self, (network_id, actor): (u64, u64), body: &Bytes) {
        let shard = self.committee.shard_of(network_id, actor);
        if let Some((last, wire::LogStep { kind: Some(wire::log_step::Kind::Settle(settle)) })) = self.steps.last_mut()
            && *last == shard
        {
            settle.bodies.push(body.clone());
            return;
        }
        let settle = wire::LogSettle { bodies: vec![body.clone()] };
        self.steps.push((shard, wire::LogStep { kind: Some(wire::log_step::Kind::Settle(settle)) }));
    }

    /// Where it is now.
    pub fn mark(&mut self) -> Mark {
        Mark {
            book: self.book.clone(),
            undo: self.undo.len(),
            credits: self.credits.len(),
            steps: self.steps.len(),
            decided: (self.decided.len(), self.decided_bearers.len()),
        }
    }

    /// Takes back everything since the mark.
    pub fn rollback(&mut self, mark: Mark) {
        while self.undo.len() > mark.undo {
            if let Some((key, before)) = self.undo.pop() {
                match before {
                    Some(value) => self.objects.insert(key, value),
                    None => self.objects.remove(&key),
                };
            }
        }
        self.book = mark.book;
        self.credits.truncate(mark.credits);
        self.steps.truncate(mark.steps);
        self.decided.truncate(mark.decided.0);
        self.decided_bearers.truncate(mark.decided.1);
    }

    /// Opens the session after the one with this header.
    pub(super) fn next_session(&mut self, header: &wire::SessionHeader) {
        self.book.session += 1;
        self.book.units = 0;
        self.book.bytes = 0;
        self.book.previous = Bytes::copy_from_slice(&header_hash(header));
    }

    /// Everything that changed.
    ///
    /// # Panics
    /// If the postings do not sum to zero: then this code is wrong, and nothing may be written.
    pub(super) fn finish(mut self) -> Result<Effects> {
        assert_eq!(self.book.sum(), 0, "the postings of a step sum to zero");
        let mut writes = Vec::with_capacity(self.objects.len() + 4);
        let mut hash = Sha256::new();
        hash.update(b"florin-state-v1");
        self.book.state_hash = Bytes::new();
        hash.update(&self.before.state_hash);
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        field(&self.book.encode().encode_to_vec());
        for (key, value) in std::mem::take(&mut self.objects) {
            field(&key);
            field(value.as_deref().unwrap_or_default());
            writes.push(Write { table: Table::Objects, key, value: value.map(|v| v.to_vec()) });
        }
        let state_hash: [u8; 32] = hash.finalize().into();
        self.book.state_hash = Bytes::copy_from_slice(&state_hash);
        let outbox = self.write_deliveries(&mut writes)?;
        writes.push(Write::put(Table::Meta, BOOK_KEY, self.book.encode().encode_to_vec()));
        let (decided, decided_bearers) = (self.decided, self.decided_bearers);
        Ok(Effects { writes, outbox, decided, decided_bearers, ..Default::default() })
    }

    fn write_deliveries(&mut self, writes: &mut Vec<Write>) -> Result<Vec<(u32, u64)>> {
        let mut by_shard: BTreeMap<u32, Vec<wire::Delivery>> = BTreeMap::new();
        // Steps first: a shard has an order before it has what came of it.
        for (shard, step) in std::mem::take(&mut self.steps) {
            let parts = by_shard.entry(shard).or_insert_with(|| vec![wire::Delivery::default()]);
            if parts.last().is_some_and(|p| p.encoded_len() > DELIVERY_BYTES) {
                parts.push(wire::Delivery::default());
            }
            if let Some(part) = parts.last_mut() {
                part.steps.push(step);
            }
        }
        let mut sizes: BTreeMap<u32, usize> = BTreeMap::new();
        for (shard, credit) in std::mem::take(&mut self.credits) {
            let parts = by_shard.entry(shard).or_insert_with(|| vec![wire::Delivery::default()]);
            let size = sizes.entry(shard).or_default();
            if *size > DELIVERY_BYTES {
                parts.push(wire::Delivery::default());
                *size = 0;
            }
            *size += credit.encoded_len() + 8;
            if let Some(part) = parts.last_mut() {
                part.credits.push(credit);
            }
        }
        let mut outbox = Vec::new();
        for (to_shard, parts) in by_shard {
            let key = link_key(Link::Sent, to_shard);
            let mut sequence = get_u64(self.state, Table::Links, &key)?.unwrap_or(0);
            for mut part in parts {
                sequence += 1;
                (part.from_shard, part.to_shard, part.sequence) = (LOG, to_shard, sequence);
                writes.push(Write::put(Table::Outbox, outbox_key(to_shard, sequence), part.encode_to_vec()));
            }
            writes.push(Write::put(Table::Links, key, sequence.to_be_bytes()));
            outbox.push((to_shard, sequence));
        }
        Ok(outbox)
    }
}
