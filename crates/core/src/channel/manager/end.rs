//! One end of a channel: its money, lanes and reservations.
//!
//! What holds after every step, with no term below zero: confirmed + received = available + reserved + committed + locked.
//! The sums are kept up to date by every change, so that a voucher costs the same whatever the number of lanes;
//! [`End::count`] computes them again, after what the log says and in tests.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::input::{OpId, ReservationId, Use};
use super::query::EndState;
use crate::address::Address;
use crate::channel::{OPENER, rules};
use crate::merkle::Hash;
use crate::permission::Permission;
use crate::wire::{ChannelRecord, SignedVoucher};

/// One end.
#[derive(Debug)]
pub struct End {
    /// Own account.
    pub account: Address,
    /// The own side.
    pub side: u32,
    /// Before the log has it: as it is going to be, with revision 0.
    pub record: ChannelRecord,
    /// Log time of the record, ms.
    pub seen_ms: u64,
    /// The order that was to open it has failed.
    pub failed: bool,
    /// The log has vouchers of the own side that the journal does not know.
    pub diverged: bool,
    /// Keys of the own side and of the other, decoded once.
    pub keys: [Option<(Permission, Address)>; 2],
    /// What the sums are.
    pub money: Money,
    /// Lanes that the own side pays on.
    pub out: BTreeMap<u32, OutLane>,
    /// The lowest that nobody was given.
    pub next_lane: u32,
    /// Lanes that the other side pays on.
    pub paid: BTreeMap<u32, PaidLane>,
    /// Reservations that hold or wait for something.
    pub reservations: BTreeMap<ReservationId, Reservation>,
    /// Those that are short, oldest first.
    pub waiting: VecDeque<ReservationId>,
    /// Held by the anonymous pool.
    pub pool: u64,
    /// The deposit, or the order that opens it, under way.
    pub deposit: Option<(OpId, u64)>,
    /// Requests for deposits that wait.
    pub adds: BTreeMap<OpId, u64>,
    /// Other messages under way.
    pub busy: Busy,
    /// Withdrawn in all, and until when, as the own side has permitted the other.
    pub permitted: (u64, u64),
    /// Lanes whose cancelled lock was redeemed all the same.
    pub cheated: BTreeSet<u32>,
}

/// Messages under way, at most one of a kind.
#[derive(Debug, Default)]
pub struct Busy {
    pub settle: Option<OpId>,
    pub collect: Option<OpId>,
    pub keys: Option<OpId>,
    pub leave: Option<(OpId, u64)>,
    pub withdraw: Option<Withdraw>,
}

/// A withdrawal under way.
#[derive(Clone, Copy, Debug)]
pub struct Withdraw {
    pub op: OpId,
    pub amount: u64,
    /// Withdrawn in all before it.
    pub before: u64,
    /// With the other side's permit; else it takes what was announced.
    pub permitted: bool,
}

/// Sums of an end, minor units; i128 so that no sum of amounts overflows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Money {
    /// Deposited, less withdrawn, plus what the other side's redeemed vouchers have moved, by the log.
    pub confirmed: i128,
    /// In vouchers to the own side that the log has not redeemed yet.
    pub received: i128,
    /// In locks to the own side.
    pub locked_in: i128,
    /// Held by reservations and the pool.
    pub held: i128,
    /// Still to come for pending reservations.
    pub missing: i128,
    /// Paid for good.
    pub committed: i128,
    /// In own locks.
    pub locked: i128,
}

/// A lane that the own side pays on.
#[derive(Debug, Default)]
pub struct OutLane {
    /// The highest that was used, by either side.
    pub nonce: u64,
    /// Paid for good.
    pub amount: u64,
    /// Money that waits for a secret or a time.
    pub lock: Option<Lock>,
    /// The newest own voucher.
    pub last: Option<Kept>,
    /// The payee's newest cancel, kept as long as a lock that it has cancelled could be redeemed.
    pub cancel: Option<Cancel>,
    /// Held by the lane's reservations.
    pub reserved: u64,
    /// Which, oldest first.
    pub reservations: VecDeque<ReservationId>,
    /// Own vouchers that later ones supersede.
    pub history: VecDeque<Kept>,
    /// Nonce and amount by the log.
    pub chain: Option<(u64, u64)>,
    /// Set for a lane of virtual channels.
    pub exposed: Option<Exposed>,
}

/// What virtual channels may make of a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exposed {
    /// What the lane may have moved in the end, minor units.
    pub most: u64,
    /// Log time at which the next of them ends, ms; 0 = none.
    pub next_ms: u64,
}

/// A lane that the other side pays on.
#[derive(Debug, Default)]
pub struct PaidLane {
    /// The highest that was used, by either side.
    pub nonce: u64,
    /// The best voucher that is money at once.
    pub firm: Option<Kept>,
    /// A later one that waits for a secret or a time.
    pub lock: Option<Lock>,
    /// Superseded ones.
    pub history: VecDeque<Kept>,
    /// Nonce and amount by the log.
    pub chain: Option<(u64, u64)>,
    /// The highest nonce on its way to the log.
    pub submitted: Option<(u64, OpId)>,
    /// Set for a lane of virtual channels.
    pub exposed: Option<Exposed>,
    /// Claims of virtual channels on their way to the log.
    pub claiming: Option<OpId>,
}

