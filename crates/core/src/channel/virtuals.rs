//! Virtual channels: a payer and a payee, who both have a channel with one hub (or over several hubs, or none), pay each other directly,
//! thousands of times a second, and no hub learns of it until they close. One machine for payer, hub and payee, layered on the manager.
//!
//! A virtual channel is a leaf in a lane of each channel on its way: (id, keys of its payer, cap, time limit). All leaves of a lane are
//! one set, whose root is in the lane's newest voucher. A payment is the payer's signature of (id, amount so far), straight to the payee.
//!
//! **What always holds**: a hub never pays out more on a virtual channel than it can claim for it. As long as the outgoing leaf
//! can cost it anything, it holds an incoming leaf of the same id and keys, with no smaller cap, whose time limit is later by at least
//! grace + submit + margin; and when the outgoing one is over, it holds the payer's signature of no less than it cost. [`Virtuals::check`]
//! asserts it. It follows from the order of things:
//!
//! 1. The incoming voucher with the leaf and what is to be passed on are one group, durable before the outgoing voucher leaves.
//! 2. Each new voucher of a lane is signed back by its payee, which gives up all older ones by that: if it claims on one all the
//!    same, the payer redeems that signature (the manager does it by itself). Until then the most of all of them is bound.
//! 3. What an outgoing leaf has cost is final when its payee has signed back a voucher without it, when it was claimed on the newest
//!    voucher that there is, or when the log has passed its limit. Only then the incoming leaf is closed or claimed, with the same evidence.
//!    Before, an older voucher could be redeemed first, and more claimed on the newer one afterwards.
//! 4. A payee claims by itself before the limit, or when the channel settles, on the newest voucher that it has; while it does,
//!    it signs nothing back on that lane.
//! 5. Nothing is signed on a channel before its two sides have compared what they hold.
//!
//! [`Virtuals::handle`] takes an input and gives a group of records, the manager's among them, a reply and effects, as
//! [`crate::channel::hub::Hub`] does and over the same journal; what follows from the log it finds by looking at the manager
//! ([`Input::Look`]), so it does not matter which of the two has told the manager. The state is the fold of the records. Connections are
//! authenticated by the shell: a [`Input::Message`] comes from the other side of the channel.
//!
//! | file | what |
//! |---|---|
//! | `input`, `effect` | all that goes in, all that comes out |
//! | `open` | opening, and what is taken of others |
//! | `lane` | sets out: the next voucher, signed back |
//! | `take` | sets in |
//! | `pay` | payments |
//! | `end` | closing, claims, time |
//! | `link` | connections: comparing, saying again |
//! | `state` | what the records make of the state |
//! | `route` | terms, the way of a virtual channel |
//! | `query` | what users ask |
//! | `snapshot` | the state as one record, to write the journal anew |

mod effect;
mod end;
mod input;
mod lane;
mod link;
mod open;
mod pay;
mod query;
mod route;
mod snapshot;
mod state;
mod take;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

pub use self::effect::{Effect, Effects, Event, Reply};
pub(in crate::channel) use self::end::fit_claims;
pub use self::input::{Config, Input, Open, Policy, VirtualId, VirtualSigner};
pub use self::query::{Bound, Role, Status};
pub use self::route::{Step, To, plan};

use self::link::Link;
use self::state::{Channel, InSet, LaneKey, OutSet, Stage};
pub use super::hub::shared::load_manager;

use super::hub::shared;
use crate::channel::manager::{self, EndId, Manager, Now};
use crate::error::{Code, Error, Result};
use crate::limits::VIRTUAL_KEEP_MS;
use crate::wire::virtual_record::Kind as Record;
use crate::wire::{self, hub_entry, virtual_message, virtual_peer};

/// The virtual channels of a wallet.
#[derive(Debug)]
pub struct Virtuals {
    config: Config,
    outs: BTreeMap<LaneKey, OutSet>,
    ins: BTreeMap<LaneKey, InSet>,
    channels: BTreeMap<VirtualId, Channel>,
    diverged: BTreeSet<EndId>,
    /// From here on nothing is a part of the fold.
    links: BTreeMap<EndId, Link>,
    /// Claims of a lane that were tried, and came to nothing so far.
    tries: BTreeMap<LaneKey, Tries>,
}

/// Claims that were sent.
#[derive(Debug)]
struct Tries {
    count: usize,
    /// Own clock, ms.
    at_ms: u64,
    /// The lane as the log had it.
    chain: Option<wire::ChannelLane>,
}

