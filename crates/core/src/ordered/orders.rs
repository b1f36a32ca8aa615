//! Certified orders in the log: the shared side of a CALL, once, or the refund of what it was debited.
//!
//! A CALL applies only if `previous_call` is the last one applied of its account. So one number an account is all
//! that keeps a certificate from being used twice, whoever hands it in and how often; one that comes too early
//! is left, and comes again, as its authorities hand it in until it is applied.

use bytes::Bytes;

use super::OrderedLog;
use super::modules::registry::{self, network_key};
use super::modules::{self, Caller};
use super::step::{Object, Step, actor_key, object_key};
use crate::address::Address;
use crate::authority::mint::is_bearer;
use crate::certificate::{check_certificate, check_shape};
use crate::content::{Action, Content, TYPE_CALL, TYPE_RECOVER, TYPE_ROTATE, placed};
use crate::envelope::Order;
use crate::error::{Code, Error, Result};
use crate::merkle::{Hash, root_from_parts};
use crate::network_flags::ORDERED;
use crate::planted::{self, Bug};
use crate::wire::{self, log_step::Kind};

impl OrderedLog {
    /// Applies an item; whether it changed anything. Errors, but for those of the storage: no honest authority would
    /// have proposed it.
    pub(super) fn certified_orders(
        &self,
        item: wire::CertifiedOrders,
        at: (u64, u32),
        step: &mut Step<'_>,
    ) -> Result<bool> {
        let Some(certificate) = &item.certificate else {
            return Err(Error::new(Code::Decode, "the orders have no certificate"));
        };
        let batch = check_shape(self.committee(), certificate)?;
        if item.indices.is_empty() || item.indices.len() != item.bodies.len() {
            let (expected, found) = (item.indices.len(), item.bodies.len());
            return Err(Error::expected(Code::Decode, "bodies of certified orders", expected, found));
        }
        let mut orders: Vec<Order> = item.bodies.iter().cloned().map(Order::decode_body).collect::<Result<_>>()?;
        // Whoever repeats what is applied costs no signature check.
        let mut news = false;
        for order in &orders {
            news |= self.is_news(order, step)?;
        }
        if !news {
            return Ok(false);
        }
        let placed: Vec<(usize, Hash)> =
            item.indices.iter().zip(&orders).map(|(i, order)| (*i as usize, order.id)).collect();
        let proof: Vec<Hash> = item
            .proof
            .iter()
            .map(|h| Hash::try_from(h.as_ref()).map_err(|_| Error::expected(Code::Decode, "hash", 32, h.len())))
            .collect::<Result<_>>()?;
        if root_from_parts(&placed, batch.count, &proof) != Some(batch.root) && !planted::is(Bug::ItemUnproved) {
            return Err(Error::new(Code::BadRoot, "the orders do not lead to the certificate's root"));
        }
        let (_, certified) = check_certificate(self.committee(), certificate)?;
        if let Some((i, _)) = placed.iter().find(|(i, _)| !certified.get(*i)) {
            return Err(Error::new(Code::NoQuorum, format!("order {i} of the batch is not certified")));
        }
        // An actor's orders build on each other, wherever they stand in their batch.
        orders.sort_by_key(|order| order.seqnum);
        let mut changed = false;
        for order in orders {
            changed |= self.certified_order(&order, at, step)?;
        }
        Ok(changed)
    }

    /// Whether the order could change something.
    fn is_news(&self, order: &Order, step: &Step<'_>) -> Result<bool> {
        if order.network_id != self.committee().network.id {
            return is_pbtx_news(order, step);
        }
        if is_bearer(order) {
            return self.is_bearer_news(order, step);
        }
        let open = open_recovery(order, step)?;
        if let Some(open) = &open
            && order.seqnum >= open.seqnum
        {
            return Ok(decides(order, open));
        }
        let caller = caller(order.network_id, order.actor, step)?;
        Ok(match order.transaction_type {
            TYPE_CALL => order.seqnum > caller.last_call && !caller.voided.contains(&order.seqnum),
            TYPE_RECOVER => open.is_none() && order.seqnum > caller.recovered && order.seqnum > caller.last_call,
            _ => false,
        })
    }

