//! One point: an authority of one size in a process of its own, and what a settled transfer costs it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use florin_core::authority::Authority;
use florin_core::authority::effect::Reply;
use florin_core::committee::Committee;
use florin_core::signatures::AuthorityKey;
use florin_core::testing::TestCommittee;
use florin_core::{Code, Error, Result};
use florin_node::meter::KINDS;
use florin_node::outbox::{Route, pump};
use florin_node::shard::{NoteWork, Shard, ShardThreads};
use florin_node::storage::Store;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::super::cpu::{batch_verification_us, median};
use super::accounts::{Accounts, Batch};
use super::usage::{Usage, resident, rest};

/// Orders under way at a time on each shard, at least four batches.
const UNDER_WAY: usize = 256;
const BATCHES_UNDER_WAY: usize = 4;
/// Signatures in the batch that all points are compared by, and how often it is verified.
const PLAIN: u64 = 1_000;
const PLAIN_RUNS: usize = 5;

/// How often it is looked whether all credits are delivered.
const LOOK: Duration = Duration::from_millis(2);

/// What is measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    /// Authorities of the committee, of which one is here.
    pub authorities: usize,
    /// Shards of it.
    pub shards: u32,
    /// Accounts over all shards.
    pub accounts: u64,
    /// Accounts of those that pay and are paid.
    pub active: u64,
    /// Percent of the payments that go to another shard; `None`: to anybody.
    pub cross_percent: Option<u32>,
    /// Orders of a batch.
    pub batch: usize,
    /// Payments of a round.
    pub payments: usize,
    /// Measured rounds.
    pub rounds: usize,
    /// Times that all rounds are measured, one after the other.
    pub windows: usize,
}

/// What a window came to; CPU in microseconds a settled transfer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Transfers settled before.
    pub history: u64,
    /// All of it: the median of rounds, and what was flushed and merged.
    pub cpu_us: f64,
    /// By what it was spent on; adds up to all.
    pub split_us: Vec<(String, f64)>,
    /// Each round, without what was flushed and merged.
    pub rounds_us: Vec<f64>,
    /// A signature verified in a batch of a thousand, in the same run.
    pub ceiling_us: f64,
    /// A signature verified in a batch of the same size, in the same run.
    pub plain_us: f64,
    /// Disk syncs of a transfer.
    pub syncs: f64,
    /// Keys looked for in the trees, a transfer.
    pub tree_reads: f64,
    /// Bytes handed to the disk, a transfer.
    pub written_bytes: f64,
    /// Bytes on disk afterwards.
    pub disk_bytes: u64,
    /// Bytes resident afterwards, without the load.
    pub resident_bytes: u64,
    /// Seconds of CPU that it takes afterwards to merge all accounts into one run, which comes about
    /// once as many are flushed as there are. Part of no other figure.
    pub whole_merge_s: f64,
}

struct World {
    committee: Arc<Committee>,
    keys: Vec<Arc<AuthorityKey>>,
    shards: Vec<Arc<Shard>>,
    accounts: Accounts,
    settled: u64,
}

/// Measures all windows of a point.
pub fn measure(point: &Point, dir: &Path) -> Result<Vec<Measured>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::new(Code::Io, e.to_string()))?;
    let (mut world, threads) = World::make(point, dir)?;
    let measured = runtime.block_on(async {
        let mut pumps = JoinSet::new();
        for (from, shard) in world.shards.iter().enumerate() {
            for (to, other) in world.shards.iter().enumerate().filter(|(to, _)| *to != from) {
                pumps.spawn(pump(shard.clone(), to as u32, Route::Local(other.clone())));
            }
        }
        world.windows(point).await
    });
    drop((world, runtime));
    threads.into_iter().for_each(ShardThreads::join);
    measured
}

