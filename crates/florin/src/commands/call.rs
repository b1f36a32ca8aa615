//! What the commands that operate on shared objects have in common: sign, settle, wait for the log.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use florin_client::receipt_file;
use florin_client::wallet::{Operation, Request, Wallet, state_name};
use florin_core::amount::format_amount;
use florin_core::committee::Committee;
use florin_core::wire::{self, output};
use florin_core::{Code, Error, Result};
use serde_json::json;

use super::support::{fail_with_report, need_vacant};
use super::wallet::{Outcome, Passphrase, Payer, Place, Way, block_on, decided, duration, failure, make};
use crate::output::Output;

/// Options of every operation.
#[derive(clap::Args)]
pub struct CallArgs {
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    passphrase: Passphrase,
    #[command(flatten)]
    way: Way,
    #[command(flatten)]
    wait: Wait,
    /// Account that does it
    #[arg(long, default_value_t = 0)]
    pub account: u32,
    /// A note, at most 256 bytes. It is public
    #[arg(long, default_value = "", hide_default_value = true)]
    memo: String,
    /// An id of your own, 1 to 64 printable characters: repeat the command with it, and it is done once
    #[arg(long, value_name = "TEXT")]
    pub id: Option<String>,
    /// Save the receipt here: it proves what left the account, not what the log made of it
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
}

/// How long to wait for the log.
#[derive(clap::Args)]
pub struct Wait {
    /// Don't wait for the log: it is enough that what is taken has left the account. `florin wallet status` shows the rest
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for the log, as 500ms, 10s or 2m
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    wait: Duration,
}

/// A wallet that is about to do an operation.
pub struct Caller<'a> {
    pub args: &'a CallArgs,
    pub committee: Arc<Committee>,
    pub wallet: Wallet,
    out: Output,
}

impl<'a> Caller<'a> {
    /// Opens the wallet. Errors: as of opening it, `USAGE` for an account that it does not have.
    pub fn open(args: &'a CallArgs, out: Output) -> Result<Caller<'a>> {
        let committee = args.place.committee()?;
        let wallet = args.place.open(&committee)?;
        wallet.address(args.account)?;
        Ok(Caller { args, committee, wallet, out })
    }

    /// Does an operation. `check` refuses it for what is known of the shared object, unless it was signed before.
    pub fn run(
        self,
        inputs: Vec<wire::Input>,
        outputs: Vec<output::Kind>,
        expires_in: bool,
        check: Result<()>,
    ) -> Result<()> {
        let Caller { args, committee, wallet, out } = self;
        let (id, account, memo) = (args.id.clone(), args.account, args.memo.clone());
        let request = Request::Call(Operation { id, account, inputs, outputs, memo, expires_in });
        let kept = wallet.made(&request)?.map(Outcome::kept).transpose()?;
        if let (None, Some(receipt)) = (&kept, &args.receipt) {
            need_vacant([receipt])?;
        }
        block_on(async {
            let (mut payer, outcome) = match kept {
                Some(outcome) => {
                    out.note("The operation with this id is final; it was not done a second time.");
                    (Payer::new(&args.place, &args.way, wallet, out)?, outcome)
                }
                None => {
                    let seed = args.passphrase.unlock(wallet.keystore())?;
                    make(&args.place, &args.way, wallet, &seed, &request, check, out).await?
                }
            };
            let receipt = outcome.result.as_ref().map_err(Clone::clone)?;
            if let Some(path) = &args.receipt {
                receipt_file::save(path, receipt, &committee)?;
            }
            let mut value = outcome.value(&committee);
            value["account"] = account.into();
            value["id"] = json!(args.id);
            value["receipt_file"] = json!(args.receipt);
            let text = outcome.text(&committee);
            if args.wait.no_wait {
                let hint = format!("{text}\nnot ordered yet: florin wallet status {}", outcome.seqnum);
                out.data(hint, &value);
                return Ok(());
            }
            match wait(&mut payer, account, outcome.seqnum, args.wait.wait, out).await {
                Ok(ordered) => {
                    let text = format!("{text}\n{}", decided(&ordered, &mut value));
                    let Some(e) = &ordered.failed else {
                        out.data(text, &value);
                        return Ok(());
                    };
                    let total = outcome.content.total;
                    let network = &committee.network;
                    let amount = format!("{} {}", format_amount(total.into(), network.decimals), network.currency);
                    fail_with_report(out, &text, value, &failure(e, (total > 0).then_some(amount)))
                }
                Err(e) => fail_with_report(out, &text, value, &waits(e)),
            }
        })
    }
}

async fn wait(
    payer: &mut Payer,
    account: u32,
    seqnum: u32,
    patience: Duration,
    out: Output,
) -> Result<florin_client::wallet::Ordered> {
    let mut last = None;
    let on_status = |status: &florin_client::wallet::Status| {
        let now = (status.said.state, status.agreeing);
        if last.replace(now) != Some(now) {
            let of = status.agreeing + status.others.len();
            out.detail(format_args!("{} say {} of {of} authorities", state_name(status.said.state()), status.agreeing));
        }
    };
    payer.wallet.wait_ordered(&payer.network, account, seqnum, patience, on_status).await
}

/// The error of an operation that waits for the log.
pub fn waits(e: Error) -> Error {
    if e.code != Code::Timeout {
        return e;
    }
    let message =
        format!("{}; the log will take it: `florin wallet status` or `florin wallet resume` shows it", e.message);
    Error { message, ..e }
}
