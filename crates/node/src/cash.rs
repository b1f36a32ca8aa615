//! The keys of e-cash: this authority's part in making them ([`florin_core::cash::dkg`]), its shares on disk, and the
//! keys for those who use them.
//!
//! Two files of the data folder are secret: `cash-seed`, from which all of this authority's part in a run follows,
//! written before its first item leaves; and `cash-shares`, written before it confirms that it holds them. The seed is
//! erased once nobody can need this authority's help any more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use florin_core::cash::dkg::{Ceremony, KeyShares, Participant, Phase, PublicKeys};
use florin_core::cash::mint_keys::MintKeys;
use florin_core::ordered::dkg::{blobs, params};
use florin_core::ordered::item::dkg_item;
use florin_core::wire::{CashSharesReply, CashSharesRequest};
use florin_core::{Code, Error, Result};
use florin_rpc::errors::from_status;
use florin_rpc::services::peer_service_client::PeerServiceClient;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::transport::Channel;
use tracing::{debug, error, info, warn};
use zeroize::Zeroizing;

use crate::consensus::Consensus;
use crate::log::LogShell;
use crate::storage::{erase, finish_erase, write_secret};

const SEED: &str = "cash-seed";
const SHARES: &str = "cash-shares";

/// What is not in the log by then is handed in again, then after twice as long, and so on.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// How often another process of the authority asks for the keys, and for shares that are not there yet.
const ASK: Duration = Duration::from_millis(500);
const ASK_SHARES: Duration = Duration::from_secs(5);

/// The keys, once they are in use.
pub type Mint = watch::Receiver<Option<Arc<MintKeys>>>;

/// The operator's word, to the task.
#[derive(Clone)]
pub struct GoOn(mpsc::Sender<oneshot::Sender<Result<()>>>);

