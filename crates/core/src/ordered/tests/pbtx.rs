//! PBTX networks as their admins, actors, listeners and attackers see them.

use super::*;
use crate::authority::state::account_key;
use crate::certificate::check_certificate;
use crate::content::{TYPE_ROTATE, encode_rotate};
use crate::envelope::Order;
use crate::keys::Curve;
use crate::merkle::root_from_parts;
use crate::network_flags::{APPLICATION, HISTORY, ORDERED, RAW_NOTIFY, SKIP_SEQ_AND_PREVHASH};
use crate::registration::sign_registration;
use wire::network_command::Kind as N;

const ID: u64 = 500;

fn command(kind: N) -> output::Kind {
    output::Kind::Network(wire::NetworkCommand { network_id: ID, kind: Some(kind) })
}

/// A committee with network 500 of these flags, whose admin is alice, and three actors: 1 K1, 2 R1, 3 ed25519.
fn network(shards: u32, flags: u32) -> (Cluster, Signer, [Actor; 3]) {
    let (mut cluster, mut alice, _) = setup(shards);
    let register = wire::NetworkRegister { flags, metadata: Bytes::from_static(b"test"), ..Default::default() };
    let actors =
        [(1, Curve::K1), (2, Curve::R1), (3, Curve::Ed25519)].map(|(actor, curve)| Actor::new(ID, actor, curve));
    let mut outputs = vec![command(N::Register(register))];
    outputs.extend(actors.iter().map(Actor::registration));
    let order = alice.call(vec![], outputs);
    cluster.run_ordered(&[order]);
    assert_eq!(cluster.status(0, &alice, 1).state(), S::Ordered);
    (cluster, alice, actors)
}

fn admin(cluster: &mut Cluster, alice: &mut Signer, kind: N) -> u32 {
    let order = alice.call(vec![], vec![command(kind)]);
    cluster.run_ordered(&[order]);
    cluster.status(0, alice, alice.seqnum).code
}

fn refused(cluster: &mut Cluster, order: &Bytes) -> Code {
    let shard = cluster.committee.shard_of(ID, 0);
    let reply = cluster.node(0, shard).vote(std::slice::from_ref(order)).unwrap();
    assert!(reply.vote.is_none(), "accepted");
    Code::from_number(reply.errors[0].code).unwrap()
}

fn actor(cluster: &Cluster, authority: usize, actor: u64) -> wire::ActorReply {
    let node = &cluster.nodes[authority][cluster.committee.shard_of(ID, 0) as usize];
    node.authority.actor(&node.state, &wire::ActorRequest { network_id: ID, actor }).unwrap()
}

/// What a listener hears from an authority: (actor, seqnum) of each order, proved.
fn heard(cluster: &Cluster, authority: usize) -> Vec<(u64, u32)> {
    let node = &cluster.nodes[authority][cluster.committee.shard_of(ID, 0) as usize];
    let mut orders = Vec::new();
    let mut from = 1;
    loop {
        let request = wire::ListenRequest { network_id: ID, from };
        let reply = node.authority.listen(&node.state, &request).unwrap();
        for batch in &reply.batches {
            let proved = batch.orders.as_ref().unwrap();
            let (id, certified) = check_certificate(&cluster.committee, proved.certificate.as_ref().unwrap()).unwrap();
            let decoded: Vec<Order> =
                proved.bodies.iter().map(|body| Order::decode_body(body.clone()).unwrap()).collect();
            let mut placed: Vec<_> =
                proved.indices.iter().map(|i| *i as usize).zip(decoded.iter().map(|o| o.id)).collect();
            placed.sort_unstable();
            let proof: Vec<_> = proved.proof.iter().map(|h| h.as_ref().try_into().unwrap()).collect();
            assert_eq!(root_from_parts(&placed, id.count, &proof), Some(id.root));
            assert!(placed.iter().all(|(i, _)| certified.get(*i)));
            for transaction in &batch.transactions {
                assert_ne!(reply.flags & RAW_NOTIFY, 0);
                Order::decode(transaction.clone()).unwrap();
            }
            orders.extend(decoded.iter().map(|o| (o.actor, o.seqnum)));
        }
        if reply.next == reply.end {
            return orders;
        }
        assert!(reply.next > from, "a page goes on");
        from = reply.next;
    }
}

fn all_clean(cluster: &Cluster) {
    check(cluster, &[]);
}

