//! E-cash, derived again: from the bodies of the orders that are settled, votes where they leave, and what an honest
//! authority writes about notes. What makes a note a true one is known here without any curve: who asked for it, whether
//! that has settled, and how many authorities have given their shares.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use florin_core::authority::state::{Table, Write};
use florin_core::wire;
use prost::Message as _;

use super::log::Log;
use super::orders::{Id, Known, Orders, Place, worth};
use super::{Facts, NodeId, Rule, number, order_id, order_key};
use crate::disk::{Disk, Image};

/// A nonce, and how often the log has freed it.
type Key = (Id, u32);
type Found = Vec<(Rule, String)>;

/// A note that somebody has, for the last check.
#[derive(Clone, Debug)]
pub struct Held {
    /// What is marked spent.
    pub nonce: Id,
    /// It is worth 2^tier minor units.
    pub tier: u32,
    /// Whether the committee's signature verifies.
    pub is_true: bool,
}

/// What one shard of an honest authority has written.
#[derive(Default)]
struct Shard {
    notes: BTreeMap<Id, wire::NoteRecord>,
    /// Settled orders with notes, by their key in the table of orders.
    settled: BTreeMap<Vec<u8>, Id>,
    /// How many settled orders ask for a blinded nonce in a tier.
    asked: BTreeMap<(Bytes, u32), u64>,
    /// By tier: notes issued, notes spent.
    counts: BTreeMap<u32, (i64, i64)>,
    /// Bearer orders that it has voted for, as the votes left.
    promised: BTreeSet<Id>,
}

/// All that is known of notes.
pub struct Cash {
    facts: Facts,
    /// What the clock of the authority shows that acts, ms.
    pub clock_ms: u64,
    /// Rare things that have happened.
    pub marks: BTreeMap<&'static str, u64>,
    shards: BTreeMap<NodeId, Shard>,
    /// Nonces by what they look like blinded.
    made: BTreeMap<Bytes, Id>,
    /// Which key has signed which order: that of the nonce, or of the sender of a locked note.
    signed: BTreeSet<(Id, Id)>,
    /// Orders of honest wallets with notes.
    owned: BTreeSet<Id>,
    /// Whose shares have left.
    shares: BTreeMap<(Bytes, u32), BTreeSet<u32>>,
    votes: BTreeMap<Key, BTreeMap<Id, BTreeSet<u32>>>,
    /// Which order has spent a note at some honest authority.
    spent: BTreeMap<Key, Id>,
    /// Notes that several want, who may come to hold each other up.
    contested: BTreeSet<Id>,
}

impl Cash {
    /// Nobody has a note.
    pub fn new(facts: Facts) -> Cash {
        Cash {
            facts,
            clock_ms: 0,
            marks: BTreeMap::new(),
            shards: BTreeMap::new(),
            made: BTreeMap::new(),
            signed: BTreeSet::new(),
            owned: BTreeSet::new(),
            shares: BTreeMap::new(),
            votes: BTreeMap::new(),
            spent: BTreeMap::new(),
            contested: BTreeSet::new(),
        }
    }

    /// Something rare has happened.
    pub fn mark(&mut self, what: &'static str) {
        *self.marks.entry(what).or_default() += 1;
    }

    /// Somebody asks for a note.
    pub fn made(&mut self, blinded: Bytes, nonce: Id) {
        self.made.entry(blinded).or_insert(nonce);
    }

    /// An honest wallet has signed an order with notes: what it asks for must not be lost.
    pub fn owned(&mut self, order: Id) {
        self.owned.insert(order);
    }

    /// The owner of a note has signed an order.
    pub fn signed(&mut self, order: Id, nonce: Id) {
        self.signed.insert((order, nonce));
    }

    /// More than one may try to spend a note from now on.
    pub fn contest(&mut self, nonce: Id) {
        self.contested.insert(nonce);
    }

    /// Whether several want a note.
    pub fn is_contested(&self, nonce: &Id) -> bool {
        self.contested.contains(nonce)
    }

