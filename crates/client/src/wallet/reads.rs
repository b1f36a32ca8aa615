//! Reads of a wallet: what enough authorities agree on.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::committee::Committee;
use florin_core::envelope::Order;
use florin_core::limits::PAGE_MAX;
use florin_core::receipt::{verify, verify_certified};
use florin_core::wire;
use florin_core::{Code, Error, Result};
use prost::Message;

use super::Wallet;
use crate::network::Network;

/// How often authorities that say different things are asked again, and how long apart.
const TRIES: usize = 10;
const PAUSE: Duration = Duration::from_millis(200);

/// What `f + 1` authorities agree that an address has.
#[derive(Clone, Debug)]
pub struct Balance {
    /// Minor units.
    pub minor: i128,
    /// Last settled sequence number.
    pub seqnum: u32,
    /// Credits received so far.
    pub credits: u64,
    /// Authorities that say so.
    pub agreeing: usize,
    /// (name, what it says or why it does not) of the others.
    pub others: Vec<(String, String)>,
}

/// A payment that came in, as `f + 1` authorities agree.
#[derive(Clone, Debug)]
pub struct Received {
    /// Who paid what.
    pub entry: wire::CreditEntry,
}

impl Wallet {
    /// The balance of an address that `f + 1` authorities agree on. Waits a little for them to agree.
    /// Errors: `QUORUM_UNREACHABLE` if too few answer, `UNDECIDED` if they keep saying different things.
    pub async fn balance(network: &Network, address: &Address) -> Result<Balance> {
        retry(|| async move { agree(network.committee(), &network.account(address).await) }).await
    }

    /// Newest payments to an address that a quorum reports, at most [`PAGE_MAX`]: what fewer have settled may not be
    /// final, and a recovery of the payer's account can take it back. Errors: `QUORUM_UNREACHABLE`.
    pub async fn received(network: &Network, address: &Address, limit: usize) -> Result<Vec<Received>> {
        let committee = network.committee();
        let limit = limit.min(PAGE_MAX);
        let replies = network.credits(address, limit as u32).await;
        need(committee, &replies, committee.quorum())?;
        let mut order = Vec::new();
        let mut counts: BTreeMap<Vec<u8>, (usize, wire::CreditEntry)> = BTreeMap::new();
        for reply in replies.into_iter().flatten() {
            // Once for each authority, however often it says it.
            let said: BTreeMap<Vec<u8>, wire::CreditEntry> =
                reply.credits.iter().map(|entry| (entry.encode_to_vec(), entry.clone())).collect();
            order.extend(reply.credits.iter().map(Message::encode_to_vec).filter(|key| !counts.contains_key(key)));
            for (key, entry) in said {
                counts.entry(key).or_insert((0, entry)).0 += 1;
            }
        }
        let believed = order.iter().filter_map(|key| counts.remove(key)).filter(|(n, _)| *n >= committee.quorum());
        Ok(believed.take(limit).map(|(_, entry)| Received { entry }).collect())
    }

    /// An order of any account that some authority proves to be certified.
    pub async fn certified(network: &Network, actor: u64, seqnum: u32) -> Option<Order> {
        let replies = network.order(actor, seqnum).await.into_iter().flatten();
        let mut proved = replies.filter_map(|r| verify_certified(network.committee(), &r.receipt?).ok());
        proved.find(|o| o.actor == actor && o.seqnum == seqnum)
    }

    /// A receipt for an order that some authority knows, also one that this wallet received. Errors:
    /// `QUORUM_UNREACHABLE`; `BAD_SEQ` if no authority knows such an order; as of a payment otherwise.
    pub async fn fetch_receipt(network: &Network, actor: u64, seqnum: u32) -> Result<wire::Receipt> {
        let committee = network.committee();
        let replies = network.order(actor, seqnum).await;
        need(committee, &replies, committee.validity())?;
        let mut envelopes: Vec<Bytes> = Vec::new();
        for receipt in replies.into_iter().flatten().filter_map(|r| r.receipt) {
            let asked = Order::decode(receipt.transaction.clone())
                .is_ok_and(|o| (o.network_id, o.actor, o.seqnum) == (committee.network.id, actor, seqnum));
            if asked && !envelopes.contains(&receipt.transaction) {
                envelopes.push(receipt.transaction);
            }
        }
        // Submitting it again changes nothing where it is settled, and gathers the signatures.
        let nobody = format!("no authority knows an order of actor {actor} with seqnum {seqnum}");
        let mut error = Error::new(Code::BadSeq, nobody);
        let shard = committee.shard_of(committee.network.id, actor);
        for envelope in envelopes {
            match network.submit(shard, vec![envelope], |_| ()).await?.outcomes.remove(0) {
                Ok(receipt) => return verify(committee, &receipt).map(|_| receipt),
                Err(e) => error = e,
            }
        }
        Err(error)
    }
}