/// One call of [`Virtuals::handle`].
struct Turn<'a> {
    now: Now,
    manager: &'a mut Manager,
    signer: &'a dyn VirtualSigner,
    fx: Effects,
    todo: VecDeque<Todo>,
}

/// What follows.
enum Todo {
    Channel(VirtualId),
    Lane(LaneKey),
    Left(LaneKey),
}

impl Turn<'_> {
    /// Tells the manager. An error has changed nothing.
    fn call(&mut self, input: manager::Input) -> Result<manager::Reply> {
        let fx = self.manager.handle(self.now, input, self.signer)?;
        Ok(self.take(fx))
    }

    fn take(&mut self, fx: manager::Effects) -> manager::Reply {
        self.fx.group.entries.extend(fx.records.into_iter().map(shared::entry));
        self.fx.effects.extend(fx.effects.into_iter().map(Effect::Channel));
        fx.reply
    }

    fn event(&mut self, event: Event) {
        self.fx.effects.push(Effect::Event(event));
    }

    fn tell(&mut self, id: &VirtualId, kind: virtual_peer::Kind) {
        let peer = wire::VirtualPeer { id: Bytes::copy_from_slice(id), kind: Some(kind) };
        self.fx.effects.push(Effect::Tell(Box::new(peer)));
    }
}

impl Virtuals {
    /// Without virtual channels.
    pub fn new(config: Config) -> Virtuals {
        Virtuals {
            config,
            outs: BTreeMap::new(),
            ins: BTreeMap::new(),
            channels: BTreeMap::new(),
            diverged: BTreeSet::new(),
            links: BTreeMap::new(),
            tries: BTreeMap::new(),
        }
    }

