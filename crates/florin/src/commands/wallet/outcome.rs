//! What became of an order, and how it is shown.

use std::time::Duration;

use florin_client::wallet::{Ordered, Sent, describe};
use florin_core::amount::format_amount;
use florin_core::committee::Committee;
use florin_core::content::{Action, Content};
use florin_core::envelope::Order;
use florin_core::merkle::Hash;
use florin_core::ordered::modules::contracts::contract_id;
use florin_core::{Error, Result, wire};
use serde_json::{Value, json};

use crate::commands::support::fields;

/// What became of one order.
pub struct Outcome {
    pub seqnum: u32,
    pub order: Order,
    pub content: Content,
    pub result: Result<wire::Receipt>,
    pub certified: Option<Duration>,
    /// How long it took until final, if that was in this command.
    pub took: Option<Duration>,
}

impl Outcome {
    /// Of a final order in the journal. Errors: those of decoding it.
    pub fn kept(sent: &Sent) -> Result<Outcome> {
        let order = Order::decode(sent.receipt.transaction.clone())?;
        let (seqnum, result) = (sent.seqnum, Ok(sent.receipt.clone()));
        Ok(Outcome { seqnum, content: Content::decode(&order)?, order, result, certified: None, took: None })
    }

    /// What an operation on shared objects does, for people.
    fn operations(&self, committee: &Committee) -> Vec<String> {
        match &self.content.action {
            Action::Call { call, .. } => describe(call, committee),
            _ => Vec::new(),
        }
    }

    /// The contracts that it makes, if the log lets it.
    pub fn contracts(&self) -> Vec<Hash> {
        let Action::Call { call, .. } = &self.content.action else { return Vec::new() };
        let funds = |o: &wire::Output| matches!(o.kind, Some(wire::output::Kind::ContractFund(_)));
        let places = call.outputs.iter().enumerate().filter(|(_, o)| funds(o));
        places.map(|(i, _)| contract_id(&self.order.id, i as u32)).collect()
    }

    /// A final one, for people.
    pub fn text(&self, committee: &Committee) -> String {
        let network = &committee.network;
        let amount = |minor: u64| format!("{} {}", format_amount(minor.into(), network.decimals), network.currency);
        let mut rows = vec![
            ("order", hex::encode(self.order.id)),
            ("seqnum", self.seqnum.to_string()),
            ("amount", amount(self.content.total)),
        ];
        for credit in self.content.credits() {
            let address = credit.address.to_text(&network.currency);
            let several = self.content.credits().len() > 1;
            rows.push(("to", if several { format!("{address} {}", amount(credit.amount)) } else { address }));
        }
        rows.extend(self.operations(committee).into_iter().map(|text| ("does", text)));
        rows.extend(self.contracts().iter().map(|id| ("contract", hex::encode(id))));
        let memo = self.content.memo();
        if !memo.is_empty() {
            rows.push(("memo", memo.escape_debug().to_string()));
        }
        if let Some(certified) = self.certified {
            rows.push(("certified", ms(certified)));
        }
        rows.push(("final", self.took.map_or("since an earlier command".into(), ms)));
        fields(&rows)
    }

    /// A final one, for programs.
    pub fn value(&self, committee: &Committee) -> Value {
        let network = &committee.network;
        let amount = |minor: u64| format_amount(minor.into(), network.decimals);
        let round = |d: Duration| (d.as_secs_f64() * 1e6).round() / 1e3;
        let outputs: Vec<Value> = (self.content.credits().iter())
            .map(|c| {
                json!({"address": c.address.to_text(&network.currency), "amount": amount(c.amount),
                    "amount_minor": c.amount.to_string()})
            })
            .collect();
        let total = self.content.total;
        let contracts: Vec<String> = self.contracts().iter().map(hex::encode).collect();
        json!({"status": "final", "order_id": hex::encode(self.order.id), "seqnum": self.seqnum,
            "amount": amount(total), "amount_minor": total.to_string(), "currency": network.currency,
            "outputs": outputs, "memo": self.content.memo(), "operations": self.operations(committee),
            "contracts": contracts, "certified_ms": self.certified.map(round),
            "final_ms": self.took.map(round)})
    }
}

/// What the log has decided, for people and, into `value`, for programs.
pub fn decided(ordered: &Ordered, value: &mut Value) -> String {
    (value["session"], value["unit"]) = (ordered.session.into(), ordered.unit.into());
    let place = format!("session {}, unit {}", ordered.session, ordered.unit);
    match &ordered.failed {
        None => {
            value["status"] = "ordered".into();
            format!("ordered at {place}")
        }
        Some(e) => {
            value["status"] = "failed".into();
            let found = json!({"code": e.code as u32, "name": e.code.name(), "message": e.message});
            value["failure"] = found;
            format!("FAILED at {place}: {e}")
        }
    }
}

/// The error of an order whose shared side failed; `total` is what it was debited, in words.
pub fn failure(e: &Error, total: Option<String>) -> Error {
    let back = match total {
        Some(total) => format!("the {total} that it took are refunded"),
        None => "it had taken nothing".into(),
    };
    Error { message: format!("the log has refused it: {}; {back}", e.message), ..e.clone() }
}

/// A duration as people read it.
pub fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1_000.0)
}