    /// Bearer orders that a shard has settled.
    pub fn bearers(&self, node: NodeId) -> usize {
        self.shards.get(&node).map_or(0, |s| s.settled.keys().filter(|key| key.len() == 48).count())
    }

    fn count(&mut self, node: NodeId, order: &Known, by: i64) {
        let shard = self.shards.entry(node).or_default();
        for (tier, blinded) in &order.asked {
            shard.counts.entry(*tier).or_default().0 += by;
            let asked = shard.asked.entry((blinded.clone(), *tier)).or_default();
            *asked = asked.saturating_add_signed(by);
        }
        if !order.recover {
            order.spends.iter().for_each(|note| shard.counts.entry(note.tier).or_default().1 += by);
        }
    }

    /// A step of a shard.
    pub(super) fn wrote(&mut self, node: NodeId, image: &Image, writes: &[Write], orders: &Orders) -> Found {
        let mut found = Found::new();
        let own = |w: &&Write| w.table == Table::Orders && number(&w.key[..8]) == self.facts.network_id;
        let mut fresh = Vec::new();
        for w in writes.iter().filter(own).collect::<Vec<_>>() {
            let id = w.value.as_deref().and_then(order_id);
            let known = id.and_then(|id| orders.get(&id)).filter(|o| o.is_bearer() || !o.asked.is_empty());
            let shard = self.shards.entry(node).or_default();
            let before = match known {
                Some(order) => shard.settled.insert(w.key.clone(), order.id),
                None => shard.settled.remove(&w.key),
            };
            if let Some(order) = before.and_then(|id| orders.get(&id)) {
                self.count(node, order, -1);
            }
            if let Some(order) = known {
                self.count(node, order, 1);
                fresh.push(order);
            }
        }
        for order in &fresh {
            found.extend(self.settled(node, image, order));
        }
        let mut touched = !fresh.is_empty();
        for w in writes {
            match w.table {
                Table::Notes => found.extend(self.note(node, image, w, orders)),
                Table::Issued => found.extend(self.issued(node, &w.key, w.value.as_deref())),
                Table::Meta => touched = true,
                _ => {}
            }
        }
        if touched {
            found.extend(self.totals(node, image));
        }
        found
    }

    /// What must be so of an order with notes when it settles.
    fn settled(&mut self, node: NodeId, image: &Image, order: &Known) -> Found {
        let mut found = Found::new();
        let name = hex::encode(order.id);
        if order.is_bearer() && !order.recover && order.short != 0 {
            let what = format!("{node:?} settles {name}, whose outputs are worth {} more than its notes", order.short);
            found.push((Rule::SumZero, what));
        }
        for (tier, blinded) in &order.asked {
            let bits = image.value(Table::Issued, blinded).map_or(0, |v| number(&v[..v.len().min(8)]));
            if bits >> tier & 1 == 0 {
                found.push((Rule::Notes, format!("{node:?} settles {name} and does not know that it asks for a note")));
            }
        }
        for note in order.spends.iter().filter(|_| !order.recover) {
            let by = record(image, &note.nonce);
            if !by.spent || by.order_id[..] != order.id {
                found.push((Rule::Notes, format!("{node:?} settles {name} and its note is {by:?}")));
            }
            let first = *self.spent.entry((note.nonce, note.recoveries)).or_insert(order.id);
            if first != order.id {
                let what =
                    format!("{node:?} spends {} with {name}, others with another order", hex::encode(note.nonce));
                found.push((Rule::SpentTwice, what));
            }
        }
        found
    }

