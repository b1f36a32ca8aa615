//! `florin evidence`.

use std::path::PathBuf;

use clap::Subcommand;
use florin_client::receipt_file;
use florin_core::{Result, evidence};
use florin_node::config::read_committee;
use serde_json::json;

use super::support::fields;
use crate::output::Output;

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Name the authorities that have signed two orders that exclude each other; needs no network
    ///
    /// An authority keeps such receipts in the folder `evidence` of its data folder. Any two receipts will do, complete or
    /// not: of payments with the same seqnum, or that spend the same note.
    Check(CheckArgs),
}

/// Options of `evidence check`.
#[derive(clap::Args)]
pub struct CheckArgs {
    /// A receipt file
    first: PathBuf,
    /// A receipt file for another order
    second: PathBuf,
    /// The committee file, from someone you trust: whoever wrote it decides whose keys these are
    #[arg(long, env = "FLORIN_COMMITTEE", value_name = "FILE", default_value = "committee.toml")]
    committee: PathBuf,
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    let Command::Check(args) = command;
    let committee = read_committee(&args.committee)?;
    let receipts = [receipt_file::load(&args.first)?, receipt_file::load(&args.second)?];
    let found = evidence::check(&committee, [&receipts[0], &receipts[1]])?;
    let ids = found.orders.each_ref().map(|order| hex::encode(order.id));
    let guilty = found.guilty.iter().map(|i| &committee.authorities[*i as usize]);
    let names: Vec<String> = guilty.map(|authority| format!("{} (key {})", authority.name, authority.key)).collect();
    let order = &found.orders[0];
    let rows = [
        ("order", ids[0].clone()),
        ("excludes", ids[1].clone()),
        (
            "of",
            if order.actor == 0 {
                "bearers of one note".into()
            } else {
                format!("actor {}, seqnum {}", order.actor, order.seqnum)
            },
        ),
        ("signed by both", names.join(", ")),
    ];
    let more = if found.guilty.len() > committee.faults() {
        format!(
            "more than the {} that this committee survives: stop, and found a new one without them",
            committee.faults()
        )
    } else {
        format!("no more than the {} that this committee survives", committee.faults())
    };
    let text =
        format!("{}\n{} of {} authorities are proved guilty, {more}", fields(&rows), names.len(), committee.size());
    let value = json!({
        "orders": ids, "guilty": found.guilty.iter().map(|i| json!({
            "authority": i, "name": committee.authorities[*i as usize].name, "key": committee.authorities[*i as usize].key.to_string(),
        })).collect::<Vec<_>>(),
        "survives": committee.faults(),
    });
    out.data(text, &value);
    Ok(())
}
