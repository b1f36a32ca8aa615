//! What tests and the simulator build on: a state in memory, committees and keys from fixed seeds,
//! signers, and a whole committee in one process. Not for production: keys are public, errors panic.

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
use crate::bearer::NoteAsked;
use crate::bitmap::Bitmap;
use crate::bls;
use crate::cash::testing::{Asked, Note, Purse};
use crate::certificate::BatchId;
use crate::committee::{AuthorityInfo, Committee, Network};
use crate::content::{
    Content, Credit, TYPE_CALL, TYPE_PAY, TYPE_RECOVER, TYPE_ROTATE, TYPE_SET_PERMISSION, encode_call, encode_pay,
    encode_recover, encode_rotate, encode_set_permission, encode_withdraw,
};
use crate::distilled;
use crate::envelope::{self, Body, Order, encode_body, encode_envelope};
use crate::error::Result;
use crate::keys::{Curve, POSSESSION_BYTE, SecretKey};
use crate::ordered::{self, OrderedLog, item};
use crate::permission::Permission;
use crate::signatures::AuthorityKey;
use crate::wire;

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

/// An account that signs orders one after another.
#[derive(Clone)]
pub struct Signer {
    /// Keys that sign, the first for a single one.
    pub keys: Arc<Vec<SecretKey>>,
    /// BLS keys: the first signs roots of batches, and all are proved where an order sets them.
    pub bls: Arc<Vec<SecretKey>>,
    /// The permission that opened the account.
    pub permission: Permission,
    /// The account's address.
    pub address: Address,
    /// Of the last order signed.
    pub seqnum: u32,
    /// What the next order names.
    pub prev_hash: u64,
    /// Its last CALL.
    pub last_call: u32,
    /// The network it pays in.
    pub network_id: u64,
}

impl Signer {
    /// An account with one ed25519 key.
    pub fn new(number: u64) -> Signer {
        let key = secret(Curve::Ed25519, number);
        Signer::with(Permission::single(key.public()), vec![key])
    }

    /// An account of any permission, and the keys that sign for it.
    pub fn with(permission: Permission, keys: Vec<SecretKey>) -> Signer {
        let address = permission.address(NETWORK_ID);
        let (keys, bls, network_id) = (Arc::new(keys), Arc::default(), NETWORK_ID);
        Signer { keys, bls, permission, address, seqnum: 0, prev_hash: 0, last_call: 0, network_id }
    }

    /// An account with an ed25519 key, which signs its orders, and a BLS key, which signs roots of batches.
    pub fn distilled(number: u64) -> Signer {
        let (key, bls) = (secret(Curve::Ed25519, number), secret(Curve::Bls, number));
        let keys = vec![(key.public(), 1), (bls.public(), 1)];
        let signer = Signer::with(Permission { threshold: 1, keys, actor: 0 }, vec![key]);
        Signer { bls: Arc::new(vec![bls]), ..signer }
    }

    /// Its signature of the root of a batch, shown or not.
    pub fn sign_root(&self, committee: &Committee, batch: &BatchId) -> bls::SignatureBytes {
        let key = self.bls.first().and_then(SecretKey::bls).expect("an account with a BLS key");
        key.sign(&distilled::root_message(committee, batch))
    }

    /// The same keys in another network, where the account has another address.
    pub fn in_network(self, network_id: u64) -> Signer {
        Signer { address: self.permission.address(network_id), network_id, ..self }
    }

    /// The first account from `from` on that lives on a shard.
    pub fn on_shard(shard: u32, shards: u32, from: u64) -> Signer {
        (from..).map(Signer::new).find(|s| s.address.shard(shards) == shard).expect("half of all do")
    }

    /// The actor's id.
    pub fn actor(&self) -> u64 {
        self.address.actor()
    }

    /// `open` of the next order.
    pub fn open(&self) -> Option<Bytes> {
        (self.seqnum == 0).then(|| self.permission.encode())
    }

    /// Signs the next payment.
    pub fn pay(&mut self, outputs: &[Credit], memo: &str) -> Bytes {
        let content = encode_pay(outputs, memo, self.open());
        self.order(TYPE_PAY, content)
    }

    /// Signs a payment to itself, as notes.
    pub fn withdraw(&mut self, asked: &[Asked]) -> Bytes {
        let requests: Vec<wire::NoteRequest> =
            asked.iter().map(|a| NoteAsked::request(a.tier, &a.secrets.blinded())).collect();
        let content = encode_withdraw(&[], &requests, "", self.open());
        self.order(TYPE_PAY, content)
    }

    /// Signs a change of keys; what follows is signed with the new ones.
    pub fn set_permission(&mut self, permission: &Permission, keys: Vec<SecretKey>) -> Bytes {
        let content = encode_set_permission(permission.encode(), self.open());
        let order = self.order(TYPE_SET_PERMISSION, content);
        self.keys = Arc::new(keys);
        order
    }

    /// Signs an operation on shared objects.
    pub fn call(&mut self, inputs: Vec<wire::Input>, outputs: Vec<wire::output::Kind>) -> Bytes {
        let call = wire::Call {
            account: Bytes::copy_from_slice(self.address.as_bytes()),
            previous_call: self.last_call,
            inputs,
            outputs: outputs.into_iter().map(|kind| wire::Output { kind: Some(kind) }).collect(),
            memo: String::new(),
            open: self.open().unwrap_or_default(),
        };
        let order = self.order(TYPE_CALL, encode_call(&call));
        self.last_call = self.seqnum;
        order
    }

