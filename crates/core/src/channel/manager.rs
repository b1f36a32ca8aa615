//! The manager of a wallet's channels: what it pays and is paid through them, and what it tells the log.
//!
//! [`Manager::handle`] checks an input and gives records, a reply and effects. The state is the fold of the records, so a
//! manager that is loaded from them goes on where it was; [`Manager::resume`] says what is still to be done. It reads no clock
//! and touches no disk: the shell appends the records, syncs (many inputs may share one sync), and only then answers and
//! carries out the effects, each in order. What the shell promises:
//!
//! - records of one input are kept or lost together, those of an earlier input are never lost alone;
//! - of a message only the order that was reported with [`Input::Prepared`], and came back with [`Effect::Broadcast`], is sent;
//! - an [`Outcome`] is final: what may still happen has none yet. A record is what f + 1 authorities say, read after it;
//! - [`Input::Seen`] and [`Input::Tick`] come every few seconds, with log time, also for channels in which nothing happens.
//!
//! Why money is safe. (1) A voucher leaves only after its record: no nonce of a lane is signed twice, and the money of all
//! that was signed is never available again, but for a lock that its payee has cancelled or whose time the log has
//! passed without it. (2) A voucher is acknowledged only after its record, and taken only if the log would still pay it after anything
//! that the other side can do (`accept`). (3) A deposit is made once: its intent is durable before anything is signed, one
//! is under way at a time, and it is over only together with a record of the channel that contains it. (4) What the other
//! side's settle or withdrawal would take is redeemed first (`redeem`).
//!
//! | file | what |
//! |---|---|
//! | `input`, `effect` | all that goes in, all that comes out |
//! | `ops` | requests and chain messages: intent, signed order, outcome |
//! | `funds` | create, add, reserve, release; deposits |
//! | `issue`, `accept` | vouchers out, vouchers in |
//! | `redeem`, `withdraw` | vouchers to the log, settle, collect; money out of an open channel |
//! | `seen` | what the log says |
//! | `end` | an end's money and lanes, and what always holds |
//! | `query` | status, lists |
//! | `snapshot` | the state as records, to write the journal anew |
//! | `lanes` | what a hub has to know of the lanes |
//! | `virtuals` | lanes of virtual channels |
//! | `watch` | what a watchtower needs, and the watchtower |

mod accept;
mod effect;
mod end;
mod funds;
mod input;
mod issue;
mod lanes;
mod ops;
mod policy;
mod query;
mod redeem;
mod seen;
mod snapshot;
mod virtuals;
mod watch;
mod withdraw;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;

pub use self::effect::{Added, Effect, Effects, Event, Message, Reply};
pub use self::end::Exposed;
pub use self::input::{
    Conditions, Create, EndId, Incoming, Input, Issue, Now, OpId, Outcome, ReservationId, Reserve, Signer, Use,
    VirtualInput,
};
pub use self::lanes::{LaneView, LockView};
pub use self::ops::OpState;
pub use self::policy::Policy;
pub use self::query::{Direction, EndState, Listed, OpStatus, ReservationStatus, Status, Validity, VoucherState};
pub use self::virtuals::VirtualLane;
pub use self::watch::{Watch, Watcher};

use self::end::End;
use self::ops::Op;
use self::redeem::Later;
use crate::address::Address;
use crate::channel::check_side;
use crate::error::{Code, Error, Result};
use crate::merkle::Hash;
use crate::wire;
use crate::wire::manager_record::Kind as Record;

/// What a manager has to know beside its journal.
#[derive(Clone, Debug)]
pub struct Config {
    /// The committee whose log the channels are in.
    pub committee_id: Hash,
    /// Own accounts, with their encoded permissions (actor 0).
    pub accounts: BTreeMap<Address, Bytes>,
    /// What it does of its own accord.
    pub policy: Policy,
}

/// The channels of a wallet.
#[derive(Debug)]
pub struct Manager {
    config: Config,
    next_id: u64,
    ends: BTreeMap<EndId, End>,
    ops: BTreeMap<OpId, Op>,
    /// By idempotency key.
    keys: BTreeMap<Bytes, OpId>,
    reserve_keys: BTreeMap<Bytes, (ReservationId, EndId, u64, Use)>,
    /// From here on nothing is a part of the fold.
    later: Later,
    /// Ends that may have something to do.
    dirty: Vec<EndId>,
    events: Vec<Event>,
    /// Time or a secret may have made a lock due.
    scan: bool,
}

