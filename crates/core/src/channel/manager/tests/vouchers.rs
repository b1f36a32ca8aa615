//! Vouchers out and in.

use bytes::Bytes;

use super::world::*;
use crate::channel::manager::{Added, Conditions, Incoming, Input, Issue, Reply, Use, Validity, VoucherState};
use crate::channel::voucher::Voucher;
use crate::error::Code;
use crate::limits::VOUCHER_NONCE_MAX;
use crate::wire;

fn decoded(voucher: &wire::SignedVoucher) -> Voucher {
    Voucher::decode(voucher).unwrap()
}

#[test]
fn nonces_count_up_and_only_the_increase_is_new() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    let first = decoded(&world.pay(end, 3, 10)).terms;
    let second = decoded(&world.pay(end, 3, 25)).terms;
    assert_eq!((first.nonce, first.amount, second.nonce, second.amount), (1, 10, 2, 25));
    assert_eq!(world.status(ALICE, &end).committed, 25);
    let same = Issue { end, lane: 3, amount: 25, conditions: Conditions::default() };
    assert_eq!(world.code(ALICE, Input::VoucherCreate(same)), Code::VoucherNotAbove);
    // The next lane moves past the voucher's.
    assert_eq!(world.ask(ALICE, Input::AllocateLane(end)).unwrap(), Reply::Lane(4));
}

#[test]
fn an_allocated_lane_is_never_given_again() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    assert_eq!(world.ask(ALICE, Input::AllocateLane(end)).unwrap(), Reply::Lane(0));
    world.crash(ALICE);
    assert_eq!(world.ask(ALICE, Input::AllocateLane(end)).unwrap(), Reply::Lane(1));
}

#[test]
fn short_funds_give_no_voucher_and_the_shortfall_counts_the_lanes_own_reservation() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    world.reserve(end, 60, Use::Lane(0));
    world.reserve(end, 20, Use::Named);
    let issue = |lane, amount| Issue { end, lane, amount, conditions: Conditions::default() };
    assert_eq!(world.issue(ALICE, issue(0, 100)), Err(20));
    assert_eq!(world.issue(ALICE, issue(1, 100)), Err(80));
    assert_eq!(world.status(ALICE, &end).committed, 0);
    world.issue(ALICE, issue(0, 70)).unwrap();
    let status = world.status(ALICE, &end);
    assert_eq!((status.reserved, status.available, status.committed), (20, 10, 70));
}

#[test]
fn a_voucher_uses_up_its_lanes_reservation() {
    let mut world = World::new();
    let (end, _) = world.channel(100);
    let reservation = world.reserve(end, 50, Use::Lane(0)).0;
    world.pay(end, 0, 30);
    assert_eq!(world.status(ALICE, &end).reserved, 20);
    world.pay(end, 1, 10);
    assert_eq!(world.status(ALICE, &end).reserved, 20, "another lane's voucher leaves it alone");
    assert_eq!(world.ask(ALICE, Input::Release { end, reservation }).unwrap(), Reply::Released(20));
    assert_eq!(world.status(ALICE, &end).available, 60);
}

#[test]
fn a_stored_voucher_gives_its_increase_and_the_same_again_nothing() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let (first, second) = (world.pay(end, 0, 10), world.pay(end, 0, 25));
    assert_eq!(world.take(BOB, bobs, &first).unwrap(), Added { delta: 10, locked: false });
    assert_eq!(world.take(BOB, bobs, &first).unwrap(), Added { delta: 0, locked: false });
    assert_eq!(world.take(BOB, bobs, &second).unwrap(), Added { delta: 15, locked: false });
    assert_eq!(world.take(BOB, bobs, &first).unwrap().delta, 0, "a superseded one is known as well");
    assert_eq!(world.status(BOB, &bobs).voucher_redeemed, 25);
    let third = world.pay(end, 0, 30);
    let asked = Incoming { min_delta: 6, ..incoming(bobs, &third) };
    assert_eq!(world.code(BOB, Input::VoucherAdd(asked.clone())), Code::VoucherDelta);
    let enough = Incoming { min_delta: 5, ..asked };
    world.ask(BOB, Input::VoucherAdd(enough)).unwrap();
}

