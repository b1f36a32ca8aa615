//! `florin pbtx sign`: new transactions, more signatures on one, and chains that are pushed later.

use std::path::PathBuf;

use bytes::Bytes;
use florin_client::pbtx::next_sequence;
use florin_core::envelope::{Authority, Body, Order, encode_body, encode_envelope};
use florin_core::eosio::{PrivateKey, public_to_text};
use florin_core::keys::Signature;
use florin_core::{Code, Error, Result};
use serde_json::json;

use super::offline::Chain;
use super::{input, signatures};
use crate::commands::support::fields;
use crate::commands::wallet::{Question, block_on};
use crate::output::Output;

/// Options of `pbtx sign`.
#[derive(clap::Args)]
pub struct Args {
    /// File with private keys (5..., PVT_...), one a line; all of them sign
    #[arg(long, value_name = "FILE")]
    keys: PathBuf,
    /// Add signatures to this envelope: hex digits, or a file (- is stdin) with hex digits or the bytes themselves
    #[arg(long, value_name = "HEX|FILE", conflicts_with_all = ["offline", "network", "actor", "seqnum", "prev", "transaction_type", "content", "cosignor"])]
    envelope: Option<String>,
    /// Whose keys they are: the actor, which is the default, or a cosignor
    #[arg(long = "as", value_name = "ACTOR")]
    signer: Option<u64>,
    /// Sign the next transaction of the chain that this file keeps, and append it to the file of the same name with
    /// .envelopes after it. The first time --network and --actor are needed, and --seqnum and --prev unless the actor is new
    #[arg(long, value_name = "FILE")]
    offline: Option<PathBuf>,
    /// Ask the authorities for the number and the hash of the transaction before; f + 1 of them must agree
    #[arg(long, conflicts_with_all = ["offline", "envelope", "seqnum", "prev"])]
    autoseq: bool,
    #[command(flatten)]
    question: Question,
    /// Network
    #[arg(long, value_name = "ID", required_unless_present_any = ["envelope", "offline"])]
    network: Option<u64>,
    /// Who acts
    #[arg(long, value_name = "ID", required_unless_present_any = ["envelope", "offline"])]
    actor: Option<u64>,
    /// The transaction's number: one more than the actor's last one
    #[arg(long, value_name = "N", required_unless_present_any = ["envelope", "offline", "autoseq"])]
    seqnum: Option<u32>,
    /// prev_hash, in decimal: what follows the actor's last transaction, 0 for the first
    #[arg(long, value_name = "HASH", required_unless_present_any = ["envelope", "offline", "autoseq"])]
    prev: Option<u64>,
    /// transaction_type
    #[arg(long = "type", value_name = "N", default_value_t = 0)]
    transaction_type: u32,
    /// transaction_content: hex digits, or a file (- is stdin) with hex digits or the bytes themselves
    #[arg(long, value_name = "HEX|FILE")]
    content: Option<String>,
    /// Another actor that must sign; up to 4 times
    #[arg(long, value_name = "ID")]
    cosignor: Vec<u64>,
}

/// `pbtx sign`.
pub fn run(args: &Args, out: Output) -> Result<()> {
    let keys = input::private_keys(&args.keys)?;
    if let Some(state) = &args.offline {
        return sign_offline(args, &keys, state.clone(), out);
    }
    let order = match &args.envelope {
        Some(text) => Order::decode(input::bytes("--envelope", text)?)?,
        None => {
            let place = if args.autoseq { asked(args)? } else { args.seqnum.zip(args.prev) };
            let (Some(network_id), Some(actor), Some((seqnum, prev_hash))) = (args.network, args.actor, place) else {
                return Err(Error::new(Code::Usage, "give --network, --actor, --seqnum and --prev"));
            };
            unsigned(args, network_id, actor, seqnum, prev_hash)?
        }
    };
    let order = add(&order, args.signer, &keys)?;
    let next = order.next_hash();
    out.note(format_args!("sha256 {}, next prev_hash {next}", hex::encode(order.id)));
    let value = json!({"envelope": hex::encode(&order.raw), "sha256": hex::encode(order.id),
        "seqnum": order.seqnum, "next_prev_hash": next.to_string()});
    out.data(hex::encode(&order.raw), &value);
    Ok(())
}

/// seqnum and prev_hash, from the authorities.
fn asked(args: &Args) -> Result<Option<(u32, u64)>> {
    let (Some(network_id), Some(actor)) = (args.network, args.actor) else { return Ok(None) };
    let committee = args.question.committee()?;
    block_on(async { next_sequence(&args.question.network(&committee), network_id, actor).await }).map(Some)
}

fn sign_offline(args: &Args, keys: &[PrivateKey], state: PathBuf, out: Output) -> Result<()> {
    let mut chain = Chain::open(state, args.network, args.actor, args.seqnum, args.prev, out)?;
    let (network_id, actor) = chain.account();
    let (seqnum, prev_hash) = chain.next()?;
    let order = add(&unsigned(args, network_id, actor, seqnum, prev_hash)?, args.signer, keys)?;
    chain.append(&order)?;
    let rows = [
        ("seqnum", order.seqnum.to_string()),
        ("sha256", hex::encode(order.id)),
        ("next prev_hash", order.next_hash().to_string()),
        ("in", chain.queue().display().to_string()),
    ];
    let value = json!({"envelope": hex::encode(&order.raw), "sha256": hex::encode(order.id), "seqnum": order.seqnum,
        "next_prev_hash": order.next_hash().to_string(), "file": chain.queue().display().to_string()});
    out.data(fields(&rows), &value);
    Ok(())
}

/// The transaction of the options, with an empty authority for each who must sign.
fn unsigned(args: &Args, network_id: u64, actor: u64, seqnum: u32, prev_hash: u64) -> Result<Order> {
    let content = args.content.as_deref().map_or(Ok(Bytes::new()), |text| input::bytes("--content", text))?;
    let cosignors = args.cosignor.clone();
    let authorities = vec![Authority::default(); 1 + cosignors.len()];
    let transaction_type = args.transaction_type;
    let body = Body { network_id, actor, cosignors, seqnum, prev_hash, transaction_type, content };
    let order = Order::decode(encode_envelope(&encode_body(&body), &authorities))?;
    order.screen_counts()?;
    Ok(order)
}

/// The order with a signature of each key, as `signer`.
fn add(order: &Order, signer: Option<u64>, keys: &[PrivateKey]) -> Result<Order> {
    order.screen_counts()?;
    let signer = signer.unwrap_or(order.actor);
    let accounts = std::iter::once(order.actor).chain(order.cosignors.iter().copied());
    let Some(index) = accounts.into_iter().position(|account| account == signer) else {
        return Err(Error::expected(Code::Usage, "--as", "the actor or a cosignor of the transaction", signer));
    };
    let mut authorities = order.authorities.clone();
    let sigs = &mut authorities[index].sigs;
    for key in keys {
        let signed = |sig: &Bytes| {
            Signature::parse(sig).is_ok_and(|signature| signatures::is_by(&signature, &key.public(), &order.id))
        };
        if sigs.iter().any(signed) {
            let message = format!("key {} has signed already", public_to_text(&key.public()));
            return Err(Error::new(Code::DuplicateSig, message));
        }
        sigs.push(Bytes::copy_from_slice(key.signer().sign_body_hash(&order.id).as_bytes()));
    }
    Order::decode(encode_envelope(&order.body, &authorities))
}
