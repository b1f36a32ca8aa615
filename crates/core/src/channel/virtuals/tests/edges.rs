//! Each limit of a virtual channel: at it, and one over.

use bytes::Bytes;

use super::world::*;
use crate::channel::manager;
use crate::channel::virtuals::{Event, Input, Open, Policy, Step, To, VirtualId, fit_claims, plan};
use crate::error::Code;
use crate::limits::{AMOUNT_MAX, CALL_BYTES_MAX, HUB_HOPS_MAX};
use crate::wire::virtual_message::Kind;
use crate::wire::{self, VirtualHop, VirtualTerms};

const HOUR: u64 = 60 * MINUTE;

/// What the payer says to an opening.
fn said(world: &mut World, open: Open) -> Result<(), Code> {
    world.ask(ALICE, Input::Open(open)).map(drop).map_err(|e| e.code)
}

/// Opens over the hub what was changed before, under this policy of hub and payee. With what it was refused on the way.
fn opened(policy: &Policy, change: impl FnOnce(&mut World, &mut Open)) -> Result<(), Code> {
    let mut world = World::line();
    let mut open = world.wanted(&[ALICE, HUB, BOB], 1_000, 2 * HOUR);
    change(&mut world, &mut open);
    for node in [HUB, BOB] {
        world.nodes[node].virtuals.config.policy = policy.clone();
    }
    let id = open.id;
    said(&mut world, open)?;
    world.run();
    let status = world.status(ALICE, &id);
    assert_ne!(status.opened, status.over);
    if status.opened { Ok(()) } else { Err(Code::from_number(status.code).unwrap()) }
}

/// Two wallets without a hub, and what Alice would open.
fn direct(cap: u64, ms: u64) -> (World, Open) {
    let mut world = World::with(2, Policy::default());
    world.open(ALICE, HUB, [FUNDS, 0], false);
    let open = world.wanted(&[ALICE, HUB], cap, ms);
    (world, open)
}

#[test]
fn the_same_opening_again_is_the_same_and_an_id_is_for_one() {
    let mut world = World::line();
    let open = world.wanted(&[ALICE, HUB, BOB], 1_000, 2 * HOUR);
    let id = open.id;
    assert_eq!(said(&mut world, open.clone()), Ok(()));
    let journal = world.nodes[ALICE].journal.len();
    assert_eq!(said(&mut world, open.clone()), Ok(()));
    world.run();
    assert_eq!(said(&mut world, open.clone()), Ok(()));
    assert!(world.status(ALICE, &id).opened);
    assert_eq!(world.money(ALICE, HUB).locked, 1_000, "once");
    assert!(world.nodes[ALICE].journal.len() >= journal);
    let key = world.nodes[BOB].permission.clone();
    let other_end = world.between(HUB, BOB);
    for other in [
        Open { cap: 1_001, ..open.clone() },
        Open { not_after_ms: open.not_after_ms + 1, ..open.clone() },
        Open { permission: key, ..open.clone() },
        Open { end: other_end, ..open.clone() },
        Open { hops: vec![], ..open.clone() },
    ] {
        assert_eq!(said(&mut world, other), Err(Code::VirtualChannel));
    }
    // Nor is one of others opened as an own one, whatever its terms: not by the hub, and not by the payee.
    let hop = &open.hops[0];
    let passed_on = Open { end: other_end, not_after_ms: hop.not_after_ms, fee: hop.fee, hops: vec![], ..open.clone() };
    assert_eq!(world.ask(HUB, Input::Open(passed_on)).unwrap_err().code, Code::VirtualChannel);
    assert_eq!(world.ask(BOB, Input::Open(open)).unwrap_err().code, Code::VirtualChannel);
}

