//! What a wallet says, to whom, and what it signs on hearing something.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::world::*;
use crate::channel::hub::{Event, Input, PaymentState, Policy};
use crate::channel::manager::{self, EndId};
use crate::error::Code;
use crate::limits::HUB_REST_MS;
use crate::wire::hub_message::Kind;
use crate::wire::{self, HubLane, HubMessage};

/// Runs, and gives what was said on the way: to whom, and what.
pub fn heard(world: &mut World) -> Vec<(usize, EndId, Kind)> {
    let mut heard = Vec::new();
    for _ in 0..1_000 {
        let busy = (0..world.nodes.len()).filter(|node| world.step(*node)).count() > 0;
        if let Some((node, end, message)) = world.mail.first().cloned() {
            heard.push((node, end, message.kind.unwrap()));
            world.deliver(0);
        } else if !busy {
            return heard;
        }
    }
    panic!("the hubs never come to rest");
}

pub fn tell(world: &mut World, node: usize, end: EndId, kind: Kind) -> Result<(), Code> {
    let message = Box::new(HubMessage { channel: end.channel.to_vec().into(), kind: Some(kind) });
    world.ask(node, Input::Message { end, message }).map(drop).map_err(|e| e.code)
}

/// Each message about a lock names the side that pays it, also where that is side 1.
#[test]
fn what_is_said_of_a_lock_names_the_side_that_pays_it() {
    let mut world = World::new(2);
    let (alices, bobs) = world.open(0, 1, [1_000, 1_000], true);
    for (node, end, other, others) in [(0, alices, 1, bobs), (1, bobs, 0, alices)] {
        let named = |heard: &[(usize, EndId, Kind)]| {
            let locks = heard.iter().filter_map(|(to, _, kind)| match kind {
                Kind::Held(lock) | Kind::PaidAck(lock) => Some((*to, *lock)),
                Kind::Secret(secret) => Some((*to, secret.lock.unwrap())),
                Kind::Refused(refused) => Some((*to, refused.lock.unwrap())),
                _ => None,
            });
            locks.collect::<Vec<_>>()
        };
        let lock = |nonce| (node, HubLane { payer: end.side, lane: 0, nonce });
        // Paid: held, its secret, and that the payment is there.
        let (invoice, _) = world.invoice(other, others, 100);
        let pay = world.payment(node, end, &[], &invoice);
        world.pay(node, pay);
        assert_eq!(named(&heard(&mut world)), [lock(1), lock(1), lock(2)]);
        // Given back.
        let (invoice, _) = world.invoice(other, others, 100);
        let pay = world.payment(node, end, &[], &invoice);
        world.nodes[other].hub.invoices.clear();
        world.pay(node, pay);
        assert_eq!(named(&heard(&mut world)), [lock(3)]);
        let greeting = world.nodes[node].manager.held_nonces(&end).unwrap();
        assert!(greeting.iter().all(|(payer, _, nonce)| *payer <= 1 && *nonce > 0), "{greeting:?}");
    }
}

