//! E-cash on the fast path.

use std::sync::Arc;

use super::super::audit;
use super::*;
use crate::bearer::{Spend, build, lock_nonce};
use crate::cash::testing::{Note, Purse, mint};
use crate::content::credit_output;
use crate::wire::note_state::State as S;

/// A cluster with keys, a signer with money, and a purse.
fn with_cash(amount: u64, shards: u32) -> (Cluster, Signer, Purse) {
    let mut cluster = Cluster::new(&TestCommittee::new(4, shards));
    let alice = Signer::new(1);
    cluster.fund(alice.address, amount);
    let purse = cluster.make_cash(6);
    (cluster, alice, purse)
}

fn spends(notes: &[Note]) -> Vec<Spend> {
    notes.iter().map(Note::spend).collect()
}

/// An order that makes new notes of old ones.
fn reissue(purse: &mut Purse, notes: &[Note], tiers: &[u32]) -> (Bytes, Vec<crate::cash::testing::Asked>) {
    let asked = purse.ask(tiers);
    let outputs = asked.iter().map(|a| a.output()).collect();
    (build(NETWORK_ID, &spends(notes), outputs, "", None), asked)
}

fn deposit(notes: &[Note], to: crate::address::Address) -> Bytes {
    let amount = notes.iter().map(|n| 1 << n.tier).sum();
    build(NETWORK_ID, &spends(notes), vec![credit_output(&crate::testing::to(to, amount))], "", None)
}

/// What each authority says of a note.
fn states(cluster: &Cluster, note: &Note) -> Vec<S> {
    let nonces = vec![Bytes::copy_from_slice(&note.secrets.nonce().0)];
    let request = wire::NotesRequest { nonces, ..Default::default() };
    let of = |shards: &Vec<Node>| shards[0].authority.notes(&shards[0].state, &request).unwrap().states[0].state();
    cluster.nodes.iter().map(of).collect()
}

fn outstanding(cluster: &Cluster, authority: usize) -> i128 {
    cluster.nodes[authority].iter().map(|n| n.authority.totals(&n.state).unwrap().outstanding()).sum()
}

#[test]
fn money_becomes_notes_and_money_again() {
    let (mut cluster, mut alice, mut purse) = with_cash(100, 3);
    let bob = Signer::on_shard(2, 3, 50);
    let notes = cluster.withdraw(&mut alice, &mut purse, &[0, 2, 5]);
    assert_eq!((cluster.balance(0, &alice.address), outstanding(&cluster, 0)), (63, 37));
    let (order, asked) = reissue(&mut purse, &notes, &[2, 5, 0]);
    let shares = cluster.run_cash(&order);
    let fresh: Vec<Note> = purse.take(&asked, &shares).into_iter().map(Option::unwrap).collect();
    assert!(states(&cluster, &notes[1]).iter().all(|s| *s == S::Spent));
    assert!(states(&cluster, &fresh[0]).iter().all(|s| *s == S::Free));
    // A payment: part to Ben's account, the rest in new notes.
    let asked = purse.ask(&[2, 0]);
    let mut outputs = vec![credit_output(&to(bob.address, 32))];
    outputs.extend(asked.iter().map(|a| a.output()));
    let shares = cluster.run_cash(&build(NETWORK_ID, &spends(&fresh), outputs, "for bread", None));
    let rest: Vec<Note> = purse.take(&asked, &shares).into_iter().map(Option::unwrap).collect();
    cluster.run(&[deposit(&rest, alice.address)]);
    for i in 0..4 {
        assert_eq!((cluster.balance(i, &bob.address), cluster.balance(i, &alice.address)), (32, 68));
        assert_eq!(outstanding(&cluster, i), 0);
    }
}

