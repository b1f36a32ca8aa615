//! What clients and peers ask of the log: pages of every size have the same rows, and what is due is known.

use prost::Message;

use super::*;
use crate::authority::state::{Link, State as _, link_key};
use crate::bitmap::Bitmap;
use crate::limits::{PAGE_MAX, SESSIONS_PAGE, UNITS_PAGE_BYTES};
use crate::ordered::bearers::{bearer_key, note_key};
use crate::ordered::book::BOOK_KEY;
use crate::ordered::modules::bridge::redeem_key;
use crate::ordered::modules::channels::{channel_key, channel_of_key};
use crate::ordered::modules::contracts::{contract_key, expiry_key};
use crate::ordered::modules::primary::{balance_key, deposit_key};
use crate::ordered::modules::registry::network_key;
use crate::ordered::session::{SIGNED_KEY, record, unit_key};
use crate::ordered::step::{Object, actor_key, object_key};

/// A log of authority 0 with these totals, and nothing else.
fn log(book: wire::LogRecord) -> LogNode {
    let mut log = Cluster::new(&TestCommittee::new(4, 2)).logs.remove(0);
    log.state.apply(&[Write::put(Table::Meta, BOOK_KEY, book.encode_to_vec())]);
    log
}

impl LogNode {
    fn put<M: Message>(&mut self, key: Vec<u8>, record: &M) {
        self.state.apply(&[Write::put(Table::Objects, key, record.encode_to_vec())]);
    }

    fn put_empty(&mut self, key: Vec<u8>) {
        self.state.apply(&[Write::put(Table::Objects, key, vec![])]);
    }
}

#[test]
fn sessions_are_served_from_any_of_them_and_as_many_as_a_page_takes() {
    let mut log = log(wire::LogRecord { session: 302, ..Default::default() });
    for number in 0..302 {
        let header = wire::SessionHeader { session: number, ..Default::default() };
        let signed = wire::SignedSession { header: Some(header), signatures: vec![] };
        log.state.apply(&[record(number, signed)]);
    }
    log.state.apply(&[Write::put(Table::Meta, SIGNED_KEY, 300_u64.to_be_bytes())]);
    let page = |from, limit| -> Vec<u64> {
        let reply = log.log.sessions(&log.state, &wire::SessionsRequest { from, limit }).unwrap();
        reply.sessions.iter().map(|s| s.header.as_ref().unwrap().session).collect()
    };
    for (from, limit, end) in
        [(0, 0, 1), (0, 1, 1), (5, 3, 8), (299, 9, 300), (0, 255, 255), (0, 256, 256), (0, 257, 256), (290, 256, 300)]
    {
        assert_eq!(page(from, limit), (from..end).collect::<Vec<u64>>(), "{from}, {limit}");
    }
    assert_eq!((page(300, 1), page(301, 1), SESSIONS_PAGE), (vec![], vec![], 256));
}

#[test]
fn the_own_signature_is_found_among_others_and_a_disk_that_fails_is_said() {
    let mut log = log(wire::LogRecord { session: 2, ..Default::default() });
    let by = |authority| wire::Signed { authority, ..Default::default() };
    log.state.apply(&[
        record(0, wire::SignedSession { header: None, signatures: vec![by(2), by(0), by(1)] }),
        record(1, wire::SignedSession { header: None, signatures: vec![by(2), by(1)] }),
    ]);
    let own = |log: &LogNode, number| log.log.own_signature(&log.state, number);
    assert_eq!(own(&log, 0).unwrap(), Some(by(0)));
    assert_eq!((own(&log, 1).unwrap(), own(&log, 2).unwrap()), (None, None));
    log.state.apply(&[Write::put(Table::Sessions, 2_u64.to_be_bytes(), b"x".to_vec())]);
    assert_eq!(code(own(&log, 2)), Code::StorageCorrupt);
}

