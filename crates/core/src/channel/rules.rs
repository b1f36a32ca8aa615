//! What a voucher does to a channel. Amounts are cumulative: a voucher says what its lane has moved so far, so that only
//! the newest of a lane counts, and redeeming moves the difference to what the log has of the lane.
//!
//! The checks stand in the order of the contract that this follows (Filecoin's payment channel actor, `docs/channels.md`),
//! without its faults: no voucher can hold back a settle, merged lanes are emptied, no lane merges with itself.
//!
//! What each side could take out follows from four counters alone (see [`shares`]). In a one-way channel a voucher above
//! the payer's money is refused. In a two-way channel it counts, for each side alone may hold vouchers that make up for it; the shares
//! end at what the channel holds.

use sha2::{Digest, Sha256};

use super::voucher::{self, Voucher};
use super::{OPENER, OTHER};
use crate::address::Address;
use crate::error::{Code, Error, Result};
use crate::limits::{AMOUNT_MAX, LANES_MAX, PREIMAGE_BYTES_MAX};
use crate::merkle::{Hash, root_from_path};
use crate::permission::Permission;
use crate::planted::{self, Bug};
use crate::wire::{ChannelLane, ChannelRecord, ChannelSide, ClaimedVirtual, VirtualClaim};

/// Who redeems, and when.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The channel's id.
    pub channel: &'a Hash,
    /// The side in whose name it is done.
    pub side: u32,
    /// Log time, ms since 1970.
    pub now_ms: u64,
    /// Whether the signatures are still to be verified.
    pub verify: bool,
}

/// A side of a channel.
pub fn side(record: &ChannelRecord, side: u32) -> ChannelSide {
    if side == OPENER { &record.opener } else { &record.other }.clone().unwrap_or_default()
}

/// A side of a channel, to change it.
pub fn side_mut(record: &mut ChannelRecord, side: u32) -> &mut ChannelSide {
    if side == OPENER { &mut record.opener } else { &mut record.other }.get_or_insert_with(Default::default)
}

/// The side that an address is; the opener if it is both.
pub fn side_of(record: &ChannelRecord, address: &Address) -> Option<u32> {
    [OPENER, OTHER].into_iter().find(|s| side(record, *s).address == address.as_bytes()[..])
}

/// Keys that sign for a side. Errors: `CHANNEL_KEYS` if it has said none.
pub fn keys(record: &ChannelRecord, of: u32) -> Result<(Permission, Address)> {
    let side = side(record, of);
    if side.permission.is_empty() {
        let message = format!("side {of} of the channel has said no keys, so nothing is signed by it");
        return Err(Error::new(Code::ChannelKeys, message));
    }
    Ok((Permission::decode_kept(&side.permission)?, Address::from_slice(&side.address)?))
}

/// What the channel holds, minor units.
pub fn held(record: &ChannelRecord) -> i128 {
    let left = |s: ChannelSide| i128::from(s.deposited) - i128::from(s.withdrawn);
    left(side(record, OPENER)) + left(side(record, OTHER))
}

/// What of it is each side's, by what has been redeemed: what it put in, less what it took out, less what it sent, plus
/// what the other sent it, but nothing below zero and nothing above what the channel holds.
pub fn shares(record: &ChannelRecord) -> [u64; 2] {
    let (held, other) = (held(record), net(record, OTHER));
    let other = other.clamp(0, held.max(0));
    let whole = |amount: i128| u64::try_from(amount).unwrap_or(0);
    [whole(held - other), whole(other)]
}

/// A side's counters, before any limit.
fn net(record: &ChannelRecord, of: u32) -> i128 {
    let (own, others) = (side(record, of), side(record, 1 - of));
    i128::from(own.deposited) - i128::from(own.withdrawn) - i128::from(own.sent) + i128::from(others.sent)
}

/// Whether the delay after a settle is over at a time.
pub fn is_over(record: &ChannelRecord, now_ms: u64) -> bool {
    record.settling_at_ms != 0 && now_ms >= record.settling_at_ms
}

