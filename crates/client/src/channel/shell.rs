//! What goes on in the background: messages to the chain, messages to other sides, and looking at the log.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use florin_core::address::Address;
use florin_core::channel::hub::{self, Input};
use florin_core::channel::manager::{self, EndId, Manager, OpId, Outcome};
use florin_core::channel::virtuals;
use florin_core::merkle::Hash;
use florin_core::wire::hub_frame;
use florin_core::{Code, Error, Result};
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc};
use tracing::{debug, warn};

use super::chain::{Answer, Chain};
use super::desk::Command;
use super::link::Links;

/// Between two looks at the channels in the log.
const POLL: Duration = Duration::from_secs(1);
/// Before a chain message is tried again: the first time, and the longest.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Something to do.
pub enum Effect {
    Channel(manager::Effect),
    /// Tell the other side of a channel, over this connection alone.
    Say(EndId, u64, hub_frame::Kind),
    Payment(hub::Event),
    Virtual(virtuals::Event),
}

impl From<hub::Effect> for Effect {
    fn from(effect: hub::Effect) -> Effect {
        match effect {
            hub::Effect::Channel(effect) => Effect::Channel(effect),
            hub::Effect::Send { end, connection, message } => {
                Effect::Say(end, connection, hub_frame::Kind::Message(*message))
            }
            hub::Effect::Event(event) => Effect::Payment(event),
        }
    }
}

impl Effect {
    /// None for what whoever has asked carries out: who pays sends what was signed, and who is paid answers.
    pub fn of_virtuals(effect: virtuals::Effect) -> Option<Effect> {
        Some(match effect {
            virtuals::Effect::Channel(effect) => Effect::Channel(effect),
            virtuals::Effect::Send { end, connection, message } => {
                Effect::Say(end, connection, hub_frame::Kind::Virtual(*message))
            }
            virtuals::Effect::Event(event) => Effect::Virtual(event),
            virtuals::Effect::Tell(_) => return None,
        })
    }
}

/// Carries out what goes on in the background.
pub struct Shell {
    pub chain: Arc<dyn Chain>,
    pub to: mpsc::WeakUnboundedSender<Command>,
    pub events: broadcast::Sender<manager::Event>,
    pub payments: broadcast::Sender<hub::Event>,
    pub virtuals: broadcast::Sender<virtuals::Event>,
    pub links: Links,
    pub runtime: Handle,
}

impl Shell {
    pub fn carry_out(&self, manager: &Manager, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                // Nobody may be listening.
                Effect::Channel(manager::Effect::Event(event)) => drop(self.events.send(event)),
                Effect::Payment(event) => drop(self.payments.send(event)),
                Effect::Virtual(event) => drop(self.virtuals.send(event)),
                Effect::Say(end, connection, message) => self.links.send(&end, connection, message),
                Effect::Channel(manager::Effect::Prepare { op, message }) => self.prepare(op, message),
                Effect::Channel(manager::Effect::Broadcast { op, order }) => {
                    let channel = manager.operation(op).ok().and_then(|status| status.end).map(|end| end.channel);
                    let (chain, to) = (self.chain.clone(), self.to.clone());
                    self.runtime.spawn(async move {
                        // It is signed: no error says that it will never settle.
                        let found = until_clear(op, &to, |_| true, || chain.broadcast(op, channel, &order)).await;
                        let outcome = found.and_then(Result::ok);
                        tell(&to, outcome.map(|outcome| manager::Input::Outcome { op, outcome }));
                    });
                }
            }
        }
    }

    fn prepare(&self, op: OpId, message: manager::Message) {
        let (chain, to) = (self.chain.clone(), self.to.clone());
        self.runtime.spawn(async move {
            let found = until_clear(op, &to, may_pass, || chain.prepare(op, &message)).await;
            let input = found.map(|found| match found {
                Ok(signed) => manager::Input::Prepared {
                    op,
                    order_id: signed.order_id,
                    output: signed.output,
                    order: signed.order,
                },
                Err(e) => failed(op, e),
            });
            tell(&to, input);
        });
    }
}

fn failed(op: OpId, e: Error) -> manager::Input {
    manager::Input::Outcome { op, outcome: Outcome::Failed { code: e.code as u32, message: e.message } }
}

fn tell(to: &mpsc::WeakUnboundedSender<Command>, input: Option<manager::Input>) {
    if let (Some(to), Some(input)) = (to.upgrade(), input) {
        let _ = to.send(Command::Tell(Box::new(Input::Channel(Box::new(input))), None));
    }
}

/// Tries until it is done or the error is one that `again` does not try again after. `None`: nobody needs it any more.
async fn until_clear<'a, T>(
    op: OpId,
    to: &mpsc::WeakUnboundedSender<Command>,
    again: fn(&Error) -> bool,
    attempt: impl Fn() -> Answer<'a, T>,
) -> Option<Result<T>> {
    let mut pause = RETRY;
    loop {
        match attempt().await {
            Err(e) if again(&e) => {
                debug!(op, "a message of a channel is tried again: {e}");
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(RETRY_MAX);
                to.upgrade()?;
            }
            other => return Some(other),
        }
    }
}

/// Whether the same may work later.
pub fn may_pass(e: &Error) -> bool {
    use Code::{
        Busy, CallWaits, Io, NotFinal, NotVoting, QuorumUnreachable, Recovering, Timeout, Undecided, Unreachable,
    };
    // After a failed write it is unknown whether an order is signed.
    let codes =
        [Busy, CallWaits, Io, NotFinal, NotVoting, QuorumUnreachable, Recovering, Timeout, Undecided, Unreachable];
    codes.contains(&e.code)
}

/// Looks at all channels in the log, again and again.
pub async fn poll(chain: Arc<dyn Chain>, to: mpsc::WeakUnboundedSender<Command>, accounts: Arc<Vec<Address>>) {
    loop {
        let mut ids = BTreeSet::new();
        for address in accounts.iter() {
            match chain.channels(address).await {
                Ok(of) => ids.extend(of),
                Err(e) => debug!("the channels of {address:?}: {e}"),
            }
        }
        for id in ids {
            look(&*chain, &to, &id).await;
        }
        tell(&to, Some(manager::Input::Tick));
        tokio::time::sleep(POLL).await;
        if to.upgrade().is_none() {
            return;
        }
    }
}

async fn look(chain: &dyn Chain, to: &mpsc::WeakUnboundedSender<Command>, id: &Hash) {
    let seen = chain.channel(id).await;
    let Some(to) = to.upgrade() else { return };
    match seen {
        Ok((Some(record), time_ms)) => {
            let _ = to.send(Command::Time(time_ms));
            let seen = manager::Input::Seen { channel: *id, record: Box::new(record), time_ms };
            let _ = to.send(Command::Tell(Box::new(Input::Channel(Box::new(seen))), None));
        }
        Ok((None, _)) => {}
        Err(e) if may_pass(&e) => debug!("channel {}: {e}", hex::encode(id)),
        Err(e) => warn!("channel {}: {e}", hex::encode(id)),
    }
}
