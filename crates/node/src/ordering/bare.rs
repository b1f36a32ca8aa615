//! The engine alone: AlephBFT in one process, over channels, without disk, gate or ledger. What `florin bench ordered`
//! compares with.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aleph_bft::{
    DataProvider, LocalIO, Network, NodeCount, NodeIndex, OrderedUnit, Recipient, SpawnHandle as _, Terminator,
    UnitFinalizationHandler, create_config, run_session,
};
use async_trait::async_trait;
use bytes::{BufMut, BytesMut};
use florin_core::error::{Code, Error, Result};
use florin_core::limits::COMMITTEE_MAX;
use florin_core::signatures::AuthorityKey;
use futures::channel::oneshot;
use tokio::sync::mpsc;

use super::keys::{Item, Keys, Sha};
use super::link::{Data, Spawner, delays};
use super::{Pace, UNIT_BYTES_MAX, lock};

/// Rounds before AlephBFT ends: more than an hour at the usual pace would need sessions.
const ROUNDS: u16 = u16::MAX - 1;
/// Between two offers.
const OFFER: Duration = Duration::from_millis(1);
/// How long the last items may take.
const DRAIN: Duration = Duration::from_secs(10);
/// Of an item: when it was offered, in microseconds.
const STAMP: usize = 8;

/// What the bare engine came to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BareReport {
    /// Items a second that came out in order, from the first to the last.
    pub ordered_per_s: f64,
    /// Milliseconds from offering an item to having it ordered at the same node, median.
    pub p50_ms: f64,
    /// The same, 99th percentile.
    pub p99_ms: f64,
}

/// Runs `nodes` instances in this process and offers them `rate` items a second of `item_bytes` each, in turn, for
/// `duration`, once they have begun to order. Must be called on a tokio runtime with a timer.
///
/// Errors: `USAGE` for 0 items, fewer than 4 nodes or items of no fitting size; `TIMEOUT` if nothing gets ordered.
pub async fn measure_bare(
    nodes: usize,
    pace: Pace,
    rate: u64,
    item_bytes: usize,
    duration: Duration,
) -> Result<BareReport> {
    if !(4..=COMMITTEE_MAX).contains(&nodes) || !(STAMP..=UNIT_BYTES_MAX).contains(&item_bytes) || rate == 0 {
        let expected =
            format!("4 to {COMMITTEE_MAX} nodes, {STAMP} to {UNIT_BYTES_MAX} bytes an item, 1 item a second");
        let found = format!("{nodes} nodes, {item_bytes} bytes, {rate} items");
        return Err(Error::expected(Code::Usage, "the load", expected, found));
    }
    let ring = Ring::start(nodes, pace, item_bytes)?;
    ring.wait_for("the first unit", |seen| seen.units > 0).await?;
    let offered = ring.offer(rate, duration).await;
    ring.wait_for("the last item", |seen| seen.latencies.len() as u64 >= offered).await?;
    let mut seen = std::mem::take(&mut *lock(&ring.seen));
    let took = seen.last.zip(seen.first).map_or(Duration::ZERO, |(last, first)| last.duration_since(first));
    seen.latencies.sort_unstable();
    let at = |part: f64| seen.latencies[((offered - 1) as f64 * part) as usize].as_secs_f64() * 1_000.0;
    let ordered_per_s = offered as f64 / took.max(duration).as_secs_f64();
    Ok(BareReport { ordered_per_s, p50_ms: at(0.5), p99_ms: at(0.99) })
}

type Queue = Arc<Mutex<VecDeque<u64>>>;

/// What has come out, at whoever offered it.
#[derive(Default)]
struct Seen {
    units: u64,
    latencies: Vec<Duration>,
    first: Option<Instant>,
    last: Option<Instant>,
}

struct Ring {
    began: Instant,
    queues: Vec<Queue>,
    seen: Arc<Mutex<Seen>>,
    exits: Vec<oneshot::Sender<()>>,
    spawner: Spawner,
}