#[test]
fn checking_a_voucher_only_reads() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let voucher = world.pay(end, 0, 10);
    let (records, now) = (world.wallets[BOB].journal.len(), world.now());
    let check = |world: &World, wallet: usize, at| world.wallets[wallet].manager.voucher_check_valid(now, at, &voucher);
    assert_eq!(check(&world, BOB, bobs).unwrap(), Validity::New(10));
    assert_eq!(check(&world, BOB, bobs).unwrap(), Validity::New(10));
    assert_eq!(check(&world, ALICE, end).unwrap(), Validity::AlreadyKnown);
    assert_eq!(world.wallets[BOB].journal.len(), records);
    world.take(BOB, bobs, &voucher).unwrap();
    assert_eq!(check(&world, BOB, bobs).unwrap(), Validity::AlreadyKnown);
}

#[test]
fn vouchers_that_the_log_would_refuse_are_refused() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let (other, _) = world.channel(100);
    let good = world.pay(end, 0, 10);
    world.take(BOB, bobs, &good).unwrap();
    let terms = decoded(&good).terms;
    let (key, mallory) = (account(1).0, account(3).0);
    let signed = |terms: wire::Voucher| Voucher::sign(terms, 0, &[&key]).signed();
    let next = wire::Voucher { nonce: 2, amount: 20, ..terms.clone() };
    let mut unsigned = signed(next.clone());
    unsigned.signatures.clear();
    // The last moment that leaves half a minute to redeem it, and one later.
    let soon = world.chain.now + 600_000;
    let timed = |before| wire::Voucher { not_before_ms: soon - before, not_after_ms: soon, ..next.clone() };
    let merges = vec![wire::LaneMerge { lane: 1, nonce: 1 }];
    let cases = [
        (
            signed(wire::Voucher { channel: Bytes::copy_from_slice(&other.channel), ..next.clone() }),
            Code::VoucherChannel,
        ),
        (unsigned, Code::VoucherUnsigned),
        (Voucher::sign(next.clone(), 0, &[&mallory]).signed(), Code::KeyMismatch),
        (Voucher::sign(next.clone(), 1, &[&key]).signed(), Code::VoucherSigner),
        (signed(wire::Voucher { payer: 1, ..next.clone() }), Code::ChannelOneWay),
        (signed(wire::Voucher { nonce: 1, amount: 20, ..terms.clone() }), Code::VoucherNonce),
        (signed(wire::Voucher { amount: 10, ..next.clone() }), Code::VoucherNotAbove),
        (signed(wire::Voucher { amount: 9, ..next.clone() }), Code::VoucherNotAbove),
        (signed(wire::Voucher { amount: 101, ..next.clone() }), Code::ChannelFunds),
        (signed(wire::Voucher { lane: 1, amount: 91, ..next.clone() }), Code::ChannelFunds),
        (signed(wire::Voucher { lane: 1_024, ..next.clone() }), Code::VoucherLane),
        (signed(wire::Voucher { lane: u32::MAX, ..next.clone() }), Code::VoucherLane),
        (signed(wire::Voucher { amount: u64::MAX, ..next.clone() }), Code::VoucherAmount),
        (signed(wire::Voucher { nonce: VOUCHER_NONCE_MAX + 1, ..next.clone() }), Code::VoucherNonce),
        (signed(wire::Voucher { nonce: u64::MAX, ..next.clone() }), Code::VoucherNonce),
        (signed(wire::Voucher { merges, ..next.clone() }), Code::VoucherMerges),
        (signed(wire::Voucher { not_after_ms: world.chain.now - 1, ..next.clone() }), Code::LockTerms),
        (signed(wire::Voucher { not_after_ms: world.chain.now + DELAY, ..next.clone() }), Code::LockTerms),
        (signed(wire::Voucher { not_before_ms: world.chain.now + DELAY, ..next.clone() }), Code::LockTerms),
        (signed(timed(30_000 - 1)), Code::LockTerms),
        (signed(timed(0)), Code::LockTerms),
    ];
    let before = world.status(BOB, &bobs);
    let many: Vec<Incoming> = cases.iter().map(|(voucher, _)| incoming(bobs, voucher)).collect();
    for (voucher, code) in &cases {
        let found = world.code(BOB, Input::VoucherAdd(incoming(bobs, voucher)));
        // An own signature is looked at no further.
        let expected = if voucher.signer == 1 { Code::KeyMismatch } else { *code };
        assert_eq!(found, expected);
    }
    let Reply::AddedMany(found) = world.ask(BOB, Input::VoucherAddMany(many)).unwrap() else { panic!() };
    for (found, (voucher, code)) in found.into_iter().zip(&cases) {
        let expected = if voucher.signer == 1 { Code::KeyMismatch } else { *code };
        assert_eq!(found.unwrap_err().code, expected, "the same as alone");
    }
    let proof = Incoming { proof: "p".into(), ..incoming(bobs, &signed(next.clone())) };
    assert_eq!(world.code(BOB, Input::VoucherAdd(proof)), Code::ProofRefused);
    assert_eq!(world.status(BOB, &bobs), before, "nothing of it has changed anything");
    world.take(BOB, bobs, &signed(timed(30_000))).unwrap();
}

