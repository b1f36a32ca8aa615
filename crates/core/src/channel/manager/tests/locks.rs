//! Vouchers that take a secret.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::world::*;
use crate::channel::manager::{
    Added, Conditions, EndId, Event, Exposed, Incoming, Input, Issue, Policy, Reply, Use, VirtualInput, VoucherState,
};
use crate::channel::voucher::Voucher;
use crate::error::Code;
use crate::wire;

const SECRET: &[u8] = b"a secret";
const SOON: u64 = DELAY / 2;

/// A channel of 100 with 10 paid and a lock of 30 more on lane 0, which Bob has.
fn locked(world: &mut World) -> (EndId, EndId, wire::SignedVoucher) {
    let (end, bobs) = world.channel(100);
    let paid = world.pay(end, 0, 10);
    world.take(BOB, bobs, &paid).unwrap();
    let lock = world.lock(end, 0, 40, SECRET, SOON);
    assert_eq!(world.take(BOB, bobs, &lock).unwrap(), Added { delta: 30, locked: true });
    (end, bobs, lock)
}

fn secret(end: EndId, lane: u32, secret: &'static [u8]) -> Input {
    Input::Secret { end, lane, secret: Bytes::from_static(secret) }
}

fn money(world: &World, wallet: usize, end: &EndId) -> (u64, u64, u64, u64) {
    let status = world.status(wallet, end);
    (status.committed, status.locked, status.available, status.locked_in)
}

fn issued(reply: Reply) -> wire::SignedVoucher {
    match reply {
        Reply::Issued { voucher: Some(voucher), .. } => voucher,
        other => panic!("{other:?}"),
    }
}

#[test]
fn locked_money_is_neither_paid_nor_available() {
    let mut world = World::new();
    let (end, bobs, lock) = locked(&mut world);
    assert_eq!(money(&world, ALICE, &end), (10, 30, 60, 0));
    assert_eq!(world.status(BOB, &bobs).voucher_redeemed, 10);
    assert_eq!(money(&world, BOB, &bobs).3, 30);
    assert_eq!(world.take(BOB, bobs, &lock).unwrap().delta, 0);
    // One lock a lane.
    let more = Issue { end, lane: 0, amount: 50, conditions: Conditions::default() };
    assert_eq!(world.code(ALICE, Input::VoucherCreate(more)), Code::LaneLocked);
    // Nor are virtual channels put where anything else was paid.
    world.pay(end, 1, 5);
    for lane in [0, 1] {
        let exposed = Exposed { most: 50, next_ms: 0 };
        let issue = VirtualInput::Issue { end, lane, amount: 50, set: None, exposed, until_ms: 0 };
        assert_eq!(world.code(ALICE, Input::Virtual(issue)), Code::LaneLocked, "lane {lane}");
    }
}

#[test]
fn a_lock_is_paid_by_an_unconditional_voucher_over_the_same() {
    let mut world = World::new();
    let (end, bobs, _) = locked(&mut world);
    let pay = |secret: &'static [u8]| Input::LockPaid { end, lane: 0, secret: Bytes::from_static(secret) };
    assert_eq!(world.code(ALICE, pay(b"wrong")), Code::VoucherSecret);
    let voucher = issued(world.ask(ALICE, pay(SECRET)).unwrap());
    let terms = Voucher::decode(&voucher).unwrap().terms;
    assert_eq!((terms.nonce, terms.amount, terms.not_after_ms), (3, 40, 0));
    assert_eq!(world.take(BOB, bobs, &voucher).unwrap(), Added { delta: 30, locked: false });
    assert_eq!(money(&world, ALICE, &end), (40, 0, 60, 0));
    assert_eq!(world.status(BOB, &bobs).voucher_redeemed, 40);
    assert_eq!(world.code(ALICE, pay(SECRET)), Code::NoLock);
    // Time changes nothing about it any more.
    world.pass(SOON + 1);
    assert_eq!(money(&world, ALICE, &end), (40, 0, 60, 0));
}

