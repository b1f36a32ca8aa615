//! What an order in a payment network says: PAY, SET_PERMISSION, CALL or RECOVER of an account; or BEARER or
//! RECOVER_NOTES, which have none ([`crate::bearer`]).
//!
//! An account opens itself: its first order (seqnum 1) carries the permission whose hash is its address,
//! and no other order does. So nobody registers before being paid, and a certificate alone is enough to
//! settle at an authority that has never heard of the account.

use bytes::Bytes;
use prost::Message;

use crate::address::Address;
use crate::bearer::{self, Bearer, NoteAsked};
use crate::bls;
use crate::canonical::{self as tag, Reader};
use crate::envelope::Order;
use crate::error::{Code, Error, Result};
use crate::limits::{AMOUNT_MAX, CALL_BYTES_MAX, INPUTS_MAX, MEMO_BYTES_MAX, OUTPUTS_MAX};
use crate::ordered::modules;
use crate::permission::Permission;
use crate::wire;

/// `transaction_type` of a payment.
pub const TYPE_PAY: u32 = 1;
/// `transaction_type` of a change of keys.
pub const TYPE_SET_PERMISSION: u32 = 2;
/// `transaction_type` of an operation on shared objects.
pub const TYPE_CALL: u32 = 3;
/// `transaction_type` of a request to free a locked account.
pub const TYPE_RECOVER: u32 = 4;

/// `transaction_type` of an order that spends notes.
pub const TYPE_BEARER: u32 = 5;
/// `transaction_type` of a request to free locked notes.
pub const TYPE_RECOVER_NOTES: u32 = 6;

/// `transaction_type` of an actor's change of its own keys in a PBTX network: a [`wire::Rotate`]. Every other type there
/// is the application's.
pub const TYPE_ROTATE: u32 = 0x464c_0002;

/// A credit that a payment makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Credit {
    /// Who is paid.
    pub address: Address,
    /// Minor units, 1 to 2^63 - 1.
    pub amount: u64,
}

/// What the order does.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Pays outputs.
    Pay {
        /// Credits; with the notes 1 to 256.
        outputs: Vec<Credit>,
        /// Public note.
        memo: String,
    },
    /// Replaces the account's permission (encoded, actor 0).
    SetPermission(Bytes),
    /// Operates on shared objects, in the order of the log.
    Call {
        /// The address of the account itself.
        account: Address,
        /// The operation; inputs and outputs are well formed and balance.
        call: Box<wire::Call>,
    },
    /// Asks the log to free the account.
    Recover {
        /// The address of the account itself.
        account: Address,
    },
    /// Spends notes.
    Bearer(Box<Bearer>),
    /// Asks the log to free notes.
    RecoverNotes(Box<Bearer>),
}

impl Action {
    /// A word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Action::Pay { .. } => "pay",
            Action::SetPermission(_) => "set-permission",
            Action::Call { .. } => "call",
            Action::Recover { .. } => "recover",
            Action::Bearer(_) => "bearer",
            Action::RecoverNotes(_) => "recover-notes",
        }
    }
}

/// Checked content of an order.
#[derive(Clone, PartialEq, Debug)]
pub struct Content {
    /// What the order does.
    pub action: Action,
    /// The permission that opens the account, exactly in its first order.
    pub open: Option<Bytes>,
    /// Notes that it asks for: outputs of their own, after the credits.
    pub notes: Vec<NoteAsked>,
    /// What the sender is debited, or what the notes that it spends are worth; minor units below 2^63.
    pub total: u64,
}

