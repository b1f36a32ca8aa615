//! The watchtower.

use bytes::Bytes;

use super::world::*;
use crate::channel::manager::{Input, Watcher};
use crate::error::Code;

#[test]
fn a_watchtower_redeems_for_a_wallet_that_is_off() {
    let mut world = World::new();
    let (end, bobs) = world.channel(1_000);
    for n in 1..=4 {
        let voucher = world.pay(end, n % 2, u64::from(n) * 10);
        world.take(BOB, bobs, &voucher).unwrap();
    }
    let lock = world.lock(end, 5, 100, b"secret", DELAY / 2);
    world.take(BOB, bobs, &lock).unwrap();
    world.ask(BOB, Input::Secret { end: bobs, lane: 5, secret: Bytes::from_static(b"secret") }).unwrap();
    let tower = account(8).1;
    let bob = &world.wallets[BOB];
    let watched = bob.manager.watch(&bobs, &tower, &bob.keys).unwrap();
    let mut watcher = Watcher::new(tower, 60_000);
    assert_eq!(Watcher::new(account(9).1, 0).add(&watched).unwrap_err().code, Code::NotAParty);
    watcher.add(&watched).unwrap();
    let record = world.chain.channels[&end.channel].clone();
    assert!(watcher.seen(&end.channel, &record, world.chain.now).is_empty(), "nothing to do while it is open");
    // Bob is away.
    let bob = world.wallets.pop().unwrap();
    world.ask(ALICE, Input::Settle(end)).unwrap();
    world.run();
    let record = world.chain.channels[&end.channel].clone();
    let messages = watcher.seen(&end.channel, &record, world.chain.now);
    assert_eq!(messages.len(), 1);
    assert!(watcher.seen(&end.channel, &record, world.chain.now + 1).is_empty(), "it waits for what it has sent");
    let again = watcher.seen(&end.channel, &record, world.chain.now + 60_000);
    assert_eq!(again.len(), 3, "one by one, if the log refuses them together");
    for (n, message) in messages.iter().enumerate() {
        assert_eq!(world.chain.apply([n as u8; 32], message), None);
    }
    let record = world.chain.channels[&end.channel].clone();
    assert_eq!(record.opener.as_ref().unwrap().sent, 30 + 40 + 100);
    assert!(watcher.seen(&end.channel, &record, world.chain.now + 120_000).is_empty());
    // Bob comes back to what is done.
    world.wallets.push(bob);
    world.poll();
    world.run();
    assert_eq!(world.status(BOB, &bobs).confirmed, 170);
    world.pass(DELAY);
    assert!(watcher.seen(&end.channel, &world.chain.channels[&end.channel], world.chain.now).is_empty());
    assert_eq!(watcher.channels().count(), 0);
}

#[test]
fn a_watchtower_answers_a_cancelled_lock_that_is_redeemed() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let lock = world.lock(end, 0, 40, b"secret", DELAY / 2);
    world.take(BOB, bobs, &lock).unwrap();
    world.ask(BOB, Input::LockCancel { end: bobs, lane: 0 }).unwrap();
    let given = world.wallets[BOB].manager.voucher_list(&bobs, None, 9).unwrap().pop().unwrap().voucher;
    world.take(ALICE, end, &given).unwrap();
    let tower = account(8).1;
    let alice = &world.wallets[ALICE];
    let watched = alice.manager.watch(&end, &tower, &alice.keys).unwrap();
    let mut watcher = Watcher::new(tower, 60_000);
    watcher.add(&watched).unwrap();
    let redemptions =
        vec![crate::wire::Redemption { voucher: Some(lock), secret: Bytes::from_static(b"secret"), watch: None }];
    let outputs = vec![crate::wire::output::Kind::ChannelRedeem(crate::wire::ChannelRedeem {
        redemptions,
        ..Default::default()
    })];
    let cheat = crate::channel::manager::Message { account: account(2).1, inputs: Vec::new(), outputs };
    assert_eq!(world.chain.apply([9; 32], &cheat), None);
    let record = world.chain.channels[&end.channel].clone();
    let answer = watcher.seen(&end.channel, &record, world.chain.now);
    assert_eq!(answer.len(), 1);
    assert_eq!(world.chain.apply([10; 32], &answer[0]), None);
    assert_eq!(world.chain.channels[&end.channel].lanes[0].redeemed, 0);
}
