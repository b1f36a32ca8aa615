//! Batches whose senders have signed the root together: what is accepted, and what workers and senders that lie get.

use super::*;
use crate::authority::input::Input;
use crate::batch::decode_batch;
use crate::bls;
use crate::certificate::BatchId;
use crate::content::TYPE_PAY;
use crate::distilled::round::Sealed;
use crate::distilled::{marked, root_message};
use crate::envelope::{Authority, Order, encode_envelope};
use crate::keys::{Curve, POSSESSION_BYTE, ROOT_BYTE, SecretKey};
use crate::permission::Permission;

/// Accounts with BLS keys, open and with money, ascending by actor.
fn opened(n: u64) -> (Cluster, Vec<Signer>) {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let mut signers: Vec<Signer> = (1..=n).map(Signer::distilled).collect();
    signers.sort_by_key(Signer::actor);
    for signer in &mut signers {
        cluster.fund(signer.address, 900);
        let order = signer.pay(&[to(signer.address, 1)], "");
        cluster.run(&[order]);
    }
    (cluster, signers)
}

/// The next payment of each.
fn pay(signers: &mut [Signer]) -> Vec<Bytes> {
    let recipient = Signer::new(99).address;
    signers.iter_mut().map(|s| s.pay(&[to(recipient, 10)], "")).collect()
}

fn decode(order: &Bytes) -> Order {
    Order::decode(order.clone()).unwrap()
}

/// The batch, whose root these have signed.
fn seal(cluster: &Cluster, orders: &[Bytes], signers: &[Option<&Signer>]) -> Sealed {
    let id = decode_batch(orders).unwrap().id;
    let share = |s: &Option<&Signer>| s.map(|s| s.sign_root(&cluster.committee, &id));
    Sealed::new(orders, signers.iter().map(share).collect()).unwrap()
}

/// Orders, all marked, with an aggregate of shares of anything.
fn mark_all(orders: &[Bytes], shares: &[bls::SignatureBytes]) -> Vec<Bytes> {
    let aggregate = bls::sum_signatures(shares).unwrap();
    let mark = |(i, order): (usize, &Bytes)| marked(&decode(order), (i == 0).then_some(&aggregate));
    orders.iter().enumerate().map(mark).collect()
}

fn all_of(signers: &[Signer]) -> Vec<Option<&Signer>> {
    signers.iter().map(Some).collect()
}

/// All are refused for their aggregate, and nothing is written.
#[track_caller]
fn refuses_all(cluster: &mut Cluster, orders: &[Bytes], code: Code) {
    let node = cluster.node(0, 0);
    let effects = node.step(Input::vote(orders.to_vec())).unwrap();
    assert!(effects.writes.is_empty(), "nothing is written");
    let crate::authority::effect::Reply::Vote(reply) = effects.reply else { panic!("a vote") };
    let expected: Vec<_> = (0..orders.len() as u32).map(|i| (i, code)).collect();
    assert_eq!((refused(&reply), reply.vote), (expected, None));
}

#[test]
fn a_signed_root_is_as_good_as_signatures() {
    let (mut cluster, mut signers) = opened(5);
    let orders = pay(&mut signers);
    let distilled = seal(&cluster, &orders, &all_of(&signers)).orders(&[0, 1, 2, 3, 4]);
    let bytes = |orders: &[Bytes]| orders.iter().map(Bytes::len).sum::<usize>();
    assert!(bytes(&distilled) < bytes(&orders));
    cluster.run(&distilled);
    let recipient = Signer::new(99).address;
    for authority in 0..4 {
        assert_eq!(cluster.balance(authority, &recipient), 50);
    }
    // Once more, and with signatures of their own: the same orders.
    assert_eq!(accepted(&cluster.node(0, 0).vote(&orders).unwrap()), 0b1_1111);
}

