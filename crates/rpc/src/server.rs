//! The serving side: who may hold a connection, for how long, and who is at its other end.
//!
//! Nothing that a stranger does before its first request can hold up anyone else: handshakes run beside
//! each other, each under a deadline that also covers the first bytes of HTTP/2, and only then is a
//! connection handed to the gRPC server.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use florin_core::error::{Code, Error, Result};
use florin_core::limits;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tower::layer::util::{Identity, Stack};
use tracing::{debug, warn};

use crate::budget::Budget;
use crate::tls;

/// What every HTTP/2 client sends first.
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long to wait when the process is out of file descriptors or the like.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What one server gives to its clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time, handshakes included; more are closed at once.
    pub connections: usize,
    /// Of these, from one host (an IPv4 address, 64 bits of an IPv6 address): no one alone may shut out the others.
    pub per_host: usize,
    /// Requests at a time on one connection; more wait.
    pub requests: usize,
    /// For TLS and the first bytes of HTTP/2.
    pub handshake: Duration,
    /// From the head of a request to its answer (for a stream: to its start). One that is never sent to its end
    /// would hold memory for ever.
    pub request: Duration,
    /// For running requests to end, at shutdown.
    pub drain: Duration,
    /// Bytes of requests that are not answered and of answers that are not sent; past it: [`Code::Busy`].
    pub bytes: usize,
    /// Of these, from one host.
    pub bytes_per_host: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: limits::CONNECTIONS_MAX,
            per_host: limits::CONNECTIONS_MAX / 2,
            requests: limits::REQUESTS_PER_CONNECTION,
            handshake: Duration::from_secs(5),
            request: Duration::from_secs(60),
            drain: Duration::from_secs(5),
            bytes: limits::REQUESTS_BYTES_MAX,
            bytes_per_host: limits::REQUESTS_BYTES_MAX / 4,
        }
    }
}

/// The public key that a client proved to hold, if it showed one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerIdentity(pub Option<[u8; 32]>);

/// Who is at the other end; in the extensions of every request.
#[derive(Clone, Copy, Debug)]
pub struct ConnectInfo {
    /// Its key.
    pub peer: PeerIdentity,
    /// Its address.
    pub remote: SocketAddr,
}

/// The public key that the sender of a request proved to hold. Without TLS always none.
pub fn peer_identity<T>(request: &Request<T>) -> Option<[u8; 32]> {
    request.extensions().get::<ConnectInfo>()?.peer.0
}

/// The host that a request comes from, as it counts: an IPv4 address, or 64 bits of an IPv6 address. None in a test's own process.
pub fn host<T>(request: &Request<T>) -> Option<IpAddr> {
    Some(host_of(request.extensions().get::<ConnectInfo>()?.remote.ip()))
}

/// The services that every server adds: health (always "serving") and reflection.
pub fn extras() -> (HealthServer<impl Health>, ServerReflectionServer<impl ServerReflection>) {
    extras_with(HealthReporter::new())
}

/// [`extras`], with the health that `reporter` is told.
pub fn extras_with(
    reporter: HealthReporter,
) -> (HealthServer<impl Health>, ServerReflectionServer<impl ServerReflection>) {
    let health = HealthServer::new(HealthService::from_health_reporter(reporter));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(crate::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("a test serves these descriptors");
    (health, reflection)
}

/// Serves `routes` until `shutdown` is ready, then lets running requests end for `limits.drain` and cuts
/// off the rest. Dropping the future closes everything at once.
///
/// Errors: [`Code::BadConfig`] without `tls` on anything but a loopback address; [`Code::Io`].
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    routes: Routes,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let local = listener.local_addr().map_err(|e| Error::new(Code::Io, format!("listener: {e}")))?;
    if tls.is_none() && !local.ip().is_loopback() {
        return Err(Error::expected(Code::BadConfig, "listener without TLS", "a loopback address", local));
    }
    // Dropping `cut` ends every connection, also when this future is dropped.
    let (cut, connected) = watch::channel(());
    let (drain, draining) = oneshot::channel::<()>();
    let (ready, incoming) = mpsc::channel::<io::Result<Stream>>(16);
    let server =
        builder(&limits).add_routes(routes).serve_with_incoming_shutdown(ReceiverStream::new(incoming), async {
            let _ = draining.await;
        });
    tokio::pin!(server);
    let failed = |e: tonic::transport::Error| Error::new(Code::Io, format!("server at {local}: {e}"));
    tokio::select! {
        end = &mut server => return end.map_err(failed),
        never = accept(listener, tls, limits, ready, connected) => match never {},
        () = shutdown => {}
    }
    let _ = drain.send(());
    if let Ok(end) = timeout(limits.drain, &mut server).await {
        return end.map_err(failed);
    }
    warn!(%local, "requests still run after {} ms: cut off", limits.drain.as_millis());
    drop(cut);
    server.await.map_err(failed)
}

