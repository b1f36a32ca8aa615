//! Where each unit of set-aside money is: reservations, the pool, and what is topped up by itself.

use bytes::Bytes;

use super::world::*;
use crate::channel::manager::{
    Conditions, Effect, EndId, EndState, Input, Issue, Message, OpState, Policy, Reply, ReservationStatus, Reserve, Use,
};
use crate::error::Code;
use crate::wire::output;

/// Amounts of all deposits that a wallet has signed, in their order.
fn deposits(world: &World, wallet: usize) -> Vec<u64> {
    let messages = world.wallets[wallet].signed.values().flat_map(|message: &Message| &message.outputs);
    let amounts = messages.filter_map(|output| match output {
        output::Kind::ChannelDeposit(deposit) => Some(deposit.amount),
        _ => None,
    });
    let mut all: Vec<u64> = amounts.collect();
    all.sort_unstable();
    all
}

/// Held and still missing of a reservation.
fn parts(world: &World, end: &EndId, reservation: u64) -> Option<(u64, u64)> {
    let found = world.wallets[ALICE].manager.reservation(end, reservation).unwrap();
    found.map(|one| (one.held, one.missing))
}

#[test]
fn a_part_of_the_pool_is_taken_first_from_what_is_there_and_then_from_the_newest_that_waits() {
    // Released, then: the pool, the waiting second part, the named one, the newest, and what is available.
    type Found = (u64, Option<(u64, u64)>, Option<(u64, u64)>, Option<(u64, u64)>, u64);
    let cases: [(u64, Found); 8] = [
        (0, (60, Some((40, 20)), Some((0, 25)), Some((0, 30)), 0)),
        (1, (59, Some((41, 19)), Some((0, 25)), Some((0, 30)), 0)),
        (60, (60, None, Some((25, 0)), Some((15, 15)), 0)),
        (70, (60, None, Some((25, 0)), Some((15, 5)), 0)),
        (90, (60, None, Some((25, 0)), None, 15)),
        (100, (50, None, Some((25, 0)), None, 25)),
        (115, (35, None, Some((25, 0)), None, 40)),
        (150, (0, None, Some((25, 0)), None, 75)),
    ];
    for (amount, expected) in cases {
        let mut world = World::new();
        let (end, _) = world.channel(100);
        world.reserve(end, 60, Use::Pool);
        let second = world.reserve(end, 60, Use::Pool).0;
        let named = world.reserve(end, 25, Use::Named).0;
        let newest = world.reserve(end, 30, Use::Pool).0;
        let release = |amount| Input::ReleaseAmount { end, amount };
        assert_eq!(world.code(ALICE, release(151)), Code::OverRelease);
        let journal = world.wallets[ALICE].journal.len();
        assert_eq!(world.ask(ALICE, release(amount)).unwrap(), Reply::Released(amount));
        let pool = world.wallets[ALICE].manager.pool(&end).unwrap();
        let [second, named, newest] = [second, named, newest].map(|one| parts(&world, &end, one));
        assert_eq!((pool, second, named, newest, world.status(ALICE, &end).available), expected, "{amount} released");
        assert!(amount > 0 || world.wallets[ALICE].journal.len() == journal, "nothing to write down");
        world.crash(ALICE);
        assert_eq!(world.code(ALICE, release(151 - amount)), Code::OverRelease);
        assert_eq!(world.ask(ALICE, release(150 - amount)).unwrap(), Reply::Released(150 - amount));
    }
}

