//! PBTX's RPC over HTTP, for one network: registering actors, reading a sequence, sending transactions.
//!
//! It is a face of a [`Worker`] and is believed as little: what it sends was signed by its actor, and what it answers
//! anyone can read from the committee. `docs/pbtx-http.md` has the commands and the status codes.

mod actors;
mod register;
mod server;
mod status;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use florin_core::envelope::Order;
use florin_core::limits::ID_MAX;
use florin_core::network_flags::SKIP_SEQ_AND_PREVHASH;
use florin_core::pbtxrpc::request_response::StatusCode;
use florin_core::pbtxrpc::{AccountSeqData, GetSeq, RegisterAccount, RequestResponse};
use florin_core::registration::check_registration;
use florin_core::{Code, Error, Result, pbtx};
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub use register::{Registering, Registrar, patiently};
pub use server::{Limits, serve};
pub use status::status_of;

use crate::network::Network;
use crate::worker::Worker;
use actors::{Seen, transaction};

/// Actors whose last final seqnum is remembered.
const FINALS_MAX: usize = 65_536;
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);
/// Bytes of credentials.
const CREDENTIALS_MAX: usize = 4_096;

/// Which request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `/register_account`
    RegisterAccount,
    /// `/get_seq`
    GetSeq,
    /// `/send_transaction`
    SendTransaction,
}

/// What whoever registers must show; without any, nothing.
#[derive(Default)]
pub struct Credentials(HashSet<[u8; 32]>);

