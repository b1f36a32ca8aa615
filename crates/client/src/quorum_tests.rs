//! What a wallet may conclude from the answers of authorities, some of which lag, lie or fall silent.

use florin_core::testing::{Cluster, Signer, TestCommittee, to};

use super::*;

/// Asks these authorities for their votes, as the network does.
fn ask(quorum: &mut Quorum, cluster: &mut Cluster, authorities: &[usize]) {
    for authority in authorities {
        quorum.on_send(Send::Vote { authority: *authority });
        let reply = cluster.node(*authority, 0).vote(&quorum.orders_for(*authority));
        quorum.on_vote(*authority, reply);
    }
}

/// A wallet signs another order for the sequence number then: nobody may be about to lock the first one.
#[test]
fn a_refusal_counts_no_more_once_its_authority_is_asked_again() {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let mut poor = Signer::new(1);
    let order = poor.pay(&[to(cluster.issuer.address, 5)], "");
    let mut quorum = Quorum::new(cluster.committee.clone(), vec![order]).unwrap();
    ask(&mut quorum, &mut cluster, &[0, 1]);
    assert!(!quorum.decided() && !quorum.refused_by_quorum(0));
    // Two refuse, and might only lag; the first is asked again when the third answers.
    quorum.on_send(quorum.wanted(0).unwrap());
    ask(&mut quorum, &mut cluster, &[2]);
    assert!(quorum.decided());
    assert!(!quorum.refused_by_quorum(0), "the first may accept it by now");
    quorum.on_vote(0, Err(Error::new(Code::Timeout, "no answer")));
    assert!(!quorum.refused_by_quorum(0), "and nobody knows whether it did");
    ask(&mut quorum, &mut cluster, &[0]);
    assert!(quorum.refused_by_quorum(0));
}

#[test]
fn one_silent_and_one_lagging_of_four_only_delay() {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let mut alice = Signer::new(1);
    let funding = [cluster.issuer.pay(&[to(alice.address, 5)], "")];
    let certificate = cluster.certify(0, &funding);
    for authority in 0..2 {
        cluster.node(authority, 0).settle(&certificate, &funding).unwrap();
    }
    let order = alice.pay(&[to(cluster.issuer.address, 5)], "");
    let mut quorum = Quorum::new(cluster.committee.clone(), vec![order]).unwrap();
    ask(&mut quorum, &mut cluster, &[0, 1, 2]);
    assert!(!quorum.decided() && !quorum.certifiable() && !quorum.refused_by_quorum(0));
    assert_eq!(quorum.wanted(2), Some(Send::Vote { authority: 2 }), "it is asked again");
    cluster.node(2, 0).settle(&certificate, &funding).unwrap();
    ask(&mut quorum, &mut cluster, &[2]);
    assert!(quorum.decided() && quorum.certify());
}

/// Two accounts, ascending, that sign roots; the opening of the first is not settled at authority 3.
fn distilled() -> (Cluster, Vec<Signer>, Vec<Bytes>) {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let mut signers: Vec<Signer> = (1..=2).map(Signer::distilled).collect();
    signers.sort_by_key(Signer::actor);
    for (i, signer) in signers.iter_mut().enumerate() {
        cluster.fund(signer.address, 100);
        let opening = [signer.pay(&[to(signer.address, 1)], "")];
        let certificate = cluster.certify(0, &opening);
        for authority in 0..3 + i {
            cluster.node(authority, 0).settle(&certificate, &opening).unwrap();
        }
    }
    let orders = signers.iter_mut().map(|s| s.pay(&[to(cluster.issuer.address, 5)], "")).collect();
    (cluster, signers, orders)
}

