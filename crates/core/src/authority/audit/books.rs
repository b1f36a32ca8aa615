//! Accounts as the settled orders and credits make them.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::flow::Flow;
use super::{Audit, ShardAudit, read};
use crate::address::Address;
use crate::authority::mint::is_bearer;
use crate::authority::state::{Account, LOG, Table, order_key};
use crate::content::{Action, Content, Credit, TYPE_RECOVER};
use crate::envelope::Order;
use crate::error::Result;
use crate::permission::Permission;
use crate::wire::{self, credit_entry::Kind};

/// (network, actor)
pub(super) type Id = (u64, u64);

#[derive(Default)]
pub(super) struct Books {
    pub accounts: HashMap<Id, Book>,
    /// By account and seqnum: settled RECOVERs, with what they open.
    pub recovers: HashMap<Id, BTreeMap<u32, Option<Bytes>>>,
    /// By batch and index: orders that a later entry of the settled stream takes back, and whether the stream has
    /// settled them before.
    pub undone: HashMap<(u64, usize), bool>,
    /// RECOVERs among the settled orders; they have no order record.
    pub recover_orders: u64,
    /// Settled orders by PBTX network, without those of networks with ORDERED.
    pub streamed: BTreeMap<u64, u64>,
    /// Seqnums that recoveries have voided; they have an order record without an order.
    pub voids: u64,
}

/// One account.
pub(super) struct Book {
    pub holdings: BTreeMap<Address, Held>,
    pub address: Option<Address>,
    /// `None` if nothing here says what it is: see [`Audit::void`].
    pub permission: Option<Bytes>,
    pub seqnum: u32,
    /// Of the order at `seqnum`; `None` if that is voided: then the log has chosen it, and nothing here says what.
    pub prev_hash: Option<u64>,
    /// Seqnum of the last CALL.
    pub last_call: u32,
    /// Last voided seqnum.
    pub voided: u32,
    /// Seqnum of the last change of keys of an actor of a PBTX network.
    pub rotated: u32,
    /// Orders that one step settled in an earlier batch than their predecessors.
    pub ahead: BTreeMap<u32, Move>,
}

impl Default for Book {
    fn default() -> Book {
        Book {
            holdings: BTreeMap::new(),
            address: None,
            permission: Some(Bytes::new()),
            seqnum: 0,
            prev_hash: Some(0),
            last_call: 0,
            voided: 0,
            rotated: 0,
            ahead: BTreeMap::new(),
        }
    }
}

/// Money at one address.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Held {
    pub balance: i128,
    pub credits: u64,
    pub newest: (u64, u32),
}

/// What an order does to its account.
pub(super) struct Move {
    prev_hash: u64,
    hash: u64,
    open: Option<Bytes>,
    permission: Option<Bytes>,
    debit: i128,
    /// Of a CALL: what it names as the one before, and what the account is debited for the log.
    call: Option<(u32, Flow)>,
    /// What its record keeps for undoing it.
    before: (Bytes, u32),
    /// Of an actor of a PBTX network, which has no money.
    pbtx: bool,
}

impl Move {
    pub fn pbtx(prev_hash: u64, hash: u64) -> Move {
        let before = (Bytes::new(), 0);
        Move { prev_hash, hash, open: None, permission: None, debit: 0, call: None, before, pbtx: true }
    }
}

impl Books {
    pub fn account(&mut self, id: Id) -> &mut Book {
        self.accounts.entry(id).or_default()
    }
}

