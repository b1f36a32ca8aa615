//! A listener: settled transactions of one PBTX network, each actor's in order, each once.
//!
//! It follows the streams of `f + 1` authorities, more if some of them fail, lag or hide something, and believes none:
//! see the safety and liveness arguments in `listener/merge.rs`. [`Merge`] decides what is delivered, without I/O;
//! `listener/page.rs` checks what comes, `listener/follow.rs` fetches it.
//!
//! Exactly once: a [`Delivery`] comes with [`Change`]s of the cursor. Whoever stores them in one transaction with the
//! delivery's effect, in the order of deliveries, and gives all that was stored to [`Listener::start`] after a crash,
//! has every effect once.
//!
//! ```no_run
//! # use florin_client::{listener::{Cursor, FileCursor, Listener, Options}, network::Network};
//! # async fn run(network: Network) -> florin_core::Result<()> {
//! let mut cursor = FileCursor::open("listener.cursor".as_ref())?; // or a table of yours: key, value
//! let stored = cursor.load()?;
//! let mut listener = Listener::start(network, 10, &stored, Options::default()).await?;
//! cursor.store(&listener.changes())?;
//! loop {
//!     for delivery in listener.next(1_000).await.deliveries {
//!         println!("{}: {:?}", delivery.key(), delivery.order.content); // the effect, in the same transaction as
//!         cursor.store(&delivery.changes)?;
//!     }
//! }
//! # }
//! ```

mod cursor;
mod follow;
mod merge;
mod page;
mod total;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use florin_core::committee::Committee;
use florin_core::envelope::Order;
use florin_core::merkle::Hash;
use florin_core::network_flags::{ORDERED, SKIP_SEQ_AND_PREVHASH};
use florin_core::wire;
use florin_core::{Code, Error, Result};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::network::Network;
pub use cursor::{APPLICATION, Change, Cursor, FileCursor};
use cursor::{Head, Kept};
use follow::{Follower, Message, Said};
use merge::{Merge, Mode, Rules};
use page::{Certified, Checks};

/// Pages of one authority that wait to be taken.
const PAGES: usize = 4;
/// Between two looks at who lags.
const TICK: Duration = Duration::from_millis(500);
/// How long an authority may be away before another is followed in its place.
const AWAY: Duration = Duration::from_secs(2);

/// Where a listener begins that has stored nothing yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum From {
    /// With every actor's first transaction. `PRUNED` if some are gone.
    #[default]
    Start,
    /// With the oldest that there still are.
    Oldest,
    /// With what settles from now on. What settles about now may be in or out.
    Now,
}

/// How to listen.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to begin.
    pub from: From,
    /// Authorities to follow, at least `f + 1`; `None`: `f + 1`, all in networks without sequence numbers.
    pub follow: Option<usize>,
    /// How long an authority may lack what others have proved.
    pub grace: Duration,
    /// Go on with the oldest that there still are if what comes next is pruned: there will be gaps.
    pub skip_pruned: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { from: From::Start, follow: None, grace: Duration::from_secs(10), skip_pruned: false }
    }
}

/// What names a transaction, for ever.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Key {
    /// The network.
    pub network_id: u64,
    /// Who acts.
    pub actor: u64,
    /// Number in the actor's chain; without meaning in networks that skip it.
    pub seqnum: u32,
    /// sha256 of the body.
    pub order_id: Hash,
}

/// Why a transaction is believed to have settled.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A certificate with a Merkle proof of the run of orders that this one is in; both are checked.
    Certificate(Arc<wire::CertifiedOrders>),
    /// A receipt, of which the votes are checked, not the acknowledgements.
    Receipt(Arc<wire::Receipt>),
    /// So many authorities say so, at least `f + 1`; nobody had a certificate to show.
    Agreed(usize),
}

