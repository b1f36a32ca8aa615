//! Delays begin when a quorum has voted its clocks anew.

use super::*;

/// The log stands still for a day; then a settle is ordered before any clock. Its delay is a delay all the same.
#[test]
fn a_delay_is_not_used_up_by_a_time_in_which_the_log_stood_still() {
    let (mut cluster, mut alice, mut bob, open) = with_channel(100, false);
    assert_eq!(does(&mut cluster, &mut alice, open.settle()), None);
    // f of the clocks say nothing, or what they like.
    let day = 86_400_000;
    for (authority, clock) in [(3, day * 9), (3, day * 10), (0, day), (0, day + 1)] {
        cluster.order_items(authority, clock, vec![]);
        assert_eq!(open.record(&cluster).settling_at_ms, u64::MAX);
    }
    cluster.order_items(1, day + 2, vec![]);
    assert_eq!(open.record(&cluster).settling_at_ms, day + 1 + DELAY);
    let redeem = open.redeem(&[(open.voucher(OPENER, 0, 1, 60), b"")]);
    assert_eq!(does(&mut cluster, &mut bob, redeem), None);
    assert_eq!(does(&mut cluster, &mut alice, open.collect()), Some(Code::ChannelNotDue));
    cluster.set_time(day * 2);
    assert_eq!(does(&mut cluster, &mut alice, open.collect()), None);
    check(&cluster, &[(&alice, 940), (&bob, 1_060)]);
}

/// More delays than one step looks at, some of them taken back while they wait.
#[test]
fn many_delays_at_once() {
    let (mut cluster, mut alice, bob, _) = with_channel(0, false);
    let one = output::Kind::ChannelOpen(opening(&alice, &bob, 1, false));
    let mut ids = Vec::new();
    for _ in 0..4 {
        let order = alice.call(vec![], vec![one.clone(); 25]);
        ids.extend((0..25).map(|i| channel_id(cluster.committee.id(), &id_of(&order), i)));
        assert_eq!(came_to(&mut cluster, &alice, order), None);
    }
    let all: Vec<Open> = ids.into_iter().map(|id| Open { id, sides: [alice.clone(), bob.clone()] }).collect();
    let order = alice.call(vec![], all.iter().map(|open| open.leave(1)).collect());
    assert_eq!(came_to(&mut cluster, &alice, order), None);
    // Half are taken back in the unit whose clock makes a quorum.
    let (gone, stay) = all.split_at(50);
    let mut outputs: Vec<_> = gone.iter().map(|open| open.leave(0)).collect();
    outputs.push(gone[0].leave(1));
    let order = alice.call(vec![], outputs);
    cluster.run(&[order]);
    let items = cluster.log_items(0);
    cluster.order_items(0, 2_000, vec![]);
    cluster.order_items(1, 2_000, vec![]);
    cluster.order_items(2, 2_000, items);
    cluster.order_all();
    (0..4).for_each(|i| clean(&cluster, i));
    cluster.set_time(3_000);
    cluster.set_time(3_001);
    for open in stay {
        assert!((2_000 + DELAY..=3_001 + DELAY).contains(&open.record(&cluster).opener.unwrap().leaving_at_ms));
    }
    check(&cluster, &[(&alice, 900)]);
}
