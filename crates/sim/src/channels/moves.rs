//! What a party does with its channels in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use florin_core::permission::Permission;
use florin_core::wire::{self, input, output};

use super::{Channel, Manner, PARTIES, Side, cover, is_live, now, record, usable};
use crate::client::new_key;
use crate::world::World;

/// Vouchers of one order, as far as its content takes them.
const VOUCHERS_MAX: usize = 18;
/// Time that a voucher should have left when it goes out, ms of log time.
const MARGIN_MS: u64 = 150_000;

/// An order to be.
#[derive(Default)]
pub struct Move {
    /// As they stand in it.
    pub inputs: Vec<wire::Input>,
    /// As they stand in it.
    pub outputs: Vec<output::Kind>,
    /// What the account is debited, minor units.
    pub debit: u64,
    /// Channels that it is about: until it is decided nothing else is done with them.
    pub busy: BTreeSet<usize>,
    /// Sides of channels of which it redeems all that there is.
    pub stands: Vec<(usize, u32)>,
    /// The channel that its first output opens, without its id.
    pub opens: Option<Box<Channel>>,
}

impl Move {
    /// One output about one channel.
    pub fn of(at: usize, kind: output::Kind) -> Move {
        Move { outputs: vec![kind], busy: BTreeSet::from([at]), ..Move::default() }
    }

    /// Takes money out to an address.
    pub fn withdraw(at: usize, amount: u64, withdraw: wire::ChannelWithdraw, to: &[u8]) -> Move {
        let input = wire::Input { amount, kind: Some(input::Kind::ChannelWithdraw(withdraw)) };
        let credit = wire::Credit { address: Bytes::copy_from_slice(to), amount };
        Move { inputs: vec![input], ..Move::of(at, output::Kind::Credit(credit)) }
    }
}

/// The id of a channel, as it stands in orders.
pub fn id(world: &World, at: usize) -> Bytes {
    Bytes::copy_from_slice(&world.channels.list[at].id)
}

/// Ends a channel.
pub fn settle(world: &World, at: usize) -> Move {
    Move::of(at, output::Kind::ChannelSettle(wire::ChannelSettle { channel: id(world, at) }))
}

/// Pays it out.
pub fn collect(world: &World, at: usize) -> Move {
    Move::of(at, output::Kind::ChannelCollect(wire::ChannelCollect { channel: id(world, at) }))
}

/// Announces a withdrawal.
pub fn leave(world: &World, at: usize, amount: u64) -> Move {
    Move::of(at, output::Kind::ChannelLeave(wire::ChannelLeave { channel: id(world, at), amount }))
}

/// Channels of which a party is a side, and which.
pub fn own(world: &World, party: usize) -> Vec<(usize, u32)> {
    let sides = |(at, c): (usize, &Channel)| {
        (0..2_u32).filter(|s| c.sides[*s as usize].party == party).map(|s| (at, s)).collect::<Vec<_>>()
    };
    world.channels.list.iter().enumerate().flat_map(sides).collect()
}

/// A voucher as an order redeems it.
pub fn redemption(world: &mut World, at: usize, side: u32, i: usize, watches: bool) -> wire::Redemption {
    let channel = &mut world.channels.list[at];
    let watch = if watches { channel.sides[side as usize].watch.clone() } else { None };
    let promise = &mut channel.promises[i];
    promise.sent = true;
    let secret = promise.secret.filter(|_| promise.known && !promise.terms.secret_hash.is_empty());
    let secret = secret.map_or(Bytes::new(), |s| Bytes::copy_from_slice(&s));
    wire::Redemption { voucher: Some(promise.signed.clone()), secret, watch }
}

/// Redeems what a side has where its money could go, now and then elsewhere, too.
pub fn defend(world: &mut World, party: usize, busy: &BTreeSet<usize>) -> Option<Move> {
    let watcher = party == PARTIES - 1;
    let mut order = Move::default();
    let mut redemptions = Vec::new();
    for at in (0..world.channels.list.len()).filter(|at| !busy.contains(at)) {
        for side in 0..2_u32 {
            let own = &world.channels.list[at].sides[side as usize];
            let mine = own.party == party && own.manner == Manner::Watchful;
            if !(mine || watcher && own.watch.is_some()) || !is_live(world, at) {
                continue;
            }
            let picky = own.picky;
            let other = 1 - side as usize;
            let leaves = record(world, at).is_some_and(|r| r.end_ms.is_some() || r.sides[other].leaving.is_some());
            let pressed = leaves || is_cheated(world, at, side);
            // It may see it late, or think that there is time.
            let left = record(world, at).and_then(|r| r.end_ms).map(|end| end.saturating_sub(now(world)));
            let acts = match (world.calm, left) {
                (true, _) => 1_000,
                (_, Some(left)) if left > world.channels.list[at].delay_ms / 2 => 350,
                _ if pressed => 800,
                _ => 50,
            };
            if !world.rng.chance(acts) {
                continue;
            }
            let mut all = usable(world, at, side, MARGIN_MS);
            let whole = all.len();
            if picky && whole > 1 {
                all = vec![all[world.rng.index(whole)]];
            }
            if all.is_empty() || redemptions.len() + all.len() > VOUCHERS_MAX {
                continue;
            }
            if all.len() == whole {
                order.stands.push((at, side));
            }
            order.busy.insert(at);
            for i in all {
                redemptions.push(redemption(world, at, side, i, !mine));
            }
        }
    }
    if redemptions.is_empty() {
        return None;
    }
    order.outputs.push(output::Kind::ChannelRedeem(wire::ChannelRedeem { redemptions, claims: Vec::new() }));
    Some(order)
}

