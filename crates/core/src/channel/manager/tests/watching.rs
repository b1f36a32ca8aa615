//! A watchtower, case by case: what it takes, and what it tells the log of a channel that it sees.

use bytes::Bytes;

use super::world::*;
use crate::address::Address;
use crate::channel::manager::{Conditions, EndId, Incoming, Input, Issue, Message, Reply, Watcher};
use crate::channel::rules;
use crate::channel::voucher::{self, Voucher};
use crate::error::Code;
use crate::limits::WATCH_CLAIM_MS;
use crate::wire::{self, ChannelLane, ChannelRecord, Redemption, VirtualClaim, WatchedChannel, output};

const SECRET: &[u8] = b"secret";
const UNTIL: u64 = START + DELAY / 2;

fn tower() -> Address {
    account(8).1
}

fn permit(end: &EndId, change: impl Fn(&mut wire::WatchPermit)) -> Option<wire::SignedPermit> {
    let channel = Bytes::copy_from_slice(&end.channel);
    let watcher = Bytes::copy_from_slice(tower().as_bytes());
    let mut permit = wire::WatchPermit { channel, side: end.side, watcher };
    change(&mut permit);
    Some(voucher::sign_watch(&permit, &[&account(u64::from(end.side) + 1).0]))
}

/// A voucher of Alice's for Bob.
fn voucher(end: &EndId, change: impl Fn(&mut wire::Voucher)) -> wire::SignedVoucher {
    let channel = Bytes::copy_from_slice(&end.channel);
    let mut terms = wire::Voucher { channel, lane: 3, nonce: 5, amount: 10, ..Default::default() };
    change(&mut terms);
    Voucher::sign(terms, 0, &[&account(1).0]).signed()
}

fn watched(end: &EndId, vouchers: &[wire::SignedVoucher]) -> WatchedChannel {
    let one = |voucher: &wire::SignedVoucher| Redemption {
        voucher: Some(voucher.clone()),
        secret: Bytes::new(),
        watch: permit(end, |_| {}),
    };
    let channel = Bytes::copy_from_slice(&end.channel);
    WatchedChannel { channel, side: end.side, redemptions: vouchers.iter().map(one).collect(), claims: Vec::new() }
}

fn claim(end: &EndId, index: u32, until: u64) -> VirtualClaim {
    let id = Bytes::from(vec![index as u8; 32]);
    let amount = wire::VirtualAmount { id: id.clone(), amount: 1 };
    VirtualClaim {
        channel: Bytes::copy_from_slice(&end.channel),
        payer: 0,
        lane: 3,
        cap: Some(wire::VirtualCap { id, permission: account(3).2, cap: 9, not_after_ms: until }),
        index,
        path: Vec::new(),
        amount: Some(voucher::sign_virtual(&amount, &[&account(3).0])),
        watch: permit(end, |_| {}),
    }
}

fn set(terms: &mut wire::Voucher) {
    terms.virtuals = Some(wire::VirtualSet { root: vec![1; 32].into(), count: 2 });
}