#[test]
fn openings_take_no_more_than_there_is_also_those_that_wait() {
    let all = |cap: u64, fee: u64| {
        let (mut world, open) = direct(cap, HOUR);
        said(&mut world, Open { fee, ..open })
    };
    assert_eq!((all(FUNDS, 0), all(FUNDS - 9, 9)), (Ok(()), Ok(())));
    assert_eq!((all(FUNDS + 1, 0), all(FUNDS - 9, 10)), (Err(Code::HubFunds), Err(Code::HubFunds)));
    assert_eq!(all(AMOUNT_MAX, u64::MAX), Err(Code::HubFunds));
    assert_eq!((all(0, 0), all(AMOUNT_MAX + 1, 0)), (Err(Code::BadAmount), Err(Code::BadAmount)));
    // A voucher is under way: what comes up meanwhile waits, with its fee.
    for (cap, fits) in [(50_000, true), (50_001, false)] {
        let mut world = World::with(2, Policy::default());
        world.open(ALICE, HUB, [FUNDS, 0], false);
        let mut asked = |cap, fee| {
            let open = world.wanted(&[ALICE, HUB], cap, HOUR);
            said(&mut world, Open { fee, ..open })
        };
        assert_eq!((asked(30_000, 0), asked(19_993, 7)), (Ok(()), Ok(())));
        assert_eq!(asked(cap, 0), if fits { Ok(()) } else { Err(Code::HubFunds) });
        world.run();
        let status = world.money(ALICE, HUB);
        let locked = 49_993 + if fits { cap } else { 0 };
        assert_eq!((status.locked, status.committed, status.available), (locked, 7, FUNDS - 7 - locked));
    }
}

#[test]
fn the_first_and_the_last_moment_of_a_virtual_channel() {
    let (world, _) = direct(10, HOUR);
    let end = world.between(ALICE, HUB);
    let (first, last) = world.nodes[ALICE].manager.limits(world.now(), &end).unwrap();
    assert_eq!((first, last), (START + MINUTE, START + DELAY - MINUTE));
    for (not_after_ms, taken) in [(first - 1, false), (first, true), (last, true), (last + 1, false)] {
        let (mut world, open) = direct(10, HOUR);
        let result = said(&mut world, Open { not_after_ms, ..open.clone() });
        assert_eq!(result, if taken { Ok(()) } else { Err(Code::VirtualTerms) });
        world.run();
        if taken {
            assert!(world.status(ALICE, &open.id).opened);
        }
    }
}

#[test]
fn nothing_is_opened_without_the_other_side_or_where_money_leaves() {
    let (mut world, open) = direct(10, HOUR);
    let end = open.end;
    world.ask(ALICE, Input::Disconnected(end)).unwrap();
    assert_eq!(said(&mut world, open.clone()), Err(Code::HubOffline));
    // Compared before, and there again.
    world.connect(ALICE, end);
    assert_eq!(said(&mut world, open.clone()), Ok(()));
    world.run();
    // There, and not compared since the start.
    world.restart(ALICE, 0);
    let next = world.wanted(&[ALICE, HUB], 10, HOUR);
    world.ask(ALICE, Input::Connected(end, 90)).unwrap();
    assert_eq!(said(&mut world, next.clone()), Err(Code::HubOffline));
    world.connect(ALICE, end);
    world.run();
    let record = world.log.channels.get_mut(&end.channel).unwrap();
    record.other.as_mut().unwrap().leaving_at_ms = START + DELAY;
    record.revision += 1;
    world.poll();
    assert_eq!(said(&mut world, next.clone()), Err(Code::ChannelNotOpen));
    world.log.channels.get_mut(&end.channel).unwrap().other.as_mut().unwrap().leaving_at_ms = 0;
    world.log.channels.get_mut(&end.channel).unwrap().revision += 1;
    world.poll();
    assert_eq!(said(&mut world, next), Ok(()));
    world.channel(ALICE, manager::Input::Settle(end)).unwrap();
    let late = world.wanted(&[ALICE, HUB], 10, HOUR);
    assert_eq!(said(&mut world, late), Err(Code::ChannelNotOpen));
}

