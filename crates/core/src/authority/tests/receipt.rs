//! Receipts: what an authority's answers add up to, and that nothing in one can be changed.

use super::*;
use crate::envelope::Order;
use crate::receipt::{verify, verify_certified};
use crate::wire::order_reply::State as S;

/// A final receipt of the middle order of three, put together from what all authorities say.
fn receipt() -> (Cluster, Signer, wire::Receipt) {
    let (mut cluster, mut alice) = funded(100);
    let orders: Vec<Bytes> = (1..=3).map(|i| alice.pay(&[to(cluster.issuer.address, i)], "")).collect();
    cluster.run(&orders);
    let request = wire::OrderRequest { network_id: NETWORK_ID, actor: alice.actor(), seqnum: 2, ..Default::default() };
    let mut receipt = wire::Receipt::default();
    for i in 0..4 {
        let node = cluster.node(i, 0);
        let reply = node.authority.order(&node.state, &request).unwrap();
        assert_eq!(reply.state, S::Settled as i32);
        let found = reply.receipt.unwrap();
        let acknowledgements = [receipt.acknowledgements, found.acknowledgements.clone()].concat();
        receipt = wire::Receipt { acknowledgements, ..found };
    }
    (cluster, alice, receipt)
}

#[test]
fn a_receipt_proves_its_order_final() {
    let (cluster, alice, receipt) = receipt();
    let order = verify(&cluster.committee, &receipt).unwrap();
    assert_eq!((order.actor, order.seqnum), (alice.actor(), 2));
    let mut certified = receipt.clone();
    certified.acknowledgements.truncate(2);
    assert_eq!(verify_certified(&cluster.committee, &certified).unwrap().id, order.id);
    assert_eq!(code(verify(&cluster.committee, &certified)), Code::NotFinal);
}

#[test]
fn nothing_in_a_receipt_can_be_changed() {
    let (cluster, mut alice, good) = receipt();
    let other = alice.pay(&[to(alice.address, 50)], "");
    type Change = Box<dyn Fn(&mut wire::Receipt)>;
    let flip = |b: &mut Bytes| {
        let mut bytes = b.to_vec();
        bytes[0] ^= 1;
        *b = bytes.into();
    };
    let cases: Vec<(Code, Change)> = vec![
        (Code::WrongCommittee, Box::new(move |r| flip(&mut r.committee_id))),
        (Code::WrongEpoch, Box::new(|r| r.epoch = 2)),
        (Code::BadVote, Box::new(move |r| r.transaction = other.clone())),
        (Code::Decode, Box::new(|r| r.transaction = Bytes::from_static(b"\xff"))),
        (Code::EmptyBody, Box::new(|r| r.transaction = Bytes::new())),
        (Code::BadVote, Box::new(|r| r.index = 0)),
        (Code::BadProof, Box::new(|r| r.index = 3)),
        (Code::BadProof, Box::new(|r| r.index = 2)),
        (Code::BadVote, Box::new(|r| r.count = 4)),
        (Code::BadProof, Box::new(|r| r.count = 5)),
        (Code::Limit, Box::new(|r| r.count = 0)),
        (Code::Limit, Box::new(|r| r.count = 4_097)),
        (Code::BadVote, Box::new(move |r| flip(&mut r.path[0]))),
        (Code::BadProof, Box::new(|r| drop(r.path.pop()))),
        (Code::BadProof, Box::new(|r| r.path[0].truncate(31))),
        (Code::NoQuorum, Box::new(|r| r.votes.truncate(2))),
        (Code::NoQuorum, Box::new(|r| r.votes.clear())),
        (Code::DuplicateSigner, Box::new(|r| r.votes[1] = r.votes[0].clone())),
        (Code::UnknownAuthority, Box::new(|r| r.votes[1].authority = 9)),
        (Code::BadVote, Box::new(move |r| flip(&mut r.votes[1].signature))),
        (Code::BadVote, Box::new(|r| r.votes = r.acknowledgements.clone())),
        (Code::BadBitmap, Box::new(|r| r.votes[0].bitmap = Bytes::from_static(&[0b1111]))),
        (Code::NotFinal, Box::new(|r| r.acknowledgements.truncate(2))),
        (Code::BadVote, Box::new(|r| r.acknowledgements = r.votes.clone())),
        (Code::DuplicateSigner, Box::new(|r| r.acknowledgements[3] = r.acknowledgements[0].clone())),
        (Code::BadVote, Box::new(move |r| flip(&mut r.acknowledgements[2].signature))),
    ];
    for (at, (expected, change)) in cases.iter().enumerate() {
        let mut receipt = good.clone();
        change(&mut receipt);
        assert_eq!(code(verify(&cluster.committee, &receipt)), *expected, "case {at}");
    }
    let elsewhere = TestCommittee::new(7, 1).build().0;
    assert_eq!(code(verify(&elsewhere, &good)), Code::WrongCommittee);
}

