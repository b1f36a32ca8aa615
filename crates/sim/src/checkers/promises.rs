//! Votes and acknowledgements: true when they are signed, durable when they leave, kept whatever happens.

use std::collections::BTreeSet;

use bytes::Bytes;
use florin_core::wire;

use super::orders::{Id, Known, Place, bit, id_of, short};
use super::{Checkers, NodeId, Promise, Rule, account, settled_order, voided_in};
use crate::disk::{Disk, Image};

impl Checkers {
    /// An honest authority has signed a vote, which waits for its disk.
    pub fn voted(&mut self, node: NodeId, disk: &Disk, raw: &[Bytes], vote: &wire::Signed) -> Promise {
        let root = self.orders.learn(raw);
        let ids = self.bits(node, &root, vote);
        self.check_may_vote(node, disk.current(), raw, vote);
        self.check_fresh(node, disk.current(), (&root, raw), vote);
        for id in &ids {
            let Some(order) = self.orders.get(id).filter(|o| o.is_bearer() || !o.asked.is_empty()) else {
                continue;
            };
            let mut found = self.cash.may_vote(node, disk.current(), order);
            if order.is_bearer() && !self.cash.has_all(disk.current(), order) {
                let what = format!("{node:?} votes for {} and does not hold its notes", hex::encode(id));
                found.push((Rule::FalsePromise, what));
            }
            found.into_iter().for_each(|(rule, what)| self.violation(rule, what));
        }
        for id in &ids {
            if !self.takes_no_lock(id) && !self.is_locked(disk.current(), id) {
                self.violation(Rule::FalsePromise, format!("{node:?} votes for {} without a lock", hex::encode(id)));
            }
        }
        Promise::Votes(ids)
    }

    /// An honest authority has signed an acknowledgement, which waits for its disk.
    pub fn acknowledged(&mut self, node: NodeId, disk: &Disk, root: &[u8], signed: &wire::Signed) -> Promise {
        let ids = self.bits(node, root, signed);
        for id in &ids {
            if self.is_recover(id) {
                continue;
            }
            if self.settled_at(disk.current(), id) != Some(*id) {
                self.violation(
                    Rule::FalsePromise,
                    format!("{node:?} acknowledges {}, which it has not settled", hex::encode(id)),
                );
            }
        }
        Promise::Settled(ids)
    }

    /// What must be so of a vote for an order with a seqnum when it is given first: it follows the order before it, and the
    /// account's keys have signed it.
    fn check_fresh(&mut self, node: NodeId, image: &Image, (root, raw): (&Id, &[Bytes]), vote: &wire::Signed) {
        let mut found = Vec::new();
        for envelope in raw.iter().enumerate().filter(|(i, _)| bit(&vote.bitmap, *i)).map(|(_, envelope)| envelope) {
            let Some(order) = id_of(envelope).and_then(|id| self.orders.get(&id)) else { continue };
            let place = order.place;
            let record = account(image, place.network, place.actor);
            // Once it is locked nobody looks at signatures again.
            let again = !self.signatures.voted.insert((node, order.id));
            if again || place.id.is_some() || place.seqnum <= record.seqnum {
                continue;
            }
            if let Some(Some(before)) = place.before().map(|before| before_id(image, &record, before))
                && order.prev_hash != short(&before)
            {
                found.push(format!("{node:?} votes for {place:?}, which follows another order"));
            }
            if place.network != self.facts.network_id {
                continue;
            }
            let Some(keys) = self.keys_at(image, &record, place) else { continue };
            let by_root = self.signatures.is_signed_by_root(envelope, root, &order.id);
            if !by_root && !self.signatures.is_signed(envelope, &order.id, &keys) {
                found.push(format!("{node:?} votes for {place:?}, which the account's keys have not signed"));
            }
        }
        found.into_iter().for_each(|what| self.violation(Rule::FalsePromise, what));
    }

