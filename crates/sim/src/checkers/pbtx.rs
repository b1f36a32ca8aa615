//! PBTX networks at their shards: that an authority knows what the log has told it, votes for what that allows, and
//! that streams have each settled order once, in its order.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use florin_core::authority::state::{Table, Write};
use florin_core::wire::{self, history_row::Event};
use prost::Message as _;
use sha2::{Digest, Sha256};

use super::orders::{Id, Place, bit, id_of, short};
use super::registry::Actor;
use super::rules::{ORDERED, ROTATE};
use super::{Checkers, NodeId, Rule, account, account_key, number, order_id, order_key, place_of, settled_order};
use crate::disk::{Disk, Image};

/// Streams as authorities have written them, entry by entry; what a crash has taken is gone here too.
#[derive(Default)]
pub struct Streams {
    /// By shard and network: orders by position, `None` for other events.
    seen: BTreeMap<(NodeId, u64), Stream>,
    /// Keys that have signed each envelope, by authority.
    signers: BTreeMap<Id, Vec<Vec<Bytes>>>,
    /// Orders that each shard has voted for.
    voted: BTreeMap<NodeId, BTreeSet<Id>>,
}

#[derive(Default)]
struct Stream {
    entries: Vec<Option<(Id, Place)>>,
    orders: BTreeSet<Id>,
    last: BTreeMap<u64, u32>,
}

impl Stream {
    /// Adds an entry. Returns what is wrong with it.
    fn push(&mut self, entry: Option<(Id, Place)>) -> Option<String> {
        self.entries.push(entry);
        let (id, place) = entry?;
        if !self.orders.insert(id) {
            return Some(format!("{place:?} twice"));
        }
        if place.id.is_none() {
            let last = self.last.insert(place.actor, place.seqnum).unwrap_or(0);
            if place.seqnum != last + 1 {
                return Some(format!("{place:?} after seqnum {last}"));
            }
        }
        None
    }

    fn events(&self) -> usize {
        self.entries.iter().filter(|e| e.is_none()).count()
    }
}

impl Streams {
    /// A shard knows no more than its disk.
    pub(super) fn restarted(&mut self, node: NodeId, image: &Image) {
        for ((_, network), stream) in self.seen.range_mut((node, 0)..=(node, u64::MAX)) {
            let mut kept = std::mem::take(&mut stream.entries);
            kept.truncate(shard_record(image, *network).map_or(0, |r| r.entries) as usize);
            *stream = Stream::default();
            kept.into_iter().for_each(|entry| drop(stream.push(entry)));
        }
    }
}

fn shard_record(image: &Image, network: u64) -> Option<wire::NetworkShardRecord> {
    let value = image.value(Table::Networks, &network.to_be_bytes())?;
    wire::NetworkShardRecord::decode(value.clone()).ok()
}

/// Deliveries of the log that a shard has applied.
fn heard(image: &Image) -> u64 {
    let key = [&b"a"[..], &u32::MAX.to_be_bytes()].concat();
    image.value(Table::Links, &key).map_or(0, |v| number(v))
}

impl Checkers {
    /// Somebody has signed an envelope, with these keys for each authority that it names.
    pub fn signed(&mut self, raw: &Bytes, keys: Vec<Vec<Bytes>>) {
        self.streams.signers.insert(Sha256::digest(raw).into(), keys);
    }

    /// Fresh votes for orders of PBTX networks: the registry as the shard knows it allows them.
    pub(super) fn check_may_vote(&mut self, node: NodeId, image: &Image, raw: &[Bytes], vote: &wire::Signed) {
        let applied = heard(image);
        let mut found = Vec::new();
        for (i, envelope) in raw.iter().enumerate().filter(|(i, _)| bit(&vote.bitmap, *i)) {
            let Some(order) = id_of(envelope).and_then(|id| self.orders.get(&id)) else { continue };
            let Some(foreign) = &order.foreign else { continue };
            // A vote that is repeated was right when it was given first.
            let again = !self.streams.voted.entry(node).or_default().insert(order.id);
            let place = order.place;
            let settled = place.id.is_none() && place.seqnum <= account(image, place.network, place.actor).seqnum;
            if again && place.id.is_none() || settled {
                continue;
            }
            let signers = self.streams.signers.get(&<Id>::from(Sha256::digest(envelope)));
            if let Some(why) = self.log.registry().refuses(order, signers, applied) {
                found.push(format!("{node:?} votes for order {i}, {place:?}, type {}: {why}", foreign.kind));
            }
            let actor = self.log.registry().actor_at(place.network, place.actor, applied);
            let admitted = actor.is_some_and(|a| a.admitted[..] == order.id);
            let cosignors = foreign.cosignors.iter().filter(|_| !admitted);
            let others = cosignors.map(|actor| Place { actor: *actor, seqnum: u32::MAX, ..place });
            // What comes after it in the batch was no reason yet.
            let later: Vec<Id> = raw.iter().skip(i + 1).filter_map(id_of).collect();
            let mut all = std::iter::once(place).chain(others);
            if let Some((who, open)) = all.find_map(|p| Some((p.actor, self.rotating(image, p, applied, &later)?))) {
                found.push(format!("{node:?} votes for {place:?} while {who} changes its keys at {open}"));
            }
        }
        found.into_iter().for_each(|what| self.violation(Rule::Registry, what));
    }

