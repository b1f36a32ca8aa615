//! What the outbox for the log holds: certified orders and reports of recoveries, each of which must be there for it.

use super::flow::Flow;
use super::{Audit, read};
use crate::authority::mint::is_bearer;
use crate::authority::state::{Table, order_key};
use crate::content::{Content, TYPE_CALL, TYPE_RECOVER};
use crate::envelope::Order;
use crate::error::Result;
use crate::wire;

impl Audit<'_> {
    /// One entry: one call, and nothing else. Returns the settled CALL that it hands in, if it is one.
    pub(super) fn delivery_to_log(&mut self, delivery: &wire::Delivery) -> Result<Flow> {
        let at = format!("delivery {} to the log", delivery.sequence);
        if !delivery.credits.is_empty() || !delivery.steps.is_empty() {
            self.out.find(format!("{at}: expected a call, found credits or steps"));
        }
        let [call] = &delivery.calls[..] else {
            self.out.find(format!("{at}: expected one call, found {}", delivery.calls.len()));
            return Ok(Flow::default());
        };
        let shard = self.authority.committee().shard_of(call.network_id, call.actor);
        self.out.expect(format!("{at}: shard of the account"), self.authority.shard(), shard);
        if call.report {
            let bare = wire::LogCall {
                network_id: call.network_id,
                actor: call.actor,
                seqnum: call.seqnum,
                nonce: call.nonce.clone(),
                report: true,
                ..Default::default()
            };
            self.out.expect(format!("{at}: report"), &bare, call);
            return Ok(Flow::default());
        }
        let record: Option<wire::BatchRecord> = read(self.state, Table::Batches, &call.batch.to_be_bytes())?;
        let raw = record.and_then(|r| r.orders.into_iter().nth(call.index as usize));
        let Some(order) = raw.and_then(|raw| Order::decode(raw).ok()) else {
            self.out.find(format!("{at}: expected an order at {} of batch {}, found none", call.index, call.batch));
            return Ok(Flow::default());
        };
        let expected = (call.network_id, call.actor, call.seqnum);
        self.out.expect(format!("{at}: order"), expected, (order.network_id, order.actor, order.seqnum));
        if order.network_id != self.authority.committee().network.id {
            self.pbtx_call(call, &order, &at)?;
            return Ok(Flow::default());
        }
        if is_bearer(&order) {
            return self.bearer_call(call, &order, &at);
        }
        let recover = order.transaction_type == TYPE_RECOVER;
        self.out.expect(format!("{at}: whether it is a RECOVER"), recover, call.recover);
        match (recover, call.shown) {
            (true, shown) => self.out.expect(format!("{at}: whether a freeze shows it"), false, shown),
            (false, true) => {}
            (false, false) => return self.settled_call(call, &order, &at),
        }
        Ok(Flow::default())
    }

    fn settled_call(&mut self, call: &wire::LogCall, order: &Order, at: &str) -> Result<Flow> {
        self.out.expect(format!("{at}: type of the order"), TYPE_CALL, order.transaction_type);
        if self.books.undone.contains_key(&(call.batch, call.index as usize)) {
            return Ok(Flow::default());
        }
        let key = order_key(order.network_id, order.actor, order.seqnum);
        let record: wire::OrderRecord = read(self.state, Table::Orders, &key)?.unwrap_or_default();
        let expected = (hex::encode(order.id), call.batch, call.index);
        let found = (hex::encode(&record.order_id), record.batch, record.index);
        self.out.expect(format!("{at}: settled order"), expected, found);
        let debit = Content::decode(order).map_or(0, |content| content.total);
        let flow = Flow::call(order.network_id, order.actor, order.seqnum, &order.id, debit);
        if self.out.calls_kept.insert(((order.network_id, order.actor), order.seqnum), flow).is_some() {
            self.out.find(format!("{at}: expected each CALL once, found it again"));
        }
        Ok(flow)
    }
}
