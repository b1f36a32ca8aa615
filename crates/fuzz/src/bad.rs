//! Decoders and handlers by name, for the corpus of bad inputs: each refuses what it gets with a code, and changes nothing.

use std::sync::LazyLock;

use bytes::Bytes;
use florin_client::cash::text::{self, Frames};
use florin_client::channel::text as channel;
use florin_client::pbtx::read_envelopes;
use florin_client::seed::Seed;
use florin_client::{journal, keystore, receipt_file};
use florin_core::address::{Address, check_currency};
use florin_core::amount::parse_amount;
use florin_core::authority::effect::Reply;
use florin_core::authority::input::Input;
use florin_core::authority::mint::NoteChecks;
use florin_core::authority::state::Account;
use florin_core::authority::{Authority, NoMeter};
use florin_core::batch::decode_batch;
use florin_core::bitmap::Bitmap;
use florin_core::cash::blind::{BlindedNonce, NoteSignature, TierKey};
use florin_core::cash::dkg::wire::{DkgItem, canonical};
use florin_core::cash::dkg::{KeyShares, PublicKeys};
use florin_core::certificate::check_certificate;
use florin_core::channel::hub::read_invoice;
use florin_core::channel::manager::Manager;
use florin_core::channel::rules::{self, At};
use florin_core::channel::voucher::{self, Voucher};
use florin_core::committee::Committee;
use florin_core::content::{Content, decode_rotate};
use florin_core::envelope::Order;
use florin_core::eosio::{PrivateKey, public_from_text, signature_from_text};
use florin_core::keys::{PublicKey, Signature};
use florin_core::ordered::input::Input as LogInput;
use florin_core::ordered::session;
use florin_core::permission::Permission;
use florin_core::registration::check_registration;
use florin_core::signatures::AuthorityPublicKey;
use florin_core::testing::{NOW_US, Signer, TestCommittee};
use florin_core::verdict::{check_authorities, check_place};
use florin_core::{Code, Error, Result, evidence, receipt, wire};
use florin_node::config::AuthorityFile;
use prost::Message;

use crate::cursor::Cursor;
use crate::targets::records::own_accounts;
use crate::worlds::ledger::Ledger;
use crate::worlds::proofs::PROOFS;
use crate::worlds::shard::SHARD;

static COMMITTEE: LazyLock<std::sync::Arc<Committee>> = LazyLock::new(|| TestCommittee::default().build().0);

/// The channel that vouchers are redeemed in: of accounts 1 and 2, one-way, with 1,000 of the first.
pub const CHANNEL: [u8; 32] = [6; 32];
/// Log time then, ms.
pub const NOW: u64 = 1_000_000;

fn message<M: Message + Default>(bytes: &[u8]) -> Result<M> {
    M::decode(bytes).map_err(|e| Error::new(Code::Decode, e.to_string()))
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|e| Error::new(Code::BadFile, e.to_string()))
}

fn file(problem: impl std::fmt::Display) -> Error {
    Error::new(Code::BadFile, problem.to_string())
}

/// What the decoder or handler of this name makes of an input: nothing, or why it is refused.
///
/// # Panics
/// If there is none of this name, or a handler has changed something that it refused.
pub fn try_input(name: &str, input: &[u8]) -> Result<()> {
    let bytes = Bytes::copy_from_slice(input);
    match name {
        "envelope" => Order::decode(bytes).map(drop),
        "body" => Order::decode_body(bytes).map(drop),
        "order" => {
            let order = Order::decode(bytes)?;
            check_place(order.network_id, true, &order)
        }
        "content" => Content::decode(&Order::decode_body(bytes)?).map(drop),
        "rotate" => decode_rotate(&Order::decode_body(bytes)?).map(drop),
        "signatures" => {
            let permission = Signer::new(1).permission;
            check_authorities(&Order::decode(bytes)?, |_| Ok(Some(permission.clone())))
        }
        "batch" => {
            let mut cursor = Cursor::new(input);
            let mut orders = Vec::new();
            while !cursor.is_empty() {
                orders.push(cursor.long());
            }
            decode_batch(&orders).map(drop)
        }
        "permission" => Permission::decode_account(input).map(drop),
        "actor-permission" => Permission::decode_actor(input).map(drop),
        "public-key" => PublicKey::parse(input).map(drop),
        "signature" => Signature::parse(input).map(drop),
        "registration" => {
            let mut cursor = Cursor::new(input);
            let signature = cursor.short();
            check_registration(cursor.rest(), signature).map(drop)
        }
        "blinded-nonce" => BlindedNonce::parse(input).map(drop),
        "note-signature" => NoteSignature::parse(input).map(drop),
        "tier-key" => TierKey::parse(input).map(drop),
        "bitmap" => {
            let mut cursor = Cursor::new(input);
            let count = usize::from(u16::from_le_bytes([cursor.byte(), cursor.byte()]));
            Bitmap::parse(cursor.rest(), count).map(drop)
        }
        "dkg-item" => canonical::<DkgItem>(input).map(drop),
        "cash-keys" => PublicKeys::decode(input).map(drop),
        "cash-shares" => KeyShares::decode(input).map(drop),
        _ => proofs_and_vouchers(name, input)
            .unwrap_or_else(|| texts(name, input).unwrap_or_else(|| handler(name, input))),
    }
}

