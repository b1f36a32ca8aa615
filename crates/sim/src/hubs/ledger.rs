//! The ordered log of core, as fast as one authority applies it: real certificates, units, clock votes, delays and redemptions. What
//! shards do (debit the spending side, credit what the log delivers) is a table of balances here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::authority::state::Table;
use florin_core::bitmap::Bitmap;
use florin_core::certificate::{BatchId, Promise, sign};
use florin_core::channel::manager::Message;
use florin_core::committee::Committee;
use florin_core::content::{Content, TYPE_CALL, encode_call};
use florin_core::envelope::{Body, Order, encode_body, next_hash, order_id};
use florin_core::merkle::{Hash, Tree};
use florin_core::ordered::OrderedLog;
use florin_core::ordered::input::Input;
use florin_core::ordered::item::pack;
use florin_core::ordered::step::Object;
use florin_core::signatures::AuthorityKey;
use florin_core::testing::{MemState, NETWORK_ID, TestCommittee};
use florin_core::wire::{self, ChannelRecord, output};
use prost::Message as _;

/// Log time at which every life begins, ms.
pub const START: u64 = 1_700_000_000_000;

/// What signs for the log, the same in every life.
#[derive(Clone)]
pub struct Committed {
    /// The committee.
    pub committee: Arc<Committee>,
    keys: Arc<Vec<Arc<AuthorityKey>>>,
}

impl Committed {
    /// Four authorities of one shard.
    pub fn new() -> Committed {
        let (committee, keys) = TestCommittee::new(4, 1).build();
        Committed { committee, keys: Arc::new(keys) }
    }
}

/// The last order of an account that was signed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tip {
    /// Its number; 0 before the first.
    pub seqnum: u32,
    /// What the next one names.
    pub prev_hash: u64,
}

/// What became of an order: a code and what it says, or that it was done.
pub type Decided = Option<(u32, String)>;

struct Queued {
    id: Hash,
    actor: u64,
    body: Bytes,
    seqnum: u32,
    due_ms: u64,
}

/// The log, and what accounts have.
#[derive(Clone)]
pub struct Snapshot {
    state: MemState,
    time_ms: u64,
    balances: BTreeMap<Address, i128>,
    tips: BTreeMap<u64, Tip>,
    records: BTreeMap<Hash, ChannelRecord>,
}

/// The log at work.
pub struct Ledger {
    of: Committed,
    log: OrderedLog,
    now: Snapshot,
    queue: Vec<Queued>,
    accounts: BTreeMap<u64, (Address, Bytes)>,
    decided: BTreeMap<Hash, Decided>,
    /// The last order of each account that was ordered.
    applied: BTreeMap<u64, Tip>,
    /// Channels that have changed since they were last asked for.
    changed: BTreeSet<Hash>,
    /// What broke while it worked.
    pub broken: Vec<String>,
    votes: u32,
}

impl Ledger {
    /// An empty one at the usual time, with money for each account.
    pub fn new(of: &Committed, accounts: &[(Address, Bytes, u64)]) -> Ledger {
        let balances = accounts.iter().map(|(address, _, amount)| (*address, i128::from(*amount))).collect();
        let (state, time_ms) = (MemState::default(), 0);
        let empty = Snapshot { state, time_ms, balances, tips: BTreeMap::new(), records: BTreeMap::new() };
        let mut ledger = Ledger::resume(of, &empty, accounts);
        ledger.clocks(START);
        ledger
    }

    /// One that goes on from a snapshot.
    pub fn resume(of: &Committed, at: &Snapshot, accounts: &[(Address, Bytes, u64)]) -> Ledger {
        let accounts = accounts.iter().map(|(a, permission, _)| (a.actor(), (*a, permission.clone()))).collect();
        Ledger {
            of: of.clone(),
            log: OrderedLog::new(of.committee.clone(), 0, of.keys[0].clone()),
            now: at.clone(),
            queue: Vec::new(),
            accounts,
            decided: BTreeMap::new(),
            applied: at.tips.clone(),
            changed: BTreeSet::new(),
            broken: Vec::new(),
            votes: 0,
        }
    }

    /// As it is now.
    pub fn snapshot(&self) -> Snapshot {
        self.now.clone()
    }

    /// Log time, ms.
    pub fn time_ms(&self) -> u64 {
        self.now.time_ms
    }

    /// A channel.
    pub fn record(&self, channel: &Hash) -> Option<&ChannelRecord> {
        self.now.records.get(channel)
    }

    /// All channels.
    pub fn records(&self) -> &BTreeMap<Hash, ChannelRecord> {
        &self.now.records
    }

    /// Those that have changed since.
    pub fn take_changed(&mut self) -> BTreeSet<Hash> {
        std::mem::take(&mut self.changed)
    }

