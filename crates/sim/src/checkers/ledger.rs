//! Money: the sums of every shard after every step, kept from what it writes, and a plain model ledger.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use florin_core::authority::state::{Table, Write};
use florin_core::wire::{self, credit_entry::Kind};
use prost::Message as _;

use super::orders::{Id, Known, Orders, Place};
use super::{Facts, NodeId, Rule, follows, number, order_id, place_of};
use crate::disk::Disk;

type Address = [u8; 32];

/// Sums of one shard, from its records.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Sums {
    accounts: i128,
    sent: i128,
    received: i128,
    /// Debited by operations that wait for the log, or did.
    called: i128,
    /// Credited by the log.
    from_log: i128,
    genesis: i128,
    genesis_lines: u64,
    /// Value of the notes issued less that of those spent.
    notes: i128,
}

/// What undoes one unsynced step.
struct Undo {
    step: u64,
    sums: Sums,
    balances: Vec<(Address, Option<i128>)>,
    calls: Vec<(Place, Option<Moves>)>,
}

/// What a settled order moves besides credits, minor units.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Moves {
    /// Debit of an operation.
    called: i128,
    /// Notes issued less notes spent.
    notes: i128,
}

#[derive(Default)]
struct Shard {
    sums: Sums,
    balances: BTreeMap<Address, i128>,
    /// Settled operations, and orders with notes.
    calls: BTreeMap<Place, Moves>,
    undo: VecDeque<Undo>,
}

/// Balances and sums of all honest shards.
pub struct Ledger {
    facts: Facts,
    shards: BTreeMap<NodeId, Shard>,
    /// Honest authorities where an address is below what it may have.
    negative: BTreeMap<Address, BTreeSet<u32>>,
}

/// The shard of an address.
fn shard_of(address: &Address, shards: u32) -> u32 {
    ((number(&address[..8]) & (u64::MAX >> 1)) % u64::from(shards)) as u32
}

/// An i128 of a record.
pub(super) fn signed(bytes: &[u8]) -> i128 {
    <[u8; 16]>::try_from(bytes).map_or(0, i128::from_le_bytes)
}

impl Ledger {
    /// Nothing yet.
    pub fn new(facts: Facts) -> Self {
        Ledger { facts, shards: BTreeMap::new(), negative: BTreeMap::new() }
    }

    /// A step's writes. Returns what they break.
    pub fn wrote(&mut self, node: NodeId, step: u64, writes: &[Write], orders: &Orders) -> Vec<(Rule, String)> {
        let mut found = Vec::new();
        let shard = self.shards.entry(node).or_default();
        let mut undo = Undo { step, sums: shard.sums, balances: Vec::new(), calls: Vec::new() };
        let mut claimed = None;
        for w in writes {
            if w.table == Table::Orders && number(&w.key[..8]) == self.facts.network_id {
                let place = place_of(&w.key, orders);
                let known = w.value.as_deref().and_then(order_id).and_then(|id| orders.get(&id));
                let moves = known.map(moves).filter(|moves| *moves != Moves::default());
                let before = match moves {
                    Some(moves) => shard.calls.insert(place, moves),
                    None => shard.calls.remove(&place),
                };
                let (now, then) = (moves.unwrap_or_default(), before.unwrap_or_default());
                shard.sums.called += now.called - then.called;
                shard.sums.notes += now.notes - then.notes;
                undo.calls.push((place, before));
            }
            let Some(value) = w.value.as_deref() else { continue };
            match w.table {
                Table::Accounts if number(&w.key[..8]) == self.facts.network_id => {
                    let record = wire::AccountRecord::decode(value).unwrap_or_default();
                    for holding in record.holdings {
                        let Ok(address) = Address::try_from(holding.address.as_ref()) else { continue };
                        let balance = signed(&holding.balance);
                        let before = shard.balances.insert(address, balance);
                        shard.sums.accounts += balance - before.unwrap_or(0);
                        undo.balances.push((address, before));
                        if shard_of(&address, self.facts.shards) != node.1 {
                            found.push((Rule::SumZero, format!("{node:?} keeps money of another shard")));
                        }
                    }
                }
                Table::Outbox => {
                    let delivery = wire::Delivery::decode(value).unwrap_or_default();
                    let moved = |c: &wire::DeliveredCredit| match &c.source {
                        Some(s) if s.kind() == Kind::Reversed => -i128::from(c.amount),
                        _ => i128::from(c.amount),
                    };
                    shard.sums.sent += delivery.credits.iter().map(moved).sum::<i128>();
                }
                Table::Credits => {
                    for credit in wire::CreditsRecord::decode(value).unwrap_or_default().credits {
                        let Some(entry) = credit.entry else { continue };
                        if entry.seqnum == 0 && entry.actor != 0 {
                            shard.sums.genesis += i128::from(entry.amount);
                        } else if is_from_log(&entry) {
                            shard.sums.from_log += i128::from(entry.amount);
                        } else if entry.kind() == Kind::Reversed {
                            let other = (entry.actor % u64::from(self.facts.shards)) as u32 != node.1;
                            shard.sums.received -= if other { i128::from(entry.amount) } else { 0 };
                        } else if (entry.actor % u64::from(self.facts.shards)) as u32 != node.1 {
                            shard.sums.received += i128::from(entry.amount);
                        }
                    }
                }
                Table::Meta => {
                    let totals = wire::TotalsRecord::decode(value).unwrap_or_default();
                    shard.sums.genesis_lines = totals.genesis_lines;
                    claimed = Some(totals);
                }
                _ => {}
            }
        }
        let issued = issued(&self.facts, node.1, shard.sums.genesis_lines);
        let s = shard.sums;
        let sum = s.accounts + s.sent + s.called - s.received - s.from_log - s.genesis + issued + s.notes;
        if sum != 0 {
            found.push((Rule::SumZero, format!("{node:?} the postings sum to {sum}: {s:?}, issued {issued}")));
        }
        if let Some(totals) = claimed {
            let claims = [&totals.accounts, &totals.sent, &totals.received, &totals.genesis, &totals.issued];
            if claims.map(|b| signed(b)) != [s.accounts, s.sent + s.called, s.received + s.from_log, s.genesis, issued]
            {
                found.push((
                    Rule::SumZero,
                    format!("{node:?} the totals are not those of its records: {s:?}, issued {issued}"),
                ));
            }
        }
        let changed: Vec<Address> = undo.balances.iter().map(|(address, _)| *address).collect();
        shard.undo.push_back(undo);
        for address in changed {
            found.extend(self.check_negative(node, address));
        }
        found
    }

