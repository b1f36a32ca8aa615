//! Recovery of notes that their owner has locked by signing two orders for one of them.
//!
//! A certified RECOVER_NOTES freezes each of its notes at shard 0 of every authority ([`crate::authority`], `recover_notes`),
//! which hands in a certificate for an order that spends the note, if it holds one, and a report. A certificate decides at once:
//! its order settles everywhere. Without one, after the waiting time and with reports of a quorum, the note is freed: its count of
//! recoveries grows by 1. An order names the count of each note that it spends, so votes given before belong to orders
//! that are void for ever.
//!
//! Why that is safe: let an order X be final, and spend the notes a and b, whose counts it names. A quorum has settled it, so
//! f + 1 honest authorities at least, each of them on a certificate before it froze a note of X, or on the word of this log
//! (frozen, it settles X on the log's word alone; and when the log has freed a note of X it never settles X at all). Say that
//! a is the first of X's notes that is freed after X was signed. On the log's word X settles only here, where all of its notes are marked
//! as spent for good; so the f + 1 did it on a certificate, before they froze a. Any quorum of reports has one of
//! them, and its report counts only if it holds no such order. So a is not freed, and neither is any other note of X.
//!
//! An order with a freed note is void, and so never decides a recovery of another note of it: that one waits for another
//! certificate, or is freed. That a certificate decides at once is safe as no second order that names the same note and count can be
//! certified. A report names the count, so that one which comes late is not taken for one of the next recovery.

use bytes::Bytes;

use super::OrderedLog;
use super::bearers::{bearer_key, note_key};
use super::orders::outcome;
use super::step::{Object, Step, object_key};
use crate::bearer::Bearer;
use crate::bitmap::Bitmap;
use crate::cash::blind::Nonce;
use crate::envelope::Order;
use crate::error::Result;
use crate::limits::RECOVERY_WAIT_MS;
use crate::wire::{self, log_step::Kind};

/// Recoveries decided in one step.
const DUE_MAX: usize = 64;

impl OrderedLog {
    /// Opens a recovery of each note that may have one. Once for each order: after a recovery that frees nothing there is
    /// nothing to free, after another one it takes an order that names it.
    pub(super) fn recover_notes(
        &self,
        order: &Order,
        bearer: &Bearer,
        at: (u64, u32),
        step: &mut Step<'_>,
    ) -> Result<()> {
        for note in &bearer.notes {
            let key = note_key(&note.nonce.0);
            let before: wire::NoteRecoveryRecord = step.get(&key)?.unwrap_or_default();
            if before.recoveries != note.recoveries || before.due_ms != 0 || !before.spent_by.is_empty() {
                continue;
            }
            let record = wire::NoteRecoveryRecord {
                due_ms: step.time_ms().saturating_add(RECOVERY_WAIT_MS),
                reports: Bitmap::empty(self.committee().size()).to_bytes(),
                ..before
            };
            step.put_bytes(note_timer_key(record.due_ms, &note.nonce.0), Bytes::new());
            step.put(key, &record);
            step.book.open_recoveries += 1;
            let freeze = wire::LogFreezeNote { nonce: Bytes::copy_from_slice(&note.nonce.0) };
            step.tell((order.network_id, order.actor), Kind::FreezeNote(freeze));
        }
        step.put(bearer_key(&order.id), &outcome(&order.id, at, None));
        step.decided_bearers.push(order.id);
        Ok(())
    }

    /// Marks what a certified order spends, and ends the recoveries that looked for it.
    pub(super) fn spent(&self, order: &Order, bearer: &Bearer, step: &mut Step<'_>) -> Result<()> {
        for note in &bearer.notes {
            let record: wire::NoteRecoveryRecord = step.get(&note_key(&note.nonce.0))?.unwrap_or_default();
            let spent_by = Bytes::copy_from_slice(&order.id);
            let after = wire::NoteRecoveryRecord { recoveries: record.recoveries, spent_by, ..Default::default() };
            match record.due_ms {
                0 => step.put(note_key(&note.nonce.0), &after),
                due_ms => self.resolve_note(&note.nonce, due_ms, &after, false, step),
            }
        }
        Ok(())
    }

