//! The audit of the log: computes from its units what its records must say, by other code than the code that wrote
//! them, and names every difference.
//!
//! What it takes from the records, because nothing else says it without applying every unit again: why an order
//! failed (code and message), in which of several units with the order it was applied, what recoveries have decided or are about to (`CallerRecord.voided`, `recovered`,
//! `RecoveryRecord`, `NoteRecoveryRecord`; the shards are held to them by [`crate::authority::audit::audit_authority`]), and the state hash
//! inside an open session. Units of an open session that no order came of are held to nothing either: the next
//! header is. Memory grows with accounts and networks, not with history.

mod books;
mod channels;
mod dkg;
mod objects;
mod outbox;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prost::Message;
use sha2::{Digest, Sha256};

use super::OrderedLog;
use super::book::Book;
use super::modules::MODULES;
use super::session;
use crate::authority::audit::{Calls, FINDINGS_MAX, Flow, Known, Pages, decode};
use crate::authority::state::{State, Table, get_u64};
use crate::error::Result;
use crate::merkle::{self, Hash};
use crate::wire;
use books::Books;

/// CALLs of one account that are remembered one by one.
const NEWEST_MAX: usize = 64;

/// What an audit of the log came to.
#[derive(Clone, Debug, Default)]
pub struct LogAudit {
    /// The payment network.
    pub network_id: u64,
    /// Sessions closed.
    pub sessions: u64,
    /// Units applied in the open session.
    pub units: u32,
    /// Orders applied.
    pub orders: u64,
    /// Debited from accounts for it, minor units.
    pub received: i128,
    /// What it credits, by shard.
    pub sent: BTreeMap<u32, Flow>,
    /// Held by modules, minor units, by name.
    pub held: Vec<(&'static str, i128)>,
    /// Bearer orders with shared outputs that are applied.
    pub bearers: Flow,
    /// What it knows of accounts, by (network, actor).
    pub callers: BTreeMap<(u64, u64), CallerAudit>,
    /// PBTX networks and actors, by their shard.
    pub registry: BTreeMap<u32, Known>,
    /// Seqnum of open recoveries, by (network, actor).
    pub recoveries: BTreeMap<(u64, u64), u32>,
    /// Nonces of open recoveries.
    pub note_recoveries: BTreeSet<Vec<u8>>,
    /// Nonces that recoveries have freed, with how often.
    pub freed_notes: BTreeMap<Vec<u8>, u32>,
    /// Last delivery acknowledged and last sent, by shard.
    pub links: BTreeMap<u32, (u64, u64)>,
    /// Deliveries that are still kept, by shard and sequence.
    pub outbox: BTreeMap<(u32, u64), Flow>,
    /// What is wrong, at most [`FINDINGS_MAX`].
    pub findings: Vec<String>,
    /// How much is wrong.
    pub findings_total: u64,
}

/// What the log knows of one account.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CallerAudit {
    /// CALLs applied.
    pub calls: Calls,
    /// The newest of them, by seqnum.
    pub newest: VecDeque<(u32, Flow)>,
    /// Voided seqnums above the last CALL.
    pub voided: Vec<u32>,
    /// Highest seqnum that a recovery has decided.
    pub recovered: u32,
}

impl LogAudit {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings_total == 0
    }

    fn find(&mut self, what: impl Into<String>) {
        self.findings_total += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(format!("log: {}", what.into()));
        }
    }

    fn expect<T: PartialEq + std::fmt::Debug>(&mut self, what: impl Into<String>, expected: T, found: T) {
        if expected != found {
            self.find(format!("{}: expected {expected:?}, found {found:?}", what.into()));
        }
    }
}

/// Audits the log from its disk. Without `signatures` neither those of sessions nor those of certificates are
/// verified, which is much faster. Errors: `STORAGE_FAILED`, `STORAGE_CORRUPT` where a record does not even decode.
pub fn audit_log(log: &OrderedLog, state: &dyn State, signatures: bool) -> Result<LogAudit> {
    let book = log.book(state)?;
    let books = Books::new(log.committee().size());
    let mut audit = Audit { log, state, signatures, out: LogAudit::default(), books };
    audit.out.network_id = log.committee().network.id;
    audit.out.sessions = book.session;
    audit.out.units = book.units;
    audit.sessions(&book)?;
    audit.objects(&book)?;
    audit.outbox()?;
    audit.book(&book)?;
    Ok(audit.out)
}

struct Audit<'a> {
    log: &'a OrderedLog,
    state: &'a dyn State,
    signatures: bool,
    out: LogAudit,
    books: Books,
}

