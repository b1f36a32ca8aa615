//! `florin actor`: the actors of a PBTX network.

mod admit;
mod own;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Subcommand;
use clap::builder::ArgPredicate;
use florin_client::pbtx::actor_state;
use florin_core::permission::Permission;
use florin_core::registration::sign_registration;
use florin_core::wire::{self, network_command::Kind};
use florin_core::{Code, Error, Result};

use super::call::{CallArgs, Caller, Heard};
use super::network::IdArgs;
use super::pbtx::{actor_rows, actor_value, bytes as read_bytes, from_keys, private_keys, unknown_actor};
use super::support::{fields, read_text};
use super::wallet::{Question, block_on};
use crate::output::Output;

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Register an actor, or many of a file, by the network's admin
    Register(RegisterArgs),
    /// What enough authorities agree on about an actor
    Show(ShowArgs),
    /// Change an actor's keys: by the network's admin, or with --own-keys by the actor itself
    SetPermission(Box<SetArgs>),
    /// Remove actors, by the network's admin. Their sequences stay, and go on if they are registered again
    Remove(RemoveArgs),
    /// Let an actor do nothing until it is unfrozen, by the network's admin
    Freeze(FreezeArgs),
    /// Let a frozen actor act again
    Unfreeze(FreezeArgs),
    /// Free an actor whose transaction lost its votes when keys or rules changed: let the authorities vote for it as it
    /// is, by the network's admin
    Admit(AdmitArgs),
    /// Register an actor in an open network, with a signature by one of its own keys; any account may send it
    Open(OpenArgs),
}

/// Who an actor is, and what it signs with.
#[derive(clap::Args)]
pub struct Keys {
    /// The actor's id, 1 to 2^63 - 1; left out where a permission names it
    #[arg(value_name = "ACTOR")]
    actor: Option<u64>,
    /// A public key (EOS..., PUB_..., or 34 bytes in hex), and after a colon its weight if that isn't 1; up to 16 times
    #[arg(long, value_name = "KEY[:WEIGHT]")]
    key: Vec<String>,
    /// Weight that must sign
    #[arg(long, value_name = "WEIGHT", default_value_t = 1)]
    threshold: u32,
    /// A whole permission, as `florin pbtx permission make` prints it: hex digits, or a file with hex digits or the bytes
    #[arg(long, value_name = "HEX|FILE", conflicts_with_all = ["key", "threshold"])]
    permission: Option<String>,
}

impl Keys {
    /// Errors: `USAGE`, `BAD_KEY`, those of a permission.
    fn permission(&self) -> Result<Permission> {
        match (&self.permission, self.actor) {
            (Some(text), actor) => {
                let permission = Permission::decode_actor(&read_bytes("--permission", text)?)?;
                match actor.filter(|actor| *actor != permission.actor) {
                    Some(actor) => Err(Error::expected(Code::Usage, "actor", permission.actor, actor)),
                    None => Ok(permission),
                }
            }
            (None, Some(actor)) if !self.key.is_empty() => from_keys(actor, self.threshold, &self.key),
            _ => Err(Error::new(Code::Usage, "give the actor's id and --key, or --permission")),
        }
    }
}

/// Options of `actor register`.
#[derive(clap::Args)]
pub struct RegisterArgs {
    #[command(flatten)]
    id: IdArgs,
    #[command(flatten)]
    keys: Keys,
    /// A file of permissions in hex digits, one a line: all are registered, or replace those that are there
    #[arg(long, value_name = "FILE", conflicts_with_all = ["actor", "key", "permission"])]
    from: Option<PathBuf>,
}

/// Options of `actor show`.
#[derive(clap::Args)]
pub struct ShowArgs {
    #[command(flatten)]
    question: Question,
    /// The network's id
    #[arg(value_name = "NETWORK")]
    network_id: u64,
    /// The actor's id
    #[arg(value_name = "ACTOR")]
    actor: u64,
}

