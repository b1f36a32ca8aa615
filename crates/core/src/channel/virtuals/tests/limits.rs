//! Limits of a channel's and a lane's virtual channels.

use super::world::*;
use crate::channel::virtuals::{Input, Policy};
use crate::channel::voucher::Voucher;
use crate::error::Code;
use crate::limits::{VIRTUAL_KEEP_MS, VIRTUALS_MAX};
use crate::wire;
use crate::wire::virtual_message::Kind;

#[test]
fn a_channel_has_no_more_virtual_channels_than_its_wallet_takes() {
    let mut world = World::with(3, Policy { channels_max: 3, ..Policy::default() });
    world.open(ALICE, HUB, [FUNDS, 0], false);
    world.open(HUB, BOB, [FUNDS, 0], false);
    // Far more at once, and one more.
    let ids: Vec<_> = (0..3 * 64).map(|_| world.start(10, 2 * 3_600_000)).collect();
    world.run();
    let opened = ids.iter().filter(|id| world.status(ALICE, id).opened).count();
    let refused = ids.iter().filter(|id| world.status(ALICE, id).code == Code::VirtualTerms as u32).count();
    assert_eq!((opened, refused), (3, ids.len() - 3));
    let more = world.start(10, 2 * 3_600_000);
    world.run();
    assert_eq!(world.status(ALICE, &more).code, Code::VirtualTerms as u32);
    // What is over counts no more.
    let open = ids.iter().find(|id| world.status(ALICE, id).opened).unwrap();
    world.ask(BOB, Input::Close(*open)).unwrap();
    world.run();
    let next = world.start(10, 2 * 3_600_000);
    world.run();
    assert!(world.status(ALICE, &next).opened);
}

#[test]
fn a_hub_backs_no_more_in_one_message_than_it_is_told_to() {
    let mut world = World::with(3, Policy { backs_max: 1_000, ..Policy::default() });
    world.open(ALICE, HUB, [FUNDS, 0], false);
    world.open(HUB, BOB, [FUNDS, 0], false);
    let ids: Vec<_> = (0..64).map(|_| world.start(100, 2 * 3_600_000)).collect();
    world.run();
    assert_eq!(ids.iter().filter(|id| world.status(ALICE, id).opened).count(), 10);
    assert_eq!((world.nodes[HUB].virtuals.backed().amount, world.money(HUB, BOB).locked), (1_000, 1_000));
}

#[test]
fn what_is_over_is_forgotten_after_a_day() {
    let mut world = World::line();
    let open = world.wanted(&[ALICE, HUB, BOB], 10, 2 * 3_600_000);
    let (id, limit) = (open.id, open.hops[0].not_after_ms);
    world.ask(ALICE, Input::Open(open)).unwrap();
    world.run();
    world.ask(BOB, Input::Close(id)).unwrap();
    world.run();
    assert!(world.status(BOB, &id).over);
    let mut known = Vec::new();
    for late in [VIRTUAL_KEEP_MS, VIRTUAL_KEEP_MS + 1, 64 * VIRTUAL_KEEP_MS] {
        world.log.now = limit + late;
        world.poll();
        known.push(world.nodes[BOB].virtuals.status(&id).is_ok());
    }
    assert_eq!(known, [true, false, false]);
    assert!(world.nodes[ALICE].virtuals.status(&id).is_ok(), "a payer keeps its ids");
}

#[test]
fn no_more_is_opened_or_closed_with_one_voucher_than_a_lane_has() {
    let mut world = World::line();
    let (from, to) = (world.between(ALICE, HUB), world.between(HUB, ALICE));
    let channel = bytes::Bytes::copy_from_slice(&from.channel);
    let terms = wire::Voucher { channel: channel.clone(), nonce: 1, amount: 1, ..Default::default() };
    let voucher = Some(Voucher::sign(terms, from.side, &[]).signed());
    let (journal, max) = (world.nodes[HUB].journal.len(), VIRTUALS_MAX as usize);
    let mut say = |opens: usize, shuts: usize| {
        let (opens, shuts) = (vec![Default::default(); opens], vec![Default::default(); shuts]);
        let update = wire::VirtualUpdate { voucher: voucher.clone(), base: 0, opens, shuts };
        let message = wire::VirtualMessage { channel: channel.clone(), kind: Some(Kind::Update(update)) };
        let code = world.ask(HUB, Input::Message { end: to, message: Box::new(message) }).unwrap_err().code;
        assert_eq!(world.nodes[HUB].journal.len(), journal);
        code
    };
    assert_ne!(say(max, 0), Code::Limit);
    assert_ne!(say(0, max), Code::Limit);
    for many in [max + 1, 64 * max] {
        assert_eq!((say(many, 0), say(0, many)), (Code::Limit, Code::Limit));
    }
}

/// What leaves a lane makes room in the same voucher.
#[test]
fn what_is_opened_takes_the_places_of_what_is_closed() {
    let mut world = World::with(2, Policy::default());
    world.open(ALICE, HUB, [FUNDS, 0], false);
    let open = |world: &mut World| {
        let open = world.wanted(&[ALICE, HUB], 1, 2 * 3_600_000);
        let id = open.id;
        world.ask(ALICE, Input::Open(open)).unwrap();
        id
    };
    let many = VIRTUALS_MAX as usize / 2 + 10;
    let ids: Vec<_> = (0..many).map(|_| open(&mut world)).collect();
    world.run();
    world.lose = |message| matches!(message.kind, Some(Kind::Ack(_)));
    open(&mut world);
    world.run();
    // Nearly all are closed, and one is opened, while a voucher is under way.
    for id in &ids[1..] {
        world.ask(HUB, Input::Close(*id)).unwrap();
    }
    world.run();
    let next = open(&mut world);
    let end = world.between(ALICE, HUB);
    let nonce = |world: &World| world.nodes[ALICE].manager.out_lane(&end, 0).unwrap().nonce;
    let before = nonce(&world);
    world.lose = |_| false;
    world.connect_all();
    assert_eq!(nonce(&world), before + 1);
    assert!(world.status(ALICE, &next).opened && ids[1..].iter().all(|id| world.status(ALICE, id).over));
    assert!(!world.status(ALICE, &ids[0]).over);
}
