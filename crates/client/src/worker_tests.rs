use florin_core::testing::{Signer, TestCommittee, to};
use prost::Message;

use super::*;
use crate::network::Patience;

/// A worker whose committee is not there.
fn worker(folder: &tempfile::TempDir, authorities: usize, batching: Batching) -> Worker {
    let (committee, _) = TestCommittee::new(authorities, 1).build();
    let short = Duration::from_millis(50);
    let patience = Patience { total: short, stragglers: short, request: short };
    Worker::start(Network::new(committee, patience), &folder.path().join("journal"), batching).unwrap()
}

fn order(signer: &mut Signer) -> Bytes {
    signer.pay(&[to(signer.address, 1)], "")
}

async fn submit(worker: &Worker, orders: Vec<Bytes>) -> std::result::Result<SubmitReply, Error> {
    let reply = worker.submit(Request::new(SubmitRequest { orders })).await;
    reply.map(Response::into_inner).map_err(florin_rpc::errors::from_status)
}

#[tokio::test]
async fn bytes_that_wait_are_bounded_and_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let worker = worker(&folder, 4, Batching { orders: 2, linger: Duration::ZERO, ..Batching::default() });
    let mut signer = Signer::new(1);
    let others = Held::new(&worker.shared.bytes, BYTES_MAX);
    let full = submit(&worker, vec![order(&mut signer)]).await.unwrap().outcomes.remove(0).error.unwrap();
    assert_eq!(full.code, Code::Busy as u32);
    drop(others);
    assert_eq!(worker.shared.bytes.load(Ordering::Relaxed), 0, "what was refused does not count");
    let raw = order(&mut signer);
    let away = submit(&worker, vec![raw.clone()]).await.unwrap().outcomes.remove(0).error.unwrap();
    assert_eq!(away.code, Code::QuorumUnreachable as u32);
    assert_eq!((worker.unfinished(), worker.shared.bytes.load(Ordering::Relaxed)), (1, raw.len()), "it is tried again");
}

#[tokio::test]
async fn a_reply_fits_in_one_message() {
    let folder = tempfile::tempdir().unwrap();
    let worker = worker(&folder, 100, Batching { orders: 4_096, linger: Duration::ZERO, ..Batching::default() });
    let mut signer = Signer::new(1);
    let said = submit(&worker, (0..200).map(|_| order(&mut signer)).collect()).await.unwrap_err();
    assert_eq!(said.code, Code::Limit);
    assert!(said.message.contains("receipts of 200 orders") && said.message.contains("4194304"), "{said}");
}

#[test]
fn a_receipt_is_no_larger_than_reckoned() {
    let (committee, _) = TestCommittee::new(100, 1).build();
    let signed = florin_core::wire::Signed {
        authority: 99,
        bitmap: vec![255; ORDERS_PER_BATCH_MAX / 8].into(),
        signature: vec![255; 64].into(),
    };
    let receipt = Receipt {
        committee_id: vec![255; 32].into(),
        epoch: u32::MAX.into(),
        transaction: vec![1; 65_000].into(),
        index: u32::MAX,
        count: u32::MAX,
        path: vec![vec![255; 32].into(); 12],
        votes: vec![signed.clone(); committee.size()],
        acknowledgements: vec![signed; committee.quorum()],
    };
    let outcome = SubmitReply { outcomes: vec![Outcome { receipt: Some(receipt), error: None }] };
    assert!(outcome.encoded_len() <= 65_000 + receipt_bytes_max(&committee, ORDERS_PER_BATCH_MAX));
}

#[tokio::test]
async fn a_batch_that_cannot_be_sent_leaks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let worker = worker(&folder, 4, Batching::default());
    let order = Order::decode(order(&mut Signer::new(1))).unwrap();
    let shared = &worker.shared;
    keep(shared, std::slice::from_ref(&order)).await.unwrap();
    let job = |tries| Job {
        order: order.clone(),
        answer: None,
        tries,
        kept: true,
        held: Held::new(&shared.bytes, order.raw.len()),
    };
    let again = try_again_or_finish(shared, Driven::new(vec![job(3)])).await;
    assert_eq!((again.len(), again[0].tries, worker.unfinished()), (1, 4, 1));
    drop(again);
    assert!(try_again_or_finish(shared, Driven::new(vec![job(TRIES)])).await.is_empty());
    assert_eq!((worker.unfinished(), shared.bytes.load(Ordering::Relaxed)), (0, 0));
}
