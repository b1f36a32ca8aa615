//! What has to hold of virtual channels, derived again from journals, messages and the log.
//!
//! - *Said is durable*: sets, what signs them back, payments, and what is acknowledged.
//! - *A hub passes on what it was given*: a leaf of the same id and keys, no smaller, that lives longer by the margin. It lets go of it only when
//!   the way on is over, and for no less than that has cost.
//! - *Bound is enough*: whoever pays on a lane has bound the most that any voucher of it, which is not given up, can still come to.
//! - *Claims* in the log are for what the payer has signed.

use florin_core::channel::manager::{EndId, EndState};
use florin_core::channel::voucher::Voucher;
use florin_core::merkle::Hash;
use florin_core::wire::virtual_message::Kind;
use florin_core::wire::virtual_peer::Kind as Peer;
use florin_core::wire::{self, ChannelLane, VirtualAmount, VirtualPeer};
use prost::Message as _;

use super::checks::MARGIN_MS;
use super::facts::id;
use super::node::{Manner, Node};
use super::sets::{Lane, State};
use super::world::{CLAIM_MS, ORDER_MS, World};

/// What the log has claimed of a lane's set: id, minor units.
pub fn claimed(lane: &ChannelLane) -> Vec<(Hash, u64)> {
    let amounts = lane.claimed.iter().filter_map(|one| VirtualAmount::decode(&one.amount.as_ref()?.permit[..]).ok());
    amounts.map(|amount| (id(&amount.id), amount.amount)).collect()
}

impl World {
    /// A lane as the log has it.
    fn in_log(&self, (end, lane): Lane, payer: u32) -> Option<ChannelLane> {
        let record = self.ledger.record(&end.channel)?;
        record.lanes.iter().find(|one| (one.payer, one.lane) == (payer, lane)).cloned()
    }

    /// A message about virtual channels leaves a party.
    pub fn check_virtual_said(&mut self, node: usize, end: EndId, kind: &Kind) {
        let hub = self.nodes[node].manner == Manner::Hub && !self.nodes[node].restored;
        match kind {
            Kind::Update(update) => {
                update.voucher.iter().for_each(|voucher| self.promised(node, voucher));
                if hub {
                    update.opens.iter().for_each(|open| self.check_passed_on(node, open));
                }
            }
            Kind::Ack(ack) => {
                let Some(back) = ack.voucher.as_ref().and_then(|back| Voucher::decode(back).ok()) else { return };
                let (payer, lane, nonce) = (back.terms.payer, back.terms.lane, back.terms.nonce);
                self.acknowledged(node, end, &wire::HubLane { payer, lane, nonce });
                if hub {
                    self.check_given_up(node, (end, lane), nonce);
                }
            }
            Kind::Close(close) if hub => {
                let shown = close.amount.as_ref().and_then(|signed| VirtualAmount::decode(&signed.permit[..]).ok());
                let shown = shown.map_or(0, |amount| amount.amount);
                match self.way_on(node, &id(&close.id)) {
                    None => self.violation(format!("hub {node}: closes a virtual channel whose way on is not over")),
                    Some(cost) if shown < cost => {
                        self.violation(format!("hub {node}: shows {shown} for a virtual channel that cost it {cost}"));
                    }
                    Some(_) => {}
                }
            }
            Kind::Hello(_) | Kind::Opened(_) | Kind::Close(_) => {}
        }
    }

    /// What a payer or payee says to the other.
    pub fn check_told(&mut self, node: usize, message: &VirtualPeer) {
        let (of, about) = (&self.nodes[node], id(&message.id));
        let sets = &of.durable.sets;
        match &message.kind {
            Some(Peer::Paid(signed)) => {
                let amount = VirtualAmount::decode(&signed.permit[..]).map_or(u64::MAX, |amount| amount.amount);
                let durable = sets.paid.get(&about).copied().unwrap_or(0);
                if of.is_honest() && amount > durable {
                    self.violation(format!("party {node}: pays {amount} before it is durable, which is {durable}"));
                }
            }
            Some(Peer::Ack(amount)) => {
                let durable = sets.best.get(&about).map_or(0, |(best, _)| *best);
                if of.is_honest() && *amount > durable {
                    self.violation(format!("party {node}: acknowledges {amount}, and keeps {durable}"));
                }
                let said = self.acked_to.entry(about).or_default();
                *said = (*amount).max(*said);
            }
            _ => {}
        }
    }

