//! Payments that go well, and payments that are refused.

use bytes::Bytes;

use super::world::*;
use crate::channel::hub::{Event, Input, PaymentState, Policy, fee};
use crate::channel::manager::{self, EndId};
use crate::error::Code;
use crate::wire::hub_message::Kind;
use crate::wire::{self, HubTerms};

fn policy(terms: HubTerms) -> Policy {
    Policy { terms, ..Policy::default() }
}

fn terms() -> HubTerms {
    Policy::default().terms
}

#[test]
fn a_payment_over_one_hub_pays_the_invoice_and_the_fee() {
    let mut line = Line::new(Policy::default());
    let (payment, hash) = line.start(5_000);
    line.world.run();
    assert!(matches!(line.world.state(ALICE, payment), PaymentState::Paid(_)));
    assert!(line.world.nodes[BOB].events.contains(&Event::InvoicePaid { secret_hash: hash, amount: 5_000 }));
    let fee = fee(&terms(), 5_000);
    assert_eq!(fee, 6);
    for (node, (end, _)) in line.links.clone().into_iter().enumerate() {
        let status = line.world.status(node, &end);
        assert_eq!((status.locked, status.committed), (0, if node == ALICE { 5_000 + fee } else { 5_000 }));
        assert_eq!(line.world.nodes[node].hub.in_flight(), (0, 0), "nothing is left of it");
    }
    assert_eq!(line.world.wind_up(), [FUNDS - 5_006, FUNDS + 6, 5_000]);
}

#[test]
fn a_payment_over_two_hubs_pays_both() {
    let mut line = Line::of(4, Policy::default());
    let (payment, _) = line.start(10_000);
    line.world.run();
    assert!(matches!(line.world.state(ALICE, payment), PaymentState::Paid(_)));
    assert_eq!(line.world.wind_up(), [FUNDS - 10_023, FUNDS + 12, FUNDS + 11, 10_000]);
}

#[test]
fn a_payment_without_a_hub_and_back_through_a_two_way_channel() {
    let mut world = World::new(2);
    let (alices, bobs) = world.open(0, 1, [1_000, 0], true);
    for (node, end, other, others, amount) in [(0, alices, 1, bobs, 800), (1, bobs, 0, alices, 500)] {
        let (invoice, _) = world.invoice(other, others, amount);
        let pay = world.payment(node, end, &[], &invoice);
        let payment = world.pay(node, pay);
        world.run();
        assert!(matches!(world.state(node, payment), PaymentState::Paid(_)));
    }
    assert_eq!(world.wind_up(), [700, 300]);
}

#[test]
fn the_same_key_pays_once_and_another_key_not_again() {
    let mut line = Line::new(Policy::default());
    let (invoice, _) = line.invoice(1_000);
    let pay = line.plan(&invoice);
    let first = line.world.pay(ALICE, pay.clone());
    assert_eq!(line.world.pay(ALICE, pay.clone()), first);
    line.world.run();
    assert_eq!(line.world.pay(ALICE, pay.clone()), first);
    let other = crate::channel::hub::Pay { key: Bytes::from_static(b"other"), ..pay };
    assert_eq!(line.world.ask(ALICE, Input::Pay(other)).unwrap_err().code, Code::InvoiceOver);
    line.world.run();
    assert_eq!(line.world.paid_events(BOB), 1);
}

#[test]
fn many_payments_use_lanes_again() {
    let mut line = Line::new(Policy::default());
    for _ in 0..20 {
        let (payment, _) = line.start(100);
        line.world.run();
        assert!(matches!(line.world.state(ALICE, payment), PaymentState::Paid(_)));
    }
    let lanes = |node: usize, end: EndId| line.world.nodes[node].manager.lanes_paid(&end).unwrap();
    assert_eq!(lanes(ALICE, line.links[0].0), [(0, 20 * 102)]);
    assert_eq!(lanes(HUB, line.links[1].0), [(0, 20 * 100)]);
}

#[test]
fn an_unknown_invoice_is_given_back_at_once() {
    let mut line = Line::new(Policy::default());
    let (invoice, _) = line.invoice(1_000);
    let pay = line.plan(&invoice);
    // Bob has forgotten it.
    let lost = line.world.nodes[BOB].journal.len();
    line.world.restart(BOB, 1);
    assert_eq!(line.world.nodes[BOB].journal.len(), lost - 1);
    line.world.connect_all();
    let payment = line.world.pay(ALICE, pay);
    line.world.run();
    assert_eq!(line.world.failed_with(ALICE, payment), Code::InvoiceUnknown);
    for (node, (end, _)) in line.links.clone().into_iter().enumerate() {
        assert_eq!(line.world.status(node, &end).available, FUNDS, "all of it is free again");
        assert_eq!(line.world.nodes[node].hub.in_flight(), (0, 0));
    }
    // The lane goes on from there.
    let (payment, _) = line.start(2_000);
    line.world.run();
    assert!(matches!(line.world.state(ALICE, payment), PaymentState::Paid(_)));
    assert_eq!(line.world.wind_up(), [FUNDS - 2_003, FUNDS + 3, 2_000]);
}

