//! Bearer orders: they spend notes of e-cash and have no account. What they are, and what makes one valid without any
//! state. Decision 17 of `docs/decisions` says why they look as they do.
//!
//! The envelope is that of every order, with actor, seqnum and prev_hash 0. Its authorities carry one signature for each note:
//! the committee's on the nonce, which makes it a note, and its owner's over the order.

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::address::Address;
use crate::cash::blind::{BlindedNonce, Nonce};
use crate::content::{Credit, check_address, check_credit, placed, unknown_kind};
use crate::envelope::{Authority, Body, Order, encode_body, encode_envelope};
use crate::error::{Code, Error, Result};
use crate::limits::{
    AMOUNT_MAX, AUTHORITIES_MAX, MEMO_BYTES_MAX, NOTES_IN_MAX, NOTES_PER_ORDER_MAX, SIGS_PER_AUTHORITY_MAX,
};
use crate::ordered::modules;
use crate::planted::{self, Bug};
use crate::wire::{self, output};

/// Bytes of a point of G1: the committee's signature on a nonce, or a blinded nonce.
const POINT_BYTES: usize = 48;
/// Bytes of one signature of a bearer order: the committee's on the nonce, then the owner's over the order.
pub const SIGNATURE_BYTES: usize = POINT_BYTES + 64;
/// Tiers below 63: a note is worth 2^tier minor units.
const TIER_MAX: u32 = 62;

const ORDER_TAG: &[u8; 16] = b"florin-bearer-v1";
const LOCK_TAG: &[u8] = b"florin-cash-lock-v1";

const _: () = assert!(NOTES_IN_MAX == AUTHORITIES_MAX * SIGS_PER_AUTHORITY_MAX);

/// A note that an order spends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoteSpent {
    /// What is marked spent.
    pub nonce: Nonce,
    /// It is worth 2^tier minor units, 0 to 62.
    pub tier: u32,
    /// The ed25519 key that must sign the order.
    pub key: [u8; 32],
    /// If its sender takes a locked note back: from when on it may, ms since 1970.
    pub after_ms: Option<u64>,
    /// How often the log has freed it.
    pub recoveries: u32,
}

/// A note that an order asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoteAsked {
    /// It is worth 2^tier minor units, 0 to 62.
    pub tier: u32,
    /// An encoded [`BlindedNonce`], as far as its length goes: [`NoteAsked::point`] looks at the rest.
    pub blinded: Bytes,
}

impl NoteAsked {
    /// Minor units.
    pub fn worth(&self) -> u64 {
        1 << self.tier
    }

    /// The blinded nonce. Errors: `DECODE`.
    pub fn point(&self) -> Result<BlindedNonce> {
        BlindedNonce::parse(&self.blinded)
    }

    /// As it stands in an order.
    pub fn request(tier: u32, blinded: &BlindedNonce) -> wire::NoteRequest {
        wire::NoteRequest { tier, blinded: Bytes::copy_from_slice(&blinded.to_bytes()) }
    }
}

/// Checked content of a bearer order.
#[derive(Clone, PartialEq, Debug)]
pub struct Bearer {
    /// 1 to 128 notes, with distinct nonces.
    pub notes: Vec<NoteSpent>,
    /// The outputs that settle at once and are credits: the first ones.
    pub credits: Vec<Credit>,
    /// Those that are notes: after the credits.
    pub asked: Vec<NoteAsked>,
    /// Those that settle in the order of the log: the last ones, from output `credits + asked` on.
    pub shared: Vec<wire::Output>,
    /// What these are worth, minor units.
    pub shared_value: u64,
    /// Who is credited if the shared side fails.
    pub refund: Option<Address>,
    /// Public note.
    pub memo: String,
    /// What the notes are worth, minor units below 2^63.
    pub value: u64,
}

