//! The form of what orders may say to modules, and the words in which the log refuses.

use super::super::modules::channels::channel_key;
use super::super::modules::contracts::concerns;
use super::super::modules::{Caller, check_input, check_output};
use super::super::step::Step;
use super::*;
use crate::authority::state::LOG;
use crate::channel::voucher::{Voucher, sign_withdraw};
use crate::keys::Curve;
use crate::limits::{AMOUNT_MAX, CHANNEL_DELAY_MIN_MS, ID_MAX};
use crate::network_flags::{HISTORY, ORDERED, RAW_NOTIFY, SKIP_SEQ_AND_PREVHASH};
use crate::registration::sign_registration;
use wire::network_command::Kind as N;

const ID: u64 = 500;

fn command(kind: N) -> output::Kind {
    output::Kind::Network(wire::NetworkCommand { network_id: ID, kind: Some(kind) })
}

fn said(kind: output::Kind) -> Option<Code> {
    check_output(&kind).err().map(|e| e.code)
}

fn says(kind: N) -> Option<Code> {
    said(command(kind))
}

fn of_length(n: usize) -> Bytes {
    vec![1; n].into()
}

#[test]
fn commands_for_networks_are_well_formed_or_refused_with_their_code() {
    let (content, int63) = (Some(Code::BadContent), Some(Code::Int63));
    let update = |flags| N::Update(wire::NetworkUpdate { flags, ..Default::default() });
    let register = |flags| N::Register(wire::NetworkRegister { flags, ..Default::default() });
    for kind in [update, register] {
        assert_eq!([0, RAW_NOTIFY, HISTORY, ORDERED, SKIP_SEQ_AND_PREVHASH, 1 << 31].map(|f| says(kind(f))), [None; 6]);
        assert_eq!(says(kind(ORDERED | HISTORY | RAW_NOTIFY)), None);
        assert_eq!(says(kind(ORDERED | SKIP_SEQ_AND_PREVHASH)), content);
        assert_eq!(says(kind(16)), content);
    }
    let listeners = |n: usize| vec![of_length(n)];
    for (n, refused) in [(31, content), (32, None), (33, content)] {
        assert_eq!(says(N::Register(wire::NetworkRegister { listeners: listeners(n), ..Default::default() })), refused);
        assert_eq!(says(N::Update(wire::NetworkUpdate { listeners: listeners(n), ..Default::default() })), refused);
        assert_eq!(says(N::Offer(wire::NetworkOffer { admin: of_length(n) })), refused);
        let order_id = of_length(n);
        assert_eq!(says(N::Admit(wire::ActorAdmit { actor: 1, order_id })), refused);
    }
    assert_eq!(says(N::Offer(wire::NetworkOffer::default())), None, "an offer is taken back");
    for (actor, refused) in [(0, int63), (1, None), (ID_MAX, None), (ID_MAX + 1, int63)] {
        assert_eq!(says(N::Admit(wire::ActorAdmit { actor, order_id: of_length(32) })), refused, "{actor}");
        assert_eq!(says(N::RemoveActor(actor)), refused, "{actor}");
        assert_eq!(says(N::FreezeActor(wire::ActorFreeze { actor, frozen: true })), refused, "{actor}");
        let kind = Some(register(0));
        assert_eq!(said(output::Kind::Network(wire::NetworkCommand { network_id: actor, kind })), refused, "{actor}");
    }
    let ranges = |first, last| {
        let types = vec![wire::TypeRange { first: 3, last: 3 }, wire::TypeRange { first, last }];
        says(N::Precheck(wire::Precheck { types, ..Default::default() }))
    };
    assert_eq!([ranges(4, 5), ranges(5, 5), ranges(6, 5)], [None, None, content]);
    let actors = |actors: &[u64]| says(N::Precheck(wire::Precheck { actors: actors.to_vec(), ..Default::default() }));
    assert_eq!([actors(&[1, 2, 9]), actors(&[1, 1]), actors(&[2, 1])], [None, content, content]);
    let actor = Actor::new(ID, 7, Curve::K1);
    let permission = actor.permission.encode();
    let signature = Bytes::copy_from_slice(sign_registration(&permission, &actor.keys[0]).as_bytes());
    assert_eq!(says(N::Actor(permission.clone())), None);
    assert!(says(N::Actor(of_length(3))).is_some());
    let open = |permission: &Bytes, signature: &Bytes| {
        says(N::Open(wire::ActorOpen { permission: permission.clone(), signature: signature.clone() }))
    };
    assert_eq!(open(&permission, &signature), None);
    assert!(open(&of_length(3), &signature).is_some() && open(&permission, &of_length(3)).is_some());
    let unknown = wire::NetworkCommand { network_id: ID, kind: None };
    assert_eq!(said(output::Kind::Network(unknown)), content);
}

