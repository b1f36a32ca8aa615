//! Payments of any length through channels: payer, hub and payee in one machine, for every wallet that takes part.
//!
//! **What always holds**: the hub never pays out more than it can claim. A lock that it passes on is covered: it holds an
//! uncancelled incoming lock of the same secret, of at least the same amount, whose time limit is later by at least grace +
//! submit + margin; or that lock was paid. [`Hub::check`] asserts it. It follows from the order of things:
//!
//! 1. Incoming lock, link and outgoing lock are one group, durable before the outgoing voucher leaves.
//! 2. A secret that is learned, from the next party or from the log, is durable in the manager for the incoming lock before the
//!    outgoing lock is paid for good. The incoming lock is redeemed in the log while the hub may still be away for its grace and come back.
//! 3. An incoming lock is given back only after the outgoing one is over: its payee has signed it back, or the log has passed its limit
//!    without it (the manager's `LockFreed`). All by log time.
//! 4. Nothing is signed on a channel before its two sides have compared what they hold (`link`), nor ever again once the
//!    other side has shown a voucher that the journal does not know. What the log knows and the journal does not, the manager finds.
//!
//! [`Hub::handle`] takes an input and gives a group of records, the manager's among them, a reply and effects; the shell appends the
//! group as one entry, syncs, and only then answers and carries out the effects. What the manager asks of its shell holds
//! here as well, and all that is meant for it comes as [`Input::Channel`]. The state is the fold of the records. Connections are
//! authenticated by the shell: a [`Input::Message`] comes from the other side of the channel.
//!
//! | file | what |
//! |---|---|
//! | `input`, `effect` | all that goes in, all that comes out |
//! | `route` | invoices, fees, the way of a payment |
//! | `offer` | locks out, locks in, passing on |
//! | `claim` | secrets, payment for good, giving back, ends of locks |
//! | `link` | connections: comparing vouchers, saying again |
//! | `forget` | what is long over |
//! | `state` | what the records make of the state |
//! | `snapshot` | the state as one group, to write the journal anew |
//! | `query` | what users of hubs ask |
//! | `introduction` | how the two sides of a connection prove who they are |
//! | `shared` | what it has in common with virtual channels |

mod claim;
mod effect;
mod forget;
mod input;
pub mod introduction;
mod link;
mod offer;
mod query;
mod route;
pub(super) mod shared;
mod snapshot;
mod state;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

pub use self::effect::{Effect, Effects, Event, PaymentId, Reply};
pub use self::input::{Ask, Config, Input, Pay, Policy, Route};
pub use self::query::{InvoiceState, LinkState, LockInfo};
pub use self::route::{Step, fee, plan, read_invoice};
pub use self::state::{LockKey, PaymentState};

use self::link::Link;
use self::state::{In, Invoice, Out, Payment, Source};
use crate::channel::manager::{self, EndId, Event as ChannelEvent, Manager, Now, Signer};
use crate::error::{Code, Error, Result};
use crate::merkle::Hash;
use crate::wire::hub_record::Kind as Record;
use crate::wire::{self, hub_entry, hub_message};

/// The payments of a wallet.
#[derive(Debug)]
pub struct Hub {
    config: Config,
    /// Own locks.
    outs: BTreeMap<LockKey, Out>,
    /// Locks of others, to this one.
    ins: BTreeMap<LockKey, In>,
    /// Lanes for own locks, with the log time from which they may be used again, ms.
    lanes: BTreeMap<LockKey, u64>,
    /// Lane for own up-front fees.
    fee_lanes: BTreeMap<EndId, u32>,
    /// Up-front fees that no lock has used up.
    credit: BTreeMap<EndId, u64>,
    invoices: BTreeMap<Hash, Invoice>,
    payments: BTreeMap<PaymentId, Payment>,
    /// The highest number of one.
    last_payment: PaymentId,
    /// By idempotency key.
    keys: BTreeMap<Bytes, PaymentId>,
    /// The newest payment of a secret's hash.
    by_hash: BTreeMap<Hash, PaymentId>,
    diverged: BTreeSet<EndId>,
    earned: wire::HubEarned,
    /// Not a part of the fold.
    links: BTreeMap<EndId, Link>,
}

