//! Notes found again from the seed: by number, until there are none for long enough.
//!
//! What authorities were given to sign is asked for first, at all shards; then, over new connections, which of the notes are
//! spent. Only of those that are not the shares are looked at, so a long history costs little. A note that was final is
//! known to `f + 1` of any quorum that answers, so fewer answers are an error and not an empty wallet.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use florin_core::cash::mint_keys::MintKeys;
use florin_core::wire::{self, note_state::State as Seen};
use florin_core::{Code, Error, Result};

use super::CashWallet;
use super::amounts::value;
use super::cores::cores;
use super::order::issued_everywhere;
use super::records::{Hex32, NoteRecord, Origin, Record, State};
use super::shares::{Blind, unblind};
use super::states::{NOTES_SHARD, NoteState, states};
use super::store::Secrets;
use crate::network::Network;
use crate::wallet::need;

/// Numbers in a row of which no note was made, after which there are no more. A wallet keeps far below it.
pub(super) const GAP: u64 = 1_024;
/// Numbers asked for at once.
const BATCH: u64 = 1_024;
/// Notes whose shares are combined at once.
const CHUNK: usize = 256;
/// How often orders of an earlier life are brought to their end.
const ROUNDS: usize = 3;

/// What a search has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Notes that the journal did not know.
    pub notes: usize,
    /// Minor units of them.
    pub total: u128,
    /// Of those that were made: how many are spent.
    pub spent: usize,
    /// Notes that too few authorities have settled yet.
    pub unsettled: usize,
    /// Numbers looked at.
    pub looked: u64,
}

/// A note that was made of a number, as `f + 1` authorities say.
struct Candidate {
    counter: u64,
    nonce: Hex32,
    /// By shard and tier: shares by authority. As a rule one.
    made: BTreeMap<(usize, u32), Vec<(usize, Bytes)>>,
}

impl CashWallet {
    /// Looks for all notes of the seed, and for what became of those that the journal knows. Errors: `QUORUM_UNREACHABLE`;
    /// what was found is kept all the same.
    pub async fn recover(&mut self, network: &Network, secrets: &Secrets) -> Result<Found> {
        self.keys(network).await?;
        let found = self.search(network, secrets, 0).await?;
        let known = self.book().in_state(|s| matches!(s, State::Free | State::Sent(_)));
        let known: Vec<Hex32> = known.map(|n| n.note.nonce).collect();
        let spend_side = Network::new(network.committee().clone(), network.patience);
        self.look(&spend_side, &known).await?;
        Ok(found)
    }

    /// Looks for notes of numbers from `from` on.
    pub(super) async fn search(&mut self, network: &Network, secrets: &Secrets, from: u64) -> Result<Found> {
        let mut sum = Found::default();
        for _ in 0..ROUNDS {
            let (found, again) = self.search_once(network, secrets, from).await?;
            sum = Found { notes: sum.notes + found.notes, total: sum.total + found.total, ..found };
            if !again {
                break;
            }
        }
        Ok(sum)
    }

    /// Once; and whether orders came to their end on the way, which may have made more.
    async fn search_once(&mut self, network: &Network, secrets: &Secrets, from: u64) -> Result<(Found, bool)> {
        // New connections: who spends is not asked for where it was asked who issued.
        let committee = network.committee().clone();
        let [issue_side, spend_side] = [0, 1].map(|_| Network::new(committee.clone(), network.patience));
        let (candidates, next, looked) = self.candidates(&issue_side, secrets, from).await?;
        let mut found = Found { looked, ..Found::default() };
        // By nonce, which says nothing of the order in which they were made.
        let mut new: Vec<&Candidate> = candidates
            .iter()
            .filter(|c| !self.book().notes.contains_key(&c.nonce) && !self.book().gone.contains_key(&c.nonce))
            .collect();
        new.sort_by_key(|c| c.nonce);
        let nonces: Vec<Hex32> = new.iter().map(|c| c.nonce).collect();
        let seen = states(&spend_side, &nonces).await?;
        let mut locked: Vec<Bytes> =
            seen.iter().filter(|s| s.state == Seen::Locked).map(|s| s.order_id.clone()).collect();
        let unspent: Vec<_> = new.into_iter().zip(seen).filter(|(_, s)| s.state != Seen::Spent).collect();
        found.spent = nonces.len() - unspent.len();
        let keys = self.known_keys()?;
        let assembled = assemble(&keys, secrets, committee.quorum(), &unspent)?;
        self.liars.extend(assembled.liars);
        found.unsettled = assembled.unsettled;
        let notes = assembled.notes;
        found.notes = notes.len();
        found.total = notes.iter().map(|n| u128::from(value(n.tier))).sum();
        self.store.record(vec![Record::Found { next, notes }])?;
        locked.sort_unstable();
        locked.dedup();
        let mut again = false;
        for order in locked {
            again |= self.rescue(&spend_side, order).await;
        }
        Ok((found, again))
    }