/// Options of `actor set-permission`.
#[derive(clap::Args)]
#[command(mut_arg("wallet", |a| a.required(false).required_unless_present("own_keys")
    .default_value_if("own_keys", ArgPredicate::IsPresent, "none")))]
pub struct SetArgs {
    #[command(flatten)]
    id: IdArgs,
    #[command(flatten)]
    keys: Keys,
    /// The actor does it itself: file with private keys that it has now, one a line. No wallet is needed
    #[arg(long, value_name = "FILE")]
    own_keys: Option<PathBuf>,
}

/// Options of `actor remove`.
#[derive(clap::Args)]
pub struct RemoveArgs {
    #[command(flatten)]
    id: IdArgs,
    /// The actors' ids
    #[arg(value_name = "ACTOR", required = true)]
    actors: Vec<u64>,
}

/// Options of `actor freeze` and `unfreeze`.
#[derive(clap::Args)]
pub struct FreezeArgs {
    #[command(flatten)]
    id: IdArgs,
    /// The actors' ids
    #[arg(value_name = "ACTOR", required = true)]
    actors: Vec<u64>,
}

/// Options of `actor admit`.
#[derive(clap::Args)]
pub struct AdmitArgs {
    #[command(flatten)]
    id: IdArgs,
    /// The actor's id
    #[arg(value_name = "ACTOR")]
    actor: u64,
    /// The transaction's sha256, where authorities have voted for different ones
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
}

/// Options of `actor open`.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("by").required(true))]
pub struct OpenArgs {
    #[command(flatten)]
    id: IdArgs,
    #[command(flatten)]
    keys: Keys,
    /// File with a private key of the permission, which signs it; the first one of the file
    #[arg(long, value_name = "FILE", group = "by")]
    sign_with: Option<PathBuf>,
    /// A signature of the permission by one of its keys, as `florin pbtx mksig` makes it: hex digits or a file
    #[arg(long, value_name = "HEX|FILE", group = "by")]
    signature: Option<String>,
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    match command {
        Command::Register(args) => register(&args, out),
        Command::Show(args) => show(&args, out),
        Command::SetPermission(args) => set_permission(&args, out),
        Command::Remove(args) => {
            let kinds = args.actors.iter().map(|actor| (*actor, Kind::RemoveActor(*actor)));
            run_commands(&args.id, kinds.collect(), Box::new(|reply| reply.removed), out)
        }
        Command::Freeze(args) => freeze(&args, true, out),
        Command::Unfreeze(args) => freeze(&args, false, out),
        Command::Admit(args) => admit::run(&args.id, args.actor, args.sha256.as_deref(), out),
        Command::Open(args) => open(&args, out),
    }
}

fn register(args: &RegisterArgs, out: Output) -> Result<()> {
    let permissions = match &args.from {
        Some(file) => read_permissions(file)?,
        None => vec![args.keys.permission()?],
    };
    let kinds = permissions.iter().map(|p| (p.actor, Kind::Actor(p.encode()))).collect();
    if args.from.is_none() {
        // Who means to register somebody new is not to replace another's keys.
        let state = state(&args.id.call, args.id.network_id, permissions[0].actor)?;
        let new = permissions[0].encode();
        if state.is_some_and(|s| s.known && !s.removed && s.permission != new) && args.id.call.id.is_none() {
            let actor = permissions[0].actor;
            let message =
                format!("actor {actor} is registered with other keys: `florin actor set-permission` changes them");
            return Err(Error::new(Code::ActorExists, message));
        }
    }
    let last = permissions.last().map(Permission::encode).unwrap_or_default();
    run_commands(&args.id, kinds, Box::new(move |reply| reply.permission == last), out)
}

fn read_permissions(file: &Path) -> Result<Vec<Permission>> {
    let text = read_text(file)?;
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let permission = |(number, line): (usize, &str)| {
        let place = |e: Error| Error::new(e.code, format!("{} line {number}: {}", file.display(), e.message));
        let bytes = hex::decode(line).map_err(|e| Error::new(Code::BadFile, format!("expected hex digits: {e}")));
        bytes.and_then(|bytes| Permission::decode_actor(&bytes)).map_err(place)
    };
    lines.map(permission).collect()
}

