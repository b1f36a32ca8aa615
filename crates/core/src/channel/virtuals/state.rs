//! What the records make of the state.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{VirtualId, Virtuals, corrupt};
use crate::channel::check_side;
use crate::channel::manager::EndId;
use crate::channel::voucher;
use crate::error::Result;
use crate::merkle::{Hash, Tree};
use crate::permission::Permission;
use crate::wire::virtual_record::Kind as Record;
use crate::wire::{self, HubLockId, SignedPermit, VirtualCap, VirtualHop, VirtualOpen, VirtualSet};

/// A lane of an end.
pub type LaneKey = (EndId, u32);

/// One state of a lane: what a voucher of it says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub nonce: u64,
    pub amount: u64,
    /// In the order of the set.
    pub leaves: BTreeSet<VirtualId>,
}

/// A lane that the own side pays on.
#[derive(Debug)]
pub struct OutSet {
    /// Those that the other side has not given up, oldest first: the first it has signed back (or it is the empty one).
    pub states: Vec<State>,
    /// Virtual channels that are in a state, or are to be.
    pub members: BTreeSet<VirtualId>,
    /// Latest time limit of all that it ever had, log time in ms.
    pub until_ms: u64,
}

/// A lane that the other side pays on.
#[derive(Debug, Default)]
pub struct InSet {
    pub nonce: u64,
    pub amount: u64,
    pub leaves: BTreeMap<VirtualId, Leaf>,
}

/// In the other side's set.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub cap: VirtualCap,
    /// Not 0: refused, and waits to be taken out.
    pub code: u32,
}

/// A virtual channel.
#[derive(Clone, Debug, Default)]
pub struct Channel {
    /// The end that the own side pays on: of the payer and of a hub.
    pub out: Option<Out>,
    /// The end that the own side is paid on: of the payee and of a hub.
    pub inc: Option<In>,
    /// The highest amount that its payer has signed, as far as known.
    pub best: Option<(u64, SignedPermit)>,
    /// That this wallet has signed as its payer.
    pub paid: u64,
    /// Open up to the payee.
    pub opened: bool,
}

/// The end that the own side pays on.
#[derive(Clone, Debug)]
pub struct Out {
    pub key: LaneKey,
    pub cap: VirtualCap,
    pub permission: Permission,
    /// As a leaf of the tree.
    pub leaf: Hash,
    pub hops: Vec<VirtualHop>,
    pub fee: u64,
    pub stage: Stage,
    /// Why it never opened; 0 = it did.
    pub code: u32,
}

/// How far an end is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// To be put into the lane.
    Wanted,
    /// In a state of the lane.
    Live,
    /// To be taken out, or not yet signed back, for this amount.
    Leaving(u64),
    /// Paid for good.
    Over(u64),
}

/// The end that the own side is paid on.
#[derive(Clone, Debug)]
pub struct In {
    pub key: LaneKey,
    pub cap: VirtualCap,
    pub permission: Permission,
    /// The other side is to take it out; with a code if it never opened.
    pub closing: Option<u32>,
    /// What it has brought.
    pub over: Option<u64>,
}

impl Channel {
    /// Neither end can bring or cost anything any more.
    pub fn is_over(&self) -> bool {
        self.out.as_ref().is_none_or(|out| matches!(out.stage, Stage::Over(_)))
            && self.inc.as_ref().is_none_or(|inc| inc.over.is_some())
    }

    /// The highest amount that its payer has signed, as far as known.
    pub fn best(&self) -> u64 {
        self.best.as_ref().map_or(0, |(amount, _)| *amount)
    }
}

impl OutSet {
    pub fn newest(&self) -> &State {
        self.states.last().expect("a lane has a state")
    }

    /// Signed back, or the empty one.
    pub fn acked(&self) -> &State {
        self.states.first().expect("a lane has a state")
    }
}

/// The set over leaves, in their order; none without any.
pub fn set_of(leaves: &[Hash]) -> Option<VirtualSet> {
    if leaves.is_empty() {
        return None;
    }
    Some(VirtualSet { root: Bytes::copy_from_slice(&Tree::new(leaves).root()), count: leaves.len() as u32 })
}

