//! The audit: computes from disk what a shard's records must say, by other code than the code that
//! wrote them, and names every difference.
//!
//! It reads the batches, the settled stream and the credits; recomputes accounts and sums from them; and
//! compares those with the records. What was sent and what arrived is compared as sets, by a sum of
//! hashes, so memory grows with accounts and not with history. Faults that need two shards to be seen are
//! found by [`audit_authority`].

mod books;
mod compare;
mod flow;
mod notes;
mod pbtx;
mod to_log;
mod whole;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use super::Authority;
use super::state::{LOG, Link, State, TOTALS_KEY, Table, Totals, corrupt, get_u64, link_key};
use crate::address::Address;
use crate::batch::{DecodedBatch, decode_batch};
use crate::bitmap::Bitmap;
use crate::certificate::check_certificate;
use crate::content::{Content, TYPE_RECOVER};
use crate::error::Result;
use crate::wire;
use books::Books;
pub use flow::Flow;
pub use whole::{Money, audit_authority, money, notes};

/// Findings that are written out; more are only counted.
pub const FINDINGS_MAX: usize = 100;
/// Entries of one read.
const PAGE: usize = 256;

/// What an audit of one shard came to.
#[derive(Clone, Debug, Default)]
pub struct ShardAudit {
    /// Batches stored.
    pub batches: u64,
    /// Certificates verified.
    pub certificates: u64,
    /// Orders settled.
    pub orders: u64,
    /// Credits received, those of the genesis file included.
    pub credits: u64,
    /// Accounts with a record.
    pub accounts: u64,
    /// Sum of all balances as recomputed, minor units.
    pub balances: i128,
    /// Debited by settled orders, minor units.
    pub debited: i128,
    /// Credited by the genesis file, minor units.
    pub genesis: i128,
    /// Debited from the issuer for the genesis file, minor units.
    pub issued: i128,
    /// What settled orders pay to other shards, by shard; for the log (`u32::MAX`), settled CALLs.
    pub sent: BTreeMap<u32, Flow>,
    /// What other shards' orders were credited here, by shard; by the log, what it has credited.
    pub received: BTreeMap<u32, Flow>,
    /// Last delivery applied, by the shard it came from.
    pub applied: BTreeMap<u32, u64>,
    /// Last delivery acknowledged and last sent, by the shard it went to.
    pub links: BTreeMap<u32, (u64, u64)>,
    /// Deliveries that are still kept, by shard and sequence; for the log, settled CALLs that it may not have yet.
    pub outbox: BTreeMap<(u32, u64), Flow>,
    /// Settled CALLs, by (network, actor).
    pub calls: BTreeMap<(u64, u64), Calls>,
    /// Those of them that are still in the outbox for the log, by (network, actor), seqnum.
    pub calls_kept: BTreeMap<((u64, u64), u32), Flow>,
    /// Of actors of PBTX networks that have settled what the log needs: seqnum of the last of it, and whether it needs
    /// every order of theirs.
    pub pbtx_calls: BTreeMap<(u64, u64), (u32, bool)>,
    /// What of that is still in the outbox for the log.
    pub pbtx_kept: BTreeSet<((u64, u64), u32)>,
    /// Notes issued and spent, by tier, as recomputed.
    pub notes: Vec<(u64, u64)>,
    /// Nonces that a recovery holds back.
    pub frozen_notes: BTreeSet<Vec<u8>>,
    /// Nonces that recoveries have freed, with how often.
    pub freed_notes: BTreeMap<Vec<u8>, u32>,
    /// Settled bearer orders with outputs for the log.
    pub bearers: Flow,
    /// Those of them that are still in the outbox for the log.
    pub bearers_kept: Flow,
    /// What this shard knows of PBTX networks and their actors.
    pub registry: Known,
    /// Accounts that a recovery has frozen, with the seqnum.
    pub frozen: BTreeMap<(u64, u64), u32>,
    /// Seqnums that recoveries have voided, by (network, actor).
    pub voided: BTreeMap<(u64, u64), Vec<u32>>,
    /// What is wrong, at most [`FINDINGS_MAX`].
    pub findings: Vec<String>,
    /// How much is wrong.
    pub findings_total: u64,
}

/// What is known of PBTX networks and actors: how much, and a sum of hashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// Networks and actors.
    pub count: u64,
    sum: u128,
}

