//! `florin pbtx key`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use florin_core::Result;
use florin_core::eosio::{self, Kind, PrivateKey};
use florin_core::keys::{Curve, PublicKey, Signature};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::input;
use crate::commands::support::{PRIVATE, fields, random, write_new};
use crate::output::Output;

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Make a key
    New(NewArgs),
    /// Show keys and signatures in all their forms
    Convert(ConvertArgs),
}

/// Options of `pbtx key new`.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("where").required(true))]
pub struct NewArgs {
    /// Curve; the original PBTX knows K1 and R1 only
    #[arg(long, value_enum, default_value_t = CurveName::K1)]
    curve: CurveName,
    /// New file for the private key, for you alone
    #[arg(long, value_name = "FILE", group = "where")]
    out: Option<PathBuf>,
    /// Print the private key
    #[arg(long, group = "where")]
    show: bool,
}

/// Options of `pbtx key convert`.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct ConvertArgs {
    /// Public keys (EOS..., PUB_..., 34 bytes in hex) and signatures (SIG_..., 66 bytes in hex)
    #[arg(value_name = "KEY", group = "what")]
    keys: Vec<String>,
    /// File with private keys (5..., PVT_...), one a line; their public keys are shown
    #[arg(long, value_name = "FILE", group = "what")]
    secrets: Option<PathBuf>,
    /// Print the private keys too
    #[arg(long, requires = "secrets")]
    show: bool,
}

/// A curve on the command line.
#[derive(Clone, Copy, ValueEnum)]
pub enum CurveName {
    /// secp256k1
    K1,
    /// secp256r1
    R1,
    /// ed25519
    Ed,
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    match command {
        Command::New(args) => new(&args, out),
        Command::Convert(args) => convert(&args, out),
    }
}

fn new(args: &NewArgs, out: Output) -> Result<()> {
    let curve = match args.curve {
        CurveName::K1 => Curve::K1,
        CurveName::R1 => Curve::R1,
        CurveName::Ed => Curve::Ed25519,
    };
    let key = PrivateKey::new(curve, random()?)?;
    if let Some(path) = &args.out {
        write_new(path, Zeroizing::new(format!("{}\n", *key.to_text())).as_bytes(), PRIVATE)?;
    }
    let (rows, value) = forms(&key.public(), args.show.then_some(&key));
    out.data(fields(&rows), &value);
    Ok(())
}

fn convert(args: &ConvertArgs, out: Output) -> Result<()> {
    let mut shown: Vec<(Rows, Value)> = Vec::new();
    for text in &args.keys {
        let is_signature = Kind::of(text) == Some(Kind::Signature) || text.len() == 132;
        shown.push(match is_signature {
            true => signature_forms(&input::signature(text)?),
            false => forms(&input::public_key(text)?, None),
        });
    }
    if let Some(file) = &args.secrets {
        let keys = input::private_keys(file)?;
        shown.extend(keys.iter().map(|key| forms(&key.public(), args.show.then_some(key))));
    }
    let (texts, values): (Vec<String>, Vec<Value>) =
        shown.into_iter().map(|(rows, value)| (fields(&rows), value)).unzip();
    out.data(texts.join("\n\n"), &Value::Array(values));
    Ok(())
}

type Rows = Vec<(&'static str, String)>;

/// A key in all its forms, with its secret if that is given.
pub fn forms(key: &PublicKey, private: Option<&PrivateKey>) -> (Rows, Value) {
    let legacy = eosio::public_to_legacy_text(key);
    let mut value = json!({"curve": eosio::curve_name(key.curve()), "public": eosio::public_to_text(key),
        "legacy_public": legacy, "pbtx": key.to_string()});
    let mut rows = vec![("curve", eosio::curve_name(key.curve()).to_owned())];
    if let Some(private) = private {
        rows.push(("private", private.to_text().to_string()));
        value["private"] = private.to_text().as_str().into();
        if let Some(wif) = private.to_wif() {
            rows.push(("old private", wif.to_string()));
            value["legacy_private"] = wif.as_str().into();
        }
    }
    rows.push(("public", eosio::public_to_text(key)));
    rows.extend(legacy.map(|text| ("old public", text)));
    rows.push(("PBTX", key.to_string()));
    (rows, value)
}

/// A signature in both its forms.
pub fn signature_forms(signature: &Signature) -> (Rows, Value) {
    let (text, bytes) = (eosio::signature_to_text(signature), hex::encode(signature.as_bytes()));
    let value = json!({"signature": text, "pbtx": bytes});
    (vec![("signature", text), ("PBTX", bytes)], value)
}