    fn certified_order(&self, order: &Order, at: (u64, u32), step: &mut Step<'_>) -> Result<bool> {
        // Until a quorum's clocks are in there is no time that locks could rest on; orders come again.
        if step.time_ms() == 0 || !self.is_news(order, step)? {
            return Ok(false);
        }
        if order.network_id != self.committee().network.id {
            return self.pbtx_order(order, at, step);
        }
        if is_bearer(order) {
            return self.bearer_order(order, at, step);
        }
        let content = Content::decode(order)?;
        let mut changed = false;
        if let Some(open) = open_recovery(order, step)?
            && decides(order, &open)
        {
            step.tell_settle((order.network_id, order.actor), &order.body);
            self.resolve(order.network_id, order.actor, open, false, step)?;
            changed = true;
        }
        Ok(match content.action {
            Action::Call { account, call } => self.call(order, account, &call, content.total, at, step)? || changed,
            Action::Recover { account } => {
                self.start_recovery(order, &account, content.open, step)?;
                true
            }
            Action::Pay { .. } | Action::SetPermission(_) | Action::Bearer(_) | Action::RecoverNotes(_) => changed,
        })
    }

    fn call(
        &self,
        order: &Order,
        account: Address,
        call: &wire::Call,
        debit: u64,
        at: (u64, u32),
        step: &mut Step<'_>,
    ) -> Result<bool> {
        let mut record = caller(order.network_id, order.actor, step)?;
        if call.previous_call != record.last_call {
            return Ok(false);
        }
        // The spending side, where it has not settled yet.
        step.tell_settle((order.network_id, order.actor), &order.body);
        record.last_call = planted::when(Bug::CallTwice, record.last_call, order.seqnum);
        record.voided.retain(|v| *v > order.seqnum);
        step.put(actor_key(Object::Caller, order.network_id, order.actor), &record);
        let caller = self.caller_of(order, account, &call.memo);
        let operation = Operation { inputs: &call.inputs, outputs: &call.outputs, first: 0, debit };
        let failed = operation.carry_out(&caller, step)?;
        step.book.orders += 1;
        step.put(outcome_key(order.network_id, order.actor, order.seqnum), &outcome(&order.id, at, failed));
        step.decided.push((order.network_id, order.actor, order.seqnum));
        Ok(true)
    }

    /// In whose name an order is carried out.
    pub(super) fn caller_of(&self, order: &Order, account: Address, memo: &str) -> Caller {
        Caller {
            account,
            network_id: order.network_id,
            actor: order.actor,
            seqnum: order.seqnum,
            order_id: order.id,
            memo: memo.to_owned(),
            committee_id: *self.committee().id(),
            epoch: self.committee().epoch,
        }
    }
}

/// The shared side of an order.
pub(super) struct Operation<'a> {
    pub inputs: &'a [wire::Input],
    pub outputs: &'a [wire::Output],
    /// What the first of the outputs is of all outputs of the order.
    pub first: usize,
    /// What its spending side was debited for it, minor units.
    pub debit: u64,
}

impl Operation<'_> {
    /// All of it, or the refund of what was debited. Returns why it failed.
    pub fn carry_out(&self, caller: &Caller, step: &mut Step<'_>) -> Result<Option<Error>> {
        let mark = step.mark();
        step.book.received += self.debit as i128;
        match self.apply(caller, step) {
            Ok(()) => Ok(None),
            Err(e) if e.is_own_fault() => Err(e),
            Err(e) => {
                step.rollback(mark);
                if planted::is(Bug::RefundMissing) {
                    return Ok(Some(e));
                }
                step.book.received += self.debit as i128;
                if self.debit > 0 {
                    let refund = caller.entry(0, self.debit, wire::credit_entry::Kind::Refund);
                    step.credit(&caller.account, self.debit, refund);
                }
                Ok(Some(e))
            }
        }
    }

    fn apply(&self, caller: &Caller, step: &mut Step<'_>) -> Result<()> {
        for (i, input) in self.inputs.iter().enumerate() {
            modules::apply_input(input, caller, step).map_err(|e| placed(e, "input", i))?;
        }
        for (i, output) in (self.first..).zip(self.outputs) {
            modules::apply_output(output, i as u32, caller, step).map_err(|e| placed(e, "output", i))?;
        }
        Ok(())
    }
}

