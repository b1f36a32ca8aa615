//! Files: committee, wallet, receipt, envelope.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use florin_client::keystore::{Keystore, curve_name};
use florin_client::receipt_file;
use florin_core::amount::format_amount;
use florin_core::envelope::Order;
use florin_core::limits::MESSAGE_BYTES_MAX;
use florin_core::{Code, Error, Result};
use florin_node::config::read_committee;
use serde_json::{Value, json};

use super::order::{Money, describe, keys};
use crate::commands::support::{fields, table};
use crate::output::Output;

/// `inspect committee`.
pub fn committee(file: &Path, out: Output) -> Result<()> {
    let c = read_committee(file)?;
    let n = &c.network;
    let limit = format_amount(n.issuer_limit.into(), n.decimals);
    let issuer = n.issuer_address().to_text(&n.currency);
    let head = fields(&[
        ("id", hex::encode(c.id())),
        ("epoch", c.epoch.to_string()),
        ("authorities", format!("{}, survives {}, quorum {}", c.size(), c.faults(), c.quorum())),
        ("shards", c.shards.to_string()),
        ("network", n.id.to_string()),
        ("currency", format!("{}, {} decimals", n.currency, n.decimals)),
        ("issuer", issuer.clone()),
        ("issuer's permission", keys(&n.issuer)),
        ("issuer's limit", limit.clone()),
        ("genesis sha256", hex::encode(n.genesis_hash)),
    ]);
    let mut rows = vec![["#", "name", "key", "addresses"].map(str::to_owned).to_vec()];
    for (i, a) in c.authorities.iter().enumerate() {
        rows.push(vec![i.to_string(), a.name.clone(), a.key.to_string(), a.addresses.join(" ")]);
    }
    let authorities =
        c.authorities.iter().map(|a| json!({"name": a.name, "key": a.key.to_string(), "addresses": a.addresses}));
    let value = json!({"id": hex::encode(c.id()), "epoch": c.epoch, "shards": c.shards, "faults": c.faults(),
        "quorum": c.quorum(), "network_id": n.id.to_string(), "currency": n.currency, "decimals": n.decimals,
        "issuer": hex::encode(&n.issuer), "issuer_address": issuer, "issuer_limit": limit,
        "issuer_limit_minor": n.issuer_limit.to_string(), "genesis_sha256": hex::encode(n.genesis_hash),
        "authorities": authorities.collect::<Vec<_>>()});
    out.data(format_args!("{head}\n\n{}", table(&rows)), &value);
    Ok(())
}

/// `inspect wallet`.
pub fn wallet(file: &Path, out: Output) -> Result<()> {
    let keystore = Keystore::open(file)?;
    let meta = keystore.meta();
    let head = fields(&[
        ("network", meta.network_id.to_string()),
        ("currency", format!("{}, {} decimals", meta.currency, meta.decimals)),
        ("curve", curve_name(meta.curve).into()),
    ]);
    let mut rows = vec![["account", "address", "label", "public key"].map(str::to_owned).to_vec()];
    let mut accounts = Vec::new();
    for account in 0..keystore.accounts() {
        let address = keystore.address(account)?.to_text(&meta.currency);
        let key = keystore.public_keys()[account as usize].to_string();
        let label = keystore.labels().get(&account).cloned().unwrap_or_default();
        accounts.push(json!({"account": account, "address": address, "label": label, "public_key": key}));
        rows.push(vec![account.to_string(), address, label, key]);
    }
    let value = json!({"network_id": meta.network_id.to_string(), "currency": meta.currency,
        "decimals": meta.decimals, "curve": curve_name(meta.curve), "accounts": accounts});
    out.data(format_args!("{head}\n\n{}", table(&rows)), &value);
    Ok(())
}

/// `inspect receipt`.
pub fn receipt(file: &Path, money: &Money, out: Output) -> Result<()> {
    let receipt = receipt_file::load(file)?;
    let order = Order::decode(receipt.transaction.clone())?;
    let (text, order) = describe(&order, money);
    let signers = |signed: &[florin_core::wire::Signed]| -> Vec<u32> { signed.iter().map(|s| s.authority).collect() };
    let (votes, acknowledgements) = (signers(&receipt.votes), signers(&receipt.acknowledgements));
    let head = fields(&[
        ("committee", hex::encode(&receipt.committee_id)),
        ("epoch", receipt.epoch.to_string()),
        ("place in its batch", format!("{} of {}", receipt.index, receipt.count)),
        ("votes of authorities", format!("{votes:?}")),
        ("acknowledgements of", format!("{acknowledgements:?}")),
    ]);
    let value = json!({"committee_id": hex::encode(&receipt.committee_id), "epoch": receipt.epoch,
        "index": receipt.index, "count": receipt.count, "path": receipt.path.iter().map(hex::encode).collect::<Vec<_>>(),
        "votes": votes, "acknowledgements": acknowledgements, "order": order, "verified": false});
    out.data(format_args!("{head}\n\n{text}\n\nnot verified: florin receipt verify does that"), &value);
    Ok(())
}

/// `inspect envelope`.
pub fn envelope(text: &str, money: &Money, out: Output) -> Result<()> {
    let (text, value): (String, Value) = describe(&Order::decode(envelope_bytes(text)?)?, money);
    out.data(text, &value);
    Ok(())
}

fn envelope_bytes(text: &str) -> Result<Bytes> {
    if let Ok(bytes) = hex::decode(text) {
        return Ok(bytes.into());
    }
    let bad = |e: std::io::Error| Error::new(Code::BadFile, format!("{text:.80}: neither hex digits nor a file: {e}"));
    let mut content = Vec::new();
    File::open(text).and_then(|f| f.take(MESSAGE_BYTES_MAX as u64).read_to_end(&mut content)).map_err(bad)?;
    let as_text = std::str::from_utf8(&content).ok().and_then(|text| hex::decode(text.trim()).ok());
    Ok(as_text.unwrap_or(content).into())
}
