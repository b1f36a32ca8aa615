//! Seeds that are made: valid values of everything, and short lives of what has state.

use std::path::Path;

use bytes::Bytes;
use florin_client::cash::text::{self, Kind};
use florin_client::journal;
use florin_client::seed::Seed;
use florin_core::address::Address;
use florin_core::cash::curve::{G1, G2, Scalar};
use florin_core::certificate::BatchId;
use florin_core::channel::voucher::{self, Voucher};
use florin_core::content::encode_rotate;
use florin_core::distilled::Proposal;
use florin_core::envelope::{Body, encode_body};
use florin_core::eosio::{PrivateKey, public_to_legacy_text, public_to_text, signature_to_text};
use florin_core::keys::Curve;
use florin_core::merkle::Tree;
use florin_core::permission::Permission;
use florin_core::registration::sign_registration;
use florin_core::testing::{Actor, NETWORK_ID, Signer, TestCommittee, secret, seed, to};
use florin_core::{pbtx, wire};
use florin_fuzz::worlds::proofs::PROOFS;
use prost::Message;

/// Target, name, bytes.
pub type Made = (&'static str, String, Vec<u8>);

struct Seeds(Vec<Made>);

impl Seeds {
    fn add(&mut self, target: &'static str, name: impl Into<String>, bytes: impl AsRef<[u8]>) {
        self.0.push((target, name.into(), bytes.as_ref().to_vec()));
    }

    /// The same for several targets.
    fn each(&mut self, targets: &[&'static str], name: &str, bytes: impl AsRef<[u8]>) {
        targets.iter().for_each(|target| self.add(target, name, bytes.as_ref()));
    }
}

/// The bytes of a golden file of the core.
pub fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../core/tests/golden/{name}.hex"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    hex::decode(text.split_whitespace().collect::<String>()).expect("golden files are hex digits")
}

fn with(first: &[u8], rest: impl AsRef<[u8]>) -> Vec<u8> {
    [first, rest.as_ref()].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    with(&(bytes.len() as u16).to_le_bytes(), bytes)
}

/// All of them.
pub fn seeds() -> Vec<Made> {
    let mut seeds = Seeds(Vec::new());
    orders(&mut seeds);
    proofs(&mut seeds);
    keys(&mut seeds);
    texts(&mut seeds);
    records(&mut seeds);
    vouchers(&mut seeds);
    lives(&mut seeds);
    seeds.0
}

fn orders(seeds: &mut Seeds) {
    let envelopes = [
        "pay_envelope",
        "pay_open_k1_envelope",
        "pay_open_r1_envelope",
        "set_permission_envelope",
        "multisig_envelope",
        "call_open_envelope",
        "cash_bearer_envelope",
        "cash_recover_notes_envelope",
    ];
    let mut batch = Vec::new();
    for name in envelopes {
        let envelope = golden(name);
        seeds.each(&["envelope", "pbtx_verdict"], name, &envelope);
        let body = pbtx::Transaction::decode(&envelope[..]).expect("a golden envelope").body;
        let content = pbtx::TransactionBody::decode(body.clone()).expect("a golden body");
        seeds.each(&["order_body", "content"], name, &body);
        let kind = content.transaction_type as u8 - 1;
        let first = u8::from(content.seqnum != 1);
        seeds.add("content_of_type", name, with(&[kind, first], &content.transaction_content));
        batch.extend(long(&envelope));
        if content.transaction_type >= 5 {
            seeds.add("bearer", name, &envelope);
        }
    }
    seeds.add("batch", "envelopes", &batch);
    seeds.add("batch", "junk", long(b"no order"));
    for name in ["call_content", "call_of_channels", "call_pbtx_content", "cash_withdraw_content"] {
        let kind = if name.starts_with("call") { 2 } else { 0 };
        seeds.add("content_of_type", name, with(&[kind, 1], golden(name)));
    }
    let permission = Permission { actor: 7, ..Permission::single(secret(Curve::R1, 3).public()) };
    seeds.add("rotate", "r1", encode_rotate(permission.encode(), 1));
    let mut actor = Actor::new(5, 9, Curve::K1);
    actor.keys = vec![secret(Curve::K1, 1)].into();
    let order = actor.order(7, b"content", &[]);
    seeds.add("pbtx_verdict", "k1", with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &order));
    let other = Actor::new(5, 10, Curve::R1);
    let cosigned = actor.order(7, b"content", &[&other]);
    seeds.add("pbtx_verdict", "cosigned", with(&[4, 1, 0, 0, 0, 0, 0, 0, 0, 0], &cosigned));
    let body = Body {
        network_id: 1,
        actor: 2,
        cosignors: vec![3, 4],
        seqnum: 5,
        prev_hash: 6,
        transaction_type: 7,
        content: Bytes::from_static(b"8"),
    };
    seeds.add("order_body", "all-fields", encode_body(&body));
}

