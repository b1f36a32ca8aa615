//! How virtual channels end: closed together, claimed in the log, or by time.

use bytes::Bytes;
use prost::Message as _;

use super::pay::over;
use super::state::{InSet, LaneKey, Stage};
use super::take::claimed_in;
use super::{Event, Todo, Tries, Turn, VirtualId, Virtuals};
use crate::channel::manager::{self, EndId, EndState, VirtualInput, VirtualLane};
use crate::channel::voucher;
use crate::error::{Code, Error, Result};
use crate::limits::CALL_BYTES_MAX;
use crate::merkle::Tree;
use crate::wire::virtual_message::Kind;
use crate::wire::virtual_peer::Kind as PeerKind;
use crate::wire::virtual_record::Kind as Record;
use crate::wire::{self, SignedPermit, VirtualClaim, VirtualClose, VirtualShut};

/// Bytes of a CALL that are left for claims, beside a voucher of keys of any kind.
const CLAIM_BYTES_MAX: usize = CALL_BYTES_MAX - 2_048;

impl Virtuals {
    /// The payee closes; the payer asks it to.
    pub(super) fn close(&mut self, id: VirtualId, turn: &mut Turn) -> Result<()> {
        let one = self.channel(&id)?;
        match (&one.out, &one.inc) {
            (None, Some(inc)) if inc.over.is_none() => {
                self.close_in(&id, 0, turn);
                Ok(())
            }
            (Some(out), None) if !matches!(out.stage, Stage::Over(_)) => {
                turn.tell(&id, PeerKind::Close(true));
                Ok(())
            }
            _ => Err(over(&id)),
        }
    }

    /// Asks the other side to take one out, for the highest amount that is known.
    pub(super) fn close_in(&mut self, id: &VirtualId, code: u32, turn: &mut Turn) {
        let Some(inc) = self.channels.get(id).and_then(|one| one.inc.as_ref()) else { return };
        if inc.closing.is_none() {
            let closing = VirtualClose { id: Bytes::copy_from_slice(id), amount: None, code };
            self.commit(Record::Closing(closing), turn);
        }
        self.say_close(id, turn);
    }

    pub(super) fn say_close(&self, id: &VirtualId, turn: &mut Turn) {
        let Some(one) = self.channels.get(id) else { return };
        let Some(inc) = one.inc.as_ref().filter(|inc| inc.over.is_none()) else { return };
        let amount = one.best.as_ref().map(|(_, signed)| signed.clone());
        let close = VirtualClose { id: Bytes::copy_from_slice(id), amount, code: inc.closing.unwrap_or(0) };
        self.send(inc.key.0, Kind::Close(close), turn);
    }

    /// The other side has one open up to the payee.
    pub(super) fn on_opened(&mut self, end: EndId, id: &Bytes, turn: &mut Turn) -> Result<()> {
        let id = self.own(&end, id)?;
        let one = self.channel(&id)?;
        if one.opened || one.out.as_ref().is_none_or(|out| out.stage != Stage::Live) {
            return Ok(());
        }
        let back = one.inc.as_ref().map(|inc| inc.key.0);
        self.commit(Record::Opened(Bytes::copy_from_slice(&id)), turn);
        match back {
            Some(back) => self.send(back, Kind::Opened(Bytes::copy_from_slice(&id)), turn),
            None => turn.event(Event::Opened(id)),
        }
        Ok(())
    }

