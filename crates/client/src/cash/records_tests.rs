//! What a journal of cash means, record by record.

use super::*;

fn nonce(n: u8) -> Hex32 {
    Hex32([n; 32])
}

fn made(counter: u64, tier: u32, n: u8, send: bool) -> Made {
    Made { counter, tier, nonce: nonce(n), send, lock: None }
}

fn prepared(number: u64, purpose: Purpose, inputs: &[u8], outputs: Vec<Made>) -> Record {
    let inputs = inputs.iter().map(|n| nonce(*n)).collect();
    Record::Prepared { number, purpose, id: None, inputs, outputs, envelope: "00".into(), time: 7 }
}

fn withdraw(number: u64, outputs: Vec<Made>) -> Record {
    prepared(number, Purpose::Withdraw { account: 0, payment: format!("cash {number}") }, &[], outputs)
}

fn settled(number: u64, notes: usize) -> Record {
    Record::Settled { number, signatures: vec!["ab".into(); notes] }
}

fn book(records: &[Record]) -> Book {
    let mut book = Book::default();
    for record in records {
        // As it is on disk.
        let line = serde_json::to_string(record).unwrap();
        book.apply(serde_json::from_str(&line).unwrap()).unwrap();
    }
    book
}

#[test]
fn a_note_is_in_one_place_at_a_time() {
    let mut records = vec![withdraw(0, vec![made(0, 3, 1, false), made(1, 0, 2, false)]), settled(0, 2)];
    let of = |records: &[Record]| {
        let book = book(records);
        let sum = |wanted: fn(State) -> bool| Counts::of(book.in_state(wanted).map(|n| n.note.tier)).total();
        (sum(|s| s == State::Free), sum(|s| matches!(s, State::Sent(_))), sum(|s| matches!(s, State::Held(_))))
    };
    assert_eq!(of(&records), (9, 0, 0));
    // Six of eight are given away, two are change, one goes with them.
    let purpose = Purpose::Send { notes: vec![nonce(2)], memo: "m".into() };
    let outputs = vec![made(2, 1, 3, false), made(3, 2, 4, true), made(4, 1, 5, true)];
    records.push(prepared(1, purpose, &[1], outputs));
    assert_eq!(of(&records), (0, 0, 9));
    let mut failed = records.clone();
    failed.push(Record::Failed { number: 1, code: 417, message: String::new() });
    assert_eq!(of(&failed), (9, 0, 0), "all of it is back");
    records.push(settled(1, 3));
    assert_eq!(of(&records), (2, 7, 0));
    let sent = &book(&records).sent[&1];
    assert_eq!((sent.total(), sent.memo.as_str(), sent.time), (7, "m", 7));
    // Some of it is claimed; the rest is cancelled.
    records.push(Record::Spent { notes: vec![nonce(4)], by: "0102".into() });
    assert_eq!(of(&records), (2, 3, 0));
    records.push(prepared(2, Purpose::Cancel { sent: 1 }, &[2, 5], vec![made(5, 0, 6, false), made(6, 1, 7, false)]));
    assert_eq!(of(&records), (2, 0, 3));
    let mut failed = records.clone();
    failed.push(Record::Failed { number: 2, code: 417, message: String::new() });
    assert_eq!(of(&failed), (2, 3, 0), "still given away");
    records.push(settled(2, 2));
    assert_eq!(of(&records), (5, 0, 0));
    let book = book(&records);
    assert_eq!((&book.gone[&nonce(4)], &book.gone[&nonce(5)]), (&Gone::Elsewhere("0102".into()), &Gone::Here));
}

#[test]
fn a_number_makes_one_note() {
    let mut records = vec![withdraw(0, vec![made(0, 0, 1, false), made(1, 0, 2, false)])];
    assert_eq!(book(&records).next_counter(), 2, "an open order has its numbers");
    records.push(Record::Failed { number: 0, code: 403, message: String::new() });
    assert_eq!(book(&records).next_counter(), 2, "fresh ones while there is room");
    let lock = Lock { receiver: nonce(8), sender: nonce(9), after_ms: 1 };
    records.push(withdraw(1, vec![made(700, 0, 3, false), Made { lock: Some(lock), ..made(LENT, 0, 4, true) }]));
    assert_eq!((book(&records).next_counter(), book(&records).next_lent()), (701, LENT + 1));
    records.push(Record::Failed { number: 1, code: 403, message: String::new() });
    assert_eq!(book(&records).next_counter(), 0, "or a search from words would end before the next one");
    records.push(Record::Found { next: 5, notes: vec![] });
    records.push(withdraw(2, vec![made(5, 0, 5, false)]));
    assert_eq!(book(&records).next_counter(), 6, "never one that an open order has");
    records.push(settled(2, 1));
    assert_eq!((book(&records).next_counter(), book(&records).next), (6, 3));
}

#[test]
fn a_journal_of_something_else_is_an_error() {
    let spends = |n: u8| prepared(0, Purpose::Merge, &[n], vec![]);
    let purpose = Purpose::Send { notes: vec![nonce(9)], memo: String::new() };
    let sent = Record::Sent { number: 0, notes: vec![nonce(9)], memo: String::new(), id: None, time: 0 };
    let wrong = [
        settled(0, 0),
        Record::Failed { number: 0, code: 1, message: String::new() },
        spends(9),
        prepared(0, purpose, &[], vec![]),
        sent,
        withdraw(0, vec![made(0, 32, 1, false)]),
        Record::Keys { keys: "zz".into() },
    ];
    for record in wrong {
        assert_eq!(Book::default().apply(record.clone()).unwrap_err().code, Code::BadFile, "{record:?}");
    }
    let mut book = book(&[withdraw(0, vec![made(0, 0, 1, false)])]);
    assert_eq!(book.apply(settled(0, 2)).unwrap_err().code, Code::BadFile);
}
