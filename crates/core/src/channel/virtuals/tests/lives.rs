//! Opening, paying, closing; and each party silent at each step.

use super::world::*;
use crate::channel::manager;
use crate::channel::virtuals::{Event, Input, Policy, Reply};
use crate::error::Code;
use crate::wire::virtual_message::Kind;

const HOUR: u64 = 60 * MINUTE;

#[test]
fn open_pay_and_close_move_both_ledgers_and_the_hub_hears_of_no_payment() {
    let mut world = World::line();
    let id = world.start(1_000, 2 * HOUR);
    world.run();
    assert!(world.nodes[ALICE].events.contains(&Event::Opened(id)));
    assert!(world.nodes[BOB].events.contains(&Event::Accepted(id)));
    let fee = world.nodes[HUB].config.fee(1_000);
    let alice = world.money(ALICE, HUB);
    assert_eq!((alice.locked, alice.committed, alice.available), (1_000, fee, FUNDS - 1_000 - fee));
    assert_eq!(world.money(HUB, ALICE).locked_in, 1_000);
    assert_eq!((world.money(HUB, BOB).locked, world.money(HUB, BOB).available), (1_000, FUNDS - 1_000));
    let journal = world.nodes[HUB].journal.len();
    (1..=300).for_each(|amount| world.pay(id, amount));
    assert_eq!(world.nodes[HUB].journal.len(), journal, "the hub has nothing to do");
    assert_eq!(world.status(BOB, &id).amount, 300);
    world.ask(BOB, Input::Close(id)).unwrap();
    world.run();
    for (node, other) in [(ALICE, HUB), (HUB, BOB)] {
        let status = world.money(node, other);
        assert_eq!(status.locked, 0);
        assert_eq!(status.committed, 300 + if node == ALICE { fee } else { 0 });
    }
    assert_eq!(world.money(BOB, HUB).voucher_redeemed, 300);
    assert_eq!(world.status(HUB, &id).cost, Some(300));
    assert_eq!(world.status(HUB, &id).brought, Some(300));
    assert!((0..3).all(|node| world.status(node, &id).over));
    // A day after its limit only the payer still knows it, which may not use its id again.
    world.log.now += 28 * HOUR;
    world.poll();
    let known = |node: usize| world.nodes[node].virtuals.status(&id).is_ok();
    assert_eq!([ALICE, HUB, BOB].map(known), [true, false, false]);
    let fee = i128::from(fee);
    assert_eq!(world.wind_up(), [-300 - fee, fee, 300]);
}

#[test]
fn many_in_one_set_are_opened_and_closed_each_with_a_new_voucher() {
    let mut world = World::line();
    let ids: Vec<_> = (0..300).map(|_| world.start(100, 2 * HOUR)).collect();
    world.run();
    assert!(ids.iter().all(|id| world.status(ALICE, id).opened));
    // 256 are in a lane, the others in a second one; all that comes up while a voucher is under way goes with the next.
    let nonces = |world: &World, node: usize| {
        let end = world.between(node, node + 1);
        [0, 1].map(|lane| world.nodes[node].manager.out_lane(&end, lane).unwrap().nonce)
    };
    assert!(nonces(&world, ALICE).iter().all(|nonce| (1..20).contains(nonce)), "{:?}", nonces(&world, ALICE));
    for (amount, id) in (1..).zip(&ids) {
        world.pay(*id, amount % 100);
    }
    let paid: u64 = (1..=300).map(|amount| amount % 100).sum();
    for id in &ids {
        world.ask(BOB, Input::Close(*id)).unwrap();
    }
    world.run();
    assert!(ids.iter().all(|id| (0..3).all(|node| world.status(node, id).over)));
    assert_eq!(world.money(HUB, BOB).committed, paid);
    assert_eq!(world.money(HUB, BOB).locked + world.money(ALICE, HUB).locked, 0);
    let fees = 300 * i128::from(world.nodes[HUB].config.fee(100));
    assert_eq!(world.wind_up(), [-i128::from(paid) - fees, fees, i128::from(paid)]);
}

