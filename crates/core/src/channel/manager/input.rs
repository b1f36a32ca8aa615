//! All that a channel manager is told or asked.

use bytes::Bytes;

use crate::address::Address;
use crate::error::{Code, Error, Result};
use crate::merkle::Hash;
use crate::wire;

use super::end::Exposed;

/// Number of a request or chain message; durable, never used twice.
pub type OpId = u64;
/// Number of a reservation; durable, never used twice, also not by a request.
pub type ReservationId = u64;

/// One end of a channel: a manager with both sides' keys has two of the same channel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EndId {
    /// The channel.
    pub channel: Hash,
    /// The own side, 0 or 1.
    pub side: u32,
}

/// The two clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Log time, ms since 1970, as far as known: the latest that an authority's answer had. It decides all that is about money.
    pub log_ms: u64,
    /// Own clock, ms, for when to try again.
    pub clock_ms: u64,
}

/// What a reservation is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// Whatever the caller keeps in mind; it is released by its number.
    Named,
    /// The vouchers of a lane, which use it up.
    Lane(u32),
    /// The anonymous pool, which is released by amount.
    Pool,
}

/// The conditions of a voucher. None: it is money at once and for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// sha256 of the secret that it takes; a lock also needs `not_after_ms`.
    pub secret_hash: Option<Hash>,
    /// Log time from which it can be redeemed, ms; 0 = at once.
    pub not_before_ms: u64,
    /// Log time up to which, this ms included; 0 = always.
    pub not_after_ms: u64,
}

/// A voucher that came in.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The end that it came to.
    pub end: EndId,
    /// As it came.
    pub voucher: wire::SignedVoucher,
    /// Secret of its lock, if already known; else empty.
    pub secret: Bytes,
    /// Must be empty: nothing is defined for it.
    pub proof: Bytes,
    /// Least increase of the lane that is worth storing it, minor units.
    pub min_delta: u64,
}

/// How a chain message ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The log has applied it; the channel as it is afterwards (or later), and the log's time of that answer.
    Confirmed {
        /// Read after the order was ordered.
        record: Box<wire::ChannelRecord>,
        /// Log time of the record, ms.
        time_ms: u64,
    },
    /// The order is over and has done nothing, for good. What may still work must not be reported as failed.
    Failed {
        /// Number of the error's code.
        code: u32,
        /// What happened.
        message: String,
    },
}

/// A new channel.
#[derive(Clone, Debug)]
pub struct Create {
    /// Idempotency key, 1 to 64 bytes: the same again gives the same operation.
    pub key: Bytes,
    /// Own account.
    pub from: Address,
    /// The other side.
    pub to: Address,
    /// The other side's encoded permission, if known and the hash of its address; else empty.
    pub to_permission: Bytes,
    /// First deposit, minor units; may be 0.
    pub amount: u64,
    /// Log time between settle and collect, ms.
    pub delay_ms: u64,
    /// Whether the other side pays, too.
    pub two_way: bool,
}

/// Money of an end that is set aside.
#[derive(Clone, Debug)]
pub struct Reserve {
    /// The end.
    pub end: EndId,
    /// Idempotency key, or empty.
    pub key: Bytes,
    /// Minor units; 0 does nothing.
    pub amount: u64,
    /// What for.
    pub usage: Use,
    /// Refuse (`RESERVE_SHORT`) instead of topping up.
    pub off_chain_only: bool,
}

/// A voucher to sign.
#[derive(Clone, Debug)]
pub struct Issue {
    /// The paying end.
    pub end: EndId,
    /// The lane.
    pub lane: u32,
    /// What the lane has moved after it, minor units: only what is more than the lane's is new.
    pub amount: u64,
    /// Its conditions; with any of them its money is locked and not yet paid.
    pub conditions: Conditions,
}

