//! Requests and chain messages: an intent, then the signed order, then its outcome, each durable before what follows.

use bytes::Bytes;

use super::effect::{Effect, Effects, Event, Message};
use super::end::{Busy, End, Withdraw};
use super::input::{EndId, Now, OpId, Outcome};
use super::{Manager, corrupt};
use crate::address::Address;
use crate::channel::{OPENER, channel_id, rules};
use crate::error::{Code, Error, Result};
use crate::merkle::Hash;
use crate::wire::manager_record::Kind as Record;
use crate::wire::{self, input, output};

/// What a request or message does.
pub type Work = wire::manager_intent::Kind;

/// How far a request or message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpState {
    /// Waits for the message before it.
    Queued,
    /// Its order is being signed.
    Preparing,
    /// Its order is signed and on its way.
    Sent,
    /// The log has applied it.
    Confirmed,
    /// It did nothing, for good.
    Failed {
        /// Number of the code.
        code: u32,
        /// Why.
        message: String,
    },
    /// Taken out of the queue.
    Cancelled,
}

impl OpState {
    /// Whether something may still happen.
    pub fn is_open(&self) -> bool {
        matches!(self, OpState::Queued | OpState::Preparing | OpState::Sent)
    }
}

/// A request or chain message.
#[derive(Debug)]
pub struct Op {
    pub account: Address,
    pub end: Option<EndId>,
    pub work: Work,
    pub state: OpState,
    pub order_id: Option<Hash>,
    pub order: Bytes,
    /// Of a request: the deposit that takes it along.
    pub carrier: Option<OpId>,
}

impl Op {
    /// A word for it.
    pub fn kind(&self) -> &'static str {
        match &self.work {
            Work::Open(_) => "open",
            Work::Add(_) => "add",
            Work::Deposit(_) => "deposit",
            Work::Keys(_) => "keys",
            Work::Redeem(_) => "redeem",
            Work::Settle(_) => "settle",
            Work::Collect(_) => "collect",
            Work::Leave(_) => "leave",
            Work::Withdraw(_) => "withdraw",
        }
    }

    /// What its order says; none for a request.
    pub fn message(&self) -> Option<Message> {
        let (channel, side) = match &self.end {
            Some(end) => (Bytes::copy_from_slice(&end.channel), end.side),
            None => (Bytes::new(), OPENER),
        };
        let mut inputs = Vec::new();
        let outputs = match &self.work {
            Work::Open(open) => vec![output::Kind::ChannelOpen(open.clone())],
            Work::Add(_) => return None,
            Work::Deposit(deposit) => {
                vec![output::Kind::ChannelDeposit(wire::ChannelDeposit { channel, side, amount: deposit.amount })]
            }
            Work::Keys(permission) => {
                vec![output::Kind::ChannelKeys(wire::ChannelKeys { channel, permission: permission.clone() })]
            }
            Work::Redeem(redeem) => vec![output::Kind::ChannelRedeem(redeem.clone())],
            Work::Settle(_) => vec![output::Kind::ChannelSettle(wire::ChannelSettle { channel })],
            Work::Collect(_) => vec![output::Kind::ChannelCollect(wire::ChannelCollect { channel })],
            Work::Leave(amount) => vec![output::Kind::ChannelLeave(wire::ChannelLeave { channel, amount: *amount })],
            Work::Withdraw(withdraw) => {
                let permit = withdraw.permit.clone();
                let kind = wire::ChannelWithdraw { channel, redemptions: Vec::new(), permit };
                inputs.push(wire::Input { amount: withdraw.amount, kind: Some(input::Kind::ChannelWithdraw(kind)) });
                let address = Bytes::copy_from_slice(self.account.as_bytes());
                vec![output::Kind::Credit(wire::Credit { address, amount: withdraw.amount })]
            }
        };
        Some(Message { account: self.account, inputs, outputs })
    }
}

impl Manager {
    /// Writes down what is going to be done and asks for its order; a request only waits.
    pub(super) fn start(
        &mut self,
        account: Address,
        end: Option<EndId>,
        key: Bytes,
        work: Work,
        fx: &mut Effects,
    ) -> OpId {
        let op = self.next_id;
        self.commit(
            Record::Intent(wire::ManagerIntent {
                op,
                key,
                account: Bytes::copy_from_slice(account.as_bytes()),
                channel: end.map_or(Bytes::new(), |end| Bytes::copy_from_slice(&end.channel)),
                side: end.map_or(OPENER, |end| end.side),
                kind: Some(work),
            }),
            fx,
        );
        self.ask(op, fx);
        op
    }

    /// Asks for the order of a message.
    pub(super) fn ask(&self, op: OpId, fx: &mut Effects) {
        if let Some(message) = self.ops.get(&op).and_then(Op::message) {
            fx.effects.push(Effect::Prepare { op, message });
        }
    }