#[test]
fn a_lost_answer_loses_no_note() {
    let (mut cluster, mut alice, mut purse) = with_cash(10, 1);
    let asked = purse.ask(&[1, 3]);
    let order = alice.withdraw(&asked);
    let shares = cluster.run_cash(&order);
    let blinded = asked.iter().map(|a| Bytes::copy_from_slice(&a.secrets.blinded().to_bytes())).collect();
    let request = wire::NotesRequest { blinded, ..Default::default() };
    for (i, of) in shares {
        let node = cluster.node(i as usize, 0);
        let reply = node.authority.notes(&node.state, &request).unwrap();
        assert_eq!(reply.issued.iter().map(|n| n.tiers.clone()).collect::<Vec<_>>(), [[1], [3]]);
        assert_eq!(reply.issued.into_iter().flat_map(|n| n.shares).collect::<Vec<_>>(), of, "the same ones");
    }
    let other = wire::NotesRequest { blinded: vec![Bytes::from_static(&[1; 48])], ..Default::default() };
    let node = cluster.node(0, 0);
    assert!(node.authority.notes(&node.state, &other).unwrap().issued[0].shares.is_empty(), "never paid for");
}

#[test]
fn a_note_is_spent_once_and_its_order_can_be_repeated() {
    let (mut cluster, mut alice, mut purse) = with_cash(100, 1);
    let notes = cluster.withdraw(&mut alice, &mut purse, &[3, 3, 1]);
    let (first, _) = reissue(&mut purse, &notes[..2], &[4]);
    let (second, _) = reissue(&mut purse, &notes[1..], &[3, 1]);
    let certificate = cluster.certify(0, std::slice::from_ref(&first));
    // Held by the first: none of the second's notes is locked, the free one neither.
    let reply = cluster.node(0, 0).vote(std::slice::from_ref(&second)).unwrap();
    assert_eq!(refused(&reply), [(0, Code::NoteLocked)]);
    let body = crate::envelope::Order::decode(first.clone()).unwrap().body;
    assert_eq!(reply.errors[0].pending_order, body, "and it shows what holds it");
    assert_eq!(states(&cluster, &notes[2])[0], S::Free);
    assert_eq!(states(&cluster, &notes[0])[0], S::Locked);
    assert!(cluster.vote(0, std::slice::from_ref(&first)).iter().all(|r| accepted(r) == 1), "again");
    cluster.settle(0, &certificate, std::slice::from_ref(&first)).into_iter().for_each(|r| drop(r.unwrap()));
    let before = cluster.node(0, 0).state.clone();
    let again = cluster.node(0, 0).settle(&certificate, &[]).unwrap();
    assert!(again.acknowledgement.is_some() && cluster.node(0, 0).state == before, "again, and nothing changes");
    let reply = cluster.node(0, 0).vote(std::slice::from_ref(&second)).unwrap();
    assert_eq!(refused(&reply), [(0, Code::NoteSpent)]);
    assert_eq!(outstanding(&cluster, 0), 18);
}

#[test]
fn of_two_orders_for_one_note_at_most_one_is_certified() {
    let (mut cluster, mut alice, mut purse) = with_cash(100, 1);
    let notes = cluster.withdraw(&mut alice, &mut purse, &[3]);
    let (first, second) = (deposit(&notes, alice.address), deposit(&notes, Signer::new(2).address));
    let mut votes = [Vec::new(), Vec::new()];
    for i in 0..4 {
        let order = if i < 2 { &first } else { &second };
        votes[i / 2].extend(cluster.node(i, 0).vote(std::slice::from_ref(order)).unwrap().vote);
        let other = if i < 2 { &second } else { &first };
        assert_eq!(refused(&cluster.node(i, 0).vote(std::slice::from_ref(other)).unwrap()), [(0, Code::NoteLocked)]);
    }
    for (order, votes) in [&first, &second].into_iter().zip(votes) {
        let certificate = cluster.certificate(std::slice::from_ref(order), votes);
        assert_eq!(code(cluster.node(0, 0).settle(&certificate, std::slice::from_ref(order))), Code::NoQuorum);
    }
    // Certified before a lock of another order here: the certificate counts.
    let (mut cluster, mut alice, mut purse) = with_cash(100, 1);
    let notes = cluster.withdraw(&mut alice, &mut purse, &[3]);
    let (first, second) = (deposit(&notes, alice.address), deposit(&notes, Signer::new(2).address));
    let votes = (0..3).filter_map(|i| cluster.node(i, 0).vote(std::slice::from_ref(&first)).unwrap().vote).collect();
    let certificate = cluster.certificate(std::slice::from_ref(&first), votes);
    cluster.node(3, 0).vote(std::slice::from_ref(&second)).unwrap();
    cluster.node(3, 0).settle(&certificate, std::slice::from_ref(&first)).unwrap();
    assert_eq!(cluster.balance(3, &alice.address), 100);
}

