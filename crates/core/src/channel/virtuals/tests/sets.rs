//! What the vouchers of a lane say, what binds money, what is said again, what is claimed and when.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::world::*;
use crate::channel::hub::LinkState;
use crate::channel::manager::{self, EndState};
use crate::channel::virtuals::{Bound, Effect, Event, Input, Policy, Role, VirtualId, Virtuals};
use crate::channel::voucher::{self, Voucher};
use crate::error::Code;
use crate::limits::{VIRTUAL_KEEP_MS, VIRTUALS_MAX};
use crate::merkle::Tree;
use crate::wire;
use crate::wire::virtual_message::Kind;

const HOUR: u64 = 60 * MINUTE;

/// Two wallets: Alice pays the other one, which is at the hub's place.
pub fn direct() -> World {
    let mut world = World::with(2, Policy::default());
    world.open(ALICE, HUB, [FUNDS, 0], false);
    world
}

/// Opens over a channel without a hub.
pub fn open(world: &mut World, cap: u64, ms: u64) -> VirtualId {
    let open = world.wanted(&[ALICE, HUB], cap, ms);
    let id = open.id;
    world.ask(ALICE, Input::Open(open)).unwrap();
    id
}

pub fn is_update(message: &wire::VirtualMessage) -> bool {
    matches!(message.kind, Some(Kind::Update(_)))
}

pub fn is_ack(message: &wire::VirtualMessage) -> bool {
    matches!(message.kind, Some(Kind::Ack(_)))
}

/// What a wallet wants to say to the other side of an end, and has not said yet.
fn unsaid(world: &World, node: usize) -> Vec<Kind> {
    let sends = world.nodes[node].effects.iter().filter_map(|effect| match effect {
        Effect::Send { message, .. } => message.kind.clone(),
        _ => None,
    });
    sends.collect()
}

pub fn nonce(world: &World, lane: u32) -> u64 {
    world.nodes[ALICE].manager.out_lane(&world.between(ALICE, HUB), lane).unwrap().nonce
}

#[test]
fn the_connection_of_an_end_is_away_comparing_ready_or_diverged() {
    let mut world = direct();
    let end = world.between(ALICE, HUB);
    let link = |world: &World| world.nodes[ALICE].virtuals.link(&end);
    assert_eq!(link(&world), LinkState::Ready);
    let before = world.nodes[ALICE].journal.len();
    world.ask(ALICE, Input::Disconnected(end)).unwrap();
    assert_eq!(link(&world), LinkState::Away);
    world.connect(ALICE, end);
    world.run();
    open(&mut world, 10, HOUR);
    world.run();
    world.restart(ALICE, 0);
    assert_eq!(link(&world), LinkState::Away);
    world.ask(ALICE, Input::Connected(end, 90)).unwrap();
    assert_eq!(link(&world), LinkState::Comparing);
    world.connect(ALICE, end);
    world.run();
    assert_eq!(link(&world), LinkState::Ready);
    let lost = world.nodes[ALICE].journal.len() - before;
    world.restart(ALICE, lost);
    world.connect(ALICE, end);
    world.run();
    assert_eq!(link(&world), LinkState::Diverged);
    world.ask(ALICE, Input::Disconnected(end)).unwrap();
    assert_eq!(link(&world), LinkState::Diverged);
    assert_eq!(world.nodes[HUB].virtuals.link(&world.between(HUB, ALICE)), LinkState::Ready);
}