/// The lane as the log has it.
pub fn lane(record: &ChannelRecord, payer: u32, lane: u32) -> Option<&ChannelLane> {
    place(record, payer, lane).ok().map(|at| &record.lanes[at])
}

fn place(record: &ChannelRecord, payer: u32, lane: u32) -> std::result::Result<usize, usize> {
    record.lanes.binary_search_by_key(&(payer, lane), |l| (l.payer, l.lane))
}

/// Redeems a voucher: changes lanes and counters, and returns what it has moved from its payer to its payee, minor units;
/// below zero if the payee has given back. An error changes nothing.
///
/// Errors, in this order: `CHANNEL_OVER`, `VOUCHER_SIGNER`, `VOUCHER_UNSIGNED`, `VOUCHER_SECRET_LONG`, `CHANNEL_KEYS`, those of
/// signatures, `VOUCHER_CHANNEL`, `CHANNEL_ONE_WAY`, `VOUCHER_EARLY`, `VOUCHER_EXPIRED`, `VOUCHER_AMOUNT`, `VOUCHER_SECRET`, `VOUCHER_LANE`,
/// `VOUCHER_NONCE`, `MERGE_OWN_LANE`, `MERGE_LANE`, `MERGE_NONCE`, `CHANNEL_FUNDS`.
pub fn redeem(record: &mut ChannelRecord, voucher: &Voucher, secret: &[u8], at: At<'_>) -> Result<i128> {
    let delta = check(record, voucher, secret, at)?;
    let terms = &voucher.terms;
    for merge in &terms.merges {
        if let Ok(merged) = place(record, terms.payer, merge.lane) {
            record.lanes[merged].nonce = merge.nonce;
            record.lanes[merged].redeemed = planted::when(Bug::MergedLaneKept, record.lanes[merged].redeemed, 0);
            record.lanes[merged].virtuals = None;
            record.lanes[merged].claimed.clear();
        }
    }
    let lane = ChannelLane {
        payer: terms.payer,
        lane: terms.lane,
        nonce: terms.nonce,
        redeemed: terms.amount,
        secret: bytes::Bytes::copy_from_slice(if terms.secret_hash.is_empty() { &[] } else { secret }),
        virtuals: terms.virtuals.clone(),
        claimed: Vec::new(),
    };
    match place(record, terms.payer, terms.lane) {
        Ok(found) => record.lanes[found] = lane,
        Err(gap) => record.lanes.insert(gap, lane),
    }
    let payer = side_mut(record, terms.payer);
    payer.sent = u64::try_from(i128::from(payer.sent) + delta).expect("checked with the funds");
    Ok(delta)
}

/// The checks of [`redeem`], and what it would move.
pub fn check(record: &ChannelRecord, voucher: &Voucher, secret: &[u8], at: At<'_>) -> Result<i128> {
    check_open(record, at.now_ms)?;
    let terms = &voucher.terms;
    if voucher.signer != 1 - at.side {
        let expected = format!("side {}, the other one", 1 - at.side);
        return Err(Error::expected(Code::VoucherSigner, "signer of the voucher", expected, voucher.signer));
    }
    if voucher.signatures.is_empty() {
        return Err(Error::new(Code::VoucherUnsigned, "the voucher has no signature"));
    }
    if secret.len() > PREIMAGE_BYTES_MAX {
        let expected = format!("at most {PREIMAGE_BYTES_MAX}");
        return Err(Error::expected(Code::VoucherSecretLong, "bytes of the secret", expected, secret.len()));
    }
    if at.verify && !planted::is(Bug::VoucherUnverified) {
        let (permission, address) = keys(record, voucher.signer)?;
        voucher.job(&permission, &address)?.verify()?;
    }
    if terms.channel != at.channel[..] {
        let (expected, found) = (hex::encode(at.channel), hex::encode(&terms.channel));
        return Err(Error::expected(Code::VoucherChannel, "channel of the voucher", expected, found));
    }
    if terms.payer == OTHER && !record.two_way {
        return Err(Error::new(Code::ChannelOneWay, "the channel is one-way: side 1 pays nothing"));
    }
    check_terms(record, voucher, secret, at.now_ms)
}

