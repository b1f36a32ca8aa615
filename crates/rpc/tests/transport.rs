//! The transport over real sockets: who is let in, who is recognised, and who can disturb whom.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use florin_core::error::{Code, Error, Result};
use florin_core::limits::{BODY_BYTES_MAX, MESSAGE_BYTES_MAX};
use florin_core::wire::*;
use florin_rpc::errors::{from_status, to_status};
use florin_rpc::services::authority_service_client::AuthorityServiceClient;
use florin_rpc::services::authority_service_server::{AuthorityService, AuthorityServiceServer};
use florin_rpc::{client, server, tls};
use rcgen::PublicKeyData;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

const SERVER: [u8; 32] = [1; 32];
const CLIENT: [u8; 32] = [2; 32];
const OTHER: [u8; 32] = [3; 32];
/// Only ends tests that would hang.
const LONG: Duration = Duration::from_secs(60);

type Reply<T> = std::result::Result<Response<T>, Status>;

/// Says who asks; fails, or holds requests until its gate opens, where told.
struct Desk {
    gate: Semaphore,
    held: AtomicUsize,
    held_most: AtomicUsize,
}

impl Desk {
    fn new() -> Desk {
        Desk { gate: Semaphore::new(0), held: AtomicUsize::new(0), held_most: AtomicUsize::new(0) }
    }
}

#[tonic::async_trait]
impl AuthorityService for Desk {
    async fn info(&self, request: Request<InfoRequest>) -> Reply<InfoReply> {
        let version = server::peer_identity(&request).map(hex::encode).unwrap_or_default();
        Ok(Response::new(InfoReply { version, ..Default::default() }))
    }
    async fn vote(&self, _: Request<VoteRequest>) -> Reply<VoteReply> {
        Ok(Response::new(VoteReply::default()))
    }
    async fn settle(&self, _: Request<SettleRequest>) -> Reply<SettleReply> {
        let held = self.held.fetch_add(1, SeqCst) + 1;
        self.held_most.fetch_max(held, SeqCst);
        self.gate.acquire().await.unwrap().forget();
        self.held.fetch_sub(1, SeqCst);
        Ok(Response::new(SettleReply::default()))
    }
    async fn account(&self, _: Request<AccountRequest>) -> Reply<AccountReply> {
        Err(to_status(conflict()))
    }
    async fn networks(&self, _: Request<NetworksRequest>) -> Reply<NetworksReply> {
        Err(tonic::Status::unimplemented("no"))
    }

    async fn actor(&self, _: Request<ActorRequest>) -> Reply<ActorReply> {
        Err(tonic::Status::unimplemented("no"))
    }

    type ListenStream = tonic::codegen::BoxStream<ListenReply>;

    async fn listen(&self, _: Request<ListenRequest>) -> Reply<Self::ListenStream> {
        Err(tonic::Status::unimplemented("no"))
    }

    async fn notes(&self, _: Request<NotesRequest>) -> Reply<NotesReply> {
        Err(tonic::Status::unimplemented("no"))
    }
    async fn cash_keys(&self, _: Request<CashKeysRequest>) -> Reply<CashKeysReply> {
        Err(tonic::Status::unimplemented("no"))
    }

    async fn history(&self, _: Request<HistoryRequest>) -> Reply<HistoryReply> {
        Err(tonic::Status::unimplemented("no"))
    }

    type WatchOrderStream = tokio_stream::Empty<std::result::Result<OrderStatus, Status>>;
    async fn watch_order(&self, _: Request<OrderStatusRequest>) -> Reply<Self::WatchOrderStream> {
        Err(Status::unimplemented("not here"))
    }
    async fn order_status(&self, _: Request<OrderStatusRequest>) -> Reply<OrderStatus> {
        Err(Status::unimplemented("not here"))
    }
    async fn log(&self, _: Request<LogStatusRequest>) -> Reply<LogStatus> {
        Err(Status::unimplemented("not here"))
    }
    async fn sessions(&self, _: Request<SessionsRequest>) -> Reply<SessionsReply> {
        Err(Status::unimplemented("not here"))
    }
    async fn units(&self, _: Request<UnitsRequest>) -> Reply<UnitsReply> {
        Err(Status::unimplemented("not here"))
    }
    async fn channel(&self, _: Request<ChannelRequest>) -> Reply<ChannelReply> {
        Err(Status::unimplemented("not here"))
    }

