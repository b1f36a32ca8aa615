//! One authority's stream: read, checked, read again after whatever happens.

use std::sync::Arc;
use std::time::Duration;

use florin_core::receipt::verify_certified;
use florin_core::wire;
use florin_core::{Code, Error, Result};
use florin_rpc::errors::from_status;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::Proof;
use super::merge::{Mode, Page, Shown};
use super::page::Checks;
use crate::network::Network;

/// Before the second try; doubles each time.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How long to look for the certificates of a page's orders at other authorities.
const PROVE: Duration = Duration::from_secs(5);
/// Orders whose certificates are asked for at a time.
const PROVE_AT_ONCE: usize = 16;

/// What came of an authority.
pub(super) struct Message {
    pub(super) authority: usize,
    pub(super) said: Result<Said>,
}

pub(super) enum Said {
    Page(Page),
    /// It has fewer entries than it had: what it shows begins again.
    Shorter,
}

/// Follows one authority until nobody listens.
pub(super) struct Follower {
    pub(super) network: Network,
    pub(super) checks: Arc<Checks>,
    pub(super) mode: Mode,
    pub(super) authority: usize,
    /// Next position wanted.
    pub(super) from: u64,
    /// Pages that may be sent; given back when they are taken.
    pub(super) room: Arc<Semaphore>,
    pub(super) out: mpsc::Sender<Message>,
}

impl Follower {
    pub(super) async fn run(mut self) {
        let mut pause = RETRY;
        loop {
            let Err(error) = self.read(&mut pause).await else { return };
            let message = Message { authority: self.authority, said: Err(error) };
            if self.out.send(message).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(RETRY_MAX);
        }
    }

    /// Ends with `Ok` when nobody listens.
    async fn read(&mut self, pause: &mut Duration) -> Result<()> {
        let network_id = self.checks.network_id;
        let mut client = self.network.authority(self.authority, self.checks.committee.shard_of(network_id, 0));
        let request = wire::ListenRequest { network_id, from: self.from };
        let mut stream = client.listen(request).await.map_err(from_status)?.into_inner();
        loop {
            match self.room.acquire().await {
                Ok(permit) => permit.forget(),
                Err(_) => return Ok(()),
            }
            let reply = stream.message().await.map_err(from_status);
            let reply = reply.and_then(|reply| {
                reply.ok_or_else(|| Error::new(Code::Unreachable, "the authority has ended the stream"))
            });
            let said = match reply {
                // With one order for all, it is only late.
                Ok(reply) if reply.end < self.from && self.mode == Mode::Total => {
                    Ok(Said::Page(Page { next: self.from, ..Page::default() }))
                }
                Ok(reply) if reply.end < self.from => Ok(Said::Shorter),
                Ok(reply) => self.checks.page(self.from, reply).map(Said::Page),
                Err(e) if e.code == Code::OutOfOrder && self.mode != Mode::Total => Ok(Said::Shorter),
                Err(e) => Err(e),
            };
            let said = match said {
                Ok(Said::Page(mut page)) => {
                    *pause = RETRY;
                    if self.mode != Mode::ById {
                        self.prove(&mut page.entries).await;
                    }
                    self.from = page.next;
                    Said::Page(page)
                }
                Ok(Said::Shorter) => {
                    self.from = 1;
                    Said::Shorter
                }
                Err(e) => {
                    self.room.add_permits(1);
                    return Err(e);
                }
            };
            let again = matches!(said, Said::Shorter);
            if self.out.send(Message { authority: self.authority, said: Ok(said) }).await.is_err() {
                return Ok(());
            }
            if again {
                return Err(Error::new(Code::Pruned, "the authority has fewer entries than it had"));
            }
        }
    }

    /// Asks other authorities for certificates that this one lacks: it has settled those orders on the log's word.
    async fn prove(&self, entries: &mut [Shown]) {
        let mut lacking: Vec<(usize, wire::OrderRequest, [u8; 32])> = Vec::new();
        for (i, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.proof.is_none()) {
            let order = &entry.order;
            let (network_id, actor, seqnum) = (order.network_id, order.actor, order.seqnum);
            lacking.push((i, wire::OrderRequest { network_id, actor, seqnum, ..Default::default() }, order.id));
        }
        let mut asking = JoinSet::new();
        let deadline = tokio::time::Instant::now() + PROVE;
        loop {
            while asking.len() < PROVE_AT_ONCE
                && let Some((i, request, id)) = lacking.pop()
            {
                let (network, own) = (self.network.clone(), self.authority);
                asking.spawn(async move { (i, receipt(&network, own, request, id).await) });
            }
            match tokio::time::timeout_at(deadline, asking.join_next()).await {
                Ok(Some(Ok((i, found)))) => entries[i].proof = found.map(|r| Proof::Receipt(Arc::new(r))),
                Ok(Some(Err(_))) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// A receipt with a quorum's votes for the order, from any authority but one.
async fn receipt(network: &Network, but: usize, request: wire::OrderRequest, id: [u8; 32]) -> Option<wire::Receipt> {
    let committee = network.committee();
    let shard = committee.shard_of(request.network_id, request.actor);
    for authority in (0..committee.size()).map(|i| (but + 1 + i) % committee.size()).filter(|a| *a != but) {
        let Ok(reply) = network.authority(authority, shard).order(request.clone()).await else { continue };
        let Some(receipt) = reply.into_inner().receipt else { continue };
        if verify_certified(committee, &receipt).is_ok_and(|order| order.id == id) {
            return Some(receipt);
        }
    }
    None
}

/// One message of an authority's stream, without what follows. Errors: its own.
pub(super) async fn peek(network: &Network, authority: usize, network_id: u64, from: u64) -> Result<wire::ListenReply> {
    let shard = network.committee().shard_of(network_id, 0);
    let ask = async {
        let mut client = network.authority(authority, shard);
        let request = wire::ListenRequest { network_id, from };
        let mut stream = client.listen(request).await.map_err(from_status)?.into_inner();
        let reply = stream.message().await.map_err(from_status)?;
        reply.ok_or_else(|| Error::new(Code::Unreachable, "the authority has ended the stream"))
    };
    let timeout = || Error::new(Code::Timeout, "no answer in time");
    tokio::time::timeout(network.patience.request, ask).await.map_err(|_| timeout())?
}

/// The first position of an authority's stream that is not pruned, and the end of it. Errors: its own.
pub(super) async fn bounds(network: &Network, authority: usize, network_id: u64) -> Result<(u64, u64)> {
    // What is pruned ends above `pruned`, and at `oldest` at the latest.
    let (mut pruned, mut oldest, mut end) = (0, u64::MAX, 0);
    while oldest - pruned > 1 {
        let middle = if oldest == u64::MAX { 2 * pruned + 1 } else { pruned + (oldest - pruned) / 2 };
        match peek(network, authority, network_id, middle).await {
            Ok(reply) => (oldest, end) = (middle, reply.end),
            Err(e) if e.code == Code::Pruned => pruned = middle,
            // Beyond the end.
            Err(e) if e.code == Code::OutOfOrder => oldest = middle,
            Err(e) => return Err(e),
        }
    }
    Ok((oldest, end.max(oldest)))
}