pub fn id_of(key: &LaneKey) -> Option<HubLockId> {
    Some(HubLockId { channel: Bytes::copy_from_slice(&key.0.channel), side: key.0.side, lane: key.1 })
}

pub fn virtual_id(bytes: &[u8]) -> Result<VirtualId> {
    VirtualId::try_from(bytes).map_err(|_| corrupt("an id that is not 32 bytes long"))
}

pub fn key(id: Option<&HubLockId>) -> Result<LaneKey> {
    let id = id.ok_or_else(|| corrupt("a record without its lane"))?;
    let channel = Hash::try_from(&id.channel[..]).map_err(|_| corrupt("an id that is not 32 bytes long"))?;
    Ok((EndId { channel, side: check_side("side of the record", id.side)? }, id.lane))
}

pub fn permission(cap: &VirtualCap) -> Result<Permission> {
    Permission::decode_account(&cap.permission).map_err(|e| corrupt(&format!("keys: {e}")))
}

pub fn cap_of(open: &VirtualOpen) -> Result<(VirtualId, VirtualCap)> {
    let cap = open.cap.clone().ok_or_else(|| corrupt("a virtual channel without its cap"))?;
    Ok((virtual_id(&cap.id)?, cap))
}

impl Virtuals {
    pub(super) fn apply(&mut self, record: &wire::VirtualRecord) -> Result<()> {
        match record.kind.as_ref().ok_or_else(|| corrupt("an empty record"))? {
            Record::Lane(lane) => {
                let set = OutSet { states: vec![State::default()], members: BTreeSet::new(), until_ms: 0 };
                self.outs.insert(key(Some(lane))?, set);
            }
            Record::Opening(opening) => self.apply_opening(opening)?,
            Record::Signed(signed) => self.apply_signed(signed)?,
            Record::Acked(acked) => self.apply_acked(acked)?,
            Record::Taken(taken) => self.apply_taken(taken)?,
            Record::Leaving(shut) => {
                let out = self.out_mut(&shut.id)?;
                (out.stage, out.code) = (Stage::Leaving(shut.paid), shut.code);
            }
            Record::Best(best) => {
                let amount = voucher::virtual_amount(best).map_err(|e| corrupt(&format!("an amount: {e}")))?;
                self.channel_mut(&amount.id)?.best = Some((amount.amount, best.clone()));
            }
            Record::Paid(paid) => self.channel_mut(&paid.id)?.paid = paid.amount,
            Record::Over(over) => self.apply_over(over)?,
            Record::Closing(closing) => {
                let one = self.channel_mut(&closing.id)?;
                let inc = one.inc.as_mut().ok_or_else(|| corrupt("an end to close that is none"))?;
                inc.closing = Some(closing.code);
            }
            Record::Opened(id) => self.channel_mut(id)?.opened = true,
            Record::Diverged(lane) => {
                self.diverged.insert(key(Some(lane))?.0);
            }
            Record::State(state) => self.apply_state(state)?,
            Record::Forgotten(id) => {
                self.channels.remove(&virtual_id(id)?);
            }
        }
        Ok(())
    }

    fn channel_mut(&mut self, id: &[u8]) -> Result<&mut Channel> {
        self.channels.get_mut(&virtual_id(id)?).ok_or_else(|| corrupt("a virtual channel that is none"))
    }

    fn out_mut(&mut self, id: &[u8]) -> Result<&mut Out> {
        self.channel_mut(id)?.out.as_mut().ok_or_else(|| corrupt("an end that is none"))
    }

    fn apply_opening(&mut self, opening: &wire::VirtualOpening) -> Result<()> {
        let key = key(opening.lane.as_ref())?;
        let open = opening.open.as_ref().ok_or_else(|| corrupt("an opening of nothing"))?;
        let (id, cap) = cap_of(open)?;
        let set = self.outs.get_mut(&key).ok_or_else(|| corrupt("an opening in no lane"))?;
        set.members.insert(id);
        let (leaf, permission) = (voucher::virtual_leaf(&cap), permission(&cap)?);
        let (hops, fee) = (open.hops.clone(), open.fee);
        let out = Out { key, cap, permission, leaf, hops, fee, stage: Stage::Wanted, code: 0 };
        self.channels.entry(id).or_default().out = Some(out);
        Ok(())
    }

