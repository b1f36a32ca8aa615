//! What has to be so once all faults are over: everything settled, alike everywhere.

use std::collections::BTreeMap;

use florin_core::authority::state::Table;
use florin_core::wire;
use prost::Message as _;

use super::cash::Held;
use super::ledger::{self, signed};
use super::orders::{Id, Known, Place};
use super::{Checkers, NodeId, log_record, order_id, order_key, place_of};
use crate::disk::Disk;

impl Checkers {
    /// What some honest authority has settled on disk, or said to have settled; `None` is void.
    fn lasting(&self, disks: &[(NodeId, &Disk)]) -> BTreeMap<Place, Option<Id>> {
        let acked = self.acked.values().flatten().map(|(place, id)| (*place, Some(*id)));
        let acked = acked.filter(|(place, _)| self.log.void_at_or_below(*place).is_none());
        let stored = disks.iter().flat_map(|(_, disk)| disk.synced().table(Table::Orders));
        let stored = stored.map(|(key, value)| (place_of(key, &self.orders), order_id(value)));
        acked.chain(stored).collect()
    }

    /// What is not yet as it has to be once all faults are over.
    pub fn unfinished(&self, disks: &[(NodeId, &Disk)], logs: &[(u32, &Disk)], held: &[Held]) -> Vec<String> {
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
            let mine = |place: &Place| self.facts.shard_of(place.network, place.actor) == node.1;
            let image = disk.synced();
            let has = |place: &Place| image.value(Table::Orders, &order_key(*place));
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
        found.extend(self.unheard(&expected, disks));
        found.extend(self.cash.unfinished(&expected, &self.orders, disks, held));
        found
    }

    /// What the log has not done yet, or not everywhere.
    fn unordered(&self, expected: &BTreeMap<Place, Option<Id>>, logs: &[(u32, &Disk)]) -> Vec<String> {
        let mut found = Vec::new();
        let is_call = |id: &Id| {
            let by_log =
                |o: &Known| o.foreign.as_ref().is_some_and(|f| self.facts.goes_to_log(o.place.network, f.kind));
            self.orders.get(id).is_some_and(|o| o.call.is_some() || by_log(o))
        };
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
