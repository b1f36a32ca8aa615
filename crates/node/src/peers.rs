//! One-way streams of the log's frames to each peer: the ordering engine's, and signatures of sessions.
//!
//! A frame for a peer that is away, or slower than we are, is lost: engine and signatures ask, or come, again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use florin_core::wire::{OrderFrame, Signed};
use florin_rpc::errors::from_status;
use florin_rpc::services::peer_service_client::PeerServiceClient;
use futures::Stream;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
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

/// What waits for a peer. Frames go from here into the stream that is open, without a task in between: there are
/// authorities^2 of them every few milliseconds.
struct Waiting {
    frames: Mutex<mpsc::Receiver<OrderFrame>>,
    /// Streams that were opened: an older one, not yet gone, takes nothing and wakes nobody.
    streams: AtomicU64,
}

async fn run(index: usize, mut client: PeerServiceClient<Channel>, frames: mpsc::Receiver<OrderFrame>) {
    let waiting = Arc::new(Waiting { frames: Mutex::new(frames), streams: AtomicU64::new(0) });
    let mut delay = RETRY_MIN;
    loop {
        match client.order(stream(&waiting)).await {
            Ok(replies) => {
                delay = RETRY_MIN;
                // Nothing ever comes; an end is one.
                let end = replies.into_inner().message().await;
                debug!(peer = index, "the stream of frames ended: {:?}", end.err().map(from_status));
            }
            Err(e) => debug!(peer = index, "no stream of frames: {}", from_status(e)),
        }
        waiting.streams.fetch_add(1, Ordering::SeqCst);
        // What waited while nobody listened is old.
        loop {
            match waiting.lock().try_recv() {
                Ok(_) => {}
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY_MAX);
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, mpsc::Receiver<OrderFrame>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stream(waiting: &Arc<Waiting>) -> impl Stream<Item = OrderFrame> + Send + use<> {
    let waiting = waiting.clone();
    let number = waiting.streams.fetch_add(1, Ordering::SeqCst) + 1;
    futures::stream::poll_fn(move |cx| {
        let mut frames = waiting.lock();
        match waiting.streams.load(Ordering::SeqCst) == number {
            true => frames.poll_recv(cx),
            false => Poll::Ready(None),
        }
    })
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;

    #[test]
    fn a_stream_that_is_over_takes_nothing_from_the_next() {
        let (sender, frames) = mpsc::channel(4);
        let waiting = Arc::new(Waiting { frames: Mutex::new(frames), streams: AtomicU64::new(0) });
        let frame = |session| OrderFrame { session, frame: Bytes::new(), signature: None };
        let mut first = stream(&waiting);
        sender.try_send(frame(1)).unwrap();
        assert_eq!(first.next().now_or_never(), Some(Some(frame(1))));
        assert_eq!(first.next().now_or_never(), None, "it waits");
        let mut second = stream(&waiting);
        sender.try_send(frame(2)).unwrap();
        assert_eq!(first.next().now_or_never(), Some(None), "it has ended");
        assert_eq!(second.next().now_or_never(), Some(Some(frame(2))));
        drop(sender);
        assert_eq!(second.next().now_or_never(), Some(None));
    }
}
