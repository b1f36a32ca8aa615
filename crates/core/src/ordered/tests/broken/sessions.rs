//! Sessions, and the record of totals.

use super::*;
use crate::limits::SESSION_ROUNDS;
use crate::ordered::input::Input;
use crate::ordered::session::{SIGNED_KEY, record};

/// Three sessions that are closed, with as many signatures as given, and an open one.
fn sessions(signatures: [usize; 3]) -> Broken {
    let (mut cluster, mut alice, bob) = setup(2);
    for signatures in signatures {
        let order = alice.call(vec![], vec![credit(&bob, 1)]);
        cluster.run_ordered(&[order]);
        let mut own = Vec::new();
        for log in &mut cluster.logs {
            let book = log.log.book(&log.state).unwrap();
            let (session, position, round) = (book.session, book.units, SESSION_ROUNDS);
            let data = Bytes::from_static(b"x");
            own.extend(log.step(Input::Unit { session, position, creator: 0, round, data }).unwrap().closed);
        }
        for (session, signature) in own.into_iter().skip(1).take(signatures - 1) {
            cluster.logs[0].step(Input::Signature { session, signature }).unwrap();
        }
    }
    Broken::of(&cluster)
}

fn session(broken: &mut Broken, number: u64, change: impl FnOnce(&mut wire::SignedSession)) {
    broken.change(Table::Sessions, &number.to_be_bytes(), |r: &mut wire::SessionRecord| {
        change(r.session.as_mut().unwrap());
    });
}

fn header(broken: &mut Broken, number: u64, change: impl FnOnce(&mut wire::SessionHeader)) {
    session(broken, number, |s| change(s.header.as_mut().unwrap()));
}

#[test]
fn sessions_that_a_quorum_has_signed_are_counted_up_to_the_first_gap() {
    for (signatures, signed) in [([3, 3, 3], 3), ([4, 4, 4], 3), ([3, 2, 4], 1), ([1, 3, 3], 0), ([4, 3, 2], 2)] {
        let mut broken = sessions(signatures);
        assert_eq!(broken.audit().findings, Vec::<String>::new(), "{signatures:?}");
        for found in [0, 1, 2, 3] {
            let write = Write::put(Table::Meta, SIGNED_KEY, u64::to_be_bytes(found));
            broken.state.apply(&[write]);
            let says = broken.says("sessions that a quorum has signed");
            assert_eq!(says, usize::from(found != signed), "{signatures:?}");
        }
    }
}

#[test]
fn what_is_wrong_with_a_session_is_named() {
    let clean = || sessions([3, 3, 3]);
    type Tamper = fn(&mut Broken);
    let cases: [(Tamper, &str); 17] = [
        (|b| session(b, 1, |s| drop(s.signatures.remove(0))), "session 1: expected this authority's signature"),
        (|b| header(b, 1, |h| h.session = 2), "session 1: number in its header: expected 1, found 2"),
        (|b| header(b, 1, |h| h.epoch += 1), "session 1: epoch: expected 1, found 2"),
        (|b| header(b, 1, |h| h.previous = Bytes::new()), "session 1: header before: "),
        (|b| header(b, 1, |h| h.units += 1), "session 1: units: "),
        (|b| header(b, 1, |h| h.units_root = Bytes::new()), "session 1: root of its units: "),
        (|b| header(b, 1, |h| h.time_ms += 1), "session 1: log time: expected 1000, found 1001"),
        (|b| header(b, 1, |h| h.shard_hashes = vec![Bytes::new()]), "session 1: whether it has what sessions do not"),
        (|b| header(b, 1, |h| h.next_committee = Bytes::from_static(b"x")), "session 1: whether it has what sessions"),
        (|b| header(b, 2, |h| h.time_ms += 1), "header that the open session follows"),
        (|b| header(b, 2, |h| h.state_hash = Bytes::new()), "state hash where no unit follows a header"),
        (|b| b.state.apply(&[Write::delete(Table::Sessions, 2_u64.to_be_bytes())]), "session 2: expected its header"),
        (|b| b.state.apply(&[Write::delete(Table::Units, unit_key(0, 1))]), "session 0: expected unit 1 next"),
        (
            |b| {
                b.state.apply(&[Write::put(Table::Units, unit_key(4, 0), wire::OrderedUnit::default().encode_to_vec())])
            },
            "units or sessions after the open one",
        ),
        (|b| b.state.apply(&[record(9, wire::SignedSession::default())]), "units or sessions after the open one"),
        (|b| b.unit(Some((0, 1_000)), vec![]), "units of the open session: expected 0, found 1"),
        (|b| b.unit(Some((0, 1_000)), vec![]), "bytes of the open session: expected 0, found 9"),
    ];
    for (tamper, says) in cases {
        let mut broken = clean();
        assert_eq!(broken.says(says), 0, "{says}");
        tamper(&mut broken);
        assert_eq!(broken.says(says), 1, "{says}: {:?}", broken.audit().findings);
    }
    let mut broken = clean();
    broken.place = (3, 0);
    let (creator, data) = (4, Bytes::new());
    let unit = wire::OrderedUnit { creator, data }.encode_to_vec();
    broken.state.apply(&[Write::put(Table::Units, unit_key(3, 0), unit)]);
    assert_eq!(broken.says("unit (3, 0): expected an authority of the committee, found 4"), 1);
}

