//! What is signed outside of the log: vouchers in several lanes, locks, what turns them into plain vouchers or gives them
//! back, merges, and permits.

use std::sync::Arc;

use bytes::Bytes;
use florin_core::channel::voucher::{Voucher, sign_watch, sign_withdraw};
use florin_core::wire;
use sha2::{Digest, Sha256};

use super::{Lane, Manner, PARTIES, Permit, Promise, cover, is_live, now, record};
use crate::Shell;
use crate::checkers::channels::Paper;
use crate::world::World;

/// Lanes that a side uses.
const LANES: u64 = 4;

/// Signs terms for a side and gives them to the other.
fn give(world: &mut World, at: usize, terms: wire::Voucher, signer: u32, secret: Option<[u8; 32]>) {
    let channel = &mut world.channels.list[at];
    let key = channel.sides[signer as usize].key.clone();
    let signed = sign(world, terms.clone(), signer, &key);
    let channel = &mut world.channels.list[at];
    world.checks.log.channels_mut().vouchers.promised(channel.id, &terms, signer);
    channel.promises.push(Promise { terms, signed, secret, known: false, dead: false, sent: false });
}

/// Signs terms, and tells nobody but those who check signatures.
pub fn sign(
    world: &mut World,
    terms: wire::Voucher,
    signer: u32,
    key: &Arc<florin_core::keys::SecretKey>,
) -> wire::SignedVoucher {
    let voucher = Voucher::sign(terms, signer, &[key]);
    let vouchers = &mut world.checks.log.channels_mut().vouchers;
    vouchers.signed(Paper::Voucher, &voucher.bytes, &voucher.signatures, key.public().as_bytes());
    voucher.signed()
}

/// Whether a side has keys in the log, and the channel goes on.
fn signs(world: &World, at: usize, side: u32) -> bool {
    let said = record(world, at).is_some_and(|r| !r.sides[side as usize].permission.is_empty() && r.end_ms.is_none());
    said && is_live(world, at)
}

/// Lanes in which the log has done, or time has, what they waited for.
fn free_lanes(world: &mut World, at: usize, payer: u32) {
    let time = now(world);
    let World { channels, checks, .. } = world;
    let channel = &mut channels.list[at];
    let Some(r) = checks.log.channels().get(&channel.id) else { return };
    for (number, lane) in &mut channel.lanes[payer as usize] {
        if let Some((by, nonce)) = lane.merging
            && r.lane(payer, by).is_some_and(|(_, has)| has >= nonce)
        {
            lane.merging = None;
        }
        let Some(lock) = lane.lock.map(|i| &channel.promises[i].terms) else { continue };
        if r.lane(payer, *number).is_some_and(|(_, nonce)| nonce >= lock.nonce) {
            (lane.agreed, lane.lock) = (lock.amount, None);
        } else if lock.not_after_ms < time {
            lane.lock = None;
        }
    }
}

/// A payment from one side to the other, if that one could be sure of it.
pub fn pay(world: &mut World, at: usize, payer: u32) {
    let channel = &world.channels.list[at];
    if payer == 1 && !channel.two_way || !signs(world, at, payer) {
        return;
    }
    free_lanes(world, at, payer);
    let covered = u64::try_from(cover(world, at, 1 - payer)).unwrap_or(0);
    let amount = world.rng.between(1, 30).min(covered);
    let number = world.rng.below(LANES) as u32;
    let channel = &mut world.channels.list[at];
    let lane = channel.lanes[payer as usize].entry(number).or_default();
    if amount == 0 || lane.lock.is_some() || lane.merging.is_some() {
        return;
    }
    let mut terms = wire::Voucher {
        channel: Bytes::copy_from_slice(&channel.id),
        payer,
        lane: number,
        nonce: lane.nonce + world.rng.between(1, 3),
        amount: lane.agreed + amount,
        ..Default::default()
    };
    lane.nonce = terms.nonce;
    match world.rng.below(10) {
        0 | 1 => {
            let secret = world.rng.bytes();
            terms.secret_hash = Bytes::copy_from_slice(&Sha256::digest(secret));
            terms.not_after_ms = world.checks.log.time_ms() + world.rng.between(20_000, 900_000);
            lane.lock = Some(channel.promises.len());
            give(world, at, terms, payer, Some(secret));
        }
        2 => {
            terms.not_before_ms = world.checks.log.time_ms() + world.rng.between(1_000, 300_000);
            lane.agreed = terms.amount;
            give(world, at, terms, payer, None);
        }
        3 | 4 => merge(world, at, terms),
        _ => {
            lane.agreed = terms.amount;
            give(world, at, terms, payer, None);
        }
    }
}

/// The same, with other lanes in it, of which something was redeemed. Until it is redeemed the payer uses none of
/// them: a later voucher without the merge would pay what the others hold once more.
fn merge(world: &mut World, at: usize, mut terms: wire::Voucher) {
    let (payer, number, nonce) = (terms.payer, terms.lane, terms.nonce);
    let World { channels, checks, .. } = world;
    let channel = &mut channels.list[at];
    let Some(r) = checks.log.channels().get(&channel.id) else { return };
    let lanes = &mut channel.lanes[payer as usize];
    for (other, lane) in lanes.iter_mut() {
        let idle = *other != number && lane.lock.is_none() && lane.merging.is_none();
        if idle && r.lane(payer, *other).is_some() {
            terms.amount += lane.agreed;
            (lane.nonce, lane.agreed, lane.merging) = (lane.nonce + 1, 0, Some((number, nonce)));
            terms.merges.push(wire::LaneMerge { lane: *other, nonce: lane.nonce });
        }
    }
    let lane = lanes.entry(number).or_default();
    lane.agreed = terms.amount;
    if !terms.merges.is_empty() {
        lane.merging = Some((number, nonce));
    }
    give(world, at, terms, payer, None);
}

