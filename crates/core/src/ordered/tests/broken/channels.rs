//! Channels that paid what they must not.

use super::*;
use crate::channel::channel_id;
use crate::channel::voucher::{Voucher, sign_virtual, sign_withdraw};
use wire::{ChannelWithdraw, VirtualAmount, VirtualCap, VirtualClaim, VirtualSet};

const WITHDRAWN: &str = "to be taken out, in time";
const REDEEMED: &str = "expected a newer voucher, in time";
const CLAIMED: &str = "expected a virtual channel to be claimed once, in time";
const COLLECTED: &str = "expected a channel to be collected once, after its delay";
const DELAY: u64 = 60_000;

/// A channel of 100 of Alice to Bob, at 1,000 ms.
struct Channel {
    broken: Broken,
    alice: Signer,
    bob: Signer,
    id: Bytes,
}

impl Channel {
    fn new() -> Channel {
        let (mut alice, bob) = (Signer::new(1), Signer::new(2));
        let mut broken = Broken::new();
        let opening = wire::ChannelOpen {
            opener: bytes(&alice),
            other: bytes(&bob),
            delay_ms: DELAY,
            two_way: true,
            amount: 100,
            ..Default::default()
        };
        let order = alice.call(vec![], vec![output::Kind::ChannelOpen(opening)]);
        let id = channel_id(broken.log.committee().id(), &id_of(&order), 0);
        broken.applied(&order);
        Channel { broken, alice, bob, id: Bytes::copy_from_slice(&id) }
    }

    fn alice(&mut self, kind: output::Kind) {
        let order = self.alice.call(vec![], vec![kind]);
        self.broken.applied(&order);
    }

    fn voucher(&self, payer: u32, nonce: u64, amount: u64, virtuals: Option<VirtualSet>) -> output::Kind {
        let voucher = wire::Voucher { channel: self.id.clone(), payer, nonce, amount, virtuals, ..Default::default() };
        let signed = Voucher::sign(voucher, payer, &[&self.alice.keys[0]]).signed();
        let redemption = wire::Redemption { voucher: Some(signed), ..Default::default() };
        output::Kind::ChannelRedeem(wire::ChannelRedeem { redemptions: vec![redemption], claims: vec![] })
    }

    fn settle(&mut self) {
        self.alice(output::Kind::ChannelSettle(wire::ChannelSettle { channel: self.id.clone() }));
    }

    fn collect(&mut self) {
        self.alice(output::Kind::ChannelCollect(wire::ChannelCollect { channel: self.id.clone() }));
    }

    fn leave(&mut self, amount: u64) {
        self.alice(output::Kind::ChannelLeave(wire::ChannelLeave { channel: self.id.clone(), amount }));
    }

    fn withdraw(&mut self, amount: u64, permit: bool) {
        let terms = wire::WithdrawPermit { channel: self.id.clone(), ..Default::default() };
        let permit = permit.then(|| sign_withdraw(&terms, &[&self.bob.keys[0]]));
        let withdraw = ChannelWithdraw { channel: self.id.clone(), redemptions: vec![], permit };
        let input = wire::Input { amount, kind: Some(input::Kind::ChannelWithdraw(withdraw)) };
        let order = self.alice.call(vec![input], vec![credit(&self.alice.clone(), amount)]);
        self.broken.applied(&order);
    }

    fn claim(&mut self, index: u32, amount: u64, cap: u64, not_after_ms: u64, id: u8) {
        let amount = VirtualAmount { id: Bytes::from(vec![id; 32]), amount };
        let signed = sign_virtual(&amount, &[&self.alice.keys[0]]);
        let permission = self.alice.permission.encode();
        let cap = VirtualCap { id: Bytes::from_static(&[1; 32]), permission, cap, not_after_ms };
        let claim = VirtualClaim {
            channel: self.id.clone(),
            cap: Some(cap),
            index,
            amount: Some(signed),
            ..Default::default()
        };
        self.alice(output::Kind::ChannelRedeem(wire::ChannelRedeem { redemptions: vec![], claims: vec![claim] }));
    }
}