impl Known {
    /// Adds a network, or an actor of it, with what is known.
    pub fn add(&mut self, id: (u64, u64), known: &[u8]) {
        let hash = Sha256::new().chain_update(id.0.to_be_bytes()).chain_update(id.1.to_be_bytes()).chain_update(known);
        let hash: [u8; 32] = hash.finalize().into();
        self.count += 1;
        self.sum = self.sum.wrapping_add(u128::from_be_bytes(hash[..16].try_into().expect("half of 32 bytes")));
    }
}

/// What is to be the same of an actor at the log and its shard.
pub(crate) fn known_of_actor(permission: &Bytes, frozen: bool, generation: u32) -> Vec<u8> {
    wire::ActorRecord { permission: permission.clone(), removed: false, frozen, generation }.encode_to_vec()
}

/// CALLs of one account.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Calls {
    /// Seqnum of the last one.
    pub last: u32,
    /// All of them.
    pub settled: Flow,
}

impl ShardAudit {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings_total == 0
    }

    fn note_mut(&mut self, tier: u32) -> &mut (u64, u64) {
        let tier = tier as usize;
        if self.notes.len() <= tier {
            self.notes.resize(tier + 1, (0, 0));
        }
        &mut self.notes[tier]
    }

    fn find(&mut self, what: impl Into<String>) {
        self.findings_total += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(what.into());
        }
    }

    fn expect<T: PartialEq + std::fmt::Debug>(&mut self, what: impl Into<String>, expected: T, found: T) {
        if expected != found {
            self.find(format!("{}: expected {expected:?}, found {found:?}", what.into()));
        }
    }
}

/// Audits one shard from its disk. Without `signatures` certificates are counted but not verified, which
/// is much faster. Errors: `STORAGE_FAILED`, `STORAGE_CORRUPT` where a record does not even decode.
pub fn audit_shard(authority: &Authority, state: &dyn State, signatures: bool) -> Result<ShardAudit> {
    let mut audit = Audit {
        authority,
        state,
        signatures,
        shards: authority.committee().shards,
        out: ShardAudit::default(),
        books: Books::default(),
        local_sent: Flow::default(),
        local_received: Flow::default(),
    };
    audit.batches()?;
    audit.undone()?;
    audit.settled()?;
    audit.credits()?;
    let totals = Totals::load(state)?;
    audit.outbox(&totals)?;
    audit.streams()?;
    audit.accounts(&totals)?;
    audit.notes(&totals)?;
    audit.totals(&totals)?;
    Ok(audit.out)
}

struct Audit<'a> {
    authority: &'a Authority,
    state: &'a dyn State,
    signatures: bool,
    shards: u32,
    out: ShardAudit,
    books: Books,
    local_sent: Flow,
    local_received: Flow,
}