    pub(super) fn apply_intent(&mut self, intent: &wire::ManagerIntent) -> Result<()> {
        let work = intent.kind.clone().ok_or_else(|| corrupt("an intent of nothing"))?;
        let account = Address::from_slice(&intent.account)?;
        let id = match &intent.channel[..] {
            [] => None,
            channel => Some(super::end_id(channel, intent.side)?),
        };
        let mut state = OpState::Preparing;
        let op = intent.op;
        self.next_id = self.next_id.max(op + 1);
        if let Some(id) = id {
            if let Work::Deposit(deposit) = &work {
                for add in &deposit.adds {
                    let add =
                        self.ops.get_mut(add).ok_or_else(|| corrupt("a deposit for a request that is not there"))?;
                    add.carrier = Some(op);
                }
            }
            let end = self.end_mut(&id)?;
            match &work {
                Work::Open(_) => return Err(corrupt("a channel opened twice")),
                Work::Add(amount) => {
                    end.adds.insert(op, *amount);
                    state = OpState::Queued;
                }
                Work::Deposit(deposit) => {
                    end.adds.retain(|add, _| !deposit.adds.contains(add));
                    end.deposit = Some((op, deposit.amount));
                }
                Work::Redeem(redeem) => end.mark(redeem, op)?,
                work => end.busy.begin(op, work, rules::side(&end.record, end.side).withdrawn),
            }
            self.dirty.push(id);
        }
        if !intent.key.is_empty() {
            self.keys.insert(intent.key.clone(), op);
        }
        let new = Op { account, end: id, work, state, order_id: None, order: Bytes::new(), carrier: None };
        self.ops.insert(op, new);
        Ok(())
    }

    /// The order of a message is signed.
    pub(super) fn prepared(
        &mut self,
        op: OpId,
        order_id: Hash,
        output: u32,
        order: Bytes,
        fx: &mut Effects,
    ) -> Result<()> {
        let found = self.op(op)?;
        if found.state != OpState::Preparing {
            // Signed twice, for instance around a restart: the first one counts.
            return Ok(());
        }
        if order.is_empty() {
            return Err(Error::new(Code::BadContent, "an order that was prepared without bytes"));
        }
        let order_id = Bytes::copy_from_slice(&order_id);
        self.commit(Record::Prepared(wire::ManagerPrepared { op, order_id, output, order: order.clone() }), fx);
        fx.effects.push(Effect::Broadcast { op, order });
        Ok(())
    }

    pub(super) fn apply_prepared(&mut self, prepared: &wire::ManagerPrepared) -> Result<()> {
        let order_id = super::hash(&prepared.order_id)?;
        let committee_id = self.config.committee_id;
        let op = self.ops.get_mut(&prepared.op).ok_or_else(|| corrupt("an order without its intent"))?;
        (op.state, op.order_id, op.order) = (OpState::Sent, Some(order_id), prepared.order.clone());
        if let Work::Open(open) = &op.work {
            let id = EndId { channel: channel_id(&committee_id, &order_id, prepared.output), side: OPENER };
            op.end = Some(id);
            let side = |address: &Bytes, permission: &Bytes| {
                let (address, permission) = (address.clone(), permission.clone());
                Some(wire::ChannelSide { address, permission, ..Default::default() })
            };
            let record = wire::ChannelRecord {
                opener: side(&open.opener, &open.opener_permission),
                other: side(&open.other, &open.other_permission),
                delay_ms: open.delay_ms,
                two_way: open.two_way,
                ..Default::default()
            };
            let (account, amount) = (op.account, open.amount);
            let end = self.ends.entry(id).or_insert_with(|| End::new(account, OPENER, record));
            end.deposit = Some((prepared.op, amount));
            end.learn_keys();
            self.dirty.push(id);
        }
        Ok(())
    }

    /// A message is over.
    pub(super) fn outcome(&mut self, now: Now, op: OpId, outcome: Outcome, fx: &mut Effects) -> Result<()> {
        let found = self.op(op)?;
        if !matches!(found.state, OpState::Preparing | OpState::Sent) {
            return Ok(());
        }
        let (code, message, seen) = match outcome {
            Outcome::Failed { code: 0, .. } => {
                return Err(Error::expected(Code::BadContent, "code of a failed message", "not 0", 0));
            }
            Outcome::Failed { code, message } => (code, message, None),
            Outcome::Confirmed { record, time_ms } => {
                let Some(id) = found.end.filter(|_| found.state == OpState::Sent) else {
                    return Err(Error::new(
                        Code::BadContent,
                        format!("message {op} was confirmed before it was signed"),
                    ));
                };
                super::seen::check_record(&record)?;
                let channel = Bytes::copy_from_slice(&id.channel);
                (0, String::new(), Some(wire::ManagerSeen { channel, time_ms, record: Some(*record) }))
            }
        };
        let redeemed = match (&found.work, found.end) {
            (Work::Redeem(redeem), Some(id)) if code != 0 => Some((id, redeem.redemptions.len())),
            _ => None,
        };
        let deposited = found.end.filter(|_| code != 0 && matches!(found.work, Work::Deposit(_)));
        if code != 0 {
            fx.effects.push(Effect::Event(Event::OpFailed { op, code, message: message.clone() }));
        }
        self.commit(Record::Outcome(wire::ManagerOutcome { op, code, message, seen }), fx);
        if let Some((id, vouchers)) = redeemed {
            let delay_ms = self.end(&id)?.record.delay_ms;
            self.later.redeem_failed(id, vouchers, now.clock_ms, self.config.policy.retry_ms, delay_ms);
        }
        if let Some(id) = deposited {
            self.later.deposit_failed(id, now.clock_ms, self.config.policy.retry_ms);
        }
        Ok(())
    }

