//! Payment channels: two sides' money, which signed vouchers move ([`crate::channel::rules`]); settle, wait for the delay, collect.
//!
//! Safety: a side is debited only by what it has signed, and until the delay after a settle is over (or that of an
//! announced withdrawal) the other side can redeem what it holds. Nobody else can change what a side has: whoever redeems a voucher
//! is the side that it was signed for, or was named by it. The delay is as long as it says by honest clocks, too: log time stands
//! still while the log does, so a delay begins with the time that a quorum's clocks make after the order that asks for it
//! ([`begin_delays`]).

use bytes::Bytes;

use super::{Caller, Module};
use crate::address::Address;
use crate::authority::state::{State, Table, corrupt};
use crate::channel::rules::{self, At};
use crate::channel::voucher::{self, Voucher};
use crate::channel::{OPENER, OTHER, channel_id, check_side};
use crate::content::{check_address, check_amount};
use crate::error::{Code, Error, Result};
use crate::limits::{AMOUNT_MAX, CHANNEL_DELAY_MAX_MS, CHANNEL_DELAY_MIN_MS};
use crate::merkle::Hash;
use crate::ordered::book::Book;
use crate::ordered::modules::contracts::expiry_key;
use crate::ordered::step::{Object, Step, object_key};
use crate::permission::Permission;
use crate::planted::{self, Bug};
use crate::wire::{self, ChannelRecord, credit_entry, input, output};

/// The module `channels`.
pub struct Channels;

/// A time that clocks are still to say.
pub const UNDECIDED: u64 = u64::MAX;
/// What of a channel waits for clocks, beside the withdrawals of sides 0 and 1.
const SETTLE: u32 = 2;
/// Delays that one step looks at.
pub const DELAYS_PER_STEP: usize = 64;

/// Key of a channel.
pub fn channel_key(id: &[u8]) -> Vec<u8> {
    object_key(Object::Channel, &[id])
}

/// Key that finds the channels of an address.
pub fn channel_of_key(address: &[u8], id: &[u8]) -> Vec<u8> {
    object_key(Object::ChannelOf, &[address, id])
}

