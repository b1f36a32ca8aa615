//! Notes that their owners have locked, and how the log frees them.

use super::bearer::{outstanding, spend, status_of, with_notes};
use super::*;
use crate::bitmap::Bitmap;
use crate::cash::testing::Note;
use crate::certificate::{Promise, sign};
use crate::content::credit_output;
use crate::wire::note_state::State as N;

/// Notes to an account.
fn deposit(notes: &[Note], to_: &Signer) -> Bytes {
    let amount = notes.iter().map(|n| 1 << n.tier).sum();
    spend(notes, vec![credit_output(&to(to_.address, amount))], None)
}

/// A request to free notes.
fn recover(notes: &[Note]) -> Bytes {
    spend(notes, vec![], None)
}

/// The same notes, freed once more.
fn freed(notes: &[Note]) -> Vec<Note> {
    notes.iter().map(|n| Note { recoveries: n.recoveries + 1, ..n.clone() }).collect()
}

fn state_of(cluster: &Cluster, authority: usize, note: &Note) -> (N, u32) {
    let nonces = vec![Bytes::copy_from_slice(&note.secrets.nonce().0)];
    let request = wire::NotesRequest { nonces, ..Default::default() };
    let node = &cluster.nodes[authority][0];
    let state = node.authority.notes(&node.state, &request).unwrap().states.remove(0);
    (state.state(), state.recoveries)
}

/// Votes of some authorities for one order.
fn votes(cluster: &mut Cluster, order: &Bytes, who: impl IntoIterator<Item = usize>) -> Vec<wire::Signed> {
    let mut vote = |i: usize| cluster.node(i, 0).vote(std::slice::from_ref(order)).unwrap().vote;
    who.into_iter().filter_map(&mut vote).collect()
}

/// Two authorities vote for each of two orders.
fn split(cluster: &mut Cluster, orders: [&Bytes; 2]) -> [Vec<wire::Signed>; 2] {
    [votes(cluster, orders[0], [0, 1]), votes(cluster, orders[1], [2, 3])]
}

/// Waits until the log decides without a certificate.
fn wait(cluster: &mut Cluster) {
    let time = cluster.logs[0].log.book(&cluster.logs[0].state).unwrap().time_ms;
    cluster.set_time(time + RECOVERY_WAIT_MS);
    cluster.order_all();
}

fn one_settles(cluster: &mut Cluster, authority: usize, certificate: &wire::Certificate, order: &Bytes) -> bool {
    let reply = cluster.node(authority, 0).settle(certificate, std::slice::from_ref(order)).unwrap();
    reply.acknowledgement.is_some()
}

/// The log takes what some authorities hand in, and tells them; the others hear nothing.
fn order_among(cluster: &mut Cluster, who: std::ops::Range<usize>) {
    for _ in 0..3 {
        for i in who.clone() {
            let items = cluster.log_items(i);
            if !items.is_empty() {
                cluster.order_items(i as u32, 0, items);
            }
        }
        for i in who.clone() {
            deliver_log(&mut cluster.logs[i], &mut cluster.nodes[i]);
            acknowledge_calls(&cluster.logs[i], &mut cluster.nodes[i]);
            deliver_all(&mut cluster.nodes[i]);
        }
    }
}

