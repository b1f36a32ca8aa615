//! The gRPC services of an authority: what clients, peers and its own other shards may ask.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use florin_core::authority::effect::Reply;
use florin_core::authority::input::Input;
use florin_core::committee::Committee;
use florin_core::signatures::AuthorityPublicKey;
use florin_core::wire::*;
use florin_core::{Code, Error, Result, address::Address};
use florin_rpc::errors::to_status;
use florin_rpc::server::peer_identity;
use florin_rpc::services::authority_service_server::AuthorityService;
use florin_rpc::services::peer_service_server::PeerService;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::follow::Lags;
use crate::shard::Shard;

/// The shards of this process, by number.
pub type Shards = Arc<BTreeMap<u32, Arc<Shard>>>;

/// Both services.
#[derive(Clone)]
pub struct Services {
    /// Shards served here.
    pub shards: Shards,
    /// The committee.
    pub committee: Arc<Committee>,
    /// This authority's index.
    pub index: u32,
    /// How far behind its peers it is.
    pub lags: Arc<Lags>,
    /// Becomes true when the process stops: streams end then.
    pub stopping: watch::Receiver<bool>,
}

impl Services {
    fn shard(&self, shard: u32) -> Result<&Arc<Shard>> {
        self.shards.get(&shard).ok_or_else(|| {
            let served: Vec<u32> = self.shards.keys().copied().collect();
            Error::expected(Code::NotServed, "shard", format!("one of {served:?}"), shard)
        })
    }

    fn shard_of(&self, address: &[u8]) -> Result<&Arc<Shard>> {
        self.shard(Address::from_slice(address)?.shard(self.committee.shards))
    }

    async fn handle(&self, shard: u32, input: Input) -> Result<Reply> {
        self.shard(shard)?.handle(input).await
    }

    /// State of each shard served here.
    pub fn status(&self) -> Result<Vec<ShardStatus>> {
        let mut out = Vec::new();
        for (number, shard) in self.shards.iter() {
            let totals = shard.authority().totals(shard.store())?;
            let mut outbox = 0;
            for to in (0..self.committee.shards).filter(|to| to != number) {
                let (next, sent) = shard.authority().outbox_range(shard.store(), to)?;
                outbox += (sent + 1).saturating_sub(next);
            }
            let mut lag = vec![0; self.committee.size()];
            for ((of, authority), entries) in self.lags.read() {
                if of == *number {
                    lag[authority as usize] = entries;
                }
            }
            out.push(ShardStatus {
                shard: *number,
                orders_settled: totals.orders,
                outbox,
                lag,
                fault: shard.why_silent().map(|e| e.to_string()).unwrap_or_default(),
                waiting: totals.waiting,
            });
        }
        Ok(out)
    }

    /// The index of the authority that sent a request over its pinned key.
    fn peer<T>(&self, request: &Request<T>) -> Result<u32> {
        let key = peer_identity(request).map(AuthorityPublicKey);
        key.and_then(|key| self.committee.index_of(&key)).ok_or_else(|| {
            let found = key.map_or("no key".into(), |k| k.to_string());
            Error::expected(Code::PeerRefused, "key of the connection", "an authority's", found)
        })
    }
}

fn answer<T>(result: Result<T>) -> std::result::Result<Response<T>, Status> {
    result.map(Response::new).map_err(to_status)
}

fn unexpected(reply: &Reply) -> Error {
    Error::new(Code::Io, format!("the shard gave an answer of another kind: {reply:?}"))
}

#[tonic::async_trait]
impl AuthorityService for Services {
    async fn info(&self, _: Request<InfoRequest>) -> std::result::Result<Response<InfoReply>, Status> {
        answer(self.status().map(|status| InfoReply {
            committee_id: bytes::Bytes::copy_from_slice(self.committee.id()),
            epoch: self.committee.epoch,
            authority: self.index,
            shards: self.shards.keys().copied().collect(),
            version: env!("CARGO_PKG_VERSION").into(),
            status,
        }))
    }

