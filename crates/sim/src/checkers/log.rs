//! The ordered log, derived again: what each unit must do to contracts, the primary, networks and money.
//!
//! The first honest authority that applies a unit makes the record; all others have to do the same at the same
//! place. Which certified orders a unit applies is read from the outcomes that are written; what comes of each is
//! computed here, from the orders as they were signed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use florin_core::address::Address as CoreAddress;
use florin_core::authority::state::{Table, Write};
use florin_core::limits::RECOVERY_WAIT_MS;
use florin_core::wire::log_step::Kind as Told;
use florin_core::{pbtx, wire};
use prost::Message as _;
use sha2::{Digest, Sha256};

use super::channels::Channels;
use super::ledger::signed;
use super::number;
use super::objects::Objects;
use super::orders::{Id, Known, Orders, Place};
use super::registry::Registry;
use super::{Facts, Rule};

pub(super) type Address = [u8; 32];
/// (session, units applied of it).
pub type At = (u64, u32);

/// Sums at one place of the log, minor units.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Sums {
    /// Debited from accounts.
    pub received: i128,
    /// Credited to accounts.
    pub sent: i128,
    contracts: i128,
    channels: i128,
    primary: i128,
}

struct Recovery {
    since_ms: u64,
    reports: BTreeSet<u32>,
}

/// Everything known of the log.
#[derive(Default)]
pub struct Log {
    /// The payment network.
    own: u64,
    shards: u32,
    quorum: usize,
    /// Authorities whose clocks are good.
    pub good_clocks: BTreeSet<u32>,
    /// The latest that a good clock shows, ms.
    pub clock_max: u64,
    /// What each step did, by the place that it led to.
    steps: BTreeMap<At, Id>,
    /// Sums and the state's hash at each place.
    sums: BTreeMap<At, (Sums, Bytes)>,
    headers: BTreeMap<u64, Bytes>,
    newest: At,
    time_ms: u64,
    objects: Objects,
    /// Outcome of each operation: whether it settled.
    outcomes: BTreeMap<Place, bool>,
    last_call: BTreeMap<u64, u32>,
    recoveries: BTreeMap<Place, Recovery>,
    /// Decided recoveries: whether the seqnum is void.
    decided: BTreeMap<Place, bool>,
    /// How many of them are void.
    voided: u64,
    credits: Vec<(Address, u64)>,
    /// Their sum, minor units.
    credited: i128,
    fresh_credits: usize,
    places: BTreeMap<u32, At>,
}

/// A credit on its way to a shard: to whom, how much, of which order, why.
pub(super) type Credit = (Address, u64, Id, i32);

impl Log {
    /// A log that has done nothing yet.
    pub(super) fn new(facts: &Facts) -> Self {
        let quorum = facts.authorities as usize - facts.faults();
        Log { own: facts.network_id, shards: facts.shards, quorum, objects: Objects::new(facts), ..Default::default() }
    }

    /// PBTX networks.
    pub fn registry(&self) -> &Registry {
        &self.objects.registry
    }

    /// Channels.
    pub fn channels(&self) -> &Channels {
        &self.objects.channels
    }

    /// The same, to tell of what is signed outside of the log.
    pub fn channels_mut(&mut self) -> &mut Channels {
        &mut self.objects.channels
    }

    /// Whether an operation that the log has decided has succeeded.
    pub fn has_succeeded(&self, actor: u64, seqnum: u32) -> Option<bool> {
        self.outcomes.get(&Place::new(self.own, actor, seqnum)).copied()
    }

    /// Credits since this was asked last.
    pub fn take_credits(&mut self) -> Vec<(CoreAddress, u64)> {
        let fresh = self.credits[self.fresh_credits..].iter().map(|(a, n)| (CoreAddress::new(*a), *n)).collect();
        self.fresh_credits = self.credits.len();
        fresh
    }

    /// All credits.
    pub(super) fn credits(&self) -> &[(Address, u64)] {
        &self.credits
    }

    /// Whether a contract is open.
    pub fn is_open(&self, id: &Id) -> bool {
        self.objects.contracts.get(id).is_some_and(|c| c.open)
    }

    /// Log time, ms.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// Recoveries that are not decided.
    pub fn open_recoveries(&self) -> Vec<Place> {
        self.recoveries.keys().copied().collect()
    }