#[test]
fn the_payee_gives_a_lock_back_without_the_log() {
    let mut world = World::new();
    let (end, bobs, lock) = locked(&mut world);
    let cancel = Input::LockCancel { end: bobs, lane: 0 };
    let given = issued(world.ask(BOB, cancel.clone()).unwrap());
    assert_eq!(issued(world.ask(BOB, cancel).unwrap()), given, "the same again, in case it got lost");
    let terms = Voucher::decode(&given).unwrap().terms;
    assert_eq!((given.signer, terms.payer, terms.nonce, terms.amount), (1, 0, 3, 10));
    assert_eq!(world.status(BOB, &bobs).locked_in, 0);
    world.take(ALICE, end, &given).unwrap();
    world.take(ALICE, end, &given).unwrap();
    assert_eq!(money(&world, ALICE, &end), (10, 0, 90, 0));
    assert!(world.wallets[ALICE].effects.iter().any(|e| format!("{e:?}").contains("LockFreed")));
    // The lane goes on above the cancel.
    let next = world.pay(end, 0, 20);
    assert_eq!(Voucher::decode(&next).unwrap().terms.nonce, 4);
    assert_eq!(world.take(BOB, bobs, &next).unwrap().delta, 10);
    assert_eq!(world.take(BOB, bobs, &lock).unwrap().delta, 0, "it was given back");
    assert_eq!(world.status(BOB, &bobs).locked_in, 0);
}

#[test]
fn a_cancelled_lock_that_is_redeemed_all_the_same_is_answered() {
    let mut world = World::new();
    let (end, bobs, lock) = locked(&mut world);
    let given = issued(world.ask(BOB, Input::LockCancel { end: bobs, lane: 0 }).unwrap());
    world.take(ALICE, end, &given).unwrap();
    // Alice spends what came back; Bob cheats.
    world.pay(end, 1, 90);
    let redeem = wire::ChannelRedeem {
        claims: Vec::new(),
        redemptions: vec![wire::Redemption { voucher: Some(lock), secret: Bytes::from_static(SECRET), watch: None }],
    };
    let outputs = vec![wire::output::Kind::ChannelRedeem(redeem)];
    let message = crate::channel::manager::Message { account: account(2).1, inputs: Vec::new(), outputs };
    assert_eq!(world.chain.apply([9; 32], &message), None);
    assert_eq!(world.chain.channels[&end.channel].lanes[0].redeemed, 40);
    world.poll();
    world.run();
    assert_eq!(world.chain.channels[&end.channel].lanes[0].redeemed, 10, "the cancel took it back");
    assert_eq!(money(&world, ALICE, &end), (100, 0, 0, 0));
    assert!(!world.status(ALICE, &end).diverged);
}

#[test]
fn a_lock_ends_by_log_time_alone() {
    let mut world = World::new();
    let (end, bobs, _) = locked(&mut world);
    world.pass(SOON);
    assert_eq!(money(&world, ALICE, &end).1, 30, "its last millisecond");
    world.clock += 10 * DELAY;
    world.run();
    assert_eq!(money(&world, ALICE, &end).1, 30, "own clocks do not count");
    world.pass(1);
    assert_eq!(money(&world, ALICE, &end), (10, 0, 90, 0));
    assert!(world.wallets[ALICE].events.contains(&Event::LockFreed { end, lane: 0, amount: 30 }));
    assert_eq!(world.status(BOB, &bobs).locked_in, 0);
    assert_eq!(world.code(BOB, secret(bobs, 0, SECRET)), Code::NoLock);
    // After it the lane can be used for less than the lock was over.
    let next = world.pay(end, 0, 15);
    assert_eq!(world.take(BOB, bobs, &next).unwrap().delta, 5);
}

#[test]
fn an_own_clock_ahead_of_the_log_does_not_free_a_lock_that_was_redeemed_in_time() {
    let mut world = World::new();
    let (end, bobs, _) = locked(&mut world);
    world.ask(BOB, secret(bobs, 0, SECRET)).unwrap();
    let best = world.wallets[BOB].manager.voucher_list(&bobs, None, 9).unwrap().pop().unwrap();
    world.chain.now += SOON;
    world.ask(BOB, Input::VoucherSubmit { voucher: incoming(bobs, &best.voucher) }).unwrap();
    let now = world.now();
    while world.wallets[BOB].step(&mut world.chain, now) {}
    // Alice looks only after the time limit, and sees that it was redeemed before.
    world.chain.now += 1;
    world.poll();
    world.run();
    assert_eq!(money(&world, ALICE, &end), (40, 0, 60, 0));
    let redeemed = Event::Redeemed { end, payer: 0, lane: 0, amount: 40, secret: Bytes::from_static(SECRET) };
    assert!(world.wallets[ALICE].events.contains(&redeemed), "the payer learns the secret from the log");
}

