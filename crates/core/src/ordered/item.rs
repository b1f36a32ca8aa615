//! Items of the log, made from what a shard has settled, and packed into units.

use bytes::Bytes;
use prost::Message;

use crate::authority::Authority;
use crate::authority::progress::load_progress;
use crate::authority::recover_notes::held_note;
use crate::authority::settle::{read_order, stored_orders};
use crate::authority::state::{Account, State, Table, corrupt, get_record, order_key};
use crate::batch::leaf_id;
use crate::bitmap::Bitmap;
use crate::envelope::Order;
use crate::error::Result;
use crate::limits::UNIT_BYTES_MAX;
use crate::merkle::{Hash, Tree};
use crate::wire;

/// Bytes that an item leaves for the rest of its unit.
const UNIT_OVERHEAD: usize = 64;

/// An item, and which of the calls it serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Encoded `Item`.
    pub item: Bytes,
    /// Indices of the calls.
    pub calls: Vec<usize>,
}

impl Authority {
    /// Items for what this shard hands to the log. Orders of one batch share an item as far as a unit holds them.
    pub fn log_items(&self, state: &dyn State, calls: &[wire::LogCall]) -> Result<Vec<Offer>> {
        let mut offers = Vec::new();
        let mut at = 0;
        while at < calls.len() {
            if calls[at].report && !calls[at].nonce.is_empty() {
                let report = note_report(state, &calls[at])?;
                let item = |report| wire::Item { kind: Some(wire::item::Kind::NoteReport(report)) }.encode_to_vec();
                offers.extend(report.map(|report| Offer { item: item(report).into(), calls: vec![at] }));
                at += 1;
                continue;
            }
            if calls[at].report {
                let LogCall { network_id, actor, seqnum, .. } = calls[at];
                let Some(order_id) = held(state, network_id, actor, seqnum)? else {
                    // Behind: it may hold the order without knowing that it is the one.
                    at += 1;
                    continue;
                };
                let report = wire::RecoveryReport { network_id, actor, seqnum, order_id };
                let item = wire::Item { kind: Some(wire::item::Kind::Report(report)) };
                offers.push(Offer { item: item.encode_to_vec().into(), calls: vec![at] });
                at += 1;
                continue;
            }
            // The log puts them in order, so only reports are kept apart.
            let batch = calls[at].batch;
            let run = calls[at..].iter().take_while(|c| c.batch == batch && !c.report).count();
            self.batch_items(state, batch, (at..at + run).map(|i| (i, calls[i].index as usize)), &mut offers)?;
            at += run;
        }
        Ok(offers)
    }

    /// By what authorities take turns in handing a call in: a number that all of them get from the batch, so that one
    /// hands in all of it, under one certificate.
    pub fn log_turn(&self, state: &dyn State, call: &wire::LogCall) -> Result<u64> {
        if call.report {
            return Ok(call.actor);
        }
        let root = load_progress(state, call.batch)?.root;
        Ok(root.first_chunk::<8>().map_or(call.actor, |first| u64::from_be_bytes(*first)))
    }

    fn batch_items(
        &self,
        state: &dyn State,
        batch: u64,
        calls: impl Iterator<Item = (usize, usize)>,
        offers: &mut Vec<Offer>,
    ) -> Result<()> {
        let orders = stored_orders(state, batch)?;
        let progress = load_progress(state, batch)?;
        let decoded: Vec<Result<Order>> = orders.iter().map(|raw| Order::decode(raw.clone())).collect();
        let ids: Vec<Hash> = orders.iter().zip(&decoded).map(|(raw, order)| leaf_id(raw, order)).collect();
        let tree = Tree::new(&ids);
        let mut wanted: Vec<(usize, usize)> = calls.collect();
        wanted.sort_by_key(|(_, index)| *index);
        let mut open: Option<Making> = None;
        for (call, index) in wanted {
            let lost = || corrupt(Table::Batches, &batch.to_be_bytes(), "an order for the log is missing");
            let body = decoded.get(index).and_then(|o| o.as_ref().ok()).map(|o| o.body.clone()).ok_or_else(lost)?;
            // What is here on the log's word alone the log has.
            let Some(certificate) = self.certificate_for(&progress.certificates, progress.count, index) else {
                continue;
            };
            let fits = open.as_ref().is_some_and(|o| o.certificate == certificate && o.fits(index, &body, &tree));
            if !fits {
                offers.extend(open.take().map(|o| o.finish(&tree)));
                open = Some(Making { certificate, indices: Vec::new(), bodies: Vec::new(), calls: Vec::new() });
            }
            if let Some(open) = &mut open {
                open.add(call, index, body);
            }
        }
        offers.extend(open.map(|o| o.finish(&tree)));
        Ok(())
    }

    /// A certificate of the order with just a quorum of votes: all authorities check each vote in it.
    fn certificate_for(
        &self,
        certificates: &[wire::Certificate],
        count: usize,
        index: usize,
    ) -> Option<wire::Certificate> {
        let quorum = self.committee().quorum();
        certificates.iter().find_map(|c| {
            let has = |v: &&wire::Signed| Bitmap::parse(&v.bitmap, count).is_ok_and(|b| b.get(index));
            let votes: Vec<wire::Signed> = c.votes.iter().filter(has).take(quorum).cloned().collect();
            (votes.len() == quorum).then(|| wire::Certificate { votes, ..c.clone() })
        })
    }
}

