//! What f liars put into units: garbage, duplicates, forgeries, clocks of their own. Honest items are ordered all the
//! same, and what is wrong in a unit costs its creator the rest of it.

use prost::Message;

use super::*;
use crate::limits::UNIT_BYTES_MAX;
use wire::item::Kind;

/// A certified CALL of Alice's that waits for the log, as the item that hands it in.
fn waiting() -> (Cluster, Signer, Signer, Bytes) {
    let (mut cluster, mut alice, mut bob) = setup(1);
    let orders: Vec<Bytes> = [alice.call(vec![], vec![credit(&bob, 7)]), bob.pay(&[to(alice.address, 2)], "")].into();
    cluster.run(&orders);
    let [item] = &cluster.log_items(0)[..] else { panic!("one item") };
    let item = item.clone();
    (cluster, alice, bob, item)
}

fn changed(item: &Bytes, change: impl FnOnce(&mut wire::CertifiedOrders)) -> Bytes {
    let Some(Kind::Orders(mut orders)) = wire::Item::decode(item.clone()).unwrap().kind else { panic!("orders") };
    change(&mut orders);
    wire::Item { kind: Some(Kind::Orders(orders)) }.encode_to_vec().into()
}

fn spoiled(item: &Bytes) -> Bytes {
    changed(item, |o| o.certificate.as_mut().unwrap().votes[0].signature = Bytes::from_static(&[5; 64]))
}

/// What is in the log but for where it is and its time.
fn objects(cluster: &Cluster) -> Vec<(Vec<u8>, Bytes)> {
    cluster.logs[0].state.iter(Table::Objects).map(|(k, v)| (k.to_vec(), v.clone())).collect()
}

#[test]
fn forged_items_change_nothing_and_end_their_unit() {
    let (mut cluster, alice, bob, item) = waiting();
    let certificate = |change: fn(&mut wire::Certificate)| changed(&item, |o| change(o.certificate.as_mut().unwrap()));
    let other = cluster.committee.clone();
    let (foreign, keys) = TestCommittee { issuer_limit: 5, ..Default::default() }.build();
    let batch = crate::certificate::check_certificate(&other, &{
        let Some(Kind::Orders(o)) = wire::Item::decode(item.clone()).unwrap().kind else { panic!("orders") };
        o.certificate.unwrap()
    });
    let id = batch.unwrap().0;
    let sign = |i: u32| {
        let all = crate::bitmap::Bitmap::full(id.count);
        crate::certificate::sign(crate::certificate::Promise::Vote, &foreign, i, &keys[i as usize], &id, &all)
    };
    let own_order = Signer::new(9).call(vec![], vec![credit(&bob, 7)]);
    let own_body = crate::envelope::Order::decode(own_order).unwrap().body;
    let cases = [
        ("nothing", Bytes::new()),
        ("no item", Bytes::from_static(&[0xff; 90])),
        ("an item of a kind to come", Bytes::from_static(&[0x2a, 0])),
        ("an item of no key generation", Bytes::from_static(&[0x1a, 1, 0xff])),
        ("no certificate", changed(&item, |o| o.certificate = None)),
        ("a false signature", spoiled(&item)),
        ("2f votes", certificate(|c| c.votes.truncate(2))),
        ("one vote twice", certificate(|c| c.votes[1] = c.votes[0].clone())),
        ("another epoch", certificate(|c| c.epoch += 1)),
        ("another committee", changed(&item, |o| o.certificate.as_mut().unwrap().votes = (0..3).map(sign).collect())),
        ("another root", certificate(|c| c.root = Bytes::from_static(&[1; 32]))),
        ("another count", certificate(|c| c.count = 3)),
        ("no orders", certificate(|c| c.count = 0)),
        ("another order", changed(&item, |o| o.bodies[0] = own_body)),
        ("another place", changed(&item, |o| o.indices[0] = 1)),
        ("a place beyond the batch", changed(&item, |o| o.indices[0] = 2)),
        ("the largest place", changed(&item, |o| o.indices[0] = u32::MAX)),
        ("no proof", changed(&item, |o| o.proof.clear())),
        ("a longer proof", changed(&item, |o| o.proof.push(Bytes::from_static(&[1; 32])))),
        ("a short hash", changed(&item, |o| o.proof[0] = Bytes::from_static(&[1; 31]))),
        ("a body more", changed(&item, |o| o.bodies.push(o.bodies[0].clone()))),
        ("an order twice", changed(&item, |o| (o.indices, o.bodies) = (vec![0, 0], vec![o.bodies[0].clone(); 2]))),
        ("no bodies", changed(&item, |o| (o.indices, o.bodies) = (vec![], vec![]))),
        ("a body that is none", changed(&item, |o| o.bodies[0] = Bytes::from_static(b"body"))),
    ];
    let before = objects(&cluster);
    for (what, forged) in cases {
        cluster.order_items(3, 0, vec![forged, item.clone()]);
        assert_eq!(objects(&cluster), before, "{what}");
    }
    for garbage in [Bytes::from_static(&[0xff; 100]), vec![0x12; UNIT_BYTES_MAX].into()] {
        cluster.order(3, &garbage);
    }
    assert_eq!(objects(&cluster), before);
    check(&cluster, &[(&alice, 995), (&bob, 998)]);
    cluster.order_all();
    check(&cluster, &[(&alice, 995), (&bob, 1_005)]);
}