#[test]
fn a_locked_note_is_freed_and_can_be_spent_again() {
    let (mut cluster, alice, bob, _, notes) = with_notes(2, &[5]);
    let (first, second) = (deposit(&notes, &alice), deposit(&notes, &bob));
    let given = split(&mut cluster, [&first, &second]);
    assert_eq!(refusal(&mut cluster, 0, &second), Code::NoteLocked);
    cluster.run_ordered(&[recover(&notes)]);
    assert_eq!(refusal(&mut cluster, 0, &first), Code::Recovering);
    assert!(cluster.logs[0].log.needs_time(&cluster.logs[0].state).unwrap());
    cluster.set_time(1_000 + RECOVERY_WAIT_MS - 1);
    cluster.order_all();
    assert_eq!(state_of(&cluster, 0, &notes[0]), (N::Frozen, 0));
    check(&cluster, &[(&alice, 968), (&bob, 1_000)]);
    cluster.set_time(1_000 + RECOVERY_WAIT_MS);
    cluster.order_all();
    assert!(!cluster.logs[0].log.needs_time(&cluster.logs[0].state).unwrap());
    let fresh = freed(&notes);
    for i in 0..4 {
        assert_eq!(state_of(&cluster, i, &notes[0]), (N::Free, 1));
        assert_eq!(refusal(&mut cluster, i, &first), Code::NoteFreed);
    }
    check(&cluster, &[(&alice, 968), (&bob, 1_000)]);
    let again = deposit(&fresh, &bob);
    cluster.run(std::slice::from_ref(&again));
    check(&cluster, &[(&alice, 968), (&bob, 1_032)]);
    // The votes that were missing for the old ones turn up, by authorities that lie.
    for (order, mut votes) in [&first, &second].into_iter().zip(given) {
        let mut bits = Bitmap::empty(1);
        bits.set(0);
        let batch = crate::batch::decode_batch(std::slice::from_ref(order)).unwrap().id;
        for i in 0..4 {
            if votes.iter().all(|v| v.authority != i as u32) {
                let key = &cluster.keys[i];
                votes.push(sign(Promise::Vote, &cluster.committee, i as u32, key, &batch, &bits));
            }
        }
        let certificate = cluster.certificate(std::slice::from_ref(order), votes);
        (0..4).for_each(|i| assert!(!one_settles(&mut cluster, i, &certificate, order)));
    }
    cluster.order_all();
    check(&cluster, &[(&alice, 968), (&bob, 1_032)]);
}

#[test]
fn a_note_is_freed_as_often_as_it_is_locked_and_a_late_report_counts_for_none_but_its_own() {
    let (mut cluster, alice, bob, _, mut notes) = with_notes(1, &[3]);
    let mut late = Vec::new();
    for times in 0..3 {
        split(&mut cluster, [&deposit(&notes, &alice), &deposit(&notes, &bob)]);
        cluster.run(&[recover(&notes)]);
        order_among(&mut cluster, 0..1);
        late.extend(cluster.log_items(0));
        cluster.order_items(3, 0, late.clone());
        cluster.order_all();
        assert_eq!(state_of(&cluster, 1, &notes[0]), (N::Frozen, times));
        wait(&mut cluster);
        notes = freed(&notes);
        assert_eq!(state_of(&cluster, 2, &notes[0]), (N::Free, times + 1));
        check(&cluster, &[(&alice, 992), (&bob, 1_000)]);
    }
    cluster.run(&[deposit(&notes, &bob)]);
    check(&cluster, &[(&alice, 992), (&bob, 1_008)]);
}

#[test]
fn a_certificate_that_one_authority_holds_decides_at_once() {
    for settled in [false, true] {
        let (mut cluster, alice, bob, mut purse, notes) = with_notes(2, &[5, 1]);
        let asked = purse.ask(&[1]);
        let outputs = vec![credit_output(&to(bob.address, 32)), asked[0].output()];
        let order = spend(&notes, outputs, None);
        let request = recover(&notes);
        let recovery = cluster.certify(0, std::slice::from_ref(&request));
        let certificate = cluster.certify(0, std::slice::from_ref(&order));
        if settled {
            assert!(one_settles(&mut cluster, 3, &certificate, &order));
        }
        cluster.settle(0, &recovery, std::slice::from_ref(&request));
        cluster.order_items(0, 0, cluster.log_items(0));
        for i in 0..4 {
            deliver_log(&mut cluster.logs[i], &mut cluster.nodes[i]);
        }
        if !settled {
            assert!(!one_settles(&mut cluster, 3, &certificate, &order), "it is kept, and shown");
            assert!(!one_settles(&mut cluster, 3, &certificate, &order), "again");
            clean(&cluster, 3);
        }
        cluster.order_all();
        for i in 0..4 {
            assert_eq!(state_of(&cluster, i, &notes[0]), (N::Spent, 0));
            assert_eq!(state_of(&cluster, i, &notes[1]), (N::Spent, 0));
        }
        check(&cluster, &[(&alice, 966), (&bob, 1_032)]);
        assert!(purse.take(&asked, &cluster.shares(&order))[0].is_some());
        // Asked again, and much later: it is spent.
        cluster.settle(0, &recovery, std::slice::from_ref(&request));
        wait(&mut cluster);
        assert_eq!(refusal(&mut cluster, 0, &recover(&notes[..1])), Code::NoteSpent);
        check(&cluster, &[(&alice, 966), (&bob, 1_032)]);
        for i in 0..4 {
            assert!(one_settles(&mut cluster, i, &certificate, &order));
        }
    }
}

