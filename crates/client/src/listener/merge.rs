//! What several authorities say of one network's stream, made into one sequence of deliveries. Without I/O and clock.
//!
//! Safety: nothing is delivered that did not settle. In a network with sequence numbers it takes a certificate, or the
//! word of `f + 1` authorities, so of an honest one. In the other two kinds it takes `f + 1` in any case: for their place
//! in an ORDERED network, which nobody signs; and without sequence numbers, because an honest authority shows an order
//! once, so that liars can't have one delivered again.
//!
//! Liveness: an honest authority shows everything in the end. Among `f + 1` there is one, and each is followed from a
//! position on before which everything it shows has been delivered. So nothing is left out, whatever the others hide.
//!
//! Once: sequence numbers are taken in turn, and so are places. Without sequence numbers the ids of delivered orders are
//! kept until every authority has shown them, and no authority's position moves past an order before that.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use bytes::Bytes;
use florin_core::envelope::Order;
use florin_core::merkle::Hash;

use super::cursor::{Change, Head, Kept};
use super::total::Total;
use super::{Delivery, Event, Key, Proof};

/// Entries of one authority that wait for others before no more are read from it.
const HELD_MAX: usize = 8_192;
/// Delivered orders that are remembered to see who does not show them.
const RECENT_MAX: usize = 16_384;

/// How deliveries follow from what is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Each actor's by sequence number.
    BySeqnum,
    /// SKIP_SEQ_AND_PREVHASH: each once.
    ById,
    /// ORDERED: by position.
    Total,
}

/// What does not change while it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) authorities: usize,
    /// `f + 1`.
    pub(crate) validity: usize,
    pub(crate) grace_ms: u64,
}

/// An entry of an authority's stream, checked for itself.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) position: u64,
    pub(crate) time_us: u64,
    /// Of the body alone.
    pub(crate) order: Order,
    pub(crate) transaction: Option<Bytes>,
    /// That a quorum voted for it; `None`: the authority's word.
    pub(crate) proof: Option<Proof>,
}

/// Consecutive entries of a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    /// Ascending, from the position asked for on.
    pub(crate) entries: Vec<Shown>,
    /// Position after them and after what is no order.
    pub(crate) next: u64,
    /// Whether that is all there is.
    pub(crate) level: bool,
}

/// One authority's stream.
#[derive(Default)]
pub(super) struct Stream {
    /// Position that is to be read next.
    pub(super) next: u64,
    /// Positions of orders that have to be shown again after a crash.
    open: BTreeSet<u64>,
    /// Entries that wait for something.
    pub(super) held: usize,
    pub(super) level: bool,
    pub(super) connected: bool,
    failed: bool,
    pub(super) followed: bool,
    /// A delivered order that it has not shown in time.
    pub(super) behind: Option<Hash>,
    /// What was stored last of its position.
    saved: u64,
}

impl Stream {
    /// Where to go on after a crash.
    fn safe(&self) -> u64 {
        self.open.first().map_or(self.next, |open| self.next.min(*open))
    }
}

/// A delivered order of an actor, by number.
#[derive(Clone, Copy)]
pub(super) struct Actor {
    /// The one after it.
    pub(super) next: u64,
    /// Below that of the head: a later one may be the first that there still is.
    pub(super) epoch: u32,
}

/// An entry that is not delivered yet.
struct Held {
    shown: Shown,
    since_ms: u64,
    /// Authority and position.
    by: Vec<(usize, u64)>,
}

impl Held {
    fn is_ready(&self, rules: &Rules, mode: Mode) -> bool {
        self.shown.proof.is_some() && mode == Mode::BySeqnum || self.by.len() >= rules.validity
    }
}

