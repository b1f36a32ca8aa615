//! What the committee says of an actor of a PBTX network.

use std::collections::BTreeMap;

use bytes::Bytes;
use florin_core::Result;
use florin_core::envelope::Order;
use florin_core::wire;

use crate::network::Network;
use crate::pbtx::{actor_replies, refused_alike};

/// What each authority answers about one actor.
pub struct Seen<'a> {
    network: &'a Network,
    replies: Vec<wire::ActorReply>,
}

/// What holds of an actor's registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// A quorum has this permission: no quorum can say anything older any more.
    Known(Bytes),
    /// A quorum has never heard of the actor.
    Free,
    /// A quorum knows that it was removed.
    Removed,
    /// Authorities are not level.
    Unsure,
}

impl<'a> Seen<'a> {
    /// Asks all. Errors: a refusal that `f + 1` authorities give, as `UNKNOWN_NETWORK`; `QUORUM_UNREACHABLE`.
    pub async fn ask(network: &'a Network, network_id: u64, actor: u64) -> Result<Seen<'a>> {
        let replies = actor_replies(network, network_id, actor).await;
        if let Some(e) = refused_alike(network, &replies) {
            return Err(e);
        }
        crate::wallet::need(network.committee(), &replies, network.committee().quorum())?;
        Ok(Seen { network, replies: replies.into_iter().flatten().collect() })
    }

    /// Whether the actor is registered, and how.
    pub fn registration(&self) -> Registration {
        let quorum = self.network.committee().quorum();
        let mut counts: BTreeMap<(bool, &[u8]), usize> = BTreeMap::new();
        for reply in &self.replies {
            *counts.entry((reply.removed, &reply.permission)).or_default() += 1;
        }
        match counts.into_iter().find(|(_, count)| *count >= quorum) {
            Some(((true, _), _)) => Registration::Removed,
            Some(((false, []), _)) => Registration::Free,
            Some(((false, permission), _)) => Registration::Known(Bytes::copy_from_slice(permission)),
            None => Registration::Unsure,
        }
    }

    /// Last seqnum and what the next transaction names, the newest that `f + 1` authorities agree on.
    pub fn sequence(&self) -> Option<(u32, u64)> {
        let mut counts: BTreeMap<(u32, u64), usize> = BTreeMap::new();
        for reply in &self.replies {
            *counts.entry((reply.seqnum, reply.prev_hash)).or_default() += 1;
        }
        let validity = self.network.committee().validity();
        counts.into_iter().rev().find(|(_, count)| *count >= validity).map(|(sequence, _)| sequence)
    }

    /// Whether `f + 1` authorities know the actor as registered, or a quorum does not; `None` while they are not level.
    pub fn is_known(&self) -> Option<bool> {
        let committee = self.network.committee();
        let known = self.replies.iter().filter(|r| !r.permission.is_empty()).count();
        match (known, self.replies.len() - known) {
            (known, _) if known >= committee.validity() => Some(true),
            (_, unknown) if unknown >= committee.quorum() => Some(false),
            _ => None,
        }
    }

    /// Ids of orders that `f + 1` authorities have voted for, so that an honest one has, and that are not settled: by
    /// seqnum.
    pub fn pending(&self) -> Vec<(u32, [u8; 32])> {
        let mut counts: BTreeMap<(u32, [u8; 32]), usize> = BTreeMap::new();
        for reply in &self.replies {
            for pending in &reply.pending {
                let Ok(order) = Order::decode_body(pending.body.clone()) else { continue };
                *counts.entry((pending.seqnum, order.id)).or_default() += 1;
            }
        }
        let settled = self.sequence().map_or(0, |(seqnum, _)| seqnum);
        let validity = self.network.committee().validity();
        let wanted = |((seqnum, id), count)| (seqnum > settled && count >= validity).then_some((seqnum, id));
        counts.into_iter().filter_map(wanted).collect()
    }
}

/// The transaction of an order that is under way, from any authority that has it.
pub async fn transaction(network: &Network, network_id: u64, actor: u64, seqnum: u32, id: [u8; 32]) -> Option<Bytes> {
    let shard = network.committee().shard_of(network_id, actor);
    let request = wire::OrderRequest { network_id, actor, seqnum, ..Default::default() };
    let replies = network
        .ask_all(shard, move |mut client| {
            let request = request.clone();
            async move { client.order(request).await }
        })
        .await;
    let transactions = replies.into_iter().flatten().filter_map(|reply| Some(reply.receipt?.transaction));
    transactions.into_iter().find(|raw| Order::decode(raw.clone()).is_ok_and(|order| order.id == id))
}
