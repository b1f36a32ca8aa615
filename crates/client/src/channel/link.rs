//! A connection with the other side of a channel, once it is made: who is there is proved, then messages go both ways.
//!
//! What gets lost is said again after the next connect, so nothing waits for a slow side without bounds: who does not take
//! what is said to it is cut off.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use florin_core::channel::hub::introduction::{Meeting, verify};
use florin_core::channel::hub::{self, Input};
use florin_core::channel::manager::{EndId, EndState};
use florin_core::channel::virtuals::{self, VirtualSigner};
use florin_core::limits::{HUB_IN_HAND_MAX, HUB_PROOF_MS, HUB_QUEUE_MAX};
use florin_core::merkle::Hash;
use florin_core::wire::{HubBegin, HubFrame, HubProof, hub_frame};
use florin_core::{Code, Error, Result};
use florin_rpc::errors::from_status;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tonic::{Status, Streaming};

use super::desk::{Command, Machines};
use super::ended;
use crate::keystore::new_entropy;

/// Frames that wait for the network.
pub const FRAMES: usize = 16;
/// How long the other side has to end a connection on which all is said.
pub const FINISH: Duration = Duration::from_secs(3);

/// Where frames go.
pub type Out = mpsc::Sender<std::result::Result<HubFrame, Status>>;

/// The connections that there are: at most one for each end, the newest.
#[derive(Clone, Default)]
pub struct Links(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    last: u64,
    open: BTreeMap<EndId, Open>,
}

struct Open {
    number: u64,
    /// None: nothing more is to be said.
    to: Option<mpsc::Sender<hub_frame::Kind>>,
    /// Dropped with it: ends the connection, whatever it waits for.
    _cut: oneshot::Sender<()>,
}

impl Links {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection takes the place of an older one.
    pub fn open(&self, end: EndId) -> (u64, mpsc::Receiver<hub_frame::Kind>, oneshot::Receiver<()>) {
        let ((to, from), (cut, is_cut)) = (mpsc::channel(HUB_QUEUE_MAX), oneshot::channel());
        let mut state = self.state();
        state.last += 1;
        let number = state.last;
        state.open.insert(end, Open { number, to: Some(to), _cut: cut });
        (number, from, is_cut)
    }

    /// Whether it was still the newest.
    fn close(&self, end: &EndId, number: u64) -> bool {
        let mut state = self.state();
        match state.open.get(end) {
            Some(open) if open.number != number => false,
            _ => {
                state.open.remove(end);
                true
            }
        }
    }

    /// Says something over a connection, if it is still the newest of its end.
    pub fn send(&self, end: &EndId, connection: u64, message: hub_frame::Kind) {
        let mut state = self.state();
        let open = state.open.get(end).filter(|open| open.number == connection);
        let to = open.and_then(|open| open.to.as_ref());
        if to.is_some_and(|to| to.try_send(message).is_err()) {
            state.open.remove(end);
        }
    }

    /// Says what waits, and then nothing more.
    pub fn finish(&self, end: &EndId) {
        if let Some(open) = self.state().open.get_mut(end) {
            open.to = None;
        }
    }

    pub fn close_all(&self) {
        self.state().open.clear();
    }
}

/// What connections have of the channels. It does not keep them running.
#[derive(Clone)]
pub struct Line {
    pub to: mpsc::WeakUnboundedSender<Command>,
    pub links: Links,
    pub signer: Arc<dyn VirtualSigner + Send + Sync>,
}

impl Line {
    fn tell(&self, command: Command) -> Result<()> {
        self.to.upgrade().ok_or_else(ended)?.send(command).map_err(|_| ended())
    }

