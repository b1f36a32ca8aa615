//! Wallets with a hub each, their connections, and a log that does what vouchers need, by the rules.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest, Sha256};

use crate::address::Address;
use crate::channel::hub::{
    Ask, Config, Effect, Effects, Event, Hub, Input, Pay, PaymentId, PaymentState, Policy, Reply, Step, plan,
    read_invoice,
};
use crate::channel::manager::{self, EndId, Manager, Message, Now, Outcome, Signer, Status};
use crate::channel::rules::{self, At};
use crate::channel::voucher::{self, Voucher};
use crate::error::{Code, Error, Result};
use crate::keys::{Curve, SecretKey};
use crate::merkle::Hash;
use crate::permission::Permission;
use crate::testing::{NETWORK_ID, secret};
use crate::wire::{self, ChannelRecord, ChannelSide, output};

pub const START: u64 = 1_700_000_000_000;
pub const DELAY: u64 = 6 * 3_600_000;
pub const MINUTE: u64 = 60_000;

/// The log.
#[derive(Default)]
pub struct Log {
    pub now: u64,
    pub channels: BTreeMap<Hash, ChannelRecord>,
    pub paid_out: BTreeMap<Address, u64>,
    orders: BTreeMap<Hash, Option<Error>>,
}

impl Log {
    fn apply(&mut self, id: Hash, message: &Message) -> Option<Error> {
        if let Some(done) = self.orders.get(&id) {
            return done.clone();
        }
        let before = self.channels.clone();
        let result = message.outputs.iter().try_for_each(|one| self.output(one, &message.account));
        if result.is_err() {
            self.channels = before;
        }
        self.orders.insert(id, result.clone().err());
        result.err()
    }

