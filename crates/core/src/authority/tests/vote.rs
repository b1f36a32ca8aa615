//! Votes: what is accepted, what is refused with which code, and that repeating changes nothing.

use super::*;
use crate::authority::input::Input;
use crate::authority::state::{Account, Write, account_key};
use crate::content::{TYPE_PAY, encode_pay};
use crate::envelope::{Order, encode_envelope};
use crate::keys::Curve;
use crate::limits::{AMOUNT_MAX, PENDING_WINDOW};
use crate::permission::Permission;

/// Repeats a request and expects the same bits and no write.
fn repeat(node: &mut Node, orders: &[Bytes], expected: &wire::VoteReply) {
    let before = node.state.clone();
    let effects = node.step(Input::vote(orders.to_vec())).unwrap();
    assert!(effects.writes.is_empty(), "repeating writes nothing");
    assert_eq!(node.state, before);
    let crate::authority::effect::Reply::Vote(reply) = effects.reply else { panic!("a vote") };
    assert_eq!(reply.vote, expected.vote);
    // Why an order was refused may have changed: another now holds its seqnum.
    let indices = |reply: &wire::VoteReply| refused(reply).iter().map(|(i, _)| *i).collect::<Vec<_>>();
    assert_eq!(indices(&reply), indices(expected));
}

#[test]
fn good_and_bad_orders_of_one_batch_part_ways() {
    let (mut cluster, mut alice) = funded(100);
    let mut bob = Signer::new(2);
    let mut carol = Signer::new(3);
    let good = alice.pay(&[to(bob.address, 60)], "");
    let poor = bob.pay(&[to(alice.address, 1)], "");
    let zero = carol.pay(&[to(alice.address, 0)], "");
    let over = alice.pay(&[to(bob.address, 41)], "");
    let junk = Bytes::from_static(b"junk");
    let mut rest = alice.clone();
    (rest.seqnum, rest.prev_hash) = (1, Order::decode(good.clone()).unwrap().next_hash());
    let fits = rest.pay(&[to(bob.address, 40)], "");
    let orders = [good, poor, junk, zero, over, fits];
    let reply = cluster.node(0, 0).vote(&orders).unwrap();
    assert_eq!(accepted(&reply), 0b10_0001);
    use Code::*;
    assert_eq!(refused(&reply), [(1, InsufficientFunds), (2, Decode), (3, BadAmount), (4, InsufficientFunds)]);
    repeat(cluster.node(0, 0), &orders, &reply);
}

#[test]
fn a_new_account_pushes_a_chain_signed_offline() {
    let (mut cluster, mut alice) = funded(100);
    let bob = Signer::new(2);
    let orders: Vec<Bytes> = (1..=3).map(|i| alice.pay(&[to(bob.address, 10 * i)], "")).collect();
    // At once, and one by one.
    let reply = cluster.node(0, 0).vote(&orders).unwrap();
    assert_eq!(accepted(&reply), 0b111);
    repeat(cluster.node(0, 0), &orders, &reply);
    for order in &orders {
        assert_eq!(accepted(&cluster.node(1, 0).vote(std::slice::from_ref(order)).unwrap()), 1);
    }
    assert_eq!(cluster.node(0, 0).account(alice.actor()).reserved(), 60);
    // In another sequence the ones ahead of their predecessors wait for a later try.
    let reversed = batch(&[&orders[2], &orders[1], &orders[0]]);
    let reply = cluster.node(2, 0).vote(&reversed).unwrap();
    assert_eq!(refused(&reply), [(0, Code::BadSeq), (1, Code::BadSeq)]);
    cluster.run(&orders);
    assert_eq!(cluster.balance(3, &bob.address), 60);
}

#[test]
fn the_window_of_pending_orders_is_bounded() {
    let (mut cluster, mut alice) = funded(1_000);
    let orders: Vec<Bytes> = (0..=PENDING_WINDOW).map(|_| alice.pay(&[to(alice.address, 1)], "")).collect();
    let reply = cluster.node(0, 0).vote(&orders).unwrap();
    assert_eq!(refused(&reply), [(PENDING_WINDOW as u32, Code::WindowFull)]);
    let (window, last) = orders.split_at(PENDING_WINDOW);
    cluster.run(window);
    assert_eq!(accepted(&cluster.node(0, 0).vote(last).unwrap()), 1);
}