    /// The header of a session that is closed.
    pub fn header(&self, session: u64) -> Option<wire::SessionHeader> {
        wire::SessionHeader::decode(self.headers.get(&session)?.clone()).ok()
    }

    /// The session that is open.
    pub fn newest_session(&self) -> u64 {
        self.newest.0
    }

    /// Whether a recovery is decided.
    pub fn decided(&self, place: &Place) -> bool {
        self.decided.contains_key(place)
    }

    /// The first seqnum at or below this one, from which on a recovery has voided orders of the actor.
    pub(super) fn void_at_or_below(&self, place: Place) -> Option<Place> {
        let range = self.decided.range(Place { seqnum: 0, id: None, ..place }..=place);
        range.filter(|(_, void)| **void).map(|(p, _)| *p).next()
    }

    /// The last seqnum up to this one that is void.
    pub(super) fn last_void(&self, place: Place) -> Option<Place> {
        let range = self.decided.range(Place { seqnum: 0, id: None, ..place }..=place);
        range.filter(|(_, void)| **void).map(|(p, _)| *p).next_back()
    }

    /// Whether a seqnum is void.
    pub(super) fn is_void(&self, place: &Place) -> bool {
        self.decided.get(place) == Some(&true)
    }

    /// Whether an operation has an outcome.
    pub(super) fn has_outcome(&self, place: &Place) -> bool {
        self.outcomes.contains_key(place)
    }

    /// Sums where an authority's log is.
    pub(super) fn sums_of(&self, authority: u32) -> Sums {
        let at = self.places.get(&authority);
        at.and_then(|at| self.sums.get(at)).map(|(sums, _)| *sums).unwrap_or_default()
    }

    /// Where the log is that is furthest.
    pub(super) fn newest(&self) -> At {
        self.newest
    }

    /// An authority's log is at the place that its disk says.
    pub(super) fn moved(&mut self, authority: u32, record: &wire::LogRecord) {
        self.places.insert(authority, (record.session, record.units));
    }

    /// Operations decided, failed, contracts claimed, refunded, sessions, recoveries void, kept.
    pub fn counts(&self) -> [u64; 7] {
        let failed = self.outcomes.values().filter(|ok| !**ok).count() as u64;
        let kept = self.decided.len() as u64 - self.voided;
        let o = &self.objects;
        [self.outcomes.len() as u64, failed, o.claimed, o.refunded, self.headers.len() as u64, self.voided, kept]
    }

    /// Recoveries that voided a seqnum.
    pub(super) fn voided(&self) -> u64 {
        self.voided
    }

    /// A step of an honest authority's log. Returns what it breaks.
    pub(super) fn wrote(&mut self, authority: u32, orders: &Orders, writes: &[Write]) -> Vec<(Rule, String)> {
        let mut found = Vec::new();
        let book = writes.iter().find(|w| w.table == Table::Meta && w.key == b"log");
        let Some(book) = book.and_then(|w| wire::LogRecord::decode(w.value.as_deref()?).ok()) else {
            return found;
        };
        let at = (book.session, book.units);
        let before = self.places.insert(authority, at).unwrap_or((0, 0));
        let unit = writes.iter().find(|w| w.table == Table::Units).and_then(|w| w.value.clone());
        let forward = match &unit {
            Some(_) => at == (before.0, before.1 + 1),
            None => at == (before.0 + 1, 0),
        };
        if !forward {
            found.push((Rule::LogFork, format!("log {authority} goes from {before:?} to {at:?}")));
        }
        let mut hash = Sha256::new();
        for w in
            writes.iter().filter(|w| matches!(w.table, Table::Objects | Table::Outbox | Table::Units | Table::Meta))
        {
            // What a quorum has signed depends on when signatures come.
            if w.key != b"signed" && (w.table != Table::Outbox || w.value.is_some()) {
                hash.update(format!("{:?} {} ", w.table, w.key.len()));
                hash.update(&w.key);
                hash.update(w.value.as_deref().unwrap_or(b"-"));
            }
        }
        let digest: Id = hash.finalize().into();
        if let Some(session) = writes.iter().find(|w| w.table == Table::Sessions) {
            found.extend(self.check_header(authority, number(&session.key), session.value.as_deref()));
        }
        match self.steps.get(&at) {
            Some(first) if *first == digest => return found,
            Some(_) => {
                found.push((Rule::LogFork, format!("log {authority} comes to {at:?} in another way than others")));
                return found;
            }
            None => {}
        }
        if before != self.newest {
            found.push((Rule::LogFork, format!("log {authority} is at {at:?} first, the newest is {:?}", self.newest)));
            return found;
        }
        self.steps.insert(at, digest);
        self.newest = at;
        if let Some(unit) = unit {
            found.extend(self.apply(orders, &unit, &book, writes));
        }
        let claimed = Sums {
            received: signed(&book.received),
            sent: signed(&book.sent),
            contracts: signed(&book.contracts),
            channels: signed(&book.channels),
            primary: signed(&book.primary),
        };
        let last = self.sums.get(&before).map(|(s, _)| *s).unwrap_or_default();
        let held: i128 = self.objects.contracts.values().filter(|c| c.open).map(|c| i128::from(c.fund.amount)).sum();
        let primary: i128 = self.objects.primary.values().map(|n| i128::from(*n)).sum();
        let credited = self.credited;
        let channels = self.objects.channels.held();
        let received = credited + held + channels + primary;
        let model = Sums { received, sent: credited, contracts: held, channels, primary };
        if claimed != model || claimed.received < last.received || claimed.sent < last.sent {
            found.push((Rule::LogMoney, format!("log at {at:?}: its sums are {claimed:?}, they must be {model:?}")));
        }
        self.sums.insert(at, (claimed, book.state_hash));
        found
    }

