//! What a voucher or a claim moves, to the minor unit, and each limit: at it, and one over.

use bytes::Bytes;

use super::*;
use crate::keys::{Curve, SecretKey};
use crate::merkle::Tree;
use crate::testing::{NETWORK_ID, secret};
use crate::wire::{self, LaneMerge, VirtualAmount, VirtualCap, VirtualSet};

const CHANNEL: Hash = [7; 32];
const NOW: u64 = 1_700_000_000_000;

fn key(side: u32) -> SecretKey {
    secret(Curve::Ed25519, u64::from(side) + 1)
}

fn permission(side: u32) -> Permission {
    Permission::single(key(side).public())
}

/// Both sides have put in as much, and have said their keys.
fn channel(deposited: [u64; 2], two_way: bool) -> ChannelRecord {
    let side = |side: u32| {
        Some(ChannelSide {
            address: Bytes::copy_from_slice(permission(side).address(NETWORK_ID).as_bytes()),
            permission: permission(side).encode(),
            deposited: deposited[side as usize],
            ..Default::default()
        })
    };
    ChannelRecord {
        opener: side(OPENER),
        other: side(OTHER),
        two_way,
        delay_ms: 60_000,
        revision: 1,
        ..Default::default()
    }
}

fn terms(payer: u32, lane: u32, nonce: u64, amount: u64) -> wire::Voucher {
    wire::Voucher { channel: Bytes::copy_from_slice(&CHANNEL), payer, lane, nonce, amount, ..Default::default() }
}

fn at(side: u32) -> At<'static> {
    At { channel: &CHANNEL, side, now_ms: NOW, verify: true }
}

/// The payer has signed, and the payee redeems.
fn pay(record: &mut ChannelRecord, terms: wire::Voucher, secret: &[u8]) -> Result<i128> {
    let payer = terms.payer;
    redeem(record, &Voucher::sign(terms, payer, &[&key(payer)]), secret, at(1 - payer))
}

/// The payee has signed, and the payer redeems.
fn give_back(record: &mut ChannelRecord, terms: wire::Voucher) -> Result<i128> {
    let payer = terms.payer;
    redeem(record, &Voucher::sign(terms, 1 - payer, &[&key(1 - payer)]), &[], at(payer))
}

/// Refused with this, and nothing has changed.
fn refused(record: &ChannelRecord, terms: wire::Voucher, secret: &[u8]) -> Code {
    let mut after = record.clone();
    let code = pay(&mut after, terms, secret).unwrap_err().code;
    assert_eq!(after, *record);
    code
}

fn moved(record: &ChannelRecord) -> Vec<(u32, u32, u64, u64)> {
    record.lanes.iter().map(|lane| (lane.payer, lane.lane, lane.nonce, lane.redeemed)).collect()
}

#[test]
fn each_lane_moves_what_it_has_more_than_before() {
    let mut record = channel([1_000, 500], true);
    assert_eq!(pay(&mut record, terms(0, 3, 5, 400), &[]), Ok(400));
    assert_eq!(pay(&mut record, terms(0, 3, 6, 650), &[]), Ok(250));
    assert_eq!(pay(&mut record, terms(0, 1, 1, 50), &[]), Ok(50));
    assert_eq!(pay(&mut record, terms(1, 3, 1, 120), &[]), Ok(120));
    assert_eq!(give_back(&mut record, terms(0, 3, 7, 600)), Ok(-50));
    assert_eq!(moved(&record), [(0, 1, 1, 50), (0, 3, 7, 600), (1, 3, 1, 120)]);
    assert_eq!((side(&record, OPENER).sent, side(&record, OTHER).sent), (650, 120));
    assert_eq!((held(&record), shares(&record)), (1_500, [470, 1_030]));
    // The lane that takes others in has their amounts, and they begin anew.
    let merges = vec![LaneMerge { lane: 1, nonce: 2 }, LaneMerge { lane: 3, nonce: 8 }];
    assert_eq!(pay(&mut record, wire::Voucher { merges, ..terms(0, 2, 1, 700) }, &[]), Ok(50));
    assert_eq!(moved(&record), [(0, 1, 2, 0), (0, 2, 1, 700), (0, 3, 8, 0), (1, 3, 1, 120)]);
    assert_eq!(side(&record, OPENER).sent, 700);
    assert_eq!(pay(&mut record, terms(0, 3, 9, 30), &[]), Ok(30));
    // Nothing else of the channel has changed.
    let before = channel([1_000, 500], true);
    let sides = [record.opener.clone(), record.other.clone()].map(|side| ChannelSide { sent: 0, ..side.unwrap() });
    assert_eq!([Some(sides[0].clone()), Some(sides[1].clone())], [before.opener, before.other]);
    assert_eq!((record.revision, record.delay_ms, record.settling_at_ms, record.collected), (1, 60_000, 0, false));
}

