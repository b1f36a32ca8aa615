//! Voting: the checks of an order in their order, cheap before costly, and the lock that makes the
//! vote a promise.
//!
//! 1. size, decode, canonical form, ids ([`Order::decode`]); 2. network, shard; 3. counts and duplicates;
//! 4. content and outputs; 5. seqnum against settled and pending orders: the same body again is accepted
//!    again, another body for a voted seqnum is an error that shows the pending one; 6. prev_hash, window;
//! 7. balance, less what pending orders reserve; 8. signatures, in one batch for the whole request. What senders have
//!    signed together is checked before all that ([`super::aggregate`]), but is the last to refuse an order.
//!
//! A CALL is voted for only when all earlier orders of its account are settled here: then its certificate
//! proves that they settle everywhere, and the log never waits for a shard. A RECOVER takes no lock; all it
//! can do is to bring the log to decide ([`crate::ordered`]).

use std::collections::HashSet;

use bytes::Bytes;

use super::aggregate::Marked;
use super::changes::Changes;
use super::mint::{NoteChecks, is_bearer};
use super::state::{Account, Table, get_record, get_u64, order_key};
use super::{Authority, Meter, Phase};
use crate::address::Address;
use crate::batch::decode_batch;
use crate::bitmap::Bitmap;
use crate::certificate::{Promise, sign};
use crate::content::{Action, Content, TYPE_RECOVER};
use crate::envelope::Order;
use crate::error::{Code, Error, Result};
use crate::limits::{PENDING_WINDOW, VERIFICATIONS_PER_BATCH};
use crate::permission::Permission;
use crate::planted::{self, Bug};
use crate::signatures::Batch;
use crate::wire;

/// Bytes of pending orders that one reply shows: many conflicts with a large order must fit a message.
const PENDING_SHOWN_BYTES: usize = 1 << 20;

/// Why there is no vote for what is settled all the same: with both votes anyone could accuse this authority.
pub(super) const VOTED_OTHER: &str = "and this authority had voted for another one; ask for its receipt";

/// One run of the checks over a batch.
pub(super) struct Pass {
    pub batch: u64,
    accepted: Bitmap,
    errors: Vec<wire::OrderError>,
    pub signatures: Batch,
    pub locked: Vec<(u64, u64)>,
    shown: usize,
    /// Notes that payments ask for.
    pub notes: usize,
    /// Whether a bearer order has locked some.
    pub notes_locked: bool,
    /// What accounts with a bad signature may still cost, in verifications.
    pub budget: usize,
}

impl Pass {
    /// The error, with the order that is at a place, unless the reply shows too many already.
    pub fn show(&mut self, mut e: Error, at: Option<(u64, u32)>, changes: &mut Changes<'_>) -> Result<Error> {
        if let Some((batch, index)) = at.filter(|_| self.shown < PENDING_SHOWN_BYTES) {
            let stored = changes.stored_order(batch, index)?;
            e.pending_order = stored.map(|o| o.body).unwrap_or_default();
            // At least a 64th, as each may take reading a whole batch.
            self.shown += e.pending_order.len().max(PENDING_SHOWN_BYTES / 64);
        }
        Ok(e)
    }
}

/// What the first pass over a batch with a bad signature has found.
#[derive(Default)]
struct Suspects {
    /// Accounts with a bad signature; none before the second pass.
    accounts: HashSet<(u64, u64)>,
    /// Orders whose signatures the first pass has looked at. Another that passes now was refused then for what an order
    /// with a bad signature had locked: nobody has looked at it yet.
    verified: HashSet<usize>,
}

impl Suspects {
    /// In the second pass: whether an order's signatures must be checked before it locks anything.
    fn suspect(&self, order: &Order, index: usize) -> Option<bool> {
        let known = !self.accounts.contains(&(order.network_id, order.actor)) && self.verified.contains(&index);
        (!self.accounts.is_empty()).then_some(!known)
    }
}

