//! `florin channel open`, `fund`, `reserve`, `release`, `permit` and `withdraw`: money into a channel and out of it.

use bytes::Bytes;
use florin_client::channel::text::{decode_permit, encode_permit};
use florin_core::address::Address;
use florin_core::channel::manager::{Create, Input, Reply, Reserve, Use};
use florin_core::{Code, Error, Result};
use serde_json::json;

use super::desk::{DeskArgs, OneArgs, Wait, Which, parse, unexpected};
use super::life::{Span, span};
use crate::commands::support::fields;
use crate::output::Output;

/// Options of `channel open`.
#[derive(clap::Args)]
pub struct OpenArgs {
    #[command(flatten)]
    desk: DeskArgs,
    #[command(flatten)]
    wait: Wait,
    /// What to put in, as 12 or 12.50; 0 for nothing yet
    amount: String,
    /// The other side's address
    #[arg(long, value_name = "ADDRESS")]
    to: String,
    /// Account of this wallet that opens it
    #[arg(long, default_value_t = 0)]
    account: u32,
    /// Log time between settle and collect, as 30m, 24h or 7d: the other side must be there once in that time
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = span)]
    delay: Span,
    /// The other side pays, too
    #[arg(long)]
    two_way: bool,
    /// An id of your own: repeat the command with it, and one channel is opened
    #[arg(long, value_name = "TEXT")]
    id: Option<String>,
}

/// `channel open`.
pub fn open(args: OpenArgs, out: Output) -> Result<()> {
    let committee = args.desk.place.committee()?;
    let amount = parse(&committee, &args.amount)?;
    let to = Address::from_text(&args.to, &committee.network.currency)?;
    let from = args.desk.place.keystore()?.address(args.account)?;
    let key = match &args.id {
        Some(id) => id.clone(),
        None => hex::encode(&florin_client::keystore::new_entropy::<16>()?[..]),
    };
    args.desk.run(out, true, async |desk| {
        let create = Create {
            key: Bytes::from(key),
            from,
            to,
            to_permission: Bytes::new(),
            amount,
            delay_ms: args.delay.0.as_millis() as u64,
            two_way: args.two_way,
        };
        let op = desk.op(Input::Create(create)).await?;
        let status = desk.done(op, &args.wait).await?;
        let id = status.end.map(|end| hex::encode(end.channel)).unwrap_or_default();
        let rows = [
            ("channel", if id.is_empty() { "not known yet".to_owned() } else { id.clone() }),
            ("to", args.to.clone()),
            ("amount", desk.amount(amount)),
            ("state", if status.state.is_open() { "opening".into() } else { "open".into() }),
        ];
        let value = json!({"channel": id, "operation": op, "amount": desk.json(amount), "to": args.to,
            "open": !status.state.is_open()});
        out.data(fields(&rows), &value);
        Ok(())
    })
}

/// Options of `channel fund`.
#[derive(clap::Args)]
pub struct FundArgs {
    #[command(flatten)]
    desk: DeskArgs,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    which: Which,
    /// Amount, as 12 or 12.50
    amount: String,
    /// An id of your own: repeat the command with it, and it is put in once
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    id: String,
}

/// `channel fund`.
pub fn fund(args: FundArgs, out: Output) -> Result<()> {
    args.desk.run(out, true, async |desk| {
        let (end, amount) = (desk.end(&args.which).await?, desk.parse(&args.amount)?);
        let op = desk.op(Input::AddFunds { end, key: Bytes::from(args.id.clone()), amount }).await?;
        desk.done(op, &args.wait).await?;
        let status = desk.status(end).await?;
        let rows = [
            ("put in", desk.amount(amount)),
            ("confirmed", desk.amount(status.confirmed)),
            ("available", desk.amount(status.available)),
        ];
        let value = json!({"operation": op, "amount": desk.json(amount), "confirmed": desk.json(status.confirmed),
            "available": desk.json(status.available)});
        out.data(fields(&rows), &value);
        Ok(())
    })
}

/// Options of `channel reserve`.
#[derive(clap::Args)]
pub struct ReserveArgs {
    #[command(flatten)]
    desk: DeskArgs,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    which: Which,
    /// Amount, as 12 or 12.50
    amount: String,
    /// For the vouchers of this lane, which use it up
    #[arg(long)]
    lane: Option<u32>,
    /// Fail if the channel is short, instead of topping it up
    #[arg(long)]
    off_chain: bool,
    /// An id of your own: repeat the command with it, and it is set aside once
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    id: String,
}