/// Claims a virtual channel over a lane: moves what its payer has signed for. An error changes nothing.
///
/// Errors, in this order: `CHANNEL_OVER`, `VOUCHER_SIGNER`, `VOUCHER_CHANNEL`, `VIRTUAL_UNKNOWN`, `VIRTUAL_PROOF`,
/// `VIRTUAL_CLAIMED`, `VOUCHER_EXPIRED`, `VIRTUAL_CAP`, those of signatures, `CHANNEL_FUNDS`.
pub fn claim(record: &mut ChannelRecord, claim: &VirtualClaim, at: At<'_>) -> Result<u64> {
    check_open(record, at.now_ms)?;
    let (shown, path) = voucher::virtual_claim(claim)?;
    let (cap, signed) = (claim.cap.clone().unwrap_or_default(), claim.amount.clone().unwrap_or_default());
    if at.side != 1 - claim.payer {
        let expected = format!("side {}, whom the lane pays", 1 - claim.payer);
        return Err(Error::expected(Code::VoucherSigner, "who claims", expected, at.side));
    }
    if claim.channel != at.channel[..] {
        let (expected, found) = (hex::encode(at.channel), hex::encode(&claim.channel));
        return Err(Error::expected(Code::VoucherChannel, "channel of the claim", expected, found));
    }
    let found = lane(record, claim.payer, claim.lane).and_then(|lane| Some((lane, lane.virtuals.as_ref()?)));
    let Some((own, virtuals)) = found else {
        let message = format!("the last voucher of lane {} that was redeemed has no virtual channels", claim.lane);
        return Err(Error::new(Code::VirtualUnknown, message));
    };
    let (index, count) = (claim.index as usize, virtuals.count as usize);
    let root = root_from_path(&voucher::virtual_leaf(&cap), index, count, &path).filter(|_| index < count);
    if root.is_none_or(|root| virtuals.root != root[..]) {
        let expected = hex::encode(&virtuals.root);
        let found = root.map_or("no path".into(), hex::encode);
        return Err(Error::expected(Code::VirtualProof, "root of the virtual channels", expected, found));
    }
    if shown.id != cap.id {
        let (expected, found) = (hex::encode(&cap.id), hex::encode(&shown.id));
        return Err(Error::expected(Code::VirtualProof, "virtual channel of the amount", expected, found));
    }
    let Err(gap) = own.claimed.binary_search_by_key(&claim.index, |c| c.index) else {
        let message = format!("virtual channel {} of lane {} was claimed before", claim.index, claim.lane);
        return Err(Error::new(Code::VirtualClaimed, message));
    };
    if at.now_ms > cap.not_after_ms {
        let expected = format!("at most {} ms", cap.not_after_ms);
        return Err(Error::expected(Code::VoucherExpired, "log time", expected, at.now_ms));
    }
    if shown.amount > cap.cap {
        let expected = format!("at most {}", cap.cap);
        return Err(Error::expected(Code::VirtualCap, "amount of the virtual channel", expected, shown.amount));
    }
    if at.verify {
        voucher::verify_virtual(&signed, &Permission::decode_account(&cap.permission)?)?;
    }
    let redeemed = own.redeemed.checked_add(shown.amount).filter(|sum| *sum <= AMOUNT_MAX);
    let over = || Error::new(Code::ChannelFunds, "the lane would move 2^63 or more");
    let redeemed = redeemed.ok_or_else(over)?;
    check_funds(record, claim.payer, i128::from(shown.amount))?;
    if let Ok(place) = place(record, claim.payer, claim.lane) {
        let lane = &mut record.lanes[place];
        lane.redeemed = redeemed;
        lane.claimed.insert(gap, ClaimedVirtual { index: claim.index, amount: Some(signed) });
    }
    side_mut(record, claim.payer).sent += shown.amount;
    Ok(shown.amount)
}