    /// The virtual channels of a journal; its manager is loaded from the same groups (by [`load_manager`], or with the hub).
    /// `STORAGE_CORRUPT` if none could have made them.
    pub fn load<'a>(config: Config, groups: impl IntoIterator<Item = &'a wire::HubGroup>) -> Result<Virtuals> {
        let mut virtuals = Virtuals::new(config);
        for entry in groups.into_iter().flat_map(|group| &group.entries) {
            if let Some(hub_entry::Kind::Virtual(record)) = &entry.kind {
                virtuals.apply(record)?;
            }
        }
        Ok(virtuals)
    }

    /// What is still to be done, after a start; the manager's own resume is the caller's. What is due to other sides is said when
    /// they connect.
    pub fn resume(&mut self, now: Now, manager: &mut Manager, signer: &dyn VirtualSigner) -> Effects {
        let mut turn = turn(now, manager, signer);
        self.look(&mut turn);
        self.drain(&mut turn);
        turn.fx
    }

    /// Takes an input. An error has changed nothing, and asks for nothing.
    pub fn handle(
        &mut self,
        now: Now,
        input: Input,
        manager: &mut Manager,
        signer: &dyn VirtualSigner,
    ) -> Result<Effects> {
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
            Input::Channel(input) => {
                use manager::Input as Of;
                let news = matches!(*input, Of::Seen { .. } | Of::Outcome { .. } | Of::Settle(_) | Of::Tick);
                let reply = turn.call(*input)?;
                turn.fx.reply = Reply::Channel(reply);
                if news {
                    self.look(turn);
                    self.say_late(turn);
                }
                Ok(())
            }
            Input::Look => {
                self.look(turn);
                self.say_late(turn);
                Ok(())
            }
            Input::Open(open) => self.open(open, turn),
            Input::Pay { id, amount } => self.pay(id, amount, turn),
            Input::Close(id) => self.close(id, turn),
            Input::Connected(end, connection) => self.connected(end, connection, turn),
            Input::Disconnected(end) => {
                self.links.entry(end).or_default().connection.number = None;
                Ok(())
            }
            Input::Message { end, message } => self.message(end, *message, turn),
            Input::Peer(peer) => self.peer(peer, turn),
            Input::Payments(many) => {
                self.payments(many, turn);
                Ok(())
            }
        }
    }

    /// All that the log or time may have changed.
    fn look(&mut self, turn: &mut Turn) {
        self.forget(turn);
        let open = self.channels.iter().filter(|(_, one)| !one.is_over());
        turn.todo.extend(open.map(|(id, _)| Todo::Channel(*id)));
        turn.todo.extend(self.outs.iter().filter(|(_, set)| !set.members.is_empty()).map(|(key, _)| Todo::Lane(*key)));
        turn.todo.extend(self.ins.iter().filter(|(_, set)| !set.leaves.is_empty()).map(|(key, _)| Todo::Left(*key)));
    }

    /// What is long over. A payer keeps its ids: what it has signed for one would count for another one of the same id.
    fn forget(&mut self, turn: &mut Turn) {
        let held = |id: &VirtualId, one: &Channel| {
            let out = one.out.as_ref().and_then(|out| self.outs.get(&out.key));
            let inc = one.inc.as_ref().and_then(|inc| self.ins.get(&inc.key));
            out.is_some_and(|set| set.members.contains(id)) || inc.is_some_and(|set| set.leaves.contains_key(id))
        };
        let now = turn.now.log_ms;
        let old = self.channels.iter().filter(|(id, one)| {
            let limit = one.inc.as_ref().map_or(u64::MAX, |inc| inc.cap.not_after_ms);
            one.is_over() && limit.saturating_add(VIRTUAL_KEEP_MS) < now && !held(id, one)
        });
        for id in old.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.commit(Record::Forgotten(Bytes::copy_from_slice(&id)), turn);
        }
    }

    /// What follows of itself.
    fn drain(&mut self, turn: &mut Turn) {
        while let Some(todo) = turn.todo.pop_front() {
            match todo {
                Todo::Channel(id) => {
                    self.step_out(id, turn);
                    self.step_in(id, turn);
                }
                Todo::Lane(key) => self.step_lane(key, turn),
                Todo::Left(key) => self.left_in(key, turn),
            }
        }
    }

    /// Changes the state by a record that was just made.
    fn commit(&mut self, kind: Record, turn: &mut Turn) {
        let record = wire::VirtualRecord { kind: Some(kind) };
        self.apply(&record).expect("the machine made the record for the state that it is in");
        turn.fx.group.entries.push(wire::HubEntry { kind: Some(hub_entry::Kind::Virtual(record)) });
    }

    fn send(&self, end: EndId, kind: virtual_message::Kind, turn: &mut Turn) {
        if let Some(connection) = self.links.get(&end).and_then(|link| link.connection.number) {
            let message = wire::VirtualMessage { channel: Bytes::copy_from_slice(&end.channel), kind: Some(kind) };
            turn.fx.effects.push(Effect::Send { end, connection, message: Box::new(message) });
        }
    }

    fn channel(&self, id: &VirtualId) -> Result<&Channel> {
        let unknown = || Error::new(Code::VirtualChannel, format!("there is no virtual channel {}", hex::encode(id)));
        self.channels.get(id).ok_or_else(unknown)
    }

    /// What always holds, for every virtual channel that was passed on; panics if it does not.
    pub fn check(&self, now: Now, manager: &Manager) {
        for (id, one) in &self.channels {
            let (Some(out), Some(inc)) = (&one.out, &one.inc) else { continue };
            let (from, to) = (&inc.cap, &out.cap);
            assert!(from.id == to.id && from.permission == to.permission, "another's: {one:?}");
            assert!(from.cap >= to.cap, "more goes out than comes in: {one:?}");
            assert!(from.not_after_ms >= to.not_after_ms.saturating_add(self.config.margin_ms()), "too near: {one:?}");
            let lane = manager.virtual_lane(&inc.key.0, 1 - inc.key.0.side, inc.key.1);
            let held = self.ins.get(&inc.key).is_some_and(|set| set.leaves.contains_key(id));
            let held = held && lane.is_ok_and(|lane| lane.newest.is_some());
            let late = now.log_ms > from.not_after_ms;
            match out.stage {
                Stage::Over(paid) => {
                    assert!(one.best() >= paid, "paid without evidence: {one:?}");
                    assert!(inc.over.is_some_and(|over| over >= paid) || held || late, "not covered: {one:?}");
                }
                Stage::Leaving(paid) => assert!(one.best() >= paid && (held || late), "not covered: {one:?}"),
                Stage::Wanted | Stage::Live => assert!(held || late, "not covered: {one:?}"),
            }
        }
    }
}

fn turn<'a>(now: Now, manager: &'a mut Manager, signer: &'a dyn VirtualSigner) -> Turn<'a> {
    Turn { now, manager, signer, fx: Effects::default(), todo: VecDeque::new() }
}

fn corrupt(what: &str) -> Error {
    Error::new(Code::StorageCorrupt, format!("the journal of virtual channels has {what}"))
}
