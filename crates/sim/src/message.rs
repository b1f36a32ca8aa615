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

impl Envelope {
    /// Adds the message to the hash of the run.
    pub fn trace(&self, hash: &mut Sha256) {
        hash.update(format!("{:?}>{:?}#{}", self.from, self.to, self.id));
        let mut part = |kind: u8, bytes: &[u8]| {
            hash.update([kind]);
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        match &self.body {
            Body::Vote(orders) => orders.iter().for_each(|o| part(0, o)),
            Body::Settle(certificate, orders) => {
                part(1, &certificate.encode_to_vec());
                orders.iter().for_each(|o| part(1, o));
            }
            Body::Deliver(delivery) => part(2, &delivery.encode_to_vec()),
            Body::Follow(from) => part(3, &from.to_be_bytes()),
            Body::Batch(root) => part(4, root),
            Body::Voted(reply) => part(5, &answer(reply)),
            Body::Settled(reply) => part(6, &answer(reply)),
            Body::Delivered(reply) => part(7, &answer(reply)),
            Body::Followed(reply) => part(8, &reply.encode_to_vec()),
            Body::Batches(reply) => part(9, &reply.encode_to_vec()),
            Body::Hand(calls, items) => {
                calls.iter().for_each(|c| part(10, &c.encode_to_vec()));
                items.iter().for_each(|i| part(10, i));
            }
            Body::Handed(done) => done.iter().for_each(|d| part(11, &[u8::from(*d)])),
            Body::Sessions(from) => part(12, &from.to_be_bytes()),
            Body::SessionsAre(reply) => part(13, &reply.encode_to_vec()),
            Body::Units(session, from) => part(15, format!("{session} {from}").as_bytes()),
            Body::UnitsAre(_, from, reply) => part(16 + (*from > 0) as u8, &reply.encode_to_vec()),
            Body::Notes(request) => part(19, &request.encode_to_vec()),
            Body::NotesAre(reply) => part(20, &answer(reply)),
            Body::Signature(session, signed) => {
                part(18, &[&session.to_be_bytes()[..], &signed.encode_to_vec()].concat())
            }
        }
    }
}

fn answer<M: prost::Message>(reply: &Result<M>) -> Vec<u8> {
    match reply {
        Ok(message) => message.encode_to_vec(),
        Err(e) => e.to_string().into_bytes(),
    }
}
