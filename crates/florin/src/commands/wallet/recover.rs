//! `florin wallet recover`: an account that its own wallet has locked goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use florin_client::wallet::{Decision, Rivals, Wallet};
use florin_core::committee::Committee;
use florin_core::{Code, Error, Result};
use serde_json::{Value, json};

use super::payer::{Payer, Progress, Way};
use super::place::{Passphrase, Place, block_on, duration};
use crate::commands::support::fail_with_report;
use crate::output::Output;
use florin_client::time::utc;

/// Between two questions.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a wallet that another command uses is tried, a pause apart.
const TRIES: usize = 60;

/// Options of `wallet recover`.
#[derive(clap::Args)]
pub struct RecoverArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    passphrase: Passphrase,
    #[command(flatten)]
    way: Way,
    /// Which account
    #[arg(long, default_value_t = 0)]
    account: u32,
    /// How long to wait for the log's decision, as 30s or 15m; run again, it goes on waiting
    #[arg(long, value_name = "DURATION", default_value = "20m", value_parser = duration)]
    wait: Duration,
}

/// `wallet recover`.
pub fn recover(args: RecoverArgs, out: Output) -> Result<()> {
    let committee = args.place.committee()?;
    let wallet = args.place.open(&committee)?;
    wallet.address(args.account)?;
    let account = args.account;
    block_on(async {
        let mut payer = Payer::new(&args.place, &args.way, wallet, out)?;
        let Some(seqnum) = start(&args, &mut payer, out).await? else {
            out.data("the account is not locked", &json!({"account": account, "state": "free"}));
            return Ok(());
        };
        let mut value = json!({"account": account, "seqnum": seqnum});
        match wait(&args, payer, seqnum, out).await {
            Ok((mut payer, decision)) => finish(&mut payer, account, seqnum, decision, value, out).await,
            Err(late) => {
                (value["state"], value["until_ms"]) = (late.stands.into(), json!(late.until_ms));
                fail_with_report(out, late.stands, value, &late.error)
            }
        }
    })
}

/// The sequence number that is being recovered; `None` if the account is not locked.
async fn start(args: &RecoverArgs, payer: &mut Payer, out: Output) -> Result<Option<u32>> {
    let account = args.account;
    if let Some(recovery) = payer.wallet.account(account).recovery.clone() {
        out.note(format_args!("a recovery of seqnum {} is under way", recovery.seqnum));
        if recovery.envelope.is_some() && recovery.until_ms.is_none() {
            submit(payer, account, out).await?;
        }
        return Ok(Some(recovery.seqnum));
    }
    let frozen = payer.wallet.rivals(&payer.network, account).await?.state.frozen;
    if frozen != 0 {
        out.note(format_args!("another copy of this wallet recovers seqnum {frozen}"));
        return Ok(Some(frozen));
    }
    // What can be finished is not locked.
    payer.wallet.catch_up(&payer.network, account).await?;
    let finished = payer.drive(account).await?;
    payer.report_refused(account, &finished);
    let Rivals { state, orders } = payer.wallet.rivals(&payer.network, account).await?;
    if orders.len() < 2 {
        let Some(open) = finished.iter().find(|o| o.result.is_err() && payer.is_pending(account, &o.order)) else {
            return Ok(None);
        };
        let Err(e) = &open.result else { return Ok(None) };
        let message = format!(
            "account {account} is not locked, no two orders hold seqnum {}; it waits: {}",
            state.seqnum + 1,
            e.message
        );
        return Err(Error { message, ..e.clone() });
    }
    for order in &orders {
        out.note(format_args!("seqnum {} is held by order {}", order.seqnum, hex::encode(order.id)));
    }
    let seed = args.passphrase.unlock(payer.wallet.keystore())?;
    let seqnum = payer.wallet.sign_recover(&seed, account, &state)?;
    submit(payer, account, out).await?;
    Ok(Some(seqnum))
}

async fn submit(payer: &mut Payer, account: u32, out: Output) -> Result<()> {
    let mut progress = Progress::new(&payer.wallet, out);
    let submitted = payer.wallet.submit_recover(&payer.network, account, |event| progress.on(event)).await;
    match submitted {
        // The log has taken it, or an order has settled in the meantime: what there is to know is asked for next.
        Err(e) if matches!(e.code, Code::Recovering | Code::BadSeq | Code::BadPrevHash | Code::Voided) => {
            out.detail(format_args!("the recovery is not asked for again: {e}"));
            Ok(())
        }
        submitted => submitted,
    }
}