#[test]
fn units_are_served_up_to_the_end_of_their_session_and_no_further() {
    let mut log = log(wire::LogRecord { session: 1, units: 20, ..Default::default() });
    let header = wire::SessionHeader { units: 3, ..Default::default() };
    log.state.apply(&[record(0, wire::SignedSession { header: Some(header), signatures: vec![] })]);
    // Sixteen of these are a page, to the byte; the last is larger than one.
    let size = |position: u32| if position == 19 { UNITS_PAGE_BYTES + 1 } else { UNITS_PAGE_BYTES / 16 - 16 };
    for (session, units) in [(0, 3), (1, 20)] {
        for position in 0..units {
            let data = vec![position as u8; if session == 0 { 9 } else { size(position) }].into();
            let unit = wire::OrderedUnit { creator: position, data }.encode_to_vec();
            log.state.apply(&[Write::put(Table::Units, unit_key(session, position), unit)]);
        }
    }
    let page = |session, from| -> Vec<u32> {
        let reply = log.log.units(&log.state, &wire::UnitsRequest { session, from }).unwrap();
        reply.units.iter().map(|unit| unit.creator).collect()
    };
    assert_eq!((page(0, 0), page(0, 2), page(0, 3), page(0, 9)), (vec![0, 1, 2], vec![2], vec![], vec![]));
    assert_eq!((page(1, 0), page(1, 2)), ((0..16).collect(), (2..18).collect()));
    assert_eq!((page(1, 17), page(1, 18), page(1, 19), page(1, 20)), (vec![17, 18], vec![18], vec![19], vec![]));
    for from in [0, 30] {
        let request = wire::UnitsRequest { session: 2, from };
        assert_eq!(code(log.log.units(&log.state, &request)), Code::OutOfOrder);
    }
}

/// All pages of the channels of an address.
fn channels(log: &LogNode, address: u8, limit: u32) -> Vec<Vec<(u8, bool)>> {
    let mut request =
        wire::ChannelsRequest { address: vec![address; 32].into(), limit, ..wire::ChannelsRequest::default() };
    let mut pages = Vec::new();
    loop {
        let reply = log.log.channels(&log.state, &request).unwrap();
        assert_eq!(reply.time_ms, 77);
        pages.push(reply.channels.iter().map(|c| (c.channel[31], c.record.is_some())).collect());
        if reply.next.is_empty() {
            return pages;
        }
        request.after = reply.next;
    }
}

#[test]
fn channels_of_an_address_are_the_same_by_pages_of_every_size() {
    let mut log = log(wire::LogRecord { time_ms: 77, ..Default::default() });
    let id = |number: u8| [&[0; 31][..], &[number]].concat();
    for address in [1, 2, 3] {
        for number in 0..7 {
            log.put_empty(channel_of_key(&[address; 32], &id(number)));
            // A record that is missing is shown so.
            if number != 3 {
                log.put(channel_key(&id(number)), &wire::ChannelRecord { delay_ms: 5, ..Default::default() });
            }
        }
    }
    let all: Vec<(u8, bool)> = (0..7).map(|number| (number, number != 3)).collect();
    for limit in 0..9 {
        for address in [1, 2, 3] {
            let pages = channels(&log, address, limit);
            assert_eq!(pages.concat(), all, "limit {limit}");
            let size = (limit as usize).max(1);
            assert_eq!(pages.len(), 7_usize.div_ceil(size), "limit {limit}");
            assert!(pages.iter().rev().skip(1).all(|page| page.len() == size), "limit {limit}");
        }
    }
    assert_eq!(channels(&log, 4, 5), vec![vec![]]);
}