impl Bearer {
    /// Checks the form of the content; `recover` if it asks for notes to be freed.
    /// Errors: `BAD_CONTENT`, `LIMIT`, `BAD_AMOUNT`.
    pub fn check(message: &wire::Bearer, recover: bool) -> Result<Bearer> {
        let limit = |what: &str, expected: String, found| Err(Error::expected(Code::Limit, what, expected, found));
        let (notes_in, outputs) = (message.notes.len(), message.outputs.len());
        if notes_in == 0 || notes_in > NOTES_IN_MAX {
            return limit("notes spent", format!("1 to {NOTES_IN_MAX}"), notes_in);
        }
        if notes_in + outputs > NOTES_PER_ORDER_MAX {
            return limit("notes and outputs", format!("at most {NOTES_PER_ORDER_MAX}"), notes_in + outputs);
        }
        if message.memo.len() > MEMO_BYTES_MAX {
            return limit("bytes of the memo", format!("at most {MEMO_BYTES_MAX}"), message.memo.len());
        }
        let mut bearer = Bearer {
            notes: Vec::with_capacity(notes_in),
            credits: Vec::new(),
            asked: Vec::new(),
            shared: Vec::new(),
            shared_value: 0,
            refund: None,
            memo: message.memo.clone(),
            value: 0,
        };
        for (i, note) in message.notes.iter().enumerate() {
            let note = check_note(note).map_err(|e| placed(e, "note", i))?;
            bearer.value = add(bearer.value, 1 << note.tier, "the notes")?;
            bearer.notes.push(note);
        }
        let mut nonces: Vec<Nonce> = bearer.notes.iter().map(|n| n.nonce).collect();
        nonces.sort_unstable();
        if nonces.windows(2).any(|pair| pair[0] == pair[1]) && !planted::is(Bug::NonceTwice) {
            return Err(Error::new(Code::BadContent, "a note is spent twice in one order"));
        }
        if recover {
            let bare = message.outputs.is_empty() && message.refund.is_empty() && message.memo.is_empty();
            return match bare {
                true => Ok(bearer),
                false => Err(Error::new(Code::BadContent, "a recovery names notes and nothing else")),
            };
        }
        bearer.outputs(message)?;
        Ok(bearer)
    }

    fn outputs(&mut self, message: &wire::Bearer) -> Result<()> {
        if message.outputs.is_empty() {
            return Err(Error::expected(Code::Limit, "outputs", "at least 1", 0));
        }
        let mut total = 0;
        for (i, output) in message.outputs.iter().enumerate() {
            let out_of_place =
                |what: &str| Error::new(Code::BadContent, format!("output {i} is a {what} out of place"));
            let worth = match output.kind.as_ref().ok_or_else(|| unknown_kind("output", i))? {
                output::Kind::Credit(_) if !self.asked.is_empty() || !self.shared.is_empty() => {
                    return Err(out_of_place("credit"));
                }
                output::Kind::Credit(credit) => {
                    self.credits.push(check_credit(i, credit)?);
                    credit.amount
                }
                output::Kind::Note(_) if !self.shared.is_empty() => return Err(out_of_place("note")),
                output::Kind::Note(note) => {
                    let asked = check_request(i, note)?;
                    let worth = asked.worth();
                    self.asked.push(asked);
                    worth
                }
                kind => {
                    let worth = modules::check_output(kind).map_err(|e| placed(e, "output", i))?;
                    if worth == 0 {
                        let message = format!("output {i} needs an account in whose name it is done");
                        return Err(Error::new(Code::BadContent, message));
                    }
                    self.shared.push(output.clone());
                    self.shared_value = add(self.shared_value, worth, "the outputs")?;
                    worth
                }
            };
            total = add(total, worth, "the outputs")?;
        }
        if total != self.value && !planted::is(Bug::BearerUnbalanced) {
            return Err(Error::expected(Code::BadAmount, "value of the outputs", self.value, total));
        }
        if self.shared.is_empty() != message.refund.is_empty() {
            let text = "an address for a refund belongs to outputs that the log settles, and to no others";
            return Err(Error::new(Code::BadContent, text));
        }
        if !self.shared.is_empty() {
            self.refund = Some(check_address("address for a refund", &message.refund)?);
        }
        Ok(())
    }

