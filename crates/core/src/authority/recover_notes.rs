//! What the log decides about notes that their owner has locked, as shard 0 carries it out.
//!
//! *Freeze*: from then on no order that spends the note is voted for, and none settles but on the log's word; a certified one that
//! is here, settled or waiting, or still comes, goes into the log, and a report. *Resolve*: either the certified order
//! settles, or the note is free again, and an order that spends it must say how often that has happened to it: no old vote fits
//! such an order, and what names less is void.
//!
//! Safety: what is final is never voided ([`crate::ordered`], `note_recovery`). What this authority has settled, and not a quorum,
//! may be. Then all of that order is taken back: its credits; what it put into shared objects, which the log refuses, too;
//! and the notes that it issued. Those nobody has: a note takes signature shares of a quorum, and fewer have
//! settled the order. Its other notes are unspent again, but they stay locked by it: this authority may have voted for another
//! order of one of them before the certificate came, and does not know any more. They are freed by recoveries of their own.

use bytes::Bytes;

use super::Authority;
use super::changes::Changes;
use super::settle::{Step, log_call};
use super::state::{Table, corrupt, order_id_key};
use crate::bearer::{Bearer, NoteSpent};
use crate::cash::blind::Nonce;
use crate::content::{Action, Content};
use crate::envelope::Order;
use crate::error::{Code, Error, Result};
use crate::wire;

/// Certified orders that are kept for one note. They name different numbers of recoveries.
const EARLY_AT_ONE: usize = 4;

impl Authority {
    /// Keeps a certified order that spends a note which a recovery holds back, or that names one which is not known here yet.
    pub(super) fn hold_back(
        &self,
        order: &Order,
        bearer: &Bearer,
        number: u64,
        index: usize,
        changes: &mut Changes<'_>,
    ) -> Result<Step> {
        let mut frozen = None;
        for note in &bearer.notes {
            let record = changes.note(&note.nonce)?;
            // No two certified orders name the same note and the same number.
            let known = record.early.iter().any(|e| e.seqnum == note.recoveries);
            if known || record.early.len() >= EARLY_AT_ONE {
                return Ok(Step::Waiting);
            }
            if record.frozen && record.recoveries == note.recoveries {
                frozen = frozen.or(Some(note.nonce));
            }
        }
        for note in &bearer.notes {
            let mut record = changes.note(&note.nonce)?.clone();
            let (batch, index) = (number, index as u32);
            record.early.push(wire::EarlyRecord { seqnum: note.recoveries, batch, index, ..Default::default() });
            changes.put_note(note.nonce, record);
        }
        if let Some(nonce) = frozen {
            self.show(order, (number, index), &nonce, changes);
        }
        Ok(Step::Waiting)
    }

    /// Hands a certified order to the log for the recovery of a note.
    fn show(&self, order: &Order, (batch, index): (u64, usize), nonce: &Nonce, changes: &mut Changes<'_>) {
        let (order_id, nonce) = (Bytes::copy_from_slice(&order.id), Bytes::copy_from_slice(&nonce.0));
        changes.call(wire::LogCall { order_id, nonce, shown: true, ..log_call(order, batch, index) });
    }

    pub(super) fn freeze_note(&self, freeze: &wire::LogFreezeNote, changes: &mut Changes<'_>) -> Result<()> {
        let nonce = nonce_of(&freeze.nonce)?;
        let mut record = changes.note(&nonce)?.clone();
        record.frozen = true;
        let early = record.early.iter().filter(|e| e.seqnum == record.recoveries).map(|e| (e.batch, e.index));
        let mut shown: Vec<(u64, u32)> = early.collect();
        if record.spent {
            shown.push((record.batch, record.index));
        }
        let seqnum = record.recoveries;
        changes.put_note(nonce, record);
        for (batch, index) in shown {
            let order = kept(batch, index, changes)?;
            self.show(&order, (batch, index as usize), &nonce, changes);
        }
        let network_id = self.committee.network.id;
        let nonce = freeze.nonce.clone();
        changes.call(wire::LogCall { network_id, nonce, seqnum, report: true, ..Default::default() });
        Ok(())
    }