impl GoOn {
    /// Goes on without those that the run waits for; after a run that failed, begins the next.
    /// Errors: `CASH_NOT_READY` if that is not possible now.
    pub async fn go_on(&self) -> Result<()> {
        let stopped = || Error::new(Code::Busy, "the authority is stopping");
        let (reply, answer) = oneshot::channel();
        self.0.send(reply).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

/// Takes part for as long as it is needed.
pub struct Task {
    part: Option<Part>,
    consensus: Consensus,
    commands: mpsc::Receiver<oneshot::Sender<Result<()>>>,
    /// When each item was handed in, and how often.
    offered: BTreeMap<Bytes, (Instant, u32)>,
}

/// Loads what is there. Without keys, or shares, the authority does everything else.
/// Errors: those of its storage.
pub fn open(data: &Path, shell: &Arc<LogShell>, consensus: &Consensus) -> Result<(Task, Mint, GoOn)> {
    finish_erase(data, SEED)?;
    let (mint, keys) = watch::channel(None);
    let (go_on, commands) = mpsc::channel(1);
    let (shell, data) = (shell.clone(), data.to_owned());
    let mut part = Part { shell, data, mint, seen: None, items: Vec::new(), held: None, wanted: None, fault: None };
    if part.shell.log().mint_keys(part.shell.store())?.is_some() {
        part.look()?;
    }
    let task = Task { part: Some(part), consensus: consensus.clone(), commands, offered: BTreeMap::new() };
    Ok((task, keys, GoOn(go_on)))
}

impl Task {
    /// Until the log ends.
    pub async fn run(mut self) {
        let mut applied = match &self.part {
            Some(part) => part.shell.applied_changes(),
            None => return,
        };
        loop {
            applied.mark_unchanged();
            let (items, done) = match self.with(Part::look).await {
                Ok(Look { items, done }) => (items, done),
                Err(e) => {
                    error!("keys of e-cash: {e}");
                    (Vec::new(), e.is_own_fault())
                }
            };
            let pause = self.offer(items);
            tokio::select! {
                changed = applied.changed(), if !done => if changed.is_err() { return },
                command = self.commands.recv() => match command {
                    Some(reply) => {
                        let answer = self.with(Part::go_on).await;
                        // Whoever asked may be gone.
                        let _ = reply.send(answer);
                    }
                    None => return,
                },
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
    }

    /// Runs on a thread that may take its time. It reads what may not be durable here yet; but that is agreed on, and what
    /// this authority says rests on nothing of its own but seed and shares.
    async fn with<T: Send + 'static>(&mut self, run: fn(&mut Part) -> Result<T>) -> Result<T> {
        let stopped = || Error::new(Code::Busy, "the authority is stopping");
        let mut part = self.part.take().ok_or_else(stopped)?;
        let turn = tokio::task::spawn_blocking(move || {
            let result = run(&mut part);
            (part, result)
        });
        let (part, result) = match turn.await {
            Ok(turn) => turn,
            Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
            Err(_) => return Err(stopped()),
        };
        self.part = Some(part);
        result
    }

    /// Hands in what is due. How long until something is again.
    fn offer(&mut self, items: Vec<Bytes>) -> Option<Duration> {
        self.offered.retain(|item, _| items.contains(item));
        let wait = |times: u32| (AGAIN * (1 << times.min(6).saturating_sub(1))).min(AGAIN_MAX);
        let mut due = Vec::new();
        for item in &items {
            let at = self.offered.get(item);
            if at.is_none_or(|(at, times)| at.elapsed() >= wait(*times)) {
                due.push(item.clone());
            }
        }
        if !due.is_empty() {
            match self.consensus.offer(due.iter().cloned().map(dkg_item).collect()) {
                Ok(()) => due.into_iter().for_each(|item| {
                    let at = self.offered.entry(item).or_insert((Instant::now(), 0));
                    *at = (Instant::now(), at.1.saturating_add(1));
                }),
                Err(e) => {
                    debug!("items of the key generation wait: {e}");
                    return Some(AGAIN);
                }
            }
        }
        self.offered.values().map(|(at, times)| wait(*times).saturating_sub(at.elapsed())).min()
    }
}

/// What there is to do.
#[derive(Clone, Default)]
struct Look {
    /// Items that the log lacks.
    items: Vec<Bytes>,
    /// Nothing more will be.
    done: bool,
}

/// The part of this authority.
struct Part {
    shell: Arc<LogShell>,
    data: PathBuf,
    mint: watch::Sender<Option<Arc<MintKeys>>>,
    /// Run and record of the last look.
    seen: Option<(u64, Bytes)>,
    items: Vec<Bytes>,
    /// Its shares, checked and durable, by the hash of their keys.
    held: Option<([u8; 32], Arc<MintKeys>)>,
    /// Run and phase in which its operator waits no longer.
    wanted: Option<(u64, Phase)>,
    /// Why it has no shares, if it should have some: said once.
    fault: Option<Error>,
}

impl Part {
    fn index(&self) -> u32 {
        self.shell.log().index()
    }

    fn ceremony(&self) -> Result<Ceremony> {
        let newest = self.shell.log().ceremony(self.shell.store())?;
        let run = newest.params().run();
        if newest.phase() == Phase::Failed && self.wanted == Some((run, Phase::Failed)) {
            return Ok(Ceremony::new(params(self.shell.log().committee(), run + 1)?));
        }
        Ok(newest)
    }

    fn look(&mut self) -> Result<Look> {
        let ceremony = self.ceremony()?;
        let run = ceremony.params().run();
        let now = (run, ceremony.encode());
        let done = |part: &Part| part.seen.is_some() && ceremony.is_settled() && !part.data.join(SEED).exists();
        if self.seen.as_ref() == Some(&now) {
            return Ok(Look { items: self.items.clone(), done: done(self) });
        }
        let participant = self.participant(&ceremony)?;
        if ceremony.phase() == Phase::Closed || ceremony.phase() == Phase::Active {
            self.hold(&ceremony, participant.as_ref())?;
        }
        let waits = self.fault.is_some();
        let mut items = Vec::new();
        if let Some(participant) = participant.as_ref().filter(|_| !waits) {
            items = participant.items(&ceremony, &blobs(self.shell.store(), run))?;
            if self.wanted == Some((run, ceremony.phase())) {
                items.extend(participant.go_on(&ceremony));
            }
        }
        let kept = self.held.is_some() || !self.may_open(&ceremony, participant.as_ref())?;
        if ceremony.is_settled() && kept && participant.is_some() {
            erase(&self.data, SEED)?;
            info!(run, "keys of e-cash: nobody needs this authority's seed any more, it is erased");
        }
        (self.seen, self.items) = (Some(now), items.clone());
        Ok(Look { items, done: done(self) })
    }

    /// Whether its shares follow from what it has.
    fn may_open(&self, ceremony: &Ceremony, participant: Option<&Participant>) -> Result<bool> {
        let Some(participant) = participant else { return Ok(false) };
        Ok(participant.shares(ceremony, &blobs(self.shell.store(), ceremony.params().run()))?.is_some())
    }

    /// What it does in a run, by its seed: a new one if it can still join, none if it can't, or if its log is behind.
    fn participant(&self, ceremony: &Ceremony) -> Result<Option<Participant>> {
        let run = ceremony.params().run();
        let path = self.data.join(SEED);
        let seed = match read(&path)? {
            Some(text) => {
                let (of, seed) = parse_seed(&text).ok_or_else(|| {
                    let message = format!("{}: expected the number of a run and a seed, found others", path.display());
                    Error::new(Code::BadFile, message)
                })?;
                if of > run || of < run && ceremony.phase() >= Phase::Closed {
                    return Ok(None);
                }
                Some(seed).filter(|_| of == run)
            }
            None => None,
        };
        let seed = match seed {
            Some(seed) => seed,
            None if ceremony.phase() >= Phase::Closed => return Ok(None),
            None => self.new_seed(run)?,
        };
        Participant::new(ceremony.params().clone(), self.index(), *seed, None).map(Some)
    }

    fn new_seed(&self, run: u64) -> Result<Zeroizing<[u8; 32]>> {
        let mut seed = Zeroizing::new([0; 32]);
        let failed = |e| Error::new(Code::Io, format!("the system's randomness: {e}"));
        getrandom::fill(&mut seed[..]).map_err(failed)?;
        let text = Zeroizing::new(format!("{run} {}\n", *Zeroizing::new(hex::encode(&seed[..]))));
        write_secret(&self.data, SEED, text.as_bytes())?;
        info!(run, "keys of e-cash: this authority takes part in making them");
        Ok(seed)
    }

    /// Takes its shares from its disk, or from the run, and then to its disk; and lets the keys be used that are in use.
    fn hold(&mut self, ceremony: &Ceremony, participant: Option<&Participant>) -> Result<()> {
        let (log, store, run) = (self.shell.log(), self.shell.store(), ceremony.params().run());
        let active = ceremony.phase() == Phase::Active;
        let closed = if active { None } else { log.closed_keys(store, run)? };
        // The log may have gone on since.
        let keys = if closed.is_some() { closed } else { log.mint_keys(store)? };
        let lost = || Error::new(Code::StorageCorrupt, format!("the keys of run {run} are missing"));
        let keys = keys.ok_or_else(lost)?;
        let hash = keys.hash();
        if self.held.as_ref().is_none_or(|(of, _)| *of != hash) {
            match self.shares(ceremony, participant, &keys) {
                Ok(held) => {
                    self.held = held.map(|held| (hash, Arc::new(held)));
                    self.fault = None;
                }
                Err(e) if e.code == Code::CashSharesLost => {
                    if self.fault.as_ref() != Some(&e) {
                        error!("keys of e-cash: {e}; this authority does everything but sign notes");
                    }
                    self.fault = Some(e);
                }
                Err(e) => return Err(e),
            }
        }
        if !active {
            return Ok(());
        }
        let has = self.mint.borrow().as_ref().map(|keys| keys.holds_shares());
        if has.is_none() || has == Some(false) && self.held.is_some() {
            let keys = match &self.held {
                Some((_, held)) => held.clone(),
                None => Arc::new(MintKeys::new(keys, None)?),
            };
            info!(run, keys = %hex::encode(&hash[..8]), shares = keys.holds_shares(), "keys of e-cash are in use");
            self.mint.send_replace(Some(keys));
        }
        Ok(())
    }

    /// Errors: `CASH_SHARES_LOST` if they should be on disk and are not.
    fn shares(
        &self,
        ceremony: &Ceremony,
        participant: Option<&Participant>,
        keys: &PublicKeys,
    ) -> Result<Option<MintKeys>> {
        let path = self.data.join(SHARES);
        let lost = |what: String| Err(Error::new(Code::CashSharesLost, format!("{}: {what}", path.display())));
        if let Some(stored) = read(&path)? {
            let shares = KeyShares::decode(&stored).and_then(|shares| {
                let index = (shares.index == self.index())
                    .then_some(())
                    .ok_or_else(|| Error::expected(Code::BadKey, "holder of the shares", self.index(), shares.index));
                index.and_then(|()| MintKeys::new(keys.clone(), Some(shares)))
            });
            return match shares {
                Ok(held) => Ok(Some(held)),
                Err(e) => lost(format!("expected this authority's shares of the committee's keys, found others ({e})")),
            };
        }
        let run = ceremony.params().run();
        if let Some(participant) = participant
            && let Some(shares) = participant.shares(ceremony, &blobs(self.shell.store(), run))?
        {
            let encoded = shares.encode();
            let held = MintKeys::new(keys.clone(), Some(shares))
                .map_err(|e| Error::new(Code::StorageCorrupt, format!("shares that the log gives: {e}")))?;
            write_secret(&self.data, SHARES, &encoded)?;
            info!(run, "keys of e-cash: this authority holds its shares; back up {}", path.display());
            return Ok(Some(held));
        }
        let confirmed = !ceremony.waits_for().contains(&self.index()) && !ceremony.found_out().contains(&self.index());
        if confirmed {
            return lost("expected this authority's shares, which it had, found no such file".into());
        }
        // It has announced no key, or not with a seed that is still here.
        if ceremony.is_settled() {
            warn!(run, "keys of e-cash: this authority has no shares until the keys are shared again");
        }
        Ok(None)
    }

    fn go_on(&mut self) -> Result<()> {
        let ceremony = self.ceremony()?;
        let (run, phase) = (ceremony.params().run(), ceremony.phase());
        let not = |why: String| Err(Error::new(Code::CashNotReady, format!("run {run}: {why}")));
        let waits = ceremony.waits_for();
        match phase {
            Phase::Active => return Ok(()),
            Phase::Closed => return not(format!("a quorum must confirm its shares, these have not: {waits:?}")),
            Phase::Announce | Phase::Deal | Phase::Verdict if waits.contains(&self.index()) => {
                return not("this authority's own part is not in the log yet".into());
            }
            Phase::Announce | Phase::Deal | Phase::Verdict => {
                let faults = self.shell.log().committee().faults();
                if waits.len() > faults {
                    return not(format!("{waits:?} are missing, at most {faults} may be"));
                }
            }
            Phase::Failed => {}
        }
        info!(run, ?phase, without = ?waits, "keys of e-cash: the operator waits no longer");
        self.wanted = Some((run, phase));
        self.seen = None;
        Ok(())
    }
}

fn parse_seed(text: &[u8]) -> Option<(u64, Zeroizing<[u8; 32]>)> {
    let (run, seed) = std::str::from_utf8(text).ok()?.strip_suffix('\n')?.split_once(' ')?;
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(seed, &mut bytes[..]).ok()?;
    Some((run.parse().ok()?, bytes))
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::new(Code::Io, format!("{}: {e}", path.display()))),
    }
}

/// What other processes of this authority get.
pub fn shares_reply(mint: &Mint) -> CashSharesReply {
    let Some(keys) = mint.borrow().clone() else { return CashSharesReply::default() };
    let shares = keys.encode_shares().map(|shares| Bytes::copy_from_slice(&shares)).unwrap_or_default();
    CashSharesReply { keys: keys.public().encode(), shares }
}

/// The keys where the log does not run.
pub fn remote(client: PeerServiceClient<Channel>) -> (impl Future<Output = ()>, Mint) {
    let (mint, keys) = watch::channel(None);
    (ask(client, mint), keys)
}

/// Asks the process of shard 0 until it has given keys with shares.
async fn ask(mut client: PeerServiceClient<Channel>, mint: watch::Sender<Option<Arc<MintKeys>>>) {
    loop {
        match client.cash_shares(CashSharesRequest {}).await {
            Ok(reply) => match received(&reply.into_inner()) {
                Ok(Some(keys)) => {
                    let whole = keys.holds_shares();
                    mint.send_if_modified(|known| {
                        let news = known.as_ref().is_none_or(|known| known.holds_shares() != whole);
                        if news {
                            info!(shares = whole, "keys of e-cash are here, from this authority's other process");
                            *known = Some(Arc::new(keys));
                        }
                        news
                    });
                    if whole {
                        return;
                    }
                }
                Ok(None) => {}
                Err(e) => warn!("keys of e-cash from this authority's other process: {e}"),
            },
            Err(status) => debug!("asking for the keys of e-cash: {}", from_status(status)),
        }
        let pause = if mint.borrow().is_some() { ASK_SHARES } else { ASK };
        tokio::time::sleep(pause).await;
    }
}

fn received(reply: &CashSharesReply) -> Result<Option<MintKeys>> {
    if reply.keys.is_empty() {
        return Ok(None);
    }
    let shares = if reply.shares.is_empty() { None } else { Some(KeyShares::decode(&reply.shares)?) };
    MintKeys::new(PublicKeys::decode(&reply.keys)?, shares).map(Some)
}