    /// The operation that the log carries out, of `output` and of the later ones.
    pub fn call(&self) -> (usize, &[wire::Output]) {
        (self.credits.len() + self.asked.len(), &self.shared)
    }
}

fn add(sum: u64, worth: u64, what: &str) -> Result<u64> {
    sum.checked_add(worth)
        .filter(|sum| *sum <= AMOUNT_MAX)
        .ok_or_else(|| Error::new(Code::BadAmount, format!("{what} add up to 2^63 or more")))
}

fn check_note(note: &wire::NoteInput) -> Result<NoteSpent> {
    check_tier(note.tier)?;
    let (nonce, key, after_ms) = match &note.lock {
        None => {
            let nonce = bytes_32("nonce", &note.nonce)?;
            if note.returned {
                return Err(Error::new(Code::BadContent, "only a locked note can be taken back"));
            }
            (Nonce(nonce), nonce, None)
        }
        Some(lock) => {
            if !note.nonce.is_empty() {
                return Err(Error::new(Code::BadContent, "the nonce of a locked note is the hash of its lock"));
            }
            let (receiver, sender) =
                (bytes_32("receiver's key", &lock.receiver)?, bytes_32("sender's key", &lock.sender)?);
            let key = if note.returned { sender } else { receiver };
            (lock_nonce(lock), key, note.returned.then_some(lock.after_ms))
        }
    };
    Ok(NoteSpent { nonce, tier: note.tier, key, after_ms, recoveries: note.recoveries })
}

/// A note that output `i` asks for, as far as its form goes. Errors: `BAD_CONTENT`.
pub(crate) fn check_request(i: usize, note: &wire::NoteRequest) -> Result<NoteAsked> {
    check_tier(note.tier).map_err(|e| placed(e, "output", i))?;
    if note.blinded.len() != POINT_BYTES {
        let what = format!("bytes of the blinded nonce of output {i}");
        return Err(Error::expected(Code::BadContent, &what, POINT_BYTES, note.blinded.len()));
    }
    Ok(NoteAsked { tier: note.tier, blinded: note.blinded.clone() })
}

fn check_tier(tier: u32) -> Result<()> {
    if tier > TIER_MAX {
        return Err(Error::expected(Code::BadContent, "tier", format!("0 to {TIER_MAX}"), tier));
    }
    Ok(())
}

fn bytes_32(what: &str, bytes: &[u8]) -> Result<[u8; 32]> {
    let wrong = |_| Error::expected(Code::BadContent, &format!("bytes of the {what}"), 32, bytes.len());
    <[u8; 32]>::try_from(bytes).map_err(wrong)
}

/// The nonce of a locked note.
pub fn lock_nonce(lock: &wire::NoteLock) -> Nonce {
    let hash = Sha256::new().chain_update(LOCK_TAG).chain_update(&lock.receiver).chain_update(&lock.sender);
    Nonce(hash.chain_update(lock.after_ms.to_be_bytes()).finalize().into())
}

/// What the owner of each note signs.
pub fn order_message(order_id: &[u8; 32]) -> [u8; 48] {
    let mut message = [0; 48];
    message[..16].copy_from_slice(ORDER_TAG);
    message[16..].copy_from_slice(order_id);
    message
}

