//! What is long over is forgotten, and nothing is paid, passed on or taken twice for it.

use bytes::Bytes;
use prost::Message as _;

use super::world::*;
use crate::channel::hub::{Ask, Input, InvoiceState, Pay, PaymentState, Policy, read_invoice};
use crate::error::Code;
use crate::limits::HUB_KEEP_MS;
use crate::merkle::Hash;
use crate::wire;
use crate::wire::hub_message::Kind;

const HOUR: u64 = 3_600_000;

/// Everybody looks at a moment, and does what follows.
fn at(line: &mut Line, moment: u64) {
    line.world.log.now = moment;
    for _ in 0..2 {
        line.world.poll();
        line.world.run();
    }
}

/// What a journal of a wallet takes that is written anew now.
fn written(line: &Line, node: usize) -> usize {
    let node = &line.world.nodes[node];
    node.hub.snapshot(&node.manager).encoded_len()
}

/// A payment that is paid and was forgotten, with all that was said about it.
fn forgotten() -> (Line, Pay, Hash, Vec<Mail>) {
    let mut line = Line::new(Policy::default());
    let (invoice, hash) = line.invoice(1_000);
    let pay = line.plan(&invoice);
    let payment = line.world.pay(ALICE, pay.clone());
    let mut said = Vec::new();
    while (0..3).any(|node| line.world.step(node)) || !line.world.mail.is_empty() {
        said.extend(line.world.mail.first().cloned());
        if !line.world.mail.is_empty() {
            line.world.deliver(0);
        }
    }
    assert!(matches!(line.world.state(ALICE, payment), PaymentState::Paid(_)));
    at(&mut line, START + HOUR + HUB_KEEP_MS + 1);
    assert_eq!(line.world.nodes[ALICE].hub.payment(payment).unwrap_err().code, Code::UnknownPayment);
    (line, pay, hash, said)
}

#[test]
fn a_payment_and_its_invoice_are_listed_for_a_day_after_the_expiry() {
    let mut line = Line::new(Policy::default());
    let (payment, hash) = line.start(1_000);
    line.world.run();
    let (alone, _) = line.invoice(7);
    let alone = Hash::try_from(&read_invoice(&alone).unwrap().secret_hash[..]).unwrap();
    at(&mut line, START + HOUR + HUB_KEEP_MS);
    assert!(matches!(line.world.state(ALICE, payment), PaymentState::Paid(_)));
    assert_eq!(line.world.nodes[BOB].hub.invoice(&hash), Ok(InvoiceState::Paid));
    assert_eq!(line.world.nodes[BOB].hub.invoice(&alone), Ok(InvoiceState::Open));
    at(&mut line, START + HOUR + HUB_KEEP_MS + 1);
    let (alice, bob) = (&line.world.nodes[ALICE].hub, &line.world.nodes[BOB].hub);
    assert_eq!(alice.payment(payment).unwrap_err().code, Code::UnknownPayment);
    assert!(alice.payment_for(&hash).is_none() && alice.keys.is_empty() && alice.by_hash.is_empty());
    for hash in [hash, alone] {
        assert_eq!(bob.invoice(&hash).unwrap_err().code, Code::InvoiceUnknown);
    }
    // Also for a wallet that starts from its journal, and its number is not given out again.
    for node in [ALICE, HUB, BOB] {
        line.world.nodes[node].compacts = true;
        line.world.restart(node, 0);
    }
    line.world.connect_all();
    let (next, _) = line.start(50);
    line.world.run();
    assert!(next > payment && matches!(line.world.state(ALICE, next), PaymentState::Paid(_)));
    assert_eq!(line.world.wind_up(), [FUNDS - 1_002 - 52, FUNDS + 4, 1_050]);
}