#[test]
fn actors_of_every_key_type_transact_and_cosign() {
    for shards in [1, 3] {
        let (mut cluster, _, [mut a, mut b, c]) = network(shards, RAW_NOTIFY);
        let orders = [
            a.order(7, b"one", &[]),
            a.order(7, b"two", &[&b, &c]),
            b.order(0, b"", &[&c]),
            b.order(u32::MAX, &[9; 16_384], &[&a]),
        ];
        cluster.run(&orders);
        for authority in 0..4 {
            assert_eq!(heard(&cluster, authority), [(1, 1), (2, 1), (1, 2), (2, 2)]);
            assert_eq!(actor(&cluster, authority, 1).seqnum, 2);
            assert_eq!(actor(&cluster, authority, 3).seqnum, 0, "a cosignor's own sequence does not move");
        }
        all_clean(&cluster);
    }
}

#[test]
fn strict_refusals_have_their_codes_and_change_nothing() {
    let (mut cluster, _, [mut a, b, c]) = network(2, 0);
    let good = a.clone().order(7, b"x", &[&b]);
    let order = Order::decode(good.clone()).unwrap();
    let stranger = Actor::new(ID, 99, Curve::K1);
    let cases = [
        (stranger.clone().order(1, b"", &[]), Code::UnknownActor),
        (a.clone().order(1, b"", &[&stranger]), Code::UnknownCosignor),
        (a.clone().order(1, b"", &[&a.clone()]), Code::DuplicateCosignor),
        (a.clone().order(1, b"", &[&b, &b]), Code::DuplicateCosignor),
        (Actor { seqnum: 1, ..a.clone() }.order(1, b"", &[]), Code::BadSeq),
        (Actor { prev_hash: 1, ..a.clone() }.order(1, b"", &[]), Code::BadPrevHash),
        (crate::envelope::encode_envelope(&order.body, &order.authorities[..1]), Code::AuthorityCount),
        (Actor { keys: c.keys.clone(), ..a.clone() }.order(1, b"", &[]), Code::KeyMismatch),
        (Actor { keys: vec![].into(), ..a.clone() }.order(1, b"", &[]), Code::InsufficientWeight),
    ];
    let before = cluster.nodes[0].iter().map(|n| n.state.iter(Table::Accounts).count()).sum::<usize>();
    for (bad, code) in &cases {
        assert_eq!(refused(&mut cluster, bad), *code);
    }
    assert_eq!(cluster.nodes[0].iter().map(|n| n.state.iter(Table::Accounts).count()).sum::<usize>(), before);
    // Two orders for one seqnum: the second names the first.
    cluster.vote(cluster.committee.shard_of(ID, 0), std::slice::from_ref(&good));
    let other = a.order(7, b"y", &[]);
    assert_eq!(refused(&mut cluster, &other), Code::PendingConflict);
    cluster.run(&[good]);
    assert_eq!(refused(&mut cluster, &other), Code::BadSeq);
    all_clean(&cluster);
}

#[test]
fn unknown_networks_and_removed_ones_are_refused() {
    let (mut cluster, mut alice, [mut a, _, _]) = network(2, 0);
    let elsewhere = Actor::new(ID + 2, 1, Curve::K1).order(1, b"", &[]);
    let reply = cluster.node(0, 0).vote(&[elsewhere]).unwrap();
    assert_eq!(Code::from_number(reply.errors[0].code), Some(Code::UnknownNetwork));
    assert_eq!(admin(&mut cluster, &mut alice, N::Remove(wire::NetworkRemove {})), Code::NetworkInUse as u32);
    for id in 1..=3 {
        assert_eq!(admin(&mut cluster, &mut alice, N::RemoveActor(id)), 0);
    }
    assert_eq!(admin(&mut cluster, &mut alice, N::Remove(wire::NetworkRemove {})), 0);
    assert_eq!(refused(&mut cluster, &a.order(1, b"", &[])), Code::UnknownNetwork);
    let again = N::Register(wire::NetworkRegister::default());
    assert_eq!(admin(&mut cluster, &mut alice, again), Code::NetworkExists as u32);
    all_clean(&cluster);
}

#[test]
fn removing_and_re_adding_an_actor_replays_nothing() {
    let (mut cluster, mut alice, [mut a, _, _]) = network(1, 0);
    let first = a.order(1, b"pay me", &[]);
    cluster.run(std::slice::from_ref(&first));
    assert_eq!(admin(&mut cluster, &mut alice, N::RemoveActor(1)), 0);
    assert!(actor(&cluster, 0, 1).removed);
    assert_eq!(refused(&mut cluster, &a.clone().order(1, b"more", &[])), Code::UnknownActor);
    let back = N::Actor(a.permission.encode());
    assert_eq!(admin(&mut cluster, &mut alice, back), 0);
    assert_eq!(actor(&cluster, 0, 1).seqnum, 1, "its sequence goes on");
    // The old chain is not new: the same body is the same order, settled once.
    cluster.run(&[first]);
    assert_eq!(heard(&cluster, 0), [(1, 1)]);
    cluster.run(&[a.order(1, b"more", &[])]);
    assert_eq!(heard(&cluster, 0), [(1, 1), (1, 2)]);
    all_clean(&cluster);
}

