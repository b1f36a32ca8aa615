//! Freeing an account that its own wallet has locked, by orders of two copies or one that was dropped and one in its
//! place, so that no order for a sequence number gets a quorum of votes.
//!
//! A RECOVER names the first sequence number that is not settled. Its bytes follow from the account's state, so
//! signing it twice is the same order. When the log has it, the account is frozen for ten minutes of log time; then
//! either an order that was certified settles, or the number is void and the account goes on behind it. What waits
//! is in the journal before anything is sent, and nothing else is signed for the account meanwhile: asking again,
//! after whatever crash, goes on waiting.

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::committee::Committee;
use florin_core::content::{TYPE_RECOVER, encode_recover};
use florin_core::distilled::mark_of;
use florin_core::envelope::{Body, Order, encode_body};
use florin_core::limits::RECOVERY_WAIT_MS;
use florin_core::signatures::Batch;
use florin_core::wire::{self, order_status::State};
use florin_core::{Code, Error, Result};

use super::records::Record;
use super::status::{AccountState, newest_state};
use super::{Wallet, sign_envelope};
use crate::network::{Event, Network};
use crate::seed::Seed;

/// Orders that hold the first sequence number of an account that is not settled.
#[derive(Clone, Debug)]
pub struct Rivals {
    /// The account.
    pub state: AccountState,
    /// Different orders, each signed by the account's key. Two or more may have split the votes.
    pub orders: Vec<Order>,
}

/// How far a recovery is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The log does not have it yet.
    Handed,
    /// The account is frozen.
    Frozen {
        /// Log time, milliseconds since 1970.
        now_ms: u64,
        /// Log time by which it is decided.
        until_ms: u64,
    },
    /// An order has settled there, for good.
    Settled {
        /// Its id.
        order_id: Bytes,
    },
    /// Nothing has, and nothing of it moved.
    Void,
}

impl Wallet {
    /// What holds the account's next sequence number at the authorities. Errors: as of [`Wallet::account_state`].
    pub async fn rivals(&self, network: &Network, account: u32) -> Result<Rivals> {
        let address = self.address(account)?;
        let state = Wallet::account_state(network, &address).await?;
        let seqnum = state.seqnum.saturating_add(1);
        let shown = network.order(address.actor(), seqnum).await.into_iter().flatten();
        let shown = shown.filter_map(|reply| Order::decode(reply.receipt?.transaction).ok());
        let place = (self.committee.network.id, address.actor(), seqnum);
        let shown: Vec<Order> = shown.filter(|o| (o.network_id, o.actor, o.seqnum) == place).collect();
        Ok(Rivals { state, orders: self.own_orders(account, &shown)? })
    }

    /// The different orders among those that authorities have shown, one each, that the account's own keys have signed: an authority may
    /// claim anything. Where the order went with its batch's signed root there is a mark instead of a signature; `f + 1` have seen then
    /// that the BLS key has signed.
    pub(super) fn own_orders(&self, account: u32, shown: &[Order]) -> Result<Vec<Order>> {
        let mut own: Vec<Order> = Vec::new();
        for order in shown {
            if own.iter().all(|o| o.id != order.id) && self.signed_here(account, order)? {
                own.push(order.clone());
            }
        }
        for order in shown.iter().filter(|order| mark_of(order).is_some()) {
            let votes = shown.iter().filter(|o| o.id == order.id).count();
            if own.iter().all(|o| o.id != order.id) && votes >= self.committee.validity() {
                own.push(order.clone());
            }
        }
        Ok(own)
    }

    /// Whether the account's own key has signed an order.
    pub(super) fn signed_here(&self, account: u32, order: &Order) -> Result<bool> {
        let mut order = order.clone();
        // A proof of possession may come after the one signature.
        order.authorities.iter_mut().for_each(|authority| authority.sigs.truncate(1));
        let mut batch = Batch::new();
        batch.push(0, &order, 0, &self.permission(account)?);
        Ok(batch.verify().results.iter().all(|(_, r)| r.is_ok()))
    }

    /// Signs a RECOVER of the first sequence number that is not settled, and makes it durable; nothing is sent.
    /// Errors: `UNDECIDED` if the journal knows later orders to be final than the state says; `IO`.
    pub fn sign_recover(&mut self, seed: &Seed, account: u32, state: &AccountState) -> Result<u32> {
        let known = self.account(account).sent.iter().map(|s| s.seqnum).max().unwrap_or(0);
        if known > state.seqnum {
            let expected = format!("{known} final orders, as the journal has");
            return Err(Error::expected(Code::Undecided, "account at the authorities", expected, state.seqnum));
        }
        let permission = self.permission(account)?;
        let address = permission.address(self.committee.network.id);
        let seqnum = state.seqnum.saturating_add(1);
        let open = (seqnum == 1).then(|| permission.encode());
        let body = encode_body(&Body {
            network_id: self.committee.network.id,
            actor: address.actor(),
            cosignors: Vec::new(),
            seqnum,
            prev_hash: state.prev_hash,
            transaction_type: TYPE_RECOVER,
            content: encode_recover(&address, open),
        });
        let envelope = sign_envelope(&seed.key(self.keystore.meta().curve, account)?, &body)?;
        self.record(vec![Record::Recover { account, seqnum, envelope: hex::encode(&envelope) }])?;
        Ok(seqnum)
    }