/// The state.
pub(crate) struct Merge {
    pub(super) rules: Rules,
    pub(super) head: Head,
    pub(super) streams: Vec<Stream>,
    pub(super) actors: HashMap<u64, Actor>,
    held: BTreeMap<(u64, u32, Hash), Held>,
    /// Delivered by id, and not shown by all: who has.
    done: HashMap<Hash, Vec<(usize, u64)>>,
    /// Those of `done` that all authorities had shown before a restart: some of them will not do so again.
    restored: HashSet<Hash>,
    /// Shown by all, and not stored yet that they are.
    unsaved: Vec<Hash>,
    /// Shown by all, in the order in which that happened: forgotten when all positions are past them.
    complete: VecDeque<(Hash, Vec<(usize, u64)>)>,
    pub(super) total: Total,
    /// Delivered lately, by time, and which of the followed have shown it.
    recent: VecDeque<(u64, Key)>,
    lacking: HashMap<Hash, u128>,
    head_saved: bool,
    pub(super) deliveries: VecDeque<Delivery>,
    pub(super) events: Vec<Event>,
}

impl Merge {
    pub(crate) fn new(rules: Rules, head: Head, kept: Kept, is_stored: bool) -> Merge {
        let mut streams: Vec<Stream> =
            (0..rules.authorities).map(|_| Stream { next: 1, ..Stream::default() }).collect();
        for (authority, next) in kept.positions {
            if let Some(stream) = streams.get_mut(authority) {
                (stream.next, stream.saved) = (next, next);
            }
        }
        Merge {
            rules,
            head,
            streams,
            actors: kept
                .actors
                .into_iter()
                .map(|(id, (seqnum, epoch))| (id, Actor { next: u64::from(seqnum) + 1, epoch }))
                .collect(),
            held: BTreeMap::new(),
            done: kept.ids.iter().map(|id| (*id, Vec::new())).collect(),
            restored: kept.complete,
            unsaved: Vec::new(),
            complete: VecDeque::new(),
            total: Total::new(rules.authorities, kept.place),
            recent: VecDeque::new(),
            lacking: HashMap::new(),
            head_saved: is_stored,
            deliveries: VecDeque::new(),
            events: Vec::new(),
        }
    }

    /// Begins to follow an authority: from which position.
    pub(crate) fn follow(&mut self, authority: usize) -> u64 {
        let place = self.total.next;
        let stream = &mut self.streams[authority];
        stream.followed = true;
        if self.head.mode == Mode::Total {
            stream.next = stream.next.max(place);
        }
        stream.next
    }

    /// Where an authority that was never followed is to begin.
    pub(crate) fn begin(&mut self, authority: usize, position: u64) {
        self.streams[authority].next = position;
    }

    /// Whether something of it was read before, now or before a restart.
    pub(crate) fn position(&self, authority: usize) -> u64 {
        self.streams[authority].next
    }

    /// Authorities that can be reached and lack what others have.
    pub(crate) fn behind(&self) -> usize {
        self.streams.iter().filter(|s| s.followed && s.connected && s.behind.is_some()).count()
    }

    /// Sets whether an authority has failed; whether it had.
    pub(crate) fn failed(&mut self, authority: usize, failed: bool) -> bool {
        std::mem::replace(&mut self.streams[authority].failed, failed)
    }

    /// Lets each actor begin again with the first order that there still is.
    pub(crate) fn allow_gaps(&mut self, is_stored: bool) {
        if is_stored || self.head.epoch == 0 {
            self.head.epoch += 1;
            self.head_saved = false;
        }
    }

    pub(crate) fn total_next(&self) -> u64 {
        self.total.next
    }

    pub(crate) fn start_total(&mut self, position: u64) {
        self.total.next = self.total.next.max(position);
    }

    /// Whether more of an authority's stream may come.
    pub(crate) fn has_room(&self, authority: usize) -> bool {
        self.streams[authority].held < HELD_MAX
    }

    /// Whether `f + 1` authorities have shown all that they have, and it is delivered.
    pub(crate) fn is_level(&self) -> bool {
        let place = self.total.next;
        let passed = |s: &&Stream| {
            s.connected && s.level && s.behind.is_none() && (self.head.mode != Mode::Total || s.next == place)
        };
        self.streams.iter().filter(passed).count() >= self.rules.validity
            && self.held.values().all(|held| !held.is_ready(&self.rules, self.head.mode))
    }