/// What becomes of open locks: their payee learns the secret, they are turned into plain vouchers, or given back.
pub fn locks(world: &mut World, at: usize, payer: u32) {
    free_lanes(world, at, payer);
    let open = |l: (&u32, &Lane)| l.1.lock.map(|i| (*l.0, i));
    let all: Vec<(u32, usize)> = world.channels.list[at].lanes[payer as usize].iter().filter_map(open).collect();
    for (number, i) in all {
        let promise = &mut world.channels.list[at].promises[i];
        if !promise.known {
            promise.known = world.rng.chance(400);
        }
        let (known, sent, lock) = (promise.known, promise.sent, promise.terms.clone());
        let manner = world.channels.list[at].sides[1 - payer as usize].manner;
        let plain = wire::Voucher { nonce: lock.nonce + 1, secret_hash: Bytes::new(), not_after_ms: 0, ..lock };
        if known && world.rng.chance(150) && signs(world, at, payer) {
            let lane = world.channels.list[at].lanes[payer as usize].entry(number).or_default();
            (lane.nonce, lane.agreed, lane.lock) = (plain.nonce, plain.amount, None);
            give(world, at, plain, payer, None);
        } else if !sent
            && signs(world, at, 1 - payer)
            && world.rng.chance(if manner == Manner::Cheat { 500 } else { 100 })
        {
            let channel = &mut world.channels.list[at];
            channel.promises[i].dead = true;
            // Who means to take it all the same finds out.
            channel.promises[i].known |= manner == Manner::Cheat;
            let lane = channel.lanes[payer as usize].entry(number).or_default();
            (lane.nonce, lane.lock) = (plain.nonce, None);
            let back = wire::Voucher { amount: lane.agreed, ..plain };
            give(world, at, back, 1 - payer, None);
        }
    }
}

/// The other side lets a side take something out, as long as it keeps what it has to get itself.
pub fn permit(world: &mut World, at: usize, side: u32) {
    let signer = 1 - side;
    let Some((withdrawn, share, leaving)) = record(world, at).map(|r| {
        let own = &r.sides[side as usize];
        (own.withdrawn, r.share(side), own.leaving.map_or(0, |(amount, _)| i128::from(amount)))
    }) else {
        return;
    };
    let channel = &world.channels.list[at];
    let careless = world.options.shell == Shell::CarelessSides;
    let free = if channel.sides[signer as usize].manner == Manner::Cheat || careless {
        // What it would lose is its own affair.
        share
    } else {
        let held = record(world, at).map_or(0, |r| r.held());
        held - leaving - world.checks.log.channels().claims(&channel.id, signer).max(0)
    };
    let Some(most) = u64::try_from(free).ok().filter(|most| *most > 0 && signs(world, at, signer)) else { return };
    let upto = withdrawn as u64 + world.rng.between(1, most);
    let not_after_ms = if world.rng.chance(300) { now(world) + world.rng.between(5_000, 400_000) } else { 0 };
    let channel = &world.channels.list[at];
    let id = Bytes::copy_from_slice(&channel.id);
    let permit = wire::WithdrawPermit { channel: id, side, withdrawn: upto, not_after_ms };
    let key = channel.sides[signer as usize].key.clone();
    let signed = withdraw_permit(world, &permit, &key);
    world.channels.list[at].sides[side as usize].permits.push(Permit {
        signed,
        upto,
        until_ms: not_after_ms,
        used: false,
    });
}

/// Signs a permit to withdraw, and tells nobody but those who check signatures.
pub fn withdraw_permit(
    world: &mut World,
    permit: &wire::WithdrawPermit,
    key: &Arc<florin_core::keys::SecretKey>,
) -> wire::SignedPermit {
    let signed = sign_withdraw(permit, &[key]);
    let vouchers = &mut world.checks.log.channels_mut().vouchers;
    vouchers.signed(Paper::Withdraw, &signed.permit, &signed.signatures, key.public().as_bytes());
    signed
}

/// A side that will be away names a watcher.
pub fn name_watcher(world: &mut World, at: usize, side: u32) {
    let watcher = Bytes::copy_from_slice(world.channels.parties[PARTIES - 1].0.as_bytes());
    let channel = &world.channels.list[at];
    let permit = wire::WatchPermit { channel: Bytes::copy_from_slice(&channel.id), side, watcher };
    let key = channel.sides[side as usize].key.clone();
    let signed = sign_watch(&permit, &[&key]);
    let vouchers = &mut world.checks.log.channels_mut().vouchers;
    vouchers.signed(Paper::Watch, &signed.permit, &signed.signatures, key.public().as_bytes());
    world.channels.list[at].sides[side as usize].watch = Some(signed);
}
