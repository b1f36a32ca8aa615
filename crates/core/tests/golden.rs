//! The bytes of everything that is signed, sent or stored, pinned. A change here breaks networks and
//! disks that exist. `FLORIN_REGENERATE=1 cargo test -p florin-core --test golden --test golden_cash` writes
//! the files anew.

#[path = "pinned/log.rs"]
mod log;
#[path = "pinned/mod.rs"]
mod pinned;

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::authority::state::{Account, Holding, Link, Totals, account_key, link_key, order_key, outbox_key};
use florin_core::batch::decode_batch;
use florin_core::bitmap::Bitmap;
use florin_core::certificate::{Promise, signed_bytes};
use florin_core::distilled::root_message;
use florin_core::distilled::round::Sealed;
use florin_core::envelope::Order;
use florin_core::keys::Curve;
use florin_core::ordered::modules::contracts::contract_id;
use florin_core::permission::Permission;
use florin_core::testing::{Cluster, NETWORK_ID, Signer, TestCommittee, secret, to};
use florin_core::{receipt, wire};
use pinned::golden;
use prost::Message;

fn address(byte: u8) -> Address {
    Address::new([byte; 32])
}

fn signer(curve: Curve) -> Signer {
    let key = secret(curve, 5);
    Signer::with(Permission::single(key.public()), vec![key])
}

#[test]
fn orders() {
    for (name, curve) in [("k1", Curve::K1), ("r1", Curve::R1), ("ed25519", Curve::Ed25519)] {
        let mut account = signer(curve);
        let first = account.pay(&[to(address(1), 1), to(address(2), (1 << 63) - 2)], "thank you");
        golden(&format!("pay_open_{name}_envelope"), &first);
        golden(&format!("pay_open_{name}_body"), Order::decode(first).unwrap().body);
        golden(&format!("address_{name}"), account.address.as_bytes());
        golden(&format!("permission_{name}"), account.permission.encode());
    }
    let mut account = signer(Curve::Ed25519);
    account.pay(&[to(address(1), 1)], "");
    golden("pay_envelope", account.pay(&[to(address(1), 300)], ""));
    let keys = vec![secret(Curve::K1, 1), secret(Curve::R1, 2)];
    let permission = Permission { threshold: 2, keys: keys.iter().map(|k| (k.public(), 1)).collect(), actor: 0 };
    golden("set_permission_envelope", account.set_permission(&permission, keys));
    golden("multisig_envelope", account.pay(&[to(address(1), 1)], ""));
    golden("address_text", signer(Curve::Ed25519).address.to_text("flr"));
}

/// Orders of accounts that sign the root of their batch together, and what they sign.
#[test]
fn distilled_batches() {
    let (committee, _) = TestCommittee::default().build();
    let mut signers = [Signer::distilled(5), Signer::distilled(6), Signer::new(7)];
    signers.sort_by_key(Signer::actor);
    let opening = signers.iter_mut().find(|s| !s.bls.is_empty()).unwrap();
    golden("permission_distilled", opening.permission.encode());
    golden("pay_open_distilled_envelope", opening.clone().pay(&[to(address(1), 1)], ""));
    let alone = Signer { keys: opening.bls.clone(), ..opening.clone() };
    golden("pay_open_bls_envelope", alone.clone().pay(&[to(address(1), 1)], ""));
    let orders: Vec<Bytes> = signers.iter_mut().map(|s| s.pay(&[to(address(1), 1)], "")).collect();
    let batch = decode_batch(&orders).unwrap().id;
    golden("distilled_message", root_message(&committee, &batch));
    let share = |s: &Signer| (!s.bls.is_empty()).then(|| s.sign_root(&committee, &batch));
    let sealed = Sealed::new(&orders, signers.iter().map(share).collect()).unwrap();
    golden("distilled_orders", sealed.orders(&sealed.signers()).concat());
}