#[test]
fn a_lane_keeps_the_secret_that_it_was_redeemed_with() {
    let mut record = channel([1_000, 0], false);
    let secret = [9; PREIMAGE_BYTES_MAX];
    let secret_hash = Bytes::copy_from_slice(&Sha256::digest(secret));
    let locked = wire::Voucher { secret_hash, ..terms(0, 0, 1, 10) };
    assert_eq!(refused(&record, locked.clone(), &[9; PREIMAGE_BYTES_MAX + 1]), Code::VoucherSecretLong);
    assert_eq!(refused(&record, locked.clone(), &[9; PREIMAGE_BYTES_MAX - 1]), Code::VoucherSecret);
    assert_eq!(pay(&mut record, locked, &secret), Ok(10));
    assert_eq!(record.lanes[0].secret[..], secret);
    // One that needs none keeps none.
    assert_eq!(pay(&mut record, terms(0, 0, 2, 20), &secret), Ok(10));
    assert!(record.lanes[0].secret.is_empty());
}

#[test]
fn what_each_side_could_take_out_follows_from_the_counters() {
    let mut record = channel([1_000, 400], true);
    let set = |record: &mut ChannelRecord, withdrawn: [u64; 2], sent: [u64; 2]| {
        for side in [OPENER, OTHER] {
            let of = side_mut(record, side);
            (of.withdrawn, of.sent) = (withdrawn[side as usize], sent[side as usize]);
        }
    };
    for (withdrawn, sent, expected) in [
        ([0, 0], [0, 0], [1_000, 400]),
        ([100, 30], [0, 0], [900, 370]),
        ([100, 30], [200, 50], [750, 520]),
        // More than it had: the other side gets all there is.
        ([100, 30], [5_000, 50], [0, 1_270]),
        ([100, 30], [200, 5_000], [1_270, 0]),
    ] {
        set(&mut record, withdrawn, sent);
        assert_eq!(shares(&record), expected, "{withdrawn:?} {sent:?}");
        assert_eq!(held(&record), 1_400 - i128::from(withdrawn[0]) - i128::from(withdrawn[1]));
    }
}

#[test]
fn a_side_is_found_by_its_address_and_the_opener_is_first() {
    let mut record = channel([0, 0], false);
    let address = |side| permission(side).address(NETWORK_ID);
    assert_eq!([0, 1, 2].map(|of| side_of(&record, &address(of))), [Some(0), Some(1), None]);
    assert_eq!(keys(&record, OTHER), Ok((permission(1), address(1))));
    side_mut(&mut record, OTHER).address = side(&record, OPENER).address;
    assert_eq!([0, 1].map(|of| side_of(&record, &address(of))), [Some(0), None]);
    side_mut(&mut record, OTHER).permission = Bytes::new();
    assert_eq!(keys(&record, OTHER).unwrap_err().code, Code::ChannelKeys);
}

#[test]
fn who_may_redeem_what_and_until_when() {
    let record = channel([1_000, 0], false);
    let good = || terms(0, 0, 1, 10);
    let judged =
        |record: &ChannelRecord, voucher: &Voucher, at: At| check(record, voucher, &[], at).map_err(|e| e.code);
    let signed = |terms: wire::Voucher, signer: u32, by: u32| Voucher::sign(terms, signer, &[&key(by)]);
    let voucher = signed(good(), 0, 0);
    assert_eq!(judged(&record, &voucher, at(1)), Ok(10));
    assert_eq!(judged(&record, &voucher, at(0)), Err(Code::VoucherSigner));
    assert_eq!(judged(&record, &signed(good(), 1, 1), at(1)), Err(Code::VoucherSigner));
    let none = Voucher { signatures: vec![], ..voucher.clone() };
    assert_eq!(judged(&record, &none, at(1)), Err(Code::VoucherUnsigned));
    let forged = signed(good(), 0, 1);
    assert_eq!(judged(&record, &forged, at(1)), Err(Code::KeyMismatch));
    // Signatures that were verified together with others are not verified once more.
    assert_eq!(judged(&record, &forged, At { verify: false, ..at(1) }), Ok(10));
    assert_eq!(judged(&record, &voucher, At { channel: &[8; 32], ..at(1) }), Err(Code::VoucherChannel));
    let backwards = signed(terms(1, 0, 1, 10), 1, 1);
    assert_eq!(judged(&record, &backwards, at(0)), Err(Code::ChannelOneWay));
    assert_eq!(judged(&channel([0, 10], true), &backwards, at(0)), Ok(10));
    let mut mute = record.clone();
    side_mut(&mut mute, OPENER).permission = Bytes::new();
    assert_eq!(judged(&mute, &voucher, at(1)), Err(Code::ChannelKeys));
    // A settle ends it, from its ms on, and collecting at once.
    for (settling_at_ms, open) in [(0, true), (NOW + 1, true), (NOW, false), (NOW - 1, false), (1, false)] {
        let settling = ChannelRecord { settling_at_ms, ..record.clone() };
        assert_eq!(is_over(&settling, NOW), !open, "{settling_at_ms}");
        let expected = if open { Ok(10) } else { Err(Code::ChannelOver) };
        assert_eq!(judged(&settling, &voucher, at(1)), expected);
    }
    let collected = ChannelRecord { collected: true, ..record };
    assert_eq!(judged(&collected, &voucher, at(1)), Err(Code::ChannelOver));
}

