//! What the commands that operate on shared objects have in common: sign, settle, wait for the log.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use florin_client::network::Network;
use florin_client::wallet::{Operation, Request, Wallet, state_name};
use florin_client::{pbtx, receipt_file};
use florin_core::amount::format_amount;
use florin_core::committee::Committee;
use florin_core::wire::{self, output};
use florin_core::{Code, Error, Result};
use serde_json::json;

use super::support::{fail_with_report, need_vacant};
use super::wallet::{Outcome, Passphrase, Payer, Place, Way, block_on, decided, duration, failure, make};
use crate::output::Output;

/// How long a command waits for the shards to hear what the log has decided.
const HEARD: Duration = Duration::from_secs(2);

/// Options of every operation.
#[derive(clap::Args)]
pub struct CallArgs {
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    passphrase: Passphrase,
    #[command(flatten)]
    pub way: Way,
    #[command(flatten)]
    pub wait: Wait,
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
    pub wait: Duration,
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
        self.run_one(inputs, outputs, expires_in, check, None)
    }

    /// Does commands on networks, in as few operations as take them, and waits until the shards have heard.
    pub fn run_commands(self, commands: Vec<wire::NetworkCommand>, heard: Option<Heard>) -> Result<()> {
        let mut calls = pbtx::pack(commands, &self.args.memo);
        match calls.len() {
            0 => Err(Error::new(Code::Usage, "there is nothing to do")),
            1 => self.run_one(Vec::new(), calls.remove(0), false, Ok(()), heard),
            _ => self.run_many(calls, heard),
        }
    }

    fn request(&self, id: Option<String>, outputs: Vec<output::Kind>) -> Operation {
        let (account, memo) = (self.args.account, self.args.memo.clone());
        Operation { id, account, inputs: Vec::new(), outputs, memo, expires_in: false }
    }

    fn run_one(
        self,
        inputs: Vec<wire::Input>,
        outputs: Vec<output::Kind>,
        expires_in: bool,
        check: Result<()>,
        heard: Option<Heard>,
    ) -> Result<()> {
        let operation = self.request(self.args.id.clone(), outputs);
        let Caller { args, committee, wallet, out } = self;
        let request = Request::Call(Operation { inputs, expires_in, ..operation });
        if let (None, Some(receipt)) = (wallet.made(&request)?, &args.receipt) {
            need_vacant([receipt])?;
        }
        block_on(async {
            let (mut payer, outcome) = done(args, wallet, &request, check, out).await?;
            let receipt = outcome.result.as_ref().map_err(Clone::clone)?;
            if let Some(path) = &args.receipt {
                receipt_file::save(path, receipt, &committee)?;
            }
            let mut value = outcome.value(&committee);
            value["account"] = args.account.into();
            value["id"] = json!(args.id);
            value["receipt_file"] = json!(args.receipt);
            let text = outcome.text(&committee);
            if args.wait.no_wait {
                let hint = format!("{text}\nnot ordered yet: florin wallet status {}", outcome.seqnum);
                out.data(hint, &value);
                return Ok(());
            }
            match wait(&mut payer, args.account, outcome.seqnum, args.wait.wait, out).await {
                Ok(ordered) => {
                    let text = format!("{text}\n{}", decided(&ordered, &mut value));
                    let Some(e) = &ordered.failed else {
                        hear(&payer.network, heard).await;
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

    /// One operation after the other; the first that is not done ends it. Repeated, the command does what is left: what is done
    /// already changes nothing.
    fn run_many(self, calls: Vec<Vec<output::Kind>>, heard: Option<Heard>) -> Result<()> {
        if self.args.wait.no_wait || self.args.receipt.is_some() {
            let message = format!("this takes {} operations: leave out --no-wait and --receipt", calls.len());
            return Err(Error::new(Code::Usage, message));
        }
        let ids = (1..).map(|number| self.args.id.as_ref().map(|id| format!("{id}#{number}")));
        let requests: Vec<Operation> = ids.zip(calls).map(|(id, outputs)| self.request(id, outputs)).collect();
        let Caller { args, committee, mut wallet, out } = self;
        let (mut lines, mut values) = (Vec::new(), Vec::new());
        block_on(async {
            let mut network = None;
            for (number, operation) in requests.into_iter().enumerate() {
                let commands = operation.outputs.len();
                let (mut payer, outcome) = done(args, wallet, &Request::Call(operation), Ok(()), out).await?;
                outcome.result.as_ref().map_err(Clone::clone)?;
                let ordered = wait(&mut payer, args.account, outcome.seqnum, args.wait.wait, out).await;
                let mut value = outcome.value(&committee);
                let text = |said: String| format!("operation {}, {commands} commands: {said}", number + 1);
                let failed = match ordered {
                    Ok(ordered) => {
                        lines.push(text(decided(&ordered, &mut value)));
                        ordered.failed.map(|e| failure(&e, None))
                    }
                    Err(e) => Some(waits(e)),
                };
                values.push(value);
                if let Some(e) = failed {
                    fail_with_report(out, &lines.join("\n"), json!({"operations": values}), &e);
                }
                (network, wallet) = (Some(payer.network), payer.wallet);
            }
            if let Some(network) = network {
                hear(&network, heard).await;
            }
            out.data(lines.join("\n"), &json!({"operations": values}));
            Ok(())
        })
    }
}

/// What the shards of a quorum are to say of an actor when the command is done: then it holds for the next transaction.
pub struct Heard {
    pub network_id: u64,
    pub actor: u64,
    pub so: Box<dyn Fn(&wire::ActorReply) -> bool>,
}

/// The log has decided, and what is not heard in time is heard later.
async fn hear(network: &Network, heard: Option<Heard>) {
    if let Some(Heard { network_id, actor, so }) = heard {
        pbtx::reached(network, network_id, actor, HEARD, so).await;
    }
}

/// Makes an operation, or finds it made.
async fn done(
    args: &CallArgs,
    wallet: Wallet,
    request: &Request,
    check: Result<()>,
    out: Output,
) -> Result<(Payer, Outcome)> {
    match wallet.made(request)?.map(Outcome::kept).transpose()? {
        Some(outcome) => {
            out.note("The operation with this id is final; it was not done a second time.");
            Ok((Payer::new(&args.place, &args.way, wallet, out)?, outcome))
        }
        None => {
            let seed = args.passphrase.unlock(wallet.keystore())?;
            make(&args.place, &args.way, wallet, &seed, request, check, out).await
        }
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
