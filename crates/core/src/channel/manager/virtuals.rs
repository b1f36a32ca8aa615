//! Lanes of virtual channels: the money that they bind, their vouchers, their claims. Which channels there are, the machine
//! above knows ([`crate::channel::virtuals`]).
//!
//! Each voucher of such a lane has a set, and the payee signs the same voucher back. With that signature it gives up all older
//! ones: if it redeems one all the same and claims more on it than the newest gives it, the payer redeems the signature, as it
//! does for a lock that was cancelled (`seen`, `redeem`). Until then what is bound is the most that any of the vouchers can come to.

use bytes::Bytes;

use super::effect::{Effects, Reply};
use super::end::{Cancel, End, Exposed, OutLane, PaidLane, whole};
use super::input::{EndId, Now, Signer, VirtualInput};
use super::issue::{kept, next_nonce, push, read};
use super::ops::Work;
use super::query::EndState;
use super::{Manager, corrupt};
use crate::channel::voucher::Voucher;
use crate::channel::{OTHER, rules};
use crate::error::{Code, Error, Result};
use crate::limits::{AMOUNT_MAX, LANES_MAX, VOUCHER_NONCE_MAX};
use crate::ordered::modules::channels::UNDECIDED;
use crate::wire::manager_record::Kind as Record;
use crate::wire::{self, ChannelLane, ChannelRedeem, ManagerVirtual, Redemption, SignedVoucher};

/// A lane of virtual channels.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualLane {
    /// The highest that was used; 0 = never used.
    pub nonce: u64,
    /// The newest voucher of its payer.
    pub newest: Option<SignedVoucher>,
    /// What may come of it.
    pub exposed: Exposed,
    /// The lane as the log has it.
    pub chain: Option<ChannelLane>,
    /// Log time of that, ms.
    pub seen_ms: u64,
    /// Something of the lane is on its way to the log.
    pub busy: bool,
    /// State of the end.
    pub state: EndState,
}

impl Exposed {
    pub(super) fn record(self) -> wire::ManagerExposed {
        wire::ManagerExposed { most: self.most, next_ms: self.next_ms }
    }

    pub(super) fn read(record: &wire::ManagerExposed) -> Exposed {
        Exposed { most: record.most, next_ms: record.next_ms }
    }
}

