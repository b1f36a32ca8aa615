//! `florin network history`.

use std::io::Write as _;
use std::path::PathBuf;

use florin_client::pbtx::{Row, history};
use florin_client::time::utc;
use florin_core::envelope::Order;
use florin_core::limits::PAGE_MAX;
use florin_core::permission::Permission;
use florin_core::wire::history_row::Event;
use florin_core::{Code, Error, Result, pbtx};
use prost::Message;
use serde_json::{Value, json};

use crate::commands::support::{PUBLIC, need_vacant, table, write_new};
use crate::commands::wallet::{Question, block_on};
use crate::output::Output;

/// Options of `network history`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    question: Question,
    /// The network's id
    #[arg(value_name = "NETWORK")]
    network_id: u64,
    /// The first row wanted
    #[arg(long, value_name = "ID", default_value_t = 1)]
    from: u64,
    /// The most rows; 0 gives all. 100 if nothing is exported
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// The authority whose ids count, by name; the first that answers otherwise. With the flag ordered all have the same
    #[arg(long, value_name = "NAME")]
    authority: Option<String>,
    /// Write the transactions to this new file: TransactionHistoryEntry messages, each after its length as a varint
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
}

/// `network history`.
pub fn run(args: &Args, out: Output) -> Result<()> {
    let committee = args.question.committee()?;
    need_vacant(&args.export)?;
    let named = |name: &String| {
        let found = committee.authorities.iter().position(|a| a.name == *name);
        found.ok_or_else(|| Error::expected(Code::Usage, "--authority", "the name of one of the committee", name))
    };
    let authority = args.authority.as_ref().map(named).transpose()?;
    let limit = args.limit.unwrap_or(if args.export.is_some() { 0 } else { 100 });
    let (rows, of, next, unsettled) = block_on(async {
        let network = args.question.network(&committee);
        let (mut rows, mut of, mut from): (Vec<Row>, _, _) = (Vec::new(), authority, args.from.max(1));
        loop {
            let room = if limit == 0 { PAGE_MAX } else { (limit - rows.len()).min(PAGE_MAX) };
            let page = history(&network, args.network_id, of, from, room as u32).await?;
            // Ids of one authority mean nothing at another.
            of = Some(page.authority);
            from = page.next;
            rows.extend(page.rows);
            if page.next == 0 || page.unsettled.is_some() || (limit > 0 && rows.len() >= limit) {
                return Ok((rows, page.authority, page.next, page.unsettled));
            }
        }
    })?;
    let name = &committee.authorities[of].name;
    if let Some(id) = unsettled {
        out.note(format_args!(
            "row {id} of {name} is not known to {} authorities; stopped before it",
            committee.quorum()
        ));
    }
    if let Some(path) = &args.export {
        let (bytes, count) = export(&rows);
        write_new(path, &bytes, PUBLIC)?;
        let value = json!({"file": path, "entries": count, "authority": name, "next": id_or_null(next)});
        out.data(format!("{count} transactions written to {}", path.display()), &value);
        return Ok(());
    }
    let mut lines = vec![["id", "time", "event", "what"].map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(line));
    let mut shown = if rows.is_empty() { "no rows".to_owned() } else { table(&lines) };
    shown.push_str(&format!("\n\nids of {name}; times are medians of at least {} authorities", committee.quorum()));
    if next != 0 {
        shown.push_str(&format!("\nmore: --from {next} --authority {name}"));
    }
    let values: Vec<Value> = rows.iter().map(value).collect();
    out.data(shown, &json!({"rows": values, "authority": name, "next": id_or_null(next)}));
    Ok(())
}

fn id_or_null(id: u64) -> Value {
    if id == 0 { Value::Null } else { id.to_string().into() }
}

fn export(rows: &[Row]) -> (Vec<u8>, usize) {
    let mut bytes = Vec::new();
    let entries = rows.iter().filter(|row| row.event == Event::Exectrx);
    let count = entries.clone().count();
    for row in entries {
        let entry = pbtx::TransactionHistoryEntry {
            transaction: row.data.clone(),
            backend_timestamp: row.time_us,
            backend_trxid: row.trx_id.clone(),
        };
        let _ = bytes.write_all(&entry.encode_length_delimited_to_vec());
    }
    (bytes, count)
}

fn event(event: Event) -> &'static str {
    match event {
        Event::Unknown => "UNKNOWN",
        Event::Netmetadata => "NETMETADATA",
        Event::Regactor => "REGACTOR",
        Event::Unregactor => "UNREGACTOR",
        Event::Exectrx => "EXECTRX",
    }
}

/// The actor that a row is about.
fn actor(row: &Row) -> Option<u64> {
    match row.event {
        Event::Regactor => Permission::decode(&row.data).ok().map(|p| p.actor),
        Event::Unregactor => <[u8; 8]>::try_from(&row.data[..]).ok().map(u64::from_be_bytes),
        Event::Exectrx => Order::decode(row.data.clone()).ok().map(|o| o.actor),
        Event::Netmetadata | Event::Unknown => None,
    }
}

fn line(row: &Row) -> Vec<String> {
    let about = actor(row).map(|actor| format!("actor {actor}")).unwrap_or_default();
    let what = match row.event {
        Event::Netmetadata => {
            String::from_utf8_lossy(&row.data).chars().take(64).collect::<String>().escape_debug().to_string()
        }
        Event::Exectrx => match Order::decode(row.data.clone()) {
            Ok(o) => format!("{about} seqnum {} type {}, {} bytes", o.seqnum, o.transaction_type, o.content.len()),
            Err(_) => String::new(),
        },
        _ => about,
    };
    vec![row.id.to_string(), utc(row.time_us / 1_000), event(row.event).to_owned(), what]
}

fn value(row: &Row) -> Value {
    let mut value = json!({"id": row.id.to_string(), "event": event(row.event), "event_type": row.event as i32,
        "data": hex::encode(&row.data), "trx_id": hex::encode(&row.trx_id),
        "backend_timestamp": row.time_us.to_string(), "agreeing": row.agreeing,
        "actor": actor(row).map(|a| a.to_string())});
    if let (Event::Exectrx, Ok(order)) = (row.event, Order::decode(row.data.clone())) {
        (value["seqnum"], value["transaction_type"]) = (order.seqnum.into(), order.transaction_type.into());
        value["transaction_content"] = hex::encode(&order.content).into();
    }
    value
}