#[test]
fn what_is_open_on_each_end_and_in_which_role() {
    let mut world = World::line();
    let first = world.start(1_000, 2 * HOUR);
    let second = world.start(500, 2 * HOUR);
    world.run();
    let bound = |channels, amount| Bound { channels, amount };
    let on = |world: &World, node: usize, other| world.nodes[node].virtuals.open_on(&world.between(node, other));
    let (none, both) = (Bound::default(), bound(2, 1_500));
    assert_eq!((on(&world, ALICE, HUB), on(&world, HUB, ALICE)), ((both, none), (none, both)));
    assert_eq!((on(&world, HUB, BOB), on(&world, BOB, HUB)), ((both, none), (none, both)));
    assert_eq!([ALICE, HUB, BOB].map(|node| world.nodes[node].virtuals.backed()), [none, both, none]);
    world.pay(first, 70);
    let status = |world: &World, node| world.status(node, &first);
    let (alice, hub, bob) = (status(&world, ALICE), status(&world, HUB), status(&world, BOB));
    assert_eq!([alice.role, hub.role, bob.role], [Role::Payer, Role::Hub, Role::Payee]);
    assert_eq!((alice.out, alice.inc), (Some(world.between(ALICE, HUB)), None));
    assert_eq!((hub.out, hub.inc), (Some(world.between(HUB, BOB)), Some(world.between(HUB, ALICE))));
    assert_eq!((bob.out, bob.inc), (None, Some(world.between(BOB, HUB))));
    let until = START + 2 * HOUR;
    let margin = world.nodes[HUB].config.margin_ms();
    assert_eq!([alice.not_after_ms, hub.not_after_ms, bob.not_after_ms], [until + margin, until, until]);
    assert_eq!([alice.amount, hub.amount, bob.amount], [70, 0, 70]);
    assert!([&alice, &hub, &bob].iter().all(|one| one.cap == 1_000 && one.opened && !one.closing && !one.over));
    assert!([&alice, &hub, &bob].iter().all(|one| one.permission == world.nodes[ALICE].permission));
    // Bob is not heard any more: it is being closed where his word has come, and open where not.
    world.lose = is_update;
    world.ask(BOB, Input::Close(first)).unwrap();
    world.run();
    assert_eq!([ALICE, HUB, BOB].map(|node| status(&world, node).closing), [false, true, true]);
    assert_eq!(on(&world, BOB, HUB), (none, both), "until it is taken out");
    world.lose = |_| false;
    world.connect_all();
    let one = bound(1, 500);
    assert_eq!((on(&world, ALICE, HUB), on(&world, HUB, ALICE)), ((one, none), (none, one)));
    assert_eq!((on(&world, HUB, BOB), on(&world, BOB, HUB)), ((one, none), (none, one)));
    assert_eq!(world.nodes[HUB].virtuals.backed(), one);
    let over = status(&world, HUB);
    assert_eq!((over.cost, over.brought, over.over, over.amount), (Some(70), Some(70), true, 70));
    assert_eq!(world.nodes[ALICE].virtuals.ids().count(), 2);
    assert!(world.nodes[ALICE].virtuals.status(&second).is_ok());
}

#[test]
fn what_is_bound_and_until_when_is_that_of_all_that_is_open() {
    // Whichever of their ids is the first.
    for hours in [[3, 1, 2], [1, 2, 3], [2, 3, 1], [3, 2, 1], [2, 1, 3], [1, 3, 2]] {
        let mut world = direct();
        for hour in hours {
            open(&mut world, 10, hour * HOUR);
        }
        world.run();
        for (node, other) in [(ALICE, HUB), (HUB, ALICE)] {
            let end = world.between(node, other);
            let exposed = world.nodes[node].manager.virtual_lane(&end, 0, 0).unwrap().exposed;
            assert_eq!((exposed.most, exposed.next_ms), (30, START + HOUR), "{hours:?}");
        }
    }
    let mut world = direct();
    let ids: Vec<_> = [(100, 3), (200, 1), (300, 2)].map(|(cap, hours)| open(&mut world, cap, hours * HOUR)).to_vec();
    world.run();
    let (end, other) = (world.between(ALICE, HUB), world.between(HUB, ALICE));
    let exposed = |world: &World| {
        [(ALICE, end), (HUB, other)].map(|(node, end)| {
            let exposed = world.nodes[node].manager.virtual_lane(&end, 0, 0).unwrap().exposed;
            (exposed.most, exposed.next_ms)
        })
    };
    assert_eq!(exposed(&world), [(600, START + HOUR); 2]);
    world.pay(ids[0], 30);
    world.ask(HUB, Input::Close(ids[0])).unwrap();
    world.run();
    assert_eq!(exposed(&world), [(530, START + HOUR); 2], "30 for good, and two caps");
    world.log.now = START + HOUR;
    world.poll();
    assert_eq!(exposed(&world), [(530, START + HOUR); 2], "its last moment is its own");
    world.log.now = START + HOUR + 1;
    world.poll();
    assert_eq!(exposed(&world), [(330, START + 2 * HOUR); 2]);
    world.log.now = START + 2 * HOUR + 1;
    world.poll();
    assert_eq!(exposed(&world), [(30, 0); 2]);
    let status = world.money(ALICE, HUB);
    assert_eq!((status.locked, status.committed, status.available), (0, 30, FUNDS - 30));
}