#[test]
fn signatures_ride_along_and_bad_orders_spoil_no_others() {
    let (mut cluster, mut signers) = opened(6);
    let mut orders = pay(&mut signers);
    // Number 1 rides along, 2 rides along with a false signature, 3 has signed the root but has no such money.
    orders[2] = spoil(&orders[2]);
    let mut poor = signers[3].clone();
    (poor.seqnum, poor.prev_hash) = (1, cluster.node(0, 0).account(poor.actor()).prev_hash);
    orders[3] = poor.pay(&[to(poor.address, 1_000)], "");
    let who = [0, 3, 4, 5].iter().fold(vec![None; 6], |mut who, i| {
        who[*i] = Some(&signers[*i]);
        who
    });
    let distilled = seal(&cluster, &orders, &who).orders(&[0, 3, 4, 5]);
    let reply = cluster.node(0, 0).vote(&distilled).unwrap();
    assert_eq!(refused(&reply), [(2, Code::KeyMismatch), (3, Code::InsufficientFunds)]);
    assert_eq!(accepted(&reply), 0b11_0011);
    assert_eq!(cluster.node(0, 0).vote(&distilled).unwrap().vote, reply.vote, "repeating changes nothing");
}

#[test]
fn a_false_aggregate_refuses_its_orders_and_no_others() {
    let (mut cluster, mut signers) = opened(4);
    let orders = pay(&mut signers);
    let id = decode_batch(&orders).unwrap().id;
    let share = |s: &Signer, id: &BatchId| s.sign_root(&cluster.committee, id);
    let good: Vec<_> = signers.iter().map(|s| share(s, &id)).collect();
    let one_else: Vec<_> = good[..3].iter().copied().chain([share(&signers[3], &BatchId { count: 3, ..id })]).collect();
    let twice: Vec<_> = good.iter().chain(&good[..1]).copied().collect();
    let cases = [mark_all(&orders, &good[..3]), mark_all(&orders, &one_else), mark_all(&orders, &twice)];
    for orders in &cases {
        refuses_all(&mut cluster, orders, Code::BadAggregate);
    }
    // No point, and none at all.
    let junk: Vec<_> = (0..4).map(|i| marked(&decode(&orders[i]), (i == 0).then_some(&[7; 96]))).collect();
    refuses_all(&mut cluster, &junk, Code::BadAggregate);
    let bare: Vec<_> = orders.iter().map(|order| marked(&decode(order), None)).collect();
    refuses_all(&mut cluster, &bare, Code::BadAggregate);
    // Who rides along is not touched by it.
    let mixed = [vec![orders[0].clone()], bare[1..].to_vec()].concat();
    assert_eq!(accepted(&cluster.node(0, 0).vote(&mixed).unwrap()), 0b0001);
    // And with the right one all of it passes.
    assert_eq!(accepted(&cluster.node(0, 0).vote(&mark_all(&orders, &good)).unwrap()), 0b1111);
}

#[test]
fn a_signed_root_is_good_for_its_committee_epoch_and_batch_alone() {
    let (mut cluster, mut signers) = opened(2);
    let orders = pay(&mut signers);
    let id = decode_batch(&orders).unwrap().id;
    let (later, _) = TestCommittee { epoch: 2, ..Default::default() }.build();
    let (other, _) = TestCommittee { issuer_limit: 5, ..Default::default() }.build();
    for committee in [&later, &other] {
        let shares: Vec<_> = signers.iter().map(|s| s.sign_root(committee, &id)).collect();
        refuses_all(&mut cluster, &mark_all(&orders, &shares), Code::BadAggregate);
    }
    // The aggregate of one batch with other orders of the same senders.
    let shares: Vec<_> = signers.iter().map(|s| s.sign_root(&cluster.committee, &id)).collect();
    let thief = Signer::new(66).address;
    let stolen: Vec<Bytes> = signers
        .iter()
        .map(|s| {
            let mut before = s.clone();
            (before.seqnum, before.prev_hash) = (1, cluster.nodes[0][0].account(s.actor()).prev_hash);
            before.pay(&[to(thief, 50)], "")
        })
        .collect();
    refuses_all(&mut cluster, &mark_all(&stolen, &shares), Code::BadAggregate);
    // Signatures of the orders themselves are none of a root, and the other way round.
    let sig = |i: usize| {
        SecretKey::bls(&signers[i].bls[0]).unwrap().sign(&crate::keys::order_message(&decode(&orders[i]).id))
    };
    refuses_all(&mut cluster, &mark_all(&orders, &[sig(0), sig(1)]), Code::BadAggregate);
    let root = [&[Curve::Bls.byte()], &shares[0][..]].concat().into();
    let alone = encode_envelope(&decode(&orders[0]).body, &[Authority { key_type: 0, sigs: vec![root] }]);
    refuses_all(&mut cluster, &[alone], Code::KeyMismatch);
}

