//! Wallets with virtual channels, their connections, and a log that does what vouchers and claims need, by the rules.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest, Sha256};

use crate::address::Address;
use crate::channel::manager::{self, EndId, Manager, Message, Now, Outcome, Signer};
use crate::channel::rules::{self, At};
use crate::channel::virtuals::{
    Config, Effect, Effects, Event, Input, Open, Policy, Reply, Status, VirtualId, VirtualSigner, Virtuals,
    load_manager,
};
use crate::channel::voucher::{self, Voucher};
use crate::error::{Code, Error, Result};
use crate::keys::{Curve, SecretKey};
use crate::merkle::Hash;
use crate::permission::Permission;
use crate::testing::{NETWORK_ID, secret};
use crate::wire::{self, ChannelRecord, ChannelSide, VirtualHop, output};

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
    /// Largest claim, as it is encoded, and the longest path.
    pub claims: (usize, usize),
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

    pub fn output(&mut self, one: &output::Kind, by: &Address) -> Result<()> {
        let now_ms = self.now;
        match one {
            output::Kind::ChannelRedeem(all) => {
                assert!(all.encoded_len() <= crate::limits::CALL_BYTES_MAX - 256, "it does not fit into a CALL");
                for one in &all.redemptions {
                    let voucher = Voucher::decode(one.voucher.as_ref().unwrap())?;
                    let id = Hash::try_from(&voucher.terms.channel[..]).unwrap();
                    let record = self.channels.get_mut(&id).unwrap();
                    let side = rules::side_of(record, by).unwrap();
                    rules::redeem(record, &voucher, &one.secret, At { channel: &id, side, now_ms, verify: true })?;
                    record.revision += 1;
                }
                for claim in &all.claims {
                    self.claims.0 = self.claims.0.max(claim.encoded_len());
                    self.claims.1 = self.claims.1.max(claim.path.len());
                    let id = Hash::try_from(&claim.channel[..]).unwrap();
                    let record = self.channels.get_mut(&id).unwrap();
                    let side = rules::side_of(record, by).unwrap();
                    rules::claim(record, claim, At { channel: &id, side, now_ms, verify: true })?;
                    record.revision += 1;
                }
                Ok(())
            }
            output::Kind::ChannelSettle(settle) => {
                let record = self.channels.get_mut(&settle.channel[..]).unwrap();
                if record.settling_at_ms != 0 {
                    return Err(Error::new(Code::ChannelSettling, "settled before"));
                }
                record.settling_at_ms = now_ms + record.delay_ms;
                record.revision += 1;
                Ok(())
            }
            output::Kind::ChannelCollect(collect) => {
                let record = self.channels.get_mut(&collect.channel[..]).unwrap();
                if record.collected || !rules::is_over(record, now_ms) {
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

impl VirtualSigner for Key {
    fn virtual_amount(&self, _: &Bytes, amount: &wire::VirtualAmount) -> Result<wire::SignedPermit> {
        Ok(voucher::sign_virtual(amount, &[&self.0]))
    }
}

pub struct Node {
    pub virtuals: Virtuals,
    pub manager: Manager,
    pub config: Config,
    channels: manager::Config,
    pub key: Key,
    pub account: Address,
    pub permission: Bytes,
    /// Durable.
    pub journal: Vec<wire::HubGroup>,
    pub unsynced: Vec<Effects>,
    pub effects: VecDeque<Effect>,
    signed: BTreeMap<Hash, Message>,
    orders: u64,
    pub events: Vec<Event>,
    pub ends: Vec<EndId>,
    /// It does nothing at all.
    pub down: bool,
    /// What it sends is lost.
    pub mute: bool,
}

impl Node {
    fn new(number: u64, policy: Policy) -> Node {
        let key = secret(Curve::Ed25519, number);
        let permission = Permission::single(key.public());
        let (account, permission) = (permission.address(NETWORK_ID), permission.encode());
        let accounts = BTreeMap::from([(account, permission.clone())]);
        let channels = manager::Config { committee_id: [7; 32], accounts, policy: manager::Policy::default() };
        let config = Config { channels: channels.policy.clone(), policy };
        Node {
            virtuals: Virtuals::new(config.clone()),
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
            down: false,
            mute: false,
        }
    }

    pub fn handle(&mut self, now: Now, input: Input) -> Result<Reply> {
        let fx = self.virtuals.handle(now, input, &mut self.manager, &self.key)?;
        let reply = fx.reply.clone();
        self.unsynced.push(fx);
        self.virtuals.check(now, &self.manager);
        Ok(reply)
    }

    pub fn manager_config(&self) -> manager::Config {
        self.channels.clone()
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

    /// Loses what is not durable, all effects that were not carried out, and the last `lost` groups of what is durable: a backup.
    pub fn restart(&mut self, now: Now, lost: usize) {
        self.unsynced.clear();
        self.effects.clear();
        self.journal.truncate(self.journal.len() - lost.min(self.journal.len()));
        self.virtuals = Virtuals::load(self.config.clone(), &self.journal).unwrap();
        let anew = wire::HubGroup { entries: vec![self.virtuals.snapshot()] };
        let anew = wire::HubGroup::decode(&anew.encode_to_vec()[..]).unwrap();
        let again = Virtuals::load(self.config.clone(), [&anew]).unwrap();
        assert_eq!(format!("{again:?}"), format!("{:?}", self.virtuals), "the new journal makes another machine");
        self.manager = load_manager(self.channels.clone(), &self.journal).unwrap();
        let of_manager = self.manager.resume(now);
        assert!(of_manager.records.is_empty() || !of_manager.effects.is_empty());
        let entry = |record| wire::HubEntry { kind: Some(wire::hub_entry::Kind::Channel(record)) };
        let group = wire::HubGroup { entries: of_manager.records.into_iter().map(entry).collect() };
        let effects = of_manager.effects.into_iter().map(Effect::Channel).collect();
        self.unsynced.push(Effects { group, reply: Reply::Done, effects });
        let fx = self.virtuals.resume(now, &mut self.manager, &self.key);
        self.unsynced.push(fx);
        self.sync();
    }
}

/// On its way.
#[derive(Clone, Debug)]
pub enum Mail {
    Side(usize, EndId, Box<wire::VirtualMessage>),
    Peer(usize, Box<wire::VirtualPeer>),
}

pub struct World {
    pub log: Log,
    pub nodes: Vec<Node>,
    /// The other side of an end of a wallet.
    pub peers: BTreeMap<(usize, EndId), (usize, EndId)>,
    pub mail: VecDeque<Mail>,
    /// Payer and payee of each virtual channel.
    pub parties: BTreeMap<VirtualId, (usize, usize)>,
    /// All vouchers with sets that were sent, to whom; with the caps that their sets had.
    pub sent: Vec<(usize, EndId, Voucher)>,
    pub caps: BTreeMap<(Hash, u32), BTreeMap<VirtualId, wire::VirtualCap>>,
    pub opened: u64,
    /// Connections that were made, and the newest of each channel.
    pub connections: u64,
    pub newest: BTreeMap<Hash, u64>,
    /// What was said for a connection that there is no more.
    pub late: usize,
    /// Messages of these kinds are lost.
    pub lose: fn(&wire::VirtualMessage) -> bool,
}

pub const ALICE: usize = 0;
pub const HUB: usize = 1;
pub const BOB: usize = 2;
pub const FUNDS: u64 = 100_000;

impl World {
    pub fn with(wallets: u64, policy: Policy) -> World {
        World {
            log: Log { now: START, ..Log::default() },
            nodes: (1..=wallets).map(|number| Node::new(number, policy.clone())).collect(),
            peers: BTreeMap::new(),
            mail: VecDeque::new(),
            parties: BTreeMap::new(),
            sent: Vec::new(),
            caps: BTreeMap::new(),
            opened: 0,
            connections: 0,
            newest: BTreeMap::new(),
            late: 0,
            lose: |_| false,
        }
    }

    /// Alice, a hub, Bob: channels from Alice to the hub and from the hub to Bob, one-way.
    pub fn line() -> World {
        let mut world = World::with(3, Policy::default());
        world.open(ALICE, HUB, [FUNDS, 0], false);
        world.open(HUB, BOB, [FUNDS, 0], false);
        world
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

    pub fn connect(&mut self, node: usize, end: EndId) {
        let (peer, other) = self.peers[&(node, end)];
        self.connections += 1;
        self.newest.insert(end.channel, self.connections);
        for (node, end) in [(node, end), (peer, other)] {
            if !self.nodes[node].down {
                self.ask(node, Input::Connected(end, self.connections)).unwrap();
            }
        }
    }

    pub fn connect_all(&mut self) {
        let ends: Vec<(usize, EndId)> = self.peers.keys().copied().filter(|(_, end)| end.side == 0).collect();
        // The last first: what is said again finds the way open.
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

    /// A virtual channel of a payer over hubs to a payee, by their places; its limit is that of the payee's leaf, from now.
    pub fn wanted(&mut self, way: &[usize], cap: u64, ms: u64) -> Open {
        self.opened += 1;
        let id: VirtualId = Sha256::digest(self.opened.to_be_bytes()).into();
        let mut until = self.log.now + ms;
        let (mut fee, mut hops) = (0u64, Vec::new());
        for (from, to) in way.iter().zip(&way[1..]).skip(1).rev() {
            let channel = Bytes::copy_from_slice(&self.between(*from, *to).channel);
            hops.push(VirtualHop { channel, party: Bytes::new(), not_after_ms: until, fee });
            fee += self.nodes[*from].config.fee(cap);
            until += self.nodes[*from].config.margin_ms();
        }
        hops.reverse();
        self.parties.insert(id, (way[0], way[way.len() - 1]));
        let permission = self.nodes[way[0]].permission.clone();
        Open { id, end: self.between(way[0], way[1]), permission, cap, not_after_ms: until, fee, hops }
    }

    /// The end of one in a channel with another.
    pub fn between(&self, node: usize, other: usize) -> EndId {
        let found = self.peers.iter().find(|((from, _), (to, _))| *from == node && *to == other);
        found.unwrap().0.1
    }

    /// Opens one from Alice over the hub to Bob.
    pub fn start(&mut self, cap: u64, ms: u64) -> VirtualId {
        let open = self.wanted(&[ALICE, HUB, BOB], cap, ms);
        let id = open.id;
        self.ask(ALICE, Input::Open(open)).unwrap();
        id
    }

    pub fn pay(&mut self, id: VirtualId, amount: u64) {
        let payer = self.parties[&id].0;
        self.ask(payer, Input::Pay { id, amount }).unwrap();
        self.run();
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
                let number = of.orders.to_be_bytes();
                let id: Hash = Sha256::new().chain_update(of.account.as_bytes()).chain_update(number).finalize().into();
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
            Effect::Send { end, connection, message } => {
                let (peer, other) = self.peers[&(node, end)];
                let is_late = self.newest[&end.channel] != connection;
                self.late += usize::from(is_late);
                let lost = of.mute || is_late || (self.lose)(&message);
                let message = wire::VirtualMessage::decode(&message.encode_to_vec()[..]).unwrap();
                // What is said for an older connection is on no line.
                if !is_late {
                    self.note(peer, other, &message);
                }
                if !lost {
                    self.mail.push_back(Mail::Side(peer, other, Box::new(message)));
                }
            }
            Effect::Tell(message) => {
                let (payer, payee) = self.parties[&message.id[..]];
                let to = if node == payer { payee } else { payer };
                if !of.mute {
                    self.mail.push_back(Mail::Peer(to, message));
                }
            }
            Effect::Event(event) => of.events.push(event),
        }
        true
    }

    /// What somebody who listens on the line keeps.
    fn note(&mut self, to: usize, end: EndId, message: &wire::VirtualMessage) {
        let Some(wire::virtual_message::Kind::Update(update)) = &message.kind else { return };
        let voucher = Voucher::decode(update.voucher.as_ref().unwrap()).unwrap();
        let caps = self.caps.entry((end.channel, voucher.terms.lane)).or_default();
        for open in &update.opens {
            let cap = open.cap.clone().unwrap();
            caps.insert(VirtualId::try_from(&cap.id[..]).unwrap(), cap);
        }
        self.sent.push((to, end, voucher));
    }

    /// Delivers the message at a place; what it is refused with.
    pub fn deliver(&mut self, at: usize) -> Option<Error> {
        let now = self.now();
        let (node, input) = match self.mail.remove(at)? {
            Mail::Side(node, end, message) => (node, Input::Message { end, message }),
            Mail::Peer(node, message) => (node, Input::Peer(*message)),
        };
        if self.nodes[node].down {
            return None;
        }
        self.nodes[node].handle(now, input).err()
    }

    /// Until nothing is left to do.
    pub fn run(&mut self) {
        for _ in 0..100_000 {
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
        panic!("the wallets never come to rest");
    }

    /// A wallet looks at its channels.
    pub fn look(&mut self, node: usize) {
        let now = self.now();
        let of = &mut self.nodes[node];
        if of.down {
            return;
        }
        for end in of.ends.clone() {
            let record = Box::new(self.log.channels[&end.channel].clone());
            let seen = manager::Input::Seen { channel: end.channel, record, time_ms: now.log_ms };
            of.handle(now, Input::Channel(Box::new(seen))).unwrap();
        }
        of.handle(now, Input::Channel(Box::new(manager::Input::Tick))).unwrap();
        of.sync();
    }

    pub fn poll(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.look(node));
        self.run();
    }

    /// Time passes, in steps of 20 seconds at most.
    pub fn pass(&mut self, ms: u64) {
        let to = self.log.now + ms;
        while self.log.now < to {
            self.log.now = to.min(self.log.now + 20_000);
            self.poll();
            self.poll();
        }
    }

    pub fn restart(&mut self, node: usize, lost: usize) {
        let now = self.now();
        self.nodes[node].restart(now, lost);
    }

    pub fn status(&self, node: usize, id: &VirtualId) -> Status {
        self.nodes[node].virtuals.status(id).unwrap()
    }

    pub fn money(&self, node: usize, other: usize) -> manager::Status {
        self.nodes[node].manager.status(&self.between(node, other)).unwrap()
    }

    /// What the log has paid in the channel of two, to the second.
    pub fn in_log(&self, from: usize, to: usize) -> u64 {
        let end = self.between(from, to);
        rules::side(&self.log.channels[&end.channel], end.side).sent
    }

    /// Redeems, settles and collects all channels. What each wallet got, less what it put in.
    pub fn wind_up(&mut self) -> Vec<i128> {
        for node in &mut self.nodes {
            (node.down, node.mute) = (false, false);
        }
        self.lose = |_| false;
        self.connect_all();
        let ends: Vec<(usize, EndId)> = self.peers.keys().copied().filter(|(_, end)| end.side == 0).collect();
        for (node, end) in &ends {
            let _ = self.channel(*node, manager::Input::Settle(*end));
        }
        self.run();
        self.poll();
        self.pass(DELAY + MINUTE);
        for (node, end) in &ends {
            let _ = self.channel(*node, manager::Input::Collect(*end));
        }
        self.run();
        self.poll();
        assert!(self.log.channels.values().all(|record| record.collected), "a channel was not collected");
        let put_in = |node: &Node| -> u64 {
            node.ends.iter().map(|end| rules::side(&self.log.channels[&end.channel], end.side).deposited).sum()
        };
        let got = |node: &Node| self.log.paid_out.get(&node.account).copied().unwrap_or(0);
        self.nodes.iter().map(|node| i128::from(got(node)) - i128::from(put_in(node))).collect()
    }

    /// Somebody redeems a voucher that it was once sent, and claims of its set what a payer signs for it now.
    pub fn grab(&mut self, sent: usize, wanted: &[(VirtualId, u64)]) -> Result<()> {
        let (node, end, voucher) = self.sent[sent].clone();
        let terms = &voucher.terms;
        let leaves = self.leaves(&voucher);
        let hashes: Vec<Hash> = leaves.iter().map(voucher::virtual_leaf).collect();
        let claims = wanted.iter().filter_map(|(id, amount)| {
            let index = leaves.iter().position(|cap| cap.id == id[..])?;
            let path = crate::merkle::Tree::new(&hashes).path(index);
            let amount = wire::VirtualAmount { id: Bytes::copy_from_slice(id), amount: *amount };
            Some(wire::VirtualClaim {
                channel: terms.channel.clone(),
                payer: terms.payer,
                lane: terms.lane,
                cap: Some(leaves[index].clone()),
                index: index as u32,
                path: path.iter().map(|hash| Bytes::copy_from_slice(hash)).collect(),
                amount: Some(voucher::sign_virtual(&amount, &[&self.nodes[self.parties[id].0].key.0])),
                watch: None,
            })
        });
        let claims: Vec<_> = claims.collect();
        let known = rules::lane(&self.log.channels[&end.channel], terms.payer, terms.lane);
        let redemptions = match known.is_some_and(|lane| lane.nonce == terms.nonce) {
            true => vec![],
            false => vec![wire::Redemption { voucher: Some(voucher.signed()), ..Default::default() }],
        };
        let redeem = output::Kind::ChannelRedeem(wire::ChannelRedeem { redemptions, claims });
        let (before, account) = (self.log.channels.clone(), self.nodes[node].account);
        let done = self.log.output(&redeem, &account);
        if done.is_err() {
            self.log.channels = before;
        }
        done
    }

    /// What is in the set of a voucher that was sent.
    pub fn leaves_of(&self, voucher: &Voucher) -> Vec<VirtualId> {
        self.leaves(voucher).iter().map(|cap| VirtualId::try_from(&cap.id[..]).unwrap()).collect()
    }

    /// The set of a voucher that was sent, found by trying: whoever got it has them.
    fn leaves(&self, voucher: &Voucher) -> Vec<wire::VirtualCap> {
        let terms = &voucher.terms;
        let channel = Hash::try_from(&terms.channel[..]).unwrap();
        let mut leaves: BTreeMap<VirtualId, wire::VirtualCap> = BTreeMap::new();
        let node =
            self.nodes.iter().position(|node| node.ends.contains(&EndId { channel, side: terms.payer })).unwrap();
        // As the payer's journal has it.
        for group in &self.nodes[node].journal {
            for entry in &group.entries {
                let Some(wire::hub_entry::Kind::Virtual(record)) = &entry.kind else { continue };
                let Some(wire::virtual_record::Kind::Signed(signed)) = &record.kind else { continue };
                let lane = signed.lane.as_ref().unwrap();
                if lane.channel != terms.channel || lane.lane != terms.lane || signed.nonce > terms.nonce {
                    continue;
                }
                for open in &signed.opens {
                    let cap = open.cap.clone().unwrap();
                    leaves.insert(VirtualId::try_from(&cap.id[..]).unwrap(), cap);
                }
                signed.shuts.iter().for_each(|shut| drop(leaves.remove(&shut.id[..])));
            }
        }
        leaves.into_values().collect()
    }
}
