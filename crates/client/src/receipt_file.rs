//! The receipt file: a receipt that people can hand around, as JSON.
//!
//! Only its `receipt` field counts: the protobuf message in hex. Whatever else stands there is for people who open
//! the file in an editor; it is written once and never read, since anybody could have changed it.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;

use bytes::Bytes;
use florin_core::amount::format_amount;
use florin_core::bitmap::Bitmap;
use florin_core::committee::Committee;
use florin_core::content::{Action, Content};
use florin_core::envelope::Order;
use florin_core::{Code, Error, Result, wire};
use prost::Message;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::files;
use crate::wallet::describe;

const VERSION: u32 = 1;
/// Bytes of a receipt file: far above the largest receipt of the largest committee.
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
struct Form {
    florin_receipt: u32,
    receipt: String,
    /// For people.
    #[serde(flatten)]
    readable: Map<String, Value>,
}

/// Writes a receipt (mode 0600), durably. A file with a receipt for the same order is replaced.
/// Errors: `ALREADY_EXISTS` if anything else is there, those of [`readable`], `BAD_FILE`, `IO`.
pub fn save(path: &Path, receipt: &wire::Receipt, committee: &Committee) -> Result<()> {
    let path = &files::resolve(path)?;
    match fs::symlink_metadata(path) {
        Ok(_) => {
            let same = |old: wire::Receipt| body_of(&old).is_some() && body_of(&old) == body_of(receipt);
            if !load(path).is_ok_and(same) {
                let message = format!("{} exists and is not a receipt for this order", path.display());
                return Err(Error::new(Code::AlreadyExists, message));
            }
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(files::io("look at", path, &e)),
    }
    let mut readable = Map::new();
    readable.insert("note".into(), "Only `receipt` counts; check it with `florin receipt verify`.".into());
    if let Value::Object(fields) = self::readable(receipt, committee)? {
        readable.extend(fields);
    }
    let form = Form { florin_receipt: VERSION, receipt: hex::encode(receipt.encode_to_vec()), readable };
    let mut text = serde_json::to_vec_pretty(&form).expect("texts and numbers are always JSON");
    text.push(b'\n');
    let staged = files::stage(path, &text)?;
    files::publish(&staged, path)
}

/// Reads a receipt; it is not verified ([`florin_core::receipt::verify`] does that).
/// Errors: `BAD_FILE` if the file can't be read or is no receipt file.
pub fn load(path: &Path) -> Result<wire::Receipt> {
    let bad = |message: String| Error::new(Code::BadFile, format!("{}: {message}", path.display()));
    let file = fs::File::open(path).map_err(|e| bad(e.to_string()))?;
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(|e| bad(e.to_string()))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(bad(format!("expected at most {FILE_BYTES_MAX} bytes, found more")));
    }
    parse(&text).map_err(bad)
}

/// The receipt in a file's bytes. An error is the problem alone.
#[doc(hidden)]
pub fn parse(text: &[u8]) -> std::result::Result<wire::Receipt, String> {
    #[derive(Deserialize)]
    struct Probe {
        florin_receipt: u32,
    }
    let probe: Probe = serde_json::from_slice(text).map_err(|e| format!("not a Florin receipt: {e}"))?;
    if probe.florin_receipt != VERSION {
        return Err(format!("version of the receipt file: expected {VERSION}, found {}", probe.florin_receipt));
    }
    let form: Form = serde_json::from_slice(text).map_err(|e| format!("not a Florin receipt: {e}"))?;
    let bytes = hex::decode(form.receipt.trim()).map_err(|e| format!("receipt: expected hex digits: {e}"))?;
    wire::Receipt::decode(Bytes::from(bytes)).map_err(|e| format!("receipt: {e}"))
}

/// What a receipt says, for people and programs: order id, payer, outputs, memo, epoch, and how many authorities
/// signed. It is recomputed from the signed order, and proves nothing until the receipt was verified.
/// Errors: those of decoding the order and its content.
pub fn readable(receipt: &wire::Receipt, committee: &Committee) -> Result<Value> {
    let order = Order::decode(receipt.transaction.clone())?;
    let network = &committee.network;
    if order.network_id != network.id {
        return Ok(of_pbtx(receipt, &order, committee));
    }
    let content = Content::decode(&order)?;
    let amount = |minor: u64| format_amount(minor.into(), network.decimals);
    let outputs = content.credits().iter().map(|credit| {
        json!({
            "address": credit.address.to_text(&network.currency),
            "amount": amount(credit.amount),
            "amount_minor": credit.amount.to_string(),
        })
    });
    let operations = match &content.action {
        Action::Call { call, .. } => describe(call, committee),
        _ => Vec::new(),
    };
    Ok(json!({
        "order_id": hex::encode(order.id),
        "network_id": order.network_id.to_string(),
        "action": content.action.name(),
        "payer": order.actor.to_string(),
        "seqnum": order.seqnum,
        "currency": network.currency,
        "total": amount(content.total),
        "outputs": outputs.collect::<Vec<_>>(),
        "notes": content.notes.iter().map(|note| note.worth().to_string()).collect::<Vec<_>>(),
        "operations": operations,
        "proves": if matches!(content.action, Action::Call { .. }) { "what left the account" } else { "all of it" },
        "memo": content.memo(),
        "epoch": receipt.epoch,
        "authorities": committee.size(),
        "quorum": committee.quorum(),
        "votes": with_order(receipt, &receipt.votes),
        "acknowledgements": with_order(receipt, &receipt.acknowledgements),
    }))
}

/// A transaction of a PBTX network, whose content only its listeners understand.
fn of_pbtx(receipt: &wire::Receipt, order: &Order, committee: &Committee) -> Value {
    json!({
        "order_id": hex::encode(order.id),
        "network_id": order.network_id.to_string(),
        "action": "pbtx",
        "payer": order.actor.to_string(),
        "cosignors": order.cosignors.iter().map(u64::to_string).collect::<Vec<_>>(),
        "seqnum": order.seqnum,
        "transaction_type": order.transaction_type,
        "transaction_content": hex::encode(&order.content),
        "epoch": receipt.epoch,
        "authorities": committee.size(),
        "quorum": committee.quorum(),
        "votes": with_order(receipt, &receipt.votes),
        "acknowledgements": with_order(receipt, &receipt.acknowledgements),
    })
}

/// How many of these say something of the receipt's order.
fn with_order(receipt: &wire::Receipt, signed: &[wire::Signed]) -> usize {
    let has = |s: &&wire::Signed| {
        Bitmap::parse(&s.bitmap, receipt.count as usize).is_ok_and(|b| b.get(receipt.index as usize))
    };
    signed.iter().filter(has).count()
}

fn body_of(receipt: &wire::Receipt) -> Option<[u8; 32]> {
    Order::decode(receipt.transaction.clone()).ok().map(|order| order.id)
}

#[cfg(test)]
#[path = "receipt_file_tests.rs"]
mod tests;
