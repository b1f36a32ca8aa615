//! PBTX networks at one shard, told what the log would tell it: what is kept, shown and refused, exactly.

use super::*;
use crate::authority::input::Input;
use crate::authority::state::LOG;
use crate::authority::tests::log_steps::tell;
use crate::keys::Curve;
use crate::network_flags::{HISTORY, RAW_NOTIFY, SKIP_SEQ_AND_PREVHASH};
use wire::history_row::Event;
use wire::log_step::Kind;

const ID: u64 = 500;

fn of_network(flags: u32, metadata: bool) -> Kind {
    let network = wire::NetworkRecord { flags, metadata: Bytes::from_static(b"about"), ..Default::default() };
    Kind::Network(wire::LogNetwork { network_id: ID, network: Some(network), metadata })
}

fn of_actor(actor: &Actor) -> Kind {
    let id = actor.permission.actor;
    Kind::Actor(wire::LogActor {
        network_id: ID,
        actor: id,
        permission: actor.permission.encode(),
        generation: 1,
        order_id: vec![id as u8; 32].into(),
        ..Default::default()
    })
}

/// A committee that knows the network, and two of its actors.
fn network(flags: u32) -> (Cluster, [Actor; 2]) {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let actors = [1, 2].map(|id| Actor::new(ID, id, Curve::Ed25519));
    for shards in &mut cluster.nodes {
        let steps = vec![of_network(flags, true), of_actor(&actors[0]), of_actor(&actors[1])];
        tell(&mut shards[0], steps).unwrap();
    }
    (cluster, actors)
}

fn page(node: &Node, from: u64, limit: u32) -> wire::HistoryReply {
    let request = wire::HistoryRequest { network_id: ID, from, limit };
    node.authority.history(&node.state, &request).unwrap()
}

/// (event, data, id of an order) of each row.
fn rows(node: &Node) -> Vec<(Event, Bytes, Bytes)> {
    let reply = page(node, 0, 256);
    assert_eq!(reply.next, 0);
    assert!(reply.rows.iter().zip(1..).all(|(row, id)| (row.id, row.time_us) == (id, NOW_US)));
    reply.rows.into_iter().map(|row| (row.event(), row.data, row.trx_id)).collect()
}

/// Certifies whatever it is, and settles it at one authority.
fn settle_blindly(cluster: &mut Cluster, orders: &[Bytes]) {
    let id = crate::batch::decode_batch(orders).unwrap().id;
    let all = crate::bitmap::Bitmap::full(orders.len());
    let vote = |i: u32| {
        let key = &cluster.keys[i as usize];
        crate::certificate::sign(crate::certificate::Promise::Vote, &cluster.committee, i, key, &id, &all)
    };
    let certificate = cluster.certificate(orders, (0..3).map(vote).collect());
    let reply = cluster.node(0, 0).settle(&certificate, orders).unwrap();
    assert!(reply.acknowledgement.is_some() && reply.waiting.is_empty());
}

#[test]
fn history_says_what_happened_and_nothing_that_did_not() {
    let (mut cluster, [mut a, b]) = network(HISTORY);
    let order = a.order(7, b"content", &[]);
    cluster.run(std::slice::from_ref(&order));
    let id = crate::envelope::Order::decode(order.clone()).unwrap().id;
    let node = cluster.node(0, 0);
    let removed = Kind::Actor(wire::LogActor {
        network_id: ID,
        actor: 2,
        removed: true,
        order_id: vec![9; 32].into(),
        ..Default::default()
    });
    // The same again is nothing new.
    tell(node, vec![of_network(HISTORY, false), of_actor(&a), removed.clone(), removed]).unwrap();
    let event =
        |event, data: &[u8], trx_id: &[u8]| (event, Bytes::copy_from_slice(data), Bytes::copy_from_slice(trx_id));
    let expected = [
        event(Event::Netmetadata, b"about", b""),
        event(Event::Regactor, &a.permission.encode(), &[1; 32]),
        event(Event::Regactor, &b.permission.encode(), &[2; 32]),
        event(Event::Exectrx, &order, &id),
        event(Event::Unregactor, &[0, 0, 0, 0, 0, 0, 0, 2], &[9; 32]),
    ];
    assert_eq!(rows(node), expected);
    // Where no history is kept only orders have a place in the stream.
    let (mut cluster, [mut a, _]) = network(RAW_NOTIFY);
    cluster.run(&[a.order(7, b"content", &[])]);
    let node = cluster.node(0, 0);
    let heard = node.authority.listen(&node.state, &wire::ListenRequest { network_id: ID, from: 0 }).unwrap();
    assert_eq!((heard.end, heard.next, heard.batches.len()), (2, 2, 1));
    let request = wire::HistoryRequest { network_id: ID, from: 0, limit: 9 };
    assert_eq!(code(node.authority.history(&node.state, &request)), Code::BadContent);
}

