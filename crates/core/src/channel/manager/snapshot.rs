//! The state as records, so that the journal can be written anew: what is superseded or over takes no more room in it.

use bytes::Bytes;

use super::end::{Cancel, End, Exposed, Kept, Lock, OutLane, PaidLane, Reservation, Withdraw};
use super::input::{EndId, OpId, Use};
use super::issue::{conditions, kept, new_lock, read};
use super::ops::{Op, OpState, Work};
use super::{Manager, corrupt, hash, record};
use crate::address::Address;
use crate::error::Result;
use crate::wire::manager_record::Kind as Record;
use crate::wire::{self, ChannelLane, ManagerUse, SignedVoucher};

impl Manager {
    /// Records that [`Manager::load`] makes the same manager of, in place of all before. Takes in what is not durable yet: to be
    /// written after that, all or nothing.
    pub fn snapshot(&self) -> Vec<wire::ManagerRecord> {
        let ends = self.ends.iter().map(|(id, end)| Record::End(end.snapshot(id)));
        let ops = self.ops.iter().map(|(number, op)| Record::Op(self.snapshot_op(*number, op)));
        let keys = self.reserve_keys.iter().map(|(key, (reservation, id, amount, usage))| {
            let (usage, lane) = use_of(*usage);
            Record::ReserveKey(wire::ManagerReserve {
                reservation: *reservation,
                channel: Bytes::copy_from_slice(&id.channel),
                side: id.side,
                key: key.clone(),
                amount: *amount,
                r#use: usage.into(),
                lane,
            })
        });
        ends.chain(ops).chain(keys).chain([Record::NextId(self.next_id)]).map(record).collect()
    }

    fn snapshot_op(&self, number: OpId, op: &Op) -> wire::ManagerOp {
        let key = self.keys.iter().find(|(_, keyed)| **keyed == number).map(|(key, _)| key.clone());
        let (code, message) = match &op.state {
            OpState::Failed { code, message } => (*code, message.clone()),
            _ => (0, String::new()),
        };
        let withdraw = op.end.and_then(|id| self.ends.get(&id)).and_then(|end| end.busy.withdraw);
        wire::ManagerOp {
            intent: Some(wire::ManagerIntent {
                op: number,
                key: key.unwrap_or_default(),
                account: Bytes::copy_from_slice(op.account.as_bytes()),
                channel: op.end.map_or(Bytes::new(), |id| Bytes::copy_from_slice(&id.channel)),
                side: op.end.map_or(0, |id| id.side),
                kind: Some(op.work.clone()),
            }),
            sent: op.state == OpState::Sent,
            order_id: op.order_id.map_or(Bytes::new(), |id| Bytes::copy_from_slice(&id)),
            order: op.order.clone(),
            over: !op.state.is_open(),
            code,
            message,
            cancelled: op.state == OpState::Cancelled,
            carrier: op.carrier.unwrap_or(0),
            withdrawn: withdraw.filter(|withdraw| withdraw.op == number).map_or(0, |withdraw| withdraw.before),
        }
    }

    pub(super) fn apply_op(&mut self, op: &wire::ManagerOp) -> Result<()> {
        let intent = op.intent.as_ref().ok_or_else(|| corrupt("an operation without its intent"))?;
        let work = intent.kind.clone().ok_or_else(|| corrupt("an intent of nothing"))?;
        let id = match &intent.channel[..] {
            [] => None,
            channel => Some(super::end_id(channel, intent.side)?),
        };
        let carrier = Some(op.carrier).filter(|carrier| *carrier != 0);
        let state = match &work {
            _ if op.cancelled => OpState::Cancelled,
            _ if op.over && op.code == 0 => OpState::Confirmed,
            _ if op.over => OpState::Failed { code: op.code, message: op.message.clone() },
            Work::Add(_) => OpState::Queued,
            _ if op.sent => OpState::Sent,
            _ => OpState::Preparing,
        };
        if let Some(id) = id.filter(|_| state.is_open()) {
            let number = intent.op;
            let end = self.end_mut(&id)?;
            match &work {
                Work::Add(_) if carrier.is_some() => {}
                Work::Add(amount) => drop(end.adds.insert(number, *amount)),
                Work::Open(open) => end.deposit = Some((number, open.amount)),
                Work::Deposit(deposit) => end.deposit = Some((number, deposit.amount)),
                Work::Redeem(redeem) => end.mark(redeem, number)?,
                Work::Withdraw(withdraw) => {
                    let (amount, permitted) = (withdraw.amount, withdraw.permit.is_some());
                    end.busy.withdraw = Some(Withdraw { op: number, amount, before: op.withdrawn, permitted });
                }
                work => end.busy.begin(number, work, 0),
            }
        }
        let order_id = if op.order_id.is_empty() { None } else { Some(hash(&op.order_id)?) };
        let account = Address::from_slice(&intent.account)?;
        if !intent.key.is_empty() {
            self.keys.insert(intent.key.clone(), intent.op);
        }
        let new = Op { account, end: id, work, state, order_id, order: op.order.clone(), carrier };
        self.ops.insert(intent.op, new);
        Ok(())
    }

