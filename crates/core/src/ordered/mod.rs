//! The ordered log as a pure state machine: `handle(input, state) -> effects`.
//!
//! Every authority applies the same units in the same order, so all of this is deterministic: no clock but the
//! log's own time, no reads of anything but this state. Certificates of orders that touch shared objects settle
//! their shared side here; their spending side settles at its shard, before or after.
//!
//! Safety rests on four things:
//!
//! 1. *One order.* The engine gives all honest authorities the same units of a session in the same order, and a
//!    session ends at the same unit for all ([`session`]). A quorum signs what it came to: items and state.
//! 2. *Once.* A CALL names the account's CALL before it, so it applies only as the next one of its account
//!    ([`orders`]); one number an account is all that remembers it. A bearer order is remembered by its id ([`bearers`]).
//! 3. *Nothing made, nothing lost.* Each step's postings sum to zero, asserted before it is written ([`book`]).
//!    A shared side that fails refunds what was debited, in the same step.
//! 4. *Final means final.* A recovery voids a seqnum only if no final order can be there ([`recovery`]), and
//!    frees a note only if no final order spends it ([`note_recovery`]).
//!
//! Liveness: every honest authority hands in what its shards have settled, again and again until it is applied.

pub mod audit;
mod bearers;
pub mod book;
pub mod dkg;
pub mod effect;
pub mod engine;
pub mod input;
pub mod item;
pub mod modules;
mod note_recovery;
mod orders;
pub mod query;
mod recovery;
pub mod session;
pub mod step;
mod time;

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::authority::deliver::delivered;
use crate::authority::state::{State, Table, Write};
use crate::bitmap::Bitmap;
use crate::committee::Committee;
use crate::error::{Code, Error, Result};
use crate::limits::{SESSION_BYTES_MAX, SESSION_ROUNDS, UNIT_BYTES_MAX};
use crate::signatures::AuthorityKey;
use crate::wire;
use effect::Effects;
use input::Input;
use step::Step;

/// What is kept of a unit that changed nothing, so that it has its position: it decodes to nothing.
const NOTHING: Bytes = Bytes::from_static(&[0]);

/// What came of an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Took {
    /// It changed something.
    Changed,
    /// It changed nothing, and may be an honest authority's.
    Nothing,
    /// No honest authority would have proposed it.
    Refused,
    /// The same, and that its creator did is in the state now.
    Caught,
}

impl Took {
    fn changed(changed: bool) -> Took {
        if changed { Took::Changed } else { Took::Nothing }
    }
}

/// One authority's log.
pub struct OrderedLog {
    committee: Arc<Committee>,
    index: u32,
    key: Arc<AuthorityKey>,
}

impl OrderedLog {
    /// The log of the authority `index`, which signs with `key`.
    ///
    /// # Panics
    /// If the index is not of the committee.
    pub fn new(committee: Arc<Committee>, index: u32, key: Arc<AuthorityKey>) -> Self {
        assert!((index as usize) < committee.size(), "an authority of the committee");
        OrderedLog { committee, index, key }
    }

    /// Its committee.
    pub fn committee(&self) -> &Arc<Committee> {
        &self.committee
    }

    /// Its index in the committee.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// One step. Errors leave no change behind.
    pub fn handle(&self, input: Input, state: &dyn State) -> Result<Effects> {
        match input {
            Input::Unit { session, position, creator, round, data } => {
                self.unit(session, position, creator, round, data, state)
            }
            Input::Signature { session, signature } => {
                Ok(Effects { writes: self.add_signatures(session, &[signature], state)?, ..Default::default() })
            }
            Input::Close(signed) => self.close_signed(signed, state),
            Input::Delivered { to_shard, applied } => {
                Ok(Effects { writes: delivered(state, to_shard, applied)?, ..Default::default() })
            }
        }
    }

    fn unit(
        &self,
        session: u64,
        position: u32,
        creator: u32,
        round: u32,
        data: Bytes,
        state: &dyn State,
    ) -> Result<Effects> {
        let mut step = Step::new(&self.committee, state)?;
        if session < step.book.session || (session == step.book.session && position < step.book.units) {
            return Ok(Effects::default());
        }
        if session > step.book.session || position > step.book.units {
            let expected = format!("session {}, unit {}", step.book.session, step.book.units);
            let found = format!("session {session}, unit {position}");
            return Err(Error::expected(Code::OutOfOrder, "unit of the log", expected, found));
        }
        if creator as usize >= self.committee.size() || data.len() > UNIT_BYTES_MAX {
            let found = format!("{} bytes by authority {creator}", data.len());
            return Err(Error::expected(Code::Limit, "unit", format!("at most {UNIT_BYTES_MAX} bytes"), found));
        }
        if round >= SESSION_ROUNDS || step.book.bytes + data.len() as u64 > SESSION_BYTES_MAX {
            return self.close(step, state);
        }
        if data.is_empty() {
            return Ok(Effects::default());
        }
        // What does not decode is nobody's but its creator's, and so is all that comes after it in the unit. Only what
        // changed something is kept: junk and repetitions take no disk, and the state is the same without them.
        let (mut kept, mut kept_clock) = (wire::UnitData::default(), false);
        if let Ok(data) = wire::UnitData::decode(data) {
            kept.clock_ms = data.clock_ms;
            step.vote_clock(creator, data.clock_ms);
            kept_clock = data.clock_ms != 0;
            for item in data.items {
                let took = self.item(&item, creator, (session, position), &mut step)?;
                if matches!(took, Took::Changed | Took::Caught) {
                    kept.items.push(item);
                }
                if matches!(took, Took::Refused | Took::Caught) {
                    break;
                }
            }
        }
        let kept = Some(Bytes::from(kept.encode_to_vec())).filter(|kept| !kept.is_empty()).unwrap_or(NOTHING);
        step.book.units += 1;
        step.book.bytes += kept.len() as u64;
        self.decide_due(&mut step)?;
        if kept_clock {
            modules::channels::begin_delays(self.committee.quorum(), &mut step)?;
        }
        let mut effects = step.finish()?;
        let unit = wire::OrderedUnit { creator, data: kept };
        effects.writes.push(Write::put(Table::Units, session::unit_key(session, position), unit.encode_to_vec()));
        effects.units = Some((session, position + 1));
        Ok(effects)
    }

