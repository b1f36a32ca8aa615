//! Each limit of a payment: at it, and one over.

use bytes::Bytes;
use prost::Message as _;

use super::world::*;
use crate::channel::hub::{Effect, Input, Pay, Policy, Step, fee, plan, read_invoice};
use crate::channel::manager::EndId;
use crate::channel::voucher::Voucher;
use crate::error::Code;
use crate::limits::{AMOUNT_MAX, HUB_HOPS_MAX, IDEMPOTENCY_BYTES_MAX, MEMO_BYTES_MAX};
use crate::wire::hub_message::Kind;
use crate::wire::{self, HubHop, HubInvoice, HubTerms};

const HOUR: u64 = 3_600_000;

/// What comes of a payment of an invoice of 1,000 of Bob that was changed before: the payer's own refusal, or how it ended.
fn paid_with(line: &mut Line, change: impl FnOnce(&mut Line, &mut Pay)) -> Result<(), Code> {
    let (invoice, _) = line.invoice(1_000);
    let mut pay = line.plan(&invoice);
    change(line, &mut pay);
    match line.world.ask(ALICE, Input::Pay(pay)).map_err(|e| e.code)? {
        crate::channel::hub::Reply::Payment(payment) => {
            line.world.run();
            match line.world.state(ALICE, payment) {
                crate::channel::hub::PaymentState::Paid(_) => Ok(()),
                _ => Err(line.world.failed_with(ALICE, payment)),
            }
        }
        other => panic!("{other:?}"),
    }
}

/// With a new line of so many wallets.
fn paid(wallets: u64, change: impl FnOnce(&mut Line, &mut Pay)) -> Result<(), Code> {
    paid_with(&mut Line::of(wallets, Policy::default()), change)
}

fn bend(pay: &mut Pay, change: impl FnOnce(&mut HubInvoice)) {
    let mut invoice = read_invoice(&pay.invoice).unwrap();
    change(&mut invoice);
    pay.invoice = invoice.encode_to_vec().into();
}

#[test]
fn keys_of_payments_have_1_to_64_bytes() {
    let with = |bytes: usize| paid(3, |_, pay| pay.key = vec![7; bytes].into());
    assert_eq!([1, IDEMPOTENCY_BYTES_MAX].map(with), [Ok(()), Ok(())]);
    assert_eq!([0, IDEMPOTENCY_BYTES_MAX + 1].map(with), [Err(Code::IdempotencyKey); 2]);
    // One key, two invoices.
    let mut line = Line::new(Policy::default());
    let key = Bytes::from_static(b"key");
    assert_eq!(paid_with(&mut line, |_, pay| pay.key = key.clone()), Ok(()));
    assert_eq!(paid_with(&mut line, |_, pay| pay.key = key.clone()), Err(Code::IdempotencyKey));
}

#[test]
fn an_invoice_is_paid_up_to_its_last_moment_by_payer_and_payee() {
    for (late, expected) in [(0, Ok(())), (1, Err(Code::InvoiceOver))] {
        let at = |line: &mut Line, pay: &mut Pay| {
            line.world.log.now = START + HOUR + late;
            *pay = line.plan(&pay.invoice);
        };
        assert_eq!(paid(3, at), expected, "the payer, {late}");
        // One that does not mind.
        let bent = |line: &mut Line, pay: &mut Pay| {
            at(line, pay);
            bend(pay, |invoice| invoice.expires_ms += 1);
        };
        assert_eq!(paid(3, bent), expected, "the payee, {late}");
    }
    assert_eq!(paid(3, |_, pay| bend(pay, |invoice| invoice.network_id += 1)), Err(Code::UnknownNetwork));
}

#[test]
fn an_invoice_is_paid_in_full() {
    // The payer's own look; more may arrive.
    for (wallets, amount, taken) in
        [(3, 999, false), (3, 1_000, true), (3, 1_001, true), (2, 999, false), (2, 1_001, true)]
    {
        let mut line = Line::of(wallets, Policy::default());
        let (invoice, _) = line.invoice(1_000);
        let mut pay = line.plan(&invoice);
        *pay.route.hops.last_mut().map_or(&mut pay.route.amount, |hop| &mut hop.amount) = amount;
        let asked = line.world.ask(ALICE, Input::Pay(pay)).map(drop).map_err(|e| e.code);
        assert_eq!(asked, if taken { Ok(()) } else { Err(Code::InvoiceAmount) }, "{amount} over {wallets}");
    }
    // A payer that bends the invoice is found out by the payee.
    for (amount, expected) in [(999, Err(Code::InvoiceAmount)), (1_000, Ok(())), (1_001, Ok(()))] {
        let bent = |line: &mut Line, pay: &mut Pay| {
            bend(pay, |invoice| invoice.amount = amount);
            *pay = line.plan(&pay.invoice);
        };
        assert_eq!(paid(3, bent), expected, "{amount}");
    }
}

