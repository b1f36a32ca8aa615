//! `florin primary`: money out to the primary chain and back in.

use clap::Subcommand;
use florin_core::address::Address;
use florin_core::amount::{format_amount, parse_amount};
use florin_core::wire::{self, output};
use florin_core::{Code, Error, Result};
use serde_json::json;

use super::call::{CallArgs, Caller};
use super::support::fields;
use super::wallet::{Place, block_on};
use crate::output::Output;

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Take money out of the network, to an address of the primary
    Redeem(RedeemArgs),
    /// Bring money that the account's address has on the embedded primary back
    Deposit(DepositArgs),
    /// What enough authorities agree on about the primary, and what an address has there
    Status(StatusArgs),
}

/// Options of `primary redeem`.
#[derive(clap::Args)]
pub struct RedeemArgs {
    #[command(flatten)]
    call: CallArgs,
    /// Amount, as 12 or 12.50
    #[arg(allow_negative_numbers = true)]
    amount: String,
    /// Who gets it on the primary; the account's own address without it
    #[arg(long)]
    address: Option<String>,
}

/// Options of `primary deposit`.
#[derive(clap::Args)]
pub struct DepositArgs {
    #[command(flatten)]
    call: CallArgs,
    /// Amount, as 12 or 12.50
    #[arg(allow_negative_numbers = true)]
    amount: String,
    /// Address to credit in the network; the account's own without it
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,
}

/// Options of `primary status`.
#[derive(clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    place: Place,
    /// Whose address
    #[arg(long, default_value_t = 0)]
    account: u32,
    /// Another address on the primary
    #[arg(long, conflicts_with = "account")]
    address: Option<String>,
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    match command {
        Command::Redeem(args) => redeem(args, out),
        Command::Deposit(args) => deposit(args, out),
        Command::Status(args) => status(args, out),
    }
}

/// An address, or the own one.
fn or_own(text: Option<&str>, caller: &Caller<'_>) -> Result<bytes::Bytes> {
    let address = match text {
        Some(text) => Address::from_text(text, &caller.committee.network.currency)?,
        None => caller.wallet.address(caller.args.account)?,
    };
    Ok(bytes::Bytes::copy_from_slice(address.as_bytes()))
}

fn redeem(args: RedeemArgs, out: Output) -> Result<()> {
    let caller = Caller::open(&args.call, out)?;
    let amount = parse_amount(&args.amount, caller.committee.network.decimals)?;
    let address = or_own(args.address.as_deref(), &caller)?;
    let kind = output::Kind::PrimaryRedeem(wire::PrimaryRedeem { amount, address });
    caller.run(Vec::new(), vec![kind], false, Ok(()))
}

fn deposit(args: DepositArgs, out: Output) -> Result<()> {
    let caller = Caller::open(&args.call, out)?;
    let amount = parse_amount(&args.amount, caller.committee.network.decimals)?;
    let address = or_own(args.to.as_deref(), &caller)?;
    let kind = output::Kind::PrimaryDeposit(wire::PrimaryDeposit { amount, address });
    caller.run(Vec::new(), vec![kind], false, Ok(()))
}

fn status(args: StatusArgs, out: Output) -> Result<()> {
    let committee = args.place.committee()?;
    let network = &committee.network;
    let address = match &args.address {
        Some(text) => Address::from_text(text, &network.currency)?,
        None => args.place.keystore()?.address(args.account)?,
    };
    let (reply, agreeing) = block_on(async { args.place.network(&committee).primary(address.as_bytes()).await })?;
    if reply.committee_id[..] != committee.id()[..] {
        let (expected, found) = (hex::encode(committee.id()), hex::encode(&reply.committee_id));
        return Err(Error::expected(Code::WrongCommittee, "committee of the primary", expected, found));
    }
    let amount = |minor: u64| format_amount(minor.into(), network.decimals);
    let text = address.to_text(&network.currency);
    let rows = [
        ("address", text.clone()),
        ("balance", format!("{} {}", amount(reply.balance), network.currency)),
        ("all funds", format!("{} {}", amount(reply.total_funds), network.currency)),
        ("redeems", reply.redeems.to_string()),
        ("deposits", reply.deposits.to_string()),
        ("agreeing", format!("{agreeing} of {} authorities", committee.size())),
    ];
    let value = json!({"address": text, "balance": amount(reply.balance), "balance_minor": reply.balance.to_string(),
        "total_funds": amount(reply.total_funds), "total_funds_minor": reply.total_funds.to_string(),
        "currency": network.currency, "redeems": reply.redeems, "deposits": reply.deposits, "agreeing": agreeing,
        "authorities": committee.size()});
    out.data(fields(&rows), &value);
    Ok(())
}
