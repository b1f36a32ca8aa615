//! What users ask, and what they are told.

use super::world::*;
use crate::channel::hub::{Ask, Event, Input, InvoiceState, LinkState, LockInfo, PaymentState, Policy, Reply};
use crate::channel::manager;
use crate::error::Code;
use crate::wire::hub_message::Kind;
use crate::wire::{HubEarned, HubTerms};

#[test]
fn the_connection_of_an_end_is_away_comparing_ready_or_diverged() {
    let mut line = Line::new(Policy::default());
    let (end, other) = line.links[0];
    let link = |line: &Line| line.world.nodes[ALICE].hub.link(&end);
    assert_eq!(link(&line), LinkState::Ready);
    let opened = line.world.nodes[ALICE].journal.len();
    line.world.ask(ALICE, Input::Disconnected(end)).unwrap();
    assert_eq!(link(&line), LinkState::Away);
    assert_eq!(line.world.nodes[HUB].hub.link(&other), LinkState::Ready, "it has not noticed");
    line.world.ask(ALICE, Input::Connected(end, 70)).unwrap();
    assert_eq!(link(&line), LinkState::Ready, "compared since its start");
    line.start(1_000);
    line.world.run();
    // Anew, with the whole journal.
    line.world.restart(ALICE, 0);
    assert_eq!(link(&line), LinkState::Away);
    line.world.ask(ALICE, Input::Connected(end, 71)).unwrap();
    assert_eq!(link(&line), LinkState::Comparing);
    line.world.ask(ALICE, Input::Disconnected(end)).unwrap();
    assert_eq!(link(&line), LinkState::Away);
    line.world.connect(ALICE, end);
    line.world.run();
    assert_eq!(link(&line), LinkState::Ready);
    // And with an old one.
    let lost = line.world.nodes[ALICE].journal.len() - opened;
    line.world.restart(ALICE, lost);
    line.world.connect(ALICE, end);
    line.world.run();
    assert_eq!(link(&line), LinkState::Diverged);
    line.world.ask(ALICE, Input::Disconnected(end)).unwrap();
    assert_eq!(link(&line), LinkState::Diverged, "also while nobody is there");
    assert_eq!(line.world.nodes[HUB].hub.link(&line.links[1].0), LinkState::Ready, "each end for itself");
    assert_eq!(line.world.nodes[ALICE].hub.link(&line.links[1].0), LinkState::Away, "an end of others");
}

#[test]
fn locks_in_flight_are_listed_with_what_they_are_for() {
    let mut line = Line::new(Policy::default());
    line.world.nodes[BOB].mute = true;
    let (_, secret_hash) = line.start(1_000);
    line.world.run();
    let locks = |line: &Line, node: usize, end| line.world.nodes[node].hub.locks(&end);
    let (first, second) = (line.links[0], line.links[1]);
    let margin = line.world.nodes[HUB].config.margin_ms();
    let last = START + line.world.nodes[ALICE].config.policy.final_ms;
    let info = |outgoing, is_known, purpose| match outgoing {
        true => {
            LockInfo { outgoing, lane: 0, amount: 1_002, not_after_ms: last + margin, secret_hash, is_known, purpose }
        }
        false => LockInfo { outgoing, lane: 0, amount: 1_000, not_after_ms: last, secret_hash, is_known, purpose },
    };
    let of_first = |outgoing, is_known, purpose| LockInfo { outgoing, ..info(true, is_known, purpose) };
    let of_second = |outgoing, is_known, purpose| LockInfo { outgoing, ..info(false, is_known, purpose) };
    assert_eq!(locks(&line, ALICE, first.0), [of_first(true, false, "payment")]);
    assert_eq!(locks(&line, HUB, first.1), [of_first(false, false, "forward")]);
    assert_eq!(locks(&line, HUB, second.0), [of_second(true, false, "forward")]);
    assert_eq!(locks(&line, BOB, second.1), [of_second(false, true, "invoice")]);
    assert!(locks(&line, ALICE, second.0).is_empty());
    // What was paid for good is in flight until the other side has said that it has it.
    line.world.nodes[BOB].mute = false;
    line.world.lose = |message| matches!(message.kind, Some(Kind::PaidAck(_)));
    line.world.connect_all();
    assert_eq!(locks(&line, ALICE, first.0), [of_first(true, true, "payment")]);
    assert!(locks(&line, HUB, first.1).is_empty());
    assert_eq!(locks(&line, HUB, second.0), [of_second(true, true, "forward")]);
    assert!(locks(&line, BOB, second.1).is_empty());
    assert_eq!([ALICE, HUB, BOB].map(|node| line.world.nodes[node].hub.in_flight()), [(1, 0), (1, 0), (0, 0)]);
}

