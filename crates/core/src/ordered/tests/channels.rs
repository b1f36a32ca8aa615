//! Channels in the log, as both sides and those who would rob them see them.

mod delays;
mod lives;
mod virtuals;

use super::race::rand_order::Rng;
use super::*;
use crate::channel::rules::{self, At};
use crate::channel::voucher::{Voucher, sign_watch, sign_withdraw};
use crate::channel::{OPENER, OTHER, channel_id};
use crate::keys::Curve;
use crate::permission::Permission;
use crate::wire::ChannelRecord;

const DELAY: u64 = 60_000;

struct Open {
    id: [u8; 32],
    sides: [Signer; 2],
}

impl Open {
    fn terms(&self, payer: u32, lane: u32, nonce: u64, amount: u64) -> wire::Voucher {
        let channel = Bytes::copy_from_slice(&self.id);
        wire::Voucher { channel, payer, lane, nonce, amount, ..Default::default() }
    }

    fn sign(&self, terms: wire::Voucher, signer: u32) -> Voucher {
        let keys: Vec<_> = self.sides[signer as usize].keys.iter().collect();
        Voucher::sign(terms, signer, &keys)
    }

    /// A plain voucher, signed by its payer.
    fn voucher(&self, payer: u32, lane: u32, nonce: u64, amount: u64) -> Voucher {
        self.sign(self.terms(payer, lane, nonce, amount), payer)
    }

    fn redeem(&self, vouchers: &[(Voucher, &[u8])]) -> output::Kind {
        let redemptions = vouchers.iter().map(|(v, secret)| redemption(v, secret)).collect();
        output::Kind::ChannelRedeem(wire::ChannelRedeem { redemptions, claims: vec![] })
    }

    fn settle(&self) -> output::Kind {
        output::Kind::ChannelSettle(wire::ChannelSettle { channel: Bytes::copy_from_slice(&self.id) })
    }

    fn collect(&self) -> output::Kind {
        output::Kind::ChannelCollect(wire::ChannelCollect { channel: Bytes::copy_from_slice(&self.id) })
    }

    fn deposit(&self, side: u32, amount: u64) -> output::Kind {
        let channel = Bytes::copy_from_slice(&self.id);
        output::Kind::ChannelDeposit(wire::ChannelDeposit { channel, side, amount })
    }

    fn leave(&self, amount: u64) -> output::Kind {
        output::Kind::ChannelLeave(wire::ChannelLeave { channel: Bytes::copy_from_slice(&self.id), amount })
    }

    fn withdraw(&self, amount: u64, permit: Option<wire::SignedPermit>) -> wire::Input {
        let channel = Bytes::copy_from_slice(&self.id);
        let withdraw = wire::ChannelWithdraw { channel, redemptions: vec![], permit };
        wire::Input { amount, kind: Some(input::Kind::ChannelWithdraw(withdraw)) }
    }

    fn permit(&self, side: u32, withdrawn: u64, not_after_ms: u64) -> wire::SignedPermit {
        let channel = Bytes::copy_from_slice(&self.id);
        let permit = wire::WithdrawPermit { channel, side, withdrawn, not_after_ms };
        sign_withdraw(&permit, &self.sides[1 - side as usize].keys.iter().collect::<Vec<_>>())
    }

    fn record(&self, cluster: &Cluster) -> ChannelRecord {
        let log = &cluster.logs[0];
        let request = wire::ChannelRequest { channel: Bytes::copy_from_slice(&self.id) };
        log.log.channel(&log.state, &request).unwrap().channel.unwrap()
    }
}

fn redemption(voucher: &Voucher, secret: &[u8]) -> wire::Redemption {
    wire::Redemption { voucher: Some(voucher.signed()), secret: Bytes::copy_from_slice(secret), watch: None }
}

fn opening(opener: &Signer, other: &Signer, amount: u64, two_way: bool) -> wire::ChannelOpen {
    wire::ChannelOpen {
        opener: bytes(opener),
        other: bytes(other),
        opener_permission: opener.permission.encode(),
        other_permission: other.permission.encode(),
        delay_ms: DELAY,
        two_way,
        amount,
    }
}