#[test]
fn a_payer_asks_the_payee_to_close_and_a_direct_channel_needs_no_hub() {
    let mut world = World::with(2, Policy::default());
    world.open(ALICE, HUB, [FUNDS, 0], false);
    let open = world.wanted(&[ALICE, HUB], 50, HOUR);
    let id = open.id;
    world.ask(ALICE, Input::Open(open)).unwrap();
    world.run();
    world.pay(id, 50);
    world.ask(ALICE, Input::Close(id)).unwrap();
    world.run();
    assert_eq!(world.status(ALICE, &id).cost, Some(50));
    assert_eq!(world.wind_up(), [-50, 50]);
}

#[test]
fn what_is_wrong_with_a_virtual_channel_or_payment_is_said() {
    let mut world = World::line();
    let code = |world: &mut World, node, input| world.ask(node, input).unwrap_err().code;
    let good = world.wanted(&[ALICE, HUB, BOB], 100, 2 * HOUR);
    for (change, expected) in [
        ((|open| open.cap = 0) as fn(&mut crate::channel::virtuals::Open), Code::BadAmount),
        (|open| open.cap = FUNDS, Code::HubFunds),
        (|open| open.not_after_ms = START + 1, Code::VirtualTerms),
        (|open| open.not_after_ms = START + DELAY, Code::VirtualTerms),
        (|open| open.end.channel = [9; 32], Code::UnknownChannel),
    ] {
        let mut open = good.clone();
        change(&mut open);
        assert_eq!(code(&mut world, ALICE, Input::Open(open)), expected);
    }
    // What the hub does not take comes back, and its money with it; the fee stays.
    for (change, expected) in [
        ((|open| open.fee = 0) as fn(&mut crate::channel::virtuals::Open), Code::HubFee),
        (|open| open.hops[0].not_after_ms += 1, Code::HubMargin),
        (|open| open.hops[0].channel = bytes::Bytes::from_static(&[9; 32]), Code::HubRoute),
    ] {
        let mut open = world.wanted(&[ALICE, HUB, BOB], 100, 2 * HOUR);
        change(&mut open);
        let id = open.id;
        world.ask(ALICE, Input::Open(open)).unwrap();
        world.run();
        let over = Event::Over { id, outgoing: true, paid: 0, code: expected as u32 };
        assert!(world.nodes[ALICE].events.contains(&over), "{expected:?}: {:?}", world.nodes[ALICE].events);
        assert_eq!(world.money(ALICE, HUB).locked, 0);
    }
    // What the payee does not take comes back over the hub.
    world.nodes[BOB].virtuals.config.policy.accepts = false;
    let refused = world.start(100, 2 * HOUR);
    world.run();
    let over = Event::Over { id: refused, outgoing: true, paid: 0, code: Code::HubRoute as u32 };
    assert!(world.nodes[ALICE].events.contains(&over));
    assert_eq!(world.money(ALICE, HUB).locked + world.money(HUB, BOB).locked, 0);
    world.nodes[BOB].virtuals.config.policy.accepts = true;
    let id = world.start(100, 2 * HOUR);
    assert_eq!(code(&mut world, ALICE, Input::Pay { id, amount: 1 }), Code::VirtualOver);
    world.run();
    assert_eq!(code(&mut world, ALICE, Input::Pay { id, amount: 101 }), Code::VirtualAmount);
    assert_eq!(code(&mut world, ALICE, Input::Pay { id: [1; 32], amount: 1 }), Code::VirtualChannel);
    world.pay(id, 40);
    assert_eq!(code(&mut world, ALICE, Input::Pay { id, amount: 39 }), Code::VirtualAmount);
    // Old amounts bring nothing, and one that another key has signed is none; each of many counts by itself.
    let sign = |world: &World, node: usize, amount| {
        let amount = crate::wire::VirtualAmount { id: bytes::Bytes::copy_from_slice(&id), amount };
        crate::channel::voucher::sign_virtual(&amount, &[&world.nodes[node].key.0])
    };
    let many = [(ALICE, 30), (ALICE, 60), (BOB, 90), (ALICE, 101), (ALICE, 50), (ALICE, 70)];
    let many = many.map(|(node, amount)| sign(&world, node, amount)).to_vec();
    let Reply::Received(replies) = world.ask(BOB, Input::Payments(many)).unwrap() else { panic!() };
    let replies: Vec<_> = replies.into_iter().map(|reply| reply.map_err(|e| e.code)).collect();
    assert_eq!(replies, [Ok(0), Ok(20), Err(Code::KeyMismatch), Err(Code::VirtualAmount), Ok(0), Ok(10)]);
    assert_eq!(world.status(BOB, &id).amount, 70);
}

