//! PBTX networks: actors that the registry names, opaque contents, listeners.
//!
//! Their orders go the way of payments, vote, certificate, settle, with two differences. What an actor may sign with
//! is the log's word ([`wire::LogActor`]), so that the admin's changes and the actor's own have one order everywhere: an
//! actor's change of its keys settles here and takes effect when the log has it. And in a network with the flag ORDERED
//! every order goes to the log, which gives it its place in the network's stream.
//!
//! What settles no check but a certificate decides: not the registry, not a precheck. They are asked before a vote.
//! In a network without sequence numbers (SKIP_SEQ_AND_PREVHASH) nothing conflicts, so a vote locks nothing; an order
//! settles once, by its id.

use bytes::Bytes;

use super::Authority;
use super::changes::Changes;
use super::settle::{Step, log_call};
use super::state::{Account, order_id_key, order_key, short_hash};
use super::vote::{Pass, check_repeat};
use crate::content::{TYPE_ROTATE, decode_rotate};
use crate::envelope::Order;
use crate::error::{Code, Error, Result};
use crate::limits::PENDING_WINDOW;
use crate::network_flags::{HISTORY, ORDERED, SKIP_SEQ_AND_PREVHASH};
use crate::permission::Permission;
use crate::planted::{self, Bug};
use crate::signatures::Batch;
use crate::verdict::{check_chain, check_place, push_authorities};
use crate::wire::{self, history_row::Event};

impl Authority {
    /// All checks of one order of a PBTX network, and its lock. The outer error is a fault of the storage, the inner
    /// one the order's. Signatures wait in `pass` for the batch, unless the actor is a suspect.
    pub(super) fn check_pbtx(
        &self,
        order: &Order,
        index: usize,
        suspect: Option<bool>,
        pass: &mut Pass,
        changes: &mut Changes<'_>,
    ) -> Result<Result<()>> {
        if let Err(e) = self.check_shard(order) {
            return Ok(Err(e));
        }
        let network = changes.network(order.network_id)?.map(|slot| slot.network.clone());
        let Some(network) = network.filter(|network| !network.removed) else {
            let message = format!("network {} is not registered", order.network_id);
            return Ok(Err(Error::new(Code::UnknownNetwork, message)));
        };
        let account = changes.account(order.network_id, order.actor)?;
        if let Err(e) = check_place(order.network_id, !account.permission.is_empty(), order) {
            return Ok(Err(e));
        }
        let locks = network.flags & SKIP_SEQ_AND_PREVHASH == 0;
        let next = account.next_seqnum();
        if locks && (order.seqnum as u64) < next {
            let last = account.seqnum == u32::MAX;
            return Ok(check_repeat(order, pass, changes)?.map_err(|e| match e.code {
                Code::BadSeq if last => Error::new(Code::SeqExhausted, e.message),
                _ => e,
            }));
        }
        let admitted = account.admitted[..] == order.id;
        let last = u32::try_from(next - 1).unwrap_or(u32::MAX);
        let fits = check_chain(network.flags, last, account.next_prev_hash(), order)
            .and_then(|_| if locks { check_window(account) } else { Ok(()) })
            .and_then(|()| check_keys(order.actor, account))
            .and_then(|()| if admitted { Ok(()) } else { check_actor(order.actor, account) })
            .and_then(|()| check_rotation(order, account, &network, admitted))
            .and_then(|()| if admitted { Ok(()) } else { check_prechecks(order, &network) });
        if let Err(e) = fits {
            return Ok(Err(e));
        }
        for cosignor in order.cosignors.iter().filter(|_| !admitted) {
            let account = changes.account(order.network_id, *cosignor)?;
            if let Err(e) = check_actor(*cosignor, account).and_then(|()| check_keys(*cosignor, account)) {
                return Ok(Err(e));
            }
        }
        let permission_of = |actor| {
            let kept = changes.account(order.network_id, actor)?.permission.clone();
            if kept.is_empty() { Ok(None) } else { Permission::decode_kept(&kept).map(Some) }
        };
        match suspect {
            _ if admitted => {}
            Some(true) => {
                let mut alone = Batch::new();
                push_authorities(&mut alone, index, order, permission_of)?;
                if let Some((_, Err(e))) = alone.verify_within(&mut pass.budget, &self.known).results.pop() {
                    return Ok(Err(e));
                }
            }
            Some(false) => {}
            None => push_authorities(&mut pass.signatures, index, order, permission_of)?,
        }
        if locks {
            changes.account_mut(order.network_id, order.actor)?.pending.push(wire::PendingRecord {
                order_id: Bytes::copy_from_slice(&order.id),
                batch: pass.batch,
                index: index as u32,
                set_permission: order.transaction_type == TYPE_ROTATE,
                ..Default::default()
            });
            pass.locked.push((order.network_id, order.actor));
        }
        Ok(Ok(()))
    }

