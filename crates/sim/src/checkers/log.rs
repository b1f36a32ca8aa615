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
use florin_core::wire::{self, input, network_command, output};
use prost::Message as _;
use sha2::{Digest, Sha256};

use super::Rule;
use super::ledger::signed;
use super::number;
use super::orders::{Id, Known, Orders, Place};

type Address = [u8; 32];
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
    primary: i128,
}

struct Contract {
    fund: wire::ContractFund,
    open: bool,
}

#[derive(Default)]
struct Network {
    admin: Bytes,
    offered: Bytes,
    removed: bool,
}

/// Shared objects after the newest unit that anybody has applied.
#[derive(Default)]
struct Objects {
    contracts: BTreeMap<Id, Contract>,
    primary: BTreeMap<Bytes, u64>,
    networks: BTreeMap<u64, Network>,
    claimed: u64,
    refunded: u64,
}

struct Recovery {
    since_ms: u64,
    reports: BTreeSet<u32>,
}

/// Everything known of the log.
#[derive(Default)]
pub struct Log {
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
    credits: Vec<(Address, u64)>,
    fresh_credits: usize,
    places: BTreeMap<u32, At>,
}

/// A credit on its way to a shard: to whom, how much, of which order, why.
type Credit = (Address, u64, Id, i32);

impl Log {
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
    pub fn decided(&self, actor: u64, seqnum: u32) -> bool {
        self.decided.contains_key(&(actor, seqnum))
    }

    /// The first seqnum at or below this one, from which on a recovery has voided orders of the actor.
    pub(super) fn void_at_or_below(&self, place: Place) -> Option<Place> {
        let range = self.decided.range((place.0, 0)..=place);
        range.filter(|(_, void)| **void).map(|(p, _)| *p).next()
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
        let void = self.decided.values().filter(|v| **v).count() as u64;
        let kept = self.decided.len() as u64 - void;
        let o = &self.objects;
        [self.outcomes.len() as u64, failed, o.claimed, o.refunded, self.headers.len() as u64, void, kept]
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
            primary: signed(&book.primary),
        };
        let last = self.sums.get(&before).map(|(s, _)| *s).unwrap_or_default();
        let held: i128 = self.objects.contracts.values().filter(|c| c.open).map(|c| i128::from(c.fund.amount)).sum();
        let primary: i128 = self.objects.primary.values().map(|n| i128::from(*n)).sum();
        let credited: i128 = self.credits.iter().map(|(_, n)| i128::from(*n)).sum();
        let model = Sums { received: credited + held + primary, sent: credited, contracts: held, primary };
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
        let mut outcomes: BTreeMap<Id, (Place, wire::OutcomeRecord)> = BTreeMap::new();
        for w in writes.iter().filter(|w| w.table == Table::Objects && w.key.first() == Some(&b'o')) {
            let place = (number(&w.key[9..17]), number(&w.key[17..21]) as u32);
            let record = w.value.as_deref().and_then(|v| wire::OutcomeRecord::decode(v).ok()).unwrap_or_default();
            let id = Id::try_from(record.order_id.as_ref()).unwrap_or_default();
            outcomes.insert(id, (place, record));
        }
        let mut expected: Vec<Credit> = Vec::new();
        for item in data.items.iter().filter_map(|i| wire::Item::decode(i.clone()).ok()) {
            match item.kind {
                Some(wire::item::Kind::Orders(certified)) => {
                    for body in certified.bodies {
                        let id: Id = Sha256::digest(&body).into();
                        if let Some((place, outcome)) = outcomes.remove(&id) {
                            let credits = self.outcome(orders, at, place, id, &outcome, &mut found);
                            expected.extend(credits);
                        }
                    }
                }
                Some(wire::item::Kind::Report(report)) => {
                    if let Some(recovery) = self.recoveries.get_mut(&(report.actor, report.seqnum)) {
                        recovery.reports.insert(unit.creator);
                    }
                }
                None => {}
            }
        }
        if !outcomes.is_empty() {
            found.push((Rule::LogOutcome, format!("{at:?} decides orders that are not in it")));
        }
        let mut sent: Vec<Credit> = Vec::new();
        for w in writes.iter().filter(|w| w.table == Table::Outbox) {
            let Some(delivery) = w.value.as_deref().and_then(|v| wire::Delivery::decode(v).ok()) else { continue };
            for step in delivery.steps {
                found.extend(self.tell(step));
            }
            for credit in delivery.credits {
                let source = credit.source.unwrap_or_default();
                let address = Address::try_from(credit.address.as_ref()).unwrap_or_default();
                let id = Id::try_from(source.order_id.as_ref()).unwrap_or_default();
                sent.push((address, credit.amount, id, source.kind));
            }
        }
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

