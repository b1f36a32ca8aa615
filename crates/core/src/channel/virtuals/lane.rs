//! Sets out: the next voucher of an own lane, and its payee's signature.
//!
//! One voucher is under way at a time, and takes along all that has come up meanwhile. Only when the payee has claimed something
//! of a set that it has signed back, another one follows at once: it signs nothing back that leaves its claim out.

use bytes::Bytes;
use prost::Message as _;

use super::state::{LaneKey, OutSet, Stage, State, id_of, set_of};
use super::take::claimed_in;
use super::{Event, Todo, Turn, VirtualId, Virtuals};
use crate::channel::manager::{self, EndState, Exposed, Reply as ManagerReply, VirtualInput};
use crate::channel::voucher::{self, Voucher};
use crate::error::{Code, Error, Result};
use crate::limits::{VIRTUAL_OPENS_BYTES_MAX, VIRTUALS_MAX};
use crate::wire::virtual_message::Kind;
use crate::wire::virtual_record::Kind as Record;
use crate::wire::{self, VirtualOpen, VirtualShut};

/// Vouchers under way on a lane, at most.
const UNDER_WAY_MAX: usize = 4;

/// What the next voucher of a lane changes.
struct Change {
    opens: Vec<(VirtualId, VirtualOpen)>,
    shuts: Vec<VirtualShut>,
}

/// In a frame.
fn bytes_of(open: &VirtualOpen) -> usize {
    open.encoded_len() + 4
}

impl Virtuals {
    pub(super) fn step_lane(&mut self, key: LaneKey, turn: &mut Turn) {
        self.left_out(&key, turn);
        let Ok(status) = turn.manager.status(&key.0) else { return };
        if !matches!(status.state, EndState::Open | EndState::SettlePending | EndState::Opening) {
            self.give_up(&key, Code::ChannelNotOpen, turn);
        }
        if status.state != EndState::Open || status.diverged || !self.is_ready(&key.0) {
            return;
        }
        let Some(mut change) = self.change(&key, turn) else { return };
        while let Err(e) = self.sign(&key, &change, turn) {
            // Money or time is short: what was not signed for yet is given up.
            let Some((id, _)) = change.opens.pop() else { return };
            self.over_out(&id, 0, e.code as u32, turn);
            if change.opens.is_empty() && change.shuts.is_empty() {
                return;
            }
        }
        self.say_update(&key, turn);
    }

    /// What was never signed for.
    fn give_up(&mut self, key: &LaneKey, code: Code, turn: &mut Turn) {
        let Some(set) = self.outs.get(key) else { return };
        let stage = |id: &VirtualId| self.channels.get(id).and_then(|one| one.out.as_ref()).map(|out| out.stage);
        let wanted = set.members.iter().filter(|id| stage(id) == Some(Stage::Wanted));
        for id in wanted.copied().collect::<Vec<_>>() {
            self.over_out(&id, 0, code as u32, turn);
        }
    }

    fn change(&self, key: &LaneKey, turn: &Turn) -> Option<Change> {
        let set = self.outs.get(key)?;
        let newest = set.newest();
        let mut change = Change { opens: Vec::new(), shuts: Vec::new() };
        let (mut needed, mut claimed) = (false, false);
        let in_log = self.claimed(key, turn);
        for id in &set.members {
            let out = self.channels.get(id)?.out.as_ref()?;
            let paid = match out.stage {
                Stage::Wanted => {
                    let (cap, hops) = (Some(out.cap.clone()), out.hops.clone());
                    change.opens.push((*id, VirtualOpen { cap, hops, fee: out.fee }));
                    needed = true;
                    continue;
                }
                Stage::Live => continue,
                Stage::Leaving(paid) | Stage::Over(paid) => paid,
            };
            if newest.leaves.contains(id) {
                change.shuts.push(VirtualShut { id: Bytes::copy_from_slice(id), paid, code: 0 });
                // One whose time is over goes along with others.
                let many = newest.leaves.len() > VIRTUALS_MAX as usize / 2;
                needed |= matches!(out.stage, Stage::Leaving(_)) || paid > 0 || many;
                claimed |= in_log.contains(id);
            }
        }
        let free = (VIRTUALS_MAX as usize + change.shuts.len()).saturating_sub(newest.leaves.len());
        change.opens.truncate(free);
        let mut bytes: usize = self.opens(set).iter().map(bytes_of).sum();
        change.opens.retain(|(_, open)| {
            bytes = bytes.saturating_add(bytes_of(open));
            bytes <= VIRTUAL_OPENS_BYTES_MAX
        });
        let under_way = set.states.len() - 1;
        let may = under_way == 0 || claimed && under_way < UNDER_WAY_MAX;
        let some = !change.opens.is_empty() || !change.shuts.is_empty();
        (needed && may && some).then_some(change)
    }

