//! What has to hold, derived again from journals, messages and the log; no code that is checked is asked, but for what it says it has.
//!
//! - *Money*: of all accounts and channels it is the same for ever. Every end: confirmed + received = available + reserved + committed +
//!   locked, with each term that vouchers decide counted from the journal.
//! - *Said is durable*: whatever a message promises is in the journal before it leaves, and after every restart.
//! - *A hub's locks are covered*: by an incoming lock of the same secret, enough money, and the margin that is documented; it is given
//!   back only when the way on is over, and paid on only when its own claim is sure.
//! - *The log*: a lock is redeemed with its secret and in its time; only vouchers that their signer has let out are redeemed.
//! - *Deposits* are those that were asked for.
//! - *In the end* every party that looked after its money has what its vouchers and secrets give it, in each channel and in all.

use std::collections::{BTreeMap, BTreeSet};

use florin_core::channel::hub::PaymentState;
use florin_core::channel::manager::{EndId, EndState};
use florin_core::channel::voucher::Voucher;
use florin_core::merkle::Hash;
use florin_core::wire::hub_message::Kind;
use florin_core::wire::{self, ChannelRecord, ChannelSide, SignedVoucher, hub_entry, hub_record};
use sha2::{Digest, Sha256};

use super::facts::{Facts, Key, Money, Paper, id, is_plain, key_of};
use super::node::{Manner, Node};
use super::virtual_checks::claimed;
use super::world::{CLAIM_MS, World};

/// What an incoming lock of a hub lives longer, by its documentation: grace + submit + margin.
pub const MARGIN_MS: u64 = florin_core::limits::HUB_GRACE_MS + CLAIM_MS;

fn side(record: &ChannelRecord, of: u32) -> ChannelSide {
    if of == 0 { &record.opener } else { &record.other }.clone().unwrap_or_default()
}

impl World {
    /// The money of ends, counted anew. A collected channel has none.
    pub fn check_money(&mut self, node: usize, ends: &[EndId]) {
        let mut found = None;
        for end in ends {
            let of = &self.nodes[node];
            let Ok(status) = of.manager.status(end) else { continue };
            if !of.is_honest() || status.diverged || of.restored || status.state == EndState::Collected {
                continue;
            }
            let told = Money {
                confirmed: status.confirmed.into(),
                received: status.received.into(),
                committed: status.committed.into(),
                locked: status.locked.into(),
            };
            let left = i128::from(status.available) + i128::from(status.reserved) + told.committed + told.locked;
            let put = told.confirmed + told.received;
            let told = told.less(&of.virtual_money(*end));
            let own = of.memory.money(*end);
            if own != told {
                found = Some(format!("party {node}: the journal says {own:?}, the manager {told:?}"));
            } else if put != left {
                found = Some(format!("party {node}: confirmed + received is not the sum of its parts: {status:?}"));
            }
        }
        found.into_iter().for_each(|what| self.violation(what));
    }

    /// A hub that has its journal.
    fn is_hub(&self, node: usize) -> bool {
        self.nodes[node].manner == Manner::Hub && !self.nodes[node].restored
    }

    /// A voucher leaves a party.
    pub fn promised(&mut self, node: usize, signed: &SignedVoucher) {
        let Ok(voucher) = Voucher::decode(signed) else { return };
        let key = key_of(&voucher);
        let of = &mut self.nodes[node];
        let durable = of.durable.signed.contains_key(&key) || of.durable.held.contains_key(&key);
        of.said.insert(key);
        let (honest, own) = (of.is_honest(), of.durable.signed.contains_key(&key));
        if honest && !durable {
            self.violation(format!("party {node}: voucher {key:?} leaves before it is durable"));
        }
        let end = EndId { channel: key.0, side: key.4 };
        if honest
            && own
            && let Some(peer) = self.nodes[node].ends.get(&end)
            && let Some(old) = self.nodes[*peer].durable.held.get(&key).cloned()
            && old.terms != voucher.terms
        {
            let (channel, lane, nonce) = (hex::encode(&key.0[..4]), key.2, key.3);
            let sets = (voucher.terms.virtuals.is_some(), old.terms.virtuals.is_some());
            let restored = self.nodes[node].restored;
            self.violation(format!(
                "party {node}: the other side holds another voucher: {channel}, lane {lane}, nonce {nonce}; new and old with a set: {sets:?}; restored: {restored}"
            ));
        }
    }

