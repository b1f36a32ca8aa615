//! `florin channel request` and `send`: payments over hubs.

use std::time::{Duration, Instant};

use bytes::Bytes;
use florin_client::channel::text::{decode_invoice, encode_invoice};
use florin_client::channel::{LOOK, terms};
use florin_client::keystore::new_entropy;
use florin_client::time::utc;
use florin_core::channel::hub::{self, Ask, InvoiceState, Pay, PaymentId, PaymentState, Route, Step, plan};
use florin_core::channel::manager::{Direction, EndId};
use florin_core::merkle::Hash;
use florin_core::wire::HubInvoice;
use florin_core::{Code, Error, Result};
use serde_json::json;

use super::desk::{Desk, DeskArgs, There, host_port, there};
use super::life::{Span, span};
use crate::commands::support::fields;
use crate::commands::wallet::duration;
use crate::output::Output;

/// How long the other side has to say that it has got the money.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Options of `channel request`.
#[derive(clap::Args)]
pub struct RequestArgs {
    #[command(flatten)]
    desk: DeskArgs,
    /// Amount, as 12 or 12.50
    amount: String,
    /// The channel with the hub, or the beginning of its id; not needed if one alone would do
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// Where the hub is
    #[arg(long, env = "FLORIN_HUB", value_name = "HOST:PORT", value_parser = host_port)]
    hub: String,
    /// For the payer to read
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    memo: String,
    /// How long it can be paid, as 30s, 30m or 24h
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = span)]
    expires: Span,
    /// How long to wait for the hub, as 500ms, 10s or 2m
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    wait: Duration,
}

/// `channel request`.
pub fn request(args: RequestArgs, out: Output) -> Result<()> {
    args.desk.run(out, true, async |desk| {
        let amount = desk.parse(&args.amount)?;
        let paid = |status: &florin_core::channel::manager::Status| status.direction != Direction::Outbound;
        let end = desk.end_or_only(args.channel.as_deref(), "--channel", paid).await?;
        desk.say_keys(end, args.wait).await?;
        // Only who is connected can be paid.
        let dialed = desk.channels.dial(end, &args.hub);
        dialed.ready(&desk.channels, args.wait).await?;
        let now = desk.channels.read_hub(|_, _, now| now.log_ms).await?;
        let expires_ms = now.saturating_add(args.expires.0.as_millis() as u64);
        let ask = Ask { end, amount, secret: *new_entropy::<32>()?, expires_ms, memo: args.memo.clone() };
        let (invoice, hash) = match desk.channels.hub(hub::Input::Ask(ask)).await? {
            hub::Reply::Invoice(invoice, hash) => (invoice, hash),
            other => return Err(unexpected(&other)),
        };
        let text = encode_invoice(&invoice, &args.hub, &desk.committee);
        out.note(format_args!("{} until {}; waiting for it here", desk.amount(amount), utc(expires_ms)));
        let value = json!({"invoice": text, "amount": desk.json(amount), "secret_hash": hex::encode(hash),
            "channel": hex::encode(end.channel), "expires": utc(expires_ms),
            "expires_ms": expires_ms});
        out.data(&text, &value);
        wait_for_money(&desk, hash, expires_ms).await?;
        out.data(format!("paid {}", desk.amount(amount)), &json!({"paid": desk.json(amount)}));
        dialed.finish().await;
        Ok(())
    })
}