#[test]
fn a_secret_of_before_the_greeting_is_kept_and_nothing_is_signed_for_it() {
    let mut line = Line::of(2, Policy::default());
    line.world.nodes[1].mute = true;
    let (payment, hash) = line.start(1_000);
    line.world.run();
    let end = line.links[0].0;
    line.world.restart(ALICE, 0);
    line.world.ask(ALICE, Input::Connected(end, 50)).unwrap();
    let lock = Some(HubLane { payer: 0, lane: 0, nonce: 1 });
    let secret = Bytes::copy_from_slice(&line.world.secrets[&hash]);
    let wrong = wire::HubSecret { lock, secret: Bytes::from_static(&[1; 32]) };
    assert_eq!(tell(&mut line.world, ALICE, end, Kind::Secret(wrong)), Err(Code::VoucherSecret));
    assert_eq!(line.world.state(ALICE, payment), PaymentState::InFlight);
    let shown = Kind::Secret(wire::HubSecret { lock, secret: secret.clone() });
    assert_eq!(tell(&mut line.world, ALICE, end, shown.clone()), Ok(()));
    assert_eq!(line.world.state(ALICE, payment), PaymentState::Paid(secret.clone()), "the receipt is there");
    let nonce = |line: &Line| line.world.nodes[ALICE].manager.out_lane(&end, 0).unwrap().nonce;
    assert_eq!(nonce(&line), 1, "and its journal may be an old one");
    // With each tick and message it waits on.
    line.world.channel(ALICE, manager::Input::Tick).unwrap();
    assert_eq!((tell(&mut line.world, ALICE, end, shown), nonce(&line)), (Ok(()), 1));
    line.world.nodes[1].mute = false;
    line.world.connect(ALICE, end);
    line.world.run();
    assert_eq!((nonce(&line), line.world.paid_events(1)), (2, 1));
    assert_eq!(line.world.nodes[ALICE].events, [Event::Paid { payment, secret }], "once");
}

/// The hub has not looked at the log for long: what the next party shows it is worth nothing if the lock before it can't be
/// redeemed in time.
#[test]
fn a_hub_pays_for_a_secret_only_as_long_as_it_can_claim_with_it() {
    let limit = |line: &Line| line.world.nodes[HUB].hub.ins.values().next().unwrap().not_after_ms;
    for (late, pays) in [(0, true), (1, false), (60_000, false), (60_001, false)] {
        let mut line = Line::new(Policy::default());
        line.world.nodes[BOB].mute = true;
        let (_, hash) = line.start(1_000);
        line.world.run();
        let end = line.links[1].0;
        line.world.log.now = limit(&line) - line.world.nodes[HUB].config.claim_ms() + late;
        let lock = Some(HubLane { payer: 0, lane: 0, nonce: 1 });
        let secret = Bytes::copy_from_slice(&line.world.secrets[&hash]);
        tell(&mut line.world, HUB, end, Kind::Secret(wire::HubSecret { lock, secret })).unwrap();
        assert_eq!(line.world.nodes[HUB].manager.out_lane(&end, 0).unwrap().nonce == 2, pays, "{late}");
    }
}

#[test]
fn who_has_not_got_a_payment_is_told_it_again_and_nothing_else() {
    let mut line = Line::of(2, Policy::default());
    let end = line.links[0].0;
    let shown = |line: &Line, hash, nonce| {
        let lock = Some(HubLane { payer: 0, lane: 0, nonce });
        Kind::Secret(wire::HubSecret { lock, secret: Bytes::copy_from_slice(&line.world.secrets[hash]) })
    };
    let paid = |line: &mut Line| {
        heard(&mut line.world).into_iter().filter(|(_, _, kind)| matches!(kind, Kind::Paid(_))).count()
    };
    // Paid, and heard: who asks all the same gets it once more.
    let (_, hash) = line.start(1_000);
    assert_eq!(paid(&mut line), 1);
    let of_first = shown(&line, &hash, 1);
    tell(&mut line.world, ALICE, end, of_first).unwrap();
    assert_eq!(paid(&mut line), 1);
    // A lock that was given back: what follows it on the lane is no payment.
    let (invoice, hash) = line.invoice(500);
    let pay = line.plan(&invoice);
    line.world.nodes[1].hub.invoices.clear();
    line.world.pay(ALICE, pay);
    line.world.run();
    let of_second = shown(&line, &hash, 3);
    tell(&mut line.world, ALICE, end, of_second).unwrap();
    assert_eq!(paid(&mut line), 0);
    // A lock whose time was over, and its lane has another one now.
    line.world.nodes[1].mute = true;
    let (_, hash) = line.start(500);
    line.world.run();
    line.world.pass_all();
    line.world.pass(HUB_REST_MS + MINUTE);
    line.start(600);
    line.world.run();
    assert_eq!(line.world.nodes[ALICE].hub.locks(&end).iter().map(|lock| lock.lane).collect::<Vec<_>>(), [0]);
    line.world.nodes[1].mute = false;
    let of_third = shown(&line, &hash, 5);
    tell(&mut line.world, ALICE, end, of_third).unwrap();
    assert_eq!(paid(&mut line), 0);
}