    pub(super) fn apply_outcome(&mut self, outcome: &wire::ManagerOutcome) -> Result<()> {
        if let Some(seen) = &outcome.seen {
            self.apply_seen(seen)?;
        }
        let state = match outcome.code {
            0 => OpState::Confirmed,
            code => OpState::Failed { code, message: outcome.message.clone() },
        };
        let op = self.ops.get_mut(&outcome.op).ok_or_else(|| corrupt("an outcome without its intent"))?;
        op.state = state.clone();
        op.order = Bytes::new();
        let id = op.end;
        let adds = match &mut op.work {
            Work::Deposit(deposit) => deposit.adds.clone(),
            Work::Redeem(redeem) => {
                // What it redeemed is with the lanes.
                redeem.redemptions.clear();
                redeem.claims.clear();
                Vec::new()
            }
            _ => Vec::new(),
        };
        let is_open = matches!(op.work, Work::Open(_));
        for add in adds {
            if let Some(add) = self.ops.get_mut(&add) {
                add.state = state.clone();
            }
        }
        let Some(id) = id else { return Ok(()) };
        self.dirty.push(id);
        let failed = outcome.code != 0;
        let end = self.end_mut(&id)?;
        end.unmark(outcome.op);
        end.busy.end(outcome.op);
        if let Some((_, amount)) = end.deposit.filter(|(deposit, _)| *deposit == outcome.op) {
            end.deposit = None;
            if failed {
                self.fail_waiting(&id, amount, is_open);
            }
        }
        if failed && is_open {
            self.end_mut(&id)?.failed = true;
            self.fail_adds(&id, &state);
        }
        self.refill(&id);
        Ok(())
    }

    /// Requests that no deposit will take along any more.
    pub(super) fn fail_adds(&mut self, id: &EndId, state: &OpState) {
        let Some(end) = self.ends.get_mut(id) else { return };
        for add in std::mem::take(&mut end.adds).into_keys() {
            if let Some(add) = self.ops.get_mut(&add) {
                add.state = state.clone();
            }
        }
    }

    /// Takes a request out of the queue.
    pub(super) fn cancel(&mut self, op: OpId, fx: &mut Effects) -> Result<()> {
        let found = self.op(op)?;
        match (&found.state, found.carrier) {
            (OpState::Cancelled, _) => Ok(()),
            (OpState::Queued, None) => {
                self.commit(Record::Cancel(op), fx);
                Ok(())
            }
            (state, _) => {
                let what = format!("state of request {op}");
                Err(Error::expected(Code::OperationStarted, &what, "waiting in the queue", format!("{state:?}")))
            }
        }
    }

    pub(super) fn apply_cancel(&mut self, op: OpId) -> Result<()> {
        let found = self.ops.get_mut(&op).ok_or_else(|| corrupt("a cancel of nothing"))?;
        found.state = OpState::Cancelled;
        if let Some(id) = found.end {
            self.end_mut(&id)?.adds.remove(&op);
            self.dirty.push(id);
        }
        Ok(())
    }

    /// The operation with this number. `UNKNOWN_OPERATION`.
    pub(super) fn op(&self, op: OpId) -> Result<&Op> {
        self.ops.get(&op).ok_or_else(|| Error::new(Code::UnknownOperation, format!("there is no operation {op}")))
    }
}

impl Busy {
    pub(super) fn begin(&mut self, op: OpId, work: &Work, withdrawn: u64) {
        match work {
            Work::Settle(_) => self.settle = Some(op),
            Work::Collect(_) => self.collect = Some(op),
            Work::Keys(_) => self.keys = Some(op),
            Work::Leave(amount) => self.leave = Some((op, *amount)),
            Work::Withdraw(withdraw) => {
                let permitted = withdraw.permit.is_some();
                self.withdraw = Some(Withdraw { op, amount: withdraw.amount, before: withdrawn, permitted });
            }
            Work::Open(_) | Work::Add(_) | Work::Deposit(_) | Work::Redeem(_) => {}
        }
    }

    fn end(&mut self, op: OpId) {
        for slot in [&mut self.settle, &mut self.collect, &mut self.keys] {
            slot.take_if(|busy| *busy == op);
        }
        self.leave.take_if(|(busy, _)| *busy == op);
        self.withdraw.take_if(|withdraw| withdraw.op == op);
    }
}
