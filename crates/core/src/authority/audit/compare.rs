//! The accounts on disk against the books.

use std::collections::BTreeMap;

use super::books::{Book, Held};
use super::{Audit, Pages, decode, known_of_actor, read};
use crate::authority::state::{Account, Holding, Table, Totals, account_key, corrupt};
use crate::content::{Action, Content, TYPE_ROTATE};
use crate::envelope::Order;
use crate::error::Result;
use crate::wire;

impl Audit<'_> {
    /// Every account has what its orders and credits make, and nobody else has anything.
    pub(super) fn accounts(&mut self, totals: &Totals) -> Result<()> {
        let network = &self.authority.committee().network;
        let (network_id, issuer) = (network.id, network.issuer_address());
        let issued_here = issuer.shard(self.shards) == self.authority.shard();
        if issued_here {
            self.out.issued = totals.issued;
            let book = self.books.account((network_id, issuer.actor()));
            book.holdings.entry(issuer).or_default().balance -= totals.issued;
        } else {
            self.out.expect("totals: issued, where the issuer is not", 0, totals.issued);
        }
        for book in self.books.accounts.values() {
            self.out.balances += book.holdings.values().map(|h| h.balance).sum::<i128>();
        }
        let mut waiting = 0;
        let mut last: Option<(u64, u64, Account)> = None;
        for entry in Pages::new(self.state, Table::Accounts) {
            let (key, value) = entry?;
            let account = Account::decode(decode(Table::Accounts, &key, value)?)?;
            self.out.accounts += 1;
            waiting += account.early.len() as u64;
            if let Ok(id) = <[u8; 16]>::try_from(key.as_ref()) {
                let found = ((u128::from_be_bytes(id) >> 64) as u64, u128::from_be_bytes(id) as u64, account);
                if let Some((network_id, actor, before)) = last.replace(found) {
                    self.account(network_id, actor, &before)?;
                }
                continue;
            }
            // A further address of the actor before it: keys are in order.
            let holding = self.further_holding(&key, account)?;
            match &mut last {
                Some((network_id, actor, before)) if key.starts_with(&account_key(*network_id, *actor)) => {
                    before.holdings.push(holding);
                }
                _ => self.out.find(format!("address {:?}: expected a record of its actor before it", holding.address)),
            }
        }
        if let Some((network_id, actor, account)) = last {
            self.account(network_id, actor, &account)?;
        }
        self.out.expect("totals: waiting orders", waiting, totals.waiting);
        // What has a record was taken out. The issuer is in the books even before it has done anything.
        let used = |book: &Book| book.seqnum > 0 || book.holdings.values().any(|h| *h != Held::default());
        let left = self.books.accounts.iter().filter(|(_, book)| used(book)).map(|(id, _)| id);
        let mut missing: Vec<u64> = left.chain(self.books.recovers.keys()).map(|(_, actor)| *actor).collect();
        missing.sort_unstable();
        missing.dedup();
        for actor in missing {
            self.out.find(format!("actor {actor}: expected an account record, found none"));
        }
        Ok(())
    }

    /// The one holding in the record of a further address, which must have nothing else.
    fn further_holding(&mut self, key: &[u8], account: Account) -> Result<Holding> {
        let mut holdings = account.holdings.clone().into_iter();
        let (Some(holding), None) = (holdings.next(), holdings.next()) else {
            return Err(corrupt(Table::Accounts, key, "not one holding"));
        };
        if key.len() != 48 || key[16..] != holding.address.as_bytes()[..] {
            return Err(corrupt(Table::Accounts, key, "not the key of its address"));
        }
        let nothing_else = Account { holdings: vec![holding.clone()], ..Account::default() };
        self.out.expect(format!("address {:?}: record", holding.address), nothing_else, account);
        Ok(holding)
    }

    fn account(&mut self, network_id: u64, actor: u64, account: &Account) -> Result<()> {
        let id = (network_id, actor);
        if account.voided != 0 {
            self.advance(id, true)?;
        }
        if account.generation != 0 {
            let known = known_of_actor(&account.permission, account.barred, account.generation);
            self.out.registry.add(id, &known);
        }
        let book = self.books.accounts.remove(&id).unwrap_or_default();
        let recovers = self.books.recovers.remove(&id).unwrap_or_default();
        let out = &mut self.out;
        if account.frozen != 0 {
            out.frozen.insert(id, account.frozen);
        }
        let shard = self.authority.committee().shard_of(network_id, actor);
        out.expect(format!("actor {actor}: shard"), self.authority.shard(), shard);
        out.expect(format!("actor {actor}: seqnum"), book.seqnum, account.seqnum);
        let prev_hash = book.prev_hash.unwrap_or(account.prev_hash);
        out.expect(format!("actor {actor}: prev_hash"), prev_hash, account.prev_hash);
        out.expect(format!("actor {actor}: address"), book.address, account.address);
        // What an actor of a PBTX network signs with is the log's word.
        let of_log = network_id != self.authority.committee().network.id;
        let permission = book.permission.as_ref().filter(|_| !of_log).unwrap_or(&account.permission);
        out.expect(
            format!("actor {actor}: whether it is frozen by an admin"),
            account.barred && of_log,
            account.barred,
        );
        out.expect(format!("actor {actor}: last change of keys"), book.rotated, account.rotation.0);
        out.expect(format!("actor {actor}: permission"), permission, &account.permission);
        out.expect(format!("actor {actor}: last CALL"), book.last_call, account.last_call);
        out.expect(format!("actor {actor}: last voided seqnum"), book.voided, account.voided);
        let recovering = recovers.last_key_value().map_or(0, |(seqnum, _)| *seqnum);
        out.expect(format!("actor {actor}: last RECOVER"), recovering, account.recovering);
        if let Some(first) = book.ahead.keys().next() {
            out.find(format!("actor {actor}: expected settled seqnum {}, found {first} next", book.seqnum + 1));
        }
        let mut found: BTreeMap<_, Held> = BTreeMap::new();
        for h in &account.holdings {
            let held = Held { balance: h.balance, credits: h.credits, newest: h.newest };
            if found.insert(h.address, held).is_some() {
                out.find(format!("actor {actor}: expected one holding of {:?}, found two", h.address));
            }
        }
        for address in book.holdings.keys().chain(found.keys().filter(|a| !book.holdings.contains_key(a))) {
            let expected = book.holdings.get(address).copied().unwrap_or_default();
            let held = found.get(address).copied().unwrap_or_default();
            out.expect(format!("address {address:?}: balance"), expected.balance, held.balance);
            out.expect(format!("address {address:?}: credits"), expected.credits, held.credits);
            out.expect(format!("address {address:?}: newest credit"), expected.newest, held.newest);
        }
        self.promises(actor, account)
    }

    /// The orders that an account has voted for or that wait, and what it says of them.
    fn promises(&mut self, actor: u64, account: &Account) -> Result<()> {
        let mut prev_hash = account.prev_hash;
        for (i, p) in account.pending.iter().enumerate() {
            let seqnum = u64::from(account.seqnum) + 1 + i as u64;
            let Some(order) = self.promised("pending", actor, seqnum, p.batch, p.index)? else { continue };
            if order.network_id != self.authority.committee().network.id {
                let what = format!("actor {actor}, seqnum {seqnum}: pending order");
                let expected = (hex::encode(order.id), order.transaction_type == TYPE_ROTATE);
                self.out.expect(
                    format!("{what}, change of keys"),
                    expected,
                    (hex::encode(&p.order_id), p.set_permission),
                );
                self.out.expect(format!("{what}: prev_hash"), prev_hash, order.prev_hash);
                prev_hash = order.next_hash();
                continue;
            }
            let Ok(content) = Content::decode(&order) else { continue };
            let set_permission = matches!(content.action, Action::SetPermission(_));
            let call = matches!(content.action, Action::Call { .. });
            let expected = (hex::encode(order.id), content.total, set_permission, call, content.open);
            let open = Some(p.open.clone()).filter(|o| !o.is_empty());
            let found = (hex::encode(&p.order_id), p.amount, p.set_permission, p.call, open);
            let what = format!("actor {actor}, seqnum {seqnum}: pending order");
            self.out.expect(format!("{what}, debit, change of keys, CALL, opening"), expected, found);
            self.out.expect(format!("{what}: prev_hash"), prev_hash, order.prev_hash);
            prev_hash = order.next_hash();
        }
        for e in &account.early {
            self.promised("waiting", actor, u64::from(e.seqnum), e.batch, e.index)?;
        }
        Ok(())
    }

    /// The order that an account points to, if it is there.
    fn promised(&mut self, what: &str, actor: u64, seqnum: u64, batch: u64, index: u32) -> Result<Option<Order>> {
        let record: Option<wire::BatchRecord> = read(self.state, Table::Batches, &batch.to_be_bytes())?;
        let raw = record.and_then(|r| r.orders.into_iter().nth(index as usize));
        let order = raw.and_then(|raw| Order::decode(raw).ok());
        let found = order.filter(|order| order.actor == actor && u64::from(order.seqnum) == seqnum);
        if found.is_none() {
            let at = format!("actor {actor}, seqnum {seqnum}");
            self.out
                .find(format!("{at}: expected its {what} order at {index} of batch {batch}, found another or none"));
        }
        Ok(found)
    }
}