fn builder(limits: &Limits) -> Server<Stack<Budget, Identity>> {
    Server::builder()
        .layer(Budget::new(limits.bytes, limits.bytes_per_host))
        .timeout(limits.request)
        .concurrency_limit_per_connection(limits.requests)
        .max_concurrent_streams(u32::try_from(limits.requests).unwrap_or(u32::MAX))
        .initial_stream_window_size(crate::SERVER_WINDOW)
        .initial_connection_window_size(crate::SERVER_WINDOW)
        .http2_keepalive_interval(Some(crate::KEEPALIVE))
        .http2_keepalive_timeout(Some(crate::KEEPALIVE))
        .http2_max_header_list_size(crate::REQUEST_HEADERS_MAX)
}

/// Hands connections to the server once they have shown that they speak its language.
async fn accept(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    limits: Limits,
    ready: mpsc::Sender<io::Result<Stream>>,
    connected: watch::Receiver<()>,
) -> Infallible {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let hosts = Hosts::default();
    let mut handshakes = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = handshakes.join_next() => continue,
        };
        let (socket, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(e) => {
                warn!("accept: {e}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            debug!(%remote, "closed: {} connections are the limit", limits.connections);
            continue;
        };
        let Some(of_host) = hosts.take(remote.ip(), limits.per_host) else {
            debug!(%remote, "closed: {} connections of one host are the limit", limits.per_host);
            continue;
        };
        let slot = (slot, of_host);
        let (tls, ready, mut connected) = (tls.clone(), ready.clone(), connected.clone());
        handshakes.spawn(async move {
            let (io, peer) = match timeout(limits.handshake, handshake(socket, tls)).await {
                Ok(Ok(done)) => done,
                Ok(Err(e)) => return debug!(%remote, "handshake: {}", tls::cause(&e)),
                Err(_) => return debug!(%remote, "handshake: not done in {} ms", limits.handshake.as_millis()),
            };
            let cut = Box::pin(async move {
                // Nothing is ever sent: this ends when the sender is gone.
                let _ = connected.changed().await;
            });
            let info = ConnectInfo { peer, remote };
            let _ = ready.send(Ok(Stream { io, info, preface: &PREFACE, cut, _slot: slot })).await;
        });
    }
}

/// Who counts as one at this address.
pub(crate) fn host_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        // Whoever has one address of a network has them all.
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// Connections by host.
#[derive(Clone, Default)]
struct Hosts(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection's place among those of its host.
struct HostSlot {
    hosts: Hosts,
    host: IpAddr,
}

impl Hosts {
    fn take(&self, host: IpAddr, limit: usize) -> Option<HostSlot> {
        let host = host_of(host);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(host).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(HostSlot { hosts: self.clone(), host })
    }
}

impl Drop for HostSlot {
    fn drop(&mut self) {
        let mut counts = self.hosts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.host);
            }
        }
    }
}

async fn handshake(socket: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<(Io, PeerIdentity)> {
    socket.set_nodelay(true)?;
    let (mut io, peer) = match tls {
        None => (Io::Plain(socket), None),
        Some(config) => {
            let stream = TlsAcceptor::from(config).accept(socket).await?;
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let peer = certificate.map(tls::public_key).transpose().map_err(io::Error::other)?;
            (Io::Tls(Box::new(stream)), peer)
        }
    };
    // Whoever connects and then says nothing must not hold a slot: HTTP/2 itself would wait for ever.
    let mut preface = [0; PREFACE.len()];
    io.read_exact(&mut preface).await?;
    if preface != PREFACE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not HTTP/2"));
    }
    Ok((io, PeerIdentity(peer)))
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// One accepted connection. It takes a slot for as long as it lives.
struct Stream {
    io: Io,
    info: ConnectInfo,
    /// What was read of it already and is still to be shown to the HTTP/2 server.
    preface: &'static [u8],
    /// Ready when the connection is to end at once.
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    _slot: (OwnedSemaphorePermit, HostSlot),
}

impl Stream {
    /// Polled on every path, so that a connection stuck in reading or writing ends too.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => {
                // The finished future is not to be polled again.
                self.cut = Box::pin(std::future::ready(()));
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server shuts down"))
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl Connected for Stream {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        self.info
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        if !self.preface.is_empty() {
            let (now, later) = self.preface.split_at(self.preface.len().min(buf.remaining()));
            buf.put_slice(now);
            self.preface = later;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Io::Tls(io) => Pin::new(io).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