    /// What is written of a nonce: free, then held by one order, then spent by a certified one for ever. What the log
    /// frees counts as another note.
    fn note(&mut self, node: NodeId, image: &Image, w: &Write, orders: &Orders) -> Found {
        let mut found = Found::new();
        let Ok(nonce) = Id::try_from(w.key.as_slice()) else {
            return vec![(Rule::Notes, format!("{node:?} writes of a note with a nonce of {} bytes", w.key.len()))];
        };
        let shard = self.shards.entry(node).or_default();
        let before = shard.notes.get(&nonce).cloned().unwrap_or_default();
        let Some(now) = w.value.as_deref().and_then(|v| wire::NoteRecord::decode(v).ok()) else {
            return vec![(Rule::Notes, format!("{node:?} forgets note {}", hex::encode(nonce)))];
        };
        shard.notes.insert(nonce, now.clone());
        if node.1 != 0 {
            found.push((Rule::Notes, format!("{node:?} keeps a note, which belongs on shard 0")));
        }
        let other = before.order_id != now.order_id;
        let freed = now.recoveries > before.recoveries;
        let wrong = if freed {
            None
        } else if now.recoveries < before.recoveries {
            Some("counts recoveries back")
        } else if before.spent && (!now.spent || other) {
            Some("takes back that it is spent")
        } else if !before.order_id.is_empty() && other && !now.spent {
            Some("gives the lock of one order to another")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            found.push((
                Rule::Notes,
                format!("{node:?} {wrong}: note {} from {before:?} to {now:?}", hex::encode(nonce)),
            ));
        }
        let id = Id::try_from(now.order_id.as_ref()).ok();
        let order = id.and_then(|id| orders.get(&id));
        if let Some(id) = id
            && !order.is_some_and(|o| o.spends.iter().any(|s| s.nonce == nonce))
        {
            let what =
                format!("{node:?}: {} holds note {}, which it does not spend", hex::encode(id), hex::encode(nonce));
            found.push((Rule::Notes, what));
        }
        if now.spent {
            let key = order.map(|o| order_key(o.place)).unwrap_or_default();
            if image.value(Table::Orders, &key).and_then(|v| order_id(v)) != id {
                found.push((Rule::Notes, format!("{node:?}: {now:?} has spent a note and is not settled")));
            }
            if !before.order_id.is_empty() && other {
                self.mark("certificate over another lock");
            }
        }
        found
    }

    /// What is written of a blinded nonce: the tiers in which settled orders ask for it, and how many do.
    fn issued(&self, node: NodeId, blinded: &[u8], value: Option<&[u8]>) -> Option<(Rule, String)> {
        let shard = self.shards.get(&node)?;
        let key = Bytes::copy_from_slice(blinded);
        let asked = shard.asked.range((key.clone(), 0)..=(key, u32::MAX)).filter(|(_, n)| **n > 0);
        let expected = issued_value(asked.map(|((_, tier), n)| (*tier, *n)));
        let found = value.unwrap_or_default();
        (found != expected).then(|| {
            let what = format!("{node:?} has issued {} as {}", hex::encode(blinded), hex::encode(found));
            (Rule::Notes, format!("{what}, settled orders ask for {}", hex::encode(expected)))
        })
    }

    /// Notes by tier are in the totals.
    fn totals(&self, node: NodeId, image: &Image) -> Option<(Rule, String)> {
        let totals = image.value(Table::Meta, b"totals");
        let totals = totals.and_then(|v| wire::TotalsRecord::decode(v.clone()).ok()).unwrap_or_default();
        let none = BTreeMap::new();
        let counts = self.shards.get(&node).map_or(&none, |s| &s.counts);
        let tiers = totals.notes_issued.len().max(totals.notes_spent.len()) as u32;
        let tiers = tiers.max(counts.keys().next_back().map_or(0, |tier| tier + 1));
        let at = |all: &[u64], tier: u32| all.get(tier as usize).copied().unwrap_or(0) as i64;
        let claims = |tier| (at(&totals.notes_issued, tier), at(&totals.notes_spent, tier));
        let wrong = (0..tiers).find(|tier| claims(*tier) != counts.get(tier).copied().unwrap_or_default())?;
        let (claimed, is) = (claims(wrong), counts.get(&wrong));
        Some((Rule::SumZero, format!("{node:?} says of tier {wrong} (issued, spent) {claimed:?}, it is {is:?}")))
    }

