//! Each limit of a request: what just fits, and one more.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::world::*;
use crate::channel::manager::{
    Conditions, Create, EndId, EndState, Exposed, Input, Issue, Policy, Reply, Reserve, Use, VirtualInput,
};
use crate::channel::rules;
use crate::channel::voucher::{self, Voucher};
use crate::error::Code;
use crate::limits::{
    AMOUNT_MAX, CHANNEL_DELAY_MAX_MS, CHANNEL_DELAY_MIN_MS, IDEMPOTENCY_BYTES_MAX, LANES_MAX, PREIMAGE_BYTES_MAX,
    VOUCHER_NONCE_MAX,
};
use crate::wire;

/// Makes other terms of a voucher.
type Change = fn(&mut wire::Voucher);

/// Terms that Alice or Bob signs for a lane that is new.
fn signed(end: &EndId, signer: u32, change: impl Fn(&mut wire::Voucher)) -> wire::SignedVoucher {
    let channel = Bytes::copy_from_slice(&end.channel);
    let mut terms = wire::Voucher { channel, lane: 1, nonce: 1, amount: 10, ..Default::default() };
    change(&mut terms);
    Voucher::sign(terms, signer, &[&account(u64::from(signer) + 1).0]).signed()
}

fn added(world: &mut World, wallet: usize, end: EndId, voucher: &wire::SignedVoucher) -> Result<u64, Code> {
    world.take(wallet, end, voucher).map(|added| added.delta).map_err(|e| e.code)
}

#[test]
fn a_channel_is_created_within_its_limits_only() {
    let mut world = World::new();
    let good = world.create("a", 0, false);
    let long = |bytes: usize| Bytes::from(vec![7; bytes]);
    let refused = [
        (Create { key: long(IDEMPOTENCY_BYTES_MAX + 1), ..good.clone() }, Code::IdempotencyKey),
        (Create { amount: AMOUNT_MAX + 1, ..good.clone() }, Code::BadAmount),
        (Create { delay_ms: CHANNEL_DELAY_MIN_MS - 1, ..good.clone() }, Code::BadContent),
        (Create { delay_ms: CHANNEL_DELAY_MAX_MS + 1, ..good.clone() }, Code::BadContent),
    ];
    for (create, code) in refused {
        assert_eq!(world.code(ALICE, Input::Create(create)), code);
    }
    let no_permission = Create { to_permission: Bytes::from_static(b"none"), ..good.clone() };
    assert!(world.ask(ALICE, Input::Create(no_permission)).is_err());
    assert!(world.wallets[ALICE].journal.is_empty());
    let taken = [
        Create { key: long(IDEMPOTENCY_BYTES_MAX), ..good.clone() },
        Create { key: "amount".into(), amount: AMOUNT_MAX, ..good.clone() },
        Create { key: "short".into(), delay_ms: CHANNEL_DELAY_MIN_MS, ..good.clone() },
        Create { key: "long".into(), delay_ms: CHANNEL_DELAY_MAX_MS, ..good },
    ];
    for create in taken {
        world.ask(ALICE, Input::Create(create)).unwrap();
    }
}

#[test]
fn a_channel_to_an_own_account_has_both_sides_keys() {
    let mut world = World::alone();
    let create = Create { to_permission: Bytes::new(), ..world.create("a", 10, true) };
    world.ask(ALICE, Input::Create(create)).unwrap();
    world.run();
    let record = world.chain.channels.values().next().unwrap();
    assert_eq!(rules::side(record, 1).permission, account(2).2);
}

