//! The keys of e-cash, made over the log: all logs have the same keys whoever is silent, lies, or reads it later.

use std::collections::BTreeSet;

use prost::Message;

use super::*;
use crate::authority::state::State as _;
use crate::cash::dkg::wire::{Announce, DkgItem, Kind};
use crate::cash::dkg::{Ceremony, Participant, Phase};
use crate::cash::mint_keys::MintKeys;
use crate::limits::CASH_TIERS;
use crate::ordered::dkg::{blobs, keys_key, params};
use crate::ordered::input::Input;
use crate::ordered::item::dkg_item;

fn ceremony(cluster: &Cluster, i: usize) -> Ceremony {
    let log = &cluster.logs[i];
    log.log.ceremony(&log.state).unwrap()
}

/// As after a restart: what an authority does follows from its seed and its disk.
fn participant(cluster: &Cluster, i: usize) -> Participant {
    let run = ceremony(cluster, i).params().run();
    let params = params(&cluster.committee, run).unwrap();
    Participant::new(params, i as u32, seed("dkg", run * 100 + i as u64), None).unwrap()
}

pub(super) fn items(cluster: &Cluster, i: usize) -> Vec<Bytes> {
    let (log, ceremony) = (&cluster.logs[i], ceremony(cluster, i));
    let items = participant(cluster, i).items(&ceremony, &blobs(&log.state, ceremony.params().run())).unwrap();
    items.into_iter().map(dkg_item).collect()
}

/// Each of these hands in what it has to until nobody has anything.
fn run(cluster: &mut Cluster, who: &[usize]) {
    loop {
        let before = cluster.units.len();
        for i in who {
            let items = items(cluster, *i);
            if !items.is_empty() {
                cluster.order_items(*i as u32, 0, items);
            }
        }
        if cluster.units.len() == before {
            return;
        }
    }
}

fn go_on(cluster: &mut Cluster, who: &[usize]) {
    for i in who {
        let item = participant(cluster, *i).go_on(&ceremony(cluster, *i)).unwrap();
        cluster.order_items(*i as u32, 0, vec![dkg_item(item)]);
    }
}

/// All logs have the same keys, `holders` their shares of them; a log made of the units that are kept is the same.
fn active(cluster: &Cluster, holders: &[usize]) -> wire::CashKeysReply {
    check(cluster, &[]);
    let reply = cluster.logs[0].log.cash_keys(&cluster.logs[0].state).unwrap();
    assert_eq!((reply.phase, reply.tiers as usize), (Phase::Active as u32, CASH_TIERS));
    for (i, log) in cluster.logs.iter().enumerate() {
        assert_eq!(log.log.cash_keys(&log.state).unwrap(), reply);
        let run = ceremony(cluster, i);
        let shares = participant(cluster, i).shares(&run, &blobs(&log.state, run.params().run())).unwrap();
        assert_eq!(shares.is_some(), holders.contains(&i), "authority {i}");
        let keys = log.log.mint_keys(&log.state).unwrap().unwrap();
        assert_eq!(MintKeys::new(keys, shares).unwrap().tiers(), CASH_TIERS);
    }
    let first = &cluster.logs[0];
    let mut late = Cluster::new(&TestCommittee::new(cluster.logs.len(), cluster.committee.shards)).logs.remove(1);
    let mut from = 0;
    while let units @ 1.. = first.log.book(&first.state).unwrap().units - from {
        let page = first.log.units(&first.state, &wire::UnitsRequest { session: 0, from }).unwrap().units;
        assert!(page.len() <= units as usize);
        for unit in page {
            let (position, data) = (from, unit.data);
            late.step(Input::Unit { session: 0, position, creator: unit.creator, round: 0, data }).unwrap();
            from += 1;
        }
    }
    assert_eq!(late.state, cluster.logs[1].state, "a log that caught up");
    reply
}

