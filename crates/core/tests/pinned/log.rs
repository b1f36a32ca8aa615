//! The bytes of the log: items, units, sessions, its records and keys.

use bytes::Bytes;
use florin_core::authority::state::{Table, outbox_key};
use florin_core::keys::Curve;
use florin_core::ordered::book::Book;
use florin_core::ordered::modules::bridge::redeem_key;
use florin_core::ordered::modules::contracts::contract_key;
use florin_core::ordered::modules::primary::{balance_key, deposit_key, redeem_hash};
use florin_core::ordered::modules::registry::network_key;
use florin_core::ordered::session;
use florin_core::ordered::step::{Object, actor_key};
use florin_core::testing::{Cluster, NETWORK_ID, Signer, TestCommittee, to};
use florin_core::wire;
use prost::Message;

use super::pinned::golden;
use super::{address, bytes32, contract_fund, signer};

#[test]
fn items_units_and_sessions() {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let mut signers: Vec<Signer> = (1..=4).map(Signer::new).collect();
    signers.iter().for_each(|s| cluster.fund(s.address, 100));
    let one = || vec![wire::output::Kind::Credit(wire::Credit { address: bytes32(4), amount: 5 })];
    let orders: Vec<Bytes> = [
        signers[0].call(vec![], one()),
        signers[1].pay(&[to(address(1), 1)], ""),
        signers[2].pay(&[to(address(1), 1)], ""),
        signers[3].call(vec![], one()),
    ]
    .into();
    cluster.run(&orders);
    let items = cluster.log_items(0);
    golden("item_orders", &items[0]);
    let report = wire::RecoveryReport { network_id: NETWORK_ID, actor: 1 << 40, seqnum: 300, order_id: bytes32(3) };
    let item = wire::Item { kind: Some(wire::item::Kind::Report(report)) };
    golden("item_report", item.encode_to_vec());
    let data = wire::UnitData { clock_ms: 1 << 40, items: vec![items[0].clone(), item.encode_to_vec().into()] };
    let unit = wire::OrderedUnit { creator: 2, data: data.encode_to_vec().into() };
    golden("unit", unit.encode_to_vec());
    golden("unit_hash", session::unit_hash(&unit));
    cluster.set_time(1_000);
    cluster.order(2, &unit.data);
    let log = &cluster.logs[0];
    let book = log.log.book(&log.state).unwrap();
    assert_eq!(book.orders, 2);
    golden("state_hash", &book.state_hash);
    let header = wire::SessionHeader {
        epoch: 1,
        session: 1 << 33,
        previous: bytes32(1),
        units_root: bytes32(2),
        units: 300,
        time_ms: 1 << 40,
        state_hash: bytes32(3),
        shard_hashes: vec![bytes32(4), bytes32(5)],
        next_committee: Bytes::from_static(b"committee"),
        redeems: 300,
        last_redeem: bytes32(6),
    };
    golden("session_header", header.encode_to_vec());
    golden("session_header_hash", session::header_hash(&header));
    golden("session_signed_bytes", session::signed_bytes(&cluster.committee, &header));
    let sign = |i: u32| session::sign(&cluster.committee, i, &cluster.keys[i as usize], &header);
    let signed = wire::SignedSession { header: Some(header.clone()), signatures: vec![sign(0), sign(2)] };
    golden("session_signed", signed.encode_to_vec());
    golden("record_session", wire::SessionRecord { session: Some(signed) }.encode_to_vec());
    golden("redeem_hash", redeem_hash(&redeem()));
}

fn redeem() -> wire::RedeemEntry {
    wire::RedeemEntry { index: 300, address: bytes32(1), amount: 1 << 40, order_id: bytes32(2), previous: bytes32(3) }
}

