//! What PBTX says of a transaction or a permission: the strict checks in their one order, each with its code.
//!
//! 1. `DECODE`, `LIMIT`, `EMPTY_BODY`, `NON_CANONICAL` of the envelope, and 2. `DECODE`, `LIMIT`, `NON_CANONICAL`, `INT63`
//!    of the body ([`Order::decode`]).
//! 3. `UNKNOWN_NETWORK`, `UNKNOWN_ACTOR`, `DUPLICATE_COSIGNOR`, `AUTHORITY_COUNT` ([`check_place`]).
//! 4. `SEQ_EXHAUSTED`, `BAD_SEQ`, `BAD_PREV_HASH` ([`check_chain`]).
//! 5. Per authority, the actor's first, `UNKNOWN_COSIGNOR`, `KEY_TYPE`, per signature `SIG_FORMAT`, `SIG_NOT_CANONICAL`,
//!    `KEY_MISMATCH`, `DUPLICATE_SIG`, and then `INSUFFICIENT_WEIGHT` ([`push_authorities`]).
//!
//! Only the last does curve arithmetic. Authorities and `florin pbtx verify` run these very functions.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::envelope::Order;
use crate::error::{Code, Error, Result};
use crate::network_flags::SKIP_SEQ_AND_PREVHASH;
use crate::permission::Permission;
use crate::planted::{self, Bug};
use crate::signatures::Batch;

/// Check 3: the order is of this network, its actor is registered there, cosignors and authorities are as they should
/// be. Errors: `UNKNOWN_NETWORK`, `UNKNOWN_ACTOR`, `DUPLICATE_COSIGNOR`, `AUTHORITY_COUNT`.
pub fn check_place(network_id: u64, actor_is_known: bool, order: &Order) -> Result<()> {
    if order.network_id != network_id {
        return Err(Error::expected(Code::UnknownNetwork, "network_id", network_id, order.network_id));
    }
    if !actor_is_known {
        return Err(unknown_actor(order.actor));
    }
    order.screen_counts()
}

/// Check 4: the order follows the actor's last one, which had `seqnum` (0: there was none) and [`Order::next_hash`]
/// `prev_hash`. Returns both as they are after this order. In networks with [`SKIP_SEQ_AND_PREVHASH`] nothing is checked
/// and both stay. Errors: `SEQ_EXHAUSTED` if no seqnum is left, `BAD_SEQ`, `BAD_PREV_HASH`.
pub fn check_chain(flags: u32, seqnum: u32, prev_hash: u64, order: &Order) -> Result<(u32, u64)> {
    if flags & SKIP_SEQ_AND_PREVHASH != 0 {
        return Ok((seqnum, prev_hash));
    }
    let Some(next) = seqnum.checked_add(1) else {
        return Err(Error::new(
            Code::SeqExhausted,
            format!("the actor's last order had seqnum {seqnum}, the last one"),
        ));
    };
    if order.seqnum != next {
        return Err(Error::expected(Code::BadSeq, "seqnum", next, order.seqnum));
    }
    if order.prev_hash != prev_hash {
        return Err(Error::expected(Code::BadPrevHash, "prev_hash", prev_hash, order.prev_hash));
    }
    Ok((next, order.next_hash()))
}

/// Check 5 of an order, as far as it needs no curve arithmetic, which waits for [`Batch::verify`]. `permission_of` finds
/// an account's permission; its error ends everything and says nothing about the order.
pub fn push_authorities(
    batch: &mut Batch,
    tag: usize,
    order: &Order,
    mut permission_of: impl FnMut(u64) -> Result<Option<Permission>>,
) -> Result<()> {
    for (i, account) in std::iter::once(order.actor).chain(order.cosignors.iter().copied()).enumerate() {
        match permission_of(account)? {
            Some(_) if i > 0 && planted::is(Bug::CosignorsUnsigned) => {}
            Some(permission) => batch.push(tag, order, i, &permission),
            None if i == 0 => batch.refuse(tag, unknown_actor(account)),
            None => {
                let message = format!("cosignor #{}: expected a registered actor, found {account}", i - 1);
                batch.refuse(tag, Error::new(Code::UnknownCosignor, message));
            }
        }
    }
    Ok(())
}

/// Check 5 of one order alone. Errors: those of [`push_authorities`] and of [`Batch::verify`].
pub fn check_authorities(order: &Order, permission_of: impl FnMut(u64) -> Result<Option<Permission>>) -> Result<()> {
    judge_authorities(order, permission_of).0
}

/// [`check_authorities`], with the number of curve operations that it took.
fn judge_authorities(
    order: &Order,
    permission_of: impl FnMut(u64) -> Result<Option<Permission>>,
) -> (Result<()>, usize) {
    let mut batch = Batch::new();
    if let Err(e) = push_authorities(&mut batch, 0, order, permission_of) {
        return (Err(e), 0);
    }
    let outcome = batch.verify();
    let first_error = outcome.results.into_iter().find_map(|(_, result)| result.err());
    (first_error.map_or(Ok(()), Err), outcome.verifications)
}

fn unknown_actor(actor: u64) -> Error {
    Error::expected(Code::UnknownActor, "actor", "one that is registered", actor)
}

/// An actor of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    /// Its permission. None: it was removed, and only its sequence is kept.
    pub permission: Option<Permission>,
    /// seqnum of its last order; 0 before the first.
    pub seqnum: u32,
    /// [`Order::next_hash`] of its last order; 0 before the first.
    pub prev_hash: u64,
}

/// A network before something happens in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Its id.
    pub id: u64,
    /// Its flags ([`crate::network_flags`]).
    pub flags: u32,
    /// All actors that matter, by id.
    pub actors: BTreeMap<u64, Actor>,
}

/// What the checks came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// seqnum and prev_hash of the actor afterwards, or what is wrong.
    pub next: Result<(u32, u64)>,
    /// Curve operations that it took: verifications and key recoveries.
    pub verifications: usize,
}

impl Network {
    /// Judges an encoded `pbtx.Transaction` by all checks in their order.
    pub fn judge_transaction(&self, raw: Bytes) -> Verdict {
        let cheap = Order::decode(raw).and_then(|order| {
            let actor = self.actors.get(&order.actor).filter(|actor| actor.permission.is_some());
            check_place(self.id, actor.is_some(), &order)?;
            let (seqnum, prev_hash) = actor.map_or((0, 0), |actor| (actor.seqnum, actor.prev_hash));
            Ok((check_chain(self.flags, seqnum, prev_hash, &order)?, order))
        });
        match cheap {
            Ok((next, order)) => {
                let permission_of = |id| Ok(self.actors.get(&id).and_then(|actor| actor.permission.clone()));
                let (signed, verifications) = judge_authorities(&order, permission_of);
                Verdict { next: signed.map(|()| next), verifications }
            }
            Err(e) => Verdict { next: Err(e), verifications: 0 },
        }
    }

    /// Judges the registration or change of an actor with this encoded `pbtx.Permission`
    /// ([`Permission::decode_actor`]). Its sequence stays what it was, also if the actor was removed in between.
    pub fn judge_permission(&self, encoded: &[u8]) -> Verdict {
        let kept = |actor: u64| self.actors.get(&actor).map_or((0, 0), |actor| (actor.seqnum, actor.prev_hash));
        let next = Permission::decode_actor(encoded).map(|permission| kept(permission.actor));
        Verdict { next, verifications: 0 }
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
