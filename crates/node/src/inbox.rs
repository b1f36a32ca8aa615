//! Frames of peers that wait for the consensus task. Each peer has room of its own, so that one that sends more than is
//! taken waits at its own streams: it neither fills the memory nor delays the others.

use std::sync::Arc;

use florin_core::wire::OrderFrame;
use florin_core::{Code, Error, Result};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::ordering::FRAME_BYTES_MAX;

/// Bytes of one peer's frames that may wait. A message of many frames passes as it is taken.
const ROOM: usize = 4 << 20;
/// What a frame counts for at least.
const COST_MIN: usize = 4 << 10;
/// Bytes of a frame as a message: the engine's, and session and signature.
const BYTES_MAX: usize = FRAME_BYTES_MAX + 1_024;

const _: () = assert!(BYTES_MAX <= ROOM);

/// Where frames are put in.
#[derive(Clone)]
pub struct Inbox {
    frames: mpsc::UnboundedSender<(u32, OrderFrame, OwnedSemaphorePermit)>,
    rooms: Arc<Vec<Arc<Semaphore>>>,
}

/// Where they come out.
pub struct Frames(mpsc::UnboundedReceiver<(u32, OrderFrame, OwnedSemaphorePermit)>);

/// Both ends, for a committee of this size.
pub fn inbox(authorities: usize) -> (Inbox, Frames) {
    let (frames, end) = mpsc::unbounded_channel();
    let rooms = (0..authorities).map(|_| Arc::new(Semaphore::new(ROOM))).collect();
    (Inbox { frames, rooms: Arc::new(rooms) }, Frames(end))
}

impl Inbox {
    /// Waits until the peer's room has place. Errors: `LIMIT` if the frame is too large, `BUSY` at the end.
    pub async fn put(&self, from: u32, frame: OrderFrame) -> Result<()> {
        let bytes = frame.encoded_len();
        if bytes > BYTES_MAX || frame.frame.len() > FRAME_BYTES_MAX {
            return Err(Error::expected(Code::Limit, "bytes of a frame", format!("at most {FRAME_BYTES_MAX}"), bytes));
        }
        let ends = || Error::new(Code::Busy, "the log is stopping");
        let cost = u32::try_from(bytes.max(COST_MIN)).unwrap_or(u32::MAX);
        let room = self.rooms[from as usize].clone().acquire_many_owned(cost).await.map_err(|_| ends())?;
        self.frames.send((from, frame, room)).map_err(|_| ends())
    }
}

impl Frames {
    /// The next frame and its sender; `None` at the end.
    pub async fn next(&mut self) -> Option<(u32, OrderFrame)> {
        self.0.recv().await.map(|(from, frame, _)| (from, frame))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use florin_core::wire::Signed;
    use futures::FutureExt;

    use super::*;

    fn frame(bytes: usize) -> OrderFrame {
        OrderFrame { session: u64::MAX, frame: vec![0; bytes].into(), signature: None }
    }

    // Without a runtime: in one, whoever does much is made to wait too.
    #[test]
    fn a_peer_that_floods_waits_and_another_does_not() {
        let (inbox, mut frames) = inbox(4);
        for (bytes, most) in [(FRAME_BYTES_MAX, ROOM / FRAME_BYTES_MAX), (0, ROOM / COST_MIN)] {
            let mut waiting = 0;
            while let Some(put) = inbox.put(3, frame(bytes)).now_or_never() {
                put.unwrap();
                waiting += 1;
            }
            assert!(waiting > 0 && waiting <= most, "{waiting} frames of {bytes} bytes wait");
            inbox.put(1, frame(bytes)).now_or_never().unwrap().unwrap();
            // One taken makes room for the next.
            frames.next().now_or_never().flatten().unwrap();
            inbox.put(3, frame(bytes)).now_or_never().unwrap().unwrap();
            while frames.next().now_or_never().is_some() {}
        }
        let huge = Bytes::from(vec![0; FRAME_BYTES_MAX]);
        let signature = Signed { authority: 3, bitmap: huge, signature: Bytes::new() };
        for wrong in [frame(FRAME_BYTES_MAX + 1), OrderFrame { signature: Some(signature), ..frame(2_000) }] {
            assert_eq!(inbox.put(3, wrong).now_or_never().unwrap().unwrap_err().code, Code::Limit);
        }
    }
}
