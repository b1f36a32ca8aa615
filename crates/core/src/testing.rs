//! What tests and the simulator build on: a state in memory, committees and keys from fixed seeds,
//! signers, and a whole committee in one process. Not for production: keys are public, errors panic.

mod signers;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::address::Address;
use crate::authority::effect::{Effects, Reply};
use crate::authority::input::Input;
use crate::authority::state::{Account, LOG, State, Table, Write};
use crate::authority::{Authority, NoMeter};
use crate::batch::decode_batch;
use crate::bitmap::Bitmap;
use crate::cash::testing::{Note, Purse};
use crate::committee::{AuthorityInfo, Committee, Network};
use crate::content::Credit;
use crate::envelope::Order;
use crate::error::Result;
use crate::keys::{Curve, SecretKey};
use crate::ordered::{self, OrderedLog, item};
use crate::signatures::AuthorityKey;
use crate::wire;

pub use signers::{Actor, Signer, spoil};

/// Network id of every test committee.
pub const NETWORK_ID: u64 = 77;
/// The clock of every authority, us since 1970.
pub const NOW_US: u64 = 1_700_000_000_000_000;

/// A seed from a name and a number.
pub fn seed(name: &str, number: u64) -> [u8; 32] {
    Sha256::new().chain_update(b"florin-test").chain_update(name).chain_update(number.to_be_bytes()).finalize().into()
}

/// A secret key from a number.
pub fn secret(curve: Curve, number: u64) -> SecretKey {
    SecretKey::from_seed(curve, seed("account", number)).expect("a hash is below the order but for a chance of 2^-32")
}

/// An output.
pub fn to(address: Address, amount: u64) -> Credit {
    Credit { address, amount }
}

/// One shard's tables in memory.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct MemState {
    tables: BTreeMap<Table, BTreeMap<Vec<u8>, Bytes>>,
}

impl MemState {
    /// Applies writes.
    pub fn apply(&mut self, writes: &[Write]) {
        for write in writes {
            let table = self.tables.entry(write.table).or_default();
            match &write.value {
                Some(value) => table.insert(write.key.clone(), Bytes::copy_from_slice(value)),
                None => table.remove(&write.key),
            };
        }
    }

    /// Entries of a table, ascending.
    pub fn iter(&self, table: Table) -> impl Iterator<Item = (&[u8], &Bytes)> {
        self.tables.get(&table).into_iter().flatten().map(|(k, v)| (k.as_slice(), v))
    }
}

impl State for MemState {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.tables.get(&table).and_then(|t| t.get(key)).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let Some(entries) = self.tables.get(&table) else { return Ok(Vec::new()) };
        let page = entries.range(from.to_vec()..).take(limit);
        Ok(page.map(|(k, v)| (Bytes::copy_from_slice(k), v.clone())).collect())
    }
}

/// A committee in the making.
#[derive(Clone, Debug)]
pub struct TestCommittee {
    /// Members.
    pub authorities: usize,
    /// Shards.
    pub shards: u32,
    /// How far below zero the issuer may go, minor units.
    pub issuer_limit: u64,
    /// sha256 of the genesis file.
    pub genesis_hash: [u8; 32],
    /// Term.
    pub epoch: u64,
}

impl Default for TestCommittee {
    fn default() -> Self {
        TestCommittee {
            authorities: 4,
            shards: 1,
            issuer_limit: 1_000_000,
            genesis_hash: Sha256::digest([]).into(),
            epoch: 1,
        }
    }
}

impl TestCommittee {
    /// `authorities` members with `shards` shards.
    pub fn new(authorities: usize, shards: u32) -> Self {
        TestCommittee { authorities, shards, ..Default::default() }
    }

    /// The account that issues the money.
    pub fn issuer() -> Signer {
        Signer::new(0)
    }

    /// The committee and the keys of its members.
    pub fn build(&self) -> (Arc<Committee>, Vec<Arc<AuthorityKey>>) {
        let keys: Vec<Arc<AuthorityKey>> =
            (0..self.authorities as u64).map(|i| Arc::new(AuthorityKey::from_seed(seed("authority", i)))).collect();
        let members = keys.iter().enumerate().map(|(i, key)| AuthorityInfo {
            name: format!("authority-{i}"),
            key: key.public(),
            addresses: (0..self.shards).map(|s| format!("127.0.0.1:{}", 7_000 + s)).collect(),
        });
        let network = Network {
            id: NETWORK_ID,
            currency: "flr".into(),
            decimals: 2,
            issuer: Self::issuer().permission.encode(),
            issuer_limit: self.issuer_limit,
            genesis_hash: self.genesis_hash,
        };
        let committee = Committee::new(self.epoch, self.shards, network, members.collect());
        (Arc::new(committee.expect("a valid committee")), keys)
    }
}

