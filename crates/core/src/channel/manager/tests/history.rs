//! What the log brings late, from an older self or from the other side, and what is done about it.

use bytes::Bytes;
use prost::Message as _;

use super::world::*;
use crate::channel::manager::redeem::fit;
use crate::channel::manager::{
    Conditions, Effect, EndId, EndState, Event, Exposed, Incoming, Input, Issue, Reply, Use, VirtualInput,
};
use crate::channel::rules;
use crate::channel::voucher::Voucher;
use crate::error::Code;
use crate::limits::CALL_BYTES_MAX;
use crate::wire::{self, output};

const SECRET: &[u8] = b"secret";
const UNTIL: u64 = START + DELAY / 2;

/// Redeems in the log, as if its holder did, whatever its manager says.
fn redeem(world: &mut World, end: &EndId, voucher: &wire::SignedVoucher, secret: &[u8]) {
    let voucher = Voucher::decode(voucher).unwrap();
    let at = rules::At { channel: &end.channel, side: 1, now_ms: world.chain.now, verify: true };
    let record = world.chain.channels.get_mut(&end.channel).unwrap();
    rules::redeem(record, &voucher, secret, at).unwrap();
    record.revision += 1;
}

/// Shows a wallet the channel as it is.
fn look(world: &mut World, wallet: usize, end: &EndId) {
    let record = Box::new(world.chain.channels[&end.channel].clone());
    let time_ms = world.chain.now;
    world.ask(wallet, Input::Seen { channel: end.channel, record, time_ms }).unwrap();
}

fn issued(reply: Reply) -> wire::SignedVoucher {
    match reply {
        Reply::Issued { voucher: Some(voucher), shortfall: 0 } => voucher,
        other => panic!("{other:?}"),
    }
}

/// Vouchers in each redeeming message that a wallet is asked to sign or has signed, in this order.
fn redeems(world: &World, wallet: usize) -> Vec<usize> {
    let asked = world.wallets[wallet].effects.iter().filter_map(|effect| match effect {
        Effect::Prepare { message, .. } => Some(message),
        _ => None,
    });
    let all = asked.chain(world.wallets[wallet].signed.values()).flat_map(|message| &message.outputs);
    let redeems = all.filter_map(|output| match output {
        output::Kind::ChannelRedeem(redeem) => Some(redeem.redemptions.len()),
        _ => None,
    });
    redeems.collect()
}

fn money(world: &World, wallet: usize, end: &EndId) -> (u64, u64, u64) {
    let status = world.status(wallet, end);
    (status.committed, status.locked, status.available)
}

/// A channel of 100: 10 paid on lane 0, and a lock of 30 more.
fn locked(world: &mut World) -> (EndId, EndId, [wire::SignedVoucher; 2]) {
    let (end, bobs) = world.channel(100);
    let paid = world.pay(end, 0, 10);
    world.take(BOB, bobs, &paid).unwrap();
    let lock = world.lock(end, 0, 40, SECRET, DELAY / 2);
    world.take(BOB, bobs, &lock).unwrap();
    (end, bobs, [paid, lock])
}

#[test]
fn what_was_paid_before_a_lock_is_redeemed_without_it() {
    let mut world = World::new();
    let (end, bobs, [paid, _]) = locked(&mut world);
    redeem(&mut world, &end, &paid, &[]);
    look(&mut world, ALICE, &end);
    look(&mut world, BOB, &bobs);
    assert_eq!((money(&world, ALICE, &end), world.status(BOB, &bobs).locked_in), ((10, 30, 60), 30));
}

