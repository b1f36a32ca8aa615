//! Reads of the log: what clients and peers may ask. Nothing here changes state.

use bytes::Bytes;
use prost::Message;

use super::OrderedLog;
use super::bearers::{bearer_key, note_key};
use super::book::Book;
use super::modules::bridge::redeem_key;
use super::modules::channels::{channel_key, channel_of_key};
use super::modules::contracts::contract_key;
use super::modules::primary::{balance_key, deposit_key};
use super::modules::registry::network_key;
use super::orders::outcome_key;
use super::session;
use super::step::{Object, actor_key, get_object, object_key};
use crate::authority::state::{Link, State, Table, corrupt, get_u64, link_key, need_record, outbox_key};
use crate::bitmap::Bitmap;
use crate::error::{Code, Error, Result};
use crate::limits::{PAGE_MAX, SESSIONS_PAGE, UNITS_PAGE_BYTES};
use crate::wire::{self, order_status};

/// How long before a time lock the log's time must be exact, ms.
const SOON_MS: u64 = 600_000;

impl OrderedLog {
    /// Where it is, and its sums.
    pub fn book(&self, state: &dyn State) -> Result<Book> {
        Book::load(state, self.committee().size())
    }

    /// The part of its status that is on disk.
    pub fn status(&self, state: &dyn State) -> Result<wire::LogStatus> {
        let book = self.book(state)?;
        Ok(wire::LogStatus {
            session: book.session,
            units: book.units,
            time_ms: book.time_ms,
            last_header: book.previous,
            signed_sessions: session::signed_sessions(state)?,
            state_hash: book.state_hash,
            ..Default::default()
        })
    }

    /// Sessions from one on that a quorum has signed, without a gap.
    pub fn sessions(&self, state: &dyn State, request: &wire::SessionsRequest) -> Result<wire::SessionsReply> {
        let limit = (request.limit as usize).clamp(1, SESSIONS_PAGE);
        let mut sessions = Vec::new();
        for number in (request.from..session::signed_sessions(state)?).take(limit) {
            sessions.push(session::load(state, number)?);
        }
        Ok(wire::SessionsReply { sessions })
    }

    /// The own signature of a session that is closed here, for peers that may lack it.
    pub fn own_signature(&self, state: &dyn State, number: u64) -> Result<Option<wire::Signed>> {
        match session::load(state, number) {
            Ok(signed) => Ok(signed.signatures.into_iter().find(|s| s.authority == self.index())),
            Err(e) if e.is_own_fault() => Err(e),
            Err(_) => Ok(None),
        }
    }

    /// Units of a session, from a position on, as many as a message takes.
    pub fn units(&self, state: &dyn State, request: &wire::UnitsRequest) -> Result<wire::UnitsReply> {
        let book = self.book(state)?;
        let end = match request.session {
            s if s < book.session => session::load(state, s)?.header.map_or(0, |h| h.units),
            s if s == book.session => book.units,
            s => return Err(Error::expected(Code::OutOfOrder, "session", format!("at most {}", book.session), s)),
        };
        let (mut units, mut bytes) = (Vec::new(), 0);
        for position in request.from..end {
            let unit = session::load_unit(state, request.session, position)?;
            bytes += unit.data.len() + 16;
            if bytes > UNITS_PAGE_BYTES && !units.is_empty() {
                break;
            }
            units.push(unit);
        }
        Ok(wire::UnitsReply { units })
    }

    /// Adds to what the shard says of an order ([`crate::authority::Authority::order_status`]) what the log knows.
    pub fn order_status(
        &self,
        state: &dyn State,
        request: &wire::OrderStatusRequest,
        mut status: wire::OrderStatus,
    ) -> Result<wire::OrderStatus> {
        let key = match request.order_id.is_empty() {
            true => outcome_key(request.network_id, request.actor, request.seqnum),
            false => bearer_key(&request.order_id),
        };
        if let Some(outcome) = get_object::<wire::OutcomeRecord>(state, &key)? {
            status.set_state(match outcome.code {
                0 => order_status::State::Ordered,
                freed if freed == Code::NoteFreed as u32 => order_status::State::Void,
                _ => order_status::State::Failed,
            });
            status.order_id = outcome.order_id;
            (status.session, status.index) = (outcome.session, outcome.index);
            (status.code, status.message) = (outcome.code, outcome.message);
            status.calls = true;
        }
        Ok(status)
    }

