//! Parties that redeem what they have given up, show what is old, or have old journals.

use bytes::Bytes;

use super::world::*;
use crate::channel::manager;
use crate::channel::virtuals::{Effect, Event, Input, Policy};
use crate::channel::voucher::Voucher;
use crate::error::Code;
use crate::wire::{self, virtual_message};

const HOUR: u64 = 60 * MINUTE;

/// The vouchers with sets that a wallet was sent.
fn sent_to(world: &World, node: usize) -> Vec<usize> {
    (0..world.sent.len()).filter(|at| world.sent[*at].0 == node).collect()
}

/// Alice and Bob are one: what Bob gives up he redeems afterwards, with the highest that Alice can sign for.
#[test]
fn a_payee_that_claims_on_a_voucher_it_has_given_up_gives_it_back() {
    for at_the_limit in [false, true] {
        let mut world = World::line();
        let id = world.start(1_000, 2 * HOUR);
        let other = world.start(500, 3 * HOUR);
        world.run();
        world.pay(id, 10);
        world.ask(BOB, Input::Close(id)).unwrap();
        world.run();
        assert_eq!(world.status(HUB, &id).brought, Some(10));
        if at_the_limit {
            world.pass(2 * HOUR - 30_000);
            world.log.now = world.nodes[HUB].virtuals.channels[&id].out.as_ref().unwrap().cap.not_after_ms;
        }
        let first = sent_to(&world, BOB)[0];
        world.grab(first, &[(id, 1_000), (other, 500)]).unwrap();
        assert!(world.in_log(HUB, BOB) >= 1_000);
        world.poll();
        world.poll();
        assert_eq!(world.in_log(HUB, BOB), 10, "the hub has shown that it was given up");
        // The other one can be claimed once more, on the newer voucher; the hub shows the same to Alice.
        assert_eq!(world.grab(first, &[(id, 1_000)]).unwrap_err().code, Code::VoucherNonce);
        world.pass(4 * HOUR);
        let got = world.wind_up();
        assert!(got[HUB] >= 0, "{got:?}");
    }
}

/// First a little is claimed on an older voucher, and after the hub has seen it, more on the newest.
#[test]
fn a_claim_on_an_older_voucher_does_not_make_the_hub_claim_too_early() {
    let mut world = World::line();
    let id = world.start(1_000, 2 * HOUR);
    world.run();
    // A second voucher of the lane, which Bob gets and does not sign back.
    world.lose = |m| matches!(m.kind, Some(virtual_message::Kind::Ack(_)));
    world.start(100, 2 * HOUR);
    world.run();
    let vouchers = sent_to(&world, BOB);
    world.nodes[BOB].down = true;
    world.grab(vouchers[0], &[(id, 10)]).unwrap();
    world.poll();
    world.poll();
    assert_eq!(world.status(HUB, &id).amount, 10);
    assert_eq!(world.status(HUB, &id).cost, None, "what it costs is not final");
    assert_eq!(world.status(HUB, &id).brought, None);
    world.grab(vouchers[1], &[(id, 1_000)]).unwrap();
    world.poll();
    assert_eq!(world.status(HUB, &id).cost, Some(1_000));
    world.pass(3 * HOUR);
    assert_eq!(world.status(HUB, &id).brought, Some(1_000));
    let got = world.wind_up();
    assert!(got[HUB] >= 0, "{got:?}");
}

/// Bob claims on a voucher, and redeems a newer one when the limit has passed: he has undone his own claim, which binds nothing then.
#[test]
fn a_claim_that_its_payee_has_undone_binds_nothing() {
    let mut world = World::line();
    let id = world.start(1_000, 2 * HOUR);
    world.run();
    world.lose = |m| matches!(m.kind, Some(virtual_message::Kind::Ack(_)));
    world.start(100, 2 * HOUR);
    world.run();
    let vouchers = sent_to(&world, BOB);
    world.nodes[BOB].down = true;
    let end = world.between(HUB, BOB);
    world.channel(HUB, manager::Input::Settle(end)).unwrap();
    world.run();
    world.grab(vouchers[0], &[(id, 59)]).unwrap();
    world.pass(3 * HOUR);
    assert_eq!(world.status(HUB, &id).cost, Some(59));
    world.grab(vouchers[1], &[]).unwrap();
    world.poll();
    world.poll();
    assert_eq!((world.in_log(HUB, BOB), world.money(HUB, BOB).locked), (0, 0));
    let got = world.wind_up();
    assert!(got[HUB] >= 0, "{got:?}");
}

