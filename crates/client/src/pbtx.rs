//! PBTX networks for those who use them: what enough authorities agree on about networks and actors, commands of an
//! admin, transactions handed in.
//!
//! No authority is believed alone. What is read is what `f + 1` say alike; that there is no such network as well.

mod history;
mod push;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use florin_core::committee::Committee;
use florin_core::envelope::Order;
use florin_core::limits::{CALL_BYTES_MAX, OUTPUTS_MAX};
use florin_core::wire::{self, output};
use florin_core::{Code, Error, Result};
use prost::Message;

use crate::network::Network;
use crate::seed::Seed;
use crate::wallet::{Operation, Ordered, Request, Status, Wallet, agree_on, agree_status, need, retry};

pub use history::{History, Row, history};
pub use push::{Pushed, check_receipt, push, push_through};

/// The shard whose process has the log.
const LOG: u32 = 0;
/// How often an order is signed anew because another copy of the wallet was faster.
const TRIES: usize = 5;
/// Room in a CALL for what is not its outputs: address, numbers, the permission of an account's first order.
const CALL_FRAME_BYTES: usize = 128;

/// An actor, as `f + 1` authorities agree, and how many they are. `pending` is what one of them has voted for.
/// Errors: `UNKNOWN_NETWORK`, `QUORUM_UNREACHABLE`, `UNDECIDED`.
pub async fn actor_state(network: &Network, network_id: u64, actor: u64) -> Result<(wire::ActorReply, usize)> {
    retry(|| async {
        let replies = actor_replies(network, network_id, actor).await;
        let key = |r: &wire::ActorReply| {
            let (seqnum, prev_hash, rotating) = (r.seqnum, r.prev_hash, r.rotating);
            (seqnum, prev_hash, rotating, r.generation, r.permission.clone(), r.known, r.removed, r.frozen)
        };
        let refused = refused_alike(network, &replies);
        match (agree_on(network.committee(), &replies, "the actor", key), refused) {
            // The log has the network, and tells the shards in a moment.
            (Err(_), Some(e)) if e.code == Code::UnknownNetwork && is_registered(network, network_id).await? => {
                Err(Error::new(Code::Undecided, e.message))
            }
            (Err(_), Some(e)) => Err(e),
            (agreed, _) => agreed,
        }
    })
    .await
}

/// What each authority says of an actor.
pub async fn actor_replies(network: &Network, network_id: u64, actor: u64) -> Vec<Result<wire::ActorReply>> {
    let request = wire::ActorRequest { network_id, actor };
    let shard = network.committee().shard_of(network_id, actor);
    network.ask_all(shard, move |mut client| async move { client.actor(request).await }).await
}

async fn is_registered(network: &Network, network_id: u64) -> Result<bool> {
    Ok(network.registered(network_id).await?.0.is_some_and(|record| !record.removed))
}

/// The refusal that `f + 1` authorities give, if they do.
pub(crate) fn refused_alike<T>(network: &Network, replies: &[Result<T>]) -> Option<Error> {
    alike(network.committee(), replies)
}

fn alike<T>(committee: &Committee, replies: &[Result<T>]) -> Option<Error> {
    let said: Vec<&Error> =
        replies.iter().filter_map(|r| r.as_ref().err()).filter(|e| (100..700).contains(&(e.code as u32))).collect();
    let enough = |e: &Error| said.iter().filter(|o| o.code == e.code).count() >= committee.validity();
    said.iter().find(|e| enough(e)).map(|e| (*e).clone())
}