#[test]
fn what_one_authority_settled_alone_is_taken_back_with_all_that_it_made() {
    let (mut cluster, alice, bob, mut purse, notes) = with_notes(3, &[5, 4, 2]);
    let asked = purse.ask(&[2]);
    let redeem = output::Kind::PrimaryRedeem(wire::PrimaryRedeem { amount: 8, address: bytes(&bob) });
    let outputs = vec![
        credit_output(&to(bob.address, 30)),
        credit_output(&to(alice.address, 10)),
        asked[0].output(),
        wire::Output { kind: Some(redeem) },
    ];
    let order = spend(&notes, outputs, Some(&alice));
    let request = recover(&notes[..1]);
    let recovery = cluster.certify(0, std::slice::from_ref(&request));
    let certificate = cluster.certify(0, std::slice::from_ref(&order));
    assert!(one_settles(&mut cluster, 3, &certificate, &order));
    deliver_all(&mut cluster.nodes[3]);
    let hidden = cluster.log_items(3);
    assert_eq!((cluster.balance(3, &bob.address), outstanding(&cluster, 3)), (1_030, 4));
    cluster.settle(0, &recovery, std::slice::from_ref(&request));
    // It is cut off until the others have decided.
    order_among(&mut cluster, 0..3);
    cluster.set_time(1_000 + RECOVERY_WAIT_MS);
    order_among(&mut cluster, 0..3);
    assert_eq!(state_of(&cluster, 0, &notes[0]), (N::Free, 1));
    clean(&cluster, 3);
    cluster.order_all();
    check(&cluster, &[(&alice, 948), (&bob, 1_000)]);
    assert_eq!(status_of(&cluster, 0, &order).state(), S::Void);
    cluster.order_items(2, 0, hidden);
    // Released to all: it is void for ever, and its other notes wait for a recovery of their own.
    for i in 0..4 {
        assert!(!one_settles(&mut cluster, i, &certificate, &order));
        assert_eq!(state_of(&cluster, i, &notes[1]), (N::Locked, 0));
    }
    cluster.order_all();
    check(&cluster, &[(&alice, 948), (&bob, 1_000)]);
    cluster.run_ordered(&[recover(&notes[1..])]);
    wait(&mut cluster);
    for i in 0..4 {
        assert!(!one_settles(&mut cluster, i, &certificate, &order));
    }
    check(&cluster, &[(&alice, 948), (&bob, 1_000)]);
    cluster.run(&[deposit(&freed(&notes), &bob)]);
    check(&cluster, &[(&alice, 948), (&bob, 1_052)]);
}

#[test]
fn a_note_that_a_voided_order_asks_for_as_well_stays_issued() {
    let (mut cluster, mut alice, _, mut purse, notes) = with_notes(3, &[2]);
    let asked = purse.ask(&[2]);
    cluster.run_cash(&alice.withdraw(&asked));
    let order = spend(&notes, vec![asked[0].output()], None);
    let recovery = cluster.certify(0, &[recover(&notes)]);
    let certificate = cluster.certify(0, std::slice::from_ref(&order));
    assert!(one_settles(&mut cluster, 3, &certificate, &order));
    assert_eq!(state_of(&cluster, 3, &notes[0]), (N::Spent, 0));
    clean(&cluster, 3);
    cluster.settle(0, &recovery, &[recover(&notes)]);
    order_among(&mut cluster, 0..3);
    cluster.set_time(1_000 + RECOVERY_WAIT_MS);
    order_among(&mut cluster, 0..3);
    cluster.order_all();
    let blinded = vec![Bytes::copy_from_slice(&asked[0].secrets.blinded().to_bytes())];
    for node in &cluster.nodes {
        let request = wire::NotesRequest { blinded: blinded.clone(), ..Default::default() };
        let reply = node[0].authority.notes(&node[0].state, &request).unwrap();
        assert_eq!((&reply.issued[0].tiers[..], reply.issued[0].shares.len()), (&[2][..], 1));
    }
    assert_eq!(state_of(&cluster, 3, &notes[0]), (N::Free, 1));
    (0..4).for_each(|i| clean(&cluster, i));
}