/// While nothing is signed back, the next voucher waits; it is said again every ten seconds.
#[test]
fn an_unanswered_voucher_is_said_again_when_it_is_time() {
    let mut world = direct();
    world.lose = is_update;
    open(&mut world, 10, HOUR);
    world.run();
    let end = world.between(ALICE, HUB);
    let retry = world.nodes[ALICE].config.policy.retry_ms;
    let updates = |world: &mut World| {
        world.ask(ALICE, Input::Look).unwrap();
        let said = unsaid(world, ALICE).len();
        world.run();
        said
    };
    assert_eq!(updates(&mut world), 0);
    world.log.now += retry - 1;
    assert_eq!(updates(&mut world), 0);
    world.log.now += 1;
    assert_eq!((updates(&mut world), updates(&mut world)), (1, 0));
    world.log.now += retry;
    assert_eq!((updates(&mut world), updates(&mut world)), (1, 0));
    // Nobody is there to hear it.
    world.ask(ALICE, Input::Disconnected(end)).unwrap();
    world.log.now += retry;
    assert_eq!(updates(&mut world), 0);
    world.lose = |_| false;
    world.connect(ALICE, end);
    world.run();
    world.log.now += retry;
    assert_eq!(updates(&mut world), 0, "it is signed back");
}

/// The payee's signature of the newest voucher that it has taken.
fn signed_back(world: &World) -> wire::SignedVoucher {
    let newest = world.nodes[HUB].manager.virtual_lane(&world.between(HUB, ALICE), 0, 0).unwrap().newest;
    let terms = Voucher::decode(&newest.unwrap()).unwrap().terms;
    Voucher::sign(terms, 1, &[&world.nodes[HUB].key.0]).signed()
}

/// On the first channel, by the other side.
fn tell(world: &mut World, node: usize, kind: Kind) {
    let end = world.between(node, 1 - node);
    let message = wire::VirtualMessage { channel: end.channel.to_vec().into(), kind: Some(kind) };
    world.ask(node, Input::Message { end, message: Box::new(message) }).unwrap();
}

#[test]
fn with_nothing_under_way_a_greeting_is_all_that_is_said() {
    let mut world = direct();
    open(&mut world, 10, HOUR);
    world.run();
    for node in [ALICE, HUB] {
        tell(&mut world, node, Kind::Hello(wire::VirtualHello::default()));
    }
    assert_eq!(unsaid(&world, ALICE), []);
    let [Kind::Opened(_)] = &unsaid(&world, HUB)[..] else { panic!() };
}

#[test]
fn a_hub_says_that_one_is_open_when_the_payee_has_it() {
    let mut world = World::line();
    world.nodes[BOB].down = true;
    let id = world.start(1_000, 2 * HOUR);
    world.run();
    world.connect(ALICE, world.between(ALICE, HUB));
    world.run();
    assert!(!world.status(ALICE, &id).opened && !world.status(HUB, &id).opened);
    world.nodes[BOB].down = false;
    world.lose = |message| matches!(message.kind, Some(Kind::Opened(_)));
    world.connect(HUB, world.between(HUB, BOB));
    world.run();
    assert!(world.status(BOB, &id).opened && !world.status(HUB, &id).opened);
    // From one to the next, each time that they meet.
    world.lose = |_| false;
    tell(&mut world, HUB, Kind::Hello(wire::VirtualHello::default()));
    assert_eq!(unsaid(&world, HUB), []);
    world.connect(HUB, world.between(HUB, BOB));
    world.nodes[ALICE].down = true;
    world.run();
    world.nodes[ALICE].down = false;
    assert!(world.status(HUB, &id).opened);
    tell(&mut world, HUB, Kind::Hello(wire::VirtualHello::default()));
    let [Kind::Opened(_)] = &unsaid(&world, HUB)[..] else { panic!() };
    world.run();
    assert!(world.status(ALICE, &id).opened);
}