    /// Whether an order holds all of its notes, or has spent them.
    pub(super) fn has_all(&self, image: &Image, order: &Known) -> bool {
        order.recover || order.spends.iter().all(|note| record(image, &note.nonce).order_id[..] == order.id)
    }

    /// Whether a vote for an order is still kept: each note is held by it, spent, or freed by the log.
    fn keeps(&self, image: &Image, order: &Known) -> bool {
        let kept = |note: &super::orders::Spent| {
            let by = record(image, &note.nonce);
            by.order_id[..] == order.id || by.spent || by.recoveries > note.recoveries
        };
        order.spends.iter().all(kept)
    }

    /// An honest authority has signed a vote for an order with notes: what must be so of it.
    pub(super) fn may_vote(&mut self, node: NodeId, image: &Image, order: &Known) -> Found {
        let mut found = Found::new();
        let settled = image.value(Table::Orders, &order_key(order.place)).is_some();
        let again = self.shards.get(&node).is_some_and(|s| s.promised.contains(&order.id));
        if settled || again {
            return found;
        }
        for (tier, blinded) in &order.asked {
            if !self.made.contains_key(blinded) || *tier >= crate::cash::TIERS {
                let what = format!("{node:?} votes for what can't be signed, in {}", hex::encode(order.id));
                found.push((Rule::FalsePromise, what));
            }
        }
        let name = hex::encode(order.id);
        let mut wrong = |what: String| found.push((Rule::FalsePromise, format!("{node:?} votes for {name}: {what}")));
        if !order.recover && order.short != 0 {
            wrong(format!("its outputs are worth {} more than its notes", order.short));
        }
        let distinct: BTreeSet<Id> = order.spends.iter().map(|note| note.nonce).collect();
        if distinct.len() != order.spends.len() {
            wrong("it spends a note twice".into());
        }
        for note in &order.spends {
            if !self.is_note(&note.nonce, note.tier) {
                wrong(format!("nobody can have note {} in tier {}", hex::encode(note.nonce), note.tier));
            }
            if !self.signed.contains(&(order.id, note.nonce)) {
                wrong(format!("the owner of {} has not signed it", hex::encode(note.nonce)));
            }
            if note.after_ms.is_some_and(|after| self.clock_ms < after) {
                wrong(format!("the sender of {} takes it back too early", hex::encode(note.nonce)));
            }
        }
        found
    }

    /// Whether enough authorities have given their shares of a note, if all liars have.
    fn is_note(&self, nonce: &Id, tier: u32) -> bool {
        let needed = self.facts.honest_quorum();
        let of = |(blinded, made): (&Bytes, &Id)| {
            made == nonce && self.shares.get(&(blinded.clone(), tier)).map_or(0, BTreeSet::len) >= needed
        };
        self.made.iter().any(of)
    }

    /// A vote for a bearer order has left.
    pub(super) fn vote_left(&mut self, node: NodeId, image: &Image, order: &Known) -> Found {
        let mut found = Found::new();
        if !self.keeps(image, order) {
            found.push((Rule::NotDurable, format!("{node:?} vote for {}, which spends notes", hex::encode(order.id))));
        }
        self.shards.entry(node).or_default().promised.insert(order.id);
        let quorum = self.facts.honest_quorum();
        for note in &order.spends {
            let here = self.votes.entry((note.nonce, note.recoveries)).or_default();
            here.entry(order.id).or_default().insert(node.0);
            if here.len() > 1 && here.values().filter(|voters| voters.len() >= quorum).count() > 1 {
                let what = format!("two certificates can be made for note {}", hex::encode(note.nonce));
                found.push((Rule::SpentTwice, what));
            }
        }
        found
    }

