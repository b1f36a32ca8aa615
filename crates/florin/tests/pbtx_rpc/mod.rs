//! A worker that speaks PBTX's RPC, and requests to it by hand.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use bytes::Bytes;
use florin_core::pbtxrpc::request_response::StatusCode;
use florin_core::pbtxrpc::{AccountSeqData, GetSeq, RegisterAccount, RequestResponse};
use florin_core::registration::sign_registration;
use florin_core::testing::Actor;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::net::{Net, PATIENCE, Process};

/// The network of these tests.
pub const NETWORK: u64 = 10;

/// A committee with a network of the wallet `admin`.
pub fn start(register: &str) -> Net {
    let net = Net::start(2);
    net.wallet("admin");
    net.run(&format!("network register {NETWORK} --wallet admin {register}")).ok();
    net
}

/// A worker with the RPC, and its address.
pub fn worker(net: &Net, name: &str, more: &str) -> (Process, String) {
    let line = format!(
        "worker run --listen 127.0.0.1:0 --journal {name}.journal --pbtx-http 127.0.0.1:0 --pbtx-network {NETWORK} {more}"
    );
    let log = std::fs::OpenOptions::new().append(true).create(true).open(net.path("servers.log")).unwrap();
    let mut child = net.command(&line, &[]).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let url = lines.find_map(|line| Some(line.strip_prefix("pbtx http://")?.to_owned()));
    (Process::new(child), url.unwrap_or_else(|| panic!("{}", net.read("servers.log"))))
}

/// A request by hand: HTTP status, and the body of the answer.
pub fn raw(address: &str, request: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may refuse before it has read all.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let head = String::from_utf8_lossy(&answer).into_owned();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let body = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    (status, answer[body..].to_vec())
}

pub fn post(address: &str, path: &str, body: &[u8]) -> RequestResponse {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: pbtx\r\nConnection: close\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let (status, answer) = raw(address, &[head.as_bytes(), body].concat());
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    let answer = RequestResponse::decode(&answer[..]).unwrap();
    assert_eq!(answer.request_hash[..], Sha256::digest(body)[..]);
    answer
}

pub fn register(address: &str, actor: &Actor) -> StatusCode {
    let permission_bytes = actor.permission.encode();
    let signature = sign_registration(&permission_bytes, &actor.keys[0]);
    let signature = Bytes::copy_from_slice(signature.as_bytes());
    let request = RegisterAccount { permission_bytes, signature, credentials: Bytes::new() };
    post(address, "/register_account", &request.encode_to_vec()).status()
}

pub fn sequence(address: &str, actor: u64) -> (StatusCode, AccountSeqData) {
    let answer = post(address, "/get_seq", &GetSeq { actor }.encode_to_vec());
    (answer.status(), AccountSeqData::decode(answer.data.clone()).unwrap())
}

pub fn send(address: &str, transaction: &[u8]) -> StatusCode {
    post(address, "/send_transaction", transaction).status()
}
