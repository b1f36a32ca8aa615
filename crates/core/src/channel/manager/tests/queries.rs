//! What users and a hub are told of channels: exactly what is there.

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest, Sha256};

use super::world::*;
use crate::channel::manager::{
    Conditions, Create, Direction, Effect, EndState, Event, Incoming, Input, Issue, LaneView, LockView, OpState,
    Policy, Reply, Signer, Use, Validity, VoucherState,
};
use crate::channel::voucher::Voucher;
use crate::error::Code;
use crate::wire;

const SECRET: &[u8] = b"secret";

fn hash(secret: &[u8]) -> Option<[u8; 32]> {
    Some(Sha256::digest(secret).into())
}

#[test]
fn a_status_tells_which_way_money_goes_and_whose_it_is() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let (both, bobs_both) = world.open(200, true);
    for (number, end, bobs) in [(0, end, bobs), (1, both, bobs_both)] {
        let voucher = world.pay(end, 0, 30);
        world.take(BOB, bobs, &voucher).unwrap();
        let lock = world.lock(end, 1, 20, SECRET, DELAY / 2);
        world.take(BOB, bobs, &lock).unwrap();
        let directions = [(Direction::Outbound, Direction::Inbound), (Direction::TwoWay, Direction::TwoWay)];
        let (of_alice, of_bob) = (world.status(ALICE, &end), world.status(BOB, &bobs));
        assert_eq!((of_alice.direction, of_bob.direction), directions[number]);
        for (status, side) in [(&of_alice, 0), (&of_bob, 1)] {
            let own = account(u64::from(side) + 1).1;
            assert_eq!((status.side, status.channel, status.control), (side, end.channel, own));
            assert_eq!((status.from, status.to), (account(1).1, account(2).1));
            assert_eq!((status.state, status.seen_ms, status.diverged), (EndState::Open, START, false));
        }
        assert_eq!(
            (of_alice.voucher_redeemed, of_alice.received, of_alice.committed, of_alice.locked),
            (30, 0, 30, 20)
        );
        // Who pays is told what it has paid; who is only paid, what it was.
        assert_eq!(of_bob.voucher_redeemed, [30, 0][number]);
        assert_eq!((of_bob.received, of_bob.committed, of_bob.locked, of_bob.locked_in), (30, 0, 0, 20));
        assert_eq!(of_bob.available, 30);
    }
    let back = world.issue(BOB, Issue { end: bobs_both, lane: 0, amount: 7, conditions: Conditions::default() });
    world.take(ALICE, both, &back.unwrap()).unwrap();
    assert_eq!((world.status(BOB, &bobs_both).voucher_redeemed, world.status(ALICE, &both).received), (7, 7));
    world.ask(BOB, Input::SubmitAll(bobs_both)).unwrap();
    world.run();
    let status = world.status(BOB, &bobs_both);
    assert_eq!((status.confirmed, status.received, status.available), (30, 0, 23));
    world.ask(ALICE, Input::Leave { end: both, amount: 40 }).unwrap();
    world.run();
    let at = world.chain.now + DELAY;
    let status = world.status(BOB, &bobs_both);
    assert_eq!((status.leaving, status.leaving_at_ms, status.reserved), (40, at, 0));
    let status = world.status(ALICE, &both);
    assert_eq!((status.leaving, status.leaving_at_ms, status.reserved), (0, 0, 40));
}