/// The attack that the rule of one order an account is for: the sender is shown its own order in the batch, and the mark is on
/// another one, which it has never seen.
#[test]
fn a_worker_cannot_put_a_second_order_of_a_sender_beside_the_one_it_has_shown() {
    let (mut cluster, mut signers) = opened(2);
    let before = signers[0].clone();
    let mut orders = pay(&mut signers);
    let thief = Signer::new(66).address;
    let forged = before.clone().pay(&[to(thief, 50)], "");
    // The sender's own order goes with a false signature, so that it does not hold the seqnum.
    orders[0] = spoil(&orders[0]);
    for batch in
        [[&forged, &orders[0], &orders[1]], [&orders[0], &forged, &orders[1]], [&orders[0], &orders[1], &forged]]
    {
        let place = |order: &Bytes| batch.iter().position(|o| *o == order).unwrap();
        let (at, own) = (place(&forged), place(&orders[0]));
        let batch: Vec<Bytes> = batch.into_iter().cloned().collect();
        let share = signers[0].sign_root(&cluster.committee, &decode_batch(&batch).unwrap().id);
        let mut with_mark = batch.clone();
        with_mark[at] = marked(&decode(&forged), Some(&share));
        let reply = cluster.node(0, 0).vote(&with_mark).unwrap();
        let mut expected = [(own as u32, Code::KeyMismatch), (at as u32, Code::BadAggregate)];
        expected.sort_unstable();
        assert_eq!(refused(&reply), expected);
        // Both marked, with the one share twice.
        let twice = bls::sum_signatures([&share, &share]).unwrap();
        let mut both = batch.clone();
        both[at.min(own)] = marked(&decode(&batch[at.min(own)]), Some(&twice));
        both[at.max(own)] = marked(&decode(&batch[at.max(own)]), None);
        let reply = cluster.node(0, 0).vote(&both).unwrap();
        assert_eq!(refused(&reply).iter().map(|(_, code)| *code).collect::<Vec<_>>(), [Code::BadAggregate; 2]);
    }
}

#[test]
fn a_key_made_of_anothers_never_gets_into_a_sum() {
    let (mut cluster, mut signers) = opened(1);
    let victim = signers.remove(0);
    // rogue = own - victim's: the two of them together are `own`, which the thief knows.
    let own = secret(Curve::Bls, 66);
    let rogue = bls_tests_difference(&own, &victim.bls[0]);
    let ed = secret(Curve::Ed25519, 66);
    let permission = Permission { threshold: 1, keys: vec![(ed.public(), 1), (rogue, 1)], actor: 0 };
    let mut thief = Signer::with(permission, vec![ed]);
    cluster.fund(thief.address, 100);
    let open = thief.pay(&[to(thief.address, 1)], "");
    // No proof, another account's, and one by the other key.
    let order = decode(&open);
    let own_bls = own.bls().unwrap();
    let proofs = [
        None,
        Some(own_bls.prove(NETWORK_ID, thief.actor())),
        Some(victim.bls[0].bls().unwrap().prove(NETWORK_ID, victim.actor())),
    ];
    for proof in proofs {
        let mut authority = order.authorities[0].clone();
        authority.sigs.extend(proof.map(|proof| Bytes::from([&[POSSESSION_BYTE], &proof[..]].concat())));
        let shown = encode_envelope(&order.body, &[authority]);
        let reply = cluster.node(0, 0).vote(std::slice::from_ref(&shown)).unwrap();
        assert_eq!(refused(&reply), [(0, Code::Possession)]);
        // In the same batch with an order of the victim, marked, that it has never signed: were the key in the sum, this
        // aggregate would be true.
        let mut forged = victim.clone();
        let forged = decode(&forged.pay(&[to(thief.address, 50)], ""));
        let mut orders = [shown, forged.raw.clone()];
        orders.sort_by_key(|order| decode(order).actor);
        let id = decode_batch(&orders).unwrap().id;
        let aggregate = own_bls.sign(&root_message(&cluster.committee, &id));
        let both = mark_all(&orders, &[aggregate]);
        let reply = cluster.node(0, 0).vote(&both).unwrap();
        assert_eq!(reply.vote, None, "{:?}", reply.errors);
    }
}