#[test]
fn a_way_has_at_most_16_hubs() {
    let with = |hops: usize| {
        let (mut world, open) = direct(10, HOUR);
        let hop = VirtualHop { channel: Bytes::from_static(&[9; 32]), not_after_ms: START, ..Default::default() };
        let open = Open { hops: vec![hop; hops], ..open };
        said(&mut world, open.clone())?;
        world.run();
        Ok(Code::from_number(world.status(ALICE, &open.id).code))
    };
    assert_eq!((with(HUB_HOPS_MAX), with(HUB_HOPS_MAX + 1)), (Ok(Some(Code::HubRoute)), Err(Code::HubRoute)));
    // A plan, too.
    let (world, open) = direct(10, HOUR);
    let terms = world.nodes[HUB].config.terms();
    let step = Step { to: To::Channel([9; 32]), terms };
    let planned = |hubs: usize| plan(open.id, open.end, open.permission.clone(), (10, START), &vec![step; hubs]);
    assert_eq!(planned(HUB_HOPS_MAX).map(|open| open.hops.len()), Ok(HUB_HOPS_MAX));
    assert_eq!(planned(HUB_HOPS_MAX + 1).unwrap_err().code, Code::HubRoute);
    let capped = |cap, cap_min| {
        let step = Step { terms: VirtualTerms { cap_min, ..terms }, ..step };
        plan(open.id, open.end, open.permission.clone(), (cap, START), &[step]).map(|open| open.fee).map_err(|e| e.code)
    };
    assert_eq!((capped(10, 10), capped(10, 11)), (Ok(2), Err(Code::VirtualTerms)));
    assert!(capped(AMOUNT_MAX, 1).is_ok());
    assert_eq!(capped(AMOUNT_MAX + 1, 1), Err(Code::BadAmount));
}

#[test]
fn what_a_hub_asks_for_opening_is_rounded_up() {
    let (world, _) = direct(10, HOUR);
    let mut config = world.nodes[HUB].config.clone();
    for (base, ppm, cap, expected) in [
        (0, 0, 1_000, 0),
        (5, 0, 1_000, 5),
        (0, 1, 1_000_000, 1),
        (0, 1, 1_000_001, 2),
        (3, 2_000, 500, 4),
        (3, 2_000, 501, 5),
        (1, u32::MAX, u64::MAX, u64::MAX),
    ] {
        (config.policy.fee_base, config.policy.fee_ppm) = (base, ppm);
        assert_eq!(config.fee(cap), expected, "{base} + {ppm} millionths of {cap}");
    }
}

#[test]
fn a_hub_opens_for_others_at_each_of_its_limits_and_not_one_over() {
    let none = Policy::default;
    let plain = |policy: Policy| opened(&policy, |_, _| ());
    assert_eq!((plain(none()), plain(Policy { forwards: false, ..none() })), (Ok(()), Err(Code::HubRoute)));
    assert_eq!(plain(Policy { cap_min: 1_000, ..none() }), Ok(()));
    assert_eq!(plain(Policy { cap_min: 1_001, ..none() }), Err(Code::VirtualTerms));
    assert_eq!(plain(Policy { backs_max: 1_000, ..none() }), Ok(()));
    assert_eq!(plain(Policy { backs_max: 999, ..none() }), Err(Code::VirtualTerms));
    assert_eq!(plain(Policy { channels_max: 1, ..none() }), Ok(()));
    assert_eq!(plain(Policy { channels_max: 0, ..none() }), Err(Code::VirtualTerms));
    assert_eq!(plain(Policy { fee_base: 1, fee_ppm: 1_000, ..none() }), Ok(()));
    assert_eq!(plain(Policy { fee_base: 1, fee_ppm: 1_001, ..none() }), Err(Code::HubFee));
    // 1 + 100 millionths of 1,000 make 2.
    let fee = |fee: u64, on: u64| opened(&none(), |_, open| (open.fee, open.hops[0].fee) = (fee, on));
    assert_eq!((fee(2, 0), fee(1, 0), fee(5, 3), fee(4, 3)), (Ok(()), Err(Code::HubFee), Ok(()), Err(Code::HubFee)));
    let until =
        |more: i64| opened(&none(), |_, open| open.not_after_ms = open.not_after_ms.checked_add_signed(more).unwrap());
    assert_eq!((until(0), until(1), until(-1)), (Ok(()), Ok(()), Err(Code::HubMargin)));
    // What could not be claimed any more is not passed on.
    let mut world = World::line();
    let mut open = world.wanted(&[ALICE, HUB, BOB], 1_000, 2 * HOUR);
    open.hops[0].not_after_ms = START + MINUTE - 1;
    let id = open.id;
    assert_eq!(said(&mut world, open), Ok(()));
    world.run();
    assert_eq!((world.status(ALICE, &id).over, world.status(ALICE, &id).code), (true, Code::VirtualTerms as u32));
    assert!(world.nodes[HUB].virtuals.outs.is_empty(), "the hub has signed nothing for it");
    // A margin that is too small for its own absence counts as the least.
    let least = none().grace_ms + MINUTE;
    let margin = |margin: u64| {
        let policy = Policy { margin_ms: 1, ..none() };
        opened(&policy, |_, open| open.not_after_ms = open.hops[0].not_after_ms + margin)
    };
    assert_eq!((margin(least), margin(least - 1)), (Ok(()), Err(Code::HubMargin)));
    // All that the other side can pay with, and all that the hub itself has.
    let caps = |cap: u64, funds: u64| {
        opened(&none(), |world, open| {
            let end = world.between(HUB, BOB);
            let record = world.log.channels.get_mut(&end.channel).unwrap();
            record.opener.as_mut().unwrap().deposited = funds;
            record.revision += 1;
            world.poll();
            (open.cap, open.fee) = (cap, FUNDS - cap);
        })
    };
    assert_eq!((caps(FUNDS - 11, FUNDS), caps(90_000, 90_000)), (Ok(()), Ok(())));
    assert_eq!(caps(90_000, 89_999), Err(Code::HubFunds));
    // Back to where it came from, or nowhere.
    let way = |channel: &dyn Fn(&World) -> Bytes| opened(&none(), |world, open| open.hops[0].channel = channel(world));
    assert_eq!(way(&|world| world.between(HUB, BOB).channel.to_vec().into()), Ok(()));
    assert_eq!(way(&|world| world.between(HUB, ALICE).channel.to_vec().into()), Err(Code::HubRoute));
    assert_eq!(way(&|_| Bytes::from_static(b"short")), Err(Code::HubRoute));
    let party = |node: usize| {
        opened(&none(), |world, open| {
            let party = world.nodes[node].account.as_bytes().to_vec().into();
            (open.hops[0].channel, open.hops[0].party) = (Bytes::new(), party);
        })
    };
    assert_eq!((party(BOB), party(ALICE), party(HUB)), (Ok(()), Err(Code::HubRoute), Err(Code::HubRoute)));
}

