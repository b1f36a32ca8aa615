//! What AlephBFT is given to run with: network, source of data, taker of the order, tasks.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aleph_bft::{
    DataProvider, DelayConfig, Network, NetworkData, NodeIndex, OrderedUnit as Ordered, Recipient as To, SignatureSet,
    SpawnHandle, TaskHandle, UnitFinalizationHandler,
};
use async_trait::async_trait;
use bytes::Bytes;
use florin_core::error::{Code, Error};
use futures::FutureExt as _;
use parity_scale_codec::{Decode, Encode};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::frames::split;
use super::keys::{Item, Keys, Sha, Sig};
use super::shared::Shared;
use super::wire::{Message, NewestResponse, UnitMessage};
use super::{OrderedUnit, Pace, Recipient, Source, Transport, UNIT_BYTES_MAX};

/// A message as AlephBFT takes it.
pub(super) type Data = NetworkData<Sha, Item, Sig, SignatureSet<Sig>>;

/// What SCALE puts in front of "which of my units is the newest?".
const NEWEST_REQUEST: [u8; 2] = [0, 4];

/// AlephBFT's own delays. `busy` is between two units; an idle pace is kept in [`Feed`], which can be woken.
pub(super) fn delays(pace: Pace, authorities: usize) -> DelayConfig {
    let doubling = |first: u64, longest: u64| {
        Arc::new(move |tries: usize| Duration::from_millis((first << tries.min(16)).min(longest)))
    };
    // What heals when a broadcast was lost: every authority repeats the newest unit of each. That is authorities^3
    // messages in this time if all stand still, so it grows with their number.
    let repeat = Duration::from_millis(100) * authorities as u32;
    DelayConfig {
        // How soon it looks whether something of this is due. Each look wakes two threads, and where many share a machine
        // that is a good part of what they cost at rest.
        tick_interval: Duration::from_millis(25).max(Duration::from_millis(6) * authorities as u32),
        unit_rebroadcast_interval_min: repeat,
        unit_rebroadcast_interval_max: repeat * 3 / 2,
        unit_creation_delay: Arc::new(move |round| if round == 0 { Duration::ZERO } else { pace.busy }),
        coord_request_delay: doubling(100, 2_000),
        coord_request_recipients: Arc::new(|tries| if tries == 0 { 2 } else { 3 }),
        parent_request_delay: doubling(200, 2_000),
        parent_request_recipients: Arc::new(|tries| if tries == 0 { 1 } else { 2 }),
        newest_request_delay: Arc::new(|_| Duration::from_secs(1)),
    }
}

/// What it puts in front of "which are this unit's parents?".
const PARENTS_REQUEST: [u8; 2] = [0, 2];

/// A message that waits for the file.
pub(super) struct Held {
    to: Recipient,
    message: Bytes,
    /// So much of the file must be durable first.
    written: u64,
}

/// The network as AlephBFT sees it.
pub(super) struct Link {
    pub(super) shared: Arc<Shared>,
    pub(super) keys: Keys,
    pub(super) inbox: mpsc::Receiver<Data>,
    /// Into the own inbox.
    pub(super) local: mpsc::Sender<Data>,
    pub(super) outbox: mpsc::Sender<Held>,
    /// Bytes in the outbox, and how many there may be.
    pub(super) held: Arc<AtomicUsize>,
    pub(super) held_max: usize,
}

impl Link {
    /// AlephBFT begins by asking all which of our units is the newest, and waits five seconds if one of them doesn't
    /// answer. The backup says better than peers, so each is answered for here, "none", signed with a token
    /// that only this process knows; nothing of it goes out or comes in.
    fn answer_newest(&self, request: &[u8], responder: u64) {
        let mut rest = request;
        let Ok(Message::Units(UnitMessage::NewestRequest(requester, salt))) = Message::decode(&mut rest) else {
            return;
        };
        let signature = *self.keys.token();
        let answer = NewestResponse { requester, responder, unit: None, salt, signature };
        self.answer(UnitMessage::NewestResponse(answer));
    }

    /// Whether it asked for the parents of an own unit, which peers don't know: see [`super::built`].
    fn answer_parents(&self, request: &[u8]) -> bool {
        let mut rest = request;
        let Ok(Message::Units(UnitMessage::ParentsRequest(_, hash))) = Message::decode(&mut rest) else {
            return false;
        };
        let parents = self.shared.built.parents_of(&hash);
        parents.map(|parents| self.answer(UnitMessage::ParentsResponse(hash, parents))).is_some()
    }