/// A settled transaction, to be acted upon.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its body, decoded; `raw` and `authorities` are empty.
    pub order: Order,
    /// Its place among all of the network, with the flag ORDERED; not consecutive.
    pub position: Option<u64>,
    /// When it settled by the clock of `authority`, us since 1970. Nobody signs that.
    pub time_us: u64,
    /// Index of the authority that `time_us` and `transaction` come from.
    pub authority: usize,
    /// With the flag RAW_NOTIFY: the whole Transaction of this body, with signatures as an authority keeps them. The
    /// certificate covers the body.
    pub transaction: Option<Bytes>,
    /// Why it is believed.
    pub proof: Proof,
    /// What to store with its effect.
    pub changes: Vec<Change>,
}

impl Delivery {
    /// What names the transaction.
    pub fn key(&self) -> Key {
        let Order { network_id, actor, seqnum, id, .. } = self.order;
        Key { network_id, actor, seqnum, order_id: id }
    }
}

/// Something that an operator may want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An authority is followed from now on.
    Follows {
        /// Which.
        authority: usize,
    },
    /// An authority can't be followed now; it is tried again.
    Failed {
        /// Which.
        authority: usize,
        /// Why.
        error: Error,
    },
    /// It can be followed again.
    Back {
        /// Which.
        authority: usize,
    },
    /// An authority has not shown a settled transaction within the grace time.
    Behind {
        /// Which.
        authority: usize,
        /// A transaction that it has not shown.
        key: Key,
        /// It says that it has shown all there is: it withholds, or is cut off from the others. Otherwise it lags.
        level: bool,
    },
    /// It has now.
    CaughtUp {
        /// Which.
        authority: usize,
    },
    /// An authority says what is not so.
    Lies {
        /// Which.
        authority: usize,
        /// What it does.
        what: String,
    },
    /// Transactions of an actor are pruned and will not be delivered.
    Gap {
        /// Whose.
        actor: u64,
        /// The first.
        from: u32,
        /// The last.
        to: u32,
    },
}

impl Event {
    fn lie(authority: usize, what: &str) -> Event {
        Event::Lies { authority, what: what.into() }
    }

    /// The event in words.
    pub fn describe(&self, committee: &Committee) -> String {
        let name = |a: &usize| committee.authorities.get(*a).map_or("an unknown authority", |a| &a.name);
        match self {
            Event::Follows { authority } => format!("follows {}", name(authority)),
            Event::Failed { authority, error } => format!("{} can't be followed: {error}", name(authority)),
            Event::Back { authority } => format!("{} can be followed again", name(authority)),
            Event::Behind { authority, key, level } => {
                let what = if *level { "withholds or is cut off" } else { "lags" };
                let (actor, seqnum, id) = (key.actor, key.seqnum, hex::encode(key.order_id));
                format!("{} {what}: it has not shown {seqnum} of actor {actor} ({id})", name(authority))
            }
            Event::CaughtUp { authority } => format!("{} has caught up", name(authority)),
            Event::Lies { authority, what } => format!("{} misbehaves: {what}", name(authority)),
            Event::Gap { actor, from, to } => format!("{from} to {to} of actor {actor} are pruned: not delivered"),
        }
    }
}

impl fmt::Display for Key {
    /// The idempotency key of the transaction: its id in hex.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.order_id))
    }
}

/// What [`Listener::next`] found.
#[derive(Debug, Default)]
pub struct News {
    /// In the order in which they are to be acted upon.
    pub deliveries: Vec<Delivery>,
    /// What happened beside.
    pub events: Vec<Event>,
}

/// Follows a network.
pub struct Listener {
    network: Network,
    merge: Merge,
    checks: Arc<Checks>,
    inbox: mpsc::Receiver<Message>,
    outbox: mpsc::Sender<Message>,
    room: BTreeMap<usize, Arc<Semaphore>>,
    /// Pages taken whose room is not given back yet.
    owed: BTreeMap<usize, usize>,
    /// Since when an authority can't be followed, by `clock`.
    away: BTreeMap<usize, Duration>,
    /// Who to follow next.
    others: VecDeque<usize>,
    target: usize,
    /// Time spent here: while the user of the listener is busy, nobody is late.
    clock: Duration,
    next_tick: Duration,
    next_more: Duration,
    grace: Duration,
    tasks: JoinSet<()>,
}

