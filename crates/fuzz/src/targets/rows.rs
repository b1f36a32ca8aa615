//! Hubs and virtual channels: three wallets in a row over a real log, whose messages are lost, repeated and forged.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use florin_core::channel::manager::{self, Create, Effect, EndId, Input, Manager, Now};
use florin_core::channel::{hub, virtuals};
use florin_core::limits::VIRTUAL_KEEP_MS;
use florin_core::merkle::Hash;
use florin_core::{Result, wire};
use prost::Message;
use sha2::{Digest, Sha256};

use super::channels::{STEPS, config, manager_input, now};
use crate::cursor::Cursor;
use crate::worlds::chain::{Chain, Keys};

/// What hubs and virtual channels have in common: three wallets in a row, two channels that are open, and connections.
struct Row<M> {
    chain: Chain,
    nodes: Vec<Node<M>>,
    /// Channels between 0 and 1, 1 and 2.
    channels: [Hash; 2],
    clock: u64,
    connection: u64,
}

struct Node<M> {
    config: manager::Config,
    manager: Manager,
    machine: M,
    keys: Keys,
    journal: Vec<wire::HubGroup>,
    chain: VecDeque<Effect>,
    /// To the other side: end, connection, message.
    out: VecDeque<(EndId, u64, Bytes)>,
}

/// A machine over a manager, as this test drives it.
trait Machine: Sized {
    fn new() -> Self;
    fn of_manager(input: Input) -> Self::In;
    type In;
    /// Handles an input; an error has changed nothing.
    fn take(node: &mut Node<Self>, now: Now, input: Self::In) -> Result<()>;
    fn connected(end: EndId, connection: u64) -> Self::In;
    fn gone(end: EndId) -> Self::In;
    fn message(end: EndId, bytes: &[u8]) -> Option<Self::In>;
    /// All of its state.
    fn written(node: &Node<Self>) -> Vec<wire::HubGroup>;
    /// From a journal: the machine and its manager.
    fn load(config: &manager::Config, journal: &[wire::HubGroup]) -> (Self, Manager);
    fn resume(node: &mut Node<Self>, now: Now);
    fn check(&self, now: Now, manager: &Manager);
}

impl Machine for hub::Hub {
    type In = hub::Input;

    fn new() -> hub::Hub {
        hub::Hub::new(hub_config())
    }
    fn of_manager(input: Input) -> hub::Input {
        hub::Input::Channel(Box::new(input))
    }
    fn take(node: &mut Node<hub::Hub>, now: Now, input: hub::Input) -> Result<()> {
        let fx = node.machine.handle(now, input, &mut node.manager, &node.keys)?;
        node.follow_hub(fx);
        Ok(())
    }
    fn connected(end: EndId, connection: u64) -> hub::Input {
        hub::Input::Connected(end, connection)
    }
    fn gone(end: EndId) -> hub::Input {
        hub::Input::Disconnected(end)
    }
    fn message(end: EndId, bytes: &[u8]) -> Option<hub::Input> {
        let message = Box::new(wire::HubMessage::decode(bytes).ok()?);
        Some(hub::Input::Message { end, message })
    }
    fn written(node: &Node<hub::Hub>) -> Vec<wire::HubGroup> {
        vec![node.machine.snapshot(&node.manager)]
    }
    fn load(config: &manager::Config, journal: &[wire::HubGroup]) -> (hub::Hub, Manager) {
        hub::Hub::load(hub_config(), config.clone(), journal).expect("its own journal")
    }
    fn resume(node: &mut Node<hub::Hub>, now: Now) {
        let fx = node.machine.resume(now, &mut node.manager, &node.keys);
        node.follow_hub(fx);
    }
    fn check(&self, now: Now, manager: &Manager) {
        hub::Hub::check(self, now, manager);
    }
}

impl Node<hub::Hub> {
    fn follow_hub(&mut self, fx: hub::Effects) {
        if !fx.group.entries.is_empty() {
            self.journal.push(fx.group);
        }
        for effect in fx.effects {
            match effect {
                hub::Effect::Channel(effect) => self.chain.push_back(effect),
                hub::Effect::Send { end, connection, message } => {
                    self.out.push_back((end, connection, message.encode_to_vec().into()));
                }
                hub::Effect::Event(_) => {}
            }
        }
    }
}

impl Machine for virtuals::Virtuals {
    type In = virtuals::Input;

