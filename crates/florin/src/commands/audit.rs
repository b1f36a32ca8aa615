//! `florin audit`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use florin_core::amount::format_amount;
use florin_core::authority::Authority;
use florin_core::authority::audit::{ShardAudit, audit_authority, audit_shard};
use florin_core::committee::Committee;
use florin_core::signatures::AuthorityKey;
use florin_core::{Code, Error, Result};
use florin_node::config::{Config, read_committee};
use florin_node::storage::Store;
use serde_json::{Value, json};

use super::inspect::store::shard_folders;
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
    let between = match shards.len() == committee.shards as usize {
        true => audit_authority(&shards, None),
        false => Vec::new(),
    };
    report(&committee, &shards, &between, out)
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

fn report(committee: &Committee, shards: &[(u32, ShardAudit)], between: &[String], out: Output) -> Result<()> {
    let amount = |minor: i128| format_amount(minor, committee.network.decimals);
    let head = ["shard", "batches", "orders", "credits", "accounts", "certificates", "balances", "genesis", "issued"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (shard, a) in shards {
        let counts = [u64::from(*shard), a.batches, a.orders, a.credits, a.accounts, a.certificates];
        let sums = [a.balances, a.genesis, a.issued].map(amount);
        rows.push(counts.iter().map(u64::to_string).chain(sums).collect());
    }
    let all = shards.len() == committee.shards as usize;
    let in_flight = in_flight(shards);
    let accounts: i128 = shards.iter().map(|(_, a)| a.balances).sum();
    let sum = accounts + in_flight;
    let mut text = table(&rows);
    match all {
        true => {
            text += &format!(
                "\n\naccounts, the issuer's included: {}\nin flight between shards: {}\nsum {}",
                amount(accounts),
                amount(in_flight),
                if sum == 0 { "0".into() } else { amount(sum) }
            );
        }
        false => {
            text +=
                &format!("\n\n{} of {} shards are here; sums over all shards need all", shards.len(), committee.shards);
        }
    }
    let mut total = between.len() as u64;
    for (shard, a) in shards {
        total += a.findings_total;
        a.findings.iter().for_each(|finding| text += &format!("\nshard {shard}: {finding}"));
        let left = a.findings_total - a.findings.len() as u64;
        if left > 0 {
            text += &format!("\nshard {shard}: {left} more findings");
        }
    }
    between.iter().for_each(|finding| text += &format!("\n{finding}"));
    let value = json!({
        "shards": shards.iter().map(|(shard, a)| shard_json(*shard, a)).collect::<Vec<_>>(),
        "complete": all,
        "accounts": accounts.to_string(),
        "in_flight": in_flight.to_string(),
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

/// Debited at one shard and not yet credited at the other, minor units.
fn in_flight(shards: &[(u32, ShardAudit)]) -> i128 {
    let mut sum = 0;
    for (from, sender) in shards {
        for ((to, sequence), flow) in &sender.outbox {
            let receiver = shards.iter().find(|(shard, _)| shard == to);
            let applied = receiver.and_then(|(_, a)| a.applied.get(from)).copied().unwrap_or(0);
            if *sequence > applied {
                sum += flow.amount;
            }
        }
    }
    sum
}