#[test]
fn what_is_no_note_buys_nothing_and_spoils_no_other() {
    let (mut cluster, mut alice, mut purse) = with_cash(100, 1);
    let notes = cluster.withdraw(&mut alice, &mut purse, &[0, 1, 2, 3]);
    let forged = |change: &dyn Fn(&mut Spend), worth: u64| {
        let mut spend = notes[0].spend();
        change(&mut spend);
        let output = credit_output(&to(alice.address, worth));
        build(NETWORK_ID, &[spend], vec![output], "", None)
    };
    let other = notes[1].signature.to_bytes();
    let bad_key = Bytes::copy_from_slice(&notes[1].secrets.nonce().0);
    let orders = [
        forged(&|s| s.input.tier = 5, 32),
        forged(&|s| s.signature = other, 1),
        forged(&|s| s.signature[0] = 0xc0, 1),
        forged(&|s| s.input.nonce = bad_key.clone(), 1),
        forged(&|_| {}, 2),
        forged(&|s| s.input.tier = 40, 1 << 40),
        forged(&|s| s.input.recoveries = 1, 1),
        deposit(&notes[1..2], alice.address),
        build(
            NETWORK_ID,
            &spends(&[notes[2].clone(), notes[2].clone()]),
            vec![credit_output(&to(alice.address, 8))],
            "",
            None,
        ),
        spoil(&Signer::new(9).pay(&[to(alice.address, 1)], "")),
        deposit(&notes[3..], alice.address),
    ];
    let reply = cluster.node(0, 0).vote(&orders).unwrap();
    let expected = [
        Code::BadNote,
        Code::BadNote,
        Code::BadNote,
        Code::KeyMismatch,
        Code::BadAmount,
        Code::BadContent,
        Code::NoteFreed,
        Code::BadContent,
        Code::InsufficientFunds,
    ];
    let indices = [0, 1, 2, 3, 4, 5, 6, 8, 9];
    assert_eq!(refused(&reply), indices.into_iter().zip(expected).collect::<Vec<_>>(), "{:?}", reply.errors);
    assert_eq!(states(&cluster, &notes[0])[0], S::Free);
    assert_eq!(states(&cluster, &notes[1])[0], S::Locked);
    // An account with a bad signature makes all be checked again: locks of notes are the same after it.
    let bad = spoil(&alice.pay(&[to(Signer::new(9).address, 1)], ""));
    let reply = cluster.node(1, 0).vote(&[orders[7].clone(), bad, orders[10].clone()]).unwrap();
    assert_eq!((refused(&reply), accepted(&reply)), (vec![(1, Code::KeyMismatch)], 0b101));
    assert_eq!([states(&cluster, &notes[1])[1], states(&cluster, &notes[3])[1]], [S::Locked; 2]);
}

#[test]
fn checking_before_gives_the_same_votes() {
    let (mut cluster, mut alice, mut purse) = with_cash(100, 1);
    let notes = cluster.withdraw(&mut alice, &mut purse, &[0, 1, 2]);
    let mut bad = notes[1].spend();
    bad.signature = notes[0].signature.to_bytes();
    let bad = build(NETWORK_ID, &[bad], vec![credit_output(&to(alice.address, 2))], "", None);
    let orders = [deposit(&notes[..1], alice.address), bad, deposit(&notes[2..], alice.address)];
    let node = cluster.node(0, 0);
    let checks = node.authority.check_notes(NOW_US, &orders, &node.state).unwrap();
    let given = super::super::input::Input::Vote { orders: orders.to_vec(), checks };
    let super::super::effect::Reply::Vote(given) = node.step(given).unwrap().reply else { panic!("a vote") };
    let own = cluster.node(1, 0).vote(&orders).unwrap();
    assert_eq!((given.errors, given.vote.map(|v| v.bitmap)), (own.errors, own.vote.map(|v| v.bitmap)));
}