#[test]
fn the_first_and_the_last_moment_of_a_lock() {
    let config = Line::of(2, Policy::default()).world.nodes[ALICE].config.clone();
    let (claim, grace) = (config.claim_ms(), config.policy.grace_ms);
    assert_eq!((claim, grace), (60_000, 600_000));
    let until = |ms: u64| paid(2, |_, pay| pay.route.not_after_ms = START + ms);
    // For the payee's absence and its claim; and for the payer to answer before a settle is over.
    assert_eq!([grace + claim, DELAY - claim - grace].map(until), [Ok(()), Ok(())]);
    assert_eq!([grace + claim - 1, DELAY - claim - grace + 1].map(until), [Err(Code::HubMargin); 2]);
    // The payer's own limit: what is left to redeem it at all.
    let mut line = Line::of(2, Policy::default());
    let (invoice, _) = line.invoice(1_000);
    let mut pay = line.plan(&invoice);
    pay.route.not_after_ms = START + claim - 1;
    assert_eq!(line.world.ask(ALICE, Input::Pay(pay.clone())).unwrap_err().code, Code::HubMargin);
    pay.route.not_after_ms = START + claim;
    assert!(line.world.ask(ALICE, Input::Pay(pay)).is_ok());
    // The longest lock that the manager makes counts, if the channel's delay is longer.
    let long = |ms: u64| {
        let mut line = Line::of(2, Policy::default());
        line.world.nodes[ALICE].hub.config.channels.lock_max_ms = 2 * HOUR;
        paid_with(&mut line, |_, pay| pay.route.not_after_ms = START + ms)
    };
    assert_eq!((long(2 * HOUR - claim - grace), long(2 * HOUR - claim - grace + 1)), (Ok(()), Err(Code::HubMargin)));
}

#[test]
fn a_lock_takes_no_more_than_there_is() {
    let all = |amount: u64, upfront: u64| paid(3, |_, pay| (pay.route.amount, pay.route.upfront) = (amount, upfront));
    assert_eq!((all(FUNDS, 0), all(FUNDS - 5, 5)), (Ok(()), Ok(())));
    assert_eq!((all(FUNDS + 1, 0), all(FUNDS - 5, 6)), (Err(Code::HubFunds), Err(Code::HubFunds)));
    assert_eq!((all(0, 0), all(0, 5)), (Err(Code::HubFunds), Err(Code::HubFunds)), "nothing is no lock");
    assert_eq!(all(u64::MAX, u64::MAX), Err(Code::HubFunds));
}

#[test]
fn a_way_has_at_most_16_hubs() {
    let mut line = Line::new(Policy::default());
    let (invoice, _) = line.invoice(1_000);
    let hop = HubHop { amount: 1_000, ..Default::default() };
    let with = |line: &mut Line, hops: usize| {
        let mut pay = line.plan(&invoice);
        pay.route.hops = vec![hop.clone(); hops];
        line.world.ask(ALICE, Input::Pay(pay)).map(drop).map_err(|e| e.code)
    };
    assert_eq!(with(&mut line, HUB_HOPS_MAX + 1), Err(Code::HubRoute));
    assert_eq!(with(&mut line, HUB_HOPS_MAX), Ok(()));
    // Who gets one with more hubs refuses to look at it.
    let offer = |line: &Line| {
        let sent = line.world.nodes[ALICE].effects.iter().find_map(|effect| match effect {
            Effect::Send { message, .. } => Some(message.clone()),
            _ => None,
        });
        sent.unwrap()
    };
    let mut long = offer(&line);
    let Some(Kind::Offer(of)) = &mut long.kind else { panic!("{long:?}") };
    of.hops.push(hop.clone());
    let end = line.links[0].1;
    let say =
        |line: &mut Line, message| line.world.ask(HUB, Input::Message { end, message }).map(drop).map_err(|e| e.code);
    let journal = line.world.nodes[HUB].journal.len();
    assert_eq!(say(&mut line, long), Err(Code::HubRoute));
    assert_eq!(line.world.nodes[HUB].journal.len(), journal);
    let good = offer(&line);
    assert_eq!(say(&mut line, good), Ok(()), "taken, and given back for it leads nowhere");
    assert!(line.world.nodes[HUB].journal.len() > journal);
}

