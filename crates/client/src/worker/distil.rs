//! The lane of orders whose senders stay to sign the root of their batch, one a shard: the shell around the pure [`Round`].
//!
//! Whoever can't be asked goes the ordinary way, at once and with its own signature: who is not sure to have a key, who was
//! asked before and has not signed, and what is undecided and tried again. So who does not sign delays only those who do,
//! each time by what the round waits at most, and for a while not again.

use std::collections::HashMap;
use std::sync::Arc;

use florin_core::address::Address;
use florin_core::bls;
use florin_core::committee::Committee;
use florin_core::distilled::Proposal;
use florin_core::distilled::round::{Config, Effect, Input, Round, Sealed};
use florin_core::envelope::Order;
use florin_core::merkle::Hash;
use florin_core::wire::distil_reply::Kind as Say;
use florin_core::wire::distil_request::Kind as Said;
use florin_core::wire::{DistilOrder, DistilReply, DistilRequest, Receipt, RootShare};
use florin_core::{Code, Error, Result};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tonic::{Status, Streaming};
use tracing::warn;

use super::{Batching, IN_FLIGHT, Job, QUEUE, Shared, Worker, drive, outcome_of, receipt_bytes_max, retry, stopping};

/// Messages that a lane takes in one step.
const AT_ONCE: usize = 1_024;

/// What a lane is told.
pub(super) enum Message {
    /// An order whose sender stays.
    Order(Box<Asked>),
    /// What a sender has signed.
    Share { actor: u64, root: Hash, signature: bls::SignatureBytes },
}

/// An order whose sender stays.
pub(super) struct Asked {
    job: Job,
    key: bls::Key,
    propose: oneshot::Sender<Proposal>,
}

/// Who waits for an order of the round.
struct Waiting {
    job: Job,
    /// Taken when its sender is asked.
    propose: Option<oneshot::Sender<Proposal>>,
}

struct Lane {
    shared: Arc<Shared>,
    shard: u32,
    waiting: HashMap<Hash, Waiting>,
    /// The ordinary way.
    plain: mpsc::WeakSender<Job>,
    slots: Arc<Semaphore>,
}

fn config(batching: &Batching) -> Config {
    let ms = |duration: std::time::Duration| duration.as_millis() as u64;
    let Batching { orders, linger, sign } = batching;
    Config { orders_max: *orders, collect_ms: ms(*linger), sign_ms: ms(*sign), orders_held_max: QUEUE }
}

