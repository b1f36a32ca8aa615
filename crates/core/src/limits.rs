//! Every bound of the protocol, in one place. Relations between them are asserted at compile time.

/// Orders in one batch.
pub const ORDERS_PER_BATCH_MAX: usize = 4_096;
/// Curve operations for the orders of one batch that take more than the one ed25519 key of their account; the order
/// that uses it up is still verified. Two an order fit; signatures in an unfortunate order take more.
pub const VERIFICATIONS_PER_BATCH: usize = 2 * ORDERS_PER_BATCH_MAX;
/// Curve operations that checking one BLS signature, or one proof of possession, counts as.
pub const BLS_VERIFICATION_COST: usize = 16;
/// Keys of senders that a shard keeps decompressed; some 20 MB.
pub const KNOWN_KEYS_MAX: usize = florin_ed25519::KNOWN_KEYS_MAX;
/// Bytes of one gRPC message.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes that certificates may add to the orders of a batch in one message.
pub const CERTIFICATES_BYTES_MAX: usize = 1024 * 1024;
/// Certificates of one batch that clients may hand in, each for orders that those before did not certify. An
/// honest client needs one or a few; a lying authority's votes could make one for each order.
pub const CERTIFICATES_PER_BATCH: usize = 16;
/// Bytes of an encoded `TransactionBody` (PBTX).
pub const BODY_BYTES_MAX: usize = 65_000;
/// Bytes of `transaction_content` (PBTX).
pub const CONTENT_BYTES_MAX: usize = 16_384;
/// Bytes of a payment's memo, UTF-8.
pub const MEMO_BYTES_MAX: usize = 256;
/// Orders an account may have voted for and not settled.
pub const PENDING_WINDOW: usize = 64;
/// Orders of earlier certificates that one step settles because what they waited for has settled in it; the rest
/// settle when they are handed in again. It bounds what a step writes.
pub const FOLLOWERS_MAX: usize = 128;
/// Authorities of a committee.
pub const COMMITTEE_MIN: usize = 4;
/// Authorities of a committee.
pub const COMMITTEE_MAX: usize = 128;
/// Shards of a committee.
pub const SHARDS_MAX: u32 = 1_024;
/// Cosignors of an order (PBTX).
pub const COSIGNORS_MAX: usize = 4;
/// Keys of a permission (PBTX).
pub const KEYS_MAX: usize = 16;
/// Authorities of an envelope (PBTX).
pub const AUTHORITIES_MAX: usize = 8;
/// Signatures in one authority of an envelope (PBTX).
pub const SIGS_PER_AUTHORITY_MAX: usize = 16;
/// Bytes of a signature that the decoder takes at all (PBTX); a valid one has 66, or 97.
pub const SIG_BYTES_MAX: usize = 128;
/// Outputs of an order.
pub const OUTPUTS_MAX: usize = 256;
/// Inputs of an order.
pub const INPUTS_MAX: usize = 256;
/// Bytes of the content of a CALL: with the votes of the largest committee it fits into a unit of the log.
pub const CALL_BYTES_MAX: usize = 8_192;
/// Notes that an order spends: what the signatures of an envelope hold, one for each.
pub const NOTES_IN_MAX: usize = AUTHORITIES_MAX * SIGS_PER_AUTHORITY_MAX;
/// Notes that a bearer order spends, and its outputs.
pub const NOTES_PER_ORDER_MAX: usize = 256;
/// Notes spent and asked for by the orders of one batch; what is above is `BUSY`.
pub const NOTES_PER_BATCH_MAX: usize = 2_048;
/// Blinded nonces and nonces in one question.
pub const NOTES_PER_QUERY_MAX: usize = 1_024;
/// Bytes of a preimage.
pub const PREIMAGE_BYTES_MAX: usize = 64;
/// Lanes of one side of a channel.
pub const LANES_MAX: u32 = 1_024;
/// Lanes that a voucher merges.
pub const MERGES_MAX: usize = 16;
/// Virtual channels over one lane.
pub const VIRTUALS_MAX: u32 = 256;
/// Largest nonce of a voucher that a manager signs or takes.
pub const VOUCHER_NONCE_MAX: u64 = (1 << 63) - 1;
/// Vouchers in one message of a channel manager to the log.
pub const REDEMPTIONS_MAX: usize = 40;
/// Bytes of an idempotency key.
pub const IDEMPOTENCY_BYTES_MAX: usize = 64;
/// Shortest delay between the settle of a channel and its collect, ms of log time.
pub const CHANNEL_DELAY_MIN_MS: u64 = 1_000;
/// Longest, ms of log time.
pub const CHANNEL_DELAY_MAX_MS: u64 = 90 * 24 * 3_600_000;
/// Hubs on the way of a payment.
pub const HUB_HOPS_MAX: usize = 16;
/// Locks that a hub takes on a channel at once, unless its policy says otherwise; fewer than a manager takes, so that one too
/// many can be given back with a signature.
pub const HUB_LOCKS_MAX: usize = 400;
/// Ms of log time that a hub's incoming lock lives longer than the outgoing one, unless its policy says otherwise.
pub const HUB_MARGIN_MS: u64 = 1_800_000;
/// Ms of log time until a hub has seen what the log redeemed, at worst, unless its policy says otherwise.
pub const HUB_GRACE_MS: u64 = 600_000;
/// Ms of log time that the last lock of a payment lives, unless the payer's policy says otherwise.
pub const HUB_FINAL_MS: u64 = 3_600_000;
/// Ms of log time after its time limit until the lane of an expired lock is used for another: the other side has to see that it is over.
pub const HUB_REST_MS: u64 = 600_000;
/// Ms of log time after its expiry and its end until an invoice or a payment over hubs is forgotten.
pub const HUB_KEEP_MS: u64 = 24 * 3_600_000;
/// Payments, and as many invoices, that are forgotten at once.
pub const HUB_FORGET_MAX: usize = 4_096;
/// Vouchers that a side of a channel compares after connecting.
pub const HUB_LANES_SHOWN_MAX: usize = 2_048;
/// Bytes of a frame between the two sides of a channel.
pub const HUB_FRAME_BYTES_MAX: usize = 65_536;
/// Messages to the other side of a channel that wait to be sent; with more of them the connection is closed.
pub const HUB_QUEUE_MAX: usize = 2_048;
/// Messages of the other side that are in hand at once; more wait.
pub const HUB_IN_HAND_MAX: usize = 64;
/// Ms until both sides of a connection must have proved who they are.
pub const HUB_PROOF_MS: u64 = 10_000;
/// Virtual channels that a wallet takes on a channel at once, unless its policy says otherwise.
pub const VIRTUALS_PER_CHANNEL_MAX: usize = 4_096;
/// Bytes of the virtual channels that are opened between a voucher that was signed back and the newest one: they go in one frame.
pub const VIRTUAL_OPENS_BYTES_MAX: usize = 32_768;
/// Ms of log time before the limit of a virtual channel at which a watchtower claims it; who it watches for does so earlier.
pub const WATCH_CLAIM_MS: u64 = 90_000;
/// Ms of log time after its last time limit until a hub or payee forgets a virtual channel that is over.
pub const VIRTUAL_KEEP_MS: u64 = 24 * 3_600_000;
/// Bytes of a network's metadata.
pub const METADATA_BYTES_MAX: usize = 1_024;
/// Listeners of a network.
pub const LISTENERS_MAX: usize = 16;
/// Rows of a network's history that one order prunes.
pub const PRUNE_ROWS_MAX: u32 = 256;
/// Type ranges of a precheck.
pub const PRECHECK_TYPES_MAX: usize = 16;
/// Bytes of all prechecks of a network.
pub const PRECHECKS_BYTES_MAX: usize = 4_096;
/// Actors of a precheck.
pub const PRECHECK_ACTORS_MAX: usize = 256;
/// Age below which history is not pruned, ms of log time.
pub const PRUNE_AGE_MS: u64 = 600_000;
/// Bytes of the data of one unit of the log.
pub const UNIT_BYTES_MAX: usize = 81_920;
/// Rounds of the ordering engine in one session.
pub const SESSION_ROUNDS: u32 = 500;
/// Bytes of the data of all units in one session.
pub const SESSION_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Milliseconds of log time between the freeze of an account and the decision of its recovery.
pub const RECOVERY_WAIT_MS: u64 = 600_000;
/// Sessions in one answer.
pub const SESSIONS_PAGE: usize = 256;
/// Bytes of units in one answer.
pub const UNITS_PAGE_BYTES: usize = 1024 * 1024;
/// Tiers of e-cash: notes of 2^0 to 2^31 minor units.
pub const CASH_TIERS: usize = 32;
/// Largest amount, minor units: amounts are below 2^63.
pub const AMOUNT_MAX: u64 = (1 << 63) - 1;
/// Largest network id and actor id: their top bit is clear.
pub const ID_MAX: u64 = (1 << 63) - 1;
/// Decimals of a currency.
pub const DECIMALS_MAX: u8 = 18;
/// Entries on one page of a query.
pub const PAGE_MAX: usize = 256;
/// Credits in one record: reading one of them reads the record.
pub const CREDITS_PER_RECORD: usize = 64;
/// Requests one connection may have in flight.
pub const REQUESTS_PER_CONNECTION: usize = 256;
/// Connections one process accepts.
pub const CONNECTIONS_MAX: usize = 4_096;
/// Bytes of requests that a listener has in hand and of answers that it has not sent; a quarter of it for one host.
pub const REQUESTS_BYTES_MAX: usize = 256 * 1024 * 1024;
/// For so long a host's refused order counts against it at a shard, ms, one after the other: what it may have refused for ever is
/// one order in so much time. More than what it costs the shard, by far.
pub const REFUSED_ORDER_MS: u64 = 5;
/// Entries in one message of the settled stream.
pub const FOLLOW_PAGE: usize = 1_024;