#[test]
fn who_lags_is_shown_an_aggregate_of_the_others() {
    let (mut cluster, signers, orders) = distilled();
    let id = decode_batch(&orders).unwrap().id;
    let shares = signers.iter().map(|s| Some(s.sign_root(&cluster.committee, &id))).collect();
    let sealed = Sealed::new(&orders, shares).unwrap();
    let mut quorum = Quorum::distilled(cluster.committee.clone(), sealed.clone()).unwrap();
    ask(&mut quorum, &mut cluster, &[3]);
    assert_eq!((quorum.votes(), quorum.refusal(3).map(|e| e.code)), (0, None));
    assert_eq!(quorum.wanted(3), Some(Send::Vote { authority: 3 }), "it is asked again");
    assert_eq!(quorum.orders_for(3), sealed.orders(&[1]));
    ask(&mut quorum, &mut cluster, &[3]);
    assert_eq!(
        (quorum.votes(), quorum.wanted(3)),
        (1, None),
        "the first order is pending there, with its own signature"
    );
    assert_eq!(quorum.orders_for(0), sealed.orders(&[0, 1]));
    ask(&mut quorum, &mut cluster, &[0, 1]);
    assert!(quorum.decided() && quorum.certify());
    // A receipt has the order as its sender has signed it.
    for authority in 0..4 {
        let reply = cluster.node(authority, 0).settle(quorum.certificate().unwrap(), quorum.orders());
        quorum.on_settle(authority, reply);
    }
    let receipts: Vec<Bytes> = quorum.outcomes().into_iter().map(|r| r.unwrap().transaction).collect();
    assert_eq!(receipts, orders);
}

#[test]
fn a_false_aggregate_costs_a_round_and_nothing_else() {
    let (mut cluster, signers, orders) = distilled();
    let id = decode_batch(&orders).unwrap().id;
    // A sender has told the worker another key than its account has.
    let shares = vec![Some(signers[0].sign_root(&cluster.committee, &id)); 2];
    let mut quorum = Quorum::distilled(cluster.committee.clone(), Sealed::new(&orders, shares).unwrap()).unwrap();
    ask(&mut quorum, &mut cluster, &[0, 1, 2]);
    assert_eq!((quorum.votes(), quorum.decided()), (0, false), "the orders are not refused by that");
    assert_eq!(quorum.orders_for(0), orders);
    ask(&mut quorum, &mut cluster, &[0, 1, 2]);
    assert!(quorum.decided() && quorum.certify());
}

/// Gives refusals with these codes, one authority after the other.
fn refuse(codes: &[Code]) -> Quorum {
    let cluster = Cluster::new(&TestCommittee::default());
    let order = Signer::new(1).pay(&[to(cluster.issuer.address, 5)], "");
    let mut quorum = Quorum::new(cluster.committee.clone(), vec![order]).unwrap();
    for (authority, code) in codes.iter().enumerate() {
        let error = wire::OrderError { index: 0, code: *code as u32, ..Default::default() };
        quorum.on_vote(authority, Ok(wire::VoteReply { vote: None, errors: vec![error] }));
    }
    quorum
}

/// The wallet signs another order for the number of one that is void.
#[test]
fn only_what_no_honest_authority_ever_accepts_is_void() {
    use Code::*;
    for money in [InsufficientFunds, IssuerLimit, BadSeq, KeyMismatch, Busy, Decode, SigFormat, CallWaits, Recovering] {
        let quorum = refuse(&[money; 4]);
        assert!(quorum.refused_by_quorum(0) && !quorum.void(0), "{money:?}");
    }
    for rule in [BadContent, BadCallChain, Voided] {
        assert!(refuse(&[rule, rule]).void(0) && !refuse(&[rule, BadSeq, BadSeq, BadSeq]).void(0), "{rule:?}");
    }
    assert!(refuse(&[InsufficientFunds, PendingConflict, PendingConflict]).void(0));
    // One liar can't make it so.
    assert!(!refuse(&[InsufficientFunds, BadSeq, BadContent]).void(0));
    assert!(!refuse(&[InsufficientFunds, BadSeq, PendingConflict]).void(0));
    // Another order has the votes of some, and this one may have those of others.
    assert!(!refuse(&[PendingConflict, PendingConflict]).void(0));
}

/// An authority that has not settled the account's earlier orders votes for a CALL a moment later.
#[test]
fn a_call_that_comes_too_early_is_offered_again() {
    let early = refuse(&[Code::CallWaits]);
    assert_eq!(early.wanted(0), Some(Send::Vote { authority: 0 }));
    assert!(!refuse(&[Code::CallWaits, Code::CallWaits]).decided());
    // A recovery takes ten minutes.
    let frozen = refuse(&[Code::Recovering, Code::Recovering]);
    assert_eq!((frozen.wanted(0), frozen.decided()), (None, true));
}