/// What becomes of a payment whose route is changed.
fn refused(policy: Policy, change: impl Fn(&mut crate::channel::hub::Pay)) -> Code {
    let mut line = Line::new(policy);
    let (invoice, _) = line.invoice(1_000);
    let mut pay = line.plan(&invoice);
    change(&mut pay);
    let payment = line.world.pay(ALICE, pay);
    line.world.run();
    let code = line.world.failed_with(ALICE, payment);
    let upfront = line.world.status(ALICE, &line.links[0].0).committed;
    assert_eq!(line.world.wind_up(), [FUNDS - upfront, FUNDS + upfront, 0], "only an up-front fee moves");
    code
}

#[test]
fn a_hub_refuses_what_its_terms_do_not_allow() {
    let none = Policy::default;
    assert_eq!(refused(none(), |pay| pay.route.amount -= 1), Code::HubFee);
    assert_eq!(refused(none(), |pay| pay.route.not_after_ms -= 1), Code::HubMargin);
    let upfront = Policy { terms: HubTerms { upfront: 3, ..terms() }, ..none() };
    assert_eq!(refused(upfront.clone(), |pay| pay.route.upfront = 2), Code::HubFee);
    assert_eq!(refused(Policy { forwards: false, ..none() }, |_| ()), Code::HubRoute);
    assert_eq!(refused(Policy { in_flight_max: 1_000, ..none() }, |_| ()), Code::HubCaps);
    assert_eq!(refused(Policy { locks_max: 0, ..none() }, |_| ()), Code::HubCaps);
    assert_eq!(refused(none(), |pay| pay.route.hops[0].channel = Bytes::from_static(&[9; 32])), Code::HubRoute);
    assert_eq!(refused(none(), |pay| pay.route.hops[0].channel = pay_channel(pay)), Code::HubRoute);
    let poor = |pay: &mut crate::channel::hub::Pay| {
        pay.route.hops[0].amount = 1_000;
        pay.route.hops[0].upfront = FUNDS;
    };
    assert_eq!(refused(none(), poor), Code::HubFee);
    // The hub asks for nothing below 5,000, the payer's plan did not know.
    let large = Policy { terms: HubTerms { lock_min: 5_000, ..terms() }, ..none() };
    let mut line = Line::new(large);
    let (invoice, _) = line.invoice(5_000);
    let mut pay = line.plan(&invoice);
    pay.route.hops[0].amount = 5_000;
    line.world.nodes[HUB].hub.config.policy.terms.lock_min = 5_001;
    let payment = line.world.pay(ALICE, pay);
    line.world.run();
    assert_eq!(line.world.failed_with(ALICE, payment), Code::HubCaps);
}

fn pay_channel(pay: &crate::channel::hub::Pay) -> Bytes {
    Bytes::copy_from_slice(&pay.route.end.channel)
}

#[test]
fn a_hub_without_money_or_without_the_next_party_gives_back_at_once() {
    let mut line = Line::new(Policy::default());
    let (bobs, _) = (line.links[1].0, ());
    line.world.nodes[HUB].hub.links.get_mut(&bobs).unwrap().connection.number = None;
    let (payment, _) = line.start(1_000);
    line.world.run();
    assert_eq!(line.world.failed_with(ALICE, payment), Code::HubOffline);
    line.world.connect(HUB, bobs);
    line.world.run();
    for amount in [60_000, 60_000] {
        let more = line.world.log.channels.get_mut(&line.links[0].0.channel).unwrap();
        more.opener.as_mut().unwrap().deposited += 100_000;
        more.revision += 1;
        line.world.poll();
        let (payment, _) = line.start(amount);
        line.world.run();
        match line.world.paid_events(BOB) {
            1 if matches!(line.world.state(ALICE, payment), PaymentState::Paid(_)) => {}
            _ => assert_eq!(line.world.failed_with(ALICE, payment), Code::HubFunds),
        }
    }
    assert_eq!(line.world.paid_events(BOB), 1, "the second is more than the hub has");
}