#[test]
fn a_lock_lives_through_its_last_millisecond() {
    let mut world = World::new();
    let (end, bobs, _) = locked(&mut world);
    let other = world.lock(end, 1, 20, SECRET, DELAY / 2);
    world.take(BOB, bobs, &other).unwrap();
    let given = issued(world.ask(BOB, Input::LockCancel { end: bobs, lane: 1 }).unwrap());
    world.take(ALICE, end, &given).unwrap();
    // Something else has changed: the record comes with its time.
    for (at, locked, cancels) in [(UNTIL, 30, 1), (UNTIL + 1, 0, 0)] {
        world.chain.now = at;
        world.chain.channels.get_mut(&end.channel).unwrap().revision += 1;
        look(&mut world, ALICE, &end);
        look(&mut world, BOB, &bobs);
        assert_eq!((world.status(ALICE, &end).locked, world.status(BOB, &bobs).locked_in), (locked, locked));
        assert_eq!(world.wallets[ALICE].manager.held_nonces(&end).unwrap().len(), cancels);
    }
}

#[test]
fn the_time_of_an_older_record_frees_nothing() {
    let mut world = World::new();
    let (end, _, _) = locked(&mut world);
    let old = world.chain.channels[&end.channel].clone();
    world.chain.channels.get_mut(&end.channel).unwrap().revision += 1;
    look(&mut world, ALICE, &end);
    let journal = world.wallets[ALICE].journal.len();
    let seen = Input::Seen { channel: end.channel, record: Box::new(old), time_ms: UNTIL + 1 };
    world.ask(ALICE, seen).unwrap();
    assert_eq!((money(&world, ALICE, &end), world.wallets[ALICE].journal.len()), ((10, 30, 60), journal));
}

#[test]
fn a_lane_whose_lock_was_given_back_is_honest_until_the_lock_is_redeemed() {
    let mut world = World::new();
    let (end, bobs, [paid, _]) = locked(&mut world);
    let given = issued(world.ask(BOB, Input::LockCancel { end: bobs, lane: 0 }).unwrap());
    world.take(ALICE, end, &given).unwrap();
    redeem(&mut world, &end, &paid, &[]);
    look(&mut world, ALICE, &end);
    assert_eq!((redeems(&world, ALICE), money(&world, ALICE, &end)), (vec![], (10, 0, 90)));
    // It is kept as long as the lock, and no longer.
    assert_eq!(world.wallets[ALICE].manager.held_nonces(&end).unwrap(), [(0, 0, 3)]);
    world.chain.now = UNTIL + 1;
    look(&mut world, ALICE, &end);
    assert_eq!(world.wallets[ALICE].manager.held_nonces(&end).unwrap(), []);

    let mut world = World::new();
    let (end, bobs, [_, lock]) = locked(&mut world);
    let given = issued(world.ask(BOB, Input::LockCancel { end: bobs, lane: 0 }).unwrap());
    world.take(ALICE, end, &given).unwrap();
    redeem(&mut world, &end, &lock, SECRET);
    look(&mut world, ALICE, &end);
    assert_eq!((redeems(&world, ALICE), money(&world, ALICE, &end)), (vec![1], (10, 0, 90)));
}

#[test]
fn an_answer_that_the_log_refuses_is_given_again() {
    let mut world = World::new();
    let (end, bobs, [_, lock]) = locked(&mut world);
    let given = issued(world.ask(BOB, Input::LockCancel { end: bobs, lane: 0 }).unwrap());
    world.take(ALICE, end, &given).unwrap();
    redeem(&mut world, &end, &lock, SECRET);
    look(&mut world, ALICE, &end);
    world.chain.refuse = vec![Code::Busy];
    world.run();
    let lane = |world: &World| world.chain.channels[&end.channel].lanes[0].redeemed;
    world.pass(9_999);
    assert_eq!((redeems(&world, ALICE), lane(&world)), (vec![1], 40));
    world.pass(1);
    assert_eq!((redeems(&world, ALICE), lane(&world)), (vec![1, 1], 10));
}

#[test]
fn a_lock_after_one_that_was_given_back_is_paid_when_it_is_redeemed() {
    let mut world = World::new();
    let (end, bobs, _) = locked(&mut world);
    let given = issued(world.ask(BOB, Input::LockCancel { end: bobs, lane: 0 }).unwrap());
    world.take(ALICE, end, &given).unwrap();
    let second = world.lock(end, 0, 55, b"another", DELAY / 2);
    world.take(BOB, bobs, &second).unwrap();
    redeem(&mut world, &end, &second, b"another");
    look(&mut world, ALICE, &end);
    assert_eq!((money(&world, ALICE, &end), redeems(&world, ALICE)), ((55, 0, 45), vec![]));
    let redeemed = Event::Redeemed { end, payer: 0, lane: 0, amount: 55, secret: Bytes::from_static(b"another") };
    assert!(world.wallets[ALICE].effects.contains(&Effect::Event(redeemed)));
}

