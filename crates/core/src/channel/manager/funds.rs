//! Money into a channel, and money of it that is set aside.
//!
//! One deposit is under way at a time. It takes along all requests that wait, and exactly what pending reservations
//! lack (plus the policy's overshoot); reservations made meanwhile ride on it as far as it reaches.

use bytes::Bytes;

use super::Manager;
use super::effect::{Effects, Event, Reply};
use super::end::{Reservation, whole};
use super::input::{Create, EndId, Now, OpId, ReservationId, Reserve, Use};
use super::ops::{OpState, Work};
use super::query::EndState;
use super::snapshot::{read_use, use_of};
use crate::error::{Code, Error, Result};
use crate::limits::{AMOUNT_MAX, CHANNEL_DELAY_MAX_MS, CHANNEL_DELAY_MIN_MS, IDEMPOTENCY_BYTES_MAX, LANES_MAX};
use crate::permission::Permission;
use crate::wire;
use crate::wire::manager_record::Kind as Record;

impl Manager {
    pub(super) fn create(&mut self, create: Create, fx: &mut Effects) -> Result<()> {
        if create.key.is_empty() {
            return Err(Error::new(Code::IdempotencyKey, "expected an idempotency key, found none"));
        }
        check_key(&create.key)?;
        let Some(own) = self.config.accounts.get(&create.from) else {
            let found = hex::encode(create.from.as_bytes());
            return Err(Error::expected(Code::NotAParty, "payer of the channel", "an own account", found));
        };
        if create.from == create.to {
            return Err(Error::new(Code::BadContent, "a channel has two different sides, found one address for both"));
        }
        check_amount(create.amount, 0)?;
        if !(CHANNEL_DELAY_MIN_MS..=CHANNEL_DELAY_MAX_MS).contains(&create.delay_ms) {
            let expected = format!("{CHANNEL_DELAY_MIN_MS} to {CHANNEL_DELAY_MAX_MS} ms");
            return Err(Error::expected(Code::BadContent, "delay of the channel", expected, create.delay_ms));
        }
        if !create.to_permission.is_empty() {
            Permission::decode_account(&create.to_permission)?;
        }
        let to_own = self.config.accounts.get(&create.to).filter(|_| create.to_permission.is_empty());
        let open = wire::ChannelOpen {
            opener: Bytes::copy_from_slice(create.from.as_bytes()),
            other: Bytes::copy_from_slice(create.to.as_bytes()),
            opener_permission: own.clone(),
            other_permission: to_own.cloned().unwrap_or(create.to_permission),
            delay_ms: create.delay_ms,
            two_way: create.two_way,
            amount: create.amount,
        };
        if let Some(op) = self.same_op(&create.key, None, |work| matches!(work, Work::Open(old) if *old == open))? {
            fx.reply = Reply::Op(op);
            return Ok(());
        }
        fx.reply = Reply::Op(self.start(create.from, None, create.key, Work::Open(open), fx));
        Ok(())
    }

    /// The operation that a key was used for before. `IDEMPOTENCY_KEY` if it was another one.
    fn same_op(&self, key: &[u8], end: Option<EndId>, same: impl Fn(&Work) -> bool) -> Result<Option<OpId>> {
        check_key(key)?;
        let Some(op) = self.keys.get(key) else { return Ok(None) };
        let found = self.ops.get(op).filter(|found| same(&found.work) && (end.is_none() || found.end == end));
        if found.is_none() {
            let message = format!("the key {} was used for something else", hex::encode(key));
            return Err(Error::new(Code::IdempotencyKey, message));
        }
        Ok(Some(*op))
    }

    pub(super) fn add_funds(&mut self, id: EndId, key: Bytes, amount: u64, fx: &mut Effects) -> Result<()> {
        check_amount(amount, 1)?;
        let same = |work: &Work| matches!(work, Work::Add(old) if *old == amount);
        if let Some(op) = self.same_op(&key, Some(id), same)? {
            fx.reply = Reply::Op(op);
            return Ok(());
        }
        let account = self.fundable(&id)?;
        fx.reply = Reply::Op(self.start(account, Some(id), key, Work::Add(amount), fx));
        Ok(())
    }

    /// The account of an end that can take money in.
    fn fundable(&self, id: &EndId) -> Result<crate::address::Address> {
        let end = self.end(id)?;
        if !end.pays() {
            return Err(Error::new(Code::ChannelOneWay, "the channel is one-way, and this side of it pays nothing"));
        }
        match end.state() {
            EndState::Opening | EndState::Open => Ok(end.account),
            state => Err(not_open(state)),
        }
    }

