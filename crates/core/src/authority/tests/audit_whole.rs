//! What the audit says of an authority's shards and its log side by side: each thing that they must agree on, and no other.

use std::collections::BTreeMap;

use super::*;
use crate::authority::audit::{Calls, Flow, Known, ShardAudit, audit_authority, money, notes};
use crate::authority::state::LOG;
use crate::ordered::audit::{CallerAudit, LogAudit};

const PBTX: u64 = 500;

/// Members whose hashes are powers of two, so that no two sets have the same sum.
fn flow(members: &[(u32, i128)]) -> Flow {
    let mut flow = Flow::default();
    members.iter().for_each(|(bit, amount)| flow.merge(&Flow { count: 1, amount: *amount, hash: 1 << bit }));
    flow
}

struct Whole {
    shards: [(u32, ShardAudit); 2],
    log: LogAudit,
}

impl Whole {
    fn findings(&self) -> Vec<String> {
        audit_authority(&self.shards, Some(&self.log))
    }

    fn shard(&mut self, at: usize) -> &mut ShardAudit {
        &mut self.shards[at].1
    }

    fn caller(&mut self, actor: u64) -> &mut CallerAudit {
        self.log.callers.get_mut(&(NETWORK_ID, actor)).expect("a caller of the log")
    }
}

