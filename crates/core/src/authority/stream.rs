//! Reads of PBTX networks: actors, the stream that listeners follow, history.

use bytes::Bytes;
use prost::Message;

use super::Authority;
use super::progress::load_progress;
use super::query::covering;
use super::settle::{read_order, stored_orders};
use super::state::{Account, State, Table, corrupt, get_record, stream_key};
use crate::batch::leaf_id;
use crate::envelope::Order;
use crate::error::{Code, Error, Result};
use crate::limits::PAGE_MAX;
use crate::merkle::{Hash, Tree};
use crate::network_flags::{HISTORY, RAW_NOTIFY};
use crate::wire::{self, history_row::Event};

/// Bytes of one message of a stream or page of history, roughly.
const LISTEN_BYTES: usize = 1 << 20;
/// Batches that are read, and decoded, for one of them.
const LISTEN_BATCHES: usize = 8;

/// An entry of the stream that is an order.
struct Entry {
    position: u64,
    index: usize,
    time_us: u64,
}

impl Authority {
    /// An actor of a PBTX network.
    pub fn actor(&self, state: &dyn State, request: &wire::ActorRequest) -> Result<wire::ActorReply> {
        self.served(request.network_id, request.actor)?;
        self.pbtx_network(state, request.network_id)?;
        let account = Account::load(state, request.network_id, request.actor)?;
        let mut reply = wire::ActorReply {
            known: account != Account::default(),
            removed: account.permission.is_empty() && account != Account::default(),
            permission: account.permission,
            seqnum: account.seqnum,
            prev_hash: account.prev_hash,
            frozen: account.barred,
            generation: account.generation,
            admitted: account.admitted,
            rotating: if account.rotation.0 > account.rotation.1 { account.rotation.0 } else { 0 },
            pending: Vec::new(),
        };
        for (i, p) in account.pending.iter().enumerate() {
            let body = read_order(state, p.batch, p.index)?.map(|o| o.body).unwrap_or_default();
            let seqnum = account.seqnum.saturating_add(1 + i as u32);
            reply.pending.push(wire::PendingOrder { seqnum, body, amount: 0 });
        }
        Ok(reply)
    }

    /// A page of a network's stream, from a position on, with what proves each order where this authority has a
    /// certificate: what it has settled on the log's word alone comes without. The shell makes it durable before it
    /// sends it. Errors: `UNKNOWN_NETWORK`, `PRUNED`.
    pub fn listen(&self, state: &dyn State, request: &wire::ListenRequest) -> Result<wire::ListenReply> {
        self.served(request.network_id, 0)?;
        let record = self.pbtx_network(state, request.network_id)?;
        let flags = record.network.as_ref().map_or(0, |n| n.flags);
        let from = request.from.max(1);
        if from <= record.pruned {
            let expected = format!("above {}", record.pruned);
            return Err(Error::expected(Code::Pruned, "position in the stream", expected, from));
        }
        let mut reply = wire::ListenReply { end: record.entries + 1, flags, ..Default::default() };
        reply.next = from;
        if from > reply.end {
            return Err(Error::expected(
                Code::OutOfOrder,
                "position in the stream",
                format!("at most {}", reply.end),
                from,
            ));
        }
        let entries = self.entries(state, request.network_id, from, record.entries, PAGE_MAX)?;
        let mut bytes = 0;
        for run in entries.chunk_by(|(_, a), (_, b)| (a.event(), a.batch) == (b.event(), b.batch)) {
            let Some(((_, first), (last, _))) = run.first().zip(run.last()) else { continue };
            if reply.batches.len() >= LISTEN_BATCHES {
                return Ok(reply);
            }
            if first.event() == Event::Exectrx && !self.stream_batch(state, first.batch, run, &mut bytes, &mut reply)? {
                return Ok(reply);
            }
            reply.next = last + 1;
        }
        Ok(reply)
    }