/// One call of [`Hub::handle`].
struct Turn<'a> {
    now: Now,
    manager: &'a mut Manager,
    signer: &'a dyn Signer,
    fx: Effects,
    todo: VecDeque<Todo>,
    /// Why a lock is freed, if the other side has said it.
    reason: Option<(u32, String)>,
}

/// What follows.
enum Todo {
    Event(ChannelEvent),
    In(LockKey),
    Out(LockKey),
}

impl Turn<'_> {
    /// Tells the manager. An error has changed nothing.
    fn call(&mut self, input: manager::Input) -> Result<manager::Reply> {
        let fx = self.manager.handle(self.now, input, self.signer)?;
        Ok(self.take(fx))
    }

    fn take(&mut self, fx: manager::Effects) -> manager::Reply {
        self.fx.group.entries.extend(fx.records.into_iter().map(shared::entry));
        for effect in fx.effects {
            if let manager::Effect::Event(event) = &effect {
                self.todo.push_back(Todo::Event(event.clone()));
            }
            self.fx.effects.push(Effect::Channel(effect));
        }
        fx.reply
    }

    fn event(&mut self, event: Event) {
        self.fx.effects.push(Effect::Event(event));
    }
}

impl Hub {
    /// A hub without payments.
    pub fn new(config: Config) -> Hub {
        Hub {
            config,
            outs: BTreeMap::new(),
            ins: BTreeMap::new(),
            lanes: BTreeMap::new(),
            fee_lanes: BTreeMap::new(),
            credit: BTreeMap::new(),
            invoices: BTreeMap::new(),
            payments: BTreeMap::new(),
            last_payment: 0,
            keys: BTreeMap::new(),
            by_hash: BTreeMap::new(),
            diverged: BTreeSet::new(),
            earned: wire::HubEarned::default(),
            links: BTreeMap::new(),
        }
    }

