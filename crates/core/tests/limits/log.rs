//! What a CALL may say of networks and channels, and what the log takes and answers.

use bytes::Bytes;
use florin_core::authority::state::{Table, Write};
use florin_core::keys::Curve;
use florin_core::limits::{
    OUTPUTS_MAX, PAGE_MAX, PRUNE_AGE_MS, SESSION_ROUNDS, SESSIONS_PAGE, UNIT_BYTES_MAX, UNITS_PAGE_BYTES,
};
use florin_core::network_flags::HISTORY;
use florin_core::ordered::book::BOOK_KEY;
use florin_core::ordered::input::Input;
use florin_core::ordered::session::unit_key;
use florin_core::testing::{Actor, Cluster, NOW_US, Signer, TestCommittee};
use florin_core::wire::network_command::Kind;
use florin_core::wire::{self, output};
use florin_core::{Code, Error, Result};
use prost::Message;

use crate::{Bound, Case, funded, limit, orders};

/// A network.
const ID: u64 = 500;

pub fn cases() -> Vec<Case> {
    use Code::{BadContent, Limit};
    vec![
        Case::at_most(limit!(METADATA_BYTES_MAX), &[64 * 1_024], Limit, |n| {
            said(Kind::Metadata(wire::NetworkMetadata { metadata: vec![7; n as usize].into() }))
        }),
        Case::at_most(limit!(METADATA_BYTES_MAX), &[64 * 1_024], Limit, |n| {
            said(Kind::Register(wire::NetworkRegister { metadata: vec![7; n as usize].into(), ..Default::default() }))
        }),
        Case::at_most(limit!(LISTENERS_MAX), &[64 * 16], Limit, |n| {
            said(Kind::Register(wire::NetworkRegister { listeners: listeners(n), ..Default::default() }))
        }),
        Case::at_most(limit!(LISTENERS_MAX), &[64 * 16], Limit, |n| {
            said(Kind::Update(wire::NetworkUpdate { listeners: listeners(n), ..Default::default() }))
        }),
        Case::at_most(limit!(PRUNE_ROWS_MAX), &[64 * 256, u32::MAX as u64], Limit, |n| {
            said(Kind::Prune(wire::HistoryPrune { before_us: 1, max_rows: n as u32 }))
        })
        .at_least(1),
        Case::at_most(limit!(PRECHECK_TYPES_MAX), &[64 * 16], Limit, |n| {
            let types = (0..n as u32).map(|n| wire::TypeRange { first: n, last: n }).collect();
            said(Kind::Precheck(wire::Precheck { types, ..Default::default() }))
        }),
        Case::at_most(limit!(PRECHECK_ACTORS_MAX), &[64 * 256], Limit, |n| {
            said(Kind::Precheck(wire::Precheck { actors: (0..n).collect(), ..Default::default() }))
        }),
        // Each party has one of at most some 2,500 bytes.
        Case::at_most(limit!(PRECHECKS_BYTES_MAX), &[6_000], Limit, prechecks),
        Case::at_most(limit!(CHANNEL_DELAY_MAX_MS), &[64 * 90 * 86_400_000, u64::MAX], BadContent, channel_delay),
        Case::at_most(("CHANNEL_DELAY_MIN_MS", limit!(CHANNEL_DELAY_MAX_MS).1), &[0], BadContent, channel_delay)
            .at_least(limit!(CHANNEL_DELAY_MIN_MS).1),
        Case::at_most(limit!(AMOUNT_MAX), &[u64::MAX], Code::BadAmount, |n| open_channel(1_000, n)),
        Case::at_most(limit!(UNIT_BYTES_MAX), &[64 * 81_920], Limit, unit),
    ]
}

pub fn bounds() -> Vec<Bound> {
    vec![
        ("PRUNE_AGE_MS", history_stays_until_it_is_old),
        ("PAGE_MAX", pages_of_networks),
        ("SESSION_ROUNDS", sessions_end_by_rounds),
        ("SESSIONS_PAGE", pages_of_sessions),
        ("UNITS_PAGE_BYTES", pages_of_units),
    ]
}

/// A command for a network, before a voter: what the log makes of it is not asked.
fn said(kind: Kind) -> Result<()> {
    orders::call(vec![], vec![command(kind)], 0)
}

fn command(kind: Kind) -> output::Kind {
    output::Kind::Network(wire::NetworkCommand { network_id: ID, kind: Some(kind) })
}

fn listeners(n: u64) -> Vec<Bytes> {
    vec![Bytes::from_static(&[7; 32]); n as usize]
}