#[test]
fn a_lanes_reservations_are_used_up_the_oldest_first() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    let first = world.reserve(end, 20, Use::Lane(1)).0;
    let second = world.reserve(end, 30, Use::Lane(1)).0;
    let other = world.reserve(end, 40, Use::Lane(2)).0;
    // It waits for 20, and holds 10.
    let pending = world.reserve(end, 30, Use::Lane(1)).0;
    let found = |world: &World| [first, second, other, pending].map(|one| parts(world, &end, one));
    assert_eq!(found(&world), [Some((20, 0)), Some((30, 0)), Some((40, 0)), Some((10, 20))]);
    world.pay(end, 1, 15);
    assert_eq!(found(&world), [Some((5, 0)), Some((30, 0)), Some((40, 0)), Some((10, 20))]);
    world.pay(end, 1, 20);
    assert_eq!(found(&world), [None, Some((30, 0)), Some((40, 0)), Some((10, 20))]);
    world.pay(end, 1, 60);
    assert_eq!(found(&world), [None, None, Some((40, 0)), Some((0, 20))]);
    let issue = |lane, amount| Issue { end, lane, amount, conditions: Conditions::default() };
    assert_eq!(world.issue(ALICE, issue(1, 61)), Err(1), "the rest is still to come");
    // What comes for it is used as well.
    world.run();
    assert_eq!(found(&world), [None, None, Some((40, 0)), Some((20, 0))]);
    assert_eq!(world.issue(ALICE, issue(1, 81)), Err(1));
    world.pay(end, 1, 70);
    assert_eq!(world.ask(ALICE, Input::Release { end, reservation: pending }).unwrap(), Reply::Released(10));
    assert_eq!(world.ask(ALICE, Input::Release { end, reservation: other }).unwrap(), Reply::Released(40));
    // It is no lane's any more, and there once.
    assert_eq!(world.issue(ALICE, issue(1, 121)), Err(1));
    assert_eq!(world.issue(ALICE, issue(2, 51)), Err(1));
    assert_eq!(world.issue(ALICE, issue(3, 51)), Err(1));
    world.pay(end, 2, 50);
    let status = world.status(ALICE, &end);
    assert_eq!((status.confirmed, status.committed, status.reserved, status.available), (120, 120, 0, 0));
}

#[test]
fn what_is_reserved_and_what_it_waits_for_is_told() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    let reserve = |amount, usage| Reserve { end, key: Bytes::new(), amount, usage, off_chain_only: false };
    let Reply::Reserved { reservation: whole, active: true, op: None } =
        world.ask(ALICE, Input::Reserve(reserve(70, Use::Lane(3)))).unwrap()
    else {
        panic!()
    };
    let Reply::Reserved { reservation: short, active: false, op: Some(op) } =
        world.ask(ALICE, Input::Reserve(reserve(50, Use::Named))).unwrap()
    else {
        panic!()
    };
    // While there is a deposit, one that is there in full waits for nothing.
    world.ask(ALICE, Input::Release { end, reservation: whole }).unwrap();
    let there = world.ask(ALICE, Input::Reserve(reserve(5, Use::Named))).unwrap();
    assert!(matches!(there, Reply::Reserved { active: true, op: None, .. }));
    let manager = &world.wallets[ALICE].manager;
    let found = ReservationStatus { end, usage: Use::Named, held: 50, missing: 0 };
    assert_eq!(manager.reservation(&end, short).unwrap(), Some(found));
    assert_eq!(manager.reservation(&end, whole).unwrap(), None);
    let status = manager.status(&end).unwrap();
    assert_eq!((status.pending, status.pending_op, status.pending_order), (20, Some(op), None));
    let operation = manager.operation(op).unwrap();
    assert_eq!((operation.kind, operation.end, operation.state), ("deposit", Some(end), OpState::Preparing));
    let now = world.now();
    world.wallets[ALICE].step(&mut world.chain, now);
    let manager = &world.wallets[ALICE].manager;
    let status = manager.status(&end).unwrap();
    assert_eq!(status.pending_order, manager.operation(op).unwrap().order_id);
    assert!(status.pending_order.is_some());
}

#[test]
fn what_waits_behind_a_deposit_is_queued() {
    let mut world = World::new();
    let (end, _) = world.channel(0);
    world.add(end, 10);
    let queued = |world: &World| world.status(ALICE, &end).queued;
    world.reserve(end, 10, Use::Named);
    assert_eq!(queued(&world), 0, "it rides on the deposit under way");
    world.reserve(end, 15, Use::Named);
    assert_eq!(queued(&world), 15);
    world.add(end, 12);
    assert_eq!(queued(&world), 15, "the same money serves both");
    world.add(end, 8);
    assert_eq!(queued(&world), 20);
    world.run();
    assert_eq!((deposits(&world, ALICE), queued(&world)), (vec![10, 20], 0));
    assert_eq!((world.status(ALICE, &end).reserved, world.status(ALICE, &end).available), (25, 5));
}