    pub fn acknowledged(&mut self, node: usize, end: EndId, lock: &wire::HubLane) {
        let (channel, of) = (end.channel, &mut self.nodes[node]);
        let key = (channel, lock.payer, lock.lane, lock.nonce, lock.payer);
        if of.durable.held.contains_key(&key) {
            of.said.insert(key);
        } else if of.is_honest() && !of.restored {
            self.violation(format!("party {node}: acknowledges voucher {key:?}, which is not durable"));
        }
    }

    /// A message leaves a party.
    pub fn check_said(&mut self, node: usize, end: EndId, kind: &Kind) {
        match kind {
            Kind::Offer(offer) => {
                offer.voucher.iter().chain(&offer.fee).for_each(|voucher| self.promised(node, voucher));
                if self.is_hub(node) {
                    self.check_cover(node, end, offer);
                }
            }
            Kind::Paid(voucher) => {
                self.promised(node, voucher);
                if self.is_hub(node) {
                    self.check_paid(node, end, voucher);
                }
            }
            Kind::Shown(voucher) => self.promised(node, voucher),
            Kind::Held(lock) | Kind::PaidAck(lock) => self.acknowledged(node, end, lock),
            Kind::Secret(shown) => {
                let (hash, lock) = (Sha256::digest(&shown.secret).into(), shown.lock.unwrap_or_default());
                let known = self.nodes[node].durable.secrets.contains_key(&(end, lock.lane, hash));
                if self.nodes[node].is_honest() && !known {
                    self.violation(format!("party {node}: shows a secret that is not durable"));
                }
            }
            Kind::Refused(refused) => {
                if let Some(voucher) = &refused.voucher {
                    self.promised(node, voucher);
                    if self.is_hub(node) {
                        self.check_given_back(node, end, refused.lock.unwrap_or_default());
                    }
                }
            }
            Kind::Hello(_) | Kind::Show(_) => {}
        }
    }

    /// An own lock of a hub is one of its payments, or passes on what it holds.
    fn check_cover(&mut self, node: usize, end: EndId, offer: &wire::HubOffer) {
        let Some(out) = offer.voucher.as_ref().and_then(|signed| Voucher::decode(signed).ok()) else { return };
        let of = &self.nodes[node].durable;
        let own = of.payments.iter().filter_map(|payment| payment.lock.as_ref());
        if own.into_iter().any(|lock| is_lock(lock, end, out.terms.lane, out.terms.nonce)) {
            return;
        }
        let found = of
            .forwards
            .iter()
            .find(|f| f.outgoing.as_ref().is_some_and(|lock| is_lock(lock, end, out.terms.lane, out.terms.nonce)));
        let what = match found.and_then(|forward| forward.incoming.as_ref()) {
            None => Some("passes on a lock without a link".to_owned()),
            Some(lock) => not_covered(of, lock, &out.terms),
        };
        if let Some(what) = what {
            self.violation(format!("hub {node}: {what}"));
        }
    }

    /// A hub pays on for good: its own claim has to be sure.
    fn check_paid(&mut self, node: usize, end: EndId, signed: &SignedVoucher) {
        let Ok(voucher) = Voucher::decode(signed) else { return };
        let terms = &voucher.terms;
        if !is_plain(terms) {
            return self.violation(format!("hub {node}: says a lock as a payment"));
        }
        let of = &self.nodes[node].durable;
        let found = of.forwards.iter().find(|f| {
            f.outgoing.as_ref().is_some_and(|lock| is_lock(lock, end, terms.lane, terms.nonce.saturating_sub(1)))
        });
        let Some(incoming) = found.and_then(|forward| forward.incoming.as_ref()) else { return };
        let Some(at) = lock_end(incoming) else { return };
        if !of.secrets.contains_key(&(at.0, at.1, id(&incoming.secret_hash))) {
            self.violation(format!("hub {node}: pays on before it knows that it is paid"));
        }
    }