impl Manager {
    pub(super) fn virtuals(
        &mut self,
        now: Now,
        input: VirtualInput,
        signer: &dyn Signer,
        fx: &mut Effects,
    ) -> Result<()> {
        match input {
            VirtualInput::Issue { end, lane, amount, set, exposed, until_ms } => {
                self.end(&end)?.check_issue(lane, amount, exposed)?;
                if until_ms != 0 {
                    self.check_until(now, &end, until_ms)?;
                }
                self.virtual_issue(end, lane, amount, set, exposed, signer, fx)
            }
            VirtualInput::Ack { end, voucher, exposed, until_ms } => {
                self.virtual_ack(end, &voucher, exposed, until_ms, fx)
            }
            VirtualInput::Add { end, voucher, exposed } => self.virtual_add(now, end, &voucher, exposed, signer, fx),
            VirtualInput::Left { end, payer, lane, exposed } => {
                let known = self.end(&end)?.exposed(payer, lane);
                if known.ok_or_else(|| no_set(lane))? != exposed {
                    self.commit_virtual(&end, payer, lane, None, exposed, 0, fx);
                }
                Ok(())
            }
            VirtualInput::Claim { end, lane, claims } => self.virtual_claim(end, lane, claims, fx),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn virtual_issue(
        &mut self,
        id: EndId,
        lane: u32,
        amount: u64,
        set: Option<wire::VirtualSet>,
        exposed: Exposed,
        signer: &dyn Signer,
        fx: &mut Effects,
    ) -> Result<()> {
        let (end, none) = (self.end(&id)?, OutLane::default());
        let of = end.out.get(&lane).unwrap_or(&none);
        let needs = i128::from(exposed.most) - i128::from(of.amount) - i128::from(of.locked());
        let has = i128::from(end.available());
        if needs > has {
            fx.reply = Reply::Issued { voucher: None, shortfall: whole(needs - has) };
            return Ok(());
        }
        let terms = wire::Voucher {
            channel: Bytes::copy_from_slice(&id.channel),
            payer: end.side,
            lane,
            nonce: next_nonce(of.nonce)?,
            amount,
            virtuals: set,
            ..Default::default()
        };
        let voucher = signer.voucher(&end.account, terms, end.side)?.signed();
        self.commit_virtual(&id, id.side, lane, Some(voucher.clone()), exposed, 0, fx);
        fx.reply = Reply::Issued { voucher: Some(voucher), shortfall: 0 };
        Ok(())
    }

    fn virtual_ack(
        &mut self,
        id: EndId,
        signed: &SignedVoucher,
        exposed: Exposed,
        until_ms: u64,
        fx: &mut Effects,
    ) -> Result<()> {
        let end = self.end(&id)?;
        let voucher = Voucher::decode(signed)?;
        let terms = &voucher.terms;
        let lane = end.out.get(&terms.lane).filter(|lane| lane.exposed.is_some());
        let lane = lane.ok_or_else(|| no_set(terms.lane))?;
        let own = lane.find_own(terms.nonce, end.side);
        if voucher.signer != end.other() || own.is_none_or(|own| own.voucher.voucher != voucher.bytes) {
            let message = "only the other side's signature of an own voucher gives up older ones";
            return Err(Error::new(Code::VoucherSigner, message));
        }
        if lane.cancel.as_ref().is_some_and(|cancel| cancel.kept.nonce >= terms.nonce) {
            return Ok(());
        }
        end.job(&voucher)?.verify()?;
        self.commit_virtual(&id, id.side, terms.lane, Some(signed.clone()), exposed, until_ms, fx);
        Ok(())
    }

    fn virtual_add(
        &mut self,
        now: Now,
        id: EndId,
        signed: &SignedVoucher,
        exposed: Exposed,
        signer: &dyn Signer,
        fx: &mut Effects,
    ) -> Result<()> {
        let end = self.end(&id)?;
        let voucher = Voucher::decode(signed)?;
        end.check_signs_at_all()?;
        let lane = end.paid.get(&voucher.terms.lane);
        let known = lane.and_then(|lane| lane.firm.as_ref()).is_some_and(|firm| firm.voucher == *signed);
        if !known {
            end.check_add(&id, &voucher, exposed, now)?;
            end.job(&voucher)?.verify()?;
        }
        let back = signer.voucher(&end.account, voucher.terms.clone(), end.side)?.signed();
        if !known {
            let terms = &voucher.terms;
            self.commit_virtual(&id, terms.payer, terms.lane, Some(signed.clone()), exposed, 0, fx);
        }
        fx.reply = Reply::Issued { voucher: Some(back), shortfall: 0 };
        Ok(())
    }

    fn virtual_claim(&mut self, id: EndId, lane: u32, claims: Vec<wire::VirtualClaim>, fx: &mut Effects) -> Result<()> {
        let end = self.end(&id)?;
        let of = end.paid.get(&lane).filter(|lane| lane.exposed.is_some()).ok_or_else(|| no_set(lane))?;
        if of.claiming.is_some() || of.submitted.is_some() {
            return Err(Error::new(Code::VoucherSubmitted, "a claim or voucher of the lane is on its way to the log"));
        }
        let firm = of.firm.as_ref().ok_or_else(|| no_set(lane))?;
        let redemptions = match of.chain {
            Some((nonce, _)) if nonce >= firm.nonce => Vec::new(),
            _ => vec![Redemption { voucher: Some(firm.voucher.clone()), ..Default::default() }],
        };
        let account = end.account;
        let op = self.start(account, Some(id), Bytes::new(), Work::Redeem(ChannelRedeem { redemptions, claims }), fx);
        fx.reply = Reply::Op(op);
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn commit_virtual(
        &mut self,
        id: &EndId,
        payer: u32,
        lane: u32,
        voucher: Option<SignedVoucher>,
        exposed: Exposed,
        until_ms: u64,
        fx: &mut Effects,
    ) {
        let channel = Bytes::copy_from_slice(&id.channel);
        let exposed = Some(exposed.record());
        let one = ManagerVirtual { channel, side: id.side, payer, lane, voucher, exposed, until_ms };
        self.commit(Record::Virtual(one), fx);
    }

    pub(super) fn apply_virtual(&mut self, one: &ManagerVirtual) -> Result<()> {
        let superseded_max = self.policy().superseded_max;
        let id = super::end_id(&one.channel, one.side)?;
        let exposed = one.exposed.as_ref().map(Exposed::read).ok_or_else(|| corrupt("a lane without its bounds"))?;
        let voucher = one.voucher.as_ref().map(read).transpose()?;
        let end = self.end_mut(&id)?;
        let before = end.lane_money(one.payer, one.lane);
        match voucher {
            None => end.set_exposed(one.payer, one.lane, exposed),
            Some(voucher) if one.payer != end.side => end.apply_added(&voucher, exposed, superseded_max),
            Some(voucher) if voucher.signer == end.side => {
                end.next_lane = end.next_lane.max(one.lane.saturating_add(1));
                end.apply_issued_set(&voucher, exposed, superseded_max);
            }
            Some(voucher) => {
                if let Some(lane) = end.out.get_mut(&one.lane) {
                    lane.exposed = Some(exposed);
                    lane.cancel = Some(Cancel { kept: kept(&voucher), until_ms: one.until_ms, answer: None });
                }
                end.find_cheats();
            }
        }
        let after = end.lane_money(one.payer, one.lane);
        if one.payer == end.side {
            end.money.committed += after.0 - before.0;
            end.money.locked += after.1 - before.1;
        } else {
            end.money.received += after.0 - before.0;
            end.money.locked_in += after.1 - before.1;
        }
        self.refill(&id);
        self.touch(&id);
        Ok(())
    }

    /// A lane of virtual channels; an empty one if it was never used. `UNKNOWN_CHANNEL`.
    pub fn virtual_lane(&self, id: &EndId, payer: u32, lane: u32) -> Result<VirtualLane> {
        let end = self.end(id)?;
        let (out, paid) = (end.out.get(&lane), end.paid.get(&lane));
        let (out, paid) =
            (out.filter(|_| payer == end.side).cloned_parts(), paid.filter(|_| payer != end.side).cloned_parts());
        let (nonce, newest, exposed, busy) = out.or(paid).unwrap_or_default();
        let chain = rules::lane(&end.record, payer, lane).cloned();
        Ok(VirtualLane { nonce, newest, exposed, chain, seen_ms: end.seen_ms, busy, state: end.state() })
    }

    /// First and last log time, ms, at which a lock or virtual channel that is new at this moment may end, whatever the other side
    /// does: there is time to redeem it, and to answer when one that was given up is redeemed. `UNKNOWN_CHANNEL`.
    pub fn limits(&self, now: Now, id: &EndId) -> Result<(u64, u64)> {
        let (end, policy) = (self.end(id)?, self.policy());
        let margin = policy.submit_ms.saturating_add(policy.margin_ms);
        let settling = match end.record.settling_at_ms {
            0 => UNDECIDED,
            at => at,
        };
        let leaving = match rules::side(&end.record, end.other()).leaving_at_ms {
            0 => UNDECIDED,
            at => at,
        };
        let over = end.earliest(settling, now).min(end.earliest(leaving, now)).saturating_sub(margin);
        Ok((now.log_ms.saturating_add(margin), over.min(now.log_ms.saturating_add(policy.lock_max_ms))))
    }

    /// What the other side can still sign for, minor units. `UNKNOWN_CHANNEL`.
    pub fn room(&self, now: Now, id: &EndId) -> Result<u64> {
        let end = self.end(id)?;
        Ok(whole(end.others_funds(now.log_ms) - end.others_spent()))
    }

    fn check_until(&self, now: Now, id: &EndId, until_ms: u64) -> Result<()> {
        let (_, last) = self.limits(now, id)?;
        if until_ms <= now.log_ms || until_ms > last {
            let expected = format!("after {} and up to {last} ms", now.log_ms);
            return Err(Error::expected(Code::LockTerms, "end of the virtual channel", expected, until_ms));
        }
        Ok(())
    }
}

/// Nonce, newest voucher, what may come of it, whether something is on its way.
type Parts = (u64, Option<SignedVoucher>, Exposed, bool);

trait ClonedParts {
    fn cloned_parts(self) -> Option<Parts>;
}

impl ClonedParts for Option<&OutLane> {
    fn cloned_parts(self) -> Option<Parts> {
        let newest = |lane: &OutLane| lane.last.as_ref().map(|kept| kept.voucher.clone());
        self.map(|lane| (lane.nonce, newest(lane), lane.exposed.unwrap_or_default(), false))
    }
}

impl ClonedParts for Option<&PaidLane> {
    fn cloned_parts(self) -> Option<Parts> {
        let newest = |lane: &PaidLane| lane.firm.as_ref().map(|kept| kept.voucher.clone());
        let busy = |lane: &PaidLane| lane.claiming.is_some() || lane.submitted.is_some();
        self.map(|lane| (lane.nonce, newest(lane), lane.exposed.unwrap_or_default(), busy(lane)))
    }
}

impl OutLane {
    fn find_own(&self, nonce: u64, side: u32) -> Option<&super::end::Kept> {
        let newest = self.last.iter().chain(&self.history);
        newest.into_iter().find(|kept| kept.nonce == nonce && kept.voucher.signer == side)
    }
}

impl End {
    fn exposed(&self, payer: u32, lane: u32) -> Option<Exposed> {
        match payer == self.side {
            true => self.out.get(&lane).and_then(|lane| lane.exposed),
            false => self.paid.get(&lane).and_then(|lane| lane.exposed),
        }
    }

    fn set_exposed(&mut self, payer: u32, lane: u32, exposed: Exposed) {
        match payer == self.side {
            true => self.out.entry(lane).or_default().exposed = Some(exposed),
            false => self.paid.entry(lane).or_default().exposed = Some(exposed),
        }
    }

    /// Paid for good and locked (own lane), or received beyond the log and locked (the other's).
    fn lane_money(&self, payer: u32, lane: u32) -> (i128, i128) {
        let found = match payer == self.side {
            true => self.out.get(&lane).map(|lane| (lane.amount, lane.locked())),
            false => self.paid.get(&lane).map(|lane| (lane.value(), lane.locked())),
        };
        found.map_or((0, 0), |(paid, locked)| (i128::from(paid), i128::from(locked)))
    }

    fn check_issue(&self, number: u32, amount: u64, exposed: Exposed) -> Result<()> {
        self.check_signs()?;
        check_lane(number, amount, exposed)?;
        let Some(lane) = self.out.get(&number) else { return Ok(()) };
        if lane.exposed.is_none() && lane.nonce > 0 || lane.lock.is_some() {
            let message = format!("lane {number} was used for something else than virtual channels");
            return Err(Error::new(Code::LaneLocked, message));
        }
        let last = lane.last.as_ref().map_or(0, |last| last.amount);
        if amount < last {
            let expected = format!("at least {last}");
            return Err(Error::expected(Code::VoucherNotAbove, "amount of the voucher", expected, amount));
        }
        Ok(())
    }

    /// That the log would pay it, whatever the other side does (`accept` says it for other vouchers).
    fn check_add(&self, id: &EndId, voucher: &Voucher, exposed: Exposed, now: Now) -> Result<()> {
        let terms = &voucher.terms;
        if !matches!(self.state(), EndState::Open | EndState::SettlePending) {
            return Err(super::funds::not_open(self.state()));
        }
        if terms.channel != id.channel[..] {
            let (expected, found) = (hex::encode(id.channel), hex::encode(&terms.channel));
            return Err(Error::expected(Code::VoucherChannel, "channel of the voucher", expected, found));
        }
        if terms.payer != self.other() || voucher.signer != terms.payer {
            let expected = format!("side {}, which pays", self.other());
            return Err(Error::expected(Code::VoucherSigner, "signer of the voucher", expected, voucher.signer));
        }
        if terms.payer == OTHER && !self.record.two_way {
            return Err(super::issue::one_way());
        }
        let simple = terms.not_before_ms == 0 && terms.not_after_ms == 0 && terms.secret_hash.is_empty();
        if !simple || !terms.merges.is_empty() {
            let message = "a voucher with virtual channels has no other conditions and merges nothing";
            return Err(Error::new(Code::VoucherMerges, message));
        }
        check_lane(terms.lane, terms.amount, exposed)?;
        let none = PaidLane::default();
        let lane = self.paid.get(&terms.lane).unwrap_or(&none);
        if lane.exposed.is_none() && lane.nonce > 0 || lane.lock.is_some() {
            let message = format!("lane {} was used for something else than virtual channels", terms.lane);
            return Err(Error::new(Code::LaneLocked, message));
        }
        if terms.nonce <= lane.nonce || terms.nonce > VOUCHER_NONCE_MAX {
            let expected = format!("above {}", lane.nonce);
            return Err(Error::expected(Code::VoucherNonce, "nonce of the voucher", expected, terms.nonce));
        }
        if terms.amount < lane.value() {
            let expected = format!("at least {}", lane.value());
            return Err(Error::expected(Code::VoucherNotAbove, "amount of the voucher", expected, terms.amount));
        }
        let before = i128::from(lane.value()) + i128::from(lane.locked());
        let spent = self.others_spent() - before + i128::from(exposed.most);
        let funds = self.others_funds(now.log_ms);
        if spent > funds && i128::from(exposed.most) > before {
            let expected = format!("at most {funds}, which it can pay with");
            return Err(Error::expected(Code::ChannelFunds, "signed for by the other side, in all", expected, spent));
        }
        Ok(())
    }

    fn apply_issued_set(&mut self, voucher: &Voucher, exposed: Exposed, superseded_max: usize) {
        let lane = self.out.entry(voucher.terms.lane).or_default();
        if voucher.terms.nonce <= lane.nonce {
            return;
        }
        lane.nonce = voucher.terms.nonce;
        if let Some(last) = lane.last.replace(kept(voucher)) {
            push(&mut lane.history, last, superseded_max);
        }
        lane.amount = lane.amount.max(voucher.terms.amount);
        lane.exposed = Some(exposed);
    }

    fn apply_added(&mut self, voucher: &Voucher, exposed: Exposed, superseded_max: usize) {
        let lane = self.paid.entry(voucher.terms.lane).or_default();
        lane.nonce = lane.nonce.max(voucher.terms.nonce);
        if let Some(old) = lane.firm.replace(kept(voucher)) {
            push(&mut lane.history, old, superseded_max);
        }
        lane.exposed = Some(exposed);
    }
}

fn check_lane(lane: u32, amount: u64, exposed: Exposed) -> Result<()> {
    if lane >= LANES_MAX {
        return Err(Error::expected(Code::VoucherLane, "lane", format!("below {LANES_MAX}"), lane));
    }
    if exposed.most < amount || exposed.most > AMOUNT_MAX {
        let expected = format!("{amount} to 2^63 - 1");
        return Err(Error::expected(Code::VoucherAmount, "what may come of the lane", expected, exposed.most));
    }
    Ok(())
}

fn no_set(lane: u32) -> Error {
    Error::new(Code::VirtualState, format!("lane {lane} is not one of virtual channels"))
}