#[test]
fn a_key_of_one_request_is_no_key_of_another() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    let (other, _) = world.channel(100);
    let add = |end, amount| Input::AddFunds { end, key: "k".into(), amount };
    let first = world.ask(ALICE, add(end, 5)).unwrap();
    assert_eq!(world.ask(ALICE, add(end, 5)).unwrap(), first);
    assert_eq!(world.code(ALICE, add(end, 6)), Code::IdempotencyKey);
    assert_eq!(world.code(ALICE, add(other, 5)), Code::IdempotencyKey);
    let create = world.create("k", 5, false);
    assert_eq!(world.code(ALICE, Input::Create(create)), Code::IdempotencyKey);
    let long = Bytes::from(vec![7; IDEMPOTENCY_BYTES_MAX + 1]);
    assert_eq!(world.code(ALICE, Input::AddFunds { end, key: long.clone(), amount: 5 }), Code::IdempotencyKey);
    let reserve = |end, key: &Bytes, usage| {
        Input::Reserve(Reserve { end, key: key.clone(), amount: 4, usage, off_chain_only: false })
    };
    assert_eq!(world.code(ALICE, reserve(end, &long, Use::Pool)), Code::IdempotencyKey);
    let key = Bytes::from_static(b"r");
    let reserved = world.ask(ALICE, reserve(end, &key, Use::Lane(1))).unwrap();
    assert_eq!(world.ask(ALICE, reserve(end, &key, Use::Lane(1))).unwrap(), reserved);
    for another in [reserve(other, &key, Use::Lane(1)), reserve(end, &key, Use::Lane(2)), reserve(end, &key, Use::Pool)]
    {
        assert_eq!(world.code(ALICE, another), Code::IdempotencyKey);
    }
    // Requests without a key are each another one.
    let none = Bytes::new();
    assert_ne!(world.ask(ALICE, reserve(end, &none, Use::Named)), world.ask(ALICE, reserve(end, &none, Use::Named)));
    world.run();
    assert_eq!((world.status(ALICE, &end).confirmed, world.status(ALICE, &end).reserved), (105, 12));
}

#[test]
fn amounts_and_lanes_of_requests_have_limits() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    let reserve = |amount, usage, off_chain_only| {
        Input::Reserve(Reserve { end, key: Bytes::new(), amount, usage, off_chain_only })
    };
    assert_eq!(world.code(ALICE, reserve(AMOUNT_MAX + 1, Use::Named, false)), Code::BadAmount);
    assert_eq!(world.code(ALICE, reserve(1, Use::Lane(LANES_MAX), false)), Code::VoucherLane);
    assert_eq!(world.code(ALICE, reserve(101, Use::Pool, true)), Code::ReserveShort);
    world.ask(ALICE, reserve(1, Use::Lane(LANES_MAX - 1), true)).unwrap();
    assert_eq!(world.code(ALICE, Input::AllocateLane(end)), Code::LanesUsedUp, "a lane that is reserved is given out");
    assert_eq!(world.code(ALICE, Input::AddFunds { end, key: Bytes::new(), amount: AMOUNT_MAX + 1 }), Code::BadAmount);
    let issue = |lane, amount| Input::VoucherCreate(Issue { end, lane, amount, conditions: Conditions::default() });
    assert_eq!(world.code(ALICE, issue(LANES_MAX, 1)), Code::VoucherLane);
    assert_eq!(world.code(ALICE, issue(0, AMOUNT_MAX + 1)), Code::VoucherAmount);
    assert_eq!(world.code(ALICE, issue(0, 0)), Code::VoucherNotAbove);
    let short = Reply::Issued { voucher: None, shortfall: AMOUNT_MAX - 99 };
    assert_eq!(world.ask(ALICE, issue(0, AMOUNT_MAX)).unwrap(), short);
    assert_eq!(
        world.issue(ALICE, Issue { end, lane: LANES_MAX - 1, amount: 101, conditions: Conditions::default() }),
        Err(1)
    );
    world.pay(end, LANES_MAX - 1, 100);
    assert_eq!(world.code(ALICE, Input::Leave { end, amount: AMOUNT_MAX + 1 }), Code::BadAmount);
    let withdraw = |amount| Input::Withdraw { end, amount, permit: None };
    assert_eq!(world.code(ALICE, withdraw(0)), Code::BadAmount);
    assert_eq!(world.code(ALICE, withdraw(AMOUNT_MAX + 1)), Code::BadAmount);
    assert_eq!(world.code(ALICE, withdraw(1)), Code::ChannelNotDue);
}