#[test]
fn pages_of_every_size_have_the_same_rows() {
    let (mut cluster, [mut a, mut b]) = network(HISTORY);
    let first: Vec<Bytes> = (0..5).map(|_| a.order(1, b"x", &[])).collect();
    cluster.run(&first);
    cluster.run(&[b.order(1, b"y", &[]), a.order(1, b"z", &[])]);
    let node = cluster.node(0, 0);
    let all = page(node, 0, 256).rows;
    assert_eq!(all.len(), 10);
    for limit in 0..=12_u32 {
        let (mut from, mut found) = (1, Vec::new());
        loop {
            let reply = page(node, from, limit);
            let expected = (limit.max(1) as usize).min(all.len() - found.len());
            assert_eq!(reply.rows.len(), expected, "{limit} a page");
            found.extend(reply.rows);
            let is_last = found.len() == all.len();
            assert_eq!(reply.next, if is_last { 0 } else { found.len() as u64 + 1 }, "{limit} a page");
            if is_last {
                break;
            }
            from = reply.next;
        }
        assert_eq!(found, all, "{limit} a page");
    }
}

#[test]
fn a_page_has_what_fits_into_a_mebibyte() {
    let (mut cluster, [mut a, _]) = network(HISTORY | RAW_NOTIFY);
    // So long that 64 are exactly that.
    let overhead = a.clone().order(1, &[7; 16_000], &[]).len() - 16_000;
    let orders: Vec<Bytes> = (0..70).map(|_| a.order(1, &vec![7; 16_384 - overhead], &[])).collect();
    // Up to seqnum 70 no field grows.
    assert!(orders.iter().skip(1).all(|order| order.len() - 9 == orders[0].len()), "only the first has no prev_hash");
    settle_blindly(&mut cluster, &orders);
    let node = cluster.node(0, 0);
    // Rows of history: metadata and two actors come first.
    let reply = page(node, 5, 256);
    let size: usize = reply.rows.iter().map(|row| row.data.len()).sum();
    assert!(size <= 1 << 20 && size + orders[1].len() > 1 << 20, "{size}");
    assert_eq!(reply.next, 5 + reply.rows.len() as u64);
    // What listeners get has each order at most twice: as a body and, where they want it, as a transaction.
    let listen = |from| node.authority.listen(&node.state, &wire::ListenRequest { network_id: ID, from }).unwrap();
    let mut from = 4;
    let mut sizes = Vec::new();
    while from < 74 {
        let heard = listen(from);
        let bodies = |b: &wire::StreamBatch| b.orders.as_ref().map_or(0, |orders| orders.bodies.len());
        sizes.push(heard.batches.iter().map(bodies).sum::<usize>());
        assert_eq!((heard.next, heard.end), (from + *sizes.last().unwrap() as u64, 74));
        from = heard.next;
    }
    let most = (1 << 20) / (2 * orders[1].len());
    assert_eq!(sizes, [most, most, 70 - 2 * most]);
}

