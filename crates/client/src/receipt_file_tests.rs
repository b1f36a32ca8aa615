use std::sync::Arc;

use florin_core::batch::decode_batch;
use florin_core::certificate::Promise;
use florin_core::certificate::sign;
use florin_core::receipt::verify;
use florin_core::testing::{Cluster, Signer, TestCommittee, to};

use super::*;

/// A final receipt of the issuer's payment number `n`.
fn final_receipt(n: usize) -> (Arc<Committee>, wire::Receipt) {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let orders: Vec<Bytes> =
        (0..=n).map(|i| cluster.issuer.pay(&[to(Signer::new(7).address, 1_250 + i as u64)], "rent")).collect();
    let committee = cluster.committee.clone();
    for order in &orders[..n] {
        cluster.run(std::slice::from_ref(order));
    }
    let last = orders[n].clone();
    let certificate = cluster.certify(0, std::slice::from_ref(&last));
    let id = decode_batch(std::slice::from_ref(&last)).unwrap().id;
    let all = Bitmap::full(1);
    let acknowledgements =
        (0..4).map(|i| sign(Promise::Settled, &committee, i, &cluster.keys[i as usize], &id, &all)).collect();
    let receipt = wire::Receipt {
        committee_id: Bytes::copy_from_slice(committee.id()),
        epoch: committee.epoch,
        transaction: last,
        index: 0,
        count: 1,
        path: Vec::new(),
        votes: certificate.votes,
        acknowledgements,
    };
    (committee, receipt)
}

fn refusal(path: &Path) -> String {
    let error = load(path).unwrap_err();
    assert_eq!(error.code, Code::BadFile, "{error}");
    error.message
}

#[test]
fn a_saved_receipt_still_proves_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("receipt.json");
    let (committee, receipt) = final_receipt(0);
    save(&path, &receipt, &committee).unwrap();
    let loaded = load(&path).unwrap();
    assert_eq!(loaded, receipt);
    verify(&committee, &loaded).unwrap();
    let text: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(text["total"], "12.50");
    assert_eq!(text["memo"], "rent");
    assert_eq!(text["outputs"][0]["address"], Signer::new(7).address.to_text("flr"));
    assert_eq!((&text["votes"], &text["quorum"]), (&json!(4), &json!(3)));
}

#[test]
fn what_people_read_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("receipt.json");
    let (committee, receipt) = final_receipt(0);
    save(&path, &receipt, &committee).unwrap();
    let forged = fs::read_to_string(&path).unwrap().replace("12.50", "99999.00").replace("rent", "house");
    fs::write(&path, forged).unwrap();
    let readable = readable(&load(&path).unwrap(), &committee).unwrap();
    assert_eq!((&readable["total"], &readable["memo"]), (&json!("12.50"), &json!("rent")));
}

#[test]
fn only_a_receipt_of_the_same_order_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("receipt.json");
    let (committee, receipt) = final_receipt(0);
    save(&path, &receipt, &committee).unwrap();
    save(&path, &receipt, &committee).unwrap();
    let (_, other) = final_receipt(1);
    assert_eq!(save(&path, &other, &committee).unwrap_err().code, Code::AlreadyExists);
    assert_eq!(load(&path).unwrap(), receipt);
    let notes = dir.path().join("notes.txt");
    fs::write(&notes, "mine").unwrap();
    assert_eq!(save(&notes, &receipt, &committee).unwrap_err().code, Code::AlreadyExists);
    assert_eq!(fs::read_to_string(&notes).unwrap(), "mine");
}

#[test]
fn anything_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("receipt.json");
    assert!(refusal(&path).contains("receipt.json"));
    for (text, expected) in [
        ("", "not a Florin receipt"),
        ("hello", "not a Florin receipt"),
        (r#"{"florin_wallet":1}"#, "not a Florin receipt"),
        (r#"{"florin_receipt":2,"receipt":""}"#, "expected 1, found 2"),
        (r#"{"florin_receipt":1}"#, "missing field `receipt`"),
        (r#"{"florin_receipt":1,"receipt":"xyz"}"#, "expected hex digits"),
        (r#"{"florin_receipt":1,"receipt":"ffff"}"#, "receipt:"),
    ] {
        fs::write(&path, text).unwrap();
        assert!(refusal(&path).contains(expected), "{text}: {}", refusal(&path));
    }
    fs::write(&path, vec![b' '; FILE_BYTES_MAX as usize + 1]).unwrap();
    assert!(refusal(&path).contains("found more"));
    // An empty message is a receipt that proves nothing.
    fs::write(&path, r#"{"florin_receipt":1,"receipt":""}"#).unwrap();
    let (committee, _) = final_receipt(0);
    assert_eq!(verify(&committee, &load(&path).unwrap()).unwrap_err().code, Code::WrongCommittee);
}