/// What waits can't be signed for any more when its turn comes: what is to be closed with it is closed all the same.
#[test]
fn an_opening_that_has_waited_too_long_holds_no_closing_up() {
    let mut world = direct();
    let first = open(&mut world, 10, 3 * HOUR);
    world.run();
    world.pay(first, 4);
    world.lose = is_ack;
    open(&mut world, 20, 3 * HOUR);
    world.run();
    let waits = open(&mut world, 30, HOUR);
    world.ask(HUB, Input::Close(first)).unwrap();
    world.run();
    assert_eq!((nonce(&world, 0), world.status(ALICE, &first).closing), (2, true));
    world.log.now = START + HOUR;
    world.lose = |_| false;
    world.connect_all();
    let status = world.status(ALICE, &waits);
    assert_eq!((status.over, status.code), (true, Code::LockTerms as u32));
    assert_eq!((world.status(ALICE, &first).cost, nonce(&world, 0)), (Some(4), 3));
    let money = world.money(ALICE, HUB);
    assert_eq!((money.committed, money.locked), (4, 20));
}

#[test]
fn nothing_is_put_into_a_voucher_before_the_two_sides_have_compared() {
    let mut world = direct();
    world.lose = is_ack;
    open(&mut world, 10, HOUR);
    world.run();
    let waits = open(&mut world, 20, HOUR);
    world.run();
    assert_eq!(nonce(&world, 0), 1, "one voucher at a time");
    world.restart(ALICE, 0);
    world.lose = |_| false;
    // The first one is signed back now.
    let back = signed_back(&world);
    tell(&mut world, ALICE, Kind::Ack(wire::VirtualAck { voucher: Some(back), refused: vec![] }));
    world.ask(ALICE, Input::Look).unwrap();
    world.run();
    assert_eq!((nonce(&world, 0), world.status(ALICE, &waits).opened), (1, false));
    // The signature comes over a connection on which nothing was compared: it counts, and nothing is signed for it.
    let end = world.between(ALICE, HUB);
    let back = signed_back(&world);
    tell(&mut world, ALICE, Kind::Ack(wire::VirtualAck { voucher: Some(back), refused: vec![] }));
    world.run();
    assert_eq!((nonce(&world, 0), world.status(ALICE, &waits).over), (1, false));
    world.connect(ALICE, end);
    world.run();
    assert_eq!((nonce(&world, 0), world.status(ALICE, &waits).opened), (2, true));
}

#[test]
fn what_waits_while_a_settle_is_on_its_way_is_given_up_when_the_log_has_it() {
    let mut world = direct();
    world.lose = is_ack;
    let first = open(&mut world, 10, HOUR);
    world.run();
    let waits = open(&mut world, 20, HOUR);
    world.run();
    let end = world.between(ALICE, HUB);
    world.channel(ALICE, manager::Input::Settle(end)).unwrap();
    assert_eq!(world.nodes[ALICE].manager.status(&end).unwrap().state, EndState::SettlePending);
    world.lose = |_| false;
    // The first one is signed back now.
    let back = signed_back(&world);
    tell(&mut world, ALICE, Kind::Ack(wire::VirtualAck { voucher: Some(back), refused: vec![] }));
    world.ask(ALICE, Input::Look).unwrap();
    let status = |world: &World, id| (world.status(ALICE, id).over, world.status(ALICE, id).code);
    assert_eq!(status(&world, &waits), (false, 0), "it may fail yet");
    world.run();
    world.poll();
    assert_eq!(status(&world, &waits), (true, Code::ChannelNotOpen as u32));
    assert_eq!(status(&world, &first), (false, 0));
    let over = Event::Over { id: waits, outgoing: true, paid: 0, code: Code::ChannelNotOpen as u32 };
    assert!(world.nodes[ALICE].events.contains(&over));
}

