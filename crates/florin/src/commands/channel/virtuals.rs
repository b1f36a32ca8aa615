//! `florin channel virtual`: virtual channels.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Subcommand;
use florin_client::channel::text::{decode_payment, encode_payment};
use florin_client::channel::{LOOK, Payee, ask};
use florin_client::keystore::new_entropy;
use florin_client::time::utc;
use florin_core::address::Address;
use florin_core::channel::manager::{Direction, EndId, Status as ChannelStatus};
use florin_core::channel::virtuals::{Event, Input, Open, Reply, Role, Status, Step, To, VirtualId, plan};
use florin_core::channel::voucher::virtual_amount;
use florin_core::merkle::Hash;
use florin_core::permission::Permission;
use florin_core::wire::{HubTermsRequest, SignedPermit};
use florin_core::{Code, Error, Result};
use serde_json::json;

use super::desk::{Desk, DeskArgs, There, host_port, there};
use super::life::{Span, span};
use crate::commands::support::{fields, table};
use crate::commands::wallet::duration;
use crate::output::Output;

/// Characters of an id that are enough, if they are of one alone.
const ID_CHARS_MIN: usize = 6;

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Open one to an address, over hubs, and print its id when it is open up to there
    Open(OpenArgs),
    /// Pay over it: print the payment, or send it to the payee. Needs no hub and no log
    Pay(PayArgs),
    /// Take a payment that the payer has printed
    Receive(ReceiveArgs),
    /// Those that this wallet pays on, is paid on, or passes on
    List(ListArgs),
    /// Close it: the payee shows the last amount, the payer asks the payee to
    Close(CloseArgs),
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    match command {
        Command::Open(args) => open(args, out),
        Command::Pay(args) => pay(args, out),
        Command::Receive(args) => receive(args, out),
        Command::List(args) => list(args, out),
        Command::Close(args) => close(args, out),
    }
}

/// Options of `channel virtual open`.
#[derive(clap::Args)]
pub struct OpenArgs {
    #[command(flatten)]
    desk: DeskArgs,
    /// Address of the payee
    payee: String,
    /// Most that can be paid over it, as 20
    #[arg(long, value_name = "AMOUNT")]
    cap: String,
    /// Where the other side of the own channel is: the first hub, or the payee itself
    #[arg(long, env = "FLORIN_HUB", value_name = "HOST:PORT", value_parser = host_port)]
    hub: String,
    /// The own channel to lock the cap in, or the beginning of its id; not needed if one alone would do
    #[arg(long, value_name = "CHANNEL")]
    via: Option<String>,
    /// The next hub: where it is, and in which channel the one before pays it. Once for each further hub, in their order
    #[arg(long, value_name = "CHANNEL@HOST:PORT", value_parser = there)]
    then: Vec<There>,
    /// How long it can be paid over, as 30m or 8h; to the payee, who has to claim by then
    #[arg(long, value_name = "DURATION", default_value = "8h", value_parser = span)]
    expires: Span,
    /// Most that all hubs together may take, as 0.05
    #[arg(long, value_name = "AMOUNT")]
    max_fee: Option<String>,
    /// How long to wait for it, as 500ms, 10s or 2m; it goes on when both sides are connected again
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    wait: Duration,
}