#[test]
fn an_up_front_fee_is_paid_for_each_lock_and_passed_on() {
    let mut line = Line::of(4, policy(HubTerms { upfront: 7, ..terms() }));
    let (payment, _) = line.start(10_000);
    line.world.run();
    assert!(matches!(line.world.state(ALICE, payment), PaymentState::Paid(_)));
    assert_eq!(line.world.wind_up(), [FUNDS - 10_023 - 14, FUNDS + 12 + 7, FUNDS + 11 + 7, 10_000]);
}

#[test]
fn locks_in_flight_are_capped() {
    let mut line = Line::new(Policy { locks_max: 3, ..Policy::default() });
    line.world.nodes[BOB].mute = true;
    let payments: Vec<_> = (0..5).map(|_| line.start(100).0).collect();
    line.world.run();
    let failed = payments.iter().filter(|one| matches!(line.world.state(ALICE, **one), PaymentState::Failed { .. }));
    assert_eq!(failed.count(), 2);
    line.world.nodes[BOB].mute = false;
    line.world.connect_all();
    assert_eq!(line.world.paid_events(BOB), 3);
}

#[test]
fn an_invoice_is_paid_once_in_full_and_in_time() {
    let mut line = Line::new(Policy::default());
    let (invoice, _) = line.invoice(1_000);
    let pay = line.plan(&invoice);
    let mut less = pay.clone();
    less.route.hops[0].amount = 999;
    assert_eq!(line.world.ask(ALICE, Input::Pay(less)).unwrap_err().code, Code::InvoiceAmount);
    // A payer that forgets what it paid, and a hub that passes it on.
    let before = line.world.nodes[ALICE].journal.len();
    line.world.pay(ALICE, pay.clone());
    line.world.run();
    assert_eq!(line.world.paid_events(BOB), 1);
    let lost = line.world.nodes[ALICE].journal.len() - before;
    line.world.restart(ALICE, lost);
    line.world.connect_all();
    assert_eq!(line.world.ask(ALICE, Input::Pay(pay)).unwrap_err().code, Code::HubDiverged);
    // Too late.
    let mut line = Line::new(Policy::default());
    let (invoice, _) = line.invoice(1_000);
    let pay = line.plan(&invoice);
    line.world.log.now += 3_600_001;
    assert_eq!(line.world.ask(ALICE, Input::Pay(pay)).unwrap_err().code, Code::InvoiceOver);
}

#[test]
fn what_is_no_lock_or_not_for_this_channel_is_refused_and_changes_nothing() {
    let mut line = Line::new(Policy::default());
    let (hubs, bobs) = (line.links[0].1, line.links[1].0);
    let (payment, _) = line.start(1_000);
    while line.world.mail.is_empty() {
        line.world.step(ALICE);
    }
    let (_, _, message) = line.world.mail.remove(0);
    let ask = |line: &mut Line, end: EndId, message: wire::HubMessage| {
        let before = line.world.nodes[HUB].journal.len();
        let result = line.world.ask(HUB, Input::Message { end, message: Box::new(message) });
        assert_eq!(line.world.nodes[HUB].journal.len(), before, "nothing has changed");
        result.map(drop).map_err(|e| e.code)
    };
    assert_eq!(ask(&mut line, bobs, (*message).clone()), Err(Code::VoucherChannel));
    let empty = wire::HubMessage { channel: message.channel.clone(), kind: None };
    assert_eq!(ask(&mut line, hubs, empty.clone()), Err(Code::BadContent));
    let Some(Kind::Offer(offer)) = message.kind.clone() else { panic!("{message:?}") };
    let with = |kind| wire::HubMessage { kind: Some(kind), ..empty.clone() };
    assert_eq!(ask(&mut line, hubs, with(Kind::Paid(offer.voucher.clone().unwrap()))), Err(Code::NoLock));
    let mut forged = offer.clone();
    forged.voucher.as_mut().unwrap().signatures[0] = Bytes::from_static(&[7; 66]);
    assert_eq!(ask(&mut line, hubs, with(Kind::Offer(forged))), Ok(()), "refused by a message, without a voucher");
    let mut long = offer;
    long.hops = vec![long.hops[0].clone(); 17];
    assert_eq!(ask(&mut line, hubs, with(Kind::Offer(long))), Err(Code::HubRoute));
    // Locks of payments are not the shell's.
    let (end, lane) = (line.links[0].0, 0);
    let cancel = manager::Input::LockCancel { end, lane };
    assert_eq!(line.world.channel(ALICE, cancel).unwrap_err().code, Code::LaneLocked);
    line.world.ask(HUB, Input::Message { end: hubs, message }).unwrap();
    line.world.run();
    assert!(matches!(line.world.state(ALICE, payment), PaymentState::Paid(_)));
}
