//! What a shard hands to the log of its own authority: certified CALLs, RECOVERs and what a recovery asks for.
//!
//! All authorities settle the same orders, and one is enough to get them ordered: the authority whose turn it is by the
//! batch hands them in at once, the others one after another when the log has not taken them for a while. What
//! the log has applied leaves the outbox.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use florin_core::authority::input::Input;
use florin_core::authority::state::LOG;
use florin_core::wire::{HandReply, HandRequest, LogCall};
use florin_core::{Code, Error, Result};
use florin_rpc::errors::from_status;
use florin_rpc::services::peer_service_client::PeerServiceClient;
use tokio::sync::broadcast;
use tonic::transport::Channel;
use tracing::{debug, warn};

use crate::consensus::Consensus;
use crate::log::{Decided, LogShell};
use crate::shard::Shard;

/// Entries that may be under way; more wait in the outbox.
const OPEN_MAX: usize = 65_536;
/// Calls in one question to the log, and bytes of items in one request.
const CALLS: usize = 1_024;
const REQUEST_BYTES: usize = 1 << 20;
/// Later than the one before it in the line by this much an authority hands in what is not its turn.
const TURN: Duration = Duration::from_millis(500);
/// What is not applied by then is handed in again, then after twice as long, and so on.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// How often the log is asked what it has taken, where it does not tell.
const ASK: Duration = Duration::from_millis(500);
const ASK_REMOTE: Duration = Duration::from_millis(100);

/// The way to the log of this authority.
#[derive(Clone)]
pub enum LogRoute {
    /// In this process.
    Local(Arc<LogShell>, Consensus),
    /// In another process of the same operator.
    Remote(PeerServiceClient<Channel>),
}

impl LogRoute {
    /// Hands items in, and asks which calls are done. The calls are looked at before the items are taken.
    pub async fn hand(&mut self, request: HandRequest) -> Result<HandReply> {
        match self {
            LogRoute::Local(shell, consensus) => {
                let done = request.calls.iter().map(|call| shell.log().is_done(shell.store(), call));
                let done = done.collect::<Result<Vec<bool>>>()?;
                // What is visible may not be durable, and the shard forgets what is done.
                if done.contains(&true) {
                    shell.barrier().await?;
                }
                if !request.items.is_empty() {
                    consensus.offer(request.items)?;
                }
                Ok(HandReply { done })
            }
            LogRoute::Remote(client) => {
                client.hand(request).await.map(tonic::Response::into_inner).map_err(from_status)
            }
        }
    }

    fn decided(&self) -> Option<broadcast::Receiver<Decided>> {
        match self {
            LogRoute::Local(shell, _) => Some(shell.decided()),
            LogRoute::Remote(_) => None,
        }
    }
}

/// An entry of the outbox.
struct Entry {
    call: LogCall,
    turn: u64,
    seen: Instant,
    /// When it was handed in, and how often.
    offered: Option<(Instant, u32)>,
}

struct Pump {
    shard: Arc<Shard>,
    route: LogRoute,
    entries: BTreeMap<u64, Entry>,
    by_order: BTreeMap<(u64, u64, u32), u64>,
    /// Taken by the log, and still in the outbox behind one that is not.
    done: BTreeSet<u64>,
    /// First entry that is not read.
    next: u64,
    asked: Instant,
}

