//! The same for accounts, networks, notes and batches.

use prost::Message;

use super::audit_names::{Change, IN_ORDER, KEPT, SKIPS, change, check, id, nonce, world};
use super::*;
use crate::authority::state::{
    Account, Write, account_key, get_u64, holding_key, need_record, order_id_key, order_key, stream_key,
};

#[test]
fn accounts_and_what_they_promise() {
    let world = world();
    let of = |signer: &Signer| account_key(NETWORK_ID, signer.actor());
    let account = |key: [u8; 16], f: fn(&mut wire::AccountRecord)| -> Change<'_> {
        Box::new(move |s| change(s, Table::Accounts, &key, f))
    };
    let (alice, bob, dave) = (of(&world.alice), of(&world.bob), of(&world.dave));
    let carol = of(&world.carol);
    let two = account_key(KEPT, 2);
    let further = holding_key(NETWORK_ID, &world.other);
    let further_record =
        |f: fn(&mut wire::AccountRecord)| -> Change<'_> { Box::new(move |s| change(s, Table::Accounts, &further, f)) };
    let promised: &[&str] = &["pending order, debit, change of keys, CALL, opening: expected"];
    let cases: Vec<(&str, Change<'_>, &[&str])> = vec![
        (
            "a payer frozen by an admin",
            account(bob, |a| a.barred = true),
            &["whether it is frozen by an admin: expected false, found true"],
        ),
        ("an actor frozen by an admin", account(two, |a| a.barred = true), &[]),
        ("a last CALL", account(alice, |a| a.last_call = 1), &["last CALL: expected 3, found 1"]),
        ("a RECOVER", account(bob, |a| a.recovering = 1), &["last RECOVER: expected 0, found 1"]),
        ("a RECOVER that was", account(carol, |a| a.recovering = 0), &["last RECOVER: expected 1, found 0"]),
        ("what a voided seqnum is followed by", account(carol, |a| a.prev_hash = 1), &[]),
        ("a change of keys", account(two, |a| a.rotating = 1), &["last change of keys: expected 0, found 1"]),
        ("what the log decided of it", account(two, |a| a.rotated = 1), &[]),
        ("what is promised", account(alice, |a| a.pending[0].amount += 1), promised),
        ("a promise of keys", account(alice, |a| a.pending[0].set_permission = true), promised),
        ("a promise of a CALL", account(alice, |a| a.pending[0].call = true), promised),
        ("a promise of an opening", account(alice, |a| a.pending[0].open = Bytes::from_static(b"x")), promised),
        ("another promise", account(alice, |a| a.pending[0].order_id = vec![1; 32].into()), promised),
        (
            "a promise that is nowhere",
            account(alice, |a| a.pending[0].index = 9),
            &["expected its pending order at 9 of batch"],
        ),
        (
            "a promise at another seqnum",
            account(alice, |a| a.pending.insert(0, a.pending[0].clone())),
            &["seqnum 5: expected its pending order"],
        ),
        (
            "an actor's promise of keys",
            account(two, |a| a.pending[0].set_permission = true),
            &["pending order, change of keys: expected"],
        ),
        (
            "an actor's promise of none",
            account(two, |a| a.pending[1].set_permission = false),
            &["pending order, change of keys: expected"],
        ),
        (
            "what waits at another seqnum",
            account(alice, |a| a.early[0].seqnum += 1),
            &["expected its waiting order at"],
        ),
        (
            "what waits and is another's",
            account(dave, |a| a.early[0].batch = 0),
            &["expected its waiting order at 0 of batch 0, found another or none"],
        ),
        ("nothing that waits", account(dave, |a| a.early.clear()), &["totals: waiting orders: expected 1, found 2"]),
        ("a further address with a seqnum", further_record(|a| a.seqnum = 1), &[": record: expected"]),
        (
            "a further address with two holdings",
            further_record(|a| a.holdings.push(a.holdings[0].clone())),
            &["not one holding"],
        ),
        (
            "a further address under another",
            further_record(|a| a.holdings[0].address = vec![7; 32].into()),
            &["not the key of its address"],
        ),
        (
            "money at a further address",
            further_record(|a| a.holdings[0].credits += 1),
            &["credits: expected 2, found 3"],
        ),
        ("a holding twice", account(bob, |a| a.holdings.push(a.holdings[0].clone())), &["expected one holding of"]),
        (
            "an actor without its record",
            Box::new(|s| s.apply(&[Write::delete(Table::Accounts, two)])),
            &["actor 2: expected an account record, found none"],
        ),
        (
            "a RECOVER without an account",
            Box::new(|s| s.apply(&[Write::delete(Table::Accounts, carol)])),
            &["expected an account record, found none", "order records", "voided seqnums"],
        ),
        (
            "a further address alone",
            Box::new(|s| {
                let key = holding_key(NETWORK_ID + 1, &world.other);
                let record = s.get(Table::Accounts, &further).unwrap().unwrap().to_vec();
                s.apply(&[Write::put(Table::Accounts, key, record)]);
            }),
            &["expected a record of its actor before it"],
        ),
        (
            "a stranger's account",
            Box::new(|s| {
                s.apply(&[Write::put(Table::Accounts, account_key(NETWORK_ID, 6), Account::default().encode())])
            }),
            &[],
        ),
    ];
    check(&world, cases);
}

