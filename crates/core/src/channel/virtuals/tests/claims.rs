//! When the payee of a lane claims in the log, what it does if the log refuses, and what it may not be told then.

use bytes::Bytes;

use super::sets::{direct, is_ack, is_update, nonce, open};
use super::world::*;
use crate::channel::manager;
use crate::channel::virtuals::{Effect, Input, VirtualId};
use crate::channel::voucher::{self, Voucher};
use crate::error::Code;
use crate::merkle::Tree;
use crate::wire::virtual_message::Kind;
use crate::wire::{self, output};

const HOUR: u64 = 60 * MINUTE;

/// Orders that a wallet makes now: what each claims. The log refuses them all.
fn tried(world: &mut World, node: usize) -> Vec<Vec<VirtualId>> {
    let now = world.now();
    let mut claims = Vec::new();
    let of = &mut world.nodes[node];
    of.handle(now, Input::Channel(Box::new(manager::Input::Tick))).unwrap();
    of.sync();
    let prepared: Vec<_> = of.effects.drain(..).collect();
    for effect in prepared {
        let Effect::Channel(manager::Effect::Prepare { op, message }) = effect else { continue };
        let redeems = message.outputs.iter().filter_map(|output| match output {
            output::Kind::ChannelRedeem(redeem) => Some(redeem),
            _ => None,
        });
        let of_order = redeems.flat_map(|redeem| &redeem.claims);
        claims.push(of_order.map(|one| VirtualId::try_from(&one.cap.as_ref().unwrap().id[..]).unwrap()).collect());
        let outcome = manager::Outcome::Failed { code: 1, message: String::new() };
        let input = manager::Input::Outcome { op, outcome };
        of.handle(now, Input::Channel(Box::new(input))).unwrap();
        of.sync();
        of.effects.clear();
    }
    claims
}

#[test]
fn what_the_log_refuses_is_claimed_again_one_by_one_in_turn() {
    let mut world = direct();
    let mut ids: Vec<_> = (0..3).map(|_| open(&mut world, 100, HOUR)).collect();
    let unpaid = open(&mut world, 100, HOUR);
    world.run();
    for id in &ids {
        world.pay(*id, 7);
    }
    ids.sort();
    let due = START + HOUR - world.nodes[HUB].config.claim_ms();
    world.log.now = due - 1;
    assert_eq!(tried(&mut world, HUB), [[[0; 32]; 0]; 0], "there is still time");
    world.log.now = due;
    assert_eq!(tried(&mut world, HUB), [ids.clone()]);
    let retry = world.nodes[HUB].config.policy.retry_ms;
    let mut turns = Vec::new();
    for _ in 0..5 {
        world.log.now += retry - 1;
        assert_eq!(tried(&mut world, HUB), [[[0; 32]; 0]; 0], "not yet");
        world.log.now += 1;
        turns.extend(tried(&mut world, HUB));
    }
    let one = |n: usize| vec![ids[n]];
    assert_eq!(turns, [one(1), one(2), one(0), one(1), one(2)], "each in its turn");
    assert!(!turns.contains(&vec![unpaid]));
    // When the log has news of the lane, all together again.
    let end = world.between(HUB, ALICE);
    let voucher = world.nodes[HUB].manager.virtual_lane(&end, 0, 0).unwrap().newest;
    let redemptions = vec![wire::Redemption { voucher, ..Default::default() }];
    let account = world.nodes[HUB].account;
    world
        .log
        .output(&output::Kind::ChannelRedeem(wire::ChannelRedeem { redemptions, claims: vec![] }), &account)
        .unwrap();
    let record = Box::new(world.log.channels[&end.channel].clone());
    let now = world.now();
    let seen = manager::Input::Seen { channel: end.channel, record, time_ms: now.log_ms };
    world.nodes[HUB].handle(now, Input::Channel(Box::new(seen))).unwrap();
    world.nodes[HUB].sync();
    let prepared = world.nodes[HUB].effects.iter().find_map(|effect| match effect {
        Effect::Channel(manager::Effect::Prepare { message, .. }) => Some(message.clone()),
        _ => None,
    });
    let Some(output::Kind::ChannelRedeem(redeem)) = prepared.unwrap().outputs.into_iter().next() else { panic!() };
    assert_eq!((redeem.claims.len(), redeem.redemptions.len()), (3, 0));
}

#[test]
fn nothing_is_claimed_where_nothing_was_paid_and_what_was_at_the_right_moment() {
    // A payee, without a hub.
    let mut world = direct();
    let (paid, unpaid) = (open(&mut world, 100, HOUR), open(&mut world, 100, HOUR));
    world.run();
    world.pay(paid, 7);
    let due = START + HOUR - world.nodes[HUB].config.claim_ms();
    for (now, in_log) in [(due - 1, 0), (due, 7)] {
        world.log.now = now;
        world.poll();
        assert_eq!(world.in_log(ALICE, HUB), in_log);
    }
    assert_eq!((world.status(HUB, &paid).brought, world.status(HUB, &unpaid).brought), (Some(7), None));
    // It was closed by its own claim: no payment counts any more.
    assert!(world.status(HUB, &paid).closing && !world.status(HUB, &unpaid).closing);
    // One that alone was never paid makes no order at all.
    let mut world = direct();
    open(&mut world, 100, HOUR);
    world.run();
    for now in [due, START + HOUR, START + HOUR + 1] {
        world.log.now = now;
        world.look(HUB);
        assert_eq!(world.nodes[HUB].manager.open_operations().count(), 0, "{now}");
    }
    // A hub: as soon as it knows what it costs, and may be away for its grace.
    let mut world = World::line();
    let id = world.start(1_000, 2 * HOUR);
    world.run();
    world.pay(id, 7);
    world.lose = |message| is_update(message) || is_ack(message);
    world.nodes[ALICE].down = true;
    world.log.now = START + 2 * HOUR - MINUTE;
    world.poll();
    world.poll();
    assert_eq!((world.in_log(HUB, BOB), world.status(HUB, &id).cost), (7, Some(7)));
    let limit = world.nodes[HUB].virtuals.channels[&id].inc.as_ref().unwrap().cap.not_after_ms;
    let config = &world.nodes[HUB].config;
    let due = limit - config.claim_ms() - config.policy.grace_ms;
    let fee = config.fee(1_000);
    for (now, in_log) in [(due - 1, 0), (due, 7 + fee)] {
        world.log.now = now;
        world.poll();
        assert_eq!(world.in_log(ALICE, HUB), in_log);
    }
}