    /// Signature shares have left an honest authority: only for what has settled there, durably.
    /// Those of orders that a recovery has taken back meanwhile do no harm: too few had settled them.
    pub(super) fn shares_left(
        &mut self,
        node: NodeId,
        disk: &Disk,
        given: &[(Bytes, u32)],
        orders: &Orders,
        log: &Log,
    ) -> Found {
        let mut found = Found::new();
        for (blinded, tier) in given {
            let stored = self.shards.get(&node).into_iter().flat_map(|s| &s.settled);
            let durable = stored.filter(|(key, _)| disk.synced().value(Table::Orders, key).is_some());
            let mut all = durable.filter_map(|(_, id)| orders.get(id));
            let asks = |o: &Known| o.asked.iter().any(|(t, b)| t == tier && b == blinded);
            let void = || orders.all().any(|o| asks(o) && log.void_at_or_below(o.place).is_some());
            if !all.any(asks) && !void() {
                let what = format!("{node:?} gives a share of tier {tier} that nobody has paid for");
                found.push((Rule::NotDurable, what));
            }
            self.shares.entry((blinded.clone(), *tier)).or_default().insert(node.0);
        }
        found
    }

    /// A shard knows no more than its disk, which must have all that it has promised.
    pub(super) fn restarted(&mut self, node: NodeId, image: &Image, orders: &Orders) -> Found {
        let old = self.shards.remove(&node).unwrap_or_default();
        let decoded = image
            .table(Table::Notes)
            .filter_map(|(key, value)| Some((Id::try_from(key).ok()?, wire::NoteRecord::decode(value.clone()).ok()?)));
        let mut shard = Shard { notes: decoded.collect(), promised: old.promised, ..Shard::default() };
        let mut all = Vec::new();
        for (key, value) in image.table(Table::Orders).filter(|(k, _)| number(&k[..8]) == self.facts.network_id) {
            let known = order_id(value).and_then(|id| orders.get(&id));
            if let Some(order) = known.filter(|o| o.is_bearer() || !o.asked.is_empty()) {
                shard.settled.insert(key.to_vec(), order.id);
                all.push(order);
            }
        }
        let promised: Vec<Id> = shard.promised.iter().copied().collect();
        self.shards.insert(node, shard);
        all.into_iter().for_each(|order| self.count(node, order, 1));
        let lost = promised.iter().filter(|id| orders.get(id).is_some_and(|order| !self.keeps(image, order)));
        let forgets = |id: &Id| format!("{node:?} forgets its vote for {}, which spends notes", hex::encode(id));
        lost.map(|id| (Rule::PromiseForgotten, forgets(id))).collect()
    }

    /// How notes differ from what they must be once all faults are over, for those who have `held`.
    pub(super) fn unfinished(
        &self,
        expected: &BTreeMap<Place, Option<Id>>,
        orders: &Orders,
        disks: &[(NodeId, &Disk)],
        held: &[Held],
    ) -> Vec<String> {
        let mut found = Vec::new();
        let all: Vec<&Known> = expected.values().filter_map(|id| orders.get(id.as_ref()?)).collect();
        let of_bearers = all.iter().filter(|o| o.is_bearer() && !o.recover);
        let spent: BTreeMap<Id, Id> = of_bearers.flat_map(|o| o.spends.iter().map(|n| (n.nonce, o.id))).collect();
        let own = all.iter().filter(|o| o.foreign.is_none());
        let outstanding: i128 = own.clone().map(|o| o.notes()).sum();
        let mut at: BTreeMap<u32, i128> = BTreeMap::new();
        for (node, disk) in disks {
            let image = disk.synced();
            let shard = self.shards.get(node);
            let counts = shard.map(|s| s.counts.iter()).into_iter().flatten();
            *at.entry(node.0).or_default() += counts.map(|(t, (i, s))| worth(*t) * i128::from(i - s)).sum::<i128>();
            let records = image.table(Table::Notes).filter_map(|(key, value)| {
                Some((Id::try_from(key).ok()?, wire::NoteRecord::decode(value.clone()).ok()?))
            });
            let here: BTreeMap<Id, Id> = records
                .filter(|(_, r)| r.spent)
                .filter_map(|(n, r)| Some((n, Id::try_from(&r.order_id[..]).ok()?)))
                .collect();
            if node.1 == 0 && here != spent {
                found.push(format!(
                    "{node:?} has {} notes spent, or others than the {} there are",
                    here.len(),
                    spent.len()
                ));
            }
            let mine =
                |o: &&&Known| o.foreign.is_none() && self.facts.shard_of(o.place.network, o.place.actor) == node.1;
            let mut asked: BTreeMap<&[u8], BTreeMap<u32, u64>> = BTreeMap::new();
            for (tier, blinded) in all.iter().filter(mine).flat_map(|o| &o.asked) {
                *asked.entry(blinded).or_default().entry(*tier).or_default() += 1;
            }
            let asked = asked.into_iter().map(|(blinded, tiers)| (blinded, issued_value(tiers.into_iter())));
            if !image.table(Table::Issued).map(|(k, v)| (k, v.to_vec())).eq(asked) {
                found.push(format!("{node:?} does not know which notes it has issued"));
            }
        }
        for (authority, amount) in at.into_iter().filter(|(_, amount)| *amount != outstanding) {
            found.push(format!("authority {authority} has notes worth {amount} outstanding, there are {outstanding}"));
        }
        found.extend(self.lost(own.copied(), &spent, held));
        found
    }

