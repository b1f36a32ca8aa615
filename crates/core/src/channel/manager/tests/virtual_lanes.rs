//! Lanes of virtual channels: whose voucher is taken, what it binds, what is claimed.

use bytes::Bytes;

use super::world::*;
use crate::channel::manager::{
    Effect, EndId, EndState, Exposed, Input, OpState, Outcome, Reply, Use, VirtualInput, VirtualLane,
};
use crate::channel::rules;
use crate::channel::voucher::Voucher;
use crate::error::Code;
use crate::limits::{AMOUNT_MAX, VOUCHER_NONCE_MAX};
use crate::wire::{self, SignedVoucher, output};

fn bound(most: u64) -> Exposed {
    Exposed { most, next_ms: 0 }
}

fn issue(end: EndId, lane: u32, amount: u64, most: u64) -> Input {
    Input::Virtual(VirtualInput::Issue { end, lane, amount, set: None, exposed: bound(most), until_ms: 0 })
}

fn add(end: EndId, voucher: &SignedVoucher, most: u64) -> Input {
    Input::Virtual(VirtualInput::Add { end, voucher: voucher.clone(), exposed: bound(most) })
}

fn ask(world: &mut World, wallet: usize, input: Input) -> SignedVoucher {
    match world.ask(wallet, input).unwrap() {
        Reply::Issued { voucher: Some(voucher), shortfall: 0 } => voucher,
        other => panic!("{other:?}"),
    }
}

/// Alice's voucher with some terms.
fn signed(end: &EndId, lane: u32, nonce: u64, amount: u64) -> SignedVoucher {
    let channel = Bytes::copy_from_slice(&end.channel);
    let terms = wire::Voucher { channel, lane, nonce, amount, ..Default::default() };
    Voucher::sign(terms, 0, &[&account(1).0]).signed()
}

#[test]
fn a_lane_is_of_virtual_channels_or_of_vouchers_for_good() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let paid = world.pay(end, 0, 5);
    world.take(BOB, bobs, &paid).unwrap();
    let lock = world.lock(end, 1, 5, b"secret", DELAY / 2);
    world.take(BOB, bobs, &lock).unwrap();
    for lane in [0, 1] {
        assert_eq!(world.code(ALICE, issue(end, lane, 5, 10)), Code::LaneLocked);
        assert_eq!(world.code(BOB, add(bobs, &signed(&end, lane, 9, 5), 10)), Code::LaneLocked);
    }
    // One that is only reserved was not used.
    world.reserve(end, 5, Use::Lane(2));
    let first = ask(&mut world, ALICE, issue(end, 2, 5, 10));
    ask(&mut world, BOB, add(bobs, &first, 10));
    for (wallet, end) in [(ALICE, end), (BOB, bobs)] {
        let pay = Input::VoucherAdd(incoming(bobs, &signed(&end, 2, 2, 20)));
        if wallet == BOB {
            assert_eq!(world.code(BOB, pay), Code::LaneLocked);
        }
        let left = VirtualInput::Left { end, payer: 0, lane: 0, exposed: bound(0) };
        assert_eq!(world.code(wallet, Input::Virtual(left)), Code::VirtualState);
        let claim = VirtualInput::Claim { end, lane: 0, claims: Vec::new() };
        assert_eq!(world.code(wallet, Input::Virtual(claim)), Code::VirtualState);
    }
    let pay = crate::channel::manager::Issue { end, lane: 2, amount: 30, conditions: Default::default() };
    assert_eq!(world.code(ALICE, Input::VoucherCreate(pay)), Code::LaneLocked);
    // The highest nonce is taken, and none is left after it.
    ask(&mut world, BOB, add(bobs, &signed(&end, 2, VOUCHER_NONCE_MAX, 5), 10));
    assert_eq!(world.code(BOB, add(bobs, &signed(&end, 2, VOUCHER_NONCE_MAX + 1, 5), 10)), Code::VoucherNonce);
}

