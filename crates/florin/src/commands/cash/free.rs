//! `florin cash free`.

use florin_client::cash::free::Freeing;
use florin_core::Result;
use serde_json::json;

use super::purse::PurseArgs;
use crate::output::Output;

/// Options of `cash free`.
#[derive(clap::Args)]
pub struct FreeArgs {
    /// The order, as commands that could not finish it name it; all open ones if left out
    number: Option<u64>,
    #[command(flatten)]
    purse: PurseArgs,
}

/// `cash free`.
pub fn free(args: FreeArgs, out: Output) -> Result<()> {
    let number = args.number;
    args.purse.run(out, async |mut purse| {
        let numbers = number.map_or_else(|| purse.cash.open_bearers(), |number| vec![number]);
        let (mut lines, mut values) = (Vec::new(), Vec::new());
        for number in numbers {
            let mut progress = purse.progress();
            let state = match purse.cash.free(&purse.network, &purse.secrets, number, &mut progress).await? {
                Freeing::Begun => "begun",
                Freeing::Going => "going on",
            };
            lines.push(format!(
                "order {number}: {state}; the log decides in ten minutes, or when it is shown a certificate"
            ));
            values.push(json!({"number": number, "state": state}));
        }
        if lines.is_empty() {
            lines.push("no order is open".into());
        } else {
            lines.push("then any `florin cash` command says what came of it".into());
        }
        out.data(lines.join("\n"), &json!({"orders": values}));
        Ok(())
    })
}