impl Audit<'_> {
    /// Books one settled order: its place in the chain, its debit, and what it sends. Of an order that is taken back
    /// later only what it sent remains, with the reversals.
    pub(super) fn book_order(&mut self, batch: u64, index: usize, order: &Order) -> Result<()> {
        let at = format!("order {} (actor {}, seqnum {})", hex::encode(order.id), order.actor, order.seqnum);
        self.out.orders += 1;
        let shard = self.authority.committee().shard_of(order.network_id, order.actor);
        self.out.expect(format!("{at}: shard"), self.authority.shard(), shard);
        if order.network_id != self.authority.committee().network.id {
            return self.book_pbtx(batch, index, order, &at);
        }
        if is_bearer(order) {
            return self.book_bearer(batch, index, order, &at);
        }
        if order.transaction_type == TYPE_RECOVER {
            self.books.recover_orders += 1;
            return Ok(());
        }
        let content = match Content::decode(order) {
            Ok(content) => content,
            Err(e) => {
                self.out.find(format!("{at}: expected a content that may be settled, found {e}"));
                return Ok(());
            }
        };
        self.book_outputs(order, &content, Kind::Payment);
        if outputs_undone(&mut self.books, &mut self.out, (batch, index), &at) {
            return Ok(());
        }
        self.book_issued(&content.notes, &at)?;
        let key = order_key(order.network_id, order.actor, order.seqnum);
        let record: Option<wire::OrderRecord> = read(self.state, Table::Orders, &key)?;
        match &record {
            None => self.out.find(format!("{at}: expected an order record, found none")),
            Some(r) => self.out.expect(
                format!("{at}: order record"),
                (hex::encode(order.id), batch, index as u32),
                (hex::encode(&r.order_id), r.batch, r.index),
            ),
        }
        let record = record.unwrap_or_default();
        self.out.debited += i128::from(content.total);
        let (permission, call) = match content.action {
            Action::SetPermission(permission) => (Some(permission), None),
            Action::Call { call, .. } => {
                let flow = Flow::call(order.network_id, order.actor, order.seqnum, &order.id, content.total);
                (None, Some((call.previous_call, flow)))
            }
            Action::Pay { .. } | Action::Recover { .. } | Action::Bearer(_) | Action::RecoverNotes(_) => (None, None),
        };
        let done = Move {
            prev_hash: order.prev_hash,
            hash: order.next_hash(),
            open: content.open,
            permission,
            debit: i128::from(content.total),
            call,
            before: (record.previous_permission, record.previous_call),
            pbtx: false,
        };
        let id = (order.network_id, order.actor);
        let book = self.books.account(id);
        if order.seqnum <= book.seqnum || book.ahead.contains_key(&order.seqnum) {
            self.out.find(format!("{at}: expected one settled order at its seqnum, found it settled twice"));
            return Ok(());
        }
        book.ahead.insert(order.seqnum, done);
        self.advance(id, false)
    }

    /// Books that an order is taken back.
    pub(super) fn book_undone(&mut self, batch: u64, index: usize, order: &Order) {
        let at = format!("order {} (actor {}, seqnum {})", hex::encode(order.id), order.actor, order.seqnum);
        if self.books.undone.get(&(batch, index)) != Some(&true) || order.transaction_type == TYPE_RECOVER {
            self.out.find(format!("{at}: taken back, expected it settled before, found it was not"));
        }
        self.out.orders = self.out.orders.saturating_sub(1);
        if let Ok(content) = Content::decode(order) {
            self.book_outputs(order, &content, Kind::Reversed);
        }
    }

    /// The credits that an order makes, or those that taking it back makes.
    pub(super) fn book_outputs(&mut self, order: &Order, content: &Content, kind: Kind) {
        for (output, credit) in content.credits().iter().enumerate() {
            let to = credit.address.shard(self.shards);
            let flow = match to == self.authority.shard() {
                true => &mut self.local_sent,
                false => self.out.sent.entry(to).or_default(),
            };
            flow.add(credit.address.as_bytes(), credit.amount, &source(order, output, credit, content.memo(), kind));
        }
    }

    /// Goes on in an account's chain as far as settled orders and voided seqnums lead; `to_end`: also over voided
    /// ones that no order follows.
    pub(super) fn advance(&mut self, id: Id, to_end: bool) -> Result<()> {
        loop {
            let book = self.books.account(id);
            let next = book.seqnum.wrapping_add(1);
            if let Some(done) = book.ahead.remove(&next) {
                self.chain(id, next, done);
            } else if to_end || !book.ahead.is_empty() {
                let key = order_key(id.0, id.1, next);
                let record: Option<wire::OrderRecord> = read(self.state, Table::Orders, &key)?;
                match record {
                    Some(r) if r.order_id.is_empty() => self.void(id, next, &r)?,
                    _ => return Ok(()),
                }
            } else {
                return Ok(());
            }
        }
    }

    /// The next order of an account.
    fn chain(&mut self, id: Id, seqnum: u32, done: Move) {
        let book = self.books.accounts.entry(id).or_default();
        book.seqnum = seqnum;
        let what = format!("actor {}, seqnum {seqnum}", id.1);
        if let Some(expected) = book.prev_hash.replace(done.hash) {
            self.out.expect(format!("{what}: prev_hash"), expected, done.prev_hash);
        }
        if let Some(open) = done.open {
            book.address = Some(Permission::address_of(id.0, &open));
            book.permission = Some(open);
        }
        let mut before = (Bytes::new(), 0);
        if let Some(permission) = done.permission {
            before.0 = book.permission.replace(permission).unwrap_or_else(|| done.before.0.clone());
        }
        if let Some((previous, flow)) = done.call {
            self.out.expect(format!("{what}: CALL before it"), book.last_call, previous);
            before.1 = std::mem::replace(&mut book.last_call, seqnum);
            self.out.sent.entry(LOG).or_default().merge(&flow);
            let calls = self.out.calls.entry(id).or_default();
            calls.last = seqnum;
            calls.settled.merge(&flow);
        }
        self.out.expect(format!("{what}: what its record keeps of before"), before, done.before);
        match book.address {
            _ if done.pbtx => book.permission = None,
            Some(address) => book.holdings.entry(address).or_default().balance -= done.debit,
            None => self.out.find(format!("actor {}: expected an opened account, found none", id.1)),
        }
    }

    /// A seqnum that a recovery has voided. Its prev_hash is the log's choice, so it is taken from the order after it
    /// or, if there is none, from the account's record. A voided first order has opened the account all the same, as
    /// its RECOVER says; where that is not here (the log has frozen the account), they are the record's, too.
    fn void(&mut self, id: Id, seqnum: u32, record: &wire::OrderRecord) -> Result<()> {
        let what = format!("actor {}, seqnum {seqnum}: voided", id.1);
        self.out.expect(format!("{what}: order record"), &wire::OrderRecord::default(), record);
        let recovers = self.books.recovers.get(&id);
        let open = recovers.and_then(|r| r.get(&seqnum).cloned().flatten());
        self.books.voids += 1;
        self.out.voided.entry(id).or_default().push(seqnum);
        let book = self.books.account(id);
        (book.seqnum, book.voided, book.prev_hash) = (seqnum, seqnum, None);
        if let Some(open) = open {
            book.address = Some(Permission::address_of(id.0, &open));
            book.permission = Some(open);
        } else if seqnum == 1 {
            book.address = Account::load(self.state, id.0, id.1)?.address;
            book.permission = None;
        }
        Ok(())
    }

    /// Books one credit: to its account, and to what arrived from its source.
    pub(super) fn book_credit(&mut self, batch: u64, index: u32, credit: &wire::CreditRecord) {
        let at = format!("credit {batch}.{index}");
        let (Ok(address), Some(entry)) = (Address::from_slice(&credit.address), &credit.entry) else {
            self.out.find(format!("{at}: expected an address and a source, found neither or one"));
            return;
        };
        self.out.credits += 1;
        self.out.expect(format!("{at}: shard"), self.authority.shard(), address.shard(self.shards));
        let Ok(kind) = Kind::try_from(entry.kind) else {
            self.out.find(format!("{at}: expected a kind of credit, found {}", entry.kind));
            return;
        };
        let amount = if kind == Kind::Reversed { -i128::from(entry.amount) } else { i128::from(entry.amount) };
        let issuer = self.authority.committee().network.issuer_address().actor();
        let from = match kind {
            // The kind alone says so: the payer's order is at another shard.
            Kind::Refund | Kind::Deposit | Kind::Call => LOG,
            Kind::Payment | Kind::Reversed => (entry.actor % u64::from(self.shards)) as u32,
        };
        if entry.order_id.is_empty() {
            self.out.expect(
                format!("{at}: payer and kind of a genesis credit"),
                (issuer, Kind::Payment),
                (entry.actor, kind),
            );
            self.out.genesis += amount;
        } else {
            let flow = match from == self.authority.shard() {
                true => &mut self.local_received,
                false => self.out.received.entry(from).or_default(),
            };
            flow.add(address.as_bytes(), entry.amount, entry);
        }
        let book = self.books.account((entry.network_id, address.actor()));
        let held = book.holdings.entry(address).or_default();
        held.balance += amount;
        held.credits += 1;
        let previous = std::mem::replace(&mut held.newest, (batch + 1, index));
        let found = (credit.previous_batch, credit.previous_index);
        self.out.expect(format!("{at}: credit before it"), previous, found);
    }
}

/// Whether an order is taken back later, of which nothing else is booked.
pub(super) fn outputs_undone(books: &mut Books, out: &mut ShardAudit, place: (u64, usize), at: &str) -> bool {
    let Some(before) = books.undone.get_mut(&place) else { return false };
    if std::mem::replace(before, true) {
        out.find(format!("{at}: expected it settled once, found it settled twice"));
    }
    true
}

fn source(order: &Order, output: usize, credit: &Credit, memo: &str, kind: Kind) -> wire::CreditEntry {
    wire::CreditEntry {
        network_id: order.network_id,
        actor: order.actor,
        seqnum: order.seqnum,
        output: output as u32,
        order_id: Bytes::copy_from_slice(&order.id),
        amount: credit.amount,
        memo: memo.to_owned(),
        kind: kind as i32,
    }
}