/// The hub's limits are changed after the payer has made its plan.
fn with_policy(policy: Policy) -> Result<(), Code> {
    paid(3, |line, _| line.world.nodes[HUB].hub.config.policy = policy)
}

#[test]
fn a_hub_passes_on_at_each_of_its_limits_and_not_one_over() {
    let none = Policy::default;
    let terms = none().terms;
    let with_terms = |terms: HubTerms| with_policy(Policy { terms, ..none() });
    assert_eq!(with_terms(HubTerms { lock_min: 1_000, ..terms }), Ok(()));
    assert_eq!(with_terms(HubTerms { lock_min: 1_001, ..terms }), Err(Code::HubCaps));
    assert_eq!(with_terms(HubTerms { fee_base: 1, fee_ppm: 1_000, ..terms }), Ok(()), "2 of 1,000");
    assert_eq!(with_terms(HubTerms { fee_base: 1, fee_ppm: 1_001, ..terms }), Err(Code::HubFee));
    assert_eq!(with_terms(HubTerms { fee_base: 2, fee_ppm: 0, ..terms }), Ok(()));
    assert_eq!(with_terms(HubTerms { fee_base: 3, fee_ppm: 0, ..terms }), Err(Code::HubFee));
    let last = none().final_ms;
    assert_eq!(with_terms(HubTerms { lock_max_ms: last, ..terms }), Ok(()));
    assert_eq!(with_terms(HubTerms { lock_max_ms: last - 1, ..terms }), Err(Code::HubMargin));
    assert_eq!(with_terms(HubTerms { margin_ms: terms.margin_ms + 1, ..terms }), Err(Code::HubMargin));
    assert_eq!(with_policy(Policy { in_flight_max: 1_002, ..none() }), Ok(()));
    assert_eq!(with_policy(Policy { in_flight_max: 1_001, ..none() }), Err(Code::HubCaps));
    assert_eq!(with_policy(Policy { locks_max: 1, ..none() }), Ok(()));
    assert_eq!(with_policy(Policy { locks_max: 0, ..none() }), Err(Code::HubCaps));
    assert_eq!(with_policy(Policy { forwards: false, ..none() }), Err(Code::HubRoute));
    // A margin that is too small for its own absence counts as the least.
    let least = none().grace_ms + 60_000;
    let margin = |more: u64, terms: HubTerms| {
        paid(3, |line, pay| {
            line.world.nodes[HUB].hub.config.policy.terms = terms;
            pay.route.not_after_ms = pay.route.hops[0].not_after_ms + more;
        })
    };
    let small = HubTerms { margin_ms: 1, ..terms };
    assert_eq!((margin(least, small), margin(least - 1, small)), (Ok(()), Err(Code::HubMargin)));
    let mut config = Line::of(2, none()).world.nodes[ALICE].config.clone();
    config.policy.terms = small;
    assert_eq!(config.terms(), HubTerms { margin_ms: least, ..small }, "and so it is published");
    // Up-front fees: its own, and what it is to pay on.
    let upfront = |paid_upfront: u64, asked: u64, on: u64| {
        paid(3, |line, pay| {
            line.world.nodes[HUB].hub.config.policy.terms.upfront = asked;
            (pay.route.upfront, pay.route.hops[0].upfront) = (paid_upfront, on);
        })
    };
    assert_eq!((upfront(3, 3, 0), upfront(5, 3, 2), upfront(9, 3, 2)), (Ok(()), Ok(()), Ok(())));
    assert_eq!((upfront(2, 3, 0), upfront(4, 3, 2)), (Err(Code::HubFee), Err(Code::HubFee)));
}

#[test]
fn what_is_in_flight_counts_for_each_channel_and_only_what_is_passed_on() {
    let mut line = Line::new(Policy { locks_max: 2, in_flight_max: 2_500, ..Policy::default() });
    line.world.nodes[BOB].mute = true;
    // The hub's own invoice, whose secret gets lost: a lock in hand that is not passed on.
    let (end, hubs) = line.links[0];
    line.world.lose = |message| matches!(message.kind, Some(Kind::Secret(_)));
    let (invoice, _) = line.world.invoice(HUB, hubs, 2_000);
    let own = line.world.payment(ALICE, end, &[], &invoice);
    line.world.pay(ALICE, own);
    line.world.run();
    assert_eq!(line.world.nodes[HUB].hub.in_flight(), (0, 1));
    let state = |line: &Line, payment| line.world.state(ALICE, payment);
    let mut pay = |amount: u64| {
        let (payment, _) = line.start(amount);
        line.world.run();
        match state(&line, payment) {
            crate::channel::hub::PaymentState::InFlight => Ok(()),
            _ => Err(line.world.failed_with(ALICE, payment)),
        }
    };
    // 1,002 and 1,498 make 2,500.
    assert_eq!(pay(1_000), Ok(()));
    assert_eq!(pay(1_497), Err(Code::HubCaps));
    assert_eq!(pay(1_495), Ok(()));
    assert_eq!(pay(1), Err(Code::HubCaps), "two locks");
}