#[test]
fn history_that_fills_a_page_exactly_fits_it() {
    let (mut cluster, [mut a, mut b]) = network(HISTORY);
    let first = [a.order(1, b"", &[]), b.order(1, b"", &[])];
    settle_blindly(&mut cluster, &first);
    let overhead = a.clone().order(1, &[7; 16_000], &[]).len() - 16_000;
    let orders: Vec<Bytes> = (0..66).map(|_| a.order(1, &vec![7; 16_384 - overhead], &[])).collect();
    assert!(orders.iter().all(|order| order.len() == 16_384));
    settle_blindly(&mut cluster, &orders);
    let node = cluster.node(0, 0);
    let reply = page(node, 6, 256);
    assert_eq!((reply.rows.len(), reply.next), (64, 70));
    let reply = page(node, 70, 256);
    assert_eq!((reply.rows.len(), reply.next), (2, 0));
}

#[test]
fn what_is_pending_is_shown_where_it_is() {
    let (mut cluster, [mut a, mut b]) = network(0);
    cluster.run(&[a.order(1, b"settled", &[]), b.order(1, b"settled", &[])]);
    let mut twin = b.clone();
    let orders = [a.order(1, b"one", &[]), b.order(1, b"two", &[]), b.order(1, b"three", &[])];
    let node = cluster.node(0, 0);
    assert_eq!(accepted(&node.vote(&orders).unwrap()), 0b111);
    let body = |order: &Bytes| crate::envelope::Order::decode(order.clone()).unwrap().body;
    let request = wire::ActorRequest { network_id: ID, actor: 2 };
    let reply = node.authority.actor(&node.state, &request).unwrap();
    let pending: Vec<_> = reply.pending.iter().map(|p| (p.seqnum, p.body.clone())).collect();
    assert_eq!(pending, [(2, body(&orders[1])), (3, body(&orders[2]))]);
    assert_eq!((reply.known, reply.removed, reply.seqnum, reply.rotating, reply.generation), (true, false, 1, 0, 1));
    // Another order for the seqnum hears which one has it.
    let other = [twin.order(1, b"instead", &[])];
    let reply = node.vote(&other).unwrap();
    assert_eq!(refused(&reply), [(0, Code::PendingConflict)]);
    assert_eq!(reply.errors[0].pending_order, body(&orders[1]));
}

#[test]
fn a_change_of_keys_that_is_voted_for_stops_the_actor_s_chain() {
    let (mut cluster, [mut a, _]) = network(0);
    let rotation = a.rotate(vec![secret(Curve::Ed25519, 70)]);
    let node = cluster.node(0, 0);
    assert_eq!(accepted(&node.vote(std::slice::from_ref(&rotation)).unwrap()), 1);
    let next = a.order(1, b"", &[]);
    assert_eq!(refused(&node.vote(&[next]).unwrap()), [(0, Code::PermissionPending)]);
    assert_eq!(accepted(&node.vote(&[rotation]).unwrap()), 1, "itself it may be asked for again");
}

#[test]
fn who_voted_for_another_chain_goes_on_with_the_certified_one() {
    let (mut cluster, [mut a, _]) = network(0);
    let mut twin = a.clone();
    let lost = [twin.order(1, b"lost", &[]), twin.order(1, b"after it", &[])];
    assert_eq!(accepted(&cluster.node(0, 0).vote(&lost).unwrap()), 0b11);
    settle_blindly(&mut cluster, &[a.order(1, b"certified", &[])]);
    let node = cluster.node(0, 0);
    assert!(node.account_of(ID, 1).pending.is_empty());
    assert_eq!(accepted(&node.vote(&[a.order(1, b"next", &[])]).unwrap()), 1);
    // One's own successors stay promised when their first is settled.
    let (mut cluster, [mut a, _]) = network(0);
    let chain = [a.order(1, b"first", &[]), a.order(1, b"second", &[])];
    cluster.vote(0, &chain);
    settle_blindly(&mut cluster, &chain[..1]);
    assert_eq!(cluster.node(0, 0).account_of(ID, 1).pending.len(), 1);
}