#[test]
fn an_end_that_is_still_to_be_opened_is_as_it_was_asked_for() {
    let mut world = World::new();
    let create = Create { delay_ms: 2 * DELAY, ..world.create("a", 10, true) };
    let created = op(world.ask(ALICE, Input::Create(create)).unwrap());
    let now = world.now();
    world.wallets[ALICE].step(&mut world.chain, now);
    world.wallets[ALICE].sync();
    let manager = &world.wallets[ALICE].manager;
    let end = manager.operation(created).unwrap().end.unwrap();
    let status = manager.status(&end).unwrap();
    assert_eq!((status.state, status.direction), (EndState::Opening, Direction::TwoWay));
    assert_eq!((status.pending, status.pending_op, status.confirmed), (10, Some(created), 0));
    assert_eq!(manager.delay_ms(&end).unwrap(), 2 * DELAY);
    for side in [0, 1] {
        assert_eq!(manager.keys_of(&end, side).unwrap().1, account(u64::from(side) + 1).1);
    }
    // Lanes are given out, but there is no money yet.
    assert_eq!(world.ask(ALICE, Input::AllocateLane(end)).unwrap(), Reply::Lane(0));
    let issue = Issue { end, lane: 0, amount: 3, conditions: Conditions::default() };
    assert_eq!(world.issue(ALICE, issue), Err(3));
    for input in [Input::Settle(end), Input::Collect(end), Input::SubmitAll(end), Input::Leave { end, amount: 1 }] {
        assert_eq!(world.code(ALICE, input), Code::ChannelNotOpen);
    }
}

#[test]
fn each_operation_is_told_by_its_name_and_fails_with_its_reason() {
    let mut world = World::new();
    let create = Create { to_permission: Bytes::new(), ..world.create("a", 100, true) };
    let mut ops = vec![("open", ALICE, op(world.ask(ALICE, Input::Create(create)).unwrap()))];
    world.run();
    let end = world.wallets[ALICE].manager.list(None, None, 1)[0];
    let bobs = crate::channel::manager::EndId { side: 1, ..end };
    ops.push(("add", ALICE, world.add(end, 10)));
    ops.push(("deposit", ALICE, world.status(ALICE, &end).pending_op.unwrap()));
    ops.push(("keys", BOB, op(world.ask(BOB, Input::Keys(bobs)).unwrap())));
    assert_eq!(world.ask(BOB, Input::Keys(bobs)).unwrap(), Reply::Op(ops[3].2), "said once");
    world.run();
    let voucher = world.pay(end, 0, 10);
    world.take(BOB, bobs, &voucher).unwrap();
    let Reply::Ops(redeems) = world.ask(BOB, Input::SubmitAll(bobs)).unwrap() else { panic!() };
    ops.push(("redeem", BOB, redeems[0]));
    let Reply::Permitted(permit) = world.ask(BOB, Input::Permit { end: bobs, withdrawn: 5, not_after_ms: 0 }).unwrap()
    else {
        panic!()
    };
    let withdraw = Input::Withdraw { end, amount: 5, permit: Some(permit) };
    ops.push(("withdraw", ALICE, op(world.ask(ALICE, withdraw).unwrap())));
    ops.push(("leave", ALICE, op(world.ask(ALICE, Input::Leave { end, amount: 1 }).unwrap())));
    let open = |world: &World| [ALICE, BOB].map(|at| world.wallets[at].manager.open_operations().collect::<Vec<_>>());
    assert_eq!(open(&world), [vec![ops[5].2, ops[6].2], vec![ops[4].2]]);
    world.run();
    ops.push(("settle", ALICE, op(world.ask(ALICE, Input::Settle(end)).unwrap())));
    world.run();
    world.pass(DELAY);
    ops.push(("collect", BOB, op(world.ask(BOB, Input::Collect(bobs)).unwrap())));
    world.run();
    for (kind, wallet, op) in ops {
        let found = world.wallets[wallet].manager.operation(op).unwrap();
        assert_eq!((found.kind, found.state, found.account), (kind, OpState::Confirmed, world.wallets[wallet].account));
        assert!(found.order_id.is_some() && found.end.is_some());
    }
    assert_eq!(open(&world), [vec![], vec![]]);
    let failed = |event: &Event| matches!(event, Event::OpFailed { .. });
    assert!(!world.wallets.iter().flat_map(|wallet| &wallet.events).any(failed), "nothing has failed");

    let (end, _) = world.channel(10);
    world.chain.refuse = vec![Code::IssuerLimit];
    let settle = op(world.ask(ALICE, Input::Settle(end)).unwrap());
    world.run();
    let (code, message) = (Code::IssuerLimit as u32, "refused by the test".to_owned());
    assert!(world.wallets[ALICE].events.contains(&Event::OpFailed { op: settle, code, message: message.clone() }));
    assert_eq!(world.state(ALICE, settle), OpState::Failed { code, message });
}

