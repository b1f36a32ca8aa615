//! How locks end: what is told, what counts, and what somebody who lies about an end gets.

use bytes::Bytes;

use super::said::{heard, tell};
use super::world::*;
use crate::channel::hub::{Event, Input, PaymentState, Policy};
use crate::channel::manager::{self, EndId};
use crate::channel::voucher::Voucher;
use crate::error::Code;
use crate::wire::hub_message::Kind;
use crate::wire::{self, HubLane};

fn lock(nonce: u64) -> Option<HubLane> {
    Some(HubLane { payer: 0, lane: 0, nonce })
}

/// A wallet sees one channel as the log has it, and no time passes for the others.
fn sees(world: &mut World, node: usize, end: EndId) {
    let record = Box::new(world.log.channels[&end.channel].clone());
    let seen = manager::Input::Seen { channel: end.channel, record, time_ms: world.log.now };
    world.channel(node, seen).unwrap();
}

fn secret_of(line: &Line, hash: &[u8; 32]) -> Bytes {
    Bytes::copy_from_slice(&line.world.secrets[hash])
}

/// What a wallet wants to say, and has not said yet.
fn unsaid(world: &World, node: usize) -> Vec<Kind> {
    let sends = world.nodes[node].effects.iter().filter_map(|effect| match effect {
        crate::channel::hub::Effect::Send { message, .. } => message.kind.clone(),
        _ => None,
    });
    sends.collect()
}

#[test]
fn why_a_payment_failed_is_told_as_the_payee_has_said_it() {
    let failed = |line: &Line, payment| match line.world.state(ALICE, payment) {
        PaymentState::Failed { code, message } => (code, message),
        other => panic!("{other:?}"),
    };
    let mut line = Line::new(Policy::default());
    let (invoice, _) = line.invoice(1_000);
    let pay = line.plan(&invoice);
    line.world.nodes[BOB].hub.invoices.clear();
    let payment = line.world.pay(ALICE, pay);
    line.world.run();
    let (code, message) = (Code::InvoiceUnknown as u32, "there is no such invoice for this channel".to_owned());
    assert_eq!(failed(&line, payment), (code, message.clone()));
    assert_eq!(line.world.nodes[ALICE].events, [Event::NotPaid { payment, code, message }]);
    // Over a restart of the hub between the two.
    let mut line = Line::new(Policy::default());
    let (invoice, _) = line.invoice(1_000);
    let pay = line.plan(&invoice);
    line.world.nodes[BOB].hub.invoices.clear();
    let payment = line.world.pay(ALICE, pay);
    while !line.world.mail.iter().any(|(to, _, message)| *to == BOB && matches!(message.kind, Some(Kind::Offer(_)))) {
        if !(0..3).any(|node| line.world.step(node)) {
            line.world.deliver(0);
        }
    }
    line.world.nodes[HUB].hub.links.get_mut(&line.links[0].1).unwrap().connection.compared = false;
    line.world.run();
    assert_eq!(line.world.nodes[HUB].hub.in_flight(), (0, 1), "it may not sign it back yet");
    line.world.restart(HUB, 0);
    line.world.connect(ALICE, line.links[0].0);
    line.world.run();
    let message = "there is no such invoice for this channel".to_owned();
    assert_eq!(failed(&line, payment), (Code::InvoiceUnknown as u32, message));
    // Whatever somebody writes there: 200 characters that one can read, and a code that there is.
    let mut line = Line::of(2, Policy::default());
    line.world.nodes[1].mute = true;
    let (payment, _) = line.start(1_000);
    line.world.run();
    let end = line.links[0].0;
    let terms = wire::Voucher { channel: end.channel.to_vec().into(), lane: 0, nonce: 2, ..Default::default() };
    let voucher = Some(Voucher::sign(terms, 1, &[&line.world.nodes[1].key.0]).signed());
    let message = format!("\u{1b}[31m\n{}", "é".repeat(300));
    let refused = wire::HubRefused { lock: lock(1), code: 999_999, message, voucher };
    tell(&mut line.world, ALICE, end, Kind::Refused(refused)).unwrap();
    assert_eq!(failed(&line, payment), (999_999, format!("[31m{}", "é".repeat(196))));
}

