//! Sides of channels, and strangers, who are after the money of others: with vouchers that are old, cancelled, their own,
//! changed or of another channel, with permits that are not theirs, too early and too late.

use bytes::Bytes;
use florin_core::wire::{self, output};

use super::votes_for_everything::flip;
use crate::channels::moves::{self, Move, id, redemption};
use crate::channels::papers::{sign, withdraw_permit};
use crate::channels::{PARTIES, now, record, usable};
use crate::world::World;

fn redeem(at: usize, redemptions: Vec<wire::Redemption>) -> Option<Move> {
    Some(Move::of(at, output::Kind::ChannelRedeem(wire::ChannelRedeem { redemptions, claims: Vec::new() })))
}

/// One way in which a side robs the other, if there is something to rob.
pub fn robs(world: &mut World, at: usize, side: u32) -> Option<Move> {
    let promises = world.channels.list[at].promises.len();
    let order = match world.rng.below(12) {
        0..8 if given_back(world, at, side).is_some() => {
            let i = given_back(world, at, side)?;
            let one = redemption(world, at, side, i, false);
            redeem(at, vec![one])
        }
        1 | 2 if promises > 0 => {
            // Whatever was signed at some time, by whom ever.
            let any = world.rng.index(promises);
            // Mostly what the log has as the newest of its lane: the very same once more.
            let newest = world.channels.list[at].promises.iter().position(|p| {
                let lane = record(world, at).and_then(|r| r.lane(p.terms.payer, p.terms.lane));
                p.signed.signer != side && lane.is_some_and(|(_, nonce)| nonce == p.terms.nonce)
            });
            let i = if world.rng.chance(700) { newest.unwrap_or(any) } else { any };
            let one = redemption(world, at, side, i, false);
            redeem(at, vec![one])
        }
        3 | 4 if promises > 0 => bent(world, at, side),
        5 | 6 => odd(world, at, side),
        7 | 8 => takes_out(world, at, side),
        9 => Some(moves::settle(world, at)),
        10 => Some(moves::collect(world, at)),
        _ => {
            let held = record(world, at).map_or(0, |r| r.held());
            let more = world.rng.below(20);
            Some(moves::leave(world, at, u64::try_from(held).unwrap_or(0) + more))
        }
    };
    if order.is_some() {
        world.fault("channels robbed");
    }
    order
}

/// A lock that a side has given back, and that would still be good.
fn given_back(world: &World, at: usize, side: u32) -> Option<usize> {
    let r = record(world, at)?;
    let good = |p: &crate::channels::Promise| {
        let t = &p.terms;
        let news = r.lane(t.payer, t.lane).is_none_or(|(_, nonce)| t.nonce > nonce);
        p.dead && p.known && news && p.signed.signer != side && t.not_after_ms > now(world)
    };
    world.channels.list[at].promises.iter().position(good)
}

/// A voucher changed after it was signed, with the wrong secret, or without a signature.
fn bent(world: &mut World, at: usize, side: u32) -> Option<Move> {
    let others = |p: &crate::channels::Promise| p.signed.signer != side;
    let mut all: Vec<usize> = (0..world.channels.list[at].promises.len()).collect();
    all.retain(|i| others(&world.channels.list[at].promises[*i]));
    let time = now(world);
    let locks = |i: &usize| {
        let p = &world.channels.list[at].promises[*i];
        p.secret.is_some() && p.terms.not_after_ms > time + 100_000
    };
    let lock = all.iter().any(locks);
    if lock {
        all.retain(locks);
    }
    let i = *all.get(world.rng.index(all.len().max(1)))?;
    let mut one = redemption(world, at, side, i, false);
    let mut signed = one.voucher.take()?;
    let mut terms = world.channels.list[at].promises[i].terms.clone();
    match if lock { world.rng.between(5, 8) } else { world.rng.below(9) } {
        0 => terms.amount += 100,
        1 => terms.nonce += 1_000,
        2 => terms.payer = 1 - terms.payer,
        3 => terms.lane += 1,
        4 => {
            let other = world.rng.index(world.channels.list.len());
            terms.channel = id(world, other);
        }
        5 => signed.signatures.clear(),
        6 | 7 => one.secret = Bytes::from(vec![7; world.rng.between(1, 70) as usize]),
        _ => {
            let signature = signed.signatures.first()?.clone();
            // The key's kind stays: else no authority votes for it.
            let tail = flip(world, &signature.slice(2..));
            signed.signatures = vec![[&signature[..2], &tail[..]].concat().into()];
        }
    }
    signed.voucher = prost::Message::encode_to_vec(&terms).into();
    one.voucher = Some(signed);
    world.fault("vouchers changed");
    redeem(at, vec![one])
}

