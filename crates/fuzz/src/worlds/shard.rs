//! One shard of an authority, and a true history of its committee for it: orders, their certificates, and what other shards
//! and the log deliver; besides orders that exclude these.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use florin_core::authority::state::LOG;
use florin_core::bearer;
use florin_core::cash::mint_keys::MintKeys;
use florin_core::cash::testing::Note;
use florin_core::committee::Committee;
use florin_core::content::credit_output;
use florin_core::envelope::Order;
use florin_core::keys::Curve;
use florin_core::limits::RECOVERY_WAIT_MS;
use florin_core::network_flags::HISTORY;
use florin_core::permission::Permission;
use florin_core::signatures::AuthorityKey;
use florin_core::testing::{
    Actor, Cluster, MemState, NETWORK_ID, Signer, TestCommittee, acknowledge_calls, deliver_log, secret, spoil, to,
};
use florin_core::wire::{self, network_command, output};

/// The PBTX network, on shard 0.
pub const PBTX: u64 = 500;

/// What the targets take inputs from.
pub struct ShardWorld {
    /// Two shards, four authorities.
    pub committee: Arc<Committee>,
    /// Of the authorities.
    pub keys: Vec<Arc<AuthorityKey>>,
    /// Keys of e-cash of authority 0.
    pub mint: Arc<MintKeys>,
    /// Shard 0 of authority 0 before the history, and after it.
    pub base: MemState,
    /// After it.
    pub end: MemState,
    /// All orders of shard 0, those that exclude others and false ones among them.
    pub orders: Vec<Bytes>,
    /// Certificates of the history's.
    pub certified: Vec<(wire::Certificate, Vec<Bytes>)>,
    /// Deliveries to shard 0 in their order, by where they come from.
    pub deliveries: BTreeMap<u32, Vec<wire::Delivery>>,
    /// Accounts and actors that there are: network, actor.
    pub actors: Vec<(u64, u64)>,
    /// Their addresses.
    pub addresses: Vec<Bytes>,
    /// Nonces of notes.
    pub nonces: Vec<Bytes>,
}

/// The shard and its history.
pub static SHARD: LazyLock<ShardWorld> = LazyLock::new(|| History::new().tell());

struct History {
    cluster: Cluster,
    orders: Vec<Bytes>,
    certified: Vec<(wire::Certificate, Vec<Bytes>)>,
    deliveries: BTreeMap<(u32, u64), wire::Delivery>,
}

fn shard_of(committee: &Committee, order: &Bytes) -> u32 {
    let order = Order::decode(order.clone()).expect("a signer's order");
    committee.shard_of(order.network_id, order.actor)
}

/// An order that spends notes.
pub fn spend(notes: &[&Note], outputs: Vec<wire::Output>) -> Bytes {
    let notes: Vec<_> = notes.iter().map(|note| note.spend()).collect();
    bearer::build(NETWORK_ID, &notes, outputs, "", None)
}

impl History {
    fn new() -> History {
        let cluster = Cluster::new(&TestCommittee::new(4, 2));
        History { cluster, orders: Vec::new(), certified: Vec::new(), deliveries: BTreeMap::new() }
    }

    fn capture(&mut self) {
        let log = &self.cluster.logs[0];
        let (first, last) = log.log.outbox_range(&log.state, 0).expect("a state in memory");
        for sequence in first..=last {
            let delivery = log.log.outbox(&log.state, 0, sequence).expect("an entry that is kept");
            self.deliveries.insert((LOG, sequence), delivery);
        }
        let from = &self.cluster.nodes[0][1];
        let (first, last) = from.authority.outbox_range(&from.state, 0).expect("a state in memory");
        for sequence in first..=last {
            let delivery = from.authority.outbox(&from.state, 0, sequence).expect("an entry that is kept");
            self.deliveries.insert((1, sequence), delivery);
        }
    }

    /// Certifies, settles everywhere and delivers; orders of one shard.
    fn run(&mut self, orders: &[Bytes]) {
        let shard = shard_of(&self.cluster.committee, &orders[0]);
        let certificate = self.cluster.certify(shard, orders);
        self.cluster.settle(shard, &certificate, orders);
        self.capture();
        self.cluster.deliver_all();
        if shard == 0 {
            self.orders.extend_from_slice(orders);
            self.certified.push((certificate, orders.to_vec()));
        }
    }

