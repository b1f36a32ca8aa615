//! `florin cash recover`.

use std::time::{Duration, Instant};

use florin_core::{Code, Error, Result};
use serde_json::json;

use super::purse::{Purse, PurseArgs, plain};
use crate::commands::support::{fail_with_report, fields};
use crate::commands::wallet::duration;
use crate::output::Output;

/// Between two questions whether the log has decided.
const PAUSE: Duration = Duration::from_secs(1);

/// Options of `cash recover`.
#[derive(clap::Args)]
pub struct RecoverArgs {
    #[command(flatten)]
    purse: PurseArgs,
    /// How long to wait for the log to free notes that different orders hold, as 30s or 15m; run again, it goes on waiting
    #[arg(long, value_name = "DURATION", default_value = "20m", value_parser = duration)]
    wait: Duration,
}

/// Frees notes that different orders have locked. Errors: `TIMEOUT`; as of asking.
async fn free(purse: &mut Purse, wait: Duration, out: Output) -> Result<usize> {
    let mut progress = purse.progress();
    let stuck = purse.cash.stuck(&purse.network, &purse.secrets, &mut progress).await?;
    for number in &stuck {
        out.note(format_args!("other orders hold notes of order {number}: the log is asked to free them"));
        purse.cash.ask_to_free(&purse.network, &purse.secrets, *number, &mut progress).await?;
    }
    if stuck.is_empty() {
        return Ok(0);
    }
    out.note("the log freezes them, and decides ten minutes later, by its own time");
    let deadline = Instant::now() + wait;
    for number in &stuck {
        // Authorities that are away for a while keep nobody from waiting.
        while purse.cash.waits_for_log(&purse.network, *number).await.unwrap_or(true) {
            if Instant::now() + PAUSE >= deadline {
                let message = format!(
                    "the log has not decided about the notes of order {number} yet; run `florin cash recover` again to go \
                     on waiting"
                );
                return Err(Error::new(Code::Timeout, message));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    purse.resume().await?;
    Ok(stuck.len())
}

/// `cash recover`.
pub fn recover(args: RecoverArgs, out: Output) -> Result<()> {
    args.purse.run(out, async |mut purse| {
        let freed = free(&mut purse, args.wait, out).await?;
        let found = purse.cash.recover(&purse.network, &purse.secrets).await?;
        purse.name_liars();
        let free = purse.cash.book().free();
        let rows = [
            ("found", format!("{} in {} notes", purse.amount(found.total), found.notes)),
            ("spent before", format!("{} notes", found.spent)),
            ("cash", format!("{} in {} notes", purse.amount(free.total()), free.notes())),
        ];
        let value = json!({"found": plain(&purse.committee, found.total), "found_minor": found.total.to_string(),
            "found_notes": found.notes, "spent": found.spent, "unsettled": found.unsettled, "looked": found.looked, "freed_orders": freed,
            "cash": purse.left()});
        if found.unsettled > 0 {
            let message = format!("{} more notes are not settled by enough authorities yet", found.unsettled);
            fail_with_report(out, &fields(&rows), value, &Error::new(Code::NotFinal, message));
        }
        out.data(fields(&rows), &value);
        Ok(())
    })
}
