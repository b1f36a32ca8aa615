//! Memory that requests hold: what has come of each until it is answered, and what of its answer is not sent yet. One
//! budget for all that a server serves, and a share of it for each host: past either a request ends with `BUSY`, so
//! that who sends much and never ends, or asks for much and never reads, fills no memory and shuts out nobody else.
//!
//! Nothing waits for room: bytes that wait would be memory too.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use florin_core::error::{Code, Error};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tower::Layer;

use crate::errors::to_status;
use crate::server::{ConnectInfo, host_of};

/// Bytes that a request counts for at least.
const REQUEST_COST: usize = 4 << 10;
/// Bytes of an answer that are not worth counting.
const SMALL: usize = 1 << 10;
/// Bytes before each message of gRPC: whether it is compressed, and its length.
const HEAD: usize = 5;

/// What is held, by whom, and how much may be.
#[derive(Clone)]
pub(crate) struct Budget {
    held: Arc<Mutex<Held>>,
    all: usize,
    per_host: usize,
}

#[derive(Default)]
struct Held {
    all: usize,
    hosts: HashMap<IpAddr, usize>,
}

impl Budget {
    /// Bytes in all, and of one host.
    pub(crate) fn new(all: usize, per_host: usize) -> Budget {
        Budget { held: Arc::default(), all, per_host }
    }

    fn take(&self, host: IpAddr, bytes: usize) -> Result<(), Status> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, of_host) = (held.all + bytes, held.hosts.get(&host).copied().unwrap_or(0) + bytes);
        let busy =
            |what: &str, most: usize, found: usize| Err(to_status(Error::expected(Code::Busy, what, most, found)));
        if of_host > self.per_host {
            return busy("bytes of requests in hand of one host", self.per_host, of_host);
        }
        if all > self.all {
            return busy("bytes of requests in hand of all clients", self.all, all);
        }
        held.all = all;
        held.hosts.insert(host, of_host);
        Ok(())
    }

    fn give(&self, host: IpAddr, bytes: usize) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.all -= bytes;
        if let Some(of_host) = held.hosts.get_mut(&host) {
            *of_host -= bytes;
            if *of_host == 0 {
                held.hosts.remove(&host);
            }
        }
    }
}

/// What one request, or a piece of an answer, holds; given back when it is dropped.
struct Holding {
    budget: Budget,
    host: IpAddr,
    bytes: AtomicUsize,
    /// What comes from now on is a stream, whose messages are taken one by one.
    answered: AtomicBool,
}

impl Holding {
    fn new(budget: &Budget, host: IpAddr, bytes: usize) -> Result<Holding, Status> {
        budget.take(host, bytes)?;
        Ok(Holding { budget: budget.clone(), host, bytes: AtomicUsize::new(bytes), answered: AtomicBool::new(false) })
    }

    fn grow(&self, bytes: usize) -> Result<(), Status> {
        self.budget.take(self.host, bytes)?;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn shrink(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.give(self.host, bytes);
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.budget.give(self.host, self.bytes.load(Ordering::Relaxed));
    }
}

impl<S> Layer<S> for Budget {
    type Service = Within<S>;

    fn layer(&self, inner: S) -> Within<S> {
        Within { budget: self.clone(), inner }
    }
}

/// A service within a budget.
#[derive(Clone)]
pub(crate) struct Within<S> {
    budget: Budget,
    inner: S,
}

impl<S> Service<Request<Body>> for Within<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // Without an address it is a test's, in this process.
        let Some(info) = request.extensions().get::<ConnectInfo>() else { return Box::pin(self.inner.call(request)) };
        let host = host_of(info.remote.ip());
        let holding = match Holding::new(&self.budget, host, REQUEST_COST) {
            Ok(holding) => Arc::new(holding),
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        let counted = |inner| Body::new(Incoming { inner, holding: holding.clone(), message: Message::default() });
        let answer = self.inner.call(request.map(counted));
        let budget = self.budget.clone();
        Box::pin(async move {
            let response = answer.await?;
            holding.answered.store(true, Ordering::Relaxed);
            drop(holding);
            Ok(response.map(|inner| Body::new(Outgoing { inner, budget, host })))
        })
    }
}

/// Where a stream of bytes is among its messages.
#[derive(Default)]
struct Message {
    head: [u8; HEAD],
    has: usize,
    /// Bytes of the message that are still to come, once its head is there.
    left: usize,
    /// Of messages that are whole.
    whole: usize,
}

