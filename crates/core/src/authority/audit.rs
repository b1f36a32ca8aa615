//! The audit: computes from disk what a shard's records must say, by other code than the code that
//! wrote them, and names every difference.
//!
//! It reads the batches, the settled stream and the credits; recomputes accounts and sums from them; and
//! compares those with the records. What was sent and what arrived is compared as sets, by a sum of
//! hashes, so memory grows with accounts and not with history. Faults that need two shards to be seen are
//! found by [`audit_authority`].

mod books;
mod compare;

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use super::Authority;
use super::state::{Link, State, TOTALS_KEY, Table, Totals, corrupt, get_u64, link_key};
use crate::address::Address;
use crate::batch::{DecodedBatch, decode_batch};
use crate::bitmap::Bitmap;
use crate::certificate::check_certificate;
use crate::error::Result;
use crate::wire;
use books::Books;

/// Findings that are written out; more are only counted.
pub const FINDINGS_MAX: usize = 100;
/// Entries of one read.
const PAGE: usize = 256;

/// A multiset of credits, by count, sum and a commutative hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flow {
    /// Credits.
    pub count: u64,
    /// Minor units.
    pub amount: i128,
    /// Sum of the credits' hashes modulo 2^128.
    pub hash: u128,
}

impl Flow {
    /// Adds one credit: to whom, and all that is remembered of where it came from.
    fn add(&mut self, address: &[u8], amount: u64, source: &wire::CreditEntry) {
        let mut h = Sha256::new();
        for part in [address, &amount.to_be_bytes(), &source.encode_to_vec()] {
            h.update((part.len() as u64).to_be_bytes());
            h.update(part);
        }
        let hash: [u8; 32] = h.finalize().into();
        let mut first = [0; 16];
        first.copy_from_slice(&hash[..16]);
        self.count += 1;
        self.amount += amount as i128;
        self.hash = self.hash.wrapping_add(u128::from_be_bytes(first));
    }

    /// Adds all credits of another.
    fn merge(&mut self, other: &Flow) {
        self.count += other.count;
        self.amount += other.amount;
        self.hash = self.hash.wrapping_add(other.hash);
    }

    fn shown(&self) -> String {
        format!("{} credits of {} minor units (set {:032x})", self.count, self.amount, self.hash)
    }
}

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
    /// What settled orders pay to other shards, by shard.
    pub sent: BTreeMap<u32, Flow>,
    /// What other shards' orders were credited here, by shard.
    pub received: BTreeMap<u32, Flow>,
    /// Last delivery applied, by the shard it came from.
    pub applied: BTreeMap<u32, u64>,
    /// Last delivery acknowledged and last sent, by the shard it went to.
    pub links: BTreeMap<u32, (u64, u64)>,
    /// Deliveries that are still kept, by shard and sequence.
    pub outbox: BTreeMap<(u32, u64), Flow>,
    /// What is wrong, at most [`FINDINGS_MAX`].
    pub findings: Vec<String>,
    /// How much is wrong.
    pub findings_total: u64,
}

impl ShardAudit {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings_total == 0
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
    audit.settled()?;
    audit.credits()?;
    let totals = Totals::load(state)?;
    audit.outbox(&totals)?;
    audit.accounts(&totals)?;
    audit.totals(&totals)?;
    Ok(audit.out)
}

