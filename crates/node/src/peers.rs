//! One-way streams of the log's frames to each peer: the ordering engine's, and signatures of sessions.
//!
//! A frame for a peer that is away, or slower than we are, is lost: engine and signatures ask, or come, again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use florin_core::wire::{OrderFrame, Signed};
use florin_rpc::errors::from_status;
use florin_rpc::services::peer_service_client::PeerServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tracing::debug;

use crate::ordering::{Frames, Recipient};

/// Frames that may wait for one peer.
const QUEUE: usize = 4_096;
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(3);

/// A client of each peer; none for this authority itself.
pub type Clients = Vec<Option<PeerServiceClient<Channel>>>;

/// The streams.
pub struct Peers(Vec<Option<mpsc::Sender<OrderFrame>>>);

impl Peers {
    /// The streams, and what runs each of them, for ever.
    pub fn new(clients: Clients) -> (Arc<Peers>, Vec<impl Future<Output = ()> + Send + 'static>) {
        let (mut senders, mut runs) = (Vec::new(), Vec::new());
        for (index, client) in clients.into_iter().enumerate() {
            senders.push(client.map(|client| {
                let (sender, frames) = mpsc::channel(QUEUE);
                runs.push(run(index, client, frames));
                sender
            }));
        }
        (Arc::new(Peers(senders)), runs)
    }

    /// Sends the own signature of a session to everyone.
    pub fn send_signature(&self, session: u64, signature: &Signed) {
        let frame = OrderFrame { session, frame: Bytes::new(), signature: Some(signature.clone()) };
        self.0.iter().flatten().for_each(|peer| drop(peer.try_send(frame.clone())));
    }
}

impl Frames for Peers {
    fn send(&self, session: u64, to: Recipient, frame: Bytes) {
        let frame = OrderFrame { session, frame, signature: None };
        match to {
            Recipient::Everyone => self.0.iter().flatten().for_each(|peer| drop(peer.try_send(frame.clone()))),
            Recipient::One(to) => {
                if let Some(Some(peer)) = self.0.get(to as usize) {
                    let _ = peer.try_send(frame);
                }
            }
        }
    }
}

async fn run(index: usize, mut client: PeerServiceClient<Channel>, mut frames: mpsc::Receiver<OrderFrame>) {
    let mut delay = RETRY_MIN;
    loop {
        let (sender, stream) = mpsc::channel(16);
        match client.order(ReceiverStream::new(stream)).await {
            Ok(replies) => {
                delay = RETRY_MIN;
                let mut replies = replies.into_inner();
                loop {
                    tokio::select! {
                        frame = frames.recv() => match frame {
                            Some(frame) => if sender.send(frame).await.is_err() { break },
                            None => return,
                        },
                        // Nothing ever comes; an end is one.
                        end = replies.message() => {
                            debug!(peer = index, "the stream of frames ended: {:?}", end.err().map(from_status));
                            break;
                        }
                    }
                }
            }
            Err(e) => debug!(peer = index, "no stream of frames: {}", from_status(e)),
        }
        // What waited while nobody listened is old.
        while frames.try_recv().is_ok() {}
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY_MAX);
    }
}