#[test]
fn a_voucher_counts_at_each_limit_and_not_one_over() {
    let mut record = channel([1_000, 0], false);
    pay(&mut record, terms(0, 5, 4, 100), &[]).unwrap();
    let good = || terms(0, 5, 5, 110);
    let pays = |terms: wire::Voucher| pay(&mut record.clone(), terms, &[]);
    assert_eq!(pays(wire::Voucher { not_before_ms: NOW, ..good() }), Ok(10));
    assert_eq!(pays(wire::Voucher { not_before_ms: NOW - 1, ..good() }), Ok(10));
    assert_eq!(refused(&record, wire::Voucher { not_before_ms: NOW + 1, ..good() }, &[]), Code::VoucherEarly);
    assert_eq!(pays(wire::Voucher { not_after_ms: NOW, ..good() }), Ok(10));
    assert_eq!(pays(wire::Voucher { not_after_ms: NOW + 1, ..good() }), Ok(10));
    assert_eq!(refused(&record, wire::Voucher { not_after_ms: NOW - 1, ..good() }, &[]), Code::VoucherExpired);
    assert_eq!(pays(terms(0, LANES_MAX - 1, 1, 10)), Ok(10));
    assert_eq!(refused(&record, terms(0, LANES_MAX, 1, 10), &[]), Code::VoucherLane);
    assert_eq!(refused(&record, terms(0, LANES_MAX + 1, 1, 10), &[]), Code::VoucherLane);
    // Nonces: above, not at or below.
    assert_eq!(refused(&record, terms(0, 5, 4, 110), &[]), Code::VoucherNonce);
    assert_eq!(refused(&record, terms(0, 5, 3, 110), &[]), Code::VoucherNonce);
    assert_eq!(pays(terms(0, 5, u64::MAX, 110)), Ok(10));
    assert_eq!(pays(terms(0, 6, 0, 10)), Ok(10), "a new lane has none");
    // Merges.
    let merging = |merges: &[(u32, u64)], amount| {
        let merges = merges.iter().map(|(lane, nonce)| LaneMerge { lane: *lane, nonce: *nonce }).collect();
        wire::Voucher { merges, ..terms(0, 7, 1, amount) }
    };
    assert_eq!(pays(merging(&[(5, 5)], 130)), Ok(30));
    assert_eq!(refused(&record, merging(&[(5, 4)], 130), &[]), Code::MergeNonce);
    assert_eq!(refused(&record, merging(&[(5, 3)], 130), &[]), Code::MergeNonce);
    assert_eq!(refused(&record, merging(&[(7, 5)], 130), &[]), Code::MergeOwnLane);
    assert_eq!(refused(&record, merging(&[(5, 5), (5, 6)], 130), &[]), Code::MergeOwnLane);
    assert_eq!(refused(&record, merging(&[(8, 5)], 130), &[]), Code::MergeLane);
}