#[test]
fn a_page_of_channels_is_at_most_a_count_and_at_most_a_megabyte_but_for_a_single_one() {
    let mut log = log(wire::LogRecord { time_ms: 77, ..Default::default() });
    let with = |bytes: usize| {
        let lane = |n: usize| wire::ChannelLane { secret: vec![1; n].into(), ..Default::default() };
        let mut record = wire::ChannelRecord { lanes: vec![lane(bytes)], ..Default::default() };
        let over = record.encoded_len() - bytes;
        record.lanes = vec![lane(bytes - over)];
        assert_eq!(record.encoded_len(), bytes);
        record
    };
    let half = UNITS_PAGE_BYTES / 2;
    let sizes = [half, half, half, half + 1, half, 2 * half + 100, half, half];
    for (number, bytes) in (0..).zip(sizes) {
        let id = [&[0; 31][..], &[number]].concat();
        log.put_empty(channel_of_key(&[1; 32], &id));
        log.put(channel_key(&id), &with(bytes));
    }
    let numbers: Vec<Vec<u8>> =
        channels(&log, 1, 100).iter().map(|page| page.iter().map(|(number, _)| *number).collect()).collect();
    assert_eq!(numbers, vec![vec![0, 1], vec![2], vec![3], vec![4], vec![5], vec![6, 7]]);
    for number in 0..=300_u16 {
        log.put_empty(channel_of_key(&[2; 32], &[&[7; 30][..], &number.to_be_bytes()].concat()));
    }
    for (limit, first) in [(0, 1), (255, 255), (256, 256), (257, 256), (u32::MAX, 256)] {
        assert_eq!(channels(&log, 2, limit)[0].len(), first, "limit {limit}");
    }
}

#[test]
fn the_primary_is_shown_with_its_logs_from_any_entry_on() {
    let mut log = log(wire::LogRecord {
        primary: 1_234_i128.to_le_bytes().to_vec().into(),
        deposits: 270,
        redeems: 260,
        ..Default::default()
    });
    for index in 0..270 {
        log.put(deposit_key(index), &wire::DepositEntry { index, ..Default::default() });
        log.put(redeem_key(index), &wire::RedeemEntry { index, ..Default::default() });
    }
    log.put(balance_key(&[1; 32]), &wire::PrimaryBalance { amount: 99 });
    log.put(balance_key(&[]), &wire::PrimaryRecord { deposits: 270, paid: 260 });
    let ask = |address: &[u8], deposits_from, redeems_from| {
        let address = Bytes::copy_from_slice(address);
        log.log.primary(&log.state, &wire::PrimaryRequest { address, deposits_from, redeems_from }).unwrap()
    };
    let reply = ask(&[1; 32], 0, 0);
    assert_eq!((reply.total_funds, reply.deposits, reply.redeems, reply.balance), (1_234, 270, 260, 99));
    assert_eq!((&reply.committee_id[..], reply.epoch), (&log.log.committee().id()[..], log.log.committee().epoch));
    assert_ne!(reply.epoch, 0);
    assert_eq!((ask(&[2; 32], 0, 0).balance, ask(&[], 0, 0).balance, ask(&[1; 31], 0, 0).balance), (0, 0, 0));
    for (from, deposits, redeems) in [(0, 256, 256), (10, 260, 250), (20, 250, 240), (265, 5, 0), (270, 0, 0)] {
        let deposits = if from == 10 { 256 } else { deposits };
        let reply = ask(&[], from, from);
        assert!(reply.deposit_log.iter().map(|e| e.index).eq(from..from + deposits), "deposits from {from}");
        assert!(reply.redeem_log.iter().map(|e| e.index).eq(from..from + redeems), "redeems from {from}");
    }
}

/// All pages of networks, and where each next one begins.
fn networks(log: &LogNode, from: u64, limit: u32) -> Vec<(Vec<u64>, u64)> {
    let mut request = wire::NetworksRequest { from, limit };
    let mut pages = Vec::new();
    loop {
        let reply = log.log.networks(&log.state, &request).unwrap();
        assert!(reply.networks.iter().all(|n| n.network.as_ref().is_some_and(|n| n.flags == n.flags.min(9))));
        pages.push((reply.networks.iter().map(|n| n.network_id).collect(), reply.next));
        if reply.next == 0 {
            return pages;
        }
        assert!(reply.next > request.from);
        request.from = reply.next;
    }
}