    /// Applies one item, whole or not at all. Errors are faults of this authority.
    fn item(&self, raw: &Bytes, creator: u32, at: (u64, u32), step: &mut Step<'_>) -> Result<Took> {
        use wire::item::Kind;
        let mark = step.mark();
        let applied = match wire::Item::decode(raw.clone()).ok().and_then(|item| item.kind) {
            Some(Kind::Orders(orders)) => self.certified_orders(orders, at, step).map(Took::changed),
            Some(Kind::Report(report)) => self.report(&report, creator, step).map(Took::changed),
            Some(Kind::Dkg(item)) => self.dkg_item(&item, creator, step),
            Some(Kind::NoteReport(report)) => self.note_report(&report, creator, step).map(Took::changed),
            None => return Ok(Took::Refused),
        };
        match applied {
            Err(e) if !e.is_own_fault() => {
                step.rollback(mark);
                Ok(Took::Refused)
            }
            applied => applied,
        }
    }

    /// Ends the session before this unit: the header, with the own signature first.
    fn close(&self, mut step: Step<'_>, state: &dyn State) -> Result<Effects> {
        let header = session::header(&self.committee, &step.book, state)?;
        let session = header.session;
        let signature = session::sign(&self.committee, self.index, &self.key, &header);
        let signed = wire::SignedSession { header: Some(header.clone()), signatures: vec![signature.clone()] };
        step.next_session(&header);
        let mut effects = step.finish()?;
        effects.writes.push(session::record(session, signed));
        effects.closed = Some((session, signature));
        Ok(effects)
    }

    /// A session with signatures of a quorum: one that is closed here gets its signatures, the open one ends, if
    /// all its units are applied and lead to the same state.
    fn close_signed(&self, signed: wire::SignedSession, state: &dyn State) -> Result<Effects> {
        let header = session::check(&self.committee, &signed)?;
        let step = Step::new(&self.committee, state)?;
        if header.session < step.book.session {
            let writes = self.add_signatures(header.session, &signed.signatures, state)?;
            return Ok(Effects { writes, ..Default::default() });
        }
        if header.session > step.book.session || header.units != step.book.units {
            let expected = format!("session {} of {} units", step.book.session, step.book.units);
            let found = format!("session {} of {} units", header.session, header.units);
            return Err(Error::expected(Code::OutOfOrder, "signed session", expected, found));
        }
        let own = session::header(&self.committee, &step.book, state)?;
        if own != header {
            let message = format!(
                "session {}: a quorum signed {}, this authority came to {}",
                header.session,
                hex::encode(session::header_hash(&header)),
                hex::encode(session::header_hash(&own))
            );
            return Err(Error::new(Code::SessionMismatch, message));
        }
        let mut effects = self.close(step, state)?;
        // The record with only the own signature is replaced by one with all of them.
        effects.writes.retain(|w| w.table != Table::Sessions);
        let mut all = signed;
        if let Some((_, own)) = &effects.closed
            && !all.signatures.iter().any(|s| s.authority == own.authority)
        {
            all.signatures.push(own.clone());
        }
        effects.writes.push(session::record(header.session, all));
        effects.writes.extend(self.signed_until(header.session + 1, Some(header.session), state)?);
        Ok(effects)
    }

    /// Signatures of a closed session's header. Those that do not verify are an error, and none is kept.
    fn add_signatures(&self, session: u64, signatures: &[wire::Signed], state: &dyn State) -> Result<Vec<Write>> {
        let mut signed = session::load(state, session)?;
        let header = signed.header.clone().unwrap_or_default();
        session::check_signatures(&self.committee, &header, signatures)?;
        let before = signed.signatures.len();
        let mut seen = Bitmap::empty(self.committee.size());
        signed.signatures.iter().for_each(|s| seen.set(s.authority as usize));
        for s in signatures.iter().filter(|s| !seen.get(s.authority as usize)) {
            signed.signatures.push(s.clone());
        }
        if signed.signatures.len() == before {
            return Ok(Vec::new());
        }
        let complete = signed.signatures.len() >= self.committee.quorum();
        let mut writes = vec![session::record(session, signed)];
        let open = book::Book::load(state, self.committee.size())?.session;
        writes.extend(self.signed_until(open, complete.then_some(session), state)?);
        Ok(writes)
    }

    /// Moves the number of sessions that a quorum has signed without a gap; `fresh` is one that this step completes.
    fn signed_until(&self, open: u64, fresh: Option<u64>, state: &dyn State) -> Result<Option<Write>> {
        let before = session::signed_sessions(state)?;
        let mut signed = before;
        while signed < open
            && (fresh == Some(signed)
                || (before < signed || fresh.is_some())
                    && session::load(state, signed)?.signatures.len() >= self.committee.quorum())
        {
            signed += 1;
        }
        Ok((signed != before).then(|| session::signed_write(signed)))
    }
}

#[cfg(test)]
mod tests;