#[test]
fn a_payment_counts_at_each_limit_and_not_one_over() {
    let (mut world, open) = direct(100, HOUR);
    let (id, limit) = (open.id, open.not_after_ms);
    said(&mut world, open).unwrap();
    world.run();
    let pay = |world: &mut World, amount| world.ask(ALICE, Input::Pay { id, amount }).map(drop).map_err(|e| e.code);
    assert_eq!((pay(&mut world, 60), pay(&mut world, 59)), (Ok(()), Err(Code::VirtualAmount)));
    world.run();
    // The same again is said again, and nothing is kept for it.
    let journals = |world: &World| [ALICE, HUB].map(|node| world.nodes[node].journal.len());
    let before = journals(&world);
    assert_eq!(pay(&mut world, 60), Ok(()));
    assert_eq!(world.nodes[ALICE].effects.len(), 1);
    world.run();
    assert_eq!((journals(&world), world.status(HUB, &id).amount), (before, 60));
    let last = limit - world.nodes[ALICE].config.claim_ms();
    // The payee needs its time to claim, and the payer signs nothing that could not be.
    for (now, amount, paid, received) in
        [(last - 1, 61, Ok(()), 61), (last, 62, Ok(()), 61), (last + 1, 63, Err(Code::VirtualOver), 61)]
    {
        world.log.now = now;
        assert_eq!(pay(&mut world, amount), paid);
        world.run();
        assert_eq!(world.status(HUB, &id).amount, received, "{amount}");
    }
    let (mut world, open) = direct(100, HOUR);
    let id = open.id;
    said(&mut world, open).unwrap();
    world.run();
    let pay = |world: &mut World, amount| world.ask(ALICE, Input::Pay { id, amount }).map(drop).map_err(|e| e.code);
    assert_eq!((pay(&mut world, 101), pay(&mut world, 100)), (Err(Code::VirtualAmount), Ok(())));
    world.run();
    assert_eq!(world.status(HUB, &id).amount, 100);
}

