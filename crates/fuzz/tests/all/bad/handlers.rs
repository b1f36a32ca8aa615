//! Whole requests to a shard and to the log. The state is `SHARD.base`, and that of a ledger in which account 1 has opened a contract, a
//! channel and a network.

use bytes::Bytes;
use florin_core::Code::{self, *};
use florin_core::address::Address;
use florin_core::channel::channel_id;
use florin_core::content::{TYPE_PAY, encode_pay};
use florin_core::envelope::Order;
use florin_core::ordered::modules::contracts::contract_id;
use florin_core::testing::{NETWORK_ID, Signer, spoil, to};
use florin_core::wire::{self, input, network_command::Kind as N, output::Kind};
use florin_fuzz::worlds::ledger::{Ledger, START};
use florin_fuzz::worlds::shard::SHARD;
use prost::Message;

use super::Cases;

/// All cases of this file.
pub fn add(cases: &mut Cases) {
    votes(cases);
    settles(cases);
    deliveries(cases);
    closes(cases);
    calls(cases);
}

/// Accounts on shard 0, as the shard's history begins: alice has never sent anything.
fn alice() -> Signer {
    Signer::on_shard(0, 2, 1)
}

fn somebody() -> Address {
    Address::new([1; 32])
}

fn votes(cases: &mut Cases) {
    let request = |orders: Vec<Bytes>| wire::VoteRequest { shard: 0, orders }.encode_to_vec();
    let pay = |signer: &mut Signer, amount| signer.pay(&[to(somebody(), amount)], "");
    cases.whole("shard-vote", "alice pays", request(vec![pay(&mut alice(), 5)]));
    let mut bad = |code: Code, rule: &str, order: Bytes| cases.bad("shard-vote", code, rule, request(vec![order]));
    let with = |change: &dyn Fn(&mut Signer)| {
        let mut signer = alice();
        change(&mut signer);
        signer.pay(&[to(somebody(), 5)], "")
    };
    bad(InsufficientFunds, "one more than there is", pay(&mut alice(), 1_001));
    bad(BadSeq, "seqnum 2 first", {
        let signer = alice();
        let mut body = signer.next_body(TYPE_PAY, encode_pay(&[to(somebody(), 5)], "", None));
        body.seqnum = 2;
        signer.sign(&body)
    });
    bad(BadPrevHash, "a prev_hash in the first order", with(&|s| s.prev_hash = 7));
    bad(KeyMismatch, "with another's key", with(&|s| s.keys = Signer::new(900).keys));
    bad(KeyMismatch, "with a signature that is changed", spoil(&pay(&mut alice(), 5)));
    bad(InsufficientWeight, "without a signature", {
        let signer = Signer { keys: vec![].into(), ..alice() };
        signer.sign(&signer.next_body(TYPE_PAY, encode_pay(&[to(somebody(), 5)], "", signer.open())))
    });
    bad(WrongShard, "of an account of shard 1", pay(&mut Signer::on_shard(1, 2, 20), 5));
    bad(UnknownNetwork, "of a network that nobody knows", pay(&mut alice().in_network(9_998), 5));
    bad(InsufficientFunds, "of an account that has nothing", pay(&mut Signer::on_shard(0, 2, 5_000), 5));
    bad(BadContent, "of a type that nobody knows", alice().order(9, Bytes::from_static(b"x")));
    bad(Decode, "that is no envelope", Bytes::from_static(b"no envelope"));
    bad(EmptyBody, "that is empty", Bytes::new());
    bad(CosignorsRefused, "with a cosignor", {
        let signer = alice();
        let mut body = signer.next_body(TYPE_PAY, encode_pay(&[to(somebody(), 5)], "", signer.open()));
        body.cosignors = vec![5];
        let order = Order::decode(signer.sign(&body)).expect("a signer's order");
        let authorities = vec![order.authorities[0].clone(); 2];
        florin_core::envelope::encode_envelope(&order.body, &authorities)
    });
    bad(AuthorityCount, "with two authorities", {
        let order = Order::decode(pay(&mut alice(), 5)).expect("a signer's order");
        florin_core::envelope::encode_envelope(&order.body, &vec![order.authorities[0].clone(); 2])
    });
    bad(DuplicateSig, "with a signature twice", {
        let mut order = Order::decode(pay(&mut alice(), 5)).expect("a signer's order");
        let twice = order.authorities[0].sigs[0].clone();
        order.authorities[0].sigs.push(twice);
        florin_core::envelope::encode_envelope(&order.body, &order.authorities)
    });
    cases.bad("shard-vote", Limit, "a batch of none", request(vec![]));
    cases.bad("shard-vote", Decode, "no request", [0xff]);
}

