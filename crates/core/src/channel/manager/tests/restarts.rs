//! After every single step of a life in which everything happens: what the journal gives is what was there.

use bytes::Bytes;
use prost::Message as _;

use super::world::*;
use crate::channel::manager::{
    Conditions, Create, EndId, EndState, Exposed, Incoming, Input, Issue, Manager, Reply, Reserve, Use, VirtualInput,
};
use crate::channel::rules;
use crate::channel::voucher::Voucher;
use crate::error::Code;
use crate::wire::{self, manager_record::Kind as Record};

/// All of a manager but what it tries again later, which is not kept.
fn shown(manager: &Manager) -> String {
    let text = format!("{manager:?}");
    let (from, to) = (text.find(", later: ").unwrap(), text.rfind(", dirty: ").unwrap());
    [&text[..from], &text[to..]].concat()
}

/// What the journal makes, and what the journal makes that is written anew.
fn check(world: &mut World) {
    for wallet in &mut world.wallets {
        // An input that nothing follows from: what is only of the last input is gone.
        let unknown = wallet.manager.handle(Default::default(), Input::Cancel(u64::MAX), &wallet.keys);
        assert_eq!(unknown.unwrap_err().code, Code::UnknownOperation);
        let live = shown(&wallet.manager);
        let loaded = Manager::load(wallet.config.clone(), &wallet.journal).unwrap();
        assert_eq!(shown(&loaded), live);
        let bytes: Vec<Vec<u8>> = loaded.snapshot().iter().map(|record| record.encode_to_vec()).collect();
        let anew: Vec<_> = bytes.iter().map(|bytes| wire::ManagerRecord::decode(&bytes[..]).unwrap()).collect();
        let anew = Manager::load(wallet.config.clone(), &anew).unwrap();
        assert_eq!(shown(&anew), live);
    }
}

fn ask(world: &mut World, wallet: usize, input: Input) -> Reply {
    let reply = world.ask(wallet, input).unwrap();
    check(world);
    reply
}

fn run(world: &mut World) {
    for _ in 0..8 {
        for wallet in 0..world.wallets.len() {
            let now = world.now();
            while world.wallets[wallet].step(&mut world.chain, now) {
                world.wallets[wallet].sync();
                check(world);
            }
        }
        world.poll();
        check(world);
    }
}

fn issued(reply: Reply) -> wire::SignedVoucher {
    match reply {
        Reply::Issued { voucher: Some(voucher), shortfall: 0 } => voucher,
        other => panic!("{other:?}"),
    }
}

fn pay(world: &mut World, wallet: usize, end: EndId, lane: u32, amount: u64) -> wire::SignedVoucher {
    let issue = Issue { end, lane, amount, conditions: Conditions::default() };
    issued(ask(world, wallet, Input::VoucherCreate(issue)))
}

fn take(world: &mut World, wallet: usize, end: EndId, voucher: &wire::SignedVoucher) -> u64 {
    match ask(world, wallet, Input::VoucherAdd(incoming(end, voucher))) {
        Reply::Added(added) => added.delta,
        other => panic!("{other:?}"),
    }
}

fn reserve(world: &mut World, end: EndId, amount: u64, usage: Use, key: &'static str) -> Reply {
    let reserve = Reserve { end, key: key.into(), amount, usage, off_chain_only: false };
    ask(world, ALICE, Input::Reserve(reserve))
}

/// An open channel to an account whose keys Alice does not know, until Bob says them.
fn opened(world: &mut World) -> (EndId, EndId) {
    let create = Create { to_permission: Bytes::new(), ..world.create("create", 1_000, true) };
    let Reply::Op(create) = ask(world, ALICE, Input::Create(create)) else { panic!() };
    run(world);
    let end = world.wallets[ALICE].manager.operation(create).unwrap().end.unwrap();
    let bobs = EndId { side: 1, ..end };
    ask(world, BOB, Input::Keys(bobs));
    run(world);
    (end, bobs)
}

