//! Settling: a certified order is applied once, in seqnum order per account.
//!
//! A certificate is checked in full only if it certifies something that is not settled here; repeating
//! one costs no signature check. Orders that come before their predecessors are kept and settle right
//! after them.
//!
//! The spending side of a CALL settles here: the sender is debited, and the order goes into the outbox for the
//! log, where its shared side settles. While a recovery has frozen an account, its certified orders are kept and
//! shown to the log instead ([`super::recover`]).

use bytes::Bytes;

use super::changes::Changes;
use super::mint::is_bearer;
use super::state::{
    Account, State, TOTALS_KEY, Table, corrupt, get_record, get_u64, order_id_key, order_key, short_hash,
};
use super::{Authority, Meter, Phase};
use crate::batch::{DecodedBatch, decode_batch};
use crate::bitmap::Bitmap;
use crate::certificate::{BatchId, Promise, check_certificate, check_shape, sign};
use crate::content::{Action, Content, TYPE_CALL, TYPE_RECOVER, payees};
use crate::envelope::Order;
use crate::error::{Code, Error, Result};
use crate::limits::{FOLLOWERS_MAX, PENDING_WINDOW};
use crate::merkle::Hash;
use crate::permission::Permission;
use crate::planted::{self, Bug};
use crate::wire;

/// How far ahead of its account an early order may be and still be kept: what is further ahead comes
/// again, in order, from the peers' settled streams.
const EARLY_WINDOW: u32 = 2 * PENDING_WINDOW as u32;

/// Certified orders kept for one seqnum: chains that a recovery may cut can meet there.
const EARLY_AT_ONE: usize = 4;

/// What became of one certified order.
pub(super) enum Step {
    Settled,
    Waiting,
    /// A recovery has voided it: it never settles.
    Voided,
}

impl Authority {
    pub(super) fn settle(
        &self,
        certificate: wire::Certificate,
        raw: Vec<Bytes>,
        certificates_max: usize,
        changes: &mut Changes<'_>,
        meter: &mut dyn Meter,
    ) -> Result<wire::SettleReply> {
        meter.begin(Phase::State);
        let batch = check_shape(&self.committee, &certificate)?;
        self.check_genesis(&changes.totals)?;
        let known = get_u64(changes.state, Table::Roots, &batch.root)?;
        if known.is_none() && raw.is_empty() {
            return Ok(wire::SettleReply { batch_missing: true, ..Default::default() });
        }
        if let Some(number) = known
            && self.nothing_new(&certificate, &batch, changes.progress(number)?)
        {
            return self.acknowledge(number, &batch, Vec::new(), changes, meter);
        }
        meter.begin(Phase::Votes);
        let (_, certified) = check_certificate(&self.committee, &certificate)?;
        meter.begin(Phase::Decode);
        let number = known.unwrap_or(changes.totals.next.0);
        let decoded = match known {
            Some(number) => self.decoded_batch(changes.state, number, &batch.root)?,
            None => decode_batch(&raw)?,
        };
        if decoded.id != batch && !planted::is(Bug::RootUnchecked) {
            return Err(Error::expected(
                Code::BadRoot,
                "root of the orders",
                hex::encode(batch.root),
                hex::encode(decoded.id.root),
            ));
        }
        meter.begin(Phase::State);
        changes.expect_accounts(2 * batch.count);
        let mut due = Vec::with_capacity(batch.count);
        for i in certified.iter() {
            let order = decoded.orders[i].as_ref().map_err(|e| impossible(i, e))?;
            // Votes name no shard, so this alone keeps an order from settling at each of them.
            self.check_shard(order)?;
            due.push((i, order));
        }
        if known.is_none() {
            // Orders that all settled in other batches: they are acknowledged, and this batch is not kept.
            if self.all_settled(changes.state, &due)? {
                return Ok(self.signed_acknowledgement(&batch, &certified, Vec::new(), meter));
            }
            changes.add_batch(batch.root, &raw);
        }
        self.record_certificate(number, certificate, &certified, certificates_max, changes)?;
        // Predecessors first: then an order that is kept as early never waits for one of its own batch.
        due.sort_by_key(|(_, order)| order.seqnum);
        let mut waiting = Vec::new();
        changes.load_accounts(due.iter().flat_map(|(_, order)| self.accounts_of(order)))?;
        for (i, order) in due {
            if changes.progress(number)?.settled.get(i) {
                continue;
            }
            match self.settle_order(order, number, i, false, changes)? {
                Step::Settled => self.settle_followers(order.network_id, order.actor, changes)?,
                Step::Voided => {}
                Step::Waiting => {
                    // Those before it may have been too many for one step.
                    self.settle_followers(order.network_id, order.actor, changes)?;
                    let next_seqnum = changes.account(order.network_id, order.actor)?.seqnum.saturating_add(1);
                    waiting.push(wire::Waiting { index: i as u32, next_seqnum });
                }
            }
        }
        self.acknowledge(number, &batch, waiting, changes, meter)
    }