fn bls_tests_difference(a: &SecretKey, b: &SecretKey) -> crate::keys::PublicKey {
    use blst::min_pk::{AggregatePublicKey, PublicKey};
    let point = |key: &SecretKey| PublicKey::deserialize(&key.public().bls().unwrap()).unwrap();
    let mut sum = AggregatePublicKey::from_public_key(&point(a));
    sum.sub_aggregate(&AggregatePublicKey::from_public_key(&point(b)));
    let bytes = [&[Curve::Bls.byte()], &sum.to_public_key().serialize()[..]].concat();
    crate::keys::PublicKey::parse(&bytes).unwrap()
}

#[test]
fn an_account_that_is_not_open_has_no_key_yet() {
    let (mut cluster, mut signers) = opened(1);
    let mut fresh = Signer::distilled(50);
    cluster.fund(fresh.address, 100);
    let first = fresh.pay(&[to(fresh.address, 1)], "");
    signers.push(fresh);
    let recipient = signers[1].address;
    let orders = [signers[0].pay(&[to(recipient, 1)], ""), first.clone()];
    let mut order: Vec<usize> = vec![0, 1];
    order.sort_by_key(|i| signers[*i].actor());
    let orders: Vec<Bytes> = order.iter().map(|i| orders[*i].clone()).collect();
    let who: Vec<Option<&Signer>> = order.iter().map(|i| Some(&signers[*i])).collect();
    let sealed = seal(&cluster, &orders, &who);
    let reply = cluster.node(0, 0).vote(&sealed.orders(&[0, 1])).unwrap();
    let new = order.iter().position(|i| *i == 1).unwrap();
    let codes = refused(&reply);
    assert!(codes.contains(&(new as u32, Code::AggregateKey)), "{codes:?}");
    assert!(codes.contains(&(1 - new as u32, Code::BadAggregate)), "{codes:?}");
    // The worker asks again with an aggregate of the rest: the same root.
    let errors: Vec<(usize, Code)> = codes.iter().map(|(i, code)| (*i as usize, *code)).collect();
    let again = sealed.again(&[0, 1], &errors);
    assert_eq!(again, [1 - new]);
    assert_eq!(accepted(&cluster.node(0, 0).vote(&sealed.orders(&again)).unwrap()), 0b11);
}

#[test]
fn a_lagging_authority_names_the_keys_that_it_is_not_sure_of() {
    let (mut cluster, mut signers) = opened(2);
    // Number 0 changes its BLS key; authority 3 does not hear of it.
    let (ed, new) = (secret(Curve::Ed25519, 70), secret(Curve::Bls, 70));
    let permission = Permission { threshold: 1, keys: vec![(ed.public(), 1), (new.public(), 1)], actor: 0 };
    signers[0].bls = vec![new].into();
    let change = [signers[0].set_permission(&permission, vec![ed])];
    let votes: Vec<_> = (0..3).map(|i| cluster.node(i, 0).vote(&change).unwrap().vote.unwrap()).collect();
    let certificate = cluster.certificate(&change, votes);
    (0..3).for_each(|i| drop(cluster.node(i, 0).settle(&certificate, &change).unwrap()));
    let orders = pay(&mut signers);
    let sealed = seal(&cluster, &orders, &all_of(&signers));
    for authority in 0..3 {
        assert_eq!(accepted(&cluster.node(authority, 0).vote(&sealed.orders(&[0, 1])).unwrap()), 0b11);
    }
    let reply = cluster.node(3, 0).vote(&sealed.orders(&[0, 1])).unwrap();
    assert_eq!(refused(&reply), [(0, Code::BadSeq), (1, Code::BadAggregate)]);
    assert_eq!(accepted(&cluster.node(3, 0).vote(&sealed.orders(&[1])).unwrap()), 0b10);
    // Pending is as good as settled: the first of two may be voted for and not settled.
    let next = pay(&mut signers);
    let sealed = seal(&cluster, &next, &all_of(&signers));
    assert_eq!(accepted(&cluster.node(0, 0).vote(&sealed.orders(&[0, 1])).unwrap()), 0b11);
    assert_eq!(accepted(&cluster.node(0, 0).vote(&sealed.orders(&[0, 1])).unwrap()), 0b11, "and once more");
}