    fn output(&mut self, one: &output::Kind, by: &Address) -> Result<()> {
        match one {
            output::Kind::ChannelRedeem(all) => all.redemptions.iter().try_for_each(|one| {
                let voucher = Voucher::decode(one.voucher.as_ref().unwrap())?;
                let id = Hash::try_from(&voucher.terms.channel[..]).unwrap();
                let record = self.channels.get_mut(&id).unwrap();
                let side = rules::side_of(record, by).unwrap();
                let at = At { channel: &id, side, now_ms: self.now, verify: false };
                rules::redeem(record, &voucher, &one.secret, at)?;
                record.revision += 1;
                Ok(())
            }),
            output::Kind::ChannelSettle(settle) => {
                let record = self.channels.get_mut(&settle.channel[..]).unwrap();
                if record.settling_at_ms != 0 {
                    return Err(Error::new(Code::ChannelSettling, "settled before"));
                }
                record.settling_at_ms = self.now + record.delay_ms;
                record.revision += 1;
                Ok(())
            }
            output::Kind::ChannelCollect(collect) => {
                let record = self.channels.get_mut(&collect.channel[..]).unwrap();
                if record.collected || !rules::is_over(record, self.now) {
                    return Err(Error::new(Code::ChannelNotDue, "collect"));
                }
                for (side, amount) in rules::shares(record).into_iter().enumerate() {
                    let of = rules::side_mut(record, side as u32);
                    of.withdrawn += amount;
                    *self.paid_out.entry(Address::from_slice(&of.address).unwrap()).or_default() += amount;
                }
                record.collected = true;
                record.lanes.clear();
                record.revision += 1;
                Ok(())
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Signs for one account.
pub struct Key(pub SecretKey);

impl Signer for Key {
    fn voucher(&self, _: &Address, terms: wire::Voucher, side: u32) -> Result<Voucher> {
        Ok(Voucher::sign(terms, side, &[&self.0]))
    }
    fn withdraw(&self, _: &Address, permit: &wire::WithdrawPermit) -> Result<wire::SignedPermit> {
        Ok(voucher::sign_withdraw(permit, &[&self.0]))
    }
    fn watch(&self, _: &Address, permit: &wire::WatchPermit) -> Result<wire::SignedPermit> {
        Ok(voucher::sign_watch(permit, &[&self.0]))
    }
}

pub struct Node {
    pub hub: Hub,
    pub manager: Manager,
    pub config: Config,
    pub channels: manager::Config,
    pub key: Key,
    pub account: Address,
    permission: Bytes,
    /// Durable.
    pub journal: Vec<wire::HubGroup>,
    pub unsynced: Vec<Effects>,
    pub effects: VecDeque<Effect>,
    signed: BTreeMap<Hash, Message>,
    orders: u64,
    pub events: Vec<Event>,
    pub ends: Vec<EndId>,
    /// Revision of each channel that it has seen since its start.
    looked: BTreeMap<Hash, u64>,
    /// What it sends is lost.
    pub mute: bool,
    /// It does nothing at all.
    pub down: bool,
    /// Its journal is written anew at every restart.
    pub compacts: bool,
}

impl Node {
    fn new(number: u64, policy: Policy) -> Node {
        let key = secret(Curve::Ed25519, number);
        let permission = Permission::single(key.public());
        let (account, permission) = (permission.address(NETWORK_ID), permission.encode());
        let accounts = BTreeMap::from([(account, permission.clone())]);
        let channels = manager::Config { committee_id: [7; 32], accounts, policy: manager::Policy::default() };
        let config = Config { network_id: NETWORK_ID, channels: channels.policy.clone(), policy };
        Node {
            hub: Hub::new(config.clone()),
            manager: Manager::new(channels.clone()),
            config,
            channels,
            key: Key(key),
            account,
            permission,
            journal: Vec::new(),
            unsynced: Vec::new(),
            effects: VecDeque::new(),
            signed: BTreeMap::new(),
            orders: 0,
            events: Vec::new(),
            ends: Vec::new(),
            looked: BTreeMap::new(),
            mute: false,
            down: false,
            compacts: false,
        }
    }

    pub fn handle(&mut self, now: Now, input: Input) -> Result<Reply> {
        let fx = self.hub.handle(now, input, &mut self.manager, &self.key)?;
        let reply = fx.reply.clone();
        self.unsynced.push(fx);
        self.hub.check(now, &self.manager);
        Ok(reply)
    }

    pub fn sync(&mut self) {
        for fx in self.unsynced.drain(..) {
            if !fx.group.entries.is_empty() {
                // Over the disk and back.
                self.journal.push(wire::HubGroup::decode(&fx.group.encode_to_vec()[..]).unwrap());
            }
            self.effects.extend(fx.effects);
        }
    }

    /// Loses what is not durable, and the last `lost` groups of what is: a backup.
    pub fn restart(&mut self, now: Now, lost: usize) {
        self.unsynced.clear();
        self.effects.clear();
        self.looked.clear();
        self.journal.truncate(self.journal.len() - lost.min(self.journal.len()));
        let loaded = Hub::load(self.config.clone(), self.channels.clone(), &self.journal).unwrap();
        (self.hub, self.manager) = loaded;
        self.check_snapshot();
        let fx = self.hub.resume(now, &mut self.manager, &self.key);
        self.unsynced.push(fx);
        self.sync();
    }

    /// A journal written anew is worth the old one: the same state, and the same when it goes on. So it is from now on.
    fn check_snapshot(&mut self) {
        let group = wire::HubGroup::decode(&self.hub.snapshot(&self.manager).encode_to_vec()[..]).unwrap();
        let (hub, manager) = Hub::load(self.config.clone(), self.channels.clone(), [&group]).unwrap();
        assert_eq!(format!("{hub:?}"), format!("{:?}", self.hub));
        assert_eq!(manager.snapshot(), self.manager.snapshot());
        assert_eq!(hub.snapshot(&manager), group);
        if self.compacts {
            self.journal = vec![group];
            (self.hub, self.manager) = (hub, manager);
        }
    }
}

/// A message on its way: to a wallet, for its end.
pub type Mail = (usize, EndId, Box<wire::HubMessage>);

pub struct World {
    pub log: Log,
    pub nodes: Vec<Node>,
    /// The other side of an end of a wallet.
    pub peers: BTreeMap<(usize, EndId), (usize, EndId)>,
    pub mail: Vec<Mail>,
    /// Messages of these kinds are lost.
    pub lose: fn(&wire::HubMessage) -> bool,
    /// Locks that were offered, to whom.
    pub offers: Vec<(usize, Voucher)>,
    pub secrets: BTreeMap<Hash, Hash>,
    /// Connections that were made.
    pub connections: u64,
}

impl World {
    pub fn new(wallets: u64) -> World {
        World::with(wallets, Policy::default())
    }

    pub fn with(wallets: u64, policy: Policy) -> World {
        World {
            log: Log { now: START, ..Log::default() },
            nodes: (1..=wallets).map(|number| Node::new(number, policy.clone())).collect(),
            peers: BTreeMap::new(),
            mail: Vec::new(),
            lose: |_| false,
            offers: Vec::new(),
            secrets: BTreeMap::new(),
            connections: 0,
        }
    }

    pub fn now(&self) -> Now {
        Now { log_ms: self.log.now, clock_ms: self.log.now - START }
    }

    /// A channel that both sides see, with connected wallets.
    pub fn open(&mut self, from: usize, to: usize, amounts: [u64; 2], two_way: bool) -> (EndId, EndId) {
        let channel: Hash = Sha256::digest(self.log.channels.len().to_be_bytes()).into();
        let side = |node: &Node, deposited| {
            let address = Bytes::copy_from_slice(node.account.as_bytes());
            Some(ChannelSide { address, permission: node.permission.clone(), deposited, ..Default::default() })
        };
        let record = ChannelRecord {
            opener: side(&self.nodes[from], amounts[0]),
            other: side(&self.nodes[to], amounts[1]),
            delay_ms: DELAY,
            two_way,
            revision: 1,
            ..Default::default()
        };
        self.log.channels.insert(channel, record);
        let ends = (EndId { channel, side: 0 }, EndId { channel, side: 1 });
        self.nodes[from].ends.push(ends.0);
        self.nodes[to].ends.push(ends.1);
        self.peers.insert((from, ends.0), (to, ends.1));
        self.peers.insert((to, ends.1), (from, ends.0));
        self.look(from);
        self.look(to);
        self.connect(from, ends.0);
        self.run();
        ends
    }

    /// Both sides connect anew.
    pub fn connect(&mut self, node: usize, end: EndId) {
        let (peer, other) = self.peers[&(node, end)];
        for (node, end) in [(node, end), (peer, other)] {
            if !self.nodes[node].down {
                self.connections += 1;
                let connected = Input::Connected(end, self.connections);
                self.ask(node, connected).unwrap();
            }
        }
    }

    pub fn connect_all(&mut self) {
        let ends: Vec<(usize, EndId)> = self.peers.keys().copied().filter(|(_, end)| end.side == 0).collect();
        // The last first: what is offered again finds the way open.
        for (node, end) in ends.into_iter().rev() {
            self.connect(node, end);
            self.run();
        }
    }

    /// Asks and syncs.
    pub fn ask(&mut self, node: usize, input: Input) -> Result<Reply> {
        let now = self.now();
        let reply = self.nodes[node].handle(now, input)?;
        self.nodes[node].sync();
        Ok(reply)
    }

    pub fn channel(&mut self, node: usize, input: manager::Input) -> Result<Reply> {
        self.ask(node, Input::Channel(Box::new(input)))
    }

    /// Carries out one effect of a wallet, durable ones only.
    pub fn step(&mut self, node: usize) -> bool {
        let now = self.now();
        let of = &mut self.nodes[node];
        if of.down {
            return false;
        }
        of.sync();
        let Some(effect) = of.effects.pop_front() else { return false };
        let tell = |input| Input::Channel(Box::new(input));
        match effect {
            Effect::Channel(manager::Effect::Prepare { op, message }) => {
                of.orders += 1;
                let id: Hash = Sha256::new()
                    .chain_update(of.account.as_bytes())
                    .chain_update(of.orders.to_be_bytes())
                    .finalize()
                    .into();
                of.signed.insert(id, message);
                let order = Bytes::copy_from_slice(&id);
                of.handle(now, tell(manager::Input::Prepared { op, order_id: id, output: 0, order })).unwrap();
            }
            Effect::Channel(manager::Effect::Broadcast { op, order }) => {
                let id = Hash::try_from(&order[..]).unwrap();
                let outcome = match self.log.apply(id, &of.signed[&id]) {
                    Some(e) => Outcome::Failed { code: e.code as u32, message: e.message },
                    None => {
                        let end = of.manager.operation(op).unwrap().end.unwrap();
                        let record = Box::new(self.log.channels[&end.channel].clone());
                        Outcome::Confirmed { record, time_ms: now.log_ms }
                    }
                };
                of.handle(now, tell(manager::Input::Outcome { op, outcome })).unwrap();
            }
            Effect::Channel(manager::Effect::Event(_)) => {}
            Effect::Send { end, message, .. } => {
                let (peer, other) = self.peers[&(node, end)];
                if !of.mute && !(self.lose)(&message) {
                    // Over the line and back.
                    let message = wire::HubMessage::decode(&message.encode_to_vec()[..]).unwrap();
                    if let Some(wire::hub_message::Kind::Offer(offer)) = &message.kind {
                        self.offers.push((peer, Voucher::decode(offer.voucher.as_ref().unwrap()).unwrap()));
                    }
                    self.mail.push((peer, other, Box::new(message)));
                }
            }
            Effect::Event(event) => of.events.push(event),
        }
        true
    }

    /// Delivers the message at a place; what it is refused with is dropped.
    pub fn deliver(&mut self, at: usize) -> Option<Error> {
        let (node, end, message) = self.mail.remove(at);
        if self.nodes[node].down {
            return None;
        }
        let now = self.now();
        self.nodes[node].handle(now, Input::Message { end, message }).err()
    }

    /// Until nothing is left to do.
    pub fn run(&mut self) {
        for _ in 0..10_000 {
            let mut busy = false;
            for node in 0..self.nodes.len() {
                while self.step(node) {
                    busy = true;
                }
            }
            if !self.mail.is_empty() {
                self.deliver(0);
                busy = true;
            }
            if !busy {
                return;
            }
        }
        panic!("the hubs never come to rest");
    }

    /// Whoever was offered a lock redeems it in the log, whatever it has said since. Whether the log took it.
    pub fn grab(&mut self, offer: usize) -> bool {
        let (node, voucher) = &self.offers[offer];
        let id = Hash::try_from(&voucher.terms.channel[..]).unwrap();
        let secret = self.secrets[&voucher.terms.secret_hash[..]];
        let record = self.log.channels.get_mut(&id).unwrap();
        let side = rules::side_of(record, &self.nodes[*node].account).unwrap();
        let at = At { channel: &id, side, now_ms: self.log.now, verify: false };
        let taken = rules::redeem(record, voucher, &secret, at).is_ok();
        record.revision += u64::from(taken);
        taken
    }

    /// Every wallet looks at its channels.
    pub fn poll(&mut self) {
        for node in 0..self.nodes.len() {
            self.look(node);
        }
    }

    pub fn look(&mut self, node: usize) {
        let now = self.now();
        let of = &mut self.nodes[node];
        if of.down {
            return;
        }
        for end in of.ends.clone() {
            let record = &self.log.channels[&end.channel];
            let waits = |status: Status| status.locked + status.locked_in > 0;
            if of.looked.insert(end.channel, record.revision) == Some(record.revision)
                && !of.manager.status(&end).is_ok_and(waits)
            {
                // The same again, and time ends nothing.
                continue;
            }
            let record = Box::new(record.clone());
            let seen = manager::Input::Seen { channel: end.channel, record, time_ms: now.log_ms };
            of.handle(now, Input::Channel(Box::new(seen))).unwrap();
        }
        of.handle(now, Input::Channel(Box::new(manager::Input::Tick))).unwrap();
    }

    /// Time passes, in steps of a minute at most.
    pub fn pass(&mut self, ms: u64) {
        let mut left = ms;
        while left > 0 {
            let step = left.min(MINUTE);
            self.log.now += step;
            left -= step;
            self.poll();
            self.run();
            self.poll();
            self.run();
        }
    }

    /// To the moments at which something is due, until no lock is left.
    pub fn pass_all(&mut self) {
        loop {
            let now = self.log.now;
            let hubs = self.nodes.iter().map(|node| &node.hub);
            let limits = hubs.flat_map(|hub| {
                hub.ins.values().map(|one| one.not_after_ms).chain(hub.outs.values().map(|out| out.not_after_ms))
            });
            let moments = limits.flat_map(|limit| [limit - 40_000, limit + 1]).filter(|at| *at > now);
            let Some(next) = moments.min() else { return };
            self.log.now = next;
            self.poll();
            self.run();
            self.poll();
            self.run();
        }
    }

    pub fn restart(&mut self, node: usize, lost: usize) {
        let now = self.now();
        self.nodes[node].restart(now, lost);
    }

    pub fn invoice(&mut self, node: usize, end: EndId, amount: u64) -> (Bytes, Hash) {
        let secret: Hash = Sha256::digest((self.secrets.len() as u64 + 1).to_be_bytes()).into();
        let expires_ms = self.log.now + 3_600_000;
        match self.ask(node, Input::Ask(Ask { end, amount, secret, expires_ms, memo: "for tests".into() })).unwrap() {
            Reply::Invoice(invoice, hash) => {
                self.secrets.insert(hash, secret);
                (invoice, hash)
            }
            other => panic!("{other:?}"),
        }
    }

    /// What a wallet would say to pay an invoice over hubs, each with the end that it pays in.
    pub fn payment(&self, node: usize, end: EndId, hubs: &[(usize, EndId)], invoice: &Bytes) -> Pay {
        let steps: Vec<Step> = hubs
            .iter()
            .map(|(hub, end)| Step { channel: end.channel, terms: self.nodes[*hub].config.terms() })
            .collect();
        let terms = read_invoice(invoice).unwrap();
        let route = plan(&self.nodes[node].config, self.log.now, &terms, end, &steps).unwrap();
        Pay { key: terms.secret_hash.clone(), invoice: invoice.clone(), route }
    }

    pub fn pay(&mut self, node: usize, pay: Pay) -> PaymentId {
        match self.ask(node, Input::Pay(pay)).unwrap() {
            Reply::Payment(payment) => payment,
            other => panic!("{other:?}"),
        }
    }

    pub fn state(&self, node: usize, payment: PaymentId) -> PaymentState {
        self.nodes[node].hub.payment(payment).unwrap().clone()
    }

    pub fn failed_with(&self, node: usize, payment: PaymentId) -> Code {
        match self.state(node, payment) {
            PaymentState::Failed { code, .. } => Code::from_number(code).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub fn status(&self, node: usize, end: &EndId) -> Status {
        self.nodes[node].manager.status(end).unwrap()
    }

    pub fn paid_events(&self, node: usize) -> usize {
        self.nodes[node].events.iter().filter(|event| matches!(event, Event::InvoicePaid { .. })).count()
    }

    /// Settles and collects all channels. What each wallet got.
    pub fn wind_up(&mut self) -> Vec<u64> {
        for node in &mut self.nodes {
            (node.down, node.mute) = (false, false);
        }
        self.lose = |_| false;
        self.connect_all();
        self.pass_all();
        let ends: BTreeSet<(usize, EndId)> = self.peers.keys().copied().filter(|(_, end)| end.side == 0).collect();
        for (node, end) in &ends {
            let _ = self.channel(*node, manager::Input::Settle(*end));
        }
        self.pass(3 * MINUTE);
        self.log.now += 2 * DELAY;
        self.poll();
        self.run();
        for (node, end) in &ends {
            let _ = self.channel(*node, manager::Input::Collect(*end));
        }
        self.run();
        assert!(self.log.channels.values().all(|record| record.collected), "a channel was not collected");
        self.nodes.iter().map(|node| self.log.paid_out.get(&node.account).copied().unwrap_or(0)).collect()
    }
}

/// Alice, a hub, Bob: channels from Alice to the hub and from the hub to Bob, one-way.
pub struct Line {
    pub world: World,
    /// By wallet: the end that pays, and the other.
    pub links: Vec<(EndId, EndId)>,
}

pub const ALICE: usize = 0;
pub const HUB: usize = 1;
pub const BOB: usize = 2;
pub const FUNDS: u64 = 100_000;

impl Line {
    pub fn new(policy: Policy) -> Line {
        Line::of(3, policy)
    }

    /// Any number of wallets in a row.
    pub fn of(wallets: u64, policy: Policy) -> Line {
        let mut world = World::with(wallets, policy);
        let links = (1..wallets as usize).map(|to| world.open(to - 1, to, [FUNDS, 0], false)).collect();
        Line { world, links }
    }

    /// An invoice of the last one.
    pub fn invoice(&mut self, amount: u64) -> (Bytes, Hash) {
        let (last, end) = (self.world.nodes.len() - 1, self.links[self.links.len() - 1].1);
        self.world.invoice(last, end, amount)
    }

    pub fn plan(&self, invoice: &Bytes) -> Pay {
        let hubs: Vec<(usize, EndId)> = (1..self.links.len()).map(|hub| (hub, self.links[hub].0)).collect();
        self.world.payment(ALICE, self.links[0].0, &hubs, invoice)
    }

    /// The first pays an invoice of the last; not yet carried out.
    pub fn start(&mut self, amount: u64) -> (PaymentId, Hash) {
        let (invoice, hash) = self.invoice(amount);
        let pay = self.plan(&invoice);
        (self.world.pay(ALICE, pay), hash)
    }
}