/// Alice and Bob with 1,000 each, and a channel of Alice to Bob.
fn with_channel(amount: u64, two_way: bool) -> (Cluster, Signer, Signer, Open) {
    let (mut cluster, mut alice, bob) = setup(2);
    let order = alice.call(vec![], vec![output::Kind::ChannelOpen(opening(&alice, &bob, amount, two_way))]);
    let id = channel_id(cluster.committee.id(), &id_of(&order), 0);
    cluster.run_ordered(&[order]);
    let open = Open { id, sides: [alice.clone(), bob.clone()] };
    (cluster, alice, bob, open)
}

/// What became of an account's order, at every authority the same.
fn came_to(cluster: &mut Cluster, signer: &Signer, order: Bytes) -> Option<Code> {
    cluster.run_ordered(&[order]);
    let status = cluster.status(0, signer, signer.seqnum);
    for i in 1..4 {
        assert_eq!(cluster.status(i, signer, signer.seqnum), status, "authority {i}");
    }
    match status.state() {
        S::Ordered => None,
        S::Failed => Code::from_number(status.code),
        other => panic!("{other:?}"),
    }
}

/// Clocks are voted again: what was asked for begins.
fn clocks(cluster: &mut Cluster, open: &Open) -> u64 {
    let now = cluster.logs[0].log.book(&cluster.logs[0].state).unwrap().time_ms;
    assert!(cluster.logs[0].log.needs_time(&cluster.logs[0].state).unwrap());
    cluster.set_time(now + 1);
    open.record(cluster).settling_at_ms
}

fn does(cluster: &mut Cluster, signer: &mut Signer, kind: output::Kind) -> Option<Code> {
    let order = signer.call(vec![], vec![kind]);
    came_to(cluster, signer, order)
}

#[test]
fn a_channel_from_its_opening_to_its_collection() {
    let (mut cluster, mut alice, mut bob, open) = with_channel(300, false);
    check(&cluster, &[(&alice, 700), (&bob, 1_000)]);
    assert_eq!(does(&mut cluster, &mut alice, open.deposit(OPENER, 100)), None);
    // Two of a lane and one of another in one order; only what each adds moves.
    let three = open.redeem(&[
        (open.voucher(OPENER, 0, 1, 100), b""),
        (open.voucher(OPENER, 0, 5, 150), b""),
        (open.voucher(OPENER, 7, 0, 50), b""),
    ]);
    assert_eq!(does(&mut cluster, &mut bob, three), None);
    let record = open.record(&cluster);
    assert_eq!((rules::shares(&record), record.opener.unwrap().sent), ([200, 200], 200));
    // The same and an older one again move nothing.
    for nonce in [5, 4] {
        let again = open.redeem(&[(open.voucher(OPENER, 0, nonce, 400), b"")]);
        assert_eq!(does(&mut cluster, &mut bob, again), Some(Code::VoucherNonce));
    }
    assert_eq!(does(&mut cluster, &mut bob, open.collect()), Some(Code::ChannelNotDue));
    assert_eq!(does(&mut cluster, &mut alice, open.settle()), None);
    assert_eq!(does(&mut cluster, &mut bob, open.settle()), Some(Code::ChannelSettling));
    assert_eq!(does(&mut cluster, &mut alice, open.deposit(OPENER, 10)), Some(Code::ChannelSettling));
    check(&cluster, &[(&alice, 600), (&bob, 1_000)]);
    // While it settles vouchers are redeemed; at the last ms before the end, too.
    assert_eq!(does(&mut cluster, &mut bob, open.collect()), Some(Code::ChannelNotDue));
    let due = clocks(&mut cluster, &open);
    assert_eq!(due, 1_001 + DELAY);
    cluster.set_time(due - 1);
    let last = open.redeem(&[(open.voucher(OPENER, 7, 1, 90), b"")]);
    assert_eq!(does(&mut cluster, &mut bob, last), None);
    assert_eq!(does(&mut cluster, &mut alice, open.collect()), Some(Code::ChannelNotDue));
    cluster.set_time(due);
    let late = open.redeem(&[(open.voucher(OPENER, 7, 2, 100), b"")]);
    assert_eq!(does(&mut cluster, &mut bob, late), Some(Code::ChannelOver));
    assert_eq!(does(&mut cluster, &mut bob, open.collect()), None);
    check(&cluster, &[(&alice, 760), (&bob, 1_240)]);
    assert_eq!(does(&mut cluster, &mut bob, open.collect()), Some(Code::ChannelOver));
    assert_eq!(does(&mut cluster, &mut alice, open.deposit(OPENER, 10)), Some(Code::ChannelOver));
    check(&cluster, &[(&alice, 760), (&bob, 1_240)]);
    let request = wire::ChannelsRequest { address: bytes(&bob), ..Default::default() };
    let log = &cluster.logs[2];
    let listed = log.log.channels(&log.state, &request).unwrap().channels;
    assert_eq!(listed.iter().map(|c| c.channel.to_vec()).collect::<Vec<_>>(), [open.id.to_vec()]);
}