/// One shard of one authority.
pub struct Node {
    /// The state machine.
    pub authority: Authority,
    /// Its disk.
    pub state: MemState,
}

impl Node {
    /// One step, its writes applied.
    pub fn step(&mut self, input: Input) -> Result<Effects> {
        let effects = self.authority.handle(NOW_US, input, &self.state, &mut NoMeter)?;
        self.state.apply(&effects.writes);
        Ok(effects)
    }

    /// Asks for votes.
    pub fn vote(&mut self, orders: &[Bytes]) -> Result<wire::VoteReply> {
        match self.step(Input::vote(orders.to_vec()))?.reply {
            Reply::Vote(reply) => Ok(reply),
            other => panic!("a vote is answered with {other:?}"),
        }
    }

    /// Hands in a certificate.
    pub fn settle(&mut self, certificate: &wire::Certificate, orders: &[Bytes]) -> Result<wire::SettleReply> {
        match self.step(Input::Settle { certificate: certificate.clone(), orders: orders.to_vec() })?.reply {
            Reply::Settle(reply) => Ok(reply),
            other => panic!("a certificate is answered with {other:?}"),
        }
    }

    /// An account as it is on disk.
    pub fn account_of(&self, network_id: u64, actor: u64) -> Account {
        Account::load(&self.state, network_id, actor).expect("a state in memory")
    }

    /// An account of the payment network, as it is on disk.
    pub fn account(&self, actor: u64) -> Account {
        Account::load(&self.state, NETWORK_ID, actor).expect("a readable account")
    }
}

/// The log of one authority.
pub struct LogNode {
    /// The state machine.
    pub log: OrderedLog,
    /// Its disk.
    pub state: MemState,
}

impl LogNode {
    /// One step, its writes applied.
    pub fn step(&mut self, input: ordered::input::Input) -> Result<ordered::effect::Effects> {
        let effects = self.log.handle(input, &self.state)?;
        self.state.apply(&effects.writes);
        Ok(effects)
    }

    /// The next unit.
    pub fn unit(&mut self, creator: u32, data: &Bytes) -> Result<ordered::effect::Effects> {
        let book = self.log.book(&self.state)?;
        let (session, position) = (book.session, book.units);
        self.step(ordered::input::Input::Unit { session, position, creator, round: 0, data: data.clone() })
    }
}

/// All authorities of a committee, all their shards and logs.
pub struct Cluster {
    /// The committee.
    pub committee: Arc<Committee>,
    /// Keys by authority.
    pub keys: Vec<Arc<AuthorityKey>>,
    /// By authority, then shard.
    pub nodes: Vec<Vec<Node>>,
    /// By authority.
    pub logs: Vec<LogNode>,
    /// Every unit so far, in its order: creator, data.
    pub units: Vec<(u32, Bytes)>,
    /// The issuer.
    pub issuer: Signer,
}

impl Cluster {
    /// A committee that has done nothing yet.
    pub fn new(committee: &TestCommittee) -> Cluster {
        let (committee, keys) = committee.build();
        let node = |i: usize, shard: u32| Node {
            authority: Authority::new(committee.clone(), i as u32, shard, keys[i].clone()),
            state: MemState::default(),
        };
        let nodes = (0..keys.len()).map(|i| (0..committee.shards).map(|s| node(i, s)).collect()).collect();
        let log = |i: usize| LogNode {
            log: OrderedLog::new(committee.clone(), i as u32, keys[i].clone()),
            state: MemState::default(),
        };
        let logs = (0..keys.len()).map(log).collect();
        Cluster { nodes, logs, units: Vec::new(), keys, issuer: TestCommittee::issuer(), committee }
    }

    /// One shard of one authority.
    pub fn node(&mut self, authority: usize, shard: u32) -> &mut Node {
        &mut self.nodes[authority][shard as usize]
    }

    /// What each authority answers.
    pub fn vote(&mut self, shard: u32, orders: &[Bytes]) -> Vec<wire::VoteReply> {
        let nodes = self.nodes.iter_mut();
        nodes.map(|n| n[shard as usize].vote(orders).expect("a batch within the limits")).collect()
    }

    /// A certificate of these votes, whether they are enough or not.
    pub fn certificate(&self, orders: &[Bytes], votes: Vec<wire::Signed>) -> wire::Certificate {
        let batch = decode_batch(orders).expect("a batch within the limits").id;
        wire::Certificate {
            epoch: self.committee.epoch,
            root: Bytes::copy_from_slice(&batch.root),
            count: batch.count as u32,
            votes,
        }
    }