fn proofs(seeds: &mut Seeds) {
    seeds.add("bitmap", "nine", [9, 0, 0xff, 1, 0x0f, 0]);
    seeds.add("bitmap", "sixteen", [16, 0, 0xaa, 0x55, 0xff, 0xff]);
    let ids = [[1; 32], [2; 32], [3; 32]];
    let tree = Tree::new(&ids);
    let proposal = Proposal { batch: BatchId { root: tree.root(), count: ids.len() }, index: 1, path: tree.path(1) };
    let proposal = proposal.to_wire(&TestCommittee::default().build().0).encode_to_vec();
    seeds.add("root_proposal", "of-three", with(&[2], proposal));
    seeds.add("merkle", "honest", [12, 3, 3, 12, 3, 1, 5, 9]);
    seeds.add("merkle", "liar", [40, 7, 7, 40, 4, 1, 2, 20, 39, 0, 3, 1, 0, 3, 9, 6, 1, 5, 2]);
    let votes = |batch: usize| PROOFS.batches[batch].votes.clone();
    let raw = PROOFS.certificate(0, votes(0)).encode_to_vec();
    seeds.add("certificate", "raw", with(&[0], raw));
    seeds.add("certificate", "three-votes", with(&[0], PROOFS.certificate(2, votes(2)).encode_to_vec()));
    seeds.add("certificate", "composed", [1, 0, 3, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0]);
    seeds.add("receipt", "raw", with(&[0], long(&PROOFS.receipt(0, 1).encode_to_vec())));
    seeds.add("receipt", "composed", [1, 0, 1, 0]);
    seeds.add("receipt", "not-settled", [1, 2, 0, 0]);
    seeds.add("evidence", "twice", [1, 0, 0, 0, 1, 1, 0, 0]);
    let both = [0, 1].map(|i| with(&[0], long(&PROOFS.receipt(i, 0).encode_to_vec()))).concat();
    seeds.add("evidence", "raw", both);
    seeds.add("session", "raw", with(&[0], with(&long(&PROOFS.sessions[0].encode_to_vec()), [3, 0])));
    seeds.add("session", "composed", [1, 0, 0, 3, 0]);
}

fn keys(seeds: &mut Seeds) {
    for (name, curve) in [("k1", Curve::K1), ("r1", Curve::R1), ("ed25519", Curve::Ed25519)] {
        let key = secret(curve, 5);
        let permission = Permission { actor: 7, ..Permission::single(key.public()) };
        seeds.add("permission", name, permission.encode());
        seeds.add("permission", format!("account-{name}"), golden(&format!("permission_{name}")));
        seeds.add("key_bytes", format!("public-{name}"), key.public().as_bytes());
        seeds.add("key_bytes", format!("signature-{name}"), key.sign_body(b"body").as_bytes());
        seeds.add("key_bytes", format!("text-{name}"), key.public().to_string());
        let private = PrivateKey::new(curve, seed("fuzz", 1).into()).expect("a hash is a key");
        seeds.add("eosio_text", format!("private-{name}"), private.to_text().as_bytes());
        seeds.add("eosio_text", format!("public-{name}"), public_to_text(&key.public()));
        seeds.add("eosio_text", format!("signature-{name}"), signature_to_text(&key.sign_body(b"body")));
        if let (Some(wif), Some(legacy)) = (private.to_wif(), public_to_legacy_text(&key.public())) {
            seeds.add("eosio_text", "wif", wif.as_bytes());
            seeds.add("eosio_text", "legacy", legacy);
        }
        let bytes = permission.encode();
        let signature = sign_registration(&bytes, &key);
        seeds.add("registration", name, with(&[66], with(signature.as_bytes(), &bytes)));
    }
    seeds.add("points", "g1", G1::generator().to_bytes());
    seeds.add("points", "g1-identity", G1::identity().to_bytes());
    seeds.add("points", "g2", G2::generator().to_bytes());
    seeds.add("points", "scalar", *Scalar::from_u64(7).to_bytes());
    let mint = florin_core::cash::testing::mint(4, 2);
    seeds.add("dkg_wire", "keys", mint[0].public().encode());
    seeds.add("dkg_wire", "shares", &mint[0].encode_shares().expect("it has them")[..]);
    use florin_core::cash::dkg::wire::{Announce, DkgItem, Kind as Dkg};
    let announce = Announce { key: Bytes::from(vec![1; 48]), proof: Bytes::from(vec![2; 64]) };
    for (name, kind) in [("announce", Dkg::Announce(announce)), ("go-on", Dkg::GoOn(1))] {
        let item = DkgItem { run_id: Bytes::from(vec![3; 32]), kind: Some(kind) };
        seeds.add("dkg_wire", name, item.encode_to_vec());
    }
}

