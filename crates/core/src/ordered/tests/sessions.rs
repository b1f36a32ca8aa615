//! Sessions: where they end, what a quorum signs, and how an authority that was away comes back with it.

use prost::Message;

use super::*;
use crate::limits::{SESSION_BYTES_MAX, SESSION_ROUNDS, UNIT_BYTES_MAX};
use crate::ordered::input::Input;
use crate::ordered::session;

/// The next unit, at every log, in a round of the engine. Returns the logs' signatures if it ended the session.
fn unit(cluster: &mut Cluster, round: u32, data: &Bytes) -> Vec<(u64, wire::Signed)> {
    let logs = cluster.logs.iter_mut();
    let ended = logs.filter_map(|log| {
        let book = log.log.book(&log.state).unwrap();
        let (session, position) = (book.session, book.units);
        log.step(Input::Unit { session, position, creator: 1, round, data: data.clone() }).unwrap().closed
    });
    ended.collect()
}

/// Ends the open session everywhere, and hands the signatures around.
fn end(cluster: &mut Cluster) {
    let signatures = unit(cluster, SESSION_ROUNDS, &Bytes::from_static(b"x"));
    assert_eq!(signatures.len(), 4);
    share(cluster, &signatures);
}

fn share(cluster: &mut Cluster, signatures: &[(u64, wire::Signed)]) {
    for log in &mut cluster.logs {
        for (session, signature) in signatures {
            log.step(Input::Signature { session: *session, signature: signature.clone() }).unwrap();
        }
    }
}

/// Sessions that a quorum has signed, as one authority serves them.
fn served(cluster: &Cluster, authority: usize) -> Vec<(wire::SignedSession, Vec<wire::OrderedUnit>)> {
    let log = &cluster.logs[authority];
    let request = wire::SessionsRequest { from: 0, limit: 256 };
    let sessions = log.log.sessions(&log.state, &request).unwrap().sessions;
    let units = |session| {
        let mut units = Vec::new();
        loop {
            let request = wire::UnitsRequest { session, from: units.len() as u32 };
            let page = log.log.units(&log.state, &request).unwrap().units;
            if page.is_empty() {
                return units;
            }
            units.extend(page);
        }
    };
    (0..).zip(sessions).map(|(number, signed)| (signed, units(number))).collect()
}

#[test]
fn sessions_end_at_the_same_unit_everywhere_by_rounds() {
    let (mut cluster, _, _) = setup(1);
    let before = cluster.logs[0].log.book(&cluster.logs[0].state).unwrap();
    let data: Bytes = prost::Message::encode_to_vec(&wire::UnitData { clock_ms: 2_000, items: vec![] }).into();
    assert!(unit(&mut cluster, SESSION_ROUNDS - 1, &data).is_empty());
    let signatures = unit(&mut cluster, SESSION_ROUNDS, &data);
    assert_eq!(
        signatures.iter().map(|(s, signed)| (*s, signed.authority)).collect::<Vec<_>>(),
        [(0, 0), (0, 1), (0, 2), (0, 3)]
    );
    let log = &cluster.logs[2];
    let book = log.log.book(&log.state).unwrap();
    assert_eq!((book.session, book.units, book.bytes, book.time_ms), (1, 0, 0, before.time_ms), "it was not applied");
    // What comes late of a session that has ended changes nothing.
    let late = Input::Unit { session: 0, position: before.units + 1, creator: 1, round: SESSION_ROUNDS, data };
    assert!(cluster.logs[2].step(late).unwrap().writes.is_empty());
    check(&cluster, &[]);
}

#[test]
fn sessions_end_at_the_same_unit_everywhere_by_bytes() {
    let mut cluster = Cluster::new(&TestCommittee::new(4, 1));
    let clock = crate::ordered::item::pack(5, Vec::new()).remove(0);
    // As if much had been ordered.
    let left = clock.len() as u64;
    for log in &mut cluster.logs {
        let mut book = log.log.book(&log.state).unwrap();
        book.bytes = SESSION_BYTES_MAX - left;
        log.state.apply(&[Write::put(Table::Meta, super::super::book::BOOK_KEY, book.encode().encode_to_vec())]);
    }
    assert!(unit(&mut cluster, 1, &clock).is_empty());
    let ended = unit(&mut cluster, 1, &clock);
    assert_eq!(ended.len(), 4);
    share(&mut cluster, &ended);
    let sessions = served(&cluster, 3);
    assert_eq!(sessions.iter().map(|(_, units)| units.len()).collect::<Vec<_>>(), [1]);
}

