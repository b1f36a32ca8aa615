//! Absent, crashing, silent and cheating parties.

use super::world::*;
use crate::channel::hub::{Effect, Event, Input, PaymentState, Policy};
use crate::channel::manager::{self, Conditions, Issue};
use crate::error::Code;
use crate::wire::HubMessage;
use crate::wire::hub_message::Kind;

fn is_paid(line: &Line, payment: u64) -> bool {
    matches!(line.world.state(ALICE, payment), PaymentState::Paid(_))
}

/// A payment of 1,000 while messages of some kind are lost, until all its locks are over.
fn with_losses(lose: fn(&HubMessage) -> bool) -> (Line, u64) {
    let mut line = Line::new(Policy::default());
    line.world.lose = lose;
    let (payment, _) = line.start(1_000);
    line.world.run();
    line.world.pass_all();
    (line, payment)
}

fn offer(message: &HubMessage) -> bool {
    matches!(message.kind, Some(Kind::Offer(_)))
}

fn secret(message: &HubMessage) -> bool {
    matches!(message.kind, Some(Kind::Secret(_)))
}

fn paid(message: &HubMessage) -> bool {
    matches!(message.kind, Some(Kind::Paid(_)))
}

#[test]
fn a_lock_that_never_arrives_expires_and_nobody_has_lost_anything() {
    let (mut line, payment) = with_losses(offer);
    assert_eq!(line.world.failed_with(ALICE, payment), Code::LockOver);
    assert_eq!(line.world.wind_up(), [FUNDS, FUNDS, 0]);
}

#[test]
fn a_lock_that_the_hub_can_not_hand_over_expires_downstream_first() {
    let mut line = Line::new(Policy::default());
    line.world.nodes[HUB].mute = true;
    let (payment, _) = line.start(1_000);
    line.world.run();
    let until = |line: &Line, node: usize| line.world.nodes[node].hub.outs.values().map(|out| out.not_after_ms).max();
    let (first, second) = (until(&line, ALICE).unwrap(), until(&line, HUB).unwrap());
    assert!(first - second >= line.world.nodes[HUB].config.margin_ms());
    line.world.nodes[HUB].mute = false;
    line.world.log.now = second;
    line.world.poll();
    line.world.run();
    assert_eq!(line.world.state(ALICE, payment), PaymentState::InFlight, "its last moment is not over");
    line.world.log.now = second + 1;
    line.world.poll();
    line.world.run();
    assert_eq!(line.world.failed_with(ALICE, payment), Code::LockOver, "given back long before its own time");
    assert_eq!(line.world.wind_up(), [FUNDS, FUNDS, 0]);
}

#[test]
fn a_payee_that_is_not_heard_redeems_in_the_log_and_so_does_the_hub() {
    // No secret and no payment for good ever arrives: all goes through the log.
    let (mut line, payment) = with_losses(|message| secret(message) || paid(message));
    assert!(is_paid(&line, payment), "the secret shows in the log");
    for (_, end) in line.links.clone() {
        let lanes = &line.world.log.channels[&end.channel].lanes;
        assert!(lanes.iter().any(|lane| !lane.secret.is_empty()), "redeemed with the secret");
    }
    assert_eq!(line.world.paid_events(BOB), 1);
    assert_eq!(line.world.wind_up(), [FUNDS - 1_002, FUNDS + 2, 1_000]);
}

#[test]
fn a_payer_that_never_pays_for_good_is_redeemed_before_the_limit() {
    let mut line = Line::new(Policy::default());
    let (payment, _) = line.start(1_000);
    while !line.world.mail.iter().any(|(_, _, message)| offer(message)) {
        line.world.step(ALICE);
    }
    line.world.nodes[ALICE].mute = true;
    line.world.run();
    let hub = &line.world.nodes[HUB];
    assert_eq!((hub.hub.ins.len(), hub.hub.outs.len()), (1, 0), "Bob is paid, Alice's lock is claimed");
    line.world.pass_all();
    assert!(is_paid(&line, payment));
    assert_eq!(line.world.wind_up(), [FUNDS - 1_002, FUNDS + 2, 1_000]);
}

