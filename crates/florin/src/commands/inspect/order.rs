//! An order, field by field.

use florin_client::wallet::describe_with;
use florin_core::address::Address;
use florin_core::amount::format_amount;
use florin_core::committee::Network;
use florin_core::content::{Action, Content};
use florin_core::envelope::Order;
use florin_core::keys::Signature;
use florin_core::permission::Permission;
use serde_json::{Value, json};

use crate::commands::support::fields;

/// How to write amounts and addresses: as the network does if it is known, else in minor units and hex.
pub struct Money(pub Option<Network>);

impl Money {
    /// An amount for people.
    pub fn amount(&self, minor: i128) -> String {
        match &self.0 {
            Some(network) => format!("{} {}", format_amount(minor, network.decimals), network.currency),
            None => format!("{minor} minor units"),
        }
    }

    /// An address for people.
    pub fn address(&self, address: &Address) -> String {
        match &self.0 {
            Some(network) => address.to_text(&network.currency),
            None => hex::encode(address.as_bytes()),
        }
    }
}

/// For people and for programs. Content that no payment network takes is shown as bytes.
pub fn describe(order: &Order, money: &Money) -> (String, Value) {
    let mut rows = vec![
        ("order", hex::encode(order.id)),
        ("network", order.network_id.to_string()),
        ("actor", order.actor.to_string()),
        ("seqnum", order.seqnum.to_string()),
        ("prev_hash", format!("{:016x}", order.prev_hash)),
    ];
    if !order.cosignors.is_empty() {
        rows.push(("cosignors", format!("{:?}", order.cosignors)));
    }
    let mut value = json!({
        "order_id": hex::encode(order.id),
        "network_id": order.network_id.to_string(),
        "actor": order.actor.to_string(),
        "cosignors": order.cosignors.iter().map(u64::to_string).collect::<Vec<_>>(),
        "seqnum": order.seqnum,
        "prev_hash": format!("{:016x}", order.prev_hash),
        "transaction_type": order.transaction_type,
        "body": hex::encode(&order.body),
    });
    match Content::decode(order) {
        Ok(content) => {
            value["content"] = content_json(&content);
            content_rows(order, &content, money, &mut rows);
        }
        Err(e) => {
            rows.push(("type", order.transaction_type.to_string()));
            rows.push(("content", hex::encode(&order.content)));
            rows.push(("not for a payment network", e.to_string()));
            value["content_error"] = json!({"code": e.code.name(), "message": e.message});
            value["content_bytes"] = hex::encode(&order.content).into();
        }
    }
    let signatures = order.authorities.iter().flat_map(|a| &a.sigs).map(|sig| match Signature::parse(sig) {
        Ok(signature) => format!("{:?} {}", signature.curve(), hex::encode(sig)),
        Err(e) => format!("{} ({})", hex::encode(sig), e.code.name()),
    });
    let signatures: Vec<String> = signatures.collect();
    value["signatures"] = json!(signatures);
    rows.extend(signatures.into_iter().map(|signature| ("signature", signature)));
    (fields(&rows), value)
}

fn content_rows(order: &Order, content: &Content, money: &Money, rows: &mut Vec<(&'static str, String)>) {
    match &content.action {
        Action::Pay { outputs, memo } => {
            rows.push(("action", format!("pay {}", money.amount(content.total.into()))));
            for credit in outputs {
                let to = money.address(&credit.address);
                rows.push(("output", format!("{} to {to}", money.amount(credit.amount.into()))));
            }
            if !memo.is_empty() {
                rows.push(("memo", format!("{memo:?}")));
            }
        }
        Action::SetPermission(permission) => rows.push(("action", format!("set permission {}", keys(permission)))),
        Action::Call { account, call } => {
            rows.push(("action", format!("call, takes {}", money.amount(content.total.into()))));
            rows.push(("account", money.address(account)));
            rows.push(("previous call", call.previous_call.to_string()));
            let does = describe_with(call, |minor| money.amount(minor.into()), |address| money.address(address));
            rows.extend(does.into_iter().map(|text| ("does", text)));
            if !call.memo.is_empty() {
                rows.push(("memo", format!("{:?}", call.memo)));
            }
        }
        Action::Recover { account } => {
            rows.push(("action", "recover".into()));
            rows.push(("account", money.address(account)));
        }
        Action::Bearer(bearer) | Action::RecoverNotes(bearer) => {
            let worth = money.amount(content.total.into());
            rows.push(("action", format!("{}, notes worth {worth}", content.action.name())));
            for note in &bearer.notes {
                rows.push(("note", format!("{} {:?}", money.amount(1 << note.tier), note.nonce)));
            }
            for credit in &bearer.credits {
                let to = money.address(&credit.address);
                rows.push(("output", format!("{} to {to}", money.amount(credit.amount.into()))));
            }
            let call = florin_core::wire::Call { outputs: bearer.shared.clone(), ..Default::default() };
            let does = describe_with(&call, |minor| money.amount(minor.into()), |address| money.address(address));
            rows.extend(does.into_iter().map(|text| ("does", text)));
            if !bearer.memo.is_empty() {
                rows.push(("memo", format!("{:?}", bearer.memo)));
            }
        }
    }
    for note in &content.notes {
        rows.push(("asks for", format!("a note of {}", money.amount(note.worth().into()))));
    }
    if let Some(open) = &content.open {
        rows.push(("opens", money.address(&Permission::address_of(order.network_id, open))));
        rows.push(("with permission", keys(open)));
    }
}

fn content_json(content: &Content) -> Value {
    let outputs = content.credits().iter().map(
        |credit| json!({"address": hex::encode(credit.address.as_bytes()), "amount_minor": credit.amount.to_string()}),
    );
    let action = content.action.name();
    let permission = match &content.action {
        Action::SetPermission(permission) => Some(hex::encode(permission)),
        _ => None,
    };
    let operations = match &content.action {
        Action::Call { call, .. } => {
            describe_with(call, |minor| format!("{minor} minor units"), |address| hex::encode(address.as_bytes()))
        }
        _ => Vec::new(),
    };
    json!({"action": action, "operations": operations, "outputs": outputs.collect::<Vec<_>>(), "memo": content.memo(), "permission": permission,
        "open": content.open.as_ref().map(hex::encode), "total_minor": content.total.to_string()})
}

/// A permission on a line.
pub fn keys(encoded: &[u8]) -> String {
    match Permission::decode(encoded) {
        Ok(permission) => {
            let keys = permission.keys.iter().map(|(key, weight)| format!("{key} (weight {weight})"));
            format!("threshold {} of {}", permission.threshold, keys.collect::<Vec<_>>().join(", "))
        }
        Err(e) => format!("{} ({e})", hex::encode(encoded)),
    }
}