#[test]
fn junk_and_repetitions_are_not_kept_and_history_leads_to_the_same_state() {
    let (mut cluster, mut alice, bob) = setup(1);
    let order = alice.call(vec![], vec![credit(&bob, 1)]);
    cluster.run(&[order]);
    let items = cluster.log_items(3);
    let kept = |cluster: &Cluster| cluster.logs[0].log.book(&cluster.logs[0].state).unwrap().bytes;
    let before = kept(&cluster);
    let junk = Bytes::from(vec![0xff; UNIT_BYTES_MAX]);
    // Padding in fields that nobody knows is junk as well, and so is what comes after a bad item.
    let padded: Bytes =
        wire::ContractReply { preimage: junk.slice(100..), ..Default::default() }.encode_to_vec().into();
    for creator in 0..4 {
        cluster.order(creator, &junk);
        cluster.order(creator, &padded);
        cluster.order_items(creator, 2_000, [vec![junk.slice(..50)], items.clone()].concat());
    }
    assert!(kept(&cluster) - before < 200, "{}", kept(&cluster) - before);
    assert_ne!(cluster.status(0, &alice, 1).state(), S::Ordered);
    for creator in 0..4 {
        cluster.order_items(creator, 0, items.clone());
    }
    assert_eq!(cluster.status(0, &alice, 1).state(), S::Ordered);
    assert!(kept(&cluster) - before < 200 + items[0].len() as u64 + 10);
    let ended = unit(&mut cluster, SESSION_ROUNDS, &junk);
    share(&mut cluster, &ended);
    cluster.order_all();
    check(&cluster, &[(&alice, 999), (&bob, 1_001)]);
    // One that only has what is kept comes to the same header.
    let mut late = Cluster::new(&TestCommittee::new(4, 1)).logs.remove(2);
    let (signed, units) = served(&cluster, 0).remove(0);
    session::verify(&cluster.committee, &signed, &units).unwrap();
    for (position, unit) in (0..).zip(units) {
        let (creator, data) = (unit.creator, unit.data);
        late.step(Input::Unit { session: 0, position, creator, round: 0, data }).unwrap();
    }
    late.step(Input::Close(signed)).unwrap();
}

#[test]
fn a_quorum_of_signatures_makes_a_session_known_and_fewer_do_not() {
    let (mut cluster, _, _) = setup(1);
    let signatures = unit(&mut cluster, SESSION_ROUNDS, &Bytes::from_static(b"x"));
    let known = |cluster: &Cluster| cluster.logs[0].log.status(&cluster.logs[0].state).unwrap().signed_sessions;
    assert_eq!(known(&cluster), 0);
    assert!(served(&cluster, 0).is_empty());
    share(&mut cluster, &signatures[1..2]);
    share(&mut cluster, &signatures[1..2]);
    assert_eq!(known(&cluster), 0, "two of four, one of them twice");
    share(&mut cluster, &signatures[3..]);
    assert_eq!(known(&cluster), 1);
    let (signed, units) = served(&cluster, 0).remove(0);
    let header = session::verify(&cluster.committee, &signed, &units).unwrap();
    assert_eq!((header.session, header.units, header.time_ms), (0, 4, 1_000));
    // Signatures of a later session may come first.
    let second = unit(&mut cluster, SESSION_ROUNDS, &Bytes::from_static(b"x"));
    let third = unit(&mut cluster, SESSION_ROUNDS, &Bytes::from_static(b"x"));
    share(&mut cluster, &third);
    assert_eq!(known(&cluster), 1);
    clean(&cluster, 0);
    share(&mut cluster, &second);
    assert_eq!(known(&cluster), 3);
    check(&cluster, &[]);
}

/// Some sessions with all kinds of things in them, the last one open.
fn history() -> (Cluster, Signer, Signer) {
    let (mut cluster, mut alice, bob) = setup(2);
    let order = alice.call(vec![], vec![fund(100, 5_000, &alice.clone(), &bob), credit(&bob, 1)]);
    cluster.run_ordered(&[order]);
    end(&mut cluster);
    end(&mut cluster);
    let redeem = wire::PrimaryRedeem { amount: 50, address: bytes(&alice) };
    let order = alice.call(vec![], vec![output::Kind::PrimaryRedeem(redeem)]);
    cluster.run_ordered(&[order]);
    let mut twin = alice.clone();
    let orders = [alice.pay(&[to(bob.address, 1)], ""), twin.pay(&[to(bob.address, 2)], "")];
    let shard = alice.address.shard(2);
    for i in 0..4 {
        cluster.node(i, shard).vote(&orders[i / 2..i / 2 + 1]).unwrap();
    }
    twin.seqnum -= 1;
    twin.prev_hash = cluster.node(0, shard).account(alice.actor()).prev_hash;
    cluster.run_ordered(&[twin.recover()]);
    end(&mut cluster);
    cluster.set_time(2_000 + RECOVERY_WAIT_MS);
    cluster.order_all();
    end(&mut cluster);
    (cluster, alice, bob)
}