#[test]
fn what_outputs_take_is_their_amount_and_nothing_for_the_rest() {
    let takes = |kind: output::Kind| check_output(&kind).unwrap();
    let (alice, bob) = (Signer::new(1), Signer::new(2));
    let channel = Bytes::from_static(&[9; 32]);
    assert_eq!(takes(credit(&bob, 5)), 5);
    assert_eq!(takes(fund(6, 9, &alice, &bob)), 6);
    assert_eq!(takes(output::Kind::PrimaryRedeem(wire::PrimaryRedeem { amount: 7, address: bytes(&bob) })), 7);
    assert_eq!(takes(output::Kind::PrimaryDeposit(wire::PrimaryDeposit { amount: 8, address: bytes(&bob) })), 0);
    assert_eq!(takes(command(N::RemoveActor(1))), 0);
    let deposit = wire::ChannelDeposit { channel: channel.clone(), side: 1, amount: 9 };
    assert_eq!(takes(output::Kind::ChannelDeposit(deposit)), 9);
    assert_eq!(takes(output::Kind::ChannelSettle(wire::ChannelSettle { channel: channel.clone() })), 0);
    assert_eq!(takes(output::Kind::ChannelCollect(wire::ChannelCollect { channel: channel.clone() })), 0);
    let leave = |amount| output::Kind::ChannelLeave(wire::ChannelLeave { channel: channel.clone(), amount });
    assert_eq!((takes(leave(0)), takes(leave(AMOUNT_MAX))), (0, 0));
    assert_eq!(said(leave(AMOUNT_MAX + 1)), Some(Code::BadAmount));
    let open = |amount, delay_ms| {
        output::Kind::ChannelOpen(wire::ChannelOpen {
            opener: bytes(&alice),
            other: bytes(&bob),
            delay_ms,
            amount,
            ..Default::default()
        })
    };
    let delay = CHANNEL_DELAY_MIN_MS;
    assert_eq!((takes(open(0, delay)), takes(open(AMOUNT_MAX, delay))), (0, AMOUNT_MAX));
    assert_eq!(said(open(AMOUNT_MAX + 1, delay)), Some(Code::BadAmount));
    assert_eq!(said(open(1, delay - 1)), Some(Code::BadContent));
}