/// `channel reserve`.
pub fn reserve(args: ReserveArgs, out: Output) -> Result<()> {
    args.desk.run(out, !args.off_chain, async |desk| {
        let (end, amount) = (desk.end(&args.which).await?, desk.parse(&args.amount)?);
        let reserve = Reserve {
            end,
            key: Bytes::from(args.id.clone()),
            amount,
            usage: args.lane.map_or(Use::Named, Use::Lane),
            off_chain_only: args.off_chain,
        };
        let (reservation, op) = match desk.channels.ask(Input::Reserve(reserve)).await? {
            Reply::Reserved { reservation, op, .. } => (reservation, op),
            other => return Err(unexpected(&other)),
        };
        if let Some(op) = op {
            desk.done(op, &args.wait).await?;
        }
        let status = desk.status(end).await?;
        let rows = [
            ("reservation", reservation.to_string()),
            ("amount", desk.amount(amount)),
            ("available", desk.amount(status.available)),
        ];
        let value = json!({"reservation": reservation, "amount": desk.json(amount),
            "available": desk.json(status.available)});
        out.data(fields(&rows), &value);
        Ok(())
    })
}

/// Options of `channel release`.
#[derive(clap::Args)]
pub struct ReleaseArgs {
    #[command(flatten)]
    desk: DeskArgs,
    #[command(flatten)]
    which: Which,
    /// Number of the reservation
    reservation: u64,
}

/// `channel release`.
pub fn release(args: ReleaseArgs, out: Output) -> Result<()> {
    args.desk.run(out, false, async |desk| {
        let end = desk.end(&args.which).await?;
        let amount = match desk.channels.ask(Input::Release { end, reservation: args.reservation }).await? {
            Reply::Released(amount) => amount,
            other => return Err(unexpected(&other)),
        };
        let available = desk.status(end).await?.available;
        let rows = [("released", desk.amount(amount)), ("available", desk.amount(available))];
        out.data(fields(&rows), &json!({"released": desk.json(amount), "available": desk.json(available)}));
        Ok(())
    })
}

/// `channel keys`.
pub fn keys(args: OneArgs, out: Output) -> Result<()> {
    args.desk.run(out, true, async |desk| {
        let end = desk.end(&args.which).await?;
        let op = desk.op(Input::Keys(end)).await?;
        let done = !desk.done(op, &args.wait).await?.state.is_open();
        let state = if done { "said" } else { "on their way" };
        out.data(fields(&[("keys", state.to_owned())]), &json!({"operation": op, "done": done}));
        Ok(())
    })
}

/// Options of `channel permit`.
#[derive(clap::Args)]
pub struct PermitArgs {
    #[command(flatten)]
    desk: DeskArgs,
    #[command(flatten)]
    which: Which,
    /// Amount that the other side may take out now, as 12 or 12.50
    amount: String,
}

/// `channel permit`.
pub fn permit(args: PermitArgs, out: Output) -> Result<()> {
    args.desk.run(out, true, async |desk| {
        let (end, amount) = (desk.end(&args.which).await?, desk.parse(&args.amount)?);
        let taken = desk.channels.read(move |manager| manager.withdrawn(&end, 1 - end.side)).await??;
        let withdrawn = taken.checked_add(amount).ok_or_else(|| Error::new(Code::BadAmount, "2^64 or more in all"))?;
        match desk.channels.ask(Input::Permit { end, withdrawn, not_after_ms: 0 }).await? {
            Reply::Permitted(permit) => {
                let text = encode_permit(&permit, &desk.committee);
                out.note(format_args!("the other side may take {} out with this", desk.amount(amount)));
                out.data(&text, &json!({"permit": text, "amount": desk.json(amount)}));
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    })
}

/// Options of `channel withdraw`.
#[derive(clap::Args)]
pub struct WithdrawArgs {
    #[command(flatten)]
    desk: DeskArgs,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    which: Which,
    /// Amount, as 12 or 12.50; 0 takes an announcement back
    amount: String,
    /// The other side's permit
    #[arg(long, value_name = "PERMIT")]
    permit: Option<String>,
    /// Announce it; once the channel's delay is over, the same command without this takes it
    #[arg(long, conflicts_with = "permit")]
    announce: bool,
}

/// `channel withdraw`.
pub fn withdraw(args: WithdrawArgs, out: Output) -> Result<()> {
    args.desk.run(out, true, async |desk| {
        let (end, amount) = (desk.end(&args.which).await?, desk.parse(&args.amount)?);
        let permit = args.permit.as_deref().map(|text| decode_permit(text, &desk.committee)).transpose()?;
        let input = match args.announce || amount == 0 {
            true => Input::Leave { end, amount },
            false => Input::Withdraw { end, amount, permit },
        };
        let op = desk.op(input).await?;
        desk.done(op, &args.wait).await?;
        let what = if args.announce || amount == 0 { "announced" } else { "taken out" };
        let available = desk.status(end).await?.available;
        let rows = [(what, desk.amount(amount)), ("available", desk.amount(available))];
        let value = json!({"operation": op, "announced": args.announce, "amount": desk.json(amount),
            "available": desk.json(available)});
        out.data(fields(&rows), &value);
        Ok(())
    })
}