#[test]
fn networks_are_the_same_by_pages_of_every_size_without_those_that_are_removed() {
    let mut log = log(wire::LogRecord::default());
    for network_id in 1..=12 {
        let record = wire::NetworkRecord { flags: 1, removed: network_id % 4 == 0, ..Default::default() };
        log.put(network_key(network_id), &record);
    }
    // Objects of other kinds stand before and after.
    log.put(object_key(Object::Note, &[&[255; 32]]), &wire::NoteRecoveryRecord::default());
    log.put(object_key(Object::Outcome, &[&[0; 20]]), &wire::OutcomeRecord::default());
    let all = [1, 2, 3, 5, 6, 7, 9, 10, 11];
    for limit in 0..14 {
        let pages = networks(&log, 0, limit);
        assert_eq!(pages.iter().flat_map(|(ids, _)| ids.clone()).collect::<Vec<u64>>(), all, "limit {limit}");
        assert!(pages.iter().all(|(ids, _)| ids.len() <= (limit as usize).max(1)), "limit {limit}");
    }
    assert_eq!(networks(&log, 6, 20), vec![(vec![6, 7, 9, 10, 11], 0)]);
    assert_eq!(networks(&log, 12, 20), vec![(vec![], 0)]);
    assert_eq!(networks(&log, 5, 2), vec![(vec![5, 6], 7), (vec![7, 9], 10), (vec![10, 11], 12), (vec![], 0)]);
}

#[test]
fn a_page_of_networks_is_at_most_a_count_and_at_most_a_megabyte_but_for_a_single_one() {
    let mut log = log(wire::LogRecord::default());
    let half = UNITS_PAGE_BYTES / 2;
    for (network_id, bytes) in (1..).zip([half, half, half, half + 1, 2 * half + 100, half, half]) {
        let of = |n: usize| wire::NetworkRecord { metadata: vec![1; n].into(), ..Default::default() };
        let record = of(bytes - (of(bytes).encoded_len() - bytes));
        assert_eq!(record.encoded_len(), bytes);
        log.put(network_key(network_id), &record);
    }
    let ids: Vec<Vec<u64>> = networks(&log, 0, 100).into_iter().map(|(ids, _)| ids).collect();
    assert_eq!(ids, vec![vec![1, 2], vec![3], vec![4], vec![5], vec![6, 7]]);
    // A page that is full of removed ones goes on.
    let mut log = self::log(wire::LogRecord::default());
    for network_id in 1..=PAGE_MAX as u64 + 2 {
        let removed = network_id <= PAGE_MAX as u64;
        log.put(network_key(network_id), &wire::NetworkRecord { removed, ..Default::default() });
    }
    assert_eq!(networks(&log, 1, 9), vec![(vec![], 257), (vec![257, 258], 0)]);
    assert_eq!(networks(&log, 3, 9), vec![(vec![257, 258], 259), (vec![], 0)]);
    assert_eq!(networks(&log, 4, 9), vec![(vec![257, 258], 0)]);
}