#[test]
fn reservations_and_deposits() {
    let mut world = World::new();
    let (end, _) = opened(&mut world);
    for usage in [Use::Named, Use::Lane(2), Use::Pool] {
        reserve(&mut world, end, 300, usage, "");
    }
    let more = reserve(&mut world, end, 500, Use::Pool, "more");
    assert!(matches!(more, Reply::Reserved { active: false, .. }));
    reserve(&mut world, end, 80, Use::Lane(2), "lane");
    ask(&mut world, ALICE, Input::AddFunds { end, key: "add".into(), amount: 40 });
    let Reply::Op(cancelled) = ask(&mut world, ALICE, Input::AddFunds { end, key: Bytes::new(), amount: 50 }) else {
        panic!()
    };
    ask(&mut world, ALICE, Input::Cancel(cancelled));
    ask(&mut world, ALICE, Input::AllocateLane(end));
    world.chain.refuse = vec![Code::IssuerLimit];
    run(&mut world);
    reserve(&mut world, end, 500, Use::Pool, "again");
    // Uses up what the lane has; the rest of it is still to come.
    pay(&mut world, ALICE, end, 2, 300);
    run(&mut world);
    pay(&mut world, ALICE, end, 2, 360);
    ask(&mut world, ALICE, Input::ReleaseAmount { end, amount: 700 });
    let Reply::Reserved { reservation, .. } = reserve(&mut world, end, 5_000, Use::Named, "") else { panic!() };
    ask(&mut world, ALICE, Input::Release { end, reservation });
    run(&mut world);
    assert_eq!(world.status(ALICE, &end).state, EndState::Open);
}

#[test]
fn vouchers_of_both_sides_and_the_end() {
    let mut world = World::new();
    let (end, bobs) = opened(&mut world);
    for (lane, amount) in [(0, 10), (0, 30), (1, 100)] {
        let voucher = pay(&mut world, ALICE, end, lane, amount);
        take(&mut world, BOB, bobs, &voucher);
    }
    let back = pay(&mut world, BOB, bobs, 0, 60);
    assert_eq!(take(&mut world, ALICE, end, &back), 60);
    // One lock is paid, one given back, one redeemed, one runs out, one stays.
    for lane in 10..15 {
        let lock = world.lock(end, lane, 20, b"secret", DELAY / 2);
        check(&mut world);
        let with = if lane == 12 { Bytes::from_static(b"secret") } else { Bytes::new() };
        ask(&mut world, BOB, Input::VoucherAdd(Incoming { secret: with, ..incoming(bobs, &lock) }));
    }
    let secret = Bytes::from_static(b"secret");
    let paid = issued(ask(&mut world, ALICE, Input::LockPaid { end, lane: 10, secret: secret.clone() }));
    assert_eq!(take(&mut world, BOB, bobs, &paid), 20);
    let given = issued(ask(&mut world, BOB, Input::LockCancel { end: bobs, lane: 11 }));
    take(&mut world, ALICE, end, &given);
    ask(&mut world, BOB, Input::SubmitAll(bobs));
    run(&mut world);
    assert_eq!(world.status(BOB, &bobs).confirmed, 10 + 20 + 100 + 20 + 20);
    world.pass(DELAY / 2 + 1);
    check(&mut world);
    assert_eq!(world.status(ALICE, &end).locked, 0);
    // A permit, a withdrawal with it, an announced one.
    let withdrawn = Input::Permit { end, withdrawn: 40, not_after_ms: world.chain.now + DELAY };
    let Reply::Permitted(permit) = ask(&mut world, ALICE, withdrawn) else { panic!() };
    ask(&mut world, BOB, Input::Withdraw { end: bobs, amount: 40, permit: Some(permit) });
    run(&mut world);
    ask(&mut world, ALICE, Input::Leave { end, amount: 100 });
    run(&mut world);
    world.pass(DELAY);
    ask(&mut world, ALICE, Input::Withdraw { end, amount: 90, permit: None });
    run(&mut world);
    // Once more, above what was taken out before.
    let Reply::Permitted(permit) = ask(&mut world, BOB, Input::Permit { end: bobs, withdrawn: 95, not_after_ms: 0 })
    else {
        panic!()
    };
    ask(&mut world, ALICE, Input::Withdraw { end, amount: 5, permit: Some(permit) });
    run(&mut world);
    assert_eq!((world.paid_out(1), world.paid_out(2)), (95, 40));
    let voucher = pay(&mut world, ALICE, end, 1, 101);
    take(&mut world, BOB, bobs, &voucher);
    ask(&mut world, ALICE, Input::Settle(end));
    run(&mut world);
    world.pass(DELAY);
    ask(&mut world, BOB, Input::Collect(bobs));
    run(&mut world);
    assert_eq!(world.status(ALICE, &end).state, EndState::Collected);
    assert_eq!(world.chain.held(), 0);
}