/// Two shards and a log that agree, with money on every way between them. If `lags`, shard 0 has not applied the last
/// delivery of the log.
fn agreed(lags: bool) -> Whole {
    let mut near = ShardAudit { balances: -309, issued: 1_000, genesis: 400, ..Default::default() };
    let mut far = ShardAudit { balances: 201, genesis: 600, ..Default::default() };
    let mut log = LogAudit { network_id: NETWORK_ID, received: 70, ..Default::default() };
    log.held = vec![("contracts", 20), ("bridge", 31)];
    (near.notes, far.notes) = (vec![(3, 1), (5, 2), (0, 0), (2, 1)], vec![(1, 0), (0, 1)]);

    // From shard 0 to shard 1: two have arrived, of which one is not acknowledged, and two are on their way.
    near.sent.insert(1, flow(&[(0, 3), (1, 4), (2, 7), (3, 11)]));
    near.links.insert(1, (1, 4));
    near.outbox = BTreeMap::from([((1, 2), flow(&[(1, 4)])), ((1, 3), flow(&[(2, 7)])), ((1, 4), flow(&[(3, 11)]))]);
    far.received.insert(0, flow(&[(0, 3), (1, 4)]));
    far.applied.insert(0, 2);
    // Back: one, which has not arrived.
    far.sent.insert(0, flow(&[(4, 5)]));
    far.links.insert(0, (0, 1));
    far.outbox.insert((0, 1), flow(&[(4, 5)]));
    near.applied.insert(1, 0);
    // To the log and back.
    near.sent.insert(LOG, flow(&[(5, 50)]));
    far.sent.insert(LOG, flow(&[(6, 30)]));
    log.sent = BTreeMap::from([(0, flow(&[(7, 6), (8, 9)])), (1, flow(&[(9, 4)]))]);
    log.links = BTreeMap::from([(0, (1, 3)), (1, (1, 1))]);
    log.outbox = BTreeMap::from([((0, 2), flow(&[(7, 6)])), ((0, 3), flow(&[(8, 9)]))]);
    near.received.insert(LOG, if lags { flow(&[(7, 6)]) } else { flow(&[(7, 6), (8, 9)]) });
    near.balances += if lags { 0 } else { 9 };
    far.received.insert(LOG, flow(&[(9, 4)]));
    (near.applied, far.applied) =
        (BTreeMap::from([(1, 0), (LOG, if lags { 2 } else { 3 })]), BTreeMap::from([(0, 2), (LOG, 1)]));

    // CALLs, actor by actor; even ones are of shard 0.
    let calls = |last, settled: &[(u32, i128)]| Calls { last, settled: flow(settled) };
    let id = |actor| (NETWORK_ID, actor);
    // The shard is ahead.
    near.calls.insert(id(10), calls(5, &[(10, 1), (11, 2), (12, 4)]));
    near.calls_kept.insert((id(10), 5), flow(&[(12, 4)]));
    // The log does not know it.
    near.calls.insert(id(12), calls(1, &[(13, 1)]));
    near.calls_kept.insert((id(12), 1), flow(&[(13, 1)]));
    // The log is ahead.
    far.calls.insert(id(11), calls(4, &[(14, 1)]));
    // Neither is.
    far.calls.insert(id(15), calls(8, &[(15, 1)]));
    // The log is so far ahead that it does not know one by one what it is ahead by, or just not so far.
    near.calls.insert(id(14), calls(20, &[(16, 1)]));
    near.calls.insert(id(16), calls(50, &[(17, 1)]));
    let caller = |last, settled: &[(u32, i128)], newest: &[(u32, u32, i128)]| CallerAudit {
        calls: calls(last, settled),
        newest: newest.iter().map(|(seqnum, bit, amount)| (*seqnum, flow(&[(*bit, *amount)]))).collect(),
        ..Default::default()
    };
    log.callers = BTreeMap::from([
        (id(10), CallerAudit { voided: vec![4], recovered: 4, ..caller(3, &[(10, 1), (11, 2)], &[(3, 11, 2)]) }),
        (id(11), caller(9, &[(14, 1), (18, 2), (19, 4)], &[(4, 14, 1), (7, 18, 2), (9, 19, 4)])),
        (id(13), caller(2, &[(20, 8)], &[(2, 20, 8)])),
        (id(14), caller(60, &[(16, 1), (21, 1), (22, 1)], &[(51, 21, 1), (60, 22, 1)])),
        (id(15), caller(8, &[(15, 1)], &[(8, 15, 1)])),
        (id(16), caller(60, &[(17, 1), (23, 1)], &[(50, 17, 1), (60, 23, 1)])),
        // Of PBTX networks it knows orders that shards count in another way.
        ((PBTX, 1), caller(4, &[(24, 1)], &[])),
        ((PBTX, 2), caller(4, &[(25, 1)], &[])),
        ((PBTX, 3), caller(4, &[(26, 1)], &[])),
        ((PBTX, 4), caller(9, &[(27, 1)], &[])),
    ]);
    near.pbtx_calls = BTreeMap::from([
        ((PBTX, 1), (7, true)),
        ((PBTX, 2), (7, false)),
        ((PBTX, 3), (4, true)),
        ((PBTX, 4), (3, true)),
    ]);
    near.pbtx_kept = [(1, 5), (1, 6), (1, 7), (2, 7)].into_iter().map(|(actor, s)| ((PBTX, actor), s)).collect();

    near.bearers = flow(&[(28, 5), (29, 6), (30, 7)]);
    near.bearers_kept = flow(&[(29, 6), (30, 7)]);
    log.bearers = flow(&[(28, 5)]);

    let mut known = Known::default();
    known.add((PBTX, 0), b"network");
    known.add((PBTX, 1), b"actor");
    near.registry = known;
    log.registry.insert(0, known);

    log.recoveries = BTreeMap::from([(id(10), 6), (id(11), 8)]);
    near.frozen.insert(id(10), 6);
    far.frozen.insert(id(11), 8);
    near.voided.insert(id(10), vec![2, 4]);
    log.note_recoveries.insert(vec![1]);
    near.frozen_notes.insert(vec![1]);
    log.freed_notes.insert(vec![2], 3);
    near.freed_notes.insert(vec![2], 3);
    Whole { shards: [(0, near), (1, far)], log }
}

#[test]
fn money_is_counted_where_it_is() {
    let whole = agreed(true);
    let sums = |log| {
        let m = money(&whole.shards, log);
        (m.accounts, m.notes, m.between_shards, m.to_log, m.from_log, m.held.clone(), m.sum())
    };
    assert_eq!(sums(Some(&whole.log)), (-108, 15, 23, 10, 9, vec![("contracts", 20), ("bridge", 31)], 0));
    assert_eq!(sums(None), (-108, 15, 23, 70, 0, vec![], 0));
    let arrived = agreed(false);
    assert_eq!(money(&arrived.shards, Some(&arrived.log)).from_log, 0);
    assert_eq!(notes(&whole.shards), [(4, 1), (5, 3), (0, 0), (2, 1)]);
    let [a, b] = whole.shards;
    assert_eq!(notes(&[b, a]), [(4, 1), (5, 3), (0, 0), (2, 1)]);
}