#[test]
fn what_is_bound_fits_into_what_the_other_side_has() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let short = |shortfall| Reply::Issued { voucher: None, shortfall };
    assert_eq!(world.ask(ALICE, issue(end, 0, 0, AMOUNT_MAX)).unwrap(), short(AMOUNT_MAX - 100));
    let first = ask(&mut world, ALICE, issue(end, 0, 10, 50));
    ask(&mut world, BOB, add(bobs, &first, 50));
    let other = world.pay(end, 1, 20);
    world.take(BOB, bobs, &other).unwrap();
    // 30 are left beside what the lane has.
    assert_eq!(world.ask(ALICE, issue(end, 0, 10, 81)).unwrap(), short(1));
    let second = ask(&mut world, ALICE, issue(end, 0, 10, 80));
    assert_eq!(world.code(BOB, add(bobs, &second, 81)), Code::ChannelFunds);
    ask(&mut world, BOB, add(bobs, &second, 80));
    let room = |world: &World| world.wallets[BOB].manager.room(world.now(), &bobs).unwrap();
    assert_eq!(room(&world), 0);
    // When less is there than was signed for, nothing more is bound, and what makes nothing worse is taken.
    let record = world.chain.channels.get_mut(&end.channel).unwrap();
    let of = rules::side_mut(record, 0);
    (of.leaving, of.leaving_at_ms) = (1, START + DELAY);
    record.revision += 1;
    let record = Box::new(record.clone());
    world.ask(BOB, Input::Seen { channel: end.channel, record, time_ms: START }).unwrap();
    assert_eq!(world.code(BOB, add(bobs, &signed(&end, 0, 3, 10), 81)), Code::ChannelFunds);
    ask(&mut world, BOB, add(bobs, &signed(&end, 0, 3, 10), 80));
    ask(&mut world, BOB, add(bobs, &signed(&end, 0, 4, 10), 79));
    assert_eq!((world.status(BOB, &bobs).locked_in, room(&world)), (69, 0));
}

#[test]
fn a_lane_is_shown_as_it_is_and_claimed_once_at_a_time() {
    let mut world = World::new();
    let (end, bobs) = world.open(100, true);
    let view =
        |world: &World, wallet: usize, end, payer| world.wallets[wallet].manager.virtual_lane(end, payer, 0).unwrap();
    let empty = VirtualLane {
        nonce: 0,
        newest: None,
        exposed: bound(0),
        chain: None,
        seen_ms: START,
        busy: false,
        state: EndState::Open,
    };
    let voucher = ask(&mut world, ALICE, issue(end, 0, 10, 50));
    ask(&mut world, BOB, add(bobs, &voucher, 40));
    let back = ask(&mut world, BOB, issue(bobs, 0, 1, 2));
    ask(&mut world, ALICE, add(end, &back, 2));
    let lane = |newest: &SignedVoucher, most| VirtualLane {
        nonce: 1,
        newest: Some(newest.clone()),
        exposed: bound(most),
        ..empty.clone()
    };
    assert_eq!((view(&world, ALICE, &end, 0), view(&world, ALICE, &end, 1)), (lane(&voucher, 50), lane(&back, 2)));
    assert_eq!((view(&world, BOB, &bobs, 0), view(&world, BOB, &bobs, 1)), (lane(&voucher, 40), lane(&back, 2)));
    assert_eq!(world.wallets[BOB].manager.virtual_lane(&bobs, 0, 1).unwrap(), empty);

    let one = wire::VirtualClaim::default();
    let claim = Input::Virtual(VirtualInput::Claim { end: bobs, lane: 0, claims: vec![one] });
    let redeemed = |world: &World| {
        let message = world.wallets[BOB].effects.iter().find_map(|effect| match effect {
            Effect::Prepare { message, .. } => Some(message.outputs[0].clone()),
            _ => None,
        });
        let Some(output::Kind::ChannelRedeem(redeem)) = message else { panic!() };
        redeem.redemptions.iter().map(|one| one.voucher.clone().unwrap()).collect::<Vec<_>>()
    };
    let claimed = op(world.ask(BOB, claim.clone()).unwrap());
    assert_eq!(redeemed(&world), std::slice::from_ref(&voucher), "the log does not have it");
    assert!(view(&world, BOB, &bobs, 0).busy && !view(&world, BOB, &bobs, 1).busy);
    assert_eq!(world.code(BOB, claim.clone()), Code::VoucherSubmitted);
    // Another message that is over leaves it as it is.
    let other = op(world.ask(BOB, Input::Leave { end: bobs, amount: 0 }).unwrap());
    let failed = Outcome::Failed { code: Code::Busy as u32, message: String::new() };
    world.ask(BOB, Input::Outcome { op: other, outcome: failed }).unwrap();
    assert!(view(&world, BOB, &bobs, 0).busy);
    world.run();
    assert_eq!(world.state(BOB, claimed), OpState::Confirmed);
    let found = view(&world, BOB, &bobs, 0);
    assert!(!found.busy && found.chain.is_some_and(|chain| (chain.nonce, chain.redeemed) == (1, 10)));
    world.ask(BOB, claim.clone()).unwrap();
    assert_eq!(redeemed(&world), [], "it has it now");
    world.run();
    // With a newer one it is the newer one.
    let newer = ask(&mut world, ALICE, issue(end, 0, 15, 50));
    ask(&mut world, BOB, add(bobs, &newer, 40));
    world.ask(BOB, claim.clone()).unwrap();
    assert_eq!(redeemed(&world), [newer]);
    world.run();
    let last = ask(&mut world, ALICE, issue(end, 0, 20, 50));
    ask(&mut world, BOB, add(bobs, &last, 40));
    world.ask(BOB, Input::SubmitAll(bobs)).unwrap();
    assert_eq!(world.code(BOB, claim), Code::VoucherSubmitted, "its voucher is on the way");
    assert!(view(&world, BOB, &bobs, 0).busy);
}