// An order with the votes of the largest committee and its path fits into a unit.
const _: () = assert!(CALL_BYTES_MAX <= CONTENT_BYTES_MAX);
const _: () = assert!(
    CONTENT_BYTES_MAX + 1_024 + COMMITTEE_MAX * (ORDERS_PER_BATCH_MAX / 8 + 96) * 2 / 3 + 12 * 34 < UNIT_BYTES_MAX
);
const _: () = assert!(COMMITTEE_MIN >= 4 && COMMITTEE_MAX >= COMMITTEE_MIN);
// What is forgotten is over on every channel by far, and no restart hears a log time that is older by so much.
const _: () = assert!(HUB_KEEP_MS > 2 * (HUB_MARGIN_MS + HUB_FINAL_MS + HUB_REST_MS));
// Whoever pays a hub has the time to be seen by it.
// Both sides' locks in one go after a reconnect, and what vouchers are compared in one frame.
const _: () = assert!(HUB_QUEUE_MAX >= 4 * HUB_LOCKS_MAX && HUB_FRAME_BYTES_MAX >= 20 * HUB_LANES_SHOWN_MAX);
// Beside what is opened: what is closed, with ids and amounts, and the voucher.
const _: () = assert!(HUB_FRAME_BYTES_MAX >= VIRTUAL_OPENS_BYTES_MAX + 60 * VIRTUALS_MAX as usize + 4_096);
const _: () = assert!(HUB_MARGIN_MS > HUB_GRACE_MS && HUB_LANES_SHOWN_MAX >= 2 * LANES_MAX as usize);
const _: () = assert!(AUTHORITIES_MAX > COSIGNORS_MAX);
const _: () = assert!(CONTENT_BYTES_MAX < BODY_BYTES_MAX && BODY_BYTES_MAX < MESSAGE_BYTES_MAX);
// A host may hand in some of the largest messages at once.
const _: () = assert!(REQUESTS_BYTES_MAX / 4 >= 8 * (MESSAGE_BYTES_MAX + CERTIFICATES_BYTES_MAX));
// The sum of all outputs of one order cannot overflow the i128 it is computed in.
const _: () = assert!((OUTPUTS_MAX as u128) * (AMOUNT_MAX as u128) < (1 << 126));