#[test]
fn what_agrees_has_no_findings() {
    for lags in [false, true] {
        let whole = agreed(lags);
        assert_eq!(whole.findings(), [] as [String; 0]);
        assert_eq!(audit_authority(&whole.shards, None), [] as [String; 0]);
    }
}

/// Changes one thing, and expects exactly these findings.
fn found(change: impl FnOnce(&mut Whole), expected: &[&str]) {
    let mut whole = agreed(false);
    change(&mut whole);
    assert_eq!(whole.findings(), expected);
}

#[test]
fn money_that_is_made_or_lost() {
    let of_all = "balances and money in flight of all shards: expected 0, found";
    found(|w| w.shard(0).balances += 1, &[&format!("{of_all} 1")]);
    found(|w| w.shard(1).balances -= 2, &[&format!("{of_all} -2")]);
    found(|w| w.shard(1).notes[1].1 += 1, &[&format!("{of_all} -2")]);
    found(|w| w.shard(0).notes[3].0 += 1, &[&format!("{of_all} 8")]);
    found(|w| w.log.held[1].1 += 3, &[&format!("{of_all} 3")]);
    found(|w| w.log.received += 3, &[&format!("{of_all} -3")]);
    found(|w| w.shard(0).genesis += 1, &["credited by the genesis file: expected 1000 as issued, found 1001"]);
    found(|w| w.shard(1).issued += 1, &["credited by the genesis file: expected 1001 as issued, found 1000"]);
}

#[test]
fn deliveries_that_were_lost_changed_or_invented() {
    let hash = |bits: &[u32]| format!("(set {:032x})", bits.iter().map(|b| 1_u128 << b).sum::<u128>());
    let all = format!("shard 0 to shard 1: expected 4 credits of 25 minor units {} as sent", hash(&[0, 1, 2, 3]));
    let found_ = |count: u32, amount: u32, bits: &[u32]| {
        format!("{all}, found {count} credits of {amount} minor units {} received or in flight", hash(bits))
    };
    let lost = |amount: i32| format!("balances and money in flight of all shards: expected 0, found {amount}");
    let gone = |w: &mut Whole| {
        w.shard(0).outbox.remove(&(1, 3));
    };
    found(gone, &[&found_(3, 18, &[0, 1, 3]), &lost(-7)]);
    // Of what has arrived the copy that is kept counts for nothing.
    found(
        |w| {
            w.shard(0).outbox.remove(&(1, 2));
        },
        &[],
    );
    let other = |w: &mut Whole| {
        w.shard(1).received.insert(0, flow(&[(0, 3), (5, 4)]));
    };
    found(other, &[&found_(4, 25, &[0, 5, 2, 3])]);
    let again = |w: &mut Whole| {
        w.shard(1).applied.insert(0, 1);
    };
    found(again, &[&found_(5, 29, &[0, 1, 1, 2, 3]), &lost(4)]);
    // Links: what is acknowledged has been applied, and what is applied has been sent.
    let range = |from: &str, link: &str, applied: u32| {
        format!("{from}: expected delivery {link} as the last applied, found {applied}")
    };
    found(|w| w.shard(0).links.get_mut(&1).unwrap().0 = 2, &[]);
    found(|w| w.shard(0).links.get_mut(&1).unwrap().0 = 3, &[&range("shard 0 to shard 1", "3 to 4", 2)]);
    found(|w| w.shard(0).links.get_mut(&1).unwrap().1 = 2, &[]);
    found(|w| w.shard(0).links.get_mut(&1).unwrap().1 = 1, &[&range("shard 0 to shard 1", "1 to 1", 2)]);
    found(|w| w.log.links.get_mut(&0).unwrap().0 = 4, &[&range("the log to shard 0", "4 to 3", 3)]);
    // Of the log.
    let sent = format!("the log to shard 1: expected 1 credits of 4 minor units {} as sent", hash(&[9]));
    let none = format!("{sent}, found 0 credits of 0 minor units {} received or in flight", hash(&[]));
    found(
        |w| {
            w.shard(1).received.remove(&LOG);
        },
        &[&none],
    );
}