    async fn channels(&self, _: Request<ChannelsRequest>) -> Reply<ChannelsReply> {
        Err(Status::unimplemented("not here"))
    }

    async fn contract(&self, _: Request<ContractRequest>) -> Reply<ContractReply> {
        Err(Status::unimplemented("not here"))
    }
    async fn primary(&self, _: Request<PrimaryRequest>) -> Reply<PrimaryReply> {
        Err(Status::unimplemented("not here"))
    }
    async fn network(&self, _: Request<NetworkRequest>) -> Reply<NetworkReply> {
        Err(Status::unimplemented("not here"))
    }
    async fn order(&self, _: Request<OrderRequest>) -> Reply<OrderReply> {
        Err(Status::unimplemented("not here"))
    }
    async fn credits(&self, _: Request<CreditsRequest>) -> Reply<CreditsReply> {
        let entry = CreditEntry { memo: "m".repeat(MESSAGE_BYTES_MAX), ..Default::default() };
        Ok(Response::new(CreditsReply { credits: vec![entry], next: 0 }))
    }
}

/// As large as an error gets.
fn conflict() -> Error {
    let pending_order = Bytes::from(vec![0xa5; BODY_BYTES_MAX]);
    Error { pending_order, ..Error::new(Code::PendingConflict, "seqnum 7: expected ąę, found 100 % else") }
}

struct Running {
    address: SocketAddr,
    desk: Arc<Desk>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<()>>,
}

impl Running {
    async fn start(address: &str, seed: Option<&[u8; 32]>, limits: server::Limits) -> Running {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (health, reflection) = server::extras();
        let desk = Arc::new(Desk::new());
        let service = AuthorityServiceServer::from_arc(desk.clone());
        let routes = Routes::new(service).add_service(health).add_service(reflection);
        let config = seed.map(|seed| tls::server_config(seed).unwrap());
        let task = tokio::spawn(server::serve(listener, config, routes, limits, async {
            let _ = stopped.await;
        }));
        Running { address, desk, stop: Some(stop), task }
    }

    async fn new() -> Running {
        Running::start("127.0.0.1:0", Some(&SERVER), server::Limits::default()).await
    }

    fn channel(&self, own: Option<&[u8; 32]>) -> Channel {
        client::connect_lazy(&self.address.to_string(), key(&SERVER), own, client::Limits::default())
    }

    /// Until the service holds this many requests.
    async fn holds(&self, requests: usize) {
        let wait = async {
            while self.desk.held.load(SeqCst) < requests {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, wait).await.unwrap();
    }

    async fn stop(mut self) -> Result<()> {
        self.stop.take().unwrap().send(()).unwrap();
        timeout(LONG, self.task).await.unwrap().unwrap()
    }
}

fn pair(seed: &[u8; 32]) -> rcgen::KeyPair {
    let mut der = hex::decode("302e020100300506032b657004220420").unwrap();
    der.extend_from_slice(seed);
    rcgen::KeyPair::try_from(&PrivatePkcs8KeyDer::from(der)).unwrap()
}

fn key(seed: &[u8; 32]) -> [u8; 32] {
    pair(seed).der_bytes().try_into().unwrap()
}

fn certificate(pair: &rcgen::KeyPair) -> CertificateDer<'static> {
    let params = rcgen::CertificateParams::new(vec!["florin".to_owned()]).unwrap();
    params.self_signed(pair).unwrap().der().clone()
}

/// What one end shows and signs with, of its own choice.
fn certified(shown: CertificateDer<'static>, signer: &rcgen::KeyPair) -> Arc<SingleCertAndKey> {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signer.serialize_der()));
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![shown], key)))
}

/// A TLS connection of a client that shows and signs as it likes; the server's verdict.
async fn knock(server: &Running, shown: CertificateDer<'static>, signer: &rcgen::KeyPair) -> std::io::Result<()> {
    let mut config = (*tls::client_config(key(&SERVER), None)).clone();
    config.client_auth_cert_resolver = certified(shown, signer);
    let mut stream = raw(server, config).await;
    // A TLS 1.3 client hears of a refusal only when it reads.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    stream.read_u8().await.map(drop)
}

