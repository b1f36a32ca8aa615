//! What must hold, and what the committee is to those who check it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::orders::Id;

/// Events are kept. Flags and the type of a change of keys, as docs/pbtx.md and docs/wire.md have them.
pub const HISTORY: u32 = 2;
/// No sequence numbers.
pub const SKIP: u32 = 4;
/// The log places every order.
pub const ORDERED: u32 = 8;
/// An actor's change of its keys.
pub const ROTATE: u32 = 0x464c_0002;

/// What a reply promises.
pub enum Promise {
    /// These orders are locked.
    Votes(Vec<Id>),
    /// These orders are settled.
    Settled(Vec<Id>),
}

/// What must hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Rule {
    /// All postings of a shard sum to zero, and its totals are those of its records.
    SumZero,
    /// At most f honest authorities see an account below zero.
    NegativeBalance,
    /// Of the orders of one seqnum at most one can have a certificate.
    OneCertificate,
    /// Nothing settles without a quorum, and nobody settles anything else.
    SettledAlike,
    /// What an honest authority signs is true when it signs.
    FalsePromise,
    /// What leaves is durable.
    NotDurable,
    /// What left is kept, whatever crashes.
    PromiseForgotten,
    /// What the quorum driver tells a wallet is true.
    FalseBelief,
    /// An honest authority never meets what can't be.
    Impossible,
    /// Evidence names liars, more than f of them, and nobody else.
    FalseEvidence,
    /// No certified order waits once the one before it is settled.
    Stuck,
    /// Logs of honest authorities are prefixes of one another, and equal prefixes come to the same.
    LogFork,
    /// An operation has one outcome, the one that it must have.
    LogOutcome,
    /// The log credits what it must, once, and its sums are those of its records.
    LogMoney,
    /// Log time never goes back, and is never ahead of all good clocks.
    LogTime,
    /// A recovery is decided once, after its time, on the reports of a quorum.
    Recovery,
    /// What a quorum has acknowledged is never voided.
    FinalVoided,
    /// An authority knows of networks and actors what the log has told it, and votes for what that allows.
    Registry,
    /// A network's stream has each of its settled orders once, in its actor's order; with ORDERED in the log's.
    Stream,
    /// A note is held by one order at a time and spent once; who asked for one and paid is known.
    Notes,
    /// Of the orders that spend a note at most one can have a certificate, and it alone spends it.
    SpentTwice,
    /// Channels are what their operations make of them; a side that is there gets what it was promised, and none has sent
    /// more than it has signed.
    Channels,
    /// Where nothing is wrong, the core's audit finds nothing.
    Audit,
    /// Without faults everything comes to its end, alike everywhere.
    Unfinished,
}

impl Rule {
    /// All there are.
    pub const ALL: [Rule; 24] = [
        Rule::SumZero,
        Rule::NegativeBalance,
        Rule::OneCertificate,
        Rule::SettledAlike,
        Rule::FalsePromise,
        Rule::NotDurable,
        Rule::PromiseForgotten,
        Rule::FalseBelief,
        Rule::Impossible,
        Rule::FalseEvidence,
        Rule::Stuck,
        Rule::LogFork,
        Rule::LogOutcome,
        Rule::LogMoney,
        Rule::LogTime,
        Rule::Recovery,
        Rule::FinalVoided,
        Rule::Registry,
        Rule::Stream,
        Rule::Notes,
        Rule::SpentTwice,
        Rule::Channels,
        Rule::Audit,
        Rule::Unfinished,
    ];
}

/// What the committee is, to the checkers.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The committee's id.
    pub committee_id: Id,
    /// The network.
    pub network_id: u64,
    /// Shards.
    pub shards: u32,
    /// Authorities.
    pub authorities: u32,
    /// Those that are not honest.
    pub byzantine: BTreeSet<u32>,
    /// The issuer's address.
    pub issuer: [u8; 32],
    /// How far it may go below zero.
    pub issuer_limit: i128,
    /// The genesis file.
    pub genesis: Vec<([u8; 32], u64)>,
    /// Flags of the PBTX networks that orders are signed for, registered or not.
    pub networks: BTreeMap<u64, u32>,
}

impl Facts {
    /// Largest number of Byzantine authorities that is survived.
    pub fn faults(&self) -> usize {
        (self.authorities as usize - 1) / 3
    }

    /// Honest votes that, with all the Byzantine ones, make a certificate.
    pub(super) fn honest_quorum(&self) -> usize {
        self.authorities as usize - self.faults() - self.byzantine.len()
    }

    /// Networks without sequence numbers.
    pub fn loose(&self) -> BTreeSet<u64> {
        self.networks.iter().filter(|(_, flags)| **flags & SKIP != 0).map(|(id, _)| *id).collect()
    }

    /// The shard of an actor: payment accounts are split by the actor, PBTX networks as a whole.
    pub fn shard_of(&self, network: u64, actor: u64) -> u32 {
        let by = if network == self.network_id { actor } else { network };
        (by % u64::from(self.shards)) as u32
    }

    /// Whether the log has to place an order of a PBTX network.
    pub fn goes_to_log(&self, network: u64, kind: u32) -> bool {
        let flags = self.networks.get(&network).copied().unwrap_or(0);
        flags & ORDERED != 0 || kind == ROTATE && flags & SKIP == 0
    }
}
