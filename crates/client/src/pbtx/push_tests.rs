//! How transactions of many actors are sent, and what is said of those behind one that failed.

use florin_core::keys::Curve;
use florin_core::testing::Actor;

use super::*;

fn orders(actors: &mut [(Actor, usize)]) -> Vec<Order> {
    let mut orders = Vec::new();
    for (actor, count) in actors {
        orders.extend((0..*count).map(|_| Order::decode(actor.order(1, b"x", &[])).unwrap()));
    }
    orders
}

fn actor(network: u64, id: u64) -> Actor {
    Actor::new(network, id, Curve::Ed25519)
}

fn refused(code: Code) -> Result<Receipt> {
    Err(Error::new(code, "no"))
}

fn states(pushed: &[Pushed]) -> String {
    let letter = |p: &Pushed| match p {
        Pushed::Settled(_) => 's',
        Pushed::Refused(_) => 'r',
        Pushed::Waiting(_) => 'w',
    };
    pushed.iter().map(letter).collect()
}

#[test]
fn a_batch_is_of_one_shard_and_takes_a_window_of_each_actor() {
    let mut all = orders(&mut [(actor(4, 1), 70), (actor(4, 2), 3), (actor(5, 1), 2)]);
    all.reverse();
    let mut run = Run::new(&all);
    let mut sizes = Vec::new();
    while let Some((shard, batch)) = run.next_batch(|order| (order.network_id % 2) as u32) {
        let mut last = BTreeMap::new();
        for order in batch.iter().map(|i| &all[*i]) {
            assert_eq!(order.network_id % 2, u64::from(shard));
            assert!(
                last.insert(order.actor, order.seqnum) < Some(order.seqnum),
                "in sequence, whatever the file's order"
            );
        }
        sizes.push((shard, batch.len()));
        run.note(&batch, batch.iter().map(|_| Ok(Receipt::default())).collect());
    }
    assert_eq!(sizes, [(0, 67), (0, 6), (1, 2)]);
    assert_eq!(states(&run.outcomes()), "s".repeat(75));
}

#[test]
fn what_is_behind_a_refused_one_waits_and_the_rest_goes_on() {
    let all = orders(&mut [(actor(4, 1), 3), (actor(4, 2), 1)]);
    let mut run = Run::new(&all);
    let (_, batch) = run.next_batch(|_| 0).unwrap();
    let outcomes =
        vec![Ok(Receipt::default()), refused(Code::KeyMismatch), refused(Code::BadSeq), Ok(Receipt::default())];
    run.note(&batch, outcomes);
    assert_eq!(states(&run.outcomes()), "srws");
    // Of a chain that goes on from elsewhere nothing waits.
    let mut run = Run::new(&all);
    let (_, batch) = run.next_batch(|_| 0).unwrap();
    run.note(&batch, (0..4).map(|_| refused(Code::BadSeq)).collect());
    assert_eq!(states(&run.outcomes()), "rrrr");
}

#[test]
fn without_a_quorum_nothing_more_is_sent() {
    let all = orders(&mut [(actor(4, 1), 130)]);
    let mut run = Run::new(&all);
    let (_, batch) = run.next_batch(|_| 0).unwrap();
    run.note(&batch, batch.iter().map(|_| refused(Code::QuorumUnreachable)).collect());
    assert!(run.next_batch(|_| 0).is_none());
    let outcomes = run.outcomes();
    assert_eq!(states(&outcomes), "w".repeat(130));
    assert!(outcomes.iter().all(|o| o.error().unwrap().code == Code::QuorumUnreachable));
}