#[test]
fn a_watcher_takes_only_what_it_can_redeem() {
    let end = EndId { channel: [4; 32], side: 1 };
    let other = EndId { channel: [5; 32], side: 1 };
    let add = |watched: &WatchedChannel| Watcher::new(tower(), 0).add(watched).map_err(|e| e.code);
    let good = watched(&end, &[voucher(&end, set)]);
    let with = |change: &dyn Fn(&mut WatchedChannel)| {
        let mut watched = good.clone();
        change(&mut watched);
        add(&watched)
    };
    assert_eq!(with(&|_| {}), Ok(end));
    assert_eq!(with(&|w| w.channel.truncate(31)), Err(Code::BadContent));
    assert_eq!(with(&|w| w.side = 2), Err(Code::BadContent));
    assert_eq!(with(&|w| w.redemptions[0].voucher = None), Err(Code::BadContent));
    assert_eq!(with(&|w| w.redemptions[0].watch = None), Err(Code::BadContent));
    let stranger = Bytes::copy_from_slice(account(9).1.as_bytes());
    for refused in [
        permit(&end, |permit| permit.watcher = stranger.clone()),
        permit(&end, |permit| permit.side = 0),
        permit(&other, |_| {}),
    ] {
        assert_eq!(with(&|w| w.redemptions[0].watch = refused.clone()), Err(Code::NotAParty));
    }
    let own = Voucher::sign(Voucher::decode(&voucher(&end, |_| {})).unwrap().terms, 1, &[&account(2).0]).signed();
    for refused in [voucher(&other, |_| {}), own] {
        assert_eq!(with(&|w| w.redemptions[0].voucher = Some(refused.clone())), Err(Code::VoucherChannel));
    }
    let claimed = |change: &dyn Fn(&mut VirtualClaim)| {
        let mut claim = claim(&end, 0, UNTIL);
        change(&mut claim);
        with(&|w| w.claims = vec![claim.clone()])
    };
    assert_eq!(claimed(&|_| {}), Ok(end));
    assert_eq!(claimed(&|c| c.watch = None), Err(Code::BadContent));
    assert_eq!(claimed(&|c| c.cap = None), Err(Code::BadContent));
    assert_eq!(claimed(&|c| c.watch = permit(&other, |_| {})), Err(Code::NotAParty));
    assert_eq!(claimed(&|c| c.channel = Bytes::copy_from_slice(&other.channel)), Err(Code::VirtualUnknown));
    assert_eq!(claimed(&|c| c.lane = 4), Err(Code::VirtualUnknown));
    assert_eq!(claimed(&|c| c.payer = 1), Err(Code::VirtualUnknown));
    let plain = WatchedChannel { claims: vec![claim(&end, 0, UNTIL)], ..watched(&end, &[voucher(&end, |_| {})]) };
    assert_eq!(add(&plain), Err(Code::VirtualUnknown), "its voucher has no virtual channels");
    // What it is given last for a channel is all that it has.
    let mut watcher = Watcher::new(tower(), 0);
    for watched in [&good, &good, &watched(&other, &[])] {
        watcher.add(watched).unwrap();
    }
    assert!(watcher.channels().eq(&[end, other]));
}

/// The nonces of the vouchers in each message, and the indices of the claims.
fn said(messages: &[Message]) -> Vec<(Vec<u64>, Vec<u32>)> {
    let of = |message: &Message| {
        assert_eq!((message.account, message.inputs.len(), message.outputs.len()), (tower(), 0, 1));
        let output::Kind::ChannelRedeem(redeem) = &message.outputs[0] else { panic!() };
        let nonce = |one: &Redemption| Voucher::decode(one.voucher.as_ref().unwrap()).unwrap().terms.nonce;
        (redeem.redemptions.iter().map(nonce).collect(), redeem.claims.iter().map(|claim| claim.index).collect())
    };
    messages.iter().map(of).collect()
}

fn record() -> ChannelRecord {
    let mut record = ChannelRecord { revision: 7, delay_ms: DELAY, ..Default::default() };
    for side in [0, 1] {
        rules::side_mut(&mut record, side).deposited = 1_000;
    }
    record
}

fn settling() -> ChannelRecord {
    ChannelRecord { settling_at_ms: START + DELAY, ..record() }
}

fn lane(nonce: u64, redeemed: u64) -> ChannelLane {
    ChannelLane { payer: 0, lane: 3, nonce, redeemed, ..Default::default() }
}