#[test]
fn money_taken_out_too_early_or_more_than_was_announced_or_there_is() {
    // When the withdrawal of 50 that was announced at 1,000 ms is due: its delay begins with the next clocks.
    const DUE: u64 = 2_000 + DELAY;
    for (i, (announced, at_ms, amount, permit, found)) in [
        (50, DUE, 50, false, 0),
        (50, DUE, 49, false, 0),
        (50, DUE, 51, false, 1),
        (50, DUE - 1, 50, false, 1),
        (50, DUE - 1, 50, true, 0),
        (50, DUE + 1, 50, false, 0),
        (0, DUE, 1, false, 1),
        (0, DUE, 1, true, 0),
        (0, DUE, 100, true, 0),
        (0, DUE, 101, true, 1),
        (200, DUE, 100, false, 0),
        (200, DUE, 101, false, 1),
    ]
    .into_iter()
    .enumerate()
    {
        let mut channel = Channel::new();
        if announced > 0 {
            channel.leave(announced);
        }
        channel.broken.time(2_000);
        channel.broken.time(at_ms);
        channel.withdraw(amount, permit);
        assert_eq!(channel.broken.says(WITHDRAWN), found, "case {i}");
    }
    // What a permit allows leaves the announcement; what was announced is taken once.
    let mut channel = Channel::new();
    channel.leave(50);
    channel.broken.time(2_000);
    channel.broken.time(DUE);
    channel.withdraw(10, true);
    channel.withdraw(50, false);
    assert_eq!(channel.broken.says(WITHDRAWN), 0);
    channel.withdraw(1, false);
    assert_eq!(channel.broken.says(WITHDRAWN), 1);
    // An announcement of nothing takes the one before back.
    let mut channel = Channel::new();
    channel.leave(50);
    channel.broken.time(2_000);
    channel.leave(0);
    channel.broken.time(DUE);
    channel.withdraw(1, false);
    assert_eq!(channel.broken.says(WITHDRAWN), 1);
}

#[test]
fn what_a_side_has_is_what_it_paid_in_less_what_it_sent_and_took() {
    for (sent, back, taken, more) in
        [(0, 0, 30, 70), (40, 0, 30, 30), (40, 15, 30, 45), (0, 15, 0, 100), (100, 0, 0, 0)]
    {
        for (over, found) in [(0, 0), (1, 1)] {
            let mut channel = Channel::new();
            for (payer, amount) in [(0, sent), (1, back)] {
                let voucher = channel.voucher(payer, 1, amount, None);
                channel.alice(voucher);
            }
            if taken > 0 {
                channel.withdraw(taken, true);
            }
            if more + over > 0 {
                channel.withdraw(more + over, true);
            }
            assert_eq!(channel.broken.says(WITHDRAWN), found, "{sent} {back} {taken} {more}");
        }
    }
    // What the other side paid in is its own.
    for (side, has) in [(0, 110), (1, 100)] {
        for (over, found) in [(0, 0), (1, 1)] {
            let mut channel = Channel::new();
            let deposit = wire::ChannelDeposit { channel: channel.id.clone(), side, amount: 10 };
            channel.alice(output::Kind::ChannelDeposit(deposit));
            channel.withdraw(has + over, true);
            assert_eq!(channel.broken.says(WITHDRAWN), found, "side {side}");
        }
    }
}

#[test]
fn vouchers_redeemed_that_were_old_or_came_after_the_end() {
    for (first, second, found) in [(1, 2, 0), (2, 2, 1), (2, 1, 1)] {
        let mut channel = Channel::new();
        for nonce in [first, second] {
            let voucher = channel.voucher(0, nonce, 5, None);
            channel.alice(voucher);
        }
        assert_eq!(channel.broken.says(REDEEMED), found, "{first}, {second}");
    }
    const CLOSES: u64 = 2_000 + DELAY;
    for (at_ms, found) in [(1_500, 0), (CLOSES - 1, 0), (CLOSES, 1), (CLOSES + 1, 1)] {
        for seen in [false, true] {
            let mut channel = Channel::new();
            if seen {
                let voucher = channel.voucher(0, 1, 5, None);
                channel.alice(voucher);
            }
            channel.settle();
            channel.broken.time(2_000);
            channel.broken.time(at_ms.max(2_000));
            let voucher = channel.voucher(0, 2, 5, None);
            channel.alice(voucher);
            assert_eq!(channel.broken.says(REDEEMED), found, "at {at_ms}");
        }
    }
    // One that was collected too early takes none either.
    let mut channel = Channel::new();
    channel.collect();
    let voucher = channel.voucher(0, 1, 5, None);
    channel.alice(voucher);
    assert_eq!(channel.broken.says(REDEEMED), 1);
}

