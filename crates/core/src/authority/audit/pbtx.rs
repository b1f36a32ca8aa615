//! PBTX networks: their orders in the books, and their streams.

use prost::Message;

use super::books::Move;
use super::{Audit, Pages, decode, read};
use crate::authority::state::{Table, corrupt, order_id_key, order_key};
use crate::content::TYPE_ROTATE;
use crate::envelope::Order;
use crate::error::Result;
use crate::network_flags::{ORDERED, SKIP_SEQ_AND_PREVHASH};
use crate::wire::{self, history_row::Event};

impl Audit<'_> {
    fn flags(&self, network_id: u64) -> Result<Option<u32>> {
        let record: Option<wire::NetworkShardRecord> = read(self.state, Table::Networks, &network_id.to_be_bytes())?;
        Ok(record.map(|r| r.network.unwrap_or_default().flags))
    }

    /// Books one settled order of a PBTX network: its place in its actor's chain, and that its stream has it.
    pub(super) fn book_pbtx(&mut self, batch: u64, index: usize, order: &Order, at: &str) -> Result<()> {
        let Some(flags) = self.flags(order.network_id)? else {
            self.out.find(format!("{at}: expected network {} to be known, found it is not", order.network_id));
            return Ok(());
        };
        let id = (order.network_id, order.actor);
        let skips = flags & SKIP_SEQ_AND_PREVHASH != 0;
        let record: Option<wire::OrderRecord> = match skips {
            true => read(self.state, Table::Orders, &order_id_key(id.0, id.1, &order.id))?,
            false => read(self.state, Table::Orders, &order_key(id.0, id.1, order.seqnum))?,
        };
        let record = record.unwrap_or_default();
        let rotates = order.transaction_type == TYPE_ROTATE;
        let expected = (hex::encode(order.id), batch, index as u32, rotates || flags & ORDERED != 0);
        let found = (hex::encode(&record.order_id), record.batch, record.index, record.call);
        self.out.expect(format!("{at}: order record"), expected, found);
        if !skips && (rotates || flags & ORDERED != 0) {
            let last = self.out.pbtx_calls.entry(id).or_insert((0, flags & ORDERED != 0));
            last.0 = last.0.max(order.seqnum);
        }
        if flags & ORDERED == 0 {
            *self.books.streamed.entry(order.network_id).or_default() += 1;
        }
        if skips {
            return Ok(());
        }
        let book = self.books.account(id);
        if order.seqnum <= book.seqnum || book.ahead.contains_key(&order.seqnum) {
            self.out.find(format!("{at}: expected one settled order at its seqnum, found it settled twice"));
            return Ok(());
        }
        if rotates {
            book.rotated = book.rotated.max(order.seqnum);
        }
        book.ahead.insert(order.seqnum, Move::pbtx(order.prev_hash, order.next_hash()));
        self.advance(id, false)
    }

    /// What a settled order of a PBTX network hands to the log.
    pub(super) fn pbtx_call(&mut self, call: &wire::LogCall, order: &Order, at: &str) -> Result<()> {
        let flags = self.flags(order.network_id)?.unwrap_or(0);
        let due = flags & ORDERED != 0 || order.transaction_type == TYPE_ROTATE;
        self.out.expect(format!("{at}: whether the log needs the order"), true, due);
        self.out.expect(format!("{at}: kind of call"), (false, false), (call.recover, call.shown));
        if !self.out.pbtx_kept.insert(((order.network_id, order.actor), order.seqnum)) {
            self.out.find(format!("{at}: expected each order once, found it again"));
        }
        let key = order_key(order.network_id, order.actor, order.seqnum);
        let record: wire::OrderRecord = read(self.state, Table::Orders, &key)?.unwrap_or_default();
        let expected = (hex::encode(order.id), call.batch, call.index);
        let found = (hex::encode(&record.order_id), record.batch, record.index);
        self.out.expect(format!("{at}: settled order"), expected, found);
        Ok(())
    }

    /// Each network's stream is unbroken, and has each settled order once.
    pub(super) fn streams(&mut self) -> Result<()> {
        let mut at: Option<(u64, u64)> = None;
        let mut ends = std::collections::BTreeMap::new();
        let mut orders = std::collections::BTreeMap::<u64, u64>::new();
        let mut batch: Option<(u64, Vec<bytes::Bytes>)> = None;
        for entry in Pages::new(self.state, Table::Stream) {
            let (key, value) = entry?;
            let entry: wire::StreamRecord = decode(Table::Stream, &key, value)?;
            let bytes = <[u8; 16]>::try_from(key.as_ref());
            let place = bytes.map(u128::from_be_bytes).map_err(|_| corrupt(Table::Stream, &key, "not 16 bytes"))?;
            let (network_id, position) = ((place >> 64) as u64, place as u64);
            if let Some((before, last)) = at.replace((network_id, position))
                && before == network_id
            {
                self.out.expect(format!("network {network_id}: next position"), last + 1, position);
            }
            ends.entry(network_id).or_insert((position, position)).1 = position;
            if entry.event() == Event::Exectrx {
                *orders.entry(network_id).or_default() += 1;
                if batch.as_ref().is_none_or(|(number, _)| *number != entry.batch) {
                    let record: Option<wire::BatchRecord> =
                        read(self.state, Table::Batches, &entry.batch.to_be_bytes())?;
                    batch = Some((entry.batch, record.unwrap_or_default().orders));
                }
                let raw = batch.as_ref().and_then(|(_, orders)| orders.get(entry.index as usize)).cloned();
                let order = raw.and_then(|raw| Order::decode(raw).ok()).filter(|o| o.network_id == network_id);
                let found = order.map(|o| hex::encode(o.id));
                let what = format!("network {network_id}, position {position}: order");
                self.out.expect(what, Some(hex::encode(&entry.trx_id)), found);
            }
        }
        for entry in Pages::new(self.state, Table::Networks) {
            let (key, value) = entry?;
            let record: wire::NetworkShardRecord = decode(Table::Networks, &key, value)?;
            let bytes = <[u8; 8]>::try_from(key.as_ref());
            let id = bytes.map(u64::from_be_bytes).map_err(|_| corrupt(Table::Networks, &key, "not 8 bytes"))?;
            self.out.registry.add((id, 0), &record.network.clone().unwrap_or_default().encode_to_vec());
            let shard = self.authority.committee().shard_of(id, 0);
            self.out.expect(format!("network {id}: shard"), self.authority.shard(), shard);
            let (first, last) = ends.remove(&id).unwrap_or((record.pruned + 1, record.pruned));
            let what = format!("network {id}: first and last entry of its stream");
            self.out.expect(what, (record.pruned + 1, record.entries), (first, last));
            let settled = self.books.streamed.remove(&id).unwrap_or(0);
            let ordered = record.network.is_some_and(|n| n.flags & ORDERED != 0);
            if record.pruned == 0 && !ordered {
                let found = orders.get(&id).copied().unwrap_or(0);
                self.out.expect(format!("network {id}: orders in its stream"), settled, found);
            }
        }
        for id in ends.keys().chain(self.books.streamed.keys()) {
            self.out.find(format!("network {id}: expected a record of it, found a stream alone"));
        }
        Ok(())
    }
}
