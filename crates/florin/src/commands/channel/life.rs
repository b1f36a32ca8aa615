//! `florin channel settle`, `collect`, `status`, `list` and `watch`.

use std::convert::Infallible;
use std::time::Duration;

use florin_client::channel::serve;
use florin_client::time::utc;
use florin_core::channel::hub;
use florin_core::channel::manager::{Direction, EndId, EndState, Event, Input, Reply, Status};
use florin_core::{Code, Error, Result};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::SignalKind;
use tokio::sync::broadcast::error::RecvError;

use super::desk::{Desk, DeskArgs, OneArgs, There, Which, there, unexpected};
use super::virtuals::say_virtual;
use crate::commands::support::{fields, table};
use crate::output::Output;

/// How long the log has to take this wallet's keys in a channel, before they are said again.
const KEYS_PATIENCE: Duration = Duration::from_secs(10);

/// A duration in larger units than a command's timeouts.
#[derive(Clone, Copy)]
pub struct Span(pub Duration);

/// Reads a duration such as 30s, 30m, 24h or 7d.
pub fn span(text: &str) -> std::result::Result<Span, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let wrong = || format!("expected as 30s, 30m, 24h or 7d, found {text:?}");
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).filter(|s| *s <= 90 * 86_400).map(|s| Span(Duration::from_secs(s))).ok_or_else(wrong)
}

/// `channel settle`: what is held is redeemed first.
pub fn settle(args: OneArgs, out: Output) -> Result<()> {
    args.desk.run(out, true, async |desk| {
        let end = desk.end(&args.which).await?;
        desk.submit_all(end, &args.wait).await?;
        let op = desk.op(Input::Settle(end)).await?;
        desk.done(op, &args.wait).await?;
        let status = desk.status(end).await?;
        let when = moment(status.settling_at_ms);
        let rows = [("state", name(status.state).to_owned()), ("collect from", when.clone())];
        out.data(fields(&rows), &json!({"state": name(status.state), "collect_from": when}));
        Ok(())
    })
}

/// `channel collect`.
pub fn collect(args: OneArgs, out: Output) -> Result<()> {
    args.desk.run(out, true, async |desk| {
        let end = desk.end(&args.which).await?;
        let op = match desk.channels.ask(Input::Collect(end)).await? {
            Reply::Op(op) => op,
            Reply::NotYet(at) => {
                let message = format!("the channel can be collected from {} log time on", moment(at));
                return Err(Error::new(Code::ChannelNotDue, message));
            }
            other => return Err(unexpected(&other)),
        };
        desk.done(op, &args.wait).await?;
        let state = desk.status(end).await?.state;
        out.data(fields(&[("state", name(state).to_owned())]), &json!({"state": name(state)}));
        Ok(())
    })
}

/// Options of `channel status`.
#[derive(clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    desk: DeskArgs,
    #[command(flatten)]
    which: Which,
    /// As this journal knows it, without asking the log
    #[arg(long)]
    offline: bool,
}

/// `channel status`.
pub fn status(args: StatusArgs, out: Output) -> Result<()> {
    args.desk.run(out, !args.offline, async |desk| {
        let end = desk.end(&args.which).await?;
        let status = desk.status(end).await?;
        out.data(fields(&rows(&desk, &status)), &value(&desk, &status));
        Ok(())
    })
}

/// Options of `channel list`.
#[derive(clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    desk: DeskArgs,
    /// As this journal knows them, without asking the log
    #[arg(long)]
    offline: bool,
}

/// `channel list`.
pub fn list(args: ListArgs, out: Output) -> Result<()> {
    args.desk.run(out, !args.offline, async |desk| {
        let ends = desk.ends().await?;
        let mut lines = vec![["channel", "with", "state", "available", "vouchers held"].map(String::from).to_vec()];
        let mut values = Vec::new();
        for end in ends {
            let status = desk.status(end).await?;
            let other = if end.side == 0 { status.to } else { status.from };
            lines.push(vec![
                hex::encode(end.channel),
                other.to_text(&desk.committee.network.currency),
                name(status.state).into(),
                desk.amount(status.available),
                desk.amount(status.received),
            ]);
            values.push(value(&desk, &status));
        }
        let text = if values.is_empty() { "no channels".to_owned() } else { table(&lines) };
        out.data(text, &json!({"channels": values}));
        Ok(())
    })
}

/// Options of `channel watch`.
#[derive(clap::Args)]
pub struct WatchArgs {
    #[command(flatten)]
    desk: DeskArgs,
    /// Stay connected to the hub that is the other side of this channel, so that invoices can be paid
    #[arg(long, value_name = "CHANNEL@HOST:PORT", value_parser = there)]
    dial: Vec<There>,
    /// Where to listen, so that payers of virtual channels can pay here; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
}