#[test]
fn amounts_end_below_2_to_the_63() {
    let record = channel([0, 0], true);
    assert_eq!(pay(&mut record.clone(), terms(0, 0, 1, AMOUNT_MAX), &[]), Ok(i128::from(AMOUNT_MAX)));
    assert_eq!(refused(&record, terms(0, 0, 1, AMOUNT_MAX + 1), &[]), Code::VoucherAmount);
    // All lanes of a side together, too.
    let mut half = record;
    pay(&mut half, terms(0, 0, 1, AMOUNT_MAX - 5), &[]).unwrap();
    assert_eq!(pay(&mut half.clone(), terms(0, 1, 1, 5), &[]), Ok(5));
    assert_eq!(refused(&half, terms(0, 1, 1, 6), &[]), Code::ChannelFunds);
    assert_eq!(pay(&mut half, terms(1, 1, 1, 6), &[]), Ok(6), "the other side's are others");
}

#[test]
fn in_a_one_way_channel_nobody_pays_or_gives_back_more_than_it_has_there() {
    let mut record = channel([1_000, 0], false);
    side_mut(&mut record, OPENER).withdrawn = 200;
    assert_eq!(pay(&mut record.clone(), terms(0, 0, 1, 800), &[]), Ok(800));
    let short = pay(&mut record.clone(), terms(0, 0, 1, 801), &[]).unwrap_err();
    assert_eq!(short.code, Code::ChannelFunds);
    let expected = "money that the payer has in the channel: expected at least 801, found 800";
    assert!(short.to_string().contains(expected), "{short}");
    // The payee has taken out 300 of the 400 that it got.
    pay(&mut record, terms(0, 0, 1, 400), &[]).unwrap();
    side_mut(&mut record, OTHER).withdrawn = 300;
    assert_eq!(give_back(&mut record.clone(), terms(0, 0, 2, 300)), Ok(-100));
    let mut after = record.clone();
    let short = give_back(&mut after, terms(0, 0, 2, 299)).unwrap_err();
    assert_eq!((short.code, &after), (Code::ChannelFunds, &record));
    let expected = "the payee, who gives back has in the channel: expected at least 101, found 100";
    assert!(short.to_string().contains(expected), "{short}");
    // In a two-way channel each side may hold what makes up for it.
    record.two_way = true;
    assert_eq!(pay(&mut record.clone(), terms(0, 0, 2, 5_000), &[]), Ok(4_600));
    assert_eq!(give_back(&mut record, terms(0, 0, 2, 0)), Ok(-400));
}

/// Virtual channels of three payers over lane 2, with caps of 100, 200 and 300.
struct Claims {
    record: ChannelRecord,
    caps: Vec<VirtualCap>,
}

impl Claims {
    fn new(deposited: u64, amount: u64) -> Claims {
        let caps: Vec<VirtualCap> = (0..3u8)
            .map(|n| VirtualCap {
                id: Bytes::copy_from_slice(&[n; 32]),
                permission: permission(10 + u32::from(n)).encode(),
                cap: 100 * (u64::from(n) + 1),
                not_after_ms: NOW + u64::from(n),
            })
            .collect();
        let root = Bytes::copy_from_slice(&Claims::tree(&caps).root());
        let virtuals = Some(VirtualSet { root, count: 3 });
        let mut record = channel([deposited, 0], false);
        pay(&mut record, wire::Voucher { virtuals, ..terms(0, 2, 1, amount) }, &[]).unwrap();
        Claims { record, caps }
    }

    fn tree(caps: &[VirtualCap]) -> Tree {
        Tree::new(&caps.iter().map(voucher::virtual_leaf).collect::<Vec<_>>())
    }

    fn of(&self, index: usize, amount: u64) -> VirtualClaim {
        let cap = self.caps[index].clone();
        let moved = VirtualAmount { id: cap.id.clone(), amount };
        VirtualClaim {
            channel: Bytes::copy_from_slice(&CHANNEL),
            payer: OPENER,
            lane: 2,
            amount: Some(voucher::sign_virtual(&moved, &[&key(10 + index as u32)])),
            cap: Some(cap),
            index: index as u32,
            path: Claims::tree(&self.caps).path(index).iter().map(|hash| Bytes::copy_from_slice(hash)).collect(),
            watch: None,
        }
    }

    fn refused(&self, one: &VirtualClaim, at: At) -> Code {
        let mut after = self.record.clone();
        let code = claim(&mut after, one, at).unwrap_err().code;
        assert_eq!(after, self.record);
        code
    }
}