    fn apply_signed(&mut self, signed: &wire::VirtualSigned) -> Result<()> {
        let set = self.outs.get_mut(&key(signed.lane.as_ref())?).ok_or_else(|| corrupt("a state of no lane"))?;
        let mut state = State { nonce: signed.nonce, amount: signed.amount, leaves: set.newest().leaves.clone() };
        for open in &signed.opens {
            let (id, cap) = cap_of(open)?;
            set.until_ms = set.until_ms.max(cap.not_after_ms);
            state.leaves.insert(id);
            let out = self.channels.get_mut(&id).and_then(|one| one.out.as_mut());
            out.ok_or_else(|| corrupt("a leaf of nothing"))?.stage = Stage::Live;
        }
        for shut in &signed.shuts {
            state.leaves.remove(&virtual_id(&shut.id)?);
        }
        set.states.push(state);
        Ok(())
    }

    fn apply_acked(&mut self, acked: &wire::VirtualSigned) -> Result<()> {
        let set = self.outs.get_mut(&key(acked.lane.as_ref())?).ok_or_else(|| corrupt("a state of no lane"))?;
        set.states.retain(|state| state.nonce >= acked.nonce);
        if set.states.is_empty() {
            return Err(corrupt("a state that was signed back, but never signed"));
        }
        let left: BTreeSet<VirtualId> = set.states.iter().flat_map(|state| &state.leaves).copied().collect();
        let channels = &mut self.channels;
        set.members.retain(|id| {
            let Some(out) = channels.get_mut(id).and_then(|one| one.out.as_mut()) else { return false };
            match out.stage {
                _ if left.contains(id) => {}
                Stage::Leaving(paid) => out.stage = Stage::Over(paid),
                Stage::Wanted => return true,
                _ => {}
            }
            left.contains(id)
        });
        for refused in &acked.refused {
            let out = self.out_mut(&refused.id)?;
            if out.stage == Stage::Live {
                (out.stage, out.code) = (Stage::Leaving(0), refused.code);
            }
        }
        Ok(())
    }

    fn apply_taken(&mut self, taken: &wire::VirtualSigned) -> Result<()> {
        let key = key(taken.lane.as_ref())?;
        let set = self.ins.entry(key).or_default();
        (set.nonce, set.amount) = (taken.nonce, taken.amount);
        for open in &taken.opens {
            let (id, cap) = cap_of(open)?;
            let code = taken.refused.iter().find(|refused| refused.id == cap.id).map_or(0, |refused| refused.code);
            set.leaves.insert(id, Leaf { cap: cap.clone(), code });
            if code == 0 {
                let permission = permission(&cap)?;
                let inc = In { key, cap, permission, closing: None, over: None };
                self.channels.entry(id).or_default().inc = Some(inc);
            }
        }
        for shut in &taken.shuts {
            let id = virtual_id(&shut.id)?;
            set.leaves.remove(&id);
            let inc = self.channels.get_mut(&id).and_then(|one| one.inc.as_mut()).filter(|inc| inc.key == key);
            if let Some(inc) = inc.filter(|inc| inc.over.is_none()) {
                inc.over = Some(shut.paid);
            }
        }
        Ok(())
    }

    fn apply_over(&mut self, over: &wire::VirtualOver) -> Result<()> {
        let id = virtual_id(&over.id)?;
        if !over.outgoing {
            let inc = self.channel_mut(&id)?.inc.as_mut();
            inc.ok_or_else(|| corrupt("the end of an end that is none"))?.over = Some(over.paid);
            return Ok(());
        }
        let out = self.out_mut(&id)?;
        out.stage = Stage::Over(over.paid);
        if over.code != 0 {
            out.code = over.code;
        }
        let key = out.key;
        if let Some(set) = self.outs.get_mut(&key)
            && !set.states.iter().any(|state| state.leaves.contains(&id))
        {
            set.members.remove(&id);
        }
        Ok(())
    }
}
