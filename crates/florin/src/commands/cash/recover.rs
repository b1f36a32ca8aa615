//! `florin cash recover`.

use florin_core::{Code, Error, Result};
use serde_json::json;

use super::purse::{PurseArgs, plain};
use crate::commands::support::{fail_with_report, fields};
use crate::output::Output;

/// Options of `cash recover`.
#[derive(clap::Args)]
pub struct RecoverArgs {
    #[command(flatten)]
    purse: PurseArgs,
}

/// `cash recover`.
pub fn recover(args: RecoverArgs, out: Output) -> Result<()> {
    args.purse.run(out, async |mut purse| {
        let found = purse.cash.recover(&purse.network, &purse.secrets).await?;
        purse.name_liars();
        let free = purse.cash.book().free();
        let rows = [
            ("found", format!("{} in {} notes", purse.amount(found.total), found.notes)),
            ("spent before", format!("{} notes", found.spent)),
            ("cash", format!("{} in {} notes", purse.amount(free.total()), free.notes())),
        ];
        let value = json!({"found": plain(&purse.committee, found.total), "found_minor": found.total.to_string(),
            "found_notes": found.notes, "spent": found.spent, "unsettled": found.unsettled, "looked": found.looked,
            "cash": purse.left()});
        if found.unsettled > 0 {
            let message = format!("{} more notes are not settled by enough authorities yet", found.unsettled);
            fail_with_report(out, &fields(&rows), value, &Error::new(Code::NotFinal, message));
        }
        out.data(fields(&rows), &value);
        Ok(())
    })
}