#[test]
fn networks_and_their_streams() {
    let world = world();
    let order = |network_id, seqnum, f: fn(&mut wire::OrderRecord)| -> Change<'_> {
        Box::new(move |s| change(s, Table::Orders, &order_key(network_id, 1, seqnum), f))
    };
    let entry = |network_id, position, f: fn(&mut wire::StreamRecord)| -> Change<'_> {
        Box::new(move |s| change(s, Table::Stream, &stream_key(network_id, position), f))
    };
    let gone = |network_id, position| -> Change<'_> {
        Box::new(move |s| s.apply(&[Write::delete(Table::Stream, stream_key(network_id, position))]))
    };
    let network = |network_id: u64, f: fn(&mut wire::NetworkShardRecord)| -> Change<'_> {
        Box::new(move |s| change(s, Table::Networks, &network_id.to_be_bytes(), f))
    };
    let by_id = order_id_key(SKIPS, 1, &id(&world.by_id));
    let record: &[&str] = &["order record: expected"];
    // Two actors are registered, then there are three orders.
    let cases: Vec<(&str, Change<'_>, &[&str])> = vec![
        ("an order for the log", order(KEPT, 1, |r| r.call = true), record),
        ("a change of keys that the log needs not", order(KEPT, 2, |r| r.call = false), &["order record: expected"]),
        ("an order that the log needs not", order(IN_ORDER, 1, |r| r.call = false), record),
        ("another place", order(KEPT, 1, |r| r.index += 1), record),
        (
            "an order by its id",
            Box::new(|s| change(s, Table::Orders, &by_id, |r: &mut wire::OrderRecord| r.call = true)),
            record,
        ),
        (
            "an entry in between",
            gone(KEPT, 4),
            &[
                "network 500: next position: expected 4, found 5",
                "network 500: orders in its stream: expected 3, found 2",
            ],
        ),
        (
            "the last entry",
            gone(KEPT, 5),
            &[
                "network 500: first and last entry of its stream: expected (1, 5), found (1, 4)",
                "orders in its stream: expected 3, found 2",
            ],
        ),
        ("the first entry", gone(KEPT, 1), &["first and last entry of its stream: expected (1, 5), found (2, 5)"]),
        (
            "the only entry",
            gone(SKIPS, 1),
            &[
                "first and last entry of its stream: expected (1, 1), found (1, 0)",
                "orders in its stream: expected 1, found 0",
            ],
        ),
        (
            "an entry of the log",
            gone(IN_ORDER, 1),
            &["network 501: first and last entry of its stream: expected (1, 1), found (1, 0)"],
        ),
        (
            "an entry with another id",
            entry(KEPT, 3, |e| e.trx_id = vec![1; 32].into()),
            &["network 500, position 3: order: expected"],
        ),
        (
            "an entry with another order",
            entry(KEPT, 3, |e| e.index += 1),
            &["network 500, position 3: order: expected"],
        ),
        ("an entry with another batch", entry(KEPT, 3, |e| e.batch = 0), &["network 500, position 3: order: expected"]),
        (
            "an entry that is no order",
            entry(KEPT, 3, |e| e.event = wire::history_row::Event::Regactor as i32),
            &["orders in its stream: expected 3, found 2"],
        ),
        (
            "an end",
            network(KEPT, |n| n.entries += 1),
            &["first and last entry of its stream: expected (1, 6), found (1, 5)"],
        ),
        (
            "a beginning",
            network(KEPT, |n| n.pruned += 1),
            &["first and last entry of its stream: expected (2, 5), found (1, 5)"],
        ),
        (
            "a network",
            Box::new(|s| s.apply(&[Write::delete(Table::Networks, SKIPS.to_be_bytes())])),
            &[
                "expected network 502 to be known, found it is not",
                "network 502: expected a record of it, found a stream alone",
            ],
        ),
        ("a network's key", Box::new(|s| s.apply(&[Write::put(Table::Networks, [1; 7], [0; 0])])), &["not 8 bytes"]),
        ("a stream's key", Box::new(|s| s.apply(&[Write::put(Table::Stream, [1; 7], [0; 0])])), &["not 16 bytes"]),
        (
            "an order of the stream settled again",
            Box::new(|s| {
                let order: wire::OrderRecord = need_record(s, Table::Orders, &order_key(KEPT, 1, 1)).unwrap();
                let progress: wire::ProgressRecord =
                    need_record(s, Table::Progress, &order.batch.to_be_bytes()).unwrap();
                let position = s.iter(Table::Settled).count() as u64;
                let (root, count, bitmap) = (progress.root, progress.count, Bytes::from_static(&[1]));
                let entry = wire::SettledEntry { position, root, count, bitmap, ..Default::default() };
                s.apply(&[Write::put(Table::Settled, position.to_be_bytes(), entry.encode_to_vec())]);
            }),
            &[
                "expected one settled order at its seqnum, found it settled twice",
                "orders in its stream: expected 4, found 3",
                "totals: settled entries",
                "totals: orders",
                "totals: order records",
            ],
        ),
    ];
    check(&world, cases);
}