    /// A contract.
    pub fn contract(&self, state: &dyn State, request: &wire::ContractRequest) -> Result<wire::ContractReply> {
        let time_ms = self.book(state)?.time_ms;
        let record: Option<wire::ContractRecord> = get_object(state, &contract_key(&request.contract))?;
        Ok(match record {
            Some(r) => wire::ContractReply { state: r.state, fund: r.fund, preimage: r.preimage, time_ms },
            None => wire::ContractReply { time_ms, ..Default::default() },
        })
    }

    /// A channel.
    pub fn channel(&self, state: &dyn State, request: &wire::ChannelRequest) -> Result<wire::ChannelReply> {
        let book = self.book(state)?;
        let channel = get_object(state, &channel_key(&request.channel))?;
        Ok(wire::ChannelReply { channel, time_ms: book.time_ms, session: book.session, units: book.units })
    }

    /// Channels of an address, by their ids.
    pub fn channels(&self, state: &dyn State, request: &wire::ChannelsRequest) -> Result<wire::ChannelsReply> {
        let limit = (request.limit as usize).clamp(1, PAGE_MAX);
        let mut reply = wire::ChannelsReply { time_ms: self.book(state)?.time_ms, ..Default::default() };
        let all = channel_of_key(&request.address, &[]);
        let mut from = channel_of_key(&request.address, &request.after);
        if !request.after.is_empty() {
            from.push(0);
        }
        let mut bytes = 0;
        let page = state.scan(Table::Objects, &from, limit + 1)?;
        for id in page.iter().map_while(|(key, _)| key.strip_prefix(&all[..]).filter(|id| id.len() == 32)) {
            let channel = Bytes::copy_from_slice(id);
            let record: Option<wire::ChannelRecord> = get_object(state, &channel_key(id))?;
            bytes += record.as_ref().map_or(0, Message::encoded_len);
            if reply.channels.len() == limit || bytes > UNITS_PAGE_BYTES && !reply.channels.is_empty() {
                reply.next = reply.channels.last().map(|last| last.channel.clone()).unwrap_or_default();
                break;
            }
            reply.channels.push(wire::ListedChannel { channel, record });
        }
        Ok(reply)
    }

    /// The bridge and the embedded primary.
    pub fn primary(&self, state: &dyn State, request: &wire::PrimaryRequest) -> Result<wire::PrimaryReply> {
        let book = self.book(state)?;
        let balance: Option<wire::PrimaryBalance> = match request.address.len() {
            32 => get_object(state, &balance_key(&request.address))?,
            _ => None,
        };
        let mut reply = wire::PrimaryReply {
            total_funds: u64::try_from(book.primary).unwrap_or(0),
            deposits: book.deposits,
            redeems: book.redeems,
            balance: balance.map_or(0, |b| b.amount),
            committee_id: Bytes::copy_from_slice(self.committee().id()),
            epoch: self.committee().epoch,
            ..Default::default()
        };
        for index in (request.deposits_from..book.deposits).take(PAGE_MAX) {
            reply.deposit_log.extend(get_object::<wire::DepositEntry>(state, &deposit_key(index))?);
        }
        for index in (request.redeems_from..book.redeems).take(PAGE_MAX) {
            reply.redeem_log.extend(get_object::<wire::RedeemEntry>(state, &redeem_key(index))?);
        }
        Ok(reply)
    }

    /// A network of the registry.
    pub fn network(&self, state: &dyn State, request: &wire::NetworkRequest) -> Result<wire::NetworkReply> {
        Ok(wire::NetworkReply { network: get_object(state, &network_key(request.network_id))? })
    }