fn open(args: OpenArgs, out: Output) -> Result<()> {
    args.desk.run(out, true, async |desk| {
        let deadline = Instant::now() + args.wait;
        let payee = Address::from_text(&args.payee, &desk.committee.network.currency)?;
        let pays = |status: &ChannelStatus| status.direction != Direction::Inbound;
        let end = desk.end_or_only(args.via.as_deref(), "--via", pays).await?;
        let open = find_way(&desk, &args, payee, end).await?;
        let (id, cap, fee, until) =
            (open.id, open.cap, open.fee, open.hops.last().map_or(open.not_after_ms, |hop| hop.not_after_ms));
        if let Some(most) = args.max_fee.as_deref().map(|text| desk.parse(text)).transpose()?
            && fee > most
        {
            let expected = format!("at most {}", desk.amount(most));
            return Err(Error::expected(Code::HubFee, "fee of the hubs", expected, desk.amount(fee)));
        }
        let dialed = desk.channels.dial(end, &args.hub);
        dialed.ready_for_virtuals(&desk.channels, args.wait).await?;
        out.note(format_args!("a cap of {} and a fee of {}", desk.amount(cap), desk.amount(fee)));
        desk.channels.virtuals(Input::Open(open)).await?;
        wait_for(&desk, id, deadline, |status| status.opened || status.over).await?;
        let status = desk.channels.look(move |all, _| all.virtuals.status(&id)).await??;
        dialed.finish().await;
        if !status.opened {
            let code = Code::from_number(status.code).unwrap_or(Code::VirtualOver);
            let message = "the virtual channel was not opened; a fee that was asked for it is paid";
            return Err(Error::new(code, format!("{message} (virtual channel {})", hex::encode(id))));
        }
        let payee = payee.to_text(&desk.committee.network.currency);
        let rows = [
            ("virtual", hex::encode(id)),
            ("payee", payee.clone()),
            ("cap", desk.amount(cap)),
            ("fee", desk.amount(fee)),
            ("until", utc(until)),
        ];
        let value = json!({"virtual": hex::encode(id), "payee": payee, "cap": desk.json(cap), "fee": desk.json(fee),
            "until": utc(until), "until_ms": until});
        out.data(fields(&rows), &value);
        Ok(())
    })
}

/// Asks the hubs on the way for their terms.
async fn find_way(desk: &Desk, args: &OpenArgs, payee: Address, end: EndId) -> Result<Open> {
    let status = desk.status(end).await?;
    let other = if end.side == 0 { status.to } else { status.from };
    let mut ways = Vec::new();
    let mut at = args.hub.clone();
    for next in &args.then {
        let channel = hex::decode(&next.channel).ok().and_then(|id| Hash::try_from(id).ok());
        let whole = || Error::expected(Code::Usage, "channel of --then", "its whole id", &next.channel);
        ways.push((std::mem::replace(&mut at, next.address.clone()), To::Channel(channel.ok_or_else(whole)?)));
    }
    if other != payee || !ways.is_empty() {
        ways.push((at, To::Party(payee)));
    }
    let mut steps = Vec::new();
    for (address, to) in ways {
        let request = match &to {
            To::Channel(channel) => HubTermsRequest { channel: Bytes::copy_from_slice(channel), party: Bytes::new() },
            To::Party(party) => {
                HubTermsRequest { channel: Bytes::new(), party: Bytes::copy_from_slice(party.as_bytes()) }
            }
        };
        let says = ask(&address, desk.committee.id(), request).await?;
        let none = || Error::new(Code::HubRoute, format!("the hub at {address} opens no virtual channels for others"));
        let terms = says.virtuals.ok_or_else(none)?;
        if !says.is_ready {
            let whom = match to {
                To::Channel(channel) => format!("the other side of channel {}", hex::encode(channel)),
                To::Party(party) => party.to_text(&desk.committee.network.currency),
            };
            let message = format!("the hub at {address} is not connected with {whom}: nothing was locked");
            return Err(Error::new(Code::HubOffline, message));
        }
        steps.push(Step { to, terms });
    }
    desk.say_keys(end, args.wait).await?;
    let (permission, _) = desk.channels.read(move |manager| manager.keys_of(&end, end.side)).await??;
    let now = desk.channels.look(|_, now| now.log_ms).await?;
    let until = now.saturating_add(args.expires.0.as_millis() as u64);
    plan(*new_entropy::<32>()?, end, permission.encode(), (desk.parse(&args.cap)?, until), &steps)
}

