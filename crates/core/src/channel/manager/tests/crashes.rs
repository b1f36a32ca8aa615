//! Restarts, at every point of a chain message, and old backups.

use bytes::Bytes;

use super::world::*;
use crate::channel::manager::{Conditions, Effect, EndState, Event, Input, Issue, Manager, OpState, Use};
use crate::error::Code;

/// Runs Alice's effects one by one and restarts her after `steps` of them.
fn crash_after(world: &mut World, steps: usize) {
    let now = world.now();
    for _ in 0..steps {
        world.wallets[ALICE].step(&mut world.chain, now);
    }
    world.crash(ALICE);
    world.run();
}

#[test]
fn no_create_is_orphaned_or_doubled_by_a_crash_at_any_point() {
    for steps in 0..4 {
        let mut world = World::new();
        let create = world.create("a", 50, false);
        let op = op(world.ask(ALICE, Input::Create(create)).unwrap());
        crash_after(&mut world, steps);
        assert_eq!(world.state(ALICE, op), OpState::Confirmed, "after {steps} steps");
        assert_eq!(world.chain.channels.len(), 1);
        assert_eq!(world.chain.held(), 50);
    }
}

#[test]
fn a_create_that_was_not_durable_never_happened() {
    let mut world = World::new();
    let (create, now) = (world.create("a", 50, false), world.now());
    world.wallets[ALICE].handle(now, Input::Create(create.clone())).unwrap();
    world.crash(ALICE);
    world.run();
    assert_eq!(world.chain.channels.len(), 0);
    world.ask(ALICE, Input::Create(create)).unwrap();
    world.run();
    assert_eq!(world.chain.channels.len(), 1);
}

#[test]
fn a_restart_while_a_deposit_is_pending_waits_on_and_tops_up_once() {
    for steps in 0..4 {
        let mut world = World::new();
        let (end, _) = world.channel(10);
        let reservation = world.reserve(end, 100, Use::Named).0;
        world.add(end, 1_000);
        crash_after(&mut world, steps);
        world.crash(ALICE);
        world.run();
        assert_eq!(world.chain.held(), 10 + 90 + 1_000, "after {steps} steps");
        let found = world.wallets[ALICE].manager.reservation(&end, reservation).unwrap().unwrap();
        assert_eq!((found.held, found.missing), (100, 0));
    }
}

#[test]
fn after_a_restart_the_same_bytes_are_sent_again() {
    let mut world = World::new();
    let (end, _) = world.channel(10);
    world.add(end, 5);
    let now = world.now();
    world.wallets[ALICE].step(&mut world.chain, now);
    world.wallets[ALICE].sync();
    let sent =
        |world: &World| world.wallets[ALICE].effects.iter().find(|e| matches!(e, Effect::Broadcast { .. })).cloned();
    let before = sent(&world).unwrap();
    world.crash(ALICE);
    assert_eq!(sent(&world).unwrap(), before);
    world.crash(ALICE);
    assert_eq!(sent(&world).unwrap(), before);
    world.run();
    assert_eq!(world.chain.held(), 15);
}

#[test]
fn an_order_that_was_signed_twice_is_sent_once() {
    let mut world = World::new();
    let (end, _) = world.channel(10);
    let op = world.add(end, 5);
    let now = world.now();
    // Both answers to `Prepare` come, the second around a restart.
    world.wallets[ALICE].step(&mut world.chain, now);
    let Some(Effect::Broadcast { op: carrier, order }) = ({
        world.wallets[ALICE].sync();
        world.wallets[ALICE].effects.front().cloned()
    }) else {
        panic!()
    };
    let again = Input::Prepared { op: carrier, order_id: [5; 32], output: 0, order: "another".into() };
    world.ask(ALICE, again).unwrap();
    assert_eq!(world.wallets[ALICE].effects.len(), 1);
    world.crash(ALICE);
    assert!(world.wallets[ALICE].effects.contains(&Effect::Broadcast { op: carrier, order }));
    world.run();
    assert_eq!(world.state(ALICE, op), OpState::Confirmed);
    assert_eq!(world.chain.held(), 15);
}

