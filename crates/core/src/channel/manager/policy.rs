//! What a manager does of its own accord, and within which bounds.

/// How a manager tops up, and what it takes and gives. Amounts are minor units, times ms of log time.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Put on top of a shortfall when a reservation or voucher makes a deposit.
    pub overshoot: u64,
    /// An end with less available than this is topped up by itself; 0 = never.
    pub low_water: u64,
    /// To this much.
    pub high_water: u64,
    /// How long it takes at most until the log has a voucher that is sent now.
    pub submit_ms: u64,
    /// Kept between a time limit and the last moment at which something can still be done about it.
    pub margin_ms: u64,
    /// Locks of each direction of a channel in flight at once.
    pub locks_max: usize,
    /// Smallest lock.
    pub lock_min: u64,
    /// Longest time until a lock expires.
    pub lock_max_ms: u64,
    /// Own clock, ms, between two tries to redeem what the log has refused.
    pub retry_ms: u64,
    /// Superseded vouchers that a lane keeps to be listed; the best ones are always kept.
    pub superseded_max: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            overshoot: 0,
            low_water: 0,
            high_water: 0,
            submit_ms: 30_000,
            margin_ms: 30_000,
            locks_max: 483,
            lock_min: 1,
            lock_max_ms: 24 * 3_600_000,
            retry_ms: 10_000,
            superseded_max: 256,
        }
    }
}