#[test]
fn records_of_the_log() {
    use wire::contract_reply::State;
    let book = Book {
        session: 1 << 33,
        units: 300,
        bytes: 1 << 20,
        previous: bytes32(1),
        time_ms: 1 << 40,
        clocks: vec![0, 1, 1 << 40, u64::MAX],
        state_hash: bytes32(2),
        received: 1 << 100,
        sent: 2,
        contracts: 3,
        channels: -3,
        primary: -4,
        deposits: 5,
        redeems: 6,
        last_redeem: bytes32(3),
        orders: 7,
        open_recoveries: 8,
    };
    golden("record_log", book.encode().encode_to_vec());
    let caller = wire::CallerRecord { last_call: 300, voided: vec![301, 302], recovered: 302 };
    golden("record_caller", caller.encode_to_vec());
    let outcome = wire::OutcomeRecord {
        order_id: bytes32(1),
        session: 300,
        index: 7,
        code: 407,
        message: "input 0: log time: expected before 1 ms, found 2".into(),
    };
    golden("record_outcome", outcome.encode_to_vec());
    let side = |n: u8| wire::ChannelSide {
        address: bytes32(n),
        permission: signer(Curve::Ed25519).permission.encode(),
        deposited: 1 << 40,
        withdrawn: 300,
        sent: 301,
        leaving: 302,
        leaving_at_ms: 1 << 41,
    };
    let lane = |payer, lane| wire::ChannelLane {
        payer,
        lane,
        nonce: 300,
        redeemed: 301,
        secret: Bytes::from_static(b"s"),
        virtuals: Some(wire::VirtualSet { root: bytes32(3), count: 7 }),
        claimed: vec![wire::ClaimedVirtual { index: 6, amount: Some(wire::SignedPermit::default()) }],
    };
    let channel = wire::ChannelRecord {
        opener: Some(side(1)),
        other: Some(side(2)),
        delay_ms: 86_400_000,
        two_way: true,
        settling_at_ms: 1 << 42,
        collected: true,
        lanes: vec![lane(0, 7), lane(1, 300)],
        revision: 300,
    };
    golden("record_channel", channel.encode_to_vec());
    let contract = wire::ContractRecord {
        fund: Some(contract_fund()),
        state: State::Claimed as i32,
        preimage: Bytes::from_static(b"secret"),
    };
    golden("record_contract", contract.encode_to_vec());
    let recovery = wire::RecoveryRecord {
        seqnum: 300,
        prev_hash: u64::MAX,
        due_ms: 1 << 40,
        account: bytes32(1),
        open: signer(Curve::Ed25519).permission.encode(),
        reports: Bytes::from_static(&[0b1011]),
    };
    golden("record_recovery", recovery.encode_to_vec());
    golden("record_primary_balance", wire::PrimaryBalance { amount: 1 << 40 }.encode_to_vec());
    golden("record_primary", wire::PrimaryRecord { deposits: 300, paid: 301 }.encode_to_vec());
    let deposit = wire::DepositEntry { index: 300, address: bytes32(1), amount: 1 << 40, from: bytes32(2) };
    golden("record_deposit", deposit.encode_to_vec());
    golden("record_redeem", redeem().encode_to_vec());
    let network = wire::NetworkRecord {
        admin: bytes32(1),
        flags: 5,
        metadata: Bytes::from_static(b"name"),
        listeners: vec![bytes32(7)],
        offered: bytes32(2),
        removed: true,
        actors: 300,
        open: false,
        prechecks: Vec::new(),
    };
    golden("record_network", network.encode_to_vec());
}

#[test]
fn keys_of_the_log() {
    let letters: Vec<u8> = Object::ALL.iter().map(|o| *o as u8).collect();
    golden("key_object_letters", letters);
    golden("key_caller", actor_key(Object::Caller, 1, 2));
    golden("key_recovery", actor_key(Object::Recovery, 1, 2));
    golden("key_contract", contract_key(&[7; 32]));
    golden("key_deposit", deposit_key(1));
    golden("key_redeem", redeem_key(1));
    golden("key_network", network_key(1));
    golden("key_primary", balance_key(&[7; 32]));
    golden("key_unit", session::unit_key(1, 2));
    golden("key_outbox_log", outbox_key(u32::MAX, 1));
}

/// Keys of a log that has ordered a CALL and decided a recovery, and what the order after a voided one names.
#[test]
fn a_log_with_a_recovery() {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let mut account = Signer::new(5);
    cluster.fund(account.address, 500);
    cluster.set_time(1_000);
    let call = account.call(vec![], vec![wire::output::Kind::ContractFund(contract_fund())]);
    cluster.run_ordered(&[call]);
    cluster.run_ordered(&[account.recover()]);
    let keys: Vec<&[u8]> = cluster.logs[0].state.iter(Table::Objects).map(|(key, _)| key).collect();
    golden("keys_of_objects", keys.concat());
    cluster.set_time(1_000 + florin_core::limits::RECOVERY_WAIT_MS);
    cluster.order_all();
    golden("void_prev_hash", cluster.node(0, 0).account(account.actor()).prev_hash.to_be_bytes());
}