#[test]
fn a_lock_that_was_given_back_and_redeemed_all_the_same() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let lock = world.lock(end, 0, 40, b"secret", DELAY / 2);
    world.take(BOB, bobs, &lock).unwrap();
    let given = issued(ask(&mut world, BOB, Input::LockCancel { end: bobs, lane: 0 }));
    take(&mut world, ALICE, end, &given);
    let record = world.chain.channels.get_mut(&end.channel).unwrap();
    let voucher = Voucher::decode(&lock).unwrap();
    let at = rules::At { channel: &end.channel, side: 1, now_ms: START, verify: true };
    rules::redeem(record, &voucher, b"secret", at).unwrap();
    record.revision += 1;
    run(&mut world);
    assert_eq!(world.chain.channels[&end.channel].lanes[0].redeemed, 0);
}

#[test]
fn lanes_of_virtual_channels() {
    let mut world = World::new();
    let (end, bobs) = world.open(200, true);
    let exposed = |most, next_ms| Exposed { most, next_ms };
    let until_ms = START + DELAY / 2;
    let issue = |amount, exposed, until_ms| {
        Input::Virtual(VirtualInput::Issue { end, lane: 4, amount, set: None, exposed, until_ms })
    };
    let first = issued(ask(&mut world, ALICE, issue(0, exposed(100, until_ms), until_ms)));
    let add = |voucher: &wire::SignedVoucher, exposed| {
        Input::Virtual(VirtualInput::Add { end: bobs, voucher: voucher.clone(), exposed })
    };
    let back = issued(ask(&mut world, BOB, add(&first, exposed(100, until_ms))));
    let ack = |voucher: &wire::SignedVoucher, exposed| {
        Input::Virtual(VirtualInput::Ack { end, voucher: voucher.clone(), exposed, until_ms })
    };
    ask(&mut world, ALICE, ack(&back, exposed(100, until_ms)));
    let second = issued(ask(&mut world, ALICE, issue(30, exposed(100, 0), 0)));
    let back = issued(ask(&mut world, BOB, add(&second, exposed(50, 0))));
    ask(&mut world, ALICE, ack(&back, exposed(50, 0)));
    for (wallet, end) in [(ALICE, end), (BOB, bobs)] {
        let left = VirtualInput::Left { end, payer: 0, lane: 4, exposed: exposed(40, 0) };
        ask(&mut world, wallet, Input::Virtual(left));
    }
    assert_eq!((world.status(ALICE, &end).committed, world.status(ALICE, &end).locked), (30, 10));
    // The one that was given up is redeemed; the newest answers.
    let record = world.chain.channels.get_mut(&end.channel).unwrap();
    let at = rules::At { channel: &end.channel, side: 1, now_ms: START, verify: true };
    rules::redeem(record, &Voucher::decode(&first).unwrap(), &[], at).unwrap();
    record.lanes[0].redeemed = 80;
    rules::side_mut(record, 0).sent = 80;
    record.revision += 1;
    run(&mut world);
    assert_eq!(world.chain.channels[&end.channel].lanes[0].redeemed, 30);
    world.pass(DELAY);
    check(&mut world);
}