/// A voucher that must not be signed like that, with the other's true signature or with the own one in its place.
fn odd(world: &mut World, at: usize, side: u32) -> Option<Move> {
    let other = 1 - side;
    let channel = id(world, at);
    let (lane, nonce, amount) = (world.rng.below(6) as u32, 1_000_000, 5);
    let mut terms = wire::Voucher { channel, payer: other, lane, nonce, amount, ..Default::default() };
    let merge = |lane, nonce| wire::LaneMerge { lane, nonce };
    let mut signer = other;
    // What would be good in a two-way channel the other would not sign.
    match world.rng.below(if world.channels.list[at].two_way { 7 } else { 9 }) {
        0 => terms.amount = 1 << 63,
        1 => terms.lane = 1_024,
        2 => terms.merges = vec![merge(lane, 5)],
        3 => terms.merges = vec![merge(900, 5)],
        4 => {
            let known = |l: &u32| *l != lane && record(world, at).is_some_and(|r| r.lane(other, *l).is_some());
            terms.merges = vec![merge((0..6).find(known)?, 0)];
        }
        5 => terms.not_before_ms = now(world) + 90_000_000,
        6 => terms.not_after_ms = now(world).saturating_sub(1_000).max(1),
        7 => terms.amount = 1 << 40,
        _ => signer = side,
    }
    let key = world.channels.list[at].sides[signer as usize].key.clone();
    let signed = wire::SignedVoucher { signer: other, ..sign(world, terms, signer, &key) };
    world.fault("odd vouchers");
    redeem(at, vec![wire::Redemption { voucher: Some(signed), ..Default::default() }])
}

/// Takes out what it may not: too early, too much, with a permit of its own or one that it has used.
fn takes_out(world: &mut World, at: usize, side: u32) -> Option<Move> {
    let channel = id(world, at);
    let to = *world.channels.list[at].sides[side as usize].address.as_bytes();
    let r = record(world, at)?;
    let withdrawn = u64::try_from(r.sides[side as usize].withdrawn).ok()?;
    let share = u64::try_from(r.share(side)).ok()?;
    let due = r.sides[side as usize].leaving.filter(|(_, due)| now(world) >= *due);
    let key = |of: u32| world.channels.list[at].sides[of as usize].key.clone();
    let (own, others) = (key(side), key(1 - side));
    let permit = |side, upto| wire::WithdrawPermit { channel: channel.clone(), side, withdrawn: upto, not_after_ms: 0 };
    let amount = share.clamp(1, 40);
    let (amount, permit) = match (due, world.rng.below(6)) {
        // What it has announced, with all that it was not its own.
        (Some((most, _)), 0..4) => (most.min(share).max(1), None),
        (_, 0) => (amount, None),
        (_, 1) => (amount, Some(withdraw_permit(world, &permit(side, withdrawn + amount), &own))),
        (_, 2) => {
            // The other's word, for less.
            let permit = permit(side, withdrawn + amount - 1);
            (amount, Some(withdraw_permit(world, &permit, &others)))
        }
        (_, 3) => (amount, Some(withdraw_permit(world, &permit(1 - side, withdrawn + amount), &others))),
        (_, 4) => {
            let late = wire::WithdrawPermit { not_after_ms: 1, ..permit(side, withdrawn + amount) };
            (amount, Some(withdraw_permit(world, &late, &others)))
        }
        _ => {
            let elsewhere = world.rng.index(world.channels.list.len());
            let known = world.channels.list[elsewhere].sides.iter().flat_map(|s| &s.permits).next();
            (amount, Some(known?.signed.clone()))
        }
    };
    world.fault("withdrawals that are not due");
    let withdraw = wire::ChannelWithdraw { channel, redemptions: Vec::new(), permit };
    Some(Move::withdraw(at, amount, withdraw, &to))
}

fn is_collected(world: &World, at: usize) -> bool {
    record(world, at).is_some_and(|r| r.collected)
}

/// Somebody operates on a channel of others; what anyone may do, too.
pub fn meddles(world: &mut World, party: usize) -> Option<Move> {
    let strange = |at: &usize| world.channels.list[*at].sides.iter().all(|s| s.party != party);
    let all: Vec<usize> = (0..world.channels.list.len()).filter(strange).collect();
    if all.is_empty() {
        return None;
    }
    let at = all[world.rng.index(all.len())];
    let side = world.rng.below(2) as u32;
    let address = *world.channels.parties[party].0.as_bytes();
    let order = match world.rng.below(8) {
        0 => moves::settle(world, at),
        1 => moves::leave(world, at, 10),
        2 => {
            let permission = world.channels.parties[party].1.clone();
            let keys = wire::ChannelKeys { channel: id(world, at), permission };
            Move::of(at, output::Kind::ChannelKeys(keys))
        }
        3 | 4 if !world.channels.list[at].promises.is_empty() => {
            let any = world.rng.index(world.channels.list[at].promises.len());
            let i = usable(world, at, side, 0).last().copied().unwrap_or(any);
            // With the watcher's permit, if there is one and it is somebody else's.
            let one = redemption(world, at, side, i, party != PARTIES - 1);
            return redeem(at, vec![one]);
        }
        5 => {
            let withdraw = wire::ChannelWithdraw { channel: id(world, at), ..Default::default() };
            Move::withdraw(at, 5, withdraw, &address)
        }
        _ => {
            let over = |at: &usize| record(world, *at).is_some_and(|r| r.end_ms.is_some_and(|end| now(world) >= end));
            moves::collect(world, all.iter().copied().find(|at| over(at) && !is_collected(world, *at)).unwrap_or(at))
        }
    };
    world.fault("strangers in channels");
    Some(order)
}