/// Bob signs nothing back, and redeems the voucher that pays for what he has closed: with that it is over, long before its limit.
#[test]
fn a_voucher_in_the_log_ends_what_it_leaves_out_though_it_was_never_signed_back() {
    let mut world = World::line();
    let id = world.start(1_000, 2 * HOUR);
    world.run();
    world.pay(id, 50);
    world.lose = |m| matches!(m.kind, Some(virtual_message::Kind::Ack(_)));
    world.ask(BOB, Input::Close(id)).unwrap();
    world.run();
    assert_eq!((world.status(HUB, &id).cost, world.status(HUB, &id).brought), (None, None));
    let newest = sent_to(&world, BOB).into_iter().max_by_key(|at| world.sent[*at].2.terms.nonce).unwrap();
    world.grab(newest, &[]).unwrap();
    world.poll();
    assert_eq!((world.status(HUB, &id).cost, world.status(HUB, &id).brought), (Some(50), Some(50)));
    assert_eq!(world.money(HUB, BOB).locked, 0);
    let got = world.wind_up();
    assert_eq!((got[HUB], got[BOB]), (i128::from(world.nodes[HUB].config.fee(1_000)), 50), "{got:?}");
}

/// A hub that redeems the payee's own signature to stop its claim gains nothing: the payee claims on that.
#[test]
fn a_hub_that_is_first_in_the_log_with_the_same_voucher_does_not_stop_a_claim() {
    let mut world = World::line();
    let id = world.start(1_000, 2 * HOUR);
    world.run();
    world.pay(id, 600);
    world.nodes[HUB].mute = true;
    // Bob's order is made, and the hub's is ordered before it.
    world.log.now += 2 * HOUR - MINUTE;
    world.look(BOB);
    let end = world.between(HUB, BOB);
    let back = world.nodes[HUB].journal.iter().flat_map(|group| &group.entries).find_map(|entry| match &entry.kind {
        Some(wire::hub_entry::Kind::Channel(record)) => match &record.kind {
            Some(wire::manager_record::Kind::Virtual(one)) if one.payer == end.side => {
                one.voucher.clone().filter(|voucher| voucher.signer != end.side && one.channel == end.channel[..])
            }
            _ => None,
        },
        _ => None,
    });
    let redemptions = vec![wire::Redemption { voucher: back, ..Default::default() }];
    let redeem = wire::output::Kind::ChannelRedeem(wire::ChannelRedeem { redemptions, claims: vec![] });
    let account = world.nodes[HUB].account;
    world.log.output(&redeem, &account).unwrap();
    world.run();
    world.pass(2 * MINUTE);
    assert_eq!(world.in_log(HUB, BOB), 600);
    let fee = i128::from(world.nodes[HUB].config.fee(1_000));
    assert_eq!(world.wind_up(), [-600 - fee, fee, 600]);
}