    /// Votes of all authorities as a certificate.
    ///
    /// # Panics
    /// If an order is refused.
    pub fn certify(&mut self, shard: u32, orders: &[Bytes]) -> wire::Certificate {
        let replies = self.vote(shard, orders);
        assert!(replies.iter().all(|r| r.errors.is_empty()), "{:?}", replies[0].errors);
        self.certificate(orders, replies.into_iter().filter_map(|r| r.vote).collect())
    }

    /// Settles at every authority.
    pub fn settle(
        &mut self,
        shard: u32,
        certificate: &wire::Certificate,
        orders: &[Bytes],
    ) -> Vec<Result<wire::SettleReply>> {
        self.nodes.iter_mut().map(|n| n[shard as usize].settle(certificate, orders)).collect()
    }

    /// Empties all outboxes.
    pub fn deliver_all(&mut self) {
        for shards in &mut self.nodes {
            deliver_all(shards);
        }
    }

    /// Certifies, settles and delivers orders of any shards everywhere. Chains stay in order.
    pub fn run(&mut self, orders: &[Bytes]) {
        for shard in 0..self.committee.shards {
            let here = |order: &Bytes| {
                let order = Order::decode(order.clone()).expect("an order");
                self.committee.shard_of(order.network_id, order.actor) == shard
            };
            let part: Vec<Bytes> = orders.iter().filter(|o| here(o)).cloned().collect();
            if !part.is_empty() {
                let certificate = self.certify(shard, &part);
                for reply in self.settle(shard, &certificate, &part) {
                    assert!(reply.expect("a good certificate").waiting.is_empty(), "predecessors are settled");
                }
            }
        }
        self.deliver_all();
    }

    /// Gives every authority keys of e-cash, and a purse its public ones.
    pub fn make_cash(&mut self, tiers: usize) -> Purse {
        let keys = crate::cash::testing::mint(self.committee.size() as u32, tiers);
        for (shards, keys) in self.nodes.iter().zip(&keys) {
            shards.iter().for_each(|node| node.authority.set_mint(keys.clone()));
        }
        Purse::new(1, NETWORK_ID, keys[0].clone())
    }

    /// Runs one order that asks for notes, and returns the signature shares of each authority.
    pub fn run_cash(&mut self, order: &Bytes) -> Vec<(u32, Vec<Bytes>)> {
        self.run(std::slice::from_ref(order));
        self.shares(order)
    }

    /// The signature shares of each authority for one settled order.
    pub fn shares(&self, order: &Bytes) -> Vec<(u32, Vec<Bytes>)> {
        let orders = std::slice::from_ref(order);
        let all = Bitmap::full(1);
        let of = |(i, shards): (usize, &Vec<Node>)| {
            let shares = shards[0].authority.note_shares(orders, &all).expect("an order that is settled");
            (i as u32, shares.into_iter().next().map(|s| s.shares).unwrap_or_default())
        };
        self.nodes.iter().enumerate().map(of).collect()
    }

    /// Notes of these tiers for a purse, paid by a signer with money.
    pub fn withdraw(&mut self, signer: &mut Signer, purse: &mut Purse, tiers: &[u32]) -> Vec<Note> {
        let asked = purse.ask(tiers);
        let order = signer.withdraw(&asked);
        let shares = self.run_cash(&order);
        purse.take(&asked, &shares).into_iter().map(|note| note.expect("shares of all")).collect()
    }

    /// Gives an address money from the issuer.
    pub fn fund(&mut self, address: Address, amount: u64) {
        let order = self.issuer.pay(&[to(address, amount)], "");
        self.run(&[order]);
    }

    /// Orders a unit: every log applies it.
    pub fn order(&mut self, creator: u32, data: &Bytes) {
        self.units.push((creator, data.clone()));
        for log in &mut self.logs {
            log.unit(creator, data).expect("the next unit");
        }
    }

    /// Orders items as one authority's, with its clock vote (0: none).
    pub fn order_items(&mut self, creator: u32, clock_ms: u64, items: Vec<Bytes>) {
        for data in item::pack(clock_ms, items) {
            self.order(creator, &data);
        }
    }

    /// All clocks say so.
    pub fn set_time(&mut self, clock_ms: u64) {
        for authority in 0..self.logs.len() as u32 {
            self.order_items(authority, clock_ms, Vec::new());
        }
    }

    /// What one authority's shards hand to its log, as items.
    pub fn log_items(&self, authority: usize) -> Vec<Bytes> {
        let mut items = Vec::new();
        for node in &self.nodes[authority] {
            let calls = log_calls(node);
            let offers = node.authority.log_items(&node.state, &calls).expect("stored orders");
            items.extend(offers.into_iter().map(|o| o.item));
        }
        items
    }