    async fn ask(&self, input: Input) -> Result<hub::Reply> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Ask(Box::new(input), reply))?;
        answer.await.map_err(|_| ended())?
    }

    /// Asks the machine of virtual channels.
    pub async fn virtuals(&self, input: virtuals::Input) -> Result<virtuals::Reply> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Virtual(Box::new(input), Some(reply), None))?;
        answer.await.map_err(|_| ended())?
    }

    pub async fn read<T: Send + 'static>(&self, look: impl FnOnce(&Machines) -> T + Send + 'static) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Read(Box::new(move |machines, _| drop(reply.send(look(machines))))))?;
        answer.await.map_err(|_| ended())
    }

    /// Whether there may be a connection for this end. Errors: `UNKNOWN_CHANNEL`, `CHANNEL_OVER`, `CHANNEL_KEYS`.
    async fn check(&self, end: EndId) -> Result<()> {
        let checked = move |Machines { manager, .. }: &Machines| {
            if manager.status(&end)?.state == EndState::Collected {
                return Err(Error::new(Code::ChannelOver, "the channel is collected"));
            }
            manager.keys_of(&end, end.side)?;
            manager.keys_of(&end, 1 - end.side).map(drop)
        };
        self.read(checked).await?
    }

    /// The own proof.
    async fn prove(&self, end: EndId, meeting: &Meeting) -> Result<Vec<Bytes>> {
        let account = self.read(move |all| all.manager.status(&end)).await??.control;
        self.signer.introduce(&account, &meeting.introduction(meeting.client_side == end.side))
    }

    /// The other side's. Errors: `HUB_PROOF`.
    async fn check_proof(&self, end: EndId, meeting: &Meeting, signatures: &[Bytes]) -> Result<()> {
        let (permission, address) = self.read(move |all| all.manager.keys_of(&end, 1 - end.side)).await??;
        let introduction = meeting.introduction(meeting.client_side != end.side);
        verify(&introduction, signatures, &permission, &address).map_err(|e| {
            let message = format!("the other end has not proved to be side {} of the channel: {e}", 1 - end.side);
            Error::new(Code::HubProof, message)
        })
    }

    /// Who has connected. `key`: the own TLS key.
    pub async fn welcome(&self, key: [u8; 32], frames: &mut Streaming<HubFrame>, out: &Out) -> Result<EndId> {
        in_time(async {
            let begin = match next(frames).await? {
                hub_frame::Kind::Begin(begin) => begin,
                _ => return Err(unexpected("begin")),
            };
            let end = EndId { channel: hash("channel", &begin.channel)?, side: 1u32.saturating_sub(begin.side) };
            let server_nonce = nonce()?;
            let meeting = Meeting {
                channel: end.channel,
                client_side: begin.side,
                server_key: key,
                client_nonce: hash("nonce", &begin.nonce)?,
                server_nonce,
            };
            if begin.side > 1 {
                return Err(Error::expected(Code::BadContent, "side", "0 or 1", begin.side));
            }
            self.check(end).await?;
            let signatures = self.prove(end, &meeting).await?;
            let nonce = Bytes::copy_from_slice(&server_nonce);
            send(out, hub_frame::Kind::Proof(HubProof { nonce, signatures })).await?;
            match next(frames).await? {
                hub_frame::Kind::Proof(proof) => self.check_proof(end, &meeting, &proof.signatures).await?,
                _ => return Err(unexpected("proof")),
            }
            Ok(end)
        })
        .await
    }

    /// First of all, of who connects: its nonce.
    pub async fn begin(&self, end: EndId, out: &Out) -> Result<Hash> {
        self.check(end).await?;
        let own = nonce()?;
        let (channel, nonce) = (Bytes::copy_from_slice(&end.channel), Bytes::copy_from_slice(&own));
        send(out, hub_frame::Kind::Begin(HubBegin { channel, side: end.side, nonce })).await?;
        Ok(own)
    }

    /// Whether the one that was connected to is the other side. `key`: its TLS key, as it is seen.
    pub async fn meet(
        &self,
        end: EndId,
        (key, client_nonce): ([u8; 32], Hash),
        frames: &mut Streaming<HubFrame>,
        out: &Out,
    ) -> Result<()> {
        in_time(async {
            let proof = match next(frames).await? {
                hub_frame::Kind::Proof(proof) => proof,
                _ => return Err(unexpected("proof")),
            };
            let meeting = Meeting {
                channel: end.channel,
                client_side: end.side,
                server_key: key,
                client_nonce,
                server_nonce: hash("nonce", &proof.nonce)?,
            };
            self.check_proof(end, &meeting, &proof.signatures).await?;
            let signatures = self.prove(end, &meeting).await?;
            send(out, hub_frame::Kind::Proof(HubProof { nonce: Bytes::new(), signatures })).await
        })
        .await
    }

    /// Passes messages on, both ways, until the connection ends. Gives why.
    pub async fn talk(&self, end: EndId, frames: &mut Streaming<HubFrame>, out: Out) -> Error {
        let (number, messages, cut) = self.links.open(end);
        let both = async {
            if let Err(e) = self.ask(Input::Connected(end, number)).await {
                return e;
            }
            let listens = self.listen(end, frames);
            tokio::pin!(listens);
            tokio::select! {
                said = say(messages, out) => match said {
                    // All is said; the other side ends when it has heard it.
                    Ok(()) => tokio::time::timeout(FINISH, listens).await.unwrap_or_else(|_| gone()),
                    Err(e) => e,
                },
                e = &mut listens => e,
            }
        };
        let why = tokio::select! {
            e = both => e,
            _ = cut => replaced(),
        };
        if self.links.close(&end, number) {
            let _ = self.tell(Command::Tell(Box::new(Input::Disconnected(end)), None));
        }
        why
    }

    async fn listen(&self, end: EndId, frames: &mut Streaming<HubFrame>) -> Error {
        let slots = Arc::new(Semaphore::new(HUB_IN_HAND_MAX));
        let heard = async {
            loop {
                let Ok(slot) = slots.clone().acquire_owned().await else { return Err(replaced()) };
                match next(frames).await? {
                    hub_frame::Kind::Message(message) => {
                        let input = Input::Message { end, message: Box::new(message) };
                        self.tell(Command::Tell(Box::new(input), Some(slot)))?;
                    }
                    hub_frame::Kind::Virtual(message) => {
                        let input = virtuals::Input::Message { end, message: Box::new(message) };
                        self.tell(Command::Virtual(Box::new(input), None, Some(slot)))?;
                    }
                    _ => return Err::<std::convert::Infallible, Error>(unexpected("message")),
                }
            }
        };
        match heard.await {
            Err(e) => e,
            Ok(never) => match never {},
        }
    }
}