#[test]
fn a_change_of_keys_stops_the_chain_and_then_only_the_new_key_signs() {
    let (mut cluster, mut alice) = funded(100);
    let old = alice.keys.clone();
    let key = secret(Curve::K1, 5);
    let change = alice.set_permission(&Permission::single(key.public()), vec![key]);
    let next = alice.pay(&[to(cluster.issuer.address, 1)], "");
    let reply = cluster.node(0, 0).vote(&batch(&[&change, &next])).unwrap();
    assert_eq!((accepted(&reply), refused(&reply)), (1, vec![(1, Code::PermissionPending)]));
    cluster.run(&[change]);
    let stolen = Signer { keys: old, ..alice.clone() };
    let order = Order::decode(next.clone()).unwrap();
    let sigs = [stolen.keys[0].sign_body(&order.body)];
    let forged = encode_envelope(&order.body, &[crate::envelope::Authority::of(&sigs)]);
    assert_eq!(refused(&cluster.node(0, 0).vote(&[forged]).unwrap()), [(0, Code::KeyMismatch)]);
    cluster.run(&[next]);
    assert_eq!(cluster.balance(2, &alice.address), 99);
}

#[test]
fn a_conflict_is_refused_and_shows_what_holds_the_seqnum() {
    let (mut cluster, mut alice) = funded(100);
    let mut twin = alice.clone();
    let (first, second) = (alice.pay(&[to(alice.address, 1)], ""), twin.pay(&[to(alice.address, 2)], ""));
    cluster.node(0, 0).vote(std::slice::from_ref(&first)).unwrap();
    let reply = cluster.node(0, 0).vote(std::slice::from_ref(&second)).unwrap();
    assert_eq!(refused(&reply), [(0, Code::PendingConflict)]);
    assert_eq!(reply.errors[0].pending_order, Order::decode(first.clone()).unwrap().body);
    assert!(reply.vote.is_none());
    // In one batch the first wins; settled, it still does, and is accepted again.
    let reply = cluster.node(1, 0).vote(&batch(&[&first, &second])).unwrap();
    assert_eq!((accepted(&reply), refused(&reply)), (1, vec![(1, Code::PendingConflict)]));
    cluster.run(std::slice::from_ref(&first));
    let reply = cluster.node(0, 0).vote(&batch(&[&second, &first])).unwrap();
    assert_eq!((accepted(&reply), refused(&reply)), (0b10, vec![(0, Code::BadSeq)]));
}

#[test]
fn pending_orders_reserve_their_money() {
    let (mut cluster, mut alice) = funded(100);
    let bob = Signer::new(2);
    let first = alice.pay(&[to(bob.address, 60)], "");
    cluster.node(0, 0).vote(&[first]).unwrap();
    let mut more = alice.clone();
    let second = alice.pay(&[to(bob.address, 41)], "");
    assert_eq!(refused(&cluster.node(0, 0).vote(&[second]).unwrap()), [(0, Code::InsufficientFunds)]);
    let exact = more.pay(&[to(bob.address, 40)], "");
    assert_eq!(accepted(&cluster.node(0, 0).vote(&[exact]).unwrap()), 1);
}