#[test]
fn virtual_channels_claimed_twice_late_or_for_more() {
    let open = |count: u32| {
        let mut channel = Channel::new();
        let set = VirtualSet { root: Bytes::from_static(&[1; 32]), count };
        let voucher = channel.voucher(0, 1, 5, Some(set));
        channel.alice(voucher);
        channel
    };
    for (i, (index, amount, cap, not_after_ms, id, found)) in [
        (1, 20, 20, 1_000, 1, 0),
        (1, 19, 20, 1_001, 1, 0),
        (2, 20, 20, 1_000, 1, 1),
        (3, 20, 20, 1_000, 1, 1),
        (1, 21, 20, 1_000, 1, 1),
        (1, 20, 20, 999, 1, 1),
        (1, 20, 20, 1_000, 2, 1),
    ]
    .into_iter()
    .enumerate()
    {
        let mut channel = open(2);
        channel.claim(index, amount, cap, not_after_ms, id);
        assert_eq!(channel.broken.says(CLAIMED), found, "case {i}");
        // What was claimed is sent.
        channel.withdraw(95 - amount, true);
        assert_eq!(channel.broken.says(WITHDRAWN), 0, "case {i}");
        channel.withdraw(1, true);
        assert_eq!(channel.broken.says(WITHDRAWN), 1, "case {i}");
    }
    let mut channel = open(2);
    channel.claim(0, 20, 20, 1_000, 1);
    channel.claim(1, 20, 20, 1_000, 1);
    assert_eq!(channel.broken.says(CLAIMED), 0);
    channel.claim(1, 20, 20, 1_000, 1);
    assert_eq!(channel.broken.says(CLAIMED), 1);
    let mut channel = Channel::new();
    channel.claim(0, 1, 1, 1_000, 1);
    assert_eq!(channel.broken.says(CLAIMED), 1, "no set was shown");
}

#[test]
fn channels_collected_twice_too_early_or_without_a_settle() {
    const DUE: u64 = 2_000 + DELAY;
    for (settles, at_ms, found) in [(true, DUE, 0), (true, DUE + 1, 0), (true, DUE - 1, 1), (false, DUE, 1)] {
        let mut channel = Channel::new();
        let voucher = channel.voucher(0, 1, 30, None);
        channel.alice(voucher);
        if settles {
            channel.settle();
        }
        channel.broken.time(2_000);
        channel.broken.time(at_ms);
        channel.collect();
        assert_eq!(channel.broken.says(COLLECTED), found, "{settles}, {at_ms}");
        let paid = |channel: &Channel| -> Vec<(u64, i128)> {
            channel.broken.audit().sent.values().map(|flow| (flow.count, flow.amount)).collect()
        };
        let before = paid(&channel);
        assert_eq!(before.iter().fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)), (2, 100));
        channel.collect();
        assert_eq!(channel.broken.says(COLLECTED), found + 1, "{settles}, {at_ms}");
        assert_eq!(paid(&channel), before, "nothing is left");
    }
    // Nobody is credited nothing.
    let mut channel = Channel::new();
    channel.settle();
    channel.broken.time(2_000);
    channel.broken.time(DUE);
    channel.collect();
    let flows: Vec<_> = channel.broken.audit().sent.into_iter().map(|(shard, f)| (shard, f.count, f.amount)).collect();
    assert_eq!(flows, vec![(channel.alice.address.shard(2), 1, 100)]);
}

