//! The committee over the network: submitting batches, and reads that no authority is believed alone for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::committee::Committee;
use florin_core::distilled::round::Sealed;
use florin_core::limits::{CERTIFICATES_BYTES_MAX, MESSAGE_BYTES_MAX};
use florin_core::wire;
use florin_core::{Code, Error, Result};
use florin_rpc::client::{Limits, connect_lazy};
use florin_rpc::errors::from_status;
use florin_rpc::services::authority_service_client::AuthorityServiceClient;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::quorum::{Quorum, Send};

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the whole submission.
    pub total: Duration,
    /// For the rest of the batch, once some order of it can be certified or is final.
    pub stragglers: Duration,
    /// For one request.
    pub request: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            total: Duration::from_secs(10),
            stragglers: Duration::from_millis(200),
            request: Duration::from_secs(5),
        }
    }
}

const BACKOFF: Duration = Duration::from_millis(100);

/// Something that happened on the way of a batch.
#[derive(Clone, Debug)]
pub enum Event {
    /// A valid vote came in.
    Vote {
        /// From whom.
        authority: usize,
    },
    /// Refusals came in.
    Refused {
        /// From whom.
        authority: usize,
        /// The first of them.
        error: Error,
    },
    /// A quorum's votes are in.
    Certified,
    /// A valid acknowledgement came in.
    Settled {
        /// From whom.
        authority: usize,
    },
    /// An authority did not answer, or not as the protocol asks.
    Failed {
        /// Which.
        authority: usize,
        /// How.
        error: Error,
    },
    /// Every certified order of the batch is final.
    Final,
}

/// What became of a batch.
pub struct Submission {
    /// For each order: its receipt, or why it has none.
    pub outcomes: Vec<Result<wire::Receipt>>,
    /// For each order: whether a quorum refused it. It may be accepted later all the same.
    pub refused: Vec<bool>,
    /// For each order: whether it is void, so that its sequence number is free; see [`Quorum::void`].
    pub void: Vec<bool>,
    /// Authorities that broke the protocol.
    pub culprits: Vec<(usize, Error)>,
    /// For each order: the signature shares of the notes that it asks for, by authority. Nobody has verified them.
    pub shares: Vec<Vec<(usize, Vec<Bytes>)>>,
    /// Authorities that have voted for a batch as its senders have signed it together; the others had each order with its own
    /// signature, or did not vote.
    pub took_root: usize,
    /// From the start to a certificate, if there was one.
    pub certified_after: Option<Duration>,
    /// From the start to the end.
    pub took: Duration,
}

/// Connections to all authorities.
#[derive(Clone)]
pub struct Network {
    committee: Arc<Committee>,
    channels: Vec<Vec<AuthorityServiceClient<Channel>>>,
    /// How long it waits.
    pub patience: Patience,
}

enum Answer {
    Vote(Result<wire::VoteReply>),
    Settle(Result<wire::SettleReply>),
}

impl Network {
    /// Connects when needed. Must be called in a tokio runtime.
    pub fn new(committee: Arc<Committee>, patience: Patience) -> Self {
        let limits = Limits { request: patience.request, ..Limits::default() };
        let mut channels = Vec::with_capacity(committee.size());
        for authority in &committee.authorities {
            let mut by_address: BTreeMap<&str, Channel> = BTreeMap::new();
            let mut of_authority = Vec::with_capacity(authority.addresses.len());
            for address in &authority.addresses {
                let channel = by_address
                    .entry(address)
                    .or_insert_with(|| connect_lazy(address, *authority.key.as_bytes(), None, limits))
                    .clone();
                of_authority.push(
                    AuthorityServiceClient::new(channel)
                        .max_decoding_message_size(MESSAGE_BYTES_MAX + CERTIFICATES_BYTES_MAX)
                        .max_encoding_message_size(MESSAGE_BYTES_MAX + CERTIFICATES_BYTES_MAX),
                );
            }
            channels.push(of_authority);
        }
        Network { committee, channels, patience }
    }

    /// The committee.
    pub fn committee(&self) -> &Arc<Committee> {
        &self.committee
    }

