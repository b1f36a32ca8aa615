//! What has to be true after every step, derived again.
//!
//! Nothing here calls the code that it checks: records are read with the generated decoders from what an
//! honest authority writes, and votes are counted where they leave their signer, not where somebody claims
//! to have them. For Byzantine authorities the worst is assumed: that they sign everything.

pub mod ledger;
pub mod log;
pub mod orders;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use florin_core::authority::state::{Table, Write};
use florin_core::wire;
use prost::Message as _;
use sha2::{Digest, Sha256};

use crate::disk::{Disk, Image};
use ledger::Ledger;
use ledger::signed;
use log::Log;
use orders::{Id, Orders, Place, bit, short};

/// (authority, shard).
pub type NodeId = (u32, u32);
/// Violations kept of each rule; one bug makes many.
const VIOLATIONS_MAX: u64 = 5;

/// What a reply promises.
pub enum Promise {
    /// These orders are locked.
    Votes(Vec<Id>),
    /// These orders are settled.
    Settled(Vec<Id>),
}

/// What must hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rule {
    /// All postings of a shard sum to zero, and its totals are those of its records.
    SumZero,
    /// At most f honest authorities see an account below zero.
    NegativeBalance,
    /// Of the orders of one seqnum at most one can have a certificate.
    OneCertificate,
    /// Nothing settles without a quorum, and nobody settles anything else.
    SettledAlike,
    /// What an honest authority signs is true when it signs.
    FalsePromise,
    /// What leaves is durable.
    NotDurable,
    /// What left is kept, whatever crashes.
    PromiseForgotten,
    /// What the quorum driver tells a wallet is true.
    FalseBelief,
    /// An honest authority never meets what can't be.
    Impossible,
    /// No certified order waits once the one before it is settled.
    Stuck,
    /// Logs of honest authorities are prefixes of one another, and equal prefixes come to the same.
    LogFork,
    /// An operation has one outcome, the one that it must have.
    LogOutcome,
    /// The log credits what it must, once, and its sums are those of its records.
    LogMoney,
    /// Log time never goes back, and is never ahead of all good clocks.
    LogTime,
    /// A recovery is decided once, after its time, on the reports of a quorum.
    Recovery,
    /// What a quorum has acknowledged is never voided.
    FinalVoided,
    /// Where nothing is wrong, the core's audit finds nothing.
    Audit,
    /// Without faults everything comes to its end, alike everywhere.
    Unfinished,
}

/// What the committee is, to the checkers.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The network.
    pub network_id: u64,
    /// Shards.
    pub shards: u32,
    /// Authorities.
    pub authorities: u32,
    /// Those that are not honest.
    pub byzantine: BTreeSet<u32>,
    /// The issuer's address.
    pub issuer: [u8; 32],
    /// How far it may go below zero.
    pub issuer_limit: i128,
    /// The genesis file.
    pub genesis: Vec<([u8; 32], u64)>,
}

impl Facts {
    /// Largest number of Byzantine authorities that is survived.
    pub fn faults(&self) -> usize {
        (self.authorities as usize - 1) / 3
    }

    /// Honest votes that, with all the Byzantine ones, make a certificate.
    fn honest_quorum(&self) -> usize {
        self.authorities as usize - self.faults() - self.byzantine.len()
    }
}

/// All checkers.
pub struct Checkers {
    /// Virtual time, for the text of violations.
    pub now: u64,
    /// What the ordered log must do.
    pub log: Log,
    facts: Facts,
    orders: Orders,
    ledger: Ledger,
    violations: Vec<String>,
    found: BTreeMap<Rule, u64>,
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
    /// Actor -> authority -> its account there.
    accounts: BTreeMap<u64, BTreeMap<u32, wire::AccountRecord>>,
    deliveries: BTreeMap<(NodeId, u32, u64), [u8; 32]>,
}