#[test]
fn a_watcher_redeems_the_best_that_the_log_still_takes() {
    let end = EndId { channel: [4; 32], side: 1 };
    let terms = |nonce, amount, from: u64, until: u64| {
        voucher(&end, move |v| (v.nonce, v.amount, v.not_before_ms, v.not_after_ms) = (nonce, amount, from, until))
    };
    let from = START + 1_000;
    let vouchers = [terms(1, 10, 0, 0), terms(2, 40, from, UNTIL)];
    let seen = |record: &ChannelRecord, lanes: &[ChannelLane], time_ms| {
        let mut watcher = Watcher::new(tower(), 0);
        watcher.add(&watched(&end, &vouchers)).unwrap();
        let record = ChannelRecord { lanes: lanes.to_vec(), ..record.clone() };
        let messages = said(&watcher.seen(&end.channel, &record, time_ms));
        assert!(messages.len() <= 1);
        messages.into_iter().next().map_or(Vec::new(), |(nonces, _)| nonces)
    };
    let (open, settling) = (record(), settling());
    let leaving = |side| {
        let mut record = record();
        (rules::side_mut(&mut record, side).leaving_at_ms, rules::side_mut(&mut record, side).leaving) = (UNTIL, 5);
        record
    };
    for (time_ms, best) in [(from - 1, 1), (from, 2), (UNTIL, 2), (UNTIL + 1, 1)] {
        assert_eq!(seen(&settling, &[], time_ms), [best], "at {time_ms}");
        assert_eq!(seen(&leaving(0), &[], time_ms), [best]);
        assert_eq!(seen(&open, &[], time_ms), [0; 0], "nothing is urgent");
        assert_eq!(seen(&leaving(1), &[], time_ms), [0; 0], "its own withdrawal");
    }
    let cases = [
        (lane(1, 10), from, vec![2]),
        (lane(1, 10), UNTIL + 1, vec![]),
        (lane(0, 9), UNTIL + 1, vec![1]),
        (lane(0, 10), UNTIL + 1, vec![]),
        (lane(1, 9), UNTIL + 1, vec![]),
        (lane(2, 10), from, vec![]),
        (lane(1, 40), from, vec![]),
        (lane(1, 39), from, vec![2]),
    ];
    for (lane, time_ms, expected) in cases {
        assert_eq!(seen(&settling, std::slice::from_ref(&lane), time_ms), expected, "{lane:?} at {time_ms}");
    }
    // When it is over there is nothing to do any more, and nothing to watch.
    for (record, time_ms) in [(settling.clone(), START + DELAY), (ChannelRecord { collected: true, ..settling }, START)]
    {
        let mut watcher = Watcher::new(tower(), 0);
        watcher.add(&watched(&end, &vouchers)).unwrap();
        watcher.add(&watched(&EndId { channel: [6; 32], ..end }, &[])).unwrap();
        assert!(watcher.seen(&end.channel, &record, time_ms).is_empty());
        assert_eq!(watcher.channels().count(), 1, "the other one");
    }
}

#[test]
fn a_watcher_claims_virtual_channels_shortly_before_their_limit() {
    let end = EndId { channel: [4; 32], side: 1 };
    let later = UNTIL + WATCH_CLAIM_MS + 10;
    let other = voucher(&end, |v| (v.lane, v.nonce) = (2, 9));
    let mut all = watched(&end, &[voucher(&end, set), other]);
    all.claims = vec![claim(&end, 0, UNTIL), claim(&end, 1, later)];
    let mut watcher = Watcher::new(tower(), 0);
    watcher.add(&all).unwrap();
    let seen = |record: &ChannelRecord, lanes: &[ChannelLane], time_ms| {
        let record = ChannelRecord { lanes: lanes.to_vec(), ..record.clone() };
        said(&watcher.clone().seen(&end.channel, &record, time_ms))
    };
    let (open, voucher, none) = (record(), vec![5], Vec::new());
    // The voucher that it is over goes first, if the log does not have it.
    let both = |index| vec![(voucher.clone(), vec![]), (vec![], vec![index])];
    let cases = [
        (UNTIL - WATCH_CLAIM_MS - 1, none.clone()),
        (UNTIL - WATCH_CLAIM_MS, both(0)),
        (UNTIL, both(0)),
        (UNTIL + 1, none.clone()),
        (later - WATCH_CLAIM_MS, both(1)),
        (later, both(1)),
        (later + 1, none.clone()),
    ];
    for (time_ms, expected) in cases {
        assert_eq!(seen(&open, &[], time_ms), expected, "at {time_ms}");
    }
    let urgent = [(vec![9, 5], vec![]), (vec![], vec![0])];
    assert_eq!(seen(&settling(), &[], UNTIL), urgent, "each voucher goes once");
    assert_eq!(seen(&settling(), &[], UNTIL + 1), urgent[..1]);
    let claimed = |index| {
        let claimed = vec![wire::ClaimedVirtual { index, amount: None }];
        ChannelLane { claimed, ..lane(5, 1) }
    };
    let cases = [
        (lane(4, 0), both(0)),
        (lane(5, 0), vec![(vec![], vec![0])]),
        (lane(6, 0), none.clone()),
        (claimed(0), none),
        (claimed(1), vec![(vec![], vec![0])]),
        (ChannelLane { nonce: 4, ..claimed(0) }, both(0)),
    ];
    for (lane, expected) in cases {
        assert_eq!(seen(&open, std::slice::from_ref(&lane), UNTIL), expected, "{lane:?}");
    }
}

