//! Notes of e-cash: spent by bearer orders, issued by these and by payments.
//!
//! Safety, beside that of every order ([`super`]):
//!
//! 1. *One vote a note.* A nonce's record names at most one order, and a vote's bit is set only for an order that all of its
//!    notes name. All notes are on shard 0, so an order locks all of its notes or none, in one step.
//! 2. *Spent once.* A certified order spends its notes whatever they were locked by here: no other order that names them
//!    can be certified, unless the log has freed them between the two. Then the second names how often, and
//!    the first is void: what a note was freed from never settles ([`super::recover_notes`]).
//! 3. *Issued once.* Notes are issued where an order settles, with their posting. A signature share is computed from a
//!    settled order and nothing else, and is the same whenever it is asked for.
//!
//! The curve arithmetic needs no state. [`Authority::check_notes`] does it for a request beside the shard's thread, and
//! [`Authority::note_shares`] after it; neither decides anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::Authority;
use super::changes::Changes;
use super::issued::Issued;
use super::recover_notes::{taken, waits_no_more};
use super::settle::{Step, conflict, entry_of, log_call};
use super::state::{State, Table, get_record, order_id_key};
use super::vote::{Pass, VOTED_OTHER};
use crate::batch::{DecodedBatch, decode_batch};
use crate::bearer::{self, Bearer, NoteAsked};
use crate::bitmap::Bitmap;
use crate::cash::batch::verify_notes;
use crate::cash::blind::{Nonce, NoteSignature, TierKey};
use crate::cash::lately::Lately;
use crate::cash::mint_keys::MintKeys;
use crate::certificate::BatchId;
use crate::content::{Action, Content, TYPE_BEARER, TYPE_RECOVER_NOTES};
use crate::envelope::Order;
use crate::error::{Code, Error, Result};
use crate::limits::{NOTES_PER_BATCH_MAX, NOTES_PER_QUERY_MAX};
use crate::merkle::Hash;
use crate::planted::{self, Bug};
use crate::signatures::verify_keys;
use crate::wire::{self, credit_entry::Kind, note_state};

/// What the signatures of bearer orders are worth, by sha256 of the envelope.
#[derive(Clone, Debug, Default)]
pub struct NoteChecks {
    verdicts: BTreeMap<Hash, Result<()>>,
    /// Whether all that the budget of a batch allows is done.
    complete: bool,
}

/// A bearer order whose place among the notes allows it.
struct Candidate<'a> {
    raw: Hash,
    order: &'a Order,
    bearer: Bearer,
}

/// Whether an order may have its notes.
enum Place {
    /// It has them.
    Held,
    Open,
}

/// Why it may not, and the batch and index of an order that it may be shown.
type Refusal = (Error, Option<(u64, u32)>);

/// Whether the order spends or frees notes, and so has no account.
pub(crate) fn is_bearer(order: &Order) -> bool {
    matches!(order.transaction_type, TYPE_BEARER | TYPE_RECOVER_NOTES)
}