impl Content {
    /// Decodes and checks the content of an order of a payment network.
    /// Errors: `BAD_CONTENT`, `NON_CANONICAL`, `LIMIT`, `BAD_AMOUNT`, `BAD_PERMISSION`.
    pub fn decode(order: &Order) -> Result<Content> {
        let mut notes = Vec::new();
        let (action, open, total) = match order.transaction_type {
            TYPE_PAY => match read_pay(&order.content) {
                Some(pay) => pay,
                None => check_pay(&order.content, &mut notes)?,
            },
            TYPE_SET_PERMISSION => {
                let set: wire::SetPermission = canonical(&order.content)?;
                Permission::decode_account(&set.permission)?;
                (Action::SetPermission(set.permission), set.open, 0)
            }
            TYPE_CALL => {
                let call: wire::Call = canonical(&order.content)?;
                let debit = check_call(&call, order.content.len())?;
                let open = call.open.clone();
                (Action::Call { account: own_address(&call.account)?, call: Box::new(call) }, open, debit)
            }
            TYPE_RECOVER => {
                let recover: wire::Recover = canonical(&order.content)?;
                (Action::Recover { account: own_address(&recover.account)? }, recover.open, 0)
            }
            TYPE_BEARER | TYPE_RECOVER_NOTES => {
                let message: wire::Bearer = canonical(&order.content)?;
                let bearer = Box::new(Bearer::check(&message, order.transaction_type == TYPE_RECOVER_NOTES)?);
                notes.clone_from(&bearer.asked);
                let total = bearer.value;
                let action = match order.transaction_type {
                    TYPE_BEARER => Action::Bearer(bearer),
                    _ => Action::RecoverNotes(bearer),
                };
                return Ok(Content { action, open: None, notes, total });
            }
            other => {
                let known = "1 (PAY), 2 (SET_PERMISSION), 3 (CALL), 4 (RECOVER), 5 (BEARER) or 6 (RECOVER_NOTES)";
                return Err(Error::expected(Code::BadContent, "transaction_type", known, other));
            }
        };
        let open = match (order.seqnum, open.is_empty()) {
            (1, true) => {
                return Err(Error::new(
                    Code::BadContent,
                    "the first order of an account must carry `open`, its permission",
                ));
            }
            (1, false) => Some(open),
            (_, true) => None,
            (n, false) => {
                return Err(Error::new(Code::BadContent, format!("`open` belongs in seqnum 1 alone, found it in {n}")));
            }
        };
        if let Some(open) = &open {
            Permission::decode_account(open)?;
            let actor = Permission::address_of(order.network_id, open).actor();
            if actor != order.actor {
                return Err(Error::expected(Code::BadContent, "actor of the permission in `open`", order.actor, actor));
            }
        }
        Ok(Content { action, open, notes, total })
    }

    /// The credits that it makes when it settles; those of a CALL come from the log.
    pub fn credits(&self) -> &[Credit] {
        match &self.action {
            Action::Pay { outputs, .. } => outputs,
            Action::Bearer(bearer) => &bearer.credits,
            Action::SetPermission(_) | Action::Call { .. } | Action::Recover { .. } | Action::RecoverNotes(_) => &[],
        }
    }

    /// BLS keys that come with the permissions in it: that of `open`, then that of a SET_PERMISSION. Errors: `BAD_PERMISSION`.
    pub fn sets_bls_keys(&self) -> Result<Vec<bls::Key>> {
        let set = match &self.action {
            Action::SetPermission(permission) => Some(permission),
            _ => None,
        };
        let mut keys = Vec::new();
        for permission in self.open.iter().chain(set) {
            keys.extend(Permission::decode_kept(permission)?.bls_key());
        }
        Ok(keys)
    }

    /// The address that a CALL or RECOVER says is its account's.
    pub fn claimed_account(&self) -> Option<&Address> {
        match &self.action {
            Action::Call { account, .. } | Action::Recover { account } => Some(account),
            Action::Pay { .. } | Action::SetPermission(_) | Action::Bearer(_) | Action::RecoverNotes(_) => None,
        }
    }

    /// Its memo, empty if it has none.
    pub fn memo(&self) -> &str {
        match &self.action {
            Action::Pay { memo, .. } => memo,
            Action::Call { call, .. } => &call.memo,
            Action::Bearer(bearer) => &bearer.memo,
            Action::SetPermission(_) | Action::Recover { .. } | Action::RecoverNotes(_) => "",
        }
    }
}