#[test]
fn a_certificate_that_its_client_hides_until_the_note_is_freed_is_worth_nothing() {
    let (mut cluster, alice, bob, _, notes) = with_notes(1, &[5]);
    let order = deposit(&notes, &bob);
    let certificate = cluster.certify(0, std::slice::from_ref(&order));
    // Voted for: the recovery takes no lock, and is voted for all the same.
    cluster.run_ordered(&[recover(&notes)]);
    wait(&mut cluster);
    let again = deposit(&freed(&notes), &alice);
    let certified = cluster.certify(0, std::slice::from_ref(&again));
    for i in 0..4 {
        assert!(!one_settles(&mut cluster, i, &certificate, &order));
        assert!(one_settles(&mut cluster, i, &certified, &again));
        assert!(!one_settles(&mut cluster, i, &certificate, &order));
    }
    cluster.order_all();
    check(&cluster, &[(&alice, 1_000), (&bob, 1_000)]);
}

#[test]
fn an_order_of_a_freed_note_decides_no_recovery_of_its_other_notes() {
    let (mut cluster, alice, bob, _, notes) = with_notes(1, &[4, 3]);
    let (a, b) = (&notes[..1], &notes[1..]);
    let order = deposit(&notes, &bob);
    let certificate = cluster.certify(0, std::slice::from_ref(&order));
    cluster.run_ordered(&[recover(a)]);
    cluster.set_time(1_000 + RECOVERY_WAIT_MS / 2);
    cluster.run_ordered(&[recover(b)]);
    cluster.set_time(1_000 + RECOVERY_WAIT_MS);
    cluster.order_all();
    assert_eq!((state_of(&cluster, 0, &a[0]), state_of(&cluster, 0, &b[0])), ((N::Free, 1), (N::Frozen, 0)));
    (0..4).for_each(|i| assert!(!one_settles(&mut cluster, i, &certificate, &order)));
    cluster.order_all();
    check(&cluster, &[(&alice, 976), (&bob, 1_000)]);
    wait(&mut cluster);
    assert_eq!(state_of(&cluster, 0, &b[0]), (N::Free, 1));
    cluster.run(&[deposit(&freed(&notes), &bob)]);
    check(&cluster, &[(&alice, 976), (&bob, 1_024)]);
}

#[test]
fn one_that_lags_keeps_an_order_that_names_a_recovery_until_it_has_heard_of_it() {
    let (mut cluster, alice, bob, _, notes) = with_notes(1, &[4, 3]);
    split(&mut cluster, [&deposit(&notes, &bob), &deposit(&notes[..1], &alice)]);
    cluster.run(&[recover(&notes)]);
    order_among(&mut cluster, 0..3);
    cluster.set_time(1_000 + RECOVERY_WAIT_MS);
    order_among(&mut cluster, 0..3);
    let order = deposit(&freed(&notes), &bob);
    let given = votes(&mut cluster, &order, 0..3);
    let certificate = cluster.certificate(std::slice::from_ref(&order), given);
    for i in 0..3 {
        assert!(one_settles(&mut cluster, i, &certificate, &order));
    }
    assert!(!one_settles(&mut cluster, 3, &certificate, &order), "it lags");
    clean(&cluster, 3);
    cluster.order_all();
    check(&cluster, &[(&alice, 976), (&bob, 1_024)]);
}

