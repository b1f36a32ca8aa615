//! `/metrics` for Prometheus and `/health` for load balancers, over plain HTTP.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tracing::{debug, error};

use crate::metrics;
use crate::service::Services;

/// Connections at a time.
const CONNECTIONS: usize = 64;
/// Of one connection: who never finishes a request holds its place no longer.
const LIFETIME: Duration = Duration::from_secs(60);

/// Serves until dropped.
pub async fn serve(listener: TcpListener, services: Services) {
    // A connection lives as long as its client likes, also after this future; it must not hold the shards,
    // which end only when nobody does.
    let services = Arc::new(services);
    let page = |page: fn(&Services) -> Response| {
        let services = Arc::downgrade(&services);
        get(move || std::future::ready(answer(&services, page)))
    };
    let app = Router::new().route("/metrics", page(metrics_page)).route("/health", page(health));
    let listener = Capped { listener, slots: Arc::new(Semaphore::new(CONNECTIONS)) };
    if let Err(e) = axum::serve(listener, app).await {
        error!("http: {e}");
    }
}

/// Closes connections above [`CONNECTIONS`] at once.
struct Capped {
    listener: TcpListener,
    slots: Arc<Semaphore>,
}

impl Listener for Capped {
    type Io = Held;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Held, SocketAddr) {
        loop {
            let (stream, remote) = Listener::accept(&mut self.listener).await;
            match self.slots.clone().try_acquire_owned() {
                Ok(slot) => return (Held { stream, end: Box::pin(sleep(LIFETIME)), _slot: slot }, remote),
                Err(_) => debug!(%remote, "http: closed: {CONNECTIONS} connections are the limit"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends after [`LIFETIME`], whatever its client does.
struct Held {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _slot: OwnedSemaphorePermit,
}

impl Held {
    fn in_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Held {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn answer(services: &Weak<Services>, page: fn(&Services) -> Response) -> Response {
    match services.upgrade() {
        Some(services) => page(&services),
        None => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response(),
    }
}

fn metrics_page(services: &Services) -> Response {
    match metrics::text(services) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

/// 200 if every shard here votes; 503 with the reason if one does not.
fn health(services: &Services) -> Response {
    let mut reasons = String::new();
    for (number, shard) in services.shards.iter() {
        if let Some(reason) = shard.why_silent() {
            reasons += &format!("shard {number}: {reason}\n");
        }
    }
    match reasons.is_empty() {
        true => (StatusCode::OK, "ok\n").into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, reasons).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use florin_core::authority::Authority;
    use florin_core::testing::TestCommittee;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::shard::Shard;
    use crate::storage::Store;

    /// A stopping authority does not wait for those who connect and never finish their request.
    #[tokio::test]
    async fn half_a_request_does_not_hold_up_the_end() {
        let (committee, keys) = TestCommittee::default().build();
        let dir = tempfile::TempDir::new().unwrap();
        let store = Store::open(dir.path(), 0, *committee.id(), 0, true).unwrap();
        let authority = Authority::new(committee.clone(), 0, 0, keys[0].clone());
        let (shard, threads) = Shard::start(authority, store, Default::default()).unwrap();
        let (_stop, stopping) = tokio::sync::watch::channel(false);
        let shards = Arc::new(BTreeMap::from([(0, shard)]));
        let services = Services {
            shards,
            committee,
            index: 0,
            rebuilt: false,
            watchers: Arc::new(tokio::sync::Semaphore::new(1)),
            listeners: Arc::new(tokio::sync::Semaphore::new(1)),
            lags: Arc::default(),
            door: Arc::default(),
            stopping,
            mint: tokio::sync::watch::channel(None).1,
            log: None,
            log_elsewhere: None,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, services));

        let mut stuck = TcpStream::connect(address).await.unwrap();
        stuck.write_all(b"GET /he").await.unwrap();
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(b"GET /health HTTP/1.1\r\nhost: florin\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok\n") {
            assert!(connection.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
        }
        server.abort();
        let _ = server.await;
        let end = tokio::task::spawn_blocking(move || threads.join());
        tokio::time::timeout(Duration::from_secs(10), end).await.expect("the threads end").unwrap();
    }

    #[tokio::test]
    async fn connections_above_the_limit_are_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut capped = Capped { listener, slots: Arc::new(Semaphore::new(1)) };
        let _first = TcpStream::connect(address).await.unwrap();
        let (held, _) = capped.accept().await;
        let mut second = TcpStream::connect(address).await.unwrap();
        tokio::select! {
            read = second.read_u8() => assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof),
            _ = capped.accept() => panic!("two at a time"),
        }
        drop(held);
        let _third = TcpStream::connect(address).await.unwrap();
        capped.accept().await;
    }

    /// Also one that sends and reads nothing makes room.
    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut capped = Capped { listener, slots: Arc::new(Semaphore::new(1)) };
        let _silent = TcpStream::connect(address).await.unwrap();
        let (mut held, _) = capped.accept().await;
        assert_eq!(held.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
