//! Bugs on purpose, one line each, for the simulator: its checkers have to find every one of them.
//!
//! Only with the feature `planted`, which no build of a program has. Without it [`is`] is false for every bug, at compile time:
//! the wrong branches are not in the program. With it nothing is wrong either until [`set`] is called, in its thread alone.

#[cfg(feature = "planted")]
use std::cell::Cell;

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What can be planted. Each stands for a mistake that somebody could make, and no test of one function need notice.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Bug {
            $($(#[$doc])* $name,)*
        }

        impl Bug {
            /// All there are.
            pub const ALL: &[Bug] = &[$(Bug::$name,)*];
        }
    };
}

bugs! {
    // Certificates.
    /// A quorum is 2f of 3f + 1.
    QuorumTwoF,
    /// An order counts as certified with f + 1 of the votes in a certificate.
    CertifiedByFew,
    /// One authority's vote counts as often as it is in the certificate.
    SignerTwice,
    /// A certificate may be of another epoch.
    EpochUnchecked,
    /// Signatures of votes are not verified.
    VotesUnverified,
    /// Votes and acknowledgements are signed under one tag, so one is good for the other.
    OneTag,
    /// The orders that come with a certificate need not be those of its root.
    RootUnchecked,
    /// Two receipts accuse whoever has voted for one order and settled another.
    EvidenceMixesPromises,

    // Votes.
    /// A seqnum that is locked for one order is voted for another.
    SignsBoth,
    /// Settling an order forgets the votes for those after it.
    ForgetsSuccessors,
    /// What pending orders reserve is not taken from the balance.
    PendingUnreserved,
    /// An order may be one minor unit above the balance.
    BalanceOffByOne,
    /// A vote does not ask which order comes before.
    PrevHashUnchecked,
    /// The old key still signs while its change is pending.
    RekeyIgnored,
    /// A change of keys settles, and the old key goes on.
    OldKeyKept,
    /// A threshold is reached with one less.
    WeightOffByOne,
    /// Cosignors need not sign.
    CosignorsUnsigned,
    /// An actor that is frozen goes on.
    FrozenActs,
    /// What listeners ask for is not asked.
    PrechecksSkipped,

    // Roots that senders sign.
    /// Whoever sets a BLS key need not know its secret.
    PossessionUnchecked,
    /// A batch with marks may have two orders of an account.
    OrdersUnsorted,

    // Settling.
    /// A certified order settles whatever it follows.
    SettlesUnchained,
    /// The second half of a credit's posting is missing.
    CreditUnposted,
    /// A delivery between shards that comes again is applied again.
    DeliveredTwice,
    /// A delivery that is ahead of its turn is applied, and those before it never.
    DeliverySkipped,
    /// One acknowledged delivery takes all others out of the outbox.
    OutboxEmptied,
    /// A credit that is to be taken back is credited once more.
    ReversalCredits,
    /// Where nobody counts, an order in another batch is told to listeners again.
    StreamedTwice,
    /// In an ordered network listeners hear of an order before the log has placed it.
    StreamedEarly,

    // The log.
    /// Log time is the latest clock instead of the median.
    TimeByMax,
    /// Log time follows clocks back.
    TimeGoesBack,
    /// One authority's signature of a session counts as often as it is there.
    SessionSignerTwice,
    /// The orders of an item need not be those of its certificate.
    ItemUnproved,
    /// The log forgets that it has carried a CALL out.
    CallTwice,
    /// A failed operation is not refunded.
    RefundMissing,
    /// A contract is claimed after its expiry.
    ClaimsLate,
    /// A contract goes back to its sender before its expiry.
    RefundsEarly,
    /// A contract that is closed pays once more.
    ContractTwice,
    /// Any preimage opens a contract.
    PreimageUnchecked,
    /// A deposit of the primary is credited again by the next one.
    DepositTwice,
    /// The primary pays a redeem twice.
    RedeemTwice,
    /// An actor's change of keys replaces a newer one of its admin.
    GenerationIgnored,

    // Recovery.
    /// Reports of f + 1 authorities void a seqnum.
    FewReports,
    /// A recovery does not wait.
    NoWait,
    /// An authority settles what it has reported not to hold.
    FreezeIgnored,

    // E-cash.
    /// A spent note is not marked.
    NoteUnmarked,
    /// A note that one order has locked is locked by another.
    NoteLockIgnored,
    /// A bearer order may be worth more than its notes.
    BearerUnbalanced,
    /// One order may spend a note twice.
    NonceTwice,
    /// The owner of a note need not sign.
    OwnerUnchecked,
    /// The committee need not have signed a note.
    NoteUnverified,
    /// The sender of a locked note takes it back at once.
    ReturnedEarly,
    /// Shares are given for all orders of a batch of which one has settled.
    SharesUnsettled,
    /// A wallet takes a note from bad shares.
    BadShareTaken,

    // Channels.
    /// A channel can be collected at once.
    DelayIgnored,
    /// One clock is enough to begin a delay.
    DelayByOneClock,
    /// A voucher with an old nonce is redeemed.
    OldVoucher,
    /// A lane moves the whole amount of each voucher.
    LaneTwice,
    /// A merged lane keeps what it has moved.
    MergedLaneKept,
    /// Signatures of vouchers are not verified.
    VoucherUnverified,
    /// A permit to withdraw can be used again.
    PermitTwice,

    // Wallets.
    /// A wallet takes an order for final when f + 1 have settled it.
    FinalByFew,
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Plants a bug in this thread, in place of the one before.
#[cfg(feature = "planted")]
pub fn set(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether a bug is planted.
#[cfg(feature = "planted")]
pub fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether a bug is planted: never, in this build.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is(_: Bug) -> bool {
    false
}

/// The wrong value where the bug is planted, else the right one.
#[inline(always)]
pub fn when<T>(bug: Bug, wrong: T, right: T) -> T {
    if is(bug) { wrong } else { right }
}

/// That nothing is planted without the feature is not left to an optimiser's mood: a build where it is not so fails here.
#[cfg(not(feature = "planted"))]
const _: () = {
    let mut at = 0;
    while at < Bug::ALL.len() {
        assert!(!is(Bug::ALL[at]));
        at += 1;
    }
};