    pub(super) fn reserve(&mut self, now: Now, reserve: Reserve, fx: &mut Effects) -> Result<()> {
        if reserve.amount == 0 {
            self.end(&reserve.end)?;
            fx.reply = Reply::Reserved { reservation: 0, active: true, op: None };
            return Ok(());
        }
        check_amount(reserve.amount, 1)?;
        check_key(&reserve.key)?;
        if let Some(old) = self.reserve_keys.get(&reserve.key).filter(|_| !reserve.key.is_empty()) {
            if (old.1, old.2, old.3) != (reserve.end, reserve.amount, reserve.usage) {
                let message = format!("the key {} was used for something else", hex::encode(&reserve.key));
                return Err(Error::new(Code::IdempotencyKey, message));
            }
            fx.reply = self.reserved(&reserve.end, old.0);
            return Ok(());
        }
        self.fundable(&reserve.end)?;
        let end = self.end(&reserve.end)?;
        if let Use::Lane(lane) = reserve.usage
            && lane >= LANES_MAX
        {
            return Err(Error::expected(Code::VoucherLane, "lane", format!("below {LANES_MAX}"), lane));
        }
        if reserve.off_chain_only && reserve.amount > end.available() {
            let expected = format!("at most {}, which is available", end.available());
            return Err(Error::expected(Code::ReserveShort, "amount to reserve", expected, reserve.amount));
        }
        let (usage, lane) = use_of(reserve.usage);
        let reservation = self.next_id;
        let record = wire::ManagerReserve {
            reservation,
            channel: Bytes::copy_from_slice(&reserve.end.channel),
            side: reserve.end.side,
            key: reserve.key,
            amount: reserve.amount,
            r#use: usage.into(),
            lane,
        };
        self.commit(Record::Reserve(record), fx);
        self.drive(&reserve.end, now, fx);
        fx.reply = self.reserved(&reserve.end, reservation);
        Ok(())
    }

    fn reserved(&self, id: &EndId, reservation: ReservationId) -> Reply {
        let end = self.ends.get(id);
        let pending = end.and_then(|end| end.reservations.get(&reservation)).is_some_and(|one| one.missing > 0);
        let op = end.and_then(|end| end.deposit).map(|(op, _)| op).filter(|_| pending);
        Reply::Reserved { reservation, active: !pending, op }
    }

