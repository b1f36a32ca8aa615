//! Certificates: which ones settle, in which order, and that false ones change nothing.

use super::*;
use crate::authority::input::Input;
use crate::batch::decode_batch;
use crate::bitmap::Bitmap;
use crate::certificate::{BatchId, Promise, sign};

/// Hands in a certificate that must be refused without a trace.
fn refuse(node: &mut Node, certificate: &wire::Certificate, orders: &[Bytes], expected: Code, what: &str) {
    let before = node.state.clone();
    assert_eq!(code(node.settle(certificate, orders)), expected, "{what}");
    assert_eq!(node.state, before, "{what}");
}

fn change(certificate: &wire::Certificate, change: impl FnOnce(&mut wire::Certificate)) -> wire::Certificate {
    let mut changed = certificate.clone();
    change(&mut changed);
    changed
}

fn flip(bytes: &Bytes, at: usize, bit: u8) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1 << bit;
    bytes.into()
}

#[test]
fn false_certificates_change_nothing() {
    let (mut cluster, mut alice) = funded(100);
    let orders = [alice.pay(&[to(alice.address, 1)], "")];
    let good = cluster.certify(0, &orders);
    let other = Cluster::new(&TestCommittee { issuer_limit: 5, ..Default::default() });
    let batch = BatchId { root: good.root.as_ref().try_into().unwrap(), count: 1 };
    let foreign: Vec<_> = (0..3)
        .map(|i| sign(Promise::Vote, &other.committee, i, &other.keys[i as usize], &batch, &Bitmap::full(1)))
        .collect();
    let acks: Vec<_> = (0..3)
        .map(|i| sign(Promise::Settled, &cluster.committee, i, &cluster.keys[i as usize], &batch, &Bitmap::full(1)))
        .collect();
    let none: Vec<_> = (0..4)
        .map(|i| sign(Promise::Vote, &cluster.committee, i, &cluster.keys[i as usize], &batch, &Bitmap::empty(1)))
        .collect();
    let swapped = change(&good, |c| (c.votes[0].authority, c.votes[1].authority) = (1, 0));
    let node = cluster.node(0, 0);
    let cases = [
        ("2f votes", Code::NoQuorum, change(&good, |c| c.votes.truncate(2))),
        ("2f votes and one twice", Code::DuplicateSigner, change(&good, |c| c.votes[2] = c.votes[1].clone())),
        ("four votes, one twice", Code::DuplicateSigner, change(&good, |c| c.votes[3] = c.votes[0].clone())),
        ("another epoch", Code::WrongEpoch, change(&good, |c| c.epoch = 2)),
        ("another committee", Code::BadVote, change(&good, |c| c.votes = foreign)),
        ("acknowledgements", Code::BadVote, change(&good, |c| c.votes = acks)),
        ("votes for nothing", Code::NoQuorum, change(&good, |c| c.votes = none)),
        ("a stranger", Code::UnknownAuthority, change(&good, |c| c.votes[0].authority = 4)),
        ("the largest index", Code::UnknownAuthority, change(&good, |c| c.votes[0].authority = u32::MAX)),
        ("another signer", Code::BadVote, swapped),
        (
            "a bit of the signature",
            Code::BadVote,
            change(&good, |c| c.votes[1].signature = flip(&c.votes[1].signature, 5, 3)),
        ),
        ("a short signature", Code::BadVote, change(&good, |c| c.votes[1].signature.truncate(63))),
        ("a bit of the root", Code::BadVote, change(&good, |c| c.root = flip(&c.root, 0, 0))),
        ("a short root", Code::Decode, change(&good, |c| c.root.truncate(31))),
        ("a spare bit", Code::BadBitmap, change(&good, |c| c.votes[0].bitmap = Bytes::from_static(&[0b11]))),
        ("a long bitmap", Code::BadBitmap, change(&good, |c| c.votes[0].bitmap = Bytes::from_static(&[1, 0]))),
        ("no bitmap", Code::BadBitmap, change(&good, |c| c.votes[0].bitmap = Bytes::new())),
        ("a cleared bit", Code::BadVote, change(&good, |c| c.votes[0].bitmap = Bytes::from_static(&[0]))),
        ("another count", Code::BadVote, change(&good, |c| c.count = 2)),
        ("no orders", Code::Limit, change(&good, |c| c.count = 0)),
        ("too many orders", Code::Limit, change(&good, |c| c.count = 4_097)),
    ];
    for (what, expected, certificate) in &cases {
        refuse(node, certificate, &orders, *expected, what);
    }
    assert!(node.settle(&good, &[]).unwrap().acknowledgement.is_some());
}

