//! `florin network`: the registry of networks.

use clap::Subcommand;
use florin_core::address::Address;
use florin_core::wire::{self, network_command::Kind, output};
use florin_core::{Code, Error, Result};
use serde_json::json;

use super::call::{CallArgs, Caller};
use super::support::fields;
use super::wallet::{Question, block_on};
use crate::output::Output;

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Register a network id; the account is its admin. An id is given once
    Register(RegisterArgs),
    /// What enough authorities agree on about a network
    Show(ShowArgs),
    /// Change a network's metadata
    Metadata(MetadataArgs),
    /// Offer a network to another admin
    Offer(OfferArgs),
    /// Accept a network that is offered to the account
    Accept(IdArgs),
    /// Remove a network; its id is never given again
    Remove(IdArgs),
}

/// A network, and who does it.
#[derive(clap::Args)]
pub struct IdArgs {
    #[command(flatten)]
    call: CallArgs,
    /// The network's id, 1 to 2^63 - 1
    #[arg(value_name = "ID")]
    network_id: u64,
}

/// Options of `network register`.
#[derive(clap::Args)]
pub struct RegisterArgs {
    #[command(flatten)]
    id: IdArgs,
    /// Flags, as PBTX defines them
    #[arg(long, value_name = "N", default_value_t = 0)]
    flags: u32,
    /// Text about it, at most 1,024 bytes
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    metadata: String,
    /// Address that may listen; may be given up to 16 times
    #[arg(long, value_name = "ADDRESS")]
    listener: Vec<String>,
}

/// Options of `network show`.
#[derive(clap::Args)]
pub struct ShowArgs {
    #[command(flatten)]
    question: Question,
    /// The network's id
    #[arg(value_name = "ID")]
    network_id: u64,
}

/// Options of `network metadata`.
#[derive(clap::Args)]
pub struct MetadataArgs {
    #[command(flatten)]
    id: IdArgs,
    /// The new text, at most 1,024 bytes
    text: String,
}

/// Options of `network offer`.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("whom").required(true))]
pub struct OfferArgs {
    #[command(flatten)]
    id: IdArgs,
    /// The new admin's address
    #[arg(long, value_name = "ADDRESS", group = "whom")]
    to: Option<String>,
    /// Take an offer back
    #[arg(long, group = "whom")]
    withdraw: bool,
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    match command {
        Command::Register(args) => {
            let caller = Caller::open(&args.id.call, out)?;
            let listeners = args.listener.iter().map(|text| address(text, &caller)).collect::<Result<_>>()?;
            let register =
                wire::NetworkRegister { flags: args.flags, metadata: args.metadata.into(), listeners, open: false };
            run_command(caller, args.id.network_id, Kind::Register(register))
        }
        Command::Show(args) => show(&args, out),
        Command::Metadata(args) => {
            let caller = Caller::open(&args.id.call, out)?;
            let metadata = wire::NetworkMetadata { metadata: args.text.into() };
            run_command(caller, args.id.network_id, Kind::Metadata(metadata))
        }
        Command::Offer(args) => {
            let caller = Caller::open(&args.id.call, out)?;
            let admin = args.to.as_deref().map(|text| address(text, &caller)).transpose()?.unwrap_or_default();
            run_command(caller, args.id.network_id, Kind::Offer(wire::NetworkOffer { admin }))
        }
        Command::Accept(args) => {
            run_command(Caller::open(&args.call, out)?, args.network_id, Kind::Accept(wire::NetworkAccept {}))
        }
        Command::Remove(args) => {
            run_command(Caller::open(&args.call, out)?, args.network_id, Kind::Remove(wire::NetworkRemove {}))
        }
    }
}

fn address(text: &str, caller: &Caller<'_>) -> Result<bytes::Bytes> {
    let address = Address::from_text(text, &caller.committee.network.currency)?;
    Ok(bytes::Bytes::copy_from_slice(address.as_bytes()))
}

fn run_command(caller: Caller<'_>, network_id: u64, kind: Kind) -> Result<()> {
    let command = wire::NetworkCommand { network_id, kind: Some(kind) };
    caller.run(Vec::new(), vec![output::Kind::Network(command)], false, Ok(()))
}

fn show(args: &ShowArgs, out: Output) -> Result<()> {
    let committee = args.question.committee()?;
    let (record, agreeing) = block_on(async { args.question.network(&committee).registered(args.network_id).await })?;
    let Some(record) = record else {
        let message = format!("network {} was never registered", args.network_id);
        return Err(Error::new(Code::UnknownNetwork, message));
    };
    let text = |bytes: &[u8]| match Address::from_slice(bytes) {
        Ok(address) => address.to_text(&committee.network.currency),
        Err(_) => String::new(),
    };
    let listeners: Vec<String> = record.listeners.iter().map(|l| text(l)).collect();
    let metadata = String::from_utf8_lossy(&record.metadata).into_owned();
    let state = if record.removed { "removed" } else { "registered" };
    let rows = [
        ("network", args.network_id.to_string()),
        ("state", state.to_owned()),
        ("admin", text(&record.admin)),
        ("offered to", text(&record.offered)),
        ("flags", record.flags.to_string()),
        // It is the admin's text: control characters stay out of the terminal.
        ("metadata", metadata.escape_debug().to_string()),
        ("listeners", listeners.join(" ")),
        ("agreeing", format!("{agreeing} of {} authorities", committee.size())),
    ];
    let value = json!({"network_id": args.network_id.to_string(), "state": state, "admin": text(&record.admin),
        "offered": text(&record.offered), "flags": record.flags, "metadata": metadata,
        "metadata_hex": hex::encode(&record.metadata), "listeners": listeners, "agreeing": agreeing,
        "authorities": committee.size()});
    let shown: Vec<(&str, String)> = rows.into_iter().filter(|(_, text)| !text.is_empty()).collect();
    out.data(fields(&shown), &value);
    Ok(())
}