/// Three orders of one account in one batch, certified and settled by all of four.
fn settled() -> (Cluster, Vec<Bytes>, wire::Certificate, u64) {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let mut account = Signer::new(5);
    cluster.fund(account.address, 100);
    let orders: Vec<Bytes> = (1..=3).map(|i| account.pay(&[to(address(i), u64::from(i))], "")).collect();
    let certificate = cluster.certify(0, &orders);
    cluster.settle(0, &certificate, &orders);
    (cluster, orders, certificate, account.actor())
}

#[test]
fn promises_certificates_and_receipts() {
    let (mut cluster, orders, certificate, actor) = settled();
    let committee = cluster.committee.clone();
    golden("committee_id", committee.id());
    golden("committee_file", committee.to_toml());
    let batch = decode_batch(&orders).unwrap().id;
    let mut bitmap = Bitmap::empty(3);
    bitmap.set(0);
    bitmap.set(2);
    golden("vote_signed_bytes", signed_bytes(Promise::Vote, &committee, &batch, &bitmap));
    golden("settled_signed_bytes", signed_bytes(Promise::Settled, &committee, &batch, &bitmap));
    golden("certificate", certificate.encode_to_vec());
    let request = wire::OrderRequest { network_id: NETWORK_ID, actor, seqnum: 2, ..Default::default() };
    let mut whole = wire::Receipt::default();
    for i in 0..4 {
        let node = cluster.node(i, 0);
        let found = node.authority.order(&node.state, &request).unwrap().receipt.unwrap();
        let acknowledgements = [whole.acknowledgements, found.acknowledgements.clone()].concat();
        whole = wire::Receipt { acknowledgements, ..found };
    }
    receipt::verify(&committee, &whole).unwrap();
    golden("receipt", whole.encode_to_vec());
}

fn entry() -> wire::CreditEntry {
    wire::CreditEntry {
        network_id: 77,
        actor: (1 << 63) - 1,
        seqnum: 300,
        output: 2,
        order_id: Bytes::from_static(&[3; 32]),
        amount: 1 << 40,
        memo: "é".into(),
        kind: 0,
    }
}

#[test]
fn account_record() {
    let account = Account {
        holdings: vec![
            Holding { address: address(1), balance: -5, credits: 0, newest: (0, 0) },
            Holding { address: address(2), balance: i128::from(u64::MAX) * 3, credits: 300, newest: (400, 5) },
        ],
        address: Some(address(1)),
        permission: signer(Curve::Ed25519).permission.encode(),
        seqnum: 7,
        prev_hash: u64::MAX,
        pending: vec![wire::PendingRecord {
            order_id: Bytes::from_static(&[4; 32]),
            batch: 8,
            index: 9,
            amount: 10,
            set_permission: true,
            open: Bytes::from_static(&[5; 3]),
            call: false,
        }],
        early: vec![wire::EarlyRecord { seqnum: 11, batch: 12, index: 13, ..Default::default() }],
        ..Default::default()
    };
    let bytes = account.encode();
    golden("record_account", &bytes);
    let back = wire::AccountRecord::decode(&bytes[..]).unwrap();
    assert_eq!(Account::decode(back).unwrap(), account);
    golden("record_account_empty", Account::default().encode());
}