    /// A leaf of a hub has another behind it.
    fn check_passed_on(&mut self, node: usize, open: &wire::VirtualOpen) {
        let Some(out) = &open.cap else { return };
        let what = match self.nodes[node].durable.sets.taken.get(&id(&out.id)) {
            None => "that was not opened to it".to_owned(),
            Some((_, inc)) if inc.permission != out.permission => "with other keys".to_owned(),
            Some((_, inc)) if inc.cap < out.cap => format!("of {} for one of {}", out.cap, inc.cap),
            Some((_, inc)) if inc.not_after_ms < out.not_after_ms + MARGIN_MS => {
                let less = inc.not_after_ms as i128 - i128::from(out.not_after_ms);
                format!("with {less} ms left instead of {MARGIN_MS}")
            }
            Some(_) => return,
        };
        self.violation(format!("hub {node}: passes on a virtual channel {what}"));
    }

    /// A hub signs a set back: what is no longer in it is over on its way on, and paid for.
    fn check_given_up(&mut self, node: usize, lane: Lane, nonce: u64) {
        let states = self.nodes[node].durable.sets.ins.get(&lane).map(|all| &all[..]).unwrap_or_default();
        let Some(at) = states.iter().position(|state| state.nonce == nonce) else { return };
        let before = at.checked_sub(1).map(|before| &states[before]);
        let (amount, fees) = (before.map_or(0, |state| state.amount), states[at].fees);
        let gone = before.into_iter().flat_map(|state| &state.leaves);
        let gone: Vec<(Hash, u64)> = gone
            .filter(|(leaf, _)| !states[at].leaves.contains_key(*leaf))
            .map(|(leaf, cap)| (*leaf, cap.not_after_ms))
            .collect();
        let (more, mut due) = (states[at].amount.saturating_sub(amount), fees);
        for (leaf, until) in gone {
            match self.way_on(node, &leaf) {
                None if self.time() <= until => {
                    return self.violation(format!("hub {node}: gives up a virtual channel whose way on is not over"));
                }
                Some(cost) if self.time() <= until => due += cost,
                _ => {}
            }
        }
        if more < due {
            self.violation(format!("hub {node}: gives up virtual channels for {more} that cost it {due}"));
        }
    }

    /// What a virtual channel that was passed on has cost, if that is final.
    fn way_on(&self, node: usize, about: &Hash) -> Option<u64> {
        let sets = &self.nodes[node].durable.sets;
        let Some((lane, open)) = sets.openings.get(about) else { return Some(0) };
        let until = open.cap.as_ref().map_or(0, |cap| cap.not_after_ms);
        let states = sets.outs.get(lane).map(|all| &all[..]).unwrap_or_default();
        let with = |state: &&State| state.leaves.contains_key(about);
        let log = self.in_log(*lane, lane.0.side).unwrap_or_default();
        let acked = sets.acked.get(lane).copied().unwrap_or(0);
        // What is claimed on a voucher that was given up is taken back.
        let taken = claimed(&log).into_iter().find(|(one, _)| one == about && log.nonce >= acked);
        let taken = taken.map(|(_, amount)| amount);
        let last = states.iter().rfind(with).map(|state| state.nonce);
        let from = acked.max(log.nonce);
        let live = states.iter().filter(with).any(|state| state.nonce >= from);
        let is_final = taken.is_some() && last == Some(log.nonce);
        let collected = self.ledger.record(&lane.0.channel).is_some_and(|record| record.collected);
        if live && self.time() <= until && !is_final && !collected {
            return None;
        }
        let shut = states.iter().rev().find_map(|state| state.shuts.get(about).copied());
        Some(taken.unwrap_or(0).max(shut.unwrap_or(0)))
    }

