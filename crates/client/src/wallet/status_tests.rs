use bytes::Bytes;
use florin_core::testing::TestCommittee;
use florin_core::{Code, Error, wire};

use super::*;

fn said(state: State, id: &'static [u8], session: u64) -> wire::OrderStatus {
    let order_id = Bytes::from_static(id);
    wire::OrderStatus { state: state as i32, order_id, session, calls: true, ..Default::default() }
}

fn agree(replies: [Option<wire::OrderStatus>; 4]) -> Result<Status> {
    let (committee, _) = TestCommittee::new(4, 1).build();
    let down = || Error::new(Code::Unreachable, "connection refused");
    agree_status(&committee, &replies.map(|r| r.ok_or_else(down)))
}

#[test]
fn no_authority_is_believed_alone_about_an_order() {
    let (settled, ordered) = (said(State::Settled, b"a", 0), said(State::Ordered, b"a", 3));
    // One lies that it is ordered.
    let status = agree([Some(ordered.clone()), Some(settled.clone()), Some(settled.clone()), None]).unwrap();
    assert_eq!((status.said.state(), status.agreeing, status.others.len()), (State::Settled, 2, 2));
    // Two lag: what two others know is further.
    let two = [Some(settled.clone()), Some(ordered.clone()), Some(settled.clone()), Some(ordered.clone())];
    assert_eq!(agree(two).unwrap().said, ordered);
    // Another place, another order, another reason: they do not agree.
    let failed = |code: u32| wire::OrderStatus { code, ..said(State::Failed, b"a", 3) };
    for other in [said(State::Ordered, b"a", 4), said(State::Ordered, b"b", 3), failed(0), failed(406)] {
        let error = agree([Some(ordered.clone()), Some(other), None, None]).unwrap_err();
        assert_eq!(error.code, Code::Undecided);
    }
    let alone = agree([Some(ordered), None, None, None]).unwrap_err();
    assert_eq!(alone.code, Code::QuorumUnreachable);
}

#[test]
fn orders_that_split_the_votes_are_shown() {
    let (a, b) = (said(State::Pending, b"a", 0), said(State::Pending, b"b", 0));
    let status = agree([Some(a.clone()), Some(b.clone()), Some(b.clone()), Some(a)]).unwrap();
    assert_eq!((status.said.state(), status.agreeing, status.rivals.len()), (State::Pending, 4, 2));
    let one = agree([Some(b.clone()), Some(b), None, Some(said(State::Unknown, b"", 0))]).unwrap();
    assert_eq!((one.said.state(), one.rivals.len()), (State::Pending, 1));
}

#[test]
fn it_is_known_when_nothing_more_can_happen() {
    use State::*;
    for state in [Unknown, Pending, Certified, Settled, Ordered, Failed, Void] {
        assert_eq!(is_decided(&said(state, b"a", 0)), matches!(state, Ordered | Failed | Void), "{state:?}");
    }
    let payment = wire::OrderStatus { calls: false, ..said(Settled, b"a", 0) };
    assert!(is_decided(&payment));
}

#[test]
fn the_spending_state_is_the_newest_that_an_honest_one_gives() {
    let (committee, _) = TestCommittee::new(4, 1).build();
    let reply = |seqnum, prev_hash, last_call, frozen| {
        Ok(wire::AccountReply { seqnum, prev_hash, last_call, frozen, ..Default::default() })
    };
    let state = |replies: &[Result<wire::AccountReply>]| newest_state(&committee, replies);
    let newest = state(&[reply(9, 9, 9, 9), reply(2, 7, 1, 0), reply(2, 7, 1, 0), reply(1, 5, 0, 0)]).unwrap();
    assert_eq!((newest.seqnum, newest.prev_hash, newest.last_call, newest.frozen), (2, 7, Some(1), 0));
    // One has voted for a CALL and tells that one's number; then the others count.
    let voted = state(&[reply(2, 7, 3, 0), reply(2, 7, 1, 0), reply(2, 7, 1, 3), reply(2, 7, 3, 3)]).unwrap();
    assert_eq!((voted.last_call, voted.frozen, voted.agreeing), (Some(1), 3, 4));
    let unsure = state(&[reply(2, 7, 3, 0), reply(2, 7, 1, 0), reply(2, 7, 3, 0)]).unwrap();
    assert_eq!(unsure.last_call, None);
    assert!(state(&[reply(2, 7, 0, 0), reply(2, 8, 0, 0), reply(3, 7, 0, 0)]).is_none());
}
