//! `florin wallet pay`, `resume` and `drop`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use florin_client::network::{Event, Network};
use florin_client::receipt_file;
use florin_client::wallet::{Payment, Pending, Wallet};
use florin_client::worker_client::WorkerClient;
use florin_core::address::Address;
use florin_core::amount::{format_amount, parse_amount};
use florin_core::committee::Committee;
use florin_core::content::{Action, Content, Credit};
use florin_core::envelope::Order;
use florin_core::{Code, Error, Result, wire};
use serde_json::json;

use super::outcome::{Outcome, ms};
use super::place::{Passphrase, Place, block_on};
use crate::commands::support::need_vacant;
use crate::output::Output;

/// How often a payment is tried that was refused for a reason that is gone by now, and the pause between.
const TRIES: usize = 10;
const PAUSE: Duration = Duration::from_millis(100);

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

/// How orders get to the committee.
#[derive(clap::Args)]
struct Way {
    /// Let a worker drive it: http://127.0.0.1:PORT, or https://KEY@HOST:PORT. Its receipts are verified
    #[arg(long, value_name = "URL")]
    worker: Option<String>,
}

/// A wallet on its way to the committee.
struct Payer {
    wallet: Wallet,
    network: Network,
    worker: Option<WorkerClient>,
    out: Output,
}

