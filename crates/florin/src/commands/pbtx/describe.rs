//! `florin pbtx show`: envelopes, bodies and permissions for people and for programs.

use bytes::Bytes;
use florin_core::envelope::Order;
use florin_core::eosio::{curve_name, public_to_text};
use florin_core::keys::Signature;
use florin_core::permission::Permission;
use florin_core::verdict::check_authorities;
use florin_core::{Code, Error, Result};
use serde_json::{Value, json};

use super::input;
use crate::commands::support::{fail_with_report, fields};
use crate::output::Output;

/// Options of `pbtx show`.
#[derive(clap::Args)]
pub struct Args {
    /// An envelope (Transaction), a body (TransactionBody) or a Permission: hex digits, or a file with hex digits or the
    /// bytes themselves
    bytes: String,
    /// Permission of the actor or a cosignor; once all are given, the signatures are checked
    #[arg(long, value_name = "HEX|FILE")]
    permission: Vec<String>,
}

/// `pbtx show`.
pub fn run(args: &Args, out: Output) -> Result<()> {
    let bytes = input::bytes("envelope, body or permission", &args.bytes)?;
    if bytes.is_empty() {
        return Err(Error::new(Code::BadFile, "expected an envelope, a body or a permission, found no bytes"));
    }
    let decoded = args.permission.iter().map(|text| Permission::decode_actor(&input::bytes("--permission", text)?));
    let permissions = decoded.collect::<Result<Vec<_>>>()?;
    let (text, value, checked) = any(bytes, &permissions)?;
    if let Err(e) = checked {
        fail_with_report(out, &text, value, &e);
    }
    out.data(text, &value);
    Ok(())
}

fn any(bytes: Bytes, permissions: &[Permission]) -> Result<(String, Value, Result<()>)> {
    // An envelope begins with the tag of its body. A permission's second field is another kind than a body's.
    let (order, kind) = match (Order::decode(bytes.clone()), Permission::decode(&bytes)) {
        (Ok(order), _) => (order, "envelope"),
        (Err(_), Ok(found)) => {
            let (text, value) = permission(&found);
            return Ok((text, value, Ok(())));
        }
        (Err(e), Err(_)) if bytes.first() == Some(&0x0a) => return Err(e),
        (Err(_), Err(not_permission)) => match Order::decode_body(bytes) {
            Ok(order) => (order, "body"),
            Err(not_body) => {
                let message = format!("neither a body ({not_body}) nor a permission ({not_permission})");
                return Err(Error::new(not_body.code, message));
            }
        },
    };
    let (mut rows, mut value) = transaction(&order, kind);
    let mut checked = Ok(());
    if !permissions.is_empty() {
        checked = order.screen_counts().and_then(|()| {
            check_authorities(&order, |actor| Ok(permissions.iter().find(|p| p.actor == actor).cloned()))
        });
        let said = checked.as_ref().map_or_else(Error::to_string, |()| "as the permissions ask".to_owned());
        value["signed"] = checked.is_ok().into();
        rows.push(("signed", said));
    }
    Ok((fields(&rows), value, checked))
}

/// A permission for people and for programs.
pub fn permission(permission: &Permission) -> (String, Value) {
    let mut rows =
        vec![("permission of actor", permission.actor.to_string()), ("threshold", permission.threshold.to_string())];
    let mut keys = Vec::new();
    for (key, weight) in &permission.keys {
        rows.push(("key", format!("{} (weight {weight})", public_to_text(key))));
        keys.push(json!({"key": public_to_text(key), "pbtx": key.to_string(), "weight": weight}));
    }
    let value = json!({"kind": "permission", "actor": permission.actor.to_string(), "threshold": permission.threshold,
        "keys": keys});
    (fields(&rows), value)
}

fn transaction(order: &Order, kind: &str) -> (Vec<(&'static str, String)>, Value) {
    let cosignors: Vec<String> = order.cosignors.iter().map(u64::to_string).collect();
    let mut rows = vec![
        ("network", order.network_id.to_string()),
        ("actor", order.actor.to_string()),
        ("seqnum", order.seqnum.to_string()),
        ("prev_hash", order.prev_hash.to_string()),
        ("type", order.transaction_type.to_string()),
        ("content", hex::encode(&order.content)),
        ("sha256 of the body", hex::encode(order.id)),
        ("next prev_hash", order.next_hash().to_string()),
    ];
    if !cosignors.is_empty() {
        rows.insert(2, ("cosignors", cosignors.join(", ")));
    }
    let mut authorities = Vec::new();
    let accounts = std::iter::once(order.actor).chain(order.cosignors.iter().copied());
    for (account, authority) in accounts.zip(&order.authorities) {
        let mut sigs = Vec::new();
        for bytes in &authority.sigs {
            let (text, value) = signature(bytes, &order.id);
            rows.push(("signature", format!("for {account}: {text}")));
            sigs.push(value);
        }
        if sigs.is_empty() {
            rows.push(("signature", format!("for {account}: none")));
        }
        authorities.push(json!({"actor": account.to_string(), "type": authority.key_type, "signatures": sigs}));
    }
    let value = json!({"kind": kind, "network_id": order.network_id.to_string(), "actor": order.actor.to_string(),
        "cosignors": cosignors, "seqnum": order.seqnum, "prev_hash": order.prev_hash.to_string(),
        "transaction_type": order.transaction_type, "transaction_content": hex::encode(&order.content),
        "body": hex::encode(&order.body), "sha256": hex::encode(order.id),
        "next_prev_hash": order.next_hash().to_string(), "authorities": authorities});
    (rows, value)
}

/// A signature, and the key that made it as far as it names one.
fn signature(bytes: &[u8], digest: &[u8; 32]) -> (String, Value) {
    let encoded = hex::encode(bytes);
    match Signature::parse(bytes) {
        Ok(parsed) => {
            let key = parsed.recover(digest).map(|key| public_to_text(&key));
            let by = key.as_ref().map_or_else(|| format!("{} {encoded}", curve_name(parsed.curve())), String::clone);
            (by, json!({"pbtx": encoded, "curve": curve_name(parsed.curve()), "key": key, "error": null}))
        }
        Err(e) => (
            format!("{encoded} ({})", e.code.name()),
            json!({"pbtx": encoded, "curve": null, "key": null, "error": e.code.name()}),
        ),
    }
}