impl Module for Channels {
    fn name(&self) -> &'static str {
        "channels"
    }

    fn check_input(&self, kind: &input::Kind) -> Result<()> {
        let input::Kind::ChannelWithdraw(withdraw) = kind else { return Ok(()) };
        check_address("channel's id", &withdraw.channel)?;
        if let Some(permit) = &withdraw.permit {
            voucher::withdraw_permit(permit)?;
        }
        withdraw.redemptions.iter().try_for_each(check_redemption)
    }

    fn check_output(&self, kind: &output::Kind) -> Result<u64> {
        let (channel, amount) = match kind {
            output::Kind::ChannelOpen(open) => return check_opening(open),
            output::Kind::ChannelDeposit(deposit) => {
                check_amount(deposit.amount)?;
                check_side("side of the deposit", deposit.side)?;
                (&deposit.channel, deposit.amount)
            }
            output::Kind::ChannelRedeem(redeem) => {
                if redeem.redemptions.is_empty() && redeem.claims.is_empty() {
                    return Err(Error::new(Code::BadContent, "expected vouchers to redeem, found none"));
                }
                redeem.redemptions.iter().try_for_each(check_redemption)?;
                redeem.claims.iter().try_for_each(|claim| voucher::virtual_claim(claim).map(drop))?;
                return Ok(0);
            }
            output::Kind::ChannelKeys(keys) => {
                Permission::decode_account(&keys.permission)?;
                (&keys.channel, 0)
            }
            output::Kind::ChannelLeave(leave) => {
                if leave.amount > AMOUNT_MAX {
                    let expected = "at most 2^63 - 1";
                    return Err(Error::expected(Code::BadAmount, "amount to withdraw", expected, leave.amount));
                }
                (&leave.channel, 0)
            }
            output::Kind::ChannelSettle(settle) => (&settle.channel, 0),
            output::Kind::ChannelCollect(collect) => (&collect.channel, 0),
            _ => return Ok(0),
        };
        check_address("channel's id", channel)?;
        Ok(amount)
    }

    fn apply_input(&self, kind: &input::Kind, amount: u64, caller: &Caller, step: &mut Step<'_>) -> Result<()> {
        let input::Kind::ChannelWithdraw(withdraw) = kind else { return Ok(()) };
        withdraw.redemptions.iter().try_for_each(|one| redeem(one, caller, step))?;
        let (id, mut record) = load(&withdraw.channel, step)?;
        rules::check_open(&record, step.time_ms())?;
        let side = party(&record, caller)?;
        check_leave(&id, &record, side, amount, withdraw.permit.as_ref(), step.time_ms())?;
        let has = rules::shares(&record)[side as usize];
        if amount > has {
            let what = "money that the side has in the channel";
            return Err(Error::expected(Code::ChannelFunds, what, format!("at least {amount}"), has));
        }
        let of = rules::side_mut(&mut record, side);
        of.withdrawn = counter(of.withdrawn, amount, "withdrawn in all")?;
        if withdraw.permit.is_none() {
            unannounce(&id, &mut record, side, step);
        }
        step.book.channels -= amount as i128;
        save(&id, record, step);
        Ok(())
    }

    fn apply_output(&self, kind: &output::Kind, output: u32, caller: &Caller, step: &mut Step<'_>) -> Result<()> {
        match kind {
            output::Kind::ChannelOpen(open) => open_channel(open, output, caller, step),
            output::Kind::ChannelDeposit(deposit) => {
                let (id, mut record) = load_open(&deposit.channel, step)?;
                let side = rules::side_mut(&mut record, deposit.side);
                side.deposited = counter(side.deposited, deposit.amount, "deposited in all")?;
                step.book.channels += deposit.amount as i128;
                save(&id, record, step);
                Ok(())
            }
            output::Kind::ChannelRedeem(all) => {
                all.redemptions.iter().try_for_each(|one| redeem(one, caller, step))?;
                all.claims.iter().try_for_each(|one| claim(one, caller, step))
            }
            output::Kind::ChannelKeys(keys) => set_keys(keys, caller, step),
            output::Kind::ChannelLeave(leave) => announce(leave, caller, step),
            output::Kind::ChannelSettle(settle) => {
                let (id, mut record) = load_open(&settle.channel, step)?;
                party(&record, caller)?;
                [OPENER, OTHER].into_iter().for_each(|side| unannounce(&id, &mut record, side, step));
                record.settling_at_ms = UNDECIDED;
                delay(&id, SETTLE, step);
                save(&id, record, step);
                Ok(())
            }
            output::Kind::ChannelCollect(all) => collect(all, output, caller, step),
            _ => Ok(()),
        }
    }

    fn held(&self, state: &dyn State) -> Result<i128> {
        let mut held = 0;
        super::each(state, Object::Channel, |key, value| {
            let record: ChannelRecord = prost::Message::decode(value)
                .map_err(|e: prost::DecodeError| corrupt(Table::Objects, &key, &e.to_string()))?;
            held += rules::held(&record);
            Ok(())
        })?;
        Ok(held)
    }

    fn booked(&self, book: &Book) -> i128 {
        book.channels
    }
}

fn check_opening(open: &wire::ChannelOpen) -> Result<u64> {
    check_address("opener's address", &open.opener)?;
    check_address("other side's address", &open.other)?;
    if open.opener == open.other {
        return Err(Error::new(Code::BadContent, "a channel has two different sides, found one address for both"));
    }
    for permission in [&open.opener_permission, &open.other_permission] {
        if !permission.is_empty() {
            Permission::decode_account(permission)?;
        }
    }
    if !(CHANNEL_DELAY_MIN_MS..=CHANNEL_DELAY_MAX_MS).contains(&open.delay_ms) {
        let expected = format!("{CHANNEL_DELAY_MIN_MS} to {CHANNEL_DELAY_MAX_MS} ms");
        return Err(Error::expected(Code::BadContent, "delay of the channel", expected, open.delay_ms));
    }
    if open.amount > AMOUNT_MAX {
        return Err(Error::expected(Code::BadAmount, "amount", "0 to 2^63 - 1", open.amount));
    }
    Ok(open.amount)
}