#[test]
fn a_lock_that_waits_for_the_log_is_listed_as_kept() {
    let mut line = Line::new(Policy::default());
    let opened = line.world.nodes[HUB].journal.len();
    line.world.lose = |message| matches!(message.kind, Some(Kind::Secret(_) | Kind::Paid(_)));
    line.start(1_000);
    line.world.run();
    let lost = line.world.nodes[HUB].journal.len() - opened;
    line.world.restart(HUB, lost);
    line.world.connect_all();
    let kept = line.world.nodes[HUB].hub.locks(&line.links[0].1);
    assert_eq!(
        kept.iter().map(|lock| (lock.purpose, lock.amount, lock.is_known)).collect::<Vec<_>>(),
        [("kept", 1_002, false)]
    );
    assert!(line.world.nodes[HUB].hub.locks(&line.links[1].0).is_empty());
    // Also by a journal that is written anew.
    line.world.nodes[HUB].compacts = true;
    line.world.restart(HUB, 0);
    assert_eq!(line.world.nodes[HUB].hub.locks(&line.links[0].1), kept);
}

#[test]
fn what_passing_on_has_brought_is_counted() {
    let terms = HubTerms { upfront: 7, ..Policy::default().terms };
    let mut line = Line::of(4, Policy { terms, ..Policy::default() });
    let earned = |line: &Line| line.world.nodes.iter().map(|node| node.hub.earned()).collect::<Vec<_>>();
    assert_eq!(earned(&line), [HubEarned::default(); 4]);
    let of = |payments, fees, upfront| HubEarned { payments, fees, upfront };
    for (payments, fees) in [(1, [12, 11]), (2, [12 + 3, 11 + 3])] {
        let amount = if payments == 1 { 10_000 } else { 1_005 };
        line.start(amount);
        line.world.run();
        let expected =
            [of(0, 0, 0), of(payments, fees[0], 14 * payments), of(payments, fees[1], 7 * payments), of(0, 0, 0)];
        assert_eq!(earned(&line), expected);
    }
    // A payment that fails brings its up-front fees alone; and all is kept over a restart from a journal written anew.
    line.world.nodes[3].down = true;
    line.start(10_000);
    line.world.run();
    line.world.pass_all();
    line.world.nodes[3].down = false;
    let expected = [of(0, 0, 0), of(2, 15, 42), of(2, 14, 21), of(0, 0, 0)];
    assert_eq!(earned(&line), expected);
    for node in 0..4 {
        line.world.nodes[node].compacts = true;
        line.world.restart(node, 0);
        line.world.restart(node, 0);
    }
    assert_eq!(earned(&line), expected);
    let forwarded: Vec<_> = line.world.nodes[HUB].events.clone();
    let (from, to) = (line.links[0].1, line.links[1].0);
    assert_eq!(forwarded, [12, 3].map(|fee| Event::Forwarded { from, to, fee }));
}

