//! Messages as frames of bounded size, put together again within bounds.
//!
//! Most messages are one frame. An alert carries a unit of every round, far more than a transport takes at once, and
//! so goes in parts. A stream keeps order; a part that doesn't fit the ones before drops the whole message, and
//! AlephBFT asks again.

use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};

use super::FRAME_BYTES_MAX;
use super::wire::{Message, Refused};

const WHOLE: u8 = 0;
const PART: u8 = 1;
/// Kind, length of the message, offset of the part.
const PART_HEADER: usize = 9;
/// Bytes a second that a peer may send, each frame counted with [`FRAME_COST`] more. Honest authorities need about 4 MB/s
/// at full units of 20 ms, more while one of them catches up.
const BYTES_PER_SECOND: u64 = 64 << 20;
const FRAME_COST: u64 = 1_024;
/// A signature to verify counts as so many bytes: 4,096 a second, a tenth of a core.
const SIGNATURE_COST: u64 = 16_384;
/// And so does a request, about what its answer takes.
const REQUEST_COST: u64 = 65_536;

/// Cuts a message into frames.
pub(super) fn split(message: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    let is_whole = message.len() < FRAME_BYTES_MAX;
    let step = if is_whole { message.len().max(1) } else { FRAME_BYTES_MAX - PART_HEADER };
    message.chunks(step).enumerate().map(move |(i, part)| {
        let mut frame = BytesMut::with_capacity(PART_HEADER + part.len());
        if is_whole {
            frame.put_u8(WHOLE);
        } else {
            frame.put_u8(PART);
            frame.put_u32_le(message.len() as u32);
            frame.put_u32_le((i * step) as u32);
        }
        frame.put_slice(part);
        frame.freeze()
    })
}

/// What comes from one peer: messages in parts, and what it may still send.
pub(super) struct Incoming {
    parts: BytesMut,
    expected: usize,
    message_bytes_max: usize,
    budget: u64,
    refilled: Instant,
}

impl Incoming {
    pub(super) fn new(message_bytes_max: usize) -> Incoming {
        let (parts, budget) = (BytesMut::new(), Incoming::burst(message_bytes_max));
        Incoming { parts, expected: 0, message_bytes_max, budget, refilled: Instant::now() }
    }

    fn burst(message_bytes_max: usize) -> u64 {
        BYTES_PER_SECOND.max(2 * message_bytes_max as u64)
    }

    /// Takes from what the peer may still send.
    fn spend(&mut self, cost: u64) -> Result<(), Refused> {
        let now = Instant::now();
        let earned = now.duration_since(self.refilled).as_micros() * u128::from(BYTES_PER_SECOND) / 1_000_000;
        if earned > 0 {
            let full = Incoming::burst(self.message_bytes_max);
            self.budget = self.budget.saturating_add(u64::try_from(earned).unwrap_or(full)).min(full);
            self.refilled = now;
        }
        self.budget = self.budget.checked_sub(cost).ok_or("more than a peer may send")?;
        Ok(())
    }

    /// Takes what it will cost to check and answer a message, before either is done.
    pub(super) fn spend_on(&mut self, message: &Message) -> Result<(), Refused> {
        let answer = if message.is_request() { REQUEST_COST } else { 0 };
        self.spend(answer + message.signatures() as u64 * SIGNATURE_COST)
    }

    /// Takes a frame; returns a message if it completes one.
    pub(super) fn frame(&mut self, frame: Bytes) -> Result<Option<Bytes>, Refused> {
        self.spend(FRAME_COST + frame.len() as u64)?;
        if frame.len() > FRAME_BYTES_MAX {
            return Err("a frame that is too long");
        }
        let number = |at: usize| frame.get(at..at + 4).map(|b| u32::from_le_bytes(b.try_into().expect("4")) as usize);
        match (frame.first(), number(1), number(5)) {
            (Some(&WHOLE), ..) => Ok(Some(frame.slice(1..))),
            (Some(&PART), Some(total), Some(offset)) => self.part(total, offset, &frame[PART_HEADER..]),
            _ => Err("not a frame"),
        }
    }

    fn part(&mut self, total: usize, offset: usize, part: &[u8]) -> Result<Option<Bytes>, Refused> {
        if offset == 0 {
            self.parts = BytesMut::new();
            self.expected = total;
        }
        let fits = total == self.expected
            && total <= self.message_bytes_max
            && offset == self.parts.len()
            && !part.is_empty()
            && part.len() <= total - offset;
        if !fits {
            (self.parts, self.expected) = (BytesMut::new(), 0);
            return Err("a part that does not fit the ones before");
        }
        self.parts.extend_from_slice(part);
        if self.parts.len() < total {
            return Ok(None);
        }
        self.expected = 0;
        Ok(Some(std::mem::take(&mut self.parts).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_come_back_whole_and_strange_parts_are_dropped() {
        for length in [0, 1, FRAME_BYTES_MAX - 1, FRAME_BYTES_MAX, 3 * FRAME_BYTES_MAX + 7] {
            let message = Bytes::from_iter((0..length).map(|i| i as u8));
            let frames: Vec<Bytes> = split(&message).collect();
            assert!(frames.iter().all(|f| f.len() <= FRAME_BYTES_MAX));
            let mut incoming = Incoming::new(4 * FRAME_BYTES_MAX);
            let got: Vec<Bytes> = frames.iter().filter_map(|f| incoming.frame(f.clone()).unwrap()).collect();
            assert_eq!(got, if length == 0 { vec![] } else { vec![message] });
        }
        let message = Bytes::from(vec![7; 3 * FRAME_BYTES_MAX]);
        let frames: Vec<Bytes> = split(&message).collect();
        let mut incoming = Incoming::new(4 * FRAME_BYTES_MAX);
        // A part is missing, then one comes twice; the next whole message is taken all the same.
        incoming.frame(frames[0].clone()).unwrap();
        incoming.frame(frames[2].clone()).unwrap_err();
        incoming.frame(frames[0].clone()).unwrap();
        incoming.frame(frames[1].clone()).unwrap();
        incoming.frame(frames[1].clone()).unwrap_err();
        let got: Vec<Bytes> = frames.iter().filter_map(|f| incoming.frame(f.clone()).unwrap()).collect();
        assert_eq!(got, [message]);
        // Longer than any message.
        let mut incoming = Incoming::new(2 * FRAME_BYTES_MAX);
        assert!(frames.iter().all(|f| incoming.frame(f.clone()).is_err()));
        assert!(incoming.frame(Bytes::from_static(&[PART, 255, 255, 255, 255, 0, 0, 0, 0, 1])).is_err());
        assert!(incoming.frame(Bytes::new()).is_err());
    }

    #[test]
    fn a_peer_that_floods_is_cut_off_and_another_is_not() {
        let mut flooding = Incoming::new(FRAME_BYTES_MAX);
        let frame = Bytes::from(vec![WHOLE; FRAME_BYTES_MAX]);
        assert!((0..10_000).any(|_| flooding.frame(frame.clone()).is_err()));
        Incoming::new(FRAME_BYTES_MAX).frame(frame).unwrap().unwrap();
    }
}