    /// The hub and the manager that made these groups. `STORAGE_CORRUPT` if none could have.
    pub fn load<'a>(
        config: Config,
        channels: manager::Config,
        groups: impl IntoIterator<Item = &'a wire::HubGroup>,
    ) -> Result<(Hub, Manager)> {
        let (mut hub, mut of_manager) = (Hub::new(config), Vec::new());
        for entry in groups.into_iter().flat_map(|group| &group.entries) {
            match entry.kind.as_ref().ok_or_else(|| corrupt("an empty entry"))? {
                hub_entry::Kind::Channel(record) => of_manager.push(record),
                hub_entry::Kind::Hub(record) => hub.apply(record)?,
                // Of virtual channels, which have a machine of their own over the same journal.
                hub_entry::Kind::Virtual(_) => {}
            }
        }
        Ok((hub, Manager::load(channels, of_manager)?))
    }

    /// What is still to be done, after a start. What is due to the other sides is said when they connect.
    pub fn resume(&mut self, now: Now, manager: &mut Manager, signer: &dyn Signer) -> Effects {
        let fx = manager.resume(now);
        let mut turn = turn(now, manager, signer);
        turn.take(fx);
        self.touch_all(&mut turn);
        self.drain(&mut turn);
        turn.fx
    }

    /// Takes an input. An error has changed nothing, and asks for nothing.
    pub fn handle(&mut self, now: Now, input: Input, manager: &mut Manager, signer: &dyn Signer) -> Result<Effects> {
        let mut turn = turn(now, manager, signer);
        if let Err(e) = self.take(input, &mut turn) {
            if turn.fx.group.entries.is_empty() && turn.fx.effects.is_empty() {
                return Err(e);
            }
            turn.fx.reply = Reply::Failed(e);
        }
        self.drain(&mut turn);
        Ok(turn.fx)
    }

    fn take(&mut self, input: Input, turn: &mut Turn) -> Result<()> {
        match input {
            Input::Channel(input) => self.channel(*input, turn),
            Input::Ask(ask) => self.ask(ask, turn),
            Input::Pay(pay) => self.pay(pay, turn),
            Input::Connected(end, connection) => self.connected(end, connection, turn),
            Input::Disconnected(end) => {
                self.links.entry(end).or_default().connection.number = None;
                Ok(())
            }
            Input::Message { end, message } => self.message(end, *message, turn),
        }
    }

    fn channel(&mut self, input: manager::Input, turn: &mut Turn) -> Result<()> {
        if let Some(key) = input::lane_of(&input)
            && (self.ins.contains_key(&key) || self.outs.contains_key(&key))
        {
            let message = format!("the lock on lane {} is that of a payment, which ends it by itself", key.1);
            return Err(Error::new(Code::LaneLocked, message));
        }
        if let Some(end) = input::signs_on(&input).filter(|end| self.diverged.contains(end)) {
            let message = format!("the journal has forgotten vouchers of channel {}", hex::encode(end.channel));
            return Err(Error::new(Code::HubDiverged, message));
        }
        let (tick, ends) = (matches!(input, manager::Input::Tick), input::ends_of(&input));
        let reply = turn.call(input)?;
        turn.fx.reply = Reply::Channel(reply);
        if tick {
            self.forget(turn);
            self.touch_all(turn);
        }
        for end in ends {
            turn.todo.extend(self.ins.range(whole(end)).map(|(key, _)| Todo::In(*key)));
        }
        Ok(())
    }

    fn touch_all(&self, turn: &mut Turn) {
        turn.todo.extend(self.ins.keys().map(|key| Todo::In(*key)));
        turn.todo.extend(self.outs.iter().filter(|(_, out)| out.is_due()).map(|(key, _)| Todo::Out(*key)));
    }

    /// What follows of itself.
    fn drain(&mut self, turn: &mut Turn) {
        while let Some(todo) = turn.todo.pop_front() {
            match todo {
                Todo::Event(event) => self.seen(event, turn),
                Todo::In(key) => self.step_in(key, turn),
                Todo::Out(key) => self.step_out(key, turn),
            }
        }
    }

    /// Changes the state by a record that was just made.
    fn commit(&mut self, kind: Record, turn: &mut Turn) {
        let record = wire::HubRecord { kind: Some(kind) };
        self.apply(&record).expect("the hub made the record for the state that it is in");
        turn.fx.group.entries.push(wire::HubEntry { kind: Some(hub_entry::Kind::Hub(record)) });
    }

    fn send(&self, end: EndId, kind: hub_message::Kind, turn: &mut Turn) {
        if let Some(connection) = self.links.get(&end).and_then(|link| link.connection.number) {
            let message = wire::HubMessage { channel: Bytes::copy_from_slice(&end.channel), kind: Some(kind) };
            turn.fx.effects.push(Effect::Send { end, connection, message: Box::new(message) });
        }
    }

    /// What always holds, for every lock that was passed on; panics if it does not.
    pub fn check(&self, now: Now, manager: &Manager) {
        for (key, out) in &self.outs {
            let Source::Forward(from, nonce) = out.source else { continue };
            let live =
                manager.out_lane(&key.0, key.1).is_ok_and(|lane| lane.lock.is_some_and(|l| l.nonce == out.nonce));
            if out.covered || !(live || out.upgraded) {
                continue;
            }
            let found = self.ins.get(&from).filter(|one| one.nonce == nonce);
            let Some(one) = found else {
                assert!(!out.upgraded && now.log_ms > out.in_until_ms, "a lock was passed on without one: {out:?}");
                continue;
            };
            let held = manager.paid_lane(&from.0, from.1).ok().and_then(|lane| lane.lock);
            let held = held.filter(|lock| lock.nonce == one.nonce);
            let over = now.log_ms > one.not_after_ms;
            assert!(held.is_some() || over, "the incoming lock is gone: {one:?}, {out:?}");
            assert!(one.failing.is_none(), "an incoming lock is given back before the outgoing one is over");
            assert!(one.secret_hash == out.secret_hash && one.amount >= out.amount, "{one:?} does not cover {out:?}");
            assert!(one.not_after_ms >= out.not_after_ms.saturating_add(self.config.margin_ms()), "too near: {out:?}");
            assert!(held.is_none_or(|lock| lock.is_known || !out.upgraded), "paid before it was claimed: {out:?}");
        }
    }
}

fn turn<'a>(now: Now, manager: &'a mut Manager, signer: &'a dyn Signer) -> Turn<'a> {
    Turn { now, manager, signer, fx: Effects::default(), todo: VecDeque::new(), reason: None }
}

/// All lanes of an end.
fn whole(end: EndId) -> std::ops::RangeInclusive<LockKey> {
    (end, 0)..=(end, u32::MAX)
}

fn corrupt(what: &str) -> Error {
    Error::new(Code::StorageCorrupt, format!("the journal of a hub has {what}"))
}