/// Whether the other side has redeemed what it has given back.
fn is_cheated(world: &World, at: usize, side: u32) -> bool {
    let Some(r) = record(world, at) else { return false };
    let lower = |i: usize| {
        let t = &world.channels.list[at].promises[i].terms;
        t.payer == side && r.lane(side, t.lane).is_some_and(|(amount, _)| amount > t.amount)
    };
    usable(world, at, side, MARGIN_MS).into_iter().any(lower)
}

/// Redeems some of what a side has: one voucher, or one after the other of each lane.
pub fn redeem(world: &mut World, at: usize, side: u32) -> Option<Move> {
    if !is_live(world, at) {
        return None;
    }
    let newest = usable(world, at, side, 0);
    let last = newest.last().copied()?;
    let chosen: Vec<usize> = if world.rng.chance(500) {
        vec![newest[world.rng.index(newest.len())]]
    } else {
        // Nonces rise within a lane, so older ones go first; what hangs on a time or a secret would stop the others.
        let r = record(world, at)?;
        let channel = &world.channels.list[at];
        let plain = |i: &usize| {
            let (p, t) = (&channel.promises[*i], &channel.promises[*i].terms);
            let news = r.lane(t.payer, t.lane).is_none_or(|(_, nonce)| t.nonce > nonce);
            p.signed.signer != side && !p.dead && news && t.secret_hash.is_empty() && t.not_before_ms <= now(world)
        };
        (0..=last).filter(plain).take(VOUCHERS_MAX).collect()
    };
    let redemptions: Vec<_> = chosen.into_iter().map(|i| redemption(world, at, side, i, false)).collect();
    if redemptions.is_empty() {
        return None;
    }
    Some(Move::of(at, output::Kind::ChannelRedeem(wire::ChannelRedeem { redemptions, claims: Vec::new() })))
}

/// Takes out what a permit allows, or what was announced and is due; sometimes into another channel.
pub fn withdraw(world: &mut World, at: usize, side: u32) -> Option<Move> {
    if !is_live(world, at) {
        return None;
    }
    let channel = id(world, at);
    let to = *world.channels.list[at].sides[side as usize].address.as_bytes();
    let (withdrawn, leaving, share) = record(world, at).map(|r| {
        let own = &r.sides[side as usize];
        (own.withdrawn, own.leaving, r.share(side))
    })?;
    let is_due = leaving.is_some_and(|(_, due)| due <= now(world));
    let permits = &mut world.channels.list[at].sides[side as usize].permits;
    // Mostly the newest, which says the most.
    let permit = permits.iter_mut().rev().find(|p| !p.used && !is_due).map(|p| {
        p.used = true;
        (p.signed.clone(), p.upto)
    });
    let (amount, withdraw) = match permit {
        Some((signed, upto)) => {
            let all = usable(world, at, side, MARGIN_MS);
            let both = share < i128::from(upto) - withdrawn && all.len() <= VOUCHERS_MAX;
            let all = if both { all } else { Vec::new() };
            let redemptions: Vec<_> = all.into_iter().map(|i| redemption(world, at, side, i, false)).collect();
            let amount = i128::from(upto) - withdrawn;
            (amount, wire::ChannelWithdraw { channel, redemptions, permit: Some(signed) })
        }
        None => {
            let (most, due) = leaving?;
            // Mostly when it is due.
            if due > now(world) && !world.rng.chance(250) {
                return None;
            }
            let amount = i128::from(most).min(share);
            (amount, wire::ChannelWithdraw { channel, redemptions: Vec::new(), permit: None })
        }
    };
    let amount = u64::try_from(amount).ok().filter(|amount| *amount > 0)?;
    let mut order = Move::withdraw(at, amount, withdraw, &to);
    let others: Vec<usize> = (0..world.channels.list.len()).filter(|o| *o != at && is_live(world, *o)).collect();
    if !others.is_empty() && world.rng.chance(200) {
        let into = others[world.rng.index(others.len())];
        let side = world.rng.below(2) as u32;
        let deposit = wire::ChannelDeposit { channel: id(world, into), side, amount };
        order.outputs = vec![output::Kind::ChannelDeposit(deposit)];
    }
    Some(order)
}

