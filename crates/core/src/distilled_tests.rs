use super::*;
use crate::batch::decode_batch;
use crate::merkle::Tree;
use crate::testing::{NETWORK_ID, Signer, TestCommittee, to};

fn orders(n: u64) -> Vec<Order> {
    let order = |number| {
        let mut signer = Signer::new(number);
        let address = signer.address;
        Order::decode(signer.pay(&[to(address, 1)], "")).unwrap()
    };
    let mut orders: Vec<Order> = (1..=n).map(order).collect();
    orders.sort_by_key(|order| order.actor);
    orders
}

fn read(raw: &[Bytes]) -> Option<Marks> {
    Marks::read(&decode_batch(raw).unwrap(), NETWORK_ID)
}

#[test]
fn a_sender_signs_only_what_its_order_is_in() {
    let (committee, _) = TestCommittee::default().build();
    let orders = orders(5);
    let ids: Vec<Hash> = orders.iter().map(|order| order.id).collect();
    let tree = Tree::new(&ids);
    let batch = BatchId { root: tree.root(), count: 5 };
    for index in 0..5 {
        let good = Proposal { batch, index, path: tree.path(index) };
        assert_eq!(check_proposal(&committee, &ids[index], &good).unwrap(), root_message(&committee, &batch));
        let refused = |proposal: Proposal, id: &Hash| check_proposal(&committee, id, &proposal).unwrap_err().code;
        assert_eq!(refused(good.clone(), &ids[(index + 1) % 5]), Code::BadProof, "another order at the leaf");
        assert_eq!(refused(Proposal { index: (index + 1) % 5, ..good.clone() }, &ids[index]), Code::BadProof);
        let root = BatchId { root: [7; 32], count: 5 };
        assert_eq!(refused(Proposal { batch: root, ..good.clone() }, &ids[index]), Code::BadProof, "another root");
        for count in [0, ORDERS_PER_BATCH_MAX + 1, usize::MAX] {
            let batch = BatchId { count, ..batch };
            assert_eq!(refused(Proposal { batch, ..good.clone() }, &ids[index]), Code::Limit);
        }
    }
    // A leaf's hash is no order, whatever it is taken for.
    let node = Proposal { batch: BatchId { root: batch.root, count: 1 }, index: 0, path: Vec::new() };
    assert_eq!(check_proposal(&committee, &batch.root, &node).unwrap_err().code, Code::BadProof);
}

#[test]
fn a_proposal_travels_as_it_is_and_for_one_committee() {
    let (committee, _) = TestCommittee::default().build();
    let batch = BatchId { root: [4; 32], count: 4_096 };
    let proposal = Proposal { batch, index: 4_095, path: vec![[1; 32], [2; 32]] };
    let good = proposal.to_wire(&committee);
    assert_eq!(Proposal::from_wire(&committee, &good).unwrap(), proposal);
    let refused = |change: fn(&mut wire::RootProposal)| {
        let mut changed = good.clone();
        change(&mut changed);
        Proposal::from_wire(&committee, &changed).unwrap_err().code
    };
    assert_eq!(refused(|p| p.committee_id = vec![1; 32].into()), Code::WrongCommittee);
    assert_eq!(refused(|p| p.epoch += 1), Code::WrongEpoch);
    assert_eq!(refused(|p| p.root = p.root.slice(..31)), Code::BadProof);
    assert_eq!(refused(|p| p.path.push(Bytes::new())), Code::BadProof);
}

#[test]
fn what_is_signed_names_committee_epoch_root_and_count() {
    let (committee, _) = TestCommittee::default().build();
    let message = root_message(&committee, &BatchId { root: [3; 32], count: 258 });
    let expected = [ROOT_TAG, committee.id(), &[0, 0, 0, 0, 0, 0, 0, 1], &[3; 32], &[0, 0, 1, 2]].concat();
    assert_eq!(message, expected);
    let (later, _) = TestCommittee { epoch: 2, ..Default::default() }.build();
    assert_ne!(root_message(&later, &BatchId { root: [3; 32], count: 258 }), message);
}

#[test]
fn marks_are_the_only_signature_of_an_account_order() {
    let orders = orders(4);
    let aggregate = [9; bls::SIGNATURE_BYTES];
    let plain = |i: usize| orders[i].raw.clone();
    assert!(read(&[plain(0), plain(1)]).is_none());
    let batch = [plain(0), marked(&orders[1], Some(&aggregate)), plain(2), marked(&orders[3], None)];
    let marks = read(&batch).unwrap();
    assert_eq!((marks.signers, marks.aggregate.unwrap()), (vec![1, 3], aggregate));
    assert!(Marks::read(&decode_batch(&batch).unwrap(), NETWORK_ID + 1).is_none(), "of another network");
    // The body is the same order.
    assert_eq!(decode_batch(&batch).unwrap().id, decode_batch(&[0, 1, 2, 3].map(plain)).unwrap().id);
    let beside =
        Authority { key_type: 0, sigs: vec![vec![ROOT_BYTE].into(), orders[0].authorities[0].sigs[0].clone()] };
    assert!(read(&[encode_envelope(&orders[0].body, &[beside])]).is_none(), "a mark beside a signature is none");
}

#[test]
fn the_first_mark_has_the_aggregate_and_no_other() {
    let orders = orders(2);
    let aggregate = [9; bls::SIGNATURE_BYTES];
    for (first, second) in [(None, None), (None, Some(&aggregate)), (Some(&aggregate), Some(&aggregate))] {
        let marks = read(&[marked(&orders[0], first), marked(&orders[1], second)]).unwrap();
        assert_eq!(marks.aggregate.unwrap_err().code, Code::BadAggregate);
    }
}

#[test]
fn accounts_ascend_in_a_batch_with_marks() {
    let orders = orders(3);
    let aggregate = [9; bls::SIGNATURE_BYTES];
    let code = |batch: &[Bytes]| read(batch).unwrap().aggregate.map_err(|e| e.code);
    let (first, plain) = (marked(&orders[1], Some(&aggregate)), |i: usize| orders[i].raw.clone());
    assert_eq!(code(&[plain(0), first.clone(), plain(2)]), Ok(aggregate));
    assert_eq!(code(&[first.clone(), plain(0)]), Err(Code::BadAggregate));
    assert_eq!(code(&[plain(1), first.clone()]), Err(Code::BadAggregate), "another order of its account");
    assert_eq!(code(&[first.clone(), plain(2), plain(2)]), Err(Code::BadAggregate), "of any account");
    let junk = Bytes::from_static(b"junk");
    assert_eq!(code(&[junk.clone(), first, junk, plain(2)]), Ok(aggregate), "what is no order is nobody's");
}

#[test]
fn the_largest_batch_has_proposals() {
    let (committee, _) = TestCommittee::default().build();
    let ids: Vec<Hash> = (0..ORDERS_PER_BATCH_MAX).map(|i| [i as u8; 32]).collect();
    let tree = Tree::new(&ids);
    let batch = BatchId { root: tree.root(), count: ids.len() };
    for index in [0, ORDERS_PER_BATCH_MAX - 1] {
        let proposal = Proposal { batch, index, path: tree.path(index) };
        assert!(check_proposal(&committee, &ids[index], &proposal).is_ok());
    }
}
