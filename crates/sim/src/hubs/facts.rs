//! What a journal says, read without the code that wrote it: vouchers signed and held, secrets, links, requests; and what follows
//! from it for the money of an end.

use std::collections::{BTreeMap, BTreeSet};

use florin_core::channel::manager::EndId;
use florin_core::channel::voucher::Voucher;
use florin_core::merkle::Hash;
use florin_core::wire::{self, ChannelRecord, hub_entry, hub_record, manager_intent, manager_record};
use sha2::{Digest, Sha256};

use super::sets::Sets;

/// A voucher's place: channel, payer, lane, nonce, and the side that signed.
pub type Key = (Hash, u32, u32, u64, u32);

/// Place of a voucher.
pub fn key_of(voucher: &Voucher) -> Key {
    let t = &voucher.terms;
    (id(&t.channel), t.payer, t.lane, t.nonce, voucher.signer)
}

/// An id, or zeros.
pub fn id(bytes: &[u8]) -> Hash {
    Hash::try_from(bytes).unwrap_or_default()
}

/// Money at once and for ever.
pub fn is_plain(t: &wire::Voucher) -> bool {
    t.secret_hash.is_empty() && t.not_before_ms == 0 && t.not_after_ms == 0
}

/// A voucher of a journal.
#[derive(Clone, Debug)]
pub struct Paper {
    /// What it says.
    pub terms: wire::Voucher,
    /// Log time at which it came into the journal, ms.
    pub at_ms: u64,
}

/// All that a journal says.
#[derive(Clone, Default)]
pub struct Facts {
    /// Vouchers of the own side.
    pub signed: BTreeMap<Key, Paper>,
    /// Vouchers of the other sides.
    pub held: BTreeMap<Key, Paper>,
    /// Hashes of secrets that are known for locks, by the log time from which they are, ms.
    pub secrets: BTreeMap<(EndId, u32, Hash), u64>,
    /// Locks that were passed on.
    pub forwards: Vec<wire::HubForward>,
    /// Hashes of own invoices.
    pub invoices: BTreeSet<Hash>,
    /// Own payments.
    pub payments: Vec<wire::HubPayment>,
    /// Those that were paid: the secret, by number.
    pub receipts: BTreeMap<u64, Vec<u8>>,
    /// The payment whose lock was the last one on a lane, if it was one's.
    own: BTreeMap<(EndId, u32), u64>,
    /// Payments and invoices that were forgotten again.
    pub forgotten: (BTreeSet<u64>, BTreeSet<Hash>),
    /// Money that was asked into the log, by key of the request.
    pub asked: BTreeMap<Vec<u8>, u64>,
    /// The newest record of each channel, and the log time that counts for it.
    pub seen: BTreeMap<Hash, (ChannelRecord, u64)>,
    /// Ends whose other side holds vouchers that the journal does not.
    pub diverged: BTreeSet<EndId>,
    /// Of virtual channels.
    pub sets: Sets,
    /// Rare records.
    pub marks: Vec<&'static str>,
}

impl Facts {
    /// Adds what a group says. What is signed twice, with different words, is returned.
    pub fn learn(&mut self, group: &wire::HubGroup, now_ms: u64) -> Option<String> {
        let mut twice = None;
        for entry in &group.entries {
            match &entry.kind {
                Some(hub_entry::Kind::Channel(record)) => twice = self.channel(record, now_ms).or(twice),
                Some(hub_entry::Kind::Hub(record)) => self.hub(record),
                Some(hub_entry::Kind::Virtual(record)) => self.sets.learn(record, &mut self.marks),
                None => {}
            }
        }
        twice
    }