impl World {
    fn make(point: &Point, dir: &Path) -> Result<(World, Vec<ShardThreads>)> {
        let (committee, keys) = TestCommittee::new(point.authorities, point.shards).build();
        let payers = point.payments * (1 + point.rounds * point.windows);
        let accounts = Accounts::make(point.accounts, point.active, payers as u64, point.shards, point.cross_percent);
        let open = |shard: u32| Store::open(&dir.join(shard.to_string()), shard, *committee.id(), 0, true);
        let stores: Vec<Store> = (0..point.shards).map(open).collect::<Result<_>>()?;
        accounts.fill(&stores)?;
        rest()?;
        // As after long use; what filling them left would be merged in the middle of the measurement.
        stores.iter().try_for_each(Store::merge_accounts)?;
        let work = NoteWork::new();
        let start = |(shard, store): (usize, Store)| {
            let authority = Authority::new(committee.clone(), 0, shard as u32, keys[0].clone());
            Shard::start(authority, store, work.clone())
        };
        let started: Vec<_> = stores.into_iter().enumerate().map(start).collect::<Result<_>>()?;
        let (shards, threads) = started.into_iter().unzip();
        Ok((World { committee, keys, shards, accounts, settled: 0 }, threads))
    }

    async fn windows(&mut self, point: &Point) -> Result<Vec<Measured>> {
        let (_, settled) = self.round(point).await?;
        self.settled += settled;
        let mut measured = Vec::new();
        for window in 0..point.windows {
            measured.push(self.window(point).await?);
            if window + 1 == point.windows {
                // What the load holds is not the authority's.
                self.accounts = Accounts::make(0, 0, 0, 1, None);
                rest()?;
                let (resident_bytes, before) = (resident(), Usage::read()?);
                self.shards.iter().try_for_each(|shard| shard.store().merge_accounts())?;
                let whole_merge_s = Usage::read()?.since(&before).cpu;
                measured.iter_mut().for_each(|m| (m.resident_bytes, m.whole_merge_s) = (resident_bytes, whole_merge_s));
            }
        }
        Ok(measured)
    }

    async fn window(&mut self, point: &Point) -> Result<Measured> {
        rest()?;
        let history = self.settled;
        let batch = point.batch as u64;
        let plain = || -> Result<[f64; 2]> {
            let runs = PLAIN_RUNS.max(2 * (PLAIN / batch) as usize + 1);
            Ok([batch_verification_us(PLAIN, PLAIN_RUNS)?, batch_verification_us(batch, runs)?])
        };
        let before_us = plain()?;
        let (start, counted) = (Usage::read()?, self.counted());
        // Making the load is no work of the authority's, and is done while it may be flushing.
        let mut used = Vec::new();
        let mut settled = 0;
        for _ in 0..point.rounds {
            let (round, count) = self.round(point).await?;
            used.push((round.cpu - round.flush - round.merge) * 1e6 / count as f64);
            settled += count;
        }
        rest()?;
        let all = Usage::read()?.since(&start);
        let counts = self.counted();
        let after_us = plain()?;
        self.settled += settled;
        let each = |value: f64| value / settled as f64;
        let since = |i: usize| counts[i] - counted[i];
        let rounds_us = used.clone();
        let step_us = median(&mut used);
        let mut split_us: Vec<(String, f64)> =
            KINDS.iter().enumerate().map(|(i, kind)| ((*kind).to_owned(), each(since(3 + i) * 1e6))).collect();
        // Parts are means, the whole is a median: what is left over takes the difference.
        split_us.push(("queues".into(), step_us - split_us.iter().map(|(_, us)| us).sum::<f64>()));
        split_us.push(("flushing".into(), each(all.flush * 1e6)));
        split_us.push(("merging".into(), each(all.merge * 1e6)));
        let between = |i: usize| (before_us[i] + after_us[i]) / 2.0;
        Ok(Measured {
            history,
            cpu_us: step_us + each((all.flush + all.merge) * 1e6),
            split_us,
            rounds_us,
            ceiling_us: between(0),
            plain_us: between(1),
            syncs: each(since(0)),
            tree_reads: each(since(1)),
            written_bytes: each(all.written as f64),
            disk_bytes: counts[2] as u64,
            resident_bytes: 0,
            whole_merge_s: 0.0,
        })
    }

