//! The outbox for the shards: what is there is what the log has to say, in unbroken sequence.

use super::Audit;
use crate::address::Address;
use crate::authority::audit::{Flow, Pages, decode, read};
use crate::authority::mint::is_bearer;
use crate::authority::state::{LOG, Link, Table, get_u64, link_key, outbox_key};
use crate::envelope::Order;
use crate::error::{Code, Result};
use crate::ordered::bearers::{bearer_key, note_key};
use crate::ordered::modules::registry::network_key;
use crate::ordered::orders::outcome_key;
use crate::ordered::step::{Object, actor_key};
use crate::permission::Permission;
use crate::wire::{self, log_step::Kind};

impl Audit<'_> {
    pub(super) fn outbox(&mut self) -> Result<()> {
        for entry in Pages::new(self.state, Table::Outbox) {
            let (key, value) = entry?;
            let delivery: wire::Delivery = decode(Table::Outbox, &key, value)?;
            let at = format!("delivery {} to shard {}", delivery.sequence, delivery.to_shard);
            let expected = hex::encode(outbox_key(delivery.to_shard, delivery.sequence));
            self.out.expect(format!("{at}: key"), expected, hex::encode(&key));
            self.out.expect(format!("{at}: sender"), LOG, delivery.from_shard);
            if !delivery.calls.is_empty() || (delivery.credits.is_empty() && delivery.steps.is_empty()) {
                self.out.find(format!("{at}: expected steps or credits, found calls or nothing"));
            }
            let mut flow = Flow::default();
            for credit in &delivery.credits {
                let source = credit.source.clone().unwrap_or_default();
                flow.add(&credit.address, credit.amount, &source);
                self.out.expect(format!("{at}: amount of a credit"), source.amount, credit.amount);
                let shard = Address::from_slice(&credit.address).map(|a| a.shard(self.log.committee().shards)).ok();
                self.out.expect(format!("{at}: shard of a credit"), Some(delivery.to_shard), shard);
            }
            for step in &delivery.steps {
                self.step(&at, delivery.to_shard, step);
            }
            self.out.outbox.insert((delivery.to_shard, delivery.sequence), flow);
        }
        for shard in 0..self.log.committee().shards {
            self.link(shard)?;
        }
        for entry in Pages::new(self.state, Table::Links) {
            let (key, _) = entry?;
            let known = (0..self.log.committee().shards)
                .any(|s| [Link::Sent, Link::Acknowledged].iter().any(|link| link_key(*link, s)[..] == key[..]));
            if !known {
                self.out.find(format!("links: expected counters for shards, found {}", hex::encode(&key)));
            }
        }
        Ok(())
    }

    fn shard(&self, (network_id, actor): (u64, u64)) -> u32 {
        self.log.committee().shard_of(network_id, actor)
    }

    fn step(&mut self, at: &str, to_shard: u32, step: &wire::LogStep) {
        let recovered = |audit: &Self, id, seqnum| {
            let decided = audit.out.callers.get(&id).is_some_and(|c| c.recovered >= seqnum);
            (decided, decided || audit.out.recoveries.get(&id) == Some(&seqnum))
        };
        let (id, holds) = match &step.kind {
            Some(Kind::Settle(settle)) => {
                let orders: Vec<_> = settle.bodies.iter().map(|body| Order::decode_body(body.clone()).ok()).collect();
                let holds = orders.iter().all(|order| {
                    order
                        .as_ref()
                        .is_some_and(|o| self.shard((o.network_id, o.actor)) == to_shard && self.has_applied(o))
                });
                (orders.into_iter().next().flatten().map(|o| (o.network_id, o.actor)), holds)
            }
            Some(Kind::Freeze(f)) => {
                (Some((f.network_id, f.actor)), recovered(self, (f.network_id, f.actor), f.seqnum).1)
            }
            Some(Kind::Resolve(r)) => {
                let opened =
                    r.open.is_empty() || Permission::address_of(r.network_id, &r.open).as_bytes()[..] == r.account;
                let decided = recovered(self, (r.network_id, r.actor), r.seqnum).0;
                (Some((r.network_id, r.actor)), decided && opened && r.void == (r.prev_hash != 0))
            }
            Some(Kind::Network(n)) => (Some((n.network_id, 0)), self.is_network(n.network_id)),
            Some(Kind::Prune(p)) => (Some((p.network_id, 0)), self.is_network(p.network_id)),
            Some(Kind::Actor(a)) => {
                let key = actor_key(Object::Actor, a.network_id, a.actor);
                let known = self.state.get(Table::Objects, &key).is_ok_and(|record| record.is_some());
                (Some((a.network_id, a.actor)), known && a.removed == a.permission.is_empty())
            }
            Some(Kind::Stream(s)) => {
                let key = outcome_key(s.network_id, s.actor, s.seqnum);
                let outcome: Option<wire::OutcomeRecord> = read(self.state, Table::Objects, &key).ok().flatten();
                (Some((s.network_id, s.actor)), outcome.is_some_and(|o| o.order_id == s.order_id))
            }
            Some(Kind::FreezeNote(f)) => (Some((self.out.network_id, 0)), self.known_note(&f.nonce).is_some()),
            Some(Kind::ResolveNote(r)) => {
                let holds = self.known_note(&r.nonce).is_some_and(|note| match r.void {
                    true => (1..=note.recoveries).contains(&r.recoveries),
                    false => note.recoveries == r.recoveries && !note.spent_by.is_empty(),
                });
                (Some((self.out.network_id, 0)), holds)
            }
            None => (None, false),
        };
        if id.map(|id| self.shard(id)) != Some(to_shard) || !holds {
            self.out.find(format!("{at}: expected a step that the log has taken, found another"));
        }
    }

    fn known_note(&self, nonce: &[u8]) -> Option<wire::NoteRecoveryRecord> {
        read(self.state, Table::Objects, &note_key(nonce)).ok().flatten()
    }

    fn is_network(&self, network_id: u64) -> bool {
        self.state.get(Table::Objects, &network_key(network_id)).is_ok_and(|record| record.is_some())
    }

    /// Whether the log has settled an order, or a recovery has found it.
    fn has_applied(&self, order: &Order) -> bool {
        let key = match order.network_id == self.log.committee().network.id && is_bearer(order) {
            true => bearer_key(&order.id),
            false => outcome_key(order.network_id, order.actor, order.seqnum),
        };
        let outcome: Option<wire::OutcomeRecord> = read(self.state, Table::Objects, &key).ok().flatten();
        let recovered = self.out.callers.get(&(order.network_id, order.actor)).map_or(0, |c| c.recovered);
        let settles = |o: wire::OutcomeRecord| o.order_id == order.id[..] && o.code != Code::NoteFreed as u32;
        outcome.is_some_and(settles) || order.seqnum > 0 && recovered >= order.seqnum
    }

    fn link(&mut self, shard: u32) -> Result<()> {
        let counter = |link| Ok(get_u64(self.state, Table::Links, &link_key(link, shard))?.unwrap_or(0));
        let (sent, acknowledged) = (counter(Link::Sent)?, counter(Link::Acknowledged)?);
        self.out.links.insert(shard, (acknowledged, sent));
        let mut in_outbox = Flow::default();
        let mut kept = Vec::new();
        for ((_, sequence), flow) in self.out.outbox.range((shard, 0)..=(shard, u64::MAX)) {
            in_outbox.merge(flow);
            kept.push(*sequence);
        }
        if !kept.iter().copied().eq(acknowledged + 1..=sent) {
            let range = format!("{} to {sent}", acknowledged + 1);
            self.out.find(format!("outbox to shard {shard}: expected deliveries {range}, found {}", kept.len()));
        }
        let credited = self.out.sent.get(&shard).copied().unwrap_or_default();
        if (acknowledged == 0 && credited != in_outbox) || credited.amount < in_outbox.amount {
            let (credited, found) = (credited.shown("credits"), in_outbox.shown("credits"));
            self.out.find(format!("outbox to shard {shard}: expected {credited} as orders say, found {found}"));
        }
        Ok(())
    }
}