#[test]
fn while_a_channel_settles_vouchers_are_taken_as_long_as_the_log_can_have_them_in_time() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let vouchers = [10, 20].map(|amount| world.pay(end, 0, amount));
    world.ask(ALICE, Input::Settle(end)).unwrap();
    world.run();
    let at = world.chain.channels[&end.channel].settling_at_ms;
    world.chain.now = at - 30_000;
    assert_eq!(added(&mut world, BOB, bobs, &vouchers[0]), Ok(10));
    world.chain.now += 1;
    assert_eq!(added(&mut world, BOB, bobs, &vouchers[1]), Err(Code::ChannelOver));
    assert_eq!(world.code(ALICE, Input::Permit { end, withdrawn: 0, not_after_ms: 0 }), Code::ChannelSettling);
    assert_eq!(world.code(ALICE, Input::Settle(end)), Code::ChannelSettling);
    // It can be collected from its millisecond on.
    world.run();
    world.chain.now = at - 1;
    assert_eq!(world.ask(BOB, Input::Collect(bobs)).unwrap(), Reply::NotYet(at));
    world.chain.now = at;
    let collect = op(world.ask(BOB, Input::Collect(bobs)).unwrap());
    assert_eq!(op(world.ask(BOB, Input::Collect(bobs)).unwrap()), collect);
    world.run();
    assert_eq!(world.status(ALICE, &end).state, EndState::Collected);
    for (wallet, end) in [(ALICE, end), (BOB, bobs)] {
        assert_eq!(world.code(wallet, Input::Collect(end)), Code::ChannelOver);
        assert_eq!(world.code(wallet, Input::Settle(end)), Code::ChannelOver);
        assert_eq!(world.code(wallet, Input::SubmitAll(end)), Code::ChannelOver);
        assert_eq!(added(&mut world, wallet, end, &vouchers[1]), Err(Code::ChannelOver));
    }
    assert_eq!(world.code(ALICE, Input::AllocateLane(end)), Code::ChannelOver);
}

#[test]
fn a_voucher_at_each_limit_is_taken_and_one_above_is_not() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let cases: [(Change, Code); 4] = [
        (|v| v.lane = LANES_MAX, Code::VoucherLane),
        (|v| v.nonce = VOUCHER_NONCE_MAX + 1, Code::VoucherNonce),
        (|v| v.amount = AMOUNT_MAX + 1, Code::VoucherAmount),
        (|v| v.amount = AMOUNT_MAX, Code::ChannelFunds),
    ];
    for (change, code) in cases {
        assert_eq!(added(&mut world, BOB, bobs, &signed(&end, 0, change)), Err(code));
    }
    let set = |v: &mut wire::Voucher| v.virtuals = Some(wire::VirtualSet { root: vec![1; 32].into(), count: 1 });
    assert_eq!(added(&mut world, BOB, bobs, &signed(&end, 0, set)), Err(Code::VoucherMerges));
    let best = |v: &mut wire::Voucher| (v.lane, v.nonce, v.amount) = (LANES_MAX - 1, VOUCHER_NONCE_MAX, 100);
    assert_eq!(added(&mut world, BOB, bobs, &signed(&end, 0, best)), Ok(100));
}

