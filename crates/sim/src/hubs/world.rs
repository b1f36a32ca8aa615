//! Parties, the connections between them, the log, and time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use florin_core::channel::hub::{Effect, Event, Input, Reply};
use florin_core::channel::manager::{self, EndId, Outcome};
use florin_core::channel::virtuals;
use florin_core::error::{Code, Result};
use florin_core::merkle::Hash;
use florin_core::wire::hub_message::Kind;
use florin_core::wire::virtual_message::Kind as VirtualKind;
use florin_core::wire::{self, HubMessage, VirtualMessage, VirtualPeer};
use prost::Message as _;

use super::ledger::Ledger;
use super::node::{Deed, Manner, Node, Wish};
use super::virtual_world::SentSet;
use super::{Marks, Shell};
use crate::rng::Rng;

/// A diligent party looks this often, ms of log time.
pub const LOOK_MS: u64 = 8_000;
/// The log has what a diligent party sends within this time, ms.
pub const ORDER_MS: u64 = 20_000;
/// What is due so long before a time limit, ms: submit + margin of the manager.
pub const CLAIM_MS: u64 = 60_000;

/// A message between the two sides of a channel.
#[derive(Clone)]
pub enum Mail {
    /// Of hubs.
    Hub(Box<HubMessage>),
    /// Of virtual channels.
    Virtual(Box<VirtualMessage>),
}

/// The two sides of a channel, and what is on its way between them.
pub struct Link {
    /// Party by side.
    pub sides: [usize; 2],
    /// Whether they are connected.
    pub up: bool,
    /// Of the connection: each time another one.
    pub number: u64,
    /// Messages to each side, in their order.
    pub mail: [VecDeque<Mail>; 2],
}

/// All of one life.
pub struct World {
    /// Chance.
    pub rng: Rng,
    /// The log.
    pub ledger: Ledger,
    /// Parties; the first two are hubs.
    pub nodes: Vec<Node>,
    /// By channel.
    pub links: BTreeMap<Hash, Link>,
    /// Messages of connections that are gone, still on their way: channel, to side.
    pub stale: Vec<(Hash, u32, Mail)>,
    /// What liars have sent.
    pub sent_by_liars: Vec<(Hash, u32, Mail)>,
    /// What payers and payees of virtual channels say to each other: to whom.
    pub peers: Vec<(usize, VirtualPeer)>,
    /// Payer and payee of virtual channels.
    pub parties: BTreeMap<Hash, (usize, usize)>,
    /// What their payees have acknowledged, minor units.
    pub acked_to: BTreeMap<Hash, u64>,
    /// Sets that liars were sent.
    pub sent_sets: Vec<SentSet>,
    /// When parties were away: from, to, ms.
    pub absences: Vec<(usize, u64, u64)>,
    /// Kinds of messages that a liar does not send.
    pub muted: BTreeMap<usize, BTreeSet<u8>>,
    /// What hubs have offered liars: party, voucher.
    pub offers: Vec<(usize, wire::SignedVoucher)>,
    /// Locks that liars have given back: party, channel, lane, nonce.
    pub given_back: BTreeSet<(usize, Hash, u32, u64)>,
    /// Vouchers passed by hand: to a party's end.
    pub hand: Vec<(usize, EndId, wire::SignedVoucher)>,
    /// Permits to use: party, end, amount, permit.
    pub permits: Vec<(usize, EndId, u64, wire::SignedPermit)>,
    /// When something about a channel may be due.
    pub moments: BTreeSet<(u64, Hash)>,
    /// Secrets by their hashes.
    pub secrets: BTreeMap<Hash, Hash>,
    /// Money of all, at the beginning.
    pub money: i128,
    /// What is wrong with the shells.
    pub shell: Shell,
    /// What has happened.
    pub marks: Marks,
    /// Rules broken.
    pub violations: Vec<String>,
    /// Vouchers as the log has taken them: channel, payer, lane, then nonce and what is redeemed.
    pub redeemed: BTreeMap<(Hash, u32, u32), Vec<(u64, u64)>>,
    /// Up-front fees by key of the payment, minor units.
    pub upfront: BTreeMap<Vec<u8>, u64>,
    /// Lanes that pay by hand.
    pub streams: BTreeSet<(usize, EndId, u32)>,
    /// What each party had put into channels at the beginning, minor units.
    pub begun: Vec<i128>,
}