async fn raw(server: &Running, config: rustls::ClientConfig) -> tokio_rustls::client::TlsStream<TcpStream> {
    let socket = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("florin").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
}

async fn info(channel: &Channel) -> Result<String> {
    let mut client = AuthorityServiceClient::new(channel.clone());
    let reply = timeout(LONG, client.info(InfoRequest {})).await.unwrap();
    Ok(reply.map_err(from_status)?.into_inner().version)
}

/// For what becomes true in its own time.
async fn eventually_info(channel: &Channel) -> String {
    let attempts = async {
        loop {
            match info(channel).await {
                Ok(version) => return version,
                Err(e) => assert_eq!(e.code, Code::Unreachable, "{e}"),
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, attempts).await.unwrap()
}

#[tokio::test]
async fn a_server_is_known_by_its_key_alone() {
    let server = Running::new().await;
    assert_eq!(info(&server.channel(None)).await.unwrap(), "");

    let address = server.address.to_string();
    let wrong = client::connect_lazy(&address, key(&OTHER), None, client::Limits::default());
    let error = info(&wrong).await.unwrap_err();
    assert_eq!(error.code, Code::Unreachable);
    for part in [&address, "server key: expected", &hex::encode(key(&OTHER)), &hex::encode(key(&SERVER))] {
        assert!(error.message.contains(part), "{error}");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_shows_a_certificate_of_another_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut config = (*tls::server_config(&OTHER).unwrap()).clone();
    config.cert_resolver = certified(certificate(&pair(&SERVER)), &pair(&OTHER));
    let routes = Routes::new(AuthorityServiceServer::new(Desk::new()));
    let never = std::future::pending();
    let task = tokio::spawn(server::serve(listener, Some(Arc::new(config)), routes, server::Limits::default(), never));
    let channel = client::connect_lazy(&address, key(&SERVER), None, client::Limits::default());
    let error = info(&channel).await.unwrap_err();
    assert_eq!(error.code, Code::Unreachable);
    assert!(error.message.contains("BadSignature"), "{error}");
    task.abort();
}

#[tokio::test]
async fn the_handler_sees_the_key_of_the_client() {
    let server = Running::new().await;
    assert_eq!(info(&server.channel(Some(&CLIENT))).await.unwrap(), hex::encode(key(&CLIENT)));
    assert_eq!(info(&server.channel(Some(&OTHER))).await.unwrap(), hex::encode(key(&OTHER)));
    assert_eq!(info(&server.channel(None)).await.unwrap(), "");
}

#[tokio::test]
async fn a_client_must_hold_the_key_that_it_shows() {
    let server = Running::new().await;
    let (own, other) = (pair(&CLIENT), pair(&OTHER));
    knock(&server, certificate(&own), &own).await.unwrap();
    let refusal = knock(&server, certificate(&other), &own).await.unwrap_err();
    assert!(refusal.to_string().contains("DecryptError"), "{refusal}");
    // Only ed25519 keys are identities; a client with another kind is told so and not let in as nobody.
    let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    for shown in [certificate(&p256), CertificateDer::from(vec![0x30, 0x80, 1, 2, 3])] {
        let refusal = knock(&server, shown, &own).await.unwrap_err();
        assert!(refusal.to_string().contains("Certificate"), "{refusal}");
    }
    assert_eq!(info(&server.channel(None)).await.unwrap(), "");
}

/// Connections that never become ones: silent, half a handshake, another protocol, noise.
async fn strangers(address: SocketAddr) -> Vec<TcpStream> {
    let mut sockets = Vec::new();
    for i in 0..64 {
        let mut socket = TcpStream::connect(address).await.unwrap();
        match i % 4 {
            0 => {}
            1 => socket.write_all(&[0x16, 3, 1]).await.unwrap(),
            2 => socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap(),
            _ => socket.write_all(&[0xff; 4_096]).await.unwrap(),
        }
        sockets.push(socket);
    }
    sockets
}

#[tokio::test]
async fn garbage_and_silence_disturb_nobody() {
    for tls in [None, Some(&SERVER)] {
        let server = Running::start("127.0.0.1:0", tls, server::Limits { handshake: LONG, ..Default::default() }).await;
        let address = server.address.to_string();
        let channel = || match tls {
            None => client::plain(&address, client::Limits::default()).unwrap(),
            Some(_) => server.channel(None),
        };
        let steady = channel();
        info(&steady).await.unwrap();
        let strangers = strangers(server.address).await;
        info(&steady).await.unwrap();
        info(&channel()).await.unwrap();
        drop(strangers);
        info(&steady).await.unwrap();
    }
}

#[tokio::test]
async fn garbage_and_silence_are_closed() {
    let limits = server::Limits { handshake: Duration::from_millis(100), ..Default::default() };
    let server = Running::start("127.0.0.1:0", Some(&SERVER), limits).await;
    for mut socket in strangers(server.address).await {
        // An end or a reset: either way the server is done with it.
        let _ = timeout(LONG, socket.read_to_end(&mut Vec::new())).await.unwrap();
    }
    // Silence after a good TLS handshake takes no place for long either.
    let mut silent = raw(&server, (*tls::client_config(key(&SERVER), None)).clone()).await;
    let _ = timeout(LONG, silent.read_to_end(&mut Vec::new())).await.unwrap();
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_their_place_comes_back() {
    let limits = server::Limits { connections: 1, ..Default::default() };
    let server = Running::start("127.0.0.1:0", Some(&SERVER), limits).await;
    let (first, second) = (server.channel(None), server.channel(None));
    info(&first).await.unwrap();
    assert_eq!(info(&second).await.unwrap_err().code, Code::Unreachable);
    info(&first).await.unwrap();
    drop(first);
    eventually_info(&second).await;
}

/// Elsewhere than on Linux 127.0.0.1 is the only loopback address.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn one_host_cannot_take_every_place() {
    let limits = server::Limits { per_host: 1, ..Default::default() };
    let server = Running::start("127.0.0.1:0", None, limits).await;
    let channel = || client::plain(&server.address.to_string(), client::Limits::default()).unwrap();
    let (first, second) = (channel(), channel());
    info(&first).await.unwrap();
    assert_eq!(info(&second).await.unwrap_err().code, Code::Unreachable);
    // The server speaks first to whoever has a place and knows HTTP/2.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = timeout(LONG, socket.connect(server.address)).await.unwrap().unwrap();
    other.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    timeout(LONG, other.read_u8()).await.unwrap().unwrap();
    drop(first);
    eventually_info(&second).await;
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_cut_off() {
    let limits = server::Limits { request: Duration::from_millis(50), ..Default::default() };
    let server = Running::start("127.0.0.1:0", Some(&SERVER), limits).await;
    let mut client = AuthorityServiceClient::new(server.channel(None));
    let reply = timeout(LONG, client.settle(SettleRequest::default())).await.unwrap();
    assert_eq!(from_status(reply.unwrap_err()).code, Code::Timeout);
}

#[tokio::test]
async fn requests_over_the_limit_wait_for_their_turn() {
    let limits = server::Limits { requests: 2, ..Default::default() };
    let server = Running::start("127.0.0.1:0", Some(&SERVER), limits).await;
    let settle = |channel: &Channel| {
        let mut client = AuthorityServiceClient::new(channel.clone());
        tokio::spawn(async move { client.settle(SettleRequest::default()).await.map_err(from_status) })
    };
    // A client knows the limit by the first reply.
    let channel = server.channel(None);
    info(&channel).await.unwrap();
    let requests: Vec<_> = (0..8).map(|_| settle(&channel)).collect();
    server.holds(2).await;
    // Others go on meanwhile.
    info(&server.channel(None)).await.unwrap();
    server.desk.gate.add_permits(8);
    for request in requests {
        timeout(LONG, request).await.unwrap().unwrap().unwrap();
    }
    assert_eq!(server.desk.held_most.load(SeqCst), 2);

    // One that sends more before it can know it hears that it was too much.
    let fresh = server.channel(None);
    server.desk.gate.add_permits(8);
    let requests: Vec<_> = (0..8).map(|_| settle(&fresh)).collect();
    for request in requests {
        if let Err(e) = timeout(LONG, request).await.unwrap().unwrap() {
            assert_eq!(e.code, Code::Busy, "{e}");
        }
    }
    assert_eq!(server.desk.held_most.load(SeqCst), 2);
}

#[tokio::test]
async fn bytes_in_hand_have_a_limit_for_a_host_and_for_all() {
    let mib = 1 << 20;
    for (bytes, bytes_per_host) in [(9 * mib, 3 * mib), (3 * mib, 9 * mib)] {
        let limits = server::Limits { bytes, bytes_per_host, ..Default::default() };
        let server = Running::start("127.0.0.1:0", Some(&SERVER), limits).await;
        let channel = server.channel(None);
        let settle = |bytes: usize| {
            let mut client = AuthorityServiceClient::new(channel.clone());
            let request = SettleRequest { orders: vec![vec![7; bytes].into()], ..Default::default() };
            tokio::spawn(async move { client.settle(request).await.map_err(from_status) })
        };
        let held = [settle(mib), settle(mib)];
        server.holds(2).await;
        // One over, in the middle of the message, and again; what fits goes on.
        for _ in 0..3 {
            let error = timeout(LONG, settle(mib)).await.unwrap().unwrap().unwrap_err();
            assert_eq!(error.code, Code::Busy, "{error}");
            assert!(error.message.contains(&(3 * mib).to_string()), "{error}");
        }
        info(&channel).await.unwrap();
        server.desk.gate.add_permits(2);
        for request in held {
            timeout(LONG, request).await.unwrap().unwrap().unwrap();
        }
        // All that was held has been given back, also by those who were refused.
        server.desk.gate.add_permits(1);
        timeout(LONG, settle(2 * mib)).await.unwrap().unwrap().unwrap();
        // An answer counts too.
        let error = AuthorityServiceClient::new(channel).credits(CreditsRequest::default()).await.unwrap_err();
        assert_eq!(from_status(error).code, Code::Busy);
    }
}

#[tokio::test]
async fn messages_over_four_mebibytes_are_refused_both_ways() {
    let server = Running::new().await;
    let mut client = AuthorityServiceClient::new(server.channel(None));
    // Field tags and lengths of the message take 8 to 12 bytes.
    let vote = |bytes: usize| VoteRequest { shard: 0, orders: vec![vec![7; bytes].into()] };
    client.vote(vote(MESSAGE_BYTES_MAX - 16)).await.unwrap();
    let error = from_status(client.vote(vote(MESSAGE_BYTES_MAX)).await.unwrap_err());
    assert_eq!(error.code, Code::Limit, "{error}");
    assert!(error.message.contains(&MESSAGE_BYTES_MAX.to_string()), "{error}");
    let error = from_status(client.credits(CreditsRequest::default()).await.unwrap_err());
    assert_eq!(error.code, Code::Limit, "{error}");
    client.info(InfoRequest {}).await.unwrap();
}

#[tokio::test]
async fn an_error_arrives_as_it_was_sent() {
    let server = Running::new().await;
    let mut client = AuthorityServiceClient::new(server.channel(None));
    let status = client.account(AccountRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    assert_eq!(status.message(), "PENDING_CONFLICT (303): seqnum 7: expected ąę, found 100 % else");
    assert!(from_status(status) == conflict());
    for code in Code::ALL {
        let error = Error::new(*code, "expected a, found b");
        assert_eq!(from_status(to_status(error.clone())), error);
    }
    let long = Error::new(Code::Decode, "ą".repeat(10_000));
    assert!(from_status(to_status(long)).message.starts_with("ąą"));
}

#[tokio::test]
async fn what_the_transport_says_becomes_the_nearest_code() {
    let server = Running::new().await;
    let mut client = AuthorityServiceClient::new(server.channel(None));
    let error = from_status(client.order(OrderRequest::default()).await.unwrap_err());
    assert_eq!(error.code, Code::NotServed);

    let limits = client::Limits { request: Duration::from_millis(100), ..Default::default() };
    let hasty = client::connect_lazy(&server.address.to_string(), key(&SERVER), None, limits);
    let mut client = AuthorityServiceClient::new(hasty);
    let error = from_status(client.settle(SettleRequest::default()).await.unwrap_err());
    assert_eq!(error.code, Code::Timeout, "{error}");
    let mut request = Request::new(SettleRequest::default());
    request.set_timeout(Duration::from_millis(50));
    let error = from_status(client.settle(request).await.unwrap_err());
    assert_eq!(error.code, Code::Timeout, "{error}");

    // A server that takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = client::Limits { connect: Duration::from_millis(100), ..Default::default() };
    let address = silent.local_addr().unwrap().to_string();
    let error = info(&client::connect_lazy(&address, key(&SERVER), None, limits)).await.unwrap_err();
    assert_eq!((error.code, error.message.contains("no answer within 100 ms")), (Code::Unreachable, true), "{error}");

    for address in ["", "nowhere", "a b:1", "127.0.0.1:99999", "127.0.0.1:1/x"] {
        let channel = client::connect_lazy(address, key(&SERVER), None, client::Limits::default());
        assert_eq!(info(&channel).await.unwrap_err().code, Code::Unreachable, "{address}");
    }
}

#[tokio::test]
async fn a_channel_finds_a_server_that_was_restarted() {
    let server = Running::new().await;
    let address = server.address.to_string();
    let channel = server.channel(Some(&CLIENT));
    info(&channel).await.unwrap();
    server.stop().await.unwrap();
    let error = info(&channel).await.unwrap_err();
    assert_eq!(error.code, Code::Unreachable, "{error}");

    let again = Running::start(&address, Some(&SERVER), server::Limits::default()).await;
    assert_eq!(eventually_info(&channel).await, hex::encode(key(&CLIENT)));
    again.stop().await.unwrap();
}

#[tokio::test]
async fn shutdown_lets_a_running_request_end() {
    let server =
        Running::start("127.0.0.1:0", Some(&SERVER), server::Limits { drain: LONG, ..Default::default() }).await;
    let mut client = AuthorityServiceClient::new(server.channel(None));
    let running = tokio::spawn(async move { client.settle(SettleRequest::default()).await });
    server.holds(1).await;
    let (desk, address) = (server.desk.clone(), server.address);
    let stopping = tokio::spawn(server.stop());
    // The port is free at once, for the next process.
    let free = async {
        while TcpListener::bind(address).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, free).await.unwrap();
    desk.gate.add_permits(1);
    running.await.unwrap().unwrap();
    stopping.await.unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever_for_a_request() {
    let limits = server::Limits { drain: Duration::from_millis(100), ..Default::default() };
    let server = Running::start("127.0.0.1:0", Some(&SERVER), limits).await;
    let channel = server.channel(None);
    info(&channel).await.unwrap();
    let mut client = AuthorityServiceClient::new(channel);
    let hanging = tokio::spawn(async move { client.settle(SettleRequest::default()).await });
    server.holds(1).await;
    server.stop().await.unwrap();
    let error = from_status(timeout(LONG, hanging).await.unwrap().unwrap().unwrap_err());
    assert_eq!(error.code, Code::Unreachable, "{error}");
}

#[tokio::test]
async fn plain_text_stays_on_this_machine() {
    let server = Running::start("127.0.0.1:0", None, server::Limits::default()).await;
    for host in ["127.0.0.1", "localhost"] {
        let channel = client::plain(&format!("{host}:{}", server.address.port()), client::Limits::default()).unwrap();
        assert_eq!(info(&channel).await.unwrap(), "");
    }
    for address in ["192.0.2.1:80", "example.com:80", "127.0.0.1.example.com:80", "[2001:db8::1]:80", "127.0.0.1", ""] {
        let error = client::plain(address, client::Limits::default()).unwrap_err();
        assert_eq!(error.code, Code::BadConfig, "{address}");
    }
    client::plain("[::1]:80", client::Limits::default()).unwrap();

    let open = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let routes = Routes::new(AuthorityServiceServer::new(Desk::new()));
    let error = server::serve(open, None, routes, server::Limits::default(), std::future::pending()).await.unwrap_err();
    assert_eq!(error.code, Code::BadConfig);
}

#[tokio::test]
async fn health_and_reflection_answer() {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServiceResponse};

    let server = Running::new().await;
    let channel = server.channel(None);
    let health = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(health.into_inner().status(), ServingStatus::Serving);

    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let reply = ServerReflectionClient::new(channel).server_reflection_info(tokio_stream::once(ask)).await.unwrap();
    let reply = reply.into_inner().message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = reply else { panic!("{reply:?}") };
    let names: Vec<String> = list.service.into_iter().map(|ServiceResponse { name }| name).collect();
    assert!(names.contains(&"florin.v1.AuthorityService".to_owned()), "{names:?}");
}
