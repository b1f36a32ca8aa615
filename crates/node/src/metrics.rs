//! What an operator's Prometheus scrapes. Values are read when asked for; nothing is counted twice.

use std::sync::atomic::{AtomicU64, Ordering};

use florin_core::{Code, Error, Result};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::follow::UNREACHABLE;
use crate::service::Services;

type Labels = Vec<(String, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
type Counters = Family<Labels, Counter<f64, AtomicU64>>;

/// The page, in OpenMetrics text.
pub fn text(services: &Services) -> Result<String> {
    let mut registry = Registry::with_prefix("florin");
    let mut counter = |name: &str, help: &str| {
        let family = Counters::default();
        registry.register(name, help, family.clone());
        family
    };
    let settled = counter("orders_settled", "Orders settled");
    let seen = counter("orders_seen", "Orders of batches that votes were asked for");
    let refused = counter("orders_refused", "Orders refused");
    let votes = counter("vote_requests", "Batches that votes were asked for");
    let settles = counter("settle_requests", "Certificates handed in");
    let syncs = counter("disk_syncs", "Syncs to disk");
    let reads =
        counter("account_reads", "Looks at accounts that were not just written, by where they were looked for last");
    let cpu = Counters::default();
    registry.register_with_unit("cpu", "CPU time by what it was spent on", Unit::Seconds, cpu.clone());
    let mut gauge = |name: &str, help: &str| {
        let family = Gauges::default();
        registry.register(name, help, family.clone());
        family
    };
    let outbox = gauge("outbox", "Deliveries to other shards not yet acknowledged");
    let waiting = gauge("orders_waiting", "Certified orders that wait for an earlier one");
    let lag = gauge("lag", "Entries of a peer's settled stream not yet looked at");
    let following = gauge("following", "1 if the peer's settled stream is being followed");
    let faulty = gauge("faulty", "1 if the shard votes for nothing");
    let accounts = gauge("accounts_minor_units", "Sum of all balances of the shard");
    let kept = gauge("accounts_in_memory", "Accounts kept in memory");
    let kept_bytes = gauge("accounts_memory_bytes", "Bytes of the accounts kept in memory");
    let disk = gauge("disk_bytes", "Bytes of the data folder");
    let session = gauge("log_session", "Session of the log that is open");
    let signed = gauge("log_signed_sessions", "Sessions of the log that a quorum has signed");
    let ordered = gauge("log_orders", "Orders that the log has applied");
    let queued = gauge("log_queued", "Orders of this process that wait for the log");
    let time = gauge("log_time_seconds", "Log time, seconds since 1970");
    let log_faulty = gauge("log_faulty", "1 if the log orders nothing");
    if let Some(log) = &services.log {
        let (status, labels) = (services.log_status()?, Labels::new());
        let orders = log.shell.log().book(log.shell.store())?.orders;
        session.get_or_create(&labels).set(status.session as f64);
        signed.get_or_create(&labels).set(status.signed_sessions as f64);
        ordered.get_or_create(&labels).set(orders as f64);
        queued.get_or_create(&labels).set(status.queued as f64);
        time.get_or_create(&labels).set(status.time_ms as f64 / 1e3);
        log_faulty.get_or_create(&labels).set(if status.fault.is_empty() { 0.0 } else { 1.0 });
    }

    for status in services.status()? {
        let shard = &services.shards[&status.shard];
        let labels = vec![("shard".to_owned(), status.shard.to_string())];
        let counters = shard.counters();
        let count = |family: &Counters, value: u64| {
            family.get_or_create(&labels).inc_by(value as f64);
        };
        count(&settled, status.orders_settled);
        count(&seen, counters.orders_seen.load(Ordering::Relaxed));
        count(&refused, counters.orders_refused.load(Ordering::Relaxed));
        count(&votes, counters.vote_requests.load(Ordering::Relaxed));
        count(&settles, counters.settle_requests.load(Ordering::Relaxed));
        count(&syncs, counters.syncs.load(Ordering::Relaxed));
        for (kind, time) in counters.cpu.read() {
            let mut labels = labels.clone();
            labels.push(("kind".into(), kind.into()));
            cpu.get_or_create(&labels).inc_by(time.as_secs_f64());
        }
        let memory = shard.store().accounts_memory();
        kept.get_or_create(&labels).set(memory.accounts as f64);
        kept_bytes.get_or_create(&labels).set(memory.bytes as f64);
        for (place, count) in [("memory", memory.found), ("tables", memory.missed)] {
            let mut labels = labels.clone();
            labels.push(("place".into(), place.into()));
            reads.get_or_create(&labels).inc_by(count as f64);
        }
        outbox.get_or_create(&labels).set(status.outbox as f64);
        waiting.get_or_create(&labels).set(status.waiting as f64);
        faulty.get_or_create(&labels).set(if status.fault.is_empty() { 0.0 } else { 1.0 });
        accounts.get_or_create(&labels).set(shard.authority().totals(shard.store())?.accounts as f64);
        disk.get_or_create(&labels).set(shard.store().disk_bytes() as f64);
        for (peer, entries) in status.lag.iter().enumerate().filter(|(peer, _)| *peer as u32 != services.index) {
            let mut labels = labels.clone();
            labels.push(("peer".into(), services.committee.authorities[peer].name.clone()));
            // No sample is better than a stale one: what can't be followed has no lag that anyone knows.
            let known = *entries != UNREACHABLE;
            following.get_or_create(&labels).set(if known { 1.0 } else { 0.0 });
            if known {
                lag.get_or_create(&labels).set(*entries as f64);
            }
        }
    }
    let mut page = String::new();
    encode(&mut page, &registry).map_err(|e| Error::new(Code::Io, format!("metrics: {e}")))?;
    Ok(page)
}