#[test]
fn what_was_redeemed_takes_no_room_in_the_journal() {
    let mut world = World::new();
    let (end, bobs) = world.channel(1_000);
    for lane in 0..8 {
        let voucher = world.pay(end, lane, 100);
        world.take(BOB, bobs, &voucher).unwrap();
    }
    let vouchers = world.wallets[BOB].manager.voucher_list(&bobs, None, 9).unwrap();
    world.ask(BOB, Input::SubmitAll(bobs)).unwrap();
    world.run();
    let records = world.wallets[BOB].manager.snapshot();
    let ops = records.iter().filter(|one| matches!(one.kind, Some(wire::manager_record::Kind::Op(_))));
    let bytes: usize = ops.map(wire::ManagerRecord::encoded_len).sum();
    assert!(bytes > 0 && bytes < vouchers[0].voucher.encoded_len() * 2, "{bytes} bytes");
}

#[test]
fn pages_of_every_size_give_the_same_vouchers() {
    let mut world = World::with(Policy { superseded_max: 2, ..Policy::default() });
    let (end, bobs) = world.open(1_000, true);
    for n in 1..=15 {
        let voucher = world.pay(end, (n % 3) as u32, n * 10);
        world.take(BOB, bobs, &voucher).unwrap();
        let issue = Issue { end: bobs, lane: (n % 2) as u32, amount: n, conditions: Conditions::default() };
        let voucher = world.issue(BOB, issue).unwrap();
        world.take(ALICE, end, &voucher).unwrap();
    }
    let lock = world.lock(end, 7, 20, SECRET, DELAY / 2);
    world.take(BOB, bobs, &lock).unwrap();
    let Reply::Issued { voucher: Some(given), .. } = world.ask(BOB, Input::LockCancel { end: bobs, lane: 7 }).unwrap()
    else {
        panic!()
    };
    world.take(ALICE, end, &given).unwrap();
    // Of each lane the best one and two that it supersedes.
    let mut expected: Vec<(u32, u32, u64)> = Vec::new();
    expected.extend((0..3).flat_map(|lane| (3..=5).map(move |nonce| (0, lane, nonce))));
    expected.extend([(0, 7, 1), (0, 7, 2)]);
    expected.extend((5..=7).map(|nonce| (1, 0, nonce)).chain((6..=8).map(|nonce| (1, 1, nonce))));
    for (wallet, at) in [(ALICE, end), (BOB, bobs)] {
        let manager = &world.wallets[wallet].manager;
        let whole = manager.voucher_list(&at, None, 256).unwrap();
        let place = |one: &crate::channel::manager::Listed| (one.payer, one.lane, one.nonce);
        assert_eq!(whole.iter().map(place).collect::<Vec<_>>(), expected);
        for one in &whole {
            let terms = Voucher::decode(&one.voucher).unwrap().terms;
            assert_eq!((terms.payer, terms.lane, terms.nonce), place(one));
            let own = one.voucher.signer == at.side;
            assert_eq!(one.state, if own { VoucherState::Issued } else { VoucherState::Stored });
            assert_eq!(
                one.superseded,
                !expected.contains(&(one.payer, one.lane, one.nonce)) || {
                    whole
                        .iter()
                        .any(|other| (other.payer, other.lane) == (one.payer, one.lane) && other.nonce > one.nonce)
                }
            );
            assert_eq!(manager.kept_voucher(&at, one.payer, one.lane, one.nonce).unwrap().as_ref(), Some(&one.voucher));
        }
        assert_eq!(manager.voucher_list(&at, None, 0).unwrap(), []);
        for size in 1..=expected.len() + 1 {
            let (mut all, mut after) = (Vec::new(), None);
            loop {
                let page = manager.voucher_list(&at, after, size).unwrap();
                assert!(page.len() <= size);
                let Some(last) = page.last() else { break };
                after = Some(place(last));
                all.extend(page);
            }
            assert_eq!(all, whole, "pages of {size}");
        }
    }
}