#[test]
fn claims_on_the_newest_voucher_of_virtual_channels_are_paid_and_not_answered() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let exposed = Exposed { most: 80, next_ms: UNTIL };
    let issue = VirtualInput::Issue { end, lane: 0, amount: 10, set: None, exposed, until_ms: UNTIL };
    let voucher = issued(world.ask(ALICE, Input::Virtual(issue)).unwrap());
    let add = VirtualInput::Add { end: bobs, voucher: voucher.clone(), exposed };
    let back = issued(world.ask(BOB, Input::Virtual(add)).unwrap());
    let ack = |voucher: &wire::SignedVoucher| {
        Input::Virtual(VirtualInput::Ack { end, voucher: voucher.clone(), exposed, until_ms: UNTIL })
    };
    assert_eq!(world.code(ALICE, ack(&voucher)), Code::VoucherSigner, "her own");
    let other = wire::Voucher { amount: 9, ..Voucher::decode(&voucher).unwrap().terms };
    let other = Voucher::sign(other, 1, &[&account(2).0]).signed();
    assert_eq!(world.code(ALICE, ack(&other)), Code::VoucherSigner, "not what she has signed");
    let mut forged = back.clone();
    forged.signatures = voucher.signatures.clone();
    assert_eq!(world.code(ALICE, ack(&forged)), Code::KeyMismatch);
    world.ask(ALICE, ack(&back)).unwrap();
    let journal = world.wallets[ALICE].journal.len();
    world.ask(ALICE, ack(&back)).unwrap();
    assert_eq!(world.wallets[ALICE].journal.len(), journal, "the same again");
    redeem(&mut world, &end, &voucher, &[]);
    let record = world.chain.channels.get_mut(&end.channel).unwrap();
    (record.lanes[0].redeemed, rules::side_mut(record, 0).sent) = (35, 35);
    record.revision += 1;
    look(&mut world, ALICE, &end);
    assert_eq!((money(&world, ALICE, &end), redeems(&world, ALICE)), ((35, 45, 20), vec![]));
    look(&mut world, BOB, &bobs);
    let status = world.status(BOB, &bobs);
    assert_eq!((status.confirmed, status.received, status.locked_in), (35, 0, 45));
}

#[test]
fn an_older_self_is_stopped_by_any_voucher_that_it_does_not_know() {
    // What the journal has of the lane; the nonce and amount that the log has; whether that is strange.
    let cases = [(0, 5, 50, true), (1, 5, 50, true), (1, 1, 10, false), (0, 0, 1, true), (0, 0, 0, false)];
    for (known, nonce, redeemed, strange) in cases {
        let mut world = World::new();
        let (end, _) = world.channel(100);
        for _ in 0..known {
            world.pay(end, 6, 10);
        }
        let record = world.chain.channels.get_mut(&end.channel).unwrap();
        record.lanes.push(wire::ChannelLane { payer: 0, lane: 6, nonce, redeemed, ..Default::default() });
        rules::side_mut(record, 0).sent = redeemed;
        record.revision += 1;
        look(&mut world, ALICE, &end);
        let found = world.status(ALICE, &end).diverged;
        assert_eq!(found, strange, "{known} known, {nonce} and {redeemed} in the log");
        assert_eq!(world.status(ALICE, &end).committed, redeemed.max(10 * known));
        assert_eq!(world.ask(ALICE, Input::AllocateLane(end)).unwrap(), Reply::Lane(7), "its lane is taken");
    }
}

