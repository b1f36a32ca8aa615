//! A log that does what the module `channels` does, with as little code as possible; vouchers go by the rules.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::address::Address;
use crate::channel::manager::Message;
use crate::channel::rules::{self, At};
use crate::channel::voucher::{self, Voucher};
use crate::channel::{OPENER, OTHER, channel_id};
use crate::error::{Code, Error, Result};
use crate::merkle::Hash;
use crate::ordered::modules::channels::UNDECIDED;
use crate::wire::{ChannelRecord, ChannelSide, Redemption, input, output};

pub const COMMITTEE: Hash = [7; 32];

#[derive(Default)]
pub struct Chain {
    pub now: u64,
    pub channels: BTreeMap<Hash, ChannelRecord>,
    /// Paid out by collects and withdrawals, and taken in, minor units.
    pub paid_out: BTreeMap<Address, u64>,
    pub paid_in: BTreeMap<Address, u64>,
    /// What became of each order, for ever.
    pub orders: BTreeMap<Hash, Option<Error>>,
    /// Codes that the next orders fail with.
    pub refuse: Vec<Code>,
}

impl Chain {
    /// Applies an order, once.
    pub fn apply(&mut self, id: Hash, message: &Message) -> Option<Error> {
        if let Some(done) = self.orders.get(&id) {
            return done.clone();
        }
        let refused = self.refuse.pop().map(|code| Error::new(code, "refused by the test"));
        let before = (self.channels.clone(), self.paid_out.clone(), self.paid_in.clone());
        let result = refused.map_or_else(|| self.try_apply(&id, message), Err);
        if result.is_err() {
            (self.channels, self.paid_out, self.paid_in) = before;
        }
        self.orders.insert(id, result.clone().err());
        result.err()
    }

    fn try_apply(&mut self, id: &Hash, message: &Message) -> Result<()> {
        let by = &message.account;
        let brought: u64 = message.inputs.iter().map(|one| one.amount).sum();
        let credited = message.outputs.iter().map(|one| match one {
            output::Kind::Credit(credit) => credit.amount,
            _ => 0,
        });
        assert_eq!(brought, credited.sum::<u64>(), "what is brought in goes out again");
        for one in &message.inputs {
            let Some(input::Kind::ChannelWithdraw(withdraw)) = &one.kind else { panic!("{one:?}") };
            let (id, mut record) = self.open(&withdraw.channel)?;
            let side = rules::side_of(&record, by).ok_or_else(|| Error::new(Code::NotAParty, "withdraw"))?;
            let has = rules::shares(&record)[side as usize];
            let of = rules::side_mut(&mut record, side);
            let may = match &withdraw.permit {
                Some(permit) => voucher::withdraw_permit(permit).unwrap().withdrawn - of.withdrawn,
                None if of.leaving_at_ms == 0 || self.now < of.leaving_at_ms => 0,
                None => of.leaving,
            };
            if one.amount > may.min(has) {
                return Err(Error::new(Code::ChannelFunds, format!("withdraw {} of {may}, {has}", one.amount)));
            }
            of.withdrawn += one.amount;
            if withdraw.permit.is_none() {
                (of.leaving, of.leaving_at_ms) = (0, 0);
            }
            self.save(id, record);
        }
        // What inputs bring is credited, or the order would not balance.
        let brought: u64 = message.inputs.iter().map(|one| one.amount).sum();
        let credit = |one: &output::Kind| if let output::Kind::Credit(credit) = one { credit.amount } else { 0 };
        assert_eq!(message.outputs.iter().map(credit).sum::<u64>(), brought);
        for (index, one) in message.outputs.iter().enumerate() {
            self.output(id, index as u32, one, by)?;
        }
        Ok(())
    }