    pub(crate) fn disconnected(&mut self, authority: usize) {
        (self.streams[authority].connected, self.streams[authority].level) = (false, false);
    }

    /// The next page of an authority's stream.
    pub(crate) fn page(&mut self, now_ms: u64, authority: usize, page: Page) {
        self.streams[authority].connected = true;
        for shown in page.entries {
            self.streams[authority].next = shown.position + 1;
            match self.head.mode {
                Mode::Total => self.place(authority, shown),
                _ if shown.time_us < self.head.since_us => {}
                Mode::BySeqnum => self.by_seqnum(now_ms, authority, shown),
                Mode::ById => self.by_id(now_ms, authority, shown),
            }
        }
        let stream = &mut self.streams[authority];
        (stream.next, stream.level) = (page.next, page.level);
        match self.head.mode {
            Mode::Total => self.decide(now_ms),
            Mode::ById => self.forget_restored(),
            Mode::BySeqnum => {}
        }
    }

    fn by_seqnum(&mut self, now_ms: u64, authority: usize, shown: Shown) {
        let (actor, seqnum) = (shown.order.actor, shown.order.seqnum);
        if u64::from(seqnum) < self.actors.get(&actor).map_or(1, |known| known.next) {
            return self.shown_late(authority, &shown.order.id);
        }
        self.hold(now_ms, authority, shown);
        self.settle(now_ms, actor);
    }

    fn by_id(&mut self, now_ms: u64, authority: usize, shown: Shown) {
        let (id, position) = (shown.order.id, shown.position);
        self.shown_late(authority, &id);
        let Some(by) = self.done.get_mut(&id) else {
            let key = self.hold(now_ms, authority, shown);
            if self.held.get(&key).is_some_and(|held| held.by.len() >= self.rules.validity) {
                self.deliver(now_ms, &key);
            }
            return;
        };
        if by.iter().any(|(a, _)| *a == authority) {
            return self.events.push(Event::lie(authority, "shows an order twice"));
        }
        by.push((authority, position));
        self.streams[authority].open.insert(position);
        if by.len() == self.rules.authorities {
            let by = self.done.remove(&id).unwrap_or_default();
            self.complete(id, by);
        }
    }

    fn complete(&mut self, id: Hash, by: Vec<(usize, u64)>) {
        if !self.restored.remove(&id) {
            self.unsaved.push(id);
        }
        for (authority, position) in &by {
            self.streams[*authority].open.remove(position);
        }
        self.complete.push_back((id, by));
    }

    /// What all had shown before a restart is shown again by those alone whose positions were held back by other orders:
    /// once all streams are read to their ends, nobody who is honest shows any of it. What some have yet to show is
    /// none of this: their streams may end for now because they lag.
    fn forget_restored(&mut self) {
        if self.restored.is_empty() || !self.streams.iter().all(|s| s.connected && s.level) {
            return;
        }
        for id in std::mem::take(&mut self.restored) {
            let shown = self.done.remove(&id).unwrap_or_default();
            for (authority, position) in shown {
                self.streams[authority].open.remove(&position);
            }
            let by = self.streams.iter().enumerate().map(|(a, s)| (a, s.next.saturating_sub(1))).collect();
            self.complete.push_back((id, by));
        }
    }

    fn hold(&mut self, now_ms: u64, authority: usize, shown: Shown) -> (u64, u32, Hash) {
        let key = (shown.order.actor, shown.order.seqnum, shown.order.id);
        let position = shown.position;
        let held =
            self.held.entry(key).or_insert_with(|| Held { shown: shown.clone(), since_ms: now_ms, by: Vec::new() });
        if held.by.iter().all(|(a, _)| *a != authority) {
            held.by.push((authority, position));
            if held.shown.proof.is_none() {
                held.shown.proof = shown.proof;
            }
            if held.shown.transaction.is_none() {
                held.shown.transaction = shown.transaction;
            }
            self.streams[authority].open.insert(position);
            self.streams[authority].held += 1;
        }
        key
    }