    /// Signs a request to free the account at its next seqnum. The chain does not go on: what follows depends on
    /// what the log decides.
    pub fn recover(&self) -> Bytes {
        self.sign(&self.next_body(TYPE_RECOVER, encode_recover(&self.address, self.open())))
    }

    /// Goes on from what an authority says of the account.
    pub fn resume(&mut self, account: &Account) {
        (self.seqnum, self.prev_hash, self.last_call) = (account.seqnum, account.prev_hash, account.last_call);
    }

    /// Signs the next order, whatever it says.
    pub fn order(&mut self, transaction_type: u32, content: Bytes) -> Bytes {
        let body = self.next_body(transaction_type, content);
        self.seqnum += 1;
        self.prev_hash = envelope::next_hash(&envelope::order_id(&encode_body(&body)));
        self.sign(&body)
    }

    /// The body of the next order.
    pub fn next_body(&self, transaction_type: u32, content: Bytes) -> Body {
        Body {
            network_id: self.network_id,
            actor: self.actor(),
            cosignors: Vec::new(),
            seqnum: self.seqnum.wrapping_add(1),
            prev_hash: self.prev_hash,
            transaction_type,
            content,
        }
    }

    /// Signs a body with all keys, and proves the BLS keys that it sets.
    pub fn sign(&self, body: &Body) -> Bytes {
        let body = encode_body(body);
        let sigs: Vec<_> = self.keys.iter().map(|key| key.sign_body(&body)).collect();
        let mut authority = envelope::Authority::of(&sigs);
        authority.sigs.extend(self.proofs(&body));
        encode_envelope(&body, &[authority])
    }

    fn proofs(&self, body: &Bytes) -> Vec<Bytes> {
        if self.bls.is_empty() {
            return Vec::new();
        }
        let order = Order::decode_body(body.clone()).expect("a body");
        let sets = Content::decode(&order).and_then(|content| content.sets_bls_keys()).unwrap_or_default();
        let own = |key: &bls::Key| self.bls.iter().filter_map(SecretKey::bls).find(|own| own.public() == key);
        let prove = |key: &bls::Key| -> Option<Bytes> {
            let proof = own(key)?.prove(order.network_id, order.actor);
            Some([&[POSSESSION_BYTE], &proof[..]].concat().into())
        };
        sets.iter().filter_map(prove).collect()
    }
}

/// An actor of a PBTX network, with the keys that sign for it.
#[derive(Clone)]
pub struct Actor {
    /// Its network.
    pub network_id: u64,
    /// What it is registered with.
    pub permission: Permission,
    /// All its keys.
    pub keys: Arc<Vec<SecretKey>>,
    /// Of the last order signed.
    pub seqnum: u32,
    /// What the next order names.
    pub prev_hash: u64,
    /// Of its permission.
    pub generation: u32,
}

impl Actor {
    /// An actor with one key of a curve.
    pub fn new(network_id: u64, actor: u64, curve: Curve) -> Actor {
        let key = secret(curve, actor);
        let permission = Permission { actor, ..Permission::single(key.public()) };
        Actor { network_id, permission, keys: Arc::new(vec![key]), seqnum: 0, prev_hash: 0, generation: 1 }
    }

    /// What registers it: a command of its network's admin.
    pub fn registration(&self) -> wire::output::Kind {
        let kind = Some(wire::network_command::Kind::Actor(self.permission.encode()));
        wire::output::Kind::Network(wire::NetworkCommand { network_id: self.network_id, kind })
    }

    /// Signs its next transaction, with others who agree.
    pub fn order(&mut self, transaction_type: u32, content: &[u8], cosignors: &[&Actor]) -> Bytes {
        self.seqnum += 1;
        let body = encode_body(&Body {
            network_id: self.network_id,
            actor: self.permission.actor,
            cosignors: cosignors.iter().map(|a| a.permission.actor).collect(),
            seqnum: self.seqnum,
            prev_hash: self.prev_hash,
            transaction_type,
            content: Bytes::copy_from_slice(content),
        });
        self.prev_hash = envelope::next_hash(&envelope::order_id(&body));
        let signed = |actor: &Actor| {
            let sigs: Vec<_> = actor.keys.iter().map(|key| key.sign_body(&body)).collect();
            envelope::Authority::of(&sigs)
        };
        let authorities: Vec<_> = std::iter::once(&*self).chain(cosignors.iter().copied()).map(signed).collect();
        encode_envelope(&body, &authorities)
    }

    /// Signs a change of its keys; what follows is signed with the new ones.
    pub fn rotate(&mut self, keys: Vec<SecretKey>) -> Bytes {
        let keys_and_weights = keys.iter().map(|key| (key.public(), 1)).collect();
        let permission = Permission { threshold: 1, keys: keys_and_weights, actor: self.permission.actor };
        let order = self.order(TYPE_ROTATE, &encode_rotate(permission.encode(), self.generation), &[]);
        self.generation += 1;
        (self.permission, self.keys) = (permission, Arc::new(keys));
        order
    }
}

/// The same order with a signature that does not verify.
pub fn spoil(order: &Bytes) -> Bytes {
    let mut spoiled = order.to_vec();
    let last = spoiled.len() - 40;
    spoiled[last] ^= 1;
    spoiled.into()
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
