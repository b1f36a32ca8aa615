//! `florin committee assemble`, and the public part that `florin authority keygen` writes for it.

use std::path::{Path, PathBuf};

use florin_core::committee::{AuthorityInfo, Committee};
use florin_core::permission::Permission;
use florin_core::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::make::{self, MoneyArgs};
use crate::commands::support::{PUBLIC, need_vacant, new_passphrase, read_text, write_new};
use crate::output::Output;

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// An operator's NAME.public.toml; once for each authority. Their order is the committee's
    #[arg(long = "part", value_name = "FILE", required = true)]
    parts: Vec<PathBuf>,
    /// The issuer: a public key (68 hex digits) or an encoded permission in hex
    #[arg(long, required_unless_present = "issuer_wallet", conflicts_with = "issuer_wallet")]
    issuer: Option<String>,
    /// Make a new wallet here and let it be the issuer
    #[arg(long, value_name = "FILE")]
    issuer_wallet: Option<PathBuf>,
    /// File whose first line is the passphrase of the new wallet; else it is asked for
    #[arg(long, requires = "issuer_wallet")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    money: MoneyArgs,
    /// The committee file to write
    #[arg(long, value_name = "FILE", default_value = "committee.toml")]
    out: PathBuf,
}

/// What an operator tells the others.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Version of the file.
    pub florin_authority: u32,
    /// Name for people.
    pub name: String,
    /// Public key, hex.
    pub key: String,
    /// `host:port` by shard.
    pub addresses: Vec<String>,
}

impl Part {
    /// Reads one. Errors: `BAD_FILE`, `BAD_CONFIG`.
    pub fn read(path: &Path) -> Result<AuthorityInfo> {
        let bad = |e: &dyn std::fmt::Display| Error::new(Code::BadConfig, format!("{}: {e}", path.display()));
        let part: Part = toml::from_str(&read_text(path)?).map_err(|e| bad(&e))?;
        if part.florin_authority != 1 {
            let what = format!("{}: florin_authority", path.display());
            return Err(Error::expected(Code::BadConfig, &what, 1, part.florin_authority));
        }
        let key = part.key.parse().map_err(|e: Error| bad(&e.message))?;
        Ok(AuthorityInfo { name: part.name, key, addresses: part.addresses })
    }
}

/// Runs it.
pub fn run(args: Args, out: Output) -> Result<()> {
    need_vacant([&args.out].into_iter().chain(&args.issuer_wallet))?;
    let authorities = args.parts.iter().map(|path| Part::read(path)).collect::<Result<Vec<_>>>()?;
    let shards = authorities.first().map_or(0, |a| a.addresses.len()) as u32;
    // The id is fixed here, for the wallet and the committee alike.
    let money = MoneyArgs { network_id: Some(args.money.id()?), ..args.money };
    let stand_in = || {
        let key = florin_core::keys::SecretKey::from_seed(florin_core::keys::Curve::Ed25519, [1; 32]);
        key.map(|key| Permission::single(key.public()))
    };
    let permission = match &args.issuer {
        Some(text) => make::permission(text)?,
        None => stand_in()?,
    };
    let mut network = money.network(&permission)?;
    if let Some(genesis) = &money.genesis {
        network.genesis_hash = make::check_genesis(genesis, &network)?;
    }
    // Finds mistakes before a wallet is made.
    Committee::new(1, shards, network.clone(), authorities.clone())?;
    if let Some(path) = &args.issuer_wallet {
        let passphrase = new_passphrase(args.passphrase_file.as_deref(), path)?;
        let keystore = make::wallet(path, &passphrase, network.id, &money)?;
        network.issuer = Permission::single(keystore.public_keys()[0]).encode();
    }
    let committee = Committee::new(1, shards, network, authorities)?;
    write_new(&args.out, committee.to_toml().as_bytes(), PUBLIC)?;
    let id = hex::encode(committee.id());
    let (file, n) = (args.out.display(), committee.size());
    let genesis = match &money.genesis {
        Some(_) => " and the genesis file",
        None => "",
    };
    let text = format!(
        "Joined {n} authorities into {file}\nid {id}\n\nNext: send {file}{genesis} to every operator. Each compares the \
         id with the others, then runs\n  florin authority init --committee {file} --key NAME.key --dir DIR\n  \
         florin authority run --config DIR/authority.toml"
    );
    let value = json!({"committee_id": id, "network_id": committee.network.id.to_string(), "file": args.out});
    out.data(text, &value);
    Ok(())
}
