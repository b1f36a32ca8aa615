//! `florin network show` and `list`.

use florin_client::pbtx;
use florin_core::committee::Committee;
use florin_core::limits::PAGE_MAX;
use florin_core::{Code, Error, Result, wire};
use serde_json::{Value, json};

use super::rules::flag_names;
use super::text;
use crate::commands::support::{fields, table};
use crate::commands::wallet::{Question, block_on};
use crate::output::Output;

/// Options of `network show`.
#[derive(clap::Args)]
pub struct ShowArgs {
    #[command(flatten)]
    question: Question,
    /// The network's id
    #[arg(value_name = "NETWORK")]
    network_id: u64,
}

/// Options of `network list`.
#[derive(clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    question: Question,
    /// The first id wanted
    #[arg(long, value_name = "NETWORK", default_value_t = 1)]
    from: u64,
    /// The most networks to list; 0 lists all
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

/// `network show`.
pub fn show(args: &ShowArgs, out: Output) -> Result<()> {
    let committee = args.question.committee()?;
    let (record, agreeing) = block_on(async { args.question.network(&committee).registered(args.network_id).await })?;
    let Some(record) = record else {
        let message = format!("network {} was never registered", args.network_id);
        return Err(Error::new(Code::UnknownNetwork, message));
    };
    let mut value = registered(args.network_id, &record, &committee);
    (value["agreeing"], value["authorities"]) = (agreeing.into(), committee.size().into());
    let metadata = value["metadata"].as_str().unwrap_or_default();
    let mut rows = vec![
        ("network", args.network_id.to_string()),
        ("state", if record.removed { "removed" } else { "registered" }.to_owned()),
        ("admin", text(&record.admin, &committee)),
        ("offered to", text(&record.offered, &committee)),
        ("flags", flags(record.flags)),
        // It is the admin's text: control characters stay out of the terminal.
        ("metadata", metadata.escape_debug().to_string()),
        ("actors", format!("{}{}", record.actors, if record.open { ", who register themselves" } else { "" })),
    ];
    rows.extend(record.listeners.iter().map(|l| ("listener", text(l, &committee))));
    for precheck in &record.prechecks {
        let asks = precheck.precheck.as_ref().map(asks).unwrap_or_default();
        rows.push(("precheck", format!("{asks}, asks {}", text(&precheck.by, &committee))));
    }
    rows.push(("agreeing", format!("{agreeing} of {} authorities", committee.size())));
    rows.retain(|(_, text)| !text.is_empty());
    out.data(fields(&rows), &value);
    Ok(())
}

/// A network of the registry for programs.
fn registered(network_id: u64, record: &wire::NetworkRecord, committee: &Committee) -> Value {
    let metadata = String::from_utf8_lossy(&record.metadata).into_owned();
    let listeners: Vec<String> = record.listeners.iter().map(|l| text(l, committee)).collect();
    let prechecks: Vec<Value> = record.prechecks.iter().map(|p| precheck(p, committee)).collect();
    json!({"network_id": network_id.to_string(), "state": if record.removed { "removed" } else { "registered" },
        "admin": text(&record.admin, committee), "offered": text(&record.offered, committee),
        "flags": record.flags, "flag_names": flag_names(record.flags), "open": record.open,
        "metadata": metadata, "metadata_hex": hex::encode(&record.metadata), "listeners": listeners,
        "prechecks": prechecks, "actors": record.actors})
}

fn precheck(entry: &wire::NetworkPrecheck, committee: &Committee) -> Value {
    let precheck = entry.precheck.clone().unwrap_or_default();
    let types: Vec<[u32; 2]> = precheck.types.iter().map(|t| [t.first, t.last]).collect();
    let actors: Vec<String> = precheck.actors.iter().map(u64::to_string).collect();
    json!({"by": text(&entry.by, committee), "types": types, "content_max": precheck.content_max, "actors": actors})
}

fn asks(precheck: &wire::Precheck) -> String {
    let mut parts = Vec::new();
    if !precheck.types.is_empty() {
        let range = |t: &wire::TypeRange| match t.first == t.last {
            true => t.first.to_string(),
            false => format!("{}-{}", t.first, t.last),
        };
        parts.push(format!("types {}", precheck.types.iter().map(range).collect::<Vec<_>>().join(" ")));
    }
    if precheck.content_max > 0 {
        parts.push(format!("content of at most {} bytes", precheck.content_max));
    }
    if !precheck.actors.is_empty() {
        let actors: Vec<String> = precheck.actors.iter().map(u64::to_string).collect();
        parts.push(format!("actors {}", actors.join(" ")));
    }
    parts.join(", ")
}

fn flags(flags: u32) -> String {
    match flags {
        0 => "0".to_owned(),
        _ => format!("{flags:#x} ({})", flag_names(flags).join(", ")),
    }
}

/// `network list`.
pub fn list(args: &ListArgs, out: Output) -> Result<()> {
    let committee = args.question.committee()?;
    let (networks, next) = block_on(async {
        let network = args.question.network(&committee);
        let (mut networks, mut from) = (Vec::new(), args.from.max(1));
        while from != 0 && (args.limit == 0 || networks.len() < args.limit) {
            let room = if args.limit == 0 { PAGE_MAX } else { (args.limit - networks.len()).min(PAGE_MAX) };
            let (some, next) = pbtx::networks(&network, from, room as u32).await?;
            networks.extend(some);
            from = next;
        }
        Ok((networks, from))
    })?;
    let mut rows = vec![["network", "actors", "flags", "open", "admin", "metadata"].map(str::to_owned).to_vec()];
    let mut values = Vec::new();
    for listed in &networks {
        let record = listed.network.clone().unwrap_or_default();
        let metadata: String = String::from_utf8_lossy(&record.metadata).chars().take(32).collect();
        rows.push(vec![
            listed.network_id.to_string(),
            record.actors.to_string(),
            flag_names(record.flags).join(","),
            if record.open { "open" } else { "" }.to_owned(),
            text(&record.admin, &committee),
            metadata.escape_debug().to_string(),
        ]);
        values.push(registered(listed.network_id, &record, &committee));
    }
    let next = (next != 0).then(|| next.to_string());
    let mut shown = if values.is_empty() { "no networks".to_owned() } else { table(&rows) };
    if let Some(next) = &next {
        shown.push_str(&format!("\nmore: florin network list --from {next}"));
    }
    out.data(shown, &json!({"networks": values, "next": next}));
    Ok(())
}
