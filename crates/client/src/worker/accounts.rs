//! The keys of accounts whose senders sign roots, which a worker takes from authorities and from nobody else.
//!
//! A key counts if `f + 1` authorities say that it is the account's at the very place of its chain where the order stands. One of them is
//! honest, and what an account's keys are after one order is the same everywhere: so a sender that changes its keys meanwhile spoils no
//! aggregate. What became final here moves the place on; everything else is asked for again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::bls;
use florin_core::committee::Committee;
use florin_core::content::{Action, Content};
use florin_core::envelope::Order;
use florin_core::permission::Permission;
use florin_core::signatures::Batch;
use florin_core::wire;
use florin_rpc::errors::from_status;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::network::Network;

/// Accounts that are remembered; when there are more, all are asked for again.
const KNOWN_MAX: usize = 65_536;
/// Accounts that are asked for at a time; the orders of more go with their own signatures.
const ASKING_MAX: usize = 64;
/// How long authorities may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a sender that was asked and has not signed is not asked again.
const REST: Duration = Duration::from_secs(60);

/// A place of an account's chain, and the account's permission there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    address: Address,
    seqnum: u32,
    prev_hash: u64,
    permission: Bytes,
}

impl Known {
    /// The BLS key with which the order's sender signs roots, if the order comes next here and its own signature is true.
    fn key_for(&self, order: &Order) -> Option<bls::Key> {
        if order.seqnum.checked_sub(1) != Some(self.seqnum) || order.prev_hash != self.prev_hash {
            return None;
        }
        let permission = Permission::decode_account(&self.permission).ok()?;
        let key = permission.distils()?;
        // Whoever has no key of the account must not take its place in a batch.
        let mut batch = Batch::new();
        batch.push(0, order, 0, &permission);
        batch.verify().results.iter().all(|(_, result)| result.is_ok()).then_some(key)
    }
}

/// What is known of them.
pub(super) struct Accounts {
    known: Mutex<HashMap<u64, Known>>,
    /// Senders that are not asked for signatures, until when.
    resting: Mutex<HashMap<u64, Instant>>,
    asking: Semaphore,
}

impl Accounts {
    pub fn new() -> Accounts {
        Accounts { known: Mutex::default(), resting: Mutex::default(), asking: Semaphore::new(ASKING_MAX) }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Instant>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key with which the order's sender may sign the root of its batch; `None` if that is not sure, for whatever reason.
    pub async fn key(&self, network: &Network, order: &Order, address: &Address) -> Option<bls::Key> {
        let payments = network.committee().network.id;
        if (order.network_id, order.actor) != (payments, address.actor()) || !may_be_marked(order) {
            return None;
        }
        if self.resting().get(&order.actor).is_some_and(|until| Instant::now() < *until) {
            return None;
        }
        let known = self.known().get(&order.actor).filter(|known| known.address == *address).cloned();
        if let Some(key) = known.and_then(|known| known.key_for(order)) {
            return Some(key);
        }
        let _asking = self.asking.try_acquire().ok()?;
        let known = tokio::time::timeout(PATIENCE, ask(network, order, address)).await.ok()??;
        let key = known.key_for(order)?;
        let mut all = self.known();
        if all.len() >= KNOWN_MAX {
            all.clear();
        }
        all.insert(order.actor, known);
        Some(key)
    }

    /// An order is final: its account is one place further.
    pub fn settled(&self, order: &Order) {
        if let Some(known) = self.known().get_mut(&order.actor)
            && (known.seqnum.checked_add(1), known.prev_hash) == (Some(order.seqnum), order.prev_hash)
        {
            (known.seqnum, known.prev_hash) = (order.seqnum, order.next_hash());
        }
    }

    /// A sender was asked and has not signed, or falsely: it delays nobody for a while.
    pub fn rest(&self, actor: u64) {
        let mut resting = self.resting();
        let now = Instant::now();
        if resting.len() >= KNOWN_MAX {
            resting.retain(|_, until| now < *until);
        }
        if resting.len() < KNOWN_MAX {
            resting.insert(actor, now + REST);
        }
    }
}

/// Whether its sender may sign it by the root of a batch, as far as the order shows: it is not the account's first, and leaves
/// its keys as they are.
fn may_be_marked(order: &Order) -> bool {
    let content = Content::decode(order);
    order.seqnum > 1 && content.is_ok_and(|c| matches!(c.action, Action::Pay { .. } | Action::Call { .. }))
}

/// The place before the order, if `f + 1` authorities say that the account is there. It does not wait for more of them.
async fn ask(network: &Network, order: &Order, address: &Address) -> Option<Known> {
    let committee = network.committee();
    let request =
        wire::AccountRequest { network_id: order.network_id, address: Bytes::copy_from_slice(address.as_bytes()) };
    let shard = committee.shard_of(order.network_id, order.actor);
    let mut running = JoinSet::new();
    for authority in 0..committee.size() {
        let (mut client, request) = (network.authority(authority, shard), request.clone());
        running.spawn(async move { client.account(request).await.map_err(from_status) });
    }
    let mut said = Vec::with_capacity(committee.size());
    while let Some(answer) = running.join_next().await {
        let Ok(Ok(reply)) = answer else { continue };
        said.push(place_of(address, reply.into_inner()));
        if let Some(known) = agreed(committee, &said, order) {
            return Some(known);
        }
    }
    None
}

fn place_of(address: &Address, reply: wire::AccountReply) -> Known {
    let wire::AccountReply { seqnum, prev_hash, permission, .. } = reply;
    Known { address: *address, seqnum, prev_hash, permission }
}

/// What `f + 1` of these say, if the order comes next there.
fn agreed(committee: &Committee, said: &[Known], order: &Order) -> Option<Known> {
    let at = |known: &&Known| (known.seqnum.checked_add(1), known.prev_hash) == (Some(order.seqnum), order.prev_hash);
    let enough = |known: &&Known| said.iter().filter(|other| other == known).count() >= committee.validity();
    said.iter().filter(at).find(enough).cloned()
}

#[cfg(test)]
#[path = "accounts_tests.rs"]
mod tests;