    fn new() -> virtuals::Virtuals {
        virtuals::Virtuals::new(virtuals_config())
    }
    fn of_manager(input: Input) -> virtuals::Input {
        virtuals::Input::Channel(Box::new(input))
    }
    fn take(node: &mut Node<virtuals::Virtuals>, now: Now, input: virtuals::Input) -> Result<()> {
        let fx = node.machine.handle(now, input, &mut node.manager, &node.keys)?;
        node.follow_virtuals(fx);
        Ok(())
    }
    fn connected(end: EndId, connection: u64) -> virtuals::Input {
        virtuals::Input::Connected(end, connection)
    }
    fn gone(end: EndId) -> virtuals::Input {
        virtuals::Input::Disconnected(end)
    }
    fn message(end: EndId, bytes: &[u8]) -> Option<virtuals::Input> {
        let message = Box::new(wire::VirtualMessage::decode(bytes).ok()?);
        Some(virtuals::Input::Message { end, message })
    }
    fn written(node: &Node<virtuals::Virtuals>) -> Vec<wire::HubGroup> {
        let entry = |record| wire::HubEntry { kind: Some(wire::hub_entry::Kind::Channel(record)) };
        let mut entries: Vec<wire::HubEntry> = node.manager.snapshot().into_iter().map(entry).collect();
        entries.push(node.machine.snapshot());
        vec![wire::HubGroup { entries }]
    }
    fn load(config: &manager::Config, journal: &[wire::HubGroup]) -> (virtuals::Virtuals, Manager) {
        let machine = virtuals::Virtuals::load(virtuals_config(), journal).expect("its own journal");
        (machine, virtuals::load_manager(config.clone(), journal).expect("its own journal"))
    }
    fn resume(node: &mut Node<virtuals::Virtuals>, now: Now) {
        let fx = node.manager.resume(now);
        let entry = |record| wire::HubEntry { kind: Some(wire::hub_entry::Kind::Channel(record)) };
        node.journal.push(wire::HubGroup { entries: fx.records.into_iter().map(entry).collect() });
        node.chain.extend(fx.effects);
        let fx = node.machine.resume(now, &mut node.manager, &node.keys);
        node.follow_virtuals(fx);
    }
    fn check(&self, now: Now, manager: &Manager) {
        virtuals::Virtuals::check(self, now, manager);
    }
}

impl Node<virtuals::Virtuals> {
    fn follow_virtuals(&mut self, fx: virtuals::Effects) {
        if !fx.group.entries.is_empty() {
            self.journal.push(fx.group);
        }
        for effect in fx.effects {
            match effect {
                virtuals::Effect::Channel(effect) => self.chain.push_back(effect),
                virtuals::Effect::Send { end, connection, message } => {
                    self.out.push_back((end, connection, message.encode_to_vec().into()));
                }
                virtuals::Effect::Tell(_) | virtuals::Effect::Event(_) => {}
            }
        }
    }
}

fn hub_config() -> hub::Config {
    hub::Config { network_id: 77, channels: manager::Policy::default(), policy: hub::Policy::default() }
}

fn virtuals_config() -> virtuals::Config {
    virtuals::Config { channels: manager::Policy::default(), policy: virtuals::Policy::default() }
}

impl<M: Machine> Row<M> {
    fn new() -> Row<M> {
        let chain = Chain::default();
        let node = |i: usize| {
            let signer = &chain.ledger.signers[i];
            let config = config(signer);
            let (manager, machine, keys) = (Manager::new(config.clone()), M::new(), Keys(signer.clone()));
            let (journal, out) = (Vec::new(), VecDeque::new());
            Node { config, manager, machine, keys, journal, chain: VecDeque::new(), out }
        };
        let nodes = (0..3).map(node).collect();
        let mut row = Row { chain, nodes, channels: [[0; 32]; 2], clock: 0, connection: 0 };
        for i in [0, 1] {
            let [own, other] = [i, i + 1].map(|n| row.chain.ledger.signers[n].clone());
            let create = Create {
                key: Bytes::from_static(b"open"),
                from: own.address,
                to: other.address,
                to_permission: other.permission.encode(),
                amount: 10_000,
                delay_ms: 24 * 3_600_000,
                two_way: false,
            };
            row.tell(i, M::of_manager(Input::Create(create)));
            row.carry_out(i, 16);
            row.channels[i] = row.nodes[i].manager.list(None, None, 8).last().expect("its own channel").channel;
            row.look(i + 1);
        }
        for i in [0, 1] {
            row.connect(i);
        }
        row
    }

    fn now(&self) -> Now {
        now(&self.chain, self.clock)
    }

    fn tell(&mut self, who: usize, input: M::In) {
        let now = self.now();
        let node = &mut self.nodes[who];
        let before = M::written(node);
        if let Err(e) = M::take(node, now, input) {
            assert!(!e.is_own_fault(), "{e}");
            assert_eq!(M::written(node), before, "what is refused changes nothing");
        }
        let node = &self.nodes[who];
        node.machine.check(now, &node.manager);
    }