#[test]
fn a_locked_note_is_its_receivers_until_the_date() {
    let (mut cluster, mut alice, mut purse) = with_cash(100, 1);
    let now_ms = NOW_US / 1_000;
    let keys: Vec<_> = purse.ask(&[0, 0]).into_iter().map(|a| a.secrets).collect();
    let lock = |after_ms| wire::NoteLock {
        receiver: Bytes::copy_from_slice(&keys[0].nonce().0),
        sender: Bytes::copy_from_slice(&keys[1].nonce().0),
        after_ms,
    };
    let blinding = purse.ask(&[0]).remove(0).secrets;
    for (after_ms, returned, by, expected) in [
        (now_ms + 1, true, 1, Some(Code::NoteNotDue)),
        (now_ms + 1, false, 1, Some(Code::KeyMismatch)),
        (now_ms, true, 0, Some(Code::KeyMismatch)),
        (now_ms, true, 1, None),
        (now_ms + 2, false, 0, None),
    ] {
        let lock = lock(after_ms);
        let blinded = lock_nonce(&lock).blind(blinding.blinding());
        let request = crate::bearer::NoteAsked::request(2, &blinded);
        let content = crate::content::encode_withdraw(&[], &[request], "", alice.open());
        let order = alice.order(crate::content::TYPE_PAY, content);
        let shares = cluster.run_cash(&order);
        let keys_of = mint(4, 6);
        let parsed: Vec<_> =
            shares.iter().map(|(i, s)| (i + 1, crate::cash::blind::SignatureShare::parse(&s[0]).unwrap())).collect();
        let combined = crate::cash::combine::combine(keys_of[0].shared(2).unwrap(), &blinded, &parsed).unwrap();
        let signature = blinding.blinding().unblind(&combined.signature.unwrap()).to_bytes();
        let secrets = Arc::clone(&keys[by]);
        let spend = Spend {
            input: wire::NoteInput { tier: 2, lock: Some(lock), returned, ..Default::default() },
            signature,
            sign: Box::new(move |m| secrets.sign(m)),
        };
        let order = build(NETWORK_ID, &[spend], vec![credit_output(&to(alice.address, 4))], "", None);
        let reply = cluster.node(0, 0).vote(&[order]).unwrap();
        assert_eq!(reply.errors.first().and_then(|e| Code::from_number(e.code)), expected, "{:?}", reply.errors);
    }
}

#[test]
fn without_keys_nothing_is_promised_and_what_others_certified_settles() {
    let (mut cluster, mut alice, mut purse) = with_cash(100, 1);
    let notes = cluster.withdraw(&mut alice, &mut purse, &[3]);
    let mut bare = Cluster::new(&TestCommittee::new(4, 1));
    std::mem::swap(cluster.node(3, 0), bare.node(3, 0));
    let kept = std::mem::take(&mut bare.node(3, 0).state);
    cluster.node(3, 0).state = kept;
    let order = deposit(&notes, alice.address);
    assert_eq!(refused(&cluster.node(3, 0).vote(std::slice::from_ref(&order)).unwrap()), [(0, Code::CashNotReady)]);
    let votes = (0..3).filter_map(|i| cluster.node(i, 0).vote(std::slice::from_ref(&order)).unwrap().vote).collect();
    let certificate = cluster.certificate(std::slice::from_ref(&order), votes);
    cluster.node(3, 0).settle(&certificate, std::slice::from_ref(&order)).unwrap();
    assert_eq!((cluster.balance(3, &alice.address), outstanding(&cluster, 3)), (100, 0));
    let asked = purse.ask(&[1]);
    let order = alice.withdraw(&asked);
    assert_eq!(refused(&cluster.node(3, 0).vote(std::slice::from_ref(&order)).unwrap()), [(0, Code::CashNotReady)]);
}

/// Audits all shards of one authority.
fn audits(cluster: &Cluster, authority: usize) -> Vec<(u32, audit::ShardAudit)> {
    let shards = cluster.nodes[authority].iter().zip(0..);
    shards.map(|(n, shard)| (shard, audit::audit_shard(&n.authority, &n.state, true).unwrap())).collect()
}

fn findings(cluster: &Cluster, authority: usize) -> Vec<String> {
    let audits = audits(cluster, authority);
    let found = audits.iter().flat_map(|(_, audit)| audit.findings.clone());
    found.chain(audit::audit_authority(&audits, None)).collect()
}

