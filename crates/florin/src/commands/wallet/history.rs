//! `florin wallet history` and `receipt`.

use std::path::PathBuf;

use florin_client::network::Network;
use florin_client::receipt_file;
use florin_client::wallet::{Account, Wallet};
use florin_core::address::Address;
use florin_core::amount::format_amount;
use florin_core::committee::Committee;
use florin_core::content::{Content, TYPE_CALL, TYPE_SET_PERMISSION};
use florin_core::envelope::Order;
use florin_core::wire::{self, credit_entry::Kind};
use florin_core::{Code, Error, Result};
use serde_json::{Value, json};

use super::place::{Place, block_on};
use crate::commands::support::{need_vacant, table};
use crate::output::Output;
use florin_client::time::utc;

/// Options of `wallet history`.
#[derive(clap::Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    place: Place,
    /// Which account
    #[arg(long, default_value_t = 0)]
    account: u32,
    /// How many of each kind at most, up to 256
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=256))]
    limit: u32,
}

/// Options of `wallet receipt`.
#[derive(clap::Args)]
pub struct ReceiptArgs {
    #[command(flatten)]
    place: Place,
    /// The payment's sequence number, or its order id
    #[arg(value_name = "SEQNUM|ORDER")]
    which: String,
    /// Account that sent it
    #[arg(long, default_value_t = 0)]
    account: u32,
    /// For a payment of somebody else: the payer's actor number (as in the history) or address
    #[arg(long, value_name = "ACTOR|ADDRESS", conflicts_with = "account")]
    from: Option<String>,
    /// Where to save it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// One line of the history.
struct Line {
    direction: &'static str,
    /// payment, call, keys, refund, deposit or reversed.
    kind: &'static str,
    state: &'static str,
    seqnum: u32,
    amount: u64,
    counterparts: Vec<String>,
    memo: String,
    order: String,
    time: Option<u64>,
    /// What the log has decided, of a CALL: ordered or failed.
    outcome: Option<&'static str>,
}

/// `wallet history`.
pub fn history(args: HistoryArgs, out: Output) -> Result<()> {
    let committee = args.place.committee()?;
    let wallet = args.place.open(&committee)?;
    let address = wallet.address(args.account)?;
    let limit = args.limit as usize;
    let account = wallet.account(args.account);
    let (mut sent, received) = block_on(async {
        let network = args.place.network(&committee);
        let sent = sent(&network, account, &address, limit).await?;
        Ok((sent, Wallet::received(&network, &address, limit).await))
    })?;
    let received = match received {
        Ok(received) => received.into_iter().map(|r| incoming(r.entry)).collect(),
        Err(e) => {
            out.note(format_args!("payments received are not shown: {e}"));
            Vec::new()
        }
    };
    sent.truncate(limit);
    sent.extend(received);
    let network = &committee.network;
    let mut rows: Vec<Vec<String>> =
        vec![["", "seqnum", &network.currency, "with", "memo", "time"].map(str::to_owned).into()];
    let mut values = Vec::new();
    for line in sent {
        let amount = format_amount(line.amount.into(), network.decimals);
        let takes = line.direction == "sent" || line.kind == "reversed";
        let sign = if takes { "-" } else { "+" };
        let kind = match line.state {
            "final" if matches!(line.kind, "refund" | "deposit" | "reversed") => line.kind,
            "final" if line.kind == "keys" => line.kind,
            "final" if line.direction == "sent" && line.kind == "call" => match line.outcome {
                Some("failed") => "failed",
                _ => "call",
            },
            "final" => line.direction,
            state => state,
        };
        rows.push(vec![
            kind.into(),
            line.seqnum.to_string(),
            format!("{sign}{amount}"),
            line.counterparts.join(" "),
            line.memo.escape_debug().to_string(),
            line.time.map(utc).unwrap_or_default(),
        ]);
        values.push(json!({"direction": line.direction, "kind": line.kind, "state": line.state, "seqnum": line.seqnum, "amount": amount,
            "amount_minor": line.amount.to_string(), "with": line.counterparts, "memo": line.memo,
            "order_id": line.order, "outcome": line.outcome, "time_ms": line.time}));
    }
    let value = json!({"account": args.account, "currency": network.currency, "payments": values});
    out.data(table(&rows), &value);
    Ok(())
}

/// Payments of the account, newest first: pending ones, final ones of the journal, and those that another copy of the
/// wallet made, as far as authorities prove them.
async fn sent(network: &Network, account: &Account, address: &Address, limit: usize) -> Result<Vec<Line>> {
    let committee = network.committee();
    let mut lines = Vec::new();
    for pending in account.pending.iter().rev() {
        lines.push(outgoing(&pending.order()?, "pending", Some(pending.time), committee)?);
    }
    let mut asked_in_vain = false;
    for seqnum in (1..=account.seqnum).rev() {
        if lines.len() >= limit {
            break;
        }
        match account.sent.iter().rev().find(|s| s.seqnum == seqnum) {
            Some(sent) => {
                let order = Order::decode(sent.receipt.transaction.clone())?;
                let outcome = account.ordered.get(&seqnum);
                let outcome = outcome.map(|o| if o.failed.is_some() { "failed" } else { "ordered" });
                lines.push(Line { outcome, ..outgoing(&order, "final", Some(sent.time), committee)? });
            }
            None if asked_in_vain || account.voided.contains(&seqnum) => {}
            None => match Wallet::certified(network, address.actor(), seqnum).await {
                Some(order) => lines.push(outgoing(&order, "final", None, committee)?),
                None => asked_in_vain = true,
            },
        }
    }
    Ok(lines)
}

fn outgoing(order: &Order, state: &'static str, time: Option<u64>, committee: &Committee) -> Result<Line> {
    let content = Content::decode(order)?;
    let currency = &committee.network.currency;
    Ok(Line {
        direction: "sent",
        kind: match order.transaction_type {
            TYPE_CALL => "call",
            TYPE_SET_PERMISSION => "keys",
            _ => "payment",
        },
        state,
        seqnum: order.seqnum,
        amount: content.total,
        counterparts: content.credits().iter().map(|c| c.address.to_text(currency)).collect(),
        memo: content.memo().to_owned(),
        order: hex::encode(order.id),
        time,
        outcome: None,
    })
}

fn incoming(entry: wire::CreditEntry) -> Line {
    // Genesis credits have no payer.
    let genesis = entry.order_id.is_empty();
    let kind = match entry.kind() {
        Kind::Payment => "payment",
        Kind::Call => "call",
        Kind::Refund => "refund",
        Kind::Deposit => "deposit",
        // Its order was never final, and a recovery has voided it: the entry of the payment stands beside it.
        Kind::Reversed => "reversed",
    };
    Line {
        direction: "received",
        kind,
        state: "final",
        seqnum: entry.seqnum,
        amount: entry.amount,
        counterparts: vec![if genesis { "genesis".into() } else { entry.actor.to_string() }],
        memo: entry.memo,
        order: hex::encode(&entry.order_id),
        time: None,
        outcome: None,
    }
}

/// `wallet receipt`.
pub fn receipt(args: ReceiptArgs, out: Output) -> Result<()> {
    let committee = args.place.committee()?;
    need_vacant([&args.out])?;
    let wallet = args.place.open(&committee)?;
    let actor = match &args.from {
        Some(text) => match text.parse::<u64>() {
            Ok(actor) => actor,
            Err(_) => Address::from_text(text, &committee.network.currency)?.actor(),
        },
        None => wallet.address(args.account)?.actor(),
    };
    let own = args.from.is_none().then(|| wallet.account(args.account));
    let kept = own.and_then(|account| kept(account, &args.which));
    let receipt = match (kept, args.which.parse::<u32>()) {
        (Some(receipt), _) => receipt.clone(),
        (None, Ok(seqnum)) => {
            block_on(async { Wallet::fetch_receipt(&args.place.network(&committee), actor, seqnum).await })?
        }
        (None, Err(_)) => {
            let expected = "a sequence number, or the id of an order that this wallet sent";
            return Err(Error::expected(Code::Usage, "payment", expected, format!("{:?}", args.which)));
        }
    };
    receipt_file::save(&args.out, &receipt, &committee)?;
    let mut value: Value = receipt_file::readable(&receipt, &committee)?;
    value["file"] = json!(args.out);
    out.data(args.out.display(), &value);
    Ok(())
}

fn kept<'a>(account: &'a Account, which: &str) -> Option<&'a wire::Receipt> {
    let seqnum = which.parse::<u32>().ok();
    let has_id = |receipt: &wire::Receipt| {
        Order::decode(receipt.transaction.clone()).is_ok_and(|o| hex::encode(o.id).eq_ignore_ascii_case(which))
    };
    let found = account.sent.iter().find(|s| Some(s.seqnum) == seqnum || has_id(&s.receipt));
    found.map(|s| &s.receipt)
}
