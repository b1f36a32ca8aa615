//! The bytes of everything that is signed, sent or stored, pinned. A change here breaks networks and
//! disks that exist. `FLORIN_REGENERATE=1 cargo test -p florin-core --test golden` writes the files anew.

use std::path::PathBuf;

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::authority::state::{Account, Holding, Link, Totals, account_key, link_key, order_key, outbox_key};
use florin_core::batch::decode_batch;
use florin_core::bitmap::Bitmap;
use florin_core::certificate::{Promise, signed_bytes};
use florin_core::envelope::Order;
use florin_core::keys::Curve;
use florin_core::permission::Permission;
use florin_core::testing::{Cluster, NETWORK_ID, Signer, TestCommittee, secret, to};
use florin_core::{receipt, wire};
use prost::Message;

/// Compares with `golden/<name>.hex`.
fn golden(name: &str, bytes: impl AsRef<[u8]>) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.hex"));
    let digits = hex::encode(bytes);
    let lines: Vec<&str> = digits.as_bytes().chunks(96).map(|l| std::str::from_utf8(l).expect("hex")).collect();
    let text = lines.join("\n") + "\n";
    if std::env::var_os("FLORIN_REGENERATE").is_some_and(|v| v == "1") {
        std::fs::write(&path, text).expect("a writable checkout");
        return;
    }
    let pinned = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(text, pinned.replace('\r', ""), "{name} has other bytes than networks and disks that exist");
}

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
    let request = wire::OrderRequest { network_id: NETWORK_ID, actor, seqnum: 2 };
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
        early: vec![wire::EarlyRecord { seqnum: 11, batch: 12, index: 13 }],
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
    let progress =
        wire::ProgressRecord { root: hash(), count: 3, settled: settled.clone(), certificates: vec![certificate], voided: Default::default() };
    golden("record_progress", progress.encode_to_vec());
    golden("record_order", wire::OrderRecord { order_id: hash(), batch: 300, index: 4_095, ..Default::default() }.encode_to_vec());
    let credit = wire::CreditRecord {
        address: Bytes::copy_from_slice(address(2).as_bytes()),
        entry: Some(entry()),
        previous_batch: 300,
        previous_index: 7,
    };
    golden("record_credits", wire::CreditsRecord { credits: vec![credit.clone(), credit] }.encode_to_vec());
    let entry_settled = wire::SettledEntry { position: 1 << 33, root: hash(), count: 3, bitmap: settled, undone: false };
    golden("record_settled", entry_settled.encode_to_vec());
    let delivered = wire::DeliveredCredit { address: hash(), amount: 1 << 40, source: Some(entry()) };
    let delivery = wire::Delivery { from_shard: 1, to_shard: 2, sequence: 300, credits: vec![delivered], ..Default::default() };
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