    /// A hub gives back what it has passed on: the way on has to be over.
    fn check_given_back(&mut self, node: usize, end: EndId, lock: wire::HubLane) {
        let now = self.time();
        let of = &self.nodes[node].durable;
        let found = of
            .forwards
            .iter()
            .rfind(|f| f.incoming.as_ref().is_some_and(|incoming| is_lock(incoming, end, lock.lane, lock.nonce)));
        let Some(out) = found.and_then(|forward| forward.outgoing.as_ref()) else { return };
        let Some((to, lane)) = lock_end(out) else { return };
        let cancelled =
            Facts::lane(&of.held, to.channel, to.side, lane).any(|(key, _)| key.3 > out.nonce && key.4 != to.side);
        let redeemed = self.redeemed.get(&(to.channel, to.side, lane)).into_iter().flatten();
        let redeemed = redeemed.into_iter().any(|(nonce, _)| *nonce == out.nonce);
        if !cancelled && (now <= out.not_after_ms || redeemed) {
            self.violation(format!("hub {node}: gives back a lock whose way on is not over"));
        }
    }

    /// What the log has changed.
    pub fn check_log(&mut self, changed: &std::collections::BTreeSet<Hash>) {
        if self.ledger.money() != self.money {
            self.violation(format!("there was {} and is {}", self.money, self.ledger.money()));
        }
        let now = self.time();
        for channel in changed {
            let lanes = self.ledger.record(channel).map(|record| record.lanes.clone()).unwrap_or_default();
            for lane in lanes {
                let place = (*channel, lane.payer, lane.lane);
                let all = self.redeemed.entry(place).or_default();
                if all.last() == Some(&(lane.nonce, lane.redeemed)) {
                    continue;
                }
                all.push((lane.nonce, lane.redeemed));
                self.check_claims(&lane);
                self.check_redeemed(place, &lane, now);
            }
        }
    }

    fn check_redeemed(&mut self, place: (Hash, u32, u32), lane: &wire::ChannelLane, now: u64) {
        let Some(link) = self.links.get(&place.0) else { return };
        let sides = link.sides;
        let mut papers = [0, 1].into_iter().filter_map(|signer| {
            let key: Key = (place.0, place.1, place.2, lane.nonce, signer);
            let of: &Node = &self.nodes[sides[signer as usize]];
            if of.is_honest() && !of.restored {
                return of.durable.signed.get(&key).map(|paper| (of.said.contains(&key), paper.terms.clone()));
            }
            self.nodes[sides[1 - signer as usize]].durable.held.get(&key).map(|paper| (true, paper.terms.clone()))
        });
        let more: u64 = claimed(lane).iter().map(|(_, amount)| amount).sum();
        let Some((said, terms)) = papers.find(|(_, terms)| terms.amount + more == lane.redeemed) else {
            let honest = sides.iter().all(|node| self.nodes[*node].is_honest() && !self.nodes[*node].restored);
            if honest {
                self.violation(format!("the log has redeemed what nobody has signed: {place:?}, {lane:?}"));
            }
            return;
        };
        let late = terms.not_after_ms != 0 && now > terms.not_after_ms;
        let hash: Hash = Sha256::digest(&lane.secret).into();
        let wrong = !terms.secret_hash.is_empty() && terms.secret_hash != hash[..];
        if !said || late || wrong {
            self.violation(format!("the log has redeemed {terms:?}: said {said}, late {late}, wrong {wrong}"));
        }
        if terms.not_after_ms != 0 {
            self.mark("lock claimed in the log");
            if now + CLAIM_MS / 2 >= terms.not_after_ms {
                self.mark("secret shown late in the log");
            }
            if now == terms.not_after_ms {
                self.mark("lock claimed in its last millisecond");
            }
        }
    }
}

fn is_lock(lock: &wire::HubLock, end: EndId, lane: u32, nonce: u64) -> bool {
    let id = lock.id.clone().unwrap_or_default();
    id.channel == end.channel[..] && (id.side, id.lane, lock.nonce) == (end.side, lane, nonce)
}

fn lock_end(lock: &wire::HubLock) -> Option<(EndId, u32)> {
    let of = lock.id.as_ref()?;
    Some((EndId { channel: id(&of.channel), side: of.side }, of.lane))
}

