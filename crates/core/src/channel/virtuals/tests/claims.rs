//! When the payee of a lane claims in the log, what it does if the log refuses, and what it may not be told then.

use bytes::Bytes;

use super::sets::{direct, is_ack, is_update, nonce, open};
use super::world::*;
use crate::channel::manager::{self, EndId};
use crate::channel::virtuals::{Effect, Event, Input, Open, VirtualId};
use crate::channel::voucher::{self, Voucher};
use crate::error::Code;
use crate::merkle::Tree;
use crate::wire::virtual_message::Kind;
use crate::wire::{self, output};

const HOUR: u64 = 60 * MINUTE;

/// Orders that a wallet makes now: what each claims. The log refuses them all.
fn tried(world: &mut World, node: usize) -> Vec<Vec<VirtualId>> {
    let now = world.now();
    let mut claims = Vec::new();
    let of = &mut world.nodes[node];
    of.handle(now, Input::Channel(Box::new(manager::Input::Tick))).unwrap();
    of.sync();
    let prepared: Vec<_> = of.effects.drain(..).collect();
    for effect in prepared {
        let Effect::Channel(manager::Effect::Prepare { op, message }) = effect else { continue };
        let redeems = message.outputs.iter().filter_map(|output| match output {
            output::Kind::ChannelRedeem(redeem) => Some(redeem),
            _ => None,
        });
        let of_order = redeems.flat_map(|redeem| &redeem.claims);
        claims.push(of_order.map(|one| VirtualId::try_from(&one.cap.as_ref().unwrap().id[..]).unwrap()).collect());
        let outcome = manager::Outcome::Failed { code: 1, message: String::new() };
        let input = manager::Input::Outcome { op, outcome };
        of.handle(now, Input::Channel(Box::new(input))).unwrap();
        of.sync();
        of.effects.clear();
    }
    claims
}

#[test]
fn what_the_log_refuses_is_claimed_again_one_by_one_in_turn() {
    let mut world = direct();
    let mut ids: Vec<_> = (0..3).map(|_| open(&mut world, 100, HOUR)).collect();
    let unpaid = open(&mut world, 100, HOUR);
    world.run();
    for id in &ids {
        world.pay(*id, 7);
    }
    ids.sort();
    let due = START + HOUR - world.nodes[HUB].config.claim_ms();
    world.log.now = due - 1;
    assert_eq!(tried(&mut world, HUB), [[[0; 32]; 0]; 0], "there is still time");
    world.log.now = due;
    assert_eq!(tried(&mut world, HUB), [ids.clone()]);
    let retry = world.nodes[HUB].config.policy.retry_ms;
    let mut turns = Vec::new();
    for _ in 0..5 {
        world.log.now += retry - 1;
        assert_eq!(tried(&mut world, HUB), [[[0; 32]; 0]; 0], "not yet");
        world.log.now += 1;
        turns.extend(tried(&mut world, HUB));
    }
    let one = |n: usize| vec![ids[n]];
    assert_eq!(turns, [one(1), one(2), one(0), one(1), one(2)], "each in its turn");
    assert!(!turns.contains(&vec![unpaid]));
    // When the log has news of the lane, all together again.
    let end = world.between(HUB, ALICE);
    let voucher = world.nodes[HUB].manager.virtual_lane(&end, 0, 0).unwrap().newest;
    let redemptions = vec![wire::Redemption { voucher, ..Default::default() }];
    let account = world.nodes[HUB].account;
    world
        .log
        .output(&output::Kind::ChannelRedeem(wire::ChannelRedeem { redemptions, claims: vec![] }), &account)
        .unwrap();
    let record = Box::new(world.log.channels[&end.channel].clone());
    let now = world.now();
    let seen = manager::Input::Seen { channel: end.channel, record, time_ms: now.log_ms };
    world.nodes[HUB].handle(now, Input::Channel(Box::new(seen))).unwrap();
    world.nodes[HUB].sync();
    let prepared = world.nodes[HUB].effects.iter().find_map(|effect| match effect {
        Effect::Channel(manager::Effect::Prepare { message, .. }) => Some(message.clone()),
        _ => None,
    });
    let Some(output::Kind::ChannelRedeem(redeem)) = prepared.unwrap().outputs.into_iter().next() else { panic!() };
    assert_eq!((redeem.claims.len(), redeem.redemptions.len()), (3, 0));
}