#[test]
fn sums_that_overflow_and_odd_orders_are_refused() {
    let (mut cluster, alice) = funded(100);
    let pay = |outputs: &[crate::content::Credit]| alice.clone().pay(outputs, "");
    let order = |kind, content: &'static [u8]| alice.clone().order(kind, Bytes::from_static(content));
    let bodies = |change: &dyn Fn(&mut crate::envelope::Body)| {
        let content = encode_pay(&[to(alice.address, 1)], "", alice.open());
        let mut body = alice.next_body(TYPE_PAY, content);
        change(&mut body);
        alice.sign(&body)
    };
    let mut unopened = alice.clone();
    let without_open = unopened.order(TYPE_PAY, encode_pay(&[to(alice.address, 1)], "", None));
    let stranger = Signer::new(2).permission.encode();
    let foreign_open = alice.clone().order(TYPE_PAY, encode_pay(&[to(alice.address, 1)], "", Some(stranger)));
    for (order, code) in [
        (pay(&[to(alice.address, AMOUNT_MAX), to(alice.address, AMOUNT_MAX)]), Code::BadAmount),
        (pay(&[to(alice.address, u64::MAX)]), Code::BadAmount),
        (pay(&[to(alice.address, AMOUNT_MAX)]), Code::InsufficientFunds),
        (pay(&[]), Code::Limit),
        (pay(&vec![to(alice.address, 1); 257]), Code::Limit),
        (alice.clone().pay(&[to(alice.address, 1)], &"x".repeat(257)), Code::Limit),
        (order(3, b""), Code::BadContent),
        (order(TYPE_PAY, b"\x0a\x00\x0a\x00\x7a\x00"), Code::NonCanonical),
        (without_open, Code::BadContent),
        (foreign_open, Code::BadContent),
        (bodies(&|b| b.network_id = 78), Code::UnknownNetwork),
        (bodies(&|b| b.seqnum = 0), Code::BadSeq),
        (bodies(&|b| b.seqnum = 2), Code::BadSeq),
        (bodies(&|b| b.seqnum = u32::MAX), Code::BadSeq),
        (bodies(&|b| b.prev_hash = 1), Code::BadPrevHash),
        (bodies(&|b| b.cosignors = vec![5]), Code::AuthorityCount),
        (bodies(&|b| b.actor ^= 1 << 63), Code::Int63),
        (encode_envelope(&Order::decode(pay(&[to(alice.address, 1)])).unwrap().body, &[]), Code::AuthorityCount),
    ] {
        let node = cluster.node(0, 0);
        let before = node.state.clone();
        let reply = node.vote(&[order]).unwrap();
        assert_eq!(refused(&reply), [(0, code)], "{}", reply.errors[0].message);
        assert!(reply.vote.is_none() && node.state == before, "nothing is written for {code:?}");
    }
    assert_eq!(code(cluster.node(0, 0).vote(&[])), Code::Limit);
    assert_eq!(code(cluster.node(0, 0).vote(&vec![Bytes::new(); 4_097])), Code::Limit);
}

#[test]
fn the_last_seqnum_is_never_used() {
    let (mut cluster, mut alice) = funded(100);
    let key = account_key(NETWORK_ID, alice.actor());
    let order = alice.pay(&[to(alice.address, 1)], "");
    cluster.run(&[order]);
    let mut account = cluster.node(0, 0).account(alice.actor());
    (account.seqnum, alice.seqnum) = (u32::MAX - 1, u32::MAX - 1);
    cluster.node(0, 0).state.apply(&[Write::put(Table::Accounts, key, account.encode())]);
    let last = alice.pay(&[to(alice.address, 1)], "");
    assert_eq!(refused(&cluster.node(0, 0).vote(&[last]).unwrap()), [(0, Code::SeqExhausted)]);
}

#[test]
fn the_issuer_stops_at_its_limit() {
    let mut cluster = Cluster::new(&TestCommittee { issuer_limit: 100, ..Default::default() });
    let bob = Signer::new(2);
    cluster.fund(bob.address, 70);
    let mut issuer = cluster.issuer.clone();
    let over = issuer.pay(&[to(bob.address, 31)], "");
    assert_eq!(refused(&cluster.node(0, 0).vote(&[over]).unwrap()), [(0, Code::IssuerLimit)]);
    cluster.fund(bob.address, 30);
    assert_eq!(cluster.balance(1, &cluster.issuer.address), -100);
}

#[test]
fn self_payment_and_strangers() {
    let (mut cluster, mut alice) = funded(100);
    let stranger = crate::address::Address::new([9; 32]);
    let orders = [alice.pay(&[to(alice.address, 100)], ""), alice.pay(&[to(stranger, 100)], "hello")];
    // All of it is still there when the first has settled.
    cluster.run(&orders[..1]);
    cluster.run(&orders[1..]);
    assert_eq!((cluster.balance(0, &alice.address), cluster.balance(0, &stranger)), (0, 100));
    assert_eq!(cluster.node(0, 0).account(alice.actor()).holdings[0].credits, 2);
}

#[test]
fn a_bad_signature_inside_a_chain_takes_its_successors_down_alone() {
    let (mut cluster, mut alice) = funded(100);
    let mut bob = Signer::new(2);
    cluster.fund(bob.address, 100);
    let alices: Vec<Bytes> = (0..3).map(|_| alice.pay(&[to(bob.address, 1)], "")).collect();
    let bobs: Vec<Bytes> = (0..3).map(|_| bob.pay(&[to(alice.address, 1)], "")).collect();
    let spoiled = spoil(&alices[1]);
    let orders = batch(&[&alices[0], &bobs[0], &spoiled, &bobs[1], &alices[2], &bobs[2]]);
    let reply = cluster.node(0, 0).vote(&orders).unwrap();
    assert_eq!(accepted(&reply), 0b10_1011);
    assert_eq!(refused(&reply), [(2, Code::KeyMismatch), (4, Code::BadSeq)]);
    assert_eq!(cluster.node(0, 0).account(alice.actor()).pending.len(), 1);
    repeat(cluster.node(0, 0), &orders, &reply);
    // The true ones are still welcome, alone and in a batch with the false one before the true one.
    let rest = batch(&[&spoiled, &alices[1], &alices[2]]);
    let reply = cluster.node(0, 0).vote(&rest).unwrap();
    assert_eq!((accepted(&reply), refused(&reply)), (0b110, vec![(0, Code::KeyMismatch)]));
}

