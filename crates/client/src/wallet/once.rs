//! Payments with an id, which are made once however often they are asked for.
//!
//! The id stands in the journal's record of the signed order, and that record is durable before the order is sent.
//! An order whose number is free again (it is void, was dropped, or another order took its place) is void for this
//! journal, but whoever kept it may still offer it. So a next order of the id is signed only where it excludes each
//! earlier one: nothing else is pending, and
//! - an earlier one with the same sequence number and the next one can't both be certified;
//! - of an earlier one with a lower sequence number, it is proved that another order is certified in its place, or that
//!   a recovery has voided the number.
//!
//! None can have a higher one: sequence numbers of an account go down only past pending orders, and an order with an
//! id is never chained to one.
//!
//! An order's id is a hash of what is signed: two equal payments give the same order if the second takes the place of
//! the first. It counts for whom it was signed last.

use std::collections::BTreeMap;

use florin_core::amount::format_amount;
use florin_core::content::{Action, Content, Credit};
use florin_core::envelope::Order;
use florin_core::permission::Permission;
use florin_core::receipt::verify;
use florin_core::{Code, Error, Result, wire};
use prost::Message;

use super::call::{Operation, describe};
use super::records::{Pending, Record, Sent};
use super::roots::Rekey;
use super::{Draft, Wallet, now_ms};
use crate::network::Network;
use crate::seed::Seed;

/// Tier of a note above which no amount is.
const TIER_MAX: u32 = 63;
/// Characters of a payment's id.
const ID_CHARS_MAX: usize = 64;

/// A payment that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// 1 to 64 printable characters: with it, the payment is made once. Without, each time it is asked for.
    pub id: Option<String>,
    /// Account of the wallet that pays.
    pub account: u32,
    /// Who gets what.
    pub outputs: Vec<Credit>,
    /// Notes of e-cash that it is to make.
    pub notes: Vec<wire::NoteRequest>,
    /// A note for the recipients.
    pub memo: String,
}

/// What the journal holds of an id: every order that was signed for it, on one account.
#[derive(Clone, Debug)]
pub(super) struct Signed {
    account: u32,
    orders: Vec<Pending>,
}

/// What a journal holds of payments with an id.
#[derive(Default)]
pub(super) struct Ids {
    signed: BTreeMap<String, Signed>,
    /// Whom an order was signed for last.
    owners: BTreeMap<[u8; 32], String>,
}

impl Ids {
    pub(super) fn note(&mut self, id: Option<String>, account: u32, order: &Order, pending: &Pending) {
        let Some(id) = id else {
            self.owners.remove(&order.id);
            return;
        };
        let signed = self.signed.entry(id.clone()).or_insert_with(|| Signed { account, orders: Vec::new() });
        signed.orders.push(pending.clone());
        self.owners.insert(order.id, id);
    }

    /// Whom an order was signed for.
    pub(super) fn owner(&self, order: &Order) -> Option<&String> {
        self.owners.get(&order.id)
    }

    /// The orders that count for an id.
    fn orders(&self, id: &str) -> Result<Vec<Order>> {
        let orders = self.signed.get(id).map(|s| s.orders.as_slice()).unwrap_or_default();
        let orders: Vec<Order> = orders.iter().map(Pending::order).collect::<Result<_>>()?;
        Ok(orders.into_iter().filter(|o| self.owner(o).is_some_and(|owner| owner == id)).collect())
    }
}

/// An order that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// A payment.
    Pay(Payment),
    /// An operation on shared objects.
    Call(Operation),
    /// Other keys for an account.
    Keys(Rekey),
}

impl Request {
    /// Its id, if it has one.
    pub fn id(&self) -> Option<&str> {
        match self {
            Request::Pay(payment) => payment.id.as_deref(),
            Request::Call(operation) => operation.id.as_deref(),
            Request::Keys(_) => None,
        }
    }

    /// Account of the wallet that it is for.
    pub fn account(&self) -> u32 {
        match self {
            Request::Pay(payment) => payment.account,
            Request::Call(operation) => operation.account,
            Request::Keys(rekey) => rekey.account,
        }
    }