impl Authority {
    pub(super) fn vote(
        &self,
        raw: Vec<Bytes>,
        mut checks: NoteChecks,
        changes: &mut Changes<'_>,
        meter: &mut dyn Meter,
    ) -> Result<wire::VoteReply> {
        meter.begin(Phase::Decode);
        let batch = decode_batch(&raw)?;
        meter.begin(Phase::State);
        self.check_genesis(&changes.totals)?;
        changes.expect_accounts(raw.len());
        changes.load_accounts(batch.orders.iter().flatten().filter_map(|order| self.payer_of(order)))?;
        let known = get_u64(changes.state, Table::Roots, &batch.id.root)?;
        let number = known.unwrap_or(changes.totals.next.0);

        meter.begin(Phase::Signatures);
        self.complete(&batch, &mut checks, changes)?;
        meter.begin(Phase::State);
        let marked = self.check_marks(&batch, changes, meter)?;
        // Orders of one account build on each other, so a bad signature may undo what later orders of the
        // batch rested on. Then everything is checked once more, and the accounts with a bad signature
        // have theirs checked one by one before they lock anything: two passes are always enough.
        let mut suspects = Suspects::default();
        let (accepted, errors, locked) = loop {
            let mut pass = Pass {
                batch: number,
                accepted: Bitmap::empty(raw.len()),
                errors: Vec::new(),
                signatures: Batch::new(),
                locked: Vec::new(),
                notes: 0,
                notes_locked: false,
                shown: 0,
                budget: VERIFICATIONS_PER_BATCH,
            };
            meter.begin(Phase::State);
            for (i, order) in batch.orders.iter().enumerate() {
                let checked = match order {
                    Ok(order) => self.check_and_lock(order, i, (&suspects, &marked), &checks, &mut pass, changes)?,
                    Err(e) => Err(e.clone()),
                };
                match checked {
                    Ok(()) => pass.accepted.set(i),
                    Err(e) => pass.errors.push(order_error(i, e)),
                }
            }
            meter.begin(Phase::Signatures);
            let signatures = std::mem::take(&mut pass.signatures).verify_knowing(&self.known).results;
            meter.begin(Phase::State);
            if signatures.iter().all(|(_, result)| result.is_ok()) {
                break (pass.accepted, pass.errors, !pass.locked.is_empty() || pass.notes_locked);
            }
            suspects.verified.extend(signatures.iter().map(|(i, _)| *i));
            let bad = signatures.iter().filter(|(_, result)| result.is_err());
            let who = bad.filter_map(|(i, _)| batch.orders[*i].as_ref().ok().map(|o| (o.network_id, o.actor)));
            suspects.accounts.extend(who);
            changes.forget_notes();
            for (network_id, actor) in pass.locked {
                changes.unlock(network_id, actor)?;
            }
        };

        if accepted.is_empty() {
            return Ok(wire::VoteReply { vote: None, errors });
        }
        // A batch that locks nothing new is not kept: whoever repeats orders costs no disk. Its certificate
        // comes with the orders then.
        let id = batch.id;
        if known.is_none() && locked {
            let given = changes.add_batch(id.root, &raw);
            assert_eq!(given, number, "one batch a step");
            self.decoded.keep(raw, batch);
        }
        meter.begin(Phase::Votes);
        let vote = sign(Promise::Vote, &self.committee, self.index, &self.key, &id, &accepted);
        Ok(wire::VoteReply { vote: Some(vote), errors })
    }

    /// All checks of one order, and its lock. The outer error is a fault of the storage, the inner one
    /// the order's. Signatures wait in `pass` for the batch, except those of suspects.
    fn check_and_lock(
        &self,
        order: &Order,
        index: usize,
        (suspects, marked): (&Suspects, &Marked),
        checks: &NoteChecks,
        pass: &mut Pass,
        changes: &mut Changes<'_>,
    ) -> Result<Result<()>> {
        if order.network_id != self.committee.network.id {
            return self.check_pbtx(order, index, suspects.suspect(order, index), pass, changes);
        }
        if is_bearer(order) {
            return self.check_bearer(order, index, checks, pass, changes);
        }
        if let Err(e) = self.check_form(order) {
            return Ok(Err(e));
        }
        let account = changes.account(order.network_id, order.actor)?;
        let recover = order.transaction_type == TYPE_RECOVER;
        if account.is_frozen(order.seqnum) {
            let message = format!("a recovery has frozen the account from seqnum {}", account.frozen);
            return Ok(Err(Error::new(Code::Recovering, message)));
        }
        if order.seqnum as u64 != account.next_seqnum() && !recover {
            return check_repeat(order, pass, changes);
        }
        let check = if recover { Authority::check_recover } else { Authority::check_account };
        let checked = Content::decode(order).and_then(|c| Ok((check(self, order, &c, account)?, c)));
        let ((address, permission, reserved), content) = match checked {
            Ok(both) => both,
            Err(e) => return Ok(Err(e)),
        };
        let balance = changes.balance(order.network_id, &address)?;
        let mut covered = self.check_balance(&address, content.total, reserved, balance);
        if recover && order.seqnum == 1 && balance <= 0 {
            // Anyone can make accounts; only one with money can have locked any.
            covered =
                Err(Error::expected(Code::InsufficientFunds, "minor units of an account to recover", "some", balance));
        }
        if let Err(e) = covered.and_then(|()| self.check_asked(&content.notes, pass)) {
            return Ok(Err(e));
        }
        let sets = match content.sets_bls_keys() {
            Ok(keys) => keys,
            Err(e) => return Ok(Err(e)),
        };
        match (marked.key(index), suspects.suspect(order, index)) {
            (Some(Err(e)), _) => return Ok(Err(e.clone())),
            (Some(Ok(key)), _) if !sets.is_empty() || permission.distils() != Some(*key) => {
                let message = format!("order {index}: who signs the root of a batch sets no BLS key with it");
                return Ok(Err(Error::new(Code::BadAggregate, message)));
            }
            (Some(Ok(_)), _) => {}
            (None, Some(true)) => {
                let mut alone = Batch::new();
                alone.push_setting(index, order, &permission, &sets);
                if let Some((_, Err(e))) = alone.verify_within(&mut pass.budget, &self.known).results.pop() {
                    return Ok(Err(e));
                }
            }
            (None, Some(false)) => {}
            (None, None) => pass.signatures.push_setting(index, order, &permission, &sets),
        }
        if recover {
            return Ok(Ok(()));
        }
        let pending = &mut changes.account_mut(order.network_id, order.actor)?.pending;
        if pending.is_empty() {
            // Most accounts have one at a time.
            pending.reserve_exact(1);
        }
        pending.push(wire::PendingRecord {
            order_id: Bytes::copy_from_slice(&order.id),
            batch: pass.batch,
            index: index as u32,
            amount: content.total,
            set_permission: matches!(content.action, Action::SetPermission(_)),
            call: matches!(content.action, Action::Call { .. }),
            open: content.open.map(|open| Bytes::copy_from_slice(&open)).unwrap_or_default(),
        });
        pass.locked.push((order.network_id, order.actor));
        Ok(Ok(()))
    }

