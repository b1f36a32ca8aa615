//! Users who take what they can get: old vouchers, locks that they gave back, secrets at the last moment, silence, forged and repeated
//! messages, false greetings, cheap routes.

use std::collections::BTreeSet;

use bytes::Bytes;
use florin_core::channel::hub::Pay;
use florin_core::channel::manager::{self, EndId, Message};
use florin_core::channel::voucher::{self, Voucher};
use florin_core::merkle::{Hash, Tree};
use florin_core::wire::hub_message::Kind;
use florin_core::wire::{self, HubLane, HubMessage, VirtualAmount, output};

use super::node::{Manner, Wish};
use super::virtual_deeds::bytes;
use super::virtual_world::SentSet;
use super::world::{MUTABLE, Mail, World};
use crate::rng::Rng;

/// A liar does something.
pub fn act(world: &mut World) {
    let liars: Vec<usize> =
        (0..world.nodes.len()).filter(|i| world.nodes[*i].manner == Manner::Liar && world.nodes[*i].is_up()).collect();
    if liars.is_empty() {
        return;
    }
    let liar = liars[world.rng.index(liars.len())];
    let ends: Vec<EndId> = world.nodes[liar].ends.keys().copied().collect();
    let Some(end) = ends.first().map(|_| ends[world.rng.index(ends.len())]) else { return };
    match world.rng.below(14) {
        0..3 => mute(world, liar),
        3 => false_hello(world, liar, end),
        4 => again(world),
        5 | 6 => grab(world),
        7 => last_moment(world),
        8 => gives_back_and_takes(world),
        9 => forge(world, liar, end),
        10 | 11 => take_set(world),
        12 => {
            let amount = world.rng.between(1, 10_000);
            drop(world.channel(liar, manager::Input::Leave { end, amount }, Wish::None));
            world.flush(liar);
        }
        _ => {
            if world.rng.chance(300) {
                drop(world.channel(liar, manager::Input::Settle(end), Wish::None));
                world.flush(liar);
                world.mark("settled by a liar");
            }
        }
    }
}

/// It keeps some kinds of messages to itself from now on, or none.
fn mute(world: &mut World, liar: usize) {
    let muted: BTreeSet<u8> = MUTABLE.into_iter().filter(|_| world.rng.chance(400)).collect();
    world.muted.insert(liar, muted);
}

fn says(world: &mut World, end: EndId, kind: Kind) {
    let message = HubMessage { channel: Bytes::copy_from_slice(&end.channel), kind: Some(kind) };
    if let Some(link) = world.links.get_mut(&end.channel).filter(|link| link.up) {
        link.mail[1 - end.side as usize].push_back(Mail::Hub(Box::new(message)));
    }
}

/// It claims to hold what nobody has signed.
fn false_hello(world: &mut World, liar: usize, end: EndId) {
    let mut lanes: Vec<HubLane> = world.nodes[liar]
        .manager
        .held_nonces(&end)
        .unwrap_or_default()
        .into_iter()
        .map(|(payer, lane, nonce)| HubLane { payer, lane, nonce })
        .collect();
    match world.rng.below(3) {
        0 => lanes.push(HubLane {
            payer: 1 - end.side,
            lane: world.rng.below(8) as u32,
            nonce: world.rng.between(1, 100),
        }),
        1 => lanes.iter_mut().for_each(|lane| lane.nonce += 1),
        _ => lanes.clear(),
    }
    says(world, end, Kind::Hello(wire::HubHello { lanes }));
    world.mark("false greeting");
}

/// A message that was sent before.
fn again(world: &mut World) {
    if world.sent_by_liars.is_empty() {
        return;
    }
    let at = world.rng.index(world.sent_by_liars.len());
    let (channel, to, message) = world.sent_by_liars[at].clone();
    if let Some(link) = world.links.get_mut(&channel).filter(|link| link.up) {
        link.mail[to as usize].push_back(message);
        world.mark("message of a liar once more");
    }
}

/// A lock that it was offered, with a secret of its own.
fn own_lock(world: &mut World) -> Option<(usize, Voucher, Hash)> {
    if world.offers.is_empty() {
        return None;
    }
    let at = world.rng.index(world.offers.len());
    let (node, signed) = world.offers[at].clone();
    let voucher = Voucher::decode(&signed).ok()?;
    let hash = Hash::try_from(&voucher.terms.secret_hash[..]).ok()?;
    let secret = *world.secrets.get(&hash)?;
    // Only the payee knows it.
    let invoiced = world.nodes[node].knows_invoice(&hash);
    invoiced.then_some((node, voucher, secret))
}

/// It redeems a lock in the log, whatever it has said since.
pub fn grab(world: &mut World) {
    if let Some((node, voucher, secret)) = own_lock(world) {
        redeem(world, node, &voucher, &secret);
    }
}

