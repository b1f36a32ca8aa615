//! What parties do with virtual channels: they open, pay, receive and close them, and what they say to each other directly gets lost or comes late.

use bytes::Bytes;
use florin_core::channel::manager::EndId;
use florin_core::channel::virtuals::{Input, Step, To, plan};
use florin_core::merkle::Hash;

use super::life::{Life, MINUTE};
use super::node::Manner;
use super::world::Link;

impl Life {
    pub(super) fn virtual_turn(&mut self) {
        match self.world.rng.below(20) {
            0..4 => self.open_virtual(),
            4..10 => self.pay_virtual(),
            10..12 => self.close_virtual(),
            _ => self.peer_mail(),
        }
    }

    fn open_virtual(&mut self) {
        let (payer, payee) = (self.user(), self.user());
        if payer == payee || !self.world.nodes[payer].is_up() {
            return;
        }
        let Some((own, steps)) = self.virtual_way(payer, payee) else { return };
        let id: Hash = self.world.rng.bytes();
        let cap = self.world.rng.between(1, 1_500);
        let until = self.world.nodes[payer].known_ms + self.world.rng.between(3, 75) * MINUTE;
        let permission = self.world.nodes[payer].permission.clone();
        let Ok(mut open) = plan(id, own, permission, (cap, until), &steps) else { return };
        if self.world.nodes[payer].manner == Manner::Liar {
            match self.world.rng.below(8) {
                0 => open.fee = 0,
                1 => open.not_after_ms -= 2 * MINUTE,
                2 => open.hops.iter_mut().for_each(|hop| hop.not_after_ms += 5 * MINUTE),
                3 => open.hops.iter_mut().for_each(|hop| hop.fee += 2),
                _ => {}
            }
        }
        self.world.parties.insert(id, (payer, payee));
        if self.world.tell_virtual(payer, Input::Open(open)).is_ok() {
            self.virtuals.push(id);
        }
        if self.world.rng.chance(500) {
            self.world.flush(payer);
        }
        if self.world.rng.chance(600) {
            self.hurry(&[payer, 0, 1, payee]);
        }
    }

    /// These parties do what they have to, and nothing that they say to each other is late.
    fn hurry(&mut self, nodes: &[usize]) {
        for _ in 0..4 {
            nodes.iter().for_each(|node| self.world.flush(*node));
            let between = |link: &&Link| link.sides.iter().all(|side| nodes.contains(side));
            let links = self.world.links.iter().filter(|(_, link)| between(link));
            let links: Vec<Hash> = links.map(|(channel, _)| *channel).collect();
            for (channel, side) in links.into_iter().flat_map(|channel| [(channel, 0), (channel, 1)]) {
                while self.world.deliver(channel, side) {}
            }
        }
    }

    /// The payer's end, and the hubs with what they ask for.
    fn virtual_way(&mut self, payer: usize, payee: usize) -> Option<(EndId, Vec<Step>)> {
        let (own, theirs) = (self.end_of(payer)?, self.end_of(payee)?);
        let (first, last) = (self.world.nodes[payer].ends[&own], self.world.nodes[payee].ends[&theirs]);
        let step = |life: &Life, hub: usize, end: &EndId| {
            let terms = life.world.nodes[hub].virtual_config().terms();
            Step { to: To::Channel(end.channel), terms }
        };
        if first == last {
            return Some((own, vec![step(self, last, &theirs)]));
        }
        let between: Vec<EndId> =
            self.world.nodes[first].ends.iter().filter(|(_, peer)| **peer == last).map(|(end, _)| *end).collect();
        let between = between.get(self.world.rng.index(between.len().max(1))).copied()?;
        Some((own, vec![step(self, first, &between), step(self, last, &theirs)]))
    }

    /// One of the latest, mostly.
    fn some_virtual(&mut self) -> Option<Hash> {
        let from = if self.world.rng.chance(800) { self.virtuals.len().saturating_sub(5) } else { 0 };
        let all = &self.virtuals[from..];
        (!all.is_empty()).then(|| all[self.world.rng.index(all.len())])
    }

    /// One that can be paid over.
    fn open_one(&mut self) -> Option<Hash> {
        let now = self.world.time();
        let is_open = |about: &&Hash| {
            let of = &self.world.nodes[self.world.parties[*about].0];
            let status = of.virtuals.status(about);
            of.is_up() && status.is_ok_and(|status| status.opened && !status.over && status.not_after_ms > now)
        };
        let open: Vec<Hash> = self.virtuals.iter().filter(is_open).copied().collect();
        (!open.is_empty()).then(|| open[self.world.rng.index(open.len())])
    }

    fn pay_virtual(&mut self) {
        let Some(id) = self.open_one() else { return };
        let payer = self.world.parties[&id].0;
        let Ok(status) = self.world.nodes[payer].virtuals.status(&id) else { return };
        let mut amount = status.amount;
        for _ in 0..self.world.rng.between(1, 3) {
            amount += self.world.rng.between(1, 200);
            if self.world.tell_virtual(payer, Input::Pay { id, amount }).is_ok() {
                self.world.mark("virtual payment");
            }
        }
        if self.world.rng.chance(700) {
            self.world.flush(payer);
        }
    }

    fn close_virtual(&mut self) {
        let one = if self.world.rng.chance(500) { self.open_one() } else { self.some_virtual() };
        let Some(id) = one else { return };
        let (payer, payee) = self.world.parties[&id];
        let node = if self.world.rng.chance(300) { payer } else { payee };
        if self.world.nodes[node].is_up() {
            drop(self.world.tell_virtual(node, Input::Close(id)));
        }
    }

    /// What payer and payee say to each other: mostly the oldest; some of it is lost, and some comes twice.
    fn peer_mail(&mut self) {
        for _ in 0..self.world.rng.between(1, 4) {
            if self.world.peers.is_empty() {
                return;
            }
            let at = if self.world.rng.chance(700) { 0 } else { self.world.rng.index(self.world.peers.len()) };
            match self.world.rng.below(20) {
                0 => {
                    self.world.peers.remove(at);
                    self.world.mark("virtual payment lost");
                }
                1 => {
                    let again = self.world.peers[at].clone();
                    self.world.peers.push(again);
                }
                _ => {
                    let (node, message) = self.world.peers.remove(at);
                    self.world.peer_arrives(node, message);
                    if self.world.rng.chance(700) {
                        self.world.flush(node);
                    }
                }
            }
        }
    }
}

/// Bytes of an id.
pub fn bytes(id: &Hash) -> Bytes {
    Bytes::copy_from_slice(id)
}