#[test]
fn an_own_voucher_that_nobody_would_have_signed_is_not_believed() {
    let mut world = World::new();
    let (end, _) = world.open(100, true);
    let journal = world.wallets[ALICE].journal.len();
    let cases: [fn(&mut wire::Voucher); 4] = [
        |v| v.lane = LANES_MAX,
        |v| v.amount = AMOUNT_MAX + 1,
        |v| v.nonce = VOUCHER_NONCE_MAX + 1,
        |v| v.merges = vec![wire::LaneMerge { lane: 0, nonce: 1 }],
    ];
    for change in cases {
        assert_eq!(added(&mut world, ALICE, end, &signed(&end, 0, change)), Err(Code::BadContent));
    }
    assert_eq!(world.wallets[ALICE].journal.len(), journal);
    // One that it could have signed, it takes for its own, up to what there can be.
    let most: fn(&mut wire::Voucher) = |v| (v.lane, v.nonce) = (LANES_MAX - 1, VOUCHER_NONCE_MAX);
    assert_eq!(added(&mut world, ALICE, end, &signed(&end, 0, most)), Ok(0));
    assert_eq!(world.status(ALICE, &end).committed, 10);
    assert_eq!(world.wallets[ALICE].journal.len(), journal + 1);
    // More than it has can only be of an older self with more money: nothing is signed any more.
    let rich: fn(&mut wire::Voucher) = |v| v.amount = AMOUNT_MAX;
    assert_eq!(added(&mut world, ALICE, end, &signed(&end, 0, rich)), Ok(0));
    assert!(world.status(ALICE, &end).diverged);
}

#[test]
fn own_vouchers_that_are_listed_no_more_are_known_all_the_same() {
    let policy = Policy { superseded_max: 1, ..Policy::default() };
    let mut world = World::with(policy);
    let (end, bobs) = world.open(100, true);
    let vouchers = [10, 20, 30].map(|amount| world.pay(end, 0, amount));
    for voucher in &vouchers {
        world.take(BOB, bobs, voucher).unwrap();
    }
    // And one that gives a lock back, which a later voucher supersedes twice.
    let lock = world.lock(end, 1, 10, b"secret", DELAY / 2);
    world.take(BOB, bobs, &lock).unwrap();
    let Reply::Issued { voucher: Some(given), .. } = world.ask(BOB, Input::LockCancel { end: bobs, lane: 1 }).unwrap()
    else {
        panic!()
    };
    world.take(ALICE, end, &given).unwrap();
    for amount in [1, 2, 3] {
        let voucher = world.pay(end, 1, amount);
        world.take(BOB, bobs, &voucher).unwrap();
    }
    let journals = [ALICE, BOB].map(|at| world.wallets[at].journal.len());
    assert_eq!(world.wallets[ALICE].manager.kept_voucher(&end, 0, 0, 1).unwrap(), None);
    assert_eq!(world.wallets[BOB].manager.kept_voucher(&bobs, 0, 1, 2).unwrap(), None);
    assert_eq!(added(&mut world, ALICE, end, &vouchers[0]), Ok(0));
    assert_eq!(added(&mut world, BOB, bobs, &given), Ok(0));
    assert_eq!([ALICE, BOB].map(|at| world.wallets[at].journal.len()), journals, "nothing is new");
    // In the log's eyes an older one is none that could be redeemed.
    assert_eq!(added(&mut world, BOB, bobs, &vouchers[0]), Err(Code::VoucherNonce));
}

#[test]
fn a_lock_of_the_other_side_leaves_time_to_redeem_it() {
    let policy = Policy { locks_max: 2, lock_min: 5, lock_max_ms: DELAY / 2, ..Policy::default() };
    let mut world = World::with(policy);
    let (end, bobs) = world.channel(100);
    let now = world.chain.now;
    let hash = Bytes::copy_from_slice(&Sha256::digest(b"secret"));
    let lock = |lane, amount, from: u64, until| {
        let terms = |v: &mut wire::Voucher| {
            (v.lane, v.amount, v.not_before_ms, v.not_after_ms) = (lane, amount, from, until);
            v.secret_hash = hash.clone();
        };
        signed(&end, 0, terms)
    };
    let until = now + DELAY / 2;
    let refused = [
        lock(0, 10, 0, now + 29_999),
        lock(0, 10, 0, until + 1),
        lock(0, 10, until - 29_999, until),
        lock(0, 4, 0, until),
    ];
    for voucher in &refused {
        assert_eq!(added(&mut world, BOB, bobs, voucher), Err(Code::LockTerms));
    }
    assert_eq!(added(&mut world, BOB, bobs, &lock(0, 5, 0, now + 30_000)), Ok(5));
    assert_eq!(added(&mut world, BOB, bobs, &lock(1, 10, until - 30_000, until)), Ok(10));
    assert_eq!(added(&mut world, BOB, bobs, &lock(2, 10, 0, until)), Err(Code::LockTerms), "a third one");
    // All is in what the other side can pay with: locked 15, free 85.
    assert_eq!(
        added(&mut world, BOB, bobs, &signed(&end, 0, |v| (v.lane, v.amount) = (3, 86))),
        Err(Code::ChannelFunds)
    );
    assert_eq!(added(&mut world, BOB, bobs, &signed(&end, 0, |v| (v.lane, v.amount) = (3, 85))), Ok(85));
}