#[test]
fn what_a_hub_asks_for_is_rounded_up() {
    let terms = |fee_base, fee_ppm| HubTerms { fee_base, fee_ppm, ..Policy::default().terms };
    for (base, ppm, amount, expected) in [
        (0, 0, 1_000, 0),
        (5, 0, 1_000, 5),
        (0, 1, 1, 1),
        (0, 1, 1_000_000, 1),
        (0, 1, 1_000_001, 2),
        (3, 2_000, 500, 4),
        (3, 2_000, 501, 5),
        (0, 1_000_000, 77, 77),
        (1, u32::MAX, u64::MAX, u64::MAX),
    ] {
        assert_eq!(fee(&terms(base, ppm), amount), expected, "{base} + {ppm} millionths of {amount}");
    }
}

#[test]
fn a_plan_keeps_to_the_terms_of_each_hub() {
    let mut line = Line::new(Policy::default());
    let (invoice, _) = line.invoice(1_000);
    let invoice = read_invoice(&invoice).unwrap();
    let (end, channel, now) = (line.links[0].0, line.links[1].0.channel, 5_000_000);
    let config = line.world.nodes[ALICE].config.clone();
    let base = HubTerms { fee_base: 2, fee_ppm: 1_000, margin_ms: 100, upfront: 4, lock_min: 1_000, lock_max_ms: HOUR };
    let planned = |invoice: &HubInvoice, hubs: &[Step]| plan(&config, now, invoice, end, hubs).map_err(|e| e.code);
    let step = |terms| Step { channel, terms };
    // The first hub gets 1,003 and what the second asks for; each its margin and its up-front fee.
    let two = [step(HubTerms { lock_max_ms: HOUR + 100, ..base }), step(base)];
    let route = planned(&invoice, &two).unwrap();
    assert_eq!((route.end, route.amount, route.not_after_ms, route.upfront), (end, 1_007, now + HOUR + 200, 8));
    let hops: Vec<_> = route.hops.iter().map(|hop| (hop.amount, hop.not_after_ms - now, hop.upfront)).collect();
    assert_eq!(hops, [(1_003, HOUR + 100, 4), (1_000, HOUR, 0)]);
    assert_eq!(
        planned(&invoice, &[step(HubTerms { lock_max_ms: HOUR + 99, ..base }), step(base)]),
        Err(Code::LockTerms)
    );
    assert_eq!(planned(&invoice, &[step(HubTerms { lock_min: 1_001, ..base })]), Err(Code::LockTerms));
    assert_eq!(planned(&invoice, &[step(HubTerms { lock_max_ms: HOUR - 1, ..base })]), Err(Code::LockTerms));
    // To the invoice's channel alone.
    assert_eq!(planned(&invoice, &[Step { channel: [9; 32], terms: base }]), Err(Code::HubRoute));
    assert_eq!(planned(&invoice, &[]), Err(Code::HubRoute));
    let direct = HubInvoice { channel: end.channel.to_vec().into(), ..invoice.clone() };
    assert_eq!(planned(&direct, &[]).unwrap().amount, 1_000);
    // Sixteen hubs, and amounts below 2^63.
    let free = HubTerms { fee_base: 0, fee_ppm: 0, margin_ms: 0, upfront: 0, lock_min: 1, lock_max_ms: HOUR };
    assert!(planned(&invoice, &vec![step(free); HUB_HOPS_MAX]).is_ok());
    assert_eq!(planned(&invoice, &vec![step(free); HUB_HOPS_MAX + 1]), Err(Code::HubRoute));
    let most = HubInvoice { amount: AMOUNT_MAX - 1, ..invoice };
    assert_eq!(planned(&most, &[step(HubTerms { fee_base: 1, ..free })]).unwrap().amount, AMOUNT_MAX);
    assert_eq!(planned(&most, &[step(HubTerms { fee_base: 2, ..free })]), Err(Code::HubRoute));
}

