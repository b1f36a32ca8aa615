//! `florin network`: the registry of networks.

mod history;
mod rules;
mod show;

use clap::Subcommand;
use florin_core::address::Address;
use florin_core::committee::Committee;
use florin_core::wire::{self, network_command::Kind};
use florin_core::{Code, Error, Result};

use super::call::{CallArgs, Caller, Heard};
use super::wallet::block_on;
use crate::output::Output;

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Register a network id; the account is its admin. An id is given once
    Register(RegisterArgs),
    /// What enough authorities agree on about a network
    Show(show::ShowArgs),
    /// All networks, in pages
    List(show::ListArgs),
    /// Change a network's metadata
    Metadata(MetadataArgs),
    /// Change flags, listeners, and whether actors register themselves; what is not given stays as it is
    Update(rules::UpdateArgs),
    /// Say what transactions must be for authorities to vote for them; by the admin or a listener, each for itself
    #[command(subcommand)]
    Precheck(rules::PrecheckCommand),
    /// Hand a network to another admin: one offers it, the other accepts it
    Transfer(TransferArgs),
    /// Offer a network to another admin, as `transfer --to`
    #[command(hide = true)]
    Offer(OfferArgs),
    /// Accept a network that is offered to the account, as `transfer --accept`
    #[command(hide = true)]
    Accept(IdArgs),
    /// Remove a network that has no actors; its id is never given again
    Remove(IdArgs),
    /// What has happened in a network with the flag history, with the median of the authorities' times
    History(history::Args),
    /// Forget history, and the listeners' stream with it, that is older than some time
    PruneHistory(rules::PruneArgs),
}

/// A network, and who does it.
#[derive(clap::Args)]
pub struct IdArgs {
    #[command(flatten)]
    pub call: CallArgs,
    /// The network's id, 1 to 2^63 - 1
    #[arg(value_name = "NETWORK")]
    pub network_id: u64,
}

/// Options of `network register`.
#[derive(clap::Args)]
pub struct RegisterArgs {
    #[command(flatten)]
    id: IdArgs,
    #[command(flatten)]
    flags: rules::Flags,
    /// Text about it, at most 1,024 bytes
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    metadata: String,
    /// Address that may listen and set a precheck; may be given up to 16 times
    #[arg(long, value_name = "ADDRESS")]
    listener: Vec<String>,
    /// Actors register themselves
    #[arg(long)]
    open: bool,
}

/// Options of `network metadata`.
#[derive(clap::Args)]
pub struct MetadataArgs {
    #[command(flatten)]
    id: IdArgs,
    /// The new text, at most 1,024 bytes
    text: String,
}

/// Options of `network transfer`.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("step").required(true))]
pub struct TransferArgs {
    #[command(flatten)]
    id: IdArgs,
    /// Offer it to this address; by its admin
    #[arg(long, value_name = "ADDRESS", group = "step")]
    to: Option<String>,
    /// Take it; by the account that it is offered to
    #[arg(long, group = "step")]
    accept: bool,
    /// Take the offer back; by its admin
    #[arg(long, group = "step")]
    withdraw: bool,
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
        Command::Register(args) => register(&args, out),
        Command::Show(args) => show::show(&args, out),
        Command::List(args) => show::list(&args, out),
        Command::Metadata(args) => {
            let metadata = wire::NetworkMetadata { metadata: args.text.into() };
            run_command(Caller::open(&args.id.call, out)?, args.id.network_id, Kind::Metadata(metadata))
        }
        Command::Update(args) => rules::update(&args, out),
        Command::Precheck(command) => rules::precheck(command, out),
        Command::Transfer(TransferArgs { id, accept: true, .. }) => accept(&id, out),
        Command::Transfer(TransferArgs { id, to, .. }) => offer(&id, to.as_deref(), out),
        Command::Offer(args) => offer(&args.id, args.to.as_deref(), out),
        Command::Accept(id) => accept(&id, out),
        Command::Remove(args) => {
            run_command(Caller::open(&args.call, out)?, args.network_id, Kind::Remove(wire::NetworkRemove {}))
        }
        Command::History(args) => history::run(&args, out),
        Command::PruneHistory(args) => rules::prune(&args, out),
    }
}

fn register(args: &RegisterArgs, out: Output) -> Result<()> {
    let caller = Caller::open(&args.id.call, out)?;
    let register = wire::NetworkRegister {
        flags: args.flags.bits()?.unwrap_or(0),
        metadata: args.metadata.clone().into(),
        listeners: addresses(&args.listener, &caller.committee)?,
        open: args.open,
    };
    let network_id = args.id.network_id;
    let command = wire::NetworkCommand { network_id, kind: Some(Kind::Register(register)) };
    // Which actor does not matter: what is asked of a network that is not known is refused.
    caller.run_commands(vec![command], Some(Heard { network_id, actor: 1, so: Box::new(|_| true) }))
}

fn offer(id: &IdArgs, to: Option<&str>, out: Output) -> Result<()> {
    let caller = Caller::open(&id.call, out)?;
    let admin = to.map(|text| address(text, &caller.committee)).transpose()?.unwrap_or_default();
    run_command(caller, id.network_id, Kind::Offer(wire::NetworkOffer { admin }))
}

fn accept(id: &IdArgs, out: Output) -> Result<()> {
    run_command(Caller::open(&id.call, out)?, id.network_id, Kind::Accept(wire::NetworkAccept {}))
}

fn run_command(caller: Caller<'_>, network_id: u64, kind: Kind) -> Result<()> {
    caller.run_commands(vec![wire::NetworkCommand { network_id, kind: Some(kind) }], None)
}

fn addresses(texts: &[String], committee: &Committee) -> Result<Vec<bytes::Bytes>> {
    texts.iter().map(|text| address(text, committee)).collect()
}

fn address(text: &str, committee: &Committee) -> Result<bytes::Bytes> {
    let address = Address::from_text(text, &committee.network.currency)?;
    Ok(bytes::Bytes::copy_from_slice(address.as_bytes()))
}

/// A network as it is now, to change it. Errors: `UNKNOWN_NETWORK`; those of asking.
fn now(caller: &Caller<'_>, network_id: u64) -> Result<wire::NetworkRecord> {
    let found = block_on(async { caller.args.place.network(&caller.committee).registered(network_id).await })?;
    found.0.filter(|record| !record.removed).ok_or_else(|| {
        let message = format!("network {network_id} is not registered");
        Error::new(Code::UnknownNetwork, message)
    })
}

/// What people read of an actor's page and of prechecks: an address as text.
fn text(bytes: &[u8], committee: &Committee) -> String {
    Address::from_slice(bytes).map_or_else(|_| String::new(), |a| a.to_text(&committee.network.currency))
}