    fn check_header(&mut self, authority: u32, session: u64, value: Option<&[u8]>) -> Option<(Rule, String)> {
        let record = wire::SessionRecord::decode(value?).ok()?;
        let header = Bytes::from(record.session?.header?.encode_to_vec());
        let first = self.headers.entry(session).or_insert_with(|| header.clone());
        (*first != header).then(|| (Rule::LogFork, format!("log {authority} ends session {session} in another way")))
    }

    /// What one unit must do.
    fn apply(&mut self, orders: &Orders, unit: &[u8], book: &wire::LogRecord, writes: &[Write]) -> Vec<(Rule, String)> {
        let mut found = Vec::new();
        let at = (book.session, book.units - 1);
        let unit = wire::OrderedUnit::decode(unit).unwrap_or_default();
        let data = wire::UnitData::decode(unit.data.clone()).unwrap_or_default();
        if book.time_ms < self.time_ms || book.time_ms > self.clock_max {
            let (was, most) = (self.time_ms, self.clock_max);
            found.push((
                Rule::LogTime,
                format!("log time goes from {was} to {} at {at:?}, a good clock shows {most}", book.time_ms),
            ));
        }
        self.time_ms = book.time_ms;
        if data.clock_ms != 0 {
            self.objects.channels.vote_clock(unit.creator, data.clock_ms);
        }
        let mut outcomes: BTreeMap<Id, (Place, wire::OutcomeRecord)> = BTreeMap::new();
        for w in writes.iter().filter(|w| w.table == Table::Objects && w.key.first() == Some(&b'o')) {
            let part = |at: usize, end: usize| number(&w.key[at..end]);
            let place = Place::new(part(1, 9), part(9, 17), part(17, 21) as u32);
            let record = w.value.as_deref().and_then(|v| wire::OutcomeRecord::decode(v).ok()).unwrap_or_default();
            let id = Id::try_from(record.order_id.as_ref()).unwrap_or_default();
            outcomes.insert(id, (place, record));
        }
        let mut expected: Vec<Credit> = Vec::new();
        let mut told: Vec<(u64, Told)> = Vec::new();
        for item in data.items.iter().filter_map(|i| wire::Item::decode(i.clone()).ok()) {
            match item.kind {
                Some(wire::item::Kind::Orders(certified)) => {
                    // In sequence, wherever they stand in their batch.
                    let seqnum = |b: &Bytes| pbtx::TransactionBody::decode(b.clone()).map_or(0, |body| body.seqnum);
                    let mut bodies = certified.bodies;
                    bodies.sort_by_key(seqnum);
                    for body in bodies {
                        let id: Id = Sha256::digest(&body).into();
                        let foreign = orders.get(&id).filter(|o| o.foreign.is_some());
                        if let (Some(order), true) = (foreign, outcomes.contains_key(&id)) {
                            // One that came before its turn comes again in the same unit.
                            let Some(steps) = self.objects.registry.place(order, &body) else { continue };
                            told.extend(steps.into_iter().map(|step| (order.place.network, step)));
                            let (place, outcome) = outcomes.remove(&id).unwrap_or((order.place, Default::default()));
                            found.extend(self.placed(at, order, place, &outcome));
                        } else if let Some((place, outcome)) = outcomes.remove(&id) {
                            let (credits, steps) = self.outcome(orders, at, place, id, &outcome, &mut found);
                            expected.extend(credits);
                            told.extend(steps);
                        }
                    }
                }
                Some(wire::item::Kind::Report(report)) => {
                    if let Some(recovery) =
                        self.recoveries.get_mut(&Place::new(report.network_id, report.actor, report.seqnum))
                    {
                        recovery.reports.insert(unit.creator);
                    }
                }
                Some(wire::item::Kind::Dkg(_) | wire::item::Kind::NoteReport(_)) | None => {}
            }
        }
        if !outcomes.is_empty() {
            found.push((Rule::LogOutcome, format!("{at:?} decides orders that are not in it")));
        }
        let mut sent: Vec<Credit> = Vec::new();
        let (own, mut heard) = (self.own, Vec::<Told>::new());
        let mut to_shards: Vec<(u32, Told)> =
            told.into_iter().map(|(network, step)| ((network % u64::from(self.shards)) as u32, step)).collect();
        // Each shard hears in the order of the unit, the shards one after another.
        to_shards.sort_by_key(|(shard, _)| *shard);
        for w in writes.iter().filter(|w| w.table == Table::Outbox) {
            let Some(delivery) = w.value.as_deref().and_then(|v| wire::Delivery::decode(v).ok()) else { continue };
            for step in delivery.steps.into_iter().flat_map(|step| of_networks(own, step)) {
                match step {
                    Part::OfNetwork(told) => {
                        self.objects.registry.tell(delivery.sequence, told.clone());
                        heard.push(told);
                    }
                    Part::OfPayments(step) => found.extend(self.tell(step)),
                }
            }
            for credit in delivery.credits {
                let source = credit.source.unwrap_or_default();
                let address = Address::try_from(credit.address.as_ref()).unwrap_or_default();
                let id = Id::try_from(source.order_id.as_ref()).unwrap_or_default();
                sent.push((address, credit.amount, id, source.kind));
            }
        }
        if !heard.iter().eq(to_shards.iter().map(|(_, step)| step)) {
            let what = format!("{at:?} tells shards {heard:?}, it must tell {to_shards:?}");
            found.push((Rule::Registry, what.chars().take(1_500).collect()));
        }
        if data.clock_ms != 0 {
            self.objects.channels.begin_delays(self.time_ms);
        }
        found.extend(self.objects.channels.wrote(writes));
        self.credited += expected.iter().map(|(_, amount, ..)| i128::from(*amount)).sum::<i128>();
        self.credits.extend(expected.iter().map(|(address, amount, ..)| (*address, *amount)));
        expected.sort_unstable();
        sent.sort_unstable();
        if expected != sent {
            found.push((
                Rule::LogMoney,
                format!("{at:?} credits {} times, it must {} times, or others", sent.len(), expected.len()),
            ));
        }
        found
    }