/// What a hub may not say to a payee: less than was paid, another set, a set that leaves somebody out.
#[test]
fn a_set_that_takes_something_away_is_refused() {
    let mut world = World::line();
    let id = world.start(1_000, 2 * HOUR);
    world.run();
    world.pay(id, 600);
    let end = world.between(HUB, BOB);
    let (to, other, known) = world.sent[*sent_to(&world, BOB).last().unwrap()].clone();
    assert_eq!(to, BOB);
    let shut = |paid| wire::VirtualShut { id: Bytes::copy_from_slice(&id), paid, code: 0 };
    let good = wire::Voucher { nonce: known.terms.nonce + 1, amount: 600, virtuals: None, ..known.terms.clone() };
    let set = known.terms.virtuals.clone();
    let plain = wire::Voucher { virtuals: None, ..good.clone() };
    for (terms, base, shuts, code) in [
        (wire::Voucher { amount: 599, ..good.clone() }, 1, vec![shut(599)], Code::VirtualState),
        (wire::Voucher { amount: 599, ..good.clone() }, 1, vec![shut(600)], Code::VirtualState),
        (wire::Voucher { virtuals: set.clone(), ..good.clone() }, 1, vec![shut(600)], Code::VirtualState),
        (good.clone(), 1, vec![], Code::VirtualState),
        (good.clone(), 0, vec![shut(600)], Code::VirtualState),
        (good.clone(), 2, vec![shut(600)], Code::VirtualState),
        (good.clone(), 1, vec![shut(600), shut(600)], Code::VirtualState),
        (wire::Voucher { not_after_ms: 5, ..good.clone() }, 1, vec![shut(600)], Code::VoucherMerges),
        (
            wire::Voucher { channel: Bytes::from_static(&[8; 32]), ..good.clone() },
            1,
            vec![shut(600)],
            Code::VoucherChannel,
        ),
        (wire::Voucher { amount: FUNDS + 1, ..good.clone() }, 1, vec![shut(600)], Code::ChannelFunds),
    ] {
        let voucher = Voucher::sign(terms, end.side, &[&world.nodes[HUB].key.0]).signed();
        let update = wire::VirtualUpdate { voucher: Some(voucher), base, opens: vec![], shuts };
        let message = wire::VirtualMessage {
            channel: Bytes::copy_from_slice(&end.channel),
            kind: Some(virtual_message::Kind::Update(update)),
        };
        let before = world.nodes[BOB].journal.len();
        let refused = world.ask(BOB, Input::Message { end: other, message: Box::new(message) }).unwrap_err();
        assert_eq!(refused.code, code, "{refused}");
        assert_eq!(world.nodes[BOB].journal.len(), before);
    }
    // An ordinary voucher on the lane would end what is open over it.
    let voucher = Voucher::sign(plain, end.side, &[&world.nodes[HUB].key.0]).signed();
    let incoming = manager::Incoming { end: other, voucher, secret: Bytes::new(), proof: Bytes::new(), min_delta: 0 };
    let refused = world.channel(BOB, manager::Input::VoucherAdd(incoming)).unwrap_err();
    assert_eq!(refused.code, Code::LaneLocked);
    let issue = manager::Issue { end, lane: 0, amount: 700, conditions: Default::default() };
    let refused = world.channel(HUB, manager::Input::VoucherCreate(issue)).unwrap_err();
    assert_eq!(refused.code, Code::LaneLocked);
}

#[test]
fn a_journal_that_has_forgotten_sets_signs_no_more_of_them_and_still_claims() {
    let mut world = World::line();
    let id = world.start(1_000, 2 * HOUR);
    world.run();
    world.pay(id, 100);
    let groups = world.nodes[HUB].journal.len();
    let second = world.start(500, 2 * HOUR);
    world.run();
    let lost = world.nodes[HUB].journal.len() - groups;
    world.restart(HUB, lost);
    world.connect_all();
    let diverged = world.nodes[HUB].events.iter().filter(|event| matches!(event, Event::Diverged(_))).count();
    assert!(diverged >= 1);
    assert!(world.nodes[HUB].virtuals.status(&second).is_err());
    world.pass(3 * HOUR);
    assert_eq!(world.in_log(HUB, BOB), 100);
    assert_eq!(world.wind_up()[BOB], 100);
}

/// The hub shows Alice only what she has signed, and never more than the cap.
#[test]
fn a_close_for_what_its_payer_has_not_signed_is_refused() {
    let mut world = World::line();
    let id = world.start(1_000, 2 * HOUR);
    world.run();
    world.pay(id, 100);
    let sign = |node: usize, amount| {
        let terms = wire::VirtualAmount { id: Bytes::copy_from_slice(&id), amount };
        crate::channel::voucher::sign_virtual(&terms, &[&world.nodes[node].key.0])
    };
    for (signed, code) in [
        (sign(BOB, 200), Code::KeyMismatch),
        (sign(HUB, 200), Code::KeyMismatch),
        (sign(ALICE, 1_001), Code::VirtualAmount),
    ] {
        for (node, from) in [(HUB, BOB), (ALICE, HUB)] {
            let end = world.between(node, from);
            let close = wire::VirtualClose { id: Bytes::copy_from_slice(&id), amount: Some(signed.clone()), code: 0 };
            let message = wire::VirtualMessage {
                channel: Bytes::copy_from_slice(&end.channel),
                kind: Some(virtual_message::Kind::Close(close)),
            };
            let refused = world.ask(node, Input::Message { end, message: Box::new(message) }).unwrap_err();
            assert_eq!(refused.code, code);
        }
    }
    assert_eq!(world.status(ALICE, &id).cost, None);
}