fn proofs_and_vouchers(name: &str, input: &[u8]) -> Option<Result<()>> {
    let committee = &PROOFS.committee;
    Some((|| match name {
        "certificate" => check_certificate(committee, &message(input)?).map(drop),
        "receipt" => receipt::verify(committee, &message(input)?).map(drop),
        "evidence" => {
            let mut cursor = Cursor::new(input);
            let [first, second] = [message(&cursor.long())?, message(&cursor.long())?];
            evidence::check(committee, [&first, &second]).map(drop)
        }
        "session" => session::verify(committee, &message(input)?, &PROOFS.units).map(drop),
        "voucher" => Voucher::decode(&message(input)?).map(drop),
        "withdraw-permit" => voucher::withdraw_permit(&message(input)?).map(drop),
        "watch-permit" => voucher::watch_permit(&message(input)?).map(drop),
        "virtual-amount" => voucher::virtual_amount(&message(input)?).map(drop),
        "virtual-claim" => voucher::virtual_claim(&message(input)?).map(drop),
        "invoice" => read_invoice(&Bytes::copy_from_slice(input)).map(drop),
        "redeem" => {
            let redemption: wire::Redemption = message(input)?;
            let mut record = channel_record();
            let at = At { channel: &CHANNEL, side: 1, now_ms: NOW, verify: true };
            let voucher = Voucher::decode(&redemption.voucher.unwrap_or_default())?;
            let refused = rules::redeem(&mut record, &voucher, &redemption.secret, at).map(drop);
            assert!(refused.is_ok() || record == channel_record(), "what is refused changes nothing");
            refused
        }
        "manager-journal" => {
            let record: wire::ManagerRecord = message(input)?;
            Manager::load(own_accounts(), [&record]).map(drop)
        }
        "account-record" => Account::decode(message(input)?).map(drop),
        _ => Err(Error::new(Code::Usage, name)),
    })())
    .filter(|result| !matches!(result, Err(e) if e.code == Code::Usage))
}

/// The channel that vouchers are redeemed in.
pub fn channel_record() -> wire::ChannelRecord {
    let side = |number, deposited| {
        let signer = Signer::new(number);
        let address = Bytes::copy_from_slice(signer.address.as_bytes());
        Some(wire::ChannelSide { address, permission: signer.permission.encode(), deposited, ..Default::default() })
    };
    let lane = wire::ChannelLane { payer: 0, lane: 3, nonce: 5, redeemed: 0, ..Default::default() };
    wire::ChannelRecord {
        opener: side(1, 1_000),
        other: side(2, 0),
        delay_ms: 1_000,
        lanes: vec![lane],
        ..Default::default()
    }
}

fn texts(name: &str, input: &[u8]) -> Option<Result<()>> {
    Some((|| match name {
        "address" => Address::from_text(text(input)?, "flr").map(drop),
        "currency" => check_currency(text(input)?),
        "amount" => parse_amount(text(input)?, 2).map(drop),
        "key-text" => text(input)?.parse::<PublicKey>().map(drop),
        "authority-key" => text(input)?.parse::<AuthorityPublicKey>().map(drop),
        "eosio-public" => public_from_text(text(input)?).map(drop),
        "eosio-private" => PrivateKey::from_text(text(input)?).map(drop),
        "eosio-signature" => signature_from_text(text(input)?).map(drop),
        "note-text" => text::decode_notes(text(input)?, &COMMITTEE).map(drop),
        "key-to-lock" => text::decode_key(text(input)?, &COMMITTEE).map(drop),
        "voucher-text" => channel::decode_voucher(text(input)?, &COMMITTEE).map(drop),
        "permit-text" => channel::decode_permit(text(input)?, &COMMITTEE).map(drop),
        "invoice-text" => channel::decode_invoice(text(input)?, &COMMITTEE).map(drop),
        "qr-frames" => {
            let mut frames = Frames::default();
            text(input)?.lines().try_for_each(|line| frames.take(line).map(drop))
        }
        "seed-words" => Seed::from_words(text(input)?).map(drop),
        "committee-file" => Committee::from_toml(text(input)?).map(drop),
        "authority-file" => AuthorityFile::from_toml(text(input)?).map(drop),
        "authority-secret" => florin_node::config::secret(text(input)?, std::path::Path::new(".")).map(drop),
        "genesis-file" => {
            florin_node::genesis::parse(input, "genesis".into(), &COMMITTEE.network).try_for_each(|line| line.map(drop))
        }
        "envelopes-file" => read_envelopes(text(input)?).map(drop),
        // The commands name the file, and the code with it.
        "receipt-file" => receipt_file::parse(input).map(drop).map_err(file),
        "wallet-file" => keystore::inspect(input).map(drop).map_err(file),
        "journal-file" => {
            let found =
                journal::inspect::<String>(input).map_err(|(line, problem)| file(format!("line {line}: {problem}")));
            found.map(drop)
        }
        _ => Err(Error::new(Code::Usage, name)),
    })())
    .filter(|result| !matches!(result, Err(e) if e.code == Code::Usage))
}