#[test]
fn an_old_offer_is_answered_with_what_became_of_it() {
    let mut line = Line::new(Policy::default());
    let (from, to) = (line.links[0].1, line.links[1].1);
    // Told again what it was told before, a wallet says the same, and keeps nothing new.
    let said = |line: &mut Line, node: usize, end, offer: &Kind| {
        let before = line.world.nodes[node].journal.len();
        tell(&mut line.world, node, end, offer.clone()).unwrap();
        assert_eq!(line.world.nodes[node].journal.len(), before);
        heard(&mut line.world).into_iter().map(|(_, _, kind)| kind).collect::<Vec<_>>()
    };
    let offer_to = |heard: &[(usize, EndId, Kind)], to: usize| {
        let offer = heard.iter().rev().find(|(node, _, kind)| *node == to && matches!(kind, Kind::Offer(_)));
        offer.unwrap().2.clone()
    };
    // In flight: held here, and the payee says its secret.
    line.world.lose = |message| matches!(message.kind, Some(Kind::Secret(_)));
    let (_, hash) = line.start(1_000);
    let all = heard(&mut line.world);
    let (first, second) = (offer_to(&all, HUB), offer_to(&all, BOB));
    let lock = HubLane { payer: 0, lane: 0, nonce: 1 };
    assert_eq!(said(&mut line, HUB, from, &first), [Kind::Held(lock)]);
    line.world.lose = |message| matches!(message.kind, Some(Kind::Paid(_)));
    let secret = Bytes::copy_from_slice(&line.world.secrets[&hash]);
    let shown = Kind::Secret(wire::HubSecret { lock: Some(lock), secret });
    tell(&mut line.world, BOB, to, second.clone()).unwrap();
    let all = heard(&mut line.world);
    assert_eq!(all.iter().filter(|(to, _, kind)| *to == HUB && *kind == shown).count(), 1);
    // Paid: over.
    line.world.lose = |_| false;
    line.world.connect_all();
    for (node, end, offer) in [(HUB, from, &first), (BOB, to, &second)] {
        let [Kind::Refused(refused)] = &said(&mut line, node, end, offer)[..] else { panic!() };
        assert_eq!((refused.lock, refused.code, &refused.voucher), (Some(lock), Code::LockOver as u32, &None));
    }
    // Given back: over, with the signature that says so.
    let (invoice, _) = line.invoice(500);
    let pay = line.plan(&invoice);
    line.world.nodes[BOB].hub.invoices.clear();
    line.world.pay(ALICE, pay);
    let all = heard(&mut line.world);
    let (third, fourth) = (offer_to(&all, HUB), offer_to(&all, BOB));
    for (node, end, offer) in [(HUB, from, &third), (BOB, to, &fourth)] {
        let [Kind::Refused(refused)] = &said(&mut line, node, end, offer)[..] else { panic!() };
        assert_eq!((refused.code, refused.voucher.as_ref().map(|back| back.signer)), (Code::LockOver as u32, Some(1)));
    }
    // An older one of a lane with a lock in flight is not answered: that lock is another.
    line.world.nodes[BOB].mute = true;
    line.start(400);
    line.world.run();
    assert_eq!(said(&mut line, HUB, from, &first), []);
}