/// A side that comes back from an old backup takes the first greeting on a connection for what the other side holds now.
#[test]
fn what_is_said_names_the_connection_that_was_there() {
    let mut world = World::line();
    let (end, now) = (world.between(ALICE, HUB), world.now());
    let said = |world: &mut World, input: Input| -> Vec<u64> {
        let node = &mut world.nodes[ALICE];
        node.handle(now, input).unwrap();
        let effects = node.unsynced.iter().flat_map(|fx| &fx.effects);
        let sends = effects.filter_map(|effect| match effect {
            Effect::Send { connection, .. } => Some(*connection),
            _ => None,
        });
        sends.collect()
    };
    world.nodes[ALICE].sync();
    world.nodes[ALICE].effects.clear();
    assert_eq!(said(&mut world, Input::Connected(end, 70)), [70]);
    assert_eq!(said(&mut world, Input::Connected(end, 71)), [70, 71], "each greeting for its own connection");
    world.nodes[ALICE].sync();
    assert_eq!(said(&mut world, Input::Disconnected(end)), [0_u64; 0]);
    let open = world.wanted(&[ALICE, HUB, BOB], 10, 2 * HOUR);
    let offline = world.nodes[ALICE].handle(now, Input::Open(open)).unwrap_err();
    assert_eq!(offline.code, Code::HubOffline);
}

/// The hub's greeting for Alice's connection before her crash comes too late to be taken for the answer to her greeting after it.
#[test]
fn a_greeting_of_before_does_not_let_an_old_journal_sign() {
    let mut world = World::line();
    let end = world.between(ALICE, HUB);
    world.start(1_000, 2 * HOUR);
    // The hub has greeted, and Alice's voucher is taken; the greeting is not on its way yet.
    let greeting = world.nodes[HUB].effects.len();
    world.connect(ALICE, end);
    let lost = world.nodes[ALICE].journal.len();
    world.run();
    assert!(world.nodes[HUB].effects.len() <= greeting);
    let kept = world.nodes[ALICE].journal.len();
    assert!(kept > lost);
    // A greeting is decided, a newer connection is there when it is carried out: nothing of it arrives.
    let other = world.between(HUB, ALICE);
    let now = world.now();
    world.connections += 1;
    let connection = world.connections;
    world.nodes[HUB].handle(now, Input::Connected(other, connection)).unwrap();
    world.restart(ALICE, kept - lost);
    world.newest.insert(end.channel, connection + 1);
    world.connections += 1;
    world.nodes[ALICE].handle(now, Input::Connected(end, connection + 1)).unwrap();
    world.run();
    assert!(world.late > 0);
    let open = world.wanted(&[ALICE, HUB, BOB], 10, 2 * HOUR);
    assert_eq!(world.ask(ALICE, Input::Open(open)).unwrap_err().code, Code::HubOffline);
}

/// A lane that was paid on by hand, which an old journal has forgotten: it would put a set into it, under a nonce that it has used.
#[test]
fn an_old_journal_that_has_forgotten_a_lane_of_another_kind_signs_no_sets() {
    let mut world = World::line();
    let (end, other) = (world.between(ALICE, HUB), world.between(HUB, ALICE));
    let before = world.nodes[ALICE].journal.len();
    world.channel(ALICE, manager::Input::AllocateLane(end)).unwrap();
    let issue = manager::Issue { end, lane: 0, amount: 700, conditions: Default::default() };
    world.channel(ALICE, manager::Input::VoucherCreate(issue)).unwrap();
    let voucher = world.nodes[ALICE].manager.out_lane(&end, 0).unwrap().newest.unwrap();
    let incoming = manager::Incoming { end: other, voucher, secret: Bytes::new(), proof: Bytes::new(), min_delta: 0 };
    world.channel(HUB, manager::Input::VoucherAdd(incoming)).unwrap();
    world.run();
    let lost = world.nodes[ALICE].journal.len() - before;
    world.restart(ALICE, lost);
    world.connect_all();
    assert!(world.nodes[ALICE].events.contains(&Event::Diverged(end)));
    let open = world.wanted(&[ALICE, HUB, BOB], 10, 2 * HOUR);
    assert_eq!(world.ask(ALICE, Input::Open(open)).unwrap_err().code, Code::HubDiverged);
}