    /// A client of one authority's shard.
    pub fn authority(&self, authority: usize, shard: u32) -> AuthorityServiceClient<Channel> {
        self.channels[authority][shard as usize].clone()
    }

    /// Drives a batch of orders of one shard until each is final or can't become so in time.
    /// Errors: `LIMIT` if the batch is empty or too large; those of orders are in the outcomes.
    pub async fn submit(&self, shard: u32, orders: Vec<Bytes>, on_event: impl FnMut(Event)) -> Result<Submission> {
        self.drive(shard, Quorum::new(self.committee.clone(), orders)?, false, on_event).await
    }

    /// As [`Network::submit`], for a batch whose root senders have signed.
    pub async fn submit_distilled(&self, shard: u32, batch: Sealed, on_event: impl FnMut(Event)) -> Result<Submission> {
        self.drive(shard, Quorum::distilled(self.committee.clone(), batch)?, false, on_event).await
    }

    /// As [`Network::submit`], and asks for the signature shares of the notes that the orders make: those whose votes are in
    /// the certificate, for a quorum's are enough, and the others need not make any.
    pub async fn submit_for_notes(
        &self,
        shard: u32,
        orders: Vec<Bytes>,
        on_event: impl FnMut(Event),
    ) -> Result<Submission> {
        self.drive(shard, Quorum::new(self.committee.clone(), orders)?, true, on_event).await
    }

    async fn drive(
        &self,
        shard: u32,
        quorum: Quorum,
        with_shares: bool,
        mut on_event: impl FnMut(Event),
    ) -> Result<Submission> {
        let start = Instant::now();
        let mut run = Run {
            network: self,
            shard,
            quorum,
            running: JoinSet::new(),
            busy: vec![false; self.committee.size()],
            not_before: vec![start; self.committee.size()],
            with_shares,
            shares: BTreeMap::new(),
            shares_asked: BTreeSet::new(),
        };
        let mut certifiable_since = None;
        let mut final_since: Option<Duration> = None;
        let mut certified_after = None;
        loop {
            run.launch();
            let waited = start.elapsed();
            let out_of_time = waited >= self.patience.total;
            if certified_after.is_none() {
                if certifiable_since.is_none() && run.quorum.certifiable() {
                    certifiable_since = Some(waited);
                }
                let patient = certifiable_since.is_none_or(|since| waited - since < self.patience.stragglers);
                if run.quorum.decided() || !patient || out_of_time {
                    if !run.quorum.certify() {
                        break;
                    }
                    certified_after = Some(start.elapsed());
                    run.not_before.fill(start);
                    on_event(Event::Certified);
                    continue;
                }
            } else if run.quorum.is_final() {
                // Whoever was not asked for shares may be the first to acknowledge.
                if !run.awaits_shares() || waited - *final_since.get_or_insert(waited) >= self.patience.stragglers {
                    on_event(Event::Final);
                    break;
                }
            } else if run.quorum.any_final() {
                // What waits for an order that nobody submits must not hold up the rest of the batch.
                if waited - *final_since.get_or_insert(waited) >= self.patience.stragglers {
                    break;
                }
            }
            if out_of_time {
                break;
            }
            run.next(start + self.patience.total, &mut on_event).await;
        }
        let shares = std::mem::take(&mut run.shares);
        let quorum = run.finish();
        Ok(Submission {
            outcomes: quorum.outcomes(),
            refused: (0..quorum.orders().len()).map(|i| quorum.refused_by_quorum(i)).collect(),
            void: (0..quorum.orders().len()).map(|i| quorum.void(i)).collect(),
            culprits: quorum.culprits().to_vec(),
            took_root: quorum.took_root(),
            shares: by_order(quorum.orders().len(), shares),
            certified_after,
            took: start.elapsed(),
        })
    }