#[test]
fn an_offer_that_waited_for_a_comparison_is_asked_for_when_it_is_done() {
    let mut line = Line::new(Policy::default());
    line.world.lose = |message| matches!(message.kind, Some(Kind::Offer(_)));
    let (payment, _) = line.start(1_000);
    line.world.run();
    line.world.lose = |_| false;
    line.world.restart(HUB, 0);
    line.world.connect(ALICE, line.links[0].0);
    line.world.run();
    assert_eq!(
        (line.world.state(ALICE, payment), line.world.nodes[HUB].hub.in_flight()),
        (PaymentState::InFlight, (0, 0))
    );
    // Nobody but Bob comes, and says what he holds.
    line.world.connect(HUB, line.links[1].0);
    let greetings = |heard: &[(usize, EndId, Kind)]| {
        heard.iter().filter(|(to, _, kind)| *to == ALICE && matches!(kind, Kind::Hello(_))).count()
    };
    assert_eq!(greetings(&heard(&mut line.world)), 1);
    assert!(matches!(line.world.state(ALICE, payment), PaymentState::Paid(_)));
    // From then on nobody waits.
    line.world.connect(HUB, line.links[1].0);
    assert_eq!(greetings(&heard(&mut line.world)), 0);
}

#[test]
fn a_channel_that_was_collected_meanwhile_has_earned_nothing_and_failed_what_was_open() {
    let mut line = Line::new(Policy::default());
    line.world.nodes[BOB].mute = true;
    let (payment, _) = line.start(1_000);
    line.world.run();
    // Alice and the hub are off, and both channels are gone when they are back.
    let channels = [line.links[0].0.channel, line.links[1].0.channel];
    line.world.log.now += 3 * DELAY;
    for channel in channels {
        let record = line.world.log.channels.get_mut(&channel).unwrap();
        (record.settling_at_ms, record.collected) = (START + DELAY, true);
        record.revision += 1;
    }
    line.world.look(HUB);
    assert_eq!(line.world.nodes[HUB].hub.in_flight(), (0, 0));
    assert_eq!(line.world.nodes[HUB].hub.earned(), wire::HubEarned::default());
    line.world.look(ALICE);
    line.world.run();
    assert_eq!(line.world.failed_with(ALICE, payment), Code::ChannelOver);
    // One that was paid for good before is paid.
    let mut line = Line::new(Policy::default());
    line.world.lose = |message| matches!(message.kind, Some(Kind::PaidAck(_)));
    let (payment, _) = line.start(1_000);
    line.world.run();
    assert_eq!(line.world.nodes[HUB].hub.in_flight(), (1, 0));
    line.world.log.now += 3 * DELAY;
    for channel in channels {
        let record = line.world.log.channels.get_mut(&channel).unwrap();
        (record.settling_at_ms, record.collected) = (START + DELAY, true);
        record.revision += 1;
    }
    line.world.look(HUB);
    line.world.look(ALICE);
    assert_eq!(line.world.nodes[HUB].hub.in_flight(), (0, 0));
    assert_eq!(line.world.nodes[HUB].hub.earned(), wire::HubEarned { payments: 1, fees: 2, upfront: 0 });
    assert!(matches!(line.world.state(ALICE, payment), PaymentState::Paid(_)));
}

#[test]
fn lanes_of_each_of_several_collected_channels_are_forgotten() {
    let mut world = World::new(4);
    let funds = [FUNDS, 0];
    let (alices, _) = world.open(0, 1, funds, false);
    let ends: Vec<_> = [2, 3, 2].map(|to| (to, world.open(1, to, funds, false))).to_vec();
    // One more that nobody ever used, and one that stays open.
    for (to, (hubs, others)) in &ends {
        let (invoice, _) = world.invoice(*to, *others, 100);
        let pay = world.payment(0, alices, &[(1, *hubs)], &invoice);
        world.pay(0, pay);
        world.run();
    }
    assert_eq!(world.nodes[1].hub.lanes.len(), 3);
    for (_, (hubs, _)) in &ends[..2] {
        let record = world.log.channels.get_mut(&hubs.channel).unwrap();
        (record.settling_at_ms, record.collected) = (START + 1, true);
        record.revision += 1;
    }
    world.poll();
    world.run();
    let left: Vec<_> = world.nodes[1].hub.lanes.keys().map(|(end, _)| *end).collect();
    assert_eq!(left, [ends[2].1.0]);
    for (to, (_, others)) in &ends {
        let kept = world.nodes[*to].hub.credit.contains_key(others);
        assert_eq!(kept, *others == ends[2].1.1);
    }
}

