//! What the log says, as it is told to users, and what its time ends.

use bytes::Bytes;

use super::world::*;
use crate::channel::manager::{Effect, EndId, Event, Exposed, Input, OpState, Policy, Reply, Use, VirtualInput};
use crate::channel::rules;
use crate::error::Code;
use crate::limits::{AMOUNT_MAX, LANES_MAX};
use crate::ordered::modules::channels::UNDECIDED;
use crate::wire::{ChannelLane, ChannelRecord, ChannelSide};

/// Shows a wallet the channel with a change; the events that follow.
fn show(world: &mut World, wallet: usize, end: &EndId, change: impl Fn(&mut ChannelRecord)) -> Vec<Event> {
    let record = world.chain.channels.get_mut(&end.channel).unwrap();
    change(record);
    record.revision += 1;
    again(world, wallet, end)
}

/// Shows a wallet the channel as it is.
fn again(world: &mut World, wallet: usize, end: &EndId) -> Vec<Event> {
    world.wallets[wallet].effects.clear();
    let record = Box::new(world.chain.channels[&end.channel].clone());
    let time_ms = world.chain.now;
    world.ask(wallet, Input::Seen { channel: end.channel, record, time_ms }).unwrap();
    let effects = world.wallets[wallet].effects.iter();
    effects.filter_map(|effect| if let Effect::Event(event) = effect { Some(event.clone()) } else { None }).collect()
}

fn lane(payer: u32, lane: u32, nonce: u64, redeemed: u64) -> ChannelLane {
    ChannelLane { payer, lane, nonce, redeemed, ..Default::default() }
}

#[test]
fn every_change_of_a_channel_is_said_once_and_nothing_else() {
    let mut world = World::new();
    let (_, bobs) = world.open(100, true);
    // A wallet that sees it for the first time.
    world.wallets[BOB] = Wallet::new(&[2], Policy::default());
    assert_eq!(again(&mut world, BOB, &bobs), [Event::Opened(bobs)]);
    assert_eq!(again(&mut world, BOB, &bobs), []);
    assert_eq!(show(&mut world, BOB, &bobs, |_| {}), []);
    let found = show(&mut world, BOB, &bobs, |record| rules::side_mut(record, 0).deposited += 5);
    assert_eq!(found, [], "the other side's money");
    let found = show(&mut world, BOB, &bobs, |record| rules::side_mut(record, 1).deposited += 7);
    assert_eq!(found, [Event::Deposited { end: bobs, amount: 7 }]);
    let found = show(&mut world, BOB, &bobs, |record| {
        rules::side_mut(record, 0).sent += 30;
        record.lanes = vec![lane(0, 3, 2, 30)];
    });
    let redeemed = |payer, lane, amount| Event::Redeemed { end: bobs, payer, lane, amount, secret: Bytes::new() };
    assert_eq!(found, [redeemed(0, 3, 30)]);
    let found = show(&mut world, BOB, &bobs, |record| {
        rules::side_mut(record, 0).sent += 11;
        record.lanes = vec![lane(0, 3, 2, 30), lane(0, 4, 1, 11)];
    });
    assert_eq!(found, [redeemed(0, 4, 11)]);
    let leaving = |record: &mut ChannelRecord, side, amount, at| {
        let of = rules::side_mut(record, side);
        (of.leaving, of.leaving_at_ms) = (amount, at);
    };
    assert_eq!(show(&mut world, BOB, &bobs, |record| leaving(record, 1, 3, UNDECIDED)), [], "its own");
    let announced = |at_ms| Event::WithdrawalAnnounced { end: bobs, amount: 9, at_ms };
    let at = world.chain.now + DELAY;
    assert_eq!(show(&mut world, BOB, &bobs, |record| leaving(record, 0, 9, UNDECIDED)), [announced(UNDECIDED)]);
    assert_eq!(show(&mut world, BOB, &bobs, |_| {}), []);
    assert_eq!(show(&mut world, BOB, &bobs, |record| leaving(record, 0, 9, at)), [announced(at)]);
    assert_eq!(show(&mut world, BOB, &bobs, |record| leaving(record, 0, 0, 0)), [], "taken back");
    let settling = |at_ms| Event::Settling { end: bobs, at_ms };
    assert_eq!(show(&mut world, BOB, &bobs, |r| r.settling_at_ms = UNDECIDED), [settling(UNDECIDED)]);
    assert_eq!(show(&mut world, BOB, &bobs, |record| record.settling_at_ms = at), [settling(at)]);
    assert_eq!(show(&mut world, BOB, &bobs, |_| {}), []);
    assert_eq!(show(&mut world, BOB, &bobs, |record| record.collected = true), [Event::Collected(bobs)]);
    assert_eq!(show(&mut world, BOB, &bobs, |_| {}), []);
}