    /// The permission that must sign what comes at a place, as the orders before it have it.
    fn keys_at(&self, image: &Image, record: &wire::AccountRecord, place: Place) -> Option<Bytes> {
        let changes: Vec<u32> = self.orders.rotations(place.network, place.actor).collect();
        let earlier = changes.into_iter().rev().filter(|seqnum| *seqnum < place.seqnum);
        let mut set = earlier
            .filter_map(|seqnum| self.orders.get(&before_id(image, record, Place { seqnum, ..place })?)?.keys.clone());
        set.next().or_else(|| self.orders.first_keys(place.actor).cloned())
    }

    /// A sender has signed the root of a batch, in which it has seen its order.
    pub fn signed_root(&mut self, root: [u8; 32], order: Id) {
        self.signatures.roots.insert((root, order));
    }

    fn bits(&mut self, node: NodeId, root: &[u8], signed: &wire::Signed) -> Vec<Id> {
        let Some(batch) = self.orders.batch(root).map(<[_]>::to_vec) else {
            self.violation(Rule::FalsePromise, format!("{node:?} signs for a batch that nobody showed it"));
            return Vec::new();
        };
        if signed.authority != node.0 {
            self.violation(Rule::FalsePromise, format!("{node:?} signs as authority {}", signed.authority));
        }
        let mut ids = Vec::new();
        for (i, id) in batch.iter().enumerate().filter(|(i, _)| bit(&signed.bitmap, *i)) {
            match id {
                Some(id) => ids.push(*id),
                None => self.violation(Rule::FalsePromise, format!("{node:?} signs for order {i}, which is none")),
            }
        }
        ids
    }

    /// A promise has left its authority: from now on it counts.
    pub fn left(&mut self, node: NodeId, disk: &Disk, promise: Promise) {
        match promise {
            Promise::Votes(ids) => ids.into_iter().for_each(|id| self.vote_left(node, disk, id)),
            Promise::Settled(ids) => {
                for id in ids {
                    let Some(place) = self.orders.get(&id).map(|o| o.place) else { continue };
                    self.acknowledgements.entry(id).or_default().insert(node.0);
                    if self.is_recover(&id) {
                        continue;
                    }
                    self.check_final(&id);
                    self.acked.entry(node).or_default().insert(place, id);
                    if self.settled_at(disk.synced(), &id) != Some(id) {
                        self.violation(Rule::NotDurable, format!("{node:?} settled {}", hex::encode(id)));
                    }
                }
            }
        }
    }

    /// Whether votes for it lock nothing: RECOVERs, and what has no sequence number.
    fn takes_no_lock(&self, id: &Id) -> bool {
        self.orders.get(id).is_some_and(|o| o.recover || o.place.id.is_some())
    }

    pub(super) fn is_recover(&self, id: &Id) -> bool {
        self.orders.get(id).is_some_and(|o| o.recover)
    }

    /// If a quorum can have acknowledged an order, no recovery has voided it or what it is chained to.
    pub(super) fn check_final(&mut self, id: &Id) {
        if self.is_recover(id) || self.acknowledgements.get(id).map_or(0, BTreeSet::len) < self.facts.honest_quorum() {
            return;
        }
        let mut at = self.orders.get(id);
        while let Some(order) = at {
            if self.log.is_void(&order.place) {
                let who = &self.acknowledgements[id];
                let what = format!("{} is final by {who:?}, and {:?} is void", hex::encode(id), order.place);
                return self.violation(Rule::FinalVoided, what);
            }
            at = self.orders.parent(order);
        }
    }