    /// Whether an order does just this.
    pub fn is(&self, content: &Content) -> bool {
        match (self, &content.action) {
            (Request::Pay(payment), Action::Pay { outputs, memo }) => {
                let asked = content.notes.iter().map(|note| (note.tier, &note.blinded));
                (&payment.outputs, &payment.memo) == (outputs, memo)
                    && asked.eq(payment.notes.iter().map(|note| (note.tier, &note.blinded)))
            }
            (Request::Call(operation), Action::Call { call, .. }) => operation.is(call),
            (Request::Keys(rekey), Action::SetPermission(permission)) => {
                Permission::decode(permission).is_ok_and(|p| p.distils().is_some() == rekey.bls)
            }
            _ => false,
        }
    }

    /// What it takes from the account, minor units.
    pub(super) fn total(&self) -> Result<i128> {
        match self {
            Request::Pay(payment) => {
                let notes: i128 = payment.notes.iter().map(|note| 1i128 << note.tier.min(TIER_MAX)).sum();
                Ok(notes + payment.outputs.iter().map(|o| i128::from(o.amount)).sum::<i128>())
            }
            Request::Call(operation) => operation.total(),
            Request::Keys(_) => Ok(0),
        }
    }

    /// Whether the journal holds an order for its id that may still become final: one that is pending.
    pub fn is_pending(&self, wallet: &Wallet) -> bool {
        let Some(orders) = self.id().and_then(|id| wallet.book.ids.orders(id).ok()) else { return false };
        let pending = |id| wallet.account(self.account()).pending.iter().any(|p| p.order().is_ok_and(|o| o.id == id));
        orders.iter().any(|order| pending(order.id))
    }

    fn check_id(&self) -> Result<()> {
        let Some(id) = self.id() else { return Ok(()) };
        let printable = |c: char| matches!(c, '\'' | '"' | '\\') || c.escape_debug().len() == 1;
        if (1..=ID_CHARS_MAX).contains(&id.chars().count()) && id.chars().all(printable) {
            return Ok(());
        }
        Err(Error::expected(Code::Usage, "id of the payment", "1 to 64 printable characters", format!("{id:?}")))
    }
}

impl Wallet {
    /// The request's final order, if it has an id and the journal holds one. Errors: `USAGE` if the id is none, or
    /// is another request's.
    pub fn made(&self, request: &Request) -> Result<Option<&Sent>> {
        request.check_id()?;
        let Some(id) = request.id() else { return Ok(None) };
        let Some(signed) = self.book.ids.signed.get(id) else { return Ok(None) };
        self.check_same(id, signed, request)?;
        for order in self.book.ids.orders(id)? {
            if let Some((sent, true)) = self.sent_at(request.account(), order.seqnum, &order)? {
                return Ok(Some(sent));
            }
        }
        Ok(None)
    }

    /// The final order with a sequence number, and whether it is this one.
    fn sent_at(&self, account: u32, seqnum: u32, order: &Order) -> Result<Option<(&Sent, bool)>> {
        let Some(sent) = self.account(account).sent.iter().rev().find(|s| s.seqnum == seqnum) else { return Ok(None) };
        Ok(Some((sent, Order::decode(sent.receipt.transaction.clone())?.id == order.id)))
    }

    fn check_same(&self, id: &str, signed: &Signed, request: &Request) -> Result<()> {
        let differ = |what: &str, expected: String, found: String| {
            let what = format!("{what} of the payment with id {id:?}");
            Err(Error::expected(Code::Usage, &what, expected, found))
        };
        if signed.account != request.account() {
            return differ("account", signed.account.to_string(), request.account().to_string());
        }
        let Some(first) = signed.orders.first() else { return Ok(()) };
        let content = Content::decode(&first.order()?)?;
        let Request::Pay(payment) = request else {
            let Request::Call(operation) = request else { return Ok(()) };
            let show = |call: &wire::Call| describe(call, &self.committee).join("; ");
            let old = match &content.action {
                Action::Call { call, .. } if operation.is(call) => return Ok(()),
                Action::Call { call, .. } => show(call),
                _ => "a payment".into(),
            };
            return differ("operation", old, show(&operation.call(0)));
        };
        let (old, new) = (content.credits(), &payment.outputs);
        if old.len() != new.len() {
            return differ("number of recipients", old.len().to_string(), new.len().to_string());
        }
        let network = &self.committee.network;
        let show = |c: &Credit| {
            let amount = format_amount(c.amount.into(), network.decimals);
            format!("{amount} {} to {}", network.currency, c.address.to_text(&network.currency))
        };
        if let Some((old, new)) = old.iter().zip(new).find(|(old, new)| old != new) {
            return differ("amount and recipient", show(old), show(new));
        }
        if !request.is(&content) && content.memo() == payment.memo {
            return differ("notes", content.notes.len().to_string(), payment.notes.len().to_string());
        }
        if content.memo() != payment.memo {
            return differ("memo", format!("{:?}", content.memo()), format!("{:?}", payment.memo));
        }
        Ok(())
    }

