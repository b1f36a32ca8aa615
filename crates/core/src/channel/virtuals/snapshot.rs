//! The state as one record, so that the journal can be written anew: what is superseded takes no more room in it.

use bytes::Bytes;

use super::state::virtual_id;
use super::state::{Channel, In, InSet, LaneKey, Leaf, Out, OutSet, Stage, State, cap_of, id_of, key, permission};
use super::{VirtualId, Virtuals, corrupt};
use crate::channel::voucher;
use crate::error::Result;
use crate::wire::virtual_record::Kind as Record;
use crate::wire::{self, VirtualClose, VirtualKept, VirtualLaneState, VirtualOpen, VirtualOver, hub_entry};

impl Virtuals {
    /// What belongs into a journal that is written anew, in the one group with what the manager (and the hub) give: it makes the same
    /// virtual channels.
    pub fn snapshot(&self) -> wire::HubEntry {
        let record = wire::VirtualRecord { kind: Some(Record::State(self.state())) };
        wire::HubEntry { kind: Some(hub_entry::Kind::Virtual(record)) }
    }

    fn state(&self) -> wire::VirtualState {
        let out = |(key, set): (&LaneKey, &OutSet)| wire::VirtualOutLane {
            lane: id_of(key),
            states: set.states.iter().map(kept_state).collect(),
            until_ms: set.until_ms,
        };
        let leaf = |leaf: &Leaf| wire::VirtualLeaf { cap: Some(leaf.cap.clone()), code: leaf.code };
        let inc = |(key, set): (&LaneKey, &InSet)| wire::VirtualInLane {
            lane: id_of(key),
            nonce: set.nonce,
            amount: set.amount,
            leaves: set.leaves.values().map(leaf).collect(),
        };
        wire::VirtualState {
            outs: self.outs.iter().map(out).collect(),
            ins: self.ins.iter().map(inc).collect(),
            channels: self.channels.iter().map(|(id, one)| kept(id, one)).collect(),
            diverged: self.diverged.iter().filter_map(|end| id_of(&(*end, 0))).collect(),
        }
    }

    pub(super) fn apply_state(&mut self, state: &wire::VirtualState) -> Result<()> {
        for lane in &state.outs {
            let states = lane.states.iter().map(read_state).collect::<Result<Vec<_>>>()?;
            if states.is_empty() {
                return Err(corrupt("a lane without a state"));
            }
            let members = states.iter().flat_map(|state| &state.leaves).copied().collect();
            self.outs.insert(key(lane.lane.as_ref())?, OutSet { states, members, until_ms: lane.until_ms });
        }
        for lane in &state.ins {
            let mut set = InSet { nonce: lane.nonce, amount: lane.amount, ..InSet::default() };
            for leaf in &lane.leaves {
                let cap = leaf.cap.clone().ok_or_else(|| corrupt("a leaf without its cap"))?;
                set.leaves.insert(virtual_id(&cap.id)?, Leaf { cap, code: leaf.code });
            }
            self.ins.insert(key(lane.lane.as_ref())?, set);
        }
        for kept in &state.channels {
            let (id, one) = read(kept)?;
            if let Some(out) = one.out.as_ref().filter(|out| out.stage == Stage::Wanted) {
                let set = self.outs.get_mut(&out.key).ok_or_else(|| corrupt("an opening in no lane"))?;
                set.members.insert(id);
            }
            self.channels.insert(id, one);
        }
        for lane in &state.diverged {
            self.diverged.insert(key(Some(lane))?.0);
        }
        Ok(())
    }
}

fn kept_state(state: &State) -> VirtualLaneState {
    let leaves = state.leaves.iter().map(|id| Bytes::copy_from_slice(id)).collect();
    VirtualLaneState { nonce: state.nonce, amount: state.amount, leaves }
}

fn read_state(state: &VirtualLaneState) -> Result<State> {
    let leaves = state.leaves.iter().map(|id| virtual_id(id)).collect::<Result<_>>()?;
    Ok(State { nonce: state.nonce, amount: state.amount, leaves })
}

fn kept(id: &VirtualId, one: &Channel) -> VirtualKept {
    let mut kept = VirtualKept {
        id: Bytes::copy_from_slice(id),
        best: one.best.as_ref().map(|(_, signed)| signed.clone()),
        paid: one.paid,
        opened: one.opened,
        ..VirtualKept::default()
    };
    if let Some(out) = &one.out {
        (kept.stage, kept.out_paid) = match out.stage {
            Stage::Wanted => (0, 0),
            Stage::Live => (1, 0),
            Stage::Leaving(paid) => (2, paid),
            Stage::Over(paid) => (3, paid),
        };
        kept.out_lane = id_of(&out.key);
        kept.out = Some(VirtualOpen { cap: Some(out.cap.clone()), hops: out.hops.clone(), fee: out.fee });
        kept.out_code = out.code;
    }
    if let Some(inc) = &one.inc {
        kept.in_lane = id_of(&inc.key);
        kept.cap = Some(inc.cap.clone());
        kept.closing = inc.closing.map(|code| VirtualClose { code, ..VirtualClose::default() });
        kept.over = inc.over.map(|paid| VirtualOver { paid, ..VirtualOver::default() });
    }
    kept
}

fn read(kept: &VirtualKept) -> Result<(VirtualId, Channel)> {
    let out = kept.out.as_ref().map(|open| read_out(kept, open)).transpose()?;
    let inc = match &kept.cap {
        None => None,
        Some(cap) => Some(In {
            key: key(kept.in_lane.as_ref())?,
            cap: cap.clone(),
            permission: permission(cap)?,
            closing: kept.closing.as_ref().map(|closing| closing.code),
            over: kept.over.as_ref().map(|over| over.paid),
        }),
    };
    let amount = |signed: &wire::SignedPermit| {
        let amount = voucher::virtual_amount(signed).map_err(|e| corrupt(&format!("an amount: {e}")))?;
        Ok((amount.amount, signed.clone()))
    };
    let best = kept.best.as_ref().map(amount).transpose()?;
    Ok((virtual_id(&kept.id)?, Channel { out, inc, best, paid: kept.paid, opened: kept.opened }))
}

fn read_out(kept: &VirtualKept, open: &VirtualOpen) -> Result<Out> {
    let (_, cap) = cap_of(open)?;
    let stage = match kept.stage {
        0 => Stage::Wanted,
        1 => Stage::Live,
        2 => Stage::Leaving(kept.out_paid),
        3 => Stage::Over(kept.out_paid),
        _ => return Err(corrupt("a virtual channel at no known stage")),
    };
    Ok(Out {
        key: key(kept.out_lane.as_ref())?,
        permission: permission(&cap)?,
        leaf: voucher::virtual_leaf(&cap),
        cap,
        hops: open.hops.clone(),
        fee: open.fee,
        stage,
        code: kept.out_code,
    })
}
