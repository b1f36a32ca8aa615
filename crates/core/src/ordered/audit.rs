//! The audit of the log: recomputes from its records what its totals must say.

use super::OrderedLog;
use super::modules::MODULES;
use super::session;
use crate::authority::state::{State, Table};
use crate::error::Result;

/// What an audit of the log came to.
#[derive(Clone, Debug, Default)]
pub struct LogAudit {
    /// Sessions closed.
    pub sessions: u64,
    /// Units applied in the open session.
    pub units: u32,
    /// Orders applied.
    pub orders: u64,
    /// Debited from accounts for it, minor units.
    pub received: i128,
    /// Credited to accounts by it, minor units.
    pub sent: i128,
    /// Held by modules, minor units, by name.
    pub held: Vec<(&'static str, i128)>,
    /// What is wrong.
    pub findings: Vec<String>,
}

/// Audits the log from its disk. Errors: `STORAGE_FAILED`, `STORAGE_CORRUPT` where a record does not even decode.
pub fn audit_log(log: &OrderedLog, state: &dyn State) -> Result<LogAudit> {
    let book = log.book(state)?;
    let mut out = LogAudit {
        sessions: book.session,
        units: book.units,
        orders: book.orders,
        received: book.received,
        sent: book.sent,
        ..Default::default()
    };
    let mut sum = book.sent - book.received;
    for module in MODULES {
        let held = module.held(state)?;
        if held != module.booked(&book) {
            out.findings.push(format!(
                "log, {}: expected {} minor units as booked, found {held} in its records",
                module.name(),
                module.booked(&book)
            ));
        }
        sum += held;
        out.held.push((module.name(), held));
    }
    if sum != 0 {
        out.findings.push(format!("log: expected postings that sum to 0, found {sum}"));
    }
    let mut previous = bytes::Bytes::new();
    for number in 0..book.session {
        let signed = session::load(state, number)?;
        let header = signed.header.clone().unwrap_or_default();
        if header.previous != previous || header.session != number {
            out.findings.push(format!("log, session {number}: its header does not follow the one before"));
        }
        previous = bytes::Bytes::copy_from_slice(&session::header_hash(&header));
        if let Err(e) = session::check_signatures(log.committee(), &header, &signed.signatures) {
            out.findings.push(format!("log, session {number}: {e}"));
        }
        let mut units = Vec::new();
        for position in 0..header.units {
            units.push(session::load_unit(state, number, position)?);
        }
        if !session::units_are(&header, &units) {
            out.findings.push(format!("log, session {number}: its units are not those of its header"));
        }
    }
    if previous != book.previous {
        out.findings.push("log: the last header is not the one that the open session follows".into());
    }
    let next = state.scan(Table::Units, &session::unit_key(book.session, book.units), 1)?;
    if !next.is_empty() {
        out.findings.push("log: there are units after the last applied one".into());
    }
    Ok(out)
}
