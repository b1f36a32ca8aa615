//! What an operation must do to channels, or why it must fail: the checks of docs/channels.md in their order, written down
//! once more.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use florin_core::Code;
use florin_core::wire::{self, credit_entry, output};
use prost::Message as _;
use sha2::{Digest, Sha256};

use super::channels::{Channel, Channels, Lane, Paper, SETTLE, Side, UNDECIDED};
use super::log::{Address, Credit};
use super::orders::Id;

/// Why an operation must fail: the code that it must say, where the model knows it, and words.
#[derive(Debug)]
pub(super) struct Fail {
    pub(super) code: Option<Code>,
    pub(super) why: String,
}

impl<T: Into<String>> From<T> for Fail {
    fn from(why: T) -> Fail {
        Fail { code: None, why: why.into() }
    }
}

fn no<T>(code: Code) -> Result<T, Fail> {
    Err(Fail { code: Some(code), why: code.name().to_owned() })
}

fn must(holds: bool, code: Code) -> Result<(), Fail> {
    if holds { Ok(()) } else { no(code) }
}

pub(super) enum Event {
    Redeemed(Id, Box<wire::Voucher>),
    /// A side took money out without a permit.
    Left(Id, u32),
    Mark(&'static str),
    /// A side's withdrawal, or the settle, waits for clocks.
    Waits(Id, usize),
}

/// What an order has done to channels.
#[derive(Default)]
pub(super) struct Done {
    pub(super) changed: BTreeMap<Id, Channel>,
    pub(super) events: Vec<Event>,
}

/// An order that is under way; if it fails nothing of it stays.
pub(super) struct Draft<'a> {
    all: &'a Channels,
    order: Id,
    account: Address,
    now: u64,
    changed: BTreeMap<Id, Channel>,
    events: Vec<Event>,
}

