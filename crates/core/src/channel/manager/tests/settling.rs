//! The end of a channel, and money out of an open one.

use bytes::Bytes;

use super::world::*;
use crate::channel::manager::{Conditions, EndState, Event, Input, Issue, Message, OpState, Reply, Use, VoucherState};
use crate::error::Code;
use crate::wire::output;

/// Vouchers in each redeeming message of a wallet.
fn redeems(world: &World, wallet: usize) -> Vec<usize> {
    let outputs = world.wallets[wallet].signed.values().flat_map(|message: &Message| &message.outputs);
    let redeems = outputs.filter_map(|output| match output {
        output::Kind::ChannelRedeem(redeem) => Some(redeem.redemptions.len()),
        _ => None,
    });
    let mut all: Vec<usize> = redeems.collect();
    all.sort_unstable();
    all
}

#[test]
fn on_a_settle_the_best_voucher_of_every_lane_is_submitted_by_itself() {
    let mut world = World::new();
    let (end, bobs) = world.channel(1_000);
    for n in 1..=9 {
        let voucher = world.pay(end, n % 3, u64::from(n) * 10);
        world.take(BOB, bobs, &voucher).unwrap();
    }
    world.ask(ALICE, Input::Settle(end)).unwrap();
    world.run();
    let at_ms = world.chain.now + DELAY;
    assert!(world.wallets[BOB].events.contains(&Event::Settling { end: bobs, at_ms }));
    assert_eq!(redeems(&world, BOB), [3], "one message for all lanes");
    assert_eq!(world.status(BOB, &bobs).confirmed, 70 + 80 + 90);
    let listed = world.wallets[BOB].manager.voucher_list(&bobs, None, 99).unwrap();
    assert_eq!(listed.len(), 3, "superseded vouchers are pruned");
    assert!(listed.iter().all(|one| one.state == VoucherState::Redeemed));
    world.pass(DELAY);
    let collect = op(world.ask(BOB, Input::Collect(bobs)).unwrap());
    world.run();
    assert_eq!(world.state(BOB, collect), OpState::Confirmed);
    assert_eq!((world.paid_out(1), world.paid_out(2)), (760, 240));
    assert_eq!(world.status(ALICE, &end).state, EndState::Collected);
    assert!(world.wallets[ALICE].events.contains(&Event::Collected(end)));
}

#[test]
fn each_redemption_is_said_once_to_both_sides() {
    let mut world = World::new();
    let (end, bobs) = world.channel(1_000);
    for amount in [10, 25] {
        for lane in 0..if amount == 10 { 2 } else { 1 } {
            let voucher = world.pay(end, lane, amount);
            world.take(BOB, bobs, &voucher).unwrap();
        }
        world.ask(BOB, Input::SubmitAll(bobs)).unwrap();
        world.run();
    }
    for (wallet, end) in [(ALICE, end), (BOB, bobs)] {
        let redeemed = |lane, amount| Event::Redeemed { end, payer: 0, lane, amount, secret: Bytes::new() };
        let said = world.wallets[wallet].events.iter().filter(|event| matches!(event, Event::Redeemed { .. }));
        assert!(said.eq(&[redeemed(0, 10), redeemed(1, 10), redeemed(0, 25)]), "{wallet}");
    }
}

#[test]
fn many_lanes_are_redeemed_in_few_messages_that_fit_into_a_call() {
    let mut world = World::new();
    let (end, bobs) = world.channel(1_000_000);
    for lane in 0..130 {
        let voucher = world.pay(end, lane, 1_000);
        world.take(BOB, bobs, &voucher).unwrap();
    }
    world.ask(BOB, Input::SubmitAll(bobs)).unwrap();
    world.run();
    let sent = redeems(&world, BOB);
    assert_eq!(sent.iter().sum::<usize>(), 130);
    assert!(sent.len() <= 5, "{sent:?}");
    let largest = world.wallets[BOB].signed.values().flat_map(|message| &message.outputs).map(|kind| {
        let output = crate::wire::Output { kind: Some(kind.clone()) };
        prost::Message::encoded_len(&output)
    });
    assert!(largest.max().unwrap() + 200 < crate::limits::CALL_BYTES_MAX);
}

