//! Time passes: the log takes orders, whoever is diligent looks, parties fall over and start again.

use std::collections::BTreeSet;

use florin_core::channel::hub::Effect;
use florin_core::channel::manager::{self, EndId};
use florin_core::merkle::Hash;
use florin_core::wire;
use prost::Message as _;

use super::Shell;
use super::ledger::Ledger;
use super::node::Deed;
use super::world::{LOOK_MS, Link, World};

impl World {
    /// Orders what `take` picks of all that is handed in, by when it is due.
    pub fn order(&mut self, take: impl FnMut(u64) -> bool) {
        self.ledger.order(take);
        self.after_log();
    }

    /// What the log has changed is checked, and who has to see it will.
    pub fn after_log(&mut self) {
        for what in std::mem::take(&mut self.ledger.broken) {
            self.violation(what);
        }
        let changed = self.ledger.take_changed();
        if changed.is_empty() {
            return;
        }
        self.check_log(&changed);
        for channel in &changed {
            self.find_link(*channel);
            let sides = self.links.get(channel).map(|link| link.sides);
            sides.into_iter().flatten().for_each(|node| self.soon(node));
        }
        let waiting: Vec<usize> = (0..self.nodes.len())
            .filter(|i| self.nodes[*i].waiting.values().any(|id| self.ledger.decided(id).is_some()))
            .collect();
        waiting.into_iter().for_each(|node| self.soon(node));
    }

    /// A channel that is new.
    pub fn find_link(&mut self, channel: Hash) {
        if self.links.contains_key(&channel) {
            return;
        }
        let Some(record) = self.ledger.record(&channel) else { return };
        let party = |side: &Option<wire::ChannelSide>| {
            let address = side.as_ref().map(|side| side.address.clone()).unwrap_or_default();
            self.nodes.iter().position(|node| node.account.as_bytes()[..] == address[..])
        };
        let (Some(opener), Some(other)) = (party(&record.opener), party(&record.other)) else { return };
        self.nodes[opener].ends.insert(EndId { channel, side: 0 }, other);
        self.nodes[other].ends.insert(EndId { channel, side: 1 }, opener);
        self.links.insert(channel, Link { sides: [opener, other], up: false, number: 0, mail: Default::default() });
    }

    /// Time passes, and whoever is diligent does what it has to. Nobody else does anything.
    pub fn pass(&mut self, to: u64) {
        // What it has begun it does not leave lying.
        let by = self.time() + LOOK_MS;
        for node in self.nodes.iter_mut().filter(|node| node.is_diligent() && node.has_work()) {
            node.look_due = node.look_due.min(by);
        }
        for _ in 0..20_000 {
            let now = self.time();
            self.due(now);
            if now >= to {
                return;
            }
            let looks = self.nodes.iter().filter(|node| node.is_diligent()).filter_map(|node| match node.down_until {
                Some(back) => Some(back),
                None => Some(node.look_due).filter(|due| *due != u64::MAX),
            });
            let moments = self.moments.first().map(|(at, _)| *at);
            let next = looks.chain(self.ledger.due_ms()).chain(moments).min().unwrap_or(to).clamp(now + 1, to);
            self.ledger.clocks(next);
            self.after_log();
        }
        self.violation("time never passes");
    }

    /// What is due now.
    fn due(&mut self, now: u64) {
        if self.ledger.due_ms().is_some_and(|due| due <= now) {
            self.order(|due| due <= now);
        }
        while let Some((at, channel)) = self.moments.first().copied().filter(|(at, _)| *at <= now) {
            self.moments.remove(&(at, channel));
            let sides = self.links.get(&channel).map(|link| link.sides);
            for node in sides.into_iter().flatten() {
                self.nodes[node].look_due = now;
            }
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].is_diligent() && self.nodes[node].down_until.is_some_and(|back| back <= now) {
                self.start(node);
            }
            let of = &self.nodes[node];
            if of.is_diligent() && of.is_up() && of.look_due <= now {
                self.look(node);
            }
        }
    }

    /// A party falls over; what its disk has is there when it starts again.
    pub fn crash(&mut self, node: usize, until: u64) {
        let waits = self.nodes[node].unsynced();
        let kept = self.rng.below(waits as u64 + 1) as usize;
        if kept > 0 {
            self.mark("crash between a group and what follows it");
        }
        let lose = self.shell == Shell::LosesGroups && self.rng.chance(300);
        if self.nodes[node].crash(kept, lose) > 0 {
            self.mark("crash that lost groups");
        }
        self.mark("crash");
        self.goes_down(node, until);
    }

    pub(super) fn goes_down(&mut self, node: usize, until: u64) {
        let ends: Vec<Hash> = self.nodes[node].ends.keys().map(|end| end.channel).collect();
        self.nodes[node].down_until = Some(until);
        if until > self.time() {
            self.absences.push((node, self.time(), until));
        }
        ends.into_iter().for_each(|channel| self.disconnect(channel, true));
    }

    /// An old backup takes a party's place. What it has said meanwhile is forgotten.
    pub fn restore(&mut self, node: usize, groups: usize) {
        self.mark("old backup restored");
        self.nodes[node].restore(groups);
        self.goes_down(node, self.time());
        let ends: BTreeSet<Hash> = self.nodes[node].ends.keys().map(|end| end.channel).collect();
        self.stale.retain(|(channel, ..)| !ends.contains(channel));
        self.hand.retain(|(_, end, _)| !ends.contains(&end.channel));
        self.ledger.forget(self.nodes[node].account.actor());
        self.start(node);
    }

    /// A party starts from its journal, looks, and goes on.
    pub fn start(&mut self, node: usize) {
        self.nodes[node].down_until = None;
        let (now, shell) = (self.time(), self.shell);
        self.nodes[node].known_ms = now;
        let tip = self.ledger.tip(self.nodes[node].account.actor());
        match self.nodes[node].start(now, tip, shell) {
            Ok(forgotten) if self.nodes[node].is_honest() => {
                forgotten.into_iter().for_each(|what| self.violation(format!("party {node}: {what}")));
            }
            Ok(_) => {}
            Err(e) => self.violation(format!("party {node} does not start: {e}")),
        }
        if self.shell == Shell::SignsOrdersAnew {
            self.sign_anew(node);
        }
        self.flush(node);
        self.look(node);
    }

    /// The wrong shell: it signs the orders that were under way once more, instead of sending the same bytes.
    fn sign_anew(&mut self, node: usize) {
        let effects = std::mem::take(&mut self.nodes[node].effects);
        for effect in effects {
            let effect = match effect {
                Deed::Hub(Effect::Channel(manager::Effect::Broadcast { op, order })) => {
                    let account = self.nodes[node].account;
                    let again = florin_core::envelope::Order::decode_body(order.clone()).ok();
                    let call = again.and_then(|order| wire::Call::decode(order.content).ok()).unwrap_or_default();
                    let outputs = call.outputs.into_iter().filter_map(|output| output.kind).collect();
                    let message = manager::Message { account, inputs: call.inputs, outputs };
                    self.ledger.submit(&order, self.time());
                    let after = self.nodes[node].tip(self.ledger.tip(account.actor()));
                    let affordable = Ledger::cost(&message) <= self.ledger.balance(&account);
                    if affordable {
                        let (_, body, tip) = self.ledger.draft(&message, after);
                        self.nodes[node].advance(tip);
                        self.ledger.submit(&body, self.time());
                    }
                    Deed::Hub(Effect::Channel(manager::Effect::Broadcast { op, order }))
                }
                other => other,
            };
            self.nodes[node].effects.push_back(effect);
        }
    }
}