/// Compares the shards of one authority: all that each sent has arrived or is in its outbox, and all
/// money is somewhere. The shards must have been read while nothing was delivered between them.
pub fn audit_authority(shards: &[(u32, ShardAudit)]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut sum = 0;
    for (a, sender) in shards {
        sum += sender.balances;
        for (b, receiver) in shards.iter().filter(|(b, _)| b != a) {
            let applied = receiver.applied.get(a).copied().unwrap_or(0);
            let (acknowledged, last) = sender.links.get(b).copied().unwrap_or_default();
            if !(acknowledged..=last).contains(&applied) {
                findings.push(format!(
                    "shard {a} to shard {b}: expected delivery {acknowledged} to {last} as the last applied, found {applied}"
                ));
            }
            let mut accounted = receiver.received.get(a).copied().unwrap_or_default();
            for ((_, sequence), flow) in sender.outbox.range((*b, 0)..=(*b, u64::MAX)) {
                if *sequence > applied {
                    accounted.merge(flow);
                    sum += flow.amount;
                }
            }
            let sent = sender.sent.get(b).copied().unwrap_or_default();
            if sent != accounted {
                findings.push(format!(
                    "shard {a} to shard {b}: expected {} as sent, found {} received or in flight",
                    sent.shown(),
                    accounted.shown()
                ));
            }
        }
    }
    if sum != 0 {
        findings.push(format!("balances and money in flight of all shards: expected 0, found {sum}"));
    }
    let (genesis, issued): (i128, i128) = shards.iter().fold((0, 0), |(g, i), (_, s)| (g + s.genesis, i + s.issued));
    if genesis != issued {
        findings.push(format!("credited by the genesis file: expected {issued} as issued, found {genesis}"));
    }
    findings
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
        for i in settled.iter().filter(|i| !certified.get(*i)) {
            self.out.find(format!("batch {number}, order {i}: settled, expected a certificate, found none that holds"));
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
            if !settled.contains(&bits) {
                self.out.find(format!("{at}: expected orders that batch {number} has as settled, found others"));
            }
            for i in bits.iter() {
                match batch.orders.get(i) {
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
            let (sent, received) = (sent.shown(), received.shown());
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
            let mut flow = Flow::default();
            for credit in &delivery.credits {
                let source = credit.source.clone().unwrap_or_default();
                flow.add(&credit.address, credit.amount, &source);
                self.out.expect("amount of a delivered credit", source.amount, credit.amount);
                let shard = Address::from_slice(&credit.address).map(|a| a.shard(self.shards)).ok();
                self.out.expect("shard of a delivered credit", Some(delivery.to_shard), shard);
            }
            self.out.outbox.insert((delivery.to_shard, delivery.sequence), flow);
        }
        for shard in 0..self.shards {
            self.link(shard)?;
        }
        let (sent, received) = (sum(&self.out.sent), sum(&self.out.received));
        self.out.expect("totals: sent to other shards", sent, totals.sent);
        self.out.expect("totals: received from other shards", received, totals.received);
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
        if (acknowledged == 0 && paid != in_outbox) || paid.amount < in_outbox.amount {
            let (paid, found) = (paid.shown(), in_outbox.shown());
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
        let numbers = [
            ("batches", out.batches, totals.next.0),
            ("settled entries", count(self.state, Table::Settled)?, totals.next.1),
            ("credit records", count(self.state, Table::Credits)?, totals.next.2),
            ("orders", out.orders, totals.orders),
            ("order records", out.orders, count(self.state, Table::Orders)?),
        ];
        let sums = [
            ("balances", out.balances, totals.accounts),
            ("genesis credits", out.genesis, totals.genesis),
            ("sum", 0, totals.accounts + totals.sent - totals.received - totals.genesis + totals.issued),
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
fn decode<M: Message + Default>(table: Table, key: &[u8], value: Bytes) -> Result<M> {
    let record = M::decode(value.clone()).map_err(|e| corrupt(table, key, &e.to_string()))?;
    match record.encode_to_vec() == value {
        true => Ok(record),
        false => Err(corrupt(table, key, "no record is written in these bytes")),
    }
}

fn read<M: Message + Default>(state: &dyn State, table: Table, key: &[u8]) -> Result<Option<M>> {
    state.get(table, key)?.map(|value| decode(table, key, value)).transpose()
}

fn number_of(table: Table, key: &[u8]) -> Result<u64> {
    <[u8; 8]>::try_from(key).map(u64::from_be_bytes).map_err(|_| corrupt(table, key, "its key is no number"))
}

/// All entries of a table, ascending, a page at a time.
struct Pages<'a> {
    state: &'a dyn State,
    table: Table,
    page: std::vec::IntoIter<(Bytes, Bytes)>,
    from: Option<Vec<u8>>,
}

impl<'a> Pages<'a> {
    fn new(state: &'a dyn State, table: Table) -> Self {
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