    /// What an account has outside of channels, minor units.
    pub fn balance(&self, of: &Address) -> i128 {
        self.now.balances.get(of).copied().unwrap_or(0)
    }

    /// All accounts' money and all that channels hold.
    pub fn money(&self) -> i128 {
        let held = |record: &ChannelRecord| {
            let left = |side: &Option<wire::ChannelSide>| {
                side.as_ref().map_or(0, |s| i128::from(s.deposited) - i128::from(s.withdrawn))
            };
            left(&record.opener) + left(&record.other)
        };
        self.now.balances.values().sum::<i128>() + self.now.records.values().map(held).sum::<i128>()
    }

    /// The last order of an account that anybody has handed in.
    pub fn tip(&self, actor: u64) -> Tip {
        self.now.tips.get(&actor).copied().unwrap_or_default()
    }

    /// The order after a tip: its id, its body, and the tip that it makes.
    pub fn draft(&self, message: &Message, after: Tip) -> (Hash, Bytes, Tip) {
        let open = if after.seqnum == 0 { self.accounts.get(&message.account.actor()) } else { None };
        let call = wire::Call {
            account: Bytes::copy_from_slice(message.account.as_bytes()),
            previous_call: after.seqnum,
            inputs: message.inputs.clone(),
            outputs: message.outputs.iter().map(|kind| wire::Output { kind: Some(kind.clone()) }).collect(),
            memo: String::new(),
            open: open.map_or(Bytes::new(), |(_, permission)| permission.clone()),
        };
        let seqnum = after.seqnum + 1;
        let body = encode_body(&Body {
            network_id: NETWORK_ID,
            actor: message.account.actor(),
            cosignors: Vec::new(),
            seqnum,
            prev_hash: after.prev_hash,
            transaction_type: TYPE_CALL,
            content: encode_call(&call),
        });
        let id = order_id(&body);
        (id, body, Tip { seqnum, prev_hash: next_hash(&id) })
    }

    /// What an order takes from its account, minor units.
    pub fn cost(message: &Message) -> i128 {
        let out = message.outputs.iter().map(|one| match one {
            output::Kind::ChannelOpen(open) => open.amount,
            output::Kind::ChannelDeposit(deposit) => deposit.amount,
            output::Kind::Credit(credit) => credit.amount,
            _ => 0,
        });
        out.map(i128::from).sum::<i128>() - message.inputs.iter().map(|one| i128::from(one.amount)).sum::<i128>()
    }

    /// Hands an order in. It is ordered by `due_ms` at the latest, if those before it are.
    pub fn submit(&mut self, body: &Bytes, due_ms: u64) {
        let Ok(order) = Order::decode_body(body.clone()) else { return self.broken.push("an order is none".into()) };
        if self.decided.contains_key(&order.id) || self.queue.iter().any(|one| one.id == order.id) {
            return;
        }
        let tip = self.now.tips.entry(order.actor).or_default();
        if order.seqnum > tip.seqnum {
            *tip = Tip { seqnum: order.seqnum, prev_hash: next_hash(&order.id) };
        }
        let (id, actor, seqnum) = (order.id, order.actor, order.seqnum);
        self.queue.push(Queued { id, actor, body: body.clone(), seqnum, due_ms });
    }

    /// An account's orders that wait are never certified: their votes are lost.
    pub fn forget(&mut self, actor: u64) {
        let first = self.queue.iter().filter(|one| one.actor == actor).map(|one| one.seqnum).min();
        self.queue.retain(|one| one.actor != actor);
        if first.is_some() {
            self.now.tips.insert(actor, self.applied.get(&actor).copied().unwrap_or_default());
        }
    }

    /// What became of an order.
    pub fn decided(&self, id: &Hash) -> Option<&Decided> {
        self.decided.get(id)
    }

    /// When the next of them has to be ordered.
    pub fn due_ms(&self) -> Option<u64> {
        self.queue.iter().map(|one| one.due_ms).min()
    }

    /// Orders those that `take` picks, and those of the same accounts before them. Log time stands still.
    pub fn order(&mut self, mut take: impl FnMut(u64) -> bool) {
        let mut picked: BTreeMap<u64, u32> = BTreeMap::new();
        for one in &self.queue {
            if take(one.due_ms) {
                let last = picked.entry(one.actor).or_default();
                *last = (*last).max(one.seqnum);
            }
        }
        let (mut now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.queue)
            .into_iter()
            .partition(|one| picked.get(&one.actor).is_some_and(|last| one.seqnum <= *last));
        self.queue = later;
        now.sort_by_key(|one| one.seqnum);
        let mut fresh = Vec::new();
        for one in now {
            match self.debit(&one) {
                Ok(()) => fresh.push(one),
                Err(what) => self.broken.push(what),
            }
        }
        if fresh.is_empty() {
            return;
        }
        for one in &fresh {
            self.applied.insert(one.actor, Tip { seqnum: one.seqnum, prev_hash: next_hash(&one.id) });
        }
        let item = self.certify(&fresh);
        self.unit(0, 0, vec![item]);
        for one in &fresh {
            if !self.decided.contains_key(&one.id) {
                self.broken.push(format!("order {} of actor {} was not decided", one.seqnum, one.actor));
            }
        }
    }