    /// Accounts here that settling an order looks at.
    fn accounts_of<'o>(&self, order: &'o Order) -> impl Iterator<Item = (u64, u64)> + use<'o> {
        let (payer, shard, shards) = (self.payer_of(order), self.shard, self.committee.shards);
        let here = payees(order).filter(move |address| payer.is_some() && address.shard(shards) == shard);
        payer.into_iter().chain(here.map(|address| (order.network_id, address.actor())))
    }

    /// A stored batch.
    fn decoded_batch(&self, state: &dyn State, number: u64, root: &Hash) -> Result<DecodedBatch> {
        let mut kept = None;
        state.look(Table::Batches, &number.to_be_bytes(), &mut |record| kept = self.decoded.take(root, record))?;
        match kept {
            Some(batch) => Ok(batch),
            None => decode_batch(&stored_orders(state, number)?),
        }
    }

    /// Whether all that the certificate could certify is settled. Nothing is verified for this: it only
    /// decides whether there is something to do.
    fn nothing_new(
        &self,
        certificate: &wire::Certificate,
        batch: &BatchId,
        progress: &super::progress::Progress,
    ) -> bool {
        let bitmaps: Result<Vec<Bitmap>> =
            certificate.votes.iter().map(|v| Bitmap::parse(&v.bitmap, batch.count)).collect();
        progress.count == batch.count
            && bitmaps.is_ok_and(|b| {
                let claimed = Bitmap::at_least(&b, self.committee.quorum(), batch.count);
                !claimed.is_empty() && progress.settled.contains(&claimed)
            })
    }

    /// Keeps what proves the orders to others: one certificate if it covers what the earlier ones did.
    fn record_certificate(
        &self,
        number: u64,
        certificate: wire::Certificate,
        certified: &Bitmap,
        certificates_max: usize,
        changes: &mut Changes<'_>,
    ) -> Result<()> {
        let quorum = self.committee.quorum();
        let progress = changes.progress(number)?;
        let mut before = Bitmap::empty(progress.count);
        for c in &progress.certificates {
            before.union(&claimed(c, progress.count, quorum)?);
        }
        if before.contains(certified) {
            return Ok(());
        }
        let replace = certified.contains(&before);
        if !replace && progress.certificates.len() >= certificates_max {
            let expected = format!("at most {certificates_max}, or one for all orders");
            return Err(Error::expected(
                Code::Limit,
                "certificates for parts of one batch",
                expected,
                certificates_max + 1,
            ));
        }
        progress.certify(certificate, replace);
        Ok(())
    }

    fn acknowledge(
        &self,
        number: u64,
        batch: &BatchId,
        waiting: Vec<wire::Waiting>,
        changes: &mut Changes<'_>,
        meter: &mut dyn Meter,
    ) -> Result<wire::SettleReply> {
        let settled = &changes.progress(number)?.settled;
        if settled.is_empty() {
            return Ok(wire::SettleReply { waiting, ..Default::default() });
        }
        Ok(self.signed_acknowledgement(batch, settled, waiting, meter))
    }

    fn signed_acknowledgement(
        &self,
        batch: &BatchId,
        settled: &Bitmap,
        waiting: Vec<wire::Waiting>,
        meter: &mut dyn Meter,
    ) -> wire::SettleReply {
        meter.begin(Phase::Votes);
        let acknowledgement = sign(Promise::Settled, &self.committee, self.index, &self.key, batch, settled);
        wire::SettleReply { acknowledgement: Some(acknowledgement), waiting, ..Default::default() }
    }

    /// Applies a certified order if it is the account's next; `by_log` if the log says that it is certified.
    pub(super) fn settle_order(
        &self,
        order: &Order,
        number: u64,
        index: usize,
        by_log: bool,
        changes: &mut Changes<'_>,
    ) -> Result<Step> {
        if order.network_id != self.committee.network.id {
            return self.settle_pbtx(order, number, index, by_log, changes);
        }
        if is_bearer(order) {
            return self.settle_bearer(order, number, index, by_log, changes);
        }
        if order.transaction_type == TYPE_RECOVER {
            return self.pass_recover(order, number, index, changes);
        }
        let account = changes.account(order.network_id, order.actor)?;
        let (settled_to, prev_hash) = (account.seqnum, account.prev_hash);
        if order.seqnum <= settled_to {
            return self.settled_before(order, number, index, by_log, changes);
        }
        // One that does not follow what is settled here is chained to a voided order, or follows one that a recovery
        // has put there and that is not known here yet: it waits until one of the two is sure.
        let frozen = account.is_frozen(order.seqnum) && !planted::is(Bug::FreezeIgnored);
        let unchained = order.prev_hash != prev_hash && !planted::is(Bug::SettlesUnchained);
        if order.seqnum > settled_to + 1 || frozen || unchained {
            return self.keep_early(order, number, index, by_log, changes);
        }
        let content = Content::decode(order).map_err(|e| impossible(index, &e))?;
        let voted_other = account.pending.first().is_some_and(|p| p.order_id.as_ref() != order.id);
        let (previous_permission, previous_call) = self.apply(order, &content, changes)?;
        let call = matches!(content.action, Action::Call { .. });
        let key = order_key(order.network_id, order.actor, order.seqnum);
        let record = wire::OrderRecord {
            order_id: Bytes::copy_from_slice(&order.id),
            batch: number,
            index: index as u32,
            previous_permission,
            previous_call,
            call,
            voted_other,
        };
        changes.put_order_record(key, record);
        // What settles on the log's word is in the log.
        if call && !by_log {
            changes.call(log_call(order, number, index));
        }
        let progress = changes.progress(number)?;
        progress.mark(index);
        progress.fresh.set(index);
        if by_log {
            progress.by_log.set(index);
        }
        Ok(Step::Settled)
    }

    /// A certified order whose seqnum is settled: by itself, or by another that follows another order. Only two
    /// certified orders that follow the same one prove that more than f authorities misbehaved.
    pub(super) fn settled_before(
        &self,
        order: &Order,
        number: u64,
        index: usize,
        by_log: bool,
        changes: &mut Changes<'_>,
    ) -> Result<Step> {
        let key = order_key(order.network_id, order.actor, order.seqnum);
        let Some(record) = changes.order_record(&key)? else {
            // Something has settled there in this very step: the same order, if it is twice in the batch.
            if !changes.has_settled(&key, &order.id) {
                return Ok(Step::Voided);
            }
            changes.progress(number)?.mark_as(index, by_log);
            return Ok(Step::Settled);
        };
        if record.order_id.as_ref() == order.id {
            changes.progress(number)?.mark_as(index, by_log);
            return Ok(Step::Settled);
        }
        if !record.order_id.is_empty() {
            let other = changes.stored_order(record.batch, record.index)?;
            if other.is_some_and(|other| other.prev_hash == order.prev_hash) {
                return Err(conflict(order, "another certified order is settled there"));
            }
        }
        Ok(Step::Voided)
    }

    /// A certified RECOVER goes to the log, once.
    fn pass_recover(&self, order: &Order, number: u64, index: usize, changes: &mut Changes<'_>) -> Result<Step> {
        let account = changes.account_mut(order.network_id, order.actor)?;
        if order.seqnum > account.recovering {
            account.recovering = order.seqnum;
            changes.call(wire::LogCall { recover: true, ..log_call(order, number, index) });
            changes.progress(number)?.fresh.set(index);
        }
        changes.progress(number)?.mark(index);
        Ok(Step::Settled)
    }

    /// Debits the sender, moves its seqnum, credits the outputs. Returns what undoing it needs: the permission
    /// before a SET_PERMISSION, the CALL before a CALL.
    fn apply(&self, order: &Order, content: &Content, changes: &mut Changes<'_>) -> Result<(Bytes, u32)> {
        let account = changes.account_mut(order.network_id, order.actor)?;
        if content.open.is_none() && account.address.is_none() {
            return Err(conflict(order, "its account was never opened"));
        }
        let mut before = (Bytes::new(), 0);
        if let Some(open) = &content.open {
            account.address = Some(Permission::address_of(order.network_id, open));
            account.permission = Bytes::copy_from_slice(open);
        }
        match &content.action {
            Action::SetPermission(permission) => {
                let new =
                    planted::when(Bug::OldKeyKept, account.permission.clone(), Bytes::copy_from_slice(permission));
                before.0 = std::mem::replace(&mut account.permission, new);
            }
            Action::Call { .. } => before.1 = std::mem::replace(&mut account.last_call, order.seqnum),
            Action::Pay { .. } | Action::Recover { .. } | Action::Bearer(_) | Action::RecoverNotes(_) => {}
        }
        let address = account.address.ok_or_else(|| conflict(order, "its account was never opened"))?;
        account.seqnum = order.seqnum;
        account.prev_hash = order.next_hash();
        match account.pending.first() {
            // By the 64 bits that successors name: were this another order with the same ones, ours and
            // its successors would still fit, and a vote for a successor must never be forgotten.
            Some(first) if short_hash(&first.order_id) == account.prev_hash && !planted::is(Bug::ForgetsSuccessors) => {
                account.pending.remove(0);
            }
            // Another order was certified than the one voted for here: what was chained to ours is void,
            // for it names a predecessor that can't be certified any more.
            _ => account.pending.clear(),
        }
        changes.holding_mut(order.network_id, &address)?.balance -= content.total as i128;
        changes.totals.accounts -= content.total as i128;
        for asked in &content.notes {
            changes.issue(asked)?;
        }
        if let Action::Call { .. } = &content.action {
            // In flight until the log has it.
            changes.totals.sent += content.total as i128;
        }
        for (output, credit) in content.credits().iter().enumerate() {
            let entry = entry_of(order, content, output, credit.amount, wire::credit_entry::Kind::Payment);
            let shard = credit.address.shard(self.committee.shards);
            if shard == self.shard {
                changes.credit(order.network_id, &credit.address, credit.amount, entry)?;
            } else {
                let address = Bytes::copy_from_slice(credit.address.as_bytes());
                changes.send(shard, wire::DeliveredCredit { address, amount: credit.amount, source: Some(entry) });
            }
        }
        Ok(before)
    }

    pub(super) fn keep_early(
        &self,
        order: &Order,
        number: u64,
        index: usize,
        by_log: bool,
        changes: &mut Changes<'_>,
    ) -> Result<Step> {
        let account = changes.account(order.network_id, order.actor)?;
        let early = || account.early.iter().filter(|e| e.seqnum == order.seqnum);
        let known = early().any(|e| (e.batch, e.index) == (number, index as u32));
        let shown = account.frozen != 0 && order.seqnum == account.frozen;
        // What the log says comes once, so it is kept however far ahead it is.
        let near = early().count() < EARLY_AT_ONE && order.seqnum <= account.seqnum.saturating_add(EARLY_WINDOW);
        if !known && (near || by_log) {
            let call = self.is_call(order);
            let (seqnum, batch, prev_hash) = (order.seqnum, number, order.prev_hash);
            let record = wire::EarlyRecord { seqnum, batch, index: index as u32, prev_hash, call, by_log };
            changes.account_mut(order.network_id, order.actor)?.early.push(record);
            changes.totals.waiting += 1;
            if shown && !by_log {
                changes.call(wire::LogCall { shown: true, ..log_call(order, number, index) });
            }
        }
        Ok(Step::Waiting)
    }

    /// Settles the certified orders that waited for this one, unless there are too many for one step. Those that
    /// can't settle any more are forgotten.
    pub(super) fn settle_followers(&self, network_id: u64, actor: u64, changes: &mut Changes<'_>) -> Result<()> {
        while changes.followers < FOLLOWERS_MAX {
            let account = changes.account(network_id, actor)?;
            let due = |e: &wire::EarlyRecord| {
                e.seqnum <= account.seqnum
                    || e.seqnum - 1 == account.seqnum
                        && e.prev_hash == account.prev_hash
                        && !account.is_frozen(e.seqnum)
            };
            let Some(at) = account.early.iter().position(due) else { return Ok(()) };
            let early = changes.account_mut(network_id, actor)?.early.remove(at);
            let waiting = changes.totals.waiting.checked_sub(1);
            changes.totals.waiting =
                waiting.ok_or_else(|| corrupt(Table::Meta, TOTALS_KEY, "fewer orders wait than accounts have"))?;
            let next = changes
                .stored_order(early.batch, early.index)?
                .ok_or_else(|| corrupt(Table::Batches, &early.batch.to_be_bytes(), "an early order is missing"))?;
            if early.index as usize >= changes.progress(early.batch)?.count {
                return Err(corrupt(Table::Progress, &early.batch.to_be_bytes(), "fewer orders than its batch"));
            }
            let settled = self.settle_order(&next, early.batch, early.index as usize, early.by_log, changes);
            match settled {
                // Evidence against others; what the log has for other accounts must not wait for it.
                Err(e) if changes.of_log && e.code == Code::ConflictingCertificate => {}
                other => other.map(|_| ())?,
            }
            changes.followers += 1;
        }
        Ok(())
    }
}