#[test]
fn what_waits_for_money_fails_as_soon_as_a_settle_is_seen() {
    for at_ms in [UNDECIDED, START + DELAY] {
        let mut world = World::new();
        let (end, _) = world.channel(10);
        let first = world.add(end, 5);
        let queued = world.add(end, 7);
        let waits = world.reserve(end, 50, Use::Named).0;
        let found = show(&mut world, ALICE, &end, |record| record.settling_at_ms = at_ms);
        let failed = Event::ReservationFailed { end, reservation: waits };
        assert_eq!(found, [failed, Event::Settling { end, at_ms }]);
        assert!(
            matches!(world.state(ALICE, queued), OpState::Failed { code, .. } if code == Code::ChannelSettling as u32)
        );
        assert!(world.state(ALICE, first).is_open(), "its message may still go through");
        assert_eq!(world.status(ALICE, &end).queued, 0);
    }
}

#[test]
fn a_record_that_the_log_cannot_have_is_refused() {
    let mut world = World::new();
    let (end, _) = world.channel(10);
    let good = world.chain.channels[&end.channel].clone();
    let seen = |world: &mut World, change: &dyn Fn(&mut ChannelRecord)| {
        let mut record = Box::new(good.clone());
        record.revision += 1;
        change(&mut record);
        world.ask(BOB, Input::Seen { channel: end.channel, record, time_ms: START }).map_err(|e| e.code)
    };
    let journal = world.wallets[BOB].journal.len();
    type Change = fn(&mut ChannelRecord, u64);
    let amounts: [Change; 4] = [
        |r, amount| rules::side_mut(r, 0).deposited = amount,
        |r, amount| rules::side_mut(r, 1).withdrawn = amount,
        |r, amount| rules::side_mut(r, 0).sent = amount,
        |r, amount| rules::side_mut(r, 1).leaving = amount,
    ];
    for amount in amounts {
        assert_eq!(seen(&mut world, &|r| amount(r, AMOUNT_MAX + 1)), Err(Code::BadAmount));
        assert_eq!(seen(&mut world, &|r| amount(r, u64::MAX)), Err(Code::BadAmount));
    }
    assert_eq!(seen(&mut world, &|r| r.opener = None), Err(Code::BadContent));
    assert_eq!(seen(&mut world, &|r| r.other = None), Err(Code::BadContent));
    assert_eq!(seen(&mut world, &|r| rules::side_mut(r, 0).address.truncate(31)), Err(Code::BadContent));
    assert!(seen(&mut world, &|r| rules::side_mut(r, 0).permission = Bytes::from_static(b"none")).is_err());
    assert_eq!(seen(&mut world, &|r| r.lanes = vec![lane(2, 0, 1, 1)]), Err(Code::BadContent));
    assert_eq!(seen(&mut world, &|r| r.lanes = vec![lane(0, LANES_MAX, 1, 1)]), Err(Code::VoucherLane));
    assert_eq!(world.wallets[BOB].journal.len(), journal);
    assert_eq!(seen(&mut world, &|r| r.lanes = vec![lane(0, LANES_MAX - 1, 1, 1)]), Ok(Reply::Done));
    assert_eq!(world.wallets[BOB].journal.len(), journal + 1);
    for (n, amount) in amounts.into_iter().enumerate() {
        let newer = |r: &mut ChannelRecord| {
            amount(r, AMOUNT_MAX);
            r.revision += 1 + n as u64;
        };
        assert_eq!(seen(&mut world, &newer), Ok(Reply::Done));
    }
}