use wire::LogCall;

/// Id of the certified order that this shard holds for a seqnum, settled or waiting; empty if there is none. `None` if
/// that can't be said yet, as not all before it is settled.
fn held(state: &dyn State, network_id: u64, actor: u64, seqnum: u32) -> Result<Option<Bytes>> {
    let key = order_key(network_id, actor, seqnum);
    if let Some(record) = get_record::<wire::OrderRecord>(state, Table::Orders, &key)? {
        return Ok(Some(record.order_id));
    }
    let account = Account::load(state, network_id, actor)?;
    if account.seqnum + 1 < seqnum {
        return Ok(None);
    }
    let follows = |e: &&wire::EarlyRecord| e.seqnum == seqnum && e.prev_hash == account.prev_hash;
    let Some(early) = account.early.iter().find(follows) else { return Ok(Some(Bytes::new())) };
    let order = read_order(state, early.batch, early.index)?;
    Ok(Some(order.map(|o| Bytes::copy_from_slice(&o.id)).unwrap_or_default()))
}

/// The report on a note that is frozen here; `None` if the recovery is decided.
fn note_report(state: &dyn State, call: &LogCall) -> Result<Option<wire::NoteReport>> {
    let record: wire::NoteRecord = get_record(state, Table::Notes, &call.nonce)?.unwrap_or_default();
    let Some(held) = held_note(&record, call.seqnum) else { return Ok(None) };
    let order = match held {
        Some((batch, index)) => read_order(state, batch, index)?,
        None => None,
    };
    let order_id = order.map(|order| Bytes::copy_from_slice(&order.id)).unwrap_or_default();
    Ok(Some(wire::NoteReport { nonce: call.nonce.clone(), order_id, recoveries: call.seqnum }))
}

/// An item in the making.
struct Making {
    certificate: wire::Certificate,
    indices: Vec<usize>,
    bodies: Vec<Bytes>,
    calls: Vec<usize>,
}

impl Making {
    fn fits(&self, index: usize, body: &Bytes, tree: &Tree) -> bool {
        if self.indices.last() == Some(&index) {
            return true;
        }
        let bodies: usize = self.bodies.iter().chain([body]).map(|b| b.len() + 4).sum();
        let mut indices = self.indices.clone();
        indices.push(index);
        // A path is at most as many hashes as the tree is high; counting exactly costs the tree each time.
        let proof = if indices.len() > 64 { 64 * 12 } else { tree.parts(&indices).len() };
        let size = self.certificate.encoded_len() + bodies + indices.len() * 3 + proof * 34 + 32;
        size + 2 * UNIT_OVERHEAD <= UNIT_BYTES_MAX
    }

    fn add(&mut self, call: usize, index: usize, body: Bytes) {
        self.calls.push(call);
        if self.indices.last() != Some(&index) {
            self.indices.push(index);
            self.bodies.push(body);
        }
    }

    fn finish(self, tree: &Tree) -> Offer {
        let proof = tree.parts(&self.indices).iter().map(|h| Bytes::copy_from_slice(h)).collect();
        let orders = wire::CertifiedOrders {
            certificate: Some(self.certificate),
            indices: self.indices.iter().map(|i| *i as u32).collect(),
            bodies: self.bodies,
            proof,
        };
        let item = wire::Item { kind: Some(wire::item::Kind::Orders(orders)) };
        Offer { item: item.encode_to_vec().into(), calls: self.calls }
    }
}

/// The item of the log that carries one of the key generation.
pub fn dkg_item(item: Bytes) -> Bytes {
    wire::Item { kind: Some(wire::item::Kind::Dkg(item)) }.encode_to_vec().into()
}

/// Whether the data of a unit is a clock vote and nothing else, which can wait a moment.
pub fn is_only_clock(data: &[u8]) -> bool {
    const KEY: u8 = 1 << 3 | 1;
    data.len() == 9 && data[0] == KEY
}

/// Packs items into the data of units, in order, each with a clock vote (ms since 1970; 0 for none).
///
/// An item that is larger than a unit is left out: none that [`Authority::log_items`] makes is.
pub fn pack(clock_ms: u64, items: Vec<Bytes>) -> Vec<Bytes> {
    let mut units = Vec::new();
    let mut open = wire::UnitData { clock_ms, items: Vec::new() };
    let mut size = UNIT_OVERHEAD;
    for item in items {
        if item.len() + UNIT_OVERHEAD > UNIT_BYTES_MAX {
            continue;
        }
        if size + item.len() + 8 > UNIT_BYTES_MAX {
            let full = std::mem::replace(&mut open, wire::UnitData { clock_ms, items: Vec::new() });
            units.push(full.encode_to_vec().into());
            size = UNIT_OVERHEAD;
        }
        size += item.len() + 8;
        open.items.push(item);
    }
    units.push(open.encode_to_vec().into());
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_alone_is_told_from_all_else() {
        let only = |clock_ms, items: &[&'static [u8]]| {
            let units = pack(clock_ms, items.iter().map(|item| Bytes::from_static(item)).collect());
            assert_eq!(units.len(), 1);
            is_only_clock(&units[0])
        };
        assert!(only(1, &[]) && only(u64::MAX, &[]));
        assert!(!only(0, &[]) && !only(1, &[b""]) && !only(0, &[b"seven b"]) && !only(0, &[b"9 bytes"]));
        assert!(!is_only_clock(&[0; 9]));
    }
}