impl Draft<'_> {
    /// An order that may operate on channels.
    pub(super) fn new(all: &Channels, order: Id, account: Address, now: u64) -> Draft<'_> {
        Draft { all, order, account, now, changed: BTreeMap::new(), events: Vec::new() }
    }

    /// It has succeeded.
    pub(super) fn done(self) -> Done {
        Done { changed: self.changed, events: self.events }
    }

    fn mark(&mut self, what: &'static str) {
        self.events.push(Event::Mark(what));
    }

    fn side_in(&self, channel: &Channel) -> Result<u32, Fail> {
        channel.side_of(&self.account).map_or_else(|| no(Code::NotAParty), Ok)
    }

    fn load(&self, id: &[u8]) -> Result<(Id, Channel), Fail> {
        let id = Id::try_from(id).map_err(|_| "no id")?;
        match self.changed.get(&id).or_else(|| self.all.get(&id)) {
            Some(channel) => Ok((id, channel.clone())),
            None => no(Code::UnknownChannel),
        }
    }

    /// One that is not settling.
    fn load_live(&self, id: &[u8]) -> Result<(Id, Channel), Fail> {
        let (id, channel) = self.load(id)?;
        must(!channel.collected && !channel.is_over(self.now), Code::ChannelOver)?;
        must(channel.end_ms.is_none(), Code::ChannelSettling)?;
        Ok((id, channel))
    }

    fn save(&mut self, id: Id, mut channel: Channel) {
        channel.changes += 1;
        self.changed.insert(id, channel);
    }

    /// Takes `amount` out of a channel.
    pub(super) fn withdraw(&mut self, withdraw: &wire::ChannelWithdraw, amount: u64) -> Result<(), Fail> {
        withdraw.redemptions.iter().try_for_each(|one| self.redeem(one))?;
        let (id, mut channel) = self.load(&withdraw.channel)?;
        must(!channel.collected && !channel.is_over(self.now), Code::ChannelOver)?;
        let side = self.side_in(&channel)?;
        let (own, other) = (&channel.sides[side as usize], &channel.sides[1 - side as usize]);
        let taken = i128::from(amount);
        match &withdraw.permit {
            None => {
                let Some((most, due)) = own.leaving else { return no(Code::ChannelNotDue) };
                must(self.now >= due, Code::ChannelNotDue)?;
                must(amount <= most, Code::ChannelFunds)?;
            }
            Some(signed) => {
                must(!other.permission.is_empty(), Code::ChannelKeys)?;
                if !self.all.vouchers.is_true(Paper::Withdraw, &signed.permit, &signed.signatures, &other.permission) {
                    return Err("a permit that the other side has not signed".into());
                }
                let permit = wire::WithdrawPermit::decode(signed.permit.clone()).map_err(|e| e.to_string())?;
                must(permit.channel[..] == id && permit.side == side, Code::VoucherChannel)?;
                must(permit.not_after_ms == 0 || self.now <= permit.not_after_ms, Code::VoucherExpired)?;
                must(own.withdrawn + taken <= i128::from(permit.withdrawn), Code::ChannelFunds)?;
            }
        }
        must(taken <= channel.share(side), Code::ChannelFunds)?;
        let own = &mut channel.sides[side as usize];
        own.withdrawn += taken;
        if withdraw.permit.is_some() {
            let both = !withdraw.redemptions.is_empty();
            self.mark(if both { "redeemed and withdrawn in one order" } else { "withdrawn with a permit" });
        } else {
            own.leaving = None;
            self.events.push(Event::Left(id, side));
            self.mark("withdrawn after announcing");
        }
        self.save(id, channel);
        Ok(())
    }

    /// An output; returns what it credits.
    pub(super) fn output(&mut self, kind: &output::Kind, at: u32) -> Result<Vec<Credit>, Fail> {
        match kind {
            output::Kind::ChannelOpen(open) => self.open(open, at)?,
            output::Kind::ChannelDeposit(deposit) => {
                let (id, mut channel) = self.load_live(&deposit.channel)?;
                channel.sides[deposit.side as usize].deposited += i128::from(deposit.amount);
                self.save(id, channel);
            }
            output::Kind::ChannelRedeem(all) => {
                all.redemptions.iter().try_for_each(|one| self.redeem(one))?;
                if !all.claims.is_empty() {
                    return Err("no virtual channels in this world yet".into());
                }
            }
            output::Kind::ChannelKeys(keys) => {
                let (id, mut channel) = self.load_live(&keys.channel)?;
                let side = self.side_in(&channel)?;
                let own = &mut channel.sides[side as usize];
                must(own.permission.is_empty(), Code::ChannelKeys)?;
                own.permission = keys.permission.clone();
                self.mark("keys of a channel said later");
                self.save(id, channel);
            }
            output::Kind::ChannelLeave(leave) => {
                let (id, mut channel) = self.load_live(&leave.channel)?;
                let side = self.side_in(&channel)?;
                channel.sides[side as usize].leaving = (leave.amount > 0).then_some((leave.amount, UNDECIDED));
                self.events.push(Event::Waits(id, side as usize));
                self.save(id, channel);
            }
            output::Kind::ChannelSettle(settle) => {
                let (id, mut channel) = self.load_live(&settle.channel)?;
                self.side_in(&channel)?;
                channel.end_ms = Some(UNDECIDED);
                self.events.push(Event::Waits(id, SETTLE));
                channel.sides.iter_mut().for_each(|s| s.leaving = None);
                self.save(id, channel);
            }
            output::Kind::ChannelCollect(collect) => return self.collect(collect),
            _ => {}
        }
        Ok(Vec::new())
    }

    fn open(&mut self, open: &wire::ChannelOpen, at: u32) -> Result<(), Fail> {
        let sides = [(&open.opener, &open.opener_permission), (&open.other, &open.other_permission)];
        for (address, permission) in sides {
            let hash = Sha256::new().chain_update(b"florin-account-v1").chain_update(self.all.network.to_be_bytes());
            let keys_address = hash.chain_update(permission).finalize();
            let own = address[..] == self.account;
            must(permission.is_empty() || own || keys_address[..] == address[..], Code::ChannelKeys)?;
        }
        let side = |(address, permission): (&Bytes, &Bytes)| Side {
            address: address.clone(),
            permission: permission.clone(),
            ..Default::default()
        };
        let mut sides = sides.map(side);
        sides[0].deposited = i128::from(open.amount);
        if open.opener[..] != self.account {
            self.mark("channel opened by a third");
        }
        let channel = Channel { sides, delay_ms: open.delay_ms, two_way: open.two_way, ..Default::default() };
        self.save(self.all.id_of(&self.order, at), channel);
        Ok(())
    }

    fn collect(&mut self, collect: &wire::ChannelCollect) -> Result<Vec<Credit>, Fail> {
        let (id, mut channel) = self.load(&collect.channel)?;
        must(!channel.collected, Code::ChannelOver)?;
        must(channel.is_over(self.now), Code::ChannelNotDue)?;
        let mut credits = Vec::new();
        if channel.balance(0).min(channel.balance(1)) < 0 {
            self.mark("one side has sent more than it had");
        }
        if channel.side_of(&self.account).is_none() {
            self.mark("collected by a stranger");
        }
        let shares = [channel.share(0), channel.share(1)];
        channel.sent_in_the_end = [channel.sent(0), channel.sent(1)];
        channel.lanes.clear();
        for (side, amount) in shares.into_iter().enumerate() {
            let own = &mut channel.sides[side];
            own.withdrawn += amount;
            let address = Address::try_from(own.address.as_ref()).map_err(|_| "no address")?;
            let whole = u64::try_from(amount).map_err(|e| e.to_string())?;
            credits.extend((whole > 0).then_some((address, whole, self.order, credit_entry::Kind::Call as i32)));
        }
        channel.collected = true;
        self.save(id, channel);
        Ok(credits)
    }

    fn redeem(&mut self, one: &wire::Redemption) -> Result<(), Fail> {
        let signed = one.voucher.as_ref().ok_or("no voucher")?;
        let terms = wire::Voucher::decode(signed.voucher.clone()).map_err(|e| e.to_string())?;
        let (id, mut channel) = self.load(&terms.channel)?;
        let side = match &one.watch {
            None => self.side_in(&channel)?,
            Some(signed) => {
                let permit = wire::WatchPermit::decode(signed.permit.clone()).map_err(|e| e.to_string())?;
                must(permit.channel[..] == id && permit.watcher[..] == self.account, Code::NotAParty)?;
                let permission = &channel.sides[permit.side as usize].permission;
                must(!permission.is_empty(), Code::ChannelKeys)?;
                if !self.all.vouchers.is_true(Paper::Watch, &signed.permit, &signed.signatures, permission) {
                    return Err("a permit that the side has not signed".into());
                }
                self.mark("redeemed by a watcher");
                permit.side
            }
        };
        self.check_frame(&channel, one, signed, &terms, side)?;
        let delta = self.check_terms(&channel, &terms, &one.secret)?;
        self.note(&channel, signed, &terms, delta);
        let payer = terms.payer;
        for merge in &terms.merges {
            if let Some(lane) = channel.lanes.get_mut(&(payer, merge.lane)) {
                (lane.nonce, lane.amount) = (merge.nonce, 0);
            }
        }
        let secret = if terms.secret_hash.is_empty() { Bytes::new() } else { one.secret.clone() };
        channel.lanes.insert((payer, terms.lane), Lane { nonce: terms.nonce, amount: terms.amount, secret });
        self.events.push(Event::Redeemed(id, Box::new(terms)));
        self.save(id, channel);
        Ok(())
    }

    /// What becomes of a voucher, if it is rare.
    fn note(&mut self, channel: &Channel, signed: &wire::SignedVoucher, terms: &wire::Voucher, delta: i128) {
        let answers = signed.signer != terms.payer && delta < 0;
        let left = channel.end_ms.map(|end| end - self.now);
        let emptied = channel.lane(terms.payer, terms.lane).is_some_and(|(amount, nonce)| amount == 0 && nonce > 0);
        let marks = [
            (answers, "cancel answers a lock that was redeemed"),
            (signed.signer != terms.payer && delta == 0, "cancel redeemed before its lock"),
            (!terms.secret_hash.is_empty(), "lock redeemed with its secret"),
            (!terms.merges.is_empty(), "lanes merged"),
            (emptied && delta > 0, "emptied lane used again"),
            (left.is_some(), "voucher redeemed while the channel settles"),
            (left.is_some_and(|left| left < channel.delay_ms / 4), "voucher redeemed shortly before the end"),
            (terms.payer == 1, "voucher back in a two-way channel"),
        ];
        marks.into_iter().filter(|(holds, _)| *holds).for_each(|(_, what)| self.mark(what));
    }

    /// Checks 1 to 6 of docs/channels.md.
    fn check_frame(
        &self,
        channel: &Channel,
        one: &wire::Redemption,
        signed: &wire::SignedVoucher,
        terms: &wire::Voucher,
        side: u32,
    ) -> Result<(), Fail> {
        must(!channel.collected && !channel.is_over(self.now), Code::ChannelOver)?;
        must(signed.signer + side == 1, Code::VoucherSigner)?;
        must(!signed.signatures.is_empty(), Code::VoucherUnsigned)?;
        must(one.secret.len() <= 64, Code::VoucherSecretLong)?;
        let permission = &channel.sides[signed.signer as usize].permission;
        must(!permission.is_empty(), Code::ChannelKeys)?;
        if !self.all.vouchers.is_true(Paper::Voucher, &signed.voucher, &signed.signatures, permission) {
            return Err("a voucher that its signer has not signed".into());
        }
        must(channel.two_way || terms.payer == 0, Code::ChannelOneWay)
    }

    /// Checks 7 to 12. Returns what the voucher moves.
    fn check_terms(&self, channel: &Channel, terms: &wire::Voucher, secret: &Bytes) -> Result<i128, Fail> {
        must(self.now >= terms.not_before_ms, Code::VoucherEarly)?;
        must(terms.not_after_ms == 0 || self.now <= terms.not_after_ms, Code::VoucherExpired)?;
        must(terms.amount >> 63 == 0, Code::VoucherAmount)?;
        let knows = terms.secret_hash.is_empty() || Sha256::digest(secret)[..] == terms.secret_hash[..];
        must(knows, Code::VoucherSecret)?;
        must(terms.lane < 1_024, Code::VoucherLane)?;
        let own = channel.lane(terms.payer, terms.lane);
        must(own.is_none_or(|(_, nonce)| terms.nonce > nonce), Code::VoucherNonce)?;
        let mut before = i128::from(own.map_or(0, |(amount, _)| amount));
        let mut merged = BTreeSet::from([terms.lane]);
        for merge in &terms.merges {
            must(merged.insert(merge.lane), Code::MergeOwnLane)?;
            let Some((amount, nonce)) = channel.lane(terms.payer, merge.lane) else { return no(Code::MergeLane) };
            must(merge.nonce > nonce, Code::MergeNonce)?;
            before += i128::from(amount);
        }
        let delta = i128::from(terms.amount) - before;
        let (payer, payee) = (channel.balance(terms.payer) - delta, channel.balance(1 - terms.payer) + delta);
        must(channel.two_way || payer.min(payee) >= 0, Code::ChannelFunds)?;
        must((0..1 << 63).contains(&(channel.sent(terms.payer) + delta)), Code::ChannelFunds)?;
        Ok(delta)
    }
}