#[test]
fn a_lock_ends_before_the_settle_that_runs_is_over() {
    for wait in [0, 600_000] {
        let mut world = World::new();
        let (end, bobs) = world.channel(100);
        let record = world.chain.channels.get_mut(&end.channel).unwrap();
        // Undecided, it may begin at once; else it is known when.
        record.settling_at_ms = if wait == 0 { u64::MAX } else { world.chain.now + DELAY };
        record.revision += 1;
        world.chain.now += wait;
        let record = Box::new(world.chain.channels[&end.channel].clone());
        let time_ms = world.chain.now;
        world.ask(BOB, Input::Seen { channel: end.channel, record, time_ms }).unwrap();
        let last = START + DELAY - 60_000;
        let lock = |until| signed(&end, 0, move |v| v.not_after_ms = until);
        assert_eq!(added(&mut world, BOB, bobs, &lock(last + 1)), Err(Code::LockTerms));
        assert_eq!(added(&mut world, BOB, bobs, &lock(last)), Ok(10));
    }
}

#[test]
fn secrets_have_a_longest() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let secret = vec![5; PREIMAGE_BYTES_MAX];
    let lock = world.lock(end, 0, 10, &secret, DELAY / 2);
    world.take(BOB, bobs, &lock).unwrap();
    let say = |secret: Vec<u8>| Input::Secret { end: bobs, lane: 0, secret: secret.into() };
    assert_eq!(world.code(BOB, say(vec![5; PREIMAGE_BYTES_MAX + 1])), Code::VoucherSecretLong);
    let journal = world.wallets[BOB].journal.len();
    world.ask(BOB, say(secret.clone())).unwrap();
    world.ask(BOB, say(secret)).unwrap();
    assert_eq!(world.wallets[BOB].journal.len(), journal + 1, "it is learned once");
}

#[test]
fn a_permit_leaves_what_the_other_side_has_signed_for() {
    let mut world = World::new();
    let (end, bobs) = world.open(100, true);
    let voucher = world.pay(end, 0, 30);
    world.take(BOB, bobs, &voucher).unwrap();
    let lock = world.lock(end, 1, 20, b"secret", DELAY / 2);
    world.take(BOB, bobs, &lock).unwrap();
    let permit = |withdrawn, not_after_ms| Input::Permit { end: bobs, withdrawn, not_after_ms };
    assert_eq!(world.code(BOB, permit(51, 0)), Code::ChannelFunds);
    let soon = world.chain.now + 1_000;
    let Reply::Permitted(signed) = world.ask(BOB, permit(50, soon)).unwrap() else { panic!() };
    let terms = voucher::withdraw_permit(&signed).unwrap();
    assert_eq!((terms.side, terms.withdrawn, terms.not_after_ms), (0, 50, soon));
    assert_eq!(terms.channel, end.channel[..]);
    // It is gone as long as it can be used.
    let more = signed_more(&end);
    assert_eq!(added(&mut world, BOB, bobs, &more), Err(Code::ChannelFunds));
    world.chain.now = soon;
    assert_eq!(added(&mut world, BOB, bobs, &more), Err(Code::ChannelFunds));
    world.chain.now = soon + 1;
    assert_eq!(added(&mut world, BOB, bobs, &more), Ok(1));
}