/// Checks the frame of a bearer order: no account, and one signature of 112 bytes for each note. Returns these.
/// Errors: `BAD_CONTENT`, `AUTHORITY_COUNT`, `KEY_TYPE`, `SIG_FORMAT`.
pub fn signatures<'a>(order: &'a Order, bearer: &Bearer) -> Result<Vec<&'a [u8; SIGNATURE_BYTES]>> {
    check_frame(order)?;
    let notes = bearer.notes.len();
    let authorities = notes.div_ceil(SIGS_PER_AUTHORITY_MAX);
    if order.authorities.len() != authorities {
        let what = format!("authorities for {notes} notes");
        return Err(Error::expected(Code::AuthorityCount, &what, authorities, order.authorities.len()));
    }
    let mut out = Vec::with_capacity(notes);
    for (i, authority) in order.authorities.iter().enumerate() {
        if authority.key_type != 0 {
            return Err(Error::expected(Code::KeyType, &format!("type of authority {i}"), 0, authority.key_type));
        }
        let expected = (notes - i * SIGS_PER_AUTHORITY_MAX).min(SIGS_PER_AUTHORITY_MAX);
        if authority.sigs.len() != expected {
            let what = format!("signatures in authority {i}");
            return Err(Error::expected(Code::SigFormat, &what, expected, authority.sigs.len()));
        }
        for sig in &authority.sigs {
            let wrong =
                |_| Error::expected(Code::SigFormat, "bytes of a note's signatures", SIGNATURE_BYTES, sig.len());
            out.push(<&[u8; SIGNATURE_BYTES]>::try_from(&sig[..]).map_err(wrong)?);
        }
    }
    Ok(out)
}

/// Whether an envelope may be that of a bearer order, at a glance: its body names no actor. True for all that are.
pub fn may_be(envelope: &[u8]) -> bool {
    // Tag and length of the body, its network (tag and 8 bytes), and then no tag of an actor.
    let length = envelope.iter().skip(1).position(|byte| byte & 0x80 == 0);
    length.and_then(|length| envelope.get(length + 2 + 9)).is_some_and(|tag| *tag != 0x11)
}

/// A bearer order names no account, and so has no number. Errors: `BAD_CONTENT`.
pub fn check_frame(order: &Order) -> Result<()> {
    if order.actor != 0 || order.seqnum != 0 || order.prev_hash != 0 || !order.cosignors.is_empty() {
        let found = format!("actor {}, seqnum {}, prev_hash {}", order.actor, order.seqnum, order.prev_hash);
        return Err(Error::expected(Code::BadContent, "account of a bearer order", "0, 0, 0 and no cosignors", found));
    }
    Ok(())
}

/// A note in its owner's hand.
pub struct Spend {
    /// How it stands in the order.
    pub input: wire::NoteInput,
    /// The committee's signature on its nonce, 48 bytes.
    pub signature: [u8; POINT_BYTES],
    /// Signs a message with the key that spends it.
    pub sign: Sign,
}

/// Signs a message with one ed25519 key.
pub type Sign = Box<dyn Fn(&[u8]) -> [u8; 64]>;

/// The envelope of a bearer order, for wallets: BEARER, or RECOVER_NOTES if there are no outputs. What it says is not checked.
pub fn build(
    network_id: u64,
    notes: &[Spend],
    outputs: Vec<wire::Output>,
    memo: &str,
    refund: Option<&Address>,
) -> Bytes {
    let transaction_type = match outputs.is_empty() {
        true => crate::content::TYPE_RECOVER_NOTES,
        false => crate::content::TYPE_BEARER,
    };
    let content = wire::Bearer {
        notes: notes.iter().map(|note| note.input.clone()).collect(),
        outputs,
        memo: memo.to_owned(),
        refund: refund.map(|a| Bytes::copy_from_slice(a.as_bytes())).unwrap_or_default(),
    };
    let content = Bytes::from(content.encode_to_vec());
    let body = encode_body(&Body { network_id, transaction_type, content, ..Body::default() });
    let message = order_message(&Sha256::digest(&body).into());
    let sigs: Vec<Bytes> =
        notes.iter().map(|note| Bytes::from([&note.signature[..], &(note.sign)(&message)[..]].concat())).collect();
    let authorities: Vec<Authority> =
        sigs.chunks(SIGS_PER_AUTHORITY_MAX).map(|sigs| Authority { key_type: 0, sigs: sigs.to_vec() }).collect();
    encode_envelope(&body, &authorities)
}

#[cfg(test)]
#[path = "bearer_tests.rs"]
mod tests;
