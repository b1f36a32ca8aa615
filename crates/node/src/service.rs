//! The gRPC services of an authority: what clients, peers and its own other shards may ask.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use florin_core::authority::Authority;
use florin_core::authority::effect::Reply;
use florin_core::authority::input::Input;
use florin_core::authority::state::LOG;
use florin_core::committee::Committee;
use florin_core::ordered::OrderedLog;
use florin_core::signatures::AuthorityPublicKey;
use florin_core::wire::*;
use florin_core::{Code, Error, Result, address::Address};
use florin_rpc::errors::{from_status, to_status};
use florin_rpc::server::{self, peer_identity};
use florin_rpc::services::authority_service_client::AuthorityServiceClient;
use florin_rpc::services::authority_service_server::AuthorityService;
use florin_rpc::services::peer_service_server::PeerService;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio_stream::Stream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::calls::LogRoute;
use crate::cash::{GoOn, Mint, shares_reply};
use crate::consensus::Consensus;
use crate::door::Door;
use crate::follow::Lags;
use crate::log::{Decided, LogShell};
use crate::shard::Shard;
use crate::storage::Store;

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
    /// Its votes are lost, so it gives none.
    pub rebuilt: bool,
    /// Where those wait whose orders are refused.
    pub door: Arc<Door>,
    /// How far behind its peers it is.
    pub lags: Arc<Lags>,
    /// Becomes true when the process stops: streams end then.
    pub stopping: watch::Receiver<bool>,
    /// Places for streams that watch an order.
    pub watchers: Arc<Semaphore>,
    /// Places for streams of networks.
    pub listeners: Arc<Semaphore>,
    /// The keys of e-cash, once they are in use.
    pub mint: Mint,
    /// The ordered log, in the process that runs shard 0.
    pub log: Option<LogPart>,
    /// Elsewhere: the way to it.
    pub log_elsewhere: Option<AuthorityServiceClient<Channel>>,
}

/// The ordered log of this process.
#[derive(Clone)]
pub struct LogPart {
    /// State machine and store.
    pub shell: Arc<LogShell>,
    /// The task that feeds it.
    pub consensus: Consensus,
    /// Its operator's word in making the keys of e-cash.
    pub go_on: GoOn,
}