#[test]
fn a_list_has_no_more_than_a_page() {
    let mut world = World::with(Policy { superseded_max: 300, ..Policy::default() });
    let (end, _) = world.channel(1_000);
    for n in 1..=257 {
        world.pay(end, 0, n);
    }
    let manager = &world.wallets[ALICE].manager;
    let first = manager.voucher_list(&end, None, 1_000).unwrap();
    assert_eq!((first.len(), first[255].nonce), (256, 256));
    assert_eq!(manager.voucher_list(&end, Some((0, 0, 256)), 1_000).unwrap().len(), 1);
}

#[test]
fn the_channel_to_someone_is_found_by_both_addresses() {
    let mut world = World::alone();
    let (alice, bob, other) = (account(1).1, account(2).1, account(3).1);
    let (end, bobs) = world.open(100, true);
    let found = |world: &World, from, to| world.wallets[ALICE].manager.lookup(from, to);
    assert_eq!(found(&world, &alice, &bob), Some(end));
    assert_eq!(found(&world, &bob, &alice), Some(bobs));
    for (from, to) in [(&alice, &other), (&other, &bob), (&alice, &alice), (&bob, &bob)] {
        assert_eq!(found(&world, from, to), None);
    }
    world.ask(ALICE, Input::Settle(end)).unwrap();
    assert_eq!(found(&world, &alice, &bob), None);
}