    pub(super) fn apply_reserve_key(&mut self, record: &wire::ManagerReserve) -> Result<()> {
        let id = super::end_id(&record.channel, record.side)?;
        let usage = read_use(record.r#use, record.lane)?;
        self.reserve_keys.insert(record.key.clone(), (record.reservation, id, record.amount, usage));
        Ok(())
    }

    pub(super) fn apply_end(&mut self, record: &wire::ManagerEnd) -> Result<()> {
        let id = super::end_id(&record.channel, record.side)?;
        let channel = record.record.clone().ok_or_else(|| corrupt("an end without its channel"))?;
        let mut end = End::new(Address::from_slice(&record.account)?, id.side, channel);
        end.seen_ms = record.seen_ms;
        (end.failed, end.diverged) = (record.failed, record.diverged);
        end.next_lane = record.next_lane;
        for lane in &record.out {
            end.out.insert(lane.lane, read_out(lane)?);
        }
        for lane in &record.paid {
            end.paid.insert(lane.lane, read_paid(lane)?);
        }
        for one in &record.reservations {
            let usage = read_use(one.r#use, one.lane)?;
            if let Use::Lane(lane) = usage {
                end.out.entry(lane).or_default().reserved += one.held;
            }
            end.reservations.insert(one.reservation, Reservation { usage, held: one.held, missing: one.missing });
        }
        end.waiting = record.waiting.iter().copied().collect();
        end.pool = record.pool;
        if let Some(permit) = &record.permitted {
            end.permitted = (permit.withdrawn, permit.not_after_ms);
        }
        end.learn_keys();
        end.money = end.count();
        end.find_cheats();
        self.ends.insert(id, end);
        Ok(())
    }
}

impl End {
    fn snapshot(&self, id: &EndId) -> wire::ManagerEnd {
        let channel = Bytes::copy_from_slice(&id.channel);
        let (withdrawn, not_after_ms) = self.permitted;
        let permitted = wire::ManagerPermit { channel: channel.clone(), side: id.side, withdrawn, not_after_ms };
        let reservations = self.reservations.iter().map(|(reservation, one)| {
            let (usage, lane) = use_of(one.usage);
            let (held, missing) = (one.held, one.missing);
            wire::ManagerHeld { reservation: *reservation, r#use: usage.into(), lane, held, missing }
        });
        wire::ManagerEnd {
            channel,
            side: id.side,
            account: Bytes::copy_from_slice(self.account.as_bytes()),
            record: Some(self.record.clone()),
            seen_ms: self.seen_ms,
            failed: self.failed,
            diverged: self.diverged,
            next_lane: self.next_lane,
            out: self.out.iter().map(|(number, lane)| lane.snapshot(*number, id)).collect(),
            paid: self.paid.iter().map(|(number, lane)| lane.snapshot(*number, id)).collect(),
            reservations: reservations.collect(),
            waiting: self.waiting.iter().copied().collect(),
            pool: self.pool,
            permitted: Some(permitted),
        }
    }
}

impl OutLane {
    fn snapshot(&self, lane: u32, id: &EndId) -> wire::ManagerOutLane {
        wire::ManagerOutLane {
            lane,
            nonce: self.nonce,
            amount: self.amount,
            last: self.last.as_ref().map(|kept| kept.voucher.clone()),
            locked: self.lock.is_some(),
            secret: self.lock.as_ref().map_or(Bytes::new(), |lock| lock.secret.clone()),
            cancel: self.cancel.as_ref().map(|cancel| cancel.kept.voucher.clone()),
            until_ms: self.cancel.as_ref().map_or(0, |cancel| cancel.until_ms),
            history: self.history.iter().map(|kept| kept.voucher.clone()).collect(),
            chain: chain_lane(self.chain, id.side, lane),
            reservations: self.reservations.iter().copied().collect(),
            exposed: self.exposed.map(|exposed| exposed.record()),
        }
    }
}

impl PaidLane {
    fn snapshot(&self, lane: u32, id: &EndId) -> wire::ManagerPaidLane {
        wire::ManagerPaidLane {
            lane,
            nonce: self.nonce,
            firm: self.firm.as_ref().map(|kept| kept.voucher.clone()),
            lock: self.lock.as_ref().map(|lock| lock.kept.voucher.clone()),
            secret: self.lock.as_ref().map_or(Bytes::new(), |lock| lock.secret.clone()),
            history: self.history.iter().map(|kept| kept.voucher.clone()).collect(),
            chain: chain_lane(self.chain, 1 - id.side, lane),
            exposed: self.exposed.map(|exposed| exposed.record()),
        }
    }
}

fn chain_lane(chain: Option<(u64, u64)>, payer: u32, lane: u32) -> Option<ChannelLane> {
    chain.map(|(nonce, redeemed)| ChannelLane { payer, lane, nonce, redeemed, ..Default::default() })
}

fn read_out(lane: &wire::ManagerOutLane) -> Result<OutLane> {
    let cancel = lane.cancel.as_ref().map(read_kept).transpose()?;
    Ok(OutLane {
        nonce: lane.nonce,
        amount: lane.amount,
        lock: lane.last.as_ref().filter(|_| lane.locked).map(|lock| read_lock(lock, &lane.secret)).transpose()?,
        last: lane.last.as_ref().map(read_kept).transpose()?,
        cancel: cancel.map(|kept| Cancel { kept, until_ms: lane.until_ms, answer: None }),
        reserved: 0,
        reservations: lane.reservations.iter().copied().collect(),
        history: lane.history.iter().map(read_kept).collect::<Result<_>>()?,
        chain: lane.chain.as_ref().map(|chain| (chain.nonce, chain.redeemed)),
        exposed: lane.exposed.as_ref().map(Exposed::read),
    })
}

fn read_paid(lane: &wire::ManagerPaidLane) -> Result<PaidLane> {
    Ok(PaidLane {
        nonce: lane.nonce,
        firm: lane.firm.as_ref().map(read_kept).transpose()?,
        lock: lane.lock.as_ref().map(|lock| read_lock(lock, &lane.secret)).transpose()?,
        history: lane.history.iter().map(read_kept).collect::<Result<_>>()?,
        chain: lane.chain.as_ref().map(|chain| (chain.nonce, chain.redeemed)),
        submitted: None,
        exposed: lane.exposed.as_ref().map(Exposed::read),
        claiming: None,
    })
}

fn read_kept(signed: &SignedVoucher) -> Result<Kept> {
    read(signed).map(|voucher| kept(&voucher))
}

fn read_lock(signed: &SignedVoucher, secret: &Bytes) -> Result<Lock> {
    let voucher = read(signed)?;
    let conditions = conditions(&voucher).ok_or_else(|| corrupt("a lock without conditions"))?;
    Ok(new_lock(kept(&voucher), conditions, secret.clone()))
}

pub(super) fn use_of(usage: Use) -> (ManagerUse, u32) {
    match usage {
        Use::Named => (ManagerUse::Named, 0),
        Use::Lane(lane) => (ManagerUse::Lane, lane),
        Use::Pool => (ManagerUse::Pool, 0),
    }
}

pub(super) fn read_use(usage: i32, lane: u32) -> Result<Use> {
    match ManagerUse::try_from(usage) {
        Ok(ManagerUse::Named) => Ok(Use::Named),
        Ok(ManagerUse::Lane) => Ok(Use::Lane(lane)),
        Ok(ManagerUse::Pool) => Ok(Use::Pool),
        Err(_) => Err(corrupt("a reservation of no known use")),
    }
}