/// The same at the last moment, or right after it.
fn last_moment(world: &mut World) {
    let Some((node, voucher, secret)) = own_lock(world) else { return };
    let limit = voucher.terms.not_after_ms;
    let to = limit - world.rng.below(2) * world.rng.below(5_000) + world.rng.below(2);
    if to <= world.time() {
        return;
    }
    // Its hub hears nothing of it before.
    world.muted.insert(node, MUTABLE.into_iter().collect());
    world.pass(to);
    redeem(world, node, &voucher, &secret);
}

/// It signs a lock back that it has the secret of: later it redeems it all the same.
fn gives_back_and_takes(world: &mut World) {
    let Some((node, voucher, _)) = own_lock(world) else { return };
    let terms = &voucher.terms;
    let end = EndId { channel: Hash::try_from(&terms.channel[..]).unwrap_or_default(), side: 1 - terms.payer };
    let Ok(view) = world.nodes[node].manager.paid_lane(&end, terms.lane) else { return };
    let held = view.lock.is_some_and(|lock| lock.nonce == terms.nonce);
    if !held {
        return;
    }
    let back = wire::Voucher {
        channel: terms.channel.clone(),
        payer: terms.payer,
        lane: terms.lane,
        nonce: terms.nonce + 1,
        amount: view.paid,
        ..Default::default()
    };
    let back = Voucher::sign(back, end.side, &[&world.nodes[node].key.0]).signed();
    let lock = Some(HubLane { payer: terms.payer, lane: terms.lane, nonce: terms.nonce });
    let code = florin_core::Code::InvoiceOver as u32;
    world.muted.insert(node, MUTABLE.into_iter().collect());
    world.given_back.insert((node, end.channel, terms.lane, terms.nonce));
    says(world, end, Kind::Refused(wire::HubRefused { lock, code, message: String::new(), voucher: Some(back) }));
    world.mark("lock given back by a liar who has its secret");
}

fn redeem(world: &mut World, node: usize, voucher: &Voucher, secret: &[u8]) {
    if !world.nodes[node].is_up() {
        return;
    }
    let channel = Hash::try_from(&voucher.terms.channel[..]).unwrap_or_default();
    let place = (node, channel, voucher.terms.lane, voucher.terms.nonce);
    let gave_back = world.given_back.contains(&place);
    let redemption =
        wire::Redemption { voucher: Some(voucher.signed()), secret: Bytes::copy_from_slice(secret), watch: None };
    let all = wire::ChannelRedeem { redemptions: vec![redemption], claims: Vec::new() };
    let Some(decided) = orders(world, node, output::Kind::ChannelRedeem(all)) else { return };
    match decided {
        None if gave_back => world.mark("cancelled lock redeemed all the same"),
        None => world.mark("lock redeemed by a liar"),
        Some(code) if code == florin_core::Code::VoucherExpired as u32 => world.mark("redeemed too late, and refused"),
        Some(_) => world.mark("redemption of a liar refused"),
    }
}

/// It redeems a set that it was sent, perhaps long given up, and claims of it what its payers have signed: one that helps it
/// signs whatever it wants.
fn take_set(world: &mut World) {
    if world.sent_sets.is_empty() {
        return;
    }
    let at = world.rng.index(world.sent_sets.len());
    let one = world.sent_sets[at].clone();
    redeem_set(world, &one);
}

