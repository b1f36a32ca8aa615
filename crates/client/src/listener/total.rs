//! Networks with the flag ORDERED: position by position, each as `f + 1` authorities have it.

use std::collections::BTreeMap;

use florin_core::merkle::Hash;

use super::merge::{Merge, Shown};
use super::{Event, Key};

/// What authorities have where.
pub(super) struct Total {
    /// Position that is decided next.
    pub(super) next: u64,
    /// Of each authority, from there on. What is left out before its stream's next position is no order.
    words: Vec<BTreeMap<u64, Shown>>,
    /// Whoever said otherwise than `f + 1` others is not asked again.
    liars: u128,
    /// The last order that was delivered.
    last: Option<Key>,
    /// By authority: since when it lacks what others have.
    late: Vec<Option<u64>>,
    /// Since when some have more than what is decided.
    undecided: Option<u64>,
}

impl Total {
    pub(super) fn new(authorities: usize, next: u64) -> Total {
        Total {
            next,
            words: vec![BTreeMap::new(); authorities],
            liars: 0,
            last: None,
            late: vec![None; authorities],
            undecided: None,
        }
    }

    fn lied(&self, authority: usize) -> bool {
        self.liars >> authority & 1 == 1
    }
}

impl Merge {
    pub(super) fn place(&mut self, authority: usize, shown: Shown) {
        if shown.position >= self.total.next && !self.total.lied(authority) {
            self.total.words[authority].insert(shown.position, shown);
            self.streams[authority].held += 1;
        }
    }

    /// Who has what at the next position.
    fn tally(&self) -> Vec<(Option<Hash>, Vec<usize>)> {
        let mut tally: Vec<(Option<Hash>, Vec<usize>)> = Vec::new();
        let place = self.total.next;
        for (authority, stream) in self.streams.iter().enumerate() {
            if stream.next <= place || self.total.lied(authority) {
                continue;
            }
            let word = self.total.words[authority].get(&place).map(|shown| shown.order.id);
            match tally.iter_mut().find(|(other, _)| *other == word) {
                Some((_, by)) => by.push(authority),
                None => tally.push((word, vec![authority])),
            }
        }
        tally
    }

    /// Delivers as far as `f + 1` agree.
    pub(super) fn decide(&mut self, now_ms: u64) {
        loop {
            let mut tally = self.tally();
            let Some(agreed) = tally.iter().position(|(_, by)| by.len() >= self.rules.validity) else {
                let waits = !tally.is_empty();
                self.total.undecided = waits.then(|| self.total.undecided.unwrap_or(now_ms));
                return;
            };
            let (word, by) = tally.swap_remove(agreed);
            for authority in tally.into_iter().flat_map(|(_, by)| by) {
                self.lied(authority);
            }
            self.total.undecided = None;
            let place = self.total.next;
            self.total.next += 1;
            let mut shown: Vec<Shown> = by.iter().filter_map(|a| self.total.words[*a].remove(&place)).collect();
            by.iter().take(shown.len()).for_each(|a| self.streams[*a].held -= 1);
            if word.is_some() {
                let proof = shown.iter_mut().find_map(|s| s.proof.take());
                let transaction = shown.iter_mut().find_map(|s| s.transaction.take());
                let first = Shown { proof, transaction, ..shown.swap_remove(0) };
                let (actor, seqnum, order_id) = (first.order.actor, first.order.seqnum, first.order.id);
                self.total.last = Some(Key { network_id: self.head.network_id, actor, seqnum, order_id });
                self.emit(by[0], first, by.len(), Some(place));
            }
        }
    }

    fn lied(&mut self, authority: usize) {
        self.total.liars |= 1 << authority;
        self.streams[authority].held = 0;
        self.total.words[authority].clear();
        self.events.push(Event::lie(authority, "has another order of transactions than f + 1 others"));
        // It does not count among those that serve.
        self.streams[authority].behind.get_or_insert([0; 32]);
    }

    pub(super) fn tick_total(&mut self, now_ms: u64) -> bool {
        let place = self.total.next;
        for authority in 0..self.rules.authorities {
            let stream = &self.streams[authority];
            if self.total.lied(authority) || !stream.followed || !stream.connected || stream.next >= place {
                if !self.total.lied(authority) && stream.next >= place {
                    self.catch_up(authority);
                }
                self.total.late[authority] = None;
                continue;
            }
            let since = *self.total.late[authority].get_or_insert(now_ms);
            if now_ms >= since + self.rules.grace_ms
                && let Some(key) = self.total.last
            {
                self.fall_behind(authority, key);
            }
        }
        self.total.undecided.is_some_and(|since| since + self.rules.grace_ms <= now_ms)
    }
}