impl Message {
    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.has < HEAD {
                let (now, rest) = bytes.split_at(bytes.len().min(HEAD - self.has));
                self.head[self.has..self.has + now.len()].copy_from_slice(now);
                self.has += now.len();
                self.whole += now.len();
                bytes = rest;
                let [_, length @ ..] = self.head;
                self.left = u32::from_be_bytes(length) as usize;
            } else {
                let (now, rest) = bytes.split_at(bytes.len().min(self.left));
                self.left -= now.len();
                self.whole += now.len();
                bytes = rest;
            }
            if self.has == HEAD && self.left == 0 {
                self.has = 0;
            }
        }
    }

    /// Bytes of whole messages that came since the last time, if no other has begun.
    fn taken(&mut self) -> usize {
        if self.has == 0 { std::mem::take(&mut self.whole) } else { 0 }
    }
}

/// A request's body, counted as it comes.
struct Incoming {
    inner: Body,
    holding: Arc<Holding>,
    message: Message,
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.holding.answered.load(Ordering::Relaxed) {
            // Whoever reads a stream has taken what came before.
            let taken = self.message.taken();
            self.holding.shrink(taken);
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.holding.grow(data.len())?;
            self.message.pass(data);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer's body: each piece counts until it has left.
struct Outgoing {
    inner: Body,
    budget: Budget,
    host: IpAddr,
}

/// A piece that gives back its bytes.
struct Piece {
    bytes: Bytes,
    _holding: Holding,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            end => return Poll::Ready(end),
        };
        let bytes = match frame.into_data() {
            Ok(bytes) if bytes.len() > SMALL => bytes,
            Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Err(other) => return Poll::Ready(Some(Ok(other))),
        };
        Poll::Ready(Some(Ok(match Holding::new(&self.budget, self.host, bytes.len()) {
            Ok(holding) => Frame::data(Bytes::from_owner(Piece { bytes, _holding: holding })),
            Err(status) => {
                // The answer ends as one that failed.
                self.inner = Body::empty();
                Frame::trailers(status.into_http::<()>().into_parts().0.headers)
            }
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_share_and_all_have_no_more_than_there_is() {
        let (budget, [one, two]) = (Budget::new(100, 60), ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap()));
        let first = Holding::new(&budget, one, 60).unwrap();
        assert!(Holding::new(&budget, one, 1).is_err_and(|status| status.message().contains("one host")));
        let second = Holding::new(&budget, two, 30).unwrap();
        second.grow(10).unwrap();
        assert!(second.grow(1).is_err_and(|status| status.message().contains("all clients")));
        first.shrink(59);
        second.grow(20).unwrap();
        drop((first, second));
        let held = budget.held.lock().unwrap();
        assert_eq!((held.all, held.hosts.len()), (0, 0));
    }

    /// A body of these pieces.
    struct Pieces(std::vec::IntoIter<Bytes>);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
        }
    }

    /// A stream of messages may go on for ever once it is answered; before, all of it counts.
    #[tokio::test]
    async fn a_stream_holds_one_message_at_a_time() {
        let message = Bytes::from([&[0, 0, 0, 0, 95][..], &[7; 95]].concat());
        for answered in [true, false] {
            let budget = Budget::new(250, 250);
            let holding = Arc::new(Holding::new(&budget, IpAddr::from([10, 0, 0, 1]), 0).unwrap());
            holding.answered.store(answered, Ordering::Relaxed);
            let inner = Body::new(Pieces(vec![message.clone(); 50].into_iter()));
            let mut body = Incoming { inner, holding, message: Message::default() };
            let mut passed = 0;
            while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                passed += 1;
            }
            assert_eq!(passed, if answered { 50 } else { 2 });
        }
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let stream = [&[0, 0, 0, 0, 3, 1, 2, 3][..], &[0, 0, 0, 0, 0], &[0, 0, 0, 0, 1, 9]].concat();
        for cut in 1..=stream.len() {
            let mut message = Message::default();
            let mut taken = 0;
            for piece in stream.chunks(cut) {
                message.pass(piece);
                taken += message.taken();
            }
            assert_eq!(taken, stream.len(), "in pieces of {cut}");
            message.pass(&[0, 0]);
            assert_eq!(message.taken(), 0);
        }
    }
}