#[test]
fn prechecks_at_their_limits() {
    let take = |precheck: wire::Precheck| {
        let (mut cluster, [a, _]) = network(0);
        let by = Bytes::from_static(&[5; 32]);
        let prechecks = vec![wire::NetworkPrecheck { by, precheck: Some(precheck) }];
        let network = Some(wire::NetworkRecord { prechecks, ..Default::default() });
        let step = Kind::Network(wire::LogNetwork { network_id: ID, network, metadata: false });
        tell(cluster.node(0, 0), vec![step]).unwrap();
        move |transaction_type, content: &[u8]| {
            let order = a.clone().order(transaction_type, content, &[]);
            let reply = cluster.node(0, 0).vote(&[order]).unwrap();
            let is_taken = reply.vote.is_some();
            assert!(is_taken || refused(&reply) == [(0, Code::Precheck)]);
            // Of one seqnum only the first is voted for.
            is_taken
        }
    };
    let short = wire::Precheck { content_max: 4, ..Default::default() };
    assert!(!take(short.clone())(1, b"12345"));
    assert!(take(short)(1, b"1234"));
    assert!(take(wire::Precheck::default())(1, &[7; 16_000]), "no limit");
    let types = |first, last| wire::Precheck { types: vec![wire::TypeRange { first, last }], ..Default::default() };
    for (transaction_type, expected) in [(9, false), (10, true), (12, true), (13, false)] {
        assert_eq!(take(types(10, 12))(transaction_type, b""), expected, "{transaction_type}");
    }
    let actors = |actors| wire::Precheck { actors, ..Default::default() };
    assert!(take(actors(vec![1]))(1, b""));
    assert!(!take(actors(vec![2]))(1, b""));
}

#[test]
fn a_change_of_keys_is_no_business_of_listeners() {
    let (mut cluster, [mut a, _]) = network(0);
    let precheck = wire::Precheck { content_max: 1, actors: vec![9], ..Default::default() };
    let prechecks = vec![wire::NetworkPrecheck { precheck: Some(precheck), ..Default::default() }];
    let network = Some(wire::NetworkRecord { prechecks, ..Default::default() });
    let step = Kind::Network(wire::LogNetwork { network_id: ID, network, metadata: false });
    let node = cluster.node(0, 0);
    tell(node, vec![step]).unwrap();
    assert_eq!(refused(&node.vote(&[a.clone().order(1, b"", &[])]).unwrap()), [(0, Code::Precheck)]);
    assert_eq!(accepted(&node.vote(&[a.rotate(vec![secret(Curve::Ed25519, 70)])]).unwrap()), 1);
}

#[test]
fn pruning_takes_the_oldest_rows_up_to_a_time_and_a_number() {
    let (mut cluster, [mut a, _]) = network(HISTORY);
    cluster.run(&[a.order(1, b"x", &[]), a.order(1, b"y", &[])]);
    let node = cluster.node(0, 0);
    let mut prune = |before_us, max_rows| {
        tell(node, vec![Kind::Prune(wire::LogPrune { network_id: ID, before_us, max_rows })]).unwrap();
        let request = wire::HistoryRequest { network_id: ID, from: 0, limit: 256 };
        let rows = node.authority.history(&node.state, &request).unwrap().rows;
        (rows.iter().map(|row| row.id).collect::<Vec<_>>(), count(node, Table::Stream))
    };
    assert_eq!(prune(NOW_US, 9), (vec![1, 2, 3, 4, 5], 5), "none is older");
    assert_eq!(prune(NOW_US + 1, 0), (vec![1, 2, 3, 4, 5], 5));
    assert_eq!(prune(NOW_US + 1, 2), (vec![3, 4, 5], 3));
    assert_eq!(prune(NOW_US + 1, 9), (vec![], 0));
    let listen = |from| node.authority.listen(&node.state, &wire::ListenRequest { network_id: ID, from });
    assert_eq!(code(listen(5)), Code::Pruned);
    assert_eq!(listen(6).unwrap().next, 6);
    assert_eq!(code(listen(7)), Code::OutOfOrder);
}