#[test]
fn a_committee_makes_its_keys() {
    let mut cluster = Cluster::new(&TestCommittee::new(4, 1));
    assert_eq!(cluster.logs[0].log.cash_keys(&cluster.logs[0].state).unwrap().run, 0);
    // Keys that the run has come to and that are not in use yet are its own, for an audit as well.
    let mut closed = false;
    for i in (0..4).cycle() {
        for item in items(&cluster, i) {
            cluster.order_items(i as u32, 0, vec![item]);
            let has = |run| cluster.logs[0].state.get(Table::Objects, &keys_key(run)).unwrap().is_some();
            if !closed && has(Some(1)) {
                assert!(!has(None));
                clean(&cluster, 0);
                closed = true;
            }
        }
        if ceremony(&cluster, 0).phase() == Phase::Active && (0..4).all(|i| items(&cluster, i).is_empty()) {
            break;
        }
    }
    assert!(closed);
    let reply = active(&cluster, &[0, 1, 2, 3]);
    assert_eq!((reply.run, reply.missing, reply.caught), (1, vec![], vec![]));

    // Whatever is handed in again is dropped: it changes nothing, and is not kept.
    let units: Vec<_> = cluster.units.clone();
    let objects = |cluster: &Cluster| cluster.logs[0].state.iter(Table::Objects).count();
    let (before, bytes) = (objects(&cluster), cluster.logs[0].log.book(&cluster.logs[0].state).unwrap().bytes);
    units.iter().for_each(|(creator, data)| cluster.order(*creator, data));
    let kept = cluster.logs[0].log.book(&cluster.logs[0].state).unwrap().bytes - bytes;
    assert_eq!((objects(&cluster), kept), (before, units.len() as u64));
    active(&cluster, &[0, 1, 2, 3]);
}

#[test]
fn one_that_is_silent_is_waited_for_until_a_quorum_goes_on() {
    let mut cluster = Cluster::new(&TestCommittee::new(4, 1));
    run(&mut cluster, &[0, 1, 2]);
    let waiting = cluster.logs[1].log.cash_keys(&cluster.logs[1].state).unwrap();
    assert_eq!((waiting.phase, &waiting.missing[..], &waiting.keys[..]), (Phase::Announce as u32, &[3][..], &[][..]));
    go_on(&mut cluster, &[0, 1]);
    assert_eq!(ceremony(&cluster, 0).phase(), Phase::Announce);
    go_on(&mut cluster, &[2]);
    run(&mut cluster, &[0, 1, 2]);
    // It comes too late for a share, and everyone can say so.
    run(&mut cluster, &[0, 1, 2, 3]);
    let reply = active(&cluster, &[0, 1, 2]);
    assert_eq!((&reply.missing[..], reply.caught), (&[3][..], vec![]));
}

#[test]
fn a_liar_is_found_out_and_the_keys_come_without_it() {
    let mut cluster = Cluster::new(&TestCommittee::new(4, 1));
    let DkgItem { run_id, .. } = DkgItem::decode(own(&items(&cluster, 3)[0])).unwrap();
    let false_key = Announce { key: Bytes::from_static(&[1; 48]), proof: Bytes::from_static(&[2; 64]) };
    let lie = |kind| dkg_item(DkgItem { run_id: run_id.clone(), kind: Some(kind) }.encode_to_vec().into());
    // What follows a lie in its unit is not looked at, nor is anything else of its creator.
    let late = items(&cluster, 3);
    cluster.order_items(3, 0, [vec![lie(Kind::Announce(false_key))], late].concat());
    let garbage = dkg_item(Bytes::from_static(b"no item"));
    cluster.order_items(2, 0, vec![garbage]);
    run(&mut cluster, &[0, 1, 2, 3]);
    let reply = active(&cluster, &[0, 1, 2]);
    assert_eq!((reply.caught, reply.missing), (vec![3], vec![]));
}

fn own(item: &Bytes) -> Bytes {
    match wire::Item::decode(item.clone()).unwrap().kind {
        Some(wire::item::Kind::Dkg(item)) => item,
        other => panic!("an item of the key generation, not {other:?}"),
    }
}