/// Runs one until nobody can tell it anything any more.
pub(super) async fn lane(
    shared: Arc<Shared>,
    shard: u32,
    mut queue: mpsc::Receiver<Message>,
    plain: mpsc::WeakSender<Job>,
) {
    let mut round = Round::new(shared.network.committee().clone(), config(&shared.batching));
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut lane = Lane { shared, shard, waiting: HashMap::new(), plain, slots };
    let start = Instant::now();
    let mut messages = Vec::new();
    loop {
        let deadline = round.deadline_ms().map(|ms| start + std::time::Duration::from_millis(ms));
        let tick = async {
            match deadline {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            count = queue.recv_many(&mut messages, AT_ONCE) => if count == 0 { return },
            () = tick => {}
        }
        let mut inputs: Vec<Input> = messages.drain(..).filter_map(|message| lane.input(message)).collect();
        inputs.push(Input::Tick);
        let now_ms = start.elapsed().as_millis() as u64;
        // Finding who has signed falsely takes a millisecond for each question.
        let step = tokio::task::spawn_blocking(move || {
            let effects: Vec<Effect> = inputs.into_iter().flat_map(|input| round.handle(now_ms, input)).collect();
            (round, effects)
        });
        let Ok((stepped, effects)) = step.await else { return };
        round = stepped;
        effects.into_iter().for_each(|effect| lane.run(effect));
    }
}

impl Lane {
    fn input(&mut self, message: Message) -> Option<Input> {
        let asked = match message {
            Message::Share { actor, root, signature } => return Some(Input::Share { actor, root, signature }),
            Message::Order(asked) => asked,
        };
        let Asked { job, key, propose } = *asked;
        if self.waiting.contains_key(&job.order.id) {
            self.send_plain(job);
            return None;
        }
        let order = job.order.raw.clone();
        self.waiting.insert(job.order.id, Waiting { job, propose: Some(propose) });
        Some(Input::Submit { order, key: Some(key) })
    }

    fn run(&mut self, effect: Effect) {
        match effect {
            Effect::Propose { order_id, proposal, .. } => {
                let propose = self.waiting.get_mut(&order_id).and_then(|waiting| waiting.propose.take());
                // Who has gone rides along with its own signature.
                let _ = propose.map(|propose| propose.send(proposal));
            }
            Effect::Refused { order, error } => {
                let order = Order::decode(order);
                if let Some(waiting) = order.ok().and_then(|order| self.waiting.remove(&order.id)) {
                    tracing::debug!("an order goes the ordinary way: {error}");
                    self.send_plain(waiting.job);
                }
            }
            Effect::Liar { actor } => {
                warn!(actor, "has signed something else than the root; its order goes with its own signature");
            }
            Effect::Finished(sealed) => self.finish(sealed),
        }
    }

    fn finish(&mut self, sealed: Sealed) {
        let signers = sealed.signers();
        let silent = sealed.own_orders().iter().enumerate().filter(|(i, _)| signers.binary_search(i).is_err());
        silent.for_each(|(_, order)| self.shared.accounts.rest(order.actor));
        let jobs = sealed.own_orders().iter().filter_map(|order| self.waiting.remove(&order.id));
        let jobs: Vec<Job> = jobs.map(|waiting| waiting.job).collect();
        let (shared, shard, again, slots) = (self.shared.clone(), self.shard, self.plain.clone(), self.slots.clone());
        tokio::spawn(async move {
            let Ok(slot) = slots.acquire_owned().await else { return };
            let undecided = drive(&shared, shard, jobs, Some(sealed)).await;
            drop(slot);
            retry(undecided, again).await;
        });
    }

    fn send_plain(&self, job: Job) {
        let Some(queue) = self.plain.upgrade() else { return };
        if let Err(e) = queue.try_send(job)
            && let Some(answer) = e.into_inner().answer
        {
            let _ = answer.send(Err(Error::new(Code::Busy, format!("{QUEUE} orders wait for this shard"))));
        }
    }
}

/// What the sender of an order waits for.
struct Awaited {
    actor: u64,
    answer: oneshot::Receiver<Result<Receipt>>,
    /// With whom it talks meanwhile, if it is to be asked.
    asks: Option<(mpsc::Sender<Message>, oneshot::Receiver<Proposal>)>,
}

impl Worker {
    /// Answers a sender who stays, until its order has an outcome.
    pub(super) async fn accompany(
        &self,
        mut incoming: Streaming<DistilRequest>,
        replies: mpsc::Sender<std::result::Result<DistilReply, Status>>,
    ) -> std::result::Result<(), Status> {
        let Some(DistilRequest { kind: Some(Said::Order(said)) }) = incoming.message().await? else {
            let e = Error::new(Code::Decode, "expected an order, found something else");
            return Err(florin_rpc::errors::to_status(e));
        };
        let committee = self.shared.network.committee().clone();
        let size = said.order.len() + receipt_bytes_max(&committee, self.shared.batching.orders);
        let awaited = self.await_batch(said).await;
        tokio::spawn(async move {
            let outcome = match awaited {
                Ok(awaited) => awaited.outcome(&committee, &mut incoming, &replies).await,
                Err(e) => Err(e),
            };
            let kind = Some(Say::Outcome(outcome_of(outcome, 0, size)));
            let _ = replies.send(Ok(DistilReply { kind })).await;
        });
        Ok(())
    }

    /// Puts an order into its lane, or where all others are if its sender can't be asked.
    async fn await_batch(&self, said: DistilOrder) -> Result<Awaited> {
        let (job, answer) = self.admit(&said.order)?;
        let address = Address::from_slice(&said.address)?;
        let actor = job.order.actor;
        let key = match self.shared.batching.sign.is_zero() {
            true => None,
            false => self.shared.accounts.key(&self.shared.network, &job.order, &address).await,
        };
        let shard = self.shared.network.committee().shard_of(job.order.network_id, actor) as usize;
        let Some(key) = key else {
            self.send(job)?;
            return Ok(Awaited { actor, answer, asks: None });
        };
        let (propose, proposed) = oneshot::channel();
        let lane = self.lanes[shard].clone();
        if let Err(e) = lane.try_send(Message::Order(Box::new(Asked { job, key, propose }))) {
            if let Message::Order(asked) = e.into_inner() {
                self.send(asked.job)?;
            }
            return Ok(Awaited { actor, answer, asks: None });
        }
        Ok(Awaited { actor, answer, asks: Some((lane, proposed)) })
    }
}

impl Awaited {
    async fn outcome(
        self,
        committee: &Committee,
        incoming: &mut Streaming<DistilRequest>,
        replies: &mpsc::Sender<std::result::Result<DistilReply, Status>>,
    ) -> Result<Receipt> {
        let Awaited { actor, mut answer, asks } = self;
        let stops = || Err(stopping());
        let Some((lane, proposed)) = asks else { return answer.await.unwrap_or_else(|_| stops()) };
        tokio::select! {
            outcome = &mut answer => return outcome.unwrap_or_else(|_| stops()),
            proposal = proposed => if let Ok(proposal) = proposal {
                let kind = Some(Say::Proposal(proposal.to_wire(committee)));
                let _ = replies.send(Ok(DistilReply { kind })).await;
            },
        }
        tokio::select! {
            outcome = &mut answer => return outcome.unwrap_or_else(|_| stops()),
            said = incoming.message() => if let Some(share) = said.ok().flatten().and_then(|said| share_of(actor, said)) {
                let _ = lane.send(share).await;
            },
        }
        // A sender says one thing: more would only cost verifications.
        drop(lane);
        answer.await.unwrap_or_else(|_| stops())
    }
}

fn share_of(actor: u64, said: DistilRequest) -> Option<Message> {
    let Some(Said::Share(RootShare { root, signature })) = said.kind else { return None };
    let (root, signature) = (root[..].try_into().ok()?, signature[..].try_into().ok()?);
    Some(Message::Share { actor, root, signature })
}
