//! One authority's shards and its log side by side: what left one has arrived at the other, or is on its way.
//!
//! A shard may lag behind the log: the log applies a CALL when a certificate for it is ordered, and this shard may
//! settle it later. So money on the way from shards to the log can be below zero for a while. What must hold at
//! any time: per account, the CALLs of whichever is behind are the first ones of whichever is ahead; those that
//! the log lacks are in the shard's outbox; and all money is somewhere.

use std::collections::BTreeSet;

use super::{Calls, Flow, ShardAudit};
use crate::authority::state::LOG;
use crate::ordered::audit::LogAudit;

/// Where the money of one authority is, minor units.
#[derive(Clone, Debug, Default)]
pub struct Money {
    /// Balances, the issuer's included.
    pub accounts: i128,
    /// Worth of the notes issued and not spent.
    pub notes: i128,
    /// In outboxes of shards for other shards.
    pub between_shards: i128,
    /// Debited by CALLs that the log has not applied; below zero where shards lag behind the log. Without the log's
    /// audit: all that the log has debited and not credited again.
    pub to_log: i128,
    /// Held by modules of the log, by name.
    pub held: Vec<(&'static str, i128)>,
    /// In the log's outbox for shards.
    pub from_log: i128,
}

impl Money {
    /// Zero, if nothing is lost or made.
    pub fn sum(&self) -> i128 {
        self.accounts
            + self.notes
            + self.between_shards
            + self.to_log
            + self.from_log
            + self.held.iter().map(|(_, h)| h).sum::<i128>()
    }
}

/// Where the money is, over all shards of an authority. Without `log`, what it holds is counted as on the way to it.
pub fn money(shards: &[(u32, ShardAudit)], log: Option<&LogAudit>) -> Money {
    let mut money = Money::default();
    for (a, sender) in shards {
        money.accounts += sender.balances;
        money.notes += outstanding(&sender.notes);
        for (b, receiver) in shards.iter().filter(|(b, _)| b != a) {
            money.between_shards += in_flight(&sender.outbox, *b, receiver.applied.get(a)).amount;
        }
        money.to_log += sender.sent.get(&LOG).map_or(0, |f| f.amount);
        match log {
            Some(log) => money.from_log += in_flight(&log.outbox, *a, sender.applied.get(&LOG)).amount,
            None => money.to_log -= sender.received.get(&LOG).map_or(0, |f| f.amount),
        }
    }
    if let Some(log) = log {
        money.to_log -= log.received;
        money.held.clone_from(&log.held);
    }
    money
}

/// Compares the shards of one authority, and its log if it is given: all that each sent has arrived or is in its
/// outbox, and all money is somewhere. They must have been read while nothing was delivered between them.
pub fn audit_authority(shards: &[(u32, ShardAudit)], log: Option<&LogAudit>) -> Vec<String> {
    let mut findings = Vec::new();
    for (a, sender) in shards {
        for (b, receiver) in shards.iter().filter(|(b, _)| b != a) {
            let names = (format!("shard {a}"), format!("shard {b}"));
            let sent = sender.sent.get(b).copied().unwrap_or_default();
            let received = receiver.received.get(a).copied().unwrap_or_default();
            let applied = receiver.applied.get(a).copied().unwrap_or(0);
            let link = sender.links.get(b).copied().unwrap_or_default();
            check_link(&names, link, applied, &mut findings);
            check_flow(&names, sent, received, in_flight(&sender.outbox, *b, Some(&applied)), &mut findings);
        }
        if let Some(log) = log {
            let names = ("the log".to_owned(), format!("shard {a}"));
            let sent = log.sent.get(a).copied().unwrap_or_default();
            let received = sender.received.get(&LOG).copied().unwrap_or_default();
            let applied = sender.applied.get(&LOG).copied().unwrap_or(0);
            let link = log.links.get(a).copied().unwrap_or_default();
            check_link(&names, link, applied, &mut findings);
            check_flow(&names, sent, received, in_flight(&log.outbox, *a, Some(&applied)), &mut findings);
            // Actors of PBTX networks have no money that could be on its way.
            let of_shard = |id: &(u64, u64)| id.0 == log.network_id && id.1 % shards.len() as u64 == u64::from(*a);
            calls(*a, sender, log, of_shard, &mut findings);
            pbtx_calls(*a, sender, log, &mut findings);
            // Once it has applied all that the log has said.
            if applied == link.1 {
                let registry = log.registry.get(a).copied().unwrap_or_default();
                if registry != sender.registry {
                    let (expected, found) = (registry.count, sender.registry.count);
                    findings.push(format!(
                        "shard {a}: expected {expected} networks and actors as the log knows them, found {found}, or others"
                    ));
                }
                recoveries(*a, sender, log, of_shard, &mut findings);
                if *a == 0 {
                    bearers(sender, log, &mut findings);
                }
            }
        }
    }
    let sum = money(shards, log).sum();
    if sum != 0 {
        findings.push(format!("balances and money in flight of all shards: expected 0, found {sum}"));
    }
    let (genesis, issued): (i128, i128) = shards.iter().fold((0, 0), |(g, i), (_, s)| (g + s.genesis, i + s.issued));
    if genesis != issued {
        findings.push(format!("credited by the genesis file: expected {issued} as issued, found {genesis}"));
    }
    findings
}

/// Notes that all shards of an authority have issued and spent, by tier. More spent than issued: it lags, or more
/// comes back than was ever made.
pub fn notes(shards: &[(u32, ShardAudit)]) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    for (_, shard) in shards {
        all.resize(all.len().max(shard.notes.len()), (0, 0));
        for (sum, (issued, spent)) in all.iter_mut().zip(&shard.notes) {
            *sum = (sum.0 + issued, sum.1 + spent);
        }
    }
    all
}