#[test]
fn a_known_secret_is_claimed_before_the_hub_may_be_away_for_its_grace() {
    let mut line = Line::new(Policy::default());
    let (payment, _) = line.start(1_000);
    while !line.world.mail.iter().any(|(_, _, message)| offer(message)) {
        line.world.step(ALICE);
    }
    line.world.nodes[ALICE].mute = true;
    line.world.run();
    let hub = &line.world.nodes[HUB];
    let limit = hub.hub.ins.values().next().unwrap().not_after_ms;
    let last = limit - hub.config.policy.grace_ms - hub.config.claim_ms();
    let channel = line.links[0].0.channel;
    for (now, claimed) in [(last - 1, 0), (last, 1)] {
        line.world.log.now = now;
        line.world.poll();
        line.world.run();
        assert_eq!(line.world.log.channels[&channel].lanes.len(), claimed, "as late as is safe");
    }
    line.world.nodes[HUB].down = true;
    line.world.log.now = limit + 1;
    line.world.poll();
    line.world.nodes[HUB].down = false;
    line.world.pass_all();
    assert!(is_paid(&line, payment));
    assert_eq!(line.world.wind_up(), [FUNDS - 1_002, FUNDS + 2, 1_000]);
}

#[test]
fn a_secret_that_comes_after_the_limit_is_worth_nothing() {
    let mut line = Line::new(Policy::default());
    line.world.lose = secret;
    let (payment, _) = line.start(1_000);
    line.world.run();
    // Bob sleeps through his limit.
    line.world.nodes[BOB].down = true;
    line.world.pass_all();
    assert_eq!(line.world.failed_with(ALICE, payment), Code::LockOver);
    line.world.nodes[BOB].down = false;
    line.world.lose = |_| false;
    line.world.connect_all();
    assert_eq!(line.world.paid_events(BOB), 0);
    assert_eq!(line.world.wind_up(), [FUNDS, FUNDS, 0]);
}

#[test]
fn a_payee_that_redeems_at_the_last_moment_leaves_the_hub_its_margin() {
    let mut line = Line::new(Policy::default());
    line.world.lose = secret;
    let (payment, _) = line.start(1_000);
    line.world.run();
    let limit = line.world.nodes[HUB].hub.outs.values().next().unwrap().not_after_ms;
    line.world.nodes[HUB].down = true;
    line.world.log.now = limit;
    line.world.poll();
    line.world.run();
    assert!(line.world.log.channels[&line.links[1].0.channel].lanes.iter().any(|lane| lane.redeemed == 1_000));
    // The hub is back at the end of its grace.
    line.world.log.now = limit + line.world.nodes[HUB].config.policy.grace_ms;
    line.world.nodes[HUB].down = false;
    line.world.poll();
    line.world.run();
    line.world.pass_all();
    assert!(is_paid(&line, payment));
    assert_eq!(line.world.wind_up(), [FUNDS - 1_002, FUNDS + 2, 1_000]);
}

#[test]
fn a_payee_that_redeems_what_it_gave_back_is_answered_in_the_log() {
    let mut line = Line::new(Policy::default());
    let (invoice, _) = line.invoice(1_000);
    let pay = line.plan(&invoice);
    line.world.restart(BOB, 1); // It knows the secret, and refuses all the same.
    line.world.connect_all();
    let payment = line.world.pay(ALICE, pay);
    let mut lock = None;
    for _ in 0..100 {
        for node in [ALICE, HUB, BOB] {
            while line.world.step(node) {}
        }
        if let Some((_, _, message)) = line.world.mail.iter().find(|(to, _, message)| *to == BOB && offer(message))
            && let Some(Kind::Offer(offer)) = &message.kind
        {
            lock = offer.voucher.clone();
        }
        if !line.world.mail.is_empty() {
            line.world.deliver(0);
        }
    }
    assert_eq!(line.world.failed_with(ALICE, payment), Code::InvoiceUnknown);
    let voucher = crate::channel::voucher::Voucher::decode(&lock.unwrap()).unwrap();
    let channel = line.links[1].0.channel;
    let record = line.world.log.channels.get_mut(&channel).unwrap();
    let secret: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(1u64.to_be_bytes()).into();
    let at = crate::channel::rules::At { channel: &channel, side: 1, now_ms: line.world.log.now, verify: true };
    crate::channel::rules::redeem(record, &voucher, &secret, at).unwrap();
    record.revision += 1;
    line.world.poll();
    line.world.run();
    assert_eq!(line.world.log.channels[&channel].lanes[0].redeemed, 0, "taken back with Bob's own signature");
    assert_eq!(line.world.wind_up(), [FUNDS, FUNDS, 0]);
}