impl Authority {
    /// Whether the order is a CALL of the payment network.
    fn is_call(&self, order: &Order) -> bool {
        order.network_id == self.committee.network.id && order.transaction_type == TYPE_CALL
    }
}

/// Where a credit of an order comes from.
pub(super) fn entry_of(
    order: &Order,
    content: &Content,
    output: usize,
    amount: u64,
    kind: wire::credit_entry::Kind,
) -> wire::CreditEntry {
    wire::CreditEntry {
        network_id: order.network_id,
        actor: order.actor,
        seqnum: order.seqnum,
        output: output as u32,
        order_id: Bytes::copy_from_slice(&order.id),
        amount,
        memo: content.memo().to_owned(),
        kind: kind as i32,
    }
}

/// What the log is told of a certified order.
pub(super) fn log_call(order: &Order, batch: u64, index: usize) -> wire::LogCall {
    wire::LogCall {
        network_id: order.network_id,
        actor: order.actor,
        seqnum: order.seqnum,
        batch,
        index: index as u32,
        ..Default::default()
    }
}

/// The orders that a certificate is for, by its bitmaps alone.
pub(crate) fn claimed(certificate: &wire::Certificate, count: usize, quorum: usize) -> Result<Bitmap> {
    let bitmaps: Result<Vec<Bitmap>> = certificate.votes.iter().map(|v| Bitmap::parse(&v.bitmap, count)).collect();
    Ok(Bitmap::at_least(&bitmaps?, quorum, count))
}

