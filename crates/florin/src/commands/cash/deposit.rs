//! `florin cash deposit`.

use florin_core::address::Address;
use florin_core::{Code, Error, Result};
use serde_json::json;

use super::purse::{PurseArgs, parse, plain};
use crate::commands::support::fields;
use crate::output::Output;

/// Options of `cash deposit`.
#[derive(clap::Args)]
pub struct DepositArgs {
    #[command(flatten)]
    purse: PurseArgs,
    /// Amount, as 12 or 12.50
    #[arg(allow_negative_numbers = true, required_unless_present = "all")]
    amount: Option<String>,
    /// All notes that there are
    #[arg(long, conflicts_with = "amount")]
    all: bool,
    /// Account of this wallet that gets it
    #[arg(long, default_value_t = 0)]
    account: u32,
    /// Pay this address instead
    #[arg(long, value_name = "ADDRESS", conflicts_with = "account")]
    to: Option<String>,
    /// A note for the recipient, at most 256 bytes. It is public
    #[arg(long, default_value = "", hide_default_value = true)]
    memo: String,
}

/// `cash deposit`.
pub fn deposit(args: DepositArgs, out: Output) -> Result<()> {
    let committee = args.purse.place.committee()?;
    let amount = args.amount.as_deref().map(|text| parse(&committee, text)).transpose()?;
    if amount.is_none() && !args.all {
        return Err(Error::new(Code::Usage, "give an amount, or --all"));
    }
    let to = args.to.as_deref().map(|text| Address::from_text(text, &committee.network.currency)).transpose()?;
    args.purse.run(out, async |mut purse| {
        let address = match to {
            Some(address) => address,
            None => purse.cash.wallet().address(args.account)?,
        };
        let before = purse.cash.book().free().total();
        let mut progress = purse.progress();
        let orders = purse.cash.deposit(&purse.network, &purse.secrets, address, amount, &args.memo, &mut progress);
        let orders = orders.await?;
        purse.name_liars();
        let left = purse.cash.book().free().total();
        let paid = amount.map_or(before - left, u128::from);
        let address = address.to_text(&purse.committee.network.currency);
        let rows = [("paid", purse.amount(paid)), ("to", address.clone()), ("cash", purse.amount(left))];
        let value = json!({"status": "final", "address": address, "amount": plain(&purse.committee, paid),
            "amount_minor": paid.to_string(), "orders": orders.len(), "cash": purse.left()});
        out.data(fields(&rows), &value);
        Ok(())
    })
}