#[test]
fn a_hub_is_told_of_each_lane_what_it_has_and_what_is_locked() {
    let mut world = World::new();
    let (end, bobs) = world.open(100, true);
    let (first, second) = (world.pay(end, 2, 10), world.pay(end, 2, 15));
    for voucher in [&first, &second] {
        world.take(BOB, bobs, voucher).unwrap();
    }
    let lock = world.lock(end, 2, 40, SECRET, DELAY / 2);
    world.take(BOB, bobs, &lock).unwrap();
    let until = START + DELAY / 2;
    let view = |is_known| LaneView {
        nonce: 3,
        paid: 15,
        lock: Some(LockView { nonce: 3, amount: 25, secret_hash: hash(SECRET), not_after_ms: until, is_known }),
        newest: Some(lock.clone()),
    };
    let manager = |world: &World, at: usize, lane| match at {
        ALICE => world.wallets[ALICE].manager.out_lane(&end, lane).unwrap(),
        _ => world.wallets[BOB].manager.paid_lane(&bobs, lane).unwrap(),
    };
    assert_eq!((manager(&world, ALICE, 2), manager(&world, BOB, 2)), (view(false), view(false)));
    assert_eq!((manager(&world, ALICE, 9), manager(&world, BOB, 9)), (LaneView::default(), LaneView::default()));
    world.ask(BOB, Input::Secret { end: bobs, lane: 2, secret: Bytes::from_static(SECRET) }).unwrap();
    assert_eq!((manager(&world, ALICE, 2), manager(&world, BOB, 2)), (view(false), view(true)));

    let of = |world: &World, at: usize, end| {
        let manager = &world.wallets[at].manager;
        let deposited = [0, 1].map(|side| manager.deposited(end, side).unwrap());
        (manager.receivable(end).unwrap(), deposited, manager.room(world.now(), end).unwrap())
    };
    // Alice can pay 60 more; Bob what he was paid.
    assert_eq!((of(&world, BOB, &bobs), of(&world, ALICE, &end)), ((60, [100, 0], 60), (15, [100, 0], 15)));
    let alices = &world.wallets[ALICE].manager;
    assert_eq!((alices.lane_paid(&end, 2).unwrap(), alices.lane_paid(&end, 9).unwrap()), (15, 0));
    assert_eq!(alices.lanes_paid(&end).unwrap(), []);
    assert_eq!((alices.held_nonces(&end).unwrap(), alices.delay_ms(&end).unwrap()), (vec![], DELAY));
    let bobs_manager = &world.wallets[BOB].manager;
    assert_eq!(bobs_manager.held_nonces(&bobs).unwrap(), [(0, 2, 3)]);
    for (nonce, voucher) in [(1, Some(&first)), (2, Some(&second)), (3, Some(&lock)), (4, None)] {
        assert_eq!(alices.kept_voucher(&end, 0, 2, nonce).unwrap().as_ref(), voucher);
        assert_eq!(bobs_manager.kept_voucher(&bobs, 0, 2, nonce).unwrap().as_ref(), voucher);
        assert_eq!(alices.kept_voucher(&end, 1, 2, nonce).unwrap(), None);
    }
    let secret = Bytes::from_static(SECRET);
    let Reply::Issued { voucher: Some(paid), .. } = world.ask(ALICE, Input::LockPaid { end, lane: 2, secret }).unwrap()
    else {
        panic!()
    };
    world.take(BOB, bobs, &paid).unwrap();
    let view = LaneView { nonce: 4, paid: 40, lock: None, newest: Some(paid) };
    assert_eq!((manager(&world, ALICE, 2), manager(&world, BOB, 2)), (view.clone(), view));
    assert_eq!(world.wallets[ALICE].manager.lanes_paid(&end).unwrap(), [(2, 40)]);
    let back = world.issue(BOB, Issue { end: bobs, lane: 0, amount: 12, conditions: Conditions::default() }).unwrap();
    world.take(ALICE, end, &back).unwrap();
    assert_eq!((of(&world, BOB, &bobs).0, of(&world, ALICE, &end).0), (72, 28));
    world.ask(BOB, Input::SubmitAll(bobs)).unwrap();
    world.run();
    assert_eq!((of(&world, BOB, &bobs), of(&world, ALICE, &end)), ((72, [100, 0], 72), (28, [100, 0], 28)));
    assert_eq!(world.wallets[BOB].manager.held_nonces(&bobs).unwrap(), [(0, 2, 4)]);
    let Reply::Permitted(permit) = world.ask(BOB, Input::Permit { end: bobs, withdrawn: 72, not_after_ms: 0 }).unwrap()
    else {
        panic!()
    };
    world.ask(ALICE, Input::Withdraw { end, amount: 60, permit: Some(permit) }).unwrap();
    world.run();
    let withdrawn = |world: &World, side| world.wallets[BOB].manager.withdrawn(&bobs, side).unwrap();
    assert_eq!((withdrawn(&world, 0), withdrawn(&world, 1), of(&world, BOB, &bobs).0), (60, 0, 0));
    // In a one-way channel only one side is paid; in one that is over, nobody.
    let (one_way, bobs_one_way) = world.channel(30);
    assert_eq!((of(&world, ALICE, &one_way).0, of(&world, BOB, &bobs_one_way).0), (0, 30));
    for end in [end, one_way] {
        world.ask(ALICE, Input::Settle(end)).unwrap();
    }
    world.run();
    world.pass(DELAY);
    for end in [end, one_way] {
        world.ask(ALICE, Input::Collect(end)).unwrap();
    }
    world.run();
    assert_eq!((of(&world, BOB, &bobs).0, of(&world, BOB, &bobs_one_way).0, of(&world, ALICE, &end).0), (0, 0, 0));
}