    fn check_form(&self, order: &Order) -> Result<()> {
        self.check_shard(order)?;
        order.screen_counts()?;
        if !order.cosignors.is_empty() {
            return Err(Error::new(
                Code::CosignorsRefused,
                format!("the order names {} cosignors", order.cosignors.len()),
            ));
        }
        Ok(())
    }

    /// Whether the order is of this shard.
    pub(super) fn check_shard(&self, order: &Order) -> Result<()> {
        let shard = self.committee.shard_of(order.network_id, order.actor);
        if shard != self.shard {
            return Err(Error::expected(Code::WrongShard, "shard of the actor", self.shard, shard));
        }
        Ok(())
    }

    /// The account of this shard that an order of the committee's own network is of, but for bearer orders, which have none.
    pub(super) fn payer_of(&self, order: &Order) -> Option<(u64, u64)> {
        let own = order.network_id == self.committee.network.id && !is_bearer(order);
        (own && self.check_shard(order).is_ok()).then_some((order.network_id, order.actor))
    }

    /// Check 6 of an order that has the account's next seqnum. Returns the address that pays, the permission
    /// that must be satisfied, and what pending orders reserve.
    fn check_account(
        &self,
        order: &Order,
        content: &Content,
        account: &Account,
    ) -> Result<(Address, Permission, i128)> {
        let expected = account.next_prev_hash();
        if order.prev_hash != expected && !planted::is(Bug::PrevHashUnchecked) {
            return Err(Error::expected(Code::BadPrevHash, "prev_hash", expected, order.prev_hash));
        }
        if account.pending.len() >= PENDING_WINDOW {
            return Err(Error::expected(
                Code::WindowFull,
                "pending orders",
                format!("below {PENDING_WINDOW}"),
                account.pending.len(),
            ));
        }
        if account.pending.iter().any(|p| p.set_permission) && !planted::is(Bug::RekeyIgnored) {
            return Err(Error::new(Code::PermissionPending, "a change of the account's keys is pending"));
        }
        if order.seqnum == u32::MAX {
            return Err(Error::new(Code::SeqExhausted, "sequence numbers end at 2^32 - 2"));
        }
        // Pending first orders carry the permission themselves, and their successors are checked against it.
        let opening =
            content.open.as_ref().or(account.pending.first().map(|p| &p.open).filter(|open| !open.is_empty()));
        let (address, permission) = match (opening, account.address) {
            (Some(open), _) => (Permission::address_of(order.network_id, open), open),
            (None, Some(address)) => (address, &account.permission),
            (None, None) => {
                return Err(Error::new(Code::UnknownActor, format!("actor {} has no settled order", order.actor)));
            }
        };
        if let Action::Call { account: claimed, call } = &content.action {
            if !account.pending.is_empty() {
                return Err(Error::new(
                    Code::CallWaits,
                    format!("{} orders before this CALL are not settled", account.pending.len()),
                ));
            }
            if call.previous_call != account.last_call {
                let (expected, found) = (account.last_call, call.previous_call);
                return Err(Error::expected(Code::BadCallChain, "previous_call", expected, found));
            }
            check_own(claimed, &address)?;
        }
        let reserved = planted::when(Bug::PendingUnreserved, 0, account.reserved());
        Ok((address, Permission::decode_kept(permission)?, reserved))
    }

