//! What became of an order, and the state of an account, as `f + 1` authorities agree.

use florin_core::address::Address;
use florin_core::committee::Committee;
use florin_core::wire::{self, order_status::State};
use florin_core::{Code, Error, Result};

use super::reads::need;
use super::{Wallet, reads};
use crate::network::Network;

/// What `f + 1` authorities agree became of an order.
#[derive(Clone, Debug)]
pub struct Status {
    /// What they say.
    pub said: wire::OrderStatus,
    /// Authorities that say so.
    pub agreeing: usize,
    /// Orders that hold the sequence number, each at some authority; with two or more it may be locked.
    pub rivals: Vec<bytes::Bytes>,
    /// (name, what it says or why it does not) of the others.
    pub others: Vec<(String, String)>,
}

/// The spending state of an account that `f + 1` authorities agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountState {
    /// Last settled sequence number.
    pub seqnum: u32,
    /// prev_hash of the next order.
    pub prev_hash: u64,
    /// Sequence number of its last settled CALL, 0 if there is none; absent while they don't agree on it.
    pub last_call: Option<u32>,
    /// Sequence number from which a recovery has frozen it, 0 if none has.
    pub frozen: u32,
    /// Authorities that say so.
    pub agreeing: usize,
}

/// What people read.
pub fn name(state: State) -> &'static str {
    match state {
        State::Unknown => "unknown",
        State::Pending => "pending",
        State::Certified => "certified",
        State::Settled => "settled",
        State::Ordered => "ordered",
        State::Failed => "failed",
        State::Void => "void",
    }
}

/// Whether nothing more can happen to the order.
pub fn is_decided(said: &wire::OrderStatus) -> bool {
    match said.state() {
        State::Ordered | State::Failed | State::Void => true,
        State::Settled => !said.calls,
        State::Unknown | State::Pending | State::Certified => false,
    }
}

impl Wallet {
    /// What became of an order, say `f + 1` authorities. Asks once. Errors: `QUORUM_UNREACHABLE` if too few answer,
    /// `UNDECIDED` if they say different things.
    pub async fn status(network: &Network, actor: u64, seqnum: u32) -> Result<Status> {
        agree_status(network.committee(), &network.order_status(actor, seqnum).await)
    }

    /// The spending state of an address that `f + 1` authorities agree on; waits a little for them to agree.
    /// Errors: as of [`Wallet::balance`].
    pub async fn account_state(network: &Network, address: &Address) -> Result<AccountState> {
        reads::retry(|| async move { agree_state(network.committee(), &network.account(address).await) }).await
    }
}

/// Voted orders may differ, and each authority's own is what it says of the rest.
fn same(a: &wire::OrderStatus, b: &wire::OrderStatus) -> bool {
    let voted = a.state() == State::Pending && b.state() == State::Pending;
    let plain = |s: &wire::OrderStatus| wire::OrderStatus { order_id: bytes::Bytes::new(), ..s.clone() };
    a == b || (voted && plain(a) == plain(b))
}

/// The furthest state that `f + 1` authorities give.
pub(crate) fn agree_status(committee: &Committee, replies: &[Result<wire::OrderStatus>]) -> Result<Status> {
    let needed = committee.validity();
    need(committee, replies, needed)?;
    let said: Vec<&wire::OrderStatus> = replies.iter().flatten().collect();
    let counted = said.iter().map(|s| (*s, said.iter().filter(|o| same(s, o)).count()));
    let best = counted.filter(|(_, n)| *n >= needed).max_by_key(|(s, n)| (s.state, *n));
    let names = committee.authorities.iter().map(|a| a.name.clone());
    let Some((best, agreeing)) = best else {
        let told = names.zip(replies).filter_map(|(name, r)| Some(format!("{name}: {}", text(r.as_ref().ok()?))));
        let message = format!("no {needed} authorities agree: {}", told.collect::<Vec<_>>().join(", "));
        return Err(Error::new(Code::Undecided, message));
    };
    let others = names.zip(replies).filter_map(|(name, reply)| match reply {
        Ok(said) if same(said, best) => None,
        Ok(said) => Some((name, text(said))),
        Err(e) => Some((name, e.to_string())),
    });
    let mut rivals: Vec<bytes::Bytes> =
        said.iter().filter(|s| s.state() == State::Pending).map(|s| s.order_id.clone()).collect();
    rivals.sort_unstable();
    rivals.dedup();
    Ok(Status { said: best.clone(), agreeing, rivals, others: others.collect() })
}

/// A status in one line.
fn text(said: &wire::OrderStatus) -> String {
    let state = name(said.state());
    match said.state() {
        State::Ordered => format!("{state} in session {}, unit {}", said.session, said.index),
        State::Failed => {
            let code = Code::from_number(said.code).map_or("UNKNOWN", Code::name);
            format!("{state} in session {}, unit {}: {code}", said.session, said.index)
        }
        State::Pending => format!("{state} {}", hex::encode(&said.order_id)),
        _ => state.into(),
    }
}

/// The newest spending state that `f + 1` authorities give.
pub(super) fn newest_state(committee: &Committee, replies: &[Result<wire::AccountReply>]) -> Option<AccountState> {
    let said: Vec<&wire::AccountReply> = replies.iter().flatten().collect();
    let enough = |n: usize| n >= committee.validity();
    let at = |r: &wire::AccountReply| (r.seqnum, r.prev_hash);
    let counted = said.iter().map(|r| (*r, said.iter().filter(|o| at(o) == at(r)).count()));
    let (best, agreeing) = counted.filter(|(_, n)| enough(*n)).max_by_key(|(r, n)| (r.seqnum, *n))?;
    // An authority that has voted for a CALL tells that one's number instead.
    let calls = said.iter().filter(|r| at(r) == at(best) && r.last_call <= r.seqnum).map(|r| r.last_call);
    let frozen = said.iter().map(|r| r.frozen).filter(|f| *f != 0);
    let most = |numbers: Vec<u32>| numbers.iter().copied().find(|n| enough(numbers.iter().filter(|o| *o == n).count()));
    Some(AccountState {
        seqnum: best.seqnum,
        prev_hash: best.prev_hash,
        last_call: most(calls.collect()),
        frozen: most(frozen.collect()).unwrap_or(0),
        agreeing,
    })
}

fn agree_state(committee: &Committee, replies: &[Result<wire::AccountReply>]) -> Result<AccountState> {
    need(committee, replies, committee.validity())?;
    newest_state(committee, replies).ok_or_else(|| {
        let names = committee.authorities.iter().map(|a| &a.name);
        let told = names.zip(replies).filter_map(|(name, r)| r.as_ref().ok().map(|r| (name, r)));
        let told: Vec<String> = told.map(|(name, r)| format!("{name}: {} orders", r.seqnum)).collect();
        Error::new(Code::Undecided, format!("no {} authorities agree: {}", committee.validity(), told.join(", ")))
    })
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