#[test]
fn an_order_certified_before_its_actor_was_removed_settles_everywhere() {
    let (mut cluster, mut alice, [mut a, _, _]) = network(1, 0);
    let order = a.order(1, b"x", &[]);
    let certificate = cluster.certify(0, std::slice::from_ref(&order));
    cluster.node(0, 0).settle(&certificate, std::slice::from_ref(&order)).unwrap();
    assert_eq!(admin(&mut cluster, &mut alice, N::RemoveActor(1)), 0);
    for reply in cluster.settle(0, &certificate, std::slice::from_ref(&order)) {
        assert!(reply.unwrap().acknowledgement.is_some());
    }
    for authority in 0..4 {
        assert_eq!(heard(&cluster, authority), [(1, 1)]);
    }
    all_clean(&cluster);
}

#[test]
fn an_actor_changes_its_keys_and_the_old_ones_are_worth_nothing() {
    let (mut cluster, mut alice, [mut a, _, _]) = network(2, 0);
    let old = a.keys.clone();
    let rotation = a.rotate(vec![secret(Curve::Ed25519, 70), secret(Curve::R1, 71)]);
    cluster.run(&[rotation]);
    // Until the log has it no key signs anything.
    assert_eq!(refused(&mut cluster, &a.clone().order(1, b"x", &[])), Code::PermissionPending);
    cluster.order_all();
    assert_eq!(refused(&mut cluster, &Actor { keys: old, ..a.clone() }.order(1, b"x", &[])), Code::KeyMismatch);
    cluster.run(&[a.order(1, b"x", &[])]);
    // The admin's word comes after it, and the actor's own after that.
    let admins = Actor::new(ID, 1, Curve::R1);
    assert_eq!(admin(&mut cluster, &mut alice, N::Actor(admins.permission.encode())), 0);
    assert_eq!(refused(&mut cluster, &a.clone().order(1, b"y", &[])), Code::KeyMismatch);
    a.keys = admins.keys.clone();
    cluster.run(&[a.order(1, b"y", &[])]);
    let mut other = a.clone();
    let foreign = encode_rotate(Actor::new(ID, 2, Curve::K1).permission.encode(), 3);
    let foreign = other.order(TYPE_ROTATE, &foreign, &[]);
    assert_eq!(refused(&mut cluster, &foreign), Code::BadPermission, "another actor's permission");
    let stale = a.clone().order(TYPE_ROTATE, &encode_rotate(a.permission.encode(), 2), &[]);
    assert_eq!(refused(&mut cluster, &stale), Code::BadPermission, "it replaces a permission of before");
    for authority in 0..4 {
        assert_eq!(actor(&cluster, authority, 1).permission, admins.permission.encode());
    }
    all_clean(&cluster);
}

#[test]
fn changes_of_keys_have_one_order_everywhere() {
    // The admin's change and the actor's own meet: at some authorities the actor's order settles before the admin's
    // change is known, at others after it.
    let (mut cluster, mut alice, [mut a, _, _]) = network(1, 0);
    let rotation = a.rotate(vec![secret(Curve::K1, 70)]);
    let certificate = cluster.certify(0, std::slice::from_ref(&rotation));
    for authority in 0..2 {
        cluster.node(authority, 0).settle(&certificate, std::slice::from_ref(&rotation)).unwrap();
    }
    let admins = Actor::new(ID, 1, Curve::R1);
    let order = alice.call(vec![], vec![command(N::Actor(admins.permission.encode()))]);
    cluster.run_ordered(&[order]);
    for reply in cluster.settle(0, &certificate, std::slice::from_ref(&rotation)) {
        reply.unwrap();
    }
    cluster.order_all();
    let found: Vec<_> = (0..4).map(|authority| actor(&cluster, authority, 1)).collect();
    assert!(found.windows(2).all(|w| w[0] == w[1]), "{found:?}");
    assert_eq!(found[0].rotating, 0);
    all_clean(&cluster);
}