fn redeem_set(world: &mut World, one: &SentSet) {
    let SentSet { node, end, voucher, state } = one;
    let Ok(terms) = Voucher::decode(voucher).map(|voucher| voucher.terms) else { return };
    if !world.nodes[*node].is_up() {
        return;
    }
    let hashes: Vec<Hash> = state.leaves.values().map(voucher::virtual_leaf).collect();
    let mut claims = Vec::new();
    for (index, (about, cap)) in state.leaves.iter().enumerate() {
        if world.rng.chance(300) || cap.not_after_ms < world.time() {
            continue;
        }
        let Some((payer, _)) = world.parties.get(about).copied() else { continue };
        let amount = match world.nodes[payer].manner {
            Manner::Liar => {
                let amount = VirtualAmount { id: bytes(about), amount: world.rng.between(1, cap.cap) };
                Some(voucher::sign_virtual(&amount, &[&world.nodes[payer].key.0]))
            }
            _ => world.nodes[*node].durable.sets.best.get(about).map(|(_, signed)| signed.clone()),
        };
        let Some(amount) = amount else { continue };
        let path = Tree::new(&hashes).path(index);
        claims.push(wire::VirtualClaim {
            channel: terms.channel.clone(),
            payer: terms.payer,
            lane: terms.lane,
            cap: Some(cap.clone()),
            index: index as u32,
            path: path.iter().map(bytes).collect(),
            amount: Some(amount),
            watch: None,
        });
    }
    claims.truncate(4);
    let record = world.ledger.record(&end.channel);
    let known = record.is_some_and(|record| {
        let lanes = &record.lanes;
        lanes.iter().any(|lane| (lane.payer, lane.lane, lane.nonce) == (terms.payer, terms.lane, terms.nonce))
    });
    let redemption = wire::Redemption { voucher: Some(voucher.clone()), ..Default::default() };
    let redemptions = if known { Vec::new() } else { vec![redemption] };
    if redemptions.is_empty() && claims.is_empty() {
        return;
    }
    let old = world.nodes[*node].durable.sets.ins.get(&(*end, terms.lane)).and_then(|all| all.last());
    let given_up = old.is_some_and(|newest| newest.nonce > terms.nonce);
    let claimed = !claims.is_empty();
    let all = wire::ChannelRedeem { redemptions, claims };
    match orders(world, *node, output::Kind::ChannelRedeem(all)) {
        Some(None) if given_up && claimed => world.mark("set that was given up claimed all the same"),
        Some(None) => world.mark("set redeemed by a liar"),
        Some(Some(_)) => world.mark("set of a liar refused"),
        None => {}
    }
}

/// An order of its own making is ordered at once. What it failed with, if it did.
fn orders(world: &mut World, node: usize, kind: output::Kind) -> Option<Option<u32>> {
    world.flush(node);
    let account = world.nodes[node].account;
    let message = Message { account, inputs: Vec::new(), outputs: vec![kind] };
    let after = world.nodes[node].tip(world.ledger.tip(account.actor()));
    let (id, body, tip) = world.ledger.draft(&message, after);
    world.nodes[node].advance(tip);
    let now = world.time();
    world.ledger.submit(&body, now);
    world.order(|due| due <= now);
    world.ledger.decided(&id).map(|decided| decided.as_ref().map(|(code, _)| *code))
}

/// An offer of vouchers that no manager would sign, or an unconditional one for less.
fn forge(world: &mut World, liar: usize, end: EndId) {
    let Ok(status) = world.nodes[liar].manager.status(&end) else { return };
    let lane = world.rng.below(6) as u32;
    let Ok(view) = world.nodes[liar].manager.out_lane(&end, lane) else { return };
    let now = world.time();
    let mut terms = wire::Voucher {
        channel: Bytes::copy_from_slice(&end.channel),
        payer: end.side,
        lane,
        nonce: view.nonce + world.rng.below(3),
        amount: view.paid + world.rng.between(0, 2 * status.available.max(1)),
        ..Default::default()
    };
    let known = world.secrets.keys().next().copied().unwrap_or_default();
    match world.rng.below(3) {
        0 => terms.amount = view.paid,
        _ => {
            terms.secret_hash = Bytes::copy_from_slice(&known);
            terms.not_after_ms = now + world.rng.below(10 * 3_600_000);
        }
    }
    let plain = terms.secret_hash.is_empty();
    let voucher = Voucher::sign(terms, end.side, &[&world.nodes[liar].key.0]).signed();
    let kind = match plain {
        true => Kind::Paid(voucher),
        false => Kind::Offer(wire::HubOffer { voucher: Some(voucher), fee: None, hops: Vec::new() }),
    };
    says(world, end, kind);
    world.mark("forged voucher");
}

/// Some payers try to get it cheaper, or with other time limits.
pub fn bend(rng: &mut Rng, pay: &mut Pay) {
    let Some(hop) = pay.route.hops.first_mut() else { return };
    match rng.below(8) {
        0 => pay.route.amount = hop.amount,
        1 => pay.route.not_after_ms -= rng.between(1, 1_200_000),
        2 => hop.not_after_ms += rng.between(1, 1_800_000),
        3 => pay.route.upfront = 0,
        4 => {
            // As far as anybody lets it.
            let more = rng.between(0, 6 * 3_600_000);
            hop.not_after_ms += more;
            pay.route.not_after_ms += more;
        }
        _ => {}
    }
}

/// At the end each liar redeems whatever it was ever offered, and old vouchers of what it holds.
pub fn old_states(world: &mut World) {
    for at in 0..world.offers.len().min(4) {
        let (node, signed) = world.offers[at].clone();
        let Ok(voucher) = Voucher::decode(&signed) else { continue };
        let hash = Hash::try_from(&voucher.terms.secret_hash[..]).unwrap_or_default();
        let secret = world.secrets.get(&hash).copied().unwrap_or_default();
        redeem(world, node, &voucher, &secret);
    }
    for _ in 0..3 {
        take_set(world);
    }
}