#[test]
fn notes_and_what_holds_them() {
    let world = world();
    let note = |at: usize, f: fn(&mut wire::NoteRecord)| -> Change<'_> {
        let key = nonce(&world.notes[at]);
        Box::new(move |s| change(s, Table::Notes, &key, f))
    };
    let record = |order: &Bytes, f: fn(&mut wire::OrderRecord)| -> Change<'_> {
        let key = order_id_key(NETWORK_ID, 0, &id(order));
        Box::new(move |s| change(s, Table::Orders, &key, f))
    };
    let batch = get_u64(world.state(), Table::Roots, &crate::merkle::root(&[id(&world.bearers[2])])).unwrap();
    assert!(batch.is_some(), "it has a batch of its own");
    let holds: &[&str] = &["expected the order that holds it at"];
    let waits: &[&str] = &["expected the order that waits for it at"];
    let spent: &[&str] = &[": note "];
    let cases: Vec<(&str, Change<'_>, &[&str])> = vec![
        ("spent by another", note(0, |n| n.order_id = vec![1; 32].into()), spent),
        ("spent elsewhere", note(0, |n| n.index += 1), spent),
        ("spent in another batch", note(0, |n| n.batch += 1), spent),
        (
            "spent after a recovery",
            note(0, |n| n.recoveries = 1),
            &[": note ", "voided seqnums and freed notes: expected 4, found 3"],
        ),
        ("not spent", note(0, |n| n.spent = false), &[": note ", "notes that are spent: expected 2, found 1"]),
        ("spent by nobody", note(1, |n| n.spent = true), &["notes that are spent: expected 2, found 3"]),
        ("held by another", note(1, |n| n.order_id = vec![1; 32].into()), holds),
        ("held elsewhere", note(1, |n| n.index += 1), holds),
        ("held by one that does not name it", note(1, |n| n.index = 0), holds),
        (
            "held after a recovery",
            note(1, |n| n.recoveries = 1),
            &["expected the order that holds it at", "voided seqnums and freed notes: expected 4, found 3"],
        ),
        ("waiting for another recovery", note(2, |n| n.early[0].seqnum = 1), waits),
        ("waiting elsewhere", note(2, |n| n.early[0].index = 1), waits),
        ("waiting in another batch", note(2, |n| n.early[0].batch = 0), waits),
        ("freed once more", note(3, |n| n.recoveries += 1), &["voided seqnums and freed notes: expected 4, found 3"]),
        ("an order elsewhere", record(&world.bearers[0], |r| r.index += 1), &["order record: expected"]),
        ("an order for the log", record(&world.bearers[0], |r| r.call = true), &["order record: expected"]),
        ("an order not for the log", record(&world.bearers[1], |r| r.call = false), &["order record: expected"]),
        ("a recovery not for the log", record(&world.bearers[2], |r| r.call = false), &["order record: expected"]),
        (
            "a note's key",
            Box::new(|s| s.apply(&[Write::put(Table::Notes, [1; 31], [0; 0])])),
            &["no note is kept there"],
        ),
        (
            "a blinded nonce's key",
            Box::new(|s| s.apply(&[Write::put(Table::Issued, [1; 47], 1_u64.to_be_bytes())])),
            &["no blinded nonce"],
        ),
        (
            "one more asked for",
            Box::new(|s| s.apply(&[Write::put(Table::Issued, [1; 48], 3_u64.to_be_bytes())])),
            &["blinded nonces that are asked for: expected 5, found 7"],
        ),
    ];
    check(&world, cases);
}

