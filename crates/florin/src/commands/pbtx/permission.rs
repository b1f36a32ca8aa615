//! `florin pbtx permission`.

use clap::Subcommand;
use florin_core::permission::Permission;
use florin_core::{Code, Error, Result};
use serde_json::json;

use super::{describe, input};
use crate::output::Output;

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Make a permission: an actor's keys with their weights, and the weight that must sign
    Make(MakeArgs),
    /// Show a permission
    Show {
        /// Hex digits, or a file (- is stdin) with hex digits or the bytes themselves
        permission: String,
    },
}

/// Options of `pbtx permission make`.
#[derive(clap::Args)]
pub struct MakeArgs {
    /// The actor's id, 1 to 2^63 - 1
    #[arg(long, value_name = "ID")]
    actor: u64,
    /// Weight that must sign
    #[arg(long, value_name = "WEIGHT", default_value_t = 1)]
    threshold: u32,
    /// A public key (EOS..., PUB_..., or 34 bytes in hex), and after a colon its weight if that isn't 1; up to 16 times
    #[arg(long, value_name = "KEY[:WEIGHT]", required = true)]
    key: Vec<String>,
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    match command {
        Command::Make(args) => make(&args, out),
        Command::Show { permission } => {
            let permission = Permission::decode(&input::bytes("permission", &permission)?)?;
            let (text, value) = describe::permission(&permission);
            out.data(text, &value);
            Ok(())
        }
    }
}

fn make(args: &MakeArgs, out: Output) -> Result<()> {
    let permission = from_keys(args.actor, args.threshold, &args.key)?;
    let encoded = permission.encode();
    let (_, value) = describe::permission(&permission);
    out.data(hex::encode(&encoded), &json!({"permission": hex::encode(&encoded), "fields": value}));
    Ok(())
}

/// A permission of keys in any of their forms, each with its weight after a colon if that isn't 1. Errors: `USAGE`, `BAD_KEY`,
/// those of [`Permission::decode_actor`].
pub fn from_keys(actor: u64, threshold: u32, keys: &[String]) -> Result<Permission> {
    let keys = keys.iter().enumerate().map(|(i, text)| {
        let (key, weight) = text.split_once(':').unwrap_or((text, "1"));
        let weight = weight.parse().map_err(|_| {
            Error::expected(Code::Usage, &format!("weight of key #{i}"), "1 to 2^32 - 1", format!("{weight:?}"))
        })?;
        let about = |e: Error| Error::new(e.code, format!("key #{i}: {}", e.message));
        Ok((input::public_key(key).map_err(about)?, weight))
    });
    let permission = Permission { actor, threshold, keys: keys.collect::<Result<_>>()? };
    Permission::decode_actor(&permission.encode())?;
    Ok(permission)
}