impl Listener {
    /// Begins to follow a network, from where `stored` says: all changes that were stored, in the order in which they
    /// were. Store [`Listener::changes`] next: then it is fixed where it began.
    ///
    /// Errors: `UNKNOWN_NETWORK` if it was never registered; `PRUNED`; `BAD_FILE`, `WRONG_COMMITTEE` for what was
    /// stored; `USAGE`; `QUORUM_UNREACHABLE`, `UNDECIDED` if too few authorities answer.
    pub async fn start(network: Network, network_id: u64, stored: &[Change], options: Options) -> Result<Listener> {
        let committee = network.committee().clone();
        if let Some(follow) = options.follow
            && !(committee.validity()..=committee.size()).contains(&follow)
        {
            let expected = format!("{} to {}", committee.validity(), committee.size());
            return Err(Error::expected(Code::Usage, "authorities to follow", expected, follow));
        }
        let kept = Kept::read(stored, &committee, network_id)?;
        let is_stored = kept.head.is_some();
        let head = match kept.head.clone() {
            Some(head) => head,
            None => new_head(&network, network_id, options.from).await?,
        };
        let mode = head.mode;
        let validity = committee.validity();
        let rules = Rules { authorities: committee.size(), validity, grace_ms: options.grace.as_millis() as u64 };
        let mut merge = Merge::new(rules, head, kept, is_stored);
        begin(&mut merge, &network, is_stored, &options).await?;
        let target = options.follow.unwrap_or(if mode == Mode::ById { committee.size() } else { validity });
        let mut others: Vec<usize> = (0..committee.size()).collect();
        others.rotate_left((network_id % committee.size() as u64) as usize);
        // Those that need not be read from the start.
        others.sort_by_key(|a| std::cmp::Reverse(merge.position(*a)));
        let checks = Checks { committee, network_id, certified: Certified::default().into() };
        let (outbox, inbox) = mpsc::channel(PAGES);
        let mut listener = Listener {
            network,
            merge,
            checks: Arc::new(checks),
            inbox,
            outbox,
            room: BTreeMap::new(),
            owed: BTreeMap::new(),
            away: BTreeMap::new(),
            others: others.into(),
            target,
            clock: Duration::ZERO,
            next_tick: TICK,
            next_more: options.grace,
            grace: options.grace,
            tasks: JoinSet::new(),
        };
        (0..target).for_each(|_| listener.follow_another());
        Ok(listener)
    }

    /// Waits for transactions or events: at most `max` transactions, all that are there now. Nothing is lost if
    /// the future is dropped. What was given out counts as delivered: the next crash is when it matters that it is stored.
    pub async fn next(&mut self, max: usize) -> News {
        loop {
            let events = self.merge.take_events();
            let deliveries: Vec<Delivery> = std::iter::from_fn(|| self.merge.pop()).take(max).collect();
            if !events.is_empty() || !deliveries.is_empty() {
                return News { deliveries, events };
            }
            self.give_room();
            let wait = self.next_tick.saturating_sub(self.clock);
            let message = {
                // Also when the future is dropped: who waits in small steps waits as long.
                let _waits = Waits { since: Instant::now(), clock: &mut self.clock };
                tokio::time::timeout(wait, self.inbox.recv()).await
            };
            if let Ok(Some(message)) = message {
                self.take(message);
            }
            if self.clock >= self.next_tick {
                self.next_tick = self.clock + TICK;
                self.tick();
            }
        }
    }