#[test]
fn a_change_of_keys_that_was_held_back_is_worth_nothing() {
    let (mut cluster, mut alice, [mut a, _, _]) = network(1, 0);
    // A thief has the key, gets a change of it certified, and keeps the certificate.
    let mut thief = a.clone();
    let rotation = thief.rotate(vec![secret(Curve::K1, 66)]);
    let certificate = cluster.certify(0, std::slice::from_ref(&rotation));
    // The admin gives the actor back to its owner.
    assert_eq!(admin(&mut cluster, &mut alice, N::RemoveActor(1)), 0);
    let owner = Actor::new(ID, 1, Curve::R1);
    assert_eq!(admin(&mut cluster, &mut alice, N::Actor(owner.permission.encode())), 0);
    for reply in cluster.settle(0, &certificate, std::slice::from_ref(&rotation)) {
        reply.unwrap();
    }
    cluster.order_all();
    assert_eq!(actor(&cluster, 0, 1).permission, owner.permission.encode());
    assert_eq!(refused(&mut cluster, &thief.order(1, b"x", &[])), Code::KeyMismatch);
    (a.keys, a.seqnum, a.prev_hash) = (owner.keys.clone(), 1, thief_hash(&rotation));
    cluster.run(&[a.order(1, b"x", &[])]);
    all_clean(&cluster);
}

fn thief_hash(order: &Bytes) -> u64 {
    short_hash(&id_of(order))
}

#[test]
fn an_actor_whose_order_lost_its_votes_is_freed_by_its_admin() {
    let (mut cluster, mut alice, [mut a, mut b, _]) = network(2, 0);
    let shard = cluster.committee.shard_of(ID, 0);
    let order = a.order(1, b"x", &[&b]);
    for authority in 0..2 {
        assert!(cluster.node(authority, shard).vote(std::slice::from_ref(&order)).unwrap().vote.is_some());
    }
    // The cosignor's keys change: two authorities hold the order's place, the others refuse it.
    let rotation = b.rotate(vec![secret(Curve::K1, 70)]);
    cluster.run_ordered(&[rotation]);
    let reply = cluster.node(3, shard).vote(std::slice::from_ref(&order)).unwrap();
    assert_eq!(Code::from_number(reply.errors[0].code), Some(Code::KeyMismatch));
    let order_id = Bytes::copy_from_slice(&id_of(&order));
    let foreign = N::Admit(wire::ActorAdmit { actor: 1, order_id: vec![9; 32].into() });
    assert_eq!(admin(&mut cluster, &mut alice, foreign), 0);
    let reply = cluster.node(3, shard).vote(std::slice::from_ref(&order)).unwrap();
    assert!(reply.vote.is_none(), "that was another order");
    assert_eq!(admin(&mut cluster, &mut alice, N::Admit(wire::ActorAdmit { actor: 1, order_id })), 0);
    cluster.run(&[order, a.order(1, b"y", &[])]);
    assert_eq!(heard(&cluster, 3), [(2, 1), (1, 1), (1, 2)]);
    all_clean(&cluster);
}

#[test]
fn the_last_sequence_number_is_the_last() {
    let (mut cluster, _, [mut a, b, _]) = network(1, 0);
    for node in cluster.nodes.iter_mut().flatten() {
        let mut account = node.account_of(ID, 1);
        account.seqnum = u32::MAX - 1;
        node.state.apply(&[Write::put(Table::Accounts, account_key(ID, 1), account.encode())]);
    }
    a.seqnum = u32::MAX - 1;
    let last = a.order(1, b"x", &[&b]);
    cluster.run(std::slice::from_ref(&last));
    assert_eq!(actor(&cluster, 0, 1).seqnum, u32::MAX);
    a.seqnum = 0;
    assert_eq!(refused(&mut cluster, &a.order(1, b"y", &[])), Code::SeqExhausted);
    a.seqnum = u32::MAX - 1;
    assert_eq!(refused(&mut cluster, &a.order(1, b"y", &[])), Code::SeqExhausted);
    assert!(cluster.node(0, 0).vote(&[last]).unwrap().vote.is_some(), "the same again is the same");
    for seqnum in [0, 1, u32::MAX] {
        let node = &cluster.nodes[0][0];
        node.authority
            .order(&node.state, &wire::OrderRequest { network_id: ID, actor: 1, seqnum, ..Default::default() })
            .unwrap();
        let request = wire::OrderStatusRequest { network_id: ID, actor: 1, seqnum, ..Default::default() };
        node.authority.order_status(&node.state, &request).unwrap();
    }
}