/// Why a held lock does not cover one that is passed on.
fn not_covered(of: &Facts, incoming: &wire::HubLock, out: &wire::Voucher) -> Option<String> {
    let (end, lane) = lock_end(incoming)?;
    let payer = 1 - end.side;
    let Some(held) = of.held.get(&(end.channel, payer, lane, incoming.nonce, payer)) else {
        return Some("passes on a lock that it does not hold".into());
    };
    let amounts = Facts::lane(&of.held, end.channel, payer, lane)
        .filter(|(key, paper)| key.3 < incoming.nonce && is_plain(&paper.terms));
    let before = amounts.map(|(_, paper)| paper.terms.amount).max().unwrap_or(0);
    let out_before = Facts::lane(&of.signed, id(&out.channel), out.payer, out.lane)
        .filter(|(key, paper)| key.3 < out.nonce && is_plain(&paper.terms));
    let out_before = out_before.map(|(_, paper)| paper.terms.amount).max().unwrap_or(0);
    let (gets, gives) = (held.terms.amount - before.min(held.terms.amount), out.amount - out_before.min(out.amount));
    if held.terms.secret_hash != out.secret_hash {
        return Some("passes on a lock with another secret".into());
    }
    // What the log has redeemed of the lanes makes both smaller by what was not said in vouchers, never a lock's part.
    if incoming.amount > gets || gets < gives.min(incoming.amount) {
        return Some(format!("passes on {gives} for {gets}"));
    }
    if held.terms.not_after_ms < out.not_after_ms.saturating_add(MARGIN_MS) {
        let less = held.terms.not_after_ms as i128 - i128::from(out.not_after_ms);
        return Some(format!("passes on a lock with {less} ms left instead of {MARGIN_MS}"));
    }
    None
}

/// What parties put in outside of channels and in them, at the beginning.
pub type Starts = Vec<i128>;

impl World {
    /// What a party has in all, by the log as it would pay out now.
    pub fn wealth(&self, node: usize) -> i128 {
        let of = &self.nodes[node];
        let in_channels = of
            .ends
            .keys()
            .map(|end| self.ledger.record(&end.channel).map_or(0, |record| shares(record)[end.side as usize]));
        self.ledger.balance(&of.account) + in_channels.sum::<i128>()
    }

    /// Everything is over.
    pub fn check_end(&mut self, starts: &Starts) {
        for (node, start) in starts.iter().enumerate() {
            let of = &self.nodes[node];
            if !of.is_diligent() || of.restored {
                continue;
            }
            let ends: Vec<EndId> = of.ends.keys().copied().collect();
            ends.into_iter().for_each(|end| self.check_share(node, end));
            self.check_total(node, *start);
            if self.nodes[node].hub.in_flight() != (0, 0) {
                let left = self.nodes[node].hub.in_flight();
                self.violation(format!("party {node}: locks are left in the end: {left:?}"));
            }
            self.check_asked(node);
            self.check_virtual_end(node);
        }
    }

    /// Long after all is over nobody who looks has anything of payments, nor may it have forgotten any before.
    pub fn check_forgotten(&mut self) {
        for node in 0..self.nodes.len() {
            let of = &self.nodes[node];
            if !of.is_diligent() || of.restored {
                continue;
            }
            let group = of.hub.snapshot(&of.manager);
            let states = group.entries.iter().filter_map(|entry| match entry.kind.as_ref()? {
                hub_entry::Kind::Hub(record) => record.kind.as_ref(),
                _ => None,
            });
            let left = states.map(|state| match state {
                hub_record::Kind::State(state) => (state.payments.len(), state.invoices.len(), state.own_locks.len()),
                _ => (0, 0, 0),
            });
            if let Some(left) = left.filter(|left| *left != (0, 0, 0)).last() {
                self.violation(format!("party {node}: payments, invoices and locks are left for ever: {left:?}"));
            }
        }
    }

    /// A side of a channel has what its vouchers give it.
    fn check_share(&mut self, node: usize, end: EndId) {
        let Some(record) = self.ledger.record(&end.channel) else { return };
        if !record.collected {
            return;
        }
        let own = side(record, end.side);
        let of = &self.nodes[node];
        let owes = self.owes(of, end);
        let gets = self.gets(of, end);
        let due = i128::from(own.deposited) - owes + gets;
        if i128::from(own.withdrawn) < due {
            let what = format!(
                "party {node} put {} into {}, owes {owes}, is owed {gets}, and got {}",
                own.deposited,
                hex::encode(&end.channel[..4]),
                own.withdrawn
            );
            self.violation(what);
        }
    }