#[test]
fn a_settle_at_any_time_does_not_rob_the_hub() {
    for who in [ALICE, HUB, BOB] {
        for link in 0..2 {
            let mut line = Line::new(Policy::default());
            line.world.lose = |message| secret(message) || paid(message);
            let (payment, _) = line.start(1_000);
            line.world.run();
            let (from, to) = line.links[link];
            let end = if who == link { from } else { to };
            if who != link && who != link + 1 {
                continue;
            }
            line.world.channel(who, manager::Input::Settle(end)).unwrap();
            line.world.run();
            line.world.pass_all();
            assert!(is_paid(&line, payment), "{who} settles {link}");
            assert_eq!(line.world.wind_up(), [FUNDS - 1_002, FUNDS + 2, 1_000]);
        }
    }
}

#[test]
fn messages_that_come_twice_change_nothing() {
    let mut line = Line::new(Policy::default());
    let (payment, _) = line.start(1_000);
    for _ in 0..200 {
        for node in [ALICE, HUB, BOB] {
            while line.world.step(node) {}
        }
        if line.world.mail.is_empty() {
            break;
        }
        let again = line.world.mail[0].clone();
        line.world.deliver(0);
        let journals: Vec<usize> = line.world.nodes.iter().map(|node| node.journal.len()).collect();
        let of = again.0;
        line.world.nodes[of].sync();
        let before = line.world.nodes[of].journal.len();
        let now = line.world.now();
        let _ = line.world.nodes[of].handle(now, Input::Message { end: again.1, message: again.2 });
        line.world.nodes[of].sync();
        assert_eq!(line.world.nodes[of].journal.len(), before, "{journals:?}");
    }
    assert!(is_paid(&line, payment));
    assert_eq!(line.world.wind_up(), [FUNDS - 1_002, FUNDS + 2, 1_000]);
}

/// Runs a payment and restarts a wallet after `steps` steps, with what it has not synced lost; then all connect anew.
fn crash(who: usize, steps: usize) -> bool {
    let mut line = Line::new(Policy::default());
    let (payment, _) = line.start(1_000);
    let mut left = steps;
    'steps: loop {
        let mut busy = false;
        for node in [ALICE, HUB, BOB] {
            while line.world.step(node) {
                busy = true;
                left = left.saturating_sub(1);
                if left == 0 {
                    break 'steps;
                }
            }
        }
        if !line.world.mail.is_empty() {
            busy = true;
            line.world.deliver(0);
            left = left.saturating_sub(1);
            if left == 0 {
                break 'steps;
            }
        }
        if !busy {
            return false;
        }
    }
    line.world.restart(who, 0);
    line.world.mail.clear();
    line.world.connect_all();
    assert!(is_paid(&line, payment), "{who} restarted after {steps} steps");
    for node in &line.world.nodes {
        assert_eq!(node.hub.in_flight(), (0, 0), "{who} restarted after {steps} steps");
    }
    assert_eq!(line.world.paid_events(BOB).min(1), line.world.paid_events(BOB));
    assert_eq!(line.world.wind_up(), [FUNDS - 1_002, FUNDS + 2, 1_000], "{who} restarted after {steps} steps");
    true
}

