//! An authority's shard as a pure state machine: `handle(input, state) -> effects`.
//!
//! Safety rests on three things that hold after every step:
//!
//! 1. *One vote.* For a (network, actor, seqnum) the account's record names at most one order, and a
//!    vote's bit is set only for that one ([`vote`]). The record is written before the vote is sent, and
//!    changes only when a certificate for that seqnum settles.
//! 2. *One settlement.* An order settles only with a quorum's votes, at `seqnum + 1`, with the prev_hash
//!    of the one before ([`settle`]). As two certificates share an honest voter, all honest authorities
//!    settle the same order at each seqnum.
//! 3. *Nothing made, nothing lost.* Each step's postings sum to zero, asserted before it is written
//!    ([`changes`]). Credits to other shards are in flight in the outbox until their shard has applied
//!    them, once, by sequence ([`deliver`]).
//!
//! The same for notes of e-cash, by their nonces: [`mint`].
//!
//! What only the ordered log may undo is in [`recover`] and [`recover_notes`]: the one vote for a seqnum, or a note, that it
//! has frozen and decided.
//!
//! Liveness: an order of a correct wallet is voted for by every honest authority that has settled its
//! predecessors; one that has not gets them from its peers' settled streams ([`query::missing`]).

mod aggregate;
pub mod audit;
pub(crate) mod changes;
mod decoded;
pub(crate) mod deliver;
pub mod effect;
mod encode;
mod evidence;
pub mod hot;
pub mod input;
pub mod issued;
pub mod mint;
mod pbtx;
pub(crate) mod progress;
pub mod query;
mod recover;
pub(crate) mod recover_notes;
pub(crate) mod settle;
pub mod state;
mod stream;
mod vote;

use std::sync::{Arc, RwLock};

use florin_ed25519::KnownKeys;
use sha2::{Digest, Sha256};

use crate::address::Address;
use crate::cash::lately::Lately;
use crate::cash::mint_keys::MintKeys;
use crate::committee::Committee;
use crate::error::{Code, Error, Result};
use crate::limits::CERTIFICATES_PER_BATCH;
use crate::signatures::AuthorityKey;
use changes::Changes;
use decoded::Decoded;
use effect::{Effects, Reply};
use hot::Hot;
use input::Input;
use state::State;

/// What the time of a step goes to, for whoever measures it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Parsing and hashing orders.
    Decode,
    /// Signatures of senders.
    Signatures,
    /// Signing votes and acknowledgements, checking certificates.
    Votes,
    /// Rules, balances, records.
    State,
}

/// Told when a phase begins. The core has no clock; the shell measures between calls.
pub trait Meter {
    /// From here on it is this phase.
    fn begin(&mut self, phase: Phase);
}

/// Measures nothing.
pub struct NoMeter;

impl Meter for NoMeter {
    fn begin(&mut self, _: Phase) {}
}

/// One shard of one authority.
pub struct Authority {
    committee: Arc<Committee>,
    index: u32,
    shard: u32,
    key: Arc<AuthorityKey>,
    issuer: Address,
    /// Keys of e-cash, once they are made.
    mint: RwLock<Option<Arc<MintKeys>>>,
    /// Blinded nonces of orders that it has checked.
    lately: Lately,
    /// Keys of accounts that have sent lately.
    known: KnownKeys,
    /// Batches that it has voted on lately.
    decoded: Decoded,
}

impl Authority {
    /// The shard `shard` of the authority `index`, which signs with `key`.
    ///
    /// # Panics
    /// If the index or shard is not of the committee.
    pub fn new(committee: Arc<Committee>, index: u32, shard: u32, key: Arc<AuthorityKey>) -> Self {
        assert!(
            (index as usize) < committee.size() && shard < committee.shards,
            "an authority and shard of the committee"
        );
        let issuer = committee.network.issuer_address();
        Authority {
            committee,
            index,
            shard,
            key,
            issuer,
            mint: RwLock::new(None),
            lately: Lately::default(),
            known: KnownKeys::default(),
            decoded: Decoded::default(),
        }
    }

    /// Its committee.
    pub fn committee(&self) -> &Arc<Committee> {
        &self.committee
    }

    /// Its index in the committee.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its shard.
    pub fn shard(&self) -> u32 {
        self.shard
    }

    /// One step at `now_us` (us since 1970), which goes into the history of networks and decides nothing. Errors leave
    /// no change behind; errors of single orders are in the reply.
    pub fn handle(&self, now_us: u64, input: Input, state: &dyn State, meter: &mut dyn Meter) -> Result<Effects> {
        self.handle_hot(now_us, input, state, &mut Hot::default(), meter)
    }

    /// The same, with a memory of accounts that this state's tables hold.
    pub fn handle_hot(
        &self,
        now_us: u64,
        input: Input,
        state: &dyn State,
        hot: &mut Hot,
        meter: &mut dyn Meter,
    ) -> Result<Effects> {
        let mut changes = Changes::new(now_us, state)?;
        changes.hot = Some(hot);
        let reply = match input {
            Input::Vote { orders, checks } => Reply::Vote(self.vote(orders, checks, &mut changes, meter)?),
            Input::Settle { certificate, orders } => {
                Reply::Settle(self.settle(certificate, orders, CERTIFICATES_PER_BATCH, &mut changes, meter)?)
            }
            Input::Fetched { certificate, orders } => {
                Reply::Settle(self.settle(certificate, orders, usize::MAX, &mut changes, meter)?)
            }
            Input::Deliver(delivery) => Reply::Deliver(self.deliver(delivery, &mut changes, meter)?),
            Input::Delivered { to_shard, applied } => {
                for write in deliver::delivered(state, to_shard, applied)? {
                    changes.write(write);
                }
                Reply::Done
            }
            Input::Followed { authority, position } => {
                changes.put(state::Table::Cursors, authority.to_be_bytes(), position.to_be_bytes());
                Reply::Done
            }
            Input::Genesis { first_line, lines, last } => {
                self.genesis(first_line, lines, last, &mut changes)?;
                Reply::Done
            }
        };
        meter.begin(Phase::State);
        let outcome = changes.finish(self.shard)?;
        let changes::Outcome { writes, outbox, settled_end, accounts } = outcome;
        Ok(Effects { writes, reply, outbox, settled_end, accounts })
    }

    /// Whether it votes and settles at all: not before its genesis file is loaded. Errors: `BUSY`, `STORAGE_*`.
    pub fn ready(&self, state: &dyn State) -> Result<()> {
        self.check_genesis(&state::Totals::load(state)?)
    }

    fn check_genesis(&self, totals: &state::Totals) -> Result<()> {
        let none: [u8; 32] = Sha256::digest([]).into();
        match totals.genesis_done || self.committee.network.genesis_hash == none {
            true => Ok(()),
            false => Err(Error::new(
                Code::Busy,
                format!("{} lines of the genesis file are loaded, not yet all", totals.genesis_lines),
            )),
        }
    }
}

#[cfg(test)]
mod tests;