fn channel_delay(delay_ms: u64) -> Result<()> {
    open_channel(delay_ms, 1)
}

fn open_channel(delay_ms: u64, amount: u64) -> Result<()> {
    let (opener, other) = (Bytes::from_static(&[1; 32]), Bytes::from_static(&[2; 32]));
    let open = wire::ChannelOpen { opener, other, delay_ms, amount, ..Default::default() };
    orders::call(vec![], vec![output::Kind::ChannelOpen(open)], 0)
}

/// A committee with a network of which `alice` is the admin.
fn network(flags: u32, listeners: Vec<Bytes>) -> (Cluster, Signer) {
    let (mut cluster, mut alice) = funded(10_000);
    let register = wire::NetworkRegister { flags, listeners, ..Default::default() };
    let actor = Actor::new(ID, 1, Curve::Ed25519).registration();
    let order = alice.call(vec![], vec![command(Kind::Register(register)), actor]);
    cluster.run_ordered(&[order]);
    (cluster, alice)
}

fn ordered(cluster: &mut Cluster, caller: &mut Signer, outputs: Vec<output::Kind>) -> Result<()> {
    let order = caller.call(vec![], outputs);
    cluster.run_ordered(&[order]);
    let status = cluster.status(0, caller, caller.seqnum);
    match Code::from_number(status.code) {
        None => Ok(()),
        Some(code) => Err(Error::new(code, status.message)),
    }
}

/// A precheck that takes so many bytes in the network's record, with whose it is.
fn precheck_of(bytes: usize) -> wire::Precheck {
    // An actor takes 8 bytes; what is between is made up by numbers of 1 to 5 bytes.
    let of = |actors: u64, content: u32, last: u32| wire::Precheck {
        types: vec![wire::TypeRange { first: 1, last: 1 << (7 * last) }],
        content_max: 1 << (7 * content),
        actors: (0..actors).collect(),
    };
    let size = |precheck: &wire::Precheck| {
        wire::NetworkPrecheck { by: vec![7; 32].into(), precheck: Some(precheck.clone()) }.encoded_len()
    };
    let all = (0..=256).flat_map(|actors| (0..25).map(move |i| of(actors, i % 5, i / 5)));
    all.into_iter().find(|precheck| size(precheck) == bytes).expect("a precheck of that size")
}

/// The listeners' and the admin's prechecks take so much in all.
fn prechecks(n: u64) -> Result<()> {
    let mut signers: Vec<Signer> = (2..5).map(Signer::new).collect();
    let listeners = signers.iter().map(|s| Bytes::copy_from_slice(s.address.as_bytes())).collect();
    let (mut cluster, _) = network(0, listeners);
    let mut left = n as usize;
    let kept = |cluster: &Cluster| {
        let log = &cluster.logs[0];
        log.log.network(&log.state, &wire::NetworkRequest { network_id: ID }).unwrap().network.unwrap()
    };
    for signer in &mut signers {
        let size = left.min(2_000);
        if size == 0 {
            break;
        }
        let before = kept(&cluster);
        left -= size;
        // What is left must not be too little for a precheck.
        let size = if left > 0 && left < 100 {
            left += 200;
            size - 200
        } else {
            size
        };
        let result = ordered(&mut cluster, signer, vec![command(Kind::Precheck(precheck_of(size)))]);
        if result.is_err() {
            assert_eq!(kept(&cluster), before);
            return result;
        }
    }
    let all: usize = kept(&cluster).prechecks.iter().map(Message::encoded_len).sum();
    assert_eq!((all, left), (n as usize, 0));
    Ok(())
}

fn unit(n: u64) -> Result<()> {
    let (mut cluster, _) = funded(1);
    let log = &mut cluster.logs[0];
    let before = log.state.clone();
    // Nothing of it decodes, so the log takes it and keeps nothing.
    let result = log.unit(0, &vec![0xff; n as usize].into()).map(drop);
    if result.is_err() {
        assert_eq!(log.state, before);
    }
    result
}

fn history_stays_until_it_is_old() {
    let (mut cluster, mut alice) = network(HISTORY, vec![]);
    let order = Actor::new(ID, 1, Curve::Ed25519).order(1, b"x", &[]);
    cluster.run(&[order]);
    let written_ms = NOW_US / 1_000;
    let mut rows = Vec::new();
    for time_ms in [written_ms, written_ms + PRUNE_AGE_MS, written_ms + PRUNE_AGE_MS + 1] {
        cluster.set_time(time_ms);
        let prune = wire::HistoryPrune { before_us: u64::MAX, max_rows: 256 };
        ordered(&mut cluster, &mut alice, vec![command(Kind::Prune(prune))]).unwrap();
        let node = &cluster.nodes[0][0];
        let request = wire::HistoryRequest { network_id: ID, from: 0, limit: 256 };
        let page = node.authority.history(&node.state, &request).unwrap().rows;
        rows.push(page.iter().filter(|row| row.time_us == NOW_US).count());
    }
    // Its registration and its order.
    assert_eq!(rows, [2, 2, 0]);
}

