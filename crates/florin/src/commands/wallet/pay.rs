//! `florin wallet pay`, `resume` and `drop`.

use std::path::PathBuf;

use florin_client::receipt_file;
use florin_client::wallet::{Payment, Request};
use florin_core::address::Address;
use florin_core::amount::parse_amount;
use florin_core::committee::Committee;
use florin_core::content::Credit;
use florin_core::{Code, Error, Result};
use serde_json::json;

use super::outcome::{Outcome, decided};
use super::payer::{Payer, Way, kept, make};
use super::place::{Passphrase, Place, block_on};
use crate::commands::call::waits;
use crate::commands::support::need_vacant;
use crate::output::Output;

/// Options of `wallet pay`.
#[derive(clap::Args)]
pub struct PayArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    passphrase: Passphrase,
    #[command(flatten)]
    way: Way,
    /// Address to pay
    address: String,
    /// Amount, as 12 or 12.50
    #[arg(allow_negative_numbers = true)]
    amount: String,
    /// One more to pay, in the same order; may be given up to 255 times
    #[arg(long, value_name = "ADDRESS AMOUNT")]
    to: Vec<String>,
    /// A note for the recipient, at most 256 bytes. It is public
    #[arg(long, default_value = "", hide_default_value = true)]
    memo: String,
    /// Account that pays
    #[arg(long, default_value_t = 0)]
    account: u32,
    /// An id of your own, 1 to 64 printable characters: repeat the command with it, and it pays once
    #[arg(long, value_name = "TEXT")]
    id: Option<String>,
    /// Save the receipt here
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
}

/// Options of `wallet resume`.
#[derive(clap::Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    way: Way,
    /// Only this account
    #[arg(long)]
    account: Option<u32>,
}

/// Options of `wallet drop`.
#[derive(clap::Args)]
pub struct DropArgs {
    #[command(flatten)]
    place: Place,
    /// Which account
    #[arg(long)]
    account: u32,
}

/// `wallet pay`.
pub fn pay(args: PayArgs, out: Output) -> Result<()> {
    let committee = args.place.committee()?;
    let outputs = outputs(&args, &committee)?;
    let (id, memo) = (args.id.clone(), args.memo.clone());
    let payment = Payment { id, account: args.account, outputs, notes: Vec::new(), memo };
    let request = Request::Pay(payment);
    let wallet = args.place.open(&committee)?;
    wallet.address(args.account)?;
    let outcome = match wallet.made(&request)? {
        Some(sent) => {
            out.note("The payment with this id is final; it was not made a second time.");
            Outcome::kept(sent)?
        }
        None => {
            if let Some(receipt) = &args.receipt {
                // It would be a pity to find this out after having paid.
                need_vacant([receipt])?;
            }
            let seed = args.passphrase.unlock(wallet.keystore())?;
            block_on(async { make(&args.place, &args.way, wallet, &seed, &request, Ok(()), out).await })?.1
        }
    };
    let receipt = outcome.result.as_ref().map_err(Clone::clone)?;
    if let Some(path) = &args.receipt {
        receipt_file::save(path, receipt, &committee)?;
    }
    let mut value = outcome.value(&committee);
    value["account"] = args.account.into();
    value["id"] = json!(args.id);
    value["receipt_file"] = json!(args.receipt);
    out.data(outcome.text(&committee), &value);
    Ok(())
}

fn outputs(args: &PayArgs, committee: &Committee) -> Result<Vec<Credit>> {
    let network = &committee.network;
    let credit = |address: &str, amount: &str| -> Result<Credit> {
        let address = Address::from_text(address, &network.currency)?;
        Ok(Credit { address, amount: parse_amount(amount, network.decimals)? })
    };
    let mut outputs = vec![credit(&args.address, &args.amount)?];
    for text in &args.to {
        let Some((address, amount)) = text.trim().split_once(char::is_whitespace) else {
            return Err(Error::expected(Code::Usage, "--to", "\"ADDRESS AMOUNT\"", format!("{text:?}")));
        };
        outputs.push(credit(address, amount.trim())?);
    }
    Ok(outputs)
}

/// `wallet resume`.
pub fn resume(args: ResumeArgs, out: Output) -> Result<()> {
    let committee = args.place.committee()?;
    let wallet = args.place.open(&committee)?;
    let accounts = match args.account {
        Some(account) => wallet.address(account).map(|_| vec![account])?,
        None => wallet.unfinished(),
    };
    let mut unordered = Vec::new();
    let mut first_error = None;
    let (mut done, mut refused, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    block_on(async {
        let mut payer = Payer::new(&args.place, &args.way, wallet, out)?;
        for account in accounts {
            let outcomes = match payer.drive(account).await {
                Ok(outcomes) => outcomes,
                Err(e) => {
                    first_error.get_or_insert(e);
                    continue;
                }
            };
            payer.report_refused(account, &outcomes);
            for outcome in outcomes {
                let (seqnum, still) = (outcome.seqnum, payer.is_pending(account, &outcome.order));
                match &outcome.result {
                    Ok(_) => {
                        let mut value = outcome.value(&committee);
                        value["account"] = account.into();
                        lines.push(format!("account {account}, final\n{}", outcome.text(&committee)));
                        done.push(value);
                    }
                    Err(e) if still => {
                        first_error.get_or_insert(kept(account, e));
                    }
                    Err(e) => {
                        lines.push(format!("account {account}, seqnum {seqnum}: refused, void: {e}"));
                        refused.push(json!({"account": account, "seqnum": seqnum, "code": e.code as u32,
                            "name": e.code.name(), "message": e.message}));
                    }
                }
            }
        }
        // What the log has decided since, or decides soon.
        let accounts = args.account.map_or_else(|| payer.wallet.unordered(), |account| vec![account]);
        for account in accounts {
            for seqnum in payer.wallet.account(account).unordered.clone() {
                let patience = args.place.timeout();
                match payer.wallet.wait_ordered(&payer.network, account, seqnum, patience, |_| ()).await {
                    Ok(ordered) => {
                        let mut value = json!({"account": account, "seqnum": seqnum});
                        lines.push(format!("account {account}, seqnum {seqnum}: {}", decided(&ordered, &mut value)));
                        unordered.push(value);
                    }
                    Err(e) => {
                        first_error.get_or_insert(waits(e));
                    }
                }
            }
        }
        Ok(())
    })?;
    match first_error {
        Some(e) => {
            lines.iter().for_each(|line| out.note(line));
            Err(e)
        }
        None => {
            if lines.is_empty() {
                lines.push("nothing is pending".into());
            }
            out.data(lines.join("\n\n"), &json!({"finished": done, "refused": refused, "ordered": unordered}));
            Ok(())
        }
    }
}

/// `wallet drop`.
pub fn give_up(args: DropArgs, out: Output) -> Result<()> {
    let committee = args.place.committee()?;
    let mut wallet = args.place.open(&committee)?;
    wallet.address(args.account)?;
    let seqnums = wallet.drop_pending(args.account)?;
    let value = json!({"account": args.account, "dropped": seqnums});
    if seqnums.is_empty() {
        out.data("nothing is pending", &value);
        return Ok(());
    }
    out.note(
        "Whoever has seen a dropped payment can still hand it in until another one with its number is final. If \
         authorities have voted for it, or vote for it when the money is there, the next payment may find no quorum and \
         the account may be locked.",
    );
    let list: Vec<String> = seqnums.iter().map(u32::to_string).collect();
    out.data(format_args!("account {}: dropped seqnum {}", args.account, list.join(", ")), &value);
    Ok(())
}