    /// The same for a RECOVER: it names the first seqnum that is not settled, whatever is pending there.
    fn check_recover(
        &self,
        order: &Order,
        content: &Content,
        account: &Account,
    ) -> Result<(Address, Permission, i128)> {
        let expected = account.seqnum.saturating_add(1);
        if order.seqnum != expected || expected == u32::MAX {
            return Err(Error::expected(Code::BadSeq, "seqnum to recover", expected, order.seqnum));
        }
        if order.prev_hash != account.prev_hash {
            return Err(Error::expected(Code::BadPrevHash, "prev_hash", account.prev_hash, order.prev_hash));
        }
        let (address, permission) = match (&content.open, account.address) {
            (Some(open), _) => (Permission::address_of(order.network_id, open), open),
            (None, Some(address)) => (address, &account.permission),
            (None, None) => {
                return Err(Error::new(Code::UnknownActor, format!("actor {} has no settled order", order.actor)));
            }
        };
        if let Some(claimed) = content.claimed_account() {
            check_own(claimed, &address)?;
        }
        Ok((address, Permission::decode_kept(permission)?, 0))
    }

    /// Check 7: what the address has, less what pending orders reserve, covers the order.
    fn check_balance(&self, address: &Address, total: u64, reserved: i128, balance: i128) -> Result<()> {
        let limit = if *address == self.issuer { self.committee.network.issuer_limit as i128 } else { 0 };
        let available = balance + limit - reserved + planted::when(Bug::BalanceOffByOne, 1, 0);
        if total > 0 && available < total as i128 {
            let code = if limit > 0 { Code::IssuerLimit } else { Code::InsufficientFunds };
            return Err(Error::expected(code, "minor units available", format!("at least {total}"), available));
        }
        Ok(())
    }
}

fn check_own(claimed: &Address, own: &Address) -> Result<()> {
    if claimed != own {
        let (own, claimed) = (hex::encode(own.as_bytes()), hex::encode(claimed.as_bytes()));
        return Err(Error::expected(Code::BadContent, "address of the account", own, claimed));
    }
    Ok(())
}

/// Check 4: an order whose seqnum is not the next one is a repetition or an error.
pub(super) fn check_repeat(order: &Order, pass: &mut Pass, changes: &mut Changes<'_>) -> Result<Result<()>> {
    let account = changes.account(order.network_id, order.actor)?;
    let next = account.next_seqnum();
    let seqnum = order.seqnum;
    if seqnum as u64 > next || seqnum == 0 {
        return Ok(Err(Error::expected(Code::BadSeq, "seqnum", next, seqnum)));
    }
    if seqnum > account.seqnum {
        let pending = account.pending[(seqnum - account.seqnum - 1) as usize].clone();
        if pending.order_id.as_ref() == order.id || planted::is(Bug::SignsBoth) {
            return Ok(Ok(()));
        }
        let mut e = Error::new(
            Code::PendingConflict,
            format!("seqnum {seqnum} is held by order {}", hex::encode(&pending.order_id)),
        );
        e = pass.show(e, Some((pending.batch, pending.index)), changes)?;
        return Ok(Err(e));
    }
    let settled: Option<wire::OrderRecord> =
        get_record(changes.state, Table::Orders, &order_key(order.network_id, order.actor, seqnum))?;
    Ok(match settled {
        Some(record) if record.order_id.as_ref() == order.id && record.voted_other => {
            Err(Error::new(Code::BadSeq, format!("seqnum {seqnum}: this order is settled, {VOTED_OTHER}")))
        }
        Some(record) if record.order_id.as_ref() == order.id => Ok(()),
        Some(record) if record.order_id.is_empty() => {
            Err(Error::new(Code::Voided, format!("a recovery has voided seqnum {seqnum}")))
        }
        _ => Err(Error::expected(Code::BadSeq, "seqnum", next, format!("{seqnum}, which another order has settled"))),
    })
}

pub(super) fn order_error(index: usize, e: Error) -> wire::OrderError {
    wire::OrderError { index: index as u32, code: e.code as u32, message: e.message, pending_order: e.pending_order }
}
