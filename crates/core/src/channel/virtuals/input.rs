//! All that the machine of virtual channels is told or asked.

use bytes::Bytes;

use super::route::fee;
use crate::channel::manager::{self, EndId, Signer};
use crate::error::Result;
use crate::limits::{HUB_GRACE_MS, HUB_MARGIN_MS, VIRTUALS_PER_CHANNEL_MAX};
use crate::merkle::Hash;
use crate::wire::{self, SignedPermit, VirtualAmount, VirtualHop, VirtualTerms};

/// Id of a virtual channel: 32 bytes that its payer never uses again.
pub type VirtualId = Hash;

/// What it has to know beside its journal.
#[derive(Clone, Debug)]
pub struct Config {
    /// Of the manager: its times are those of the log's ways.
    pub channels: manager::Policy,
    /// Its own.
    pub policy: Policy,
}

/// What a wallet asks for and allows. Amounts are minor units, times ms of log time.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Whether it opens virtual channels for others.
    pub forwards: bool,
    /// Whether it takes such as end here.
    pub accepts: bool,
    /// What it takes for opening one, whatever becomes of it.
    pub fee_base: u64,
    /// And millionths of the cap, rounded up.
    pub fee_ppm: u32,
    /// Between the two time limits of one that is passed on; at least grace + the manager's `submit_ms` and `margin_ms`.
    pub margin_ms: u64,
    /// Until it has seen what the log has, at worst.
    pub grace_ms: u64,
    /// Of the other side of one channel at once.
    pub channels_max: usize,
    /// Smallest cap.
    pub cap_min: u64,
    /// The most of the own money that those that are passed on bind, all together.
    pub backs_max: u64,
    /// Own clock, ms, between two times that it says the same again.
    pub retry_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            forwards: true,
            accepts: true,
            fee_base: 1,
            fee_ppm: 100,
            margin_ms: HUB_MARGIN_MS,
            grace_ms: HUB_GRACE_MS,
            channels_max: VIRTUALS_PER_CHANNEL_MAX,
            cap_min: 1,
            backs_max: u64::MAX,
            retry_ms: 10_000,
        }
    }
}

impl Config {
    /// The time before a limit in which something can no longer be claimed for sure.
    pub fn claim_ms(&self) -> u64 {
        self.channels.submit_ms.saturating_add(self.channels.margin_ms)
    }

    /// The time that the channel that comes in lives longer than the one that goes out.
    pub fn margin_ms(&self) -> u64 {
        self.policy.margin_ms.max(self.policy.grace_ms.saturating_add(self.claim_ms()))
    }

    /// What it takes for opening one with this cap.
    pub fn fee(&self, cap: u64) -> u64 {
        fee(&self.terms(), cap)
    }

    /// What it publishes, if it passes on.
    pub fn terms(&self) -> VirtualTerms {
        let Policy { fee_base, fee_ppm, cap_min, .. } = self.policy;
        VirtualTerms { fee_base, fee_ppm, margin_ms: self.margin_ms(), cap_min }
    }
}

/// A virtual channel to open.
#[derive(Clone, Debug)]
pub struct Open {
    /// 32 bytes that were never used before; the same again asks for the same channel.
    pub id: VirtualId,
    /// Own end of the channel with the first hub (or with the payee).
    pub end: EndId,
    /// Encoded permission with actor 0 of the keys that sign the payments.
    pub permission: Bytes,
    /// The most that it can move, minor units.
    pub cap: u64,
    /// Log time of the first leaf's end, ms.
    pub not_after_ms: u64,
    /// For the first hub, minor units.
    pub fee: u64,
    /// What each hub is to do.
    pub hops: Vec<VirtualHop>,
}

/// An input.
#[derive(Clone, Debug)]
pub enum Input {
    /// For the manager, in a wallet without a [`crate::channel::hub::Hub`]. Reply: `Channel`.
    Channel(Box<manager::Input>),
    /// The manager has changed, or time has passed: to be said after every input that a hub had, and every few seconds. Reply: `Done`.
    Look,
    /// Opens a virtual channel. Reply: `Done`.
    Open(Open),
    /// Pays over it: signs what it has moved in all. Reply: `Signed`.
    Pay {
        /// Which.
        id: VirtualId,
        /// In all, minor units.
        amount: u64,
    },
    /// Closes it: the payee shows the last amount; the payer asks the payee to. Reply: `Done`.
    Close(VirtualId),
    /// The other side of a channel is there: a connection that has proved to be its, and its number, which is none of an
    /// earlier one. Reply: `Done`.
    Connected(EndId, u64),
    /// It is gone.
    Disconnected(EndId),
    /// It says something. An error has changed nothing.
    Message {
        /// Own end of the channel.
        end: EndId,
        /// What.
        message: Box<wire::VirtualMessage>,
    },
    /// The other party of a virtual channel says something. Reply: `Done`, or `Received`.
    Peer(wire::VirtualPeer),
    /// Payments that came in, whose signatures are verified together. Reply: `Received`, one for each.
    Payments(Vec<SignedPermit>),
}

/// Signs for own accounts, and payments over virtual channels. Deterministic.
pub trait VirtualSigner: Signer {
    /// Signs what a virtual channel has moved, with keys of this encoded permission.
    fn virtual_amount(&self, permission: &Bytes, amount: &VirtualAmount) -> Result<SignedPermit>;
}
