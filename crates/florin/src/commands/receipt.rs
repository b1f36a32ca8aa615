//! `florin receipt`.

use std::path::PathBuf;

use clap::Subcommand;
use florin_client::receipt_file;
use florin_core::{Result, receipt};
use florin_node::config::read_committee;
use serde_json::Value;

use super::support::fields;
use crate::output::Output;

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Check that a receipt proves a final order; needs no network
    Verify(VerifyArgs),
}

/// Options of `receipt verify`.
#[derive(clap::Args)]
pub struct VerifyArgs {
    /// The receipt file
    file: PathBuf,
    /// The committee file, from someone you trust: whoever wrote it decides what is proved
    #[arg(long, env = "FLORIN_COMMITTEE", value_name = "FILE", default_value = "committee.toml")]
    committee: PathBuf,
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    let Command::Verify(args) = command;
    let committee = read_committee(&args.committee)?;
    let receipt = receipt_file::load(&args.file)?;
    receipt::verify(&committee, &receipt)?;
    let mut value = receipt_file::readable(&receipt, &committee)?;
    let mut text = format!("{}\nfinal", people(&value));
    if value["action"] == "call" {
        let (seqnum, payer) = (&value["seqnum"], value["payer"].as_str().unwrap_or_default());
        text.push_str(&format!(
            ": what it takes has left the account. A receipt does not say what the log made of it: florin wallet status \
             {seqnum} --from {payer}"
        ));
    }
    if let Value::Object(fields) = &mut value {
        fields.insert("final".into(), true.into());
    }
    out.data(text, &value);
    Ok(())
}

/// [`receipt_file::readable`] for people.
pub fn people(value: &Value) -> String {
    let text = |name: &str| match &value[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let of = |name: &str| format!("{} of {} (needs {})", text(name), text("authorities"), text("quorum"));
    let proof = [("epoch", text("epoch")), ("votes", of("votes")), ("acknowledgements", of("acknowledgements"))];
    if value["action"] == "pbtx" {
        let mut rows = vec![
            ("transaction", text("order_id")),
            ("by", format!("network {}, actor {}, seqnum {}", text("network_id"), text("payer"), text("seqnum"))),
            ("type", text("transaction_type")),
            ("content", text("transaction_content")),
        ];
        rows.extend(proof);
        return fields(&rows);
    }
    let currency = text("currency");
    let mut rows = vec![
        ("order", text("order_id")),
        ("payer", format!("actor {}, order {}", text("payer"), text("seqnum"))),
        ("action", text("action")),
    ];
    for output in value["outputs"].as_array().into_iter().flatten() {
        let part = |name: &str| output[name].as_str().unwrap_or_default();
        rows.push(("pays", format!("{} {currency} to {}", part("amount"), part("address"))));
    }
    for operation in value["operations"].as_array().into_iter().flatten() {
        rows.push(("does", operation.as_str().unwrap_or_default().to_owned()));
    }
    if !text("memo").is_empty() {
        // It is the payer's text: control characters stay out of the terminal.
        rows.push(("memo", format!("{:?}", text("memo"))));
    }
    rows.extend(proof);
    fields(&rows)
}