#[test]
fn without_sequence_numbers_an_order_is_found_by_its_id() {
    let (mut cluster, [mut a, _]) = network(SKIP_SEQ_AND_PREVHASH);
    let orders = [a.order(1, b"one", &[]), a.order(1, b"two", &[])];
    cluster.run(&orders);
    let order = crate::envelope::Order::decode(orders[1].clone()).unwrap();
    let order_id = Bytes::copy_from_slice(&order.id);
    let node = cluster.node(0, 0);
    let request = wire::OrderRequest { network_id: ID, actor: 1, order_id: order_id.clone(), ..Default::default() };
    let reply = node.authority.order(&node.state, &request).unwrap();
    assert_eq!(reply.state(), wire::order_reply::State::Settled);
    assert_eq!(reply.receipt.unwrap().transaction, orders[1]);
    let request =
        wire::OrderStatusRequest { network_id: ID, actor: 1, order_id: order_id.clone(), ..Default::default() };
    let status = node.authority.order_status(&node.state, &request).unwrap();
    assert_eq!((status.state(), status.order_id, status.calls), (wire::order_status::State::Settled, order_id, false));
    // Another batch with both of them is acknowledged, and not kept.
    let before = node.state.clone();
    let both = [orders[1].clone(), orders[0].clone()];
    let certificate = cluster.certify(0, &both);
    let reply = cluster.node(0, 0).settle(&certificate, &both).unwrap();
    assert_eq!(reply.acknowledgement.unwrap().bitmap[0], 0b11);
    assert_eq!(cluster.node(0, 0).state, before);
    // With a new one it is kept, and only that one is news.
    cluster.run(&[orders[0].clone(), a.order(1, b"three", &[])]);
    let node = cluster.node(0, 0);
    let heard = node.authority.listen(&node.state, &wire::ListenRequest { network_id: ID, from: 1 }).unwrap();
    assert_eq!((heard.end, node.authority.totals(&node.state).unwrap().orders), (4, 3));
}

#[test]
fn only_the_log_says_what_a_network_is() {
    let (mut cluster, _) = network(0);
    let node = cluster.node(0, 0);
    let step = wire::LogStep { kind: Some(of_network(HISTORY, true)) };
    let delivery = wire::Delivery { from_shard: LOG, sequence: 2, steps: vec![step], ..Default::default() };
    let call = wire::Delivery { steps: vec![], calls: vec![wire::LogCall::default()], ..delivery.clone() };
    assert_eq!(code(node.step(Input::Deliver(call)).map(|_| ())), Code::WrongShard);
    let unknown = wire::Delivery { steps: vec![wire::LogStep::default()], ..delivery.clone() };
    assert_eq!(code(node.step(Input::Deliver(unknown)).map(|_| ())), Code::Decode);
    node.step(Input::Deliver(delivery)).unwrap();
}

#[test]
fn who_is_not_settled_before_waits_and_a_change_of_keys_is_shown_until_the_log_has_decided() {
    let (mut cluster, [mut a, b]) = network(0);
    let early = |cluster: &mut Cluster, actor: &Actor| {
        let orders = [actor.clone().order(1, b"x", &[])];
        let id = crate::batch::decode_batch(&orders).unwrap().id;
        let all = crate::bitmap::Bitmap::full(1);
        let vote = |i: u32| {
            let key = &cluster.keys[i as usize];
            crate::certificate::sign(crate::certificate::Promise::Vote, &cluster.committee, i, key, &id, &all)
        };
        let certificate = cluster.certificate(&orders, (0..3).map(vote).collect());
        let reply = cluster.node(0, 0).settle(&certificate, &orders).unwrap();
        (reply.acknowledgement.is_some(), reply.waiting.len(), cluster.node(0, 0).account_of(ID, 2).early.len())
    };
    // It follows another order than the last one; it is ahead; and both.
    assert_eq!(early(&mut cluster, &Actor { prev_hash: 5, ..b.clone() }), (false, 1, 1));
    assert_eq!(early(&mut cluster, &Actor { seqnum: 1, ..b.clone() }), (false, 1, 2));
    assert_eq!(early(&mut cluster, &Actor { seqnum: 1, prev_hash: 5, ..b.clone() }), (false, 1, 3));
    assert_eq!(cluster.node(0, 0).account_of(ID, 2).seqnum, 0);
    let rotating = |cluster: &Cluster| {
        let node = &cluster.nodes[0][0];
        node.authority.actor(&node.state, &wire::ActorRequest { network_id: ID, actor: 1 }).unwrap().rotating
    };
    let permission = a.permission.encode();
    settle_blindly(&mut cluster, &[a.order(1, b"", &[])]);
    assert_eq!(rotating(&cluster), 0);
    let rotation = a.rotate(vec![secret(Curve::Ed25519, 70)]);
    settle_blindly(&mut cluster, &[rotation]);
    assert_eq!(rotating(&cluster), 2);
    let step = wire::LogActor { network_id: ID, actor: 1, permission, rotated: 2, generation: 1, ..Default::default() };
    tell(cluster.node(0, 0), vec![Kind::Actor(step)]).unwrap();
    assert_eq!(rotating(&cluster), 0, "refused, or carried out");
}