#[test]
fn a_journal_that_is_written_anew_forgets_payments_by_the_hundred() {
    let mut line = Line::new(Policy::default());
    // Of the vouchers that were replaced a manager keeps so many of each lane.
    for node in [ALICE, HUB, BOB] {
        line.world.nodes[node].channels.policy.superseded_max = 4;
        line.world.restart(node, 0);
    }
    line.world.connect_all();
    for _ in 0..9 {
        line.start(100);
        line.world.run();
    }
    at(&mut line, START + HOUR + HUB_KEEP_MS + 1);
    let few = [ALICE, HUB, BOB].map(|node| written(&line, node));
    for _ in 0..200 {
        line.start(100);
        line.world.run();
    }
    let many = [ALICE, HUB, BOB].map(|node| written(&line, node));
    let next = line.world.log.now + HOUR + HUB_KEEP_MS + 1;
    at(&mut line, next);
    let left = [ALICE, HUB, BOB].map(|node| written(&line, node));
    // Numbers and amounts are a few bytes longer.
    let same = few.iter().zip(left).all(|(few, left)| left <= few + 64);
    assert!(same, "{few:?} before 200 payments, {many:?} after them, {left:?} when they are over");
    assert!(many[ALICE] > few[ALICE] + 200 * 150 && many[BOB] > few[BOB] + 200 * 150, "{few:?}, {many:?}");
}

#[test]
fn what_is_said_again_of_a_forgotten_payment_changes_nothing() {
    let (mut line, pay, hash, said) = forgotten();
    assert!(said.len() >= 9, "offers, secrets, payments for good: {}", said.len());
    let state = |line: &Line| {
        let nodes = line.world.nodes.iter();
        nodes.map(|node| (format!("{:?}", node.hub.snapshot(&node.manager)), node.journal.len())).collect::<Vec<_>>()
    };
    let before = state(&line);
    for message in said.iter().chain(said.iter().rev()) {
        line.world.mail.push(message.clone());
        line.world.run();
    }
    assert_eq!(state(&line), before);
    assert_eq!((line.world.paid_events(BOB), line.world.nodes[HUB].hub.in_flight()), (1, (0, 0)));
    // By its key, and by another one.
    let other = Pay { key: Bytes::from_static(b"other"), ..pay.clone() };
    for again in [pay.clone(), other.clone()] {
        assert_eq!(line.world.ask(ALICE, Input::Pay(again)).unwrap_err().code, Code::InvoiceOver);
    }
    // A payer that bends the invoice pays nobody.
    let mut later = read_invoice(&pay.invoice).unwrap();
    later.expires_ms = line.world.log.now + HOUR;
    let bent = line.world.payment(ALICE, line.links[0].0, &[(HUB, line.links[1].0)], &later.encode_to_vec().into());
    let payment = line.world.pay(ALICE, bent);
    line.world.run();
    assert_eq!(line.world.failed_with(ALICE, payment), Code::InvoiceUnknown);
    assert_eq!(line.world.paid_events(BOB), 1);
    // Nor is the invoice made once more.
    let end = line.links[1].1;
    let ask =
        |expires_ms| Ask { end, amount: 1_000, secret: line.world.secrets[&hash], expires_ms, memo: String::new() };
    let old = ask(START + HOUR);
    assert_eq!(line.world.ask(BOB, Input::Ask(old)).unwrap_err().code, Code::InvoiceOver);
    assert_eq!(line.world.wind_up(), [FUNDS - 1_002, FUNDS + 2, 1_000]);
}

#[test]
fn a_payment_whose_payee_has_not_acknowledged_it_is_not_forgotten() {
    let mut line = Line::new(Policy::default());
    line.world.lose = |message| matches!(message.kind, Some(Kind::PaidAck(_)));
    let (payment, _) = line.start(1_000);
    line.world.run();
    at(&mut line, START + HOUR + 3 * HUB_KEEP_MS);
    assert!(matches!(line.world.state(ALICE, payment), PaymentState::Paid(_)));
    assert_eq!(line.world.nodes[ALICE].hub.in_flight(), (1, 0));
    line.world.lose = |_| false;
    line.world.connect_all();
    assert_eq!(line.world.nodes[ALICE].hub.in_flight(), (0, 0));
    let over = line.world.log.now;
    at(&mut line, over + HUB_KEEP_MS);
    assert!(matches!(line.world.state(ALICE, payment), PaymentState::Paid(_)), "a day from its end on");
    at(&mut line, over + HUB_KEEP_MS + 1);
    assert_eq!(line.world.nodes[ALICE].hub.payment(payment).unwrap_err().code, Code::UnknownPayment);
}