impl Audit<'_> {
    /// Every session follows the one before, has the units of its header, and the time that they lead to.
    fn sessions(&mut self, book: &Book) -> Result<()> {
        let mut units = Pages::new(self.state, Table::Units).peekable();
        let mut sessions = Pages::new(self.state, Table::Sessions);
        let mut previous = bytes::Bytes::new();
        let (mut signed, mut gap) = (0, false);
        let mut last_hash: Option<bytes::Bytes> = None;
        for number in 0..=book.session {
            let mut hashes: Vec<Hash> = Vec::new();
            let mut bytes = 0;
            while let Some(entry) =
                units.next_if(|e| e.as_ref().map_or(true, |(k, _)| k[..] <= session_end(number)[..]))
            {
                let (key, value) = entry?;
                let unit: wire::OrderedUnit = decode(Table::Units, &key, value)?;
                let position = hashes.len() as u32;
                if key[..] != session::unit_key(number, position) {
                    let found = hex::encode(&key);
                    self.out.find(format!("session {number}: expected unit {position} next, found key {found}"));
                }
                hashes.push(session::unit_hash(&unit));
                bytes += unit.data.len() as u64;
                self.unit(&unit, (number, position))?;
            }
            let root = if hashes.is_empty() { vec![] } else { merkle::root(&hashes).to_vec() };
            if number == book.session {
                self.out.expect("units of the open session", book.units as usize, hashes.len());
                self.out.expect("bytes of the open session", book.bytes, bytes);
                if let (true, Some(hash)) = (hashes.is_empty(), &last_hash) {
                    let expected = hex::encode(hash_after(hash, book));
                    self.out.expect(
                        "state hash where no unit follows a header",
                        expected,
                        hex::encode(&book.state_hash),
                    );
                }
                break;
            }
            let at = format!("session {number}");
            let Some(entry) = sessions.next() else {
                self.out.find(format!("{at}: expected its header, found none"));
                return Ok(());
            };
            let (key, value) = entry?;
            self.out.expect(format!("{at}: key"), hex::encode(number.to_be_bytes()), hex::encode(&key));
            let record: wire::SessionRecord = decode(Table::Sessions, &key, value)?;
            let session = record.session.unwrap_or_default();
            let header = session.header.clone().unwrap_or_default();
            self.header(number, &header, (&previous, &root, hashes.len()));
            if !session.signatures.iter().any(|s| s.authority == self.log.index()) {
                self.out.find(format!("{at}: expected this authority's signature, found none"));
            }
            if self.signatures
                && let Err(e) = session::check_signatures(self.log.committee(), &header, &session.signatures)
            {
                self.out.find(format!("{at}: {e}"));
            }
            gap |= session.signatures.len() < self.log.committee().quorum();
            signed += u64::from(!gap);
            previous = bytes::Bytes::copy_from_slice(&session::header_hash(&header));
            last_hash = Some(header.state_hash);
        }
        if units.next().is_some() || sessions.next().is_some() {
            self.out.find("there are units or sessions after the open one");
        }
        self.out.expect("header that the open session follows", &previous, &book.previous);
        let found = get_u64(self.state, Table::Meta, session::SIGNED_KEY)?.unwrap_or(0);
        self.out.expect("sessions that a quorum has signed", signed, found);
        Ok(())
    }

    fn header(&mut self, number: u64, header: &wire::SessionHeader, was: (&[u8], &[u8], usize)) {
        let (previous, root, units) = was;
        let at = format!("session {number}");
        self.out.expect(format!("{at}: number in its header"), number, header.session);
        self.out.expect(format!("{at}: epoch"), self.log.committee().epoch, header.epoch);
        self.out.expect(format!("{at}: header before"), hex::encode(previous), hex::encode(&header.previous));
        self.out.expect(format!("{at}: units"), units, header.units as usize);
        self.out.expect(format!("{at}: root of its units"), hex::encode(root), hex::encode(&header.units_root));
        self.out.expect(format!("{at}: log time"), self.books.time_ms, header.time_ms);
        let none = header.shard_hashes.is_empty() && header.next_committee.is_empty();
        self.out.expect(format!("{at}: whether it has what sessions do not have yet"), false, !none);
    }

    /// The one record of totals.
    fn book(&mut self, book: &Book) -> Result<()> {
        let mut sent: i128 = 0;
        self.out.sent.values().for_each(|f| sent += f.amount);
        let mut sum = sent - self.out.received;
        for module in MODULES {
            let held = module.held(self.state)?;
            let name = module.name();
            self.out.expect(format!("{name}: minor units as booked, and in its records"), module.booked(book), held);
            sum += held;
            self.out.held.push((name, held));
        }
        self.out.expect("postings", 0, sum);
        let books = std::mem::take(&mut self.books);
        let expected = Book {
            time_ms: books.time_ms,
            clocks: books.clocks,
            received: self.out.received,
            sent,
            contracts: books.contracts,
            channels: books.channels.held,
            primary: books.primary.values().sum(),
            deposits: books.deposits,
            redeems: books.redeems,
            last_redeem: books.last_redeem,
            orders: self.out.orders,
            open_recoveries: (self.out.recoveries.len() + self.out.note_recoveries.len()) as u64,
            // Held to the sessions before.
            ..book.clone()
        };
        self.out.expect("totals", &expected, book);
        Ok(())
    }
}

/// State hash after a step that has changed nothing but the totals.
fn hash_after(before: &[u8], book: &Book) -> Hash {
    let book = Book { state_hash: bytes::Bytes::new(), ..book.clone() }.encode().encode_to_vec();
    let hash = Sha256::new().chain_update(b"florin-state-v1").chain_update(before);
    hash.chain_update((book.len() as u64).to_be_bytes()).chain_update(book).finalize().into()
}

/// The largest key of a session's units.
fn session_end(session: u64) -> [u8; 12] {
    session::unit_key(session, u32::MAX)
}
