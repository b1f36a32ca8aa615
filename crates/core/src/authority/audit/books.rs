//! Accounts as the settled orders and credits make them.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::{Audit, read};
use crate::address::Address;
use crate::authority::state::{Table, order_key};
use crate::content::{Action, Content};
use crate::envelope::Order;
use crate::error::Result;
use crate::permission::Permission;
use crate::wire;

/// (network, actor)
pub(super) type Id = (u64, u64);

#[derive(Default)]
pub(super) struct Books {
    pub accounts: HashMap<Id, Book>,
}

/// One account.
#[derive(Default)]
pub(super) struct Book {
    pub holdings: BTreeMap<Address, Held>,
    pub address: Option<Address>,
    pub permission: Bytes,
    pub seqnum: u32,
    pub prev_hash: u64,
    /// Orders that one step settled in an earlier batch than their predecessors.
    pub ahead: BTreeMap<u32, Move>,
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
}

impl Audit<'_> {
    /// Books one settled order: its place in the chain, its debit, and what it sends.
    pub(super) fn book_order(&mut self, batch: u64, index: usize, order: &Order) -> Result<()> {
        let at = format!("order {} (actor {}, seqnum {})", hex::encode(order.id), order.actor, order.seqnum);
        self.out.orders += 1;
        let shard = (order.actor % u64::from(self.shards)) as u32;
        self.out.expect(format!("{at}: shard"), self.authority.shard(), shard);
        self.out.expect(format!("{at}: network"), self.authority.committee().network.id, order.network_id);
        let key = order_key(order.network_id, order.actor, order.seqnum);
        let record: Option<wire::OrderRecord> = read(self.state, Table::Orders, &key)?;
        match record {
            None => self.out.find(format!("{at}: expected an order record, found none")),
            Some(r) => self.out.expect(
                format!("{at}: order record"),
                (hex::encode(order.id), batch, index as u32),
                (hex::encode(&r.order_id), r.batch, r.index),
            ),
        }
        let content = match Content::decode(order) {
            Ok(content) => content,
            Err(e) => {
                self.out.find(format!("{at}: expected a content that may be settled, found {e}"));
                return Ok(());
            }
        };
        let mut debit = 0;
        for (output, credit) in content.credits().iter().enumerate() {
            debit += i128::from(credit.amount);
            let to = credit.address.shard(self.shards);
            let flow = match to == self.authority.shard() {
                true => &mut self.local_sent,
                false => self.out.sent.entry(to).or_default(),
            };
            let source = wire::CreditEntry {
                network_id: order.network_id,
                actor: order.actor,
                seqnum: order.seqnum,
                output: output as u32,
                order_id: Bytes::copy_from_slice(&order.id),
                amount: credit.amount,
                memo: content.memo().to_owned(),
                kind: wire::credit_entry::Kind::Payment as i32,
            };
            flow.add(credit.address.as_bytes(), credit.amount, &source);
        }
        self.out.debited += debit;
        let permission = match content.action {
            Action::SetPermission(permission) => Some(permission),
            Action::Pay { .. } | Action::Call { .. } | Action::Recover { .. } => None,
        };
        let done = Move { prev_hash: order.prev_hash, hash: order.next_hash(), open: content.open, permission, debit };
        self.chain(order, done, &at);
        Ok(())
    }

    fn chain(&mut self, order: &Order, done: Move, at: &str) {
        let book = self.books.accounts.entry((order.network_id, order.actor)).or_default();
        if order.seqnum <= book.seqnum || book.ahead.contains_key(&order.seqnum) {
            self.out.find(format!("{at}: expected one settled order at its seqnum, found it settled twice"));
            return;
        }
        book.ahead.insert(order.seqnum, done);
        while let Some(done) = book.ahead.remove(&(book.seqnum.wrapping_add(1))) {
            book.seqnum += 1;
            let what = format!("actor {}, seqnum {}: prev_hash", order.actor, book.seqnum);
            self.out.expect(what, book.prev_hash, done.prev_hash);
            book.prev_hash = done.hash;
            if let Some(open) = done.open {
                book.address = Some(Permission::address_of(order.network_id, &open));
                book.permission = open;
            }
            if let Some(permission) = done.permission {
                book.permission = permission;
            }
            match book.address {
                Some(address) => book.holdings.entry(address).or_default().balance -= done.debit,
                None => self.out.find(format!("actor {}: expected an opened account, found none", order.actor)),
            }
        }
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
        let amount = i128::from(entry.amount);
        let issuer = self.authority.committee().network.issuer_address().actor();
        if entry.seqnum == 0 {
            self.out.expect(format!("{at}: payer of a genesis credit"), issuer, entry.actor);
            self.out.genesis += amount;
        } else {
            let from = (entry.actor % u64::from(self.shards)) as u32;
            let flow = match from == self.authority.shard() {
                true => &mut self.local_received,
                false => self.out.received.entry(from).or_default(),
            };
            flow.add(address.as_bytes(), entry.amount, entry);
        }
        let book = self.books.accounts.entry((entry.network_id, address.actor())).or_default();
        let held = book.holdings.entry(address).or_default();
        held.balance += amount;
        held.credits += 1;
        let previous = std::mem::replace(&mut held.newest, (batch + 1, index));
        let found = (credit.previous_batch, credit.previous_index);
        self.out.expect(format!("{at}: credit before it"), previous, found);
    }
}