#[test]
fn listeners_hear_where_each_order_stands() {
    let (mut cluster, [mut a, mut b]) = network(RAW_NOTIFY);
    let first = [a.order(1, b"1", &[]), b.order(1, b"2", &[]), a.order(1, b"3", &[])];
    settle_blindly(&mut cluster, &first);
    let second = [b.order(1, b"4", &[])];
    settle_blindly(&mut cluster, &second);
    let node = cluster.node(0, 0);
    for from in 0..=5_u64 {
        let heard = node.authority.listen(&node.state, &wire::ListenRequest { network_id: ID, from }).unwrap();
        assert_eq!((heard.next, heard.end, heard.flags), (5, 5, RAW_NOTIFY));
        let positions: Vec<u64> = heard.batches.iter().flat_map(|batch| batch.positions.clone()).collect();
        assert!(positions.iter().copied().eq(from.max(1)..5), "{positions:?} from {from}");
        let all = [&first[0], &first[1], &first[2], &second[0]];
        for batch in &heard.batches {
            let orders = batch.orders.as_ref().unwrap();
            assert_eq!(batch.times_us, vec![NOW_US; batch.positions.len()]);
            for (i, position) in batch.positions.iter().enumerate() {
                let order = crate::envelope::Order::decode(batch.transactions[i].clone()).unwrap();
                assert_eq!(orders.bodies[i], order.body);
                // Orders of one batch stand in the order of their sequence numbers.
                let place = all.iter().position(|raw| **raw == order.raw).unwrap();
                assert_eq!(
                    (place, orders.indices[i] as usize),
                    match position {
                        1 => (0, 0),
                        2 => (1, 1),
                        3 => (2, 2),
                        _ => (3, 0),
                    }
                );
            }
        }
    }
}

#[test]
fn batches_of_one_page_share_its_room() {
    use prost::Message;
    let (mut cluster, [mut a, _]) = network(RAW_NOTIFY);
    for _ in 0..2 {
        let orders: Vec<Bytes> = (0..20).map(|_| a.order(1, &[7; 16_000], &[])).collect();
        settle_blindly(&mut cluster, &orders);
    }
    let node = cluster.node(0, 0);
    let mut from = 1;
    let mut pages = Vec::new();
    while from < 41 {
        let heard = node.authority.listen(&node.state, &wire::ListenRequest { network_id: ID, from }).unwrap();
        assert!(heard.encoded_len() <= 1 << 20, "{}", heard.encoded_len());
        let bodies = |b: &wire::StreamBatch| b.orders.as_ref().map_or(0, |orders| orders.bodies.len());
        pages.push(heard.batches.iter().map(bodies).collect::<Vec<_>>());
        from = heard.next;
    }
    let [first, second] = &pages[..] else { panic!("two pages: {pages:?}") };
    assert!(first.len() == 2 && first[0] == 20 && second[..] == [20 - first[1]], "{pages:?}");
}
