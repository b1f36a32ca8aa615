//! Sets in: the other side's next voucher. It is taken if it follows from the one before and leaves nobody with less: what is
//! taken out must be paid, over, or have been refused. What is new in it may be refused without refusing the voucher.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::open::Ahead;
use super::state::{InSet, LaneKey, Leaf, Stage, id_of, set_of};
use super::{Event, Todo, Turn, VirtualId, Virtuals};
use crate::channel::manager::{self, EndId, Exposed, Reply as ManagerReply, VirtualInput};
use crate::channel::voucher::{self, Voucher};
use crate::content::check_address;
use crate::error::{Code, Error, Result};
use crate::limits::VIRTUALS_MAX;
use crate::permission::Permission;
use crate::wire::virtual_message::Kind;
use crate::wire::virtual_record::Kind as Record;
use crate::wire::{self, VirtualOpen, VirtualRefused, VirtualUpdate};

impl Virtuals {
    pub(super) fn on_update(&mut self, end: EndId, update: VirtualUpdate, turn: &mut Turn) -> Result<()> {
        if !self.is_ready(&end) {
            return Err(Error::new(Code::HubOffline, "vouchers are not compared yet"));
        }
        let signed = update.voucher.clone().ok_or_else(|| Error::new(Code::BadContent, "a set without a voucher"))?;
        let terms = Voucher::decode(&signed)?.terms;
        let key = (end, terms.lane);
        let none = InSet::default();
        let set = self.ins.get(&key).unwrap_or(&none);
        if terms.nonce <= set.nonce {
            if terms.nonce == set.nonce {
                self.say_ack(&key, signed, turn)?;
            }
            return Ok(());
        }
        if update.base != set.nonce {
            return Err(Error::expected(Code::VirtualState, "nonce that the set follows", set.nonce, update.base));
        }
        let changes = update.opens.len().max(update.shuts.len());
        if changes > VIRTUALS_MAX as usize {
            let expected = format!("at most {VIRTUALS_MAX}");
            return Err(Error::expected(Code::Limit, "virtual channels that are opened or closed", expected, changes));
        }
        let lane = turn.manager.virtual_lane(&end, 1 - end.side, key.1)?;
        if lane.busy {
            return Err(Error::new(Code::VirtualBusy, format!("something of lane {} is being claimed", key.1)));
        }
        let least = self.judge_shuts(&key, set, &update, &lane)?;
        let mut leaves = set.leaves.clone();
        update.shuts.iter().for_each(|shut| drop(leaves.remove(&shut.id[..])));
        let mut least = least.saturating_add(set.amount);
        let refused = self.judge_opens(&end, &update.opens, &mut leaves, &mut least, turn)?;
        check_set(&terms, &leaves, least)?;
        let exposed = self.exposed_in(&leaves, terms.amount, lane.seen_ms);
        let add = VirtualInput::Add { end, voucher: signed, exposed };
        let ManagerReply::Issued { voucher: Some(back), .. } = turn.call(manager::Input::Virtual(add))? else {
            return Err(Error::new(Code::VirtualState, "the voucher was not signed back"));
        };
        let shut: Vec<_> = update.shuts.iter().map(|shut| (shut.id.clone(), shut.paid)).collect();
        let was_open: Vec<_> = shut.into_iter().filter(|(id, _)| self.is_open_in(&key, id)).collect();
        let taken = wire::VirtualSigned {
            lane: id_of(&key),
            nonce: terms.nonce,
            amount: terms.amount,
            opens: update.opens.clone(),
            shuts: update.shuts,
            refused: refused.clone(),
        };
        self.commit(Record::Taken(taken), turn);
        self.send(end, Kind::Ack(wire::VirtualAck { voucher: Some(back), refused: refused.clone() }), turn);
        for (id, paid) in was_open {
            if let Ok(id) = VirtualId::try_from(&id[..]) {
                turn.event(Event::Over { id, outgoing: false, paid, code: 0 });
                turn.todo.push_back(Todo::Channel(id));
            }
        }
        let taken = update.opens.iter().filter(|open| !is_refused(open, &refused));
        taken.for_each(|open| self.taken(&end, open, turn));
        Ok(())
    }