#[test]
fn a_batch_that_stands_backwards_is_ordered_at_once() {
    let (mut cluster, _, [mut a, _, _]) = network(1, ORDERED);
    let mut orders: Vec<Bytes> = (0..40_u8).map(|n| a.order(1, &[n], &[])).collect();
    cluster.vote(0, &orders);
    orders.reverse();
    let certificate = cluster.certify(0, &orders);
    for reply in cluster.settle(0, &certificate, &orders) {
        reply.unwrap();
    }
    let items = cluster.log_items(0);
    cluster.order_items(0, 0, items);
    let status = cluster.logs[0].log.book(&cluster.logs[0].state).unwrap();
    assert_eq!(status.orders, 41, "the network's registration, and all of them");
    cluster.order_all();
    assert_eq!(heard(&cluster, 2).len(), 40);
    all_clean(&cluster);
}

#[test]
fn what_costs_nothing_is_not_told_to_shards() {
    let (mut cluster, mut alice, _) = network(1, 0);
    let offer = || command(N::Offer(wire::NetworkOffer { admin: vec![7; 32].into() }));
    let order = alice.call(vec![], (0..100).map(|_| offer()).collect());
    let before = cluster.logs[0].log.outbox_range(&cluster.logs[0].state, 0).unwrap();
    cluster.run_ordered(&[order]);
    let log = &cluster.logs[0];
    let (_, last) = log.log.outbox_range(&log.state, 0).unwrap();
    assert_eq!(last, before.1 + 1, "the order itself, once");
    let precheck = |n: u64| wire::Precheck { actors: (n..n + 200).map(|i| i << 8).collect(), ..Default::default() };
    let listeners: Vec<Signer> = (2..6).map(Signer::new).collect();
    let update = wire::NetworkUpdate { listeners: listeners.iter().map(bytes).collect(), ..Default::default() };
    assert_eq!(admin(&mut cluster, &mut alice, N::Update(update)), 0);
    let codes: Vec<u32> = listeners
        .into_iter()
        .map(|mut listener| admin(&mut cluster, &mut listener, N::Precheck(precheck(1))))
        .collect();
    assert_eq!(codes, [0, 0, Code::Limit as u32, Code::Limit as u32]);
    all_clean(&cluster);
}

#[test]
fn a_frozen_actor_gets_no_votes_until_it_is_free_again() {
    let (mut cluster, mut alice, [mut a, mut b, _]) = network(1, 0);
    let freeze = |frozen| N::FreezeActor(wire::ActorFreeze { actor: 1, frozen });
    assert_eq!(admin(&mut cluster, &mut alice, freeze(true)), 0);
    assert_eq!(refused(&mut cluster, &a.clone().order(1, b"x", &[])), Code::ActorFrozen);
    assert_eq!(refused(&mut cluster, &b.clone().order(1, b"x", &[&a])), Code::ActorFrozen);
    assert_eq!(admin(&mut cluster, &mut alice, freeze(false)), 0);
    cluster.run(&[a.order(1, b"x", &[]), b.order(1, b"x", &[&a])]);
    let mut bob = Signer::new(2);
    let order = bob.call(vec![], vec![command(freeze(true))]);
    cluster.run_ordered(&[order]);
    assert_eq!(cluster.status(0, &bob, 1).code, Code::NotAdmin as u32);
    all_clean(&cluster);
}

#[test]
fn listeners_say_what_they_take_before_anything_is_voted_for() {
    let (mut cluster, mut alice, [a, b, _]) = network(1, 0);
    let mut bob = Signer::new(2);
    let update = wire::NetworkUpdate { listeners: vec![bytes(&bob)], ..Default::default() };
    assert_eq!(admin(&mut cluster, &mut alice, N::Update(update)), 0);
    let precheck =
        wire::Precheck { types: vec![wire::TypeRange { first: 10, last: 19 }], content_max: 4, actors: vec![1, 3] };
    let order = bob.call(vec![], vec![command(N::Precheck(precheck))]);
    cluster.run_ordered(&[order]);
    assert_eq!(cluster.status(0, &bob, 1).code, 0);
    assert_eq!(refused(&mut cluster, &a.clone().order(20, b"x", &[])), Code::Precheck);
    assert_eq!(refused(&mut cluster, &a.clone().order(10, b"xxxxx", &[])), Code::Precheck);
    assert_eq!(refused(&mut cluster, &b.clone().order(10, b"x", &[])), Code::Precheck);
    cluster.run(&[a.clone().order(19, b"xxxx", &[&b])]);
    // Who is no listener any more asks for nothing any more.
    assert_eq!(admin(&mut cluster, &mut alice, N::Update(wire::NetworkUpdate::default())), 0);
    cluster.run(&[b.clone().order(99, b"xxxxx", &[])]);
    all_clean(&cluster);
}

