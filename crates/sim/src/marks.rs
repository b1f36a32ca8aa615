//! What runs are made to reach: faults, attackers, and rare branches; so that what a soak never meets can be named.
//!
//! Names are those under which [`Report`] counts: as a fault, an answer or a mark.

use crate::Report;

/// What breaks without anybody's will.
pub const FAULTS: &[&str] = &[
    "lost",
    "duplicated",
    "delayed",
    "cuts",
    "cut off",
    "isolated authorities",
    "authorities that do not hear",
    "authorities that are not heard",
    "pairs that can't talk",
    "crashes",
    "crashes that lost steps",
    "crashes of logs",
    "crashes of logs that lost steps",
    "crashes of cash wallets",
    "torn writes",
    "flipped bits",
    "failed syncs",
    "full disks",
    "syncs of full disks",
    "clocks that jump ahead",
    "clocks that jump back",
    "stalls of the engine",
    "sessions cut",
];

/// Who breaks rules, and what it is counted as.
pub const ATTACKERS: &[(&str, &[&str])] = &[
    ("votes for everything", &["lies of an authority"]),
    ("withholds", &["ignored by an attacker", "withheld by an attacker"]),
    ("forgets its promises", &["states forgotten by an attacker"]),
    ("is two, with one key", &["answers of a second machine"]),
    ("shows the past", &["stale answers of an attacker"]),
    ("is slow", &["late answers of an attacker"]),
    ("sends garbage", &["garbage of an attacker"]),
    ("lies about shares of notes", &["shares of a liar"]),
    ("floods the log", &["floods of the log"]),
    ("lies in recovery", &["false reports"]),
    ("votes a wrong clock", &["wrong clocks voted"]),
    ("signs false sessions", &["false sessions", "false signatures of sessions"]),
    ("signs twice", &["orders signed twice"]),
    ("replays and bends", &["replayed"]),
    (
        "puts old chains into new batches",
        &[
            "old transactions in new batches",
            "old transactions certified again",
            "old certificates",
            "certificates at wrong shards",
        ],
    ),
    ("spends notes twice", &["notes spent twice", "notes given away after they were spent", "notes spent wrongly"]),
    ("forges notes", &["forged notes"]),
    ("asks for odd notes", &["odd requests of notes", "notes of others asked for and taken back"]),
    ("locks its accounts", &["accounts locked by their wallet"]),
    ("lies about roots", &["second orders under a root"]),
    ("makes up keys", &["keys made of others'"]),
    (
        "robs channels",
        &[
            "channels robbed",
            "vouchers changed",
            "odd vouchers",
            "withdrawals that are not due",
            "strangers in channels",
        ],
    ),
];

/// Rare branches that a soak has to hit, each somewhere.
pub const MARKS: &[&str] = &[
    // Crashes.
    "crash between write and sync",
    "crash before a promise left",
    "crash after a write",
    "crash as a sync begins",
    "crash in a sync",
    "crash between a sync and its replies",
    "crash between two replies",
    "STORAGE_FAILED",
    // Orders.
    "certificate for a part of a batch",
    "certificate that needed a liar's vote",
    "order waits for an earlier one",
    "batch missing",
    "refused batches of peers",
    "garbage of peers",
    "PENDING_CONFLICT",
    "BAD_SEQ",
    "NO_QUORUM",
    "DUPLICATE_SIGNER",
    "WRONG_EPOCH",
    "OUT_OF_ORDER",
    "PEER_REFUSED",
    // Roots that senders sign.
    "orders final by a signed root",
    "signed root taken by some alone",
    "false signature of a root found",
    "AGGREGATE_KEY",
    "BAD_AGGREGATE",
    "POSSESSION",
    // The log.
    "operation refunded",
    "contract claimed",
    "contract refunded",
    "sessions from peers",
    "refused sessions of peers",
    "refused signatures of sessions",
    "CALL_WAITS",
    // Recovery.
    "recovery voids",
    "recovery keeps a reported order",
    "accounts that went on",
    "certificates that wait for a recovery",
    "RECOVERING",
    // PBTX.
    "ACTOR_FROZEN",
    "BAD_PERMISSION",
    "KEY_MISMATCH",
    "PERMISSION_PENDING",
    "PRECHECK",
    "UNKNOWN_ACTOR",
    "UNKNOWN_COSIGNOR",
    "UNKNOWN_NETWORK",
    "WRONG_SHARD",
    // Notes.
    "bad share found and named",
    "bearer order settled by catching up",
    "certificate over another lock",
    "gifts refused that are no notes",
    "locked notes taken back",
    "note held up by two orders",
    "note spent by another wallet",
    "notes thrown into the crowd",
    "wallet resumed between settle and shares",
    "NOTE_LOCKED",
    "NOTE_SPENT",
    "NOTE_FREED",
    "BAD_NOTE",
    // Channels.
    "cancel answers a lock that was redeemed",
    "cancel redeemed before its lock",
    "channel opened by a third",
    "collected by a stranger",
    "emptied lane used again",
    "keys of a channel said later",
    "lanes merged",
    "lock redeemed that was given back",
    "lock redeemed with its secret",
    "one order over several channels",
    "one side has sent more than it had",
    "redeemed and withdrawn in one order",
    "redeemed by a watcher",
    "robbed while away",
    "side stood up for itself",
    "six vouchers in one order",
    "voucher back in a two-way channel",
    "voucher redeemed shortly before the end",
    "voucher redeemed while the channel settles",
    "withdrawn after announcing",
    "withdrawn with a permit",
    "CHANNEL_FUNDS",
    "CHANNEL_KEYS",
    "CHANNEL_NOT_DUE",
    "CHANNEL_ONE_WAY",
    "CHANNEL_OVER",
    "CHANNEL_SETTLING",
    "NOT_A_PARTY",
    "VOUCHER_EXPIRED",
    "VOUCHER_NONCE",
    "VOUCHER_SIGNER",
];

/// How often a run has met something.
pub fn count(report: &Report, name: &str) -> u64 {
    [&report.faults, &report.replies, &report.marks].into_iter().filter_map(|of| of.get(name)).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_stands_once() {
        let attackers = ATTACKERS.iter().flat_map(|(_, kinds)| *kinds);
        let all: Vec<&str> = FAULTS.iter().chain(MARKS).chain(attackers).copied().collect();
        let distinct: BTreeSet<&str> = all.iter().copied().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
