//! The log of two authorities that get the same units, and accounts whose orders a quorum certifies at once.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::authority::state::{State, Table};
use florin_core::batch::decode_batch;
use florin_core::bearer::NoteSpent;
use florin_core::bitmap::Bitmap;
use florin_core::certificate::{Promise, sign};
use florin_core::committee::Committee;
use florin_core::content::{Action, Content, TYPE_BEARER};
use florin_core::envelope::Order;
use florin_core::merkle::{Hash, Tree};
use florin_core::ordered::audit::audit_log;
use florin_core::ordered::book::Book;
use florin_core::ordered::input::Input;
use florin_core::ordered::{OrderedLog, item};
use florin_core::signatures::AuthorityKey;
use florin_core::testing::{LogNode, MemState, NETWORK_ID, Signer, TestCommittee};
use florin_core::wire::{self, output};
use prost::Message;

/// Log time when a ledger begins, ms.
pub const START: u64 = 1_700_000_000_000;

struct Base {
    committee: Arc<Committee>,
    keys: Vec<Arc<AuthorityKey>>,
    /// Of each of the two.
    states: [MemState; 2],
    signers: Vec<Signer>,
}

static BASE: LazyLock<Base> = LazyLock::new(|| {
    let (committee, keys) = TestCommittee::new(4, 2).build();
    let mut ledger = Ledger {
        logs: [0, 1].map(|i| log(&committee, &keys, i, MemState::default())),
        signers: (1..=4).map(Signer::new).collect(),
        committee,
        keys,
        units: Vec::new(),
        certified: BTreeMap::new(),
    };
    ledger.clocks(START);
    let states = ledger.logs.map(|log| log.state);
    Base { committee: ledger.committee, keys: ledger.keys, states, signers: ledger.signers }
});

fn log(committee: &Arc<Committee>, keys: &[Arc<AuthorityKey>], index: usize, state: MemState) -> LogNode {
    LogNode { log: OrderedLog::new(committee.clone(), index as u32, keys[index].clone()), state }
}

/// The two logs.
pub struct Ledger {
    /// The committee.
    pub committee: Arc<Committee>,
    /// All its keys.
    pub keys: Vec<Arc<AuthorityKey>>,
    /// Of authorities 0 and 1.
    pub logs: [LogNode; 2],
    /// Accounts.
    pub signers: Vec<Signer>,
    /// Every unit since the start: creator, data.
    pub units: Vec<(u32, Bytes)>,
    /// What a quorum has voted for, by place.
    certified: BTreeMap<Vec<u8>, Bytes>,
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger::new()
    }
}

impl Ledger {
    /// At [`START`], without objects.
    pub fn new() -> Ledger {
        let base = &*BASE;
        let logs = [0, 1].map(|i| log(&base.committee, &base.keys, i, base.states[i].clone()));
        let (committee, keys) = (base.committee.clone(), base.keys.clone());
        Ledger { committee, keys, logs, signers: base.signers.clone(), units: Vec::new(), certified: BTreeMap::new() }
    }

    /// Where the first log is.
    pub fn book(&self) -> Book {
        self.logs[0].log.book(&self.logs[0].state).expect("a state in memory")
    }

    /// Log time, ms.
    pub fn time(&self) -> u64 {
        self.book().time_ms
    }

    /// Both logs apply the next unit, and come to the same.
    pub fn unit(&mut self, creator: u32, data: &Bytes) {
        for log in &mut self.logs {
            let result = log.unit(creator, data);
            if let Err(e) = result {
                assert!(!e.is_own_fault(), "a state in memory is whole: {e}");
            }
        }
        self.units.push((creator, data.clone()));
        let books = [0, 1].map(|i| self.logs[i].log.book(&self.logs[i].state).expect("a state in memory"));
        assert_eq!(books[0], books[1], "the same units lead to the same state");
    }

    /// Items of one authority, with its clock (0: none).
    pub fn items(&mut self, creator: u32, clock_ms: u64, items: Vec<Bytes>) {
        for data in item::pack(clock_ms, items) {
            self.unit(creator, &data);
        }
    }

    /// All clocks say so.
    pub fn clocks(&mut self, now_ms: u64) {
        (0..4).for_each(|authority| self.items(authority, now_ms, Vec::new()));
    }

    /// A certificate of all orders by authorities 0 to 2, and the item for the log.
    pub fn certify(&self, orders: &[Bytes]) -> wire::Item {
        let batch = decode_batch(orders).expect("a batch within the limits");
        let all = Bitmap::full(orders.len());
        let vote = |i: usize| sign(Promise::Vote, &self.committee, i as u32, &self.keys[i], &batch.id, &all);
        let certificate = wire::Certificate {
            epoch: self.committee.epoch,
            root: Bytes::copy_from_slice(&batch.id.root),
            count: orders.len() as u32,
            votes: (0..3).map(vote).collect(),
        };
        let decoded: Vec<Order> = batch.orders.into_iter().map(|o| o.expect("a signer's order")).collect();
        let ids: Vec<Hash> = decoded.iter().map(|o| o.id).collect();
        let indices: Vec<usize> = (0..orders.len()).collect();
        let proof = Tree::new(&ids).parts(&indices).iter().map(|h| Bytes::copy_from_slice(h)).collect();
        let orders = wire::CertifiedOrders {
            certificate: Some(certificate),
            indices: indices.iter().map(|i| *i as u32).collect(),
            bodies: decoded.into_iter().map(|o| o.body).collect(),
            proof,
        };
        wire::Item { kind: Some(wire::item::Kind::Orders(orders)) }
    }