    /// A change of keys that is settled or locked below a place, and that the log has not decided as far as is known.
    fn rotating(&self, image: &Image, place: Place, applied: u64, but: &[Id]) -> Option<u32> {
        if place.id.is_some() {
            return None;
        }
        let rotated = self.log.registry().actor_at(place.network, place.actor, applied).map_or(0, |a| a.rotated);
        let record = account(image, place.network, place.actor);
        let rotates = |id: &Id| {
            let foreign = self.orders.get(id).and_then(|o| o.foreign.as_ref());
            foreign.is_some_and(|f| f.kind == ROTATE)
        };
        let settled = |seqnum: u32| settled_order(image, Place { seqnum, ..place }).is_some_and(|id| rotates(&id));
        let pending = |seqnum: u32| {
            let pending = record.pending.get((seqnum - record.seqnum - 1) as usize);
            pending
                .is_some_and(|p| Id::try_from(p.order_id.as_ref()).is_ok_and(|id| rotates(&id) && !but.contains(&id)))
        };
        let open = |s: &u32| rotated < *s && *s < place.seqnum;
        let mut open = self.orders.rotations(place.network, place.actor).filter(open);
        open.find(|s| if *s <= record.seqnum { settled(*s) } else { pending(*s) })
    }

    /// A step of a shard, as far as it is of PBTX networks.
    pub(super) fn check_pbtx(&mut self, node: NodeId, image: &Image, writes: &[Write]) {
        let applied = heard(image);
        let mut found = Vec::new();
        for w in writes.iter().filter(|w| w.table == Table::Stream) {
            found.extend(self.check_entry(node, image, w, applied).map(|what| (Rule::Stream, what)));
        }
        for w in writes {
            let network = if w.key.len() < 8 { 0 } else { number(&w.key[..8]) };
            let foreign = network != self.facts.network_id;
            match (w.table, &w.value) {
                (Table::Accounts, Some(_)) if foreign => {
                    found.extend(self.check_actor(node, image, network, number(&w.key[8..16]), applied));
                }
                (Table::Networks, Some(value)) => {
                    let record = wire::NetworkShardRecord::decode(value.as_slice()).unwrap_or_default();
                    if record.network.as_ref() != self.log.registry().network_at(network, applied) {
                        found.push((Rule::Registry, format!("{node:?} knows {network} as {:?}", record.network)));
                    }
                    let entries = self.streams.seen.get(&(node, network)).map_or(0, |s| s.entries.len());
                    if record.entries != entries as u64 || record.pruned > self.log.registry().prunes(network) {
                        let what = format!("{node:?}: {entries} entries of {network}, it says {record:?}");
                        found.push((Rule::Stream, what));
                    }
                }
                (Table::Orders, Some(value)) if foreign => {
                    found.extend(self.check_chain(node, image, &w.key, value));
                }
                _ => {}
            }
        }
        found.into_iter().for_each(|(rule, what)| self.violation(rule, what));
    }

    fn check_actor(
        &self,
        node: NodeId,
        image: &Image,
        network: u64,
        actor: u64,
        applied: u64,
    ) -> Option<(Rule, String)> {
        let record = account(image, network, actor);
        let known = known(record);
        let told = self.log.registry().actor_at(network, actor, applied).cloned().unwrap_or_default();
        (known != told).then(|| {
            (Rule::Registry, format!("{node:?} knows actor {actor} of {network} as {known:?}, the log says {told:?}"))
        })
    }

    /// A settled order follows the one before it, and is heard of at once where the log does not place it.
    fn check_chain(&self, node: NodeId, image: &Image, key: &[u8], value: &[u8]) -> Option<(Rule, String)> {
        let place = place_of(key, &self.orders);
        let id = order_id(value)?;
        let order = self.orders.get(&id)?;
        if place.id.is_none() {
            let before = place.before().filter(|p| p.seqnum > 0);
            let link = match before {
                Some(before) => settled_order(image, before).map(|id| short(&id)),
                None => Some(0),
            };
            if link != Some(order.prev_hash) {
                return Some((Rule::SettledAlike, format!("{node:?} settles {place:?} after another order")));
            }
        }
        let ordered = self.facts.networks.get(&place.network).is_some_and(|flags| flags & ORDERED != 0);
        let heard = self.streams.seen.get(&(node, place.network)).is_some_and(|s| s.orders.contains(&id));
        (!ordered && !heard).then(|| (Rule::Stream, format!("{node:?} settles {place:?} and its stream has it not")))
    }

