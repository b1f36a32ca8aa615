//! What has to be true after every step, derived again.
//!
//! Nothing here calls the code that it checks: records are read with the generated decoders from what an
//! honest authority writes, and votes are counted where they leave their signer, not where somebody claims
//! to have them. For Byzantine authorities the worst is assumed: that they sign everything.

pub mod cash;
mod channel_orders;
pub mod channels;
mod finish;
pub mod ledger;
pub mod log;
mod objects;
pub mod orders;
mod pbtx;
mod promises;
pub mod registry;
mod rules;
mod signed;
mod vouchers;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use florin_core::authority::state::{Table, Write};
use florin_core::wire;
use prost::Message as _;

use crate::disk::{Disk, Image};
use cash::Cash;
use ledger::Ledger;
use ledger::signed;
use log::Log;
use orders::{Id, Orders, Place, short};
use pbtx::Streams;
pub use rules::{Facts, Promise, Rule};
use signed::Signatures;

/// (authority, shard).
pub type NodeId = (u32, u32);
/// Violations kept of each rule; one bug makes many.
const VIOLATIONS_MAX: u64 = 5;

/// All checkers.
pub struct Checkers {
    /// Virtual time, for the text of violations.
    pub now: u64,
    /// Events so far.
    pub events: u64,
    /// The run ends once one of these rules is broken.
    pub stop_at: BTreeSet<Rule>,
    /// What the ordered log must do.
    pub log: Log,
    /// What is known of notes.
    pub cash: Cash,
    facts: Facts,
    orders: Orders,
    ledger: Ledger,
    violations: Vec<String>,
    found: BTreeMap<Rule, u64>,
    /// Event at which a rule was first broken.
    first: BTreeMap<Rule, u64>,
    /// Who voted for what, as it left: place -> id -> honest authorities.
    votes: BTreeMap<Place, BTreeMap<Id, BTreeSet<u32>>>,
    /// Who acknowledged what, as it left.
    acknowledgements: BTreeMap<Id, BTreeSet<u32>>,
    /// Promises that left each shard.
    voted: BTreeMap<NodeId, BTreeMap<Place, BTreeSet<Id>>>,
    acked: BTreeMap<NodeId, BTreeMap<Place, Id>>,
    /// What any honest authority settled.
    settled: BTreeMap<Place, Id>,
    /// Orders of honest wallets with a certificate.
    certified: BTreeSet<Id>,
    shown: BTreeMap<NodeId, u64>,
    /// (network, actor) -> authority -> its account there.
    accounts: BTreeMap<(u64, u64), BTreeMap<u32, wire::AccountRecord>>,
    deliveries: BTreeMap<(NodeId, u32, u64), Bytes>,
    /// Streams of PBTX networks.
    streams: Streams,
    signatures: Signatures,
}

impl Checkers {
    /// Checkers of a committee that has done nothing yet.
    pub fn new(facts: Facts) -> Self {
        Checkers {
            now: 0,
            events: 0,
            stop_at: BTreeSet::new(),
            first: BTreeMap::new(),
            log: Log::new(&facts),
            cash: Cash::new(facts.clone()),
            streams: Streams::default(),
            signatures: Signatures::default(),
            accounts: BTreeMap::new(),
            ledger: Ledger::new(facts.clone()),
            orders: Orders::new(facts.network_id, facts.loose()),
            facts,
            violations: Vec::new(),
            found: BTreeMap::new(),
            votes: BTreeMap::new(),
            acknowledgements: BTreeMap::new(),
            voted: BTreeMap::new(),
            acked: BTreeMap::new(),
            settled: BTreeMap::new(),
            certified: BTreeSet::new(),
            shown: BTreeMap::new(),
            deliveries: BTreeMap::new(),
        }
    }

    /// Notes a broken rule.
    pub fn violation(&mut self, rule: Rule, what: impl AsRef<str>) {
        self.first.entry(rule).or_insert(self.events);
        let found = self.found.entry(rule).or_default();
        *found += 1;
        if *found <= VIOLATIONS_MAX {
            let at = self.now as f64 / 1e6;
            self.violations.push(format!("{rule:?} at {at:.6} s: {}", what.as_ref()));
        }
    }

    /// Broken rules so far, the first few of each.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// By broken rule: the event at which it was first.
    pub fn broken(&self) -> &BTreeMap<Rule, u64> {
        &self.first
    }

    /// Whether a rule is broken that ends the run.
    pub fn is_stopped(&self) -> bool {
        self.stop_at.iter().any(|rule| self.first.contains_key(rule))
    }

    /// Orders that honest authorities have settled.
    pub fn settled_orders(&self) -> u64 {
        self.settled.len() as u64
    }

