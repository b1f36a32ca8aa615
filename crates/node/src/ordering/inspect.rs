//! What fuzz targets see of the engine's frames and messages: nothing that is here is used by a node.

use std::sync::Arc;

use bytes::Bytes;
use florin_core::committee::Committee;
use florin_core::signatures::AuthorityKey;
use parity_scale_codec::Encode;

use super::frames::{Incoming, split};
use super::keys::{Keys, random_token};
use super::wire::{Gate, Message};

/// The frames of a message.
pub fn cut(message: &Bytes) -> Vec<Bytes> {
    split(message).collect()
}

/// What comes of frames, one after the other: a message, nothing yet, or why it was refused.
pub fn join(message_bytes_max: usize, frames: &[Bytes]) -> Vec<Result<Option<Bytes>, &'static str>> {
    let mut incoming = Incoming::new(message_bytes_max);
    frames.iter().map(|frame| incoming.frame(frame.clone())).collect()
}

/// Why a message was refused, and how it is encoded again if it was read at all.
pub type Stopped = (&'static str, Option<Vec<u8>>);

/// A message of a peer as it is encoded again, with the number of its units, if the gate lets it through.
///
/// # Errors
/// [`Stopped`].
pub fn pass(
    committee: &Arc<Committee>,
    (index, key): (u32, &Arc<AuthorityKey>),
    (session, from): (u64, u32),
    bytes: &[u8],
) -> Result<(Vec<u8>, usize), Stopped> {
    let message = Message::read(bytes).map_err(|e| (e, None))?;
    let again = message.encode();
    let members = committee.authorities.iter().map(|a| a.key).collect();
    let of = (committee.id(), committee.epoch, session);
    let gate = Gate::new(Keys::new(members, of, index, key.clone(), random_token()), session);
    match gate.check(from, message) {
        Ok(checked) => Ok((again, checked.units.len())),
        Err(e) => Err((e, Some(again))),
    }
}