    /// A quorum never owes: at most f honest authorities see an account below zero at a time. (The last order
    /// of a chain had f + 1 honest votes or more, each with the money for the whole chain; they never go below.)
    fn check_negative(&mut self, node: NodeId, address: Address) -> Option<(Rule, String)> {
        let balance = self.shards.get(&node)?.balances.get(&address).copied().unwrap_or(0);
        let limit = if address == self.facts.issuer { self.facts.issuer_limit } else { 0 };
        let below = self.negative.entry(address).or_default();
        if balance + limit >= 0 {
            below.remove(&node.0);
            return None;
        }
        below.insert(node.0);
        let count = below.len();
        (count > self.facts.faults())
            .then(|| (Rule::NegativeBalance, format!("{} at {count} honest authorities", hex::encode(address))))
    }

    /// What an authority's shards were debited for the log, and credited by it, minor units.
    pub fn with_log(&self, authority: u32) -> (i128, i128) {
        let all = self.shards.range((authority, 0)..=(authority, u32::MAX)).map(|(_, s)| s.sums);
        all.fold((0, 0), |(called, from_log), s| (called + s.called, from_log + s.from_log))
    }

    /// The most that an honest authority has for an address, minor units.
    pub fn balance(&self, address: &Address) -> i128 {
        self.shards.values().filter_map(|shard| shard.balances.get(address)).copied().max().unwrap_or(0)
    }

    /// Steps up to this one are kept for ever.
    pub fn synced(&mut self, node: NodeId, upto: u64) {
        let shard = self.shards.entry(node).or_default();
        while shard.undo.front().is_some_and(|u| u.step <= upto) {
            shard.undo.pop_front();
        }
    }

    /// Steps after this one are gone.
    pub fn crashed(&mut self, node: NodeId, last_step: u64) {
        let shard = self.shards.entry(node).or_default();
        let mut changed = Vec::new();
        while shard.undo.back().is_some_and(|u| u.step > last_step) {
            let Some(undo) = shard.undo.pop_back() else { break };
            shard.sums = undo.sums;
            for (place, before) in undo.calls.into_iter().rev() {
                match before {
                    Some(moves) => shard.calls.insert(place, moves),
                    None => shard.calls.remove(&place),
                };
            }
            for (address, before) in undo.balances.into_iter().rev() {
                match before {
                    Some(balance) => shard.balances.insert(address, balance),
                    None => shard.balances.remove(&address),
                };
                changed.push(address);
            }
        }
        shard.undo.clear();
        for address in changed {
            // Going back is no new debt.
            self.check_negative(node, address);
        }
    }

