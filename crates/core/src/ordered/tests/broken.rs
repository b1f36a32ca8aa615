//! The audit of logs that broke the rules: units and records as a program with a fault would leave them.

mod channels;
mod networks;
mod orders;
mod outbox;
mod records;
mod sessions;

use prost::Message;

use super::*;
use crate::authority::mint::is_bearer;
use crate::authority::state::State as _;
use crate::envelope::Order;
use crate::ordered::OrderedLog;
use crate::ordered::bearers::bearer_key;
use crate::ordered::book::BOOK_KEY;
use crate::ordered::orders::outcome_key;
use crate::ordered::session::unit_key;

/// A log to which anything can be done.
struct Broken {
    log: OrderedLog,
    state: MemState,
    place: (u64, u32),
}

impl Broken {
    /// The log of authority 0, as it is so far.
    fn of(cluster: &Cluster) -> Broken {
        let (log, state) = (&cluster.logs[0].log, cluster.logs[0].state.clone());
        let book = log.book(&state).unwrap();
        let log = OrderedLog::new(cluster.committee.clone(), 0, cluster.keys[0].clone());
        Broken { log, state, place: (book.session, book.units) }
    }

    /// An empty log, at 1,000 ms.
    fn new() -> Broken {
        let mut cluster = Cluster::new(&TestCommittee::new(4, 2));
        cluster.set_time(1_000);
        Broken::of(&cluster)
    }

    fn unit(&mut self, clock: Option<(u32, u64)>, items: Vec<wire::item::Kind>) {
        let items = items.into_iter().map(|kind| wire::Item { kind: Some(kind) }.encode_to_vec().into()).collect();
        let (creator, clock_ms) = clock.unwrap_or_default();
        let data = wire::UnitData { clock_ms, items }.encode_to_vec().into();
        let unit = wire::OrderedUnit { creator, data };
        let key = unit_key(self.place.0, self.place.1);
        self.state.apply(&[Write::put(Table::Units, key, unit.encode_to_vec())]);
        self.place.1 += 1;
    }

    /// All clocks say so.
    fn time(&mut self, ms: u64) {
        (0..4).for_each(|authority| self.unit(Some((authority, ms)), vec![]));
    }

    /// A unit with an order, without its certificate.
    fn orders(&mut self, orders: &[&Bytes]) {
        let bodies = orders.iter().map(|order| Order::decode((*order).clone()).unwrap().body).collect();
        let orders = wire::CertifiedOrders { bodies, ..Default::default() };
        self.unit(None, vec![wire::item::Kind::Orders(orders)]);
    }

    /// What became of an order in the last unit.
    fn outcome(&mut self, order: &Bytes, code: u32, message: &str) {
        let order = Order::decode(order.clone()).unwrap();
        let record = wire::OutcomeRecord {
            order_id: Bytes::copy_from_slice(&order.id),
            session: self.place.0,
            index: self.place.1 - 1,
            code,
            message: message.to_owned(),
        };
        let key = match is_bearer(&order) {
            true => bearer_key(&order.id),
            false => outcome_key(order.network_id, order.actor, order.seqnum),
        };
        self.put(key, &record);
    }

    /// A unit with an order that is applied, whether it may be or not.
    fn applied(&mut self, order: &Bytes) {
        self.orders(&[order]);
        self.outcome(order, 0, "");
    }

    fn put<M: Message>(&mut self, key: Vec<u8>, record: &M) {
        self.state.apply(&[Write::put(Table::Objects, key, record.encode_to_vec())]);
    }

    fn change<M: Message + Default>(&mut self, table: Table, key: &[u8], change: impl FnOnce(&mut M)) {
        let mut record = M::decode(self.state.get(table, key).unwrap().expect("a record")).unwrap();
        change(&mut record);
        self.state.apply(&[Write::put(table, key, record.encode_to_vec())]);
    }

    fn audit(&self) -> LogAudit {
        audit_log(&self.log, &self.state, false).unwrap()
    }

    /// How many findings have this text.
    fn says(&self, text: &str) -> usize {
        let audit = self.audit();
        assert_eq!(audit.findings_total, audit.findings.len() as u64, "few enough to look at");
        audit.findings.iter().filter(|found| found.contains(text)).count()
    }
}