    /// What there is to store beside deliveries, once all that were given out are stored: it saves reading again what
    /// brought nothing new.
    pub fn changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.merge.deliveries.is_empty() {
            self.merge.moved(&mut changes);
        }
        changes
    }

    /// Whether `f + 1` authorities have shown all that they have, and everything is given out.
    pub fn is_level(&self) -> bool {
        self.merge.deliveries.is_empty() && self.merge.is_level()
    }

    /// Certificates whose signatures were verified so far; others were known already.
    pub fn verified(&self) -> u64 {
        self.checks.certified().verified
    }

    fn follow_another(&mut self) {
        let Some(authority) = self.others.pop_front() else { return };
        let from = self.merge.follow(authority);
        let room = Arc::new(Semaphore::new(PAGES));
        self.room.insert(authority, room.clone());
        self.away.insert(authority, self.clock);
        let follower = Follower {
            network: self.network.clone(),
            checks: self.checks.clone(),
            mode: self.merge.head.mode,
            authority,
            from,
            room,
            out: self.outbox.clone(),
        };
        self.tasks.spawn(follower.run());
        self.merge.events.push(Event::Follows { authority });
    }

    fn take(&mut self, message: Message) {
        let (authority, now_ms) = (message.authority, self.clock.as_millis() as u64);
        match message.said {
            Ok(said) => {
                *self.owed.entry(authority).or_default() += 1;
                self.away.remove(&authority);
                if self.merge.failed(authority, false) {
                    self.merge.events.push(Event::Back { authority });
                }
                match said {
                    Said::Page(page) => self.merge.page(now_ms, authority, page),
                    Said::Shorter => self.merge.begin(authority, 1),
                }
            }
            Err(error) => {
                self.merge.disconnected(authority);
                self.away.entry(authority).or_insert(self.clock);
                if self.merge.failed(authority, true) {
                    return;
                }
                let is_lie = (100..200).contains(&(error.code as u32)) || (600..700).contains(&(error.code as u32));
                self.merge.events.push(match is_lie {
                    true => Event::lie(authority, &error.to_string()),
                    false => Event::Failed { authority, error },
                });
            }
        }
    }

    fn give_room(&mut self) {
        for (authority, owed) in self.owed.iter_mut().filter(|(_, owed)| **owed > 0) {
            if self.merge.has_room(*authority)
                && let Some(room) = self.room.get(authority)
            {
                room.add_permits(std::mem::take(owed));
            }
        }
    }

    fn tick(&mut self) {
        let waits = self.merge.tick(self.clock.as_millis() as u64);
        let quick = self.merge.head.mode == Mode::Total;
        let is_away = |since: &&Duration| self.clock >= **since + if quick { TICK } else { AWAY };
        let away = self.away.values().filter(is_away).count();
        let followed = self.room.len();
        let serving = followed - self.merge.behind() - away;
        if serving < self.target {
            self.follow_another();
        } else if waits && self.clock >= self.next_more {
            self.next_more = self.clock + self.grace;
            self.follow_another();
        }
    }
}

/// Counts the time that it lives.
struct Waits<'a> {
    since: Instant,
    clock: &'a mut Duration,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        *self.clock += self.since.elapsed();
    }
}

/// The changes of transactions whose effects are there though what came with them was not stored: with them stored too,
/// they are not delivered again. They must be in the order of their delivery. Errors: as of reading `stored` in
/// [`Listener::start`]; `BAD_FILE` if nothing was stored before them.
pub fn delivered(
    stored: &[Change],
    committee: &Committee,
    network_id: u64,
    transactions: impl IntoIterator<Item = (Key, Option<u64>)>,
) -> Result<Vec<Change>> {
    let kept = Kept::read(stored, committee, network_id)?;
    let empty = || Error::new(Code::BadFile, "the cursor is empty, but transactions were delivered");
    let mut changes = Vec::new();
    for (key, position) in transactions {
        let head = kept.head.as_ref().ok_or_else(empty)?;
        if key.network_id != network_id {
            return Err(Error::expected(Code::BadFile, "network of a transaction", network_id, key.network_id));
        }
        changes.push(head.done(key.actor, key.seqnum, &key.order_id, position));
    }
    Ok(changes)
}