    /// Delivers what of an actor is next.
    fn settle(&mut self, now_ms: u64, actor: u64) {
        loop {
            let mut known = self.actors.get(&actor).copied().unwrap_or(Actor { next: 1, epoch: 0 });
            if known.epoch < self.head.epoch {
                let Some(first) = self.first(now_ms, actor, known.next) else { return };
                if first > known.next && known.next > 1 {
                    self.events.push(Event::Gap { actor, from: known.next as u32, to: (first - 1) as u32 });
                }
                known.next = first;
            }
            let Ok(seqnum) = u32::try_from(known.next) else { return };
            let here = self.held.range((actor, seqnum, [0; 32])..=(actor, seqnum, [255; 32]));
            let Some(key) =
                here.into_iter().find(|(_, held)| held.is_ready(&self.rules, self.head.mode)).map(|(key, _)| *key)
            else {
                return;
            };
            self.deliver(now_ms, &key);
        }
    }

    /// The first order of an actor, where none before it need be there: the next one at once, a later one when `f + 1`
    /// authorities have shown what they have of the actor, or have had the time to.
    fn first(&self, now_ms: u64, actor: u64, next: u64) -> Option<u64> {
        let from = u32::try_from(next).ok()?;
        let here = self.held.range((actor, from, [0; 32])..=(actor, u32::MAX, [255; 32]));
        let ready: Vec<_> = here.filter(|(_, held)| held.is_ready(&self.rules, self.head.mode)).collect();
        let (first, _) = ready.first()?;
        if first.1 == from {
            return Some(next);
        }
        let by: BTreeSet<usize> = ready.iter().flat_map(|(_, held)| held.by.iter().map(|(a, _)| *a)).collect();
        let since = ready.iter().map(|(_, held)| held.since_ms).min()?;
        let known = by.len() >= self.rules.validity || now_ms >= since + self.rules.grace_ms;
        known.then_some(u64::from(first.1))
    }

    fn deliver(&mut self, now_ms: u64, key: &(u64, u32, Hash)) {
        let Some(held) = self.held.remove(key) else { return };
        self.release(&held.by, self.head.mode == Mode::BySeqnum);
        let (actor, seqnum, id) = *key;
        match self.head.mode {
            Mode::ById => drop(self.done.insert(id, held.by.clone())),
            _ => {
                let rivals = self.held.range((actor, seqnum, [0; 32])..=(actor, seqnum, [255; 32]));
                for rival in rivals.map(|(key, _)| *key).collect::<Vec<_>>() {
                    let Some(rival) = self.held.remove(&rival) else { continue };
                    self.release(&rival.by, true);
                    for (authority, _) in rival.by {
                        self.events.push(Event::lie(authority, "shows another order than the certified one"));
                    }
                }
                let next = u64::from(seqnum) + 1;
                self.actors.insert(actor, Actor { next, epoch: self.head.epoch });
            }
        }
        let by = held.by.iter().fold(0, |bits, (a, _)| bits | 1_u128 << a);
        let agreeing = held.by.len();
        if self.head.mode == Mode::ById && agreeing == self.rules.authorities {
            let by = self.done.remove(&id).unwrap_or_default();
            self.complete(id, by);
        }
        self.emit(held.by[0].0, held.shown, agreeing, None);
        self.watch(now_ms, Key { network_id: self.head.network_id, actor, seqnum, order_id: id }, by);
    }

    /// Entries wait no more; `done`: they need not come again after a crash.
    fn release(&mut self, by: &[(usize, u64)], done: bool) {
        for (authority, position) in by {
            let stream = &mut self.streams[*authority];
            stream.held -= 1;
            if done {
                stream.open.remove(position);
            }
        }
    }