    fn vote_left(&mut self, node: NodeId, disk: &Disk, id: Id) {
        let Some(place) = self.orders.get(&id).map(|o| o.place) else { return };
        if place.id.is_some() {
            self.votes.entry(place).or_default().entry(id).or_default().insert(node.0);
            if let Some(order) = self.orders.get(&id).filter(|o| o.is_bearer() && !o.recover) {
                let found = self.cash.vote_left(node, disk.synced(), order);
                found.into_iter().for_each(|(rule, what)| self.violation(rule, what));
            }
            return;
        }
        if self.is_recover(&id) {
            return;
        }
        self.voted.entry(node).or_default().entry(place).or_default().insert(id);
        if !self.is_held(disk.synced(), &id) {
            self.violation(Rule::NotDurable, format!("{node:?} vote for {}", hex::encode(id)));
        }
        let quorum = self.facts.honest_quorum();
        let here = self.votes.entry(place).or_default();
        here.entry(id).or_default().insert(node.0);
        // What hung on a void seqnum can't be certified any more, and another order may be.
        let above_void = place.before().is_some_and(|before| self.log.void_at_or_below(before).is_some());
        if here.len() > 1 && !above_void && here.values().filter(|voters| voters.len() >= quorum).count() > 1 {
            self.violation(Rule::OneCertificate, format!("two certificates can be made for {place:?}"));
        }
        self.check_votes(node, disk.current(), place.network, place.actor);
    }

    /// The order settled at this order's place.
    fn settled_at(&self, image: &Image, id: &Id) -> Option<Id> {
        let place = self.orders.get(id)?.place;
        settled_order(image, place)
    }

    /// Whether an order is pending or settled itself.
    fn is_locked(&self, image: &Image, id: &Id) -> bool {
        let Some(order) = self.orders.get(id) else { return false };
        let record = account(image, order.place.network, order.place.actor);
        match order.place.seqnum.checked_sub(record.seqnum + 1) {
            Some(ahead) => record.pending.get(ahead as usize).is_some_and(|p| p.order_id.as_ref() == id),
            None => self.settled_at(image, id) == Some(*id),
        }
    }

    /// Whether the vote for an order is still kept: it is pending, its seqnum is settled, or an order before
    /// it turned out to be another than the one that it was chained to, and it can't be certified any more.
    fn is_held(&self, image: &Image, id: &Id) -> bool {
        let Some(order) = self.orders.get(id) else { return false };
        self.is_held_by(image, &account(image, order.place.network, order.place.actor), order)
    }

    fn is_held_by(&self, image: &Image, record: &wire::AccountRecord, order: &Known) -> bool {
        let seqnum = order.place.seqnum;
        if seqnum <= record.seqnum {
            return settled_order(image, order.place).is_some()
                || voided_in(record, seqnum)
                || self.log.is_void(&order.place);
        }
        let ahead = (seqnum - record.seqnum - 1) as usize;
        if record.pending.get(ahead).is_some_and(|p| p.order_id.as_ref() == order.id) {
            return true;
        }
        let mut root = order;
        while root.place.seqnum > record.seqnum + 1 {
            let Some(parent) = self.orders.parent(root) else { return false };
            root = parent;
        }
        root.prev_hash != record.prev_hash
    }

    /// Whether all votes that left for an actor's unsettled orders are still kept.
    pub(super) fn check_votes(&mut self, node: NodeId, image: &Image, network: u64, actor: u64) {
        let Some(voted) = self.voted.get(&node) else { return };
        let record = account(image, network, actor);
        let open = voted.range(Place::new(network, actor, record.seqnum.saturating_add(1))..);
        let open = open.take_while(|(p, _)| (p.network, p.actor) == (network, actor) && p.id.is_none());
        let ids: Vec<Id> = open.flat_map(|(_, ids)| ids.iter().copied()).collect();
        for id in ids {
            if !self.orders.get(&id).is_some_and(|order| self.is_held_by(image, &record, order)) {
                self.violation(Rule::PromiseForgotten, format!("{node:?} forgets vote for {}", hex::encode(id)));
            }
        }
    }
}

/// The order that a shard has at a place, settled or pending; none if it is void.
fn before_id(image: &Image, record: &wire::AccountRecord, place: Place) -> Option<Id> {
    match place.seqnum.checked_sub(record.seqnum + 1) {
        Some(ahead) => record.pending.get(ahead as usize)?.order_id[..].try_into().ok(),
        None => settled_order(image, place),
    }
}