/// What neither channel nor keys decide: time, amount, secret, lane, merges and funds.
fn check_terms(record: &ChannelRecord, voucher: &Voucher, secret: &[u8], now: u64) -> Result<i128> {
    let terms = &voucher.terms;
    if now < terms.not_before_ms {
        let expected = format!("at least {} ms", terms.not_before_ms);
        return Err(Error::expected(Code::VoucherEarly, "log time", expected, now));
    }
    if terms.not_after_ms != 0 && now > terms.not_after_ms {
        let expected = format!("at most {} ms", terms.not_after_ms);
        return Err(Error::expected(Code::VoucherExpired, "log time", expected, now));
    }
    if terms.amount > AMOUNT_MAX {
        return Err(Error::expected(Code::VoucherAmount, "amount of the voucher", "at most 2^63 - 1", terms.amount));
    }
    if !terms.secret_hash.is_empty() {
        let hash: Hash = Sha256::digest(secret).into();
        if terms.secret_hash != hash[..] {
            let (expected, found) = (hex::encode(&terms.secret_hash), hex::encode(hash));
            return Err(Error::expected(Code::VoucherSecret, "sha256 of the secret", expected, found));
        }
    }
    if terms.lane >= LANES_MAX {
        return Err(Error::expected(Code::VoucherLane, "lane", format!("below {LANES_MAX}"), terms.lane));
    }
    let own = lane(record, terms.payer, terms.lane);
    if let Some(own) = own
        && terms.nonce <= own.nonce
        && !planted::is(Bug::OldVoucher)
    {
        let expected = format!("above {}", own.nonce);
        return Err(Error::expected(Code::VoucherNonce, "nonce of the voucher", expected, terms.nonce));
    }
    let own = planted::when(Bug::LaneTwice, None, own);
    let before = i128::from(own.map_or(0, |own| own.redeemed)) + check_merges(record, voucher)?;
    let delta = i128::from(terms.amount) - before;
    check_funds(record, terms.payer, delta)?;
    Ok(delta)
}

/// What the merged lanes have moved.
fn check_merges(record: &ChannelRecord, voucher: &Voucher) -> Result<i128> {
    let terms = &voucher.terms;
    let mut merged = 0;
    for (i, merge) in terms.merges.iter().enumerate() {
        if merge.lane == terms.lane || terms.merges[..i].iter().any(|earlier| earlier.lane == merge.lane) {
            let message = format!("lane {} merges with itself, or twice", merge.lane);
            return Err(Error::new(Code::MergeOwnLane, message));
        }
        let Some(found) = lane(record, terms.payer, merge.lane) else {
            let message = format!("lane {} has redeemed nothing yet, so there is nothing to merge", merge.lane);
            return Err(Error::new(Code::MergeLane, message));
        };
        if merge.nonce <= found.nonce {
            let (what, expected) = (format!("nonce of merged lane {}", merge.lane), format!("above {}", found.nonce));
            return Err(Error::expected(Code::MergeNonce, &what, expected, merge.nonce));
        }
        merged += i128::from(found.redeemed);
    }
    Ok(merged)
}

fn check_funds(record: &ChannelRecord, payer: u32, delta: i128) -> Result<()> {
    let sent = i128::from(side(record, payer).sent) + delta;
    let (from, to) = (net(record, payer) - delta, net(record, 1 - payer) + delta);
    if !record.two_way && (from < 0 || to < 0) {
        let (what, has, needs) = match delta {
            0.. => ("payer", from + delta, delta),
            _ => ("payee, who gives back", to - delta, -delta),
        };
        let what = format!("money that the {what} has in the channel");
        return Err(Error::expected(Code::ChannelFunds, &what, format!("at least {needs}"), has));
    }
    if !(0..=i128::from(AMOUNT_MAX)).contains(&sent) {
        return Err(Error::expected(Code::ChannelFunds, "sent in all", "0 to 2^63 - 1", sent));
    }
    Ok(())
}

/// That vouchers are still redeemed. Errors: `CHANNEL_OVER`.
pub fn check_open(record: &ChannelRecord, now_ms: u64) -> Result<()> {
    if record.collected {
        return Err(Error::new(Code::ChannelOver, "the channel was collected"));
    }
    if is_over(record, now_ms) {
        let expected = format!("before {} ms", record.settling_at_ms);
        return Err(Error::expected(Code::ChannelOver, "log time", expected, now_ms));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
