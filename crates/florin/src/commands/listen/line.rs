//! A transaction as people and programs read it.

use std::io::Write;

use florin_client::listener::{Delivery, Key, Proof};
use florin_client::time::utc;
use florin_core::{Code, Error, Result};
use serde_json::{Value, json};

use crate::output::Output;

/// The transaction as JSON: ids are decimal strings, bytes are hex.
pub fn json_of(delivery: &Delivery) -> Value {
    let order = &delivery.order;
    let cosignors: Vec<String> = order.cosignors.iter().map(u64::to_string).collect();
    let mut value = json!({
        "network_id": order.network_id.to_string(),
        "actor": order.actor.to_string(),
        "seqnum": order.seqnum,
        "cosignors": cosignors,
        "transaction_type": order.transaction_type,
        "content": hex::encode(&order.content),
        "order_id": hex::encode(order.id),
        "time_us": delivery.time_us,
        "proved_by": match &delivery.proof {
            Proof::Certificate(_) => "certificate".into(),
            Proof::Receipt(_) => "receipt".into(),
            Proof::Agreed(n) => format!("{n} authorities"),
        },
    });
    if let Value::Object(fields) = &mut value {
        if let Some(position) = delivery.position {
            fields.insert("position".into(), position.into());
        }
        if let Some(transaction) = &delivery.transaction {
            fields.insert("transaction".into(), hex::encode(transaction).into());
        }
    }
    value
}

/// Which transaction a line is of, and its position; `None` if it is no such line.
pub fn read(line: &str) -> Option<(Key, Option<u64>)> {
    let value: Value = serde_json::from_str(line).ok()?;
    let id = |name: &str| value.get(name)?.as_str()?.parse::<u64>().ok();
    let mut order_id = [0; 32];
    hex::decode_to_slice(value.get("order_id")?.as_str()?, &mut order_id).ok()?;
    let seqnum = u32::try_from(value.get("seqnum")?.as_u64()?).ok()?;
    let key = Key { network_id: id("network_id")?, actor: id("actor")?, seqnum, order_id };
    Some((key, value.get("position").and_then(Value::as_u64)))
}

/// Prints transactions on stdout, a line each. Errors: `IO`, also when nobody reads any more.
pub fn print(deliveries: &[Delivery], out: Output) -> Result<()> {
    let mut text = String::new();
    for delivery in deliveries {
        let line = if out.json { json_of(delivery).to_string() } else { for_people(delivery) };
        text.push_str(&line);
        text.push('\n');
    }
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|e| Error::new(Code::Io, format!("cannot write to stdout: {e}")))
}

fn for_people(delivery: &Delivery) -> String {
    let order = &delivery.order;
    let mut line = utc(delivery.time_us / 1_000);
    if let Some(position) = delivery.position {
        line += &format!("  #{position}");
    }
    line += &format!("  actor {}  {}  type {}", order.actor, order.seqnum, order.transaction_type);
    if !order.cosignors.is_empty() {
        let cosignors: Vec<String> = order.cosignors.iter().map(u64::to_string).collect();
        line += &format!("  with {}", cosignors.join(", "));
    }
    if !order.content.is_empty() {
        line += &format!("  {}", hex::encode(&order.content));
    }
    line
}
