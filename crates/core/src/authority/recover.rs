//! What the log decides about an account that its own wallet has locked, as its shard carries it out.
//!
//! *Freeze*: from then on nothing at the seqnum or above is voted for or settled; a certificate for the seqnum that
//! is here, or still comes, goes into the log, and a report. *Resolve*: either the certified order settles, or the
//! seqnum is void and the next order names the recovery in its prev_hash, so that no old vote fits anything again.
//!
//! Safety: an order is final when a quorum has settled it, f + 1 honest authorities among them, before they
//! froze the account. A recovery is decided on the reports of a quorum, one of these f + 1 at least among them,
//! and its report counts only if it holds no certificate. So what is final is never voided. What one authority
//! settled alone, and nobody else, may be: then that authority takes it back, with every credit that it made.

use bytes::Bytes;

use super::changes::Changes;
use super::mint::is_bearer;
use super::settle::entry_of;
use super::state::{Table, corrupt, order_id_key, order_key};
use super::{Authority, Meter, Phase};
use crate::address::Address;
use crate::content::{Action, Content};
use crate::envelope::{Order, encode_envelope};
use crate::error::{Code, Error, Result};
use crate::merkle;
use crate::wire::{self, log_step::Kind};

impl Authority {
    pub(super) fn log_step(&self, step: wire::LogStep, changes: &mut Changes<'_>, meter: &mut dyn Meter) -> Result<()> {
        meter.begin(Phase::State);
        changes.followers = 0;
        changes.of_log = true;
        match step.kind {
            Some(Kind::Settle(settle)) => {
                settle.bodies.into_iter().try_for_each(|body| self.settle_body(body, changes))
            }
            Some(Kind::Freeze(freeze)) => self.freeze(&freeze, changes),
            Some(Kind::Resolve(resolve)) => self.resolve(&resolve, changes),
            Some(Kind::Network(network)) => self.log_network(network, changes),
            Some(Kind::Actor(actor)) => self.log_actor(actor, changes),
            Some(Kind::Stream(stream)) => self.log_stream(&stream, changes),
            Some(Kind::Prune(prune)) => changes.prune(prune.network_id, prune.before_us, prune.max_rows),
            Some(Kind::FreezeNote(freeze)) => self.freeze_note(&freeze, changes),
            Some(Kind::ResolveNote(resolve)) => self.resolve_note(&resolve, changes),
            None => Err(Error::new(Code::Decode, "a step of the log has no kind that this version knows")),
        }
    }