    /// Orders what all shards hand to their logs, delivers what comes of it, until nothing is left.
    pub fn order_all(&mut self) {
        for _ in 0..64 {
            for authority in 0..self.nodes.len() {
                let items = self.log_items(authority);
                if !items.is_empty() {
                    self.order_items(authority as u32, 0, items);
                }
            }
            for authority in 0..self.nodes.len() {
                deliver_log(&mut self.logs[authority], &mut self.nodes[authority]);
                acknowledge_calls(&self.logs[authority], &mut self.nodes[authority]);
            }
            self.deliver_all();
            if self.nodes.iter().flatten().all(|n| log_calls(n).is_empty()) {
                return;
            }
        }
        panic!("the shards hand in what the log never takes");
    }

    /// Runs orders, and the log until nothing is left for it.
    pub fn run_ordered(&mut self, orders: &[Bytes]) {
        self.run(orders);
        self.order_all();
    }

    /// What became of a signer's order, as one authority tells.
    pub fn status(&self, authority: usize, signer: &Signer, seqnum: u32) -> wire::OrderStatus {
        let request = wire::OrderStatusRequest {
            network_id: signer.network_id,
            actor: signer.actor(),
            seqnum,
            ..Default::default()
        };
        let shard = &self.nodes[authority][self.committee.shard_of(signer.network_id, signer.actor()) as usize];
        let status = shard.authority.order_status(&shard.state, &request).expect("an actor of the shard");
        let log = &self.logs[authority];
        log.log.order_status(&log.state, &request, status).expect("a state in memory")
    }

    /// Balance of an address at an authority, minor units.
    pub fn balance(&self, authority: usize, address: &Address) -> i128 {
        let shard = address.shard(self.committee.shards) as usize;
        let holding = Account::load_holding(&self.nodes[authority][shard].state, NETWORK_ID, address);
        holding.expect("a state in memory").map_or(0, |h| h.balance)
    }
}

/// What a shard hands to its log and the log has not taken.
pub fn log_calls(node: &Node) -> Vec<wire::LogCall> {
    let (first, last) = node.authority.outbox_range(&node.state, LOG).expect("readable links");
    let read = |sequence| node.authority.outbox(&node.state, LOG, sequence).expect("an entry that is kept");
    (first..=last).flat_map(|sequence| read(sequence).calls).collect()
}

/// Takes out of the shards' outboxes what the log has.
pub fn acknowledge_calls(log: &LogNode, shards: &mut [Node]) {
    for node in shards {
        let (first, _) = node.authority.outbox_range(&node.state, LOG).expect("readable links");
        let calls = log_calls(node);
        let done = calls.iter().take_while(|call| log.log.is_done(&log.state, call).expect("a state in memory"));
        let applied = first - 1 + done.count() as u64;
        node.step(Input::Delivered { to_shard: LOG, applied }).expect("what was sent");
    }
}

/// Delivers what the log has for the shards of its authority. Stops at what a shard can't take yet.
pub fn deliver_log(log: &mut LogNode, shards: &mut [Node]) {
    for (to, shard) in shards.iter_mut().enumerate() {
        let to_shard = to as u32;
        let (first, last) = log.log.outbox_range(&log.state, to_shard).expect("readable links");
        for sequence in first..=last {
            let delivery = log.log.outbox(&log.state, to_shard, sequence).expect("an entry that is kept");
            let Ok(effects) = shard.step(Input::Deliver(delivery)) else { break };
            let Reply::Deliver(reply) = effects.reply else { panic!("a delivery is acknowledged") };
            let input = ordered::input::Input::Delivered { to_shard, applied: reply.applied };
            log.step(input).expect("an acknowledgement of what was sent");
        }
    }
}

/// Empties the outboxes between the shards of one authority.
pub fn deliver_all(shards: &mut [Node]) {
    for from in 0..shards.len() {
        for to in 0..shards.len() as u32 {
            let sender = &shards[from];
            let (first, last) = sender.authority.outbox_range(&sender.state, to).expect("readable links");
            for sequence in first..=last {
                let delivery = shards[from].authority.outbox(&shards[from].state, to, sequence);
                let input = Input::Deliver(delivery.expect("an entry that is not acknowledged"));
                let effects = shards[to as usize].step(input).expect("deliveries in order");
                let Reply::Deliver(reply) = effects.reply else { panic!("a delivery is acknowledged") };
                let input = Input::Delivered { to_shard: to, applied: reply.applied };
                shards[from].step(input).expect("an acknowledgement of what was sent");
            }
        }
    }
}