#[test]
fn other_records() {
    let (_, orders, certificate, _) = settled();
    let hash = || Bytes::from_static(&[6; 32]);
    golden("record_batch", wire::BatchRecord { orders }.encode_to_vec());
    let settled = Bytes::from_static(&[0b101]);
    let progress = wire::ProgressRecord {
        root: hash(),
        count: 3,
        settled: settled.clone(),
        certificates: vec![certificate],
        by_log: Default::default(),
    };
    golden("record_progress", progress.encode_to_vec());
    golden(
        "record_order",
        wire::OrderRecord { order_id: hash(), batch: 300, index: 4_095, ..Default::default() }.encode_to_vec(),
    );
    let credit = wire::CreditRecord {
        address: Bytes::copy_from_slice(address(2).as_bytes()),
        entry: Some(entry()),
        previous_batch: 300,
        previous_index: 7,
    };
    golden("record_credits", wire::CreditsRecord { credits: vec![credit.clone(), credit] }.encode_to_vec());
    let entry_settled =
        wire::SettledEntry { position: 1 << 33, root: hash(), count: 3, bitmap: settled, ..Default::default() };
    golden("record_settled", entry_settled.encode_to_vec());
    let delivered = wire::DeliveredCredit { address: hash(), amount: 1 << 40, source: Some(entry()) };
    let delivery =
        wire::Delivery { from_shard: 1, to_shard: 2, sequence: 300, credits: vec![delivered], ..Default::default() };
    golden("record_delivery", delivery.encode_to_vec());
    let totals = Totals {
        accounts: -1,
        sent: 2,
        received: 1 << 100,
        genesis: 4,
        issued: 5,
        orders: 6,
        next: (7, 8, 9),
        genesis_lines: 10,
        genesis_done: true,
        waiting: 11,
        voided: 0,
        notes: vec![(300, 1), (2, 0)],
    };
    golden("record_totals", totals.encode().encode_to_vec());
}

#[test]
fn keys_of_tables() {
    golden("key_account", account_key(1, 2));
    golden("key_order", order_key(1, 2, 3));
    golden("key_outbox", outbox_key(1, 2));
    let links = [Link::Sent, Link::Acknowledged, Link::Applied].map(|link| link_key(link, 258));
    golden("key_links", links.concat());
}

fn bytes32(byte: u8) -> Bytes {
    vec![byte; 32].into()
}

fn contract_fund() -> wire::ContractFund {
    wire::ContractFund { amount: 300, hash: bytes32(1), expiry_ms: 1 << 40, receiver: bytes32(2), sender: bytes32(3) }
}

fn network_commands() -> Vec<wire::output::Kind> {
    use wire::network_command::Kind as N;
    let register = wire::NetworkRegister {
        flags: 5,
        metadata: Bytes::from_static(b"name"),
        listeners: vec![bytes32(7), bytes32(8)],
        open: false,
    };
    let kinds = [
        N::Register(register),
        N::Metadata(wire::NetworkMetadata { metadata: Bytes::from_static(b"other") }),
        N::Offer(wire::NetworkOffer { admin: bytes32(9) }),
        N::Accept(wire::NetworkAccept {}),
        N::Remove(wire::NetworkRemove {}),
    ];
    kinds.map(|kind| wire::output::Kind::Network(wire::NetworkCommand { network_id: 900, kind: Some(kind) })).into()
}

fn precheck() -> wire::Precheck {
    wire::Precheck {
        types: vec![wire::TypeRange { first: 10, last: 300 }],
        content_max: 4_000,
        actors: vec![1, 1 << 40],
    }
}

/// Commands for PBTX networks and their actors.
#[test]
fn commands_of_pbtx_networks() {
    use wire::network_command::Kind as N;
    let actor = florin_core::testing::Actor::new(900, 5, Curve::K1);
    let permission = actor.permission.encode();
    let signature = florin_core::registration::sign_registration(&permission, &actor.keys[0]);
    let signature = Bytes::copy_from_slice(signature.as_bytes());
    let kinds = [
        N::Register(wire::NetworkRegister { flags: 0x1_0009, open: true, ..Default::default() }),
        N::Update(wire::NetworkUpdate { flags: 3, listeners: vec![bytes32(7)], open: true }),
        N::Precheck(precheck()),
        N::Actor(permission.clone()),
        N::Open(wire::ActorOpen { permission, signature }),
        N::RemoveActor(5),
        N::FreezeActor(wire::ActorFreeze { actor: 5, frozen: true }),
        N::Prune(wire::HistoryPrune { before_us: 1 << 50, max_rows: 200 }),
        N::Admit(wire::ActorAdmit { actor: 5, order_id: bytes32(1) }),
    ];
    let outputs =
        kinds.map(|kind| wire::output::Kind::Network(wire::NetworkCommand { network_id: 900, kind: Some(kind) }));
    let order = Order::decode(signer(Curve::Ed25519).call(vec![], outputs.into())).unwrap();
    florin_core::content::Content::decode(&order).unwrap();
    golden("call_pbtx_content", order.content);
    golden("rotate_envelope", actor.clone().rotate(vec![florin_core::testing::secret(Curve::R1, 9)]));
}