    /// Asks all authorities the same; `Err` where one does not answer. Once a quorum has answered, the
    /// others get a short while only.
    pub async fn ask_all<T, F, Fut>(&self, shard: u32, ask: F) -> Vec<Result<T>>
    where
        T: std::marker::Send + 'static,
        F: Fn(AuthorityServiceClient<Channel>) -> Fut,
        Fut: Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>> + std::marker::Send + 'static,
    {
        let mut running = JoinSet::new();
        for authority in 0..self.committee.size() {
            let answer = ask(self.authority(authority, shard));
            running
                .spawn(async move { (authority, answer.await.map(tonic::Response::into_inner).map_err(from_status)) });
        }
        let mut answers: Vec<Result<T>> =
            (0..self.committee.size()).map(|_| Err(Error::new(Code::Timeout, "no answer in time"))).collect();
        let mut deadline = Instant::now() + self.patience.request + self.patience.stragglers;
        let mut answered = 0;
        while let Ok(Some(joined)) = tokio::time::timeout_at(deadline.into(), running.join_next()).await {
            let Ok((authority, answer)) = joined else { continue };
            answered += usize::from(answer.is_ok());
            answers[authority] = answer;
            if answered == self.committee.quorum() {
                deadline = deadline.min(Instant::now() + self.patience.stragglers);
            }
        }
        answers
    }

    /// What each authority says of an address.
    pub async fn account(&self, address: &Address) -> Vec<Result<wire::AccountReply>> {
        let request = wire::AccountRequest {
            network_id: self.committee.network.id,
            address: Bytes::copy_from_slice(address.as_bytes()),
        };
        self.ask_all(address.shard(self.committee.shards), move |mut client| {
            let request = request.clone();
            async move { client.account(request).await }
        })
        .await
    }

    /// What each authority knows of an order.
    pub async fn order(&self, actor: u64, seqnum: u32) -> Vec<Result<wire::OrderReply>> {
        let request = wire::OrderRequest { network_id: self.committee.network.id, actor, seqnum, ..Default::default() };
        let shard = self.committee.shard_of(request.network_id, actor);
        self.ask_all(shard, move |mut client| {
            let request = request.clone();
            async move { client.order(request).await }
        })
        .await
    }

    /// A page of credits of an address from each authority.
    pub async fn credits(&self, address: &Address, limit: u32) -> Vec<Result<wire::CreditsReply>> {
        let request = wire::CreditsRequest {
            network_id: self.committee.network.id,
            address: Bytes::copy_from_slice(address.as_bytes()),
            before: 0,
            limit,
        };
        self.ask_all(address.shard(self.committee.shards), move |mut client| {
            let request = request.clone();
            async move { client.credits(request).await }
        })
        .await
    }
}

/// One submission under way.
struct Run<'a> {
    network: &'a Network,
    shard: u32,
    quorum: Quorum,
    running: JoinSet<(usize, Answer)>,
    busy: Vec<bool>,
    not_before: Vec<Instant>,
    with_shares: bool,
    /// What each authority gave last, by order.
    shares: BTreeMap<usize, Vec<wire::NoteShares>>,
    /// Who is being asked for them.
    shares_asked: BTreeSet<usize>,
}