fn check_redemption(one: &wire::Redemption) -> Result<()> {
    let missing = || Error::new(Code::BadContent, "a redemption without a voucher");
    Voucher::decode(one.voucher.as_ref().ok_or_else(missing)?)?;
    one.watch.as_ref().map_or(Ok(()), |permit| voucher::watch_permit(permit).map(drop))
}

fn open_channel(open: &wire::ChannelOpen, output: u32, caller: &Caller, step: &mut Step<'_>) -> Result<()> {
    let id = channel_id(&caller.committee_id, &caller.order_id, output);
    let own = |address: &Bytes| caller.seqnum != 0 && caller.account.as_bytes()[..] == address[..];
    for (address, permission) in [(&open.opener, &open.opener_permission), (&open.other, &open.other_permission)] {
        if !permission.is_empty() && !own(address) {
            check_own_keys(address, permission, caller.network_id)?;
        }
    }
    let side = |address: &Bytes, permission: &Bytes, deposited| {
        let (address, permission) = (address.clone(), permission.clone());
        Some(wire::ChannelSide { address, permission, deposited, ..Default::default() })
    };
    let record = ChannelRecord {
        opener: side(&open.opener, &open.opener_permission, open.amount),
        other: side(&open.other, &open.other_permission, 0),
        delay_ms: open.delay_ms,
        two_way: open.two_way,
        ..Default::default()
    };
    step.book.channels += open.amount as i128;
    step.put_bytes(channel_of_key(&open.opener, &id), Bytes::new());
    step.put_bytes(channel_of_key(&open.other, &id), Bytes::new());
    save(&id, record, step);
    Ok(())
}

/// Keys that an account has not said itself must be those that its address is the hash of.
fn check_own_keys(address: &[u8], permission: &[u8], network_id: u64) -> Result<()> {
    let found = Permission::address_of(network_id, permission);
    if found.as_bytes()[..] != *address {
        let (expected, found) = (hex::encode(address), hex::encode(found.as_bytes()));
        return Err(Error::expected(Code::ChannelKeys, "address of the side's keys", expected, found));
    }
    Ok(())
}

fn set_keys(keys: &wire::ChannelKeys, caller: &Caller, step: &mut Step<'_>) -> Result<()> {
    let (id, mut record) = load_open(&keys.channel, step)?;
    let side = party(&record, caller)?;
    let of = rules::side_mut(&mut record, side);
    if !of.permission.is_empty() {
        let message = format!("side {side} has said its keys before, and vouchers rest on them");
        return Err(Error::new(Code::ChannelKeys, message));
    }
    of.permission = keys.permission.clone();
    save(&id, record, step);
    Ok(())
}

fn announce(leave: &wire::ChannelLeave, caller: &Caller, step: &mut Step<'_>) -> Result<()> {
    let (id, mut record) = load_open(&leave.channel, step)?;
    let side = party(&record, caller)?;
    unannounce(&id, &mut record, side, step);
    if leave.amount > 0 {
        let of = rules::side_mut(&mut record, side);
        (of.leaving, of.leaving_at_ms) = (leave.amount, UNDECIDED);
        delay(&id, side, step);
    }
    save(&id, record, step);
    Ok(())
}

/// Id under which an announced withdrawal waits for its time; not that of any channel or contract.
pub fn leaving_id(id: &Hash, side: u32) -> Hash {
    use sha2::{Digest, Sha256};
    let h = Sha256::new().chain_update(b"florin-channel-leave-v1").chain_update(id);
    h.chain_update(side.to_be_bytes()).finalize().into()
}

fn unannounce(id: &Hash, record: &mut ChannelRecord, side: u32, step: &mut Step<'_>) {
    let of = rules::side_mut(record, side);
    match std::mem::take(&mut of.leaving_at_ms) {
        0 => {}
        UNDECIDED => step.delete(delay_key(id, side)),
        at => step.delete(expiry_key(at, &leaving_id(id, side))),
    }
    of.leaving = 0;
}

/// Waits for clocks.
fn delay(id: &Hash, what: u32, step: &mut Step<'_>) {
    let record = wire::DelayRecord { clocks: step.book.clocks.clone() };
    step.put(delay_key(id, what), &record);
}

fn delay_key(id: &[u8], what: u32) -> Vec<u8> {
    object_key(Object::Delay, &[id, &[what as u8]])
}