    /// Notes of honest wallets that nobody has, and those held that are none.
    fn lost<'a>(
        &self,
        settled: impl Iterator<Item = &'a Known>,
        spent: &BTreeMap<Id, Id>,
        held: &[Held],
    ) -> Vec<String> {
        let mut found = Vec::new();
        let mut issued: BTreeMap<Id, BTreeSet<u32>> = BTreeMap::new();
        let mut owned: BTreeSet<(Id, u32)> = BTreeSet::new();
        for (order, tier, blinded) in settled.flat_map(|o| o.asked.iter().map(|(t, b)| (o.id, t, b))) {
            let Some(made) = self.made.get(blinded) else { continue };
            issued.entry(*made).or_default().insert(*tier);
            // Others may ask for the same and never know: it is their loss.
            if self.owned.contains(&order) && !spent.contains_key(made) && !self.contested.contains(made) {
                owned.insert((*made, *tier));
            }
        }
        for note in held {
            let name = hex::encode(note.nonce);
            let contested = self.contested.contains(&note.nonce);
            if !note.is_true || !issued.get(&note.nonce).is_some_and(|tiers| tiers.contains(&note.tier)) {
                found.push(format!("a wallet has {name} in tier {}, which is no note", note.tier));
            } else if !owned.remove(&(note.nonce, note.tier)) && !contested {
                found.push(format!("a wallet has {name} in tier {}, which is spent, or twice", note.tier));
            }
        }
        let value: i128 = owned.iter().map(|(_, tier)| worth(*tier)).sum();
        if let Some((nonce, tier)) = owned.first() {
            let (count, name) = (owned.len(), hex::encode(nonce));
            found.push(format!("{count} notes worth {value} are lost, {name} in tier {tier} the first"));
        }
        found
    }
}

fn record(image: &Image, nonce: &Id) -> wire::NoteRecord {
    let value = image.value(Table::Notes, nonce);
    value.and_then(|v| wire::NoteRecord::decode(v.clone()).ok()).unwrap_or_default()
}

/// What is kept of a blinded nonce that so many orders ask for, by tier: a bit a tier, then the tiers of several with how many
/// more there are.
fn issued_value(asked: impl Iterator<Item = (u32, u64)>) -> Vec<u8> {
    let (mut bits, mut more) = (0_u64, Vec::new());
    for (tier, n) in asked {
        bits |= 1 << tier.min(63);
        if n > 1 {
            more.push(tier as u8);
            more.extend((n as u32 - 1).to_be_bytes());
        }
    }
    if bits == 0 { Vec::new() } else { [bits.to_be_bytes().to_vec(), more].concat() }
}