#[test]
fn an_invoice_has_a_form() {
    let good = HubInvoice {
        network_id: 1,
        payee: vec![1; 32].into(),
        channel: vec![2; 32].into(),
        amount: 1,
        secret_hash: vec![3; 32].into(),
        expires_ms: 4,
        memo: "x".repeat(MEMO_BYTES_MAX),
    };
    let read = |invoice: &HubInvoice| read_invoice(&invoice.encode_to_vec().into()).map_err(|e| e.code);
    assert_eq!(read(&good), Ok(good.clone()));
    let most = HubInvoice { amount: AMOUNT_MAX, memo: String::new(), ..good.clone() };
    assert_eq!(read(&most), Ok(most.clone()));
    let short = || Bytes::from_static(&[1; 31]);
    for (bad, code) in [
        (HubInvoice { amount: 0, ..good.clone() }, Code::BadAmount),
        (HubInvoice { amount: AMOUNT_MAX + 1, ..good.clone() }, Code::BadAmount),
        (HubInvoice { memo: "x".repeat(MEMO_BYTES_MAX + 1), ..good.clone() }, Code::Limit),
        (HubInvoice { payee: short(), ..good.clone() }, Code::BadContent),
        (HubInvoice { channel: short(), ..good.clone() }, Code::BadContent),
        (HubInvoice { secret_hash: short(), ..good }, Code::BadContent),
    ] {
        assert_eq!(read(&bad), Err(code));
    }
}

/// Alice as she likes: a voucher of hers in the first channel.
fn alices(line: &Line, change: impl FnOnce(&mut wire::Voucher)) -> wire::SignedVoucher {
    let end = line.links[0].0;
    let mut terms = wire::Voucher {
        channel: end.channel.to_vec().into(),
        nonce: 1,
        amount: 1_002,
        not_after_ms: START + HOUR + 1_800_000,
        secret_hash: vec![5; 32].into(),
        ..Default::default()
    };
    change(&mut terms);
    Voucher::sign(terms, end.side, &[&line.world.nodes[ALICE].key.0]).signed()
}

/// What the hub says to an offer, and that it keeps nothing of what it refuses outright.
fn offered(line: &mut Line, offer: wire::HubOffer) -> Result<Vec<Kind>, Code> {
    let end: EndId = line.links[0].1;
    let message = Box::new(wire::HubMessage { channel: end.channel.to_vec().into(), kind: Some(Kind::Offer(offer)) });
    line.world.nodes[HUB].effects.clear();
    let journal = line.world.nodes[HUB].journal.len();
    if let Err(e) = line.world.ask(HUB, Input::Message { end, message }) {
        assert_eq!(line.world.nodes[HUB].journal.len(), journal);
        return Err(e.code);
    }
    let said = line.world.nodes[HUB].effects.iter().filter_map(|effect| match effect {
        Effect::Send { message, .. } => message.kind.clone(),
        _ => None,
    });
    Ok(said.collect())
}

