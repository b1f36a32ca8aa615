//! The ledger that channels are on, as their manager's shell sees it.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::channel::manager::{Message, OpId, Outcome};
use florin_core::merkle::Hash;
use florin_core::{Result, wire};

/// What a chain answers, in its own time.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// A message as it will be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Signed {
    /// Id of its order.
    pub order_id: Hash,
    /// Index of the message's first output among those of the order.
    pub output: u32,
    /// Its bytes.
    pub order: Bytes,
}

/// A ledger with channels. Florin's own is [`super::Ledger`].
pub trait Chain: Send + Sync + 'static {
    /// Signs a message and keeps it, without sending it. The same number again gives the same bytes, also after a restart.
    /// Errors that last, as too little money, mean that there is none and will be none; `IO`, `UNREACHABLE`, `TIMEOUT`,
    /// `QUORUM_UNREACHABLE`, `UNDECIDED` and `BUSY` that it can be tried again.
    fn prepare<'a>(&'a self, op: OpId, message: &'a Message) -> Answer<'a, Signed>;
    /// Sends it until it is decided. An error says nothing of the outcome, whatever it is: the same is tried again.
    fn broadcast<'a>(&'a self, op: OpId, channel: Option<Hash>, order: &'a Bytes) -> Answer<'a, Outcome>;
    /// A channel, if there is one, and log time, neither on the word of one authority.
    fn channel<'a>(&'a self, id: &'a Hash) -> Answer<'a, (Option<wire::ChannelRecord>, u64)>;
    /// Ids of an address's channels.
    fn channels<'a>(&'a self, address: &'a Address) -> Answer<'a, Vec<Hash>>;
}