    pub(super) fn resolve_note(&self, resolve: &wire::LogResolveNote, changes: &mut Changes<'_>) -> Result<()> {
        let nonce = nonce_of(&resolve.nonce)?;
        let mut record = changes.note(&nonce)?.clone();
        let expected = record.recoveries.saturating_add(resolve.void.into());
        if resolve.recoveries != expected {
            return Err(Error::expected(Code::OutOfOrder, "recoveries of the note", expected, resolve.recoveries));
        }
        record.frozen = false;
        changes.put_note(nonce, record.clone());
        if resolve.void {
            if record.spent {
                self.undo_bearer(&record.order_id, changes)?;
            }
            for early in record.early.iter().filter(|e| e.seqnum < resolve.recoveries) {
                forget(&kept(early.batch, early.index, changes)?, changes)?;
            }
            let early = changes.note(&nonce)?.early.clone();
            let recoveries = resolve.recoveries;
            changes.put_note(nonce, wire::NoteRecord { recoveries, early, ..Default::default() });
            changes.totals.voided += 1;
        }
        for early in changes.note(&nonce)?.early.clone() {
            let order = kept(early.batch, early.index, changes)?;
            match self.settle_order(&order, early.batch, early.index as usize, false, changes) {
                // Evidence against others; what the log has for other notes must not wait for it.
                Err(e) if e.code == Code::ConflictingCertificate => {}
                other => other.map(|_| ())?,
            }
        }
        Ok(())
    }

    /// Takes a settled bearer order back, with every posting that it made.
    fn undo_bearer(&self, order_id: &[u8], changes: &mut Changes<'_>) -> Result<()> {
        let lost = |what: &str| corrupt(Table::Orders, order_id, what);
        let id = order_id.try_into().map_err(|_| lost("not an order id"))?;
        let key = order_id_key(self.committee.network.id, 0, &id);
        let record = changes.order_by_id(&key)?.ok_or_else(|| lost("the order that has spent a note is missing"))?;
        let order = kept(record.batch, record.index, changes)?;
        let content = Content::decode(&order)?;
        let Action::Bearer(bearer) = &content.action else { return Err(lost("it spends no notes")) };
        for note in &bearer.notes {
            changes.take_back_spend(note.tier);
            let record = changes.note(&note.nonce)?.clone();
            changes.put_note(note.nonce, wire::NoteRecord { spent: false, ..record });
        }
        for asked in &bearer.asked {
            changes.take_back_note(asked)?;
        }
        changes.totals.sent -= i128::from(bearer.shared_value);
        self.take_back_credits(&order, &content, changes)?;
        changes.delete_order_by_id(key);
        changes.undo(record.batch, record.index as usize)
    }
}

/// Which certified order a note has here, settled or waiting, for the report in a recovery; empty if none. `None` if this is not the
/// recovery that is open here.
pub(crate) fn held_note(record: &wire::NoteRecord, recoveries: u32) -> Option<Option<(u64, u32)>> {
    if !record.frozen || record.recoveries != recoveries {
        return None;
    }
    let early = record.early.iter().find(|e| e.seqnum == recoveries).map(|e| (e.batch, e.index));
    Some(if record.spent { Some((record.batch, record.index)) } else { early })
}

/// A note's record when an order has it; what waits for it is as before.
pub(super) fn taken(
    order: &Order,
    batch: u64,
    index: usize,
    note: &NoteSpent,
    before: &wire::NoteRecord,
) -> wire::NoteRecord {
    wire::NoteRecord {
        order_id: Bytes::copy_from_slice(&order.id),
        batch,
        index: index as u32,
        spent: false,
        frozen: before.frozen,
        recoveries: note.recoveries,
        early: before.early.clone(),
    }
}

/// A certified order waits no more.
pub(super) fn waits_no_more(bearer: &Bearer, changes: &mut Changes<'_>) -> Result<()> {
    for note in &bearer.notes {
        let record = changes.note(&note.nonce)?;
        if record.early.iter().any(|e| e.seqnum == note.recoveries) {
            let mut record = record.clone();
            record.early.retain(|e| e.seqnum != note.recoveries);
            changes.put_note(note.nonce, record);
        }
    }
    Ok(())
}

fn forget(order: &Order, changes: &mut Changes<'_>) -> Result<()> {
    match Content::decode(order)?.action {
        Action::Bearer(bearer) => waits_no_more(&bearer, changes),
        _ => Ok(()),
    }
}

fn kept(batch: u64, index: u32, changes: &mut Changes<'_>) -> Result<Order> {
    let order = changes.stored_order(batch, index)?;
    order.ok_or_else(|| corrupt(Table::Batches, &batch.to_be_bytes(), "an order that a note names is missing"))
}

fn nonce_of(bytes: &[u8]) -> Result<Nonce> {
    let wrong = |_| Error::expected(Code::Decode, "bytes of a nonce", 32, bytes.len());
    bytes.try_into().map(Nonce).map_err(wrong)
}
