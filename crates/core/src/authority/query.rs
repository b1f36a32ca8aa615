//! Reads: what clients and peers may ask. Nothing here changes state.
//!
//! Answers that carry this authority's own promise ([`Authority::order`]) must wait, like every reply,
//! until what they say is durable.

use bytes::Bytes;
use prost::Message;

use super::Authority;
use super::progress::load_progress;
use super::settle::{claimed, read_order, stored_orders};
use super::state::{
    Account, Link, State, Table, Totals, corrupt, get_record, get_u64, link_key, need_record, order_id_key, order_key,
};
use crate::address::Address;
use crate::batch::leaf_id;
use crate::bitmap::Bitmap;
use crate::certificate::{BatchId, Promise, batch_id, sign};
use crate::envelope::Order;
use crate::error::{Code, Error, Result};
use crate::limits::{CERTIFICATES_BYTES_MAX, FOLLOW_PAGE, PAGE_MAX};
use crate::merkle::{self, Hash};
use crate::{receipt, wire};

impl Authority {
    /// Balance and spending state of an address.
    pub fn account(&self, state: &dyn State, request: &wire::AccountRequest) -> Result<wire::AccountReply> {
        let address = Address::from_slice(&request.address)?;
        self.served_payments(request.network_id, &address)?;
        let (account, holding) = Account::load_with_holding(state, request.network_id, &address)?;
        let mut reply = wire::AccountReply {
            balance: holding.as_ref().map_or(0, |h| h.balance).to_string(),
            credits: holding.map_or(0, |h| h.credits),
            ..Default::default()
        };
        // The spending state is that of the address bound to the actor, or about to be.
        let opening = account.pending.first().map(|p| &p.open).filter(|open| !open.is_empty());
        let bound =
            account.address.or(opening.map(|open| crate::permission::Permission::address_of(request.network_id, open)));
        if bound == Some(address) {
            reply.seqnum = account.seqnum;
            reply.prev_hash = account.prev_hash;
            reply.permission = account.permission.clone();
            reply.last_call = account.newest_call();
            reply.frozen = account.frozen;
            for (i, p) in account.pending.iter().enumerate() {
                let order = read_order(state, p.batch, p.index)?;
                reply.pending.push(wire::PendingOrder {
                    seqnum: account.seqnum + 1 + i as u32,
                    body: order.map(|o| o.body).unwrap_or_default(),
                    amount: p.amount,
                });
            }
        }
        Ok(reply)
    }

    /// What is known of the order at (network, actor, seqnum), with what proves it.
    pub fn order(&self, state: &dyn State, request: &wire::OrderRequest) -> Result<wire::OrderReply> {
        use wire::order_reply::State as S;
        self.served(request.network_id, request.actor)?;
        if !request.order_id.is_empty() {
            let key = order_id_key(request.network_id, request.actor, &order_id(&request.order_id)?);
            return match get_record::<wire::OrderRecord>(state, Table::Orders, &key)? {
                Some(record) => self.proof(state, record.batch, record.index, S::Settled),
                None => Ok(wire::OrderReply::default()),
            };
        }
        // The account first: what settles meanwhile is pending in it still, or has its record afterwards.
        let account = Account::load(state, request.network_id, request.actor)?;
        let key = order_key(request.network_id, request.actor, request.seqnum);
        if let Some(record) = get_record::<wire::OrderRecord>(state, Table::Orders, &key)? {
            return match record.order_id.is_empty() {
                true => Ok(wire::OrderReply::default()),
                false => self.proof(state, record.batch, record.index, S::Settled),
            };
        }
        if let Some(early) = account.early.iter().find(|e| e.seqnum == request.seqnum) {
            return self.proof(state, early.batch, early.index, S::Certified);
        }
        let ahead = request.seqnum.checked_sub(account.seqnum.saturating_add(1)).map(|i| i as usize);
        match ahead.and_then(|i| account.pending.get(i)) {
            Some(p) => self.proof(state, p.batch, p.index, S::Voted),
            None => Ok(wire::OrderReply::default()),
        }
    }

    /// What is known of an order of a stored batch, with its receipt as far as this authority can give one.
    pub(super) fn proof(
        &self,
        state: &dyn State,
        batch: u64,
        index: u32,
        found: wire::order_reply::State,
    ) -> Result<wire::OrderReply> {
        let orders = stored_orders(state, batch)?;
        let progress = load_progress(state, batch)?;
        let ids: Vec<_> = orders.iter().map(|raw| leaf_id(raw, &Order::decode(raw.clone()))).collect();
        let at = index as usize;
        let transaction =
            orders.get(at).cloned().ok_or_else(|| corrupt(Table::Batches, &batch.to_be_bytes(), "too few orders"))?;
        let certificate = covering(&progress.certificates, progress.count, at, self.committee.quorum());
        let id = BatchId { root: progress.root, count: progress.count };
        let acknowledgements = match progress.settled.get(at) {
            true => vec![sign(Promise::Settled, &self.committee, self.index, &self.key, &id, &progress.settled)],
            false => Vec::new(),
        };
        let votes = certificate.map(|c| c.votes.clone()).unwrap_or_default();
        let (tree, place) = (merkle::Tree::new(&ids), (at, progress.count));
        let receipt = receipt::assemble(&self.committee, transaction, &tree, place, votes, acknowledgements);
        Ok(wire::OrderReply { state: found as i32, receipt: Some(receipt) })
    }