/// Each voucher is wrong in one way and in all ways that are looked at later, so the order of the checks shows.
#[test]
fn the_checks_of_a_voucher_in_their_order() {
    let (cluster, _, _, open) = with_channel(300, false);
    let mut record = open.record(&cluster);
    let now = 5_000;
    let at = At { channel: &open.id, side: OTHER, now_ms: now, verify: true };
    for (lane, nonce, amount) in [(0, 5, 40), (1, 5, 30)] {
        rules::redeem(&mut record, &open.voucher(OPENER, lane, nonce, amount), b"", at).unwrap();
    }
    let merge = |lane, nonce| wire::LaneMerge { lane, nonce };
    // The last mistake alone: more than there is. Then one more each, from the last check to the first.
    let mut terms = wire::Voucher { merges: vec![merge(1, 6)], ..open.terms(OPENER, 0, 6, 1_000) };
    let mut secret: &[u8] = b"";
    let mut record = record;
    let mut found = Vec::new();
    let mut seen = |record: &ChannelRecord, voucher: &Voucher, secret: &[u8], at: At<'_>| {
        let before = record.clone();
        let mut after = record.clone();
        found.push(rules::redeem(&mut after, voucher, secret, at).unwrap_err().code);
        assert_eq!(before, after, "an error changes nothing");
    };
    let payer = |terms: &wire::Voucher| open.sign(terms.clone(), OPENER);
    seen(&record, &payer(&terms), secret, at);
    terms.merges[0].nonce = 5;
    seen(&record, &payer(&terms), secret, at);
    terms.merges.insert(0, merge(2, 1));
    seen(&record, &payer(&terms), secret, at);
    terms.merges.insert(0, merge(0, 9));
    seen(&record, &payer(&terms), secret, at);
    terms.nonce = 5;
    seen(&record, &payer(&terms), secret, at);
    terms.lane = 1_024;
    seen(&record, &payer(&terms), secret, at);
    terms.secret_hash = hash(b"another");
    seen(&record, &payer(&terms), secret, at);
    terms.amount = 1 << 63;
    seen(&record, &payer(&terms), secret, at);
    terms.not_after_ms = now - 1;
    seen(&record, &payer(&terms), secret, at);
    terms.not_before_ms = now + 1;
    seen(&record, &payer(&terms), secret, at);
    terms.payer = OTHER;
    seen(&record, &payer(&terms), secret, at);
    terms.channel = hash(b"another channel");
    seen(&record, &payer(&terms), secret, at);
    // Signed by the other's keys in the payer's name.
    let mut forged = open.sign(terms.clone(), OTHER);
    forged.signer = OPENER;
    seen(&record, &forged, secret, at);
    secret = &[1; 65];
    seen(&record, &forged, secret, at);
    forged.signatures.clear();
    seen(&record, &forged, secret, at);
    forged.signer = OTHER;
    seen(&record, &forged, secret, at);
    record.settling_at_ms = now;
    seen(&record, &forged, secret, at);
    let expected = [
        Code::ChannelFunds,
        Code::MergeNonce,
        Code::MergeLane,
        Code::MergeOwnLane,
        Code::VoucherNonce,
        Code::VoucherLane,
        Code::VoucherSecret,
        Code::VoucherAmount,
        Code::VoucherExpired,
        Code::VoucherEarly,
        Code::ChannelOneWay,
        Code::VoucherChannel,
        Code::KeyMismatch,
        Code::VoucherSecretLong,
        Code::VoucherUnsigned,
        Code::VoucherSigner,
        Code::ChannelOver,
    ];
    assert_eq!(found, expected);
    // At both ends of its time it is good.
    record.settling_at_ms = 0;
    for (not_before_ms, not_after_ms) in [(now, now), (0, now), (now, 0)] {
        let terms = wire::Voucher { not_before_ms, not_after_ms, ..open.terms(OPENER, 0, 6, 50) };
        assert_eq!(rules::check(&record, &payer(&terms), b"", at), Ok(10));
    }
}