#[test]
fn a_channel_that_was_collected_keeps_nothing() {
    let mut world = World::new();
    let (end, bobs, _) = locked(&mut world);
    let named = world.reserve(end, 10, Use::Named).0;
    world.reserve(end, 10, Use::Pool);
    world.ask(ALICE, Input::Settle(end)).unwrap();
    world.run();
    world.pass(DELAY);
    world.ask(ALICE, Input::Collect(end)).unwrap();
    world.run();
    for (wallet, end) in [(ALICE, end), (BOB, bobs)] {
        let manager = &world.wallets[wallet].manager;
        assert_eq!(manager.voucher_list(&end, None, 9).unwrap(), []);
        assert_eq!((manager.pool(&end).unwrap(), manager.reservation(&end, named).unwrap()), (0, None));
        let status = manager.status(&end).unwrap();
        assert_eq!(status.state, EndState::Collected);
        assert_eq!(
            (status.confirmed, status.reserved, status.committed, status.locked_in, status.available),
            (0, 0, 0, 0, 0)
        );
    }
    assert_eq!(world.ask(ALICE, Input::Release { end, reservation: named }).unwrap(), Reply::Released(0));
}

#[test]
fn what_cannot_be_redeemed_is_not_submitted() {
    let mut world = World::new();
    let (end, bobs, [_, lock]) = locked(&mut world);
    let submit = |end, voucher: &wire::SignedVoucher| Input::VoucherSubmit { voucher: incoming(end, voucher) };
    assert_eq!(world.code(BOB, submit(bobs, &lock)), Code::VoucherSecret, "its secret is not known");
    let given = issued(world.ask(BOB, Input::LockCancel { end: bobs, lane: 0 }).unwrap());
    assert_eq!(world.code(BOB, submit(bobs, &lock)), Code::NoLock, "it was given back");
    assert_eq!(world.code(BOB, submit(bobs, &given)), Code::VoucherSigner);
    world.take(ALICE, end, &given).unwrap();
    assert_eq!(world.code(ALICE, submit(end, &given)), Code::VoucherSigner, "it pays nothing");
    assert_eq!(world.code(ALICE, submit(end, &lock)), Code::VoucherSigner, "her own");
    let known = world.pay(end, 0, 11);
    world.take(BOB, bobs, &known).unwrap();
    let proof = Incoming { proof: "p".into(), ..incoming(bobs, &known) };
    assert_eq!(world.code(BOB, Input::VoucherSubmit { voucher: proof }), Code::ProofRefused);
    assert_eq!((redeems(&world, ALICE), redeems(&world, BOB)), (vec![], vec![]));
}

#[test]
fn a_refused_message_is_tried_again_16_times_and_more_while_the_channel_settles() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let voucher = world.pay(end, 0, 10);
    world.take(BOB, bobs, &voucher).unwrap();
    world.ask(ALICE, Input::Settle(end)).unwrap();
    let now = world.now();
    while world.wallets[ALICE].step(&mut world.chain, now) {}
    world.chain.refuse = vec![Code::Busy; 99];
    world.run();
    let (mut at, mut times, mut sent) = (0, vec![0], 1);
    while at < 1_000 {
        at += 5;
        world.pass(5_000);
        let now = redeems(&world, BOB).len();
        times.extend((sent < now).then_some(at));
        sent = now;
    }
    // Twice as long each time, up to a 16th of the delay, which is 225 s.
    assert_eq!(times, [0, 10, 30, 70, 150, 310, 535, 760, 985]);
}

#[test]
fn what_was_refused_once_does_not_make_later_ones_go_alone() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let voucher = world.pay(end, 0, 10);
    world.take(BOB, bobs, &voucher).unwrap();
    world.chain.refuse = vec![Code::Busy];
    world.ask(BOB, Input::SubmitAll(bobs)).unwrap();
    world.run();
    world.pass(10_000);
    assert_eq!(redeems(&world, BOB), [1], "nothing is urgent");
    for lane in [1, 2] {
        let lock = world.lock(end, lane, 10, SECRET, DELAY / 2);
        let with = Incoming { secret: Bytes::from_static(SECRET), ..incoming(bobs, &lock) };
        world.ask(BOB, Input::VoucherAdd(with)).unwrap();
    }
    world.pass(DELAY / 2 - 60_001);
    assert_eq!(redeems(&world, BOB), [1], "there is time");
    world.pass(1);
    let mut sent = redeems(&world, BOB);
    sent.sort_unstable();
    assert_eq!((sent, world.status(BOB, &bobs).confirmed), (vec![1, 2], 20));
}