    /// The log takes what all hand in, and tells all.
    fn order_all(&mut self) {
        for _ in 0..6 {
            for authority in 0..4 {
                let items = self.cluster.log_items(authority);
                if !items.is_empty() {
                    self.cluster.order_items(authority as u32, 0, items);
                }
            }
            self.capture();
            for authority in 0..4 {
                let (log, nodes) = (&mut self.cluster.logs[authority], &mut self.cluster.nodes[authority]);
                deliver_log(log, nodes);
                acknowledge_calls(log, nodes);
            }
            self.capture();
            self.cluster.deliver_all();
        }
    }

    /// Two authorities vote for each of two orders, the account asks for help, and the log voids both.
    fn lock(&mut self, signer: &mut Signer) {
        let (mut twin, before) = (signer.clone(), signer.clone());
        let orders = [signer.pay(&[to(before.address, 1)], "a"), twin.pay(&[to(before.address, 2)], "b")];
        for i in 0..4 {
            self.cluster.node(i, 0).vote(std::slice::from_ref(&orders[i / 2])).expect("a batch");
        }
        self.orders.extend(orders);
        self.run(&[before.recover()]);
        self.order_all();
        self.later();
        let account = self.cluster.node(0, 0).account(signer.actor());
        *signer = before;
        signer.resume(&account);
    }

    fn later(&mut self) {
        let log = &self.cluster.logs[0];
        let time = log.log.book(&log.state).expect("a state in memory").time_ms;
        self.cluster.set_time(time + RECOVERY_WAIT_MS);
        self.order_all();
    }

    fn tell(mut self) -> ShardWorld {
        let mut purse = self.cluster.make_cash(6);
        let [mut alice, mut carol, mut dave] = [1, 40, 60].map(|from| Signer::on_shard(0, 2, from));
        let mut bob = Signer::on_shard(1, 2, 20);
        for signer in [&alice, &bob, &carol, &dave] {
            self.cluster.fund(signer.address, 1_000);
        }
        self.cluster.set_time(1_000);
        let notes = self.cluster.withdraw(&mut carol, &mut purse, &[0, 1, 2, 3, 4]);
        let base = self.cluster.nodes[0][0].state.clone();
        let addresses = [&alice, &bob, &carol, &dave].map(|s| Bytes::copy_from_slice(s.address.as_bytes()));
        // Orders that the history does not have.
        let mut fork = alice.clone();
        self.orders.push(fork.pay(&[to(bob.address, 7)], "fork"));
        self.orders.push(fork.pay(&[to(carol.address, 900)], "over the fork"));
        self.orders.push(alice.clone().pay(&[to(bob.address, 1_001)], "too much"));
        self.orders.push(alice.recover());
        self.history(&mut alice, &mut bob, &mut carol, &mut dave);
        self.cash(&mut alice, &dave, &notes);
        self.pbtx(&mut alice);
        self.lock(&mut dave);
        self.run(&[dave.pay(&[to(alice.address, 3)], "after the recovery")]);
        let spoiled: Vec<Bytes> = self.orders.iter().step_by(3).map(spoil).collect();
        self.orders.extend(spoiled);
        let mut actors: Vec<(u64, u64)> =
            [&alice, &bob, &carol, &dave].iter().map(|s| (NETWORK_ID, s.actor())).collect();
        actors.extend((1..4).map(|actor| (PBTX, actor)));
        let mut deliveries: BTreeMap<u32, Vec<wire::Delivery>> = BTreeMap::new();
        for ((from, _), delivery) in self.deliveries {
            deliveries.entry(from).or_default().push(delivery);
        }
        let cluster = self.cluster;
        ShardWorld {
            mint: cluster.nodes[0][0].authority.mint().expect("it has keys"),
            end: cluster.nodes[0][0].state.clone(),
            committee: cluster.committee,
            keys: cluster.keys,
            base,
            orders: self.orders,
            certified: self.certified,
            deliveries,
            actors,
            addresses: addresses.to_vec(),
            nonces: notes.iter().map(|n| Bytes::copy_from_slice(&n.secrets.nonce().0)).collect(),
        }
    }