/// Messages of a stream to one client that may wait.
const WATCH_QUEUE: usize = 4;
/// Between two messages of a settled stream that is level. Everyone follows everyone, so each batch would be authorities^2 messages,
/// and nearly all who get them have the batch from its client; who lacks it waits for that longer than this.
const FOLLOW_PACE: Duration = Duration::from_millis(100);
/// How often a watched order is looked at when nothing says that it changed.
const WATCH: Duration = Duration::from_millis(500);
/// Orders watched at a time, and for how long at most.
pub const WATCHERS: usize = 4_096;
/// Streams of networks at a time.
pub const LISTENERS: usize = 1_024;
const WATCH_MAX: Duration = Duration::from_secs(900);

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

    /// The log, where it is. Errors: `NOT_SERVED`.
    pub fn log(&self) -> Result<&LogPart> {
        self.log.as_ref().ok_or_else(|| Error::new(Code::NotServed, "the log runs where shard 0 does"))
    }

    /// What the log says, once it is durable: a signature or an outcome must not be forgotten after it was shown.
    async fn read_log<T>(&self, read: impl FnOnce(&OrderedLog, &Store) -> Result<T>) -> Result<T> {
        let shell = &self.log()?.shell;
        let found = read(shell.log(), shell.store())?;
        shell.barrier().await?;
        Ok(found)
    }

    /// What the shard of a PBTX network says, once it is durable.
    async fn read_shard<T: Send + 'static>(
        &self,
        network_id: u64,
        read: impl FnOnce(&Authority, &Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.shard(self.committee.shard_of(network_id, 0))?.long_read(read).await
    }

    /// Status of the log.
    pub fn log_status(&self) -> Result<LogStatus> {
        let LogPart { shell, consensus, .. } = self.log()?;
        let mut status = shell.log().status(shell.store())?;
        status.peers = consensus.heard();
        status.fault = shell.fault().or(consensus.fault()).map(|e| e.to_string()).unwrap_or_default();
        for shard in self.shards.values() {
            let (next, last) = shard.authority().outbox_range(shard.store(), LOG)?;
            status.queued += (last + 1).saturating_sub(next);
        }
        Ok(status)
    }

    /// What became of an order, durably: what is answered here must not be forgotten. Not waited for if it is `known`.
    async fn order_status(&self, request: &OrderStatusRequest, known: Option<&OrderStatus>) -> Result<OrderStatus> {
        let number = self.committee.shard_of(request.network_id, request.actor);
        let mut status = match self.shards.get(&number) {
            Some(shard) => shard.authority().order_status(shard.store(), request)?,
            // Asked by the process of the shard, for what the log says.
            None if self.log.is_some() => OrderStatus::default(),
            None => return Err(self.shard(number).err().unwrap_or_else(|| Error::new(Code::NotServed, "shard"))),
        };
        let mut by_log = false;
        if let Some(LogPart { shell, .. }) = &self.log {
            let before = status.clone();
            status = shell.log().order_status(shell.store(), request, status)?;
            by_log = status != before;
        } else if let (Some(client), true) = (&self.log_elsewhere, status.calls) {
            let found = client.clone().order_status(request.clone()).await.map_err(from_status)?.into_inner();
            if found.state() != order_status::State::Unknown {
                status = found;
            }
        }
        if Some(&status) != known {
            match (&self.log, self.shards.get(&number)) {
                (Some(LogPart { shell, .. }), _) if by_log => shell.barrier().await?,
                (_, Some(shard)) => shard.barrier().await?,
                _ => {}
            }
        }
        Ok(status)
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

impl Services {
    /// Refuses a request that comes from anybody but this authority's own processes, or its operator.
    fn itself<T>(&self, request: &Request<T>, what: &str) -> Result<()> {
        match self.peer(request)? {
            peer if peer == self.index => Ok(()),
            peer => Err(Error::expected(Code::PeerRefused, what, self.index, peer)),
        }
    }
}

fn answer<T>(result: Result<T>) -> std::result::Result<Response<T>, Status> {
    result.map(Response::new).map_err(to_status)
}

/// Waits until the log decides the order.
async fn is_decided(decided: &mut Option<broadcast::Receiver<Decided>>, request: &OrderStatusRequest) {
    let wanted = (request.network_id, request.actor, request.seqnum);
    match decided {
        Some(decided) => loop {
            match decided.recv().await {
                Ok(orders) if !orders.contains(&wanted) => {}
                // Or some were missed.
                _ => return,
            }
        },
        None => std::future::pending().await,
    }
}

/// Whether nothing more can become of the order.
fn is_last(status: &OrderStatus) -> bool {
    use order_status::State as S;
    match status.state() {
        S::Ordered | S::Failed | S::Void => true,
        S::Settled => !status.calls,
        S::Unknown | S::Pending | S::Certified => false,
    }
}

/// The host whose orders these are. Requests of this process, in tests, are of one.
fn host<T>(request: &Request<T>) -> IpAddr {
    server::host(request).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// How many of the orders of a request came to nothing, if it failed, by the fault of who sent it.
fn refused(result: &Result<Reply>, orders: usize) -> usize {
    match result {
        Err(e) if !matches!(e.code, Code::Busy | Code::StorageFull | Code::StorageFailed) => orders.max(1),
        _ => 0,
    }
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
        if self.rebuilt {
            let message = "this authority was rebuilt without its votes; it settles and orders, and votes for nothing";
            return Err(to_status(Error::new(Code::NotVoting, message)));
        }
        let host = host(&request);
        let VoteRequest { shard: number, orders } = request.into_inner();
        let shard = self.shard(number).map_err(to_status)?;
        let count = orders.len();
        let places = self.door.enter(host, number, count).await;
        let voted = shard.vote(orders).await;
        places.leave(match &voted {
            Ok(Reply::Vote(reply)) => reply.errors.len(),
            voted => refused(voted, count),
        });
        answer(match voted {
            Ok(Reply::Vote(reply)) => Ok(reply),
            Ok(other) => Err(unexpected(&other)),
            Err(e) => Err(e),
        })
    }

    async fn settle(&self, request: Request<SettleRequest>) -> std::result::Result<Response<SettleReply>, Status> {
        let host = host(&request);
        let SettleRequest { shard: number, certificate, orders, shares } = request.into_inner();
        let Some(certificate) = certificate else {
            return Err(to_status(Error::new(Code::Decode, "the request has no certificate")));
        };
        let shard = self.shard(number).map_err(to_status)?;
        let count = orders.len();
        let places = self.door.enter(host, number, count).await;
        let settled = shard.settle(certificate, orders, shares).await;
        places.leave(refused(&settled, count));
        answer(match settled {
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
        let shard = self.committee.shard_of(request.network_id, request.actor);
        answer(match self.shard(shard) {
            Ok(shard) => shard.order(request).await,
            Err(e) => Err(e),
        })
    }

    async fn order_status(
        &self,
        request: Request<OrderStatusRequest>,
    ) -> std::result::Result<Response<OrderStatus>, Status> {
        answer(self.order_status(&request.into_inner(), None).await)
    }

    type WatchOrderStream = Pin<Box<dyn Stream<Item = std::result::Result<OrderStatus, Status>> + Send>>;

    async fn watch_order(
        &self,
        request: Request<OrderStatusRequest>,
    ) -> std::result::Result<Response<Self::WatchOrderStream>, Status> {
        let request = request.into_inner();
        let Ok(place) = self.watchers.clone().try_acquire_owned() else {
            return Err(to_status(Error::new(Code::Busy, format!("{WATCHERS} orders are watched"))));
        };
        let (sender, receiver) = tokio::sync::mpsc::channel(WATCH_QUEUE);
        let services = self.clone();
        let mut stopping = self.stopping.clone();
        let watch = async move {
            let mut decided = services.log.as_ref().map(|log| log.shell.decided());
            let mut shown: Option<OrderStatus> = None;
            loop {
                let status = services.order_status(&request, shown.as_ref()).await;
                let last = status.as_ref().map_or(true, is_last);
                if shown.as_ref() != status.as_ref().ok() {
                    shown = status.as_ref().ok().cloned();
                    if sender.send(status.map_err(to_status)).await.is_err() {
                        return;
                    }
                }
                if last {
                    return;
                }
                tokio::select! {
                    () = is_decided(&mut decided, &request) => {}
                    () = tokio::time::sleep(WATCH) => {}
                    () = sender.closed() => return,
                }
            }
        };
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = watch => {}
                () = tokio::time::sleep(WATCH_MAX) => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))))
    }

    async fn log(&self, _: Request<LogStatusRequest>) -> std::result::Result<Response<LogStatus>, Status> {
        answer(self.log_status())
    }

    async fn sessions(
        &self,
        request: Request<SessionsRequest>,
    ) -> std::result::Result<Response<SessionsReply>, Status> {
        answer(self.read_log(|log, store| log.sessions(store, &request.into_inner())).await)
    }

    async fn units(&self, request: Request<UnitsRequest>) -> std::result::Result<Response<UnitsReply>, Status> {
        answer(self.read_log(|log, store| log.units(store, &request.into_inner())).await)
    }

    async fn contract(
        &self,
        request: Request<ContractRequest>,
    ) -> std::result::Result<Response<ContractReply>, Status> {
        answer(self.read_log(|log, store| log.contract(store, &request.into_inner())).await)
    }

    async fn channel(&self, request: Request<ChannelRequest>) -> std::result::Result<Response<ChannelReply>, Status> {
        answer(self.read_log(|log, store| log.channel(store, &request.into_inner())).await)
    }

    async fn channels(
        &self,
        request: Request<ChannelsRequest>,
    ) -> std::result::Result<Response<ChannelsReply>, Status> {
        answer(self.read_log(|log, store| log.channels(store, &request.into_inner())).await)
    }

    async fn primary(&self, request: Request<PrimaryRequest>) -> std::result::Result<Response<PrimaryReply>, Status> {
        answer(self.read_log(|log, store| log.primary(store, &request.into_inner())).await)
    }

    async fn network(&self, request: Request<NetworkRequest>) -> std::result::Result<Response<NetworkReply>, Status> {
        answer(self.read_log(|log, store| log.network(store, &request.into_inner())).await)
    }

    async fn networks(
        &self,
        request: Request<NetworksRequest>,
    ) -> std::result::Result<Response<NetworksReply>, Status> {
        answer(self.read_log(|log, store| log.networks(store, &request.into_inner())).await)
    }

    async fn actor(&self, request: Request<ActorRequest>) -> std::result::Result<Response<ActorReply>, Status> {
        let request = request.into_inner();
        answer(self.read_shard(request.network_id, move |a, store| a.actor(store, &request)).await)
    }

    async fn history(&self, request: Request<HistoryRequest>) -> std::result::Result<Response<HistoryReply>, Status> {
        let request = request.into_inner();
        answer(self.read_shard(request.network_id, move |a, store| a.history(store, &request)).await)
    }

    async fn notes(&self, request: Request<NotesRequest>) -> std::result::Result<Response<NotesReply>, Status> {
        let request = request.into_inner();
        let shard = self.shard(request.shard).map_err(to_status)?;
        answer(shard.notes(request).await)
    }

    async fn cash_keys(&self, _: Request<CashKeysRequest>) -> std::result::Result<Response<CashKeysReply>, Status> {
        let holds_share = self.mint.borrow().as_ref().is_some_and(|keys| keys.holds_shares());
        let keys = self.read_log(|log, store| log.cash_keys(store)).await;
        answer(keys.map(|keys| CashKeysReply { holds_share, ..keys }))
    }

    type ListenStream = Pin<Box<dyn Stream<Item = std::result::Result<ListenReply, Status>> + Send>>;

    async fn listen(
        &self,
        request: Request<ListenRequest>,
    ) -> std::result::Result<Response<Self::ListenStream>, Status> {
        let mut request = request.into_inner();
        request.from = request.from.max(1);
        let shard = self.shard(self.committee.shard_of(request.network_id, 0)).map_err(to_status)?.clone();
        let Ok(place) = self.listeners.clone().try_acquire_owned() else {
            return Err(to_status(Error::new(Code::Busy, format!("{LISTENERS} listeners are here"))));
        };
        let (sender, receiver) = tokio::sync::mpsc::channel(WATCH_QUEUE);
        let mut stopping = self.stopping.clone();
        let listen = async move {
            let mut news = shard.settled_end();
            // Whether the listener knows that it has all there is.
            let mut level = false;
            loop {
                news.mark_unchanged();
                // What a listener acts on must not be forgotten.
                let page = shard.long_read(move |authority, store| authority.listen(store, &request)).await;
                let next = page.as_ref().map_or(request.from, |page| page.next);
                let moved = next > request.from;
                let failed = page.is_err();
                if (moved || !level || failed) && (sender.send(page.map_err(to_status)).await.is_err() || failed) {
                    return;
                }
                (request.from, level) = (next, !moved);
                if moved {
                    continue;
                }
                tokio::select! {
                    changed = news.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        };
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = listen => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))))
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
                let paced = tokio::time::Instant::now() + FOLLOW_PACE;
                let durable = *end.borrow_and_update();
                let page = shard.authority().follow(shard.store(), from, durable);
                from = page.as_ref().ok().and_then(|p| p.entries.last()).map_or(from, |e| e.position + 1);
                let failed = page.is_err();
                if sender.send(page.map_err(to_status)).await.is_err() || failed {
                    return;
                }
                if from >= durable {
                    let news = async {
                        let changed = end.changed().await;
                        tokio::time::sleep_until(paced).await;
                        changed
                    };
                    tokio::select! {
                        changed = news => if changed.is_err() { return },
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

    async fn hand(&self, request: Request<HandRequest>) -> std::result::Result<Response<HandReply>, Status> {
        self.itself(&request, "authority that hands in").map_err(to_status)?;
        let LogPart { shell, consensus, .. } = Services::log(self).map_err(to_status)?.clone();
        answer(LogRoute::Local(shell, consensus).hand(request.into_inner()).await)
    }

    async fn cash_shares(
        &self,
        request: Request<CashSharesRequest>,
    ) -> std::result::Result<Response<CashSharesReply>, Status> {
        // Secrets: for who has this authority's key, and has them anyway.
        self.itself(&request, "authority that asks for shares").map_err(to_status)?;
        answer(self.log().map(|_| shares_reply(&self.mint)))
    }

    async fn cash_go_on(
        &self,
        request: Request<CashGoOnRequest>,
    ) -> std::result::Result<Response<CashGoOnReply>, Status> {
        self.itself(&request, "authority that goes on").map_err(to_status)?;
        let go_on = Services::log(self).map_err(to_status)?.go_on.clone();
        answer(go_on.go_on().await.map(|()| CashGoOnReply {}))
    }

    type OrderStream = Pin<Box<dyn Stream<Item = std::result::Result<OrderFrame, Status>> + Send>>;

    async fn order(
        &self,
        request: Request<tonic::Streaming<OrderFrame>>,
    ) -> std::result::Result<Response<Self::OrderStream>, Status> {
        let peer = self.peer(&request).map_err(to_status)?;
        let consensus = Services::log(self).map_err(to_status)?.consensus.clone();
        let mut frames = request.into_inner();
        let mut stopping = self.stopping.clone();
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let read = async {
                while let Ok(Some(frame)) = frames.message().await {
                    if consensus.receive(peer, frame).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = read => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
            drop(sender);
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))))
    }

    async fn deliver(&self, request: Request<Delivery>) -> std::result::Result<Response<DeliveryReply>, Status> {
        // Credits are believed from this same authority's other shards alone: only they hold its key.
        self.itself(&request, "authority that delivers").map_err(to_status)?;
        let delivery = request.into_inner();
        answer(match self.handle(delivery.to_shard, Input::Deliver(delivery)).await {
            Ok(Reply::Deliver(reply)) => Ok(reply),
            Ok(other) => Err(unexpected(&other)),
            Err(e) => Err(e),
        })
    }
}
