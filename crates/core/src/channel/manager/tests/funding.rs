//! Creating, adding, reserving, releasing.

use bytes::Bytes;

use super::world::*;
use crate::channel::manager::{
    Create, Effect, EndId, EndState, Event, Input, Message, OpState, Policy, Reply, Reserve, Use,
};
use crate::error::Code;
use crate::wire::output;

/// Amounts of the deposits that were sent, the opening one first.
fn deposits(world: &World) -> Vec<u64> {
    let messages = world.wallets[ALICE].signed.values().flat_map(|message: &Message| &message.outputs);
    let mut amounts: Vec<u64> = messages
        .filter_map(|output| match output {
            output::Kind::ChannelOpen(open) => Some(open.amount),
            output::Kind::ChannelDeposit(deposit) => Some(deposit.amount),
            _ => None,
        })
        .collect();
    amounts.sort_unstable();
    amounts
}

#[test]
fn create_never_blocks_and_its_operation_tells_the_channel() {
    let mut world = World::new();
    let create = world.create("a", 0, false);
    let op = op(world.ask(ALICE, Input::Create(create)).unwrap());
    assert_eq!(world.state(ALICE, op), OpState::Preparing);
    assert_eq!(world.wallets[ALICE].manager.operation(op).unwrap().end, None);
    world.run();
    assert_eq!(world.state(ALICE, op), OpState::Confirmed);
    let end = world.wallets[ALICE].manager.operation(op).unwrap().end.unwrap();
    assert!(world.chain.channels.contains_key(&end.channel), "the id was known before the log had it");
    assert_eq!(world.status(ALICE, &end).confirmed, 0);
    assert!(world.wallets[ALICE].events.contains(&Event::Opened(end)));
    assert!(world.wallets[BOB].events.contains(&Event::Opened(EndId { side: 1, ..end })));
}

#[test]
fn the_same_create_again_is_the_same_channel_and_another_key_another_one() {
    let mut world = World::new();
    let create = world.create("a", 5, false);
    let first = world.ask(ALICE, Input::Create(create.clone())).unwrap();
    assert_eq!(world.ask(ALICE, Input::Create(create.clone())).unwrap(), first);
    world.run();
    world.crash(ALICE);
    assert_eq!(world.ask(ALICE, Input::Create(create.clone())).unwrap(), first);
    world.run();
    assert_eq!(world.chain.channels.len(), 1);
    let other = Create { amount: 6, ..create.clone() };
    assert_eq!(world.code(ALICE, Input::Create(other)), Code::IdempotencyKey);
    assert_eq!(world.code(ALICE, Input::Create(Create { key: Bytes::new(), ..create.clone() })), Code::IdempotencyKey);
    world.ask(ALICE, Input::Create(Create { key: "b".into(), ..create })).unwrap();
    world.run();
    assert_eq!(world.chain.channels.len(), 2, "one exists, and a new one was asked for");
}

#[test]
fn a_failed_create_lets_the_next_create_anew() {
    let mut world = World::new();
    world.chain.refuse = vec![Code::InsufficientFunds];
    let create = world.create("a", 5, false);
    let failed = op(world.ask(ALICE, Input::Create(create.clone())).unwrap());
    world.run();
    let code = Code::InsufficientFunds as u32;
    assert!(matches!(world.state(ALICE, failed), OpState::Failed { code: found, .. } if found == code));
    let end = world.wallets[ALICE].manager.operation(failed).unwrap().end.unwrap();
    assert_eq!(world.status(ALICE, &end).state, EndState::Failed);
    let next = op(world.ask(ALICE, Input::Create(Create { key: "b".into(), ..create })).unwrap());
    world.run();
    assert_eq!(world.state(ALICE, next), OpState::Confirmed);
    assert_eq!(world.chain.channels.len(), 1);
}

#[test]
fn amount_0_creates_and_completes_but_adds_nothing_and_reserves_nothing() {
    let mut world = World::new();
    let (end, _) = world.channel(0);
    assert_eq!(world.status(ALICE, &end).state, EndState::Open);
    let add = Input::AddFunds { end, key: Bytes::new(), amount: 0 };
    assert_eq!(world.code(ALICE, add), Code::BadAmount);
    assert_eq!(world.reserve(end, 0, Use::Named), (0, true, None));
    world.run();
    assert_eq!(deposits(&world), [0]);
}

#[test]
fn requests_that_wait_merge_into_one_message() {
    let mut world = World::new();
    let (end, _) = world.channel(0);
    let first = world.add(end, 10);
    let (second, third) = (world.add(end, 20), world.add(end, 30));
    let status = world.status(ALICE, &end);
    assert_eq!((status.pending, status.queued), (10, 50));
    world.run();
    assert_eq!(deposits(&world), [0, 10, 50]);
    for add in [first, second, third] {
        assert_eq!(world.state(ALICE, add), OpState::Confirmed);
    }
    assert_eq!(world.wallets[ALICE].manager.operation(second).unwrap().order_id, {
        world.wallets[ALICE].manager.operation(third).unwrap().order_id
    });
    assert_eq!(world.status(ALICE, &end).available, 60);
}

