//! What a manager can be asked without changing anything. The shell answers after the records before are durable.

use bytes::Bytes;

use super::end::{End, Kept, Lock, whole};
use super::input::{EndId, OpId, ReservationId};
use super::ops::OpState;
use super::{Manager, Use};
use crate::address::Address;
use crate::channel::rules::{self, At};
use crate::channel::voucher::Voucher;
use crate::channel::{OPENER, OTHER};
use crate::error::{Code, Error, Result};
use crate::limits::{LANES_MAX, PAGE_MAX};
use crate::merkle::Hash;
use crate::wire;

/// Which way money goes through a channel, seen from the own side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The own side is paid.
    Inbound,
    /// The own side pays.
    Outbound,
    /// Both.
    TwoWay,
}

/// Where a channel is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndState {
    /// The order that opens it is signed but not ordered yet.
    Opening,
    /// In use.
    Open,
    /// A settle is on its way, and nothing is signed.
    SettlePending,
    /// The delay runs.
    Settling,
    /// Both sides are paid out.
    Collected,
    /// The order that was to open it has failed.
    Failed,
}

/// All about one end. Amounts are minor units; confirmed + received = available + reserved + committed + locked.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Which way money goes.
    pub direction: Direction,
    /// Own address.
    pub control: Address,
    /// The channel.
    pub channel: Hash,
    /// Own side, 0 or 1.
    pub side: u32,
    /// The opener.
    pub from: Address,
    /// The other side.
    pub to: Address,
    /// Where it is in its life.
    pub state: EndState,
    /// What the own side has in it by the log: paid in, by whomever, less taken out.
    pub confirmed: u64,
    /// In deposits under way.
    pub pending: u64,
    /// The chain message that carries them.
    pub pending_op: Option<OpId>,
    /// The id of its order, once there is one.
    pub pending_order: Option<Hash>,
    /// Asked for, and waiting for the message before.
    pub queued: u64,
    /// Paid by vouchers, by the better of log and journal: by the own side if it pays, else to it.
    pub voucher_redeemed: u64,
    /// Paid to the own side (two-way: may be spent again).
    pub received: u64,
    /// Set aside, announced withdrawals included.
    pub reserved: u64,
    /// Paid by the own side for good.
    pub committed: u64,
    /// In vouchers of the own side that take a secret or have time limits.
    pub locked: u64,
    /// In such vouchers to the own side.
    pub locked_in: u64,
    /// What can be spent.
    pub available: u64,
    /// Log time from which it can be collected, ms; 0 = not settling, 2^64 - 1 = undecided.
    pub settling_at_ms: u64,
    /// The other side's announced withdrawal.
    pub leaving: u64,
    /// Log time from which it may, ms; 2^64 - 1 = undecided.
    pub leaving_at_ms: u64,
    /// Nothing is signed, for the log has vouchers of the own side that the journal does not know.
    pub diverged: bool,
    /// Log time of the record that this rests on, ms.
    pub seen_ms: u64,
}

/// How a request or chain message is doing.
#[derive(Clone, Debug, PartialEq)]
pub struct OpStatus {
    /// What it is: `open`, `add`, `deposit`, `keys`, `redeem`, `settle`, `collect`, `leave`, `withdraw`.
    pub kind: &'static str,
    /// Own account.
    pub account: Address,
    /// The channel, once known.
    pub end: Option<EndId>,
    /// How far it is.
    pub state: OpState,
    /// The id of its order, once there is one.
    pub order_id: Option<Hash>,
    /// The deposit that takes a request along.
    pub carrier: Option<OpId>,
}

/// What a voucher would be worth if it were added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Validity {
    /// It can be added, and its lane would have this much more, minor units.
    New(u64),
    /// It is stored already, or one of the own side's.
    AlreadyKnown,
}

/// Where a stored voucher is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VoucherState {
    /// Signed by the own side.
    Issued,
    /// Stored.
    Stored,
    /// On its way to the log.
    SubmitPending,
    /// Redeemed, or a later one of its lane is.
    Redeemed,
}

/// A voucher of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The voucher.
    pub voucher: wire::SignedVoucher,
    /// The side whose money it moves.
    pub payer: u32,
    /// Its lane.
    pub lane: u32,
    /// Its nonce.
    pub nonce: u64,
    /// Where it is.
    pub state: VoucherState,
    /// A later voucher of its lane is stored.
    pub superseded: bool,
    /// The secret of its lock, if known.
    pub secret: Bytes,
}

/// A reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservationStatus {
    /// Where.
    pub end: EndId,
    /// What for.
    pub usage: Use,
    /// Set aside and not used up, minor units.
    pub held: u64,
    /// Still to come, minor units; 0 = active.
    pub missing: u64,
}