#[test]
fn one_voucher_that_the_log_refuses_does_not_hold_back_the_others() {
    let mut world = World::new();
    let (end, bobs) = world.channel(1_000);
    for lane in 0..5 {
        let voucher = world.pay(end, lane, 10);
        world.take(BOB, bobs, &voucher).unwrap();
    }
    world.ask(ALICE, Input::Settle(end)).unwrap();
    let now = world.now();
    while world.wallets[ALICE].step(&mut world.chain, now) {}
    // First all together, then the first of the single ones; it goes through once the others have changed the channel.
    world.chain.refuse = vec![Code::Busy, Code::Busy];
    world.run();
    assert_eq!(world.chain.channels[&end.channel].opener.as_ref().unwrap().sent, 50);
    assert_eq!(redeems(&world, BOB), [1, 1, 1, 1, 1, 1, 5]);
}

#[test]
fn a_voucher_that_the_log_refuses_is_tried_again_later_and_later() {
    let mut world = World::new();
    let (end, bobs) = world.channel(1_000);
    let voucher = world.pay(end, 0, 10);
    world.take(BOB, bobs, &voucher).unwrap();
    world.ask(ALICE, Input::Settle(end)).unwrap();
    let now = world.now();
    while world.wallets[ALICE].step(&mut world.chain, now) {}
    world.chain.refuse = vec![Code::Busy; 3];
    world.run();
    let mut tries = vec![redeems(&world, BOB).len()];
    for _ in 0..8 {
        world.pass(10_000);
        tries.push(redeems(&world, BOB).len());
    }
    assert_eq!(tries, [1, 2, 2, 3, 3, 3, 3, 4, 4]);
    assert_eq!(world.chain.channels[&end.channel].opener.as_ref().unwrap().sent, 10);
}

#[test]
fn settle_pending_stops_issuing_and_is_taken_back_when_the_message_fails() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    world.chain.refuse = vec![Code::Busy];
    let settle = op(world.ask(ALICE, Input::Settle(end)).unwrap());
    assert_eq!(op(world.ask(ALICE, Input::Settle(end)).unwrap()), settle);
    assert_eq!(world.status(ALICE, &end).state, EndState::SettlePending);
    let issue = Issue { end, lane: 0, amount: 1, conditions: Conditions::default() };
    assert_eq!(world.code(ALICE, Input::VoucherCreate(issue)), Code::ChannelSettling);
    let add = Input::AddFunds { end, key: Bytes::new(), amount: 1 };
    assert_eq!(world.code(ALICE, add), Code::ChannelSettling);
    world.run();
    assert!(matches!(world.state(ALICE, settle), OpState::Failed { .. }));
    assert_eq!(world.status(ALICE, &end).state, EndState::Open);
    world.pay(end, 0, 1);
    world.ask(ALICE, Input::Settle(end)).unwrap();
    world.run();
    assert_eq!(world.status(ALICE, &end).state, EndState::Settling);
    // A later request makes a new channel.
    let (next, _) = world.channel(5);
    assert_ne!(next, end);
}

#[test]
fn an_early_collect_says_when_and_sends_nothing() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    assert_eq!(world.code(ALICE, Input::Collect(end)), Code::ChannelNotDue);
    world.ask(ALICE, Input::Settle(end)).unwrap();
    world.run();
    let (at, signed) = (world.chain.now + DELAY, world.wallets[ALICE].signed.len());
    assert_eq!(world.ask(ALICE, Input::Collect(end)).unwrap(), Reply::NotYet(at));
    world.run();
    assert_eq!(world.wallets[ALICE].signed.len(), signed);
}

#[test]
fn a_settle_ends_what_waits_for_money() {
    let mut world = World::new();
    let (end, bobs) = world.channel(10);
    world.ask(BOB, Input::Settle(bobs)).unwrap();
    let add = world.add(end, 5);
    let waits = world.reserve(end, 50, Use::Named).0;
    let queued = world.add(end, 7);
    let now = world.now();
    while world.wallets[BOB].step(&mut world.chain, now) {}
    world.run();
    // The deposit under way is refused; what waits is given up.
    for op in [add, queued] {
        assert!(!world.state(ALICE, op).is_open());
    }
    assert!(
        world.wallets[ALICE]
            .events
            .iter()
            .any(|event| { matches!(event, Event::ReservationFailed { reservation, .. } if *reservation == waits) })
    );
    world.pass(DELAY);
    world.ask(BOB, Input::Collect(bobs)).unwrap();
    world.run();
    assert_eq!(world.chain.held(), 0);
}