#[test]
fn only_the_payer_of_an_open_one_pays_and_only_its_ends_close_it() {
    let mut world = World::line();
    let id = world.start(1_000, 2 * HOUR);
    world.run();
    let pay = |world: &mut World, node| world.ask(node, Input::Pay { id, amount: 5 }).map(drop).map_err(|e| e.code);
    assert_eq!([HUB, BOB].map(|node| pay(&mut world, node)), [Err(Code::VirtualOver); 2]);
    let close = |world: &mut World, node| world.ask(node, Input::Close(id)).map(drop).map_err(|e| e.code);
    assert_eq!(close(&mut world, HUB), Err(Code::VirtualOver));
    assert_eq!(world.ask(BOB, Input::Close([1; 32])).unwrap_err().code, Code::VirtualChannel);
    assert_eq!(pay(&mut world, ALICE), Ok(()));
    world.run();
    let signed = |amount| {
        let amount = wire::VirtualAmount { id: id.to_vec().into(), amount };
        crate::channel::voucher::sign_virtual(&amount, &[&world.nodes[ALICE].key.0])
    };
    let (sixth, seventh) = (signed(6), signed(7));
    let received = |world: &mut World, node, one: &wire::SignedPermit| {
        let reply = world.ask(node, Input::Payments(vec![one.clone()])).unwrap();
        let crate::channel::virtuals::Reply::Received(replies) = reply else { panic!() };
        replies[0].clone().map_err(|e| e.code)
    };
    assert_eq!((received(&mut world, BOB, &sixth), received(&mut world, BOB, &sixth)), (Ok(1), Ok(0)));
    assert_eq!(received(&mut world, HUB, &sixth), Err(Code::VirtualOver), "a hub is not paid");
    assert_eq!(received(&mut world, ALICE, &sixth), Err(Code::VirtualOver));
    world.lose = |message| matches!(message.kind, Some(Kind::Close(_)));
    assert_eq!(close(&mut world, BOB), Ok(()));
    assert_eq!(received(&mut world, BOB, &seventh), Err(Code::VirtualOver), "what comes later is not closed for");
    world.run();
    assert!(!world.status(BOB, &id).over && world.status(BOB, &id).closing);
    world.lose = |_| false;
    assert_eq!(close(&mut world, BOB), Ok(()), "said again");
    world.run();
    assert_eq!((world.status(ALICE, &id).cost, world.status(BOB, &id).brought), (Some(6), Some(6)));
    assert_eq!([ALICE, HUB, BOB].map(|node| close(&mut world, node)), [Err(Code::VirtualOver); 3]);
    assert_eq!(pay(&mut world, ALICE), Err(Code::VirtualOver));
}

#[test]
fn what_the_other_party_says_counts_only_from_that_party() {
    let mut world = World::line();
    let id = world.start(1_000, 2 * HOUR);
    world.run();
    world.pay(id, 50);
    let acked = |world: &World, node: usize| {
        let events = world.nodes[node].events.iter().filter_map(|event| match event {
            Event::Acknowledged { amount, .. } => Some(*amount),
            _ => None,
        });
        events.collect::<Vec<_>>()
    };
    assert_eq!(acked(&world, ALICE), [50]);
    let say = |world: &mut World, node, kind| {
        let peer = wire::VirtualPeer { id: Bytes::copy_from_slice(&id), kind: Some(kind) };
        let result = world.ask(node, Input::Peer(peer)).map(drop).map_err(|e| e.code);
        world.run();
        result
    };
    use crate::wire::virtual_peer::Kind as Peer;
    // Nobody acknowledges more than was paid, and nobody but the payer hears of it.
    assert_eq!(say(&mut world, ALICE, Peer::Ack(51)), Ok(()));
    assert_eq!(say(&mut world, BOB, Peer::Ack(0)), Ok(()));
    assert_eq!(say(&mut world, ALICE, Peer::Ack(49)), Ok(()));
    assert_eq!((acked(&world, ALICE), acked(&world, BOB)), (vec![50, 49], vec![]));
    assert_eq!(say(&mut world, ALICE, Peer::Close(true)), Ok(()));
    assert_eq!(say(&mut world, HUB, Peer::Close(true)), Ok(()));
    assert_eq!(say(&mut world, BOB, Peer::Close(false)), Ok(()));
    assert!((0..3).all(|node| !world.status(node, &id).closing));
    assert_eq!(say(&mut world, BOB, Peer::Close(true)), Ok(()));
    assert_eq!(world.status(ALICE, &id).cost, Some(50));
    let empty = wire::VirtualPeer { id: Bytes::copy_from_slice(&id), kind: None };
    assert_eq!(world.ask(BOB, Input::Peer(empty.clone())).unwrap_err().code, Code::BadContent);
    let short = wire::VirtualPeer { id: Bytes::from_static(b"short"), ..empty };
    assert_eq!(world.ask(BOB, Input::Peer(short)).unwrap_err().code, Code::BadContent);
}