    /// What was taken goes on, or is open.
    fn taken(&mut self, end: &EndId, open: &VirtualOpen, turn: &mut Turn) {
        let bytes = open.cap.as_ref().map_or(Bytes::new(), |cap| cap.id.clone());
        let Ok(id) = VirtualId::try_from(&bytes[..]) else { return };
        if open.hops.is_empty() {
            self.commit(Record::Opened(bytes.clone()), turn);
            self.send(*end, Kind::Opened(bytes), turn);
            turn.event(Event::Accepted(id));
        } else if let Err(e) = self.pass_on(end, open, turn) {
            self.close_in(&id, e.code as u32, turn);
        }
    }

    /// The same again for a voucher that is taken.
    fn say_ack(&self, key: &LaneKey, signed: wire::SignedVoucher, turn: &mut Turn) -> Result<()> {
        let Some(set) = self.ins.get(key) else { return Ok(()) };
        let exposed = turn.manager.virtual_lane(&key.0, 1 - key.0.side, key.1)?.exposed;
        let add = VirtualInput::Add { end: key.0, voucher: signed, exposed };
        if let ManagerReply::Issued { voucher, .. } = turn.call(manager::Input::Virtual(add))? {
            let refused = set.leaves.values().filter(|leaf| leaf.code != 0);
            let refused = refused.map(|leaf| VirtualRefused { id: leaf.cap.id.clone(), code: leaf.code }).collect();
            self.send(key.0, Kind::Ack(wire::VirtualAck { voucher, refused }), turn);
        }
        Ok(())
    }

    fn is_open_in(&self, key: &LaneKey, id: &[u8]) -> bool {
        let found = VirtualId::try_from(id).ok().and_then(|id| self.channels.get(&id)?.inc.as_ref());
        found.is_some_and(|inc| inc.key == *key && inc.over.is_none())
    }

    /// What is taken out, and what the amount must have grown by for it.
    fn judge_shuts(
        &self,
        key: &LaneKey,
        set: &InSet,
        update: &VirtualUpdate,
        lane: &manager::VirtualLane,
    ) -> Result<u64> {
        let claimed = claimed_in(lane, set.nonce);
        let mut least = 0u64;
        for shut in &update.shuts {
            let id = VirtualId::try_from(&shut.id[..]).unwrap_or_default();
            let leaf = set.leaves.get(&id);
            let leaf = leaf.ok_or_else(|| Error::new(Code::VirtualState, "what is taken out is not in the set"))?;
            least = least.saturating_add(shut.paid);
            let due = match (leaf.code, claimed.get(&id)) {
                (_, Some(claimed)) => *claimed,
                (0, None) if lane.seen_ms <= leaf.cap.not_after_ms => self.due_in(key, &id)?,
                _ => 0,
            };
            if shut.paid < due {
                let what = format!("paid for virtual channel {}", hex::encode(id));
                return Err(Error::expected(Code::VirtualState, &what, format!("at least {due}"), shut.paid));
            }
        }
        let left = claimed.keys().find(|id| !update.shuts.iter().any(|shut| shut.id == id[..]));
        if let Some(id) = left.filter(|id| set.leaves.contains_key(*id)) {
            let message = format!("virtual channel {} was claimed in the log and is still in the set", hex::encode(id));
            return Err(Error::new(Code::VirtualState, message));
        }
        Ok(least)
    }

    /// For how much one that is open may be taken out. A hub's only when its way on is over.
    fn due_in(&self, key: &LaneKey, id: &VirtualId) -> Result<u64> {
        let Some(one) = self.channels.get(id) else { return Ok(0) };
        let Some(inc) = one.inc.as_ref().filter(|inc| inc.key == *key && inc.over.is_none()) else { return Ok(0) };
        match &one.out {
            Some(out) if !matches!(out.stage, Stage::Over(_)) => {
                let message = format!("virtual channel {} is still open beyond this hub", hex::encode(&inc.cap.id));
                Err(Error::new(Code::VirtualState, message))
            }
            _ => Ok(one.best()),
        }
    }