#[test]
fn calls_that_shard_and_log_do_not_agree_on() {
    let hash = |bits: &[u32]| format!("(set {:032x})", bits.iter().map(|b| 1_u128 << b).sum::<u128>());
    let calls = |count: u32, amount: i32, bits: &[u32]| format!("{count} CALLs of {amount} minor units {}", hash(bits));
    let not_kept = |actor: u32, expected: String, found: String| {
        format!("shard 0 to the log, actor {actor}: expected {expected} as settled and no longer kept, found {found}")
    };
    let ahead = |shard: u32, actor: u32, seqnum: u32, expected: String, found: String| {
        format!(
            "shard {shard}, actor {actor}: expected {expected} settled to seqnum {seqnum} as the log has them, found {found}"
        )
    };
    let forget = |w: &mut Whole| {
        w.shard(0).calls_kept.remove(&((NETWORK_ID, 10), 5));
    };
    found(forget, &[&not_kept(10, calls(3, 7, &[10, 11, 12]), calls(2, 3, &[10, 11]))]);
    let forget = |w: &mut Whole| {
        w.shard(0).calls_kept.remove(&((NETWORK_ID, 12), 1));
    };
    found(forget, &[&not_kept(12, calls(1, 1, &[13]), calls(0, 0, &[]))]);
    // One that the log has is not missing there, though it is still kept.
    let kept = |w: &mut Whole| {
        w.shard(0).calls_kept.insert(((NETWORK_ID, 10), 3), flow(&[(11, 2)]));
    };
    found(kept, &[]);
    let other = |w: &mut Whole| w.caller(15).calls.settled = flow(&[(31, 1)]);
    let text = "shard 1 to the log, actor 15: expected";
    let expected = format!("{text} {} as settled and no longer kept, found {}", calls(1, 1, &[15]), calls(1, 1, &[31]));
    found(other, &[&expected]);
    // Where the log is ahead, the shard has what the log has up to there.
    let other = |w: &mut Whole| w.shard(1).calls.get_mut(&(NETWORK_ID, 11)).unwrap().settled = flow(&[(31, 1)]);
    found(other, &[&ahead(1, 11, 4, calls(1, 1, &[14]), calls(1, 1, &[31]))]);
    let other = |w: &mut Whole| w.caller(13).newest[0].1 = flow(&[(31, 7)]);
    let rest = Flow { count: 0, amount: 1, hash: (1_u128 << 20).wrapping_sub(1 << 31) };
    let expected = format!("0 CALLs of 1 minor units (set {:032x})", rest.hash);
    found(other, &[&ahead(1, 13, 0, expected, calls(0, 0, &[]))]);
    // Unless the log does not know what.
    let other = |w: &mut Whole| w.shard(0).calls.get_mut(&(NETWORK_ID, 14)).unwrap().settled = flow(&[(31, 1)]);
    found(other, &[]);
    let all = |w: &mut Whole| w.caller(14).calls.settled = flow(&[(21, 1), (22, 1)]);
    found(all, &[&ahead(0, 14, 20, calls(0, 0, &[]), calls(1, 1, &[16]))]);
    let other = |w: &mut Whole| w.shard(0).calls.get_mut(&(NETWORK_ID, 16)).unwrap().settled = flow(&[(31, 1)]);
    found(other, &[&ahead(0, 16, 50, calls(1, 1, &[17]), calls(1, 1, &[31]))]);
    let longer = |w: &mut Whole| {
        let caller = w.caller(16);
        caller.calls.settled.merge(&flow(&[(32, 1)]));
        w.shard(0).calls.get_mut(&(NETWORK_ID, 16)).unwrap().settled = flow(&[(31, 1)]);
    };
    found(longer, &[&ahead(0, 16, 50, calls(2, 2, &[17, 32]), calls(1, 1, &[31]))]);
}

