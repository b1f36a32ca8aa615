use std::net::SocketAddr;

use florin_core::keys::Curve;
use florin_core::pbtxrpc::RequestResponse;
use florin_core::pbtxrpc::request_response::StatusCode as Status;
use florin_core::testing::{Actor, TestCommittee};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::super::Config;
use super::*;
use crate::network::{Network, Patience};
use crate::worker::{Batching, Worker};

const NETWORK: u64 = 10;
const HEAD: &str = "HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/octet-stream\r\n";

/// A server whose worker waits for a second order for longer than any test.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<()>>,
    _folder: tempfile::TempDir,
}

async fn run(limits: Limits, patience: Duration) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let (committee, _) = TestCommittee::default().build();
    let short = Duration::from_millis(50);
    let network = Network::new(committee, Patience { total: short, stragglers: short, request: short });
    let batching = Batching { orders: 2, linger: Duration::from_secs(600), ..Batching::default() };
    let worker = Worker::start(network.clone(), &folder.path().join("journal"), batching).unwrap();
    let config = Config { network_id: NETWORK, registrar: None, credentials: Default::default(), patience };
    let gateway = Gateway::new(network, worker, config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let stopped = async { drop(stopped.await) };
        serve(listener, None, gateway, limits, stopped).await
    });
    Running { address, stop, server, _folder: folder }
}

async fn open(running: &Running, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// All that comes until the server closes the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

fn transaction() -> Vec<u8> {
    let order = Actor::new(NETWORK, 5, Curve::K1).order(0, b"x", &[]);
    [format!("POST /send_transaction {HEAD}Content-Length: {}\r\n\r\n", order.len()).as_bytes(), &order].concat()
}

#[tokio::test]
async fn who_does_not_finish_a_request_is_closed() {
    let short = Duration::from_millis(100);
    let running = run(Limits { header: short, upload: short, ..Limits::default() }, short).await;
    let silent = open(&running, b"").await;
    let half_a_head = open(&running, b"POST /get_seq HT").await;
    let half_a_body = open(&running, format!("POST /get_seq {HEAD}Content-Length: 9\r\n\r\n1").as_bytes()).await;
    assert!(!rest(silent).await.contains("200"));
    assert!(!rest(half_a_head).await.contains("200"));
    assert!(rest(half_a_body).await.starts_with("HTTP/1.1 408"));
    // An answer in time, though it is only that the time is up.
    let late = rest(open(&running, &transaction()).await).await;
    assert!(late.starts_with("HTTP/1.1 200") && late.contains("florin-error: TIMEOUT"), "{late}");
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn requests_above_the_limit_are_told_to_come_later() {
    let limits = Limits { requests: 1, drain: Duration::from_millis(100), ..Limits::default() };
    let running = run(limits, LONG).await;
    let mut answers = JoinSet::new();
    for _ in 0..2 {
        answers.spawn(rest(open(&running, &transaction()).await));
    }
    let first = answers.join_next().await.unwrap().unwrap();
    assert!(first.starts_with("HTTP/1.1 503") && first.contains("retry-after"), "{first}");
    // Whoever still waits when the server stops is cut off after a while.
    running.stop.send(()).unwrap();
    running.server.await.unwrap().unwrap();
    assert_eq!(answers.join_next().await.unwrap().unwrap(), "");
}

#[tokio::test]
async fn connections_above_the_limit_are_closed() {
    let running = run(Limits { connections: 2, header: LONG, ..Limits::default() }, LONG).await;
    let _held = [open(&running, &transaction()).await, open(&running, b"POST").await];
    assert_eq!(rest(open(&running, b"").await).await, "");
}

#[tokio::test]
async fn every_answer_is_for_its_request() {
    let running = run(Limits::default(), Duration::from_secs(5)).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    for (path, length, expected) in [
        ("/get_seq", 9, Status::InvalidContent),
        ("/send_transaction", 0, Status::InvalidContent),
        ("/register_account", 100_000, Status::InvalidContent),
        ("/send_transaction", 500_000, Status::InvalidContent),
    ] {
        let body = vec![0xff; length];
        let head = format!("POST {path} {HEAD}Content-Length: {length}\r\n\r\n").replace("close", "keep-alive");
        stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
        let mut answer = Vec::new();
        let end = loop {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
            if let Some(at) = answer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let length: usize = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        while answer.len() < end + length {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
        }
        let answer = RequestResponse::decode(&answer[end..]).unwrap();
        assert_eq!((answer.status(), &answer.request_hash[..]), (expected, &Sha256::digest(&body)[..]), "{path}");
    }
}