fn refused_with(said: Result<Vec<Kind>, Code>) -> (Code, bool) {
    match &said.unwrap()[..] {
        [Kind::Refused(refused)] => (Code::from_number(refused.code).unwrap(), refused.voucher.is_some()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_offer_is_a_plain_hash_lock_of_the_other_side() {
    let mut line = Line::new(Policy::default());
    let merges = vec![wire::LaneMerge { lane: 3, nonce: 4 }];
    let virtuals = Some(wire::VirtualSet { root: vec![1; 32].into(), count: 1 });
    let bad: [&dyn Fn(&mut wire::Voucher); 6] = [
        &|terms| terms.payer = 1,
        &|terms| terms.secret_hash = Bytes::new(),
        &|terms| terms.not_after_ms = 0,
        &|terms| terms.not_before_ms = 1,
        &|terms| terms.merges = merges.clone(),
        &|terms| terms.virtuals = virtuals.clone(),
    ];
    for change in bad {
        let voucher = Some(alices(&line, change));
        let said = offered(&mut line, wire::HubOffer { voucher, ..Default::default() });
        assert_eq!(said, Err(Code::LockTerms));
    }
    assert_eq!(offered(&mut line, wire::HubOffer::default()), Err(Code::BadContent));
    // A good one is given back, for nothing is to be paid with it here.
    let voucher = Some(alices(&line, |_| ()));
    let said = offered(&mut line, wire::HubOffer { voucher: voucher.clone(), ..Default::default() });
    assert_eq!(refused_with(said), (Code::InvoiceUnknown, true));
    // One that is told before what the two hold was compared, is not judged.
    line.world.restart(HUB, 0);
    line.world.ask(HUB, Input::Connected(line.links[0].1, 90)).unwrap();
    assert_eq!(offered(&mut line, wire::HubOffer { voucher, ..Default::default() }), Err(Code::HubOffline));
}

#[test]
fn an_up_front_fee_is_money_at_once_on_a_lane_of_its_own() {
    let terms = HubTerms { upfront: 3, ..Policy::default().terms };
    let hop = |line: &Line| HubHop {
        channel: line.links[1].0.channel.to_vec().into(),
        amount: 1_000,
        not_after_ms: START + HOUR,
        ..Default::default()
    };
    let plain = |terms: &mut wire::Voucher| (terms.secret_hash, terms.not_after_ms) = (Bytes::new(), 0);
    let with_fee = |change: &dyn Fn(&mut wire::Voucher)| {
        let mut line = Line::new(Policy { terms, ..Policy::default() });
        // A lock is in flight on lane 4.
        line.world.nodes[BOB].mute = true;
        let first = alices(&line, |terms| (terms.lane, terms.amount) = (4, 1_000));
        let fee = alices(&line, |terms| {
            plain(terms);
            (terms.lane, terms.amount) = (9, 3);
        });
        let hops = vec![HubHop { amount: 998, ..hop(&line) }];
        offered(&mut line, wire::HubOffer { voucher: Some(first), fee: Some(fee), hops }).unwrap();
        assert_eq!(line.world.nodes[HUB].hub.in_flight(), (1, 1));
        let fee = alices(&line, |terms| {
            plain(terms);
            (terms.lane, terms.amount) = (1, 3);
            change(terms);
        });
        let offer = wire::HubOffer { voucher: Some(alices(&line, |_| ())), fee: Some(fee), hops: vec![hop(&line)] };
        let said = offered(&mut line, offer).unwrap();
        let refused = said.iter().find_map(|kind| match kind {
            Kind::Refused(refused) => Code::from_number(refused.code),
            _ => None,
        });
        let locks = line.world.nodes[HUB].hub.locks(&line.links[0].1).len();
        let received = line.world.status(HUB, &line.links[0].1).voucher_redeemed;
        let credits = line.world.nodes[HUB].journal.iter().flat_map(|group| &group.entries).filter(|entry| {
            let Some(wire::hub_entry::Kind::Hub(record)) = &entry.kind else { return false };
            matches!(record.kind, Some(wire::hub_record::Kind::Credit(_)))
        });
        let kept = 1 + usize::from(received > 3);
        assert_eq!(credits.count(), kept, "a fee that brings nothing leaves no trace");
        let locked_in = line.world.status(HUB, &line.links[0].1).locked_in;
        (refused, locks, received, locked_in)
    };
    // Taken: two locks are in hand, and two fees.
    assert_eq!(with_fee(&|_| ()), (None, 2, 6, 2_002));
    assert_eq!(with_fee(&|terms| (terms.lane, terms.nonce, terms.amount) = (9, 2, 6)), (None, 2, 6, 2_002));
    let short = |received| (Some(Code::HubFee), 1, received, 1_000);
    assert_eq!(with_fee(&|terms| terms.amount = 2), short(5), "kept, and it counts for the next lock");
    assert_eq!(with_fee(&|terms| (terms.lane, terms.nonce, terms.amount) = (9, 2, 5)), short(5));
    // An old one brings nothing, nor does one under a secret or a time limit.
    assert_eq!(with_fee(&|terms| terms.lane = 9), short(3));
    assert_eq!(with_fee(&|terms| terms.secret_hash = vec![5; 32].into()), short(3));
    assert_eq!(with_fee(&|terms| terms.not_after_ms = START + HOUR).0, Some(Code::HubFee));
    let locked = |terms: &mut wire::Voucher| {
        (terms.secret_hash, terms.not_after_ms) = (vec![5; 32].into(), START + HOUR);
    };
    assert_eq!(with_fee(&locked), short(3));
    // One on the lane of a lock would pay that lock.
    assert_eq!(with_fee(&|terms| (terms.lane, terms.nonce, terms.amount) = (4, 2, 1_003)), short(3));
    assert_eq!(with_fee(&|terms| (terms.lane, terms.nonce) = (0, 2)), short(3));
    assert_eq!(with_fee(&|terms| terms.channel = vec![8; 32].into()), short(3));
}
