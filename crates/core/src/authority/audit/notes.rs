//! Notes of e-cash in the books: each settled order's notes are spent by it, and what it asks for is issued; nothing else is.

use super::books::outputs_undone;
use super::flow::Flow;
use super::{Audit, Pages, decode, read};
use crate::authority::issued::Issued;
use crate::authority::state::{LOG, Table, Totals, corrupt, order_id_key};
use crate::bearer::{Bearer, NoteAsked};
use crate::content::{Action, Content, TYPE_RECOVER_NOTES};
use crate::envelope::Order;
use crate::error::Result;
use crate::wire;

impl Audit<'_> {
    /// Books one settled bearer order.
    pub(super) fn book_bearer(&mut self, batch: u64, index: usize, order: &Order, at: &str) -> Result<()> {
        let content = match Content::decode(order) {
            Ok(content) => content,
            Err(e) => {
                self.out.find(format!("{at}: expected a content that may be settled, found {e}"));
                return Ok(());
            }
        };
        self.book_outputs(order, &content, wire::credit_entry::Kind::Payment);
        if outputs_undone(&mut self.books, &mut self.out, (batch, index), at) {
            return Ok(());
        }
        let key = order_id_key(order.network_id, order.actor, &order.id);
        let record: wire::OrderRecord = read(self.state, Table::Orders, &key)?.unwrap_or_default();
        let (spends, call) = match &content.action {
            Action::Bearer(bearer) => (Some(bearer), !bearer.shared.is_empty()),
            _ => (None, true),
        };
        let expected = (hex::encode(order.id), batch, index as u32, call);
        let found = (hex::encode(&record.order_id), record.batch, record.index, record.call);
        self.out.expect(format!("{at}: order record"), expected, found);
        let Some(bearer) = spends else { return Ok(()) };
        self.out.debited += i128::from(bearer.value);
        for note in &bearer.notes {
            let record: wire::NoteRecord = read(self.state, Table::Notes, &note.nonce.0)?.unwrap_or_default();
            let expected = (true, hex::encode(order.id), batch, index as u32, note.recoveries);
            let found = (record.spent, hex::encode(&record.order_id), record.batch, record.index, record.recoveries);
            self.out.expect(format!("{at}: note {:?}", note.nonce), expected, found);
            self.out.note_mut(note.tier).1 += 1;
        }
        self.book_issued(&bearer.asked, at)?;
        if call {
            let flow = bearer_flow(order, bearer);
            self.out.sent.entry(LOG).or_default().merge(&flow);
            self.out.bearers.merge(&flow);
        }
        Ok(())
    }

    /// Books the notes that a settled order asks for.
    pub(super) fn book_issued(&mut self, asked: &[NoteAsked], at: &str) -> Result<()> {
        for asked in asked {
            let issued = Issued::load(self.state, &asked.blinded)?;
            if !issued.has(asked.tier) {
                let (blinded, found) = (hex::encode(&asked.blinded), issued.tiers().collect::<Vec<_>>());
                self.out
                    .find(format!("{at}: expected tier {} issued for {blinded}, found tiers {found:?}", asked.tier));
            }
            self.out.note_mut(asked.tier).0 += 1;
        }
        Ok(())
    }

    /// The tables of notes have what settled orders say, and locks of orders that are there.
    pub(super) fn notes(&mut self, totals: &Totals) -> Result<()> {
        let (mut spent, mut asked) = (0, 0);
        for entry in Pages::new(self.state, Table::Notes) {
            let (key, value) = entry?;
            let record: wire::NoteRecord = decode(Table::Notes, &key, value)?;
            if key.len() != 32 || self.authority.shard() != 0 {
                return Err(corrupt(Table::Notes, &key, "no note is kept there"));
            }
            if record.frozen {
                self.out.frozen_notes.insert(key.to_vec());
            }
            if record.recoveries > 0 {
                self.out.freed_notes.insert(key.to_vec(), record.recoveries);
            }
            if record.spent {
                spent += 1;
            } else if !record.order_id.is_empty() {
                let at = (record.batch, record.index, record.recoveries);
                self.names(&key, "holds it", at, Some(&record.order_id))?;
            }
            for early in &record.early {
                self.names(&key, "waits for it", (early.batch, early.index, early.seqnum), None)?;
            }
        }
        for entry in Pages::new(self.state, Table::Issued) {
            let (key, value) = entry?;
            if key.len() != 48 {
                return Err(corrupt(Table::Issued, &key, "no blinded nonce"));
            }
            asked += Issued::decode(&key, &value)?.count();
        }
        let (issued, expected) = self.out.notes.iter().fold((0, 0), |(i, s), (issued, spent)| (i + issued, s + spent));
        self.out.expect("notes that are spent", expected, spent);
        self.out.expect("blinded nonces that are asked for", issued, asked);
        let mut found = totals.notes.clone();
        found.resize(found.len().max(self.out.notes.len()), (0, 0));
        self.out.notes.resize(found.len(), (0, 0));
        self.out.expect("totals: notes issued and spent, by tier", self.out.notes.clone(), found);
        Ok(())
    }

    /// Whether the order at (batch, index) names the note with that many recoveries.
    fn names(&mut self, nonce: &[u8], what: &str, at: (u64, u32, u32), id: Option<&[u8]>) -> Result<()> {
        let (batch, index, recoveries) = at;
        let record: Option<wire::BatchRecord> = read(self.state, Table::Batches, &batch.to_be_bytes())?;
        let raw = record.and_then(|r| r.orders.into_iter().nth(index as usize));
        let order = raw.and_then(|raw| Order::decode(raw).ok()).filter(|order| id.is_none_or(|id| order.id[..] == *id));
        let content = order.as_ref().and_then(|order| Content::decode(order).ok());
        let named = content.is_some_and(|content| match content.action {
            Action::Bearer(bearer) => {
                let named = |n: &crate::bearer::NoteSpent| n.nonce.0 == *nonce && n.recoveries == recoveries;
                bearer.notes.iter().any(named)
            }
            _ => false,
        });
        if !named {
            let (note, at) = (hex::encode(nonce), format!("{index} of batch {batch}"));
            self.out.find(format!("note {note}: expected the order that {what} at {at}, found another or none"));
        }
        Ok(())
    }

    /// What a bearer order hands to the log. Returns what it is worth there, if it is settled.
    pub(super) fn bearer_call(&mut self, call: &wire::LogCall, order: &Order, at: &str) -> Result<Flow> {
        let recover = order.transaction_type == TYPE_RECOVER_NOTES;
        let expected = (hex::encode(order.id), recover);
        self.out.expect(format!("{at}: bearer order"), expected, (hex::encode(&call.order_id), call.recover));
        if call.shown || recover || self.books.undone.contains_key(&(call.batch, call.index as usize)) {
            return Ok(Flow::default());
        }
        let key = order_id_key(order.network_id, order.actor, &order.id);
        let record: wire::OrderRecord = read(self.state, Table::Orders, &key)?.unwrap_or_default();
        let expected = (hex::encode(order.id), call.batch, call.index);
        let found = (hex::encode(&record.order_id), record.batch, record.index);
        self.out.expect(format!("{at}: settled order"), expected, found);
        let flow = match Content::decode(order).map(|content| content.action) {
            Ok(Action::Bearer(bearer)) if !bearer.shared.is_empty() => bearer_flow(order, &bearer),
            _ => {
                self.out.find(format!("{at}: expected outputs for the log, found none"));
                Flow::default()
            }
        };
        self.out.bearers_kept.merge(&flow);
        Ok(flow)
    }
}

fn bearer_flow(order: &Order, bearer: &Bearer) -> Flow {
    Flow::call(order.network_id, order.actor, order.seqnum, &order.id, bearer.shared_value)
}