    /// Syncs, keys looked for in trees, bytes on disk; then CPU seconds by kind.
    fn counted(&self) -> Vec<f64> {
        let mut counts = vec![0.0; 3 + KINDS.len()];
        for shard in &self.shards {
            counts[0] += shard.counters().syncs.load(Ordering::Relaxed) as f64;
            counts[1] += shard.store().tree_reads() as f64;
            counts[2] += shard.store().disk_bytes() as f64;
            for (i, (_, time)) in shard.counters().cpu.read().enumerate() {
                counts[3 + i] += time.as_secs_f64();
            }
        }
        counts
    }

    /// Signs a round, and then has it settled everywhere: what that took, and how many were settled.
    async fn round(&mut self, point: &Point) -> Result<(Usage, u64)> {
        let batches = self.accounts.batches(point.payments, point.batch, &self.committee, &self.keys)?;
        let count: usize = batches.iter().flatten().map(|batch| batch.orders.len()).sum();
        // An account's orders must not overtake each other.
        let lap = self.accounts.payers_min() / point.batch / 2;
        let under_way = BATCHES_UNDER_WAY.max(UNDER_WAY / point.batch).min(lap.max(1));
        let before = Usage::read()?;
        let mut running = JoinSet::new();
        for (shard, batches) in self.shards.iter().zip(batches) {
            let waiting = Arc::new(Mutex::new(VecDeque::from(batches)));
            for _ in 0..under_way {
                running.spawn(run(shard.clone(), waiting.clone()));
            }
        }
        while let Some(done) = running.join_next().await {
            done.map_err(|e| Error::new(Code::Io, format!("load: {e}")))??;
        }
        self.deliver().await?;
        Ok((Usage::read()?.since(&before), count as u64))
    }

    /// Waits until all credits are where they go to, durably.
    async fn deliver(&self) -> Result<()> {
        for shard in &self.shards {
            for to in (0..self.shards.len() as u32).filter(|to| *to != shard.authority().shard()) {
                loop {
                    let (first, last) = shard.authority().outbox_range(shard.store(), to)?;
                    if first > last {
                        break;
                    }
                    tokio::time::sleep(LOOK).await;
                }
            }
            shard.barrier().await?;
        }
        Ok(())
    }
}

/// Takes batches one after the other through both steps.
async fn run(shard: Arc<Shard>, waiting: Arc<Mutex<VecDeque<Batch>>>) -> Result<()> {
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    while let Some(Batch { shard: number, orders, certificate }) = next() {
        let wrong = |what: String| Error::new(Code::BadVote, format!("shard {number}: {what}"));
        match shard.vote(orders).await? {
            Reply::Vote(vote) if vote.vote.is_some() && vote.errors.is_empty() => {}
            other => return Err(wrong(format!("expected a vote for all, found {other:?}"))),
        }
        match shard.settle(certificate, Vec::new(), true).await? {
            Reply::Settle(settled) if settled.acknowledgement.is_some() && settled.waiting.is_empty() => {}
            other => return Err(wrong(format!("expected all settled, found {other:?}"))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_settled_over_shards_and_windows() {
        let dir = tempfile::tempdir().unwrap();
        let point = Point {
            authorities: 7,
            shards: 2,
            accounts: 900,
            active: 600,
            cross_percent: Some(50),
            batch: 50,
            payments: 400,
            rounds: 2,
            windows: 2,
        };
        let measured = measure(&point, dir.path()).unwrap();
        assert_eq!(measured.iter().map(|m| m.history).collect::<Vec<_>>(), [400, 1_200], "a round warms up");
        for m in &measured {
            let parts: f64 = m.split_us.iter().map(|(_, us)| us).sum();
            assert!((parts - m.cpu_us).abs() < 1e-6, "parts are the whole: {m:?}");
            assert!(m.cpu_us > 0.0 && m.syncs > 0.0 && m.ceiling_us > 0.0 && m.resident_bytes > 0, "{m:?}");
        }
        for shard in 0..2 {
            let store = Store::open_read_only(&dir.path().join(shard.to_string())).unwrap();
            let totals = florin_core::authority::state::Totals::load(&store).unwrap();
            assert_eq!((totals.orders, totals.sum()), (1_000, 0), "every payment, and no money made");
            assert!(totals.sent > 0 && totals.received > 0, "some go to the other shard");
        }
    }
}