#[test]
fn repeating_a_certificate_changes_nothing_and_checks_no_signature() {
    let (mut cluster, mut alice) = funded(100);
    let orders = [alice.pay(&[to(cluster.issuer.address, 1)], "")];
    let certificate = cluster.certify(0, &orders);
    let first = cluster.node(0, 0).settle(&certificate, &orders).unwrap();
    let node = cluster.node(0, 0);
    let before = node.state.clone();
    let input = Input::Settle { certificate: certificate.clone(), orders: orders.to_vec() };
    let effects = node.step(input).unwrap();
    assert!(effects.writes.is_empty());
    assert_eq!(node.settle(&certificate, &[]).unwrap(), first);
    assert_eq!(node.state, before);
    assert_eq!(first.acknowledgement.unwrap().bitmap[0], 1);
    // What is settled is acknowledged to whoever names it; a broken signature is not even looked at.
    let broken = change(&certificate, |c| c.votes[0].signature = Bytes::from_static(&[0; 64]));
    assert!(node.settle(&broken, &[]).unwrap().acknowledgement.is_some());
}

#[test]
fn an_early_certificate_waits_for_its_predecessor() {
    let (mut cluster, mut alice) = funded(100);
    let bob = Signer::new(2);
    let chain: Vec<[Bytes; 1]> = (1..=3).map(|i| [alice.pay(&[to(bob.address, i)], "")]).collect();
    let certificates: Vec<_> = chain.iter().map(|orders| cluster.certify(0, orders)).collect();
    let node = cluster.node(0, 0);
    for i in [2, 1, 2] {
        let reply = node.settle(&certificates[i], &chain[i]).unwrap();
        assert!(reply.acknowledgement.is_none());
        assert_eq!(reply.waiting, [wire::Waiting { index: 0, next_seqnum: 1 }]);
    }
    assert_eq!(node.authority.totals(&node.state).unwrap().waiting, 2);
    let before = node.state.clone();
    node.settle(&certificates[2], &chain[2]).unwrap();
    assert_eq!(node.state, before, "repeating changes nothing");
    node.settle(&certificates[0], &chain[0]).unwrap();
    assert_eq!(node.account(alice.actor()).seqnum, 3);
    assert_eq!(node.authority.totals(&node.state).unwrap().waiting, 0);
    for certificate in &certificates {
        assert!(node.settle(certificate, &[]).unwrap().acknowledgement.is_some());
    }
    assert_eq!(cluster.balance(0, &bob.address), 6);
}

#[test]
fn an_authority_that_voted_for_the_loser_settles_the_winner() {
    let (mut cluster, mut alice) = funded(100);
    let mut twin = alice.clone();
    let winner = [alice.pay(&[to(cluster.issuer.address, 10)], "")];
    let loser = [twin.pay(&[to(cluster.issuer.address, 90)], "")];
    let after_loser = [twin.pay(&[to(cluster.issuer.address, 1)], "")];
    cluster.node(0, 0).vote(&loser).unwrap();
    cluster.node(0, 0).vote(&after_loser).unwrap();
    let votes = (1..4).filter_map(|i| cluster.node(i, 0).vote(&winner).unwrap().vote).collect();
    let certificate = cluster.certificate(&winner, votes);
    for reply in cluster.settle(0, &certificate, &winner) {
        assert!(reply.unwrap().acknowledgement.is_some());
    }
    let node = cluster.node(0, 0);
    assert_eq!(node.account(alice.actor()).pending, []);
    assert_eq!(refused(&node.vote(&loser).unwrap()), [(0, Code::BadSeq)]);
    assert_eq!(refused(&node.vote(&after_loser).unwrap()), [(0, Code::BadPrevHash)]);
    let next = alice.pay(&[to(cluster.issuer.address, 90)], "");
    cluster.run(&[next]);
    assert_eq!(cluster.balance(0, &alice.address), 0);
}