    fn history(&mut self, alice: &mut Signer, bob: &mut Signer, carol: &mut Signer, dave: &mut Signer) {
        let (a, b, c) = (alice.address, bob.address, carol.address);
        let first = alice.pay(&[to(b, 5), to(c, 6)], "first");
        self.run(&[first]);
        let chain = [alice.pay(&[to(dave.address, 1)], ""), alice.pay(&[to(b, 2)], ""), carol.pay(&[to(a, 3)], "")];
        self.run(&chain);
        let keys = vec![secret(Curve::K1, 7), secret(Curve::R1, 8)];
        let permission = Permission { threshold: 2, keys: keys.iter().map(|k| (k.public(), 1)).collect(), actor: 0 };
        let changed = carol.set_permission(&permission, keys);
        self.run(&[changed]);
        let with_new_keys = carol.pay(&[to(b, 4)], "two keys");
        self.run(&[with_new_keys]);
        let from_afar = bob.pay(&[to(a, 50), to(c, 1)], "from shard 1");
        self.run(&[from_afar]);
        let fund = wire::ContractFund {
            amount: 9,
            hash: Bytes::from(vec![1; 32]),
            expiry_ms: 5_000,
            receiver: Bytes::copy_from_slice(b.as_bytes()),
            sender: Bytes::copy_from_slice(a.as_bytes()),
        };
        let back = output::Kind::Credit(wire::Credit { address: Bytes::copy_from_slice(c.as_bytes()), amount: 2 });
        let call = alice.call(vec![], vec![output::Kind::ContractFund(fund.clone()), back]);
        self.run(&[call]);
        self.order_all();
        let refused = alice.call(vec![], vec![output::Kind::ContractFund(wire::ContractFund { expiry_ms: 1, ..fund })]);
        self.run(&[refused]);
        self.order_all();
    }

    fn cash(&mut self, alice: &mut Signer, dave: &Signer, notes: &[Note]) {
        let credit = |to_: &Signer, amount| credit_output(&to(to_.address, amount));
        let [n0, n1, n2, n3, n4] = [0, 1, 2, 3, 4].map(|i| &notes[i]);
        self.orders.push(spend(&[n0, n1], vec![credit(dave, 3)]));
        let first = spend(&[n0], vec![credit(alice, 1)]);
        self.run(&[first]);
        let two = spend(&[n1, n2], vec![credit(dave, 4), credit(alice, 2)]);
        self.run(&[two]);
        // One note is promised to two, and freed by the log.
        let rivals = [spend(&[n3], vec![credit(alice, 8)]), spend(&[n3, n4], vec![credit(dave, 24)])];
        for i in 0..4 {
            self.cluster.node(i, 0).vote(std::slice::from_ref(&rivals[i / 2])).expect("a batch");
        }
        self.orders.extend(rivals);
        let recover = spend(&[n3], vec![]);
        self.run(&[recover]);
        self.order_all();
        self.later();
        let freed = Note { recoveries: 1, ..n3.clone() };
        let again = spend(&[&freed], vec![credit(alice, 8)]);
        self.run(&[again]);
        let mut purse = florin_core::cash::testing::Purse::new(
            9,
            NETWORK_ID,
            self.cluster.nodes[0][0].authority.mint().expect("it has keys"),
        );
        let withdraw = alice.withdraw(&purse.ask(&[0, 2]));
        self.run(&[withdraw]);
    }

    fn pbtx(&mut self, admin: &mut Signer) {
        let command = |kind| output::Kind::Network(wire::NetworkCommand { network_id: PBTX, kind: Some(kind) });
        let register =
            wire::NetworkRegister { flags: HISTORY, metadata: Bytes::from_static(b"x"), ..Default::default() };
        let [mut one, mut two, three] =
            [(1, Curve::K1), (2, Curve::R1), (3, Curve::Ed25519)].map(|(actor, curve)| Actor::new(PBTX, actor, curve));
        let mut outputs = vec![command(network_command::Kind::Register(register))];
        outputs.extend([&one, &two, &three].map(Actor::registration));
        let call = admin.call(vec![], outputs);
        self.run(&[call]);
        self.order_all();
        self.orders.push(one.clone().order(7, b"instead", &[]));
        let orders = [one.order(7, b"one", &[]), one.order(7, b"two", &[&two, &three]), two.order(0, b"", &[&three])];
        self.run(&orders);
        let rotated = two.rotate(vec![secret(Curve::Ed25519, 77)]);
        self.run(&[rotated]);
        self.order_all();
        let with_new_keys = two.order(3, b"after", &[]);
        self.run(&[with_new_keys]);
        let freeze = wire::ActorFreeze { actor: 1, frozen: true };
        let call = admin.call(vec![], vec![command(network_command::Kind::FreezeActor(freeze))]);
        self.run(&[call]);
        self.order_all();
        self.orders.push(one.order(1, b"frozen", &[]));
    }
}