#[test]
fn two_of_three_keys_of_three_curves() {
    let keys = || vec![secret(Curve::K1, 1), secret(Curve::R1, 2), secret(Curve::Ed25519, 3)];
    let weights = keys().iter().map(|k| (k.public(), 1)).collect();
    let permission = Permission { threshold: 2, keys: weights, actor: 0 };
    for missing in 0..3 {
        let mut two = keys();
        two.remove(missing);
        let mut account = Signer::with(permission.clone(), two);
        let mut cluster = Cluster::new(&TestCommittee::default());
        cluster.fund(account.address, 10);
        let mut alone = Signer::with(permission.clone(), vec![keys().remove(missing)]);
        let lonely = alone.pay(&[to(alone.address, 1)], "");
        assert_eq!(refused(&cluster.node(0, 0).vote(&[lonely]).unwrap()), [(0, Code::InsufficientWeight)]);
        let order = account.pay(&[to(cluster.issuer.address, 10)], "");
        cluster.run(&[order]);
        assert_eq!(cluster.balance(0, &account.address), 0);
    }
}

/// The first 63 bits of an address name the actor, and two addresses may share them.
#[test]
fn addresses_of_one_actor_id_keep_their_own_money() {
    let (mut cluster, mut alice) = funded(100);
    let mut twin = *alice.address.as_bytes();
    twin[31] ^= 1;
    let twin = crate::address::Address::new(twin);
    cluster.fund(twin, 50);
    let too_much = alice.clone().pay(&[to(twin, 101)], "");
    assert_eq!(refused(&cluster.node(0, 0).vote(&[too_much]).unwrap()), [(0, Code::InsufficientFunds)]);
    let order = alice.pay(&[to(twin, 30)], "");
    cluster.run(&[order]);
    assert_eq!((cluster.balance(0, &alice.address), cluster.balance(0, &twin)), (70, 80));
    let node = cluster.node(0, 0);
    let request = wire::AccountRequest { network_id: NETWORK_ID, address: Bytes::copy_from_slice(twin.as_bytes()) };
    let reply = node.authority.account(&node.state, &request).unwrap();
    assert_eq!((reply.balance.as_str(), reply.seqnum, reply.credits), ("80", 0, 2));
    assert!(reply.permission.is_empty() && reply.pending.is_empty());
}

#[test]
fn no_votes_before_the_genesis_file_is_loaded() {
    let committee = TestCommittee { genesis_hash: [1; 32], ..Default::default() };
    let mut cluster = Cluster::new(&committee);
    let mut alice = Signer::new(1);
    let orders = [alice.pay(&[to(alice.address, 1)], "")];
    assert_eq!(code(cluster.node(0, 0).vote(&orders)), Code::Busy);
    let lines = vec![(alice.address, 5), (Signer::new(2).address, 7)];
    let input = |first_line, last| Input::Genesis { first_line, lines: lines.clone(), last };
    cluster.node(0, 0).step(input(0, false)).unwrap();
    assert_eq!(code(cluster.node(0, 0).step(input(0, true)).map(|_| ())), Code::OutOfOrder);
    assert_eq!(code(cluster.node(0, 0).vote(&orders)), Code::Busy);
    cluster.node(0, 0).step(input(2, true)).unwrap();
    assert_eq!(code(cluster.node(0, 0).step(input(4, true)).map(|_| ())), Code::OutOfOrder);
    assert_eq!(cluster.balance(0, &alice.address), 10);
    assert_eq!(cluster.balance(0, &cluster.issuer.address), -24);
    assert_eq!(accepted(&cluster.node(0, 0).vote(&orders).unwrap()), 1);
    assert_eq!(Account::load(&cluster.node(0, 0).state, NETWORK_ID, 1).unwrap(), Account::default());
}