    /// What the log has claimed of a lane.
    fn claimed(&self, key: &LaneKey, turn: &Turn) -> Vec<VirtualId> {
        let Ok(lane) = turn.manager.virtual_lane(&key.0, key.0.side, key.1) else { return Vec::new() };
        let claimed = lane.chain.map(|chain| chain.claimed).unwrap_or_default();
        let ids = claimed.iter().filter_map(|one| voucher::virtual_amount(one.amount.as_ref()?).ok());
        ids.filter_map(|amount| VirtualId::try_from(&amount.id[..]).ok()).collect()
    }

    fn sign(&mut self, key: &LaneKey, change: &Change, turn: &mut Turn) -> Result<()> {
        let Some(set) = self.outs.get(key) else { return Ok(()) };
        let mut state = set.newest().clone();
        state.nonce = state.nonce.saturating_add(1);
        for shut in &change.shuts {
            state.leaves.remove(&shut.id[..]);
            state.amount = state.amount.saturating_add(shut.paid);
        }
        for (id, open) in &change.opens {
            state.leaves.insert(*id);
            state.amount = state.amount.saturating_add(open.fee);
        }
        let limits = change.opens.iter().filter_map(|(_, open)| open.cap.as_ref()).map(|cap| cap.not_after_ms);
        let until_ms = limits.max().unwrap_or(0);
        let leaves = state.leaves.iter().filter_map(|id| Some(self.channels.get(id)?.out.as_ref()?.leaf));
        let leaves: Vec<_> = leaves.collect();
        let exposed = self.exposed(key, set.states.iter().chain([&state]), turn);
        let (end, lane, amount) = (key.0, key.1, state.amount);
        let issue = VirtualInput::Issue { end, lane, amount, set: set_of(&leaves), exposed, until_ms };
        let voucher = match turn.call(manager::Input::Virtual(issue))? {
            ManagerReply::Issued { voucher: Some(voucher), .. } => voucher,
            ManagerReply::Issued { shortfall, .. } => {
                let message = format!("the channel lacks {shortfall} for its virtual channels");
                return Err(Error::new(Code::HubFunds, message));
            }
            other => return Err(Error::new(Code::HubFunds, format!("expected a voucher, found {other:?}"))),
        };
        let signed = wire::VirtualSigned {
            lane: id_of(key),
            nonce: Voucher::decode(&voucher)?.terms.nonce,
            amount,
            opens: change.opens.iter().map(|(_, open)| open.clone()).collect(),
            shuts: change.shuts.clone(),
            refused: Vec::new(),
        };
        self.commit(Record::Signed(signed), turn);
        Ok(())
    }