fn signed_more(end: &EndId) -> wire::SignedVoucher {
    signed(end, 0, |v| (v.lane, v.amount) = (5, 1))
}

#[test]
fn a_permit_leaves_what_is_announced_to_be_taken_out() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    world.ask(ALICE, Input::Leave { end, amount: 20 }).unwrap();
    world.run();
    let permit = |withdrawn| Input::Permit { end: bobs, withdrawn, not_after_ms: 0 };
    assert_eq!(world.code(BOB, permit(81)), Code::ChannelFunds);
    world.ask(BOB, permit(80)).unwrap();
}

#[test]
fn of_several_permits_the_widest_counts_until_the_last_is_over() {
    // Permits by amount and time limit, and how much is free at the end of each second after.
    type Case<'a> = (&'a [(u64, u64)], [u64; 3]);
    let cases: [Case<'_>; 5] = [
        (&[(70, 1_000), (20, 2_000)], [30, 30, 100]),
        (&[(20, 2_000), (70, 1_000)], [30, 30, 100]),
        (&[(70, 0), (20, 1_000)], [30, 30, 30]),
        (&[(20, 1_000), (70, 0)], [30, 30, 30]),
        (&[(70, 1_000)], [30, 100, 100]),
    ];
    for (permits, free) in cases {
        for (second, free) in (0..).zip(free) {
            let mut world = World::new();
            let (end, bobs) = world.channel(100);
            let start = world.chain.now;
            for (withdrawn, until) in permits.iter().copied() {
                let not_after_ms = if until == 0 { 0 } else { start + until };
                world.ask(BOB, Input::Permit { end: bobs, withdrawn, not_after_ms }).unwrap();
            }
            world.crash(BOB);
            world.chain.now = start + second * 1_000 + 1;
            let amount = |amount| signed(&end, 0, move |v| v.amount = amount);
            if free < 100 {
                assert_eq!(added(&mut world, BOB, bobs, &amount(free + 1)), Err(Code::ChannelFunds), "{permits:?}");
            }
            assert_eq!(added(&mut world, BOB, bobs, &amount(free)), Ok(free), "{permits:?} after {second} s");
        }
    }
    // One that is over widens no later one.
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let start = world.chain.now;
    world.ask(BOB, Input::Permit { end: bobs, withdrawn: 70, not_after_ms: start + 1_000 }).unwrap();
    world.chain.now = start + 1_001;
    world.ask(BOB, Input::Permit { end: bobs, withdrawn: 20, not_after_ms: 0 }).unwrap();
    assert_eq!(added(&mut world, BOB, bobs, &signed(&end, 0, |v| v.amount = 81)), Err(Code::ChannelFunds));
    assert_eq!(added(&mut world, BOB, bobs, &signed(&end, 0, |v| v.amount = 80)), Ok(80));
}

#[test]
fn one_withdrawal_is_under_way_at_a_time() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let permit = |world: &mut World, withdrawn| {
        let Reply::Permitted(permit) = world.ask(BOB, Input::Permit { end: bobs, withdrawn, not_after_ms: 0 }).unwrap()
        else {
            panic!()
        };
        Some(permit)
    };
    let (first, second) = (permit(&mut world, 40), permit(&mut world, 60));
    let withdraw =
        |amount, permit: &Option<wire::SignedPermit>| Input::Withdraw { end, amount, permit: permit.clone() };
    assert_eq!(world.code(ALICE, withdraw(101, &second)), Code::ChannelFunds);
    let under_way = world.ask(ALICE, withdraw(40, &first)).unwrap();
    assert_eq!(world.ask(ALICE, withdraw(40, &first)).unwrap(), under_way);
    for another in [withdraw(39, &first), withdraw(40, &second), withdraw(40, &None)] {
        assert_eq!(world.code(ALICE, another), Code::OperationStarted);
    }
    let status = world.status(ALICE, &end);
    assert_eq!((status.reserved, status.available), (40, 60));
    world.crash(ALICE);
    assert_eq!(world.ask(ALICE, withdraw(40, &first)).unwrap(), under_way);
    world.run();
    let status = world.status(ALICE, &end);
    assert_eq!((status.confirmed, status.reserved, status.available, world.paid_out(1)), (60, 0, 60, 40));
}