/// One whose time is over goes along with others; only when most of a lane is such, a voucher is made for them alone.
#[test]
fn what_is_over_is_taken_out_alone_when_half_a_lane_is() {
    for (many, taken_out) in [(VIRTUALS_MAX / 2, false), (VIRTUALS_MAX / 2 + 1, true), (VIRTUALS_MAX / 2 + 2, true)] {
        let mut world = direct();
        for _ in 0..many {
            open(&mut world, 1, HOUR);
        }
        world.run();
        let before = nonce(&world, 0);
        let set = |world: &World| {
            let newest = world.nodes[ALICE].manager.out_lane(&world.between(ALICE, HUB), 0).unwrap().newest;
            Voucher::decode(&newest.unwrap()).unwrap().terms.virtuals.map_or(0, |set| set.count)
        };
        assert_eq!(set(&world), many);
        world.log.now = START + HOUR + 1;
        world.poll();
        world.poll();
        assert_eq!((nonce(&world, 0) > before, set(&world)), (taken_out, if taken_out { 0 } else { many }), "{many}");
        // With the next one it goes in any case. Each end is told once.
        open(&mut world, 1, HOUR);
        world.run();
        for node in [ALICE, HUB] {
            let over = world.nodes[node].events.iter().filter(|event| matches!(event, Event::Over { .. }));
            assert_eq!(over.count(), many as usize);
        }
        assert_eq!(set(&world), 1);
    }
}

#[test]
fn a_lane_has_256_and_the_next_are_in_another() {
    let mut world = direct();
    let ids: Vec<_> = (0..VIRTUALS_MAX + 1).map(|_| open(&mut world, 1, 2 * HOUR)).collect();
    world.run();
    assert!(ids.iter().all(|id| world.status(ALICE, id).opened));
    let end = world.between(ALICE, HUB);
    let counts = |world: &World| {
        [0, 1].map(|lane| {
            let newest = world.nodes[ALICE].manager.out_lane(&end, lane).unwrap().newest.unwrap();
            Voucher::decode(&newest).unwrap().terms.virtuals.map_or(0, |set| set.count)
        })
    };
    assert_eq!(counts(&world), [VIRTUALS_MAX, 1]);
    // A payer that puts one more into the first lane is refused.
    let other = world.between(HUB, ALICE);
    let lane = world.nodes[HUB].virtuals.ins[&(other, 0)].leaves.values().map(|leaf| leaf.cap.clone());
    let mut caps: Vec<_> = lane.collect();
    let new = wire::VirtualCap { id: Bytes::from_static(&[255; 32]), ..caps[0].clone() };
    caps.push(new.clone());
    let leaves: Vec<_> = caps.iter().map(voucher::virtual_leaf).collect();
    let virtuals =
        Some(wire::VirtualSet { root: Bytes::copy_from_slice(&Tree::new(&leaves).root()), count: caps.len() as u32 });
    let known = world.nodes[HUB].manager.virtual_lane(&other, 0, 0).unwrap();
    let terms = Voucher::decode(&known.newest.unwrap()).unwrap().terms;
    let opens = vec![wire::VirtualOpen { cap: Some(new), ..Default::default() }];
    let update = |world: &World, terms: wire::Voucher, opens: Vec<wire::VirtualOpen>| {
        let voucher = Some(Voucher::sign(terms, 0, &[&world.nodes[ALICE].key.0]).signed());
        let update = wire::VirtualUpdate { voucher, base: known.nonce, opens, shuts: vec![] };
        Box::new(wire::VirtualMessage { channel: other.channel.to_vec().into(), kind: Some(Kind::Update(update)) })
    };
    let too_many = wire::VirtualSet { count: VIRTUALS_MAX, ..virtuals.clone().unwrap() };
    let message = update(&world, wire::Voucher { nonce: known.nonce + 1, virtuals: Some(too_many), ..terms }, opens);
    let refused = world.ask(HUB, Input::Message { end: other, message }).unwrap_err();
    assert_eq!(refused.code, Code::Limit, "{refused}");
}

