//! The side of a connection that connects.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use florin_core::channel::hub::LinkState;
use florin_core::channel::manager::EndId;
use florin_core::channel::virtuals::VirtualId;
use florin_core::limits::HUB_FRAME_BYTES_MAX;
use florin_core::merkle::Hash;
use florin_core::wire::{HubFrame, HubTerms, HubTermsRequest, SignedPermit, VirtualPeer, VirtualTerms, virtual_peer};
use florin_core::{Code, Error, Result};
use florin_rpc::client::{self, Limits};
use florin_rpc::errors::from_status;
use florin_rpc::services::hub_service_client::HubServiceClient;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;
use tracing::debug;

use super::desk::Machines;
use super::link::{FINISH, FRAMES, Line, Links};
use super::{Channels, LOOK};

/// Before it is tried again: the first time, and the longest.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A connection that is made again and again, until this is dropped.
pub struct Dialed {
    end: EndId,
    address: String,
    /// Why the last one has ended.
    failed: Arc<Mutex<Option<Error>>>,
    /// It is not to be made again.
    last: Arc<AtomicBool>,
    links: Links,
    task: JoinHandle<()>,
}

impl Drop for Dialed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Dialed {
    pub(super) fn start(line: Line, end: EndId, address: &str) -> Dialed {
        let failed = Arc::new(Mutex::new(None));
        let (last, links) = (Arc::new(AtomicBool::new(false)), line.links.clone());
        let (why_not, is_last, to) = (failed.clone(), last.clone(), address.to_owned());
        let task = tokio::spawn(async move {
            let mut pause = RETRY;
            while !is_last.load(SeqCst) {
                let (why, was_up) = connect(&line, end, &to).await;
                debug!("{to}: {why}");
                *why_not.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
                if is_last.load(SeqCst) {
                    return;
                }
                pause = if was_up { RETRY } else { (2 * pause).min(RETRY_MAX) };
                tokio::time::sleep(pause).await;
            }
        });
        Dialed { end, address: address.to_owned(), failed, last, links, task }
    }

    /// Ends it when the other side has heard what was said, or after a few seconds.
    pub async fn finish(mut self) {
        self.last.store(true, SeqCst);
        self.links.finish(&self.end);
        let _ = tokio::time::timeout(FINISH, &mut self.task).await;
    }

    /// Waits until payments go over it. Errors: why they don't: `TIMEOUT`, `HUB_DIVERGED`, or at once what will not change by itself.
    pub async fn ready(&self, channels: &Channels, patience: Duration) -> Result<()> {
        self.wait(channels, patience, |all, end| all.hub.link(end)).await
    }

    /// Waits until virtual channels go over it. Errors: as of [`Dialed::ready`].
    pub async fn ready_for_virtuals(&self, channels: &Channels, patience: Duration) -> Result<()> {
        self.wait(channels, patience, |all, end| all.virtuals.link(end)).await
    }

