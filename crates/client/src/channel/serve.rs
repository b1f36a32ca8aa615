//! The side of a connection that is connected to.

use std::sync::Arc;

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::channel::hub::LinkState;
use florin_core::channel::manager::EndId;
use florin_core::channel::virtuals::{self, VirtualId};
use florin_core::limits::HUB_FRAME_BYTES_MAX;
use florin_core::merkle::Hash;
use florin_core::signatures::AuthorityKey;
use florin_core::wire::{HubFrame, HubTermsReply, HubTermsRequest, VirtualPeer, virtual_peer};
use florin_core::{Code, Error, Result, wire};
use florin_rpc::errors::to_status;
use florin_rpc::services::hub_service_server::{HubService, HubServiceServer};
use florin_rpc::{server, tls};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

use super::Channels;
use super::desk::Machines;
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
    virtuals: Option<wire::VirtualTerms>,
    accounts: Arc<Vec<Address>>,
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
        virtuals: channels.virtual_terms(),
        accounts: channels.accounts.clone(),
        strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
    };
    let links = service.line.links.clone();
    let shutdown = async move {
        shutdown.await;
        // Connections that are left would hold up the end.
        links.close_all();
    };
    server::serve(listener, Some(tls::server_config(&seed)?), service.routes(), server::Limits::default(), shutdown)
        .await
}

impl Service {
    fn routes(self) -> Routes {
        Routes::new(HubServiceServer::new(self).max_decoding_message_size(HUB_FRAME_BYTES_MAX))
    }

    /// The payer of a virtual channel says something. What it signs is proof enough of a payment.
    async fn said(&self, said: VirtualPeer) -> Result<VirtualPeer> {
        let id = VirtualId::try_from(&said.id[..]).map_err(|_| Error::new(Code::BadContent, "an id of 32 bytes"))?;
        let bytes = said.id.clone();
        let kind = match self.line.virtuals(virtuals::Input::Peer(said)).await? {
            virtuals::Reply::Received(many) => {
                many.into_iter().collect::<Result<Vec<u64>>>()?;
                let kept = self.line.read(move |all| all.virtuals.status(&id).map(|status| status.amount)).await??;
                virtual_peer::Kind::Ack(kept)
            }
            _ => virtual_peer::Kind::Close(true),
        };
        Ok(VirtualPeer { id: bytes, kind: Some(kind) })
    }
}

#[tonic::async_trait]
impl HubService for Service {
    async fn terms(&self, request: Request<HubTermsRequest>) -> Answer<HubTermsReply> {
        let request = request.into_inner();
        let asked = Hash::try_from(&request.channel[..]).ok();
        let (party, accounts) = (Address::from_slice(&request.party).ok(), self.accounts.clone());
        let look = move |all: &Machines| {
            let named = asked.iter().flat_map(|channel| [0, 1].map(|side| EndId { channel: *channel, side }));
            let of_party =
                party.iter().flat_map(|party| accounts.iter().filter_map(|own| all.manager.lookup(own, party)));
            let is_ready = |end: &EndId| [all.hub.link(end), all.virtuals.link(end)] == [LinkState::Ready; 2];
            named.chain(of_party).any(|end| is_ready(&end))
        };
        let ready = self.line.read(look).await.map_err(to_status)?;
        let committee_id = Bytes::copy_from_slice(&self.committee_id);
        Ok(Response::new(HubTermsReply { committee_id, terms: Some(self.terms), ready, r#virtual: self.virtuals }))
    }

    async fn peer(&self, request: Request<VirtualPeer>) -> Answer<VirtualPeer> {
        self.said(request.into_inner()).await.map(Response::new).map_err(to_status)
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

#[cfg(test)]
mod tests {
    use florin_rpc::client;
    use florin_rpc::errors::from_status;
    use florin_rpc::services::hub_service_client::HubServiceClient;

    use super::super::link::tests::line;
    use super::*;

    #[tokio::test]
    async fn a_frame_over_the_limit_is_refused() {
        let service = Service {
            line: line().0,
            key: [7; 32],
            committee_id: [7; 32],
            terms: wire::HubTerms::default(),
            virtuals: None,
            accounts: Arc::default(),
            strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(server::serve(
            listener,
            None,
            service.routes(),
            server::Limits::default(),
            std::future::pending(),
        ));
        let mut client = HubServiceClient::new(client::plain(&address, client::Limits::default()).unwrap());
        // The field's tag and length take 4 bytes.
        let mut sent = Vec::new();
        for bytes in [HUB_FRAME_BYTES_MAX, HUB_FRAME_BYTES_MAX + 1, 64 * HUB_FRAME_BYTES_MAX] {
            let said = VirtualPeer { id: vec![7; bytes - 4].into(), kind: None };
            sent.push(from_status(client.peer(said).await.unwrap_err()).code);
        }
        // No id is that long, but that is looked at only in a frame that is not too long.
        assert_eq!(sent, [Code::BadContent, Code::Limit, Code::Limit]);
    }
}
