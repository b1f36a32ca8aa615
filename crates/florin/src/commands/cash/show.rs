//! `florin cash balance`.

use florin_client::cash::CashWallet;
use florin_client::cash::amounts::{Counts, value as worth};
use florin_client::cash::records::State;
use florin_core::Result;
use florin_core::committee::Committee;
use serde_json::json;

use super::purse::{PurseArgs, amount, plain};
use crate::commands::support::{fields, table};
use crate::output::Output;

/// Options of `cash balance`.
#[derive(clap::Args)]
pub struct BalanceArgs {
    #[command(flatten)]
    purse: PurseArgs,
    /// How many notes of each tier
    #[arg(long)]
    notes: bool,
    /// Only look into the wallet's journal: without network and passphrase, finishing nothing
    #[arg(long)]
    offline: bool,
}

/// `cash balance`.
pub fn balance(args: BalanceArgs, out: Output) -> Result<()> {
    let committee = args.purse.place.committee()?;
    let cash = args.purse.place.cash(&committee)?;
    if args.offline || !cash.unfinished() {
        show(&cash, &committee, args.notes, out);
        return Ok(());
    }
    drop(cash);
    args.purse.run(out, async |purse| {
        purse.name_liars();
        show(&purse.cash, &purse.committee, args.notes, out);
        Ok(())
    })
}

fn show(cash: &CashWallet, committee: &Committee, notes: bool, out: Output) {
    let book = cash.book();
    let of = |wanted: fn(State) -> bool| Counts::of(book.in_state(wanted).map(|n| n.note.tier));
    let free = book.free();
    let received = of(|s| matches!(s, State::Received(_)));
    let sent = of(|s| matches!(s, State::Sent(_)));
    let held = of(|s| matches!(s, State::Held(_)));
    let text = |counts: &Counts| format!("{} in {} notes", amount(committee, counts.total()), counts.notes());
    let mut rows = vec![("cash", text(&free))];
    let others = [
        ("received", &received, "not exchanged yet"),
        ("sent", &sent, "not known to be claimed"),
        ("in orders", &held, "of orders that are not finished"),
    ];
    for (name, counts, what) in others.iter().filter(|(_, counts, _)| counts.notes() > 0) {
        rows.push((*name, format!("{}, {what}", text(counts))));
    }
    if !book.open.is_empty() {
        rows.push(("open orders", book.open.len().to_string()));
    }
    if !book.searched {
        rows.push(("not searched", "the seed words may have more: run it with a network".into()));
    }
    let mut lines = fields(&rows);
    let tiers = (0..).zip(free.0).filter(|(_, n)| *n > 0);
    let tiers: Vec<(u32, u32)> = tiers.collect();
    if notes {
        let mut rows = vec![vec!["tier".to_owned(), "worth".into(), "notes".into()]];
        rows.extend(
            tiers.iter().map(|(tier, n)| vec![tier.to_string(), plain(committee, worth(*tier).into()), n.to_string()]),
        );
        lines = format!("{lines}\n\n{}", table(&rows));
    }
    let tiers: Vec<_> = tiers.iter().map(|(tier, n)| json!({"tier": tier, "notes": n})).collect();
    let minor = |counts: &Counts| counts.total().to_string();
    let value = json!({"balance": plain(committee, free.total()), "balance_minor": minor(&free),
        "currency": committee.network.currency, "notes": free.notes(), "tiers": tiers, "received_minor": minor(&received),
        "sent_minor": minor(&sent), "in_orders_minor": minor(&held), "open_orders": book.open.len(),
        "searched": book.searched});
    out.data(lines, &value);
}