    /// An order of a PBTX network has its place.
    fn placed(&mut self, at: At, order: &Known, place: Place, outcome: &wire::OutcomeRecord) -> Option<(Rule, String)> {
        let again = self.outcomes.insert(place, outcome.code == 0).is_some();
        let right = (outcome.session, outcome.index, outcome.code) == (at.0, at.1, 0) && place == order.place;
        (again || !right).then(|| (Rule::LogOutcome, format!("{place:?} at {at:?}: {outcome:?}, again: {again}")))
    }

    /// One operation, and the credits that it must make.
    fn outcome(
        &mut self,
        orders: &Orders,
        at: At,
        place: Place,
        id: Id,
        outcome: &wire::OutcomeRecord,
        found: &mut Vec<(Rule, String)>,
    ) -> (Vec<Credit>, Vec<(u64, Told)>) {
        use wire::credit_entry::Kind;
        let mut wrong = |what: &str| found.push((Rule::LogOutcome, format!("operation {place:?} at {at:?}: {what}")));
        if (outcome.session, outcome.index) != at {
            wrong("says that it is elsewhere");
        }
        let Some((order, call, account)) = orders.get(&id).and_then(|o| Some((o, o.call.as_ref()?, o.account?))) else {
            wrong("is nothing that an honest authority was shown");
            return Default::default();
        };
        if order.place != place || self.outcomes.contains_key(&place) {
            wrong("has two outcomes");
        }
        let last = self.last_call.insert(place.actor, place.seqnum).unwrap_or(0);
        if call.previous_call != last {
            wrong("does not follow the account's last one");
        }
        let result = self.objects.run(order, call, account, self.time_ms);
        self.outcomes.insert(place, outcome.code == 0);
        match result {
            Ok(done) if outcome.code == 0 => done,
            Err(fail) if outcome.code != 0 => {
                if fail.code.is_some_and(|code| code as u32 != outcome.code) {
                    wrong(&format!("must say {:?}, and says {}: {}", fail.code, outcome.code, outcome.message));
                }
                self.objects.channels.note_failed(call, outcome.code);
                let debit = order.debit;
                let refund = (debit > 0).then_some((account, debit, id, Kind::Refund as i32));
                (refund.into_iter().collect(), Vec::new())
            }
            Ok(_) => {
                wrong(&format!("must succeed, and fails: {}", outcome.message));
                Default::default()
            }
            Err(e) => {
                wrong(&format!("must fail, and succeeds: {}", e.why));
                Default::default()
            }
        }
    }