fn letter(kind: &Kind) -> u8 {
    match kind {
        Kind::Hello(_) => 0,
        Kind::Show(_) => 1,
        Kind::Shown(_) => 2,
        Kind::Offer(_) => 3,
        Kind::Held(_) => 4,
        Kind::Refused(_) => 5,
        Kind::Secret(_) => 6,
        Kind::Paid(_) => 7,
        Kind::PaidAck(_) => 8,
    }
}

/// Messages that a liar may keep to itself.
pub const MUTABLE: [u8; 12] = [4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 16, 17];

impl World {
    /// One in which nothing has happened.
    pub fn new(rng: Rng, ledger: Ledger, nodes: Vec<Node>, shell: Shell) -> World {
        World {
            rng,
            ledger,
            nodes,
            links: BTreeMap::new(),
            stale: Vec::new(),
            sent_by_liars: Vec::new(),
            peers: Vec::new(),
            parties: BTreeMap::new(),
            acked_to: BTreeMap::new(),
            sent_sets: Vec::new(),
            absences: Vec::new(),
            muted: BTreeMap::new(),
            offers: Vec::new(),
            given_back: BTreeSet::new(),
            hand: Vec::new(),
            permits: Vec::new(),
            moments: BTreeSet::new(),
            secrets: BTreeMap::new(),
            money: 0,
            shell,
            marks: Marks::new(),
            violations: Vec::new(),
            redeemed: BTreeMap::new(),
            upfront: BTreeMap::new(),
            streams: BTreeSet::new(),
            begun: Vec::new(),
        }
    }

    /// Log time, ms.
    pub fn time(&self) -> u64 {
        self.ledger.time_ms()
    }

    /// A rule is broken.
    pub fn violation(&mut self, what: impl Into<String>) {
        if self.violations.len() < 20 {
            let at = self.time() - super::ledger::START;
            self.violations.push(format!("{} (log time +{at} ms)", what.into()));
        }
    }

    /// Something rare has happened.
    pub fn mark(&mut self, what: &'static str) {
        *self.marks.entry(what).or_default() += 1;
    }

    /// A party takes an input. Whoever is down takes none.
    pub fn tell(&mut self, node: usize, input: Input, wish: Wish) -> Result<Reply> {
        if !self.nodes[node].is_up() {
            return Err(florin_core::Error::new(Code::HubOffline, "it is down"));
        }
        let (now, shell) = (self.time(), self.shell);
        let of = &mut self.nodes[node];
        of.known_ms = of.known_ms.max(now - self.rng.below(LOOK_MS).min(now - super::ledger::START));
        let ends = ends_of(&input);
        let (reply, twice) = of.handle(now, input, wish, shell);
        if let Some(what) = twice
            && self.nodes[node].is_honest()
        {
            self.violation(format!("party {node}: {what}"));
        }
        if reply.is_ok() {
            self.check_after(node, &ends);
        }
        reply
    }

    pub(super) fn check_after(&mut self, node: usize, ends: &[EndId]) {
        self.check_money(node, ends);
        self.check_bound(node, ends);
        let of = &self.nodes[node];
        if of.is_honest() && !of.restored {
            // Core's own word, beside the others; it panics.
            let now = of.now(self.time(), self.shell);
            of.hub.check(now, &of.manager);
            of.virtuals.check(now, &of.manager);
        }
    }

    /// For the manager of a party.
    pub fn channel(&mut self, node: usize, input: manager::Input, wish: Wish) -> Result<Reply> {
        self.tell(node, Input::Channel(Box::new(input)), wish)
    }

    /// Makes durable what a party has done, and hands out replies. Whether it was all the time there.
    pub fn sync(&mut self, node: usize) -> bool {
        let fell = self.nodes[node].sync();
        for mark in std::mem::take(&mut self.nodes[node].durable.marks) {
            self.mark(mark);
        }
        self.nodes[node].memory.marks.clear();
        for (wish, reply) in std::mem::take(&mut self.nodes[node].replies) {
            match (wish, reply) {
                (Wish::Voucher(end), Reply::Channel(manager::Reply::Issued { voucher: Some(voucher), .. })) => {
                    self.promised(node, &voucher);
                    let peer = self.nodes[node].ends.get(&end).copied().unwrap_or(node);
                    self.hand.push((peer, EndId { side: 1 - end.side, ..end }, voucher));
                }
                (Wish::Permit(end, amount), Reply::Channel(manager::Reply::Permitted(permit))) => {
                    let peer = self.nodes[node].ends.get(&end).copied().unwrap_or(node);
                    self.permits.push((peer, EndId { side: 1 - end.side, ..end }, amount, permit));
                }
                _ => {}
            }
        }
        if fell {
            self.mark("crash at a chosen entry");
            self.goes_down(node, self.time());
            self.start(node);
        }
        !fell
    }