/// Notes of a text.
pub fn notes() -> wire::CashNotes {
    let committee = TestCommittee::default().build().0;
    let lock = wire::NoteLock { receiver: Bytes::from(vec![4; 32]), sender: Bytes::from(vec![5; 32]), after_ms: 6 };
    let signature = Bytes::copy_from_slice(&G1::generator().to_bytes());
    let free = wire::CashNote {
        tier: 3,
        secret: Bytes::from(vec![7; 32]),
        signature: signature.clone(),
        ..Default::default()
    };
    let locked = wire::CashNote { tier: 0, lock: Some(lock), signature, ..Default::default() };
    wire::CashNotes {
        committee_id: Bytes::copy_from_slice(committee.id()),
        network_id: NETWORK_ID,
        notes: vec![free, locked],
        memo: "tea".into(),
    }
}

/// A voucher of an account that is known to the targets.
pub fn signed_voucher() -> wire::SignedVoucher {
    let terms = wire::Voucher {
        channel: Bytes::from(vec![6; 32]),
        lane: 1,
        nonce: 2,
        amount: 300,
        not_after_ms: 5,
        secret_hash: Bytes::from(vec![8; 32]),
        merges: vec![wire::LaneMerge { lane: 2, nonce: 9 }],
        virtuals: Some(wire::VirtualSet { root: Bytes::from(vec![1; 32]), count: 3 }),
        ..Default::default()
    };
    Voucher::sign(terms, 0, &[&Signer::new(1).keys[0]]).signed()
}

/// An invoice.
pub fn invoice() -> wire::HubInvoice {
    wire::HubInvoice {
        network_id: NETWORK_ID,
        payee: Bytes::from(vec![1; 32]),
        channel: Bytes::from(vec![2; 32]),
        amount: 5,
        secret_hash: Bytes::from(vec![3; 32]),
        expires_ms: 7,
        memo: "tea".into(),
    }
}

fn texts(seeds: &mut Seeds) {
    let address = Address::new(std::array::from_fn(|i| i as u8));
    seeds.add("address_text", "flr", address.to_text("flr"));
    seeds.add("address_text", "upper", address.to_text("flr").to_uppercase());
    for text in ["12.50", "0.01", "92233720368547758.07", "007", "1."] {
        seeds.add("amount_text", text, with(&[2], text));
    }
    let committee = TestCommittee::default().build().0;
    seeds.add("committee_toml", "four", committee.to_toml());
    seeds.add("committee_toml", "two-shards", TestCommittee::new(5, 2).build().0.to_toml());
    let note_bytes = notes().encode_to_vec();
    seeds.add("cash_text", "notes-text", with(&[0], text::encode(Kind::Notes, "flr", &note_bytes)));
    seeds.add("cash_text", "notes", with(&[1], &note_bytes));
    seeds.add("cash_text", "key", with(&[2], with(&NETWORK_ID.to_be_bytes(), [9; 32])));
    let given = wire::Redemption { voucher: Some(signed_voucher()), secret: Bytes::from_static(b"s"), watch: None };
    seeds.add("channel_text", "voucher", with(&[1], given.encode_to_vec()));
    seeds.add("channel_text", "voucher-text", with(&[0], text::encode(Kind::Voucher, "flr", &given.encode_to_vec())));
    seeds.add("channel_text", "permit", with(&[2], withdraw_permit().encode_to_vec()));
    let of = wire::HubInvoiceText { invoice: invoice().encode_to_vec().into(), hub: "hub:7500".into() };
    seeds.add("channel_text", "invoice", with(&[3], of.encode_to_vec()));
    seeds.add("qr_frames", "short", with(&[7, 3, 1, 0, 2], "FLRCASH1QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"));
    seeds.add("qr_frames", "raw", "QR-Code:FLRCASH/2/5/1F0A3C59/ABC");
    seeds.add("seed_words", "entropy", [7; 16]);
    seeds.add("seed_words", "words", Seed::from_entropy(&[1; 16]).expect("16 bytes").words().as_bytes());
    let envelope = hex::encode(golden("pay_envelope"));
    seeds.add("envelope_lines", "two", format!("# comment\n{envelope}\n\n{envelope}\n"));
    let line = address.to_text("flr");
    seeds.add("genesis_lines", "lines", format!("# who\n{line} 12.50\n{line}\t0.01\n"));
    let file = "committee = \"committee.toml\"\nkey = \"file:key\"\ndata = \"data\"\nhttp = \"127.0.0.1:9000\"\n";
    seeds.add("authority_toml", "file", file);
    seeds.add("authority_toml", "secret", hex::encode([3; 32]));
}

