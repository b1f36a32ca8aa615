//! What a crash makes of steps that are not synced: each sector of them is on disk or not, some with a bit flipped.
//!
//! As the real engine does, a step is a frame with a checksum, and reading stops at the first that is not whole. So
//! whatever the disk did, a prefix of the steps is left; a damaged frame that passed for a whole one would be a bug here.

use sha2::{Digest, Sha256};

use crate::disk::Change;
use crate::rng::Rng;

/// Bytes that are written at once.
const SECTOR: usize = 512;
const LENGTH: usize = 4;
const CHECKSUM: usize = 8;

/// What a crash has left.
pub(crate) struct Left {
    /// Whole frames from the first on.
    pub(crate) kept: u64,
    /// Whether the next one is there in part.
    pub(crate) torn: bool,
    /// Whether a bit was flipped.
    pub(crate) flipped: bool,
}

fn checksum(number: u64, payload: &[u8]) -> [u8; CHECKSUM] {
    let digest = Sha256::new().chain_update(number.to_be_bytes()).chain_update(payload).finalize();
    std::array::from_fn(|i| digest[i])
}

/// The frame of a step: length, checksum over its number and itself, writes.
fn frame(number: u64, writes: &[Change]) -> Vec<u8> {
    let mut payload = Vec::new();
    for w in writes {
        payload.push(w.table as u8);
        for part in [Some(&w.key[..]), w.value.as_deref()] {
            payload.extend_from_slice(&part.map_or(u32::MAX, |p| p.len() as u32).to_be_bytes());
            payload.extend_from_slice(part.unwrap_or_default());
        }
    }
    [&(payload.len() as u32).to_be_bytes()[..], &checksum(number, &payload), &payload].concat()
}

/// How many whole frames a journal begins with.
fn read(mut journal: &[u8], first: u64) -> u64 {
    let mut number = first;
    while let Some((head, rest)) = journal.split_at_checked(LENGTH + CHECKSUM) {
        let length = head[..LENGTH].iter().fold(0, |n, b| n << 8 | usize::from(*b));
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        if length == 0 || head[LENGTH..] != checksum(number, payload) {
            break;
        }
        (journal, number) = (rest, number + 1);
    }
    number - first
}

/// A crash while these steps are not synced, the first of which has this number.
pub(crate) fn crash<'a>(rng: &mut Rng, first: u64, steps: impl Iterator<Item = &'a Vec<Change>>) -> Left {
    let frames: Vec<Vec<u8>> = steps.enumerate().map(|(i, writes)| frame(first + i as u64, writes)).collect();
    let written = frames.concat();
    let mut disk = vec![0; written.len()];
    // From nothing to everything, in any order.
    let there = rng.between(0, 1_000);
    let in_order = rng.chance(500);
    let end = if in_order { rng.below(written.len() as u64 + 1) as usize } else { written.len() };
    for (to, from) in disk.chunks_mut(SECTOR).zip(written.chunks(SECTOR)) {
        if in_order || rng.below(1_000) < there {
            to.copy_from_slice(from);
        }
    }
    disk.truncate(end);
    let flipped = !disk.is_empty() && rng.chance(200);
    if flipped {
        let at = rng.index(disk.len());
        disk[at] ^= 1 << rng.below(8);
    }
    let kept = read(&disk, first);
    let whole: usize = frames.iter().take(kept as usize).map(Vec::len).sum();
    assert_eq!(disk[..whole], written[..whole], "a checksum notices what is damaged");
    Left { kept, torn: disk[whole..].iter().any(|b| *b != 0), flipped }
}

#[cfg(test)]
mod tests {
    use florin_core::authority::state::Table;

    use super::*;

    fn change(key: &[u8], value: &[u8]) -> Change {
        let copy = bytes::Bytes::copy_from_slice;
        Change { table: Table::Meta, key: copy(key), value: Some(copy(value)) }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let steps: Vec<Vec<Change>> = (0..3u8).map(|n| vec![change(&[n], &[n; 5]), change(b"k", b"")]).collect();
        let frames: Vec<Vec<u8>> = steps.iter().enumerate().map(|(i, s)| frame(7 + i as u64, s)).collect();
        let journal = frames.concat();
        assert_eq!((read(&journal, 7), read(&journal, 8)), (3, 0));
        for at in 0..journal.len() {
            let before = at / frames[0].len();
            assert_eq!(read(&journal[..at], 7), before as u64);
            for bit in 0..8 {
                let mut bad = journal.clone();
                bad[at] ^= 1 << bit;
                assert_eq!(read(&bad, 7), before as u64, "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_crash_may_leave_anything_from_nothing_to_all() {
        let steps: Vec<Vec<Change>> = (0..4u8).map(|n| vec![change(&[n], &[n; 900])]).collect();
        let left: Vec<Left> = (0..300).map(|seed| crash(&mut Rng::new(seed), 1, steps.iter())).collect();
        assert!((0..=4).all(|kept| left.iter().any(|l| l.kept == kept)));
        assert!(left.iter().any(|l| l.torn) && left.iter().any(|l| l.flipped));
    }
}
