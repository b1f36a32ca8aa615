//! More than f authorities lie: what one honest authority has names them, and nobody else.

use super::settle::blind;
use super::*;
use crate::batch::decode_batch;
use crate::bearer::{Spend, build};
use crate::bitmap::Bitmap;
use crate::certificate::{Promise, sign};
use crate::content::credit_output;
use crate::evidence::check;

const LIARS: [u32; 2] = [0, 3];

/// Settles orders at an honest authority and hands it a certificate of the liars and another one for their rivals.
fn accuse(cluster: &mut Cluster, first: &[Bytes], rivals: &[Bytes]) -> Vec<[wire::Receipt; 2]> {
    let bits = (1 << first.len()) - 1;
    let settled = blind(cluster, first, &[LIARS[0], LIARS[1], 1], bits);
    cluster.node(1, 0).settle(&settled, first).unwrap();
    let rival = blind(cluster, rivals, &[LIARS[0], LIARS[1], 2], (1 << rivals.len()) - 1);
    assert_eq!(code(cluster.node(1, 0).settle(&rival, rivals)), Code::ConflictingCertificate);
    let node = cluster.node(1, 0);
    node.authority.evidence(&node.state, &rival, rivals).unwrap()
}

#[test]
fn two_certificates_for_one_seqnum_name_who_signed_both() {
    let (mut cluster, mut alice) = funded(100);
    let mut twin = alice.clone();
    let first = [alice.pay(&[to(cluster.issuer.address, 1)], ""), alice.pay(&[to(cluster.issuer.address, 2)], "")];
    let rival = [Signer::new(9).pay(&[to(alice.address, 1)], ""), twin.pay(&[to(alice.address, 3)], "")];
    let pairs = accuse(&mut cluster, &first, &rival[1..]);
    assert_eq!(pairs.len(), 1);
    let found = check(&cluster.committee, [&pairs[0][0], &pairs[0][1]]).unwrap();
    assert_eq!(found.guilty, LIARS);
    let ids = [&first[0], &rival[1]].map(|raw| crate::envelope::Order::decode(raw.clone()).unwrap().id);
    assert_eq!(found.orders.map(|order| order.id), ids);

    // A vote more or less makes nobody else guilty, and a changed one nothing at all.
    let [settled, other] = pairs[0].clone();
    assert!(settled.acknowledgements.is_empty(), "no promise leaves with it that may not be durable");
    let mut fewer = other.clone();
    fewer.votes.retain(|vote| vote.authority != LIARS[0]);
    assert_eq!(check(&cluster.committee, [&settled, &fewer]).unwrap().guilty, LIARS[1..]);
    fewer.votes.retain(|vote| vote.authority != LIARS[1]);
    assert_eq!(code(check(&cluster.committee, [&settled, &fewer])), Code::NoEvidence);
    let mut forged = other.clone();
    forged.votes[2].authority = 1;
    assert_eq!(code(check(&cluster.committee, [&settled, &forged])), Code::BadVote);
    // Whoever voted for one order acknowledges another that a quorum has certified, and is honest.
    let id = decode_batch(&rival[1..]).unwrap().id;
    let settles = sign(Promise::Settled, &cluster.committee, 1, &cluster.keys[1], &id, &Bitmap::full(1));
    let mixed = wire::Receipt { votes: Vec::new(), acknowledgements: vec![settles], ..other };
    assert!(settled.votes.iter().any(|vote| vote.authority == 1));
    assert_eq!(code(check(&cluster.committee, [&settled, &mixed])), Code::NoEvidence);
}

#[test]
fn two_orders_that_spend_one_note_name_who_signed_both() {
    let mut cluster = Cluster::new(&TestCommittee::new(4, 1));
    let mut alice = Signer::new(1);
    cluster.fund(alice.address, 100);
    let mut purse = cluster.make_cash(6);
    let notes = cluster.withdraw(&mut alice, &mut purse, &[1, 2]);
    let spend = |notes: &[crate::cash::testing::Note], receiver: &Signer| {
        let amount = notes.iter().map(|n| 1 << n.tier).sum();
        let spends: Vec<Spend> = notes.iter().map(|note| note.spend()).collect();
        build(NETWORK_ID, &spends, vec![credit_output(&to(receiver.address, amount))], "", None)
    };
    let (both, one) = (spend(&notes, &alice), spend(&notes[1..], &Signer::new(2)));
    let pairs = accuse(&mut cluster, std::slice::from_ref(&both), &[one]);
    assert_eq!(pairs.len(), 1);
    assert_eq!(check(&cluster.committee, [&pairs[0][0], &pairs[0][1]]).unwrap().guilty, LIARS);
    assert_eq!(code(check(&cluster.committee, [&pairs[0][0], &pairs[0][0]])), Code::NoEvidence);
}