#[test]
fn nothing_is_claimed_where_nothing_was_paid_and_what_was_at_the_right_moment() {
    // A payee, without a hub.
    let mut world = direct();
    let (paid, unpaid) = (open(&mut world, 100, HOUR), open(&mut world, 100, HOUR));
    world.run();
    world.pay(paid, 7);
    let due = START + HOUR - world.nodes[HUB].config.claim_ms();
    for (now, in_log) in [(due - 1, 0), (due, 7)] {
        world.log.now = now;
        world.poll();
        assert_eq!(world.in_log(ALICE, HUB), in_log);
    }
    assert_eq!((world.status(HUB, &paid).brought, world.status(HUB, &unpaid).brought), (Some(7), None));
    // It was closed by its own claim: no payment counts any more.
    assert!(world.status(HUB, &paid).closing && !world.status(HUB, &unpaid).closing);
    // One that alone was never paid makes no order at all.
    let mut world = direct();
    open(&mut world, 100, HOUR);
    world.run();
    for now in [due, START + HOUR, START + HOUR + 1] {
        world.log.now = now;
        world.look(HUB);
        assert_eq!(world.nodes[HUB].manager.open_operations().count(), 0, "{now}");
    }
    // A hub: as soon as it knows what it costs, and may be away for its grace.
    let mut world = World::line();
    let id = world.start(1_000, 2 * HOUR);
    world.run();
    world.pay(id, 7);
    world.lose = |message| is_update(message) || is_ack(message);
    world.nodes[ALICE].down = true;
    world.log.now = START + 2 * HOUR - MINUTE;
    world.poll();
    world.poll();
    assert_eq!((world.in_log(HUB, BOB), world.status(HUB, &id).cost), (7, Some(7)));
    let limit = world.nodes[HUB].virtuals.channels[&id].inc.as_ref().unwrap().cap.not_after_ms;
    let config = &world.nodes[HUB].config;
    let due = limit - config.claim_ms() - config.policy.grace_ms;
    let fee = config.fee(1_000);
    for (now, in_log) in [(due - 1, 0), (due, 7 + fee)] {
        world.log.now = now;
        world.poll();
        assert_eq!(world.in_log(ALICE, HUB), in_log);
    }
}

/// The payee claims one after the other of a set that it has signed back, and signs nothing back: a voucher for each, four at most.
#[test]
fn claims_of_a_set_that_was_signed_back_make_a_new_voucher_each_up_to_four() {
    let mut world = direct();
    let ids: Vec<_> = (0..7).map(|_| open(&mut world, 100, 3 * HOUR)).collect();
    world.run();
    world.lose = |message| is_ack(message) || is_update(message);
    open(&mut world, 5, 3 * HOUR);
    world.run();
    let base = nonce(&world, 0);
    world.nodes[HUB].down = true;
    let acked = world.sent.iter().position(|(_, _, voucher)| voucher.terms.nonce == base - 1).unwrap();
    let mut seen = Vec::new();
    for (more, id) in (1..).zip(&ids) {
        world.grab(acked, &[(*id, more)]).unwrap();
        world.poll();
        seen.push(nonce(&world, 0) - base);
    }
    assert_eq!(seen, [1, 2, 3, 3, 3, 3, 3]);
}

/// Alice takes these out of her lane's set, for these amounts, with a voucher for so much.
fn take_out(world: &mut World, gone: &[(VirtualId, u64)], amount: u64) -> Result<(), Code> {
    let (from, to) = (world.between(ALICE, HUB), world.between(HUB, ALICE));
    let known = world.nodes[HUB].manager.virtual_lane(&to, 0, 0).unwrap();
    let terms = Voucher::decode(known.newest.as_ref().unwrap()).unwrap().terms;
    let leaves = &world.nodes[HUB].virtuals.ins[&(to, 0)].leaves;
    let left = leaves.iter().filter(|(leaf, _)| gone.iter().all(|(id, _)| id != *leaf));
    let leaves: Vec<_> = left.map(|(_, leaf)| voucher::virtual_leaf(&leaf.cap)).collect();
    let root = |leaves: &[_]| Bytes::copy_from_slice(&Tree::new(leaves).root());
    let virtuals = (!leaves.is_empty()).then(|| wire::VirtualSet { root: root(&leaves), count: leaves.len() as u32 });
    let terms = wire::Voucher { nonce: known.nonce + 1, amount, virtuals, ..terms };
    let voucher = Some(Voucher::sign(terms, from.side, &[&world.nodes[ALICE].key.0]).signed());
    let shut = |(id, paid): &(VirtualId, u64)| wire::VirtualShut { id: id.to_vec().into(), paid: *paid, code: 0 };
    let update =
        wire::VirtualUpdate { voucher, base: known.nonce, opens: vec![], shuts: gone.iter().map(shut).collect() };
    say(world, HUB, to, Kind::Update(update))
}