/// A decision that did not come in time.
struct Late {
    error: Error,
    /// How far it is, for people.
    stands: &'static str,
    until_ms: Option<u64>,
}

/// Waits for the log. Nobody else can use a wallet that is open, so it is closed while the account is frozen.
async fn wait(
    args: &RecoverArgs,
    payer: Payer,
    seqnum: u32,
    out: Output,
) -> std::result::Result<(Payer, Decision), Late> {
    let account = args.account;
    let deadline = Instant::now() + args.wait;
    // One that is not frozen yet is worth a moment more than was asked for.
    let grace = Duration::from_secs(10);
    let (mut stands, mut until_ms) = ("handed in", None);
    let late = |error, stands, until_ms| Late { error, stands, until_ms };
    let committee = payer.wallet.committee().clone();
    let mut open = Some(payer);
    loop {
        let mut payer = match open.take() {
            Some(payer) => payer,
            None => reopen(args, &committee, out).await.map_err(|e| late(e, stands, until_ms))?,
        };
        match payer.wallet.recovery(&payer.network, account, seqnum).await {
            Ok(Decision::Handed) => {}
            Ok(Decision::Frozen { now_ms, until_ms: until }) => {
                if until_ms != Some(until) {
                    out.note(format_args!(
                        "frozen from seqnum {seqnum}; the log decides by {} of its time, now it is {}",
                        utc(until),
                        utc(now_ms)
                    ));
                }
                (stands, until_ms) = ("frozen", Some(until));
                let network = payer.network.clone();
                let address = payer.wallet.address(account).map_err(|e| late(e, stands, until_ms))?;
                drop(payer);
                // Authorities that are away for a while keep nobody from waiting.
                let frozen = async || Wallet::is_frozen(&network, &address, seqnum).await.unwrap_or(true);
                while Instant::now() < deadline && frozen().await {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Ok(decision) => return Ok((payer, decision)),
            Err(e) if e.code == Code::QuorumUnreachable && Instant::now() < deadline => {
                out.detail(e);
                open = Some(payer);
            }
            Err(e) => return Err(late(e, stands, until_ms)),
        }
        let end = if until_ms.is_none() { deadline + grace } else { deadline };
        if Instant::now() >= end {
            let when = until_ms.map_or("when the log has it".to_owned(), |ms| format!("by {} of log time", utc(ms)));
            let message = format!(
                "the log has not decided about seqnum {seqnum} of account {account} yet, it does {when}; run `florin \
                 wallet recover` again to go on waiting"
            );
            return Err(late(Error::new(Code::Timeout, message), stands, until_ms));
        }
        tokio::time::sleep(PAUSE / 4).await;
    }
}

/// Opens the wallet again, when whoever uses it is done.
async fn reopen(args: &RecoverArgs, committee: &Arc<Committee>, out: Output) -> Result<Payer> {
    let mut tried = 0;
    loop {
        match args.place.open(committee) {
            Ok(wallet) => return Payer::new(&args.place, &args.way, wallet, out),
            Err(e) if e.code == Code::Busy && tried < TRIES => tried += 1,
            Err(e) => return Err(e),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn finish(
    payer: &mut Payer,
    account: u32,
    seqnum: u32,
    decision: Decision,
    mut value: Value,
    out: Output,
) -> Result<()> {
    let text = match decision {
        Decision::Settled { order_id } => {
            value["state"] = "settled".into();
            value["order_id"] = hex::encode(&order_id).into();
            // Its receipt, if this wallet signed it; else it is learned.
            let caught = payer.wallet.catch_up(&payer.network, account).await;
            let finished = payer.drive(account).await;
            if let Some(e) = caught.err().or(finished.err()) {
                out.note(format_args!("the account is free; what else is pending: {e}"));
            }
            format!("order {} has settled at seqnum {seqnum}; the account is free", hex::encode(order_id))
        }
        _ => {
            value["state"] = "void".into();
            format!("seqnum {seqnum} is void; nothing of it moved; the account is free")
        }
    };
    out.data(text, &value);
    Ok(())
}