    /// The spending side.
    fn debit(&mut self, one: &Queued) -> Result<(), String> {
        let order = Order::decode_body(one.body.clone()).map_err(|e| e.to_string())?;
        let content = Content::decode(&order).map_err(|e| format!("a manager's order is refused: {e}"))?;
        let (address, _) = self.accounts.get(&one.actor).ok_or("an order of nobody")?;
        let balance = self.now.balances.entry(*address).or_default();
        *balance -= i128::from(content.total);
        if *balance < 0 { Err("an account has paid more than it has".into()) } else { Ok(()) }
    }

    fn certify(&self, orders: &[Queued]) -> Bytes {
        let ids: Vec<Hash> = orders.iter().map(|one| one.id).collect();
        let batch = BatchId { root: Tree::new(&ids).root(), count: ids.len() };
        let all = Bitmap::full(ids.len());
        let committee = &self.of.committee;
        let votes = (0..committee.quorum() as u32)
            .map(|i| sign(Promise::Vote, committee, i, &self.of.keys[i as usize], &batch, &all))
            .collect();
        let root = Bytes::copy_from_slice(&batch.root);
        let certificate = wire::Certificate { epoch: committee.epoch, root, count: batch.count as u32, votes };
        let orders = wire::CertifiedOrders {
            certificate: Some(certificate),
            indices: (0..ids.len() as u32).collect(),
            bodies: orders.iter().map(|one| one.body.clone()).collect(),
            proof: Vec::new(),
        };
        wire::Item { kind: Some(wire::item::Kind::Orders(orders)) }.encode_to_vec().into()
    }

    /// The clocks of a quorum say so; that of the last one may be anywhere.
    pub fn clocks(&mut self, to_ms: u64) {
        self.votes += 1;
        for i in 0..self.of.committee.quorum() as u32 {
            self.unit((self.votes + i) % 4, to_ms, Vec::new());
        }
        if self.now.time_ms < to_ms {
            // The first votes of all.
            self.unit((self.votes + 3) % 4, to_ms, Vec::new());
        }
    }

    fn unit(&mut self, creator: u32, clock_ms: u64, items: Vec<Bytes>) {
        for data in pack(clock_ms, items) {
            let book = match self.log.book(&self.now.state) {
                Ok(book) => book,
                Err(e) => return self.broken.push(format!("the log's book: {e}")),
            };
            let input = Input::Unit { session: book.session, position: book.units, creator, round: 0, data };
            match self.log.handle(input, &self.now.state) {
                Ok(effects) => self.apply(effects.writes),
                Err(e) => self.broken.push(format!("a unit is refused: {e}")),
            }
        }
        if let Ok(book) = self.log.book(&self.now.state) {
            self.now.time_ms = book.time_ms;
        }
    }

    fn apply(&mut self, writes: Vec<florin_core::authority::state::Write>) {
        let mut kept = Vec::with_capacity(writes.len());
        for write in writes {
            let value = write.value.as_deref().unwrap_or_default();
            match (write.table, write.key.first().copied()) {
                (Table::Units, _) => continue,
                (Table::Outbox, _) => {
                    self.credit(value);
                    continue;
                }
                (Table::Objects, Some(kind)) if kind == Object::Channel as u8 => {
                    let id = Hash::try_from(&write.key[1..]).unwrap_or_default();
                    match ChannelRecord::decode(value) {
                        Ok(record) => drop(self.now.records.insert(id, record)),
                        Err(e) => self.broken.push(format!("a channel's record: {e}")),
                    }
                    self.changed.insert(id);
                }
                (Table::Objects, Some(kind)) if kind == Object::Outcome as u8 => {
                    let record = wire::OutcomeRecord::decode(value).unwrap_or_default();
                    let id = Hash::try_from(&record.order_id[..]).unwrap_or_default();
                    self.decided.insert(id, (record.code != 0).then_some((record.code, record.message)));
                }
                _ => {}
            }
            kept.push(write);
        }
        self.now.state.apply(&kept);
    }

    fn credit(&mut self, delivery: &[u8]) {
        let delivery = wire::Delivery::decode(delivery).unwrap_or_default();
        for credit in delivery.credits {
            if let Ok(address) = Address::from_slice(&credit.address) {
                *self.now.balances.entry(address).or_default() += i128::from(credit.amount);
            }
        }
    }
}