    fn answer(&self, answer: UnitMessage) {
        let answer = Message::Units(answer).encode();
        if let Ok(data) = Data::decode(&mut &*answer) {
            // Asked again soon if this is full.
            let _ = self.local.try_send(data);
        }
    }
}

#[async_trait]
impl Network<Data> for Link {
    fn send(&self, data: Data, to: To) {
        let message = data.encode();
        let index = match to {
            To::Everyone => None,
            // It answers whoever a message named; the gate let only members through.
            To::Node(NodeIndex(i)) if i < self.keys.size() && i != self.shared.own as usize => Some(i as u32),
            To::Node(_) => return,
        };
        if message[..2] == NEWEST_REQUEST {
            return index.into_iter().for_each(|i| self.answer_newest(&message, u64::from(i)));
        }
        if message[..2] == PARENTS_REQUEST && self.answer_parents(&message) {
            return;
        }
        let bytes = message.len();
        let written = self.shared.written.load(Ordering::SeqCst);
        let to = index.map_or(Recipient::Everyone, Recipient::One);
        let fits = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.held_max;
        if !fits || self.outbox.try_send(Held { to, message: message.into(), written }).is_err() {
            // As if the network had lost it.
            self.held.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.counters.unsent.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn next_event(&mut self) -> Option<Data> {
        self.inbox.recv().await
    }
}

/// Sends what the file has caught up with, in order; ends when the engine does.
pub(super) async fn send_loop(
    shared: Arc<Shared>,
    mut outbox: mpsc::Receiver<Held>,
    held: Arc<AtomicUsize>,
    transport: Arc<dyn Transport>,
) {
    while let Some(Held { to, message, written }) = outbox.recv().await {
        if !shared.durable(written).await {
            return;
        }
        held.fetch_sub(message.len(), Ordering::Relaxed);
        split(&message).for_each(|frame| transport.send(to, frame));
    }
}

/// Data for each new unit.
pub(super) struct Feed {
    pub(super) shared: Arc<Shared>,
    pub(super) source: Arc<dyn Source>,
}

#[async_trait]
impl DataProvider for Feed {
    type Output = Item;

    async fn get_data(&mut self) -> Option<Item> {
        self.shared.rest().await;
        // The unit before this one is in the file: it is a parent.
        let round = u32::try_from(self.shared.own_round() + 1).unwrap_or(0);
        let data = self.source.next(round).filter(|data| !data.is_empty());
        let fits = data.as_ref().is_none_or(|data| data.len() <= UNIT_BYTES_MAX);
        if !fits {
            tracing::error!("the source gave more than {UNIT_BYTES_MAX} bytes, which fits no unit; dropped");
        }
        let item = data.filter(|_| fits).map(Item);
        if item.as_ref().is_some_and(|item| self.source.is_urgent(&item.0)) {
            self.shared.note_urgent(u64::from(self.shared.own), round as u16);
        }
        self.shared.built.note_making(round, item.clone());
        item
    }
}

/// Takes the order.
pub(super) struct Taker {
    pub(super) shared: Arc<Shared>,
    pub(super) session: u64,
    pub(super) out: mpsc::UnboundedSender<OrderedUnit>,
}

impl UnitFinalizationHandler for Taker {
    type Data = Item;
    type Hasher = Sha;

    fn batch_finalized(&mut self, batch: Vec<Ordered<Item, Sha>>) {
        for unit in batch {
            let (creator, round) = (unit.creator.0 as u32, u32::from(unit.round));
            if unit.data.is_some() {
                self.shared.note_ordered(u64::from(creator), unit.round);
            }
            let data = unit.data.map(|item| item.0).unwrap_or_default();
            // Closed only when the engine is being stopped.
            let _ = self.out.send(OrderedUnit { session: self.session, creator, round, data });
        }
    }
}

/// Runs AlephBFT's tasks on tokio; a panic in one of them is the engine's fault, for all to see.
#[derive(Clone)]
pub(super) struct Spawner {
    pub(super) on_panic: Arc<dyn Fn(Error) + Send + Sync>,
    pub(super) tasks: Arc<Mutex<Vec<AbortHandle>>>,
}

impl SpawnHandle for Spawner {
    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.spawn_essential(name, task));
    }

    fn spawn_essential(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> TaskHandle {
        let on_panic = self.on_panic.clone();
        let spawned = tokio::spawn(async move {
            AssertUnwindSafe(task).catch_unwind().await.map_err(|_| {
                on_panic(Error::new(Code::StorageFailed, format!("the ordering engine's task {name} panicked")));
            })
        });
        self.tasks.lock().expect("no panic under this lock").push(spawned.abort_handle());
        Box::pin(async move { spawned.await.unwrap_or(Err(())) })
    }
}