    fn channel(&mut self, record: &wire::ManagerRecord, now_ms: u64) -> Option<String> {
        use manager_record::Kind;
        match record.kind.as_ref()? {
            Kind::Issued(signed) => {
                let voucher = Voucher::decode(signed).ok()?;
                let (key, paper) = (key_of(&voucher), Paper { terms: voucher.terms, at_ms: now_ms });
                if let Some(old) = self.signed.insert(key, paper.clone())
                    && old.terms != paper.terms
                {
                    return Some(format!("signed twice: {:?} and {:?}", old.terms, paper.terms));
                }
            }
            Kind::Received(received) => {
                let voucher = Voucher::decode(received.voucher.as_ref()?).ok()?;
                let end = EndId { channel: id(&voucher.terms.channel), side: 1 - voucher.signer };
                self.secret(end, voucher.terms.lane, &received.secret, now_ms);
                self.held.insert(key_of(&voucher), Paper { terms: voucher.terms, at_ms: now_ms });
            }
            Kind::Secret(secret) => {
                let end = EndId { channel: id(&secret.channel), side: secret.side };
                self.secret(end, secret.lane, &secret.secret, now_ms);
            }
            Kind::Virtual(one) => {
                let voucher = Voucher::decode(one.voucher.as_ref()?).ok()?;
                let own = voucher.signer == one.side;
                let (key, paper) = (key_of(&voucher), Paper { terms: voucher.terms, at_ms: now_ms });
                let old = if own { &mut self.signed } else { &mut self.held }.insert(key, paper.clone());
                if let Some(old) = old.filter(|old| own && old.terms != paper.terms) {
                    return Some(format!("signed twice: {:?} and {:?}", old.terms, paper.terms));
                }
            }
            Kind::Seen(seen) => self.record(seen),
            Kind::Outcome(outcome) => outcome.seen.iter().for_each(|seen| self.record(seen)),
            Kind::Intent(intent) => {
                let amount = match intent.kind.as_ref()? {
                    manager_intent::Kind::Open(open) => open.amount,
                    manager_intent::Kind::Add(amount) => *amount,
                    _ => return None,
                };
                self.asked.insert(intent.key.to_vec(), amount);
            }
            Kind::Reserve(reserve) => {
                self.asked.insert(reserve.key.to_vec(), reserve.amount);
            }
            _ => {}
        }
        None
    }

    fn secret(&mut self, end: EndId, lane: u32, secret: &[u8], now_ms: u64) {
        if !secret.is_empty() {
            self.secrets.entry((end, lane, Sha256::digest(secret).into())).or_insert(now_ms);
        }
    }

    fn record(&mut self, seen: &wire::ManagerSeen) {
        let old = self.seen.entry(id(&seen.channel)).or_default();
        if let Some(record) = seen.record.as_ref().filter(|record| record.revision > old.0.revision) {
            old.0 = record.clone();
        }
        old.1 = old.1.max(seen.time_ms);
    }

    fn hub(&mut self, record: &wire::HubRecord) {
        use hub_record::Kind;
        match &record.kind {
            Some(Kind::Invoice(made)) => {
                self.invoices.insert(Sha256::digest(&made.secret).into());
            }
            Some(Kind::Forward(forward)) => {
                if let Some(place) = forward.outgoing.as_ref().and_then(place) {
                    self.own.remove(&place);
                }
                self.forwards.push(forward.clone());
            }
            Some(Kind::Payment(payment)) => {
                if let Some(place) = payment.lock.as_ref().and_then(place) {
                    self.own.insert(place, payment.payment);
                }
                self.payments.push(payment.clone());
            }
            Some(Kind::Diverged(lock)) => {
                self.diverged.insert(EndId { channel: id(&lock.channel), side: lock.side });
                self.marks.push("restored backup noticed");
            }
            Some(Kind::Held(lock)) if !lock.hops.is_empty() => self.marks.push("lock kept for a forgotten way"),
            Some(Kind::Learned(learned)) => {
                let own = learned.id.as_ref().and_then(|at| self.own.get(&place_of(at)));
                if let Some(payment) = own {
                    self.receipts.insert(*payment, learned.secret.to_vec());
                }
                self.marks.push("secret learned");
            }
            Some(Kind::Forgotten(all)) => {
                self.forgotten.0.extend(&all.payments);
                self.forgotten.1.extend(all.invoices.iter().map(|hash| id(hash)));
                self.marks.extend(all.payments.iter().map(|_| "payment forgotten"));
                self.marks.extend(all.invoices.iter().map(|_| "invoice forgotten"));
                self.marks.extend(all.ends.iter().map(|_| "collected channel forgotten"));
            }
            Some(Kind::Failing(_)) => self.marks.push("failed back upstream"),
            Some(Kind::Credit(_)) => self.marks.push("up-front fee taken"),
            Some(Kind::Over(over)) if over.outgoing && !over.paid && over.agreed => {
                self.marks.push("cancelled by the payee")
            }
            Some(Kind::Over(over)) if over.outgoing && !over.paid => self.marks.push("own lock expired"),
            Some(Kind::Over(over)) if !over.outgoing && over.agreed && !over.paid => self.marks.push("given back"),
            _ => {}
        }
    }

    /// Papers of one channel.
    pub fn of(map: &BTreeMap<Key, Paper>, channel: Hash) -> impl Iterator<Item = (&Key, &Paper)> {
        map.range((channel, 0, 0, 0, 0)..=(channel, u32::MAX, u32::MAX, u64::MAX, u32::MAX))
    }

    /// Papers of one lane.
    pub fn lane(
        map: &BTreeMap<Key, Paper>,
        channel: Hash,
        payer: u32,
        lane: u32,
    ) -> impl Iterator<Item = (&Key, &Paper)> {
        map.range((channel, payer, lane, 0, 0)..=(channel, payer, lane, u64::MAX, u32::MAX))
    }
}