impl Authority {
    /// The keys of e-cash, once they are made.
    pub fn mint(&self) -> Option<Arc<MintKeys>> {
        self.mint.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Gives it the keys of e-cash: from now on it votes for orders with notes, and signs what settles.
    pub fn set_mint(&self, keys: Arc<MintKeys>) {
        *self.mint.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(keys);
    }

    /// Checks all signatures of the bearer orders in a batch that `state` does not refuse anyway. Changes nothing; made for
    /// another thread than the one that votes. Errors: those of the storage.
    pub fn check_notes(&self, now_us: u64, raw: &[Bytes], state: &dyn State) -> Result<NoteChecks> {
        let mut checks = NoteChecks { complete: true, ..Default::default() };
        let orders: Vec<Result<Order>> = raw.iter().map(|bytes| Order::decode(bytes.clone())).collect();
        if orders.iter().any(|order| order.as_ref().is_ok_and(is_bearer)) {
            self.complete_checks(&orders, &mut checks, &mut Changes::new(now_us, state)?)?;
        }
        Ok(checks)
    }

    /// The same where nobody has done it before.
    pub(super) fn complete(
        &self,
        batch: &DecodedBatch,
        checks: &mut NoteChecks,
        changes: &mut Changes<'_>,
    ) -> Result<()> {
        match checks.complete {
            true => Ok(()),
            false => self.complete_checks(&batch.orders, checks, changes),
        }
    }

    fn complete_checks(
        &self,
        orders: &[Result<Order>],
        checks: &mut NoteChecks,
        changes: &mut Changes<'_>,
    ) -> Result<()> {
        let Some(keys) = self.mint() else { return Ok(()) };
        let mut candidates = Vec::new();
        let mut notes = 0;
        let of_bearers = orders.iter().flatten().filter(|o| is_bearer(o) && o.network_id == self.committee.network.id);
        for order in of_bearers {
            let raw: Hash = Sha256::digest(&order.raw).into();
            if checks.verdicts.contains_key(&raw) {
                continue;
            }
            let Ok(bearer) = self.check_bearer_form(order, &keys) else { continue };
            if !matches!(self.place(order, &bearer, changes)?, Ok(Place::Open)) {
                continue;
            }
            notes += bearer.notes.len() + bearer.asked.len();
            if notes > NOTES_PER_BATCH_MAX {
                break;
            }
            candidates.push(Candidate { raw, order, bearer });
        }
        for (candidate, verdict) in candidates.iter().zip(verify(&candidates, &keys, &self.lately)) {
            checks.verdicts.insert(candidate.raw, verdict);
        }
        Ok(())
    }

    /// All checks of a bearer order, and its locks. The outer error is a fault of the storage.
    pub(super) fn check_bearer(
        &self,
        order: &Order,
        index: usize,
        checks: &NoteChecks,
        pass: &mut Pass,
        changes: &mut Changes<'_>,
    ) -> Result<Result<()>> {
        let form = self.mint().ok_or_else(not_ready).and_then(|keys| self.check_bearer_form(order, &keys));
        let bearer = match form {
            Ok(bearer) => bearer,
            Err(e) => return Ok(Err(e)),
        };
        match self.place(order, &bearer, changes)? {
            Ok(Place::Held) => return Ok(Ok(())),
            Ok(Place::Open) => {}
            Err((e, locked_by)) => return Ok(Err(pass.show(e, locked_by, changes)?)),
        }
        match checks.verdicts.get(&Hash::from(Sha256::digest(&order.raw))) {
            Some(Ok(())) => {}
            Some(Err(e)) => return Ok(Err(e.clone())),
            None => {
                let what = format!("the orders before it may have the {NOTES_PER_BATCH_MAX} notes of a batch");
                return Ok(Err(Error::new(Code::Busy, format!("its notes were not checked: {what}; ask again"))));
            }
        }
        if order.transaction_type == TYPE_BEARER {
            for note in &bearer.notes {
                let before = changes.note(&note.nonce)?.clone();
                changes.put_note(note.nonce, taken(order, pass.batch, index, note, &before));
            }
            pass.notes_locked = true;
        }
        Ok(Ok(()))
    }

    fn check_bearer_form(&self, order: &Order, keys: &MintKeys) -> Result<Bearer> {
        bearer::check_frame(order)?;
        self.check_shard(order)?;
        let content = Content::decode(order)?;
        let (Action::Bearer(bearer) | Action::RecoverNotes(bearer)) = content.action else {
            return Err(Error::new(Code::BadContent, "a bearer order spends notes"));
        };
        bearer::signatures(order, &bearer)?;
        let tiers = bearer.notes.iter().map(|n| n.tier).chain(bearer.asked.iter().map(|a| a.tier));
        tiers.into_iter().try_for_each(|tier| check_tier(keys, tier))?;
        Ok(*bearer)
    }

    /// Whether its notes are free for the order. With the error, where the order is that holds one.
    fn place(
        &self,
        order: &Order,
        bearer: &Bearer,
        changes: &mut Changes<'_>,
    ) -> Result<std::result::Result<Place, Refusal>> {
        let key = order_id_key(order.network_id, order.actor, &order.id);
        if let Some(record) = changes.order_by_id(&key)? {
            if record.voted_other {
                let e = Error::new(Code::NoteLocked, format!("the order is settled, {VOTED_OTHER}"));
                return Ok(Err((e, None)));
            }
            return Ok(Ok(Place::Held));
        }
        let now_ms = changes.now_us / 1_000;
        let recovers = order.transaction_type == TYPE_RECOVER_NOTES;
        let mut held = 0;
        for note in &bearer.notes {
            let record = changes.note(&note.nonce)?;
            let named = || format!("note {:?}", note.nonce);
            let refused = |code, text: String| Ok(Err((Error::new(code, text), None)));
            if record.frozen {
                return refused(Code::Recovering, format!("{}: a recovery holds it back", named()));
            }
            if record.recoveries != note.recoveries {
                let (what, found) = (format!("{}: times that the log has freed it", named()), note.recoveries);
                return Ok(Err((Error::expected(Code::NoteFreed, &what, record.recoveries, found), None)));
            }
            if record.order_id == order.id[..] {
                held += 1;
                continue;
            }
            let by = hex::encode(&record.order_id);
            if record.spent {
                return refused(Code::NoteSpent, format!("{}: spent by order {by}", named()));
            }
            if !record.order_id.is_empty() && !recovers && !planted::is(Bug::NoteLockIgnored) {
                let e = Error::new(Code::NoteLocked, format!("{}: held by order {by}", named()));
                return Ok(Err((e, Some((record.batch, record.index)))));
            }
            if let Some(after) = note.after_ms.filter(|after| now_ms < *after && !planted::is(Bug::ReturnedEarly)) {
                let what = format!("{}: time at which its sender may take it back, ms", named());
                return Ok(Err((Error::expected(Code::NoteNotDue, &what, after, now_ms), None)));
            }
        }
        Ok(Ok(if held == bearer.notes.len() { Place::Held } else { Place::Open }))
    }

    /// Checks what a payment asks for, as far as a batch's budget goes.
    pub(super) fn check_asked(&self, asked: &[NoteAsked], pass: &mut Pass) -> Result<()> {
        if asked.is_empty() {
            return Ok(());
        }
        let keys = self.mint().ok_or_else(not_ready)?;
        pass.notes += asked.len();
        if pass.notes > NOTES_PER_BATCH_MAX {
            let what = format!("the orders before this one ask for the {NOTES_PER_BATCH_MAX} notes of a batch");
            return Err(Error::new(Code::Busy, format!("{what}; ask again with fewer of them")));
        }
        asked.iter().try_for_each(|asked| {
            check_tier(&keys, asked.tier).and_then(|()| self.lately.keep(&asked.blinded).map(drop))
        })
    }

    /// Settles a certified bearer order: spends its notes, issues and credits; what is shared goes to the log.
    pub(super) fn settle_bearer(
        &self,
        order: &Order,
        number: u64,
        index: usize,
        by_log: bool,
        changes: &mut Changes<'_>,
    ) -> Result<Step> {
        let key = order_id_key(order.network_id, order.actor, &order.id);
        if changes.order_by_id(&key)?.is_some() {
            changes.progress(number)?.mark_as(index, by_log);
            return Ok(Step::Settled);
        }
        let impossible = |e: Error| conflict(order, &format!("no honest authority accepts it: {e}"));
        let content = Content::decode(order).map_err(impossible)?;
        let (bearer, shared) = match &content.action {
            Action::Bearer(bearer) => (bearer, !bearer.shared.is_empty()),
            Action::RecoverNotes(_) => {
                changes.put_order_by_id(key, order_record(order, number, index, true));
                if !by_log {
                    changes.call(wire::LogCall { recover: true, ..bearer_call(order, number, index) });
                }
                return self.mark(number, index, by_log, changes);
            }
            _ => return Err(conflict(order, "it spends no notes")),
        };
        let (mut waits, mut spent) = (false, None);
        for note in &bearer.notes {
            let record = changes.note(&note.nonce)?;
            if record.recoveries > note.recoveries {
                return Ok(Step::Voided);
            }
            waits |= record.frozen && !by_log || record.recoveries < note.recoveries;
            spent = spent.or(record.spent.then_some(note.nonce));
        }
        match spent {
            _ if waits && by_log => return Err(conflict(order, "it names a recovery that the log does not know")),
            _ if waits => return self.hold_back(order, bearer, number, index, changes),
            Some(nonce) => return Err(conflict(order, &format!("note {nonce:?} was spent by another certified one"))),
            None => {}
        }
        waits_no_more(bearer, changes)?;
        let mut voted_other = false;
        for note in &bearer.notes {
            changes.spend(note.tier);
            let before = changes.note(&note.nonce)?.clone();
            voted_other |= !before.order_id.is_empty() && before.order_id != order.id[..];
            let spent = wire::NoteRecord {
                spent: !planted::is(Bug::NoteUnmarked),
                ..taken(order, number, index, note, &before)
            };
            changes.put_note(note.nonce, spent);
        }
        for asked in &bearer.asked {
            changes.issue(asked)?;
        }
        for (output, credit) in bearer.credits.iter().enumerate() {
            let entry = entry_of(order, &content, output, credit.amount, Kind::Payment);
            let shard = credit.address.shard(self.committee.shards);
            if shard == self.shard {
                changes.credit(order.network_id, &credit.address, credit.amount, entry)?;
            } else {
                let address = Bytes::copy_from_slice(credit.address.as_bytes());
                changes.send(shard, wire::DeliveredCredit { address, amount: credit.amount, source: Some(entry) });
            }
        }
        changes.totals.sent += i128::from(bearer.shared_value);
        if shared && !by_log {
            changes.call(bearer_call(order, number, index));
        }
        changes.put_order_by_id(key, wire::OrderRecord { voted_other, ..order_record(order, number, index, shared) });
        self.mark(number, index, by_log, changes)
    }

    fn mark(&self, number: u64, index: usize, by_log: bool, changes: &mut Changes<'_>) -> Result<Step> {
        let progress = changes.progress(number)?;
        progress.mark(index);
        progress.fresh.set(index);
        if by_log {
            progress.by_log.set(index);
        }
        Ok(Step::Settled)
    }

    /// Signature shares for what a certificate has settled. `given` is what was handed in with it, and nobody has compared it with
    /// the certificate if that settled nothing new: it counts only if it is the batch, and is asked for only if the batch is not
    /// stored, which is so if all of its orders had settled in others. Anything else would be a share for nothing.
    /// Errors: those of the storage.
    pub fn settled_shares(
        &self,
        state: &dyn State,
        batch: &BatchId,
        given: &[Bytes],
        settled: &Bitmap,
    ) -> Result<Vec<wire::NoteShares>> {
        let stored = self.orders_of(state, &batch.root)?;
        if stored.len() == batch.count {
            return self.note_shares(&stored, settled);
        }
        match decode_batch(given) {
            Ok(decoded) if decoded.id == *batch => self.note_shares(given, settled),
            _ => Ok(Vec::new()),
        }
    }

    /// This authority's signature shares for the notes that settled orders of a batch ask for; none if it has no keys.
    /// Only for orders that are settled here, durably. Errors: `DECODE` for what no quorum would have certified.
    pub fn note_shares(&self, orders: &[Bytes], settled: &Bitmap) -> Result<Vec<wire::NoteShares>> {
        let Some(keys) = self.mint().filter(|keys| keys.holds_shares()) else { return Ok(Vec::new()) };
        let mut out = Vec::new();
        let due = |i: usize| settled.get(i) || planted::is(Bug::SharesUnsettled);
        for (index, raw) in orders.iter().enumerate().filter(|(i, _)| due(*i)) {
            let content = Order::decode(raw.clone()).and_then(|order| {
                if order.network_id == self.committee.network.id { Content::decode(&order).map(Some) } else { Ok(None) }
            })?;
            let Some(content) = content.filter(|content| !content.notes.is_empty()) else { continue };
            let shares = content.notes.iter().map(|asked| self.share(&keys, asked.tier, &asked.blinded));
            out.push(wire::NoteShares { index: index as u32, shares: shares.collect::<Result<_>>()? });
        }
        Ok(out)
    }

    /// The same by what was blinded, and what is known of nonces. Errors: `LIMIT`, `BAD_CONTENT`.
    pub fn notes(&self, state: &dyn State, request: &wire::NotesRequest) -> Result<wire::NotesReply> {
        let asked = request.blinded.len() + request.nonces.len();
        if asked > NOTES_PER_QUERY_MAX {
            return Err(Error::expected(Code::Limit, "notes", format!("at most {NOTES_PER_QUERY_MAX}"), asked));
        }
        if !request.nonces.is_empty() {
            self.served(self.committee.network.id, 0)?;
        }
        let keys = self.mint().filter(|keys| keys.holds_shares());
        let mut reply = wire::NotesReply::default();
        for blinded in &request.blinded {
            let tiers: Vec<u32> = Issued::load(state, blinded)?.tiers().collect();
            let shares = match &keys {
                Some(keys) => tiers.iter().map(|tier| self.share(keys, *tier, blinded)).collect::<Result<_>>()?,
                None => Vec::new(),
            };
            reply.issued.push(wire::IssuedNote { tiers, shares });
        }
        for nonce in &request.nonces {
            let record: wire::NoteRecord = get_record(state, Table::Notes, nonce)?.unwrap_or_default();
            let state = match (record.frozen, record.spent, record.order_id.is_empty()) {
                (true, ..) => note_state::State::Frozen,
                (_, true, _) => note_state::State::Spent,
                (.., false) => note_state::State::Locked,
                (.., true) => note_state::State::Free,
            };
            let (order_id, recoveries) = (record.order_id, record.recoveries);
            reply.states.push(wire::NoteState { state: state as i32, order_id, recoveries });
        }
        Ok(reply)
    }

    fn share(&self, keys: &MintKeys, tier: u32, blinded: &Bytes) -> Result<Bytes> {
        let share = keys.share(tier).ok_or_else(not_ready)?;
        let point = self.lately.parse(blinded)?;
        Ok(Bytes::copy_from_slice(&share.sign(&point).to_bytes()))
    }
}

/// What the signatures of each candidate are worth: first those of the owners, all together, then what the points are, then the
/// committee's, all together.
fn verify(candidates: &[Candidate<'_>], keys: &MintKeys, lately: &Lately) -> Vec<Result<()>> {
    let mut owners = Vec::new();
    let messages: Vec<[u8; 48]> = candidates.iter().map(|c| bearer::order_message(&c.order.id)).collect();
    for (i, c) in candidates.iter().enumerate() {
        let signatures = bearer::signatures(c.order, &c.bearer).unwrap_or_default();
        for (note, sig) in c.bearer.notes.iter().zip(signatures) {
            let (committee, owner) = sig.split_at(48);
            owners.push((i, note, committee, <&[u8; 64]>::try_from(owner).expect("112 bytes less 48")));
        }
    }
    let mut verdicts: Vec<Result<()>> = vec![Ok(()); candidates.len()];
    let true_ones = verify_keys(owners.iter().map(|(i, note, _, owner)| (&note.key, *owner, &messages[*i][..])));
    for ((i, note, ..), is_true) in owners.iter().zip(true_ones) {
        if !is_true && verdicts[*i].is_ok() && !planted::is(Bug::OwnerUnchecked) {
            let text = format!("the order is not signed with the key of note {:?}", note.nonce);
            verdicts[*i] = Err(Error::new(Code::KeyMismatch, text));
        }
    }
    for (c, verdict) in candidates.iter().zip(&mut verdicts).filter(|(_, verdict)| verdict.is_ok()) {
        *verdict = c.bearer.asked.iter().try_for_each(|asked| lately.keep(&asked.blinded).map(drop));
    }
    let mut notes: Vec<(TierKey, Nonce, NoteSignature)> = Vec::new();
    let mut of = Vec::new();
    for (i, note, committee, _) in &owners {
        if verdicts[*i].is_err() {
            continue;
        }
        let key = keys.tier_key(note.tier).ok_or_else(not_ready);
        match key.and_then(|key| Ok((*key, note.nonce, NoteSignature::parse(committee)?))) {
            Ok(claim) => {
                notes.push(claim);
                of.push((*i, note.nonce, note.tier));
            }
            Err(e) => verdicts[*i] = Err(Error::new(Code::BadNote, format!("note {:?}: {}", note.nonce, e.message))),
        }
    }
    for ((i, nonce, tier), is_note) in of.into_iter().zip(verify_notes(&notes)) {
        if !is_note && verdicts[i].is_ok() && !planted::is(Bug::NoteUnverified) {
            let text = format!("{nonce:?} is no note of tier {tier}: the committee did not sign it");
            verdicts[i] = Err(Error::new(Code::BadNote, text));
        }
    }
    verdicts
}

fn check_tier(keys: &MintKeys, tier: u32) -> Result<()> {
    match (tier as usize) < keys.tiers() {
        true => Ok(()),
        false => Err(Error::expected(Code::BadContent, "tier", format!("below {}", keys.tiers()), tier)),
    }
}

fn not_ready() -> Error {
    Error::new(Code::CashNotReady, "this authority has no keys of e-cash")
}

fn bearer_call(order: &Order, batch: u64, index: usize) -> wire::LogCall {
    wire::LogCall { order_id: Bytes::copy_from_slice(&order.id), ..log_call(order, batch, index) }
}

fn order_record(order: &Order, batch: u64, index: usize, call: bool) -> wire::OrderRecord {
    let order_id = Bytes::copy_from_slice(&order.id);
    wire::OrderRecord { order_id, batch, index: index as u32, call, ..Default::default() }
}