    async fn vote(&self, request: Request<VoteRequest>) -> std::result::Result<Response<VoteReply>, Status> {
        let VoteRequest { shard, orders } = request.into_inner();
        answer(match self.handle(shard, Input::Vote { orders }).await {
            Ok(Reply::Vote(reply)) => Ok(reply),
            Ok(other) => Err(unexpected(&other)),
            Err(e) => Err(e),
        })
    }

    async fn settle(&self, request: Request<SettleRequest>) -> std::result::Result<Response<SettleReply>, Status> {
        let SettleRequest { shard, certificate, orders } = request.into_inner();
        let Some(certificate) = certificate else {
            return Err(to_status(Error::new(Code::Decode, "the request has no certificate")));
        };
        answer(match self.handle(shard, Input::Settle { certificate, orders }).await {
            Ok(Reply::Settle(reply)) => Ok(reply),
            Ok(other) => Err(unexpected(&other)),
            Err(e) => Err(e),
        })
    }

    async fn account(&self, request: Request<AccountRequest>) -> std::result::Result<Response<AccountReply>, Status> {
        let request = request.into_inner();
        answer(self.shard_of(&request.address).and_then(|s| s.authority().account(s.store(), &request)))
    }

    async fn order(&self, request: Request<OrderRequest>) -> std::result::Result<Response<OrderReply>, Status> {
        let request = request.into_inner();
        let shard = (request.actor % self.committee.shards as u64) as u32;
        answer(match self.shard(shard) {
            Ok(shard) => shard.order(request).await,
            Err(e) => Err(e),
        })
    }

    async fn credits(&self, request: Request<CreditsRequest>) -> std::result::Result<Response<CreditsReply>, Status> {
        let request = request.into_inner();
        answer(self.shard_of(&request.address).and_then(|s| s.authority().credits(s.store(), &request)))
    }
}

#[tonic::async_trait]
impl PeerService for Services {
    type FollowStream = Pin<Box<dyn Stream<Item = std::result::Result<FollowReply, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<FollowRequest>,
    ) -> std::result::Result<Response<Self::FollowStream>, Status> {
        self.peer(&request).map_err(to_status)?;
        let FollowRequest { shard, mut from } = request.into_inner();
        let shard = self.shard(shard).map_err(to_status)?.clone();
        let (sender, receiver) = tokio::sync::mpsc::channel(2);
        let mut stopping = self.stopping.clone();
        tokio::spawn(async move {
            let mut end = shard.settled_end();
            loop {
                let durable = *end.borrow_and_update();
                let page = shard.authority().follow(shard.store(), from, durable);
                from = page.as_ref().ok().and_then(|p| p.entries.last()).map_or(from, |e| e.position + 1);
                let failed = page.is_err();
                if sender.send(page.map_err(to_status)).await.is_err() || failed {
                    return;
                }
                if from >= durable {
                    tokio::select! {
                        changed = end.changed() => if changed.is_err() { return },
                        () = sender.closed() => return,
                        _ = stopping.wait_for(|stop| *stop) => return,
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))))
    }

    async fn batch(&self, request: Request<BatchRequest>) -> std::result::Result<Response<BatchReply>, Status> {
        self.peer(&request).map_err(to_status)?;
        let request = request.into_inner();
        answer(self.shard(request.shard).and_then(|s| s.authority().batch(s.store(), &request)))
    }

    async fn deliver(&self, request: Request<Delivery>) -> std::result::Result<Response<DeliveryReply>, Status> {
        // Credits are believed from this same authority's other shards alone: only they hold its key.
        let peer = self.peer(&request).map_err(to_status)?;
        if peer != self.index {
            let e = Error::expected(Code::PeerRefused, "authority that delivers", self.index, peer);
            return Err(to_status(e));
        }
        let delivery = request.into_inner();
        answer(match self.handle(delivery.to_shard, Input::Deliver(delivery)).await {
            Ok(Reply::Deliver(reply)) => Ok(reply),
            Ok(other) => Err(unexpected(&other)),
            Err(e) => Err(e),
        })
    }
}