#[test]
fn merged_lanes_are_emptied_and_count_once() {
    let (mut cluster, _, mut bob, open) = with_channel(300, false);
    let lanes = open.redeem(&[(open.voucher(OPENER, 1, 1, 60), b""), (open.voucher(OPENER, 2, 1, 40), b"")]);
    assert_eq!(does(&mut cluster, &mut bob, lanes), None);
    let merges = |nonce| vec![wire::LaneMerge { lane: 1, nonce }, wire::LaneMerge { lane: 2, nonce }];
    let merging = |nonce, amount| {
        let terms = wire::Voucher { merges: merges(nonce), ..open.terms(OPENER, 0, nonce, amount) };
        open.sign(terms, OPENER)
    };
    assert_eq!(does(&mut cluster, &mut bob, open.redeem(&[(merging(2, 150), b"")])), None);
    assert_eq!(rules::shares(&open.record(&cluster)), [150, 150]);
    // The lanes are empty now: merging them again takes nothing off.
    assert_eq!(does(&mut cluster, &mut bob, open.redeem(&[(merging(3, 170), b"")])), None);
    assert_eq!(rules::shares(&open.record(&cluster)), [130, 170]);
    // A merged lane can be used again, from nothing.
    assert_eq!(does(&mut cluster, &mut bob, open.redeem(&[(open.voucher(OPENER, 1, 4, 5), b"")])), None);
    assert_eq!(rules::shares(&open.record(&cluster)), [125, 175]);
    check(&cluster, &[(&bob, 1_000)]);
}

#[test]
fn a_payee_that_takes_a_lock_it_has_cancelled_gives_it_back() {
    let (mut cluster, mut alice, mut bob, open) = with_channel(300, false);
    let terms = wire::Voucher { secret_hash: hash(b"secret"), not_after_ms: 50_000, ..open.terms(OPENER, 0, 1, 120) };
    let lock = open.sign(terms, OPENER);
    let cancel = open.sign(open.terms(OPENER, 0, 2, 0), OTHER);
    assert_eq!(does(&mut cluster, &mut bob, open.redeem(&[(lock.clone(), b"secret")])), None);
    let record = open.record(&cluster);
    assert_eq!((rules::shares(&record), &record.lanes[0].secret[..]), ([180, 120], &b"secret"[..]));
    // Nobody redeems what it has signed itself.
    assert_eq!(does(&mut cluster, &mut bob, open.redeem(&[(cancel.clone(), b"")])), Some(Code::VoucherSigner));
    assert_eq!(does(&mut cluster, &mut alice, open.redeem(&[(cancel, b"")])), None);
    assert_eq!(rules::shares(&open.record(&cluster)), [300, 0]);
    // What Bob does not have he can't give back.
    let more = open.sign(open.terms(OPENER, 1, 1, 10), OPENER);
    assert_eq!(does(&mut cluster, &mut bob, open.redeem(&[(more, b"")])), None);
    let permit = open.permit(OTHER, 10, 0);
    let take = bob.call(vec![open.withdraw(10, Some(permit))], vec![credit(&bob, 10)]);
    assert_eq!(came_to(&mut cluster, &bob, take), None);
    let back = open.sign(open.terms(OPENER, 1, 2, 0), OTHER);
    assert_eq!(does(&mut cluster, &mut alice, open.redeem(&[(back, b"")])), Some(Code::ChannelFunds));
    check(&cluster, &[(&alice, 700), (&bob, 1_010)]);
}