#[test]
fn an_invoice_whose_lock_expires_is_not_told_as_paid() {
    let mut line = Line::new(Policy::default());
    line.world.lose = |message| matches!(message.kind, Some(Kind::Secret(_)));
    let (payment, _) = line.start(1_000);
    line.world.run();
    assert_eq!(line.world.nodes[BOB].hub.in_flight(), (0, 1));
    // Bob is off until all is over.
    line.world.nodes[BOB].down = true;
    line.world.pass_all();
    line.world.nodes[BOB].down = false;
    line.world.poll();
    line.world.run();
    assert_eq!((line.world.nodes[BOB].hub.in_flight(), &line.world.nodes[BOB].events[..]), ((0, 0), &[][..]));
    assert_eq!(line.world.failed_with(ALICE, payment), Code::LockOver);
    let told: Vec<_> = line.world.nodes[ALICE].events.iter().filter(|e| matches!(e, Event::Paid { .. })).collect();
    assert!(told.is_empty() && line.world.nodes[HUB].events.is_empty());
}

#[test]
fn what_the_log_has_redeemed_is_over_when_it_is_seen() {
    let mut line = Line::new(Policy::default());
    line.world.lose = |message| matches!(message.kind, Some(Kind::Paid(_)));
    let (_, hash) = line.start(1_000);
    line.world.run();
    assert_eq!((line.world.nodes[BOB].hub.in_flight(), line.world.paid_events(BOB)), ((0, 1), 0));
    let offer = line.world.offers.iter().position(|(to, _)| *to == BOB).unwrap();
    assert!(line.world.grab(offer));
    sees(&mut line.world, BOB, line.links[1].1);
    assert_eq!(line.world.nodes[BOB].hub.in_flight(), (0, 0), "without a tick");
    line.world.run();
    assert_eq!(line.world.nodes[BOB].events, [Event::InvoicePaid { secret_hash: hash, amount: 1_000 }]);
    // The next one sees the secret there, and says it to the one before, once.
    let mut line = Line::new(Policy::default());
    line.world.lose = |message| matches!(message.kind, Some(Kind::Secret(_)));
    let (_, hash) = line.start(1_000);
    line.world.run();
    let offer = line.world.offers.iter().position(|(to, _)| *to == BOB).unwrap();
    assert!(line.world.grab(offer));
    sees(&mut line.world, HUB, line.links[1].0);
    let shown = Kind::Secret(wire::HubSecret { lock: lock(1), secret: secret_of(&line, &hash) });
    assert_eq!(unsaid(&line.world, HUB), [shown]);
}

#[test]
fn a_hub_that_has_forgotten_a_way_on_says_the_secret_that_the_log_shows() {
    let mut line = Line::new(Policy::default());
    let opened = line.world.nodes[HUB].journal.len();
    line.world.lose = |message| matches!(message.kind, Some(Kind::Secret(_) | Kind::Paid(_)));
    let (_, hash) = line.start(1_000);
    line.world.run();
    let lost = line.world.nodes[HUB].journal.len() - opened;
    line.world.restart(HUB, lost);
    line.world.connect_all();
    assert_eq!(line.world.nodes[HUB].hub.locks(&line.links[0].1)[0].purpose, "kept");
    let offer = line.world.offers.iter().position(|(to, _)| *to == BOB).unwrap();
    assert!(line.world.grab(offer));
    sees(&mut line.world, HUB, line.links[1].0);
    let shown = Kind::Secret(wire::HubSecret { lock: lock(1), secret: secret_of(&line, &hash) });
    assert_eq!(unsaid(&line.world, HUB), [shown]);
}

