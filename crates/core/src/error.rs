//! The one error of the core: a stable code, what happened, and what to do next.
//!
//! Codes never change their number or meaning; `docs/errors.md` lists them and a test holds the two
//! together. They travel unchanged over gRPC and into the command line's output.

use std::fmt;

use bytes::Bytes;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $next:literal;)*) => {
        /// A stable error code.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        #[repr(u32)]
        #[allow(missing_docs)]
        pub enum Code { $($(#[$doc])* $name = $number,)* }

        impl Code {
            /// Every code, in the order of their numbers.
            pub const ALL: &[Code] = &[$(Code::$name,)*];
            /// The code's name as users see it.
            pub fn name(self) -> &'static str { match self { $(Code::$name => $text,)* } }
            /// What a user can do about it.
            pub fn next_step(self) -> &'static str { match self { $(Code::$name => $next,)* } }
            /// The code with this number.
            pub fn from_number(number: u32) -> Option<Code> { match number { $($number => Some(Code::$name),)* _ => None } }
        }
    };
}

codes! {
    // 1xx: bytes that are not what they claim to be.
    Decode = 100, "DECODE", "send the bytes that a Florin or PBTX client produced, unchanged";
    Limit = 101, "LIMIT", "stay within the limits in docs/wire.md";
    EmptyBody = 102, "EMPTY_BODY", "an envelope needs a body";
    NonCanonical = 103, "NON_CANONICAL", "encode fields once, in order, without defaults and unknown fields";
    Int63 = 104, "INT63", "ids have their top bit clear";
    // 2xx: who.
    UnknownNetwork = 200, "UNKNOWN_NETWORK", "check the network id against the committee file";
    UnknownActor = 201, "UNKNOWN_ACTOR", "the first order of an account has seqnum 1 and carries `open`";
    DuplicateCosignor = 202, "DUPLICATE_COSIGNOR", "name each cosignor once, and not the actor";
    AuthorityCount = 203, "AUTHORITY_COUNT", "one authority for the actor and one for each cosignor";
    UnknownCosignor = 204, "UNKNOWN_COSIGNOR", "register the cosignor first";
    WrongShard = 205, "WRONG_SHARD", "send the order to the shard of its actor";
    CosignorsRefused = 206, "COSIGNORS_REFUSED", "payment networks take orders without cosignors";
    ActorFrozen = 207, "ACTOR_FROZEN", "ask the network's admin, who has frozen the actor";
    ActorExists = 208, "ACTOR_EXISTS", "choose another actor id, or have the admin change its permission";
    // 3xx: sequence.
    SeqExhausted = 300, "SEQ_EXHAUSTED", "move the money to a new account";
    BadSeq = 301, "BAD_SEQ", "run `florin wallet resume`, then sign with the next sequence number";
    BadPrevHash = 302, "BAD_PREV_HASH", "prev_hash is the first 8 bytes of sha256 of the order before";
    PendingConflict = 303, "PENDING_CONFLICT", "finish the pending order that is shown; never sign two orders for one seqnum";
    WindowFull = 304, "WINDOW_FULL", "settle the pending orders first";
    PermissionPending = 305, "PERMISSION_PENDING", "wait until the change of permission has settled";
    CallWaits = 306, "CALL_WAITS", "settle the account's earlier orders first";
    BadCallChain = 307, "BAD_CALL_CHAIN", "name the account's last CALL in `previous_call`";
    Recovering = 308, "RECOVERING", "wait until the recovery is decided: run `florin wallet recover`";
    Voided = 309, "VOIDED", "sign again with the next sequence number: a recovery has voided this one";
    // 4xx: content and money.
    BadContent = 400, "BAD_CONTENT", "see docs/wire.md for the contents of orders";
    BadAmount = 401, "BAD_AMOUNT", "amounts are from 1 to 2^63 - 1 minor units";
    BadPermission = 402, "BAD_PERMISSION", "a permission needs 1 to 16 distinct valid keys and a threshold within their weights";
    InsufficientFunds = 403, "INSUFFICIENT_FUNDS", "pay less, or wait for incoming payments to settle";
    IssuerLimit = 404, "ISSUER_LIMIT", "the issuer has reached the limit set at genesis";
    UnknownContract = 405, "UNKNOWN_CONTRACT", "check the contract's id, and that its order is ordered";
    ContractClosed = 406, "CONTRACT_CLOSED", "nothing: its money went to the other party or to an earlier order of yours";
    ContractExpired = 407, "CONTRACT_EXPIRED", "claims end at the expiry; the sender can take the money back";
    ContractOpen = 408, "CONTRACT_OPEN", "wait until the contract has expired";
    WrongPreimage = 409, "WRONG_PREIMAGE", "the preimage's sha256 must be the contract's hash";
    NotAParty = 410, "NOT_A_PARTY", "use the account that the contract names";
    PrimaryFunds = 411, "PRIMARY_FUNDS", "deposit at most what the address has on the primary";
    NetworkExists = 412, "NETWORK_EXISTS", "choose another network id";
    NotAdmin = 413, "NOT_ADMIN", "use the account that is the network's admin";
    NetworkInUse = 414, "NETWORK_IN_USE", "remove the network's actors first";
    NetworkClosed = 415, "NETWORK_CLOSED", "have the network's admin register the actor";
    Precheck = 416, "PRECHECK", "send what the network's listeners take: see `florin network show`";
    NoteSpent = 417, "NOTE_SPENT", "the note is gone: it was spent by the order that is named; whoever gave it to you spent it first";
    NoteLocked = 418, "NOTE_LOCKED", "finish the order that holds the note; if it can't be finished, run `florin cash recover`";
    BadNote = 419, "BAD_NOTE", "take notes only after `florin cash receive` has checked them: the committee never signed this one";
    NoteNotDue = 420, "NOTE_NOT_DUE", "wait for the date in the note's lock; until then only its receiver can spend it";
    NoteFreed = 421, "NOTE_FREED", "sign again, and name how often the log has freed the note";
    UnknownChannel = 430, "UNKNOWN_CHANNEL", "check the channel's id, and that the order that opens it is ordered";
    ChannelOver = 431, "CHANNEL_OVER", "nothing: the channel is collected or past its delay; open another one";
    ChannelSettling = 432, "CHANNEL_SETTLING", "redeem what you hold before the delay is over, then collect";
    ChannelNotDue = 433, "CHANNEL_NOT_DUE", "wait until the time that is shown";
    ChannelKeys = 434, "CHANNEL_KEYS", "a side says its keys once: when the channel is opened, or in an order of its own";
    ChannelOneWay = 435, "CHANNEL_ONE_WAY", "open a two-way channel for payments back";
    ChannelFunds = 436, "CHANNEL_FUNDS", "top the channel up, or pay less";
    VoucherSigner = 437, "VOUCHER_SIGNER", "each side redeems what the other has signed";
    VoucherUnsigned = 438, "VOUCHER_UNSIGNED", "ask the other side for a signed voucher";
    VoucherSecretLong = 439, "VOUCHER_SECRET_LONG", "a secret has at most 64 bytes";
    VoucherChannel = 440, "VOUCHER_CHANNEL", "use the channel that the voucher names";
    VoucherEarly = 441, "VOUCHER_EARLY", "wait until the voucher is valid";
    VoucherExpired = 442, "VOUCHER_EXPIRED", "ask the other side for a new voucher";
    VoucherAmount = 443, "VOUCHER_AMOUNT", "amounts are at most 2^63 - 1 minor units";
    VoucherSecret = 444, "VOUCHER_SECRET", "the secret's sha256 must be the voucher's secret hash";
    VoucherLane = 445, "VOUCHER_LANE", "merge lanes: a side has 1,024 of them";
    VoucherNonce = 446, "VOUCHER_NONCE", "use the newest voucher of the lane";
    MergeOwnLane = 447, "MERGE_OWN_LANE", "name each other lane once";
    MergeLane = 448, "MERGE_LANE", "redeem a voucher of that lane first";
    MergeNonce = 449, "MERGE_NONCE", "name a higher nonce of that lane";
    VirtualUnknown = 450, "VIRTUAL_UNKNOWN", "redeem the voucher with the virtual channels first";
    VirtualProof = 451, "VIRTUAL_PROOF", "use the path to the root in the lane's last voucher";
    VirtualClaimed = 452, "VIRTUAL_CLAIMED", "nothing: each virtual channel is claimed once";
    VirtualCap = 453, "VIRTUAL_CAP", "claim at most the virtual channel's cap";
    IdempotencyKey = 460, "IDEMPOTENCY_KEY", "use a new key of 1 to 64 bytes for a new request, and the same one for the same request again";
    UnknownOperation = 461, "UNKNOWN_OPERATION", "check the operation's number";
    OperationStarted = 462, "OPERATION_STARTED", "wait until it is over";
    UnknownReservation = 463, "UNKNOWN_RESERVATION", "check the reservation's number";
    OverRelease = 464, "OVER_RELEASE", "release at most what is reserved";
    ReserveShort = 465, "RESERVE_SHORT", "reserve less, or allow a deposit";
    LanesUsedUp = 466, "LANES_USED_UP", "open another channel, or go on with lanes that you have";
    LaneLocked = 467, "LANE_LOCKED", "use another lane until the lock is paid, cancelled or expired";
    NoLock = 468, "NO_LOCK", "check the lane: its lock is paid, cancelled or expired";
    VoucherNotAbove = 469, "VOUCHER_NOT_ABOVE", "amounts are what the lane has moved in all: name a higher one";
    VoucherDelta = 470, "VOUCHER_DELTA", "ask the other side for a voucher over more";
    VoucherSubmitted = 471, "VOUCHER_SUBMITTED", "nothing: wait until the log has it";
    ProofRefused = 472, "PROOF_REFUSED", "leave the proof empty: nothing is defined for it";
    ChannelDiverged = 473, "CHANNEL_DIVERGED", "settle the channel: its journal is an old one, or its keys are used elsewhere";
    LockTerms = 474, "LOCK_TERMS", "choose an amount and time limits within the bounds shown";
    ChannelNotOpen = 475, "CHANNEL_NOT_OPEN", "wait until the order that opens the channel is ordered";
    VoucherMerges = 476, "VOUCHER_MERGES", "ask for a voucher without merges and virtual channels, or redeem it by hand";
    InvoiceUnknown = 480, "INVOICE_UNKNOWN", "ask the payee for a new invoice";
    InvoiceOver = 481, "INVOICE_OVER", "ask the payee for a new invoice";
    InvoiceAmount = 482, "INVOICE_AMOUNT", "pay what the invoice asks for";
    HubRoute = 483, "HUB_ROUTE", "choose another route";
    HubFee = 484, "HUB_FEE", "ask the hub for its terms again";
    HubMargin = 485, "HUB_MARGIN", "ask the hub for its terms again, and pay anew";
    HubCaps = 486, "HUB_CAPS", "try again when earlier payments are over";
    HubFunds = 487, "HUB_FUNDS", "add money to the channel, or choose another route";
    HubOffline = 488, "HUB_OFFLINE", "try again later, or choose another route";
    HubDiverged = 489, "HUB_DIVERGED", "settle the channel: its journal is an old one, or its keys are used elsewhere";
    UnknownPayment = 490, "UNKNOWN_PAYMENT", "check the id";
    LockOver = 491, "LOCK_OVER", "pay anew, over another route if you can";
    HubProof = 492, "HUB_PROOF", "check the hub's address: whoever is there is not the other side of this channel";
    VirtualChannel = 494, "VIRTUAL_CHANNEL", "check the virtual channel's id, or take a new one";
    VirtualState = 495, "VIRTUAL_STATE", "connect again, so that both sides compare what they hold";
    VirtualAmount = 496, "VIRTUAL_AMOUNT", "sign a higher amount, up to the virtual channel's cap";
    VirtualOver = 497, "VIRTUAL_OVER", "open another virtual channel";
    VirtualTerms = 498, "VIRTUAL_TERMS", "ask the hub for its terms, and choose cap, time limits and fee within them";
    VirtualBusy = 499, "VIRTUAL_BUSY", "nothing: it is said again when the log has the claim";
    // 5xx: signatures.
    KeyType = 500, "KEY_TYPE", "the type of an authority is 0 (EOSIO_KEY)";
    SigFormat = 501, "SIG_FORMAT", "a signature has 66 bytes: curve, header, r, s";
    SigNotCanonical = 502, "SIG_NOT_CANONICAL", "sign with low S, as PBTX asks";
    KeyMismatch = 503, "KEY_MISMATCH", "sign the body with keys of the account's permission";
    DuplicateSig = 504, "DUPLICATE_SIG", "one signature per key";
    InsufficientWeight = 505, "INSUFFICIENT_WEIGHT", "more keys must sign";
    Possession = 506, "POSSESSION", "prove the possession of each BLS key that the order sets: sign with a Florin wallet";
    AggregateKey = 507, "AGGREGATE_KEY", "send this order with its own signature, and the others with an aggregate without it";
    BadAggregate = 508, "BAD_AGGREGATE", "send the orders with their own signatures, or with an aggregate of those that signed the root";
    // 6xx: votes, certificates, receipts.
    WrongCommittee = 600, "WRONG_COMMITTEE", "use the committee file this was made for";
    WrongEpoch = 601, "WRONG_EPOCH", "fetch the current committee file";
    BadRoot = 602, "BAD_ROOT", "the root must be that of the orders sent";
    BadBitmap = 603, "BAD_BITMAP", "a bitmap has one bit an order and no others";
    UnknownAuthority = 604, "UNKNOWN_AUTHORITY", "the signer is not in the committee file";
    DuplicateSigner = 605, "DUPLICATE_SIGNER", "each authority votes once in a certificate";
    NoQuorum = 606, "NO_QUORUM", "a certificate needs votes of 2f + 1 authorities";
    BadVote = 607, "BAD_VOTE", "a signature in it does not verify";
    BadProof = 608, "BAD_PROOF", "the Merkle path does not lead to the root";
    NotFinal = 609, "NOT_FINAL", "2f + 1 acknowledgements make it final; run `florin wallet resume`";
    ConflictingCertificate = 610, "CONFLICTING_CERTIFICATE", "more than f authorities misbehaved: keep the evidence and stop";
    BadSession = 611, "BAD_SESSION", "the session is not what a quorum signed: ask another authority";
    SessionMismatch = 612, "SESSION_MISMATCH", "stop this authority, keep the folder, compare with its peers";
    NoEvidence = 613, "NO_EVIDENCE", "bring two receipts that exclude each other and name the same authorities";
    // 7xx: an authority that can't.
    StorageFull = 700, "STORAGE_FULL", "free space in the data folder and restart the authority";
    StorageFailed = 701, "STORAGE_FAILED", "see the authority's log; it keeps what it promised and votes no more";
    StorageVersion = 702, "STORAGE_VERSION", "run a Florin at least as new as the one that wrote the folder";
    StorageCorrupt = 703, "STORAGE_CORRUPT", "keep the folder and stop this authority: an old or empty one forgets votes; see docs/operations.md";
    StorageBusy = 704, "STORAGE_BUSY", "another process uses the folder; stop it first";
    Busy = 705, "BUSY", "try again later, with fewer requests in flight";
    NotServed = 706, "NOT_SERVED", "this process does not run that shard";
    PeerRefused = 707, "PEER_REFUSED", "only authorities of the committee file may call this";
    OutOfOrder = 708, "OUT_OF_ORDER", "send the missing one first";
    Pruned = 709, "PRUNED", "start from a later position: the network's admin has pruned what was before";
    NotVoting = 710, "NOT_VOTING", "ask the other authorities; this one votes again in the next epoch";
    CashNotReady = 711, "CASH_NOT_READY", "wait until the committee has made the keys: see `florin committee dkg`";
    CashSharesLost = 712, "CASH_SHARES_LOST", "put this authority's backup of `cash-shares` into its data folder and restart it";
    // 8xx: a client that can't.
    Unreachable = 800, "UNREACHABLE", "check that the authority runs and that its address is right";
    Timeout = 801, "TIMEOUT", "the order is kept: run `florin wallet resume`";
    QuorumUnreachable = 802, "QUORUM_UNREACHABLE", "the order is kept: run `florin wallet resume` when enough authorities are back";
    Undecided = 803, "UNDECIDED", "the order is kept: run `florin wallet resume`";
    WrongPassphrase = 804, "WRONG_PASSPHRASE", "try again, or restore the wallet from its seed words";
    BadWords = 805, "BAD_WORDS", "check each word against your backup: order and spelling";
    BadAddress = 806, "BAD_ADDRESS", "copy the whole address, without changes";
    BadConfig = 807, "BAD_CONFIG", "correct the file and run `florin config check`";
    BadFile = 808, "BAD_FILE", "check the path and that the file is what the command expects";
    AlreadyExists = 809, "ALREADY_EXISTS", "choose another path";
    Usage = 810, "USAGE", "see `florin help`";
    AuditFailed = 811, "AUDIT_FAILED", "stop the authority, keep the folder, compare with its peers";
    Io = 812, "IO", "see the cause above";
    BadKey = 813, "BAD_KEY", "check the key's text";
}

/// An error: code, message, and for a conflict the body that was voted for instead.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    /// Stable code.
    pub code: Code,
    /// What happened, what was expected and what was found.
    pub message: String,
    /// With [`Code::PendingConflict`]: the order that holds the sequence number.
    pub pending_order: Bytes,
}

/// Result of the core.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with a message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error { code, message: message.into(), pending_order: Bytes::new() }
    }

    /// "expected X, found Y".
    pub fn expected(code: Code, what: &str, expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        Error::new(code, format!("{what}: expected {expected}, found {found}"))
    }
}

impl Error {
    /// Whether it is this authority's storage that failed, and not what it was asked.
    pub fn is_own_fault(&self) -> bool {
        matches!(
            self.code,
            Code::StorageFull | Code::StorageFailed | Code::StorageVersion | Code::StorageCorrupt | Code::StorageBusy
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.code.name(), self.code as u32, self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