    /// Settles a certified order of a PBTX network if it is its actor's next.
    pub(super) fn settle_pbtx(
        &self,
        order: &Order,
        number: u64,
        index: usize,
        by_log: bool,
        changes: &mut Changes<'_>,
    ) -> Result<Step> {
        // The log will tell: an authority that has voted for the order had heard of the network.
        let Some(flags) = changes.network(order.network_id)?.map(|slot| slot.network.flags) else {
            return Ok(Step::Waiting);
        };
        let to_log = flags & ORDERED != 0 || order.transaction_type == TYPE_ROTATE;
        let record = wire::OrderRecord {
            order_id: Bytes::copy_from_slice(&order.id),
            batch: number,
            index: index as u32,
            call: to_log,
            ..Default::default()
        };
        if flags & SKIP_SEQ_AND_PREVHASH != 0 {
            let key = order_id_key(order.network_id, order.actor, &order.id);
            if changes.order_by_id(&key)?.is_some() && !planted::is(Bug::StreamedTwice) {
                changes.progress(number)?.mark_as(index, by_log);
                return Ok(Step::Settled);
            }
            changes.put_order_by_id(key, record);
        } else {
            let account = changes.account(order.network_id, order.actor)?;
            if order.seqnum <= account.seqnum {
                return self.settled_before(order, number, index, by_log, changes);
            }
            if order.seqnum - 1 > account.seqnum || order.prev_hash != account.prev_hash {
                return self.keep_early(order, number, index, by_log, changes);
            }
            let account = changes.account_mut(order.network_id, order.actor)?;
            account.seqnum = order.seqnum;
            account.prev_hash = order.next_hash();
            match account.pending.first() {
                Some(first) if short_hash(&first.order_id) == account.prev_hash => drop(account.pending.remove(0)),
                _ => account.pending.clear(),
            }
            changes.put_order_record(order_key(order.network_id, order.actor, order.seqnum), record);
        }
        if order.transaction_type == TYPE_ROTATE {
            changes.account_mut(order.network_id, order.actor)?.rotation.0 = order.seqnum;
        }
        if to_log && !by_log {
            changes.call(log_call(order, number, index));
        }
        if flags & ORDERED == 0 || planted::is(Bug::StreamedEarly) {
            changes.stream(order.network_id, settled_entry(&order.id, number, index as u32))?;
        }
        let progress = changes.progress(number)?;
        progress.mark(index);
        progress.fresh.set(index);
        if by_log {
            progress.by_log.set(index);
        }
        Ok(Step::Settled)
    }

    /// What the log says of a network.
    pub(super) fn log_network(&self, step: wire::LogNetwork, changes: &mut Changes<'_>) -> Result<()> {
        let network = step.network.unwrap_or_default();
        let event = step.metadata.then(|| wire::StreamRecord {
            event: Event::Netmetadata as i32,
            data: network.metadata.clone(),
            ..Default::default()
        });
        changes.set_network(step.network_id, network)?;
        self.note(step.network_id, event, changes)
    }

    /// What the log says of an actor: its permission, and whether it is frozen or removed. Its sequence stays.
    pub(super) fn log_actor(&self, step: wire::LogActor, changes: &mut Changes<'_>) -> Result<()> {
        let account = changes.account_mut(step.network_id, step.actor)?;
        let before = std::mem::replace(&mut account.permission, Bytes::copy_from_slice(&step.permission));
        account.barred = step.frozen;
        account.generation = step.generation;
        if !step.admitted.is_empty() {
            account.admitted = Bytes::copy_from_slice(&step.admitted);
        }
        account.rotation.1 = account.rotation.1.max(step.rotated);
        let event = match (step.removed, before == step.permission) {
            (_, true) => None,
            (true, false) => Some((Event::Unregactor, Bytes::copy_from_slice(&step.actor.to_be_bytes()))),
            (false, false) => Some((Event::Regactor, step.permission)),
        };
        let event = event.map(|(event, data)| wire::StreamRecord {
            event: event as i32,
            data,
            trx_id: step.order_id,
            ..Default::default()
        });
        self.note(step.network_id, event, changes)
    }