#[test]
fn the_same_invoice_again_is_the_same_and_a_secret_is_for_one() {
    let mut line = Line::new(Policy::default());
    let end = line.links[1].1;
    let ask = Ask { end, amount: 50, secret: [3; 32], expires_ms: START + 10, memo: "x".into() };
    let ask_for = |line: &mut Line, ask: &Ask| line.world.ask(BOB, Input::Ask(ask.clone())).map_err(|e| e.code);
    let journal = line.world.nodes[BOB].journal.len();
    let Ok(Reply::Invoice(invoice, hash)) = ask_for(&mut line, &ask) else { panic!() };
    assert_eq!(line.world.nodes[BOB].journal.len(), journal + 1);
    assert_eq!(ask_for(&mut line, &ask), Ok(Reply::Invoice(invoice.clone(), hash)));
    assert_eq!(line.world.nodes[BOB].journal.len(), journal + 1, "there is nothing new to keep");
    for other in [
        Ask { amount: 51, ..ask.clone() },
        Ask { expires_ms: START + 11, ..ask.clone() },
        Ask { memo: "y".into(), ..ask.clone() },
    ] {
        assert_eq!(ask_for(&mut line, &other), Err(Code::InvoiceOver));
    }
    let unknown = Ask { end: line.links[0].0, ..ask.clone() };
    assert_eq!(ask_for(&mut line, &unknown), Err(Code::UnknownChannel));
    // A new one up to its last moment, and the old one always.
    line.world.log.now = START + 10;
    let second = Ask { secret: [4; 32], ..ask.clone() };
    assert!(ask_for(&mut line, &second).is_ok());
    line.world.log.now = START + 11;
    assert_eq!(ask_for(&mut line, &Ask { secret: [5; 32], ..ask.clone() }), Err(Code::InvoiceOver));
    assert_eq!(ask_for(&mut line, &ask), Ok(Reply::Invoice(invoice, hash)));
}

#[test]
fn an_invoice_and_its_payment_are_told_at_each_stage() {
    let mut line = Line::new(Policy::default());
    let (_, unpaid) = line.invoice(7);
    let state = |line: &Line, hash| line.world.nodes[BOB].hub.invoice(hash).map_err(|e| e.code);
    assert_eq!(state(&line, &unpaid), Ok(InvoiceState::Open));
    assert_eq!(state(&line, &[0; 32]), Err(Code::InvoiceUnknown));
    line.world.nodes[BOB].mute = true;
    let (payment, hash) = line.start(1_000);
    line.world.run();
    assert_eq!((state(&line, &hash), state(&line, &unpaid)), (Ok(InvoiceState::Locked), Ok(InvoiceState::Open)));
    let paid = |line: &Line| line.world.nodes[ALICE].hub.payment_for(&hash).map(|(n, state)| (n, state.clone()));
    assert_eq!(paid(&line), Some((payment, PaymentState::InFlight)));
    assert_eq!(line.world.nodes[ALICE].hub.payment_for(&unpaid), None);
    line.world.nodes[BOB].mute = false;
    line.world.connect_all();
    assert_eq!((state(&line, &hash), state(&line, &unpaid)), (Ok(InvoiceState::Paid), Ok(InvoiceState::Open)));
    let secret = line.world.secrets[&hash].to_vec().into();
    assert_eq!(paid(&line), Some((payment, PaymentState::Paid(secret))));
    // One whose lock expires is over, for good.
    line.world.nodes[BOB].down = true;
    let (failed, hash) = line.start(1_000);
    line.world.run();
    line.world.nodes[BOB].down = false;
    line.world.nodes[BOB].mute = true;
    line.world.connect(HUB, line.links[1].0);
    line.world.run();
    assert_eq!(state(&line, &hash), Ok(InvoiceState::Locked));
    line.world.nodes[BOB].down = true;
    line.world.pass_all();
    line.world.nodes[BOB].down = false;
    line.world.poll();
    line.world.run();
    assert_eq!(state(&line, &hash), Ok(InvoiceState::Over));
    assert_eq!(line.world.failed_with(ALICE, failed), Code::LockOver);
    // Whatever is locked for others.
    line.world.connect_all();
    let (_, next) = line.start(50);
    line.world.run();
    assert_eq!((state(&line, &next), state(&line, &hash)), (Ok(InvoiceState::Locked), Ok(InvoiceState::Over)));
}