#[test]
fn a_hub_backs_no_more_than_it_is_told_to() {
    let policy = Policy { backs_max: 1_000, ..Default::default() };
    let mut world = World::with(3, policy);
    world.open(ALICE, HUB, [FUNDS, 0], false);
    world.open(HUB, BOB, [FUNDS, 0], false);
    let first = world.start(600, 2 * HOUR);
    world.run();
    let second = world.start(401, 2 * HOUR);
    world.run();
    assert!(world.status(ALICE, &first).opened);
    let refused = world.status(ALICE, &second);
    assert_eq!((refused.opened, refused.over, refused.code), (false, true, Code::VirtualTerms as u32));
    assert_eq!(world.nodes[HUB].virtuals.backed().amount, 600);
    assert_eq!(world.money(HUB, BOB).locked, 600);
    // What is over is not backed any more.
    world.ask(BOB, Input::Close(first)).unwrap();
    world.run();
    let third = world.start(401, 2 * HOUR);
    world.run();
    assert!(world.status(ALICE, &third).opened);
}

/// Keys of the largest kind: what is opened goes in as many frames as it takes.
#[test]
fn openings_fit_into_frames() {
    use prost::Message as _;
    let mut world = World::line();
    let keys =
        (1..=crate::limits::KEYS_MAX as u64).map(|n| crate::testing::secret(crate::keys::Curve::Ed25519, n).public());
    let keys = keys.map(|key| (key, 1)).collect();
    let permission = crate::permission::Permission { threshold: 1, keys, actor: 0 }.encode();
    let mut ids = Vec::new();
    for _ in 0..60 {
        let mut open = world.wanted(&[ALICE, HUB, BOB], 10, 2 * HOUR);
        open.permission = permission.clone();
        ids.push(open.id);
        world.ask(ALICE, Input::Open(open)).unwrap();
    }
    let mut largest = 0;
    for _ in 0..2_000 {
        for node in 0..3 {
            while world.step(node) {}
        }
        let sends = world.mail.iter().filter_map(|mail| match mail {
            Mail::Side(_, _, message) => Some(message.encoded_len()),
            Mail::Peer(..) => None,
        });
        largest = sends.max().unwrap_or(0).max(largest);
        world.deliver(0);
    }
    // With the voucher: what is opened fills its limit as far as another one does not fit.
    let limit = crate::limits::VIRTUAL_OPENS_BYTES_MAX;
    assert!((limit - 1_024..limit + 1_024).contains(&largest), "{largest}");
    assert!(ids.iter().all(|id| world.status(ALICE, id).opened));
}