fn pages_of_networks() {
    let (mut cluster, mut alice) = funded(10_000);
    let register = |network_id| {
        let kind = Some(Kind::Register(wire::NetworkRegister::default()));
        output::Kind::Network(wire::NetworkCommand { network_id, kind })
    };
    for from in [1_000, 2_000] {
        ordered(&mut cluster, &mut alice, (0..OUTPUTS_MAX as u64).map(|i| register(from + i)).collect()).unwrap();
    }
    let log = &cluster.logs[0];
    for (limit, expected) in [(255, 255), (256, 256), (257, 256), (u32::MAX, 256)] {
        let page = log.log.networks(&log.state, &wire::NetworksRequest { from: 0, limit }).unwrap();
        assert!(page.networks.len() == expected && expected <= PAGE_MAX && page.next > 0, "{limit}");
    }
}

fn ends_session(round: u32) -> bool {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let unit = Input::Unit { session: 0, position: 0, creator: 0, round, data: Bytes::from_static(b"x") };
    cluster.logs[0].step(unit).unwrap().closed.is_some()
}

fn sessions_end_by_rounds() {
    let rounds = [SESSION_ROUNDS - 1, SESSION_ROUNDS, SESSION_ROUNDS + 1, 64 * SESSION_ROUNDS, u32::MAX];
    assert_eq!(rounds.map(ends_session), [false, true, true, true, true]);
}

fn pages_of_sessions() {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let sessions = SESSIONS_PAGE as u64 + 1;
    for session in 0..sessions {
        let data = Bytes::from_static(b"x");
        let end = Input::Unit { session, position: 0, creator: 0, round: SESSION_ROUNDS, data };
        let ended: Vec<_> = cluster.logs[..3].iter_mut().map(|log| log.step(end.clone()).unwrap().closed).collect();
        for (session, signature) in ended.into_iter().flatten() {
            cluster.logs[0].step(Input::Signature { session, signature }).unwrap();
        }
    }
    let log = &cluster.logs[0];
    for (limit, expected) in [(255, 255), (256, 256), (257, 256), (u32::MAX, 256)] {
        let page = log.log.sessions(&log.state, &wire::SessionsRequest { from: 0, limit }).unwrap();
        assert_eq!(page.sessions.len(), expected, "{limit}");
    }
    let last = log.log.sessions(&log.state, &wire::SessionsRequest { from: sessions - 1, limit: 9 }).unwrap();
    assert_eq!(last.sessions.len(), 1);
}

/// As if units of these sizes had been ordered.
fn pages_of_units() {
    let (mut cluster, _) = funded(1);
    let log = &mut cluster.logs[0];
    // What a unit adds to its data in a page, by the node's own count.
    let part = UNITS_PAGE_BYTES / 16 - 16;
    let sizes = |last: &[usize]| [&[part; 15][..], last].concat();
    for (sizes, shown) in [
        (sizes(&[part]), 16),
        (sizes(&[part + 1]), 15),
        (sizes(&[part, part]), 16),
        (vec![UNIT_BYTES_MAX; 64], UNITS_PAGE_BYTES / (UNIT_BYTES_MAX + 16)),
    ] {
        let unit = |(i, size): (usize, &usize)| {
            let unit = wire::OrderedUnit { creator: 0, data: vec![7; *size].into() };
            Write::put(Table::Units, unit_key(0, i as u32), unit.encode_to_vec())
        };
        log.state.apply(&sizes.iter().enumerate().map(unit).collect::<Vec<_>>());
        let mut book = log.log.book(&log.state).unwrap();
        book.units = sizes.len() as u32;
        log.state.apply(&[Write::put(Table::Meta, BOOK_KEY, book.encode().encode_to_vec())]);
        let page = log.log.units(&log.state, &wire::UnitsRequest { session: 0, from: 0 }).unwrap();
        assert_eq!(page.units.len(), shown);
        assert!(page.units.iter().map(|unit| unit.data.len()).sum::<usize>() <= UNITS_PAGE_BYTES);
    }
}