async fn in_time<T>(task: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || Error::new(Code::Timeout, format!("no proof of the other end within {HUB_PROOF_MS} ms"));
    tokio::time::timeout(Duration::from_millis(HUB_PROOF_MS), task).await.map_err(|_| late())?
}

/// Sends what is to be said, until there is nothing more; `out` is dropped then, which tells the other side.
async fn say(mut messages: mpsc::Receiver<hub_frame::Kind>, out: Out) -> Result<()> {
    while let Some(message) = messages.recv().await {
        send(&out, message).await?;
    }
    Ok(())
}

async fn send(out: &Out, kind: hub_frame::Kind) -> Result<()> {
    out.send(Ok(HubFrame { kind: Some(kind) })).await.map_err(|_| gone())
}

async fn next(frames: &mut Streaming<HubFrame>) -> Result<hub_frame::Kind> {
    let frame = frames.message().await.map_err(from_status)?.ok_or_else(gone)?;
    frame.kind.ok_or_else(|| Error::new(Code::BadContent, "an empty frame"))
}

fn nonce() -> Result<Hash> {
    Ok(*new_entropy::<32>()?)
}

fn hash(what: &str, bytes: &[u8]) -> Result<Hash> {
    let wrong = |_| Error::expected(Code::BadContent, &format!("bytes of the {what}"), 32, bytes.len());
    Hash::try_from(bytes).map_err(wrong)
}

fn unexpected(expected: &str) -> Error {
    Error::expected(Code::BadContent, "frame", expected, "another")
}

fn gone() -> Error {
    Error::new(Code::Unreachable, "the other end has closed the connection")
}

fn replaced() -> Error {
    Error::new(
        Code::Unreachable,
        "the connection was closed here: a newer one is there, or the other side was too slow",
    )
}

#[cfg(test)]
#[path = "link_tests.rs"]
pub(super) mod tests;