    /// Networks of the registry by their ids, without those that are removed.
    pub fn networks(&self, state: &dyn State, request: &wire::NetworksRequest) -> Result<wire::NetworksReply> {
        let limit = (request.limit as usize).clamp(1, PAGE_MAX);
        let mut reply = wire::NetworksReply::default();
        let from = network_key(request.from);
        let page = state.scan(Table::Objects, &from, PAGE_MAX)?;
        let mut bytes = 0;
        for (key, value) in &page {
            let Some(id) = key.strip_prefix(&[Object::Network as u8]).and_then(|k| k.try_into().ok()) else {
                return Ok(reply);
            };
            let network_id = u64::from_be_bytes(id);
            if reply.networks.len() == limit {
                reply.next = network_id;
                return Ok(reply);
            }
            let network =
                wire::NetworkRecord::decode(value.clone()).map_err(|e| corrupt(Table::Objects, key, &e.to_string()))?;
            bytes += value.len();
            if bytes > UNITS_PAGE_BYTES && !reply.networks.is_empty() {
                reply.next = network_id;
                return Ok(reply);
            }
            if !network.removed {
                reply.networks.push(wire::ListedNetwork { network_id, network: Some(network) });
            }
            if page.len() == PAGE_MAX {
                reply.next = network_id + 1;
            }
        }
        Ok(reply)
    }

    /// Whether the log needs nothing more of what a shard handed in.
    pub fn is_done(&self, state: &dyn State, call: &wire::LogCall) -> Result<bool> {
        if !call.nonce.is_empty() {
            let open: Option<wire::NoteRecoveryRecord> = get_object(state, &note_key(&call.nonce))?;
            match open.filter(|open| open.due_ms != 0) {
                None => return Ok(true),
                Some(open) if call.report => {
                    let reports = Bitmap::parse(&open.reports, self.committee().size())?;
                    return Ok(open.recoveries != call.seqnum || reports.get(self.index() as usize));
                }
                Some(_) => {}
            }
        }
        if !call.order_id.is_empty() {
            return Ok(state.get(Table::Objects, &bearer_key(&call.order_id))?.is_some());
        }
        if call.report || call.shown || call.recover {
            let recovery: Option<wire::RecoveryRecord> =
                get_object(state, &actor_key(Object::Recovery, call.network_id, call.actor))?;
            if let Some(open) = recovery.filter(|open| open.seqnum == call.seqnum) {
                let reports = Bitmap::parse(&open.reports, self.committee().size())?;
                return Ok(call.recover || call.report && reports.get(self.index() as usize));
            }
        }
        let caller: wire::CallerRecord =
            get_object(state, &actor_key(Object::Caller, call.network_id, call.actor))?.unwrap_or_default();
        Ok(match call.recover {
            true => call.seqnum <= caller.recovered || call.seqnum <= caller.last_call,
            false if call.report || call.shown => true,
            false => call.seqnum <= caller.last_call || caller.voided.contains(&call.seqnum),
        })
    }

    /// Whether time locks are due soon, so that clocks must be voted on though nothing else is to be ordered.
    pub fn needs_time(&self, state: &dyn State) -> Result<bool> {
        let book = self.book(state)?;
        if book.open_recoveries > 0 {
            return Ok(true);
        }
        let delays = state.scan(Table::Objects, &[Object::Delay as u8], 1)?;
        if delays.first().is_some_and(|(key, _)| key.first() == Some(&(Object::Delay as u8))) {
            return Ok(true);
        }
        let from = object_key(Object::Expiry, &[&book.time_ms.to_be_bytes()]);
        let next = state.scan(Table::Objects, &from, 1)?;
        let until = object_key(Object::Expiry, &[&book.time_ms.saturating_add(SOON_MS).to_be_bytes()]);
        Ok(next.first().is_some_and(|(key, _)| key[..] < until[..]))
    }

    /// The outbox entry with this sequence.
    pub fn outbox(&self, state: &dyn State, to_shard: u32, sequence: u64) -> Result<wire::Delivery> {
        need_record(state, Table::Outbox, &outbox_key(to_shard, sequence))
    }

    /// Sequences in the outbox for a shard: (first not acknowledged, last sent).
    pub fn outbox_range(&self, state: &dyn State, to_shard: u32) -> Result<(u64, u64)> {
        let acknowledged = get_u64(state, Table::Links, &link_key(Link::Acknowledged, to_shard))?.unwrap_or(0);
        let sent = get_u64(state, Table::Links, &link_key(Link::Sent, to_shard))?.unwrap_or(0);
        Ok((acknowledged + 1, sent))
    }
}