impl Ring {
    fn start(nodes: usize, pace: Pace, item_bytes: usize) -> Result<Ring> {
        let spawner = Spawner { on_panic: Arc::new(|e| tracing::error!("{e}")), tasks: Arc::default() };
        let signers: Vec<_> = (0..nodes).map(|i| Arc::new(AuthorityKey::from_seed([i as u8 + 1; 32]))).collect();
        let members: Vec<_> = signers.iter().map(|key| key.public()).collect();
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..nodes).map(|_| mpsc::unbounded_channel()).unzip();
        let queues: Vec<Queue> = (0..nodes).map(|_| Queue::default()).collect();
        let mut ring = Ring { began: Instant::now(), queues, seen: Arc::default(), exits: Vec::new(), spawner };
        for (index, (key, inbox)) in signers.into_iter().zip(inboxes).enumerate() {
            let keys = Keys::new(members.clone(), (&[0; 32], 0, 0), index as u32, key, [0; 64]);
            let feed = Feed { queue: ring.queues[index].clone(), item_bytes };
            let taker = Taker { index, item_bytes, began: ring.began, seen: ring.seen.clone() };
            let io =
                LocalIO::new_with_unit_finalization_handler(feed, taker, futures::io::sink(), futures::io::empty());
            let (count, delays) = (NodeCount(nodes), delays(pace, nodes));
            let config = create_config(count, NodeIndex(index), 0, ROUNDS, delays, Duration::ZERO)
                .map_err(|_| Error::new(Code::Usage, "AlephBFT refused its configuration"))?;
            let (exit, on_exit) = oneshot::channel();
            let terminator = Terminator::create_root(on_exit, "florin-bare");
            let net = Net { index, senders: senders.clone(), inbox };
            ring.exits.push(exit);
            ring.spawner.spawn("session", run_session(config, io, net, keys, ring.spawner.clone(), terminator));
        }
        Ok(ring)
    }

    /// Offers items for a while, evenly; says how many.
    async fn offer(&self, rate: u64, duration: Duration) -> u64 {
        let began = Instant::now();
        let (mut offered, total) = (0, (rate as f64 * duration.as_secs_f64()).max(1.0) as u64);
        let mut ticks = tokio::time::interval(OFFER);
        while offered < total {
            ticks.tick().await;
            let due = (began.elapsed().as_secs_f64() * rate as f64).ceil() as u64;
            for i in offered..due.min(total) {
                let now = self.began.elapsed().as_micros() as u64;
                lock(&self.queues[i as usize % self.queues.len()]).push_back(now);
            }
            offered = due.min(total).max(offered);
        }
        total
    }

    async fn wait_for(&self, what: &str, is_there: impl Fn(&Seen) -> bool) -> Result<()> {
        let until = Instant::now() + DRAIN;
        while !is_there(&lock(&self.seen)) {
            if Instant::now() > until {
                return Err(Error::new(Code::Timeout, format!("the bare engine did not order {what}")));
            }
            tokio::time::sleep(OFFER).await;
        }
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        for exit in self.exits.drain(..) {
            let _ = exit.send(());
        }
        lock(&self.spawner.tasks).drain(..).for_each(|task| task.abort());
    }
}

struct Net {
    index: usize,
    senders: Vec<mpsc::UnboundedSender<Data>>,
    inbox: mpsc::UnboundedReceiver<Data>,
}

#[async_trait]
impl Network<Data> for Net {
    fn send(&self, data: Data, to: Recipient) {
        let is_meant = |i: usize| i != self.index && (to == Recipient::Everyone || to == Recipient::Node(NodeIndex(i)));
        for (_, sender) in self.senders.iter().enumerate().filter(|(i, _)| is_meant(*i)) {
            let _ = sender.send(data.clone());
        }
    }

    async fn next_event(&mut self) -> Option<Data> {
        self.inbox.recv().await
    }
}

struct Feed {
    queue: Queue,
    item_bytes: usize,
}

#[async_trait]
impl DataProvider for Feed {
    type Output = Item;

    async fn get_data(&mut self) -> Option<Item> {
        let mut queue = lock(&self.queue);
        let items = queue.len().min(UNIT_BYTES_MAX / self.item_bytes);
        let mut data = BytesMut::with_capacity(items * self.item_bytes);
        for (i, stamp) in queue.drain(..items).enumerate() {
            data.put_u64(stamp);
            data.resize((i + 1) * self.item_bytes, 0);
        }
        (items > 0).then(|| Item(data.freeze()))
    }
}

struct Taker {
    index: usize,
    item_bytes: usize,
    began: Instant,
    seen: Arc<Mutex<Seen>>,
}

impl UnitFinalizationHandler for Taker {
    type Data = Item;
    type Hasher = Sha;

    fn batch_finalized(&mut self, batch: Vec<OrderedUnit<Item, Sha>>) {
        let (now, mut seen) = (Instant::now(), lock(&self.seen));
        for unit in batch {
            seen.units += 1;
            let Some(data) = unit.data.filter(|_| unit.creator.0 == self.index) else { continue };
            seen.first.get_or_insert(now);
            seen.last = Some(now);
            for item in data.0.chunks(self.item_bytes) {
                let stamp = u64::from_be_bytes(item[..STAMP].try_into().expect("items have a stamp"));
                let offered = self.began + Duration::from_micros(stamp);
                seen.latencies.push(now.duration_since(offered));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_bare_ring_orders_all_that_is_offered() {
        let report = measure_bare(4, Pace::default(), 1_000, 200, Duration::from_millis(500)).await.unwrap();
        assert!(report.ordered_per_s > 0.0 && report.p50_ms > 0.0 && report.p99_ms >= report.p50_ms);
        let few = measure_bare(3, Pace::default(), 1, 200, Duration::from_millis(1)).await;
        assert_eq!(few.unwrap_err().code, Code::Usage);
    }
}
