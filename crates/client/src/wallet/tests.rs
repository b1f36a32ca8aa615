use bytes::Bytes;
use florin_core::testing::{Signer, TestCommittee, to};
use florin_core::{Code, Error, wire};
use prost::Message;

use super::reads::agree;
use super::records::{Book, Record};

fn reply(balance: i64, seqnum: u32) -> wire::AccountReply {
    wire::AccountReply { balance: balance.to_string(), seqnum, ..Default::default() }
}

fn down() -> Error {
    Error::new(Code::Unreachable, "connection refused")
}

#[test]
fn no_authority_is_believed_alone() {
    let (committee, _) = TestCommittee::new(4, 1).build();
    let ask = |replies: [Option<wire::AccountReply>; 4]| agree(&committee, &replies.map(|r| r.ok_or_else(down)));
    // One lies.
    let balance = ask([Some(reply(1_000_000, 9)), Some(reply(5, 1)), Some(reply(5, 1)), Some(reply(5, 1))]).unwrap();
    assert_eq!((balance.minor, balance.agreeing), (5, 3));
    assert_eq!(balance.others[0].0, "authority-0");
    // Two lag: what two others have settled is newer.
    let balance = ask([Some(reply(9, 0)), Some(reply(5, 1)), Some(reply(9, 0)), Some(reply(5, 1))]).unwrap();
    assert_eq!((balance.minor, balance.agreeing), (5, 2));
    // Nobody else says what one says.
    let split = ask([Some(reply(1, 1)), Some(reply(2, 1)), Some(reply(3, 1)), None]).unwrap_err();
    assert_eq!(split.code, Code::Undecided);
    assert!(split.message.contains("authority-1: 2"), "{split}");
    let alone = ask([None, None, Some(reply(5, 1)), None]).unwrap_err();
    assert_eq!(alone.code, Code::QuorumUnreachable);
    assert!(alone.message.contains("authority-0 (UNREACHABLE") && !alone.message.contains("authority-2"), "{alone}");
    // A balance below zero is one, and what is no number is not.
    let mut odd = reply(0, 1);
    odd.balance = "lots".into();
    assert_eq!(ask([Some(odd.clone()), Some(odd), None, None]).unwrap_err().code, Code::Decode);
    assert_eq!(ask([Some(reply(-5, 1)), Some(reply(-5, 1)), None, None]).unwrap().minor, -5);
}

fn signed(signer: &mut Signer) -> Record {
    let envelope = hex::encode(signer.pay(&[to(signer.address, 1)], ""));
    Record::Signed { account: 0, seqnum: signer.seqnum, envelope, time: 0, id: None }
}

fn seqnums(book: &Book) -> Vec<u32> {
    book.accounts[&0].pending.iter().map(|p| p.seqnum).collect()
}

#[test]
fn a_refused_order_takes_those_chained_to_it_along() {
    let (mut book, mut signer) = (Book::default(), Signer::new(1));
    (0..3).for_each(|_| book.apply(signed(&mut signer)).unwrap());
    assert_eq!(seqnums(&book), [1, 2, 3]);
    book.apply(Record::Refused { account: 0, seqnum: 2, code: 403, message: String::new() }).unwrap();
    assert_eq!(seqnums(&book), [1]);
    // The next order follows the one that is left.
    assert_eq!(book.accounts[&0].next().0, 2);
    assert_eq!(book.accounts[&0].next().1, book.accounts[&0].pending[0].order().unwrap().next_hash());
}

#[test]
fn what_another_copy_did_replaces_what_can_no_longer_follow() {
    let adopted = |seqnum, hash: u64| Record::Adopted { account: 0, seqnum, prev_hash: hash.to_string() };
    let (mut book, mut signer) = (Book::default(), Signer::new(1));
    (0..2).for_each(|_| book.apply(signed(&mut signer)).unwrap());
    let first = book.accounts[&0].pending[0].order().unwrap().next_hash();
    // The other copy sent the same first order: the second still follows it.
    book.apply(adopted(1, first)).unwrap();
    assert_eq!(seqnums(&book), [2]);
    // It sent another one: nothing follows.
    let (mut book, mut signer) = (Book::default(), Signer::new(1));
    (0..2).for_each(|_| book.apply(signed(&mut signer)).unwrap());
    book.apply(adopted(1, 77)).unwrap();
    assert_eq!((seqnums(&book), book.accounts[&0].next()), (vec![], (2, 77)));
    // News that are older than what is known change nothing.
    book.apply(adopted(0, 0)).unwrap();
    assert_eq!(book.accounts[&0].next(), (2, 77));
}

#[test]
fn a_journal_of_something_else_is_an_error() {
    let mut signer = Signer::new(1);
    let (_, second) = (signed(&mut signer), signed(&mut signer));
    let signed =
        |envelope: &str| Record::Signed { account: 0, seqnum: 1, envelope: envelope.into(), time: 0, id: None };
    let receipt = |receipt: &str| Record::Final { account: 0, seqnum: 1, receipt: receipt.into(), time: 0 };
    let adopted = Record::Adopted { account: 0, seqnum: 1, prev_hash: "-1".into() };
    for record in [second, signed("zz"), signed("00ff"), receipt("zz"), receipt("ffff"), receipt(""), adopted] {
        let error = Book::default().apply(record.clone()).unwrap_err();
        assert_eq!(error.code, Code::BadFile, "{record:?}");
    }
}