#[test]
fn a_restart_at_any_step_loses_and_doubles_nothing() {
    for who in [ALICE, HUB, BOB] {
        let mut steps = 1;
        while crash(who, steps) {
            steps += 1;
        }
        assert!(steps > 15, "only {steps} steps");
    }
}

#[test]
fn a_hub_from_any_old_backup_signs_nothing_that_it_has_signed_before() {
    let mut line = Line::new(Policy::default());
    let opened = line.world.nodes[HUB].journal.len();
    let (payment, _) = line.start(1_000);
    line.world.run();
    assert!(is_paid(&line, payment));
    let all = line.world.nodes[HUB].journal.clone();
    for kept in opened..all.len() {
        line.world.nodes[HUB].journal = all.clone();
        line.world.restart(HUB, all.len() - kept);
        // Nothing is signed before the others have said what they hold.
        let (invoice, _) = line.invoice(50);
        let pay = line.world.payment(HUB, line.links[1].0, &[], &invoice);
        assert_eq!(line.world.ask(HUB, Input::Pay(pay.clone())).unwrap_err().code, Code::HubOffline);
        line.world.ask(HUB, Input::Connected(line.links[1].0, 0)).unwrap();
        assert_eq!(line.world.ask(HUB, Input::Pay(pay.clone())).unwrap_err().code, Code::HubOffline);
        line.world.nodes[HUB].events.clear();
        line.world.connect_all();
        let end = line.links[1].0;
        let behind = line.world.nodes[HUB].events.contains(&Event::Diverged(end));
        let signed = |node: &Node, nonce| node.manager.kept_voucher(&end, 0, 0, nonce).unwrap().is_some();
        let complete = signed(&line.world.nodes[HUB], 2);
        assert_eq!(behind, kept < all.len() && !behind_is_known(&all[..kept], &all), "{kept} of {}", all.len());
        assert!(complete, "it has the vouchers of the others now");
        let result = line.world.ask(HUB, Input::Pay(pay)).map_err(|e| e.code);
        assert_eq!(result.is_err(), behind, "{kept}: {result:?}");
        line.world.mail.clear();
        // Bob has taken nothing of this try.
        if !behind {
            return;
        }
    }
}

/// Whether these groups have all the vouchers that the hub has signed for Bob.
fn behind_is_known(kept: &[crate::wire::HubGroup], all: &[crate::wire::HubGroup]) -> bool {
    let issued = |groups: &[crate::wire::HubGroup]| {
        let entries = groups.iter().flat_map(|group| &group.entries);
        let issued = entries.filter(|entry| {
            matches!(&entry.kind, Some(crate::wire::hub_entry::Kind::Channel(record))
                if matches!(record.kind, Some(crate::wire::manager_record::Kind::Issued(_))))
        });
        issued.count()
    };
    issued(kept) == issued(all)
}

#[test]
fn a_party_that_only_claims_to_hold_more_is_not_believed_and_not_paid() {
    let mut line = Line::new(Policy::default());
    line.world.restart(HUB, 0);
    let (end, bobs) = line.links[1];
    let channel = bytes::Bytes::copy_from_slice(&end.channel);
    let lanes = vec![crate::wire::HubLane { payer: 0, lane: 3, nonce: 9 }];
    let hello = crate::wire::HubHello { lanes };
    let lie = HubMessage { channel, kind: Some(Kind::Hello(hello)) };
    line.world.ask(HUB, Input::Connected(end, 0)).unwrap();
    line.world.ask(HUB, Input::Message { end, message: Box::new(lie) }).unwrap();
    line.world.run();
    let (invoice, _) = line.world.invoice(BOB, bobs, 50);
    let pay = line.world.payment(HUB, end, &[], &invoice);
    assert_eq!(line.world.ask(HUB, Input::Pay(pay.clone())).unwrap_err().code, Code::HubOffline);
    assert!(!line.world.nodes[HUB].events.contains(&Event::Diverged(end)), "there is no proof");
    line.world.connect(HUB, end);
    line.world.run();
    let payment = line.world.pay(HUB, pay);
    line.world.run();
    assert!(matches!(line.world.state(HUB, payment), PaymentState::Paid(_)));
}

