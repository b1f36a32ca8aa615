//! `florin contract`: money for whoever knows the preimage of a hash.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use florin_client::wallet::preimage;
use florin_core::address::Address;
use florin_core::amount::{format_amount, parse_amount};
use florin_core::committee::Committee;
use florin_core::merkle::Hash;
use florin_core::ordered::modules::contracts::name;
use florin_core::wire::{self, contract_reply::State, input, output};
use florin_core::{Code, Error, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::call::{CallArgs, Caller};
use super::support::{PRIVATE, fields, random, read_text, write_new};
use super::wallet::{Question, block_on, duration};
use crate::output::Output;
use florin_client::time::{moment, now_ms, utc};

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Lock money for whoever has an address and knows the preimage of a hash
    ///
    /// Until it expires the receiver can claim it with the preimage, which everybody sees then; after that the sender
    /// can take it back. The log's time decides which.
    Fund(FundArgs),
    /// Take the money of a contract with the preimage
    Claim(ClaimArgs),
    /// Take the money of an expired contract back
    Refund(RefundArgs),
    /// What enough authorities agree on about a contract
    Show(ShowArgs),
}

/// Options of `contract fund`.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("lock").required(true), group = clap::ArgGroup::new("end").required(true))]
pub struct FundArgs {
    #[command(flatten)]
    call: CallArgs,
    /// Amount, as 12 or 12.50
    #[arg(allow_negative_numbers = true)]
    amount: String,
    /// Address that may claim it
    #[arg(long, value_name = "ADDRESS")]
    to: String,
    /// sha256 of the preimage, 64 hex digits
    #[arg(long, value_name = "HEX", group = "lock")]
    hash: Option<String>,
    /// Make a preimage and keep it in this file, for you alone. With --id, the one that an earlier try made is used
    #[arg(long, value_name = "FILE", group = "lock")]
    new_preimage: Option<PathBuf>,
    /// When it expires, from now: as 30s or 10m, at most a day
    #[arg(long, value_name = "DURATION", value_parser = duration, group = "end")]
    expires_in: Option<Duration>,
    /// When it expires: as 2027-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment, group = "end")]
    expires: Option<u64>,
}

/// Options of `contract claim`.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("secret").required(true))]
pub struct ClaimArgs {
    #[command(flatten)]
    call: CallArgs,
    /// The contract's id
    #[arg(value_name = "ID", value_parser = hash)]
    contract: Hash,
    /// The preimage
    #[arg(long, value_name = "HEX", group = "secret")]
    preimage: Option<String>,
    /// File with the preimage in hex, as `fund --new-preimage` makes it
    #[arg(long, value_name = "FILE", group = "secret")]
    preimage_file: Option<PathBuf>,
}

/// Options of `contract refund`.
#[derive(clap::Args)]
pub struct RefundArgs {
    #[command(flatten)]
    call: CallArgs,
    /// The contract's id
    #[arg(value_name = "ID", value_parser = hash)]
    contract: Hash,
}

/// Options of `contract show`.
#[derive(clap::Args)]
pub struct ShowArgs {
    #[command(flatten)]
    question: Question,
    /// The contract's id
    #[arg(value_name = "ID", value_parser = hash)]
    contract: Hash,
}

fn hash(text: &str) -> std::result::Result<Hash, String> {
    let bytes = hex::decode(text).ok().and_then(|b| Hash::try_from(b).ok());
    bytes.ok_or_else(|| format!("expected 64 hex digits, found {} characters", text.len()))
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    match command {
        Command::Fund(args) => fund(args, out),
        Command::Claim(args) => claim(args, out),
        Command::Refund(args) => refund(args, out),
        Command::Show(args) => show(args, out),
    }
}