    /// What became of an order here; what the log knows is added by [`crate::ordered::OrderedLog::order_status`].
    pub fn order_status(&self, state: &dyn State, request: &wire::OrderStatusRequest) -> Result<wire::OrderStatus> {
        use wire::order_status::State as S;
        self.served(request.network_id, request.actor)?;
        if !request.order_id.is_empty() {
            let key = order_id_key(request.network_id, request.actor, &order_id(&request.order_id)?);
            let record = get_record::<wire::OrderRecord>(state, Table::Orders, &key)?;
            return Ok(record.map_or_else(wire::OrderStatus::default, |record| wire::OrderStatus {
                state: S::Settled as i32,
                order_id: record.order_id,
                calls: record.call,
                ..Default::default()
            }));
        }
        // The account first, as in `order`.
        let account = Account::load(state, request.network_id, request.actor)?;
        let key = order_key(request.network_id, request.actor, request.seqnum);
        let mut status = wire::OrderStatus::default();
        let mut set = |state, order_id: Bytes, calls| {
            status.set_state(state);
            (status.order_id, status.calls) = (order_id, calls);
        };
        if let Some(record) = get_record::<wire::OrderRecord>(state, Table::Orders, &key)? {
            match record.order_id.is_empty() {
                true => set(S::Void, Bytes::new(), false),
                false => set(S::Settled, record.order_id.clone(), record.call),
            }
            return Ok(status);
        }
        let ahead = request.seqnum.checked_sub(account.seqnum.saturating_add(1)).map(|i| i as usize);
        if let Some(early) = account.early.iter().find(|e| e.seqnum == request.seqnum) {
            let order = read_order(state, early.batch, early.index)?;
            let id = order.map(|o| Bytes::copy_from_slice(&o.id)).unwrap_or_default();
            set(S::Certified, id, early.call);
        } else if let Some(p) = ahead.and_then(|i| account.pending.get(i)) {
            set(S::Pending, p.order_id.clone(), p.call);
        }
        Ok(status)
    }

    /// Credits of an address, newest first.
    pub fn credits(&self, state: &dyn State, request: &wire::CreditsRequest) -> Result<wire::CreditsReply> {
        let address = Address::from_slice(&request.address)?;
        self.served_payments(request.network_id, &address)?;
        let limit = (request.limit as usize).clamp(1, PAGE_MAX);
        // A cursor packs (batch + 1, index); it comes back from a client, so it proves nothing.
        let mut at = match request.before {
            0 => Account::load_holding(state, request.network_id, &address)?.map_or((0, 0), |h| h.newest),
            cursor => (cursor >> 20, (cursor & 0xf_ffff) as u32),
        };
        let mut reply = wire::CreditsReply::default();
        while at.0 > 0 && reply.credits.len() < limit {
            let key = (at.0 - 1).to_be_bytes();
            let record: Option<wire::CreditsRecord> = get_record(state, Table::Credits, &key)?;
            let credit = record.and_then(|r| r.credits.into_iter().nth(at.1 as usize));
            let Some(credit) = credit.filter(|c| c.address.as_ref() == address.as_bytes()) else {
                return Err(Error::new(Code::Decode, "`before` is not a cursor of this address"));
            };
            reply.credits.extend(credit.entry);
            at = (credit.previous_batch, credit.previous_index);
        }
        reply.next = if at.0 == 0 { 0 } else { at.0 << 20 | at.1 as u64 };
        Ok(reply)
    }

    /// Entries of the settled stream from a position on, below `end`, which the shell knows to be durable.
    pub fn follow(&self, state: &dyn State, from: u64, end: u64) -> Result<wire::FollowReply> {
        let mut entries = Vec::new();
        let voids = Totals::load(state)?.voided > 0;
        if from < end {
            for (_, value) in state.scan(Table::Settled, &from.to_be_bytes(), FOLLOW_PAGE.min((end - from) as usize))? {
                let mut entry: wire::SettledEntry = prost::Message::decode(value)
                    .map_err(|e| corrupt(Table::Settled, &from.to_be_bytes(), &e.to_string()))?;
                // What was taken back since is nothing to follow.
                if voids && let Some(number) = get_u64(state, Table::Roots, &entry.root)? {
                    let settled = load_progress(state, number)?.settled;
                    let bits = Bitmap::parse(&entry.bitmap, settled.count())?;
                    entry.bitmap = bits.without(&bits.without(&settled)).to_bytes();
                }
                entries.push(entry);
            }
        }
        Ok(wire::FollowReply { entries, end })
    }