#[test]
fn redemptions_are_as_many_in_a_message_as_fit_into_its_bytes() {
    let one = wire::Redemption { secret: vec![1; 1_000].into(), ..Default::default() };
    let bytes = one.encoded_len() + 4;
    let fits = (CALL_BYTES_MAX - 512) / bytes;
    assert!((2..60).contains(&fits), "bytes decide, not the number");
    let sizes = |n, each| fit(vec![one.clone(); n], each).iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes(fits, usize::MAX), [fits]);
    assert_eq!(sizes(2 * fits + 1, usize::MAX), [fits, fits, 1]);
    assert_eq!(sizes(3, 2), [2, 1]);
    assert_eq!(sizes(3, 1), [1, 1, 1]);
    assert!(sizes(0, 1).is_empty());
}

#[test]
fn a_conditional_voucher_without_a_secret_is_redeemed_in_its_time_only() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let conditions = Conditions { secret_hash: None, not_before_ms: START + 600_000, not_after_ms: UNTIL };
    let voucher = world.issue(ALICE, Issue { end, lane: 0, amount: 10, conditions }).unwrap();
    world.take(BOB, bobs, &voucher).unwrap();
    world.pass(599_999);
    assert_eq!(world.ask(BOB, Input::SubmitAll(bobs)).unwrap(), Reply::Ops(Vec::new()));
    world.pass(1);
    let Reply::Ops(ops) = world.ask(BOB, Input::SubmitAll(bobs)).unwrap() else { panic!() };
    assert_eq!(ops.len(), 1);
    world.run();
    assert_eq!(world.status(BOB, &bobs).confirmed, 10);
}

#[test]
fn a_submit_that_is_refused_has_stored_nothing() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let lock = world.lock(end, 0, 40, SECRET, DELAY / 2);
    let submit = |end, voucher: &wire::SignedVoucher| Input::VoucherSubmit { voucher: incoming(end, voucher) };
    // A lock without its secret can't be redeemed; it was not taken either.
    assert_eq!(world.code(BOB, submit(bobs, &lock)), Code::VoucherSecret);
    assert_eq!(world.status(BOB, &bobs).locked_in, 0);
    assert_eq!(world.take(BOB, bobs, &lock).unwrap().delta, 40);
    world.crash(BOB);
    assert_eq!(world.status(BOB, &bobs).locked_in, 40, "what was acknowledged is there after a crash");
    // Nor is what the payee gives back, or what an older self has signed.
    let given = issued(world.ask(BOB, Input::LockCancel { end: bobs, lane: 0 }).unwrap());
    assert_eq!(world.code(ALICE, submit(end, &given)), Code::VoucherSigner);
    assert_eq!(money(&world, ALICE, &end), (0, 40, 60));
    world.take(ALICE, end, &given).unwrap();
    let backup = world.wallets[ALICE].journal.clone();
    let paid = world.pay(end, 1, 70);
    world.wallets[ALICE].journal = backup;
    world.crash(ALICE);
    assert_eq!(world.code(ALICE, submit(end, &paid)), Code::VoucherSigner);
    assert_eq!(money(&world, ALICE, &end), (0, 0, 100));
    world.take(ALICE, end, &paid).unwrap();
    world.crash(ALICE);
    assert_eq!(money(&world, ALICE, &end), (70, 0, 30));
    // With its secret a lock is stored on the way.
    let lock = world.lock(end, 2, 10, SECRET, DELAY / 2);
    let with = Incoming { secret: Bytes::from_static(SECRET), ..incoming(bobs, &lock) };
    world.ask(BOB, Input::VoucherSubmit { voucher: with }).unwrap();
    world.run();
    assert_eq!(world.status(BOB, &bobs).confirmed, 10);
}