impl Audit<'_> {
    /// Batches have the root that they are filed under, and what is settled of them is certified.
    fn batches(&mut self) -> Result<()> {
        let mut next = 0;
        for entry in Pages::new(self.state, Table::Batches) {
            let (key, value) = entry?;
            let number = number_of(Table::Batches, &key)?;
            self.out.batches += 1;
            self.out.expect("number of the next batch", next, number);
            next = number + 1;
            let record: wire::BatchRecord = decode(Table::Batches, &key, value)?;
            let Some(progress) = read::<wire::ProgressRecord>(self.state, Table::Progress, &key)? else {
                self.out.find(format!("batch {number}: expected a progress record, found none"));
                continue;
            };
            let Ok(batch) = decode_batch(&record.orders) else {
                self.out.find(format!("batch {number}: expected orders, found {}", record.orders.len()));
                continue;
            };
            self.batch(number, &batch, &progress)?;
        }
        for entry in Pages::new(self.state, Table::Roots) {
            let (key, _) = entry?;
            if let Some(number) = get_u64(self.state, Table::Roots, &key)?
                && number >= next
            {
                self.out.find(format!("root {}: expected a batch below {next}, found {number}", hex::encode(&key)));
            }
        }
        Ok(())
    }

    fn batch(&mut self, number: u64, batch: &DecodedBatch, progress: &wire::ProgressRecord) -> Result<()> {
        let root = hex::encode(batch.id.root);
        self.out.expect(format!("batch {number}: root of its orders"), hex::encode(&progress.root), root);
        self.out.expect(format!("batch {number}: orders"), progress.count as usize, batch.id.count);
        let filed = get_u64(self.state, Table::Roots, &progress.root)?;
        self.out.expect(format!("batch {number}: number filed under its root"), Some(number), filed);
        let Ok(settled) = Bitmap::parse(&progress.settled, batch.id.count) else {
            self.out.find(format!("batch {number}: its settled bits are not those of {} orders", batch.id.count));
            return Ok(());
        };
        let mut certified = Bitmap::empty(batch.id.count);
        for certificate in &progress.certificates {
            match self.certified(certificate, batch) {
                Ok(bits) => certified.union(&bits),
                Err(e) => self.out.find(format!("batch {number}: a certificate of it is false: {e}")),
            }
        }
        // What settled on the log's word is held to the log by [`audit_authority`].
        let by_log = match progress.by_log.is_empty() {
            true => Bitmap::empty(batch.id.count),
            false => Bitmap::parse(&progress.by_log, batch.id.count).unwrap_or_else(|_| Bitmap::empty(batch.id.count)),
        };
        if !settled.contains(&by_log) || by_log.is_empty() != progress.by_log.is_empty() {
            self.out.find(format!("batch {number}: expected settled orders as settled by the log, found others"));
        }
        for i in settled.iter().filter(|i| !certified.get(*i) && !by_log.get(*i)) {
            self.out.find(format!("batch {number}, order {i}: settled, expected a certificate, found none that holds"));
        }
        let network_id = self.authority.committee().network.id;
        for (order, _) in batch.orders.iter().zip(0..).filter(|(_, i)| settled.get(*i)) {
            let Some(order) =
                order.as_ref().ok().filter(|o| o.transaction_type == TYPE_RECOVER && o.network_id == network_id)
            else {
                continue;
            };
            let open = Content::decode(order).ok().and_then(|content| content.open);
            self.books.recovers.entry((order.network_id, order.actor)).or_default().insert(order.seqnum, open);
        }
        Ok(())
    }

    fn certified(&mut self, certificate: &wire::Certificate, batch: &DecodedBatch) -> Result<Bitmap> {
        self.out.certificates += 1;
        if !self.signatures {
            let bits: Result<Vec<Bitmap>> =
                certificate.votes.iter().map(|v| Bitmap::parse(&v.bitmap, batch.id.count)).collect();
            return Ok(Bitmap::at_least(&bits?, self.authority.committee().quorum(), batch.id.count));
        }
        let (id, bits) = check_certificate(self.authority.committee(), certificate)?;
        if id != batch.id {
            return Err(crate::Error::expected(
                crate::Code::BadRoot,
                "root of the certificate",
                hex::encode(batch.id.root),
                hex::encode(id.root),
            ));
        }
        Ok(bits)
    }

    /// Looks which orders the settled stream takes back: they leave nothing in their accounts.
    fn undone(&mut self) -> Result<()> {
        for entry in Pages::new(self.state, Table::Settled) {
            let (key, value) = entry?;
            let entry: wire::SettledEntry = decode(Table::Settled, &key, value)?;
            let number = if entry.undone { get_u64(self.state, Table::Roots, &entry.root)? } else { None };
            let (Some(number), Ok(bits)) = (number, Bitmap::parse(&entry.bitmap, entry.count as usize)) else {
                continue;
            };
            self.books.undone.extend(bits.iter().map(|i| ((number, i), false)));
        }
        Ok(())
    }

    /// Follows the settled stream and books every order.
    fn settled(&mut self) -> Result<()> {
        for (next, entry) in (0_u64..).zip(Pages::new(self.state, Table::Settled)) {
            let (key, value) = entry?;
            let entry: wire::SettledEntry = decode(Table::Settled, &key, value)?;
            let at = format!("settled entry {next}");
            self.out.expect(format!("{at}: position of its key"), next, number_of(Table::Settled, &key)?);
            self.out.expect(format!("{at}: position"), next, entry.position);
            let Some(number) = get_u64(self.state, Table::Roots, &entry.root)? else {
                self.out.find(format!("{at}: expected a stored batch, found no {}", hex::encode(&entry.root)));
                continue;
            };
            let key = number.to_be_bytes();
            let record: wire::BatchRecord = read(self.state, Table::Batches, &key)?.unwrap_or_default();
            let progress: wire::ProgressRecord = read(self.state, Table::Progress, &key)?.unwrap_or_default();
            let count = entry.count as usize;
            let bits = Bitmap::parse(&entry.bitmap, count);
            let (Ok(batch), Ok(bits), Ok(settled)) =
                (decode_batch(&record.orders), bits, Bitmap::parse(&progress.settled, count))
            else {
                self.out.find(format!("{at}: expected the {count} orders of batch {number}, found others"));
                continue;
            };
            self.out.expect(format!("{at}: orders in its batch"), batch.id.count, count);
            if bits.is_empty() {
                self.out.find(format!("{at}: expected orders, found none"));
            }
            for i in bits.iter() {
                if settled.get(i) == self.books.undone.contains_key(&(number, i)) {
                    let text = "expected an order that batch";
                    self.out.find(format!("{at}: {text} {number} has as settled, unless taken back; found order {i}"));
                }
                match batch.orders.get(i) {
                    Some(Ok(order)) if entry.undone => self.book_undone(number, i, order),
                    Some(Ok(order)) => self.book_order(number, i, order)?,
                    _ => self.out.find(format!("{at}: expected an order at {i} of batch {number}, found none")),
                }
            }
        }
        Ok(())
    }

    /// Books every credit.
    fn credits(&mut self) -> Result<()> {
        let mut next = 0;
        for entry in Pages::new(self.state, Table::Credits) {
            let (key, value) = entry?;
            let number = number_of(Table::Credits, &key)?;
            self.out.expect("number of the next credits", next, number);
            next = number + 1;
            let record: wire::CreditsRecord = decode(Table::Credits, &key, value)?;
            for (i, credit) in record.credits.iter().enumerate() {
                self.book_credit(number, i as u32, credit);
            }
        }
        let (sent, received) = (self.local_sent, self.local_received);
        if sent != received {
            let (sent, received) = (sent.shown("credits"), received.shown("credits"));
            self.out.find(format!("credits of this shard's own orders: expected {sent}, found {received}"));
        }
        Ok(())
    }

    /// The outbox holds exactly what its links say.
    fn outbox(&mut self, totals: &Totals) -> Result<()> {
        for entry in Pages::new(self.state, Table::Outbox) {
            let (key, value) = entry?;
            let delivery: wire::Delivery = decode(Table::Outbox, &key, value)?;
            let mut expected = delivery.to_shard.to_be_bytes().to_vec();
            expected.extend_from_slice(&delivery.sequence.to_be_bytes());
            self.out.expect("key of a delivery", hex::encode(expected), hex::encode(&key));
            self.out.expect("sender of a delivery", self.authority.shard(), delivery.from_shard);
            let flow = match delivery.to_shard {
                LOG => self.delivery_to_log(&delivery)?,
                _ => self.delivery(&delivery),
            };
            self.out.outbox.insert((delivery.to_shard, delivery.sequence), flow);
        }
        for shard in (0..self.shards).chain([LOG]) {
            self.link(shard)?;
        }
        self.no_other_links()?;
        let (sent, received) = (sum(&self.out.sent), sum(&self.out.received));
        self.out.expect("totals: sent to other shards", sent, totals.sent);
        self.out.expect("totals: received from other shards", received, totals.received);
        Ok(())
    }

    /// Credits on their way to another shard.
    fn delivery(&mut self, delivery: &wire::Delivery) -> Flow {
        let mut flow = Flow::default();
        for credit in &delivery.credits {
            let source = credit.source.clone().unwrap_or_default();
            flow.add(&credit.address, credit.amount, &source);
            self.out.expect("amount of a delivered credit", source.amount, credit.amount);
            let shard = Address::from_slice(&credit.address).map(|a| a.shard(self.shards)).ok();
            self.out.expect("shard of a delivered credit", Some(delivery.to_shard), shard);
        }
        if !delivery.calls.is_empty() || !delivery.steps.is_empty() {
            self.out
                .find(format!("delivery {} to shard {}: expected only credits", delivery.sequence, delivery.to_shard));
        }
        flow
    }

    fn no_other_links(&mut self) -> Result<()> {
        for entry in Pages::new(self.state, Table::Links) {
            let (key, _) = entry?;
            let known = |shard: u32| {
                let counters = [Link::Sent, Link::Acknowledged, Link::Applied].map(|link| link_key(link, shard));
                (shard < self.shards || shard == LOG) && counters.iter().any(|k| k[..] == key[..])
            };
            let shard = key.get(1..5).and_then(|s| s.try_into().ok()).map(u32::from_be_bytes);
            if !shard.is_some_and(known) {
                self.out
                    .find(format!("links: expected counters of the committee's shards, found {}", hex::encode(&key)));
            }
        }
        Ok(())
    }

    fn link(&mut self, shard: u32) -> Result<()> {
        let counter = |link| Ok(get_u64(self.state, Table::Links, &link_key(link, shard))?.unwrap_or(0));
        let (sent, acknowledged) = (counter(Link::Sent)?, counter(Link::Acknowledged)?);
        let applied = counter(Link::Applied)?;
        self.out.applied.insert(shard, applied);
        self.out.links.insert(shard, (acknowledged, sent));
        let mut in_outbox = Flow::default();
        let mut kept = Vec::new();
        for ((_, sequence), flow) in self.out.outbox.range((shard, 0)..=(shard, u64::MAX)) {
            in_outbox.merge(flow);
            kept.push(*sequence);
        }
        let complete = kept.iter().copied().eq(acknowledged + 1..=sent);
        if !complete {
            let (first, last) = (kept.first(), kept.last());
            self.out.find(format!(
                "outbox to shard {shard}: expected deliveries {} to {sent}, found {} from {first:?} to {last:?}",
                acknowledged + 1,
                kept.len()
            ));
        }
        let paid = self.out.sent.get(&shard).copied().unwrap_or_default();
        // CALLs that settled on the log's word never were in the outbox for it.
        if (acknowledged == 0 && shard != LOG && paid != in_outbox) || paid.amount < in_outbox.amount {
            let (paid, found) = (paid.shown("credits"), in_outbox.shown("credits"));
            self.out.find(format!("outbox to shard {shard}: expected {paid} as orders say, found {found}"));
        }
        Ok(())
    }

    fn totals(&mut self, totals: &Totals) -> Result<()> {
        let raw: Option<wire::TotalsRecord> = read(self.state, Table::Meta, TOTALS_KEY)?;
        if raw.is_none() && self.out.batches + self.out.credits > 0 {
            self.out.find("totals: expected a record, found none");
        }
        let out = &self.out;
        let freed = out.freed_notes.values().map(|times| u64::from(*times)).sum::<u64>();
        let order_records = out.orders.saturating_sub(self.books.recover_orders) + self.books.voids;
        let numbers = [
            ("batches", out.batches, totals.next.0),
            ("settled entries", count(self.state, Table::Settled)?, totals.next.1),
            ("credit records", count(self.state, Table::Credits)?, totals.next.2),
            ("orders", out.orders, totals.orders),
            ("order records", order_records, count(self.state, Table::Orders)?),
            ("voided seqnums and freed notes", self.books.voids + freed, totals.voided),
        ];
        let sums = [
            ("balances", out.balances, totals.accounts),
            ("genesis credits", out.genesis, totals.genesis),
            ("sum", 0, totals.sum()),
        ];
        for (what, expected, found) in numbers {
            self.out.expect(format!("totals: {what}"), expected, found);
        }
        for (what, expected, found) in sums {
            self.out.expect(format!("totals: {what}"), expected, found);
        }
        Ok(())
    }
}