    /// Hands the signed RECOVER to the committee, which brings it into the log. Errors: `USAGE` if none is signed;
    /// why it is not final yet.
    pub async fn submit_recover(&self, network: &Network, account: u32, on_event: impl FnMut(Event)) -> Result<()> {
        let envelope = self.account(account).recovery.as_ref().and_then(|r| r.envelope.clone());
        let Some(envelope) = envelope else {
            return Err(Error::new(Code::Usage, format!("account {account} has signed no recovery")));
        };
        let shard = self.address(account)?.shard(self.committee.shards);
        network.submit(shard, vec![envelope], on_event).await?.outcomes.remove(0).map(|_| ())
    }

    /// Asks once how far the recovery of a sequence number is; what is news is journaled, and when it is decided, the
    /// account goes on from what `f + 1` authorities say. Errors: `QUORUM_UNREACHABLE`, `IO`.
    pub async fn recovery(&mut self, network: &Network, account: u32, seqnum: u32) -> Result<Decision> {
        let address = self.address(account)?;
        let replies = network.account(&address).await;
        let said = network.order_status(address.actor(), seqnum).await;
        super::need(&self.committee, &replies, self.committee.validity())?;
        let state = newest_state(&self.committee, &replies);
        let stage = stage(&self.committee, seqnum, state.as_ref(), &said);
        let last_call = state.and_then(|s| s.last_call);
        match (stage, state) {
            (Stage::Frozen, _) => {
                let now_ms = network.log_time().await?;
                let known = self.account(account).recovery.as_ref().filter(|r| r.seqnum == seqnum);
                if let Some(until_ms) = known.and_then(|r| r.until_ms) {
                    return Ok(Decision::Frozen { now_ms, until_ms });
                }
                // It was frozen at this time or before.
                let until_ms = now_ms.saturating_add(RECOVERY_WAIT_MS);
                self.record(vec![Record::Frozen { account, seqnum, until_ms }])?;
                Ok(Decision::Frozen { now_ms, until_ms })
            }
            (Stage::Void, Some(AccountState { seqnum: settled, prev_hash, .. })) if last_call.is_some() => {
                let last_call = last_call.unwrap_or(0);
                let mut records =
                    vec![Record::Recovered { account, seqnum, void: Some(prev_hash.to_string()), last_call }];
                if settled > seqnum {
                    // Another copy of the wallet has gone on.
                    records.push(Record::Adopted { account, seqnum: settled, prev_hash: prev_hash.to_string() });
                }
                self.record(records)?;
                Ok(Decision::Void)
            }
            (Stage::Settled(order_id), _) => {
                self.record(vec![Record::Recovered { account, seqnum, void: None, last_call: 0 }])?;
                Ok(Decision::Settled { order_id })
            }
            (Stage::Void | Stage::Handed, _) => Ok(Decision::Handed),
        }
    }

    /// Asks once whether the account is frozen at a sequence number, without the wallet: whoever waits long lets others
    /// use it. Errors: as of [`Wallet::account_state`].
    pub async fn is_frozen(network: &Network, address: &Address, seqnum: u32) -> Result<bool> {
        let replies = network.account(address).await;
        super::need(network.committee(), &replies, network.committee().validity())?;
        Ok(newest_state(network.committee(), &replies).is_some_and(|s| s.frozen == seqnum))
    }

    /// `RECOVERING` while the account waits for the log: an order signed now might have a number that is void, or taken.
    pub(super) fn check_not_recovering(&self, account: u32) -> Result<()> {
        let Some(recovery) = &self.account(account).recovery else { return Ok(()) };
        let message = format!("account {account} waits for the log to decide about seqnum {}", recovery.seqnum);
        Err(Error::new(Code::Recovering, message))
    }

    /// Whether a recovery has voided the sequence number of an order.
    pub(super) async fn was_voided(&self, network: &Network, account: u32, order: &Order) -> bool {
        let known = self.account(account).voided.contains(&order.seqnum);
        known || Wallet::status(network, order.actor, order.seqnum).await.is_ok_and(|s| s.said.state() == State::Void)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Handed,
    Frozen,
    Settled(Bytes),
    Void,
}

/// What the authorities' answers come to. That a number is void is believed of `f + 1`, for only the log says so. That an
/// order has settled is believed of a quorum: what an honest authority settled alone, the log may still void.
fn stage(
    committee: &Committee,
    seqnum: u32,
    state: Option<&AccountState>,
    said: &[Result<wire::OrderStatus>],
) -> Stage {
    if state.is_some_and(|s| s.frozen == seqnum) {
        return Stage::Frozen;
    }
    let said: Vec<&wire::OrderStatus> = said.iter().flatten().collect();
    let void = said.iter().filter(|s| s.state() == State::Void).count();
    if void >= committee.validity() && state.is_some_and(|s| s.seqnum >= seqnum) {
        return Stage::Void;
    }
    let settled = |s: &&&wire::OrderStatus| matches!(s.state(), State::Settled | State::Ordered | State::Failed);
    let orders: Vec<&Bytes> = said.iter().filter(settled).map(|s| &s.order_id).collect();
    let sure = |id: &&Bytes| orders.iter().filter(|o| *o == id).count() >= committee.quorum();
    match orders.iter().copied().find(sure) {
        Some(id) => Stage::Settled(id.clone()),
        None => Stage::Handed,
    }
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