#[test]
fn the_audit_counts_every_note() {
    use super::super::state::{State as _, Totals, Write};
    let (mut cluster, mut alice, mut purse) = with_cash(100, 2);
    let notes = cluster.withdraw(&mut alice, &mut purse, &[0, 2, 4, 4]);
    let (order, _) = reissue(&mut purse, &notes[..2], &[2, 0]);
    cluster.run_cash(&order);
    cluster.run(&[deposit(&notes[2..3], Signer::on_shard(1, 2, 40).address)]);
    cluster.vote(0, &[deposit(&notes[3..], alice.address)]);
    assert_eq!(findings(&cluster, 0), [] as [String; 0]);
    assert_eq!(audit::notes(&audits(&cluster, 0)), [(2, 1), (0, 0), (2, 1), (0, 0), (2, 1)]);
    let clean = cluster.nodes[0][0].state.clone();
    let spent = notes[0].secrets.nonce();
    let record = clean.get(Table::Notes, &spent.0).unwrap().unwrap();
    let (issued, _) = clean.iter(Table::Issued).map(|(k, v)| (k.to_vec(), v.clone())).next().unwrap();
    let totals = clean.get(Table::Meta, super::super::state::TOTALS_KEY).unwrap().unwrap();
    let with_totals = |change: &dyn Fn(&mut Totals)| {
        let mut totals = Totals::load(&clean).unwrap();
        change(&mut totals);
        let record = prost::Message::encode_to_vec(&totals.encode());
        vec![Write::put(Table::Meta, super::super::state::TOTALS_KEY, record)]
    };
    let unspent = wire::NoteRecord { spent: false, ..prost::Message::decode(record.clone()).unwrap() };
    for (what, writes) in [
        ("forgotten", vec![Write::delete(Table::Notes, spent.0)]),
        ("unspent", vec![Write::put(Table::Notes, spent.0, prost::Message::encode_to_vec(&unspent))]),
        ("spent by nobody", vec![Write::put(Table::Notes, [5; 32], record.to_vec())]),
        ("not issued", vec![Write::delete(Table::Issued, issued.clone())]),
        ("another tier", vec![Write::put(Table::Issued, issued, (1_u64 << 5).to_be_bytes())]),
        ("one more", with_totals(&|t| t.notes[2].0 += 1)),
        ("one spent less", with_totals(&|t| t.notes[2].1 -= 1)),
    ] {
        cluster.nodes[0][0].state.apply(&writes);
        assert_ne!(findings(&cluster, 0), [] as [String; 0], "{what}");
        cluster.nodes[0][0].state = clean.clone();
    }
    assert!(!totals.is_empty() && findings(&cluster, 0).is_empty());
}

#[test]
fn a_request_is_checked_up_to_the_notes_of_a_batch() {
    let (mut cluster, mut alice, mut purse) = with_cash(100, 1);
    let notes = cluster.withdraw(&mut alice, &mut purse, &[0]);
    // Forged, so that each costs what it can: sixteen orders of 128 notes are the limit, two more are above it.
    let forged = |order: u64| {
        let other = Purse::new(100 + order, NETWORK_ID, mint(4, 6)[0].clone()).ask(&[0; 128]);
        let spend =
            |asked: &crate::cash::testing::Asked| Note { secrets: asked.secrets.clone(), ..notes[0].clone() }.spend();
        let spends: Vec<Spend> = other.iter().map(spend).collect();
        build(NETWORK_ID, &spends, vec![credit_output(&to(alice.address, 128))], "", None)
    };
    let mut orders: Vec<Bytes> = (0..18).map(forged).collect();
    orders.push(deposit(&notes, alice.address));
    let node = cluster.node(0, 0);
    let checks = node.authority.check_notes(NOW_US, &orders, &node.state).unwrap();
    let super::super::effect::Reply::Vote(reply) =
        node.step(super::super::input::Input::Vote { orders: orders.clone(), checks }).unwrap().reply
    else {
        panic!("a vote")
    };
    let codes: Vec<Code> = refused(&reply).into_iter().map(|(_, code)| code).collect();
    assert_eq!(codes, [vec![Code::BadNote; 16], vec![Code::Busy; 3]].concat());
    assert_eq!(accepted(&cluster.node(0, 0).vote(&orders[18..]).unwrap()), 1, "alone it is no trouble");
}