    /// How the honest authorities' money differs from the model's.
    pub fn differs(&self, model: &Result<BTreeMap<Address, i128>, String>, disks: &[(NodeId, &Disk)]) -> Vec<String> {
        let model = match model {
            Ok(model) => model,
            Err(e) => return vec![format!("the settled orders make no ledger: {e}")],
        };
        let mut found = Vec::new();
        let mut in_flight: BTreeMap<u32, i128> = BTreeMap::new();
        for (node, _) in disks {
            let Some(shard) = self.shards.get(node) else { continue };
            *in_flight.entry(node.0).or_default() += shard.sums.sent - shard.sums.received;
            let mine = model.iter().filter(|(a, balance)| **balance != 0 && shard_of(a, self.facts.shards) == node.1);
            if !mine.eq(shard.balances.iter().filter(|(_, balance)| **balance != 0)) {
                found.push(format!("{node:?} has other balances than the model ledger"));
            }
        }
        for (authority, amount) in in_flight {
            if amount != 0 {
                found.push(format!("authority {authority} has {amount} in flight"));
            }
        }
        found
    }
}

/// What an order moves when it settles, besides what it credits.
fn moves(order: &Known) -> Moves {
    Moves { called: if order.call.is_some() { i128::from(order.debit) } else { 0 }, notes: order.notes() }
}

/// Whether a credit comes from the log: refunds, deposits, and what operations pay.
fn is_from_log(entry: &wire::CreditEntry) -> bool {
    matches!(entry.kind(), Kind::Refund | Kind::Deposit | Kind::Call)
}

/// Debited from the issuer for the lines of the genesis file loaded so far, at its shard.
fn issued(facts: &Facts, shard: u32, lines: u64) -> i128 {
    if shard_of(&facts.issuer, facts.shards) != shard {
        return 0;
    }
    facts.genesis.iter().take(lines as usize).map(|(_, amount)| i128::from(*amount)).sum()
}

/// The balances that the genesis file, the settled orders and the log come to. `None` is a void seqnum.
pub fn model(
    facts: &Facts,
    orders: &Orders,
    settled: &BTreeMap<Place, Option<Id>>,
    from_log: &[(Address, u64)],
) -> Result<BTreeMap<Address, i128>, String> {
    let mut balances: BTreeMap<Address, i128> = BTreeMap::new();
    for (address, amount) in &facts.genesis {
        *balances.entry(*address).or_default() += i128::from(*amount);
        *balances.entry(facts.issuer).or_default() -= i128::from(*amount);
    }
    for (address, amount) in from_log {
        *balances.entry(*address).or_default() += i128::from(*amount);
    }
    let mut before: Option<(Place, Option<Id>)> = None;
    // PBTX networks move no money, but their chains are chains as well.
    for (place, id) in settled.iter().filter(|(place, _)| place.id.is_none()) {
        let parent = before.filter(|(last, _)| place.before() == Some(*last)).map(|(_, id)| id);
        before = Some((*place, *id));
        if parent.is_none() && place.seqnum != 1 {
            return Err(format!("{place:?} does not follow the order before it"));
        }
        let Some(id) = id else { continue };
        let order = orders.get(id).ok_or_else(|| format!("nobody has seen {}", hex::encode(id)))?;
        // After a void seqnum it names what the log decided, which all must agree on to go on at all.
        if parent != Some(None) && !follows(order, parent.flatten().as_ref()) {
            return Err(format!("{place:?} does not follow the order before it"));
        }
        if place.network != facts.network_id {
            continue;
        }
        let from =
            orders.address_of(place.actor).ok_or_else(|| format!("the account of {place:?} was never opened"))?;
        for (to, amount) in &order.outputs {
            *balances.entry(from).or_default() -= i128::from(*amount);
            *balances.entry(*to).or_default() += i128::from(*amount);
        }
        *balances.entry(from).or_default() -= i128::from(order.debit) + order.notes();
    }
    // Bearer orders have no account: what they credit is paid with notes.
    let bearers = settled.iter().filter(|(place, _)| place.network == facts.network_id && place.id.is_some());
    for order in bearers.filter_map(|(_, id)| orders.get(id.as_ref()?)) {
        for (to, amount) in &order.outputs {
            *balances.entry(*to).or_default() += i128::from(*amount);
        }
    }
    let broke = |(address, balance): (&Address, &i128)| {
        let limit = if *address == facts.issuer { facts.issuer_limit } else { 0 };
        balance + limit < 0
    };
    match balances.iter().find(|entry| broke(*entry)) {
        Some((address, balance)) => Err(format!("{} ends with {balance}", hex::encode(address))),
        None => Ok(balances),
    }
}