#[test]
fn networks_with_ordered_have_one_stream_everywhere() {
    for shards in [1, 2] {
        let (mut cluster, _, [mut a, mut b, mut c]) = network(shards, ORDERED);
        let shard = cluster.committee.shard_of(ID, 0);
        let mut certified = Vec::new();
        for round in 0..4_u8 {
            for actor in [&mut a, &mut b, &mut c] {
                let order = actor.order(1, &[round], &[]);
                certified.push((cluster.certify(shard, std::slice::from_ref(&order)), order));
            }
        }
        // Each authority settles them in an order of its own.
        for authority in 0..4 {
            certified.rotate_left(3);
            for _ in 0..5 {
                for (certificate, order) in &certified {
                    cluster.node(authority, shard).settle(certificate, std::slice::from_ref(order)).unwrap();
                }
            }
        }
        assert!(heard(&cluster, 0).is_empty(), "nothing has its place yet");
        cluster.order_all();
        let first = heard(&cluster, 0);
        assert_eq!(first.len(), 12);
        for authority in 1..4 {
            assert_eq!(heard(&cluster, authority), first);
        }
        let status = cluster.logs[0].log.order_status(
            &cluster.logs[0].state,
            &wire::OrderStatusRequest { network_id: ID, actor: 2, seqnum: 4, ..Default::default() },
            wire::OrderStatus::default(),
        );
        assert_eq!(status.unwrap().state(), S::Ordered);
        all_clean(&cluster);
    }
}

#[test]
fn networks_without_sequence_numbers_settle_each_transaction_once() {
    let (mut cluster, _, [a, mut b, _]) = network(1, SKIP_SEQ_AND_PREVHASH);
    let any =
        |seqnum: u32, content: &[u8]| Actor { seqnum, prev_hash: 5, ..a.clone() }.order(TYPE_ROTATE + 1, content, &[]);
    let (one, two) = (any(40, b"x"), any(40, b"y"));
    cluster.run(&[one.clone(), two.clone(), b.order(4, b"", &[])]);
    assert_eq!(heard(&cluster, 0), [(2, 1), (1, 41), (1, 41)]);
    cluster.run(&[two, one]);
    assert_eq!(heard(&cluster, 0).len(), 3, "a replay delivers nothing");
    assert_eq!(actor(&cluster, 0, 1).seqnum, 0);
    let rotation = b.clone().rotate(vec![secret(Curve::K1, 9)]);
    assert_eq!(refused(&mut cluster, &rotation), Code::BadContent);
    all_clean(&cluster);
}

#[test]
fn in_open_networks_actors_register_themselves_and_in_others_not() {
    let (mut cluster, mut alice, [a, _, _]) = network(1, 0);
    let new = Actor::new(ID, 12, Curve::R1);
    let open = |actor: &Actor, signer: &Actor| {
        let permission = actor.permission.encode();
        let signature = Bytes::copy_from_slice(sign_registration(&permission, &signer.keys[0]).as_bytes());
        N::Open(wire::ActorOpen { permission, signature })
    };
    let mut bob = Signer::new(2);
    let run = |cluster: &mut Cluster, bob: &mut Signer, kind| {
        let order = bob.call(vec![], vec![command(kind)]);
        cluster.run_ordered(&[order]);
        cluster.status(0, bob, bob.seqnum).code
    };
    assert_eq!(run(&mut cluster, &mut bob, open(&new, &new)), Code::NetworkClosed as u32);
    let taken =
        Actor { permission: crate::permission::Permission { actor: 1, ..new.permission.clone() }, ..new.clone() };
    assert_eq!(admin(&mut cluster, &mut alice, open(&taken, &taken)), Code::ActorExists as u32, "nobody is replaced");
    let other = Actor::new(ID, 14, Curve::K1);
    assert_eq!(admin(&mut cluster, &mut alice, open(&other, &other)), 0);
    assert_eq!(admin(&mut cluster, &mut alice, N::Update(wire::NetworkUpdate { open: true, ..Default::default() })), 0);
    assert_eq!(run(&mut cluster, &mut bob, open(&new, &new)), 0);
    assert_eq!(run(&mut cluster, &mut bob, open(&new, &new)), 0, "the same permission again succeeds");
    let thief =
        Actor { permission: crate::permission::Permission { actor: 1, ..new.permission.clone() }, ..new.clone() };
    assert_eq!(run(&mut cluster, &mut bob, open(&thief, &thief)), Code::ActorExists as u32);
    let forged = open(&Actor::new(ID, 13, Curve::K1), &a);
    assert_eq!(run(&mut cluster, &mut bob, forged), Code::KeyMismatch as u32);
    cluster.run(&[new.clone().order(1, b"x", &[])]);
    all_clean(&cluster);
}