async fn wait_for(desk: &Desk, id: VirtualId, deadline: Instant, done: impl Fn(&Status) -> bool) -> Result<Status> {
    loop {
        let status = desk.channels.look(move |all, _| all.virtuals.status(&id)).await??;
        if done(&status) {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            let message = "is not done yet; it goes on when the two sides of its channels are connected";
            return Err(Error::new(Code::Timeout, format!("virtual channel {} {message}", hex::encode(id))));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The one that begins so. Errors: `USAGE`, `VIRTUAL_CHANNEL`.
async fn named(desk: &Desk, text: &str) -> Result<(VirtualId, Status)> {
    let wanted = text.to_ascii_lowercase();
    if wanted.len() < ID_CHARS_MIN {
        let expected = format!("at least {ID_CHARS_MIN} hex digits");
        return Err(Error::expected(Code::Usage, "virtual channel", expected, format!("{wanted:?}")));
    }
    let begins = wanted.clone();
    let found: Vec<VirtualId> = desk
        .channels
        .look(move |all, _| all.virtuals.ids().filter(|id| hex::encode(id).starts_with(&begins)).copied().collect())
        .await?;
    match found[..] {
        [id] => Ok((id, desk.channels.look(move |all, _| all.virtuals.status(&id)).await??)),
        [] => {
            let message = format!("there is no virtual channel {wanted}; `florin channel virtual list` shows them");
            Err(Error::new(Code::VirtualChannel, message))
        }
        _ => Err(Error::new(Code::Usage, format!("several virtual channels begin with {wanted}: write more of it"))),
    }
}

/// Options of `channel virtual pay`.
#[derive(clap::Args)]
pub struct PayArgs {
    #[command(flatten)]
    desk: DeskArgs,
    /// The virtual channel's id, or its beginning
    id: String,
    /// Amount, as 12 or 12.50; 0 says the last one again
    amount: String,
    /// Where the payee listens; without it the payment is printed
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    to: Option<String>,
}

fn pay(args: PayArgs, out: Output) -> Result<()> {
    args.desk.run(out, false, async |desk| {
        let (id, status) = named(&desk, &args.id).await?;
        let more = desk.parse(&args.amount)?;
        let total = status.amount.checked_add(more).ok_or_else(|| Error::new(Code::BadAmount, "2^64 or more"))?;
        // Who is not there is paid nothing.
        let payee = match &args.to {
            Some(address) => Some(Payee::connect(address).await?),
            None => None,
        };
        let payment = match desk.channels.virtuals(Input::Pay { id, amount: total }).await? {
            Reply::Signed(payment) => payment,
            other => return Err(unexpected(&other)),
        };
        let left = desk.amount(status.cap.saturating_sub(total));
        out.note(format_args!("{} in all, {left} left", desk.amount(total)));
        let Some(mut payee) = payee else {
            let text = encode_payment(&payment, &desk.committee);
            let value = json!({"payment": text, "virtual": hex::encode(id), "amount": desk.json(more), "paid": desk.json(total)});
            out.data(&text, &value);
            return Ok(());
        };
        let kept = payee.pay(&id, payment).await?;
        if kept < total {
            let expected = format!("at least {}", desk.amount(total));
            return Err(Error::expected(Code::VirtualAmount, "what the payee keeps", expected, desk.amount(kept)));
        }
        let rows = [("paid", desk.amount(more)), ("in all", desk.amount(total)), ("left", left)];
        let value = json!({"virtual": hex::encode(id), "amount": desk.json(more), "paid": desk.json(total),
            "left": desk.json(status.cap.saturating_sub(total))});
        out.data(fields(&rows), &value);
        Ok(())
    })
}

/// Options of `channel virtual receive`.
#[derive(clap::Args)]
pub struct ReceiveArgs {
    #[command(flatten)]
    desk: DeskArgs,
    /// The payment; `-` reads it from stdin
    payment: String,
}

fn receive(args: ReceiveArgs, out: Output) -> Result<()> {
    let text = match &args.payment[..] {
        "-" => std::io::read_to_string(std::io::stdin())
            .map_err(|e| Error::new(Code::Io, format!("cannot read stdin: {e}")))?,
        text => text.to_owned(),
    };
    args.desk.run(out, true, async |desk| {
        let payment = decode_payment(&text, &desk.committee)?;
        let id = id_of(&payment)?;
        let worth = match desk.channels.virtuals(Input::Payments(vec![payment])).await? {
            Reply::Received(mut all) => all.pop().unwrap_or(Ok(0))?,
            other => return Err(unexpected(&other)),
        };
        let held = desk.channels.look(move |all, _| all.virtuals.status(&id)).await??.amount;
        let rows = [("virtual", hex::encode(id)), ("worth", desk.amount(worth)), ("in all", desk.amount(held))];
        let value = json!({"virtual": hex::encode(id), "amount": desk.json(worth), "paid": desk.json(held)});
        out.data(fields(&rows), &value);
        Ok(())
    })
}

fn id_of(payment: &SignedPermit) -> Result<VirtualId> {
    let id = virtual_amount(payment)?.id;
    VirtualId::try_from(&id[..]).map_err(|_| Error::new(Code::BadContent, "a virtual channel's id has 32 bytes"))
}

/// Options of `channel virtual list`.
#[derive(clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    desk: DeskArgs,
    /// Also those that are over
    #[arg(long)]
    all: bool,
}

fn list(args: ListArgs, out: Output) -> Result<()> {
    args.desk.run(out, false, async |desk| {
        let all: Vec<(VirtualId, Status)> = desk
            .channels
            .look(|all, _| {
                let ids = all.virtuals.ids();
                ids.filter_map(|id| Some((*id, all.virtuals.status(id).ok()?))).collect()
            })
            .await?;
        let mut rows =
            vec![["virtual", "this wallet", "with", "state", "cap", "paid", "until"].map(String::from).to_vec()];
        let mut values = Vec::new();
        for (id, one) in all.iter().filter(|(_, one)| args.all || !one.over) {
            let with = with(&desk, one).await?;
            let role = match one.role {
                Role::Payer => "pays",
                Role::Payee => "is paid",
                Role::Hub => "passes on",
            };
            let (paid, until) = (one.cost.or(one.brought).unwrap_or(one.amount), utc(one.not_after_ms));
            let row = [
                hex::encode(id),
                role.into(),
                with.clone(),
                state(one),
                desk.amount(one.cap),
                desk.amount(paid),
                until.clone(),
            ];
            rows.push(row.to_vec());
            values.push(json!({"virtual": hex::encode(id), "role": role, "with": with, "state": state(one),
                "cap": desk.json(one.cap), "paid": desk.json(paid), "until": until, "until_ms": one.not_after_ms}));
        }
        let text = if values.is_empty() { "no virtual channels".to_owned() } else { table(&rows) };
        out.data(text, &json!({"virtuals": values}));
        Ok(())
    })
}

/// The payee's address for the payer, the payer's keys' for everybody else.
async fn with(desk: &Desk, one: &Status) -> Result<String> {
    let currency = &desk.committee.network.currency;
    if let (Role::Payer, Some(end)) = (one.role, one.out) {
        let status = desk.status(end).await?;
        let other = if end.side == 0 { status.to } else { status.from };
        return Ok(one.payee.unwrap_or(other).to_text(currency));
    }
    Ok(Permission::decode_account(&one.permission)?.address(desk.committee.network.id).to_text(currency))
}

fn state(one: &Status) -> String {
    match (one.over, one.opened) {
        (true, true) => "over".to_owned(),
        (true, false) => format!("not opened: {}", Code::from_number(one.code).map_or("OVER", Code::name)),
        (false, _) if one.closing => "closing".to_owned(),
        (false, true) => "open".to_owned(),
        (false, false) => "opening".to_owned(),
    }
}

/// Options of `channel virtual close`.
#[derive(clap::Args)]
pub struct CloseArgs {
    #[command(flatten)]
    desk: DeskArgs,
    /// The virtual channel's id, or its beginning
    id: String,
    /// Where the other side of the own channel is
    #[arg(long, env = "FLORIN_HUB", value_name = "HOST:PORT", value_parser = host_port)]
    hub: Option<String>,
    /// For the payer: where the payee listens, to ask it to
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    to: Option<String>,
    /// How long to wait for it, as 500ms, 10s or 2m; it goes on when both sides are connected again
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    wait: Duration,
}

fn close(args: CloseArgs, out: Output) -> Result<()> {
    args.desk.run(out, true, async |desk| {
        let deadline = Instant::now() + args.wait;
        let (id, status) = named(&desk, &args.id).await?;
        let (end, needs) = match status.role {
            Role::Payer => (status.out, ("--to", &args.to)),
            _ => (status.inc, ("--hub", &args.hub)),
        };
        let missing = || Error::expected(Code::Usage, "where the other party is", needs.0, "nothing");
        let address = needs.1.as_deref().ok_or_else(missing)?;
        let mut dialed = None;
        if let (Some(end), Some(hub), false) = (end, &args.hub, status.over) {
            let one = desk.channels.dial(end, hub);
            one.ready_for_virtuals(&desk.channels, args.wait).await?;
            dialed = Some(one);
        }
        if !status.over {
            // It says it to the hub, or says that the payer is to ask.
            desk.channels.virtuals(Input::Close(id)).await?;
            if status.role == Role::Payer {
                Payee::connect(address).await?.close(&id).await?;
            }
        }
        let status = match &dialed {
            Some(_) => wait_for(&desk, id, deadline, |status| status.over).await?,
            None => status,
        };
        if let Some(dialed) = dialed {
            dialed.finish().await;
        }
        let paid = status.cost.or(status.brought).unwrap_or(status.amount);
        let rows = [("state", state(&status)), ("paid", desk.amount(paid))];
        out.data(fields(&rows), &json!({"virtual": hex::encode(id), "state": state(&status), "paid": desk.json(paid)}));
        Ok(())
    })
}

fn unexpected(reply: &Reply) -> Error {
    Error::new(Code::Decode, format!("the machine of virtual channels answered {reply:?}"))
}

/// One line an event.
pub fn say_virtual(desk: &Desk, event: &Event) {
    let short = |id: &VirtualId| hex::encode(&id[..4]);
    let (text, value) = match event {
        Event::Opened(id) => (
            format!("virtual channel {} is open", short(id)),
            json!({"event": "virtual opened", "virtual": hex::encode(id)}),
        ),
        Event::Accepted(id) => {
            let value = json!({"event": "virtual accepted", "virtual": hex::encode(id)});
            (format!("virtual channel {} is open to this wallet", short(id)), value)
        }
        Event::Acknowledged { id, amount } => {
            let value = json!({"event": "virtual kept", "virtual": hex::encode(id), "paid": desk.json(*amount)});
            (format!("virtual channel {}: {} is kept", short(id), desk.amount(*amount)), value)
        }
        Event::Over { id, outgoing, paid, code } => {
            let why = Code::from_number(*code).map_or(String::new(), |code| format!(": {}", code.name()));
            let what = if *outgoing { "has paid" } else { "has brought" };
            let value = json!({"event": "virtual over", "virtual": hex::encode(id), "outgoing": outgoing,
                "paid": desk.json(*paid), "code": code});
            (format!("virtual channel {} {what} {}{why}", short(id), desk.amount(*paid)), value)
        }
        Event::Diverged(end) => {
            let text = "the other side holds vouchers that this journal has forgotten: no virtual channels are signed";
            let id = hex::encode(end.channel);
            (format!("{} {text}", &id[..8]), json!({"event": "virtual diverged", "channel": id}))
        }
    };
    desk.out.data(text, &value);
}