#[test]
fn settling_asks_for_orders_and_takes_only_those_of_the_root() {
    let (mut cluster, mut alice) = funded(100);
    let orders = [alice.pay(&[to(alice.address, 1)], "")];
    let votes = (1..4).filter_map(|i| cluster.node(i, 0).vote(&orders).unwrap().vote).collect();
    let certificate = cluster.certificate(&orders, votes);
    let node = cluster.node(0, 0);
    let before = node.state.clone();
    assert!(node.settle(&certificate, &[]).unwrap().batch_missing);
    assert_eq!(node.state, before);
    let wrong = [Signer::new(1).pay(&[to(alice.address, 2)], "")];
    refuse(node, &certificate, &wrong, Code::BadRoot, "another order");
    refuse(node, &certificate, &[orders[0].clone(), orders[0].clone()], Code::BadRoot, "one order too many");
    assert!(node.settle(&certificate, &orders).unwrap().acknowledgement.is_some());
}

#[test]
fn one_certificate_settles_the_orders_with_a_quorum_and_no_others() {
    let (mut cluster, mut alice) = funded(100);
    let mut bob = Signer::new(2);
    cluster.fund(bob.address, 100);
    let mut twin = bob.clone();
    let held = twin.pay(&[to(twin.address, 5)], "");
    for i in 0..2 {
        cluster.node(i, 0).vote(std::slice::from_ref(&held)).unwrap();
    }
    let orders = [alice.pay(&[to(bob.address, 1)], ""), bob.pay(&[to(bob.address, 2)], "")];
    let votes = cluster.vote(0, &orders).into_iter().filter_map(|r| r.vote).collect();
    let certificate = cluster.certificate(&orders, votes);
    for reply in cluster.settle(0, &certificate, &orders) {
        assert_eq!(reply.unwrap().acknowledgement.unwrap().bitmap[0], 0b01);
    }
    assert_eq!(cluster.node(3, 0).account(bob.actor()).seqnum, 0);
}

#[test]
fn the_same_order_in_two_batches_settles_once() {
    let (mut cluster, mut alice) = funded(100);
    let mut bob = Signer::new(2);
    cluster.fund(bob.address, 100);
    let (a, b) = (alice.pay(&[to(bob.address, 10)], ""), bob.pay(&[to(alice.address, 1)], ""));
    let (one, both) = ([a.clone()], [b, a.clone(), a]);
    let first = cluster.certify(0, &one);
    let second = cluster.certify(0, &both);
    cluster.settle(0, &first, &one);
    for reply in cluster.settle(0, &second, &both) {
        assert_eq!(reply.unwrap().acknowledgement.unwrap().bitmap[0], 0b111);
    }
    assert_eq!(cluster.balance(0, &alice.address), 91);
    let node = cluster.node(0, 0);
    assert_eq!(node.authority.totals(&node.state).unwrap().orders, count(node, Table::Orders) as u64);
}