/// A voucher that is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    pub nonce: u64,
    pub amount: u64,
    pub voucher: SignedVoucher,
}

/// A conditional voucher in flight.
#[derive(Clone, Debug)]
pub struct Lock {
    pub kept: Kept,
    pub secret_hash: Option<Hash>,
    pub not_before_ms: u64,
    pub not_after_ms: u64,
    /// Empty: not known.
    pub secret: Bytes,
}

/// A cancel by the payee.
#[derive(Clone, Debug)]
pub struct Cancel {
    pub kept: Kept,
    /// Log time up to which a lock that it has cancelled can be redeemed, ms.
    pub until_ms: u64,
    /// The message that answers with it.
    pub answer: Option<OpId>,
}

/// Money set aside.
#[derive(Clone, Copy, Debug)]
pub struct Reservation {
    pub usage: Use,
    pub held: u64,
    pub missing: u64,
}

impl PaidLane {
    /// What the lane is worth for sure.
    pub fn value(&self) -> u64 {
        let chain = self.chain.unwrap_or_default();
        self.firm.as_ref().filter(|firm| firm.nonce > chain.0).map_or(chain.1, |firm| firm.amount.max(chain.1))
    }

    /// What the lock, or virtual channels, would add.
    pub fn locked(&self) -> u64 {
        let most = self.lock.as_ref().map_or(0, |lock| lock.kept.amount);
        most.max(self.exposed.map_or(0, |exposed| exposed.most)).saturating_sub(self.value())
    }

    /// The voucher that is worth redeeming, with its secret: newer than the log and than what is on its way.
    pub fn due(&self, now_ms: u64) -> Option<(&Kept, Bytes)> {
        let done = self.chain.map(|chain| chain.0);
        let after = done.max(self.submitted.map(|(nonce, _)| nonce));
        let newer = |kept: &Kept| after.is_none_or(|after| kept.nonce > after) && kept.amount > self.chain_amount();
        let lock = self.lock.as_ref().filter(|lock| lock.is_redeemable(now_ms) && newer(&lock.kept));
        let lock = lock.map(|lock| (&lock.kept, lock.secret.clone()));
        lock.or_else(|| self.firm.as_ref().filter(|firm| newer(firm)).map(|firm| (firm, Bytes::new())))
    }

    fn chain_amount(&self) -> u64 {
        self.chain.map_or(0, |chain| chain.1)
    }
}

impl OutLane {
    /// In the lock, or in virtual channels.
    pub fn locked(&self) -> u64 {
        let most = self.lock.as_ref().map_or(0, |lock| lock.kept.amount);
        most.max(self.exposed.map_or(0, |exposed| exposed.most)).saturating_sub(self.amount)
    }
}

impl Lock {
    /// Whether the log would take it now.
    pub fn is_redeemable(&self, now_ms: u64) -> bool {
        let known = self.secret_hash.is_none() || !self.secret.is_empty();
        known && (self.not_before_ms..=self.not_after_ms).contains(&now_ms)
    }
}

impl End {
    /// An end of a channel as the log has it, or is going to have it.
    pub fn new(account: Address, side: u32, record: ChannelRecord) -> End {
        End {
            account,
            side,
            record,
            seen_ms: 0,
            failed: false,
            diverged: false,
            keys: [None, None],
            money: Money::default(),
            out: BTreeMap::new(),
            next_lane: 0,
            paid: BTreeMap::new(),
            reservations: BTreeMap::new(),
            waiting: VecDeque::new(),
            pool: 0,
            deposit: None,
            adds: BTreeMap::new(),
            busy: Busy::default(),
            permitted: (0, 0),
            cheated: BTreeSet::new(),
        }
    }

    /// The other side.
    pub fn other(&self) -> u32 {
        1 - self.side
    }

    /// Where it is in its life.
    pub fn state(&self) -> EndState {
        match &self.record {
            _ if self.failed => EndState::Failed,
            record if record.revision == 0 => EndState::Opening,
            record if record.collected => EndState::Collected,
            record if record.settling_at_ms != 0 => EndState::Settling,
            _ if self.busy.settle.is_some() => EndState::SettlePending,
            _ => EndState::Open,
        }
    }

    /// Whether the own side pays at all.
    pub fn pays(&self) -> bool {
        self.side == OPENER || self.record.two_way
    }

    /// Announced withdrawals and those under way.
    pub fn leaving(&self) -> i128 {
        let own = if self.side == OPENER { &self.record.opener } else { &self.record.other };
        let (leaving, withdrawn) = own.as_ref().map_or((0, 0), |side| (side.leaving, side.withdrawn));
        let announced = leaving.max(self.busy.leave.map_or(0, |(_, amount)| amount));
        let permitted = self.busy.withdraw.filter(|withdraw| withdraw.permitted);
        let taken = permitted.map_or(0, |w| w.amount.saturating_sub(withdrawn.saturating_sub(w.before)));
        i128::from(announced) + i128::from(taken)
    }