#[test]
fn a_known_secret_is_used_before_the_lock_expires() {
    let mut world = World::new();
    let (end, bobs, _) = locked(&mut world);
    world.ask(BOB, secret(bobs, 0, SECRET)).unwrap();
    world.crash(BOB);
    world.pass(SOON / 2);
    assert!(world.chain.channels[&end.channel].lanes.is_empty(), "there is time, and Alice may still pay it herself");
    world.pass(SOON / 2 - 59_000);
    assert_eq!(world.chain.channels[&end.channel].lanes[0].redeemed, 40);
    assert_eq!(world.status(BOB, &bobs).confirmed, 40);
}

#[test]
fn a_secret_is_kept_and_used_when_the_other_side_settles() {
    let mut world = World::new();
    let (end, bobs, _) = locked(&mut world);
    world.ask(BOB, secret(bobs, 0, SECRET)).unwrap();
    assert_eq!(world.code(BOB, secret(bobs, 0, b"wrong")), Code::VoucherSecret);
    world.crash(BOB);
    world.ask(ALICE, Input::Settle(end)).unwrap();
    world.run();
    world.pass(DELAY);
    world.ask(BOB, Input::Collect(bobs)).unwrap();
    world.run();
    assert_eq!((world.paid_out(1), world.paid_out(2)), (60, 40));
}

#[test]
fn a_secret_that_comes_while_the_channel_settles_is_used_at_once() {
    let mut world = World::new();
    let (end, bobs, _) = locked(&mut world);
    world.ask(ALICE, Input::Settle(end)).unwrap();
    world.run();
    assert_eq!(world.chain.channels[&end.channel].lanes[0].redeemed, 10, "what needs no secret");
    world.ask(BOB, secret(bobs, 0, SECRET)).unwrap();
    world.run();
    assert_eq!(world.chain.channels[&end.channel].lanes[0].redeemed, 40);
}

#[test]
fn a_secret_can_come_with_its_voucher() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let lock = world.lock(end, 0, 40, SECRET, SOON);
    let with = |secret: &'static [u8]| Incoming { secret: Bytes::from_static(secret), ..incoming(bobs, &lock) };
    assert_eq!(world.code(BOB, Input::VoucherAdd(with(b"wrong"))), Code::VoucherSecret);
    world.take(BOB, bobs, &lock).unwrap();
    // The same again, now with its secret.
    world.ask(BOB, Input::VoucherSubmit { voucher: with(SECRET) }).unwrap();
    let listed = world.wallets[BOB].manager.voucher_list(&bobs, None, 9).unwrap();
    assert_eq!((listed[0].state, &listed[0].secret[..]), (VoucherState::SubmitPending, SECRET));
    world.run();
    assert_eq!(world.status(BOB, &bobs).confirmed, 40);
}

#[test]
fn a_lock_whose_secret_is_known_or_that_is_submitted_is_not_given_back() {
    let mut world = World::new();
    let (_, bobs, _) = locked(&mut world);
    world.ask(BOB, secret(bobs, 0, SECRET)).unwrap();
    assert_eq!(world.code(BOB, Input::LockCancel { end: bobs, lane: 0 }), Code::LockTerms);
    assert_eq!(world.code(BOB, Input::LockCancel { end: bobs, lane: 7 }), Code::NoLock);
}