    pub(super) fn apply_reserve(&mut self, record: &wire::ManagerReserve) -> Result<()> {
        let id = super::end_id(&record.channel, record.side)?;
        let reservation = record.reservation;
        self.next_id = self.next_id.max(reservation + 1);
        let usage = read_use(record.r#use, record.lane)?;
        if !record.key.is_empty() {
            self.reserve_keys.insert(record.key.clone(), (reservation, id, record.amount, usage));
        }
        let end = self.end_mut(&id)?;
        end.reservations.insert(reservation, Reservation { usage, held: 0, missing: record.amount });
        end.money.missing += i128::from(record.amount);
        end.waiting.push_back(reservation);
        if let Use::Lane(lane) = usage {
            end.out.entry(lane).or_default().reservations.push_back(reservation);
            end.next_lane = end.next_lane.max(lane + 1);
        }
        end.fill();
        self.dirty.push(id);
        Ok(())
    }

    /// Gives what has become available to those that wait.
    pub(super) fn refill(&mut self, id: &EndId) {
        let Some(end) = self.ends.get_mut(id) else { return };
        for reservation in end.fill() {
            self.events.push(Event::ReservationActive { end: *id, reservation });
        }
    }

    pub(super) fn release(&mut self, id: EndId, reservation: ReservationId, fx: &mut Effects) -> Result<()> {
        let end = self.end(&id)?;
        let Some(one) = end.reservations.get(&reservation) else {
            if reservation >= self.next_id {
                let message = format!("there is no reservation {reservation}");
                return Err(Error::new(Code::UnknownReservation, message));
            }
            // Used up, failed or released before.
            fx.reply = Reply::Released(0);
            return Ok(());
        };
        fx.reply = Reply::Released(one.held);
        let channel = Bytes::copy_from_slice(&id.channel);
        self.commit(Record::Release(wire::ManagerRelease { reservation, channel, side: id.side, amount: 0 }), fx);
        Ok(())
    }

    pub(super) fn release_amount(&mut self, id: EndId, amount: u64, fx: &mut Effects) -> Result<()> {
        let end = self.end(&id)?;
        let pending = end.waiting.iter().filter_map(|one| end.reservations.get(one));
        let pending =
            pending.filter(|one| one.usage == Use::Pool).map(|one| i128::from(one.held) + i128::from(one.missing));
        let has = i128::from(end.pool) + pending.sum::<i128>();
        if i128::from(amount) > has {
            return Err(Error::expected(Code::OverRelease, "amount to release", format!("at most {has}"), amount));
        }
        if amount > 0 {
            let channel = Bytes::copy_from_slice(&id.channel);
            self.commit(Record::Release(wire::ManagerRelease { reservation: 0, channel, side: id.side, amount }), fx);
        }
        fx.reply = Reply::Released(amount);
        Ok(())
    }

    pub(super) fn apply_release(&mut self, record: &wire::ManagerRelease) -> Result<()> {
        let id = super::end_id(&record.channel, record.side)?;
        let end = self.end_mut(&id)?;
        if record.reservation != 0 {
            end.free(record.reservation);
        } else {
            end.free_pool(record.amount);
        }
        self.dirty.push(id);
        self.refill(&id);
        Ok(())
    }

    /// Releases reservations that wait: all of them, or those that a deposit of this amount was to fill.
    pub(super) fn fail_waiting(&mut self, id: &EndId, amount: u64, all: bool) {
        let Some(end) = self.ends.get_mut(id) else { return };
        let mut left = amount;
        while let Some(reservation) = end.waiting.front().copied() {
            let missing = end.reservations.get(&reservation).map_or(0, |one| one.missing);
            if left == 0 && !all {
                break;
            }
            left = left.saturating_sub(missing);
            end.free(reservation);
            self.events.push(Event::ReservationFailed { end: *id, reservation });
        }
    }

    /// Starts a deposit if one is due and none is under way.
    pub(super) fn drive_deposit(&mut self, id: &EndId, now: Now, fx: &mut Effects) {
        let Some(end) = self.ends.get(id) else { return };
        let asked = !end.adds.is_empty() || end.money.missing > 0;
        let policy = &self.config.policy;
        if end.deposit.is_some() || !(asked || policy.low_water > 0) || end.state() != EndState::Open || !end.pays() {
            return;
        }
        let adds: i128 = end.adds.values().map(|amount| i128::from(*amount)).sum();
        let short = match end.money.missing {
            missing if missing > adds => missing + i128::from(policy.overshoot),
            _ => 0,
        };
        let free = i128::from(end.available()) - end.money.missing;
        let asked = adds.max(short);
        let low = free + asked < i128::from(policy.low_water) && !self.later.deposit_waits(id, now.clock_ms);
        let water = if low { i128::from(policy.high_water) - free } else { 0 };
        let amount = whole(asked.max(water)).min(AMOUNT_MAX);
        if amount > 0 {
            let adds = end.adds.keys().copied().collect();
            let deposit = wire::ManagerDeposit { amount, adds };
            self.start(end.account, Some(*id), Bytes::new(), Work::Deposit(deposit), fx);
        }
    }

    /// The channel takes no more money: nothing that waits will come.
    pub(super) fn close_queue(&mut self, id: &EndId) {
        self.fail_waiting(id, 0, true);
        let code = Code::ChannelSettling;
        let message = "the channel is settling".to_owned();
        self.fail_adds(id, &OpState::Failed { code: code as u32, message });
    }
}

impl super::end::End {
    /// Releases a part of the pool: what is there first, then what is still to come, the newest first.
    fn free_pool(&mut self, amount: u64) {
        let now = amount.min(self.pool);
        self.pool -= now;
        self.money.held -= i128::from(now);
        let mut left = amount - now;
        let waiting: Vec<ReservationId> = self.waiting.iter().rev().copied().collect();
        for id in waiting {
            let Some(one) = self.reservations.get_mut(&id).filter(|one| one.usage == Use::Pool && left > 0) else {
                continue;
            };
            let missing = left.min(one.missing);
            let held = (left - missing).min(one.held);
            (one.missing, one.held) = (one.missing - missing, one.held - held);
            left -= missing + held;
            self.money.missing -= i128::from(missing);
            self.money.held -= i128::from(held);
            if one.missing == 0 {
                self.pool += one.held;
                self.reservations.remove(&id);
                self.waiting.retain(|waiting| *waiting != id);
            }
        }
    }
}

pub(super) fn not_open(state: EndState) -> Error {
    let code = match state {
        EndState::Collected | EndState::Failed => Code::ChannelOver,
        EndState::Settling | EndState::SettlePending => Code::ChannelSettling,
        EndState::Opening | EndState::Open => Code::ChannelNotOpen,
    };
    Error::expected(code, "state of the channel", "open", format!("{state:?}"))
}

fn check_key(key: &[u8]) -> Result<()> {
    if key.len() > IDEMPOTENCY_BYTES_MAX {
        let expected = format!("at most {IDEMPOTENCY_BYTES_MAX}");
        return Err(Error::expected(Code::IdempotencyKey, "bytes of the idempotency key", expected, key.len()));
    }
    Ok(())
}

pub(super) fn check_amount(amount: u64, from: u64) -> Result<()> {
    if !(from..=AMOUNT_MAX).contains(&amount) {
        return Err(Error::expected(Code::BadAmount, "amount", format!("{from} to 2^63 - 1"), amount));
    }
    Ok(())
}
