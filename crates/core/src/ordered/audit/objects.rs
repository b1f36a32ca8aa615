//! The records of shared objects: each belongs to something that the units say, and nothing is missing.

use std::collections::{BTreeMap, BTreeSet};

use super::Audit;
use prost::Message;

use crate::authority::audit::{Flow, Pages, decode, known_of_actor, read};
use crate::authority::state::{Table, corrupt};
use crate::bitmap::Bitmap;
use crate::error::Result;
use crate::ordered::book::Book;
use crate::ordered::modules::contracts::contract_key;
use crate::ordered::modules::primary::balance_key;
use crate::ordered::modules::registry::for_shard;
use crate::ordered::step::Object;
use crate::permission::Permission;
use crate::wire::{self, ChannelRecord, contract_reply::State as S};

/// How many there are of what has one record each.
#[derive(PartialEq, Eq, Debug, Default)]
struct Counts {
    contracts: u64,
    contracts_open: u64,
    expiries: u64,
    deposits: u64,
    redeems: u64,
    outcomes: u64,
    bearers: u64,
}

impl Audit<'_> {
    pub(super) fn objects(&mut self, book: &Book) -> Result<()> {
        let mut found = Counts::default();
        let mut timers: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        let mut due: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        let (mut notes_due, mut note_timers) = (BTreeMap::new(), BTreeMap::new());
        let mut spent = Flow::default();
        let mut networks = BTreeMap::new();
        let mut primary = BTreeMap::new();
        let mut callers = 0;
        let (mut channels, mut channels_of) = (BTreeMap::new(), BTreeSet::new());
        let mut delays = BTreeMap::new();
        let (times, mut found_times) = (self.books.channels.times(), 0);
        for entry in Pages::new(self.state, Table::Objects) {
            let (key, value) = entry?;
            let object = Object::ALL.into_iter().find(|o| key.first() == Some(&(*o as u8)));
            let rest = key.slice(1.min(key.len())..);
            match (object, rest.len()) {
                (Some(Object::Caller), 16) => {
                    callers += 1;
                    self.caller(actor_of(&rest), decode(Table::Objects, &key, value)?);
                }
                (Some(Object::Contract), 32) => {
                    let record: wire::ContractRecord = decode(Table::Objects, &key, value)?;
                    found.contracts += 1;
                    found.contracts_open += u64::from(record.state() == S::Open);
                    let state = S::try_from(record.state).unwrap_or(S::Unknown);
                    if state == S::Unknown || (state != S::Claimed && !record.preimage.is_empty()) {
                        self.out.find(format!("contract {}: expected a state, found {state:?}", hex::encode(&rest)));
                    }
                }
                (Some(Object::Channel), 32) => {
                    channels.insert(rest.to_vec(), decode::<ChannelRecord>(Table::Objects, &key, value)?);
                }
                (Some(Object::Delay), 33) => {
                    delays.insert(rest.to_vec(), decode::<wire::DelayRecord>(Table::Objects, &key, value)?);
                }
                (Some(Object::ChannelOf), 64) if value.is_empty() => {
                    channels_of.insert((rest[..32].to_vec(), rest[32..].to_vec()));
                }
                (Some(Object::Expiry), 40) if value.is_empty() => {
                    if times.binary_search(&(number(&rest[..8]), rest[8..].to_vec())).is_ok() {
                        found_times += 1;
                        continue;
                    }
                    let contract: Option<wire::ContractRecord> =
                        read(self.state, Table::Objects, &contract_key(&rest[8..]))?;
                    let open = contract.filter(|c| c.state() == S::Open).and_then(|c| c.fund).map(|f| f.expiry_ms);
                    let at = format!("contract {}: expiry of an open one", hex::encode(&rest[8..]));
                    self.out.expect(at, open, Some(number(&rest[..8])));
                    found.expiries += 1;
                }
                (Some(Object::CashKeys | Object::Ceremony | Object::CeremonyBlob), _) => self.dkg_object(&key, &value),
                (Some(Object::Deposit), 8) => found.deposits += 1,
                (Some(Object::Redeem), 8) => found.redeems += 1,
                (Some(Object::Outcome), 20) => found.outcomes += 1,
                (Some(Object::Bearer), 32) => found.bearers += 1,
                (Some(Object::Note), 32) => {
                    let record: wire::NoteRecoveryRecord = decode(Table::Objects, &key, value)?;
                    if record.due_ms != 0 {
                        notes_due.insert(rest.to_vec(), record.due_ms);
                    }
                    self.note(&rest, &record);
                    if !record.spent_by.is_empty() {
                        spent.merge(&Flow::note(&rest, &record.spent_by));
                    }
                }
                (Some(Object::NoteTimer), 40) if value.is_empty() => {
                    note_timers.insert(rest[8..].to_vec(), number(&rest[..8]));
                }
                (Some(Object::Network), 8) => {
                    let record: wire::NetworkRecord = decode(Table::Objects, &key, value)?;
                    let shard = self.log.committee().shard_of(number(&rest), 0);
                    let known = for_shard(&record).encode_to_vec();
                    self.out.registry.entry(shard).or_default().add((number(&rest), 0), &known);
                    networks.insert(number(&rest), record);
                }
                (Some(Object::Actor), 16) => {
                    let record: wire::ActorRecord = decode(Table::Objects, &key, value)?;
                    let (id, expected) = (actor_of(&rest), self.books.actors.remove(&actor_of(&rest)));
                    let shard = self.log.committee().shard_of(id.0, id.1);
                    let known = known_of_actor(&record.permission, record.frozen, record.generation);
                    self.out.registry.entry(shard).or_default().add(id, &known);
                    self.out.expect(format!("actor {} of network {}", id.1, id.0), expected, Some(record));
                }
                (Some(Object::Primary), 0) => self.primary(&decode(Table::Objects, &key, value)?),
                (Some(Object::Primary), 32) => {
                    let record: wire::PrimaryBalance = decode(Table::Objects, &key, value)?;
                    primary.insert(rest, i128::from(record.amount));
                }
                (Some(Object::Timer), 24) if value.is_empty() => {
                    timers.insert(actor_of(&rest[8..]), number(&rest[..8]));
                }
                (Some(Object::Recovery), 16) => {
                    let record: wire::RecoveryRecord = decode(Table::Objects, &key, value)?;
                    due.insert(actor_of(&rest), record.due_ms);
                    self.recovery(actor_of(&rest), &record);
                }
                _ => return Err(corrupt(Table::Objects, &key, "no object is kept there")),
            }
        }
        self.dkg_missing();
        self.books.primary.retain(|_, amount| *amount != 0);
        let expected = Counts {
            contracts: self.books.contracts_made,
            contracts_open: self.books.contracts_open,
            expiries: self.books.contracts_open,
            deposits: self.books.deposits,
            redeems: self.books.redeems,
            outcomes: self.out.orders - self.books.bearers_applied,
            bearers: self.books.bearers_made,
        };
        self.out.expect("records", expected, found);
        self.out.expect("times that channels wait for", times.len(), found_times);
        self.out.expect("delays that wait for clocks", self.books.channels.waiting(), delays);
        self.channels(channels, channels_of);
        self.out.expect("networks", &self.books.networks, &networks);
        let missing: Vec<(u64, u64)> = self.books.actors.keys().take(1).copied().collect();
        self.out.expect("actors without a record", vec![], missing);
        self.out.expect("balances on the primary", &self.books.primary, &primary);
        self.out.expect("accounts with a record", self.out.callers.len(), callers);
        // A recovery that is due and lacks reports has no timer: the next report decides it.
        due.retain(|id, due_ms| *due_ms > book.time_ms || timers.contains_key(id));
        self.out.expect("recoveries by the time that they are due", due, timers);
        notes_due.retain(|nonce, due_ms| *due_ms > book.time_ms || note_timers.contains_key(nonce));
        self.out.expect("recoveries of notes by the time that they are due", notes_due, note_timers);
        self.out.expect("notes that settled orders have spent", self.books.spent, spent);
        let any = self.books.deposits + self.books.redeems > 0;
        let there = self.state.get(Table::Objects, &balance_key(&[]))?.is_some();
        self.out.expect("whether the primary has a record", any, there);
        Ok(())
    }

    /// Each channel is what the units say, and its sides find it.
    fn channels(&mut self, found: BTreeMap<Vec<u8>, ChannelRecord>, found_of: BTreeSet<(Vec<u8>, Vec<u8>)>) {
        let expected = self.books.channels.records();
        let mut of = BTreeSet::new();
        for (id, record) in &expected {
            for side in [&record.opener, &record.other].into_iter().flatten() {
                of.insert((side.address.to_vec(), id.clone()));
            }
            self.out.expect(format!("channel {}", hex::encode(id)), Some(record), found.get(id));
        }
        self.out.expect("channels", expected.len(), found.len());
        self.out.expect("channels by the addresses of their sides", of, found_of);
    }

    fn caller(&mut self, id: (u64, u64), record: wire::CallerRecord) {
        let at = format!("actor {}", id.1);
        let caller = self.out.callers.entry(id).or_default();
        let last = caller.calls.last;
        (caller.voided, caller.recovered) = (record.voided.clone(), record.recovered);
        self.out.expect(format!("{at}: last CALL"), last, record.last_call);
        let ascending = record.voided.windows(2).all(|w| w[0] < w[1]);
        let in_bounds = record.voided.iter().all(|v| *v > last && *v <= record.recovered);
        if !ascending || !in_bounds || (last == 0 && record.recovered == 0) {
            self.out
                .find(format!("{at}: expected voided seqnums after its last CALL, each recovered, found {record:?}"));
        }
    }

    fn recovery(&mut self, id: (u64, u64), record: &wire::RecoveryRecord) {
        let at = format!("recovery of actor {} at {}", id.1, record.seqnum);
        let (recovered, last) = self.out.callers.get(&id).map_or((0, 0), |c| (c.recovered, c.calls.last));
        self.out.recoveries.insert(id, record.seqnum);
        if record.seqnum <= recovered.max(last) {
            self.out.find(format!("{at}: expected a seqnum after {recovered} and {last}"));
        }
        if Bitmap::parse(&record.reports, self.log.committee().size()).is_err() {
            self.out.find(format!("{at}: expected a bit for each authority's report"));
        }
        let opened =
            record.open.is_empty() || Permission::address_of(id.0, &record.open).as_bytes()[..] == record.account;
        if !opened || record.account.len() != 32 || (record.seqnum == 1) == record.open.is_empty() {
            self.out.find(format!("{at}: expected its account, found {record:?}"));
        }
    }

    /// A note that the log knows. How often it was freed only its recoveries say, each of which an order has asked for.
    fn note(&mut self, nonce: &[u8], record: &wire::NoteRecoveryRecord) {
        let at = format!("note {}", hex::encode(nonce));
        let named = <[u8; 32]>::try_from(nonce).ok().and_then(|n| self.books.recovered.get(&n).copied()).unwrap_or(0);
        let open = record.due_ms != 0;
        if record.recoveries.saturating_add(open.into()) > named {
            self.out.find(format!("{at}: expected at most {named} recoveries as orders ask, found {record:?}"));
        }
        let reports = match open {
            true => Bitmap::parse(&record.reports, self.log.committee().size()).is_ok(),
            false => record.reports.is_empty(),
        };
        let ended = record.spent_by.len() == 32 || record.spent_by.is_empty() && record.recoveries > 0;
        if !reports || if open { !record.spent_by.is_empty() } else { !ended } {
            self.out.find(format!("{at}: expected an open recovery, or what one came to, found {record:?}"));
        }
        if open {
            self.out.note_recoveries.insert(nonce.to_vec());
        }
        if record.recoveries > 0 {
            self.out.freed_notes.insert(nonce.to_vec(), record.recoveries);
        }
    }

    fn primary(&mut self, record: &wire::PrimaryRecord) {
        let expected = wire::PrimaryRecord { deposits: self.books.deposits, paid: self.books.redeems };
        self.out.expect("the primary's counters", &expected, record);
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn actor_of(key: &[u8]) -> (u64, u64) {
    (number(&key[..8]), number(&key[8..16]))
}