async fn wait_for_money(desk: &Desk, hash: Hash, expires_ms: u64) -> Result<()> {
    loop {
        let look =
            move |hub: &hub::Hub, _: &_, now: florin_core::channel::manager::Now| (hub.invoice(&hash), now.log_ms);
        let (state, now) = desk.channels.read_hub(look).await?;
        match state? {
            InvoiceState::Paid => return Ok(()),
            InvoiceState::Open if now > expires_ms => {
                return Err(Error::new(Code::InvoiceOver, format!("nobody has paid it until {}", utc(expires_ms))));
            }
            InvoiceState::Over => return Err(Error::new(Code::LockOver, "the lock for it was given back")),
            InvoiceState::Open | InvoiceState::Locked => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Options of `channel send`.
#[derive(clap::Args)]
pub struct SendArgs {
    #[command(flatten)]
    desk: DeskArgs,
    /// The invoice: flrinvoice1...
    invoice: String,
    /// The own channel to pay in, or the beginning of its id; not needed if one alone would do
    #[arg(long, value_name = "CHANNEL")]
    via: Option<String>,
    /// Where the other side of that channel is, the first hub; without it the one that the invoice names
    #[arg(long, env = "FLORIN_HUB", value_name = "HOST:PORT", value_parser = host_port)]
    hub: Option<String>,
    /// The next hub: where it is, and in which channel the one before pays it. Once for each further hub, in their order
    #[arg(long, value_name = "CHANNEL@HOST:PORT", value_parser = there, requires = "hub")]
    then: Vec<There>,
    /// Most that all hubs together may take, as 0.05
    #[arg(long, value_name = "AMOUNT")]
    max_fee: Option<String>,
    /// How long to wait for the payment, as 500ms, 10s or 2m; it goes on afterwards, and so does the same command again
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    wait: Duration,
}

/// `channel send`.
pub fn send(args: SendArgs, out: Output) -> Result<()> {
    args.desk.run(out, true, async |desk| {
        let (bytes, invoice, hint) = decode_invoice(&args.invoice, &desk.committee)?;
        let hash = Hash::try_from(&invoice.secret_hash[..]).unwrap_or_default();
        let before =
            desk.channels.read_hub(move |hub, _, _| hub.payment_for(&hash).map(|(id, s)| (id, s.clone()))).await?;
        if let Some((payment, PaymentState::Paid(secret))) = &before {
            out.note("it was paid before");
            say_paid(&desk, *payment, &invoice, None, secret);
            return Ok(());
        }
        let pays = |status: &florin_core::channel::manager::Status| status.direction != Direction::Inbound;
        let end = desk.end_or_only(args.via.as_deref(), "--via", pays).await?;
        let hub = args.hub.clone().unwrap_or(hint);
        if hub.is_empty() {
            return Err(Error::new(Code::Usage, "the invoice does not say where the hub is: say it with --hub"));
        }
        let deadline = Instant::now() + args.wait;
        let under_way = before.filter(|(_, state)| *state == PaymentState::InFlight);
        let route = match under_way {
            Some(_) => None,
            None => Some(find_route(&desk, &args, (&bytes, &invoice), end, &hub).await?),
        };
        desk.say_keys(end, args.wait).await?;
        let dialed = desk.channels.dial(end, &hub);
        dialed.ready(&desk.channels, args.wait).await?;
        let fee = route.as_ref().map(|route| cost(route) - invoice.amount);
        let payment = match (under_way, route) {
            (None, Some(route)) => {
                let pay = Pay { key: Bytes::copy_from_slice(&new_entropy::<16>()?[..]), invoice: bytes, route };
                match desk.channels.hub(hub::Input::Pay(pay)).await? {
                    hub::Reply::Payment(payment) => payment,
                    other => return Err(unexpected(&other)),
                }
            }
            (under_way, _) => under_way.map_or(0, |(payment, _)| payment),
        };
        let secret = wait_for_receipt(&desk, payment, deadline).await?;
        say_paid(&desk, payment, &invoice, fee, &secret);
        wait_for_the_last_word(&desk, end, hash).await?;
        dialed.finish().await;
        Ok(())
    })
}

/// What a route takes from the payer, minor units.
fn cost(route: &Route) -> u64 {
    route.amount.saturating_add(route.upfront)
}

/// Asks the hubs on the way for their terms.
async fn find_route(
    desk: &Desk,
    args: &SendArgs,
    (_, invoice): (&Bytes, &HubInvoice),
    end: EndId,
    first: &str,
) -> Result<Route> {
    let last = Hash::try_from(&invoice.channel[..]).unwrap_or_default();
    let mut ways: Vec<(String, Hash)> = Vec::new();
    let mut at = first.to_owned();
    for next in &args.then {
        let channel = hex::decode(&next.channel).ok().and_then(|id| Hash::try_from(id).ok());
        let whole = || Error::expected(Code::Usage, "channel of --then", "its whole id", &next.channel);
        ways.push((std::mem::replace(&mut at, next.address.clone()), channel.ok_or_else(whole)?));
    }
    ways.push((at, last));
    let mut steps = Vec::new();
    for (address, channel) in ways {
        let (terms, ready) = terms(&address, desk.committee.id(), &channel).await?;
        if !ready {
            let (id, message) = (hex::encode(channel), "is not connected with the other side of channel");
            return Err(Error::new(Code::HubOffline, format!("the hub at {address} {message} {id}: nothing was sent")));
        }
        steps.push(Step { channel, terms });
    }
    let now = desk.channels.read_hub(|_, _, now| now.log_ms).await?;
    let route = plan(desk.channels.config(), now, invoice, end, &steps)?;
    let fee = cost(&route) - invoice.amount;
    if let Some(most) = args.max_fee.as_deref().map(|text| desk.parse(text)).transpose()?
        && fee > most
    {
        let expected = format!("at most {}", desk.amount(most));
        return Err(Error::expected(Code::HubFee, "fee of the hubs", expected, desk.amount(fee)));
    }
    desk.out.note(format_args!("{} and a fee of {}", desk.amount(invoice.amount), desk.amount(fee)));
    Ok(route)
}

async fn wait_for_receipt(desk: &Desk, payment: PaymentId, deadline: Instant) -> Result<Bytes> {
    loop {
        match desk.channels.read_hub(move |hub, _, _| hub.payment(payment).cloned()).await?? {
            PaymentState::Paid(secret) => return Ok(secret),
            PaymentState::Failed { code, message } => {
                return Err(Error::new(Code::from_number(code).unwrap_or(Code::LockOver), message));
            }
            PaymentState::InFlight if Instant::now() >= deadline => {
                let message = "it is not decided yet; the same command again waits for it, and does not pay twice";
                return Err(Error::new(Code::Timeout, message));
            }
            PaymentState::InFlight => tokio::time::sleep(LOOK).await,
        }
    }
}

/// It is paid, whatever comes; but the other side need not ask the log for it if it has heard it here.
async fn wait_for_the_last_word(desk: &Desk, end: EndId, hash: Hash) -> Result<()> {
    let deadline = Instant::now() + LAST_WORD;
    let is_open = move |hub: &hub::Hub, _: &_, _| hub.locks(&end).iter().any(|l| l.outgoing && l.secret_hash == hash);
    while desk.channels.read_hub(is_open).await? && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

fn say_paid(desk: &Desk, payment: PaymentId, invoice: &HubInvoice, fee: Option<u64>, secret: &Bytes) {
    let receipt = hex::encode(secret);
    let mut rows = vec![("paid", desk.amount(invoice.amount))];
    rows.extend(fee.map(|fee| ("fee", desk.amount(fee))));
    rows.push(("receipt", receipt.clone()));
    let value = json!({"payment": payment, "paid": desk.json(invoice.amount), "fee": fee.map(|fee| desk.json(fee)),
        "receipt": receipt, "memo": invoice.memo});
    desk.out.data(fields(&rows), &value);
}

fn unexpected(reply: &hub::Reply) -> Error {
    Error::new(Code::Decode, format!("the hub answered {reply:?}"))
}
