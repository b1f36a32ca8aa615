//! `florin channel pay`, `receive`, `vouchers` and `submit`.

use bytes::Bytes;
use florin_client::channel::text::{decode_voucher, encode_voucher};
use florin_core::channel::manager::{Conditions, EndId, Incoming, Input, Issue, Listed, Reply, VoucherState};
use florin_core::channel::voucher::Voucher;
use florin_core::limits::PAGE_MAX;
use florin_core::{Code, Error, Result};
use serde_json::json;

use super::desk::{DeskArgs, OneArgs, Which, unexpected};
use crate::commands::support::{fields, table};
use crate::output::Output;

/// Options of `channel pay`.
#[derive(clap::Args)]
pub struct PayArgs {
    #[command(flatten)]
    desk: DeskArgs,
    #[command(flatten)]
    which: Which,
    /// Amount, as 12 or 12.50
    amount: String,
    /// The lane: payments of one lane replace each other's vouchers
    #[arg(long, default_value_t = 0)]
    lane: u32,
}

/// `channel pay`.
pub fn pay(args: PayArgs, out: Output) -> Result<()> {
    args.desk.run(out, false, async |desk| {
        let (end, amount) = (desk.end(&args.which).await?, desk.parse(&args.amount)?);
        let lane = args.lane;
        let before = desk.channels.read(move |manager| manager.lane_paid(&end, lane)).await??;
        let total = before.checked_add(amount).ok_or_else(|| Error::new(Code::BadAmount, "2^64 or more in a lane"))?;
        let issue = Issue { end, lane, amount: total, conditions: Conditions::default() };
        match desk.channels.ask(Input::VoucherCreate(issue)).await? {
            Reply::Issued { voucher: Some(voucher), .. } => {
                let text = encode_voucher(&voucher, &[], &desk.committee);
                let left = desk.status(end).await?.available;
                out.note(format_args!("{} in lane {lane}, {} left", desk.amount(amount), desk.amount(left)));
                let value = json!({"voucher": text, "amount": desk.json(amount), "lane": lane,
                    "lane_amount": desk.json(total), "available": desk.json(left)});
                out.data(&text, &value);
                Ok(())
            }
            Reply::Issued { shortfall, .. } => {
                let what = "money that the channel has for this";
                let expected = format!("{} more: `florin channel fund`", desk.amount(shortfall));
                Err(Error::expected(Code::ChannelFunds, what, expected, desk.amount(desk.status(end).await?.available)))
            }
            other => Err(unexpected(&other)),
        }
    })
}

/// Options of `channel receive`.
#[derive(clap::Args)]
pub struct ReceiveArgs {
    #[command(flatten)]
    desk: DeskArgs,
    /// The voucher; `-` reads it from stdin
    voucher: String,
    /// Least that it must be worth, as 0.05
    #[arg(long, value_name = "AMOUNT", default_value = "0")]
    min: String,
    /// Don't ask the log whether the channel is as it was
    #[arg(long)]
    offline: bool,
}

/// `channel receive`.
pub fn receive(args: ReceiveArgs, out: Output) -> Result<()> {
    let text = match &args.voucher[..] {
        "-" => std::io::read_to_string(std::io::stdin())
            .map_err(|e| Error::new(Code::Io, format!("cannot read stdin: {e}")))?,
        text => text.to_owned(),
    };
    args.desk.run(out, !args.offline, async |desk| {
        let (signed, secret) = decode_voucher(&text, &desk.committee)?;
        let terms = Voucher::decode(&signed)?.terms;
        let end = of(&terms)?;
        let incoming =
            Incoming { end, voucher: signed, secret, proof: Bytes::new(), min_delta: desk.parse(&args.min)? };
        let added = match desk.channels.ask(Input::VoucherAdd(incoming)).await? {
            Reply::Added(added) => added,
            other => return Err(unexpected(&other)),
        };
        let received = desk.status(end).await?.received;
        let rows = [
            ("channel", hex::encode(end.channel)),
            ("lane", terms.lane.to_string()),
            ("worth", desk.amount(added.delta)),
            ("vouchers held", desk.amount(received)),
        ];
        let value = json!({"channel": hex::encode(end.channel), "lane": terms.lane, "amount": desk.json(added.delta),
            "received": desk.json(received), "locked": added.locked});
        out.data(fields(&rows), &value);
        Ok(())
    })
}

/// The end that a payer's voucher comes to.
fn of(terms: &florin_core::wire::Voucher) -> Result<EndId> {
    let channel = terms.channel[..].try_into();
    let channel = channel.map_err(|_| Error::new(Code::Decode, "a channel's id has 32 bytes"))?;
    Ok(EndId { channel, side: 1 - terms.payer })
}

/// Options of `channel vouchers`.
#[derive(clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    desk: DeskArgs,
    #[command(flatten)]
    which: Which,
    /// Also those that a newer one of their lane has replaced
    #[arg(long)]
    all: bool,
}

/// `channel vouchers`.
pub fn list(args: ListArgs, out: Output) -> Result<()> {
    args.desk.run(out, false, async |desk| {
        let end = desk.end(&args.which).await?;
        let mut listed: Vec<Listed> = Vec::new();
        loop {
            let after = listed.last().map(|one| (one.payer, one.lane, one.nonce));
            let page = desk.channels.read(move |manager| manager.voucher_list(&end, after, PAGE_MAX)).await??;
            if page.is_empty() {
                break;
            }
            listed.extend(page);
        }
        let mut rows = vec![["lane", "nonce", "amount", "paid by", "state"].map(String::from).to_vec()];
        let mut values = Vec::new();
        for one in listed.iter().filter(|one| args.all || !one.superseded) {
            let amount = Voucher::decode(&one.voucher)?.terms.amount;
            let by = if one.payer == end.side { "this wallet" } else { "the other side" };
            rows.push(vec![
                one.lane.to_string(),
                one.nonce.to_string(),
                desk.amount(amount),
                by.into(),
                name(one.state).into(),
            ]);
            let text = encode_voucher(&one.voucher, &one.secret, &desk.committee);
            values.push(json!({"lane": one.lane, "nonce": one.nonce, "amount": desk.json(amount), "payer": one.payer,
                "state": name(one.state), "superseded": one.superseded, "voucher": text}));
        }
        out.data(table(&rows), &json!({"vouchers": values}));
        Ok(())
    })
}

fn name(state: VoucherState) -> &'static str {
    match state {
        VoucherState::Issued => "signed",
        VoucherState::Stored => "stored",
        VoucherState::SubmitPending => "on its way to the log",
        VoucherState::Redeemed => "redeemed",
    }
}

/// `channel submit`.
pub fn submit(args: OneArgs, out: Output) -> Result<()> {
    args.desk.run(out, true, async |desk| {
        let end = desk.end(&args.which).await?;
        let ops = desk.submit_all(end, &args.wait).await?;
        let status = desk.status(end).await?;
        let what = if ops.is_empty() { "nothing to redeem" } else { "redeemed" };
        let rows = [("vouchers", what.to_owned()), ("in the channel", desk.amount(status.available))];
        out.data(fields(&rows), &json!({"operations": ops, "available": desk.json(status.available)}));
        Ok(())
    })
}