impl Manager {
    /// A manager without channels.
    pub fn new(config: Config) -> Manager {
        Manager {
            config,
            next_id: 1,
            ends: BTreeMap::new(),
            ops: BTreeMap::new(),
            keys: BTreeMap::new(),
            reserve_keys: BTreeMap::new(),
            later: Later::default(),
            dirty: Vec::new(),
            events: Vec::new(),
            scan: false,
        }
    }

    /// The manager that made these records. `STORAGE_CORRUPT` if none could have.
    pub fn load<'a>(config: Config, records: impl IntoIterator<Item = &'a wire::ManagerRecord>) -> Result<Manager> {
        let mut manager = Manager::new(config);
        for record in records {
            manager.apply(record)?;
        }
        manager.dirty.clear();
        manager.events.clear();
        Ok(manager)
    }

    /// What is still to be done, after a start.
    pub fn resume(&mut self, now: Now) -> Effects {
        let mut fx = Effects::default();
        for (op, found) in &self.ops {
            match found.state {
                OpState::Preparing => self.ask(*op, &mut fx),
                OpState::Sent => {
                    fx.effects.push(Effect::Broadcast { op: *op, order: found.order.clone() });
                }
                _ => {}
            }
        }
        self.dirty.extend(self.ends.keys().copied());
        self.scan = true;
        self.finish(now, &mut fx);
        fx
    }

    /// Takes an input. An error has changed nothing, and asks for nothing.
    pub fn handle(&mut self, now: Now, input: Input, signer: &dyn Signer) -> Result<Effects> {
        let mut fx = Effects::default();
        self.scan = matches!(input, Input::Tick | Input::Secret { .. } | Input::Seen { .. } | Input::Outcome { .. });
        self.take(now, input, signer, &mut fx)?;
        self.finish(now, &mut fx);
        Ok(fx)
    }

    fn take(&mut self, now: Now, input: Input, signer: &dyn Signer, fx: &mut Effects) -> Result<()> {
        match input {
            Input::Create(create) => self.create(create, fx),
            Input::AddFunds { end, key, amount } => self.add_funds(end, key, amount, fx),
            Input::Cancel(op) => self.cancel(op, fx),
            Input::Reserve(reserve) => self.reserve(now, reserve, fx),
            Input::Release { end, reservation } => self.release(end, reservation, fx),
            Input::ReleaseAmount { end, amount } => self.release_amount(end, amount, fx),
            Input::AllocateLane(end) => self.allocate_lane(end, fx),
            Input::VoucherCreate(issue) => self.voucher_create(now, issue, signer, fx),
            Input::LockPaid { end, lane, secret } => self.lock_paid(end, lane, &secret, signer, fx),
            Input::LockCancel { end, lane } => self.lock_cancel(end, lane, signer, fx),
            Input::VoucherAdd(incoming) => self.voucher_add(now, incoming, fx),
            Input::VoucherAddMany(many) => {
                self.voucher_add_many(now, many, fx);
                Ok(())
            }
            Input::Secret { end, lane, secret } => self.secret(end, lane, &secret, fx),
            Input::VoucherSubmit { voucher } => self.voucher_submit(now, voucher, fx),
            Input::SubmitAll(end) => self.submit_all(now, end, fx),
            Input::Settle(end) => self.settle(end, fx),
            Input::Collect(end) => self.collect(now, end, fx),
            Input::Keys(end) => self.say_keys(end, fx),
            Input::Leave { end, amount } => self.leave(end, amount, fx),
            Input::Withdraw { end, amount, permit } => self.withdraw(now, end, amount, permit, fx),
            Input::Permit { end, withdrawn, not_after_ms } => {
                self.permit(now, end, withdrawn, not_after_ms, signer, fx)
            }
            Input::Prepared { op, order_id, output, order } => self.prepared(op, order_id, output, order, fx),
            Input::Outcome { op, outcome } => self.outcome(now, op, outcome, fx),
            Input::Seen { channel, record, time_ms } => self.seen(channel, *record, time_ms, fx),
            Input::Virtual(input) => self.virtuals(now, input, signer, fx),
            Input::Tick => {
                self.tick(now);
                Ok(())
            }
        }
    }

    /// What follows of itself, and the events; then checks what always holds.
    fn finish(&mut self, now: Now, fx: &mut Effects) {
        let mut touched = Vec::new();
        while let Some(id) = self.dirty.pop() {
            self.drive(&id, now, fx);
            touched.push(id);
        }
        for id in touched {
            if let Some(end) = self.ends.get(&id) {
                end.check();
            }
        }
        fx.effects.extend(self.events.drain(..).map(Effect::Event));
    }

    fn drive(&mut self, id: &EndId, now: Now, fx: &mut Effects) {
        self.drive_deposit(id, now, fx);
        self.drive_redeem(id, now, fx);
    }

    /// Changes the state by a record that was just made.
    fn commit(&mut self, kind: Record, fx: &mut Effects) {
        let record = record(kind);
        self.apply(&record).expect("the manager made the record for the state that it is in");
        fx.records.push(record);
    }

    fn apply(&mut self, record: &wire::ManagerRecord) -> Result<()> {
        match record.kind.as_ref().ok_or_else(|| corrupt("an empty record"))? {
            Record::Intent(intent) => self.apply_intent(intent),
            Record::Prepared(prepared) => self.apply_prepared(prepared),
            Record::Outcome(outcome) => self.apply_outcome(outcome),
            Record::Seen(seen) => self.apply_seen(seen),
            Record::Reserve(reserve) => self.apply_reserve(reserve),
            Record::Release(release) => self.apply_release(release),
            Record::Lane(lane) => self.apply_lane(lane),
            Record::Issued(signed) => {
                let voucher = issue::read(signed)?;
                let id = EndId { channel: hash(&voucher.terms.channel)?, side: voucher.signer };
                self.apply_issued(&id, &voucher)?;
                // The own side signs for what it has: this one was forgotten, and shown by the other.
                if self.end(&id)?.raw_available() < 0 {
                    self.after_chain(&id);
                }
                Ok(())
            }
            Record::Received(received) => self.apply_received(received),
            Record::Secret(secret) => self.apply_secret(secret),
            Record::Permit(permit) => self.apply_permit(permit),
            Record::Cancel(op) => self.apply_cancel(*op),
            Record::Virtual(one) => self.apply_virtual(one),
            Record::End(end) => self.apply_end(end),
            Record::Op(op) => self.apply_op(op),
            Record::ReserveKey(reserve) => self.apply_reserve_key(reserve),
            Record::NextId(next) => {
                self.next_id = self.next_id.max(*next);
                Ok(())
            }
        }
    }

    fn policy(&self) -> &Policy {
        &self.config.policy
    }

    /// Something may be to be done for an end.
    fn touch(&mut self, id: &EndId) {
        if self.dirty.last() != Some(id) {
            self.dirty.push(*id);
        }
    }

    fn end(&self, id: &EndId) -> Result<&End> {
        self.ends.get(id).ok_or_else(|| unknown(id))
    }

    fn end_mut(&mut self, id: &EndId) -> Result<&mut End> {
        self.ends.get_mut(id).ok_or_else(|| unknown(id))
    }
}