fn water() -> Policy {
    Policy { low_water: 10, high_water: 50, ..Policy::default() }
}

#[test]
fn what_is_available_is_kept_at_its_level_and_no_higher() {
    // Available at first, and what is topped up.
    for (amount, expected) in [(0, vec![50]), (9, vec![41]), (10, vec![]), (30, vec![]), (60, vec![])] {
        let mut world = World::with(water());
        world.channel(amount);
        world.pass(60_000);
        assert_eq!(deposits(&world, ALICE), expected, "{amount} at first");
        assert!(deposits(&world, BOB).is_empty(), "Bob pays nothing in the channel");
    }
    // What is asked for lifts it above the mark: then it is all that is paid in.
    let mut world = World::with(water());
    let (end, _) = world.channel(15);
    world.add(end, 10);
    world.run();
    assert_eq!(deposits(&world, ALICE), [10]);
    // With one unit less left after it, the level counts.
    let mut world = World::with(water());
    let (end, _) = world.channel(15);
    world.pay(end, 0, 5);
    world.run();
    assert_eq!(deposits(&world, ALICE), []);
    world.pay(end, 0, 6);
    world.run();
    assert_eq!(deposits(&world, ALICE), [41]);
}

#[test]
fn a_top_up_that_failed_is_tried_again_later_and_nothing_is_topped_up_at_the_end() {
    let mut world = World::with(water());
    let create = world.create("a", 5, false);
    let created = op(world.ask(ALICE, Input::Create(create)).unwrap());
    let now = world.now();
    while world.state(ALICE, created) != OpState::Confirmed {
        world.wallets[ALICE].step(&mut world.chain, now);
    }
    world.chain.refuse = vec![Code::Busy, Code::Busy];
    world.run();
    let mut tries = vec![deposits(&world, ALICE).len()];
    for ms in [9_999, 1, 19_999, 1] {
        world.pass(ms);
        tries.push(deposits(&world, ALICE).len());
    }
    assert_eq!(tries, [1, 1, 2, 2, 3], "after 10 s, then after 20 s more");
    let end = world.wallets[ALICE].manager.operation(created).unwrap().end.unwrap();
    assert_eq!(world.status(ALICE, &end).available, 50);
    // A higher mark lifts nothing that settles.
    world.ask(ALICE, Input::Settle(end)).unwrap();
    world.run();
    world.wallets[ALICE].config.policy = Policy { low_water: 100, high_water: 200, ..water() };
    world.crash(ALICE);
    world.pass(60_000);
    assert_eq!(deposits(&world, ALICE).len(), 3);
}

#[test]
fn no_deposit_starts_while_a_settle_is_on_its_way() {
    let mut world = World::new();
    let (end, _) = world.channel(0);
    world.add(end, 10);
    let waits = world.reserve(end, 60, Use::Named).0;
    world.ask(ALICE, Input::Settle(end)).unwrap();
    // The deposit goes through first, and is not enough.
    let deposit = world.status(ALICE, &end).pending_op.unwrap();
    let now = world.now();
    while world.state(ALICE, deposit) != OpState::Confirmed {
        world.wallets[ALICE].step(&mut world.chain, now);
    }
    world.wallets[ALICE].sync();
    assert_eq!(world.status(ALICE, &end).state, EndState::SettlePending);
    assert_eq!(parts(&world, &end, waits), Some((10, 50)));
    let prepares = world.wallets[ALICE].effects.iter().filter(|effect| matches!(effect, Effect::Prepare { .. }));
    assert_eq!((deposits(&world, ALICE), prepares.count()), (vec![10], 0));
    world.run();
    assert_eq!(world.status(ALICE, &end).state, EndState::Settling);
    assert_eq!(deposits(&world, ALICE), [10]);
}