/// Worth of notes issued less notes spent, by tier.
fn outstanding(notes: &[(u64, u64)]) -> i128 {
    notes.iter().enumerate().map(|(tier, (issued, spent))| (i128::from(*issued) - i128::from(*spent)) << tier).sum()
}

/// Entries of an outbox that are not applied.
fn in_flight(outbox: &std::collections::BTreeMap<(u32, u64), Flow>, to: u32, applied: Option<&u64>) -> Flow {
    let mut flow = Flow::default();
    let from = applied.copied().unwrap_or(0).saturating_add(1);
    outbox.range((to, from)..=(to, u64::MAX)).for_each(|(_, f)| flow.merge(f));
    flow
}

fn check_link((from, to): &(String, String), link: (u64, u64), applied: u64, findings: &mut Vec<String>) {
    let (acknowledged, last) = link;
    if !(acknowledged..=last).contains(&applied) {
        findings.push(format!(
            "{from} to {to}: expected delivery {acknowledged} to {last} as the last applied, found {applied}"
        ));
    }
}

fn check_flow((from, to): &(String, String), sent: Flow, received: Flow, in_flight: Flow, findings: &mut Vec<String>) {
    let mut accounted = received;
    accounted.merge(&in_flight);
    if sent != accounted {
        let (sent, found) = (sent.shown("credits"), accounted.shown("credits"));
        findings.push(format!("{from} to {to}: expected {sent} as sent, found {found} received or in flight"));
    }
}

/// CALLs, account by account: the log has what the shard has settled and does not keep for it, and the other way
/// round what the log is ahead by is what the shard has not settled.
fn calls(
    shard: u32,
    audit: &ShardAudit,
    log: &LogAudit,
    of_shard: impl Fn(&(u64, u64)) -> bool,
    findings: &mut Vec<String>,
) {
    let ids: BTreeSet<&(u64, u64)> = audit.calls.keys().chain(log.callers.keys().filter(|id| of_shard(id))).collect();
    for id in ids {
        let here = audit.calls.get(id).copied().unwrap_or_default();
        let Some(caller) = log.callers.get(id) else {
            check_calls(shard, id, here, kept(audit, id, 0), Calls::default(), findings);
            continue;
        };
        if here.last >= caller.calls.last {
            check_calls(shard, id, here, kept(audit, id, caller.calls.last), caller.calls, findings);
            continue;
        }
        // Only the newest calls of the log are there one by one.
        let oldest = caller.newest.front().map_or(0, |(seqnum, _)| *seqnum);
        if oldest > here.last && caller.newest.len() as u64 != caller.calls.settled.count {
            continue;
        }
        let mut ahead = Flow::default();
        caller.newest.iter().filter(|(seqnum, _)| *seqnum > here.last).for_each(|(_, flow)| ahead.merge(flow));
        let (expected, found) = (caller.calls.settled.without(&ahead), here.settled);
        if expected != found {
            let (expected, found) = (expected.shown("CALLs"), found.shown("CALLs"));
            findings.push(format!(
                "shard {shard}, actor {}: expected {expected} settled to seqnum {} as the log has them, found {found}",
                id.1, here.last
            ));
        }
    }
}