/// seqnum and prev_hash of an actor's next transaction. Errors: those of [`actor_state`]; `UNKNOWN_ACTOR`;
/// `SEQ_EXHAUSTED`; `PENDING_CONFLICT` if `f + 1` authorities have voted for one that has not settled: another one for its number
/// would lock the actor.
pub async fn next_sequence(network: &Network, network_id: u64, actor: u64) -> Result<(u32, u64)> {
    let (state, _) = actor_state(network, network_id, actor).await?;
    if !state.known || state.removed {
        let message = format!("actor {actor} is not registered in network {network_id}");
        return Err(Error::new(Code::UnknownActor, message));
    }
    let exhausted = || Error::new(Code::SeqExhausted, "the actor's last transaction had the last seqnum");
    let next = state.seqnum.checked_add(1).ok_or_else(exhausted)?;
    let replies = actor_replies(network, network_id, actor).await;
    let waiting: Vec<&wire::PendingOrder> =
        replies.iter().flatten().filter_map(|r| r.pending.iter().find(|p| p.seqnum == next)).collect();
    if waiting.len() >= network.committee().validity() {
        let message = format!("a transaction with seqnum {next} waits to be settled: push it again first");
        let pending_order = waiting[0].body.clone();
        return Err(Error { code: Code::PendingConflict, message, pending_order });
    }
    Ok((next, state.prev_hash))
}

/// What became of a transaction, say `f + 1` authorities. Errors: `QUORUM_UNREACHABLE`, `UNDECIDED`.
pub async fn order_status(network: &Network, network_id: u64, actor: u64, seqnum: u32) -> Result<Status> {
    let request = wire::OrderStatusRequest { network_id, actor, seqnum, ..Default::default() };
    let shard = network.committee().shard_of(network_id, actor);
    retry(|| async {
        let request = request.clone();
        let replies = network.ask_all(shard, move |mut client| {
            let request = request.clone();
            async move { client.order_status(request).await }
        });
        agree_status(network.committee(), &replies.await)
    })
    .await
}