/// `channel watch`.
pub fn watch(args: WatchArgs, out: Output) -> Result<()> {
    args.desk.run(out, false, async |desk| {
        let (mut dialed, mut ends) = (Vec::new(), Vec::new());
        for there in &args.dial {
            let end = match desk.named(&there.channel, None).await {
                Err(e) if e.code == Code::UnknownChannel => {
                    desk.channels.refresh().await?;
                    desk.named(&there.channel, None).await?
                }
                end => end?,
            };
            ends.push(end);
            dialed.push(desk.channels.dial(end, &there.address));
        }
        let stop = stopped()?;
        match &args.listen {
            None => {
                out.data("ready to redeem; Ctrl-C ends it", &json!({"event": "ready"}));
                tokio::select! {
                    () = say_all(&desk, stop) => {}
                    never = say_keys(&desk, ends) => match never {},
                }
            }
            Some(address) => {
                let (listener, at) = listen(address).await?;
                let text = format!("ready to redeem and to be paid at {at}; Ctrl-C ends it");
                out.data(text, &json!({"event": "ready", "listen": at}));
                tokio::select! {
                    served = serve_and_say(&desk, listener, stop) => served?,
                    never = say_keys(&desk, ends) => match never {},
                }
            }
        }
        for dialed in dialed {
            dialed.finish().await;
        }
        Ok(())
    })
}

/// A place to listen, and where it is. Errors: `IO`.
pub async fn listen(address: &str) -> Result<(TcpListener, String)> {
    let io = |e: std::io::Error| Error::new(Code::Io, format!("listening on {address}: {e}"));
    let listener = TcpListener::bind(address).await.map_err(io)?;
    let at = listener.local_addr().map_err(io)?.to_string();
    Ok((listener, at))
}

/// Serves the other sides of the channels and the payers of virtual channels, and says what happens, until `stop`. Errors: `IO`.
pub async fn serve_and_say(
    desk: &Desk,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let served = serve(&desk.channels, *desk.committee.id(), listener, async move {
        stop.await;
        tracing::info!("stopping");
        drop(end);
    });
    let says = say_all(desk, async {
        let _ = ended.await;
    });
    tokio::join!(served, says).0
}

/// Says this wallet's keys in these channels, if it has not yet: before that nobody is let in.
async fn say_keys(desk: &Desk, mut ends: Vec<EndId>) -> Infallible {
    loop {
        for end in std::mem::take(&mut ends) {
            if let Err(e) = desk.say_keys(end, KEYS_PATIENCE).await {
                tracing::debug!("the keys of channel {}: {e}", hex::encode(end.channel));
                ends.push(end);
            }
        }
        tokio::time::sleep(KEYS_PATIENCE).await;
    }
}

