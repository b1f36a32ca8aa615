//! `florin hub`: passes payments on between the channels of a wallet.

use std::time::Duration;

use bytes::Bytes;
use clap::Subcommand;
use florin_client::channel::{Store, path_of};
use florin_client::keystore::Keystore;
use florin_core::amount::format_amount;
use florin_core::channel::hub::{self, Hub, LinkState, LockInfo};
use florin_core::channel::manager::{self, EndId, EndState, Input, Manager, Status};
use florin_core::channel::virtuals::{self, Bound, Virtuals};
use florin_core::limits::{HUB_LOCKS_MAX, HUB_MARGIN_MS, PAGE_MAX};
use florin_core::{Result, wire};
use serde_json::{Value, json};

use super::channel::desk::{Desk, DeskArgs, There, parse, there};
use super::channel::life::{Span, listen, moment, name, serve_and_say, span, stopped};
use super::support::table;
use super::wallet::{Place, log_to_stderr};
use crate::output::Output;

/// Between two looks whether a new channel needs this wallet's keys.
const LOOK: Duration = Duration::from_secs(1);

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Pass payments on between the channels of a wallet, and redeem what must be redeemed
    ///
    /// Prints "ready HOST:PORT" once the other sides of its channels can connect, then one line an event. Says this wallet's keys in
    /// channels that others have opened. Stops at SIGTERM or SIGINT; what is under way goes on when it runs again.
    Run(Box<RunArgs>),
    /// What is in the channels, what is locked, what was earned: also while it runs
    Status(StatusArgs),
}

/// Options of `hub run`.
#[derive(clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    desk: DeskArgs,
    /// Where to listen; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7500")]
    listen: String,
    /// Connect to another hub, the other side of this channel, which runs with --listen there
    #[arg(long, value_name = "CHANNEL@HOST:PORT", value_parser = there)]
    dial: Vec<There>,
    /// What a payment costs, as 0.01
    #[arg(long, value_name = "AMOUNT", default_value = "0.01")]
    fee_base: String,
    /// And millionths of what is passed on, rounded up
    #[arg(long, value_name = "MILLIONTHS", default_value_t = 1_000)]
    fee_ppm: u32,
    /// What a lock costs whatever becomes of it, as 0.01
    #[arg(long, value_name = "AMOUNT", default_value = "0")]
    upfront: String,
    /// Least that is passed on, as 0.10
    #[arg(long, value_name = "AMOUNT", default_value = "0")]
    lock_min: String,
    /// Longest time until a lock ends
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = span)]
    lock_max: Span,
    /// Time between the end of the lock that comes in and of the one that goes out: what an outage may last; 13m at least
    #[arg(long, value_name = "DURATION", value_parser = span)]
    margin: Option<Span>,
    /// Locks of a channel at once
    #[arg(long, value_name = "LOCKS", default_value_t = HUB_LOCKS_MAX)]
    locks: usize,
    /// Money in them, as 500; without it no bound
    #[arg(long, value_name = "AMOUNT")]
    in_flight: Option<String>,
    /// What opening a virtual channel costs, as 0.01
    #[arg(long, value_name = "AMOUNT", default_value = "0.01")]
    virtual_fee_base: String,
    /// And millionths of its cap, rounded up
    #[arg(long, value_name = "MILLIONTHS", default_value_t = 100)]
    virtual_fee_ppm: u32,
    /// Most of this wallet's money that all virtual channels together bind, as 500; 0 passes none on, without it no bound
    #[arg(long, value_name = "AMOUNT")]
    virtual_max: Option<String>,
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    match command {
        Command::Run(args) => run_hub(&args, out),
        Command::Status(args) => status(&args, out),
    }
}

impl RunArgs {
    fn policies(&self) -> Result<(hub::Policy, virtuals::Policy)> {
        let committee = self.desk.place.committee()?;
        let amount = |text: &str| parse(&committee, text);
        let terms = wire::HubTerms {
            fee_base: amount(&self.fee_base)?,
            fee_ppm: self.fee_ppm,
            margin_ms: self.margin.map_or(HUB_MARGIN_MS, |margin| margin.0.as_millis() as u64),
            upfront: amount(&self.upfront)?,
            lock_min: amount(&self.lock_min)?.max(1),
            lock_max_ms: self.lock_max.0.as_millis() as u64,
        };
        let in_flight_max = self.in_flight.as_deref().map(amount).transpose()?.unwrap_or(u64::MAX);
        let virtuals = virtuals::Policy {
            fee_base: amount(&self.virtual_fee_base)?,
            fee_ppm: self.virtual_fee_ppm,
            margin_ms: terms.margin_ms,
            backs_max: self.virtual_max.as_deref().map(amount).transpose()?.unwrap_or(u64::MAX),
            ..virtuals::Policy::default()
        };
        Ok((hub::Policy { terms, locks_max: self.locks, in_flight_max, ..hub::Policy::default() }, virtuals))
    }
}

fn run_hub(args: &RunArgs, out: Output) -> Result<()> {
    log_to_stderr()?;
    args.desk.run_hub(out, false, args.policies()?, async |desk| {
        let (listener, address) = listen(&args.listen).await?;
        let stop = stopped()?;
        let mut dialed = Vec::new();
        for there in &args.dial {
            dialed.push(desk.dial(there).await?);
        }
        out.data(format!("ready {address}"), &json!({"ready": address}));
        tokio::select! {
            served = serve_and_say(&desk, listener, stop) => served,
            failed = say_keys(&desk) => failed,
        }
    })
}

