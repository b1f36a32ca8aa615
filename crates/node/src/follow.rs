//! Catching up: an authority follows the settled streams of its peers and fetches what it lacks.
//!
//! In quiet times a peer's entry names what arrived here from the wallet too, so before it fetches
//! anything a follower that is nearly level waits a moment. One that is behind fetches at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use florin_core::authority::effect::Reply;
use florin_core::authority::query::settled_by;
use florin_core::bitmap::Bitmap;
use florin_core::limits::{CERTIFICATES_BYTES_MAX, FOLLOW_PAGE, FOLLOWERS_MAX, MESSAGE_BYTES_MAX};
use florin_core::wire::{BatchRequest, FollowRequest, SettledEntry};
use florin_core::{Code, Error, Result};
use florin_rpc::errors::from_status;
use florin_rpc::services::peer_service_client::PeerServiceClient;
use tokio::time::timeout;
use tonic::transport::Channel;
use tracing::{debug, info, warn};

use crate::shard::Shard;

/// How long what a peer has settled may take to arrive by itself.
const GRACE: Duration = Duration::from_millis(500);
/// Entries of one peer that may be left open at a time: more than one step of it can write.
const OPEN_MAX: usize = 2 * FOLLOWERS_MAX;
/// Entries of one peer that may wait for the log.
const WAITING_MAX: usize = 16_384;
/// When what waits is tried again, and again after twice as long.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(16);
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Lag of a peer whose stream can't be followed: nobody knows how far behind it this shard is.
pub const UNREACHABLE: u64 = u64::MAX;

/// How far behind each peer's stream each shard is, in entries; [`UNREACHABLE`] if that is not known.
#[derive(Default)]
pub struct Lags(Mutex<BTreeMap<(u32, u32), Arc<AtomicU64>>>);

impl Lags {
    fn slot(&self, shard: u32, authority: u32) -> Arc<AtomicU64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((shard, authority)).or_default().clone()
    }

    /// ((shard, authority), entries).
    pub fn read(&self) -> Vec<((u32, u32), u64)> {
        let lags = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lags.iter().map(|(k, v)| (*k, v.load(Ordering::Relaxed))).collect()
    }
}

/// Follows one peer for one shard, for ever.
pub async fn follow(shard: Arc<Shard>, authority: u32, client: PeerServiceClient<Channel>, lags: Arc<Lags>) {
    let client = client.max_decoding_message_size(MESSAGE_BYTES_MAX + CERTIFICATES_BYTES_MAX);
    let name = shard.authority().committee().authorities[authority as usize].name.clone();
    let mut follower =
        Follower { lag: lags.slot(shard.authority().shard(), authority), shard, authority, client, fetched: 0 };
    let mut delay = RETRY_MIN;
    loop {
        let fetched = follower.fetched;
        let end = follower.run().await;
        follower.lag.store(UNREACHABLE, Ordering::Relaxed);
        match end {
            Ok(()) => debug!(peer = name, "settled stream ended"),
            Err(e) if e.code == Code::Unreachable || e.code == Code::Timeout => {
                debug!(peer = name, "can't follow: {e}")
            }
            Err(e) => warn!(peer = name, "can't follow: {e}"),
        }
        delay = if follower.fetched > fetched { RETRY_MIN } else { (delay * 2).min(RETRY_MAX) };
        tokio::time::sleep(delay).await;
    }
}

/// What the peer has taken back is nothing to wait for.
fn forget(open: &mut Vec<SettledEntry>, undone: &SettledEntry) -> Result<()> {
    for entry in open.iter_mut().filter(|entry| entry.root == undone.root && entry.count == undone.count) {
        let count = entry.count as usize;
        let left = Bitmap::parse(&entry.bitmap, count)?.without(&Bitmap::parse(&undone.bitmap, count)?);
        entry.bitmap = left.to_bytes();
    }
    open.retain(|entry| entry.bitmap.iter().any(|byte| *byte != 0));
    Ok(())
}

/// What became of an entry.
enum Fetched {
    Settled,
    /// Certified, and not settled here yet.
    Waits,
    Unproved,
}

struct Follower {
    shard: Arc<Shard>,
    authority: u32,
    client: PeerServiceClient<Channel>,
    lag: Arc<AtomicU64>,
    fetched: u64,
}