/// Both pay each other far more than they put in; whichever of them is absent, the other gets what is its own.
#[test]
fn two_counters_of_a_two_way_channel() {
    for (a_redeems, b_redeems) in [(true, true), (true, false), (false, true)] {
        let (mut cluster, mut alice, mut bob, open) = with_channel(100, true);
        assert_eq!(does(&mut cluster, &mut bob, open.deposit(OTHER, 50)), None);
        // Alice has paid 900 by and by, Bob 860: Bob has gained 40.
        if b_redeems {
            let v = open.redeem(&[(open.voucher(OPENER, 0, 9, 900), b"")]);
            assert_eq!(does(&mut cluster, &mut bob, v), None);
            assert_eq!(rules::shares(&open.record(&cluster)), [0, 150]);
        }
        if a_redeems {
            let v = open.redeem(&[(open.voucher(OTHER, 0, 9, 860), b"")]);
            assert_eq!(does(&mut cluster, &mut alice, v), None);
        }
        assert_eq!(does(&mut cluster, &mut alice, open.settle()), None);
        let due = clocks(&mut cluster, &open);
        cluster.set_time(due);
        assert_eq!(does(&mut cluster, &mut alice, open.collect()), None);
        let [a, b] = match (a_redeems, b_redeems) {
            (true, true) => [60, 90],
            (true, false) => [150, 0],
            _ => [0, 150],
        };
        check(&cluster, &[(&alice, 900 + a), (&bob, 950 + b)]);
    }
}

#[test]
fn money_leaves_an_open_channel_with_the_other_side_s_word_or_after_a_delay() {
    let (mut cluster, mut alice, mut bob, open) = with_channel(300, false);
    let out = |signer: &mut Signer, amount, permit| {
        let me = signer.clone();
        signer.call(vec![open.withdraw(amount, permit)], vec![credit(&me, amount)])
    };
    let order = out(&mut alice, 50, None);
    assert_eq!(came_to(&mut cluster, &alice, order), Some(Code::ChannelNotDue));
    let why = |cluster: &Cluster, alice: &Signer| cluster.status(0, alice, alice.seqnum).message;
    assert!(why(&cluster, &alice).contains("expected an announced withdrawal"));
    let of = |channel: [u8; 32], side| {
        let permit =
            wire::WithdrawPermit { channel: Bytes::copy_from_slice(&channel), side, withdrawn: 50, not_after_ms: 0 };
        sign_withdraw(&permit, &bob.keys.iter().collect::<Vec<_>>())
    };
    let (another_channel, another_side) = (of([9; 32], OPENER), of(open.id, OTHER));
    // Permits: not one's own, not another side's, not twice, not late.
    let own = sign_withdraw(
        &wire::WithdrawPermit {
            channel: Bytes::copy_from_slice(&open.id),
            side: OPENER,
            withdrawn: 50,
            not_after_ms: 0,
        },
        &alice.keys.clone().iter().collect::<Vec<_>>(),
    );
    for (permit, code) in [
        (own, Some(Code::KeyMismatch)),
        (another_channel, Some(Code::VoucherChannel)),
        (another_side, Some(Code::VoucherChannel)),
        (open.permit(OPENER, 49, 0), Some(Code::ChannelFunds)),
        (open.permit(OPENER, 50, 999), Some(Code::VoucherExpired)),
        (open.permit(OPENER, 50, 1_000), None),
        (open.permit(OPENER, 50, 0), Some(Code::ChannelFunds)),
    ] {
        let order = out(&mut alice, 50, Some(permit));
        assert_eq!(came_to(&mut cluster, &alice, order), code);
    }
    check(&cluster, &[(&alice, 750), (&bob, 1_000)]);
    // Without the other's word it is announced first; the other redeems meanwhile.
    assert_eq!(does(&mut cluster, &mut alice, open.leave(250)), None);
    let order = out(&mut alice, 1, None);
    assert_eq!(came_to(&mut cluster, &alice, order), Some(Code::ChannelNotDue));
    clocks(&mut cluster, &open);
    let due = open.record(&cluster).opener.unwrap().leaving_at_ms;
    assert_eq!(due, 1_001 + DELAY);
    cluster.set_time(due - 1);
    let order = out(&mut alice, 250, None);
    assert_eq!(came_to(&mut cluster, &alice, order), Some(Code::ChannelNotDue));
    assert!(why(&cluster, &alice).contains("expected a later time"));
    let redeem = open.redeem(&[(open.voucher(OPENER, 0, 1, 100), b"")]);
    assert_eq!(does(&mut cluster, &mut bob, redeem), None);
    cluster.set_time(due);
    for amount in [251, 250] {
        let order = out(&mut alice, amount, None);
        assert_eq!(came_to(&mut cluster, &alice, order), Some(Code::ChannelFunds));
        let message = cluster.status(0, &alice, alice.seqnum).message;
        assert_eq!(message.contains("amount that was announced"), amount == 251, "{message}");
    }
    let order = out(&mut alice, 150, None);
    assert_eq!(came_to(&mut cluster, &alice, order), None);
    let order = out(&mut alice, 1, None);
    assert_eq!(came_to(&mut cluster, &alice, order), Some(Code::ChannelNotDue), "announced for once");
    check(&cluster, &[(&alice, 900), (&bob, 1_000)]);
    // Redeemed and taken out in one order, and put into another channel by the same.
    let keys = open.permit(OTHER, 100, 0);
    let mut input = open.withdraw(100, Some(keys));
    if let Some(input::Kind::ChannelWithdraw(w)) = &mut input.kind {
        w.redemptions = vec![redemption(&open.voucher(OPENER, 1, 1, 0), b"")];
    }
    let order = bob.call(vec![input], vec![output::Kind::ChannelOpen(opening(&bob, &alice, 100, false))]);
    assert_eq!(came_to(&mut cluster, &bob, order), None);
    assert_eq!(cluster.logs[0].log.book(&cluster.logs[0].state).unwrap().channels, 100);
    check(&cluster, &[(&alice, 900), (&bob, 1_000)]);
}