impl Checkers {
    /// Checkers of a committee that has done nothing yet.
    pub fn new(facts: Facts) -> Self {
        Checkers {
            now: 0,
            log: Log::default(),
            accounts: BTreeMap::new(),
            ledger: Ledger::new(facts.clone()),
            facts,
            orders: Orders::default(),
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

    /// An honest authority has signed a vote, which waits for its disk.
    pub fn voted(&mut self, node: NodeId, disk: &Disk, raw: &[Bytes], vote: &wire::Signed) -> Promise {
        let root = self.orders.learn(raw);
        let ids = self.bits(node, &root, vote);
        for id in &ids {
            if !self.is_recover(id) && !self.is_locked(disk.current(), id) {
                self.violation(Rule::FalsePromise, format!("{node:?} votes for {} without a lock", hex::encode(id)));
            }
        }
        Promise::Votes(ids)
    }

    /// An honest authority has signed an acknowledgement, which waits for its disk.
    pub fn acknowledged(&mut self, node: NodeId, disk: &Disk, root: &[u8], signed: &wire::Signed) -> Promise {
        let ids = self.bits(node, root, signed);
        for id in &ids {
            if self.is_recover(id) {
                continue;
            }
            if self.settled_at(disk.current(), id) != Some(*id) {
                self.violation(
                    Rule::FalsePromise,
                    format!("{node:?} acknowledges {}, which it has not settled", hex::encode(id)),
                );
            }
        }
        Promise::Settled(ids)
    }

    fn bits(&mut self, node: NodeId, root: &[u8], signed: &wire::Signed) -> Vec<Id> {
        let Some(batch) = self.orders.batch(root).map(<[_]>::to_vec) else {
            self.violation(Rule::FalsePromise, format!("{node:?} signs for a batch that nobody showed it"));
            return Vec::new();
        };
        if signed.authority != node.0 {
            self.violation(Rule::FalsePromise, format!("{node:?} signs as authority {}", signed.authority));
        }
        let mut ids = Vec::new();
        for (i, id) in batch.iter().enumerate().filter(|(i, _)| bit(&signed.bitmap, *i)) {
            match id {
                Some(id) => ids.push(*id),
                None => self.violation(Rule::FalsePromise, format!("{node:?} signs for order {i}, which is none")),
            }
        }
        ids
    }

    /// A promise has left its authority: from now on it counts.
    pub fn left(&mut self, node: NodeId, disk: &Disk, promise: Promise) {
        match promise {
            Promise::Votes(ids) => ids.into_iter().for_each(|id| self.vote_left(node, disk, id)),
            Promise::Settled(ids) => {
                for id in ids {
                    let Some(place) = self.orders.get(&id).map(|o| o.place) else { continue };
                    self.acknowledgements.entry(id).or_default().insert(node.0);
                    if self.is_recover(&id) {
                        continue;
                    }
                    self.check_final(&id);
                    self.acked.entry(node).or_default().insert(place, id);
                    if self.settled_at(disk.synced(), &id) != Some(id) {
                        self.violation(Rule::NotDurable, format!("{node:?} settled {}", hex::encode(id)));
                    }
                }
            }
        }
    }

    fn is_recover(&self, id: &Id) -> bool {
        self.orders.get(id).is_some_and(|o| o.recover)
    }

    /// If a quorum can have acknowledged an order, no recovery has voided it or what it is chained to.
    fn check_final(&mut self, id: &Id) {
        if self.is_recover(id) || self.acknowledgements.get(id).map_or(0, BTreeSet::len) < self.facts.honest_quorum() {
            return;
        }
        let mut at = self.orders.get(id);
        while let Some(order) = at {
            if self.log.is_void(&order.place) {
                let who = &self.acknowledgements[id];
                let what = format!("{} is final by {who:?}, and {:?} is void", hex::encode(id), order.place);
                return self.violation(Rule::FinalVoided, what);
            }
            at = self.orders.parent(order);
        }
    }

    fn vote_left(&mut self, node: NodeId, disk: &Disk, id: Id) {
        let Some(place) = self.orders.get(&id).map(|o| o.place) else { return };
        if self.is_recover(&id) {
            return;
        }
        self.voted.entry(node).or_default().entry(place).or_default().insert(id);
        if !self.is_held(disk.synced(), &id) {
            self.violation(Rule::NotDurable, format!("{node:?} vote for {}", hex::encode(id)));
        }
        let quorum = self.facts.honest_quorum();
        let here = self.votes.entry(place).or_default();
        here.entry(id).or_default().insert(node.0);
        // What hung on a void seqnum can't be certified any more, and another order may be.
        let above_void = place.1 > 0 && self.log.void_at_or_below((place.0, place.1 - 1)).is_some();
        if here.len() > 1 && !above_void && here.values().filter(|voters| voters.len() >= quorum).count() > 1 {
            self.violation(
                Rule::OneCertificate,
                format!("two certificates can be made for actor {} seqnum {}", place.0, place.1),
            );
        }
        self.check_votes(node, disk.current(), place.0);
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
                    let place = place_of(&w.key);
                    if self.log.void_at_or_below(place).is_none() {
                        self.violation(Rule::SettledAlike, format!("{node:?} deletes settled {place:?}"));
                    }
                }
                (Table::Accounts, Some(_)) => {
                    let actor = number(&w.key[8..16]);
                    self.check_votes(node, disk.current(), actor);
                    let record = account(disk.current(), self.facts.network_id, actor);
                    self.accounts.entry(actor).or_default().insert(node.0, record.clone());
                    let free = |seqnum: u32| record.frozen == 0 || seqnum < record.frozen;
                    // One that hangs on a void order, or on a void that has not come here yet, waits until its seqnum passes.
                    let follows = |e: &wire::EarlyRecord| e.seqnum <= record.seqnum || e.prev_hash == record.prev_hash;
                    let due = |e: &&wire::EarlyRecord| e.seqnum <= record.seqnum + 1 && follows(e);
                    if record.early.iter().filter(due).any(|e| free(e.seqnum)) {
                        self.violation(
                            Rule::Stuck,
                            format!("{node:?} keeps a certified order of actor {actor} waiting"),
                        );
                    }
                }
                _ => {}
            }
        }
    }

    fn check_settled(&mut self, node: NodeId, key: &[u8], value: &[u8]) {
        let place = place_of(key);
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
        let above_void = place.1 > 0 && self.log.void_at_or_below((place.0, place.1 - 1)).is_some();
        if first != id && !above_void {
            self.violation(Rule::SettledAlike, format!("{node:?} settles another order at {place:?} than others have"));
        }
    }

    /// The order settled at this order's place.
    fn settled_at(&self, image: &Image, id: &Id) -> Option<Id> {
        let place = self.orders.get(id)?.place;
        settled_order(image, self.facts.network_id, place)
    }

    /// Whether an order is pending or settled itself.
    fn is_locked(&self, image: &Image, id: &Id) -> bool {
        let Some(order) = self.orders.get(id) else { return false };
        let record = account(image, self.facts.network_id, order.place.0);
        match order.place.1.checked_sub(record.seqnum + 1) {
            Some(ahead) => record.pending.get(ahead as usize).is_some_and(|p| p.order_id.as_ref() == id),
            None => self.settled_at(image, id) == Some(*id),
        }
    }

    /// Where an account is, as f + 1 honest authorities have it that no recovery has frozen: seqnum, prev_hash, last
    /// operation. What a wallet would ask them for.
    pub fn account_of(&self, actor: u64) -> Option<(u32, u64, u32)> {
        let mut counts: BTreeMap<(u32, u64, u32), usize> = BTreeMap::new();
        let honest = self.facts.authorities as usize - self.facts.byzantine.len();
        let known = self.accounts.get(&actor);
        for record in known.into_iter().flat_map(BTreeMap::values).filter(|r| r.frozen == 0) {
            *counts.entry((record.seqnum, record.prev_hash, record.last_call)).or_default() += 1;
        }
        *counts.entry((0, 0, 0)).or_default() += honest - known.map_or(0, BTreeMap::len);
        counts.into_iter().rev().find(|(_, n)| *n > self.facts.faults()).map(|(state, _)| state)
    }

    /// Whether the vote for an order is still kept: it is pending, its seqnum is settled, or an order before
    /// it turned out to be another than the one that it was chained to, and it can't be certified any more.
    fn is_held(&self, image: &Image, id: &Id) -> bool {
        let Some(order) = self.orders.get(id) else { return false };
        let (actor, seqnum) = order.place;
        let record = account(image, self.facts.network_id, actor);
        if seqnum <= record.seqnum {
            return settled_order(image, self.facts.network_id, order.place).is_some()
                || voided_in(&record, seqnum)
                || self.log.is_void(&order.place);
        }
        let ahead = (seqnum - record.seqnum - 1) as usize;
        if record.pending.get(ahead).is_some_and(|p| p.order_id.as_ref() == id) {
            return true;
        }
        let mut root = order;
        while root.place.1 > record.seqnum + 1 {
            let Some(parent) = self.orders.parent(root) else { return false };
            root = parent;
        }
        root.prev_hash != record.prev_hash
    }

    /// Whether all votes that left for an actor's unsettled orders are still kept.
    fn check_votes(&mut self, node: NodeId, image: &Image, actor: u64) {
        let settled = account(image, self.facts.network_id, actor).seqnum;
        let Some(voted) = self.voted.get(&node) else { return };
        let open = voted.range((actor, settled.saturating_add(1))..=(actor, u32::MAX));
        let ids: Vec<Id> = open.flat_map(|(_, ids)| ids.iter().copied()).collect();
        for id in ids {
            if !self.is_held(image, &id) {
                self.violation(Rule::PromiseForgotten, format!("{node:?} forgets vote for {}", hex::encode(id)));
            }
        }
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
        let actors: BTreeSet<u64> = self.voted.get(&node).into_iter().flat_map(|v| v.keys().map(|p| p.0)).collect();
        actors.into_iter().for_each(|actor| self.check_votes(node, disk.current(), actor));
        let acked: Vec<(Place, Id)> =
            self.acked.get(&node).into_iter().flat_map(|a| a.iter().map(|(p, id)| (*p, *id))).collect();
        for (place, id) in acked {
            let void = self.log.void_at_or_below(place).is_some();
            if settled_order(disk.current(), self.facts.network_id, place) != Some(id) && !void {
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
        let digest = Sha256::digest(&bytes).into();
        if *self.deliveries.entry(key).or_insert(digest) != digest {
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
        let before = self.log.counts()[5];
        let found = self.log.wrote(authority, &self.orders, writes);
        found.into_iter().for_each(|(rule, v)| self.violation(rule, v));
        if self.log.counts()[5] > before {
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

    /// A client believes that an order has a certificate.
    pub fn believed_certified(&mut self, id: Id) {
        let place = self.orders.get(&id).map(|o| o.place);
        let voters = place.and_then(|p| self.votes.get(&p)?.get(&id)).map_or(0, BTreeSet::len);
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

    /// Whether an order is of an actor that a recovery has voided something of: an authority that has not heard of
    /// it yet can't place what came after.
    pub fn after_a_void(&self, raw: &[Bytes]) -> bool {
        let ids = raw.iter().filter_map(orders::id_of);
        ids.filter_map(|id| self.orders.get(&id)).any(|o| self.log.void_at_or_below(o.place).is_some())
    }

    /// What some honest authority has settled on disk, or said to have settled; `None` is void.
    fn lasting(&self, disks: &[(NodeId, &Disk)]) -> BTreeMap<Place, Option<Id>> {
        let acked = self.acked.values().flatten().map(|(place, id)| (*place, Some(*id)));
        let acked = acked.filter(|(place, _)| self.log.void_at_or_below(*place).is_none());
        let stored = disks.iter().flat_map(|(_, disk)| disk.synced().table(Table::Orders));
        let stored = stored.map(|(key, value)| (place_of(key), order_id(value)));
        acked.chain(stored).collect()
    }

    /// What is not yet as it has to be once all faults are over.
    pub fn unfinished(&self, disks: &[(NodeId, &Disk)], logs: &[(u32, &Disk)]) -> Vec<String> {
        let mut found = Vec::new();
        // What only one had settled and lost in a crash before anybody heard of it may be gone.
        let mut expected = self.lasting(disks);
        for id in &self.certified {
            match self.orders.get(id) {
                Some(order) => drop(expected.insert(order.place, Some(*id))),
                None => found.push(format!("certified order {} was never shown to anybody", hex::encode(id))),
            }
        }
        for (node, disk) in disks {
            let mine = |place: &Place| (place.0 % u64::from(self.facts.shards)) as u32 == node.1;
            let image = disk.synced();
            let has = |place: &Place| image.value(Table::Orders, &order_key(self.facts.network_id, *place));
            let lacking: Vec<&Place> = expected
                .iter()
                .filter(|(place, id)| mine(place) && has(place).map(|v| order_id(v)) != Some(**id))
                .map(|(place, _)| place)
                .collect();
            if let Some(first) = lacking.first() {
                let count = lacking.len();
                found.push(format!("{node:?} has not settled {count} certified orders, {first:?} the first"));
            }
            if image.table(Table::Orders).count() != expected.keys().filter(|p| mine(p)).count() {
                found.push(format!("{node:?} has settled orders that others have not"));
            }
            let undelivered = image.table(Table::Outbox).count();
            if undelivered > 0 {
                found.push(format!("{node:?} has {undelivered} deliveries in its outbox"));
            }
            let records = image.table(Table::Accounts);
            let frozen = records.filter(|(_, v)| wire::AccountRecord::decode(&v[..]).is_ok_and(|r| r.frozen != 0));
            let frozen = frozen.count();
            if frozen > 0 {
                found.push(format!("{node:?} has {frozen} frozen accounts"));
            }
        }
        found.extend(self.unordered(&expected, logs));
        let model = ledger::model(&self.facts, &self.orders, &expected, self.log.credits());
        found.extend(self.ledger.differs(&model, disks));
        found
    }

    /// What the log has not done yet, or not everywhere.
    fn unordered(&self, expected: &BTreeMap<Place, Option<Id>>, logs: &[(u32, &Disk)]) -> Vec<String> {
        let mut found = Vec::new();
        let is_call = |id: &Id| self.orders.get(id).is_some_and(|o| o.call.is_some());
        let calls = expected.iter().filter(|(_, id)| id.as_ref().is_some_and(is_call)).map(|(place, _)| place);
        let waiting = calls.filter(|place| !self.log.has_outcome(place)).count();
        if waiting > 0 {
            found.push(format!("{waiting} certified operations are not ordered"));
        }
        for (authority, disk) in logs {
            let record = log_record(disk.synced());
            if (record.session, record.units) != self.log.newest() {
                let at = (record.session, record.units);
                found.push(format!("log {authority} is at {at:?}, others at {:?}", self.log.newest()));
            }
            if record.open_recoveries > 0 {
                found.push(format!("log {authority} has {} recoveries open", record.open_recoveries));
            }
            let undelivered = disk.synced().table(Table::Outbox).count();
            if undelivered > 0 {
                found.push(format!("log {authority} has {undelivered} deliveries in its outbox"));
            }
            let (called, from_log) = self.ledger.with_log(*authority);
            let (received, sent) = (signed(&record.received), signed(&record.sent));
            if (called, from_log) != (received, sent) {
                let what = format!("{} to its log and {} from it", called - received, sent - from_log);
                found.push(format!("authority {authority} has money in flight: {what}"));
            }
        }
        found
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

fn order_key(network_id: u64, place: Place) -> Vec<u8> {
    let mut key = account_key(network_id, place.0);
    key.extend_from_slice(&place.1.to_be_bytes());
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

fn settled_order(image: &Image, network_id: u64, place: Place) -> Option<Id> {
    order_id(image.value(Table::Orders, &order_key(network_id, place))?)
}

/// Of a key of the table of settled orders: network, actor, seqnum.
fn place_of(key: &[u8]) -> Place {
    (number(&key[8..16]), number(&key[16..20]) as u32)
}

fn order_id(record: &[u8]) -> Option<Id> {
    Id::try_from(wire::OrderRecord::decode(record).ok()?.order_id.as_ref()).ok()
}

/// Whether an order's prev_hash is right, for the model.
fn follows(order: &orders::Known, before: Option<&Id>) -> bool {
    order.prev_hash == before.map_or(0, short)
}