impl Manager {
    /// All about an end. `UNKNOWN_CHANNEL`.
    pub fn status(&self, id: &EndId) -> Result<Status> {
        let end = self.end(id)?;
        let address = |side| Address::from_slice(&rules::side(&end.record, side).address);
        let other = rules::side(&end.record, end.other());
        let (pending_op, pending) = end.deposit.map_or((None, 0), |(op, amount)| (Some(op), amount));
        let chain: i128 = end.paid.values().map(|lane| i128::from(lane.value())).sum();
        let voucher_redeemed = if end.pays() { end.money.committed } else { chain };
        Ok(Status {
            direction: end.direction(),
            control: end.account,
            channel: id.channel,
            side: id.side,
            from: address(OPENER)?,
            to: address(OTHER)?,
            state: end.state(),
            confirmed: whole(end.money.confirmed),
            pending,
            pending_op,
            pending_order: pending_op.and_then(|op| self.ops.get(&op)).and_then(|op| op.order_id),
            queued: end.queued(),
            voucher_redeemed: whole(voucher_redeemed),
            received: whole(end.money.received),
            reserved: whole(end.money.held + end.leaving()),
            committed: whole(end.money.committed),
            locked: whole(end.money.locked),
            locked_in: whole(end.money.locked_in),
            available: end.available(),
            settling_at_ms: end.record.settling_at_ms,
            leaving: other.leaving,
            leaving_at_ms: other.leaving_at_ms,
            diverged: end.diverged,
            seen_ms: end.seen_ms,
        })
    }

    /// How a request or message is doing; the same for ever once it is over. `UNKNOWN_OPERATION`.
    pub fn operation(&self, op: OpId) -> Result<OpStatus> {
        let found = self.op(op)?;
        let carrier = found.carrier.and_then(|carrier| self.ops.get(&carrier));
        Ok(OpStatus {
            kind: found.kind(),
            account: found.account,
            end: found.end,
            state: carrier.map_or(&found.state, |carrier| &carrier.state).clone(),
            order_id: carrier.map_or(found.order_id, |carrier| carrier.order_id),
            carrier: found.carrier,
        })
    }

    /// Requests and messages that are not over.
    pub fn open_operations(&self) -> impl Iterator<Item = OpId> {
        self.ops.iter().filter(|(_, op)| op.state.is_open()).map(|(op, _)| *op)
    }

    /// A reservation that holds or waits for something; none if it is used up, failed or released.
    pub fn reservation(&self, id: &EndId, reservation: ReservationId) -> Result<Option<ReservationStatus>> {
        let found = self.end(id)?.reservations.get(&reservation);
        Ok(found.map(|one| ReservationStatus { end: *id, usage: one.usage, held: one.held, missing: one.missing }))
    }

    /// Minor units in the anonymous pool.
    pub fn pool(&self, id: &EndId) -> Result<u64> {
        Ok(self.end(id)?.pool)
    }

    /// The open channel from one address to another, own one, that has lanes left and the most available; the first by id of
    /// several.
    pub fn lookup(&self, from: &Address, to: &Address) -> Option<EndId> {
        let is = |end: &End, side, address: &Address| rules::side(&end.record, side).address == address.as_bytes()[..];
        let fits = |end: &End| {
            let pays = end.account == *from && is(end, end.other(), to) && end.pays() && !end.diverged;
            pays && end.state() == EndState::Open && end.next_lane < LANES_MAX
        };
        let found = self.ends.iter().filter(|(_, end)| fits(end));
        found.max_by_key(|(id, end)| (end.available(), std::cmp::Reverse(**id))).map(|(id, _)| *id)
    }

    /// Ends by id, after `after`, at most `limit` of them (256 at most): of a state or of all.
    pub fn list(&self, state: Option<EndState>, after: Option<&EndId>, limit: usize) -> Vec<EndId> {
        let from = after.map_or(std::ops::Bound::Unbounded, |id| std::ops::Bound::Excluded(*id));
        let all = self.ends.range((from, std::ops::Bound::Unbounded));
        let fits = all.filter(|(_, end)| state.is_none_or(|state| end.state() == state));
        fits.map(|(id, _)| *id).take(limit.min(PAGE_MAX)).collect()
    }

    /// Vouchers of an end by (payer, lane, nonce), after `after`, at most `limit` of them (256 at most). Superseded ones are there
    /// until the channel settles.
    pub fn voucher_list(&self, id: &EndId, after: Option<(u32, u32, u64)>, limit: usize) -> Result<Vec<Listed>> {
        let end = self.end(id)?;
        let mut all = Vec::new();
        let limit = limit.min(PAGE_MAX);
        for payer in [OPENER, OTHER] {
            let from = after.filter(|after| after.0 == payer).map_or(0, |after| after.1);
            if after.is_some_and(|after| payer < after.0) {
                continue;
            }
            for lane in end.lanes(payer, from) {
                if all.len() >= limit {
                    return Ok(all);
                }
                let later = |one: &Listed| after.is_none_or(|after| (payer, lane, one.nonce) > after);
                let of_lane = end.listed(payer, lane).into_iter().filter(later);
                all.extend(of_lane.take(limit - all.len()));
            }
        }
        Ok(all)
    }