/// Whoever is silent, and from whenever on: the others get what is theirs from the log, by themselves.
#[test]
fn each_party_is_silent_from_each_step_on() {
    let mut disputes = 0;
    for silent in [ALICE, HUB, BOB] {
        for from in 0..24 {
            let mut world = World::line();
            let mut steps = 0;
            let mut paid = [0, 0];
            let mut step = |world: &mut World, act: &mut dyn FnMut(&mut World)| {
                act(world);
                loop {
                    steps += 1;
                    // Its messages are lost from here on; it still looks at the log unless it is away altogether.
                    if steps > from {
                        world.nodes[silent].mute = true;
                    }
                    let busy = (0..3).any(|node| world.step(node));
                    if !busy && world.mail.is_empty() {
                        break;
                    }
                    if !busy {
                        world.deliver(0);
                    }
                }
            };
            let mut id = [0; 32];
            step(&mut world, &mut |world| id = world.start(1_000, 2 * HOUR));
            for amount in [10, 25, 70] {
                step(&mut world, &mut |world| {
                    if world.ask(ALICE, Input::Pay { id, amount }).is_ok() {
                        paid[0] = amount;
                    }
                });
            }
            step(&mut world, &mut |world| drop(world.ask(BOB, Input::Close(id))));
            if let Ok(status) = world.nodes[BOB].virtuals.status(&id) {
                paid[1] = status.amount;
            }
            // Nobody says anything to whoever is silent either.
            world.nodes[silent].mute = true;
            world.pass(DELAY);
            disputes += world.log.channels.values().filter(|record| !record.lanes.is_empty()).count();
            for node in 0..3 {
                if let Ok(status) = world.nodes[node].virtuals.status(&id) {
                    assert!(status.over, "{silent} silent from {from}: {node} {status:?}");
                }
            }
            for (node, other) in [(ALICE, HUB), (HUB, BOB)] {
                assert_eq!(world.money(node, other).locked, 0, "{silent} silent from {from}: money stays bound");
            }
            let got = world.wind_up();
            let fee = i128::from(world.nodes[HUB].config.fee(1_000));
            assert!(got[BOB] >= i128::from(paid[1]), "{silent} silent from {from}: Bob got {got:?}, has {paid:?}");
            assert!(got[HUB] >= 0, "{silent} silent from {from}: the hub got {got:?}");
            assert!(got[ALICE] >= -i128::from(paid[0]) - fee, "{silent} silent from {from}: Alice got {got:?}");
            assert_eq!(got.iter().sum::<i128>(), 0);
        }
    }
    assert!(disputes > 20, "{disputes}");
}

#[test]
fn the_payee_claims_at_the_limit_and_the_hub_shows_the_same_at_the_other_channel() {
    let mut world = World::line();
    let others: Vec<_> = (0..255).map(|_| world.start(10, 3 * HOUR)).collect();
    let id = world.start(1_000, 2 * HOUR);
    world.run();
    assert!(world.status(ALICE, &id).opened);
    world.pay(id, 700);
    world.nodes[HUB].mute = true;
    world.nodes[ALICE].mute = true;
    world.pass(2 * HOUR - 2 * MINUTE);
    assert_eq!(world.in_log(HUB, BOB), 0, "there is still time");
    world.pass(3 * MINUTE);
    assert_eq!(world.in_log(HUB, BOB), 700);
    // One among 256 takes a path of 8 hashes.
    assert_eq!(world.log.claims.1, 8);
    assert!(world.log.claims.0 < 600, "{} bytes", world.log.claims.0);
    assert_eq!(world.in_log(ALICE, HUB), 0);
    assert_eq!(world.status(HUB, &id).cost, Some(700));
    world.pass(40 * MINUTE);
    let fees = 255 * world.nodes[HUB].config.fee(10) + world.nodes[HUB].config.fee(1_000);
    assert_eq!(world.in_log(ALICE, HUB), 700 + fees);
    assert_eq!(world.status(HUB, &id).brought, Some(700));
    // The others go on when they talk again: the claim is in the next voucher's amount.
    (world.nodes[HUB].mute, world.nodes[ALICE].mute) = (false, false);
    world.connect_all();
    world.pay(others[3], 7);
    world.ask(BOB, Input::Close(others[3])).unwrap();
    world.run();
    assert_eq!(world.status(BOB, &others[3]).brought, Some(7));
    assert_eq!(world.money(HUB, BOB).committed, 707);
    let fees = i128::from(fees);
    assert_eq!(world.wind_up(), [-707 - fees, fees, 707]);
}