/// What a shard hands in is done when it is decided, or when what it says is in the log already.
#[test]
fn a_call_is_done_when_the_log_needs_nothing_more_of_it() {
    let mut log = log(wire::LogRecord::default());
    let (network_id, actor) = (NETWORK_ID, 9);
    let caller = wire::CallerRecord { last_call: 3, voided: vec![5, 6], recovered: 6 };
    log.put(actor_key(Object::Caller, network_id, actor), &caller);
    let call = |seqnum| wire::LogCall { network_id, actor, seqnum, ..Default::default() };
    let done = |log: &LogNode, call: wire::LogCall| log.log.is_done(&log.state, &call).unwrap();
    let of = |log: &LogNode, change: fn(&mut wire::LogCall)| {
        [2, 3, 4, 5, 6, 7, 8].map(|seqnum| {
            let mut call = call(seqnum);
            change(&mut call);
            u8::from(done(log, call))
        })
    };
    assert_eq!(of(&log, |_| ()), [1, 1, 0, 1, 1, 0, 0]);
    assert_eq!(of(&log, |c| c.recover = true), [1, 1, 1, 1, 1, 0, 0]);
    assert_eq!(of(&log, |c| c.report = true), [1; 7]);
    assert_eq!(of(&log, |c| c.shown = true), [1; 7]);
    // While a recovery is open a report is needed once, and what is shown until it is decided.
    let mut reports = Bitmap::empty(4);
    for own in [false, true] {
        if own {
            reports.set(0);
        } else {
            reports.set(1);
        }
        let open = wire::RecoveryRecord { seqnum: 7, reports: reports.to_bytes(), ..Default::default() };
        log.put(actor_key(Object::Recovery, network_id, actor), &open);
        assert_eq!(of(&log, |_| ()), [1, 1, 0, 1, 1, 0, 0]);
        assert_eq!(of(&log, |c| c.recover = true), [1, 1, 1, 1, 1, 1, 0]);
        assert_eq!(of(&log, |c| c.report = true), [1, 1, 1, 1, 1, u8::from(own), 1]);
        assert_eq!(of(&log, |c| c.shown = true), [1, 1, 1, 1, 1, 0, 1]);
    }
    // One that has called beyond what was recovered.
    let ahead = wire::CallerRecord { last_call: 8, recovered: 2, ..Default::default() };
    log.put(actor_key(Object::Caller, network_id, actor), &ahead);
    assert_eq!(of(&log, |c| c.recover = true), [1; 7]);
    // Bearer orders have no number.
    let order_id = Bytes::from_static(&[4; 32]);
    let bearer = || wire::LogCall { order_id: order_id.clone(), ..call(0) };
    assert!(!done(&log, bearer()));
    log.put(bearer_key(&order_id), &wire::OutcomeRecord::default());
    assert!(done(&log, bearer()));
}

#[test]
fn what_concerns_a_note_is_done_when_its_recovery_is() {
    let mut log = log(wire::LogRecord::default());
    let (nonce, order_id) = (Bytes::from_static(&[5; 32]), Bytes::from_static(&[4; 32]));
    let call = |report, seqnum, order_id: &Bytes| wire::LogCall {
        network_id: NETWORK_ID,
        nonce: nonce.clone(),
        order_id: order_id.clone(),
        report,
        seqnum,
        ..Default::default()
    };
    let none = Bytes::new();
    let all = |log: &LogNode| {
        [call(true, 1, &none), call(true, 2, &none), call(false, 1, &order_id)]
            .map(|call| log.log.is_done(&log.state, &call).unwrap())
    };
    assert_eq!(all(&log), [true; 3], "nothing is open");
    let mut reports = Bitmap::empty(4);
    let open = |reports: &Bitmap, due_ms| wire::NoteRecoveryRecord {
        recoveries: 1,
        due_ms,
        reports: reports.to_bytes(),
        ..Default::default()
    };
    log.put(note_key(&nonce), &open(&reports, 9_000));
    assert_eq!(all(&log), [false, true, false]);
    reports.set(0);
    log.put(note_key(&nonce), &open(&reports, 9_000));
    assert_eq!(all(&log), [true, true, false]);
    log.put(bearer_key(&order_id), &wire::OutcomeRecord::default());
    assert_eq!(all(&log), [true; 3]);
    log.state.apply(&[Write::delete(Table::Objects, bearer_key(&order_id))]);
    log.put(note_key(&nonce), &open(&reports, 0));
    assert_eq!(all(&log), [true; 3]);
}

