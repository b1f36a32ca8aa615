//! What a journal says about virtual channels, read without the code that wrote it: sets signed and taken, amounts, ends.

use std::collections::{BTreeMap, BTreeSet};

use florin_core::channel::manager::EndId;
use florin_core::error::Code;
use florin_core::merkle::Hash;
use florin_core::wire::virtual_record::Kind;
use florin_core::wire::{SignedPermit, VirtualAmount, VirtualCap, VirtualOpen, VirtualRecord, VirtualSigned};
use prost::Message as _;

use super::facts::{id, place_of};

/// A lane of an end.
pub type Lane = (EndId, u32);

/// What a voucher of a lane says.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Of the voucher.
    pub nonce: u64,
    /// Of the voucher, minor units.
    pub amount: u64,
    /// Its set.
    pub leaves: BTreeMap<Hash, VirtualCap>,
    /// What it has taken out of the set before, and for how much.
    pub shuts: BTreeMap<Hash, u64>,
    /// Fees that came with it.
    pub fees: u64,
}

impl State {
    fn next(&self, signed: &VirtualSigned) -> State {
        let mut leaves = self.leaves.clone();
        let shuts: BTreeMap<Hash, u64> = signed.shuts.iter().map(|shut| (id(&shut.id), shut.paid)).collect();
        shuts.keys().for_each(|shut| drop(leaves.remove(shut)));
        leaves.extend(signed.opens.iter().filter_map(cap_of));
        let fees = signed.opens.iter().map(|open| open.fee).sum();
        State { nonce: signed.nonce, amount: signed.amount, leaves, shuts, fees }
    }
}

/// All that a journal says about virtual channels.
#[derive(Clone, Default)]
pub struct Sets {
    /// Own lanes: all their states.
    pub outs: BTreeMap<Lane, Vec<State>>,
    /// Newest nonce that the other side has signed back.
    pub acked: BTreeMap<Lane, u64>,
    /// Lanes of others: all states that were taken.
    pub ins: BTreeMap<Lane, Vec<State>>,
    /// Those that the own side pays for.
    pub openings: BTreeMap<Hash, (Lane, VirtualOpen)>,
    /// Those that it is paid by, and has not refused.
    pub taken: BTreeMap<Hash, (Lane, VirtualCap)>,
    /// What it has signed as their payer, minor units.
    pub paid: BTreeMap<Hash, u64>,
    /// The most that it can show.
    pub best: BTreeMap<Hash, (u64, SignedPermit)>,
    /// Those that the other side says are open, or that end here.
    pub opened: BTreeSet<Hash>,
    /// Fees of all that was signed, minor units.
    pub fees_out: i128,
    /// Fees of all that was taken.
    pub fees_in: i128,
}

fn cap_of(open: &VirtualOpen) -> Option<(Hash, VirtualCap)> {
    let cap = open.cap.clone()?;
    Some((id(&cap.id), cap))
}

impl Sets {
    /// Whether a lane is one of virtual channels.
    pub fn has(&self, end: EndId, payer: u32, lane: u32) -> bool {
        let lanes = if payer == end.side { self.outs.contains_key(&(end, lane)) } else { false };
        lanes || payer != end.side && self.ins.contains_key(&(end, lane))
    }

    /// Adds what a record says.
    pub fn learn(&mut self, record: &VirtualRecord, marks: &mut Vec<&'static str>) {
        let place = |signed: &VirtualSigned| signed.lane.as_ref().map(place_of);
        match &record.kind {
            Some(Kind::Lane(at)) => drop(self.outs.entry(place_of(at)).or_default()),
            Some(Kind::Opening(opening)) => {
                let (Some(at), Some(open)) = (&opening.lane, &opening.open) else { return };
                let Some((new, _)) = cap_of(open) else { return };
                let passes = self.taken.contains_key(&new);
                marks.push(if passes { "virtual channel passed on" } else { "virtual channel opened" });
                if open.hops.len() > 1 {
                    marks.push("virtual channel over two hubs");
                }
                self.openings.insert(new, (place_of(at), open.clone()));
            }
            Some(Kind::Signed(signed)) => {
                let Some(states) = place(signed).map(|lane| self.outs.entry(lane).or_default()) else { return };
                let next = states.last().cloned().unwrap_or_default().next(signed);
                self.fees_out += i128::from(next.fees);
                states.push(next);
            }
            Some(Kind::Acked(acked)) => {
                let refused =
                    acked.refused.iter().map(|one| Code::from_number(one.code).map_or("", |code| code.name()));
                marks.extend(refused);
                if !acked.refused.is_empty() {
                    marks.push("virtual channel refused");
                }
                let Some(lane) = place(acked) else { return };
                self.acked.insert(lane, acked.nonce);
            }
            Some(Kind::Taken(taken)) => {
                let Some(lane) = place(taken) else { return };
                let states = self.ins.entry(lane).or_default();
                let next = states.last().cloned().unwrap_or_default().next(taken);
                self.fees_in += i128::from(next.fees);
                if next.shuts.keys().any(|shut| self.taken.contains_key(shut)) {
                    marks.push("virtual channel closed");
                }
                states.push(next);
                let refused = |open: &&VirtualOpen| {
                    taken.refused.iter().any(|one| Some(&one.id) == open.cap.as_ref().map(|cap| &cap.id))
                };
                let good = taken.opens.iter().filter(|open| !refused(open)).filter_map(cap_of);
                self.taken.extend(good.map(|(new, cap)| (new, (lane, cap))));
            }
            Some(Kind::Best(signed)) => {
                let Ok(amount) = VirtualAmount::decode(&signed.permit[..]) else { return };
                self.best.insert(id(&amount.id), (amount.amount, signed.clone()));
            }
            Some(Kind::Paid(paid)) => drop(self.paid.insert(id(&paid.id), paid.amount)),
            Some(Kind::Over(over)) => marks.push(match (over.outgoing, over.code != 0, over.paid > 0) {
                (true, true, _) => "virtual channel that never opened",
                (true, ..) => "virtual channel over on the side that pays",
                (false, _, true) => "virtual channel claimed in the log",
                (false, ..) => "virtual channel over by time",
            }),
            Some(Kind::Opened(new)) => {
                self.opened.insert(id(new));
            }
            Some(Kind::Diverged(_)) => marks.push("restored backup noticed by virtual channels"),
            Some(Kind::Forgotten(_)) => marks.push("virtual channel forgotten"),
            Some(Kind::Leaving(_) | Kind::Closing(_) | Kind::State(_)) | None => {}
        }
    }
}