#[test]
fn a_payee_gives_up_vouchers_in_their_order_and_late_ones_too() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let backs = [10, 20].map(|amount| {
        let voucher = ask(&mut world, ALICE, issue(end, 0, amount, 50));
        ask(&mut world, BOB, add(bobs, &voucher, 50))
    });
    let held = |world: &World| world.wallets[ALICE].manager.held_nonces(&end).unwrap();
    for (nonce, back) in (1..).zip(&backs) {
        let ack = VirtualInput::Ack { end, voucher: back.clone(), exposed: bound(50), until_ms: START + DELAY };
        world.ask(ALICE, Input::Virtual(ack)).unwrap();
        assert_eq!(held(&world), [(0, 0, nonce)]);
    }
    // The older one once more takes nothing back.
    let ack = VirtualInput::Ack { end, voucher: backs[0].clone(), exposed: bound(90), until_ms: 0 };
    world.ask(ALICE, Input::Virtual(ack)).unwrap();
    assert_eq!((held(&world), world.status(ALICE, &end).locked), (vec![(0, 0, 2)], 30));
}

#[test]
fn what_is_left_of_a_lane_is_written_down_once() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let voucher = ask(&mut world, ALICE, issue(end, 0, 10, 50));
    ask(&mut world, BOB, add(bobs, &voucher, 50));
    for (wallet, end) in [(ALICE, end), (BOB, bobs)] {
        let left = |most| Input::Virtual(VirtualInput::Left { end, payer: 0, lane: 0, exposed: bound(most) });
        let journal = world.wallets[wallet].journal.len();
        for (most, records) in [(50, 0), (20, 1), (20, 1), (10, 2)] {
            world.ask(wallet, left(most)).unwrap();
            assert_eq!(world.wallets[wallet].journal.len(), journal + records);
            let status = world.status(wallet, &end);
            assert_eq!([status.locked, status.locked_in][wallet], most - 10);
        }
    }
}

#[test]
fn a_journal_that_knows_too_little_signs_no_virtual_channels_back() {
    let mut world = World::new();
    let (end, bobs) = world.open(100, true);
    let record = world.chain.channels.get_mut(&end.channel).unwrap();
    record.lanes.push(wire::ChannelLane { payer: 1, lane: 0, nonce: 3, redeemed: 0, ..Default::default() });
    record.revision += 1;
    world.poll();
    assert!(world.status(BOB, &bobs).diverged);
    let voucher = ask(&mut world, ALICE, issue(end, 0, 10, 50));
    assert_eq!(world.code(BOB, add(bobs, &voucher, 50)), Code::ChannelDiverged);
    assert_eq!(world.code(BOB, issue(bobs, 1, 0, 0)), Code::ChannelDiverged);
    // What it is paid, it takes.
    let paid = world.pay(end, 1, 5);
    assert_eq!(world.take(BOB, bobs, &paid).unwrap().delta, 5);
}