fn say(world: &mut World, node: usize, end: EndId, kind: Kind) -> Result<(), Code> {
    let message = wire::VirtualMessage { channel: end.channel.to_vec().into(), kind: Some(kind) };
    world.ask(node, Input::Message { end, message: Box::new(message) }).map(drop).map_err(|e| e.code)
}

#[test]
fn who_pays_less_than_was_claimed_or_leaves_a_claim_in_the_set_is_refused() {
    let mut world = direct();
    let (id, other) = (open(&mut world, 100, 2 * HOUR), open(&mut world, 100, HOUR));
    world.run();
    world.pay(id, 30);
    world.nodes[ALICE].down = true;
    let last = world.sent.len() - 1;
    world.grab(last, &[(id, 30)]).unwrap();
    world.log.now = START + HOUR - MINUTE - 1;
    world.look(HUB);
    world.run();
    assert_eq!(world.status(HUB, &id).brought, Some(30));
    assert_eq!(take_out(&mut world, &[(id, 29)], 30), Err(Code::VirtualState), "less than the log has");
    assert_eq!(take_out(&mut world, &[(other, 0)], 0), Err(Code::VirtualState), "a claim stays in the set");
    assert_eq!(take_out(&mut world, &[([9; 32], 0), (id, 30)], 30), Err(Code::VirtualState), "what was never in it");
    // The other one is due for what was signed for it, as long as it could be claimed.
    let amount = wire::VirtualAmount { id: other.to_vec().into(), amount: 8 };
    let signed = voucher::sign_virtual(&amount, &[&world.nodes[ALICE].key.0]);
    world.ask(HUB, Input::Payments(vec![signed])).unwrap();
    assert_eq!(world.status(HUB, &other).amount, 8);
    assert_eq!(take_out(&mut world, &[(id, 30), (other, 7)], 38), Err(Code::VirtualState));
    assert_eq!(
        take_out(&mut world, &[(id, 30), (other, 8)], 37),
        Err(Code::VirtualState),
        "it moves less than it says"
    );
    // What a watchtower is given has what is still to be claimed, and nothing else.
    let watched = |world: &World| {
        let Node { manager, virtuals, key, account, .. } = &world.nodes[HUB];
        let claims = virtuals.watch(&world.between(HUB, ALICE), account, manager, key).unwrap();
        claims.iter().map(|one| one.cap.as_ref().unwrap().id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(watched(&world), [&other[..]]);
    assert_eq!(take_out(&mut world, &[(id, 30), (other, 8)], 38), Ok(()));
    assert_eq!(world.status(HUB, &other).brought, Some(8));
}

/// Whatever the payer says it pays: the hub still owes it to the next party.
#[test]
fn what_is_open_beyond_a_hub_is_not_taken_out_before_it() {
    let mut world = World::line();
    let id = world.start(1_000, 2 * HOUR);
    world.run();
    world.pay(id, 50);
    let fee = world.nodes[HUB].config.fee(1_000);
    for paid in [0, 50, 1_000] {
        assert_eq!(take_out(&mut world, &[(id, paid)], fee + paid), Err(Code::VirtualState));
    }
    world.nodes[ALICE].mute = true;
    world.ask(BOB, Input::Close(id)).unwrap();
    world.run();
    assert_eq!(world.status(HUB, &id).cost, Some(50));
    assert_eq!(take_out(&mut world, &[(id, 49)], fee + 50), Err(Code::VirtualState));
    assert_eq!(take_out(&mut world, &[(id, 50)], fee + 50), Ok(()));
    assert_eq!(world.status(HUB, &id).brought, Some(50));
}

/// The manager, which a hub has told of the log, is ahead of the machine of virtual channels.
#[test]
fn what_could_be_claimed_no_more_may_be_taken_out_for_nothing() {
    for (late, taken) in [(0, false), (1, true)] {
        let mut world = direct();
        let (id, end) = (open(&mut world, 100, HOUR), world.between(HUB, ALICE));
        // Something of another channel has ended before, so the manager looks at the time.
        let before = world.wanted(&[ALICE, HUB], 5, HOUR - 1);
        world.ask(ALICE, Input::Open(before)).unwrap();
        world.run();
        world.pay(id, 8);
        world.log.now = START + HOUR + late;
        let record = Box::new(world.log.channels[&end.channel].clone());
        let seen = manager::Input::Seen { channel: end.channel, record, time_ms: world.log.now };
        let now = world.now();
        let of = &mut world.nodes[HUB];
        of.manager.handle(now, seen, &of.key).unwrap();
        assert_eq!(of.manager.status(&end).unwrap().seen_ms, START + HOUR + late);
        let result = take_out(&mut world, &[(id, 0)], 0);
        assert_eq!(result, if taken { Ok(()) } else { Err(Code::VirtualState) });
    }
}

/// By log time, though nobody has shown the log's channels since.
#[test]
fn what_is_too_late_is_not_claimed_along_with_the_others() {
    let mut world = direct();
    let (late, due) = (open(&mut world, 100, HOUR), open(&mut world, 100, HOUR + 30_000));
    world.run();
    world.pay(late, 7);
    world.pay(due, 8);
    world.log.now = START + HOUR + 1;
    assert_eq!(tried(&mut world, HUB), [[due]]);
    let mut world = direct();
    let both = [open(&mut world, 100, HOUR), open(&mut world, 100, HOUR + 30_000)];
    world.run();
    both.iter().for_each(|id| world.pay(*id, 7));
    world.log.now = START + HOUR;
    assert_eq!(tried(&mut world, HUB).concat().len(), 2, "in its last moment it is");
}

/// The log has an older voucher of the lane: the newest is redeemed with the claim.
#[test]
fn a_claim_brings_its_voucher_along() {
    let mut world = direct();
    let first = open(&mut world, 100, HOUR);
    world.run();
    world.pay(first, 5);
    let sent = world.sent.len() - 1;
    world.grab(sent, &[(first, 5)]).unwrap();
    world.poll();
    let second = open(&mut world, 100, HOUR);
    world.run();
    world.pay(second, 6);
    let lane = |world: &World| world.log.channels[&world.between(ALICE, HUB).channel].lanes[0].clone();
    assert_eq!((lane(&world).nonce, lane(&world).redeemed), (1, 5));
    world.log.now = START + HOUR - MINUTE;
    world.poll();
    assert_eq!((lane(&world).nonce, lane(&world).redeemed), (3, 11));
}

/// The payer has started again and may not sign yet: what the log has claimed stays bound, and no more.
#[test]
fn what_was_claimed_stays_bound_until_a_voucher_has_it() {
    let mut world = direct();
    let (id, _) = (open(&mut world, 100, HOUR), open(&mut world, 50, 2 * HOUR));
    world.run();
    world.restart(ALICE, 0);
    let last = world.sent.len() - 1;
    world.grab(last, &[(id, 30)]).unwrap();
    world.look(ALICE);
    let exposed =
        |world: &World| world.nodes[ALICE].manager.virtual_lane(&world.between(ALICE, HUB), 0, 0).unwrap().exposed.most;
    assert_eq!((world.status(ALICE, &id).cost, exposed(&world), nonce(&world, 0)), (Some(30), 80, 2));
    assert_eq!(world.money(ALICE, HUB).available, FUNDS - 80);
    world.connect(ALICE, world.between(ALICE, HUB));
    world.run();
    assert_eq!((exposed(&world), nonce(&world, 0)), (80, 3));
    assert_eq!((world.money(ALICE, HUB).committed, world.money(ALICE, HUB).locked), (30, 50));
}

#[test]
fn what_was_claimed_at_the_limit_is_paid_with_a_new_voucher_at_once() {
    let mut world = direct();
    let id = open(&mut world, 100, HOUR);
    world.run();
    world.pay(id, 7);
    world.log.now = START + HOUR - MINUTE;
    world.poll();
    world.poll();
    assert_eq!((world.in_log(ALICE, HUB), world.status(ALICE, &id).cost, nonce(&world, 0)), (7, Some(7), 2));
    let newest = world.nodes[HUB].manager.virtual_lane(&world.between(HUB, ALICE), 0, 0).unwrap().newest;
    let terms = Voucher::decode(&newest.unwrap()).unwrap().terms;
    assert_eq!((terms.nonce, terms.amount, terms.virtuals), (2, 7, None));
    assert_eq!((world.money(ALICE, HUB).committed, world.money(ALICE, HUB).locked), (7, 0));
}

/// Each ends after its own last moment, whatever else has ended just before.
#[test]
fn the_last_moment_is_the_own_one_on_both_sides() {
    let mut world = direct();
    let (first, second) = (open(&mut world, 10, HOUR - 1), open(&mut world, 20, HOUR));
    world.run();
    let over = |world: &World| [first, second].map(|id| (world.status(ALICE, &id).over, world.status(HUB, &id).over));
    world.log.now = START + HOUR;
    world.poll();
    assert_eq!(over(&world), [(true, true), (false, false)]);
    assert_eq!((world.money(ALICE, HUB).locked, world.money(HUB, ALICE).locked_in), (20, 20));
    world.log.now = START + HOUR + 1;
    world.poll();
    assert_eq!(over(&world), [(true, true); 2]);
}

/// The log has a voucher that an old journal has forgotten: whether one is in it, nobody here can say.
#[test]
fn a_forgotten_voucher_in_the_log_ends_nothing_before_its_time() {
    let mut world = direct();
    let id = open(&mut world, 100, HOUR);
    world.run();
    let kept = world.nodes[ALICE].journal.len();
    open(&mut world, 50, HOUR);
    world.run();
    let lost = world.nodes[ALICE].journal.len() - kept;
    let newest = world.sent.len() - 1;
    assert_eq!(world.sent[newest].2.terms.nonce, 2);
    world.restart(ALICE, lost);
    world.grab(newest, &[]).unwrap();
    world.poll();
    world.poll();
    assert_eq!((world.status(ALICE, &id).cost, world.status(ALICE, &id).over), (None, false));
    world.log.now = START + HOUR + 1;
    world.poll();
    assert_eq!(world.status(ALICE, &id).cost, Some(0));
}

#[test]
fn a_claim_that_was_seen_is_kept_once() {
    let mut world = direct();
    let id = open(&mut world, 100, HOUR);
    world.run();
    world.lose = is_ack;
    open(&mut world, 50, HOUR);
    world.run();
    world.nodes[HUB].down = true;
    let first = world.sent.iter().position(|(_, _, voucher)| voucher.terms.nonce == 1).unwrap();
    world.grab(first, &[(id, 10)]).unwrap();
    world.poll();
    world.poll();
    assert_eq!((world.status(ALICE, &id).amount, world.status(ALICE, &id).closing), (10, true));
    let journal = world.nodes[ALICE].journal.len();
    for _ in 0..3 {
        world.poll();
        world.ask(ALICE, Input::Look).unwrap();
    }
    assert_eq!(world.nodes[ALICE].journal.len(), journal, "a look at the same keeps nothing");
}

/// What has ended before its time still stands in the set; when its time has come, the next one's is the next.
#[test]
fn what_was_claimed_early_holds_nothing_up() {
    let mut world = direct();
    let (id, _) = (open(&mut world, 100, HOUR), open(&mut world, 50, 2 * HOUR));
    world.run();
    world.pay(id, 30);
    world.nodes[ALICE].down = true;
    let last = world.sent.len() - 1;
    world.grab(last, &[(id, 30)]).unwrap();
    world.poll();
    let end = world.between(HUB, ALICE);
    let exposed = |world: &World| {
        let exposed = world.nodes[HUB].manager.virtual_lane(&end, 0, 0).unwrap().exposed;
        (exposed.most, exposed.next_ms)
    };
    assert_eq!((world.status(HUB, &id).brought, exposed(&world)), (Some(30), (80, START + HOUR)));
    world.log.now = START + HOUR + 1;
    world.poll();
    world.poll();
    assert_eq!(exposed(&world), (80, START + 2 * HOUR));
}

#[test]
fn a_payer_opens_once_and_what_waits_is_not_open() {
    let mut world = direct();
    let id = open(&mut world, 100, HOUR);
    world.run();
    let end = world.between(ALICE, HUB);
    let opened =
        |world: &World, id| world.nodes[ALICE].events.iter().filter(|event| **event == Event::Opened(id)).count();
    assert_eq!(opened(&world, id), 1);
    let journal = world.nodes[ALICE].journal.len();
    let again = |id: VirtualId| Kind::Opened(Bytes::copy_from_slice(&id));
    assert_eq!(say(&mut world, ALICE, end, again(id)), Ok(()));
    world.run();
    assert_eq!((opened(&world, id), world.nodes[ALICE].journal.len()), (1, journal));
    world.lose = is_ack;
    open(&mut world, 5, HOUR);
    let waits = open(&mut world, 6, HOUR);
    world.run();
    assert_eq!(say(&mut world, ALICE, end, again(waits)), Ok(()));
    world.run();
    assert_eq!((opened(&world, waits), world.status(ALICE, &waits).opened), (0, false));
    assert_eq!(say(&mut world, ALICE, end, again([9; 32])), Err(Code::VirtualChannel));
    assert_eq!(say(&mut world, ALICE, end, Kind::Opened(Bytes::from_static(b"short"))), Err(Code::BadContent));
    let other = world.between(HUB, ALICE);
    assert_eq!(say(&mut world, HUB, other, again(id)), Err(Code::VirtualChannel), "it does not pay for it");
}

/// All is over, and the manager needs what was signed back no more: it is still shown to a side that may have forgotten it.
#[test]
fn a_payee_from_an_old_backup_hears_what_it_has_signed_back_long_ago() {
    let mut world = direct();
    let before = world.nodes[HUB].journal.len();
    open(&mut world, 100, HOUR);
    world.run();
    world.log.now = START + 2 * HOUR;
    world.poll();
    world.poll();
    let (end, other) = (world.between(ALICE, HUB), world.between(HUB, ALICE));
    assert!(world.nodes[ALICE].manager.held_nonces(&end).unwrap().is_empty());
    let lost = world.nodes[HUB].journal.len() - before;
    world.restart(HUB, lost);
    world.connect(ALICE, end);
    world.run();
    assert!(world.nodes[HUB].events.contains(&Event::Diverged(other)));
}

/// To the byte: as many as a frame has room for go with a voucher.
#[test]
fn a_voucher_takes_along_as_many_openings_as_fit() {
    use prost::Message as _;
    let mut world = direct();
    let keys =
        (1..=crate::limits::KEYS_MAX as u64).map(|n| crate::testing::secret(crate::keys::Curve::Ed25519, n).public());
    let keys = keys.map(|key| (key, 1)).collect();
    let permission = crate::permission::Permission { threshold: 1, keys, actor: 0 }.encode();
    for _ in 0..60 {
        let open = world.wanted(&[ALICE, HUB], 10, HOUR);
        world.ask(ALICE, Input::Open(Open { permission: permission.clone(), ..open })).unwrap();
    }
    let mut many = Vec::new();
    for _ in 0..200 {
        while world.step(ALICE) || world.step(HUB) {}
        if let Some(Mail::Side(_, _, message)) = world.mail.front()
            && let Some(Kind::Update(update)) = &message.kind
        {
            many.push((update.opens.len(), update.opens[0].encoded_len()));
        }
        world.deliver(0);
    }
    let (limit, one) = (crate::limits::VIRTUAL_OPENS_BYTES_MAX, many[0].1);
    let fit = limit / (one + 4);
    assert!(fit < limit / one && fit < 59, "{fit} of {one} bytes");
    assert_eq!(many.iter().map(|(opens, _)| *opens).collect::<Vec<_>>(), [1, fit, 59 - fit]);
}

/// Nobody has to say anything to it: what is due is begun with the start.
#[test]
fn a_payee_that_starts_claims_what_is_due() {
    for (early, orders) in [(1, 0), (0, 1)] {
        let mut world = direct();
        let id = open(&mut world, 100, HOUR);
        world.run();
        world.pay(id, 7);
        world.log.now = START + HOUR - MINUTE - early;
        world.restart(HUB, 0);
        let effects = &world.nodes[HUB].effects;
        let prepares =
            effects.iter().filter(|effect| matches!(effect, Effect::Channel(manager::Effect::Prepare { .. })));
        assert_eq!(prepares.count(), orders);
    }
}

#[test]
fn a_watchtower_is_given_a_channel_whose_virtual_channels_are_all_over() {
    let mut world = direct();
    let id = open(&mut world, 100, HOUR);
    world.run();
    world.pay(id, 7);
    world.ask(HUB, Input::Close(id)).unwrap();
    world.run();
    let Node { manager, virtuals, key, account, .. } = &world.nodes[HUB];
    assert_eq!(virtuals.watch(&world.between(HUB, ALICE), account, manager, key), Ok(vec![]));
}