    /// Numbers of which notes were made, the first that is free behind them, and how many were looked at.
    async fn candidates(&self, network: &Network, secrets: &Secrets, from: u64) -> Result<(Vec<Candidate>, u64, u64)> {
        let committee = network.committee();
        let (mut candidates, mut next, mut at) = (Vec::new(), from, from);
        while at - next < GAP {
            let blinds =
                Blind::own(cores(), secrets, &(at..at + BATCH).map(|counter| (counter, 0)).collect::<Vec<_>>());
            let blinded: Vec<Bytes> = blinds.iter().map(Blind::bytes).collect();
            let replies = issued_everywhere(network, &blinded).await;
            if replies.len() != committee.shards as usize {
                return Err(Error::new(Code::QuorumUnreachable, "not all shards were asked"));
            }
            replies.iter().try_for_each(|replies| need(committee, replies, committee.quorum()))?;
            for (i, (counter, blind)) in (at..).zip(&blinds).enumerate() {
                let made = made(&replies, i, committee.validity());
                if !made.is_empty() {
                    next = counter + 1;
                    candidates.push(Candidate { counter, nonce: blind.nonce().into(), made });
                }
            }
            at += BATCH;
        }
        Ok((candidates, next, at - from))
    }

    /// Brings an order of an earlier life to its end, by whatever an authority that has voted for it shows. Whether it settled.
    async fn rescue(&self, network: &Network, order_id: Bytes) -> bool {
        let network_id = network.committee().network.id;
        let request = wire::OrderRequest { network_id, actor: 0, seqnum: 0, order_id: order_id.clone() };
        let replies = network.ask_all(NOTES_SHARD, move |mut client| {
            let request = request.clone();
            async move { client.order(request).await }
        });
        let shown = replies.await.into_iter().flatten().filter_map(|reply| Some(reply.receipt?.transaction));
        let ours =
            |raw: &Bytes| florin_core::envelope::Order::decode(raw.clone()).is_ok_and(|o| o.id[..] == order_id[..]);
        let Some(envelope) = shown.into_iter().find(ours) else { return false };
        let submission = network.submit_for_notes(NOTES_SHARD, vec![envelope], |_| ()).await;
        submission.is_ok_and(|s| s.outcomes.iter().all(Result::is_ok))
    }
}

/// Notes made of shares.
#[derive(Default)]
struct Assembled {
    notes: Vec<NoteRecord>,
    liars: BTreeSet<usize>,
    /// Of which there are too few true shares.
    unsettled: usize,
}

/// Makes the notes again; of one that was asked for twice, the more valuable one.
fn assemble(
    keys: &MintKeys,
    secrets: &Secrets,
    quorum: usize,
    unspent: &[(&Candidate, NoteState)],
) -> Result<Assembled> {
    let mut assembled = Assembled::default();
    for chunk in unspent.chunks(CHUNK) {
        let best = |c: &Candidate| {
            let enough = c.made.iter().filter(|(_, shares)| shares.len() >= quorum);
            enough.max_by_key(|((_, tier), _)| *tier).map(|((_, tier), shares)| (*tier, shares.clone()))
        };
        let chosen: Vec<_> = chunk.iter().filter_map(|(c, s)| Some((*c, s, best(c)?))).collect();
        assembled.unsettled += chunk.len() - chosen.len();
        let asked = Blind::own(
            cores(),
            secrets,
            &chosen.iter().map(|(c, _, (tier, _))| (c.counter, *tier)).collect::<Vec<_>>(),
        );
        let shares: Vec<_> = chosen.iter().map(|(_, _, (_, shares))| shares.clone()).collect();
        let made = unblind(cores(), keys, &asked, &shares)?;
        assembled.liars.extend(&made.liars);
        for ((candidate, seen, (tier, _)), signature) in chosen.into_iter().zip(&made.signatures) {
            let Some(signature) = signature else {
                assembled.unsettled += 1;
                continue;
            };
            let origin = Origin::Own { counter: candidate.counter };
            let signature = hex::encode(signature.to_bytes());
            let (nonce, recoveries) = (candidate.nonce, seen.recoveries);
            assembled.notes.push(NoteRecord { nonce, tier, signature, recoveries, origin });
        }
    }
    Ok(assembled)
}

/// What was made of number `i`: by shard and tier, the shares; only what `enough` authorities say.
fn made(
    replies: &[Vec<Result<wire::NotesReply>>],
    i: usize,
    enough: usize,
) -> BTreeMap<(usize, u32), Vec<(usize, Bytes)>> {
    let mut made: BTreeMap<(usize, u32), Vec<(usize, Bytes)>> = BTreeMap::new();
    for (shard, replies) in replies.iter().enumerate() {
        for (authority, reply) in replies.iter().enumerate() {
            let Some(issued) = reply.as_ref().ok().and_then(|reply| reply.issued.get(i)) else { continue };
            for (tier, share) in issued.tiers.iter().zip(&issued.shares) {
                let shares = made.entry((shard, *tier)).or_default();
                if shares.last().is_none_or(|(last, _)| *last != authority) {
                    shares.push((authority, share.clone()));
                }
            }
        }
    }
    made.retain(|_, shares| shares.len() >= enough);
    made
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