#[test]
fn batches_and_the_stream_of_what_is_settled() {
    let world = world();
    let of_alice: wire::OrderRecord =
        need_record(world.state(), Table::Orders, &order_key(NETWORK_ID, world.alice.actor(), 2)).unwrap();
    let key = of_alice.batch.to_be_bytes();
    let progress =
        |f: fn(&mut wire::ProgressRecord)| -> Change<'_> { Box::new(move |s| change(s, Table::Progress, &key, f)) };
    // The batch that was only voted on is the last one.
    let last = (world.state().iter(Table::Batches).count() as u64 - 1).to_be_bytes();
    let pending = move |f: fn(&mut wire::ProgressRecord)| -> Change<'_> {
        Box::new(move |s| change(s, Table::Progress, &last, f))
    };
    let by_log: &[&str] = &["expected settled orders as settled by the log, found others"];
    let cases: Vec<(&str, Change<'_>, &[&str])> = vec![
        ("settled by the log and not settled", pending(|p| p.by_log = Bytes::from_static(&[1])), by_log),
        ("none settled by the log", progress(|p| p.by_log = Bytes::from_static(&[0])), by_log),
        ("settled by the log in another batch", progress(|p| p.by_log = Bytes::from_static(&[1, 0])), by_log),
        ("settled by the log and by a certificate", progress(|p| p.by_log = Bytes::from_static(&[1])), &[]),
        (
            "settled by nobody",
            progress(|p| p.certificates.clear()),
            &[
                "order 0: settled, expected a certificate, found none that holds",
                "order 1: settled",
                "order 2: settled",
            ],
        ),
        (
            "settled by the log, in part",
            progress(|p| {
                p.certificates.clear();
                p.by_log = Bytes::from_static(&[0b101]);
            }),
            &["order 1: settled, expected a certificate, found none that holds"],
        ),
        (
            "by the votes of too few",
            progress(|p| p.certificates[0].votes.truncate(2)),
            &["order 0: settled", "order 1: settled", "order 2: settled"],
        ),
        (
            "taken back without having been settled",
            Box::new(move |s| {
                let progress: wire::ProgressRecord = need_record(s, Table::Progress, &last).unwrap();
                let position = s.iter(Table::Settled).count() as u64;
                let (root, count, bitmap) = (progress.root, progress.count, Bytes::from_static(&[1]));
                let entry = wire::SettledEntry { position, root, count, bitmap, undone: true, ..Default::default() };
                s.apply(&[Write::put(Table::Settled, position.to_be_bytes(), entry.encode_to_vec())]);
            }),
            &[
                "taken back, expected it settled before, found it was not",
                "credits of this shard's own orders",
                "totals: settled entries",
                "totals: orders",
                "totals: order records",
            ],
        ),
        (
            "totals that are gone",
            Box::new(|s| s.apply(&[Write::delete(Table::Meta, crate::authority::state::TOTALS_KEY)])),
            &[
                "totals: sent to other shards: expected 9, found 0",
                "totals: waiting orders: expected 2, found 0",
                "totals: notes issued and spent, by tier",
                "totals: expected a record, found none",
                "totals: batches",
                "totals: settled entries",
                "totals: credit records",
                "totals: orders",
                "totals: voided seqnums and freed notes",
                "totals: balances: expected -23, found 0",
            ],
        ),
    ];
    check(&world, cases);
}