#[test]
fn an_order_is_unknown_then_voted_then_certified_then_settled() {
    let (mut cluster, mut alice) = funded(100);
    let first = [alice.pay(&[to(alice.address, 1)], "")];
    let second = [alice.pay(&[to(alice.address, 2)], "")];
    let state = |cluster: &mut Cluster, seqnum| {
        let request = wire::OrderRequest { network_id: NETWORK_ID, actor: alice.actor(), seqnum, ..Default::default() };
        let node = cluster.node(0, 0);
        let reply = node.authority.order(&node.state, &request).unwrap();
        (S::try_from(reply.state).unwrap(), reply.receipt)
    };
    assert_eq!(state(&mut cluster, 2), (S::Unknown, None));
    let one = cluster.certify(0, &first);
    let two = cluster.certify(0, &second);
    let (found, receipt) = state(&mut cluster, 2);
    assert_eq!(found, S::Voted);
    assert_eq!(Order::decode(receipt.unwrap().transaction).unwrap().seqnum, 2);
    cluster.node(0, 0).settle(&two, &second).unwrap();
    let (found, receipt) = state(&mut cluster, 2);
    assert_eq!(found, S::Certified);
    let receipt = receipt.unwrap();
    assert_eq!(code(verify(&cluster.committee, &receipt)), Code::NotFinal);
    verify_certified(&cluster.committee, &receipt).unwrap();
    cluster.node(0, 0).settle(&one, &first).unwrap();
    let (found, receipt) = state(&mut cluster, 2);
    assert_eq!((found, receipt.unwrap().acknowledgements.len()), (S::Settled, 1));
    for seqnum in [0, 3, u32::MAX] {
        assert_eq!(state(&mut cluster, seqnum), (S::Unknown, None));
    }
}

#[test]
fn a_receipt_names_what_it_lacks_and_the_largest_batch_has_one() {
    let (cluster, _, receipt) = receipt();
    let what = |change: fn(&mut wire::Receipt)| {
        let mut changed = receipt.clone();
        change(&mut changed);
        let error = verify(&cluster.committee, &changed).unwrap_err();
        (error.code, error.message)
    };
    let lacks = |code, what: &str| (code, format!("{what} of the order: expected at least 3, found 2"));
    assert_eq!(
        what(|r| r.votes.truncate(2)),
        (Code::NoQuorum, "votes for the order: expected at least 3, found 2".into())
    );
    assert_eq!(what(|r| r.acknowledgements.truncate(2)), lacks(Code::NotFinal, "acknowledgements"));
    // The largest batch, of whatever else.
    let count = crate::limits::ORDERS_PER_BATCH_MAX;
    let order = Order::decode(receipt.transaction.clone()).unwrap();
    let ids: Vec<crate::merkle::Hash> = (0..count).map(|i| if i == 7 { order.id } else { [i as u8; 32] }).collect();
    let tree = crate::merkle::Tree::new(&ids);
    let id = crate::certificate::BatchId { root: tree.root(), count };
    let all = crate::bitmap::Bitmap::full(count);
    let sign = |promise| {
        let sign =
            |i: usize| crate::certificate::sign(promise, &cluster.committee, i as u32, &cluster.keys[i], &id, &all);
        (0..3).map(sign).collect::<Vec<_>>()
    };
    use crate::certificate::Promise;
    let (votes, acknowledgements) = (sign(Promise::Vote), sign(Promise::Settled));
    let full = |transaction: Bytes| {
        crate::receipt::assemble(
            &cluster.committee,
            transaction,
            &tree,
            (7, count),
            votes.clone(),
            acknowledgements.clone(),
        )
    };
    assert_eq!(verify(&cluster.committee, &full(receipt.transaction.clone())).unwrap().id, order.id);
    for count in [0, count as u32 + 1] {
        let other = wire::Receipt { count, ..full(receipt.transaction.clone()) };
        assert_eq!(code(verify(&cluster.committee, &other)), Code::Limit);
    }
}