    /// An order that is settled here has its place among all of its network.
    pub(super) fn log_stream(&self, step: &wire::LogStream, changes: &mut Changes<'_>) -> Result<()> {
        let key = order_key(step.network_id, step.actor, step.seqnum);
        // Two certified orders for one seqnum are evidence against others; what the log has next must not wait for it.
        let record = changes.order_record(&key)?.filter(|record| record.order_id == step.order_id);
        let Some(record) = record else { return Ok(()) };
        let mut entry = settled_entry(&[0; 32], record.batch, record.index);
        entry.trx_id = record.order_id;
        changes.stream(step.network_id, entry)
    }

    /// Notes an event that is no order, where the network keeps its history.
    fn note(&self, network_id: u64, event: Option<wire::StreamRecord>, changes: &mut Changes<'_>) -> Result<()> {
        let kept = changes.network(network_id)?.is_some_and(|slot| slot.network.flags & HISTORY != 0);
        match event {
            Some(event) if kept => changes.stream(network_id, event),
            _ => Ok(()),
        }
    }
}

fn settled_entry(id: &[u8; 32], batch: u64, index: u32) -> wire::StreamRecord {
    let event = Event::Exectrx as i32;
    wire::StreamRecord { batch, index, event, trx_id: Bytes::copy_from_slice(id), ..Default::default() }
}

fn check_window(account: &Account) -> Result<()> {
    if account.pending.len() >= PENDING_WINDOW {
        let expected = format!("below {PENDING_WINDOW}");
        return Err(Error::expected(Code::WindowFull, "pending orders", expected, account.pending.len()));
    }
    Ok(())
}

/// Whether none of the actor's keys is about to be replaced.
fn check_keys(actor: u64, account: &Account) -> Result<()> {
    if account.pending.iter().any(|p| p.set_permission) || account.rotation.0 > account.rotation.1 {
        return Err(Error::new(Code::PermissionPending, format!("a change of the keys of actor {actor} is pending")));
    }
    Ok(())
}

fn check_actor(actor: u64, account: &Account) -> Result<()> {
    match account.barred && !planted::is(Bug::FrozenActs) {
        true => Err(Error::new(Code::ActorFrozen, format!("actor {actor} is frozen"))),
        false => Ok(()),
    }
}

/// The one content that authorities look into. One that was admitted may replace a permission of before: then it does
/// nothing.
fn check_rotation(order: &Order, account: &Account, network: &wire::NetworkRecord, admitted: bool) -> Result<()> {
    if order.transaction_type == TYPE_ROTATE {
        if network.flags & SKIP_SEQ_AND_PREVHASH != 0 {
            let message = "an actor changes its keys by sequence number, and the network has none";
            return Err(Error::new(Code::BadContent, message));
        }
        let found = decode_rotate(order)?.generation;
        if found != account.generation && !admitted {
            let what = "generation of the permission that it replaces";
            return Err(Error::expected(Code::BadPermission, what, account.generation, found));
        }
    }
    Ok(())
}

/// What listeners ask for; changes of keys are no business of theirs.
fn check_prechecks(order: &Order, network: &wire::NetworkRecord) -> Result<()> {
    if order.transaction_type == TYPE_ROTATE || planted::is(Bug::PrechecksSkipped) {
        return Ok(());
    }
    for precheck in network.prechecks.iter().filter_map(|p| p.precheck.as_ref()) {
        let of_type = |range: &wire::TypeRange| (range.first..=range.last).contains(&order.transaction_type);
        if !precheck.types.is_empty() && !precheck.types.iter().any(of_type) {
            let found = order.transaction_type;
            return Err(Error::expected(Code::Precheck, "transaction_type", "one that listeners take", found));
        }
        if precheck.content_max > 0 && order.content.len() > precheck.content_max as usize {
            let expected = format!("at most {}", precheck.content_max);
            return Err(Error::expected(Code::Precheck, "bytes of the content", expected, order.content.len()));
        }
        if !precheck.actors.is_empty() && precheck.actors.binary_search(&order.actor).is_err() {
            return Err(Error::expected(Code::Precheck, "actor", "one that listeners take", order.actor));
        }
    }
    Ok(())
}