    /// Signs a request as the account's next order and makes it durable, unless it is found to be final by now; then
    /// [`Wallet::made`] has it. Says whether it signed; nothing is sent. With an id or for an operation, nothing may be
    /// pending on the account. Errors: as of [`Wallet::made`] and [`Wallet::sign_pay`]; `UNDECIDED` if something is
    /// pending, or nobody proves what became of an earlier order of the id; `INSUFFICIENT_FUNDS` or `ISSUER_LIMIT`, and those of
    /// [`Wallet::balance`], if the account is not known to have what it takes.
    pub async fn sign_once(&mut self, network: &Network, seed: &Seed, request: &Request) -> Result<bool> {
        if self.made(request)?.is_some() {
            return Ok(false);
        }
        let account = request.account();
        // Authorities vote for a CALL only when all before it has settled.
        if request.id().is_some() || matches!(request, Request::Call(_)) {
            if let Some(open) = self.account(account).pending.first() {
                let message = format!("the order before, seqnum {}, is not final", open.seqnum);
                return Err(Error::new(Code::Undecided, message));
            }
            for order in request.id().map(|id| self.book.ids.orders(id)).transpose()?.into_iter().flatten() {
                if self.was_certified(network, account, &order).await? {
                    return Ok(false);
                }
            }
        }
        let draft = match request {
            Request::Pay(p) => Draft::Pay { outputs: p.outputs.clone(), notes: p.notes.clone(), memo: p.memo.clone() },
            Request::Call(operation) => Draft::Call(operation.call(self.previous_call(network, account).await?)),
            Request::Keys(rekey) => self.rekey(seed, rekey)?,
        };
        let (signed, _) = self.prepare(seed, &[(account, draft)], request.id())?;
        let mut records = self.check_funds(network, account, request.total()?).await?;
        records.extend(signed);
        self.record(records)?;
        Ok(true)
    }

    /// Whether an order that is not pending any more was certified all the same; its receipt is in the journal then.
    async fn was_certified(&mut self, network: &Network, account: u32, order: &Order) -> Result<bool> {
        let seqnum = order.seqnum;
        // With the same number, the next order and this one exclude each other.
        if seqnum >= self.account(account).next_seqnum() {
            return Ok(false);
        }
        if let Some((_, same)) = self.sent_at(account, seqnum, order)? {
            return Ok(same);
        }
        if self.was_voided(network, account, order).await {
            return Ok(false);
        }
        let Some(certified) = Wallet::certified(network, order.actor, seqnum).await else {
            let message =
                format!("no authority that answers proves which order of account {account} has seqnum {seqnum}");
            return Err(Error::new(Code::Undecided, message));
        };
        if certified.id != order.id {
            return Ok(false);
        }
        let receipt = Wallet::fetch_receipt(network, order.actor, seqnum).await?;
        let found = verify(&self.committee, &receipt)?;
        if found.id != order.id {
            let (expected, found) = (hex::encode(order.id), hex::encode(found.id));
            return Err(Error::expected(Code::BadProof, "order of the receipt", expected, found));
        }
        let receipt = hex::encode(receipt.encode_to_vec());
        self.record(vec![Record::Final { account, seqnum, receipt, time: now_ms() }])?;
        Ok(true)
    }
}