/// Records of PBTX networks, and what the log says of them.
#[test]
fn records_of_pbtx_networks() {
    use wire::log_step::Kind as L;
    let network = wire::NetworkRecord {
        flags: 9,
        metadata: Bytes::from_static(b"name"),
        listeners: vec![bytes32(7)],
        open: true,
        prechecks: vec![wire::NetworkPrecheck { by: bytes32(7), precheck: Some(precheck()) }],
        ..Default::default()
    };
    let record = wire::NetworkShardRecord { network: Some(network.clone()), entries: 300, pruned: 7 };
    golden("record_network_at_shard", record.encode_to_vec());
    let entry = wire::StreamRecord {
        batch: 300,
        index: 7,
        event: 4,
        trx_id: bytes32(1),
        time_us: 1 << 50,
        ..Default::default()
    };
    golden("record_stream_order", entry.encode_to_vec());
    let event =
        wire::StreamRecord { event: 1, data: Bytes::from_static(b"name"), time_us: 1 << 50, ..Default::default() };
    golden("record_stream_event", event.encode_to_vec());
    let actor = wire::ActorRecord { permission: bytes32(1), removed: false, frozen: true, generation: 300 };
    golden("record_actor", actor.encode_to_vec());
    let account = Account { permission: bytes32(1), barred: true, rotation: (300, 299), ..Default::default() };
    golden("record_account_pbtx", account.encode());
    golden("key_stream", florin_core::authority::state::stream_key(900, 300));
    golden("key_order_by_id", florin_core::authority::state::order_id_key(900, 5, &[1; 32]));
    let (network_id, order_id) = (900, bytes32(1));
    let steps = [
        L::Network(wire::LogNetwork { network_id, network: Some(network), metadata: true }),
        L::Actor(wire::LogActor {
            network_id,
            actor: 5,
            permission: bytes32(2),
            removed: true,
            frozen: true,
            rotated: 300,
            order_id: order_id.clone(),
            generation: 301,
            admitted: bytes32(3),
        }),
        L::Stream(wire::LogStream { network_id, actor: 5, seqnum: 300, order_id }),
        L::Prune(wire::LogPrune { network_id, before_us: 1 << 50, max_rows: 300 }),
    ];
    let steps = steps.map(|kind| wire::LogStep { kind: Some(kind) });
    let delivery = wire::Delivery { from_shard: u32::MAX, sequence: 9, steps: steps.into(), ..Default::default() };
    golden("record_delivery_of_networks", delivery.encode_to_vec());
}

#[test]
fn orders_of_shared_objects() {
    use wire::{input, output};
    let mut account = signer(Curve::Ed25519);
    golden("recover_open_body", Order::decode(account.recover()).unwrap().body);
    let open = account.call(vec![], vec![output::Kind::ContractFund(contract_fund())]);
    golden("call_open_envelope", &open);
    let order = Order::decode(open).unwrap();
    golden("contract_id", contract_id(&order.id, 1));
    let claim = wire::ContractClaim { contract: bytes32(1), preimage: Bytes::from_static(b"secret") };
    let refund = wire::ContractRefund { contract: bytes32(2) };
    let inputs = vec![
        wire::Input { amount: 300, kind: Some(input::Kind::ContractClaim(claim)) },
        wire::Input { amount: 1, kind: Some(input::Kind::ContractRefund(refund)) },
    ];
    let mut outputs = vec![
        output::Kind::Credit(wire::Credit { address: bytes32(4), amount: 5 }),
        output::Kind::ContractFund(contract_fund()),
        output::Kind::PrimaryRedeem(wire::PrimaryRedeem { amount: 6, address: bytes32(5) }),
        output::Kind::PrimaryDeposit(wire::PrimaryDeposit { amount: 7, address: bytes32(6) }),
    ];
    outputs.extend(network_commands());
    let order = Order::decode(account.call(inputs, outputs)).unwrap();
    florin_core::content::Content::decode(&order).unwrap();
    golden("call_content", order.content);
    golden("recover_envelope", account.recover());
}