#[test]
fn orders_of_other_networks_that_are_kept_for_the_log_no_more() {
    let missing = |actor: u32, expected: u32, found: u32| {
        format!(
            "shard 0 to the log, network 500, actor {actor}: expected {expected} orders kept up to seqnum 7, found {found}"
        )
    };
    found(
        |w| {
            w.shard(0).pbtx_kept.remove(&((PBTX, 1), 6));
        },
        &[&missing(1, 3, 2)],
    );
    found(
        |w| {
            w.shard(0).pbtx_kept.remove(&((PBTX, 2), 7));
        },
        &[&missing(2, 1, 0)],
    );
    // What the log has already counts for nothing.
    let old = |w: &mut Whole| {
        w.shard(0).pbtx_kept.remove(&((PBTX, 1), 5));
        w.shard(0).pbtx_kept.insert(((PBTX, 1), 4));
    };
    found(old, &[&missing(1, 3, 2)]);
    found(
        |w| {
            w.shard(0).pbtx_kept.insert(((PBTX, 3), 9));
        },
        &[],
    );
    let unknown = |w: &mut Whole| {
        w.log.callers.remove(&(PBTX, 2));
    };
    found(unknown, &[]);
    let unknown = |w: &mut Whole| {
        w.log.callers.remove(&(PBTX, 1));
    };
    found(unknown, &[&missing(1, 7, 3)]);
}

#[test]
fn bearer_orders_are_in_the_log_or_kept_for_it() {
    let shown =
        |flow: &Flow| format!("{} bearer orders of {} minor units (set {:032x})", flow.count, flow.amount, flow.hash);
    let all = flow(&[(28, 5), (29, 6), (30, 7)]);
    let kept = flow(&[(29, 6), (30, 7)]);
    let expected = |found: &Flow| {
        let (all, kept, found) = (shown(&all), shown(&kept), shown(found));
        format!("shard 0 to the log: expected {all} as settled, less {kept} kept, found {found}")
    };
    for log in [
        all,
        // One of the two that are kept.
        flow(&[(28, 5), (30, 7)]),
        flow(&[(28, 5), (29, 6)]),
        // More of no worth than the other.
        flow(&[(28, 5), (29, 13)]),
    ] {
        found(|w| w.log.bearers = log, &[]);
    }
    for log in [
        // None of them, and one that nobody keeps.
        Flow::default(),
        flow(&[(28, 5), (29, 6), (31, 7)]),
        flow(&[(28, 5), (29, 6), (30, 8)]),
        flow(&[(31, 5)]),
        flow(&[(28, 6)]),
        // One of the two, which are not worth as much together.
        flow(&[(28, 5), (30, 0)]),
        flow(&[(28, 5), (30, 14)]),
        flow(&[(28, 5), (29, 6), (30, 7), (31, 0)]),
    ] {
        found(|w| w.log.bearers = log, &[&expected(&log)]);
    }
    // Other shards have none, and say nothing of them.
    found(|w| w.shard(1).bearers = flow(&[(31, 1)]), &[]);
}