/// Authority 0 votes for the order that loses, and settles the one that the others have certified.
fn loses(cluster: &mut Cluster, [loser, winner]: [Bytes; 2], refusal: Code) {
    let (loser, winner) = ([loser], [winner]);
    cluster.node(0, 0).vote(&loser).unwrap().vote.unwrap();
    let votes: Vec<wire::Signed> = (1..4).filter_map(|i| cluster.node(i, 0).vote(&winner).unwrap().vote).collect();
    let certificate = cluster.certificate(&winner, votes);
    for i in 0..4 {
        let settled = cluster.node(i, 0).settle(&certificate, &winner).unwrap();
        assert!(settled.acknowledgement.is_some());
        let again = cluster.node(i, 0).vote(&winner).unwrap();
        // A vote for it too would prove, to anyone, that it has voted for both.
        assert_eq!(again.vote.is_none(), i == 0);
        assert_eq!(again.errors.first().map(|e| e.code), (i == 0).then_some(refusal as u32));
        assert!(cluster.node(i, 0).vote(&loser).unwrap().vote.is_none());
    }
}

#[test]
fn who_voted_for_the_loser_does_not_vote_for_the_winner_once_it_is_settled() {
    let (mut cluster, alice) = funded(100);
    let orders = [1, 2].map(|amount| alice.clone().pay(&[to(cluster.issuer.address, amount)], ""));
    loses(&mut cluster, orders, Code::BadSeq);

    let mut cluster = Cluster::new(&TestCommittee::new(4, 1));
    let mut alice = Signer::new(1);
    cluster.fund(alice.address, 100);
    let mut purse = cluster.make_cash(6);
    let notes = cluster.withdraw(&mut alice, &mut purse, &[1, 2]);
    let spend = |notes: &[crate::cash::testing::Note]| {
        let amount = notes.iter().map(|n| 1 << n.tier).sum();
        let spends: Vec<Spend> = notes.iter().map(|note| note.spend()).collect();
        build(NETWORK_ID, &spends, vec![credit_output(&to(alice.address, amount))], "", None)
    };
    loses(&mut cluster, [spend(&notes[1..]), spend(&notes)], Code::NoteLocked);
}

#[test]
fn orders_that_honest_authorities_may_both_sign_are_no_evidence() {
    let (mut cluster, mut alice) = funded(100);
    let before = alice.clone();
    let (a, b) = (alice.pay(&[to(alice.address, 1)], ""), alice.pay(&[to(alice.address, 1)], ""));
    let mut follows_another = before.clone();
    follows_another.seqnum = 1;
    follows_another.prev_hash = 7;
    let (void, recover) = (follows_another.pay(&[to(alice.address, 1)], ""), before.recover());
    let receipt = |cluster: &mut Cluster, order: &Bytes| {
        let orders = std::slice::from_ref(order);
        let votes = blind(cluster, orders, &[0, 1, 2, 3], 1).votes;
        let ids = [crate::envelope::Order::decode(order.clone()).unwrap().id];
        let tree = crate::merkle::Tree::new(&ids);
        crate::receipt::assemble(&cluster.committee, order.clone(), &tree, (0, 1), votes, Vec::new())
    };
    let receipts = [&a, &b, &void, &recover].map(|order| receipt(&mut cluster, order));
    for (one, other, why) in [
        (0, 0, "the same order"),
        (0, 1, "different seqnums"),
        (1, 2, "follow different ones"),
        (0, 3, "takes no lock"),
    ] {
        let e = check(&cluster.committee, [&receipts[one], &receipts[other]]).unwrap_err();
        assert!(e.code == Code::NoEvidence && e.message.contains(why), "{e}");
    }
}