    /// Settles an order on the log's word, from where it is kept here; one that is not gets a batch of its own, so
    /// that nobody who withholds a batch can hold up what comes after it.
    fn settle_body(&self, body: Bytes, changes: &mut Changes<'_>) -> Result<()> {
        let order = Order::decode_body(body)?;
        self.check_shard(&order)?;
        let (number, index) = self.place_of(&order, changes)?;
        match self.settle_order(&order, number, index, true, changes) {
            Ok(_) => self.settle_followers(order.network_id, order.actor, changes),
            // Evidence against others; what the log has for other accounts must not wait for it.
            Err(e) if e.code == Code::ConflictingCertificate => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn place_of(&self, order: &Order, changes: &mut Changes<'_>) -> Result<(u64, usize)> {
        if order.network_id == self.committee.network.id && is_bearer(order) {
            return self.place_of_bearer(order, changes);
        }
        let key = order_key(order.network_id, order.actor, order.seqnum);
        if let Some(record) = changes.order_record(&key)?
            && record.order_id.as_ref() == order.id
        {
            if record.index as usize >= changes.progress(record.batch)?.count {
                return Err(corrupt(Table::Orders, &key, "its batch has fewer orders"));
            }
            return Ok((record.batch, record.index as usize));
        }
        let account = changes.account(order.network_id, order.actor)?;
        let pending = account.pending.iter().filter(|p| p.order_id.as_ref() == order.id).map(|p| (p.batch, p.index));
        let early = account.early.iter().filter(|e| e.seqnum == order.seqnum).map(|e| (e.batch, e.index));
        for (batch, index) in pending.chain(early).collect::<Vec<(u64, u32)>>() {
            if changes.stored_order(batch, index)?.is_some_and(|kept| kept.id == order.id)
                && (index as usize) < changes.progress(batch)?.count
            {
                return Ok((batch, index as usize));
            }
        }
        self.own_batch(order, changes)
    }

    /// Where a bearer order is kept: where it has settled, or where its notes say.
    fn place_of_bearer(&self, order: &Order, changes: &mut Changes<'_>) -> Result<(u64, usize)> {
        if let Some(record) = changes.order_by_id(&order_id_key(order.network_id, order.actor, &order.id))? {
            return Ok((record.batch, record.index as usize));
        }
        if let Action::Bearer(bearer) = Content::decode(order)?.action {
            let note = &bearer.notes[0];
            let held = changes.note(&note.nonce)?.clone();
            let early = held.early.iter().find(|e| e.seqnum == note.recoveries).map(|e| (e.batch, e.index));
            for (batch, index) in early.into_iter().chain([(held.batch, held.index)]) {
                let kept = changes.stored_order(batch, index)?;
                if kept.is_some_and(|kept| kept.id == order.id) && (index as usize) < changes.progress(batch)?.count {
                    return Ok((batch, index as usize));
                }
            }
        }
        self.own_batch(order, changes)
    }

    fn own_batch(&self, order: &Order, changes: &mut Changes<'_>) -> Result<(u64, usize)> {
        let root = merkle::root(&[order.id]);
        if let Some(number) = changes.batch_of(&root)? {
            return Ok((number, 0));
        }
        Ok((changes.add_batch(root, &[encode_envelope(&order.body, &[])]), 0))
    }

    fn freeze(&self, freeze: &wire::LogFreeze, changes: &mut Changes<'_>) -> Result<()> {
        let (network_id, actor, from) = (freeze.network_id, freeze.actor, freeze.seqnum);
        let account = changes.account_mut(network_id, actor)?;
        account.frozen = from;
        // Only the order at the seqnum itself decides; what follows it follows when it has settled everywhere.
        let mut shown: Vec<(u64, u32)> =
            account.early.iter().filter(|e| e.seqnum == from).map(|e| (e.batch, e.index)).collect();
        if account.seqnum >= from {
            let key = order_key(network_id, actor, from);
            let record = changes.order_record(&key)?.ok_or_else(|| corrupt(Table::Orders, &key, "missing"))?;
            shown.push((record.batch, record.index));
        }
        let call = wire::LogCall { network_id, actor, seqnum: from, ..Default::default() };
        for (batch, index) in shown {
            changes.call(wire::LogCall { batch, index, shown: true, ..call.clone() });
        }
        changes.call(wire::LogCall { report: true, ..call });
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
            let account = changes.account_mut(network_id, actor)?;
            account.seqnum = seqnum;
            account.prev_hash = resolve.prev_hash;
            account.voided = seqnum;
            account.pending.clear();
            if !resolve.open.is_empty() {
                account.address = Some(Address::from_slice(&resolve.account)?);
                account.permission = Bytes::copy_from_slice(&resolve.open);
            }
            changes.put_order_record(order_key(network_id, actor, seqnum), wire::OrderRecord::default());
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
            Action::Pay { .. } | Action::Recover { .. } | Action::Bearer(_) | Action::RecoverNotes(_) => {}
        }
        for asked in &content.notes {
            changes.take_back_note(asked)?;
        }
        changes.holding_mut(network_id, &address)?.balance += content.total as i128;
        changes.totals.accounts += content.total as i128;
        self.take_back_credits(&order, &content, changes)?;
        changes.delete_order_record(key);
        changes.undo(record.batch, record.index as usize)
    }

    /// Takes back every credit that a settled order has made.
    pub(super) fn take_back_credits(&self, order: &Order, content: &Content, changes: &mut Changes<'_>) -> Result<()> {
        for (output, credit) in content.credits().iter().enumerate() {
            let entry = entry_of(order, content, output, credit.amount, wire::credit_entry::Kind::Reversed);
            let shard = credit.address.shard(self.committee.shards);
            if shard == self.shard {
                changes.take_back(order.network_id, &credit.address, credit.amount, entry)?;
            } else {
                let address = Bytes::copy_from_slice(credit.address.as_bytes());
                changes.send(shard, wire::DeliveredCredit { address, amount: credit.amount, source: Some(entry) });
            }
        }
        Ok(())
    }
}