/// The set of a lane with one more, which is refused: it brings nothing, and nobody hears of an end that never was.
#[test]
fn what_was_refused_is_taken_out_without_a_word_to_who_has_refused_it() {
    let mut world = World::line();
    world.nodes[HUB].virtuals.config.policy.cap_min = 50;
    let good = world.start(60, 2 * HOUR);
    let refused = world.start(40, 2 * HOUR);
    world.run();
    assert_eq!(world.status(ALICE, &refused).code, Code::VirtualTerms as u32);
    assert!(world.status(ALICE, &good).opened);
    assert!(world.nodes[HUB].virtuals.status(&refused).is_err());
    let of_hub = world.nodes[HUB].events.iter().filter(|event| matches!(event, Event::Over { .. }));
    assert_eq!(of_hub.count(), 0);
    world.pay(good, 5);
    world.ask(BOB, Input::Close(good)).unwrap();
    world.run();
    let over = |outgoing| Event::Over { id: good, outgoing, paid: 5, code: 0 };
    let events = |world: &World, node: usize| {
        let over = world.nodes[node].events.iter().filter(|event| matches!(event, Event::Over { .. }));
        over.cloned().collect::<Vec<_>>()
    };
    assert_eq!(events(&world, BOB), [over(false)]);
    assert_eq!(events(&world, HUB), [over(true), over(false)]);
    let gone = Event::Over { id: refused, outgoing: true, paid: 0, code: Code::VirtualTerms as u32 };
    assert_eq!(events(&world, ALICE), [gone, over(true)]);
}

#[test]
fn a_voucher_that_was_taken_is_signed_back_again_with_what_was_refused() {
    let mut world = direct();
    world.nodes[HUB].virtuals.config.policy.cap_min = 50;
    world.lose = is_ack;
    let good = open(&mut world, 60, HOUR);
    world.run();
    let refused = open(&mut world, 40, HOUR);
    world.run();
    let journal = world.nodes[HUB].journal.len();
    world.lose = |_| false;
    world.connect_all();
    world.run();
    assert!(world.status(ALICE, &good).opened);
    assert_eq!(
        (world.status(ALICE, &refused).over, world.status(ALICE, &refused).code),
        (true, Code::VirtualTerms as u32)
    );
    assert!(world.nodes[HUB].journal.len() > journal);
    // Once more, when all is done: the same signature, and nothing is kept.
    let other = world.between(HUB, ALICE);
    let known = world.nodes[HUB].manager.virtual_lane(&other, 0, 0).unwrap();
    let update = wire::VirtualUpdate { voucher: known.newest.clone(), base: 0, opens: vec![], shuts: vec![] };
    let message = wire::VirtualMessage { channel: other.channel.to_vec().into(), kind: Some(Kind::Update(update)) };
    let journal = world.nodes[HUB].journal.len();
    world.ask(HUB, Input::Message { end: other, message: Box::new(message) }).unwrap();
    let [Kind::Ack(ack)] = &unsaid(&world, HUB)[..] else { panic!() };
    let back = Voucher::decode(ack.voucher.as_ref().unwrap()).unwrap();
    assert_eq!((back.signer, back.terms.nonce, &ack.refused[..]), (1, known.nonce, &[][..]));
    assert_eq!(world.nodes[HUB].journal.len(), journal);
}

/// Bob's claim is on its way: what the hub signs meanwhile would end it, and is not taken.
#[test]
fn a_voucher_is_not_taken_while_something_of_its_lane_is_being_claimed() {
    let mut world = World::line();
    let id = world.start(1_000, 2 * HOUR);
    let later = world.start(500, 3 * HOUR);
    world.run();
    world.pay(id, 10);
    world.log.now = START + 2 * HOUR - MINUTE;
    world.look(BOB);
    let end = world.between(BOB, HUB);
    assert!(world.nodes[BOB].manager.virtual_lane(&end, 0, 0).unwrap().busy);
    // The hub closes the other one.
    world.nodes[BOB].effects.clear();
    let close = wire::VirtualClose { id: later.to_vec().into(), amount: None, code: 0 };
    let hubs = world.between(HUB, BOB);
    let message = wire::VirtualMessage { channel: hubs.channel.to_vec().into(), kind: Some(Kind::Close(close)) };
    world.ask(HUB, Input::Message { end: hubs, message: Box::new(message) }).unwrap();
    while world.mail.is_empty() {
        world.step(HUB);
    }
    assert_eq!(world.deliver(0).map(|e| e.code), Some(Code::VirtualBusy));
}