#[test]
fn ids_and_addresses_have_thirty_two_bytes_wherever_they_stand() {
    let (alice, bob) = (Signer::new(1), Signer::new(2));
    let short = of_length(31);
    let voucher = |channel: &Bytes| {
        let terms = wire::Voucher { channel: channel.clone(), amount: 1, ..Default::default() };
        let voucher = Some(Voucher::sign(terms, 0, &[&alice.keys[0]]).signed());
        wire::Redemption { voucher, ..Default::default() }
    };
    let opening = |opener: &Bytes, other: &Bytes| {
        let (opener, other) = (opener.clone(), other.clone());
        let delay_ms = CHANNEL_DELAY_MIN_MS;
        output::Kind::ChannelOpen(wire::ChannelOpen { opener, other, delay_ms, ..Default::default() })
    };
    let output::Kind::ContractFund(good) = fund(6, 9, &alice, &bob) else { panic!("a contract") };
    let good_fund = output::Kind::ContractFund(good.clone());
    assert_eq!(said(good_fund), None);
    let keys = |channel: &Bytes| {
        let permission = alice.permission.encode();
        output::Kind::ChannelKeys(wire::ChannelKeys { channel: channel.clone(), permission })
    };
    assert_eq!((said(keys(&of_length(32))), said(keys(&short))), (None, Some(Code::BadContent)));
    let redeem = |channel: &Bytes| {
        let redemptions = vec![voucher(channel)];
        output::Kind::ChannelRedeem(wire::ChannelRedeem { redemptions, claims: vec![] })
    };
    assert_eq!((said(redeem(&of_length(32))), said(redeem(&short))), (None, Some(Code::BadContent)));
    for kind in [
        output::Kind::ContractFund(wire::ContractFund { hash: short.clone(), ..good.clone() }),
        output::Kind::ContractFund(wire::ContractFund { receiver: short.clone(), ..good.clone() }),
        output::Kind::ContractFund(wire::ContractFund { sender: short.clone(), ..good }),
        output::Kind::Credit(wire::Credit { address: short.clone(), amount: 1 }),
        output::Kind::PrimaryRedeem(wire::PrimaryRedeem { amount: 1, address: short.clone() }),
        output::Kind::PrimaryDeposit(wire::PrimaryDeposit { amount: 1, address: short.clone() }),
        output::Kind::ChannelDeposit(wire::ChannelDeposit { channel: short.clone(), side: 0, amount: 1 }),
        output::Kind::ChannelLeave(wire::ChannelLeave { channel: short.clone(), amount: 1 }),
        output::Kind::ChannelSettle(wire::ChannelSettle { channel: short.clone() }),
        output::Kind::ChannelCollect(wire::ChannelCollect { channel: short.clone() }),
        opening(&short, &bytes(&bob)),
        opening(&bytes(&alice), &short),
        opening(&bytes(&alice), &bytes(&alice)),
    ] {
        assert_eq!(said(kind.clone()), Some(Code::BadContent), "{kind:?}");
    }
    // Inputs, by what they name.
    let claim = |contract: &Bytes, preimage: usize| {
        let preimage = of_length(preimage);
        check_input(&input::Kind::ContractClaim(wire::ContractClaim { contract: contract.clone(), preimage }))
    };
    let good = of_length(32);
    assert!(claim(&good, 1).is_ok() && claim(&good, 64).is_ok());
    assert_eq!([0, 65].map(|n| code(claim(&good, n))), [Code::Limit; 2]);
    assert_eq!(code(claim(&short, 1)), Code::BadContent);
    let refund = |contract: &Bytes| {
        check_input(&input::Kind::ContractRefund(wire::ContractRefund { contract: contract.clone() }))
    };
    assert!(refund(&good).is_ok());
    assert_eq!(code(refund(&short)), Code::BadContent);
    let permit = |channel: &Bytes| {
        let permit = wire::WithdrawPermit { channel: channel.clone(), ..Default::default() };
        sign_withdraw(&permit, &[&alice.keys[0]])
    };
    let withdraw = |channel: &Bytes, permit: Option<wire::SignedPermit>, redemptions: Vec<wire::Redemption>| {
        let channel = channel.clone();
        check_input(&input::Kind::ChannelWithdraw(wire::ChannelWithdraw { channel, redemptions, permit }))
    };
    assert!(withdraw(&good, None, vec![]).is_ok());
    assert!(withdraw(&good, Some(permit(&good)), vec![voucher(&good)]).is_ok());
    for refused in [
        withdraw(&short, None, vec![]),
        withdraw(&good, Some(permit(&short)), vec![]),
        withdraw(&good, None, vec![voucher(&good), voucher(&short)]),
        withdraw(&good, None, vec![wire::Redemption::default()]),
    ] {
        assert_eq!(code(refused), Code::BadContent);
    }
}

#[test]
fn a_contract_concerns_its_sender_and_its_receiver_and_nobody_else() {
    let [alice, bob, carol] = [1, 2, 3].map(Signer::new);
    let output::Kind::ContractFund(fund) = fund(6, 9, &alice, &bob) else { panic!("a contract") };
    assert_eq!([&alice, &bob, &carol].map(|who| concerns(&fund, &who.address)), [true, true, false]);
}

/// What an order says when it failed in the log: the code and the message that its wallet shows.
fn failure(cluster: &mut Cluster, signer: &Signer, order: Bytes) -> (Option<Code>, String) {
    cluster.run_ordered(&[order]);
    let status = cluster.status(0, signer, signer.seqnum);
    (Code::from_number(status.code), status.message)
}