#[test]
fn a_voucher_is_judged_as_it_would_be_taken_and_the_same_again_writes_nothing() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let voucher = world.pay(end, 0, 10);
    let mut forged = voucher.clone();
    let (first, rest) = forged.signatures[0].split_at(40);
    forged.signatures[0] = Bytes::from([first, &[rest[0] ^ 1], &rest[1..]].concat());
    let now = world.now();
    let valid =
        |world: &World, voucher| world.wallets[BOB].manager.voucher_check_valid(now, bobs, voucher).map_err(|e| e.code);
    assert_eq!((valid(&world, &voucher), valid(&world, &forged)), (Ok(Validity::New(10)), Err(Code::KeyMismatch)));
    let lock = world.lock(end, 1, 20, SECRET, DELAY / 2);
    world.take(BOB, bobs, &lock).unwrap();
    let known = |secret: &'static [u8]| Incoming { secret: Bytes::from_static(secret), ..incoming(bobs, &lock) };
    let journal = world.wallets[BOB].journal.len();
    world.ask(BOB, Input::VoucherAdd(known(b""))).unwrap();
    assert_eq!(world.wallets[BOB].journal.len(), journal);
    for _ in 0..2 {
        world.ask(BOB, Input::VoucherAdd(known(SECRET))).unwrap();
        assert_eq!(world.wallets[BOB].journal.len(), journal + 1, "its secret, once");
    }
}

#[test]
fn a_signer_that_knows_no_connections_signs_none() {
    let (_, address, _) = account(1);
    let refused = Keys::default().introduce(&address, &wire::HubIntroduction::default()).unwrap_err();
    assert_eq!(refused.code, Code::NotAParty);
}

#[test]
fn a_lock_that_is_on_its_way_to_the_log_is_not_given_back() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let first = world.pay(end, 0, 10);
    world.take(BOB, bobs, &first).unwrap();
    // It takes no secret, only its time.
    let conditions = Conditions { secret_hash: None, not_before_ms: 0, not_after_ms: START + DELAY / 2 };
    let lock = world.issue(ALICE, Issue { end, lane: 0, amount: 30, conditions: conditions.clone() }).unwrap();
    world.take(BOB, bobs, &lock).unwrap();
    let cancel = Input::LockCancel { end: bobs, lane: 0 };
    world.ask(BOB, Input::VoucherSubmit { voucher: incoming(bobs, &first) }).unwrap();
    let submitted = world.ask(BOB, Input::VoucherSubmit { voucher: incoming(bobs, &lock) });
    assert!(submitted.is_ok());
    assert_eq!(world.code(BOB, cancel.clone()), Code::VoucherSubmitted);
    // One that is not, is given back, though an older voucher of its lane is.
    let first = world.pay(end, 1, 10);
    world.take(BOB, bobs, &first).unwrap();
    let lock = world.issue(ALICE, Issue { end, lane: 1, amount: 30, conditions }).unwrap();
    world.take(BOB, bobs, &lock).unwrap();
    world.ask(BOB, Input::VoucherSubmit { voucher: incoming(bobs, &first) }).unwrap();
    world.ask(BOB, Input::LockCancel { end: bobs, lane: 1 }).unwrap();
    assert!(world.wallets[BOB].effects.iter().any(|effect| matches!(effect, Effect::Prepare { .. })));
}

#[test]
fn a_lock_is_for_all_there_is_and_begins_before_it_ends() {
    let mut world = World::with(Policy { lock_min: 5, ..Policy::default() });
    let (end, bobs) = world.channel(100);
    let voucher = world.pay(end, 0, 60);
    world.take(BOB, bobs, &voucher).unwrap();
    let until = START + DELAY / 2;
    let lock = |amount, not_before_ms| {
        let conditions = Conditions { secret_hash: hash(SECRET), not_before_ms, not_after_ms: until };
        Issue { end, lane: 0, amount, conditions }
    };
    for not_before_ms in [until + 1, until + 2] {
        assert_eq!(world.code(ALICE, Input::VoucherCreate(lock(100, not_before_ms))), Code::LockTerms);
    }
    assert_eq!(world.issue(ALICE, lock(101, until)), Err(1));
    // Only what is more than the lane's counts: 4 are too little.
    let short = Voucher::sign(
        wire::Voucher {
            channel: Bytes::copy_from_slice(&end.channel),
            nonce: 2,
            amount: 64,
            not_after_ms: until,
            ..Default::default()
        },
        0,
        &[&account(1).0],
    );
    assert_eq!(world.code(BOB, Input::VoucherAdd(incoming(bobs, &short.signed()))), Code::LockTerms);
    let voucher = world.issue(ALICE, lock(100, 0)).unwrap();
    assert_eq!(world.take(BOB, bobs, &voucher).unwrap().delta, 40);
    // It is paid though nothing else is left.
    let secret = Bytes::from_static(SECRET);
    let Reply::Issued { voucher: Some(paid), .. } = world.ask(ALICE, Input::LockPaid { end, lane: 0, secret }).unwrap()
    else {
        panic!()
    };
    assert_eq!(world.take(BOB, bobs, &paid).unwrap().delta, 40);
    // One that begins when it ends, Alice may sign, and Bob has no time for it.
    world.add(end, 10);
    world.run();
    let late = world.issue(ALICE, Issue { lane: 1, ..lock(10, until) }).unwrap();
    assert_eq!(world.code(BOB, Input::VoucherAdd(incoming(bobs, &late))), Code::LockTerms);
    let reserved = world.reserve(end, 1, Use::Named);
    assert!(!reserved.1, "it is locked");
}