#[test]
fn a_channel_of_others_is_nothing_to_a_wallet() {
    let mut world = World::new();
    let (end, _) = world.channel(10);
    let mut record = Box::new(world.chain.channels[&end.channel].clone());
    let side = |number| {
        let (_, address, permission) = account(number);
        Some(ChannelSide { address: Bytes::copy_from_slice(address.as_bytes()), permission, ..Default::default() })
    };
    (record.opener, record.other) = (side(7), side(8));
    let journal = world.wallets[ALICE].journal.len();
    world.ask(ALICE, Input::Seen { channel: [3; 32], record, time_ms: START }).unwrap();
    assert_eq!(world.wallets[ALICE].journal.len(), journal);
    assert_eq!(world.wallets[ALICE].manager.list(None, None, 9), [end]);
}

/// Records that a look at the channel writes.
fn looks(world: &mut World, wallet: usize, end: &EndId, at_ms: u64) -> usize {
    world.chain.now = at_ms;
    let before = world.wallets[wallet].journal.len();
    again(world, wallet, end);
    world.wallets[wallet].journal.len() - before
}

#[test]
fn time_is_written_down_only_when_it_ends_something() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let until = START + DELAY / 2;
    let lock = world.lock(end, 0, 40, b"secret", DELAY / 2);
    world.take(BOB, bobs, &lock).unwrap();
    for (wallet, at) in [(ALICE, end), (BOB, bobs)] {
        let found = [START + 1, until, until + 1, until + 1, until + 2, until + DELAY];
        assert_eq!(found.map(|ms| looks(&mut world, wallet, &at, ms)), [0, 0, 1, 0, 0, 0], "wallet {wallet}");
    }
}

#[test]
fn a_limit_of_virtual_channels_is_written_down_once() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    let until = START + DELAY / 2;
    let exposed = Exposed { most: 50, next_ms: until };
    let issue = VirtualInput::Issue { end, lane: 0, amount: 0, set: None, exposed, until_ms: until };
    world.ask(ALICE, Input::Virtual(issue)).unwrap();
    let found = [START + 1, until, until + 1, until + 1, until + 2];
    assert_eq!(found.map(|ms| looks(&mut world, ALICE, &end, ms)), [0, 0, 1, 0, 0]);
}

#[test]
fn a_cancel_is_kept_as_long_as_its_lock_could_be_redeemed() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let lock = world.lock(end, 0, 40, b"secret", DELAY / 2);
    world.take(BOB, bobs, &lock).unwrap();
    let Reply::Issued { voucher: Some(given), .. } = world.ask(BOB, Input::LockCancel { end: bobs, lane: 0 }).unwrap()
    else {
        panic!()
    };
    world.take(ALICE, end, &given).unwrap();
    let until = START + DELAY / 2;
    let listed = |world: &World| {
        let all = world.wallets[ALICE].manager.voucher_list(&end, None, 9).unwrap();
        all.iter().map(|one| (one.nonce, one.voucher.signer)).collect::<Vec<_>>()
    };
    for (at, records, kept) in [(until, 0, 2), (until + 1, 1, 1), (until + 1, 0, 1), (until + 2, 0, 1)] {
        assert_eq!(looks(&mut world, ALICE, &end, at), records);
        assert_eq!(listed(&world), [(1, 0), (2, 1)][..kept], "{} ms after", at - until);
    }
    assert_eq!(world.wallets[ALICE].manager.held_nonces(&end).unwrap(), []);
}

#[test]
fn a_cancel_that_still_has_to_answer_outlives_its_lock() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let lock = world.lock(end, 0, 40, b"secret", DELAY / 2);
    world.take(BOB, bobs, &lock).unwrap();
    let Reply::Issued { voucher: Some(given), .. } = world.ask(BOB, Input::LockCancel { end: bobs, lane: 0 }).unwrap()
    else {
        panic!()
    };
    world.take(ALICE, end, &given).unwrap();
    // It is redeemed in the last moment, and the answer takes its time.
    show(&mut world, ALICE, &end, |record| {
        rules::side_mut(record, 0).sent = 40;
        record.lanes = vec![lane(0, 0, 1, 40)];
    });
    let until = START + DELAY / 2;
    assert_eq!(looks(&mut world, ALICE, &end, until + 1), 1);
    assert_eq!(looks(&mut world, ALICE, &end, until + 1), 0, "the same once more");
    assert_eq!(world.wallets[ALICE].manager.held_nonces(&end).unwrap(), [(0, 0, 2)]);
    let status = world.status(ALICE, &end);
    assert_eq!((status.committed, status.available, status.diverged), (0, 100, false), "it is coming back");
}
