//! Contracts and the primary, as their users see them.

use super::*;

#[test]
fn a_contract_pays_whoever_knows_the_preimage() {
    for shards in [1, 3] {
        let (mut cluster, mut alice, mut bob) = setup(shards);
        let order = alice.call(vec![], vec![fund(300, 5_000, &alice.clone(), &bob)]);
        let contract = contract_id(&id_of(&order), 0);
        cluster.run_ordered(&[order]);
        assert_eq!(cluster.status(0, &alice, 1).state(), S::Ordered);
        check(&cluster, &[(&alice, 700), (&bob, 1_000)]);

        let wrong = bob.call(vec![claim(contract, 300, b"guess")], vec![credit(&bob, 300)]);
        cluster.run_ordered(&[wrong]);
        let status = cluster.status(1, &bob, 1);
        assert_eq!((status.state(), status.code), (S::Failed, Code::WrongPreimage as u32));

        let right = bob.call(vec![claim(contract, 300, b"secret")], vec![credit(&bob, 250), credit(&alice, 50)]);
        cluster.run_ordered(&[right]);
        check(&cluster, &[(&alice, 750), (&bob, 1_250)]);

        let late = alice.call(vec![refund(contract, 300)], vec![credit(&alice, 300)]);
        cluster.set_time(9_000);
        cluster.run_ordered(&[late]);
        assert_eq!(cluster.status(2, &alice, 2).code, Code::ContractClosed as u32);
        check(&cluster, &[(&alice, 750), (&bob, 1_250)]);
    }
}

#[test]
fn a_failed_shared_side_refunds_what_was_debited_once() {
    let (mut cluster, mut alice, bob) = setup(2);
    // The expiry is in the past, so nothing of the order happens, and the 40 come back with the 300.
    let order = alice.call(vec![], vec![credit(&bob, 40), fund(300, 500, &alice.clone(), &bob)]);
    let certificate = {
        let shard = alice.address.shard(2);
        cluster.certify(shard, std::slice::from_ref(&order))
    };
    let shard = alice.address.shard(2);
    cluster.settle(shard, &certificate, std::slice::from_ref(&order));
    check(&cluster, &[(&alice, 660), (&bob, 1_000)]);
    let items = cluster.log_items(3);
    cluster.order_all();
    check(&cluster, &[(&alice, 1_000), (&bob, 1_000)]);
    let status = cluster.status(0, &alice, 1);
    assert_eq!((status.state(), status.code), (S::Failed, Code::ContractExpired as u32));
    // Whoever posts the certificate again, by whatever way, moves nothing.
    for creator in 0..4 {
        cluster.order_items(creator, 0, items.clone());
    }
    cluster.order_all();
    check(&cluster, &[(&alice, 1_000), (&bob, 1_000)]);
}

#[test]
fn money_goes_to_the_primary_and_back() {
    let (mut cluster, mut alice, bob) = setup(2);
    let redeem = output::Kind::PrimaryRedeem(wire::PrimaryRedeem { amount: 400, address: bytes(&alice) });
    let order = alice.call(vec![], vec![redeem]);
    cluster.run_ordered(&[order]);
    check(&cluster, &[(&alice, 600)]);
    let deposit =
        |amount, to: &Signer| output::Kind::PrimaryDeposit(wire::PrimaryDeposit { amount, address: bytes(to) });
    let order = alice.call(vec![], vec![deposit(150, &bob)]);
    cluster.run_ordered(&[order]);
    check(&cluster, &[(&alice, 600), (&bob, 1_150)]);
    let order = alice.call(vec![], vec![deposit(251, &bob)]);
    cluster.run_ordered(&[order]);
    assert_eq!(cluster.status(0, &alice, 3).code, Code::PrimaryFunds as u32);
    let log = &cluster.logs[0];
    let request = wire::PrimaryRequest { address: bytes(&alice), ..Default::default() };
    let reply = log.log.primary(&log.state, &request).unwrap();
    assert_eq!((reply.total_funds, reply.balance, reply.deposits, reply.redeems), (250, 250, 1, 1));
    check(&cluster, &[(&alice, 600), (&bob, 1_150)]);
}