    /// The most that any of the states can come to, and when the next of their channels ends.
    fn exposed<'a>(&self, key: &LaneKey, states: impl Iterator<Item = &'a State>, turn: &Turn) -> Exposed {
        let lane = turn.manager.virtual_lane(&key.0, key.0.side, key.1).ok();
        let (seen_ms, chain) =
            lane.as_ref().map_or((0, 0), |lane| (lane.seen_ms, lane.chain.as_ref().map_or(0, |chain| chain.nonce)));
        let claimed = lane.map(|lane| claimed_in(&lane, chain)).unwrap_or_default();
        let mut exposed = Exposed::default();
        // What is older than what the log has is redeemed no more.
        for state in states.filter(|state| state.nonce >= chain) {
            let mut most = state.amount;
            let leaves = state.leaves.iter().filter_map(|id| Some((id, self.channels.get(id)?.out.as_ref()?)));
            for (id, out) in leaves {
                let binds = match out.stage {
                    // Its time is over, or it is claimed for good. What was claimed on an older voucher than the log has now is taken back.
                    Stage::Over(_) if state.nonce == chain => claimed.get(id).copied().unwrap_or(0),
                    Stage::Over(_) => 0,
                    _ => out.cap.cap,
                };
                most = most.saturating_add(binds);
                let until = out.cap.not_after_ms;
                if until >= seen_ms && (exposed.next_ms == 0 || until < exposed.next_ms) {
                    exposed.next_ms = until;
                }
            }
            exposed.most = exposed.most.max(most);
        }
        exposed
    }

    /// Tells the manager what a lane still binds.
    fn left_out(&self, key: &LaneKey, turn: &mut Turn) {
        let Some(set) = self.outs.get(key).filter(|set| set.newest().nonce > 0) else { return };
        let Ok(status) = turn.manager.status(&key.0) else { return };
        if status.state == EndState::Collected {
            return;
        }
        let exposed = self.exposed(key, set.states.iter(), turn);
        let left = VirtualInput::Left { end: key.0, payer: key.0.side, lane: key.1, exposed };
        let told = turn.call(manager::Input::Virtual(left));
        debug_assert!(told.is_ok(), "{told:?}");
    }

    /// The newest voucher of a lane and what it changes, for the other side; once more after a reconnect.
    pub(super) fn say_update(&mut self, key: &LaneKey, turn: &mut Turn) {
        let Some(set) = self.outs.get(key).filter(|set| set.states.len() > 1) else { return };
        let Ok(lane) = turn.manager.virtual_lane(&key.0, key.0.side, key.1) else { return };
        let update = wire::VirtualUpdate {
            voucher: lane.newest,
            base: set.acked().nonce,
            opens: self.opens(set),
            shuts: self.shuts(set),
        };
        self.send(key.0, Kind::Update(update), turn);
        self.links.entry(key.0).or_default().said.insert(*key, turn.now.clock_ms);
    }

    fn opens(&self, set: &OutSet) -> Vec<VirtualOpen> {
        let new = set.newest().leaves.difference(&set.acked().leaves);
        let outs = new.filter_map(|id| self.channels.get(id)?.out.as_ref());
        outs.map(|out| VirtualOpen { cap: Some(out.cap.clone()), hops: out.hops.clone(), fee: out.fee }).collect()
    }

    fn shuts(&self, set: &OutSet) -> Vec<VirtualShut> {
        let gone = set.acked().leaves.difference(&set.newest().leaves);
        let paid = |id: &VirtualId| match self.channels.get(id).and_then(|one| one.out.as_ref()).map(|out| out.stage) {
            Some(Stage::Leaving(paid) | Stage::Over(paid)) => paid,
            _ => 0,
        };
        gone.map(|id| VirtualShut { id: Bytes::copy_from_slice(id), paid: paid(id), code: 0 }).collect()
    }

    /// The other side has signed a voucher back.
    pub(super) fn on_ack(&mut self, end: manager::EndId, ack: wire::VirtualAck, turn: &mut Turn) -> Result<()> {
        let signed = ack.voucher.ok_or_else(|| Error::new(Code::BadContent, "a signature of no voucher"))?;
        let terms = Voucher::decode(&signed)?.terms;
        let key = (end, terms.lane);
        let Some(set) = self.outs.get(&key) else {
            return Err(Error::new(Code::VirtualState, format!("lane {} is not one of virtual channels", terms.lane)));
        };
        if set.acked().nonce >= terms.nonce {
            return Ok(());
        }
        let later = set.states.iter().filter(|state| state.nonce >= terms.nonce);
        if later.clone().next().is_none_or(|first| first.nonce != terms.nonce) {
            let expected = format!("one of {} under way", set.states.len() - 1);
            return Err(Error::expected(Code::VoucherNonce, "nonce of the voucher", expected, terms.nonce));
        }
        let before: Vec<(VirtualId, Option<Stage>)> = set.members.iter().map(|id| (*id, self.stage(id))).collect();
        let exposed = self.exposed(&key, later, turn);
        let back = VirtualInput::Ack { end, voucher: signed, exposed, until_ms: set.until_ms };
        turn.call(manager::Input::Virtual(back))?;
        let known = |id: &[u8]| VirtualId::try_from(id).is_ok_and(|id| set.newest().leaves.contains(&id));
        let refused: Vec<_> = ack.refused.into_iter().filter(|one| known(&one.id)).collect();
        let acked = wire::VirtualSigned { lane: id_of(&key), nonce: terms.nonce, refused, ..Default::default() };
        self.commit(Record::Acked(acked), turn);
        for (id, before) in before {
            if let (Some(Stage::Over(paid)), Some(Stage::Leaving(_))) = (self.stage(&id), before) {
                self.told_over(&id, paid, turn);
            }
        }
        turn.todo.push_back(Todo::Lane(key));
        Ok(())
    }

    fn stage(&self, id: &VirtualId) -> Option<Stage> {
        Some(self.channels.get(id)?.out.as_ref()?.stage)
    }

    /// The end that the own side pays on is over.
    pub(super) fn over_out(&mut self, id: &VirtualId, paid: u64, code: u32, turn: &mut Turn) {
        let Some(key) = self.channels.get(id).and_then(|one| one.out.as_ref()).map(|out| out.key) else { return };
        let over = wire::VirtualOver { id: Bytes::copy_from_slice(id), outgoing: true, paid, code };
        self.commit(Record::Over(over), turn);
        self.told_over(id, paid, turn);
        turn.todo.push_back(Todo::Lane(key));
    }

    fn told_over(&self, id: &VirtualId, paid: u64, turn: &mut Turn) {
        let code = self.channels.get(id).and_then(|one| one.out.as_ref()).map_or(0, |out| out.code);
        turn.event(Event::Over { id: *id, outgoing: true, paid, code });
        turn.todo.push_back(Todo::Channel(*id));
    }
}