#[test]
fn nothing_is_locked_for_a_party_that_is_about_to_take_money_out() {
    let mut line = Line::new(Policy::default());
    let record = line.world.log.channels.get_mut(&line.links[1].0.channel).unwrap();
    let bob = record.other.as_mut().unwrap();
    (bob.leaving, bob.leaving_at_ms) = (500, START + DELAY);
    record.revision += 1;
    line.world.poll();
    let (payment, _) = line.start(1_000);
    line.world.run();
    assert_eq!(line.world.failed_with(ALICE, payment), Code::ChannelNotOpen);
}

#[test]
fn an_invoice_is_not_paid_twice_by_two_payers() {
    let mut world = World::new(4);
    let funds = [FUNDS, 0];
    let (alices, carols) = (world.open(0, 1, funds, false).0, world.open(2, 1, funds, false).0);
    let (hubs, bobs) = world.open(1, 3, funds, false);
    let (invoice, _) = world.invoice(3, bobs, 1_000);
    let pays = [(0, alices), (2, carols)].map(|(node, end)| (node, world.payment(node, end, &[(1, hubs)], &invoice)));
    let numbers = pays.map(|(node, pay)| (node, world.pay(node, pay)));
    world.run();
    let paid = numbers.iter().filter(|(node, number)| matches!(world.state(*node, *number), PaymentState::Paid(_)));
    assert_eq!(paid.count(), 1);
    assert_eq!(world.paid_events(3), 1);
    assert!(numbers.iter().any(|(node, number)| {
        world.state(*node, *number) != PaymentState::InFlight
            && world.status(*node, &pays_end(*node, alices, carols)).available == FUNDS
    }));
}

fn pays_end(node: usize, alices: manager::EndId, carols: manager::EndId) -> manager::EndId {
    if node == 0 { alices } else { carols }
}

#[test]
fn an_up_front_fee_counts_for_one_lock() {
    let terms = crate::wire::HubTerms { upfront: 5, ..Policy::default().terms };
    let mut line = Line::new(Policy { terms, ..Policy::default() });
    for (upfront, paid) in [(10, true), (0, true), (0, false)] {
        let (invoice, _) = line.invoice(100);
        let mut pay = line.plan(&invoice);
        pay.route.upfront = upfront;
        let payment = line.world.pay(ALICE, pay);
        line.world.run();
        assert_eq!(is_paid(&line, payment), paid, "what was paid too much counts for the next one, once");
    }
}

#[test]
fn a_refusal_without_a_signature_frees_nothing_before_its_time() {
    let mut line = Line::new(Policy::default());
    line.world.nodes[BOB].channels.policy.lock_min = 5_000;
    line.world.restart(BOB, 0);
    line.world.connect_all();
    let (payment, _) = line.start(1_000);
    line.world.run();
    let stuck = |event: &Event| matches!(event, Event::Stuck { code, .. } if *code == Code::LockTerms as u32);
    assert!(line.world.nodes[HUB].events.iter().any(stuck));
    assert_eq!(line.world.state(ALICE, payment), PaymentState::InFlight);
    assert_eq!(line.world.nodes[HUB].hub.in_flight(), (1, 1));
    line.world.pass_all();
    assert_eq!(line.world.failed_with(ALICE, payment), Code::LockOver);
    assert_eq!(line.world.wind_up(), [FUNDS, FUNDS, 0]);
}