#[test]
fn many_vouchers_are_verified_together_and_each_counts_by_itself() {
    let mut world = World::new();
    let (end, bobs) = world.channel(1_000);
    let mut vouchers: Vec<_> = (1..=50).map(|n| world.pay(end, n % 5, u64::from(n) * 3)).collect();
    let good = vouchers[20].clone();
    vouchers[20].signatures[0] = vouchers[21].signatures[0].clone();
    let many = vouchers.iter().map(|voucher| incoming(bobs, voucher)).collect();
    let Reply::AddedMany(added) = world.ask(BOB, Input::VoucherAddMany(many)).unwrap() else { panic!() };
    assert_eq!(added.len(), 50);
    let bad: Vec<usize> = (0..50).filter(|at| added[*at].is_err()).collect();
    assert_eq!(bad, [20]);
    assert_eq!(added[20].as_ref().unwrap_err().code, Code::KeyMismatch);
    let expected = world.status(ALICE, &end).committed;
    assert_eq!(world.status(BOB, &bobs).voucher_redeemed, expected);
    // A later one of its lane came with it.
    assert_eq!(world.code(BOB, Input::VoucherAdd(incoming(bobs, &good))), Code::VoucherNonce);
}

#[test]
fn submit_marks_a_voucher_and_all_before_it_and_refuses_the_second_time() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let vouchers: Vec<_> = (1..=3).map(|n| world.pay(end, 0, n * 10)).collect();
    for voucher in &vouchers {
        world.take(BOB, bobs, voucher).unwrap();
    }
    let submit = |n: usize| Input::VoucherSubmit { voucher: incoming(bobs, &vouchers[n]) };
    let op = op(world.ask(BOB, submit(1)).unwrap());
    let states = |world: &World| -> Vec<VoucherState> {
        let listed = world.wallets[BOB].manager.voucher_list(&bobs, None, 10).unwrap();
        listed.iter().map(|one| one.state).collect()
    };
    use VoucherState::{Redeemed, Stored, SubmitPending};
    assert_eq!(states(&world), [SubmitPending, SubmitPending, Stored]);
    assert_eq!(world.code(BOB, submit(0)), Code::VoucherSubmitted);
    assert_eq!(world.code(BOB, submit(1)), Code::VoucherSubmitted);
    world.run();
    assert_eq!(world.state(BOB, op), crate::channel::manager::OpState::Confirmed);
    assert_eq!(states(&world), [Redeemed, Redeemed, Stored]);
    assert_eq!(world.code(BOB, submit(1)), Code::VoucherSubmitted);
    world.ask(BOB, submit(2)).unwrap();
    world.run();
    assert_eq!(world.chain.channels[&end.channel].opener.as_ref().unwrap().sent, 30);
}