    /// Orders that an honest authority is shown.
    pub fn seen(&mut self, raw: &[Bytes]) {
        if !raw.is_empty() {
            self.orders.learn(raw);
        }
    }

    /// An honest authority has written a step.
    pub fn wrote(&mut self, node: NodeId, disk: &Disk, writes: &[Write]) {
        let mut found = self.ledger.wrote(node, disk.last_step(), writes, &self.orders);
        let (_, from_log) = self.ledger.with_log(node.0);
        let sent = self.log.sums_of(node.0).sent;
        if from_log > sent {
            found.push((Rule::SumZero, format!("{node:?}: the log has credited {sent}, {from_log} has come")));
        }
        found.into_iter().for_each(|(rule, v)| self.violation(rule, v));
        for w in writes {
            match (w.table, &w.value) {
                (Table::Orders, Some(value)) => self.check_settled(node, &w.key, value),
                (Table::Orders, None) => {
                    let place = place_of(&w.key, &self.orders);
                    if self.log.void_at_or_below(place).is_none() {
                        self.violation(Rule::SettledAlike, format!("{node:?} deletes settled {place:?}"));
                    }
                }
                (Table::Accounts, Some(_)) => self.check_account(node, disk.current(), &w.key),
                _ => {}
            }
        }
        self.check_pbtx(node, disk.current(), writes);
        let found = self.cash.wrote(node, disk.current(), writes, &self.orders);
        found.into_iter().for_each(|(rule, v)| self.violation(rule, v));
    }

    fn check_account(&mut self, node: NodeId, image: &Image, key: &[u8]) {
        let (network, actor) = (number(&key[..8]), number(&key[8..16]));
        self.check_votes(node, image, network, actor);
        let record = account(image, network, actor);
        let free = |seqnum: u32| record.frozen == 0 || seqnum < record.frozen;
        // One that hangs on a void order, or on a void that has not come here yet, waits until its seqnum passes.
        let follows = |e: &wire::EarlyRecord| e.seqnum <= record.seqnum || e.prev_hash == record.prev_hash;
        let due = |e: &&wire::EarlyRecord| e.seqnum <= record.seqnum + 1 && follows(e);
        if record.early.iter().filter(due).any(|e| free(e.seqnum)) {
            self.violation(Rule::Stuck, format!("{node:?} keeps a certified order of actor {actor} waiting"));
        }
        self.accounts.entry((network, actor)).or_default().insert(node.0, record);
    }

    fn check_settled(&mut self, node: NodeId, key: &[u8], value: &[u8]) {
        let place = place_of(key, &self.orders);
        let Some(id) = order_id(value) else {
            if !self.log.is_void(&place) {
                self.violation(Rule::SettledAlike, format!("{node:?} voids {place:?}, which the log has not"));
            }
            return;
        };
        let voters = self.votes.get(&place).and_then(|v| v.get(&id)).map_or(0, BTreeSet::len);
        if voters < self.facts.honest_quorum() {
            self.violation(
                Rule::SettledAlike,
                format!("{node:?} settles {place:?} with votes of {voters} honest authorities"),
            );
        }
        let first = *self.settled.entry(place).or_insert(id);
        let above_void = place.before().is_some_and(|before| self.log.void_at_or_below(before).is_some());
        if first != id && !above_void {
            self.violation(Rule::SettledAlike, format!("{node:?} settles another order at {place:?} than others have"));
        }
    }

    /// Where an account is, as f + 1 honest authorities have it that no recovery has frozen: seqnum, prev_hash, last
    /// operation. What a wallet would ask them for.
    pub fn account_of(&self, network: u64, actor: u64) -> Option<(u32, u64, u32)> {
        let mut counts: BTreeMap<(u32, u64, u32), usize> = BTreeMap::new();
        let honest = self.facts.authorities as usize - self.facts.byzantine.len();
        let known = self.accounts.get(&(network, actor));
        for record in known.into_iter().flat_map(BTreeMap::values).filter(|r| r.frozen == 0) {
            *counts.entry((record.seqnum, record.prev_hash, record.last_call)).or_default() += 1;
        }
        *counts.entry((0, 0, 0)).or_default() += honest - known.map_or(0, BTreeMap::len);
        counts.into_iter().rev().find(|(_, n)| *n > self.facts.faults()).map(|(state, _)| state)
    }

    /// The most that an honest authority has for an address, minor units.
    pub fn balance(&self, address: &[u8; 32]) -> i128 {
        self.ledger.balance(address)
    }

    /// A sync is through.
    pub fn synced(&mut self, node: NodeId, upto: u64) {
        self.ledger.synced(node, upto);
    }