/// Where a new cursor begins.
async fn new_head(network: &Network, network_id: u64, from: From) -> Result<Head> {
    let (record, _) = network.registered(network_id).await?;
    let message = || format!("network {network_id} was never registered");
    let flags = record.ok_or_else(|| Error::new(Code::UnknownNetwork, message()))?.flags;
    let mode = match flags {
        flags if flags & ORDERED != 0 => Mode::Total,
        flags if flags & SKIP_SEQ_AND_PREVHASH != 0 => Mode::ById,
        _ => Mode::BySeqnum,
    };
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
    let since_us = if from == From::Now { now_us } else { 0 };
    let epoch = u32::from(from != From::Start);
    Ok(Head { committee: *network.committee().id(), network_id, mode, epoch, since_us })
}

/// Looks where each authority is to be read from, and whether that is still there. Errors: `PRUNED`.
async fn begin(merge: &mut Merge, network: &Network, is_stored: bool, options: &Options) -> Result<()> {
    let committee = network.committee();
    let (validity, network_id) = (committee.validity(), merge.head.network_id);
    let total = merge.head.mode == Mode::Total;
    let now = !is_stored && options.from == From::Now;
    let oldest_wanted = options.skip_pruned || !is_stored && options.from == From::Oldest;
    let mut asked = JoinSet::new();
    for authority in 0..committee.size() {
        let network = network.clone();
        let at = if total { merge.total_next() } else { merge.position(authority) };
        asked.spawn(async move {
            let found = follow::peek(&network, authority, network_id, if now { 1 } else { at }).await;
            let bounds = match &found {
                Err(e) if e.code == Code::Pruned => follow::bounds(&network, authority, network_id).await.ok(),
                Ok(reply) => Some((at, reply.end)),
                Err(_) => None,
            };
            (authority, at, found.err(), bounds)
        });
    }
    let (mut pruned, mut ends) = (Vec::new(), Vec::new());
    let mut error = None;
    let deadline = Instant::now() + network.patience.request;
    while let Ok(Some(Ok((authority, at, failed, bounds)))) = tokio::time::timeout_at(deadline, asked.join_next()).await
    {
        let Some((oldest, end)) = bounds else { continue };
        ends.push((authority, end));
        if let Some(e) = failed {
            // What it has pruned was delivered long ago, by others.
            let fresh = is_stored && at <= 1 && !total;
            pruned.push((authority, oldest, fresh));
            error = Some(e);
        }
    }
    let missed = pruned.iter().filter(|(_, _, fresh)| !fresh).count();
    if missed >= validity && !oldest_wanted && !now {
        return Err(error.unwrap_or_else(|| Error::new(Code::Pruned, "the network's stream")));
    }
    let agreed = |mut positions: Vec<u64>, ascending: bool| {
        positions.sort_unstable();
        if !ascending {
            positions.reverse();
        }
        positions.get(validity - 1).copied()
    };
    if total {
        // Of `f + 1` one is honest; all that are have the same positions.
        let oldest = agreed(pruned.iter().map(|(_, oldest, _)| *oldest).collect(), true);
        let end = agreed(ends.iter().map(|(_, end)| *end).collect(), false);
        if let Some(position) = if now { end } else { oldest } {
            merge.start_total(position);
        } else if now {
            return Err(Error::new(Code::QuorumUnreachable, "too few authorities say where the stream ends"));
        }
        return Ok(());
    }
    if now && ends.len() < validity {
        return Err(Error::new(Code::QuorumUnreachable, "too few authorities say where their streams end"));
    }
    if missed >= validity && !now {
        merge.allow_gaps(is_stored);
    }
    let starts = if now { ends } else { pruned.iter().map(|(a, oldest, _)| (*a, *oldest)).collect() };
    starts.into_iter().for_each(|(authority, position)| merge.begin(authority, position));
    Ok(())
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