#[test]
fn a_cancelled_request_drops_out_while_it_waits() {
    let mut world = World::new();
    let (end, _) = world.channel(0);
    let first = world.add(end, 10);
    let (second, third) = (world.add(end, 20), world.add(end, 30));
    world.ask(ALICE, Input::Cancel(second)).unwrap();
    world.ask(ALICE, Input::Cancel(second)).unwrap();
    assert_eq!(world.code(ALICE, Input::Cancel(first)), Code::OperationStarted);
    world.run();
    assert_eq!(deposits(&world), [0, 10, 30]);
    assert_eq!(world.state(ALICE, second), OpState::Cancelled);
    assert_eq!(world.code(ALICE, Input::Cancel(third)), Code::OperationStarted);
}

#[test]
fn while_a_create_is_pending_everyone_waits() {
    let mut world = World::new();
    let create = world.create("a", 10, false);
    let create = op(world.ask(ALICE, Input::Create(create)).unwrap());
    let now = world.now();
    world.wallets[ALICE].step(&mut world.chain, now);
    world.wallets[ALICE].sync();
    let end = world.wallets[ALICE].manager.operation(create).unwrap().end.unwrap();
    assert_eq!(world.status(ALICE, &end).state, EndState::Opening);
    world.add(end, 20);
    let (covered, active, rides) = world.reserve(end, 10, Use::Named);
    assert!(!active);
    assert_eq!(rides, Some(create), "it rides on the order that opens the channel");
    world.add(end, 5);
    world.run();
    assert_eq!(deposits(&world), [10, 25]);
    assert!(world.wallets[ALICE].events.contains(&Event::ReservationActive { end, reservation: covered }));
    assert_eq!(world.status(ALICE, &end).available, 25);
}

#[test]
fn a_failed_add_clears_pending_and_does_not_block_later_requests() {
    let mut world = World::new();
    let (end, _) = world.channel(0);
    world.chain.refuse = vec![Code::InsufficientFunds];
    let (first, second) = (world.add(end, 10), world.add(end, 20));
    world.run();
    assert!(matches!(world.state(ALICE, first), OpState::Failed { .. }));
    assert_eq!(world.state(ALICE, second), OpState::Confirmed);
    let status = world.status(ALICE, &end);
    assert_eq!((status.confirmed, status.pending, status.queued), (20, 0, 0));
}

#[test]
fn asking_again_for_a_finished_operation_answers_at_once_and_the_same() {
    let mut world = World::new();
    let (end, _) = world.channel(0);
    world.chain.refuse = vec![Code::IssuerLimit];
    let failed = world.add(end, 10);
    world.run();
    let found = world.state(ALICE, failed);
    world.crash(ALICE);
    world.run();
    assert_eq!(world.state(ALICE, failed), found);
    let unknown = world.wallets[ALICE].manager.operation(1_000).unwrap_err();
    assert_eq!(unknown.code, Code::UnknownOperation);
}

#[test]
fn a_reservation_earmarks_what_is_there_and_tops_up_exactly_the_shortfall() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    assert!(world.reserve(end, 70, Use::Named).1);
    let (_, active, op) = world.reserve(end, 70, Use::Named);
    assert!(!active && op.is_some());
    assert_eq!(world.status(ALICE, &end).reserved, 100);
    world.run();
    assert_eq!(deposits(&world), [40, 100]);
    let status = world.status(ALICE, &end);
    assert_eq!((status.reserved, status.available, status.confirmed), (140, 0, 140));
}

#[test]
fn the_policy_tops_up_a_little_more_and_keeps_the_water_level() {
    let mut world = World::with(Policy { overshoot: 5, low_water: 10, high_water: 50, ..Policy::default() });
    let (end, _) = world.channel(100);
    world.reserve(end, 120, Use::Named);
    world.run();
    // 20 short, and what is left is to be 50.
    assert_eq!(deposits(&world), [70, 100]);
    assert_eq!(world.status(ALICE, &end).available, 50);
    world.reserve(end, 52, Use::Named);
    world.run();
    assert_eq!(deposits(&world), [52, 70, 100], "2 short, and up to 50");
    world.pay(end, 0, 41);
    world.run();
    assert_eq!(deposits(&world), [41, 52, 70, 100], "a voucher took it below 10");
    let mut world = World::with(Policy { overshoot: 5, ..Policy::default() });
    let (end, _) = world.channel(100);
    world.reserve(end, 120, Use::Named);
    world.run();
    assert_eq!(deposits(&world), [25, 100]);
}