#[test]
fn after_a_restart_no_lock_is_given_back_before_vouchers_are_compared() {
    let mut line = Line::new(Policy::default());
    line.world.nodes[BOB].mute = true;
    let (payment, _) = line.start(1_000);
    line.world.lose = |_| true;
    line.world.run();
    line.world.lose = |_| false;
    line.world.nodes[BOB].mute = false;
    // The lock reaches the hub when Alice connects; Bob never hears of it.
    line.world.nodes[HUB].mute = true;
    line.world.connect(ALICE, line.links[0].0);
    line.world.run();
    let limit = line.world.nodes[HUB].hub.outs.values().next().unwrap().not_after_ms;
    line.world.restart(HUB, 0);
    line.world.log.now = limit + 1;
    line.world.poll();
    line.world.run();
    assert_eq!(line.world.nodes[HUB].hub.in_flight(), (0, 1), "nothing is signed for Alice yet");
    line.world.nodes[HUB].mute = false;
    line.world.connect_all();
    assert_eq!(line.world.failed_with(ALICE, payment), Code::LockOver);
    assert_eq!(line.world.nodes[HUB].hub.in_flight(), (0, 0));
    assert_eq!(line.world.wind_up(), [FUNDS, FUNDS, 0]);
}

#[test]
fn the_lane_of_an_expired_lock_rests_until_the_other_side_has_seen_it() {
    let mut line = Line::new(Policy::default());
    line.world.lose = secret;
    let (first, _) = line.start(1_000);
    line.world.run();
    let limit = line.world.nodes[HUB].hub.outs.values().next().unwrap().not_after_ms;
    line.world.nodes[BOB].down = true;
    line.world.log.now = limit + 1;
    line.world.poll();
    line.world.run();
    assert_eq!(line.world.failed_with(ALICE, first), Code::LockOver);
    // Bob is back, and has not looked at the log.
    line.world.nodes[BOB].down = false;
    line.world.lose = |_| false;
    line.world.connect(HUB, line.links[1].0);
    line.world.run();
    let (second, _) = line.start(500);
    line.world.run();
    assert!(is_paid(&line, second));
}

#[test]
fn a_hub_from_an_old_backup_does_not_give_back_what_it_has_passed_on_and_forgotten() {
    let mut line = Line::new(Policy::default());
    let opened = line.world.nodes[HUB].journal.len();
    line.world.lose = |message| secret(message) || paid(message);
    let (payment, _) = line.start(1_000);
    line.world.run();
    assert_eq!(line.world.nodes[HUB].hub.in_flight(), (1, 1));
    let lost = line.world.nodes[HUB].journal.len() - opened;
    line.world.restart(HUB, lost);
    assert_eq!(line.world.nodes[HUB].hub.in_flight(), (0, 0), "forgotten");
    // Alice is there first: her lock is not judged before Bob has shown what he holds.
    line.world.connect(ALICE, line.links[0].0);
    line.world.run();
    assert_eq!(line.world.state(ALICE, payment), PaymentState::InFlight);
    line.world.connect(HUB, line.links[1].0);
    line.world.run();
    assert!(line.world.nodes[HUB].events.contains(&Event::Diverged(line.links[1].0)));
    // Nor by hand.
    let end = line.links[1].0;
    let issue = Issue { end, lane: 9, amount: 1, conditions: Conditions::default() };
    for input in [manager::Input::VoucherCreate(issue), manager::Input::Permit { end, withdrawn: 1, not_after_ms: 0 }] {
        assert_eq!(line.world.channel(HUB, input).unwrap_err().code, Code::HubDiverged);
    }
    assert_eq!(line.world.nodes[HUB].hub.in_flight(), (0, 1), "Alice's lock is kept");
    line.world.pass_all();
    assert!(is_paid(&line, payment), "Bob has redeemed in the log, and so has the hub");
    assert_eq!(line.world.wind_up(), [FUNDS - 1_002, FUNDS + 2, 1_000]);
}

