use florin_core::testing::TestCommittee;
use florin_core::wire::note_state::State::{self, Free, Frozen, Locked, Spent};

use super::*;

fn said(state: State, order: &'static [u8], recoveries: u32) -> wire::NoteState {
    wire::NoteState { state: state as i32, order_id: Bytes::from_static(order), recoveries }
}

#[test]
fn no_authority_is_believed_alone_about_a_note() {
    let (committee, _) = TestCommittee::new(4, 1).build();
    let ask = |states: &[wire::NoteState]| agree(&committee, &states.iter().collect::<Vec<_>>()).unwrap();
    let free = || said(Free, b"", 0);
    // One lies that it is spent.
    assert_eq!(ask(&[said(Spent, b"a", 0), free(), free()]).state, Free);
    // Two have settled what the others have not heard of.
    let spent = ask(&[said(Spent, b"a", 0), said(Spent, b"a", 0), said(Locked, b"a", 0), free()]);
    assert_eq!((spent.state, &spent.order_id[..]), (Spent, &b"a"[..]));
    // By two different orders: that is not agreement.
    assert_eq!(ask(&[said(Spent, b"a", 0), said(Spent, b"b", 0), free(), free()]).state, Free);
    assert_eq!(ask(&[said(Locked, b"a", 0), said(Locked, b"b", 0), free()]).state, Locked);
    assert_eq!(ask(&[said(Frozen, b"", 0), said(Frozen, b"", 0), said(Locked, b"a", 0)]).state, Frozen);
    // Freed once, say two; one has not heard, one lies.
    let freed = ask(&[said(Free, b"", 1), said(Free, b"", 1), free(), said(Free, b"", 9)]);
    assert_eq!((freed.state, freed.recoveries), (Free, 1));
    let alone = agree(&committee, &[&free()]).unwrap_err();
    assert_eq!(alone.code, Code::QuorumUnreachable);
}

#[test]
fn what_others_spent_is_noted_by_order() {
    let spent = [(1u8, b"b"), (2, b"a"), (3, b"b")].map(|(n, by)| (Hex32([n; 32]), Bytes::from_static(by)));
    let records = spent_by(spent.into_iter());
    assert_eq!(records.len(), 2);
    assert!(matches!(&records[1], Record::Spent { notes, by } if notes.len() == 2 && by == "62"));
}