/// Asks again while authorities say different things. Errors: those of asking.
pub(crate) async fn retry<T, F: Future<Output = Result<T>>>(ask: impl Fn() -> F) -> Result<T> {
    let mut last = None;
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(e) if e.code == Code::Undecided => last = Some(e),
            Err(e) => return Err(e),
        }
    }
    Err(last.unwrap_or_else(|| Error::new(Code::Undecided, "no authority was asked")))
}

/// The answer that `f + 1` authorities give, by what `key` makes of it; of several the last by `Ord`.
/// Errors: `QUORUM_UNREACHABLE`, `UNDECIDED`.
pub(crate) fn agree_on<T: Clone, K: Ord>(
    committee: &Committee,
    replies: &[Result<T>],
    what: &str,
    key: impl Fn(&T) -> K,
) -> Result<(T, usize)> {
    let needed = committee.validity();
    need(committee, replies, needed)?;
    let said: Vec<(K, &T)> = replies.iter().flatten().map(|r| (key(r), r)).collect();
    let counted = said.iter().map(|(k, r)| (k, *r, said.iter().filter(|(o, _)| o == k).count()));
    let best = counted.filter(|(_, _, n)| *n >= needed).max_by(|a, b| a.0.cmp(b.0));
    let (_, reply, agreeing) =
        best.ok_or_else(|| Error::new(Code::Undecided, format!("no {needed} authorities agree on {what}")))?;
    Ok((reply.clone(), agreeing))
}

/// `QUORUM_UNREACHABLE`, naming who is missing, unless `needed` authorities answered.
pub(crate) fn need<T>(committee: &Committee, replies: &[Result<T>], needed: usize) -> Result<()> {
    let answered = replies.iter().filter(|r| r.is_ok()).count();
    if answered >= needed {
        return Ok(());
    }
    let missing = replies.iter().zip(&committee.authorities).filter_map(|(r, a)| Some((r.as_ref().err()?, a)));
    let missing: Vec<String> = missing.map(|(e, a)| format!("{} ({}: {})", a.name, e.code.name(), e.message)).collect();
    let message = format!("{answered} authorities answer, {needed} are needed; missing: {}", missing.join(", "));
    Err(Error::new(Code::QuorumUnreachable, message))
}

/// The newest state that `f + 1` authorities give.
pub(super) fn agree(committee: &Committee, replies: &[Result<wire::AccountReply>]) -> Result<Balance> {
    let needed = committee.validity();
    let answered: Vec<(usize, &wire::AccountReply)> =
        replies.iter().enumerate().filter_map(|(i, r)| r.as_ref().ok().map(|r| (i, r))).collect();
    let name = |i: usize| committee.authorities[i].name.clone();
    need(committee, replies, needed)?;
    let same = |a: &wire::AccountReply, b: &wire::AccountReply| {
        (&a.balance, a.seqnum, a.credits) == (&b.balance, b.seqnum, b.credits)
    };
    let best = answered
        .iter()
        .map(|(_, r)| (*r, answered.iter().filter(|(_, o)| same(r, o)).count()))
        .filter(|(_, n)| *n >= needed)
        .max_by_key(|(r, n)| (r.seqnum, r.credits, *n));
    let Some((reply, agreeing)) = best else {
        let said: Vec<String> = answered.iter().map(|(i, r)| format!("{}: {}", name(*i), r.balance)).collect();
        return Err(Error::new(
            Code::Undecided,
            format!("no {needed} authorities agree (minor units): {}", said.join(", ")),
        ));
    };
    let others = replies.iter().enumerate().filter_map(|(i, r)| match r {
        Ok(r) if same(r, reply) => None,
        Ok(r) => Some((name(i), format!("{} minor units, {} orders, {} credits", r.balance, r.seqnum, r.credits))),
        Err(e) => Some((name(i), e.to_string())),
    });
    let minor = reply
        .balance
        .parse()
        .map_err(|_| Error::new(Code::Decode, format!("a balance that is no number: {}", reply.balance)))?;
    Ok(Balance { minor, seqnum: reply.seqnum, credits: reply.credits, agreeing, others: others.collect() })
}