#[test]
fn a_receipt_stays_a_receipt_though_its_lock_expires() {
    let mut line = Line::of(2, Policy::default());
    line.world.nodes[1].mute = true;
    let (payment, hash) = line.start(1_000);
    line.world.run();
    let end = line.links[0].0;
    line.world.restart(ALICE, 0);
    let secret = secret_of(&line, &hash);
    let shown = Kind::Secret(wire::HubSecret { lock: lock(1), secret: secret.clone() });
    tell(&mut line.world, ALICE, end, shown).unwrap();
    // Nobody ever compares, and the payee does not go to the log.
    line.world.nodes[1].down = true;
    line.world.pass_all();
    assert_eq!(line.world.nodes[ALICE].hub.in_flight(), (0, 0));
    assert_eq!(line.world.state(ALICE, payment), PaymentState::Paid(secret.clone()));
    assert_eq!(line.world.nodes[ALICE].events, [Event::Paid { payment, secret }]);
    assert_eq!(line.world.status(ALICE, &end).available, FUNDS);
}

#[test]
fn nobody_acknowledges_what_was_not_paid() {
    let mut line = Line::new(Policy::default());
    line.world.nodes[BOB].mute = true;
    line.start(1_000);
    line.world.run();
    let end = line.links[1].0;
    let earned = |line: &Line| line.world.nodes[HUB].hub.earned().payments;
    let ack = |line: &mut Line, nonce| {
        tell(&mut line.world, HUB, end, Kind::PaidAck(lock(nonce).unwrap())).unwrap();
        (line.world.nodes[HUB].hub.in_flight().0, earned(line))
    };
    assert_eq!([0, 1, 2, 9].map(|nonce| ack(&mut line, nonce)), [(1, 0); 4]);
    // Paid for good: what is acknowledged is what pays it, not the lock.
    line.world.lose = |message| matches!(message.kind, Some(Kind::PaidAck(_)));
    line.world.nodes[BOB].mute = false;
    line.world.connect_all();
    assert_eq!([0, 1].map(|nonce| ack(&mut line, nonce)), [(1, 0); 2]);
    assert_eq!(ack(&mut line, 2), (0, 1));
    assert_eq!(ack(&mut line, 2), (0, 1), "once");
}

/// The incoming lock's time is over and the hub has seen it there; on the other channel it has not looked yet.
#[test]
fn a_lock_whose_cover_has_expired_is_not_paid_for_a_secret() {
    let mut line = Line::new(Policy::default());
    line.world.nodes[BOB].mute = true;
    let (_, hash) = line.start(1_000);
    line.world.run();
    let limit = line.world.nodes[HUB].hub.ins.values().next().unwrap().not_after_ms;
    line.world.log.now = limit + 1;
    sees(&mut line.world, HUB, line.links[0].1);
    line.world.channel(HUB, manager::Input::Tick).unwrap();
    assert_eq!(line.world.nodes[HUB].hub.in_flight(), (1, 0));
    let end = line.links[1].0;
    let shown = wire::HubSecret { lock: lock(1), secret: secret_of(&line, &hash) };
    tell(&mut line.world, HUB, end, Kind::Secret(shown)).unwrap();
    assert_eq!(line.world.nodes[HUB].manager.out_lane(&end, 0).unwrap().nonce, 1, "nothing is signed for it");
    line.world.nodes[BOB].mute = false;
    assert_eq!(line.world.wind_up(), [FUNDS, FUNDS, 0]);
}