#[test]
fn many_reservations_ride_one_deposit() {
    let mut world = World::new();
    let (end, _) = world.channel(0);
    world.add(end, 100);
    let riding: Vec<_> = (0..4).map(|_| world.reserve(end, 25, Use::Named)).collect();
    assert!(riding.iter().all(|(_, active, op)| !active && op.is_some()));
    world.run();
    assert_eq!(deposits(&world), [0, 100]);
    assert_eq!(world.status(ALICE, &end).reserved, 100);
    assert!(!world.reserve(end, 1, Use::Named).1);
}

#[test]
fn a_reserve_that_is_covered_answers_at_once_while_messages_are_pending() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    world.add(end, 1_000);
    assert!(world.reserve(end, 60, Use::Named).1);
    let off_chain =
        |amount| Input::Reserve(Reserve { end, key: Bytes::new(), amount, usage: Use::Named, off_chain_only: true });
    assert!(matches!(world.ask(ALICE, off_chain(40)).unwrap(), Reply::Reserved { active: true, .. }));
    assert_eq!(world.code(ALICE, off_chain(1)), Code::ReserveShort);
    world.run();
    assert_eq!(deposits(&world), [100, 1_000]);
}

#[test]
fn a_failed_deposit_releases_the_reservations_that_wait_for_it() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    world.chain.refuse = vec![Code::InsufficientFunds];
    let kept = world.reserve(end, 30, Use::Named).0;
    let failed = world.reserve(end, 100, Use::Named).0;
    let later = world.reserve(end, 50, Use::Named).0;
    world.run();
    assert!(world.wallets[ALICE].events.contains(&Event::ReservationFailed { end, reservation: failed }));
    // What the failed one held is enough for the one after it.
    assert!(world.wallets[ALICE].events.contains(&Event::ReservationActive { end, reservation: later }));
    let manager = &world.wallets[ALICE].manager;
    assert_eq!(manager.reservation(&end, failed).unwrap(), None);
    assert_eq!(manager.reservation(&end, kept).unwrap().unwrap().held, 30);
    assert_eq!(deposits(&world).iter().sum::<u64>(), 100 + 30, "one deposit of 30 was tried, and refused");
    assert_eq!((world.status(ALICE, &end).confirmed, world.status(ALICE, &end).reserved), (100, 80));
}

#[test]
fn releases_by_number_by_amount_and_never_too_much() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    let named = world.reserve(end, 30, Use::Named).0;
    world.reserve(end, 20, Use::Pool);
    world.reserve(end, 60, Use::Pool);
    assert_eq!(world.wallets[ALICE].manager.pool(&end).unwrap(), 20, "the second waits for 10");
    let by_amount = |amount| Input::ReleaseAmount { end, amount };
    assert_eq!(world.code(ALICE, by_amount(81)), Code::OverRelease);
    assert_eq!(world.ask(ALICE, by_amount(25)).unwrap(), Reply::Released(25));
    assert_eq!(world.ask(ALICE, Input::Release { end, reservation: named }).unwrap(), Reply::Released(30));
    assert_eq!(world.ask(ALICE, Input::Release { end, reservation: named }).unwrap(), Reply::Released(0));
    let unknown = Input::Release { end, reservation: 9_999 };
    assert_eq!(world.code(ALICE, unknown), Code::UnknownReservation);
    assert_eq!(world.ask(ALICE, by_amount(55)).unwrap(), Reply::Released(55));
    assert_eq!(world.code(ALICE, by_amount(1)), Code::OverRelease);
    assert_eq!((world.status(ALICE, &end).reserved, world.status(ALICE, &end).available), (0, 100));
}

#[test]
fn a_released_reservation_that_still_waits_leaves_the_queue() {
    let mut world = World::new();
    let (end, _) = world.channel(0);
    world.add(end, 10);
    let gone = world.reserve(end, 500, Use::Named).0;
    world.ask(ALICE, Input::Release { end, reservation: gone }).unwrap();
    world.run();
    assert_eq!(deposits(&world), [0, 10]);
    assert_eq!(world.status(ALICE, &end).available, 10);
}

#[test]
fn the_same_reserve_again_reserves_once() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    let reserve = Reserve { end, key: "r".into(), amount: 40, usage: Use::Named, off_chain_only: false };
    let first = world.ask(ALICE, Input::Reserve(reserve.clone())).unwrap();
    world.crash(ALICE);
    assert_eq!(world.ask(ALICE, Input::Reserve(reserve.clone())).unwrap(), first);
    assert_eq!(world.status(ALICE, &end).reserved, 40);
    let other = Reserve { amount: 41, ..reserve };
    assert_eq!(world.code(ALICE, Input::Reserve(other)), Code::IdempotencyKey);
}