    fn carry_out(&mut self, who: usize, many: usize) {
        for _ in 0..many {
            let Some(effect) = self.nodes[who].chain.pop_front() else { break };
            let answer = match effect {
                Effect::Prepare { op, message } => self.chain.prepare(who, op, message),
                Effect::Broadcast { op, order } => {
                    let end = self.nodes[who].manager.operation(op).ok().and_then(|op| op.end);
                    self.chain.broadcast(who, op, &order, end)
                }
                Effect::Event(_) => continue,
            };
            self.tell(who, M::of_manager(answer));
        }
    }

    /// It looks at its channels in the log.
    fn look(&mut self, who: usize) {
        for channel in self.channels {
            if let Some(record) = self.chain.ledger.channel(&channel) {
                let (record, time_ms) = (Box::new(record), self.chain.ledger.time());
                self.tell(who, M::of_manager(Input::Seen { channel, record, time_ms }));
            }
        }
    }

    /// The ends of the channel between `left` and the next one.
    fn ends(&self, left: usize) -> [EndId; 2] {
        [0, 1].map(|side| EndId { channel: self.channels[left], side })
    }

    fn connect(&mut self, left: usize) {
        self.connection += 1;
        let [a, b] = self.ends(left);
        self.nodes[left].out.retain(|(end, ..)| *end != a);
        self.nodes[left + 1].out.retain(|(end, ..)| *end != b);
        self.tell(left, M::connected(a, self.connection));
        self.tell(left + 1, M::connected(b, self.connection));
    }

    /// Delivers what a node has said to its neighbours.
    fn deliver(&mut self, who: usize, cursor: &mut Cursor<'_>, many: usize) {
        for _ in 0..many {
            let Some((end, connection, message)) = self.nodes[who].out.pop_front() else { break };
            let to = if end.channel == self.channels[who.min(1)] && end.side == 0 { who + 1 } else { who - 1 };
            let other = EndId { channel: end.channel, side: 1 - end.side };
            let mut said = message.to_vec();
            match cursor.byte() {
                1 => continue,
                2 => self.nodes[who].out.push_back((end, connection, message)),
                3 if !said.is_empty() => {
                    let at = cursor.below(said.len());
                    said[at] ^= cursor.byte();
                }
                4 => said = cursor.long().to_vec(),
                _ => {}
            }
            if let Some(input) = M::message(other, &said) {
                self.tell(to, input);
            }
        }
    }

    fn crash(&mut self, who: usize) {
        let now = self.now();
        let node = &mut self.nodes[who];
        let before = M::written(node);
        (node.machine, node.manager) = M::load(&node.config, &node.journal);
        assert_eq!(M::written(node), before, "the journal is all that counts");
        node.chain.clear();
        node.out.clear();
        M::resume(node, now);
        let (machine, manager) = M::load(&node.config, &M::written(node));
        let keys = Keys(node.keys.0.clone());
        let (config, journal) = (node.config.clone(), node.journal.clone());
        let again = Node { config, manager, machine, keys, journal, chain: VecDeque::new(), out: VecDeque::new() };
        assert_eq!(M::written(&again), M::written(node), "what is written anew is the same");
        for left in [who.checked_sub(1), Some(who).filter(|w| *w < 2)].into_iter().flatten() {
            let [a, b] = self.ends(left);
            self.tell(left, M::gone(a));
            self.tell(left + 1, M::gone(b));
        }
    }

    fn later(&mut self, ms: u64) {
        self.clock += 11_000;
        let time = self.chain.ledger.time().saturating_add(ms);
        self.chain.ledger.clocks(time);
        for who in 0..3 {
            self.tell(who, M::of_manager(Input::Tick));
        }
    }

    /// One step that both kinds of machines have; whether it was one.
    fn step(&mut self, what: u8, who: usize, cursor: &mut Cursor<'_>) -> bool {
        match what {
            0..=5 => {
                let many = 1 + cursor.below(8);
                self.deliver(who, cursor, many);
            }
            6 => self.later(5_000 * u64::from(cursor.byte())),
            7 => self.later(VIRTUAL_KEEP_MS / 16 * u64::from(cursor.byte() % 32)),
            8 => self.crash(who),
            9 => self.connect(who.min(1)),
            10 => self.carry_out(who, 4),
            11 => self.look(who),
            12 => {
                let left = who.min(1);
                let ends = self.ends(left);
                let (node, other) = if cursor.flag() { (left, left + 1) } else { (left + 1, left) };
                let keys = (&self.nodes[node].keys.0.clone(), &self.nodes[other].keys.0.clone());
                let own = [ends[usize::from(node > left)]];
                if let Some(input) = manager_input(cursor, &own, self.chain.ledger.time(), &[], keys) {
                    self.tell(node, M::of_manager(input));
                }
            }
            _ => return false,
        }
        true
    }

