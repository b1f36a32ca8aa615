use florin_core::testing::TestCommittee;
use florin_core::wire;

use super::*;

fn state(seqnum: u32, frozen: u32) -> AccountState {
    AccountState { seqnum, prev_hash: 7, last_call: Some(0), frozen, agreeing: 3 }
}

fn said(states: &[(State, &'static str)]) -> Vec<Result<wire::OrderStatus>> {
    let reply = |(state, id): &(State, &'static str)| wire::OrderStatus {
        state: *state as i32,
        order_id: Bytes::from_static(id.as_bytes()),
        ..Default::default()
    };
    states.iter().map(|s| Ok(reply(s))).collect()
}

#[test]
fn only_what_cannot_change_any_more_is_taken_for_a_decision() {
    use State::*;
    let (committee, _) = TestCommittee::new(4, 1).build();
    let at = |state: AccountState, states: &[(State, &'static str)]| stage(&committee, 2, Some(&state), &said(states));
    // Votes are split; the log has nothing yet.
    let split = [(Pending, "a"), (Pending, "b"), (Pending, "a"), (Pending, "b")];
    assert_eq!(at(state(1, 0), &split), Stage::Handed);
    assert_eq!(at(state(1, 2), &split), Stage::Frozen);
    // One honest authority settled it alone, and a liar says the same: the log may still void it.
    let alone = [(Settled, "a"), (Settled, "a"), (Pending, "b"), (Pending, "b")];
    assert_eq!(at(state(1, 0), &alone), Stage::Handed);
    assert_eq!(at(state(2, 2), &alone), Stage::Frozen);
    let settled = [(Settled, "a"), (Ordered, "a"), (Failed, "a"), (Pending, "b")];
    assert_eq!(at(state(2, 0), &settled), Stage::Settled(Bytes::from_static(b"a")));
    // One alone says that it is void; then an honest one does, and its account has moved on.
    let liar = [(Void, ""), (Pending, "a"), (Pending, "b"), (Pending, "b")];
    assert_eq!(at(state(1, 0), &liar), Stage::Handed);
    let void = [(Void, ""), (Void, ""), (Pending, "b"), (Pending, "b")];
    assert_eq!(at(state(1, 0), &void), Stage::Handed, "the account's state is not there yet");
    assert_eq!(at(state(2, 0), &void), Stage::Void);
    assert_eq!(stage(&committee, 2, None, &said(&void)), Stage::Handed);
}
