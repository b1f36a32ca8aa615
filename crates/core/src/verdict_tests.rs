//! Each refusal of a transaction, in the order of the checks, with how much curve arithmetic it took.

use super::*;
use crate::keys::Curve;
use crate::testing::Actor as Signer;

const ID: u64 = 77;

fn signer(actor: u64) -> Signer {
    Signer::new(ID, actor, Curve::Ed25519)
}

fn network(flags: u32, actors: &[&Signer]) -> Network {
    let known = |signer: &&Signer| {
        let permission = Some(signer.permission.clone());
        (signer.permission.actor, Actor { permission, seqnum: signer.seqnum, prev_hash: signer.prev_hash })
    };
    Network { id: ID, flags, actors: actors.iter().map(known).collect() }
}

fn judged(network: &Network, raw: Bytes) -> (Option<Code>, usize) {
    let verdict = network.judge_transaction(raw);
    (verdict.next.err().map(|e| e.code), verdict.verifications)
}

#[test]
fn each_check_has_its_code_and_only_the_last_costs_anything() {
    let (mut a, b, stranger) = (signer(1), signer(2), signer(3));
    let all = network(0, &[&a, &b]);
    assert_eq!(judged(&all, Bytes::new()), (Some(Code::EmptyBody), 0));
    let mut elsewhere = Signer::new(ID + 1, 1, Curve::Ed25519);
    assert_eq!(judged(&all, elsewhere.order(1, b"", &[])), (Some(Code::UnknownNetwork), 0));
    assert_eq!(judged(&all, stranger.clone().order(1, b"", &[])), (Some(Code::UnknownActor), 0));
    assert_eq!(judged(&all, a.clone().order(1, b"", &[&b, &b])), (Some(Code::DuplicateCosignor), 0));
    let ahead = Signer { seqnum: 1, ..a.clone() }.order(1, b"", &[]);
    assert_eq!(judged(&all, ahead), (Some(Code::BadSeq), 0));
    let unlinked = Signer { prev_hash: 9, ..a.clone() }.order(1, b"", &[]);
    assert_eq!(judged(&all, unlinked), (Some(Code::BadPrevHash), 0));
    assert_eq!(judged(&all, a.clone().order(1, b"", &[&stranger])).0, Some(Code::UnknownCosignor));
    let impostor = Signer { keys: b.keys.clone(), ..a.clone() };
    assert_eq!(judged(&all, impostor.clone().order(1, b"", &[])).0, Some(Code::KeyMismatch));
    // What is right says where the actor is afterwards.
    let order = a.order(1, b"x", &[&b]);
    let verdict = all.judge_transaction(order);
    assert_eq!((verdict.next.unwrap(), verdict.verifications), ((1, a.prev_hash), 2));
    // The last seqnum has no next.
    let last = Signer { seqnum: u32::MAX - 1, ..signer(1) };
    let order = last.clone().order(1, b"", &[]);
    assert_eq!(judged(&network(0, &[&last]), order.clone()).0, None);
    let over = Signer { seqnum: u32::MAX, ..last };
    assert_eq!(judged(&network(0, &[&over]), order), (Some(Code::SeqExhausted), 0));
}

#[test]
fn where_sequences_are_skipped_they_stay() {
    let mut a = signer(1);
    let network = network(SKIP_SEQ_AND_PREVHASH, &[&a]);
    a.seqnum = 40;
    assert_eq!(network.judge_transaction(a.order(1, b"", &[])).next.unwrap(), (0, 0));
}

#[test]
fn who_was_removed_is_unknown_and_keeps_its_place_if_it_comes_back() {
    let mut a = signer(1);
    let order = a.order(1, b"", &[]);
    let mut network = network(0, &[&a]);
    network.actors.get_mut(&1).unwrap().permission = None;
    assert_eq!(judged(&network, order), (Some(Code::UnknownActor), 0));
    let next = |signer: &Signer| network.judge_permission(&signer.permission.encode()).next.unwrap();
    assert_eq!((next(&a), next(&signer(5))), ((1, a.prev_hash), (0, 0)));
    assert!(network.judge_permission(b"junk").next.is_err());
}

#[test]
fn one_who_asks_alone_hears_which_is_missing() {
    let (mut a, b) = (signer(1), signer(2));
    let order = Order::decode(a.order(1, b"", &[&b])).unwrap();
    let knows = |known: &'static [u64]| {
        let all = [signer(1).permission, signer(2).permission];
        check_authorities(&order, |id| Ok(all.iter().find(|p| p.actor == id && known.contains(&id)).cloned()))
            .map_err(|e| e.code)
    };
    assert_eq!(knows(&[1, 2]), Ok(()));
    assert_eq!(knows(&[2]), Err(Code::UnknownActor));
    assert_eq!(knows(&[1]), Err(Code::UnknownCosignor));
    let failed = check_authorities(&order, |_| Err(Error::new(Code::StorageFailed, "the disk")));
    assert_eq!(failed.unwrap_err().code, Code::StorageFailed);
}
