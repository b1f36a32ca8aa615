//! Connections: their queues, what is in hand, and how long a stranger may stay.

use std::collections::VecDeque;

use florin_core::address::Address;
use florin_core::channel::manager::Signer;
use florin_core::channel::voucher::Voucher;
use florin_core::wire::{self, HubMessage, HubTermsReply, HubTermsRequest, VirtualPeer};
use florin_rpc::services::hub_service_client::HubServiceClient;
use florin_rpc::services::hub_service_server::{HubService, HubServiceServer};
use florin_rpc::{client, server};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response};

use super::*;

struct Nobody;

fn unsigned<T>() -> Result<T> {
    Err(Error::new(Code::NotAParty, "nobody signs"))
}

impl Signer for Nobody {
    fn voucher(&self, _: &Address, _: wire::Voucher, _: u32) -> Result<Voucher> {
        unsigned()
    }
    fn withdraw(&self, _: &Address, _: &wire::WithdrawPermit) -> Result<wire::SignedPermit> {
        unsigned()
    }
    fn watch(&self, _: &Address, _: &wire::WatchPermit) -> Result<wire::SignedPermit> {
        unsigned()
    }
}

impl VirtualSigner for Nobody {
    fn virtual_amount(&self, _: &Bytes, _: &wire::VirtualAmount) -> Result<wire::SignedPermit> {
        unsigned()
    }
}

/// Channels that the test is, and what connections say to them.
pub fn line() -> (Line, mpsc::UnboundedSender<Command>, mpsc::UnboundedReceiver<Command>) {
    let (to, from) = mpsc::unbounded_channel();
    (Line { to: to.downgrade(), links: Links::default(), signer: Arc::new(Nobody) }, to, from)
}

fn message() -> hub_frame::Kind {
    hub_frame::Kind::Message(HubMessage::default())
}

#[tokio::test]
async fn who_does_not_take_what_is_said_is_cut_off_and_a_newer_connection_takes_the_place_of_an_older_one() {
    let (links, end) = (Links::default(), EndId { channel: [1; 32], side: 0 });
    links.send(&end, 1, message());
    let (first, _messages, cut) = links.open(end);
    for _ in 0..HUB_QUEUE_MAX {
        links.send(&end, first, message());
    }
    assert!(links.state().open.contains_key(&end));
    links.send(&end, first, message());
    assert!(cut.await.is_err() && !links.state().open.contains_key(&end));
    let (second, mut messages, cut) = links.open(end);
    // The end of the first one is not the end of the second.
    assert!(!links.close(&end, first));
    // Nor does what was to be said over it go over the second.
    links.send(&end, first, message());
    assert!(messages.try_recv().is_err());
    links.send(&end, second, message());
    links.finish(&end);
    links.send(&end, second, message());
    // What was said before it goes out, and then nothing more.
    assert!(messages.recv().await.is_some() && messages.recv().await.is_none());
    let (third, _messages, _cut) = links.open(end);
    assert!(cut.await.is_err());
    assert!(!links.close(&end, second) && links.close(&end, third));
}

/// Gives away the frames of who connects.
struct Caught(mpsc::UnboundedSender<Streaming<HubFrame>>);

type Answer<T> = std::result::Result<Response<T>, Status>;

#[tonic::async_trait]
impl HubService for Caught {
    async fn terms(&self, _: Request<HubTermsRequest>) -> Answer<HubTermsReply> {
        Ok(Response::new(HubTermsReply::default()))
    }

    async fn peer(&self, _: Request<VirtualPeer>) -> Answer<VirtualPeer> {
        Ok(Response::new(VirtualPeer::default()))
    }

    type LinkStream = ReceiverStream<std::result::Result<HubFrame, Status>>;

    async fn link(&self, request: Request<Streaming<HubFrame>>) -> Answer<Self::LinkStream> {
        self.0.send(request.into_inner()).map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(mpsc::channel(1).1)))
    }
}

#[tokio::test]
async fn no_more_is_heard_than_can_be_in_hand() {
    const SENT: usize = 4 * HUB_IN_HAND_MAX;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (catch, mut caught) = mpsc::unbounded_channel();
    let routes = Routes::new(HubServiceServer::new(Caught(catch)));
    tokio::spawn(server::serve(listener, None, routes, server::Limits::default(), std::future::pending()));
    let mut service = HubServiceClient::new(client::plain(&address, client::Limits::default()).unwrap());
    let frames = vec![HubFrame { kind: Some(message()) }; SENT];
    service.link(tokio_stream::iter(frames)).await.unwrap();
    let mut frames = caught.recv().await.unwrap();
    let (line, _to, mut heard) = line();
    tokio::spawn(async move { line.listen(EndId { channel: [1; 32], side: 0 }, &mut frames).await });
    let slot = |command| match command {
        Command::Tell(_, Some(slot)) => slot,
        _ => panic!("a message that takes a place"),
    };
    let mut in_hand = VecDeque::new();
    for _ in 0..HUB_IN_HAND_MAX {
        in_hand.push_back(slot(heard.recv().await.unwrap()));
    }
    // All is there: what is asked later over the same connection is answered.
    service.terms(HubTermsRequest::default()).await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(heard.try_recv().is_err());
    for _ in HUB_IN_HAND_MAX..SENT {
        in_hand.pop_front();
        in_hand.push_back(slot(heard.recv().await.unwrap()));
        assert!(heard.try_recv().is_err());
    }
}

/// By a clock that stands still as long as there is something to do.
#[tokio::test(start_paused = true)]
async fn who_does_not_prove_in_time_who_it_is_is_cut_off() {
    let limit = Duration::from_millis(HUB_PROOF_MS);
    let prove = |after: Duration| {
        in_time(async move {
            tokio::time::sleep(after).await;
            Ok(())
        })
    };
    let step = Duration::from_millis(2);
    prove(limit - step).await.unwrap();
    for after in [limit + step, 64 * limit] {
        let began = Instant::now();
        assert_eq!(prove(after).await.unwrap_err().code, Code::Timeout);
        assert!(began.elapsed() < limit + step);
    }
}