    /// The other side wants one taken out of an own set.
    pub(super) fn on_close(&mut self, end: EndId, close: VirtualClose, turn: &mut Turn) -> Result<()> {
        let id = self.own(&end, &close.id)?;
        let Some(out) = self.channel(&id)?.out.as_ref() else { return Ok(()) };
        let (key, stage) = (out.key, out.stage);
        let paid = match &close.amount {
            None => 0,
            Some(signed) => {
                let shown = voucher::virtual_amount(signed)?;
                if shown.id != out.cap.id || shown.amount > out.cap.cap {
                    let expected = format!("at most {}", out.cap.cap);
                    return Err(Error::expected(Code::VirtualAmount, "amount shown", expected, shown.amount));
                }
                if matches!(stage, Stage::Wanted | Stage::Live) {
                    voucher::verify_virtual(signed, &out.permission)?;
                }
                shown.amount
            }
        };
        match stage {
            Stage::Live => {
                if let Some(signed) = close.amount {
                    self.learn(&id, paid, signed, turn);
                }
                let shut = VirtualShut { id: Bytes::copy_from_slice(&id), paid, code: close.code };
                self.commit(Record::Leaving(shut), turn);
                turn.todo.push_back(Todo::Lane(key));
            }
            // It is being done, and said again.
            _ => self.say_update(&key, turn),
        }
        Ok(())
    }

    /// A virtual channel that the own side pays for on an end.
    fn own(&self, end: &EndId, id: &[u8]) -> Result<VirtualId> {
        let id = VirtualId::try_from(id).map_err(|_| Error::new(Code::BadContent, "an id of 32 bytes"))?;
        let known = self.channel(&id)?.out.as_ref().is_some_and(|out| out.key.0 == *end);
        let other = || Error::new(Code::VirtualChannel, "the virtual channel is not one of this channel");
        known.then_some(id).ok_or_else(other)
    }

    fn learn(&mut self, id: &VirtualId, amount: u64, signed: SignedPermit, turn: &mut Turn) {
        if self.channels.get(id).is_some_and(|one| amount > one.best()) {
            self.commit(Record::Best(signed), turn);
        }
    }

    /// What log and time make of the end that the own side pays on.
    pub(super) fn step_out(&mut self, id: VirtualId, turn: &mut Turn) {
        let Some(out) = self.channels.get(&id).and_then(|one| one.out.clone()) else { return };
        if matches!(out.stage, Stage::Over(_)) {
            return;
        }
        let (end, lane) = out.key;
        let Ok(view) = turn.manager.virtual_lane(&end, end.side, lane) else { return };
        let claimed = view.chain.as_ref().map(|chain| &chain.claimed[..]).unwrap_or_default();
        let of_it = |one: &wire::ClaimedVirtual| {
            let signed = one.amount.clone()?;
            let shown = voucher::virtual_amount(&signed).ok()?;
            (shown.id == out.cap.id).then_some((shown.amount, signed))
        };
        let claimed = claimed.iter().find_map(of_it);
        let amount = claimed.as_ref().map_or(0, |(amount, _)| *amount);
        if let Some((amount, signed)) = claimed {
            self.learn(&id, amount, signed, turn);
        }
        let leaving = match out.stage {
            Stage::Leaving(paid) => paid,
            _ => 0,
        };
        let chain = view.chain.as_ref().map_or(0, |chain| chain.nonce);
        let states = self.outs.get(&out.key).map(|set| &set.states[..]).unwrap_or_default();
        let last_with = states.iter().rev().find(|state| state.leaves.contains(&id)).map(|state| state.nonce);
        let in_newest = states.last().is_some_and(|state| state.leaves.contains(&id));
        if view.state == EndState::Collected || view.seen_ms > out.cap.not_after_ms {
            // In the newest set, nothing but what the log has can come of it any more.
            let paid = if in_newest { amount } else { amount.max(leaving) };
            self.over_out(&id, paid, 0, turn);
        } else if amount > 0 && last_with == Some(chain) {
            // No newer voucher has it, and each is claimed once.
            self.over_out(&id, amount.max(leaving), 0, turn);
        } else if last_with.is_some_and(|last| last < chain) && states.iter().any(|state| state.nonce == chain) {
            // The log has a voucher without it, also if that was not signed back: none that has it is redeemed any more.
            self.over_out(&id, leaving, 0, turn);
        } else if amount > leaving && in_newest && out.stage != Stage::Wanted {
            self.commit(Record::Leaving(VirtualShut { id: out.cap.id.clone(), paid: amount, code: 0 }), turn);
            turn.todo.push_back(Todo::Lane(out.key));
        }
    }