#[test]
fn orders_and_vouchers_of_channels() {
    use florin_core::channel::voucher::{Voucher, sign_virtual, sign_watch, sign_withdraw};
    use wire::{input, output};
    let mut account = signer(Curve::Ed25519);
    let key = &account.keys.clone()[0];
    golden("channel_id", florin_core::channel::channel_id(&[1; 32], &[2; 32], 300));
    let terms = wire::Voucher {
        channel: bytes32(1),
        payer: 1,
        lane: 300,
        nonce: 1 << 40,
        amount: 1 << 41,
        not_before_ms: 1 << 42,
        not_after_ms: 1 << 43,
        secret_hash: bytes32(2),
        merges: vec![wire::LaneMerge { lane: 1, nonce: 2 }, wire::LaneMerge { lane: 3, nonce: 300 }],
        virtuals: Some(wire::VirtualSet { root: bytes32(9), count: 256 }),
    };
    let voucher = Voucher::sign(terms, 1, &[key]);
    golden("voucher_digest", voucher.digest());
    golden("voucher", voucher.signed().encode_to_vec());
    let permit = wire::WithdrawPermit { channel: bytes32(1), side: 1, withdrawn: 300, not_after_ms: 1 << 40 };
    let permit = sign_withdraw(&permit, &[key]);
    golden("withdraw_permit", permit.encode_to_vec());
    let watch = sign_watch(&wire::WatchPermit { channel: bytes32(1), side: 1, watcher: bytes32(3) }, &[key]);
    golden("watch_permit", watch.encode_to_vec());
    let one = wire::Redemption {
        voucher: Some(voucher.signed()),
        secret: Bytes::from_static(b"secret"),
        watch: Some(watch.clone()),
    };
    let cap = wire::VirtualCap {
        id: bytes32(4),
        permission: account.permission.encode(),
        cap: 1 << 40,
        not_after_ms: 1 << 41,
    };
    golden("virtual_leaf", florin_core::channel::voucher::virtual_leaf(&cap));
    let amount = sign_virtual(&wire::VirtualAmount { id: bytes32(4), amount: 300 }, &[key]);
    let claim = wire::VirtualClaim {
        channel: bytes32(1),
        payer: 1,
        lane: 300,
        cap: Some(cap),
        index: 200,
        path: vec![bytes32(5), bytes32(6)],
        amount: Some(amount),
        watch: Some(watch),
    };
    let withdraw = wire::ChannelWithdraw { channel: bytes32(1), redemptions: vec![one.clone()], permit: Some(permit) };
    let inputs = vec![wire::Input { amount: 300, kind: Some(input::Kind::ChannelWithdraw(withdraw)) }];
    let permission = account.permission.encode();
    let outputs = vec![
        output::Kind::ChannelOpen(wire::ChannelOpen {
            opener: bytes32(1),
            other: bytes32(2),
            opener_permission: permission.clone(),
            other_permission: permission.clone(),
            delay_ms: 86_400_000,
            two_way: true,
            amount: 1 << 40,
        }),
        output::Kind::ChannelDeposit(wire::ChannelDeposit { channel: bytes32(1), side: 1, amount: 300 }),
        output::Kind::ChannelKeys(wire::ChannelKeys { channel: bytes32(1), permission }),
        output::Kind::ChannelRedeem(wire::ChannelRedeem { redemptions: vec![one], claims: vec![claim] }),
        output::Kind::ChannelLeave(wire::ChannelLeave { channel: bytes32(1), amount: 300 }),
        output::Kind::ChannelSettle(wire::ChannelSettle { channel: bytes32(1) }),
        output::Kind::ChannelCollect(wire::ChannelCollect { channel: bytes32(1) }),
    ];
    let order = Order::decode(account.call(inputs, outputs)).unwrap();
    florin_core::content::Content::decode(&order).unwrap();
    golden("call_of_channels", order.content);
}