/// Begins the delays for which a quorum has voted its clocks since they were asked for: f of those may lie, and no
/// more of the others may be behind, so log time is at least as late as when an honest authority had applied the order.
pub(in crate::ordered) fn begin_delays(quorum: usize, step: &mut Step<'_>) -> Result<()> {
    for (key, _) in step.scan_before(&[Object::Delay as u8], DELAYS_PER_STEP)? {
        let Some((id, what)) = split_delay(&key) else { break };
        // It may be gone since.
        let Some(waiting) = step.get::<wire::DelayRecord>(&key)? else { continue };
        let newer = step.book.clocks.iter().zip(&waiting.clocks).filter(|(now, before)| now > before);
        if newer.count() < planted::when(Bug::DelayByOneClock, 1, quorum) {
            continue;
        }
        let (id, mut record) = load(id, step)?;
        let at = step.time_ms().saturating_add(planted::when(Bug::DelayIgnored, 0, record.delay_ms)).min(UNDECIDED - 1);
        step.delete(key.to_vec());
        if what == SETTLE {
            record.settling_at_ms = at;
            step.put_bytes(expiry_key(at, &id), Bytes::new());
        } else {
            rules::side_mut(&mut record, what).leaving_at_ms = at;
            step.put_bytes(expiry_key(at, &leaving_id(&id, what)), Bytes::new());
        }
        save(&id, record, step);
    }
    Ok(())
}

/// Channel and what of it waits, of a key.
fn split_delay(key: &[u8]) -> Option<(&[u8], u32)> {
    let (what, id) = key.strip_prefix(&[Object::Delay as u8])?.split_last()?;
    Some((id, u32::from(*what)))
}

/// Whether a side may take out an amount: the other side has signed for it, or it is announced and due.
fn check_leave(
    id: &Hash,
    record: &ChannelRecord,
    side: u32,
    amount: u64,
    permit: Option<&wire::SignedPermit>,
    now: u64,
) -> Result<()> {
    let of = rules::side(record, side);
    let Some(signed) = permit else {
        if of.leaving_at_ms == 0 || now < of.leaving_at_ms {
            let due = if of.leaving_at_ms == 0 { "an announced withdrawal" } else { "a later time" };
            let what = format!("log time of a withdrawal without a permit, announced for {} ms", of.leaving_at_ms);
            return Err(Error::expected(Code::ChannelNotDue, &what, due, now));
        }
        if amount > of.leaving {
            let expected = format!("at most {}", of.leaving);
            return Err(Error::expected(Code::ChannelFunds, "amount that was announced", expected, amount));
        }
        return Ok(());
    };
    let (permission, address) = rules::keys(record, 1 - side)?;
    voucher::verify_withdraw(signed, &permission, &address)?;
    let permit = voucher::withdraw_permit(signed)?;
    if permit.channel != id[..] || permit.side != side {
        let (expected, found) = (format!("side {side} of {}", hex::encode(id)), hex::encode(&permit.channel));
        return Err(Error::expected(Code::VoucherChannel, "permit to withdraw", expected, found));
    }
    if permit.not_after_ms != 0 && now > permit.not_after_ms {
        let expected = format!("at most {} ms", permit.not_after_ms);
        return Err(Error::expected(Code::VoucherExpired, "log time", expected, now));
    }
    let after = i128::from(of.withdrawn) + i128::from(amount);
    if i128::from(permit.withdrawn) < after && !planted::is(Bug::PermitTwice) {
        let expected = format!("at most {}, as the permit says", permit.withdrawn);
        return Err(Error::expected(Code::ChannelFunds, "withdrawn in all", expected, after));
    }
    Ok(())
}

fn redeem(one: &wire::Redemption, caller: &Caller, step: &mut Step<'_>) -> Result<()> {
    let voucher = Voucher::decode(one.voucher.as_ref().unwrap_or(&wire::SignedVoucher::default()))?;
    let (id, mut record) = load(&voucher.terms.channel, step)?;
    let side = redeems_for(&id, &record, one.watch.as_ref(), caller)?;
    rules::redeem(&mut record, &voucher, &one.secret, At { channel: &id, side, now_ms: step.time_ms(), verify: true })?;
    save(&id, record, step);
    Ok(())
}