#[test]
fn keys_are_those_of_the_address_or_said_by_the_account_itself_once() {
    let (mut cluster, mut alice, mut bob) = setup(2);
    let other_keys = Permission::single(secret(Curve::K1, 77).public()).encode();
    let mut carol = Signer::new(3);
    cluster.fund(carol.address, 100);
    // Carol can't say Alice's keys.
    let wrong = wire::ChannelOpen { opener_permission: other_keys.clone(), ..opening(&alice, &bob, 10, false) };
    assert_eq!(does(&mut cluster, &mut carol, output::Kind::ChannelOpen(wrong.clone())), Some(Code::ChannelKeys));
    // Alice can. Bob says his later, once; until then he signs nothing.
    let opened = wire::ChannelOpen { other_permission: Bytes::new(), ..wrong };
    let order = alice.call(vec![], vec![output::Kind::ChannelOpen(opened)]);
    let id = channel_id(cluster.committee.id(), &id_of(&order), 0);
    assert_eq!(came_to(&mut cluster, &alice, order), None);
    let mut open = Open { id, sides: [alice.clone(), bob.clone()] };
    open.sides[0] = Signer::with(alice.permission.clone(), vec![secret(Curve::K1, 77)]);
    let back = open.sign(open.terms(OPENER, 0, 1, 0), OTHER);
    assert_eq!(does(&mut cluster, &mut alice, open.redeem(&[(back, b"")])), Some(Code::ChannelKeys));
    let says = |permission: Bytes| {
        output::Kind::ChannelKeys(wire::ChannelKeys { channel: Bytes::copy_from_slice(&id), permission })
    };
    assert_eq!(does(&mut cluster, &mut carol, says(other_keys.clone())), Some(Code::NotAParty));
    let bob_s = bob.permission.encode();
    assert_eq!(does(&mut cluster, &mut bob, says(bob_s)), None);
    assert_eq!(does(&mut cluster, &mut bob, says(other_keys.clone())), Some(Code::ChannelKeys));
    assert_eq!(does(&mut cluster, &mut alice, says(other_keys)), Some(Code::ChannelKeys));
    let paid = open.redeem(&[(open.voucher(OPENER, 0, 1, 4), b"")]);
    assert_eq!(does(&mut cluster, &mut bob, paid), None);
    check(&cluster, &[(&alice, 990), (&bob, 1_000), (&carol, 100)]);
}