#[test]
fn a_voucher_that_is_shown_ends_signing_only_if_it_is_an_own_one_that_is_not_known() {
    let mut world = World::new(2);
    let (alices, bobs) = world.open(0, 1, [1_000, 1_000], true);
    let paid = |world: &mut World, node: usize, end, others| {
        let (invoice, _) = world.invoice(1 - node, others, 100);
        let pay = world.payment(node, end, &[], &invoice);
        world.pay(node, pay);
        world.run();
    };
    paid(&mut world, 0, alices, bobs);
    let kept =
        |world: &World, payer, nonce| world.nodes[0].manager.kept_voucher(&alices, payer, 0, nonce).unwrap().unwrap();
    let show = |world: &mut World, voucher| {
        let journal = world.nodes[0].journal.len();
        let result = tell(world, 0, alices, Kind::Shown(voucher));
        world.run();
        (result, world.nodes[0].journal.len() - journal, world.nodes[0].events.contains(&Event::Diverged(alices)))
    };
    let own = kept(&world, 0, 2);
    assert_eq!(show(&mut world, own.clone()), (Ok(()), 0, false), "it knows it");
    paid(&mut world, 1, bobs, alices);
    let others = kept(&world, 1, 2);
    assert_eq!(show(&mut world, others), (Ok(()), 0, false));
    // One of Bob that it does not have is no reason either: what pays comes as a payment.
    let terms = |payer, nonce| wire::Voucher {
        channel: Bytes::copy_from_slice(&alices.channel),
        payer,
        lane: 0,
        nonce,
        amount: 300,
        ..Default::default()
    };
    let sign =
        |world: &World, terms, signer: u32, by: usize| Voucher::sign(terms, signer, &[&world.nodes[by].key.0]).signed();
    let bobs_own = sign(&world, terms(1, 3), 1, 1);
    assert_eq!(show(&mut world, bobs_own), (Ok(()), 0, false));
    // Nor one that only says that it is hers.
    let forged = sign(&world, terms(0, 3), 0, 1);
    assert_eq!(show(&mut world, forged), (Err(Code::KeyMismatch), 0, false));
    let forgotten = sign(&world, terms(0, 3), 0, 0);
    assert_eq!(show(&mut world, forgotten), (Ok(()), 1, true));
}

#[test]
fn on_each_greeting_secrets_that_are_known_are_said_again() {
    let mut line = Line::new(Policy::default());
    line.world.lose = |message| matches!(message.kind, Some(Kind::Secret(_)));
    let (_, hash) = line.start(1_000);
    line.world.run();
    let greet = |line: &mut Line, node, end| {
        tell(&mut line.world, node, end, Kind::Hello(wire::HubHello::default())).unwrap();
        unsaid(&line.world, node)
    };
    let shown = Kind::Secret(wire::HubSecret { lock: lock(1), secret: secret_of(&line, &hash) });
    let ((alices, hubs), (_, bobs)) = (line.links[0], line.links[1]);
    assert_eq!(greet(&mut line, BOB, bobs), [shown]);
    assert_eq!(greet(&mut line, HUB, hubs), [], "the hub does not know it yet");
    let [Kind::Offer(_)] = &greet(&mut line, ALICE, alices)[..] else { panic!() };
    line.world.lose = |_| false;
    heard(&mut line.world);
    assert_eq!(line.world.paid_events(BOB), 1);
    assert!(line.world.ask(ALICE, Input::Connected(line.links[0].0, 99)).is_ok());
}

/// Nobody has to say anything to it: what is due is begun with the start.
#[test]
fn a_hub_that_starts_claims_what_is_due() {
    for (early, orders) in [(1, 0), (0, 1)] {
        let mut line = Line::new(Policy::default());
        line.world.lose = |message| matches!(message.kind, Some(Kind::Paid(_)));
        line.start(1_000);
        line.world.run();
        let hub = &line.world.nodes[HUB];
        let limit = hub.hub.ins.values().next().unwrap().not_after_ms;
        line.world.log.now = limit - hub.config.policy.grace_ms - hub.config.claim_ms() - early;
        line.world.restart(HUB, 0);
        let prepares = line.world.nodes[HUB]
            .effects
            .iter()
            .filter(|effect| matches!(effect, crate::channel::hub::Effect::Channel(manager::Effect::Prepare { .. })));
        assert_eq!(prepares.count(), orders);
        // And what was on its way goes on.
        line.world.channel(HUB, manager::Input::Tick).unwrap();
        line.world.restart(HUB, 0);
        assert_eq!(line.world.nodes[HUB].effects.len(), orders);
    }
}