#[test]
fn what_is_locked_is_not_given_up_for_less() {
    let mut world = World::new();
    let (_, bobs, lock) = locked(&mut world);
    let terms = Voucher::decode(&lock).unwrap().terms;
    let key = account(1).0;
    let less = wire::Voucher { nonce: 3, amount: 39, secret_hash: Bytes::new(), not_after_ms: 0, ..terms.clone() };
    let refused = Voucher::sign(less, 0, &[&key]).signed();
    assert_eq!(world.code(BOB, Input::VoucherAdd(incoming(bobs, &refused))), Code::VoucherNotAbove);
    let second = Voucher::sign(wire::Voucher { nonce: 3, amount: 50, ..terms }, 0, &[&key]).signed();
    assert_eq!(world.code(BOB, Input::VoucherAdd(incoming(bobs, &second))), Code::LaneLocked);
}

#[test]
fn locked_money_is_not_taken_for_another_voucher() {
    let mut world = World::new();
    let (_, bobs, lock) = locked(&mut world);
    let terms = Voucher::decode(&lock).unwrap().terms;
    let key = account(1).0;
    let other = |amount| {
        let free =
            wire::Voucher { lane: 1, nonce: 1, amount, secret_hash: Bytes::new(), not_after_ms: 0, ..terms.clone() };
        Voucher::sign(free, 0, &[&key]).signed()
    };
    assert_eq!(world.code(BOB, Input::VoucherAdd(incoming(bobs, &other(61)))), Code::ChannelFunds);
    world.take(BOB, bobs, &other(60)).unwrap();
}

#[test]
fn locks_have_bounds() {
    let policy = Policy { locks_max: 2, lock_min: 5, lock_max_ms: SOON, ..Policy::default() };
    let mut world = World::with(policy);
    let (end, _) = world.channel(100);
    let lock = |lane, amount, until| {
        let secret_hash = Some(Sha256::digest(SECRET).into());
        let conditions = Conditions { secret_hash, not_before_ms: 0, not_after_ms: until };
        Input::VoucherCreate(Issue { end, lane, amount, conditions })
    };
    let now = world.chain.now;
    assert_eq!(world.code(ALICE, lock(0, 10, now + SOON + 1)), Code::LockTerms, "too long");
    assert_eq!(world.code(ALICE, lock(0, 10, 0)), Code::LockTerms, "without an end");
    assert_eq!(world.code(ALICE, lock(0, 4, now + 1)), Code::LockTerms, "too small");
    world.ask(ALICE, lock(0, 10, now + SOON)).unwrap();
    world.ask(ALICE, lock(1, 10, now + SOON)).unwrap();
    assert_eq!(world.code(ALICE, lock(2, 10, now + SOON)), Code::LockTerms, "too many");
}

#[test]
fn a_lock_ends_before_a_settle_or_a_withdrawal_of_its_payee_could_be_over() {
    let mut world = World::new();
    let (end, bobs) = world.open(100, true);
    let lock = |world: &World, lane, ms| {
        let secret_hash = Some(Sha256::digest(SECRET).into());
        let conditions = Conditions { secret_hash, not_before_ms: 0, not_after_ms: world.chain.now + ms };
        Input::VoucherCreate(Issue { end, lane, amount: 1, conditions })
    };
    let margins = 60_000;
    let late = lock(&world, 0, DELAY - margins + 1);
    assert_eq!(world.code(ALICE, late), Code::LockTerms);
    let in_time = lock(&world, 0, DELAY - margins);
    world.ask(ALICE, in_time).unwrap();
    let voucher = world.pay(end, 1, 50);
    world.take(BOB, bobs, &voucher).unwrap();
    world.ask(BOB, Input::Leave { end: bobs, amount: 50 }).unwrap();
    world.run();
    world.pass(600_000);
    let late = lock(&world, 2, DELAY - 600_000 - margins + 1);
    assert_eq!(world.code(ALICE, late), Code::LockTerms);
    let in_time = lock(&world, 2, DELAY - 600_000 - margins);
    world.ask(ALICE, in_time).unwrap();
}

#[test]
fn a_lock_uses_up_its_lanes_reservation_and_gives_it_back_as_available() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    world.reserve(end, 60, Use::Lane(0));
    world.lock(end, 0, 40, SECRET, SOON);
    assert_eq!((world.status(ALICE, &end).reserved, world.status(ALICE, &end).locked), (20, 40));
    world.pass(SOON + 1);
    let status = world.status(ALICE, &end);
    assert_eq!((status.reserved, status.locked, status.available), (20, 0, 80));
}