#[test]
fn one_that_still_stands_in_a_set_is_not_forgotten() {
    let mut world = direct();
    let id = open(&mut world, 100, HOUR);
    world.run();
    world.nodes[ALICE].down = true;
    let known = |world: &World| world.nodes[HUB].virtuals.status(&id).is_ok();
    world.log.now = START + HOUR + 2 * VIRTUAL_KEEP_MS;
    world.poll();
    world.poll();
    assert!(world.status(HUB, &id).over && known(&world));
    // The payer is back, and takes it out with the next one.
    world.nodes[ALICE].down = false;
    world.connect_all();
    world.poll();
    open(&mut world, 5, HOUR);
    world.run();
    assert!(known(&world));
    world.poll();
    assert!(!known(&world));
}

/// The journal of each wallet makes what it had, and so does one that is written anew.
fn assert_durable(world: &mut World) {
    for node in &mut world.nodes {
        node.sync();
        let entries = node.journal.iter().flat_map(|group| &group.entries);
        let payers = entries.filter_map(|entry| match &entry.kind {
            Some(wire::hub_entry::Kind::Channel(record)) => match &record.kind {
                Some(wire::manager_record::Kind::Virtual(one)) => Some(one.payer),
                _ => None,
            },
            _ => None,
        });
        assert!(payers.into_iter().all(|payer| payer <= 1), "a side is 0 or 1");
        let folded = Virtuals::load(node.config.clone(), &node.journal).unwrap();
        assert_eq!(folded.snapshot(), node.virtuals.snapshot());
        let group = wire::HubGroup { entries: vec![folded.snapshot()] };
        let again = Virtuals::load(node.config.clone(), [&group]).unwrap();
        assert_eq!(format!("{again:?}"), format!("{folded:?}"));
    }
}

#[test]
fn a_journal_written_anew_makes_the_same_at_each_stage() {
    let mut world = World::line();
    let act = |world: &mut World, act: &mut dyn FnMut(&mut World)| {
        act(world);
        while (0..3).any(|node| world.step(node)) || !world.mail.is_empty() {
            assert_durable(world);
            world.deliver(0);
        }
        assert_durable(world);
    };
    let mut ids = Vec::new();
    // Under way, and waiting; taken, refused on the way and by the payee.
    act(&mut world, &mut |world| ids.extend((0..3).map(|n| world.start(1_000 + n, 2 * HOUR))));
    world.nodes[BOB].virtuals.config.policy.cap_min = 500;
    world.nodes[HUB].virtuals.config.policy.cap_min = 100;
    act(&mut world, &mut |world| ids.extend([99, 499].map(|cap| world.start(cap, 2 * HOUR))));
    let codes: Vec<_> = ids.iter().map(|id| world.status(ALICE, id).code).collect();
    assert_eq!(codes, [0, 0, 0, Code::VirtualTerms as u32, Code::VirtualTerms as u32]);
    act(&mut world, &mut |world| drop(world.ask(ALICE, Input::Pay { id: ids[0], amount: 70 })));
    act(&mut world, &mut |world| drop(world.ask(ALICE, Input::Pay { id: ids[1], amount: 80 })));
    // Closing where it is not heard; one refused by the payee, which the hub can not pass back.
    world.lose = is_ack;
    act(&mut world, &mut |world| drop(world.ask(BOB, Input::Close(ids[0]))));
    world.lose = |_| false;
    world.nodes[ALICE].mute = true;
    act(&mut world, &mut |world| world.connect_all());
    // Over on one side only; claimed in the log.
    world.log.now = START + 2 * HOUR - MINUTE;
    act(&mut world, &mut |world| (0..3).for_each(|node| world.look(node)));
    act(&mut world, &mut |world| (0..3).for_each(|node| world.look(node)));
    assert_eq!(world.status(HUB, &ids[1]).cost, Some(80));
    world.nodes[ALICE].mute = false;
    act(&mut world, &mut |world| world.connect_all());
    // An old journal, which has diverged.
    let lost = world.nodes[HUB].journal.len() / 2;
    world.restart(HUB, lost);
    act(&mut world, &mut |world| world.connect_all());
    assert!(world.nodes[HUB].events.iter().any(|event| matches!(event, Event::Diverged(_))));
}

