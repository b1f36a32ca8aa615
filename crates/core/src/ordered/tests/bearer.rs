//! Notes that pay into shared objects.

use super::*;
use crate::bearer::build;
use crate::cash::testing::{Note, Purse};
use crate::content::credit_output;

/// A cluster with keys of e-cash, Alice with 1,000, Bob with 1,000, and notes of these tiers that Alice paid.
pub(super) fn with_notes(shards: u32, tiers: &[u32]) -> (Cluster, Signer, Signer, Purse, Vec<Note>) {
    let (mut cluster, mut alice, bob) = setup(shards);
    let mut purse = cluster.make_cash(8);
    let notes = cluster.withdraw(&mut alice, &mut purse, tiers);
    (cluster, alice, bob, purse, notes)
}

/// An order that spends notes for outputs of any kind, with the refund to an account.
pub(super) fn spend(notes: &[Note], outputs: Vec<wire::Output>, refund: Option<&Signer>) -> Bytes {
    let spends: Vec<_> = notes.iter().map(Note::spend).collect();
    let memo = if outputs.is_empty() { "" } else { "memo" };
    build(NETWORK_ID, &spends, outputs, memo, refund.map(|r| &r.address))
}

fn shared(kind: output::Kind) -> wire::Output {
    wire::Output { kind: Some(kind) }
}

fn redeem(amount: u64, to: &Signer) -> output::Kind {
    output::Kind::PrimaryRedeem(wire::PrimaryRedeem { amount, address: bytes(to) })
}

/// What an authority's log says of a bearer order.
pub(super) fn status_of(cluster: &Cluster, authority: usize, order: &Bytes) -> wire::OrderStatus {
    let order_id = Bytes::copy_from_slice(&id_of(order));
    let request = wire::OrderStatusRequest { network_id: NETWORK_ID, order_id, ..Default::default() };
    let log = &cluster.logs[authority];
    log.log.order_status(&log.state, &request, wire::OrderStatus::default()).unwrap()
}

pub(super) fn outstanding(cluster: &Cluster, authority: usize) -> i128 {
    cluster.nodes[authority].iter().map(|n| n.authority.totals(&n.state).unwrap().outstanding()).sum()
}

#[test]
fn notes_pay_into_a_hash_lock_and_to_the_primary_with_a_credit_and_change() {
    let (mut cluster, alice, mut bob, mut purse, notes) = with_notes(3, &[5, 3, 1]);
    let change = purse.ask(&[2]);
    let outputs = vec![
        credit_output(&to(alice.address, 6)),
        change[0].output(),
        shared(fund(20, 9_000, &alice, &bob)),
        shared(redeem(12, &bob)),
    ];
    let order = spend(&notes, outputs, Some(&alice));
    cluster.run_ordered(std::slice::from_ref(&order));
    for i in 0..4 {
        let status = status_of(&cluster, i, &order);
        assert_eq!((status.state(), status.calls), (S::Ordered, true));
        assert_eq!(outstanding(&cluster, i), 4);
    }
    assert!(purse.take(&change, &cluster.shares(&order))[0].is_some());
    let book = cluster.logs[0].log.book(&cluster.logs[0].state).unwrap();
    assert_eq!((book.contracts, book.primary), (20, 12));
    check(&cluster, &[(&alice, 1_000 - 42 + 6), (&bob, 1_000)]);
    // The contract is named by the place of its output among all of the order.
    let claim = claim(contract_id(&id_of(&order), 2), 20, b"secret");
    let claimed = bob.call(vec![claim], vec![credit(&bob, 20)]);
    cluster.run_ordered(&[claimed]);
    check(&cluster, &[(&alice, 964), (&bob, 1_020)]);
}

#[test]
fn what_fails_in_the_log_is_refunded_once_and_the_rest_stands() {
    let (mut cluster, alice, bob, _, notes) = with_notes(2, &[5, 3]);
    let expired = shared(fund(20, 500, &alice, &bob));
    let outputs = vec![credit_output(&to(bob.address, 10)), shared(redeem(10, &bob)), expired];
    let order = spend(&notes, outputs, Some(&bob));
    cluster.run_ordered(std::slice::from_ref(&order));
    let status = status_of(&cluster, 1, &order);
    assert_eq!((status.state(), status.code), (S::Failed, Code::ContractExpired as u32));
    assert!(status.message.starts_with("output 2: "), "{}", status.message);
    check(&cluster, &[(&alice, 960), (&bob, 1_040)]);
    let book = cluster.logs[0].log.book(&cluster.logs[0].state).unwrap();
    assert_eq!((book.contracts, book.primary), (0, 0));
}

#[test]
fn handed_in_twice_it_applies_once_wherever_it_was_settled() {
    let (mut cluster, alice, bob, _, notes) = with_notes(2, &[4]);
    let order = spend(&notes, vec![shared(redeem(16, &bob))], Some(&alice));
    let certificate = cluster.certify(0, std::slice::from_ref(&order));
    // One authority has it; the others settle on the log's word.
    cluster.node(2, 0).settle(&certificate, std::slice::from_ref(&order)).unwrap();
    let items = cluster.log_items(2);
    cluster.order_items(2, 0, items.clone());
    cluster.order_items(1, 0, items.iter().chain(&items).cloned().collect());
    cluster.order_all();
    for i in 0..4 {
        assert_eq!((status_of(&cluster, i, &order).state(), outstanding(&cluster, i)), (S::Ordered, 0));
        // The certificate comes later, and says nothing new.
        let reply = cluster.node(i, 0).settle(&certificate, std::slice::from_ref(&order)).unwrap();
        assert!(reply.acknowledgement.is_some());
    }
    cluster.order_items(3, 0, items);
    cluster.order_all();
    let book = cluster.logs[0].log.book(&cluster.logs[0].state).unwrap();
    assert_eq!((book.primary, book.orders), (16, 1));
    check(&cluster, &[(&alice, 984), (&bob, 1_000)]);
}

#[test]
fn without_a_quorum_the_log_takes_no_bearer_order() {
    let (mut cluster, alice, bob, _, notes) = with_notes(1, &[4]);
    let order = spend(&notes, vec![shared(redeem(16, &bob))], Some(&alice));
    let certificate = cluster.certify(0, std::slice::from_ref(&order));
    cluster.node(0, 0).settle(&certificate, std::slice::from_ref(&order)).unwrap();
    let item = <wire::Item as prost::Message>::decode(cluster.log_items(0)[0].clone()).unwrap();
    let Some(wire::item::Kind::Orders(mut orders)) = item.kind else { panic!("an item of orders") };
    orders.certificate.as_mut().unwrap().votes.pop();
    let forged = wire::Item { kind: Some(wire::item::Kind::Orders(orders)) };
    cluster.order_items(3, 0, vec![prost::Message::encode_to_vec(&forged).into()]);
    assert_eq!(status_of(&cluster, 0, &order).state(), S::Unknown);
    cluster.order_all();
    assert_eq!(status_of(&cluster, 0, &order).state(), S::Ordered);
    check(&cluster, &[(&alice, 984), (&bob, 1_000)]);
}