#[test]
fn a_backup_is_told_of_a_lock_that_it_has_forgotten_and_that_is_over() {
    let mut line = Line::new(Policy::default());
    let opened = line.world.nodes[ALICE].journal.len();
    line.world.nodes[BOB].down = true;
    line.start(1_000);
    line.world.run();
    line.world.pass_all();
    assert_eq!(line.world.nodes[HUB].hub.in_flight(), (0, 0), "it has expired");
    let lost = line.world.nodes[ALICE].journal.len() - opened;
    line.world.restart(ALICE, lost);
    line.world.connect(ALICE, line.links[0].0);
    line.world.run();
    let signed_before = Event::Diverged(line.links[0].0);
    assert!(line.world.nodes[ALICE].events.contains(&signed_before), "its nonce is not used again");
}

#[test]
fn a_backup_is_told_of_a_lock_that_it_has_forgotten_and_that_was_redeemed_in_the_log() {
    let mut line = Line::new(Policy::default());
    let opened = line.world.nodes[ALICE].journal.len();
    line.start(1_000);
    while !line.world.mail.iter().any(|(_, _, message)| offer(message)) {
        line.world.step(ALICE);
    }
    line.world.nodes[ALICE].mute = true;
    line.world.run();
    line.world.pass_all();
    line.world.nodes[ALICE].mute = false;
    let lost = line.world.nodes[ALICE].journal.len() - opened;
    line.world.restart(ALICE, lost);
    line.world.connect(ALICE, line.links[0].0);
    line.world.run();
    // It has not looked at the log yet.
    let (invoice, _) = line.invoice(500);
    let pay = line.plan(&invoice);
    let signed = |line: &Line| line.world.nodes[ALICE].manager.out_lane(&line.links[0].0, 0).unwrap().nonce;
    assert_eq!(line.world.ask(ALICE, Input::Pay(pay)).unwrap_err().code, Code::HubOffline);
    assert_eq!(signed(&line), 0, "no nonce is used again");
    line.world.poll();
    line.world.run();
    let told = Event::Diverged(line.links[0].0);
    assert!(line.world.nodes[ALICE].events.contains(&told) || signed(&line) > 0, "the log says it");
}

#[test]
fn a_backup_whose_forgotten_vouchers_cost_more_than_it_has_starts_again() {
    let mut line = Line::new(Policy::default());
    line.world.nodes[BOB].down = true;
    line.start(60_000);
    line.world.run();
    let backup = line.world.nodes[ALICE].journal.len();
    line.world.pass_all();
    line.world.nodes[BOB].down = false;
    line.world.connect_all();
    let (payment, _) = line.start(90_000);
    line.world.run();
    assert!(is_paid(&line, payment));
    let lost = line.world.nodes[ALICE].journal.len() - backup;
    line.world.restart(ALICE, lost);
    line.world.connect(ALICE, line.links[0].0);
    line.world.run();
    assert!(line.world.nodes[ALICE].events.contains(&Event::Diverged(line.links[0].0)));
    let before = line.world.status(ALICE, &line.links[0].0);
    line.world.restart(ALICE, 0);
    assert_eq!(line.world.status(ALICE, &line.links[0].0), before);
}

/// A side that comes back from an old backup takes the first greeting on a connection for what the other side holds now.
#[test]
fn what_is_said_names_the_connection_that_was_there() {
    let mut line = Line::new(Policy::default());
    let (end, now) = (line.links[0].0, line.world.now());
    let said = |line: &mut Line, input: Input| -> Vec<u64> {
        let node = &mut line.world.nodes[ALICE];
        node.handle(now, input).unwrap();
        let effects = node.unsynced.iter().flat_map(|fx| &fx.effects);
        let sends = effects.filter_map(|effect| match effect {
            Effect::Send { connection, .. } => Some(*connection),
            _ => None,
        });
        sends.collect()
    };
    line.world.nodes[ALICE].sync();
    line.world.nodes[ALICE].effects.clear();
    assert_eq!(said(&mut line, Input::Connected(end, 70)), [70]);
    assert_eq!(said(&mut line, Input::Connected(end, 71)), [70, 71], "each greeting for its own connection");
    line.world.nodes[ALICE].sync();
    assert_eq!(said(&mut line, Input::Disconnected(end)), [0_u64; 0]);
}