    /// A crash has taken all steps after this one.
    pub fn crashed(&mut self, node: NodeId, last_step: u64) {
        self.ledger.crashed(node, last_step);
    }

    /// A shard is back and knows what its disk says.
    pub fn restarted(&mut self, node: NodeId, disk: &Disk, stream_end: u64) {
        let actors = self.voted.get(&node).into_iter().flat_map(|v| v.keys().map(|p| (p.network, p.actor)));
        let actors: BTreeSet<(u64, u64)> = actors.collect();
        actors.into_iter().for_each(|(network, actor)| self.check_votes(node, disk.current(), network, actor));
        self.streams.restarted(node, disk.current());
        let found = self.cash.restarted(node, disk.current(), &self.orders);
        found.into_iter().for_each(|(rule, v)| self.violation(rule, v));
        let acked: Vec<(Place, Id)> =
            self.acked.get(&node).into_iter().flat_map(|a| a.iter().map(|(p, id)| (*p, *id))).collect();
        for (place, id) in acked {
            let void = self.log.void_at_or_below(place).is_some();
            if settled_order(disk.current(), place) != Some(id) && !void {
                self.violation(Rule::PromiseForgotten, format!("{node:?} forgets settled {}", hex::encode(id)));
            }
        }
        let shown = self.shown.get(&node).copied().unwrap_or(0);
        if stream_end < shown {
            self.violation(
                Rule::PromiseForgotten,
                format!("{node:?} has shown its settled stream up to {shown}, and it ends at {stream_end}"),
            );
        }
    }

    /// Peers see the settled stream up to here.
    pub fn shown(&mut self, node: NodeId, end: u64) {
        let shown = self.shown.entry(node).or_default();
        *shown = end.max(*shown);
    }

    /// A delivery leaves for another shard of the same authority.
    pub fn delivered(&mut self, node: NodeId, disk: &Disk, delivery: &wire::Delivery) {
        let bytes = delivery.encode_to_vec();
        let key = (node, delivery.to_shard, delivery.sequence);
        if *self.deliveries.entry(key).or_insert_with(|| Bytes::copy_from_slice(&bytes)) != bytes {
            self.violation(
                Rule::PromiseForgotten,
                format!("{node:?} delivers something else under the same sequence {}", delivery.sequence),
            );
        }
        let mut at = delivery.to_shard.to_be_bytes().to_vec();
        at.extend_from_slice(&delivery.sequence.to_be_bytes());
        if disk.synced().value(Table::Outbox, &at).is_none_or(|stored| *stored != bytes) {
            self.violation(Rule::NotDurable, format!("{node:?} delivery, sequence {}", delivery.sequence));
        }
    }

    /// An honest authority's log has written a step.
    pub fn log_wrote(&mut self, authority: u32, disk: &Disk, writes: &[Write]) {
        let before = self.log.voided();
        let found = self.log.wrote(authority, &self.orders, writes);
        found.into_iter().for_each(|(rule, v)| self.violation(rule, v));
        if self.log.voided() > before {
            let all: Vec<Id> = self.acknowledgements.keys().copied().collect();
            all.iter().for_each(|id| self.check_final(id));
        }
        let (_, from_log) = self.ledger.with_log(authority);
        let record = log_record(disk.current());
        if from_log > signed(&record.sent) {
            self.violation(Rule::SumZero, format!("log {authority} forgets credits that have come"));
        }
    }

    /// A crash has taken the newest steps of a log.
    pub fn log_crashed(&mut self, authority: u32, disk: &Disk) {
        self.log.moved(authority, &log_record(disk.current()));
    }

    /// A log tells its shards what it has taken.
    pub fn handed(&mut self, authority: u32, disk: &Disk, calls: &[wire::LogCall], done: &[bool]) {
        for call in calls.iter().zip(done).filter(|(call, done)| **done && !call.report).map(|(call, _)| call) {
            let part = |letter: u8| [&[letter][..], &account_key(call.network_id, call.actor)].concat();
            let read = |image: &Image, letter| image.value(Table::Objects, &part(letter)).cloned();
            let caller = read(disk.synced(), b'a').and_then(|v| wire::CallerRecord::decode(v).ok()).unwrap_or_default();
            let open = read(disk.synced(), b'v').and_then(|v| wire::RecoveryRecord::decode(v).ok());
            let seqnum = call.seqnum;
            let shown = open.is_some_and(|r| r.seqnum == seqnum);
            let taken = caller.last_call >= seqnum || caller.recovered >= seqnum || caller.voided.contains(&seqnum);
            if !shown && !taken && !call.shown {
                self.violation(Rule::NotDurable, format!("log {authority} takes {:?}", (call.actor, seqnum)));
            }
        }
    }

