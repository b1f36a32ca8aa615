//! Log time: the median of the authorities' clock votes, never going back.
//!
//! With at most f of 3f + 1 votes wrong the median lies between two honest votes: f clocks that run ahead, or
//! stand still, move it no further than honest ones do.

use super::step::Step;
use crate::planted::{self, Bug};

impl Step<'_> {
    /// An authority's clock says `clock_ms`; 0 is no vote.
    pub(super) fn vote_clock(&mut self, authority: u32, clock_ms: u64) {
        if clock_ms == 0 {
            return;
        }
        // A clock that was ahead may be set right again; only the median never goes back.
        self.book.clocks[authority as usize] = clock_ms;
        let back = planted::is(Bug::TimeGoesBack);
        self.book.time_ms = median(&self.book.clocks).max(if back { 0 } else { self.book.time_ms });
    }
}

/// The lower median.
fn median(clocks: &[u64]) -> u64 {
    let mut sorted = clocks.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() - 1) / planted::when(Bug::TimeByMax, 1, 2)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn time_lies_between_honest_votes_whatever_f_others_say(
            f in 1_usize..12,
            base in 1_u64..1 << 40,
            spread in prop::collection::vec(0_u64..1_000, 40),
            lies in prop::collection::vec(any::<u64>(), 12),
        ) {
            let honest: Vec<u64> = spread.iter().take(2 * f + 1).map(|s| base + s).collect();
            let all: Vec<u64> = honest.iter().chain(lies.iter().take(f)).copied().collect();
            let (low, high) = (honest.iter().min().copied(), honest.iter().max().copied());
            prop_assert!(low <= Some(median(&all)) && Some(median(&all)) <= high);
        }
    }
}
