//! What a stranger can do to an authority: hold connections, hold requests, and hand in work that comes to nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use florin_core::committee::Committee;
use florin_core::limits::{CERTIFICATES_BYTES_MAX, MESSAGE_BYTES_MAX, ORDERS_PER_BATCH_MAX};
use florin_core::testing::{Signer, spoil, to};
use florin_core::{Code, Error, Result, wire};
use florin_rpc::client::{Limits, connect_lazy};
use florin_rpc::services::authority_service_client::AuthorityServiceClient;
use florin_rpc::tls;
use hyper::body::{Body, Frame};
use prost::Message as _;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tonic::client::GrpcService as _;

/// Orders of the attacker's batches.
pub const BATCH: usize = ORDERS_PER_BATCH_MAX;
/// Batches that the attacker keeps at each authority.
pub const IN_FLIGHT: usize = 4;
/// Requests of one order that he keeps at each.
pub const SINGLES: usize = 256;
/// Between two bytes of who is slow.
const PACE: Duration = Duration::from_millis(500);
/// Requests that are never sent to their end: connections at each authority, and on each.
pub const HALF_CONNECTIONS: usize = 16;
pub const HALF_REQUESTS: usize = 64;
/// Bytes of each that are sent at once.
const HALF_BYTES: usize = MESSAGE_BYTES_MAX - 64;
/// Hosts that attack, one each: other ones than honest clients', and what one owes is not the next one's.
const FROM: [u8; 3] = [127, 0, 66];

/// An attack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Kind {
    /// None, to compare
    None,
    /// Connections that say nothing
    Silent,
    /// TLS a byte at a time
    HalfTls,
    /// Connections that are level and idle
    Idle,
    /// Requests that never end
    HalfRequests,
    /// Batches at the limit of accounts without money
    HugeBatches,
    /// Batches at the limit with bad signatures
    BadSignatures,
    /// Single orders with bad signatures
    BadSingles,
}

impl Kind {
    fn from(self) -> IpAddr {
        let [a, b, c] = FROM;
        IpAddr::V4(Ipv4Addr::new(a, b, c, 1 + self as u8))
    }
}

/// All, with a name and what it is.
pub const ATTACKS: [(Kind, &str, &str); 8] = [
    (Kind::None, "none", "nothing else goes on"),
    (Kind::Silent, "silent", "TCP connections that say nothing, made again when they are closed"),
    (Kind::HalfTls, "half TLS", "a handshake a byte at a time, again and again"),
    (Kind::Idle, "idle", "HTTP/2 connections that only say that they live"),
    (Kind::HalfRequests, "half requests", "1,024 requests of 4 MiB that are never sent to their end"),
    (Kind::HugeBatches, "huge batches", "4 at a time of 4,096 orders and nearly 4 MiB, of accounts without money"),
    (
        Kind::BadSignatures,
        "bad signatures",
        "4 at a time of 4,096 orders, of accounts with money, none signed by its owner",
    ),
    (Kind::BadSingles, "bad singles", "256 at a time of one such order"),
];

/// Whom it is about, and what is prepared.
pub struct Besieged {
    committee: Arc<Committee>,
    attacked: usize,
    connections: usize,
    huge: Vec<Bytes>,
    bad: Vec<Bytes>,
}

/// Goes on until dropped.
pub struct Attack {
    deeds: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Attack {
    /// Connections made, or requests sent.
    pub fn deeds(&self) -> u64 {
        self.deeds.load(Ordering::Relaxed)
    }
}

impl Besieged {
    /// The first `attacked` authorities; `rich` are accounts with money that nobody uses.
    pub fn new(committee: Arc<Committee>, attacked: usize, connections: usize, rich: &[Signer]) -> Besieged {
        let outputs: Vec<_> = rich.iter().take(14).map(|s| to(s.address, 1)).collect();
        let mut huge = Vec::with_capacity(BATCH);
        let mut bytes = 0;
        for number in (10_000_000..).take(BATCH) {
            let order = Signer::new(number).in_network(committee.network.id).pay(&outputs, "");
            bytes += order.len() + 8;
            if bytes > MESSAGE_BYTES_MAX - 64 {
                break;
            }
            huge.push(order);
        }
        let bad = rich.iter().take(BATCH).map(|s| spoil(&s.clone().pay(&[to(rich[0].address, 1)], ""))).collect();
        Besieged { committee, attacked, connections, huge, bad }
    }