fn settles(cases: &mut Cases) {
    let (certificate, orders) = SHARD.certified[0].clone();
    let request = |certificate: &wire::Certificate, orders: &[Bytes]| {
        wire::SettleRequest { certificate: Some(certificate.clone()), orders: orders.to_vec(), ..Default::default() }
            .encode_to_vec()
    };
    cases.whole("shard-settle", "the first order", request(&certificate, &orders));
    let mut bad = |code: Code, rule: &str, change: &dyn Fn(&mut wire::Certificate)| {
        let mut certificate = certificate.clone();
        change(&mut certificate);
        cases.bad("shard-settle", code, rule, request(&certificate, &orders));
    };
    bad(WrongEpoch, "of another epoch", &|c| c.epoch = 2);
    bad(NoQuorum, "with two votes", &|c| c.votes.truncate(2));
    bad(NoQuorum, "without votes", &|c| c.votes.clear());
    bad(BadVote, "with empty bitmaps", &|c| c.votes.iter_mut().for_each(|v| v.bitmap = Bytes::from_static(&[0])));
    bad(DuplicateSigner, "with a vote twice", &|c| c.votes[1] = c.votes[0].clone());
    bad(UnknownAuthority, "with a vote of authority 9", &|c| c.votes[0].authority = 9);
    bad(BadVote, "with a vote for another batch", &|c| c.votes[0] = SHARD.certified[2].0.votes[0].clone());
    bad(Decode, "with a root of 31 bytes", &|c| c.root = c.root.slice(1..));
    bad(Limit, "over no orders", &|c| c.count = 0);
    bad(BadBitmap, "over nine orders", &|c| c.count = 9);
    cases.bad("shard-settle", BadRoot, "with other orders", request(&certificate, &SHARD.certified[2].1));
    cases.bad(
        "shard-settle",
        WrongEpoch,
        "without a certificate",
        wire::SettleRequest { orders, ..Default::default() }.encode_to_vec(),
    );
}

fn deliveries(cases: &mut Cases) {
    let good = SHARD.deliveries[&1][0].clone();
    cases.whole("shard-deliver", "the first of shard 1", good.encode_to_vec());
    let mut bad = |code: Code, rule: &str, change: &dyn Fn(&mut wire::Delivery)| {
        let mut delivery = good.clone();
        change(&mut delivery);
        cases.bad("shard-deliver", code, rule, delivery.encode_to_vec());
    };
    bad(WrongShard, "to another shard", &|d| d.to_shard = 1);
    bad(WrongShard, "from itself", &|d| d.from_shard = 0);
    bad(WrongShard, "from a shard that is not there", &|d| d.from_shard = 2);
    bad(OutOfOrder, "the one after the next", &|d| d.sequence += 1);
    bad(OutOfOrder, "the last there is", &|d| d.sequence = u64::MAX);
    bad(WrongShard, "with steps of the log", &|d| d.steps.push(wire::LogStep::default()));
    bad(WrongShard, "with calls for the log", &|d| d.calls.push(wire::LogCall::default()));
    bad(BadAddress, "to an address of 31 bytes", &|d| d.credits[0].address = d.credits[0].address.slice(1..));
    bad(Decode, "with a credit from nowhere", &|d| d.credits[0].source = None);
    bad(WrongShard, "to an address of another shard", &|d| {
        d.credits[0].address = Bytes::copy_from_slice(Signer::on_shard(1, 2, 20).address.as_bytes());
    });
}

