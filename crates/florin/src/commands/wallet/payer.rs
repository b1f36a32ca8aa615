//! How the wallet's commands bring orders to the committee: what is pending first, then the new one.

use std::time::{Duration, Instant};

use florin_client::network::{Event, Network};
use florin_client::seed::Seed;
use florin_client::wallet::{Pending, Request, Wallet};
use florin_client::worker_client::WorkerClient;
use florin_core::amount::format_amount;
use florin_core::content::Content;
use florin_core::envelope::Order;
use florin_core::{Code, Error, Result, wire};

use super::outcome::{Outcome, ms};
use super::place::Place;
use crate::output::Output;

/// How often an order is tried that was refused for a reason that is gone by now, and the pause between.
const TRIES: usize = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// How orders get to the committee.
#[derive(clap::Args)]
pub struct Way {
    /// Let a worker drive it: http://127.0.0.1:PORT, or https://KEY@HOST:PORT. Its receipts are verified
    #[arg(long, value_name = "URL")]
    worker: Option<String>,
}

/// A wallet on its way to the committee.
pub struct Payer {
    pub wallet: Wallet,
    pub network: Network,
    worker: Option<WorkerClient>,
    out: Output,
}

/// Makes what is asked for, of which the journal does not know that it is final. `check` refuses it for what is known
/// before it is signed, unless an earlier command has signed it.
pub async fn make(
    place: &Place,
    way: &Way,
    wallet: Wallet,
    seed: &Seed,
    request: &Request,
    check: Result<()>,
    out: Output,
) -> Result<(Payer, Outcome)> {
    let account = request.account();
    let mut payer = Payer::new(place, way, wallet, out)?;
    if !payer.wallet.account(account).known {
        payer.wallet.catch_up(&payer.network, account).await?;
    }
    payer.wallet.sign_roots(seed, account)?;
    let earlier = payer.finish_earlier(account).await?;
    if let Some(outcome) = payer.was_pending(earlier, request)? {
        let what = request_name(request);
        out.note(format_args!(
            "This {what} was pending from an earlier command and is final now; it was not made a second time."
        ));
        return Ok((payer, outcome));
    }
    check?;
    let mut outcome = payer.make_once(seed, request).await?;
    for _ in 0..TRIES {
        if !payer.worth_another_try(account, &mut outcome).await? {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        outcome = if payer.is_pending(account, &outcome.order) {
            payer.drive_last(account).await?
        } else {
            payer.make_once(seed, request).await?
        };
    }
    if let Err(e) = &mut outcome.result
        && payer.is_pending(account, &outcome.order)
    {
        *e = kept(account, e);
    }
    Ok((payer, outcome))
}

fn request_name(request: &Request) -> &'static str {
    match request {
        Request::Pay(_) => "payment",
        Request::Call(_) => "operation",
        Request::Keys(_) => "change of keys",
    }
}

impl Way {
    pub fn client(&self, timeout: Duration) -> Result<Option<WorkerClient>> {
        // The worker itself waits for the committee; give it time to say so.
        let patience = timeout + Duration::from_secs(5);
        self.worker.as_deref().map(|url| WorkerClient::new(url, patience)).transpose()
    }
}

impl Payer {
    /// A wallet and the way to its committee. Needs a tokio runtime.
    pub fn new(place: &Place, way: &Way, wallet: Wallet, out: Output) -> Result<Payer> {
        let network = place.network(wallet.committee());
        Ok(Payer { network, worker: way.client(place.timeout())?, wallet, out })
    }

    async fn make_once(&mut self, seed: &Seed, request: &Request) -> Result<Outcome> {
        if !self.wallet.sign_once(&self.network, seed, request).await?
            && let Some(sent) = self.wallet.made(request)?
        {
            self.out.note("An earlier order with this id turned out to be final; it was not made a second time.");
            return Outcome::kept(sent);
        }
        self.drive_last(request.account()).await
    }

    async fn drive_last(&mut self, account: u32) -> Result<Outcome> {
        let outcome = self.drive(account).await?.pop();
        outcome.ok_or_else(|| Error::new(Code::Undecided, "the order that was signed is not pending"))
    }