/// Bearer orders with shared outputs, once shard 0 has applied all that the log has said: the log has what is settled, and
/// at most what is kept for it is still missing there.
fn bearers(shard: &ShardAudit, log: &LogAudit, findings: &mut Vec<String>) {
    let missing = shard.bearers.without(&log.bearers);
    let kept = shard.bearers_kept;
    let holds = match missing.count {
        0 => missing == Flow::default(),
        some if some == kept.count => missing == kept,
        some => some < kept.count && (0..kept.amount).contains(&missing.amount),
    };
    if !holds {
        let (expected, found) = (shard.bearers.shown("bearer orders"), log.bearers.shown("bearer orders"));
        findings.push(format!(
            "shard 0 to the log: expected {expected} as settled, less {} kept, found {found}",
            kept.shown("bearer orders")
        ));
    }
}

/// CALLs above a seqnum that the shard keeps for the log.
fn kept(audit: &ShardAudit, id: &(u64, u64), above: u32) -> Flow {
    let mut flow = Flow::default();
    let range = (*id, above.saturating_add(1))..=(*id, u32::MAX);
    audit.calls_kept.range(range).for_each(|(_, f)| flow.merge(f));
    flow
}

fn check_calls(shard: u32, id: &(u64, u64), here: Calls, kept: Flow, log: Calls, findings: &mut Vec<String>) {
    let expected = here.settled.without(&kept);
    if expected != log.settled {
        let (expected, found) = (expected.shown("CALLs"), log.settled.shown("CALLs"));
        findings.push(format!(
            "shard {shard} to the log, actor {}: expected {expected} as settled and no longer kept, found {found}",
            id.1
        ));
    }
}

/// What settled orders of PBTX networks hand to the log is in the log or kept for it.
fn pbtx_calls(shard: u32, audit: &ShardAudit, log: &LogAudit, findings: &mut Vec<String>) {
    for (id, (last, all)) in &audit.pbtx_calls {
        let ordered = log.callers.get(id).map_or(0, |c| c.calls.last);
        let kept = audit.pbtx_kept.range((*id, ordered.saturating_add(1))..=(*id, u32::MAX)).count() as u64;
        let expected = match last.checked_sub(ordered) {
            None | Some(0) => 0,
            Some(ahead) if *all => u64::from(ahead),
            Some(_) => 1,
        };
        if kept < expected {
            findings.push(format!(
                "shard {shard} to the log, network {}, actor {}: expected {expected} orders kept up to seqnum {last}, found {kept}",
                id.0, id.1
            ));
        }
    }
}

/// What the log holds back and has voided is what the shard has frozen and voided.
fn recoveries(
    shard: u32,
    audit: &ShardAudit,
    log: &LogAudit,
    of_shard: impl Fn(&(u64, u64)) -> bool,
    findings: &mut Vec<String>,
) {
    let open = log.recoveries.iter().filter(|(id, _)| of_shard(id));
    if shard == 0 && (audit.frozen_notes != log.note_recoveries || audit.freed_notes != log.freed_notes) {
        let expected = (log.note_recoveries.len(), log.freed_notes.len());
        let found = (audit.frozen_notes.len(), audit.freed_notes.len());
        findings.push(format!(
            "shard 0: expected {expected:?} notes as frozen and freed as the log knows them, found {found:?}, or others"
        ));
    }
    if !open.clone().eq(audit.frozen.iter()) {
        let open: Vec<_> = open.collect();
        findings.push(format!("shard {shard}: expected accounts {open:?} as frozen, found {:?}", audit.frozen));
    }
    for (id, voided) in &audit.voided {
        let recovered = log.callers.get(id).map_or(0, |c| c.recovered);
        if voided.last().is_some_and(|v| *v > recovered) {
            let last = voided.last().copied().unwrap_or(0);
            findings.push(format!(
                "shard {shard}, actor {}: expected a recovery at {last} in the log, found the last one at {recovered}",
                id.1
            ));
        }
    }
    for (id, caller) in log.callers.iter().filter(|(id, _)| of_shard(id)) {
        let here = audit.voided.get(id).map_or(&[][..], |v| &v[..]);
        for seqnum in caller.voided.iter().filter(|v| !here.contains(v)) {
            findings.push(format!("shard {shard}, actor {}: expected seqnum {seqnum} voided, found it is not", id.1));
        }
    }
}
