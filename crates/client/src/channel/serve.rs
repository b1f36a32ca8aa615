//! The side of a connection that is connected to.

use std::sync::Arc;

use florin_core::channel::hub::LinkState;
use florin_core::channel::manager::EndId;
use florin_core::limits::HUB_FRAME_BYTES_MAX;
use florin_core::merkle::Hash;
use florin_core::signatures::AuthorityKey;
use florin_core::wire::{HubFrame, HubTermsReply, HubTermsRequest};
use florin_core::{Code, Error, Result, wire};
use florin_rpc::errors::to_status;
use florin_rpc::services::hub_service_server::{HubService, HubServiceServer};
use florin_rpc::{server, tls};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

use super::Channels;
use super::link::{FRAMES, Line};
use crate::keystore::new_entropy;

/// Connections on which nobody has proved anything yet.
const STRANGERS_MAX: usize = 256;

type Answer<T> = std::result::Result<Response<T>, Status>;

/// Connects the channels of a wallet with their other sides.
struct Service {
    line: Line,
    /// Own TLS key.
    key: [u8; 32],
    committee_id: Hash,
    terms: wire::HubTerms,
    strangers: Arc<Semaphore>,
}

/// Serves the other sides of a wallet's channels until `shutdown` is ready. Its TLS key is a new one: what proves who it is are the
/// keys of the channels. Errors: `IO`.
pub async fn serve(
    channels: &Channels,
    committee_id: Hash,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let seed = new_entropy::<32>()?;
    let key = AuthorityKey::from_seed(*seed).public();
    let service = Service {
        line: channels.line(),
        key: *key.as_bytes(),
        committee_id,
        terms: channels.config().terms(),
        strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
    };
    let links = service.line.links.clone();
    let mut routes = tonic::service::Routes::builder();
    routes.add_service(HubServiceServer::new(service).max_decoding_message_size(HUB_FRAME_BYTES_MAX));
    let shutdown = async move {
        shutdown.await;
        // Connections that are left would hold up the end.
        links.close_all();
    };
    server::serve(listener, Some(tls::server_config(&seed)?), routes.routes(), server::Limits::default(), shutdown)
        .await
}

#[tonic::async_trait]
impl HubService for Service {
    async fn terms(&self, request: Request<HubTermsRequest>) -> Answer<HubTermsReply> {
        let asked = Hash::try_from(&request.into_inner().channel[..]).ok();
        let is_ready = |channel, hub: &florin_core::channel::hub::Hub| {
            [0, 1].iter().any(|side| hub.link(&EndId { channel, side: *side }) == LinkState::Ready)
        };
        let look = move |hub: &_, _: &_| asked.is_some_and(|channel| is_ready(channel, hub));
        let ready = self.line.read(look).await.map_err(to_status)?;
        let committee_id = bytes::Bytes::copy_from_slice(&self.committee_id);
        Ok(Response::new(HubTermsReply { committee_id, terms: Some(self.terms), ready }))
    }

    type LinkStream = ReceiverStream<std::result::Result<HubFrame, Status>>;

    async fn link(&self, request: Request<Streaming<HubFrame>>) -> Answer<Self::LinkStream> {
        let many = |_| Error::new(Code::Busy, format!("{STRANGERS_MAX} others are about to prove who they are"));
        let stranger = self.strangers.clone().try_acquire_owned().map_err(many).map_err(to_status)?;
        let (out, stream) = mpsc::channel(FRAMES);
        let (line, key, mut frames) = (self.line.clone(), self.key, request.into_inner());
        tokio::spawn(async move {
            let welcomed = line.welcome(key, &mut frames, &out).await;
            drop(stranger);
            let why = match welcomed {
                Ok(end) => line.talk(end, &mut frames, out.clone()).await,
                Err(e) => e,
            };
            debug!("a connection has ended: {why}");
            // It may be gone, or not read.
            let _ = out.try_send(Err(to_status(why)));
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