/// A stored order; `None` if its batch is not there (yet).
pub(crate) fn read_order(state: &dyn State, batch: u64, index: u32) -> Result<Option<Order>> {
    let record: Option<wire::BatchRecord> = get_record(state, Table::Batches, &batch.to_be_bytes())?;
    match record.and_then(|r| r.orders.into_iter().nth(index as usize)) {
        Some(raw) => Order::decode(raw).map(Some),
        None => Ok(None),
    }
}

/// The envelopes of a stored batch.
pub(crate) fn stored_orders(state: &dyn State, batch: u64) -> Result<Vec<Bytes>> {
    let record: wire::BatchRecord = super::state::need_record(state, Table::Batches, &batch.to_be_bytes())?;
    Ok(record.orders)
}

fn impossible(index: usize, e: &Error) -> Error {
    Error::new(
        Code::ConflictingCertificate,
        format!("a quorum certified order {index}, which no honest authority accepts: {e}"),
    )
}

pub(super) fn conflict(order: &Order, why: &str) -> Error {
    Error::new(
        Code::ConflictingCertificate,
        format!("certified order {} (actor {}, seqnum {}): {why}", hex::encode(order.id), order.actor, order.seqnum),
    )
}

impl Authority {
    /// Whether each of these orders has settled, in whatever batch.
    fn all_settled(&self, state: &dyn State, orders: &[(usize, &Order)]) -> Result<bool> {
        for (_, order) in orders {
            let here = order.network_id == self.committee.network.id;
            if here && order.transaction_type == TYPE_RECOVER {
                let account = Account::load(state, order.network_id, order.actor)?;
                if order.seqnum > account.recovering {
                    return Ok(false);
                }
                continue;
            }
            let record = |key: &[u8]| get_record::<wire::OrderRecord>(state, Table::Orders, key);
            let at_seqnum = record(&order_key(order.network_id, order.actor, order.seqnum))?;
            if at_seqnum.is_some_and(|r| r.order_id.as_ref() == order.id) {
                continue;
            }
            if here && !is_bearer(order) || record(&order_id_key(order.network_id, order.actor, &order.id))?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