#[test]
fn channels_that_are_not_there_and_callers_who_are_no_side() {
    let mut channel = Channel::new();
    let mut carol = Signer::new(3);
    let settle = output::Kind::ChannelSettle(wire::ChannelSettle { channel: channel.id.clone() });
    channel.broken.applied(&carol.call(vec![], vec![settle.clone()]));
    assert_eq!(channel.broken.says("expected a side of channel"), 1);
    assert_eq!(channel.broken.says("expected a known channel"), 0);
    let own = channel.bob.call(vec![], vec![settle]);
    channel.broken.applied(&own);
    assert_eq!(channel.broken.says("expected a side of channel"), 1);
    let unknown = wire::ChannelDeposit { channel: Bytes::from_static(&[9; 32]), side: 0, amount: 1 };
    channel.alice(output::Kind::ChannelDeposit(unknown));
    assert_eq!(channel.broken.says("expected a known channel"), 1);
}

/// The record that a channel must have, lane by lane, whoever pays.
#[test]
fn a_channel_is_what_its_vouchers_make_of_it() {
    use crate::ordered::modules::channels::channel_key;
    for payer in [0, 1] {
        let mut channel = Channel::new();
        let with_secret = |mut kind: output::Kind, terms: &dyn Fn(&mut wire::Voucher), keys: &Signer| {
            if let output::Kind::ChannelRedeem(redeem) = &mut kind {
                let one = &mut redeem.redemptions[0];
                let mut voucher = wire::Voucher::decode(one.voucher.take().unwrap().voucher).unwrap();
                terms(&mut voucher);
                voucher.secret_hash = hash(b"secret");
                one.voucher = Some(Voucher::sign(voucher, payer, &[&keys.keys[0]]).signed());
                one.secret = Bytes::from_static(b"secret");
            }
            kind
        };
        let first = with_secret(channel.voucher(payer, 1, 5, None), &|_| (), &channel.alice);
        channel.alice(first);
        let second = |terms: &mut wire::Voucher| {
            (terms.lane, terms.nonce, terms.amount) = (1, 4, 7);
            terms.merges = vec![wire::LaneMerge { lane: 0, nonce: 3 }];
        };
        let second = with_secret(channel.voucher(payer, 1, 5, None), &second, &channel.alice);
        channel.alice(second);
        let lane = |lane, nonce, redeemed, secret: &'static [u8]| wire::ChannelLane {
            payer,
            lane,
            nonce,
            redeemed,
            secret: Bytes::from_static(secret),
            ..Default::default()
        };
        let side = |signer: &Signer, deposited, sent| {
            Some(wire::ChannelSide { address: bytes(signer), deposited, sent, ..Default::default() })
        };
        let record = wire::ChannelRecord {
            opener: side(&channel.alice, 100, if payer == 0 { 7 } else { 0 }),
            other: side(&channel.bob, 0, if payer == 1 { 7 } else { 0 }),
            delay_ms: DELAY,
            two_way: true,
            lanes: vec![lane(0, 3, 0, b"secret"), lane(1, 4, 7, b"secret")],
            revision: 3,
            ..Default::default()
        };
        let is = format!("log: channel {}: ", hex::encode(&channel.id));
        channel.broken.put(channel_key(&channel.id), &record);
        assert_eq!(channel.broken.says(&is), 0, "{:?}", channel.broken.audit().findings);
        type Change = fn(&mut wire::ChannelRecord);
        let changes: [Change; 13] = [
            |r| r.lanes[0].secret = Bytes::new(),
            |r| r.lanes[0].payer ^= 1,
            |r| r.lanes[0].lane += 2,
            |r| r.lanes[0].nonce += 1,
            |r| r.lanes[1].redeemed += 1,
            |r| r.lanes[1].secret = Bytes::new(),
            |r| r.revision += 1,
            |r| r.two_way = false,
            |r| r.delay_ms += 1,
            |r| r.settling_at_ms = 1,
            |r| r.collected = true,
            |r| r.opener.as_mut().unwrap().withdrawn = 1,
            |r| r.other.as_mut().unwrap().leaving = 1,
        ];
        for (i, change) in changes.into_iter().enumerate() {
            let mut other = record.clone();
            change(&mut other);
            channel.broken.put(channel_key(&channel.id), &other);
            assert_eq!(channel.broken.says(&is), 1, "change {i}");
        }
    }
}