#[test]
fn signatures_are_verified_where_that_is_asked_for() {
    let mut broken = sessions([3, 3, 3]);
    session(&mut broken, 1, |s| s.signatures[1].signature = Bytes::from_static(&[1; 64]));
    assert!(broken.audit().is_clean());
    let audit = audit_log(&broken.log, &broken.state, true).unwrap();
    let [found] = &audit.findings[..] else { panic!("{:?}", audit.findings) };
    assert!(found.starts_with("log: session 1: ") && found.contains("does not verify"), "{found}");
    assert!(!audit.is_clean());
}

/// Each of the totals is held to what the units say, whatever else is.
#[test]
fn each_total_that_is_off_is_named() {
    let more = |bytes: &mut Bytes| {
        let mut sum = bytes.to_vec();
        sum.resize(16, 0);
        sum[0] = sum[0].wrapping_add(1);
        *bytes = sum.into();
    };
    type Tamper = Box<dyn Fn(&mut wire::LogRecord)>;
    let cases: Vec<(Tamper, &[&str])> = vec![
        (Box::new(|r| r.time_ms += 1), &["log: totals: "]),
        (Box::new(|r| r.clocks[2] += 1), &["log: totals: "]),
        (Box::new(move |r| more(&mut r.received)), &["log: totals: "]),
        (Box::new(move |r| more(&mut r.sent)), &["log: totals: "]),
        (Box::new(move |r| more(&mut r.contracts)), &["log: totals: ", "log: contracts: minor units as booked"]),
        (Box::new(move |r| more(&mut r.channels)), &["log: totals: ", "log: channels: minor units as booked"]),
        (Box::new(move |r| more(&mut r.primary)), &["log: totals: ", "log: bridge: minor units as booked"]),
        (Box::new(|r| r.deposits += 1), &["log: totals: "]),
        (Box::new(|r| r.redeems += 1), &["log: totals: "]),
        (Box::new(|r| r.last_redeem = Bytes::from_static(b"x")), &["log: totals: "]),
        (Box::new(|r| r.orders += 1), &["log: totals: "]),
        (Box::new(|r| r.open_recoveries += 1), &["log: totals: "]),
        (Box::new(|r| r.units += 1), &["log: units of the open session: "]),
        (Box::new(|r| r.bytes += 1), &["log: bytes of the open session: "]),
        (Box::new(|r| r.previous = Bytes::from_static(b"x")), &["log: header that the open session follows: "]),
    ];
    let (mut cluster, mut alice, bob) = setup(2);
    let order = alice.call(vec![], vec![credit(&bob, 1), fund(10, 5_000, &alice.clone(), &bob)]);
    cluster.run_ordered(&[order]);
    assert!(Broken::of(&cluster).audit().is_clean());
    for (i, (tamper, says)) in cases.into_iter().enumerate() {
        let mut broken = Broken::of(&cluster);
        broken.change(Table::Meta, BOOK_KEY, |r: &mut wire::LogRecord| tamper(r));
        let findings = broken.audit().findings;
        let all = findings.len() == says.len() && says.iter().all(|says| findings.iter().any(|f| f.starts_with(says)));
        assert!(all, "case {i}: {findings:?}");
    }
}

/// No more than a hundred findings are written out; all are counted.
#[test]
fn findings_are_counted_and_the_first_hundred_shown() {
    for wrong in [1, 99, 100, 101, 150] {
        let mut broken = Broken::new();
        for _ in 0..wrong {
            let unit = wire::OrderedUnit { creator: 9, data: Bytes::new() };
            broken.state.apply(&[Write::put(Table::Units, unit_key(0, broken.place.1), unit.encode_to_vec())]);
            broken.place.1 += 1;
        }
        broken.change(Table::Meta, BOOK_KEY, |r: &mut wire::LogRecord| r.units += wrong);
        let audit = broken.audit();
        assert_eq!((audit.findings_total, audit.findings.len()), (u64::from(wrong), wrong.min(100) as usize));
        assert!(!audit.is_clean());
    }
}

/// Seven clocks that differ: log time is the fourth of them, which three may be ahead of.
#[test]
fn log_time_is_the_lower_median_of_all_clocks() {
    for (authorities, clocks, time_ms) in
        [(7, vec![5, 7, 1, 9, 3, 8, 2], 5), (4, vec![9, 5, 7, 6], 6), (10, (1..=10).collect(), 5)]
    {
        let mut cluster = Cluster::new(&TestCommittee::new(authorities, 1));
        for (authority, clock) in (0..).zip(clocks) {
            cluster.order_items(authority, clock * 1_000, vec![]);
        }
        let log = &cluster.logs[0];
        assert_eq!(log.log.book(&log.state).unwrap().time_ms, time_ms * 1_000);
        assert_eq!(Broken::of(&cluster).audit().findings, Vec::<String>::new(), "{authorities}");
    }
}