/// The payer's other voucher may come another way than by its connection.
#[test]
fn a_voucher_that_the_shell_brings_pays_an_invoice_as_well() {
    let ways: [fn(manager::Incoming) -> manager::Input; 3] = [
        manager::Input::VoucherAdd,
        |one| manager::Input::VoucherAddMany(vec![one]),
        |voucher| manager::Input::VoucherSubmit { voucher },
    ];
    for way in ways {
        let mut line = Line::new(Policy::default());
        line.world.lose = |message| matches!(message.kind, Some(Kind::Paid(_)));
        let (_, secret_hash) = line.start(1_000);
        line.world.run();
        let (from, end) = line.links[1];
        assert_eq!((line.world.paid_events(BOB), line.world.nodes[BOB].hub.in_flight()), (0, (0, 1)));
        let voucher = line.world.nodes[HUB].manager.kept_voucher(&from, 0, 0, 2).unwrap().unwrap();
        let none = bytes::Bytes::new;
        let incoming = manager::Incoming { end, voucher, secret: none(), proof: none(), min_delta: 0 };
        line.world.channel(BOB, way(incoming)).unwrap();
        assert_eq!(line.world.nodes[BOB].hub.in_flight(), (0, 0), "at once, not with the next tick");
        line.world.run();
        assert_eq!(line.world.nodes[BOB].events, [Event::InvoicePaid { secret_hash, amount: 1_000 }]);
    }
}

#[test]
fn locks_of_payments_are_not_the_shells_on_either_side() {
    let mut line = Line::new(Policy::default());
    line.world.nodes[BOB].mute = true;
    let (_, hash) = line.start(1_000);
    line.world.run();
    let secret: bytes::Bytes = line.world.secrets[&hash].to_vec().into();
    for (node, end) in
        [(ALICE, line.links[0].0), (HUB, line.links[0].1), (HUB, line.links[1].0), (BOB, line.links[1].1)]
    {
        for input in [
            manager::Input::LockPaid { end, lane: 0, secret: secret.clone() },
            manager::Input::LockCancel { end, lane: 0 },
            manager::Input::Secret { end, lane: 0, secret: secret.clone() },
        ] {
            assert_eq!(line.world.channel(node, input).unwrap_err().code, Code::LaneLocked, "{node}");
        }
        // Other lanes are.
        let input = manager::Input::LockCancel { end, lane: 5 };
        assert_eq!(line.world.channel(node, input).unwrap_err().code, Code::NoLock);
    }
}

/// A lane is given out, and then the manager does not sign the lock: the lane is not given out once more.
#[test]
fn what_a_refused_payment_has_changed_before_is_durable() {
    let mut line = Line::new(Policy::default());
    line.world.nodes[ALICE].channels.policy.lock_min = 5_000;
    line.world.restart(ALICE, 0);
    line.world.connect_all();
    let (invoice, _) = line.invoice(1_000);
    let pay = line.plan(&invoice);
    let before = line.world.nodes[ALICE].journal.len();
    let Ok(Reply::Failed(refused)) = line.world.ask(ALICE, Input::Pay(pay.clone())) else { panic!() };
    assert_eq!((refused.code, line.world.nodes[ALICE].journal.len()), (Code::LockTerms, before + 1));
    line.world.nodes[ALICE].channels.policy.lock_min = 1;
    line.world.restart(ALICE, 0);
    line.world.connect_all();
    line.world.pay(ALICE, pay);
    let lanes: Vec<_> = line.world.nodes[ALICE].hub.locks(&line.links[0].0).iter().map(|lock| lock.lane).collect();
    assert_eq!(lanes, [1]);
    // What has changed nothing is refused without a trace.
    let before = line.world.nodes[ALICE].journal.len();
    let (invoice, _) = line.invoice(FUNDS);
    let pay = line.plan(&invoice);
    assert_eq!(line.world.ask(ALICE, Input::Pay(pay)).unwrap_err().code, Code::HubFunds);
    assert_eq!(line.world.nodes[ALICE].journal.len(), before);
}