#[test]
fn who_comes_back_after_days_hears_for_a_day_what_became_of_it() {
    let mut line = Line::new(Policy::default());
    line.world.nodes[BOB].mute = true;
    let (payment, hash) = line.start(1_000);
    line.world.run();
    assert_eq!(line.world.nodes[BOB].hub.invoice(&hash), Ok(InvoiceState::Locked));
    (line.world.nodes[ALICE].down, line.world.nodes[BOB].down) = (true, true);
    let back = START + 4 * HUB_KEEP_MS;
    at(&mut line, back);
    (line.world.nodes[ALICE].down, line.world.nodes[BOB].down) = (false, false);
    // A tick before the log has told anything about the channel.
    for node in [ALICE, BOB] {
        line.world.channel(node, crate::channel::manager::Input::Tick).unwrap();
    }
    assert_eq!(line.world.state(ALICE, payment), PaymentState::InFlight);
    assert_eq!(line.world.nodes[BOB].hub.invoice(&hash), Ok(InvoiceState::Locked));
    at(&mut line, back);
    at(&mut line, back + HUB_KEEP_MS);
    assert_eq!(line.world.failed_with(ALICE, payment), Code::LockOver);
    assert_eq!(line.world.nodes[BOB].hub.invoice(&hash), Ok(InvoiceState::Over));
    at(&mut line, back + HUB_KEEP_MS + 1);
    assert_eq!(line.world.nodes[ALICE].hub.payment(payment).unwrap_err().code, Code::UnknownPayment);
    assert_eq!(line.world.nodes[BOB].hub.invoice(&hash).unwrap_err().code, Code::InvoiceUnknown);
}

#[test]
fn a_crash_before_it_is_durable_that_something_is_forgotten_forgets_it_later() {
    let mut line = Line::new(Policy::default());
    let (payment, _) = line.start(1_000);
    line.world.run();
    at(&mut line, START + HOUR + HUB_KEEP_MS + 1);
    assert!(line.world.nodes[ALICE].hub.payment(payment).is_err());
    let is_last = |groups: &[wire::HubGroup]| {
        let last = &groups.last().unwrap().entries.last().unwrap().kind;
        let Some(wire::hub_entry::Kind::Hub(record)) = last else { return false };
        matches!(record.kind, Some(wire::hub_record::Kind::Forgotten(_)))
    };
    assert!(is_last(&line.world.nodes[ALICE].journal));
    line.world.restart(ALICE, 1);
    assert!(matches!(line.world.state(ALICE, payment), PaymentState::Paid(_)));
    line.world.poll();
    line.world.run();
    assert!(line.world.nodes[ALICE].hub.payment(payment).is_err() && is_last(&line.world.nodes[ALICE].journal));
}

#[test]
fn lanes_of_a_collected_channel_are_forgotten() {
    let mut line = Line::new(Policy::default());
    line.start(1_000);
    line.world.run();
    assert_eq!((line.world.nodes[ALICE].hub.lanes.len(), line.world.nodes[HUB].hub.lanes.len()), (1, 1));
    line.world.wind_up();
    line.world.poll();
    for node in &line.world.nodes {
        assert!(node.hub.lanes.is_empty() && node.hub.credit.is_empty() && node.hub.fee_lanes.is_empty());
    }
}

#[test]
fn a_journal_that_forgets_what_it_never_had_is_corrupt() {
    let line = Line::new(Policy::default());
    let node = &line.world.nodes[ALICE];
    let odd = [
        wire::HubForgotten { payments: vec![1], ..Default::default() },
        wire::HubForgotten { invoices: vec![Bytes::from_static(&[1; 32])], ..Default::default() },
        wire::HubForgotten { ends: vec![wire::HubLockId::default()], ..Default::default() },
    ];
    for all in odd {
        let record = wire::HubRecord { kind: Some(wire::hub_record::Kind::Forgotten(all)) };
        let entries = vec![wire::HubEntry { kind: Some(wire::hub_entry::Kind::Hub(record)) }];
        let groups = [wire::HubGroup { entries }];
        let loaded = crate::channel::hub::Hub::load(node.config.clone(), node.channels.clone(), &groups);
        assert_eq!(loaded.unwrap_err().code, Code::StorageCorrupt);
    }
}