fn closes(cases: &mut Cases) {
    let ledger = Ledger::new();
    let header = wire::SessionHeader {
        epoch: ledger.committee.epoch,
        session: 0,
        units: ledger.book().units,
        time_ms: START,
        state_hash: Bytes::from(vec![1; 32]),
        ..Default::default()
    };
    let signed = |header: &wire::SessionHeader, who: usize| {
        let sign = |i: usize| florin_core::ordered::session::sign(&ledger.committee, i as u32, &ledger.keys[i], header);
        wire::SignedSession { header: Some(header.clone()), signatures: (0..who).map(sign).collect() }
    };
    let mut bad = |code: Code, rule: &str, session: wire::SignedSession| {
        cases.bad("log-close", code, rule, session.encode_to_vec());
    };
    bad(SessionMismatch, "a session with another state", signed(&header, 3));
    bad(NoQuorum, "a session of two signers", signed(&header, 2));
    bad(OutOfOrder, "the next session", signed(&wire::SessionHeader { session: 1, ..header.clone() }, 3));
    bad(
        OutOfOrder,
        "a session with a unit more",
        signed(&wire::SessionHeader { units: header.units + 1, ..header.clone() }, 3),
    );
    bad(
        OutOfOrder,
        "a session with a unit less",
        signed(&wire::SessionHeader { units: header.units - 1, ..header.clone() }, 3),
    );
    bad(WrongEpoch, "a session of another epoch", signed(&wire::SessionHeader { epoch: 7, ..header.clone() }, 3));
    bad(BadSession, "no session", wire::SignedSession::default());
    let mut changed = signed(&header, 3);
    changed.signatures[2].signature = Bytes::from(vec![1; 64]);
    bad(BadSession, "a session with a false signature", changed);
    let mut twice = signed(&header, 3);
    twice.signatures[2] = twice.signatures[1].clone();
    bad(DuplicateSigner, "a session with a signer twice", twice);
    let mut stranger = signed(&header, 3);
    stranger.signatures[2].authority = 4;
    bad(UnknownAuthority, "a session of a stranger", stranger);
    cases.bad(
        "log-signature",
        OutOfOrder,
        "of a session that is not closed",
        signed(&header, 1).signatures[0].encode_to_vec(),
    );
}

