//! What authorities know of notes, by nonce: believed when `f + 1` say it.

use std::collections::BTreeMap;

use bytes::Bytes;
use florin_core::committee::Committee;
use florin_core::limits::NOTES_PER_QUERY_MAX;
use florin_core::wire::{self, note_state};
use florin_core::{Code, Error, Result};

use super::CashWallet;
use super::records::{Gone, Hex32, Record};
use crate::network::Network;
use crate::wallet::need;

/// All spent notes are there.
pub(super) const NOTES_SHARD: u32 = 0;

/// What `f + 1` authorities say of a note: spent rather than locked, locked rather than free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteState {
    /// Whether it is spent, locked, or free.
    pub state: note_state::State,
    /// By which order.
    pub order_id: Bytes,
    /// How often the log has freed it.
    pub recoveries: u32,
}

/// The states of notes, in their order. Errors: `QUORUM_UNREACHABLE`.
pub async fn states(network: &Network, nonces: &[Hex32]) -> Result<Vec<NoteState>> {
    let mut found = Vec::with_capacity(nonces.len());
    for nonces in nonces.chunks(NOTES_PER_QUERY_MAX) {
        let nonces: Vec<Bytes> = nonces.iter().map(|n| Bytes::copy_from_slice(&n.0)).collect();
        let request = wire::NotesRequest { shard: NOTES_SHARD, nonces: nonces.clone(), ..Default::default() };
        let replies = network.ask_all(NOTES_SHARD, move |mut client| {
            let request = request.clone();
            async move { client.notes(request).await }
        });
        let replies = replies.await;
        let committee = network.committee();
        need(committee, &replies, committee.validity())?;
        let said: Vec<&wire::NotesReply> =
            replies.iter().flatten().filter(|r| r.states.len() == nonces.len()).collect();
        for i in 0..nonces.len() {
            let states: Vec<&wire::NoteState> = said.iter().map(|r| &r.states[i]).collect();
            found.push(agree(committee, &states)?);
        }
    }
    Ok(found)
}

fn agree(committee: &Committee, states: &[&wire::NoteState]) -> Result<NoteState> {
    use note_state::State::{Free, Frozen, Locked, Spent};
    let enough = committee.validity();
    let most = |state: note_state::State, recoveries: bool| {
        let mut counts: BTreeMap<(&[u8], u32), usize> = BTreeMap::new();
        for said in states.iter().filter(|s| s.state() == state) {
            let key = (&said.order_id[..], if recoveries { said.recoveries } else { 0 });
            *counts.entry(key).or_default() += 1;
        }
        counts.into_iter().filter(|(_, n)| *n >= enough).max_by_key(|((_, recoveries), n)| (*recoveries, *n))
    };
    for state in [Spent, Frozen, Locked, Free] {
        if let Some(((order_id, recoveries), _)) = most(state, state == Free) {
            return Ok(NoteState { state, order_id: Bytes::copy_from_slice(order_id), recoveries });
        }
    }
    // Different orders hold it, or they have not all seen the same yet.
    if states.len() >= enough {
        return Ok(NoteState { state: Locked, order_id: Bytes::new(), recoveries: 0 });
    }
    let message = format!("{} authorities tell the states of notes, {enough} are needed", states.len());
    Err(Error::new(Code::QuorumUnreachable, message))
}

impl CashWallet {
    /// Asks for notes of this wallet, and notes which others have spent. How many are new.
    /// Errors: as of [`states`]; `IO`.
    pub async fn look(&mut self, network: &Network, nonces: &[Hex32]) -> Result<usize> {
        let found = states(network, nonces).await?;
        let spent = nonces.iter().zip(found).filter(|(_, s)| s.state == note_state::State::Spent);
        let records = spent_by(spent.map(|(n, s)| (*n, s.order_id)));
        let count = records.iter().map(|r| if let Record::Spent { notes, .. } = r { notes.len() } else { 0 }).sum();
        self.store.record(records)?;
        Ok(count)
    }

    /// How a note of this wallet went, if it did.
    pub fn gone(&self, nonce: &Hex32) -> Option<&Gone> {
        self.book().gone.get(nonce)
    }
}

/// Records of notes that others have spent, one for each order.
pub(super) fn spent_by(spent: impl Iterator<Item = (Hex32, Bytes)>) -> Vec<Record> {
    let mut by_order: BTreeMap<Bytes, Vec<Hex32>> = BTreeMap::new();
    spent.for_each(|(nonce, order)| by_order.entry(order).or_default().push(nonce));
    by_order.into_iter().map(|(by, notes)| Record::Spent { notes, by: hex::encode(by) }).collect()
}

#[cfg(test)]
#[path = "states_tests.rs"]
mod tests;