/// The payee claims one after the other of a set that it has signed back, and signs nothing back: a voucher for each, four at most.
#[test]
fn claims_of_a_set_that_was_signed_back_make_a_new_voucher_each_up_to_four() {
    let mut world = direct();
    let ids: Vec<_> = (0..7).map(|_| open(&mut world, 100, 3 * HOUR)).collect();
    world.run();
    world.lose = |message| is_ack(message) || is_update(message);
    open(&mut world, 5, 3 * HOUR);
    world.run();
    let base = nonce(&world, 0);
    world.nodes[HUB].down = true;
    let acked = world.sent.iter().position(|(_, _, voucher)| voucher.terms.nonce == base - 1).unwrap();
    let mut seen = Vec::new();
    for (more, id) in (1..).zip(&ids) {
        world.grab(acked, &[(*id, more)]).unwrap();
        world.poll();
        seen.push(nonce(&world, 0) - base);
    }
    assert_eq!(seen, [1, 2, 3, 3, 3, 3, 3]);
}

#[test]
fn who_pays_less_than_was_claimed_or_leaves_a_claim_in_the_set_is_refused() {
    let mut world = direct();
    let (id, other) = (open(&mut world, 100, 2 * HOUR), open(&mut world, 100, HOUR));
    world.run();
    world.pay(id, 30);
    world.nodes[ALICE].down = true;
    let last = world.sent.len() - 1;
    world.grab(last, &[(id, 30)]).unwrap();
    world.log.now = START + HOUR - MINUTE;
    world.look(HUB);
    world.run();
    assert_eq!(world.status(HUB, &id).brought, Some(30));
    let (from, to) = (world.between(ALICE, HUB), world.between(HUB, ALICE));
    let known = world.nodes[HUB].manager.virtual_lane(&to, 0, 0).unwrap();
    let terms = Voucher::decode(known.newest.as_ref().unwrap()).unwrap().terms;
    let caps: Vec<_> = world.nodes[HUB].virtuals.ins[&(to, 0)].leaves.values().map(|leaf| leaf.cap.clone()).collect();
    let say = |world: &mut World, gone: &[(VirtualId, u64)], amount: u64| {
        let left = caps.iter().filter(|cap| gone.iter().all(|(id, _)| cap.id != id[..]));
        let leaves: Vec<_> = left.map(voucher::virtual_leaf).collect();
        let root = |leaves: &[_]| Bytes::copy_from_slice(&Tree::new(leaves).root());
        let virtuals =
            (!leaves.is_empty()).then(|| wire::VirtualSet { root: root(&leaves), count: leaves.len() as u32 });
        let terms = wire::Voucher { nonce: known.nonce + 1, amount, virtuals, ..terms.clone() };
        let voucher = Some(Voucher::sign(terms, from.side, &[&world.nodes[ALICE].key.0]).signed());
        let shut = |(id, paid): &(VirtualId, u64)| wire::VirtualShut { id: id.to_vec().into(), paid: *paid, code: 0 };
        let shuts = gone.iter().map(shut).collect();
        let update = wire::VirtualUpdate { voucher, base: known.nonce, opens: vec![], shuts };
        let message = wire::VirtualMessage { channel: to.channel.to_vec().into(), kind: Some(Kind::Update(update)) };
        world.ask(HUB, Input::Message { end: to, message: Box::new(message) }).map(drop).map_err(|e| e.code)
    };
    assert_eq!(say(&mut world, &[(id, 29)], 30), Err(Code::VirtualState), "less than the log has");
    assert_eq!(say(&mut world, &[(other, 0)], 0), Err(Code::VirtualState), "a claim stays in the set");
    assert_eq!(say(&mut world, &[([9; 32], 0), (id, 30)], 30), Err(Code::VirtualState), "what was never in it");
    // The other one is due for what was signed for it, as long as it could be claimed.
    let amount = wire::VirtualAmount { id: other.to_vec().into(), amount: 8 };
    let signed = voucher::sign_virtual(&amount, &[&world.nodes[ALICE].key.0]);
    world.log.now = START + HOUR - MINUTE - 1;
    world.ask(HUB, Input::Payments(vec![signed])).unwrap();
    assert_eq!(world.status(HUB, &other).amount, 8);
    assert_eq!(say(&mut world, &[(id, 30), (other, 7)], 38), Err(Code::VirtualState));
    assert_eq!(say(&mut world, &[(id, 30), (other, 8)], 37), Err(Code::VirtualState), "it moves less than it says");
    assert_eq!(say(&mut world, &[(id, 30), (other, 8)], 38), Ok(()));
    assert_eq!(world.status(HUB, &other).brought, Some(8));
}