/// Operations that honest authorities vote for, and that the log refuses.
fn calls(cases: &mut Cases) {
    let ledger = Ledger::new();
    let signer = &ledger.signers[0];
    // The first order that is prepared, as `bad` in the library makes it.
    let prepared = florin_fuzz::bad::prepared(&ledger).remove(0);
    let order = Order::decode(signer.clone().call(vec![], prepared)).expect("a signer's order");
    let contract = Bytes::copy_from_slice(&contract_id(&order.id, 0));
    let channel = Bytes::copy_from_slice(&channel_id(ledger.committee.id(), &order.id, 1));
    let credit = |amount| Kind::Credit(wire::Credit { address: ledger.address(3), amount });
    let outputs = |kinds: Vec<Kind>| kinds.into_iter().map(|kind| wire::Output { kind: Some(kind) }).collect();
    let call = |inputs, kinds| wire::Call { inputs, outputs: outputs(kinds), ..Default::default() }.encode_to_vec();
    cases.whole("log-call", "a credit", call(vec![], vec![credit(1)]));
    let mut input = |code: Code, rule: &str, amount: u64, kind: input::Kind| {
        let input = wire::Input { amount, kind: Some(kind) };
        cases.bad("log-call", code, rule, call(vec![input], vec![credit(amount)]));
    };
    let claim = |contract: &Bytes| {
        input::Kind::ContractClaim(wire::ContractClaim {
            contract: contract.clone(),
            preimage: Bytes::from_static(b"x"),
        })
    };
    let refund = |contract: &Bytes| input::Kind::ContractRefund(wire::ContractRefund { contract: contract.clone() });
    let nowhere = Bytes::from(vec![9; 32]);
    input(UnknownContract, "a claim of a contract that is not there", 9, claim(&nowhere));
    input(UnknownContract, "a refund of a contract that is not there", 9, refund(&nowhere));
    input(NotAParty, "a claim by the sender", 9, claim(&contract));
    input(ContractOpen, "a refund before the expiry", 9, refund(&contract));
    input(BadAmount, "a refund of one less", 8, refund(&contract));
    let withdraw = |channel: &Bytes| {
        input::Kind::ChannelWithdraw(wire::ChannelWithdraw {
            channel: channel.clone(),
            redemptions: vec![],
            permit: None,
        })
    };
    input(UnknownChannel, "a withdrawal from a channel that is not there", 5, withdraw(&nowhere));
    input(ChannelNotDue, "a withdrawal that was not announced", 5, withdraw(&channel));
    let mut output = |code: Code, rule: &str, kind: Kind| cases.bad("log-call", code, rule, call(vec![], vec![kind]));
    let fund = wire::ContractFund {
        amount: 9,
        hash: nowhere.clone(),
        expiry_ms: START,
        receiver: ledger.address(1),
        sender: ledger.address(0),
    };
    output(ContractExpired, "a contract that ends now", Kind::ContractFund(fund.clone()));
    output(
        ContractExpired,
        "a contract that ended long ago",
        Kind::ContractFund(wire::ContractFund { expiry_ms: 1, ..fund }),
    );
    let deposit =
        |channel: &Bytes| Kind::ChannelDeposit(wire::ChannelDeposit { channel: channel.clone(), side: 0, amount: 1 });
    output(UnknownChannel, "a deposit in a channel that is not there", deposit(&nowhere));
    let settle = |channel: &Bytes| Kind::ChannelSettle(wire::ChannelSettle { channel: channel.clone() });
    output(UnknownChannel, "a settle of a channel that is not there", settle(&nowhere));
    let collect = |channel: &Bytes| Kind::ChannelCollect(wire::ChannelCollect { channel: channel.clone() });
    output(UnknownChannel, "a collect of a channel that is not there", collect(&nowhere));
    output(ChannelNotDue, "a collect of a channel that is open", collect(&channel));
    let keys = |channel: &Bytes| {
        Kind::ChannelKeys(wire::ChannelKeys { channel: channel.clone(), permission: signer.permission.encode() })
    };
    output(ChannelKeys, "keys that were said before", keys(&channel));
    output(UnknownChannel, "keys of a channel that is not there", keys(&nowhere));
    let leave = |channel: &Bytes| Kind::ChannelLeave(wire::ChannelLeave { channel: channel.clone(), amount: 1 });
    output(UnknownChannel, "a leave of a channel that is not there", leave(&nowhere));
    let open = wire::ChannelOpen {
        opener: ledger.address(0),
        other: ledger.address(1),
        opener_permission: signer.permission.encode(),
        other_permission: ledger.signers[2].permission.encode(),
        delay_ms: 1_000,
        two_way: false,
        amount: 1,
    };
    output(ChannelKeys, "a channel with another's keys", Kind::ChannelOpen(open));
    output(
        PrimaryFunds,
        "a deposit of what the primary has not",
        Kind::PrimaryDeposit(wire::PrimaryDeposit { amount: 1, address: ledger.address(0) }),
    );
    let network = |id, kind| Kind::Network(wire::NetworkCommand { network_id: id, kind: Some(kind) });
    output(NetworkExists, "a network that is registered", network(500, N::Register(wire::NetworkRegister::default())));
    output(NetworkExists, "the payment network", network(NETWORK_ID, N::Register(wire::NetworkRegister::default())));
    output(UnknownNetwork, "a network that is not there", network(501, N::Remove(wire::NetworkRemove {})));
    output(NotAdmin, "an offer taken that was not made", network(500, N::Accept(wire::NetworkAccept {})));
    output(
        UnknownActor,
        "an actor frozen who is not there",
        network(500, N::FreezeActor(wire::ActorFreeze { actor: 5, frozen: true })),
    );
    output(UnknownActor, "an actor removed who is not there", network(500, N::RemoveActor(5)));
    output(
        BadContent,
        "a network updated to be ordered",
        network(500, N::Update(wire::NetworkUpdate { flags: 8, ..Default::default() })),
    );
    cases.bad("log-call", BadAmount, "two refunds of which one is wrong", {
        let inputs = [8, 9].map(|amount| wire::Input { amount, kind: Some(refund(&contract)) }).to_vec();
        call(inputs, vec![credit(17)])
    });
}