/// The assertion that all other tests make at every step: it finds each way in which a lock is passed on without cover.
#[test]
fn a_lock_that_is_passed_on_without_cover_is_found() {
    let mut line = Line::new(Policy::default());
    line.world.nodes[BOB].mute = true;
    line.start(1_000);
    line.world.run();
    let now = line.world.now();
    let (from, to) = ((line.links[0].1, 0), (line.links[1].0, 0));
    let holds = |line: &Line, now| {
        let node = &line.world.nodes[HUB];
        catch_unwind(AssertUnwindSafe(|| node.hub.check(now, &node.manager))).is_ok()
    };
    let later = |log_ms| manager::Now { log_ms, ..now };
    assert!(holds(&line, now));
    let (one, out) = {
        let hub = &line.world.nodes[HUB].hub;
        (hub.ins[&from].clone(), hub.outs[&to].clone())
    };
    let margin = one.not_after_ms - out.not_after_ms;
    let mut with_in = |change: &dyn Fn(&mut super::super::state::In), now| {
        let mut changed = one.clone();
        change(&mut changed);
        line.world.nodes[HUB].hub.ins.insert(from, changed);
        let found = holds(&line, now);
        line.world.nodes[HUB].hub.ins.insert(from, one.clone());
        found
    };
    assert!(!with_in(&|one| one.amount = 999, now));
    assert!(with_in(&|one| one.amount = 1_000, now), "it may pass on for nothing");
    assert!(!with_in(&|one| one.secret_hash = [1; 32], now));
    assert!(!with_in(&|one| one.not_after_ms -= 1, now));
    assert!(with_in(&|one| one.not_after_ms += 1, now));
    assert!(!with_in(&|one| one.failing = Some((1, String::new())), now));
    assert!(!with_in(&|one| one.nonce = 2, now), "another lock");
    assert_eq!(margin, line.world.nodes[HUB].config.margin_ms());
    let mut with_out = |change: &dyn Fn(&mut super::super::state::Out), now| {
        let mut changed = out.clone();
        change(&mut changed);
        line.world.nodes[HUB].hub.outs.insert(to, changed);
        let found = holds(&line, now);
        line.world.nodes[HUB].hub.outs.insert(to, out.clone());
        found
    };
    assert!(!with_out(&|out| out.amount = 1_003, now));
    assert!(with_out(&|out| (out.amount, out.covered) = (1_003, true), now), "what is paid covers it");
    assert!(!with_out(&|out| out.upgraded = true, now), "paid, and not claimed");
    assert!(with_out(&|out| (out.nonce, out.amount) = (9, 1_003), now), "there is no such lock any more");
    assert!(!with_out(&|out| (out.nonce, out.amount, out.upgraded) = (9, 1_003, true), now));
    // The lock before it is gone in the manager: only from its limit on.
    let both = |line: &mut Line, nonce| {
        let hub = &mut line.world.nodes[HUB].hub;
        hub.ins.insert(from, super::super::state::In { nonce, ..one.clone() });
        let source = super::super::state::Source::Forward(from, nonce);
        hub.outs.insert(to, super::super::state::Out { source, ..out.clone() });
    };
    both(&mut line, 2);
    assert!(!holds(&line, now) && !holds(&line, later(one.not_after_ms)));
    assert!(holds(&line, later(one.not_after_ms + 1)));
    both(&mut line, 1);
    assert!(holds(&line, now));
    // Without the lock before it: only when that one's time is over, and never if it was paid on.
    line.world.nodes[HUB].hub.ins.clear();
    assert!(!holds(&line, now) && !holds(&line, later(one.not_after_ms)));
    assert!(holds(&line, later(one.not_after_ms + 1)));
    line.world.nodes[HUB].hub.outs.get_mut(&to).unwrap().upgraded = true;
    assert!(!holds(&line, later(one.not_after_ms + 1)));
}