/// A permit to withdraw.
pub fn withdraw_permit() -> wire::SignedPermit {
    let permit = wire::WithdrawPermit { channel: Bytes::from(vec![6; 32]), side: 1, withdrawn: 5, not_after_ms: 9 };
    voucher::sign_withdraw(&permit, &[&Signer::new(1).keys[0]])
}

fn records(seeds: &mut Seeds) {
    let all: [(u8, &[&str]); 21] = [
        (0, &["record_account", "record_account_empty", "record_account_pbtx", "record_account_recovering"]),
        (1, &["record_batch"]),
        (2, &["record_progress", "record_progress_voided"]),
        (3, &["record_order", "record_order_before"]),
        (4, &["record_credits"]),
        (5, &["record_settled", "record_settled_undone"]),
        (6, &["record_delivery", "record_delivery_from_log", "record_delivery_of_networks", "record_delivery_to_log"]),
        (7, &["record_totals", "record_totals_voided"]),
        (8, &["record_network_at_shard"]),
        (9, &["record_stream_event", "record_stream_order"]),
        (10, &["record_note"]),
        (11, &["record_log"]),
        (12, &["record_session"]),
        (14, &["record_caller"]),
        (15, &["record_outcome"]),
        (16, &["record_contract"]),
        (17, &["record_channel"]),
        (18, &["record_actor"]),
        (20, &["record_recovery"]),
        (21, &["record_note_recovery"]),
        (u8::MAX, &["record_issued"]),
    ];
    for (kind, names) in all {
        names.iter().for_each(|name| seeds.add("disk_records", *name, with(&[kind], golden(name))));
    }
    let lines = journal::write(&["one", "two", "three"]).expect("texts are JSON");
    seeds.add("journal", "lines", with(&[0], lines));
    seeds.add("journal", "torn", with(&[1, 0, 40, 0, 0, 0, 0, 0, 0, 0], "one\ntwo\nthree"));
    seeds.add("journal", "damaged", with(&[1, 3, 40, 0, 0, 0, 0, 0, 0, 0], "one\ntwo\nthree"));
    let receipt = hex::encode(golden("receipt"));
    seeds.add("receipt_file", "receipt", format!(r#"{{"florin_receipt":1,"note":"x","receipt":"{receipt}"}}"#));
    seeds.add("wallet_file", "one", wallet_file());
    let hash = || Bytes::from(vec![6; 32]);
    use wire::manager_record::Kind as M;
    let kinds = [
        M::NextId(9),
        M::Cancel(3),
        M::Lane(wire::ManagerLane { channel: hash(), side: 0, lane: 1 }),
        M::Issued(signed_voucher()),
        M::Seen(wire::ManagerSeen { channel: hash(), record: Some(wire::ChannelRecord::default()), time_ms: 5 }),
    ];
    let records = kinds.map(|kind| wire::ManagerRecord { kind: Some(kind) }.encode_to_vec());
    for (i, record) in records.iter().enumerate() {
        seeds.add("manager_journal", format!("{i}"), long(record));
        let record = wire::ManagerRecord::decode(&record[..]).expect("made here");
        let entry = wire::HubEntry { kind: Some(wire::hub_entry::Kind::Channel(record)) };
        seeds.add("hub_journal", format!("{i}"), long(&wire::HubGroup { entries: vec![entry] }.encode_to_vec()));
    }
    seeds.add("ordering_frames", "two", [&long(b"\0whole")[..], &long(&[1, 8, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3])].concat());
    seeds.add("ordering_message", "request", [1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    seeds.add("ordering_message", "alert", with(&[1, 1, 2], [1; 40]));
}

/// A wallet file that is never decrypted.
pub fn wallet_file() -> String {
    let key = secret(Curve::Ed25519, 1).public();
    let (salt, nonce) = ("00".repeat(16), "11".repeat(12));
    let kdf = format!(r#"{{"name":"argon2id","memory_kib":65536,"passes":3,"lanes":4,"salt":"{salt}"}}"#);
    format!(
        r#"{{"florin_wallet":1,"network_id":"77","currency":"flr","decimals":2,"curve":"ed25519","accounts":1,"public_keys":["{key}"],"kdf":{kdf},"cipher":"chacha20poly1305","nonce":"{nonce}","ciphertext":"0011"}}"#
    )
}

fn vouchers(seeds: &mut Seeds) {
    seeds.add("voucher", "all-fields", signed_voucher().encode_to_vec());
    seeds.add("permits", "withdraw", withdraw_permit().encode_to_vec());
    let keys = Signer::new(1).keys;
    let watch = wire::WatchPermit { channel: Bytes::from(vec![6; 32]), side: 1, watcher: Bytes::from(vec![2; 32]) };
    seeds.add("permits", "watch", voucher::sign_watch(&watch, &[&keys[0]]).encode_to_vec());
    let amount = wire::VirtualAmount { id: Bytes::from(vec![1; 32]), amount: 5 };
    let signed = voucher::sign_virtual(&amount, &[&keys[0]]);
    seeds.add("permits", "virtual", signed.encode_to_vec());
    seeds.add("permits", "claim", virtual_claim(signed).encode_to_vec());
    seeds.add("invoice", "tea", invoice().encode_to_vec());
    let _ = to(Address::new([1; 32]), 1);
}

/// A claim of a virtual channel.
pub fn virtual_claim(amount: wire::SignedPermit) -> wire::VirtualClaim {
    let permission = Signer::new(1).permission.encode();
    let cap = wire::VirtualCap { id: Bytes::from(vec![1; 32]), permission, cap: 9, not_after_ms: 5 };
    wire::VirtualClaim {
        channel: Bytes::from(vec![6; 32]),
        payer: 0,
        lane: 1,
        cap: Some(cap),
        index: 0,
        path: vec![Bytes::from(vec![7; 32])],
        amount: Some(amount),
        watch: None,
    }
}

/// What has state begins with bytes that mean as many steps as they are: four lives of each.
fn lives(seeds: &mut Seeds) {
    const STATEFUL: [&str; 18] = [
        "channel_rules",
        "shard_orders",
        "shard_queries",
        "shard_genesis",
        "log_units",
        "log_contracts",
        "log_channels",
        "log_registry",
        "log_primary",
        "log_recovery",
        "log_notes",
        "log_sessions",
        "dkg_run",
        "manager",
        "hub",
        "virtuals",
        "batch",
        "round",
    ];
    for (i, target) in (0..).zip(STATEFUL) {
        for number in 0..4 {
            let life: Vec<u8> = (0..8).flat_map(|part| seed("life", i * 100 + number * 10 + part)).collect();
            // Small numbers say more than large ones.
            let life: Vec<u8> = life.iter().enumerate().map(|(at, b)| if at % 3 == 0 { *b } else { b % 16 }).collect();
            seeds.add(target, format!("life-{number}"), life);
        }
    }
    // All four sign the root of a batch; one is silent, one signs another's.
    let all = [[3, 9, 20, 7].to_vec(), [[0, 0, 0, 1], [1, 0, 0, 1], [2, 0, 0, 1], [3, 0, 0, 1]].concat()].concat();
    seeds.add("round", "all-sign", [all.clone(), [[0, 3, 0], [0, 3, 1], [0, 3, 2], [0, 3, 3]].concat()].concat());
    seeds.add(
        "round",
        "some-lie",
        [all, [0, 3, 0, 0, 4, 1, 0, 0, 0, 4, 2, 1, 1, 5, 0, 3, 2, 0, 5, 30].to_vec()].concat(),
    );
    // A key generation without liars, and one in which an authority is late.
    seeds.add("dkg_run", "all", [[3, 0]; 8].concat());
    seeds.add("dkg_run", "late", [[0, 0], [0, 1], [0, 2], [4, 0], [4, 1], [4, 2]].repeat(5).concat());
}
