//! Recovery of an account that its own wallet has locked by signing two orders for one seqnum.
//!
//! A certified RECOVER freezes the account at every authority ([`crate::authority`], `recover`). Each then hands in
//! a certificate for that seqnum, if it holds one, and a report. A certificate decides at once: its order settles,
//! and the account goes on. Without one the seqnum is void after the waiting time, with reports of a quorum.
//!
//! Why that is safe: a final order was settled by a quorum, so by f + 1 honest authorities at least, each before it
//! applied the RECOVER (after that it settles nothing there). Any quorum of reports contains one of these f + 1,
//! and its report counts only once the certificate that it names is in the log. So where something is final, a
//! certificate is shown before a quorum has reported. Counting votes instead would not be safe: of a certified
//! order as few as one honest vote may show in a quorum of reports. That a shown certificate decides at once is safe
//! as no other order for the seqnum can be certified.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::OrderedLog;
use super::orders::caller;
use super::step::{Object, Step, actor_key, object_key};
use crate::address::Address;
use crate::bitmap::Bitmap;
use crate::envelope::Order;
use crate::error::Result;
use crate::limits::RECOVERY_WAIT_MS;
use crate::planted::{self, Bug};
use crate::wire::{self, log_step::Kind};

/// Recoveries decided in one step.
const DUE_MAX: usize = 64;

impl OrderedLog {
    pub(super) fn start_recovery(
        &self,
        order: &Order,
        account: &Address,
        open: Option<Bytes>,
        step: &mut Step<'_>,
    ) -> Result<()> {
        let (network_id, actor, seqnum) = (order.network_id, order.actor, order.seqnum);
        let record = wire::RecoveryRecord {
            seqnum,
            prev_hash: order.prev_hash,
            due_ms: step.time_ms().saturating_add(planted::when(Bug::NoWait, 0, RECOVERY_WAIT_MS)),
            account: Bytes::copy_from_slice(account.as_bytes()),
            open: open.unwrap_or_default(),
            reports: Bitmap::empty(self.committee().size()).to_bytes(),
        };
        step.put_bytes(timer_key(record.due_ms, network_id, actor), Bytes::new());
        step.put(actor_key(Object::Recovery, network_id, actor), &record);
        step.book.open_recoveries += 1;
        step.tell((network_id, actor), Kind::Freeze(wire::LogFreeze { network_id, actor, seqnum }));
        Ok(())
    }

    /// An authority has frozen the account and handed in all that it holds.
    /// Returns whether it counts.
    pub(super) fn report(&self, report: &wire::RecoveryReport, creator: u32, step: &mut Step<'_>) -> Result<bool> {
        let (network_id, actor) = (report.network_id, report.actor);
        let key = actor_key(Object::Recovery, network_id, actor);
        let Some(mut record) = step.get::<wire::RecoveryRecord>(&key)?.filter(|r| r.seqnum == report.seqnum) else {
            // Late: it is decided. Or false: then it changes nothing either.
            return Ok(false);
        };
        // What it holds must be in the log before its report counts, in whatever order the engine had them; and then
        // there is nothing left to report on.
        if !report.order_id.is_empty() {
            return Ok(false);
        }
        let mut reports = Bitmap::parse(&record.reports, self.committee().size())?;
        if reports.get(creator as usize) {
            // Handed in again before it was known to be ordered.
            return Ok(false);
        }
        reports.set(creator as usize);
        record.reports = reports.to_bytes();
        step.put(key, &record);
        if record.due_ms <= step.time_ms() {
            self.decide(network_id, actor, record, step)?;
        }
        Ok(true)
    }

    /// Decides the recoveries whose time has come.
    pub(super) fn decide_due(&self, step: &mut Step<'_>) -> Result<()> {
        if step.book.open_recoveries == 0 {
            return Ok(());
        }
        for (key, _) in step.scan_before(&[Object::Timer as u8], DUE_MAX)? {
            let Some((due_ms, network_id, actor)) = parse_timer(&key) else { break };
            if due_ms > step.time_ms() {
                break;
            }
            step.delete(key.to_vec());
            let record: Option<wire::RecoveryRecord> = step.get(&actor_key(Object::Recovery, network_id, actor))?;
            if let Some(record) = record.filter(|r| r.due_ms == due_ms) {
                self.decide(network_id, actor, record, step)?;
            }
        }
        self.decide_due_notes(step)
    }

    /// Voids the seqnum, if a quorum has reported; else the next report does.
    fn decide(&self, network_id: u64, actor: u64, record: wire::RecoveryRecord, step: &mut Step<'_>) -> Result<()> {
        let reports = Bitmap::parse(&record.reports, self.committee().size())?;
        let needed = planted::when(Bug::FewReports, self.committee().validity(), self.committee().quorum());
        if reports.ones() >= needed {
            self.resolve(network_id, actor, record, true, step)?;
        }
        Ok(())
    }

    /// Ends a recovery: the seqnum is void, or its certified order settles.
    pub(super) fn resolve(
        &self,
        network_id: u64,
        actor: u64,
        record: wire::RecoveryRecord,
        void: bool,
        step: &mut Step<'_>,
    ) -> Result<()> {
        let seqnum = record.seqnum;
        let mut known = caller(network_id, actor, step)?;
        known.recovered = seqnum;
        if void {
            known.voided.push(seqnum);
        }
        step.put(actor_key(Object::Caller, network_id, actor), &known);
        step.delete(actor_key(Object::Recovery, network_id, actor));
        step.delete(timer_key(record.due_ms, network_id, actor));
        step.book.open_recoveries -= 1;
        step.tell(
            (network_id, actor),
            Kind::Resolve(wire::LogResolve {
                network_id,
                actor,
                seqnum,
                void,
                prev_hash: if void { void_hash(network_id, actor, seqnum, &step.book.state_hash) } else { 0 },
                account: record.account,
                open: record.open,
            }),
        );
        if void {
            step.decided.push((network_id, actor, seqnum));
        }
        Ok(())
    }
}

/// What the order after a voided one names as prev_hash. It rests on the log's state, which nobody knew when the
/// votes that are void now were given.
fn void_hash(network_id: u64, actor: u64, seqnum: u32, state_hash: &[u8]) -> u64 {
    let mut h = Sha256::new();
    h.update(b"florin-void-v1");
    h.update(network_id.to_be_bytes());
    h.update(actor.to_be_bytes());
    h.update(seqnum.to_be_bytes());
    h.update(state_hash);
    let hash: [u8; 32] = h.finalize().into();
    crate::envelope::next_hash(&hash)
}

fn timer_key(due_ms: u64, network_id: u64, actor: u64) -> Vec<u8> {
    object_key(Object::Timer, &[&due_ms.to_be_bytes(), &network_id.to_be_bytes(), &actor.to_be_bytes()])
}

fn parse_timer(key: &[u8]) -> Option<(u64, u64, u64)> {
    let rest: &[u8; 24] = key.strip_prefix(&[Object::Timer as u8])?.try_into().ok()?;
    let part = |i: usize| rest[8 * i..8 * i + 8].try_into().ok().map(u64::from_be_bytes);
    Some((part(0)?, part(1)?, part(2)?))
}