/// An input.
#[derive(Clone, Debug)]
pub enum Input {
    /// Opens a channel, always a new one. Reply: `Op`.
    Create(Create),
    /// Deposits more. Reply: `Op`. Requests that wait merge into one deposit.
    AddFunds {
        /// Where.
        end: EndId,
        /// Idempotency key, or empty.
        key: Bytes,
        /// Minor units, at least 1.
        amount: u64,
    },
    /// Takes a request that still waits out of the queue. Reply: `Done`.
    Cancel(OpId),
    /// Sets money aside. Reply: `Reserved`.
    Reserve(Reserve),
    /// Frees a reservation, pending or not. Reply: `Released` with what it still held.
    Release {
        /// Where.
        end: EndId,
        /// Which.
        reservation: ReservationId,
    },
    /// Frees a part of the anonymous pool. Reply: `Released`.
    ReleaseAmount {
        /// Where.
        end: EndId,
        /// Minor units; more than the pool has is `OVER_RELEASE`.
        amount: u64,
    },
    /// The next free lane. Reply: `Lane`.
    AllocateLane(EndId),
    /// Signs a voucher. Reply: `Issued`.
    VoucherCreate(Issue),
    /// The payer's answer to a secret: pays the lane's locked money for good. Reply: `Issued`.
    LockPaid {
        /// The paying end.
        end: EndId,
        /// Lane of the lock.
        lane: u32,
        /// Its secret.
        secret: Bytes,
    },
    /// The payee gives up a lock: signs a voucher back to the lane's old amount. Reply: `Issued`.
    LockCancel {
        /// The paid end.
        end: EndId,
        /// Lane of the lock.
        lane: u32,
    },
    /// Checks and stores a voucher: of the payer, or of the payee who cancels a lock. Reply: `Added`.
    VoucherAdd(Incoming),
    /// Many, whose signatures are verified together. Reply: `AddedMany`, one for each.
    VoucherAddMany(Vec<Incoming>),
    /// The secret of a lock that pays this end. Reply: `Done`.
    Secret {
        /// The paid end.
        end: EndId,
        /// Lane of the lock.
        lane: u32,
        /// The secret.
        secret: Bytes,
    },
    /// Redeems a voucher (stores it first if it is new). Reply: `Op`.
    VoucherSubmit {
        /// As for adding; `min_delta` does not count.
        voucher: Incoming,
    },
    /// Redeems the best voucher of every lane, in as few messages as they fit in. Reply: `Ops`.
    SubmitAll(EndId),
    /// Begins to settle; no vouchers are signed from now on, unless it fails. Reply: `Op`.
    Settle(EndId),
    /// Pays both sides out after the delay. Reply: `Op` or `NotYet`.
    Collect(EndId),
    /// Tells the log the own keys, if the channel was opened without. Reply: `Op`.
    Keys(EndId),
    /// Announces a withdrawal that the other side has not signed for; 0 takes it back. Reply: `Op`.
    Leave {
        /// Where.
        end: EndId,
        /// Minor units.
        amount: u64,
    },
    /// Takes money out of the open channel: with the other side's permit, or after an announcement. Reply: `Op`.
    Withdraw {
        /// Where.
        end: EndId,
        /// Minor units, at least 1.
        amount: u64,
        /// Encoded `WithdrawPermit` of the other side.
        permit: Option<wire::SignedPermit>,
    },
    /// Signs that the other side may take money out. Reply: `Permitted`.
    Permit {
        /// Own end.
        end: EndId,
        /// What the other side has taken out after it, in all, minor units.
        withdrawn: u64,
        /// Log time up to which, ms; 0 = always.
        not_after_ms: u64,
    },
    /// The answer to the effect `Prepare`.
    Prepared {
        /// Which.
        op: OpId,
        /// Id of the signed order.
        order_id: Hash,
        /// Index of its first output that the message has.
        output: u32,
        /// The order's bytes.
        order: Bytes,
    },
    /// A chain message is over; also instead of `Prepared`, if there can't be one.
    Outcome {
        /// Which.
        op: OpId,
        /// How.
        outcome: Outcome,
    },
    /// A channel as the log has it. One that was seen before, or an older one, changes nothing.
    Seen {
        /// The channel.
        channel: Hash,
        /// Its record.
        record: Box<wire::ChannelRecord>,
        /// Log time of the record, ms.
        time_ms: u64,
    },
    /// For the lanes of virtual channels; meant for [`crate::channel::virtuals`].
    Virtual(VirtualInput),
    /// Time passes; say it every few seconds. Reply: `Done`.
    Tick,
}

/// What the machine of virtual channels tells a manager. It knows the channels of each set; the manager knows what money they bind.
#[derive(Clone, Debug)]
pub enum VirtualInput {
    /// Signs the next voucher of an own lane. Reply: `Issued`.
    Issue {
        /// The paying end.
        end: EndId,
        /// A lane that nothing else was paid on.
        lane: u32,
        /// What it has moved after it, without what is claimed, minor units.
        amount: u64,
        /// The virtual channels; none when all are over.
        set: Option<wire::VirtualSet>,
        /// What may still come of it, with all vouchers that the payee has not given up.
        exposed: Exposed,
        /// Latest time limit of a channel that is new in the set, log time in ms; 0 = none is new.
        until_ms: u64,
    },
    /// The payee's signature of an own voucher of such a lane. Reply: `Done`.
    Ack {
        /// The paying end.
        end: EndId,
        /// As the own one, signed by the other side.
        voucher: wire::SignedVoucher,
        /// What may still come of the lane.
        exposed: Exposed,
        /// Latest time limit of a channel that the lane ever had, log time in ms.
        until_ms: u64,
    },
    /// Stores the other side's next voucher, and signs it as well. Reply: `Issued`; the same again gives the same.
    Add {
        /// The paid end.
        end: EndId,
        /// As it came.
        voucher: wire::SignedVoucher,
        /// What may come of it.
        exposed: Exposed,
    },
    /// What is left after a time limit or a claim. Reply: `Done`.
    Left {
        /// Own end.
        end: EndId,
        /// Whose money it is.
        payer: u32,
        /// The lane.
        lane: u32,
        /// What may still come of it.
        exposed: Exposed,
    },
    /// Claims virtual channels in the log; redeems the newest voucher of their lane first, if the log does not have it. Reply: `Op`.
    Claim {
        /// The paid end.
        end: EndId,
        /// The lane.
        lane: u32,
        /// At most as many as fit into a message.
        claims: Vec<wire::VirtualClaim>,
    },
}

/// Signs for own accounts: the trait `Wallet`, as far as the manager sees it. Deterministic: the same terms give the same bytes.
pub trait Signer {
    /// Signs a voucher for a side, with the account's keys. Errors: the wallet's own, for instance if it has no such account.
    fn voucher(&self, account: &Address, terms: wire::Voucher, side: u32) -> Result<crate::channel::voucher::Voucher>;
    /// Signs that the other side may withdraw.
    fn withdraw(&self, account: &Address, permit: &wire::WithdrawPermit) -> Result<wire::SignedPermit>;
    /// Signs that a watcher may redeem.
    fn watch(&self, account: &Address, permit: &wire::WatchPermit) -> Result<wire::SignedPermit>;
    /// Signs that a connection is the account's ([`crate::channel::hub::introduction`]). Only the shell asks for it.
    fn introduce(&self, account: &Address, introduction: &wire::HubIntroduction) -> Result<Vec<Bytes>> {
        let _ = introduction;
        Err(Error::new(Code::NotAParty, format!("nobody signs connections for {account:?} here")))
    }
}