#[test]
fn a_lock_is_given_back_for_what_the_lane_had_and_nothing_else() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    world.pay(end, 0, 10);
    let lock = world.lock(end, 0, 40, SECRET, DELAY / 2);
    let terms = Voucher::decode(&lock).unwrap().terms;
    let given = |nonce, amount, not_after_ms| {
        let terms = wire::Voucher { nonce, amount, not_after_ms, secret_hash: Bytes::new(), ..terms.clone() };
        Voucher::sign(terms, 1, &[&account(2).0]).signed()
    };
    let cases = [
        (given(2, 10, 0), Code::VoucherNonce),
        (given(3, 9, 0), Code::VoucherAmount),
        (given(3, 11, 0), Code::VoucherAmount),
        (given(3, 10, 1), Code::VoucherAmount),
    ];
    for (voucher, code) in cases {
        assert_eq!(world.code(ALICE, Input::VoucherAdd(incoming(end, &voucher))), code);
    }
    assert_eq!(world.status(ALICE, &end).locked, 30);
    let valid = world.wallets[ALICE].manager.voucher_check_valid(world.now(), end, &given(3, 10, 0));
    assert_eq!(valid.unwrap(), Validity::New(0));
    assert_eq!(world.take(ALICE, end, &given(3, 10, 0)).unwrap().delta, 0);
    assert_eq!(world.status(ALICE, &end).locked, 0);
    assert_eq!(world.code(BOB, Input::LockCancel { end: bobs, lane: 0 }), Code::NoLock, "Bob never had it");
}

#[test]
fn a_voucher_of_a_single_unit_is_redeemed_and_one_that_lowers_its_lane_never() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let voucher = world.pay(end, 0, 1);
    world.take(BOB, bobs, &voucher).unwrap();
    let Reply::Ops(ops) = world.ask(BOB, Input::SubmitAll(bobs)).unwrap() else { panic!() };
    assert_eq!(ops.len(), 1);
    world.run();
    assert_eq!(world.status(BOB, &bobs).confirmed, 1);
    // The log has more of the lane already, or as much: with claims.
    for redeemed in [30, 25] {
        let voucher = world.pay(end, redeemed as u32, 25);
        world.take(BOB, bobs, &voucher).unwrap();
        let record = world.chain.channels.get_mut(&end.channel).unwrap();
        let lane = redeemed as u32;
        let lane = wire::ChannelLane { payer: 0, lane, nonce: 0, redeemed, ..Default::default() };
        record.lanes.push(lane);
        record.lanes.sort_by_key(|lane| lane.lane);
        record.opener.as_mut().unwrap().sent += redeemed;
        record.revision += 1;
        world.poll();
        assert_eq!(world.ask(BOB, Input::SubmitAll(bobs)).unwrap(), Reply::Ops(Vec::new()));
    }
    assert_eq!(world.status(BOB, &bobs).confirmed, 56);
}