fn claim(one: &wire::VirtualClaim, caller: &Caller, step: &mut Step<'_>) -> Result<()> {
    let (id, mut record) = load(&one.channel, step)?;
    let side = redeems_for(&id, &record, one.watch.as_ref(), caller)?;
    rules::claim(&mut record, one, At { channel: &id, side, now_ms: step.time_ms(), verify: true })?;
    save(&id, record, step);
    Ok(())
}

/// The side in whose name the caller redeems: its own, or the one that has named it in a permit.
fn redeems_for(id: &Hash, record: &ChannelRecord, watch: Option<&wire::SignedPermit>, caller: &Caller) -> Result<u32> {
    let Some(signed) = watch else { return party(record, caller) };
    let permit = voucher::watch_permit(signed)?;
    if permit.channel != id[..] || permit.watcher != caller.account.as_bytes()[..] {
        let (expected, found) = (hex::encode(&permit.watcher), hex::encode(caller.account.as_bytes()));
        return Err(Error::expected(Code::NotAParty, "watcher of the channel", expected, found));
    }
    let (permission, address) = rules::keys(record, permit.side)?;
    voucher::verify_watch(signed, &permission, &address)?;
    Ok(permit.side)
}

fn collect(all: &wire::ChannelCollect, output: u32, caller: &Caller, step: &mut Step<'_>) -> Result<()> {
    let (id, mut record) = load(&all.channel, step)?;
    if record.collected {
        return Err(Error::new(Code::ChannelOver, "the channel was collected before"));
    }
    if !rules::is_over(&record, step.time_ms()) {
        let expected = match record.settling_at_ms {
            0 => "after a settle and its delay".to_owned(),
            at => format!("at least {at} ms"),
        };
        return Err(Error::expected(Code::ChannelNotDue, "log time", expected, step.time_ms()));
    }
    step.delete(expiry_key(record.settling_at_ms, &id));
    let shares = rules::shares(&record);
    for (side, amount) in (OPENER..).zip(shares) {
        let of = rules::side_mut(&mut record, side);
        if amount > 0 {
            of.withdrawn = counter(of.withdrawn, amount, "withdrawn in all")?;
            step.book.channels -= amount as i128;
            let address = Address::from_slice(&of.address)?;
            step.credit(&address, amount, caller.entry(output, amount, credit_entry::Kind::Call));
        }
    }
    record.collected = true;
    record.lanes.clear();
    save(&id, record, step);
    Ok(())
}

fn load(id: &[u8], step: &Step<'_>) -> Result<(Hash, ChannelRecord)> {
    let record = step.get(&channel_key(id))?;
    let unknown = || Error::new(Code::UnknownChannel, format!("there is no channel {}", hex::encode(id)));
    let id = Hash::try_from(id).map_err(|_| unknown())?;
    Ok((id, record.ok_or_else(unknown)?))
}

/// One that is not settling.
fn load_open(id: &[u8], step: &Step<'_>) -> Result<(Hash, ChannelRecord)> {
    let (id, record) = load(id, step)?;
    rules::check_open(&record, step.time_ms())?;
    if record.settling_at_ms != 0 {
        let message = format!("the channel is settling: it can be collected at {} ms", record.settling_at_ms);
        return Err(Error::new(Code::ChannelSettling, message));
    }
    Ok((id, record))
}

fn save(id: &Hash, mut record: ChannelRecord, step: &mut Step<'_>) {
    record.revision += 1;
    step.put(channel_key(id), &record);
}

fn party(record: &ChannelRecord, caller: &Caller) -> Result<u32> {
    rules::side_of(record, &caller.account).filter(|_| caller.seqnum != 0).ok_or_else(|| {
        let address = |side| hex::encode(rules::side(record, side).address);
        let expected = format!("{} or {}", address(OPENER), address(OTHER));
        Error::expected(Code::NotAParty, "side of the channel", expected, hex::encode(caller.account.as_bytes()))
    })
}

fn counter(before: u64, amount: u64, what: &str) -> Result<u64> {
    before.checked_add(amount).filter(|sum| *sum <= AMOUNT_MAX).ok_or_else(|| {
        Error::expected(Code::BadAmount, what, "at most 2^63 - 1", i128::from(before) + i128::from(amount))
    })
}