fn fund(args: FundArgs, out: Output) -> Result<()> {
    let caller = Caller::open(&args.call, out)?;
    let network = &caller.committee.network;
    let amount = parse_amount(&args.amount, network.decimals)?;
    let receiver = Address::from_text(&args.to, &network.currency)?;
    let sender = caller.wallet.address(args.call.account)?;
    let expiry_ms = match (args.expires, args.expires_in) {
        (Some(moment), _) => moment,
        (None, Some(duration)) => now_ms().saturating_add(duration.as_millis() as u64),
        (None, None) => return Err(Error::new(Code::Usage, "give --expires-in or --expires")),
    };
    let lock = match (&args.hash, &args.new_preimage) {
        (Some(text), _) => hash(text).map_err(|e| Error::new(Code::Usage, format!("--hash: {e}")))?,
        (None, Some(path)) => new_preimage(path, args.call.id.is_some())?,
        (None, None) => return Err(Error::new(Code::Usage, "give --hash or --new-preimage")),
    };
    out.note(format_args!("hash {}", hex::encode(lock)));
    let bytes = |of: &[u8]| bytes::Bytes::copy_from_slice(of);
    let kind = output::Kind::ContractFund(wire::ContractFund {
        amount,
        hash: bytes(&lock),
        expiry_ms,
        receiver: bytes(receiver.as_bytes()),
        sender: bytes(sender.as_bytes()),
    });
    caller.run(Vec::new(), vec![kind], args.expires_in.is_some(), Ok(()))
}

/// Makes a preimage, durable before its hash is used; or, if that may be, takes the one that is there.
fn new_preimage(path: &Path, may_exist: bool) -> Result<Hash> {
    let secret = random::<32>()?;
    match write_new(path, Zeroizing::new(format!("{}\n", hex::encode(*secret))).as_bytes(), PRIVATE) {
        Err(e) if e.code == Code::AlreadyExists && may_exist => Ok(Sha256::digest(&*kept_preimage(path)?).into()),
        written => written.map(|()| Sha256::digest(*secret).into()),
    }
}

fn kept_preimage(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let text = Zeroizing::new(read_text(path)?);
    preimage(&text)
        .map(Zeroizing::new)
        .map_err(|e| Error::new(Code::BadFile, format!("{}: {}", path.display(), e.message)))
}

/// A contract that an operation is about.
struct Found {
    fund: wire::ContractFund,
    state: State,
    time_ms: u64,
}

fn find(caller: &Caller<'_>, id: &Hash) -> Result<Found> {
    let (reply, _) = block_on(async { caller.args.place.network(&caller.committee).contract(id).await })?;
    let state = reply.state();
    match reply.fund {
        Some(fund) => Ok(Found { fund, state, time_ms: reply.time_ms }),
        None => Err(unknown(id)),
    }
}

fn unknown(id: &Hash) -> Error {
    Error::new(Code::UnknownContract, format!("the log has no contract {}", hex::encode(id)))
}

impl Found {
    /// What makes an operation on it useless, before it is signed.
    fn check(&self, party: &[u8], caller: &Caller<'_>, claims: bool) -> Result<()> {
        if self.state != State::Open {
            let found = name(self.state);
            return Err(Error::expected(Code::ContractClosed, "state of the contract", "open", found));
        }
        let own = caller.wallet.address(caller.args.account)?;
        if party != own.as_bytes() {
            let currency = &caller.committee.network.currency;
            let party = Address::from_slice(party)?.to_text(currency);
            let what = if claims { "receiver of the contract" } else { "sender of the contract" };
            return Err(Error::expected(Code::NotAParty, what, party, own.to_text(currency)));
        }
        let (expiry, now) = (utc(self.fund.expiry_ms), utc(self.time_ms));
        match (claims, self.time_ms >= self.fund.expiry_ms) {
            (true, true) => Err(Error::expected(Code::ContractExpired, "log time", format!("before {expiry}"), now)),
            (false, false) => Err(Error::expected(Code::ContractOpen, "log time", format!("{expiry} or later"), now)),
            _ => Ok(()),
        }
    }