#[test]
fn history_has_what_happened_and_the_admin_prunes_it() {
    let (mut cluster, mut alice, [mut a, _, _]) = network(1, HISTORY | APPLICATION);
    cluster.run(&[a.order(1, b"x", &[])]);
    assert_eq!(admin(&mut cluster, &mut alice, N::RemoveActor(3)), 0);
    let rows = |cluster: &Cluster| {
        let node = &cluster.nodes[0][0];
        let request = wire::HistoryRequest { network_id: ID, from: 0, limit: 4 };
        let mut reply = node.authority.history(&node.state, &request).unwrap();
        let mut rows = std::mem::take(&mut reply.rows);
        while reply.next > 0 {
            let request = wire::HistoryRequest { from: reply.next, ..request };
            reply = node.authority.history(&node.state, &request).unwrap();
            rows.append(&mut reply.rows);
        }
        rows
    };
    use wire::history_row::Event as E;
    let events: Vec<_> = rows(&cluster).iter().map(wire::HistoryRow::event).collect();
    assert_eq!(events, [E::Netmetadata, E::Regactor, E::Regactor, E::Regactor, E::Exectrx, E::Unregactor]);
    assert_eq!(rows(&cluster)[4].time_us, NOW_US);
    let prune = |max_rows| N::Prune(wire::HistoryPrune { before_us: u64::MAX, max_rows });
    // Younger than 10 minutes of log time: nothing goes.
    assert_eq!(admin(&mut cluster, &mut alice, prune(9)), 0);
    assert_eq!(rows(&cluster).len(), 6);
    cluster.set_time(NOW_US / 1_000 + 700_000);
    assert_eq!(admin(&mut cluster, &mut alice, prune(2)), 0);
    assert_eq!(rows(&cluster).iter().map(|row| row.id).collect::<Vec<_>>(), [3, 4, 5, 6]);
    let node = &cluster.nodes[0][0];
    let early = node.authority.listen(&node.state, &wire::ListenRequest { network_id: ID, from: 1 });
    assert_eq!(code(early), Code::Pruned);
    assert_eq!(admin(&mut cluster, &mut alice, prune(9)), 0);
    // A page reads few batches, however many rows are asked for.
    for _ in 0..20 {
        cluster.run(&[a.order(1, b"y", &[])]);
    }
    let node = &cluster.nodes[0][0];
    let page = |from| {
        let request = wire::HistoryRequest { network_id: ID, from, limit: 256 };
        node.authority.history(&node.state, &request).unwrap()
    };
    let pages = [page(7), page(15), page(23)];
    assert_eq!(pages.each_ref().map(|page| (page.rows.len(), page.next)), [(8, 15), (8, 23), (4, 0)]);
    assert!(pages.iter().flat_map(|page| &page.rows).map(|row| row.id).eq(7..27));
    all_clean(&cluster);
}

#[test]
fn an_authority_that_has_not_heard_of_a_network_settles_when_it_has() {
    let (mut cluster, mut alice, _) = setup(1);
    let mut a = Actor::new(ID, 1, Curve::K1);
    let register = wire::NetworkRegister::default();
    let order = alice.call(vec![], vec![command(N::Register(register)), a.registration()]);
    cluster.run(&[order]);
    // The log of authority 3 delivers nothing to its shard for now.
    let items = cluster.log_items(0);
    cluster.order_items(0, 0, items);
    let (mut nodes, mut logs) = (std::mem::take(&mut cluster.nodes), std::mem::take(&mut cluster.logs));
    for (log, shards) in logs.iter_mut().zip(&mut nodes).take(3) {
        deliver_log(log, shards);
    }
    (cluster.nodes, cluster.logs) = (nodes, logs);
    let transaction = a.order(1, b"x", &[]);
    let votes: Vec<_> =
        cluster.vote(0, std::slice::from_ref(&transaction)).into_iter().filter_map(|r| r.vote).collect();
    assert_eq!(votes.len(), 3);
    let certificate = cluster.certificate(std::slice::from_ref(&transaction), votes);
    let replies = cluster.settle(0, &certificate, std::slice::from_ref(&transaction));
    assert_eq!(replies[3].as_ref().unwrap().waiting.len(), 1);
    assert_eq!(replies[0].as_ref().unwrap().waiting.len(), 0);
    cluster.order_all();
    let reply = cluster.node(3, 0).settle(&certificate, &[]).unwrap();
    assert!(reply.acknowledgement.is_some());
    assert_eq!(heard(&cluster, 3), [(1, 1)]);
    all_clean(&cluster);
}