/// Fields of a shard's records that CALLs and recoveries need.
#[test]
fn records_of_recoveries() {
    let account = Account {
        seqnum: 300,
        pending: vec![wire::PendingRecord { order_id: bytes32(1), call: true, ..Default::default() }],
        last_call: 299,
        frozen: 301,
        voided: 298,
        recovering: 301,
        ..Default::default()
    };
    golden("record_account_recovering", account.encode());
    let order = wire::OrderRecord {
        order_id: bytes32(1),
        batch: 300,
        index: 7,
        previous_permission: signer(Curve::Ed25519).permission.encode(),
        previous_call: 299,
        call: true,
        voted_other: true,
    };
    golden("record_order_before", order.encode_to_vec());
    assert!(wire::OrderRecord::default().encode_to_vec().is_empty(), "of a voided seqnum");
    let progress = wire::ProgressRecord {
        root: bytes32(1),
        count: 3,
        settled: Bytes::from_static(&[1]),
        certificates: Vec::new(),
        by_log: Bytes::from_static(&[6]),
    };
    golden("record_progress_voided", progress.encode_to_vec());
    let undone = wire::SettledEntry {
        position: 9,
        root: bytes32(1),
        count: 3,
        bitmap: Bytes::from_static(&[2]),
        undone: true,
        by_log: true,
    };
    golden("record_settled_undone", undone.encode_to_vec());
    let totals = Totals { voided: 300, ..Default::default() };
    golden("record_totals_voided", totals.encode().encode_to_vec());
    for kind in 0..5 {
        golden(&format!("record_credit_kind_{kind}"), wire::CreditEntry { kind, ..entry() }.encode_to_vec());
    }
    assert!(wire::credit_entry::Kind::try_from(5).is_err(), "a kind that no file pins");
    let call = wire::LogCall {
        network_id: NETWORK_ID,
        actor: 1 << 40,
        seqnum: 300,
        batch: 7,
        index: 8,
        report: true,
        recover: true,
        shown: true,
        order_id: Bytes::from_static(&[9; 32]),
        nonce: Bytes::from_static(&[8; 32]),
    };
    let to_log =
        wire::Delivery { from_shard: 1, to_shard: u32::MAX, sequence: 2, calls: vec![call], ..Default::default() };
    golden("record_delivery_to_log", to_log.encode_to_vec());
    golden("record_delivery_from_log", from_log().encode_to_vec());
}

fn from_log() -> wire::Delivery {
    use wire::log_step::Kind;
    let freeze = wire::LogFreeze { network_id: NETWORK_ID, actor: 1 << 40, seqnum: 300 };
    let resolve = wire::LogResolve {
        network_id: NETWORK_ID,
        actor: 1 << 40,
        seqnum: 300,
        void: true,
        prev_hash: u64::MAX,
        account: bytes32(1),
        open: signer(Curve::Ed25519).permission.encode(),
    };
    let settle = wire::LogSettle { bodies: vec![Bytes::from_static(b"body"), Bytes::from_static(b"another")] };
    let steps = [Kind::Settle(settle), Kind::Freeze(freeze), Kind::Resolve(resolve)];
    let steps = steps.into_iter().map(|kind| wire::LogStep { kind: Some(kind) }).collect();
    let refund = wire::CreditEntry { kind: 1, ..entry() };
    let credit = wire::DeliveredCredit { address: bytes32(1), amount: 1 << 40, source: Some(refund) };
    wire::Delivery {
        from_shard: u32::MAX,
        to_shard: 2,
        sequence: 3,
        steps,
        credits: vec![credit],
        ..Default::default()
    }
}