    /// One operation, and the credits that it must make.
    fn outcome(
        &mut self,
        orders: &Orders,
        at: At,
        place: Place,
        id: Id,
        outcome: &wire::OutcomeRecord,
        found: &mut Vec<(Rule, String)>,
    ) -> Vec<Credit> {
        use wire::credit_entry::Kind;
        let mut wrong = |what: &str| found.push((Rule::LogOutcome, format!("operation {place:?} at {at:?}: {what}")));
        if (outcome.session, outcome.index) != at {
            wrong("says that it is elsewhere");
        }
        let Some((order, call, account)) = orders.get(&id).and_then(|o| Some((o, o.call.as_ref()?, o.account?))) else {
            wrong("is nothing that an honest authority was shown");
            return Vec::new();
        };
        if order.place != place || self.outcomes.contains_key(&place) {
            wrong("has two outcomes");
        }
        let last = self.last_call.insert(place.0, place.1).unwrap_or(0);
        if call.previous_call != last {
            wrong("does not follow the account's last one");
        }
        let result = self.objects.run(order, call, account, self.time_ms);
        self.outcomes.insert(place, outcome.code == 0);
        match result {
            Ok(credits) if outcome.code == 0 => credits,
            Err(_) if outcome.code != 0 => {
                let debit = order.debit;
                let refund = (debit > 0).then_some((account, debit, id, Kind::Refund as i32));
                refund.into_iter().collect()
            }
            Ok(_) => {
                wrong(&format!("must succeed, and fails: {}", outcome.message));
                Vec::new()
            }
            Err(e) => {
                wrong(&format!("must fail, and succeeds: {e}"));
                Vec::new()
            }
        }
    }

    /// What the log tells shards of a recovery.
    fn tell(&mut self, step: wire::LogStep) -> Option<(Rule, String)> {
        use wire::log_step::Kind;
        match step.kind? {
            Kind::Settle(_) | Kind::Network(_) | Kind::Actor(_) | Kind::Stream(_) | Kind::Prune(_) => None,
            Kind::Freeze(freeze) => {
                let recovery = Recovery { since_ms: self.time_ms, reports: BTreeSet::new() };
                self.recoveries.insert((freeze.actor, freeze.seqnum), recovery);
                None
            }
            Kind::Resolve(resolve) => {
                let place = (resolve.actor, resolve.seqnum);
                let again = self.decided.insert(place, resolve.void).is_some();
                let recovery = self.recoveries.remove(&place);
                // A step's own report may have been the last one; the freeze is never in the same step.
                let waited = recovery.as_ref().is_some_and(|r| self.time_ms >= r.since_ms + RECOVERY_WAIT_MS);
                let reports = recovery.map_or(0, |r| r.reports.len());
                let quorum = self.quorum();
                // A shown certificate decides at once; only what is void needs a quorum and time.
                (again || resolve.void && (!waited || reports < quorum)).then(|| {
                    let what = format!("{place:?} is decided with {reports} reports, waited: {waited}, again: {again}");
                    (Rule::Recovery, what)
                })
            }
        }
    }

    fn quorum(&self) -> usize {
        // The good clocks are those of all but f.
        self.good_clocks.len()
    }
}