/// In a channel that somebody else has opened nothing can be signed before the own keys are said. Only where there is money, so that
/// nobody makes others send orders for nothing.
async fn say_keys(desk: &Desk) -> Result<()> {
    loop {
        let needed = |manager: &Manager| {
            let mut all = ends(manager);
            all.retain(|end| needs_keys(manager, *end));
            all
        };
        for end in desk.channels.read(needed).await? {
            if let Err(e) = desk.channels.ask(Input::Keys(end)).await {
                tracing::warn!("the keys of channel {}: {e}", hex::encode(end.channel));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn ends(manager: &Manager) -> Vec<EndId> {
    let mut all: Vec<EndId> = Vec::new();
    loop {
        let page = manager.list(None, all.last(), PAGE_MAX);
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

fn needs_keys(manager: &Manager, end: EndId) -> bool {
    let state = manager.status(&end).map(|status| status.state);
    let has_money = manager.deposited(&end, 1 - end.side).is_ok_and(|amount| amount > 0);
    state == Ok(EndState::Open) && has_money && manager.keys_of(&end, end.side).is_err()
}

/// Options of `hub status`.
#[derive(clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    place: Place,
}

fn status(args: &StatusArgs, out: Output) -> Result<()> {
    let committee = args.place.committee()?;
    let groups = Store::peek(&path_of(args.place.wallet()), &committee)?;
    let policy = manager::Policy::default();
    let of_hub =
        hub::Config { network_id: committee.network.id, channels: policy.clone(), policy: hub::Policy::default() };
    let accounts = Keystore::peek(args.place.wallet())?.into_iter().map(|address| (address, Bytes::new())).collect();
    let of_manager = manager::Config { committee_id: *committee.id(), accounts, policy };
    let of_virtuals = virtuals::Config { channels: of_hub.channels.clone(), policy: virtuals::Policy::default() };
    let (hub, manager) = Hub::load(of_hub, of_manager, &groups)?;
    let virtuals = Virtuals::load(of_virtuals, &groups)?;
    let plain = |minor: u64| format_amount(minor.into(), committee.network.decimals);
    let amount = |minor: u64| format!("{} {}", plain(minor), committee.network.currency);
    let head =
        ["channel", "with", "state", "can send", "can get", "locks out", "locks in", "virtual out", "virtual in"];
    let (mut rows, mut values) = (vec![head.map(String::from).to_vec()], Vec::new());
    for end in ends(&manager) {
        let status = manager.status(&end)?;
        let other = if end.side == 0 { status.to } else { status.from };
        let (locks, is_diverged) = (hub.locks(&end), hub.link(&end) == LinkState::Diverged);
        let gets = manager.receivable(&end)?;
        let (outs, ins) = (flight(&locks, true), flight(&locks, false));
        let (virtual_out, virtual_in) = virtuals.open_on(&end);
        let bound = |of: Bound| format!("{} of {}", of.channels, amount(of.amount));
        rows.push(vec![
            hex::encode(&end.channel[..8]),
            other.to_text(&committee.network.currency),
            if is_diverged { "diverged".into() } else { name(status.state).to_owned() },
            amount(status.available),
            amount(gets),
            format!("{} of {}", outs.0, amount(outs.1)),
            format!("{} of {}", ins.0, amount(ins.1)),
            bound(virtual_out),
            bound(virtual_in),
        ]);
        let mut value = value(&status, &locks, &plain);
        value["with"] = json!(other.to_text(&committee.network.currency));
        value["can_get"] = json!(plain(gets));
        let bound = |of: Bound| json!({"channels": of.channels, "amount": plain(of.amount)});
        value["virtual"] = json!({"outgoing": bound(virtual_out), "incoming": bound(virtual_in)});
        value["diverged"] = json!(status.diverged || is_diverged);
        values.push(value);
    }
    let earned = hub.earned();
    let (fees, upfront) = (amount(earned.fees), amount(earned.upfront));
    let total = format!("payments passed on: {}; earned: {fees} in fees, {upfront} up-front", earned.payments);
    let backed = virtuals.backed();
    let backs =
        format!("virtual channels passed on and open: {}; they bind {}", backed.channels, amount(backed.amount));
    let text = if values.is_empty() { "no channels".to_owned() } else { format!("{}\n{total}\n{backs}", table(&rows)) };
    let backed = json!({"channels": backed.channels, "amount": plain(backed.amount)});
    let earned = json!({"payments": earned.payments, "fees": plain(earned.fees), "upfront": plain(earned.upfront)});
    out.data(text, &json!({"channels": values, "earned": earned, "virtual": backed}));
    Ok(())
}

/// Number of locks of a direction, and the money in them.
fn flight(locks: &[LockInfo], outgoing: bool) -> (usize, u64) {
    let of = locks.iter().filter(|lock| lock.outgoing == outgoing);
    (of.clone().count(), of.map(|lock| lock.amount).sum())
}

fn value(status: &Status, locks: &[LockInfo], plain: &dyn Fn(u64) -> String) -> Value {
    let locks = locks.iter().map(|lock| {
        json!({"outgoing": lock.outgoing, "lane": lock.lane, "amount": plain(lock.amount), "for": lock.purpose,
            "until": moment(lock.not_after_ms), "secret_hash": hex::encode(lock.secret_hash), "secret_known": lock.is_known})
    });
    json!({"channel": hex::encode(status.channel), "side": status.side, "state": name(status.state),
        "available": plain(status.available), "locks": locks.collect::<Vec<_>>()})
}