#[test]
fn an_announcement_is_made_once_and_due_to_the_millisecond() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    world.pay(end, 0, 30);
    let leave = |amount| Input::Leave { end, amount };
    assert_eq!(world.code(ALICE, leave(71)), Code::ChannelFunds);
    let under_way = world.ask(ALICE, leave(50)).unwrap();
    assert_eq!(world.ask(ALICE, leave(50)).unwrap(), under_way);
    assert_eq!(world.code(ALICE, leave(49)), Code::OperationStarted);
    world.run();
    // What was announced may be announced again, with all that is available.
    assert_eq!(world.code(ALICE, leave(71)), Code::ChannelFunds);
    world.ask(ALICE, leave(70)).unwrap();
    assert_eq!((world.status(ALICE, &end).reserved, world.status(ALICE, &end).available), (70, 0));
    world.run();
    let at = rules::side(&world.chain.channels[&end.channel], 0).leaving_at_ms;
    let withdraw = |amount| Input::Withdraw { end, amount, permit: None };
    world.chain.now = at - 1;
    assert_eq!(world.ask(ALICE, withdraw(70)).unwrap(), Reply::NotYet(at));
    world.chain.now = at;
    assert_eq!(world.code(ALICE, withdraw(71)), Code::ChannelFunds);
    world.ask(ALICE, withdraw(70)).unwrap();
    let status = world.status(ALICE, &end);
    assert_eq!((status.reserved, status.available), (70, 0), "it is counted once");
    world.run();
    let status = world.status(ALICE, &end);
    assert_eq!((status.confirmed, status.reserved, status.available, world.paid_out(1)), (30, 0, 0, 70));
}