    /// What log and time make of the end that the own side is paid on.
    pub(super) fn step_in(&mut self, id: VirtualId, turn: &mut Turn) {
        let Some(one) = self.channels.get(&id).cloned() else { return };
        let Some(inc) = one.inc.as_ref().filter(|inc| inc.over.is_none()) else { return };
        let (end, lane) = inc.key;
        let Ok(view) = turn.manager.virtual_lane(&end, 1 - end.side, lane) else { return };
        let nonce = self.ins.get(&inc.key).map_or(0, |set| set.nonce);
        let claimed = claimed_in(&view, nonce).get(&id).copied();
        let late = view.state == EndState::Collected || view.seen_ms > inc.cap.not_after_ms;
        if claimed.is_some() || late {
            return self.over_in(&id, claimed.unwrap_or(0), turn);
        }
        let done = one.out.as_ref().is_none_or(|out| matches!(out.stage, Stage::Over(_)));
        if done && one.out.is_some() && inc.closing.is_none() {
            self.close_in(&id, one.out.as_ref().map_or(0, |out| out.code), turn);
        }
        if self.is_due(&id, &view, turn) {
            self.claim(inc.key, &view, turn);
        }
    }

    fn over_in(&mut self, id: &VirtualId, paid: u64, turn: &mut Turn) {
        let Some(key) = self.channels.get(id).and_then(|one| one.inc.as_ref()).map(|inc| inc.key) else { return };
        let over = wire::VirtualOver { id: Bytes::copy_from_slice(id), outgoing: false, paid, code: 0 };
        self.commit(Record::Over(over), turn);
        turn.event(Event::Over { id: *id, outgoing: false, paid, code: 0 });
        turn.todo.push_back(Todo::Left(key));
    }

    /// Tells the manager what a lane of the other side may still bring.
    pub(super) fn left_in(&self, key: LaneKey, turn: &mut Turn) {
        let Some(set) = self.ins.get(&key) else { return };
        let Ok(view) = turn.manager.virtual_lane(&key.0, 1 - key.0.side, key.1) else { return };
        if view.state == EndState::Collected {
            return;
        }
        let exposed = self.exposed_in(&set.leaves, set.amount, view.seen_ms);
        let left = VirtualInput::Left { end: key.0, payer: 1 - key.0.side, lane: key.1, exposed };
        let told = turn.call(manager::Input::Virtual(left));
        debug_assert!(told.is_ok(), "{told:?}");
    }

    /// Whether one has to be claimed in the log now: its limit is near, or its channel settles. A hub's only when its way on is over,
    /// for before that more may be claimed there; or when there is no more time to wait for that.
    fn is_due(&self, id: &VirtualId, view: &VirtualLane, turn: &Turn) -> bool {
        let Some(one) = self.channels.get(id) else { return false };
        let Some(inc) = one.inc.as_ref().filter(|inc| inc.over.is_none()) else { return false };
        let near = turn.now.log_ms.saturating_add(self.config.claim_ms()) >= inc.cap.not_after_ms;
        let done = one.out.as_ref().is_none_or(|out| matches!(out.stage, Stage::Over(_)));
        // A hub may be away for its grace, also at the end.
        let grace = if one.out.is_some() { self.config.policy.grace_ms } else { 0 };
        let soon = turn.now.log_ms.saturating_add(self.config.claim_ms()).saturating_add(grace) >= inc.cap.not_after_ms;
        one.best() > 0 && (near || done && (soon || view.state == EndState::Settling))
    }