#[test]
fn the_audit_sees_what_a_shard_has_forgotten_of_the_registry() {
    let (mut cluster, _, [mut a, _, _]) = network(2, ORDERED);
    cluster.run_ordered(&[a.order(1, b"x", &[])]);
    let shard = cluster.committee.shard_of(ID, 0);
    let account = |cluster: &Cluster, change: fn(&mut crate::authority::state::Account)| {
        let mut account = cluster.nodes[0][shard as usize].account_of(ID, 2);
        change(&mut account);
        Write::put(Table::Accounts, account_key(ID, 2), account.encode())
    };
    let network = wire::NetworkShardRecord {
        network: Some(wire::NetworkRecord { flags: ORDERED | HISTORY, ..Default::default() }),
        entries: 1,
        pruned: 0,
    };
    let broken = [
        account(&cluster, |a| a.barred = true),
        account(&cluster, |a| a.generation += 1),
        account(&cluster, |a| a.permission = Actor::new(ID, 2, Curve::K1).permission.encode()),
        Write::put(Table::Networks, ID.to_be_bytes(), prost::Message::encode_to_vec(&network)),
    ];
    for write in broken {
        let before =
            crate::authority::state::State::get(&cluster.node(0, shard).state, write.table, &write.key).unwrap();
        let back = Write { value: before.map(|v| v.to_vec()), ..write.clone() };
        cluster.node(0, shard).state.apply(&[write]);
        assert_eq!(audits(&cluster, 0).2.len(), 1);
        cluster.node(0, shard).state.apply(&[back]);
        clean(&cluster, 0);
    }
}

#[test]
fn the_audit_sees_an_order_that_the_log_never_gets() {
    let (mut cluster, _, [mut a, _, _]) = network(1, ORDERED);
    cluster.run(&[a.order(1, b"x", &[]), a.order(1, b"y", &[])]);
    clean(&cluster, 0);
    let (first, last) = cluster.nodes[0][0].authority.outbox_range(&cluster.nodes[0][0].state, u32::MAX).unwrap();
    assert_eq!(last, first + 1);
    cluster.node(0, 0).step(crate::authority::input::Input::Delivered { to_shard: u32::MAX, applied: first }).unwrap();
    assert_eq!(audits(&cluster, 0).2.len(), 1);
}

#[test]
fn a_bad_signature_in_a_batch_lets_no_other_order_through_unchecked() {
    let (mut cluster, _, [a, b, c]) = network(1, 0);
    // The cosignor's change of keys holds the forged order back at first, and is then found to be forged itself.
    let mut cosignor = Actor { keys: c.keys.clone(), ..b.clone() };
    let rotation = cosignor.rotate(vec![secret(Curve::Ed25519, 70)]);
    let forged = Actor { keys: c.keys.clone(), ..a }.order(1, b"not mine", &[&Actor { keys: c.keys, ..b }]);
    let reply = cluster.node(0, 0).vote(&[rotation, forged]).unwrap();
    assert!(reply.vote.is_none(), "an order that nobody has signed gets a vote");
    let codes: Vec<_> = reply.errors.iter().map(|e| Code::from_number(e.code)).collect();
    assert_eq!(codes, [Some(Code::KeyMismatch), Some(Code::KeyMismatch)]);
}

#[test]
fn what_is_admitted_still_has_to_be_a_change_of_keys_to_be_one() {
    let (mut cluster, mut alice, [mut a, _, _]) = network(1, 0);
    let garbage = a.clone().order(TYPE_ROTATE, b"garbage", &[]);
    let order_id = Bytes::copy_from_slice(&id_of(&garbage));
    assert_eq!(admin(&mut cluster, &mut alice, N::Admit(wire::ActorAdmit { actor: 1, order_id })), 0);
    assert_eq!(refused(&mut cluster, &garbage), Code::BadContent);
    // One that replaces what is no longer there frees its place and does nothing.
    let stale = a.order(TYPE_ROTATE, &encode_rotate(Actor::new(ID, 1, Curve::R1).permission.encode(), 9), &[]);
    let order_id = Bytes::copy_from_slice(&id_of(&stale));
    assert_eq!(refused(&mut cluster, &stale), Code::BadPermission);
    assert_eq!(admin(&mut cluster, &mut alice, N::Admit(wire::ActorAdmit { actor: 1, order_id })), 0);
    cluster.run_ordered(&[stale]);
    assert_eq!(actor(&cluster, 0, 1).permission, a.permission.encode());
    cluster.run(&[a.order(1, b"x", &[])]);
    all_clean(&cluster);
}
