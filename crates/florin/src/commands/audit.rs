//! `florin audit`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use florin_core::amount::format_amount;
use florin_core::authority::Authority;
use florin_core::authority::audit::{ShardAudit, audit_authority, audit_shard, money, notes};
use florin_core::authority::state::LOG;
use florin_core::committee::Committee;
use florin_core::ordered::OrderedLog;
use florin_core::ordered::audit::{LogAudit, audit_log};
use florin_core::signatures::AuthorityKey;
use florin_core::{Code, Error, Result};
use florin_node::config::{Config, read_committee};
use florin_node::storage::Store;
use serde_json::{Value, json};

use super::inspect::store::{log_folder, shard_folders};
use super::support::{fail_with_report, table};
use crate::output::Output;

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// The authority file; the authority must not be running
    #[arg(long, value_name = "FILE", required_unless_present = "committee")]
    config: Option<PathBuf>,
    /// The committee file, for a data folder without an authority file
    #[arg(long, value_name = "FILE", requires = "dir")]
    committee: Option<PathBuf>,
    /// The authority's data folder [default: the authority file's]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Don't verify the signatures in certificates: much faster
    #[arg(long)]
    no_signatures: bool,
}

/// Runs it.
pub fn run(args: Args, out: Output) -> Result<()> {
    let (committee, mut authority, data) = match &args.config {
        Some(path) => {
            let config = Config::read(path)?;
            (config.committee.clone(), Some(config.index), args.dir.unwrap_or(config.data))
        }
        None => {
            // clap asked for both.
            let (committee, dir) = (args.committee.unwrap_or_default(), args.dir.unwrap_or_default());
            (Arc::new(read_committee(&committee)?), None, dir)
        }
    };
    let folders = shard_folders(&data)?;
    let mut shards = Vec::new();
    for folder in &folders {
        out.detail(format_args!("auditing {}", folder.display()));
        let (found, number, audit) = shard(&committee, folder, !args.no_signatures)?;
        let expected = *authority.get_or_insert(found);
        if found != expected {
            let what = format!("authority of {}", folder.display());
            return Err(Error::expected(Code::BadFile, &what, expected, found));
        }
        if shards.iter().any(|(other, _)| *other == number) {
            return Err(Error::new(Code::BadFile, format!("{} has shard {number} twice", data.display())));
        }
        shards.push((number, audit));
    }
    shards.sort_by_key(|(shard, _)| *shard);
    let complete = shards.len() == committee.shards as usize;
    let log = match log_folder(&data).filter(|_| complete) {
        Some(folder) => {
            out.detail(format_args!("auditing {}", folder.display()));
            Some(log(&committee, &folder, authority, !args.no_signatures)?)
        }
        None => None,
    };
    let between = if complete { audit_authority(&shards, log.as_ref()) } else { Vec::new() };
    report(&committee, &shards, log.as_ref(), &between, out)
}

/// What the log's audit found.
fn log(committee: &Arc<Committee>, folder: &Path, authority: Option<u32>, signatures: bool) -> Result<LogAudit> {
    let store = Store::open_read_only(folder)?;
    let found = store.identity();
    let expected = (*committee.id(), authority.unwrap_or(found.authority), LOG);
    let known = (found.authority as usize) < committee.size();
    if !known || (found.committee_id, found.authority, found.shard) != expected {
        let message = format!("{}: belongs to authority {} shard {}", folder.display(), found.authority, found.shard);
        return Err(Error::new(Code::StorageCorrupt, message));
    }
    let key = Arc::new(AuthorityKey::from_seed([0; 32]));
    audit_log(&OrderedLog::new(committee.clone(), found.authority, key), &store, signatures)
}

/// Authority, shard, and what its audit found.
fn shard(committee: &Arc<Committee>, folder: &Path, signatures: bool) -> Result<(u32, u32, ShardAudit)> {
    let store = Store::open_read_only(folder)?;
    let found = store.identity();
    if found.committee_id != *committee.id() {
        let (expected, found) = (hex::encode(committee.id()), hex::encode(found.committee_id));
        return Err(Error::expected(
            Code::WrongCommittee,
            &format!("committee of {}", folder.display()),
            expected,
            found,
        ));
    }
    if found.authority as usize >= committee.size() || found.shard >= committee.shards {
        let message = format!("{}: belongs to authority {} shard {}", folder.display(), found.authority, found.shard);
        return Err(Error::new(Code::StorageCorrupt, message));
    }
    // An audit signs nothing.
    let key = Arc::new(AuthorityKey::from_seed([0; 32]));
    let authority = Authority::new(committee.clone(), found.authority, found.shard, key);
    Ok((found.authority, found.shard, audit_shard(&authority, &store, signatures)?))
}