#[test]
fn a_bls_key_signs_an_order_alone() {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let key = secret(Curve::Bls, 7);
    let mut alice = Signer::with(Permission::single(key.public()), vec![key]);
    alice.bls = vec![secret(Curve::Bls, 7)].into();
    cluster.fund(alice.address, 100);
    let first = alice.pay(&[to(cluster.issuer.address, 10)], "");
    assert_eq!(refused(&cluster.node(0, 0).vote(&[spoil(&first)]).unwrap()), [(0, Code::Possession)]);
    let mut unproved = decode(&first).authorities[0].clone();
    unproved.sigs.pop();
    let unproved = encode_envelope(&decode(&first).body, &[unproved]);
    assert_eq!(refused(&cluster.node(0, 0).vote(&[unproved]).unwrap()), [(0, Code::Possession)]);
    cluster.run(&[first]);
    let second = alice.pay(&[to(cluster.issuer.address, 10)], "");
    assert_eq!(refused(&cluster.node(0, 0).vote(&[spoil(&second)]).unwrap()), [(0, Code::KeyMismatch)]);
    cluster.run(&[second]);
    let batch = pay(std::slice::from_mut(&mut alice));
    let sealed = seal(&cluster, &batch, &[Some(&alice)]);
    cluster.run(&sealed.orders(&[0]));
    assert_eq!(cluster.balance(2, &alice.address), 70);
}

#[test]
fn marks_stand_for_no_signature_elsewhere() {
    let (mut cluster, mut signers) = opened(1);
    // An account without a BLS key, or with one that is too light.
    let mut plain = Signer::new(31);
    let (ed, light) = (secret(Curve::Ed25519, 32), secret(Curve::Bls, 32));
    let permission = Permission { threshold: 2, keys: vec![(ed.public(), 2), (light.public(), 1)], actor: 0 };
    let mut weighted = Signer::with(permission, vec![ed]);
    weighted.bls = vec![light].into();
    for signer in [&mut plain, &mut weighted] {
        cluster.fund(signer.address, 100);
        let order = signer.pay(&[to(signer.address, 1)], "");
        cluster.run(&[order]);
        let order = signer.pay(&[to(signer.address, 1)], "");
        let id = decode_batch(std::slice::from_ref(&order)).unwrap().id;
        let share = secret(Curve::Bls, 32).bls().unwrap().sign(&root_message(&cluster.committee, &id));
        refuses_all(&mut cluster, &mark_all(&[order], &[share]), Code::AggregateKey);
    }
    // Beside a signature, or in an envelope of two accounts.
    let order = decode(&pay(&mut signers)[0]);
    let mark = Bytes::from(vec![ROOT_BYTE]);
    let own = order.authorities[0].sigs[0].clone();
    for sigs in [vec![mark.clone(), own.clone()], vec![own, mark]] {
        let both = encode_envelope(&order.body, &[Authority { key_type: 0, sigs }]);
        let reply = cluster.node(0, 0).vote(&[both]).unwrap();
        assert!(matches!(refused(&reply)[..], [(0, Code::SigFormat)]), "{:?}", reply.errors);
    }
    let content = crate::content::encode_pay(&[to(signers[0].address, 1)], "", None);
    let mut other = signers[0].clone().in_network(NETWORK_ID + 5);
    let foreign = decode(&other.order(TYPE_PAY, content));
    let reply = cluster.node(0, 0).vote(&[marked(&foreign, Some(&[7; 96]))]).unwrap();
    assert_eq!(refused(&reply), [(0, Code::UnknownNetwork)]);
}

/// Random batches: an order with a mark gets a vote if and only if everyone who is marked has signed this root.
#[test]
fn random_batches_are_judged_like_one_by_one() {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};
    let (mut cluster, mut signers) = opened(6);
    let mut rng = ChaCha20Rng::seed_from_u64(8);
    for step in 0..40 {
        let orders = pay(&mut signers);
        let id = decode_batch(&orders).unwrap().id;
        // For each: rides along, has signed, or has signed something else.
        let kinds: Vec<u32> = orders.iter().map(|_| [0, 1, 1, 1, 1, 2][rng.next_u32() as usize % 6]).collect();
        let wrong = BatchId { root: [step; 32], ..id };
        let share = |(s, kind): (&Signer, &u32)| match kind {
            0 => None,
            1 => Some(s.sign_root(&cluster.committee, &id)),
            _ => Some(s.sign_root(&cluster.committee, &wrong)),
        };
        let shares = signers.iter().zip(&kinds).map(share).collect();
        let sealed = Sealed::new(&orders, shares).unwrap();
        let all_true = !kinds.contains(&2);
        let reply = cluster.node(0, 0).vote(&sealed.orders(&sealed.signers())).unwrap();
        let expected = kinds.iter().enumerate().filter(|(_, kind)| **kind == 0 || all_true);
        assert_eq!(accepted(&reply), expected.map(|(i, _)| 1 << i).sum::<u8>(), "{kinds:?}");
        cluster.run(&orders);
    }
}