    /// Carries out one effect of a party, after a sync.
    pub fn step(&mut self, node: usize) -> bool {
        if !self.nodes[node].is_up() {
            return false;
        }
        if self.shell != Shell::SendsBeforeDurable || self.nodes[node].effects.is_empty() {
            self.sync(node);
        }
        let Some(deed) = self.nodes[node].effects.pop_front() else { return false };
        let effect = match deed {
            Deed::Hub(effect) => effect,
            Deed::Virtual(effect) => {
                self.step_virtual(node, effect);
                return true;
            }
        };
        match effect {
            Effect::Channel(manager::Effect::Prepare { op, message }) => self.prepare(node, op, &message),
            Effect::Channel(manager::Effect::Broadcast { op, order }) => self.broadcast(node, op, &order),
            Effect::Channel(manager::Effect::Event(event)) => self.seen(node, &event),
            Effect::Send { end, connection, message } => self.send(node, end, connection, message),
            Effect::Event(event) => match event {
                Event::Forwarded { .. } => self.mark("forwarded and paid"),
                Event::Paid { .. } => self.mark("paid"),
                Event::NotPaid { .. } => self.mark("not paid"),
                Event::Stuck { .. } => self.mark("refused without giving back"),
                Event::InvoicePaid { .. } | Event::Diverged(_) => {}
            },
        }
        true
    }

    /// Carries out all that a party has to do.
    pub fn flush(&mut self, node: usize) {
        for _ in 0..400 {
            if !self.step(node) {
                return;
            }
        }
        self.violation(format!("party {node} never comes to rest"));
    }

    fn seen(&mut self, node: usize, event: &manager::Event) {
        match event {
            manager::Event::Diverged(_) => self.mark("restored backup seen in the log"),
            manager::Event::OpFailed { .. } => {
                self.mark("order of a channel failed");
                self.nodes[node].retry_until = self.time() + 600_000;
            }
            manager::Event::Redeemed { end, payer, secret, .. } if *payer == end.side && !secret.is_empty() => {
                self.mark("secret learned from the log");
            }
            manager::Event::ReservationFailed { .. } => self.mark("reservation failed"),
            manager::Event::ReservationActive { .. } => self.mark("reservation filled later"),
            _ => {}
        }
    }

    fn prepare(&mut self, node: usize, op: manager::OpId, message: &manager::Message) {
        let account = message.account;
        let cost = Ledger::cost(message);
        if cost > self.ledger.balance(&account) - self.nodes[node].spent(&self.ledger) {
            self.mark("deposit that the account can't pay");
            let outcome = Outcome::Failed { code: Code::InsufficientFunds as u32, message: "too little".into() };
            drop(self.channel(node, manager::Input::Outcome { op, outcome }, Wish::None));
            return;
        }
        let after = self.nodes[node].tip(self.ledger.tip(account.actor()));
        let (id, body, tip) = self.ledger.draft(message, after);
        self.nodes[node].advance(tip);
        self.nodes[node].costs.insert(id, cost.max(0));
        let input = manager::Input::Prepared { op, order_id: id, output: 0, order: body };
        if let Err(e) = self.channel(node, input, Wish::None) {
            self.violation(format!("party {node}: an order that was prepared is refused: {e}"));
        }
    }

    fn broadcast(&mut self, node: usize, op: manager::OpId, order: &Bytes) {
        let Ok(decoded) = florin_core::envelope::Order::decode_body(order.clone()) else {
            return self.violation(format!("party {node} sends what is no order"));
        };
        let due = self.within(ORDER_MS, 5_000);
        self.ledger.submit(order, due);
        self.nodes[node].waiting.insert(op, decoded.id);
        self.soon(node);
    }

    /// A time within a span from now, the same for many things: each costs the log a step.
    fn within(&mut self, span_ms: u64, step_ms: u64) -> u64 {
        (self.time() + self.rng.below(span_ms)).next_multiple_of(step_ms).min(self.time() + span_ms)
    }

    /// A diligent party looks soon.
    pub fn soon(&mut self, node: usize) {
        let due = self.within(LOOK_MS, 2_000);
        self.nodes[node].look_due = self.nodes[node].look_due.min(due);
    }