    /// What a quorum votes for once, of orders that honest authorities may have certified: an account's place, or a note and how
    /// often the log had freed it. None: they would not.
    fn places(&self, raw: &Bytes) -> Option<Vec<Vec<u8>>> {
        let order = Order::decode(raw.clone()).ok()?;
        Some(match Content::decode(&order).map(|c| c.action) {
            Ok(Action::Recover { .. }) => Vec::new(),
            Ok(Action::Bearer(bearer) | Action::RecoverNotes(bearer)) => {
                let known = |note: &NoteSpent| {
                    let record = self.logs[0].state.get(Table::Objects, &[&b"m"[..], &note.nonce.0].concat());
                    let record = record.expect("a state in memory").unwrap_or_default();
                    wire::NoteRecoveryRecord::decode(record).expect("the log's own record").recoveries
                };
                if bearer.notes.iter().any(|note| note.recoveries > known(note)) {
                    return None;
                }
                let spends = order.transaction_type == TYPE_BEARER;
                let place = |n: &NoteSpent| [&n.recoveries.to_be_bytes()[..], &n.nonce.0].concat();
                bearer.notes.iter().filter(|_| spends).map(place).collect()
            }
            _ => {
                let place =
                    [order.actor.to_be_bytes(), u64::from(order.seqnum).to_be_bytes(), order.prev_hash.to_be_bytes()];
                vec![place.concat()]
            }
        })
    }

    /// The log takes these orders, as certified, unless they exclude others that were.
    pub fn order(&mut self, orders: &[Bytes]) {
        for raw in orders {
            let Some(places) = self.places(raw) else { return };
            if places.iter().any(|place| self.certified.get(place).is_some_and(|other| other != raw)) {
                return;
            }
            self.certified.extend(places.into_iter().map(|place| (place, raw.clone())));
        }
        let item = self.certify(orders).encode_to_vec().into();
        self.items(0, 0, vec![item]);
    }

    /// A signer's CALL, if honest authorities would vote for its form: its id, and 0 or the code that it failed with.
    pub fn call(&mut self, signer: usize, inputs: Vec<wire::Input>, outputs: Vec<output::Kind>) -> Option<(Hash, u32)> {
        let before = self.signers[signer].clone();
        let raw = self.signers[signer].call(inputs, outputs);
        let order = Order::decode(raw.clone()).expect("a signer's order");
        if Content::decode(&order).is_err() {
            self.signers[signer] = before;
            return None;
        }
        self.order(&[raw]);
        Some((order.id, self.status(signer).code))
    }

    /// What became of a signer's last order.
    pub fn status(&self, signer: usize) -> wire::OrderStatus {
        let of = &self.signers[signer];
        let request = wire::OrderStatusRequest {
            network_id: NETWORK_ID,
            actor: of.actor(),
            seqnum: of.seqnum,
            ..Default::default()
        };
        let log = &self.logs[0];
        log.log.order_status(&log.state, &request, wire::OrderStatus::default()).expect("a state in memory")
    }

    /// A channel as the log has it.
    pub fn channel(&self, id: &[u8]) -> Option<wire::ChannelRecord> {
        let log = &self.logs[0];
        let request = wire::ChannelRequest { channel: Bytes::copy_from_slice(id) };
        log.log.channel(&log.state, &request).expect("a state in memory").channel
    }

    /// An address of a signer.
    pub fn address(&self, signer: usize) -> Bytes {
        Bytes::copy_from_slice(self.signers[signer].address.as_bytes())
    }

    /// The index of the account with this address.
    pub fn signer_of(&self, address: &Address) -> Option<usize> {
        self.signers.iter().position(|s| s.address == *address)
    }

    /// Its books are in order, as the audit derives them again; and whoever applies what was kept of the units of the open session
    /// on top of what was before comes to the same.
    pub fn check(&self) {
        let audit = audit_log(&self.logs[0].log, &self.logs[0].state, true).expect("a state in memory");
        assert_eq!(audit.findings, Vec::<String>::new());
        let book = self.book();
        if book.session > 0 {
            return;
        }
        let mut later = log(&self.committee, &self.keys, 2, MemState::default());
        let request = |from| wire::UnitsRequest { session: 0, from };
        let mut from = 0;
        while from < book.units {
            let page = self.logs[0].log.units(&self.logs[0].state, &request(from)).expect("its own session");
            for unit in page.units {
                later.unit(unit.creator, &unit.data).expect("what the log has kept");
                from += 1;
            }
        }
        let again = later.log.book(&later.state).expect("a state in memory");
        assert_eq!((again.state_hash, again.units), (book.state_hash, book.units), "who catches up comes to the same");
    }

    /// All that the state hash covers, for comparing.
    pub fn objects(&self) -> BTreeMap<Vec<u8>, Bytes> {
        let state = &self.logs[0].state;
        state.iter(Table::Objects).map(|(key, value)| (key.to_vec(), value.clone())).collect()
    }

    /// An input to both logs that is no unit; whether both took it.
    pub fn both(&mut self, input: &Input) -> bool {
        let taken = self.logs.iter_mut().map(|log| {
            let before = log.state.clone();
            match log.step(input.clone()) {
                Ok(_) => true,
                Err(e) => {
                    // That an own shard has applied what was never sent is this authority's fault.
                    assert!(matches!(input, Input::Delivered { .. }) || !e.is_own_fault(), "{e}");
                    assert!(log.state == before, "what is refused changes nothing");
                    false
                }
            }
        });
        let taken: Vec<bool> = taken.collect();
        taken[0] && taken[1]
    }

    /// Whether a key of a table is there.
    pub fn has(&self, table: Table, key: &[u8]) -> bool {
        self.logs[0].state.get(table, key).expect("a state in memory").is_some()
    }
}