#[test]
fn deliveries_are_applied_once_and_in_order() {
    let mut cluster = Cluster::new(&TestCommittee::new(4, 2));
    let mut alice = Signer::on_shard(0, 2, 1);
    let bob = Signer::on_shard(1, 2, 1);
    cluster.fund(alice.address, 100);
    for amount in 1..=3 {
        let orders = [alice.pay(&[to(bob.address, amount)], "")];
        let certificate = cluster.certify(0, &orders);
        cluster.node(0, 0).settle(&certificate, &orders).unwrap();
    }
    let sender = cluster.node(0, 0);
    let (first, last) = sender.authority.outbox_range(&sender.state, 1).unwrap();
    let sent: Vec<_> = (first..=last).map(|s| sender.authority.outbox(&sender.state, 1, s).unwrap()).collect();
    assert_eq!(sent.len(), 3);
    let mut deliver = |delivery: &wire::Delivery| cluster.node(0, 1).step(Input::Deliver(delivery.clone())).map(|_| ());
    assert_eq!(code(deliver(&sent[1])), Code::OutOfOrder);
    deliver(&sent[0]).unwrap();
    deliver(&sent[0]).unwrap();
    assert_eq!(code(deliver(&sent[2])), Code::OutOfOrder);
    for i in [1, 0, 2, 1, 2] {
        deliver(&sent[i]).unwrap();
    }
    let wrong = |change: fn(&mut wire::Delivery)| {
        let mut delivery = wire::Delivery { sequence: last + 1, ..sent[0].clone() };
        change(&mut delivery);
        delivery
    };
    assert_eq!(code(deliver(&wrong(|d| d.from_shard = 1))), Code::WrongShard);
    assert_eq!(code(deliver(&wrong(|d| d.from_shard = 2))), Code::WrongShard);
    assert_eq!(code(deliver(&wrong(|d| d.to_shard = 0))), Code::WrongShard);
    assert_eq!(code(deliver(&wrong(|d| d.credits[0].address = Bytes::from_static(&[0; 32])))), Code::WrongShard);
    assert_eq!(code(deliver(&wrong(|d| d.credits[0].source = None))), Code::Decode);
    assert_eq!(cluster.balance(0, &bob.address), 6);
    let mut acknowledge = |applied| cluster.node(0, 0).step(Input::Delivered { to_shard: 1, applied }).map(|_| ());
    acknowledge(last).unwrap();
    acknowledge(last - 1).unwrap();
    assert_eq!(code(acknowledge(last + 1)), Code::StorageCorrupt);
    assert_eq!(count(cluster.node(0, 0), Table::Outbox), 0);
}

#[test]
fn credits_page_newest_first() {
    let (mut cluster, alice) = funded(1);
    for amount in 2..=5 {
        cluster.fund(alice.address, amount);
    }
    let node = cluster.node(0, 0);
    let mut request = wire::CreditsRequest {
        network_id: NETWORK_ID,
        address: Bytes::copy_from_slice(alice.address.as_bytes()),
        before: 0,
        limit: 2,
    };
    let mut seen = Vec::new();
    loop {
        let reply = node.authority.credits(&node.state, &request).unwrap();
        seen.extend(reply.credits.iter().map(|c| c.amount));
        request.before = reply.next;
        if reply.next == 0 {
            break;
        }
    }
    assert_eq!(seen, [5, 4, 3, 2, 1]);
    for before in [9 << 20, 3 << 20 | 7, u64::MAX] {
        request.before = before;
        assert_eq!(code(node.authority.credits(&node.state, &request)), Code::Decode, "{before}");
    }
}

/// What one authority settled, another one that was away learns from its stream.
#[test]
fn an_authority_catches_up_from_a_peers_stream() {
    let (mut cluster, mut alice) = funded(100);
    for amount in 1..=3 {
        let orders = [alice.pay(&[to(cluster.issuer.address, amount)], "")];
        let certificate = cluster.certify(0, &orders);
        (0..3).for_each(|i| drop(cluster.node(i, 0).settle(&certificate, &orders).unwrap()));
    }
    let peer = cluster.node(0, 0);
    let end = peer.authority.totals(&peer.state).unwrap().next.1;
    let entries = peer.authority.follow(&peer.state, 0, end).unwrap().entries;
    for entry in entries {
        let node = cluster.node(3, 0);
        if node.authority.missing(&node.state, &entry).unwrap() {
            let peer = cluster.node(0, 0);
            let batch = peer.authority.batch(&peer.state, &wanted(&entry.root)).unwrap();
            for certificate in &batch.certificates {
                cluster.node(3, 0).settle(certificate, &batch.orders).unwrap();
            }
        }
        let node = cluster.node(3, 0);
        assert!(!node.authority.missing(&node.state, &entry).unwrap());
    }
    assert_eq!(cluster.balance(3, &alice.address), 94);
}