    /// Adds entries of one batch to a page; whether all have found room.
    fn stream_batch(
        &self,
        state: &dyn State,
        batch: u64,
        run: &[(u64, wire::StreamRecord)],
        bytes: &mut usize,
        reply: &mut wire::ListenReply,
    ) -> Result<bool> {
        let orders = stored_orders(state, batch)?;
        let progress = load_progress(state, batch)?;
        let decoded: Vec<Result<Order>> = orders.iter().map(|raw| Order::decode(raw.clone())).collect();
        let ids: Vec<Hash> = orders.iter().zip(&decoded).map(|(raw, order)| leaf_id(raw, order)).collect();
        let tree = Tree::new(&ids);
        let lost = || corrupt(Table::Batches, &batch.to_be_bytes(), "an order of a stream is missing");
        let mut room = *bytes;
        let fits = |(_, entry): &&(u64, wire::StreamRecord)| {
            room += 2 * orders.get(entry.index as usize).map_or(0, Bytes::len);
            room <= LISTEN_BYTES
        };
        // One at least, or it would never come.
        let room = run.iter().take_while(fits).count().max(usize::from(reply.batches.is_empty()));
        let placed = |(position, entry): &(u64, wire::StreamRecord)| Entry {
            position: *position,
            index: entry.index as usize,
            time_us: entry.time_us,
        };
        let entries: Vec<Entry> = run[..room].iter().map(placed).collect();
        // One certificate proves a run, but where the batch needed several.
        let mut rest = &entries[..];
        while let Some(first) = rest.first() {
            let quorum = self.committee().quorum();
            let certificate = covering(&progress.certificates, progress.count, first.index, quorum).cloned();
            let is_covered = |entry: &Entry| match &certificate {
                Some(c) => covering(std::slice::from_ref(c), progress.count, entry.index, quorum).is_some(),
                None => covering(&progress.certificates, progress.count, entry.index, quorum).is_none(),
            };
            let (some, others) = rest.split_at(rest.iter().take_while(|entry| is_covered(entry)).count().max(1));
            rest = others;
            let mut sorted: Vec<usize> = some.iter().map(|entry| entry.index).collect();
            sorted.sort_unstable();
            let mut out = wire::StreamBatch {
                positions: some.iter().map(|entry| entry.position).collect(),
                times_us: some.iter().map(|entry| entry.time_us).collect(),
                ..Default::default()
            };
            let mut bodies = Vec::with_capacity(some.len());
            for entry in some {
                let order = decoded.get(entry.index).and_then(|o| o.as_ref().ok()).ok_or_else(lost)?;
                bodies.push(order.body.clone());
                if reply.flags & RAW_NOTIFY != 0 {
                    out.transactions.push(order.raw.clone());
                }
            }
            out.orders = Some(wire::CertifiedOrders {
                certificate,
                indices: some.iter().map(|entry| entry.index as u32).collect(),
                bodies,
                proof: tree.parts(&sorted).iter().map(|h| Bytes::copy_from_slice(h)).collect(),
            });
            *bytes += out.encoded_len();
            reply.batches.push(out);
            reply.next = some.last().map_or(reply.next, |entry| entry.position + 1);
        }
        Ok(room == run.len())
    }

    /// Rows of a network's history. Errors: `UNKNOWN_NETWORK`; `BAD_CONTENT` if it keeps none; `PRUNED`.
    pub fn history(&self, state: &dyn State, request: &wire::HistoryRequest) -> Result<wire::HistoryReply> {
        self.served(request.network_id, 0)?;
        let record = self.pbtx_network(state, request.network_id)?;
        if record.network.as_ref().is_none_or(|n| n.flags & HISTORY == 0) {
            let message = format!("network {} has not the flag HISTORY", request.network_id);
            return Err(Error::new(Code::BadContent, message));
        }
        let limit = (request.limit as usize).clamp(1, PAGE_MAX);
        let from = request.from.max(record.pruned + 1);
        let mut reply = wire::HistoryReply::default();
        let mut bytes = 0;
        let mut kept: Option<(u64, Vec<Bytes>)> = None;
        let mut batches = 0;
        for (id, entry) in self.entries(state, request.network_id, from, record.entries, limit)? {
            let data = match entry.event() {
                Event::Exectrx => {
                    let orders = match kept.take() {
                        Some((batch, orders)) if batch == entry.batch => orders,
                        _ if batches == LISTEN_BATCHES => {
                            reply.next = id;
                            return Ok(reply);
                        }
                        _ => {
                            batches += 1;
                            stored_orders(state, entry.batch)?
                        }
                    };
                    let raw = orders.get(entry.index as usize).cloned().unwrap_or_default();
                    kept = Some((entry.batch, orders));
                    raw
                }
                _ => entry.data.clone(),
            };
            bytes += data.len();
            if bytes > LISTEN_BYTES && !reply.rows.is_empty() {
                reply.next = id;
                return Ok(reply);
            }
            let (event, trx_id, time_us) = (entry.event, entry.trx_id, entry.time_us);
            reply.rows.push(wire::HistoryRow { id, event, data, trx_id, time_us });
        }
        reply.next = reply.rows.last().map_or(0, |row| row.id + 1);
        if reply.next > record.entries {
            reply.next = 0;
        }
        Ok(reply)
    }

    fn entries(
        &self,
        state: &dyn State,
        network_id: u64,
        from: u64,
        last: u64,
        limit: usize,
    ) -> Result<Vec<(u64, wire::StreamRecord)>> {
        let mut entries = Vec::new();
        for position in (from..=last).take(limit) {
            let key = stream_key(network_id, position);
            let entry: Option<wire::StreamRecord> = get_record(state, Table::Stream, &key)?;
            entries.push((position, entry.ok_or_else(|| corrupt(Table::Stream, &key, "missing"))?));
        }
        Ok(entries)
    }

    fn pbtx_network(&self, state: &dyn State, network_id: u64) -> Result<wire::NetworkShardRecord> {
        let record = get_record(state, Table::Networks, &network_id.to_be_bytes())?;
        record.ok_or_else(|| Error::new(Code::UnknownNetwork, format!("network {network_id} is not registered")))
    }
}