/// A step of the log in which something has been redeemed, for whoever calls the bridge and the primary directly.
fn step_with_money<T>(then: impl FnOnce(&mut super::super::step::Step<'_>, &super::super::modules::Caller) -> T) -> T {
    let (mut cluster, mut alice, _) = setup(1);
    let redeem = wire::PrimaryRedeem { amount: 400, address: bytes(&alice) };
    let order = alice.call(vec![], vec![output::Kind::PrimaryRedeem(redeem)]);
    cluster.run_ordered(&[order]);
    let deposit = wire::PrimaryDeposit { amount: 100, address: bytes(&alice) };
    let order = alice.call(vec![], vec![output::Kind::PrimaryDeposit(deposit)]);
    let caller = super::super::modules::Caller {
        account: alice.address,
        network_id: NETWORK_ID,
        actor: alice.actor(),
        seqnum: 3,
        order_id: id_of(&order),
        memo: String::new(),
        committee_id: *cluster.committee.id(),
        epoch: 1,
    };
    cluster.run_ordered(&[order]);
    let log = &cluster.logs[0];
    let mut step = super::super::step::Step::new(&cluster.committee, &log.state).unwrap();
    then(&mut step, &caller)
}

#[test]
fn deposits_replayed_or_with_a_gap_change_nothing() {
    use super::super::modules::bridge::credit_deposit;
    step_with_money(|step, caller| {
        let entry =
            |index| wire::DepositEntry { index, address: bytes(&Signer::new(2)), amount: 5, from: Bytes::new() };
        let before = step.book.clone();
        assert_eq!(before.deposits, 1);
        for index in [0, 2, 3, u64::MAX] {
            assert_eq!(code(credit_deposit(&entry(index), caller, step)), Code::OutOfOrder);
        }
        let broken = wire::DepositEntry { address: Bytes::from_static(b"short"), ..entry(1) };
        assert!(credit_deposit(&broken, caller, step).is_err());
        assert_eq!(step.book, before);
        credit_deposit(&entry(1), caller, step).unwrap();
        assert_eq!(code(credit_deposit(&entry(1), caller, step)), Code::OutOfOrder);
        assert_eq!((step.book.deposits, step.book.primary), (2, before.primary - 5));
    });
}

#[test]
fn a_redeem_posted_twice_pays_once_and_none_is_skipped() {
    use super::super::modules::primary::{Embedded, Primary, balance_key};
    step_with_money(|step, caller| {
        let committee = (caller.committee_id, caller.epoch);
        let entry =
            |index| wire::RedeemEntry { index, address: bytes(&Signer::new(1)), amount: 9, ..Default::default() };
        let mut primary = Embedded::new(step, committee);
        assert_eq!((primary.redeemed().unwrap(), primary.committee()), (1, committee));
        assert_eq!((primary.total_funds().unwrap(), primary.credited()), (300, 1));
        assert!(!primary.redeem(&entry(0)).unwrap(), "paid before");
        assert_eq!(code(primary.redeem(&entry(2))), Code::OutOfOrder);
        assert!(primary.redeem(&entry(1)).unwrap());
        assert!(!primary.redeem(&entry(1)).unwrap());
        assert_eq!(primary.redeemed().unwrap(), 2);
        let balance: wire::PrimaryBalance = step.get(&balance_key(&bytes(&Signer::new(1)))).unwrap().unwrap();
        assert_eq!(balance.amount, 400 - 100 + 9);
    });
}

/// Whoever has the certificate of a redeem may post it; that pays once, also where its debit has not settled.
#[test]
fn a_redeem_is_paid_once_whoever_posts_it() {
    let (mut cluster, mut alice, _) = setup(1);
    let redeem = wire::PrimaryRedeem { amount: 400, address: bytes(&alice) };
    let order = [alice.call(vec![], vec![output::Kind::PrimaryRedeem(redeem)])];
    let certificate = cluster.certify(0, &order);
    cluster.node(0, 0).settle(&certificate, &order).unwrap();
    let items = cluster.log_items(0);
    for creator in [3, 2, 3, 0, 1] {
        cluster.order_items(creator, 0, items.clone());
    }
    let paid = |cluster: &Cluster| {
        let log = &cluster.logs[1];
        let request = wire::PrimaryRequest { address: bytes(&alice), ..Default::default() };
        log.log.primary(&log.state, &request).unwrap()
    };
    assert_eq!((paid(&cluster).balance, paid(&cluster).redeems), (400, 1));
    assert_eq!(cluster.balance(1, &alice.address), 1_000, "the debit comes with the log's word");
    (0..4).for_each(|i| clean(&cluster, i));
    cluster.order_all();
    assert_eq!(paid(&cluster).redeem_log.len(), 1);
    check(&cluster, &[(&alice, 600)]);
}

/// Who has nothing on the primary has no record there.
#[test]
fn the_last_deposit_leaves_nothing_on_the_primary() {
    let (mut cluster, mut alice, bob) = setup(1);
    let redeem = wire::PrimaryRedeem { amount: 40, address: bytes(&alice) };
    let order = alice.call(vec![], vec![output::Kind::PrimaryRedeem(redeem)]);
    cluster.run_ordered(&[order]);
    for (amount, left) in [(39, Some(1)), (1, None)] {
        let deposit = wire::PrimaryDeposit { amount, address: bytes(&bob) };
        let order = alice.call(vec![], vec![output::Kind::PrimaryDeposit(deposit)]);
        cluster.run_ordered(&[order]);
        let key = super::super::modules::primary::balance_key(&bytes(&alice));
        let found: Option<wire::PrimaryBalance> = super::super::step::get_object(&cluster.logs[0].state, &key).unwrap();
        assert_eq!(found.map(|balance| balance.amount), left);
    }
    check(&cluster, &[(&alice, 960), (&bob, 1_040)]);
}