impl Objects {
    /// Runs an operation: its credits, or why it fails. A failure changes nothing.
    fn run(&mut self, order: &Known, call: &wire::Call, account: Address, now: u64) -> Result<Vec<Credit>, String> {
        use wire::credit_entry::Kind;
        let mut closed: Vec<(Id, bool)> = Vec::new();
        for input in &call.inputs {
            let (contract, preimage) = match input.kind.as_ref().ok_or("no input")? {
                input::Kind::ContractClaim(c) => (&c.contract, Some(&c.preimage)),
                input::Kind::ContractRefund(c) => (&c.contract, None),
            };
            let id = Id::try_from(contract.as_ref()).map_err(|_| "no id")?;
            let contract = self.contracts.get(&id).ok_or("no such contract")?;
            let fund = &contract.fund;
            if !contract.open || closed.iter().any(|(c, _)| *c == id) || fund.amount != input.amount {
                return Err("closed, or of another amount".into());
            }
            let party = if preimage.is_some() { &fund.receiver } else { &fund.sender };
            let in_time = if preimage.is_some() { now < fund.expiry_ms } else { now >= fund.expiry_ms };
            let knows = preimage.is_none_or(|p| Sha256::digest(p)[..] == fund.hash[..]);
            if party[..] != account || !in_time || !knows {
                return Err(format!("own: {}, in time: {in_time}, knows: {knows}", party[..] == account));
            }
            closed.push((id, preimage.is_some()));
        }
        let (mut credits, mut funds) = (Vec::new(), Vec::new());
        let mut primary = self.primary.clone();
        for (i, output) in call.outputs.iter().enumerate() {
            match output.kind.as_ref().ok_or("no output")? {
                output::Kind::Credit(credit) => {
                    let to = Address::try_from(credit.address.as_ref()).map_err(|_| "no address")?;
                    credits.push((to, credit.amount, order.id, Kind::Call as i32));
                }
                output::Kind::ContractFund(fund) => {
                    if fund.expiry_ms <= now {
                        return Err("over before it begins".into());
                    }
                    let id = Sha256::new().chain_update(b"florin-contract-v1").chain_update(order.id);
                    funds.push((Id::from(id.chain_update((i as u32).to_be_bytes()).finalize()), fund.clone()));
                }
                output::Kind::PrimaryRedeem(redeem) => {
                    *primary.entry(redeem.address.clone()).or_default() += redeem.amount;
                }
                output::Kind::PrimaryDeposit(deposit) => {
                    let own = primary.entry(Bytes::copy_from_slice(&account)).or_default();
                    *own = own.checked_sub(deposit.amount).ok_or("not enough on the primary")?;
                    let to = Address::try_from(deposit.address.as_ref()).map_err(|_| "no address")?;
                    credits.push((to, deposit.amount, order.id, Kind::Deposit as i32));
                }
                // One command an operation: wallets here sign no more.
                output::Kind::Network(command) => self.command(command, &account, order.network_id)?,
            }
        }
        self.primary = primary;
        for (id, claimed) in closed {
            self.claimed += u64::from(claimed);
            self.refunded += u64::from(!claimed);
            if let Some(contract) = self.contracts.get_mut(&id) {
                contract.open = false;
            }
        }
        self.contracts.extend(funds.into_iter().map(|(id, fund)| (id, Contract { fund, open: true })));
        Ok(credits)
    }

    fn command(&mut self, command: &wire::NetworkCommand, account: &Address, own: u64) -> Result<(), String> {
        use network_command::Kind;
        let known = self.networks.get_mut(&command.network_id);
        match (known, command.kind.as_ref().ok_or("no kind")?) {
            (None, Kind::Register(_)) if command.network_id != own => {
                let admin = Bytes::copy_from_slice(account);
                self.networks.insert(command.network_id, Network { admin, ..Default::default() });
            }
            (Some(n), Kind::Offer(offer)) if !n.removed && n.admin[..] == *account => n.offered = offer.admin.clone(),
            (Some(n), Kind::Accept(_)) if !n.removed && n.offered[..] == *account => {
                n.admin = std::mem::take(&mut n.offered);
            }
            (Some(n), Kind::Metadata(_)) if !n.removed && n.admin[..] == *account => {}
            (Some(n), Kind::Remove(_)) if !n.removed && n.admin[..] == *account => n.removed = true,
            _ => return Err("not its admin, or there is none".into()),
        }
        Ok(())
    }
}