/// A certificate that these authorities sign blindly: `bits` are the orders of each vote.
pub(super) fn blind(cluster: &Cluster, orders: &[Bytes], signers: &[u32], bits: u8) -> wire::Certificate {
    let id = decode_batch(orders).unwrap().id;
    let bitmap = Bitmap::parse(&[bits], orders.len()).unwrap();
    let sign = |i: &u32| sign(Promise::Vote, &cluster.committee, *i, &cluster.keys[*i as usize], &id, &bitmap);
    cluster.certificate(orders, signers.iter().map(sign).collect())
}

#[test]
fn orders_of_one_batch_may_need_two_certificates() {
    let (mut cluster, mut alice) = funded(100);
    let mut bob = Signer::new(2);
    cluster.fund(bob.address, 100);
    let orders = [alice.pay(&[to(bob.address, 1)], ""), bob.pay(&[to(alice.address, 2)], "")];
    let certificates = [blind(&cluster, &orders, &[0, 1, 2], 0b01), blind(&cluster, &orders, &[1, 2, 3], 0b10)];
    let committee = cluster.committee.clone();
    let node = cluster.node(0, 0);
    for certificate in &certificates {
        node.settle(certificate, &orders).unwrap();
    }
    for signer in [&alice, &bob] {
        let request =
            wire::OrderRequest { network_id: NETWORK_ID, actor: signer.actor(), seqnum: 1, ..Default::default() };
        let receipt = node.authority.order(&node.state, &request).unwrap().receipt.unwrap();
        crate::receipt::verify_certified(&committee, &receipt).unwrap();
    }
    let root = &certificates[0].root;
    assert_eq!(node.authority.batch(&node.state, &wanted(root)).unwrap().certificates.len(), 2);
    // One that covers both takes their place, for a peer that has seen neither.
    let both = blind(&cluster, &orders, &[0, 1, 3], 0b11);
    let node = cluster.node(1, 0);
    node.settle(&certificates[0], &orders).unwrap();
    node.settle(&both, &orders).unwrap();
    assert_eq!(node.authority.batch(&node.state, &wanted(root)).unwrap().certificates, [both]);
}

#[test]
fn a_batch_may_name_a_successor_first() {
    let (mut cluster, mut alice) = funded(100);
    let (first, second) = (alice.pay(&[to(alice.address, 1)], ""), alice.pay(&[to(alice.address, 2)], ""));
    cluster.certify(0, &batch(&[&first, &second]));
    let reversed = batch(&[&second, &first]);
    let certificate = cluster.certify(0, &reversed);
    for reply in cluster.settle(0, &certificate, &reversed) {
        let reply = reply.unwrap();
        assert_eq!((reply.acknowledgement.unwrap().bitmap[0], reply.waiting), (0b11, vec![]));
    }
}

/// With more than f traitors all is lost, but what was settled stays, and the fault has a name.
#[test]
fn impossible_certificates_are_named_and_change_nothing() {
    let (mut cluster, mut alice) = funded(100);
    let mut twin = alice.clone();
    let first = [alice.pay(&[to(alice.address, 1)], "")];
    cluster.run(&first);
    let rival = [twin.pay(&[to(alice.address, 2)], "")];
    let unlinked = [twin.pay(&[to(alice.address, 3)], "")];
    let unopened = [Signer::new(3).order(1, crate::content::encode_pay(&[to(alice.address, 1)], "", None))];
    let junk = [Bytes::from_static(b"junk")];
    // One that hangs on another order may hang on what a recovery puts there, and waits.
    let certificate = blind(&cluster, &unlinked, &[0, 1, 2, 3], 1);
    let reply = cluster.node(0, 0).settle(&certificate, &unlinked).unwrap();
    assert_eq!((reply.acknowledgement, reply.waiting.len()), (None, 1));
    for orders in [&rival, &unopened, &junk] {
        let certificate = blind(&cluster, orders, &[0, 1, 2, 3], 1);
        refuse(cluster.node(0, 0), &certificate, orders, Code::ConflictingCertificate, "a certificate of traitors");
    }
}

fn wanted(root: &Bytes) -> wire::BatchRequest {
    wire::BatchRequest { shard: 0, root: root.clone(), bitmap: Bytes::new() }
}