    /// What the log tells shards of a recovery.
    fn tell(&mut self, step: wire::LogStep) -> Option<(Rule, String)> {
        use wire::log_step::Kind;
        match step.kind? {
            Kind::Settle(_) | Kind::Network(_) | Kind::Actor(_) | Kind::Stream(_) | Kind::Prune(_) => None,
            Kind::FreezeNote(_) | Kind::ResolveNote(_) => None,
            Kind::Freeze(freeze) => {
                let recovery = Recovery { since_ms: self.time_ms, reports: BTreeSet::new() };
                self.recoveries.insert(Place::new(freeze.network_id, freeze.actor, freeze.seqnum), recovery);
                None
            }
            Kind::Resolve(resolve) => {
                let place = Place::new(resolve.network_id, resolve.actor, resolve.seqnum);
                let before = self.decided.insert(place, resolve.void);
                let again = before.is_some();
                self.voided = self.voided + u64::from(resolve.void) - u64::from(before == Some(true));
                let recovery = self.recoveries.remove(&place);
                // A step's own report may have been the last one; the freeze is never in the same step.
                let waited = recovery.as_ref().is_some_and(|r| self.time_ms >= r.since_ms + RECOVERY_WAIT_MS);
                let reports = recovery.map_or(0, |r| r.reports.len());
                let quorum = self.quorum;
                // A shown certificate decides at once; only what is void needs a quorum and time.
                (again || resolve.void && (!waited || reports < quorum)).then(|| {
                    let what = format!("{place:?} is decided with {reports} reports, waited: {waited}, again: {again}");
                    (Rule::Recovery, what)
                })
            }
        }
    }
}

/// A part of a step.
enum Part {
    OfNetwork(Told),
    OfPayments(wire::LogStep),
}

/// The parts of a step that are of PBTX networks; what is of payments as it is.
fn of_networks(own: u64, step: wire::LogStep) -> Vec<Part> {
    let is_own = |body: &Bytes| pbtx::TransactionBody::decode(body.clone()).map(|b| b.network_id) == Ok(own);
    match step.kind {
        Some(Told::Settle(settle)) => {
            let others = settle.bodies.into_iter().filter(|body| !is_own(body));
            others.map(|body| Part::OfNetwork(Told::Settle(wire::LogSettle { bodies: vec![body] }))).collect()
        }
        Some(kind @ (Told::Network(_) | Told::Actor(_) | Told::Stream(_) | Told::Prune(_))) => {
            vec![Part::OfNetwork(kind)]
        }
        _ => vec![Part::OfPayments(step)],
    }
}
