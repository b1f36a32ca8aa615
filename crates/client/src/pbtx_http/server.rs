//! The HTTP side: routes, and what one client may take.
//!
//! Each connection is a task of its own, closed when it shows no request in time; each body has a deadline and a size.
//! What is above a limit gets an HTTP error, as it was not processed.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use florin_core::limits::CONNECTIONS_MAX;
use florin_core::{Code, Error, Result};
use florin_rpc::tls;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::{Gateway, Method};

/// The one kind of body.
const OCTETS: &str = "application/octet-stream";
/// The header that says in words what was wrong.
const REASON: &str = "florin-error";
/// Bytes of it.
const REASON_MAX: usize = 512;
/// How long to wait when the process is out of file descriptors or the like.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the server gives to its clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; more are closed at once.
    pub connections: usize,
    /// Requests at a time, of all connections; more are answered 503.
    pub requests: usize,
    /// Bytes of a body: larger ones are read and hashed, and are `INVALID_CONTENT`.
    pub body: usize,
    /// Bytes of a body that is read at all; larger ones are answered 413.
    pub read: usize,
    /// For TLS, and for the head of a request from the moment that it could come.
    pub header: Duration,
    /// For the body.
    pub upload: Duration,
    /// For running requests to end, at shutdown.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: CONNECTIONS_MAX / 4,
            requests: 512,
            // The largest transaction: a body of 65,000 bytes, 8 authorities with 16 signatures of 128 bytes.
            body: 96 << 10,
            read: 1 << 20,
            header: Duration::from_secs(10),
            upload: Duration::from_secs(10),
            drain: Duration::from_secs(10),
        }
    }
}

/// Serves until `shutdown` is ready, then lets running requests end for `limits.drain`. `seed` is the key of TLS.
///
/// Errors: [`Code::BadConfig`] without a key on anything but a loopback address; [`Code::BadKey`]; [`Code::Io`].
pub async fn serve(
    listener: TcpListener,
    seed: Option<&[u8; 32]>,
    gateway: Gateway,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let local = listener.local_addr().map_err(|e| Error::new(Code::Io, format!("listener: {e}")))?;
    if seed.is_none() && !local.ip().is_loopback() {
        return Err(Error::expected(Code::BadConfig, "listener without TLS", "a loopback address", local));
    }
    let tls = seed.map(acceptor).transpose()?;
    let slots = Arc::new(Semaphore::new(limits.connections));
    let (stop, stopping) = watch::channel(());
    let server = Server { gateway, limits, requests: Arc::new(Semaphore::new(limits.requests)), tls, stopping };
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut shutdown => break,
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
        let server = server.clone();
        connections.spawn(async move {
            if let Err(e) = server.connection(socket).await {
                debug!(%remote, "{e}");
            }
            drop(slot);
        });
    }
    drop((listener, server, stop));
    let _ = timeout(limits.drain, async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

/// The worker's key, as its gRPC shows it, for HTTP/1.1.
fn acceptor(seed: &[u8; 32]) -> Result<TlsAcceptor> {
    let mut config = (*tls::server_config(seed)?).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[derive(Clone)]
struct Server {
    gateway: Gateway,
    limits: Limits,
    requests: Arc<Semaphore>,
    tls: Option<TlsAcceptor>,
    stopping: watch::Receiver<()>,
}

impl Server {
    async fn connection(self, socket: TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        match self.tls.clone() {
            None => self.http(socket).await,
            Some(tls) => {
                let stream = timeout(self.limits.header, tls.accept(socket)).await.map_err(io::Error::from)??;
                self.http(stream).await
            }
        }
    }

    async fn http(self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<()> {
        let (server, mut stopping) = (self.clone(), self.stopping.clone());
        let service = service_fn(move |request| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.respond(request).await) }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.limits.header).max_buf_size(64 << 10);
        let connection = http.serve_connection(TokioIo::new(io), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            _ = stopping.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        ended.map_err(io::Error::other)
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let method = match request.uri().path() {
            "/register_account" => Method::RegisterAccount,
            "/get_seq" => Method::GetSeq,
            "/send_transaction" => Method::SendTransaction,
            _ => return plain(StatusCode::NOT_FOUND, "no such request: see docs/pbtx-http.md\n"),
        };
        if request.method() != hyper::Method::POST {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "expected POST\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case(OCTETS) {
            return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "expected Content-Type: application/octet-stream\n");
        }
        let (hash, body) = match timeout(self.limits.upload, self.read(request.into_body())).await {
            Ok(Ok(read)) => read,
            Ok(Err(Unread::TooLarge)) => return plain(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large\n"),
            Ok(Err(Unread::Broken)) => return plain(StatusCode::BAD_REQUEST, "the request is not whole\n"),
            Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the request did not come in time\n"),
        };
        // Only now: who is slow to upload keeps nobody else waiting.
        let Ok(_slot) = self.requests.clone().try_acquire_owned() else {
            let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, "too many requests at a time\n");
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            return response;
        };
        let (answer, reason) = self.gateway.answer(method, hash, body).await;
        let mut response = Response::new(Full::new(answer.encode_to_vec().into()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OCTETS));
        if !reason.is_empty() {
            debug!(?method, "{reason}");
            let text: String =
                reason.chars().map(|c| if c.is_ascii_graphic() { c } else { ' ' }).take(REASON_MAX).collect();
            if let Ok(value) = HeaderValue::try_from(text) {
                response.headers_mut().insert(REASON, value);
            }
        }
        response
    }

    /// sha256 of the body, and the body if it has room.
    async fn read(&self, mut body: Incoming) -> std::result::Result<([u8; 32], Option<Bytes>), Unread> {
        if body.size_hint().lower() > self.limits.read as u64 {
            return Err(Unread::TooLarge);
        }
        let (mut hash, mut kept, mut length) = (Sha256::new(), BytesMut::new(), 0);
        while let Some(frame) = body.frame().await {
            // What is no data is a trailer.
            let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
            length += data.len();
            if length > self.limits.read {
                return Err(Unread::TooLarge);
            }
            hash.update(&data);
            if length <= self.limits.body {
                kept.extend_from_slice(&data);
            }
        }
        Ok((hash.finalize().into(), (length <= self.limits.body).then(|| kept.freeze())))
    }
}

enum Unread {
    TooLarge,
    Broken,
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
