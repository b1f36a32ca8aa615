//! Blinded nonces that were decoded lately. An order's are checked before the vote and needed again once it has settled, and most of the
//! cost of decoding is the check that a point is of the subgroup: here it is done once.
//!
//! A memory of what a function of the bytes alone gave: it decides nothing. Only what [`BlindedNonce::parse`] has taken is ever in
//! it, so what comes out is as checked as if it had been parsed again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::blind::BlindedNonce;
use super::curve::G1_BYTES;
use crate::error::Result;
use crate::limits::NOTES_PER_BATCH_MAX;

/// Points of one generation; there are two, of which the older is dropped when the younger is full. Some MB at most.
const GENERATION: usize = 4 * NOTES_PER_BATCH_MAX;

type Points = HashMap<[u8; G1_BYTES], BlindedNonce>;

/// The points.
#[derive(Default)]
pub struct Lately(Mutex<[Points; 2]>);

impl Lately {
    /// Parses, and keeps. Errors: `DECODE`.
    pub fn keep(&self, bytes: &[u8]) -> Result<BlindedNonce> {
        let point = BlindedNonce::parse(bytes)?;
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if generations[0].len() >= GENERATION {
            generations.swap(0, 1);
            generations[0].clear();
        }
        generations[0].insert(point.to_bytes(), point);
        Ok(point)
    }

    /// Parses what is not kept. Errors: `DECODE`.
    pub fn parse(&self, bytes: &[u8]) -> Result<BlindedNonce> {
        let generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = generations.iter().find_map(|points| points.get(bytes)).copied();
        drop(generations);
        kept.map_or_else(|| BlindedNonce::parse(bytes), Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cash::blind::{BlindingFactor, Nonce};
    use crate::cash::testing::scalar;
    use crate::error::Code;

    #[test]
    fn gives_what_parsing_gives() {
        let lately = Lately::default();
        let factor = BlindingFactor::new(scalar("factor")).unwrap();
        let good = Nonce([1; 32]).blind(&factor);
        let mut of_order_3 = [0; G1_BYTES];
        of_order_3[0] = 0x80;
        for bytes in [&good.to_bytes()[..], &of_order_3, &[0xc0; G1_BYTES], b"short"] {
            let expected = BlindedNonce::parse(bytes).map_err(|e| e.code);
            for _ in 0..2 {
                assert_eq!(lately.parse(bytes).map_err(|e| e.code), expected);
                assert_eq!(lately.keep(bytes).map_err(|e| e.code), expected);
            }
        }
        assert_eq!(lately.0.lock().unwrap().iter().map(HashMap::len).sum::<usize>(), 1, "and keeps what is good");
        assert_eq!(lately.parse(&of_order_3).unwrap_err().code, Code::Decode);
    }

    #[test]
    fn keeps_the_youngest_and_not_too_many() {
        let lately = Lately::default();
        let point = Nonce([1; 32]).blind(&BlindingFactor::new(scalar("factor")).unwrap());
        let filler = |i: usize| {
            let mut bytes = [0; G1_BYTES];
            bytes[..8].copy_from_slice(&i.to_be_bytes());
            bytes
        };
        let fill = |from: usize| {
            let mut generations = lately.0.lock().unwrap();
            generations[0].extend((from..from + GENERATION).map(|i| (filler(i), point)));
        };
        for from in [0, GENERATION, 2 * GENERATION] {
            fill(from);
            lately.keep(&point.to_bytes()).unwrap();
            let generations = lately.0.lock().unwrap();
            assert_eq!((generations[0].len(), generations[1].contains_key(&filler(from))), (1, true));
            assert!(generations[1].len() <= GENERATION + 1);
        }
    }
}