    /// Claims of virtual channels that are in the newest set of a lane, with their paths.
    pub(super) fn claims_of(&self, key: &LaneKey, set: &InSet, ids: &[VirtualId]) -> Vec<VirtualClaim> {
        // A set whose channels are all over has no tree.
        if ids.is_empty() {
            return Vec::new();
        }
        let hashes: Vec<_> = set.leaves.values().map(|leaf| voucher::virtual_leaf(&leaf.cap)).collect();
        let tree = Tree::new(&hashes);
        let claim = |id: &VirtualId| {
            let index = set.leaves.keys().position(|leaf| leaf == id)?;
            Some(VirtualClaim {
                channel: Bytes::copy_from_slice(&key.0.channel),
                payer: 1 - key.0.side,
                lane: key.1,
                cap: Some(set.leaves.get(id)?.cap.clone()),
                index: index as u32,
                path: tree.path(index).iter().map(|hash| Bytes::copy_from_slice(hash)).collect(),
                amount: self.channels.get(id)?.best.as_ref().map(|(_, signed)| signed.clone()),
                watch: None,
            })
        };
        ids.iter().filter_map(claim).collect()
    }

    /// Claims all of a lane that are due, as many as fit; the others when the log has these.
    fn claim(&mut self, key: LaneKey, view: &VirtualLane, turn: &mut Turn) {
        let in_time = |id: &VirtualId| {
            let inc = self.channels.get(id).and_then(|one| one.inc.as_ref());
            inc.is_some_and(|inc| inc.key == key && inc.cap.not_after_ms >= turn.now.log_ms)
        };
        let Some(set) = self.ins.get(&key).filter(|_| !view.busy && view.newest.is_some()) else { return };
        if view.chain.as_ref().is_some_and(|chain| chain.nonce > set.nonce) {
            return;
        }
        let due = set.leaves.keys().filter(|id| in_time(id) && self.is_due(id, view, turn));
        let due: Vec<VirtualId> = due.copied().collect();
        if due.is_empty() {
            return;
        }
        // What the log has refused is tried again when it has changed, or later.
        let tries = match self.tries.get(&key).filter(|tries| tries.chain == view.chain) {
            Some(tries) if tries.at_ms.saturating_add(self.config.policy.retry_ms) > turn.now.clock_ms => return,
            tries => tries.map_or(0, |tries| tries.count),
        };
        // All that fit at first; after a try that did not come to anything, one by one.
        let first: Vec<VirtualId> = due.iter().cycle().skip(tries % due.len()).take(due.len()).copied().collect();
        let claims = self.claims_of(&key, set, if tries > 0 { &first[..1] } else { &first });
        let claims = fit_claims(claims, usize::MAX).into_iter().next().unwrap_or_default();
        for id in &due {
            let closing = self.channels.get(id).and_then(|one| one.inc.as_ref()?.closing);
            if closing.is_none() {
                // No payment counts any more.
                let closing = VirtualClose { id: Bytes::copy_from_slice(id), amount: None, code: 0 };
                self.commit(Record::Closing(closing), turn);
            }
        }
        let claim = VirtualInput::Claim { end: key.0, lane: key.1, claims };
        if turn.call(manager::Input::Virtual(claim)).is_ok() {
            let (at_ms, chain) = (turn.now.clock_ms, view.chain.clone());
            self.tries.insert(key, Tries { count: tries + 1, at_ms, chain });
        }
    }
}

/// Claims in orders, as many as fit in each, and at most `each`.
pub fn fit_claims(all: Vec<VirtualClaim>, each: usize) -> Vec<Vec<VirtualClaim>> {
    let mut orders: Vec<Vec<VirtualClaim>> = Vec::new();
    let mut left = 0;
    for claim in all {
        let bytes = claim.encoded_len() + 4;
        match orders.last_mut() {
            Some(last) if bytes <= left && last.len() < each => {
                left -= bytes;
                last.push(claim);
            }
            _ => {
                left = CLAIM_BYTES_MAX.saturating_sub(bytes);
                orders.push(vec![claim]);
            }
        }
    }
    orders
}