    fn output(&mut self, order: &Hash, index: u32, one: &output::Kind, by: &Address) -> Result<()> {
        match one {
            output::Kind::Credit(credit) => {
                *self.paid_out.entry(Address::from_slice(&credit.address).unwrap()).or_default() += credit.amount;
            }
            output::Kind::ChannelOpen(open) => {
                let side = |address: &Bytes, permission: &Bytes, deposited| {
                    let (address, permission) = (address.clone(), permission.clone());
                    Some(ChannelSide { address, permission, deposited, ..Default::default() })
                };
                *self.paid_in.entry(*by).or_default() += open.amount;
                let record = ChannelRecord {
                    opener: side(&open.opener, &open.opener_permission, open.amount),
                    other: side(&open.other, &open.other_permission, 0),
                    delay_ms: open.delay_ms,
                    two_way: open.two_way,
                    ..Default::default()
                };
                self.save(channel_id(&COMMITTEE, order, index), record);
            }
            output::Kind::ChannelDeposit(deposit) => {
                let (id, mut record) = self.open(&deposit.channel)?;
                rules::side_mut(&mut record, deposit.side).deposited += deposit.amount;
                *self.paid_in.entry(*by).or_default() += deposit.amount;
                self.save(id, record);
            }
            output::Kind::ChannelKeys(keys) => {
                let (id, mut record) = self.open(&keys.channel)?;
                let side = rules::side_of(&record, by).unwrap();
                rules::side_mut(&mut record, side).permission = keys.permission.clone();
                self.save(id, record);
            }
            output::Kind::ChannelRedeem(all) => all.redemptions.iter().try_for_each(|one| self.redeem(one, by))?,
            output::Kind::ChannelLeave(leave) => {
                let (id, mut record) = self.open(&leave.channel)?;
                let side = rules::side_of(&record, by).unwrap();
                let of = rules::side_mut(&mut record, side);
                (of.leaving, of.leaving_at_ms) = (leave.amount, if leave.amount == 0 { 0 } else { UNDECIDED });
                self.save(id, record);
            }
            output::Kind::ChannelSettle(settle) => {
                let (id, mut record) = self.open(&settle.channel)?;
                record.settling_at_ms = UNDECIDED;
                for side in [OPENER, OTHER] {
                    let of = rules::side_mut(&mut record, side);
                    (of.leaving, of.leaving_at_ms) = (0, 0);
                }
                self.save(id, record);
            }
            output::Kind::ChannelCollect(collect) => {
                let (id, mut record) = self.any(&collect.channel)?;
                if record.collected || !rules::is_over(&record, self.now) {
                    return Err(Error::new(Code::ChannelNotDue, "collect"));
                }
                for (side, amount) in rules::shares(&record).into_iter().enumerate() {
                    let of = rules::side_mut(&mut record, side as u32);
                    of.withdrawn += amount;
                    *self.paid_out.entry(Address::from_slice(&of.address).unwrap()).or_default() += amount;
                }
                record.collected = true;
                record.lanes.clear();
                self.save(id, record);
            }
            other => panic!("{other:?}"),
        }
        Ok(())
    }

    fn redeem(&mut self, one: &Redemption, by: &Address) -> Result<()> {
        let voucher = Voucher::decode(one.voucher.as_ref().unwrap())?;
        let (id, mut record) = self.any(&voucher.terms.channel)?;
        let side = match &one.watch {
            None => rules::side_of(&record, by).ok_or_else(|| Error::new(Code::NotAParty, "redeem"))?,
            Some(signed) => {
                let permit = voucher::watch_permit(signed)?;
                assert_eq!(permit.watcher, by.as_bytes()[..]);
                let (permission, address) = rules::keys(&record, permit.side)?;
                voucher::verify_watch(signed, &permission, &address)?;
                permit.side
            }
        };
        rules::redeem(&mut record, &voucher, &one.secret, At { channel: &id, side, now_ms: self.now, verify: true })?;
        self.save(id, record);
        Ok(())
    }

    fn any(&self, id: &[u8]) -> Result<(Hash, ChannelRecord)> {
        let id = Hash::try_from(id).unwrap();
        let record = self.channels.get(&id).cloned();
        record.map(|record| (id, record)).ok_or_else(|| Error::new(Code::UnknownChannel, "no such channel"))
    }

    fn open(&self, id: &[u8]) -> Result<(Hash, ChannelRecord)> {
        let (id, record) = self.any(id)?;
        if record.settling_at_ms != 0 {
            return Err(Error::new(Code::ChannelSettling, "it is settling"));
        }
        Ok((id, record))
    }

    fn save(&mut self, id: Hash, mut record: ChannelRecord) {
        record.revision += 1;
        self.channels.insert(id, record);
    }

    /// The clocks of a quorum: delays begin.
    pub fn clocks(&mut self) {
        let now = self.now;
        for record in self.channels.values_mut() {
            let due = now + record.delay_ms;
            let sides = [&mut record.opener, &mut record.other].into_iter().flatten();
            let times = sides.map(|side| &mut side.leaving_at_ms).chain([&mut record.settling_at_ms]);
            let decided = times.filter(|at| **at == UNDECIDED).map(|at| *at = due).count();
            record.revision += decided as u64;
        }
    }

    /// All money that channels hold.
    pub fn held(&self) -> i128 {
        self.channels.values().map(rules::held).sum()
    }
}