    /// The most that a side's own vouchers can cost it.
    fn owes(&self, of: &Node, end: EndId) -> i128 {
        let mut lanes: BTreeMap<u32, u64> = BTreeMap::new();
        for (key, paper) in Facts::of(&of.durable.signed, end.channel) {
            let (channel, payer, lane, nonce, signer) = *key;
            if payer != end.side || signer != end.side || !of.said.contains(key) {
                continue;
            }
            if of.durable.sets.has(end, payer, lane) {
                let last = self.redeemed.get(&(channel, payer, lane)).and_then(|all| all.last());
                let most = lanes.entry(lane).or_default();
                *most = (*most).max(paper.terms.amount).max(last.map_or(0, |(_, amount)| *amount));
                continue;
            }
            let amount = paper.terms.amount;
            let redeemed =
                || self.redeemed.get(&(channel, payer, lane)).is_some_and(|all| all.contains(&(nonce, amount)));
            let cancelled = || {
                Facts::lane(&of.durable.held, channel, payer, lane)
                    .any(|(cancel, paper)| cancel.3 > nonce && cancel.4 != end.side && paper.terms.amount < amount)
            };
            if is_plain(&paper.terms) || redeemed() && !cancelled() {
                let most = lanes.entry(lane).or_default();
                *most = (*most).max(amount);
            }
        }
        lanes.values().map(|amount| i128::from(*amount)).sum()
    }

    /// The least that vouchers of the other side are worth.
    fn gets(&self, of: &Node, end: EndId) -> i128 {
        let mut lanes: BTreeMap<u32, u64> = BTreeMap::new();
        for (key, paper) in Facts::of(&of.durable.held, end.channel) {
            let (_, payer, lane, _, signer) = *key;
            if payer == end.side || signer != payer {
                continue;
            }
            let terms = &paper.terms;
            // In time even if it is away for its grace from then on.
            let known = || {
                let at = of.durable.secrets.get(&(end, lane, id(&terms.secret_hash))).copied();
                at.is_some_and(|at| at.max(paper.at_ms) + MARGIN_MS <= terms.not_after_ms)
            };
            let given_back = Facts::lane(&of.durable.signed, end.channel, payer, lane)
                .any(|(cancel, _)| cancel.3 > key.3 && cancel.4 == end.side);
            if !is_plain(terms) && given_back {
                continue;
            }
            if is_plain(terms) || known() {
                let most = lanes.entry(lane).or_default();
                *most = (*most).max(terms.amount);
            }
        }
        lanes.values().map(|amount| i128::from(*amount)).sum()
    }

    /// A party has lost nothing but what it paid for itself, and has all that it was told, and its fees.
    fn check_total(&mut self, node: usize, start: i128) {
        let of = &self.nodes[node];
        let (mut cost, mut fees, mut paid) = (0, 0, BTreeSet::new());
        for payment in &of.durable.payments {
            let Some(lock) = &payment.lock else { continue };
            let receipt = of.durable.receipts.get(&payment.payment);
            if let Some(secret) = receipt {
                let hash: Hash = Sha256::digest(secret).into();
                cost += i128::from(lock.amount);
                if hash[..] != lock.secret_hash[..] || !paid.insert(hash) {
                    return self.violation(format!("party {node}: a receipt is none, or pays an invoice twice"));
                }
            }
            let told = match of.hub.payment(payment.payment) {
                Ok(PaymentState::Paid(secret)) => Some(&secret[..]),
                Ok(_) => None,
                Err(_) if of.durable.forgotten.0.contains(&payment.payment) => continue,
                Err(e) => return self.violation(format!("party {node}: {e}")),
            };
            if told != receipt.map(|secret| &secret[..]) {
                return self
                    .violation(format!("party {node}: payment {} is not what it is said to be", payment.payment));
            }
        }
        let handed = self.handed(node);
        for forward in &of.durable.forwards {
            let (Some(incoming), Some(out)) = (&forward.incoming, &forward.outgoing) else { continue };
            if self.was_paid(of, out) {
                fees += i128::from(incoming.amount) - i128::from(out.amount);
            }
        }
        let upfront = of.durable.payments.iter().filter_map(|payment| self.upfront.get(&payment.key[..]));
        let upfront: i128 = upfront.map(|amount| i128::from(*amount)).sum();
        let by_virtuals = self.virtual_due(node);
        let due = start + i128::from(of.told) + fees - cost - upfront - handed + by_virtuals;
        let has = self.wealth(node);
        if has < due {
            let told = of.told;
            let (manner, paid) = (of.manner, cost + upfront + handed);
            let what = format!(
                "it began with {start}, was told {told}, earned {fees}, paid {paid}, and by virtual channels {by_virtuals}"
            );
            self.violation(format!("party {node} ({manner:?}) has {has} and not {due}: {what}"));
        }
    }