#[test]
fn orders_that_spend_other_notes_or_the_same_one_after_a_recovery_exclude_nothing() {
    let (cluster, mut alice) = funded(100);
    let bearer = |nonces: &[u8], recoveries, memo| {
        let spend = |n: &u8| {
            let nonce = Bytes::copy_from_slice(&[*n; 32]);
            let input = wire::NoteInput { nonce, recoveries, ..Default::default() };
            Spend { input, signature: [0; 48], sign: Box::new(|_| [0; 64]) }
        };
        let spends: Vec<Spend> = nonces.iter().map(spend).collect();
        build(NETWORK_ID, &spends, vec![credit_output(&to(alice.address, nonces.len() as u64))], memo, None)
    };
    // All of the committee has signed each of them.
    let receipt = |order: &Bytes| {
        let orders = std::slice::from_ref(order);
        let certificate = blind(&cluster, orders, &[0, 1, 2, 3], 1);
        let tree = crate::merkle::Tree::new(&[crate::envelope::Order::decode(order.clone()).unwrap().id]);
        crate::receipt::assemble(&cluster.committee, order.clone(), &tree, (0, 1), certificate.votes, vec![])
    };
    let found = |a: &Bytes, b: &Bytes| {
        check(&cluster.committee, [&receipt(a), &receipt(b)]).map(|found| found.guilty).map_err(|e| e.code)
    };
    let first = bearer(&[1, 2], 0, "");
    assert_eq!(found(&first, &bearer(&[2, 3], 0, "")), Ok(vec![0, 1, 2, 3]));
    let none = Err(Code::NoEvidence);
    assert_eq!(found(&first, &bearer(&[3, 4], 0, "")), none, "other notes");
    assert_eq!(found(&first, &bearer(&[1, 2], 1, "")), none, "the log has freed them between the two");
    assert_eq!(found(&first, &first), none, "the same order");
    let pay = alice.clone().pay(&[to(alice.address, 1)], "");
    assert_eq!(found(&first, &pay), none, "notes and an account");
    assert_eq!(found(&pay, &first), none);
    let error = check(&cluster.committee, [&receipt(&pay), &receipt(&first)]).unwrap_err();
    assert_eq!(error.message, "one order spends notes, the other one an account");
    assert_eq!(found(&pay, &alice.recover()), none, "what takes no lock");
    let rival = alice.pay(&[to(alice.address, 2)], "");
    assert_eq!(found(&pay, &rival), Ok(vec![0, 1, 2, 3]));
    // The same actor elsewhere, where an admin may admit another order.
    let elsewhere = Signer { network_id: 500, ..alice.clone() }.pay(&[to(alice.address, 3)], "");
    let next = alice.pay(&[to(alice.address, 3)], "");
    assert_eq!([found(&next, &elsewhere), found(&elsewhere, &next)], [none.clone(), none]);
}

#[test]
fn one_certificate_gives_so_many_pairs_and_no_more() {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let mut pairs = Vec::new();
    for (batches, expected) in [(1, 6), (3, 16)] {
        let pay = |n: u64, amount| {
            let mut signer = Signer::new(n);
            let address = signer.address;
            signer.pay(&[to(address, amount)], "")
        };
        let numbers = || 100 * batches..100 * batches + 6 * batches;
        let outputs: Vec<_> = numbers().map(|n| to(Signer::new(n).address, 9)).collect();
        let fund = cluster.issuer.pay(&outputs, "");
        cluster.run(&[fund]);
        for part in numbers().collect::<Vec<_>>().chunks(6) {
            let first: Vec<Bytes> = part.iter().map(|n| pay(*n, 1)).collect();
            let settled = blind(&cluster, &first, &[0, 1, 2], 0b11_1111);
            cluster.node(1, 0).settle(&settled, &first).unwrap();
        }
        let rivals: Vec<Bytes> = numbers().map(|n| pay(n, 2)).collect();
        let id = decode_batch(&rivals).unwrap().id;
        let all = Bitmap::full(rivals.len());
        let vote = |i: usize| sign(Promise::Vote, &cluster.committee, i as u32, &cluster.keys[i], &id, &all);
        let certificate = cluster.certificate(&rivals, [0, 2, 3].map(vote).to_vec());
        let node = cluster.node(1, 0);
        pairs.push((node.authority.evidence(&node.state, &certificate, &rivals).unwrap().len(), expected));
    }
    assert!(pairs.iter().all(|(found, expected)| found == expected), "{pairs:?}");
}