#[test]
fn ids_are_optional_in_the_journal() {
    let mut signer = Signer::new(1);
    let plain = serde_json::to_value(signed(&mut signer)).unwrap();
    assert!(plain.get("id").is_none(), "as in journals from before there were ids: {plain}");
    let mut keyed = plain.clone();
    keyed["id"] = "invoice".into();
    let owner = |records: &[&serde_json::Value]| {
        let mut book = Book::default();
        for record in records {
            book.apply(serde_json::from_value((*record).clone()).unwrap()).unwrap();
            book.apply(Record::Refused { account: 0, seqnum: 1, code: 403, message: String::new() }).unwrap();
        }
        let envelope = hex::decode(plain["envelope"].as_str().unwrap()).unwrap();
        book.ids.owner(&florin_core::envelope::Order::decode(envelope.into()).unwrap()).cloned()
    };
    assert_eq!(owner(&[&plain]), None);
    assert_eq!(owner(&[&plain, &keyed]).as_deref(), Some("invoice"));
    // An equal payment without the id took the place of the first: the order is not the invoice's any more.
    assert_eq!(owner(&[&keyed, &plain]), None);
}

fn called(signer: &mut Signer) -> String {
    let deposit = wire::PrimaryDeposit { amount: 1, address: Bytes::copy_from_slice(signer.address.as_bytes()) };
    hex::encode(signer.call(vec![], vec![wire::output::Kind::PrimaryDeposit(deposit)]))
}

/// The journal after each record, as a crash may leave it.
#[test]
fn a_call_waits_for_the_log_through_any_crash() {
    let mut signer = Signer::new(1);
    let first = hex::encode(signer.pay(&[to(signer.address, 1)], ""));
    let second = called(&mut signer);
    let sign =
        |seqnum, envelope: &str| Record::Signed { account: 0, seqnum, envelope: envelope.into(), time: 0, id: None };
    let receipt = |envelope: &str| {
        let transaction = hex::decode(envelope).unwrap().into();
        hex::encode(wire::Receipt { transaction, ..Default::default() }.encode_to_vec())
    };
    let done = |seqnum, envelope: &str| Record::Final { account: 0, seqnum, receipt: receipt(envelope), time: 0 };
    let ordered = Record::Ordered { account: 0, seqnum: 2, session: 4, unit: 5, code: 406, message: "closed".into() };
    let records = [sign(1, &first), done(1, &first), sign(2, &second), done(2, &second), ordered];
    let known = [(None, 0, 0), (Some(0), 0, 0), (Some(0), 0, 0), (Some(2), 1, 0), (Some(2), 0, 1)];
    for crash in 1..=records.len() {
        let mut book = Book::default();
        for record in &records[..crash] {
            // As it is on disk.
            let line = serde_json::to_string(record).unwrap();
            book.apply(serde_json::from_str(&line).unwrap()).unwrap();
        }
        let account = &book.accounts[&0];
        let found = (account.last_call, account.unordered.len(), account.ordered.len());
        assert_eq!(found, known[crash - 1], "after {crash} records");
    }
    let mut book = Book::default();
    records.into_iter().for_each(|r| book.apply(r).unwrap());
    assert_eq!(book.accounts[&0].ordered[&2].failed.as_ref().unwrap().code, Code::ContractClosed);
    // The receipt of the same order, once more.
    book.apply(done(2, &second)).unwrap();
    assert!(book.accounts[&0].unordered.is_empty());
    // What another copy did may have been a CALL.
    book.apply(Record::Adopted { account: 0, seqnum: 3, prev_hash: "9".into() }).unwrap();
    assert_eq!(book.accounts[&0].last_call, None);
}

#[test]
fn a_recovery_is_remembered_until_it_is_decided() {
    let (mut book, mut signer) = (Book::default(), Signer::new(1));
    (0..2).for_each(|_| book.apply(signed(&mut signer)).unwrap());
    let recovered =
        |void: Option<&str>| Record::Recovered { account: 0, seqnum: 1, void: void.map(str::to_owned), last_call: 0 };
    book.apply(Record::Recover { account: 0, seqnum: 1, envelope: "00".into() }).unwrap();
    book.apply(Record::Frozen { account: 0, seqnum: 1, until_ms: 600 }).unwrap();
    // Signed once more after a crash.
    book.apply(Record::Recover { account: 0, seqnum: 1, envelope: "00".into() }).unwrap();
    let recovery = book.accounts[&0].recovery.clone().unwrap();
    assert_eq!((recovery.until_ms, recovery.envelope.is_some()), (Some(600), true));
    assert_eq!(seqnums(&book), [1, 2], "it may still settle");
    book.apply(recovered(Some("77"))).unwrap();
    let account = &book.accounts[&0];
    assert_eq!((account.next(), account.last_call, &account.voided), ((2, 77), Some(0), &vec![1]));
    assert!(account.pending.is_empty() && account.recovery.is_none());
    // An order has settled: what is pending is found out as always.
    let (mut book, mut signer) = (Book::default(), Signer::new(1));
    (0..2).for_each(|_| book.apply(signed(&mut signer)).unwrap());
    book.apply(Record::Frozen { account: 0, seqnum: 1, until_ms: 600 }).unwrap();
    book.apply(recovered(None)).unwrap();
    assert_eq!((seqnums(&book), &book.accounts[&0].recovery), (vec![1, 2], &None));
    assert_eq!(book.apply(recovered(Some("x"))).unwrap_err().code, Code::BadFile);
}