    /// What can be spent; below zero only if the end has diverged.
    pub fn raw_available(&self) -> i128 {
        let money = &self.money;
        money.confirmed + money.received - money.committed - money.locked - money.held - self.leaving()
    }

    /// What can be spent.
    pub fn available(&self) -> u64 {
        if self.state() == EndState::Collected { 0 } else { whole(self.raw_available()) }
    }

    /// What the other side can pay with, beyond nothing that it has signed: what it paid in, less what it took or is about to
    /// take out, plus what it was paid for good.
    pub fn others_funds(&self, now_ms: u64) -> i128 {
        let other = rules::side(&self.record, self.other());
        let (permitted, until) = self.permitted;
        let valid = until == 0 || now_ms <= until;
        let taken = other.withdrawn.max(if valid { permitted } else { 0 });
        let gone = i128::from(taken).max(i128::from(other.withdrawn) + i128::from(other.leaving));
        i128::from(other.deposited) - gone + self.money.committed
    }

    /// What the other side has signed for, locks included.
    pub fn others_spent(&self) -> i128 {
        let redeemed = i128::from(rules::side(&self.record, self.other()).sent);
        redeemed + self.money.received + self.money.locked_in
    }

    /// The sums, computed anew.
    pub fn count(&self) -> Money {
        if self.record.collected {
            return Money::default();
        }
        let (own, other) = (rules::side(&self.record, self.side), rules::side(&self.record, self.other()));
        let chain = |lane: &PaidLane| i128::from(lane.chain.map_or(0, |chain| chain.1));
        let held: i128 = self.reservations.values().map(|one| i128::from(one.held)).sum();
        Money {
            confirmed: i128::from(own.deposited) - i128::from(own.withdrawn) + i128::from(other.sent),
            received: self.paid.values().map(|lane| i128::from(lane.value()) - chain(lane)).sum(),
            locked_in: self.paid.values().map(|lane| i128::from(lane.locked())).sum(),
            held: held + i128::from(self.pool),
            missing: self.reservations.values().map(|one| i128::from(one.missing)).sum(),
            committed: self.out.values().map(|lane| i128::from(lane.amount)).sum(),
            locked: self.out.values().map(|lane| i128::from(lane.locked())).sum(),
        }
    }

    /// Uses up what the lane's reservations hold; the rest comes from what is available.
    pub fn consume(&mut self, lane: u32, amount: u64) {
        let End { out, reservations, money, .. } = self;
        let Some(lane) = out.get_mut(&lane) else { return };
        let mut left = amount.min(lane.reserved);
        lane.reserved -= left;
        money.held -= i128::from(left);
        while left > 0 {
            let Some(id) = lane.reservations.front().copied() else { break };
            let Some(one) = reservations.get_mut(&id) else {
                lane.reservations.pop_front();
                continue;
            };
            let taken = left.min(one.held);
            one.held -= taken;
            left -= taken;
            if one.held == 0 && one.missing == 0 {
                reservations.remove(&id);
                lane.reservations.pop_front();
            } else if one.held == 0 {
                // Still pending: what comes for it later is used later.
                lane.reservations.rotate_left(1);
            }
        }
    }

    /// Removes a reservation; gives what it held.
    pub fn free(&mut self, id: ReservationId) -> u64 {
        let Some(one) = self.reservations.remove(&id) else { return 0 };
        self.money.held -= i128::from(one.held);
        self.money.missing -= i128::from(one.missing);
        if one.missing > 0 {
            self.waiting.retain(|waiting| *waiting != id);
        }
        if let Use::Lane(lane) = one.usage
            && let Some(lane) = self.out.get_mut(&lane)
        {
            lane.reserved -= one.held;
            lane.reservations.retain(|own| *own != id);
        }
        one.held
    }

    /// Gives what is available to those that wait, oldest first. Returns those that have all now.
    pub fn fill(&mut self) -> Vec<ReservationId> {
        let mut active = Vec::new();
        if self.waiting.is_empty() {
            return active;
        }
        let mut available = self.available();
        while let Some(id) = self.waiting.front().copied() {
            let Some(one) = self.reservations.get_mut(&id) else {
                self.waiting.pop_front();
                continue;
            };
            let given = available.min(one.missing);
            available -= given;
            (one.held, one.missing) = (one.held + given, one.missing - given);
            self.money.held += i128::from(given);
            self.money.missing -= i128::from(given);
            let (usage, held, missing) = (one.usage, one.held, one.missing);
            if let Use::Lane(lane) = usage {
                self.out.entry(lane).or_default().reserved += given;
            }
            if missing > 0 {
                break;
            }
            self.waiting.pop_front();
            active.push(id);
            if usage == Use::Pool {
                self.reservations.remove(&id);
                self.pool += held;
            }
        }
        active
    }
}

/// As an amount: nothing below zero.
pub fn whole(amount: i128) -> u64 {
    u64::try_from(amount.max(0)).unwrap_or(u64::MAX)
}