#[test]
fn a_contract_that_is_over_says_how_it_ended() {
    let (mut cluster, mut alice, mut bob) = setup(1);
    let order = alice.call(vec![], vec![fund(10, 5_000, &alice.clone(), &bob), fund(10, 5_000, &alice.clone(), &bob)]);
    let ids = [0, 1].map(|i| contract_id(&id_of(&order), i));
    cluster.run_ordered(&[order]);
    let take = |bob: &mut Signer, id| {
        let own = bob.clone();
        bob.call(vec![claim(id, 10, b"secret")], vec![credit(&own, 10)])
    };
    let order = take(&mut bob, ids[0]);
    assert_eq!(failure(&mut cluster, &bob, order), (None, String::new()));
    let order = take(&mut bob, ids[0]);
    let (code, message) = failure(&mut cluster, &bob, order);
    assert_eq!(code, Some(Code::ContractClosed));
    assert!(message.starts_with("input 0: ") && message.ends_with("expected open, found claimed"), "{message}");
    cluster.set_time(5_000);
    let own = alice.clone();
    let back = alice.call(vec![refund(ids[1], 10)], vec![credit(&own, 10)]);
    assert_eq!(failure(&mut cluster, &alice, back).0, None);
    let order = take(&mut bob, ids[1]);
    let (code, message) = failure(&mut cluster, &bob, order);
    assert_eq!(code, Some(Code::ContractClosed));
    assert!(message.ends_with("expected open, found refunded"), "{message}");
}

#[test]
fn flags_that_are_for_good_are_named_when_they_would_change() {
    for (flags, update, refused) in [
        (HISTORY, RAW_NOTIFY, None),
        (ORDERED, ORDERED | HISTORY, None),
        (SKIP_SEQ_AND_PREVHASH, SKIP_SEQ_AND_PREVHASH | 1 << 20, None),
        (ORDERED | HISTORY, HISTORY, Some("expected 8, found 0")),
        (HISTORY, ORDERED, Some("expected 0, found 8")),
        (SKIP_SEQ_AND_PREVHASH, HISTORY, Some("expected 4, found 0")),
        (SKIP_SEQ_AND_PREVHASH, ORDERED | HISTORY, Some("expected 4, found 8")),
        (0, SKIP_SEQ_AND_PREVHASH, Some("expected 0, found 4")),
    ] {
        let (mut cluster, mut alice, _) = setup(1);
        let register = N::Register(wire::NetworkRegister { flags, ..Default::default() });
        let order = alice.call(vec![], vec![command(register)]);
        assert_eq!(failure(&mut cluster, &alice, order).0, None);
        let kind = N::Update(wire::NetworkUpdate { flags: update, ..Default::default() });
        let order = alice.call(vec![], vec![command(kind)]);
        let (code, message) = failure(&mut cluster, &alice, order);
        assert_eq!(code, refused.map(|_| Code::BadContent), "{flags} to {update}: {message}");
        assert!(message.ends_with(refused.unwrap_or_default()), "{message}");
        let log = &cluster.logs[0];
        let found = log.log.network(&log.state, &wire::NetworkRequest { network_id: ID }).unwrap().network.unwrap();
        assert_eq!(found.flags, if refused.is_some() { flags } else { update });
    }
}

#[test]
fn only_the_admin_and_listeners_say_what_a_network_takes() {
    let (mut cluster, mut alice, mut bob) = setup(1);
    let mut carol = Signer::new(3);
    cluster.fund(carol.address, 10);
    let register = N::Register(wire::NetworkRegister { listeners: vec![bytes(&bob)], ..Default::default() });
    let order = alice.call(vec![], vec![command(register)]);
    cluster.run_ordered(&[order]);
    let precheck = || command(N::Precheck(wire::Precheck { actors: vec![1], ..Default::default() }));
    for (who, refused) in [(&mut alice, None), (&mut bob, None), (&mut carol, Some(Code::NotAdmin))] {
        let order = who.call(vec![], vec![precheck()]);
        assert_eq!(failure(&mut cluster, who, order).0, refused);
    }
}