#[test]
fn a_settle_that_was_pending_at_a_restart_is_still_pending() {
    let mut world = World::new();
    let (end, _) = world.channel(10);
    world.ask(ALICE, Input::Settle(end)).unwrap();
    world.crash(ALICE);
    assert_eq!(world.status(ALICE, &end).state, EndState::SettlePending);
    world.run();
    assert_eq!(world.status(ALICE, &end).state, EndState::Settling);
}

#[test]
fn a_restarted_payee_redeems_on_a_settle_that_it_slept_through() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let voucher = world.pay(end, 0, 60);
    world.take(BOB, bobs, &voucher).unwrap();
    world.ask(ALICE, Input::Settle(end)).unwrap();
    let now = world.now();
    while world.wallets[ALICE].step(&mut world.chain, now) {}
    world.crash(BOB);
    world.pass(DELAY - 1);
    assert_eq!(world.status(BOB, &bobs).confirmed, 60);
    // Also if it sees the settle, and crashes before anything is sent.
    let (end, bobs) = world.channel(100);
    let voucher = world.pay(end, 0, 60);
    world.take(BOB, bobs, &voucher).unwrap();
    world.ask(ALICE, Input::Settle(end)).unwrap();
    let now = world.now();
    while world.wallets[ALICE].step(&mut world.chain, now) {}
    let record = Box::new(world.chain.channels[&end.channel].clone());
    world.ask(BOB, Input::Seen { channel: end.channel, record, time_ms: now.log_ms }).unwrap();
    world.crash(BOB);
    world.run();
    assert_eq!(world.status(BOB, &bobs).confirmed, 60);
}

#[test]
fn the_state_after_a_restart_is_the_state_before_it() {
    let mut world = World::new();
    let (end, bobs) = world.open(100, true);
    world.reserve(end, 20, Use::Lane(1));
    world.reserve(end, 200, Use::Pool);
    let lock = world.lock(end, 1, 10, b"secret", DELAY / 2);
    world.take(BOB, bobs, &lock).unwrap();
    let before = format!("{:?}", world.wallets[ALICE].manager.status(&end));
    let lists = world.wallets[BOB].manager.voucher_list(&bobs, None, 9).unwrap();
    world.crash(ALICE);
    world.crash(BOB);
    assert_eq!(format!("{:?}", world.wallets[ALICE].manager.status(&end)), before);
    assert_eq!(world.wallets[BOB].manager.voucher_list(&bobs, None, 9).unwrap(), lists);
}

#[test]
fn a_journal_that_is_written_anew_makes_the_same_manager_and_is_short() {
    let mut world = World::new();
    let (end, bobs) = world.open(5_000, true);
    let first = world.pay(end, 3, 7);
    world.take(BOB, bobs, &first).unwrap();
    let back = Issue { end: bobs, lane: 5, amount: 2, conditions: Conditions::default() };
    let back = world.issue(BOB, back).unwrap();
    world.take(ALICE, end, &back).unwrap();
    for (wallet, end) in [(ALICE, end), (BOB, bobs)] {
        world.ask(wallet, Input::SubmitAll(end)).unwrap();
    }
    world.run();
    for n in 1..=1_000 {
        let voucher = world.pay(end, 0, n);
        world.take(BOB, bobs, &voucher).unwrap();
    }
    world.reserve(end, 20, Use::Lane(1));
    world.reserve(end, 9_000, Use::Pool);
    let lock = world.lock(end, 1, 10, b"secret", DELAY / 2);
    world.take(BOB, bobs, &lock).unwrap();
    world.ask(BOB, Input::SubmitAll(bobs)).unwrap();
    for wallet in [ALICE, BOB] {
        world.wallets[wallet].compact();
        for record in &world.wallets[wallet].journal {
            let Some(crate::wire::manager_record::Kind::End(end)) = &record.kind else { continue };
            // What the log has of a lane stands with the lane's place.
            let out = end.out.iter().map(|lane| (end.side, lane.lane, &lane.chain));
            let paid = end.paid.iter().map(|lane| (1 - end.side, lane.lane, &lane.chain));
            let chains: Vec<_> = out.chain(paid).filter_map(|(p, n, chain)| Some((p, n, chain.as_ref()?))).collect();
            assert_eq!(chains.len(), 2);
            assert!(chains.iter().all(|(payer, number, lane)| (lane.payer, lane.lane) == (*payer, *number)));
        }
        assert!(world.wallets[wallet].journal.len() < 10);
        world.crash(wallet);
    }
    world.run();
    assert_eq!(world.chain.channels[&end.channel].opener.as_ref().unwrap().sent, 1_007);
    assert_eq!(world.status(ALICE, &end).available, 0);
}

