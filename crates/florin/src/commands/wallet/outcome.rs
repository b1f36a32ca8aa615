//! What became of an order, and how it is shown.

use std::time::Duration;

use florin_client::wallet::Sent;
use florin_core::amount::format_amount;
use florin_core::committee::Committee;
use florin_core::content::Content;
use florin_core::envelope::Order;
use florin_core::{Result, wire};
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
        json!({"status": "final", "order_id": hex::encode(self.order.id), "seqnum": self.seqnum,
            "amount": amount(total), "amount_minor": total.to_string(), "currency": network.currency,
            "outputs": outputs, "memo": self.content.memo(), "certified_ms": self.certified.map(round),
            "final_ms": self.took.map(round)})
    }
}

/// A duration as people read it.
pub fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1_000.0)
}