#[test]
fn claims_move_what_was_signed_for_once_each_in_any_order() {
    let mut all = Claims::new(1_000, 40);
    let claims = [all.of(2, 300), all.of(0, 5), all.of(1, 1)];
    assert_eq!(claims.each_ref().map(|one| claim(&mut all.record, one, at(1))), [Ok(300), Ok(5), Ok(1)]);
    assert_eq!(moved(&all.record), [(0, 2, 1, 346)]);
    assert_eq!((side(&all.record, OPENER).sent, shares(&all.record)), (346, [654, 346]));
    let claimed: Vec<_> = all.record.lanes[0].claimed.iter().map(|one| (one.index, one.amount.clone())).collect();
    assert_eq!(claimed, [(0, claims[1].amount.clone()), (1, claims[2].amount.clone()), (2, claims[0].amount.clone())]);
    for one in &claims {
        assert_eq!(all.refused(one, at(1)), Code::VirtualClaimed);
    }
    // A newer voucher of the lane has its own set, and begins to count anew.
    assert_eq!(pay(&mut all.record, terms(0, 2, 2, 340), &[]), Ok(-6));
    assert_eq!(all.refused(&claims[0], at(1)), Code::VirtualUnknown);
}

#[test]
fn a_claim_counts_at_each_limit_and_not_one_over() {
    let all = Claims::new(1_000, 40);
    let good = all.of(0, 100);
    let claims = |one: &VirtualClaim, at: At| claim(&mut all.record.clone(), one, at).map_err(|e| e.code);
    assert_eq!(claims(&good, at(1)), Ok(100));
    assert_eq!(all.refused(&all.of(0, 101), at(1)), Code::VirtualCap);
    assert_eq!(all.refused(&all.of(0, 1_000), at(1)), Code::VirtualCap);
    assert_eq!(claims(&good, At { now_ms: NOW - 1, ..at(1) }), Ok(100));
    assert_eq!(all.refused(&good, At { now_ms: NOW + 1, ..at(1) }), Code::VoucherExpired);
    assert_eq!(claims(&all.of(1, 200), At { now_ms: NOW + 1, ..at(1) }), Ok(200), "each by its own limit");
    assert_eq!(all.refused(&good, at(0)), Code::VoucherSigner);
    assert_eq!(all.refused(&VirtualClaim { payer: OTHER, ..good.clone() }, at(1)), Code::VoucherSigner);
    assert_eq!(all.refused(&VirtualClaim { payer: OTHER, ..good.clone() }, at(0)), Code::VirtualUnknown);
    assert_eq!(all.refused(&good, At { channel: &[8; 32], ..at(1) }), Code::VoucherChannel);
    assert_eq!(all.refused(&VirtualClaim { lane: 3, ..good.clone() }, at(1)), Code::VirtualUnknown);
    for index in [1, 2, 3, 4] {
        assert_eq!(all.refused(&VirtualClaim { index, ..good.clone() }, at(1)), Code::VirtualProof, "{index}");
    }
    let long = VirtualClaim { path: [good.path.clone(), good.path.clone()].concat(), ..good.clone() };
    assert_eq!(all.refused(&long, at(1)), Code::VirtualProof);
    let larger = VirtualCap { cap: 101, ..all.caps[0].clone() };
    assert_eq!(all.refused(&VirtualClaim { cap: Some(larger), ..good.clone() }, at(1)), Code::VirtualProof);
    // What another one's payer has signed, or another key.
    let others = VirtualClaim { amount: all.of(1, 100).amount, ..good.clone() };
    assert_eq!(all.refused(&others, at(1)), Code::VirtualProof);
    let amount = VirtualAmount { id: all.caps[0].id.clone(), amount: 100 };
    let forged = VirtualClaim { amount: Some(voucher::sign_virtual(&amount, &[&key(11)])), ..good.clone() };
    assert_eq!(all.refused(&forged, at(1)), Code::KeyMismatch);
    assert_eq!(claims(&forged, At { verify: false, ..at(1) }), Ok(100));
    let over = ChannelRecord { settling_at_ms: NOW, ..all.record.clone() };
    assert_eq!(claim(&mut over.clone(), &good, at(1)).unwrap_err().code, Code::ChannelOver);
    // No more than the payer has: 60 are left of 100.
    let poor = Claims::new(100, 40);
    assert_eq!(claim(&mut poor.record.clone(), &poor.of(0, 60), at(1)), Ok(60));
    assert_eq!(poor.refused(&poor.of(0, 61), at(1)), Code::ChannelFunds);
    // Nor does a lane move more than an amount can say.
    let mut rich = Claims::new(AMOUNT_MAX, AMOUNT_MAX - 7);
    rich.record.two_way = true;
    assert_eq!(rich.refused(&rich.of(0, 8), at(1)), Code::ChannelFunds);
    assert_eq!(claim(&mut rich.record.clone(), &rich.of(0, 7), at(1)), Ok(7));
}