impl End {
    /// What always holds, see `end`.
    fn check(&self) {
        let money = &self.money;
        let terms = [
            money.confirmed,
            money.received,
            money.locked_in,
            money.held,
            money.missing,
            money.committed,
            money.locked,
        ];
        assert!(terms.iter().all(|term| *term >= 0) || self.diverged, "a sum of a channel is below zero: {money:?}");
        let available = self.raw_available();
        assert!(available >= 0 || self.diverged || self.record.collected, "more is promised than there is: {money:?}");
        assert!(money.missing == 0 || available <= 0 || self.record.collected, "reservations wait for what is there");
        debug_assert_eq!(self.count(), *money, "the sums of a channel are off");
    }
}

fn unknown(id: &EndId) -> Error {
    let message = format!("there is no side {} of channel {} here", id.side, hex::encode(id.channel));
    Error::new(Code::UnknownChannel, message)
}

fn record(kind: Record) -> wire::ManagerRecord {
    wire::ManagerRecord { kind: Some(kind) }
}

fn corrupt(what: &str) -> Error {
    Error::new(Code::StorageCorrupt, format!("the journal of channels has {what}"))
}

fn hash(bytes: &[u8]) -> Result<Hash> {
    Hash::try_from(bytes).map_err(|_| corrupt("an id that is not 32 bytes long"))
}

fn end_id(channel: &[u8], side: u32) -> Result<EndId> {
    Ok(EndId { channel: hash(channel)?, side: check_side("side of the record", side)? })
}
