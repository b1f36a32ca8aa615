//! A network's history, with the time of each row as the median of a quorum's.
//!
//! A row's id is its position in the stream of the authority that is asked for the rows; only in networks with the flag
//! ORDERED others have the same. Rows are therefore matched by what they are: the event, the order that it comes from and, where
//! that isn't a transaction, the data. A row counts when a quorum has it; an honest authority's time stands on either
//! side of the median, so no `f` liars move it beyond honest clocks.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use florin_core::envelope::Order;
use florin_core::limits::PAGE_MAX;
use florin_core::wire::{self, history_row::Event};
use florin_core::{Code, Error, Result};
use florin_rpc::errors::from_status;

use super::refused_alike;
use crate::network::Network;

/// Pages of another authority that are looked through for the rows of one page, on either side.
const PAGES: usize = 8;
/// How far before its position here a row is looked for first.
const SLACK: u64 = 64;

/// A row that a quorum has.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Position in the stream of the authority that was asked for the rows.
    pub id: u64,
    /// What happened.
    pub event: Event,
    /// Metadata, permission, actor (8 bytes, big-endian) or transaction.
    pub data: Bytes,
    /// Order that it comes from; empty for metadata.
    pub trx_id: Bytes,
    /// Median of a quorum's clocks when it settled there, us since 1970.
    pub time_us: u64,
    /// Authorities that have it.
    pub agreeing: usize,
}

/// A page of a network's history.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// In the order of the authority that was asked for them.
    pub rows: Vec<Row>,
    /// The authority whose ids they are.
    pub authority: usize,
    /// Id to go on from; 0: there is no more.
    pub next: u64,
    /// The id of a row that fewer than a quorum have, at which the page ends: it settles there in a moment, or the authority has
    /// made it up.
    pub unsettled: Option<u64>,
}

/// A row by what it is, and how often that was there before.
type Key = (i32, Bytes, Bytes, usize);

/// Rows from an id on, at most `limit` (1 to [`PAGE_MAX`]), as `authority` numbers them, or else the first that answers. Errors:
/// `UNKNOWN_NETWORK`, `BAD_CONTENT` if the network keeps no history, `QUORUM_UNREACHABLE`.
pub async fn history(
    network: &Network,
    network_id: u64,
    authority: Option<usize>,
    from: u64,
    limit: u32,
) -> Result<History> {
    let from = from.max(1);
    let limit = limit.clamp(1, PAGE_MAX as u32);
    let (authority, page) = first_page(network, network_id, authority, from, limit).await?;
    let keys = keys(&page.rows);
    let mut said: BTreeMap<Key, Vec<u64>> = BTreeMap::new();
    for (row, key) in page.rows.iter().zip(&keys) {
        said.entry(key.clone()).or_default().push(row.time_us);
    }
    let (first, last) = (page.rows.first().map_or(from, |r| r.id), page.rows.last().map_or(from, |r| r.id));
    let others = (0..network.committee().size()).filter(|other| *other != authority);
    let asked = others.map(|other| find(network, network_id, other, &keys, first, last));
    let mut answered = 1;
    for found in join_all(asked).await.into_iter().flatten() {
        answered += 1;
        found.into_iter().for_each(|(key, time)| said.entry(key).or_default().push(time));
    }
    let quorum = network.committee().quorum();
    if answered < quorum {
        let message = format!("{answered} authorities answer, {quorum} are needed for the times of a history");
        return Err(Error::new(Code::QuorumUnreachable, message));
    }
    Ok(believed(authority, page, &keys, &said, quorum))
}

/// The rows that a quorum has, up to the first that fewer have.
fn believed(
    authority: usize,
    page: wire::HistoryReply,
    keys: &[Key],
    said: &BTreeMap<Key, Vec<u64>>,
    quorum: usize,
) -> History {
    let mut result = History { rows: Vec::new(), authority, next: page.next, unsettled: None };
    for (row, key) in page.rows.into_iter().zip(keys) {
        let mut times = said.get(key).cloned().unwrap_or_default();
        if times.len() < quorum {
            (result.next, result.unsettled) = (row.id, Some(row.id));
            break;
        }
        times.sort_unstable();
        result.rows.push(Row {
            id: row.id,
            event: row.event(),
            data: row.data,
            trx_id: row.trx_id,
            time_us: times[(times.len() - 1) / 2],
            agreeing: times.len(),
        });
    }
    result
}

/// The page of the authority whose ids are asked for.
async fn first_page(
    network: &Network,
    network_id: u64,
    authority: Option<usize>,
    from: u64,
    limit: u32,
) -> Result<(usize, wire::HistoryReply)> {
    let mut refusals: Vec<Result<wire::HistoryReply>> = Vec::new();
    let candidates = authority.map_or((0..network.committee().size()).collect(), |one| vec![one]);
    for candidate in candidates {
        match page(network, network_id, candidate, from, limit).await {
            Ok(page) => return Ok((candidate, page)),
            Err(e) if authority.is_some() => return Err(e),
            Err(e) => refusals.push(Err(e)),
        }
        if let Some(e) = refused_alike(network, &refusals) {
            return Err(e);
        }
    }
    crate::wallet::need(network.committee(), &refusals, 1)?;
    Err(Error::new(Code::QuorumUnreachable, "no authority answers"))
}