#[test]
fn others_redeem_only_with_the_word_of_the_side_that_gets_it() {
    let (mut cluster, mut alice, bob, open) = with_channel(300, false);
    let mut tower = Signer::new(9);
    cluster.fund(tower.address, 5);
    let channel = Bytes::copy_from_slice(&open.id);
    let permit = |side, watcher: &Signer, by: &Signer| {
        let permit = wire::WatchPermit { channel: channel.clone(), side, watcher: bytes(watcher) };
        Some(sign_watch(&permit, &by.keys.iter().collect::<Vec<_>>()))
    };
    let redeem = |watch: Option<wire::SignedPermit>, nonce| {
        let one = wire::Redemption { watch, ..redemption(&open.voucher(OPENER, 0, nonce, 30), b"") };
        output::Kind::ChannelRedeem(wire::ChannelRedeem { redemptions: vec![one], claims: vec![] })
    };
    assert_eq!(does(&mut cluster, &mut tower, redeem(None, 1)), Some(Code::NotAParty));
    let stolen = permit(OTHER, &alice, &bob);
    assert_eq!(does(&mut cluster, &mut tower, redeem(stolen, 1)), Some(Code::NotAParty));
    let forged = permit(OTHER, &tower, &alice);
    assert_eq!(does(&mut cluster, &mut tower, redeem(forged, 1)), Some(Code::KeyMismatch));
    // A payer that would use up nonces with a small voucher of its own.
    assert_eq!(does(&mut cluster, &mut alice, redeem(None, 100)), Some(Code::VoucherSigner));
    let payer_s = permit(OPENER, &tower, &alice);
    assert_eq!(does(&mut cluster, &mut tower, redeem(payer_s, 100)), Some(Code::VoucherSigner));
    let given = permit(OTHER, &tower, &bob);
    assert_eq!(does(&mut cluster, &mut tower, redeem(given, 1)), None);
    assert_eq!(rules::shares(&open.record(&cluster)), [270, 30]);
    // Anyone collects, for both.
    assert_eq!(does(&mut cluster, &mut tower, open.settle()), Some(Code::NotAParty));
    assert_eq!(does(&mut cluster, &mut alice, open.settle()), None);
    let due = clocks(&mut cluster, &open);
    cluster.set_time(due);
    assert_eq!(does(&mut cluster, &mut tower, open.collect()), None);
    check(&cluster, &[(&alice, 970), (&bob, 1_030), (&tower, 5)]);
}

#[test]
fn notes_open_a_channel_and_top_it_up() {
    let (mut cluster, alice, mut bob, _, notes) = super::bearer::with_notes(2, &[5, 3]);
    let shared = |kind| wire::Output { kind: Some(kind) };
    let wrong = wire::ChannelOpen {
        opener_permission: Permission::single(secret(Curve::K1, 77).public()).encode(),
        ..opening(&alice, &bob, 32, false)
    };
    // The refund's address proves nothing: keys must be those that the side's address is made of.
    let order = super::bearer::spend(&notes[..1], vec![shared(output::Kind::ChannelOpen(wrong))], Some(&alice));
    cluster.run_ordered(std::slice::from_ref(&order));
    assert_eq!(super::bearer::status_of(&cluster, 1, &order).code, Code::ChannelKeys as u32);
    check(&cluster, &[(&alice, 1_000 - 8), (&bob, 1_000)]);
    let opens = output::Kind::ChannelOpen(opening(&alice, &bob, 8, false));
    let order = super::bearer::spend(&notes[1..], vec![shared(opens)], Some(&alice));
    let open = Open { id: channel_id(cluster.committee.id(), &id_of(&order), 0), sides: [alice.clone(), bob.clone()] };
    cluster.run_ordered(std::slice::from_ref(&order));
    let paid = open.redeem(&[(open.voucher(OPENER, 0, 1, 3), b"")]);
    assert_eq!(does(&mut cluster, &mut bob, paid), None);
    assert_eq!(rules::shares(&open.record(&cluster)), [5, 3]);
    check(&cluster, &[(&alice, 992), (&bob, 1_000)]);
}