/// Encoded content of a payment, for wallets.
pub fn encode_pay(outputs: &[Credit], memo: &str, open: Option<Bytes>) -> Bytes {
    encode_withdraw(outputs, &[], memo, open)
}

/// An output that credits an address.
pub fn credit_output(credit: &Credit) -> wire::Output {
    let address = Bytes::copy_from_slice(credit.address.as_bytes());
    wire::Output { kind: Some(wire::output::Kind::Credit(wire::Credit { address, amount: credit.amount })) }
}

/// Encoded content of a payment that asks for notes, too, for wallets.
pub fn encode_withdraw(outputs: &[Credit], notes: &[wire::NoteRequest], memo: &str, open: Option<Bytes>) -> Bytes {
    let note = |note: &wire::NoteRequest| wire::Output { kind: Some(wire::output::Kind::Note(note.clone())) };
    let outputs = outputs.iter().map(credit_output).chain(notes.iter().map(note)).collect();
    wire::Pay { outputs, memo: memo.to_owned(), open: open.unwrap_or_default() }.encode_to_vec().into()
}

/// Encoded content of a change of keys, for wallets.
pub fn encode_set_permission(permission: Bytes, open: Option<Bytes>) -> Bytes {
    wire::SetPermission { permission, open: open.unwrap_or_default() }.encode_to_vec().into()
}

/// Encoded content of an operation on shared objects, for wallets.
pub fn encode_call(call: &wire::Call) -> Bytes {
    call.encode_to_vec().into()
}

/// Encoded content of a request to free an account, for wallets.
pub fn encode_recover(account: &Address, open: Option<Bytes>) -> Bytes {
    let account = Bytes::copy_from_slice(account.as_bytes());
    wire::Recover { account, open: open.unwrap_or_default() }.encode_to_vec().into()
}

/// Encoded content of an actor's change of its own keys: `generation` is that of the permission that it replaces.
pub fn encode_rotate(permission: Bytes, generation: u32) -> Bytes {
    wire::Rotate { permission, generation }.encode_to_vec().into()
}

/// The change of keys in an order of this type. Errors: `BAD_CONTENT`, `NON_CANONICAL`, those of
/// [`Permission::decode_actor`], `BAD_PERMISSION` if it is another actor's.
pub fn decode_rotate(order: &Order) -> Result<wire::Rotate> {
    let rotate: wire::Rotate = canonical(&order.content)?;
    let actor = Permission::decode_actor(&rotate.permission)?.actor;
    if actor != order.actor {
        return Err(Error::expected(Code::BadPermission, "actor of the permission", order.actor, actor));
    }
    Ok(rotate)
}

fn own_address(bytes: &[u8]) -> Result<Address> {
    let bytes = <[u8; 32]>::try_from(bytes)
        .map_err(|_| Error::expected(Code::BadContent, "bytes of the account's address", 32, bytes.len()))?;
    Ok(Address::new(bytes))
}