/// Hands in whatever is in the shard's outbox for the log, for ever.
pub async fn pump(shard: Arc<Shard>, route: LogRoute) {
    let mut changes = shard.outbox_changes();
    let mut decided = route.decided();
    let ask = if decided.is_some() { ASK } else { ASK_REMOTE };
    let mut pump = Pump {
        shard,
        route,
        entries: BTreeMap::new(),
        by_order: BTreeMap::new(),
        done: BTreeSet::new(),
        next: 0,
        asked: Instant::now(),
    };
    loop {
        changes.mark_unchanged();
        let mut pause = ask;
        if let Err(e) = pump.turn(ask).await {
            match e.code {
                Code::Busy | Code::Unreachable | Code::Timeout => debug!("orders for the log wait: {e}"),
                _ => warn!("orders for the log wait: {e}"),
            }
            pause = AGAIN;
        }
        let news = async {
            match &mut decided {
                Some(decided) => decided.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            orders = news => match orders {
                Ok(orders) => pump.decided(&orders),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            },
            () = tokio::time::sleep(pause), if !pump.entries.is_empty() => {}
        }
        while let Some(Ok(orders)) = decided.as_mut().map(broadcast::Receiver::try_recv) {
            pump.decided(&orders);
        }
    }
}

impl Pump {
    fn decided(&mut self, orders: &[(u64, u64, u32)]) {
        for order in orders {
            if let Some(sequence) = self.by_order.get(order).copied() {
                self.is_done(sequence);
            }
        }
    }

    fn is_done(&mut self, sequence: u64) {
        if let Some(Entry { call, .. }) = self.entries.remove(&sequence) {
            self.by_order.remove(&(call.network_id, call.actor, call.seqnum));
            self.done.insert(sequence);
        }
    }

    async fn turn(&mut self, ask: Duration) -> Result<()> {
        self.read().await?;
        if self.asked.elapsed() >= ask {
            self.asked = Instant::now();
            self.ask().await?;
        }
        self.acknowledge().await?;
        self.offer().await
    }

    /// Reads new entries of the outbox, once they are durable.
    async fn read(&mut self) -> Result<()> {
        let authority = self.shard.authority();
        let (first, last) = authority.outbox_range(self.shard.store(), LOG)?;
        let room = OPEN_MAX.saturating_sub(self.entries.len()) as u64;
        let next = self.next.max(first);
        let end = last.min(next.saturating_add(room).saturating_sub(1));
        if next > end {
            return Ok(());
        }
        self.shard.barrier().await?;
        let mut last = None;
        for sequence in next..=end {
            let delivery = authority.outbox(self.shard.store(), LOG, sequence)?;
            let call = delivery.calls.into_iter().next();
            let call = call.ok_or_else(|| Error::new(Code::StorageCorrupt, "an entry for the log is empty"))?;
            if !call.shown && !call.report && !call.recover {
                self.by_order.insert((call.network_id, call.actor, call.seqnum), sequence);
            }
            // The calls of a batch stand side by side.
            let turn = match last {
                Some((batch, turn)) if batch == call.batch => turn,
                _ => authority.log_turn(self.shard.store(), &call)?,
            };
            last = Some((call.batch, turn));
            self.entries.insert(sequence, Entry { call, turn, seen: Instant::now(), offered: None });
            self.next = sequence + 1;
        }
        Ok(())
    }

    /// Asks the log which entries it has taken.
    async fn ask(&mut self) -> Result<()> {
        let open: Vec<(u64, LogCall)> =
            self.entries.iter().map(|(sequence, entry)| (*sequence, entry.call.clone())).collect();
        for some in open.chunks(CALLS) {
            let calls = some.iter().map(|(_, call)| call.clone()).collect();
            let reply = self.route.hand(HandRequest { calls, items: Vec::new() }).await?;
            for ((sequence, _), _) in some.iter().zip(reply.done).filter(|(_, done)| *done) {
                self.is_done(*sequence);
            }
        }
        Ok(())
    }

    /// Takes the first entries that are done out of the outbox.
    async fn acknowledge(&mut self) -> Result<()> {
        let (first, _) = self.shard.authority().outbox_range(self.shard.store(), LOG)?;
        let mut next = first;
        while self.done.remove(&next) {
            next += 1;
        }
        if next > first {
            self.shard.handle_own(Input::Delivered { to_shard: LOG, applied: next - 1 }).await?;
        }
        Ok(())
    }

    /// Hands in what is due.
    async fn offer(&mut self) -> Result<()> {
        let (index, n) = (self.shard.authority().index() as u64, self.shard.authority().committee().size() as u64);
        let due = self.entries.iter().filter(|(_, entry)| entry.is_due(index, n));
        let due: Vec<(u64, LogCall)> =
            due.map(|(sequence, entry)| (*sequence, entry.call.clone())).take(CALLS).collect();
        if due.is_empty() {
            return Ok(());
        }
        let calls: Vec<LogCall> = due.iter().map(|(_, call)| call.clone()).collect();
        let offers = self.shard.authority().log_items(self.shard.store(), &calls)?;
        let mut items: Vec<Bytes> = Vec::new();
        for offer in offers {
            if items.iter().map(Bytes::len).sum::<usize>() + offer.item.len() > REQUEST_BYTES {
                let items = std::mem::take(&mut items);
                self.route.hand(HandRequest { calls: Vec::new(), items }).await?;
            }
            items.push(offer.item);
        }
        self.route.hand(HandRequest { calls: Vec::new(), items }).await?;
        let now = Instant::now();
        for (sequence, _) in due {
            if let Some(entry) = self.entries.get_mut(&sequence) {
                let before = entry.offered.map_or(0, |(_, times)| times);
                entry.offered = Some((now, before.saturating_add(1)));
            }
        }
        Ok(())
    }
}

impl Entry {
    fn is_due(&self, index: u64, n: u64) -> bool {
        let rank = (index + n - self.turn % n) % n;
        match self.offered {
            Some((at, times)) => at.elapsed() >= (AGAIN * (1 << times.min(6).saturating_sub(1))).min(AGAIN_MAX),
            // What only this authority can say.
            None if self.call.report => true,
            None => self.seen.elapsed() >= TURN * rank as u32,
        }
    }
}