    /// Begins one. Returns once all connections are there, if it is they who attack.
    pub async fn attack(&self, kind: Kind) -> Result<Attack> {
        let (deeds, mut tasks) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
        for authority in 0..self.attacked {
            match kind {
                Kind::None => {}
                Kind::Silent | Kind::HalfTls => {
                    let hello = if kind == Kind::HalfTls { self.hello(authority)? } else { Vec::new() };
                    for _ in 0..self.connections {
                        let address = self.committee.authorities[authority].addresses[0].clone();
                        tasks.spawn(drip(address, kind.from(), hello.clone(), deeds.clone()));
                    }
                }
                Kind::Idle => {
                    for _ in 0..self.connections {
                        tasks.spawn(self.idle(authority, kind.from()).await?);
                        deeds.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Kind::HalfRequests => {
                    let half_message = half_message();
                    for _ in 0..HALF_CONNECTIONS {
                        let channel = self.channel(authority, kind.from());
                        for _ in 0..HALF_REQUESTS {
                            tasks.spawn(half(channel.clone(), half_message.clone(), deeds.clone()));
                        }
                    }
                }
                Kind::HugeBatches => {
                    flood(self.channel(authority, kind.from()), IN_FLIGHT, |_| self.huge.clone(), &deeds, &mut tasks)
                }
                Kind::BadSignatures => {
                    flood(self.channel(authority, kind.from()), IN_FLIGHT, |_| self.bad.clone(), &deeds, &mut tasks)
                }
                Kind::BadSingles => {
                    flood(
                        self.channel(authority, kind.from()),
                        SINGLES,
                        |i| vec![self.bad[i].clone()],
                        &deeds,
                        &mut tasks,
                    );
                }
            }
        }
        let by_connections = matches!(kind, Kind::Silent | Kind::HalfTls);
        while by_connections && deeds.load(Ordering::Relaxed) < (self.attacked * self.connections) as u64 {
            sleep(Duration::from_millis(10)).await;
        }
        Ok(Attack { deeds, _tasks: tasks })
    }

    fn channel(&self, authority: usize, from: IpAddr) -> tonic::transport::Channel {
        let info = &self.committee.authorities[authority];
        let limits = Limits { connect: Duration::from_secs(60), request: Duration::from_secs(600), from: Some(from) };
        connect_lazy(&info.addresses[0], *info.key.as_bytes(), None, limits)
    }

    /// The first message of a TLS handshake.
    fn hello(&self, authority: usize) -> Result<Vec<u8>> {
        let failed = |e: String| Error::new(Code::Io, format!("a TLS hello: {e}"));
        let config = tls::client_config(*self.committee.authorities[authority].key.as_bytes(), None);
        let mut connection = rustls::ClientConnection::new(config, server_name()).map_err(|e| failed(e.to_string()))?;
        let mut hello = Vec::new();
        connection.write_tls(&mut hello).map_err(|e| failed(e.to_string()))?;
        Ok(hello)
    }

    /// A connection of HTTP/2 that stays; what keeps it answers the server's pings.
    async fn idle(&self, authority: usize, from: IpAddr) -> Result<impl Future<Output = ()> + Send + 'static> {
        let info = &self.committee.authorities[authority];
        let failed = |e: std::io::Error| Error::new(Code::Unreachable, format!("{}: {e}", info.addresses[0]));
        let socket = connect(&info.addresses[0], from).await.map_err(failed)?;
        let connector = TlsConnector::from(tls::client_config(*info.key.as_bytes(), None));
        let mut stream = connector.connect(server_name(), socket).await.map_err(failed)?;
        // The preface, and no settings.
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.map_err(failed)?;
        Ok(async move {
            let _ = answer_pings(&mut stream).await;
        })
    }
}

/// Asks for votes on the same orders again and again.
fn flood(
    channel: tonic::transport::Channel,
    in_flight: usize,
    orders: impl Fn(usize) -> Vec<Bytes>,
    deeds: &Arc<AtomicU64>,
    tasks: &mut JoinSet<()>,
) {
    let limit = MESSAGE_BYTES_MAX + CERTIFICATES_BYTES_MAX;
    let client = AuthorityServiceClient::new(channel).max_encoding_message_size(limit);
    for i in 0..in_flight {
        let (mut client, orders, deeds) = (client.clone(), orders(i), deeds.clone());
        tasks.spawn(async move {
            loop {
                deeds.fetch_add(1, Ordering::Relaxed);
                let reply = client.vote(wire::VoteRequest { shard: 0, orders: orders.clone() }).await;
                // Whoever is refused at once would only burn this machine's own time.
                if reply.is_err() {
                    sleep(Duration::from_millis(5)).await;
                }
            }
        });
    }
}

fn server_name() -> ServerName<'static> {
    ServerName::from(IpAddr::from(Ipv4Addr::UNSPECIFIED))
}

async fn connect(address: &str, from: IpAddr) -> std::io::Result<TcpStream> {
    let to = tokio::net::lookup_host(address).await?.next().ok_or(std::io::ErrorKind::NotFound)?;
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// Connects, says this a byte at a time, waits to be closed, and comes again.
async fn drip(address: String, from: IpAddr, words: Vec<u8>, deeds: Arc<AtomicU64>) {
    loop {
        let Ok(mut socket) = connect(&address, from).await else {
            sleep(PACE).await;
            continue;
        };
        deeds.fetch_add(1, Ordering::Relaxed);
        let (mut from, mut to) = socket.split();
        let write = async {
            for byte in &words {
                if to.write_all(&[*byte]).await.is_err() {
                    return;
                }
                sleep(PACE).await;
            }
            std::future::pending::<()>().await;
        };
        let mut heard = [0; 1_024];
        let read = async { while from.read(&mut heard).await.is_ok_and(|n| n > 0) {} };
        tokio::select! {
            () = write => {}
            () = read => {}
        }
    }
}

/// Says that it lives, as HTTP/2 wants, until the connection ends.
async fn answer_pings(stream: &mut tokio_rustls::client::TlsStream<TcpStream>) -> std::io::Result<()> {
    const PING: u8 = 6;
    let mut head = [0; 9];
    loop {
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        if head[3] == PING && head[4] & 1 == 0 {
            head[4] = 1;
            stream.write_all(&[&head[..], &payload].concat()).await?;
            stream.flush().await?;
        }
    }
}

/// A request that says it has so many bytes, sends nearly all, and then one now and then.
async fn half(mut channel: tonic::transport::Channel, half_message: Bytes, deeds: Arc<AtomicU64>) {
    loop {
        deeds.fetch_add(1, Ordering::Relaxed);
        if std::future::poll_fn(|cx| channel.poll_ready(cx)).await.is_ok() {
            let _ = channel.call(http_request(half_message.clone())).await;
        }
        sleep(PACE).await;
    }
}

/// Nearly all of a message that is as long as may be.
fn half_message() -> Bytes {
    let vote = wire::VoteRequest { shard: 0, orders: vec![vec![1; MESSAGE_BYTES_MAX - 16].into()] };
    let message = vote.encode_to_vec();
    let mut framed = BytesMut::with_capacity(HALF_BYTES);
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.extend_from_slice(&message[..HALF_BYTES - 5]);
    framed.freeze()
}

fn http_request(half_message: Bytes) -> tonic::codegen::http::Request<tonic::body::Body> {
    let body = tonic::body::Body::new(Drip { first: Some(half_message), rest: Box::pin(sleep(PACE)) });
    let mut request = tonic::codegen::http::Request::new(body);
    *request.method_mut() = tonic::codegen::http::Method::POST;
    *request.uri_mut() = tonic::codegen::http::Uri::from_static("/florin.v1.AuthorityService/Vote");
    let kind = tonic::codegen::http::HeaderValue::from_static("application/grpc");
    request.headers_mut().insert("content-type", kind);
    request
}

/// Much at once, then a byte now and then.
struct Drip {
    first: Option<Bytes>,
    rest: Pin<Box<tokio::time::Sleep>>,
}

impl Body for Drip {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Self::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        std::task::ready!(self.rest.as_mut().poll(cx));
        self.rest = Box::pin(sleep(PACE * 20));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[1])))))
    }
}