/// One page of one authority: rows that ascend, transactions that are what they say.
async fn page(
    network: &Network,
    network_id: u64,
    authority: usize,
    from: u64,
    limit: u32,
) -> Result<wire::HistoryReply> {
    let shard = network.committee().shard_of(network_id, 0);
    let request = wire::HistoryRequest { network_id, from, limit };
    let mut reply = network.authority(authority, shard).history(request).await.map_err(from_status)?.into_inner();
    reply.rows.truncate(limit as usize);
    let ascends = reply.rows.windows(2).all(|w| w[0].id < w[1].id) && reply.rows.iter().all(|r| r.id >= from);
    let after = reply.rows.last().map_or(from, |r| r.id + 1);
    if !ascends || (reply.next != 0 && reply.next < after) || (reply.rows.is_empty() && reply.next != 0) {
        return Err(Error::new(Code::Decode, "a page of a history whose ids do not ascend"));
    }
    for row in reply.rows.iter().filter(|r| r.event() == Event::Exectrx) {
        let order = Order::decode(row.data.clone())?;
        if order.network_id != network_id || order.id[..] != row.trx_id[..] {
            return Err(Error::new(Code::BadProof, format!("row {} has another transaction than it says", row.id)));
        }
    }
    Ok(reply)
}

fn keys(rows: &[wire::HistoryRow]) -> Vec<Key> {
    let mut seen: BTreeMap<(i32, Bytes, Bytes), usize> = BTreeMap::new();
    rows.iter()
        .map(|row| {
            let key = bare(row);
            let count = seen.entry(key.clone()).or_insert(0);
            *count += 1;
            (key.0, key.1, key.2, *count)
        })
        .collect()
}

fn bare(row: &wire::HistoryRow) -> (i32, Bytes, Bytes) {
    // The signatures of one transaction may differ.
    let data = if row.event() == Event::Exectrx { Bytes::new() } else { row.data.clone() };
    (row.event, row.trx_id.clone(), data)
}

/// When an authority settled what these keys name, as far as it has it: first in and after the place where the other has it,
/// then before.
async fn find(
    network: &Network,
    network_id: u64,
    authority: usize,
    wanted: &[Key],
    first: u64,
    last: u64,
) -> Result<Vec<(Key, u64)>> {
    let start = first.saturating_sub(SLACK).max(1);
    let mut found: BTreeMap<Key, u64> = BTreeMap::new();
    let mut missing: BTreeSet<&Key> = wanted.iter().collect();
    let mut take = |rows: &[wire::HistoryRow], missing: &mut BTreeSet<&Key>| {
        // The same metadata may be set again and again; then they match in turn.
        for row in rows {
            let (event, trx_id, data) = bare(row);
            let next = missing.iter().find(|k| (k.0, &k.1, &k.2) == (event, &trx_id, &data)).copied();
            if let Some(key) = next {
                missing.remove(key);
                found.insert(key.clone(), row.time_us);
            }
        }
    };
    let mut at = start;
    for _ in 0..PAGES {
        let reply = page(network, network_id, authority, at, PAGE_MAX as u32).await?;
        take(&reply.rows, &mut missing);
        let beyond = reply.rows.last().is_none_or(|r| r.id > last + SLACK * PAGES as u64);
        if missing.is_empty() || reply.next == 0 || beyond {
            break;
        }
        at = reply.next;
    }
    let mut end = start;
    for _ in 0..PAGES {
        if missing.is_empty() || end <= 1 {
            break;
        }
        let from = end.saturating_sub(PAGE_MAX as u64).max(1);
        let reply = page(network, network_id, authority, from, (end - from) as u32).await?;
        take(&reply.rows, &mut missing);
        if reply.rows.is_empty() {
            break;
        }
        end = from;
    }
    Ok(found.into_iter().collect())
}

async fn join_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut all = true;
        for (future, done) in running.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            match future.as_mut().poll(context) {
                std::task::Poll::Ready(value) => *done = Some(value),
                std::task::Poll::Pending => all = false,
            }
        }
        if all { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u64, time_us: u64) -> wire::HistoryRow {
        let event = Event::Regactor as i32;
        wire::HistoryRow { id, event, trx_id: vec![id as u8].into(), time_us, ..Default::default() }
    }

    /// What comes of a page of the first authority, with what the others say of each row.
    fn merged(times: &[&[u64]]) -> History {
        let rows: Vec<_> = times.iter().enumerate().map(|(i, times)| row(i as u64 + 1, times[0])).collect();
        let keys = keys(&rows);
        let said = keys.iter().cloned().zip(times.iter().map(|t| t.to_vec())).collect();
        believed(0, wire::HistoryReply { rows, next: 0 }, &keys, &said, 3)
    }

    #[test]
    fn no_liar_moves_a_time_beyond_honest_clocks() {
        for lie in [0, 10, u64::MAX] {
            for times in [vec![lie, 10, 20, 30], vec![10, lie, 20], vec![30, 20, 10, lie]] {
                let time = merged(&[&times]).rows[0].time_us;
                assert!((10..=30).contains(&time), "{time} of {times:?}");
            }
        }
    }

    #[test]
    fn a_row_that_few_have_ends_the_page() {
        let history = merged(&[&[1, 2, 3], &[4, 5], &[7, 8, 9]]);
        assert_eq!(history.rows.iter().map(|r| (r.id, r.time_us)).collect::<Vec<_>>(), [(1, 2)]);
        assert_eq!((history.next, history.unsettled), (2, Some(2)));
    }

    #[test]
    fn the_same_event_again_is_another_row() {
        let mut rows = vec![row(1, 5), row(1, 9)];
        rows[1].id = 2;
        let keys = keys(&rows);
        assert_ne!(keys[0], keys[1]);
    }
}