    fn send(&mut self, node: usize, end: EndId, connection: u64, message: Box<HubMessage>) {
        let Some(kind) = &message.kind else { return };
        if self.muted.get(&node).is_some_and(|muted| muted.contains(&letter(kind))) {
            return self.mark("message that a liar kept to itself");
        }
        self.check_said(node, end, kind);
        if let Kind::Offer(offer) = kind {
            self.offered(node, end, offer);
        }
        self.put(node, end, connection, Mail::Hub(message));
    }

    /// Puts a message on its way.
    pub(super) fn put(&mut self, node: usize, end: EndId, connection: u64, message: Mail) {
        let to = 1 - end.side;
        if self.nodes[node].manner == Manner::Liar {
            self.sent_by_liars.push((end.channel, to, message.clone()));
        }
        match self.links.get_mut(&end.channel) {
            Some(link) if link.up && link.number == connection => link.mail[to as usize].push_back(message),
            _ => self.mark("message sent into a broken connection"),
        }
    }

    fn offered(&mut self, node: usize, end: EndId, offer: &wire::HubOffer) {
        let Some(signed) = &offer.voucher else { return };
        let peer = self.nodes[node].ends.get(&end).copied().unwrap_or(node);
        if self.nodes[peer].manner == Manner::Liar {
            self.offers.push((peer, signed.clone()));
        }
        let Ok(terms) = wire::Voucher::decode(&signed.voucher[..]) else { return };
        self.lock_moments(end.channel, terms.not_after_ms);
    }

    /// When a lock has to be looked at.
    pub fn lock_moments(&mut self, channel: Hash, limit: u64) {
        let grace = self.nodes[0].config().policy.grace_ms;
        let look = self.rng.below(LOOK_MS - 2_000);
        for at in [limit.saturating_sub(CLAIM_MS + grace), limit.saturating_sub(CLAIM_MS), limit + 1] {
            if at > self.time() {
                self.moments.insert(((at + look).next_multiple_of(2_000), channel));
            }
        }
    }

    /// Delivers the oldest message to a side of a channel. Whether there was one.
    pub fn deliver(&mut self, channel: Hash, side: u32) -> bool {
        let Some(link) = self.links.get_mut(&channel) else { return false };
        let Some(message) = link.mail[side as usize].pop_front() else { return false };
        self.arrives(channel, side, message);
        true
    }

    /// A message arrives.
    pub fn arrives(&mut self, channel: Hash, side: u32, mail: Mail) {
        let node = self.links[&channel].sides[side as usize];
        let end = EndId { channel, side };
        let mut message = match mail {
            Mail::Hub(message) => message,
            Mail::Virtual(mut message) => {
                if let Some(VirtualKind::Hello(hello)) = &mut message.kind
                    && self.shell == Shell::BlindToHello
                {
                    hello.lanes.clear();
                }
                if let Err(e) = self.tell_virtual(node, virtuals::Input::Message { end, message }) {
                    self.refusal(e.code);
                }
                return;
            }
        };
        let hub = self.nodes[node].manner == Manner::Hub;
        match &mut message.kind {
            Some(Kind::Hello(hello)) if self.shell == Shell::BlindToHello => hello.lanes.clear(),
            Some(Kind::Secret(_)) if self.shell == Shell::DropsSecrets && hub => return,
            Some(Kind::Refused(refused)) => {
                let code = Code::from_number(refused.code).unwrap_or(Code::LockOver);
                self.refusal(code);
            }
            Some(Kind::Secret(_)) => self.mark("secret shown"),
            _ => {}
        }
        let input = Input::Message { end, message };
        if let Err(e) = self.tell(node, input, Wish::None) {
            self.refusal(e.code);
        }
    }

    pub(super) fn refusal(&mut self, code: Code) {
        *self.marks.entry(super::refusal_mark(code)).or_default() += 1;
    }

    /// Both sides connect, if both are there.
    pub fn connect(&mut self, channel: Hash) {
        self.disconnect(channel, true);
        let Some(link) = self.links.get_mut(&channel) else { return };
        let sides = link.sides;
        if sides.iter().any(|node| !self.nodes[*node].is_up()) {
            return;
        }
        link.up = true;
        link.number += 1;
        let number = link.number;
        for side in [0, 1] {
            drop(self.tell(sides[side as usize], Input::Connected(EndId { channel, side }, number), Wish::None));
        }
    }

