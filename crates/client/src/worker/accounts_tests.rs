use florin_core::testing::{Signer, TestCommittee, spoil, to};

use super::*;

/// An account that has settled one order, and its next one.
fn sender(number: u64) -> (Signer, Known, Order) {
    let mut signer = Signer::distilled(number);
    let pay = |signer: &mut Signer| Order::decode(signer.pay(&[to(signer.address, 1)], "")).unwrap();
    let first = pay(&mut signer);
    let known = Known {
        address: signer.address,
        seqnum: 1,
        prev_hash: first.next_hash(),
        permission: signer.permission.encode(),
    };
    let next = pay(&mut signer);
    (signer, known, next)
}

#[test]
fn a_key_is_sure_at_the_orders_own_place_and_with_its_signature() {
    let (mut signer, known, order) = sender(1);
    let key = signer.bls[0].public().bls();
    assert_eq!(known.key_for(&order), key);
    let later = Order::decode(signer.pay(&[to(signer.address, 1)], "")).unwrap();
    assert_eq!(known.key_for(&later), None, "another order comes before it");
    assert_eq!(Known { prev_hash: 7, ..known.clone() }.key_for(&order), None, "after another order");
    assert_eq!(known.key_for(&Order::decode(spoil(&order.raw)).unwrap()), None, "a stranger's");
    let plain = Permission::single(signer.keys[0].public()).encode();
    assert_eq!(Known { permission: plain, ..known }.key_for(&order), None, "without a BLS key");
    assert!(may_be_marked(&order) && !may_be_marked(&Order::decode(Signer::new(2).pay(&[], "")).unwrap()));
}

#[test]
fn no_authority_is_believed_alone_about_a_key() {
    let (committee, _) = TestCommittee::new(4, 1).build();
    let (_, known, order) = sender(1);
    let lie = Known { permission: sender(2).1.permission, ..known.clone() };
    let behind = Known { seqnum: 0, prev_hash: 0, permission: Bytes::new(), ..known.clone() };
    let said = |said: &[&Known]| agreed(&committee, &said.iter().copied().cloned().collect::<Vec<_>>(), &order);
    assert_eq!(said(&[&known]), None);
    assert_eq!(said(&[&lie, &known]), None);
    assert_eq!(said(&[&lie, &known, &behind, &known]), Some(known.clone()));
    assert_eq!(said(&[&behind, &behind, &behind, &known]), None, "the order does not come next there");
}

#[tokio::test]
async fn what_is_final_moves_an_account_on_and_who_does_not_sign_rests() {
    let (committee, _) = TestCommittee::new(4, 1).build();
    // Nobody is there to be asked.
    let network = Network::new(committee, crate::network::Patience::default());
    let (mut signer, known, order) = sender(1);
    let (address, key) = (signer.address, signer.bls[0].public().bls());
    let accounts = Accounts::new();
    assert_eq!(accounts.key(&network, &order, &address).await, None);
    accounts.known().insert(order.actor, known);
    assert_eq!(accounts.key(&network, &order, &address).await, key);
    assert_eq!(accounts.key(&network, &order, &Signer::new(9).address).await, None, "another account's address");
    accounts.settled(&order);
    let next = Order::decode(signer.pay(&[to(signer.address, 1)], "")).unwrap();
    // What does not follow changes nothing.
    accounts.settled(&order);
    assert_eq!(accounts.key(&network, &next, &address).await, key);
    accounts.rest(order.actor);
    assert_eq!(accounts.key(&network, &next, &address).await, None);
}