#[test]
fn an_announced_withdrawal_of_the_other_side_makes_its_vouchers_due() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let voucher = world.pay(end, 0, 60);
    world.take(BOB, bobs, &voucher).unwrap();
    assert_eq!(world.code(ALICE, Input::Leave { end, amount: 41 }), Code::ChannelFunds);
    world.ask(ALICE, Input::Leave { end, amount: 40 }).unwrap();
    assert_eq!(world.status(ALICE, &end).available, 0);
    world.run();
    let at_ms = world.chain.now + DELAY;
    assert!(world.wallets[BOB].events.contains(&Event::WithdrawalAnnounced { end: bobs, amount: 40, at_ms }));
    assert_eq!(world.status(BOB, &bobs).confirmed, 60);
    let take = Input::Withdraw { end, amount: 40, permit: None };
    assert_eq!(world.ask(ALICE, take.clone()).unwrap(), Reply::NotYet(at_ms));
    world.pass(DELAY);
    world.ask(ALICE, take).unwrap();
    world.run();
    assert_eq!(world.paid_out(1), 40);
    let status = world.status(ALICE, &end);
    assert_eq!((status.confirmed, status.available, status.reserved), (60, 0, 0));
}

#[test]
fn what_the_other_side_is_about_to_take_out_pays_nothing() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let voucher = world.pay(end, 0, 60);
    // Announced behind the manager's back, as a cheat would.
    let record = world.chain.channels.get_mut(&end.channel).unwrap();
    let opener = record.opener.as_mut().unwrap();
    (opener.leaving, opener.leaving_at_ms) = (50, world.chain.now + DELAY);
    record.revision += 1;
    world.poll();
    assert_eq!(world.code(BOB, Input::VoucherAdd(incoming(bobs, &voucher))), Code::ChannelFunds);
}

#[test]
fn with_a_permit_money_leaves_an_open_channel_at_once() {
    let mut world = World::new();
    let (end, bobs) = world.open(100, true);
    let voucher = world.pay(end, 0, 60);
    world.take(BOB, bobs, &voucher).unwrap();
    let permit = |withdrawn| Input::Permit { end, withdrawn, not_after_ms: 0 };
    assert_eq!(world.code(ALICE, permit(61)), Code::ChannelFunds);
    let Reply::Permitted(signed) = world.ask(ALICE, permit(60)).unwrap() else { panic!() };
    let take = Input::Withdraw { end: bobs, amount: 60, permit: Some(signed) };
    assert_eq!(world.code(BOB, take.clone()), Code::ChannelFunds, "the log has not redeemed it yet");
    world.ask(BOB, Input::SubmitAll(bobs)).unwrap();
    world.run();
    world.ask(BOB, take).unwrap();
    world.run();
    assert_eq!((world.paid_out(2), world.status(BOB, &bobs).available), (60, 0));
    // What was permitted pays nothing back.
    let back = Issue { end: bobs, lane: 0, amount: 1, conditions: Conditions::default() };
    assert_eq!(world.issue(BOB, back), Err(1));
    assert!(!world.status(BOB, &bobs).diverged && !world.status(ALICE, &end).diverged);
}

#[test]
fn a_permit_counts_as_gone_before_it_is_used() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    world.ask(BOB, Input::Permit { end: bobs, withdrawn: 70, not_after_ms: 0 }).unwrap();
    let voucher = world.pay(end, 0, 31);
    assert_eq!(world.code(BOB, Input::VoucherAdd(incoming(bobs, &voucher))), Code::ChannelFunds);
}

#[test]
fn a_side_without_keys_says_them_once() {
    let mut world = World::new();
    let mut create = world.create("a", 10, true);
    create.to_permission = Bytes::new();
    let create = op(world.ask(ALICE, Input::Create(create)).unwrap());
    world.run();
    let end = world.wallets[ALICE].manager.operation(create).unwrap().end.unwrap();
    let bobs = crate::channel::manager::EndId { side: 1, ..end };
    let voucher = world.pay(end, 0, 5);
    world.take(BOB, bobs, &voucher).unwrap();
    let back = Issue { end: bobs, lane: 0, amount: 1, conditions: Conditions::default() };
    assert_eq!(world.code(BOB, Input::VoucherCreate(back.clone())), Code::ChannelKeys);
    world.ask(BOB, Input::Keys(bobs)).unwrap();
    world.run();
    let signed = world.issue(BOB, back).unwrap();
    world.take(ALICE, end, &signed).unwrap();
    assert_eq!(world.code(BOB, Input::Keys(bobs)), Code::ChannelKeys);
}