fn report(
    committee: &Committee,
    shards: &[(u32, ShardAudit)],
    log: Option<&LogAudit>,
    between: &[String],
    out: Output,
) -> Result<()> {
    let amount = |minor: i128| format_amount(minor, committee.network.decimals);
    let head = ["shard", "batches", "orders", "credits", "accounts", "certificates", "balances", "genesis", "issued"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (shard, a) in shards {
        let counts = [u64::from(*shard), a.batches, a.orders, a.credits, a.accounts, a.certificates];
        let sums = [a.balances, a.genesis, a.issued].map(amount);
        rows.push(counts.iter().map(u64::to_string).chain(sums).collect());
    }
    let all = shards.len() == committee.shards as usize;
    let money = money(shards, log);
    let sum = money.sum();
    let mut text = table(&rows);
    if let Some(log) = log {
        text += &format!("\n\nlog: {} sessions closed, {} units open, {} orders", log.sessions, log.units, log.orders);
    }
    match all {
        true => {
            text += &format!("\n\naccounts, the issuer's included: {}", amount(money.accounts));
            text += &format!("\nnotes of e-cash: {}", amount(money.notes));
            for (tier, (issued, spent)) in notes(shards).iter().enumerate().filter(|(_, n)| **n != (0, 0)) {
                let worth = amount(1 << tier);
                text += &format!("\n  of {worth}: {issued} issued, {spent} spent");
                if spent > issued {
                    text += ": more than were issued; this authority lags, or more comes back than was made";
                }
            }
            text += &format!("\nin flight between shards: {}", amount(money.between_shards));
            let to_log = if log.is_some() { "in flight to the log" } else { "with the log, which is not here" };
            text += &format!("\n{to_log}: {}", amount(money.to_log));
            text += &format!("\nin flight from the log: {}", amount(money.from_log));
            for (name, held) in money.held.iter().filter(|(_, held)| *held != 0) {
                text += &format!("\nheld by {name}: {}", amount(*held));
            }
            text += &format!("\nsum {}", if sum == 0 { "0".into() } else { amount(sum) });
        }
        false => {
            text +=
                &format!("\n\n{} of {} shards are here; sums over all shards need all", shards.len(), committee.shards);
        }
    }
    let mut total = between.len() as u64;
    let found = shards.iter().map(|(shard, a)| (format!("shard {shard}: "), &a.findings, a.findings_total));
    // The log's findings say so themselves.
    let found = found.chain(log.map(|log| (String::new(), &log.findings, log.findings_total)));
    for (whose, findings, findings_total) in found {
        total += findings_total;
        findings.iter().for_each(|finding| text += &format!("\n{whose}{finding}"));
        let left = findings_total - findings.len() as u64;
        if left > 0 {
            text += &format!("\n{whose}{left} more findings");
        }
    }
    between.iter().for_each(|finding| text += &format!("\n{finding}"));
    let held: serde_json::Map<String, Value> =
        money.held.iter().map(|(name, held)| ((*name).to_owned(), held.to_string().into())).collect();
    let value = json!({
        "shards": shards.iter().map(|(shard, a)| shard_json(*shard, a)).collect::<Vec<_>>(),
        "log": log.map(|l| json!({"sessions": l.sessions, "units": l.units, "orders": l.orders, "findings": l.findings,
            "findings_total": l.findings_total})),
        "complete": all,
        "accounts": money.accounts.to_string(),
        "notes": money.notes.to_string(),
        "notes_by_tier": notes(shards).iter().map(|(issued, spent)| json!({"issued": issued, "spent": spent}))
            .collect::<Vec<_>>(),
        "in_flight": money.between_shards.to_string(),
        "to_log": money.to_log.to_string(),
        "from_log": money.from_log.to_string(),
        "held": held,
        "sum": all.then(|| sum.to_string()),
        "between_shards": between,
        "findings": total,
    });
    if total == 0 {
        out.data(text + "\nnothing is off", &value);
        return Ok(());
    }
    fail_with_report(out, &text, value, &Error::new(Code::AuditFailed, format!("{total} findings")))
}

fn shard_json(shard: u32, a: &ShardAudit) -> Value {
    json!({"shard": shard, "batches": a.batches, "orders": a.orders, "credits": a.credits, "accounts": a.accounts,
        "certificates": a.certificates, "balances": a.balances.to_string(), "debited": a.debited.to_string(),
        "genesis": a.genesis.to_string(), "issued": a.issued.to_string(), "findings": a.findings,
        "findings_total": a.findings_total})
}