#[test]
fn of_many_payments_the_highest_of_each_channel_is_acknowledged() {
    let mut world = World::line();
    let ids = [world.start(1_000, 2 * HOUR), world.start(1_000, 2 * HOUR)];
    world.run();
    let sign = |id: &VirtualId, amount| {
        let amount = wire::VirtualAmount { id: Bytes::copy_from_slice(id), amount };
        crate::channel::voucher::sign_virtual(&amount, &[&world.nodes[ALICE].key.0])
    };
    let many = [(0, 5), (1, 9), (0, 8), (1, 3), (0, 8)].map(|(of, amount)| sign(&ids[of], amount)).to_vec();
    let records = |world: &World| world.nodes[BOB].journal.iter().map(|group| group.entries.len()).sum::<usize>();
    let before = records(&world);
    world.ask(BOB, Input::Payments(many.clone())).unwrap();
    assert_eq!(records(&world), before + 3);
    let acks = |world: &mut World| {
        let told = world.nodes[BOB].effects.drain(..).filter_map(|effect| match effect {
            crate::channel::virtuals::Effect::Tell(peer) => {
                Some((VirtualId::try_from(&peer.id[..]).unwrap(), peer.kind))
            }
            _ => None,
        });
        told.collect::<std::collections::BTreeMap<_, _>>()
    };
    let ack = |amount| Some(crate::wire::virtual_peer::Kind::Ack(amount));
    let expected = std::collections::BTreeMap::from([(ids[0], ack(8)), (ids[1], ack(9))]);
    assert_eq!(acks(&mut world), expected);
    // All of it again, or less, is acknowledged with what there is.
    world.ask(BOB, Input::Payments(many[..2].to_vec())).unwrap();
    assert_eq!((acks(&mut world), records(&world)), (expected, before + 3));
}

#[test]
fn claims_go_into_as_few_orders_as_they_fit_in() {
    use prost::Message as _;
    let claim =
        |n: u32| wire::VirtualClaim { index: n, path: vec![Bytes::from_static(&[7; 32]); 8], ..Default::default() };
    let one = claim(200).encoded_len() + 4;
    let fit = (CALL_BYTES_MAX - 2_048) / one;
    let split = |many: usize, each: usize| {
        let all: Vec<_> = (200..200 + many as u32).map(claim).collect();
        let orders = fit_claims(all.clone(), each);
        assert_eq!(orders.concat(), all, "none is lost, in their order");
        orders.iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(split(0, usize::MAX), [0; 0]);
    assert_eq!(split(fit, usize::MAX), [fit]);
    assert_eq!(split(2 * fit + 1, usize::MAX), [fit, fit, 1]);
    assert_eq!(split(7, 3), [3, 3, 1]);
    assert_eq!(split(3, 1), [1, 1, 1]);
    // One that alone is too large is tried all the same.
    let large = wire::VirtualClaim { path: vec![Bytes::from_static(&[7; 32]); 2_000], ..claim(1) };
    let orders = fit_claims(vec![large.clone(), claim(2), large], usize::MAX);
    assert_eq!(orders.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
    // To the byte: with one of the rest's size, and with one that is larger by 1.
    let room = CALL_BYTES_MAX - 2_048 - (fit - 1) * one;
    let sized = |bytes: usize| {
        let empty = wire::VirtualClaim { channel: vec![0; 200].into(), ..Default::default() };
        let more = bytes - 4 - empty.encoded_len();
        wire::VirtualClaim { channel: vec![0; 200 + more].into(), ..Default::default() }
    };
    for (more, orders) in [(0, 1), (1, 2)] {
        let last = sized(room + more);
        assert_eq!(last.encoded_len() + 4, room + more);
        let all = (0..fit as u32 - 1).map(|n| claim(200 + n)).chain([last]).collect();
        assert_eq!(fit_claims(all, usize::MAX).len(), orders, "{more}");
    }
}