    /// What an end has bound is enough for all that its vouchers can come to.
    pub fn check_bound(&mut self, node: usize, ends: &[EndId]) {
        let mut found = None;
        for end in ends {
            let of = &self.nodes[node];
            let state = of.manager.status(end).map(|status| (status.state, status.diverged));
            if !of.is_honest() || of.restored || !matches!(state, Ok((state, false)) if state != EndState::Collected) {
                continue;
            }
            let collected = self.ledger.record(&end.channel).is_none_or(|record| record.collected);
            if collected {
                continue;
            }
            for (lane, states) in of.memory.sets.outs.range((*end, 0)..=(*end, u32::MAX)) {
                let Ok(view) = of.manager.virtual_lane(end, end.side, lane.1) else { continue };
                let paid = of.manager.lane_paid(end, lane.1).unwrap_or(0);
                let (bound, worst) = (view.exposed.most.max(paid), self.worst(of, *lane, states));
                if bound < worst {
                    found = Some(format!("party {node}: has bound {bound} on lane {} and may lose {worst}", lane.1));
                }
            }
        }
        found.into_iter().for_each(|what| self.violation(what));
    }

    /// The most that a lane can come to, if its payer answers an older voucher with what was signed back.
    fn worst(&self, of: &Node, lane: Lane, states: &[State]) -> u64 {
        let now = self.time();
        let log = self.in_log(lane, lane.0.side).unwrap_or_default();
        let taken = claimed(&log);
        let from = of.memory.sets.acked.get(&lane).copied().unwrap_or(0).max(log.nonce);
        let most = |state: &State| {
            let left = state.leaves.iter().filter(|(leaf, cap)| {
                let done = state.nonce == log.nonce && taken.iter().any(|(one, _)| one == *leaf);
                cap.not_after_ms >= now && !done
            });
            let amount = if state.nonce == log.nonce { log.redeemed } else { state.amount };
            amount + left.map(|(_, cap)| cap.cap).sum::<u64>()
        };
        states.iter().filter(|state| state.nonce >= from).map(most).max().unwrap_or(0)
    }

    /// What the log has claimed was signed by the payer.
    pub fn check_claims(&mut self, lane: &ChannelLane) {
        for (about, amount) in claimed(lane) {
            let Some((payer, _)) = self.parties.get(&about).copied() else { continue };
            let of = &self.nodes[payer];
            let signed = of.durable.sets.paid.get(&about).copied().unwrap_or(0);
            if of.is_honest() && !of.restored && amount > signed {
                self.violation(format!("{amount} of a virtual channel is claimed, of which {signed} is signed"));
            }
        }
    }

    /// What a party has to have gained by virtual channels, at least: what it has acknowledged, and fees; less what it has signed.
    pub fn virtual_due(&self, node: usize) -> i128 {
        let sets = &self.nodes[node].durable.sets;
        let paid = sets.openings.keys().filter(|about| !sets.taken.contains_key(*about));
        let paid: i128 = paid.map(|about| i128::from(sets.paid.get(about).copied().unwrap_or(0))).sum();
        let mut got = 0;
        for (about, (_, cap)) in sets.taken.iter().filter(|(about, _)| !sets.openings.contains_key(*about)) {
            let until = cap.not_after_ms;
            let missed = |(of, from, to): &(usize, u64, u64)| {
                *of == node && *from <= until && *to >= until.saturating_sub(CLAIM_MS + ORDER_MS)
            };
            // Who is not there when it has to claim has been warned.
            if !self.absences.iter().any(missed) {
                got += i128::from(self.acked_to.get(about).copied().unwrap_or(0));
            }
        }
        sets.fees_in - sets.fees_out + got - paid
    }

    /// Nothing of virtual channels is left when all channels are collected.
    pub fn check_virtual_end(&mut self, node: usize) {
        let of = &self.nodes[node];
        let open = of.virtuals.ids().filter(|about| {
            let Ok(status) = of.virtuals.status(about) else { return true };
            let is_gone = |end: &EndId| self.ledger.record(&end.channel).is_some_and(|record| record.collected);
            let all = status.out.iter().chain(&status.inc).all(is_gone);
            all && !status.over
        });
        let left = open.count();
        if left > 0 {
            self.violation(format!("party {node}: {left} virtual channels are not over in the end"));
        }
    }
}