/// Ready at SIGTERM or SIGINT.
pub fn stopped() -> Result<impl Future<Output = ()> + Send + 'static> {
    let stop = |kind| {
        tokio::signal::unix::signal(kind).map_err(|e| Error::new(Code::Io, format!("cannot wait for signals: {e}")))
    };
    let (mut term, mut int) = (stop(SignalKind::terminate())?, stop(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// Says what happens, until `end`.
pub async fn say_all(desk: &Desk, end: impl Future<Output = ()>) {
    let (mut events, mut payments) = (desk.channels.events(), desk.channels.payment_events());
    let mut virtuals = desk.channels.virtual_events();
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return,
            event = events.recv() => match event {
                Ok(event) => say(desk, &event),
                // Slow output misses events; the state is what counts.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            event = payments.recv() => match event {
                Ok(event) => say_payment(desk, &event),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            event = virtuals.recv() => match event {
                Ok(event) => say_virtual(desk, &event),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
        }
    }
}

fn say_payment(desk: &Desk, event: &hub::Event) {
    let short = |end: &EndId| hex::encode(&end.channel[..4]);
    let id = |end: &EndId| hex::encode(end.channel);
    let reason = |code: u32| Code::from_number(code).map_or("?", Code::name);
    let (text, value) = match event {
        hub::Event::Paid { payment, .. } => {
            (format!("payment {payment} is made"), json!({"event": "paid", "payment": payment}))
        }
        hub::Event::NotPaid { payment, code, message } => {
            let text = format!("payment {payment} has moved nothing: {} {message}", reason(*code));
            (text, json!({"event": "not paid", "payment": payment, "code": code, "message": message}))
        }
        hub::Event::InvoicePaid { secret_hash, amount } => {
            let (hash, text) = (hex::encode(secret_hash), desk.amount(*amount));
            let value = json!({"event": "invoice paid", "secret_hash": hash, "amount": desk.json(*amount)});
            (format!("invoice {} is paid: {text}", &hash[..8]), value)
        }
        hub::Event::Forwarded { from, to, fee } => {
            let text = format!("passed on from {} to {}, fee {}", short(from), short(to), desk.amount(*fee));
            (text, json!({"event": "passed on", "from": id(from), "to": id(to), "fee": desk.json(*fee)}))
        }
        hub::Event::Stuck { end, lane, code } => {
            let text = format!("{} lane {lane} is locked until its time is over: {}", short(end), reason(*code));
            (text, json!({"event": "stuck", "channel": id(end), "lane": lane, "code": code}))
        }
        hub::Event::Diverged(end) => {
            let text = format!(
                "{} the other side holds vouchers that this journal has forgotten: nothing is signed",
                short(end)
            );
            (text, json!({"event": "diverged", "channel": id(end)}))
        }
    };
    desk.out.data(text, &value);
}

fn say(desk: &Desk, event: &Event) {
    let short = |end: &florin_core::channel::manager::EndId| hex::encode(&end.channel[..4]);
    let (end, what) = match event {
        Event::Opened(end) => (end, "is open".to_owned()),
        Event::Deposited { end, amount } => (end, format!("has {} more", desk.amount(*amount))),
        Event::Redeemed { end, lane, amount, .. } => {
            (end, format!("lane {lane} has moved {} in the log", desk.amount(*amount)))
        }
        Event::Settling { end, at_ms } => (end, format!("is settling until {}", moment(*at_ms))),
        Event::Collected(end) => (end, "is paid out".into()),
        Event::WithdrawalAnnounced { end, amount, at_ms } => {
            (end, format!("the other side takes {} out from {}", desk.amount(*amount), moment(*at_ms)))
        }
        Event::LockFreed { end, lane, amount } => {
            (end, format!("the lock of {} in lane {lane} is over", desk.amount(*amount)))
        }
        Event::ReservationActive { end, reservation } => (end, format!("reservation {reservation} has its money")),
        Event::ReservationFailed { end, reservation } => (end, format!("reservation {reservation} is released")),
        Event::Diverged(end) => (end, "the log has vouchers that this journal does not know: nothing is signed".into()),
        Event::OpFailed { op, message, .. } => {
            let value = json!({"event": "failed", "operation": op, "message": message});
            return desk.out.data(format!("operation {op} failed: {message}"), &value);
        }
    };
    let value = json!({"channel": hex::encode(end.channel), "side": end.side, "event": what});
    desk.out.data(format!("{} {what}", short(end)), &value);
}

/// A log time for people; one that clocks are still to say is none yet.
pub fn moment(ms: u64) -> String {
    match ms {
        0 | u64::MAX => "a time that is not known yet".to_owned(),
        ms => utc(ms),
    }
}

pub fn name(state: EndState) -> &'static str {
    match state {
        EndState::Opening => "opening",
        EndState::Open => "open",
        EndState::SettlePending => "about to settle",
        EndState::Settling => "settling",
        EndState::Collected => "collected",
        EndState::Failed => "failed",
    }
}

fn direction(status: &Status) -> &'static str {
    match status.direction {
        Direction::Inbound => "to this wallet",
        Direction::Outbound => "from this wallet",
        Direction::TwoWay => "both ways",
    }
}

fn rows(desk: &Desk, status: &Status) -> Vec<(&'static str, String)> {
    let address = |a: &florin_core::address::Address| a.to_text(&desk.committee.network.currency);
    let mut rows = vec![
        ("channel", hex::encode(status.channel)),
        ("state", name(status.state).to_owned()),
        ("pays", direction(status).to_owned()),
        ("from", address(&status.from)),
        ("to", address(&status.to)),
        ("confirmed", desk.amount(status.confirmed)),
        ("available", desk.amount(status.available)),
        ("reserved", desk.amount(status.reserved)),
        ("paid", desk.amount(status.committed)),
        ("locked", desk.amount(status.locked)),
        ("vouchers held", desk.amount(status.received)),
    ];
    if status.pending + status.queued > 0 {
        rows.push(("on its way", desk.amount(status.pending + status.queued)));
    }
    if status.settling_at_ms != 0 {
        rows.push(("collect from", moment(status.settling_at_ms)));
    }
    if status.leaving_at_ms != 0 {
        rows.push((
            "other side takes",
            format!("{} from {}", desk.amount(status.leaving), moment(status.leaving_at_ms)),
        ));
    }
    if status.diverged {
        rows.push(("warning", "the log has vouchers that this journal does not know: nothing is signed".into()));
    }
    rows
}

fn value(desk: &Desk, status: &Status) -> Value {
    let address = |a: &florin_core::address::Address| a.to_text(&desk.committee.network.currency);
    json!({"channel": hex::encode(status.channel), "side": status.side, "state": name(status.state),
        "two_way": status.direction == Direction::TwoWay, "from": address(&status.from), "to": address(&status.to),
        "confirmed": desk.json(status.confirmed), "pending": desk.json(status.pending), "queued": desk.json(status.queued),
        "available": desk.json(status.available), "reserved": desk.json(status.reserved),
        "committed": desk.json(status.committed), "locked": desk.json(status.locked), "received": desk.json(status.received),
        "settling_at_ms": status.settling_at_ms, "diverged": status.diverged})
}