    async fn wait(
        &self,
        channels: &Channels,
        patience: Duration,
        link: fn(&Machines, &EndId) -> LinkState,
    ) -> Result<()> {
        let (deadline, end) = (Instant::now() + patience, self.end);
        loop {
            match channels.look(move |all, _| link(all, &end)).await? {
                LinkState::Ready => return Ok(()),
                LinkState::Diverged => {
                    let message = "the other side holds vouchers that this journal has forgotten: nothing is signed";
                    return Err(Error::new(Code::HubDiverged, message));
                }
                LinkState::Away | LinkState::Comparing => {}
            }
            let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // The other side may yet see the channel, or its keys, in the log.
            let lasts = [Code::HubProof, Code::ChannelOver, Code::NotServed];
            match failed {
                Some(e) if lasts.contains(&e.code) => return Err(e),
                Some(e) if Instant::now() >= deadline => return Err(e),
                None if Instant::now() >= deadline => {
                    let message = format!("{}: not connected after {patience:?}", self.address);
                    return Err(Error::new(Code::Timeout, message));
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

/// Connects once. Gives why it has ended, and whether the other side was there.
async fn connect(line: &Line, end: EndId, address: &str) -> (Error, bool) {
    let made = async {
        let (mut service, key) = service(address).await?;
        let (out, frames) = mpsc::channel(FRAMES);
        let nonce = line.begin(end, &out).await?;
        let frames = ReceiverStream::new(frames).map_while(|frame: std::result::Result<HubFrame, Status>| frame.ok());
        let mut frames = service.link(frames).await.map_err(from_status)?.into_inner();
        line.meet(end, (key, nonce), &mut frames, &out).await?;
        Ok((frames, out))
    };
    match made.await {
        Ok((mut frames, out)) => (line.talk(end, &mut frames, out).await, true),
        Err(e) => (e, false),
    }
}

/// Who is there, whoever it is, and its TLS key.
async fn service(address: &str) -> Result<(HubServiceClient<Channel>, [u8; 32])> {
    let limits = Limits::default();
    let key = client::server_key(address, limits).await?;
    let channel = client::connect_lazy(address, key, None, limits);
    Ok((HubServiceClient::new(channel).max_decoding_message_size(HUB_FRAME_BYTES_MAX), key))
}

/// What a hub asks for, as it says.
pub struct HubSays {
    /// For payments.
    pub terms: HubTerms,
    /// For virtual channels; none if it opens none for others.
    pub virtuals: Option<VirtualTerms>,
    /// It can pay in the channel, or to the party, that was asked for.
    pub is_ready: bool,
}

/// What the hub at an address asks for, and whether it can pay in a channel, or to an address, now. Nothing proves that it is the hub: who
/// lies gets no more than what a payer agrees to. Errors: `WRONG_COMMITTEE`, `DECODE`, those of connecting.
pub async fn ask(address: &str, committee_id: &Hash, request: HubTermsRequest) -> Result<HubSays> {
    let (mut service, _) = service(address).await?;
    let reply = service.terms(request).await.map_err(from_status)?.into_inner();
    if reply.committee_id != committee_id[..] {
        let (expected, found) = (hex::encode(committee_id), hex::encode(&reply.committee_id));
        return Err(Error::expected(Code::WrongCommittee, "committee of the hub", expected, found));
    }
    let terms = reply.terms.ok_or_else(|| Error::new(Code::Decode, "the hub has no terms"))?;
    Ok(HubSays { terms, virtuals: reply.r#virtual, is_ready: reply.ready })
}

/// As [`ask`], for payments in a channel.
pub async fn terms(address: &str, committee_id: &Hash, channel: &Hash) -> Result<(HubTerms, bool)> {
    let request = HubTermsRequest { channel: Bytes::copy_from_slice(channel), party: Bytes::new() };
    ask(address, committee_id, request).await.map(|says| (says.terms, says.is_ready))
}

/// The payee of virtual channels, where it listens. Nothing proves that it is there: who is in its place can take nothing, and may say that
/// it keeps what it does not.
pub struct Payee(HubServiceClient<Channel>);

impl Payee {
    /// Connects. Errors: those of connecting.
    pub async fn connect(address: &str) -> Result<Payee> {
        service(address).await.map(|(service, _)| Payee(service))
    }

    /// Shows a payment. Gives the most that the payee says that it keeps, minor units. Errors: the payee's; `UNREACHABLE`.
    pub async fn pay(&mut self, id: &VirtualId, payment: SignedPermit) -> Result<u64> {
        match self.say(id, virtual_peer::Kind::Paid(payment)).await? {
            Some(virtual_peer::Kind::Ack(amount)) => Ok(amount),
            other => Err(Error::expected(Code::Decode, "answer of the payee", "an amount", format!("{other:?}"))),
        }
    }

    /// Asks the payee to close it. Errors: as of [`Payee::pay`].
    pub async fn close(&mut self, id: &VirtualId) -> Result<()> {
        self.say(id, virtual_peer::Kind::Close(true)).await.map(drop)
    }

    async fn say(&mut self, id: &VirtualId, kind: virtual_peer::Kind) -> Result<Option<virtual_peer::Kind>> {
        let message = VirtualPeer { id: Bytes::copy_from_slice(id), kind: Some(kind) };
        Ok(self.0.peer(message).await.map_err(from_status)?.into_inner().kind)
    }
}