/// Waits until a quorum of authorities says something of an actor: what the log has decided reaches the shards a moment later, in
/// its order, and from then on it holds for votes. Returns whether they did in time.
pub async fn reached(
    network: &Network,
    network_id: u64,
    actor: u64,
    patience: Duration,
    so: impl Fn(&wire::ActorReply) -> bool,
) -> bool {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let replies = actor_replies(network, network_id, actor).await;
        if replies.iter().flatten().filter(|r| so(r)).count() >= network.committee().quorum() {
            return true;
        }
        if tokio::time::Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A page of the registry: networks from an id on, each as `f + 1` authorities agree, and the id to go on from (0: no
/// more). Errors: `QUORUM_UNREACHABLE`, `UNDECIDED`.
pub async fn networks(network: &Network, from: u64, limit: u32) -> Result<(Vec<wire::ListedNetwork>, u64)> {
    let request = wire::NetworksRequest { from, limit };
    retry(|| async {
        let mut replies = network.ask_all(LOG, move |mut client| async move { client.networks(request).await }).await;
        // One that does not go on is no answer.
        for reply in &mut replies {
            if reply.as_ref().is_ok_and(|r| r.next != 0 && r.next <= from) {
                *reply = Err(Error::new(Code::Decode, "a page that does not go on"));
            }
        }
        listed(network.committee(), &replies)
    })
    .await
}

fn listed(committee: &Committee, replies: &[Result<wire::NetworksReply>]) -> Result<(Vec<wire::ListedNetwork>, u64)> {
    need(committee, replies, committee.quorum())?;
    let end = |r: &wire::NetworksReply| if r.next == 0 { u64::MAX } else { r.next };
    let mut ends: Vec<u64> = replies.iter().flatten().map(end).collect();
    ends.sort_unstable_by(|a, b| b.cmp(a));
    // As far as a quorum has told all there is.
    let until = ends[committee.quorum() - 1];
    let mut said: BTreeMap<u64, Vec<&wire::ListedNetwork>> = BTreeMap::new();
    for reply in replies.iter().flatten() {
        // Once for each authority, however often it says it.
        let once: BTreeMap<u64, &wire::ListedNetwork> = reply.networks.iter().map(|n| (n.network_id, n)).collect();
        once.into_iter().filter(|(id, _)| *id < until).for_each(|(id, n)| said.entry(id).or_default().push(n));
    }
    let mut agreed = Vec::new();
    for (id, records) in said.into_iter().filter(|(_, records)| records.len() >= committee.validity()) {
        let alike = |n: &&&wire::ListedNetwork| records.iter().filter(|o| o == n).count() >= committee.validity();
        let record = records.iter().find(alike).ok_or_else(|| {
            Error::new(Code::Undecided, format!("no {} authorities agree on network {id}", committee.validity()))
        })?;
        agreed.push((*record).clone());
    }
    Ok((agreed, if until == u64::MAX { 0 } else { until }))
}

/// Commands in as few CALLs as take them, in their order.
pub fn pack(commands: Vec<wire::NetworkCommand>, memo: &str) -> Vec<Vec<output::Kind>> {
    let room = (CALL_BYTES_MAX - CALL_FRAME_BYTES).saturating_sub(memo.len());
    let mut calls: Vec<Vec<output::Kind>> = Vec::new();
    let mut bytes = 0;
    for command in commands {
        let output = wire::Output { kind: Some(output::Kind::Network(command.clone())) };
        let length = output.encoded_len();
        let length = length + 1 + prost::length_delimiter_len(length);
        match calls.last_mut() {
            Some(call) if bytes + length <= room && call.len() < OUTPUTS_MAX => {
                bytes += length;
                call.push(output::Kind::Network(command));
            }
            _ => {
                bytes = length;
                calls.push(vec![output::Kind::Network(command)]);
            }
        }
    }
    calls
}

/// Does commands on networks as an account of the wallet, and waits for what the log makes of them: all in one CALL, or
/// none. What the wallet has pending is finished first. Errors: the log's refusal; as of a payment; `TIMEOUT`.
pub async fn command(
    wallet: &mut Wallet,
    seed: &Seed,
    network: &Network,
    account: u32,
    commands: Vec<wire::NetworkCommand>,
    patience: Duration,
) -> Result<Ordered> {
    if !wallet.account(account).known {
        wallet.catch_up(network, account).await?;
    }
    drive(wallet, network, account).await?;
    let outputs = commands.into_iter().map(output::Kind::Network).collect();
    let operation =
        Operation { id: None, account, inputs: Vec::new(), outputs, memo: String::new(), expires_in: false };
    let request = Request::Call(operation);
    for attempt in 1.. {
        wallet.sign_once(network, seed, &request).await?;
        match drive(wallet, network, account).await {
            Err(e) if attempt < TRIES && used_elsewhere(&e) && wallet.account(account).pending.is_empty() => {}
            Err(e) => return Err(e),
            Ok(()) => break,
        }
    }
    let seqnum = wallet.account(account).seqnum;
    let ordered = wallet.wait_ordered(network, account, seqnum, patience, |_| ()).await?;
    match ordered.failed {
        Some(e) => Err(e),
        None => Ok(ordered),
    }
}

/// Brings what is pending to its end. Errors: that of the first that is not final.
async fn drive(wallet: &mut Wallet, network: &Network, account: u32) -> Result<()> {
    match wallet.finish(network, account, |_| ()).await? {
        Some(submission) => submission.outcomes.into_iter().find_map(Result::err).map_or(Ok(()), Err),
        None => Ok(()),
    }
}

fn used_elsewhere(e: &Error) -> bool {
    matches!(e.code, Code::BadSeq | Code::BadPrevHash | Code::PendingConflict | Code::Voided)
}

/// Reads transactions of a file: hex digits, one envelope a line; empty lines and those that start with # are passed
/// over. Errors: those of [`Order::decode`] with the number of the line, `BAD_FILE`.
pub fn read_envelopes(text: &str) -> Result<Vec<Order>> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let order = |(number, line): (usize, &str)| {
        let bytes = hex::decode(line)
            .map_err(|_| Error::new(Code::BadFile, format!("line {number}: expected an envelope in hex digits")))?;
        let place = |e: Error| Error::new(e.code, format!("line {number}: {}", e.message));
        Order::decode(Bytes::from(bytes)).map_err(place)
    };
    lines.map(order).collect()
}

#[cfg(test)]
#[path = "pbtx/tests.rs"]
mod tests;