/// `wallet pay`.
pub fn pay(args: PayArgs, out: Output) -> Result<()> {
    let committee = args.place.committee()?;
    let outputs = outputs(&args, &committee)?;
    let payment = Payment { id: args.id.clone(), account: args.account, outputs, memo: args.memo.clone() };
    let wallet = args.place.open(&committee)?;
    wallet.address(args.account)?;
    let outcome = match wallet.paid(&payment)? {
        Some(sent) => {
            out.note("The payment with this id is final; it was not made a second time.");
            Outcome::kept(sent)?
        }
        None => {
            if let Some(receipt) = &args.receipt {
                // It would be a pity to find this out after having paid.
                need_vacant([receipt])?;
            }
            make(&args, wallet, &payment, out)?
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

/// Makes a payment of which the journal does not know that it is final.
fn make(args: &PayArgs, mut wallet: Wallet, payment: &Payment, out: Output) -> Result<Outcome> {
    let seed = args.passphrase.unlock(wallet.keystore())?;
    let account = payment.account;
    block_on(async {
        let network = args.place.network(wallet.committee());
        let worker = args.way.client(args.place.timeout())?;
        if !wallet.account(account).known {
            wallet.catch_up(&network, account).await?;
        }
        let mut payer = Payer { wallet, network, worker, out };
        let earlier = payer.finish_earlier(account).await?;
        if let Some(outcome) = payer.was_pending(earlier, payment)? {
            out.note(
                "This payment was pending from an earlier command and is final now; it was not made a second time.",
            );
            return Ok(outcome);
        }
        let mut outcome = payer.pay(&seed, payment).await?;
        for _ in 0..TRIES {
            if !payer.worth_another_try(account, &mut outcome).await? {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            outcome = if payer.is_pending(account, &outcome.order) {
                payer.drive_last(account).await?
            } else {
                payer.pay(&seed, payment).await?
            };
        }
        if let Err(e) = &mut outcome.result
            && payer.is_pending(account, &outcome.order)
        {
            *e = kept(account, e);
        }
        Ok(outcome)
    })
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

/// Whether an order pays just this.
fn asks(content: &Content, wanted: &[Credit], note: &str) -> bool {
    matches!(&content.action, Action::Pay { outputs, memo } if outputs == wanted && memo == note)
}

impl Way {
    fn client(&self, timeout: Duration) -> Result<Option<WorkerClient>> {
        // The worker itself waits for the committee; give it time to say so.
        let patience = timeout + Duration::from_secs(5);
        self.worker.as_deref().map(|url| WorkerClient::new(url, patience)).transpose()
    }
}

impl Payer {
    async fn pay(&mut self, seed: &florin_client::seed::Seed, payment: &Payment) -> Result<Outcome> {
        if !self.wallet.sign_once(&self.network, seed, payment).await?
            && let Some(sent) = self.wallet.paid(payment)?
        {
            self.out.note("An earlier order with this id turned out to be final; it was not made a second time.");
            return Outcome::kept(sent);
        }
        self.drive_last(payment.account).await
    }

    async fn drive_last(&mut self, account: u32) -> Result<Outcome> {
        let outcome = self.drive(account).await?.pop();
        outcome.ok_or_else(|| Error::new(Code::Undecided, "the order that was signed is not pending"))
    }

    /// The order that makes this payment, if it is among those that are final by now: by its id, or if it has none,
    /// any that pays the same.
    fn was_pending(&self, earlier: Vec<Outcome>, payment: &Payment) -> Result<Option<Outcome>> {
        let mut done = earlier.into_iter().filter(|o| o.result.is_ok());
        if payment.id.is_none() {
            return Ok(done.find(|o| asks(&o.content, &payment.outputs, &payment.memo)));
        }
        let Some(sent) = self.wallet.paid(payment)? else { return Ok(None) };
        let kept = Outcome::kept(sent)?;
        Ok(Some(done.find(|o| o.order.id == kept.order.id).unwrap_or(kept)))
    }

    /// Finishes what is pending of the account that pays, or fails; of the others, as far as it goes.
    async fn finish_earlier(&mut self, account: u32) -> Result<Vec<Outcome>> {
        let mut earlier = Vec::new();
        for other in self.wallet.unfinished() {
            let count = self.wallet.account(other).pending.len();
            let payments = if count == 1 { "payment" } else { "payments" };
            self.out.note(format_args!("finishing {count} pending {payments} of account {other} first"));
            let outcomes = self.drive(other).await;
            if other != account {
                if let Err(e) = outcomes {
                    self.out.note(format_args!("account {other}: {e}"));
                }
                continue;
            }
            earlier = outcomes?;
            self.report_refused(account, &earlier);
            let open = self.wallet.account(account).pending.first().map(|p| p.seqnum);
            if let Some(Err(e)) = earlier.iter().find(|o| Some(o.seqnum) == open).map(|o| &o.result) {
                let e = kept(account, e);
                let message = format!("the payment before, seqnum {}, is not final: {}", open.unwrap_or(0), e.message);
                return Err(Error { message, ..e });
            }
        }
        Ok(earlier)
    }

    /// Says what came to nothing: payments that are neither final nor pending any more.
    fn report_refused(&self, account: u32, outcomes: &[Outcome]) {
        for outcome in outcomes {
            if let (false, Err(e)) = (self.is_pending(account, &outcome.order), &outcome.result) {
                self.out.note(format_args!("the payment with seqnum {} was refused and is void: {e}", outcome.seqnum));
            }
        }
    }

    /// Whether an order was refused for a reason that is gone by now.
    async fn worth_another_try(&mut self, account: u32, outcome: &mut Outcome) -> Result<bool> {
        let pending = self.is_pending(account, &outcome.order);
        let Err(e) = &mut outcome.result else { return Ok(false) };
        match e.code {
            // Credits reach the authorities at different times.
            Code::InsufficientFunds => {
                let balance = Wallet::balance(&self.network, &self.wallet.address(account)?).await;
                let Ok(balance) = balance else { return Ok(false) };
                let network = &self.wallet.committee().network;
                let amount = |minor| format!("{} {}", format_amount(minor, network.decimals), network.currency);
                let total = i128::from(outcome.content.total);
                e.message = format!("account {account} has {}, this takes {}", amount(balance.minor), amount(total));
                Ok(balance.minor >= total)
            }
            // What took its place is known by now, and certified or locked at a quorum.
            Code::BadSeq | Code::BadPrevHash | Code::PendingConflict if !pending => {
                let seqnum = outcome.seqnum;
                self.out
                    .note(format_args!("another copy of this wallet has used seqnum {seqnum}; trying the next one"));
                self.finish_earlier(account).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn is_pending(&self, account: u32, order: &Order) -> bool {
        self.wallet.account(account).pending.iter().any(|p| p.order().is_ok_and(|o| o.id == order.id))
    }

    /// Drives everything that is pending of an account; what became of it is in the journal.
    async fn drive(&mut self, account: u32) -> Result<Vec<Outcome>> {
        let start = Instant::now();
        let pending = self.wallet.account(account).pending.clone();
        if let Some(worker) = &self.worker {
            let outcomes = self.wallet.finish_through(worker, account).await;
            let outcomes = outcomes.map_err(|e| {
                let message = format!(
                    "the worker's answer: {}; the order is kept, `florin wallet resume` finishes it",
                    e.message
                );
                Error { message, ..e }
            })?;
            let refusal = outcomes.iter().find_map(|o| o.as_ref().err()).filter(|e| !may_come(e.code));
            let Some(e) = refusal else {
                self.out.note(format_args!("the worker answered after {}", ms(start.elapsed())));
                return collect(pending, outcomes, None, start.elapsed());
            };
            // A worker is not believed when it says no: it may lie, and then the order might be paid later.
            self.out.note(format_args!("the worker says {e}; asking the committee itself"));
        }
        let names = self.names();
        let heard = vec![false; names.len()];
        let mut progress = Progress { start, names, out: self.out, said: Vec::new(), heard };
        let submission = self.wallet.finish(&self.network, account, |event| progress.on(event)).await?;
        let Some(submission) = submission else { return Ok(Vec::new()) };
        for (authority, e) in &submission.culprits {
            self.out.detail(format_args!("{} broke the protocol: {e}", progress.names[*authority]));
        }
        for (name, _) in progress.names.iter().zip(&progress.heard).filter(|(_, heard)| !**heard) {
            self.out.detail(format_args!("{name} had not answered ({})", ms(submission.took)));
        }
        collect(pending, submission.outcomes, submission.certified_after, submission.took)
    }

    fn names(&self) -> Vec<String> {
        self.wallet.committee().authorities.iter().map(|a| a.name.clone()).collect()
    }
}

/// Whether the order may still become final by itself.
fn may_come(code: Code) -> bool {
    matches!(
        code,
        Code::NotFinal | Code::QuorumUnreachable | Code::Unreachable | Code::Timeout | Code::Undecided | Code::Busy
    )
}

/// The error of an order that stays pending, with what can be done about it.
fn kept(account: u32, e: &Error) -> Error {
    if may_come(e.code) {
        return e.clone();
    }
    let money = matches!(e.code, Code::InsufficientFunds | Code::IssuerLimit);
    let when = if money { "it goes through when the money is there" } else { "it may go through later" };
    let message = format!(
        "{}; kept: {when}; `florin wallet resume` tries again, or `florin wallet drop --account {account}` gives it up",
        e.message
    );
    Error { message, ..e.clone() }
}

fn collect(
    pending: Vec<Pending>,
    results: Vec<Result<wire::Receipt>>,
    certified: Option<Duration>,
    took: Duration,
) -> Result<Vec<Outcome>> {
    let outcome = |(p, result): (Pending, Result<wire::Receipt>)| {
        let order = p.order()?;
        Ok(Outcome { seqnum: p.seqnum, content: Content::decode(&order)?, order, result, certified, took: Some(took) })
    };
    pending.into_iter().zip(results).map(outcome).collect()
}

/// What people see while an order is on its way.
struct Progress {
    start: Instant,
    names: Vec<String>,
    out: Output,
    /// Failures already shown: authorities are asked again and again.
    said: Vec<(usize, Code)>,
    /// Authorities that gave any answer, or were found not to be there.
    heard: Vec<bool>,
}

impl Progress {
    fn on(&mut self, event: Event) {
        let after = ms(self.start.elapsed());
        if let Event::Vote { authority }
        | Event::Settled { authority }
        | Event::Refused { authority, .. }
        | Event::Failed { authority, .. } = &event
        {
            self.heard[*authority] = true;
        }
        match event {
            Event::Vote { authority } => self.out.note(format_args!("vote {} ({after})", self.names[authority])),
            Event::Certified => self.out.note(format_args!("certified {after}")),
            Event::Settled { authority } => self.out.note(format_args!("settled {} ({after})", self.names[authority])),
            Event::Final => self.out.note(format_args!("final {after}")),
            Event::Refused { authority, error } => self.once(authority, &error, "refuses", &after),
            Event::Failed { authority, error } => self.once(authority, &error, "fails", &after),
        }
    }

    fn once(&mut self, authority: usize, error: &Error, does: &str, after: &str) {
        if !self.said.contains(&(authority, error.code)) {
            self.said.push((authority, error.code));
            self.out.detail(format_args!("{} {does} ({after}): {error}", self.names[authority]));
        }
    }
}

/// `wallet resume`.
pub fn resume(args: ResumeArgs, out: Output) -> Result<()> {
    let committee = args.place.committee()?;
    let wallet = args.place.open(&committee)?;
    let accounts = match args.account {
        Some(account) => wallet.address(account).map(|_| vec![account])?,
        None => wallet.unfinished(),
    };
    let mut first_error = None;
    let (mut done, mut refused, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    block_on(async {
        let network = args.place.network(&committee);
        let worker = args.way.client(args.place.timeout())?;
        let mut payer = Payer { wallet, network, worker, out };
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
            out.data(lines.join("\n\n"), &json!({"finished": done, "refused": refused}));
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