#[test]
fn more_liars_than_f_leave_no_keys_and_the_next_run_makes_some() {
    let mut cluster = Cluster::new(&TestCommittee::new(4, 1));
    run(&mut cluster, &[]);
    let all: Vec<Vec<Bytes>> = (0..4).map(|i| items(&cluster, i)).collect();
    (0..).zip(all).for_each(|(i, items)| cluster.order_items(i, 0, items));
    assert_eq!(ceremony(&cluster, 0).phase(), Phase::Deal);
    // All deal; the first three count. Then verdicts show two of them as liars to each other... by dealings to nobody.
    let dealings: Vec<Vec<Bytes>> = (0..4).map(|i| items(&cluster, i)).collect();
    let spoiled = |items: &[Bytes]| -> Vec<Bytes> {
        let mut item = DkgItem::decode(own(&items[0])).unwrap();
        let Some(Kind::Deal(deal)) = &mut item.kind else { panic!("a dealing") };
        deal.shares = vec![5; deal.shares.len()].into();
        vec![dkg_item(item.encode_to_vec().into())]
    };
    for i in [0, 1] {
        cluster.order_items(i as u32, 0, spoiled(&dealings[i]));
    }
    cluster.order_items(2, 0, dealings[2].clone());
    run(&mut cluster, &[0, 1, 2, 3]);
    assert_eq!(ceremony(&cluster, 3).phase(), Phase::Failed);
    let failed = cluster.logs[3].log.cash_keys(&cluster.logs[3].state).unwrap();
    assert_eq!((failed.run, &failed.caught[..], &failed.keys[..]), (1, &[0, 1][..], &[][..]));
    check(&cluster, &[]);

    // The second run begins with its first item, and nothing of the first one counts in it.
    let first = |i: usize| {
        let params = params(&cluster.committee, 2).unwrap();
        let part = Participant::new(params.clone(), i as u32, seed("dkg", 200 + i as u64), None).unwrap();
        let log = &cluster.logs[i];
        dkg_item(part.items(&Ceremony::new(params), &blobs(&log.state, 2)).unwrap().remove(0))
    };
    let announce = first(0);
    cluster.order_items(0, 0, dealings[0].clone());
    assert_eq!(ceremony(&cluster, 0).params().run(), 1);
    cluster.order_items(0, 0, vec![announce]);
    run(&mut cluster, &[0, 1, 2, 3]);
    let reply = active(&cluster, &[0, 1, 2, 3]);
    assert_eq!((reply.run, reply.caught), (2, vec![]));
}

#[test]
fn an_audit_finds_keys_that_the_units_did_not_make() {
    let mut cluster = Cluster::new(&TestCommittee::new(4, 1));
    run(&mut cluster, &[0, 1, 2, 3]);
    active(&cluster, &[0, 1, 2, 3]);
    let spoiled: BTreeSet<Vec<u8>> = cluster.logs[0].state.iter(Table::Objects).map(|(key, _)| key.to_vec()).collect();
    assert!(spoiled.contains(&keys_key(None)) && !spoiled.contains(&keys_key(Some(1))));
    let before = cluster.logs[0].state.clone();
    for key in spoiled {
        for value in [None, Some(vec![0; 3])] {
            cluster.logs[0].state.apply(&[Write { table: Table::Objects, key: key.clone(), value }]);
            let log = &cluster.logs[0];
            let found = audit_log(&log.log, &log.state, false);
            assert!(found.map_or(true, |audit| !audit.is_clean()), "{}", hex::encode(&key));
            cluster.logs[0].state = before.clone();
        }
    }
    // Good keys, of other holders: what they are good for is said as well.
    let mut others = Cluster::new(&TestCommittee::new(4, 1));
    run(&mut others, &[1, 2, 3]);
    go_on(&mut others, &[1, 2, 3]);
    run(&mut others, &[1, 2, 3]);
    let keys = others.logs[0].state.get(Table::Objects, &keys_key(None)).unwrap().unwrap();
    cluster.logs[0].state.apply(&[Write::put(Table::Objects, keys_key(None), keys.to_vec())]);
    let found = audit_log(&cluster.logs[0].log, &cluster.logs[0].state, false).unwrap().findings;
    assert!(found.iter().any(|what| what.contains("keys of e-cash: hash")), "{found:?}");
    assert!(found.iter().all(|what| what.len() < 400), "nobody reads kilobytes of keys: {}", found[0]);
    cluster.logs[0].state = before;
    let extra = Write::put(Table::Objects, keys_key(Some(7)), b"keys".to_vec());
    cluster.logs[0].state.apply(&[extra]);
    assert!(!audit_log(&cluster.logs[0].log, &cluster.logs[0].state, false).unwrap().is_clean());
}