#[test]
fn virtual_channels_of_a_lane_have_limits() {
    let mut world = World::new();
    let (end, bobs) = world.open(100, true);
    let issue = |lane, amount, most, until_ms| {
        let exposed = Exposed { most, next_ms: until_ms };
        Input::Virtual(VirtualInput::Issue { end, lane, amount, set: None, exposed, until_ms })
    };
    let now = world.chain.now;
    let last = now + DELAY - 60_000;
    assert_eq!(world.code(ALICE, issue(LANES_MAX, 1, 1, 0)), Code::VoucherLane);
    assert_eq!(world.code(ALICE, issue(0, 2, 1, 0)), Code::VoucherAmount);
    assert_eq!(world.code(ALICE, issue(0, 1, AMOUNT_MAX + 1, 0)), Code::VoucherAmount);
    assert_eq!(world.code(ALICE, issue(0, 1, 1, now)), Code::LockTerms);
    assert_eq!(world.code(ALICE, issue(0, 1, 1, last + 1)), Code::LockTerms);
    let short = |shortfall| Reply::Issued { voucher: None, shortfall };
    assert_eq!(world.ask(ALICE, issue(0, 1, 101, last)).unwrap(), short(1));
    let voucher = |world: &mut World, wallet, input| match world.ask(wallet, input).unwrap() {
        Reply::Issued { voucher: Some(voucher), shortfall: 0 } => voucher,
        other => panic!("{other:?}"),
    };
    let first = voucher(&mut world, ALICE, issue(0, 10, 100, last));
    let money = |world: &World, wallet, end| {
        let status = world.status(wallet, end);
        (status.committed, status.locked, status.available, status.locked_in)
    };
    assert_eq!(money(&world, ALICE, &end), (10, 90, 0, 0));
    // What the lane has, counts for the next voucher.
    assert_eq!(world.code(ALICE, issue(0, 9, 100, 0)), Code::VoucherNotAbove);
    assert_eq!(world.ask(ALICE, issue(0, 10, 103, 0)).unwrap(), short(3));
    let second = voucher(&mut world, ALICE, issue(0, 40, 100, now + 1));
    assert_eq!(money(&world, ALICE, &end), (40, 60, 0, 0));
    let terms = Voucher::decode(&second).unwrap().terms;
    assert_eq!((terms.payer, terms.lane, terms.nonce, terms.amount), (0, 0, 2, 40));

    let add = |voucher: &wire::SignedVoucher, most| {
        let exposed = Exposed { most, next_ms: 0 };
        Input::Virtual(VirtualInput::Add { end: bobs, voucher: voucher.clone(), exposed })
    };
    let cases: [(Change, Code); 10] = [
        (|v| v.channel = vec![9; 32].into(), Code::VoucherChannel),
        (|v| v.payer = 1, Code::VoucherSigner),
        (|v| v.not_before_ms = 1, Code::VoucherMerges),
        (|v| v.not_after_ms = 1, Code::VoucherMerges),
        (|v| v.secret_hash = vec![9; 32].into(), Code::VoucherMerges),
        (|v| v.merges = vec![wire::LaneMerge { lane: 0, nonce: 1 }], Code::VoucherMerges),
        (|v| v.lane = LANES_MAX, Code::VoucherLane),
        (|v| v.amount = 101, Code::VoucherAmount),
        (|v| v.nonce = 0, Code::VoucherNonce),
        (|v| v.nonce = VOUCHER_NONCE_MAX + 1, Code::VoucherNonce),
    ];
    for (at, (change, code)) in cases.into_iter().enumerate() {
        assert_eq!(world.code(BOB, add(&signed(&end, 0, change), 100)), code, "case {at}");
    }
    assert_eq!(world.code(BOB, add(&signed(&end, 1, |_| {}), 100)), Code::VoucherSigner, "signed by himself");
    assert_eq!(world.code(BOB, add(&first, 101)), Code::ChannelFunds);
    assert_eq!(voucher(&mut world, BOB, add(&first, 100)).signer, 1);
    assert_eq!(money(&world, BOB, &bobs), (0, 0, 10, 90));
    assert_eq!(
        world.code(BOB, add(&signed(&end, 0, |v| (v.lane, v.nonce, v.amount) = (0, 2, 9)), 100)),
        Code::VoucherNotAbove
    );
    assert_eq!(
        world.code(BOB, add(&signed(&end, 0, |v| (v.lane, v.nonce, v.amount) = (0, 1, 11)), 100)),
        Code::VoucherNonce
    );
    // The other lanes have nothing left.
    assert_eq!(world.code(BOB, add(&signed(&end, 0, |v| (v.lane, v.amount) = (1, 1)), 1)), Code::ChannelFunds);
    voucher(&mut world, BOB, add(&second, 100));
    assert_eq!(money(&world, BOB, &bobs), (0, 0, 40, 60));
    let journal = world.wallets[BOB].journal.len();
    voucher(&mut world, BOB, add(&second, 100));
    assert_eq!(world.wallets[BOB].journal.len(), journal, "the same again");
    // Bob's own lanes go the other way, with his number on them.
    let exposed = Exposed { most: 40, next_ms: 0 };
    let back = VirtualInput::Issue { end: bobs, lane: 3, amount: 0, set: None, exposed, until_ms: 0 };
    let back = voucher(&mut world, BOB, Input::Virtual(back));
    assert_eq!(Voucher::decode(&back).unwrap().terms.payer, 1);
    let exposed = Exposed { most: 40, next_ms: 0 };
    let add = VirtualInput::Add { end, voucher: back, exposed };
    voucher(&mut world, ALICE, Input::Virtual(add));
    assert_eq!(money(&world, ALICE, &end), (40, 60, 0, 40));
}