/// The assertion that all other tests make at every step: it finds each way in which one is passed on without cover.
#[test]
fn one_that_is_passed_on_without_cover_is_found() {
    let mut world = World::line();
    let id = world.start(1_000, 2 * HOUR);
    world.run();
    world.pay(id, 50);
    let now = world.now();
    type Changed = super::super::state::Channel;
    use super::super::state::Stage;
    let good = world.nodes[HUB].virtuals.channels[&id].clone();
    let limit = good.inc.as_ref().unwrap().cap.not_after_ms;
    let best = world.nodes[BOB].virtuals.channels[&id].best.clone();
    // In no set, though its lane has a voucher.
    let inc = good.inc.as_ref().unwrap().key;
    let leaf = world.nodes[HUB].virtuals.ins.get_mut(&inc).unwrap().leaves.remove(&id).unwrap();
    let bare = |world: &World, log_ms| {
        let (node, now) = (&world.nodes[HUB], manager::Now { log_ms, ..world.now() });
        catch_unwind(AssertUnwindSafe(|| node.virtuals.check(now, &node.manager))).is_ok()
    };
    assert_eq!([now.log_ms, limit, limit + 1].map(|now| bare(&world, now)), [false, false, true]);
    world.nodes[HUB].virtuals.ins.get_mut(&inc).unwrap().leaves.insert(id, leaf);
    let mut holds = |log_ms: u64, change: &dyn Fn(&mut Changed)| {
        let mut one = good.clone();
        change(&mut one);
        world.nodes[HUB].virtuals.channels.insert(id, one);
        let node = &world.nodes[HUB];
        let now = manager::Now { log_ms, ..now };
        catch_unwind(AssertUnwindSafe(|| node.virtuals.check(now, &node.manager))).is_ok()
    };
    let now = now.log_ms;
    assert!(holds(now, &|_| ()));
    assert!(!holds(now, &|one| one.inc.as_mut().unwrap().cap.cap = 999));
    assert!(holds(now, &|one| one.inc.as_mut().unwrap().cap.cap = 1_001));
    assert!(!holds(now, &|one| one.inc.as_mut().unwrap().cap.not_after_ms -= 1));
    assert!(!holds(now, &|one| one.inc.as_mut().unwrap().cap.permission = Bytes::new()));
    assert!(!holds(now, &|one| one.inc.as_mut().unwrap().cap.id = Bytes::new()));
    // In another lane, where it is not: only from its limit on.
    let elsewhere = |one: &mut Changed| one.inc.as_mut().unwrap().key.1 = 9;
    assert!(!holds(now, &elsewhere) && !holds(limit, &elsewhere) && holds(limit + 1, &elsewhere));
    let stage = |one: &mut Changed, stage| one.out.as_mut().unwrap().stage = stage;
    for (paid, covered) in [(0, true), (49, true), (50, true), (51, false)] {
        let with_best = |one: &mut Changed| one.best = best.clone();
        assert_eq!(covered, holds(now, &|one| (with_best(one), stage(one, Stage::Leaving(paid))).1), "{paid}");
        assert_eq!(covered, holds(now, &|one| (with_best(one), stage(one, Stage::Over(paid))).1), "{paid}");
        let brought = |one: &mut Changed, over| (elsewhere(one), one.inc.as_mut().unwrap().over = Some(over)).1;
        let over = |one: &mut Changed| (with_best(one), stage(one, Stage::Over(paid))).1;
        assert_eq!(covered, holds(now, &|one| (over(one), brought(one, paid)).1));
        if paid > 0 {
            assert!(!holds(now, &|one| (over(one), brought(one, paid - 1)).1), "it has brought less");
        }
    }
    assert!(!holds(now, &|one| (elsewhere(one), stage(one, Stage::Leaving(0))).1));
    assert!(holds(limit + 1, &|one| (elsewhere(one), stage(one, Stage::Leaving(0))).1));
}