#[test]
fn a_watcher_that_is_refused_tries_one_by_one_after_its_time_or_when_the_channel_changes() {
    let end = EndId { channel: [4; 32], side: 1 };
    let lanes = [3, 4].map(|number| {
        voucher(&end, move |v| {
            v.lane = number;
            set(v);
        })
    });
    let mut all = watched(&end, &lanes);
    all.claims = vec![claim(&end, 0, UNTIL), claim(&end, 1, UNTIL)];
    let mut watcher = Watcher::new(tower(), 60_000);
    watcher.add(&all).unwrap();
    let at = UNTIL - WATCH_CLAIM_MS;
    let together = vec![(vec![5, 5], vec![]), (vec![], vec![0, 1])];
    let alone = vec![(vec![5], vec![]), (vec![5], vec![]), (vec![], vec![0]), (vec![], vec![1])];
    let mut record = settling();
    assert_eq!(said(&watcher.seen(&end.channel, &record, at)), together);
    assert_eq!(said(&watcher.seen(&end.channel, &record, at + 59_999)), []);
    assert_eq!(said(&watcher.seen(&end.channel, &record, at + 60_000)), alone);
    assert_eq!(said(&watcher.seen(&end.channel, &record, at + 60_001)), []);
    record.revision += 1;
    assert_eq!(said(&watcher.seen(&end.channel, &record, at + 60_001)), alone);
    assert_eq!(said(&watcher.seen(&[9; 32], &record, at)), [], "a channel that it does not watch");
}

#[test]
fn a_watcher_of_the_payer_answers_only_for_what_it_would_lose() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let paid = world.pay(end, 0, 10);
    world.take(BOB, bobs, &paid).unwrap();
    let lock = world.lock(end, 0, 40, SECRET, DELAY / 2);
    world.take(BOB, bobs, &lock).unwrap();
    let Reply::Issued { voucher: Some(given), .. } = world.ask(BOB, Input::LockCancel { end: bobs, lane: 0 }).unwrap()
    else {
        panic!()
    };
    world.take(ALICE, end, &given).unwrap();
    let alice = &world.wallets[ALICE];
    let watched = alice.manager.watch(&end, &tower(), &alice.keys).unwrap();
    assert_eq!(watched.redemptions.len(), 1, "the cancel");
    let seen = |nonce, redeemed| {
        let mut watcher = Watcher::new(tower(), 0);
        watcher.add(&watched).unwrap();
        let record = ChannelRecord { lanes: vec![ChannelLane { lane: 0, ..lane(nonce, redeemed) }], ..record() };
        said(&watcher.seen(&end.channel, &record, START)).len()
    };
    assert_eq!([seen(1, 10), seen(2, 40), seen(2, 11), seen(3, 10), seen(3, 40), seen(4, 40)], [0, 1, 1, 0, 0, 0]);
}

#[test]
fn a_watcher_is_given_the_best_voucher_of_each_lane_and_locks_that_it_can_redeem() {
    let mut world = World::new();
    let (end, bobs) = world.channel(1_000);
    for (lane, amount) in [(0, 10), (0, 20), (1, 5)] {
        let voucher = world.pay(end, lane, amount);
        world.take(BOB, bobs, &voucher).unwrap();
    }
    let secret = Bytes::from_static(SECRET);
    // The secret of one is known, of the other not; a third takes none.
    for (lane, with) in [(2, secret.clone()), (3, Bytes::new())] {
        let lock = world.lock(end, lane, 7, SECRET, DELAY / 2);
        world.ask(BOB, Input::VoucherAdd(Incoming { secret: with, ..incoming(bobs, &lock) })).unwrap();
    }
    let conditions = Conditions { secret_hash: None, not_before_ms: 0, not_after_ms: UNTIL };
    let timed = world.issue(ALICE, Issue { end, lane: 1, amount: 9, conditions }).unwrap();
    world.take(BOB, bobs, &timed).unwrap();
    let bob = &world.wallets[BOB];
    let watched = bob.manager.watch(&bobs, &tower(), &bob.keys).unwrap();
    let place = |one: &Redemption| {
        let terms = Voucher::decode(one.voucher.as_ref().unwrap()).unwrap().terms;
        (terms.lane, terms.nonce, one.secret.clone())
    };
    let expected = [(0, 2, Bytes::new()), (1, 1, Bytes::new()), (1, 2, Bytes::new()), (2, 1, secret)];
    assert_eq!(watched.redemptions.iter().map(place).collect::<Vec<_>>(), expected);
    let unknown = bob.manager.watch(&end, &tower(), &bob.keys).unwrap_err();
    assert_eq!(unknown.code, Code::UnknownChannel);
}