    pub(super) fn emit(&mut self, authority: usize, shown: Shown, agreeing: usize, position: Option<u64>) {
        let Shown { time_us, order, transaction, proof, .. } = shown;
        let mut changes = vec![self.head.done(order.actor, order.seqnum, &order.id, position)];
        self.moved(&mut changes);
        let proof = proof.unwrap_or(Proof::Agreed(agreeing));
        self.deliveries.push_back(Delivery { order, position, time_us, authority, transaction, proof, changes });
    }

    /// What there is to store beside deliveries.
    pub(crate) fn moved(&mut self, changes: &mut Vec<Change>) {
        if !self.head_saved {
            self.head_saved = true;
            changes.push(self.head.change());
        }
        if self.head.mode == Mode::Total {
            return;
        }
        // Before any position passes one of them.
        changes.extend(self.unsaved.drain(..).map(|id| Change::complete(&id)));
        for (authority, stream) in self.streams.iter_mut().enumerate() {
            let safe = stream.safe();
            if safe != stream.saved && safe > 1 {
                stream.saved = safe;
                changes.push(Change::position(authority, safe));
            }
        }
        while let Some((id, by)) = self.complete.front() {
            if by.iter().any(|(authority, position)| self.streams[*authority].saved <= *position) {
                break;
            }
            changes.push(Change::forget(id));
            self.complete.pop_front();
        }
    }

    /// Remembers a delivered order until all that are followed have shown it.
    fn watch(&mut self, now_ms: u64, key: Key, by: u128) {
        let id = key.order_id;
        if self.authorities(|s| s.followed) & !by == 0 {
            return;
        }
        self.lacking.insert(id, by);
        self.recent.push_back((now_ms, key));
        if self.recent.len() > RECENT_MAX
            && let Some((_, key)) = self.recent.pop_front()
        {
            self.lacking.remove(&key.order_id);
        }
    }

    fn authorities(&self, which: impl Fn(&Stream) -> bool) -> u128 {
        let which = self.streams.iter().enumerate().filter(|(_, s)| which(s));
        which.fold(0, |bits, (a, _)| bits | 1 << a)
    }

    /// A delivered order is shown by one more.
    fn shown_late(&mut self, authority: usize, id: &Hash) {
        if let Some(by) = self.lacking.get_mut(id) {
            *by |= 1 << authority;
        }
        if self.streams[authority].behind == Some(*id) {
            self.streams[authority].behind = None;
            self.events.push(Event::CaughtUp { authority });
        }
    }

    /// Time has passed. Whether others should be asked too: something waits for too long.
    pub(crate) fn tick(&mut self, now_ms: u64) -> bool {
        if self.head.mode == Mode::Total {
            return self.tick_total(now_ms);
        }
        while let Some((since, _)) = self.recent.front() {
            if since + self.rules.grace_ms > now_ms {
                break;
            }
            let Some((_, key)) = self.recent.pop_front() else { break };
            let Some(by) = self.lacking.remove(&key.order_id) else { continue };
            let late = self.authorities(|s| s.followed && s.connected) & !by;
            for authority in (0..self.rules.authorities).filter(|a| late >> a & 1 == 1) {
                self.fall_behind(authority, key);
            }
        }
        if self.head.mode == Mode::BySeqnum && self.head.epoch > 0 {
            let waiting: BTreeSet<u64> = self.held.keys().map(|(actor, ..)| *actor).collect();
            waiting.into_iter().for_each(|actor| self.settle(now_ms, actor));
        }
        self.held.values().any(|held| held.since_ms + self.rules.grace_ms <= now_ms)
    }

    pub(super) fn fall_behind(&mut self, authority: usize, key: Key) {
        let stream = &mut self.streams[authority];
        if stream.behind.is_none() {
            stream.behind = Some(key.order_id);
            self.events.push(Event::Behind { authority, key, level: stream.level });
        }
    }

    pub(super) fn catch_up(&mut self, authority: usize) {
        if self.streams[authority].behind.take().is_some() {
            self.events.push(Event::CaughtUp { authority });
        }
    }

    /// A delivery, if there is one.
    pub(crate) fn pop(&mut self) -> Option<Delivery> {
        self.deliveries.pop_front()
    }

    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}