fn sum(flows: &BTreeMap<u32, Flow>) -> i128 {
    flows.values().map(|f| f.amount).sum()
}

fn count(state: &dyn State, table: Table) -> Result<u64> {
    Pages::new(state, table).try_fold(0, |n, entry| entry.map(|_| n + 1))
}

/// A record in exactly the bytes that this version writes.
pub(crate) fn decode<M: Message + Default>(table: Table, key: &[u8], value: Bytes) -> Result<M> {
    let record = M::decode(value.clone()).map_err(|e| corrupt(table, key, &e.to_string()))?;
    match record.encode_to_vec() == value {
        true => Ok(record),
        false => Err(corrupt(table, key, "no record is written in these bytes")),
    }
}

pub(crate) fn read<M: Message + Default>(state: &dyn State, table: Table, key: &[u8]) -> Result<Option<M>> {
    state.get(table, key)?.map(|value| decode(table, key, value)).transpose()
}

fn number_of(table: Table, key: &[u8]) -> Result<u64> {
    <[u8; 8]>::try_from(key).map(u64::from_be_bytes).map_err(|_| corrupt(table, key, "its key is no number"))
}

/// All entries of a table, ascending, a page at a time.
pub(crate) struct Pages<'a> {
    state: &'a dyn State,
    table: Table,
    page: std::vec::IntoIter<(Bytes, Bytes)>,
    from: Option<Vec<u8>>,
}

impl<'a> Pages<'a> {
    pub(crate) fn new(state: &'a dyn State, table: Table) -> Self {
        Pages { state, table, page: Vec::new().into_iter(), from: Some(Vec::new()) }
    }
}

impl Iterator for Pages<'_> {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(entry) = self.page.next() {
            return Some(Ok(entry));
        }
        let from = self.from.take()?;
        match self.state.scan(self.table, &from, PAGE) {
            Ok(page) => {
                // The least key above the last one; a short page is the end.
                self.from = page.last().filter(|_| page.len() == PAGE).map(|(key, _)| [key.as_ref(), &[0]].concat());
                self.page = page.into_iter();
                self.page.next().map(Ok)
            }
            Err(e) => Some(Err(e)),
        }
    }
}
