//! What the log decides about an account that its own wallet has locked, as its shard carries it out.
//!
//! *Freeze*: from then on nothing at the seqnum or above is voted for or settled; every certificate of it that
//! is here, or still comes, goes into the log, and a report that these were all. *Resolve*: either the certified
//! orders settle, or the seqnum is void and the next order names the recovery in its prev_hash, so that no old
//! vote fits anything again.
//!
//! Safety: an order is final when a quorum has settled it, f + 1 honest authorities among them, before they
//! froze the account. A recovery is decided on the reports of a quorum, one of these f + 1 at least among them,
//! and its certificate is in the log before its report. So what is final is never voided. What one authority
//! settled alone, and nobody else, may be: then that authority takes it back, with every credit that it made.

use bytes::Bytes;

use super::changes::Changes;
use super::state::{Table, corrupt, order_key};
use super::{Authority, Meter};
use crate::address::Address;
use crate::content::{Action, Content};
use crate::error::{Code, Error, Result};
use crate::limits::SHOWN_MAX;
use crate::wire::{self, log_step::Kind};

impl Authority {
    pub(super) fn log_step(&self, step: wire::LogStep, changes: &mut Changes<'_>, meter: &mut dyn Meter) -> Result<()> {
        match step.kind {
            Some(Kind::Settle(certificate)) => {
                let reply = self.settle(certificate, Vec::new(), usize::MAX, changes, meter)?;
                match reply.batch_missing && !all_settled(&step.orders, changes)? {
                    true => Err(Error::new(Code::BatchMissing, "the log has ordered a batch that is not here yet")),
                    false => Ok(()),
                }
            }
            Some(Kind::Freeze(freeze)) => self.freeze(&freeze, changes),
            Some(Kind::Resolve(resolve)) => self.resolve(&resolve, changes),
            None => Err(Error::new(Code::Decode, "a step of the log has no kind that this version knows")),
        }
    }

    fn freeze(&self, freeze: &wire::LogFreeze, changes: &mut Changes<'_>) -> Result<()> {
        let (network_id, actor, from) = (freeze.network_id, freeze.actor, freeze.seqnum);
        let account = changes.account_mut(network_id, actor)?;
        account.frozen = from;
        let settled = account.seqnum;
        let early: Vec<wire::EarlyRecord> = account.early.iter().filter(|e| e.seqnum >= from).cloned().collect();
        let call = |seqnum, batch, index| wire::LogCall {
            network_id,
            actor,
            seqnum,
            batch,
            index,
            shown: true,
            ..Default::default()
        };
        for seqnum in (from..=settled).take(SHOWN_MAX) {
            let record = changes.order_record(&order_key(network_id, actor, seqnum))?;
            let record = record.ok_or_else(|| {
                corrupt(Table::Orders, &order_key(network_id, actor, seqnum), "a settled order is missing")
            })?;
            changes.call(call(seqnum, record.batch, record.index));
        }
        for e in early {
            changes.call(call(e.seqnum, e.batch, e.index));
        }
        changes.call(wire::LogCall { network_id, actor, seqnum: from, report: true, ..Default::default() });
        Ok(())
    }

    fn resolve(&self, resolve: &wire::LogResolve, changes: &mut Changes<'_>) -> Result<()> {
        let (network_id, actor, seqnum) = (resolve.network_id, resolve.actor, resolve.seqnum);
        let settled = changes.account(network_id, actor)?.seqnum;
        if resolve.void && settled.saturating_add(1) < seqnum {
            // A quorum had settled all before it when they voted for the recovery, so it comes.
            let expected = format!("{} settled", seqnum - 1);
            return Err(Error::expected(Code::OutOfOrder, "order before a voided one", expected, settled));
        }
        changes.account_mut(network_id, actor)?.frozen = 0;
        if resolve.void {
            while changes.account(network_id, actor)?.seqnum >= seqnum {
                self.undo_last(network_id, actor, changes)?;
            }
            // What waits above it may name this very recovery, and be final already. Whether it does, or hung on
            // what is void now, shows when its turn comes.
            let account = changes.account_mut(network_id, actor)?;
            let early = std::mem::take(&mut account.early).into_iter();
            let (above, gone): (_, Vec<_>) = early.partition(|e| e.seqnum > seqnum);
            account.early = above;
            for e in gone {
                changes.totals.waiting -= 1;
                changes.progress(e.batch)?.void(e.index as usize);
            }
            let account = changes.account_mut(network_id, actor)?;
            account.seqnum = seqnum;
            account.prev_hash = resolve.prev_hash;
            account.voided = seqnum;
            account.pending.clear();
            if !resolve.open.is_empty() {
                account.address = Some(Address::from_slice(&resolve.account)?);
                account.permission = resolve.open.clone();
            }
            changes.put_order_record(order_key(network_id, actor, seqnum), &wire::OrderRecord::default());
            changes.totals.voided += 1;
        }
        self.settle_followers(network_id, actor, changes)
    }

    /// Takes the account's last settled order back, with every posting that it made.
    fn undo_last(&self, network_id: u64, actor: u64, changes: &mut Changes<'_>) -> Result<()> {
        let seqnum = changes.account(network_id, actor)?.seqnum;
        let key = order_key(network_id, actor, seqnum);
        let lost = |what: &str| corrupt(Table::Orders, &key, what);
        let record = changes.order_record(&key)?.ok_or_else(|| lost("a settled order is missing"))?;
        let order = changes
            .stored_order(record.batch, record.index)?
            .ok_or_else(|| lost("the batch of a settled order is missing"))?;
        let content = Content::decode(&order)?;
        let account = changes.account_mut(network_id, actor)?;
        account.seqnum = seqnum - 1;
        let address = account.address.ok_or_else(|| lost("its account was never opened"))?;
        match &content.action {
            Action::SetPermission(_) => account.permission = record.previous_permission.clone(),
            Action::Call { .. } => {
                account.last_call = record.previous_call;
                changes.totals.sent -= content.total as i128;
            }
            Action::Pay { .. } | Action::Recover { .. } => {}
        }
        changes.holding_mut(network_id, &address)?.balance += content.total as i128;
        changes.totals.accounts += content.total as i128;
        for (output, credit) in content.credits().iter().enumerate() {
            let entry = wire::CreditEntry {
                network_id,
                actor,
                seqnum,
                output: output as u32,
                order_id: Bytes::copy_from_slice(&order.id),
                amount: credit.amount,
                memo: content.memo().to_owned(),
                kind: wire::credit_entry::Kind::Reversed as i32,
            };
            let shard = credit.address.shard(self.committee.shards);
            if shard == self.shard {
                changes.take_back(network_id, &credit.address, credit.amount, entry)?;
            } else {
                let address = Bytes::copy_from_slice(credit.address.as_bytes());
                changes.send(shard, wire::DeliveredCredit { address, amount: credit.amount, source: Some(entry) });
            }
        }
        changes.delete_order_record(key);
        changes.undo(record.batch, record.index as usize)
    }
}

/// Whether each of these orders has settled, in whatever batch: then theirs, which is not kept, is not needed.
fn all_settled(orders: &[wire::LogOrder], changes: &mut Changes<'_>) -> Result<bool> {
    for order in orders {
        let settled = match order.recover {
            true => order.seqnum <= changes.account(order.network_id, order.actor)?.recovering,
            false => {
                let record = changes.order_record(&order_key(order.network_id, order.actor, order.seqnum))?;
                record.is_some_and(|r| r.order_id == order.order_id)
            }
        };
        if !settled {
            return Ok(false);
        }
    }
    Ok(!orders.is_empty())
}
