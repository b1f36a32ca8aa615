//! Bearer orders in the log: their shared outputs, once, or what these were worth to the address that they name; and
//! what they say in recoveries of notes ([`super::note_recovery`]).
//!
//! A bearer order has no account and no number, so what keeps it from applying twice is the record of what became of it, by
//! its id. Of an order that comes when one of its notes is freed only that is recorded.

use super::OrderedLog;
use super::orders::{Operation, outcome};
use super::step::{Object, Step, object_key};
use crate::bearer::Bearer;
use crate::content::{Action, Content};
use crate::envelope::Order;
use crate::error::{Code, Error, Result};
use crate::wire;

/// Key of what became of a bearer order.
pub(super) fn bearer_key(order_id: &[u8]) -> Vec<u8> {
    object_key(Object::Bearer, &[order_id])
}

/// Key of what is known of a note.
pub(super) fn note_key(nonce: &[u8]) -> Vec<u8> {
    object_key(Object::Note, &[nonce])
}

/// What the log has to do for a certified bearer order.
enum Due {
    /// To settle it everywhere, with its shared outputs.
    Settle(Box<Bearer>),
    /// To say that it never settles.
    Void(Error),
    /// To free its notes.
    Recover(Box<Bearer>),
}

impl OrderedLog {
    /// Whether the log has something to do for a bearer order.
    pub(super) fn is_bearer_news(&self, order: &Order, step: &Step<'_>) -> Result<bool> {
        Ok(due(order, step)?.is_some())
    }

    pub(super) fn bearer_order(&self, order: &Order, at: (u64, u32), step: &mut Step<'_>) -> Result<bool> {
        match due(order, step)? {
            None => return Ok(false),
            Some(Due::Recover(bearer)) => self.recover_notes(order, &bearer, at, step)?,
            Some(Due::Void(why)) => {
                step.put(bearer_key(&order.id), &outcome(&order.id, at, Some(why)));
                step.decided_bearers.push(order.id);
            }
            Some(Due::Settle(bearer)) => self.settle_bearer(order, &bearer, at, step)?,
        }
        Ok(true)
    }

    fn settle_bearer(&self, order: &Order, bearer: &Bearer, at: (u64, u32), step: &mut Step<'_>) -> Result<()> {
        // The spending side, where it has not settled yet.
        step.tell_settle((order.network_id, order.actor), &order.body);
        self.spent(order, bearer, step)?;
        let failed = match bearer.refund {
            Some(refund) => {
                let (first, outputs) = bearer.call();
                let operation = Operation { inputs: &[], outputs, first, debit: bearer.shared_value };
                operation.carry_out(&self.caller_of(order, refund, &bearer.memo), step)?
            }
            None => None,
        };
        step.book.orders += 1;
        step.put(bearer_key(&order.id), &outcome(&order.id, at, failed));
        step.decided_bearers.push(order.id);
        Ok(())
    }
}

fn due(order: &Order, step: &Step<'_>) -> Result<Option<Due>> {
    if step.get_bytes(&bearer_key(&order.id))?.is_some() {
        return Ok(None);
    }
    let bearer = match Content::decode(order)?.action {
        Action::Bearer(bearer) => bearer,
        Action::RecoverNotes(bearer) => return Ok(Some(Due::Recover(bearer))),
        _ => return Ok(None),
    };
    let shared = !bearer.shared.is_empty();
    let mut sought = false;
    for note in &bearer.notes {
        let record: wire::NoteRecoveryRecord = step.get(&note_key(&note.nonce.0))?.unwrap_or_default();
        if record.recoveries != note.recoveries || !record.spent_by.is_empty() {
            let what = format!("note {:?}: times that the log has freed it", note.nonce);
            let why = Error::expected(Code::NoteFreed, &what, record.recoveries, note.recoveries);
            return Ok(shared.then_some(Due::Void(why)));
        }
        sought |= record.due_ms != 0;
    }
    Ok((shared || sought).then_some(Due::Settle(bearer)))
}