    /// Signature shares leave an honest authority, by blinded nonce and tier.
    pub fn shares_left(&mut self, node: NodeId, disk: &Disk, given: &[(Bytes, u32)]) {
        let found = self.cash.shares_left(node, disk, given, &self.orders, &self.log);
        found.into_iter().for_each(|(rule, v)| self.violation(rule, v));
    }

    /// The notes that an order asks for.
    pub fn asked_by(&self, raw: &Bytes) -> Vec<(Bytes, u32)> {
        let order = orders::id_of(raw).and_then(|id| self.orders.get(&id));
        order.map_or(Vec::new(), |o| o.asked.iter().map(|(tier, blinded)| (blinded.clone(), *tier)).collect())
    }

    /// Whether an order has settled at some honest authority.
    pub fn has_settled(&self, id: &Id) -> bool {
        self.orders.get(id).is_some_and(|o| self.settled.get(&o.place) == Some(id))
    }

    /// Honest authorities whose votes for an order have left.
    pub fn honest_voters(&self, id: &Id) -> usize {
        let place = self.orders.get(id).map(|o| o.place);
        place.and_then(|p| self.votes.get(&p)?.get(id)).map_or(0, BTreeSet::len)
    }

    /// A client believes that an order has a certificate.
    pub fn believed_certified(&mut self, id: Id) {
        let voters = self.honest_voters(&id);
        if voters < self.facts.honest_quorum() {
            self.violation(
                Rule::FalseBelief,
                format!("{} is believed certified: {voters} honest authorities voted", hex::encode(id)),
            );
        }
        self.certified.insert(id);
    }

    /// A client believes that an order is final.
    pub fn believed_final(&mut self, id: Id) {
        let found = self.acknowledgements.get(&id).map_or(0, BTreeSet::len);
        if found < self.facts.honest_quorum() {
            self.violation(
                Rule::FalseBelief,
                format!("{} is believed final: {found} honest authorities settled it", hex::encode(id)),
            );
        }
    }

    /// Whether an order comes after one that a recovery has voided, of which this authority has not heard yet: it
    /// can't place the order.
    pub fn after_an_unknown_void(&self, image: &Image, raw: &Bytes) -> bool {
        let Some(place) = orders::id_of(raw).and_then(|id| self.orders.get(&id)).map(|o| o.place) else { return false };
        let Some(void) = self.log.last_void(place) else { return false };
        let record = image.value(Table::Accounts, &account_key(place.network, place.actor));
        let record = record.and_then(|v| wire::AccountRecord::decode(v.clone()).ok()).unwrap_or_default();
        record.voided < void.seqnum
    }
}

/// The log's own record.
fn log_record(image: &Image) -> wire::LogRecord {
    image.value(Table::Meta, b"log").and_then(|b| wire::LogRecord::decode(b.clone()).ok()).unwrap_or_default()
}

/// Whether the account's last recovery has voided the seqnum, or one before it.
fn voided_in(record: &wire::AccountRecord, seqnum: u32) -> bool {
    record.voided != 0 && record.voided <= seqnum
}

fn order_key(place: Place) -> Vec<u8> {
    let mut key = account_key(place.network, place.actor);
    match place.id {
        Some(id) => key.extend_from_slice(&id),
        None => key.extend_from_slice(&place.seqnum.to_be_bytes()),
    }
    key
}

/// A big-endian number of at most 8 bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

fn account_key(network_id: u64, actor: u64) -> Vec<u8> {
    [network_id.to_be_bytes(), actor.to_be_bytes()].concat()
}

fn account(image: &Image, network_id: u64, actor: u64) -> wire::AccountRecord {
    let bytes = image.value(Table::Accounts, &account_key(network_id, actor));
    bytes.and_then(|b| wire::AccountRecord::decode(b.clone()).ok()).unwrap_or_default()
}

fn settled_order(image: &Image, place: Place) -> Option<Id> {
    order_id(image.value(Table::Orders, &order_key(place))?)
}

/// Of a key of the table of settled orders: network, actor, and seqnum or id.
fn place_of(key: &[u8], orders: &Orders) -> Place {
    let by_id = Id::try_from(&key[16..]).ok().and_then(|id| orders.get(&id));
    by_id.map_or_else(
        || Place::new(number(&key[..8]), number(&key[8..16]), number(&key[16..20]) as u32),
        |order| order.place,
    )
}

fn order_id(record: &[u8]) -> Option<Id> {
    Id::try_from(wire::OrderRecord::decode(record).ok()?.order_id.as_ref()).ok()
}

/// Whether an order's prev_hash is right, for the model.
fn follows(order: &orders::Known, before: Option<&Id>) -> bool {
    order.prev_hash == before.map_or(0, short)
}