#[test]
fn submitted_marks_are_taken_back_when_the_message_fails() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let voucher = world.pay(end, 0, 10);
    world.chain.refuse = vec![Code::Busy];
    // One that is new is stored on the way.
    world.ask(BOB, Input::VoucherSubmit { voucher: incoming(bobs, &voucher) }).unwrap();
    world.run();
    let listed = world.wallets[BOB].manager.voucher_list(&bobs, None, 10).unwrap();
    assert_eq!(listed[0].state, VoucherState::Stored);
    world.ask(BOB, Input::VoucherSubmit { voucher: incoming(bobs, &voucher) }).unwrap();
    world.run();
    assert_eq!(world.status(BOB, &bobs).confirmed, 10);
}

#[test]
fn the_voucher_list_has_pages() {
    let mut world = World::new();
    let (end, bobs) = world.channel(1_000);
    for n in 1..=10 {
        let voucher = world.pay(end, (n % 3) as u32, n * 10);
        world.take(BOB, bobs, &voucher).unwrap();
    }
    for (wallet, at) in [(ALICE, end), (BOB, bobs)] {
        let manager = &world.wallets[wallet].manager;
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = manager.voucher_list(&at, after, 3).unwrap();
            let Some(last) = page.last() else { break };
            after = Some((last.payer, last.lane, last.nonce));
            all.extend(page);
        }
        assert_eq!(all.len(), 10);
        assert!(all.is_sorted_by_key(|one| (one.lane, one.nonce)));
        assert_eq!(all.iter().filter(|one| !one.superseded).count(), 3);
    }
}

#[test]
fn a_two_way_channel_nets_what_both_have_signed() {
    let mut world = World::new();
    let (end, bobs) = world.open(100, true);
    let voucher = world.pay(end, 0, 100);
    world.take(BOB, bobs, &voucher).unwrap();
    // Bob has paid nothing in, and pays with what he was paid.
    assert_eq!(world.status(BOB, &bobs).available, 100);
    let back = world.issue(BOB, Issue { end: bobs, lane: 0, amount: 40, conditions: Conditions::default() }).unwrap();
    assert_eq!(world.take(ALICE, end, &back).unwrap().delta, 40);
    let more = Issue { end: bobs, lane: 0, amount: 101, conditions: Conditions::default() };
    assert_eq!(world.issue(BOB, more), Err(1));
    let again = world.pay(end, 0, 140);
    world.take(BOB, bobs, &again).unwrap();
    assert_eq!((world.status(ALICE, &end).available, world.status(BOB, &bobs).available), (0, 100));
    world.ask(BOB, Input::Settle(bobs)).unwrap();
    world.run();
    world.pass(DELAY);
    world.ask(BOB, Input::Collect(bobs)).unwrap();
    world.run();
    assert_eq!((world.paid_out(1), world.paid_out(2)), (0, 100));
}

#[test]
fn spendable_means_that_the_log_would_take_it_with_this_secret() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let voucher = world.lock(end, 0, 10, b"secret", DELAY / 2);
    let now = world.now();
    let manager = &world.wallets[BOB].manager;
    let spendable = |secret: &[u8]| manager.voucher_check_spendable(now, bobs, &voucher, secret, &[]);
    assert!(spendable(b"secret").unwrap());
    assert!(!spendable(b"").unwrap());
    assert!(!spendable(b"another").unwrap());
    let proof = manager.voucher_check_spendable(now, bobs, &voucher, b"secret", b"proof").unwrap_err();
    assert_eq!(proof.code, Code::ProofRefused);
}

#[test]
fn one_allocated_record_a_voucher_is_all_that_is_written() {
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let before = [ALICE, BOB].map(|at| world.wallets[at].journal.len());
    for n in 1..=20 {
        let voucher = world.pay(end, 0, n);
        world.take(BOB, bobs, &voucher).unwrap();
    }
    let after = [ALICE, BOB].map(|at| world.wallets[at].journal.len());
    assert_eq!((after[0] - before[0], after[1] - before[1]), (20, 20));
}