    /// An authority has frozen the note and handed in all that it holds.
    /// Returns whether it counts.
    pub(super) fn note_report(&self, report: &wire::NoteReport, creator: u32, step: &mut Step<'_>) -> Result<bool> {
        let key = note_key(&report.nonce);
        let open = |r: &wire::NoteRecoveryRecord| r.due_ms != 0 && r.recoveries == report.recoveries;
        let Some(mut record) = step.get::<wire::NoteRecoveryRecord>(&key)?.filter(open) else {
            // Late: it is decided. Or false: then it changes nothing either.
            return Ok(false);
        };
        // What it holds must be in the log before, and then there is nothing left to report on; or the shard will learn
        // that it is void.
        let mut reports = Bitmap::parse(&record.reports, self.committee().size())?;
        if !report.order_id.is_empty() || reports.get(creator as usize) {
            return Ok(false);
        }
        let Ok(nonce) = <[u8; 32]>::try_from(report.nonce.as_ref()) else { return Ok(false) };
        reports.set(creator as usize);
        record.reports = reports.to_bytes();
        step.put(key, &record);
        if record.due_ms <= step.time_ms() {
            self.decide_note(&Nonce(nonce), &record, step)?;
        }
        Ok(true)
    }

    /// Decides the recoveries whose time has come.
    pub(super) fn decide_due_notes(&self, step: &mut Step<'_>) -> Result<()> {
        for (key, _) in step.scan_before(&[Object::NoteTimer as u8], DUE_MAX)? {
            let Some((due_ms, nonce)) = parse_note_timer(&key) else { break };
            if due_ms > step.time_ms() {
                break;
            }
            step.delete(key.to_vec());
            let record: Option<wire::NoteRecoveryRecord> = step.get(&note_key(&nonce.0))?;
            if let Some(record) = record.filter(|r| r.due_ms == due_ms) {
                self.decide_note(&nonce, &record, step)?;
            }
        }
        Ok(())
    }

    /// Frees the note, if a quorum has reported; else the next report does.
    fn decide_note(&self, nonce: &Nonce, record: &wire::NoteRecoveryRecord, step: &mut Step<'_>) -> Result<()> {
        let reports = Bitmap::parse(&record.reports, self.committee().size())?;
        if reports.ones() >= self.committee().quorum() {
            let after =
                wire::NoteRecoveryRecord { recoveries: record.recoveries.saturating_add(1), ..Default::default() };
            self.resolve_note(nonce, record.due_ms, &after, true, step);
        }
        Ok(())
    }

    fn resolve_note(
        &self,
        nonce: &Nonce,
        due_ms: u64,
        after: &wire::NoteRecoveryRecord,
        void: bool,
        step: &mut Step<'_>,
    ) {
        step.put(note_key(&nonce.0), after);
        step.delete(note_timer_key(due_ms, &nonce.0));
        step.book.open_recoveries -= 1;
        let (nonce, recoveries) = (Bytes::copy_from_slice(&nonce.0), after.recoveries);
        let resolve = wire::LogResolveNote { nonce, void, recoveries };
        step.tell((self.committee().network.id, 0), Kind::ResolveNote(resolve));
    }
}

fn note_timer_key(due_ms: u64, nonce: &[u8; 32]) -> Vec<u8> {
    object_key(Object::NoteTimer, &[&due_ms.to_be_bytes(), nonce])
}

fn parse_note_timer(key: &[u8]) -> Option<(u64, Nonce)> {
    let rest: &[u8; 40] = key.strip_prefix(&[Object::NoteTimer as u8])?.try_into().ok()?;
    let (due_ms, nonce) = rest.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*due_ms), Nonce(nonce.try_into().ok()?)))
}