/// Bob is off, with a watchtower; and when he is back he finds what it has claimed.
#[test]
fn a_watchtower_claims_what_a_payee_that_is_off_was_paid() {
    use crate::channel::manager::{Manager, Message, Watcher};
    let mut world = World::line();
    let (id, unpaid) = (world.start(1_000, 2 * HOUR), world.start(500, 2 * HOUR));
    world.run();
    world.pay(id, 600);
    assert_eq!(world.status(BOB, &unpaid).amount, 0);
    let end = world.between(BOB, HUB);
    let tower = world.nodes[ALICE].account;
    let watched = |world: &World, tower| {
        let Node { manager, virtuals, key, .. } = &world.nodes[BOB];
        let mut watched = Manager::watch(manager, &end, &tower, key).unwrap();
        watched.claims = virtuals.watch(&end, &tower, manager, key).unwrap();
        watched
    };
    let given = watched(&world, tower);
    assert_eq!((given.redemptions.len(), given.claims.len()), (1, 1));
    let mut watcher = Watcher::new(tower, 60_000);
    // Files that are not its own, or do not belong together.
    let mut other = given.clone();
    other.claims = watched(&world, world.nodes[HUB].account).claims;
    assert_eq!(watcher.add(&other).unwrap_err().code, Code::NotAParty);
    for bad in [
        wire::VirtualClaim { channel: Bytes::from_static(&[9; 32]), ..given.claims[0].clone() },
        wire::VirtualClaim { payer: end.side, ..given.claims[0].clone() },
        wire::VirtualClaim { lane: 77, ..given.claims[0].clone() },
    ] {
        let other = wire::WatchedChannel { claims: vec![bad], ..given.clone() };
        assert_eq!(watcher.add(&other).unwrap_err().code, Code::VirtualUnknown);
    }
    watcher.add(&given).unwrap();
    world.nodes[BOB].down = true;
    let limit = given.claims[0].cap.as_ref().unwrap().not_after_ms;
    let seen = |world: &World, watcher: &mut Watcher| {
        watcher.seen(&end.channel, &world.log.channels[&end.channel], world.log.now)
    };
    // As long as Bob has time for it himself, it waits.
    world.pass(limit - 90_001 - world.log.now);
    assert!(seen(&world, &mut watcher).is_empty());
    world.pass(1);
    let account = world.nodes[BOB].account;
    let messages = seen(&world, &mut watcher);
    assert_eq!(messages.len(), 2, "the voucher, then the claim");
    let applied = |world: &mut World, message: &Message| {
        message.outputs.iter().for_each(|output| world.log.output(output, &account).unwrap());
    };
    applied(&mut world, &messages[0]);
    // The claim may be refused, or lost: it is still due on the voucher that the log has now.
    assert_eq!(seen(&world, &mut watcher), messages[1..]);
    applied(&mut world, &messages[1]);
    assert!(seen(&world, &mut watcher).is_empty(), "once is enough");
    world.poll();
    assert_eq!(world.status(HUB, &id).cost, Some(600));
    world.nodes[BOB].down = false;
    world.poll();
    assert_eq!((world.status(BOB, &id).brought, world.status(BOB, &id).over), (Some(600), true));
    world.pass(3 * HOUR);
    let fees = i128::from(world.nodes[HUB].config.fee(1_000) + world.nodes[HUB].config.fee(500));
    assert_eq!(world.wind_up(), [-600 - fees, fees, 600]);
}

#[test]
fn a_way_over_two_hubs_has_the_fees_and_times_of_both() {
    use crate::channel::virtuals::{Step, To, plan};
    let mut world = World::with(4, Policy::default());
    for wallet in 0..3 {
        world.open(wallet, wallet + 1, [FUNDS, 0], false);
    }
    let terms = [HUB, BOB].map(|hub| world.nodes[hub].config.terms());
    let until = world.log.now + 2 * HOUR;
    let (to_second, payee) = (world.between(HUB, BOB).channel, world.nodes[3].account);
    let steps = [Step { to: To::Channel(to_second), terms: terms[0] }, Step { to: To::Party(payee), terms: terms[1] }];
    let (end, permission) = (world.between(ALICE, HUB), world.nodes[ALICE].permission.clone());
    let planned = |steps: &[Step], cap| plan([5; 32], end, permission.clone(), (cap, until), steps);
    let open = planned(&steps, 10_000).unwrap();
    let fee = world.nodes[HUB].config.fee(10_000);
    assert_eq!((open.fee, open.hops[0].fee, open.hops[1].fee), (2 * fee, fee, 0));
    assert_eq!(open.not_after_ms, until + terms[0].margin_ms + terms[1].margin_ms);
    world.parties.insert([5; 32], (ALICE, 3));
    world.ask(ALICE, Input::Open(open)).unwrap();
    world.run();
    assert!(world.status(ALICE, &[5; 32]).opened);
    assert_eq!(world.status(ALICE, &[5; 32]).payee, Some(payee));
    world.pay([5; 32], 400);
    world.ask(3, Input::Close([5; 32])).unwrap();
    world.run();
    assert_eq!(world.status(ALICE, &[5; 32]).cost, Some(400));
    let small = Step { terms: wire::VirtualTerms { cap_min: 10, ..terms[0] }, ..steps[0] };
    assert_eq!(planned(&[small], 9).unwrap_err().code, Code::VirtualTerms);
    assert_eq!(planned(&[], 0).unwrap_err().code, Code::BadAmount);
    assert_eq!(planned(&[steps[0]; 17], 9).unwrap_err().code, Code::HubRoute);
}