/// Lane of an id.
pub fn place_of(at: &wire::HubLockId) -> (EndId, u32) {
    (EndId { channel: id(&at.channel), side: at.side }, at.lane)
}

fn place(lock: &wire::HubLock) -> Option<(EndId, u32)> {
    lock.id.as_ref().map(place_of)
}

/// The money of an end by its journal, minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Money {
    /// Put in, less taken out, plus what the log has moved to it.
    pub confirmed: i128,
    /// In vouchers that the log has not redeemed.
    pub received: i128,
    /// Paid for good.
    pub committed: i128,
    /// In own locks.
    pub locked: i128,
}

impl Money {
    /// Without a part of it.
    pub fn less(&self, other: &Money) -> Money {
        Money {
            confirmed: self.confirmed - other.confirmed,
            received: self.received - other.received,
            committed: self.committed - other.committed,
            locked: self.locked - other.locked,
        }
    }
}

#[derive(Default)]
struct Lane {
    firm: u64,
    firm_nonce: u64,
    lock: Option<(u64, u64, u64)>,
    cancels: Vec<(u64, u64)>,
    chain: (u64, u64),
}

impl Facts {
    /// What an end has, by vouchers and the last record, but for lanes of virtual channels.
    pub fn money(&self, end: EndId) -> Money {
        let empty = (ChannelRecord::default(), 0);
        let (record, seen_ms) = self.seen.get(&end.channel).unwrap_or(&empty);
        let side = |of: u32| if of == 0 { record.opener.clone() } else { record.other.clone() }.unwrap_or_default();
        let (own, other) = (side(end.side), side(1 - end.side));
        let mut out: BTreeMap<u32, Lane> = BTreeMap::new();
        let mut paid: BTreeMap<u32, Lane> = BTreeMap::new();
        for lane in record.lanes.iter().filter(|lane| !self.sets.has(end, lane.payer, lane.lane)) {
            let lanes = if lane.payer == end.side { &mut out } else { &mut paid };
            lanes.entry(lane.lane).or_default().chain = (lane.nonce, lane.redeemed);
        }
        for (key, paper) in Facts::of(&self.signed, end.channel).chain(Facts::of(&self.held, end.channel)) {
            let (_, payer, lane, nonce, signer) = *key;
            if self.sets.has(end, payer, lane) {
                continue;
            }
            let lane = if payer == end.side { &mut out } else { &mut paid }.entry(lane).or_default();
            let amount = paper.terms.amount;
            if signer != payer {
                lane.cancels.push((nonce, amount));
            } else if is_plain(&paper.terms) {
                (lane.firm, lane.firm_nonce) = (lane.firm.max(amount), lane.firm_nonce.max(nonce));
            } else if lane.lock.is_none_or(|(old, ..)| nonce > old) {
                lane.lock = Some((nonce, amount, paper.terms.not_after_ms));
            }
        }
        let mut money = Money {
            confirmed: i128::from(own.deposited) - i128::from(own.withdrawn) + i128::from(other.sent),
            ..Money::default()
        };
        for lane in out.values() {
            // What the log took of a cancelled lock is taken back by the cancel, to what was paid before.
            let (nonce, redeemed) = lane.chain;
            let answers = lane.cancels.iter().filter(|(n, amount)| *n > nonce && *amount < redeemed);
            let firm = lane.firm.max(answers.max().map_or(redeemed, |(_, amount)| *amount));
            money.committed += i128::from(firm);
            if let Some((at, amount, until)) = lane.lock
                && at > lane.firm_nonce.max(nonce)
                && until >= *seen_ms
                && !lane.cancels.iter().any(|(n, _)| *n > at)
            {
                money.locked += i128::from(amount.saturating_sub(firm));
            }
        }
        for lane in paid.values() {
            let firm = if lane.firm_nonce > lane.chain.0 { lane.firm.max(lane.chain.1) } else { lane.chain.1 };
            money.received += i128::from(firm) - i128::from(lane.chain.1);
        }
        money
    }
}

impl Facts {
    /// Takes over when things came into the journal, from what was read as they came.
    pub fn keep_times(&mut self, before: &Facts) {
        for (map, old) in [(&mut self.signed, &before.signed), (&mut self.held, &before.held)] {
            for (key, paper) in map {
                paper.at_ms = old.get(key).map_or(paper.at_ms, |old| old.at_ms);
            }
        }
        for (key, at) in &mut self.secrets {
            *at = before.secrets.get(key).copied().unwrap_or(*at);
        }
    }
}