#[test]
fn an_old_backup_signs_no_more_once_the_log_knows_better() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let backup = world.wallets[ALICE].journal.clone();
    for n in 1..=5 {
        let voucher = world.pay(end, 0, n * 10);
        world.take(BOB, bobs, &voucher).unwrap();
    }
    world.ask(BOB, Input::SubmitAll(bobs)).unwrap();
    world.wallets[ALICE].journal = backup;
    world.crash(ALICE);
    world.run();
    assert!(world.wallets[ALICE].events.contains(&Event::Diverged(end)));
    let issue = Issue { end, lane: 1, amount: 1, conditions: Conditions::default() };
    assert_eq!(world.code(ALICE, Input::VoucherCreate(issue)), Code::ChannelDiverged);
    let status = world.status(ALICE, &end);
    assert_eq!((status.committed, status.available), (50, 50));
    // It still gets its rest.
    world.ask(ALICE, Input::Settle(end)).unwrap();
    world.run();
    world.pass(DELAY);
    world.ask(ALICE, Input::Collect(end)).unwrap();
    world.run();
    assert_eq!((world.paid_out(1), world.paid_out(2)), (50, 50));
}

#[test]
fn a_record_that_makes_no_sense_stops_signing_and_nothing_else() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    let mut record = world.chain.channels[&end.channel].clone();
    record.revision += 1;
    record.opener.as_mut().unwrap().withdrawn = 101;
    let time_ms = world.chain.now;
    world.ask(ALICE, Input::Seen { channel: end.channel, record: Box::new(record), time_ms }).unwrap();
    let status = world.status(ALICE, &end);
    assert_eq!((status.diverged, status.confirmed, status.available), (true, 0, 0));
    world.ask(ALICE, Input::Settle(end)).unwrap();
}

#[test]
fn an_old_backup_learns_its_own_vouchers_from_the_other_side() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let backup = world.wallets[ALICE].journal.clone();
    let voucher = world.pay(end, 0, 70);
    world.take(BOB, bobs, &voucher).unwrap();
    world.wallets[ALICE].journal = backup;
    world.crash(ALICE);
    let mut forged = voucher.clone();
    forged.signatures[0] = Bytes::from([&forged.signatures[0][..65], &[9]].concat());
    assert_eq!(world.code(ALICE, Input::VoucherAdd(incoming(end, &forged))), Code::KeyMismatch);
    world.take(ALICE, end, &voucher).unwrap();
    let status = world.status(ALICE, &end);
    assert_eq!((status.committed, status.available, status.diverged), (70, 30, false));
    let next = world.pay(end, 0, 80);
    assert_eq!(world.take(BOB, bobs, &next).unwrap().delta, 10);
}

#[test]
fn a_journal_that_no_manager_wrote_is_refused() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    world.pay(end, 0, 10);
    let wallet = &world.wallets[ALICE];
    for from in 1..wallet.journal.len() {
        let torn = &wallet.journal[from..];
        if let Err(e) = Manager::load(wallet.config.clone(), torn) {
            assert!(matches!(e.code, Code::StorageCorrupt | Code::UnknownChannel), "{e}");
        }
    }
    let empty = crate::wire::ManagerRecord { kind: None };
    assert_eq!(Manager::load(wallet.config.clone(), [&empty]).unwrap_err().code, Code::StorageCorrupt);
}

#[test]
#[should_panic(expected = "a sum of a channel is below zero")]
fn a_manager_whose_sums_make_no_sense_stops() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    world.wallets[ALICE].manager.ends.get_mut(&end).unwrap().money.locked = -1;
    world.reserve(end, 1, Use::Named);
}