    /// What a lane of the own side has paid for good, minor units; 0 if it was never used.
    pub fn lane_paid(&self, id: &EndId, lane: u32) -> Result<u64> {
        Ok(self.end(id)?.out.get(&lane).map_or(0, |lane| lane.amount))
    }

    /// Lanes of the own side that are in use and wait for no lock, with what they have paid for good.
    pub fn lanes_paid(&self, id: &EndId) -> Result<Vec<(u32, u64)>> {
        let free = self.end(id)?.out.iter().filter(|(_, lane)| lane.lock.is_none());
        Ok(free.map(|(number, lane)| (*number, lane.amount)).collect())
    }

    /// What a side has taken out of the channel, in all, by the log.
    pub fn withdrawn(&self, id: &EndId, side: u32) -> Result<u64> {
        Ok(rules::side(&self.end(id)?.record, side).withdrawn)
    }

    /// Whether the log would redeem a voucher now with this secret. Errors: those of adding it, and `PROOF_REFUSED` for a
    /// proof that is not empty.
    pub fn voucher_check_spendable(
        &self,
        now: super::Now,
        id: EndId,
        signed: &wire::SignedVoucher,
        secret: &[u8],
        proof: &[u8],
    ) -> Result<bool> {
        if !proof.is_empty() {
            return Err(Error::expected(Code::ProofRefused, "bytes of the proof", 0, proof.len()));
        }
        self.voucher_check_valid(now, id, signed)?;
        let end = self.end(&id)?;
        let voucher = Voucher::decode(signed)?;
        let at = At { channel: &id.channel, side: end.side, now_ms: now.log_ms, verify: false };
        Ok(end.record.revision > 0 && rules::check(&end.record, &voucher, secret, at).is_ok())
    }
}

impl End {
    fn direction(&self) -> Direction {
        match (self.record.two_way, self.side) {
            (true, _) => Direction::TwoWay,
            (false, OPENER) => Direction::Outbound,
            (false, _) => Direction::Inbound,
        }
    }

    /// Asked for and not yet in a message.
    fn queued(&self) -> u64 {
        let adds: i128 = self.adds.values().map(|amount| i128::from(*amount)).sum();
        let under_way = i128::from(self.deposit.map_or(0, |(_, amount)| amount));
        whole(adds.max(self.money.missing - under_way))
    }

    fn lanes(&self, payer: u32, from: u32) -> Vec<u32> {
        match payer == self.side {
            true => self.out.range(from..).map(|(lane, _)| *lane).collect(),
            false => self.paid.range(from..).map(|(lane, _)| *lane).collect(),
        }
    }

    /// Vouchers of a lane, by nonce.
    fn listed(&self, payer: u32, number: u32) -> Vec<Listed> {
        let mut all: Vec<&Kept> = Vec::new();
        let lock = |lock: &Option<Lock>| lock.as_ref().map(|lock| (lock.kept.nonce, lock.secret.clone()));
        let mut secret = None;
        if let Some(lane) = self.out.get(&number).filter(|_| payer == self.side) {
            all.extend(&lane.history);
            all.extend(lane.last.iter().chain(lane.cancel.iter().map(|cancel| &cancel.kept)));
            secret = lock(&lane.lock);
        }
        let mut taken = (None, None);
        if let Some(lane) = self.paid.get(&number).filter(|_| payer != self.side) {
            all.extend(&lane.history);
            all.extend(lane.firm.iter().chain(lane.lock.iter().map(|lock| &lock.kept)));
            secret = lock(&lane.lock);
            taken = (lane.chain.map(|chain| chain.0), lane.submitted.map(|(nonce, _)| nonce));
        }
        all.sort_by_key(|kept| kept.nonce);
        let last = all.last().map(|kept| kept.nonce);
        let state = |kept: &Kept| match taken {
            _ if kept.voucher.signer == self.side => VoucherState::Issued,
            (Some(redeemed), _) if kept.nonce <= redeemed => VoucherState::Redeemed,
            (_, Some(submitted)) if kept.nonce <= submitted => VoucherState::SubmitPending,
            _ => VoucherState::Stored,
        };
        let listed = all.into_iter().map(|kept| Listed {
            voucher: kept.voucher.clone(),
            payer,
            lane: number,
            nonce: kept.nonce,
            state: state(kept),
            superseded: Some(kept.nonce) != last,
            secret: secret.as_ref().filter(|lock| lock.0 == kept.nonce).map_or(Bytes::new(), |lock| lock.1.clone()),
        });
        listed.collect()
    }
}