/// The first refusal of a whole request, or of an order in it.
fn handler(name: &str, input: &[u8]) -> Result<()> {
    let authority = Authority::new(SHARD.committee.clone(), 0, 0, SHARD.keys[0].clone());
    authority.set_mint(SHARD.mint.clone());
    let input = match name {
        "shard-vote" => {
            let request: wire::VoteRequest = message(input)?;
            Input::Vote { orders: request.orders, checks: NoteChecks::default() }
        }
        "shard-settle" => {
            let request: wire::SettleRequest = message(input)?;
            Input::Settle { certificate: request.certificate.unwrap_or_default(), orders: request.orders }
        }
        "shard-deliver" => Input::Deliver(message(input)?),
        _ => return log_handler(name, input),
    };
    let effects = authority.handle(NOW_US, input, &SHARD.base, &mut NoMeter)?;
    let Reply::Vote(reply) = effects.reply else { return Ok(()) };
    let Some(first) = reply.errors.first() else { return Ok(()) };
    assert!(effects.writes.is_empty() && reply.vote.is_none(), "what is refused changes nothing");
    Err(Error::new(Code::from_number(first.code).expect("a code that is known"), first.message.clone()))
}

fn log_handler(name: &str, input: &[u8]) -> Result<()> {
    let mut ledger = Ledger::new();
    let log = &ledger.logs[0];
    match name {
        "log-close" => log.log.handle(LogInput::Close(message(input)?), &log.state).map(drop),
        "log-signature" => {
            let signature = message(input)?;
            log.log.handle(LogInput::Signature { session: 0, signature }, &log.state).map(drop)
        }
        // Inputs and outputs of a CALL of account 1, who has a contract open for account 2 and a channel with it.
        "log-call" => {
            let call: wire::Call = message(input)?;
            for outputs in prepared(&ledger) {
                let done = ledger.call(0, vec![], outputs);
                assert_eq!(done.map(|(_, code)| code), Some(0), "it is prepared");
            }
            let before = ledger.objects();
            let outputs = call.outputs.into_iter().filter_map(|output| output.kind).collect();
            let code = ledger.call(0, call.inputs, outputs).map_or(Code::BadContent as u32, |(_, code)| code);
            let kept = |objects: &std::collections::BTreeMap<Vec<u8>, Bytes>| -> Vec<(Vec<u8>, Bytes)> {
                let all = objects.iter().filter(|(key, _)| b"clnkpr".contains(&key[0]));
                all.map(|(key, value)| (key.clone(), value.clone())).collect()
            };
            assert!(code == 0 || kept(&before) == kept(&ledger.objects()), "what is refused changes nothing");
            ledger.check();
            match Code::from_number(code) {
                None => Ok(()),
                Some(code) => Err(Error::new(code, "as the log says")),
            }
        }
        other => panic!("no decoder or handler is called {other}"),
    }
}

/// Outputs of the orders that account 1 has made before.
pub fn prepared(ledger: &Ledger) -> Vec<Vec<wire::output::Kind>> {
    use wire::output::Kind;
    let [one, two] = [0, 1].map(|i| ledger.address(i));
    let fund = wire::ContractFund {
        amount: 9,
        hash: Bytes::from(vec![1; 32]),
        expiry_ms: crate::worlds::ledger::START + 1_000,
        receiver: two.clone(),
        sender: one.clone(),
    };
    let open = wire::ChannelOpen {
        opener: one,
        other: two,
        opener_permission: ledger.signers[0].permission.encode(),
        other_permission: ledger.signers[1].permission.encode(),
        delay_ms: 1_000,
        two_way: false,
        amount: 100,
    };
    let register = wire::NetworkRegister::default();
    let kind = Some(wire::network_command::Kind::Register(register));
    let network = Kind::Network(wire::NetworkCommand { network_id: 500, kind });
    vec![vec![Kind::ContractFund(fund), Kind::ChannelOpen(open), network]]
}