impl Run<'_> {
    /// Lets requests under way complete, and has those that were slow to vote get the certificate too, without anyone
    /// waiting: a shared order is handed to the log by one authority first, which may be among them.
    fn finish(self) -> Quorum {
        let Run { network, shard, quorum, mut running, .. } = self;
        let Some(certificate) = quorum.certificate().cloned() else {
            running.detach_all();
            return quorum;
        };
        let (network, orders) = (network.clone(), quorum.orders().to_vec());
        tokio::spawn(async move {
            while let Some(joined) = running.join_next().await {
                let Ok((authority, Answer::Vote(Ok(reply)))) = joined else { continue };
                let mut request =
                    wire::SettleRequest { shard, certificate: Some(certificate.clone()), ..Default::default() };
                if reply.vote.is_none() {
                    request.orders = orders.clone();
                }
                let mut client = network.authority(authority, shard);
                running.spawn(async move {
                    let reply = client.settle(request).await.map(tonic::Response::into_inner).map_err(from_status);
                    (authority, Answer::Settle(reply))
                });
            }
        });
        quorum
    }

    /// Whether shares are missing that somebody was asked for.
    fn awaits_shares(&self) -> bool {
        self.shares.len() < self.network.committee.quorum() && !self.shares_asked.is_empty()
    }

    /// Sends what is wanted to whoever is free.
    fn launch(&mut self) {
        let now = Instant::now();
        for authority in 0..self.busy.len() {
            if self.busy[authority] || now < self.not_before[authority] {
                continue;
            }
            let Some(send) = self.quorum.wanted(authority) else { continue };
            self.busy[authority] = true;
            self.quorum.on_send(send);
            let mut client = self.network.authority(authority, self.shard);
            match send {
                Send::Vote { .. } => {
                    let request = wire::VoteRequest { shard: self.shard, orders: self.quorum.orders_for(authority) };
                    self.running.spawn(async move {
                        let reply = client.vote(request).await.map(tonic::Response::into_inner).map_err(from_status);
                        (authority, Answer::Vote(reply))
                    });
                }
                Send::Settle { with_orders, .. } => {
                    let orders = if with_orders { self.quorum.orders().to_vec() } else { Vec::new() };
                    let certificate = self.quorum.certificate().cloned();
                    let shares = self.with_shares && self.quorum.is_certifier(authority);
                    if shares {
                        self.shares_asked.insert(authority);
                    }
                    let request = wire::SettleRequest { shard: self.shard, certificate, orders, shares };
                    self.running.spawn(async move {
                        let reply = client.settle(request).await.map(tonic::Response::into_inner).map_err(from_status);
                        (authority, Answer::Settle(reply))
                    });
                }
            }
        }
    }

    /// Waits for an answer, or for a moment when something else is to be done.
    async fn next(&mut self, deadline: Instant, on_event: &mut impl FnMut(Event)) {
        let soon = Instant::now() + BACKOFF / 2;
        let wake = soon.min(deadline);
        let joined = tokio::select! {
            Some(joined) = self.running.join_next() => joined,
            () = tokio::time::sleep_until(wake.into()) => return,
        };
        let Ok((authority, answer)) = joined else { return };
        self.busy[authority] = false;
        let event = match answer {
            Answer::Vote(reply) => self.voted(authority, reply),
            Answer::Settle(reply) => self.settled(authority, reply),
        };
        if let Some(event) = event {
            on_event(event);
        }
    }

    fn voted(&mut self, authority: usize, reply: Result<wire::VoteReply>) -> Option<Event> {
        let votes = self.quorum.votes();
        self.quorum.on_vote(authority, reply);
        // Whoever is still asked again gets a moment first.
        self.not_before[authority] = match self.quorum.certificate() {
            None => Instant::now() + BACKOFF,
            Some(_) => Instant::now(),
        };
        if let Some(error) = self.quorum.failure(authority) {
            return Some(Event::Failed { authority, error: error.clone() });
        }
        if let Some(error) = self.quorum.refusal(authority) {
            return Some(Event::Refused { authority, error: error.clone() });
        }
        (self.quorum.votes() > votes).then_some(Event::Vote { authority })
    }

    fn settled(&mut self, authority: usize, reply: Result<wire::SettleReply>) -> Option<Event> {
        self.shares_asked.remove(&authority);
        let missing = reply.as_ref().is_ok_and(|r| r.batch_missing);
        let shares = reply.as_ref().map(|r| r.shares.clone()).unwrap_or_default();
        if self.with_shares && !shares.is_empty() {
            self.shares.insert(authority, shares);
        }
        let acknowledged = self.quorum.acknowledgements();
        self.quorum.on_settle(authority, reply);
        self.not_before[authority] = if missing { Instant::now() } else { Instant::now() + BACKOFF };
        if let Some(error) = self.quorum.failure(authority) {
            return Some(Event::Failed { authority, error: error.clone() });
        }
        (self.quorum.acknowledgements() > acknowledged).then_some(Event::Settled { authority })
    }
}

/// Shares by order, of what each authority gave; a lying one may name orders that there are not.
fn by_order(orders: usize, shares: BTreeMap<usize, Vec<wire::NoteShares>>) -> Vec<Vec<(usize, Vec<Bytes>)>> {
    let mut of_orders = vec![Vec::new(); orders];
    for (authority, given) in shares {
        for given in given {
            if let Some(of_order) = of_orders.get_mut(given.index as usize)
                && of_order.last().is_none_or(|(last, _)| *last != authority)
            {
                of_order.push((authority, given.shares));
            }
        }
    }
    of_orders
}