#[test]
fn clocks_are_needed_while_something_is_due_soon() {
    let needs = |log: &LogNode| log.log.needs_time(&log.state).unwrap();
    let at = |open_recoveries| log(wire::LogRecord { time_ms: 1_000_000, open_recoveries, ..Default::default() });
    assert_eq!([0, 1, 2].map(|open| needs(&at(open))), [false, true, true]);
    let mut waiting = at(0);
    waiting.put(object_key(Object::Delay, &[&[0; 33]]), &wire::DelayRecord::default());
    assert!(needs(&waiting));
    // Ten minutes before a lock the log's time must be exact, and after it no more.
    for (expiry_ms, needed) in [
        (999_999, false),
        (1_000_000, true),
        (1_000_001, true),
        (1_599_999, true),
        (1_600_000, false),
        (9_000_000, false),
    ] {
        let mut log = at(0);
        log.put_empty(expiry_key(expiry_ms, &[3; 32]));
        assert_eq!(needs(&log), needed, "{expiry_ms}");
        // What comes later does not hide it, and other objects are no locks.
        log.put_empty(expiry_key(u64::MAX, &[3; 32]));
        log.put_empty(object_key(Object::Expiry, &[&[]]).iter().map(|b| b + 1).collect());
        assert_eq!(needs(&log), needed, "{expiry_ms}");
    }
}

#[test]
fn what_is_on_disk_of_the_logs_status_is_shown() {
    let record = wire::LogRecord {
        session: 4,
        units: 5,
        previous: Bytes::from_static(b"header"),
        time_ms: 6,
        state_hash: Bytes::from_static(b"state"),
        ..Default::default()
    };
    let mut log = log(record);
    log.state.apply(&[Write::put(Table::Meta, SIGNED_KEY, 3_u64.to_be_bytes())]);
    let expected = wire::LogStatus {
        session: 4,
        units: 5,
        time_ms: 6,
        last_header: Bytes::from_static(b"header"),
        signed_sessions: 3,
        state_hash: Bytes::from_static(b"state"),
        ..Default::default()
    };
    assert_eq!(log.log.status(&log.state).unwrap(), expected);
    let contract = |id: u8| {
        let contract = Bytes::from(vec![id; 32]);
        log.log.contract(&log.state, &wire::ContractRequest { contract }).unwrap()
    };
    assert_eq!(contract(8), wire::ContractReply { time_ms: 6, ..Default::default() });
    let mut known = log.state.clone();
    let fund = wire::ContractFund { amount: 3, ..Default::default() };
    let record = wire::ContractRecord { fund: Some(fund.clone()), state: 2, preimage: Bytes::from_static(b"p") };
    known.apply(&[Write::put(Table::Objects, contract_key(&[8; 32]), record.encode_to_vec())]);
    let request = wire::ContractRequest { contract: Bytes::from_static(&[8; 32]) };
    let reply = wire::ContractReply { state: 2, fund: Some(fund), preimage: Bytes::from_static(b"p"), time_ms: 6 };
    assert_eq!(log.log.contract(&known, &request).unwrap(), reply);
    let request = wire::ChannelRequest { channel: Bytes::from_static(&[8; 32]) };
    let reply = wire::ChannelReply { channel: None, time_ms: 6, session: 4, units: 5 };
    assert_eq!(log.log.channel(&log.state, &request).unwrap(), reply);
}

#[test]
fn the_outbox_begins_after_what_is_acknowledged() {
    let mut log = log(wire::LogRecord::default());
    let range = |log: &LogNode, shard| log.log.outbox_range(&log.state, shard).unwrap();
    assert_eq!(range(&log, 0), (1, 0));
    let write = |link, sequence: u64| Write::put(Table::Links, link_key(link, 1), sequence.to_be_bytes());
    log.state.apply(&[write(Link::Sent, 9)]);
    assert_eq!((range(&log, 0), range(&log, 1)), ((1, 0), (1, 9)));
    log.state.apply(&[write(Link::Acknowledged, 4)]);
    assert_eq!((range(&log, 0), range(&log, 1)), ((1, 0), (5, 9)));
    assert!(log.state.get(Table::Links, &link_key(Link::Sent, 0)).unwrap().is_none());
}