    fn run(self, caller: Caller<'_>, kind: input::Kind, check: Result<()>) -> Result<()> {
        let address = caller.wallet.address(caller.args.account)?;
        let amount = self.fund.amount;
        let credit = wire::Credit { address: bytes::Bytes::copy_from_slice(address.as_bytes()), amount };
        let input = wire::Input { amount, kind: Some(kind) };
        caller.run(vec![input], vec![output::Kind::Credit(credit)], false, check)
    }
}

fn claim(args: ClaimArgs, out: Output) -> Result<()> {
    let secret = match (&args.preimage, &args.preimage_file) {
        (Some(text), _) => Zeroizing::new(preimage(text)?),
        (None, Some(path)) => kept_preimage(path)?,
        (None, None) => return Err(Error::new(Code::Usage, "give --preimage or --preimage-file")),
    };
    let caller = Caller::open(&args.call, out)?;
    let found = find(&caller, &args.contract)?;
    let hash: Hash = Sha256::digest(&*secret).into();
    if found.fund.hash[..] != hash[..] {
        let (expected, found) = (hex::encode(&found.fund.hash), hex::encode(hash));
        return Err(Error::expected(Code::WrongPreimage, "sha256 of the preimage", expected, found));
    }
    let kind = input::Kind::ContractClaim(wire::ContractClaim {
        contract: bytes::Bytes::copy_from_slice(&args.contract),
        preimage: bytes::Bytes::copy_from_slice(&secret),
    });
    let check = found.check(&found.fund.receiver, &caller, true);
    found.run(caller, kind, check)
}

fn refund(args: RefundArgs, out: Output) -> Result<()> {
    let caller = Caller::open(&args.call, out)?;
    let found = find(&caller, &args.contract)?;
    let contract = bytes::Bytes::copy_from_slice(&args.contract);
    let check = found.check(&found.fund.sender, &caller, false);
    found.run(caller, input::Kind::ContractRefund(wire::ContractRefund { contract }), check)
}

fn show(args: ShowArgs, out: Output) -> Result<()> {
    let committee = args.question.committee()?;
    let (reply, agreeing) = block_on(async { args.question.network(&committee).contract(&args.contract).await })?;
    let state = reply.state();
    let Some(fund) = &reply.fund else { return Err(unknown(&args.contract)) };
    show_contract(&args.contract, fund, state, &reply, agreeing, &committee, out)
}

fn show_contract(
    id: &Hash,
    fund: &wire::ContractFund,
    state: State,
    reply: &wire::ContractReply,
    agreeing: usize,
    committee: &Committee,
    out: Output,
) -> Result<()> {
    let network = &committee.network;
    let amount = format_amount(fund.amount.into(), network.decimals);
    let receiver = Address::from_slice(&fund.receiver)?.to_text(&network.currency);
    let sender = Address::from_slice(&fund.sender)?.to_text(&network.currency);
    let expired = reply.time_ms >= fund.expiry_ms;
    let mut rows = vec![
        ("contract", hex::encode(id)),
        ("state", name(state).to_owned()),
        ("amount", format!("{amount} {}", network.currency)),
        ("hash", hex::encode(&fund.hash)),
        ("receiver", receiver.clone()),
        ("sender", sender.clone()),
        ("expires", format!("{}{}", utc(fund.expiry_ms), if expired { " (expired)" } else { "" })),
        ("log time", utc(reply.time_ms)),
    ];
    if state == State::Claimed {
        rows.push(("preimage", hex::encode(&reply.preimage)));
    }
    rows.push(("agreeing", format!("{agreeing} of {} authorities", committee.size())));
    let value = json!({"contract": hex::encode(id), "state": name(state), "amount": amount,
        "amount_minor": fund.amount.to_string(), "currency": network.currency, "hash": hex::encode(&fund.hash),
        "receiver": receiver, "sender": sender, "expiry_ms": fund.expiry_ms, "expired": expired,
        "time_ms": reply.time_ms, "preimage": hex::encode(&reply.preimage), "agreeing": agreeing,
        "authorities": committee.size()});
    out.data(fields(&rows), &value);
    Ok(())
}
