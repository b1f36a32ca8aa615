//! Channels to servers: made at once, connected when first used, connected again when broken.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{future::Future, io};

use florin_core::error::{Code, Error, Result};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::tls;

/// How long the requests that queued behind a timed-out attempt to connect get its answer, instead of
/// each waiting in turn for an attempt of its own.
const ATTEMPT_PAUSE: Duration = Duration::from_secs(1);

/// How long a client waits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For TCP and TLS together. Past it: [`Code::Unreachable`].
    pub connect: Duration,
    /// From sending a request to its reply (for a stream: to its start). Past it: [`Code::Timeout`].
    pub request: Duration,
    /// Own address to connect from, if it matters.
    pub from: Option<IpAddr>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { connect: Duration::from_secs(3), request: Duration::from_secs(30), from: None }
    }
}

/// A channel to the server at `address` ("host:port") that holds the key `pinned`, as the client `own`
/// (a seed) or as nobody. Whatever is wrong, with the address too, shows at a request, as
/// [`Code::Unreachable`] once it went through [`crate::errors::from_status`].
///
/// Must be called in a tokio runtime.
pub fn connect_lazy(address: &str, pinned: [u8; 32], own: Option<&[u8; 32]>, limits: Limits) -> Channel {
    let tls = TlsConnector::from(tls::client_config(pinned, own));
    // TLS wants a name; nobody looks at it.
    let name = ServerName::from(IpAddr::from(Ipv4Addr::UNSPECIFIED));
    channel("https", address, limits, move |socket| {
        let (tls, name) = (tls.clone(), name.clone());
        async move { tls.connect(name, socket).await }
    })
}

/// The key that the server at `address` holds now, whoever it is: only a service that proves more by other means can go by it, over a
/// connection that is pinned to it. Errors: [`Code::Unreachable`].
pub async fn server_key(address: &str, limits: Limits) -> Result<[u8; 32]> {
    let failed = |why: String| Error::new(Code::Unreachable, format!("{address}: {why}"));
    let name = ServerName::from(IpAddr::from(Ipv4Addr::UNSPECIFIED));
    let attempt = async {
        let socket = TcpStream::connect(address).await?;
        let stream = TlsConnector::from(tls::client_config_of_any()).connect(name, socket).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let key = certificate.map(tls::public_key).transpose().map_err(io::Error::other)?;
        key.ok_or_else(|| io::Error::other("it has shown no certificate"))
    };
    match timeout(limits.connect, attempt).await {
        Ok(Ok(key)) => Ok(key),
        Ok(Err(e)) => Err(failed(tls::cause(&e))),
        Err(_) => Err(failed(format!("no answer within {} ms", limits.connect.as_millis()))),
    }
}

/// A channel without TLS, to a server on this machine. Must be called in a tokio runtime.
///
/// Errors: [`Code::BadConfig`] if `address` is not a loopback address or `localhost`, with a port.
pub fn plain(address: &str, limits: Limits) -> Result<Channel> {
    let host = address.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map(|(host, _)| host);
    let ip = host.and_then(|host| host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok());
    if host != Some("localhost") && !ip.is_some_and(|ip| ip.is_loopback()) {
        return Err(Error::expected(Code::BadConfig, "address without TLS", "a loopback host:port", address));
    }
    Ok(channel("http", address, limits, |socket: TcpStream| async move {
        // A resolver may send `localhost` elsewhere.
        match socket.peer_addr()?.ip() {
            ip if ip.is_loopback() => Ok(socket),
            ip => Err(io::Error::other(format!("not a loopback address: {ip}"))),
        }
    }))
}

fn channel<S, F, IO>(scheme: &str, address: &str, limits: Limits, secure: S) -> Channel
where
    S: Fn(TcpStream) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<IO>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // The URI only fills HTTP headers: the connector goes by `address`, and complains if that is no good.
    let mut endpoint = Endpoint::from_static("http://florin")
        .timeout(limits.request)
        .http2_keep_alive_interval(crate::KEEPALIVE)
        .keep_alive_timeout(crate::KEEPALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(crate::STREAM_WINDOW)
        .initial_connection_window_size(crate::CONNECTION_WINDOW)
        .http2_max_header_list_size(crate::REPLY_HEADERS_MAX);
    if let Ok(origin) = format!("{scheme}://{address}").parse() {
        endpoint = endpoint.origin(origin);
    }
    let address: Arc<str> = address.into();
    let timed_out = Arc::new(Mutex::new(None));
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        connect(address.clone(), limits, secure.clone(), timed_out.clone())
    }))
}

async fn connect<S, F, IO>(
    address: Arc<str>,
    limits: Limits,
    secure: S,
    timed_out: Arc<Mutex<Option<Instant>>>,
) -> Result<TokioIo<IO>>
where
    S: Fn(TcpStream) -> F,
    F: Future<Output = io::Result<IO>>,
{
    let limit = limits.connect;
    let too_slow = || Error::new(Code::Unreachable, format!("{address}: no answer within {} ms", limit.as_millis()));
    let last = *timed_out.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_some_and(|at| at.elapsed() < ATTEMPT_PAUSE) {
        return Err(too_slow());
    }
    let attempt = async {
        let socket = connect_from(&address, limits.from).await?;
        socket.set_nodelay(true)?;
        secure(socket).await
    };
    match timeout(limit, attempt).await {
        Ok(Ok(io)) => Ok(TokioIo::new(io)),
        Ok(Err(e)) => Err(Error::new(Code::Unreachable, format!("{address}: {}", tls::cause(&e)))),
        Err(_) => {
            *timed_out.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            Err(too_slow())
        }
    }
}

async fn connect_from(address: &str, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let Some(from) = from else { return TcpStream::connect(address).await };
    let to = lookup_host(address).await?.find(|to| to.is_ipv4() == from.is_ipv4()).ok_or(io::ErrorKind::NotFound)?;
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}