    /// What a party has let out of its hands by vouchers that were passed by hand.
    fn handed(&self, node: usize) -> i128 {
        let of = &self.nodes[node];
        let lanes = self.streams.iter().filter(|(by, ..)| *by == node).map(|(_, end, lane)| {
            let all = Facts::lane(&of.durable.signed, end.channel, end.side, *lane);
            all.filter(|(key, paper)| of.said.contains(key) && is_plain(&paper.terms))
                .map(|(_, paper)| paper.terms.amount)
                .max()
        });
        lanes.flatten().map(i128::from).sum()
    }

    /// What a party has put into channels, by the log.
    pub fn deposited(&self, node: usize) -> i128 {
        let of = self.nodes[node]
            .ends
            .keys()
            .filter_map(|end| Some(side(self.ledger.record(&end.channel)?, end.side).deposited));
        of.map(i128::from).sum()
    }

    /// Whether an own lock has cost its money.
    fn was_paid(&self, of: &Node, lock: &wire::HubLock) -> bool {
        let Some((end, lane)) = lock_end(lock) else { return false };
        let all = lock.paid_before + lock.amount;
        let after = |papers: &BTreeMap<Key, Paper>, own: bool| {
            Facts::lane(papers, end.channel, end.side, lane).any(|(key, paper)| {
                let place = key.3 == lock.nonce + 1 && (key.4 == end.side) == own && is_plain(&paper.terms);
                place && (paper.terms.amount >= all) == own && (!own || of.said.contains(key))
            })
        };
        let (said, cancelled) = (after(&of.durable.signed, true), after(&of.durable.held, false));
        let redeemed = self.redeemed.get(&(end.channel, end.side, lane)).into_iter().flatten();
        !cancelled && (said || redeemed.into_iter().any(|(nonce, _)| *nonce == lock.nonce))
    }

    /// Deposits are those that were asked for, once each.
    fn check_asked(&mut self, node: usize) {
        let of = &self.nodes[node];
        let deposited = self.deposited(node);
        let asked: i128 = of.durable.asked.values().map(|amount| i128::from(*amount)).sum();
        let begun = self.begun.get(node).copied().unwrap_or(0);
        if deposited > begun + asked {
            self.violation(format!(
                "party {node}: {deposited} was put in, {begun} at first, and {asked} was asked for"
            ));
        }
        let of = &self.nodes[node];
        let mut reserved = None;
        for end in of.ends.keys() {
            let Ok(status) = of.manager.status(end) else { continue };
            let leaving = self.ledger.record(&end.channel).map_or(0, |record| side(record, end.side).leaving);
            let leaving = if status.state == EndState::Collected { 0 } else { leaving };
            if status.reserved > leaving {
                reserved =
                    Some(format!("party {node}: {} is reserved in the end, for nothing", status.reserved - leaving));
            }
        }
        reserved.into_iter().for_each(|what| self.violation(what));
    }
}

/// What each side would be paid out, by the counters of a record.
fn shares(record: &ChannelRecord) -> [i128; 2] {
    let sides = [side(record, 0), side(record, 1)];
    let left = |s: &ChannelSide| i128::from(s.deposited) - i128::from(s.withdrawn);
    let held = left(&sides[0]) + left(&sides[1]);
    let other = left(&sides[1]) - i128::from(sides[1].sent) + i128::from(sides[0].sent);
    let other = if record.collected { 0 } else { other.clamp(0, held.max(0)) };
    [if record.collected { 0 } else { held - other }, other]
}