/// Bob's last voucher and a collect that anyone may send come about when the delay is over, in any order and with
/// clocks on both sides of it: log time alone says whether the voucher counts.
#[test]
fn the_end_of_the_delay_is_decided_by_log_time_alone() {
    let mut rng = Rng(11);
    let mut counted = [0_u32; 2];
    for round in 0..60 {
        let (mut cluster, mut alice, mut bob, open) = with_channel(100, false);
        assert_eq!(does(&mut cluster, &mut alice, open.settle()), None);
        let due = clocks(&mut cluster, &open);
        cluster.set_time(due - 3);
        let collect = alice.call(vec![], vec![open.collect()]);
        let redeem = bob.call(vec![], vec![open.redeem(&[(open.voucher(OPENER, 0, 1, 60), b"")])]);
        cluster.run(&[collect, redeem]);
        let items: Vec<Vec<Bytes>> = (0..2)
            .map(|shard| {
                let node = &cluster.nodes[0][shard];
                let offers = node.authority.log_items(&node.state, &log_calls(node)).unwrap();
                offers.into_iter().map(|o| o.item).collect()
            })
            .collect();
        let mut units: Vec<(u32, u64, Vec<Bytes>)> = (0..4).map(|i| (i, due - 2 + rng.below(7), vec![])).collect();
        units.extend(items.into_iter().map(|items| (rng.below(4) as u32, 0, items)));
        rng.shuffle(&mut units);
        for (creator, clock, items) in units {
            cluster.order_items(creator, clock, items);
        }
        cluster.set_time(due + 10);
        cluster.order_all();
        let redeemed = cluster.status(0, &bob, bob.seqnum);
        if cluster.status(0, &alice, alice.seqnum).state() == S::Failed {
            assert_eq!(does(&mut cluster, &mut alice, open.collect()), None, "round {round}");
        }
        let got = match redeemed.state() {
            S::Ordered => 60,
            _ => {
                assert_eq!(redeemed.code, Code::ChannelOver as u32);
                0
            }
        };
        counted[usize::from(got > 0)] += 1;
        check(&cluster, &[(&alice, 1_000 - got), (&bob, 1_000 + got)]);
    }
    assert!(counted[0] > 5 && counted[1] > 5, "{counted:?}");
}

#[test]
fn what_is_badly_formed_gets_no_vote() {
    let (mut cluster, mut alice, bob, open) = with_channel(300, false);
    let good = opening(&alice, &bob, 10, false);
    let voucher = open.voucher(OPENER, 0, 1, 5);
    let mut longer = voucher.signed();
    longer.voucher = [&longer.voucher[..], &[0x28, 0x05]].concat().into();
    let with = |voucher| {
        output::Kind::ChannelRedeem(wire::ChannelRedeem {
            redemptions: vec![wire::Redemption { voucher, ..Default::default() }],
            claims: vec![],
        })
    };
    let many = wire::Voucher {
        merges: (2..19).map(|lane| wire::LaneMerge { lane, nonce: 1 }).collect(),
        ..open.terms(OPENER, 0, 1, 5)
    };
    let cases = [
        (output::Kind::ChannelOpen(wire::ChannelOpen { other: bytes(&alice), ..good.clone() }), Code::BadContent),
        (output::Kind::ChannelOpen(wire::ChannelOpen { delay_ms: 999, ..good.clone() }), Code::BadContent),
        (output::Kind::ChannelOpen(wire::ChannelOpen { amount: 1 << 63, ..good.clone() }), Code::BadAmount),
        (
            output::Kind::ChannelOpen(wire::ChannelOpen { opener_permission: Bytes::from_static(b"x"), ..good }),
            Code::Decode,
        ),
        (open.deposit(2, 5), Code::BadContent),
        (open.deposit(0, 0), Code::BadAmount),
        (open.redeem(&[]), Code::BadContent),
        (with(None), Code::BadContent),
        (with(Some(longer)), Code::NonCanonical),
        (with(Some(open.sign(many, OPENER).signed())), Code::Limit),
        (output::Kind::ChannelSettle(wire::ChannelSettle { channel: Bytes::from_static(b"short") }), Code::BadContent),
    ];
    for (kind, code) in cases {
        let mut who = alice.clone();
        let order = who.call(vec![], vec![kind.clone()]);
        assert_eq!(refusal(&mut cluster, 0, &order), code, "{kind:?}");
    }
    let unknown = Open { id: [9; 32], sides: open.sides.clone() };
    assert_eq!(does(&mut cluster, &mut alice, unknown.settle()), Some(Code::UnknownChannel));
    check(&cluster, &[(&alice, 700)]);
}
