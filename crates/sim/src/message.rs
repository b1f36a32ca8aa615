//! What travels over the simulated network.

use bytes::Bytes;
use florin_core::{Error, Result, wire};
use prost::Message as _;
use sha2::{Digest, Sha256};

/// Who sends or gets a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Addr {
    /// A shard of an authority: (authority, shard).
    Shard(u32, u32),
    /// The log of an authority.
    Log(u32),
    /// A wallet, worker or attacker.
    Client(u32),
}

/// Requests and their answers, as `proto/florin.proto` has them.
#[derive(Clone, Debug)]
pub enum Body {
    /// `Vote`.
    Vote(Vec<Bytes>),
    /// `Settle`.
    Settle(wire::Certificate, Vec<Bytes>),
    /// `Deliver`.
    Deliver(wire::Delivery),
    /// `Follow` from a position.
    Follow(u64),
    /// `Batch` with a root.
    Batch(Bytes),
    /// `Hand`: what a shard wants in the log, and items for it.
    Hand(Vec<wire::LogCall>, Vec<Bytes>),
    /// `Sessions` from one on.
    Sessions(u64),
    /// `Units` of a session, from a position on.
    Units(u64, u32),
    /// `Notes`: shares for what was asked for, and what is known of nonces.
    Notes(wire::NotesRequest),
    /// To `Vote`.
    Voted(Result<wire::VoteReply>),
    /// To `Settle`.
    Settled(Result<wire::SettleReply>),
    /// To `Deliver`.
    Delivered(Result<wire::DeliveryReply>),
    /// To `Follow`.
    Followed(wire::FollowReply),
    /// To `Batch`.
    Batches(wire::BatchReply),
    /// To `Hand`: whether the log needs nothing more of each call.
    Handed(Vec<bool>),
    /// To `Sessions`.
    SessionsAre(wire::SessionsReply),
    /// To `Units`: the session, and its units from the position on.
    UnitsAre(u64, u32, wire::UnitsReply),
    /// To `Notes`.
    NotesAre(Result<wire::NotesReply>),
    /// One-way: a signature of a session's header.
    Signature(u64, wire::Signed),
}

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Sender; the transport proves it.
    pub from: Addr,
    /// Receiver.
    pub to: Addr,
    /// The sender's number for a request, repeated in the answer.
    pub id: u64,
    /// What it says.
    pub body: Body,
}

impl Body {
    /// Whether it asks for something.
    pub fn is_request(&self) -> bool {
        matches!(
            self,
            Body::Vote(_) | Body::Settle(..) | Body::Deliver(_) | Body::Follow(_) | Body::Batch(..) | Body::Notes(_)
        )
    }

    /// The answer with which a shell refuses this request; none for what is no request of clients or shards.
    pub fn refusal(&self, error: Error) -> Option<Body> {
        match self {
            Body::Vote(_) => Some(Body::Voted(Err(error))),
            Body::Settle(..) => Some(Body::Settled(Err(error))),
            Body::Deliver(_) => Some(Body::Delivered(Err(error))),
            _ => None,
        }
    }
}

impl Addr {
    /// Adds its name to a text, as `Debug` writes it: events are many, and formatting is slow.
    pub fn name(&self, out: &mut Vec<u8>) {
        let (name, numbers) = match *self {
            Addr::Shard(authority, shard) => ("Shard", [Some(authority), Some(shard)]),
            Addr::Log(authority) => ("Log", [Some(authority), None]),
            Addr::Client(client) => ("Client", [Some(client), None]),
        };
        out.extend_from_slice(name.as_bytes());
        for (before, number) in ["(", ", "].into_iter().zip(numbers.into_iter().flatten()) {
            out.extend_from_slice(before.as_bytes());
            decimal(u64::from(number), out);
        }
        out.push(b')');
    }
}

/// Adds a number to a text.
pub fn decimal(number: u64, out: &mut Vec<u8>) {
    if number >= 10 {
        decimal(number / 10, out);
    }
    out.push(b'0' + (number % 10) as u8);
}

/// Adds parts of a message to the hash of the run.
struct Parts<'a> {
    hash: &'a mut Sha256,
    buffer: &'a mut Vec<u8>,
}

impl Parts<'_> {
    fn bytes(&mut self, kind: u8, bytes: &[u8]) {
        self.hash.update([kind]);
        self.hash.update((bytes.len() as u64).to_be_bytes());
        self.hash.update(bytes);
    }

    fn all<'b>(&mut self, kind: u8, parts: impl IntoIterator<Item = &'b Bytes>) {
        parts.into_iter().for_each(|part| self.bytes(kind, part));
    }

    fn message(&mut self, kind: u8, message: &impl prost::Message) {
        let mut buffer = std::mem::take(self.buffer);
        buffer.clear();
        message.encode(&mut buffer).expect("a vector grows");
        self.bytes(kind, &buffer);
        *self.buffer = buffer;
    }

    fn answer(&mut self, kind: u8, reply: &Result<impl prost::Message>) {
        match reply {
            Ok(message) => self.message(kind, message),
            Err(e) => self.bytes(kind, e.to_string().as_bytes()),
        }
    }
}

impl Envelope {
    /// Adds the message to the hash of the run, with the help of a buffer.
    pub fn trace(&self, hash: &mut Sha256, buffer: &mut Vec<u8>) {
        buffer.clear();
        self.from.name(buffer);
        buffer.push(b'>');
        self.to.name(buffer);
        buffer.push(b'#');
        decimal(self.id, buffer);
        hash.update(&buffer[..]);
        let mut parts = Parts { hash, buffer };
        match &self.body {
            Body::Vote(orders) => parts.all(0, orders),
            Body::Settle(certificate, orders) => {
                parts.message(1, certificate);
                parts.all(1, orders);
            }
            Body::Deliver(delivery) => parts.message(2, delivery),
            Body::Follow(from) => parts.bytes(3, &from.to_be_bytes()),
            Body::Batch(root) => parts.bytes(4, root),
            Body::Voted(reply) => parts.answer(5, reply),
            Body::Settled(reply) => parts.answer(6, reply),
            Body::Delivered(reply) => parts.answer(7, reply),
            Body::Followed(reply) => parts.message(8, reply),
            Body::Batches(reply) => parts.message(9, reply),
            Body::Hand(calls, items) => {
                calls.iter().for_each(|c| parts.message(10, c));
                parts.all(10, items);
            }
            Body::Handed(done) => done.iter().for_each(|d| parts.bytes(11, &[u8::from(*d)])),
            Body::Sessions(from) => parts.bytes(12, &from.to_be_bytes()),
            Body::SessionsAre(reply) => parts.message(13, reply),
            Body::Units(session, from) => parts.bytes(15, format!("{session} {from}").as_bytes()),
            Body::UnitsAre(_, from, reply) => parts.message(16 + (*from > 0) as u8, reply),
            Body::Notes(request) => parts.message(19, request),
            Body::NotesAre(reply) => parts.answer(20, reply),
            Body::Signature(session, signed) => {
                parts.bytes(18, &[&session.to_be_bytes()[..], &signed.encode_to_vec()].concat())
            }
        }
    }
}