#[test]
fn a_unit_that_is_too_large_or_of_nobody_is_no_unit() {
    let (mut cluster, _, _, item) = waiting();
    let data = wire::UnitData { clock_ms: 0, items: vec![item] }.encode_to_vec();
    let log = &mut cluster.logs[0];
    let before = log.state.clone();
    assert_eq!(code(log.unit(0, &vec![0; UNIT_BYTES_MAX + 1].into())), Code::Limit);
    assert_eq!(code(log.unit(4, &data.clone().into())), Code::Limit);
    let unit = |session, position| crate::ordered::input::Input::Unit {
        session,
        position,
        creator: 0,
        round: 0,
        data: data.clone().into(),
    };
    let units = log.log.book(&log.state).unwrap().units;
    assert_eq!(code(log.step(unit(0, units + 1))), Code::OutOfOrder);
    assert_eq!(code(log.step(unit(1, 0))), Code::OutOfOrder);
    assert!(log.step(unit(0, units - 1)).unwrap().writes.is_empty(), "applied before");
    assert!(log.unit(1, &Bytes::new()).unwrap().writes.is_empty(), "nothing in it");
    assert_eq!(log.state, before);
}

/// Were the signatures of duplicates looked at, the false one would end the unit, and a thousand would cost seconds.
#[test]
fn duplicates_cost_no_signature_check() {
    let (mut cluster, mut alice, bob, item) = waiting();
    cluster.order_items(0, 0, vec![item.clone()]);
    let second = alice.call(vec![], vec![credit(&bob, 1)]);
    cluster.run(&[second]);
    let fresh = cluster.log_items(0).pop().unwrap();
    let worthless = spoiled(&item);
    let room = (UNIT_BYTES_MAX - fresh.len() - 128) / (worthless.len() + 8);
    for _ in 0..20 {
        let mut items = vec![worthless.clone(); room];
        items.push(fresh.clone());
        assert!(items.len() > 50);
        cluster.order_items(3, 0, items);
    }
    assert_eq!(cluster.logs[0].log.book(&cluster.logs[0].state).unwrap().orders, 2);
    cluster.order_all();
    check(&cluster, &[(&alice, 994), (&bob, 1_006)]);
}