#[test]
fn a_settle_makes_the_payee_claim_at_once_and_the_hub_after_it() {
    for settles in [ALICE, HUB, BOB] {
        let mut world = World::line();
        let id = world.start(1_000, 2 * HOUR);
        world.run();
        world.pay(id, 300);
        let end = world.between(settles, if settles == HUB { BOB } else { HUB });
        world.channel(settles, manager::Input::Settle(end)).unwrap();
        world.run();
        world.poll();
        world.poll();
        if settles == ALICE {
            // The hub waits until it knows what it costs.
            assert_eq!(world.in_log(ALICE, HUB), world.nodes[HUB].config.fee(1_000));
            world.ask(BOB, Input::Close(id)).unwrap();
            world.run();
            world.poll();
        } else {
            assert_eq!(world.in_log(HUB, BOB), 300, "{settles}");
        }
        assert_eq!(world.status(HUB, &id).cost, Some(300), "{settles}");
        assert_eq!(world.status(HUB, &id).brought, Some(300));
        assert_eq!(world.ask(ALICE, Input::Pay { id, amount: 301 }).unwrap_err().code, Code::VirtualOver);
        let fee = i128::from(world.nodes[HUB].config.fee(1_000));
        assert_eq!(world.wind_up(), [-300 - fee, fee, 300]);
    }
}

#[test]
fn what_expires_without_a_payment_is_free_again_by_log_time_alone() {
    let mut world = World::line();
    let id = world.start(1_000, 2 * HOUR);
    world.run();
    (0..3).for_each(|node| world.nodes[node].mute = true);
    world.pass(2 * HOUR - MINUTE / 2);
    assert_eq!((world.money(ALICE, HUB).locked, world.money(HUB, BOB).locked), (1_000, 1_000));
    world.pass(MINUTE);
    assert_eq!((world.money(ALICE, HUB).locked, world.money(HUB, BOB).locked), (1_000, 0));
    world.pass(HOUR);
    assert_eq!((world.money(ALICE, HUB).locked, world.money(HUB, ALICE).locked_in), (0, 0));
    assert!((0..3).all(|node| world.status(node, &id).over));
    assert!(world.log.channels.values().all(|record| record.lanes.is_empty()), "nothing went to the log");
}

#[test]
fn over_two_hubs_each_hub_needs_its_margin_and_gets_its_fee() {
    let mut world = World::with(4, Policy::default());
    for from in 0..3 {
        world.open(from, from + 1, [FUNDS, 0], false);
    }
    let open = world.wanted(&[0, 1, 2, 3], 1_000, 2 * HOUR);
    let id = open.id;
    world.ask(0, Input::Open(open)).unwrap();
    world.run();
    assert!(world.status(0, &id).opened);
    world.pay(id, 500);
    world.ask(3, Input::Close(id)).unwrap();
    world.run();
    let fee = i128::from(world.nodes[1].config.fee(1_000));
    assert_eq!(world.wind_up(), [-500 - 2 * fee, fee, fee, 500]);
}

#[test]
fn a_lost_message_is_said_again() {
    for lost in [
        (|m| matches!(m.kind, Some(Kind::Update(_)))) as fn(&crate::wire::VirtualMessage) -> bool,
        |m| matches!(m.kind, Some(Kind::Ack(_))),
        |m| matches!(m.kind, Some(Kind::Opened(_))),
        |m| matches!(m.kind, Some(Kind::Close(_))),
    ] {
        let mut world = World::line();
        world.lose = lost;
        let id = world.start(1_000, 2 * HOUR);
        world.run();
        world.lose = |_| false;
        world.connect_all();
        world.pass(MINUTE);
        world.pay(id, 9);
        world.lose = lost;
        world.ask(BOB, Input::Close(id)).unwrap();
        world.run();
        world.lose = |_| false;
        world.connect_all();
        world.connect_all();
        world.pass(MINUTE);
        assert_eq!(world.status(ALICE, &id).cost, Some(9));
        assert!(world.log.channels.values().all(|record| record.lanes.is_empty()));
    }
}
