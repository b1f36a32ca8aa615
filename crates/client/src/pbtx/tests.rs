//! What is believed of the registry, and how commands are packed.

use florin_core::content::{Content, TYPE_CALL, encode_call};
use florin_core::envelope::{Authority, Body, encode_body, encode_envelope};
use florin_core::keys::Curve;
use florin_core::testing::{Actor, Signer, TestCommittee};
use wire::network_command::Kind;

use super::*;

fn page(ids: &[(u64, u32)], next: u64) -> Result<wire::NetworksReply> {
    let network = |(id, flags): &(u64, u32)| wire::ListedNetwork {
        network_id: *id,
        network: Some(wire::NetworkRecord { flags: *flags, ..Default::default() }),
    };
    Ok(wire::NetworksReply { networks: ids.iter().map(network).collect(), next })
}

fn away() -> Result<wire::NetworksReply> {
    Err(Error::new(Code::Unreachable, "away"))
}

fn ids(listed: &[wire::ListedNetwork]) -> Vec<(u64, u32)> {
    listed.iter().map(|n| (n.network_id, n.network.as_ref().unwrap().flags)).collect()
}

#[test]
fn the_list_of_networks_is_what_enough_authorities_say() {
    let (committee, _) = TestCommittee::default().build();
    let list = |replies: &[Result<wire::NetworksReply>]| listed(&committee, replies).map(|(l, next)| (ids(&l), next));
    let honest = || page(&[(3, 0), (9, 2)], 0);
    assert_eq!(list(&[honest(), honest(), honest(), away()]).unwrap(), (vec![(3, 0), (9, 2)], 0));
    // A liar invents, repeats, leaves out, changes, ends early.
    for lie in [page(&[(3, 0), (4, 0), (4, 0), (9, 2)], 0), page(&[], 0), page(&[(3, 0), (9, 7)], 0), page(&[], 4)] {
        assert_eq!(list(&[lie, honest(), honest(), honest()]).unwrap(), (vec![(3, 0), (9, 2)], 0));
    }
    // One that lags is asked again, and too few are not believed.
    let changed = || page(&[(3, 0), (9, 3)], 0);
    let e = list(&[honest(), changed(), page(&[(3, 0), (9, 4)], 0), away()]).unwrap_err();
    assert_eq!(e.code, Code::Undecided);
    assert_eq!(list(&[honest(), honest(), away(), away()]).unwrap_err().code, Code::QuorumUnreachable);
    // As far as a quorum has told.
    let replies = [page(&[(3, 0)], 5), page(&[(3, 0), (9, 2)], 0), page(&[(3, 0)], 5), page(&[(3, 0)], 5)];
    assert_eq!(list(&replies).unwrap(), (vec![(3, 0)], 5));
}

#[test]
fn refusals_count_when_an_honest_one_is_among_them() {
    let (committee, _) = TestCommittee::default().build();
    let no = |code| Err::<(), _>(Error::new(code, "no"));
    let alike = |replies: &[Result<()>]| alike(&committee, replies).map(|e| e.code);
    assert_eq!(alike(&[no(Code::UnknownNetwork), Ok(()), no(Code::UnknownNetwork)]), Some(Code::UnknownNetwork));
    assert_eq!(alike(&[no(Code::UnknownNetwork), Ok(()), no(Code::BadContent)]), None);
    assert_eq!(alike(&[no(Code::Unreachable), no(Code::Unreachable), no(Code::Timeout)]), None, "says nothing");
}

#[test]
fn commands_are_packed_into_calls_that_authorities_take() {
    let registration = |n: u64| {
        let kind = Some(Kind::Actor(Actor::new(5, n, Curve::K1).permission.encode()));
        wire::NetworkCommand { network_id: 5, kind }
    };
    let memo = "m".repeat(256);
    let calls = pack((1..=300).map(registration).collect(), &memo);
    assert_eq!(calls.iter().map(Vec::len).sum::<usize>(), 300);
    assert!(calls.len() <= 4, "found {}", calls.len());
    let signer = Signer::new(1);
    for outputs in calls {
        let call = wire::Call {
            account: Bytes::copy_from_slice(signer.address.as_bytes()),
            previous_call: u32::MAX,
            outputs: outputs.into_iter().map(|kind| wire::Output { kind: Some(kind) }).collect(),
            memo: memo.clone(),
            open: signer.permission.encode(),
            ..Default::default()
        };
        let body = Body {
            network_id: signer.network_id,
            actor: signer.actor(),
            cosignors: Vec::new(),
            seqnum: 1,
            prev_hash: 0,
            transaction_type: TYPE_CALL,
            content: encode_call(&call),
        };
        let order = Order::decode(encode_envelope(&encode_body(&body), &[Authority::default()])).unwrap();
        Content::decode(&order).unwrap();
    }
    let small = |n: u64| wire::NetworkCommand { network_id: 5, kind: Some(Kind::RemoveActor(n)) };
    assert_eq!(pack((1..=257).map(small).collect(), "").iter().map(Vec::len).collect::<Vec<_>>(), [256, 1]);
}

#[test]
fn a_file_of_envelopes_names_the_line_that_is_wrong() {
    let order = hex::encode(Actor::new(5, 1, Curve::K1).order(0, b"x", &[]));
    assert_eq!(read_envelopes(&format!("# mine\n\n{order}\n {order} \n")).unwrap().len(), 2);
    let e = read_envelopes(&format!("{order}\nzz\n")).unwrap_err();
    assert_eq!((e.code, e.message.starts_with("line 2")), (Code::BadFile, true));
    let e = read_envelopes(&format!("{order}\n0a00\n")).unwrap_err();
    assert!(e.message.starts_with("line 2"), "{e}");
}