/// What became of an order, where it stands in the log.
pub(super) fn outcome(order_id: &Hash, (session, index): (u64, u32), failed: Option<Error>) -> wire::OutcomeRecord {
    wire::OutcomeRecord {
        order_id: Bytes::copy_from_slice(order_id),
        session,
        index,
        code: failed.as_ref().map_or(0, |e| e.code as u32),
        message: failed.map(|e| e.message).unwrap_or_default(),
    }
}

/// Whether an order of a PBTX network has something to do here: in a network with the flag ORDERED each has, once and in
/// its actor's order; elsewhere an actor's change of its keys.
fn is_pbtx_news(order: &Order, step: &Step<'_>) -> Result<bool> {
    let Some(flags) = step.get::<wire::NetworkRecord>(&network_key(order.network_id))?.map(|n| n.flags) else {
        return Ok(false);
    };
    let last = caller(order.network_id, order.actor, step)?.last_call;
    Ok(match flags & ORDERED != 0 {
        true => last.checked_add(1) == Some(order.seqnum),
        false => order.transaction_type == TYPE_ROTATE && order.seqnum > last,
    })
}

impl OrderedLog {
    fn pbtx_order(&self, order: &Order, at: (u64, u32), step: &mut Step<'_>) -> Result<bool> {
        let id = (order.network_id, order.actor);
        step.tell_settle(id, &order.body);
        let record = wire::CallerRecord { last_call: order.seqnum, ..Default::default() };
        step.put(actor_key(Object::Caller, id.0, id.1), &record);
        if order.transaction_type == TYPE_ROTATE {
            registry::rotate(order, step)?;
        }
        if step.get::<wire::NetworkRecord>(&network_key(id.0))?.is_some_and(|n| n.flags & ORDERED != 0) {
            let (network_id, actor) = id;
            let place = wire::LogStream {
                network_id,
                actor,
                seqnum: order.seqnum,
                order_id: Bytes::copy_from_slice(&order.id),
            };
            step.tell(id, Kind::Stream(place));
        }
        step.book.orders += 1;
        step.put(outcome_key(id.0, id.1, order.seqnum), &outcome(&order.id, at, None));
        step.decided.push((id.0, id.1, order.seqnum));
        Ok(true)
    }
}

/// The open recovery of the order's account.
fn open_recovery(order: &Order, step: &Step<'_>) -> Result<Option<wire::RecoveryRecord>> {
    step.get(&actor_key(Object::Recovery, order.network_id, order.actor))
}

/// Whether the certified order is the one that a recovery looks for.
fn decides(order: &Order, open: &wire::RecoveryRecord) -> bool {
    order.transaction_type != TYPE_RECOVER && (order.seqnum, order.prev_hash) == (open.seqnum, open.prev_hash)
}

/// What the log remembers of an account.
pub(super) fn caller(network_id: u64, actor: u64, step: &Step<'_>) -> Result<wire::CallerRecord> {
    Ok(step.get(&actor_key(Object::Caller, network_id, actor))?.unwrap_or_default())
}

/// Key of an order's outcome.
pub(super) fn outcome_key(network_id: u64, actor: u64, seqnum: u32) -> Vec<u8> {
    object_key(Object::Outcome, &[&network_id.to_be_bytes(), &actor.to_be_bytes(), &seqnum.to_be_bytes()])
}
