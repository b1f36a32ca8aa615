//! `florin cash withdraw`.

use florin_core::Result;
use serde_json::json;

use super::purse::{PurseArgs, need_account, parse, plain};
use crate::commands::support::fields;
use crate::output::Output;

/// Options of `cash withdraw`.
#[derive(clap::Args)]
pub struct WithdrawArgs {
    #[command(flatten)]
    purse: PurseArgs,
    /// Amount, as 12 or 12.50
    #[arg(allow_negative_numbers = true)]
    amount: String,
    /// Account that pays
    #[arg(long, default_value_t = 0)]
    account: u32,
}

/// `cash withdraw`.
pub fn withdraw(args: WithdrawArgs, out: Output) -> Result<()> {
    let committee = args.purse.place.committee()?;
    let minor = parse(&committee, &args.amount)?;
    args.purse.run(out, async |mut purse| {
        need_account(&purse.cash, args.account)?;
        let before = purse.cash.book().free().notes();
        let mut progress = purse.progress();
        purse.cash.withdraw(&purse.network, &purse.secrets, args.account, minor, &mut progress).await?;
        purse.name_liars();
        let free = purse.cash.book().free();
        let made = free.notes() - before;
        let rows = [
            ("withdrawn", format!("{} from account {}", purse.amount(minor.into()), args.account)),
            ("notes", made.to_string()),
            ("cash", purse.amount(free.total())),
        ];
        let value = json!({"status": "final", "account": args.account, "amount": plain(&purse.committee, minor.into()),
            "amount_minor": minor.to_string(), "made": made, "cash": purse.left()});
        out.data(fields(&rows), &value);
        Ok(())
    })
}