    /// A batch with certificates for the orders that a peer lacks; empty if there is nothing to show. What does
    /// not fit into one message the peer asks for again.
    pub fn batch(&self, state: &dyn State, request: &wire::BatchRequest) -> Result<wire::BatchReply> {
        let Some(number) = get_u64(state, Table::Roots, &request.root)? else {
            return Ok(wire::BatchReply::default());
        };
        let progress = load_progress(state, number)?;
        let wanted = match request.bitmap.is_empty() {
            true => Bitmap::full(progress.count),
            false => Bitmap::parse(&request.bitmap, progress.count)?,
        };
        let mut proved = Bitmap::empty(progress.count);
        let (mut certificates, mut bytes) = (Vec::new(), 0);
        for certificate in progress.certificates {
            let claimed = claimed(&certificate, progress.count, self.committee.quorum())?;
            bytes += certificate.encoded_len();
            if bytes > CERTIFICATES_BYTES_MAX {
                break;
            }
            if proved.contains(&claimed) || wanted.without(&claimed) == wanted {
                bytes -= certificate.encoded_len();
                continue;
            }
            proved.union(&claimed);
            certificates.push(certificate);
        }
        if certificates.is_empty() {
            return Ok(wire::BatchReply::default());
        }
        Ok(wire::BatchReply { certificates, orders: stored_orders(state, number)? })
    }

    /// Whether an entry of a peer's settled stream names something that is not settled here.
    /// Errors: `DECODE`, `LIMIT`, `BAD_BITMAP` if the peer sends garbage.
    pub fn missing(&self, state: &dyn State, entry: &wire::SettledEntry) -> Result<bool> {
        let id = batch_id(&entry.root, entry.count)?;
        let bitmap = Bitmap::parse(&entry.bitmap, id.count)?;
        if entry.undone || entry.by_log || bitmap.is_empty() {
            return Ok(false);
        }
        match get_u64(state, Table::Roots, &id.root)? {
            None => Ok(true),
            Some(number) => Ok(!load_progress(state, number)?.settled.contains(&bitmap)),
        }
    }

    /// The orders of a stored batch; none if it is not stored.
    pub fn orders_of(&self, state: &dyn State, root: &[u8]) -> Result<Vec<Bytes>> {
        match get_u64(state, Table::Roots, root)? {
            Some(number) => stored_orders(state, number),
            None => Ok(Vec::new()),
        }
    }

    /// The outbox entry with this sequence.
    pub fn outbox(&self, state: &dyn State, to_shard: u32, sequence: u64) -> Result<wire::Delivery> {
        need_record(state, Table::Outbox, &super::state::outbox_key(to_shard, sequence))
    }

    /// Sequences in the outbox for a shard: (first not acknowledged, last sent).
    pub fn outbox_range(&self, state: &dyn State, to_shard: u32) -> Result<(u64, u64)> {
        let acknowledged = get_u64(state, Table::Links, &link_key(Link::Acknowledged, to_shard))?.unwrap_or(0);
        let sent = get_u64(state, Table::Links, &link_key(Link::Sent, to_shard))?.unwrap_or(0);
        Ok((acknowledged + 1, sent))
    }

    /// Position in a peer's settled stream to follow it from.
    pub fn cursor(&self, state: &dyn State, authority: u32) -> Result<u64> {
        Ok(get_u64(state, Table::Cursors, &authority.to_be_bytes())?.unwrap_or(0))
    }

    /// Counters of the shard.
    pub fn totals(&self, state: &dyn State) -> Result<Totals> {
        Totals::load(state)
    }

    fn served_payments(&self, network_id: u64, address: &Address) -> Result<()> {
        if network_id != self.committee.network.id {
            return Err(Error::expected(Code::UnknownNetwork, "network_id", self.committee.network.id, network_id));
        }
        self.served(network_id, address.actor())
    }

    pub(super) fn served(&self, network_id: u64, actor: u64) -> Result<()> {
        let shard = self.committee.shard_of(network_id, actor);
        if shard != self.shard {
            return Err(Error::expected(Code::WrongShard, "shard", self.shard, shard));
        }
        Ok(())
    }
}

/// What a shard's answer to `Settle` says is settled here, of a batch of `count` orders. That can be so though
/// [`Authority::missing`] is true: orders that settled in other batches leave no trace of this one.
pub fn settled_by(reply: &wire::SettleReply, count: usize) -> Bitmap {
    let parsed = reply.acknowledgement.as_ref().and_then(|a| Bitmap::parse(&a.bitmap, count).ok());
    parsed.unwrap_or_else(|| Bitmap::empty(count))
}

fn order_id(bytes: &[u8]) -> Result<Hash> {
    Hash::try_from(bytes).map_err(|_| Error::expected(Code::Decode, "bytes of an order id", 32, bytes.len()))
}

/// The certificate that certifies order `index`.
pub(super) fn covering(
    certificates: &[wire::Certificate],
    count: usize,
    index: usize,
    quorum: usize,
) -> Option<&wire::Certificate> {
    certificates.iter().find(|c| {
        let has = |v: &wire::Signed| Bitmap::parse(&v.bitmap, count).is_ok_and(|b| b.get(index));
        c.votes.iter().filter(|v| has(v)).count() >= quorum
    })
}