    fn judge_opens(
        &self,
        end: &EndId,
        opens: &[VirtualOpen],
        leaves: &mut BTreeMap<VirtualId, Leaf>,
        least: &mut u64,
        turn: &Turn,
    ) -> Result<Vec<VirtualRefused>> {
        let mut ahead = Ahead { room: turn.manager.room(turn.now, end)?, taken: 0, backed: 0 };
        let mut refused = Vec::new();
        for open in opens {
            let missing = || Error::new(Code::BadContent, "a virtual channel without its cap");
            let cap = open.cap.clone().ok_or_else(missing)?;
            let id = *check_address("virtual channel's id", &cap.id)?.as_bytes();
            Permission::decode_account(&cap.permission)?;
            *least = least.saturating_add(open.fee);
            ahead.room = ahead.room.saturating_sub(open.fee);
            let code = match self.judge_open(end, open, &ahead, turn) {
                Ok(()) => {
                    ahead.room = ahead.room.saturating_sub(cap.cap);
                    ahead.taken += 1;
                    let backed = if open.hops.is_empty() { 0 } else { cap.cap };
                    ahead.backed = ahead.backed.saturating_add(backed);
                    0
                }
                Err(e) => {
                    refused.push(VirtualRefused { id: cap.id.clone(), code: e.code as u32 });
                    e.code as u32
                }
            };
            if leaves.insert(id, Leaf { cap, code }).is_some() {
                return Err(Error::new(Code::VirtualState, "a virtual channel is in the set twice"));
            }
        }
        Ok(refused)
    }

    /// What may come of a lane of the other side: refused ones bring nothing.
    pub(super) fn exposed_in(&self, leaves: &BTreeMap<VirtualId, Leaf>, amount: u64, seen_ms: u64) -> Exposed {
        let mut exposed = Exposed { most: amount, next_ms: 0 };
        for (id, leaf) in leaves.iter().filter(|(_, leaf)| leaf.code == 0) {
            let over = self.channels.get(id).and_then(|one| one.inc.as_ref()?.over);
            exposed.most = exposed.most.saturating_add(over.unwrap_or(leaf.cap.cap));
            let until = leaf.cap.not_after_ms;
            if until >= seen_ms && (exposed.next_ms == 0 || until < exposed.next_ms) {
                exposed.next_ms = until;
            }
        }
        exposed
    }
}

/// What the log has claimed of a lane's newest set.
pub fn claimed_in(lane: &manager::VirtualLane, nonce: u64) -> BTreeMap<VirtualId, u64> {
    let chain = lane.chain.as_ref().filter(|chain| chain.nonce == nonce);
    let claimed = chain.map(|chain| &chain.claimed[..]).unwrap_or_default();
    let amounts = claimed.iter().filter_map(|one| voucher::virtual_amount(one.amount.as_ref()?).ok());
    amounts.filter_map(|one| Some((VirtualId::try_from(&one.id[..]).ok()?, one.amount))).collect()
}

fn is_refused(open: &VirtualOpen, refused: &[VirtualRefused]) -> bool {
    open.cap.as_ref().is_none_or(|cap| refused.iter().any(|one| one.id == cap.id))
}

/// That a voucher says what the changes say.
fn check_set(terms: &wire::Voucher, leaves: &BTreeMap<VirtualId, Leaf>, least: u64) -> Result<()> {
    if leaves.len() > VIRTUALS_MAX as usize {
        let expected = format!("at most {VIRTUALS_MAX}");
        return Err(Error::expected(Code::Limit, "virtual channels of a lane", expected, leaves.len()));
    }
    let hashes: Vec<_> = leaves.values().map(|leaf| voucher::virtual_leaf(&leaf.cap)).collect();
    if terms.virtuals != set_of(&hashes) {
        return Err(Error::new(Code::VirtualState, "the voucher's set is not the one before with the changes"));
    }
    if terms.amount < least {
        let expected = format!("at least {least}");
        return Err(Error::expected(Code::VirtualState, "amount of the voucher", expected, terms.amount));
    }
    Ok(())
}