#[test]
fn deposits_of_third_parties_count_as_confirmed() {
    let mut world = World::new();
    let (end, _) = world.channel(10);
    let record = world.chain.channels.get_mut(&end.channel).unwrap();
    record.opener.as_mut().unwrap().deposited += 90;
    record.revision += 1;
    world.poll();
    world.run();
    assert_eq!((world.status(ALICE, &end).confirmed, world.status(ALICE, &end).available), (100, 100));
    assert!(world.wallets[ALICE].events.contains(&Event::Deposited { end, amount: 90 }));
}

#[test]
fn a_record_that_was_seen_before_or_is_older_changes_nothing() {
    let mut world = World::new();
    let (end, _) = world.channel(10);
    let old = world.chain.channels[&end.channel].clone();
    world.add(end, 5);
    world.run();
    let (records, status) = (world.wallets[ALICE].journal.len(), world.status(ALICE, &end));
    let time_ms = world.chain.now;
    let again = world.chain.channels[&end.channel].clone();
    for record in [old, again] {
        let seen = Input::Seen { channel: end.channel, record: Box::new(record), time_ms };
        world.ask(ALICE, seen).unwrap();
    }
    assert_eq!(world.wallets[ALICE].journal.len(), records);
    assert_eq!(world.status(ALICE, &end), status);
}

#[test]
fn lookup_finds_the_open_channel_with_most_available_and_lanes_left() {
    let mut world = World::new();
    let (alice, bob) = (account(1).1, account(2).1);
    let lookup = |world: &World| world.wallets[ALICE].manager.lookup(&alice, &bob);
    assert_eq!(lookup(&world), None);
    let (poor, _) = world.channel(10);
    let (rich, _) = world.channel(20);
    let (equal, _) = world.channel(20);
    assert_eq!(lookup(&world), Some(rich.min(equal)));
    world.reserve(rich, 15, Use::Named);
    world.reserve(equal, 15, Use::Named);
    assert_eq!(lookup(&world), Some(poor));
    world.ask(ALICE, Input::Settle(poor)).unwrap();
    assert_eq!(lookup(&world), Some(rich.min(equal)), "a settle is on its way");
    assert_eq!(world.wallets[BOB].manager.lookup(&bob, &alice), None, "Bob pays nothing in it");
    for _ in 0..crate::limits::LANES_MAX {
        world.ask(ALICE, Input::AllocateLane(rich.min(equal))).unwrap();
    }
    assert_eq!(lookup(&world), Some(rich.max(equal)), "a channel without lanes is no use");
    assert_eq!(world.code(ALICE, Input::AllocateLane(rich.min(equal))), Code::LanesUsedUp);
    let manager = &world.wallets[ALICE].manager;
    let page = manager.list(None, None, 2);
    assert_eq!(page.len(), 2);
    assert_eq!(manager.list(None, page.last(), 2).len(), 1);
    assert_eq!(manager.list(Some(EndState::SettlePending), None, 9), [poor]);
}

#[test]
fn two_ends_in_one_wallet_pay_each_other() {
    let mut world = World::alone();
    let (end, other) = world.channel(100);
    let voucher = world.pay(end, 0, 30);
    assert_eq!(world.take(ALICE, other, &voucher).unwrap().delta, 30);
    assert_eq!(world.status(ALICE, &end).committed, 30);
    assert_eq!(world.status(ALICE, &other).voucher_redeemed, 30);
    world.ask(ALICE, Input::Settle(end)).unwrap();
    world.run();
    world.pass(DELAY);
    world.ask(ALICE, Input::Collect(other)).unwrap();
    world.run();
    assert_eq!((world.paid_out(1), world.paid_out(2)), (70, 30));
}

#[test]
fn what_is_not_ours_or_not_there_is_refused() {
    let mut world = World::new();
    let (end, bobs) = world.channel(10);
    let create = world.create("x", 1, false);
    let foreign = Create { from: account(9).1, ..create.clone() };
    assert_eq!(world.code(ALICE, Input::Create(foreign)), Code::NotAParty);
    let own = Create { to: create.from, ..create };
    assert_eq!(world.code(ALICE, Input::Create(own)), Code::BadContent);
    assert_eq!(world.code(ALICE, Input::Settle(bobs)), Code::UnknownChannel);
    let add = Input::AddFunds { end: bobs, key: Bytes::new(), amount: 1 };
    assert_eq!(world.code(BOB, add), Code::ChannelOneWay);
    let lied = Input::Seen { channel: end.channel, record: Box::default(), time_ms: 0 };
    assert_eq!(world.code(ALICE, lied), Code::BadContent);
    assert!(!world.wallets[ALICE].effects.iter().any(|effect| matches!(effect, Effect::Prepare { .. })));
}