/// Form of a CALL, and what its account is debited: outputs less inputs. What the shared objects say is known only
/// in the log's order.
pub(crate) fn check_call(call: &wire::Call, bytes: usize) -> Result<u64> {
    let limit =
        |what: &str, max: usize, found: usize| Err(Error::expected(Code::Limit, what, format!("at most {max}"), found));
    if bytes > CALL_BYTES_MAX {
        return limit("bytes of the content", CALL_BYTES_MAX, bytes);
    }
    if call.inputs.len() > INPUTS_MAX {
        return limit("inputs", INPUTS_MAX, call.inputs.len());
    }
    if call.outputs.len() > OUTPUTS_MAX {
        return limit("outputs", OUTPUTS_MAX, call.outputs.len());
    }
    if call.memo.len() > MEMO_BYTES_MAX {
        return limit("bytes of the memo", MEMO_BYTES_MAX, call.memo.len());
    }
    if call.inputs.is_empty() && call.outputs.is_empty() {
        return Err(Error::new(Code::BadContent, "a CALL has inputs or outputs, found neither"));
    }
    let mut value: i128 = 0;
    for (i, output) in call.outputs.iter().enumerate() {
        let kind = output.kind.as_ref().ok_or_else(|| unknown_kind("output", i))?;
        value += modules::check_output(kind).map_err(|e| placed(e, "output", i))? as i128;
    }
    for (i, input) in call.inputs.iter().enumerate() {
        let kind = input.kind.as_ref().ok_or_else(|| unknown_kind("input", i))?;
        check_amount(input.amount).and_then(|()| modules::check_input(kind)).map_err(|e| placed(e, "input", i))?;
        value -= input.amount as i128;
    }
    u64::try_from(value).ok().filter(|debit| *debit <= AMOUNT_MAX).ok_or_else(|| {
        let expected = "0 to 2^63 - 1 (pay what inputs bring to an output)";
        Error::expected(Code::BadAmount, "outputs less inputs", expected, value)
    })
}

pub(crate) fn unknown_kind(what: &str, i: usize) -> Error {
    Error::new(Code::BadContent, format!("{what} {i} has no kind that this network knows"))
}

pub(crate) fn placed(mut e: Error, what: &str, i: usize) -> Error {
    e.message = format!("{what} {i}: {}", e.message);
    e
}

/// An amount of money that moves. Errors: `BAD_AMOUNT`.
pub fn check_amount(amount: u64) -> Result<()> {
    if amount == 0 || amount > AMOUNT_MAX {
        return Err(Error::expected(Code::BadAmount, "amount", "1 to 2^63 - 1", amount));
    }
    Ok(())
}

/// A 32-byte address inside a content. Errors: `BAD_CONTENT`.
pub fn check_address(what: &str, bytes: &[u8]) -> Result<Address> {
    <[u8; 32]>::try_from(bytes)
        .map(Address::new)
        .map_err(|_| Error::expected(Code::BadContent, &format!("bytes of the {what}"), 32, bytes.len()))
}

/// A usual payment, without notes and with nothing wrong; `None` for any other. A test holds it to [`check_pay`].
fn read_pay(content: &Bytes) -> Option<(Action, Bytes, u64)> {
    let mut reader = Reader::new(content);
    let mut outputs = Vec::with_capacity(1);
    let mut total: u64 = 0;
    while let Some(part) = reader.bytes_field(tag::bytes(1), content.len())? {
        let mut output = Reader::within(content, part.clone());
        let credit = output.bytes_field(tag::bytes(1), content.len())??;
        if credit.end != part.end || outputs.len() == OUTPUTS_MAX {
            return None;
        }
        let mut credit = Reader::within(content, credit);
        let (address, amount) = (Address::new(credit.array(tag::bytes(1))?), credit.uint64_field(tag::varint(2))?);
        if !credit.is_done() || amount == 0 || amount > AMOUNT_MAX {
            return None;
        }
        total = total.checked_add(amount).filter(|total| *total <= AMOUNT_MAX)?;
        outputs.push(Credit { address, amount });
    }
    let memo = reader.slice(tag::bytes(2))?;
    let open = match reader.bytes_field(tag::bytes(15), content.len())? {
        Some(range) if range.is_empty() => return None,
        Some(range) => content.slice(range),
        None => Bytes::new(),
    };
    if !reader.is_done() || outputs.is_empty() || memo.len() > MEMO_BYTES_MAX {
        return None;
    }
    let memo = std::str::from_utf8(memo).ok()?.to_owned();
    Some((Action::Pay { outputs, memo }, open, total))
}

/// Whom a payment pays, as far as that can be read without any check.
pub(crate) fn payees(order: &Order) -> impl Iterator<Item = Address> + '_ {
    let is_payment = order.transaction_type == TYPE_PAY;
    is_payment.then(|| addresses(&order.content)).into_iter().flatten()
}