/// The same CALL in every item of every authority, and as the only order of another proof.
#[test]
fn whoever_hands_in_a_call_how_often_and_how_it_is_applied_once() {
    let (mut cluster, alice, bob, item) = waiting();
    for creator in 0..4 {
        cluster.order_items(creator, 0, vec![item.clone(); 5]);
    }
    let book = cluster.logs[2].log.book(&cluster.logs[2].state).unwrap();
    assert_eq!((book.orders, book.received, book.sent), (1, 7, 7));
    cluster.order_all();
    check(&cluster, &[(&alice, 995), (&bob, 1_005)]);
}

#[test]
fn clocks_of_liars_move_time_no_further_than_honest_ones() {
    let (mut cluster, mut alice, bob) = setup(1);
    let day = 86_400_000;
    let time = |cluster: &Cluster| cluster.logs[0].log.book(&cluster.logs[0].state).unwrap().time_ms;
    cluster.order_items(3, 1_000 + day, vec![]);
    assert_eq!(time(&cluster), 1_000);
    for now in [1_100, 1_200, 1_300] {
        for creator in 0..3 {
            cluster.order_items(creator, now, vec![]);
            cluster.order_items(3, u64::MAX, vec![]);
            assert!(time(&cluster) <= now, "{}", time(&cluster));
        }
        assert_eq!(time(&cluster), now);
    }
    // A liar that stands still, or goes back, holds nothing up.
    cluster.order_items(3, 1, vec![]);
    assert_eq!(time(&cluster), 1_300);
    let order = alice.call(vec![], vec![fund(5, 1_400, &alice.clone(), &bob)]);
    let contract = contract_id(&id_of(&order), 0);
    cluster.run_ordered(&[order]);
    let own = alice.clone();
    let back = alice.call(vec![refund(contract, 5)], vec![credit(&own, 5)]);
    cluster.run_ordered(&[back]);
    assert_eq!(cluster.status(0, &alice, 2).code, Code::ContractOpen as u32);
    check(&cluster, &[]);
}

/// The report of an authority that holds a certificate counts only once the certificate is in the log, in whatever
/// order the engine has its units. And nobody reports for another, or twice, or about nothing.
#[test]
fn a_report_waits_for_what_it_has_to_show() {
    let (mut cluster, mut alice, bob) = setup(1);
    let before = alice.clone();
    let order = [alice.pay(&[to(bob.address, 10)], "")];
    let recovery = [before.recover()];
    let recover = cluster.certify(0, &recovery);
    let certificate = cluster.certify(0, &order);
    // A quorum has settled the order: it is final. Then the recovery is ordered.
    for i in 0..3 {
        cluster.node(i, 0).settle(&certificate, &order).unwrap();
    }
    cluster.settle(0, &recover, &recovery);
    let items = cluster.log_items(3);
    cluster.order_items(3, 0, items);
    for i in 0..4 {
        deliver_log(&mut cluster.logs[i], &mut cluster.nodes[i]);
    }
    // The units with the certificate are lost; those with the reports are not.
    for i in 0..4 {
        let items = cluster.log_items(i);
        let report = |item: &&Bytes| matches!(wire::Item::decode((*item).clone()).unwrap().kind, Some(Kind::Report(_)));
        let reports: Vec<Bytes> = items.iter().filter(report).cloned().collect();
        assert_eq!(reports.len(), 1);
        cluster.order_items(i as u32, 0, vec![reports[0].clone(), reports[0].clone()]);
        let false_report =
            wire::RecoveryReport { network_id: NETWORK_ID, actor: bob.actor(), seqnum: 1, ..Default::default() };
        let item = wire::Item { kind: Some(Kind::Report(false_report)) };
        cluster.order_items(i as u32, 0, vec![item.encode_to_vec().into()]);
    }
    cluster.set_time(1_000 + RECOVERY_WAIT_MS);
    assert_eq!(cluster.status(0, &alice, 1).state(), S::Settled);
    cluster.order_all();
    assert_eq!(cluster.status(3, &alice, 1).state(), S::Settled);
    check(&cluster, &[(&alice, 990), (&bob, 1_010)]);
}