#[test]
fn a_recovery_and_the_order_that_it_looks_for_in_one_unit() {
    for recovery_first in [true, false] {
        let (mut cluster, alice, bob, _, notes) = with_notes(1, &[4]);
        let redeem = output::Kind::PrimaryRedeem(wire::PrimaryRedeem { amount: 16, address: bytes(&bob) });
        let order = spend(&notes, vec![wire::Output { kind: Some(redeem) }], Some(&alice));
        let request = recover(&notes);
        let recovery = cluster.certify(0, std::slice::from_ref(&request));
        let certificate = cluster.certify(0, std::slice::from_ref(&order));
        cluster.node(0, 0).settle(&recovery, std::slice::from_ref(&request)).unwrap();
        assert!(one_settles(&mut cluster, 1, &certificate, &order));
        let mut items = [cluster.log_items(0), cluster.log_items(1)];
        if !recovery_first {
            items.reverse();
        }
        cluster.order_items(2, 0, items.concat());
        assert_eq!(cluster.logs[0].log.book(&cluster.logs[0].state).unwrap().open_recoveries, 0);
        cluster.order_all();
        assert_eq!(status_of(&cluster, 3, &order).state(), S::Ordered);
        assert_eq!(status_of(&cluster, 3, &request).state(), S::Ordered);
        check(&cluster, &[(&alice, 984), (&bob, 1_000)]);
    }
}

/// A hundred clients race to spend one note. Each authority sees them in an order of its own, and one votes for all of them.
/// One wins, or none until the log has freed the note; then one can spend it.
#[test]
fn a_hundred_clients_race_for_a_note_and_one_wins_or_none_until_it_is_freed() {
    const LIAR: usize = 3;
    let (mut cluster, mut alice, _, mut purse, _) = with_notes(2, &[3]);
    let clients: Vec<Signer> = (0..100).map(|i| Signer::new(1_000 + i)).collect();
    let mut rng = super::race::rand_order::Rng(7);
    let (mut won, mut freed_first, mut paid) = (0, 0, std::collections::BTreeMap::<usize, i128>::new());
    for round in 0..40 {
        let notes = cluster.withdraw(&mut alice, &mut purse, &[2]);
        let orders: Vec<Bytes> = clients.iter().map(|client| deposit(&notes, client)).collect();
        // When each comes, and how much later at each authority: in some rounds all see much the same.
        let noise = [1, 20, 1_000][round % 3];
        let starts: Vec<u64> = orders.iter().map(|_| rng.below(1_000)).collect();
        let mut given = vec![Vec::new(); orders.len()];
        for authority in 0..LIAR {
            let mut arrivals: Vec<(u64, usize)> =
                starts.iter().enumerate().map(|(client, start)| (start + rng.below(noise), client)).collect();
            arrivals.sort_unstable();
            for (_, client) in arrivals {
                given[client].extend(votes(&mut cluster, &orders[client], [authority]));
            }
        }
        assert_eq!(given.iter().map(Vec::len).sum::<usize>(), LIAR, "an honest authority votes for one");
        let mut winners = Vec::new();
        for (client, mut votes) in given.into_iter().enumerate() {
            let batch = crate::batch::decode_batch(std::slice::from_ref(&orders[client])).unwrap().id;
            let key = &cluster.keys[LIAR];
            votes.push(sign(Promise::Vote, &cluster.committee, LIAR as u32, key, &batch, &Bitmap::full(1)));
            let enough = votes.len() >= cluster.committee.quorum();
            let certificate = cluster.certificate(std::slice::from_ref(&orders[client]), votes);
            for authority in 0..4 {
                let reply = cluster.node(authority, 0).settle(&certificate, std::slice::from_ref(&orders[client]));
                assert_eq!(reply.is_ok_and(|reply| reply.acknowledgement.is_some()), enough, "client {client}");
            }
            winners.extend(enough.then_some(client));
        }
        let winner = match winners[..] {
            [winner] => {
                won += 1;
                winner
            }
            [] => {
                freed_first += 1;
                cluster.run_ordered(&[recover(&notes)]);
                wait(&mut cluster);
                let client = rng.below(100) as usize;
                cluster.run(&[deposit(&freed(&notes), &clients[client])]);
                client
            }
            _ => panic!("{winners:?} have the money of one note"),
        };
        cluster.deliver_all();
        *paid.entry(winner).or_default() += 4;
        for i in 0..4 {
            assert_eq!(outstanding(&cluster, i), 8, "only the first note is left");
        }
    }
    assert!(won > 5 && freed_first > 5, "{won} won, {freed_first} freed");
    let expected: Vec<(&Signer, i128)> = paid.iter().map(|(client, amount)| (&clients[*client], *amount)).collect();
    check(&cluster, &expected);
}