impl Follower {
    async fn run(&mut self) -> Result<()> {
        let shard = self.shard.authority().shard();
        let mut position = self.shard.authority().cursor(self.shard.store(), self.authority)?;
        let request = FollowRequest { shard, from: position };
        let mut stream = self.client.follow(request).await.map_err(from_status)?.into_inner();
        // Entries of which something waits for an order of a later entry: one step of the peer may have
        // settled orders of several batches.
        let mut open: Vec<SettledEntry> = Vec::new();
        // Those that are certified, and wait for this authority's log: for a network that it has not heard of, or a
        // recovery. The peer has no news of that.
        let mut waiting: Vec<SettledEntry> = Vec::new();
        let (mut again, mut tried) = (AGAIN, Instant::now());
        loop {
            let page = match open.is_empty() && waiting.is_empty() {
                true => Some(stream.message().await),
                false => timeout(again.saturating_sub(tried.elapsed()), stream.message()).await.ok(),
            };
            if page.is_none() || (!waiting.is_empty() && tried.elapsed() >= again) {
                again = (again * 2).min(AGAIN_MAX);
                open.append(&mut waiting);
                open.sort_by_key(|entry| entry.position);
                open = self.page(open, &mut waiting, false, position).await?;
                tried = Instant::now();
                self.done(position, &open, &waiting).await?;
            }
            let Some(page) = page else { continue };
            let Some(mut page) = page.map_err(from_status)? else { break };
            self.lag.store(page.end.saturating_sub(position), Ordering::Relaxed);
            let Some(last) = page.entries.last() else { continue };
            let next = last.position.saturating_add(1);
            if page.entries[0].position != position || next <= position {
                let found = page.entries[0].position;
                return Err(Error::expected(Code::Decode, "position in the settled stream", position, found));
            }
            let level = page.entries.len() < FOLLOW_PAGE;
            for undone in page.entries.iter().filter(|entry| entry.undone) {
                forget(&mut open, undone)?;
                forget(&mut waiting, undone)?;
            }
            if waiting.is_empty() {
                (again, tried) = (AGAIN, Instant::now());
            }
            open.append(&mut page.entries);
            open = self.page(open, &mut waiting, level, page.end).await?;
            if open.len() > OPEN_MAX || waiting.len() > WAITING_MAX {
                return Err(Error::new(
                    Code::BadProof,
                    format!(
                        "{} entries name orders that nothing proves, {} wait for the log",
                        open.len(),
                        waiting.len()
                    ),
                ));
            }
            position = next;
            self.done(position, &open, &waiting).await?;
        }
        Ok(())
    }

    /// Notes that all before a position is settled here, but for what is left.
    async fn done(&self, position: u64, open: &[SettledEntry], waiting: &[SettledEntry]) -> Result<()> {
        let left = open.first().into_iter().chain(waiting.first()).map(|entry| entry.position).min();
        self.shard.followed(self.authority, left.unwrap_or(position)).await
    }

    /// Fetches what is missing of some entries; returns those of which something still is and nothing proves it. What is
    /// proved and waits goes to the others.
    async fn page(
        &mut self,
        entries: Vec<SettledEntry>,
        waiting: &mut Vec<SettledEntry>,
        level: bool,
        end: u64,
    ) -> Result<Vec<SettledEntry>> {
        let mut missing = self.missing(entries)?;
        if level && !missing.is_empty() {
            tokio::time::sleep(GRACE).await;
            missing = self.missing(missing)?;
        }
        if !missing.is_empty() {
            info!(
                peer = self.authority,
                shard = self.shard.authority().shard(),
                batches = missing.len(),
                "catching up"
            );
        }
        let (mut open, mut proved) = (Vec::new(), Vec::new());
        for entry in missing {
            let position = entry.position;
            match self.fetch(&entry).await? {
                Fetched::Settled => {}
                Fetched::Waits => proved.push(entry),
                Fetched::Unproved => open.push(entry),
            }
            self.lag.store(end.saturating_sub(position + 1), Ordering::Relaxed);
        }
        // What waited for a later entry has settled with it.
        let open = self.missing(open)?;
        waiting.extend(self.missing(proved)?);
        self.lag.store((open.len() + waiting.len()) as u64, Ordering::Relaxed);
        Ok(open)
    }

    fn missing(&self, entries: Vec<SettledEntry>) -> Result<Vec<SettledEntry>> {
        let mut out = Vec::new();
        for entry in entries {
            if self.shard.authority().missing(self.shard.store(), &entry)? {
                out.push(entry);
            }
        }
        Ok(out)
    }

    /// Gets the batch of an entry and settles it; what is left then of all that the entry names.
    async fn fetch(&mut self, entry: &SettledEntry) -> Result<Fetched> {
        // Another peer's follower may have been quicker.
        if !self.shard.authority().missing(self.shard.store(), entry)? {
            return Ok(Fetched::Settled);
        }
        let count = entry.count as usize;
        let mut wanted = Bitmap::parse(&entry.bitmap, count)?;
        loop {
            let (shard, root) = (self.shard.authority().shard(), entry.root.clone());
            let request = BatchRequest { shard, root, bitmap: wanted.to_bytes() };
            let reply = self.client.batch(request).await.map_err(from_status)?.into_inner();
            let mut left = wanted.clone();
            let mut unproved = wanted.clone();
            for certificate in reply.certificates {
                if let Reply::Settle(reply) = self.shard.fetched(certificate, reply.orders.clone()).await? {
                    let settled = settled_by(&reply, count);
                    left = left.without(&settled);
                    unproved = unproved.without(&settled);
                    reply.waiting.iter().for_each(|w| unproved.clear(w.index as usize));
                }
            }
            self.fetched += 1;
            // What does not fit into one answer comes with the next; what brings nothing new waits.
            match left.is_empty() || left == wanted {
                true if left.is_empty() => return Ok(Fetched::Settled),
                true if unproved.is_empty() => return Ok(Fetched::Waits),
                true => return Ok(Fetched::Unproved),
                false => {}
            }
            wanted = left;
        }
    }
}