#[test]
fn networks_recoveries_and_freed_notes_are_as_the_log_has_decided() {
    type Change = fn(&mut Whole);
    let cases: [(Change, &str); 13] = [
        (
            |w| w.shard(0).registry.add((PBTX, 2), b"actor"),
            "shard 0: expected 2 networks and actors as the log knows them, found 3, or others",
        ),
        (
            |w| {
                let mut other = Known::default();
                other.add((PBTX, 0), b"network");
                other.add((PBTX, 1), b"another");
                w.shard(0).registry = other;
            },
            "shard 0: expected 2 networks and actors as the log knows them, found 2, or others",
        ),
        (
            |w| {
                w.shard(0).frozen.clear();
            },
            "shard 0: expected accounts [((77, 10), 6)] as frozen, found {}",
        ),
        (
            |w| {
                w.shard(1).frozen.insert((NETWORK_ID, 11), 9);
            },
            "shard 1: expected accounts [((77, 11), 8)] as frozen, found {(77, 11): 9}",
        ),
        (
            |w| {
                w.log.recoveries.remove(&(NETWORK_ID, 10));
            },
            "shard 0: expected accounts [] as frozen, found {(77, 10): 6}",
        ),
        (
            |w| {
                w.shard(0).frozen_notes.insert(vec![9]);
            },
            "shard 0: expected (1, 1) notes as frozen and freed as the log knows them, found (2, 1), or others",
        ),
        (
            |w| {
                w.shard(0).freed_notes.insert(vec![2], 4);
            },
            "shard 0: expected (1, 1) notes as frozen and freed as the log knows them, found (1, 1), or others",
        ),
        (
            |w| {
                w.log.note_recoveries.clear();
            },
            "shard 0: expected (0, 1) notes as frozen and freed as the log knows them, found (1, 1), or others",
        ),
        (
            |w| w.caller(10).recovered = 3,
            "shard 0, actor 10: expected a recovery at 4 in the log, found the last one at 3",
        ),
        (
            |w| {
                w.shard(1).voided.insert((NETWORK_ID, 17), vec![1, 2]);
            },
            "shard 1, actor 17: expected a recovery at 2 in the log, found the last one at 0",
        ),
        (|w| w.caller(10).voided.push(2), ""),
        (|w| w.caller(10).voided.push(3), "shard 0, actor 10: expected seqnum 3 voided, found it is not"),
        (|w| w.caller(11).voided.push(7), "shard 1, actor 11: expected seqnum 7 voided, found it is not"),
    ];
    for (change, expected) in cases {
        let expected: Vec<&str> = Some(expected).filter(|e| !e.is_empty()).into_iter().collect();
        found(change, &expected);
        // A shard that lags has not heard of it yet.
        let mut whole = agreed(true);
        change(&mut whole);
        let of_other: Vec<&str> = expected.into_iter().filter(|e| e.starts_with("shard 1")).collect();
        assert_eq!(whole.findings(), of_other);
    }
    // Of notes only shard 0 is asked.
    found(
        |w| {
            w.shard(1).frozen_notes.insert(vec![9]);
        },
        &[],
    );
}

#[test]
fn a_set_of_members_tells_every_part_of_each_of_them() {
    use crate::wire::credit_entry::Kind;
    let note = Flow::note(b"nonce", b"order");
    assert_eq!((note.count, note.amount), (1, 0));
    assert_ne!(note, Flow::note(b"nonc", b"eorder"));
    assert_ne!(note, Flow::note(b"nonce", b"other"));
    let call = Flow::call(1, 2, 3, b"id", 4);
    assert_eq!((call.count, call.amount), (1, 4));
    for other in
        [(2, 2, 3, b"id", 4), (1, 3, 3, b"id", 4), (1, 2, 4, b"id", 4), (1, 2, 3, b"io", 4), (1, 2, 3, b"id", 5)]
    {
        assert_ne!(Flow::call(other.0, other.1, other.2, other.3, other.4).hash, call.hash);
    }
    let credit = |kind: Kind, address: &[u8], amount, output| {
        let mut flow = Flow::default();
        flow.add(address, amount, &wire::CreditEntry { kind: kind as i32, output, ..Default::default() });
        flow
    };
    let paid = credit(Kind::Payment, b"address", 5, 0);
    let back = credit(Kind::Reversed, b"address", 5, 0);
    assert_eq!([(paid.count, paid.amount), (back.count, back.amount)], [(1, 5), (1, -5)]);
    for other in [back, credit(Kind::Payment, b"addres", 5, 0), credit(Kind::Payment, b"address", 5, 1)] {
        assert_ne!(other.hash, paid.hash);
    }
    let mut both = paid;
    both.merge(&back);
    assert_eq!((both.count, both.amount, both.without(&back)), (2, 0, paid));
}