#[test]
fn an_authority_that_was_away_comes_back_with_signed_sessions() {
    let (cluster, _, _) = history();
    check(&cluster, &[]);
    for from in 0..4 {
        let sessions = served(&cluster, from);
        assert_eq!(sessions.len(), 4);
        // It has nothing, or the first session, or half of the third one.
        for (kept, half) in [(0, 0), (1, 0), (2, 1)] {
            let mut back = LogNode {
                log: crate::ordered::OrderedLog::new(cluster.committee.clone(), 2, cluster.keys[2].clone()),
                state: MemState::default(),
            };
            for (number, (signed, units)) in (0_u64..).zip(&sessions) {
                let header = session::verify(&cluster.committee, signed, units).unwrap();
                assert_eq!(header.session, number);
                let from_engine = if number < kept { units.len() } else { half.min(units.len()) };
                for (position, unit) in (0..).zip(units) {
                    let (creator, data) = (unit.creator, unit.data.clone());
                    let round = u32::from(position < from_engine) * 5;
                    back.step(Input::Unit { session: number, position: position as u32, creator, round, data })
                        .unwrap();
                }
                if number < kept {
                    let (creator, round, data) = (0, SESSION_ROUNDS, Bytes::from_static(b"x"));
                    let position = units.len() as u32;
                    back.step(Input::Unit { session: number, position, creator, round, data }).unwrap();
                }
                back.step(Input::Close(signed.clone())).unwrap();
            }
            let there = &cluster.logs[2];
            assert_eq!(back.log.book(&back.state).unwrap(), there.log.book(&there.state).unwrap());
            for table in [Table::Objects, Table::Units] {
                assert!(back.state.iter(table).eq(there.state.iter(table)), "{}", table.name());
            }
            assert_eq!(back.log.status(&back.state).unwrap().signed_sessions, 4);
            let audit = audit_log(&back.log, &back.state, true).unwrap();
            assert_eq!(audit.findings, Vec::<String>::new());
            // What it has for its shards is what it had the first time.
            for shard in 0..2 {
                let (_, last) = back.log.outbox_range(&back.state, shard).unwrap();
                assert_eq!(last, there.log.outbox_range(&there.state, shard).unwrap().1);
            }
        }
    }
}

#[test]
fn forged_and_truncated_sessions_are_refused() {
    let (cluster, _, _) = history();
    let (signed, units) = served(&cluster, 0).remove(0);
    let committee = &cluster.committee;
    session::verify(committee, &signed, &units).unwrap();
    let with = |change: fn(&mut wire::SignedSession)| {
        let mut changed = signed.clone();
        change(&mut changed);
        code(session::verify(committee, &changed, &units))
    };
    assert_eq!(with(|s| s.signatures.truncate(2)), Code::NoQuorum);
    assert_eq!(with(|s| s.signatures[1] = s.signatures[0].clone()), Code::DuplicateSigner);
    assert_eq!(with(|s| s.header = None), Code::BadSession);
    assert_eq!(with(|s| s.signatures[0].bitmap = Bytes::from_static(&[1])), Code::BadBitmap);
    let header = |change: fn(&mut wire::SessionHeader)| {
        let mut changed = signed.clone();
        change(changed.header.as_mut().unwrap());
        code(session::verify(committee, &changed, &units))
    };
    assert_eq!(header(|h| h.session = 1), Code::BadSession);
    assert_eq!(header(|h| h.epoch = 2), Code::WrongEpoch);
    assert_eq!(header(|h| h.time_ms += 1), Code::BadSession);
    assert_eq!(header(|h| h.units -= 1), Code::BadSession);
    assert_eq!(header(|h| h.state_hash = Bytes::from_static(&[1; 32])), Code::BadSession);
    assert_eq!(header(|h| h.next_committee = Bytes::from_static(&[1])), Code::BadSession);
    let units_with = |change: fn(&mut Vec<wire::OrderedUnit>)| {
        let mut changed = units.clone();
        change(&mut changed);
        code(session::verify(committee, &signed, &changed))
    };
    assert_eq!(units_with(|u| drop(u.pop())), Code::BadSession);
    assert_eq!(units_with(|u| drop(u.remove(0))), Code::BadSession);
    assert_eq!(units_with(|u| u.clear()), Code::BadSession);
    assert_eq!(units_with(|u| u.push(u[0].clone())), Code::BadSession);
    assert_eq!(units_with(|u| u.swap(0, 1)), Code::BadSession);
    assert_eq!(units_with(|u| u[0].creator = 3), Code::BadSession);
    assert_eq!(units_with(|u| u[0].data = Bytes::from_static(b"x")), Code::BadSession);
    // Whoever skips the check of the units ends at another state, and says so.
    let mut log = LogNode {
        log: crate::ordered::OrderedLog::new(committee.clone(), 2, cluster.keys[2].clone()),
        state: MemState::default(),
    };
    for (position, unit) in (0..).zip(&units) {
        let data = if position == 2 { Bytes::from_static(b"x") } else { unit.data.clone() };
        log.step(Input::Unit { session: 0, position, creator: unit.creator, round: 0, data }).unwrap();
    }
    assert_eq!(code(log.step(Input::Close(signed))), Code::SessionMismatch);
}