/// The actor as it is now; `None` if the network is not known.
fn state(call: &CallArgs, network_id: u64, actor: u64) -> Result<Option<wire::ActorReply>> {
    let committee = call.place.committee()?;
    match block_on(async { actor_state(&call.place.network(&committee), network_id, actor).await }) {
        Ok((state, _)) => Ok(Some(state)),
        Err(e) if e.code == Code::UnknownNetwork => Ok(None),
        Err(e) => Err(e),
    }
}

fn show(args: &ShowArgs, out: Output) -> Result<()> {
    let committee = args.question.committee()?;
    let (reply, agreeing) =
        block_on(async { actor_state(&args.question.network(&committee), args.network_id, args.actor).await })?;
    if !reply.known {
        return Err(unknown_actor(args.network_id, args.actor));
    }
    let mut rows = actor_rows(args.network_id, args.actor, &reply);
    rows.push(("agreeing", format!("{agreeing} of {} authorities", committee.size())));
    let mut value = actor_value(args.network_id, args.actor, &reply);
    (value["agreeing"], value["authorities"]) = (agreeing.into(), committee.size().into());
    out.data(fields(&rows), &value);
    Ok(())
}

fn set_permission(args: &SetArgs, out: Output) -> Result<()> {
    let permission = args.keys.permission()?;
    if let Some(keys) = &args.own_keys {
        return own::rotate(&args.id, &permission, &private_keys(keys)?, out);
    }
    let state = state(&args.id.call, args.id.network_id, permission.actor)?;
    if state.is_some_and(|s| !s.known || s.removed) && args.id.call.id.is_none() {
        return Err(unknown_actor(args.id.network_id, permission.actor));
    }
    let encoded = permission.encode();
    let kinds = vec![(permission.actor, Kind::Actor(encoded.clone()))];
    run_commands(&args.id, kinds, Box::new(move |reply| reply.permission == encoded), out)
}

fn freeze(args: &FreezeArgs, frozen: bool, out: Output) -> Result<()> {
    let kind = |actor: &u64| (*actor, Kind::FreezeActor(wire::ActorFreeze { actor: *actor, frozen }));
    run_commands(&args.id, args.actors.iter().map(kind).collect(), Box::new(move |reply| reply.frozen == frozen), out)
}

fn open(args: &OpenArgs, out: Output) -> Result<()> {
    let permission = args.keys.permission()?;
    let encoded = permission.encode();
    let signature = match (&args.sign_with, &args.signature) {
        (Some(file), _) => {
            let key = &private_keys(file)?[0];
            Bytes::copy_from_slice(sign_registration(&encoded, &key.signer()).as_bytes())
        }
        (None, Some(text)) => read_bytes("--signature", text)?,
        (None, None) => return Err(Error::new(Code::Usage, "give --sign-with or --signature")),
    };
    let kind = Kind::Open(wire::ActorOpen { permission: encoded.clone(), signature });
    let kinds = vec![(permission.actor, kind)];
    run_commands(&args.id, kinds, Box::new(move |reply| reply.permission == encoded), out)
}

/// Commands on actors, and what the shards are to say of the last of them.
fn run_commands(
    id: &IdArgs,
    kinds: Vec<(u64, Kind)>,
    so: Box<dyn Fn(&wire::ActorReply) -> bool>,
    out: Output,
) -> Result<()> {
    let network_id = id.network_id;
    let heard = kinds.last().map(|(actor, _)| Heard { network_id, actor: *actor, so });
    let commands = kinds.into_iter().map(|(_, kind)| wire::NetworkCommand { network_id, kind: Some(kind) });
    Caller::open(&id.call, out)?.run_commands(commands.collect(), heard)
}