/// Shards are told what voters and listeners need: not whose a network is, nor how many actors it has.
#[test]
fn shards_are_not_told_who_administers_a_network() {
    let (mut cluster, mut alice, mut bob) = setup(1);
    let accept = |signer: &mut Signer| signer.call(vec![], vec![command(N::Accept(wire::NetworkAccept {}))]);
    let register =
        N::Register(wire::NetworkRegister { flags: HISTORY, listeners: vec![bytes(&bob)], ..Default::default() });
    let mut outputs = vec![command(register), Actor::new(ID, 7, Curve::K1).registration()];
    outputs.push(command(N::Offer(wire::NetworkOffer { admin: bytes(&bob) })));
    let order = alice.call(vec![], outputs);
    cluster.run(&[order]);
    let items = cluster.log_items(0);
    cluster.order_items(0, 0, items);
    let told = |cluster: &Cluster| -> Vec<wire::NetworkRecord> {
        let log = &cluster.logs[0];
        let (first, last) = log.log.outbox_range(&log.state, 0).unwrap();
        let deliveries = (first..=last).map(|sequence| log.log.outbox(&log.state, 0, sequence).unwrap());
        let steps = deliveries.inspect(|d| assert_eq!(d.from_shard, LOG)).flat_map(|d| d.steps);
        let kinds = steps.filter_map(|step| match step.kind {
            Some(wire::log_step::Kind::Network(n)) => n.network,
            _ => None,
        });
        kinds.collect()
    };
    let expected =
        wire::NetworkRecord { flags: HISTORY, listeners: vec![bytes(&bob)], ..wire::NetworkRecord::default() };
    assert_eq!(told(&cluster), vec![expected.clone()]);
    cluster.order_all();
    let order = accept(&mut bob);
    cluster.run(&[order]);
    let items = cluster.log_items(0);
    cluster.order_items(0, 0, items);
    let log = &cluster.logs[0];
    let now = log.log.network(&log.state, &wire::NetworkRequest { network_id: ID }).unwrap().network.unwrap();
    assert_eq!((&now.admin, now.offered.len(), now.actors), (&bytes(&bob), 0, 1));
    assert_eq!(told(&cluster), vec![], "voters do not ask");
    cluster.order_all();
    check(&cluster, &[]);
}

/// More than any amount may be never comes together in a channel.
#[test]
fn a_channel_takes_no_deposit_beyond_the_largest_amount() {
    let alice = Signer::new(1);
    let caller = Caller {
        account: alice.address,
        network_id: NETWORK_ID,
        actor: alice.actor(),
        seqnum: 1,
        order_id: [1; 32],
        memo: String::new(),
        committee_id: [2; 32],
        epoch: 1,
    };
    for (before, amount, says) in [
        (AMOUNT_MAX - 5, 5, ""),
        (AMOUNT_MAX - 5, 6, "expected at most 2^63 - 1, found 9223372036854775808"),
        (AMOUNT_MAX, AMOUNT_MAX, "expected at most 2^63 - 1, found 18446744073709551614"),
    ] {
        let cluster = Cluster::new(&TestCommittee::new(4, 1));
        let mut step = Step::new(&cluster.committee, &cluster.logs[0].state).unwrap();
        let side = |deposited| Some(wire::ChannelSide { deposited, address: bytes(&alice), ..Default::default() });
        let record = wire::ChannelRecord { opener: side(before), other: side(0), ..Default::default() };
        step.put(channel_key(&[9; 32]), &record);
        let deposit = wire::ChannelDeposit { channel: Bytes::from_static(&[9; 32]), side: 0, amount };
        let output = wire::Output { kind: Some(output::Kind::ChannelDeposit(deposit)) };
        let done = super::super::modules::apply_output(&output, 0, &caller, &mut step);
        match says {
            "" => {
                done.unwrap();
                assert_eq!(step.book.channels, i128::from(amount));
            }
            says => {
                let error = done.unwrap_err();
                assert!(error.code == Code::BadAmount && error.message.ends_with(says), "{}", error.message);
            }
        }
    }
}

#[test]
fn a_network_is_as_it_was_registered() {
    let (mut cluster, mut alice, bob) = setup(1);
    let register = wire::NetworkRegister {
        flags: ORDERED | HISTORY,
        metadata: Bytes::from_static(b"text"),
        listeners: vec![bytes(&bob), bytes(&alice)],
        open: true,
    };
    let order = alice.call(vec![], vec![command(N::Register(register.clone()))]);
    assert_eq!(failure(&mut cluster, &alice, order), (None, String::new()));
    let expected = wire::NetworkRecord {
        admin: bytes(&alice),
        flags: register.flags,
        metadata: register.metadata,
        listeners: register.listeners,
        open: true,
        ..Default::default()
    };
    for log in &cluster.logs {
        let request = wire::NetworkRequest { network_id: ID };
        assert_eq!(log.log.network(&log.state, &request).unwrap().network, Some(expected.clone()));
    }
    check(&cluster, &[]);
}