    fn end(mut self) {
        for who in 0..3 {
            self.crash(who);
        }
        self.chain.ledger.check();
    }
}

/// Payments over a hub: what it passes on is covered, whatever its neighbours say and whenever it crashes.
pub fn hub(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let mut row: Row<hub::Hub> = Row::new();
    let mut invoices: Vec<Bytes> = Vec::new();
    let mut secrets: BTreeSet<u8> = BTreeSet::new();
    for _ in 0..STEPS {
        if cursor.is_empty() {
            break;
        }
        let (what, who) = (cursor.byte() % 18, cursor.below(3));
        if row.step(what, who, &mut cursor) {
            continue;
        }
        let time = row.chain.ledger.time();
        if what == 13 || invoices.is_empty() {
            let number = cursor.byte();
            if !secrets.insert(number) {
                continue;
            }
            let end = row.ends(1)[1];
            let expires_ms = time + 60_000 * u64::from(cursor.byte());
            let ask = hub::Ask { end, amount: cursor.amount(), secret: [number; 32], expires_ms, memo: String::new() };
            let payee = row.chain.ledger.signers[2].address;
            let invoice = wire::HubInvoice {
                network_id: 77,
                payee: Bytes::copy_from_slice(payee.as_bytes()),
                channel: Bytes::copy_from_slice(&end.channel),
                amount: ask.amount,
                secret_hash: Bytes::copy_from_slice(&Sha256::digest(ask.secret)),
                expires_ms,
                memo: String::new(),
            };
            invoices.push(invoice.encode_to_vec().into());
            row.tell(2, hub::Input::Ask(ask));
            continue;
        }
        let invoice = cursor.pick(&invoices).clone();
        let Ok(read) = hub::read_invoice(&invoice) else { continue };
        let terms = hub_config().terms();
        let steps = [hub::Step { channel: row.channels[1], terms }];
        let Ok(mut route) = hub::plan(&hub_config(), time, &read, row.ends(0)[0], &steps) else { continue };
        match cursor.byte() % 6 {
            1 => route.amount = cursor.amount(),
            2 => route.not_after_ms = cursor.time(time),
            3 => route.hops.iter_mut().for_each(|hop| hop.amount = cursor.amount()),
            4 => route.hops.clear(),
            _ => {}
        }
        row.tell(0, hub::Input::Pay(hub::Pay { key: Bytes::from(vec![cursor.byte()]), invoice, route }));
    }
    row.end();
}

/// Virtual channels over a hub, in the same way.
pub fn virtuals(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let mut row: Row<virtuals::Virtuals> = Row::new();
    for _ in 0..STEPS {
        if cursor.is_empty() {
            break;
        }
        let (what, who) = (cursor.byte() % 20, cursor.below(3));
        if row.step(what, who, &mut cursor) {
            continue;
        }
        let id = [1 + cursor.byte() % 3; 32];
        let time = row.chain.ledger.time();
        let input = match what {
            13 | 14 => {
                let of = virtuals_config();
                let cap = cursor.amount();
                let until = time + 3_600_000 * u64::from(cursor.byte() % 8);
                let hop = wire::VirtualHop {
                    channel: Bytes::copy_from_slice(&row.channels[1]),
                    not_after_ms: until,
                    fee: if cursor.byte() == 0xff { cursor.amount() } else { 0 },
                    ..Default::default()
                };
                virtuals::Input::Open(virtuals::Open {
                    id,
                    end: row.ends(0)[0],
                    permission: row.chain.ledger.signers[0].permission.encode(),
                    cap,
                    not_after_ms: until.saturating_add(of.margin_ms()),
                    fee: of.fee(cap),
                    hops: vec![hop],
                })
            }
            15 | 16 => virtuals::Input::Pay { id, amount: cursor.amount() },
            17 => virtuals::Input::Close(id),
            18 => {
                let amount = wire::VirtualAmount { id: Bytes::copy_from_slice(&id), amount: cursor.amount() };
                let by = &row.chain.ledger.signers[cursor.below(2)].keys[0];
                let signed = florin_core::channel::voucher::sign_virtual(&amount, &[by]);
                row.tell(2, virtuals::Input::Payments(vec![signed]));
                continue;
            }
            _ => virtuals::Input::Look,
        };
        row.tell(if what == 17 { who } else { 0 }, input);
    }
    row.end();
}