impl Credentials {
    /// Reads a file with one of them on each line: text, or hex digits after `hex:`. Empty lines and those that begin
    /// with `#` don't count. Errors: `BAD_FILE`.
    pub fn read(path: &Path) -> Result<Credentials> {
        let bad = |what: String| Error::new(Code::BadFile, format!("{}: {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
        let mut all = HashSet::new();
        for (i, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bytes = match line.strip_prefix("hex:") {
                Some(digits) => hex::decode(digits).map_err(|e| bad(format!("line {i}: {e}")))?,
                None => line.as_bytes().to_vec(),
            };
            all.insert(Sha256::digest(bytes).into());
        }
        match all.is_empty() {
            true => Err(bad("expected credentials, found none: nobody could register".into())),
            false => Ok(Credentials(all)),
        }
    }

    /// Compared by hash, so that time tells nothing.
    fn allow(&self, shown: &[u8]) -> bool {
        self.0.is_empty() || (shown.len() <= CREDENTIALS_MAX && self.0.contains(&Sha256::digest(shown)[..]))
    }
}

/// How a gateway is set up.
pub struct Config {
    /// The network that it serves.
    pub network_id: u64,
    /// Registers actors; without it, only those that are registered already are answered `SUCCESS`.
    pub registrar: Option<Registrar>,
    /// Who may register.
    pub credentials: Credentials,
    /// How long a request may take.
    pub patience: Duration,
}

/// Answers requests.
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

struct Shared {
    network: Network,
    worker: Worker,
    config: Config,
    flags: OnceCell<u32>,
    /// By actor: the last seqnum that was final here.
    finals: Mutex<HashMap<u64, u32>>,
}

/// A request that is not done: its status, and why in words.
struct Refusal(StatusCode, String);

impl From<Error> for Refusal {
    fn from(e: Error) -> Self {
        Refusal(status_of(e.code), e.to_string())
    }
}

type Answer = std::result::Result<Option<AccountSeqData>, Refusal>;

impl Gateway {
    /// A gateway in front of a worker. `network` is the worker's committee.
    pub fn new(network: Network, worker: Worker, config: Config) -> Gateway {
        let (flags, finals) = (OnceCell::new(), Mutex::default());
        Gateway { shared: Arc::new(Shared { network, worker, config, flags, finals }) }
    }

    /// Answers a request: `hash` is sha256 of its bytes, and they are `None` if there were too many. With what was
    /// wrong, for people.
    pub async fn answer(&self, method: Method, hash: [u8; 32], body: Option<Bytes>) -> (RequestResponse, String) {
        let shared = &self.shared;
        let mut actor = 0;
        let work = async {
            let body = body.ok_or_else(|| Error::new(Code::Limit, "the request is too large"))?;
            match method {
                Method::RegisterAccount => shared.register(body, &mut actor).await,
                Method::GetSeq => shared.get_seq(body, &mut actor).await,
                Method::SendTransaction => shared.send(body).await,
            }
        };
        let late = || Err(Error::new(Code::Timeout, "the time is up; sending the same again is safe").into());
        let answer = timeout(shared.config.patience, work).await.unwrap_or_else(|_| late());
        let (status, data, reason) = match answer {
            Ok(data) => (StatusCode::Success, data, String::new()),
            Err(Refusal(status, reason)) => {
                // Clients decode it before they look at the status.
                let zero = AccountSeqData { network_id: shared.config.network_id, actor, ..Default::default() };
                (status, (method != Method::SendTransaction).then_some(zero), reason)
            }
        };
        let data = data.map(|data| data.encode_to_vec().into()).unwrap_or_default();
        let request_hash = Bytes::copy_from_slice(&hash);
        (RequestResponse { request_hash, status: status as i32, data }, reason)
    }
}

impl Shared {
    async fn register(&self, body: Bytes, actor: &mut u64) -> Answer {
        let request: RegisterAccount = decode(body)?;
        if !self.config.credentials.allow(&request.credentials) {
            return Err(Refusal(StatusCode::InvalidCredentials, "the credentials are not known here".into()));
        }
        let permission = check_registration(&request.permission_bytes, &request.signature)?;
        *actor = permission.actor;
        let (network, network_id) = (&self.network, self.config.network_id);
        let bytes = request.permission_bytes;
        if !register::is_registered(network, network_id, permission.actor, &bytes).await? {
            let Some(registrar) = &self.config.registrar else {
                let message = "this worker has no wallet to register actors with";
                return Err(Error::new(Code::NetworkClosed, message).into());
            };
            registrar.register(permission.actor, bytes, request.signature).await?;
        }
        self.sequence(permission.actor).await
    }

    async fn get_seq(&self, body: Bytes, actor: &mut u64) -> Answer {
        let request: GetSeq = decode(body)?;
        *actor = request.actor;
        if request.actor == 0 || request.actor > ID_MAX {
            return Err(Error::expected(Code::Int63, "actor", "1 to 2^63 - 1", request.actor).into());
        }
        self.sequence(request.actor).await
    }

    /// Where the actor's next transaction goes. What is under way for that place is finished first: whoever signed
    /// another one in its place might lock the actor.
    async fn sequence(&self, actor: u64) -> Answer {
        let network_id = self.config.network_id;
        let deadline = Instant::now() + self.config.patience;
        loop {
            let seen = Seen::ask(&self.network, network_id, actor).await?;
            let pending = seen.pending();
            let own = self.finals().get(&actor).copied().unwrap_or(0);
            match (seen.is_known(), seen.sequence()) {
                (Some(false), _) => {
                    return Err(Error::new(Code::UnknownActor, format!("actor {actor} is not registered")).into());
                }
                (Some(true), Some((last_seqnum, prev_hash))) if pending.is_empty() && last_seqnum >= own => {
                    return Ok(Some(AccountSeqData { network_id, actor, last_seqnum, prev_hash }));
                }
                _ => {}
            }
            if Instant::now() >= deadline {
                let message = format!("actor {actor}: too few authorities agree on its last transaction");
                return Err(Error::new(Code::Undecided, message).into());
            }
            match pending.is_empty() {
                true => sleep(PAUSE).await,
                false => self.finish(actor, pending).await,
            }
        }
    }

    /// Drives what authorities have voted for and not settled.
    async fn finish(&self, actor: u64, pending: Vec<(u32, [u8; 32])>) {
        let mut driving = JoinSet::new();
        for (seqnum, id) in pending {
            let (network, worker, network_id) = (self.network.clone(), self.worker.clone(), self.config.network_id);
            driving.spawn(async move {
                if let Some(raw) = transaction(&network, network_id, actor, seqnum, id).await {
                    let _ = worker.submit_one(raw).await;
                }
            });
        }
        while driving.join_next().await.is_some() {}
        sleep(PAUSE).await;
    }

    async fn send(&self, body: Bytes) -> Answer {
        let network_id = self.config.network_id;
        let other = |found: u64| Error::expected(Code::UnknownNetwork, "network_id", network_id, found);
        let order = Order::decode(body.clone()).map_err(|e| match network_of(&body) {
            Some(found) if e.code == Code::Int63 && found != network_id => other(found),
            _ => e,
        })?;
        if order.network_id != network_id {
            return Err(other(order.network_id).into());
        }
        self.worker.submit_one(body).await?;
        // Without sequence numbers there is nothing to remember, and if this can't be known, it is final all the same.
        if self.flags().await.is_ok_and(|flags| flags & SKIP_SEQ_AND_PREVHASH != 0) {
            return Ok(None);
        }
        let mut finals = self.finals();
        if finals.len() >= FINALS_MAX {
            finals.clear();
        }
        let last = finals.entry(order.actor).or_default();
        *last = order.seqnum.max(*last);
        Ok(None)
    }

    /// The network's flags; that with which they are asked for never changes.
    async fn flags(&self) -> Result<u32> {
        let read = async || {
            let record = self.network.registered(self.config.network_id).await?.0;
            Result::Ok(record.map_or(0, |record| record.flags))
        };
        self.flags.get_or_try_init(read).await.copied()
    }

    fn finals(&self) -> std::sync::MutexGuard<'_, HashMap<u64, u32>> {
        self.finals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The network of a transaction whose ids are out of range.
fn network_of(transaction: &Bytes) -> Option<u64> {
    let body = pbtx::Transaction::decode(transaction.clone()).ok()?.body;
    Some(pbtx::TransactionBody::decode(body).ok()?.network_id)
}

fn decode<M: Message + Default>(body: Bytes) -> Result<M> {
    M::decode(body).map_err(|e| Error::new(Code::Decode, format!("request: {e}")))
}
