//! What a payment costs. Printed, not judged: run it by hand, in release.

use std::time::{Duration, Instant};

use prost::Message as _;

use super::world::*;
use crate::channel::virtuals::{Effect, Input, Reply};
use crate::wire::virtual_peer::Kind;

#[test]
#[ignore = "prints what a payment costs: run it by hand, in release, with --nocapture"]
fn payments_a_second_over_a_virtual_channel() {
    const PAYMENTS: u64 = 100_000;
    const BATCH: u64 = 128;
    let mut world = World::line();
    let id = world.start(50_000, 120 * MINUTE);
    world.run();
    let now = world.now();
    let (mut payer, mut payee, mut bytes) = (Duration::ZERO, Duration::ZERO, 0);
    // The cap is paid over and over, one minor unit at a time, by a payer that begins anew.
    let mut amount = 0;
    for _ in 0..PAYMENTS / BATCH {
        let mut many = Vec::new();
        if amount + BATCH > 50_000 {
            amount = 0;
            world.nodes[ALICE].virtuals.channels.get_mut(&id).unwrap().paid = 0;
            world.nodes[BOB].virtuals.channels.get_mut(&id).unwrap().best = None;
        }
        let node = &mut world.nodes[ALICE];
        let start = Instant::now();
        for _ in 0..BATCH {
            amount += 1;
            let input = Input::Pay { id, amount };
            let fx = node.virtuals.handle(now, input, &mut node.manager, &node.key).unwrap();
            bytes += fx.group.encode_to_vec().len();
            let Some(Effect::Tell(message)) = fx.effects.into_iter().next() else { panic!() };
            let Some(Kind::Paid(signed)) = message.kind else { panic!() };
            many.push(signed);
        }
        payer += start.elapsed();
        let node = &mut world.nodes[BOB];
        let start = Instant::now();
        let fx = node.virtuals.handle(now, Input::Payments(many), &mut node.manager, &node.key).unwrap();
        bytes += fx.group.encode_to_vec().len();
        payee += start.elapsed();
        let Reply::Received(replies) = fx.reply else { panic!() };
        assert!(replies.iter().all(|reply| *reply == Ok(1)));
    }
    let done = PAYMENTS / BATCH * BATCH;
    let a_second = |time: Duration| (done as f64 / time.as_secs_f64()) as u64;
    println!(
        "payments a second a core: payer {}, payee (in batches of {BATCH}) {}, both {}; {} bytes of journal each",
        a_second(payer),
        a_second(payee),
        a_second(payer + payee),
        bytes as u64 / done,
    );
}