    /// The order that does what is asked for, if it is among those that are final by now: by its id, or if it has none,
    /// any that does the same.
    fn was_pending(&self, earlier: Vec<Outcome>, request: &Request) -> Result<Option<Outcome>> {
        let mut done = earlier.into_iter().filter(|o| o.result.is_ok());
        if request.id().is_none() {
            return Ok(done.find(|o| request.is(&o.content)));
        }
        let Some(sent) = self.wallet.made(request)? else { return Ok(None) };
        let kept = Outcome::kept(sent)?;
        Ok(Some(done.find(|o| o.order.id == kept.order.id).unwrap_or(kept)))
    }

    /// Finishes what is pending of the account that pays, or fails; of the others, as far as it goes.
    pub async fn finish_earlier(&mut self, account: u32) -> Result<Vec<Outcome>> {
        let mut earlier = Vec::new();
        for other in self.wallet.unfinished() {
            let count = self.wallet.account(other).pending.len();
            let orders = if count == 1 { "order" } else { "orders" };
            self.out.note(format_args!("finishing {count} pending {orders} of account {other} first"));
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
                let message = format!("the order before, seqnum {}, is not final: {}", open.unwrap_or(0), e.message);
                return Err(Error { message, ..e });
            }
        }
        Ok(earlier)
    }

    /// Says what came to nothing: orders that are neither final nor pending any more.
    pub fn report_refused(&self, account: u32, outcomes: &[Outcome]) {
        for outcome in outcomes {
            if let (false, Err(e)) = (self.is_pending(account, &outcome.order), &outcome.result) {
                self.out.note(format_args!("the order with seqnum {} was refused and is void: {e}", outcome.seqnum));
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
            Code::BadSeq | Code::BadPrevHash | Code::PendingConflict | Code::Voided if !pending => {
                let seqnum = outcome.seqnum;
                self.out
                    .note(format_args!("another copy of this wallet has used seqnum {seqnum}; trying the next one"));
                self.finish_earlier(account).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    pub fn is_pending(&self, account: u32, order: &Order) -> bool {
        self.wallet.account(account).pending.iter().any(|p| p.order().is_ok_and(|o| o.id == order.id))
    }

    /// Drives everything that is pending of an account; what became of it is in the journal.
    pub async fn drive(&mut self, account: u32) -> Result<Vec<Outcome>> {
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
            if let Some(orders) = self.wallet.root_signed() {
                self.out.note(format_args!("signed the root of a batch; orders in it: {orders}"));
            }
            let refusal = outcomes.iter().find_map(|o| o.as_ref().err()).filter(|e| !may_come(e.code));
            let Some(e) = refusal else {
                self.out.note(format_args!("the worker answered after {}", ms(start.elapsed())));
                return collect(pending, outcomes, None, start.elapsed());
            };
            // A worker is not believed when it says no: it may lie, and then the order might be paid later.
            self.out.note(format_args!("the worker says {e}; asking the committee itself"));
        }
        let mut progress = Progress { start, ..Progress::new(&self.wallet, self.out) };
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
}

/// Whether the order may still become final by itself.
fn may_come(code: Code) -> bool {
    matches!(
        code,
        Code::NotFinal | Code::QuorumUnreachable | Code::Unreachable | Code::Timeout | Code::Undecided | Code::Busy
    )
}

/// The error of an order that stays pending, with what can be done about it.
pub fn kept(account: u32, e: &Error) -> Error {
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
pub struct Progress {
    start: Instant,
    names: Vec<String>,
    out: Output,
    /// Failures already shown: authorities are asked again and again.
    said: Vec<(usize, Code)>,
    /// Authorities that gave any answer, or were found not to be there.
    heard: Vec<bool>,
}

impl Progress {
    /// Of an order that is sent now.
    pub fn new(wallet: &Wallet, out: Output) -> Progress {
        let names: Vec<String> = wallet.committee().authorities.iter().map(|a| a.name.clone()).collect();
        let heard = vec![false; names.len()];
        Progress { start: Instant::now(), names, out, said: Vec::new(), heard }
    }

    pub fn on(&mut self, event: Event) {
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
