//! `florin pbtx mksig` and `checksig`: signatures of what is not a transaction.

use std::path::PathBuf;

use florin_core::eosio::public_to_text;
use florin_core::keys::{Curve, PublicKey, Signature, order_message};
use florin_core::pbtx;
use florin_core::signatures::AuthorityPublicKey;
use florin_core::{Code, Error, Result};
use prost::Message;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::input;
use crate::commands::support::fields;
use crate::output::Output;

/// Options of `pbtx mksig`.
#[derive(clap::Args)]
pub struct MakeArgs {
    /// What to sign: hex digits, or a file (- is stdin) with hex digits or the bytes themselves. The keys sign its sha256
    data: String,
    /// File with private keys (5..., PVT_...), one a line; each makes a signature
    #[arg(long, value_name = "FILE")]
    keys: PathBuf,
    /// Sign although the data is a transaction's body: the signature lets anyone send that transaction
    #[arg(long)]
    sign_transaction_body: bool,
}

/// Options of `pbtx checksig`.
#[derive(clap::Args)]
pub struct CheckArgs {
    /// What was signed: hex digits, or a file (- is stdin) with hex digits or the bytes themselves
    data: String,
    /// The signature: SIG_..., or 66 bytes in hex
    signature: String,
    /// The key that must have made it: EOS..., PUB_..., or 34 bytes in hex. An ed25519 signature doesn't name its key
    #[arg(long)]
    key: Option<String>,
}

/// `pbtx mksig`.
pub fn make(args: &MakeArgs, out: Output) -> Result<()> {
    let data = input::bytes("data", &args.data)?;
    let keys = input::private_keys(&args.keys)?;
    // Whoever asks for a signature of a "challenge" may mean a payment. PBTX's own clients read any order and unknown
    // fields too, so what any of them would read is refused.
    if pbtx::TransactionBody::decode(data.clone()).is_ok() && !args.sign_transaction_body {
        let message = "the data is a transaction's body: its signature would be one of that transaction. Look at it with \
                       florin pbtx show; sign it with --sign-transaction-body if you mean it";
        return Err(Error::new(Code::Usage, message));
    }
    let digest: [u8; 32] = Sha256::digest(&data).into();
    let mut rows = vec![("sha256", hex::encode(digest))];
    let mut values = Vec::new();
    for key in &keys {
        let (forms, mut value) = super::keys::signature_forms(&key.signer().sign_body_hash(&digest));
        value["key"] = public_to_text(&key.public()).into();
        rows.push(("key", public_to_text(&key.public())));
        rows.extend(forms);
        values.push(value);
    }
    out.data(fields(&rows), &json!({"sha256": hex::encode(digest), "signatures": values}));
    Ok(())
}

/// `pbtx checksig`.
pub fn check(args: &CheckArgs, out: Output) -> Result<()> {
    let data = input::bytes("data", &args.data)?;
    let signature = input::signature(&args.signature)?;
    let digest: [u8; 32] = Sha256::digest(&data).into();
    let key = match &args.key {
        Some(text) => {
            let key = input::public_key(text)?;
            if !is_by(&signature, &key, &digest) {
                let message = format!("the signature is not one of key {} for this data", public_to_text(&key));
                return Err(Error::new(Code::KeyMismatch, message));
            }
            key
        }
        None if signature.curve() == Curve::Ed25519 => {
            return Err(Error::new(Code::Usage, "an ed25519 signature doesn't name its key: give --key"));
        }
        None => signature
            .recover(&digest)
            .ok_or_else(|| Error::new(Code::KeyMismatch, "no key can have made this signature"))?,
    };
    let (mut rows, mut value) = super::keys::forms(&key, None);
    rows.insert(0, ("signature", if args.key.is_some() { "true, of this key" } else { "of this key" }.into()));
    value["sha256"] = Value::String(hex::encode(digest));
    out.data(fields(&rows), &value);
    Ok(())
}

/// Whether `key` made `signature` over the data with this sha256.
pub fn is_by(signature: &Signature, key: &PublicKey, digest: &[u8; 32]) -> bool {
    match (key.ed25519_bytes(), signature.ed25519_bytes()) {
        (Some(key), Some(signature)) => AuthorityPublicKey(key).verifies(&order_message(digest), &signature),
        (None, None) => signature.recover(digest) == Some(*key),
        _ => false,
    }
}