    fn check_entry(&mut self, node: NodeId, image: &Image, w: &Write, applied: u64) -> Option<String> {
        let (network, position) = (number(&w.key[..8]), number(&w.key[8..16]));
        let Some(value) = &w.value else {
            let gone = position <= self.log.registry().prunes(network);
            return (!gone).then(|| format!("{node:?} loses entry {position} of {network}"));
        };
        let record = wire::StreamRecord::decode(value.as_slice()).unwrap_or_default();
        let stream = self.streams.seen.entry((node, network)).or_default();
        if position != stream.entries.len() as u64 + 1 {
            return Some(format!("{node:?} writes entry {position} of {network} after {}", stream.entries.len()));
        }
        let is_order = record.event() == Event::Exectrx;
        let ordered = self.facts.networks.get(&network).is_some_and(|flags| flags & ORDERED != 0);
        if !is_order || ordered {
            let place = if ordered { stream.entries.len() } else { stream.events() };
            let entry = self.log.registry().entry(network, place, applied);
            let same =
                entry.is_some_and(|e| (e.event, &e.data, &e.trx_id) == (record.event, &record.data, &record.trx_id));
            if !same {
                stream.entries.push(None);
                return Some(format!("{node:?}: entry {position} of {network} is {record:?}, the log has {entry:?}"));
            }
        }
        if !is_order {
            return stream.push(None).map(|what| format!("{node:?}: {network}: {what}"));
        }
        let id = Id::try_from(record.trx_id.as_ref()).unwrap_or_default();
        let place = self.orders.get(&id).map(|o| o.place).filter(|p| p.network == network);
        let settled =
            place.filter(|p| image.value(Table::Orders, &order_key(*p)).and_then(|v| order_id(v)) == Some(id));
        let wrong = stream.push(settled.map(|place| (id, place)));
        let wrong = wrong.or_else(|| settled.is_none().then(|| "an order that is not settled".into()));
        wrong.map(|what| format!("{node:?}: entry {position} of {network}: {what}"))
    }

    /// How the streams and actors of PBTX networks differ from what they must be in the end.
    pub(super) fn unheard(&self, expected: &BTreeMap<Place, Option<Id>>, disks: &[(NodeId, &Disk)]) -> Vec<String> {
        let mut found = Vec::new();
        for network in self.facts.networks.keys() {
            let range = Place::new(*network, 0, 0)..;
            let all = expected.range(range).take_while(|(place, _)| place.network == *network);
            let all: BTreeSet<Id> = all.filter_map(|(_, id)| *id).collect();
            for (node, disk) in disks.iter().filter(|(node, _)| self.facts.shard_of(*network, 0) == node.1) {
                let image = disk.synced();
                let none = Stream::default();
                let stream = self.streams.seen.get(&(*node, *network)).unwrap_or(&none);
                if stream.orders != all {
                    let (has, must) = (stream.orders.len(), all.len());
                    found.push(format!("{node:?}: the stream of {network} has {has} orders, it must have {must}"));
                }
                let ordered = self.facts.networks[network] & ORDERED != 0;
                let by_log = if ordered { stream.entries.len() } else { stream.events() };
                if by_log != self.log.registry().entries(*network) {
                    found.push(format!("{node:?}: the stream of {network} lacks what the log has put there"));
                }
                found.extend(self.differs(*node, image, *network));
                found.extend(unserved(image, *network, stream).map(|what| format!("{node:?}: {network}: {what}")));
            }
        }
        found
    }

    /// Actors that a shard knows differently from the log's last word.
    fn differs(&self, node: NodeId, image: &Image, network: u64) -> Vec<String> {
        let actors = self.log.registry().networks.get(network).into_iter().flat_map(|n| &n.actors);
        let other = actors.filter(|(actor, last)| known(account(image, network, **actor)) != **last);
        other.map(|(actor, last)| format!("{node:?}: actor {actor} of {network} is not {last:?}")).collect()
    }
}

/// What a shard knows of an actor.
fn known(record: wire::AccountRecord) -> Actor {
    Actor {
        permission: record.permission,
        frozen: record.barred,
        rotated: record.rotated,
        generation: record.generation,
        admitted: record.admitted,
    }
}

/// Whether the entries on disk are those that were seen, with the bodies that they name.
fn unserved(image: &Image, network: u64, stream: &Stream) -> Option<String> {
    let pruned = shard_record(image, network)?.pruned as usize;
    for (i, entry) in stream.entries.iter().enumerate().skip(pruned) {
        let key = account_key(network, i as u64 + 1);
        let Some(record) = image.value(Table::Stream, &key) else { return Some(format!("entry {} is gone", i + 1)) };
        let Some((id, _)) = entry else { continue };
        let record = wire::StreamRecord::decode(record.clone()).unwrap_or_default();
        let batch = image.value(Table::Batches, &record.batch.to_be_bytes());
        let batch = batch.and_then(|b| wire::BatchRecord::decode(b.clone()).ok()).unwrap_or_default();
        if batch.orders.get(record.index as usize).and_then(id_of) != Some(*id) {
            return Some(format!("entry {} is not the order that it names", i + 1));
        }
    }
    None
}