#[test]
fn what_an_older_self_has_signed() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let backup = world.wallets[ALICE].journal.clone();
    world.reserve(end, 20, Use::Pool);
    for (lane, amount) in [(0, 10), (1, 70)] {
        let voucher = world.pay(end, lane, amount);
        world.take(BOB, bobs, &voucher).unwrap();
    }
    let vouchers = world.wallets[BOB].manager.voucher_list(&bobs, None, 9).unwrap();
    for reserved in [20, 21] {
        world.wallets[ALICE].journal = backup.clone();
        world.crash(ALICE);
        reserve(&mut world, end, reserved, Use::Named, "");
        for one in &vouchers {
            take(&mut world, ALICE, end, &one.voucher);
        }
        let status = world.status(ALICE, &end);
        // All of it is there, or one unit is not.
        assert_eq!((status.committed, status.available, status.diverged), (80, 0, reserved == 21));
    }
}

#[test]
fn records_that_no_manager_wrote_are_refused() {
    let mut world = World::new();
    let (end, bobs) = opened(&mut world);
    let voucher = pay(&mut world, ALICE, end, 0, 10);
    take(&mut world, BOB, bobs, &voucher);
    run(&mut world);
    let channel = Bytes::copy_from_slice(&end.channel);
    let (short, side) = (Bytes::from_static(b"short"), 2);
    let broken = wire::SignedVoucher { voucher: short.clone(), signer: 0, signatures: Vec::new() };
    let kinds = [
        Record::Intent(wire::ManagerIntent::default()),
        Record::Intent(wire::ManagerIntent {
            account: Bytes::copy_from_slice(world.wallets[ALICE].account.as_bytes()),
            channel: channel.clone(),
            kind: Some(wire::manager_intent::Kind::Open(wire::ChannelOpen::default())),
            ..Default::default()
        }),
        Record::Intent(wire::ManagerIntent {
            account: Bytes::copy_from_slice(world.wallets[ALICE].account.as_bytes()),
            channel: channel.clone(),
            kind: Some(wire::manager_intent::Kind::Deposit(wire::ManagerDeposit { amount: 1, adds: vec![999] })),
            ..Default::default()
        }),
        Record::Prepared(wire::ManagerPrepared { op: 999, order_id: vec![1; 32].into(), ..Default::default() }),
        Record::Prepared(wire::ManagerPrepared { op: 1, order_id: short.clone(), ..Default::default() }),
        Record::Outcome(wire::ManagerOutcome { op: 999, ..Default::default() }),
        Record::Seen(wire::ManagerSeen { channel: short.clone(), ..Default::default() }),
        Record::Seen(wire::ManagerSeen { channel: vec![5; 32].into(), ..Default::default() }),
        Record::Lane(wire::ManagerLane { channel: short, ..Default::default() }),
        Record::Issued(broken.clone()),
        Record::Received(wire::ManagerReceived::default()),
        Record::Received(wire::ManagerReceived { voucher: Some(broken.clone()), ..Default::default() }),
        Record::Virtual(wire::ManagerVirtual { channel: channel.clone(), ..Default::default() }),
        Record::Cancel(999),
        Record::Op(wire::ManagerOp::default()),
        Record::End(wire::ManagerEnd { channel: channel.clone(), ..Default::default() }),
        Record::Reserve(wire::ManagerReserve { channel: channel.clone(), r#use: 9, ..Default::default() }),
    ];
    let config = world.wallets[ALICE].config.clone();
    let load = |kind| {
        let last = wire::ManagerRecord { kind: Some(kind) };
        Manager::load(config.clone(), world.wallets[ALICE].journal.iter().chain([&last])).map_err(|e| e.code)
    };
    for (at, kind) in kinds.into_iter().enumerate() {
        assert_eq!(load(kind).err(), Some(Code::StorageCorrupt), "record {at}");
    }
    let third = Record::Lane(wire::ManagerLane { channel: channel.clone(), side, lane: 0 });
    assert_eq!(load(third).err(), Some(Code::BadContent), "a side that there is not");
    let others = Record::Lane(wire::ManagerLane { channel, side: 1, lane: 0 });
    assert_eq!(load(others).err(), Some(Code::UnknownChannel), "Bob's");
}