#[test]
fn a_pending_change_of_keys_or_opening_makes_the_key_unsure() {
    // A change of keys is voted for here, whose account goes on as if it were not.
    let (mut cluster, mut signers) = opened(2);
    let mut after = signers[0].clone();
    let key = crate::testing::secret(Curve::Ed25519, 70);
    let change = after.set_permission(&Permission::single(key.public()), vec![key]);
    let node = cluster.node(0, 0);
    assert_eq!(accepted(&node.vote(&[change]).unwrap()), 1);
    let orders = [after.pay(&[to(after.address, 1)], ""), pay(&mut signers[1..]).remove(0)];
    let distilled = seal(&cluster, &orders, &all_of(&signers)).orders(&[0, 1]);
    let reply = cluster.node(0, 0).vote(&distilled).unwrap();
    assert_eq!(refused(&reply), [(0, Code::PermissionPending), (1, Code::BadAggregate)]);
    // One whose order does not follow its last one, as far as this authority knows.
    let (mut cluster, mut signers) = opened(2);
    let mut unchained = Signer { prev_hash: 5, ..signers[0].clone() };
    let orders = [unchained.pay(&[to(unchained.address, 1)], ""), pay(&mut signers[1..]).remove(0)];
    let distilled = seal(&cluster, &orders, &all_of(&signers)).orders(&[0, 1]);
    let reply = cluster.node(0, 0).vote(&distilled).unwrap();
    assert_eq!(refused(&reply), [(0, Code::BadPrevHash), (1, Code::BadAggregate)]);
    // An account whose first order is only voted for.
    let (mut cluster, mut signers) = opened(2);
    let mut fresh = Signer::distilled(60);
    cluster.fund(fresh.address, 100);
    let open = fresh.pay(&[to(fresh.address, 1)], "");
    assert_eq!(accepted(&cluster.node(0, 0).vote(&[open]).unwrap()), 1);
    let mut all = vec![(fresh.clone(), fresh.pay(&[to(fresh.address, 1)], ""))];
    let others = pay(&mut signers);
    all.extend(signers.into_iter().zip(others));
    all.sort_by_key(|(signer, _)| signer.actor());
    let (signers, orders): (Vec<Signer>, Vec<Bytes>) = all.into_iter().unzip();
    let distilled = seal(&cluster, &orders, &all_of(&signers)).orders(&[0, 1, 2]);
    let reply = cluster.node(0, 0).vote(&distilled).unwrap();
    let expected = |signer: &Signer| match signer.actor() == fresh.actor() {
        true => Code::AggregateKey,
        false => Code::BadAggregate,
    };
    assert_eq!(refused(&reply), (0..).zip(signers.iter().map(expected)).collect::<Vec<_>>());
}

/// A key that is set needs its proof of possession, which a signature of the root is not.
#[test]
fn who_signs_the_root_sets_no_key_with_it() {
    let (mut cluster, mut signers) = opened(3);
    let other = Signer::distilled(50).permission;
    let orders = [signers[0].clone().set_permission(&other, vec![]), pay(&mut signers[1..2]).remove(0)];
    let two = [signers[0].clone(), signers[1].clone()];
    let distilled = seal(&cluster, &orders, &all_of(&two)).orders(&[0, 1]);
    let reply = cluster.node(0, 0).vote(&distilled).unwrap();
    assert_eq!((accepted(&reply), refused(&reply)), (0b10, vec![(0, Code::BadAggregate)]));
    // A change to keys without such a one may be signed so.
    let key = crate::testing::secret(Curve::Ed25519, 70);
    let order = [signers[2].clone().set_permission(&Permission::single(key.public()), vec![])];
    let distilled = seal(&cluster, &order, &[Some(&signers[2])]).orders(&[0]);
    assert_eq!(accepted(&cluster.node(0, 0).vote(&distilled).unwrap()), 1);
}