    /// The connection breaks. What is on its way is lost, or comes later.
    pub fn disconnect(&mut self, channel: Hash, told: bool) {
        let Some(link) = self.links.get_mut(&channel) else { return };
        let was_up = std::mem::replace(&mut link.up, false);
        let sides = link.sides;
        let mail = std::mem::take(&mut link.mail);
        for (side, mail) in (0..).zip(mail) {
            for message in mail {
                if self.rng.chance(300) && self.stale.len() < 64 {
                    self.stale.push((channel, side, message));
                } else {
                    self.mark("message lost");
                }
            }
        }
        for side in [0, 1] {
            if was_up && told {
                drop(self.tell(sides[side as usize], Input::Disconnected(EndId { channel, side }), Wish::None));
            }
        }
    }

    /// A party looks at the log: records, outcomes, time.
    pub fn look(&mut self, node: usize) {
        if !self.nodes[node].is_up() {
            return;
        }
        let now = self.time();
        self.nodes[node].look_due = u64::MAX;
        self.nodes[node].known_ms = now;
        let done: Vec<(manager::OpId, Hash)> = self.nodes[node]
            .waiting
            .iter()
            .map(|(op, id)| (*op, *id))
            .filter(|(_, id)| self.ledger.decided(id).is_some())
            .collect();
        for (op, id) in done {
            self.nodes[node].waiting.remove(&op);
            self.nodes[node].costs.remove(&id);
            let Some(decided) = self.ledger.decided(&id).cloned() else { continue };
            let end = self.nodes[node].manager.operation(op).ok().and_then(|op| op.end);
            let outcome = match (decided, end.and_then(|end| self.record_for(node, &end.channel))) {
                (Some((code, message)), _) => Outcome::Failed { code, message },
                (None, Some(record)) => Outcome::Confirmed { record, time_ms: now },
                (None, None) => {
                    self.violation(format!("party {node}: an order was confirmed for no channel"));
                    continue;
                }
            };
            if let Err(e) = self.channel(node, manager::Input::Outcome { op, outcome }, Wish::None) {
                self.violation(format!("party {node}: an outcome is refused: {e}"));
            }
        }
        let ends: Vec<EndId> = self.nodes[node].ends.keys().copied().collect();
        for end in ends {
            self.look_at(node, end, now);
        }
        drop(self.channel(node, manager::Input::Tick, Wish::None));
        self.flush(node);
        let busy = !self.nodes[node].waiting.is_empty() || self.nodes[node].retry_until > now;
        if busy && self.nodes[node].is_diligent() {
            self.nodes[node].look_due = now + LOOK_MS;
        }
    }

    fn look_at(&mut self, node: usize, end: EndId, now: u64) {
        let Some(revision) = self.ledger.record(&end.channel).map(|record| record.revision) else { return };
        let of = &mut self.nodes[node];
        let same = of.looked.insert(end.channel, revision) == Some(revision);
        if same && !of.manager.status(&end).is_ok_and(|s| s.locked + s.locked_in > 0) {
            return;
        }
        let Some(record) = self.record_for(node, &end.channel) else { return };
        let seen = manager::Input::Seen { channel: end.channel, record, time_ms: now };
        if let Err(e) = self.channel(node, seen, Wish::None) {
            self.violation(format!("party {node}: a record of the log is refused: {e}"));
        }
    }

    fn record_for(&self, node: usize, channel: &Hash) -> Option<Box<wire::ChannelRecord>> {
        let mut record = Box::new(self.ledger.record(channel)?.clone());
        if self.shell == Shell::DropsSecrets && self.nodes[node].manner == Manner::Hub {
            record.lanes.iter_mut().for_each(|lane| lane.secret = Bytes::new());
        }
        Some(record)
    }
}

/// Ends that an input is about.
fn ends_of(input: &Input) -> Vec<EndId> {
    match input {
        Input::Message { end, .. } | Input::Connected(end, _) | Input::Disconnected(end) => vec![*end],
        Input::Pay(pay) => vec![pay.route.end],
        Input::Channel(input) => match &**input {
            manager::Input::Seen { channel, .. } => [0, 1].map(|side| EndId { channel: *channel, side }).to_vec(),
            manager::Input::VoucherCreate(issue) => vec![issue.end],
            manager::Input::VoucherAdd(incoming) => vec![incoming.end],
            manager::Input::Reserve(reserve) => vec![reserve.end],
            manager::Input::Release { end, .. }
            | manager::Input::Settle(end)
            | manager::Input::Leave { end, .. }
            | manager::Input::Withdraw { end, .. } => vec![*end],
            _ => Vec::new(),
        },
        Input::Ask(_) => Vec::new(),
    }
}