fn addresses(content: &Bytes) -> impl Iterator<Item = Address> + '_ {
    let mut reader = Reader::new(content);
    std::iter::from_fn(move || {
        let output = reader.bytes_field(tag::bytes(1), content.len())??;
        let credit = Reader::within(content, output).bytes_field(tag::bytes(1), content.len())??;
        Some(Address::new(Reader::within(content, credit).array(tag::bytes(1))?))
    })
}

/// Any payment: what it does, `open`, and what it costs. Errors: as [`Content::decode`].
fn check_pay(content: &Bytes, notes: &mut Vec<NoteAsked>) -> Result<(Action, Bytes, u64)> {
    let pay: wire::Pay = canonical(content)?;
    let (outputs, total) = outputs(&pay, notes)?;
    if pay.memo.len() > MEMO_BYTES_MAX {
        let expected = format!("at most {MEMO_BYTES_MAX}");
        return Err(Error::expected(Code::Limit, "bytes of the memo", expected, pay.memo.len()));
    }
    Ok((Action::Pay { outputs, memo: pay.memo }, pay.open, total))
}

/// Credits of a PAY, with the notes that come after them.
fn outputs(pay: &wire::Pay, notes: &mut Vec<NoteAsked>) -> Result<(Vec<Credit>, u64)> {
    if pay.outputs.is_empty() || pay.outputs.len() > OUTPUTS_MAX {
        return Err(Error::expected(Code::Limit, "outputs", format!("1 to {OUTPUTS_MAX}"), pay.outputs.len()));
    }
    let mut outputs = Vec::with_capacity(pay.outputs.len());
    let mut total: u64 = 0;
    for (i, output) in pay.outputs.iter().enumerate() {
        let amount = match &output.kind {
            Some(wire::output::Kind::Credit(credit)) if notes.is_empty() => {
                outputs.push(check_credit(i, credit)?);
                credit.amount
            }
            Some(wire::output::Kind::Credit(_)) => {
                return Err(Error::new(Code::BadContent, format!("output {i} is a credit after a note")));
            }
            Some(wire::output::Kind::Note(note)) => {
                let asked = bearer::check_request(i, note)?;
                let worth = asked.worth();
                notes.push(asked);
                worth
            }
            _ => return Err(unknown_kind("output", i)),
        };
        total = total
            .checked_add(amount)
            .filter(|t| *t <= AMOUNT_MAX)
            .ok_or_else(|| Error::new(Code::BadAmount, "the outputs add up to 2^63 or more"))?;
    }
    Ok((outputs, total))
}

/// A credit that is output `i`. Errors: `BAD_CONTENT`, `BAD_AMOUNT`.
pub(crate) fn check_credit(i: usize, credit: &wire::Credit) -> Result<Credit> {
    let address = <[u8; 32]>::try_from(credit.address.as_ref()).map_err(|_| {
        Error::expected(Code::BadContent, &format!("bytes of the address of output {i}"), 32, credit.address.len())
    })?;
    if credit.amount == 0 || credit.amount > AMOUNT_MAX {
        return Err(Error::expected(Code::BadAmount, &format!("amount of output {i}"), "1 to 2^63 - 1", credit.amount));
    }
    Ok(Credit { address: Address::new(address), amount: credit.amount })
}

/// Decodes, and refuses bytes that another encoder would not make: what is signed has one form.
pub(crate) fn canonical<M: Message + Default>(bytes: &Bytes) -> Result<M> {
    let message = M::decode(bytes.clone())
        .map_err(|e| Error::new(Code::BadContent, format!("the content does not decode: {e}")))?;
    if message.encoded_len() != bytes.len() || message.encode_to_vec() != bytes[..] {
        return Err(Error::new(Code::NonCanonical, "the content is not in its one canonical encoding"));
    }
    Ok(message)
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