/// Announces that a side takes out what is its own, by all that it has signed.
pub fn announce(world: &mut World, at: usize, side: u32) -> Option<Move> {
    let r = record(world, at).filter(|r| r.end_ms.is_none())?;
    if r.sides[side as usize].leaving.is_some() && world.rng.chance(500) {
        return Some(leave(world, at, 0));
    }
    let free = record(world, at)?.share(side).min(cover(world, at, 1 - side));
    let most = u64::try_from(free).ok().filter(|free| *free > 0)?;
    let amount = world.rng.between(1, most);
    Some(leave(world, at, amount))
}

/// Puts money in, for one side or the other.
pub fn deposit(world: &mut World, at: usize, available: i128) -> Option<Move> {
    record(world, at).filter(|r| r.end_ms.is_none())?;
    let amount = world.rng.between(1, u64::try_from(available).unwrap_or(0).clamp(1, 60));
    if i128::from(amount) > available {
        return None;
    }
    let side = world.rng.below(2) as u32;
    let deposit = wire::ChannelDeposit { channel: id(world, at), side, amount };
    Some(Move { debit: amount, ..Move::of(at, output::Kind::ChannelDeposit(deposit)) })
}

/// Says the keys that a side has not said before.
pub fn keys(world: &World, at: usize, side: u32) -> Option<Move> {
    record(world, at).filter(|r| r.end_ms.is_none() && r.sides[side as usize].permission.is_empty())?;
    let permission = world.channels.list[at].sides[side as usize].permission.clone();
    Some(Move::of(at, output::Kind::ChannelKeys(wire::ChannelKeys { channel: id(world, at), permission })))
}

/// Opens a channel between two parties; one that is neither of them opens it with the keys of their addresses alone.
pub fn open(world: &mut World, party: usize, available: i128) -> Option<Move> {
    let amount = world.rng.between(40, 250);
    if i128::from(amount) > available || !world.channels.allows_more() {
        return None;
    }
    let opener = if party == PARTIES - 1 { world.rng.index(PARTIES - 1) } else { party };
    let other = (opener + world.rng.between(1, PARTIES as u64 - 2) as usize) % (PARTIES - 1);
    let own_key = opener == party && world.rng.chance(500);
    let later = world.rng.chance(400);
    let sides = [side(world, opener, own_key), side(world, other, later)];
    let delay_ms = match world.rng.below(10) {
        0..3 => world.rng.between(2_000, 20_000),
        3..6 => world.rng.between(60_000, 200_000),
        _ => world.rng.between(200_000, 700_000),
    };
    let mut open = wire::ChannelOpen {
        opener: Bytes::copy_from_slice(sides[0].address.as_bytes()),
        other: Bytes::copy_from_slice(sides[1].address.as_bytes()),
        opener_permission: sides[0].permission.clone(),
        other_permission: if later { Bytes::new() } else { sides[1].permission.clone() },
        delay_ms,
        two_way: world.rng.chance(500),
        amount,
    };
    let two_way = open.two_way;
    let opens = if world.rng.chance(60) {
        // Somebody says keys that are not the other's.
        open.other_permission = Permission::single(new_key(&mut world.rng).public()).encode();
        None
    } else {
        let (promises, lanes) = (Vec::new(), [BTreeMap::new(), BTreeMap::new()]);
        Some(Box::new(Channel { id: [0; 32], sides, delay_ms, two_way, promises, lanes }))
    };
    Some(Move { outputs: vec![output::Kind::ChannelOpen(open)], debit: amount, opens, ..Move::default() })
}

fn side(world: &mut World, party: usize, new: bool) -> Side {
    let (address, permission, key) = world.channels.parties[party].clone();
    let (key, permission) = if new {
        let key = new_key(&mut world.rng);
        let permission = Permission::single(key.public()).encode();
        (Arc::new(key), permission)
    } else {
        (key, permission)
    };
    let manner = match world.rng.below(10) {
        0..5 => Manner::Watchful,
        5..7 => Manner::Absent,
        // Without attackers all are honest.
        _ if !world.options.attackers => Manner::Watchful,
        _ => Manner::Cheat,
    };
    Side { party, address, key, permission, manner, permits: Vec::new(), watch: None, picky: false }
}
